"""Estimators chosen while training: given the previous batches, the mean is ∇J over every batch;
and the errors by which they are chosen have the right means.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pg
from pg.baselines import MovingAverage
from pg.config import Config, Hyperparams
from pg.diagnostics import exact_moments, references
from pg.estimators import (
    ESTIMATORS,
    Estimator,
    Params,
    selected,
    with_gradient_control_variate,
    with_hyperparams,
)
from pg.estimators.candidates import facts_of_selection
from pg.estimators.facts import FACTS
from pg.estimators.names import candidate_names, facts_of
from pg.estimators.selection import SelectionState, errors
from pg.exact import tabular
from pg.rollout import Trajectory
from pg.train import make_chunk, make_learner, training_keys

pytestmark = pytest.mark.usefixtures("x64")
GAMMA, STEP = 0.8, 0.5
SETTINGS = Hyperparams(gamma=GAMMA)
MDP = tabular.TabularMDP(
    [[[0.25, 0.75], [0.75, 0.25]], [[0.5, 0.5], [0.25, 0.75]]],
    2.0 + np.random.default_rng(2).normal(size=(2, 2, 2)),
    [1.0, 0.0],
    [False, False],
    2,
)
PROBLEM = references.arbitrary(MDP)._replace(v=np.array([3.5, 2.0]))
UNBIASED = ("moving_average", "state_value")
BIASED = with_hyperparams("gae", gae_lambda=0.5)


def built(*candidates: Any, **settings: Any) -> tuple[Estimator, Params]:
    return references.build(selected(*candidates, **settings), PROBLEM, "V", SETTINGS)


def pairs(logits: jax.Array) -> tuple[Trajectory, jax.Array]:
    """Every batch of two episodes, leaves [M², T, 2, ...], and its probability, [M²]."""
    traj, p = tabular.enumerate_trajectories(MDP, logits)
    first, second = (x.ravel() for x in jnp.indices((len(p), len(p))))
    numbers = jnp.stack([first, second], axis=1)
    batches = jax.tree.map(lambda x: jnp.moveaxis(x[:, numbers], 1, 0), traj)
    return batches, p[first] * p[second]


def ascent(estimator: Estimator, params: Params, state: Any, batch: Trajectory) -> jax.Array:
    """The estimate of ∇J of a batch, [S, A]."""
    weighted, _ = estimator.weigh(params, state, batch)
    return -estimator.grad(params, weighted)[0].policy


def of_numbers(params: Params, numbers: list[int]) -> Trajectory:
    """The batch of these of all episodes, leaves [T, n, ...]."""
    traj, _ = tabular.enumerate_trajectories(MDP, params.policy)
    return jax.tree.map(lambda x: x[:, jnp.asarray(numbers)], traj)


def chosen(estimator: Estimator, params: Params, state: Any, batch: Trajectory) -> jax.Array:
    return estimator.weigh(params, state, batch)[0].extra.number[0, 0]


def test_given_any_first_batch_the_second_estimate_has_the_mean_of_the_gradient() -> None:
    """The mean over every second batch, for the policy and the critic after the first; the chosen
    candidate depends on the first batch.
    """
    estimator, params = built(*UNBIASED)
    start = estimator.init(jax.random.key(0))[1]
    batches, _ = pairs(params.policy)

    def after(batch: Trajectory) -> tuple[jax.Array, jax.Array, jax.Array]:
        weighted, state = estimator.weigh(params, start, batch)
        moved = jax.tree.map(lambda x, g: x - STEP * g, params, estimator.grad(params, weighted)[0])
        then, p = pairs(moved.policy)
        estimates = jax.vmap(lambda other: ascent(estimator, moved, state, other))(then)
        mean = jnp.tensordot(p, estimates, axes=1)
        first = jax.tree.map(lambda x: x[0], then)
        truth = tabular.exact_gradient(MDP, moved.policy, GAMMA)
        return mean, truth, chosen(estimator, moved, state, first)

    means, truth, numbers = jax.jit(lambda: jax.lax.map(after, batches, batch_size=32))()
    np.testing.assert_allclose(means, truth, rtol=0, atol=1e-12)
    assert np.ptp(truth, axis=0).max() > 0.1
    assert set(np.asarray(numbers).tolist()) == {0, 1}


def test_a_choice_by_the_batch_itself_is_biased() -> None:
    """The negative control: candidates that are chosen by what was measured on the batch are off by
    more than a fifth of the gradient's length (by how much depends on rounding, as both measure the
    same on pairs that differ in the last state alone).
    """
    estimator, params = built("reward_to_go", "state_value")
    start = estimator.init(jax.random.key(0))[1]
    batches, p = pairs(params.policy)

    def estimate(batch: Trajectory) -> jax.Array:
        measured = estimator.weigh(params, start, batch)[1]
        return ascent(estimator, params, measured._replace(candidates=start.candidates), batch)

    mean = np.tensordot(p, jax.jit(jax.vmap(estimate))(batches), axes=1)
    truth = np.asarray(tabular.exact_gradient(MDP, params.policy, GAMMA))
    off = np.linalg.norm(mean - truth) / np.linalg.norm(truth)
    assert off > 0.2


def test_the_means_of_what_is_measured_are_variance_and_squared_bias() -> None:
    """Halves of one episode, by the moments of one episode; their sum is the mean squared error of
    the whole batch.
    """
    candidates = ("reward_to_go", BIASED)
    estimator, params = built(*candidates)
    start = estimator.init(jax.random.key(0))[1]
    batches, p = pairs(params.policy)

    def measure(batch: Trajectory) -> tuple[jax.Array, jax.Array]:
        state = estimator.weigh(params, start, batch)[1]
        return tuple(
            jnp.stack([average.value() for average in averages])
            for averages in (state.variance, state.squared_bias)
        )

    variance, squared_bias = (np.asarray(p @ x) for x in jax.jit(jax.vmap(measure))(batches))
    truth = references.gradient(PROBLEM, SETTINGS).ravel()
    for k, candidate in enumerate(candidates):
        factory = ESTIMATORS[candidate] if isinstance(candidate, str) else candidate
        alone, own = references.build(factory, PROBLEM, "V", SETTINGS)
        mean, covariance = exact_moments(alone, own, MDP, PROBLEM.logits)
        bias = mean - truth
        assert variance[k] == pytest.approx(np.trace(covariance) / 2, abs=1e-12)
        assert squared_bias[k] == pytest.approx(bias @ bias, abs=1e-12)
        estimates = jax.vmap(functools.partial(ascent, alone, own, ()))(batches)
        error = np.asarray(p) @ np.sum(
            (np.asarray(estimates).reshape(-1, truth.size) - truth) ** 2, axis=1
        )
        assert variance[k] + squared_bias[k] == pytest.approx(error, abs=1e-12)
    assert squared_bias[1] > 0.01


def preferring(state: SelectionState, number: int) -> SelectionState:
    """The state in which this candidate has the smallest error."""
    variance = tuple(
        MovingAverage(jnp.asarray(float(k != number)), jnp.asarray(1.0))
        for k in range(len(state.variance))
    )
    return state._replace(variance=variance)


def test_the_gradient_is_that_of_the_chosen_candidate() -> None:
    """The gradient of policy and critic: one of its own, without a critic, and with one."""
    candidates = ("optimal_baseline", "leave_one_out", "state_value")
    estimator, params = built(*candidates)
    start = estimator.init(jax.random.key(0))[1]
    batch = of_numbers(params, [0, 5, 9, 12, 15])

    @jax.jit
    def given(state: SelectionState) -> tuple[Params, dict[str, jax.Array]]:
        return estimator.grad(params, estimator.weigh(params, state, batch)[0])

    of_critic = []
    for k, candidate in enumerate(candidates):
        alone, _ = references.build(ESTIMATORS[candidate], PROBLEM, "V", SETTINGS)
        expected = jax.jit(lambda e=alone: e.grad(params, e.weigh(params, (), batch)[0])[0])()
        gradient, metrics = given(preferring(start, k))
        np.testing.assert_allclose(gradient.policy, expected.policy, atol=1e-12)
        assert metrics["selected"] == k
        of_critic.append(gradient.critic)
    # beside a candidate that has no V it learns from the targets of the first that has one
    for ours in of_critic:
        np.testing.assert_allclose(ours, expected.critic, atol=1e-12)


def test_averages_are_of_each_periods_first_batch_and_of_finite_numbers() -> None:
    """A candidate whose error is not finite keeps its previous estimate; the others continue."""
    estimator, params = built("reward_to_go", "state_value", decay=0.5, period=2)
    alone, own = references.build(ESTIMATORS["reward_to_go"], PROBLEM, "none", SETTINGS)
    weigh, estimate = jax.jit(estimator.weigh), jax.jit(functools.partial(ascent, alone, own, ()))

    def variance(first: int, second: int) -> float:
        difference = estimate(of_numbers(own, [first])) - estimate(of_numbers(own, [second]))
        return float(jnp.sum(difference**2) / 4)

    states = [estimator.init(jax.random.key(0))[1]]
    assert np.isinf(errors(states[0])).all()
    broken = params._replace(critic=jnp.full_like(params.critic, jnp.inf))
    for numbers, given in (([0, 9], params), ([3, 14], params), ([3, 14], broken)):
        states.append(weigh(given, states[-1], of_numbers(params, numbers))[1])
    assert int(states[3].batches) == 3
    assert errors(states[1])[0] == pytest.approx(variance(0, 9), abs=1e-12)
    np.testing.assert_array_equal(errors(states[2]), errors(states[1]))
    expected = (variance(0, 9) / 2 + variance(3, 14)) / 1.5
    assert errors(states[3])[0] == pytest.approx(expected, abs=1e-12)
    assert states[3].variance[1] == states[1].variance[1]


REFUSED = {
    "at least two candidates": ("reinforce",),
    "two candidates are called 'reinforce'": ("reinforce", "reinforce"),
    "share their critic, and 'state_value' has V, 'all_action' Q": ("state_value", "all_action"),
    "share their extra rollouts, and 'vine_value' has branches": (
        "vine_value",
        "dynamics_control_variate",
    ),
    "no way of collecting that all of gpomdp, reinforce accept": ("gpomdp", "reinforce"),
    "candidate 'rloo' has a reference policy": ("reinforce", "rloo"),
    "none of the candidates gae, standardised is unbiased": ("gae", "standardised"),
    "unknown estimator 'leave_one_uot'": ("reinforce", "leave_one_uot"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_candidates_that_do_not_go_together_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selected(*REFUSED[message])


def test_a_batch_or_a_setting_that_will_not_do_is_refused() -> None:
    estimator, params = built("reinforce", "leave_one_out")
    state = estimator.init(jax.random.key(0))[1]
    with pytest.raises(ValueError, match="give num_envs=4 or more, got 3"):
        jax.eval_shape(estimator.weigh, params, state, of_numbers(params, [0, 5, 9]))
    with pytest.raises(ValueError, match="decay must be in"):
        selected("reinforce", "leave_one_out", decay=1.0)
    with pytest.raises(ValueError, match="period must be a whole number of at least 1"):
        selected("reinforce", "leave_one_out", period=0)
    with pytest.raises(ValueError, match=r"got one list: write selected\(\*candidates\)"):
        selected(["reinforce", "leave_one_out"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown reference 'gae'"):
        selected("reinforce", "leave_one_out", reference="gae")
    estimator, params = built("lookahead_control_variate", "state_value")
    traj, _ = tabular.enumerate_trajectories(MDP, params.policy, estimator.extra_rollouts)
    with pytest.raises(ValueError, match="others one for every action"):
        jax.eval_shape(estimator.weigh, params, estimator.init(jax.random.key(0))[1], traj)
    numbers = [with_gradient_control_variate("reward_to_go", num_starts=n) for n in (2, 3)]
    numbers[1].__name__ = "other"
    with pytest.raises(ValueError, match="initial states, 2 and 3: give all the same"):
        built(*numbers)
    assert built("reward_to_go", numbers[0])[0].extra_rollouts.starts == 2
    with pytest.raises(ValueError, match="'learning_rate'"):
        with_hyperparams("gae", learning_rate=0.1)
    with pytest.raises(ValueError, match="gae_lambda must be"):
        with_hyperparams("gae", gae_lambda=2.0)
    with pytest.raises(ValueError, match="no hyperparameter is given"):
        with_hyperparams("gae")


def test_a_hyperparameter_without_effect_is_refused() -> None:
    """Listed estimators, switches, and combinations; a custom one states no facts, and none is
    refused.
    """
    for estimator in (
        "leave_one_out",
        "sequence:ratio=token",
        with_hyperparams("ppo", epsilon=0.1),
    ):
        with pytest.raises(ValueError, match=r"n_step has no effect: nothing in estimator '"):
            with_hyperparams(estimator, n_step=3)
    with pytest.raises(ValueError, match=r"gate_rising, gate_falling have no effect.* on epsilon$"):
        with_hyperparams("grpo", gate_rising=1.0, gate_falling=1.0)
    with pytest.raises(ValueError, match=r"it depends on none$"):
        with_hyperparams("leave_one_out", gae_lambda=0.9)
    with_hyperparams(with_gradient_control_variate("state_value"), baseline_decay=0.5)

    def own(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        return ESTIMATORS["gae"](policy, critic, h)

    with_hyperparams(own, gae_lambda=0.9)


def test_one_of_a_users_own_without_a_critic_is_a_candidate() -> None:
    """Nothing is stated of its critic, and it has none."""

    @pg.with_facts(unbiased_for="J", collect=("episodes",))
    def own(policy: pg.Network, critic: pg.Network, h: Hyperparams) -> pg.estimators.Estimator:
        def weigh(params: Any, state: Any, traj: Trajectory) -> Any:
            return pg.returns.total_return(traj.reward, h.gamma)[None], (), state

        return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))

    config = Config(env=MDP, estimator=selected("leave_one_out", own), num_envs=4, num_updates=1)
    state, _ = jax.eval_shape(pg.make_train(config), jax.random.key(0))
    assert jax.tree.leaves(state.params.critic) == []


def test_each_candidate_keeps_its_state_whichever_is_chosen() -> None:
    estimator, params = built("reinforce", "moving_average")
    alone, own = references.build(ESTIMATORS["moving_average"], PROBLEM, "none", SETTINGS)
    batch = of_numbers(params, [0, 9])
    expected = alone.weigh(own, alone.init(jax.random.key(0))[1], batch)[1]
    after = jax.jit(estimator.weigh)(params, estimator.init(jax.random.key(0))[1], batch)[1]
    assert after.candidates[1].total == expected.total != 0


@pytest.mark.slow
def test_each_seed_chooses_for_itself_and_goes_on_bit_for_bit() -> None:
    """Mapped over seeds in one trace, seeds choose different candidates; a run in two chunks is the
    one scan.
    """
    estimator = selected("time_baseline", "state_value", "reinforce", decay=0.5, period=2)
    config = Config(
        env=MDP, estimator=estimator, num_envs=8, num_updates=12, hidden_sizes=(), preset=None
    )
    train = chex.assert_max_traces(pg.make_train(config), n=1)
    keys = jax.random.split(jax.random.key(1), 3)
    metrics = jax.jit(jax.vmap(train, (0, None)))(keys, SETTINGS)[1]
    assert np.isnan(metrics["error_reinforce"][:, 0]).all()
    assert (np.ptp(metrics["selected"], axis=0) > 0).any()
    names = ("time_baseline", "state_value", "reinforce")
    before = np.stack([metrics[f"error_{name}"] for name in names], axis=-1)
    np.testing.assert_array_equal(metrics["selected"][:, 1:], before[:, 1:].argmin(-1))
    init_key, update_keys = training_keys(keys[0], 0, 12)
    chunk, init = jax.jit(make_chunk(config)), jax.jit(make_learner(config, SETTINGS).init)
    whole = chunk(init(init_key), update_keys, SETTINGS, 12)[0]
    half = chunk(init(init_key), update_keys, SETTINGS, 5)[0]
    other = chunk(half, jnp.roll(update_keys, -5), SETTINGS, 7)[0]
    jax.tree.map(np.testing.assert_array_equal, whole, other)


def test_facts_are_of_all_candidates() -> None:
    assert facts_of(selected(*UNBIASED)).unbiased_for == "J"
    assert facts_of(selected(*UNBIASED)).critic == "V"
    shrunk = facts_of(selected("leave_one_out", "batch_mean"))
    assert (shrunk.unbiased_for, shrunk.parallel) == ("no", True)
    rows = dict.fromkeys(("one", "other"), FACTS["batch_mean"])
    assert facts_of_selection(rows).parallel
    lambdas = [with_hyperparams("gae", gae_lambda=x) for x in (0.9, 1.0)]
    of_gae = facts_of(selected(*lambdas, reference="gae_lambda_1.0"))
    assert of_gae.collect == ("episodes", "windows")
    in_order = candidate_names(selected(*lambdas[::-1], reference="gae_lambda_1.0"))
    assert in_order == ("gae_lambda_1.0", "gae_lambda_0.9")
    assert candidate_names("selected:gae:1.0+0.9") == in_order
    assert of_gae.settings == FACTS["gae"].settings
    mixed = facts_of(selected("state_value", "gae"))
    assert mixed.collect == ("episodes",)
    assert not mixed.parallel
