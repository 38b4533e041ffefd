"""Exact J, Q, V, visitation and gradients of tabular MDPs, as differentiable functions of logits.

backward   V_H = 0,  Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π Qₜ,  J = ρ·V₀
forward    d₀ = ρ,  dₜ₊₁ = dₜ π P
∇J = Σₜ γᵗ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a)     (Sutton et al. 2000, for a finite horizon)

What is discounted without a time limit, or averaged over an endless run, takes stationary logits
[S, A] and solves linear equations of P_π = Σₐ π P and r_π = Σₐ π r.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pg.exact.tabular.mdp import TabularMDP, check_shape


def values(
    mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Q [H, S, A] and V [H, S], with t steps taken; tau adds the entropy-regularised reward r - τ
    log π.

    Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π (Qₜ - τ log π)   (soft: Mei et al. 2020, 2005.06392, section 4)
    """
    reward, transition = jnp.asarray(mdp.mean_reward), jnp.asarray(mdp.continuing)
    log_pi = jax.nn.log_softmax(clocked(mdp, logits))
    running = ~jnp.asarray(mdp.terminal)

    def back(value: jax.Array, log_pi: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        q = reward + gamma * transition @ value
        value = jnp.where(running, jnp.sum(jnp.exp(log_pi) * (q - tau * log_pi), axis=-1), 0.0)
        return value, (q, value)

    return jax.lax.scan(back, jnp.zeros(mdp.num_states), log_pi, reverse=True)[1]


def advantage(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0) -> jax.Array:
    """Aₜ(s, a) = Qₜ(s, a) - Vₜ(s), [H, S, A]; Σₐ π Aₜ = 0."""
    q, v = values(mdp, logits, gamma)
    return q - v[..., None]


def visitation(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """dₜ(s) = P(sₜ = s, the episode still running), [H, S]."""
    pi, transition = jax.nn.softmax(clocked(mdp, logits)), jnp.asarray(mdp.continuing)

    def forward(d: jax.Array, pi: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.einsum("s,sa,sat->t", d, pi, transition), d

    return jax.lax.scan(forward, jnp.asarray(mdp.initial), pi)[1]


def exact_return(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """J = E[Σ_{t<H} γᵗ (rₜ - τ log π(aₜ|sₜ))], []. Differentiable to any order."""
    return jnp.asarray(mdp.initial) @ values(mdp, logits, gamma, tau)[1][0]


def exact_gradient(
    mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0
) -> jax.Array:
    """∇J with respect to the logits, of their shape."""
    return jax.grad(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def exact_hessian(
    mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0
) -> jax.Array:
    """∇²J with respect to the logits, of their shape twice."""
    return jax.hessian(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def undiscounted_direction(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0) -> jax.Array:
    """Σₜ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a): what dropping γᵗ estimates; for γ < 1 the gradient of no
    function.

    Nota & Thomas 2020 (1906.07073). logits: [S, A] or [H, S, A]; the result has their shape, and is
    differentiable.
    """

    def surrogate(logits: jax.Array, d: jax.Array, q: jax.Array) -> jax.Array:
        return jnp.einsum("ts,tsa,tsa->", d, jax.nn.softmax(clocked(mdp, logits)), q)

    return jax.grad(surrogate)(
        jnp.asarray(logits), visitation(mdp, logits), values(mdp, logits, gamma)[0]
    )


def discounted_values(
    mdp: TabularMDP, logits: jax.Array, gamma: Any
) -> tuple[jax.Array, jax.Array]:
    """Q = r + γ P V [S, A] and V = (I - γ P_π)⁻¹ r_π [S], without a time limit.

    logits: [S, A]. γ < 1, or termination from everywhere. Puterman 1994, section 6.1.
    """
    step, reward = _chain(mdp, logits)
    value = jnp.linalg.solve(jnp.eye(mdp.num_states) - gamma * step, reward)
    return jnp.asarray(mdp.mean_reward) + gamma * jnp.asarray(mdp.continuing) @ value, value


def discounted_visitation(mdp: TabularMDP, logits: jax.Array, gamma: Any) -> jax.Array:
    """d = ρ (I - γ P_π)⁻¹ = Σₜ γᵗ P(sₜ = s, the episode still running), [S], without a time limit.

    Then ∇J = Σₛ d(s) Σₐ ∇π(a|s) Q(s, a) (Sutton et al. 2000, theorem 1). logits and γ: as in
    `discounted_values`.
    """
    step, _ = _chain(mdp, logits)
    return jnp.linalg.solve((jnp.eye(mdp.num_states) - gamma * step).T, jnp.asarray(mdp.initial))


def discounted_return(mdp: TabularMDP, logits: jax.Array, gamma: Any) -> jax.Array:
    """J = ρ·(I - γ P_π)⁻¹ r_π, without a time limit, []. logits: [S, A]; γ < 1, or termination from
    everywhere.
    """
    return jnp.asarray(mdp.initial) @ discounted_values(mdp, logits, gamma)[1]


def stationary(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """μ = μ P_π, Σ μ = 1, [S], of an MDP without terminal states whose chain has one recurrent
    class.

    Raises ValueError if a state is terminal, as does every function of the average reward.
    """
    step, _ = _endless_chain(mdp, logits)
    # μ (I - P + 1 1ᵀ) = 1ᵀ: the equations of μ with its normalisation added to each.
    return jnp.linalg.solve((jnp.eye(mdp.num_states) - step + 1.0).T, jnp.ones(mdp.num_states))


def average_reward(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """η = Σₛ μ(s) Σₐ π(a|s) r(s, a), [], for ever and without resets; its gradient is ∇η."""
    return stationary(mdp, logits) @ _endless_chain(mdp, logits)[1]


def average_values(mdp: TabularMDP, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Differential values Q = r - η + P h [S, A] and h = (I - P_π + 1 μᵀ)⁻¹ (r_π - η) [S].

    h solves the Poisson equation h = r_π - η + P_π h with μ·h = 0, and ∇η = Σₛ μ(s) Σₐ ∇π(a|s) Q(s,
    a) (Sutton et al. 2000, theorem 1; Puterman 1994, section 8.2).
    """
    step, reward = _endless_chain(mdp, logits)
    mu, eta = stationary(mdp, logits), average_reward(mdp, logits)
    h = jnp.linalg.solve(jnp.eye(mdp.num_states) - step + mu[None, :], reward - eta)
    return jnp.asarray(mdp.mean_reward) - eta + jnp.asarray(mdp.transition) @ h, h


def gpomdp_direction(mdp: TabularMDP, logits: jax.Array, beta: Any) -> jax.Array:
    """∇_β η = Σₛ μ(s) Σₐ ∇π(a|s) (r + β P V_β)(s, a), [S, A], V_β the β-discounted value.

    Baxter & Bartlett 2001 (1106.0665): the limit of GPOMDP(β); tends to ∇η as β tends to 1.
    """
    weight = stationary(mdp, logits)[:, None] * discounted_values(mdp, logits, beta)[0]
    return jax.grad(lambda x, weight: jnp.sum(jax.nn.softmax(x) * weight))(
        jnp.asarray(logits), weight
    )


def clocked(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """Logits [S, A] or [H, S, A] as [H, S, A]."""
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    check_shape("logits", logits.shape, [shape[1:], shape])
    return jnp.broadcast_to(logits, shape)


def _chain(mdp: TabularMDP, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P_π = Σₐ π P [S, S], as far as the run goes on, and r_π = Σₐ π r [S], of stationary logits
    [S, A].
    """
    check_shape("logits", logits.shape, [(mdp.num_states, mdp.num_actions)])
    pi, reward = jax.nn.softmax(logits), jnp.asarray(mdp.mean_reward)
    return jnp.einsum("sa,sat->st", pi, jnp.asarray(mdp.continuing)), jnp.sum(pi * reward, axis=-1)


def _endless_chain(mdp: TabularMDP, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P_π and r_π of an MDP whose run never ends. Raises ValueError if it can."""
    if mdp.terminal.any():
        raise ValueError(
            "an average reward needs an MDP without terminal states; use "
            "discounted_values for this one"
        )
    return _chain(mdp, logits)
