"""The real rollout and the real estimators, sampled: within standard errors of the exact mean; and
known bugs of other codebases, planted one by one: far outside.

800,000 episodes of a small MDP with fixed keys, in batches of four, or of two where that is what
the exact mean is known for. 5.7 standard errors is the bound for a family of 100 checks to raise
one false alarm in a million draws of the keys.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import expand, tabular_policy
from proofs import (
    CASES,
    GAMMA,
    A,
    Case,
    H,
    S,
    arbitrary,
    corridor,
    exact_critics,
    exact_hindsight,
    gradient,
    undiscounted,
)

from pg import diagnostics, envs, returns
from pg.estimators import Params, Weighted
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.extra_rollouts import ExtraRollouts
from pg.rollout import NO_EXTRA_ROLLOUTS, Trajectory, episodes, start, windows

pytestmark = pytest.mark.usefixtures("x64")
EPISODES = 800_000
BOUND, FAR = 5.7, 20.0
Change = Callable[[Trajectory], Trajectory]
Reweigh = Callable[[Weighted], Weighted]


@functools.lru_cache(maxsize=8)  # of all of them the memory would be several GiB
def sampled(
    problem: Callable,
    on_policy: bool,
    group_size: int,
    way: str,
    extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS,
    num_branches: int = 1,
) -> Trajectory:
    """Leaves [H, EPISODES, ...], through the same code as in training."""
    mdp, logits = problem().mdp, jnp.asarray(problem().logits if on_policy else problem().behaviour)
    # with rollouts out of each state, whose cost and memory are several times those, fewer
    asked = extra_rollouts.branches or extra_rollouts.successors or extra_rollouts.lookahead
    number = EPISODES // 8 if asked else EPISODES
    env, policy = envs.make_env(mdp, number), tabular_policy(*logits.shape)

    def collect(key: jax.Array) -> Trajectory:
        if way == "windows":
            start_key, key = jax.random.split(key)
            return windows(env, policy, logits, key, start(env, policy, start_key), H)[1]
        return episodes(
            env,
            policy,
            logits,
            key,
            group_size=group_size,
            extra_rollouts=extra_rollouts,
            num_branches=num_branches,
        )

    return jax.jit(collect)(jax.random.key(7))


def same(x: object) -> object:
    return x


def z_scores(
    row: Case, expected: np.ndarray, change: Change = same, reweigh: Reweigh = same
) -> np.ndarray:
    """(mean - expected) / standard error of every parameter, over the batches."""
    estimator, params = row.build()
    state, size = estimator.init(jax.random.key(0))[1], 4 if row.mean is None else row.num_episodes
    group, way = 2 if row.share_start else 1, FACTS[row.name].collect[0]
    asked = estimator.extra_rollouts, row.num_branches
    traj = sampled(row.problem or arbitrary, row.on_policy, group, way, *asked)
    traj = traj._replace(terminated=traj.done) if row.limit_ends else traj
    if FACTS[row.name].baseline == "group" and group == 1:
        # starts differ within a group: its mean is the same
        number = jnp.broadcast_to(jnp.arange(EPISODES)[None] // 2, traj.reward.shape)
        traj = traj._replace(group=number)

    def weigh(params: Params, state: Any, batch: Trajectory) -> Any:
        weighted, after = estimator.weigh(params, state, change(batch))
        return reweigh(weighted), after

    assert (np.abs(expected) > 1e-12).sum() >= 4
    changed = estimator._replace(weigh=weigh)
    return diagnostics.z_scores(changed, params, state, traj, size, expected)


# Estimators that take longest: the formula of each is held over every trajectory.
SLOWEST = ("v_mpo",)
# Of these, which much is built on, a row is among the fast ones in any case.
ALWAYS = ("ppo", "all_action")


def sampled_rows() -> Iterator[Any]:
    """With the fast tests, one row for each way in which an estimator depends on the rollout: its
    own policy or another, the episodes it compares, the critic, and how the batch is collected; for
    those with extra rollouts, which take longest, one of each kind. test_unbiased.py checks the
    formula of every row over every trajectory.
    """
    kinds, collected, names = set(), set(), set()
    for row in CASES:
        facts = FACTS[row.name]
        kind = facts.extra_rollout_kind
        usual = row.problem in (None, exact_critics, exact_hindsight)
        on = row.on_policy, row.share_start, usual, row.problem is exact_hindsight
        compared = facts.baseline if facts.baseline in ("batch", "group", "branches") else "none"
        how = (*on, compared, facts.critic, facts.collect[0])
        again = how in collected or (kind != "none" and kind in kinds) or row.name in SLOWEST
        again = again and (row.name not in ALWAYS or row.name in names)
        yield pytest.param(row, marks=[pytest.mark.slow] if again else [])
        names.add(row.name)
        kinds.add(kind)
        collected.add(how)


@pytest.mark.parametrize("row", [*sampled_rows()], ids=str)
def test_within_standard_errors_of_the_exact_mean(row: Case) -> None:
    assert np.abs(z_scores(row, row.expected())).max() < BOUND


def without_the_ending_step(traj: Trajectory) -> Trajectory:
    """The mask that ends one step early."""
    return traj._replace(valid=traj.valid & ~traj.done)


def without_a_mask(traj: Trajectory) -> Trajectory:
    """Rewards and scores of whatever follows the end: here the first step again, as an auto-reset
    would give.
    """
    again = jax.tree.map(lambda x: jnp.where(expand(traj.valid, x), x, x[:1]), traj)
    return again._replace(valid=jnp.ones_like(traj.valid))


def with_rewards_a_step_late(traj: Trajectory) -> Trajectory:
    """Each action is credited with the reward of the step before."""
    return traj._replace(
        reward=jnp.concatenate([jnp.zeros_like(traj.reward[:1]), traj.reward[:-1]])
    )


def with_one_episode_copied(traj: Trajectory) -> Trajectory:
    """A key that is broadcast: every episode of the batch is the first."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[:, :1], x.shape), traj)


