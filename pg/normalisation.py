"""Running statistics, which standardise observations and scale rewards.

    obs ↦ clip((obs - mean) / std, ±10)
    reward ↦ reward / max(std, range / 10) of the discounted return

Both acting and learning use the statistics *before* the batch, so that log-probabilities agree, and
the scale does not depend on the batch and does not change an estimator's direction. Statistics are
merged exactly (Chan et al. 1979); each is stored as an unevaluated sum of two floats, since a
single float stops counting at 2²⁴.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree, Shaped

from pg import returns, rounding
from pg.axes import expand_to
from pg.config import Config
from pg.envs import Masked
from pg.envs.observations import is_shape, map_observation
from pg.envs.views import View, seen
from pg.fast import blocks
from pg.networks import Network, as_float
from pg.rollout import Trajectory

# The bound of a standardised observation, as in OpenAI's baselines, and of the range of scaled
# returns.
LIMIT = 10.0


class Sum(NamedTuple):
    """high + low, with about twice the precision of a float."""

    high: Float[Array, "*O"]
    low: Float[Array, "*O"]

    def add(self, x: Float[Array, "*O"]) -> "Sum":
        """The sum with x added, keeping the rounding error (Knuth's two-sum)."""
        high = self.high + x
        rounded = high - self.high
        low = self.low + ((self.high - (high - rounded)) + (x - rounded))
        total = high + low
        return Sum(total, low - (total - high))


class Moments(NamedTuple):
    """Number, mean and variance (divided by the number) of all samples so far; mean and var are
    [...].
    """

    number: Sum
    mean: Sum
    var: Sum

    @classmethod
    def start(cls, shape: tuple[int, ...] = ()) -> "Moments":
        """The moments of no samples: mean 0 and variance 1, so that nothing changes."""
        zero, one = jnp.zeros(shape), jnp.ones(shape)
        return cls(Sum(jnp.zeros(()), jnp.zeros(())), Sum(zero, zero), Sum(one, zero))

    def merge(self, x: Shaped[Array, "T B *O"], valid: Bool[Array, "T B"]) -> "Moments":
        """The moments with the valid samples of x [T, B, ...] included, which may be bytes."""
        new = jnp.sum(valid, dtype=self.mean.high.dtype)
        share = 1 / jnp.maximum(new, 1.0)
        # Sums are over distances from the mean so far and from a sample, so that a large offset
        # does not cost precision, and the variance of equal samples is exactly 0; the first step of
        # a collected batch is always valid.
        sample = jnp.where(valid[:1, :1].any(), self._from_mean(x[:1, :1]), 0.0)

        def distance(rows: Shaped[Array, "K B *O"]) -> Float[Array, "K B *O"]:
            return self._from_mean(rows) - sample

        below = share * _sum_of(distance, x, valid)
        shift = sample[0, 0] + below
        var = share * _sum_of(lambda rows: (distance(rows) - below[None, None]) ** 2, x, valid)
        number = self.number.add(new)
        weight = new / jnp.maximum(number.high, 1.0)
        spread = ((var - self.var.high) - self.var.low) + (1.0 - weight) * shift**2
        return Moments(number, self.mean.add(weight * shift), self.var.add(weight * spread))

    def _from_mean(self, x: Shaped[Array, "K B *O"]) -> Float[Array, "K B *O"]:
        """x minus the mean so far, [K, B, ...], in floats."""
        return (as_float(x) - self.mean.high[None, None]) - self.mean.low[None, None]


def _sum_of(
    f: Callable[[Array], Array], x: Shaped[Array, "T B *O"], valid: Bool[Array, "T B"]
) -> Float[Array, "*O"]:
    """Σ of f over the valid samples of x [T, B, ...], [...]: block by block, as frames take much
    memory as floats.
    """

    def block(rows: tuple[Shaped[Array, "K B *O"], Bool[Array, "K B"]]) -> Float[Array, "*O"]:
        samples, valid = rows
        mask = expand_to(valid, samples)
        return jnp.sum(jnp.where(mask, f(samples), 0.0), axis=(0, 1))

    return blocks.sum_steps(block, (x, valid), valid)


class Normaliser(NamedTuple):
    """The running statistics of a run; `()` for those that are not used."""

    obs: PyTree  # Moments of the observation [*O], or a tree of them
    returns: Moments | tuple[()]  # of the discounted running return, at every step
    running: PyTree  # [B] the discounted return so far of episodes that continue in the next window
    extremes: PyTree = ()  # the smallest and the largest discounted return so far


def start(config: Config, obs_shape: Any) -> Normaliser:
    """The statistics before the first batch. obs_shape: that of an observation, or a tree."""
    obs: PyTree = ()
    if config.normalise_observations:
        obs = jax.tree.map(Moments.start, obs_shape, is_leaf=is_shape)
        if obs_shape == ():  # a scalar observation; as a tree it would have no leaves
            obs = Moments.start()
    if not config.scale_rewards:
        return Normaliser(obs, (), ())
    extremes = jnp.full((), jnp.inf), jnp.full((), -jnp.inf)
    return Normaliser(obs, Moments.start(), jnp.zeros(config.num_envs), extremes)


def observe(normaliser: Normaliser, traj: Trajectory, gamma: Float[ArrayLike, ""]) -> Normaliser:
    """The statistics with a batch included.

    Args:
        normaliser: the statistics before it.
        traj: the collected batch, with unscaled rewards.
        gamma: γ of the returns.
    """
    obs, scale, running, extremes = normaliser
    shown = traj.obs.obs if isinstance(traj.obs, Masked) else traj.obs
    if jax.tree.leaves(obs):
        obs = jax.tree.map(lambda x, moments: moments.merge(x, traj.valid), shown, obs)
    if isinstance(scale, Moments):
        # Rₜ = rₜ + γ Rₜ₋₁ within an episode: the recurrence of `returns`, forwards.
        reward = jnp.where(traj.valid, traj.reward, 0.0)[::-1]
        so_far = returns.discounted_sum(
            reward, gamma * (1.0 - traj.first[::-1].astype(reward.dtype)), running
        )[::-1]
        scale, running = scale.merge(so_far, traj.valid), so_far[-1]
        low, high = extremes
        low = jnp.minimum(low, jnp.min(so_far, initial=jnp.inf, where=traj.valid))
        high = jnp.maximum(high, jnp.max(so_far, initial=-jnp.inf, where=traj.valid))
        extremes = low, high
    return Normaliser(obs, scale, running, extremes)


def with_standardised_observations(network: Network, normaliser: Normaliser) -> Network:
    """The network on standardised observations; unchanged without `normalise_observations`."""
    statistics = normaliser.obs
    if not jax.tree.leaves(statistics):
        return network

    def one(obs: Shaped[Array, "..."], moments: Moments) -> Float[Array, "..."]:
        mean = jnp.broadcast_to(moments.mean.high, obs.shape)
        var = jnp.broadcast_to(moments.var.high, obs.shape)
        return jnp.clip((obs - mean) / jnp.sqrt(var + 1e-8), -LIMIT, LIMIT)

    def shown(obs: PyTree) -> PyTree:
        return map_observation(one, obs, statistics)

    def apply(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        if network.outcome:
            return network.apply(params, carry, obs.map_observations(shown, network.outcome), first)
        return network.apply(params, carry, shown(obs), first)

    return network._replace(apply=apply, expects_standardised=False)


def seen_by(normaliser: Normaliser, view: View) -> Normaliser:
    """The statistics of a view's part of an observation; unchanged without such statistics."""
    if not jax.tree.leaves(normaliser.obs):
        return normaliser
    return normaliser._replace(obs=seen(normaliser.obs, view))


def scaled(traj: Trajectory, normaliser: Normaliser) -> Trajectory:
    """The trajectory with scaled rewards; unchanged without `scale_rewards`.

    It is also unchanged until two returns differ: a constant return gives no scale. (Dividing by
    √10⁻⁸ would turn a first reward of 1 into 10⁴.) One nonzero return among many zeros has a tiny
    standard deviation, so the scale is at least a tenth of the range of the returns. The usual
    wrappers clip rewards at ±10 for both reasons, which makes rare rewards of 1 and of 5 equal;
    here all are divided by one number, which does not change the direction of the gradient.
    """
    moments = normaliser.returns
    if not isinstance(moments, Moments):
        return traj
    mean, var = moments.mean.high, moments.var.high
    low, high = normaliser.extremes
    any_returns = moments.number.high > 0.0
    differs = any_returns & (var > rounding.of_size(mean) ** 2)
    # Below 0 before the first return.
    least = jnp.maximum(high - low, 0.0) / LIMIT
    scale = jnp.sqrt(jnp.where(differs, jnp.maximum(var + 1e-8, least**2), 1.0))

    def scaled(rollouts: Any) -> Any:  # () where there are none
        return rollouts._replace(reward=rollouts.reward / scale) if rollouts else rollouts

    traj = traj._replace(
        greedy=scaled(traj.greedy),
        successors=scaled(traj.successors),
        lookahead=scaled(traj.lookahead),
    )
    if traj.branches:
        reward_to_go = traj.branches.reward_to_go / scale
        traj = traj._replace(branches=traj.branches._replace(reward_to_go=reward_to_go))
    return scaled(traj)
