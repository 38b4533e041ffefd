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
    """A batch of steps. Every leaf is [T, B, ...], time first, but for the carry, [1, B, ...]."""

    # floats; bytes where the environment gives bytes, which takes a quarter of the memory;
    # `Masked(obs, mask)` where it has action masks
    obs: PyTree[Shaped[Array, "T B ..."]]
    # the sample that is scored, unclipped and pre-tanh; of several actions at once a tuple
    action: PyTree[Shaped[Array, "T B ..."]]
    log_prob: Float[Array, "T B"]  # log π_behaviour(action | obs)
    reward: Float[Array, "T B"]  # 0 where not valid
    terminated: Bool[Array, "T B"]  # the task ended after this step
    truncated: Bool[Array, "T B"]  # a time limit ended the episode after this step
    next_obs: PyTree[Shaped[Array, "T B ..."]]  # the true successor, also where an episode ended
    first: Bool[Array, "T B"]  # this step is its episode's first
    valid: Bool[Array, "T B"]  # True until and including the ending step
    time: Int[Array, "T B"]  # steps since the episode's start
    # the recurrent state before the first step, [1, B, ...]; () without one. Later states are
    # recomputed from it: storing them would multiply the batch by the size of the state.
    carry: PyTree
    # the number of the episode's group; () where episodes are not in groups
    group: Int[Array, "T B"] | tuple[()] = ()
    # environment steps for which the action was held; () where each is taken once
    held: Int[Array, "T B"] | tuple[()] = ()
    # what the greedy policy does from the same initial states; () where nobody asks for it
    greedy: GreedyEpisodes | tuple[()] = ()
    # extra transitions of the action that was taken, [T, B, M, ...]
    successors: Transitions | tuple[()] = ()
    # transitions of every action, [T, B, A, M, ...]
    lookahead: Transitions | tuple[()] = ()
    # whole episodes out of each state, [T, B, K, M, ...]
    branches: Branches | tuple[()] = ()
    # extra initial states, the observation [1, B, R, ...]
    starts: InitialStates | tuple[()] = ()
    # extra samples of the policy in each state, none of them taken, [T, B, M, ...]; () for none
    other_actions: PyTree = ()

    @property
    def mask(self) -> PyTree:
        """[T, B, A] the legal actions at `obs`, bool; () where every action always is."""
        return self.obs.mask if isinstance(self.obs, Masked) else ()

    @property
    def done(self) -> Bool[Array, "*T"]:
        """[T, B] the episode ended after this step, either way."""
        return self.terminated | self.truncated

    @property
    def without_carry(self) -> "Trajectory":
        """The steps alone, which can be cut along time, for a network that has no carry."""
        return self._replace(carry=())

    @property
    def env_steps(self) -> Int[Array, "*T"]:
        """[T, B] the steps of the environment in each of these; 0 where not valid."""
        return self.valid.astype(jnp.int32) if isinstance(self.held, tuple) else self.held

    @property
    def all_env_steps(self) -> Int[Array, "*T"]:
        """[T, B] the same with those of all extra rollouts: the cost of the batch."""
        total = self.env_steps
        asked = (self.greedy, self.successors, self.lookahead, self.branches, self.starts)
        for found in asked:
            if isinstance(found, GreedyEpisodes | Transitions | Branches | InitialStates):
                total = total + found.env_steps
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

    A length is counted in steps of the environment, of which an action that is held takes several.
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
    # environment steps since the episode's start, where an action is held for several of them
    held: Int[Array, " B"] | tuple[()] = ()

    @property
    def env_steps(self) -> Int[Array, "*B"]:
        """[B] the steps of the environment since the episode's start."""
        return self.time if isinstance(self.held, tuple) else self.held


class Collected(NamedTuple):
    """A batch, and the environments' state after it."""

    # of the environments after a window; () after complete episodes: the next ones start afresh
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
    """The random keys of complete episodes for all but their resets and their own steps."""

    greedy: PRNGKeyArray  # the greedy policy's episodes
    transitions: PRNGKeyArray  # extra transitions of each step
    branches: PRNGKeyArray  # episodes out of visited states
    starts: PRNGKeyArray  # extra initial states
    carry: PRNGKeyArray  # a carry that is drawn for each episode
    actions: PRNGKeyArray  # extra actions of each step


class RandomInputs(NamedTuple):
    """The random numbers of a step of B environments; of K steps leaves [K, B, ...].

    Keys are given as their numbers, for loops to pass on (`fast.scans.scan_keys` says why).
    """

    noise: StepNoise
    env_keys: Shaped[Array, "B ..."]
    transition_keys: PyTree = ()  # those of extra transitions, [M, B, ...]; () for none
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
    """Leaf by leaf x where condition [B] holds, else y; leaves [B, ...]."""

    def select(a: Shaped[Array, "B *R"], b: Shaped[Array, "B *R"]) -> Shaped[Array, "B *R"]:
        return jnp.where(expand_to(condition, a), a, b)

    return jax.tree.map(select, x, y)
