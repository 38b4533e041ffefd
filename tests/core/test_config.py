"""Mistakes in the settings: one clear sentence each, before jax is imported."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnax
import pytest
from toys import Clock

from pg.config import ENVIRONMENTS, UNSUPPORTED, Config, Hyperparams, check_hyperparams
from pg.estimators import ESTIMATORS
from pg.estimators.facts import FACTS
from pg.networks import ACTIVATIONS
from pg.optimizers import OPTIMIZERS
from pg.presets import preset
from pg.sweep import Study
from pg.train import make_learner
from pg.tuned import TUNED

BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"env": "CartPol-v1"}, "unknown env 'CartPol-v1': did you mean 'CartPole-v1'"),
    ({"env": "cartpole"}, "did you mean 'CartPole-v1'"),
    ({"env": 3}, "env must be a name or a gymnax environment"),
    ({"env": "MNISTBandit-bsuite"}, "cannot run"),
    ({"estimator": "renforce"}, "did you mean 'reinforce'"),
    ({"optimizer": "adm"}, "did you mean 'adam'"),
    ({"schedule": "lin"}, "unknown schedule"),
    ({"network": "rnn"}, "unknown network"),
    ({"activation": "tan"}, "did you mean 'tanh'"),
    ({"collect": "window"}, "did you mean 'windows'"),
    ({"num_envs": -3}, "num_envs must be a whole number of at least 1, got -3"),
    ({"num_envs": 2.0}, "num_envs must be a whole number"),
    ({"num_updates": 0}, "num_updates must be"),
    ({"num_steps": 0}, "num_steps must be"),
    ({"horizon": 0}, "horizon must be"),
    ({"hidden_sizes": (64, 0)}, "hidden_sizes must be"),
    ({"action_distribution": "squash"}, "did you mean 'squashed'"),
    ({"group_size": 0}, "group_size must be a whole number"),
    ({"estimator": "grpo"}, "group_size must be at least 2 for estimator='grpo'"),
    ({"num_envs": 8, "group_size": 3}, "group_size must divide num_envs=8"),
    (
        {"estimator": "ppo", "collect": "windows", "group_size": 5},
        "group_size=5 needs collect='episodes'",
    ),
    ({"estimator": "gpomdp"}, "is for a task without end and so needs collect='windows'"),
    ({"estimator": "all_action", "optimizer": "trpo"}, "use optimizer='natural'"),
    ({"env_params": {"gravity": float("nan")}}, "gravity must be a finite number"),
    ({"estimator": "reinforce", "collect": "windows"}, "needs collect='episodes'"),
    ({"estimator": "leave_one_out", "num_envs": 1}, "num_envs must be at least 2"),
    ({"estimator": "gae", "num_epochs": 4}, "on-policy"),
    (
        {"estimator": "ppo", "num_envs": 8, "num_minibatches": 3},
        "num_minibatches must divide num_envs=8",
    ),
]
BAD_HYPERPARAMS = [
    ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
    ({"gamma": float("nan")}, "gamma must be"),
    ({"gae_lambda": -0.1}, "gae_lambda must be"),
    ({"learning_rate": -1.0}, "learning_rate must be"),
    ({"learning_rate": float("inf")}, "learning_rate must be"),
    ({"n_step": 0}, "n_step must be"),
    ({"n_step": 2.5}, "n_step must be a whole number"),
    ({"epsilon": -0.2}, "epsilon must be"),
    ({"baseline_decay": 1.0}, "baseline_decay must be"),
    ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
    ({"adam_epsilon": 0.0}, "adam_epsilon must be finite .* and above 0"),
    ({"entropy_coef": float("nan")}, "entropy_coef must be finite"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_CONFIGS)
def test_bad_config(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**fields, preset=None)


# What the module of storm and svrpg says of estimators: a Ψ that depends on the policy is not for
# them.
OF_PI = ("trajectory_importance", "per_decision_importance", "ratio_only", "vtrace", "ppo", "grpo")
OF_PI += ("entropy_reward", "action_dependent_baseline", "optimal_baseline")


@pytest.mark.parametrize("optimizer", ["storm", "svrpg"])
@pytest.mark.parametrize("estimator", FACTS)
def test_gradients_at_earlier_parameters_are_for_estimators_whose_psi_is_free_of_the_policy(
    estimator: str, optimizer: Any
) -> None:
    fields = {"estimator": estimator, "optimizer": optimizer, "group_size": 5}
    if estimator in OF_PI:
        with pytest.raises(
            ValueError, match=f"that of estimator='{estimator}' does; use one of: reinforce, "
        ):
            Config(**fields, preset=None)
    elif estimator != "gpomdp":  # which is for windows
        Config(**fields, preset=None)


@pytest.mark.parametrize("optimizer", ["storm", "svrpg"])
def test_gradients_at_earlier_parameters_exclude_a_temperature(optimizer: Any) -> None:
    """Wherever the two meet: in training, on the command line, and in a sweep over either."""
    config, h = (
        Config(optimizer=optimizer, num_envs=2, num_updates=1, preset=None),
        Hyperparams(temperature=0.1),
    )
    calls: list[Callable[[], Any]] = [
        lambda: make_learner(config, h),
        lambda: Study(config, h, {}, range(1)),
        lambda: Study(config, Hyperparams(), {"temperature": [0.0, 0.1]}, range(1)),
        lambda: Study(Config(preset=None), h, {"optimizer": ["adam", optimizer]}, range(1)),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match=f"optimizer='{optimizer}' needs a Ψ .* with temperature=0.1"
        ):
            call()
    Study(config, Hyperparams(), {"temperature": [0.0]}, range(1))
    make_learner(config, Hyperparams(entropy_coef=0.1))


@pytest.mark.parametrize(("fields", "message"), BAD_HYPERPARAMS)
def test_bad_hyperparams(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_hyperparams(Hyperparams(**fields))


def test_json_and_back() -> None:
    config = Config(
        env_params={"gravity": 9.0, "max_steps_in_episode": 200},
        hidden_sizes=[32],
        horizon=100,
        preset=None,
    )
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert hash(config) == hash(Config.from_json(config.to_json()))
    with pytest.raises(ValueError, match="did you mean 'num_envs'"):
        Config.from_json({"num_env": 3})


def test_infinite_clipping_is_allowed() -> None:
    check_hyperparams(Hyperparams(max_grad_norm=float("inf")))


def test_names_without_jax_are_the_names_with_it() -> None:
    assert tuple(gymnax.registered_envs[: len(ENVIRONMENTS)]) == ENVIRONMENTS
    assert set(UNSUPPORTED) <= set(ENVIRONMENTS)
    assert list(FACTS) == list(ESTIMATORS)
    with pytest.raises(ValueError, match=", ".join(OPTIMIZERS)):
        Config(optimizer="?", preset=None)
    with pytest.raises(ValueError, match=", ".join(ACTIVATIONS)):
        Config(activation="?", preset=None)


def test_presets_are_valid_and_changeable() -> None:
    for name in FACTS:
        config, hyperparams = preset(name)
        check_hyperparams(hyperparams)
        assert config.estimator == name
    config, hyperparams = preset("ppo", env="Catch-bsuite", learning_rate=0.5)
    assert (config.env, hyperparams.learning_rate) == ("Catch-bsuite", 0.5)
    assert preset()[0].env == Config(preset=None).env  # the main job
    assert preset("natural")[0].optimizer == "natural"
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        preset("ppo", learning_rat=0.1)
    hidden = preset("recurrent_ppo", task="CartPole-v1-positions", observe=(0, 2))
    assert (hidden[0].rnn, hidden[0].observe, hidden[1].gamma) == ("gru", (0, 2), 0.98)
    assert preset("ppo", env=Clock())[1].learning_rate == 0.001  # what no table can know


def test_an_environment_s_own_settings_come_before_the_estimator_s() -> None:
    for env, rows in TUNED.items():
        for label, changes in rows.items():
            if env in ENVIRONMENTS:
                config, hyperparams = preset(label, env=env)
                values = {**vars(config), **hyperparams._asdict()}
                assert {name: values[name] for name in changes} == changes


def test_import_is_light() -> None:
    """`import pg` and its settings load neither jax nor a plotting library."""
    heavy = "[m for m in ('jax', 'matplotlib', 'pandas') if m in sys.modules]"
    code = f"import sys, pg, pg.config, pg.presets, pg.commands.cli; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plotting_libraries_load_when_something_is_drawn() -> None:
    heavy = (
        "[m for m in ('matplotlib.pyplot', 'seaborn', 'pandas', 'scipy.stats') if m in sys.modules]"
    )
    code = (
        f"import sys, pg, pg.train, pg.runs.results, pg.reports.plots; print({heavy}); import "
        f"seaborn; print({heavy})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    assert before == "[]"
    assert after == "['matplotlib.pyplot', 'seaborn', 'pandas', 'scipy.stats']"  # the real ones
