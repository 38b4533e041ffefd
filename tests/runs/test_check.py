"""The check command: its exit codes, and its output for an estimator in a file."""

import json
from pathlib import Path

import pytest
from scripts import refused_without_jax

from pg.commands import check
from pg.diagnostics import Finding, Verdict, verdict
from pg.estimators import family
from pg.estimators.facts import UNSTATED

OWN = """
import pg


@pg.with_facts(unbiased_for="J", collect=("episodes",), baseline="batch")
def own_mean(policy, critic, h):
    def weigh(params, state, traj):
        total = pg.returns.total_return(traj.reward, h.gamma)
        return (total - total.mean())[None], (), state

    return pg.build_estimator(policy, None, h, weigh)


def in_a_list(policy, critic, h):
    return [pg.build_estimator(policy, None, h, lambda *_: (1.0, (), ()))]


def of_two(policy, critic): ...
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.slow
def test_a_claim_that_fails(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--beside", "batch_mean", "--episodes", "4000")
    assert check.main([f"{own}:own_mean", *few]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "own_mean claims to be unbiased for J, from episodes, with a baseline from the batch"
    )
    assert [line.split()[1] for line in lines if line.startswith("  FAILS")] == ["mean"]
    (failure,) = (line for line in lines if line.startswith("  FAILS"))
    assert "50 % on chain, 50 % on cancelling: it is 0.5 times that" in failure
    # It is batch_mean by another name.
    rows = {line.split()[0]: line.split()[1:] for line in lines if " · " in line}
    assert rows["own_mean"] == rows["batch_mean"]
    assert lines[-1].startswith("mean: fails, after ")


def test_one_object_of_json(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It states no facts, and the rule that it breaks fails nevertheless."""
    assert check.main([f"{own}:in_a_list", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    text = "estimator 'in_a_list' must make an Estimator(init, weigh, grad), got list"
    finding = {"name": "results", "text": text, "ok": False, "value": None, "bound": None}
    assert found == {
        "estimator": "in_a_list",
        "ok": False,
        "claims": {},
        "findings": [finding],
        "figures": {},
    }


def test_where_nothing_is_claimed_the_last_line_says_so(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words "nothing fails" would suggest that something held."""
    found = Verdict("own_mean", {}, UNSTATED, (Finding("structure", "as it should be"),), {})
    monkeypatch.setattr("pg.diagnostics.verdict", lambda *_, **__: found)
    assert check.main([f"{own}:own_mean"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("nothing is claimed, and no rule is broken, after ")


@pytest.mark.slow
def test_a_listed_one_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["state_value", "--gamma", "0.8", "--episodes", "4000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("nothing fails, after ")
    names = [line.split()[0] for line in lines if " · " in line]
    assert names[1:] == ["state_value", "reinforce", "reward_to_go", "leave_one_out", "gae"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gea"], "unknown estimator 'gea': did you mean 'gae'"),
        (["gae", "--beside", "ppoo"], "unknown beside 'ppoo': did you mean 'ppo'"),
        (["gae", "--gamma", "1.5"], "gamma must be above 0 and at most 1, got 1.5"),
        (["gae", "--episodes", "0"], "episodes must be a whole number of at least 1, got 0"),
        (["nowhere.py:f"], "there is no file nowhere.py"),
        (["q_prop"], "estimator 'q_prop' is for continuous actions alone"),
        (["gae", "--beside", "svg0"], "estimator 'svg0' is for continuous actions alone"),
        (["selected:leave_one_out+state_value"], "so give leave_one_out or state_value"),
        (["gae", "--beside", "selected:reinforce+batch_mean"], "so give reinforce or batch_mean"),
    ],
)
def test_a_mistake_is_said_before_jax_is_loaded(words: list[str], said: str) -> None:
    assert said in refused_without_jax("check.py", *words).stderr


def test_another_kind_of_function(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        check.main([f"{own}:of_two"])
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "estimator must be a function of policy, critic, hyperparams, got one that" in said


OF_FOUR = """
import pg


def of_four(policy, critic, h):
    def weigh(params, state, traj):
        if traj.reward.shape[1] < 4:
            raise ValueError("give four episodes")
        return pg.returns.total_return(traj.reward, h.gamma)[None], (), state

    return pg.build_estimator(policy, None, h, weigh)
"""


@pytest.mark.slow
def test_what_an_estimator_refuses_while_its_mean_is_summed_is_a_finding(tmp_path: Path) -> None:
    """The parts that are checked are shown as they begin."""
    path = tmp_path / "own.py"
    path.write_text(OF_FOUR)
    parts: list[str] = []
    found = verdict(family.find(f"{path}:of_four"), num_episodes=8, on_part=parts.append)
    assert [finding.name for finding in found.findings] == ["results"]
    assert "of_four' fails: ValueError: give four episodes" in found.finding("results").text
    assert not found.ok
    assert parts == ["its structure, 1 of 9", "its exact mean on random, 2 of 9"]
