"""Mistakes in the settings: one clear sentence each, before jax is imported."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock
from mistakes import Mistake, assert_one_sentence

from pg.config import (
    ENVIRONMENTS,
    UNSUPPORTED,
    WHOLE_NUMBERS,
    Config,
    Hyperparams,
    check_hyperparams,
)
from pg.estimators import (
    ESTIMATORS,
    with_dynamics_control_variate,
    with_gradient_control_variate,
)
from pg.estimators.facts import FACTS
from pg.layers import ACTIVATIONS
from pg.optimizers import OPTIMIZERS
from pg.presets import preset
from pg.settings.choices import AT_OTHER_PARAMETERS
from pg.settings.ranges import RANGES
from pg.sweep import SweepSpec, grid, sweep
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
    ({"estimator": "gpomdp"}, "is for a continuing task and so needs collect='windows'"),
    ({"estimator": "all_action", "optimizer": "trpo"}, "use optimizer='natural'"),
    (
        {
            "estimator": lambda policy, critic, h: ESTIMATORS["reinforce"](policy, critic, h),
            "optimizer": "harpg",
            "num_epochs": 2,
        },
        "'harpg' collects a second batch .* num_epochs and num_minibatches must be 1, got 2 and 1",
    ),
    (
        {"estimator": "gae", "optimizer": "n_harpg", "collect": "windows"},
        "'n_harpg' weights whole episodes and so needs collect='episodes'",
    ),
    ({"env_params": {"gravity": float("nan")}}, "gravity must be a finite number"),
    ({"estimator": "reinforce", "collect": "windows"}, "needs collect='episodes'"),
    ({"estimator": "leave_one_out", "num_envs": 1}, "num_envs must be at least 2"),
    ({"estimator": "reinforce", "num_branches": 4}, "num_branches=4 is the number of extra"),
    (
        {"estimator": "lookahead_control_variate", "branch_every": 5},
        "branch_every=5 is for episodes from visited states",
    ),
    (
        {"estimator": "dynamics_control_variate", "rnn": "gru"},
        "with rnn='gru' it is recurrent",
    ),
    (
        {"estimator": lambda policy, critic, h: None, "sampling": "antithetic"},
        "states no facts: if it compares none of them",
    ),
    (
        {"estimator": "gae", "action_critic": "sinusoids"},
        "for estimators with a critic of continuous actions: all_action, .* got estimator='gae'",
    ),
    (
        {"estimator": "all_action", "action_critic_units": 4},
        "action_critic_units=4 is the number of sinusoids",
    ),
    (
        {"estimator": "all_action", "action_samples": 4},
        "action_samples=4 is the number of actions over which a network is averaged: give "
        "action_critic='network'",
    ),
    (
        {"estimator": "q_prop", "action_critic": "network"},
        "for estimators that average Q over sampled actions: all_action, "
        "action_dependent_baseline, trajectory_control_variate, "
        "pooled_trajectory_control_variate; got estimator='q_prop'",
    ),
    (
        {"estimator": "gae", "action_critic": "network"},
        r"pooled_trajectory_control_variate; got estimator='gae'$",
    ),
    (
        {"estimator": "all_action", "action_critic": "network", "rnn": "gru"},
        "sees one observation and one action, and rnn='gru' remembers earlier steps",
    ),
    ({"estimator": "gae", "num_epochs": 4}, "on-policy"),
    (
        {"estimator": "advantage_weighted_regression", "advantages": "batch"},
        "advantages='batch' standardises Ψ, which for",
    ),
    (
        {
            "estimator": "selected:state_value+advantage_weighted_regression",
            "advantages": "minibatch",
        },
        "advantages='minibatch' standardises Ψ, which for",
    ),
    *(
        (
            {"estimator": with_gradient_control_variate(estimator), "advantages": advantages},
            f"advantages='{advantages}' standardises Ψ, and estimator=.* was regressed on the",
        )
        for estimator, advantages in (
            ("state_value", "batch"),
            ("state_value", "minibatch"),
            (with_dynamics_control_variate("state_value"), "batch"),
        )
    ),
    (
        {"estimator": "gradient_control_variate", "advantages": "batch"},
        "advantages='batch' standardises Ψ, and estimator=",
    ),
    (
        {"estimator": "state_value", "optimizer": "harpg", "advantages": "batch"},
        "'harpg' adds directions of several batches, .*'batch' .* units, .*: give advantages='raw'",
    ),
    (
        {"estimator": "state_value", "optimizer": "n_harpg", "advantages": "minibatch"},
        "'n_harpg' adds directions of several .*'minibatch' .*: give advantages='raw'",
    ),
    *(
        ({"estimator": "state_value", "optimizer": optimizer, name: value}, f"{name}.*: {instead}")
        for optimizer in AT_OTHER_PARAMETERS
        for name, value, instead in (
            ("advantages", "batch", "give advantages='raw'"),
            ("scale_rewards", True, "leave scale_rewards out"),
            ("normalise_observations", True, "leave normalise_observations out"),
        )
    ),
    *(
        ({"estimator": f"sequence:{switch}", "optimizer": "storm", "group_size": 5}, "use one of")
        for switch in ("scale=group", "average=token", "baseline=length_weighted")
    ),
    (
        {"estimator": "ppo", "optimizer": "harpg", "collect": "windows", "num_epochs": 2},
        "'harpg' weights whole episodes .* got 'windows'; and it cannot take the Ψ of "
        "estimator='ppo', .*; and it collects a second batch",
    ),
    (
        {"estimator": "v_mpo", "num_envs": 1},
        "'v_mpo', which compares the episodes of a batch with one another; got 1",
    ),
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
    ({"advantage_scale": 0.0}, "advantage_scale must be finite .* and above 0"),
    ({"adam_epsilon": 0.0}, "adam_epsilon must be finite .* and above 0"),
    ({"entropy_coef": float("nan")}, "entropy_coef must be finite"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_CONFIGS)
def test_bad_config(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**fields, preset=None)


# What the module of variance reduction over updates says of estimators: a Ψ that depends on the
# policy is not for its optimizers.
OF_PI = ("trajectory_importance", "per_decision_importance", "ratio_only", "vtrace", "ppo", "grpo")
OF_PI += ("entropy_reward", "action_dependent_baseline", "optimal_baseline")
OF_PI += ("trajectory_control_variate", "optimal_time_baseline", "optimal_state_baseline")
OF_PI += ("pooled_trajectory_control_variate", "doubly_robust", "lookahead_control_variate")
OF_PI += ("mdpo", "standardised", "v_mpo")
OF_PI += ("gradient_control_variate", "q_prop", "stein_control_variate")
OF_PI += ("hindsight_credit", "counterfactual_contributions")
OF_PI += ("vine_advantage", "vine_action_value", "vine_all_action", "measure_valued")


@pytest.mark.parametrize("optimizer", AT_OTHER_PARAMETERS)
@pytest.mark.parametrize("estimator", FACTS)
def test_gradients_at_earlier_parameters_are_for_estimators_whose_psi_is_free_of_the_policy(
    estimator: str, optimizer: Any
) -> None:
    fields = {"estimator": estimator, "optimizer": optimizer, "group_size": 5}
    if estimator in OF_PI:
        said = (
            f"estimator='{estimator}', which contains the policy or is divided .* of: reinforce, "
        )
        with pytest.raises(ValueError, match=said):
            Config(**fields, preset=None)
    elif estimator != "gpomdp":  # which is for windows
        Config(**fields, preset=None)


@pytest.mark.parametrize("optimizer", AT_OTHER_PARAMETERS)
def test_gradients_at_earlier_parameters_exclude_a_temperature(optimizer: Any) -> None:
    """Wherever the two meet: in training, on the command line, and in a sweep over either."""
    config, h = (
        Config(optimizer=optimizer, num_envs=2, num_updates=1, preset=None),
        Hyperparams(temperature=0.1),
    )
    calls: list[Callable[[], Any]] = [
        lambda: make_learner(config, h),
        lambda: SweepSpec(config, h, {}, range(1)),
        lambda: SweepSpec(config, Hyperparams(), {"temperature": [0.0, 0.1]}, range(1)),
        lambda: sweep(config, range(1), grid(temperature=[0.0, 0.1])),
        lambda: SweepSpec(Config(preset=None), h, {"optimizer": ["adam", optimizer]}, range(1)),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match=f"optimizer='{optimizer}' needs a Ψ .* with temperature=0.1"
        ):
            call()
    SweepSpec(config, Hyperparams(), {"temperature": [0.0]}, range(1))
    make_learner(config, Hyperparams(entropy_coef=0.1))


@pytest.mark.parametrize(("fields", "message"), BAD_HYPERPARAMS)
def test_bad_hyperparams(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_hyperparams(Hyperparams(**fields))


@pytest.mark.parametrize("value", [-1.0, math.nan, "0.1", None])
def test_a_bad_hyperparameter_is_refused_where_it_is_given(value: Any) -> None:
    """Within `jit` it would be traced, and unread; arrays may be of vmapped runs."""
    with pytest.raises(ValueError, match=r"learning_rate must be finite .* and at least 0, got "):
        Config().hyperparams(learning_rate=value)
    rates = np.array([0.1, 0.2])
    assert Config().hyperparams(learning_rate=rates).learning_rate is rates


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


@pytest.mark.parametrize("name", [n for n in Hyperparams().scalars() if n not in WHOLE_NUMBERS])
def test_a_whole_number_is_a_float_where_floats_are_expected(name: str) -> None:
    """Traced as it is, one that 32 bits do not hold would end in an error of jax."""
    whole = 2**31 if RANGES[name][1] > 2**31 else int(RANGES[name][1])
    checked = check_hyperparams(Hyperparams(**{name: whole}))
    assert type(getattr(checked, name)) is float
    assert getattr(checked, name) == whole
    jax.jit(lambda x: x)(getattr(checked, name))


@pytest.mark.acceptance("INPUTS")
def test_numbers_of_numpy_are_taken_for_what_they_are() -> None:
    config = Config(
        num_envs=np.int64(8),
        hidden_sizes=np.array([4, 4]),
        env_params=[("gravity", np.float32(9.0))],
        preset=None,
    )
    assert config == Config(
        num_envs=8, hidden_sizes=[4, 4], env_params={"gravity": 9.0}, preset=None
    )
    assert {type(x) for x in (config.num_envs, *config.hidden_sizes)} == {int}
    h = Hyperparams(stop_kl=0.1, max_grad_norm=math.inf)
    assert (
        Hyperparams.from_json({**h.scalars(), "max_grad_norm": "inf", "value_epsilon": "inf"}) == h
    )
    check_hyperparams(
        Hyperparams(gamma=jnp.bfloat16(0.9), gae_lambda=np.float32(1), n_step=np.int64(3))
    )
    check_hyperparams(Hyperparams(env_params={"gravity": np.array([9.0, 10.0])}))


# Mistakes


def config_of(**values: Any) -> Callable[[], object]:
    return lambda: Config(**values, preset=None)


def hyperparams_of(**values: Any) -> Callable[[], object]:
    return lambda: check_hyperparams(Hyperparams(**values))


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "no updates": (
        config_of(num_updates=0),
        "num_updates must be a whole number of at least 1, got 0",
    ),
    "updates beyond a counter": (config_of(num_updates=2**31), "num_updates must be below 2^31"),
    "half an environment": (
        config_of(num_envs=2.5),
        "num_envs must be a whole number of at least 1, got 2.5",
    ),
    "a count as text": (
        config_of(num_envs="8"),
        "num_envs must be a whole number of at least 1, got '8'",
    ),
    "a count that is true": (
        config_of(num_epochs=True),
        "num_epochs must be a whole number of at least 1, got True",
    ),
    "a window of nothing": (
        config_of(num_steps=0),
        "num_steps must be a whole number of at least 1, got 0",
    ),
    "no horizon": (config_of(horizon=0), "horizon must be a whole number of at least 1, got 0"),
    "horizon beyond a counter": (config_of(horizon=2**31), "horizon must be below 2^31"),
    "an action held for no step": (
        config_of(action_repeat=-1),
        "action_repeat must be a whole number",
    ),
    "no memory": (config_of(rnn_size=0), "rnn_size must be a whole number of at least 1, got 0"),
    "a huge number": (config_of(rnn_size=10**400), "rnn_size must be below 2^31"),
    "steps beyond a counter": (
        config_of(
            estimator="gae", collect="windows", num_envs=np.int32(2**16), num_steps=np.int32(2**16)
        ),
        "num_envs × num_steps × action_repeat, the steps of one update, must be below 2^31; got "
        "65536 × 65536 × 1",
    ),
    "episodes beyond a counter": (
        config_of(num_envs=2**20, horizon=2**20),
        "num_envs × horizon × action_repeat",
    ),
    "gradient steps beyond a counter": (
        config_of(estimator="ppo", num_updates=2**20, num_epochs=2**12),
        "num_updates × num_epochs × num_minibatches, the steps of the optimizer, must be below "
        "2^31",
    ),
    "steps of the optimizer that cannot be counted, by the size of a minibatch": (
        config_of(
            num_updates=2**30,
            estimator="ppo",
            collect="windows",
            num_envs=2,
            num_steps=4,
            minibatch_size=2,
        ),
        "num_epochs × (num_envs × num_steps / minibatch_size), the steps of the optimizer, must be "
        "below 2^31; got",
    ),
    "minibatches that do not divide": (
        config_of(estimator="ppo", num_envs=8, num_minibatches=3),
        "num_minibatches must divide num_envs=8, got 3",
    ),
    "groups that do not divide": (
        config_of(num_envs=8, group_size=3),
        "group_size must divide num_envs=8, got 3",
    ),
    "a layer of nothing": (
        config_of(hidden_sizes=(4, 0)),
        "hidden_sizes must be a whole number of at least 1, got 0",
    ),
    "one layer": (
        config_of(hidden_sizes=64),
        "hidden_sizes must be whole numbers, as in (64, 64); got 64",
    ),
    "layers as text": (
        config_of(hidden_sizes="64"),
        "hidden_sizes must be whole numbers, as in (64, 64); got '64'",
    ),
    "layers in an array without axes": (
        config_of(hidden_sizes=np.array(64)),
        "hidden_sizes must be whole numbers, as",
    ),
    "an entry below the first": (
        config_of(observe=(-1,)),
        "observe must be a whole number of at least 0, got -1",
    ),
    "a switch as text": (
        config_of(scale_rewards="no"),
        "scale_rewards must be True or False, got 'no'",
    ),
    "a switch as a number": (
        config_of(shared_torso=0),
        "shared_torso must be True or False, got 0",
    ),
    "an estimator that is misspelt": (
        config_of(estimator="renforce"),
        "'renforce': did you mean 'reinforce'",
    ),
    "an estimator as a list": (config_of(estimator=["gae"]), "unknown estimator ['gae']"),
    "no way of collecting": (
        config_of(collect=None),
        "unknown collect None: valid: episodes, windows",
    ),
    "an array for a name": (
        config_of(activation=np.array(["tanh"])),
        "unknown activation array(['tanh']",
    ),
    "a matrix for a name": (
        config_of(rnn=np.zeros((2, 2))),
        "unknown rnn array([[0., 0.], [0., 0.]]): valid",
    ),
    "an environment that is misspelt": (config_of(env="CartPol-v1"), "did you mean 'CartPole-v1'"),
    "a class for an environment": (
        config_of(env=Clock),
        "env must be a name or a gymnax environment, got the class",
    ),
    "no environment": (config_of(env=None), "got None without reset, step, default_params"),
    "parameters as a number": (
        config_of(env_params=3),
        "env_params must be names with numbers, as in {'gravity'",
    ),
    "parameters as text": (
        config_of(env_params="gravity=9"),
        "env_params must be names with numbers",
    ),
    "a parameter that is no number": (
        config_of(env_params={"gravity": "9"}),
        "gravity must be a finite number",
    ),
    "a parameter beyond 32 bits": (
        config_of(env_params={"gravity": 1e39}),
        "gravity must fit into 32 bits, got 1e+39",
    ),
    "no time": (
        config_of(env_params={"max_steps_in_episode": 0}),
        "max_steps_in_episode must be a whole number of",
    ),
    "half a step": (config_of(env_params={"max_steps_in_episode": 7.5}), "at least 1, got 7.5"),
    "windows of reinforce": (
        config_of(collect="windows"),
        "'reinforce' sums the reward to the end of the episode",
    ),
    "one episode against the others": (
        config_of(estimator="leave_one_out", num_envs=1),
        "num_envs must be at least 2 for estimator='leave_one_out'",
    ),
    "gamma above 1": (hyperparams_of(gamma=1.01), "gamma must be in [0, 1], got 1.01"),
    "gamma as text": (hyperparams_of(gamma="0.9"), "gamma must be in [0, 1], got '0.9'"),
    "no gamma": (hyperparams_of(gamma=None), "gamma must be in [0, 1], got None"),
    "a complex gamma": (hyperparams_of(gamma=1j), "gamma must be in [0, 1], got 1j"),
    "gamma that is true": (
        hyperparams_of(gamma=np.array(True)),
        "gamma must be in [0, 1], got array(True)",
    ),
    "lambda below 0": (hyperparams_of(gae_lambda=-0.1), "gae_lambda must be in [0, 1], got -0.1"),
    "several lambdas": (
        hyperparams_of(gae_lambda=np.zeros(3)),
        "gae_lambda must be one number, got an array of shape (3,)",
    ),
    "epsilon below 0": (
        hyperparams_of(epsilon=-0.2),
        "epsilon must be finite (at most 3.4e38 in magnitude) and at least 0",
    ),
    "n_step beyond a counter": (
        hyperparams_of(n_step=2**31),
        "n_step must be a whole number of at least 1 and below",
    ),
    "half a period": (
        hyperparams_of(snapshot_period=0.5),
        "snapshot_period must be a whole number of at least 1",
    ),
    "a step size beyond 32 bits": (
        hyperparams_of(learning_rate=1e39),
        "learning_rate must be finite (at most 3.4e38",
    ),
    "a critic's step beyond 32 bits": (
        hyperparams_of(learning_rate=1e30, critic_rate=1e30),
        "learning_rate × critic_rate must be finite (at most 3.4e38 in magnitude), got 1e+30 × "
        "1e+30",
    ),
    "a norm beyond 32 bits": (
        hyperparams_of(max_grad_norm=1e39),
        "max_grad_norm must be above 0 (inf: no clipping)",
    ),
    "a clip range that is none": (
        hyperparams_of(value_epsilon=math.nan),
        "value_epsilon must be at least 0",
    ),
    "a decay that is 1 in 32 bits": (
        hyperparams_of(baseline_decay=1 - 1e-9),
        "baseline_decay must be in [0, 1), and",
    ),
    "traced parameters that are none": (
        hyperparams_of(env_params=3),
        "env_params must be names with numbers",
    ),
    "a traced parameter as text": (
        hyperparams_of(env_params={"gravity": "9"}),
        "gravity must be a finite number",
    ),
    "a field of Hyperparams in Config": (
        config_of(learning_rate=1e-3),
        "Config has no field 'learning_rate': write config.hyperparams(learning_rate=0.001)",
    ),
    "a field of Config in Hyperparams": (
        hyperparams_of(num_envs=3),
        "Hyperparams has no field 'num_envs': write pg.Config(num_envs=3)",
    ),
    "a field of Config in _replace": (
        lambda: Hyperparams()._replace(num_envs=3),
        "write pg.Config(num_envs=3)",
    ),
    "a field of Hyperparams in replace": (
        lambda: replace(Config(preset=None), gamma=0.9),
        "Config has no field 'gamma': write config.hyperparams(gamma=0.9)",
    ),
    "another library's field of Config": (
        config_of(n_envs=8),
        "; help(pg.Config) lists them",
    ),
    "another library's field of Hyperparams": (
        hyperparams_of(lr=0.1),
        "'lr': did you mean 'learning_rate'? ",
    ),
    "another library's field of the other class": (
        config_of(lr=0.1),
        "write config.hyperparams(learning_rate=0.1)",
    ),
    "total steps in Config": (
        config_of(total_timesteps=10**6),
        "Config has no field 'total_timesteps': write num_updates=..., or "
        "pg.Config(...).lasting(total_steps=...)",
    ),
    "a seed in Config": (config_of(seed=0), "the seed is the key that training is given"),
    "an environment and its parameters": (
        lambda: Config(env=(Clock(), None), preset=None),
        "env must be a name or a gymnax environment, got a pair: write env, params = "
        "gymnax.make(...)",
    ),
    "a field of Config that is misspelt": (
        lambda: Config.from_json({"num_env": 3}),
        "did you mean 'num_envs'",
    ),
    "a Config in a list": (
        lambda: Config.from_json([1]),
        "Config must be stored as names with values, got list",
    ),
    "a number stored as text": (
        lambda: Config.from_json({"num_envs": "3"}),
        "num_envs must be a whole number",
    ),
    "a field of Hyperparams that is misspelt": (
        lambda: Hyperparams.from_json({"gama": 1}),
        "did you mean 'gamma'",
    ),
    "a hyperparameter stored as text": (
        lambda: Hyperparams.from_json({"gamma": "1"}),
        "gamma must be in [0, 1], got",
    ),
    "a hyperparameter stored as null": (lambda: Hyperparams.from_json({"gamma": None}), "got None"),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
