"""The estimators' expectations, computed over every trajectory (and every pair) of a small MDP: no
noise, 1e-12.

An estimator that says it is unbiased equals the exact gradient; one that says it is not equals its
own mean, derived another way (`proofs.py`, the one table), and differs from the gradient.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from proofs import (
    CASES,
    GAMMA,
    A,
    Case,
    H,
    S,
    arbitrary,
    case,
    discount,
    endless,
    exact_critics,
    gradient,
    summands,
)

from pg import returns, surrogates
from pg.config import Hyperparams
from pg.diagnostics import exact_moments, references
from pg.estimators import ESTIMATORS
from pg.estimators.facts import FACTS, ON_TABLES
from pg.exact import tabular
from pg.rollout import Trajectory

pytestmark = pytest.mark.usefixtures("x64")
# a direction in which the third derivative is not 0
SLOPES = np.random.default_rng(3).normal(size=(S, A))
table = pytest.mark.parametrize("row", CASES, ids=str)


def expectation(row: Case) -> np.ndarray:
    """E ĝ, [S, A]."""
    return row.moments()[0].reshape(row.on.logits.shape)


@table
def test_the_mean_is_what_the_table_says(row: Case) -> None:
    np.testing.assert_allclose(expectation(row), row.expected(), rtol=0, atol=row.tolerance)


def test_the_target_of_q_has_its_mean_and_none_of_the_later_actions_noise() -> None:
    """The target of trajectory_control_variate: for a wrong Q its mean given state and action is
    that of the return; with the exact Q its variance is that of the dynamics alone.
    """
    row = case("trajectory_control_variate")
    for problem in (arbitrary(), exact_critics()):
        on = problem
        traj, probability = tabular.enumerate_trajectories(on.mdp, on.logits)
        estimator, params = row._replace(problem=lambda on=on: on).build()
        target = np.asarray(estimator.weigh(params, (), traj)[0].target)[0]
        to_go = np.asarray(returns.reward_to_go(traj.reward, traj.done, GAMMA))[0]
        start = np.argmax(traj.obs[0], axis=-1), traj.action[0]
        left = {}
        for what, x in (("target", target), ("return", to_go)):
            total, mass, square = (np.zeros((on.mdp.num_states, A)) for _ in range(3))
            np.add.at(mass, start, probability)
            np.add.at(total, start, probability * x)
            np.add.at(square, start, probability * x**2)
            mean = total / np.maximum(mass, 1e-300)
            left[what] = mean, (square - mass * mean**2).sum()
        np.testing.assert_allclose(left["target"][0], left["return"][0], atol=1e-12)
        assert left["target"][1] != pytest.approx(left["return"][1], rel=1e-3)
    assert left["target"][1] < 0.9 * left["return"][1]


@table
def test_a_documented_bias_is_there(row: Case) -> None:
    """The negative control: what is not ∇J by name is not ∇J by number."""
    if row.mean is not None:
        reference = gradient(row)
        if row.problem is endless:  # ∇η, for every step of the window
            reference = references.window_gradient(row.on)
        assert np.abs(row.expected() - reference).max() > 1e-3


def test_every_estimator_is_judged_by_what_the_table_of_facts_says() -> None:
    """One that is unbiased for J has a row at ∇J; any other has one at another mean."""
    assert {row.name for row in CASES} == set(ON_TABLES)
    for name in ON_TABLES:
        biased = FACTS[name].unbiased_for != "J"
        assert any((row.mean is not None) == biased for row in CASES if row.name == name), name


def test_entropy_as_a_loss_is_another_direction() -> None:
    """It forgets the entropy of what follows."""
    soft = case("entropy_reward")
    loss = case("reward_to_go", setting={"entropy_coef": 0.3})
    assert np.abs(expectation(loss) - soft.expected()).max() > 1e-3
    # The mean of the loss's bonus is the entropy's gradient at the states that are visited, without
    # a discount.
    d, pi = (
        np.asarray(tabular.visitation(loss.on.mdp, loss.on.logits)),
        np.asarray(jax.nn.softmax(loss.on.logits)),
    )
    entropy = -(pi * np.log(pi)).sum(1, keepdims=True)
    bonus = 0.3 * d.sum(0)[:, None] * pi * (-np.log(pi) - entropy)
    np.testing.assert_allclose(expectation(loss), gradient(loss) + bonus, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "recursion"), [("reinforce", "total_return"), ("reward_to_go", "reward_to_go")]
)
def test_exact_variance_by_enumeration_is_that_by_recursion(name: str, recursion: str) -> None:
    expected = getattr(tabular, f"{recursion}_moments")(arbitrary().mdp, arbitrary().logits, GAMMA)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), case(name).moments(), expected
    )


def test_exact_variance_of_baselines() -> None:
    """A constant and a state-dependent one by recursion; leaving one out is N / (N - 1) of the
    batch mean, always.
    """
    mdp, logits = arbitrary().mdp, arbitrary().logits
    constant = tabular.total_return_moments(mdp, logits, GAMMA, 0.7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        case("constant_baseline").moments(),
        constant,
    )
    state_value = tabular.reward_to_go_moments(mdp, logits, GAMMA, arbitrary().v)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        case("state_value").moments(),
        state_value,
    )
    out, mean = case("leave_one_out").moments()[1], case("batch_mean").moments()[1]
    np.testing.assert_allclose(out, 4 * mean, atol=1e-12)


def uncoupled_rows() -> Iterator[Any]:
    """The rows whose estimate is of one episode, without episodes from visited states. With the
    fast tests one of each way in which the moments are summed: over actions of its own policy or
    another, over extra transitions, with and without a critic.
    """
    seen = set()
    for row in CASES:
        facts = FACTS[row.name]
        if row.num_episodes != 1 or facts.extra_rollout_kind == "branches":
            continue
        how = (row.on_policy, row.limit_ends, facts.critic, facts.extra_rollout_kind)
        yield pytest.param(row, marks=[pytest.mark.slow] if how in seen else [])
        seen.add(how)


@pytest.mark.parametrize("row", [*uncoupled_rows()], ids=str)
def test_exact_variance_by_another_route(row: Case) -> None:
    """For episodes that are not coupled, Σ p x xᵀ - E xᵀ E, x read off one batch with every
    trajectory in it.
    """
    estimator, params = row.build()
    traj, probability = tabular.enumerate_trajectories(
        row.on.mdp, jnp.asarray(row.acting), estimator.extra_rollouts, row.num_branches
    )
    traj = traj._replace(terminated=traj.done) if row.limit_ends else traj
    state = estimator.init(jax.random.key(0))[1]

    @jax.jit
    def estimates(traj: Trajectory) -> jax.Array:
        weighted = estimator.weigh(params, state, traj)[0]
        alone = jax.vmap(
            lambda episode: estimator.grad(params, jax.tree.map(lambda x: x[:, None], episode))[0],
            1,
        )
        return -alone(weighted).policy

    x = np.asarray(estimates(traj)).reshape(len(probability), -1)
    mean = probability @ x
    covariance = np.einsum("m,mp,mq->pq", probability, x, x) - np.outer(mean, mean)
    np.testing.assert_allclose(row.moments()[1], covariance, atol=1e-11)


def test_with_the_exact_value_of_every_action_only_the_states_are_left_to_chance() -> None:
    names = ("all_action", "action_dependent_baseline", "state_value", "reward_to_go")
    traces = [np.trace(case(name, mean=None, problem=exact_critics).moments()[1]) for name in names]
    assert traces[0] < 0.7 * min(traces[1:])


def test_where_nothing_is_drawn_but_actions_a_control_variate_leaves_the_states_alone() -> None:
    """Its estimate is then that of every action by its value, trajectory by trajectory."""
    mdp = tabular.garnet(3, S, A, branching=1, horizon=H)
    problem = references.with_exact_critics(references.arbitrary(mdp), GAMMA)
    h = Hyperparams(gamma=GAMMA)
    found = {}
    for name in ("all_action", "action_dependent_baseline", "trajectory_control_variate"):
        estimator, params = references.build(ESTIMATORS[name], problem, "Q", h)
        found[name] = exact_moments(estimator, params, problem.mdp, problem.logits)
    mean, covariance = found["trajectory_control_variate"]
    np.testing.assert_allclose(mean, found["all_action"][0], atol=1e-12)
    np.testing.assert_allclose(covariance, found["all_action"][1], atol=1e-12)
    assert np.trace(covariance) < 0.5 * np.trace(found["action_dependent_baseline"][1])


def test_the_limit_of_gpomdp_is_the_exact_direction() -> None:
    """Σₗ βˡ Σₛ μ Σₐ ∇π E[rₜ₊ₗ|s, a] is ∇_β η: what `of_a_fading_trace` sums to, window by
    window.
    """
    problem, beta = endless(), 0.6
    pi, later = np.asarray(jax.nn.softmax(problem.logits)), problem.mdp.mean_reward
    total = np.zeros((S, A))
    for lag in range(100):
        centred = later - (pi * later).sum(1, keepdims=True)
        total += beta**lag * problem.mdp.initial[:, None] * pi * centred
        later = problem.mdp.transition @ (pi * later).sum(1)
    exact = tabular.gpomdp_direction(problem.mdp, jnp.asarray(problem.logits), beta)
    np.testing.assert_allclose(total, exact, atol=1e-12)


def test_reward_to_go_can_be_worse_than_the_total_return() -> None:
    mdp, logits = tabular.cancelling(), np.zeros((2, 2))
    traces = [
        np.trace(f(mdp, logits)[1])
        for f in (tabular.total_return_moments, tabular.reward_to_go_moments)
    ]
    assert traces[1] > 10 * traces[0]


def test_the_optimal_baseline_is_not_in_sample() -> None:
    """With its own episode in the sums it would be biased: the negative control of leaving it
    out.
    """
    probabilities, scores, rewards, _ = summands()
    total, z = (discount() * rewards).sum(0), scores.sum(0).reshape(-1, S * A)
    mean = np.zeros(S * A)
    for m, p in enumerate(probabilities):
        top = total[m] * z[m] ** 2 + total[:, None] * z**2
        bottom = z[m] ** 2 + z**2
        b = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        mean += p * probabilities @ (((total[m] - b) * z[m] + (total[:, None] - b) * z) / 2)
    assert np.abs(mean.reshape(S, A) - gradient(case("reinforce"))).max() > 1e-3


def objective(kind: str, logits: jax.Array) -> jax.Array:
    """A surrogate whose derivatives estimate those of J, averaged over every trajectory."""
    probabilities, _, rewards, traj = summands()
    rewards = discount() * rewards
    log_pi = jax.nn.log_softmax(logits)
    log_prob = jnp.where(
        traj.valid, jnp.einsum("tms,sa,tma->tm", traj.obs, log_pi, np.eye(A)[traj.action]), 0.0
    )
    if kind == "dice":
        per_episode = surrogates.dice(log_prob, jnp.asarray(rewards))
    elif kind == "loaded_dice":
        # Advantages over a stand-in V: any function of the state leaves every order unbiased.
        to_go = np.cumsum(rewards[::-1], axis=0)[::-1]
        advantage = jnp.asarray(
            np.where(traj.valid, to_go - discount() * (traj.obs @ arbitrary().v), 0.0)
        )
        per_episode = surrogates.loaded_dice(log_prob, advantage)
    else:
        per_episode = surrogates.score(log_prob.sum(0), jnp.asarray(rewards.sum(0)))
    return jnp.asarray(probabilities) @ per_episode


@pytest.mark.parametrize("kind", ["dice", "loaded_dice"])
def test_first_and_higher_orders(kind: str) -> None:
    mdp, logits = arbitrary().mdp, jnp.asarray(arbitrary().logits)

    def estimated(logits: jax.Array) -> jax.Array:
        return objective(kind, logits)

    slope = tabular.exact_gradient(mdp, logits, GAMMA)
    np.testing.assert_allclose(jax.jit(jax.grad(estimated))(logits), slope, atol=1e-12)
    exact = jax.jit(lambda x: tabular.exact_hessian(mdp, x, GAMMA))(logits)
    np.testing.assert_allclose(jax.jit(jax.hessian(estimated))(logits), exact, atol=1e-12)

    def third(f: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """D³f(θ)[v, v, ·], v = SLOPES."""

        def along(g: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
            return lambda x: jax.jvp(g, (x,), (SLOPES,))[1]

        return jax.jit(jax.grad(along(along(f))))(logits)

    expected = third(lambda x: tabular.exact_return(mdp, x, GAMMA))
    np.testing.assert_allclose(third(estimated), expected, atol=1e-12)
    assert float(jnp.abs(expected).max()) > 1e-3
    # Differentiating the ordinary surrogate twice is wrong: the negative control.
    twice = jax.jit(jax.hessian(lambda x: objective("score", x)))(logits)
    assert float(jnp.abs(twice - exact).max()) > 1e-2
