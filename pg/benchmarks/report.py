"""The results of a benchmark as a table and as figures."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pg import numerals
from pg.benchmarks import learning
from pg.benchmarks.learning import Result
from pg.benchmarks.suites import TASKS, Task, row_of
from pg.estimators.facts import FACTS
from pg.reports import curves, plots, statistics, tables
from pg.reports.curves import Curve

MARKS = ("<!-- results -->", "<!-- end of results -->")
HEADER = (
    "environment",
    "label",
    "steps",
    "seeds",
    "greedy [95 %]",
    "sampled ± s.e.",
    "reached",
    "bar",
    "commit",
    "published",
)
# The rows of the table of a README, by environment and label: a task of each kind.
SELECTED = (
    ("CartPole-v1", "leave_one_out"),
    ("Acrobot-v1", "ppo"),
    ("MountainCar-v0", "ppo"),
    ("MemoryChain-bsuite", "recurrent_ppo"),
    ("FourRooms-misc", "ppo"),
)
SHORT_MARKS = ("<!-- short results -->", "<!-- end of short results -->")
SHORT_HEADER = """\
| environment | estimator | steps | return |
| --- | --- | --- | --- |"""
UNTUNED_MARKS = ("<!-- untuned -->", "<!-- end of untuned -->")
EARLIER = "earlier"  # instead of the commit, if none was recorded


def table(lines: Sequence[Result], *, published: bool = True) -> str:
    """A table in Markdown, aligned to be readable as text: a line per environment and label, the
    best ones first.

    Greedy mean over seeds with its 95 % bootstrap interval; sampled mean ± standard error; the most
    steps of a seed.
    """
    ranked = _ranked(lines)
    body = [_table_row(task, group) for task, group in ranked]
    for i in range(len(ranked) - 1, 0, -1):  # the published figures are listed once
        if ranked[i][0].name == ranked[i - 1][0].name:
            body[i] = (*body[i][:-1], "")
    return tables.markdown([row if published else row[:-1] for row in [HEADER, *body]])


def short_table(lines: Sequence[Result]) -> str:
    """The rows of a table that are `SELECTED`, in Markdown.

    Raises ValueError if the table lacks one of them.
    """
    groups = {(task.name, group[0].label): group for task, group in _ranked(lines)}
    rows = [SHORT_HEADER]
    for env, label in SELECTED:
        if (env, label) not in groups:
            raise ValueError(f"the table has no row {env} {label}, which the short one needs")
        group = groups[env, label]
        steps = numerals.short(max(line.env_steps for line in group), 3)
        score = _interval(np.array([line.greedy for line in group]))
        rows.append(f"| {env} | `{label}` | {steps} | {score} |")
    return "\n".join(rows)


def untuned_table(lines: Sequence[Result]) -> str:
    """A table in Markdown of labels side by side: a line per environment, with the greedy mean over
    seeds of each label ± its standard error, between a random policy and the best known
    return.
    """
    groups = {(task.name, group[0].label): (task, group) for task, group in _ranked(lines)}
    labels = list(dict.fromkeys(label for _, label in groups))
    by_name = [name for name in FACTS if name in labels]
    labels = by_name + [label for label in labels if label not in by_name]
    tasks = {name: task for (name, _), (task, _) in groups.items()}
    rows = [["environment", "random", *(f"`{label}`" for label in labels), "best known"]]
    for name, task in tasks.items():
        cells = ["—"] * len(labels)
        for i, label in enumerate(labels):
            if (name, label) in groups:
                cells[i] = _error(np.array([line.greedy for line in groups[name, label][1]]))
        best = "—" if task.best is None else numerals.fixed(task.best)
        rows.append([name, numerals.fixed(task.floor), *cells, best])
    return tables.markdown(rows)


def draw(lines: Sequence[Result], out: Path) -> list[Path]:
    """Draws learning curves and, with two or more environments, profiles and intervals. Returns the
    files.
    """
    drawn = []
    if panels := mean_curves(lines, out):
        drawn.append(out / "curves.png")
        best = {name: TASKS[name].best for name in panels if name in TASKS}
        plots.learning_curves(panels, drawn[-1], best=best)
    if drawn_profiles := draw_profiles(lines, out / "profiles.png"):
        names, scores = normalised(lines)
        intervals = {label: statistics.bootstrap_interval(s) for label, s in scores.items()}
        plots.intervals(
            intervals,
            out / "intervals.png",
            title=_scale(names),
            xlabel="interquartile mean of normalised scores",
        )
        drawn += [drawn_profiles, out / "intervals.png"]
    return drawn


def draw_profiles(lines: Sequence[Result], path: Path) -> Path | None:
    """Draws the share of runs above each score, of the labels that were run on most environments.

    Returns:
        The file; None with fewer than two environments to compare on.
    """
    names, scores = normalised(lines)
    if len(names) < 2:
        return None
    if len(scores) == 1:  # a single one has no comparison
        scores |= {"best row": _best_scores(lines, names)}
    thresholds = np.linspace(min(0.0, *(s.min() for s in scores.values())), 1.1, 200)
    profiles = {label: statistics.performance_profile(s, thresholds) for label, s in scores.items()}
    plots.performance_profiles(thresholds, profiles, path, title=_scale(names))
    return path


def _scale(names: Sequence[str]) -> str:
    """The title of a picture of normalised scores."""
    return (
        f"{numerals.counted(len(names), 'environment')}; score 0: random policy, 1: best published"
    )


def _best_scores(lines: Sequence[Result], names: Sequence[str]) -> np.ndarray:
    """Normalised greedy returns [N, M] of the best row of each environment; only as many seeds are
    used as every row has.
    """
    best: dict[str, np.ndarray] = {}
    for task, group in _ranked(lines):
        if task.name in names and task.name not in best and task.best is not None:
            scores = np.array([line.greedy for line in group])
            best[task.name] = statistics.normalise(scores, task.floor, task.best)
    fewest = min(map(len, best.values()))
    return np.stack([best[name][:fewest] for name in names], axis=1)


def normalised(lines: Sequence[Result]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Environments that the labels share, and each label's normalised greedy returns [N, M] on
    them.

    The labels are those that were run on more than half of the environments that have a scale; with
    fewer, too little would be in common. Only as many seeds are used as every row has; rows with
    less than half of the largest number are left out.
    """
    returns: dict[str, dict[str, np.ndarray]] = {}
    ranked = _ranked(lines)
    most = max((len(group) for _, group in ranked), default=0)
    for task, group in ranked:
        if 2 * len(group) < most:
            continue
        scores = np.array([line.greedy for line in group])
        if task.normalisable and task.best is not None and np.isfinite(scores).all():
            scaled = statistics.normalise(scores, task.floor, task.best)
            returns.setdefault(group[0].label, {})[task.name] = scaled
    covered = {name for names in returns.values() for name in names}
    broad = {label: names for label, names in returns.items() if 2 * len(names) > len(covered)}
    shared = [name for name in TASKS if broad and all(name in names for names in broad.values())]
    if not shared:
        return [], {}
    fewest = {label: min(len(names[name]) for name in shared) for label, names in broad.items()}
    return shared, {
        label: np.stack([names[name][: fewest[label]] for name in shared], axis=1)
        for label, names in broad.items()
    }


