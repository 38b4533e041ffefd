"""Every estimator on every problem at every snapshot, stored as it is measured: the same command
continues after an interruption.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pg.benchmarks.leaderboard.gradients import estimate_gradients, reference_gradient
from pg.benchmarks.leaderboard.problems import (
    PROBLEMS,
    SNAPSHOTS,
    Snapshot,
    critic_kinds,
    snapshot_shapes,
    train_snapshots,
)
from pg.benchmarks.leaderboard.quality import CurvePoint, Quality, assess
from pg.estimators.facts import FACTS
from pg.reports import tables
from pg.runs import files, folders, migrations, parameters

# The estimators of complete episodes that aim at ∇J, and differ on the policy's own episodes.
COMPARED = tuple(
    name
    for name, facts in FACTS.items()
    if "episodes" in facts.collect and facts.unbiased_for != "J_τ" and not facts.same_on_policy
)

# The expected shape of snapshots.json, as of `inputs.misfit`.
SNAPSHOTS_JSON: dict[str, Any] = {
    name: {"updates": int, "explained": {...: folders.NUMBER}} for name in SNAPSHOTS
}


class Measurements(NamedTuple):
    """The qualities of estimators by problem, snapshot and seed, and the points of their curves."""

    qualities: list[Quality]
    points: list[CurvePoint]

    @classmethod
    def read(cls, folder: Path) -> "Measurements":
        """The measurements in a folder; none where it has no tables.

        Raises ValueError where it holds something else.
        """
        paths = folder / "quality.csv", folder / "cosines.csv"
        if not all(path.exists() for path in paths):
            return cls([], [])
        qualities = tables.read_csv(paths[0], Quality, migrations.COLUMNS["quality.csv"])
        points = tables.read_csv(paths[1], CurvePoint, migrations.COLUMNS["cosines.csv"])
        measured = {(row.problem, row.snapshot, row.estimator, row.seed) for row in qualities}
        # of what was cut off between the two tables there are points alone, to be measured again
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

        def is_wanted(row: Quality | CurvePoint) -> bool:
            return (row.problem, row.estimator, row.seed) in wanted

        return Measurements(
            [row for row in self.qualities if is_wanted(row)],
            [row for row in self.points if is_wanted(row)],
        )


def measure(
    problems: Sequence[str],
    estimators: Sequence[str],
    out: Path,
    *,
    seed: int = 1,
    share: float = 1.0,
    num_episodes: int = 8,
) -> Measurements:
    """Measures what a folder does not hold yet, and stores and prints each quality as it comes.

    Args:
        problems: names, of PROBLEMS.
        estimators: names of the estimators.
        out: the folder.
        seed: of the estimates and of the reference; the policies are the same for all seeds.
        share: of each problem's number of estimates.
        num_episodes: of one estimate.

    Raises:
        KeyboardInterrupt: on Ctrl-C; what is measured is stored.
    """
    stored = Measurements.read(out)
    start, measured = time.monotonic(), 0
    pairs = [(p, e) for p in problems for e in estimators if _possible(p, e)]
    done = {(x.problem, x.estimator, x.snapshot) for x in stored.qualities if x.seed == seed}
    missing = {(p, e, snapshot) for p, e in pairs for snapshot in SNAPSHOTS} - done
    for problem in dict.fromkeys(problem for problem, _ in pairs):
        if not any(problem == other for other, _, _ in missing):
            continue
        print(f"{problem}: training its policy, fitting critics ...", flush=True)
        for snapshot in stored_snapshots(problem, out):
            place = f"{problem} {snapshot.name}"
            print(f"{place}: reference ...", flush=True)
            reference = reference_gradient(problem, snapshot, seed + 1_000_000)
            for estimator in estimators:
                if (problem, estimator, snapshot.name) not in missing:
                    continue
                estimates = estimate_gradients(
                    problem, snapshot, estimator, seed, num_episodes=num_episodes, share=share
                )
                try:
                    quality, curve = assess(
                        problem, snapshot.name, estimator, seed, estimates, reference
                    )
                except ValueError as error:
                    print(f"{place} {estimator}: not measured, as {error}", flush=True)
                    continue
                stored = Measurements([*stored.qualities, quality], [*stored.points, *curve])
                stored.write(out)
                measured += 1
                per_quality = (time.monotonic() - start) / measured
                minutes = per_quality * (len(missing) - measured) / 60
                print(
                    f"{place} {estimator}: {_summary(quality)}, {minutes:.0f} min left", flush=True
                )
    return stored


def stored_snapshots(problem: str, out: Path) -> list[Snapshot]:
    """The snapshots of a problem from a folder, trained and written to it if they are missing."""
    folder = out / "policies" / problem
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

    def read(name: str) -> Snapshot:
        trees = {"policy": shapes.policy, "critics": shapes.critics}
        tree, normaliser = parameters.read_state(folder / name, trees, shapes.normaliser)
        updates, explained = data[name]["updates"], data[name]["explained"]
        return Snapshot(name, updates, tree["policy"], tree["critics"], explained, normaliser)

    return [read(name) for name in SNAPSHOTS]


def _summary(quality: Quality) -> str:
    variance, snr, cosine = quality.variance.value, quality.snr.value, quality.cosine.value
    return f"variance {variance:.3g}, SNR {snr:.2g}, cosine {cosine:.2f}"


def _possible(problem: str, estimator: str) -> bool:
    """False for an estimator that sums over actions where these are continuous."""
    critics = critic_kinds(PROBLEMS[problem].settings(problem)[0])
    return FACTS[estimator].critic in ("none", *critics)
