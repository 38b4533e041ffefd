"""Print the exact bias, variance and signal-to-noise ratio of every estimator on three tabular
problems.

Nothing is sampled: each figure is a sum over every trajectory, or every pair where an estimator
couples episodes.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pg.commands import cli
from pg.estimators.facts import FACTS

HEADER = """\
| estimator | Ψₜ | source | unbiased for | bias | variance | signal to noise |
| --- | --- | --- | --- | --- | --- | --- |"""
MARKS = ("<!-- table -->", "<!-- end of table -->")
SLIM_HEADER = """\
| estimator | Ψₜ | unbiased |
| --- | --- | --- |"""
SLIM_MARKS = ("<!-- slim table -->", "<!-- end of slim table -->")


@dataclasses.dataclass
class Options:
    """The table, and the files that hold it."""

    gamma: float = 0.9
    """Discount γ."""
    estimators: tuple[Literal[tuple(FACTS)], ...] = tuple(FACTS)  # type: ignore[valid-type]
    """Names of the estimators."""
    out: tuple[Path, ...] = ()
    """Files in which the table replaces the lines between `<!-- table -->` and
    `<!-- end of table -->`, and its first columns those between `<!-- slim table -->` and
    `<!-- end of slim table -->`.
    """
    figure: Path | None = None
    """File of a picture of bias and variance on the first problem, a PNG with an SVG beside it."""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Prints a table in Markdown, a row per estimator. Returns the exit code, 0."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    texts = {
        path: path.read_text(encoding="utf-8") if path.is_file() else "" for path in options.out
    }
    without = [
        str(path)
        for path, text in texts.items()
        if MARKS[0] not in text and SLIM_MARKS[0] not in text
    ]
    if without or not 0.0 <= options.gamma <= 1.0:
        cli.fail(
            f"no line {MARKS[0]} in {without}"
            if without
            else f"gamma must be in [0, 1], got {options.gamma}"
        )
    cli.cache_compilations()
    import jax

    from pg.exact import tabular
    from pg.reports import tables

    jax.config.update("jax_enable_x64", True)
    columns_of, rows = {}, []
    print(HEADER)
    for name in options.estimators:
        problems = tabular.references().values()
        columns_of[name] = [figures(name, mdp, options.gamma) for mdp in problems]
        cells = [" · ".join(column) for column in zip(*columns_of[name], strict=True)]
        rows.append(f"| {described(name)} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    for path, text in texts.items():
        if MARKS[0] in text:
            tables.insert(path, "\n".join([HEADER, *rows]), MARKS)
        if SLIM_MARKS[0] in text:
            slim_rows = [slim(name) for name in options.estimators]
            tables.insert(path, "\n".join([SLIM_HEADER, *slim_rows]), SLIM_MARKS)
    if options.figure:
        plot({name: columns[0] for name, columns in columns_of.items()}, options.figure)
    return 0


def slim(name: str) -> str:
    """The row of an estimator in the slim table: name, Ψ, whether unbiased."""
    facts = FACTS[name]
    target = re.split(r"[ ,:;]", facts.unbiased_for)[0]
    answer = {"J": "yes", "no": "no"}.get(target, f"for {target}")
    return f"| `{name}` | {facts.psi.replace('|', '∣')} | {answer} |"


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


def described(name: str) -> str:
    """The cells that come from the table of facts: name, Ψ, source, what it is unbiased for."""
    facts = FACTS[name]
    source = re.sub(r"\d{4}\.\d{4,5}", r"[\g<0>](https://arxiv.org/abs/\g<0>)", facts.source)
    unbiased_for = f"{facts.unbiased_for}: {facts.why}" if facts.why else facts.unbiased_for
    cells = f"`{name}`", facts.psi, source, unbiased_for
    return " | ".join(cell.replace("|", "∣") for cell in cells)


def figures(name: str, mdp: Any, gamma: float) -> tuple[str, str, str]:
    """Bias, variance and signal to noise of an estimator on a problem, exactly, as text.

    Args:
        name: of the estimator.
        mdp: the problem.
        gamma: discount.
    """
    from pg.diagnostics import references
    from pg.estimators import ESTIMATORS

    facts = FACTS[name]
    h = references.hyperparams(facts, gamma)
    return references.figures(ESTIMATORS[name], facts, mdp, h).as_text()
