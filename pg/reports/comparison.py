"""Runs compared with one another: final scores, the probability that one method improves on
another, environment steps to a return, learning curves and performance profiles.

A group is all runs of the same settings, whatever their seeds. Groups are compared if they share
the environment. They are named by the smallest set of settings that tells them apart, not by their
folders. A seed that diverged has no score: means are over the others, and in rankings it comes
last. Imports neither jax nor gymnax.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pg import numerals
from pg.reports import curves, plots, statistics, tables
from pg.reports.curves import Curve
from pg.reports.statistics import Estimate, Statistic
from pg.runs import files, results
from pg.runs.loading import ENV_PARAM, Runs

Actions = Literal["sampled", "greedy"]
STATISTICS: dict[str, Statistic] = {"iqm": statistics.iqm, "mean": statistics.mean}
NAMES = {"iqm": "IQM", "mean": "mean"}
# the largest number of groups in the picture of an environment, each in its own colour
MOST_DRAWN = len(plots.COLOURS)
# the largest number of methods whose results over all environments are reported in a sentence
MOST_REMARKS = 10
THRESHOLDS = 200  # points of a performance profile
UNEQUAL = 1.1  # ratio of environment steps from which a remark is made
# Settings that define the environment, besides its name.
_OF_ENV = ("env_class", "env_code", "horizon", "action_repeat")
# Entries that tell groups of the same settings apart, if nothing else does.
_SOURCE, _FOLDER = "from", "folder"


class Group(NamedTuple):
    """The runs of one setting, pooled over folders; each seed occurs once."""

    settings: dict[str, Any]  # see `loading.flat_settings`, and further entries that tell it apart
    runs: list[Runs]

    @property
    def env(self) -> str:
        """Name of the environment."""
        return str(self.settings["env"])

    @property
    def seeds(self) -> list[int]:
        """The seeds of all runs."""
        return [seed for runs in self.runs for seed in runs.seeds]

    def scores(self, actions: Actions) -> np.ndarray:
        """The mean return of each seed's final evaluation, [seeds]; NaN where it diverged."""
        return np.concatenate([runs.scores[actions] for runs in self.runs])

    def seed_curves(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Steps and returns of each seed, as in `curves.seed_curves`."""
        parts = [curves.seed_curves(runs.metrics) for runs in self.runs]
        steps = [seed for part, _ in parts for seed in part]
        returns = [seed for _, part in parts for seed in part]
        return steps, returns


class Row(NamedTuple):
    """The figures of a group."""

    env: str
    group: str
    seeds: int
    diverged: int  # seeds without a score
    iqm: Estimate  # of the scores of the others
    mean: Estimate
    # P(X > Y) + ½ P(X = Y) for a run X of the group and a run Y of the baseline; NaN for the
    # baseline itself, and if it was not run on this environment
    probability_of_improvement: Estimate
    # "paired": the share of pairs of one seed; "unpaired": all runs of one with all of the other
    comparison: str
    pairs: int  # number of paired seeds
    left_out: int  # seeds of either without a partner, which are left out of the pairs
    env_steps: float  # mean per seed
    reached: int  # seeds whose learning curve reached the threshold
    steps_to_threshold: Estimate  # median over seeds, infinite if not reached


class Comparison(NamedTuple):
    """Groups and their names."""

    groups: list[Group]
    names: list[str]  # the settings that tell the groups of an environment apart
    methods: list[tuple[str, ...]]  # the values of these for each group, as strings
    differing: list[str]  # other settings that differ between groups
    baseline: tuple[str, ...]  # a method
    actions: Actions

    @property
    def labels(self) -> list[str]:
        """The label of each group, the same for the same method on other environments."""
        return [self.label_of(method) for method in self.methods]

    def label_of(self, method: tuple[str, ...]) -> str:
        """The label of a method."""
        return label(dict(zip(self.names, method, strict=True)))

    @property
    def envs(self) -> list[str]:
        """The environments."""
        return list(dict.fromkeys(group.env for group in self.groups))

    def group_of(self, method: tuple[str, ...], env: str) -> Group | None:
        """The group of a method on an environment; None if there is none."""
        for group, other in zip(self.groups, self.methods, strict=True):
            if (group.env, other) == (env, method):
                return group
        return None

    def of_baseline(self, env: str) -> Group | None:
        """The baseline's group on an environment; None if there is none."""
        return self.group_of(self.baseline, env)


def compare(
    runs: Sequence[Runs], baseline: Sequence[Runs] = (), actions: Actions | None = None
) -> Comparison:
    """Pools runs into groups, names them and finds the baseline among them.

    Args:
        runs: finished ones, as in `loading.find`.
        baseline: runs of one method, among `runs` or further ones; (): the first of `runs`.
        actions: of the final evaluations; None: sampled if all runs have such an evaluation,
            else greedy.

    Raises:
        ValueError: there are no runs; their evaluations are not of the same kind; or the baseline
            is of several methods.
    """
    known = {one.name for one in runs}
    runs = [*(one for one in baseline if one.name not in known), *runs]
    if not runs:
        raise ValueError("there is no finished run to compare")
    groups = pooled(runs)
    names, differing = _naming(groups)
    texts = [numerals.labels([_value(group, name) for group in groups]) for name in names]
    methods = [tuple(map(numerals.typed, method)) for method in zip(*texts, strict=True)]
    wanted = {one.name for one in baseline or runs[:1]}
    chosen = [
        method
        for group, method in zip(groups, methods, strict=True)
        if wanted & {one.name for one in group.runs}
    ]
    found = Comparison(groups, names, methods, differing, chosen[0], _actions(runs, actions))
    if len(set(chosen)) > 1:
        some = " and ".join(map(found.label_of, list(dict.fromkeys(chosen))[:2]))
        raise ValueError(f"the baseline must be one method, but it has runs of {some}")
    return found


def pooled(runs: Iterable[Runs]) -> list[Group]:
    """Groups of runs with the same settings, in the order of their first runs.

    If the same settings occur with the same seeds again, there are several groups, which differ in
    `folder`: a seed is not counted twice. Configurations of a sweep are not pooled with other runs
    of their settings, as their seeds were used for selection.
    """
    groups: list[Group] = []
    by_settings: dict[Any, list[Group]] = {}
    for one in runs:
        settings = dict(one.settings)
        if one.configuration is not None:
            settings[_SOURCE] = "sweep"
        twins = by_settings.setdefault(tuple(sorted(settings.items())), [])
        for group in twins:
            if not set(one.seeds) & set(group.seeds):
                group.runs.append(one)
                break
        else:
            twins.append(Group(settings, [one]))
            groups.append(twins[-1])
    for twins in by_settings.values():
        if len(twins) > 1:
            _name_folders(twins)
    return groups


def _name_folders(twins: Sequence[Group]) -> None:
    """Makes groups of the same settings differ in the folder of their first runs."""
    above = os.path.commonpath([twin.runs[0].folder.absolute() for twin in twins])
    for twin in twins:
        twin.settings[_FOLDER] = os.path.relpath(twin.runs[0].folder, above)


def label(values: Mapping[str, str]) -> str:
    """Settings for a legend or a line: an estimator by its name, others as NAME=VALUE; empty values
    are left out.
    """
    texts = []
    for name, value in values.items():
        shown = name.removeprefix(ENV_PARAM)
        if value:
            texts.append(value if name == "estimator" else f"{shown}={value}")
    return ", ".join(texts)


def tabulate(comparison: Comparison, threshold: float | None = None) -> list[Row]:
    """The figures of every group.

    Args:
        comparison: the groups.
        threshold: a return for which the steps are counted until it is reached; None: not counted.
    """
    rows = []
    for group, name in zip(comparison.groups, comparison.labels, strict=True):
        scores = group.scores(comparison.actions)
        finite = scores[np.isfinite(scores)]
        better, pairs, left_out, kind = _unknown(), 0, 0, ""
        baseline = comparison.of_baseline(group.env)
        if baseline is not None and baseline is not group:
            better, pairs = improvement(group, baseline, comparison.actions)
            kind = "paired" if pairs else "unpaired"
            left_out = len(group.seeds) + len(baseline.seeds) - 2 * pairs if pairs else 0
        times = np.full(len(scores), np.inf)
        if threshold is not None:
            times = _times(group, threshold)
        steps = [runs.metrics["env_steps"].sum(axis=1, dtype=np.int64) for runs in group.runs]
        rows.append(
            Row(
                env=group.env,
                group=name,
                seeds=len(scores),
                diverged=len(scores) - len(finite),
                iqm=results.over_seeds(finite, statistics.iqm),
                mean=results.over_seeds(finite),
                probability_of_improvement=better,
                comparison=kind,
                pairs=pairs,
                left_out=left_out,
                env_steps=float(np.concatenate(steps).mean()),
                reached=int(np.isfinite(times).sum()),
                steps_to_threshold=_unknown()
                if threshold is None
                else statistics.median_time(times),
            )
        )
    return rows


def improvement(group: Group, baseline: Group, actions: Actions) -> tuple[Estimate, int]:
    """The probability that a run of a group has a higher score than one of the baseline.

    Runs are paired by their seed if the two groups have the same environment and all seeds of one
    are seeds of the other: equal seeds are common random numbers, whose effect cancels. A seed that
    diverged ranks below all others.

    Returns:
        The probability, and the number of pairs; 0: none were made.
    """
    x, y, paired = _sides(group, baseline, actions)
    better = statistics.probability_of_improvement(x, y, paired=paired)
    return better, len(x) if paired else 0


def overall_improvement(comparison: Comparison, method: tuple[str, ...]) -> Estimate:
    """The probability of improvement over the baseline, averaged over environments.

    Uses the first seeds, as many as every environment has (`_over_environments` remarks on others);
    paired if the runs of every environment are.

    Raises:
        ValueError: the method or the baseline was not run on all environments.
    """
    sides = _all_sides(comparison, method)
    paired = all(pairs for _, _, pairs in sides)
    x, y = _as_many([x for x, _, _ in sides]), _as_many([y for _, y, _ in sides])
    return statistics.probability_of_improvement(x, y, paired=paired)


def _all_sides(
    comparison: Comparison, method: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray, bool]]:
    """`_sides` of a method and the baseline on every environment; raises as in
    `overall_improvement`.
    """
    sides = []
    for env in comparison.envs:
        group, baseline = comparison.group_of(method, env), comparison.of_baseline(env)
        if group is None or baseline is None:
            raise ValueError(f"{comparison.label_of(method)} or the baseline was not run on {env}")
        sides.append(_sides(group, baseline, comparison.actions))
    return sides


