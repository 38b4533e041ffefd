"""Continuous actions beside a critic Q(s, a), a function of them at each state: the actions that a
policy took, and its values on average.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Shaped

from pg.distributions import moments
from pg.estimators.base import Params, critic_output, map_along, policy_output
from pg.fast import blocks
from pg.layers import ActionFunction
from pg.networks import Network
from pg.rollout import Trajectory


class AtActions(NamedTuple):
    """Q along a trajectory, and the actions that were taken, as Q takes them."""

    q: Any  # [T, B, A] of discrete actions, a function of continuous ones
    action: Shaped[Array, "T B *D"]


def action_functions(critic: Network, params: Params, traj: Trajectory) -> ActionFunction:
    """Q at every step as a function of the action, leaves [T, B, ...]; 0 in blocks of time without
    a valid step.

    Raises ValueError where the critic gives anything else.
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
    policy: Network, params: Params, traj: Trajectory, q: ActionFunction
) -> Float[Array, "T B"]:
    """E[Q(s, a)] over the policy's actions along a trajectory, [T, B]; 0 in blocks of time without
    a valid step.
    """

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
    """The actions of the environment, [T, B, D]: the samples that were scored, clipped or squashed
    as the policy does.
    """

    def block(rows: Trajectory) -> Float[Array, "K B D"]:
        return policy_output(policy, params, rows).action(rows.action)

    return map_along(policy, block, traj)
