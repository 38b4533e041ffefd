"""Estimators: their Ψ on hand-made arrays, their gradients, and independence of masks, order and
padding.
"""

import functools
import inspect
import itertools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import tabular_critic, tabular_policy
from proofs import weights_of_the_better_half

from pg import envs, networks, returns
from pg.branches import Branches
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted, action_values
from pg.estimators.base import own_entropy
from pg.estimators.facts import FACTS, ON_TABLES, estimators_with
from pg.exact import tabular
from pg.extra_rollouts import InitialStates, Transitions
from pg.networks import Carries
from pg.rollout import Trajectory

pytestmark = pytest.mark.usefixtures("x64")
S, A, T, N, GAMMA = 4, 3, 6, 5, 0.9
M = 2  # extra transitions from each state
H = Hyperparams(gamma=GAMMA, gae_lambda=0.8, n_step=2, entropy_coef=0.01, baseline=0.3)
TEMPERATURE = 0.2
GROUP = np.array([0, 1, 0, 2, 1])  # of every episode: two pairs, and one alone
VALUES = np.random.default_rng(5).normal(size=S)
ACTION_TABLE = np.random.default_rng(6).normal(size=(S, A))
LEVELS = np.array([-1.0, -0.3, 0.3, 1.0])  # of rewards, the outcomes of a hindsight table
LOG_ODDS = np.random.default_rng(8).normal(size=(S, S, A))  # given a later state, or one of LEVELS


def batch(length: int = T, seed: int = 0, name: str = "") -> Trajectory:
    """N complete episodes of random lengths (one per column), some terminated, some truncated; with
    extra episodes from each state, as an estimator of this name needs.
    """
    g = np.random.default_rng(seed)
    time = np.arange(length)[:, None] * np.ones(N, int)
    ends = np.array([T, 3, 1, T, 4])  # episode lengths
    valid, last = time < ends, time == ends - 1
    states = g.integers(S, size=(T + 1, N))
    states = np.concatenate([states, np.zeros((length - T, N), int)])
    terminated = last & np.array([True, True, False, False, True])
    pad = ((0, length - T), (0, 0))
    other = np.random.default_rng(seed + 100)
    return Trajectory(
        obs=np.eye(S)[states[:-1]],
        action=np.pad(g.integers(A, size=(T, N)), pad),
        log_prob=np.pad(np.log(g.uniform(0.1, 0.9, size=(T, N))), pad),
        reward=np.where(valid, np.pad(g.normal(size=(T, N)), pad), 0.0),
        terminated=terminated,
        truncated=last & ~terminated,
        next_obs=np.eye(S)[states[1:]],
        first=time == 0,
        valid=valid,
        time=time,
        carry=(),
        group=np.broadcast_to(GROUP, time.shape),
        successors=transitions(other, (M,), length, valid),
        lookahead=transitions(other, (A, M), length, valid),
        branches=branches(name, valid)
        if name and FACTS[name].extra_rollout_kind == "branches"
        else (),
        starts=InitialStates(
            np.eye(S)[np.random.default_rng(seed + 200).integers(S, size=(1, N, M))],
            np.where(time == 0, M, 0),
        ),
    )


def transitions(
    g: np.random.Generator, extra: tuple[int, ...], length: int, valid: np.ndarray
) -> Transitions:
    """Random extra transitions, of which the first T steps do not depend on the length."""
    pad = ((0, length - T), (0, 0), *((0, 0) for _ in extra))
    runs = valid.reshape(length, N, *[1] * len(extra))
    return Transitions(
        reward=np.where(runs, np.pad(g.normal(size=(T, N, *extra)), pad), 0.0),
        done=runs & np.pad(g.uniform(size=(T, N, *extra)) < 0.3, pad),
        next_obs=np.eye(S)[np.pad(g.integers(S, size=(T, N, *extra)), pad)],
        env_steps=np.where(valid, np.prod(extra), 0),
    )


def branches(name: str, valid: np.ndarray) -> Branches:
    """Three repetitions of extra episodes from each state."""
    g, members = np.random.default_rng(7), {"vine_all_action": A, "measure_valued": 2}.get(name, 1)
    shape = (T, N, 3, members)
    pad = ((0, len(valid) - T), *[(0, 0)] * 3)
    started = valid[..., None, None]
    sign = np.where(np.arange(members) % 2, -1.0, 1.0)
    constant = g.uniform(size=(T, N, 1, 1)) * (sign if members == 2 else np.ones(members))
    constant = np.broadcast_to(constant, shape)
    return Branches(
        np.where(started, np.pad(g.integers(A, size=shape), pad), 0),
        np.where(started, np.pad(g.normal(size=shape), pad), 0.0),
        np.where(started, np.pad(-g.uniform(size=shape), pad), 0.0),
        np.where(started, np.pad(constant, pad), 0.0),
        np.where(valid, 2.0 * np.pad(g.integers(2, size=(T, N)), pad[:2]), 0.0),  # of every second
        np.where(valid, 9, 0),
    )


