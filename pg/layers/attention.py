"""A causal transformer with a window, whose carry is the last W keys and values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from pg.layers.dense import dense, layer_norm

__all__ = ["Past", "Transformer", "ages", "windowed_attention"]


class Past(NamedTuple):
    """The last W steps of one environment, the newest last; steps before the episode are present
    but masked.
    """

    keys: Float[Array, "*B W size"]
    values: Float[Array, "*B W size"]
    length: Int[Array, "*B"]  # steps of this episode among them


class Transformer(nn.Module):
    """One pre-norm block (Vaswani et al. 2017, 1706.03762): attention to the current step and to
    the `window` steps of the episode before it, then an MLP.

    Positions are relative: each head has a learned bias for each distance (T5, Raffel et al. 2020,
    1910.10683).
    """

    size: int
    heads: int
    window: int

    def start(self) -> Past:
        """The carry of one environment at an episode's start."""
        rows = jnp.zeros((self.window, self.size))
        return Past(rows, rows, jnp.int32(0))

    @nn.compact
    def __call__(
        self, carry: Past, x: Float[Array, "*T B F"], first: Bool[Array, "*T B"]
    ) -> tuple[Past, Float[Array, "*T B size"]]:
        """carry; x: [B, F] and first: [B], one step, or [T, B, F] and [T, B] -> carry, [...,
        size].
        """
        if is_step := first.ndim == 1:
            x, first = x[None], first[None]
        age = ages(first, carry.length, self.window)
        bias = self.param(
            "distance", nn.initializers.zeros, (self.heads, self.window + 1), jnp.zeros(()).dtype
        )
        x = dense(self.size, 1.0)(x)
        new = jnp.moveaxis(dense(3 * self.size, 1.0)(layer_norm()(x)), 0, 1)
        queries, new_keys, new_values = jnp.split(new, 3, axis=-1)
        keys = jnp.concatenate([carry.keys, new_keys], axis=1)
        values = jnp.concatenate([carry.values, new_values], axis=1)
        attended = windowed_attention(queries, keys, values, age.T, bias)
        x = x + dense(self.size, 1.0)(jnp.moveaxis(attended, 1, 0))
        hidden = nn.gelu(dense(2 * self.size, 1.0)(layer_norm()(x)))
        x = layer_norm()(x + dense(self.size, 1.0)(hidden))
        length = jnp.minimum(age[-1] + 1, self.window)
        past = Past(keys[:, -self.window :], values[:, -self.window :], length)
        return past, (x[0] if is_step else x)


def ages(first: Bool[Array, "T B"], count: Int[Array, " B"], window: int) -> Int[Array, "T B"]:
    """The number of steps of the episode before each step, at most `window`.

    Args:
        first: the steps at which an episode begins.
        count: this number at the first step, unless an episode begins there.
        window: the largest number.
    """
    time = jnp.arange(first.shape[0], dtype=jnp.int32)[:, None]
    start = jnp.where(first, time, -count[None])
    return jnp.minimum(time - jax.lax.cummax(start), window)


def windowed_attention(
    queries: Float[Array, "B T S"],
    keys: Float[Array, "B K S"],
    values: Float[Array, "B K S"],
    age: Int[Array, "B T"],
    bias: Float[Array, "H R"],
) -> Float[Array, "B T S"]:
    """Attention of every step to itself and to the `age` steps before it, with H heads.

    The sequence is split into chunks of W steps, each of which attends to itself and to the W steps
    before it: 2 W products per step, whatever the length of the sequence.

    Args:
        queries: one for each step.
        keys: one for each of W earlier steps, and then one for each step, K = W + T.
        values: as the keys.
        age: how far back each step sees, at most W.
        bias: the bias of each head's logits at each of the R = W + 1 distances.
    """
    num_heads, window = bias.shape[0], bias.shape[1] - 1
    batch, length, size = queries.shape
    chunk = min(length, window)
    num_chunks = -(-length // chunk)
    padding = ((0, 0), (0, num_chunks * chunk - length), (0, 0))

    def heads(rows: Float[Array, "B C N S"]) -> Float[Array, "B C N H D"]:
        return rows.reshape(*rows.shape[:-1], num_heads, -1)

    def reach(rows: Float[Array, "B K S"]) -> Float[Array, "B C N S"]:
        """The rows that each chunk attends to."""
        rows = jnp.pad(rows, padding)
        if num_chunks == 1:
            return rows[:, None]
        parts = rows.reshape(batch, num_chunks + 1, chunk, size)
        return jnp.concatenate([parts[:, :-1], parts[:, 1:]], axis=2)

    query = jnp.pad(queries, padding).reshape(batch, num_chunks, chunk, size)
    age = jnp.pad(age, padding[:2]).reshape(batch, 1, num_chunks, chunk, 1)
    here, there = jnp.arange(chunk)[:, None], jnp.arange(window + chunk)[None]
    distance = window + here - there
    bias = bias[:, jnp.clip(distance, 0, window)][None, :, None]
    scale = (size // num_heads) ** -0.5
    logits = scale * jnp.einsum("bcqhd,bckhd->bhcqk", heads(query), heads(reach(keys)))
    logits = logits + bias
    is_seen = (distance >= 0)[None, None, None] & (distance[None, None, None] <= age)
    weights = jax.nn.softmax(jnp.where(is_seen, logits, -jnp.inf))
    attended = jnp.einsum("bhcqk,bckhd->bcqhd", weights, heads(reach(values)))
    return attended.reshape(batch, num_chunks * chunk, size)[:, :length]
