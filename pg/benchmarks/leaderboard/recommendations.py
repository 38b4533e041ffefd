"""Recommendations: the cheapest estimator among those that a situation allows, by measurements."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pg import numerals
from pg.benchmarks.leaderboard.quality import Quality
from pg.estimators.facts import FACTS, Facts
from pg.reports import tables

Cost = Callable[[Quality], float]

# Problems by the noise of an episode that remains given the actions.
GROUPS: dict[str, tuple[str, ...]] = {
    "random transitions": ("gridworld", "garnet"),
    "only a random start": (
        "Catch-bsuite",
        "CartPole-v1",
        "Acrobot-v1",
        "Pendulum-v1",
        "Breakout-MinAtar",
    ),
}


class Situation(NamedTuple):
    """A user's situation: its name, the estimators that it allows, and those that no more
    restricted situation allows.
    """

    name: str
    allows: Callable[[Facts], bool]
    adds: Callable[[Facts], bool]


def _has(
    critics: Sequence[str], extra_rollouts: Sequence[str] = ("none",)
) -> Callable[[Facts], bool]:
    """True for facts with one of these critics, and one of these kinds of extra rollouts."""
    return lambda facts: facts.critic in critics and facts.extra_rollout_kind in extra_rollouts


def _unbiased(allows: Callable[[Facts], bool]) -> Callable[[Facts], bool]:
    return lambda facts: facts.unbiased_for == "J" and allows(facts)


def _biased(allows: Callable[[Facts], bool]) -> Callable[[Facts], bool]:
    return lambda facts: facts.unbiased_for != "J" and allows(facts)


_ANY_EXTRA_ROLLOUTS = ("none", "starts", "successors", "lookahead", "branches")
SITUATIONS = (
    Situation("unbiased, no critic", _unbiased(_has(["none"])), _has(["none"])),
    Situation("unbiased, a critic V", _unbiased(_has(["none", "V"])), _has(["V"])),
    Situation(
        "unbiased, a critic Q of the actions", _unbiased(_has(["none", "V", "Q"])), _has(["Q"])
    ),
    Situation(
        "the same, an environment that can be queried again",
        _unbiased(_has(["none", "V", "Q"], _ANY_EXTRA_ROLLOUTS)),
        _unbiased(lambda facts: facts.extra_rollout_kind != "none"),
    ),
    Situation("any bias, a critic V", _has(["none", "V"]), _biased(_has(["none", "V"]))),
    Situation(
        "any bias, a critic Q of the actions", _has(["none", "V", "Q"]), _biased(_has(["Q"]))
    ),
)


class Recommendation(NamedTuple):
    """The cheapest estimator of a situation."""

    estimator: str
    # median over problems and snapshots of the ratio of its steps to the fewest of any allowed
    cost: float


def recommended(
    qualities: Sequence[Quality], situation: Situation, problems: Sequence[str]
) -> Recommendation | None:
    """The estimator of the least median cost in environment steps to a cosine of 0.9, relative to
    the lowest of any allowed one; None if none of the estimators that this situation adds was
    measured, as its cheapest would be that of a more restricted one. The cost of an unmeasured
    estimator is infinite; if every interval reaches ∞, nothing is compared. Ties are in the order
    of the table of facts.

    Args:
        qualities: the measurements of one seed.
        situation: the allowed estimators.
        problems: names of the ones to use.
    """
    rows = [
        x
        for x in qualities
        if x.problem in problems and x.estimator in FACTS and situation.allows(FACTS[x.estimator])
    ]
    known = {(x.problem, x.snapshot) for x in rows if math.isfinite(x.steps_for_0_9.high)}
    rows = [x for x in rows if (x.problem, x.snapshot) in known]
    if not any(situation.adds(FACTS[x.estimator]) for x in rows):
        return None
    costs = relative_costs(rows, lambda x: x.steps_for_0_9.value)
    cells = max(map(len, costs.values()), default=0)
    missing = {name: [math.inf] * (cells - len(found)) for name, found in costs.items()}
    medians = {
        name: float(np.median([*costs[name], *missing[name]])) for name in FACTS if name in costs
    }
    if not medians:
        return None
    best = min(medians, key=lambda name: medians[name])
    return Recommendation(best, medians[best])


def recommendations_table(qualities: Sequence[Quality]) -> str:
    """A row per situation: the cheapest on all problems, and on those of each group.

    In brackets the median, over problems and snapshots, of the ratio of its steps to the fewest of
    any estimator that the situation allows: 1 is the cheapest everywhere.
    """
    every: Mapping[str, Sequence[str]] = {
        "all problems": list(dict.fromkeys(x.problem for x in qualities)),
        **GROUPS,
    }
    rows = []
    for situation in SITUATIONS:
        found = [recommended(qualities, situation, problems) for problems in every.values()]
        cells = [
            "—" if x is None else f"`{x.estimator}` ({numerals.number(x.cost, 3)})" for x in found
        ]
        rows.append((situation.name, *cells))
    return tables.markdown([("situation", *every), *rows])


def relative_costs(qualities: Sequence[Quality], cost: Cost) -> dict[str, list[float]]:
    """The costs of each estimator relative to the lowest, at every problem and snapshot with a
    finite one.
    """
    ratios: dict[str, list[float]] = {x.estimator: [] for x in qualities}
    for cell in resolved_cells(qualities):
        least = min(map(cost, cell))
        if math.isfinite(least):
            for x in cell:
                ratios[x.estimator].append(cost(x) / least)
    return {name: values for name, values in ratios.items() if values}


def resolved_cells(qualities: Sequence[Quality]) -> list[list[Quality]]:
    """The qualities of each problem and snapshot that has a reference."""
    places = dict.fromkeys((x.problem, x.snapshot) for x in qualities if is_resolved(x))
    return [[x for x in qualities if (x.problem, x.snapshot) == place] for place in places]


def is_resolved(x: Quality) -> bool:
    """True if there is a reference to compare with."""
    return not math.isnan(x.steps_for_0_9.value)
