"""Continuous actions beside a critic Q(s, a) that is quadratic in them: the actions that a policy
took, and what it takes on average.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Shaped

from pg.estimators.base import Params, critic_output, map_along, policy_output
from pg.inputs import described
from pg.layers import Quadratic
from pg.networks import Network
from pg.rollout import Trajectory

Moments = tuple[Float[Array, "T B D"], Float[Array, "T B D"]]


class AtActions(NamedTuple):
    """Q along a trajectory, and the actions that were taken, as Q takes them."""

    q: Any  # [T, B, A] of discrete actions, a Quadratic of continuous ones
    action: Shaped[Array, "T B *D"]


def action_functions(critic: Network, params: Params, traj: Trajectory) -> Quadratic:
    """Q at every step as a function of the action, leaves [T, B, ...]; 0 in blocks of time without
    a valid step.

    Raises ValueError where the critic gives anything else.
    """

    def block(rows: Trajectory) -> Quadratic:
        q = critic_output(critic, params, rows)
        if not isinstance(q, Quadratic):
            raise ValueError(
                f"the critic's Q of continuous actions must be a pg.layers.Quadratic, got shape "
                f"{list(q.shape)}"
            )
        return q

    along: Quadratic = map_along(critic, block, traj)
    return along


def moments(dist: Any) -> Moments:
    """Mean and variance of each entry of an action, [T, B, D].

    Raises ValueError for a distribution that does not say them.
    """
    if not hasattr(dist, "moments"):
        raise ValueError(
            "a critic of continuous actions needs mean and variance of the policy's, and its "
            f"distribution, {described(dist)}, has no method moments()"
        )
    mean, variance = dist.moments()
    return mean, variance


def expectation(dist: Any, q: Quadratic) -> Float[Array, "T B"]:
    """E[Q(s, a)] over the policy's actions, [T, B], with its derivative in the policy."""
    mean, variance = moments(dist)
    return q.mean(mean, variance)


def expectation_along(
    policy: Network, params: Params, traj: Trajectory, q: Quadratic
) -> Float[Array, "T B"]:
    """`expectation` along a trajectory, [T, B]."""

    def block(rows: Trajectory) -> Moments:
        return moments(policy_output(policy, params, rows))

    mean, variance = map_along(policy, block, traj)
    return q.mean(mean, variance)


def mean_along(policy: Network, params: Params, traj: Trajectory) -> Float[Array, "T B D"]:
    """The policy's mean action along a trajectory, [T, B, D]."""

    def block(rows: Trajectory) -> Float[Array, "K B D"]:
        return moments(policy_output(policy, params, rows))[0]

    return map_along(policy, block, traj)


def actions_taken(policy: Network, params: Params, traj: Trajectory) -> Float[Array, "T B D"]:
    """The actions of the environment, [T, B, D]: the samples that were scored, clipped or squashed
    as the policy does.
    """

    def block(rows: Trajectory) -> Float[Array, "K B D"]:
        return policy_output(policy, params, rows).action(rows.action)

    return map_along(policy, block, traj)