def _as_many(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of as many seeds on every environment, the first: [N, M]."""
    fewest = min(map(len, scores))
    return np.stack([x[:fewest] for x in scores], axis=1)


def _sides(group: Group, baseline: Group, actions: Actions) -> tuple[np.ndarray, np.ndarray, bool]:
    """Scores of a group and of the baseline, and True where they are pairs of the same seeds."""
    x, y = group.scores(actions), baseline.scores(actions)
    x, y = _ranked(x, y)
    theirs = {seed: i for i, seed in enumerate(baseline.seeds)}
    shared = [(i, theirs[seed]) for i, seed in enumerate(group.seeds) if seed in theirs]
    all_shared = len(shared) == min(len(x), len(y))
    if not all_shared or _environment(group) != _environment(baseline):
        return x, y, False
    mine, others = np.transpose(shared)
    return x[mine], y[others], True


def write(
    comparison: Comparison, rows: Sequence[Row], folder: Path, threshold: float | None
) -> list[Path]:
    """Writes comparison.csv, with all settings that differ, and comparison.md. Returns the files.

    Args:
        comparison: the groups.
        rows: their figures, as in `tabulate`.
        folder: in which they are written; it is made.
        threshold: see `tabulate`.
    """
    files.make_folder(folder)
    settings = [*comparison.names, *comparison.differing]
    lines = []
    for group, row in zip(comparison.groups, rows, strict=True):
        values = [group.settings.get(name) for name in settings]
        lines.append([*tables.flat_row(row), *values])
    columns = [*tables.flat_columns(Row), *(f"settings.{name}" for name in settings)]
    paths = [folder / "comparison.csv", folder / "comparison.md"]
    tables.write_csv(paths[0], columns, lines)
    text = "\n\n".join(
        [
            tables.markdown(cells(comparison, rows, threshold, separate_envs=False)),
            "\n".join(f"- {remark}" for remark in remarks(comparison, rows, threshold)),
        ]
    )
    files.replace(paths[1], lambda file: file.write(f"{text}\n".encode()))
    return paths


def cells(
    comparison: Comparison,
    rows: Sequence[Row],
    threshold: float | None = None,
    *,
    separate_envs: bool = True,
    short: bool = False,
) -> list[list[str]]:
    """The table as texts, its head first.

    Args:
        comparison: the groups.
        rows: those of `tabulate`, or some of them.
        threshold: see `tabulate`.
        separate_envs: the environment is named elsewhere; else it is the first column.
        short: without the columns for which a narrow terminal has no room.
    """
    methods = dict(zip(comparison.labels, comparison.methods, strict=True))
    head = [name.removeprefix(ENV_PARAM) for name in comparison.names] + ["seeds"]
    head = head if separate_envs else ["env", *head]
    is_diverged = any(row.diverged for row in rows)
    compared = len(set(comparison.methods)) > 1
    head += ["diverged"] * is_diverged + ["IQM [95 %]"] + ["mean [95 %]"] * (not short)
    head += ["P(> baseline) [95 %]", "of"] * compared
    head += [f"steps to {numerals.number(threshold)}", "reached"] if threshold is not None else []
    lines = [head]
    for row in rows:
        method = methods[row.group]
        line = [] if separate_envs else [row.env]
        line += [*method, str(row.seeds)] + [str(row.diverged)] * is_diverged
        line += [_text(row.iqm)] + [_text(row.mean)] * (not short)
        if compared:
            line += _probability(comparison, row, method)
        if threshold is not None:
            line += [_steps(row.steps_to_threshold), f"{row.reached}/{row.seeds}"]
        lines.append(line)
    return lines


def remarks(
    comparison: Comparison, rows: Sequence[Row], threshold: float | None = None
) -> list[str]:
    """Remarks on how the figures were computed."""
    groups = comparison.groups
    folders = sum(len(group.runs) for group in groups)
    said = [f"scores: mean returns of the final evaluations, {comparison.actions} actions"]
    if folders > len(groups):
        said.append(f"runs that differ only in their seeds are pooled: {folders} in {len(groups)}")
    if len(set(comparison.methods)) > 1:
        baseline = comparison.label_of(comparison.baseline)
        said.append(f"baseline: {baseline}; P is the probability that a run has a higher score")
        lacking = [env for env in comparison.envs if comparison.of_baseline(env) is None]
        if lacking:
            said.append(f"the baseline was not run on {', '.join(lacking)}")
        kinds = {row.pairs > 0 for row in rows if np.isfinite(row.probability_of_improvement.value)}
        if True in kinds:
            said.append("pairs: runs of the same seed and environment, one of each group")
        if any(row.left_out for row in rows):
            said.append("left out: seeds of only one of the two groups, which have no pair")
        if False in kinds:
            said.append("N × K: not paired, as seeds or environments differ: all runs with all")
        said += _over_environments(comparison)
    if of_env := [name for name in comparison.names if _is_of_environment(name)]:
        said.append(
            f"runs that differ in {_listed(of_env)} were trained on different environments, whose "
            "scores may not be comparable"
        )
    if comparison.differing:
        said.append(f"the groups also differ in {_listed(comparison.differing)}")
    said += _unequal_steps(rows, threshold)
    if any(row.diverged for row in rows):
        said.append("seeds that diverged are left out of IQM and mean, and ranked last in P")
    if any(_SOURCE in group.settings for group in groups):
        said.append(
            "the best of a sweep is biased upwards: its score on fresh seeds is in SWEEP/best"
        )
    if threshold is not None:
        said.append(
            "steps: median over all seeds of the end of the first bin of the learning curve "
            f"that has this return on average, with {curves.POINTS} bins per run: narrower ones "
            "reach it earlier, by chance; a seed that did not reach it counts as later than all "
            "others, ∞"
        )
    if min(row.seeds for row in rows) < statistics.FEW_SEEDS:
        said.append(f"intervals of fewer than {statistics.FEW_SEEDS} seeds are too narrow")
    return said


def draw(
    comparison: Comparison,
    rows: Sequence[Row],
    path: Path,
    *,
    statistic: str = "iqm",
    threshold: float | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Draws learning curves, and performance profiles beside them, as PNG and SVG.

    Args:
        comparison: the groups.
        rows: their figures.
        path: of the picture.
        statistic: of the curves over seeds, a name of `STATISTICS`.
        threshold: a return that is drawn as a dashed line.
        say: called with a sentence on anything that is not drawn.
    """
    panels = {}
    for env in comparison.envs:
        drawn = _drawn(comparison, rows, env)
        there = sum(group.env == env for group in comparison.groups)
        title = env
        if len(drawn) < there:
            of_groups = f"{len(drawn)} of {numerals.counted(there, 'group')}"
            say(f"{env}: only the baseline and the best are drawn, {of_groups}")
            title = f"{env}, {of_groups}"
        lines: dict[str, Curve] = {}
        for name, group in drawn.items():
            try:
                lines[name] = curves.mean_learning_curve(
                    *group.seed_curves(), statistic=STATISTICS[statistic]
                )
            except ValueError as error:
                say(f"{env}, {name}: no learning curve is drawn, as {error}")
        tau, profiles = _profiles(drawn, comparison.actions)
        panels[title] = plots.Compared(lines, tau, profiles)
    name = f"{NAMES[statistic]} of returns"
    plots.comparison(panels, path, ylabel=name, threshold=threshold)


def _unequal_steps(rows: Sequence[Row], threshold: float | None) -> list[str]:
    """A sentence on each environment on which some groups were trained for longer than others, and
    another on the steps to a threshold in that environment.
    """
    said = []
    for env in dict.fromkeys(row.env for row in rows):
        steps = [row.env_steps for row in rows if row.env == env]
        if max(steps) > UNEQUAL * min(steps):
            low, high = numerals.short(min(steps)), numerals.short(max(steps))
            said.append(f"{env}: scores are after {low} to {high} environment steps per seed")
            if threshold is not None:
                said.append(
                    f"{env}: the steps to {numerals.number(threshold)} are not a fair comparison, "
                    f"as they are censored after {low} to {high}: a seed of a shorter run counts "
                    "as ∞ where a longer run would still have had time, and the bins of a longer "
                    "run are wider"
                )
    return said


def _over_environments(comparison: Comparison) -> list[str]:
    """A sentence on every method that was run on all of several environments, as the baseline."""
    said: list[str] = []
    num_envs = len(comparison.envs)
    for method in dict.fromkeys(comparison.methods):
        if num_envs == 1 or method == comparison.baseline or len(said) == MOST_REMARKS:
            continue
        try:
            better = overall_improvement(comparison, method)
        except ValueError:
            continue
        name, sides = comparison.label_of(method), _all_sides(comparison, method)
        text = f"{name}, over {num_envs} environments: P(> baseline) {_share(better)}"
        if not all(pairs for _, _, pairs in sides):
            text += ", unpaired"
        mine, others = {len(x) for x, _, _ in sides}, {len(y) for _, y, _ in sides}
        if len(mine) > 1 or len(others) > 1:
            text += (
                f", of the first {numerals.counted(min(mine), 'seed')} of it and {min(others)} of "
                "the baseline on each, the number that all have"
            )
        said.append(text)
    return said


def _drawn(comparison: Comparison, rows: Sequence[Row], env: str) -> dict[str, Group]:
    """The groups of an environment by their labels; only the baseline and the best if there are
    many.
    """
    here = [i for i, group in enumerate(comparison.groups) if group.env == env]
    if len(here) > MOST_DRAWN:
        baseline = [i for i in here if comparison.methods[i] == comparison.baseline]
        others = [i for i in here if i not in baseline]
        best = sorted(others, key=lambda i: -np.nan_to_num(rows[i].iqm.value, nan=-np.inf))
        here = sorted([*baseline, *best[: MOST_DRAWN - len(baseline)]])
    return {comparison.labels[i]: comparison.groups[i] for i in here}


def _profiles(
    groups: Mapping[str, Group], actions: Actions
) -> tuple[np.ndarray, dict[str, Estimate]]:
    """Returns from the lowest to the highest score, and the shares of seeds above them."""
    scores = {name: group.scores(actions) for name, group in groups.items()}
    every = np.concatenate(list(scores.values()))
    finite = every[np.isfinite(every)]
    if not len(finite):
        return np.array([]), {}
    margin = 0.05 * (finite.max() - finite.min()) or 0.5
    tau = np.linspace(finite.min() - margin, finite.max() + margin, THRESHOLDS)
    profiles = {}
    for name, of_seeds in scores.items():
        ranked = np.where(np.isfinite(of_seeds), of_seeds, tau[0])  # diverged: above nothing
        profiles[name] = statistics.performance_profile(ranked, tau)
    return tau, profiles


def _actions(runs: Sequence[Runs], asked: Actions | None) -> Actions:
    """The kind of final evaluation that all runs have."""
    kinds: tuple[Actions, ...] = (asked,) if asked else ("sampled", "greedy")
    lacking = {}
    for actions in kinds:
        without = [one for one in runs if actions not in one.scores]
        if not without:
            return actions
        lacking[actions] = without[0]
    said = " and ".join(f"{one.name} has none with {kind} actions" for kind, one in lacking.items())
    raise ValueError(
        f"final evaluations must be of one kind, as their scores are different quantities: {said}"
    )


def _naming(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """The fewest settings that tell the groups of every environment apart, found greedily, starting
    with the estimator, the settings of the environment and those that a sweep varied; and the other
    settings that differ between groups.
    """
    listed = dict.fromkeys(name for group in groups for name in group.settings)
    candidates = [name for name in listed if name not in ("env", _SOURCE, _FOLDER)]
    differing = [name for name in candidates if _num_values(groups, [name]) > 1]
    num_envs = _num_told_apart(groups, [])
    within = [name for name in differing if _num_told_apart(groups, [name]) > num_envs]
    varied = _varied(groups, within)
    names = [
        name for name in within if name == "estimator" or name in varied or _is_of_environment(name)
    ]
    for more in (within, [_SOURCE], [_FOLDER]):
        names = _lengthened(groups, names, more)
    names = names or ["estimator"]
    return names, [name for name in differing if name not in names]


def _varied(groups: Sequence[Group], names: Sequence[str]) -> set[str]:
    """Those of the settings in which configurations of one sweep differ."""
    sweeps: dict[Path, list[Group]] = {}
    for group in groups:
        if _SOURCE in group.settings:
            sweeps.setdefault(group.runs[0].folder, []).append(group)
    return {
        name
        for configurations in sweeps.values()
        for name in names
        if _num_values(configurations, [name]) > 1
    }


def _lengthened(groups: Sequence[Group], names: Sequence[str], more: Sequence[str]) -> list[str]:
    """The names, and of `more` one after the other that tells most groups apart, until all are."""
    names = list(names)
    left = [name for name in more if name not in names]
    while left and _num_told_apart(groups, names) < len(groups):
        told = [_num_told_apart(groups, [*names, name]) for name in left]
        if max(told) == _num_told_apart(groups, names):
            break
        names.append(left.pop(told.index(max(told))))
    return names


def _num_told_apart(groups: Sequence[Group], names: Sequence[str]) -> int:
    """The number of groups that these settings and the environment tell apart."""
    return _num_values(groups, ["env", *names])


def _num_values(groups: Sequence[Group], names: Sequence[str]) -> int:
    return len({tuple(group.settings.get(name) for name in names) for group in groups})


def _environment(group: Group) -> dict[str, Any]:
    """All settings of the environment."""
    return {
        name: value
        for name, value in group.settings.items()
        if name in ("env", "action_repeat") or _is_of_environment(name)
    }


def _is_of_environment(name: str) -> bool:
    """True for a setting that makes another environment of the same name; the policy may choose how
    long an action is held.
    """
    return name.startswith(ENV_PARAM) or (name in _OF_ENV and name != "action_repeat")


def _times(group: Group, threshold: float) -> np.ndarray:
    """Environment steps of each seed to the threshold, [seeds]; infinite if it was not reached."""
    parts = [
        curves.steps_to_threshold(*curves.seed_curves(runs.metrics), threshold)
        for runs in group.runs
    ]
    return np.concatenate(parts)


def _ranked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores with a number below all others for seeds that diverged."""
    every = np.concatenate([x, y])
    finite = every[np.isfinite(every)]
    lowest = finite.min() - 1.0 if len(finite) else 0.0
    return np.where(np.isfinite(x), x, lowest), np.where(np.isfinite(y), y, lowest)


def _unknown() -> Estimate:
    return Estimate(np.nan, np.nan, np.nan)


def _value(group: Group, name: str) -> Any:
    """The value of a setting for a label."""
    value = group.settings.get(name)
    if value is None:
        is_unset = name in (_SOURCE, _FOLDER) or name.startswith(ENV_PARAM)
        return "" if is_unset else "none"
    return value


def _listed(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence, the first few."""
    shown = [name.removeprefix(ENV_PARAM) for name in names[:most]]
    more = numerals.counted(len(names) - most, "other setting")
    return ", ".join(shown) + (f" and {more}" if len(names) > most else "")


def _text(estimate: Estimate) -> str:
    """A value with its interval, in as many digits as the seeds resolve."""
    if np.isnan(estimate.low):
        return numerals.typed(numerals.number(estimate.value, 3))
    return numerals.typed(numerals.interval(*estimate, digits=3))


def _probability(comparison: Comparison, row: Row, method: tuple[str, ...]) -> list[str]:
    """The probability of improvement, and its number of runs or pairs."""
    better = row.probability_of_improvement
    if method == comparison.baseline:
        return ["baseline", ""]
    if np.isnan(better.value):
        return ["—", ""]
    baseline = comparison.of_baseline(row.env)
    num = len(baseline.seeds) if baseline else 0
    if not row.pairs:
        return [_share(better), f"{row.seeds} × {num}, unpaired"]
    left_out = f", {row.left_out} left out" if row.left_out else ""
    return [_share(better), f"{numerals.counted(row.pairs, 'pair')}{left_out}"]


def _share(share: Estimate) -> str:
    """A probability with its interval."""
    if np.isnan(share.low):
        return f"{share.value:.2f}"
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _steps(times: Estimate) -> str:
    """Steps with their interval, in units."""
    value, low, high = (numerals.short(x, 3) for x in times)
    return value if np.isnan(times.low) else f"{value} [{low}, {high}]"
