"""The data of a rollout: a batch of steps, and the environments' state between two batches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg.axes import expand_to
from pg.branches import Branches
from pg.envs import Env, Masked
from pg.envs.observations import map_observation
from pg.extra_rollouts import GreedyEpisodes, InitialStates, Transitions
from pg.networks import Network
from pg.sampling import StepNoise

__all__ = [
    "Acting",
    "Collected",
    "EpisodeScan",
    "ExtraKeys",
    "Finished",
    "RandomInputs",
    "RolloutState",
    "Running",
    "Trajectory",
    "as_stored",
    "is_alive",
    "where",
]


class Trajectory(NamedTuple):
    """A batch of steps. Every leaf is [T, B, ...], time first, except the carry, [1, B, ...]."""

    # floats, or bytes if the environment returns bytes, which takes a quarter of the memory;
    # `Masked(obs, mask)` if it has action masks
    obs: PyTree[Shaped[Array, "T B ..."]]
    # the sample whose log π is taken, unclipped and pre-tanh; a tuple for several actions at once
    action: PyTree[Shaped[Array, "T B ..."]]
    log_prob: Float[Array, "T B"]  # log π_behaviour(action | obs)
    reward: Float[Array, "T B"]  # 0 where not valid
    terminated: Bool[Array, "T B"]  # the task ended after this step
    truncated: Bool[Array, "T B"]  # a time limit ended the episode after this step
    next_obs: PyTree[Shaped[Array, "T B ..."]]  # the true successor, also at the end of an episode
    first: Bool[Array, "T B"]  # this step is its episode's first
    valid: Bool[Array, "T B"]  # True up to and including the episode's last step
    time: Int[Array, "T B"]  # steps since the episode's start
    # the recurrent state before the first step, [1, B, ...]; () without one. Later states are
    # recomputed from it: storing them would multiply the batch by the size of the state.
    carry: PyTree
    # the index of the episode's group; () without groups
    group: Int[Array, "T B"] | tuple[()] = ()
    # environment steps for which the action was repeated; () without action repeat
    held: Int[Array, "T B"] | tuple[()] = ()
    # the greedy policy's episodes from the same initial states; () unless requested
    greedy: GreedyEpisodes | tuple[()] = ()
    # extra transitions with the action taken, [T, B, M, ...]
    successors: Transitions | tuple[()] = ()
    # transitions with every action, [T, B, A, M, ...]
    lookahead: Transitions | tuple[()] = ()
    # whole episodes from each state, [T, B, K, M, ...]
    branches: Branches | tuple[()] = ()
    # extra initial states, the observation [1, B, R, ...]
    starts: InitialStates | tuple[()] = ()
    # extra actions sampled in each state but not taken, [T, B, M, ...]; () for none
    other_actions: PyTree = ()

    @property
    def mask(self) -> PyTree:
        """[T, B, A] the legal actions at `obs`, bool; () if all actions are always legal."""
        return self.obs.mask if isinstance(self.obs, Masked) else ()

    @property
    def done(self) -> Bool[Array, "*T"]:
        """[T, B] the episode ended after this step, either way."""
        return self.terminated | self.truncated

    @property
    def without_carry(self) -> "Trajectory":
        """The trajectory without its carry, which can be split along time."""
        return self._replace(carry=())

    @property
    def env_steps(self) -> Int[Array, "*T"]:
        """[T, B] the number of environment steps in each step; 0 where not valid."""
        return self.valid.astype(jnp.int32) if isinstance(self.held, tuple) else self.held

    @property
    def all_env_steps(self) -> Int[Array, "*T"]:
        """[T, B] the same including all extra rollouts: the cost of the batch."""
        total = self.env_steps
        extra_rollouts = (
            self.greedy,
            self.successors,
            self.lookahead,
            self.branches,
            self.starts,
        )
        for rollouts in extra_rollouts:
            if isinstance(rollouts, GreedyEpisodes | Transitions | Branches | InitialStates):
                total = total + rollouts.env_steps
        return total

    @property
    def without_extra_rollouts(self) -> "Trajectory":
        """The trajectory without the extra rollouts, which only `weigh` reads."""
        return self._replace(
            greedy=(), successors=(), lookahead=(), branches=(), starts=(), other_actions=()
        )


class Finished(NamedTuple):
    """The episodes that ended within a batch: their number, and sums of undiscounted return and of
    length.

    Lengths count environment steps; a repeated action takes several.
    """

    episodes: Int[Array, ""]
    returns: Float[Array, ""]
    steps: Int[Array, ""]


class RolloutState(NamedTuple):
    """The current state of B environments, between two windows. Leaves are [B, ...]."""

    env_state: PyTree
    obs: PyTree[Shaped[Array, "B ..."]]
    carry: PyTree  # the recurrent state
    time: Int[Array, " B"]  # steps since the episode's start
    episode_return: Float[Array, " B"]  # undiscounted, so far
    # environment steps since the episode's start, with action repeat
    held: Int[Array, " B"] | tuple[()] = ()

    @property
    def env_steps(self) -> Int[Array, "*B"]:
        """[B] the number of environment steps since the episode's start."""
        return self.time if isinstance(self.held, tuple) else self.held


