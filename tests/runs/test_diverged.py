"""Reports over runs that all diverged; and what is refused before the first update."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from environments import Clock

from pg.benchmarks import leaderboard, learning
from pg.benchmarks import report as benchmark_report
from pg.benchmarks.leaderboard import GradientEstimates, Reference, problems
from pg.commands import cli
from pg.config import Config, Hyperparams
from pg.evaluation import Evaluation
from pg.fast import devices
from pg.presets import preset
from pg.reports import tables
from pg.runs import execution
from pg.sweep import SweepSpec, driver, report, spaces

ROOT = Path(__file__).parents[2]
ONE = devices.layout(most=1)
# with sgd and a learning rate of 3e38 the first step is infinite
WILD = Hyperparams(max_grad_norm=math.inf)
CONFIG = Config(
    env=Clock(),
    env_params={"reward_scale": 100.0},
    optimizer="sgd",
    num_envs=2,
    num_updates=2,
    hidden_sizes=(4,),
    preset=None,
)
# Of three seeds, and of a state without statistics.
PARAMS: Any = SimpleNamespace(params={"policy": np.zeros((3, 2))}, normaliser=())
AGAIN = {"per_seed": [{}, {}], "failed_seeds": [2, 3]}  # what fresh seeds come to that all diverged


def carried_out(spec: SweepSpec, folder: Path) -> int:
    return driver.run_sweep(spec, folder, ONE, cli.Checkpointing(), width=None, limit=None, fresh=2)


def ranked(scores: list[float], finite: list[bool]) -> tuple[SweepSpec, list[report.Ranked]]:
    """Two settings of two seeds each."""
    spec = SweepSpec(CONFIG, WILD, {"learning_rate": [0.1, 0.2]}, range(2))
    fixed = {
        "run": np.arange(4),
        "configuration": np.repeat([0, 1], 2),
        "env_steps": np.full(4, 10),
    }
    return spec, report.rank(spec, {**fixed, "mean": np.array(scores), "finite": np.array(finite)})


@pytest.mark.slow
def test_a_sweep_of_which_every_run_diverges_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 and a summary; and nothing is tried again, as there is no best configuration."""
    spec = SweepSpec(CONFIG, WILD, {"learning_rate": [3e38, 3.2e38]}, range(2), 3)
    assert carried_out(spec, tmp_path / "sweep") == cli.NOT_FINITE
    out = capsys.readouterr().out
    assert (
        "all 4 runs diverged, each with a number that was not finite, or a step without a legal "
        "action, at some update, so that there is no" in out
    )
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert (summary["status"], summary["best"], summary["diverged_runs"]) == (
        "every run diverged",
        None,
        4,
    )
    assert (tmp_path / "sweep" / "configurations.csv").exists()
    assert not (tmp_path / "sweep" / "best").exists()


def test_means_and_medians_are_of_the_seeds_that_stayed_finite() -> None:
    spec, both = ranked([1.0, 99.0, 5.0, math.nan], [True, False, False, True])
    assert [(r.configuration, list(r.scores), r.diverged) for r in both] == [
        (0, [1.0], 1),
        (1, [], 2),
    ]
    assert both[0].mean.value == 1.0
    assert "nan" not in report.table(spec, both)


def test_fresh_seeds_that_all_diverge_are_said() -> None:
    spec, both = ranked([1.0, 2.0, 5.0, 6.0], [True] * 4)
    assert report.summary(spec, both, AGAIN)["mean_on_fresh_seeds"] is None
    said = report.verdict(spec, both, AGAIN)
    assert said.endswith(
        "but on 2 fresh seeds all runs diverged: this configuration cannot be relied on"
    )
    some = {**AGAIN, "failed_seeds": [3], "mean": 4.0, "interval": (4.0, 4.0)}
    assert "on 2 fresh seeds, without the 1 that diverged, which had no" in report.verdict(
        spec, both, some
    )


