"""Gradient estimators: ĝ = (1/N) Σₙ Σₜ Ψₜ ∇θ log πθ(aₜ|sₜ), as triples of pure functions
`(init, weigh, grad)`.

A new estimator is a function in a module of this package, a row in the table (`facts`), and a proof
(a row of `tests/helpers/proofs.py`). All have the same arguments: the policy, the critic (which
many ignore) and the hyperparameters. The docstring repeats the row in four lines: Ψₜ, Unbiased for,
Variance, Needs. J is the expected return E[Σₜ γᵗ rₜ] up to the time limit, R its sample, and
Gₜ = Σ_{k≥t} γᵏ⁻ᵗ rₖ.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
