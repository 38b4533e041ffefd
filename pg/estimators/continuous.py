"""Critics Q(s, a) of continuous actions: the actions taken, and the mean of Q over the policy's
actions, from a function of the action at each state or from a network at sampled actions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from pg.distributions import moments
from pg.estimators.base import (
    ONE_NUMBER,
    Params,
    critic_output,
    map_along,
    per_step,
    policy_output,
)
from pg.extra_rollouts import ExtraRollouts
from pg.fast import blocks
from pg.layers import ActionFunction
from pg.networks import Network, Pair
from pg.rollout import Trajectory
from pg.surrogates import reweighted


class AtActions(NamedTuple):
    """Q along a trajectory, and the actions taken, in the form that Q takes."""

    q: Any  # [T, B, A] for discrete actions, a `FunctionOfAction` for continuous ones
    action: Shaped[Array, "T B *D"]


class SampledValues(NamedTuple):
    """Q at the action taken, and at M other samples of the policy: the values of any network of
    observation and action (a Monte Carlo sum over actions; Petit et al. 2019, 1910.09093).
    """

    own: Float[Array, "T B"]
    values: Float[Array, "T B M"]
    samples: Float[Array, "T B M D"]  # as `dist.sample` returns them
    log_prob: Float[Array, "T B M"]  # of the samples, when they were drawn

    @property
    def mean(self) -> Float[Array, "T B"]:
        """The mean over the samples, [T, B]."""
        return jnp.mean(self.values, axis=-1)

    def expectation(self, dist: Any) -> Float[Array, "T B"]:
        """An unbiased estimate of E[Q(a)] over the actions of a distribution, [T, B], with an
        unbiased derivative in the distribution: (1/M) Σ ρ(aₘ) (Q(aₘ) - bₘ) + bₘ.

        ρ is the ratio to the sampling distribution, equal to 1 with the derivative ∇log π there,
        and bₘ is the mean of the other samples' values, or 0 for a single sample.
        """

        def scored(sample: Float[Array, "T B D"]) -> Float[Array, "T B"]:
            log_prob: Float[Array, "T B"] = dist.log_prob(sample)
            return log_prob

        log_ratio = _of_each_sample(scored, self.samples) - self.log_prob
        total = jnp.sum(self.values, axis=-1, keepdims=True)
        others = (total - self.values) / max(self.values.shape[-1] - 1, 1)
        return jnp.mean(reweighted(self.values - others, log_ratio) + others, axis=-1)

    def affine(
        self, scale: Float[Array, "T B"], shift: Float[Array, "T B"] | float = 0.0
    ) -> "SampledValues":
        """scale Q + shift, both [T, B] or one number for all states."""
        own = shift + scale * self.own
        more = jnp.broadcast_to(shift, own.shape)[..., None]
        return self._replace(own=own, values=more + scale[..., None] * self.values)


FunctionOfAction = ActionFunction | SampledValues


def extra_rollouts_of(critic: Network) -> ExtraRollouts:
    """The extra actions over which a critic is averaged; none if its mean is known."""
    return ExtraRollouts(actions=critic.action_samples)


def sampled_values(
    policy: Network, critic: Network, params: Params, traj: Trajectory
) -> SampledValues:
    """Q along a trajectory by a network of a `Pair` of observation and action, at the actions taken
    and at the extra ones; 0 in blocks of time without a valid step.

    Raises ValueError for a trajectory without extra actions.
    """
    if not jax.tree.leaves(traj.other_actions):
        raise ValueError(
            "there are no extra actions to average over: collect with "
            "pg.episodes(..., extra_rollouts=estimator.extra_rollouts)"
        )

    def block(rows: Trajectory) -> SampledValues:
        dist = policy_output(policy, params, rows)

        def value(sample: Float[Array, "K B D"]) -> Float[Array, "K B"]:
            pair = Pair(rows.obs, dist.action(sample))
            q = critic_output(critic, params, rows._replace(obs=pair))
            return per_step("the critic's Q", q, rows, ONE_NUMBER)

        def scored(sample: Float[Array, "K B D"]) -> Float[Array, "K B"]:
            log_prob: Float[Array, "K B"] = dist.log_prob(sample)
            return log_prob

        others = rows.other_actions
        values, log_prob = (_of_each_sample(f, others) for f in (value, scored))
        return SampledValues(value(rows.action), values, others, log_prob)

    along: SampledValues = map_along(policy, block, traj)
    return along


def _of_each_sample(f: Any, samples: Float[Array, "T B M D"]) -> Float[Array, "T B M"]:
    """A function of an action at each state, [T, B, D] -> [T, B], at M actions."""
    of_each: Float[Array, "T B M"] = jax.vmap(f, in_axes=2, out_axes=2)(samples)
    return of_each


def action_functions(critic: Network, params: Params, traj: Trajectory) -> ActionFunction:
    """Q at every step as a function of the action, leaves [T, B, ...]; 0 in blocks of time without
    a valid step.

    Raises ValueError if the critic returns anything else.
    """

    def block(rows: Trajectory) -> ActionFunction:
        q = critic_output(critic, params, rows)
        if not isinstance(q, ActionFunction):
            raise ValueError(
                "the critic's Q of continuous actions must be a pg.layers.Quadratic or "
                f"pg.layers.Sinusoids, got shape {list(q.shape)}"
            )
        return q

    along: ActionFunction = map_along(critic, block, traj)
    return along


def expectation_along(
    policy: Network, params: Params, traj: Trajectory, q: FunctionOfAction
) -> Float[Array, "T B"]:
    """E[Q(s, a)] over the policy's actions along a trajectory, [T, B], or the mean of sampled
    values; 0 in blocks of time without a valid step.
    """
    if isinstance(q, SampledValues):
        return q.mean

    def block(rows: tuple[Trajectory, ActionFunction]) -> Float[Array, "K B"]:
        traj, q = rows
        return q.expectation(policy_output(policy, params, traj))

    if not policy.recurrent:
        traj = traj.without_carry
    along: Float[Array, "T B"] = blocks.map_steps(
        block, (traj, q), traj.valid, one_block=policy.recurrent
    )
    return along


def moments_along(
    policy: Network, params: Params, traj: Trajectory
) -> tuple[Float[Array, "T B D"], Float[Array, "T B D"]]:
    """Mean and variance of each entry of the policy's actions along a trajectory, [T, B, D]."""

    def block(rows: Trajectory) -> tuple[Float[Array, "K B D"], Float[Array, "K B D"]]:
        return moments(policy_output(policy, params, rows))

    mean, variance = map_along(policy, block, traj)
    return mean, variance


def actions_taken(policy: Network, params: Params, traj: Trajectory) -> Float[Array, "T B D"]:
    """The actions of the environment, [T, B, D]: the policy's samples, clipped or squashed."""

    def block(rows: Trajectory) -> Float[Array, "K B D"]:
        return policy_output(policy, params, rows).action(rows.action)

    return map_along(policy, block, traj)
