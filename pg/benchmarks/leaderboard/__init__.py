"""The leaderboard of gradient quality: estimators side by side on the same policies, at several
snapshots of their training, from the same random numbers.

train a policy once, store θ at the start, the middle and the end     (`problems`)
→ fit critics to each frozen policy → estimates by every estimator, and a reference   (`gradients`)
→ variance, signal to noise, cosine to the reference, cost of a good cosine, intervals   (`quality`)
→ every problem, snapshot and estimator, in a folder   (`measurements`), custom ones too
    (`contenders`)
→ tables and figures   (`report`)
"""

from pg.benchmarks.leaderboard.contenders import changed_parts
from pg.benchmarks.leaderboard.gradients import (
    GradientEstimates,
    Reference,
    estimate_gradients,
    reference_gradient,
)
from pg.benchmarks.leaderboard.measurements import (
    COMPARED,
    Measurements,
    measure,
)
from pg.benchmarks.leaderboard.problems import (
    PROBLEMS,
    SNAPSHOTS,
    Problem,
    Snapshot,
    train_snapshots,
)
from pg.benchmarks.leaderboard.quality import (
    CurvePoint,
    Quality,
    Repetitions,
    assess,
    budget,
    per_repetition,
)
from pg.benchmarks.leaderboard.recommendations import recommendations_table, recommended
from pg.benchmarks.leaderboard.report import (
    MARKS,
    TIMED,
    agreement,
    gap_table,
    leaderboard_table,
    plot_leaderboard,
    plot_measurements,
    report,
    steps_table,
    variance_table,
)
from pg.benchmarks.leaderboard.search import chosen, search

__all__ = [
    "COMPARED",
    "MARKS",
    "PROBLEMS",
    "SNAPSHOTS",
    "TIMED",
    "CurvePoint",
    "GradientEstimates",
    "Measurements",
    "Problem",
    "Quality",
    "Reference",
    "Repetitions",
    "Snapshot",
    "agreement",
    "assess",
    "budget",
    "changed_parts",
    "chosen",
    "estimate_gradients",
    "gap_table",
    "leaderboard_table",
    "measure",
    "per_repetition",
    "plot_leaderboard",
    "plot_measurements",
    "recommendations_table",
    "recommended",
    "reference_gradient",
    "report",
    "search",
    "steps_table",
    "train_snapshots",
    "variance_table",
]
