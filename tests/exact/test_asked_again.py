"""Extra transitions from the states of a batch: their distribution, their cost, and the variance
that they remove, exactly.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from proofs import GAMMA, A, H, S, arbitrary, exact_critics

import pg
from pg import envs, networks
from pg.config import Config, Hyperparams, part_name
from pg.diagnostics import exact_moments, references
from pg.estimators import ESTIMATORS, with_dynamics_control_variate
from pg.estimators.facts import FACTS, estimators_with
from pg.exact import tabular
from pg.extra_rollouts import ExtraRollouts
from pg.rollout import episodes
from pg.train import make_learner, training_keys

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)
SETTINGS = Hyperparams(gamma=GAMMA)
BOTH = ExtraRollouts(successors=True, lookahead=True)


def variance(name: str, critic: str, problem: references.Problem, num_branches: int = 1) -> float:
    """tr Cov of one episode's estimate."""
    estimator, params = references.build(
        ESTIMATORS[name], problem, critic, Hyperparams(gamma=GAMMA)
    )
    found = exact_moments(estimator, params, problem.mdp, problem.logits, num_branches=num_branches)
    return float(np.trace(found[1]))


def test_every_trajectory_with_its_extra_transitions_has_the_law_of_the_environment() -> None:
    """The chance of each successor, of the episode's own and of the extra ones, is P(s'|s, a);
    and every random number chooses for all actions at once.
    """
    p = arbitrary()
    traj, probability = tabular.enumerate_trajectories(p.mdp, p.logits, BOTH)
    assert probability.sum() == pytest.approx(1.0, abs=1e-12)
    state, action = np.asarray(traj.obs[0].argmax(-1)), np.asarray(traj.action[0])
    drawn = {  # the successor, and the action that it follows
        "own": (traj.next_obs, action),
        "again": (traj.successors.next_obs[:, :, 0], action),
        "tried": (traj.lookahead.next_obs[:, :, 1, 0], np.ones_like(action)),
    }
    for name, (next_obs, taken) in drawn.items():
        after = np.asarray(next_obs[0].argmax(-1))
        for s, a in itertools.product(range(S), set(taken.tolist())):
            at = (state == s) & (taken == a)
            share = [probability[at & (after == x)].sum() for x in range(S)]
            expected = probability[at].sum() * p.mdp.transition[s, a]
            np.testing.assert_allclose(share, expected, atol=1e-12, err_msg=name)
    own = jnp.take_along_axis(
        traj.lookahead.next_obs[:, :, :, 0], traj.action[..., None, None], axis=2
    )[:, :, 0]
    np.testing.assert_array_equal(
        np.where(traj.valid[..., None], own, 0), np.where(traj.valid[..., None], traj.next_obs, 0)
    )


def test_a_rollout_asks_the_environment_again() -> None:
    p = arbitrary()
    env, policy = envs.make_env(p.mdp, 4000), tabular.table_policy(jnp.asarray(p.logits))
    logits = jnp.asarray(p.logits)
    plain = jax.jit(lambda: episodes(env, policy, logits, KEY))()
    traj = jax.jit(
        lambda: episodes(env, policy, logits, KEY, extra_rollouts=BOTH, num_branches=2)
    )()
    jax.tree.map(np.testing.assert_array_equal, plain, traj.without_extra_rollouts)
    valid = np.asarray(traj.valid)
    # the first draw of the action that was taken is the episode's own
    taken = np.take_along_axis(
        np.asarray(traj.lookahead.reward[..., 0]), np.asarray(traj.action)[..., None], 2
    )[..., 0]
    np.testing.assert_array_equal(np.where(valid, taken, 0.0), traj.reward)
    done = np.take_along_axis(
        np.asarray(traj.lookahead.done[..., 0]), np.asarray(traj.action)[..., None], 2
    )[..., 0]
    np.testing.assert_array_equal(valid & done, traj.done)
    # the others are drawn on their own: given state and action, they do not follow the episode's
    state, action = np.asarray(traj.obs[0].argmax(-1)), np.asarray(traj.action[0])
    own, again = (
        np.where(done, S, next_obs.argmax(-1))
        for done, next_obs in (
            (traj.done[0], traj.next_obs[0]),
            (traj.successors.done[0, :, 0], traj.successors.next_obs[0, :, 0]),
        )
    )
    going_on = np.where(p.mdp.terminal, 0.0, p.mdp.transition)
    agree = (going_on**2).sum(-1) + (1.0 - going_on.sum(-1)) ** 2  # of two independent draws
    difference = (own == again) - agree[state, action]
    assert np.abs(difference.mean()) < 4.0 * difference.std() / np.sqrt(len(difference))
    # each step is paid for: M again, and M of each action but the one that was there already
    np.testing.assert_array_equal(traj.successors.env_steps, 2 * valid)
    np.testing.assert_array_equal(traj.lookahead.env_steps, (2 * A - 1) * valid)
    assert traj.all_env_steps.sum() == (1 + 2 + 2 * A - 1) * valid.sum()


