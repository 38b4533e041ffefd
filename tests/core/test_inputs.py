"""What may go in, and what is said to the rest: a sentence with field, value and range, before
anything is compiled.

Bad settings, environments, estimators and command lines one by one; then random ones, of which each
trains or is refused by a ValueError.
"""

import contextlib
import functools
import inspect
import io
import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnax.environments import spaces
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from toys import Clock, ClockState

import pg
from pg import sweep
from pg.commands import cli
from pg.commands.job import Options
from pg.config import (
    WHOLE_NUMBERS,
    Config,
    CriticOptimizer,
    Hyperparams,
    check_hyperparams,
)
from pg.distributions import Categorical, Gaussian
from pg.envs import configured, make_env
from pg.estimators import ESTIMATORS, Estimator, build_estimator
from pg.estimators.checks import checked
from pg.estimators.facts import FACTS
from pg.evaluate import evaluate
from pg.inputs import ALIASES, check_key, nearest
from pg.networks import Network, make_critic, make_policy
from pg.presets import preset
from pg.rollout import differentiable_episodes, episodes, returns_to_go, start, visited, windows
from pg.runs import execution
from pg.settings.choices import CHOICES
from pg.settings.ranges import RANGES
from pg.train import make_learner, make_train

KEY, H = jax.random.key(0), Hyperparams()
LARGE = 2**31
# beside the other caches
set_hypothesis_home_dir(Path(__file__).parents[2] / ".pytest_cache" / "hypothesis")


class Odd(Clock):
    """The clock, with something wrong: `change` is given the five values of step_env and gives
    others.
    """

    def __init__(
        self, change: Callable[..., Any] | None = None, obs: Any = None, **own: Any
    ) -> None:
        self.change, self.obs = change, obs
        for name, value in own.items():
            setattr(self, name, value)

    def reset_env(self, key: Any, params: Any) -> Any:
        _, state = super().reset_env(key, params)
        return self.get_obs(state), state

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        values = super().step_env(key, state, jnp.sum(action), params)
        return self.change(*values) if self.change else values

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Any:
        return super().get_obs(state) if self.obs is None else self.obs(state)


def acting(space: Any) -> Odd:
    return Odd(action_space=lambda params: space)


def boxed(low: Any, high: Any, shape: tuple[int, ...] = (1,)) -> Odd:
    return acting(spaces.Box(low, high, shape))


def seeing(space: Any, obs: Any = None) -> Odd:
    return Odd(obs=obs, observation_space=lambda params: space)


class OldStep:
    """gymnax before 1.0: five values, `done` for both ends, and no `step_env` of its own."""

    default_params = Clock().default_params
    reset = Clock().reset_env
    action_space, observation_space = Clock().action_space, Clock().observation_space

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return Clock().step_env(key, state, action, params)


class NoSuccessor(OldStep):
    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, done, info = Clock().step_env(key, state, action, params)
        return obs, state, reward, done, done, info


def config_of(**values: Any) -> Callable[[], object]:
    return lambda: Config(**values, preset=None)


def hyperparams_of(**values: Any) -> Callable[[], object]:
    return lambda: check_hyperparams(Hyperparams(**values))


def env_of(env: Any, **params: Any) -> Callable[[], object]:
    return lambda: make_env(env, 2, params)


def changed(change: Callable[..., Any]) -> Callable[[], object]:
    return env_of(Odd(change))


def learner_of(**values: Any) -> Callable[[], object]:
    return lambda: make_learner(
        Config(**{"num_envs": 2, "hidden_sizes": (4,), **values}, preset=None)
    )


