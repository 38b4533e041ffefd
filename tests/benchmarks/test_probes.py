"""Probe environments: each isolates one thing that a learner must get right, and is solved in
seconds.

constant   one step, reward 1                     V(s) = 1
observed   one step, reward = observation ±1      V(s) = s
delayed    two steps, reward 1 at the second      V(s₀) = γ, V(s₁) = 1
action     one step, action 1 is rewarded         π(1) → 1
both       one step, the action must match        π(a = s) → 1
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import ClockState, Target
from flax import struct
from gymnax.environments import environment, spaces

from pg.config import Config, Hyperparams
from pg.envs import make_env
from pg.estimators.base import critic_output, policy_output
from pg.estimators.facts import FACTS, ON_TABLES, estimators_with
from pg.networks import make_critic, make_policy
from pg.rollout import episodes
from pg.train import make_train

GAMMA = 0.8


class Probe(environment.Environment):
    """One of the five; the observation is (side, time)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=3)

    def reset_env(
        self, key: jax.Array, params: environment.EnvParams
    ) -> tuple[jax.Array, ClockState]:
        side = (
            jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
            if self.kind in ("observed", "both")
            else 1.0
        )
        state = ClockState(place=jnp.asarray(side, float), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: ClockState, action: Any, params: environment.EnvParams
    ) -> Any:
        done = state.time == (1 if self.kind == "delayed" else 0)
        reward = {
            "constant": jnp.float32(1.0),
            "observed": state.place,
            "delayed": jnp.where(done, 1.0, 0.0),
            "action": jnp.where(action == 1, 1.0, -1.0),
            "both": jnp.where((action == 1) == (state.place > 0), 1.0, -1.0),
        }[self.kind]
        state = ClockState(place=state.place, time=state.time + 1)
        return self.get_obs(state), state, reward, done, {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.place, state.time.astype(float)])

    def action_space(self, params: environment.EnvParams) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: environment.EnvParams) -> spaces.Box:
        return spaces.Box(-1.0, 3.0, (2,), jnp.float32)


def learned(kind: str, estimator: str) -> tuple[Any, np.ndarray, Any]:
    """Fresh episodes after training, V along them where there is a V, and π along them."""
    group = 8 if FACTS[estimator].baseline == "group" else 1
    sizes = {
        "num_envs": 32,
        "num_steps": 4,
        "num_updates": 200,
        "group_size": group,
        "hidden_sizes": (16,),
    }
    config = Config(
        env=Probe(kind),
        estimator=estimator,
        collect=FACTS[estimator].collect[0],
        **sizes,
        preset=None,
    )
    params = jax.jit(make_train(config))(
        jax.random.key(0), Hyperparams(learning_rate=0.02, gamma=GAMMA)
    )[0].params
    env = make_env(config.env, 64)
    policy, critic = make_policy(config, env), make_critic(config, env)
    traj = episodes(env, policy, params.policy, jax.random.key(1))
    value = (
        np.asarray(critic_output(critic, params, traj))
        if FACTS[estimator].critic == "V"
        else np.zeros(0)
    )
    return traj, value, policy_output(policy, params, traj)


# One of each family in the fast lane: complete returns, and bootstrapped advantages in several
# steps.
FAST = ("state_value", "ppo")
CASES = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in estimators_with(critic="V")
]


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("estimator", CASES)
@pytest.mark.parametrize(
    "kind", [pytest.param("constant", marks=pytest.mark.slow), "observed", "delayed"]
)
def test_critics_know_what_follows(kind: str, estimator: str) -> None:
    traj, value, _ = learned(kind, estimator)
    side = np.asarray(traj.obs[..., 0])
    expected = {
        "constant": np.ones_like(side),
        "observed": side,
        "delayed": GAMMA ** (1.0 - np.asarray(traj.time)),
    }
    valid = np.asarray(traj.valid)
    np.testing.assert_allclose(value[valid], expected[kind][valid], atol=0.1)


