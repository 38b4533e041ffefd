"""Episodes from visited states: where they begin, when they end, their cost, and which random
numbers they share.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pg import ExtraRollouts, branch_rollouts, diagnostics, normalisation
from pg.branches import Branching, first_actions
from pg.config import Config, Hyperparams
from pg.distributions import Categorical, Gaussian, TanhGaussian
from pg.envs import make_env
from pg.estimators import ESTIMATORS
from pg.estimators.branching import measure_valued_with
from pg.exact import tabular
from pg.rollout import Trajectory, episodes
from pg.train import make_learner

KEY = jax.random.key(0)
S, A, H = 4, 2, 6


def collected(
    branching: Branching,
    mdp: tabular.TabularMDP,
    num_envs: int = 16,
    num_branches: int = 2,
    **settings: Any,
) -> Trajectory:
    env, policy = make_env(mdp, num_envs), tabular.table_policy(jnp.zeros((mdp.num_states, A)))
    params = jnp.zeros((mdp.num_states, A))
    extra_rollouts = ExtraRollouts(branches=branching)

    @jax.jit
    def collect(key: jax.Array) -> Trajectory:
        return episodes(
            env,
            policy,
            params,
            key,
            extra_rollouts=extra_rollouts,
            num_branches=num_branches,
            **settings,
        )

    return collect(KEY)


def endless(reward: float = 1.0) -> tabular.TabularMDP:
    """Random states, whatever the action, and the same reward at each step until the time limit."""
    transition = np.full((S, A, S), 1 / S)
    return tabular.TabularMDP(
        transition, np.full((S, A), reward), np.full(S, 1 / S), np.zeros(S, bool), H
    )


def noisy() -> tabular.TabularMDP:
    """A reward that depends on the successor, which is drawn whatever the action."""
    transition = np.full((S, A, S), 1 / S)
    reward = np.broadcast_to(np.arange(S) ** 2.0, (S, A, S))
    return tabular.TabularMDP(transition, reward, np.full(S, 1 / S), np.zeros(S, bool), H)


def test_a_branch_ends_at_the_time_limit_of_its_episode_and_each_step_is_counted() -> None:
    horizon = H - 2  # before the environment's own limit
    gamma, left = 0.9, horizon - np.arange(horizon)
    traj = collected(Branching("every_action", gamma), endless(), horizon=horizon)
    found = traj.branches
    assert found.reward_to_go.shape == (horizon, 16, 2, A)
    expected = (1 - gamma**left) / (1 - gamma)
    expected = np.broadcast_to(expected[:, None, None, None], found.reward_to_go.shape)
    np.testing.assert_allclose(found.reward_to_go, expected, rtol=1e-5)
    np.testing.assert_allclose(found.log_prob_to_go, np.log(0.5) * expected, rtol=1e-5)
    np.testing.assert_array_equal(
        found.env_steps, np.broadcast_to(4 * left[:, None], (horizon, 16))
    )
    assert traj.all_env_steps.sum() == 16 * (horizon + 4 * left.sum())
    np.testing.assert_array_equal(found.action[0, 0], [[0, 1], [0, 1]])


def test_nothing_leaves_an_episode_that_has_ended() -> None:
    traj = collected(Branching(), tabular.chain(S, H, slip=0.3))
    ended = ~np.asarray(traj.valid)
    assert 0.1 < ended.mean() < 0.9
    for leaf in jax.tree.leaves(traj.branches):
        assert not np.asarray(leaf)[ended].any()
    assert np.asarray(traj.branches.env_steps)[~ended].all()


def test_the_episodes_are_those_without_branches() -> None:
    mdp = tabular.chain(S, H, slip=0.3)
    traj, env = collected(Branching(), mdp), make_env(mdp, 16)
    params = jnp.zeros((S, A))
    plain = jax.jit(lambda: episodes(env, tabular.table_policy(params), params, KEY))()
    jax.tree.map(np.testing.assert_array_equal, plain, traj.without_extra_rollouts)


def differing(x: jax.Array, axis: int) -> float:
    """The share of neighbours along an axis that differ."""
    return float((jnp.diff(x, axis=axis) != 0).mean())


@pytest.mark.parametrize("at_once", [1, pytest.param(10**6, marks=pytest.mark.slow)])
def test_random_numbers_are_shared_by_the_actions_of_one_repetition_alone(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By no other state, episode or repetition, however many are rolled out at once."""
    monkeypatch.setattr(branch_rollouts, "BRANCHES_AT_ONCE", at_once)
    for common in (True, False):
        branching = Branching("every_action", common_numbers=common)
        traj = collected(branching, noisy(), num_envs=32)
        later = traj.branches.reward_to_go[: H - 2]
        # one step left less than at the state before, by another random number
        of_first = later[:, :, :, 0]
        assert differing(later, 3) == 0 if common else differing(later, 3) > 0.7
        assert min(differing(of_first, axis) for axis in (0, 1, 2)) > 0.7
        own = jnp.cumsum(traj.reward[::-1], axis=0)[::-1][: H - 2]
        assert float((of_first[..., 0] != own).mean()) > 0.7
        assert np.corrcoef(np.ravel(of_first[0, :, 0]), np.ravel(own[0]))[0, 1] < 0.6


