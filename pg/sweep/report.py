"""The report of a sweep: its configurations ranked by their mean over seeds, with intervals and
figures, and the best one on fresh seeds.

The best of many configurations looks better than it is, since selection favours luck. The return to
report is that on seeds which had no part in the selection.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pg import numerals
from pg.commands import cli
from pg.config import part_name
from pg.reports import comparison, curves, plots, statistics, tables
from pg.reports.curves import Curve
from pg.reports.statistics import Estimate
from pg.runs import files, results, sweeps
from pg.sweep.spec import SweepSpec

SHOWN = 10  # lines of the table that is printed
DRAWN = 5  # learning curves


class Ranked(NamedTuple):
    """A configuration and the scores of its seeds."""

    configuration: int
    values: dict[str, Any]
    scores: np.ndarray  # mean return in the final evaluation of each seed that did not diverge
    mean: Estimate  # over these seeds; NaN without any
    diverged: int  # number of seeds that diverged
    env_steps: float  # mean over seeds
    stage: Mapping[str, Any] = {}  # of a search: how far it was trained, by column

    def cells(self) -> list[str]:
        """The line of the table."""
        return [
            *map(_number, self.values.values()),
            *map(str, self.stage.values()),
            _interval(self.mean),
            str(self.diverged),
            f"{self.env_steps:,.0f}",
        ]


# The metrics of a configuration by name, [seeds, updates] each.
MetricsOf = Callable[[Ranked], dict[str, np.ndarray]]


def rank(spec: SweepSpec, rows: Mapping[str, np.ndarray]) -> list[Ranked]:
    """The configurations whose seeds are all finished, the best first; those with a diverged seed
    come last.
    """
    ranked = []
    for g in range(len(rows["run"]) // len(spec.seeds)):
        chosen = rows["configuration"] == g
        finite = ~sweeps.failed_runs(rows)[chosen]
        scores = rows["mean"][chosen][finite]
        mean = results.over_seeds(scores)
        steps = float(rows["env_steps"][chosen].mean())
        diverged = int((~finite).sum())
        ranked.append(Ranked(g, spec.values(g), scores, mean, diverged, steps))
    return ordered(ranked)


def ordered(ranked: Iterable[Ranked]) -> list[Ranked]:
    """The configurations, the best first; those with a diverged seed come last."""

    def key(r: Ranked) -> tuple[bool, float]:
        return r.diverged > 0, -np.nan_to_num(r.mean.value, nan=-np.inf)

    return sorted(ranked, key=key)


def table(spec: SweepSpec, ranked: list[Ranked], shown: int = SHOWN) -> str:
    """The best configurations, as a table of aligned columns."""
    stage = ranked[0].stage if ranked else {}
    head = ["", *spec.table, *stage, "mean return [95 %]", "diverged", "steps per seed"]
    rows = [[str(i + 1), *r.cells()] for i, r in enumerate(ranked[:shown])]
    texts = [tables.plain([head, *rows])]
    if len(ranked) > shown:
        texts.append(f"... and {len(ranked) - shown} more in configurations.csv")
    if any(np.isnan(r.mean.low) and np.isfinite(r.mean.value) for r in ranked[:shown]):
        texts.append("no interval: it takes two seeds that stayed finite (--seeds)")
    if len(spec.seeds) < statistics.FEW_SEEDS:
        texts.append(f"intervals of fewer than {statistics.FEW_SEEDS} seeds are too narrow")
    return "\n".join(texts)


def write(spec: SweepSpec, folder: Path, ranked: list[Ranked]) -> None:
    """Writes configurations.csv, a line per configuration, the best first."""
    names = (
        "rank",
        "configuration",
        *spec.table,
        *ranked[0].stage,
        "mean",
        "mean_low",
        "mean_high",
        "median",
        "diverged",
        "env_steps",
    )
    lines = [
        (
            i + 1,
            r.configuration,
            *r.values.values(),
            *r.stage.values(),
            *r.mean,
            _median(r.scores),
            r.diverged,
            round(r.env_steps),
        )
        for i, r in enumerate(ranked)
    ]
    tables.write_csv(folder / "configurations.csv", names, lines)
    files.remove(folder, r"settings\.csv")  # its former name


def draw(spec: SweepSpec, folder: Path, ranked: list[Ranked]) -> list[Path]:
    """Draws learning curves of the best configurations, the return against each setting, and a heat
    map if two settings are varied. Returns the files.
    """

    def metrics_of(r: Ranked) -> dict[str, np.ndarray]:
        runs = spec.runs_of(r.configuration)
        return sweeps.read_metrics(folder, runs)[r.configuration]

    return [
        *draw_curves(spec, folder, ranked[:DRAWN], metrics_of),
        *draw_sensitivity(spec, folder, ranked),
    ]


def draw_curves(
    spec: SweepSpec, folder: Path, best: list[Ranked], metrics_of: MetricsOf
) -> list[Path]:
    """Draws learning curves, and returns their file.

    Args:
        spec: the sweep.
        folder: where the file is written.
        best: the configurations to draw.
        metrics_of: reads the metrics of a configuration.
    """
    drawn = []
    lines: dict[str, Curve] = {}
    written = {name: numerals.labels([r.values[name] for r in best]) for name in spec.table}
    for i, r in enumerate(best):
        values = {name: texts[i] for name, texts in written.items()}
        name = comparison.label(values) or part_name(spec.config.estimator)
        try:
            lines[name] = curves.mean_learning_curve(*curves.seed_curves(metrics_of(r)))
        except ValueError as error:
            cli.say(f"{name}: no learning curve is drawn, as {error}")
    if lines:
        drawn.append(folder / "curves.png")
        title = _title(spec)
        if len(best) < spec.num_configurations:
            title += f", the best {len(best)} of {spec.num_configurations} configurations"
        plots.learning_curves({title: lines}, drawn[-1])
    return drawn


def draw_sensitivity(
    spec: SweepSpec, folder: Path, ranked: list[Ranked], remark: str = ""
) -> list[Path]:
    """Draws the return against each setting, and a heat map if two are varied. Returns the files.

    Args:
        spec: the sweep.
        folder: where the files are written.
        ranked: configurations that were trained equally long.
        remark: appended to the title.
    """
    title, drawn = _title(spec) + remark, []
    finite = [r for r in ranked if np.isfinite(r.mean.value)]
    varied = {
        name: [r.values[name] for r in finite]
        for name in spec.table
        if len(set(map(str, spec.table[name]))) > 1
    }
    means = [r.mean for r in finite]
    if varied and finite:
        drawn.append(folder / "sensitivity.png")
        plots.sensitivity(varied, means, drawn[-1], title=title)
    if len(varied) == 2 and finite:
        drawn.append(folder / "map.png")
        plots.heat_map(varied, [m.value for m in means], drawn[-1], title=title)
    return drawn


def summary(
    spec: SweepSpec, ranked: list[Ranked], again: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        spec: the sweep.
        ranked: its configurations.
        again: the summary of the best one on fresh seeds.

    Returns:
        JSON-able data; without a best configuration and a mean if every run diverged.
    """
    best = ranked[0]
    return {
        "status": "finished" if any_finite(ranked) else "every run diverged",
        "configurations": len(ranked),
        "seeds": len(spec.seeds),
        "best": best.values if any_finite(ranked) else None,
        "mean_where_selected": best.mean.value,
        "interval_where_selected": [best.mean.low, best.mean.high],
        "mean_on_fresh_seeds": None if again is None else again.get("mean"),
        "interval_on_fresh_seeds": None if again is None else again.get("interval"),
        "diverged_runs": sum(r.diverged for r in ranked),
    }


