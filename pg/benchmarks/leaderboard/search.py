"""The search over combinations: the cheapest for each problem, selected on other episodes than
those of the report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pg.benchmarks.combinations import BASES, searched
from pg.benchmarks.leaderboard.measurements import Measurements, measure
from pg.benchmarks.leaderboard.quality import Quality
from pg.settings.parts import row_name

SEED_OF_SEARCH = 500_000  # seed offset from the report's, far from those of other reports
SNAPSHOT = "middle"  # snapshot at which combinations are compared
SHARE = 0.5  # share of the report's number of estimates


def search(
    problems: Sequence[Any],
    out: Path,
    *,
    bases: Sequence[str] = BASES,
    seed: int = 1,
    share: float = 1.0,
    **given: Any,
) -> Measurements:
    """Measures what is missing of the search in a folder, and then the combination selected for
    each problem: the cheapest of all searched ones in the folder.

    Args:
        problems: names, of PROBLEMS, or custom environments, objects or `FILE.py:NAME`.
        out: the folder.
        bases: names of the estimators whose combinations are searched.
        seed: of the report; the search has another.
        share: of each problem's number of estimates, in the report.
        given: other arguments of `measure`.
    """
    found = measure(
        problems,
        searched(tuple(bases)),
        out,
        seed=seed + SEED_OF_SEARCH,
        share=SHARE * share,
        snapshots=(SNAPSHOT,),
        **given,
    )
    best = chosen(found, seed)
    for problem in problems:
        if name := best.get(row_name(problem)):
            found = measure([problem], [name], out, seed=seed, share=share, **given)
    return found


def chosen(measurements: Measurements, seed: int) -> dict[str, str]:
    """The cheapest combination for each problem in the search, in environment steps to a cosine of
    0.9; problems where none reaches it are left out.

    Args:
        measurements: those of a search among others.
        seed: of the report.
    """
    names = set(searched())
    cheapest: dict[str, Quality] = {}
    for row in measurements.qualities:
        is_of_search = row.seed == seed + SEED_OF_SEARCH and row.snapshot == SNAPSHOT
        if not is_of_search or row.estimator not in names:
            continue
        steps = row.steps_for_0_9.value
        best = cheapest.get(row.problem)
        if steps < (float("inf") if best is None else best.steps_for_0_9.value):
            cheapest[row.problem] = row
    return {problem: row.estimator for problem, row in cheapest.items()}
