"""Continuous actions whose J(θ), gradient and estimator variances are known in closed form.

    bandit   one step, reward -(x - c)²: the Gaussian, the clipped and the tanh-squashed policy
    lqr      linear dynamics, quadratic costs, the policy N(K x, σ²) over H steps

Each problem is a gymnax environment, so that the training code runs on it, with a handful of
differentiable formulas, exact to 1e-10 in float64.
"""

from pg.exact.closed_forms import bandit, lqr
from pg.exact.closed_forms.bandit import GaussianBandit, SquashedBandit
from pg.exact.closed_forms.lqr import LQR

__all__ = ["LQR", "GaussianBandit", "SquashedBandit", "bandit", "lqr"]
