"""Running statistics of what training meets: observations standardised, rewards brought to one scale.

    obs ↦ clip((obs - mean) / std, ±10)        reward ↦ reward / std of the discounted return

Both are used as they were *before* a batch was collected, for acting and for learning alike: the log-probabilities
of the two agree, and a scale that does not depend on the batch leaves an estimator's direction as it is.
Statistics are merged exactly (Chan et al. 1979); each number is kept as an unevaluated sum of two floats, since one
float stops counting at 2²⁴.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pg import returns, rounding
from pg.config import Config
from pg.networks import Network, as_float
from pg.rollout import Trajectory

LIMIT = 10.0  # of a standardised observation, as is usual since OpenAI's baselines


class Sum(NamedTuple):
    """high + low, of about twice the digits of a float."""

    high: jax.Array
    low: jax.Array

    def add(self, x: jax.Array) -> "Sum":
        """This and x, the rounding error kept (Knuth's two-sum)."""
        high = self.high + x
        rounded = high - self.high
        low = self.low + ((self.high - (high - rounded)) + (x - rounded))
        total = high + low
        return Sum(total, low - (total - high))


class Moments(NamedTuple):
    """Number, mean and variance (divided by the number) of all samples so far; mean and var are [...]."""

    number: Sum
    mean: Sum
    var: Sum

    @classmethod
    def start(cls, shape: tuple[int, ...] = ()) -> "Moments":
        """Of nothing yet: mean 0, and variance 1 so that nothing is changed."""
        zero, one = jnp.zeros(shape), jnp.ones(shape)
        return cls(Sum(jnp.zeros(()), jnp.zeros(())), Sum(zero, zero), Sum(one, zero))

    def merge(self, x: jax.Array, valid: jax.Array) -> "Moments":
        """With samples x [T, B, ...] where valid [T, B]; as it is where there is none."""
        mask = valid.reshape(*valid.shape, *[1] * (x.ndim - 2))
        new = jnp.sum(valid, dtype=x.dtype)
        share = 1 / jnp.maximum(new, 1.0)
        equal = rounding.equal(x, rounding.of_size(x), mask, axis=(0, 1))[0, 0]
        # Relative to the mean so far, so that a large offset does not eat the digits.
        x = jnp.where(mask, (x - self.mean.high[None, None]) - self.mean.low[None, None], 0.0)
        # The sum of many equal numbers is off by many roundings, and a variance must not be made of these.
        largest = jnp.where(new > 0, jnp.max(x, axis=(0, 1), initial=-jnp.inf, where=mask), 0.0)
        below = share * jnp.sum(jnp.where(mask, x - largest[None, None], 0.0), axis=(0, 1))
        shift = jnp.where(equal, largest + below, share * jnp.sum(x, axis=(0, 1)))
        var = share * jnp.sum(jnp.where(mask, (x - shift[None, None]) ** 2, 0.0), axis=(0, 1))
        number = self.number.add(new)
        weight = new / jnp.maximum(number.high, 1.0)
        spread = ((var - self.var.high) - self.var.low) + (1.0 - weight) * shift**2
        return Moments(number, self.mean.add(weight * shift), self.var.add(weight * spread))


class Normaliser(NamedTuple):
    """What a run has met so far; `()` for what is not asked for."""

    obs: Any  # Moments of the observation [*O]
    returns: Any  # Moments of the discounted return so far, at every step
    running: Any  # [B] the discounted return so far, of episodes that go on in the next window


def start(config: Config, obs_shape: tuple[int, ...]) -> Normaliser:
    """Of nothing yet."""
    obs = Moments.start(obs_shape) if config.normalise_observations else ()
    if not config.scale_rewards:
        return Normaliser(obs, (), ())
    return Normaliser(obs, Moments.start(), jnp.zeros(config.num_envs))


def observe(normaliser: Normaliser, traj: Trajectory, gamma: Any) -> Normaliser:
    """With a batch included. traj: as collected, its rewards unscaled."""
    obs, scale, running = normaliser
    if isinstance(obs, Moments):
        obs = obs.merge(as_float(traj.obs), traj.valid)
    if isinstance(scale, Moments):
        # Rₜ = rₜ + γ Rₜ₋₁ within an episode: the recurrence of `returns`, forwards.
        reward = jnp.where(traj.valid, traj.reward, 0.0)[::-1]
        so_far = returns.discounted_sum(reward, gamma * (1.0 - traj.first[::-1].astype(reward.dtype)), running)[::-1]
        scale, running = scale.merge(so_far, traj.valid), so_far[-1]
    return Normaliser(obs, scale, running)


def standardised(network: Network, normaliser: Normaliser) -> Network:
    """The network, seeing standardised observations; as it is if they are not asked for."""
    moments = normaliser.obs
    if not isinstance(moments, Moments):
        return network

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        mean, var = (jnp.broadcast_to(x.high, obs.shape) for x in (moments.mean, moments.var))
        seen = jnp.clip((obs - mean) / jnp.sqrt(var + 1e-8), -LIMIT, LIMIT)
        return network.apply(params, carry, seen, first)

    return network._replace(apply=apply, unstandardised=False)


def scaled(traj: Trajectory, normaliser: Normaliser) -> Trajectory:
    """The trajectory with rewards on the scale of the returns; as it is if that is not asked for.

    As it is, too, until returns have been seen that differ: no reward yet, or the same return at every step, is no
    scale. (Divided by √10⁻⁸ instead, the first reward of 1 would be 10⁴, which the usual wrappers clip at 10.)
    """
    moments = normaliser.returns
    if not isinstance(moments, Moments):
        return traj
    mean, var = moments.mean.high, moments.var.high
    differs = var > rounding.of_size(mean) ** 2
    return traj._replace(reward=traj.reward / jnp.sqrt(jnp.where(differs, var + 1e-8, 1.0)))
