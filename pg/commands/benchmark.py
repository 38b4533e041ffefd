"""Run a suite of environments and estimators over seeds; write a table, figures and a report of the
results.

Ctrl-C or another signal keeps what is finished, and the same command continues from there. Every
finished seed below --out is reported.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from pg.benchmarks import selection, suites
from pg.commands import cli
from pg.runs import interrupts


@dataclasses.dataclass
class Options:
    """The suite, its seeds, and the folder and the report of the results."""

    suite: Literal[tuple(suites.SUITES)] = "classic"  # type: ignore[valid-type]
    """Name of the suite; all leaves out mujoco, which needs gymnasium[mujoco], and libraries, which
    needs pgx, jumanji, playground and craftax."""
    env: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME|FILE.py:CLASS ...]")] = ()
    """Environments of the suite to run, or FILE.py:CLASS of your own; none: all."""
    label: tuple[str, ...] = ()
    """Labels to run, of estimators, natural, trpo, recurrent_ppo, state_std_ppo; none: all, or with
    --estimator only those.
    """
    untuned: bool = False
    """Use the settings that an estimator has for environments that it was not tuned for, with a row
    for every environment and label, regardless of the suite's rows; the table shows the labels side
    by side, between `<!-- untuned -->` and `<!-- end of untuned -->` of a report. Without labels:
    leave_one_out, actor_critic and ppo.
    """
    estimator: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[FILE.py:NAME ...]")] = ()
    """Your own estimators to run in addition to the labels, in every environment, each
    FILE.py:NAME.
    """
    settings_of: str | None = None
    """Label whose settings, tuned for each environment, your own estimators use; none: those that
    their pg.with_facts states.
    """
    policy: str | None = None
    """FILE.py:NAME of your own policy, which replaces that of all rows; they are then called
    LABEL+NAME.
    """
    critic: str | None = None
    """FILE.py:NAME of your own critic, used like policy."""
    optimizer: str | None = None
    """FILE.py:NAME of your own optimizer, or a name, used like policy."""
    allow_changed_code: bool = False
    """Keep results of your own file even if it has changed since, and run the missing seeds with
    the current one.
    """
    seeds: int | None = None
    """Seeds 0, 1, ... of each environment and label; none: 20, for MinAtar and MuJoCo 10."""
    seeds_per_program: int = 20
    """Largest number of vmapped runs in one program."""
    eval_episodes: int | None = None
    """Number of episodes of the final evaluations, per seed; none: 100, for UmbrellaChain 200."""
    out: Path = Path("results/benchmark")
    """Folder of the results; seeds that are finished there are not run again."""
    redo: bool = False
    """Run again, and replace, the results in the folder that have other settings, or whose code has
    changed.
    """
    report: Path | None = None
    """File in which the table replaces the lines between `<!-- results -->` and
    `<!-- end of results -->`.
    """
    readme: Path | None = None
    """File in which a few rows of the table replace the lines between `<!-- short results -->` and
    `<!-- end of short results -->`.
    """
    figure: Path | None = None
    """Picture of the table's profiles over environments, a PNG with an SVG beside it."""
    keep: Path | None = None
    """Earlier table (a results.csv), whose rows stay in the report where the folder has fewer
    seeds.
    """
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="PATH")] = None
    """Report on this table (a results.csv) instead of running anything."""

    def plan_arguments(self) -> dict[str, Any]:
        """The further arguments of `learning.plan`."""
        return {
            "seeds": self.seeds,
            "seeds_per_program": self.seeds_per_program,
            "episodes": self.eval_episodes,
            "redo": self.redo,
            "allow_changed_code": self.allow_changed_code,
        }


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code: 0, 3 where every run diverged, or after a signal as
    `cli.interrupted`.
    """
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog, with_file=True)
    signum = None
    try:
        for name in ("seeds", "seeds_per_program", "eval_episodes"):
            if (value := getattr(options, name)) is not None and value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
        rows = _rows(options)
        settings = selection.untuned_settings if options.untuned else selection.settings
        cli.cache_compilations()

        # only now: a mistake in the arguments need not wait for jax
        with interrupts.held("loading"):
            from pg.benchmarks import learning, report
            from pg.reports import tables

        table: Callable[..., str] = report.untuned_table if options.untuned else report.table
        marks = report.UNTUNED_MARKS if options.untuned else report.MARKS
        if options.report:
            tables.check_marks(options.report, marks)
        if options.readme:
            tables.check_marks(options.readme, report.SHORT_MARKS)
        before = tables.read_csv(options.keep, learning.Result) if options.keep else []
        if not options.from_:
            signum = learning.run(rows, settings, options.out, **options.plan_arguments())
        finished = signum is None
        lines = (
            tables.read_csv(options.from_, learning.Result)
            if options.from_
            else learning.collect(options.out)
        )
        lines = learning.completed_by(lines, before)
        if lines:
            print(table(lines) if options.untuned else report.table(lines, published=False))
        if not options.from_:
            for remark in learning.remarks(options.out):
                cli.say(f"- {remark}")
        if options.report and finished:
            tables.insert(options.report, table(lines), marks)
        if options.readme and finished:
            tables.insert(options.readme, report.short_table(lines), report.SHORT_MARKS)
        if options.figure and finished and report.draw_profiles(lines, options.figure) is None:
            raise ValueError(
                "no label can be compared: the table has fewer than two environments for it"
            )
        if not options.from_ and lines:
            tables.write_rows(options.out / "results.csv", learning.Result, lines)
            files = report.draw(lines, options.out) if finished else []
            print(options.out / "results.csv", *files, sep="\n")
    except ValueError as error:
        cli.fail(error)
    except KeyboardInterrupt as error:
        print("interrupted; files that are complete are kept")
        return cli.interrupted(interrupts.signal_of(error))
    except OSError as error:
        cli.fail_to_write(error)
    if not finished:
        return cli.interrupted(signum)
    scores = [line.greedy for line in lines]
    if scores and all(map(math.isnan, scores)):
        print("every run diverged: no row has a score")
        return cli.NOT_FINITE
    return 0


def _rows(options: Options) -> list[tuple[suites.Task, suites.Row]]:
    """The requested rows. Raises ValueError for incompatible options."""
    if not options.untuned:
        return selection.select(
            options.suite,
            options.env,
            (*options.label, *options.estimator),
            settings_of=options.settings_of,
            policy=options.policy,
            critic=options.critic,
            optimizer=options.optimizer,
        )
    for name in ("estimator", "settings_of", "policy", "critic", "optimizer", "readme", "keep"):
        if getattr(options, name):
            raise ValueError(
                f"untuned applies only to the labels, and takes no {name}: give one or the other"
            )
    if options.from_ is None and options.out == Options.out:
        raise ValueError(
            "untuned rows have the names of tuned ones: give them their own folder, as in --out "
            "results/untuned"
        )
    return selection.every_row(options.suite, options.env, options.label)
