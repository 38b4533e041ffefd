"""The contract of adapters: an environment of another library, stepped by pg, is that library's own
loop, step by step.

An `Entry` says how the library steps its environment without pg; random actions are taken in both,
with the same random keys, and what they show is compared. The entries are in `own_loops.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import Config
from pg.envs import Discrete, ProductSpace, adapters, make_env
from pg.envs.actions import random_action as random_action_of
from pg.envs.observations import Masked
from pg.fast import key_numbers, row_keys
from pg.train import make_train


class Step(NamedTuple):
    """The results of a reset or a step of the library, in plain numbers."""

    obs: Any  # as the adapter promises it: a tree where that is one, discrete parts one-hot
    reward: Any = 0.0
    terminated: Any = False
    truncated: Any = False
    mask: Any = None  # the legal actions, bool [A], a tuple of these for several; None: all


class Loop(NamedTuple):
    """The library's own loop of one environment, with the library's own time limit."""

    reset: Callable[[jax.Array], tuple[Any, Step]]  # key -> the library's state, step
    step: Callable[[jax.Array, Any, Any], tuple[Any, Step]]  # key, state, action -> the same


class Entry(NamedTuple):
    """An environment of a library, for the contract."""

    env: str  # library:name
    loop: Callable[[int], Loop]  # the time limit, in steps -> the library's own loop
    limit: int  # the library's own
    # the adapter's option that sets it; "": the adapter has none, as the bare environment has none
    limit_option: str = ""
    # where there is none: an observation of pg's -> an action with which no episode ends by itself
    # before that limit; not needed where none ever ends
    survive: Callable[[Any], Any] | None = None
    is_short: bool = False  # an episode always ends long before the limit
    actions: tuple[Any, ...] = ()  # the first ones of the first episode; all others are random
    any_action: bool = False  # illegal ones are drawn too, as where only they end an episode
    ends: bool = True  # some of the episodes end, by themselves, within so many steps
    num_steps: int = 40
    num_episodes: int = 4
    cut: int = 3  # a limit that is reached before any of them ends
    rtol: float = 1e-5  # one program for all environments, and another for one
    atol: float = 1e-6
    # of the library's state after a reset, on both sides: nearer to an end
    begin: Callable[[Any], Any] | None = None
    make: Callable[..., Any] = adapters.make
    options: dict[str, Any] = {}  # noqa: RUF012  a NamedTuple's default, never changed
    modules: tuple[str, ...] | None = None  # that it needs; None: the library itself
    # what else it needs and is not here, asked once its modules are: a sentence, or ""
    lacks: Callable[[], str] = str
    settings: dict[str, Any] = {}  # noqa: RUF012  of the training, beside those of all

    @property
    def needs(self) -> tuple[str, ...]:
        """The modules without which it is skipped."""
        return (self.env.partition(":")[0],) if self.modules is None else self.modules

    def adapter(self, **options: Any) -> Any:
        """The environment through pg."""
        return self.make(self.env, **self.options, **options)


class Episode(NamedTuple):
    """An episode of the library's own loop."""

    actions: list[Any]
    steps: list[Step]  # the first is that of the reset


class Played(NamedTuple):
    """The same through pg: the first observations [B, ...], and the transitions [T, B, ...]."""

    obs: Any
    steps: Any


KEY = 0


def reset_keys(entry: Entry) -> jax.Array:
    """[B], those of which pg makes the environments of one key."""
    return row_keys.split(jax.random.key(KEY), entry.num_episodes)


def step_keys(entry: Entry) -> jax.Array:
    """[T, B]."""
    return jax.random.split(jax.random.key(KEY + 1), (entry.num_steps, entry.num_episodes))


