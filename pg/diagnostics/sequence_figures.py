"""Exact figures of policy gradients over sequences, with data from the policy itself and from those
of some updates ago.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pg.config import Hyperparams
from pg.diagnostics.exact import moments_by_logits
from pg.diagnostics.references import regularised_gradient, relative_distance
from pg.envs.sequences import Sequences
from pg.estimators import sequences
from pg.estimators.switches import Switches
from pg.exact import tabular
from pg.exact.tabular import TabularMDP

GROUP = 2  # sequences of a group: enough for every baseline
ROUNDING = 1e-9  # relative size of rounding errors around an exact 0
STEP = 0.25  # step size along the exact gradient between two updates of the history


class Problem(NamedTuple):
    """A prefix tree with the policies of a short training on it, tables of logits [S, V]."""

    mdp: TabularMDP
    logits: Float[np.ndarray, "S V"]  # the policy now
    reference: Float[np.ndarray, "S V"]  # that at the start of training
    behaviours: Mapping[int, Float[np.ndarray, "S V"]]  # that of this many updates ago, by lag


class SequenceFigures(NamedTuple):
    """The exact figures of an estimator at a lag."""

    bias: float  # ‖Eĝ - ∇J_β‖ / ‖∇J_β‖; rounding errors around 0 are set to 0
    cosine: float  # of Eĝ and ∇J_β
    variance: float  # per sequence, relative to that of the plain gradient without a lag
    signal_to_noise: float  # ‖Eĝ‖² over the variance per sequence


def problem(env: Sequences, lags: Sequence[int], *, seed: int = 0) -> Problem:
    """The problem of an environment of sequences: a random policy, trained by the exact gradient
    for as many updates as the largest lag.

    Args:
        env: The environment.
        lags: Updates by which the behaviour policy is older than the policy.
        seed: Seed of the first policy, N(0, 1) in each logit.
    """
    mdp = tabular.prefix_tree(env)
    shape = (mdp.num_states, mdp.num_actions)
    history = [np.random.default_rng(seed).normal(size=shape)]
    for _ in range(max(lags)):
        gradient = tabular.exact_gradient(mdp, jnp.asarray(history[-1]))
        history.append(history[-1] + STEP * np.asarray(gradient))
    behaviours = {lag: history[-1 - lag] for lag in {0, *lags}}
    return Problem(mdp, history[-1], history[0], behaviours)


def figures(
    switches: Switches, on: Problem, h: Hyperparams, unit: float = 1.0
) -> dict[int, SequenceFigures]:
    """The bias, the direction, the variance and the signal-to-noise ratio of an estimator, exactly,
    by lag.

    The truth is ∇J_β with the switches' KL estimate, of weight `h.kl_coef`; without one, ∇J.

    Args:
        switches: The estimator.
        on: The problem.
        h: The hyperparameters.
        unit: The unit of the variance.
    """
    of_truth = h._replace(kl_coef=0.0) if switches.kl == "none" else h
    truth = regularised_gradient(on.mdp, on.logits, on.reference, of_truth)
    return {
        lag: _against(truth.ravel(), mean, variance, unit)
        for lag, (mean, variance) in moments(switches, on, h).items()
    }


def moments(
    switches: Switches, on: Problem, h: Hyperparams
) -> dict[int, tuple[Float[np.ndarray, " P"], float]]:
    """The mean [S V] of an estimate, and the trace of its covariance times the sequences in it, by
    lag.

    Args:
        switches: The estimator.
        on: The problem.
        h: The hyperparameters.
    """
    policy = tabular.table_policy(jnp.asarray(on.logits))
    estimator = sequences.build(policy, h, switches, jnp.asarray(on.reference))
    params = estimator.init(jax.random.key(0))[0]
    # one program for all lags
    of_logits = jax.jit(moments_by_logits(estimator, params, on.mdp, GROUP, share_start=True))
    found = {}
    for lag, behaviour in on.behaviours.items():
        mean, second = (np.asarray(x) for x in of_logits(jnp.asarray(behaviour)))
        found[lag] = mean, GROUP * float(np.trace(second) - mean @ mean)
    return found


def plain_variance(on: Problem, h: Hyperparams) -> float:
    """The variance per sequence of the plain policy gradient, without a lag.

    Args:
        on: The problem.
        h: The hyperparameters.
    """
    return moments(Switches(baseline="none"), on, h)[0][1]


def _against(
    truth: Float[np.ndarray, " P"], mean: Float[np.ndarray, " P"], variance: float, unit: float
) -> SequenceFigures:
    """The figures of an estimate of this mean and variance.

    Args:
        truth: The gradient that it is compared with.
        mean: Its mean.
        variance: That per sequence.
        unit: The unit of the variance.
    """
    bias, length = relative_distance(mean, truth), float(np.linalg.norm(mean))
    cosine = float(mean @ truth) / (length * float(np.linalg.norm(truth))) if length else np.nan
    signal_to_noise = length**2 / variance if variance else np.inf
    return SequenceFigures(
        0.0 if bias < ROUNDING else bias, cosine, variance / unit, signal_to_noise
    )
