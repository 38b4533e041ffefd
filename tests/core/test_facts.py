"""The table of facts about estimators: a new estimator needs only its row, and no fact depends on
docstrings.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pg.estimators.facts import FACTS, ON_TABLES, estimators_with
from pg.reports import plots

ROOT = Path(__file__).parents[2]

FUNCTION = '''

def half_return(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Half the return as the weight of every score."""

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        return 0.5 * returns.total_return(traj.reward, h.gamma)[None], (), state

    return build_estimator(policy, None, h, weigh)
'''
ROW = """

FACTS["half_return"] = Facts(
    module="episodic",
    psi="R / 2",
    source="nobody, 1234.56789",
    unbiased_for="no",
    why="its mean is ∇J / 2",
    variance="a quarter of that of reinforce",
    baseline="batch",
    shrunk=True,
    settings={"num_updates": 7},
)
"""
# What a program that starts afterwards knows of it.
PROGRAM = """
import contextlib, io, json, runpy, sys
import jax
import pg
from pg.benchmarks import leaderboard, suites
from pg.commands import cli, job
from pg.reports import plots

def printed(call):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        with contextlib.suppress(SystemExit):
            call()
    return text.getvalue()

def refused(**fields):
    try:
        pg.Config(estimator="half_return", **fields)
    except ValueError as error:
        return str(error)

def table():
    sys.argv = ["estimator_table.py", "--estimators", "half_return"]
    runpy.run_path("experiments/estimator_table.py", run_name="__main__")

config, h = pg.preset("half_return", num_envs=2)
policy = pg.make_policy(config, pg.make_env("CartPole-v1", 2))
shapes = jax.eval_shape(pg.make_train(config, h), jax.random.key(0))
print(json.dumps({
    "help": printed(lambda: cli.parse("train.py", "", job.Options, ["--help"])),
    "hint": printed(lambda: cli.parse("train.py", "", job.Options, ["--estimator", "half_retrn"])),
    "chosen": cli.parse("train.py", "", job.Options, ["--estimator", "half_return"])[0].num_updates,
    "windows": refused(collect="windows"),
    "alone": refused(num_envs=1),
    "steps": refused(num_epochs=2),
    "updates": shapes[1]["return"].shape,
    "accepts": pg.ESTIMATORS["half_return"](policy, None, h).accepts,
    "compared": leaderboard.COMPARED,
    "benchmark": [row.label for row in suites.TASKS["Catch-bsuite"].rows],
    "look": plots.LOOKS["half_return"],
    "looks": len(set(plots.LOOKS.values())),
    "table": printed(table),
}))
"""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A copy of the package with one function and one row more, and what its programs say."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("pg", "experiments"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results")
        )
    estimators = folder / "pg" / "estimators"
    for file, text in (("episodic.py", FUNCTION), ("facts.py", ROW)):
        with (estimators / file).open("a", encoding="utf-8") as out:
            out.write(text)
    done = subprocess.run(
        [sys.executable, "-OO", "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_one_row_is_on_the_command_line(known: dict[str, Any]) -> None:
    words = " ".join(known["help"].split())
    assert f"One of {', '.join(FACTS)}, half_return," in words
    assert "did you mean 'half_return'" in " ".join(known["hint"].split())
    assert known["chosen"] == 7


def test_one_row_is_checked_preset_and_trained(known: dict[str, Any]) -> None:
    assert "estimator='half_return' sums the reward to the end" in known["windows"]
    assert "num_envs must be at least 2 for estimator='half_return'" in known["alone"]
    assert "estimator='half_return' is on-policy" in known["steps"]
    assert known["updates"] == [7]
    assert known["accepts"] == ["episodes"]


def test_one_row_is_in_the_benchmarks_and_figures(known: dict[str, Any]) -> None:
    assert known["compared"][-1] == "half_return"
    assert "half_return" in known["benchmark"]
    assert tuple(known["look"]) not in plots.LOOKS.values()
    assert known["looks"] == len(FACTS) + 1


def test_one_row_is_in_the_table_of_exact_figures(known: dict[str, Any]) -> None:
    """With the bias that half the gradient has."""
    cells = known["table"].splitlines()[-1].strip("| ").split(" | ")
    link = "[1234.56789](https://arxiv.org/abs/1234.56789)"
    assert cells[:4] == ["`half_return`", "R / 2", f"nobody, {link}", "nothing: its mean is ∇J / 2"]
    assert cells[4:6] == ["0.5 · 0.5 · 0.5", "0.25 · 0.25 · 0.25"]


def test_the_table_needs_no_jax() -> None:
    program = "import sys, pg.estimators.facts; assert 'jax' not in sys.modules; print('ok')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stderr


def test_help_is_the_same_without_docstrings() -> None:
    """`python -OO` strips them."""
    command = [ROOT / "experiments" / "train.py", "--help"]
    with_them, without = (
        subprocess.run([sys.executable, *flags, *command], capture_output=True, text=True).stdout
        for flags in ([], ["-OO"])
    )
    assert "Train a policy by policy gradient" in without
    assert without == with_them


def test_facts_agree_with_one_another() -> None:
    for name, facts in FACTS.items():
        assert not facts.off_policy or facts.psi_depends_on_policy, name
        by_ratio = facts.several_steps and not facts.regression
        assert not by_ratio or facts.psi_depends_on_policy, name
        assert not facts.regression or facts.several_steps, name
        assert facts.baseline != "critic" or facts.critic != "none", name
        assert facts.same_on_policy in ("", *FACTS), name
    of_actions = ("optimal_state_baseline", "all_action", "action_dependent_baseline")
    of_actions += ("trajectory_control_variate", "pooled_trajectory_control_variate")
    of_actions += ("gradient_control_variate", "doubly_robust")
    of_actions += ("q_prop", "stein_control_variate", "svg0", "deterministic_policy_gradient")
    assert estimators_with(critic="Q") == of_actions
    assert estimators_with(actions=("continuous",)) == of_actions[-4:]
    assert [name for name in FACTS if name not in ON_TABLES] == [*of_actions[-4:]]
    by_hindsight = ("hindsight_credit", "counterfactual_contributions")
    assert estimators_with(critic="hindsight") == by_hindsight
    assert all(FACTS[name].takes("discrete") for name in by_hindsight)
    assert not any(FACTS[name].takes("continuous") for name in by_hindsight)
    assert estimators_with(several_steps=True, baseline="group") == ("grpo",)