def build(name: str, h: Hyperparams = H) -> tuple[Estimator, Params, Any]:
    if name == "entropy_reward":
        h = h._replace(temperature=TEMPERATURE)
    critic, table = tabular_critic(S), jnp.asarray(VALUES)
    if FACTS[name].critic == "Q":
        table = jnp.asarray(ACTION_TABLE)
    if FACTS[name].critic == "hindsight":
        rewards = LEVELS if FACTS[name].outcome == "reward" else None
        critic, table = tabular.table_hindsight(LOG_ODDS, rewards), jnp.asarray(LOG_ODDS)
    estimator = ESTIMATORS[name](tabular_policy(S, A), critic, h)
    params, state = estimator.init(jax.random.key(0))
    return (
        estimator,
        Params(params.policy, () if isinstance(params.critic, tuple) else table),
        state,
    )


def weigh(name: str, traj: Trajectory, h: Hyperparams = H) -> Weighted:
    estimator, params, state = build(name, h)
    return jax.jit(estimator.weigh)(params, state, traj)[0]


def gradient(name: str, h: Hyperparams = H) -> Callable[[Trajectory], Any]:
    """Trajectory -> gradient and metrics, as one program for each shape."""
    estimator, params, state = build(name, h)

    def of_batch(params: Params, traj: Trajectory) -> Any:
        return estimator.grad(params, estimator.weigh(params, state, traj)[0])

    return functools.partial(jax.jit(of_batch), params)


def grad(name: str, traj: Trajectory, h: Hyperparams = H) -> tuple[Params, dict[str, jax.Array]]:
    return gradient(name, h)(traj)