class Contract:
    """The promises of an adapter, each a method that raises AssertionError if it is broken."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.adapter = entry.adapter()
        self.env = make_env(self.adapter, entry.num_episodes)
        self.play = program(entry, self.adapter, entry.num_episodes)
        self.episodes = own_episodes(entry, self.env, entry.limit)

    def rollouts_are_the_librarys(self) -> None:
        """Rewards, ends, observations and masks of random rollouts."""
        if self.entry.ends:
            ended = [bool(episode.steps[-1].terminated) for episode in self.episodes]
            assert any(ended), f"no episode of {self.entry.env} ended in the library's own loop"
        played = self.play(self.entry.limit, stacked(self.entry, self.env, self.episodes))
        assert_same(self.entry, self.episodes, played)

    def a_limit_is_a_truncation(self) -> None:
        """At the step of the library's own, with the true successor, and never a termination."""
        entry = self.entry
        cut = own_episodes(entry, self.env, entry.cut)
        truncated = [step.truncated and not step.terminated for _, (*_, step) in cut]
        assert any(truncated), f"no episode of {entry.env} reaches {entry.cut} steps"
        played = self.play(entry.cut, stacked(entry, self.env, cut))
        assert_same(entry, cut, played)

    def the_limit_is_the_librarys(self) -> None:
        """The same number; and where an option sets it, the library's own counter does not end an
        episode before ours.
        """
        entry = self.entry
        assert self.env.max_steps == entry.limit
        if not entry.limit_option:
            self._no_episode_ends_at(entry.limit)
            return
        short = entry.adapter(**{entry.limit_option: entry.cut})
        assert make_env(short, 1).max_steps == entry.cut
        longer = own_episodes(entry, self.env, entry.cut + 3)
        play = program(entry, short, entry.num_episodes)
        played = play(entry.cut + 3, stacked(entry, self.env, longer))
        assert_same(entry, longer, played)

    def _no_episode_ends_at(self, limit: int) -> None:
        """One that does not end by itself is not terminated at the library's limit either."""
        survive = self.entry.survive
        if self.entry.is_short:
            return
        env = make_env(self.adapter, 1, {"max_steps_in_episode": limit + 9})
        assert survive or not self.entry.ends, "say how an episode goes on: survive="

        def step(carry: Any, key: jax.Array) -> Any:
            state, obs = carry
            if survive is None:
                action = random_action_of(env.action_space, key)
            else:
                action = survive(jax.tree.map(lambda x: x[0], obs))
            batch = jax.tree.map(lambda x: jnp.asarray(x)[None], action)
            state, transition = env.step(key, state, batch)
            return (state, transition.next_obs), (transition.terminated, transition.truncated)

        keys = jax.random.split(jax.random.key(KEY), limit + 1)
        run = jax.jit(lambda: jax.lax.scan(step, env.reset(jax.random.key(KEY)), keys)[1])
        terminated, truncated = (np.asarray(x)[:, 0] for x in run())
        assert not terminated.any(), f"terminated after {np.argmax(terminated) + 1} steps"
        assert not truncated[: limit - 1].any(), f"cut after {np.argmax(truncated) + 1} steps"

    def a_key_determines_a_rollout(self) -> None:
        """Bitwise identical when repeated; and one environment alone equals one of several."""
        entry = self.entry
        actions = stacked(entry, self.env, self.episodes)
        first, again = (self.play(entry.limit, actions) for _ in range(2))
        jax.tree.map(np.testing.assert_array_equal, first, again)
        alone = program(entry, entry.adapter(), 1)
        single = alone(entry.limit, jax.tree.map(lambda x: x[:, :1], actions))
        assert_same(entry, self.episodes[:1], single)

    def a_state_can_be_kept(self) -> None:
        """A state without a key that JAX types, which no checkpoint holds."""
        state, _ = jax.eval_shape(self.env.reset, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            is_key = key_numbers.is_key(leaf)
            assert not is_key, f"{self.entry.env}: {jax.tree_util.keystr(path)} is a typed key"

    def it_is_trained(self, collect: str) -> None:
        """A few updates, whose gradients are finite and not all zero."""
        config = Config(
            env=self.adapter,
            env_params={"max_steps_in_episode": 12},
            estimator="gae",  # whose critic has a gradient even where no reward is found
            collect=collect,
            num_updates=3,
            num_envs=2,
            num_steps=4,
            hidden_sizes=(8,),
            preset=None,
            **self.entry.settings,
        )
        # so small that no unit is saturated, and without a gradient, after the first step
        hyperparams = config.hyperparams(learning_rate=1e-4)
        state, metrics = jax.jit(make_train(config))(jax.random.key(0), hyperparams)
        leaves = jax.tree.leaves((state.params, metrics["grad_norm"]))
        assert all(np.isfinite(x).all() for x in leaves)
        assert np.all(metrics["grad_norm"] > 0)


def program(entry: Entry, adapter: Any, num_envs: int) -> Callable[[int, Any], Played]:
    """The rollout of an adapter, compiled once for every limit.

    limit, actions [T, B, ...] -> what pg shows.
    """
    keys = step_keys(entry)[:, :num_envs]

    @jax.jit
    def play(limit: Any, actions: Any) -> Played:
        env = make_env(adapter, num_envs, {"max_steps_in_episode": limit})
        state, obs = env.reset(jax.random.key(KEY))
        if entry.begin is not None:
            state = state.replace(inner=jax.vmap(entry.begin)(state.inner))

        def step(state: Any, inputs: Any) -> Any:
            key, action = inputs
            return env.step(key, state, action)

        return Played(obs, jax.lax.scan(step, state, (keys, actions))[1])

    return play


def own_episodes(entry: Entry, env: Any, limit: int) -> list[Episode]:
    """Episodes of the library's own loop with this limit, until they end."""
    loop = entry.loop(limit)
    keys, rng = step_keys(entry), np.random.default_rng(0)
    episodes = []
    for b, key in enumerate(reset_keys(entry)):
        state, begin = loop.reset(key)
        if entry.begin is not None:
            state = entry.begin(state)
        given = list(entry.actions) if b == 0 else []
        episode = Episode([], [begin])
        while len(episode.actions) < entry.num_steps:
            step = episode.steps[-1]
            if step.terminated or step.truncated:
                break
            mask = None if entry.any_action else step.mask
            action = given.pop(0) if given else random_action(env.action_space, mask, rng)
            state, step = loop.step(keys[len(episode.actions), b], state, action)
            episode.actions.append(action)
            episode.steps.append(jax.tree.map(np.asarray, step))
        episodes.append(episode)
    return episodes


def random_action(space: Any, mask: Any, rng: np.random.Generator) -> Any:
    """A uniform legal action of a space of pg."""
    if isinstance(space, ProductSpace):
        masks = mask if mask is not None else [None] * len(space.parts)
        return tuple(random_action(*pair, rng) for pair in zip(space.parts, masks, strict=True))
    if isinstance(space, Discrete):
        return np.int32(rng.choice(space.n if mask is None else np.flatnonzero(mask)))
    low, high = np.maximum(space.low, -1.0), np.minimum(space.high, 1.0)
    return rng.uniform(low, high).astype(np.float32)


def stacked(entry: Entry, env: Any, episodes: list[Episode]) -> Any:
    """The actions [T, B, ...]; beyond the end of an episode there are random ones."""
    rng = np.random.default_rng(1)
    rows = []
    for t in range(entry.num_steps):
        row = [
            episode.actions[t]
            if t < len(episode.actions)
            else random_action(env.action_space, None, rng)
            for episode in episodes
        ]
        rows.append(jax.tree.map(lambda *xs: np.stack(xs), *row))
    return jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *rows)


