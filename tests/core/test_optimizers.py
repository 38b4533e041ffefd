"""The natural gradient against matrices written out, and the transformations around optax."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import tabular_policy
from mistakes import Mistake, assert_one_sentence

from pg import optimizers, returns
from pg.config import Config, Hyperparams
from pg.diagnostics import exact_moments
from pg.estimators import ESTIMATORS, Params, Weighted
from pg.estimators.base import log_ratio
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.optimizers import (
    OPTIMIZERS,
    POLICY_ONLY,
    conjugate_gradient,
    exact_solve,
    fisher_matrix,
    fisher_vector_product,
    harpg,
    hessian_vector_product,
    igt,
    importance_weighted_gradient,
    mean_kl,
    page_pg,
    parameters_of_path,
    scale_by_fisher,
    scale_by_trust_region,
    storm,
    svrpg,
)
from pg.optimizers.curvature import surrogate
from pg.sweep import SweepSpec, grid, sweep
from pg.train import make_learner, make_train, training_keys

S, A, H, GAMMA = 3, 2, 3, 0.8
MDP = tabular.garnet(0, S, A, branching=2, horizon=H)
LOGITS = np.random.default_rng(1).normal(size=(S, A))
POLICY = tabular_policy(S, A)
KEY = jax.random.key(0)


def batch() -> tuple[Any, np.ndarray]:
    """Every trajectory once, [H, M], and its Fisher matrix [S·A, S·A] by loops, weighted by γᵗ."""
    traj, _ = tabular.enumerate_trajectories(MDP, jnp.asarray(LOGITS))
    pi, fisher = np.asarray(jax.nn.softmax(LOGITS)), np.zeros((S * A, S * A))
    for t, m in zip(*np.nonzero(np.asarray(traj.valid)), strict=True):
        s = int(np.argmax(traj.obs[t, m]))
        rows = slice(s * A, (s + 1) * A)
        fisher[rows, rows] += (
            GAMMA**t * (np.diag(pi[s]) - np.outer(pi[s], pi[s])) / traj.valid.shape[1]
        )
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
    assert float(mean_kl(POLICY, jnp.asarray(LOGITS), jnp.asarray(LOGITS), traj)) == pytest.approx(
        0.0, abs=1e-15
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("solve", [conjugate_gradient(50), exact_solve], ids=["iterated", "exact"])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_natural_direction_solves_the_system(damping: float, solve: Any) -> None:
    """Without damping the pseudo-inverse, as the gradient lies in F's range."""
    traj, fisher = batch()
    gradient = np.asarray(tabular.exact_gradient(MDP, jnp.asarray(LOGITS), GAMMA))
    np.testing.assert_allclose(
        fisher_matrix(POLICY, jnp.asarray(LOGITS), traj, GAMMA), fisher, atol=1e-12
    )
    transform, params = scale_by_fisher(damping, GAMMA, solve), jnp.asarray(LOGITS)
    given = {"batch": Weighted(traj, traj.reward, ()), "policy": POLICY, "estimator": None}
    updates, _ = transform.update(jnp.asarray(gradient), transform.init(params), params, **given)
    expected = np.linalg.pinv(fisher + damping * np.eye(S * A), rcond=1e-10) @ gradient.ravel()
    np.testing.assert_allclose(updates.ravel(), expected, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_the_natural_gradient_of_a_tabular_softmax_is_the_advantage() -> None:
    """pinv(F) ∇J at s is the visitation-averaged advantage, centred (Kakade 2001; Agarwal et al.
    1908.00261).
    """
    logits = jnp.asarray(LOGITS)
    d, (q, v) = tabular.visitation(MDP, logits), tabular.values(MDP, logits, GAMMA)
    weight = GAMMA ** np.arange(H)[:, None] * np.asarray(d)
    pi = np.asarray(jax.nn.softmax(logits))
    fisher = np.zeros((S * A, S * A))
    for s in range(S):
        rows = slice(s * A, (s + 1) * A)
        fisher[rows, rows] = weight[:, s].sum() * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))
    direction = (
        np.linalg.pinv(fisher) @ np.asarray(tabular.exact_gradient(MDP, logits, GAMMA)).ravel()
    )
    visited = weight.sum(0) > 0
    advantage = (
        np.einsum("ts,tsa->sa", weight, q - v[..., None])[visited] / weight.sum(0)[visited, None]
    )
    centred = advantage - advantage.mean(1, keepdims=True)
    np.testing.assert_allclose(direction.reshape(S, A)[visited], centred, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        ("natural", "state_value"),
        ("lion", "gae"),
        ("trpo", "leave_one_out"),
        ("storm", "reward_to_go"),
        pytest.param("natural", "reinforce", marks=pytest.mark.slow),
        pytest.param("natural", "all_action", marks=pytest.mark.slow),
        pytest.param("trpo", "gae", marks=pytest.mark.slow),
        pytest.param("svrpg", "state_value", marks=pytest.mark.slow),
        pytest.param("page_pg", "leave_one_out", marks=pytest.mark.slow),
        pytest.param("harpg", "state_value", marks=pytest.mark.slow),
        pytest.param("igt", "gae", marks=pytest.mark.slow),
        pytest.param("n_igt", "all_action", marks=pytest.mark.slow),
    ],
)
def test_optimizers_train(name: Any, estimator: str) -> None:
    config = Config(
        estimator=estimator,
        optimizer=name,
        num_envs=4,
        num_updates=3,
        hidden_sizes=(8,),
        preset=None,
    )
    state, metrics = jax.jit(make_train(config))(jax.random.key(0), Hyperparams(learning_rate=0.02))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert (metrics["grad_norm"] > 0).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", POLICY_ONLY)
