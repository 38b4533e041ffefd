"""The estimator for continuing tasks, whose objective is the average reward
η = lim (1/T) E[Σₜ rₜ].
"""

from typing import Any

from pg import returns
from pg.config import Hyperparams
from pg.estimators.base import Credit, Estimator, Params, build_estimator
from pg.networks import Network
from pg.rollout import Trajectory


def gpomdp(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """GPOMDP(β): a reward is credited to an eligibility trace of scores (Baxter & Bartlett 2001,
    1106.0665).

    Σₜ Ψₜ ∇log πₜ = Σₖ rₖ zₖ with the trace zₖ = β zₖ₋₁ + ∇log πₖ. Resets are part of the dynamics:
    the trace continues through them.

    Ψₜ = Σ_{k≥t} βᵏ⁻ᵗ rₖ,  to the window's end
    Unbiased for: nothing: it aims at ∇_β η, which tends to ∇η, η the average reward, as β → 1.
    Variance: grows as 1 / (1 - β): β is not a discount of the task but a price paid in bias.
    Needs: windows, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        return Credit(returns.discounted_sum(traj.reward, h.beta))

    return build_estimator(policy, None, h, weigh, state_discount=1.0)
