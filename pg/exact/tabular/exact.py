"""Exact J, Q, V, visitation and gradients of tabular MDPs, as differentiable functions of logits.

backward   V_H = 0,  Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π Qₜ,  J = ρ·V₀
forward    d₀ = ρ,  dₜ₊₁ = dₜ π P
∇J = Σₜ γᵗ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a)     (Sutton et al. 2000, for a finite horizon)

The functions of a discounted or an average reward without a time limit take stationary logits
[S, A] and solve linear equations of P_π = Σₐ π P and r_π = Σₐ π r.

Arguments are the same everywhere: `mdp`; `logits` of the policy, [S, A], or [H, S, A] if it depends
on the time; `gamma`, γ; `tau`, τ of the entropy-regularised reward r - τ log π.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from pg.distributions import Categorical
from pg.exact.tabular.mdp import TabularMDP, check_shape


def values(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
    tau: Float[ArrayLike, ""] = 0.0,
) -> tuple[Float[Array, "H S A"], Float[Array, "H S"]]:
    """Q [H, S, A] and V [H, S], with t steps taken.

    Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π (Qₜ - τ log π)   (soft: Mei et al. 2020, 2005.06392, section 4)
    """
    reward = jnp.asarray(mdp.mean_reward)
    transition = jnp.asarray(mdp.continuing)
    running = ~jnp.asarray(mdp.terminal)
    log_pi = log_policy(mdp, logits)

    def back(
        value: Float[Array, " S"], log_pi: Float[Array, "S A"]
    ) -> tuple[Float[Array, " S"], tuple[Float[Array, "S A"], Float[Array, " S"]]]:
        q = reward + gamma * transition @ value
        # 0 log 0 = 0, for illegal actions
        surprise = jnp.where(jnp.isneginf(log_pi), 0.0, log_pi)
        soft_value = jnp.sum(jnp.exp(log_pi) * (q - tau * surprise), axis=-1)
        value = jnp.where(running, soft_value, 0.0)
        return value, (q, value)

    return jax.lax.scan(back, jnp.zeros(mdp.num_states), log_pi, reverse=True)[1]


def advantage(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, "H S A"]:
    """Aₜ(s, a) = Qₜ(s, a) - Vₜ(s), [H, S, A]; Σₐ π Aₜ = 0."""
    q, v = values(mdp, logits, gamma)
    return q - v[..., None]


def visitation(mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]) -> Float[Array, "H S"]:
    """dₜ(s) = P(sₜ = s, the episode still running), [H, S]."""
    pi = jax.nn.softmax(time_dependent(mdp, logits))
    transition = jnp.asarray(mdp.continuing)

    def forward(
        d: Float[Array, " S"], pi: Float[Array, "S A"]
    ) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
        return jnp.einsum("s,sa,sat->t", d, pi, transition), d

    return jax.lax.scan(forward, jnp.asarray(mdp.initial), pi)[1]


def exact_return(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
    tau: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, ""]:
    """J = E[Σ_{t<H} γᵗ (rₜ - τ log π(aₜ|sₜ))], []. Differentiable to any order."""
    _, v = values(mdp, logits, gamma, tau)
    return jnp.asarray(mdp.initial) @ v[0]


def exact_gradient(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
    tau: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "*H S A"]:
    """∇J with respect to the logits, of their shape."""
    return jax.grad(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def exact_hessian(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
    tau: Float[ArrayLike, ""] = 0.0,
) -> Float[Array, "..."]:
    """∇²J with respect to the logits, of their shape twice."""
    return jax.hessian(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def undiscounted_direction(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, "*H S A"]:
    """Σₜ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a), of the logits' shape: the mean of estimators that drop γᵗ.

    For γ < 1 it is not the gradient of any function (Nota & Thomas 2020, 1906.07073).
    Differentiable.
    """
    d = visitation(mdp, logits)
    q, _ = values(mdp, logits, gamma)

    def surrogate(
        logits: Float[Array | np.ndarray, "*H S A"],
        d: Float[Array, "H S"],
        q: Float[Array, "H S A"],
    ) -> Float[Array, ""]:
        pi = jax.nn.softmax(time_dependent(mdp, logits))
        return jnp.einsum("ts,tsa,tsa->", d, pi, q)

    return jax.grad(surrogate)(jnp.asarray(logits), d, q)


def discounted_values(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], gamma: Float[ArrayLike, ""]
) -> tuple[Float[Array, "S A"], Float[Array, " S"]]:
    """Q = r + γ P V [S, A] and V = (I - γ P_π)⁻¹ r_π [S], without a time limit.

    γ < 1, or termination from everywhere. Puterman 1994, section 6.1.
    """
    step, reward = _chain(mdp, logits)
    v = jnp.linalg.solve(jnp.eye(mdp.num_states) - gamma * step, reward)
    q = jnp.asarray(mdp.mean_reward) + gamma * jnp.asarray(mdp.continuing) @ v
    return q, v


def discounted_visitation(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], gamma: Float[ArrayLike, ""]
) -> Float[Array, " S"]:
    """d = ρ (I - γ P_π)⁻¹ = Σₜ γᵗ P(sₜ = s, the episode still running), [S], without a time limit.

    Then ∇J = Σₛ d(s) Σₐ ∇π(a|s) Q(s, a) (Sutton et al. 2000, theorem 1). γ: as in
    `discounted_values`.
    """
    step, _ = _chain(mdp, logits)
    system = jnp.eye(mdp.num_states) - gamma * step
    return jnp.linalg.solve(system.T, jnp.asarray(mdp.initial))


def discounted_return(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], gamma: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """J = ρ·(I - γ P_π)⁻¹ r_π, without a time limit, []; γ < 1, or termination from everywhere."""
    _, v = discounted_values(mdp, logits, gamma)
    return jnp.asarray(mdp.initial) @ v


def stationary(mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"]) -> Float[Array, " S"]:
    """μ = μ P_π, Σ μ = 1, [S], of an MDP without terminal states whose chain has one recurrent
    class.

    Raises ValueError if a state is terminal, like every function of the average reward.
    """
    step, _ = _continuing_chain(mdp, logits)
    # μ (I - P + 1 1ᵀ) = 1ᵀ: the equations of μ with its normalisation added to each.
    system = jnp.eye(mdp.num_states) - step + 1.0
    return jnp.linalg.solve(system.T, jnp.ones(mdp.num_states))


def average_reward(mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"]) -> Float[Array, ""]:
    """η = Σₛ μ(s) Σₐ π(a|s) r(s, a), [], for ever and without resets; its gradient is ∇η."""
    _, reward = _continuing_chain(mdp, logits)
    return stationary(mdp, logits) @ reward


def average_values(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"]
) -> tuple[Float[Array, "S A"], Float[Array, " S"]]:
    """Differential values Q = r - η + P h [S, A] and h = (I - P_π + 1 μᵀ)⁻¹ (r_π - η) [S].

    h solves the Poisson equation h = r_π - η + P_π h with μ·h = 0, and ∇η = Σₛ μ(s) Σₐ ∇π(a|s) Q(s,
    a) (Sutton et al. 2000, theorem 1; Puterman 1994, section 8.2).
    """
    step, reward = _continuing_chain(mdp, logits)
    mu = stationary(mdp, logits)
    eta = average_reward(mdp, logits)
    h = jnp.linalg.solve(jnp.eye(mdp.num_states) - step + mu[None, :], reward - eta)
    q = jnp.asarray(mdp.mean_reward) - eta + jnp.asarray(mdp.transition) @ h
    return q, h


def gpomdp_direction(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], beta: Float[ArrayLike, ""]
) -> Float[Array, "S A"]:
    """∇_β η = Σₛ μ(s) Σₐ ∇π(a|s) (r + β P V_β)(s, a), [S, A], V_β the β-discounted value.

    Baxter & Bartlett 2001 (1106.0665): the limit of GPOMDP(β); tends to ∇η as β tends to 1.
    """
    q, _ = discounted_values(mdp, logits, beta)
    weight = stationary(mdp, logits)[:, None] * q

    def surrogate(
        logits: Float[Array | np.ndarray, "S A"], weight: Float[Array, "S A"]
    ) -> Float[Array, ""]:
        return jnp.sum(jax.nn.softmax(of_legal(mdp, logits)) * weight)

    return jax.grad(surrogate)(jnp.asarray(logits), weight)


def time_dependent(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]
) -> Float[Array, "H S A"]:
    """Logits [S, A] or [H, S, A] as [H, S, A], -inf for illegal actions."""
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    check_shape("logits", logits.shape, [shape[1:], shape])
    return jnp.broadcast_to(of_legal(mdp, logits), shape)


def greedy_logits(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]
) -> Float[Array, "H S A"]:
    """The logits of the greedy policy, [H, S, A]: 0 at the most probable action, -inf at others."""
    modes = Categorical(time_dependent(mdp, logits)).mode()
    return jnp.where(jax.nn.one_hot(modes, mdp.num_actions, dtype=bool), 0.0, -jnp.inf)


def of_legal(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]
) -> Float[Array, "*H S A"]:
    """The logits, -inf for illegal actions; unchanged if every action is legal."""
    if mdp.mask is None:
        return jnp.asarray(logits)
    return Categorical(jnp.asarray(logits)).masked(jnp.asarray(mdp.mask)).logits


def log_policy(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]
) -> Float[Array, "H S A"]:
    """log π(a|s), [H, S, A]; -inf for illegal actions."""
    return jax.nn.log_softmax(time_dependent(mdp, logits))


def _chain(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"]
) -> tuple[Float[Array, "S S"], Float[Array, " S"]]:
    """P_π = Σₐ π P [S, S], without transitions that end an episode, and r_π = Σₐ π r [S]."""
    check_shape("logits", logits.shape, [(mdp.num_states, mdp.num_actions)])
    pi = jax.nn.softmax(of_legal(mdp, logits))
    step = jnp.einsum("sa,sat->st", pi, jnp.asarray(mdp.continuing))
    reward = jnp.sum(pi * jnp.asarray(mdp.mean_reward), axis=-1)
    return step, reward


def _continuing_chain(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"]
) -> tuple[Float[Array, "S S"], Float[Array, " S"]]:
    """P_π and r_π of a continuing task. Raises ValueError for one that can terminate."""
    if mdp.terminal.any():
        raise ValueError(
            "an average reward needs an MDP without terminal states; use "
            "discounted_values for this one"
        )
    return _chain(mdp, logits)
