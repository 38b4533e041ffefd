"""Every estimator on every problem at every snapshot, stored as it is measured: the same command
continues after an interruption.
"""

import itertools
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pg import numerals
from pg.benchmarks.combinations import Combination, combination_of
from pg.benchmarks.leaderboard import contenders
from pg.benchmarks.leaderboard.contenders import TRAINING_PARTS
from pg.benchmarks.leaderboard.gradients import (
    WHICH_CRITICS,
    amount,
    check_estimator,
    critic_kind,
    estimate_gradients,
    reference_gradient,
)
from pg.benchmarks.leaderboard.problems import (
    SNAPSHOTS,
    Problem,
    Snapshot,
    critic_kinds,
    kind_of_actions,
    problem_of,
    snapshot_shapes,
    train_snapshots,
)
from pg.benchmarks.leaderboard.quality import (
    LEAST_ESTIMATES,
    REPETITIONS,
    CurvePoint,
    Quality,
    assess,
    counted_episodes,
)
from pg.estimators.facts import FACTS
from pg.reports import tables
from pg.runs import files, folders, migrations, parameters

# The estimators of complete episodes that aim at ∇J, and differ on the policy's own episodes.
COMPARED = tuple(
    name
    for name, facts in FACTS.items()
    if "episodes" in facts.collect and facts.unbiased_for != "J_τ" and not facts.same_on_policy
)

# The expected shape of snapshots.json (see `inputs.misfit`).
SNAPSHOTS_JSON: dict[str, Any] = {
    name: {"updates": int, "explained": {...: folders.NUMBER}} for name in SNAPSHOTS
}
# That of software.json.
VERSIONS_JSON: list[Any] = [{"pg": str, "jax": str, "device": str}]


class Measurements(NamedTuple):
    """The qualities of estimators by problem, snapshot and seed, and the points of their curves."""

    qualities: list[Quality]
    points: list[CurvePoint]

    @classmethod
    def read(cls, folder: Path) -> "Measurements":
        """The measurements in a folder; none where it has no tables.

        Raises ValueError if it holds something else.
        """
        paths = folder / "quality.csv", folder / "cosines.csv"
        if not all(path.exists() for path in paths):
            return cls([], [])
        qualities = tables.read_csv(paths[0], Quality, migrations.COLUMNS["quality.csv"])
        points = tables.read_csv(paths[1], CurvePoint, migrations.COLUMNS["cosines.csv"])
        measured = {(row.problem, row.snapshot, row.estimator, row.seed) for row in qualities}
        # an interruption between the two tables leaves only points, which are measured again
        points = [p for p in points if (p.problem, p.snapshot, p.estimator, p.seed) in measured]
        return cls(qualities, points)

    def write(self, folder: Path) -> None:
        """Writes quality.csv and cosines.csv."""
        tables.write_rows(folder / "cosines.csv", CurvePoint, self.points, digits=4)
        tables.write_rows(folder / "quality.csv", Quality, self.qualities, digits=4)

    def select(
        self, problems: Iterable[str], estimators: Iterable[str], seed: int
    ) -> "Measurements":
        """The measurements of these problems and estimators, and of one seed.

        Args:
            problems: names.
            estimators: names.
            seed: of the estimates.
        """
        wanted = {(problem, estimator, seed) for problem in problems for estimator in estimators}

        return self.where(lambda row: (row.problem, row.estimator, row.seed) in wanted)

    def where(self, is_wanted: Callable[[Quality | CurvePoint], bool]) -> "Measurements":
        """The measurements of which this holds."""
        return Measurements(
            [row for row in self.qualities if is_wanted(row)],
            [row for row in self.points if is_wanted(row)],
        )


