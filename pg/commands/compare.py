"""Compare runs: final scores with intervals, the probability of improvement over a baseline, steps
to a return, and one picture of learning curves and performance profiles.

RUN is the folder of a run, a sweep (each configuration), a folder above such folders, such as
a benchmark's, or a glob of these in quotes. Runs of the same settings are pooled, whatever their
seeds; groups are named by the settings in which they differ. Exit codes: 0 done, 2 a mistake, 74
the disk is full.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pg.commands import cli, terminal
from pg.reports import comparison, tables
from pg.reports.comparison import Comparison, Row
from pg.runs import folders, loading
from pg.runs.loading import Runs

__all__ = ["Options", "main"]

ABOVE = Path("results/comparison")  # the folders of comparisons


@dataclasses.dataclass
class Options:
    """The runs that are compared, and the folder of the results."""

    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
    ] = ()
    """Folders of runs, sweeps or benchmarks, or globs of these in quotes."""
    baseline: str | None = None
    """Runs of the method with which all others are compared; none: the first."""
    threshold: float | None = None
    """Return up to which environment steps are counted, on learning curves with 100 bins per run,
    on whose width the count depends; none: not counted.
    """
    statistic: Literal["iqm", "mean"] = "iqm"
    """Statistic over seeds of the learning curves; the table has both."""
    actions: Literal["sampled", "greedy"] | None = None
    """Final evaluations that are compared; none: sampled, if all runs have those."""
    out: Path | None = None
    """Folder for comparison.csv, .md, .png and .svg, which are replaced in it; none: a new one,
    results/comparison/DATE.
    """


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    try:
        if options.threshold is not None and not math.isfinite(options.threshold):
            raise ValueError(f"threshold must be a finite return, got {options.threshold}")
        if not options.runs:
            raise ValueError("name the runs to compare: their folders, sweeps, or globs in quotes")
        runs = finished(options.runs)
        baseline = finished([options.baseline]) if options.baseline else []
        found = comparison.compare(runs, baseline, options.actions)
        rows = comparison.tabulate(found, options.threshold)
        print_table(found, rows, options.threshold)
        out = options.out or folders.dated(ABOVE.resolve(), "the comparison")
        paths = comparison.write(found, rows, out, options.threshold)
        picture = out / "comparison.png"
        comparison.draw(
            found,
            rows,
            picture,
            statistic=options.statistic,
            threshold=options.threshold,
            say=cli.say,
        )
        print(*paths, picture, sep="\n")
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    return 0


def finished(paths: Sequence[str]) -> list[Runs]:
    """The finished runs at some paths; prints which others are left out.

    Raises ValueError if none is finished, and as `loading.find` does.
    """
    found = loading.find(paths)
    done = [runs for runs in found.runs if runs.scores]
    unfinished = [*(runs.name for runs in found.runs if not runs.scores), *map(str, found.empty)]
    if not done:
        listed = " ".join(map(str, paths))
        raise ValueError(f"no finished run in {listed}: a run has scores once it has ended")
    if unfinished:
        more = f" and {len(unfinished) - 1} more" if len(unfinished) > 1 else ""
        cli.say(f"left out, as not finished: {unfinished[0]}{more}")
    return done


def print_table(found: Comparison, rows: Sequence[Row], threshold: float | None) -> None:
    """Prints a table per environment, as wide as the terminal allows, and remarks."""
    width = terminal.columns(sys.stdout)
    for env in found.envs:
        here = [row for row in rows if row.env == env]
        print(env)
        print(_fitted(found, here, threshold, width))
        print()
    for remark in comparison.remarks(found, rows, threshold):
        cli.say(f"- {remark}")


def _fitted(
    found: Comparison, rows: Sequence[Row], threshold: float | None, width: int | None
) -> str:
    """The table, in two parts where the terminal is too narrow for one."""
    whole = comparison.cells(found, rows, threshold)
    text = tables.plain(whole)
    if width is None or len(text.partition("\n")[0]) <= width:
        return text
    first = comparison.cells(found, rows, short=True)
    parts = [tables.plain(first)]
    if threshold is not None:
        names = len(found.names)
        parts.append(tables.plain([[*row[:names], *row[-2:]] for row in whole]))
    return "\n\n".join(parts)