def estimator_of(**replaced: Any) -> Callable[[], object]:
    """One update by `gae` with one of its functions, or a factory, replaced. Each is given what
    gae's gives.
    """

    def mine(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        gae = ESTIMATORS["gae"](policy, critic, h)

        def replace(name: str) -> Any:
            return lambda *args: replaced[name](*getattr(gae, name)(*args))

        return gae._replace(**{name: replace(name) for name in replaced})

    return functools.partial(one_update, mine)


def one_update(factory: Any) -> Any:
    config = Config(
        env=Clock(), num_updates=1, num_envs=2, hidden_sizes=(4,), horizon=2, preset=None
    )
    learner = make_learner(config, estimator=checked(factory))
    state = jax.eval_shape(learner.init, jax.random.key(0))
    return jax.eval_shape(learner.step, state, jax.random.key(0))


def handed(use: Callable[..., object], **settings: Any) -> Callable[[], object]:
    """`use` on a small config and, in one batch, what it trains: policy, env, params of the policy
    and a key.
    """

    def mistake() -> object:
        config = Config(
            **{
                "env": Clock(),
                "num_updates": 1,
                "num_envs": 2,
                "hidden_sizes": (4,),
                "horizon": 3,
                **settings,
            },
            preset=None,
        )
        env = configured(config, 2)
        state = make_learner(config).init(KEY)
        return use(
            SimpleNamespace(config=config, env=env, policy=make_policy(config, env), state=state)
        )

    return mistake


def estimator_from(weigh: Any) -> Callable[[], object]:
    """One update by the estimator that `weigh` makes, without a critic."""
    return lambda: one_update(lambda policy, critic, h: build_estimator(policy, None, h, weigh))


def built_with(**options: Any) -> Callable[[], object]:
    """One update by the estimator that `build_estimator` makes with these options, without a
    critic.
    """

    def mine(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        return build_estimator(policy, None, h, lambda p, s, traj: (traj.reward, (), ()), **options)

    return lambda: one_update(mine)


def critic_giving(change: Callable[[Any], Any]) -> Callable[[], object]:
    """One update of gae, whose critic gives something else than V."""

    def mine(policy: Any, critic: Network, h: Hyperparams) -> Estimator:
        def apply(*args: Any) -> Any:
            carry, v = critic.apply(*args)
            return carry, change(v)

        return ESTIMATORS["gae"](policy, critic._replace(apply=apply), h)

    return lambda: one_update(mine)


def logits_of(policy: Network) -> Callable[..., Any]:
    def apply(*args: Any) -> Any:
        carry, dist = policy.apply(*args)
        return carry, dist.logits

    return apply


def trained_by(optimizer: Any) -> Callable[[], object]:
    config = Config(num_updates=1, num_envs=2, hidden_sizes=(4,), preset=None)
    return lambda: make_learner(config, optimizer=optimizer)


J7: dict[str, tuple[Callable[[], object], str]] = {
    # Config: counts
    "no updates": (
        config_of(num_updates=0),
        "num_updates must be a whole number of at least 1, got 0",
    ),
    "updates beyond a counter": (config_of(num_updates=LARGE), "num_updates must be below 2^31"),
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
    "horizon beyond a counter": (config_of(horizon=LARGE), "horizon must be below 2^31"),
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
    "episodes of an environment beyond a counter": (
        lambda: configured(Config(env_params={"max_steps_in_episode": 2**30}, preset=None), 25),
        "the steps of one update, must be below 2^31; got 25 × 1073741824 × 1",
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
    # Config: the rest
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
    "an entry beyond the last": (
        lambda: configured(Config(observe=(0, 9), preset=None), 2),
        "observe must be below 4, the number of entries observed; got 9",
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
    "a parameter that does not exist": (
        env_of("CartPole-v1", gravty=9.8),
        "did you mean 'gravity'",
    ),
    "windows of reinforce": (
        config_of(collect="windows"),
        "'reinforce' sums the reward to the end of the episode",
    ),
    "one episode against the others": (
        config_of(estimator="leave_one_out", num_envs=1),
        "num_envs must be at least 2 for estimator='leave_one_out'",
    ),
    # parts that do not fit the environment
    "a sum over the actions of a Box": (
        learner_of(env="Pendulum-v1", estimator="all_action"),
        "estimator='all_action' sums over the actions, and so needs discrete ones",
    ),
    "a baseline of each action of a Box": (
        learner_of(env="Pendulum-v1", estimator="action_dependent_baseline"),
        "sums over the actions, and so needs discrete ones",
    ),
    "a law of a Box for two actions": (
        learner_of(action_distribution="squashed"),
        "action_distribution='squashed' is for continuous",
    ),
    "a deviation for two actions": (
        learner_of(state_dependent_std=True),
        "state_dependent_std=True is for continuous",
    ),
    "a convolution over a vector": (
        learner_of(network="cnn"),
        "network='cnn' needs observations [height, width",
    ),
    "a tanh without bounds": (
        learner_of(env=boxed(-jnp.inf, jnp.inf), action_distribution="squashed"),
        "action_distribution='squashed' needs a bounded Box of actions",
    ),
    # Hyperparams
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
        "epsilon must be finite (at most 3.4e38 in size) and at least 0",
    ),
    "n_step beyond a counter": (
        hyperparams_of(n_step=LARGE),
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
        "learning_rate × critic_rate must be finite (at most 3.4e38 in size), got 1e+30 × 1e+30",
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
    # environments
    "a reward of shape (1,)": (
        changed(lambda obs, state, reward, end, info: (obs, state, reward[None], end, info)),
        "the environment's reward must be a scalar, got shape (1,)",
    ),
    "a complex reward": (
        changed(lambda obs, state, reward, end, info: (obs, state, reward * 1j, end, info)),
        "the environment's reward must be a real number or a boolean, got complex64",
    ),
    "two ends": (
        changed(
            lambda obs, state, reward, end, info: (obs, state, reward, jnp.stack([end, end]), info)
        ),
        "the environment's terminated must be a scalar, got shape (2,)",
    ),
    "a limit of shape (1,)": (
        env_of(Odd(is_truncated=lambda state, params: state.time[None] >= 6)),
        "the environment's truncated must be a scalar, got shape (1,)",
    ),
    "a successor of another shape": (
        changed(lambda obs, *rest: (obs[:1], *rest)),
        "step must give observations like those of reset, float32 of shape (2,); got float32 of "
        "shape (1,)",
    ),
    "a successor of another dtype": (
        changed(lambda obs, *rest: (obs.astype(jnp.uint8), *rest)),
        "step must give observations like those of reset, float32 of shape (2,); got uint8 of "
        "shape (2,)",
    ),
    "a state of another shape": (
        changed(lambda obs, state, *rest: (obs, state.replace(place=state.place[None]), *rest)),
        "step must give a state like that of reset: .place had shape (), and then (1,)",
    ),
    "a state of another kind": (
        env_of(
            Odd(
                lambda obs, state, *rest: (obs, (state, 1), *rest),
                is_truncated=lambda state, params: False,
            )
        ),
        "step must give a state like that of reset: .time had shape (), and then none",
    ),
    "the step of an older gymnax": (
        env_of(OldStep()),
        "must give 6 values, obs, state, reward, terminated, truncated, info, as in gymnax 1.0",
    ),
    "a step without the successor": (
        env_of(NoSuccessor()),
        "the true successor, in info['final_observation']",
    ),
    "a step_env of six values": (
        changed(lambda obs, state, reward, end, info: (obs, state, reward, end, end, info)),
        "step_env must give 5 values, obs, state, reward, terminated, info",
    ),
    "a step_env of no values": (changed(lambda *values: None), "step_env must give 5 values"),
    "a step that fails": (
        changed(lambda obs, *rest: (obs @ jnp.zeros(3), *rest)),
        "the environment's step fails: TypeError: dot_general requires",
    ),
    "a reset that fails": (
        env_of(Odd(obs=lambda state: "text")),
        "the environment's reset fails: TypeError",
    ),
    "observations in a dictionary": (
        env_of(Odd(obs=lambda state: {"time": state.time})),
        "observations must be one array, got dict: flatten them in a wrapper",
    ),
    "complex observations": (
        env_of(Odd(obs=lambda state: jnp.zeros(2, complex))),
        "observations must be floats, whole numbers or booleans, got complex64 of shape (2,)",
    ),
    "observations that are keys": (
        env_of(Odd(obs=lambda state: jax.random.key(0))),
        "observations must be floats, whole numbers or booleans, got key<fry> of shape ()",
    ),
    "observations of nothing": (
        env_of(Odd(obs=lambda state: jnp.zeros((3, 0)))),
        "observations must have at least one entry, got shape (3, 0)",
    ),
    "discrete observations that are floats": (
        env_of(seeing(spaces.Discrete(3), lambda state: state.place)),
        "an observation of Discrete(3) must be one whole number, got float32 of shape ()",
    ),
    "no action": (env_of(acting(spaces.Discrete(0))), "Discrete actions must be at least 1, got 0"),
    "actions of another space": (
        env_of(acting(spaces.Dict({}))),
        "actions must be Discrete or Box, got Dict",
    ),
    "a bound that is NaN": (
        env_of(boxed(0.0, math.nan)),
        "a Box of actions must have low < high, got low=[0.0], high",
    ),
    "bounds in the wrong order": (
        env_of(boxed(1.0, -1.0)),
        "a Box of actions must have low < high, got low=[1.0]",
    ),
    "a Box without an inside": (
        env_of(boxed(1.0, 1.0)),
        "a Box of actions must have low < high, got low=[1.0]",
    ),
    "a Box of nothing": (
        env_of(boxed(0.0, 1.0, (0,))),
        "a Box of actions must have at least one entry",
    ),
    "bounds of another shape": (
        env_of(boxed(np.zeros(3), np.ones(3), (2,))),
        "bounds of a Box of shape (2,) cannot have shape (3,)",
    ),
    "a matrix of actions": (
        lambda: make_policy(Config(preset=None), make_env(boxed(0.0, 1.0, (2, 2)), 2)),
        "a Box of actions must have one axis, got shape (2, 2)",
    ),
    "parameters that are no dataclass": (
        lambda: make_env(type("Own", (Clock,), {"default_params": {"gravity": 9.8}})(), 2),
        "default_params must be a flax.struct.dataclass, got {'gravity': 9.8}",
    ),
    "parameters without a time limit": (
        lambda: make_env(
            type("Own", (Clock,), {"default_params": ClockState(time=0, place=0)})(), 2
        ),
        "default_params must have max_steps_in_episode",
    ),
    "a time limit of nothing": (
        env_of(Clock(), max_steps_in_episode=0),
        "max_steps_in_episode must be a whole number",
    ),
    # estimators
    "an estimator that is none": (
        lambda: one_update(lambda *parts: None),
        "must make an Estimator(init, weigh, grad)",
    ),
    "params that are no Params": (
        estimator_of(init=lambda params, state: (params.policy, state)),
        "the params of estimator 'mine' must be a Params, got dict",
    ),
    "no state": (
        estimator_of(init=lambda params, state: params.policy),
        "init of estimator 'mine' must give a pair",
    ),
    "a batch that is no Weighted": (
        estimator_of(weigh=lambda batch, state: (batch.psi, state)),
        "what weigh of estimator 'mine' gives first must be a Weighted, got ",
    ),
    "psi of another shape": (
        estimator_of(weigh=lambda batch, state: (batch._replace(psi=batch.psi[0]), state)),
        "psi of estimator 'mine' must be [T, B] = [2, 2] or [T, B, A], got shape (2,)",
    ),
    "a state that changes": (
        estimator_of(weigh=lambda batch, state: (batch, jnp.zeros(3))),
        "the state of estimator 'mine' after weigh:  must be absent, got float32 of shape (3,)",
    ),
    "gradients of the policy alone": (
        estimator_of(grad=lambda grads, metrics: (grads.policy, metrics)),
        "the gradients of estimator 'mine' must be a Params, got dict",
    ),
    "gradients without the critic": (
        estimator_of(grad=lambda grads, metrics: (grads._replace(critic=()), metrics)),
        "must be float32 of shape (1,), got nothing",
    ),
    "gradients of another shape": (
        estimator_of(grad=lambda grads, metrics: (jax.tree.map(lambda g: g[None], grads), metrics)),
        "the gradients of estimator 'mine': .policy['params']['head']['Dense_0']['bias'] must be "
        "float32 of shape",
    ),
    "gradients of another dtype": (
        estimator_of(
            grad=lambda grads, metrics: (
                jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads),
                metrics,
            )
        ),
        "got bfloat16 of shape (2,)",
    ),
    "gradients in a list": (
        estimator_of(
            grad=lambda grads, metrics: (grads._replace(critic=list(grads.critic)), metrics)
        ),
        "must be float32 of shape (1,), got nothing",
    ),
    "metrics per step": (
        estimator_of(grad=lambda grads, metrics: (grads, {"kl": jnp.zeros(3)})),
        "the metric 'kl' of estimator 'mine' must be one number, got float32 of shape (3,)",
    ),
    "a metric that is text": (
        estimator_of(grad=lambda grads, metrics: (grads, {"name": "mine"})),
        "the metric 'name' of estimator 'mine' must be one number, got str",
    ),
    "metrics in a tuple": (
        estimator_of(grad=lambda grads, metrics: (grads, (1.0,))),
        "the metrics of estimator 'mine' must be a dict, got tuple",
    ),
    "a weigh that gives psi alone": (
        estimator_from(lambda params, state, traj: traj.reward),
        "weigh must give psi, target, estimator_state, and V where value_epsilon is to bind it; "
        "got one value: without a critic and a state write `return psi, (), ()`",
    ),
    "a weigh that gives a pair": (
        estimator_from(lambda params, state, traj: (traj.reward, ())),
        "got a tuple of 2: without a critic and a state write `return psi, (), ()`",
    ),
    "a psi without environments": (
        estimator_from(lambda params, state, traj: (jnp.zeros((3, 5)), (), ())),
        "psi must be [T, B] = [2, 2], [B] for whole episodes, or [T, B, A] of every action; got "
        "shape [3, 5]: weigh must give one number for each step, psi[:, None] if all episodes have "
        "the same",
    ),
    "a weigh without the state": (
        estimator_from(lambda params, traj: traj.reward),
        "weigh must be a function of params, estimator_state, trajectory, got one that cannot be "
        "called so",
    ),
    **{
        f"a psi that is {given!r}": (
            estimator_from(lambda params, state, traj, given=given: (given, (), ())),
            f"psi must be an array of numbers, got {given!r}: weigh must give one number for each "
            f"step",
        )
        for given in (None, "psi", {})
    },
    "a psi of complex numbers": (
        estimator_from(lambda params, state, traj: (traj.reward * 1j, (), ())),
        "psi must be an array of numbers, got complex64: weigh must give one number for each step",
    ),
    "a V of weigh that is one number": (
        estimator_from(lambda params, state, traj: (traj.reward, (), (), 1)),
        "the V of weigh must be [T, B] = [2, 2], got shape []: weigh must give one number for each "
        "step",
    ),
    "a target that is text": (
        estimator_from(lambda params, state, traj: (traj.reward, "reward", ())),
        "the critic's target must be an array of numbers, got 'reward': weigh must give one number",
    ),
    "a weigh that gives another state": (
        estimator_from(lambda params, state, traj: (traj.reward, (), jnp.zeros(3))),
        "the state of estimator '<lambda>' after weigh:  must be absent, got float32 of shape (3,)",
    ),
    **{
        f"a critic that gives {name}": (
            critic_giving(change),
            f"the critic's output must be an array of numbers, got {said}: a critic of states "
            f"gives one number",
        )
        for name, change, said in (
            ("a pair", lambda v: (v, ()), "a tuple of array, tuple"),
            ("names", lambda v: {"V": 1}, "{'V': 1}"),
            ("nothing", lambda v: None, "None"),
        )
    },
    "a policy that gives logits": (
        handed(
            lambda x: episodes(
                x.env, Network(x.policy.init, logits_of(x.policy)), x.state.params.policy, KEY
            )
        ),
        "a policy must give a distribution, as pg.Categorical(logits), got an array without draw, "
        "sample",
    ),
    "a surrogate of nothing": (
        built_with(gain=lambda dist, batch: None),
        "the surrogate must be an array of numbers, got None: gain must give one number for each "
        "step",
    ),
    "the name of a surrogate": (
        built_with(gain="score"),
        "gain must be a function of distribution, weighted, got 'score': write a function that "
        "returns a surrogate",
    ),
    "a surrogate of the distribution alone": (
        built_with(gain=lambda dist: dist),
        "gain must be a function of distribution, weighted, got one that cannot be called so",
    ),
    "reports of nothing": (
        built_with(watch=lambda dist, batch: None),
        "watch must give names with values [T, B], got None",
    ),
    "a report that is one number": (
        built_with(watch=lambda dist, batch: {"psi": batch.psi[0, 0]}),
        "watch's 'psi' must be [T, B] = [2, 2], got shape []: watch must give one number for each "
        "step",
    ),
    "an unknown way of collecting": (
        built_with(accepts=("episode",)),
        "unknown way of collecting 'episode': did you mean 'episodes'?",
    ),
    "an environment for the policy of an estimator": (
        lambda: build_estimator(make_env("CartPole-v1", 1), None, H, lambda p, s, traj: ()),
        "policy must be a pg.Network, got an Env: write pg.make_policy(config, env)",
    ),
    "a Config for the Hyperparams of an estimator": (
        handed(lambda x: build_estimator(x.policy, None, x.config, lambda p, s, traj: ())),
        "hyperparams must be a pg.Hyperparams, got a Config: the Config comes first",
    ),
    "no target for a critic": (
        lambda: one_update(
            lambda *parts: build_estimator(*parts, lambda p, s, traj: (traj.reward, (), ()))
        ),
        "weigh gives no target for the critic: give one, [T, B], or build_estimator no critic",
    ),
    "an estimator as a name": (
        lambda: one_update("gae"),
        "got 'gae': write Config(estimator='gae')",
    ),
    "an estimator that is built": (
        lambda: one_update(
            ESTIMATORS["reinforce"](
                *[make_policy(Config(preset=None), make_env("CartPole-v1", 1))] * 2, H
            )
        ),
        "got an Estimator: give the function that makes it; write estimator=pg.ESTIMATORS['gae']",
    ),
    "an estimator of two arguments": (
        lambda: one_update(lambda policy, critic: None),
        "estimator must be a function of policy, critic, hyperparams, got one that cannot be "
        "called so: too many",
    ),
    # what is handed to a function
    "a preset for a Config": (
        lambda: make_train(preset("ppo")),
        "config must be a pg.Config, got a tuple of Config, Hyperparams: pg.preset gives a pair, "
        "so write make_train(*pg.preset(...))",
    ),
    "a preset for the Config of a learner": (
        lambda: make_learner(preset("ppo")),
        "pg.preset gives a pair, so write",
    ),
    "Hyperparams for a Config": (
        lambda: make_train(H, Config(preset=None)),
        "got a Hyperparams: the Config comes first",
    ),
    "a Config for Hyperparams": (
        lambda: make_train(Config(preset=None), Config(preset=None)),
        "got a Config: the Config comes first",
    ),
    "a dictionary for a Config": (
        lambda: make_train({"env": "CartPole-v1"}),
        "got {'env': 'CartPole-v1'}: write pg.Config(env='CartPole-v1')",
    ),
    "the name of an environment for a Config": (
        lambda: make_train("CartPole-v1"),
        "config must be a pg.Config, got 'CartPole-v1': write pg.Config(env='CartPole-v1')",
    ),
    "the name of an estimator for a Config": (
        lambda: make_learner("ppo"),
        "got 'ppo': write *pg.preset('ppo')",
    ),
    "a dictionary for Hyperparams": (
        handed(lambda x: make_train(x.config)(KEY, {"gamma": 0.9})),
        "hyperparams must be a pg.Hyperparams, got {'gamma': 0.9}: write pg.Hyperparams(gamma=0.9)",
    ),
    "a number for Hyperparams": (
        handed(lambda x: make_train(x.config)(KEY, 0.1)),
        "got 0.1: write pg.Hyperparams(learning_rate=0.1)",
    ),
    "a dictionary for the Hyperparams of runs": (
        lambda: execution.run(Config(preset=None), {"gamma": 0.9}, [0]),
        "got {'gamma': 0.9}: write pg.Hyperparams(gamma=0.9)",
    ),
    "a dictionary for the points of a sweep": (
        lambda: sweep.sweep(Config(preset=None), range(2), {"gamma": [0.9]}),
        "got {'gamma': [0.9]}: write pg.Hyperparams(gamma=[0.9])",
    ),
    "a number for the values of a sweep": (
        lambda: sweep.grid(learning_rate=0.1),
        "learning_rate must be a sequence of values or a Range, as in [0.1]; got 0.1",
    ),
    "a field of Hyperparams in Config": (
        config_of(learning_rate=1e-3),
        "Config has no field 'learning_rate': write pg.Hyperparams(learning_rate=0.001)",
    ),
    "a field of Config in Hyperparams": (
        hyperparams_of(num_envs=3),
        "Hyperparams has no field 'num_envs': write pg.Config(num_envs=3)",
    ),
    "a field of Config in _replace": (
        lambda: H._replace(num_envs=3),
        "write pg.Config(num_envs=3)",
    ),
    "a field of Hyperparams in replace": (
        lambda: replace(Config(preset=None), gamma=0.9),
        "Config has no field 'gamma': write pg.Hyperparams(gamma=0.9)",
    ),
    "another library's field of Config": (
        config_of(n_envs=8),
        "'n_envs': did you mean 'num_envs'? valid: ",
    ),
    "another library's field of Hyperparams": (
        hyperparams_of(lr=0.1),
        "'lr': did you mean 'learning_rate'? valid: ",
    ),
    "another library's field of the other class": (
        config_of(lr=0.1),
        "write pg.Hyperparams(learning_rate=0.1)",
    ),
    "another library's setting of a preset": (
        lambda: preset("ppo", n_epochs=4),
        "did you mean 'num_epochs'?",
    ),
    "another library's hyperparameter of a sweep": (
        lambda: sweep.grid(ent_coef=[0.1]),
        "mean 'entropy_coef'?",
    ),
    "total steps in Config": (
        config_of(total_timesteps=10**6),
        "Config has no field 'total_timesteps': write num_updates=..., or "
        "pg.Config(...).lasting(total_steps=...)",
    ),
    "a seed in Config": (config_of(seed=0), "the seed is the key that training is given"),
    "total steps of episodes": (
        lambda: preset("reinforce", total_steps=1000),
        "total_steps needs collect='windows': with episodes, whose length is not known ahead, give "
        "num_updates",
    ),
    "total steps and updates": (
        lambda: preset("ppo", total_steps=1000, num_updates=2),
        "total_steps and num_updates exclude each other",
    ),
    **{
        f"the values of a {search.__name__} by position": (
            functools.partial(search, *num, [0.1]),
            "hyperparams must be a pg.Hyperparams, got [0.1]: write "
            "pg.Hyperparams(learning_rate=...)",
        )
        for search, num in ((sweep.grid, ()), (sweep.random, (2,)), (sweep.sobol, (2,)))
    },
    "half a point of a search": (
        lambda: sweep.random(1.5, learning_rate=sweep.Range(0.1, 1.0)),
        "points must be a whole number of at least 1, got 1.5",
    ),
    "the name of an optimizer for a Config": (
        lambda: pg.make_optimizer("adam", H),
        "config must be a pg.Config, got 'adam'",
    ),
    "Hyperparams and Config changed about": (
        lambda: pg.make_optimizer(H, Config(preset=None)),
        "config must be a pg.Config, got a Hyperparams: the Config comes first, and then the "
        "Hyperparams",
    ),
    "an objective as a name": (
        lambda: pg.evolution_gradient("return", jnp.zeros(2), KEY, 4),
        "objective must be a function of params, key, got 'return'",
    ),
    "an objective of each episode": (
        lambda: pg.evolution_gradient(lambda params, key: jnp.zeros(3), jnp.zeros(2), KEY, 4),
        "the objective must be one number, got shape [3]: take the mean over episodes",
    ),
    "half a pair": (
        lambda: pg.evolution_gradient(lambda params, key: params.sum(), jnp.zeros(2), KEY, 2.5),
        "num_pairs must be a whole number of at least 1, got 2.5",
    ),
    "a number for the key of evolution": (
        lambda: pg.evolution_gradient(lambda params, key: params.sum(), jnp.zeros(2), 0, 4),
        "key must be a random key, got 0",
    ),
    "half a step in all": (
        lambda: preset("ppo", total_steps=1.5),
        "total_steps must be a whole number of at least 1",
    ),
    "an optimizer with its rate": (
        trained_by(optax.adam(1e-3)),
        "optimizer must be a function of learning_rate, got a GradientTransformationExtraArgs: "
        "write optimizer=optax.adam, as the rate is Hyperparams(learning_rate=...)",
    ),
    "an optimizer as a name": (trained_by("adam"), "got 'adam': write Config(optimizer='adam')"),
    "an optimizer of nothing": (
        trained_by(lambda: optax.adam(1e-3)),
        "got one that cannot be called so: too many",
    ),
    "an optimizer that makes a number": (
        trained_by(lambda rate: rate),
        "optimizer must make an optax.GradientTransformation, got float",
    ),
    "all parameters for the policy's": (
        handed(lambda x: evaluate(x.config, x.state.params, KEY, 2)),
        "params must be those of one network, got a Params: write params.policy",
    ),
    "a state for parameters": (
        handed(lambda x: evaluate(x.config, x.state, KEY, 2)),
        "params must be those of one network, got a TrainState: write state.params.policy",
    ),
    "all parameters for the policy's in a rollout": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params, KEY)),
        "params must be those of one network, got a Params: write params.policy",
    ),
    "a network for parameters": (
        handed(lambda x: evaluate(x.config, x.policy, KEY, 2)),
        "params must be a tree of arrays, as policy.init(key) gives it, got a Network",
    ),
    "no parameters": (
        handed(lambda x: evaluate(x.config, None, KEY, 2)),
        "params must be those of one network, got None: write policy.init(key), or "
        "state.params.policy",
    ),
    "observations of another environment": (
        handed(
            lambda x: x.policy.apply(
                x.state.params.policy, (), jnp.zeros((2, 7)), jnp.ones(2, bool)
            )
        ),
        "obs must have the shape of the environment's, [2], after any other axes, got shape [2, 7]",
    ),
    "text for observations": (
        handed(lambda x: x.policy.apply(x.state.params.policy, (), "obs", jnp.ones(2, bool))),
        "obs must be an array of numbers, got 'obs'",
    ),
    "a number for the key of parameters": (
        handed(lambda x: x.policy.init(0)),
        "write jax.random.key(0)",
    ),
    "parameters for a state": (
        handed(lambda x: make_learner(x.config).step(x.state.params, KEY)),
        "state must be a pg.TrainState, got a Params: write learner.init(key)",
    ),
    "a state for a normaliser": (
        handed(lambda x: evaluate(x.config, x.state.params.policy, KEY, 2, normaliser=x.state)),
        "normaliser must be a pg.normalisation.Normaliser, got a TrainState: write "
        "state.normaliser",
    ),
    "a number for parameters of the environment": (
        handed(lambda x: evaluate(x.config, x.state.params.policy, KEY, 2, env_params=3)),
        "env_params must be names with numbers, as in {'gravity': 9.8}; got 3",
    ),
    "a switch of an evaluation as text": (
        handed(lambda x: evaluate(x.config, x.state.params.policy, KEY, 2, greedy="no")),
        "greedy must be True or False, got 'no'",
    ),
    "parameters of several runs": (
        handed(
            lambda x: evaluate(
                x.config, jax.tree.map(lambda p: jnp.stack([p, p]), x.state.params.policy), KEY
            )
        ),
        "params are those of 2 runs: take one of them, jax.tree.map(lambda x: x[0], params), or "
        "use jax.vmap",
    ),
    "parameters of another Config": (
        handed(
            lambda x: evaluate(replace(x.config, hidden_sizes=(5,)), x.state.params.policy, KEY)
        ),
        "params do not fit this network: ['params']['head']['Dense_0']['kernel'] must have shape "
        "(5, 2), got (4, 2)",
    ),
    "a pair for the Config of an evaluation": (
        handed(lambda x: evaluate((x.config, H), x.state.params.policy, KEY)),
        "config must be a pg.Config, got a tuple of Config, Hyperparams",
    ),
    "a number for a key": (
        handed(lambda x: make_train(x.config)(0)),
        "key must be a random key, got 0: write jax.random.key(0), where 0 is the seed",
    ),
    "a number for the key of a learner": (
        handed(lambda x: make_learner(x.config).init(0)),
        "write jax.random.key(0)",
    ),
    "a number for the key of episodes": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, 0)),
        "key must be a random key, got 0: write jax.random.key(0)",
    ),
    "a number for the key of a reset": (
        handed(lambda x: x.env.reset(0)),
        "write jax.random.key(0)",
    ),
    "keys for a key": (
        handed(lambda x: make_train(x.config)(jax.random.split(KEY, 3))),
        "key must be one random key, got an array of them, of shape (3,): use jax.vmap",
    ),
    "key and state changed about": (
        handed(lambda x: make_learner(x.config).step(KEY, x.state)),
        "key must be a random key, got a TrainState",
    ),
    "a number for seeds": (
        lambda: execution.run(Config(preset=None), H, 3),
        "seeds must be whole numbers, as in range(5) or [0]",
    ),
    "text for a seed": (
        lambda: execution.run(Config(preset=None), H, ["a"]),
        "a seed must be a whole number in [0, 2^32), got 'a'",
    ),
    "the name of an environment for one": (
        lambda: make_policy(Config(preset=None), "CartPole-v1"),
        "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
    ),
    "an environment of gymnax for one": (
        lambda: make_critic(Config(preset=None), Clock()),
        "env must be a pg.Env, got a Clock: write pg.make_env(env, num_envs=8)",
    ),
    "an environment and its parameters": (
        lambda: Config(env=(Clock(), None), preset=None),
        "env must be a name or a gymnax environment, got a pair: write env, params = "
        "gymnax.make(...)",
    ),
    "a Config for a policy": (
        handed(lambda x: episodes(x.env, x.config, x.state.params.policy, KEY)),
        "policy must be a pg.Network, got a Config: write pg.make_policy(config, env)",
    ),
    "a key for noise": (
        lambda: Categorical(jnp.zeros(2)).sample(KEY),
        "sample takes noise, got key<fry>: write dist.sample(dist.draw(key))",
    ),
    "a key of the old kind for noise": (
        lambda: Gaussian(jnp.zeros(2), jnp.zeros(2)).sample(jax.random.PRNGKey(0)),
        "sample takes noise, got uint32: write dist.sample(dist.draw(key))",
    ),
    "four seeds for a key": (
        handed(lambda x: make_train(x.config)(np.arange(4, dtype=np.uint32))),
        "key must be a random key, of shape (2,) where it is an array of uint32; got shape (4,): "
        "write",
    ),
    "keys of the old kind for a key": (
        handed(lambda x: make_train(x.config)(jax.random.split(jax.random.PRNGKey(0), 3))),
        "key must be one random key, got an array of them, of shape (3, 2): use jax.vmap",
    ),
    "parameters and key changed about": (
        handed(lambda x: episodes(x.env, x.policy, KEY, x.state.params.policy)),
        "key must be a random key, got a dict: write",
    ),
    "policy and environment changed about": (
        handed(lambda x: episodes(x.policy, x.env, x.state.params.policy, KEY)),
        "env must be a pg.Env, got a Network: the environment comes first, and then the policy",
    ),
    **{
        f"the name of an environment in {function.__name__}": (
            handed(lambda x, f=function: f("CartPole-v1", x.policy, x.state.params.policy, KEY)),
            "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
        )
        for function in (episodes, differentiable_episodes, visited)
    },
    "the name of an environment in returns_to_go": (
        handed(lambda x: returns_to_go("CartPole-v1", x.policy, (), KEY, (), (), 1.0)),
        "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
    ),
    "the name of an environment in pathwise_gradient": (
        handed(lambda x: pg.pathwise_gradient("CartPole-v1", x.policy, x.state.params.policy, KEY)),
        "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
    ),
    "half a step of episodes": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, KEY, 2.5)),
        "horizon must be a whole number of at least 1, got 2.5",
    ),
    "groups of none": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, KEY, group_size=0)),
        "group_size must be a whole number of at least 1, got 0",
    ),
    "the name of a way to act": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, KEY, act="greedy")),
        "act must be a function of distribution, noise, got 'greedy': write pg.rollout.sample, or "
        "pg.rollout.greedy",
    ),
    "a derivative through discrete actions": (
        handed(lambda x: differentiable_episodes(x.env, x.policy, x.state.params.policy, KEY)),
        "a Categorical has no `reparameterised`: use an environment whose actions are a Box",
    ),
    "a state of training for where environments stand": (
        handed(lambda x: windows(x.env, x.policy, x.state.params.policy, KEY, x.state, 3)),
        "state must be a pg.rollout.RolloutState, got a TrainState: write pg.rollout.start(env, "
        "policy, key), or",
    ),
    "the standing of other environments": (
        handed(
            lambda x: windows(
                configured(x.config, 3), x.policy, (), KEY, start(x.env, x.policy, KEY), 3
            )
        ),
        "state must be where 3 environments stand, got one of shape [2]: make env with as many",
    ),
    "half a step of a window": (
        handed(
            lambda x: windows(x.env, x.policy, (), KEY, start(x.env, x.policy, KEY), 2.5),
        ),
        "num_steps must be a whole number of at least 1, got 2.5",
    ),
    "one action for all environments": (
        handed(
            lambda x: returns_to_go(
                x.env, x.policy, (), KEY, start(x.env, x.policy, KEY), jnp.int32(0), 1.0
            )
        ),
        "action must have 2 entries, one for each environment, got shape []",
    ),
    # what was stored
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


