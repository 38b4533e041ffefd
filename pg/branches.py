"""Branches: extra episodes from the states that a batch visits, and their first actions.

    sampled        K episodes, each with its own first action sampled from the policy
    every_action   K episodes of each discrete action
    pairs          K times two episodes for each parameter of the action distribution; a constant
                   times the difference of their returns estimates the derivative with respect to it
                   (a measure-valued derivative)

A signed measure that is the derivative of a distribution is a constant times the difference of two
distributions (Mohamed et al. 2020, 1906.10652, section 6):

    ∂/∂x E[f(a)] = c (E[f(a⁺)] - E[f(a⁻)])
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import rounding
from pg.distributions import CensoredGaussian, Gaussian, TanhGaussian, inverse_cdf
from pg.inputs import described

Kind = Literal["sampled", "every_action", "pairs"]
_SQRT_2PI = math.sqrt(2 * math.pi)


class Branching(NamedTuple):
    """The extra episodes from each visited state."""

    kind: Kind = "sampled"  # their first actions
    gamma: Float[ArrayLike, ""] = 1.0  # γ of their returns
    # all episodes of one repetition, that is of every action or of all pairs, use the same random
    # numbers after their first action
    common_numbers: bool = False
    every_state: bool = False  # Ψ also uses the branches of the next state, so all need some


class Branches(NamedTuple):
    """Extra episodes from each visited state: leaves [T, B, K, M, ...], K repetitions of M.

    M is 1 for sampled actions, the number of actions, or twice the number of pairs: a⁺, a⁻ of the
    first, a⁺, a⁻ of the second, ... All are 0 where no episode starts.
    """

    action: PyTree[Shaped[Array, "T B K M ..."]]  # the first action, as `dist.sample` returns it
    reward_to_go: Float[Array, "T B K M"]  # Σₖ γᵏ rₜ₊ₖ from the state on
    log_prob_to_go: Float[Array, "T B K M"]  # Σₖ γᵏ log π(aₜ₊ₖ|sₜ₊ₖ), including the first action
    constant: Float[Array, "T B K M"]  # c for a⁺ and -c for a⁻; 1 without pairs
    # the number of visited states that this one represents: 1; or n for every n-th state and 0 for
    # the others
    stands_for: Float[Array, "T B"]
    env_steps: Int[Array, "T B"]  # of all of them together


class FirstActions(NamedTuple):
    """The first actions of branches, leaves [N, K, M, ...]."""

    action: PyTree[Shaped[Array, "N K M ..."]]
    constant: Float[Array, "N K M"]


def first_actions(kind: Kind, dist: Any, key: PRNGKeyArray, repetitions: int) -> FirstActions:
    """The first actions of branches from N states.

    Args:
        kind: Which actions.
        dist: The policy's distributions in these states.
        key: A random key.
        repetitions: K.

    Raises:
        ValueError: `every_action` if actions are not discrete, or `pairs` for a distribution
            without a known measure-valued derivative.
    """
    keys = jax.random.split(key, repetitions)
    if kind == "sampled":
        action = jax.vmap(lambda key: dist.sample(dist.draw(key)), out_axes=1)(keys)
        action = jax.tree.map(lambda x: x[:, :, None], action)
        constant = jnp.ones(jax.tree.leaves(action)[0].shape[:3], jnp.result_type(float))
        return FirstActions(action, constant)
    if kind == "every_action":
        action = _every_action(_logits("tries every action", dist))
        action = jnp.broadcast_to(action[:, None], (len(action), repetitions, action.shape[-1]))
        return FirstActions(action, jnp.ones(action.shape, jnp.result_type(float)))
    if isinstance(dist, Gaussian | TanhGaussian | CensoredGaussian):
        base = dist if isinstance(dist, Gaussian) else dist.base
        return jax.vmap(lambda key: _gaussian_pairs(base, key), out_axes=1)(keys)
    logits = _logits("differentiates by pairs of actions", dist)
    return jax.vmap(lambda key: _discrete_pair(logits, key), out_axes=1)(keys)


def _logits(what: str, dist: Any) -> Float[Array, "N A"]:
    """The logits of discrete actions. Raises ValueError if there are none, saying what needs
    them.
    """
    if not hasattr(dist, "logits"):
        others = ", or Gaussian ones" if "pairs" in what else ""
        raise ValueError(
            f"this estimator {what}, and needs discrete ones{others}; the policy's are of "
            f"{described(dist)}"
        )
    return dist.logits


def _every_action(logits: Float[Array, "N A"]) -> Int[Array, "N A"]:
    """Each action; an illegal one is replaced by the most probable one."""
    mode = jnp.argmax(logits, axis=-1).astype(jnp.int32)[:, None]
    numbers = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None]
    return jnp.where(jnp.isneginf(logits), mode, numbers)


def _discrete_pair(logits: Float[Array, "N A"], key: PRNGKeyArray) -> FirstActions:
    """Two different actions, a⁺ and a⁻, [N, 2], and ±c = ±½ Σₐ π(a) (1 - π(a)).

    For the logit x of action j, ∂π/∂x = cⱼ (δⱼ - π(·|a ≠ j)), cⱼ = π(j) (1 - π(j)). One logit is
    sampled, with probability cⱼ / Σ c, and with a⁺ = j its derivative is Σ c (Q(a⁺) - Q(a⁻)). As a⁺
    and a⁻ are exchangeable, half of this is credited to the logit of a⁺, and minus half to that of
    a⁻.
    """
    up_key, down_key = jax.random.split(key)
    p = jax.nn.softmax(logits)
    c = p * rounding.sum_of_others(p)  # positive even if 1 - p rounds to 0
    up = inverse_cdf(c, jax.random.uniform(up_key, p.shape[:-1], p.dtype))
    is_up = jax.nn.one_hot(up, p.shape[-1], dtype=bool)
    down = inverse_cdf(jnp.where(is_up, 0.0, p), jax.random.uniform(down_key, up.shape, p.dtype))
    total = jnp.sum(c, axis=-1)
    # one action has probability 1: there is no other to compare it with
    mode = jnp.argmax(logits, axis=-1)
    action = jnp.stack([up, down], axis=-1)
    action = jnp.where(total[:, None] > 0, action, mode[:, None]).astype(jnp.int32)
    return FirstActions(action, jnp.stack([0.5 * total, -0.5 * total], axis=-1))


def _gaussian_pairs(dist: Gaussian, key: PRNGKeyArray) -> FirstActions:
    """Two actions for each mean and for the logarithm of each standard deviation, [N, 4D, D].

    ∂/∂mean: mean ± σw, where w has the density w exp(-w² / 2), a Weibull distribution, and
    c = 1 / (σ √(2π)). ∂/∂log σ: mean + σm, where m has the double-sided Maxwell density m² φ(m),
    against a sample of the Gaussian itself, and c = 1. Both actions of a pair use the same w, or
    the same m, as m u is Gaussian for u uniform on [0, 1]. They also share all other dimensions
    (1906.10652, section 6).
    """
    n, d = dist.mean.shape
    noise_key, w_key, m_key, u_key = jax.random.split(key, 4)
    mean, std = dist.mean, jnp.exp(jnp.broadcast_to(dist.log_std, dist.mean.shape))
    w = jnp.sqrt(2.0 * jax.random.exponential(w_key, (n, d), mean.dtype))
    # a coordinate of a vector of three Gaussians is its length times a uniform number on [-1, 1]
    three = jax.random.normal(m_key, (n, d, 3), mean.dtype)
    m = jnp.linalg.norm(three, axis=-1) * jnp.sign(three[..., 0])
    u = jax.random.uniform(u_key, (n, d), mean.dtype)
    replaced = jnp.stack([jnp.stack([w, m]), jnp.stack([-w, m * u])], axis=1)  # [2, 2, N, D]
    noise = jax.random.normal(noise_key, (2, n, d, d), mean.dtype)[:, None]  # [2, 1, N, D, D]
    own = jnp.eye(d, dtype=bool)[None, None, None]
    noise = jnp.where(own, replaced[..., None], noise)  # [2, 2, N, D, D]
    noise = noise.transpose(2, 0, 3, 1, 4).reshape(n, 4 * d, d)
    constant = jnp.stack([1 / (std * _SQRT_2PI), jnp.ones_like(std)], axis=1)  # [N, 2, D]
    constant = jnp.stack([constant, -constant], axis=-1).reshape(n, 4 * d)
    return FirstActions(mean[:, None] + std[:, None] * noise, constant)