def verdict(spec: SweepSpec, ranked: list[Ranked], again: Mapping[str, Any] | None) -> str:
    """A sentence about the best configuration."""
    if not any_finite(ranked):
        total = sum(r.diverged for r in ranked)
        return (
            f"all {total} runs diverged, each with a number that was not finite, or a step without "
            "a legal action, at some update, so that there is no best configuration: smaller "
            "values of learning_rate may help, or masks that allow an action until episodes end"
        )
    best = ranked[0]
    values = {name: _number(value) for name, value in best.values.items()}
    name = comparison.label(values) or "the only configuration"
    found = f"best: {name}; mean return {_interval(best.mean)} where it was selected"
    if again is None:
        return found + (
            ", which flatters it: of many configurations the luckiest looks best"
            if len(ranked) > 1
            else ""
        )
    seeds, failed = len(again["per_seed"]), len(again["failed_seeds"])
    if "mean" not in again:
        return (
            f"{found},\nbut on {numerals.counted(seeds, 'fresh seed')} all runs diverged: this "
            f"configuration cannot be relied on"
        )
    low, high = again.get("interval", (np.nan, np.nan))  # none of a single seed
    mean = Estimate(again["mean"], low, high)
    fresh = numerals.counted(seeds, "fresh seed") + (
        f", without the {failed} that diverged," if failed else ","
    )
    return (
        f"{found},\n{_interval(mean)} on {fresh} which had no part in the choice: report this one"
    )


def any_finite(ranked: list[Ranked]) -> bool:
    """True if a run did not diverge, so that there is a best configuration."""
    return any(len(r.scores) for r in ranked)


def _title(spec: SweepSpec) -> str:
    return f"{spec.title}, {numerals.counted(len(spec.seeds), 'seed')} each"


def _median(scores: np.ndarray) -> float:
    return float(np.median(scores)) if len(scores) else np.nan


def _interval(mean: Estimate) -> str:
    if np.isnan(mean.value):
        return "—"
    if np.isnan(mean.low):
        return f"{_number(mean.value)} (no interval)"
    return numerals.typed(numerals.interval(*mean))


def _number(x: Any) -> str:
    return (
        numerals.typed(numerals.number(float(x))) if isinstance(x, float | np.floating) else str(x)
    )
