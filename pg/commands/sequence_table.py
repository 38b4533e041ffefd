"""Print the exact bias, direction, variance and signal-to-noise ratio of policy gradients over
sequences, for each published one and each single switch.

Nothing is sampled: each figure is a sum over every pair of sequences of one prompt, on prefix trees
whose policy was trained by the exact gradient. A lag of k means data of the policy of k updates
ago.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pg.commands import cli
from pg.estimators.switches import PRESETS, Clip, Switches, label, published
from pg.inputs import check_name

PROBLEMS = ("equal_lengths", "unequal_lengths", "agreeing_groups")
PLAIN = Switches(baseline="none")
LEGEND = """Of the policy after {updates} exact updates: bias · cosine to the gradient ·
variance, in units of plain without a lag · signal to noise of one sequence.
"""


@dataclasses.dataclass
class Options:
    """The table, and the file that holds it."""

    problems: tuple[str, ...] = PROBLEMS
    """Problems: equal_lengths, unequal_lengths or agreeing_groups."""
    lags: tuple[int, ...] = (0, 1, 4, 16)
    """Lags: the number of updates by which the acting policy is older than the learning one. The
    learning policy is the one after as many updates as the largest lag, so other lags mean other
    policies.
    """
    kl_coef: float = 0.1
    """Weight β of the KL divergence from the initial policy."""
    presets_only: bool = False
    """Only the published estimators, and the plain policy gradient."""
    out: Path | None = None
    """File in which the table of each problem replaces the lines between `<!-- NAME -->` and
    `<!-- end of NAME -->`.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for a mistake, before jax is loaded."""
        for name in self.problems:
            check_name("problem", name, PROBLEMS)
        if not self.lags or min(self.lags) < 0:
            raise ValueError(f"lags must be whole numbers of at least 0, got {self.lags}")
        if not 0.0 <= self.kl_coef < math.inf:
            raise ValueError(f"kl_coef must be finite and at least 0, got {self.kl_coef}")


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Prints a table in Markdown for each problem. Returns the exit code, 0."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    marks = {name: (f"<!-- {name} -->", f"<!-- end of {name} -->") for name in options.problems}
    if options.out is not None:
        text = options.out.read_text(encoding="utf-8") if options.out.is_file() else ""
        without = [both for both in marks.values() if both[0] not in text]
        if without:
            cli.fail(
                f"{options.out} must have the lines {' and '.join(without[0])}, between which "
                "a table goes: write them into the file first"
            )
    cli.cache_compilations()
    for name in options.problems:
        lines = _table(name, options)
        if options.out is not None:
            from pg.reports import tables

            tables.insert(options.out, "\n".join(lines), marks[name])
    return 0


def rows(presets_only: bool = False) -> dict[str, Switches]:
    """The estimators of the table, by their names there: published ones, then single switches."""
    plain = {"baseline": "none"}
    named = {"plain": PLAIN, **PRESETS}
    if presets_only:
        return named
    chosen: list[dict[str, Any]] = [
        {"baseline": "mean"},
        {"baseline": "leave_one_out"},
        {"baseline": "greedy"},
        {"baseline": "length_weighted"},
        {"baseline": "mean", "scale": "group"},
    ]
    chosen += [{**plain, "average": average} for average in ("sequence", "token", "constant")]
    chosen += [{**plain, "ratio": ratio} for ratio in ("token", "sequence", "sequence_mean")]
    chosen += [{**plain, "ratio": "sequence", "clip": "truncated"}]
    chosen += [
        {**plain, "ratio": ratio, "self_normalised": "group"} for ratio in ("token", "sequence")
    ]
    chosen += [
        {**plain, "kl": "k1", "credit": "to_go", "ratio": ratio}
        for ratio in ("sequence", "per_decision")
    ]
    clips = [clip for clip in get_args(Clip) if clip != "none"]
    chosen += [{**plain, "ratio": "token", "clip": clip} for clip in clips]
    chosen += [
        {**plain, "kl": estimate, "kl_place": place}
        for place in ("reward", "loss", "sequence")
        for estimate in ("k1", "k2", "k3", "full")
        if (place, estimate) != ("sequence", "full")
    ]
    chosen += [
        {**plain, "kl": estimate, "kl_place": "loss", "kl_ratio": True}
        for estimate in ("k1", "k2", "k3", "full")
    ]
    single = [Switches(**each) for each in chosen]
    return {**named, **{label(switches): switches for switches in single}}


def hyperparams(switches: Switches, kl_coef: float) -> Any:
    """The Hyperparams of a row: those of the preset's paper, with the same β for all."""
    from pg.config import Hyperparams

    return Hyperparams()._replace(**published(switches))._replace(kl_coef=kl_coef)


def _table(name: str, options: Options) -> list[str]:
    """The lines of a problem's table, which are printed as they are computed."""
    import jax

    from pg.diagnostics import sequence_figures
    from pg.exact import tabular

    lines = [
        f"| {name} | {' | '.join(f'lag {lag}' for lag in options.lags)} |",
        f"| --- |{' --- |' * len(options.lags)}",
    ]
    print(LEGEND.format(updates=max(options.lags)), *lines, sep="\n", flush=True)
    with jax.enable_x64(True):
        on = sequence_figures.problem(tabular.sequence_problems()[name], options.lags)
        unit = sequence_figures.plain_variance(on, hyperparams(PLAIN, options.kl_coef))
        for estimator, switches in rows(options.presets_only).items():
            h = hyperparams(switches, options.kl_coef)
            found = sequence_figures.figures(switches, on, h, unit)
            lines.append(row(estimator, [found[lag] for lag in options.lags]))
            print(lines[-1], flush=True)
    print()
    return lines


def row(name: str, found: Sequence[Any]) -> str:
    """A row: bias · cosine · variance · signal to noise at each lag."""
    cells = [" · ".join(_number(x) for x in figures) for figures in found]
    return f"| {name} | {' | '.join(cells)} |"


def _number(x: float) -> str:
    """A figure with two digits, or three if it is close to 1."""
    if math.isnan(x):
        return "—"
    return f"{x:.3f}" if 0.9 < abs(x) < 1.1 else f"{x:.2g}"
