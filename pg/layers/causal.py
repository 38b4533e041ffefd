"""A causal transformer over sequences of tokens, with a cache of keys and values when acting."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from pg.fast import blocks
from pg.layers.dense import Dense, dense, layer_norm
from pg.layers.torsos import Hidden

__all__ = ["Cache", "CausalTransformer", "TokenKinds"]


class TokenKinds(NamedTuple):
    """Vocabulary sizes of a transformer's embeddings."""

    token: int
    position: int
    prompt: int
    prompt_length: int  # P, the prompt's length


class Cache(NamedTuple):
    """Keys and values of one sequence so far, for N blocks and S = P + L positions: the prompt's,
    and then one for each token.
    """

    keys: Float[Array, "*B N S size"]
    values: Float[Array, "*B N S size"]


# Tokens that attend at a time.
QUERIES = 32

Block = tuple[Float[Array, "B S size"], Float[Array, "B S size"]]  # keys, values


class CausalTransformer(nn.Module):
    """Pre-norm blocks of causal self-attention and an MLP (Vaswani et al. 2017, 1706.03762), over a
    prompt and the tokens after it.

    A rollout step adds one token to the cache, which is the carry, and attends to it: L steps cost
    as much as one pass over the sequence. Several steps at once, as in training, are a whole
    sequence from its start, in one pass without the cache.
    """

    num_blocks: int
    size: int
    heads: int
    kinds: TokenKinds
    hidden: Hidden

    def setup(self) -> None:
        """The embeddings, which are products with one-hot vectors, and the blocks."""
        self.token, self.position, self.prompt, self.place = (self._embedding() for _ in range(4))
        self.layers = [
            AttentionBlock(self.size, self.heads, self.hidden) for _ in range(self.num_blocks)
        ]
        self.norm = layer_norm()

    def start(self) -> Cache:
        """The carry of one environment at an episode's start."""
        num_places = self.kinds.prompt_length + self.kinds.position - 1
        rows = jnp.zeros((self.num_blocks, num_places, self.size))
        return Cache(rows, rows)

    def __call__(
        self, carry: Cache, obs: PyTree, first: Bool[Array, "*T B"]
    ) -> tuple[Cache, Float[Array, "*T B size"]]:
        """carry, obs [..., *O], first [B], one step, or [T, B], whole sequences -> carry, features
        [..., size].
        """
        if first.ndim == 1:
            return self._step(carry, obs, first)
        if len(first) > 1:
            return self._sequence(carry, obs)
        carry, features = self._step(carry, jax.tree.map(lambda x: x[0], obs), first[0])
        return carry, features[None]

    def _step(
        self, carry: Cache, obs: PyTree, first: Bool[Array, " B"]
    ) -> tuple[Cache, Float[Array, "B size"]]:
        """The features of the next token, and the cache with the last one."""
        carry = self._with_prompt(carry, obs["prompt"], first)
        last = self.kinds.prompt_length + obs["position"].astype(jnp.int32)  # [B, 1]
        places = jnp.arange(carry.keys.shape[-2])[None]
        is_last, is_seen = (places == last)[..., None], (places <= last)[:, None]
        x = self._embedded(obs)[:, None]
        after: list[Block] = []
        for layer, keys, values in zip(self.layers, *_by_block(carry), strict=True):
            x, block = layer(x, is_seen, _put(keys, is_last), _put(values, is_last))
            after.append(block)
        return _cache(after), self.norm(x[:, 0])

    def _with_prompt(
        self, carry: Cache, prompt: Float[Array, "B P"], first: Bool[Array, " B"]
    ) -> Cache:
        """The cache, reset to the prompt where an episode starts."""

        def begun(self: "CausalTransformer", carry: Cache) -> Cache:
            _, of_prompt = self._pass(self._embedded_prompt(prompt))
            begins = first[:, None, None, None]
            return jax.tree.map(lambda new, old: jnp.where(begins, new, old), of_prompt, carry)

        if self.is_initializing():
            return begun(self, carry)
        # over all vmapped runs, so that it stays a branch that is rarely taken
        any_begins = blocks.largest(first.any())
        return nn.cond(any_begins, begun, lambda self, carry: carry, self, carry)

    def _sequence(self, carry: Cache, obs: PyTree) -> tuple[Cache, Float[Array, "T B size"]]:
        """The features of every token, and the cache with all of them."""
        tokens = jnp.moveaxis(self._embedded(obs), 0, 1)
        prompt = self._embedded_prompt(obs["prompt"][0])
        x, cache = self._pass(jnp.concatenate([prompt, tokens], axis=1))
        return cache, jnp.moveaxis(self.norm(x[:, self.kinds.prompt_length :]), 1, 0)

    def _pass(self, x: Float[Array, "B T size"]) -> tuple[Float[Array, "B T size"], Cache]:
        """The last block's output at the first T positions, and the cache with them."""
        length = x.shape[1]
        is_seen = jnp.tril(jnp.ones((length, length), bool))[None]
        of_blocks: list[Block] = []
        for layer in self.layers:
            x, block = layer(x, is_seen)
            of_blocks.append(block)
        num_places = self.start().keys.shape[-2]

        def padded(rows: Float[Array, "B N T size"]) -> Float[Array, "B N S size"]:
            free = max(num_places - length, 0)
            return jnp.pad(rows, ((0, 0), (0, 0), (0, free), (0, 0)))[:, :, :num_places]

        return x, jax.tree.map(padded, _cache(of_blocks))

    def _embedded(self, obs: PyTree) -> Float[Array, "*T B size"]:
        """The embeddings of the last token and its position."""
        token, position = (obs[name][..., 0] for name in ("token", "position"))
        return self.token(_one_hot(token, self.kinds.token)) + self.position(
            _one_hot(position, self.kinds.position)
        )

    def _embedded_prompt(self, prompt: Float[Array, "B P"]) -> Float[Array, "B P size"]:
        """The embeddings of the prompt's tokens and positions."""
        places = jnp.arange(self.kinds.prompt_length)
        of_place = self.place(_one_hot(places, self.kinds.prompt_length))
        return self.prompt(_one_hot(prompt, self.kinds.prompt)) + of_place[None]

    def _embedding(self) -> Dense:
        return dense(self.size, 1.0, self.hidden.initialiser)


