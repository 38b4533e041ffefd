"""A scan that stops when no element is alive gives what a plain scan gives, up to the stop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg.fast import scans


def inputs(steps: jax.Array) -> jax.Array:
    return jnp.sin(steps.astype(float))


def step(carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """Counts down the steps that each has left, and adds up what it is given until then."""
    left, total = carry
    total = total + jnp.where(left > 0, x, 0.0)
    return (left - 1, total), jnp.where(left > 0, total, -1.0)


def some_left(carry: Any) -> jax.Array:
    return carry[0] > 0


@pytest.mark.parametrize("length", [1, 7, 97, 250])
@pytest.mark.parametrize("left", [(0, 0), (1, 3), (40, 12), (1000, 2)], ids=str)
def test_it_is_a_scan_as_far_as_it_goes(length: int, left: tuple[int, ...]) -> None:
    begin = jnp.array(left), jnp.zeros(len(left))
    ys = scans.scan_until(step, begin, inputs, some_left, length=length)
    _, plain = jax.lax.scan(step, begin, inputs(jnp.arange(length)))
    alive = np.arange(length)[:, None] < np.array(left)
    np.testing.assert_array_equal(np.asarray(ys)[alive], np.asarray(plain)[alive])
    reached = -(-min(max(left), length) // scans.BLOCK) * scans.BLOCK
    assert ys.shape == (length, len(left))
    assert not np.asarray(ys)[reached:].any()


def test_inputs_that_are_not_reached_are_not_computed() -> None:
    """The first blocks alone of 1000 steps are computed, those that are ready ahead included."""
    seen: list[np.ndarray] = []

    def watched(steps: jax.Array) -> jax.Array:
        jax.debug.callback(lambda numbers: seen.append(np.asarray(numbers)), steps)
        return inputs(steps)

    begin = jnp.array([3]), jnp.zeros(1)
    scans.scan_until(step, begin, watched, some_left, length=1000).block_until_ready()
    jax.effects_barrier()
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(scans.BLOCK * scans.AHEAD))


def test_side_by_side_it_goes_on_for_the_longest() -> None:
    def run(left: jax.Array) -> jax.Array:
        return scans.scan_until(step, (left, jnp.zeros(1)), inputs, some_left, length=60)

    both = jnp.array([[2], [55]])
    apart = [np.asarray(run(left)) for left in both]
    together = np.asarray(jax.vmap(run)(both))
    np.testing.assert_array_equal(together[1], apart[1])
    np.testing.assert_array_equal(together[0, :2], apart[0][:2])
    loops = [e for e in jax.make_jaxpr(jax.vmap(run))(both).eqns if e.primitive.name == "while"]
    assert [e.params["cond_jaxpr"].out_avals[0].shape for e in loops] == [()]
