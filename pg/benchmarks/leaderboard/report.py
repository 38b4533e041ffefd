"""The report of measurements: tables in Markdown, figures, and the agreement of two seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pg import numerals
from pg.benchmarks.combinations import combination_of, is_combination, name_of
from pg.benchmarks.leaderboard.measurements import Measurements
from pg.benchmarks.leaderboard.problems import SNAPSHOTS
from pg.benchmarks.leaderboard.quality import CurvePoint, Quality
from pg.benchmarks.leaderboard.recommendations import (
    is_resolved,
    recommendations_table,
    relative_costs,
)
from pg.config import WITH_TIME
from pg.estimators.facts import FACTS
from pg.reports import plots, tables
from pg.reports.statistics import Estimate
from pg.runs import files

MARKS = ("<!-- leaderboard -->", "<!-- end of leaderboard -->")
TOP = 3
# Estimators by name, and the combination of each with a critic that sees the time.
TIMED = {name: name_of(name, {"critic_observe": WITH_TIME}) for name in FACTS}


def variance_table(qualities: Iterable[Quality]) -> str:
    """A row per estimator of one problem at one snapshot, the highest signal to noise first. The
    cosine is the expected one of an estimate from that many episodes.
    """
    ranked = sorted(qualities, key=lambda x: -x.snr.value)
    head = (
        "estimator",
        "variance of an episode",
        "signal to noise",
        "episodes",
        "cosine",
        "μs per step",
    )
    rows = []
    for x in ranked:
        microseconds = 1e6 * x.seconds_per_episode / x.steps_per_episode
        variance, snr, cosine = (numerals.interval(*y) for y in (x.variance, x.snr, x.cosine))
        cost = numerals.number(microseconds, 3)
        rows.append((f"`{x.estimator}`", variance, snr, str(x.num_episodes), cosine, cost))
    return tables.markdown([head, *rows])


def report(
    qualities: Sequence[Quality],
    best: Mapping[str, str] = MappingProxyType({}),
    named: Sequence[str] = (),
    timed: Sequence[Quality] = (),
) -> str:
    """The leaderboard, the best unbiased and biased choices, and the steps to 0.9 at each snapshot.

    Args:
        qualities: the measurements of one seed, those of combinations among them.
        best: problem -> the combination that a search chose.
        named: requested combinations, listed with the estimators.
        timed: measurements of estimators whose critics see the time, and of the same without it.
    """
    listed = [x for x in qualities if not is_combination(x.estimator) or x.estimator in named]
    parts = [
        f"Cheapest in each situation:\n\n{recommendations_table(listed)}",
        f"All estimators:\n\n{leaderboard_table(listed)}",
    ]
    for snapshot in SNAPSHOTS:
        if gap := gap_table(qualities, best, snapshot, named):
            parts.append(f"Steps to 0.9, {snapshot} of training (share of `state_value`):\n\n{gap}")
    if table := time_table(timed):
        parts.append(
            "Variance with a critic that sees the time, relative to that without; at the "
            f"{', the '.join(SNAPSHOTS)} of training:\n\n{table}"
        )
    for snapshot in SNAPSHOTS:
        table = steps_table(listed, snapshot)
        parts.append(f"Environment steps to 0.9, {snapshot} of training:\n\n{table}")
    return "\n\n".join(["", *parts, ""])


def leaderboard_table(qualities: Sequence[Quality]) -> str:
    """A row per estimator: its costs relative to those of the best estimator of each problem.

    The median over problems and snapshots of steps (seconds) for an expected cosine of 0.9, divided
    by the fewest of any estimator; the same for 0.5; and the share of problems and snapshots where
    0.9 is reached at all.
    """
    head = (
        "estimator",
        "steps to 0.9",
        "seconds to 0.9",
        "steps to 0.5",
        "seconds to 0.5",
        "reaches 0.9",
    )
    costs = [
        relative_costs(qualities, _steps_for_0_9),
        relative_costs(qualities, lambda x: _steps_for_0_9(x) * _seconds_per_step(x)),
        relative_costs(qualities, lambda x: x.steps_for_0_5.value),
        relative_costs(qualities, lambda x: x.steps_for_0_5.value * _seconds_per_step(x)),
    ]
    names = sorted(costs[0], key=lambda name: tuple(np.median(cost[name]) for cost in costs))
    rows = []
    for name in names:
        medians = [numerals.times(np.median(cost[name])) for cost in costs]
        steps = [_steps_for_0_9(x) for x in qualities if x.estimator == name and is_resolved(x)]
        reached = sum(map(math.isfinite, steps))
        rows.append((f"`{name}`", *medians, f"{reached}/{len(steps)}"))
    return tables.markdown([head, *rows])


def steps_table(qualities: Sequence[Quality], snapshot: str) -> str:
    """A row per estimator, a column per problem: environment steps for a cosine of 0.9, with
    intervals.

    —: the estimator does not exist for the problem, or there is no reference to compare with.
    """
    rows_of_snapshot = [x for x in qualities if x.snapshot == snapshot]
    problems = list(dict.fromkeys(x.problem for x in rows_of_snapshot))
    names = list(dict.fromkeys(x.estimator for x in rows_of_snapshot))
    cells = {(x.estimator, x.problem): x for x in rows_of_snapshot}

    def cell(name: str, problem: str) -> str:
        x = cells.get((name, problem))
        if x is None or not is_resolved(x):
            return "—"
        value, low, high = (numerals.short(number) for number in x.steps_for_0_9)
        return f"{value} [{low}, {high}]"

    rows = [(f"`{name}`", *(cell(name, problem) for problem in problems)) for name in names]
    return tables.markdown([("estimator", *problems), *rows])


def time_table(qualities: Sequence[Quality]) -> str:
    """A row per estimator, a column per problem: its variance with a critic that sees the time
    relative to that without, at each snapshot; "" if none was measured.

    —: one of the two was not measured.
    """
    variances = {(x.estimator, x.problem, x.snapshot): x.variance.value for x in qualities}
    measured = {x.estimator for x in qualities}
    names = [name for name in FACTS if TIMED[name] in measured]
    problems = list(dict.fromkeys(x.problem for x in qualities))

    def ratio(name: str, problem: str, snapshot: str) -> str:
        with_time = variances.get((TIMED[name], problem, snapshot))
        without = variances.get((name, problem, snapshot))
        return numerals.number(with_time / without, 2) if with_time and without else "—"

    def cell(name: str, problem: str) -> str:
        ratios = [ratio(name, problem, snapshot) for snapshot in SNAPSHOTS]
        return "—" if set(ratios) == {"—"} else " · ".join(ratios)

    rows = [(f"`{name}`", *(cell(name, problem) for problem in problems)) for name in names]
    return tables.markdown([("estimator", *problems), *rows]) if rows else ""


def gap_table(
    qualities: Sequence[Quality],
    best: Mapping[str, str],
    snapshot: str,
    named: Sequence[str] = (),
) -> str:
    """A row per problem: the steps to 0.9 of state_value, and of the cheapest unbiased
    estimator, the combination that a search chose, and the cheapest biased estimator.

    Each but the first has its share of those of state_value, if that is finite. Estimators whose
    interval reaches ∞ are left out.

    Args:
        qualities: the measurements of one seed, those of combinations among them.
        best: problem -> the combination that was chosen; without a search there is no column.
        snapshot: name of the snapshot.
        named: requested estimators and combinations: only these combinations may be the cheapest.
    """
    rows = []
    of_combinations = {name: combination_of(name).facts for name in named if is_combination(name)}
    facts = {**FACTS, **of_combinations}
    cells = {(x.problem, x.estimator): x for x in qualities if x.snapshot == snapshot}
    for problem in dict.fromkeys(x.problem for x in cells.values()):
        baseline = cells.get((problem, "state_value"))
        if baseline is None or not is_resolved(baseline):
            continue
        listed = [x for (p, name), x in cells.items() if p == problem and name in facts]
        # the lowest of costs that may be infinite would be that of the luckiest
        known = [x for x in listed if math.isfinite(x.steps_for_0_9.high)]
        unbiased = [x for x in known if facts[x.estimator].unbiased_for == "J"]
        biased = [x for x in known if facts[x.estimator].unbiased_for != "J"]
        found = cells.get((problem, best.get(problem, "")))
        combined = [_against(found, baseline)] if best else []
        rows.append(
            (
                problem,
                numerals.short(_steps_for_0_9(baseline)),
                _against(min(unbiased, key=_steps_for_0_9, default=None), baseline),
                *combined,
                _against(min(biased, key=_steps_for_0_9, default=None), baseline),
            )
        )
    searched = ["best combination"] if best else []
    head = ("problem", "`state_value`", "best unbiased", *searched, "best biased")
    return tables.markdown([head, *rows])


def _against(x: Quality | None, baseline: Quality) -> str:
    """Name, steps and share of the baseline's steps, as a cell; — if there is none."""
    if x is None or not math.isfinite(_steps_for_0_9(x)):
        return "—"
    steps = _steps_for_0_9(baseline)
    share = numerals.number(_steps_for_0_9(x) / steps, 2) if math.isfinite(steps) else "—"
    return f"`{x.estimator}` {numerals.short(_steps_for_0_9(x))} ({share})"


