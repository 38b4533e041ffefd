"""POPGym Arcade: small games as pictures, each fully or partially observed,
`popgym_arcade:CountRecallEasy`.

With `partial_obs=True` a game shows less than its state, for a recurrent policy. An
observation is a picture [128, 128, 3] of uint8 (`obs_size=256`: a larger one), for a network with
`scale_observations` and convolutions with strides, `conv=("16x8x4", "32x4x2")`: dense layers on
all pixels are saturated after one step of the optimizer.

Its interface is that of gymnax before 1.0, whose step has five values: one `done` for the end of
the game and for the time limit, with which rewards are scaled too.

Limits: the environment is stepped through `step_env`, which does not reset, and a copy of it, with
a limit that it never reaches, tells if the game has ended. The limit is the environment's own;
beyond it, if `max_steps_in_episode` is larger, some games give no reward.
Lost: `info`.

It is installed without its dependencies, `pip install --no-deps popgym-arcade==0.0.7
dm-pix==0.4.5`: one is a gymnax before 1.0 under another name, in the files of gymnax itself.
"""

import copy
from typing import Any

import jax
import popgym_arcade
from popgym_arcade.registration import REGISTERED_ENVIRONMENTS

from pg.envs import spaces
from pg.envs.adapters.base import NEVER, Adapter
from pg.inputs import check_name

__all__ = ["adapt", "make"]

_LIMITS = ("max_steps_in_episode", "max_episode_length")  # the limit's name in one game or another


def make(name: str, **options: Any) -> Adapter:
    """The game that POPGym Arcade has under this name; options (`partial_obs=True`) are those of
    its class.
    """
    check_name("environment of popgym_arcade", name, REGISTERED_ENVIRONMENTS)
    return adapt(popgym_arcade.make(name, **options)[0], name)


def adapt(env: Any, name: str) -> Adapter:
    """A game of POPGym Arcade without wrappers."""
    limit = next(limit for limit in _LIMITS if hasattr(env, limit))
    env, endless = copy.copy(env), copy.copy(env)
    setattr(endless, limit, NEVER)
    for one in (env, endless):
        # it is only in `info`, and gymnax 1.0 needs a method that the games lack
        one.discount = lambda state, params: 1.0

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return env.reset_env(jax.random.key_data(key), env.default_params)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        raw_key = jax.random.key_data(key)
        obs, after, reward, *_ = env.step_env(raw_key, state, action, env.default_params)
        terminated = endless.step_env(raw_key, state, action, endless.default_params)[3]
        return obs, after, reward, terminated, False

    actions = spaces.Discrete(int(env.action_space(env.default_params).n))
    picture, _ = jax.eval_shape(reset, jax.random.key(0))
    pictures = spaces.Box(0, 255, picture.shape, picture.dtype)
    max_steps = int(getattr(env, limit))
    return Adapter(f"popgym_arcade:{name}", reset, step, actions, max_steps, pictures)
