"""Parameters of the environment, static or traced: policies trained with them are evaluated, stored
and shown with them.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.struct
import jax
import numpy as np
import pytest
from environments import Clock, ClockParams

from pg.benchmarks import learning
from pg.benchmarks.leaderboard.problems import PROBLEMS
from pg.commands import cli
from pg.config import Config, Hyperparams, merge_env_params
from pg.envs import make_env
from pg.evaluation import evaluate
from pg.fast import devices
from pg.reports import tables
from pg.runs import execution, folders, sweeps
from pg.sweep import SweepSpec, driver, grid, sweep
from pg.train import make_learner, training_keys

EPISODES = 6
STANDING = Hyperparams(learning_rate=0.0)  # the policy stays as its seed has made it
CONFIG = Config(env=Clock(), num_envs=2, num_updates=1, hidden_sizes=(4,), preset=None)
VALUES: dict[str, list[Any]] = {"max_steps_in_episode": [2, 5], "reward_scale": [1.0, 7.0]}
ONE = devices.layout(most=1)


def with_parameters(config: Config, **values: Any) -> Config:
    return dataclasses.replace(config, env_params=values)


def judged(config: Config, seeds: Sequence[int]) -> np.ndarray:
    """Returns [S, EPISODES] of the policies that seeds begin with, by the parameters of the Config
    alone.
    """
    keys, eval_keys = execution.seed_keys(seeds)

    def one(key: jax.Array, eval_key: jax.Array) -> jax.Array:
        params = make_learner(config).init(training_keys(key, 0, 0)[0]).params.policy
        return evaluate(config, params, eval_key, EPISODES).returns

    return np.asarray(jax.jit(jax.vmap(one))(keys, eval_keys))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep over two parameters, the best tried again."""
    folder = tmp_path_factory.mktemp("sweep")
    table = {"max_steps_in_episode": [2, 5, 5], "reward_scale": [1.0, 1.0, 7.0]}
    spec = SweepSpec(CONFIG, STANDING, table, range(2), EPISODES)
    driver.run_sweep(spec, folder, ONE, cli.Checkpointing(), width=None, limit=None, fresh=2)
    return folder


def test_a_sweep_ranks_its_settings_by_their_own_environment(swept: Path) -> None:
    """Not by the default one, in which all settings are the same and the best of them is luck."""
    rows = sweeps.read_runs(swept)
    for i in range(0, len(rows["run"]), 2):
        own = with_parameters(CONFIG, **{name: rows[name][i].item() for name in VALUES})
        np.testing.assert_allclose(
            rows["mean"][i : i + 2], judged(own, range(2)).mean(axis=1), rtol=1e-5
        )
    assert rows["mean"][4:].min() > rows["mean"][:4].max()


def test_the_best_is_tried_again_and_kept_with_its_own_environment(swept: Path) -> None:
    stored = folders.read_json(swept / "best" / "config.json")
    assert stored["config"]["env_params"] == {"max_steps_in_episode": 5, "reward_scale": 7.0}
    own = with_parameters(CONFIG, **stored["config"]["env_params"])
    summary = folders.read_json(swept / "best" / "summary.json")
    found = judged(own, [2, 3]).mean(axis=1)
    np.testing.assert_allclose([one["mean"] for one in summary["per_seed"]], found, rtol=1e-5)


@pytest.mark.slow
def test_each_seed_of_a_run_is_evaluated_with_the_parameters_it_was_trained_with() -> None:
    """One value for all seeds, and another for each; alone by `evaluate`."""
    values = {"max_steps_in_episode": 5, "reward_scale": np.array([1.0, 7.0])}
    done = execution.run(CONFIG, STANDING._replace(env_params=values), [0, 1])
    found = execution.evaluate_run(CONFIG, done, [0, 1], EPISODES, greedy=False).returns
    for i, scale in enumerate([1.0, 7.0]):
        own = {"max_steps_in_episode": 5, "reward_scale": scale}
        np.testing.assert_allclose(
            found[i], judged(with_parameters(CONFIG, **own), [i])[0], rtol=1e-6
        )
    params = jax.tree.map(lambda x: x[1], done.states.params.policy)
    alone = evaluate(CONFIG, params, execution.seed_keys([1])[1][0], EPISODES, env_params=own)
    np.testing.assert_allclose(alone.returns, found[1], rtol=1e-6)


def test_a_run_folder_holds_them(tmp_path: Path) -> None:
    config = Config(env="Pendulum-v1", env_params={"g": 9.0, "l": 2.0}, preset=None)
    traced = Hyperparams(env_params={"g": np.float64(5.0), "max_steps_in_episode": np.int32(10)})
    folders.write_setup(tmp_path, config, traced, {})
    there, h = folders.read_setup(tmp_path)
    assert dict(there.env_params) == {"g": 5.0, "l": 2.0, "max_steps_in_episode": 10}
    assert h == Hyperparams()


def test_studies_differ_by_parameters_that_are_not_varied(tmp_path: Path) -> None:
    """Otherwise one would continue in the folder of the other."""
    places = {
        SweepSpec(
            Config(env="Pendulum-v1", preset=None), Hyperparams(env_params={"g": g}), {}, range(2)
        ).folder(tmp_path)
        for g in (5.0, 10.0)
    }
    assert len(places) == 2