def measure(
    problems: Sequence[Any],
    estimators: Sequence[Any],
    out: Path,
    *,
    seed: int = 1,
    share: float = 1.0,
    num_episodes: int = 8,
    snapshots: Sequence[str] = tuple(SNAPSHOTS),
    allow_changed_code: bool = False,
    **parts: Any,
) -> Measurements:
    """Measures what is missing in a folder, and stores and prints each quality as it comes;
    software.json records the versions of the packages.

    Args:
        problems: names, of PROBLEMS, or custom environments, objects or `FILE.py:NAME`.
        estimators: names, also of combinations, or custom estimators, functions or
            `FILE.py:NAME`.
        out: the folder.
        seed: of the estimates and of the reference; the policies are the same for all seeds.
        share: of each problem's number of estimates.
        num_episodes: of one estimate.
        snapshots: names, of SNAPSHOTS.
        allow_changed_code: results of a file that has changed since are measured again.
        parts: custom `policy`, `critic` and `optimizer`, with which the policies of all
            problems are trained.

    Raises:
        ValueError: there is no such part, it is of another kind, or the folder holds results of
            other code.
        KeyboardInterrupt: on Ctrl-C; finished measurements are stored.
    """
    entered = contenders.enter(
        problems, estimators, out, parts, allow_changed_code=allow_changed_code
    )
    stored = _unchanged(Measurements.read(out), entered.changed)
    pairs = _pairs(entered)
    done = {(x.problem, x.estimator, x.snapshot) for x in stored.qualities if x.seed == seed}
    missing = {(p.name, e, snapshot) for p, e in pairs for snapshot in snapshots} - done
    unmeasured = {(name, estimator) for name, estimator, _ in missing}
    has_none = not done & {(p.name, e, snapshot) for p, e in pairs for snapshot in snapshots}
    few = _with_few_estimates(entered, unmeasured, num_episodes, share, has_none=has_none)
    missing = {(name, e, snapshot) for name, e, snapshot in missing if (name, e) not in few}
    for problem, name in pairs:
        estimator = entered.estimators[name]
        is_missing = any((problem.name, name, snapshot) in missing for snapshot in snapshots)
        if is_missing and not isinstance(estimator, str):
            check_estimator(problem, estimator, num_episodes=num_episodes, share=share)
    if entered.changed:
        _clear(out, stored, entered.changed)
    asked = {(p.name, e, snapshot) for p, e in pairs for snapshot in snapshots}
    of_seed = [x for x in stored.qualities if x.seed == seed]
    kept = [x for x in of_seed if (x.problem, x.estimator, x.snapshot) in asked]
    _tell_of_other_numbers(kept, entered, out, num_episodes, share)
    contenders.record(out, entered.own)
    if missing:
        _record_versions(out)
    start, measured = time.monotonic(), 0
    for problem in entered.problems.values():
        wanted = {snapshot for name, _, snapshot in missing if name == problem.name}
        if not wanted:
            continue
        print(f"{problem.name}: training its policy, fitting critics ...", flush=True)
        taken = [x for x in stored_snapshots(problem, out) if x.name in wanted]
        references = {}
        for snapshot in taken:
            print(f"{problem.name} {snapshot.name}: reference ...", flush=True)
            references[snapshot.name] = reference_gradient(problem, snapshot, seed + 1_000_000)
        # The snapshots of one estimator after another, which share its compiled program.
        for (name, estimator), snapshot in itertools.product(entered.estimators.items(), taken):
            if (problem.name, name, snapshot.name) not in missing:
                continue
            place = f"{problem.name} {snapshot.name} {name}"
            try:
                estimates = estimate_gradients(
                    problem, snapshot, estimator, seed, num_episodes=num_episodes, share=share
                )
                where = (problem.name, snapshot.name, estimator, seed)
                quality, curve = assess(*where, estimates, references[snapshot.name])
            except ValueError as error:
                print(f"{place}: not measured, as {error}", flush=True)
                continue
            stored = Measurements([*stored.qualities, quality], [*stored.points, *curve])
            stored.write(out)
            measured += 1
            per_quality = (time.monotonic() - start) / measured
            minutes = per_quality * (len(missing) - measured) / 60
            print(f"{place}: {_summary(quality)}, {minutes:.0f} min left", flush=True)
    return stored


