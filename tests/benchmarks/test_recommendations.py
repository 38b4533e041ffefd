"""The cheapest estimator of a situation, from measurements."""

import math

from pg.benchmarks import leaderboard
from pg.benchmarks.leaderboard import Quality
from pg.benchmarks.leaderboard.recommendations import GROUPS, SITUATIONS
from pg.estimators.facts import FACTS
from pg.reports.statistics import Estimate

SNAPSHOTS = tuple(leaderboard.SNAPSHOTS)
OF_ALL = {situation.name: situation for situation in SITUATIONS}


def quality(estimator: str, steps: float, problem: str, snapshot: str) -> Quality:
    number = Estimate(steps, steps, steps)
    place = problem, snapshot, estimator, 1, 8
    return Quality(*place, 10.0, 1e-3, 1.0, number, number, number, number, number, 8)


def rows(steps: dict[str, list[float]], problem: str = "garnet") -> list[Quality]:
    """The same estimators at each snapshot of a problem."""
    return [
        quality(name, x, problem, snapshot)
        for name, values in steps.items()
        for snapshot, x in zip(SNAPSHOTS, values, strict=True)
    ]


def test_each_problem_is_in_one_group() -> None:
    assert sorted(p for group in GROUPS.values() for p in group) == sorted(leaderboard.PROBLEMS)


def test_a_situation_allows_what_it_says() -> None:
    of = {
        name: {estimator for estimator, facts in FACTS.items() if x.allows(facts)}
        for name, x in OF_ALL.items()
    }
    plain, with_v, with_q, again, biased_v, biased_q = of.values()
    assert plain < with_v < with_q < again
    assert with_v < biased_v < biased_q
    assert "state_value" in with_v - plain
    assert "trajectory_control_variate" in with_q - with_v
    assert "lookahead_control_variate" in again - with_q
    assert "gae" in biased_v - with_v
    assert "all_action" in biased_q - biased_v
    assert all(FACTS[name].unbiased_for == "J" for name in again)


def test_the_median_of_relative_costs_decides() -> None:
    """Not their mean, nor the absolute costs; and infinite ones count as such."""
    measured = rows(
        {
            "reinforce": [10.0, 100.0, 4000.0],
            "leave_one_out": [20.0, 50.0, 1000.0],
            "state_value": [5.0, 5.0, math.inf],
            "gae": [1.0, math.inf, math.inf],
        }
    )
    plain, with_v, *_, biased_v, _ = SITUATIONS
    assert leaderboard.recommended(measured, plain, ["garnet"]) == ("leave_one_out", 1.0)
    assert leaderboard.recommended(measured, with_v, ["garnet"]) == ("state_value", 1.0)
    found = leaderboard.recommended(measured, biased_v, ["garnet"])
    assert found == ("state_value", 5.0)
    assert leaderboard.recommended(measured, plain, ["CartPole-v1"]) is None


def test_what_is_not_known_to_get_there_decides_nothing() -> None:
    """Intervals that all reach infinity; and an estimator that was not measured everywhere."""
    lucky = quality("reinforce", 1.0, "CartPole-v1", "middle")
    lucky = lucky._replace(steps_for_0_9=Estimate(1.0, 1.0, math.inf))
    measured = [
        *rows({"leave_one_out": [1.0, 2.0, 2.0], "reinforce": [3.0, 3.0, 3.0]}),
        lucky,
        lucky._replace(estimator="leave_one_out", snapshot="end"),
        quality("reward_to_go", 0.5, "garnet", "start"),
    ]
    every = ["garnet", "CartPole-v1"]
    assert leaderboard.recommended(measured, SITUATIONS[0], every) == ("leave_one_out", 1.0)
    assert leaderboard.recommended([lucky], SITUATIONS[0], every) is None


def test_the_table_has_a_column_for_each_group() -> None:
    measured = [
        *rows({"leave_one_out": [2.0, 2.0, 2.0], "reinforce": [1.0, 1.0, 1.0]}, "garnet"),
        *rows({"leave_one_out": [1.0, 1.0, 1.0], "reinforce": [3.0, 3.0, 3.0]}, "CartPole-v1"),
    ]
    table = leaderboard.recommendations_table(measured)
    cells = [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]
    assert cells == [
        "unbiased, no critic",
        "`leave_one_out` (1.5)",
        "`reinforce` (1)",
        "`leave_one_out` (1)",
    ]
