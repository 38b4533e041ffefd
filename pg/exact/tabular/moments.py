"""Exact mean and covariance of the score-function estimators, at any horizon, by recursion of joint
moments.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from pg.exact.tabular.exact import time_dependent
from pg.exact.tabular.mdp import TabularMDP


def total_return_moments(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
    baseline: Float[ArrayLike, ""] = 0.0,
) -> tuple[Float[Array, " D"], Float[Array, "D D"]]:
    """Mean [D] and covariance [D, D] of one episode's (R - b) Σₜ ∇log π, D the number of logits.

    By recursion of the joint moments E[Gⁱ Z⊗ʲ | s], i, j ≤ 2, where G = r + γ G', Z = z + Z': no
    enumeration, and a cost of O(H S A S D²).

    Args:
        mdp: the MDP.
        logits: of the policy, [S, A] or [H, S, A].
        gamma: γ.
        baseline: b, a number.
    """
    scores, weights, reward = _steps(mdp, logits)
    D, S = scores.shape[-1], mdp.num_states
    nothing = [[jnp.ones(S), jnp.zeros((S, D)), jnp.zeros((S, D, D))]]
    nothing += [[jnp.zeros_like(m) for m in nothing[0]] for _ in range(2)]

    def back(after: Any, step: Any) -> tuple[Any, None]:
        z, weight = step  # [S, A, D], π(a|s) P(s'|s, a) [S, A, S]
        zz = jnp.einsum("sad,sae->sade", z, z)
        moments = []

        def of_power(i: int, j: int) -> Float[Array, "S A ..."]:
            """E[Gⁱ Z'⊗ʲ | s, a] = Σₖ (i over k) Σₛ' P rⁱ⁻ᵏ γᵏ E[G'ᵏ Z'⊗ʲ | s'], weighted by π."""
            total = jnp.zeros(())
            for k in range(i + 1):
                successors = jnp.einsum("sat,t...->sa...", weight * reward ** (i - k), after[k][j])
                total = total + math.comb(i, k) * gamma**k * successors
            return total

        for i in range(3):
            m0, m1, m2 = of_power(i, 0), of_power(i, 1), of_power(i, 2)
            cross = jnp.einsum("sad,sae->sde", z, m1)
            first = jnp.einsum("sad,sa->sd", z, m0) + m1.sum(1)
            second = jnp.einsum("sade,sa->sde", zz, m0) + cross + cross.swapaxes(1, 2) + m2.sum(1)
            moments.append([m0.sum(1), first, second])
        return _ended(mdp, moments, nothing), None

    (_, z1, z2), (_, gz1, gz2), (_, _, g2z2) = jax.lax.scan(
        back, nothing, (scores, weights), reverse=True
    )[0]
    mean = _start(mdp, gz1 - baseline * z1)
    second = _start(mdp, g2z2 - 2 * baseline * gz2 + baseline**2 * z2)
    return mean, second - jnp.outer(mean, mean)


def reward_to_go_moments(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
    baseline: Real[ArrayLike, "..."] = 0.0,
) -> tuple[Float[Array, " D"], Float[Array, "D D"]]:
    """Mean [D] and covariance [D, D] of one episode's Σₜ γᵗ ∇log π (Gₜ - bₜ(sₜ)), D the number of
    logits.

    By recursion of E[G], E[G²], E[X], E[GX], E[XXᵀ] given s, where G = r + γ G' and
    X = z (G - b) + γ X'.

    Args:
        mdp: the MDP.
        logits: of the policy, [S, A] or [H, S, A].
        gamma: γ.
        baseline: b, broadcast to [H, S].
    """
    scores, weights, reward = _steps(mdp, logits)
    D, S = scores.shape[-1], mdp.num_states
    nothing = [
        jnp.zeros(S),
        jnp.zeros(S),
        jnp.zeros((S, D)),
        jnp.zeros((S, D)),
        jnp.zeros((S, D, D)),
    ]

    def back(after: Any, step: Any) -> tuple[Any, None]:
        z, weight, b = step  # [S, A, D], [S, A, S], [S]

        def mean(x: Float[Array, "S *D"], power: int = 0) -> Float[Array, "S A *D"]:
            """π(a|s) Σₛ' P(s'|s, a) r^power x(s'), [S, A, ...]."""
            return jnp.einsum("sat,t...->sa...", weight * reward**power, x)

        one, (g1, g2, x1, gx, xx) = jnp.ones(S), after
        pi = mean(one)
        G1 = mean(one, 1) + gamma * mean(g1)
        G2 = mean(one, 2) + 2 * gamma * mean(g1, 1) + gamma**2 * mean(g2)
        X1, GX = mean(x1), mean(x1, 1) + gamma * mean(gx)  # E[X'], E[G X']
        b = b[:, None]
        above = jnp.einsum("sad,sa->sd", z, G1 - b * pi)
        cross = gamma * jnp.einsum("sad,sae->sde", z, GX - b[..., None] * X1)
        moments = [
            G1.sum(1),
            G2.sum(1),
            above + gamma * X1.sum(1),
            jnp.einsum("sad,sa->sd", z, G2 - b * G1) + gamma * GX.sum(1),
            jnp.einsum("sad,sae,sa->sde", z, z, G2 - 2 * b * G1 + b**2 * pi)
            + cross
            + cross.swapaxes(1, 2)
            + gamma**2 * mean(xx).sum(1),
        ]
        return _ended(mdp, moments, nothing), None

    baseline = jnp.broadcast_to(jnp.asarray(baseline, float), (mdp.horizon, S))
    _, _, x1, _, xx = jax.lax.scan(back, nothing, (scores, weights, baseline), reverse=True)[0]
    expected = _start(mdp, x1)
    return expected, _start(mdp, xx) - jnp.outer(expected, expected)


def _steps(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]
) -> tuple[Float[Array, "H S A D"], Float[Array, "H S A S"], Float[Array, "S A S"]]:
    """Scores ∇log π(a|s) [H, S, A, D], weights π(a|s) P(s'|s, a) [H, S, A, S], rewards [S, A,
    S].
    """
    logits = jnp.asarray(logits)

    def log_pi(flat: Float[Array, " D"]) -> Float[Array, "H S A"]:
        return jax.nn.log_softmax(time_dependent(mdp, flat.reshape(logits.shape)))

    pi = jnp.exp(log_pi(logits.ravel()))
    weights = pi[..., None] * jnp.asarray(mdp.transition)[None]
    scores = jax.jacfwd(log_pi)(logits.ravel())
    return scores, weights, jnp.asarray(mdp.reward)


def _ended(mdp: TabularMDP, moments: PyTree, nothing: PyTree) -> PyTree:
    """Moments by state; in terminal states those of an ended episode."""
    over = jnp.asarray(mdp.terminal)
    return jax.tree.map(
        lambda m, n: jnp.where(over.reshape(-1, *[1] * (m.ndim - 1)), n, m), moments, nothing
    )


def _start(mdp: TabularMDP, x: Float[Array, "S *D"]) -> Float[Array, "*D"]:
    """Moments given the state, averaged over the initial one."""
    return jnp.einsum("s,s...->...", jnp.asarray(mdp.initial), x)
