"""Policy gradients over sequences: one estimator with switches; the published ones are presets.

    loss = -(1/N) Σₙ Σₜ surrogate(ρ, Ψₜ),   Ψₜ = (R - baseline) / scale / divisor

Some choices have the mean ∇J_β(θ), J_β = E[R] - β KL(π ‖ π_ref); the means of the others are in the
table of proofs. The reference policy is the initial policy, or a given one; its parameters are the
estimator's state.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pg import baselines, returns, surrogates
from pg.config import Hyperparams
from pg.estimators.base import (
    Credit,
    Estimator,
    ExtraMetrics,
    Params,
    Surrogate,
    Weighted,
    build_estimator,
    discounted_reward_to_go,
    greedy_return,
    group_of,
    map_along,
    policy_output,
    return_and_error,
)
from pg.estimators.switches import Switches, facts_of, name_of
from pg.estimators.trees import check_trees_equal
from pg.extra_rollouts import ExtraRollouts
from pg.inputs import check_name
from pg.networks import Network
from pg.rollout import Trajectory

Factory = Callable[[Network, Network, Hyperparams], Estimator]


class Reference(NamedTuple):
    """The reference policy along a batch: leaves [T, B, ...]."""

    log_prob: Float[Array, "T B"]  # log π_ref(a|s) of the action taken
    dist: Any  # its distributions, for a sum over all actions; () if not needed
    weight: Float[Array, "T B"]  # weight of the KL estimate in the reward or the loss
    kl_coef: Float[Array, "T B"] | tuple[()] = ()  # β if it is adaptive


class Adaptive(NamedTuple):
    """The state of an estimator with an adaptive β."""

    reference: PyTree  # the parameters of the reference policy
    kl_coef: Float[Array, ""]  # β of the next batch


MOST_ERROR = 0.2  # bound of the relative error in the control of β


class Constants(NamedTuple):
    """The constants of a batch that the surrogate needs besides Ψ: leaves [T, B, ...], or ()."""

    reference: Any = ()  # a `Reference`
    reward: Float[Array, "T B"] | tuple[()] = ()  # per decision: γᵗ r over scale and divisor
    # the log of the mean weight, by which weights are divided
    log_mean_weight: Float[Array, "T B"] | tuple[()] = ()


def sequence_estimator(reference: PyTree = None, **switches: Any) -> Factory:
    """A policy gradient over sequences: a function of policy, critic and hyperparameters, like the
    estimators of the table.

        estimator = sequence_estimator(baseline="mean", scale="group", average="sequence")
        config = pg.Config(estimator=estimator, group_size=4)

    Args:
        reference: Parameters of the reference policy, for the policy's network; None: the initial
            parameters.
        switches: Fields of `Switches` by name.

    Raises:
        ValueError: An unknown switch, or incompatible switches.
    """
    for name in switches:
        check_name("switch", name, [field.name for field in fields(Switches)])
    chosen = Switches(**switches)

    def sequence(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return build(policy, h, chosen, reference)

    # the name distinguishes its results from those of other switches
    sequence.__name__ = name_of(chosen)
    sequence.facts = facts_of(chosen)  # type: ignore[attr-defined]
    return sequence


def build(
    policy: Network, h: Hyperparams, switches: Switches, reference: PyTree = None
) -> Estimator:
    """The estimator of the switches.

    Metrics: with a ratio, kl and clip_fraction as in `drift`, for the clipped ratio; with a
    reference, reference_kl and reference_kl_k1, the estimates k3 and k1 of KL(π ‖ π_ref) in nats
    per step, off-policy weighted by the ratio of each step; and kl_coef if β is adaptive.

    Args:
        policy: The learning policy.
        h: The hyperparameters.
        switches: The switches.
        reference: See `sequence_estimator`.
    """
    adaptive = switches.kl_control == "adaptive"
    in_reward = switches.kl != "none" and switches.kl_place == "reward"
    in_loss = switches.kl != "none" and switches.kl_place != "reward"
    normalised = switches.self_normalised != "none"

    def weigh(params: Params, state: PyTree, traj: Trajectory) -> Credit:
        divisor = _divisor(switches, traj)
        own_log_prob: Any = ()
        own_dist: Any = ()
        if in_reward or normalised or adaptive:
            own_log_prob, own_dist = _log_prob_along(switches, policy, params, traj)
        reference: Any = ()
        if switches.with_reference:
            reference = _reference_along(switches, policy, params, state, traj, h, divisor)
        after = state
        if adaptive:
            measured = _divergence_of_batch(own_log_prob, reference, traj)
            after = state._replace(kl_coef=adapted(state.kl_coef, measured, h))
        extra = Constants(reference)
        if in_reward:
            estimate = divergence(switches.kl, own_log_prob, own_dist, reference)
            penalty = jnp.where(traj.valid, reference.weight * estimate, 0.0)
            traj = traj._replace(reward=traj.reward - penalty)
        psi = _advantage(switches, traj, h) / divisor
        if normalised:
            log_mean = _log_mean_weight(switches, h, own_log_prob, traj)
            extra = extra._replace(log_mean_weight=jnp.broadcast_to(log_mean, traj.valid.shape))
        if switches.ratio == "per_decision":
            extra = extra._replace(reward=_scaled_reward(switches, traj, h) / divisor)
        return Credit(psi, (), after, extra=extra)

    surrogate = _surrogate(switches, h)
    if in_loss:
        surrogate = _minus_divergence(switches, surrogate)
    estimator = build_estimator(
        policy,
        None,
        h,
        weigh,
        surrogate,
        extra_metrics=_extra_metrics(switches, h),
        accepts="episodes",
        whole_episodes=switches.whole_sequences,
        extra_rollouts=ExtraRollouts(greedy=switches.baseline == "greedy"),
        off_policy=switches.ratio != "none",
    )
    if not switches.with_reference:
        return estimator
    if policy.reference is not None:
        if reference is not None:
            raise ValueError(
                "there are two reference policies, that of sequence_estimator(reference) and that "
                "of Config(reference): give one of them"
            )
        reference = policy.reference()
    return _with_reference(estimator, switches, h, reference)


def _with_reference(
    estimator: Estimator, s: Switches, h: Hyperparams, reference: PyTree
) -> Estimator:
    """The estimator with the reference policy, and an adaptive β if any, as its initial state.

    Args:
        estimator: The estimator, without a state.
        s: The switches.
        h: The hyperparameters.
        reference: See `sequence_estimator`.
    """

    def init(key: PRNGKeyArray) -> tuple[Params, PyTree]:
        params, _ = estimator.init(key)
        held = params.policy if reference is None else reference
        what = "the reference, state.params.policy of a run with the same networks"
        check_trees_equal(params.policy, held, what)
        if s.kl_control == "adaptive":
            return params, Adaptive(held, jnp.asarray(h.kl_coef, jnp.zeros(()).dtype))
        return params, held

    return estimator._replace(init=init)


def divergence(
    estimate: str, log_prob: Float[Array, "*B"], dist: Any, reference: Reference
) -> Float[Array, "*B"]:
    """An estimate of KL(π ‖ π_ref) in nats, [...], from ℓ = log π(a) - log π_ref(a)  (Schulman
    2020, "Approximating KL divergence").

    Args:
        estimate: k1: ℓ; k2: ℓ² / 2; k3: exp(-ℓ) - 1 + ℓ; full: Σₐ π(a) ℓ(a).
        log_prob: log π of the action taken, [...].
        dist: The distributions of π, for `full`.
        reference: The reference policy at the same steps.
    """
    if estimate == "full":
        return dist.kl(reference.dist)
    log_ratio = log_prob - reference.log_prob
    if estimate == "k1":
        return log_ratio
    if estimate == "k2":
        return 0.5 * log_ratio**2
    return jnp.expm1(-log_ratio) + log_ratio


def adapted(
    kl_coef: Float[Array, ""], measured: Float[Array, ""], h: Hyperparams
) -> Float[Array, ""]:
    """β (1 + K clip(KL / target - 1, -0.2, 0.2)), []  (Ziegler et al. 2019, 1909.08593, section
    2.2).

    Args:
        kl_coef: β for a batch.
        measured: KL on that batch, in nats per sequence.
        h: The hyperparameters; `kl_gain` is K, and `kl_target` the target.
    """
    error = jnp.clip(measured / h.kl_target - 1.0, -MOST_ERROR, MOST_ERROR)
    return kl_coef * (1.0 + h.kl_gain * error)


def _reference_along(
    s: Switches,
    policy: Network,
    params: Params,
    state: PyTree,
    traj: Trajectory,
    h: Hyperparams,
    divisor: Any,
) -> Reference:
    """The reference policy along a batch.

    Args:
        s: The switches.
        policy: The learning policy, with the same network as the reference.
        params: Its parameters.
        state: The estimator's state, see `_with_reference`.
        traj: The batch.
        h: The hyperparameters.
        divisor: The divisor of each step.
    """
    adaptive = s.kl_control == "adaptive"
    held, kl_coef = (state.reference, state.kl_coef) if adaptive else (state, h.kl_coef)
    log_prob, dist = _log_prob_along(s, policy, params._replace(policy=held), traj)
    shape = traj.valid.shape
    weight = jnp.broadcast_to(kl_coef / _penalty_divisor(s, divisor), shape)
    return Reference(log_prob, dist, weight, jnp.broadcast_to(kl_coef, shape) if adaptive else ())


def _divergence_of_batch(
    log_prob: Float[Array, "T B"], reference: Reference, traj: Trajectory
) -> Float[Array, ""]:
    """The mean over the sequences of Σₜ ρₜ ℓₜ, [], in nats, at the visited states.

    Args:
        log_prob: log π of the actions, [T, B].
        reference: The reference policy at the same steps.
        traj: The batch.
    """
    of_step = jnp.exp(log_prob - traj.log_prob) * (log_prob - reference.log_prob)
    return jnp.mean(jnp.sum(jnp.where(traj.valid, of_step, 0.0), axis=0))


def _advantage(s: Switches, traj: Trajectory, h: Hyperparams) -> Float[Array, "#T B"]:
    """(R - baseline) / scale, [1, B]; [T, B] if steps are credited with rewards to go."""
    total, error = return_and_error(traj, h)
    if s.credit == "to_go":
        return _of_each_step(s, total, error, traj, h)
    compared = _centred_return(s, total, error, traj, h)
    if s.scale == "group":
        compared = compared / baselines.group_deviation(total, error, group_of(traj))
    if s.scale == "batch":
        compared = compared / baselines.deviation(total, error)
    return compared[None]


def _of_each_step(
    s: Switches,
    total: Float[Array, " B"],
    error: Float[Array, " B"],
    traj: Trajectory,
    h: Hyperparams,
) -> Float[Array, "T B"]:
    """The rewards to go, minus the baseline and divided by the scale; for the batch these are the
    mean and standard deviation over its steps.
    """
    to_go = discounted_reward_to_go(traj, h)
    if s.baseline == "batch":
        compared = baselines.centred(to_go, traj.valid)
    else:
        compared = to_go - (total - _centred_return(s, total, error, traj, h))[None]
    if s.scale == "batch":
        compared = compared / baselines.deviation(to_go, error[None], traj.valid)
    return compared


def _centred_return(
    s: Switches,
    total: Float[Array, " B"],
    error: Float[Array, " B"],
    traj: Trajectory,
    h: Hyperparams,
) -> Float[Array, " B"]:
    """R minus the baseline, [B]."""
    if s.baseline == "none":
        return total
    if s.baseline == "batch":
        return baselines.centred(total)
    if s.baseline == "greedy":
        return total - greedy_return(traj, h)
    group = group_of(traj)
    if s.baseline == "mean":
        return baselines.group_centred(total, group)
    if s.baseline == "leave_one_out":
        return total - baselines.group_leave_one_out(total, group)
    if s.baseline == "shrinkage":
        return total - baselines.group_shrinkage(total, error, group)
    length = _length(traj)
    by_length = baselines.group_mean(length * total, group) / baselines.group_mean(length, group)
    return total - by_length


def _divisor(s: Switches, traj: Trajectory) -> Float[Array, "1 B"] | float:
    """The divisor of each step of a sequence: 1, or [1, B]."""
    if s.average == "sum":
        return 1.0
    if s.average == "constant":
        return float(len(traj.reward))
    length = _length(traj)
    if s.average == "sequence":
        return length[None]
    if not s.in_groups:
        return jnp.full_like(length, jnp.mean(length))[None]
    return baselines.group_mean(length, group_of(traj))[None]


def _penalty_divisor(s: Switches, divisor: Any) -> Any:
    """The divisor of a step's KL estimate: in the step's loss, the divisor of its Ψ.

    In the loss of the sequence only a constant, so that the weight keeps its meaning, and no
    length; in the reward none, since Ψ, of which it is a part, is divided already.
    """
    on_sequence = s.kl_place == "sequence" and s.average == "constant"
    return divisor if s.kl_place == "loss" or on_sequence else 1.0


def _length(traj: Trajectory) -> Float[Array, " B"]:
    """The number of steps of each sequence, [B]."""
    return jnp.sum(traj.valid, axis=0, dtype=traj.reward.dtype)


def _log_prob_along(
    s: Switches, policy: Network, params: Params, traj: Trajectory
) -> tuple[Array, Any]:
    """log π(a|s) [T, B] of a policy along a batch, and its distributions if a sum over all actions
    needs them, else ().
    """

    def block(rows: Trajectory) -> tuple[Array, Any]:
        dist = policy_output(policy, params, rows)
        return dist.log_prob(rows.action), dist if s.kl == "full" else ()

    return map_along(policy, block, traj)


def _log_ratio_of(
    s: Switches, log_prob: Float[Array, "T B"], traj: Trajectory
) -> Float[Array, "T B"]:
    """The log of the importance ratio of a step, or with per-decision ratios of its reward, [T, B].

    The ratio of a sequence is one number; its gradient at a step is that of the step's own log π,
    so that the sum over steps is the sequence's gradient (times |y| for the root).
    """
    of_step = jnp.where(traj.valid, log_prob - traj.log_prob, 0.0)
    if s.ratio == "token":
        return of_step
    if s.ratio == "per_decision":
        return jnp.cumsum(of_step, axis=0)
    total = jnp.sum(of_step, axis=0)
    if s.ratio == "sequence_mean":
        total = total / _length(traj)
    zero = of_step - jax.lax.stop_gradient(of_step)
    return jax.lax.stop_gradient(total)[None] + zero


def _log_weight(s: Switches, h: Hyperparams, log_ratio: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """The log of the ratio after a clip that only affects the weight, [T, B]."""
    low, high = _bounds(s, h)
    least, most = jnp.log(jnp.maximum(1.0 - low, 0.0)), jnp.log(1.0 + high)
    if s.clip == "masked":
        return jnp.where((log_ratio >= least) & (log_ratio <= most), log_ratio, -jnp.inf)
    return jnp.clip(log_ratio, least, most)


def _log_mean_weight(
    s: Switches, h: Hyperparams, log_prob: Float[Array, "T B"], traj: Trajectory
) -> Float[Array, "#T B"]:
    """The log of the mean weight of each sequence's group or batch, over its sequences, [T, B], or
    with token ratios over its steps, [1, B]; 0 if all are masked.

    With per-decision ratios there is a mean for each step, to which an ended sequence contributes
    its last weight. Weights are summed relative to the largest in their group, as those of long
    sequences may overflow or underflow.
    """
    log_weight = _log_weight(s, h, _log_ratio_of(s, log_prob, traj))
    counted = jnp.ones_like(log_weight)
    if s.ratio == "token":
        of_steps = jnp.where(traj.valid, log_weight, -jnp.inf)
        log_weight = jax.nn.logsumexp(of_steps, axis=0, keepdims=True)
        counted = _length(traj)[None]
    number = jnp.zeros(len(counted[0]), jnp.int32)
    if s.self_normalised == "group":
        number = baselines.numbered(group_of(traj))

    def over_members(reduce: Callable[..., Array], x: Float[Array, "#T B"]) -> Float[Array, "#T B"]:
        return reduce(x.T, number, num_segments=len(number))[number].T

    largest = over_members(jax.ops.segment_max, log_weight)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    total = over_members(jax.ops.segment_sum, jnp.exp(log_weight - largest))
    mean = total / over_members(jax.ops.segment_sum, counted)
    return jnp.where(mean > 0, largest + jnp.log(jnp.where(mean > 0, mean, 1.0)), 0.0)


def _scaled_reward(s: Switches, traj: Trajectory, h: Hyperparams) -> Float[Array, "T B"]:
    """γᵗ r over the scale, [T, B]: the terms of `_of_each_step`."""
    reward = returns.discount_powers(traj.reward, h.gamma) * traj.reward
    if s.scale == "none":
        return reward
    _, error = return_and_error(traj, h)
    to_go = discounted_reward_to_go(traj, h)
    return reward / baselines.deviation(to_go, error[None], traj.valid)


def _normalised_log_weight(
    s: Switches, h: Hyperparams, log_prob: Float[Array, "T B"], batch: Weighted
) -> Float[Array, "T B"]:
    """The log of the weight of a step, or with per-decision ratios of its reward, divided by the
    mean if self-normalised: a constant, [T, B].
    """
    log_weight = _log_weight(s, h, _log_ratio_of(s, log_prob, batch.traj))
    if s.self_normalised != "none":
        log_weight -= batch.extra.log_mean_weight
    return jax.lax.stop_gradient(log_weight)


def _by_decisions(
    s: Switches, h: Hyperparams, log_prob: Float[Array, "T B"], batch: Weighted
) -> Float[Array, "T B"]:
    """Ψₜ = Σ_{k≥t} w_k rₖ - w_t b, a constant, [T, B]; the batch's Ψ has all w = 1.

    w_k is the weight of the decisions up to k, and b the baseline of the rewards to go.
    """
    reward = batch.extra.reward
    log_weight = _normalised_log_weight(s, h, log_prob, batch)
    baseline = returns.discounted_sum(reward, 1.0) - batch.psi
    to_go = returns.discounted_sum(surrogates.reweighted(reward, log_weight), 1.0)
    return to_go - surrogates.reweighted(baseline, log_weight)


def _surrogate(s: Switches, h: Hyperparams) -> Surrogate:
    """The surrogate of the ratio and its clip, [T, B]."""

    def surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        log_prob, psi = dist.log_prob(batch.traj.action), batch.psi
        if s.ratio == "none":
            return surrogates.score(log_prob, psi)
        if s.ratio == "per_decision":
            return surrogates.score(log_prob, _by_decisions(s, h, log_prob, batch))
        if s.self_normalised != "none":
            log_weight = _normalised_log_weight(s, h, log_prob, batch)
            return surrogates.score(log_prob, surrogates.reweighted(psi, log_weight))
        log_ratio = _log_ratio_of(s, log_prob, batch.traj)
        if s.clip == "none":
            return surrogates.reweighted(psi, log_ratio)
        if s.clip == "soft_gate":
            return surrogates.soft_gate(log_ratio, psi, h.gate_rising, h.gate_falling)
        low, high = _bounds(s, h)
        if s.clip == "dual":
            return surrogates.dual_clipped_ratio(log_ratio, psi, low, high, h.ratio_bound)
        if s.clip == "masked":
            return surrogates.masked_ratio(log_ratio, psi, low, high)
        if s.clip in ("weight", "truncated"):
            return surrogates.clipped_weight(log_ratio, psi, low, high)
        return surrogates.clipped_ratio(log_ratio, psi, low, high)

    return surrogate


def _bounds(s: Switches, h: Hyperparams) -> tuple[Any, Any]:
    """The clip range of the ratio below and above 1."""
    if s.clip in ("symmetric", "dual"):
        return h.epsilon, h.epsilon
    if s.clip == "truncated":
        return math.inf, h.ratio_bound - 1
    if s.clip in ("asymmetric", "weight", "masked"):
        return h.epsilon, h.epsilon_high
    return math.inf, math.inf


def _minus_divergence(s: Switches, surrogate: Surrogate) -> Surrogate:
    """The surrogate minus the KL estimate in the loss, [T, B]; that of a sequence is at its first
    step.
    """

    def less(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        traj, reference = batch.traj, batch.extra.reference
        log_prob = dist.log_prob(traj.action)
        if s.kl_place == "sequence":
            log_ratio = jnp.where(traj.valid, log_prob - reference.log_prob, 0.0)
            total = jnp.sum(log_ratio, axis=0)
            # 0, as the reference's log-probability is already subtracted
            of_sequence = divergence(s.kl, total, (), reference._replace(log_prob=0.0))
            estimate = jnp.where(traj.first, of_sequence[None], 0.0)
        else:
            estimate = divergence(s.kl, log_prob, dist, reference)
            if s.kl_ratio:
                estimate = jnp.exp(log_prob - traj.log_prob) * estimate
        return surrogate(dist, batch) - reference.weight * estimate

    return less


def _extra_metrics(s: Switches, h: Hyperparams) -> ExtraMetrics | None:
    """The metrics of `build`; None where there are none."""
    if s.ratio == "none" and not s.with_reference:
        return None

    def extra_metrics(dist: Any, batch: Weighted) -> dict[str, Float[Array, "T B"]]:
        log_prob = dist.log_prob(batch.traj.action)
        of_step = log_prob - batch.traj.log_prob
        metrics = {}
        if s.ratio != "none":
            low, high = _bounds(s, h)
            excess = jnp.expm1(_log_ratio_of(s, log_prob, batch.traj))
            metrics["kl"] = jnp.expm1(of_step) - of_step
            metrics["clip_fraction"] = ((excess > high) | (-excess > low)).astype(log_prob.dtype)
        if s.with_reference:
            ratio, reference = jnp.exp(of_step), batch.extra.reference
            metrics["reference_kl"] = ratio * divergence("k3", log_prob, (), reference)
            metrics["reference_kl_k1"] = ratio * divergence("k1", log_prob, (), reference)
        if s.kl_control == "adaptive":
            metrics["kl_coef"] = batch.extra.reference.kl_coef
        return metrics

    return extra_metrics