def test_benchmark_and_leaderboard_have_one_home_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Any = SimpleNamespace(name="Pendulum-v1", seeds=1, episodes=2)
    row: Any = SimpleNamespace(label="reinforce")

    def settings(task: Any, row: Any) -> tuple[Config, Hyperparams]:
        return Config(env=task.name, preset=None), Hyperparams(env_params={"g": 5.0})

    cells, _ = learning.plan([(task, row)], settings, tmp_path)
    assert dict(cells[0].config.env_params) == {"g": 5.0}
    problem = PROBLEMS["Pendulum-v1"]
    traced = preset_with({"g": 5.0})
    monkeypatch.setattr("pg.benchmarks.leaderboard.problems.preset", traced)
    assert dict(problem.settings()[0].env_params) == {"g": 5.0}


def preset_with(env_params: dict[str, Any]) -> Any:
    return lambda *args, **kwargs: (
        Config(env="Pendulum-v1", preset=None),
        Hyperparams(env_params=env_params),
    )


def test_parameters_that_are_not_one_number_are_refused() -> None:
    with pytest.raises(ValueError, match="env_params: g must be a finite number, got array"):
        merge_env_params(
            Config(env="Pendulum-v1", preset=None), Hyperparams(env_params={"g": np.ones(2)})
        )


@flax.struct.dataclass
class Switches(ClockParams):
    generous: bool = True
    manner: str = "calm"


class Switched(Clock):
    """Has a parameter that is True or False, and one that is a text."""

    default_params = Switches()


NO_VALUES = [
    ("reward_scale", [True, False], "reward_scale must be a number, got True"),
    ("reward_scale", [9.8, True], "reward_scale must be a number, got True"),
    ("reward_scale", [1.0, "high"], "reward_scale must be finite numbers"),
    (
        "max_steps_in_episode",
        [5, 0],
        "max_steps_in_episode must be a whole number of at least 1, got 0",
    ),
    ("max_steps_in_episode", [5, True], "max_steps_in_episode must be a number, got True"),
    ("generous", [0, 1], "generous must be True or False, got 0"),
    ("generous", [True, 0.5], "generous must be True or False, got 0.5"),
    (
        "manner",
        [True],
        "manner is a string in this environment, by default 'calm', .* got True: make the",
    ),
    (
        "wage",
        [1.0],
        r"unknown setting to vary 'wage': .*pg sweep --help lists .* own are "
        r".*manner",
    ),
]


@pytest.mark.parametrize(("name", "values", "message"), NO_VALUES)
def test_values_that_a_parameter_cannot_have_are_refused_before_the_sweep_is_announced(
    name: str, values: list[Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a trace they could not be read, and the error would be about a tracer, once all is
    compiled.
    """
    folder = tmp_path / "sweep"

    def carried_out() -> None:
        config = Config(env=Switched(), num_envs=2, num_updates=1, hidden_sizes=(4,), preset=None)
        spec = SweepSpec(config, STANDING, {name: values}, range(2))
        driver.run_sweep(spec, folder, ONE, cli.Checkpointing(), width=None, limit=None, fresh=0)

    with pytest.raises(ValueError, match=message):
        carried_out()
    assert capsys.readouterr().out == ""
    assert not folder.exists()


def test_the_same_values_are_refused_in_python_by_the_value_and_not_by_a_tracer() -> None:
    config = Config(env=Switched(), num_envs=2, num_updates=1, hidden_sizes=(4,), preset=None)
    with pytest.raises(ValueError, match="reward_scale must be a number, got True"):
        sweep(config, [0], grid(env_params={"reward_scale": [True, False]}))
    with pytest.raises(ValueError, match="generous must be True or False, got 2"):
        execution.run(config, Hyperparams(env_params={"generous": 2}), [0])
    with pytest.raises(ValueError, match="reward_scale must be a number, got a traced bool"):
        jax.eval_shape(
            lambda x: make_env(config.env, 1, {"reward_scale": x}).num_envs, np.bool_(True)
        )
    with pytest.raises(
        ValueError, match="generous must be True, without quotation marks; got 'true'"
    ):
        Config(env_params={"generous": "true"}, preset=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"), [("max_steps_in_episode", [10, 60]), ("g", [1.0, 10.0]), ("l", [0.5, 1.0])]
)
def test_pendulum_is_ranked_by_its_own_parameters(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    config = Config(env="Pendulum-v1", num_envs=2, num_updates=1, hidden_sizes=(4,), preset=None)
    spec = SweepSpec(config, STANDING, {name: values}, range(2), EPISODES)
    driver.run_sweep(spec, tmp_path, ONE, cli.Checkpointing(), width=None, limit=None, fresh=0)
    rows = tables.read_parquet(next((tmp_path / "runs").iterdir()))
    for i, value in enumerate(np.repeat(values, 2)):
        found = judged(with_parameters(config, **{name: value.item()}), [i % 2])
        assert rows["mean"][i] == pytest.approx(float(found.mean()), rel=1e-3)
