"""Group baselines: an episode is compared with the others that share its initial state.

A group is `Config.group_size` consecutive episodes of the batch (`Trajectory.group`): hidden parts
of the initial state are shared too, and two groups with the same first observation stay separate.
Differences within a group are due to the policy and the dynamics, not to the initial state.
"""

from typing import Any

from pg import baselines, returns
from pg.config import Hyperparams
from pg.estimators import sequences
from pg.estimators.base import Credit, Estimator, Params, build_estimator, group_of
from pg.estimators.switches import GRPO
from pg.networks import Network
from pg.rollout import Trajectory


def group_leave_one_out(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean return of the other episodes of the group as baseline (Dr. GRPO up to scale;
    2503.20783).

    grpo without its biases: there is no division by the standard deviation or the length, and the
    baseline excludes the episode's own return, which in groups of G is a factor G / (G - 1).

    Ψₜ = R - mean of R over the others of the group,  0 where there are none
    Unbiased for: J.
    Variance: removes the part of the return that the initial state explains.
    Needs: complete episodes that share initial states, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        total = returns.total_return(traj.reward, h.gamma)
        psi = total - baselines.group_leave_one_out(total, group_of(traj))
        return Credit(psi[None, :])

    return build_estimator(policy, None, h, weigh)


def grpo(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Group-relative policy optimisation: returns standardised within the group (Shao et al. 2024,
    2402.03300).

    If all returns of a group are equal up to rounding, its Ψ is 0: rounding errors are not a scale.

    Ψₜ = (R - mean R) / std R / length of the episode,  over the group; ρₜ until clipped
    Unbiased for: nothing: low-variance groups and short episodes weigh more; the mean includes R.
    Variance: that of returns in units of the standard deviation of the group.
    Needs: complete episodes that share initial states, the behaviour's log-probabilities.
    """
    return sequences.build(policy, h, GRPO)
