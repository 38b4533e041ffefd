"""The sections that are measured on an accelerator, and their rows, the most wanted first.

Imports neither jax nor pg: the process that starts the others leaves the device alone, and a page
of what has not been measured needs no device.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

TASKS = ("CartPole", "Breakout", "Pendulum", "sequences")
ESTIMATORS = ("ppo", "reinforce", "actor_critic")
# Seeds and environments of each.
SIZES = ((1, 64), (1, 4096), (512, 64), (4096, 64), (1, 65536), (32, 64))
PRECISIONS = ("bfloat16", "tensorfloat32", "float32")
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# Labels in tests/helpers/proofs.py.
PROOFS = (
    "reinforce",
    "reward_to_go",
    "state_value",
    "all_action",
    "leave_one_out",
    "gae-gae_lambda=0.5-limit_ends",
    "ppo-gae_lambda=0.5",
)


class Row(NamedTuple):
    """One line of a table."""

    name: str
    settings: Mapping[str, Any] = {}  # arguments of the function that measures it
    later: bool = False  # measured once every section has its other rows


class Column(NamedTuple):
    """One column of a table."""

    key: str  # of a row's result
    head: str
    form: str = "{}"  # of its value


class Section(NamedTuple):
    """A table of the page."""

    module: str  # of this package
    function: str  # that measures a row: settings -> {key of a column: value}
    title: str
    text: str  # above the table
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    double: bool = False  # in float64
    alone: bool = False  # each row in a separate process, which has the whole device
    most_seconds: float = 90.0  # of a row

    @property
    def name(self) -> str:
        """Its key in the file of results."""
        return f"{self.module}.{self.function}"


def sections(*, smoke: bool) -> tuple[Section, ...]:
    """All sections. smoke: a few rows of each, of tiny programs, to see that all of it runs."""
    return (
        _machine(),
        _limits(smoke),
        _proofs(smoke),
        _updates(smoke),
        _gradients(smoke),
        _training(smoke),
        _peers(smoke),
        _chunks(smoke),
        _memory(smoke),
        _precision(smoke),
        _kernels(smoke),
        _turns(smoke),
        _bits(smoke),
    )


def order(of: Sequence[Section]) -> list[tuple[Section, Row]]:
    """All rows in the order in which they are measured."""
    pairs = [(section, row) for section in of for row in section.rows]
    return sorted(pairs, key=lambda pair: pair[1].later)  # stable


def _machine() -> Section:
    of_device = ("backend", "device", "memory of the device", "driver")
    names = (*of_device, "jax", "jaxlib", "XLA_FLAGS", "Python")
    return Section(
        "worker",
        "machine",
        "The machine",
        "",
        (Column("value", "value"),),
        tuple(Row(name, {"name": name}) for name in names),
    )


def _limits(smoke: bool) -> Section:
    size, num_bytes = (128, 2**16) if smoke else (8192, 2**30)
    products = [
        Row(f"matrix product, {name}", {"what": name, "size": size})
        for name in (*PRECISIONS[1:], "bfloat16 factors")
    ]
    if not smoke:
        products.append(Row("matrix product, float64", {"what": "float64", "size": 4096}, True))
    return Section(
        "limits",
        "limit",
        "The limits of the device",
        "Rates that bound all others: products of square matrices of normal numbers, in float32 at "
        "each precision and with factors that are stored as bfloat16; x + 1 over a large array, "
        "bytes read and written; and the time of a program that does next to nothing, one after "
        "the other without waiting, and with a wait for its result on the host.",
        (Column("rate", "rate", "{:,.4g}"), Column("unit", "unit")),
        (
            *products,
            Row("memory", {"what": "memory", "size": num_bytes}),
            Row("launch of a program", {"what": "launch", "size": 1}),
            Row("launch, with its result on the host", {"what": "round trip", "size": 1}),
        ),
    )


def _proofs(smoke: bool) -> Section:
    return Section(
        "checks",
        "proof",
        "The proofs' core, in float64",
        "The mean of an estimate over every trajectory of a small MDP, computed on the device, "
        "against the exact gradient, or its own mean derived apart (tests/helpers/proofs.py). The "
        "largest entry may differ by 1e-10.",
        (
            Column("difference", "largest difference", "{:.1e}"),
            Column("bound", "at most", "{:.0e}"),
            Column("verdict", "verdict"),
        ),
        tuple(Row(name, {"name": name}) for name in (PROOFS[:2] if smoke else PROOFS)),
        double=True,
    )


def _updates(smoke: bool) -> Section:
    names = ESTIMATORS[1:2] if smoke else ESTIMATORS
    return Section(
        "checks",
        "update",
        "One update on the CPU and on the device, in float64",
        "Rollout, gradient and a step of gradient descent from the same parameters and key on "
        "CartPole; the norm of the difference of the parameters, as a share of the norm of the "
        "step. In float64 no rounding makes the two choose another action.",
        (
            Column("difference", "difference", "{:.1e}"),
            Column("bound", "at most", "{:.0e}"),
            Column("verdict", "verdict"),
        ),
        tuple(
            Row(f"CartPole, {name}", {"estimator": name, "num_envs": 4 if smoke else 64})
            for name in names
        ),
        double=True,
    )


def _gradients(smoke: bool) -> Section:
    names = TASKS[:1] if smoke else TASKS
    return Section(
        "checks",
        "gradient",
        "One gradient on the CPU and on the device, in float32",
        "REINFORCE's gradient of the same episodes, collected on the CPU, at matmul precision "
        "float32; the norm of the difference as a share of the gradient's.",
        (
            Column("difference", "difference", "{:.1e}"),
            Column("bound", "at most", "{:.0e}"),
            Column("verdict", "verdict"),
        ),
        tuple(
            Row(name, {"task": name, "num_envs": 4 if smoke else 64, "horizon": 8 if smoke else 64})
            for name in names
        ),
    )


def _training(smoke: bool) -> Section:
    wanted = {(task, "ppo", *size) for task in TASKS for size in SIZES[:2]}
    wanted |= {("CartPole", "ppo", *size) for size in SIZES[2:5]}
    wanted |= {("CartPole", name, 1, 64) for name in ESTIMATORS}
    grid = [
        (task, name, *size)
        for size in (((2, 4),) if smoke else SIZES)
        for name in (ESTIMATORS[1:2] if smoke else ESTIMATORS)
        for task in (TASKS[:1] if smoke else TASKS)
    ]
    rows = []
    for case in grid:
        task, estimator, seeds, num_envs = case
        rows.append(
            Row(
                f"{task}, {estimator}, {seeds:,} × {num_envs:,}",
                {
                    "task": task,
                    "estimator": estimator,
                    "seeds": seeds,
                    "num_envs": num_envs,
                    "num_steps": 8 if smoke else 128,
                },
                later=case not in wanted and not smoke,
            )
        )
    return Section(
        "training",
        "throughput",
        "Training",
        "One update of all seeds, from the same state: task, estimator, seeds × environments of "
        "each. Windows of 128 steps and, of PPO, 4 epochs of 4 minibatches; REINFORCE, and every "
        "estimator on sequences (32 tokens, a causal transformer of two blocks of width 64), has "
        "complete episodes, of at most 128 steps. CartPole and Pendulum have two tanh layers of "
        "64, Breakout is MinAtar's with its convolution. Steps are those of the environment that "
        "were taken. Floating-point operations are those of the networks alone, a forward pass at "
        "each step and three for every gradient, by XLA's count of one forward pass: its count of "
        "a whole program has the body of a loop once. Memory is XLA's, beside arguments and "
        "results.",
        (
            Column("steps_per_second", "steps/s", "{:,.0f}"),
            Column("milliseconds", "an update, ms", "{:,.3g}"),
            Column("compile_seconds", "compile, s", "{:.1f}"),
            Column("gflops", "GFLOP/s", "{:,.3g}"),
            Column("megabytes", "memory, MB", "{:,.3g}"),
        ),
        tuple(rows),
    )


def _peers(smoke: bool) -> Section:
    sizes = ((1, 4),) if smoke else (SIZES[0], SIZES[2], SIZES[1], SIZES[5])
    return Section(
        "training",
        "beside_purejaxrl",
        "Beside a loop in purejaxrl's style",
        "Training of PPO on CartPole from the key on, seeds × environments, in turns with "
        "experiments/speed/purejaxrl_style.py: equal networks, batches and gradient passes. The "
        "ratio is the median over turns of the ratio within a turn.",
        (
            Column("ours", "pg, steps/s", "{:,.0f}"),
            Column("theirs", "purejaxrl's style, steps/s", "{:,.0f}"),
            Column("ratio", "ratio", "{:.2f}"),
            Column("compile_ours", "pg compiles, s", "{:.1f}"),
            Column("compile_theirs", "the other, s", "{:.1f}"),
        ),
        tuple(
            Row(
                f"{seeds:,} × {num_envs:,}",
                {"seeds": seeds, "num_envs": num_envs, "num_steps": 8 if smoke else 128},
                later=(seeds, num_envs) not in sizes[:2],
            )
            for seeds, num_envs in sizes
        ),
    )


def _chunks(smoke: bool) -> Section:
    cases = [("CartPole", "reinforce"), ("CartPole", "ppo"), ("Breakout", "ppo")]
    return Section(
        "checks",
        "chunk",
        "A chunk of updates leaves the host alone",
        "The compiled chunk that `pg train` calls: arrays of the state it was given that are "
        "deleted, as their memory has become the new state's; a call under "
        '`jax.transfer_guard("disallow")`; and operations of the program that exchange data with '
        "the host.",
        (
            Column("donated", "arrays donated"),
            Column("transfers", "transfers in a call"),
            Column("host_operations", "operations with the host"),
        ),
        tuple(
            Row(
                f"{task}, {name}",
                {"task": task, "estimator": name, "num_envs": 4 if smoke else 64},
                later=task != "CartPole",
            )
            for task, name in (cases[:1] if smoke else cases)
        ),
    )


def _memory(smoke: bool) -> Section:
    sizes = (2,) if smoke else (32, 512, 4096)
    return Section(
        "checks",
        "memory",
        "Memory of a seed, forecast and measured",
        "PPO on CartPole, 64 environments × 128 steps: the forecast by which `pg sweep` chooses "
        "how many runs share a program, and the most that was in use, less what was before; per "
        "seed.",
        (
            Column("forecast", "forecast, MB", "{:,.3g}"),
            Column("measured", "measured, MB", "{:,.3g}"),
            Column("ratio", "measured / forecast", "{:.2f}"),
        ),
        tuple(
            Row(
                f"{seeds:,} seeds",
                {
                    "estimator": "reinforce" if smoke else "ppo",
                    "seeds": seeds,
                    "num_envs": 4 if smoke else 64,
                    "num_steps": 8 if smoke else 128,
                },
                later=seeds != sizes[0],
            )
            for seeds in sizes
        ),
        alone=not smoke,
    )


def _precision(smoke: bool) -> Section:
    cases = {
        "CartPole, two layers of 1024": {"task": "CartPole", "hidden_sizes": [1024, 1024]},
        "CartPole, two layers of 64": {"task": "CartPole", "hidden_sizes": [64, 64]},
        "Breakout, a convolution": {"task": "Breakout", "hidden_sizes": [128]},
    }
    if smoke:
        cases = {"CartPole, a layer of 8": {"task": "CartPole", "hidden_sizes": [8]}}
    size = {"num_envs": 4, "horizon": 8} if smoke else {"num_envs": 512, "horizon": 128}
    return Section(
        "checks",
        "precision",
        "Matmul precision",
        "REINFORCE's gradient of the same episodes at each `--matmul-precision`, in turns: the "
        "norm of its difference from that at float32, as a share, and the time of a gradient.",
        (
            Column("difference_bfloat16", "bfloat16, difference", "{:.1e}"),
            Column("difference_tensorfloat32", "tensorfloat32, difference", "{:.1e}"),
            *(Column(f"milliseconds_{name}", f"{name}, ms", "{:,.3g}") for name in PRECISIONS),
        ),
        tuple(
            Row(name, {**settings, **size}, later=i > 0)
            for i, (name, settings) in enumerate(cases.items())
        ),
    )


def _kernels(smoke: bool) -> Section:
    rollouts = [(task, "rollout") for task in TASKS]
    cases = rollouts[:1] if smoke else [*rollouts, ("CartPole", "reinforce"), ("CartPole", "ppo")]
    return Section(
        "launches",
        "kernels",
        "Kernels of a program",
        "Read off the optimized program, of 64 environments: instructions that are kernels of "
        "their own. Of the loops without loops in them that with the most kernels is, in a "
        "rollout, a step of all environments. The launches of the whole are a sum over its "
        "loops, 10 × (30) one of 10 turns with 30 kernels each, and ? × (...) one whose turns the "
        "compiler does not know: its condition XLA's GPU runtime reads on the host at every turn, "
        "unless the loop is part of a command buffer.",
        (
            Column("largest", "kernels a turn of the largest inner loop"),
            Column("loops", "loops"),
            Column("open", "of them with ? turns"),
            Column("launches", "launches"),
        ),
        tuple(
            Row(
                f"{task}, {what}",
                {"task": task, "what": what, "num_envs": 4 if smoke else 64},
                later=what != "rollout",
            )
            for task, what in cases
        ),
    )


def _turns(smoke: bool) -> Section:
    names = {
        "while_loop, a condition on data": "while",
        "scan": "scan",
        "scan, unroll=8": "unrolled",
    }
    return Section(
        "launches",
        "turn",
        "The time of a turn",
        "Loops of a product with a 64 × 64 matrix and a tanh, by how their end is known.",
        (Column("microseconds", "a product, µs", "{:,.3g}"),),
        tuple(
            Row(name, {"kind": kind, "turns": 16 if smoke else 4096})
            for name, kind in names.items()
        ),
    )


def _bits(smoke: bool) -> Section:
    size = {"num_envs": 4, "num_steps": 8, "num_updates": 1}
    if not smoke:
        size = {"num_envs": 256, "num_steps": 128, "num_updates": 5}
    estimators = ["reinforce"] if smoke else ["reinforce", "ppo"]
    rows = tuple(
        Row(name, {"flags": flags, "estimators": estimators, **size})
        for name, flags in ((f"with {DETERMINISTIC}", DETERMINISTIC), ("without", ""))
    )
    return Section(
        "checks",
        "bits",
        "The same bits twice",
        "Training on CartPole in two processes at a time, each of which compiles its own program; "
        "a digest of the whole state after it.",
        tuple(Column(name, name) for name in estimators),
        rows[:1] if smoke else rows,
        alone=not smoke,
        most_seconds=180.0,
    )
