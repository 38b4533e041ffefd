"""Combinations of an estimator and settings of its episodes: names, and the search of them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pg.benchmarks import combinations, leaderboard
from pg.benchmarks.combinations import canonical_name, combination_of
from pg.benchmarks.leaderboard import Measurements, Quality, gradients, problems
from pg.benchmarks.leaderboard.report import time_table
from pg.benchmarks.leaderboard.search import SEED_OF_SEARCH
from pg.estimators.facts import FACTS
from pg.reports.statistics import Estimate


def test_a_name_says_the_estimator_and_its_settings() -> None:
    found = combination_of("vine_value:num_branches=2+branch_every=8+num_episodes=64")
    assert found.estimator == "vine_value"
    assert found.settings == {"num_branches": 2, "branch_every": 8, "num_episodes": 64}
    assert found.facts is FACTS["vine_value"]
    assert combination_of("state_value").settings == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("state_value:sampling=independent", "state_value"),
        (
            "state_value:num-episodes=64+sampling=sobol",
            "state_value:sampling=sobol+num_episodes=64",
        ),
        ("state_value:critic_observe=policy", "state_value"),
        (
            "state_value:sampling=sobol+critic_observe=policy_and_time",
            "state_value:critic_observe=policy_and_time+sampling=sobol",
        ),
        # on a problem of long episodes its preset's number is not that of "vine_value"
        ("vine_value:num_branches=4", "vine_value:num_branches=4"),
        ("vine_value:branch_every=1", "vine_value:branch_every=1"),
        ("all_action:action_critic=quadratic", "all_action"),
        ("q_prop:eta=adaptive", "q_prop:eta=adaptive"),  # and here
        ("sequence:baseline=mean", "sequence:baseline=mean"),  # switches, and no combination
        ("mine.py:estimator", "mine.py:estimator"),
    ],
)
def test_a_combination_has_one_name(text: str, name: str) -> None:
    assert canonical_name(text) == name
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("state_value:sampling=sobel", "sobol"),
        ("state_valu:sampling=sobol", "did you mean 'state_value'"),
        ("state_value:sampling", "write ESTIMATOR:FIELD=VALUE"),
        ("leave_one_out:sampling=sobol", "compares an episode with others"),
        ("state_value:num_branches=2", "num_branches=2 is the number of extra"),
        ("state_value:samplin=sobol", "sampling"),
        ("state_value:sampling=sobol+sampling=array", "twice"),
        ("state_value:sampling=sobol+array", "write ESTIMATOR:FIELD=VALUE"),
        ("vine_value:num_branches=0", "num_branches must be a whole number of at least 1, got '0'"),
        ("vine_value:num_branches=1e3", "num_branches must be a whole number"),
        ("state_value:num_episodes=3", "num_episodes must be even, got 3"),
        ("state_value:critic_observe=time", "valid: policy, policy_and_time"),
        ("leave_one_out:critic_observe=policy_and_time", "critic_observe is for estimators with a"),
    ],
)
def test_a_mistake_in_a_name_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        combinations.check("estimators", text)


def test_a_search_tries_unbiased_estimators_with_settings_that_have_an_effect() -> None:
    names = combinations.searched()
    assert len(names) == len(set(names)) > 20
    for name in names:
        assert canonical_name(name) == name
        found = combination_of(name)
        assert found.facts.unbiased_for == "J"
        assert found.facts.baseline != "batch" or "sampling" not in found.settings
        assert found.facts.extra_rollout_kind == "branches" or "num_branches" not in found.settings
    assert "state_value:sampling=array+num_episodes=64" in names
    assert "state_value:critic_observe=policy_and_time+sampling=array" in names
    assert "vine_all_action:num_branches=1+branch_every=4" in names
    assert set(combinations.BASES) <= {combination_of(name).estimator for name in names}


def test_settings_reach_the_rollout() -> None:
    """Those of the preset, then those of the problem for branches, then those of the name."""
    tabular, long = problems.PROBLEMS["garnet"], problems.PROBLEMS["CartPole-v1"]

    def settings(problem: problems.Problem, name: str) -> tuple[str, int, int, int]:
        config = gradients._config(problem, combination_of(canonical_name(name)), 8)
        return config.sampling, config.num_branches, config.branch_every, config.group_size

    assert settings(tabular, "vine_value") == ("independent", 4, 1, 1)
    assert settings(long, "vine_value") == ("independent", 1, 16, 1)
    assert settings(long, "vine_value:num_branches=2+sampling=sobol") == ("sobol", 2, 16, 1)
    assert settings(long, "vine_value:num_branches=4+branch_every=1") == ("independent", 4, 1, 1)
    assert settings(long, "state_value") == ("independent", 1, 1, 1)
    assert settings(tabular, "group_leave_one_out") == ("independent", 1, 1, 2)
    timed = combination_of("state_value:critic_observe=policy_and_time")
    assert gradients._config(long, timed, 8).critic_observe == ("policy_and_time",)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("leave_one_out", "none"),
        ("gae", "V"),
        ("all_action", "Q"),
        ("state_value:critic_observe=policy_and_time", "V with time"),
        ("trajectory_control_variate:critic_observe=policy_and_time", "Q with time"),
        ("all_action:action_critic=network", "Q network"),
        ("trajectory_control_variate:action_critic=sinusoids", "Q of sinusoids"),
        ("hindsight_credit", "h of states"),
        ("counterfactual_contributions", "h of rewards"),
    ],
)
def test_an_estimator_takes_the_critic_that_was_fitted_to_what_it_sees(
    name: str, kind: str
) -> None:
    assert gradients.critic_kind(combination_of(name)) == kind


def quality(estimator: str, steps: float, seed: int, snapshot: str = "middle") -> Quality:
    number = Estimate(steps, steps, steps)
    place = "garnet", snapshot, estimator, seed, 8
    return Quality(*place, 10.0, 1e-3, 1.0, number, number, number, number, number, 8)


def test_what_is_chosen_is_chosen_on_the_seed_of_the_search() -> None:
    names = ("state_value", "state_value:sampling=sobol", "state_value:sampling=array")
    rows = [
        quality(name, steps, seed, snapshot)
        for seed, cheapest in ((1, names[0]), (1 + SEED_OF_SEARCH, names[1]))
        for snapshot, best in (("middle", cheapest), ("end", names[2]))
        for name, steps in zip(names, [1.0 if name == best else 9.0 for name in names], strict=True)
    ]
    assert leaderboard.chosen(Measurements(rows, []), 1) == {"garnet": names[1]}
    assert leaderboard.chosen(Measurements(rows, []), 2) == {}


def test_the_gap_is_in_shares_of_state_value() -> None:
    combination = "state_value:sampling=sobol"
    rows = [
        quality(name, steps, 1)
        for name, steps in (
            ("state_value", 1000.0),
            ("leave_one_out", 500.0),
            ("reinforce", 2000.0),
            (combination, 250.0),
            ("gae", 100.0),
            ("actor_critic", float("inf")),
        )
    ]
    table = leaderboard.gap_table(rows, {"garnet": combination}, "middle")
    cells = [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]
    assert cells == [
        "garnet",
        "1k",
        "`leave_one_out` 500 (0.5)",
        f"`{combination}` 250 (0.25)",
        "`gae` 100 (0.1)",
    ]
    # beside the others where it was asked for by name, and then it may be the cheapest
    assert leaderboard.report(rows, {"garnet": combination}).count(combination) == 1
    report = leaderboard.report(rows, {"garnet": combination}, ["gae", combination])
    assert report.count(combination) == 4
    assert f"| 1k | `{combination}` 250 (0.25) | `{combination}` 250 (0.25) |" in (
        " ".join(report.split())
    )


def test_a_critic_that_sees_the_time_is_compared_with_one_that_does_not() -> None:
    timed = "state_value:critic_observe=policy_and_time"
    rows = [
        quality(name, 1.0, 1, snapshot)._replace(variance=Estimate(x, x, x))
        for name, snapshot, x in (
            ("state_value", "start", 10.0),
            (timed, "start", 1.0),
            ("gae", "start", 5.0),
            ("state_value", "middle", 4.0),
            (timed, "end", 3.0),
        )
    ]
    assert [line.strip("| ") for line in time_table(rows).splitlines()[2:]] == [
        "`state_value` | 0.1 · — · —"
    ]
    assert time_table(rows) in leaderboard.report(rows, timed=rows)
    assert time_table([x for x in rows if x.estimator != timed]) == ""


def test_where_state_value_does_not_get_there_there_is_no_share_of_it() -> None:
    rows = [
        quality(name, steps, 1) for name, steps in (("state_value", float("inf")), ("gae", 50.0))
    ]
    cells = leaderboard.gap_table(rows, {}, "middle").splitlines()[-1].strip("| ").split("|")
    assert cells[-1].strip() == "`gae` 50 (—)"


def test_a_search_measures_what_it_chose_on_the_seed_of_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With measurements that are made up: the first combination of each estimator is cheapest."""
    asked = []
    stored = Measurements([], [])

    def measure(names: list[str], estimators: list[str], out: Path, **given: Any) -> Measurements:
        asked.append((names, estimators, given["seed"], given["share"], given.get("snapshots")))
        order = {name: float(i + 1) for i, name in enumerate(reversed(estimators))}
        stored.qualities.extend(
            quality(name, steps, given["seed"])._replace(problem=problem)
            for problem in names
            for name, steps in order.items()
        )
        return stored

    monkeypatch.setattr(sys.modules["pg.benchmarks.leaderboard.search"], "measure", measure)
    found = leaderboard.search(["garnet", "gridworld"], tmp_path, seed=3, share=0.2)
    last = combinations.searched()[-1]
    assert found is stored
    assert asked[0][2:] == (3 + SEED_OF_SEARCH, 0.1, ("middle",))
    assert asked[1:] == [([name], [last], 3, 0.2, None) for name in ("garnet", "gridworld")]
    asked.clear()
    leaderboard.search(["garnet"], tmp_path, bases=("state_value",), seed=3)
    assert asked[0][1] == combinations.searched(("state_value",))
