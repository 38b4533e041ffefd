"""Measure the training pass of recurrent cells: output and gradient of whole sequences, as
ratios of those of a GRU, which is scanned step by step.

Compiled programs take turns in one process; each figure is the median over turns of the ratio
within a turn.
"""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import by_length

from pg.commands import cli
from pg.config import RNN

KINDS = tuple(kind for kind in get_args(RNN) if kind != "none")


@dataclasses.dataclass
class Options:
    """The programs that are timed."""

    lengths: tuple[int, ...] = (128, 1024)
    """Lengths of the sequences."""
    num_envs: int = 16
    """Number of sequences."""
    size: int = 64
    """Width of the input and of the cell."""
    window: int = 32
    """Earlier steps that the transformer sees."""
    repeats: int = 20
    """Number of timed turns."""
    json: Path | None = None
    """File in which the figures are written."""


def main() -> None:
    """Prints a table for each length."""
    by_length.run(Options, cli.docstring_of(__file__), measured)


def measured(length: int, options: Options) -> dict[str, Any]:
    """The figures of every cell on sequences of one length, which it prints."""
    from timing import faster, medians, table, take_turns

    programs = {kind: learning_pass(kind, length, options) for kind in KINDS}
    timings = take_turns(programs, options.repeats)
    rows = medians(programs, timings)
    print(table(f"{options.num_envs} sequences of {length} steps", rows))
    ratios = {kind: faster(timings[kind], timings["gru"]) for kind in KINDS}
    print(", ".join(f"{kind} {ratio:.2f}" for kind, ratio in ratios.items()), "× a gru\n")
    return {kind: {**rows[kind], "vs_gru": ratios[kind]} for kind in KINDS}


def learning_pass(kind: RNN, length: int, options: Options) -> Any:
    """The gradient of a sum of squared outputs, by the parameters and by the input."""
    import jax
    import jax.numpy as jnp
    from timing import compiled

    from pg.layers import make_cell

    cell = make_cell(kind, options.size, options.window, by_length.HEADS)
    assert cell is not None
    shape = (length, options.num_envs)
    carry = jax.tree.map(lambda c: jnp.broadcast_to(c, (options.num_envs, *c.shape)), cell.start())
    x = jax.random.normal(jax.random.key(0), (*shape, options.size))
    params = cell.init(jax.random.key(1), carry, x[0], jnp.ones(options.num_envs, bool))

    def loss(params: Any, x: jax.Array, first: jax.Array) -> jax.Array:
        return (cell.apply(params, carry, x, first)[1] ** 2).mean()

    def learn(params: Any, x: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        first = jax.random.bernoulli(key, 0.02, shape)
        return jax.grad(loss, argnums=(0, 1))(params, x, first), jnp.int32(length * shape[1])

    return compiled(learn, params, x)


if __name__ == "__main__":
    main()