def test_nothing_follows_the_time_limit_whichever_way_it_is_reached() -> None:
    p = arbitrary()
    env, policy = envs.make_env(p.mdp, 50), tabular.table_policy(jnp.asarray(p.logits))
    traj = episodes(env, policy, jnp.asarray(p.logits), KEY, H - 1, extra_rollouts=BOTH)
    last = np.asarray(traj.valid[-1])
    assert last.sum() > 10
    assert np.asarray(traj.successors.done[-1])[last].all()
    assert np.asarray(traj.lookahead.done[-1])[last].all()
    assert not np.asarray(traj.successors.done[0]).all()


def noise_of_the_dynamics(problem: references.Problem) -> float:
    """tr of the covariance that the transitions add where V is exact: Σₖ γ²ᵏ Σₐ‖Σ_{t≤k} zₜ‖²
    Var(r + γ V(s')), path by path.
    """
    mdp, v = problem.mdp, problem.v
    traj, probability = tabular.enumerate_trajectories(mdp, problem.logits)
    pi = np.asarray(jax.nn.softmax(problem.logits))
    total, H_long = 0.0, len(traj.reward)
    for m, p in enumerate(np.asarray(probability)):
        score = np.zeros(problem.logits.shape)
        for k in range(H_long):
            if not traj.valid[k, m]:
                break
            s, a = int(traj.obs[k, m].argmax()), int(traj.action[k, m])
            score[s] += np.eye(pi.shape[1])[a] - pi[s]
            over = mdp.terminal | (k == H_long - 1)
            x = mdp.reward[s, a] + GAMMA * np.where(over, 0.0, v)
            mean = mdp.transition[s, a] @ x
            spread = mdp.transition[s, a] @ (x - mean) ** 2
            total += p * GAMMA ** (2 * k) * (score**2).sum() * spread
    return total


@pytest.mark.slow
def test_of_the_dynamics_one_part_in_m_plus_1_is_left() -> None:
    problem = exact_critics()
    plain = variance("state_value", "V", problem)
    noise = noise_of_the_dynamics(problem)
    assert noise > 0.1 * plain
    for m in (1, 2):
        left = variance("dynamics_control_variate", "V", problem, m)
        assert left == pytest.approx(plain - noise * m / (m + 1), abs=1e-12)


def test_a_lookahead_leaves_the_states_alone_where_v_is_exact_and_only_actions_are_drawn() -> None:
    """The estimate is then that of every action by its value, trajectory by trajectory."""
    mdp = tabular.garnet(3, S, A, branching=1, horizon=H)
    problem = references.with_exact_critics(references.arbitrary(mdp), GAMMA)
    found = {}
    for name, critic in (("all_action", "Q"), ("lookahead_control_variate", "V")):
        estimator, params = references.build(
            ESTIMATORS[name], problem, critic, Hyperparams(gamma=GAMMA)
        )
        found[name] = exact_moments(estimator, params, problem.mdp, problem.logits)
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_more_draws_of_a_lookahead_leave_less_of_the_dynamics() -> None:
    name, problem = "lookahead_control_variate", exact_critics()
    assert variance(name, "V", problem, 2) < 0.9 * variance(name, "V", problem)


