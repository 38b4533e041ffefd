"""Every estimator on every subject at every stage, kept as it comes: the same command goes on after
a stop.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pg.benchmarks.leaderboard.measuring import measure, reference
from pg.benchmarks.leaderboard.quality import Point, Quality, assess, write_csv
from pg.benchmarks.leaderboard.subjects import STAGES, SUBJECTS, Stage, blank, kinds, stages
from pg.estimators.facts import FACTS
from pg.reports import tables
from pg.runs import files, folders, parameters

# The estimators of complete episodes that aim at ∇J, and differ on the policy's own episodes.
COMPARED = tuple(
    name
    for name, facts in FACTS.items()
    if "episodes" in facts.collect and facts.unbiased_for != "J_τ" and not facts.same_on_policy
)

# The expected shape of stages.json, as of `inputs.misfit`.
STAGES_JSON: dict[str, Any] = {
    name: {"updates": int, "explained": {...: folders.NUMBER}} for name in STAGES
}


class Survey(NamedTuple):
    """The measurements: a line for each estimator, subject, stage and seed, and the points of its
    curve.
    """

    lines: list[Quality]
    points: list[Point]

    @classmethod
    def read(cls, folder: Path) -> "Survey":
        """The measurements in a folder; none of one that is not there. Raises ValueError where it
        holds something else.
        """
        paths = folder / "quality.csv", folder / "cosines.csv"
        if not all(path.exists() for path in paths):
            return cls([], [])
        return cls(tables.read_csv(paths[0], Quality), tables.read_csv(paths[1], Point))

    def write(self, folder: Path) -> None:
        """Writes quality.csv and cosines.csv."""
        write_csv(folder / "cosines.csv", self.points)
        write_csv(folder / "quality.csv", self.lines)

    def having(self, subjects: Iterable[str], estimators: Iterable[str], seed: int) -> "Survey":
        """The part of it with these subjects and estimators, and one seed."""
        wanted = {(s, e, seed) for s in subjects for e in estimators}

        def kept(x: Quality | Point) -> bool:
            return (x.subject, x.estimator, x.seed) in wanted

        return Survey([*filter(kept, self.lines)], [*filter(kept, self.points)])


def survey(
    subjects: Sequence[str],
    estimators: Sequence[str],
    out: Path,
    *,
    seed: int = 1,
    share: float = 1.0,
    num_episodes: int = 8,
) -> Survey:
    """Measures what `out` does not hold yet, and keeps it there line by line; prints a line for
    each.

    seed: of the estimates and of the reference; the policies are the same for all seeds. share: of
    each subject's number of estimates. Raises KeyboardInterrupt on Ctrl-C: what is measured is
    kept.
    """
    there, began, measured = Survey.read(out), time.monotonic(), 0
    todo = [(s, e) for s in subjects for e in estimators if _possible(s, e)]
    done = {(x.subject, x.estimator, x.stage) for x in there.lines if x.seed == seed}
    missing = {(s, e, stage) for s, e in todo for stage in STAGES} - done
    for subject in dict.fromkeys(s for s, _ in todo):
        if not any(one[0] == subject for one in missing):
            continue
        print(f"{subject}: training its policy, fitting critics ...", flush=True)
        for stage in kept_stages(subject, out):
            print(f"{subject} {stage.name}: reference ...", flush=True)
            truth = reference(subject, stage, seed + 1_000_000)
            for estimator in [e for e in estimators if (subject, e, stage.name) in missing]:
                found = measure(
                    subject, stage, estimator, seed, num_episodes=num_episodes, share=share
                )
                try:
                    line, curve = assess(subject, stage.name, estimator, seed, found, truth)
                except ValueError as error:
                    print(
                        f"{subject} {stage.name} {estimator}: not measured, as {error}", flush=True
                    )
                    continue
                there = Survey([*there.lines, line], [*there.points, *curve])
                there.write(out)
                measured += 1
                left = (time.monotonic() - began) / measured * (len(missing) - measured)
                said = f"variance {line.variance:.3g}, SNR {line.snr:.2g}, cosine {line.cosine:.2f}"
                print(
                    f"{subject} {stage.name} {estimator}: {said}, {left / 60:.0f} min left",
                    flush=True,
                )
    return there


def kept_stages(subject: str, out: Path) -> list[Stage]:
    """The stages of a subject, from the folder if they are there, else trained and written to
    it.
    """
    folder = out / "policies" / subject
    if not (folder / "stages.json").exists():
        found = stages(subject, seed=0)
        for stage in found:
            files.make_folder(folder / stage.name, within=out)
            tree = {"policy": stage.policy, "critics": stage.critics}
            parameters.write_params(folder / stage.name, tree, stage.normaliser)
        facts = {
            stage.name: {"updates": stage.updates, "explained": stage.explained} for stage in found
        }
        folders.write_json(folder / "stages.json", facts)
    facts, like = folders.read_json(folder / "stages.json", STAGES_JSON), blank(subject)

    def read(name: str) -> Stage:
        trees = {"policy": like.policy, "critics": like.critics}
        tree, normaliser = parameters.read_state(folder / name, trees, like.normaliser)
        updates, explained = facts[name]["updates"], facts[name]["explained"]
        return Stage(name, updates, tree["policy"], tree["critics"], explained, normaliser)

    return [read(name) for name in STAGES]


def _possible(subject: str, estimator: str) -> bool:
    """Tells whether an estimator can be had of a subject: Q is of discrete actions."""
    critics = kinds(SUBJECTS[subject].settings(subject)[0])
    return FACTS[estimator].critic in ("none", *critics)