class AttentionBlock(nn.Module):
    """Causal self-attention, then an MLP, each with a residual connection."""

    size: int
    heads: int
    hidden: Hidden

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T size"],
        is_seen: Bool[Array, "#B T S"],
        put_keys: Callable[[Array], Array] = lambda new: new,
        put_values: Callable[[Array], Array] = lambda new: new,
    ) -> tuple[Float[Array, "B T size"], Block]:
        """
        Args:
            x: the T tokens.
            is_seen: the positions that each of them attends to.
            put_keys: their keys [B, T, size] -> the keys of all S positions; default: there are no
                others.
            put_values: like put_keys.

        Returns:
            The output, and keys and values [B, S, size].
        """
        queries, new_keys, new_values = jnp.split(
            dense(3 * self.size, 1.0)(layer_norm()(x)), 3, axis=-1
        )
        keys, values = put_keys(new_keys), put_values(new_values)
        attended = attention(queries, keys, values, is_seen, self.heads)
        x = x + dense(self.size, 1.0)(attended)
        hidden = self.hidden.layer(layer_norm()(x), 4 * self.size)
        return x + dense(self.size, 1.0)(hidden), (keys, values)


def attention(
    queries: Float[Array, "B T size"],
    keys: Float[Array, "B S size"],
    values: Float[Array, "B S size"],
    is_seen: Bool[Array, "#B T S"],
    heads: int,
) -> Float[Array, "B T size"]:
    """Multi-head scaled dot-product attention.

    Long sequences are processed in blocks of `QUERIES` tokens, recomputed in the backward pass:
    B · H · QUERIES · S attention weights are in memory instead of B · H · T · S.

    Args:
        queries: one for each of T tokens.
        keys: one for each position.
        values: as the keys.
        is_seen: the positions that each token attends to, at least one.
        heads: number of heads, which divides the size.
    """
    batch, length, size = queries.shape
    scale = (size // heads) ** -0.5

    def apart(rows: Float[Array, "B N size"]) -> Float[Array, "B N H D"]:
        return rows.reshape(*rows.shape[:-1], heads, -1)

    def attended(
        queries: Float[Array, "B C size"], is_seen: Bool[Array, "#B C S"]
    ) -> Float[Array, "B C size"]:
        logits = scale * jnp.einsum("bthd,bshd->bhts", apart(queries), keys_apart)
        weights = jax.nn.softmax(jnp.where(is_seen[:, None], logits, -jnp.inf))
        return jnp.einsum("bhts,bshd->bthd", weights, values_apart).reshape(queries.shape)

    keys_apart, values_apart = apart(keys), apart(values)
    if length <= QUERIES:
        return attended(queries, is_seen)
    num_chunks = -(-length // QUERIES)
    padding = ((0, 0), (0, num_chunks * QUERIES - length), (0, 0))

    def chunks(rows: Shaped[Array, "B T *N"], filled_with: Any) -> Shaped[Array, "M B C *N"]:
        rows = jnp.pad(rows, padding, constant_values=filled_with)
        return jnp.moveaxis(rows.reshape(-1, num_chunks, QUERIES, rows.shape[-1]), 1, 0)

    # padding attends to something, so that its softmax is finite
    parts = chunks(queries, 0.0), chunks(is_seen, True)
    output = jax.lax.map(jax.checkpoint(lambda part: attended(*part)), parts)
    return jnp.moveaxis(output, 0, 1).reshape(batch, -1, size)[:, :length]


def _one_hot(x: Float[Array, "*B"] | Int[Array, "*B"], kinds: int) -> Float[Array, "*B K"]:
    return jax.nn.one_hot(x.astype(jnp.int32), kinds, dtype=float)


def _by_block(cache: Cache) -> list[list[Float[Array, "B S size"]]]:
    """The keys of each block, and its values."""
    return [list(jnp.moveaxis(rows, 1, 0)) for rows in cache]


def _cache(of_blocks: list[Block]) -> Cache:
    """The cache of keys and values by block."""
    return Cache(*(jnp.stack(rows, axis=1) for rows in zip(*of_blocks, strict=True)))


def _put(
    rows: Float[Array, "B S size"], is_last: Bool[Array, "B S 1"]
) -> Callable[[Array], Float[Array, "B S size"]]:
    """A new row [B, 1, size] -> the rows with it in its place."""
    return lambda new: jnp.where(is_last, new, rows)
