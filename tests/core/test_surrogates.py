"""Surrogates by their derivatives with respect to log π."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import surrogates
from pg.config import Hyperparams
from pg.distributions import Categorical
from pg.envs import Sequences, make_env
from pg.estimators import family
from pg.networks import Network
from pg.rollout import episodes

PSI = jnp.array([2.0, -3.0])
BEHAVIOUR = jnp.zeros(2)
SURROGATES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "score": lambda x: surrogates.score(x, PSI),
    "importance": lambda x: surrogates.importance(x, BEHAVIOUR, PSI),
    "clipped": lambda x: surrogates.clipped(x, BEHAVIOUR, PSI, 0.2),
}


def slope(name: str, log_ratio: float) -> np.ndarray:
    """d / d log π for Ψ = (2, -3), with the behaviour's log-probability at 0."""
    return np.asarray(jax.grad(lambda x: SURROGATES[name](x).sum())(jnp.full(2, log_ratio)))


@pytest.mark.parametrize("name", list(SURROGATES))
def test_all_are_the_policy_gradient_on_fresh_data(name: str) -> None:
    np.testing.assert_allclose(slope(name, 0.0), PSI)


def test_importance_weighs_by_the_ratio() -> None:
    np.testing.assert_allclose(slope("importance", 0.5), np.exp(0.5) * PSI, rtol=1e-6)


@pytest.mark.parametrize(
    ("log_ratio", "expected"),
    [
        (0.5, [0.0, -3 * np.exp(0.5)]),  # grown: no further up, but back down where Ψ < 0
        (-0.5, [2 * np.exp(-0.5), 0.0]),  # shrunk: no further down
        (0.1, [2 * np.exp(0.1), -3 * np.exp(0.1)]),  # within the range
    ],
)
def test_clipping_binds_only_in_the_direction_of_psi(
    log_ratio: float, expected: list[float]
) -> None:
    np.testing.assert_allclose(slope("clipped", log_ratio), expected, rtol=1e-6)


@pytest.mark.parametrize("log_ratio", [-1e4, 100.0, 1e4])
def test_without_a_weight_a_ratio_that_leaves_the_floats_is_no_nan(log_ratio: float) -> None:
    x, psi = jnp.full(2, log_ratio), jnp.array([0.0, -0.0])
    value, slope = jax.value_and_grad(lambda x: surrogates.reweighted(psi, x).sum())(x)
    assert value == 0
    assert not slope.any()


@pytest.mark.parametrize(
    "name",
    [
        "trajectory_importance",
        "per_decision_importance",
        "ratio_only",
        "vtrace",
        "sequence:ratio=token",
        "sequence:ratio=sequence",
        "sequence:ratio=per_decision+credit=to_go",
        "sequence:ratio=sequence+self_normalised=batch",
    ],
)
def test_actions_that_were_all_but_impossible_weigh_nothing_without_a_reward(name: str) -> None:
    """log ρ = 200, which overflows, and Ψ = 0: the gradient is 0, not NaN."""
    env = make_env(Sequences(num_tokens=3, max_length=4, end_token=1, reward=unrewarded), 8)
    policy = Network(
        lambda key: jnp.zeros(3),
        lambda p, carry, obs, first: (carry, Categorical(jnp.broadcast_to(p, (*first.shape, 3)))),
    )
    critic = Network(
        lambda key: jnp.zeros(()), lambda p, carry, obs, first: (carry, jnp.zeros(first.shape) + p)
    )
    estimator = family.find(name)(policy, critic, Hyperparams())
    params, state = estimator.init(jax.random.key(0))
    traj = episodes(env, policy, params.policy, jax.random.key(1), group_size=2)
    traj = traj._replace(log_prob=traj.log_prob - 200.0 * traj.valid)
    batch, _ = estimator.weigh(params, state, traj)
    gradient, _ = estimator.grad(params, batch)
    assert not np.asarray(gradient.policy).any()


def unrewarded(prompt: jax.Array, tokens: jax.Array, length: jax.Array) -> jax.Array:
    return jnp.zeros(())


BOUNDED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "clipped": lambda x, psi: surrogates.clipped_ratio(x, psi, 0.2, 0.3),
    "dual": lambda x, psi: surrogates.dual_clipped_ratio(x, psi, 0.2, 0.3, 3.0),
    "weight": lambda x, psi: surrogates.clipped_weight(x, psi, 0.2, 0.3),
    "masked": lambda x, psi: surrogates.masked_ratio(x, psi, 0.2, 0.3),
    "gate": lambda x, psi: surrogates.soft_gate(x, psi, 1.0, 1.05),
}


@pytest.mark.parametrize("name", list(BOUNDED))
@pytest.mark.parametrize("log_ratio", [-1e4, 30.0, 100.0, 1e4])
def test_a_bound_holds_where_the_ratio_leaves_the_floats(name: str, log_ratio: float) -> None:
    x, psi = jnp.full(3, log_ratio), jnp.array([1.0, 0.0, -1.0])
    value, slope = BOUNDED[name](x, psi), jax.grad(lambda x: BOUNDED[name](x, psi).sum())(x)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    assert slope[1] == 0
    if name == "clipped" and log_ratio > 0:  # what is too likely, and was bad, is still held back
        assert slope[0] == 0
        assert slope[2] < -1e9


def test_a_clipped_value_stops_on_its_way_to_the_target() -> None:
    """Its slope is that of the squared error until V has moved by ε towards the target, and 0
    beyond.
    """
    before, epsilon = jnp.array(1.0), 0.2
    cases = ((1.0, 3.0, -2.0), (1.1, 3.0, -1.9), (1.5, 3.0, 0.0), (0.5, 3.0, -2.5), (0.5, 0.0, 0.0))
    for value, target, slope in cases:
        loss = lambda v, t=target: surrogates.clipped_value(v, before, t, epsilon)  # noqa: E731
        np.testing.assert_allclose(jax.grad(loss)(value), slope, rtol=1e-6)
        free = lambda v, t=target: surrogates.clipped_value(v, before, t, jnp.inf)  # noqa: E731
        np.testing.assert_allclose(jax.grad(free)(value), value - target, rtol=1e-6)
