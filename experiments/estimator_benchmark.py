"""The leaderboard of gradient quality: environment steps, and seconds, for an expected cosine of
0.5 and 0.9 to ∇J.

By estimator, problem and snapshot of training, with intervals. Measurements are kept in --out, and
the same command goes on with those that are missing. With --against two benchmarks with different
seeds are compared.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from estimator_variance import Measuring

from pg.benchmarks.suites import LABORATORY
from pg.commands import cli


@dataclasses.dataclass
class Options(Measuring):
    """The measurements, their folder and their report."""

    subjects: tuple[str, ...] = LABORATORY
    """Problems; of gridworld and garnet ∇J is known exactly."""
    against: int | None = None
    """Another seed that was measured too: the number of problems is printed on which the same three
    estimators lead.
    """
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Report on this folder's quality.csv and cosines.csv instead of measuring anything."""
    report: Path | None = None
    """File in which the tables replace the lines between `<!-- leaderboard -->` and
    `<!-- end of leaderboard -->`.
    """
    figure: Path | None = None
    """File of the figure, a PNG with an SVG beside it; none: leaderboard.png in --out."""


def main() -> int:
    """The exit code: 0, or 130 after Ctrl-C."""
    options = cli.options(Options, cli.docstring_of(__file__))
    try:
        options.check()
        cli.cache_compilations()

        # only now: a mistake in the arguments need not wait for jax
        from pg.benchmarks import leaderboard
        from pg.reports import tables

        if options.report:
            tables.check_marks(options.report, leaderboard.MARKS)
        found = leaderboard.Survey.read(options.from_) if options.from_ else options.survey()
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
        return cli.INTERRUPTED
    lines = options.asked(found, options.seed).lines
    if not lines:
        cli.fail(f"{options.from_ or options.out} has no line of seed {options.seed}")
    print(report := leaderboard.report(lines))
    if options.report:
        tables.insert(options.report, report, leaderboard.MARKS)
    leaderboard.draw_leaderboard(lines, options.figure or options.out / "leaderboard.png")
    if options.against is not None:
        others = options.asked(found, options.against).lines
        same, total = leaderboard.agreement(lines, others)
        seeds = f"seeds {options.seed} and {options.against}"
        print(f"\nthe same three estimators lead with {seeds} on {same} of {total} problems")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