def pooled_errors(traj: Trajectory, q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Σ_{k≥t} γᵏ⁻ᵗ of the errors of Q, each the mean of those of the episodes that are at step k in
    the same state and take the same action, [T, N].

    Args:
        traj: The episodes.
        q: Q of every action, [T, N, A].
        v: Its mean, [T, N].
    """
    obs, action, valid = (np.asarray(x) for x in (traj.obs, traj.action, traj.valid))
    done = np.asarray(traj.terminated) | np.asarray(traj.truncated)
    pooled = np.zeros((T, N))
    for k, n in itertools.product(range(T), range(N)):
        if not valid[k, n]:
            continue
        errors = []
        for m in range(N):
            if valid[k, m] and (obs[k, m] == obs[k, n]).all() and action[k, m] == action[k, n]:
                later = 0.0 if done[k, m] else v[k + 1, m]
                errors.append(traj.reward[k, m] + GAMMA * later - q[k, m, action[k, m]])
        for t in range(k + 1):
            pooled[t, n] += GAMMA ** (k - t) * np.mean(errors)
    return np.where(valid, pooled, 0.0)


def expected_psi(name: str, traj: Trajectory) -> np.ndarray:
    """Each Ψ, written out by loops over episodes and steps."""
    reward, lengths = np.asarray(traj.reward), np.asarray(traj.valid).sum(0)
    to_go = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            to_go[t, n] = sum(GAMMA ** (k - t) * reward[k, n] for k in range(t, T))
    discount, total = GAMMA ** np.arange(T)[:, None], to_go[0]
    others = np.array([np.delete(total, n).mean() for n in range(N)])
    clock = discount * to_go
    others_clock = np.stack([np.delete(clock, n, axis=1).mean(1) for n in range(N)], axis=1)
    v = np.asarray(traj.obs) @ VALUES
    log_pi = np.asarray(jax.nn.log_softmax(traj.obs @ build(name)[1].policy))
    log_pi = np.take_along_axis(log_pi, np.asarray(traj.action)[..., None], -1)[..., 0]
    ratio = np.exp(np.where(traj.valid, log_pi - traj.log_prob, 0.0))
    so_far = np.cumprod(ratio, axis=0)
    earned = discount * so_far * reward
    soft = discount * np.where(traj.valid, reward - 0.2 * traj.log_prob, 0.0)
    groups = [np.flatnonzero(g == GROUP) for g in GROUP]
    siblings = np.array(
        [np.mean([total[m] for m in group if m != n] or [0.0]) for n, group in enumerate(groups)]
    )
    relative = np.array(
        [(total[n] - total[g].mean()) / (total[g].std() or np.inf) for n, g in enumerate(groups)]
    )
    q, chosen = np.asarray(traj.obs) @ ACTION_TABLE, np.eye(A)[np.asarray(traj.action)]
    surprise = np.where(traj.valid, (to_go - (q * chosen).sum(-1)) / np.exp(traj.log_prob), 0.0)
    pi = np.asarray(jax.nn.softmax(np.asarray(traj.obs) @ build(name)[1].policy))
    advantage = np.where(traj.valid, (q * (chosen - pi)).sum(-1), 0.0)
    of_later = np.zeros((T, N))
    for t, k in itertools.combinations(range(T), 2):
        of_later[t] += GAMMA ** (k - t) * advantage[k]
    unsurprised = surprise - np.where(traj.valid, of_later / np.exp(traj.log_prob), 0.0)
    weight = pi * (np.sum(pi**2, -1, keepdims=True) + 1.0 - 2.0 * pi)
    of_state = np.sum(weight * q, -1) / np.sum(weight, -1)
    value = np.asarray(traj.obs) @ ACTION_TABLE
    expected = (pi * value).sum(-1)
    robust, after = np.zeros((T + 1, N)), np.zeros((T, N))
    of_taken = (value * chosen).sum(-1)
    for t in reversed(range(T)):
        after[t] = reward[t] + GAMMA * robust[t + 1] - of_taken[t]
        robust[t] = np.where(traj.valid[t], expected[t] + ratio[t] * after[t], 0.0)
    before = np.concatenate([np.ones((1, N)), so_far[:-1]])
    remainder = np.where(traj.valid, after / np.exp(traj.log_prob), 0.0)
    done = np.asarray(traj.terminated) | np.asarray(traj.truncated)
    own = reward + GAMMA * np.where(done, 0.0, np.asarray(traj.next_obs) @ VALUES)
    again, tried = (
        x.reward + GAMMA * np.where(x.done, 0.0, np.asarray(x.next_obs) @ VALUES)
        for x in (traj.successors, traj.lookahead)
    )
    calm, guided = to_go.copy(), to_go.copy()
    mean_value = tried.mean(-1)
    guess = (pi * mean_value).sum(-1)
    first = (tried[..., 0] * chosen).sum(-1)
    for n in range(N):
        for t in range(T):
            for k in range(t, lengths[n]):
                both = (own[k, n] + again[k, n].sum()) / (1 + M)
                calm[t, n] -= GAMMA ** (k - t) * (own[k, n] - both)
                guided[t, n] -= GAMMA ** (k - t) * (first[k, n] - guess[k, n])
    left = np.where(traj.valid, (guided - guess) / np.exp(traj.log_prob), 0.0)
    of_branches = expected_psi_of_branches(traj, to_go)
    if name in of_branches:
        return of_branches[name]
    residual = discount * np.where(traj.valid, to_go - v, 0.0)
    # A group is not told by its first observations.
    assert len(np.unique(np.asarray(traj.obs[0, groups[0]]), axis=0)) > 1
    assert lengths.tolist() == [T, 3, 1, T, 4]
    if name == "gradient_control_variate":  # nothing seen yet
        return expected_psi("trajectory_control_variate", traj)
    pooled = pooled_errors(traj, q, (q * pi).sum(-1))
    return {
        "reinforce": np.broadcast_to(total, (T, N)),
        "reward_to_go": clock,
        "undiscounted_reward_to_go": to_go,
        "constant_baseline": np.broadcast_to(total - 0.3, (T, N)),
        "group_leave_one_out": np.broadcast_to(total - siblings, (T, N)),
        "grpo": np.broadcast_to(relative / lengths, (T, N)),
        "all_action": discount[..., None] * q,
        "action_dependent_baseline": discount[..., None] * (q + chosen * surprise[..., None]),
        "trajectory_control_variate": discount[..., None] * (q + chosen * unsurprised[..., None]),
        "pooled_trajectory_control_variate": discount[..., None]
        * (q + chosen * (pooled / np.exp(traj.log_prob))[..., None]),
        "doubly_robust": (discount * before)[..., None] * (value + chosen * remainder[..., None]),
        "dynamics_control_variate": discount * (calm - v),
        "lookahead_control_variate": discount[..., None] * (mean_value + chosen * left[..., None]),
        "standardised": np.broadcast_to((total - total.mean()) / total.std(), (T, N)),
        # what is subtracted differs by parameter
        "optimal_baseline": np.broadcast_to(total, (T, N)),
        "optimal_time_baseline": clock,
        "optimal_state_baseline": discount * (to_go - of_state),
        "shrunk_time_baseline": clock - shrunk_means(clock, np.asarray(traj.valid)),
        "trajectory_importance": np.broadcast_to(so_far[-1] * total, (T, N)),
        "per_decision_importance": np.cumsum(earned[::-1], axis=0)[::-1],
        "ratio_only": ratio * clock,
        "entropy_reward": np.cumsum(soft[::-1], axis=0)[::-1],
        "batch_mean": np.broadcast_to(total - total.mean(), (T, N)),
        "leave_one_out": np.broadcast_to(total - others, (T, N)),
        "time_baseline": clock - others_clock,
        "moving_average": np.broadcast_to(total, (T, N)),  # nothing seen yet
        "state_value": discount * (to_go - v),
        **expected_contributions(traj, pi),
        "reward_weighted_regression": discount * np.minimum(np.exp(to_go), 3.0),
        "centred_state_value": np.stack(
            [residual[:, n] - np.delete(residual, n, axis=1).mean(1) for n in range(N)], axis=1
        ),
    }[name]


def outcomes(name: str, traj: Trajectory) -> np.ndarray:
    """The number of each step's outcome in a hindsight table, [T, N]."""
    if FACTS[name].outcome == "reward":
        return np.abs(np.asarray(traj.reward)[..., None] - LEVELS).argmin(-1)
    return np.asarray(traj.obs).argmax(-1)


def expected_contributions(traj: Trajectory, pi: np.ndarray) -> dict[str, np.ndarray]:
    """Ψ of every action by hindsight: the taken action's own reward, and w times later rewards."""
    reward, states = np.asarray(traj.reward), np.asarray(traj.obs).argmax(-1)
    found = {}
    for name in estimators_with(critic="hindsight"):
        psi, u = np.zeros((len(reward), N, A)), outcomes(name, traj)
        for t, n in zip(*np.nonzero(traj.valid), strict=True):
            taken = traj.action[t, n]
            psi[t, n, taken] += GAMMA**t * reward[t, n] / np.exp(traj.log_prob[t, n])
            for k in range(t + 1, int(np.asarray(traj.valid)[:, n].sum())):
                raised = pi[t, n] * np.exp(LOG_ODDS[states[t, n], u[k, n]])
                psi[t, n] += GAMMA**k * reward[k, n] * (raised / raised.sum() / pi[t, n] - 1.0)
        found[name] = psi
    return found


def shrunk_means(x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`time_shrinkage` by loops: x and valid [T, N]."""
    found = np.zeros((T, N))
    for n in range(N):
        others = np.delete(x, n, axis=1)
        means = others.mean(1)
        steps = np.delete(valid, n, axis=1).any(1)
        within = (others.var(1, ddof=1) / (N - 1))[steps].mean()
        between = means[steps].var()
        weight = within / (within + between)
        found[:, n] = (1 - weight) * means + weight * means[steps].mean()
    return found


def expected_psi_of_branches(traj: Trajectory, to_go: np.ndarray) -> dict[str, np.ndarray]:
    """Ψ of each estimator with extra episodes, for the number of these in traj."""
    if not isinstance(traj.branches, Branches):
        return {}
    found, valid = traj.branches, np.asarray(traj.valid)
    weight = GAMMA ** np.arange(T)[:, None] * found.stands_for
    returns_of = np.asarray(found.reward_to_go)
    mean = returns_of[:, :, :, 0].mean(2)
    later = np.concatenate([mean[1:], np.zeros((1, N))]) * np.concatenate(
        [valid[1:], np.zeros((1, N), bool)]
    )
    first = returns_of[..., 0]
    others = np.stack([np.delete(first, k, axis=2).mean(2) for k in range(3)], axis=2)
    signed = np.asarray(found.constant) * returns_of
    return {
        "vine_value": weight * (to_go - mean),
        "vine_advantage": weight * (traj.reward + GAMMA * later - mean),
        "vine_action_value": weight[..., None] * (first - others) / 3,
        "vine_all_action": weight[..., None] * returns_of.mean(2),
        "measure_valued": weight[..., None] * signed.sum(-1) / 3,
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "gradient_control_variate"))
        for name in estimators_with(collect=("episodes",))
        if name in ON_TABLES
    ],
)
def test_psi_of_the_episodic_family(name: str) -> None:
    traj = batch(name=name)
    np.testing.assert_allclose(weigh(name, traj).psi, expected_psi(name, traj), atol=1e-12)


def test_psi_of_a_fading_trace_goes_on_through_resets() -> None:
    traj, reward = batch(), np.where(batch().valid, batch().reward, 0.0)
    expected = np.stack([sum(0.9 ** (k - t) * reward[k] for k in range(t, T)) for t in range(T)])
    np.testing.assert_allclose(weigh("gpomdp", traj).psi, expected, atol=1e-12)
    # In a window an episode ends, and the next begins: the end is no end for the trace.
    ended = np.zeros((T, N), bool)
    ended[2] = True
    through = traj._replace(
        valid=~np.zeros_like(ended), reward=batch(seed=1).reward + 1.0, terminated=ended
    )
    expected = np.stack(
        [sum(0.9 ** (k - t) * through.reward[k] for k in range(t, T)) for t in range(T)]
    )
    np.testing.assert_allclose(weigh("gpomdp", through).psi, expected, atol=1e-12)
    # The same as a trace of scores: Σₖ rₖ zₖ, zₖ = β zₖ₋₁ + ∇log πₖ, here of columns with a valid
    # step at all times.
    _, params, _ = build("gpomdp")
    full = jax.tree.map(lambda x: x[:, np.array([0, 3])], traj)
    centred = np.eye(A)[full.action] - np.asarray(jax.nn.softmax(full.obs @ params.policy))
    trace, ascent = np.zeros((2, S, A)), np.zeros((S, A))
    for t in range(T):
        trace = 0.9 * trace + full.obs[t, :, :, None] * centred[t, :, None, :]
        ascent += np.einsum("n,nsa->sa", full.reward[t], trace) / 2
    np.testing.assert_allclose(
        -grad("gpomdp", full, H._replace(entropy_coef=0.0))[0].policy, ascent, atol=1e-12
    )


def test_vtrace_weighs_by_the_ratios_of_the_policy() -> None:
    traj = batch()
    _, params, _ = build("vtrace")
    log_pi = jax.nn.log_softmax(traj.obs @ params.policy)
    log_pi = np.take_along_axis(np.asarray(log_pi), traj.action[..., None], -1)[..., 0]
    ends = traj.reward, traj.terminated, traj.truncated, traj.obs @ VALUES, traj.next_obs @ VALUES
    rho = np.exp(np.where(traj.valid, log_pi - traj.log_prob, 0.0))
    target, advantage = returns.vtrace(jnp.asarray(rho), *map(jnp.asarray, ends), GAMMA, 0.8)
    weighted, valid = weigh("vtrace", traj), traj.valid
    psi = GAMMA ** np.arange(T)[:, None] * advantage
    np.testing.assert_allclose(weighted.psi[valid], psi[valid], atol=1e-12)
    np.testing.assert_allclose(weighted.target[valid], target[valid], atol=1e-12)


@pytest.mark.parametrize("name", ["actor_critic", "gae", "ppo", "mdpo"])
@pytest.mark.parametrize("undiscounted", [0.0, 1.0])
def test_psi_of_the_bootstrapped_family(name: str, undiscounted: float) -> None:
    traj, h = batch(), H._replace(undiscounted_state_weighting=undiscounted)
    ends = traj.reward, traj.terminated, traj.truncated, traj.obs @ VALUES, traj.next_obs @ VALUES
    if name == "actor_critic":
        advantage = returns.n_step(*map(jnp.asarray, ends), GAMMA, 2)
    else:
        advantage = returns.gae(*map(jnp.asarray, ends), GAMMA, 0.8)
    weight = np.where(undiscounted, 1.0, GAMMA ** np.arange(T))[:, None]
    weighted = weigh(name, traj, h)
    valid = traj.valid
    np.testing.assert_allclose(weighted.psi[valid], (weight * advantage)[valid], atol=1e-12)
    np.testing.assert_allclose(weighted.target[valid], (advantage + ends[3])[valid], atol=1e-12)


@pytest.mark.parametrize("undiscounted", [0.0, 1.0])
def test_the_weight_of_a_regression_is_the_exponential_of_an_advantage(undiscounted: float) -> None:
    h = H._replace(undiscounted_state_weighting=undiscounted, advantage_scale=1.5, ratio_bound=2.0)
    traj, plain = batch(), h._replace(undiscounted_state_weighting=1.0)
    advantage = np.asarray(weigh("gae", traj, plain).psi)
    found = weigh("advantage_weighted_regression", traj, h)
    powers = np.where(undiscounted, 1.0, GAMMA ** np.arange(T))[:, None]
    expected = powers * np.minimum(np.exp(advantage / 1.5), 2.0)
    np.testing.assert_allclose(found.psi[traj.valid], expected[traj.valid], atol=1e-12)
    assert (expected == powers * 2.0)[traj.valid].any()  # where the bound is
    for name in ("target", "value"):
        own, other = (getattr(x, name) for x in (found, weigh("gae", traj, plain)))
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("max_kl", [0.01, 0.5])
def test_v_mpo_weighs_the_better_half_of_a_batch(max_kl: float) -> None:
    traj, plain = batch(), H._replace(undiscounted_state_weighting=1.0)
    advantage = np.asarray(weigh("gae", traj, plain).psi)[traj.valid]
    found = weigh("v_mpo", traj, H._replace(max_kl=max_kl))
    powers = (GAMMA ** np.arange(T)[:, None] * np.ones(N))[traj.valid]
    expected = powers * weights_of_the_better_half(advantage, max_kl)
    np.testing.assert_allclose(found.psi[traj.valid], expected, atol=1e-12)
    assert (expected > 0).sum() == len(expected) // 2
    np.testing.assert_array_equal(found.target, weigh("gae", traj, plain).target)


def test_equal_advantages_and_a_bound_that_nothing_reaches_have_weights() -> None:
    """All of one size; and the best step alone."""
    traj, v = batch(), batch().valid
    same = traj._replace(reward=np.zeros((T, N)))
    estimator, params, state = build("v_mpo")
    flat = jax.tree.map(jnp.zeros_like, params)
    psi = estimator.weigh(flat, state, jax.tree.map(jnp.asarray, same))[0].psi
    np.testing.assert_allclose(psi[v], (GAMMA ** np.arange(T)[:, None] * np.ones(N))[v])
    psi = np.asarray(weigh("v_mpo", traj, H._replace(max_kl=10.0)).psi)
    assert np.count_nonzero(psi) == 1


def test_no_weight_of_a_regression_is_infinite() -> None:
    """The exponent is bounded, not its exponential."""
    traj, h = batch(), H._replace(advantage_scale=1e-300)
    for name in estimators_with(regression=True):
        assert np.isfinite(weigh(name, traj, h).psi).all(), name


@pytest.mark.parametrize(
    "name",
    ["actor_critic", "gae", "vtrace", "ppo", "advantage_weighted_regression", "v_mpo", "mdpo"],
)
def test_the_weight_of_a_step_follows_its_episode_not_its_row(name: str) -> None:
    """In a window that begins at the third step of every episode, Ψ is γ² of what it is from their
    start.
    """
    late = batch()._replace(time=batch().time + 2, first=np.zeros_like(batch().first))
    valid = batch().valid
    np.testing.assert_allclose(
        weigh(name, late).psi[valid], GAMMA**2 * weigh(name, batch()).psi[valid], atol=1e-12
    )


def hindsight_loss(name: str, traj: Trajectory, table: jax.Array, t: int, n: int) -> jax.Array:
    """-Σ_{k>t} γᵏ log h(aₜ|sₜ, uₖ) of a step of the batch, the policy in h held fixed."""
    state, total = np.asarray(traj.obs)[t, n].argmax(), jnp.zeros(())
    log_pi = jax.nn.log_softmax(build(name)[1].policy[state])
    for k in range(t + 1, int(np.asarray(traj.valid)[:, n].sum())):
        log_h = jax.nn.log_softmax(log_pi + table[state, outcomes(name, traj)[k, n]])
        total -= GAMMA**k * log_h[traj.action[t, n]]
    return total


# what is subtracted differs by parameter, by a gradient for each episode
BY_PARAMETER = ("optimal_baseline", "optimal_time_baseline")


@pytest.mark.parametrize("name", [name for name in ON_TABLES if name not in BY_PARAMETER])
def test_the_gradient_is_that_of_the_loss_written_out(name: str) -> None:
    traj = batch(name=name)
    _, params, _ = build(name)
    weighted = weigh(name, traj)
    steps = np.nonzero(traj.valid)  # K steps
    obs, action, behaviour = (x[steps] for x in (traj.obs, traj.action, traj.log_prob))
    psi = np.asarray(weighted.psi)[steps]

    def taken(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, action[:, None], axis=1)[:, 0]

    def loss(params: Params) -> jax.Array:
        log_pi = jax.nn.log_softmax(obs @ params.policy)  # [K, A]
        pi, own = jnp.exp(log_pi), taken(log_pi)
        if name in ("ppo", "grpo"):
            ratio = jnp.exp(own - behaviour)
            surrogate = jnp.minimum(ratio * psi, jnp.clip(ratio, 0.8, 1.2) * psi)
        elif name in ("vine_action_value", "measure_valued"):
            tried = np.asarray(weighted.extra)[steps]  # [K, 3], or pairs [K, 3, 2]
            of_tried = jnp.take_along_axis(log_pi, tried.reshape(len(tried), -1), axis=1)
            of_tried = of_tried.reshape(tried.shape)
            difference = of_tried if tried.ndim == 2 else of_tried[..., 0] - of_tried[..., 1]
            surrogate = jnp.sum(psi * difference, axis=1)
        elif name == "mdpo":
            log_ratio = own - behaviour
            divergence = jnp.exp(log_ratio) * log_ratio - jnp.exp(log_ratio)
            surrogate = jnp.exp(log_ratio) * psi - GAMMA ** steps[0] * divergence
        elif psi.ndim == 2:
            surrogate = jnp.sum(pi * psi, axis=1)
        else:
            surrogate = psi * own
        total = 0.01 * jnp.sum(pi * log_pi) - jnp.sum(surrogate)
        if FACTS[name].critic == "hindsight":
            for t, n in zip(*steps, strict=True):
                total += 0.5 * hindsight_loss(name, traj, params.critic, t, n)
        elif not isinstance(params.critic, tuple):
            output = obs @ params.critic
            prediction = taken(output) if FACTS[name].critic == "Q" else output
            total += 0.5 * 0.5 * jnp.sum((prediction - np.asarray(weighted.target)[steps]) ** 2)
        return total / N

    grads, metrics = grad(name, traj)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), grads, jax.grad(loss)(params)
    )
    dist = np.asarray(jax.nn.softmax(traj.obs @ params.policy))
    entropy = -(dist * np.log(dist)).sum(-1)
    np.testing.assert_allclose(metrics["entropy"], entropy[traj.valid].mean(), atol=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] * (x in BY_PARAMETER)) for x in ON_TABLES]
)
def test_padding_order_and_rubbish_after_the_end_do_not_matter(name: str) -> None:
    traj, found = batch(name=name), gradient(name)
    plain = found(traj)[0]
    rubbish = traj._replace(
        obs=np.where(traj.valid[..., None], traj.obs, 7.0),
        reward=np.where(traj.valid, traj.reward, 1e6),
        log_prob=np.where(traj.valid, traj.log_prob, -50.0),
        action=np.where(traj.valid, traj.action, 0),
        branches=with_rubbish(traj.branches, traj.valid),
    )
    order = np.array([3, 1, 4, 0, 2])
    for other in (batch(40, name=name), rubbish, jax.tree.map(lambda x: x[:, order], traj)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found(other)[0], plain
        )


def with_rubbish(found: Branches | tuple[()], valid: np.ndarray) -> Branches | tuple[()]:
    if not isinstance(found, Branches):
        return ()
    started = valid[..., None, None]
    return found._replace(
        reward_to_go=np.where(started, found.reward_to_go, 1e6),
        log_prob_to_go=np.where(started, found.log_prob_to_go, -50.0),
    )


@pytest.mark.parametrize("name", ON_TABLES)
def test_no_gradient_passes_through_weigh(name: str) -> None:
    estimator, params, state = build(name)
    traj = jax.tree.map(jnp.asarray, batch(name=name))

    def through(params: Params) -> jax.Array:
        weighted, _ = estimator.weigh(params, state, traj)
        return weighted.psi.sum() + sum(x.sum() for x in jax.tree.leaves(weighted.target))

    assert all(not x.any() for x in jax.tree.leaves(jax.grad(through)(params)))


def test_leave_one_out_is_the_batch_mean_rescaled() -> None:
    traj = batch()
    np.testing.assert_allclose(
        weigh("leave_one_out", traj).psi, N / (N - 1) * weigh("batch_mean", traj).psi
    )


def test_the_optimal_baseline_parameter_by_parameter() -> None:
    traj, h = batch(), H._replace(entropy_coef=0.0)
    _, params, _ = build("optimal_baseline")
    total = np.asarray(returns.total_return(jnp.asarray(traj.reward), GAMMA))

    def score(n: int) -> np.ndarray:
        steps = np.flatnonzero(traj.valid[:, n])

        def log_prob(policy: jax.Array) -> jax.Array:
            return sum(
                jax.nn.log_softmax(traj.obs[t, n] @ policy)[traj.action[t, n]] for t in steps
            )

        return np.asarray(jax.grad(log_prob)(params.policy))

    z = np.stack([score(n) for n in range(N)])
    ascent = np.zeros_like(z[0])
    for n in range(N):
        others = [m for m in range(N) if m != n]
        bottom = (z[others] ** 2).sum(0)
        top = (total[others, None, None] * z[others] ** 2).sum(0)
        ascent += (
            (total[n] - np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)) * z[n] / N
        )
    np.testing.assert_allclose(grad("optimal_baseline", traj, h)[0].policy, -ascent, atol=1e-12)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_optimal_baseline_step_by_step(recurrent: bool) -> None:
    """Also where the score of a step is computed through all of its episode."""
    traj, h = batch(), H._replace(entropy_coef=0.0)
    plain = tabular_policy(S, A)
    carry = jnp.zeros(1) if recurrent else ()
    policy = plain._replace(carry=carry)
    estimator = ESTIMATORS["optimal_time_baseline"](policy, tabular_critic(S), h)
    params, state = estimator.init(jax.random.key(0))
    pi = np.asarray(jax.nn.softmax(traj.obs @ params.policy))
    score = traj.obs[..., None] * (np.eye(A)[traj.action] - pi)[..., None, :]
    score = np.where(traj.valid[..., None, None], score, 0.0).cumsum(0)
    ascent = np.zeros((S, A))
    for n, k in itertools.product(range(N), range(T)):
        others = [m for m in range(N) if m != n]
        reward = GAMMA**k * traj.reward[k]
        bottom = (score[k, others] ** 2).sum(0)
        top = (reward[others, None, None] * score[k, others] ** 2).sum(0)
        baseline = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        ascent += (reward[n] - baseline) * score[k, n] / N
    given = jax.tree.map(jnp.asarray, traj._replace(carry=Carries(jnp.zeros((1, N, 1)), ())))
    weighted, _ = estimator.weigh(params, state, given)
    np.testing.assert_allclose(estimator.grad(params, weighted)[0].policy, -ascent, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FACTS if FACTS[name].same_on_policy])
def test_on_fresh_data_is_what_the_table_says(name: str) -> None:
    """As long as nothing is set: a constant baseline of 0, no temperature."""
    traj, h = batch(), H._replace(baseline=0.0)
    _, params, _ = build(name)
    log_pi = jax.nn.log_softmax(traj.obs @ params.policy)
    fresh = traj._replace(
        log_prob=np.take_along_axis(np.asarray(log_pi), traj.action[..., None], -1)[..., 0]
    )
    found, expected = grad(name, fresh, h)[0], grad(FACTS[name].same_on_policy, fresh, h)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


def test_the_moving_average_sees_the_past_only() -> None:
    estimator, params, state = build("moving_average")
    traj = jax.tree.map(jnp.asarray, batch())
    total = returns.total_return(traj.reward, GAMMA)
    first, state = estimator.weigh(params, state, traj)
    second, _ = estimator.weigh(params, state, traj)
    np.testing.assert_allclose(first.psi[0], total, atol=1e-12)
    np.testing.assert_allclose(second.psi[0], total - total.mean(), atol=1e-12)


def test_estimators_say_what_they_accept() -> None:
    for name, facts in FACTS.items():
        assert build(name)[0].accepts == facts.collect


@pytest.mark.parametrize("name", ON_TABLES)
def test_a_critic_is_learned_where_the_table_says(name: str) -> None:
    has_none = isinstance(build(name)[1].critic, tuple)
    assert has_none == (FACTS[name].critic == "none")


@pytest.mark.skipif(sys.flags.optimize == 2, reason="python -OO has no docstrings")
@pytest.mark.parametrize("name", FACTS)
def test_docstrings_say_what_the_table_says(name: str) -> None:
    """The source ends the first sentence; the four lines end the docstring."""
    facts = FACTS[name]
    paragraphs = (inspect.getdoc(ESTIMATORS[name]) or "").split("\n\n")
    assert f"({facts.source})." in " ".join(paragraphs[0].split())
    assert paragraphs[-1].splitlines() == [
        "Ψₜ = " + ",  ".join(filter(None, (facts.psi, facts.where))),
        f"Unbiased for: {facts.unbiased_in_words}.",
        f"Variance: {facts.variance}.",
        f"Needs: {facts.needs}.",
    ]


@pytest.mark.parametrize("name", ["reward_to_go", "state_value", "gae"])
def test_entropy_in_the_reward_is_a_reward(name: str) -> None:
    traj, tau = batch(), 0.3
    paid = traj._replace(reward=np.where(traj.valid, traj.reward - tau * traj.log_prob, 0.0))
    np.testing.assert_allclose(
        weigh(name, traj, H._replace(temperature=tau)).psi,
        weigh(name, paid).psi,
        atol=1e-12,
        rtol=1e-7,
    )


BY_RATIO = (
    "trajectory_importance",
    "per_decision_importance",
    "ratio_only",
    "vtrace",
    "ppo",
    "grpo",
    "doubly_robust",
    "reward_weighted_regression",
    "advantage_weighted_regression",
    "v_mpo",
    "mdpo",
)


@pytest.mark.parametrize("name", BY_RATIO)
def test_entropy_in_the_reward_of_another_s_episodes_is_the_policy_s_own(name: str) -> None:
    """r - τ log π, as a reward that was paid: of the policy that learns, not of the behaviour."""
    traj, tau = batch(), 0.3
    log_pi = np.asarray(jax.nn.log_softmax(traj.obs @ build(name)[1].policy))
    own = np.take_along_axis(log_pi, traj.action[..., None], -1)[..., 0]
    assert np.abs(own - traj.log_prob)[traj.valid].max() > 0.1
    paid = traj._replace(reward=np.where(traj.valid, traj.reward - tau * own, 0.0))
    found = weigh(name, traj, H._replace(temperature=tau))
    expected = weigh(name, paid)
    np.testing.assert_allclose(found.psi, expected.psi, atol=1e-12)
    assert set(BY_RATIO) == {x for x, row in FACTS.items() if row.off_policy or row.several_steps}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found.target, expected.target
    )


def test_what_the_policy_never_does_has_no_entropy_to_pay() -> None:
    """Weights of 0, and no NaN, where an action of the behaviour is forbidden to the policy."""
    traj, h = batch(), H._replace(temperature=0.3)
    for name in BY_RATIO:
        estimator, params, state = build(name, h)
        forbidding = params._replace(policy=params.policy.at[:, 0].set(-1e300))
        psi = estimator.weigh(forbidding, state, jax.tree.map(jnp.asarray, traj))[0].psi
        assert np.isfinite(psi).all(), name
    masked = own_entropy(jax.tree.map(jnp.asarray, traj), jnp.full((T, N), -jnp.inf), h)
    np.testing.assert_array_equal(masked.reward, traj.reward)


def test_errors_are_pooled_over_equal_steps_alone() -> None:
    """Nothing is averaged over different observations (NaN among them), nor within one episode."""
    rng, traj = np.random.default_rng(0), jax.tree.map(jnp.asarray, batch())
    x, own = jnp.asarray(rng.normal(size=(T, N))), jnp.asarray(rng.normal(size=(T, N, S)))
    no_numbers = jnp.full((T, N, S), jnp.nan)
    for obs in (own, no_numbers, {"same": jnp.zeros((T, N, 2)), "own": own}):
        found = action_values.mean_over_equal_steps(x, traj._replace(obs=obs))
        np.testing.assert_allclose(found, x)
    one = jax.tree.map(lambda leaf: leaf[:, :1], traj)
    np.testing.assert_allclose(action_values.mean_over_equal_steps(x[:, :1], one), x[:, :1])


def test_a_pool_needs_networks_without_memory() -> None:
    config = Config(estimator="trajectory_control_variate", rnn="gru")
    env = envs.configured(config, 2)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    with pytest.raises(ValueError, match="give networks without a recurrent state"):
        ESTIMATORS["pooled_trajectory_control_variate"](policy, critic, H)
    for changes in ({"rnn": "gru"}, {"diagnostics": True}):
        with pytest.raises(ValueError, match="depend on"):
            Config(estimator="pooled_trajectory_control_variate", **changes)