@pytest.fixture(scope="module", autouse=True)
def jax_has_started() -> None:
    """What the first program costs is not the mistake's."""
    one_update(ESTIMATORS["gae"])


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", J7)
def test_a_mistake_is_one_sentence_within_a_second(case: str) -> None:
    mistake, expected = J7[case]
    began = time.process_time()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole of the message is compared below
        mistake()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 1.0


@pytest.mark.acceptance("INPUTS")
def test_what_is_handed_over_and_right() -> None:
    """A preset is unpacked into what trains, and keys of the old kind are keys."""
    changes = {
        "num_updates": 1,
        "num_envs": 2,
        "num_steps": 2,
        "hidden_sizes": (4,),
        "num_minibatches": 1,
    }
    pair = preset("ppo", env=Clock(), **changes, learning_rate=0.5)
    state, _ = make_train(*pair)(KEY)
    by_hand, _ = make_train(pair[0])(KEY, pair[1])
    usual, _ = make_train(pair[0])(KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, by_hand.params))
    assert not jax.tree.all(jax.tree.map(np.array_equal, state.params, usual.params))
    old, _ = make_train(*pair)(jax.random.PRNGKey(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, old.params))
    assert not np.isnan(
        evaluate(pair[0], state.params.policy, jax.random.PRNGKey(1), 2).returns
    ).any()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("make_trian", "did you mean pg.make_train or "),
        ("Conifg", "did you mean pg.Config or "),
        ("hyperparams", "did you mean pg.Hyperparams?"),
        ("PPO", "an estimator goes by its name, as in pg.preset('ppo')"),
        ("A2C", "as in pg.preset('actor_critic')"),
    ],
)
def test_a_public_name_that_is_misspelt(name: str, said: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(said)):
        getattr(pg, name)
    assert not hasattr(pg, "__wrapped__")  # what tools look for is not there, and that is all


