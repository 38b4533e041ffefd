"""The libraries' own loops, for the contract of adapters: one entry for each environment.

A library is imported where a loop is built, so that an entry can be listed without it. A loop is
written as the library's documentation writes it, with the library's own time limit, and takes
nothing from the adapter that it is compared with.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from adapter_contract import Entry, Loop, Step

from pg.envs import spaces
from pg.envs.adapters.base import Adapter
from pg.envs.adapters.gymnasium import adapt as adapt_gymnasium

# --- a library for the tests -----------------------------------------------------------------


class Hallway:
    """A library in plain Python: a noisy walk between two walls, the right one of which ends the
    episode. The third move is legal in even steps only.
    """

    moves = (-0.3, 0.3, 0.9)

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def shown(self, **results: Any) -> Step:
        obs = {"at": (np.array([self.place]), np.array([self.last])), "time": np.array([self.t])}
        return Step(obs, mask=np.array([True, True, self.t % 2 == 0]), **results)

    def reset(self, key: jax.Array) -> tuple[Any, Step]:
        self.place, self.last, self.t = float(jax.random.uniform(key)), 0.0, 0
        return None, self.shown()

    def step(self, key: jax.Array, state: Any, action: Any) -> tuple[Any, Step]:
        self.last, self.t = self.place, self.t + 1
        self.place = max(self.place + self.moves[action] + 0.1 * float(jax.random.normal(key)), 0.0)
        over = self.place > 2.0
        cut = self.t >= self.limit
        return None, self.shown(reward=self.place, terminated=over, truncated=cut and not over)


def hallway(limit: int = 100) -> Adapter:
    """The adapter of Hallway."""

    def shown(place: Any, last: Any, t: Any) -> Any:
        return {"at": (place[None], last[None]), "time": t[None].astype(float)}

    def reset(key: jax.Array) -> Any:
        state = jax.random.uniform(key), jnp.zeros(()), jnp.int32(0)
        return shown(*state), state

    def step(key: jax.Array, state: Any, action: Any) -> Any:
        place, _, t = state
        moved = place + jnp.asarray(Hallway.moves)[action] + 0.1 * jax.random.normal(key)
        after = jnp.maximum(moved, 0.0), place, t + 1
        return shown(*after), after, after[0], after[0] > 2.0, False

    return Adapter(
        "tests:Hallway",
        reset,
        step,
        spaces.Discrete(3),
        limit,
        action_mask=lambda state: jnp.stack([True, True, state[2] % 2 == 0]),
    )


def hallway_loop(limit: int) -> Loop:
    """Hallway's own loop."""
    library = Hallway(limit)
    return Loop(library.reset, library.step)


# --- Gymnasium -------------------------------------------------------------------------------


def gymnasium_loop(build: Any, limit: int, shown: Any = lambda obs: obs) -> Loop:
    """The loop of `gymnasium.Env`, whose seed is drawn from the key.

    build: limit -> the environment with Gymnasium's own `TimeLimit`. shown: its observation as pg
    shows it.
    """
    env = build(limit)

    def reset(key: jax.Array) -> tuple[Any, Step]:
        obs, info = env.reset(seed=int(jax.random.bits(key, (), jnp.uint32)))
        return None, Step(shown(obs), mask=_mask(info))

    def step(key: jax.Array, state: Any, action: Any) -> tuple[Any, Step]:
        obs, reward, terminated, truncated, info = env.step(own(action))
        return None, Step(shown(obs), reward, terminated, truncated, _mask(info))

    def own(action: Any) -> Any:
        whole = isinstance(env.action_space, gymnasium.spaces.Discrete)
        return int(action + env.action_space.start) if whole else action

    return Loop(reset, step)


def _mask(info: Any) -> Any:
    return np.asarray(info["action_mask"], bool) if "action_mask" in info else None


def made_by_gymnasium(name: str, shown: Any = lambda obs: obs) -> Any:
    """limit -> loop of a registered environment."""

    def build(limit: int) -> Any:
        return gymnasium.make(name, max_episode_steps=limit)

    return lambda limit: gymnasium_loop(build, limit, shown)


def envpool_loop(name: str, limit: int) -> Loop:
    """The loop of a pool of one environment, made again with the seed of each episode."""
    import envpool

    def reset(key: jax.Array) -> tuple[Any, Step]:
        seed = int(jax.random.bits(key, (), jnp.uint32)) >> 1
        options = {"num_envs": 1, "seed": [seed], "max_episode_steps": limit}
        pool = envpool.make(name, env_type="gymnasium", **options)
        return pool, Step(pool.reset()[0][0])

    def step(key: jax.Array, pool: Any, action: Any) -> tuple[Any, Step]:
        obs, reward, terminated, truncated, _ = pool.step(np.array([action]))
        return pool, Step(obs[0], reward[0], terminated[0], truncated[0])

    return Loop(reset, step)