def with_limits_as_terminations(traj: Trajectory) -> Trajectory:
    """One `done` for both: no value is bootstrapped at a time limit."""
    return traj._replace(terminated=traj.done)


def with_terminations_as_limits(traj: Trajectory) -> Trajectory:
    """The other way round: a terminal state's value is bootstrapped."""
    return traj._replace(truncated=traj.done, terminated=jnp.zeros_like(traj.done))


def with_the_reset_observation(traj: Trajectory) -> Trajectory:
    """The successor at an end is the observation after the reset."""
    return traj._replace(
        next_obs=jnp.where(expand(traj.done, traj.obs), traj.obs[:1], traj.next_obs)
    )


def with_time_from_a_rollout(traj: Trajectory) -> Trajectory:
    """γᵗ with t counted from the beginning of a longer rollout instead of the episode's."""
    return traj._replace(time=traj.time + 2)


def with_the_policy_as_behaviour(traj: Trajectory) -> Trajectory:
    """Log-probabilities of the learning policy instead of the acting one: ratios of 1."""
    log_pi = jax.nn.log_softmax(traj.obs @ arbitrary().logits)
    return traj._replace(
        log_prob=jnp.take_along_axis(log_pi, traj.action[..., None], axis=-1)[..., 0]
    )


def averaged_over_valid_steps(batch: Weighted) -> Weighted:
    """The mean over the batch's steps times their expected number: a ratio of sums."""
    valid = batch.traj.valid
    return batch._replace(psi=batch.psi * expected_steps() * valid.shape[1] / valid.sum())


def averaged_over_each_episode(batch: Weighted) -> Weighted:
    """The mean over an episode's steps, times their expected number: short episodes get more
    weight.
    """
    return batch._replace(psi=batch.psi * expected_steps() / batch.traj.valid.sum(0)[None, :])


def with_detached_entropy(batch: Weighted) -> Weighted:
    """The analytic entropy as a constant in the reward: its own gradient at the step is lost."""
    pi = jax.nn.softmax(batch.traj.obs @ arbitrary().logits)
    entropy = jnp.where(batch.traj.valid, -jnp.sum(pi * jnp.log(pi), axis=-1), 0.0)
    return batch._replace(psi=to_go(batch.traj._replace(reward=batch.traj.reward + 0.3 * entropy)))


def less_the_mean_of_the_living(batch: Weighted) -> Weighted:
    """A baseline for each time step from the episodes that still run, including its own."""
    valid = batch.traj.valid
    mean = jnp.where(valid, batch.psi, 0.0).sum(1) / jnp.maximum(valid.sum(1), 1)
    return batch._replace(psi=batch.psi - mean[:, None])


def less_a_value_fitted_to_the_batch(batch: Weighted) -> Weighted:
    """V from this very batch: the mean return to go of each state in it, own episode included."""
    obs = batch.traj.obs * batch.traj.valid[..., None]
    total, count = jnp.einsum("tns,tn->s", obs, batch.psi), obs.sum((0, 1))
    return batch._replace(psi=batch.psi - obs @ (total / jnp.maximum(count, 1.0)))


