"""Directions that remember: a gradient corrected by what the same episodes say of earlier
parameters.

    dₖ = g(θₖ) + (d - w g(θ')),   w = p(τ; θ') / p(τ; θₖ),   τ ~ p(·; θₖ)

The correction has mean d - ∇J(θ'), so that dₖ is unbiased where d is, for ∇J(θ'); its variance is
of the order of ‖θₖ - θ'‖². Without w it would be biased: g(θ') is taken on the episodes of another
policy. For estimators of complete episodes whose Ψ does not depend on the policy, and so without a
temperature (`Facts.psi_depends_on_policy` marks the others, which are refused); an entropy bonus is
not weighed, and the critic's part passes as it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pg.estimators import Estimator, Params, Weighted
from pg.estimators.base import log_ratio
from pg.networks import Network


def importance_weighted_gradient(
    estimator: Estimator, policy: Network, params: Params, batch: Weighted
) -> Params:
    """w g(θ') of θ' = params, from episodes of another policy; like params, a gradient of the LOSS.

    batch: as weighted under the policy that acted. An episode's Ψ is multiplied by w = Πₜ
    π_θ'(aₜ|sₜ) / π(aₜ|sₜ).
    """
    weight = jnp.exp(jnp.sum(log_ratio(policy, params, batch.traj), axis=0))
    weight = weight.reshape(1, -1, *[1] * (batch.psi.ndim - 2))
    return estimator.grad(params, batch._replace(psi=weight * batch.psi))[0]


Schedule = Callable[[jax.Array], jax.Array]  # updates so far -> bool []


class Memory(NamedTuple):
    """What is carried from update to update."""

    step: jax.Array  # int [] updates so far
    params: Any  # of the policy: θ'
    direction: Any  # d, for θ'


def storm(momentum: Any = 0.9) -> optax.GradientTransformationExtraArgs:
    """dₖ = g(θₖ) + m (dₖ₋₁ - w g(θₖ₋₁)): recursive momentum (STORM-PG, Yuan et al. 2020,
    2003.04302, with m = 1 - α).

    momentum: m in [0, 1]; 0 is the plain gradient, 1 forgets nothing.
    """
    return _corrected(lambda step: step > 0, momentum, renewed=lambda step: step >= 0)


def svrpg(period: Any = 10) -> optax.GradientTransformationExtraArgs:
    """dₖ = g(θₖ) + (μ - w g(θ')): a snapshot θ' with its gradient μ, every `period` updates (SVRPG,
    1806.05618).

    At a snapshot dₖ = μ = g(θₖ), of a batch as large as the others. Updates that are skipped do not
    count.
    """
    return _corrected(lambda step: step % period > 0, 1.0, renewed=lambda step: step % period == 0)


def _corrected(
    used: Schedule, momentum: Any, renewed: Schedule
) -> optax.GradientTransformationExtraArgs:
    """used: at which updates the memory corrects the gradient. renewed: at which it becomes this
    update's.
    """

    def init(params: Any) -> Memory:
        return Memory(jnp.int32(0), params.policy, jax.tree.map(jnp.zeros_like, params.policy))

    def update(
        updates: Any,
        memory: Memory,
        params: Any = None,
        *,
        batch: Weighted,
        policy: Network,
        estimator: Estimator,
        **extra: Any,
    ) -> Any:
        earlier = params._replace(policy=memory.params)
        old = importance_weighted_gradient(estimator, policy, earlier, batch).policy
        step, corrects = memory.step, used(memory.step)
        direction = jax.tree.map(
            lambda g, d, o: g + jnp.where(corrects, momentum * (d - o), 0.0),
            updates.policy,
            memory.direction,
            old,
        )
        new, kept = Memory(step + 1, params.policy, direction), memory._replace(step=step + 1)
        memory = jax.tree.map(lambda a, b: jnp.where(renewed(step), a, b), new, kept)
        return updates._replace(policy=direction), memory

    return optax.GradientTransformationExtraArgs(init, update)
