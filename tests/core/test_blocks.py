"""Loops over the filled blocks of time equal the plain computation over all of time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pg
from pg.config import Config, Hyperparams
from pg.fast import blocks, devices
from pg.networks import Network, make_policy
from pg.train import make_learner


def batch(length: int, width: int, longest: int) -> tuple[jax.Array, jax.Array]:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(length, width)), jnp.float32)
    ends = (jnp.arange(width) % longest + 1).at[0].set(longest)
    return x, jnp.arange(length)[:, None] < ends[None, :]


@pytest.mark.parametrize(("length", "longest"), [(500, 1), (500, 500), (500, 77), (97, 50), (3, 2)])
def test_map_and_sum(length: int, longest: int) -> None:
    x, valid = batch(length, 64, longest)
    size = blocks.block_size(length, 64, blocks.rows())
    mapped = blocks.map_steps(lambda x: 2 * x, x, valid)
    reached = -(-longest // size) * size
    np.testing.assert_array_equal(mapped[:reached], 2 * x[:reached])
    np.testing.assert_array_equal(mapped[reached:], 0.0)
    total = blocks.sum_steps(lambda b: jnp.where(b[1], b[0], 0.0).sum(), (x, valid), valid)
    np.testing.assert_allclose(total, np.where(valid, x, 0).sum(), rtol=1e-4, atol=1e-4)


def test_only_filled_blocks_are_computed() -> None:
    """Poison lies in the first row of time after the last filled block, and is not touched."""
    x, valid = batch(500, 64, 10)
    size = blocks.block_size(500, 64, blocks.rows())
    poisoned = x.at[-(-10 // size) * size :].set(jnp.nan)
    assert np.isfinite(blocks.sum_steps(lambda b: b[0].sum(), (poisoned, valid), valid))


def test_a_single_wide_step_is_cut() -> None:
    """Shuffled rows are a batch [1, N]: they too are computed in blocks that fit the cache."""
    x, valid = batch(1, 4 * blocks.rows(), 1)
    seen = []

    def total(part: jax.Array) -> jax.Array:
        seen.append(part.shape)
        return part.sum()

    np.testing.assert_allclose(blocks.sum_steps(total, x, valid), x.sum(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(blocks.map_steps(lambda part: 2 * part, x, valid), 2 * x)
    assert set(seen) == {(1, blocks.rows())}


def test_nothing_valid_is_nothing_computed() -> None:
    x, valid = batch(500, 64, 10)
    assert blocks.sum_steps(jnp.sum, x, jnp.zeros_like(valid)) == 0.0


def test_under_vmap_the_longest_counts_and_the_loop_stays_unbatched() -> None:
    x, valid = batch(500, 64, 10)
    both = jnp.stack([valid, jnp.ones_like(valid)])

    def total(valid: jax.Array) -> jax.Array:
        return blocks.sum_steps(lambda b: jnp.where(b[1], b[0], 0.0).sum(), (x, valid), valid)

    mapped = jax.vmap(total)(both)
    np.testing.assert_allclose(mapped, [total(v) for v in both], rtol=1e-4, atol=1e-4)
    loops = [e for e in jax.make_jaxpr(jax.vmap(total))(both).eqns if e.primitive.name == "while"]
    assert [e.params["cond_jaxpr"].out_avals[0].shape for e in loops] == [()]


def test_split_and_join_are_inverse() -> None:
    x = jnp.arange(14.0).reshape(7, 2)
    parts = blocks.split(x, 3)
    assert parts.shape == (3, 3, 2)
    np.testing.assert_array_equal(blocks.join(parts, 7), x)


@pytest.mark.parametrize(
    ("length", "most", "size"), [(500, 25, 25), (500, 32, 25), (9, 25, 9), (97, 25, 25), (8, 5, 4)]
)
def test_even_size(length: int, most: int, size: int) -> None:
    assert blocks.even_size(length, most) == size


SMALL: dict[str, Any] = {"num_envs": 4, "num_steps": 4, "num_updates": 1, "preset": None}


def rows_of_a_block(runs: int = 1, num_rows: int = blocks.LARGE_ROWS, **changes: Any) -> int:
    """The rows of a block of a batch in training under these settings, as a custom estimator sees
    them.
    """
    seen = []

    def watched(policy: Network, critic: Network, h: Hyperparams) -> pg.Estimator:
        def weigh(params: Any, state: Any, traj: Any) -> Any:
            seen.append(blocks.rows(num_rows))
            return jnp.zeros_like(traj.reward), (), state

        return pg.build_estimator(policy, None, h, weigh)

    config = Config(
        **{"estimator": watched, "collect": "windows", "env": "CartPole-v1"} | SMALL | changes
    )
    learner = make_learner(config)
    keys = jax.random.split(jax.random.key(0), runs)

    def update(key: jax.Array) -> Any:
        return learner.step(learner.init(key), key)

    where = devices.layout(most=1)
    with jax.set_mesh(where.mesh):
        jax.eval_shape(devices.over_runs(update, where), keys)
    assert len(set(seen)) == 1
    return seen[0]


def linear(config: Config, env: Any) -> Network:
    """A custom policy, whose gradient is summed as autodiff does it."""
    return make_policy(config, env)


def test_only_dense_layers_and_full_windows_have_large_blocks() -> None:
    usual = blocks.rows()
    assert rows_of_a_block() == blocks.LARGE_ROWS > usual
    assert rows_of_a_block(env="Breakout-MinAtar", network="mlp") == blocks.LARGE_ROWS
    assert rows_of_a_block(env="Breakout-MinAtar") == usual
    assert rows_of_a_block(layer_norm=True) == usual
    assert rows_of_a_block(policy=linear) == usual
    assert rows_of_a_block(collect="episodes", horizon=4, num_steps=Config.num_steps) == usual


def test_a_batch_fills_its_large_blocks() -> None:
    assert rows_of_a_block(num_rows=blocks.LARGE_ROWS - 1) == blocks.rows()
    assert rows_of_a_block(num_rows=100 * blocks.LARGE_ROWS) == blocks.LARGE_ROWS


def test_vmapped_runs_share_a_large_block() -> None:
    assert rows_of_a_block(runs=4, num_rows=512) == blocks.LARGE_ROWS // 4
    assert rows_of_a_block(runs=4, num_rows=511) == blocks.rows()
    assert rows_of_a_block(runs=64) == blocks.rows()