def mean_curves(lines: Sequence[Result], out: Path) -> dict[str, dict[str, Curve]]:
    """The mean learning curve of each environment and label with runs in `out`.

    A row without one is left out: if no episode ended in some seed, as a mean over the others would
    be biased upwards, and if seeds have no steps in common.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for task, group in _ranked(lines):
        label = group[0].label
        try:
            stored = learning.stored_metrics(out / task.name / label)
            if not stored:
                continue
            seed_curves = [curves.seed_curves(metrics) for metrics in stored]
            steps = [x for of_cell, _ in seed_curves for x in of_cell]
            returns = [y for _, of_cell in seed_curves for y in of_cell]
            mean = curves.mean_learning_curve(steps, returns)
        except ValueError as error:
            print(f"{task.name} {label}: no learning curve is drawn, as {error}")
            continue
        panels.setdefault(task.name, {})[label] = mean
    return panels


def _table_row(task: Task, group: Sequence[Result]) -> tuple[str, ...]:
    """A line of the report."""
    row = row_of(task.name, group[0].label)
    bar, steps = row.bar if row else None, max(line.env_steps for line in group)
    greedy, sampled = (
        np.array([getattr(line, name) for line in group]) for name in ("greedy", "sampled")
    )
    reached = goal = "—"
    if row and bar:
        scores = greedy if bar.actions == "greedy" else sampled
        above = int((scores >= bar.score).sum())
        reached = f"{above}/{len(scores)}"
        if len(group) < task.seeds:
            verdict = f"open (of {task.seeds} seeds)"
        elif steps > row.steps:
            verdict = "✗ (more steps)"
        else:
            verdict = "✓" if bar.is_reached(scores.tolist()) else "✗"
        goal = (
            f"{bar}{' (sampled)' * (bar.actions == 'sampled')}, {numerals.short(row.steps, 6)} "
            f"steps: {verdict}"
        )
    best = "none" if task.best is None else f"{numerals.fixed(task.best)}: {task.source}"
    label, seeds = f"`{group[0].label}`", str(len(group))
    return (
        task.name,
        label,
        f"{steps:,}",
        seeds,
        _interval(greedy),
        _error(sampled),
        reached,
        goal,
        ", ".join(dict.fromkeys(_short_commit(line.pg) or EARLIER for line in group)),
        best,
    )


def _short_commit(version: str) -> str:
    """Seven digits of a commit, with the + of changed files; other versions unchanged."""
    commit = re.fullmatch(r"([0-9a-f]{7})[0-9a-f]{3}(\+?)", version)
    return "".join(commit.groups()) if commit else version


def _interval(scores: np.ndarray) -> str:
    """Mean and interval of the scores [N] of one row."""
    if bad := int((~np.isfinite(scores)).sum()):
        return f"not a number in {bad} of {numerals.counted(len(scores), 'seed')}"
    mean = statistics.bootstrap_interval(scores, statistics.mean)
    value = numerals.fixed(mean.value)
    if np.isnan(mean.low):
        return f"{value} (no interval)"
    return (
        f"{value} [{numerals.fixed(mean.low, mean.value)}, {numerals.fixed(mean.high, mean.value)}]"
    )


def _error(scores: np.ndarray) -> str:
    """Mean ± standard error of the scores [N] of one row."""
    if not np.isfinite(scores).all():
        return "—"
    value = scores.mean()
    if len(scores) < 2:
        return f"{numerals.fixed(value)} ± —"
    error = statistics.standard_error(scores)
    return f"{numerals.fixed(value)} ± {numerals.fixed(error, value)}"


def _ranked(lines: Sequence[Result]) -> list[tuple[Task, list[Result]]]:
    """The lines of each environment and label; environments as in the suites, labels by their
    greedy mean.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for line in learning.in_order(lines):
        groups.setdefault((line.env, line.label), []).append(line)
    order = list(dict.fromkeys(env for env, _ in groups))

    def rank(item: tuple[tuple[str, str], list[Result]]) -> tuple[int, float]:
        score = float(np.mean([line.greedy for line in item[1]]))
        return order.index(item[0][0]), -score if np.isfinite(score) else np.inf

    unknown = Task("", (), 0.0, None, "none")
    return [
        (TASKS.get(env, unknown._replace(name=env)), g)
        for (env, _), g in sorted(groups.items(), key=rank)
    ]