class Collected(NamedTuple):
    """A batch, and the environments' state after it."""

    # where the environments stand after a window; () after complete episodes, since the next batch
    # starts from resets
    state: RolloutState | tuple[()]
    traj: Trajectory
    finished: Finished


class Running(NamedTuple):
    """The current state of B episodes, and which of them have not ended."""

    state: RolloutState
    alive: Bool[Array, " B"]


def is_alive(running: Running) -> Bool[Array, " B"]:
    """[B] the episodes that have not ended."""
    return running.alive


class ExtraKeys(NamedTuple):
    """The random keys of complete episodes, except those of their resets and steps."""

    greedy: PRNGKeyArray  # the greedy policy's episodes
    transitions: PRNGKeyArray  # extra transitions of each step
    branches: PRNGKeyArray  # episodes from visited states
    starts: PRNGKeyArray  # extra initial states
    carry: PRNGKeyArray  # a random carry for each episode
    actions: PRNGKeyArray  # extra actions of each step


class RandomInputs(NamedTuple):
    """The random numbers of a step of B environments; for K steps the leaves are [K, B, ...].

    Keys are raw key data, as loops need them (see `fast.scans.scan_keys`).
    """

    noise: StepNoise
    env_keys: Shaped[Array, "B ..."]
    transition_keys: PyTree = ()  # keys of extra transitions, [M, B, ...]; () for none
    other_actions: PyTree = ()  # the noise of extra actions, leaves [B, M, ...]; () for none


class EpisodeScan(NamedTuple):
    """B complete episodes as a scan over their steps."""

    step: Callable[[Running, RandomInputs], tuple[Running, Trajectory]]
    init: Running
    # step numbers [K] -> the random numbers of these steps
    inputs: Callable[[Int[Array, " K"]], RandomInputs]
    length: int  # the horizon
    keys: ExtraKeys


class Acting(NamedTuple):
    """A policy, its parameters, and the B environments in which it acts."""

    env: Env
    policy: Network
    params: PyTree

    def with_envs(self, num_envs: int) -> "Acting":
        """The same with another number of environments."""
        return self._replace(env=self.env._replace(num_envs=num_envs))


def as_stored(env: Env, obs: PyTree) -> PyTree:
    """Observations in the dtypes of a trajectory."""
    return map_observation(lambda x, dtype: x.astype(dtype), obs, env.obs_dtype)


def where(condition: Bool[Array, " B"], x: PyTree, y: PyTree) -> PyTree:
    """x where condition [B] holds, else y, for every leaf [B, ...]."""

    def select(a: Shaped[Array, "B *R"], b: Shaped[Array, "B *R"]) -> Shaped[Array, "B *R"]:
        return jnp.where(expand_to(condition, a), a, b)

    return jax.tree.map(select, x, y)