def upright(obs: Any) -> Any:
    """CartPole: a push that keeps the pole up."""
    place, speed, angle, turn = obs
    return (angle + 0.3 * turn + 0.02 * place + 0.05 * speed > 0).astype(int)


def blackjack(obs: Any) -> Any:
    """The one-hot parts of its observation."""
    return tuple(np.eye(n)[x] for n, x in zip((32, 11, 2), obs, strict=True))


class Counter(gymnasium.Env):
    """Observations of several parts, actions that start at 1, and a truncation of its own: it stops
    after 9 steps, unless the noisy sum of its actions has passed 10.
    """

    observation_space = gymnasium.spaces.Dict(
        {
            "sum": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "turn": gymnasium.spaces.Discrete(3, start=5),
        }
    )
    action_space = gymnasium.spaces.Discrete(2, start=1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.sum, self.steps = self.np_random.random(2), 0
        return self.shown(), {}

    def shown(self) -> Any:
        return {"sum": self.sum.copy(), "turn": 5 + self.steps % 3}

    def step(self, action: Any) -> Any:
        moved = np.array([action, self.np_random.random()])
        self.sum, self.steps = self.sum + moved, self.steps + 1
        return self.shown(), float(self.sum[1]), bool(self.sum[0] > 10), self.steps >= 9, {}


def counter(obs: Any) -> Any:
    """The observation with its discrete part one-hot."""
    return {**obs, "turn": np.eye(3)[obs["turn"] - 5]}


def counter_loop(limit: int) -> Loop:
    """Counter's own loop."""

    def build(limit: int) -> Any:
        return gymnasium.wrappers.TimeLimit(Counter(), limit)

    return gymnasium_loop(build, limit, counter)


# --- libraries in JAX ------------------------------------------------------------------------


def counted_loop(env: Any) -> Loop:
    """An environment of Brax's interface in the wrapper that counts its episodes."""
    reset, step = jax.jit(env.reset), jax.jit(env.step)

    def begin(key: jax.Array) -> tuple[Any, Step]:
        # in NumPy nothing is weakly typed: the step is compiled once
        state = jax.tree.map(np.asarray, reset(jax.random.key_data(key)))
        return state, Step(state.obs)

    def go_on(key: jax.Array, state: Any, action: Any) -> tuple[Any, Step]:
        state = step(state, action)
        is_cut = state.info["truncation"] > 0
        return state, Step(state.obs, state.reward, (state.done > 0) & ~is_cut, is_cut)

    return Loop(begin, go_on)


def brax_loop(name: str, limit: int) -> Loop:
    """`brax.envs.create`, whose wrapper counts episodes of this length."""
    from brax import envs

    env = envs.create(name, episode_length=limit, auto_reset=False)
    return counted_loop(env)


def balanced(obs: Any) -> Any:
    """The inverted pendulum: a force that keeps it up."""
    place, angle, speed, turn = obs
    return jnp.clip(jnp.stack([2.0 * angle + 0.3 * turn + 0.05 * place + 0.1 * speed]), -1.0, 1.0)


def craftax_loop(name: str, limit: int) -> Loop:
    """Craftax's own step without its reset: `done` is death, or its own limit."""
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(name, auto_reset=False)
    params = env.default_params.replace(max_timesteps=limit)
    reset, step = jax.jit(env.reset), jax.jit(env.step)

    def begin(key: jax.Array) -> tuple[Any, Step]:
        obs, state = reset(jax.random.key_data(key), params)
        return state, Step(obs)

    def go_on(key: jax.Array, state: Any, action: Any) -> tuple[Any, Step]:
        obs, state, reward, done, _ = step(jax.random.key_data(key), state, action, params)
        dead = bool(state.player_health <= 0)
        return state, Step(obs, reward, bool(done) and dead, bool(done) and not dead)

    return Loop(begin, go_on)


def starving(state: Any) -> Any:
    """Craftax: one heart left, and nothing to restore it with."""
    nothing = {name: jnp.zeros_like(getattr(state, name)) for name in ("player_food",)}
    left = jnp.ones_like(state.player_health)
    recover = jnp.full_like(state.player_recover, -10.0)
    return state.replace(player_health=left, player_recover=recover, **nothing)


def jumanji_loop(name: str, limit: int, shown: Any = None, **options: Any) -> Loop:
    """Jumanji's own step. Its end at the limit looks like any other: an environment without the
    limit, beside it, tells which is which.
    """
    import jumanji

    env = jumanji.make(name, time_limit=limit, **options)
    endless = jumanji.make(name, time_limit=10**6, **options)
    reset, step, further = jax.jit(env.reset), jax.jit(env.step), jax.jit(endless.step)

    def flat(obs: Any) -> Any:
        return np.concatenate([np.ravel(getattr(obs, part)) for part in shown])

    def allowed(obs: Any) -> Any:
        """The legal actions; all where a snake is shut in."""
        mask = np.asarray(obs.action_mask)
        return np.where(mask.any(-1, keepdims=True), mask, True)

    def begin(key: jax.Array) -> tuple[Any, Step]:
        state, timestep = reset(jax.random.key_data(key))
        return state, Step(flat(timestep.observation), mask=allowed(timestep.observation))

    def go_on(key: jax.Array, state: Any, action: Any) -> tuple[Any, Step]:
        ended = bool(further(state, action)[1].last())
        state, timestep = step(state, action)
        obs, last = timestep.observation, bool(timestep.last())
        return state, Step(
            flat(obs), timestep.reward, last and ended, last and not ended, allowed(obs)
        )

    return Loop(begin, go_on)


def navix_loop(name: str, limit: int) -> Loop:
    """Navix' own step, which resets only when it is stepped from an end."""
    import navix

    env = navix.make(name, max_steps=limit)
    reset, step = jax.jit(env.reset), jax.jit(env.step)

    def begin(key: jax.Array) -> tuple[Any, Step]:
        timestep = reset(jax.random.key_data(key))
        return timestep, Step(timestep.observation)

    def go_on(key: jax.Array, timestep: Any, action: Any) -> tuple[Any, Step]:
        timestep = step(timestep, action)
        return timestep, Step(
            timestep.observation,
            timestep.reward,
            timestep.is_termination(),
            timestep.is_truncation(),
        )

    return Loop(begin, go_on)


def xminigrid_loop(name: str, limit: int) -> Loop:
    """XLand-MiniGrid's own step, without the wrappers that reset."""
    import xminigrid

    env, params = xminigrid.make(name, max_steps=limit)
    reset, step = jax.jit(env.reset), jax.jit(env.step)

    def begin(key: jax.Array) -> tuple[Any, Step]:
        timestep = reset(params, jax.random.key_data(key))
        return timestep, Step(timestep.observation)

    def go_on(key: jax.Array, timestep: Any, action: Any) -> tuple[Any, Step]:
        timestep = step(params, timestep, action)
        last, over = bool(timestep.last()), float(timestep.discount) == 0.0
        return timestep, Step(timestep.observation, timestep.reward, last and over, last)

    return Loop(begin, go_on)


def playground_loop(name: str, limit: int) -> Loop:
    """Playground's environment in the wrapper that counts its episodes."""
    from brax.envs.wrappers.training import EpisodeWrapper
    from mujoco_playground import registry

    env = EpisodeWrapper(registry.load(name, config_overrides={"impl": "jax"}), limit, 1)
    return counted_loop(env)


def robot_files(folder: str) -> str:
    """A sentence on a robot of MuJoCo Menagerie that is not here; "" where it is."""
    from mujoco_playground._src.mjx_env import MENAGERIE_PATH

    found = (MENAGERIE_PATH / folder).exists()
    return "" if found else f"no clone of MuJoCo Menagerie at {MENAGERIE_PATH}: `make robots`"


def kinetix_loop(level: str, limit: int) -> Loop:
    """Kinetix' own step without its reset. `done` is the end of the level, or its limit: an
    environment without the limit, beside it, tells which is which.
    """
    from kinetix.environment.env import make_kinetix_env
    from kinetix.environment.spaces import ActionType, ObservationType
    from kinetix.util.saving import load_from_json_file

    start, static_params, params = load_from_json_file(f"{level}.json")
    kinds = ActionType.MULTI_DISCRETE, ObservationType.SYMBOLIC_FLAT
    env = make_kinetix_env(*kinds, lambda key: start, params, static_params, auto_reset=False)
    limited, endless = (params.replace(max_timesteps=n) for n in (limit, 10**6))

    def begin(key: jax.Array) -> tuple[Any, Step]:
        obs, state = env.reset(jax.random.key_data(key), limited)
        return state, Step(obs)

    def go_on(key: jax.Array, before: Any, action: Any) -> tuple[Any, Step]:
        taken = jax.random.key_data(key), before, jnp.array(action)
        over = bool(env.step(*taken, endless)[3])
        obs, state, reward, done, _ = env.step(*taken, limited)
        return state, Step(obs, reward, bool(done) and over, bool(done) and not over)

    return Loop(begin, go_on)


def arcade_loop(name: str, limit: int) -> Loop:
    """POPGym Arcade's own step without its reset, whose `info` tells an end from the limit."""
    import popgym_arcade

    env, params = popgym_arcade.make(name)
    env.max_episode_length = limit

    def begin(key: jax.Array) -> tuple[Any, Step]:
        obs, state = env.reset_env(jax.random.key_data(key), params)
        return state, Step(obs)

    def go_on(key: jax.Array, state: Any, action: Any) -> tuple[Any, Step]:
        obs, state, reward, _, info = env.step_env(jax.random.key_data(key), state, action, params)
        return state, Step(obs, reward, bool(info["terminated"]), bool(info["truncated"]))

    return Loop(begin, go_on)


def pgx_loop(name: str, limit: int, opponent: Any = None) -> Loop:
    """Pgx' own step; where a game has several players, one after the other. It has no limit of its
    own.

    The keys are split as the adapter says it.
    """
    import pgx

    env = pgx.make(name)
    init, step, observe = jax.jit(env.init), jax.jit(env.step), jax.jit(env.observe)
    agent = jnp.int32(0)

    def over(state: Any) -> bool:
        return bool(state.terminated | state.truncated)

    def shown(state: Any) -> Any:
        return observe(state, agent) if over(state) else state.observation

    def others(state: Any, reward: float, key: jax.Array) -> tuple[Any, float]:
        while not over(state) and int(state.current_player) != 0:
            key, of_choice, of_move = jax.random.split(key, 3)
            action = opponent(of_choice, state.observation, state.legal_action_mask)
            state = step(state, action, jax.random.key_data(of_move))
            reward += float(state.rewards[0])
        return state, reward

    def begin(key: jax.Array) -> tuple[Any, Step]:
        of_game, of_others = jax.random.split(key)
        state, owed = others(init(jax.random.key_data(of_game)), 0.0, of_others)
        return (state, 0, owed), Step(shown(state), mask=state.legal_action_mask)

    def go_on(key: jax.Array, before: Any, action: Any) -> tuple[Any, Step]:
        state, steps, owed = before
        of_move, of_others = jax.random.split(key)
        state = step(state, action, jax.random.key_data(of_move))
        state, reward = others(state, owed + float(state.rewards[0]), of_others)
        is_cut = steps + 1 >= limit and not over(state)
        mask = state.legal_action_mask
        return (state, steps + 1, 0.0), Step(shown(state), reward, over(state), is_cut, mask)

    return Loop(begin, go_on)


def by_what_it_sees(key: jax.Array, observation: Any, mask: Any) -> Any:
    """An opponent whose choice depends on its observation, and not on its key."""
    preference = (jnp.arange(len(mask)) * 7 + observation.sum().astype(int)) % len(mask)
    return jnp.argmax(jnp.where(mask, preference, -1))


def by_lot(key: jax.Array, observation: Any, mask: Any) -> Any:
    """An opponent that takes any legal action."""
    return jax.random.categorical(key, jnp.log(mask.astype(float)))


# Of frames of bytes, 128 squared.
PICTURES = {"scale_observations": True, "conv": ("8x8x4", "8x4x2")}

# --- the table -------------------------------------------------------------------------------

HALLWAY = Entry(
    "tests:Hallway",
    hallway_loop,
    100,
    survive=lambda shown: 0,
    make=lambda name: hallway(),
    modules=(),
)

ENTRIES = {
    "tests": HALLWAY,
    "envpool": Entry(
        "envpool:CartPole-v1",
        lambda limit: envpool_loop("CartPole-v1", limit),
        500,
        survive=upright,
    ),
    "gymnasium": Entry(
        "gymnasium:CartPole-v1", made_by_gymnasium("CartPole-v1"), 500, survive=upright
    ),
    "gymnasium, a box of actions": Entry(
        "gymnasium:Pendulum-v1", made_by_gymnasium("Pendulum-v1"), 200, ends=False
    ),
    "gymnasium, a tuple of numbers": Entry(
        "gymnasium:Blackjack-v1",
        made_by_gymnasium("Blackjack-v1", blackjack),
        1000,
        is_short=True,
        cut=1,
    ),
    "gymnasium, a dictionary": Entry(
        "gymnasium:Counter",
        counter_loop,
        50,
        is_short=True,
        num_steps=20,
        make=lambda name: adapt_gymnasium(Counter, "Counter", 50),
        modules=(),
    ),
    "gymnasium, masks": Entry(
        "gymnasium:Taxi-v4",
        made_by_gymnasium("Taxi-v4", lambda obs: np.eye(500)[obs]),
        200,
        ends=False,
    ),
    "brax": Entry(
        "brax:inverted_pendulum",
        lambda limit: brax_loop("inverted_pendulum", limit),
        1000,
        survive=balanced,
    ),
    "craftax": Entry(
        "craftax:Craftax-Classic-Symbolic-v1",
        lambda limit: craftax_loop("Craftax-Classic-Symbolic-v1", limit),
        10_000,
        "max_timesteps",
        begin=starving,
    ),
    "jumanji": Entry(
        "jumanji:Snake-v1",
        lambda limit: jumanji_loop("Snake-v1", limit, ("grid", "step_count")),
        4000,
        "time_limit",
        any_action=True,
    ),
    "jumanji, a maze": Entry(
        "jumanji:Maze-v0",
        lambda limit: jumanji_loop(
            "Maze-v0",
            limit,
            ("agent_position", "target_position", "walls", "step_count"),
        ),
        100,
        "time_limit",
        ends=False,
    ),
    "kinetix": Entry(
        "kinetix:s/h4_thrust_aim",
        lambda limit: kinetix_loop("s/h4_thrust_aim", limit),
        256,
        "max_timesteps",
        actions=((1, 0, 0, 0, 0, 0),) * 30,
    ),
    "navix": Entry(
        "navix:Navix-Empty-5x5-v0",
        lambda limit: navix_loop("Navix-Empty-5x5-v0", limit),
        100,
        "max_steps",
        actions=(2, 2, 1, 2, 2),
    ),
    "pgx": Entry(
        "pgx:tic_tac_toe",
        lambda limit: pgx_loop("tic_tac_toe", limit, by_lot),
        1000,
        "max_steps",
        cut=2,
        num_episodes=6,
    ),
    "pgx, an opponent": Entry(
        "pgx:connect_four",
        lambda limit: pgx_loop("connect_four", limit, by_what_it_sees),
        1000,
        "max_steps",
        options={"opponent": by_what_it_sees},
    ),
    "pgx, several moves in a row": Entry(
        "pgx:backgammon",
        lambda limit: pgx_loop("backgammon", limit, by_what_it_sees),
        1000,
        "max_steps",
        options={"opponent": by_what_it_sees},
        ends=False,
        num_steps=20,
    ),
    "pgx, three players": Entry(
        "pgx:sparrow_mahjong",
        lambda limit: pgx_loop("sparrow_mahjong", limit, by_what_it_sees),
        1000,
        "max_steps",
        options={"opponent": by_what_it_sees},
        cut=1,
    ),
    "pgx, 2048": Entry(
        "pgx:2048", lambda limit: pgx_loop("2048", limit), 1000, "max_steps", any_action=True
    ),
    "pgx, MinAtar": Entry(
        "pgx:minatar-breakout", lambda limit: pgx_loop("minatar-breakout", limit), 1000, "max_steps"
    ),
    "playground": Entry(
        "playground:CartpoleBalance",
        lambda limit: playground_loop("CartpoleBalance", limit),
        1000,
        "episode_length",
        ends=False,
        modules=("mujoco_playground",),
    ),
    "playground, a robot": Entry(
        "playground:BarkourJoystick",
        lambda limit: playground_loop("BarkourJoystick", limit),
        1000,
        "episode_length",
        ends=False,
        num_steps=6,
        num_episodes=2,
        modules=("mujoco_playground",),
        lacks=lambda: robot_files("google_barkour_vb"),
    ),
    "popgym_arcade": Entry(
        "popgym_arcade:BattleShipEasy",
        lambda limit: arcade_loop("BattleShipEasy", limit),
        128,
        survive=lambda obs: 0,
        actions=(4,) * 40,  # the same place too often
        num_episodes=2,
        settings=PICTURES,
    ),
    "xminigrid": Entry(
        "xminigrid:MiniGrid-Empty-5x5",
        lambda limit: xminigrid_loop("MiniGrid-Empty-5x5", limit),
        100,
        "max_steps",
        actions=(0, 0, 1, 0, 0),
        cut=1,  # the reward of the goal depends on the limit: before it is reached
    ),
    "xminigrid, rules": Entry(
        "xminigrid:XLand-MiniGrid-R1-9x9",
        lambda limit: xminigrid_loop("XLand-MiniGrid-R1-9x9", limit),
        243,
        "max_steps",
        ends=False,
    ),
}
