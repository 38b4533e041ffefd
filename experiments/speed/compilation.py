"""Measure the cost and gain of the optimisation levels of XLA's code generator on a CPU: processor
time to compile a training run, and then to run it.

Each figure is the time of the chosen level divided by that of the default: for one compilation
each, the chosen one first, as the first has extra costs in a process; and, for training runs that
take turns, the median over turns of the ratio within a turn.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from pg.commands import cli
from pg.reports import tables
from pg.runs import folders


@dataclasses.dataclass
class Options:
    """The compiled training runs."""

    envs: tuple[str, ...] = ("CartPole-v1", "Breakout-MinAtar")
    """Environments."""
    estimators: tuple[str, ...] = ("reinforce", "ppo")
    """Estimators, under their presets."""
    updates: int = 10
    """Number of updates of a call."""
    repeats: int = 7
    """Number of timed turns."""
    json: Path | None = None
    """File in which the figures are written."""


def main() -> None:
    """Prints a table of ratios."""
    options = cli.options(Options, cli.docstring_of(__file__))
    for name in ("updates", "repeats"):
        if getattr(options, name) < 1:
            cli.fail(f"{name} must be at least 1, got {getattr(options, name)}")
    rows: list[dict[str, Any]] = [
        {"env": env, "estimator": estimator, **ratios(env, estimator, options)}
        for env in options.envs
        for estimator in options.estimators
    ]
    cells = [["", "", "to compile", "to run", "default compile, CPU s"]]
    cells += [
        [
            row["env"],
            row["estimator"],
            f"{row['compile']:.2f}",
            f"{row['run']:.2f}",
            f"{row['default_compile_seconds']:.1f}",
        ]
        for row in rows
    ]
    print(tables.plain(cells), flush=True)
    if options.json is not None:
        folders.write_json(options.json, {"rows": rows, "versions": folders.environment()})


def ratios(env: str, estimator: str, options: Options) -> dict[str, float]:
    """The processor time of the chosen level over that of the default, to compile and to run."""
    import jax
    import jax.numpy as jnp

    from pg.config import merge_env_params
    from pg.presets import preset
    from pg.runs.execution import CPU_OPTIONS
    from pg.train import make_chunk, make_learner, training_keys

    config, h = merge_env_params(*preset(estimator, env=env))
    state = jax.jit(make_learner(config, h).init)(jax.random.key(0))
    keys = training_keys(jax.random.key(1), 0, options.updates)[1]
    arguments = state, keys, h, jnp.int32(options.updates)
    lowered = jax.jit(make_chunk(config)).lower(*arguments)
    levels: dict[str, Any] = {"chosen": CPU_OPTIONS, "default": None}
    programs, compiling = {}, {}
    for name, compiler_options in levels.items():
        started = time.process_time()
        programs[name] = lowered.compile(compiler_options)
        compiling[name] = time.process_time() - started
    running: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(options.repeats + 1):
        for name, program in programs.items():
            started = time.process_time()
            jax.block_until_ready(program(*arguments))
            if turn:  # the first call of each is not timed
                running[name].append(time.process_time() - started)
    turns: Any = {name: np.array(seconds) for name, seconds in running.items()}
    return {
        "compile": compiling["chosen"] / compiling["default"],
        "run": float(np.median(turns["chosen"] / turns["default"])),
        "default_compile_seconds": compiling["default"],
    }


if __name__ == "__main__":
    main()