def test_words_of_other_libraries_stand_for_what_is_here() -> None:
    flags = {
        *vars(Options()),
        "total_steps",
        "minibatch_size",
        *H.scalars(),
        *(f.name for f in fields(Config)),
        *FACTS,
    }
    for word, meant in ALIASES.items():
        assert word not in flags, word
        assert [meant] == [name.strip("_") for name in nearest(word, flags)], word
        assert nearest(word.replace("_", "-").upper(), flags) == nearest(word, flags)


@pytest.mark.acceptance("INPUTS")
def test_no_mistakes() -> None:
    """What the checks must let pass."""
    for obs in (
        lambda s: s.time,
        lambda s: s.time.astype(jnp.uint8)[None],
        lambda s: s.place > 1,
        lambda s: s.place,
    ):
        assert make_env(Odd(obs=obs), 2).obs_shape == (1,)
    for name, factory in ESTIMATORS.items():
        assert factory.__name__ == checked(factory).__name__ == name
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


WHOLE = st.sampled_from([1, 2, 3, 4])
# Values that are right by themselves, of every field of Config and of Hyperparams.
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "env": st.sampled_from(["CartPole-v1", "Pendulum-v1", "Catch-bsuite", "MemoryChain-bsuite"]),
    "env_params": st.sampled_from([(), {}, {"max_steps_in_episode": 5}]),
    "estimator": st.sampled_from(list(FACTS)),
    "num_updates": st.just(3),
    "num_envs": st.sampled_from([1, 2, 4]),
    "group_size": st.sampled_from([1, 1, 2]),
    "num_epochs": st.sampled_from([1, 1, 2]),
    "num_minibatches": st.sampled_from([1, 1, 2]),
    "minibatch_size": st.sampled_from([None, None, 1, 2, 4]),
    "horizon": st.sampled_from([1, 2, 5, 6]),
    "hidden_sizes": st.sampled_from([(4,), (4,), (), (4, 3), [4]]),
    "observe": st.sampled_from([(), (), (), (0,)]),
    "critic_optimizer": st.sampled_from([None, *get_args(CriticOptimizer)]),
    "preset": st.sampled_from([None, None, "auto", "ppo", "natural"]),
    **{name: st.sampled_from((names[0], *names)) for name, names in CHOICES.items()},
    **dict.fromkeys(("num_steps", "action_repeat", "rnn_size", "n_step", "snapshot_period"), WHOLE),
    **{
        field.name: st.sampled_from([False, False, True])
        for field in fields(Config)
        if field.type is bool
    },
    **{
        name: st.sampled_from(
            [x for x in (max(low, -1.0), 0.0, 1e-3, 0.5, min(1.0, high)) if low <= x <= high]
        )
        for name, (low, high, allowed) in RANGES.items()
        if "whole" not in allowed
    },
}
NAMES = [*(field.name for field in fields(Config)), *Hyperparams().scalars()]
ALWAYS = ("env", "num_updates", "num_envs", "horizon", "hidden_sizes")
JUNK = st.sampled_from(
    [
        *(
            None,
            "",
            "abc",
            "3",
            b"x",
            -1,
            0,
            0.0,
            1.5,
            1e39,
            2**31,
            10**400,
            math.nan,
            math.inf,
            -math.inf,
            1j,
        ),
        *(
            (),
            (0,),
            (1.5,),
            [None],
            {},
            {"a": "b"},
            {"gravity": 1e39},
            {"": 1},
            {1: 2},
            [("gravity",)],
            object(),
            int,
        ),
        *(
            np.float32(0.5),
            np.array([1, 2]),
            np.zeros((2, 2)),
            np.array("tanh"),
            np.array(True),
            np.nan,
            Clock,
        ),
    ]
)