def less_a_baseline_without_its_weight(batch: Weighted) -> Weighted:
    """A constant subtracted from an importance-weighted return, but not weighted itself."""
    return batch._replace(psi=batch.psi - 0.7)


def to_go(traj: Trajectory) -> jax.Array:
    return returns.discounted_sum(returns.discount_powers(traj.reward, GAMMA) * traj.reward, 1.0)


@functools.cache
def expected_steps() -> float:
    with jax.ensure_compile_time_eval():
        return float(tabular.visitation(corridor().mdp, jnp.asarray(corridor().logits)).sum())


rows = {str(row): row for row in CASES}
PLANTED: list[tuple[str, Change | Reweigh]] = [
    ("reinforce", without_the_ending_step),
    ("reinforce", without_a_mask),
    ("reinforce-corridor", averaged_over_valid_steps),
    ("reinforce-corridor", averaged_over_each_episode),
    ("reward_to_go", without_the_ending_step),
    ("reward_to_go", without_a_mask),
    ("reward_to_go", with_rewards_a_step_late),
    ("reward_to_go", less_the_mean_of_the_living),
    ("reward_to_go", less_a_value_fitted_to_the_batch),
    ("leave_one_out", with_one_episode_copied),
    ("group_leave_one_out-share_start", with_one_episode_copied),
    ("entropy_reward-temperature=0.3", with_detached_entropy),
    ("trajectory_importance-off_policy", with_the_policy_as_behaviour),
    ("trajectory_importance-off_policy", less_a_baseline_without_its_weight),
    ("per_decision_importance-off_policy", with_the_policy_as_behaviour),
    ("per_decision_importance-off_policy", less_a_baseline_without_its_weight),
    ("vtrace-gae_lambda=0.7-off_policy", with_the_policy_as_behaviour),
    ("gae-gae_lambda=1.0", with_limits_as_terminations),
    ("gae-gae_lambda=1.0", with_terminations_as_limits),
    ("gae-gae_lambda=1.0", with_the_reset_observation),
    ("gae-gae_lambda=1.0", with_time_from_a_rollout),
    ("actor_critic-n_step=2", with_limits_as_terminations),
    ("actor_critic-n_step=2", with_the_reset_observation),
    ("ppo-gae_lambda=0.5", with_the_reset_observation),
    ("vtrace-gae_lambda=0.7-off_policy", with_terminations_as_limits),
]


def planted() -> Iterator[Any]:
    """Each bug once with the fast tests; in others with the slow ones."""
    seen = set()
    for name, bug in PLANTED:
        yield pytest.param(name, bug, marks=[pytest.mark.slow] if bug in seen else [])
        seen.add(bug)


@pytest.mark.parametrize(
    ("name", "bug"), [*planted()], ids=lambda x: getattr(x, "__name__", str(x))
)
def test_a_planted_bug_is_far_outside(name: str, bug: Change | Reweigh) -> None:
    row = rows[name]
    reweighs = "batch" in bug.__code__.co_varnames[:1]
    z = z_scores(row, row.expected(), **{"reweigh" if reweighs else "change": bug})
    assert np.abs(z).max() > FAR


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("undiscounted_reward_to_go", gradient),  # γᵗ dropped
        ("batch_mean", gradient),  # a baseline that contains its own episode
        pytest.param("standardised", gradient, marks=pytest.mark.slow),
        ("ratio_only-off_policy", gradient),  # one ratio read as importance sampling
        ("all_action", gradient),  # a critic that is wrong, trusted
        pytest.param("vtrace-gae_lambda=0.7-off_policy", gradient, marks=pytest.mark.slow),
        ("reward_to_go", undiscounted),
    ],
)
def test_a_documented_bias_would_be_seen(wrong: str, right: Callable[[Case], np.ndarray]) -> None:
    assert np.abs(z_scores(rows[wrong], right(rows[wrong]))).max() > FAR


def test_time_restarts_with_every_episode_of_a_window() -> None:
    """And so γᵗ does: the weight of a first step is 1 wherever in the window it stands."""
    env, policy = envs.make_env(arbitrary().mdp, 64), tabular_policy(S, A)
    params = jnp.asarray(arbitrary().logits)
    traj = windows(
        env, policy, params, jax.random.key(0), start(env, policy, jax.random.key(1)), 30
    )[1]
    assert bool((traj.time[traj.first] == 0).all())
    assert int(traj.time.max()) == H - 1
    assert int(traj.first[5:].sum()) > 100