def assert_same(entry: Entry, episodes: list[Episode], played: Played) -> None:
    """Compares what pg shows with the library's own episodes, up to the end of each."""
    transitions = jax.tree.map(np.asarray, played.steps)
    firsts = jax.tree.map(np.asarray, played.obs)
    for b, episode in enumerate(episodes):
        begin, *steps = episode.steps
        where = f"{entry.env}, episode {b}, reset"
        _assert_shown(entry, where, begin, jax.tree.map(lambda x, b=b: x[b], firsts))
        for t, step in enumerate(steps):
            where = f"{entry.env}, episode {b}, step {t}"
            seen = jax.tree.map(lambda x, t=t, b=b: x[t, b], transitions)
            is_cut = bool(step.truncated) and not step.terminated
            assert seen.terminated == step.terminated, f"{where}: terminated={seen.terminated}"
            # where both are set, the termination counts
            if not step.terminated:
                assert seen.truncated == is_cut, f"{where}: truncated={seen.truncated}"
            np.testing.assert_allclose(
                seen.reward, step.reward, entry.rtol, entry.atol, err_msg=f"{where}: reward"
            )
            _assert_shown(entry, where, step, seen.next_obs)


def _assert_shown(entry: Entry, where: str, step: Step, shown: Any) -> None:
    """Compares an observation, and its mask, with what the library shows."""
    assert isinstance(shown, Masked) == (step.mask is not None), f"{where}: a mask"
    obs = shown.obs if isinstance(shown, Masked) else shown
    expected, found = (jax.tree.structure(x) for x in (step.obs, obs))
    assert found == expected, f"{where}: parts of the observation"
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(obs), jax.tree.leaves(step.obs), strict=True
    ):
        name = f"{where}: observation{jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(x, np.asarray(y, float), entry.rtol, entry.atol, err_msg=name)
    if step.mask is not None:
        for x, y in zip(jax.tree.leaves(shown.mask), jax.tree.leaves(step.mask), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=f"{where}: action mask")
