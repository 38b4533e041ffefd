"""The linear-quadratic regulator over H steps: J(θ), its gradient and its values in closed form.

    x' = A x + B u + w,  w ~ N(0, W),  x₀ ~ N(0, start),  reward -(xᵀQ x + uᵀR u),  J(θ) = E[Σ_{t<H}
    γᵗ rₜ] u = K x + σ ε,  θ = (K, log σ),  S = diag(σ²),  F = A + B K

    forward    M₀ = start,  Mₜ₊₁ = F Mₜ Fᵀ + B S Bᵀ + W
    backward   P_H = 0,  Pₜ = Q + KᵀR K + γ Fᵀ Pₜ₊₁ F

(Fazel et al. 2018, 1801.05039, for a finite horizon.)

A gain K is [m, n], or [H, m, n] for a time-dependent policy; log_std is [m], or one number
for all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from pg.envs import environment, spaces
from pg.exact.tabular.mdp import check_shape
from pg.layers import Quadratic


class State(NamedTuple):
    """The state and the time step of an episode."""

    x: Float[Array, " n"]
    time: Int[Array, ""]


class Matrices(NamedTuple):
    """The matrices of a problem, as numpy or jax arrays."""

    A: Float[Any, "n n"]
    B: Float[Any, "n m"]
    Q: Float[Any, "n n"]
    R: Float[Any, "m m"]
    W: Float[Any, "n n"]
    start: Float[Any, "n n"]


class LQR(environment.Environment):
    """Linear dynamics with Gaussian noise, quadratic costs; the observation is x, and an episode
    lasts H steps.
    """

    _supports_transition_gradients = True

    def __init__(self, A: Any, B: Any, Q: Any, R: Any, W: Any, start: Any, horizon: int) -> None:
        """
        Args:
            A: [n, n].
            B: [n, m].
            Q: [n, n].
            R: [m, m].
            W: covariance of w, [n, n].
            start: covariance of x₀, [n, n].
            horizon: H, the steps of an episode.

        Raises:
            ValueError: a wrong shape, a matrix of costs or a covariance that is not symmetric
                positive semidefinite, or a horizon below 1.
        """
        matrices = Matrices(*(np.asarray(x, np.float64) for x in (A, B, Q, R, W, start)))
        if matrices.B.ndim != 2:
            raise ValueError(f"B must have shape (n, m), got {matrices.B.shape}")
        n, m = matrices.B.shape
        shapes = {"A": (n, n), "B": (n, m), "Q": (n, n), "R": (m, m), "W": (n, n), "start": (n, n)}
        for name, shape in shapes.items():
            check_shape(name, getattr(matrices, name).shape, [shape])
        for name in ("Q", "R", "W", "start"):
            _check_semidefinite(name, getattr(matrices, name))
        if int(horizon) != horizon or horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, got {horizon!r}")
        self.state_dim = n
        self.action_dim = m
        self.horizon = int(horizon)
        self._matrices = matrices
        self._noise_root = _root(matrices.W)
        self._start_root = _root(matrices.start)

    @property
    def matrices(self) -> Matrices:
        """A, B, Q, R, W and start in the default float type."""
        return Matrices(*(jnp.asarray(x, float) for x in self._matrices))

    @property
    def default_params(self) -> environment.EnvParams:
        """The horizon as the time limit."""
        return environment.EnvParams(max_steps_in_episode=self.horizon)

    def reset_env(self, key: PRNGKeyArray, params: Any) -> tuple[Float[Array, " n"], State]:
        """x₀ ~ N(0, start)."""
        state = State(x=self._normal(key, self._start_root), time=jnp.int32(0))
        return state.x, state

    def step_env(
        self, key: PRNGKeyArray, state: State, action: Float[Array, " m"], params: Any
    ) -> tuple[Any, ...]:
        """x' = A x + B u + w, and the cost of x and u; the successor has no derivative unless
        requested.
        """
        A, B, Q, R, _, _ = self.matrices
        reward = -(state.x @ Q @ state.x + action @ R @ action)
        x = A @ state.x + B @ action + self._normal(key, self._noise_root)
        state = State(x=x, time=state.time + 1)
        obs, state = self._apply_transition_gradient_policy(state.x, state)
        return obs, state, reward, jnp.bool_(False), {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> Float[Array, " n"]:
        """x, [n]."""
        return state.x

    def action_space(self, params: Any) -> spaces.Box:
        """u, [m], without bounds."""
        return spaces.Box(-jnp.inf, jnp.inf, (self.action_dim,))

    def observation_space(self, params: Any) -> spaces.Box:
        """x, [n], without bounds."""
        return spaces.Box(-jnp.inf, jnp.inf, (self.state_dim,))

    def _normal(self, key: PRNGKeyArray, root: Float[np.ndarray, "n n"]) -> Float[Array, " n"]:
        """A sample of N(0, root rootᵀ)."""
        return jnp.asarray(root, float) @ jax.random.normal(key, (self.state_dim,), float)


def second_moments(
    lqr: LQR, K: Float[ArrayLike, "*H m n"], log_std: Float[ArrayLike, "*m"]
) -> Float[Array, "H n n"]:
    """Mₜ = E[xₜ xₜᵀ], [H, n, n]: the visitation of a linear system."""
    A, B, _, _, W, start = lqr.matrices
    noise = B @ jnp.diag(_variances(lqr, log_std)) @ B.T + W

    def forward(
        M: Float[Array, "n n"], K: Float[Array, "m n"]
    ) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
        F = A + B @ K
        return F @ M @ F.T + noise, M

    return jax.lax.scan(forward, start, _gains(lqr, K))[1]


def exact_return(
    lqr: LQR,
    K: Float[ArrayLike, "*H m n"],
    log_std: Float[ArrayLike, "*m"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, ""]:
    """J = -Σₜ γᵗ (tr (Q + KᵀR K) Mₜ + tr R S), []. Differentiable to any order."""
    _, _, Q, R, _, _ = lqr.matrices
    M = second_moments(lqr, K, log_std)
    gains = _gains(lqr, K)
    on_state = jnp.einsum("tij,tji->t", Q[None] + gains.mT @ R @ gains, M)
    on_noise = jnp.sum(jnp.diag(R) * _variances(lqr, log_std))
    discount = gamma ** jnp.arange(lqr.horizon)
    return -jnp.sum(discount * (on_state + on_noise))


def exact_gradient(
    lqr: LQR,
    K: Float[ArrayLike, "*H m n"],
    log_std: Float[ArrayLike, "*m"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> tuple[Float[Array, "*H m n"], Float[Array, " m"]]:
    """∇J with respect to K, of its shape, and to log σ, [m] (their sum is the derivative by a
    shared number).

    ∂J/∂K = -2 Σₜ γᵗ (Gₜ K + γ BᵀPₜ₊₁ A) Mₜ,  ∂J/∂log σᵢ = -2 σᵢ² Σₜ γᵗ (Gₜ)ᵢᵢ,  Gₜ = R + γ BᵀPₜ₊₁ B
    """
    A, B, _, R, _, _ = lqr.matrices
    P, _ = value_matrices(lqr, K, log_std, gamma)
    discount = gamma ** jnp.arange(lqr.horizon)
    M = second_moments(lqr, K, log_std)
    G = R[None] + gamma * B.T @ P[1:] @ B
    by_gains = (G @ _gains(lqr, K) + gamma * B.T @ P[1:] @ A) @ M
    by_gains = -2 * discount[:, None, None] * by_gains  # of each step
    by_log_std = -2 * _variances(lqr, log_std) * jnp.einsum("t,tii->i", discount, G)
    if jnp.ndim(K) == 2:  # one gain for all steps
        by_gains = by_gains.sum(0)
    return by_gains, by_log_std


def value_matrices(
    lqr: LQR,
    K: Float[ArrayLike, "*H m n"],
    log_std: Float[ArrayLike, "*m"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> tuple[Float[Array, "steps n n"], Float[Array, " steps"]]:
    """P [H + 1, n, n] and c [H + 1] of Vₜ(x) = -(xᵀPₜ x + cₜ); P_H and c_H are 0.

    cₜ = tr R S + γ (tr BᵀPₜ₊₁ B S + tr Pₜ₊₁ W + cₜ₊₁)
    """
    A, B, Q, R, W, _ = lqr.matrices
    S = jnp.diag(_variances(lqr, log_std))

    def back(
        after: tuple[Float[Array, "n n"], Float[Array, ""]], K: Float[Array, "m n"]
    ) -> tuple[Any, Any]:
        P_tp1, c_tp1 = after
        F = A + B @ K
        of_noise = jnp.trace(B.T @ P_tp1 @ B @ S) + jnp.trace(P_tp1 @ W)
        c = jnp.trace(R @ S) + gamma * (of_noise + c_tp1)
        P = Q + K.T @ R @ K + gamma * F.T @ P_tp1 @ F
        return (P, c), (P, c)

    end = jnp.zeros_like(A), jnp.zeros(())
    values = jax.lax.scan(back, end, _gains(lqr, K), reverse=True)[1]
    return jax.tree.map(lambda steps, last: jnp.concatenate([steps, last[None]]), values, end)


def state_value(
    lqr: LQR,
    K: Float[ArrayLike, "*H m n"],
    log_std: Float[ArrayLike, "*m"],
    x: Float[ArrayLike, "*B n"],
    time: Int[ArrayLike, "*B"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, "*B"]:
    """Vₜ(x) = -(xᵀPₜ x + cₜ), [...]: the exact baseline.

    Args:
        lqr: the problem.
        K: the policy's gains, [m, n] or [H, m, n].
        log_std: its log σ, [m] or [].
        x: states, [..., n].
        time: the steps taken before, [...], from 0 to H.
        gamma: γ.
    """
    P, c = value_matrices(lqr, K, log_std, gamma)
    x = jnp.asarray(x, float)
    time = jnp.asarray(time)
    return -(jnp.einsum("...i,...ij,...j->...", x, P[time], x) + c[time])


def action_value(
    lqr: LQR,
    K: Float[ArrayLike, "*H m n"],
    log_std: Float[ArrayLike, "*m"],
    x: Float[ArrayLike, "*B n"],
    time: Int[ArrayLike, "*B"],
    gamma: Float[ArrayLike, ""] = 1.0,
) -> Quadratic:
    """Qₜ(x, ·) = E[rₜ + γ Vₜ₊₁(x')], a function of the action at each state, centred at 0.

    Qₜ(x, u) = -(xᵀQ x + uᵀR u) - γ ((A x + B u)ᵀPₜ₊₁(A x + B u) + tr Pₜ₊₁ W + cₜ₊₁)

    Args:
        lqr: the problem.
        K: the policy's gains, [m, n] or [H, m, n].
        log_std: its log σ, [m] or [].
        x: states, [..., n].
        time: the steps taken before, [...], from 0 to H - 1.
        gamma: γ.
    """
    A, B, Q, R, W, _ = lqr.matrices
    P, c = value_matrices(lqr, K, log_std, gamma)
    gamma = jnp.asarray(gamma, float)
    x = jnp.asarray(x, float)
    after = jnp.asarray(time) + 1
    P_tp1, c_tp1 = P[after], c[after]
    drift = jnp.einsum("ij,...j->...i", A, x)
    of_state = jnp.einsum("...i,ij,...j->...", x, Q, x)
    of_action = jnp.einsum("ki,...kl,lj->...ij", B, P_tp1, B)
    of_drift = jnp.einsum("...i,...ij,...j->...", drift, P_tp1, drift)
    of_noise = jnp.einsum("...ij,ji->...", P_tp1, W)
    return Quadratic(
        constant=-of_state - gamma * (of_drift + of_noise + c_tp1),
        slope=-2 * gamma * jnp.einsum("ji,...jk,...k->...i", B, P_tp1, drift),
        curvature=-2 * (jnp.broadcast_to(R, of_action.shape) + gamma * of_action),
        centre=jnp.zeros((*x.shape[:-1], lqr.action_dim)),
    )


def optimal_gain(lqr: LQR, gamma: Float[ArrayLike, ""] = 1.0) -> Float[Array, "H m n"]:
    """The best gains Kₜ = -(R + γ BᵀPₜ₊₁ B)⁻¹ γ BᵀPₜ₊₁ A, [H, m, n], by the Riccati recursion,
    whatever the noise.

    R must be positive definite, or the last gains are not defined.
    """
    A, B, Q, R, _, _ = lqr.matrices

    def back(P: Float[Array, "n n"], _: None) -> tuple[Float[Array, "n n"], Float[Array, "m n"]]:
        K = -jnp.linalg.solve(R + gamma * B.T @ P @ B, gamma * B.T @ P @ A)
        F = A + B @ K
        return Q + K.T @ R @ K + gamma * F.T @ P @ F, K

    return jax.lax.scan(back, jnp.zeros_like(A), None, lqr.horizon, reverse=True)[1]


def _gains(lqr: LQR, K: Float[ArrayLike, "*H m n"]) -> Float[Array, "H m n"]:
    """K [m, n] or [H, m, n] as [H, m, n]."""
    gains = jnp.asarray(K, float)
    shape = (lqr.horizon, lqr.action_dim, lqr.state_dim)
    check_shape("K", gains.shape, [shape[1:], shape])
    return jnp.broadcast_to(gains, shape)


def _variances(lqr: LQR, log_std: Float[ArrayLike, "*m"]) -> Float[Array, " m"]:
    """The diagonal of S, [m]."""
    log_std = jnp.asarray(log_std, float)
    check_shape("log_std", log_std.shape, [(), (lqr.action_dim,)])
    return jnp.exp(2 * jnp.broadcast_to(log_std, (lqr.action_dim,)))


def _check_semidefinite(name: str, x: Float[np.ndarray, "n n"]) -> None:
    """Raises ValueError unless a matrix is symmetric and positive semidefinite."""
    tolerance = 1e-10 * np.abs(x).max()
    is_symmetric = np.allclose(x, x.T, rtol=0, atol=tolerance)
    if not is_symmetric or np.linalg.eigvalsh(x).min() < -tolerance:
        raise ValueError(f"{name} must be symmetric and positive semidefinite, got {x.tolist()}")


def _root(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """L with L Lᵀ = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(0))