def test_the_state_of_an_optimizer_keeps_its_kinds_of_number_in_64_bits(name: Any) -> None:
    config = Config(
        env=MDP, optimizer=name, num_envs=2, num_updates=2, hidden_sizes=(), preset=None
    )
    jax.eval_shape(make_train(config), jax.random.key(0))


def test_all_have_the_same_signature() -> None:
    for make in OPTIMIZERS.values():
        assert isinstance(make(0.1, Hyperparams()), optax.GradientTransformation)


def test_each_part_has_its_own_transformation() -> None:
    both = optimizers.policy_and_critic(optax.sgd(1.0), optax.sgd(10.0))
    params = Params(jnp.ones(2), {"w": jnp.ones(3)})
    updates, _ = both.update(params, both.init(params), params)
    np.testing.assert_array_equal(updates.policy, -np.ones(2))
    np.testing.assert_array_equal(updates.critic["w"], -10 * np.ones(3))


def trust_region(ascent: np.ndarray, psi: jax.Array, max_kl: float, **settings: Any) -> np.ndarray:
    """The step [S, A] for a batch of every trajectory."""
    traj, _ = batch()
    settings = {"damping": 1e-6, "gamma": 1.0} | settings
    transform, params = scale_by_trust_region(max_kl, **settings), jnp.asarray(LOGITS)
    given = {"batch": Weighted(traj, psi, ()), "policy": POLICY, "estimator": None}
    return np.asarray(
        transform.update(jnp.asarray(-ascent), transform.init(params), params, **given)[0]
    )


@pytest.mark.usefixtures("x64")
def test_a_trust_region_step_is_the_natural_direction_at_its_kl() -> None:
    """Its length: sqrt(2 δ / xᵀ F x) with F per state; the surrogate grows, and the KL stays within
    δ.
    """
    traj, fisher = batch()
    psi = jnp.where(traj.valid, traj.reward, 0.0)
    ascent = np.asarray(
        jax.grad(lambda p: surrogate(POLICY, p, Weighted(traj, psi, ())))(jnp.asarray(LOGITS))
    )
    steps = float(
        (GAMMA ** np.arange(H)[:, None] * np.asarray(traj.valid)).sum() / traj.valid.shape[1]
    )
    x = np.linalg.solve(fisher / steps + 1e-6 * np.eye(S * A), ascent.ravel())
    longest = np.sqrt(2e-4 / (x @ (fisher / steps + 1e-6 * np.eye(S * A)) @ x)) * x
    moved = trust_region(ascent, psi, 1e-4, gamma=GAMMA, solve=exact_solve)
    share = moved.ravel() @ longest / (longest @ longest)
    np.testing.assert_allclose(moved.ravel(), share * longest, atol=1e-10)
    # the quadratic model may be just too bold
    assert share in (pytest.approx(1.0), pytest.approx(0.5))
    kl = (
        float(mean_kl(POLICY, jnp.asarray(LOGITS), jnp.asarray(LOGITS + moved), traj, GAMMA))
        / steps
    )
    assert 0.2e-4 < kl <= 1e-4
    gain = [
        surrogate(POLICY, jnp.asarray(LOGITS + d), Weighted(traj, psi, ()))
        for d in (0 * moved, moved)
    ]
    assert gain[1] > gain[0]


@pytest.mark.usefixtures("x64")
def test_the_line_search_halves_until_both_hold_and_gives_up() -> None:
    traj, _ = batch()
    psi = jnp.where(traj.valid, traj.reward, 0.0)
    ascent = np.asarray(
        jax.grad(lambda p: surrogate(POLICY, p, Weighted(traj, psi, ())))(jnp.asarray(LOGITS))
    )
    far = trust_region(ascent, psi, 50.0, gamma=GAMMA)  # the quadratic model is no guide so far out
    steps = float(
        (GAMMA ** np.arange(H)[:, None] * np.asarray(traj.valid)).sum() / traj.valid.shape[1]
    )
    assert (
        float(mean_kl(POLICY, jnp.asarray(LOGITS), jnp.asarray(LOGITS + far), traj, GAMMA)) / steps
        <= 50.0
    )
    assert np.abs(far).max() > 0.1
    # downhill: nothing is better, and no step is taken
    assert not trust_region(-ascent, psi, 1e-2).any()
    assert not trust_region(0 * ascent, psi, 1e-2).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("damping", [1e-6, 0.1, 1.0])
def test_a_trust_region_step_has_its_length_in_the_damped_matrix(damping: float) -> None:
    """½ xᵀ (F + damping I) x = max_kl, up to halvings: with damping the quadratic model of the KL
    is within it.
    """
    traj, fisher = batch()
    psi = jnp.where(traj.valid, traj.reward, 0.0)
    ascent = np.asarray(
        jax.grad(lambda p: surrogate(POLICY, p, Weighted(traj, psi, ())))(jnp.asarray(LOGITS))
    )
    steps = float(
        (GAMMA ** np.arange(H)[:, None] * np.asarray(traj.valid)).sum() / traj.valid.shape[1]
    )
    step = trust_region(ascent, psi, 1e-4, gamma=GAMMA, solve=exact_solve, damping=damping).ravel()
    model = 0.5 * step @ (fisher / steps) @ step
    in_damped = model + 0.5 * damping * step @ step
    halvings = np.log2(1e-4 / in_damped) / 2
    assert halvings == pytest.approx(round(halvings), abs=1e-6)
    assert round(halvings) in (0, 1)
    assert model <= in_damped <= 1e-4 * (1 + 1e-9)


