"""Run the settings of a folder again, and compare metrics and final parameters, bit for bit.

Exit codes: 0 identical, 1 different, 2 a mistake in the arguments.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from pg import numerals
from pg.commands import cli
from pg.config import PARTS
from pg.runs import folders, parameters


@dataclasses.dataclass
class Options(cli.OwnParts):
    """The run that is run again."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    folder = options.run
    cli.cache_compilations()
    try:
        config, hyperparams = options.setup(folder, options.env, PARTS)
        folders.check_command(folder, "train.py")
        asked = folders.read_options(folder)
        machine = cli.Machine.of_run(asked)
        machine.start()  # only now: a mistake in the arguments need not wait for jax

        import jax

        from pg import envs, make_learner
        from pg.runs import execution, host_states, memory, periodic, results

        seeds = range(asked["seed"], asked["seed"] + asked["seeds"])
        like = jax.eval_shape(make_learner(config, hyperparams).init, jax.random.key(0))
        memory.check(config, envs.configured(config, 1), like, len(seeds))
        metrics = results.read_metrics(folder)
        plan = None
        if "eval_return" in metrics:  # at the recorded updates
            known = metrics["update"][~np.isnan(metrics["eval_return"])]
            plan = periodic.Plan(
                episodes=asked["eval_episodes"],
                greedy=asked["greedy"],
                stop_at_return=asked.get("stop_at_return"),
                at_end=False,
                updates=frozenset((known + 1).tolist()),
            )
        leaves = parameters.read_leaves(folder, like.params, like.normaliser)
        there = folders.read_json(folder / "versions.json")
    except KeyError as error:
        cli.fail(f"{folder} is not a folder of a finished run, as its config.json has no {error}")
    except ValueError as error:
        cli.fail(error)
    before = folders.num_devices(folder)
    layout, _ = machine.layout(len(seeds), config.envs_at_once, like.params, before)
    num_runs = layout.round_up(len(seeds))
    here = folders.environment(layout) | host_states.about([config])
    here |= execution.way_of_resets(config, hyperparams, layout, num_runs)
    # no remark on settings that an older release did not record
    kept = set(there) - {"command", "resumed"}
    for text in folders.differing(
        {name: there[name] for name in kept}, {name: here.get(name) for name in kept}
    ):
        print(f"note: {text}")
    print(f"{config.title}, {numerals.counted(len(seeds), 'seed')}; compiling ...", flush=True)
    progress = cli.Progress(config.num_updates)
    with host_states.closing([config]):
        done = execution.run(
            config,
            hyperparams,
            seeds,
            progress,
            layout=layout,
            plan=plan,
            on_compiled=progress.begin,
        )
    progress.close()
    if done.signum:
        return cli.interrupted(done.signum)
    again = results.long_form(done.metrics, seed=np.asarray(seeds))
    after = parameters.leaves(done.states.params, done.states.normaliser)
    different = [*compared("column", metrics, again), *compared("leaf", leaves, after)]
    columns = numerals.counted(len(again), "column")
    rows = numerals.counted(len(again["update"]), "row")
    leaves_of = numerals.counted(len(after), "leaf", "leaves")
    print(*different or [f"identical: {columns} of {rows}, {leaves_of}"], sep="\n")
    return 1 if different else 0


def compared(kind: str, there: dict[str, np.ndarray], here: dict[str, np.ndarray]) -> list[str]:
    """A line for everything that is not bitwise identical."""
    lines = [
        f"{kind} {name} is {'missing in the stored run' if name in here else 'missing now'}"
        for name in sorted(set(there) ^ set(here))
    ]
    for name in sorted(set(there) & set(here)):
        a, b = there[name], here[name]
        if a.shape != b.shape:
            lines.append(f"{kind} {name}: {a.shape} in the stored run and {b.shape} now")
        elif a.tobytes() != b.tobytes():
            lines.append(f"{kind} {name}: {_difference(a.astype(float), b.astype(float))}")
    return lines


def _difference(a: np.ndarray, b: np.ndarray) -> str:
    """The difference of two arrays of one shape, in words; a number is never NaN."""
    said = []
    if (differ := int((np.isnan(a) != np.isnan(b)).sum())) > 0:
        places = numerals.counted(a.size, "place")
        said.append(f"NaN in only one of the two in {differ} of {places}")
    with np.errstate(invalid="ignore"):
        gaps = np.abs(np.where(a == b, 0.0, a - b))
    gaps = gaps[~np.isnan(gaps)]
    if not said or gaps.max(initial=0.0) > 0:
        said.append(f"largest difference {gaps.max(initial=0.0):.3g}")
    return ", ".join(said)
