"""The report of a survey: tables in Markdown, figures, and how well two surveys agree."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg import numerals
from pg.benchmarks.leaderboard.quality import Point, Quality
from pg.benchmarks.leaderboard.subjects import STAGES
from pg.benchmarks.leaderboard.survey import Survey
from pg.reports import plots, tables
from pg.reports.statistics import Estimate
from pg.runs import files

MARKS = ("<!-- leaderboard -->", "<!-- end of leaderboard -->")
TOP = 3
Cost = Callable[[Quality], float]


def variance_table(lines: Iterable[Quality]) -> str:
    """A row per estimator of one subject at one stage, the highest signal to noise first."""
    ranked = sorted(lines, key=lambda x: -x.snr)
    head = (
        "estimator",
        "variance of an episode",
        "signal to noise",
        f"cosine of {ranked[0].num_episodes} episodes",
    )
    rows = [
        (
            f"`{x.estimator}`",
            numerals.interval(x.variance, x.variance_low, x.variance_high),
            numerals.interval(x.snr, x.snr_low, x.snr_high),
            numerals.interval(x.cosine, x.cosine_low, x.cosine_high),
            numerals.number(1e6 * x.seconds / x.steps, 3),
        )
        for x in ranked
    ]
    return tables.markdown([(*head, "μs per step"), *rows])


def report(lines: Sequence[Quality]) -> str:
    """The leaderboard, and below it the budgets of each stage."""
    stages = [
        f"Environment steps to 0.9, {stage} of training:\n\n{budgets(lines, stage)}"
        for stage in STAGES
    ]
    return "\n\n".join(["", leaderboard(lines), *stages, ""])


def leaderboard(lines: Sequence[Quality]) -> str:
    """A row per estimator: what it needs against the best of each problem, and how often it gets
    there at all.

    The median over problems and stages of steps (seconds) for an expected cosine of 0.9, divided by
    the least of any estimator; the same of 0.5; and the share of problems and stages where 0.9 is
    reached at all.
    """
    head = (
        "estimator",
        "steps to 0.9",
        "seconds to 0.9",
        "steps to 0.5",
        "seconds to 0.5",
        "reaches 0.9",
    )
    costs: list[Cost] = [lambda x: x.most, _seconds("most"), lambda x: x.half, _seconds("half")]
    relative = [relative_costs(lines, cost) for cost in costs]
    names = sorted(relative[0], key=lambda name: tuple(np.median(r[name]) for r in relative))
    rows = []
    for name in names:
        own = [x for x in lines if x.estimator == name and not math.isnan(x.most)]
        reached = sum(math.isfinite(x.most) for x in own)
        rows.append(
            (
                f"`{name}`",
                *(numerals.times(np.median(r[name])) for r in relative),
                f"{reached}/{len(own)}",
            )
        )
    return tables.markdown([head, *rows])


def budgets(lines: Sequence[Quality], stage: str) -> str:
    """A row per estimator, a column per subject: environment steps for a cosine of 0.9, with their
    interval.

    —: there is no such estimator, or no reference to compare with.
    """
    some = [x for x in lines if x.stage == stage]
    subjects, names = (
        list(dict.fromkeys(getattr(x, field) for x in some)) for field in ("subject", "estimator")
    )
    cells = {(x.estimator, x.subject): x for x in some}

    def cell(name: str, subject: str) -> str:
        x = cells.get((name, subject))
        if x is None or math.isnan(x.most):
            return "—"
        return (
            f"{numerals.short(x.most)} [{numerals.short(x.most_low)}, "
            f"{numerals.short(x.most_high)}]"
        )

    rows = [(f"`{name}`", *(cell(name, subject) for subject in subjects)) for name in names]
    return tables.markdown([("estimator", *subjects), *rows])


def relative_costs(lines: Sequence[Quality], cost: Cost) -> dict[str, list[float]]:
    """By estimator: its cost over the least of any, at every subject and stage that has a finite
    one.
    """
    found: dict[str, list[float]] = {x.estimator: [] for x in lines}
    for cell in _cells(lines):
        least = min(map(cost, cell))
        if math.isfinite(least):
            for x in cell:
                found[x.estimator].append(cost(x) / least)
    return {name: values for name, values in found.items() if values}


def agreement(a: Sequence[Quality], b: Sequence[Quality]) -> tuple[int, int]:
    """On how many subjects two surveys have the same three leading estimators, and of how many.

    Leading by the median over stages of the cost in environment steps for 0.9; ties are in the
    order of names.
    """
    subjects = [
        name for name in dict.fromkeys(x.subject for x in a) if any(x.subject == name for x in b)
    ]
    return sum(_leading(a, name) == _leading(b, name) for name in subjects), len(subjects)


def draw(found: Survey, out: Path) -> list[Path]:
    """variance.png, cosine_steps.png and cosine_seconds.png, a panel per subject and stage, each as
    SVG too.
    """
    keys = list(dict.fromkeys((x.subject, x.stage) for x in found.lines if not math.isnan(x.most)))
    of = {key: [x for x in found.lines if (x.subject, x.stage) == key] for key in keys}
    variances = {
        f"{subject}, {stage}": {
            x.estimator: Estimate(x.variance, x.variance_low, x.variance_high)
            for x in of[subject, stage]
        }
        for subject, stage in keys
    }
    files.make_folder(out)
    plots.bars(
        variances, out / "variance.png", ylabel="variance of an episode's gradient", log=True
    )
    drawn = [out / "variance.png"]
    for field, label in (("steps", "environment steps"), ("seconds", "seconds")):
        points = {key: [p for p in found.points if (p.subject, p.stage) == key] for key in keys}
        panels = {", ".join(key): _curves(points[key], field) for key in keys}
        path = out / f"cosine_{field}.png"
        levels = {"0.5": 0.5, "0.9": 0.9}
        plots.curves(
            panels, path, xlabel=label, ylabel="expected cosine to ∇J", logx=True, levels=levels
        )
        drawn.append(path)
    return drawn


def draw_leaderboard(lines: Sequence[Quality], path: Path) -> None:
    """Environment steps for a cosine of 0.9 in the middle of training, a panel per subject; PNG and
    SVG.
    """
    ranked = sorted(
        relative_costs(lines, lambda x: x.most).items(), key=lambda item: np.median(item[1])
    )
    names = [name for name, _ in ranked]
    middle = [x for x in lines if x.stage == list(STAGES)[1]]
    groups: dict[str, dict[str, Estimate]] = {}
    for x in sorted(
        middle, key=lambda x: names.index(x.estimator) if x.estimator in names else len(names)
    ):
        groups.setdefault(x.subject, {})[x.estimator] = Estimate(x.most, x.most_low, x.most_high)
    files.make_folder(path.parent)
    plots.bars(groups, path, ylabel="environment steps for an expected cosine of 0.9", log=True)


def _leading(lines: Sequence[Quality], subject: str) -> set[str]:
    costs = relative_costs([x for x in lines if x.subject == subject], lambda x: x.most)
    return set(sorted(costs, key=lambda name: (np.median(costs[name]), name))[:TOP])


def _cells(lines: Sequence[Quality]) -> list[list[Quality]]:
    """The lines of each subject and stage that has a reference."""
    keys = dict.fromkeys((x.subject, x.stage) for x in lines if not math.isnan(x.most))
    return [[x for x in lines if (x.subject, x.stage) == key] for key in keys]


def _curves(points: Sequence[Point], field: str) -> dict[str, Any]:
    fields = (field, "cosine", "low", "high")
    found: dict[str, Any] = {}
    for p in points:
        found.setdefault(p.estimator, []).append([getattr(p, f) for f in fields])
    columns = {name: np.array(rows).T for name, rows in found.items()}
    return {name: (x, Estimate(*cosine)) for name, (x, *cosine) in columns.items()}


def _seconds(field: str) -> Cost:
    """Steps as the seconds in which they are collected and turned into a gradient."""
    return lambda x: getattr(x, field) * x.seconds / x.steps
