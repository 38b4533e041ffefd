"""Random keys whose first numbers are given: an environment's draws can be spread over a batch of
episodes like the noise of the actions (`pg.sampling`), for any environment.

    bits(key, shape) of a key of points: its d words, then the draws of a plain key after the first
    d

Every word is uniform, and so are the draws of a key that is used once, as jax requires. The first
of the keys that are split off it has the same points; the others, and those made by `fold_in`, are
independent.
"""

import functools
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, Shaped, UInt, UInt32

from pg.fast import programs
from pg.fast.key_numbers import is_key
from pg.fast.row_keys import GENERATOR

MOST_NUMBERS = 8  # that a key of points is asked for: later ones are independent
_WORD = 32  # bits
_KINDS: set[Hashable] = set()  # the implementations of keys of points


def with_points(
    keys: Shaped[PRNGKeyArray, " B"], points: UInt32[Array, "B d"]
) -> Shaped[PRNGKeyArray, " B"]:
    """Keys that draw the points first, and then like plain keys.

    Args:
        keys: Plain keys.
        points: Random bits, uniform in each entry.

    Raises:
        ValueError: The keys have another generator than jax's default.
    """
    implementation = str(jax.random.key_impl(keys))
    if implementation != GENERATOR:
        raise ValueError(
            "sample_env hands an environment the numbers that its key draws first, for which "
            f"jax_default_prng_impl must be {GENERATOR!r}, got {implementation!r}"
        )
    data = jnp.concatenate([jax.random.key_data(keys), points], axis=-1)
    return jax.random.wrap_key_data(data, impl=_implementation(points.shape[-1]))


def is_of_points(key: Any) -> bool:
    """True for keys that `with_points` made."""
    return is_key(key) and jax.random.key_impl(key) in _KINDS


def numbers_drawn(function: Callable[..., Any], *args: Any) -> int:
    """The size of the largest array of random numbers that a function draws with any key, at most
    `MOST_NUMBERS`; 0 if it draws none. The function is traced, not run.
    """
    sizes = _sizes(jax.make_jaxpr(function)(*args))
    return min(MOST_NUMBERS, max(sizes, default=0))


def _sizes(program: Any) -> Iterator[int]:
    """The sizes of all draws in a program, including its parts."""
    for equation in program.eqns:
        if equation.primitive.name == "random_bits":
            yield math.prod(equation.params["shape"])
        for part in programs.parts_of(equation):
            yield from _sizes(part)


@functools.cache
def _implementation(number: int) -> Hashable:
    """The kind of keys of `number` points: [the plain key, the points]."""
    made = define_prng_impl(
        key_shape=(2 + number,),
        seed=_seed,
        split=functools.partial(_split, number),
        random_bits=_random_bits,
        fold_in=functools.partial(_fold_in, number),
        name=f"points_{number}",
        tag="points",
    )
    _KINDS.add(made)
    return made


def _seed(seed: Array) -> UInt[Array, " D"]:
    raise ValueError("a key of points is made from a key and its points, not from a seed")


def _split(number: int, data: UInt[Array, " D"], shape: tuple[int, ...]) -> UInt[Array, "*S D"]:
    """Keys, the first of them with the same points."""
    keys = jax.random.split(_plain(data), math.prod(shape))
    made = jax.vmap(functools.partial(_with_own_points, number))(keys)
    return made.at[0, 2:].set(data[2:]).reshape(*shape, -1)


def _fold_in(number: int, data: UInt[Array, " D"], folded: Any) -> UInt[Array, " D"]:
    return _with_own_points(number, jax.random.fold_in(_plain(data), folded))


def _random_bits(data: UInt[Array, " D"], width: int, shape: tuple[int, ...]) -> UInt[Array, "*S"]:
    """The points as the leading bits of the first numbers, and the plain key's bits elsewhere."""
    plain = jax.random.bits(_plain(data), shape, f"uint{width}").reshape(-1)
    points = data[2:][: plain.size]
    if width < _WORD:
        first = (points >> (_WORD - width)).astype(plain.dtype)
    else:
        later_bits = plain[: points.size] & ((1 << (width - _WORD)) - 1)
        first = (points.astype(plain.dtype) << (width - _WORD)) | later_bits
    return plain.at[: points.size].set(first).reshape(shape)


def _with_own_points(number: int, key: PRNGKeyArray) -> UInt[Array, " D"]:
    """The numbers of a key of points that draws like the plain one."""
    points = jax.random.bits(key, (number,), jnp.uint32)
    return jnp.concatenate([jax.random.key_data(key), points])


def _plain(data: UInt[Array, " D"]) -> PRNGKeyArray:
    return jax.random.wrap_key_data(data[:2], impl=GENERATOR)
