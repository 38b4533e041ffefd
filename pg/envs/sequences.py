"""Sequences as episodes: a prompt is an initial state, a token an action, and the reward of the
whole sequence comes with its last token.

    y = (a₁ .. a_l),  l ≤ L,  a_l the end token or l = L;    R(prompt, y) at step l

The end at L is a termination, not a truncation: there is no value after it.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from pg.distributions import inverse_cdf
from pg.envs.env_spaces import Tokens
from pg.envs.library import environment, spaces
from pg.inputs import check_function, check_name, count

__all__ = ["OBSERVATIONS", "Demonstrations", "SequenceState", "Sequences", "all_sequences"]

OBSERVATIONS = ("prefix", "last", "table")
MOST_PREFIXES = 100_000  # of a table, or of a one-hot observation of the prefix

# prompt, tokens [L] and their number -> a reward
Reward = Callable[[Any, Array, Array], Any]


class SequenceState(NamedTuple):
    """The number of the prompt, and the tokens so far."""

    prompt: Int[Array, ""]
    tokens: Int[Array, " L"]  # V where there is none yet
    length: Int[Array, ""]


class Demonstrations(NamedTuple):
    """N episodes of demonstrated actions, leaves [T, N, ...], time first."""

    obs: PyTree
    action: Int[Array, "T N"]
    first: Bool[Array, "T N"]  # this step is its episode's first
    valid: Bool[Array, "T N"]  # True until and including the ending step


class Sequences(environment.Environment):
    """Sequences of tokens as a gymnax environment: V actions, and episodes of at most L steps.

    An observation is a dictionary of whole numbers, which pg's networks see one-hot: `prompt`,
    the prompt's tokens or its number; `position`, the number of tokens so far; and either `tokens`,
    [L], all of them so far and V in the free places ("prefix"), or `token`, the last one, V at
    first, for a recurrent policy ("last"). For a tabular policy it is one-hot in the prefix, in the
    order of `prefixes` ("table").
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        max_length: int,
        end_token: int | None,
        reward: Reward | Any = None,
        token_reward: Reward | Any = None,
        prompts: Any = 1,
        prompt_probabilities: Any = None,
        observation: str = "prefix",
        demonstrator: Reward | None = None,
        name: str = "Sequences",
    ) -> None:
        """
        Args:
            num_tokens: V, the end token included.
            max_length: L, the end token included.
            end_token: the token that ends a sequence; None: every sequence has L tokens.
            reward: R of a whole sequence: a function of prompt, tokens [L] and length that jax can
                trace, where tokens[length:] are V; or a table [M], or [N, M] by prompt, in the
                order of `all_sequences`. None: 0.
            token_reward: the reward of each token: such a function of the tokens so far; or a table
                [R, V] by prefix, in the order of `prefixes`. None: 0.
            prompts: their tokens, int [N, P]; or a number for each, int [N]; or only their number,
                N.
            prompt_probabilities: with which they are drawn, [N]; None: uniform.
            observation: "prefix", "last" or "table".
            demonstrator: writes correct sequences, for `demonstrations`: a function of the
                arguments of the reward, with the tokens so far, that returns the probabilities of
                the next one, [V].
            name: of the environment.

        Raises:
            ValueError: an invalid size, a table of another shape, probabilities that do not sum
                to 1, no reward at all, or a table that would be too large.
        """
        self.num_tokens = count("num_tokens", num_tokens, low=2)
        self.max_length = count("max_length", max_length)
        self.end_token = end_token
        if end_token is not None:
            self.end_token = count("end_token", end_token, low=0)
            if self.end_token >= self.num_tokens:
                raise ValueError(
                    f"end_token must be one of the {num_tokens} tokens, counted from 0, or None; "
                    f"got {end_token}"
                )
        # without one, a number that is not a token
        self._end = self.num_tokens + 1 if self.end_token is None else self.end_token
        self.prompts = _checked_prompts(prompts)
        self.prompt_probabilities = _checked_probabilities(prompt_probabilities, self.num_prompts)
        check_name("observation", observation, OBSERVATIONS)
        self.observation = observation
        if reward is None and token_reward is None:
            raise ValueError("sequences need a reward: give reward, or token_reward")
        self._name = name
        self._reward = self._as_function("reward", reward, self._by_sequence)
        self._token_reward = self._as_function("token_reward", token_reward, self._by_prefix)
        if demonstrator is not None:
            check_function("demonstrator", demonstrator, ("prompt", "tokens", "length"), "")
        self._demonstrator = demonstrator
        if observation == "table":
            self._check_enumerable("a one-hot observation of the prefix")

    @property
    def num_prompts(self) -> int:
        """N."""
        return len(self.prompts)

    @property
    def num_continuing(self) -> int:
        """W, the number of tokens after which a sequence continues: all but the end token."""
        return self.num_tokens - (self.end_token is not None)

    @property
    def num_prefixes(self) -> int:
        """R = N Σ_{l<L} Wˡ, the number of states in which a token is chosen."""
        return self.num_prompts * sum(self.num_continuing**k for k in range(self.max_length))

    @property
    def prefixes(self) -> list[tuple[int, tuple[int, ...]]]:
        """Number of the prompt and tokens of each of the R prefixes: shorter ones first, then by
        prompt, then in the order of their tokens.
        """
        self._check_enumerable("a list of the prefixes")
        continuing = [a for a in range(self.num_tokens) if a != self.end_token]
        return [
            (prompt, tokens)
            for length in range(self.max_length)
            for prompt in range(self.num_prompts)
            for tokens in itertools.product(continuing, repeat=length)
        ]

    @property
    def default_params(self) -> environment.EnvParams:
        """L as the longest episode. A smaller limit in `env_params` is a termination too: the
        sequence is scored as it is.
        """
        return environment.EnvParams(max_steps_in_episode=self.max_length)

    def reset_env(self, key: PRNGKeyArray, params: Any) -> tuple[PyTree, SequenceState]:
        """A prompt, and no token yet."""
        probabilities = jnp.asarray(self.prompt_probabilities, float)
        prompt = inverse_cdf(probabilities, jax.random.uniform(key, dtype=probabilities.dtype))
        state = SequenceState(
            prompt, jnp.full(self.max_length, self.num_tokens, jnp.int32), jnp.int32(0)
        )
        return self.get_obs(state, params), state

    def step_env(
        self, key: PRNGKeyArray, state: SequenceState, action: Any, params: Any
    ) -> tuple[Any, ...]:
        """The sequence with one more token, and its reward if that was the last."""
        tokens = state.tokens.at[state.length].set(jnp.asarray(action, jnp.int32))
        state = SequenceState(state.prompt, tokens, state.length + 1)
        terminated = self._has_ended(state, params)
        reward = jnp.zeros(())
        if self._reward is not None:
            reward = jnp.where(terminated, self._reward(state), 0.0)
        if self._token_reward is not None:
            reward += self._token_reward(state)
        return self.get_obs(state, params), state, reward, terminated, {}

    def is_truncated(self, state: SequenceState, params: Any) -> Bool[Array, ""]:
        """Never: the longest sequence terminates like every other."""
        return jnp.bool_(False)

    def get_obs(self, state: SequenceState, params: Any = None, key: Any = None) -> PyTree:
        """The observation of a state, as described in the class."""
        if self.observation == "table":
            row = jnp.where(self._has_ended(state, params), self.num_prefixes, self.row(state))
            return jax.nn.one_hot(row, self.num_prefixes + 1, dtype=float)
        seen = {"position": state.length, "prompt": jnp.asarray(self.prompts)[state.prompt]}
        if self.observation == "prefix":
            seen["tokens"] = state.tokens
        else:
            seen["token"] = state.tokens[jnp.maximum(state.length - 1, 0)]
        for name, space in self._observed_spaces().items():
            # a trajectory stores bytes in a quarter of the memory of floats
            dtype = jnp.uint8 if space.n <= 256 else jnp.int32
            seen[name] = seen[name].reshape(space.shape).astype(dtype)
        return seen

    def row(self, state: SequenceState) -> Int[Array, ""]:
        """The place of a prefix in `prefixes`."""
        number = self._number(state.tokens, state.length)
        shorter, alike = (jnp.asarray(x, jnp.int32)[state.length] for x in self._counts())
        return self.num_prompts * shorter + state.prompt * alike + number

    def demonstrations(self, key: PRNGKeyArray, number: int, noise: float = 0.0) -> Demonstrations:
        """Sequences of the demonstrator, with errors, for imitation.

        Args:
            key: a random key.
            number: of sequences, N.
            noise: the share of tokens that are drawn uniformly, in [0, 1].

        Raises:
            ValueError: the environment has no demonstrator, or the noise is out of range.
        """
        number = count("number", number)
        if not 0.0 <= noise <= 1.0:
            raise ValueError(f"noise must be from 0 to 1, got {noise}")
        demonstrator = self._demonstrator
        if demonstrator is None:
            raise ValueError(
                f"{self.name} has no demonstrator: give Sequences one, or "
                "learn from a Trajectory of another policy"
            )

        def step(
            state: SequenceState, key: PRNGKeyArray
        ) -> tuple[SequenceState, tuple[PyTree, Array, Array]]:
            prompt = jnp.asarray(self.prompts)[state.prompt]
            right = demonstrator(prompt, state.tokens, state.length)
            probabilities = (1 - noise) * right + noise / self.num_tokens
            action = inverse_cdf(probabilities, jax.random.uniform(key, dtype=float))
            valid = ~self._has_ended(state, None)
            tokens = state.tokens.at[state.length].set(action.astype(jnp.int32))
            longer = SequenceState(state.prompt, tokens, state.length + 1)
            after = jax.tree.map(lambda new, old: jnp.where(valid, new, old), longer, state)
            return after, (self.get_obs(state), action, valid)

        def episode(key: PRNGKeyArray) -> tuple[PyTree, Array, Array]:
            prompt_key, key = jax.random.split(key)
            _, state = self.reset_env(prompt_key, None)
            return jax.lax.scan(step, state, jax.random.split(key, self.max_length))[1]

        obs, action, valid = jax.vmap(episode, out_axes=1)(jax.random.split(key, number))
        first = jnp.broadcast_to(jnp.arange(self.max_length)[:, None] == 0, valid.shape)
        return Demonstrations(obs, action, first, valid)

    def action_space(self, params: Any) -> spaces.Discrete:
        """V tokens."""
        return spaces.Discrete(self.num_tokens)

    def observation_space(self, params: Any) -> Any:
        """Tokens by name, or the range of a one-hot observation."""
        if self.observation == "table":
            return spaces.Box(0.0, 1.0, (self.num_prefixes + 1,))
        return spaces.Dict(self._observed_spaces())

    @property
    def name(self) -> str:
        """The name that the environment was made with."""
        return self._name

    def _observed_spaces(self) -> dict[str, Tokens]:
        """The spaces of the observation's parts, by name."""
        highest = int(self.prompts.max())
        # free places of a prompt's tokens may also be V, like those of a sequence
        is_number = self.prompts.ndim == 1
        kinds = highest + 1 if is_number else max(highest, self.num_tokens) + 1
        spaces = {
            "position": Tokens(self.max_length + 1, (1,)),
            "prompt": Tokens(kinds, self.prompts.shape[1:] or (1,)),
        }
        if self.observation == "prefix":
            spaces["tokens"] = Tokens(self.num_tokens + 1, (self.max_length,))
        else:
            spaces["token"] = Tokens(self.num_tokens + 1, (1,))
        return spaces

    def _has_ended(self, state: SequenceState, params: Any) -> Bool[Array, ""]:
        """True for a sequence whose last token is the end token, or that has the largest length."""
        longest: Any = self.max_length
        if params is not None:
            longest = jnp.minimum(longest, params.max_steps_in_episode)
        last = state.tokens[jnp.maximum(state.length - 1, 0)]
        return (last == self._end) | (state.length >= longest)

    def _as_function(
        self, field: str, reward: Any, of_table: Callable[[Any], Any]
    ) -> Callable[[SequenceState], Float[Array, ""]] | None:
        """A reward as a function of the state; None for none.

        Args:
            field: its name.
            reward: a function of prompt, tokens and length, or a table.
            of_table: the function of a table.

        Raises:
            ValueError: a function with other arguments, a table of another shape.
        """
        if reward is None or not callable(reward):
            return None if reward is None else of_table(reward)
        check_function(field, reward, ("prompt", "tokens", "length"), "or give a table")

        def of_state(state: SequenceState) -> Float[Array, ""]:
            prompt = jnp.asarray(self.prompts)[state.prompt]
            return jnp.asarray(reward(prompt, state.tokens, state.length), float)

        return of_state

    def _by_sequence(self, table: Any) -> Callable[[SequenceState], Float[Array, ""]]:
        """The entry of a table [M] or [N, M] at a whole sequence."""
        self._check_enumerable("a table of rewards")
        shorter, _ = self._counts()
        ended_early = shorter[-2] if self.end_token is not None else 0
        longest = self.num_tokens * self.num_continuing ** (self.max_length - 1)
        values = _table("reward", table, self.num_prompts, ended_early + longest, "sequences")

        def of_state(state: SequenceState) -> Float[Array, ""]:
            before = state.length - 1  # tokens before the last one, none of which is the end
            last = state.tokens[before]
            number = self._number(state.tokens, before)
            early = jnp.asarray(shorter, jnp.int32)[before] + number
            late = ended_early + number * self.num_tokens + last
            is_longest = state.length == self.max_length
            reward = jnp.asarray(values, float)[state.prompt, jnp.where(is_longest, late, early)]
            # a sequence that a smaller limit has cut is in no table
            return jnp.where(is_longest | (last == self._end), reward, 0.0)

        return of_state

    def _by_prefix(self, table: Any) -> Callable[[SequenceState], Float[Array, ""]]:
        """The entry of a table [R, V] at the prefix before the last token, and that token."""
        self._check_enumerable("a table of rewards")
        values = np.asarray(table, np.float64)
        if values.shape != (self.num_prefixes, self.num_tokens):
            raise ValueError(
                f"token_reward must have shape ({self.num_prefixes}, {self.num_tokens}), of each "
                f"token after each prefix, got {values.shape}"
            )

        def of_state(state: SequenceState) -> Float[Array, ""]:
            before = state._replace(length=state.length - 1)
            return jnp.asarray(values, float)[self.row(before), state.tokens[before.length]]

        return of_state

    def _number(self, tokens: Int[Array, " L"], length: Int[Array, ""]) -> Int[Array, ""]:
        """The index of the first tokens among all unfinished sequences of that length."""
        digit = tokens - (tokens > self._end)
        place = length - 1 - jnp.arange(self.max_length)
        power = jnp.asarray(self._counts()[1], jnp.int32)[jnp.maximum(place, 0)]
        return jnp.sum(jnp.where(place >= 0, digit * power, 0), dtype=jnp.int32)

    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a prompt's prefixes that are shorter than l, and of those of length l, for
        l = 0 .. L.
        """
        of_length = self.num_continuing ** np.arange(self.max_length + 1)
        return np.cumsum(of_length) - of_length, of_length

    def _check_enumerable(self, what: str) -> None:
        """Raises ValueError if there are too many prefixes for a table."""
        if self.num_prefixes > MOST_PREFIXES:
            raise ValueError(
                f"{what} needs at most {MOST_PREFIXES:,} prefixes, and there are "
                f"{self.num_prefixes:,}: give a function as reward, and observation='prefix' or "
                "'last'"
            )


def all_sequences(num_tokens: int, max_length: int, end_token: int | None) -> list[tuple[int, ...]]:
    """All M sequences: shorter ones first, then in the order of their tokens.

    Args:
        num_tokens: V, the end token included.
        max_length: L.
        end_token: the token that ends a sequence; None: every sequence has L tokens.
    """
    continuing = [a for a in range(num_tokens) if a != end_token]
    sequences = []
    for length in range(1, max_length + 1):
        is_longest = length == max_length
        last = range(num_tokens) if is_longest else [] if end_token is None else [end_token]
        before = itertools.product(continuing, repeat=length - 1)
        sequences += [(*tokens, a) for tokens in before for a in last]
    return sequences


def _table(field: str, table: Any, rows: int, columns: int, what: str) -> np.ndarray:
    """A table [columns] or [rows, columns] as the latter.

    Args:
        field: its name.
        table: the table.
        rows: the number of prompts.
        columns: the number of entries of each.
        what: the entries.

    Raises:
        ValueError: it has another shape.
    """
    values = np.asarray(table, np.float64)
    if values.shape not in ((columns,), (rows, columns)):
        raise ValueError(
            f"{field} must have shape ({columns},) or ({rows}, {columns}), for all {columns} "
            f"{what}, got {values.shape}"
        )
    return np.broadcast_to(values, (rows, columns))


def _checked_prompts(prompts: Any) -> np.ndarray:
    """Prompts [N] or [N, P] as whole numbers. Raises ValueError for anything else."""
    if np.ndim(prompts) == 0:
        return np.arange(count("prompts", prompts), dtype=np.int32)
    array = np.asarray(prompts)
    if array.dtype.kind not in "iu" or array.ndim > 2 or array.size == 0 or array.min() < 0:
        raise ValueError(
            "prompts must be a number of them, or whole numbers from 0 in an array [N] or [N, P]; "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int32)


def _checked_probabilities(probabilities: Any, num_prompts: int) -> np.ndarray:
    """The probabilities of the prompts, [N]. Raises ValueError for invalid ones."""
    if probabilities is None:
        return np.full(num_prompts, 1 / num_prompts)
    array = np.asarray(probabilities, np.float64)
    if array.shape != (num_prompts,):
        raise ValueError(
            f"prompt_probabilities must have shape ({num_prompts},), got {array.shape}"
        )
    if (array < 0).any() or not np.isclose(array.sum(), 1.0, atol=1e-8):
        raise ValueError("prompt_probabilities must be probabilities that sum to 1")
    return array