# γ of the weight γᵗ that a state has in the gradient, at γ = 0.8 and with
# `undiscounted_state_weighting`.
DROPPED = dict.fromkeys(("undiscounted_reward_to_go", "gpomdp"), (1.0, 1.0))
AS_SET = dict.fromkeys(("actor_critic", "gae", "vtrace", "ppo"), (GAMMA, 1.0))
AS_SET |= dict.fromkeys(("advantage_weighted_regression", "v_mpo", "mdpo"), (GAMMA, 1.0))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_knows_how_its_gradient_weighs_states(name: str) -> None:
    """The theorem's γᵗ for all but those that drop it, always or where it is asked for."""
    expected = (DROPPED | AS_SET).get(name, (GAMMA, GAMMA))
    for asked, discount in enumerate(expected):
        h = Hyperparams(gamma=GAMMA, undiscounted_state_weighting=float(asked))
        assert ESTIMATORS[name](POLICY, tabular_policy(S, A), h).state_discount == pytest.approx(
            discount
        )


def test_the_page_on_steps_names_the_estimators_that_drop_the_weight_of_states() -> None:
    page = (Path(__file__).parents[2] / "docs" / "science" / "steps.md").read_text()
    words = " ".join(page.split())
    sentence = words.split(r"if it drops $\gamma^t$: ")[1].split(". ")[0]
    assert set(re.findall("`([a-z_]+)`", sentence)) == {*DROPPED, *AS_SET}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", ["natural", "trpo"])
@pytest.mark.parametrize("name", ["reward_to_go", "undiscounted_reward_to_go"])
def test_the_fisher_matrix_weighs_states_as_the_gradient_does(name: str, optimizer: Any) -> None:
    """The direction of a step is that of (F + damping I)⁻¹ g with F weighted by the γᵗ that is in
    g, and no other.
    """
    traj, _ = batch()
    h = Hyperparams(gamma=GAMMA, learning_rate=1.0, damping=0.01, max_grad_norm=np.inf)
    estimator, params = ESTIMATORS[name](POLICY, POLICY, h), Params(jnp.asarray(LOGITS), ())
    weighted, _ = estimator.weigh(params, (), traj)
    grads, _ = estimator.grad(params, weighted)
    opt = optimizers.make_optimizer(Config(optimizer=optimizer, preset=None), h)
    given = {"batch": weighted, "policy": POLICY, "estimator": estimator}
    step = np.asarray(opt.update(grads, opt.init(params), params, **given)[0].policy).ravel()

    def direction(gamma: float) -> np.ndarray:
        fisher = np.asarray(fisher_matrix(POLICY, jnp.asarray(LOGITS), traj, gamma))
        visits = (
            np.sum(gamma ** np.arange(H)[:, None] * np.asarray(traj.valid)) / traj.valid.shape[1]
        )
        per_state = fisher / (visits if optimizer == "trpo" else 1.0)
        return -np.linalg.solve(per_state + 0.01 * np.eye(S * A), np.asarray(grads.policy).ravel())

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    own, other = (GAMMA, 1.0) if name == "reward_to_go" else (1.0, GAMMA)
    assert cosine(step, direction(own)) == pytest.approx(1.0, abs=1e-9)
    assert cosine(step, direction(other)) < 1.0 - 1e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", ["natural", "trpo"])
def test_the_same_window_twice_over_gives_the_same_step(optimizer: Any) -> None:
    """Gradients over windows are per step, and the Fisher matrix must be so too."""
    traj, _ = batch()
    h = Hyperparams(gamma=1.0, learning_rate=1.0, max_grad_norm=np.inf)
    config = Config(estimator="gae", collect="windows", optimizer=optimizer, preset=None)
    opt, params = optimizers.make_optimizer(config, h), Params(jnp.asarray(LOGITS), ())
    estimator = ESTIMATORS["reward_to_go"](POLICY, POLICY, h)
    once = estimator.weigh(params, (), traj)[0]
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), once)
    steps = []
    for window in (once, twice):
        scale = 1.0 / len(window.psi)
        grads = jax.tree.map(lambda g, scale=scale: scale * g, estimator.grad(params, window)[0])
        given = {"batch": window, "policy": POLICY, "estimator": estimator, "gradient_scale": scale}
        steps.append(opt.update(grads, opt.init(params), params, **given)[0].policy)
    assert np.abs(steps[0]).max() > 0.01
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-6)


@pytest.mark.parametrize("share", [1e-4, 1e-5])
def test_the_exact_solution_keeps_small_eigenvalues_in_32_bits(share: float) -> None:
    """And none of the null space: three directions, of eigenvalues 1, `share` and 0, none along an
    axis.
    """
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    matrix = jnp.asarray(q @ np.diag([1.0, share, 0.0]) @ q.T, jnp.float32)
    x = exact_solve(lambda v: matrix @ v, jnp.asarray(q @ np.array([1.0, share, 0.0]), jnp.float32))
    np.testing.assert_allclose(q.T @ np.asarray(x), [1.0, 1.0, 0.0], atol=0.02)


