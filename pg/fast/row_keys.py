"""Random keys of some rows of a batch: each row draws the same numbers as in the whole batch.

    draw(key, [N, ...])[first : first + M]  =  draw(of_rows(key, first, M, N), [M, ...])

JAX's generator is a function of a key and a counter (Threefry; Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"): number i of an array depends only on the key and on i, and so the
cost is proportional to the number of rows. A key of rows has its own type, which counts from its
first row; keys made from it by `split` or `fold_in` are of the same rows.
"""

import functools
import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray, Shaped, UInt

GENERATOR = "threefry2x32"
_COUNTERS = 2**32  # of the numbers of one array


class _Rows(NamedTuple):
    """The kind of a key of `number` rows out of `total`: [first row, the plain key]."""

    number: int
    total: int

    def seed(self, seed: Array) -> UInt[Array, "3"]:
        raise ValueError("a key of rows is made from a key of the whole batch, not from a seed")

    def split(self, data: UInt[Array, "3"], shape: tuple[int, ...]) -> UInt[Array, "*S 3"]:
        """Keys of the same rows."""
        keys = jax.random.key_data(jax.random.split(_plain(data), shape))
        first = jnp.broadcast_to(data[:1], (*shape, 1))
        return jnp.concatenate([first, keys], axis=-1)

    def fold_in(self, data: UInt[Array, "3"], number: Any) -> UInt[Array, "3"]:
        """A key of the same rows."""
        folded = jax.random.fold_in(_plain(data), number)
        return jnp.concatenate([data[:1], jax.random.key_data(folded)])

    def random_bits(
        self, data: UInt[Array, "3"], width: int, shape: tuple[int, ...]
    ) -> UInt[Array, "*S"]:
        """The rows of a plain key's draw of shape (total, ...), combining the two words of each
        counter as jax does.
        """
        if shape[:1] != (self.number,):
            raise ValueError(
                f"micro_batches draws the noise of {self.number} of {self.total} environments, and "
                f"a distribution draws numbers of shape {list(shape)}: its `draw` must give them "
                "an axis of environments, the first one; or write micro_batches=1"
            )
        size = math.prod(shape[1:])
        if self.total * size > _COUNTERS:
            raise ValueError(
                f"micro_batches counts the random numbers of a step in 32 bits, and there are "
                f"{self.total} × {size}: use fewer num_envs, or micro_batches=1"
            )
        counters = data[0] * jnp.uint32(size) + jnp.arange(math.prod(shape), dtype=jnp.uint32)
        words = jax.random.key_data(_folded(_plain(data), counters)).reshape(*shape, 2)
        high, low = words[..., 0], words[..., 1]
        if width == 64:
            return (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
        return (high ^ low).astype(f"uint{width}")


_kinds: dict[Hashable, _Rows] = {}  # by the implementations of their keys


def of_rows(key: PRNGKeyArray, first: Int[ArrayLike, ""], number: int, total: int) -> PRNGKeyArray:
    """The key of the rows `first`, `first + 1`, ... of a batch.

    Args:
        key: The key of the batch.
        first: The first row; it may be traced.
        number: The rows.
        total: Those of the batch.

    Raises:
        ValueError: Keys of another generator, whose numbers depend on the size of the draw.
    """
    check_generator(jax.random.key_impl(key))
    data = jnp.concatenate([jnp.asarray(first, jnp.uint32)[None], jax.random.key_data(key)])
    return jax.random.wrap_key_data(data, impl=_implementation(number, total))


def check_generator(implementation: Any) -> None:
    """Raises ValueError for a generator whose numbers depend on the size of the draw.
    implementation: see `jax.random.key_impl`.
    """
    flags: Any = jax.config
    if str(implementation) != GENERATOR or not flags.jax_threefry_partitionable:
        raise ValueError(
            f"micro_batches needs jax_default_prng_impl={GENERATOR!r} and "
            "jax_threefry_partitionable=True, the defaults of jax, with which some rows of a batch "
            "draw the same as in the whole batch; or write micro_batches=1"
        )


def plain(key: PRNGKeyArray) -> PRNGKeyArray:
    """The key of the whole batch for a key of rows; another key unchanged."""
    if jax.random.key_impl(key) not in _kinds:
        return key
    return _plain(jax.random.key_data(key))


def split(key: PRNGKeyArray, number: int) -> Shaped[Array, " N"]:
    """`jax.random.split(key, number)`; for a key of rows the rows' keys, which are plain."""
    if jax.random.key_impl(key) not in _kinds:
        return jax.random.split(key, number)
    assert number == _kinds[jax.random.key_impl(key)].number
    data = jax.random.key_data(key)
    return _folded(_plain(data), data[0] + jnp.arange(number, dtype=jnp.uint32))


@functools.cache
def _implementation(number: int, total: int) -> Hashable:
    kind = _Rows(number, total)
    made = define_prng_impl(
        key_shape=(3,),
        seed=kind.seed,
        split=kind.split,
        random_bits=kind.random_bits,
        fold_in=kind.fold_in,
        name=f"rows_{number}_of_{total}",
        tag="rows",
    )
    _kinds[made] = kind
    return made


def _plain(data: UInt[Array, "3"]) -> PRNGKeyArray:
    return jax.random.wrap_key_data(data[1:], impl=GENERATOR)


def _folded(key: PRNGKeyArray, numbers: UInt[Array, " N"]) -> Shaped[Array, " N"]:
    """The keys of `split` at these indices, each of which it makes like `fold_in`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
