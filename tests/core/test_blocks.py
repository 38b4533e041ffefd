"""Loops over the filled blocks of time equal the plain computation over all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg.fast import blocks


def batch(length: int, width: int, longest: int) -> tuple[jax.Array, jax.Array]:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(length, width)), jnp.float32)
    ends = (jnp.arange(width) % longest + 1).at[0].set(longest)
    return x, jnp.arange(length)[:, None] < ends[None, :]


@pytest.mark.parametrize(("length", "longest"), [(500, 1), (500, 500), (500, 77), (97, 50), (3, 2)])
def test_map_and_sum(length: int, longest: int) -> None:
    x, valid = batch(length, 64, longest)
    size = blocks.block_size(length, 64)
    mapped = blocks.map_steps(lambda x: 2 * x, x, valid)
    reached = -(-longest // size) * size
    np.testing.assert_array_equal(mapped[:reached], 2 * x[:reached])
    np.testing.assert_array_equal(mapped[reached:], 0.0)
    total = blocks.sum_steps(lambda b: jnp.where(b[1], b[0], 0.0).sum(), (x, valid), valid)
    np.testing.assert_allclose(total, np.where(valid, x, 0).sum(), rtol=1e-4, atol=1e-4)


def test_only_filled_blocks_are_computed() -> None:
    """Poison lies in the first row of time after the last filled block, and is not touched."""
    x, valid = batch(500, 64, 10)
    size = blocks.block_size(500, 64)
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