def weighted_batch(policy: np.ndarray) -> tuple[Weighted, jax.Array]:
    """Every trajectory of a policy, Ψ = R, and its probability."""
    traj, probability = tabular.enumerate_trajectories(MDP, jnp.asarray(policy))
    total = returns.total_return(traj.reward, GAMMA)
    return Weighted(traj, jnp.broadcast_to(total, traj.reward.shape), ()), probability


NEAR = LOGITS + 0.1 * np.random.default_rng(5).normal(size=(S, A))


def each_episode(direction: Any, batch: Weighted) -> np.ndarray:
    """A direction computed from one episode at a time, [M, S·A]."""
    rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], batch)
    return np.asarray(jax.jit(jax.vmap(direction))(rows)).reshape(len(rows.psi), -1)


@pytest.mark.usefixtures("x64")
def test_the_importance_weighted_gradient_is_that_of_the_earlier_parameters() -> None:
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, Hyperparams(gamma=GAMMA))
    rows, probability = weighted_batch(LOGITS)
    earlier = Params(jnp.asarray(NEAR), ())
    x = each_episode(
        lambda b: -importance_weighted_gradient(estimator, POLICY, earlier, b).policy, rows
    )
    exact = np.asarray(tabular.exact_gradient(MDP, jnp.asarray(NEAR), GAMMA)).ravel()
    np.testing.assert_allclose(probability @ x, exact, atol=1e-12)
    without = each_episode(lambda b: -estimator.grad(earlier, b)[0].policy, rows)
    assert np.abs(probability @ without - exact).max() > 1e-3  # without w: the negative control


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("transform", "momentum"),
    [(storm(1.0), 1.0), (storm(0.5), 0.5), (svrpg(), 1.0), (page_pg(0.0), 1.0)],
    ids=["recursive", "half", "svrpg", "page_pg"],
)
def test_a_corrected_direction_is_unbiased_and_varies_as_the_square_of_the_move(
    transform: Any, momentum: float
) -> None:
    """With ∇J(θ') remembered, E d = ∇J(θ) over every trajectory; with all of it used, Var d → 0 as
    θ' → θ.
    """
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, Hyperparams(gamma=GAMMA))
    rows, probability = weighted_batch(LOGITS)
    params, traces = Params(jnp.asarray(LOGITS), ()), []
    for distance in (1.0, 0.5):
        before = LOGITS + distance * (NEAR - LOGITS)
        slope = -jnp.asarray(tabular.exact_gradient(MDP, jnp.asarray(before), GAMMA))  # of the loss
        memory = transform.init(params)._replace(
            step=jnp.int32(1), params=jnp.asarray(before), direction=slope
        )

        def direction(one: Weighted, memory: Any = memory) -> jax.Array:
            given = {"batch": one, "policy": POLICY, "estimator": estimator, "key": KEY}
            gradient = estimator.grad(params, one)[0]
            return -transform.update(gradient, memory, params, **given)[0].policy

        x = each_episode(direction, rows)
        exact = np.asarray(tabular.exact_gradient(MDP, jnp.asarray(LOGITS), GAMMA)).ravel()
        np.testing.assert_allclose(probability @ x, exact, atol=1e-12)
        traces.append(float(probability @ ((x - exact) ** 2).sum(1)))
    if momentum == 1.0:
        assert traces[0] / traces[1] == pytest.approx(4.0, rel=0.1)
    assert traces[0] < np.trace(tabular.total_return_moments(MDP, jnp.asarray(LOGITS), GAMMA)[1])


@pytest.mark.usefixtures("x64")
def test_page_pg_restarts_with_its_probability_and_is_unbiased_with_or_without_a_restart() -> None:
    """Given either, the mean is ∇J(θ), so that the variance is a mixture of the two; an update
    without a key is refused, and the first is plain whatever the key.
    """
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, Hyperparams(gamma=GAMMA))
    rows, probability = weighted_batch(LOGITS)
    params, p = Params(jnp.asarray(LOGITS), ()), 0.3
    slope = -jnp.asarray(tabular.exact_gradient(MDP, jnp.asarray(NEAR), GAMMA))
    transform = page_pg(p)
    first = transform.init(params)
    later = first._replace(step=jnp.int32(1), params=jnp.asarray(NEAR), direction=slope)
    given = {"batch": rows, "policy": POLICY, "estimator": estimator}
    gradient = estimator.grad(params, rows)[0]
    keys = jax.random.split(KEY, 1000)

    def restarts(memory: Any) -> np.ndarray:
        """True for the keys of which the direction is the plain gradient, [1000]."""
        directions = jax.vmap(
            lambda key: transform.update(gradient, memory, params, key=key, **given)[0].policy
        )(keys)
        same = np.asarray(directions) == np.asarray(gradient.policy)
        return np.all(same, axis=(1, 2))

    is_plain = restarts(later)
    assert abs(is_plain.mean() - p) < 4 * np.sqrt(p * (1 - p) / len(keys))
    assert restarts(first).all()
    exact = np.asarray(tabular.exact_gradient(MDP, jnp.asarray(LOGITS), GAMMA)).ravel()
    spread = []
    for key in (keys[np.argmax(is_plain)], keys[np.argmin(is_plain)]):

        def direction(one: Weighted, key: Any = key) -> jax.Array:
            own = {**given, "batch": one, "key": key}
            return -transform.update(estimator.grad(params, one)[0], later, params, **own)[0].policy

        x = each_episode(direction, rows)
        np.testing.assert_allclose(probability @ x, exact, atol=1e-12)
        spread.append(float(probability @ ((x - exact) ** 2).sum(1)))
    assert spread[1] < 0.1 * spread[0]
    with pytest.raises(ValueError, match="page_pg draws its restarts at random"):
        transform.update(gradient, later, params, **given)


