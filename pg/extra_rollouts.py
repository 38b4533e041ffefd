"""Extra rollouts: samples from the environment or policy in addition to the episodes of a batch.

    greedy       the greedy policy's episode from each initial state
    starts       initial states s₀ ~ ρ, R extra ones for each episode
    successors   s', r ~ P(·|sₜ, aₜ) for the action taken, M more times
    lookahead    s', r ~ P(·|sₜ, a) for every action a, M times, the first with the episode's own
                 random numbers
    branches     whole episodes from each visited state (`pg.branches`)
    actions      a ~ π(·|sₜ), M times, not taken

An environment is a pure function of its state, and can be stepped again from any state, with the
same or other random numbers. Every such step is counted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg.axes import expand_to
from pg.branches import Branching
from pg.envs import Discrete, Env, Masked
from pg.inputs import described


class ExtraRollouts(NamedTuple):
    """The extra rollouts that an estimator needs."""

    greedy: bool = False  # the greedy policy's episode from each initial state
    successors: bool = False  # extra transitions of each state and its action
    lookahead: bool = False  # transitions of each state and every discrete action
    branches: Branching | tuple[()] = ()  # episodes from each visited state
    starts: int = 0  # R, the extra initial states of each episode
    actions: int = 0  # M, the extra actions of the policy in each state

    def num_keys(self, num_branches: int) -> int:
        """Number of random keys that each step of an environment needs in addition to its own."""
        return num_branches * self.successors + (num_branches - 1) * self.lookahead


class GreedyEpisodes(NamedTuple):
    """The greedy policy's episodes from the same initial states as those of a batch, one for each
    group: leaves [T, B].
    """

    reward: Float[Array, "T B"]  # 0 after the end
    env_steps: Int[Array, "T B"]  # at the first episode of each group; 0 at the others


class InitialStates(NamedTuple):
    """Extra initial states for each episode of a batch; a reset counts as a step."""

    obs: PyTree[Shaped[Array, "1 B ..."]]  # [1, B, R, *O]
    env_steps: Int[Array, "T B"]  # at the first step of each episode; 0 at the others


class Transitions(NamedTuple):
    """Extra transitions from each state of a batch: leaves [T, B, M, ...] for the action taken, or
    [T, B, A, M, ...] for every action.
    """

    reward: Float[Array, "T B *K"]
    done: Bool[Array, "T B *K"]  # terminated or truncated
    next_obs: PyTree[Shaped[Array, "..."]]  # [T, B, *K, *O]
    env_steps: Int[Array, "T B"]  # of all of them together


def greedy_of_groups(
    reward: Float[Array, "T G"], env_steps: Int[Array, "T G"], group_size: int
) -> GreedyEpisodes:
    """The greedy episodes of B episodes, from those of their G groups.

    Args:
        reward: The rewards of the groups' greedy episodes.
        env_steps: The environment steps in each of their steps.
        group_size: B / G.
    """
    reward = jnp.repeat(reward, group_size, axis=1)
    is_first = jnp.arange(reward.shape[1]) % group_size == 0
    env_steps = jnp.repeat(env_steps, group_size, axis=1)
    return GreedyEpisodes(reward, jnp.where(is_first, env_steps, 0))


def initial_states(
    env: Env, number: int, key: PRNGKeyArray, first: Bool[Array, "T B"]
) -> InitialStates:
    """Extra initial states of B environments.

    Args:
        env: B environments.
        number: R, the number of extra initial states per episode.
        key: A random key.
        first: The first step of each episode, [T, B].
    """
    keys = jax.random.split(key, number)
    obs = jax.vmap(env.reset, out_axes=1)(keys)[1]
    each_once = jax.tree.map(lambda x: x[None], obs)
    return InitialStates(each_once, jnp.where(first, jnp.int32(number), 0))


def transitions(
    env: Env,
    extra_rollouts: ExtraRollouts,
    num_branches: int,
    own_keys: Shaped[Array, " B"],
    more_keys: Shaped[Array, "M B"],
    env_state: PyTree,
    action: PyTree[Shaped[Array, "B ..."]],
    obs: PyTree,
) -> tuple[Transitions | tuple[()], Transitions | tuple[()]]:
    """`successors` and `lookahead` of one step of a trajectory, leaves [B, ...]; () unless
    requested.

    Args:
        env: B environments.
        extra_rollouts: The requested rollouts.
        num_branches: M.
        own_keys: The random keys of the episodes' own steps, [B].
        more_keys: Other keys, [num_keys, B].
        env_state: The states of the environments before that step, leaves [B, ...].
        action: The action of each, as the environment takes it.
        obs: The observation of each, with the mask if there is one.
    """
    successors: Transitions | tuple[()] = ()
    lookahead: Transitions | tuple[()] = ()
    if extra_rollouts.successors:
        successors = _resampled(env, more_keys[:num_branches], env_state, action)
        successors = successors._replace(env_steps=jnp.sum(successors.env_steps, axis=1))
        more_keys = more_keys[num_branches:]
    if extra_rollouts.lookahead:
        keys = jnp.concatenate([own_keys[None], more_keys])
        lookahead = _of_every_action(env, keys, env_state, action, obs)
    return successors, lookahead


def other_actions(dist: Any, noise: PyTree) -> PyTree:
    """Samples of a distribution [B] for noise [B, M, ...], [B, M, ...]; () for none."""
    if not jax.tree.leaves(noise):
        return ()
    return jax.vmap(dist.sample, in_axes=1, out_axes=1)(noise)


def check_possible(env: Env, extra_rollouts: ExtraRollouts, branch_every: int = 1) -> None:
    """Raises ValueError if every action is to be tried and actions are not discrete, or if
    `branch_every` skips states that are needed.
    """
    branching = extra_rollouts.branches
    every_action, every_state = extra_rollouts.lookahead, False
    if isinstance(branching, Branching):
        every_action = every_action or branching.kind == "every_action"
        every_state = branching.every_state
    if every_state and branch_every > 1:
        raise ValueError(
            "this estimator compares the branches of each state with those of the next one: "
            f"branch_every must be 1, got {branch_every}"
        )
    if every_action and not isinstance(env.action_space, Discrete):
        raise ValueError(
            "this estimator tries every action, and needs discrete ones; the environment's are "
            f"{described(env.action_space)}"
        )


def of_running(
    x: Transitions | tuple[()],
    alive: Bool[Array, " B"],
    is_last: Bool[Array, " B"],
    obs: PyTree[Shaped[Array, "B ..."]],
) -> Transitions | tuple[()]:
    """The transitions of the running environments; () stays (). Those of the others are
    meaningless.

    Args:
        x: The transitions, leaves [B, ...].
        alive: The running environments.
        is_last: Those whose episode is truncated after this step.
        obs: The current observations, which are finite, and replace those after an end.
    """
    if not isinstance(x, Transitions):
        return ()

    def of_each(y: Shaped[Array, "B ..."], like: Shaped[Array, "B ..."]) -> Array:
        """y [B, *O], broadcast to the axes of like, [B, *K, *O]."""
        return y.reshape(len(alive), *[1] * (like.ndim - y.ndim), *y.shape[1:])

    runs = of_each(alive, x.reward)
    done = x.done | of_each(is_last, x.reward)

    def seen(after: Shaped[Array, "B ..."], now: Shaped[Array, "B ..."]) -> Array:
        shown = runs & ~done
        return jnp.where(expand_to(shown, after), after, of_each(now, after))

    return Transitions(
        reward=jnp.where(runs, x.reward, 0.0),
        done=runs & done,
        next_obs=jax.tree.map(seen, x.next_obs, obs),
        env_steps=jnp.where(alive, x.env_steps, 0),
    )


def _resampled(
    env: Env,
    keys: Shaped[Array, "M B"],
    env_state: PyTree,
    action: PyTree[Shaped[Array, "B ..."]],
) -> Transitions:
    """A transition from the same states and actions for each of M keys: leaves [B, M, ...],
    including the steps.
    """
    again = jax.vmap(env.step, in_axes=(0, None, None), out_axes=1)
    _, transition = again(keys, env_state, action)
    taken = transition.steps
    if isinstance(taken, tuple):
        taken = jnp.ones(transition.reward.shape, jnp.int32)
    done = transition.terminated | transition.truncated
    return Transitions(transition.reward, done, transition.next_obs, taken)


def _of_every_action(
    env: Env,
    keys: Shaped[Array, "M B"],
    env_state: PyTree,
    action: Int[Array, " B"],
    obs: PyTree,
) -> Transitions:
    """The same for each of A actions: leaves [B, A, M, ...].

    All use the same random numbers, so that only the action differs. An illegal action, whose
    probability is 0, is replaced by `action`.
    """

    def of_action(number: Int[Array, ""]) -> Transitions:
        tried = jnp.full_like(action, number)
        if isinstance(obs, Masked):
            tried = jnp.where(obs.mask[:, number], tried, action)
        return _resampled(env, keys, env_state, tried)

    assert isinstance(env.action_space, Discrete)  # as checked
    numbers = jnp.arange(env.action_space.n, dtype=action.dtype)
    every = jax.vmap(of_action, out_axes=1)(numbers)
    # the first transition of the action taken is the episode's own step
    own = jnp.take_along_axis(every.env_steps[:, :, 0], action[:, None], axis=1)[:, 0]
    return every._replace(env_steps=jnp.sum(every.env_steps, axis=(1, 2)) - own)
