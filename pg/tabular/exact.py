"""Exact J, Q, V, visitation and gradients of tabular MDPs, as differentiable functions of logits.

backward   V_H = 0,  Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π Qₜ,  J = ρ·V₀          forward   d₀ = ρ,  dₜ₊₁ = dₜ π P
∇J = Σₜ γᵗ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a)                       (Sutton et al. 2000, for a finite horizon)
"""

from typing import Any

import jax
import jax.numpy as jnp

from pg.networks import Network
from pg.tabular.mdp import TabularMDP, check_shape


def table(mdp: TabularMDP, policy: Network, params: Any) -> jax.Array:
    """The logits [S, A] of a memoryless categorical network on the MDP's features: composes with all below."""
    first = jnp.zeros(mdp.num_states, bool)
    return policy.apply(params, policy.carry, jnp.asarray(mdp.features, float), first)[1].logits


def values(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> tuple[jax.Array, jax.Array]:
    """Q [H, S, A] and V [H, S], with t steps taken; tau adds the entropy-regularised reward r - τ log π.

    Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π (Qₜ - τ log π)   (soft values: Mei et al. 2020, 2005.06392, section 4)
    """
    reward, transition = jnp.asarray(mdp.mean_reward), jnp.asarray(mdp.continuing)
    log_pi = jax.nn.log_softmax(clocked(mdp, logits))
    running = ~jnp.asarray(mdp.terminal)

    def back(value: jax.Array, log_pi: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        q = reward + gamma * transition @ value
        value = jnp.where(running, jnp.sum(jnp.exp(log_pi) * (q - tau * log_pi), axis=-1), 0.0)
        return value, (q, value)

    return jax.lax.scan(back, jnp.zeros(mdp.num_states), log_pi, reverse=True)[1]


def visitation(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """dₜ(s) = P(sₜ = s, the episode still running), [H, S]."""
    pi, transition = jax.nn.softmax(clocked(mdp, logits)), jnp.asarray(mdp.continuing)

    def forward(d: jax.Array, pi: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.einsum("s,sa,sat->t", d, pi, transition), d

    return jax.lax.scan(forward, jnp.asarray(mdp.initial), pi)[1]


def exact_return(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """J = E[Σ_{t<H} γᵗ (rₜ - τ log π(aₜ|sₜ))], []. Differentiable to any order."""
    return jnp.asarray(mdp.initial) @ values(mdp, logits, gamma, tau)[1][0]


def exact_gradient(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """∇J with respect to the logits, of their shape."""
    return jax.grad(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def exact_hessian(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """∇²J with respect to the logits, of their shape twice."""
    return jax.hessian(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def undiscounted_direction(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0) -> jax.Array:
    """Σₜ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a): what dropping γᵗ estimates; for γ < 1 the gradient of no function.

    Nota & Thomas 2020 (1906.07073). logits: [S, A] or [H, S, A]; the result has their shape.
    """
    constant = jax.lax.stop_gradient((visitation(mdp, logits), values(mdp, logits, gamma)[0]))

    def surrogate(logits: jax.Array) -> jax.Array:
        return jnp.einsum("ts,tsa,tsa->", constant[0], jax.nn.softmax(clocked(mdp, logits)), constant[1])

    return jax.grad(surrogate)(jnp.asarray(logits))


def discounted_return(mdp: TabularMDP, logits: jax.Array, gamma: Any) -> jax.Array:
    """J = ρ·(I - γ P_π)⁻¹ r_π, without a time limit, []. logits: [S, A]; γ < 1, or termination from everywhere."""
    pi = jax.nn.softmax(logits)
    step = jnp.einsum("sa,sat->st", pi, jnp.asarray(mdp.continuing))
    reward = jnp.sum(pi * jnp.asarray(mdp.mean_reward), axis=-1)
    return jnp.asarray(mdp.initial) @ jnp.linalg.solve(jnp.eye(mdp.num_states) - gamma * step, reward)


def stationary(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """μ = μ P_π, Σ μ = 1, [S], of an MDP without terminal states whose chain has one recurrent class."""
    pi = jax.nn.softmax(logits)
    step = jnp.einsum("sa,sat->st", pi, jnp.asarray(mdp.transition))
    # μ (I - P + 1 1ᵀ) = 1ᵀ: the equations of μ with its normalisation added to each.
    return jnp.linalg.solve((jnp.eye(mdp.num_states) - step + 1.0).T, jnp.ones(mdp.num_states))


def average_reward(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """η = Σₛ μ(s) Σₐ π(a|s) r(s, a), [], for ever and without resets; its gradient is ∇η."""
    return jnp.einsum("s,sa,sa->", stationary(mdp, logits), jax.nn.softmax(logits), jnp.asarray(mdp.mean_reward))


def gpomdp_direction(mdp: TabularMDP, logits: jax.Array, beta: Any) -> jax.Array:
    """∇_β η = Σₛ μ(s) Σₐ ∇π(a|s) (r + β P V_β)(s, a), [S, A], V_β the β-discounted value.

    Baxter & Bartlett 2001 (cs/1106.0665): the limit of GPOMDP(β); tends to ∇η as β tends to 1.
    """
    pi = jax.nn.softmax(logits)
    reward, transition = jnp.asarray(mdp.mean_reward), jnp.asarray(mdp.transition)
    step = jnp.einsum("sa,sat->st", pi, transition)
    value = jnp.linalg.solve(jnp.eye(mdp.num_states) - beta * step, jnp.sum(pi * reward, axis=-1))
    constant = jax.lax.stop_gradient(stationary(mdp, logits)[:, None] * (reward + beta * transition @ value))
    return jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) * constant))(jnp.asarray(logits))


def clocked(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """Logits [S, A] or [H, S, A] as [H, S, A]."""
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    check_shape("logits", logits.shape, [shape[1:], shape])
    return jnp.broadcast_to(logits, shape)