@pytest.mark.usefixtures("x64")
def test_a_scale_of_the_batch_is_that_of_another_policy() -> None:
    """Why these estimators are refused: over pairs of episodes w g(θ') has the mean that g has at
    θ' with a mean of the batch as the baseline, and not where Ψ is divided by its deviation.
    """
    error = {}
    for name in ("batch_mean", "standardised"):
        estimator = ESTIMATORS[name](POLICY, POLICY, Hyperparams(gamma=GAMMA))
        own, earlier = Params(jnp.asarray(LOGITS), ()), Params(jnp.zeros((S, A)), ())

        def at_earlier(
            params: Params, batch: Weighted, estimator: Any = estimator, earlier: Params = earlier
        ) -> Any:
            return importance_weighted_gradient(estimator, POLICY, earlier, batch), {}

        weighed = exact_moments(estimator._replace(grad=at_earlier), own, MDP, LOGITS, 2)[0]
        expected = exact_moments(estimator, earlier, MDP, earlier.policy, 2)[0]
        error[name] = np.linalg.norm(weighed - expected) / np.linalg.norm(expected)
    assert error["batch_mean"] < 1e-12
    assert error["standardised"] > 0.01
    assert not FACTS["batch_mean"].psi_depends_on_policy


NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # of [0, 1]


@pytest.mark.usefixtures("x64")
def test_hessians_of_the_same_episodes_weighed_are_the_correction_of_storm() -> None:
    """For each episode ∫ d/dq [w g](θ' + q (θ - θ')) dq = g(θ) - w g(θ'): without episodes of its
    own, harpg would gain nothing.
    """
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, Hyperparams(gamma=GAMMA))
    rows, _ = weighted_batch(LOGITS)
    move = jnp.asarray(LOGITS - NEAR)

    def along(one: Weighted) -> jax.Array:
        def at(q: jax.Array) -> jax.Array:
            inside = Params(jnp.asarray(NEAR) + q * move, ())
            return hessian_vector_product(estimator, POLICY, inside, one, move)

        products = jax.vmap(at)(jnp.asarray(NODES))
        return jnp.tensordot(jnp.asarray(WEIGHTS), products, axes=1)

    def correction(one: Weighted) -> jax.Array:
        earlier = Params(jnp.asarray(NEAR), ())
        before = importance_weighted_gradient(estimator, POLICY, earlier, one).policy
        return estimator.grad(Params(jnp.asarray(LOGITS), ()), one)[0].policy - before

    of_each = each_episode(along, rows)
    assert np.abs(of_each).max() > 0.1
    np.testing.assert_allclose(of_each, each_episode(correction, rows), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_direction_that_hessians_carry_along_is_unbiased() -> None:
    """Over the episodes of θ̂ its mean is that with the exact Hessian there; and over θ̂ too, by
    quadrature, the direction has the mean ∇J(θ) wherever dₖ₋₁ was ∇J(θₖ₋₁).
    """
    h = Hyperparams(gamma=GAMMA)
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, h)
    theta, earlier = jnp.asarray(LOGITS), jnp.asarray(NEAR)

    def slope(at: jax.Array) -> np.ndarray:
        return np.asarray(tabular.exact_gradient(MDP, at, GAMMA)).ravel()

    transform, params, m = harpg(0.7), Params(theta, ()), 0.7
    state = transform.init(params)._replace(
        step=jnp.int32(1), params=earlier, direction=-jnp.asarray(slope(earlier)).reshape(S, A)
    )
    rows, probability = weighted_batch(LOGITS)
    own = Weighted(rows.traj, rows.psi * probability[None] * probability.size, ())
    gradient = estimator.grad(params, own)[0]  # ∇J(θ), of the loss
    np.testing.assert_allclose(-gradient.policy.ravel(), slope(theta), atol=1e-12)
    inside: list[Any] = []
    spent: list[Any] = []

    def direction(one: Weighted) -> jax.Array:
        def resample(at: Params, key: jax.Array) -> tuple[Weighted, jax.Array]:
            inside.append(at.policy)
            return one, jnp.int32(7)

        given = {"policy": POLICY, "estimator": estimator, "key": KEY, "resample": resample}
        updates, after = transform.update(gradient, state, params, batch=None, **given)
        spent.append(after.env_steps)
        return -updates.policy

    direction(rows)  # the place θ̂ depends on the key alone
    assert int(spent[0]) == 7
    between, move = np.asarray(inside[0]), np.asarray(theta - earlier).ravel()
    q = float(((between - np.asarray(earlier)).ravel() @ move) / (move @ move))
    assert 0 < q < 1
    np.testing.assert_allclose(between, earlier + q * (theta - earlier), atol=1e-12)
    of_between, chance = weighted_batch(between)
    mean = np.asarray(chance) @ each_episode(direction, of_between)

    def product(q: jax.Array) -> jax.Array:
        """H(θ̂) (θ - θ') for this q."""
        hessian = tabular.exact_hessian(MDP, earlier + q * (theta - earlier), GAMMA)
        return hessian.reshape(S * A, S * A) @ move

    products = np.asarray(jax.vmap(product)(jnp.asarray([q, *NODES])))
    expected = m * (slope(earlier) + products[0]) + (1 - m) * slope(theta)
    np.testing.assert_allclose(mean, expected, atol=1e-12)
    over_places = m * (slope(earlier) + WEIGHTS @ products[1:]) + (1 - m) * slope(theta)
    np.testing.assert_allclose(over_places, slope(theta), atol=1e-12)


