"""Pgx: board and card games, 2048 and MinAtar, `pgx:tic_tac_toe`.

A game of one player is stepped as it is. In a game of several the agent is player 0, and the others
are part of the environment: after each action of the agent they move until it is the agent's turn,
or the game is over. Pgx draws who begins. The reward is the sum of the agent's rewards over all
these moves. With three players (`sparrow_mahjong`) two may end the game before the agent's first
move: such an episode is one step, whose action has no effect and whose reward is the agent's gain
or loss.

    opponent(key, observation, mask) -> action

returns the actions of other players, from the observation of the player to move and the legal
actions, bool [A]; by default a random one of these. It may be a trained policy, or
`pgx.make_baseline_model`, whose parameters Pgx downloads.

The legal actions are Pgx's. An illegal one, which policies do not take unless
`action_mask="none"`, loses at once.

Limits: Pgx has none; if a game has a largest number of moves (Go), that is one of its rules. The
limit is ours, 1000 actions of the agent, or `max_steps`. The observation after the last move is
also the agent's, whoever would move next.
Lost: the rewards of the other players.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pgx

from pg.envs import spaces
from pg.envs.adapters.base import Adapter
from pg.inputs import check_name

__all__ = ["adapt", "make", "random_opponent"]

AGENT = 0  # the player whose rewards and observations these are


class Game(NamedTuple):
    """The state of a game, and the agent's reward of moves before its first, paid with its first
    move.
    """

    state: Any  # Pgx' own
    owed: jax.Array  # []


def random_opponent(key: jax.Array, observation: jax.Array, mask: jax.Array) -> jax.Array:
    """Any of the legal actions, with the same probability."""
    return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))


def make(
    name: str, max_steps: int = 1000, opponent: Callable[..., Any] = random_opponent
) -> Adapter:
    """The game that Pgx has under this name; arguments as in `adapt`."""
    check_name("environment of pgx", name, pgx.available_envs(), "pgx.available_envs() lists them")
    return adapt(pgx.make(name), name, max_steps, opponent)


def adapt(
    env: Any,
    name: str,
    max_steps: int = 1000,
    opponent: Callable[..., Any] = random_opponent,
) -> Adapter:
    """A game of Pgx.

    Args:
        env: The game, without wrappers.
        name: Its name.
        max_steps: The time limit, in actions of the agent.
        opponent: key, observation, mask -> the action of every other player.
    """

    def others_turn(game: tuple[Any, ...]) -> jax.Array:
        state, *_ = game
        return (state.current_player != AGENT) & ~state.terminated & ~state.truncated

    def others_move(game: tuple[Any, ...]) -> tuple[Any, ...]:
        state, reward, key = game
        key, of_choice, of_move = jax.random.split(key, 3)
        action = opponent(of_choice, state.observation, state.legal_action_mask)
        state = env.step(state, action, jax.random.key_data(of_move))
        return state, reward + state.rewards[AGENT], key

    def agents_turn(state: Any, reward: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        """The state in which the agent is to move, or the game is over, and the reward until
        then.
        """
        if env.num_players == 1:
            return state, reward
        return jax.lax.while_loop(others_turn, others_move, (state, reward, key))[:2]

    def shown(state: Any) -> jax.Array:
        return env._observe(state, jnp.int32(AGENT))

    def reset(key: jax.Array) -> tuple[Any, Any]:
        of_game, of_others = jax.random.split(key)
        state = env.init(jax.random.key_data(of_game))
        state, owed = agents_turn(state, jnp.float32(0.0), of_others)
        return shown(state), Game(state, owed)

    def step(key: jax.Array, game: Game, action: jax.Array) -> Any:
        of_move, of_others = jax.random.split(key)
        state = env.step(game.state, action, jax.random.key_data(of_move))
        state, reward = agents_turn(state, game.owed + state.rewards[AGENT], of_others)
        after = Game(state, jnp.zeros_like(game.owed))
        return shown(state), after, reward, state.terminated, state.truncated

    return Adapter(
        f"pgx:{name}",
        reset,
        step,
        spaces.Discrete(int(env.num_actions)),
        max_steps,
        action_mask=lambda game: game.state.legal_action_mask,
    )
