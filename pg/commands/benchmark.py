"""Run a suite of environments and estimators over seeds; write a table, figures and a report of the
results.

Ctrl-C keeps what is finished, and the same command goes on from there. Every finished seed below
--out is reported.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pg.benchmarks import suites
from pg.commands import cli
from pg.config import Config, Hyperparams
from pg.presets import preset


@dataclasses.dataclass
class Options:
    """The suite, its seeds, and the folder and the report of the results."""

    suite: Literal[tuple(suites.SUITES)] = "classic"  # type: ignore[valid-type]
    """Name of the suite."""
    env: tuple[str, ...] = ()
    """Environments of the suite to run; none: all."""
    label: tuple[str, ...] = ()
    """Labels to run, of estimators, natural, trpo, recurrent_ppo, state_std_ppo; none: all."""
    seeds: int | None = None
    """Seeds 0, 1, ... of each environment and label; none: 20, for MinAtar 10."""
    seeds_per_program: int = 20
    """Largest number of vmapped runs in one program."""
    eval_episodes: int | None = None
    """Number of episodes of the final evaluations, per seed; none: 100, for UmbrellaChain 200."""
    out: Path = Path("results/benchmark")
    """Folder of the results; seeds that are finished there are not run again."""
    redo: bool = False
    """Run again, and replace, the results in the folder that have other settings."""
    report: Path | None = None
    """File in which the table replaces the lines between `<!-- results -->` and
    `<!-- end of results -->`.
    """
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Report on this table (a results.csv) instead of running anything."""


def settings(env: str, label: str) -> tuple[Config, Hyperparams]:
    """Settings of a row of the benchmark."""
    task = suites.TASKS[env]
    return preset(label, task=task.name, env=task.env or task.name, **task.changes)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code: 0, 3 where every run diverged, or 130 after Ctrl-C."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog, with_file=True)
    try:
        for name in ("seeds", "seeds_per_program", "eval_episodes"):
            if (value := getattr(options, name)) is not None and value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
        rows = suites.select(options.suite, options.env, options.label)
        cli.cache_compilations()

        # only now: a mistake in the arguments need not wait for jax
        from pg.benchmarks import learning, report
        from pg.reports import tables

        if options.report:
            tables.check_marks(options.report, report.MARKS)
        finished = bool(options.from_) or learning.run(
            rows,
            settings,
            options.out,
            seeds=options.seeds,
            seeds_per_program=options.seeds_per_program,
            episodes=options.eval_episodes,
            redo=options.redo,
        )
        lines = (
            tables.read_csv(options.from_, learning.Result)
            if options.from_
            else learning.collect(options.out)
        )
        if lines:
            print(report.table(lines, published=False))
        if options.report and finished:
            tables.insert(options.report, report.table(lines), report.MARKS)
        if not options.from_ and lines:
            tables.write_rows(options.out / "results.csv", learning.Result, lines)
            files = report.draw(lines, options.out) if finished else []
            print(*[options.out / "results.csv", *files], sep="\n")
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    if not finished:
        return cli.INTERRUPTED
    scores = [line.greedy for line in lines]
    if scores and all(map(math.isnan, scores)):
        print("every run diverged: no row has a score")
        return cli.NOT_FINITE
    return 0