@pytest.mark.slow
def test_an_episode_that_ends_in_no_number_is_compared_with_numbers() -> None:
    """Observations after an end may be anything, also at the end of extra transitions."""
    nowhere = np.eye(3)
    nowhere[2] = np.nan
    chain = tabular.chain(3, 4, slip=0.3)
    mdp = tabular.TabularMDP(
        chain.transition, chain.reward, chain.initial, chain.terminal, 4, features=nowhere
    )
    env = envs.make_env(mdp, 16)
    policy = tabular.table_policy(jnp.zeros((3, 2)))
    for name in ("dynamics_control_variate", "lookahead_control_variate"):
        critic = tabular.table_critic(jnp.asarray([1.0, 2.0, 3.0]))
        estimator = ESTIMATORS[name](policy, critic, Hyperparams(gamma=GAMMA))
        params, state = estimator.init(KEY)
        traj = episodes(env, policy, params.policy, KEY, extra_rollouts=estimator.extra_rollouts)
        grads, _ = estimator.grad(params, estimator.weigh(params, state, traj)[0])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_what_cannot_be_asked_is_refused() -> None:
    pendulum = envs.make_env("Pendulum-v1", 2)
    policy = networks.make_policy(Config(env="Pendulum-v1"), pendulum)
    params = policy.init(KEY)
    with pytest.raises(ValueError, match="tries every action, and needs discrete ones"):
        episodes(pendulum, policy, params, KEY, extra_rollouts=ExtraRollouts(lookahead=True))
    p = arbitrary()
    estimator, params = references.build(
        ESTIMATORS["lookahead_control_variate"], p, "V", Hyperparams(gamma=GAMMA)
    )
    traj, _ = tabular.enumerate_trajectories(p.mdp, p.logits)
    with pytest.raises(ValueError, match="no extra transitions to compare with"):
        estimator.weigh(params, (), traj)


@pytest.mark.slow
def test_training_counts_every_step() -> None:
    config, h = pg.preset("lookahead_control_variate", num_envs=4, num_updates=2, num_branches=2)
    _, metrics = jax.jit(pg.make_train(config, h))(KEY)
    # CartPole has two actions: three extra steps of each
    np.testing.assert_allclose(metrics["env_steps"], 4 * 4 * metrics["length"])


FAST = ("leave_one_out", "reward_to_go", "per_decision_importance")
COMPOSABLE = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in estimators_with(unbiased_for="J")
    if FACTS[name].critic != "Q" and FACTS[name].extra_rollout_kind == "none"
]


@pytest.mark.parametrize("name", COMPOSABLE)
def test_it_goes_with_every_baseline(name: str) -> None:
    """The mean stays ∇J for a V that is wrong."""
    p = arbitrary()._replace(mdp=tabular.garnet(0, S, A, branching=2, horizon=2))
    facts = FACTS[name]
    in_batch = facts.baseline in ("batch", "group")
    estimator, params = references.build(
        with_dynamics_control_variate(name), p, "V", Hyperparams(gamma=GAMMA)
    )
    # any other number would do: it is what V says of every state
    params = params._replace(critic=jnp.asarray(p.v))
    mean, _ = exact_moments(
        estimator,
        params,
        p.mdp,
        p.behaviour if facts.off_policy else p.logits,
        2 if in_batch else 1,
        share_start=facts.baseline == "group",
    )
    np.testing.assert_allclose(mean, references.gradient(p, SETTINGS).ravel(), atol=1e-12)


def test_it_removes_of_any_estimator_what_it_removes_of_state_value() -> None:
    problem, found = exact_critics(), {}
    for name in ("reward_to_go", with_dynamics_control_variate("reward_to_go")):
        factory = ESTIMATORS[name] if isinstance(name, str) else name
        estimator, params = references.build(factory, problem, "V", SETTINGS)
        if not isinstance(name, str):
            params = params._replace(critic=jnp.asarray(problem.v))
        found[part_name(name)] = np.trace(
            exact_moments(estimator, params, problem.mdp, problem.logits)[1]
        )
    plain, calm = found.values()
    assert plain - calm == pytest.approx(noise_of_the_dynamics(problem) / 2, abs=1e-12)


@pytest.mark.slow
def test_its_critic_learns_and_its_preset_trains() -> None:
    estimator = with_dynamics_control_variate("leave_one_out")
    config = pg.Config(env="Catch-bsuite", estimator=estimator, num_envs=8, num_updates=3)
    state, metrics = jax.jit(pg.make_train(config))(KEY)
    assert np.isfinite(metrics["value_loss"]).all()
    start = make_learner(config, config.hyperparams()).init(training_keys(KEY, 0, 3)[0])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, start.params)
    assert min(jax.tree.leaves(moved.critic)) > 0
    np.testing.assert_allclose(metrics["env_steps"], 2 * 8 * metrics["length"])


def test_what_it_is_not_added_to_is_refused() -> None:
    with pytest.raises(ValueError, match="has a critic of actions"):
        with_dynamics_control_variate("all_action")
    with pytest.raises(ValueError, match="has extra rollouts of its own"):
        with_dynamics_control_variate("vine_value")
    with pytest.raises(ValueError, match="is for windows"):
        with_dynamics_control_variate("gpomdp")
