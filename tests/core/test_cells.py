"""Recurrent cells: step by step they give what a sequence gives, and the same gradient."""

import dataclasses
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pg import preset
from pg.config import RNN, Config
from pg.evaluation import evaluate
from pg.layers import make_cell
from pg.layers.attention import ages
from pg.layers.linear_recurrences import linear_recurrence
from pg.reports import statistics
from pg.train import make_train

KEY = jax.random.key(0)
KINDS = [kind for kind in get_args(RNN) if kind != "none"]
NUM_ENVS, SIZE, WINDOW, HEADS = 4, 6, 3, 2


def cell_and_params(kind: Any, noise: float = 0.1) -> tuple[Any, Any, Any]:
    """A cell, its parameters, none of them 0, and the carry after five steps of an episode."""
    cell = make_cell(kind, SIZE, WINDOW, HEADS)
    assert cell is not None
    carry = jax.tree.map(lambda c: jnp.broadcast_to(c, (NUM_ENVS, *c.shape)), cell.start())
    x = jax.random.normal(jax.random.key(1), (5, NUM_ENVS, 3))
    going_on = jnp.zeros((5, NUM_ENVS), bool)
    flat, unravel = ravel_pytree(jax.jit(cell.init)(KEY, carry, x[0], going_on[0]))
    params = unravel(flat + noise * jax.random.normal(KEY, flat.shape))
    return cell, params, jax.jit(cell.apply)(params, carry, x, going_on)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "length"),
    [*((kind, 11) for kind in KINDS), pytest.param("transformer", 2, marks=pytest.mark.slow)],
)
def test_a_sequence_is_its_steps(kind: Any, length: int) -> None:
    """Outputs, the carry and the gradient, with episodes that begin within the sequence or before
    it. A transformer has more steps than its window, or fewer.
    """
    cell, params, carry = cell_and_params(kind)
    x = jax.random.normal(jax.random.key(2), (length, NUM_ENVS, 3))
    first = jax.random.bernoulli(jax.random.key(3), 0.25, (length, NUM_ENVS))
    assert first.any()
    assert not first[0].all()

    def at_once(params: Any) -> Any:
        return cell.apply(params, carry, x, first)

    def step_by_step(params: Any) -> Any:
        return jax.lax.scan(lambda c, xs: cell.apply(params, c, *xs), carry, (x, first))

    def gradient(run: Any, params: Any) -> Any:
        return jax.grad(lambda params: (run(params)[1] ** 2).sum())(params)

    def result(run: Any) -> Any:
        return jax.jit(lambda params: (run(params), gradient(run, params)))(params)

    results = [result(run) for run in (at_once, step_by_step)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10), *results)
    assert all(float(jnp.abs(slope).max()) > 1e-6 for slope in jax.tree.leaves(results[0][1]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_depends_on_nothing_before_it(kind: Any) -> None:
    cell, params, carry = cell_and_params(kind)
    x = jax.random.normal(KEY, (8, NUM_ENVS, 3))
    first = jnp.zeros((8, NUM_ENVS), bool).at[4, 0].set(True)

    def later(x: jax.Array) -> jax.Array:
        return (cell.apply(params, carry, x, first)[1][5] ** 2).sum()

    slopes = jnp.abs(jax.jit(jax.grad(later))(x))  # [T, B, F]
    assert float(slopes[:4, 0].max()) == 0
    assert float(slopes[:4, 1].max()) > 1e-4
    assert float(slopes[4:6].min()) > 0


@pytest.mark.usefixtures("x64")
def test_a_linear_recurrence_is_its_formula() -> None:
    a, b = jax.random.uniform(KEY, (2, 9, NUM_ENVS, SIZE))
    first = np.asarray(jax.random.bernoulli(KEY, 0.3, (9, NUM_ENVS)))
    start = jnp.ones((NUM_ENVS, SIZE))
    h, expected = np.asarray(start), []
    for t in range(9):
        h = a[t] * np.where(first[t][:, None], 0.0, h) + b[t]
        expected.append(h)
    found = linear_recurrence(a, b, jnp.asarray(first), start)
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-12)


def test_a_reset_forgets_even_what_is_not_finite() -> None:
    a = b = jnp.ones((6, 1, 1))
    first = jnp.zeros((6, 1), bool).at[3].set(True)
    h = linear_recurrence(a, b.at[1].set(jnp.nan), first, jnp.zeros((1, 1)))
    np.testing.assert_array_equal(h[:, 0, 0], [1, np.nan, np.nan, 1, 2, 3])
    h = linear_recurrence(a.at[2].set(jnp.nan), b, first, jnp.zeros((1, 1)))
    np.testing.assert_array_equal(h[:, 0, 0], [1, 2, np.nan, 1, 2, 3])


def test_a_transformer_sees_its_window_and_no_more() -> None:
    cell, params, carry = cell_and_params("transformer")
    x = jax.random.normal(KEY, (10, NUM_ENVS, 3))
    going_on = jnp.zeros((10, NUM_ENVS), bool)

    def of_the_first(x: jax.Array) -> jax.Array:
        return cell.apply(params, carry, x, going_on)[1][:, 0]

    slopes = jax.jit(jax.jacrev(lambda x: of_the_first(x).sum(-1)))(x)[:, :, 0]  # [T, T, F]
    slopes = jnp.abs(slopes).max(-1)
    distance = np.arange(10)[:, None] - np.arange(10)[None]
    np.testing.assert_array_equal(slopes > 0, (distance >= 0) & (distance <= WINDOW))


def test_ages_count_the_steps_of_the_episode() -> None:
    first = jnp.array([[0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0]], bool).T
    found = ages(first, jnp.array([2]), 3)
    np.testing.assert_array_equal(found[:, 0], [2, 3, 0, 1, 2, 0, 0, 1, 2, 3, 3, 3])


def test_the_eigenvalues_of_a_fresh_lru_remember() -> None:
    params = cell_and_params("lru", noise=0.0)[1]["params"]
    magnitude = np.exp(-np.exp(params["log_decay"]))
    assert 0.9 < magnitude.min() < magnitude.max() < 0.999
    assert 0 < params["phase"].min() < params["phase"].max() < np.pi / 10


@pytest.mark.parametrize("kind", KINDS)
def test_no_initialiser_calls_lapack(kind: Any) -> None:
    """Its batched QR can deadlock where initialisers are vmapped over seeds."""
    cell = make_cell(kind, SIZE, WINDOW, HEADS)
    assert cell is not None
    start = jax.tree.map(lambda c: c[None], cell.start())

    def init(key: jax.Array) -> Any:
        return cell.init(key, start, jnp.zeros((1, 3)), jnp.ones(1, bool))

    program = jax.jit(jax.vmap(init)).lower(jax.random.split(KEY, 2)).as_text()
    assert "lapack" not in program


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rnn_size": 6}, "rnn_heads must divide rnn_size=6, got 4"),
        ({"rnn_heads": 0}, "rnn_heads must be a whole number of at least 1, got 0"),
        ({"rnn_window": 0}, "rnn_window must be a whole number of at least 1, got 0"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(rnn="transformer", **changes, preset=None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lru", "mingru", "transformer"])
def test_a_cell_learns_to_remember(kind: Any) -> None:
    """The bit that is asked for at the end was shown at the start; without a recurrent cell the
    mean return is 0.
    """
    config, h = preset("recurrent_ppo", task="MemoryChain-bsuite", env="MemoryChain-bsuite")
    config = dataclasses.replace(config, rnn=kind)

    def score(key: jax.Array) -> jax.Array:
        params = make_train(config)(key, h)[0].params.policy
        return evaluate(config, params, key, 100, greedy=True).returns.mean()

    scores = jax.jit(jax.vmap(score))(jax.random.split(jax.random.key(100), 10))
    interval = statistics.bootstrap_interval(np.asarray(scores), statistics.mean)
    assert interval.low > 0.9
