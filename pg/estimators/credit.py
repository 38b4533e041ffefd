"""Hindsight credit assignment: a later reward is credited to an action by how much more probable
the action made it.

    w(s, a, u) = p(u | s, a) / p(u | s) - 1 = h(a | s, u) / π(a | s) - 1
    ∇J = E[ Σₜ γᵗ (∇log π(aₜ|sₜ) rₜ + Σₐ ∇π(a|sₜ) Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, uₖ) rₖ) ]

u is an outcome: the later state (hindsight credit assignment; Harutyunyan et al. 2019,
1912.02503), the later reward or features of it (COCOA; Meulemans et al. 2023, 2306.16803, eq. 4),
or the return. h is the hindsight distribution of the action given the outcome. Each function makes
an estimator for `Config.estimator`, from known coefficients (`pg.exact.tabular` has those of
tabular MDPs) or from an h that a network learns.

The mean is ∇J if w is exact and the outcome is sufficient for the reward: E[rₖ | sₜ, aₜ, uₖ] is a
function of uₖ. w and h may be shared by all times, with each pair of steps weighted by γᵏ.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import returns
from pg.config import Hyperparams
from pg.envs import Masked
from pg.estimators.action_values import at_action, corrected, every_action
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    Weighted,
    build_estimator,
    map_along,
    policy_output,
)
from pg.estimators.facts import Facts
from pg.fast import blocks
from pg.inputs import check_function, check_kind, described, numbers
from pg.networks import Network, Pair, check_shape, unroll
from pg.rollout import Trajectory

Factory = Callable[[Network, Network, Hyperparams], Estimator]
# params, trajectory, k -> w of every step and action, for the outcome of step k; steps t ≥ k are
# ignored
Coefficients = Callable[[Params, Trajectory, Int[Array, ""]], Float[Array, "T B A"]]
# params, trajectory -> w of every step and action, for the return from that step on
ReturnCoefficients = Callable[[Params, Trajectory], Float[Array, "T B A"]]
# trajectory -> the outcome of each step, leaves [T, B, ...]
Outcome = Callable[[Trajectory], PyTree]

_PER_ACTION = "coefficients are one number for each action"
_IF_EXACT = "J only if w is exact, and the outcome tells all of the reward"
_PSI = "γᵗ (1[a = aₜ] rₜ / π(aₜ|sₜ) + Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, uₖ) rₖ), for every a"
_SOURCE = "COCOA; Meulemans et al. 2023, 2306.16803; Harutyunyan et al. 2019, 1912.02503"


def later_states(traj: Trajectory) -> PyTree[Shaped[Array, "T B ..."]]:
    """The observation of each step, as an outcome (state-HCA; 1912.02503, theorem 1)."""
    return traj.obs.obs if isinstance(traj.obs, Masked) else traj.obs


def later_rewards(traj: Trajectory) -> Float[Array, "T B 1"]:
    """The reward of each step, [T, B, 1], as an outcome (COCOA-reward; 2306.16803, section 3).

    With a `temperature` this reward includes entropy, while that of exact coefficients does not:
    they are exact only without one.
    """
    return traj.reward[..., None]


def counterfactual(coefficients: Coefficients) -> Factory:
    """An estimator that credits every action with later rewards, by known coefficients.

    For complete episodes with discrete actions; unbiased for J if w is exact and the outcome is
    sufficient for the reward. It takes a pass over the batch for each step.

    Args:
        coefficients: params, trajectory, k -> w(sₜ, a, uₖ) of every step and action, [T, B, A].

    Raises:
        ValueError: `coefficients` is not a function of these; while traced, for another shape.
    """
    instead = "write a function that returns w of every action, [T, B, A]"
    check_function("coefficients", coefficients, ("params", "trajectory", "k"), instead)

    def known_contributions(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
            of_outcome = functools.partial(coefficients, params, traj)
            return Credit(contributions(of_outcome, traj, h))

        return build_estimator(policy, None, h, weigh, every_action, accepts="episodes")

    return _stated(known_contributions)


def contributions(
    coefficients: Callable[[Int[Array, ""]], Float[Array, "T B A"]],
    traj: Trajectory,
    h: Hyperparams,
) -> Float[Array, "T B A"]:
    """γᵗ (1[a = aₜ] rₜ / π(aₜ|sₜ) + Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, uₖ) rₖ), [T, B, A].

    Args:
        coefficients: k -> w(sₜ, a, uₖ) of every step and action, [T, B, A].
        traj: Complete episodes.
        h: The hyperparameters, for `gamma`.
    """
    reward = returns.discount_powers(traj.reward, h.gamma) * traj.reward
    time = jnp.arange(len(reward))

    def credited(k: Int[Array, ""]) -> Float[Array, "T B A"]:
        w = _per_action(coefficients(k), traj)
        earlier = (time < k)[:, None] & traj.valid[k][None]
        return jnp.where(earlier[..., None], w, 0.0) * reward[k][None, :, None]

    def add(k: Int[Array, ""], total: Float[Array, "T B A"]) -> Float[Array, "T B A"]:
        return total + credited(k)

    shape = jax.eval_shape(credited, jnp.int32(0))
    zero = jnp.zeros(shape.shape, shape.dtype)
    later = jax.lax.fori_loop(1, blocks.num_steps(traj.valid), add, zero)
    return corrected(later, reward, traj)


def return_hindsight(
    coefficients: ReturnCoefficients, *, every_action_credited: bool = False
) -> Factory:
    """An estimator that credits an action with the return, by known coefficients of the return.

    Ψₜ = γᵗ (1 - π(aₜ|sₜ) / h(aₜ|sₜ, Gₜ)) Gₜ as published (return-HCA; Harutyunyan et al. 2019,
    1912.02503, theorem 2). In addition to an exact h this requires that every possible return has a
    positive probability after every action: a return that an action makes impossible would be
    missing from the comparison. Crediting every action, γᵗ w(sₜ, a, Gₜ) Gₜ, does not require it
    (COCOA with the return as the outcome).

    Args:
        coefficients: params, trajectory -> w(sₜ, a, Gₜ) = h(a|sₜ, Gₜ) / π(a|sₜ) - 1, [T, B, A], Gₜ
            the discounted return from step t on, including entropy if there is a temperature.
        every_action_credited: Credit every action instead of only the action taken.

    Raises:
        ValueError: `coefficients` is not a function of these; while traced, for another shape.
    """
    instead = "write a function that returns w of every action, [T, B, A]"
    check_function("coefficients", coefficients, ("params", "trajectory"), instead)

    def hindsight_of_returns(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
            w = _per_action(coefficients(params, traj), traj)
            to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
            to_go = returns.discount_powers(to_go, h.gamma) * to_go
            if every_action_credited:
                return Credit(w * to_go[..., None])
            ratio = 1.0 + at_action(w, traj.action)  # h / π
            return Credit(jnp.where(traj.valid, (1.0 - 1.0 / ratio) * to_go, 0.0))

        if every_action_credited:
            return build_estimator(policy, None, h, weigh, every_action, accepts="episodes")
        return build_estimator(policy, None, h, weigh, accepts="episodes")

    if every_action_credited:
        return _stated(hindsight_of_returns, "γᵗ w(sₜ, a, Gₜ) Gₜ, for every a")
    return _stated(hindsight_of_returns, "γᵗ (1 - π(aₜ|sₜ) / h(aₜ|sₜ, Gₜ)) Gₜ")


def learned_counterfactual(network: Network, outcome: Outcome = later_states) -> Factory:
    """`counterfactual` with a hindsight distribution that a network learns from the batch.

    h(a|s, u) ∝ π(a|s) exp f(a|s, u): with f = 0 later rewards are not credited at all. f minimises
    the cross-entropy of the actions taken, -Σ_{t<k} γᵏ log h(aₜ|sₜ, uₖ), times `value_coef`,
    instead of a critic's loss, and is updated after the policy's step like a critic.

    Biased wherever h is wrong. It takes two passes of the network over the batch for each step.
    Metric: hindsight_loss, in nats per pair of steps.

    Args:
        network: Parameters, carry, `Pair`, first -> carry, f [T, B, A], without a recurrent state.
        outcome: Trajectory -> uₖ of each step, leaves [T, B, ...]: `later_states`,
            `later_rewards`, or custom features.

    Raises:
        ValueError: `network` is not a Network, or has a recurrent state; while traced, for
            another shape of f.
    """
    check_kind("network", network, Network, "write pg.Network(init, apply)")
    check_function("outcome", outcome, ("trajectory",), "write a function that returns [T, B, ...]")
    if network.recurrent:
        raise ValueError(
            "a hindsight network is given one step and one outcome: it can have no recurrent state"
        )

    def learned_contributions(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return _learned(policy, network, h, outcome)

    return _stated(learned_contributions)


def hindsight_credit(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A later reward is credited to an action by how much more probable the action made the state
    in which it is earned (state-HCA; Harutyunyan et al. 2019, 1912.02503, theorem 1).

    h(a|s, s') ∝ π(a|s) exp f(s, s')[a] is learned from the batch, as in `learned_counterfactual`. w
    is the paper's h / π minus 1, which makes no difference in a sum over ∇π(a); rₜ is sampled,
    where the paper learns its mean.

    Ψₜ = γᵗ (1[a = aₜ] rₜ / π(aₜ|sₜ) + Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, sₖ) rₖ), for every a,  w = h / π - 1
    Unbiased for: nothing: J only if h is exact.
    Variance: that of reward_to_go if states reveal the action; usually less, not always.
    Needs: complete episodes, a critic h of discrete actions given the later state, on-policy.
    """
    return _learned(policy, critic, h, later_states)


