"""Policies whose parameters are drawn once per episode: exploration in parameters instead of
actions (PGPE; Sehnke et al. 2010, "Parameter-exploring policy gradients").

    θ ~ N(μ, σ²),  a = the mode of π_θ(·|s),   ĝ = (1/N) Σₙ Ψₙ ∇ log N(θₙ; μ, σ)

The score of an episode is that of its θ, placed at its first step; with any estimator from complete
episodes whose Ψ at that step is the return less a baseline, such as leave_one_out, ĝ is unbiased
for ∇ E[R(θ)] in (μ, log σ), and needs no derivative of the policy.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, Shaped

from pg.distributions import Gaussian
from pg.inputs import check_kind
from pg.network_type import Network

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Drawn(NamedTuple):
    """The parameters of one episode: leaves [B, ...] in a batch."""

    theta: Float[Array, "*B P"]  # flattened as `ravel_pytree` does
    is_drawn: Bool[Array, "*B"]  # False: an episode that acts by the mean, μ


class OfParameters(NamedTuple):
    """The mode of a policy as a distribution whose log-density is that of the parameters."""

    dist: Any  # that of the policy with the episode's parameters
    density: Float[Array, "*B"]  # log N(θ; μ, σ) at an episode's first step, 0 at the others
    spread: Float[Array, "*B"]  # the entropy of N(μ, σ²), in nats, at that step

    def draw(self, key: PRNGKeyArray) -> Any:
        """The policy's action noise, on which nothing depends."""
        return self.dist.draw(key)

    def sample(self, noise: Any) -> Any:
        """The mode of the policy, whatever the noise."""
        return self.dist.mode()

    def mode(self) -> Any:
        """The mode of the policy."""
        return self.dist.mode()

    def action(self, sample: Any) -> Any:
        """The action for the environment."""
        return self.dist.action(sample)

    def log_prob(self, sample: Any) -> Float[Array, "*B"]:
        """The log-density of the parameters, [...], at an episode's first step."""
        return self.density

    def entropy(self) -> Float[Array, "*B"]:
        """The entropy of the parameters, [...], at an episode's first step."""
        return self.spread


def perturbed(policy: Network, std: float = 0.3) -> Network:
    """The policy with parameters θ ~ N(μ, σ²), drawn once per episode, acting by its mode.

    Its parameters are {"mean": μ, "log_std": log σ}, trees like the policy's; greedy episodes act
    by μ. As Config's `policy`:

        def in_parameters(config, env):
            return pg.parameter_noise.perturbed(pg.make_policy(config, env))

        pg.Config(estimator="leave_one_out", policy=in_parameters, hidden_sizes=())

    Args:
        policy: A policy without a recurrent cell.
        std: σ of each parameter at the start.

    Raises:
        ValueError: A recurrent policy.
    """
    check_kind("policy", policy, Network, "write pg.make_policy(config, env)")
    if policy.recurrent:
        raise ValueError("parameters are drawn for a policy without a recurrent cell")

    def init(key: PRNGKeyArray) -> PyTree:
        mean = policy.init(key)
        log_std = jax.tree.map(lambda x: jnp.full_like(x, math.log(std)), mean)
        return {"mean": mean, "log_std": log_std}

    def draw_carry(params: PyTree, noise: Float[Array, " P"]) -> Drawn:
        mean, log_std = (ravel_pytree(params[name])[0] for name in ("mean", "log_std"))
        return Drawn(mean + jnp.exp(log_std) * noise, jnp.bool_(True))

    def apply(
        params: PyTree, carry: Drawn, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[Drawn, OfParameters]:
        mean, unravel = ravel_pytree(params["mean"])
        log_std = ravel_pytree(params["log_std"])[0]
        carry = jax.lax.stop_gradient(carry)
        is_counted = first & jnp.broadcast_to(carry.is_drawn, first.shape)
        theta = jnp.where(carry.is_drawn[..., None], carry.theta, mean[None])
        scaled = (theta - mean[None]) * jnp.exp(-log_std)[None]
        density = -jnp.sum(0.5 * scaled**2 + (log_std + _LOG_SQRT_2PI)[None], axis=-1)
        spread = jnp.sum(log_std + 0.5 + _LOG_SQRT_2PI)

        def one(theta: Float[Array, " P"], obs: PyTree, first: Shaped[Array, "..."]) -> Any:
            return policy.apply(unravel(theta), (), obs, first)[1]

        episodes = first.ndim - 1  # the axis of the environments, for one step or a sequence
        dist = jax.vmap(one, (0, episodes, episodes), episodes)(theta, obs, first)
        density = jnp.broadcast_to(density, first.shape)
        return carry, OfParameters(
            dist,
            jnp.where(is_counted, density, 0.0),
            jnp.where(is_counted, spread, 0.0),
        )

    shapes = jax.tree.leaves(jax.eval_shape(policy.init, jax.random.key(0)))
    number = sum(math.prod(x.shape) for x in shapes)
    zeros = jnp.zeros(number, jnp.result_type(*shapes))
    return policy._replace(
        init=init,
        apply=apply,
        carry=Drawn(zeros, jnp.bool_(False)),
        draw_carry=draw_carry,
        carry_noise=Gaussian(zeros, zeros),
    )
