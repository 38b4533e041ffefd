"""The estimators' expectations, computed over every trajectory (and every pair) of a small MDP: no noise, 1e-12."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import SmallMDP, tabular_critic, tabular_policy

from pg.config import ACCEPTS, Hyperparams
from pg.estimators import ESTIMATORS, Params
from pg.rollout import Trajectory

pytestmark = pytest.mark.usefixtures("x64")
GAMMA = 0.8
MDP = SmallMDP()
LOGITS = np.random.default_rng(1).normal(size=(MDP.S, MDP.A))
VALUES = np.random.default_rng(2).normal(size=MDP.S)  # any critic at all


@functools.cache
def every_trajectory() -> tuple[np.ndarray, Trajectory]:
    """Probabilities [M] and trajectories, leaves [M, H, 1, ...]."""
    probabilities, trajectories = zip(*MDP.trajectories(LOGITS), strict=True)
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-12)
    return np.array(probabilities), jax.tree.map(lambda *x: np.stack(x), *trajectories)


def exact_gradient() -> np.ndarray:
    return np.asarray(jax.grad(MDP.exact_return)(jnp.asarray(LOGITS), GAMMA))


def expectation(name: str, num_episodes: int, limit_ends: bool = False, **hyperparams: Any) -> np.ndarray:
    """E ĝ over every batch of `num_episodes` (1 or 2) trajectories, as a direction of ascent.

    limit_ends: the time limit counts as a termination.
    """
    probabilities, trajectories = every_trajectory()
    if limit_ends:
        trajectories = trajectories._replace(terminated=trajectories.done)
    policy, critic = tabular_policy(MDP.S, MDP.A), tabular_critic(MDP.S)
    estimator = ESTIMATORS[name](policy, critic, Hyperparams(gamma=GAMMA, **hyperparams))
    fresh, state = estimator.init(jax.random.key(0))
    params = Params(jnp.asarray(LOGITS), () if isinstance(fresh.critic, tuple) else jnp.asarray(VALUES))

    def ascent(batch: Trajectory) -> jax.Array:
        return -estimator.grad(params, estimator.weigh(params, state, batch)[0])[0].policy

    if num_episodes == 1:
        return np.einsum("m,msa->sa", probabilities, jax.jit(jax.vmap(ascent))(trajectories))

    def pair(first: Trajectory, second: Trajectory) -> jax.Array:
        return ascent(jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second))

    with_all = jax.jit(jax.vmap(pair, in_axes=(None, 0)))
    total = np.zeros_like(LOGITS)
    for m, p in enumerate(probabilities):
        first = jax.tree.map(lambda x, m=m: x[m], trajectories)
        total += p * np.einsum("m,msa->sa", probabilities, with_all(first, trajectories))
    return total


def distance(name: str, num_episodes: int, factor: float = 1.0, **hyperparams: Any) -> float:
    return float(np.abs(expectation(name, num_episodes, **hyperparams) - factor * exact_gradient()).max())


@pytest.mark.parametrize("name", ["reinforce", "reward_to_go", "moving_average", "state_value"])
def test_unbiased(name: str) -> None:
    assert distance(name, 1) < 1e-12


@pytest.mark.parametrize("name", ["leave_one_out", "time_baseline"])
def test_unbiased_in_pairs(name: str) -> None:
    assert distance(name, 2) < 1e-12


def test_batch_mean_is_shrunk_by_its_own_sample() -> None:
    assert distance("batch_mean", 2, factor=1 / 2) < 1e-12
    assert distance("batch_mean", 2) > 1e-2


def test_dropping_the_state_weighting_is_another_direction() -> None:
    assert distance("undiscounted_reward_to_go", 1) > 1e-2
    exact = jax.grad(lambda logits: dropped(logits).sum())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(expectation("undiscounted_reward_to_go", 1), exact, atol=1e-12)


def dropped(logits: jax.Array) -> jax.Array:
    """Whose gradient is Σₜ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a), with the visitation dₜ and Qₜ held constant."""
    pi, running = jax.nn.softmax(logits), jnp.array([1.0, 1.0, 0.0])
    q, value = [], jnp.zeros(MDP.S)
    for _ in range(MDP.H):
        q.insert(0, MDP.reward + GAMMA * jnp.einsum("sat,t->sa", MDP.transition, value))
        value = running * (pi * q[0]).sum(-1)
    visits, total = jnp.asarray(MDP.initial), jnp.zeros(())
    for t in range(MDP.H):
        total += jax.lax.stop_gradient(visits * running)[:, None] * pi * jax.lax.stop_gradient(q[t])
        visits = jnp.einsum("s,sa,sat->t", visits * running, pi, MDP.transition)
    return total


def test_gae_is_unbiased_only_where_nothing_is_bootstrapped() -> None:
    """λ = 1 and n = H still bootstrap where the time limit cut; once that counts as an end they are ∇J."""
    for name, whole in [("gae", {"lambda_": 1.0}), ("ppo", {"lambda_": 1.0}), ("actor_critic", {"n_step": MDP.H})]:
        assert distance(name, 1, limit_ends=True, **whole) < 1e-12
        assert distance(name, 1, **whole) > 1e-3
        assert distance(name, 1, limit_ends=True, **whole, undiscounted_state_weighting=1.0) > 1e-3
    assert distance("gae", 1, limit_ends=True, lambda_=0.5) > 1e-3
    assert distance("actor_critic", 1, limit_ends=True, n_step=1) > 1e-3


def test_every_estimator_is_judged_here() -> None:
    judged = {"reinforce", "reward_to_go", "moving_average", "state_value", "leave_one_out", "time_baseline"}
    judged |= {"batch_mean", "undiscounted_reward_to_go", "gae", "ppo", "actor_critic"}
    assert judged == set(ACCEPTS)
