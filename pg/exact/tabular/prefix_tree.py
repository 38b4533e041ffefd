"""Sequences as a tabular MDP: its states are the prefixes, and one for the end of a
sequence.

    P(y a | y, a) = 1;   r(y, a) = R(prompt, y a) if that is a whole sequence
"""

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.sequences import Sequences, SequenceState
from pg.exact.tabular.mdp import TabularMDP

MOST_ENTRIES = 20_000_000  # of the transitions [S, A, S]: 160 MB in 64-bit floats


def prefix_tree(env: Sequences) -> TabularMDP:
    """The MDP of an environment of sequences, on S = R + 1 states: its R `prefixes`, in their
    order, and the end, the only terminal state, shared by all whole sequences.

    Its features are the environment's observations, so that a network for the one is a network for
    the other; with observation="table" they are one-hot in the state. Rewards are exact to the
    current precision of jax.

    Raises ValueError for a tree that is too large for a table [S, V, S].
    """
    R, V = env.num_prefixes, env.num_tokens
    S = R + 1
    if S * V * S > MOST_ENTRIES:
        raise ValueError(
            f"the prefix tree has {S:,} states of {V} tokens, and a table [S, V, S] is for at most "
            f"{MOST_ENTRIES:,} entries: take fewer prompts or tokens, or shorter sequences"
        )
    states = _states(env)
    place = {prefix: row for row, prefix in enumerate(env.prefixes)}
    transition = np.zeros((S, V, S))
    for (prompt, tokens), row in place.items():
        for token in range(V):
            # a whole sequence is not a prefix but the end
            transition[row, token, place.get((prompt, (*tokens, token)), R)] = 1.0
    transition[R, :, R] = 1.0
    initial = np.concatenate([env.prompt_probabilities, np.zeros(S - env.num_prompts)])
    return TabularMDP(
        transition,
        _rewards(env, states),
        initial,
        np.arange(S) == R,
        env.max_length,
        _features(env, states),
        observation_space=env.observation_space(env.default_params),
    )


def _states(env: Sequences) -> SequenceState:
    """The states of the environment, leaves [S, ...]: one for each prefix, and an ended one."""
    prefixes = env.prefixes
    tokens = np.full((len(prefixes) + 1, env.max_length), env.num_tokens, np.int32)
    for row, (_, prefix) in enumerate(prefixes):
        tokens[row, : len(prefix)] = prefix
    prompt = [*(prompt for prompt, _ in prefixes), 0]
    length = [*(len(prefix) for _, prefix in prefixes), env.max_length]
    return SequenceState(
        jnp.asarray(prompt, jnp.int32), jnp.asarray(tokens), jnp.asarray(length, jnp.int32)
    )


def _rewards(env: Sequences, states: SequenceState) -> np.ndarray:
    """The reward of each token in each state, [S, V]; 0 in the end."""

    def reward(state: SequenceState, token: jax.Array) -> jax.Array:
        return env.step_env(jax.random.key(0), state, token, env.default_params)[2]

    over_tokens = jax.vmap(reward, (None, 0))
    rewards = jax.vmap(over_tokens, (0, None))(states, jnp.arange(env.num_tokens))
    return np.asarray(rewards, np.float64) * (np.arange(len(rewards)) < env.num_prefixes)[:, None]


def _features(env: Sequences, states: SequenceState) -> object:
    """The observations of the states, leaves [S, ...]."""
    return jax.vmap(lambda state: env.get_obs(state, env.default_params))(states)
