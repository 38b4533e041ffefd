"""Small environments and policies whose behaviour is known in advance."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from pg.distributions import Categorical
from pg.networks import Network
from pg.rollout import Trajectory


@struct.dataclass
class ClockState(environment.EnvState):
    place: jax.Array
    time: jax.Array


@struct.dataclass
class ClockParams(environment.EnvParams):
    max_steps_in_episode: int = 6
    reward_scale: float = 1.0


class Clock(environment.Environment):
    """Observation (place, time); action 1 moves on by one; ends at place 4; the reward is the new place."""

    @property
    def default_params(self) -> ClockParams:
        return ClockParams()

    def reset_env(self, key: jax.Array, params: ClockParams) -> tuple[jax.Array, ClockState]:
        state = ClockState(place=jax.random.uniform(key, (), maxval=0.5), time=jnp.int32(0))
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


def tabular_policy(num_states: int, num_actions: int) -> Network:
    """Logits [S, A] read off at a one-hot observation."""

    def init(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (num_states, num_actions))

    def apply(params: jax.Array, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Categorical]:
        return carry, Categorical(obs @ params)

    return Network(init, apply)


def tabular_critic(num_states: int) -> Network:
    """Values [S] read off at a one-hot observation."""

    def apply(params: jax.Array, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        return carry, obs @ params

    return Network(lambda key: jax.random.normal(key, (num_states,)), apply)


class SmallMDP:
    """Three states, two actions, three steps; state 2 ends the episode. Every trajectory can be written down."""

    S, A, H = 3, 2, 3

    def __init__(self) -> None:
        g = np.random.default_rng(0)
        self.transition = g.dirichlet(np.ones(self.S), size=(self.S, self.A))
        self.reward = g.normal(size=(self.S, self.A))
        self.initial = np.array([0.6, 0.4, 0.0])

    def exact_return(self, logits: jax.Array, gamma: float) -> jax.Array:
        """J by dynamic programming, differentiable."""
        pi, running = jax.nn.softmax(logits), jnp.array([1.0, 1.0, 0.0])
        value = jnp.zeros(self.S)
        for _ in range(self.H):
            q = self.reward + gamma * jnp.einsum("sat,t->sa", self.transition, value)
            value = running * (pi * q).sum(-1)
        return self.initial @ value

    def trajectories(self, logits: np.ndarray) -> Iterator[tuple[float, Trajectory]]:
        """Every trajectory [H, 1] with its probability."""
        pi = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
        for start, *moves in product(range(self.S), *[list(product(range(self.A), range(self.S)))] * self.H):
            probability, state, rows = self.initial[start], start, []
            for t, (action, successor) in enumerate(moves):
                valid = state != 2
                if not valid and (action, successor) != (0, 2):
                    probability = 0.0  # after the end there is one way to go on, of probability 1
                elif valid:
                    probability *= pi[state, action] * self.transition[state, action, successor]
                rows.append((state, action, successor, valid, t))
                state = successor
            if probability > 0:
                yield probability, self._trajectory(rows, pi)

    def _trajectory(self, rows: list[tuple[int, int, int, bool, int]], pi: np.ndarray) -> Trajectory:
        state, action, successor, valid, time = (np.array(column)[:, None] for column in zip(*rows, strict=True))
        eye = np.eye(self.S)
        return Trajectory(
            obs=eye[state],
            action=action,
            log_prob=np.log(pi[state, action]),
            reward=np.where(valid, self.reward[state, action], 0.0),
            terminated=valid & (successor == 2),
            truncated=valid & (time == self.H - 1),
            next_obs=eye[successor],
            first=time == 0,
            valid=valid,
            time=time,
            carry=(),
        )


class Target(environment.Environment):
    """One step; observation x in {-1, 1}; the best action is 2 + x / 2, or with discrete actions whether x > 0."""

    def __init__(self, continuous: bool) -> None:
        self.continuous = continuous

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=1)

    def reset_env(self, key: jax.Array, params: environment.EnvParams) -> tuple[jax.Array, ClockState]:
        side = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return side[None], ClockState(place=side, time=jnp.int32(0))

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: environment.EnvParams) -> Any:
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
