"""The natural gradient against matrices written out, and what surrounds optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import tabular_policy

from pg import optimizers, tabular
from pg.config import Config, Hyperparams
from pg.estimators import Params, Weighted
from pg.optimizers import OPTIMIZERS, fisher_vector_product, mean_kl, scale_by_fisher
from pg.train import make_train

S, A, H, GAMMA = 3, 2, 3, 0.8
MDP = tabular.garnet(0, S, A, branching=2, horizon=H)
LOGITS = np.random.default_rng(1).normal(size=(S, A))
POLICY = tabular_policy(S, A)


def batch() -> tuple[Any, np.ndarray]:
    """Every trajectory once, [H, M], and its Fisher matrix [S·A, S·A] by loops, weighted by γᵗ."""
    traj, _ = tabular.enumerate_trajectories(MDP, jnp.asarray(LOGITS))
    pi, fisher = np.asarray(jax.nn.softmax(LOGITS)), np.zeros((S * A, S * A))
    for t, m in zip(*np.nonzero(np.asarray(traj.valid)), strict=True):
        s = int(np.argmax(traj.obs[t, m]))
        rows = slice(s * A, (s + 1) * A)
        fisher[rows, rows] += GAMMA**t * (np.diag(pi[s]) - np.outer(pi[s], pi[s])) / traj.valid.shape[1]
    return traj, fisher


@pytest.mark.usefixtures("x64")
def test_fisher_vector_product_is_the_matrix() -> None:
    traj, fisher = batch()
    v = np.random.default_rng(2).normal(size=(S, A))
    product = fisher_vector_product(POLICY, jnp.asarray(LOGITS), traj, jnp.asarray(v), GAMMA)
    np.testing.assert_allclose(product.ravel(), fisher @ v.ravel(), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_fisher_matrix_is_the_curvature_of_the_kl() -> None:
    traj, fisher = batch()
    v, step = np.random.default_rng(2).normal(size=(S, A)), 1e-4
    kl = mean_kl(POLICY, jnp.asarray(LOGITS), jnp.asarray(LOGITS + step * v), traj, GAMMA)
    np.testing.assert_allclose(kl / step**2, v.ravel() @ fisher @ v.ravel() / 2, rtol=1e-3)
    assert float(mean_kl(POLICY, jnp.asarray(LOGITS), jnp.asarray(LOGITS), traj)) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_natural_direction_solves_the_system(damping: float) -> None:
    """Without damping the pseudo-inverse, as the gradient lies in F's range; and the critic's part is left alone."""
    traj, fisher = batch()
    gradient = np.asarray(tabular.exact_gradient(MDP, jnp.asarray(LOGITS), GAMMA))
    transform = scale_by_fisher(damping, iterations=50, gamma=GAMMA)
    params = Params(jnp.asarray(LOGITS), jnp.ones(3))
    updates, _ = transform.update(
        Params(jnp.asarray(gradient), jnp.arange(3.0)),
        transform.init(params),
        params,
        batch=Weighted(traj, traj.reward, ()),
        policy=POLICY,
    )
    expected = np.linalg.pinv(fisher + damping * np.eye(S * A), rcond=1e-10) @ gradient.ravel()
    np.testing.assert_allclose(updates.policy.ravel(), expected, atol=1e-8)
    np.testing.assert_array_equal(updates.critic, np.arange(3.0))


@pytest.mark.usefixtures("x64")
def test_the_natural_gradient_of_a_tabular_softmax_is_the_advantage() -> None:
    """pinv(F) ∇J at s is the visitation-averaged advantage, centred (Kakade 2001; Agarwal et al. 1908.00261)."""
    logits = jnp.asarray(LOGITS)
    d, (q, v) = tabular.visitation(MDP, logits), tabular.values(MDP, logits, GAMMA)
    weight = GAMMA ** np.arange(H)[:, None] * np.asarray(d)
    pi = np.asarray(jax.nn.softmax(logits))
    fisher = np.zeros((S * A, S * A))
    for s in range(S):
        rows = slice(s * A, (s + 1) * A)
        fisher[rows, rows] = weight[:, s].sum() * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))
    direction = np.linalg.pinv(fisher) @ np.asarray(tabular.exact_gradient(MDP, logits, GAMMA)).ravel()
    visited = weight.sum(0) > 0
    advantage = np.einsum("ts,tsa->sa", weight, q - v[..., None])[visited] / weight.sum(0)[visited, None]
    centred = advantage - advantage.mean(1, keepdims=True)
    np.testing.assert_allclose(direction.reshape(S, A)[visited], centred, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "estimator"), [("natural", "reinforce"), ("natural", "state_value"), ("lion", "gae")]
)
def test_optimizers_train(name: Any, estimator: str) -> None:
    config = Config(estimator=estimator, optimizer=name, num_envs=4, num_updates=3, hidden_sizes=(8,))
    state, metrics = jax.jit(make_train(config))(jax.random.key(0), Hyperparams(learning_rate=0.02))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert (metrics["grad_norm"] > 0).all()


def test_all_have_the_same_signature() -> None:
    for make in OPTIMIZERS.values():
        assert isinstance(make(0.1), optax.GradientTransformation)


def test_clipping_leaves_short_gradients_alone() -> None:
    clip = optimizers.clip_each_by_global_norm(1.0)
    updates = Params({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.3, 0.4])})
    clipped, _ = clip.update(updates, clip.init(updates), updates)
    np.testing.assert_allclose(clipped.policy["w"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(clipped.critic["w"], [0.3, 0.4], rtol=1e-6)
