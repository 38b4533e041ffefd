"""Selection during training: of several candidates, the one whose gradient had the smallest mean
squared error on past batches.

    Ψ of update k = Ψ of candidate argminᵢ (vᵢ + bᵢ²),   v, b² averaged over batches before k

Given the past, the choice is a constant and the estimate is that of one candidate: it is unbiased
if all of them are. A choice by the batch itself would prefer batches in which a candidate happens
to be small, and so be biased.

A batch of N episodes is split into two halves, which are independent given the policy. With gᵢᴬ,
gᵢᴮ candidate i's gradients on the two, each with a baseline from its own half,

    vᵢ  = ‖gᵢᴬ - gᵢᴮ‖² / 4                has the mean tr Cov of (gᵢᴬ + gᵢᴮ) / 2
    bᵢ² = (gᵢᴬ - gᵣᴬ) · (gᵢᴮ - gᵣᴮ)       has the mean ‖E gᵢ - E gᵣ‖², r a reference

while the square of a single difference would include its variance in the mean. The bias of an
unbiased candidate is 0, and not measured.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from pg import nonfinite
from pg.baselines import MovingAverage
from pg.branches import Branching
from pg.config import Hyperparams, part_name
from pg.estimators.base import Estimator, Params, Weighted
from pg.estimators.candidates import (
    Candidate,
    candidates_of,
    facts_of_selection,
    reference_of,
    reference_of_selection,
)
from pg.estimators.checks import factory_of
from pg.estimators.combined import loaded, with_hyperparams, with_value_loss
from pg.estimators.family import Factory
from pg.estimators.names import facts_of
from pg.extra_rollouts import ExtraRollouts
from pg.fast import blocks
from pg.inputs import count
from pg.networks import Network
from pg.rollout import Trajectory


class SelectionState(NamedTuple):
    """The states of the candidates, and the measurements of each on the batches so far."""

    candidates: tuple[PyTree, ...]
    variance: tuple[MovingAverage, ...]
    squared_bias: tuple[MovingAverage, ...]  # which noise may make negative
    batches: Int[Array, ""]  # the number of batches so far


class Choice(NamedTuple):
    """The choice for a batch, and the further constants of the candidates: leaves [T, B, ...]."""

    number: Int[Array, "T B"]  # the index of the chosen candidate
    error: tuple[Float[Array, "T B"], ...]  # mean squared error of each, before this batch
    value: tuple[PyTree, ...]  # as in `Weighted`, of each candidate
    extra: tuple[PyTree, ...]


class Measurement(NamedTuple):
    """The comparison of candidates."""

    unbiased: tuple[bool, ...]  # whether the bias of each is known to be 0
    reference: int  # the candidate with whose mean the others' are compared
    decay: float  # of the moving averages over measurements
    period: int  # number of updates between measurements
    least_episodes: int  # of a half


def selected(
    *candidates: Factory | str, reference: str | None = None, decay: float = 0.9, period: int = 1
) -> Factory:
    """The estimator that is, at each update, the candidate with the smallest mean squared error of
    the gradient on past batches.

        estimator = selected("leave_one_out", "time_baseline", "state_value")
        config = pg.Config(estimator=estimator, num_envs=64)

    It starts with the first candidate. A measurement takes the gradients of all candidates on two
    half batches, and no environment steps; with vmapped seeds each update takes the gradients of
    all candidates too. Policy and critic are shared. The critic always learns: if the chosen
    candidate has none, from the targets of the first that has one. Metrics: `selected`, the index
    of the chosen candidate, from 0, and `error_NAME` for each, v + b² before this batch (NaN before
    the first measurement).

    Halves consist of whole groups if their number is even. With a torso shared by policy and
    critic, v includes the critic's gradient. The natural gradient uses the first candidate's state
    weighting.

    Args:
        candidates: Functions of policy, critic and hyperparameters, or their names; at least two.
        reference: The name of the candidate whose mean replaces the gradient in b²; default: the
            first unbiased one.
        decay: Decay rate of the moving averages over measurements, in [0, 1).
        period: Number of updates between measurements.

    Raises:
        ValueError: Candidates that cannot share a critic, batches or extra rollouts; two of the
            same name; or no unbiased one and no reference.
    """
    if len(candidates) == 1 and isinstance(candidates[0], list):
        raise ValueError("candidates are arguments, got one list: write selected(*candidates)")
    candidates = tuple(map(loaded, candidates))
    names = [part_name(candidate) for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two candidates are called {name!r}: leave one out, or rename it")
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be in [0, 1), got {decay!r}")
    rows = dict(zip(names, map(facts_of, candidates), strict=True))
    facts = facts_of_selection(rows)
    compared_with = reference_of_selection(rows, reference)
    objective = rows[compared_with].unbiased_for
    compares = any(row.depends_on_batch for row in rows.values())
    how = Measurement(
        unbiased=tuple(
            name == compared_with or row.unbiased_for == objective != "no"
            for name, row in rows.items()
        ),
        reference=names.index(compared_with),
        decay=decay,
        period=count("period", period),
        least_episodes=2 if compares else 1,
    )
    factories = [factory_of(candidate) for candidate in candidates]

    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        made = [factory(policy, critic, h) for factory in factories]
        return _selection(names, made, how, critic if any(map(_has_critic, made)) else None, h)

    make.__name__ = f"selected_of_{'_and_'.join(names)}"
    make.facts = facts  # type: ignore[attr-defined]
    make.candidates = tuple(names)  # type: ignore[attr-defined]
    return make


def of_name(text: str) -> Factory:
    """The estimator for a name such as selected:leave_one_out+state_value.

    Raises ValueError as `pg.estimators.names.candidates_of` and `selected` do.
    """
    candidates = candidates_of(text)
    factory = selected(*map(_candidate, candidates), reference=reference_of(candidates))
    factory.__name__ = text
    return factory


def _candidate(listed: Candidate) -> Factory | str:
    if listed.gae_lambda is None:
        return listed.estimator
    return with_hyperparams(listed.estimator, gae_lambda=listed.gae_lambda)


def _has_critic(made: Estimator) -> bool:
    """True for an estimator with parameters of a critic, whatever its facts declare."""
    params, _ = jax.eval_shape(made.init, jax.random.key(0))
    return bool(jax.tree.leaves(params.critic))


def _selection(
    names: list[str],
    made: list[Estimator],
    how: Measurement,
    critic: Network | None,
    h: Hyperparams,
) -> Estimator:
    """The estimator that is one of others.

    Args:
        names: The names of the candidates.
        made: The candidates.
        how: The comparison of candidates.
        critic: The shared critic; None without one.
        h: The hyperparameters.
    """
    grads = [est.grad if critic is None else with_value_loss(est, critic, h) for est in made]

    def init(key: PRNGKeyArray) -> tuple[Params, SelectionState]:
        started = [est.init(key) for est in made]
        params = next((p for p, _ in started if jax.tree.leaves(p.critic)), started[0][0])
        nothing = (MovingAverage.start(),) * len(made)
        states = tuple(state for _, state in started)
        return params, SelectionState(states, nothing, nothing, jnp.int32(0))

    def weigh(
        params: Params, state: SelectionState, traj: Trajectory
    ) -> tuple[Weighted, SelectionState]:
        error = errors(state)
        number = jnp.argmin(error).astype(jnp.int32)  # before this batch is measured
        results = [
            est.weigh(params, own, traj) for est, own in zip(made, state.candidates, strict=True)
        ]
        weighed = [batch for batch, _ in results]
        after = _measured(made, how, params, state, traj)
        after = after._replace(candidates=tuple(own for _, own in results))
        return _chosen(weighed, number, error), after

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
        choice = batch.extra
        of_each = [
            functools.partial(own_grad, params, batch._replace(value=value, extra=extra))
            for own_grad, value, extra in zip(grads, choice.value, choice.extra, strict=True)
        ]
        number = choice.number[0, 0]
        gradient, metrics = jax.lax.switch(number, _with_common_metrics(of_each))
        metrics["selected"] = number.astype(batch.psi.dtype)
        for name, error in zip(names, choice.error, strict=True):
            metrics[re.sub(r"[^\w.]+", "_", f"error_{name}")] = error[0, 0]
        return gradient, metrics

    first = made[0]
    return Estimator(
        init,
        weigh,
        grad,
        accepts=tuple(way for way in first.accepts if all(way in est.accepts for est in made)),
        separable=all(est.separable for est in made),
        state_discount=first.state_discount,
        extra_rollouts=_all_extra_rollouts([est.extra_rollouts for est in made]),
    )


def errors(state: SelectionState) -> Float[Array, " K"]:
    """The mean squared error v + b² of each candidate's gradient, [K], in squared units of the
    gradient; inf before the first measurement. A b² below 0, which is noise, counts as 0.
    """
    of_each = []
    for variance, squared_bias in zip(state.variance, state.squared_bias, strict=True):
        error = variance.value() + jnp.maximum(squared_bias.value(), 0.0)
        of_each.append(jnp.where(variance.weight > 0, error, jnp.inf))
    return jnp.stack(of_each)


def _chosen(weighed: list[Weighted], number: Int[Array, ""], error: Float[Array, " K"]) -> Weighted:
    """The batch as weighted by one candidate, with the constants that all gradients need.

    Args:
        weighed: The batch as weighted by each candidate.
        number: The index of the candidate.
        error: The mean squared errors by which it was chosen.

    Raises:
        ValueError: One has a Ψ per step, and another a Ψ per action.
    """
    psi, steps = [batch.psi for batch in weighed], weighed[0].traj.valid.shape
    if len({x.ndim for x in psi}) > 1:
        raise ValueError(
            "some candidates have one Ψ for each step, and others one for every action: leave "
            "either out"
        )
    targets = [batch.target for batch in weighed]
    own = next((target for target in targets if jax.tree.leaves(target)), ())
    targets = [target if jax.tree.leaves(target) else own for target in targets]
    known = jnp.where(jnp.isfinite(error), error, nonfinite.missing())
    choice = Choice(
        number=jnp.broadcast_to(number, steps),
        error=tuple(jnp.broadcast_to(x, steps) for x in known),
        value=tuple(batch.value for batch in weighed),
        extra=tuple(batch.extra for batch in weighed),
    )
    return weighed[0]._replace(
        psi=jax.lax.select_n(number, *psi),
        target=jax.tree.map(lambda *x: jax.lax.select_n(number, *x), *targets),
        value=(),
        extra=choice,
    )


def _measured(
    made: list[Estimator],
    how: Measurement,
    params: Params,
    state: SelectionState,
    traj: Trajectory,
) -> SelectionState:
    """The state updated with measurements on a batch, every `how.period`-th time.

    A non-finite measurement of a candidate is left out.
    """
    params = jax.lax.stop_gradient(params)
    due = state.batches % how.period == 0

    def measure() -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        return _variance_and_squared_bias(made, how, params, state, traj)

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure))
    # one branch for all vmapped runs: otherwise each would compute both
    v, squared_bias = jax.lax.cond(blocks.largest(due), measure, lambda: nothing)
    counts = due & jnp.isfinite(v) & jnp.isfinite(squared_bias)

    def included(
        averages: tuple[MovingAverage, ...], measurements: Float[Array, " K"]
    ) -> tuple[MovingAverage, ...]:
        after = []
        for average, x, is_counted in zip(averages, measurements, counts, strict=True):
            longer = average.update(x, how.decay)
            after.append(jax.tree.map(functools.partial(jnp.where, is_counted), longer, average))
        return tuple(after)

    return state._replace(
        variance=included(state.variance, v),
        squared_bias=included(state.squared_bias, squared_bias),
        batches=state.batches + 1,
    )


def _variance_and_squared_bias(
    made: list[Estimator],
    how: Measurement,
    params: Params,
    state: SelectionState,
    traj: Trajectory,
) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """v and b² of each candidate on one batch, [K] each. Raises ValueError if the batch is too
    small for two halves.
    """
    number = traj.valid.shape[1]
    size = number // 2
    if size < how.least_episodes:
        raise ValueError(
            f"candidates are compared on halves of a batch, of at least {how.least_episodes} "
            f"episodes each: give num_envs={2 * how.least_episodes} or more, got {number}"
        )
    halves = jax.tree.map(lambda x: jnp.stack([x[:, :size], x[:, size : 2 * size]]), traj)

    def gradients(half: Trajectory) -> Float[Array, "K P"]:
        of_each = []
        for est, own in zip(made, state.candidates, strict=True):
            gradient, _ = est.grad(params, est.weigh(params, own, half)[0])
            of_each.append(ravel_pytree(gradient.policy)[0])
        return jnp.stack(of_each)

    first, second = jax.lax.map(gradients, halves)
    variance = jnp.sum((first - second) ** 2, axis=1) / 4.0
    off_first = first - first[how.reference][None]
    off_second = second - second[how.reference][None]
    squared_bias = jnp.sum(off_first * off_second, axis=1)
    return variance, jnp.where(np.asarray(how.unbiased), 0.0, squared_bias)


def _with_common_metrics(grads: Sequence[Callable[[], Any]]) -> list[Callable[[], Any]]:
    """Functions that return gradients and metrics, restricted to the metrics that all of them
    have.
    """
    metrics = [set(jax.eval_shape(grad)[1]) for grad in grads]
    common = sorted(set.intersection(*metrics))

    def of_one(grad: Callable[[], Any]) -> tuple[Params, dict[str, Array]]:
        gradient, own_metrics = grad()
        return gradient, {name: own_metrics[name] for name in common}

    return [functools.partial(of_one, grad) for grad in grads]


def _all_extra_rollouts(wanted: list[ExtraRollouts]) -> ExtraRollouts:
    """The union of the extra rollouts of all candidates. Raises ValueError if two need different
    branches from the same states, or different numbers of initial states.
    """
    branches = [each.branches for each in wanted if isinstance(each.branches, Branching)]
    kinds = {(x.kind, x.common_numbers, x.every_state) for x in branches}
    if len(kinds) > 1:
        raise ValueError("candidates branch out of states in different ways: leave all but one out")
    numbers = {each.starts for each in wanted if each.starts}
    if len(numbers) > 1:
        raise ValueError(
            "candidates want different numbers of extra initial states, "
            f"{' and '.join(map(str, sorted(numbers)))}: give all the same"
        )
    return ExtraRollouts(
        greedy=any(each.greedy for each in wanted),
        successors=any(each.successors for each in wanted),
        lookahead=any(each.lookahead for each in wanted),
        branches=branches[0] if branches else (),
        starts=max(numbers, default=0),
    )
