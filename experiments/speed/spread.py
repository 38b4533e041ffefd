"""Measure what the cores of a CPU gain a run as devices, by the size of the networks.

The same updates on one device, whose larger products XLA cuts by cores, and spread over all cores
as devices, take turns in one process. Each figure is the time on one device divided by that
spread, in the fastest round of each, which other work on the machine disturbs least. With one seed
the environments are spread, and `pg.fast.devices.SPREAD_KERNEL` is set by these rows: the largest
kernel with which they still gain. With more it is the seeds, which are always spread.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import Program, take_turns

from pg.commands import cli
from pg.config import Config
from pg.fast import cores, devices
from pg.inputs import check_name
from pg.reports import tables
from pg.runs import folders

MARKS = ("<!-- spread -->", "<!-- end of spread -->")
Row = dict[str, Any]

NETWORKS: dict[str, dict[str, Any]] = {
    "CartPole 64²": {"env": "CartPole-v1", "hidden_sizes": (64, 64)},
    "CartPole 128²": {"env": "CartPole-v1", "hidden_sizes": (128, 128)},
    "CartPole 256²": {"env": "CartPole-v1", "hidden_sizes": (256, 256)},
    "CartPole 512²": {"env": "CartPole-v1", "hidden_sizes": (512, 512)},
    "CartPole 1024²": {"env": "CartPole-v1", "hidden_sizes": (1024, 1024)},
    "Breakout as MLP": {"env": "Breakout-MinAtar", "network": "mlp"},
    "Breakout as CNN": {"env": "Breakout-MinAtar"},
    "Pendulum": {"env": "Pendulum-v1"},
}
KERNELS = ((64, 64), (96, 96), (128, 128), (400, 64), (192, 192), (256, 256), (512, 512))
BATCHES: dict[str, dict[str, Any]] = {
    "ppo": {"num_steps": 128, "num_epochs": 4, "num_minibatches": 4},
    "gae": {"num_steps": 128, "num_epochs": 1, "num_minibatches": 1},
}


@dataclasses.dataclass
class Options:
    """The runs that are spread."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Environments and networks."""
    estimators: tuple[str, ...] = ("ppo",)
    """Estimators, of ppo (4 epochs of 4 minibatches) and gae (one pass)."""
    seeds: tuple[int, ...] = (1, 8)
    """Numbers of seeds: of 1 the environments are spread, of more the seeds."""
    num_envs: int = 64
    """Environments of a run."""
    updates: int = 2
    """Updates of a timed call."""
    rounds: int = 5
    """Timed calls of each program."""
    products: bool = False
    """Instead print of single products, 256 rows by a kernel, the share of processor time that the
    busiest thread takes: 1 where XLA leaves them on one core. Needs Linux.
    """
    json: Path | None = None
    """Also write all figures to this file, after every row."""
    out: Path | None = None
    """Page in which the table replaces the lines between `<!-- spread -->` and
    `<!-- end of spread -->`.
    """


def main() -> None:
    """Prints a row for every network, estimator and number of seeds."""
    options = cli.options(Options, cli.docstring_of(__file__))
    try:
        for network in options.networks:
            check_name("network", network, NETWORKS)
        for estimator in options.estimators:
            check_name("estimator", estimator, BATCHES)
    except ValueError as error:
        cli.fail(error)
    if options.products:
        for shape in KERNELS:
            print(shape, busiest_thread(shape), flush=True)
        return
    # Before gymnax is imported, which computes something.
    if not devices.use_cpu_cores(None):
        cli.fail("the cores cannot become devices any more: something has been computed")
    rows: list[Row] = []
    print(f"{cores.num_cores()} cores as devices", flush=True)
    for estimator in options.estimators:
        for network in options.networks:
            for num_seeds in options.seeds:
                row = compared(network, estimator, num_seeds, options)
                rows.append(row)
                print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
                if options.json:
                    folders.write_json(
                        options.json,
                        {"rows": rows, "cores": cores.num_cores(), "rounds": options.rounds},
                    )
    print(summary(rows))
    if options.out:
        tables.insert(options.out, table(rows), MARKS)