def test_the_place_of_the_second_batch_is_uniform_between_two_parameters() -> None:
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, Hyperparams(gamma=GAMMA))
    transform, params = harpg(), Params(jnp.ones((S, A)), ())
    state = transform.init(Params(jnp.zeros((S, A)), ()))
    rows, _ = weighted_batch(LOGITS)

    def place(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        asked = []

        def resample(at: Params, key: jax.Array) -> tuple[Weighted, jax.Array]:
            asked.append((at.policy[0, 0], jax.random.uniform(key)))
            return rows, jnp.int32(0)

        given = {"policy": POLICY, "estimator": estimator, "key": key, "resample": resample}
        transform.update(params, state, params, batch=rows, **given)
        return asked[0]

    q, own = (np.sort(x) for x in jax.vmap(place)(jax.random.split(KEY, 1000)))
    # Kolmogorov's distance, beyond 0.062 once in a thousand times
    for x in (q, own):
        assert np.abs(x - (np.arange(1000) + 0.5) / 1000).max() < 0.062
    with pytest.raises(ValueError, match="which there is with collect='episodes'"):
        transform.update(params, state, params, batch=rows, policy=POLICY, estimator=estimator)


def test_a_second_batch_is_of_the_parameters_asked_for_and_counted() -> None:
    """Its log-probabilities are those of its own policy; both batches are in env_steps; and the
    steps of n_harpg are as long as the learning rate.
    """

    def shifted(rate: Any) -> optax.GradientTransformationExtraArgs:
        """Asks for a batch at other parameters, and keeps how far its log-probabilities are from
        those of these and of its own.
        """

        def update(updates: Any, state: Any, params: Any = None, **given: Any) -> Any:
            def moved(x: jax.Array) -> jax.Array:
                return x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)

            other = params._replace(policy=jax.tree.map(moved, params.policy))
            batch, _ = given["resample"](other, given["key"])
            distances = [
                jnp.abs(log_ratio(given["policy"], at, batch.traj)).max() for at in (other, params)
            ]
            return jax.tree.map(jnp.zeros_like, updates), jnp.stack(distances)

        return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(2), update)

    config = Config(env=MDP, num_envs=4, num_updates=3, hidden_sizes=(), preset=None)
    learner = make_learner(config, optimizer=shifted)
    state, _ = jax.jit(learner.step)(learner.init(KEY), KEY)
    to_own, to_others = state.opt_state[1]
    assert to_own < 1e-5
    assert to_others > 0.1
    # no pole falls within three steps
    config = Config(
        optimizer="n_harpg", num_envs=4, num_updates=3, horizon=3, hidden_sizes=(), preset=None
    )
    learner = make_learner(config, Hyperparams(learning_rate=0.25))
    before, step = learner.init(KEY), jax.jit(learner.step)
    for key in jax.random.split(KEY):
        after, metrics = step(before, key)
        assert int(metrics["env_steps"]) == 2 * 4 * 3
        moved = jax.tree.map(jnp.subtract, after.params.policy, before.params.policy)
        assert float(optax.tree.norm(moved)) == pytest.approx(0.25, rel=1e-3)
        before = after


@pytest.mark.usefixtures("x64")
def test_transported_gradients_of_a_quadratic_are_those_where_the_path_is() -> None:
    """Their average, at points ahead of the path, steps as gradients on it would; an average of
    gradients on the path itself lags behind.
    """
    rng = np.random.default_rng(3)
    half = rng.normal(size=(4, 4))
    curvature, offset = jnp.asarray(half @ half.T), jnp.asarray(rng.normal(size=4))
    start, rate, m = jnp.asarray(rng.normal(size=4)), 0.02, 0.8
    transform = igt(optax.sgd(rate), m)
    ahead, state, plain = start, transform.init(start), start
    for _ in range(6):
        before = parameters_of_path(state)
        updates, state = transform.update(curvature @ ahead - offset, state, ahead)
        ahead = optax.apply_updates(ahead, updates)
        plain = plain - rate * (curvature @ plain - offset)
        path = parameters_of_path(state)
        np.testing.assert_allclose(path, plain, atol=1e-12)
        np.testing.assert_allclose(ahead, path + m / (1 - m) * (path - before), atol=1e-12)
    assert float(jnp.abs(ahead - path).max()) > 0.01
    with pytest.raises(ValueError, match="not the state of an igt optimizer"):
        parameters_of_path(optax.sgd(0.1).init(start))


