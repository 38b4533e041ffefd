"""Gradient estimators: ĝ = (1/N) Σₙ Σₜ Ψₜ ∇θ log πθ(aₜ|sₜ), as triples of pure functions `(init,
weigh, grad)`.

To add one: write a function like its neighbours, a row in ESTIMATORS, a row in `config.ACCEPTS` and
a line in the README's table; `tests/exact/test_unbiased.py` asks for its exact expectation. Each
carries four lines: Ψₜ, Unbiased for,
Variance, Needs. There, J is the expected return E[Σₜ γᵗ rₜ] up to the time limit, R its sample, and
Gₜ = Σ_{k≥t} γᵏ⁻ᵗ rₖ.
"""

from collections.abc import Callable

from pg.config import Hyperparams
from pg.estimators import action_values, average_reward, bootstrapped, episodic, grouped, off_policy
from pg.estimators.base import Estimator, Gain, Params, Weighted, build_estimator, score
from pg.networks import Network

__all__ = ["ESTIMATORS", "Estimator", "Gain", "Params", "Weighted", "build_estimator", "score"]

ESTIMATORS: dict[str, Callable[[Network, Network, Hyperparams], Estimator]] = {
    "reinforce": episodic.reinforce,
    "reward_to_go": episodic.reward_to_go,
    "undiscounted_reward_to_go": episodic.undiscounted_reward_to_go,
    "constant_baseline": episodic.constant_baseline,
    "batch_mean": episodic.batch_mean,
    "standardised": episodic.standardised,
    "leave_one_out": episodic.leave_one_out,
    "time_baseline": episodic.time_baseline,
    "optimal_baseline": episodic.optimal_baseline,
    "moving_average": episodic.moving_average,
    "state_value": episodic.state_value,
    "entropy_reward": episodic.entropy_reward,
    "group_leave_one_out": grouped.group_leave_one_out,
    "grpo": grouped.grpo,
    "all_action": action_values.all_action,
    "action_dependent_baseline": action_values.action_dependent_baseline,
    "trajectory_importance": off_policy.trajectory_importance,
    "per_decision_importance": off_policy.per_decision_importance,
    "ratio_only": off_policy.ratio_only,
    "actor_critic": bootstrapped.actor_critic,
    "gae": bootstrapped.gae,
    "vtrace": bootstrapped.vtrace,
    "ppo": bootstrapped.ppo,
    "gpomdp": average_reward.gpomdp,
}
