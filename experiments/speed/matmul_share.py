"""Measure how close the training of ppo comes on one core to the rate of plain matrix products.

Four programs take turns: products of two 1024 x 1024 matrices; plain products of the sizes that the
gradient has, in blocks of 2048 rows; the gradient of a minibatch; and a whole update. Rates count
the floating-point operations of the products alone (2 per multiplication and addition), not those
of activations, the environment or the optimizer, and are per second of processor time. A share is
the median over turns of the ratio within a turn.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kernel_gradients import NETWORKS, NUM_STEPS, PPO, WAYS, compiled, problem, update

from pg.commands import cli
from pg.reports import tables
from pg.runs import folders

ROWS = 2048  # of a large block, see pg.fast.blocks
LARGE = 1024  # rows and columns of the matrices whose product stands for the core's best rate
NUM_ENVS = 64  # of an update
LEAST_SECONDS = 0.03  # of processor time for one measurement
DENSE = tuple(name for name in NETWORKS if "CNN" not in name)
MARKS = ("<!-- matmul share -->", "<!-- end of matmul share -->")


class Program(NamedTuple):
    """A compiled program with its arguments, and the operations of its products."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    operations: float


@dataclasses.dataclass
class Options:
    """The networks, and the number of turns."""

    networks: tuple[str, ...] = DENSE
    """Environments and networks of dense layers."""
    repeats: int = 7
    """Number of turns that are timed."""
    json: Path | None = None
    """File in which the figures are written."""
    out: Path | None = None
    """Page in which the table replaces the lines between `<!-- matmul share -->` and
    `<!-- end of matmul share -->`.
    """


def main() -> None:
    """Prints a table of rates and shares."""
    options = cli.options(Options, cli.docstring_of(__file__))
    if options.repeats < 1:
        cli.fail(f"repeats must be at least 1, got {options.repeats}")
    unknown = set(options.networks) - set(DENSE)
    if unknown:
        cli.fail(f"networks are {', '.join(DENSE)}; got {', '.join(sorted(unknown))}")
    if options.out is not None:
        tables.check_marks(options.out, MARKS)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # before JAX counts the cores
    found = {name: measured(name, options.repeats) for name in options.networks}
    cells = table(found)
    print(tables.plain(cells), flush=True)
    if options.json is not None:
        folders.write_json(options.json, {"rows": found, "versions": folders.environment()})
    if options.out is not None:
        tables.insert(options.out, tables.markdown(cells), MARKS)