@pytest.mark.slow
def test_every_second_state_stands_for_two() -> None:
    whole = collected(Branching(), endless(), num_envs=400)
    traj = collected(Branching(), endless(), num_envs=400, branch_every=2)
    stands_for = np.asarray(traj.branches.stands_for)
    assert set(np.unique(stands_for)) == {0.0, 2.0}
    assert (stands_for.sum(0) == H).all()
    assert (stands_for[1:] != stands_for[:-1]).all()
    assert 0.4 < (stands_for[0] > 0).mean() < 0.6
    chosen = stands_for > 0
    np.testing.assert_allclose(
        traj.branches.reward_to_go[chosen], whole.branches.reward_to_go[chosen]
    )
    assert not np.asarray(traj.branches.reward_to_go)[~chosen].any()
    assert (np.asarray(traj.branches.env_steps) > 0).sum() == chosen.sum()


@pytest.mark.slow
def test_returns_are_on_the_scale_of_the_rewards() -> None:
    config = Config(scale_rewards=True, num_envs=16, preset=None)
    traj = collected(Branching(gamma=0.0), tabular.chain(S, H, slip=0.3))
    statistics = normalisation.start(config, S)
    statistics = normalisation.observe(statistics, traj, jnp.float32(1.0))
    scaled = normalisation.scaled(traj, statistics)
    paid = np.asarray(traj.reward) != 0
    scale = np.unique(np.asarray(scaled.reward / traj.reward)[paid].round(4))
    assert scale.size == 1
    assert scale[0] != 1
    np.testing.assert_allclose(
        scaled.branches.reward_to_go, scale[0] * traj.branches.reward_to_go, rtol=1e-3
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("common", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_variance_of_the_rollout_is_the_exact_one(common: bool) -> None:
    """Branches with random numbers that others have would add another variance."""
    mdp = tabular.chain(3, 4, slip=0.4)
    logits = jnp.asarray([[0.3, 0.0], [0.0, 0.5], [0.0, 0.0]])
    policy, h = tabular.table_policy(logits), Hyperparams(gamma=0.9)
    estimator = measure_valued_with(policy, policy, h, common_numbers=common)
    params = estimator.init(KEY)[0]._replace(policy=logits)
    mean, covariance = diagnostics.exact_moments(estimator, params, mdp, logits, num_branches=2)
    env = make_env(mdp, 20_000)

    @jax.jit
    def estimates(key: jax.Array) -> jax.Array:
        traj = episodes(
            env, policy, logits, key, extra_rollouts=estimator.extra_rollouts, num_branches=2
        )
        weighted = estimator.weigh(params, (), traj)[0]

        def alone(episode: Any) -> jax.Array:
            episode = jax.tree.map(lambda x: x[:, None], episode)
            return -ravel_pytree(estimator.grad(params, episode)[0].policy)[0]

        return jax.vmap(alone, in_axes=1)(weighted)

    x = np.asarray(estimates(KEY))
    squares = ((x - mean) ** 2).sum(1)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - np.trace(covariance)) < 5 * error
    assert np.trace(covariance) > 10 * error


@pytest.mark.usefixtures("x64")
def test_pairs_of_gaussian_actions_have_the_derivative_of_the_mean() -> None:
    """∂/∂mean and ∂/∂log σ of E[f(a)], f = a₀³ + a₀ a₁², in closed form."""
    mean, std = np.array([0.4, -0.7]), np.array([0.5, 1.3])
    number = 200_000
    dist = Gaussian(jnp.asarray(mean)[None], jnp.log(jnp.asarray(std)))
    found = first_actions("pairs", dist, KEY, number)
    assert found.action.shape == (1, number, 8, 2)
    a = np.asarray(found.action[0])
    signed = np.asarray(found.constant[0]) * (a[..., 0] ** 3 + a[..., 0] * a[..., 1] ** 2)
    each = signed.reshape(number, 4, 2).sum(-1)
    (m0, m1), (s0, s1) = mean, std
    expected = [
        3 * (m0**2 + s0**2) + m1**2 + s1**2,  # in the first mean
        2 * m0 * m1,
        6 * m0 * s0**2,  # in the first log σ
        2 * m0 * s1**2,
    ]
    error = each.std(0) / np.sqrt(number)
    assert (np.abs(each.mean(0) - expected) < 5 * error).all()
    # the density of a⁺ is that of a⁻ mirrored, or wider: both have the variance of theirs
    of_std = a.reshape(number, 2, 2, 2, 2)[:, 1, 0, :, 0]
    np.testing.assert_allclose(of_std.var(0), [3 * s0**2, s0**2], rtol=0.02)
    squashed = TanhGaussian(dist.mean, dist.log_std, jnp.zeros((1, 2)), jnp.ones((1, 2)))
    np.testing.assert_array_equal(first_actions("pairs", squashed, KEY, 3).action, a[None, :3])


def test_pairs_of_discrete_actions_differ_and_are_legal() -> None:
    logits = jnp.asarray([[0.0, 1.0, -jnp.inf, 2.0], [5.0, -jnp.inf, -jnp.inf, -jnp.inf]])
    found = first_actions("pairs", Categorical(logits), KEY, 500)
    first, certain = np.asarray(found.action)
    assert (first[:, 0] != first[:, 1]).all()
    assert set(np.unique(first)) == {0, 1, 3}
    assert not certain.any()  # of one action there is no other
    assert not np.asarray(found.constant[1]).any()
    p = np.asarray(jax.nn.softmax(logits[0]))
    np.testing.assert_allclose(found.constant[0, :, 0], 0.5 * (1 - (p**2).sum()), rtol=1e-5)
    # also where 1 - π is rounded to 0: a pair is still drawn, of the right weight
    peaked = first_actions("pairs", Categorical(jnp.asarray([[60.0, 0.0, 0.0]])), KEY, 5)
    assert (np.asarray(peaked.action[0, :, 0]) != np.asarray(peaked.action[0, :, 1])).all()
    weight = np.exp(-60.0) * 2  # ½ Σ π (1 - π), of which half is the first action's
    np.testing.assert_allclose(peaked.constant[0, :, 0], weight, rtol=1e-5)
    every = first_actions("every_action", Categorical(logits), KEY, 1).action
    np.testing.assert_array_equal(every[:, 0], [[0, 1, 3, 3], [0, 0, 0, 0]])


def settings(estimator: str, **fields: Any) -> Config:
    sizes = {"num_envs": 2, "num_updates": 2, "horizon": 5, "hidden_sizes": (4,)}
    return Config(estimator=estimator, **{**sizes, "num_branches": 2, **fields}, preset=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"estimator": "vine_all_action", "env": "Pendulum-v1"}, "tries every action"),
        ({"estimator": "vine_advantage", "branch_every": 2}, "branch_every must be 1, got 2"),
    ],
)
def test_what_cannot_be_is_one_sentence(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_learner(settings(**fields))


def test_a_batch_without_branches_is_one_sentence() -> None:
    policy = tabular.table_policy(jnp.zeros((S, A)))
    estimator = ESTIMATORS["vine_value"](policy, policy, Hyperparams())
    traj, _ = tabular.enumerate_trajectories(tabular.chain(S, 2), jnp.zeros((S, A)))
    with pytest.raises(ValueError, match="no extra episodes from the visited states: collect with"):
        estimator.weigh(estimator.init(KEY)[0], (), traj)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"estimator": "vine_value", "env": "Pendulum-v1", "rnn": "gru", "branch_every": 2},
        {"estimator": "measure_valued", "env": "Pendulum-v1"},
        {"estimator": "measure_valued", "env": "Pendulum-v1", "action_distribution": "squashed"},
        {"estimator": "vine_action_value", "env": "Pendulum-v1", "scale_rewards": True},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_a_policy_of_each_kind_moves(fields: dict[str, Any]) -> None:
    config = settings(**fields)
    learner = make_learner(config)
    state = jax.jit(learner.init)(KEY)
    after, metrics = jax.jit(learner.step)(state, KEY)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    assert any(jax.tree.leaves(moved.policy))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
    assert float(metrics["env_steps"]) > 2 * 2 * 5