def counterfactual_contributions(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The same with the reward itself as the outcome: rewards that would have been earned anyway
    drop out (COCOA-reward; Meulemans et al. 2023, 2306.16803, eq. 4).

    Ψₜ = γᵗ (1[a = aₜ] rₜ / π(aₜ|sₜ) + Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, rₖ) rₖ), for every a,  w = h / π - 1
    Unbiased for: nothing: J only if h is exact.
    Variance: none from rewards that do not depend on the action; that of the others.
    Needs: complete episodes, a critic h of discrete actions given the later reward, on-policy.
    """
    return _learned(policy, critic, h, later_rewards)


def _learned(policy: Network, network: Network, h: Hyperparams, outcome: Outcome) -> Estimator:
    """The estimator with a learned h; arguments: see `learned_counterfactual`."""

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        log_pi = _log_probabilities(policy, params, traj)
        later = outcome(traj)

        def coefficients(k: Int[Array, ""]) -> Float[Array, "T B A"]:
            f = _log_odds(network, params.critic, traj, _paired(traj, later, k))
            return jnp.expm1(f - jax.nn.logsumexp(log_pi + f, axis=-1, keepdims=True))

        return Credit(contributions(coefficients, traj, h), extra=(log_pi, later))

    plain = build_estimator(policy, None, h, weigh, every_action, accepts="episodes")

    def init(key: PRNGKeyArray) -> tuple[Params, PyTree]:
        policy_key, network_key = jax.random.split(key)
        return Params(policy.init(policy_key), network.init(network_key)), ()

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
        grads, metrics = plain.grad(params, batch)
        loss, slope, weight = _cross_entropy(network, params.critic, h, batch)
        scale = h.value_coef / batch.traj.valid.shape[1]
        grads = grads._replace(critic=jax.tree.map(lambda x: scale * x, slope))
        per_pair = loss / jnp.where(weight > 0, weight, 1.0)
        return grads, metrics | {"hindsight_loss": per_pair}

    return plain._replace(init=init, grad=grad)


def _cross_entropy(
    network: Network, network_params: PyTree, h: Hyperparams, batch: Weighted
) -> tuple[Float[Array, ""], PyTree, Float[Array, ""]]:
    """-Σ_{t<k} γᵏ log h(aₜ|sₜ, uₖ), its derivative with respect to the network's parameters, and
    Σ_{t<k} γᵏ. They are summed outcome by outcome, in the memory of one.
    """
    traj, (log_pi, later) = batch.traj, batch.extra
    time = jnp.arange(len(traj.valid))
    discount = jnp.asarray(h.gamma, log_pi.dtype) ** time.astype(log_pi.dtype)

    def of_rows(params: PyTree, rows: Any) -> Float[Array, ""]:
        pair, first, log_pi, action, counts = rows
        f = unroll(network, params, pair, first)
        log_h = at_action(jax.nn.log_softmax(log_pi + f), action)
        return -jnp.sum(jnp.where(counts, log_h, 0.0))

    of_block = functools.partial(jax.value_and_grad(of_rows), network_params)

    def add(k: Int[Array, ""], total: Any) -> Any:
        counts = (time < k)[:, None] & traj.valid[k][None]
        rows = (_paired(traj, later, k), traj.first, log_pi, traj.action, counts)
        loss, slope = blocks.sum_steps(of_block, rows, traj.valid)
        of_outcome = (loss, slope, jnp.sum(counts).astype(loss.dtype))
        return jax.tree.map(lambda x, new: x + discount[k] * new, total, of_outcome)

    zero = jnp.zeros((), log_pi.dtype)
    nothing = (zero, jax.tree.map(jnp.zeros_like, network_params), zero)
    return jax.lax.fori_loop(1, blocks.num_steps(traj.valid), add, nothing)


def _log_odds(
    network: Network, network_params: PyTree, traj: Trajectory, pair: Pair
) -> Float[Array, "T B A"]:
    """f(a|s, u) of every action, [T, B, A]; 0 in blocks of time without a valid step."""

    def block(rows: tuple[Pair, Bool[Array, "K B"]]) -> Float[Array, "K B A"]:
        return unroll(network, network_params, *rows)

    return blocks.map_steps(block, (pair, traj.first), traj.valid)


def _paired(traj: Trajectory, later: PyTree, k: Int[Array, ""]) -> Pair:
    """The observation of each step with the outcome of step k, leaves [T, B, ...]."""
    return Pair(later_states(traj), jax.tree.map(lambda x: jnp.broadcast_to(x[k], x.shape), later))


def _log_probabilities(policy: Network, params: Params, traj: Trajectory) -> Float[Array, "T B A"]:
    """log π(a|s) of every action, [T, B, A]; 0 in blocks of time without a valid step."""

    def block(rows: Trajectory) -> Float[Array, "K B A"]:
        dist = policy_output(policy, params, rows)
        if not hasattr(dist, "logits"):
            raise ValueError(
                "hindsight is a probability of each action, and needs discrete ones; the "
                f"policy's are of {described(dist)}"
            )
        return jax.nn.log_softmax(dist.logits)

    return map_along(policy, block, traj)


def _per_action(w: Any, traj: Trajectory) -> Float[Array, "T B A"]:
    """The coefficients, checked. Raises ValueError for another shape."""
    array = numbers("the coefficients", w, _PER_ACTION)
    num_actions = array.shape[2] if array.ndim == 3 else 1
    expected = (*traj.valid.shape, num_actions)
    check_shape("the coefficients", array.shape, expected, "[T, B, A]", _PER_ACTION)
    return array


def _stated(factory: Factory, psi: str = _PSI) -> Factory:
    """The factory with its facts."""
    factory.facts = Facts(  # type: ignore[attr-defined]
        psi=psi,
        where="w = h(a|s, u) / π(a|s) - 1",
        source=_SOURCE,
        unbiased_for="no",
        why=_IF_EXACT,
        variance="that of the outcomes that the action has a part in",
        psi_depends_on_policy=True,
    )
    return factory
