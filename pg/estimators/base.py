"""Estimators as triples of functions, and `build_estimator`, which makes one from Ψ and a
surrogate.

The split between `weigh` and `grad` is the stop-gradient: `weigh` computes everything that is
constant in θ, once per batch; `grad` differentiates the surrogate, any number of times. Steps are
summed, episodes (environments) averaged.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import baselines, returns, rounding, surrogates
from pg.axes import expand_to
from pg.branches import Branches
from pg.config import Hyperparams, check_is_hyperparams
from pg.extra_rollouts import ExtraRollouts, GreedyEpisodes
from pg.fast import blocks
from pg.inputs import check_function, check_kind, check_name, described, numbers
from pg.layers import ActionFunction
from pg.networks import Network, Pair, as_float, check_policy, check_shape, unroll
from pg.rollout import NO_EXTRA_ROLLOUTS, Trajectory


class Params(NamedTuple):
    """The learned parameters; `critic` is () for an estimator without a critic."""

    policy: PyTree
    critic: PyTree


class Weighted(NamedTuple):
    """A batch with everything that is constant in θ: leaves [T, B, ...]."""

    traj: Trajectory
    # the weight Ψ of ∇log π; with an axis A, the weights of ∇π for all actions
    psi: Float[Array, "T B *A"]
    target: PyTree  # [T, B] the critic's regression target; () without a critic
    value: PyTree = ()  # [T, B] V when the batch was collected, for value clipping; () for none
    extra: PyTree = ()  # further constants for the surrogate, leaves [T, B, ...]


class Credit(NamedTuple):
    """The results of `weigh`: the weights of a batch, and other constants."""

    # Ψ, [T, B]; [1, B] for whole episodes, [T, 1] if equal for all; [T, B, A] for all actions
    psi: Any
    target: Any = ()  # [T, B] the critic's regression target; () without a critic
    state: PyTree = ()  # the estimator's, for the next batch
    value: Any = ()  # [T, B] V, for value clipping (`value_epsilon`)
    extra: PyTree = ()  # further constants for the surrogate, leaves [T, B, ...]


class Estimator(NamedTuple):
    """A gradient estimator as pure functions."""

    init: Callable[[PRNGKeyArray], tuple[Params, PyTree]]  # key -> params, estimator_state
    # params, estimator_state, trajectory -> weighted, estimator_state
    weigh: Callable[[Params, PyTree, Trajectory], tuple[Weighted, PyTree]]
    # of the LOSS -> grads, metrics
    grad: Callable[[Params, Weighted], tuple[Params, dict[str, Array]]]
    accepts: tuple[str, ...] = ("episodes", "windows")
    # the gradient of a weighted batch is the mean of its episodes' gradients
    separable: bool = True
    # γ of the weight γᵗ of a state at step t in the gradient's mean; 1: none
    state_discount: Float[ArrayLike, ""] = 1.0
    extra_rollouts: ExtraRollouts = ExtraRollouts()  # those that `weigh` needs


OF_EACH_STEP = "weigh must return one number for each step"
ONE_NUMBER = "a critic of states returns one number for each, as in output[..., 0]"

# params, estimator_state, trajectory -> psi, target, estimator_state [, value]
Weigh = Callable[[Params, Any, Trajectory], "Credit | tuple[Any, ...]"]
# the policy's distribution at each step, weighted -> surrogate [T, B]
Surrogate = Callable[[Any, Weighted], Array]
# the critic's output at each step, weighted -> prediction [T, B]
Predict = Callable[[Any, Weighted], Array]
# the distribution, weighted -> further metrics, [T, B]
ExtraMetrics = Callable[[Any, Weighted], dict[str, Array]]


Sums = dict[str, Array]  # over valid steps

_SUMMED = "sum it over the axes of an action"
_BY_SURROGATE = "surrogate must return one number for each step"
_BY_EXTRA_METRICS = "extra_metrics must return one number for each step"
_WEIGH_TAKES = ("params", "estimator_state", "trajectory")
_WEIGH_GIVES = "write a function that returns psi, target, estimator_state"


def score_surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
    """Ψ log π, [T, B]: the default surrogate."""
    per_step("psi", batch.psi, batch.traj)
    return surrogates.score(dist.log_prob(batch.traj.action), batch.psi)


def clipped_surrogate(h: Hyperparams) -> Surrogate:
    """The surrogate min(ρ Ψ, clip(ρ) Ψ), [T, B], for several steps on one batch."""

    def surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        per_step("psi", batch.psi, batch.traj)
        return surrogates.clipped(
            dist.log_prob(batch.traj.action), batch.traj.log_prob, batch.psi, h.epsilon
        )

    return surrogate


def per_step(
    what: str, x: Any, traj: Trajectory, remedy: str = OF_EACH_STEP
) -> Shaped[Array, "T B"]:
    """One number for each step of a trajectory, [T, B].

    Args:
        what: Its name in messages.
        x: The result of a user's function.
        traj: The trajectory.
        remedy: Advice for the message.

    Raises:
        ValueError: With `remedy`, for anything but numbers, or for another shape.
    """
    array = numbers(what, x, remedy)
    check_shape(what, array.shape, traj.valid.shape, "[T, B]", remedy)
    return array


def drift(h: Hyperparams) -> ExtraMetrics:
    """The change of the policy since the batch was collected: kl, E[ρ - 1 - log ρ] ≥ 0 in nats, and
    clip_fraction.
    """

    def extra_metrics(dist: Any, batch: Weighted) -> dict[str, Float[Array, "T B"]]:
        log_ratio = dist.log_prob(batch.traj.action) - batch.traj.log_prob
        outside = jnp.abs(jnp.expm1(log_ratio)) > h.epsilon
        return {
            "kl": jnp.expm1(log_ratio) - log_ratio,
            "clip_fraction": outside.astype(log_ratio.dtype),
        }

    return extra_metrics


def build_estimator(
    policy: Network,
    critic: Network | None,
    h: Hyperparams,
    weigh: Weigh,
    surrogate: Surrogate = score_surrogate,
    predict: Predict | None = None,
    extra_metrics: ExtraMetrics | None = None,
    *,
    state: PyTree = (),
    accepts: tuple[str, ...] | str = ("episodes", "windows"),
    state_discount: Float[ArrayLike, ""] | None = None,
    whole_episodes: bool = False,
    extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS,
    off_policy: bool = False,
) -> Estimator:
    """The estimator with a given Ψ (`weigh`) and surrogate.

    loss = -(1/N) Σ (surrogate + entropy_coef H(π)) + value_coef (1/N) Σ ½ (predict - target)²,
    Σ over valid steps. `weigh` sees the rewards r - temperature log μ(a|s), μ the behaviour policy,
    which on-policy is π. `off_policy` replaces log μ by log π, at the cost of one more forward
    pass; a `weigh` that computes the ratio anyway calls `own_entropy` instead.

    Args:
        policy: The policy that learns.
        critic: A critic; None for an estimator without one.
        h: The hyperparameters.
        weigh: params, estimator_state, trajectory -> `Credit`, or its values as a tuple. Ψ has the
            axes of time and episodes, [T, B], and possibly of actions, [T, B, A]. Either of the
            first two may have length 1: one number for each episode is [1, B], `psi[None, :]`.
        surrogate: The function of π whose gradient is ascended; default: Ψ log π.
        predict: Critic output, weighted -> prediction to compare with the target; default: the
            output.
        extra_metrics: Further metrics, which are averaged over steps.
        state: The estimator's state before the first batch.
        accepts: The supported ways of collecting.
        state_discount: γ of the weight γᵗ that Ψ gives to a state at step t, which the natural
            gradient has to use too; default: h.gamma, as in the theorem; 1 for a Ψ that drops it.
        whole_episodes: The surrogate of a step depends on the other steps of its episode, as with
            the ratio of a whole sequence, so that time must not be split into blocks.
        extra_rollouts: The extra rollouts that `weigh` needs.
        off_policy: The batch may come from another policy, as with a lag: if there is a
            temperature, one more forward pass replaces log μ by log π in the reward.

    Raises:
        ValueError: While tracing, if an output of a network, `weigh`, `surrogate` or `predict` has
            the wrong shape: with T = B it might broadcast to a wrong number.
    """
    accepts = (accepts,) if isinstance(accepts, str) else accepts
    _check_parts(policy, critic, h, weigh, surrogate, predict, extra_metrics, accepts)
    # A recurrent state runs through time, which then cannot be split into blocks.
    recurrent = policy.recurrent or (critic is not None and critic.recurrent)
    one_block = recurrent or whole_episodes

    def init(key: PRNGKeyArray) -> tuple[Params, PyTree]:
        policy_key, critic_key = jax.random.split(key)
        critic_params = () if critic is None else critic.init(critic_key)
        return Params(policy.init(policy_key), critic_params), state

    def weighted(params: Params, state: PyTree, traj: Trajectory) -> tuple[Weighted, PyTree]:
        reward = traj.reward - h.temperature * traj.log_prob
        traj = traj._replace(reward=jnp.where(traj.valid, reward, 0.0))
        traj = traj._replace(branches=_less_entropy(traj.branches, h))
        if off_policy:
            traj = own_entropy(traj, _log_ratio_for_entropy(policy, params, traj, h), h)
        if not one_block:
            traj = traj.without_carry
        credit = _credit(weigh(params, state, traj), traj, critic)
        psi = _of_each_step(credit.psi, traj)
        batch = Weighted(
            traj.without_extra_rollouts, psi, credit.target, credit.value, credit.extra
        )
        return jax.lax.stop_gradient((batch, credit.state))

    def loss(params: Params, batch: Weighted, num_envs: int) -> tuple[Float[Array, ""], Sums]:
        traj = batch.traj
        dist = policy_output(policy, params, traj)
        entropy = per_step("the policy's entropy", dist.entropy(), traj, _SUMMED)
        ascended = per_step("the surrogate", surrogate(dist, batch), traj, _BY_SURROGATE)
        terms = {"objective": ascended + h.entropy_coef * entropy, "entropy": entropy}
        if extra_metrics is not None:
            terms |= _checked_metrics(extra_metrics(dist, batch), traj)
        # Counted here, so that sharded environments need a single all-reduce.
        terms["steps"] = jnp.ones_like(entropy)
        if critic is not None:
            terms["value_loss"] = _value_loss(critic, h, params, batch, predict)
        sums = {name: jnp.sum(jnp.where(traj.valid, x, 0.0)) for name, x in terms.items()}
        total = -sums.pop("objective") + h.value_coef * sums.get("value_loss", 0.0)
        return total / num_envs, sums

    def grad(params: Params, batch: Weighted) -> tuple[Params, Sums]:
        valid = batch.traj.valid
        of_block = functools.partial(jax.grad(loss, has_aux=True), params, num_envs=valid.shape[1])
        grads, sums = blocks.sum_steps(of_block, batch, valid, one_block=one_block)
        steps = jnp.maximum(sums.pop("steps"), 1.0)
        return grads, {name: x / steps for name, x in sums.items()}

    discount = h.gamma if state_discount is None else state_discount
    return Estimator(
        init, weighted, grad, accepts, state_discount=discount, extra_rollouts=extra_rollouts
    )


def critic_gradient(
    critic: Network, h: Hyperparams, params: Params, batch: Weighted
) -> tuple[PyTree, Sums]:
    """The gradient of the critic's loss value_coef (1/N) Σ ½ (V - target)² in its own parameters,
    and `value_loss`, the sum of ½ (V - target)² over the valid steps.
    """
    valid = batch.traj.valid

    def loss(critic_params: PyTree, rows: Weighted) -> tuple[Float[Array, ""], Sums]:
        error = _value_loss(critic, h, params._replace(critic=critic_params), rows)
        total = jnp.sum(jnp.where(rows.traj.valid, error, 0.0))
        return h.value_coef * total / valid.shape[1], {"value_loss": total}

    of_block = functools.partial(jax.grad(loss, has_aux=True), params.critic)
    if not critic.recurrent:
        batch = batch._replace(traj=batch.traj.without_carry)
    return blocks.sum_steps(of_block, batch, valid, one_block=critic.recurrent)


def _check_parts(
    policy: Any,
    critic: Any,
    h: Any,
    weigh: Any,
    surrogate: Any,
    predict: Any,
    extra_metrics: Any,
    accepts: Any,
) -> None:
    """Raises ValueError, saying what to write instead, for an argument of `build_estimator` of the
    wrong type.
    """
    check_kind("policy", policy, Network, "write pg.make_policy(config, env)")
    if critic is not None:
        instead = "write pg.make_critic(config, env), or None for an estimator without"
        check_kind("critic", critic, Network, instead)
    check_is_hyperparams(h)
    check_function("weigh", weigh, _WEIGH_TAKES, _WEIGH_GIVES)
    of_policy, of_critic = ("distribution", "weighted"), ("output", "weighted")
    instead = "write a function that returns a surrogate [T, B]"
    check_function("surrogate", surrogate, of_policy, instead)
    if predict is not None:
        instead = "write a function that returns a prediction [T, B]"
        check_function("predict", predict, of_critic, instead)
    if extra_metrics is not None:
        instead = "write a function that returns names with [T, B]"
        check_function("extra_metrics", extra_metrics, of_policy, instead)
    for way in accepts:
        check_name("way of collecting", way, ("episodes", "windows"))


def _checked_metrics(metrics: Any, traj: Trajectory) -> Sums:
    """The metrics that `extra_metrics` returned, checked: names with arrays [T, B]."""
    if not isinstance(metrics, dict):
        raise ValueError(
            f"extra_metrics must return names with values [T, B], got {described(metrics)}"
        )
    return {
        name: per_step(f"the extra metric {name!r}", x, traj, _BY_EXTRA_METRICS)
        for name, x in metrics.items()
    }


def _value_loss(
    critic: Network, h: Hyperparams, params: Params, batch: Weighted, predict: Predict | None = None
) -> Float[Array, "T B"]:
    """Half the critic's squared error at each step, [T, B], clipped around V if the batch has it.
    predict: see `build_estimator`.
    """
    traj = batch.traj
    if critic.outcome == "action":
        traj = traj._replace(obs=Pair(traj.obs, batch.extra.action))
    output = critic_output(critic, params, traj)
    prediction = output if predict is None else predict(output, batch)
    prediction = per_step("the critic's prediction", prediction, batch.traj, ONE_NUMBER)
    if isinstance(batch.value, jax.Array):
        return surrogates.clipped_value(prediction, batch.value, batch.target, h.value_epsilon)
    return 0.5 * (prediction - batch.target) ** 2


def _credit(weighed: Any, traj: Trajectory, critic: Network | None) -> Credit:
    """The values that `weigh` returned, by name.

    Raises ValueError for another number of values (a single array would be unpacked along its
    steps), and for another shape of the critic's target or of V.
    """
    if not isinstance(weighed, tuple | list) or len(weighed) not in (3, 4, 5):
        got = "None" if weighed is None else "one value"
        if isinstance(weighed, tuple | list):
            got = f"a {type(weighed).__name__} of {len(weighed)}"
        raise ValueError(
            f"weigh must return psi, target, estimator_state, got {got}: without a critic and a "
            "state write `return psi, (), ()`; a fourth value is V, which value_epsilon clips"
        )
    credit = Credit(*weighed)
    numbers("psi", credit.psi, OF_EACH_STEP)
    if critic is not None and not jax.tree.leaves(credit.target):
        raise ValueError(
            "weigh returns no target for the critic: return one, [T, B], or build without a critic"
        )
    for what, x in (("the critic's target", credit.target), ("the V of weigh", credit.value)):
        if jax.tree.leaves(x):  # () and None have no leaves
            per_step(what, x, traj)
    return credit


def discounted_reward_to_go(traj: Trajectory, h: Hyperparams) -> Float[Array, "T B"]:
    """γᵗ Gₜ of complete episodes, [T, B]: the rewards from t on, discounted from the episode's
    start.
    """
    return returns.discounted_sum(returns.discount_powers(traj.reward, h.gamma) * traj.reward, 1.0)


def greedy_return(traj: Trajectory, h: Hyperparams) -> Float[Array, " B"]:
    """Σₜ γᵗ rₜ of the greedy episode from the same initial state, [B].

    Raises ValueError for a trajectory without greedy episodes.
    """
    if not isinstance(traj.greedy, GreedyEpisodes):
        raise ValueError(
            "there are no greedy episodes to compare with: collect with "
            "pg.episodes(..., extra_rollouts=pg.ExtraRollouts(greedy=True))"
        )
    reward = traj.greedy.reward
    return rounding.sum_in_pairs(returns.discount_powers(reward, h.gamma) * reward)


def return_and_error(
    traj: Trajectory, h: Hyperparams
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """R of complete episodes, and the maximum difference of equal R due to rounding; each [B]."""
    terms = returns.discount_powers(traj.reward, h.gamma) * traj.reward
    return rounding.sum_in_pairs(terms), rounding.of_sums(terms)


def policy_output(policy: Network, params: Params, traj: Trajectory) -> Any:
    """The policy's distributions [T, B] along a trajectory, from the recurrent state before its
    first step.
    """
    carry = _before(traj.carry.policy) if policy.recurrent else None
    dist = unroll(policy, params.policy, traj.obs, traj.first, carry)
    check_policy(dist, traj.action, traj.first.shape, "[T, B]")
    return dist


def critic_output(
    critic: Network, params: Params, traj: Trajectory
) -> Shaped[Array, "..."] | ActionFunction:
    """The critic's output along a trajectory, [T, B], [T, B, A] or a function of continuous
    actions; like `policy_output`.
    """
    own = params if critic.shared else params.critic
    output = unroll(critic, own, traj.obs, traj.first, _critic_carry(critic, traj))
    if isinstance(output, ActionFunction):
        return output
    return numbers("the critic's output", output, ONE_NUMBER)


def map_along(network: Network, f: Callable[[Trajectory], PyTree], traj: Trajectory) -> PyTree:
    """`f` of a trajectory, leaves [T, B, ...], computed in blocks of time unless the network is
    recurrent; 0 in blocks without a valid step.

    Args:
        network: The network that f applies.
        f: Rows of a trajectory -> leaves [K, B, ...], each time step separately.
        traj: The trajectory.
    """
    if not network.recurrent:
        traj = traj.without_carry
    return blocks.map_steps(f, traj, traj.valid, one_block=network.recurrent)


def log_ratio(policy: Network, params: Params, traj: Trajectory) -> Float[Array, "T B"]:
    """log ρ = log π(a|s) - log behaviour(a|s), [T, B]; 0 where not valid."""

    def block(rows: Trajectory) -> Float[Array, "K B"]:
        return policy_output(policy, params, rows).log_prob(rows.action)

    log_prob = map_along(policy, block, traj)
    return jnp.where(traj.valid, log_prob - traj.log_prob, 0.0)


def _log_ratio_for_entropy(
    policy: Network, params: Params, traj: Trajectory, h: Hyperparams
) -> Float[Array, "T B"]:
    """`log_ratio`, [T, B]; without a temperature it is not computed, and 0."""
    rewarded = blocks.largest(jnp.asarray(h.temperature != 0))
    return jax.lax.cond(
        rewarded,
        lambda: log_ratio(policy, params, traj),
        lambda: jnp.zeros_like(traj.log_prob),
    )


def own_entropy(traj: Trajectory, log_rho: Float[Array, "T B"], h: Hyperparams) -> Trajectory:
    """The trajectory with rewards r - τ log π, where `weigh` gets r - τ log μ with the behaviour
    policy μ.

    Args:
        traj: the argument of `weigh`, from the behaviour policy.
        log_rho: `log_ratio`, [T, B].
        h: the hyperparameters; `temperature` is τ.
    """
    # An action with probability 0 under π has a weight of 0: any finite reward will do.
    finite = jnp.where(jnp.isneginf(log_rho), 0.0, log_rho)
    return traj._replace(reward=traj.reward - h.temperature * finite)


def _less_entropy(branches: Branches | tuple[()], h: Hyperparams) -> Branches | tuple[()]:
    """The branches with rewards r - τ log π; () stays ()."""
    if not isinstance(branches, Branches):
        return ()
    reward_to_go = branches.reward_to_go - h.temperature * branches.log_prob_to_go
    return branches._replace(reward_to_go=reward_to_go)


def group_of(traj: Trajectory) -> Int[Array, " B"]:
    """The index of each episode's group, [B].

    Raises ValueError for a trajectory without groups.
    """
    if isinstance(traj.group, tuple):
        raise ValueError(
            "the episodes have no groups: collect them with a group_size of at least 2, or give "
            "the trajectory the number of every episode's group, as group [T, B]"
        )
    return traj.group[0]


def state_weight(traj: Trajectory, h: Hyperparams) -> Float[Array, "T B"]:
    """γᵗ, t counted from the episode's start, [T, B]; 1 with `undiscounted_state_weighting` 1."""
    time = traj.time.astype(traj.reward.dtype)
    return returns.discount(time * (1.0 - h.undiscounted_state_weighting), h.gamma)


