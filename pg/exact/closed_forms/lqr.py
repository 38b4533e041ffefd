"""The linear-quadratic regulator over H steps: J(θ), its gradient and its values in closed form.

    x' = A x + B u + w,  w ~ N(0, W),  x₀ ~ N(0, start),  reward -(xᵀQ x + uᵀR u),  J(θ) = E[Σ_{t<H}
    γᵗ rₜ] u = K x + σ ε,  θ = (K, log σ),  S = diag(σ²),  F = A + B K

    forward    M₀ = start,  Mₜ₊₁ = F Mₜ Fᵀ + B S Bᵀ + W
    backward   P_H = 0,  Pₜ = Q + KᵀR K + γ Fᵀ Pₜ₊₁ F

(Fazel et al. 2018, 1801.05039, for a finite horizon.)

A gain K is [m, n], or [H, m, n] for a policy that reads the clock; log_std is [m], or one number
for all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs import environment, spaces
from pg.exact.tabular.mdp import check_shape


class State(NamedTuple):
    """Where an episode stands."""

    x: jax.Array  # [n]
    time: jax.Array  # int []


class Matrices(NamedTuple):
    """The problem."""

    A: Any  # [n, n]
    B: Any  # [n, m]
    Q: Any  # [n, n]
    R: Any  # [m, m]
    W: Any  # [n, n]
    start: Any  # [n, n]


class LQR(environment.Environment):
    """Linear dynamics with Gaussian noise, quadratic costs; the observation is x, and an episode
    lasts H steps.
    """

    _supports_transition_gradients = True

    def __init__(self, A: Any, B: Any, Q: Any, R: Any, W: Any, start: Any, horizon: int) -> None:
        """A: [n, n]. B: [n, m]. Q: [n, n]. R: [m, m]. W, start: covariances of w and x₀, [n, n].

        Raises ValueError, naming the argument, for a wrong shape, a matrix of costs or a covariance
        that is not symmetric positive semidefinite, or a horizon below 1.
        """
        given = Matrices(*(np.asarray(x, np.float64) for x in (A, B, Q, R, W, start)))
        if given.B.ndim != 2:
            raise ValueError(f"B must have shape (n, m), got {given.B.shape}")
        n, m = self.state_dim, self.action_dim = given.B.shape
        shapes = Matrices((n, n), (n, m), (n, n), (m, m), (n, n), (n, n))
        for name, x, shape in zip(Matrices._fields, given, shapes, strict=True):
            check_shape(name, x.shape, [shape])
        for name in ("Q", "R", "W", "start"):
            _check_semidefinite(name, getattr(given, name))
        if int(horizon) != horizon or horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, got {horizon!r}")
        self.horizon = int(horizon)
        self._given, self._roots = given, (_root(given.W), _root(given.start))

    @property
    def matrices(self) -> Matrices:
        """A, B, Q, R, W and start in the default float type."""
        return Matrices(*(jnp.asarray(x, float) for x in self._given))

    @property
    def default_params(self) -> environment.EnvParams:
        """The horizon as the time limit."""
        return environment.EnvParams(max_steps_in_episode=self.horizon)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, State]:
        """x₀ ~ N(0, start)."""
        state = State(x=self._normal(key, self._roots[1]), time=jnp.int32(0))
        return state.x, state

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Any
    ) -> tuple[Any, ...]:
        """x' = A x + B u + w, and what x and u cost; the successor has no derivative unless that
        was asked for.
        """
        A, B, Q, R, _, _ = self.matrices
        reward = -(state.x @ Q @ state.x + action @ R @ action)
        state = State(
            x=A @ state.x + B @ action + self._normal(key, self._roots[0]), time=state.time + 1
        )
        obs, state = self._apply_transition_gradient_policy(state.x, state)
        return obs, state, reward, jnp.bool_(False), {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        """x, [n]."""
        return state.x

    def action_space(self, params: Any) -> spaces.Box:
        """u, [m], without bounds."""
        return spaces.Box(-jnp.inf, jnp.inf, (self.action_dim,))

    def observation_space(self, params: Any) -> spaces.Box:
        """x, [n], without bounds."""
        return spaces.Box(-jnp.inf, jnp.inf, (self.state_dim,))

    def _normal(self, key: jax.Array, root: np.ndarray) -> jax.Array:
        return jnp.asarray(root, float) @ jax.random.normal(key, (self.state_dim,), float)


def second_moments(lqr: LQR, K: Any, log_std: Any) -> jax.Array:
    """Mₜ = E[xₜ xₜᵀ], [H, n, n]: the visitation of a linear system."""
    A, B, _, _, W, start = lqr.matrices
    noise = B @ jnp.diag(_variances(lqr, log_std)) @ B.T + W

    def forward(M: jax.Array, K: jax.Array) -> tuple[jax.Array, jax.Array]:
        F = A + B @ K
        return F @ M @ F.T + noise, M

    return jax.lax.scan(forward, start, _gains(lqr, K))[1]


def exact_return(lqr: LQR, K: Any, log_std: Any, gamma: Any = 1.0) -> jax.Array:
    """J = -Σₜ γᵗ (tr (Q + KᵀR K) Mₜ + tr R S), []. Differentiable to any order."""
    _, _, Q, R, _, _ = lqr.matrices
    K, M = _gains(lqr, K), second_moments(lqr, K, log_std)
    on_state = jnp.einsum("tij,tji->t", Q[None] + K.mT @ R @ K, M)
    on_noise = jnp.sum(jnp.diag(R) * _variances(lqr, log_std))
    return -jnp.sum(gamma ** jnp.arange(lqr.horizon) * (on_state + on_noise))


def exact_gradient(lqr: LQR, K: Any, log_std: Any, gamma: Any = 1.0) -> tuple[jax.Array, jax.Array]:
    """∇J with respect to K, of its shape, and to log σ, [m] (whose sum is the derivative by one
    number for all).

    ∂J/∂K = -2 Σₜ γᵗ (Gₜ K + γ BᵀPₜ₊₁ A) Mₜ,  ∂J/∂log σᵢ = -2 σᵢ² Σₜ γᵗ (Gₜ)ᵢᵢ,  Gₜ = R + γ BᵀPₜ₊₁ B
    """
    A, B, _, R, _, _ = lqr.matrices
    P, _ = value_matrices(lqr, K, log_std, gamma)
    discount = gamma ** jnp.arange(lqr.horizon)
    G = R[None] + gamma * B.T @ P[1:] @ B
    by_step = (G @ _gains(lqr, K) + gamma * B.T @ P[1:] @ A) @ second_moments(lqr, K, log_std)
    by_step = -2 * discount[:, None, None] * by_step
    by_log_std = -2 * _variances(lqr, log_std) * jnp.einsum("t,tii->i", discount, G)
    return by_step if jnp.ndim(K) == 3 else by_step.sum(0), by_log_std


def value_matrices(lqr: LQR, K: Any, log_std: Any, gamma: Any = 1.0) -> tuple[jax.Array, jax.Array]:
    """P [H + 1, n, n] and c [H + 1] of Vₜ(x) = -(xᵀPₜ x + cₜ); P_H and c_H are 0.

    cₜ = tr R S + γ (tr BᵀPₜ₊₁ B S + tr Pₜ₊₁ W + cₜ₊₁)
    """
    A, B, Q, R, W, _ = lqr.matrices
    S = jnp.diag(_variances(lqr, log_std))

    def back(after: tuple[jax.Array, jax.Array], K: jax.Array) -> tuple[Any, Any]:
        P, c = after
        F = A + B @ K
        c = jnp.trace(R @ S) + gamma * (jnp.trace(B.T @ P @ B @ S) + jnp.trace(P @ W) + c)
        P = Q + K.T @ R @ K + gamma * F.T @ P @ F
        return (P, c), (P, c)

    end = jnp.zeros_like(A), jnp.zeros(())
    values = jax.lax.scan(back, end, _gains(lqr, K), reverse=True)[1]
    return jax.tree.map(lambda steps, last: jnp.concatenate([steps, last[None]]), values, end)


def state_value(lqr: LQR, K: Any, log_std: Any, x: Any, time: Any, gamma: Any = 1.0) -> jax.Array:
    """Vₜ(x) = -(xᵀPₜ x + cₜ), [...]: the exact baseline. x: [..., n]; time: int [...], from 0 to
    H.
    """
    P, c = value_matrices(lqr, K, log_std, gamma)
    x, time = jnp.asarray(x, float), jnp.asarray(time)
    return -(jnp.einsum("...i,...ij,...j->...", x, P[time], x) + c[time])


def optimal_gain(lqr: LQR, gamma: Any = 1.0) -> jax.Array:
    """The best gains Kₜ = -(R + γ BᵀPₜ₊₁ B)⁻¹ γ BᵀPₜ₊₁ A, [H, m, n], by the Riccati recursion,
    whatever the noise.

    R must be positive definite, or the last gains are not defined.
    """
    A, B, Q, R, _, _ = lqr.matrices

    def back(P: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        K = -jnp.linalg.solve(R + gamma * B.T @ P @ B, gamma * B.T @ P @ A)
        F = A + B @ K
        return Q + K.T @ R @ K + gamma * F.T @ P @ F, K

    return jax.lax.scan(back, jnp.zeros_like(A), None, lqr.horizon, reverse=True)[1]


def _gains(lqr: LQR, K: Any) -> jax.Array:
    """K [m, n] or [H, m, n] as [H, m, n]."""
    K, shape = jnp.asarray(K, float), (lqr.horizon, lqr.action_dim, lqr.state_dim)
    check_shape("K", K.shape, [shape[1:], shape])
    return jnp.broadcast_to(K, shape)


def _variances(lqr: LQR, log_std: Any) -> jax.Array:
    """The diagonal of S, [m]."""
    log_std = jnp.asarray(log_std, float)
    check_shape("log_std", log_std.shape, [(), (lqr.action_dim,)])
    return jnp.exp(2 * jnp.broadcast_to(log_std, (lqr.action_dim,)))


def _check_semidefinite(name: str, x: np.ndarray) -> None:
    tolerance = 1e-10 * np.abs(x).max()
    if not np.allclose(x, x.T, rtol=0, atol=tolerance) or np.linalg.eigvalsh(x).min() < -tolerance:
        raise ValueError(f"{name} must be symmetric and positive semidefinite, got {x.tolist()}")


def _root(covariance: np.ndarray) -> np.ndarray:
    """L with L Lᵀ = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(0))
