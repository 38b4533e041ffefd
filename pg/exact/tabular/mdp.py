"""A tabular MDP as a gymnax environment, so that tests on it run the rollout code of training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from pg.distributions import inverse_cdf
from pg.envs import environment, gymnax, spaces


class State(NamedTuple):
    """The state and the time step of an episode."""

    state: Int[Array, ""]
    time: Int[Array, ""]


class TabularMDP(environment.Environment):
    """P(s'|s, a), r, ρ as a gymnax environment; observations are one-hot, or features."""

    def __init__(
        self,
        transition: Any,
        reward: Any,
        initial: Any,
        terminal: Any,
        horizon: int,
        features: Any = None,
        mask: Any = None,
        observation_space: Any = None,
    ) -> None:
        """
        Args:
            transition: P(s'|s, a), [S, A, S].
            reward: r(s, a), [S, A], or r(s, a, s'), [S, A, S].
            initial: ρ(s), [S].
            terminal: the states that end an episode, [S] bool.
            horizon: H, the time limit.
            features: the observation of each state, [S, D], or a tree of such arrays; default:
                one-hot.
            mask: the actions that are legal in each state, [S, A] bool; default: all.
            observation_space: default: the range of the features, if they are one array.

        Raises:
            ValueError: a wrong shape, probabilities that do not sum to 1, or a state that is not
                terminal without a legal action.
        """
        self.transition = np.asarray(transition, np.float64)
        self.initial = np.asarray(initial, np.float64)
        self.terminal = np.asarray(terminal, bool)
        self.horizon = int(horizon)
        S, A = self.transition.shape[:2] if self.transition.ndim == 3 else (-1, -1)
        reward = np.asarray(reward, np.float64)
        check_shape("transition", self.transition.shape, [(S, A, S)])
        check_shape("reward", reward.shape, [(S, A), (S, A, S)])
        check_shape("initial", self.initial.shape, [(S,)])
        check_shape("terminal", self.terminal.shape, [(S,)])
        features = np.eye(S) if features is None else features
        if isinstance(features, list):
            features = np.asarray(features)
        self.features = jax.tree.map(lambda x: np.asarray(x, np.float64), features)
        for leaf in jax.tree.leaves(self.features):
            check_shape("features", leaf.shape[:1], [(S,)])
        self._observation_space = observation_space
        if self.horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, got {horizon!r}")
        for name, p in (("transition", self.transition), ("initial", self.initial)):
            if (p < 0).any() or not np.allclose(p.sum(-1), 1.0, atol=1e-8):
                raise ValueError(f"{name} must hold probabilities that sum to 1 over its last axis")
        if (self.initial * self.terminal).any():
            raise ValueError(
                "initial must give terminal states probability 0: an episode has at least one step"
            )
        self.mask = None if mask is None else np.asarray(mask, bool)
        if self.mask is not None:
            check_shape("mask", self.mask.shape, [(S, A)])
            if not (self.mask.any(-1) | self.terminal).all():
                raise ValueError("mask must allow at least one action in states that do not end")
            self.action_mask = self._legal
        self.reward = np.broadcast_to(reward if reward.ndim == 3 else reward[..., None], (S, A, S))

    @property
    def num_states(self) -> int:
        """S."""
        return self.transition.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.transition.shape[1]

    @property
    def mean_reward(self) -> Float[np.ndarray, "S A"]:
        """r(s, a) = Σₛ' P(s'|s, a) r(s, a, s'), [S, A]; 0 in terminal states."""
        return np.where(self.terminal[:, None], 0.0, (self.transition * self.reward).sum(-1))

    @property
    def continuing(self) -> Float[np.ndarray, "S A S"]:
        """P(s'|s, a) restricted to continuing: 0 from and into terminal states, [S, A, S]."""
        alive = ~self.terminal
        return self.transition * alive[:, None, None] * alive

    @property
    def default_params(self) -> environment.EnvParams:
        """The horizon as the time limit."""
        return environment.EnvParams(max_steps_in_episode=self.horizon)

    def reset_env(self, key: PRNGKeyArray, params: Any) -> tuple[PyTree, State]:
        """s₀ ~ ρ."""
        state = State(state=_sample(key, jnp.asarray(self.initial, float)), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: PRNGKeyArray, state: State, action: Any, params: Any
    ) -> tuple[Any, ...]:
        """s' ~ P(·|s, a), and r(s, a, s')."""
        after = _sample(key, jnp.asarray(self.transition, float)[state.state, action])
        reward = jnp.asarray(self.reward, float)[state.state, action, after]
        terminated = jnp.asarray(self.terminal)[after]
        state = State(state=after, time=state.time + 1)
        return self.get_obs(state), state, reward, terminated, {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> PyTree:
        """The features of the state, [D], or a tree."""
        return self.observations(state.state)

    def observations(self, states: Int[Array | np.ndarray, "*B"]) -> PyTree:
        """The features of states, [..., D], or a tree of such arrays."""
        return jax.tree.map(lambda x: jnp.asarray(x, float)[states], self.features)

    def _legal(self, state: State, params: Any) -> Bool[Array, " A"]:
        """The legal actions of the state: the method `action_mask` of an MDP with a mask."""
        return jnp.asarray(self.mask)[state.state]

    def action_space(self, params: Any) -> spaces.Discrete:
        """A actions."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any) -> Any:
        """The given space, or the range of the features; None for a tree of them."""
        if self._observation_space is not None or not isinstance(self.features, np.ndarray):
            return self._observation_space
        return spaces.Box(self.features.min(), self.features.max(), self.features.shape[1:])

    @property
    def name(self) -> str:
        """The name in the style of gymnax's registry."""
        return "TabularMDP"


def register(name: str, mdp: TabularMDP) -> None:
    """Registers an MDP with gymnax under a name: `Config(env=name)`."""
    gymnax.register(name, lambda: mdp)


def check_shape(name: str, shape: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    """Raises ValueError, naming the argument, unless its shape is one of those expected."""
    if shape not in expected:
        raise ValueError(f"{name} must have shape {' or '.join(map(str, expected))}, got {shape}")


def _sample(key: PRNGKeyArray, p: Float[Array, " S"]) -> Int[Array, ""]:
    """An index drawn with probabilities p [S], int []."""
    return inverse_cdf(p, jax.random.uniform(key, dtype=p.dtype))
