"""The share of a step's variance due to sampling the action, and the ratio of two estimators'
variances.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg import diagnostics, envs, networks, rollout
from pg.benchmarks.leaderboard.problems import (
    GAMMA,
    PROBLEMS,
    Snapshot,
    frozen_config,
    make_components,
)
from pg.diagnostics import Decomposition
from pg.distributions import Gaussian
from pg.exact.closed_forms import LQR, lqr
from pg.networks import Network
from pg.reports.statistics import Estimate
from pg.rollout import RolloutState

# The point mass of the paper's code, which starts at (3, 4, ½, -½), with actions independent of the
# state.
DT = 0.05
POINT_MASS = LQR(
    A=np.eye(4) + DT * np.eye(4, k=2),
    B=np.vstack([np.zeros((2, 2)), DT * np.eye(2)]),
    Q=np.eye(4),
    R=0.01 * np.eye(2),
    W=1e-5 * np.eye(4),
    start=np.diag([9.0, 16.0, 0.25, 0.25]),
    horizon=100,
)
NOISE = math.log(0.01)  # log σ of its actions


class Parts(NamedTuple):
    """The variance of a step without a baseline and with two baselines, from the same samples."""

    plain: Decomposition
    learned: Decomposition  # V(s), fitted
    true: Decomposition  # Vₜ(s)


def of_point_mass(gain: Any, key: jax.Array, num_states: int) -> Parts:
    """The variance for actions N(K x, 0.01²), with the exact Vₜ(x).

    Args:
        gain: K, [2, 4].
        key: of the samples.
        num_states: visits from which the variance is measured.
    """
    gain, log_std = jnp.asarray(gain), jnp.full(2, NOISE)

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Gaussian]:
        action = obs @ params[0].T
        return carry, Gaussian(action, jnp.broadcast_to(params[1], action.shape))

    def value(at: RolloutState) -> jax.Array:
        return lqr.state_value(POINT_MASS, gain, log_std, at.obs, at.time, GAMMA)

    env, policy = envs.make_env(POINT_MASS, 64), Network(lambda key: (gain, log_std), apply)
    of = functools.partial(
        diagnostics.decompose, env, policy, (gain, log_std), key, num_states=num_states, gamma=GAMMA
    )
    plain, true = of(), of(baseline=value)
    return Parts(plain, true, true)


def best_gain() -> np.ndarray:
    """The gain K of the optimal first action, [2, 4]."""
    return np.asarray(lqr.optimal_gain(POINT_MASS, GAMMA)[0])


def of_snapshot(name: str, snapshot: Snapshot, key: jax.Array, num_states: int) -> Parts:
    """The variance at a snapshot of the leaderboard, with its fitted V(s), and with Vₜ(s) from more
    returns.

    Args:
        name: of the problem.
        snapshot: of its policy.
        key: of the samples.
        num_states: visits from which the variance is measured.
    """
    config = frozen_config(PROBLEMS[name].settings()[0], "state_value", 64)
    env, policy, critic = make_components(config, snapshot.normaliser, 64)

    def learned(at: RolloutState) -> jax.Array:
        return critic.apply(
            snapshot.critics["V"], networks.start(critic, num_states), at.obs, at.time == 0
        )[1]

    def true(at: RolloutState) -> jax.Array:
        return sampled_value(
            env, policy, snapshot.policy, jax.random.fold_in(key, 1), at, config.horizon
        )

    of = functools.partial(
        diagnostics.decompose, env, policy, snapshot.policy, key, num_states=num_states, gamma=GAMMA
    )
    return Parts(*(of(horizon=config.horizon, baseline=b) for b in (None, learned, true)))


def sampled_value(
    env: envs.Env,
    policy: Network,
    params: Any,
    key: jax.Array,
    at: RolloutState,
    horizon: int | None,
    count: int = 32,
) -> jax.Array:
    """Vₜ(s) as the mean of returns from the current states of N environments, [N].

    Its error as a baseline adds to the action's part: Σ_a is too large by
    (Σ_τ + E ‖z‖² Var(Q|s)) / count.

    Args:
        env: the environment.
        policy: the policy.
        params: of the policy.
        key: of the samples.
        at: the states of N environments.
        horizon: steps of an episode at most.
        count: returns of each.
    """
    act_key, return_key = jax.random.split(key)
    num_states = len(at.time)
    begin = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), at)
    dist = policy.apply(params, begin.carry, begin.obs, begin.time == 0)[1]
    action, many = dist.sample(dist.draw(act_key)), env._replace(num_envs=num_states * count)
    returns = rollout.returns_to_go(many, policy, params, return_key, begin, action, GAMMA, horizon)
    return returns.reshape(num_states, count).mean(axis=1)


def action_share(variance: Decomposition) -> Estimate:
    """Σ_a / (Σ_τ + Σ_a + Σ_s), with a conservative interval.

    The parts are from the same samples, with unknown covariances; the standard error is the largest
    possible one: ((1 - f) s_a + f (s_τ + s_s)) / total, f the share. If the total variance is 0, so
    is the share: there is nothing to remove.
    """
    if variance.total == 0.0:
        return Estimate(0.0, 0.0, 0.0)
    share = variance.action.value / variance.total
    others = variance.trajectory.standard_error + variance.state.standard_error
    error = (1.0 - share) * variance.action.standard_error + abs(share) * others
    return Estimate.from_error(share, error / variance.total)


def variance_ratio(x: np.ndarray, y: np.ndarray, *, repetitions: int = 2_000) -> Estimate:
    """tr Var of the rows of x divided by that of y, with a bootstrap over pairs of rows.

    Args:
        x: [K, P].
        y: [K, P], from the same episodes.
        repetitions: number of resamples.
    """
    x, y = (np.sum((np.asarray(g, float) - np.mean(g, axis=0)) ** 2, axis=1) for g in (x, y))
    rows = np.random.default_rng(0).integers(0, len(x), (repetitions, len(x)))
    low, high = np.quantile(x[rows].sum(axis=1) / y[rows].sum(axis=1), [0.025, 0.975])
    return Estimate(float(x.sum() / y.sum()), float(low), float(high))