@pytest.mark.acceptance("T3")
@pytest.mark.slow
@pytest.mark.parametrize("estimator", ON_TABLES)
@pytest.mark.parametrize("kind", ["action", "both"])
def test_every_estimator_finds_the_rewarded_action(kind: str, estimator: str) -> None:
    traj, _, dist = learned(kind, estimator)
    p = np.asarray(jax.nn.softmax(dist.logits))[0]
    best = (np.asarray(traj.obs[0, :, 0]) > 0).astype(int)
    assert p[np.arange(64), best].min() > 0.95


PROBES = ("constant", "observed", "delayed", "action", "both")


@struct.dataclass
class ProbeParams(environment.EnvParams):
    max_steps_in_episode: int = 3
    kind: int = 0


class AnyProbe(Target):
    """All five, by a traced parameter; the observation is (side, time), and the best action 1, or
    of a continuous one 0.5, or its sign.
    """

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams()

    def reset_env(self, key: jax.Array, params: ProbeParams) -> tuple[jax.Array, ClockState]:
        sided = (params.kind == 1) | (params.kind == 4)
        state = ClockState(
            place=jnp.where(sided & jax.random.bernoulli(key), -1.0, 1.0), time=jnp.int32(0)
        )
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: ProbeParams) -> Any:
        done = state.time == jnp.where(params.kind == 2, 1, 0)
        sign = jnp.where(params.kind == 4, state.place, 1.0)
        good = (
            1.0 - (action[0] - 0.5 * sign) ** 2 if self.continuous else (2.0 * action - 1.0) * sign
        )
        reward = jnp.stack([jnp.ones(()), state.place, done.astype(float), good, good])[params.kind]
        state = ClockState(place=state.place, time=state.time + 1)
        return self.get_obs(state), state, reward, done, {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.place, state.time.astype(float)])

    def action_space(self, params: ProbeParams) -> Any:
        return spaces.Box(-2.0, 2.0, (1,), jnp.float32) if self.continuous else spaces.Discrete(2)

    def observation_space(self, params: ProbeParams) -> spaces.Box:
        return spaces.Box(-1.0, 3.0, (2,), jnp.float32)


@pytest.mark.slow
@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_probes_are_learned(continuous: bool) -> None:
    """Five probes × five seeds, all within 0.1: V of the first three, the policy's choice in the
    last two.
    """
    sizes = {
        "num_envs": 32,
        "num_steps": 4,
        "num_updates": 300,
        "hidden_sizes": (16,),
        "schedule": "linear",
    }
    config = Config(
        env=AnyProbe(continuous), estimator="gae", collect="windows", **sizes, preset=None
    )
    env = make_env(config.env, 3)
    policy, critic = make_policy(config, env), make_critic(config, env)
    seen = jnp.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])

    def learned(kind: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = Hyperparams(learning_rate=0.02, gamma=GAMMA, env_params={"kind": kind})
        params = make_train(config)(key, h)[0].params
        first = jnp.zeros(3, bool)
        dist = policy.apply(params.policy, (), seen, first)[1]
        choice = dist.mode()[:, 0] if continuous else jax.nn.softmax(dist.logits)[:, 1]
        return critic.apply(params.critic, (), seen, first)[1], choice

    kinds, keys = jnp.repeat(jnp.arange(5), 5), jnp.tile(jax.random.split(jax.random.key(0), 5), 5)
    found = jax.jit(jax.vmap(learned))(kinds, keys)
    value, choice = (np.asarray(x).reshape(5, 5, 3) for x in found)  # [probe, seed, observation]
    best = [[-0.5, 0.5], [0.5]] if continuous else [[0.0, 1.0], [1.0]]
    errors = {
        "constant": value[0, :, 1:2] - 1,
        "observed": value[1, :, :2] - [-1, 1],
        "delayed": value[2, :, 1:] - [GAMMA, 1],
        "action": choice[3, :, 1:2] - best[1],
        "both": choice[4, :, :2] - best[0],
    }
    within = {name: int((np.abs(error).max(axis=1) <= 0.1).sum()) for name, error in errors.items()}
    assert within == dict.fromkeys(PROBES, 5), errors