def state_discount(h: Hyperparams) -> Float[ArrayLike, ""]:
    """The γ of `state_weight`'s γᵗ, []; 1 where `undiscounted_state_weighting` is 1."""
    return h.gamma ** (1.0 - h.undiscounted_state_weighting)


def values(critic: Network, params: Params, traj: Trajectory) -> Float[Array, "T B"]:
    """V at every step, [T, B]; 0 in blocks of time without a valid step.

    Raises ValueError if the critic returns anything but one number for each step.
    """
    return _values(critic, params, traj, lambda rows: rows.obs)


def _values(
    critic: Network, params: Params, traj: Trajectory, obs_of: Callable[[Trajectory], PyTree]
) -> Float[Array, "T B"]:
    """V of other observations, which `obs_of` takes from the trajectory's rows, [T, B]."""

    def block(rows: Trajectory) -> Shaped[Array, "K B"]:
        v = critic_output(critic, params, rows._replace(obs=obs_of(rows)))
        return per_step("the critic's V", v, rows, ONE_NUMBER)

    return map_along(critic, block, traj)


def action_values(critic: Network, params: Params, traj: Trajectory) -> Float[Array, "T B A"]:
    """Q of every action at every step, [T, B, A]; 0 in blocks of time without a valid step.

    Raises ValueError if the critic returns anything but a vector for each step.
    """

    def block(rows: Trajectory) -> Shaped[Array, "K B A"]:
        q = critic_output(critic, params, rows)
        if isinstance(q, ActionFunction):
            raise ValueError("the critic's Q must be [T, B, A], got a function of the action")
        if q.ndim != 3 or q.shape[:2] != rows.first.shape:
            got = f"got shape {list(q.shape)} for [T, B] = {list(rows.first.shape)}"
            raise ValueError(f"the critic's Q must be [T, B, A], one number for each action; {got}")
        return q

    return map_along(critic, block, traj)