@st.composite
def requests(draw: st.DrawFn, wrong: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords for Config and for Hyperparams: some fields, of which up to `wrong` hold what came
    along.
    """
    estimator = draw(RIGHT["estimator"])
    values = {"estimator": estimator, "collect": draw(st.sampled_from(FACTS[estimator].collect))}
    chosen = draw(st.lists(st.sampled_from(NAMES), max_size=9, unique=True))
    values |= {name: draw(RIGHT[name]) for name in (*ALWAYS, *chosen) if name not in values}
    values |= draw(st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=wrong))
    static = {name: value for name, value in values.items() if name in Config.__dataclass_fields__}
    return static, {name: value for name, value in values.items() if name not in static}


def built(static: dict[str, Any], traced: dict[str, Any]) -> Callable[..., Any] | None:
    """Training, or None where the settings are refused."""
    try:
        train = functools.partial(
            make_train(Config(**{"preset": None, **static})), hyperparams=Hyperparams(**traced)
        )
        jax.eval_shape(train, jax.random.key(0))
    except ValueError as error:
        message = str(error)
    else:
        return train
    assert message.strip()
    assert "\n" not in message
    return None


FUZZ = settings(
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


# Programs that run for a millisecond need not be fast.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.mark.acceptance("INPUTS")
@settings(FUZZ, max_examples=50)
@given(requests())
def test_random_settings_are_traced_or_refused(
    values: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    assert set(RIGHT) == set(NAMES)
    built(*values)


@pytest.mark.slow
@pytest.mark.acceptance("INPUTS")
@settings(FUZZ, max_examples=4)
@given(requests(wrong=0))
def test_random_settings_train_or_are_refused(
    values: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    train = built(*values)
    if train is not None:
        state, metrics = jax.jit(train, compiler_options=QUICKLY)(jax.random.key(0))
        assert metrics["grad_norm"].shape == (3,)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


BESIDE = (
    "--seed 3",
    "--greedy",
    "--eval-episodes 5",
    "--hidden-sizes 8 8",
    "--out results",
    "",
)  # right, with any other
NOT_ENOUGH = ("abc", "", "1,5", "nan", "--")
FLOATS = [
    f"--{name.strip('_').replace('_', '-')}"
    for name, row in RANGES.items()
    if "whole" not in row[2]
]
INTS = [
    "--n-step",
    "--snapshot-period",
    "--horizon",
    "--seed",
    "--seeds",
    "--eval-episodes",
    "--cpu-devices",
]
INTS += [f"--{field.name.replace('_', '-')}" for field in fields(Config) if field.type is int]
CHOICES = [f"--{name.replace('_', '-')}" for name in CHOICES] + ["--shard", "--env", "--estimator"]
SWITCHES = [f"--{field.name.replace('_', '-')}" for field in fields(Config) if field.type is bool]
FLAGS = (
    FLOATS + INTS + CHOICES + SWITCHES + ["--env-params", "--observe", "--hidden-sizes", "--out"]
)
OUT_OF_RANGE = [
    *(
        "--gamma 1.5",
        "--gae-lambda -0.1",
        "--epsilon -1",
        "--beta 2",
        "--momentum 1.01",
        "--max-kl 0",
        "--damping -1",
    ),
    *(
        "--max-grad-norm 0",
        "--baseline-decay 1",
        "--learning-rate -0.1",
        "--learning-rate 1e39",
        "--gamma inf",
    ),
    *(
        "--seed -1",
        "--seed 4294967296",
        "--seeds 0",
        "--eval-episodes 0",
        "--cpu-devices 0",
        "--horizon 0",
    ),
    *(
        "--hidden-sizes 0",
        "--hidden-sizes 8 -8",
        "--observe -1",
        "--n-step 0",
        "--n-step 1e10",
        "--num-envs 0",
    ),
    *(
        "--num-envs 2.5",
        "--num-updates 3e9",
        "--num-steps -4",
        "--group-size 0",
        "--rnn-size 0",
        "--num-envs 1e400",
    ),
    *(
        "--env-params max_steps_in_episode=0",
        "--env-params gravity=inf",
        "--env-params gravity=1e39",
    ),
    *(
        "--env-params gravity",
        "--env-params gravity=heavy",
        "--env-params max_steps_in_episode=2.5",
    ),
]
TOGETHER = [
    *(
        "--estimator reinforce --collect windows",
        "--estimator gpomdp --collect episodes",
        "--estimator grpo",
    ),
    *(
        "--estimator leave_one_out --num-envs 1",
        "--estimator gae --num-epochs 4",
        "--num-envs 8 --group-size 3",
    ),
    *(
        "--estimator ppo --num-envs 8 --num-minibatches 3",
        "--estimator all_action --optimizer trpo",
    ),
    *(
        "--estimator gae --optimizer storm",
        "--optimizer natural --rnn gru",
        "--estimator ppo --optimizer trpo",
    ),
    *(
        "--estimator reinforce --shared-torso",
        "--estimator grpo --advantages batch",
        "--num-envs 1e6 --horizon 1e6",
    ),
    *(
        "--num-processes 2",
        "--coordinator here:1 --num-processes 2 --process-id 2",
        "--env MNISTBandit-bsuite",
    ),
    *(
        "--estimator vtrace --num-minibatches 2",
        "--estimator ppo --shared-torso --optimizer svrpg",
        "surplus",
    ),
    *(
        "--estimator entropy_reward --optimizer storm",
        "--estimator reinforce --optimizer svrpg --temperature 0.1",
    ),
]
TOGETHER[2] += " --group-size 1"
TOGETHER[8] += " --collect windows"
TOGETHER[10] += " --shared-torso"


def misspelt(rng: random.Random, word: str) -> str:
    """The word with a letter left out, doubled, or moved."""
    i = rng.randrange(3, len(word))
    return rng.choice(
        [
            word[:i] + word[i + 1 :],
            word[:i] + word[i] + word[i:],
            word[:i] + word[i + 1 :] + word[i],
        ]
    )


def bad_arguments(rng: random.Random) -> list[str]:
    """A mistake of a random kind, with flags that are right before or behind it."""
    kind = rng.randrange(6)
    if kind == 0:
        flag = rng.choice(
            [f for f in (misspelt(rng, rng.choice(FLAGS)) for _ in range(9)) if f not in FLAGS]
        )
        wrong = [flag, "1"]
    elif kind == 1:
        wrong = [rng.choice(FLOATS), rng.choice(NOT_ENOUGH)]
    elif kind == 2:
        wrong = [rng.choice(INTS), rng.choice((*NOT_ENOUGH, "1.5", "inf", "-inf", "-1", "1e30"))]
    elif kind == 3:
        wrong = [
            rng.choice(CHOICES),
            misspelt(rng, rng.choice(("CartPole-v1", "windows", "tanh", "reinforce", "adam"))),
        ]
    else:
        wrong = rng.choice(OUT_OF_RANGE if kind == 4 else TOGETHER).split()
    beside = [words.split() for words in BESIDE if words.partition(" ")[0] not in wrong]
    parts = [wrong, *rng.sample(beside, 2)]
    if wrong[-1] not in ("surplus", "--"):
        rng.shuffle(parts)
    return [word for words in parts for word in words]


@pytest.mark.acceptance("INPUTS")
@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_bad_command_lines(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Exit code 2 and a message, each within ten seconds."""
    # most of the time
    monkeypatch.setattr(cli, "_field_docstrings", functools.cache(cli._field_docstrings))
    monkeypatch.setattr(inspect, "getsource", functools.cache(inspect.getsource))
    rng, answered = random.Random(0), 0
    while answered < count:
        argv, err, began = bad_arguments(rng), io.StringIO(), time.process_time()
        try:
            with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
                cli.parse("train.py", "doc", Options, argv)
        except BaseException as error:
            error.add_note(f"arguments: {argv}")
            raise
        assert stopped.value.code == 2, argv
        assert err.getvalue().strip(), argv
        assert "Traceback" not in err.getvalue(), argv
        assert time.process_time() - began < 10, argv
        answered += 1


def test_the_shape_of_old_keys_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each kind of keys that jax may have."""
    with jax.default_prng_impl("rbg"):
        check_key(jax.random.PRNGKey(0))
    check_key(jax.random.PRNGKey(0))
    monkeypatch.setattr(jax, "eval_shape", None)
    check_key(jax.random.PRNGKey(0))
    with jax.default_prng_impl("rbg"):
        check_key(jax.random.PRNGKey(0))


@pytest.mark.parametrize("name", [n for n in Hyperparams().scalars() if n not in WHOLE_NUMBERS])
def test_a_whole_number_is_a_float_where_floats_are_expected(name: str) -> None:
    """Traced as it is, one that 32 bits do not hold would end in an error of jax."""
    whole = 2**31 if RANGES[name][1] > 2**31 else int(RANGES[name][1])
    checked = check_hyperparams(Hyperparams(**{name: whole}))
    assert type(getattr(checked, name)) is float
    assert getattr(checked, name) == whole
    jax.jit(lambda x: x)(getattr(checked, name))