def _with_few_estimates(
    entered: contenders.Contenders,
    unmeasured: Collection[tuple[str, str]],
    num_episodes: int,
    share: float,
    *,
    has_none: bool,
) -> set[tuple[str, str]]:
    """The problems and estimators with fewer estimates than the intervals need, which are printed.

    Args:
        entered: the contenders.
        unmeasured: the names of the problems and estimators that are missing in the folder.
        num_episodes: of one estimate.
        share: of each problem's number of estimates.
        has_none: the folder has no measurement of any contender yet.

    Raises:
        ValueError: nothing could be measured, and nothing has been.
    """
    few: dict[tuple[str, str], int] = {}
    for problem, name in unmeasured:
        combination = combination_of(entered.estimators[name])
        _, at_once, calls = amount(entered.problems[problem], combination, num_episodes, share)
        if at_once * calls < LEAST_ESTIMATES:
            few[problem, name] = at_once * calls
    need = f"and {REPETITIONS} repetitions need at least {LEAST_ESTIMATES}"
    if few and has_none and len(few) == len(unmeasured):
        (problem, name), number = min(few.items())
        raise ValueError(
            f"share must be larger: {share:g} gives {numerals.counted(number, 'estimate')} of "
            f"{name} on {problem}, {need}"
        )
    for (problem, name), number in sorted(few.items()):
        given = numerals.counted(number, "estimate")
        print(f"{problem}: {name}: not measured, as share {share:g} gives {given}, {need}")
    return set(few)


def _tell_of_other_numbers(
    kept: Sequence[Quality],
    entered: contenders.Contenders,
    out: Path,
    num_episodes: int,
    share: float,
) -> None:
    """Prints which existing rows were made with another number of estimates or episodes.

    Args:
        kept: The requested rows that a folder already has.
        entered: The contenders.
        out: The folder.
        num_episodes: The requested number, of one estimate.
        share: The requested share of each problem's number of estimates.
    """
    others: dict[str, list[str]] = {}
    for row in kept:
        combination = combination_of(entered.estimators[row.estimator])
        each, at_once, calls = amount(
            entered.problems[row.problem], combination, num_episodes, share
        )
        asked = each, counted_episodes(each, at_once * calls)
        if (row.num_episodes, row.counted_episodes) != asked:
            others.setdefault(f"{row.problem} {row.snapshot}", []).append(row.estimator)
    for place, names in others.items():
        print(
            f"note: {place}: {', '.join(names)}: {out} holds rows with another number of estimates "
            f"or episodes than share {share:g} and num_episodes {num_episodes} give, and they "
            "stay: measure into another folder, --out",
            flush=True,
        )


def _record_versions(out: Path) -> None:
    """Adds the current versions and device to software.json, with a note if the folder holds rows
    of others.
    """
    environment = folders.environment()
    here = {
        name: environment[name] for name in (*folders.PACKAGES, "device") if name in environment
    }
    recorded = read_versions(out)
    if here in recorded:
        return
    if recorded:
        changes = "; ".join(folders.differing(recorded[-1], here))
        print(f"note: {out} holds rows of other versions: {changes}", flush=True)
    files.make_folder(out)
    folders.write_json(out / "software.json", [*recorded, here])


def read_versions(folder: Path) -> list[dict[str, str]]:
    """The versions and devices with which a folder's rows were measured, in order; [] for an old
    folder.
    """
    path = folder / "software.json"
    if not path.exists():
        return []
    recorded: list[dict[str, str]] = folders.read_json(path, VERSIONS_JSON)
    return recorded


def _pairs(entered: contenders.Contenders) -> list[tuple[Problem, str]]:
    """The problems, each with the names of the estimators that can be measured on it. Prints for
    each problem those that cannot, with the reason.

    Raises ValueError if a custom part does not fit a problem, and where there are none.
    """
    pairs, left_out = [], []
    needs = {name: combination_of(x) for name, x in entered.estimators.items()}
    for problem in entered.problems.values():
        if any(field != "estimator" for field, _ in entered.own):
            snapshot_shapes(problem)
        reasons: dict[str, list[str]] = {}
        for name, combination in needs.items():
            reason = _obstacle(problem, combination)
            if reason:
                reasons.setdefault(reason, []).append(name)
            else:
                pairs.append((problem, name))
        left_out += [
            f"{problem.name}: {', '.join(names)}: not measured, as {reason}"
            for reason, names in reasons.items()
        ]
    if not pairs:
        raise ValueError("nothing can be measured. " + "; ".join(left_out))
    for sentence in left_out:
        print(sentence, flush=True)
    return pairs


