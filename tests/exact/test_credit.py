"""Credit by hindsight: with exact coefficients the mean is ∇J, with others that of the formula, and
a network learns the exact ones.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from proofs import GAMMA, A, H, S, arbitrary, case, corridor, discount, summands

import pg
from pg.config import Hyperparams
from pg.diagnostics import exact_moments, references
from pg.diagnostics.references import Problem
from pg.estimators import ESTIMATORS, credit
from pg.exact import tabular
from pg.networks import Network
from pg.rollout import Trajectory

pytestmark = pytest.mark.usefixtures("x64")
WRONG = np.random.default_rng(7).normal(size=(S, S, A))  # w(s, a, s'), [S, S', A]


def moments(factory: Any, problem: Problem, gamma: float = GAMMA) -> tuple[np.ndarray, np.ndarray]:
    estimator, params = references.build(factory, problem, "none", Hyperparams(gamma=gamma))
    return exact_moments(estimator, params, problem.mdp, problem.logits)


def gradient(problem: Problem, gamma: float = GAMMA) -> np.ndarray:
    return np.asarray(tabular.exact_gradient(problem.mdp, problem.logits, gamma)).ravel()


def by_states(problem: Problem, gamma: float = GAMMA) -> Any:
    """The estimator with the exact coefficients of later states."""
    hindsight = tabular.hindsight_of_states(problem.mdp, problem.logits, gamma)
    return credit.counterfactual(tabular.table_coefficients(hindsight, problem.logits))


def by_rewards(problem: Problem, gamma: float = GAMMA) -> Any:
    """The estimator with the exact coefficients of later rewards."""
    rewards, hindsight = tabular.hindsight_of_rewards(problem.mdp, problem.logits, gamma)

    def number(traj: Trajectory) -> jax.Array:
        return jnp.argmin(jnp.abs(traj.reward[..., None] - rewards[None, None]), axis=-1)

    return credit.counterfactual(tabular.table_coefficients(hindsight, problem.logits, number))


@pytest.mark.parametrize("outcome", [by_states, by_rewards])
@pytest.mark.parametrize(
    ("on", "gamma"),
    [(arbitrary, GAMMA), (arbitrary, 1.0), (corridor, GAMMA)],
    ids=["arbitrary", "arbitrary, undiscounted", "corridor"],
)
def test_with_exact_coefficients_the_mean_is_the_gradient(
    outcome: Callable[..., Any], on: Callable[[], Problem], gamma: float
) -> None:
    """One hindsight distribution for all times suffices."""
    mean, covariance = moments(outcome(on(), gamma), on(), gamma)
    np.testing.assert_allclose(mean, gradient(on(), gamma), atol=1e-12)
    of_to_go = moments(ESTIMATORS["reward_to_go"], on(), gamma)[1]
    assert np.trace(covariance) < np.trace(of_to_go)


def states_of(traj: Trajectory) -> np.ndarray:
    return np.asarray(traj.obs).argmax(-1)


def estimates_with(w: np.ndarray) -> np.ndarray:
    """Σₜ γᵗ (∇log πₜ rₜ + Σₐ ∇π(a|sₜ) Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, sₖ) rₖ) of every trajectory, [M, S·A],
    by loops. w: [S, S', A].
    """
    each = summands()
    pi, states = np.asarray(jax.nn.softmax(arbitrary().logits)), states_of(each.traj)
    found = np.zeros((len(each.probability), S, A))
    for m in range(len(found)):
        for t in range(H):
            found[m] += GAMMA**t * each.reward[t, m] * each.score[t, m]
            s = states[t, m]
            for k in range(t + 1, H):
                q = w[s, states[k, m]]
                slope = pi[s] * (q - pi[s] @ q)
                found[m, s] += GAMMA**k * slope * each.reward[k, m]
    return found.reshape(len(found), -1)


def test_mean_and_variance_with_wrong_coefficients_are_those_of_the_formula() -> None:
    def coefficients(params: Any, traj: Trajectory, k: jax.Array) -> jax.Array:
        return jnp.einsum("tbs,bu,sua->tba", traj.obs, traj.obs[k], WRONG)

    mean, covariance = moments(credit.counterfactual(coefficients), arbitrary())
    probability, x = summands().probability, estimates_with(WRONG)
    np.testing.assert_allclose(mean, probability @ x, atol=1e-12)
    second = np.einsum("m,mp,mq->pq", probability, x, x)
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean), atol=1e-12)
    assert np.abs(mean - gradient(arbitrary())).max() > 1e-2


def test_moments_of_an_estimator_with_a_hindsight_network_are_those_of_its_coefficients() -> None:
    problem, row = arbitrary(), case("hindsight_credit")
    pi = np.asarray(jax.nn.softmax(problem.logits))[:, None]
    raised = pi * np.exp(problem.log_odds["state"])
    x = estimates_with(raised / raised.sum(-1, keepdims=True) / pi - 1.0)
    mean, covariance = row.moments()
    probability = summands().probability
    np.testing.assert_allclose(mean, probability @ x, atol=1e-12)
    second = np.einsum("m,mp,mq->pq", probability, x, x)
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean), atol=1e-12)


def pairs_by_loops(weight: np.ndarray, traj: Trajectory) -> np.ndarray:
    """Σ_{t<k} γᵏ 1[sₜ = s, sₖ = s', aₜ = a], of trajectories of these weights, [S, S', A]."""
    states, found = states_of(traj), np.zeros((S, S, A))
    for m, p in enumerate(weight):
        for k in range(int(np.asarray(traj.valid)[:, m].sum())):
            for t in range(k):
                action = np.asarray(traj.action)[t, m]
                found[states[t, m], states[k, m], action] += p * GAMMA**k
    return found


def test_hindsight_by_recursion_is_that_of_every_trajectory() -> None:
    found = tabular.hindsight_of_states(arbitrary().mdp, arbitrary().logits, GAMMA)
    pairs = pairs_by_loops(summands().probability, summands().traj)
    total = pairs.sum(-1, keepdims=True)
    np.testing.assert_allclose(found * total, pairs, atol=1e-14)
    assert (total > 0).any()
    # of a state that is never reached it is the policy
    never = ~(total[..., 0] > 0)
    policy = np.broadcast_to(jax.nn.softmax(arbitrary().logits)[:, None], found.shape)
    np.testing.assert_allclose(found[never], policy[never])


def return_coefficients(problem: Problem) -> Any:
    """w(sₜ, a, Gₜ), exactly, summed over every trajectory."""
    traj, probability = tabular.enumerate_trajectories(problem.mdp, jnp.asarray(problem.logits))
    to_go = np.zeros((H + 1, len(probability)))
    for t in reversed(range(H)):
        to_go[t] = np.asarray(traj.reward)[t] + GAMMA * to_go[t + 1]
    valid, states, actions = np.asarray(traj.valid), states_of(traj), np.asarray(traj.action)
    possible = np.unique(to_go[:H][valid].round(9))
    number = np.abs(to_go[:H, :, None] - possible).argmin(-1)
    pairs = np.zeros((S, len(possible), A))
    for t in range(H):
        weight = GAMMA**t * np.asarray(probability) * valid[t]
        np.add.at(pairs, (states[t], number[t], actions[t]), weight)
    total = pairs.sum(-1, keepdims=True)
    pi = np.asarray(jax.nn.softmax(problem.logits))[:, None, :]
    w = np.divide(pairs, total * pi, out=np.ones_like(pairs), where=total > 0) - 1.0

    def coefficients(params: Any, traj: Trajectory) -> jax.Array:
        to_go = pg.returns.reward_to_go(traj.reward, traj.done, GAMMA)
        return jnp.asarray(w)[
            traj.obs.argmax(-1), jnp.abs(to_go[..., None] - possible[None, None]).argmin(-1)
        ]

    return coefficients


def test_an_action_compared_by_its_return_asks_for_all_returns_to_be_possible() -> None:
    """In the corridor they are, whatever is done; where returns tell the action, the published form
    is the return times 1 - π, and only crediting every action is unbiased.
    """
    for problem in (corridor(), arbitrary()):
        coefficients = return_coefficients(problem)
        every = credit.return_hindsight(coefficients, every_action_credited=True)
        np.testing.assert_allclose(moments(every, problem)[0], gradient(problem), atol=1e-12)
    published = moments(credit.return_hindsight(return_coefficients(corridor())), corridor())[0]
    np.testing.assert_allclose(published, gradient(corridor()), atol=1e-12)
    published = moments(credit.return_hindsight(return_coefficients(arbitrary())), arbitrary())[0]
    each = summands()
    to_go = (discount() * each.reward)[::-1].cumsum(0)[::-1]
    missing = to_go * (1.0 - np.exp(each.traj.log_prob))
    mean = np.einsum("m,tm,tmsa->sa", each.probability, missing, each.score)
    np.testing.assert_allclose(published, mean.ravel(), atol=1e-12)
    assert np.abs(published - gradient(arbitrary())).max() > 1e-2


def test_states_that_tell_the_action_leave_reward_to_go_and_rewards_do_not() -> None:
    """On a tree whose branches pay the same (2306.16803, section 3)."""
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 3] = 1.0
    reward = np.array([[0.0, 0.0], [1.0, 3.0], [1.0, 3.0], [0.0, 0.0]])
    tree = tabular.TabularMDP(transition, reward, np.eye(4)[0], np.arange(4) == 3, 2)
    problem = references.arbitrary(tree)._replace(logits=np.array([[0.3, -0.2]] + 3 * [[0.4, 0.1]]))
    to_go = moments(ESTIMATORS["reward_to_go"], problem)
    of_states, of_rewards = (
        moments(by_states(problem), problem),
        moments(by_rewards(problem), problem),
    )
    for a, b in zip(of_states, to_go, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_allclose(of_rewards[0], to_go[0], atol=1e-12)
    assert to_go[1][0, 0] > 0.1
    np.testing.assert_allclose(of_rewards[1][:2], 0.0, atol=1e-12)  # of the root's logits


def table(f: Any) -> Network:
    """A hindsight network that is a table f(a|s, s'), [S, S', A]."""

    def apply(params: Any, carry: Any, pair: credit.Pair, first: Any) -> tuple[Any, jax.Array]:
        return carry, jnp.einsum("tbs,tbu,sua->tba", pair.obs, pair.outcome, params)

    return Network(lambda key: jnp.asarray(f), apply)


@functools.cache
def copied() -> tuple[Trajectory, np.ndarray]:
    """A batch in which each trajectory has a fixed share, and its number of each, [M]."""
    copies = np.ceil(20 * summands().probability).astype(int)
    numbers = np.repeat(np.arange(len(copies)), copies)
    return jax.tree.map(lambda x: jnp.asarray(x)[:, numbers], summands().traj), copies


def test_a_network_learns_the_hindsight_distribution_of_the_batch() -> None:
    """There the loss has no slope, and elsewhere it is that of the loops."""
    traj, copies = copied()
    pairs = pairs_by_loops(copies, summands().traj)
    log_pi = np.asarray(jax.nn.log_softmax(arbitrary().logits))
    exact = np.log(np.where(pairs > 0, pairs, 1.0)) - log_pi[:, None, :]

    def loss(f: jax.Array) -> jax.Array:
        log_h = jax.nn.log_softmax(log_pi[:, None, :] + f)
        return -jnp.sum(jnp.where(pairs > 0, pairs * log_h, 0.0)) / len(traj.valid[0])

    h = Hyperparams(gamma=GAMMA, value_coef=0.3)
    factory = credit.learned_counterfactual(table(np.zeros((S, S, A))))
    estimator, params = references.build(factory, arbitrary(), "none", h)

    def found(f: np.ndarray) -> tuple[np.ndarray, float, Any]:
        weighted, _ = estimator.weigh(params._replace(critic=jnp.asarray(f)), (), traj)
        grads, metrics = estimator.grad(params._replace(critic=jnp.asarray(f)), weighted)
        return np.asarray(grads.critic), float(metrics["hindsight_loss"]), weighted.psi

    always = (pairs > 0).all(-1, keepdims=True)  # both actions have been seen
    assert always.any()
    np.testing.assert_allclose(np.where(always, found(exact)[0], 0.0), 0.0, atol=1e-12)
    slope, per_pair, psi = found(WRONG)
    np.testing.assert_allclose(
        slope, 0.3 * np.asarray(jax.grad(loss)(jnp.asarray(WRONG))), atol=1e-12
    )
    np.testing.assert_allclose(per_pair, loss(WRONG) * len(traj.valid[0]) / pairs.sum())
    # the weights of actions are those of this h, less what all of them have in common
    logits = log_pi[:, None, :] + WRONG
    w = tabular.table_coefficients(jax.nn.softmax(logits), arbitrary().logits)
    known, params = references.build(credit.counterfactual(w), arbitrary(), "none", h)
    np.testing.assert_allclose(psi, known.weigh(params, (), traj)[0].psi, atol=1e-12)


@pytest.mark.parametrize("known", [True, False])
def test_what_is_after_the_end_does_not_matter(known: bool) -> None:
    """Further steps, and coefficients that are infinite there."""
    traj = summands().traj
    valid = np.asarray(traj.valid)
    longer = jax.tree.map(lambda x: np.concatenate([x, np.zeros_like(x)]), traj)
    longer = longer._replace(log_prob=np.where(longer.valid, longer.log_prob, -50.0))

    def coefficients(params: Any, traj: Trajectory, k: jax.Array) -> jax.Array:
        w = jnp.einsum("tbs,bu,sua->tba", traj.obs, traj.obs[k], WRONG)
        return jnp.where(traj.valid[k][None, :, None], w, jnp.inf)

    factory = credit.learned_counterfactual(table(WRONG))
    if known:
        factory = credit.counterfactual(coefficients)
    estimator, params = references.build(factory, arbitrary(), "none", Hyperparams(gamma=GAMMA))
    found = []
    for batch in (traj, longer):
        weighted, _ = estimator.weigh(params, (), jax.tree.map(jnp.asarray, batch))
        found.append(estimator.grad(params, weighted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *found)
    assert np.abs(found[0][0].policy).max() > 1e-2
    assert not valid.all()


@pytest.mark.slow
def test_a_policy_learns_with_a_network_of_its_own_hindsight() -> None:
    tabular.register("CreditCorridor", corridor().mdp)
    config = pg.Config(
        env="CreditCorridor",
        estimator=credit.learned_counterfactual(table(np.zeros((S, S, A)))),
        num_envs=32,
        num_updates=80,
        hidden_sizes=(),
        preset=None,
    )
    h = config.hyperparams(learning_rate=0.05)
    _, metrics = jax.jit(pg.make_train(config, h))(jax.random.key(0))
    assert metrics["return"][-10:].mean() > metrics["return"][:10].mean() + 0.2
    assert metrics["hindsight_loss"][-10:].mean() < metrics["hindsight_loss"][:10].mean()


def test_what_is_no_coefficient_is_refused() -> None:
    def of_one(trajectory: Any) -> Any:
        return trajectory.reward

    said = "coefficients must be a function of params, trajectory"
    for function in (credit.counterfactual, credit.return_hindsight):
        with pytest.raises(ValueError, match=said):
            function(of_one)  # type: ignore[arg-type]
    flat = credit.counterfactual(lambda params, traj, k: traj.reward)
    with pytest.raises(ValueError, match=r"one number for each action"):
        moments(flat, arbitrary())
    with pytest.raises(ValueError, match="it can have no recurrent state"):
        credit.learned_counterfactual(table(WRONG)._replace(carry=jnp.zeros(1)))
    with pytest.raises(ValueError, match="outcome must be a function of trajectory"):
        credit.learned_counterfactual(table(WRONG), lambda: 3)  # type: ignore[arg-type, misc]
    with pytest.raises(ValueError, match="hindsight must have shape"):
        tabular.table_coefficients(jnp.zeros((2, S, A)), arbitrary().logits)
