"""One set of settings: a Config and the command line run the same, and pairs of settings agree."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from mistakes import Mistake, assert_one_sentence
from safetensors.numpy import load_file

import pg
from pg.benchmarks.suites import TASKS
from pg.commands import cli, job
from pg.config import ENVIRONMENTS, Config, Hyperparams, check_together
from pg.estimators.facts import FACTS
from pg.estimators.variants import VARIANTS
from pg.presets import preset
from pg.runs import parameters
from pg.tuned import TUNED

ROOT = Path(__file__).parents[2]


def of_the_command_line(*arguments: str) -> tuple[Config, Hyperparams]:
    return cli.parse("train.py", "", job.Options, arguments)[:2]


@pytest.mark.parametrize("estimator", FACTS)
def test_a_config_has_the_settings_of_the_command_line(estimator: str) -> None:
    config, hyperparams = of_the_command_line("--estimator", estimator)
    assert Config(estimator=estimator) == config
    assert Config(estimator=estimator).hyperparams() == hyperparams


def environments() -> Iterator[Any]:
    """Those that have settings of their own; a few of them among the fast tests."""
    for env in TUNED:
        is_fast = env in ("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "DeepSea-bsuite")
        yield pytest.param(env, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.parametrize("env", [*environments()])
def test_so_it_has_on_every_environment(env: str) -> None:
    if env not in ENVIRONMENTS:  # a task of the benchmark, or of a library that is not needed
        assert env in [task.env for task in TASKS.values()] or TASKS[env].env in ENVIRONMENTS
        return
    for estimator in set(TUNED[env]) & set(FACTS):
        config, hyperparams = of_the_command_line("--estimator", estimator, "--env", env)
        assert Config(estimator=estimator, env=env) == config
        assert Config(estimator=estimator, env=env).hyperparams() == hyperparams


def test_a_config_of_nothing_is_the_first_command() -> None:
    config, hyperparams = of_the_command_line()
    assert (Config(), Config().hyperparams()) == (config, hyperparams)
    assert Config() == Config("CartPole-v1", (), "reinforce")  # by position


@pytest.mark.parametrize("label", VARIANTS)
def test_the_label_of_a_variant_is_a_preset(label: str) -> None:
    config, hyperparams = pg.preset(label)
    assert Config(preset=label) == config
    assert Config(preset=label).hyperparams() == hyperparams == config.hyperparams()


def test_what_is_given_goes_before_the_preset() -> None:
    config = Config(estimator="ppo", num_epochs=3, minibatch_size=16)
    assert (config.num_epochs, config.num_minibatches, config.collect) == (3, 1, "windows")
    assert config.hyperparams(gamma=0.5).gamma == 0.5
    changed = dataclasses.replace(config, num_updates=7)
    assert (changed.num_updates, changed.num_epochs) == (7, 3)


def test_without_a_preset_defaults_are_those_of_the_fields() -> None:
    plain = Config(estimator="ppo", preset=None)
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    changed = {"estimator": "ppo", "preset": None}
    assert {f: getattr(plain, f) for f in defaults} == {**defaults, **changed}
    assert plain.hyperparams() == Hyperparams()


def test_stored_settings_are_taken_as_they_are() -> None:
    plain = Config(estimator="ppo", preset=None)
    stored = plain.to_json()
    assert Config.from_json(stored) == plain
    del stored["num_epochs"]  # of a time before this setting
    assert Config.from_json(stored).num_epochs == 1


@pytest.mark.parametrize(
    "hyperparams", [Hyperparams(), Hyperparams(learning_rate=1e-3), Hyperparams(gae_lambda=0.5)]
)
def test_hyperparameters_of_another_estimator_are_refused(hyperparams: Hyperparams) -> None:
    """In one sentence, before anything is compiled, wherever a pair is given."""
    config = Config(estimator="gae")
    message = r"none of the values that go with estimator='gae' \(gamma=0.99, .*config.hyperparams"
    ways: list[Any] = [
        lambda: pg.make_train(config, hyperparams),
        lambda: pg.make_learner(config, hyperparams),
        lambda: pg.run(config, hyperparams, [0]),
        lambda: pg.sweep.sweep(config, [0], hyperparams),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=message):
            way()


def test_hyperparameters_of_points_are_those_of_the_estimator_too() -> None:
    config = Config(estimator="gae")
    with pytest.raises(ValueError, match="none of the values that go with"):
        pg.sweep.sweep(config, [0], pg.sweep.grid(learning_rate=[1e-3, 1e-2]))
    points = pg.sweep.grid(config.hyperparams(), learning_rate=[1e-3, 1e-2])
    np.testing.assert_array_equal(points.gamma, [0.99, 0.99])


def test_a_pair_passes() -> None:
    for estimator in FACTS:
        config = Config(estimator=estimator)
        check_together(config, config.hyperparams(learning_rate=0.5))
        check_together(dataclasses.replace(config, preset=None), Hyperparams())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"estimator": "reinforce", "num_envs": 4, "num_updates": 3, "horizon": 20},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"estimator": "ppo", "num_envs": 4, "num_steps": 8, "num_updates": 3, "num_epochs": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"estimator": "gae", "num_envs": 4, "num_steps": 8, "num_updates": 3},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda changes: changes["estimator"],
)
def test_a_seed_has_the_bits_of_the_train_command(changes: dict[str, Any], tmp_path: Path) -> None:
    """Parameters that `train.py --seed 3` writes, in Python and in a sweep."""
    words = [w for name, x in changes.items() for w in (f"--{name.replace('_', '-')}", str(x))]
    small = {"hidden_sizes": (8,)}
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train.py"),
        *words,
        "--hidden-sizes",
        "8",
    ]
    options = ["--seed", "3", "--out", str(tmp_path), "--name", "run", "--eval-episodes", "2"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    (written,) = tmp_path.rglob("params.safetensors")
    stored = load_file(written)

    config = Config(**changes, **small)  # type: ignore[arg-type]
    state, _ = jax.jit(pg.make_train(config))(pg.seed_key(3))
    states, _ = pg.sweep.sweep(config, [3])
    alone = jax.tree.map(lambda x: np.asarray(x)[None], state.params)
    swept = jax.tree.map(lambda x: x[0], states.params)
    for params in (alone, swept):
        for name, leaf in parameters.leaves(params).items():
            np.testing.assert_array_equal(stored[name], leaf, err_msg=name)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "another library's setting of a preset": (
        lambda: preset("ppo", n_epochs=4),
        "did you mean 'num_epochs'?",
    ),
    "total steps of episodes": (
        lambda: preset("reinforce", total_steps=1000),
        "total_steps needs collect='windows': with episodes, whose length is not known ahead, give "
        "num_updates",
    ),
    "total steps and updates": (
        lambda: preset("ppo", total_steps=1000, num_updates=2),
        "total_steps and num_updates are mutually exclusive",
    ),
    "half a step in all": (
        lambda: preset("ppo", total_steps=1.5),
        "total_steps must be a whole number of at least 1",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
