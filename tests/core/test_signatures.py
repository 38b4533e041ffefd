"""The shapes in signatures hold at every call that a test makes."""

from collections.abc import Callable
from typing import NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import pytest
from beartype.door import is_bearable
from jaxtyping import TypeCheckError, jaxtyped

from pg import ESTIMATORS, baselines, networks, returns, rollout, rounding, surrogates
from pg.config import Config, Hyperparams
from pg.envs import make_env
from pg.networks import make_critic, make_policy

KEY = jax.random.key(0)
COLUMN, ROW, FLAGS = jnp.ones((3, 1)), jnp.ones((1, 3)), jnp.zeros((3, 1), bool)


@pytest.mark.skipif(not __debug__, reason="under `python -O` signatures are not checked")
@pytest.mark.parametrize(
    "call",
    [
        lambda: returns.total_return(COLUMN, gamma=jnp.ones((3, 1))),
        lambda: returns.gae(COLUMN, FLAGS, FLAGS, COLUMN, COLUMN, 0.9, lambda_=jnp.ones((3, 1))),
        lambda: baselines.group_deviation(jnp.ones(3), jnp.ones(1), jnp.zeros(3, int)),
        lambda: surrogates.score(COLUMN, ROW),
        lambda: surrogates.dice(COLUMN, ROW),
        lambda: rounding.sum_in_pairs(jnp.ones(3, int)),
    ],
)
def test_what_would_be_broadcast_in_silence_is_an_error(call: Callable) -> None:
    """Called without the checker, each of these returns a number."""
    with pytest.raises(TypeCheckError):
        call()


@pytest.mark.parametrize(
    ("env_name", "collect"),
    [
        ("CartPole-v1", "episodes"),
        ("Pendulum-v1", "windows"),
        pytest.param("CartPole-v1", "windows", marks=pytest.mark.slow),
        pytest.param("Pendulum-v1", "episodes", marks=pytest.mark.slow),
    ],
)
def test_a_batch_has_the_shapes_of_its_fields(env_name: str, collect: str) -> None:
    """Fields of tuples are annotated too, and no call checks them."""
    config = Config(env=env_name, estimator="gae", num_envs=2, horizon=3, num_steps=3)
    env = make_env(env_name, 2)
    policy, critic = make_policy(config, env), make_critic(config, env)
    est = ESTIMATORS["gae"](policy, critic, Hyperparams())
    params, state = est.init(KEY)
    actor = networks.actor(policy, critic)
    if collect == "episodes":
        traj = rollout.episodes(env, actor, params, KEY, 3)
    else:
        start = rollout.start(env, actor, KEY)
        moved, traj, finished = rollout.windows(env, actor, params, KEY, start, 3)
        assert misshaped(start) == misshaped(moved) == misshaped(finished) == []
    weighted, _ = est.weigh(params, state, traj)
    assert misshaped(traj) == misshaped(weighted) == []
    assert misshaped(traj._replace(reward=traj.reward[:1])) == ["reward"]


def misshaped(fields: NamedTuple) -> list[str]:
    """The first field that does not have the shape of its annotation, or whose axes are not those
    of the fields before it.
    """
    hints = get_type_hints(type(fields))
    with jaxtyped("context"):
        for name, value in fields._asdict().items():
            if not is_bearable(value, hints[name]):
                return [name]
    return []
