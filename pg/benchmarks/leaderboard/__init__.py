"""Estimators side by side: on the same policies, at several moments of their training, from the
same random numbers.

train a policy once, keep θ at the start, the middle and the end     (`subjects`)
→ fit critics to each with θ frozen → estimates by every estimator, and a reference   (`measuring`)
→ variance, signal to noise, cosine to the reference, cost of a good cosine, intervals   (`quality`)
"""

from pg.benchmarks.leaderboard.measuring import (
    Estimates,
    Reference,
    measure,
    reference,
)
from pg.benchmarks.leaderboard.quality import (
    LEVELS,
    Point,
    Quality,
    assess,
    budget,
    parts,
)
from pg.benchmarks.leaderboard.report import (
    MARKS,
    agreement,
    budgets,
    draw,
    draw_leaderboard,
    leaderboard,
    report,
    variance_table,
)
from pg.benchmarks.leaderboard.subjects import (
    STAGES,
    SUBJECTS,
    Stage,
    Subject,
    stages,
)
from pg.benchmarks.leaderboard.survey import (
    COMPARED,
    Survey,
    survey,
)

__all__ = [
    "COMPARED",
    "LEVELS",
    "MARKS",
    "STAGES",
    "SUBJECTS",
    "Estimates",
    "Point",
    "Quality",
    "Reference",
    "Stage",
    "Subject",
    "Survey",
    "agreement",
    "assess",
    "budget",
    "budgets",
    "draw",
    "draw_leaderboard",
    "leaderboard",
    "measure",
    "parts",
    "reference",
    "report",
    "stages",
    "survey",
    "variance_table",
]