def successor_values(critic: Network, params: Params, traj: Trajectory) -> Float[Array, "T B"]:
    """V of every step's true successor, [T, B]; a recurrent critic continues from its state after
    the episode so far.

    A terminal state has no value: where `terminated` is set, the number is meaningless but finite.
    """
    if not critic.recurrent:
        return _values(critic, params, traj, _successors)
    own = params if critic.shared else params.critic

    def step(carry: PyTree, row: Trajectory) -> tuple[PyTree, Shaped[Array, "..."]]:
        carry, _ = critic.apply(own, carry, as_float(row.obs), row.first)
        next_obs = as_float(_successors(row))
        return carry, critic.apply(own, carry, next_obs, jnp.zeros_like(row.first))[1]

    v = jax.lax.scan(step, _critic_carry(critic, traj), traj.without_carry)[1]
    return per_step("the critic's V", v, traj, ONE_NUMBER)


def _successors(rows: Trajectory) -> PyTree:
    """The true successor of every step, like rows.obs; after a termination the observation before
    it, which is finite.

    A terminal observation may be NaN, and 0 · NaN is NaN. It is called on a few rows at a time, to
    avoid a copy of all observations.
    """

    def one(obs: Shaped[Array, "..."], next_obs: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        return jnp.where(expand_to(rows.terminated, obs), obs, next_obs)

    return jax.tree.map(one, rows.obs, rows.next_obs)


class Valued(NamedTuple):
    """The arguments of bootstrapped advantages, in the order of `returns`; each [T, B]."""

    reward: Float[Array, "T B"]
    terminated: Bool[Array, "T B"]
    truncated: Bool[Array, "T B"]
    v_t: Float[Array, "T B"]
    v_tp1: Float[Array, "T B"]  # of the true successor; meaningless where terminated


def valued(critic: Network, params: Params, traj: Trajectory) -> Valued:
    """The trajectory's rewards and ends, with V before and after every step."""
    v_t, v_tp1 = values(critic, params, traj), successor_values(critic, params, traj)
    return Valued(traj.reward, traj.terminated, traj.truncated, v_t, v_tp1)


def standardise_psi(batch: Weighted) -> Weighted:
    """The batch with Ψ standardised: minus its mean, divided by its standard deviation, both over
    the valid steps.

    As implementations of PPO do (Andrychowicz et al. 2020, 2006.05990, C67). Biased: the scale is
    random and correlated with the sample, and the mean includes the step itself. If all Ψ are equal
    up to rounding, they become 0.
    """
    # Ψ is the target minus V
    if getattr(batch.target, "shape", None) == batch.psi.shape:
        made_of = rounding.of_size(batch.target)
    else:  # Ψ is a difference of returns
        terms = batch.traj.reward
        summed = rounding.of_sums(terms) + rounding.of_size(jnp.sum(jnp.abs(terms), axis=0))
        made_of = summed[None]
    error = jnp.maximum(rounding.of_size(batch.psi), made_of)
    return batch._replace(psi=baselines.standardise(batch.psi, error, batch.traj.valid))


def _of_each_step(psi: ArrayLike, traj: Trajectory) -> Shaped[Array, "T B *A"]:
    """Ψ broadcast to [T, B] or [T, B, A], from a scalar, or an array in which T or B may be 1.

    Raises ValueError for any other shape. An array with a single axis is always refused, since the
    axis is ambiguous.
    """
    psi, steps = jnp.asarray(psi), traj.reward.shape
    in_time_and_episodes = psi.ndim in (2, 3) and all(
        n in (1, m) for n, m in zip(psi.shape, steps, strict=False)
    )
    if psi.ndim > 0 and not in_time_and_episodes:
        instead = "weigh must return one number for each step"
        if psi.ndim == 1:
            instead = (
                "write psi[None, :] if it has one number for each episode, psi[:, None] if it has "
                "one for each step"
            )
        raise ValueError(
            f"psi must be one number, [T, B] = {list(steps)}, [1, B] for whole episodes, [T, 1], "
            f"or [T, B, A] of every action; got shape {list(psi.shape)}: {instead}"
        )
    return jnp.broadcast_to(psi, steps + psi.shape[2:])


def _critic_carry(critic: Network, traj: Trajectory) -> PyTree:
    """The critic's recurrent state [B, ...] before the first step; None if it has none."""
    if not critic.recurrent:
        return None
    return _before(traj.carry.policy if critic.shared else traj.carry.critic)


def _before(carry: PyTree) -> PyTree:
    """The recurrent state [B, ...] before the first step, in the form that networks take."""
    return jax.tree.map(lambda c: c[0], carry)