def table(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The cells of the table, a row per network."""
    cells = [
        [
            "ppo, GFLOP/s of one core",
            "1024² products",
            "products of its sizes",
            "gradient",
            "update",
            "gradient, of 1024² products",
            "gradient, of its sizes",
            "update, of its sizes",
        ]
    ]
    for name, row in found.items():
        rates = [f"{rate / 1e9:.0f}" for rate in row["rates"].values()]
        shares = [f"{share:.2f}" for share in row["shares"].values()]
        cells.append([name, *rates, *shares])
    return cells


def measured(network: str, repeats: int) -> dict[str, dict[str, float]]:
    """The rate of every program in operations per second, and the shares of the table."""
    programs = made(network)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats + 1):  # the first turn is not timed
        for name, program in programs.items():
            seconds[name].append(processor_seconds(program))
    rates = {name: programs[name].operations / np.array(each[1:]) for name, each in seconds.items()}
    shares = {
        "gradient, large": rates["gradient"] / rates["large"],
        "gradient, products": rates["gradient"] / rates["products"],
        "update, products": rates["update"] / rates["products"],
    }
    return {
        "rates": {name: float(np.median(rate)) for name, rate in rates.items()},
        "shares": {name: float(np.median(share)) for name, share in shares.items()},
    }


def processor_seconds(program: Program) -> float:
    """The processor time of a call in seconds: the mean over calls that together take
    `LEAST_SECONDS` or more.
    """
    import jax

    started = time.process_time()
    calls = 0
    while time.process_time() - started < LEAST_SECONDS:
        jax.block_until_ready(program.run(*program.arguments))
        calls += 1
    return (time.process_time() - started) / calls


def made(network: str) -> dict[str, Program]:
    """The programs of one row of the table."""
    import jax

    minibatch_envs = NUM_ENVS // PPO["num_minibatches"]
    gradient, params, batch = problem("ppo", NETWORKS[network] | {"num_envs": minibatch_envs}, 1)
    step, state, key = update("ppo", NETWORKS[network] | PPO | {"num_envs": NUM_ENVS}, 1)
    policy, critic = kernel_shapes(params.policy), kernel_shapes(params.critic)
    batch_rows, minibatch_rows = NUM_STEPS * NUM_ENVS, NUM_STEPS * minibatch_envs
    of_gradient = gradient_operations(policy) + gradient_operations(critic)
    # The policy acts, and the critic values every observation and the one after it.
    of_collection = forward_operations(policy) + 2 * forward_operations(critic)
    of_update = batch_rows * (of_collection + PPO["num_epochs"] * of_gradient)
    matrix = jax.random.normal(jax.random.key(0), (LARGE, LARGE))
    chosen = WAYS["2048 rows"]
    gradient_program = compiled(gradient, (params, batch), chosen)
    update_program = compiled(step, (state, key), chosen)
    return {
        "large": Program(jax.jit(jax.numpy.matmul), (matrix, matrix), 2.0 * LARGE**3),
        "products": plain_products([*policy, *critic], minibatch_rows // ROWS),
        "gradient": Program(gradient_program, (params, batch), minibatch_rows * of_gradient),
        "update": Program(update_program, (state, key), of_update),
    }


def kernel_shapes(params: Any) -> list[tuple[int, int]]:
    """Inputs and outputs of every dense layer of a network, the first layer first."""
    torso, head = params["params"]["torso"], params["params"]["head"]
    return [layer["kernel"].shape for layer in (*torso.values(), *head.values())]


def forward_operations(kernels: Sequence[tuple[int, int]]) -> float:
    """Operations of the products that apply a network to one row."""
    return 2.0 * sum(inputs * outputs for inputs, outputs in kernels)


def gradient_operations(kernels: Sequence[tuple[int, int]]) -> float:
    """Operations of the products of a network's gradient for one row: each layer's output, the
    gradient of its kernel and, but for the first layer, the gradient of its input.
    """
    of_first_input = 2.0 * math.prod(kernels[0])
    return 3 * forward_operations(kernels) - of_first_input


def plain_products(kernels: Sequence[tuple[int, int]], num_blocks: int) -> Program:
    """The three products that the gradient of a dense layer needs, for every kernel and block of
    rows, from matrices that are laid out as the product needs them.
    """
    import jax
    import jax.numpy as jnp

    key = jax.random.key(0)
    sizes = [
        size
        for inputs, outputs in kernels
        for size in (
            (ROWS, inputs, outputs),  # the output
            (inputs, ROWS, outputs),  # the gradient of the kernel
            (ROWS, outputs, inputs),  # the gradient of the input
        )
    ]
    left = [jax.random.normal(key, (num_blocks, rows, inner)) for rows, inner, _ in sizes]
    right = [jax.random.normal(key, (inner, columns)) for _, inner, columns in sizes]

    def block_products(left: Any, right: Any) -> Any:
        def of_block(k: Any, last: Any) -> Any:
            del last  # carried, so that every block's products are computed
            return [jnp.matmul(x[k], y) for x, y in zip(left, right, strict=True)]

        zeros = [jnp.zeros((rows, columns)) for rows, _, columns in sizes]
        return jax.lax.fori_loop(0, num_blocks, of_block, zeros)

    operations = 2.0 * num_blocks * sum(map(math.prod, sizes))
    return Program(jax.jit(block_products), (left, right), operations)


if __name__ == "__main__":
    main()
