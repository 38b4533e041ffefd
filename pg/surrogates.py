"""Surrogates: per-step functions of log π whose gradient in θ is an estimator's summand.

    score       ∇ (Ψ log π)              = Ψ ∇log π
    importance  ∇ (ρ Ψ)                  = ρ Ψ ∇log π,   ρ = π / π_behaviour
    clipped     ∇ min(ρ Ψ, clip(ρ) Ψ)    = the same, until ρ leaves [1-ε, 1+ε] in the direction of Ψ
    clipped_weight  ∇ (⊥clip(ρ) Ψ log ρ) = clip(ρ) Ψ ∇log π, for every ρ
    proximal    ∇ (ρ Ψ - w (ρ log ρ - ρ + 1)) = ρ (Ψ - w log ρ) ∇log π, with a KL penalty
    all_action  ∇ Σₐ π(a) Q(a)           = Σₐ Q(a) ∇π(a), no action sampled

Ψ, Q and the behaviour policy's log-probability are constants, computed before differentiation.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def score(log_prob: Float[Array, "*B"], psi: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Ψ log π, [...]  (Williams 1992). Both arguments [...]."""
    return psi * log_prob


def importance(
    log_prob: Float[Array, "*B"], behaviour: Float[Array, "*B"], psi: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """ρ Ψ, [...]  (Degris et al. 2012, 1205.4839).

    Args:
        log_prob: log π(a|s), [...].
        behaviour: log-probability of the action under the behaviour policy, [...].
        psi: Ψ, [...].
    """
    return reweighted(psi, log_prob - behaviour)


def reweighted(x: Float[Array, "*#B"], log_ratio: Float[Array, "*#B"]) -> Float[Array, "*B"]:
    """ρ x, [...]; 0 where x is 0, though ρ overflows.

    Args:
        x: Ψ, a reward or another weighted value, [...].
        log_ratio: log ρ, [...].
    """
    # masked before the exponential: infinity times 0 would be NaN in the gradient too
    return jnp.exp(jnp.where(x == 0.0, 0.0, log_ratio)) * x


def clipped(
    log_prob: Float[Array, "*B"],
    behaviour: Float[Array, "*B"],
    psi: Float[Array, "*B"],
    epsilon: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """min(ρ Ψ, clip(ρ, 1-ε, 1+ε) Ψ), [...]  (Schulman et al. 2017, 1707.06347, eq. 7).

    Args:
        log_prob: log π(a|s), [...].
        behaviour: log-probability of the action under the behaviour policy, [...].
        psi: Ψ, [...].
        epsilon: ε.
    """
    return clipped_ratio(log_prob - behaviour, psi, epsilon, epsilon)


def _finite_ratio(log_ratio: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """ρ, [...], with value and gradient capped at the fourth root of the largest float: infinity
    times the zero gradient of a clip would be NaN.
    """
    most = 0.25 * jnp.log(jnp.finfo(log_ratio.dtype).max)
    excess = jax.lax.stop_gradient(jnp.maximum(log_ratio - most, 0.0))
    return jnp.exp(log_ratio - excess)


def clipped_ratio(
    log_ratio: Float[Array, "*B"],
    psi: Float[Array, "*B"],
    low: Float[Array | np.floating, ""] | float,
    high: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """min(ρ Ψ, clip(ρ, 1 - low, 1 + high) Ψ), [...]  (two ranges: DAPO, 2503.14476).

    Args:
        log_ratio: log ρ, [...].
        psi: Ψ, [...].
        low: clip range below 1, which binds if Ψ < 0.
        high: clip range above 1, which binds if Ψ > 0.
    """
    ratio = _finite_ratio(log_ratio)
    return jnp.minimum(ratio * psi, jnp.clip(ratio, 1 - low, 1 + high) * psi)


def dual_clipped_ratio(
    log_ratio: Float[Array, "*B"],
    psi: Float[Array, "*B"],
    low: Float[Array | np.floating, ""] | float,
    high: Float[Array | np.floating, ""] | float,
    bound: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """max(clipped_ratio, bound Ψ) where Ψ < 0, [...]  (Ye et al. 2020, 1912.09729).

    Args:
        log_ratio: log ρ, [...].
        psi: Ψ, [...].
        low: clip range below 1.
        high: clip range above 1.
        bound: upper bound of ρ if Ψ < 0, above 1 + high.
    """
    clipped_once = clipped_ratio(log_ratio, psi, low, high)
    return jnp.where(psi < 0, jnp.maximum(clipped_once, bound * psi), clipped_once)


def clipped_weight(
    log_ratio: Float[Array, "*B"],
    psi: Float[Array, "*B"],
    low: Float[Array | np.floating, ""] | float,
    high: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """⊥clip(ρ, 1 - low, 1 + high) Ψ log ρ, [...]: every step keeps a gradient  (CISPO,
    2506.13585).

    Args:
        log_ratio: log ρ, [...].
        psi: Ψ, [...].
        low: clip range below 1; infinity for none.
        high: clip range above 1.
    """
    weight = jnp.clip(jnp.exp(log_ratio), 1 - low, 1 + high)
    return jax.lax.stop_gradient(weight) * psi * log_ratio


def masked_ratio(
    log_ratio: Float[Array, "*B"],
    psi: Float[Array, "*B"],
    low: Float[Array | np.floating, ""] | float,
    high: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """ρ Ψ where 1 - low ≤ ρ ≤ 1 + high, else 0, [...].

    Args:
        log_ratio: log ρ, [...].
        psi: Ψ, [...].
        low: range below 1.
        high: range above 1.
    """
    ratio = jnp.exp(log_ratio)
    inside = (ratio >= 1 - low) & (ratio <= 1 + high)
    # masked before the exponential, so that an infinite ratio gives no NaN in the gradient
    return jnp.where(inside, jnp.exp(jnp.where(inside, log_ratio, 0.0)) * psi, 0.0)


def soft_gate(
    log_ratio: Float[Array, "*B"],
    psi: Float[Array, "*B"],
    rising: Float[Array | np.floating, ""] | float,
    falling: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """(4 / τ) σ(τ (ρ - 1)) Ψ, τ = rising where Ψ > 0 and falling elsewhere, [...]: a gradient that
    decays away from ρ = 1  (SAPO, 2511.20347).

    Args:
        log_ratio: log ρ, [...].
        psi: Ψ, [...].
        rising: τ of actions whose probability increases.
        falling: τ of those whose probability decreases.
    """
    tau = jnp.where(psi > 0, rising, falling)
    return 4 / tau * jax.nn.sigmoid(tau * (_finite_ratio(log_ratio) - 1.0)) * psi


def proximal(
    log_ratio: Float[Array, "*B"], psi: Float[Array, "*B"], weight: Float[Array, "*B"] | float
) -> Float[Array, "*B"]:
    """ρ Ψ - w (ρ log ρ - ρ + 1), [...]: the mean of the second term, which is never negative, over
    the behaviour's actions is KL(π ‖ behaviour)  (mirror descent: MDPO, 2005.09814).

    Args:
        log_ratio: log ρ, [...].
        psi: Ψ, [...].
        weight: w, the coefficient of the divergence.
    """
    ratio = _finite_ratio(log_ratio)
    return ratio * psi - weight * (ratio * log_ratio - ratio + 1.0)


def clipped_value(
    value: Float[Array, "*B"],
    before: Float[Array, "*B"],
    target: Float[Array, "*B"] | float,
    epsilon: Float[Array | np.floating, ""] | float,
) -> Float[Array, "*B"]:
    """½ max((V - target)², (V_clip - target)²), V_clip = V_before + clip(V - V_before, -ε, ε),
    [...]: a loss.

    The value loss of PPO implementations (Andrychowicz et al. 2020, 2006.05990, C13).

    Args:
        value: V(s), [...].
        before: V(s) when the batch was collected, [...].
        target: the regression target, [...].
        epsilon: ε; infinity gives the squared error.
    """
    near = before + jnp.clip(value - before, -epsilon, epsilon)
    return 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2)


def all_action(logits: Float[Array, "*B A"], q: Float[Array, "*B A"]) -> Float[Array, "*B"]:
    """Σₐ π(a) Q(a), [...]  (expected policy gradients, Ciosek & Whiteson 2018, 1706.05374). Both
    [..., A].
    """
    return jnp.sum(jax.nn.softmax(logits) * q, axis=-1)


def magic_box(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """□(x) = exp(x - ⊥x), ⊥ the stop-gradient: its value is 1, and ∇□(x) = □(x) ∇x, which can be
    differentiated again (Foerster et al. 2018, 1802.05098).
    """
    return jnp.exp(x - jax.lax.stop_gradient(x))


def dice(log_prob: Float[Array, "T *B"], reward: Float[Array, "T *B"]) -> Float[Array, "*B"]:
    """Σₖ rₖ □(Σ_{t≤k} log π), summed over axis 0, [...]: correct for derivatives of every order
    (1802.05098, eq. 8).

    log_prob, reward: [T, ...], both 0 where not valid; reward is already multiplied by γᵏ.
    """
    return jnp.sum(jax.lax.stop_gradient(reward) * magic_box(jnp.cumsum(log_prob, axis=0)), axis=0)


def loaded_dice(
    log_prob: Float[Array, "T *B"],
    advantage: Float[Array, "T *B"],
    lambda_: Float[Array | np.floating, ""] | float = 1.0,
) -> Float[Array, "*B"]:
    """Σₜ Aₜ (□(wₜ) - □(wₜ - log πₜ)), wₜ = Σ_{k≤t} λᵗ⁻ᵏ log π_k, [...]  (Farquhar et al. 2019,
    1909.10549).

    Args:
        log_prob: log π(aₜ|sₜ), [T, ...]; 0 where not valid.
        advantage: γᵗ Aₜ, [T, ...]; 0 where not valid.
        lambda_: λ; below 1, derivatives are biased from the second order on.
    """

    def accumulate(
        w: Float[Array, "*B"], log_prob: Float[Array, "*B"]
    ) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
        w = lambda_ * w + log_prob
        return w, w

    w = jax.lax.scan(accumulate, jnp.zeros_like(log_prob[0]), log_prob)[1]
    return jnp.sum(
        jax.lax.stop_gradient(advantage) * (magic_box(w) - magic_box(w - log_prob)), axis=0
    )
