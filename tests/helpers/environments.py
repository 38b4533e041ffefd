"""Small environments and policies whose behaviour is known in advance."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from pg.config import Config
from pg.distributions import Categorical
from pg.envs import make_env
from pg.networks import Network, make_policy
from pg.rollout import start, windows


def expand(mask: jax.Array, like: jax.Array) -> jax.Array:
    """mask with axes added at its end, to broadcast against `like`."""
    return mask.reshape(*mask.shape, *[1] * (like.ndim - mask.ndim))


@struct.dataclass
class ClockState(environment.EnvState):
    place: jax.Array
    time: jax.Array


@struct.dataclass
class ClockParams(environment.EnvParams):
    max_steps_in_episode: int = 6
    reward_scale: float = 1.0
    start: float = 0.0


class Clock(environment.Environment):
    """Observation (place, time); action 1 moves on by one; ends at place 4; the reward is the new
    place.
    """

    @property
    def default_params(self) -> ClockParams:
        return ClockParams()

    def reset_env(self, key: jax.Array, params: ClockParams) -> tuple[jax.Array, ClockState]:
        state = ClockState(
            place=params.start + jax.random.uniform(key, (), maxval=0.5), time=jnp.int32(0)
        )
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: ClockParams) -> Any:
        state = ClockState(place=state.place + action, time=state.time + 1)
        reward = params.reward_scale * state.place
        return self.get_obs(state), state, reward, state.place >= 4, {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.place, state.time.astype(float)])

    def action_space(self, params: ClockParams) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: ClockParams) -> spaces.Box:
        return spaces.Box(0.0, 10.0, (2,), jnp.float32)


class Drifting(Clock):
    """The place begins as `begin` and moves by `by`; the reward is the place."""

    def __init__(self, begin: Any, by: Any) -> None:
        self.begin, self.by = begin, by

    def reset_env(self, key: Any, params: Any) -> Any:
        state = ClockState(place={"x": self.begin}, time=0)
        return jnp.zeros(1), state

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        place = (
            state.place["x"] + self.by if jnp.asarray(self.by).dtype != bool else jnp.bool_(True)
        )
        state = ClockState(place={"x": place}, time=state.time + 1)
        return jnp.zeros(1), state, place, jnp.bool_(False), {}


def tabular_policy(num_states: int, num_actions: int) -> Network:
    """Logits [S, A] read off at a one-hot observation."""

    def init(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (num_states, num_actions))

    def apply(
        params: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, Categorical]:
        return carry, Categorical(obs @ params)

    return Network(init, apply, obs_shape=(num_states,))


def tabular_critic(num_states: int) -> Network:
    """Values [S] read off at a one-hot observation."""

    def apply(
        params: jax.Array, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array]:
        return carry, obs @ params

    return Network(lambda key: jax.random.normal(key, (num_states,)), apply)


class Target(environment.Environment):
    """One step; observation x in {-1, 1}; the best action is 2 + x / 2, or with discrete actions
    whether x > 0.
    """

    def __init__(self, continuous: bool) -> None:
        self.continuous = continuous

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=1)

    def reset_env(
        self, key: jax.Array, params: environment.EnvParams
    ) -> tuple[jax.Array, ClockState]:
        side = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return side[None], ClockState(place=side, time=jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: ClockState, action: Any, params: environment.EnvParams
    ) -> Any:
        if self.continuous:
            reward = -((action[0] - 2.0 - state.place / 2) ** 2)
        else:
            reward = jnp.where((state.place > 0) == (action == 1), 1.0, 0.0)
        state = ClockState(place=state.place, time=state.time + 1)
        return state.place[None], state, reward, jnp.bool_(True), {}

    def action_space(self, params: environment.EnvParams) -> Any:
        return spaces.Box(0.0, 4.0, (1,), jnp.float32) if self.continuous else spaces.Discrete(2)

    def observation_space(self, params: environment.EnvParams) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)


def roll(env: Any, num_steps: int, num_envs: int = 4, **params: Any) -> Any:
    """A window of an untrained policy's steps."""
    env = make_env(env, num_envs, params)
    policy = make_policy(Config(preset=None), env)
    key = jax.random.key(1)
    return windows(env, policy, policy.init(key), key, start(env, policy, key), num_steps)[1]


def paid(env: Any, action: Any, env_params: Any = None) -> jax.Array:
    """The rewards [2] of a first step of two environments."""
    batched = make_env(env, 2, env_params)
    state, _ = batched.reset(jax.random.key(0))
    return batched.step(jax.random.key(1), state, action)[1].reward


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
    """The clock with these actions, which it adds up."""
    return Odd(action_space=lambda params: space)


def boxed(low: Any, high: Any, shape: tuple[int, ...] = (1,)) -> Odd:
    """The clock with actions of a Box."""
    return acting(spaces.Box(low, high, shape))