@pytest.mark.usefixtures("x64")
def test_transported_gradients_are_biased_by_the_square_of_the_move() -> None:
    """On a table, whose J is not quadratic, half the move leaves a quarter of the error of
    m ∇J(θ') + (1 - m) ∇J(x) as ∇J(θ), and half of it without the extrapolation.
    """
    m, errors = 0.5, []
    for distance in (0.1, 0.05):
        theta = LOGITS + distance * (NEAR - LOGITS)
        transform = igt(optax.sgd(1.0), m)
        state = transform.init(jnp.asarray(LOGITS))
        # the first gradient moves from LOGITS to theta
        moved, state = transform.update(jnp.asarray(LOGITS - theta), state, jnp.asarray(LOGITS))
        ahead = jnp.asarray(LOGITS) + moved
        np.testing.assert_allclose(parameters_of_path(state), theta, atol=1e-12)
        exact = tabular.exact_gradient(MDP, jnp.asarray(theta), GAMMA)
        before = tabular.exact_gradient(MDP, jnp.asarray(LOGITS), GAMMA)
        state = (state[0]._replace(direction=-before), state[1])
        of_path = []
        for at in (ahead, jnp.asarray(theta)):
            _, after = transform.update(-tabular.exact_gradient(MDP, at, GAMMA), state, ahead)
            of_path.append(float(jnp.abs(after[0].direction + exact).max()))
        errors.append(of_path)
    transported, averaged = np.array(errors).T
    assert transported[0] / transported[1] == pytest.approx(4.0, rel=0.1)
    assert averaged[0] / averaged[1] == pytest.approx(2.0, rel=0.1)
    assert transported[0] < 0.1 * averaged[0]


def test_a_momentum_that_looks_infinitely_far_ahead_is_refused() -> None:
    config = Config(optimizer="igt", num_envs=2, num_updates=1, preset=None)
    with pytest.raises(
        ValueError, match=r"optimizer='igt' looks .* must be below 1 in 32 bits, got 1\.0"
    ):
        make_learner(config, Hyperparams(momentum=1.0))
    for momentum in (1.0, 1 - 1e-9, np.float32(1.0), -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"^igt looks .* must be in \[0, 1\), .* got "):
            igt(optax.sgd(0.1), momentum)


def test_a_momentum_of_1_is_refused_among_those_of_a_sweep() -> None:
    config = Config(optimizer="igt", num_envs=2, num_updates=1, preset=None)
    momenta = [0.5, 1.0]
    with pytest.raises(ValueError, match=r"must be below 1 in 32 bits, got 1\.0"):
        SweepSpec(config, Hyperparams(), {"momentum": momenta}, range(2))
    with pytest.raises(ValueError, match=r"must be below 1 in 32 bits, got 1\.0"):
        sweep(config, range(2), grid(momentum=momenta))


def test_every_step_of_every_run_has_a_key_of_its_own() -> None:
    """An optimizer's draws differ between vmapped seeds, between updates and between the steps on
    one batch; a run in chunks repeats them.
    """

    def recorder(rate: Any) -> optax.GradientTransformationExtraArgs:
        """Leaves parameters as they are, and keeps a number drawn from the key of each step."""

        def update(updates: Any, state: Any, params: Any = None, *, key: Any, **_: Any) -> Any:
            seen, count = state
            return jax.tree.map(jnp.zeros_like, updates), (
                seen.at[count].set(jax.random.uniform(key)),
                count + 1,
            )

        return optax.GradientTransformationExtraArgs(
            lambda params: (jnp.zeros(12), jnp.int32(0)), update
        )

    config = Config(
        env=MDP,
        estimator="ppo",
        collect="windows",
        num_envs=2,
        num_steps=4,
        num_epochs=2,
        num_minibatches=2,
        num_updates=3,
        hidden_sizes=(),
        preset=None,
    )
    keys = jax.random.split(KEY, 3)
    train = make_train(config, optimizer=recorder)
    seen = np.asarray(jax.jit(jax.vmap(train))(keys)[0].opt_state[1][0])
    assert len(np.unique(seen)) == seen.size == 36
    learner = make_learner(config, optimizer=recorder)
    init_key, step_keys = training_keys(keys[1], 0, 3)
    state = learner.init(init_key)
    for key in step_keys:
        state = jax.jit(learner.step)(state, key)[0]
    np.testing.assert_array_equal(state.opt_state[1][0], seen[1])


def test_what_is_remembered_and_when() -> None:
    """storm: the last direction, from the second update on. svrpg: the gradient at the snapshot,
    until the next.
    """
    estimator = ESTIMATORS["reinforce"](POLICY, POLICY, Hyperparams(gamma=GAMMA))
    rows, _ = weighted_batch(LOGITS)
    thetas = [LOGITS, NEAR, NEAR + 0.1, NEAR - 0.1]

    def loss_gradient(theta: np.ndarray) -> np.ndarray:
        return np.asarray(estimator.grad(Params(jnp.asarray(theta), ()), rows)[0].policy)

    def weighed(theta: np.ndarray) -> np.ndarray:
        return np.asarray(
            importance_weighted_gradient(
                estimator, POLICY, Params(jnp.asarray(theta), ()), rows
            ).policy
        )

    def directions(transform: Any) -> list[np.ndarray]:
        memory, out = transform.init(Params(jnp.asarray(thetas[0]), ())), []
        for theta in thetas:
            params, given = (
                Params(jnp.asarray(theta), ()),
                {"batch": rows, "policy": POLICY, "estimator": estimator},
            )
            updates, memory = transform.update(
                estimator.grad(params, rows)[0], memory, params, **given
            )
            out.append(np.asarray(updates.policy))
        return out

    expected = [loss_gradient(thetas[0])]
    for before, theta in itertools.pairwise(thetas):
        expected.append(loss_gradient(theta) + 0.7 * (expected[-1] - weighed(before)))
    np.testing.assert_allclose(directions(storm(0.7)), expected, atol=1e-5)
    np.testing.assert_allclose(
        directions(storm(0.0)), [loss_gradient(theta) for theta in thetas], atol=1e-6
    )
    snapshots = [loss_gradient(thetas[0]), None, loss_gradient(thetas[2]), None]
    for k in (1, 3):
        snapshots[k] = loss_gradient(thetas[k]) + snapshots[k - 1] - weighed(thetas[k - 1])
    np.testing.assert_allclose(directions(svrpg(2)), snapshots, atol=1e-5)


