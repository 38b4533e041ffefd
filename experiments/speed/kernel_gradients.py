"""Measure on a CPU what the gradient of a minibatch gains from transposed products of kernels, and
from blocks of more rows.

The gradients of one batch, or whole updates, compiled each way, take turns. Each figure is the time
of plain products in blocks of 256 rows divided by that of another way, by the clock and in brackets
by processor time: the median over turns of the ratio within a turn. A digest says whether another
number of cores gives the same bits.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from pg.commands import cli
from pg.reports import tables
from pg.runs import folders

NUM_STEPS = 128  # of a batch
PPO = {"num_steps": NUM_STEPS, "num_epochs": 4, "num_minibatches": 4}  # a whole update
KERNELS = ((4, 64), (4, 256), (8, 64), (64, 64), (64, 2), (256, 256), (400, 64))  # for --products


class Way(NamedTuple):
    """A way of computing a gradient."""

    transposed: bool  # the products of kernels' gradients, as in pg.layers.dense
    rows: int  # of a block


WAYS = {
    "plain, 256 rows": Way(transposed=False, rows=256),
    "plain, 2048 rows": Way(transposed=False, rows=2048),
    "256 rows": Way(transposed=True, rows=256),
    "2048 rows": Way(transposed=True, rows=2048),
}
PLAIN = next(iter(WAYS))
NETWORKS: dict[str, dict[str, Any]] = {
    "CartPole 64²": {"env": "CartPole-v1"},
    "CartPole 256²": {"env": "CartPole-v1", "hidden_sizes": (256, 256)},
    "CartPole 1024²": {"env": "CartPole-v1", "hidden_sizes": (1024, 1024)},
    "Breakout as MLP": {"env": "Breakout-MinAtar", "network": "mlp"},
    "Breakout as CNN": {"env": "Breakout-MinAtar", "network": "cnn"},
}


@dataclasses.dataclass
class Options:
    """The gradients that are compiled."""

    estimators: tuple[str, ...] = ("ppo", "reinforce")
    """Estimators, under their presets: ppo has a critic, reinforce none."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """Environments and networks."""
    products: bool = False
    """Time single products xᵀ g of 256 rows in a program of their own: plain, and with xᵀ or gᵀ
    laid out first.
    """
    update: bool = False
    """Time whole updates, of ppo with 4 epochs of 4 minibatches, and not the gradient of one
    minibatch.
    """
    num_envs: int = 16
    """Number of environments; an update of ppo has them in four minibatches."""
    seeds: int = 1
    """Number of vmapped seeds."""
    cores: int = 1
    """Number of processor cores."""
    repeats: int = 11
    """Number of turns that are timed."""
    json: Path | None = None
    """File in which the figures are written."""


def main() -> None:
    """Prints a table of ratios."""
    options = cli.options(Options, cli.docstring_of(__file__))
    for name in ("num_envs", "seeds", "cores", "repeats"):
        if getattr(options, name) < 1:
            cli.fail(f"{name} must be at least 1, got {getattr(options, name)}")
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        cli.fail(f"networks are {', '.join(NETWORKS)}; got {', '.join(sorted(unknown))}")
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[: options.cores])  # before JAX counts them
    if options.products:
        print(tables.plain(products(options.repeats)), flush=True)
        return
    rows: list[dict[str, Any]] = [
        {"network": network, "estimator": estimator, **measured(network, estimator, options)}
        for network in options.networks
        for estimator in options.estimators
    ]
    cells = [["", "", f"{PLAIN}, ms", *list(WAYS)[1:], *(f"bits, {name}" for name in WAYS)]]
    for row in rows:
        ratios = [
            f"{row['by_the_clock'][name]:.2f} ({row['ratios'][name]:.2f})"
            for name in list(WAYS)[1:]
        ]
        plain = f"{1e3 * row['plain_seconds']:.2f}"
        digests = row["digests"].values()
        cells.append([row["network"], row["estimator"], plain, *ratios, *digests])
    print(tables.plain(cells), flush=True)
    if options.json is not None:
        folders.write_json(options.json, {"rows": rows, "versions": folders.environment()})


def products(repeats: int) -> list[list[str]]:
    """The table of single products: microseconds of processor time, each way in turn."""
    import jax

    held = jax.lax.optimization_barrier
    num_rows, calls = 256, 100

    def repeated(product: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def again(x: Any, g: Any) -> Any:
            def one(_: Any, last: Any) -> Any:  # of changed arguments, or it would be done once
                return product(x.at[0, 0].set(last[0, 0]), g.at[0, 0].set(last[0, 0]))

            return jax.lax.fori_loop(0, calls, one, product(x, g))

        return again

    ways = {
        "plain": lambda x, g: x.T @ g,
        "xᵀ laid out": lambda x, g: held(x.T) @ g,
        "gᵀ laid out": lambda x, g: held(held(g.T) @ x).T,
    }
    cells = [["inputs", "outputs", *(f"{name}, µs" for name in ways)]]
    for inputs, outputs in KERNELS:
        x = jax.random.normal(jax.random.key(0), (num_rows, inputs))
        g = jax.random.normal(jax.random.key(1), (num_rows, outputs))
        programs = [jax.jit(repeated(way)).lower(x, g).compile() for way in ways.values()]
        seconds: list[list[float]] = [[] for _ in programs]
        for _ in range(repeats + 1):
            for program, of_program in zip(programs, seconds, strict=True):
                started = time.process_time()
                jax.block_until_ready(program(x, g))
                of_program.append((time.process_time() - started) / (calls + 1))
        taken = [f"{1e6 * np.median(of_program[1:]):.0f}" for of_program in seconds]
        cells.append([str(inputs), str(outputs), *taken])
    return cells


def measured(network: str, estimator: str, options: Options) -> dict[str, Any]:
    """The ratios and the digest of every way."""
    import jax

    make = update if options.update else problem
    programs = {}
    for name, way in WAYS.items():
        changes = NETWORKS[network] | {"num_envs": options.num_envs}
        if options.update and estimator == "ppo":
            changes |= PPO
        f, *arguments = make(estimator, changes, options.seeds)
        programs[name] = compiled(f, arguments, way)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    calls = 1
    for turn in range(options.repeats + 1):
        for name, program in programs.items():
            began, started = time.perf_counter(), time.process_time()
            for _ in range(calls):
                jax.block_until_ready(program(*arguments))
            taken = time.perf_counter() - began, time.process_time() - started
            seconds[name].append((taken[0] / calls, taken[1] / calls))
        if not turn:  # the first is not timed; a later one lasts 30 ms at least
            calls = max(1, round(0.03 / seconds[PLAIN][0][1]))
    turns: Any = {name: np.array(each[1:]) for name, each in seconds.items()}
    ratios = {name: np.median(turns[PLAIN] / each, axis=0) for name, each in turns.items()}
    return {
        "plain_seconds": float(np.median(turns[PLAIN][:, 1])),
        "by_the_clock": {name: float(ratio[0]) for name, ratio in ratios.items()},
        "ratios": {name: float(ratio[1]) for name, ratio in ratios.items()},
        "digests": {name: digest(program(*arguments)) for name, program in programs.items()},
    }


def problem(
    estimator: str, changes: dict[str, Any], seeds: int
) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """The gradient of a batch, parameters, and a batch of random observations in which all steps
    are valid: its shapes are those that a rollout has.
    """
    import jax
    import jax.numpy as jnp

    from pg import envs, networks, rollout
    from pg.config import merge_env_params
    from pg.estimators.checks import factory_of
    from pg.presets import preset

    length: dict[str, Any] = (
        {"num_steps": NUM_STEPS} if estimator == "ppo" else {"horizon": NUM_STEPS}
    )
    config, h = merge_env_params(*preset(estimator, **length, **changes))
    env = envs.configured(config, config.num_envs, h.env_params)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    made = factory_of(config.estimator)(policy, critic, h)
    collector, actor = rollout.make_collector(config, env), networks.actor(policy, critic)
    params, state = jax.jit(made.init)(jax.random.key(0))

    def weighed() -> Any:
        key = jax.random.key(0)
        start = collector.init(actor, key)
        return made.weigh(params, state, collector.collect(actor, params, key, start).traj)[0]

    batch = jax.tree_util.tree_map_with_path(_sample, jax.eval_shape(weighed))
    if seeds == 1:
        return made.grad, params, batch

    def of_each_seed(x: jax.Array) -> jax.Array:
        return jnp.repeat(x[None], seeds, axis=0)

    return jax.vmap(made.grad), *jax.tree.map(of_each_seed, (params, batch))


def update(
    estimator: str, changes: dict[str, Any], seeds: int
) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """An update, the state before it, and a key."""
    import jax

    from pg.config import merge_env_params
    from pg.presets import preset
    from pg.train import make_learner

    learner = make_learner(*merge_env_params(*preset(estimator, **changes)))
    key = jax.random.key(0)
    if seeds == 1:
        return learner.step, jax.jit(learner.init)(key), key
    keys = jax.random.split(key, seeds)
    return jax.vmap(learner.step), jax.jit(jax.vmap(learner.init))(keys), keys


def _sample(path: Any, leaf: Any) -> Any:
    """An array of a leaf's shape: random numbers, action 0, and no step but a valid one."""
    import jax
    import jax.numpy as jnp

    if leaf.dtype == bool:
        return jnp.full(leaf.shape, "valid" in jax.tree_util.keystr(path))
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return 0.5 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype)
    return jnp.zeros(leaf.shape, leaf.dtype)


def compiled(f: Callable[..., Any], arguments: Any, way: Way) -> Any:
    """The program of one way."""
    import jax

    from pg.fast import blocks
    from pg.layers import dense
    from pg.runs.execution import CPU_OPTIONS

    transposes = dense._transposes if way.transposed else lambda x, kernel: False
    with (
        mock.patch.object(dense, "_transposes", transposes),
        mock.patch.dict(blocks.ROWS, cpu=way.rows),
        mock.patch.object(blocks, "LARGE_ROWS", way.rows),
    ):
        return jax.jit(f).lower(*arguments).compile(CPU_OPTIONS)


def digest(tree: Any) -> str:
    """The first digits of a digest of all leaves."""
    import hashlib

    import jax

    leaves = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))
    return hashlib.sha256(leaves).hexdigest()[:8]


if __name__ == "__main__":
    main()
