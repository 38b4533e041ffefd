"""Snapshots of policies during training, and PPO's gradient estimates for them from any number of
state-action pairs.

PPO standardises advantages over a batch, so that an estimate is not a mean over its episodes. But
its direction follows from sums over them: with Ψ the advantage and m = Σ Ψ / Σ 1 its mean over the
pairs,

    ĝ ∝ Σ (Ψ - m) ∇log π = Σ Ψ ∇log π - m Σ ∇log π

so that blocks of a few episodes are sampled once, and combined to estimates of every size.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import stats

from pg import diagnostics, envs, networks, normalisation, rollout
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.presets import preset
from pg.reports.statistics import Estimate, standard_error
from pg.rollout import Trajectory
from pg.train import TrainState, make_learner, training_keys

SNAPSHOTS = ("start", "middle", "end")
TEN = 10
AT_ONCE = 500  # blocks per call
COUNTED = 1_000  # maximum number of estimates of one size


class Blocks(NamedTuple):
    """Sums over the pairs of blocks of E episodes."""

    weighted: np.ndarray  # Σ Ψ ∇log π / E, [K, P]
    score: np.ndarray  # Σ ∇log π / E, [K, P]
    psi: np.ndarray  # Σ Ψ, [K]
    pairs: np.ndarray  # Σ 1, [K]


class Curve(NamedTuple):
    """Agreement of estimates of M sizes for one policy: for many sets of ten estimates, the mean
    over their pairs or over their cosines.
    """

    pairs: np.ndarray  # of state and action, on average, [M]
    episodes: np.ndarray  # [M]
    pairwise: list[np.ndarray]  # cosine between two of ten estimates, M of [tens]
    # cosine of an estimate to the direction of all blocks except its own, M of [tens]
    truth: list[np.ndarray]
    # expected cosine of that direction to the noise-free one, by which `truth` is divided
    reference: float


class Agreement(NamedTuple):
    """Curves averaged over several policies, [M]."""

    pairs: np.ndarray
    episodes: np.ndarray
    pairwise: list[Estimate]
    truth: list[Estimate]
    reference: float  # the smallest


def train(task: str, seeds: int) -> list[list[TrainState]]:
    """Tuned PPO on a task: at each of SNAPSHOTS the states of all seeds."""
    config, h = preset("ppo", env=task)
    learner, half = make_learner(config, h), config.num_updates // 2
    init_keys, keys = jax.vmap(lambda k: training_keys(k, 0, 2 * half))(
        jax.random.split(jax.random.key(0), seeds)
    )
    go_on = jax.jit(jax.vmap(lambda state, keys: jax.lax.scan(learner.step, state, keys)[0]))
    states = [jax.jit(jax.vmap(learner.init))(init_keys)]
    for part in (keys[:, :half], keys[:, half:]):
        states.append(go_on(states[-1], part))
    return [[jax.tree.map(lambda x, i=i: x[i], state) for i in range(seeds)] for state in states]


def sample(
    task: str, state: TrainState, key: jax.Array, pairs: int, least: int
) -> tuple[Blocks, int]:
    """Blocks of E episodes with about `least` pairs, or of one episode if it is longer; and E.

    Args:
        task: name of the environment.
        state: of the training.
        key: of the episodes.
        pairs: of all blocks, at least.
        least: pairs of a block.
    """
    length = float(_program(task, 1)(state, jax.random.fold_in(key, 0))[3].mean())
    episodes = max(1, round(least / length))
    calls = math.ceil(pairs / (AT_ONCE * episodes * length))
    keys = [jax.random.fold_in(key, i) for i in range(1, calls + 1)]
    calls_blocks = [jax.device_get(_program(task, episodes)(state, k)) for k in keys]
    return Blocks(*(np.concatenate(x) for x in zip(*calls_blocks, strict=True))), episodes


@functools.cache  # one compilation for all policies
def _program(task: str, episodes: int) -> Callable[[TrainState, jax.Array], tuple[jax.Array, ...]]:
    """state, key -> the fields of AT_ONCE blocks, with PPO's own V and its normalisation of
    observations and rewards.
    """
    config, h = preset("ppo", env=task)

    def program(state: TrainState, key: jax.Array) -> tuple[jax.Array, ...]:
        env = envs.configured(config, AT_ONCE * episodes)
        plain = networks.make_policy(config, env), networks.make_critic(config, env)
        policy, critic = (
            normalisation.with_standardised_observations(network, state.normaliser)
            for network in plain
        )
        est = ESTIMATORS["gae"](policy, critic, h._replace(entropy_coef=0.0))
        traj = rollout.episodes(
            env, networks.actor(policy, critic), state.params, key, config.horizon
        )
        return sums(est, state.params, normalisation.scaled(traj, state.normaliser), episodes)

    return jax.jit(program)


def sums(est: Estimator, params: Params, traj: Trajectory, episodes: int) -> tuple[jax.Array, ...]:
    """The fields of `Blocks` of the episodes in a trajectory.

    Args:
        est: the estimator.
        params: of policy and critic.
        traj: the episodes side by side.
        episodes: of a block.
    """

    def block(part: Trajectory) -> tuple[jax.Array, ...]:
        batch = est.weigh(params, (), part)[0]
        score = batch._replace(psi=jnp.ones_like(batch.psi))
        both = [-ravel_pytree(est.grad(params, x)[0].policy)[0] for x in (batch, score)]
        return *both, jnp.sum(jnp.where(part.valid, batch.psi, 0.0)), jnp.sum(part.valid)

    parts = diagnostics.of_batches(est, params, (), traj, episodes)[1]
    return diagnostics.gradients(block, parts, batch_size=diagnostics.at_once(traj, episodes))


def directions(blocks: Blocks, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions of estimates from `size` blocks each [K, P], and of all other blocks [K, P]."""
    count = min(len(blocks.psi) // size, COUNTED)
    own = Blocks(
        *(x[: count * size].reshape(count, size, *x.shape[1:]).sum(axis=1) for x in blocks)
    )
    others = Blocks(*(x.sum(axis=0) - y for x, y in zip(blocks, own, strict=True)))
    return _direction(own), _direction(others)


def _direction(x: Blocks) -> np.ndarray:
    return x.weighted - (x.psi / x.pairs)[:, None] * x.score


def curve(blocks: Blocks, episodes: int, sizes: Sequence[int]) -> Curve:
    """The agreement of estimates of about `sizes` pairs, each of at least one block.

    Args:
        blocks: sums over blocks of episodes.
        episodes: of a block.
        sizes: pairs of an estimate, M numbers.
    """
    each, reference = float(blocks.pairs.mean()), reference_cosine(blocks)
    counts = np.array([max(1, round(size / each)) for size in sizes])
    estimates = [directions(blocks, int(count)) for count in counts]
    pairwise = [pairwise_tens(own) for own, _ in estimates]
    truth = [truth_tens(own, others) / reference for own, others in estimates]
    return Curve(each * counts, episodes * counts, pairwise, truth, reference)


def agreement(curves: Sequence[Curve]) -> Agreement:
    """The mean over policies."""
    pairs, episodes = np.mean([(c.pairs, c.episodes) for c in curves], axis=0)
    pairwise = [mean(groups) for groups in zip(*(c.pairwise for c in curves), strict=True)]
    truth = [mean(groups) for groups in zip(*(c.truth for c in curves), strict=True)]
    return Agreement(pairs, episodes, pairwise, truth, min(c.reference for c in curves))


def reference_cosine(blocks: Blocks, parts: int = 50) -> float:
    """Expected cosine of the direction of all blocks to the noise-free one, estimated from `parts`
    parts.
    """
    g, _ = directions(blocks, len(blocks.psi) // parts)
    noise_scale = diagnostics.noise_scale(diagnostics.sample(lambda x: x, jnp.asarray(g))).value
    return (
        float(diagnostics.expected_cosine(max(noise_scale, 0.0), len(g)))
        if noise_scale > 0
        else 0.0
    )


def pairwise_tens(g: np.ndarray) -> np.ndarray:
    """The mean pairwise cosine of ten consecutive gradients, [K // 10] of [K, P]."""
    tens = len(g) // TEN
    return np.array(
        [diagnostics.pairwise_cosines(ten).value for ten in g[: tens * TEN].reshape(tens, TEN, -1)]
    )


def truth_tens(g: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean cosine of ten gradients, each to another direction, [K // 10] of [K, P]."""
    tens = len(g) // TEN
    cosine = (g * others).sum(axis=1) / np.linalg.norm(g, axis=1) / np.linalg.norm(others, axis=1)
    return cosine[: tens * TEN].reshape(tens, TEN).mean(axis=1)


def mean(groups: Sequence[np.ndarray]) -> Estimate:
    """The mean over policies of the mean over their sets of ten, [tens] each; its t interval is for
    these fixed policies.
    """
    value, freedom = float(np.mean([x.mean() for x in groups])), sum(len(x) - 1 for x in groups)
    error = math.sqrt(sum(standard_error(x) ** 2 for x in groups)) / len(groups)
    half = error * float(stats.t.ppf(0.975, freedom))
    return Estimate(value, value - half, value + half)


def pairs_for(agreement: Agreement, level: float) -> float:
    """Pairs for a cosine of `level` between two estimates, interpolated linearly in log pairs; inf
    if it is not reached.
    """
    pairs, cosines = agreement.pairs, np.array([x.value for x in agreement.pairwise])
    if cosines.max() < level:
        return math.inf
    i = int((cosines >= level).argmax())
    if i == 0:
        return float(pairs[0])
    share = (level - cosines[i - 1]) / (cosines[i] - cosines[i - 1])
    return float(pairs[i - 1] * (pairs[i] / pairs[i - 1]) ** share)