def test_clipping_leaves_short_gradients_alone() -> None:
    clip = optimizers.clip_each_by_global_norm(1.0)
    updates = Params({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.3, 0.4])})
    clipped, _ = clip.update(updates, clip.init(updates), updates)
    np.testing.assert_allclose(clipped.policy["w"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(clipped.critic["w"], [0.3, 0.4], rtol=1e-6)


@pytest.mark.parametrize("bound", [0.5, np.inf])
def test_clipping_does_not_change_steps_of_normalised_length(bound: float) -> None:
    """They are as long as the learning rate; the critic's gradient is clipped before its step."""
    grads = Params({"w": jnp.array([3.0, 4.0])}, {"v": jnp.array([0.0, 2.0])})
    config = Config(optimizer="n_igt", critic_optimizer="sgd", preset=None)
    h = Hyperparams(learning_rate=0.1, momentum=0.0, max_grad_norm=bound)
    optimizer = optimizers.make_optimizer(config, h)
    updates = optimizer.update(grads, optimizer.init(grads), grads)[0]
    np.testing.assert_allclose(updates.policy["w"], [-0.06, -0.08], rtol=1e-5)
    np.testing.assert_allclose(updates.critic["v"], [0.0, -0.1 * min(bound, 2.0)], rtol=1e-6)


def test_igt_averages_gradients_before_they_are_clipped() -> None:
    """Gradients of length 10 and 1 in opposite directions: the average of what is not clipped."""
    config = Config(optimizer="igt", critic_optimizer="sgd", preset=None)
    optimizer = optimizers.make_optimizer(config, Hyperparams(momentum=0.5, max_grad_norm=1.0))
    params = Params(jnp.zeros(2), jnp.zeros(1))
    state = optimizer.init(params)
    for gradient in ([6.0, 8.0], [-0.6, -0.8]):
        grads = Params(jnp.array(gradient), jnp.zeros(1))
        state = optimizer.update(grads, state, params)[1]
    (average,) = optax.tree_utils.tree_get_all_with_path(state, "direction")
    np.testing.assert_allclose(average[1], [2.7, 3.6], rtol=1e-6)
    # Adam's moment is of what was clipped: of length 1, twice
    (moment,) = optax.tree_utils.tree_get_all_with_path(state, "mu")
    np.testing.assert_allclose(moment[1], 0.19 * np.array([0.6, 0.8]), rtol=1e-5)


def test_the_critic_has_a_step_size_and_an_optimizer_of_its_own() -> None:
    grads = Params({"w": jnp.array([0.3, -0.2])}, {"v": jnp.array([0.5, 0.1])})

    def step(config: Config, h: Hyperparams) -> Params:
        optimizer = optimizers.make_optimizer(config, h)
        return optimizer.update(
            grads, optimizer.init(grads), grads, batch=None, policy=None, estimator=None
        )[0]

    h = Hyperparams(learning_rate=0.1, critic_rate=3.0, max_grad_norm=1e9)
    updates = step(Config(optimizer="sgd", preset=None), h)
    np.testing.assert_allclose(updates.policy["w"], -0.1 * grads.policy["w"], rtol=1e-6)
    np.testing.assert_allclose(updates.critic["v"], -0.3 * grads.critic["v"], rtol=1e-6)
    updates = step(Config(optimizer="adam", critic_optimizer="sgd", preset=None), h)
    # Adam's first step is the sign
    np.testing.assert_allclose(updates.policy["w"], [-0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(updates.critic["v"], -0.3 * grads.critic["v"], rtol=1e-6)


# Mistakes


def trained_by(optimizer: Any) -> Callable[[], object]:
    config = Config(num_updates=1, num_envs=2, hidden_sizes=(4,), preset=None)
    return lambda: make_learner(config, optimizer=optimizer)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "the name of an optimizer for a Config": (
        lambda: optimizers.make_optimizer("adam", Hyperparams()),
        "config must be a pg.Config, got 'adam'",
    ),
    "Hyperparams and Config changed about": (
        lambda: optimizers.make_optimizer(Hyperparams(), Config(preset=None)),
        "config must be a pg.Config, got a Hyperparams: the Config comes first, and then the "
        "Hyperparams",
    ),
    "an optimizer with its rate": (
        trained_by(optax.adam(1e-3)),
        "optimizer must be a function of learning_rate, got a GradientTransformationExtraArgs: "
        "write optimizer=optax.adam, as the rate is Hyperparams(learning_rate=...)",
    ),
    "an optimizer as a name": (trained_by("adam"), "got 'adam': write Config(optimizer='adam')"),
    "an optimizer of nothing": (
        trained_by(lambda: optax.adam(1e-3)),
        "got one that cannot be called so: too many",
    ),
    "an optimizer that makes a number": (
        trained_by(lambda rate: rate),
        "optimizer must make an optax.GradientTransformation, got float",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
