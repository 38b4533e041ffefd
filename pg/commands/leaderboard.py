"""The leaderboard of gradient quality: environment steps, and seconds, for an expected cosine of
0.5 and 0.9 to ∇J.

By estimator, problem and snapshot of training, with intervals. Measurements are stored in --out,
and the same command continues with the missing ones. With --against the measurements of two seeds
are compared.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from pg.benchmarks import combinations
from pg.benchmarks.suites import GRADIENT_PROBLEMS
from pg.commands import cli, variance
from pg.runs import interrupts


@dataclasses.dataclass
class Options(variance.Options):
    """The measurements, their folder, and their report."""

    problems: tuple[str, ...] = GRADIENT_PROBLEMS
    """Problems, or FILE.py:CLASS of your own environment; for gridworld, garnet and your own
    tabular MDP ∇J is known exactly.
    """
    combine: bool = False
    """Also search combinations of six unbiased estimators with samplings of the action noise,
    larger batches and branches, on each problem in the middle of its training; only those of
    --estimators, if some of these are among the six. The cheapest is chosen on other episodes than
    those of the report, which lists it as the best combination.
    """
    against: int | None = None
    """Another measured seed; prints on how many problems the same three estimators lead."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="PATH")] = None
    """Report on this folder's quality.csv and cosines.csv instead of measuring anything."""
    report: Path | None = None
    """File in which the tables replace the lines between `<!-- leaderboard -->` and
    `<!-- end of leaderboard -->`.
    """
    figure: Path | None = None
    """File of the figure, a PNG with an SVG beside it; none: leaderboard.png in --out."""

    def search(self) -> Any:
        """The `Measurements` of the folder, including those of a search that were missing."""
        from pg.benchmarks import leaderboard

        named = [name for name in combinations.BASES if name in self.estimators]
        bases = named or combinations.BASES
        return leaderboard.search(
            self.problems, self.out, bases=bases, seed=self.seed, **self.given()
        )

    def check_unchanged(self, folder: Path) -> None:
        """Raises ValueError if a folder holds results of other code than that of these files."""
        from pg.benchmarks import leaderboard

        given = [("problem", name) for name in self.problems]
        given += [("estimator", name) for name in self.estimators]
        leaderboard.changed_parts(folder, given, allow_changed_code=self.allow_changed_code)


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code: 0, or after a signal as `cli.interrupted`."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    try:
        options.check()
        cli.cache_compilations()

        # only now: a mistake in the arguments need not wait for jax
        with interrupts.held("loading"):
            from pg.benchmarks import leaderboard
            from pg.reports import tables

        if options.report:
            tables.check_marks(options.report, leaderboard.MARKS)
        if options.from_:
            options.check_unchanged(options.from_)
            measurements = leaderboard.Measurements.read(options.from_)
            if not measurements.qualities:
                raise ValueError(
                    f"{options.from_} holds no measurements: give the --out of pg leaderboard"
                )
        else:
            measurements = options.measure()
            if options.combine:
                measurements = options.search()
    except ValueError as error:
        cli.fail(cli.naming_command(error, variance.KEPT))
    except OSError as error:
        cli.fail_to_write(error)
    except KeyboardInterrupt as error:
        print(f"interrupted: {variance.KEPT}")
        return cli.interrupted(interrupts.signal_of(error))
    best = leaderboard.chosen(measurements, options.seed)
    qualities = options.select(measurements, options.seed, *best.values()).qualities
    if not qualities:
        cli.fail(f"{options.from_ or options.out} has no row of seed {options.seed}")
    named = [combinations.canonical_name(name) for name in options.estimators]
    timed = options.select(measurements, options.seed, *leaderboard.TIMED.values()).qualities
    report = leaderboard.report(qualities, best, named, timed)
    print(report)
    try:
        if options.report:
            tables.insert(options.report, report, leaderboard.MARKS)
        leaderboard.plot_leaderboard(qualities, options.figure or options.out / "leaderboard.png")
    except OSError as error:
        cli.fail_to_write(error)
    if options.against is not None:
        others = options.select(measurements, options.against).qualities
        same, total = leaderboard.agreement(qualities, others)
        seeds = f"seeds {options.seed} and {options.against}"
        print(f"\nthe same three estimators lead with {seeds} on {same} of {total} problems")
    return 0