def agreement(a: Sequence[Quality], b: Sequence[Quality]) -> tuple[int, int]:
    """The number of problems on which two seeds have the same three leading estimators, and of all.

    The order is by the median over snapshots of the cost in environment steps for 0.9; ties are in
    the order of names.
    """
    problems_of_b = {x.problem for x in b}
    problems = [name for name in dict.fromkeys(x.problem for x in a) if name in problems_of_b]
    return sum(_leading(a, name) == _leading(b, name) for name in problems), len(problems)


def plot_measurements(measurements: Measurements, out: Path) -> list[Path]:
    """Plots variance.png, cosine_steps.png and cosine_seconds.png, each as SVG too.

    They have a panel per problem and snapshot.
    """
    places = list(dict.fromkeys(_place(x) for x in measurements.qualities if is_resolved(x)))
    variances: dict[str, dict[str, Estimate]] = {place: {} for place in places}
    for x in measurements.qualities:
        if _place(x) in variances:
            variances[_place(x)][x.estimator] = x.variance
    files.make_folder(out)
    label = "variance of an episode's gradient"
    plots.bars(variances, out / "variance.png", ylabel=label, log=True)
    paths = [out / "variance.png"]
    for field, xlabel in (("steps", "environment steps"), ("seconds", "seconds")):
        panels = {}
        for place in places:
            points = [point for point in measurements.points if _place(point) == place]
            panels[place] = _curves(points, field)
        paths.append(out / f"cosine_{field}.png")
        plots.curves(
            panels,
            paths[-1],
            xlabel=xlabel,
            ylabel="expected cosine to ∇J",
            logx=True,
            levels={"0.5": 0.5, "0.9": 0.9},
        )
    return paths


