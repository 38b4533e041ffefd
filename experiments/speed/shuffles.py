"""Measure the ways to shuffle the rows of a batch: processor time and compile time, in turns.

Sorts of random words with the numbers as values (as `jax.random.permutation` does twice), a sort of
words that hold both, whose ties are broken by number, and the Feistel network of
`pg.fast.shuffles`. Each figure is the median over turns, of shuffles for as many epochs at once.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from pg.commands import cli
from pg.reports import tables


@dataclasses.dataclass
class Options:
    """The shuffles that are compared."""

    counts: tuple[int, ...] = (2048, 8191, 8192, 131072)
    """Numbers of rows."""
    epochs: int = 4
    """Number of shuffles in one program."""
    repeats: int = 11
    """Number of turns that are timed."""


def main() -> None:
    """Prints a table: milliseconds of processor time, and seconds of it to compile."""
    options = cli.options(Options, cli.docstring_of(__file__))
    if min(*options.counts, options.epochs, options.repeats) < 1:
        cli.fail("counts, epochs and repeats must be at least 1")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # before JAX counts the cores
    cells = [["rows", *ways()]]
    for count in options.counts:
        found = measured(count, options)
        cells.append([str(count), *(f"{ms:.2f} ms ({s:.1f} s)" for ms, s in found)])
    print(tables.plain(cells), flush=True)


def ways() -> dict[str, Callable[[Any, int], Any]]:
    """By its name, key, number of rows -> their order."""
    import jax
    import jax.numpy as jnp

    from pg.fast import shuffles

    def one_sort(key: Any, count: int) -> Any:
        return jax.lax.sort_key_val(jax.random.bits(key, (count,)), jnp.arange(count))[1]

    def sorted_words(key: Any, count: int) -> Any:
        bits = (count - 1).bit_length()
        random = jax.random.bits(key, (count,)) >> bits << bits
        words = jax.lax.sort(random | jnp.arange(count, dtype=jnp.uint32), is_stable=False)
        return words & (2**bits - 1)

    return {
        "jax.random.permutation": jax.random.permutation,
        "one sort": one_sort,
        "one sort of words": sorted_words,
        "pg.fast.shuffles": shuffles.permutation,
    }


def measured(count: int, options: Options) -> list[tuple[float, float]]:
    """Milliseconds of processor time for all epochs, and seconds to compile, of every way."""
    import jax

    keys = jax.random.split(jax.random.key(0), options.epochs)
    programs, compile_seconds = [], []
    for way in ways().values():
        started = time.process_time()
        shuffle = jax.vmap(lambda key, way=way: way(key, count))
        programs.append(jax.jit(shuffle).lower(keys).compile())
        compile_seconds.append(time.process_time() - started)
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(options.repeats + 1):
        for program, of_program in zip(programs, seconds, strict=True):
            started = time.process_time()
            jax.block_until_ready(program(keys))
            of_program.append(time.process_time() - started)
    taken = [1e3 * median(of_program[1:]) for of_program in seconds]  # the first warms up
    return list(zip(taken, compile_seconds, strict=True))


if __name__ == "__main__":
    main()
