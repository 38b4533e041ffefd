"""Print the exact bias, variance and signal-to-noise ratio of every estimator on three tabular
problems.

Nothing is sampled: each figure is a sum over every trajectory, or every pair where an estimator
couples episodes. Your own estimator, FILE.py:NAME, gets a row among the others. An estimator
for continuous actions only has no figures: the problems have discrete ones.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pg.commands import cli
from pg.estimators.facts import FACTS, UNSTATED
from pg.estimators.names import canonical, check_exact, facts_of, is_sequence
from pg.runs import code
from pg.settings import own_files
from pg.settings.parts import check_choice, check_names_differ, part_name, row_name

HEADER = """\
| estimator | Ψₜ | source | unbiased for | bias | variance | signal to noise |
| --- | --- | --- | --- | --- | --- | --- |"""
MARKS = ("<!-- table -->", "<!-- end of table -->")
SLIM_HEADER = """\
| estimator | Ψₜ | unbiased |
| --- | --- | --- |"""
SLIM_MARKS = ("<!-- slim table -->", "<!-- end of slim table -->")
# The rows of the slim table, which is short enough for a README: from reinforce to a baseline (the
# mean of the others, of a group, V), a bootstrapped critic and clipping, then less variance, and
# another policy's data.
SELECTED = (
    "reinforce",
    "reward_to_go",
    "leave_one_out",
    "grpo",
    "state_value",
    "actor_critic",
    "gae",
    "ppo",
    "optimal_baseline",
    "all_action",
    "trajectory_control_variate",
    "per_decision_importance",
)


@dataclasses.dataclass
class Options:
    """The table, and the files that hold it."""

    gamma: float = 0.9
    """Discount γ."""
    estimators: tuple[str, ...] = tuple(FACTS)
    """Names of the estimators, or FILE.py:NAME of your own."""
    problems: tuple[str, ...] = ()
    """FILE.py:NAME of your own small tabular MDPs; none: random, chain and cancelling."""
    out: tuple[Path, ...] = ()
    """Files in which the table replaces the lines between `<!-- table -->` and
    `<!-- end of table -->`, and the first columns of a dozen rows (with `--estimators`: of all)
    those between `<!-- slim table -->` and `<!-- end of slim table -->`; your own files are
    copied to code/ beside them.
    """
    figure: Path | None = None
    """File of a picture of bias and variance on the first problem, a PNG with an SVG beside it."""

    @property
    def files(self) -> list[Path]:
        """All files that are written."""
        return [path for path in (*self.out, self.figure) if path is not None]

    def __post_init__(self) -> None:
        """Raises ValueError for a mistake, before jax is loaded and before a file is executed."""
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}")
        for name in self.estimators:
            check_choice("estimators", name, check_exact)
        for name in self.problems:
            check_choice("problems", name, ())
        for path in self.files:
            if not path.parent.is_dir():
                raise ValueError(f"the folder of {path} does not exist: make it first")
        check_names_differ("estimators", map(canonical, self.estimators))
        check_names_differ("problems", self.problems)


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Prints a table in Markdown, a row per estimator. Returns the exit code, 0."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    try:
        texts = {
            path: path.read_text(encoding="utf-8") if path.is_file() else "" for path in options.out
        }
    except UnicodeDecodeError:
        cli.fail(f"--out must be files of text, got {' and '.join(map(str, options.out))}")
    without = [
        str(path)
        for path, text in texts.items()
        if MARKS[0] not in text and SLIM_MARKS[0] not in text
    ]
    if without:
        cli.fail(
            f"{' and '.join(without)} must have the lines {MARKS[0]} and {MARKS[1]}, between which "
            "the table goes: write them into the file first"
        )
    cli.cache_compilations()
    try:
        estimators, problems = _parts(options)
        figures_of = _print_rows(estimators, problems, options.gamma)
    except ValueError as error:
        cli.fail(error)
    own = [("estimator", estimator) for estimator in estimators.values() if is_own(estimator)]
    if options.problems:
        own += [("problem", problem) for problem in problems.values()]
    try:
        _write(options, texts, estimators, figures_of)
        for folder in {path.parent for path in options.files}:
            code.copy_texts(folder, own)
    except OSError as error:
        cli.fail_to_write(error)
    return 0


def _parts(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """The functions of the estimators and the problems, by name.

    Raises ValueError for a custom part that is of another kind.
    """
    from pg.diagnostics import references
    from pg.estimators import family
    from pg.exact import tabular

    estimators = {row_name(canonical(name)): family.find(name) for name in options.estimators}
    problems: dict[str, Any] = {}
    for reference in options.problems:
        problem = own_files.load(reference, "env")
        references.check_small(f"problem {reference}", problem)
        problems[row_name(reference)] = problem
    return estimators, problems or tabular.references()


def _print_rows(
    estimators: Mapping[str, Any], problems: Mapping[str, Any], gamma: float
) -> dict[str, dict[str, Any]]:
    """Prints the table row by row. Returns the figures, by estimator and by problem.

    Args:
        estimators: functions by name.
        problems: MDPs by name.
        gamma: discount.
    """
    from pg import diagnostics

    def exact(name: str) -> dict[str, Any]:
        if not facts_of(estimators[name]).takes("discrete"):
            return {}
        return diagnostics.exact_figures(estimators[name], gamma=gamma, problems=problems)

    # before the first row: the user's parts may be wrong
    own = {name: exact(name) for name in estimators if is_own(estimators[name])}
    figures_of = {}
    print(HEADER)
    for name, estimator in estimators.items():
        figures_of[name] = own[name] if name in own else exact(name)
        print(row(estimator, figures_of[name]), flush=True)
    return figures_of


def _write(
    options: Options,
    texts: Mapping[Path, str],
    estimators: Mapping[str, Any],
    figures_of: Mapping[str, Mapping[str, Any]],
) -> None:
    """Writes the tables and the figure.

    Args:
        options: of the command.
        texts: of the files of the tables, by path.
        estimators: functions by name.
        figures_of: exact figures, by estimator and by problem.
    """
    from pg.reports import tables

    rows = [row(estimators[name], figures) for name, figures in figures_of.items()]
    for path, text in texts.items():
        if MARKS[0] in text:
            tables.insert(path, "\n".join([HEADER, *rows]), MARKS)
        if SLIM_MARKS[0] in text:
            tables.insert(path, slim_table(estimators), SLIM_MARKS)
    if options.figure:
        first = {
            name: next(iter(figures.values())) for name, figures in figures_of.items() if figures
        }
        plot({name: figures.as_text() for name, figures in first.items()}, options.figure)


def is_own(estimator: Any) -> bool:
    """True for a custom estimator."""
    return not facts_of(estimator).module and not is_sequence(part_name(estimator))


def row(estimator: Any, figures: Mapping[str, Any]) -> str:
    """The row of an estimator: its facts, and its figures on all problems.

    Args:
        estimator: its function.
        figures: `Figures` by problem; {} for an estimator of continuous actions only.
    """
    cells = ["—"] * 3
    if figures:
        columns = zip(*(problem.as_text() for problem in figures.values()), strict=True)
        cells = [" · ".join(column) for column in columns]
    return f"| {described(estimator)} | {' | '.join(cells)} |"


def slim_table(estimators: Mapping[str, Any]) -> str:
    """The slim table: the selected rows if every estimator of pg is there, else all rows.

    Args:
        estimators: names or functions by name.
    """
    if any(name not in estimators for name in FACTS):
        return "\n".join([SLIM_HEADER, *map(slim, estimators.values())])
    shown = [slim(estimators[name]) for name in SELECTED]
    count = f"{len(SELECTED)} of {len(estimators)} estimators."
    return "\n".join([SLIM_HEADER, *shown, "", count])


def slim(estimator: Any) -> str:
    """The row of an estimator in the slim table: name, Ψ, and the objective for which it is
    unbiased. estimator: its name or its function.
    """
    facts = facts_of(estimator)
    target = re.split(r"[ ,:;]", facts.unbiased_for)[0]
    answer = {"J": "yes", "no": "no"}.get(target, f"for {target}")
    if facts is UNSTATED:
        answer = "not stated"
    return f"| `{part_name(estimator)}` | {_cell(facts.psi)} | {answer} |"


def described(estimator: Any) -> str:
    """The cells that come from the stated facts: name, Ψ, source, the objective for which it is
    unbiased.
    estimator: its name or its function.
    """
    facts = facts_of(estimator)
    source = re.sub(r"\d{4}\.\d{4,5}", r"[\g<0>](https://arxiv.org/abs/\g<0>)", facts.source)
    unbiased_for = "not stated" if facts is UNSTATED else facts.unbiased_in_words
    if is_own(estimator):
        source = "; ".join(filter(None, [source, code.label(estimator)]))
    cells = f"`{part_name(estimator)}`", facts.psi, source, unbiased_for
    return " | ".join(map(_cell, cells))


def _cell(text: str) -> str:
    """A text as a cell of a table in Markdown."""
    return text.replace("|", "∣") or "—"


def plot(figures_of: dict[str, tuple[str, str, str]], path: Path) -> None:
    """Bias and variance side by side, a row per estimator whose variance is in the same units."""
    from pg.reports import plots
    from pg.reports.statistics import Estimate

    bias, variance = {}, {}
    for name, (bias_text, variance_text, _) in figures_of.items():
        if variance_text != "—":
            bias[name] = Estimate(float(bias_text), math.nan, math.nan)
            variance[name] = Estimate(float(variance_text), math.nan, math.nan)
    panels = {"bias ‖Eĝ − ∇J‖ / ‖∇J‖": bias, "variance, of reinforce = 1": variance}
    plots.bars(panels, path, ylabel="exact, over every trajectory of a small random problem")
