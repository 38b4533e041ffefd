"""Returns and advantages: arrays [T, ...] to arrays [T, ...], time first.

One recurrence writes them all:  yₜ = xₜ + cₜ yₜ₊₁  (`discounted_sum`).

    reward-to-go   x = r                         c = γ (1 - done)
    GAE(λ)         x = δ                         c = γ λ (1 - done)
    V-trace        x = min(ρ̄, ρ) δ               c = γ λ min(c̄, ρ) (1 - done)

`terminated` and `truncated` are kept apart: the value after a termination is 0, the value after a
truncation is V of the true successor, `v_tp1`. Where both are set, termination wins. A trace never
crosses either.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pg.inputs import count, floats, numbers

FLAGS = ("done", "terminated", "truncated")


def discounted_sum(
    x: jax.Array, discount: jax.Array | float, last: jax.Array | float = 0.0
) -> jax.Array:
    """yₜ = xₜ + cₜ yₜ₊₁ with y_T = last, [T, ...].

    x: [T, ...]. discount: c, broadcast against x. last: broadcast against x[0].
    """
    (x,) = _steps(x=x)
    c = jnp.broadcast_to(jnp.asarray(discount, x.dtype), x.shape)
    last = jnp.broadcast_to(jnp.asarray(last, x.dtype), x.shape[1:])

    def step(y: jax.Array, xc: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        y = xc[0] + xc[1] * y
        return y, y

    return jax.lax.scan(step, last, (x, c), reverse=True)[1]


def total_return(reward: jax.Array, gamma: jax.Array | float) -> jax.Array:
    """R = Σₜ γᵗ rₜ, summed over axis 0, [...]: each column is one episode from its start, 0 after
    its end.

    reward: [T, ...].
    """
    (reward,) = _steps(reward=reward)
    return jnp.sum(discount_powers(reward, gamma) * reward, axis=0)


def discount_powers(x: jax.Array, gamma: jax.Array | float) -> jax.Array:
    """γᵗ for t = 0 .. T-1, shaped [T, 1, ...] to multiply x: [T, ...]; 0⁰ = 1."""
    (x,) = _steps(x=x)
    return jnp.asarray(gamma, x.dtype) ** _column(jnp.arange(x.shape[0], dtype=x.dtype), x)


def reward_to_go(reward: jax.Array, done: jax.Array, gamma: jax.Array | float) -> jax.Array:
    """Gₜ = rₜ + γ (1 - doneₜ) Gₜ₊₁, restarting after `done`, [T, ...]. Not multiplied by γᵗ.

    reward: [T, ...]. done: [T, ...] bool.
    """
    reward, done = _steps(reward=reward, done=done)
    return discounted_sum(reward, gamma * _unless(done, reward))


def td_error(
    reward: jax.Array,
    terminated: jax.Array,
    v_t: jax.Array,
    v_tp1: jax.Array,
    gamma: jax.Array | float,
) -> jax.Array:
    """δₜ = rₜ + γ (1 - terminatedₜ) V(sₜ₊₁) - V(sₜ), [T, ...]  (Sutton 1988).

    v_tp1: V of the true successor; where terminated it is not read, and may be NaN. Truncation
    needs no term: V(sₜ₊₁) stands for what would have followed.
    """
    reward, terminated, v_t, v_tp1 = _steps(
        reward=reward, terminated=terminated, v_t=v_t, v_tp1=v_tp1
    )
    return reward + gamma * jnp.where(terminated, 0.0, v_tp1) - v_t


def n_step(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    v_t: jax.Array,
    v_tp1: jax.Array,
    gamma: jax.Array | float,
    n: jax.Array | int,
) -> jax.Array:
    """Aₜ = Σ_{l<n} γˡ rₜ₊ₗ + γⁿ V(sₜ₊ₙ) - V(sₜ), [T, ...]  (Mnih et al. 2016, 1602.01783).

    The sum of n TD errors, fewer where the episode or the array ends first; n may be traced.
    """
    reward, terminated, truncated, v_t, v_tp1 = _steps(
        reward=reward, terminated=terminated, truncated=truncated, v_t=v_t, v_tp1=v_tp1
    )
    if not isinstance(n, jax.core.Tracer):  # whose number is not known yet
        number: Any = n
        n = count("n", number.item() if getattr(n, "shape", None) == () else n)
    n = jnp.asarray(n).astype(int)
    alive = _unless(terminated | truncated, reward)
    full = discounted_sum(td_error(reward, terminated, v_t, v_tp1, gamma), gamma * alive)
    # Less what lies n steps ahead, which is reached only if no episode ends in between.
    steps = jnp.arange(reward.shape[0])
    ahead = jnp.minimum(steps + n, reward.shape[0] - 1)
    ends = jnp.concatenate([jnp.zeros_like(alive[:1]), jnp.cumsum(1.0 - alive, axis=0)])
    uninterrupted = (ends[ahead] == ends[:-1]) & _column(steps + n < reward.shape[0], reward)
    return full - jnp.where(
        uninterrupted, jnp.asarray(gamma, reward.dtype) ** n.astype(reward.dtype) * full[ahead], 0.0
    )


def gae(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    v_t: jax.Array,
    v_tp1: jax.Array,
    gamma: jax.Array | float,
    lambda_: jax.Array | float,
) -> jax.Array:
    """Aₜ = Σₗ (γλ)ˡ δₜ₊ₗ, within the episode, [T, ...]  (Schulman et al. 2016, 1506.02438, eq.
    16).
    """
    reward, terminated, truncated, v_t, v_tp1 = _steps(
        reward=reward, terminated=terminated, truncated=truncated, v_t=v_t, v_tp1=v_tp1
    )
    delta = td_error(reward, terminated, v_t, v_tp1, gamma)
    return discounted_sum(delta, gamma * lambda_ * _unless(terminated | truncated, reward))


def vtrace(
    rho: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    v_t: jax.Array,
    v_tp1: jax.Array,
    gamma: jax.Array | float,
    lambda_: jax.Array | float = 1.0,
    clip_rho: jax.Array | float = 1.0,
    clip_c: jax.Array | float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Targets vₜ and advantages, each [T, ...]  (Espeholt et al. 2018, 1802.01561, eq. 1 and
    section 4.2).

    vₜ = V(sₜ) + Σ_{k≥t} γᵏ⁻ᵗ (Π_{t≤i<k} cᵢ) min(ρ̄, ρₖ) δₖ,  cᵢ = λ min(c̄, ρᵢ)
    Aₜ = min(ρ̄, ρₜ) (rₜ + γ (1 - terminatedₜ) vₜ₊₁ - V(sₜ))

    rho: π / behaviour, [T, ...]. vₜ₊₁ is V(sₜ₊₁) where the episode or the array ends.
    """
    rho, reward, terminated, truncated, v_t, v_tp1 = _steps(
        rho=rho, reward=reward, terminated=terminated, truncated=truncated, v_t=v_t, v_tp1=v_tp1
    )
    done = terminated | truncated
    weight = jnp.minimum(clip_rho, rho)
    delta = weight * td_error(reward, terminated, v_t, v_tp1, gamma)
    correction = discounted_sum(
        delta, gamma * lambda_ * jnp.minimum(clip_c, rho) * _unless(done, reward)
    )
    following = jnp.concatenate([correction[1:], jnp.zeros_like(correction[:1])])
    target_tp1 = v_tp1 + jnp.where(done, 0.0, following)
    advantage = weight * td_error(reward, terminated, v_t, target_tp1, gamma)
    return v_t + correction, advantage


def _steps(**given: Any) -> tuple[jax.Array, ...]:
    """Values of every step, [T, ...] each, as arrays: `FLAGS` as booleans, the others as floats.

    Raises ValueError for what are no numbers, for a number without an axis of time, and where
    shapes differ.
    """
    arrays = {
        name: numbers(name, value).astype(bool) if name in FLAGS else floats(name, value)
        for name, value in given.items()
    }
    first = next(iter(arrays))
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{name} must be [T, ...], time first, got one number")
        if array.shape != arrays[first].shape:
            shapes = f"{list(arrays[first].shape)} and {list(array.shape)}"
            raise ValueError(f"{first} and {name} must have one shape, [T, ...], got {shapes}")
    return tuple(arrays.values())


def _unless(flag: jax.Array, like: jax.Array) -> jax.Array:
    """1 - flag, in the floats of `like`: 0 where the flag is set."""
    return 1.0 - flag.astype(like.dtype)


def _column(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.reshape(-1, *[1] * (like.ndim - 1))