def plot_leaderboard(qualities: Sequence[Quality], path: Path) -> None:
    """Plots environment steps for a cosine of 0.9 in the middle of training, a panel per problem;
    PNG and SVG.
    """
    costs = relative_costs(qualities, _steps_for_0_9)
    names = sorted(costs, key=lambda name: np.median(costs[name]))

    def rank(x: Quality) -> int:
        return names.index(x.estimator) if x.estimator in names else len(names)

    groups: dict[str, dict[str, Estimate]] = {}
    for x in sorted((x for x in qualities if x.snapshot == "middle"), key=rank):
        groups.setdefault(x.problem, {})[x.estimator] = x.steps_for_0_9
    files.make_folder(path.parent)
    plots.bars(groups, path, ylabel="environment steps for an expected cosine of 0.9", log=True)


def _steps_for_0_9(x: Quality) -> float:
    return x.steps_for_0_9.value


def _seconds_per_step(x: Quality) -> float:
    return x.seconds_per_episode / x.steps_per_episode


def _place(row: Quality | CurvePoint) -> str:
    return f"{row.problem}, {row.snapshot}"


def _leading(qualities: Sequence[Quality], problem: str) -> set[str]:
    costs = relative_costs([x for x in qualities if x.problem == problem], _steps_for_0_9)
    return set(sorted(costs, key=lambda name: (np.median(costs[name]), name))[:TOP])


def _curves(points: Sequence[CurvePoint], field: str) -> dict[str, tuple[np.ndarray, Estimate]]:
    """The curve of each estimator over a field of its points: x and the cosines, [K] each."""
    points_of: dict[str, list[CurvePoint]] = {}
    for point in points:
        points_of.setdefault(point.estimator, []).append(point)
    curves = {}
    for name, some in points_of.items():
        x = np.array([getattr(point, field) for point in some])
        curves[name] = x, Estimate(*np.array([point.cosine for point in some]).T)
    return curves