@pytest.mark.parametrize(
    ("changes", "table", "message"),
    [
        (
            {},
            {"max_steps_in_episode": [10, 10.5]},
            "max_steps_in_episode must be a whole number of at least 1",
        ),
        (
            {},
            {"max_steps_in_episode": [10, 0]},
            "max_steps_in_episode must be a whole number of at least 1",
        ),
        ({}, {"g": [9.0, "ten"]}, "g must be finite numbers"),
        ({}, {"gee": [9.0]}, "unknown setting to vary 'gee'"),
        ({}, {"observe": [(0, 1), (0, 9)]}, "observe must be below 3"),
        (
            {"action_distribution": "squashed"},
            {"env": ["Pendulum-v1", "CartPole-v1"]},
            "is for continuous actions",
        ),
    ],
)
def test_what_can_be_refused_is_refused_before_the_first_update(
    changes: dict[str, Any],
    table: spaces.Table,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "compile_programs", lambda *_, **__: pytest.fail("it compiles"))
    small: dict[str, Any] = {
        "env": "Pendulum-v1",
        "num_envs": 2,
        "num_updates": 1,
        "hidden_sizes": (4,),
    }
    with pytest.raises(ValueError, match=message):
        carried_out(
            SweepSpec(Config(**small | changes, preset=None), Hyperparams(), table, range(2)),
            tmp_path / "sweep",
        )
    assert not (tmp_path / "sweep").exists()


def test_time_limits_that_are_drawn_are_whole() -> None:
    drawn = spaces.table_of(["max_steps_in_episode=10:60"], num=8)["max_steps_in_episode"]
    assert all(isinstance(x, int) for x in drawn)


def test_a_benchmark_of_diverged_seeds_has_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not those of the policies before: one of three seeds, and then all."""
    rows: Any = [
        (
            SimpleNamespace(name="CartPole-v1", seeds=3, episodes=2),
            SimpleNamespace(label="reinforce"),
        )
    ]
    for skipped in ([0, 1, 0], [1, 1, 1]):
        ones = np.ones((3, 4))
        metrics = {
            "env_steps": ones.astype(int),
            "return": ones,
            "episodes": ones,
            "skipped": ones * np.c_[skipped],
            "nonfinite": (ones * np.c_[skipped]).astype(int),
        }
        done = execution.Run(PARAMS, metrics, True, None, 0.0, 0.0)
        monkeypatch.setattr(execution, "run", lambda *_, done=done, **__: done)
        monkeypatch.setattr(
            execution, "evaluate_run", lambda *_, **__: Evaluation(np.ones((3, 2)), np.ones((3, 2)))
        )
        out = tmp_path / str(sum(skipped))
        settings = lambda task, row: preset(row.label, env=task.name)  # noqa: E731
        assert learning.run(rows, settings, out) is None
        lines = learning.collect(out)
        assert [math.isnan(line.greedy) for line in lines] == [bool(x) for x in skipped]
        assert f"{sum(skipped)} of 3 seeds diverged, and have no score" in capsys.readouterr().out
        assert f"not a number in {sum(skipped)} of 3 seeds" in benchmark_report.table(lines)
    assert benchmark_report.draw(lines, out)


def test_the_benchmark_command_says_that_every_run_diverged(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    tables.write_rows(
        table,
        learning.Result,
        [learning.Result("CartPole-v1", "reinforce", 0, math.nan, math.nan, 10)],
    )
    command = [sys.executable, str(ROOT / "experiments" / "benchmark.py"), "--from", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (cli.NOT_FINITE, "")
    assert "every run diverged: no row has a score" in done.stdout


def test_the_leaderboard_measures_no_policy_that_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    wild = {
        "optimizer": "sgd",
        "learning_rate": 3e38,
        "max_grad_norm": math.inf,
        "num_updates": 2,
        "num_envs": 2,
    }
    garnet = problems.PROBLEMS["garnet"]._replace(changes=wild, fit_batches=1, fit_episodes=8)
    monkeypatch.setitem(problems.PROBLEMS, "garnet", garnet)
    monkeypatch.setattr(problems, "_make_fit", lambda *_, **__: lambda *_: ({}, 0.0))
    with pytest.raises(
        ValueError,
        match="the training of the policy of garnet diverged within 2 updates, and there is "
        "nothing to measure",
    ):
        leaderboard.train_snapshots("garnet", 0)


def test_estimates_that_are_not_finite_are_refused() -> None:
    found = GradientEstimates(np.full((32, 3), np.nan), 4, 40.0, 0.1)
    with pytest.raises(ValueError, match="estimates must be finite, and 32 of 32 are not"):
        leaderboard.assess("garnet", "start", "gae", 0, found, Reference(np.ones(3), 1.0))


@pytest.mark.slow
def test_a_search_of_which_every_trial_diverges_says_so() -> None:
    wild = [
        "optimizer=sgd",
        "num_updates=2",
        "max_grad_norm=1e38",
        "num_envs=4",
        "hidden_sizes=(8,)",
    ]
    flags = ["--trials", "2", "--seeds", "2", "--set", *wild, "--range", "learning_rate=1e38:3e38"]
    command = [sys.executable, str(ROOT / "experiments" / "tune.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.NOT_FINITE, done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "every configuration has a seed that diverged, so none is best"
    )