def compared(network: str, estimator: str, num_seeds: int, options: Options) -> Row:
    """The wall and processor time of one device as a multiple of those spread."""
    from pg.train import make_learner

    config = Config(
        estimator=estimator,
        collect="windows",
        num_envs=options.num_envs,
        num_updates=options.updates,
        preset=None,
        **BATCHES[estimator],
        **NETWORKS[network],
    )
    shard: devices.Shard = "envs" if num_seeds == 1 else "seeds"
    layouts = {"one device": devices.layout(shard, most=1), "spread": devices.layout(shard)}
    programs = {name: training(config, num_seeds, where) for name, where in layouts.items()}
    timings = take_turns(programs, options.rounds)
    one, spread = timings["one device"], timings["spread"]
    shapes = jax.eval_shape(make_learner(config).init, jax.random.key(0)).params
    return {
        "network": network,
        "largest kernel": devices.largest_kernel(shapes),
        "estimator": estimator,
        "seeds": num_seeds,
        "wall": round(float(one.seconds.min() / spread.seconds.min()), 3),
        "median wall": round(float(np.median(one.seconds / spread.seconds)), 3),
        "processor": round(float(one.cpu_seconds.min() / spread.cpu_seconds.min()), 3),
        "one device, s": round(float(one.seconds.min()), 4),
        "cores of one device": round(float(np.median(one.cpu_seconds / one.seconds)), 2),
    }


def training(config: Config, num_seeds: int, where: devices.Layout) -> Program:
    """All updates of a run, as `train.py` compiles them: a call goes on from the one before."""
    from pg.runs import execution

    hyperparams = execution.broadcast(config.hyperparams(), num_seeds)
    programs = execution.compile_programs(
        config, hyperparams, where, num_seeds, length=config.num_updates
    )
    seeds = execution.seed_keys(range(num_seeds))[0]
    keys, h = devices.place((np.asarray(jax.random.key_data(seeds)), hyperparams), where.sharding)
    count = devices.place(np.int32(config.num_updates), where.everywhere)
    states = [programs.init(keys, h)]

    def run(_: jax.Array) -> tuple[Any, jax.Array]:
        after, metrics = programs.advance(states.pop(), keys, h, count)
        states.append(after)
        return metrics, metrics["env_steps"].sum()

    return Program(run, programs.seconds, programs.num_bytes)


def busiest_thread(shape: tuple[int, int]) -> str:
    """The busiest thread's share of the processor time of products with a kernel of this shape."""
    ins, outs = shape
    args = jnp.ones((256, ins)), jnp.ones(shape) / ins, jnp.ones((256, outs))
    products: dict[str, Callable[..., jax.Array]] = {
        "forward": lambda x, kernel, g: x @ kernel,
        "gradient": lambda x, kernel, g: (g.T @ x).T,
    }
    found = []
    for name, product in products.items():

        def once(_: int, carry: Any, product: Callable[..., jax.Array] = product) -> Any:
            x, kernel, g = carry
            small = 1e-20 * product(x, kernel, g)[0, 0]  # which keeps the product in the loop
            return x + small, kernel, g + small

        def loop(carry: Any, once: Callable[..., Any] = once) -> Any:
            return jax.lax.fori_loop(0, max(20, 2_000_000_000 // (256 * ins * outs)), once, carry)

        program = jax.jit(loop).lower(args).compile()
        before = thread_seconds()
        jax.block_until_ready(program(args))
        after = thread_seconds()
        spent = [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]
        found.append(f"{name} {max(spent) / sum(spent):.2f}")
    return ", ".join(found)


def thread_seconds() -> dict[str, float]:
    """The processor time of each thread of this process so far."""
    folder = Path("/proc/self/task")
    lines = {task.name: (task / "schedstat").read_text("utf-8") for task in folder.iterdir()}
    return {name: int(line.split()[0]) / 1e9 for name, line in lines.items()}


def summary(rows: list[Row]) -> str:
    """The kernels with which environments gain by being spread, and those with which they lose."""
    of_one = [row for row in rows if row["seeds"] == 1]
    gain = {row["largest kernel"] for row in of_one if row["wall"] > 1}
    lose = {row["largest kernel"] for row in of_one if row["wall"] <= 1}
    there = devices.SPREAD_KERNEL
    return f"gain: {sorted(gain)}, lose: {sorted(lose)}, SPREAD_KERNEL is {there:,}"


def table(rows: list[Row]) -> str:
    """The rows in Markdown: ratios of the clock, and of processor time, and how many cores one
    device keeps at work.
    """
    head = ["", "largest kernel", "spread", "by the clock", "processor time", "cores, one device"]
    cells = [head]
    for row in rows:
        name = f"{row['network']}, `{row['estimator']}`"
        what = "environments" if row["seeds"] == 1 else f"{row['seeds']} seeds"
        ratios = [f"{row['wall']:.2f}", f"{row['processor']:.2f}"]
        at_work = f"{row['cores of one device']:.1f}"
        cells.append([name, f"{row['largest kernel']:,}", what, *ratios, at_work])
    return tables.markdown(cells)


if __name__ == "__main__":
    main()
