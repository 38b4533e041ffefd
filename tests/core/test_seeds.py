"""Seeds: each is an independent run, whatever runs beside it."""

import functools
from typing import Any

import chex
import jax
import numpy as np
import pytest
from environments import Clock
from golden import digest
from small import TINY, TRACED

from pg import networks, rollout
from pg import train as training
from pg.config import Config
from pg.envs import make_env
from pg.fast import devices
from pg.train import make_learner, make_train, training_keys

KEY = jax.random.key(0)
ONE = devices.layout(most=1)


@functools.cache
def sixty_four() -> tuple[Any, Any, Any]:
    """64 vmapped runs of TINY: the program, their keys, and states and metrics as numpy
    arrays.
    """
    many, keys = jax.jit(jax.vmap(make_train(TINY), (0, None))), jax.random.split(KEY, 64)
    return many, keys, jax.tree.map(np.asarray, many(keys, TRACED))


def one(tree: Any, index: int) -> Any:
    """Run number `index` of leaves [n, ...]."""
    return jax.tree.map(lambda x: x[index], tree)


@pytest.mark.slow
@pytest.mark.acceptance("D4")
def test_permuted_seeds_are_the_same_runs() -> None:
    """64 of 64, bit for bit, at one width."""
    many, keys, found = sixty_four()
    order = np.random.default_rng(0).permutation(64)
    chex.assert_trees_all_equal(many(keys[order], TRACED), one(found, order))


@pytest.mark.slow
@pytest.mark.acceptance("D4")
def test_vmapped_seeds_are_the_single_runs() -> None:
    """After 50 updates, 8 of 8: bit for bit one after the other (`exact`), within 1e-5 mapped."""
    _, keys, mapped = sixty_four()
    with jax.set_mesh(ONE.mesh):
        train = devices.over_runs(lambda key: make_train(TINY)(key, TRACED), ONE, exact=True)
        exact = jax.jit(train)(keys[:8])
    alone = jax.jit(make_train(TINY))
    for i in range(8):
        state, metrics = alone(keys[i], TRACED)
        chex.assert_trees_all_equal(one(exact, i), (state, metrics))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            one(mapped[0].params, i),
            state.params,
        )


@pytest.mark.acceptance("D5")
def test_every_seed_is_a_run_of_its_own() -> None:
    """64 seeds, 64 hashes of what was trained."""
    states, metrics = sixty_four()[2]
    assert len({digest(one(states, i)) for i in range(64)}) == 64
    assert metrics["return"].std(axis=0).min() > 0


@pytest.mark.slow
@pytest.mark.acceptance("D5")
def test_a_seed_changes_each_of_its_streams() -> None:
    """Parameters, first observations, actions in a given state and minibatches: 64 seeds, 64 of
    each.
    """
    config = Config(
        env=Clock(),
        estimator="ppo",
        collect="windows",
        num_envs=32,
        num_steps=16,
        num_minibatches=4,
        preset=None,
    )
    env = make_env(config.env, config.num_envs)
    policy = networks.make_policy(config, env)
    params, standing = policy.init(KEY), rollout.start(env, policy, KEY)

    def streams(key: jax.Array) -> dict[str, Any]:
        init_key, keys = training_keys(key, 0, 1)
        state = make_learner(config).init(init_key)
        collect_key, shuffle_key = jax.random.split(keys[0])
        action = rollout.windows(env, policy, params, collect_key, standing, 6)[1].action
        shuffled = training._minibatches(config, shuffle_key)
        return {
            "init": state.params,
            "reset": state.rollout.obs,
            "action": action,
            "shuffle": shuffled,
        }

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(streams))(jax.random.split(KEY, 64)))
    for name, stream in found.items():
        assert len({digest(one(stream, i)) for i in range(64)}) == 64, name