def _obstacle(problem: Problem, combination: Combination) -> str:
    """The reason why an estimator cannot be measured on a problem; "" if it can."""
    config = problem.settings()[0]
    kind, actions = critic_kind(combination), kind_of_actions(config)
    if not combination.facts.takes(actions):
        taken = " or ".join(combination.facts.actions)
        return f"its actions are {actions}, and the estimator is for {taken} ones"
    if kind != "none" and kind not in critic_kinds(config):
        return f"there is no critic {kind}: {WHICH_CRITICS}"
    return ""


def _unchanged(stored: Measurements, changed: Sequence[contenders.Part]) -> Measurements:
    """The measurements without those of code that has changed. changed: fields and names."""
    estimators = {name for field, name in changed if field == "estimator"}
    problems = {name for field, name in changed if field == "problem"}
    if any(field in TRAINING_PARTS for field, _ in changed):  # with which all policies are trained
        return Measurements([], [])
    return stored.where(lambda row: row.estimator not in estimators and row.problem not in problems)


def _clear(out: Path, kept: Measurements, changed: Sequence[contenders.Part]) -> None:
    """Removes a folder's results of code that has changed: rows, and policies.

    Args:
        out: the folder.
        kept: the measurements that stay.
        changed: fields and names of the parts.
    """
    for field, name in changed:
        print(
            f"the code of {field} {name!r} has changed: its results are measured again", flush=True
        )
    kept.write(out)
    for path in (out / "policies").glob("*/snapshots.json"):
        names = [name for field, name in changed if field == "problem"]
        of_problem = path.parent in [_policy_folder(out, name) for name in names]
        if of_problem or any(field in TRAINING_PARTS for field, _ in changed):
            path.unlink()


def _policy_folder(out: Path, problem: str) -> Path:
    """The folder of a problem's policies."""
    return out / "policies" / re.sub(r"[^\w.-]", "-", problem)


def stored_snapshots(problem: str | Problem, out: Path) -> list[Snapshot]:
    """The snapshots of a problem from a folder, trained and written to it if they are missing.

    Raises ValueError if the folder holds policies without all critics.
    """
    problem = problem_of(problem)
    folder = _policy_folder(out, problem.name)
    path = migrations.existing(folder / "snapshots.json")
    if not path.exists():
        snapshots = train_snapshots(problem, seed=0)
        for snapshot in snapshots:
            files.make_folder(folder / snapshot.name, within=out)
            tree = {"policy": snapshot.policy, "critics": snapshot.critics}
            parameters.write_params(folder / snapshot.name, tree, snapshot.normaliser)
        data = {x.name: {"updates": x.updates, "explained": x.explained} for x in snapshots}
        folders.write_json(path, data)
    data, shapes = folders.read_json(path, SNAPSHOTS_JSON), snapshot_shapes(problem)
    _check_critics(folder, data, problem)

    def read(name: str) -> Snapshot:
        trees = {"policy": shapes.policy, "critics": shapes.critics}
        tree, normaliser = parameters.read_state(folder / name, trees, shapes.normaliser)
        # older files store a number as [1]
        tree = jax.tree.map(lambda leaf, like: leaf.reshape(like.shape), tree, trees)
        updates, explained = data[name]["updates"], data[name]["explained"]
        return Snapshot(name, updates, tree["policy"], tree["critics"], explained, normaliser)

    return [read(name) for name in SNAPSHOTS]


def _check_critics(folder: Path, data: Any, problem: Problem) -> None:
    """Raises ValueError if critics are missing beside stored policies, as in folders from before
    some saw the time. Policies that are trained again may differ by rounding from those of the
    rows.
    """
    kinds = critic_kinds(problem.settings()[0])
    missing = [x for x in kinds if any(x not in entry["explained"] for entry in data.values())]
    if missing:
        raise ValueError(
            f"{folder} holds policies of an earlier version, without the critics "
            f"{', '.join(missing)}: measure into another folder, --out"
        )


def _summary(quality: Quality) -> str:
    variance, snr, cosine = quality.variance.value, quality.snr.value, quality.cosine.value
    return f"variance {variance:.3g}, SNR {snr:.2g}, cosine {cosine:.2f}"
