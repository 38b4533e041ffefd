"""Returns and advantages: arrays [T, ...] to arrays [T, ...], time first.

All of them follow from one recurrence:  yₜ = xₜ + cₜ yₜ₊₁  (`discounted_sum`).

    reward-to-go   x = r                         c = γ (1 - done)
    GAE(λ)         x = δ                         c = γ λ (1 - done)
    V-trace        x = min(ρ̄, ρ) δ               c = γ λ min(c̄, ρ) (1 - done)

`terminated` and `truncated` are kept apart: the value after a termination is 0, the value after a
truncation is V of the true successor, `v_tp1`. If both are set, termination takes precedence. A
trace never crosses either.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from pg.axes import expand_to
from pg.inputs import converted, count, floats, numbers

FLAGS = ("done", "terminated", "truncated")


def _steps(**values: Any) -> dict[str, Any]:
    """Per-step values, [T, ...] each, as arrays: `FLAGS` as booleans, the others as floats.

    Raises ValueError for anything but numbers, for a scalar without a time axis, and if shapes
    differ.
    """
    arrays = {
        name: numbers(name, value).astype(bool) if name in FLAGS else floats(name, value)
        for name, value in values.items()
    }
    first = next(iter(arrays))
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{name} must be [T, ...], time first, got a scalar")
        if array.shape != arrays[first].shape:
            shapes = f"{list(arrays[first].shape)} and {list(array.shape)}"
            raise ValueError(f"{first} and {name} must have the same shape, [T, ...], got {shapes}")
    return arrays


@converted(_steps, "x")
def discounted_sum(
    x: Float[Array, "T *B"],
    discount: Real[ArrayLike, "..."],
    last: Real[ArrayLike, "..."] = 0.0,
) -> Float[Array, "T *B"]:
    """yₜ = xₜ + cₜ yₜ₊₁ with y_T = last, [T, ...].

    Args:
        x: [T, ...].
        discount: c, broadcast against x.
        last: y_T, broadcast against x[0].
    """
    c = jnp.broadcast_to(jnp.asarray(discount, x.dtype), x.shape)
    last = jnp.broadcast_to(jnp.asarray(last, x.dtype), x.shape[1:])

    def step(
        y: Float[Array, "*B"], xc: tuple[Float[Array, "*B"], Float[Array, "*B"]]
    ) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
        x_t, c_t = xc
        y = x_t + c_t * y
        return y, y

    return jax.lax.scan(step, last, (x, c), reverse=True)[1]


@converted(_steps, "reward")
def total_return(reward: Float[Array, "T *B"], gamma: Float[ArrayLike, ""]) -> Float[Array, "*B"]:
    """R = Σₜ γᵗ rₜ, summed over axis 0, [...]. Each column is one episode from its start, padded
    with 0.

    reward: [T, ...].
    """
    return jnp.sum(discount_powers(reward, gamma) * reward, axis=0)


def discount(time: Real[Array, "*B"], gamma: Float[ArrayLike, ""]) -> Float[Array, "*B"]:
    """γᵗ for times t, [...]; 0⁰ = 1."""
    time = floats("time", time)
    return jnp.asarray(gamma, time.dtype) ** time


@converted(_steps, "x")
def discount_powers(x: Float[Array, "T *B"], gamma: Float[ArrayLike, ""]) -> Float[Array, "T *#B"]:
    """γᵗ for t = 0 .. T-1, shaped [T, 1, ...] to broadcast against x: [T, ...]; 0⁰ = 1."""
    return discount(expand_to(jnp.arange(x.shape[0], dtype=x.dtype), x), gamma)


@converted(_steps, "reward", "done")
def reward_to_go(
    reward: Float[Array, "T *B"], done: Bool[Array, "T *B"], gamma: Float[ArrayLike, ""]
) -> Float[Array, "T *B"]:
    """Gₜ = rₜ + γ (1 - doneₜ) Gₜ₊₁, restarting after `done`, [T, ...]. Not multiplied by γᵗ.

    Args:
        reward: rₜ, [T, ...].
        done: terminations and truncations, [T, ...].
        gamma: γ.
    """
    return discounted_sum(reward, gamma * _unless(done, reward))


@converted(_steps, "reward", "terminated", "v_t", "v_tp1")
def td_error(
    reward: Float[Array, "T *B"],
    terminated: Bool[Array, "T *B"],
    v_t: Float[Array, "T *B"],
    v_tp1: Float[Array, "T *B"],
    gamma: Float[ArrayLike, ""],
) -> Float[Array, "T *B"]:
    """δₜ = rₜ + γ (1 - terminatedₜ) V(sₜ₊₁) - V(sₜ), [T, ...]  (Sutton 1988).

    Truncation needs no extra term: V(sₜ₊₁) replaces the rewards that would have followed.

    Args:
        reward: rₜ, [T, ...].
        terminated: terminations, [T, ...].
        v_t: V(sₜ), [T, ...].
        v_tp1: V(sₜ₊₁) of the true successor, [T, ...]; ignored (and possibly NaN) where terminated.
        gamma: γ.
    """
    return reward + gamma * jnp.where(terminated, 0.0, v_tp1) - v_t


@converted(_steps, "reward", "terminated", "truncated", "v_t", "v_tp1")
def n_step(
    reward: Float[Array, "T *B"],
    terminated: Bool[Array, "T *B"],
    truncated: Bool[Array, "T *B"],
    v_t: Float[Array, "T *B"],
    v_tp1: Float[Array, "T *B"],
    gamma: Float[ArrayLike, ""],
    n: ArrayLike,
) -> Float[Array, "T *B"]:
    """Aₜ = Σ_{l<n} γˡ rₜ₊ₗ + γⁿ V(sₜ₊ₙ) - V(sₜ), [T, ...]  (Mnih et al. 2016, 1602.01783).

    The sum of n TD errors, or fewer if the episode or the array ends first.

    Args:
        reward: rₜ, [T, ...].
        terminated: terminations, [T, ...].
        truncated: truncations, after which the return is bootstrapped with V(sₜ₊₁), [T, ...].
        v_t: V(sₜ), [T, ...].
        v_tp1: V(sₜ₊₁) of the true successor, [T, ...]; ignored where terminated.
        gamma: γ.
        n: an integer of at least 1; it may be traced.

    Raises:
        ValueError: another n.
    """
    if not isinstance(n, jax.core.Tracer):  # a tracer has no value to check
        number: Any = n
        n = count("n", number.item() if getattr(n, "shape", None) == () else n)
    n = jnp.minimum(jnp.asarray(n), reward.shape[0]).astype(int)  # T + n must not overflow
    alive = _unless(terminated | truncated, reward)
    full = discounted_sum(td_error(reward, terminated, v_t, v_tp1, gamma), gamma * alive)
    # Minus the tail from n steps ahead, which counts only if no episode ends in between.
    steps = jnp.arange(reward.shape[0])
    ahead = jnp.minimum(steps + n, reward.shape[0] - 1)
    ends = jnp.concatenate([jnp.zeros_like(alive[:1]), jnp.cumsum(1.0 - alive, axis=0)])
    uninterrupted = (ends[ahead] == ends[:-1]) & expand_to(steps + n < reward.shape[0], reward)
    return full - jnp.where(
        uninterrupted, jnp.asarray(gamma, reward.dtype) ** n.astype(reward.dtype) * full[ahead], 0.0
    )


@converted(_steps, "reward", "terminated", "truncated", "v_t", "v_tp1")
def gae(
    reward: Float[Array, "T *B"],
    terminated: Bool[Array, "T *B"],
    truncated: Bool[Array, "T *B"],
    v_t: Float[Array, "T *B"],
    v_tp1: Float[Array, "T *B"],
    gamma: Float[ArrayLike, ""],
    lambda_: Float[ArrayLike, ""],
) -> Float[Array, "T *B"]:
    """Aₜ = Σₗ (γλ)ˡ δₜ₊ₗ, within the episode, [T, ...]  (Schulman et al. 2016, 1506.02438, eq.
    16).

    Args:
        reward: rₜ, [T, ...].
        terminated: terminations, [T, ...].
        truncated: truncations, after which the return is bootstrapped with V(sₜ₊₁), [T, ...].
        v_t: V(sₜ), [T, ...].
        v_tp1: V(sₜ₊₁) of the true successor, [T, ...]; ignored where terminated.
        gamma: γ.
        lambda_: λ; 0 is the TD error, 1 the reward to go minus V, bootstrapped with V(sₜ₊₁) at a
            truncation and at the end of the array.
    """
    delta = td_error(reward, terminated, v_t, v_tp1, gamma)
    return discounted_sum(delta, gamma * lambda_ * _unless(terminated | truncated, reward))


@converted(_steps, "rho", "reward", "terminated", "truncated", "v_t", "v_tp1")
def vtrace(
    rho: Float[Array, "T *B"],
    reward: Float[Array, "T *B"],
    terminated: Bool[Array, "T *B"],
    truncated: Bool[Array, "T *B"],
    v_t: Float[Array, "T *B"],
    v_tp1: Float[Array, "T *B"],
    gamma: Float[ArrayLike, ""],
    lambda_: Float[ArrayLike, ""] = 1.0,
    clip_rho: Float[ArrayLike, ""] = 1.0,
    clip_c: Float[ArrayLike, ""] = 1.0,
) -> tuple[Float[Array, "T *B"], Float[Array, "T *B"]]:
    """Targets vₜ and advantages, each [T, ...]  (Espeholt et al. 2018, 1802.01561, eq. 1 and
    section 4.2).

    vₜ = V(sₜ) + Σ_{k≥t} γᵏ⁻ᵗ (Π_{t≤i<k} cᵢ) min(ρ̄, ρₖ) δₖ,  cᵢ = λ min(c̄, ρᵢ)
    Aₜ = min(ρ̄, ρₜ) (rₜ + γ (1 - terminatedₜ) vₜ₊₁ - V(sₜ))

    vₜ₊₁ is V(sₜ₊₁) at the end of an episode or of the array.

    Args:
        rho: ρₜ = π / behaviour, [T, ...].
        reward: rₜ, [T, ...].
        terminated: terminations, [T, ...].
        truncated: truncations, after which the return is bootstrapped with V(sₜ₊₁), [T, ...].
        v_t: V(sₜ), [T, ...].
        v_tp1: V(sₜ₊₁) of the true successor, [T, ...]; ignored where terminated.
        gamma: γ.
        lambda_: λ.
        clip_rho: ρ̄.
        clip_c: c̄.
    """
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


def _unless(flag: Bool[Array, "*B"], like: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """1 - flag, in the dtype of `like`: 0 where the flag is set."""
    return 1.0 - flag.astype(like.dtype)
