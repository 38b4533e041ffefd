"""Variance reduction over updates: a gradient corrected by that of the same episodes at earlier
parameters.

    dₖ = g(θₖ) + (d - w g(θ')),   w = p(τ; θ') / p(τ; θₖ),   τ ~ p(·; θₖ)

The correction has mean d - ∇J(θ'), so that dₖ is unbiased if d is, for ∇J(θ'); its variance is
of the order of ‖θₖ - θ'‖². Without w it would be biased: g(θ') is computed on the episodes of
another policy. Hessians from episodes at parameters between θ' and θₖ need no w (`harpg`). All of
these need complete episodes and a Ψ that does not depend on the policy, and so no temperature
(`Facts.psi_depends_on_policy` marks the others, which are refused); an entropy bonus is not
weighted, and the critic's part is passed through. Gradients at a point ahead of θₖ (`igt`) need
none of this.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from pg.estimators import Estimator, Params, Weighted
from pg.estimators.base import log_ratio
from pg.layers.dense import forward_mode
from pg.networks import Network
from pg.settings.ranges import BELOW_ONE
from pg.surrogates import reweighted


def importance_weighted_gradient(
    estimator: Estimator, policy: Network, params: Params, batch: Weighted
) -> Params:
    """w g(θ') of θ' = params, from episodes of another policy; like params, a gradient of the LOSS.

    An episode's Ψ is multiplied by w = Πₜ π_θ'(aₜ|sₜ) / π(aₜ|sₜ).

    Args:
        estimator: the estimator.
        policy: the policy.
        params: θ'.
        batch: episodes, weighted under the policy that acted.
    """
    log_weight = jnp.sum(log_ratio(policy, params, batch.traj), axis=0)
    log_weight = log_weight.reshape(1, -1, *[1] * (batch.psi.ndim - 2))
    psi = reweighted(batch.psi, log_weight)
    return estimator.grad(params, batch._replace(psi=psi))[0]


def hessian_vector_product(
    estimator: Estimator, policy: Network, params: Params, batch: Weighted, vector: PyTree
) -> PyTree:
    """Ĥ v, the derivative of w g along v at params, from episodes of params themselves; a tree like
    params.policy, of the LOSS.

    Its mean is the Hessian of -J times v: both w, which is 1 here, and g move with the parameters
    (Shen et al. 2019, Hessian aided policy gradient; 2205.08253).

    Args:
        estimator: the estimator.
        policy: the policy.
        params: θ, of policy and critic.
        batch: episodes that θ has collected, weighted under it.
        vector: v, a tree like params.policy.
    """

    def gradient(own: PyTree) -> PyTree:
        at_own = params._replace(policy=own)
        return importance_weighted_gradient(estimator, policy, at_own, batch).policy

    with forward_mode():
        return jax.jvp(gradient, (params.policy,), (vector,))[1]


# parameters, key -> a weighted batch that they collect, and its number of environment steps
Resample = Callable[[Params, PRNGKeyArray], tuple[Weighted, Array]]
# updates so far, random key (None if none was given) -> bool []
Schedule = Callable[[Array, PRNGKeyArray | None], Array]


class MomentumState(NamedTuple):
    """The parameters of an earlier update and their direction."""

    step: Int[Array, ""]  # updates so far
    params: PyTree  # of the policy: θ'
    direction: PyTree  # d, for θ'


def storm(momentum: Float[ArrayLike, ""] = 0.9) -> optax.GradientTransformationExtraArgs:
    """dₖ = g(θₖ) + m (dₖ₋₁ - w g(θₖ₋₁)): recursive momentum (STORM-PG, Yuan et al. 2020,
    2003.04302, with m = 1 - α).

    momentum: m in [0, 1]; 0 is the plain gradient, 1 has no decay.
    """
    return _corrected(_after_the_first, momentum, renewed=_always)


def svrpg(period: Int[ArrayLike, ""] = 10) -> optax.GradientTransformationExtraArgs:
    """dₖ = g(θₖ) + (μ - w g(θ')): a snapshot θ' with its gradient μ, every `period` updates (SVRPG,
    1806.05618).

    At a snapshot dₖ = μ = g(θₖ), from a batch as large as the others. Skipped updates do not count.
    """
    return _corrected(
        lambda step, key: step % period > 0, 1.0, renewed=lambda step, key: step % period == 0
    )


def page_pg(
    restart_probability: Float[ArrayLike, ""] = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """dₖ = g(θₖ) with probability p, else g(θₖ) + (dₖ₋₁ - w g(θₖ₋₁)): recursive momentum with
    random restarts (PAGE-PG, Gargiani et al. 2022, 2202.00308).

    Restarts are independent Bernoulli variables, drawn with the `key` of each update. In the paper
    the batch of a restart is larger than the others; here all have the same size. The first update
    is a restart.

    restart_probability: p in [0, 1]; 1 is the plain gradient, 0 has no further restart.
    """

    def used(step: Int[Array, ""], key: PRNGKeyArray | None) -> Array:
        if key is None:
            raise ValueError("page_pg draws its restarts at random: give its update a `key`")
        return (step > 0) & ~jax.random.bernoulli(key, restart_probability)

    return _corrected(used, 1.0, renewed=_always)


def _after_the_first(step: Int[Array, ""], key: PRNGKeyArray | None) -> Array:
    return step > 0


def _always(step: Int[Array, ""], key: PRNGKeyArray | None) -> Array:
    return jnp.bool_(True)


def _corrected(
    used: Schedule, momentum: Float[ArrayLike, ""], renewed: Schedule
) -> optax.GradientTransformationExtraArgs:
    """The transformation g ↦ g + m (d - w g(θ')).

    Args:
        used: True if an update is corrected.
        momentum: m.
        renewed: True if θ' and d are replaced by those of an update.
    """

    def init(params: Params) -> MomentumState:
        zeros = jax.tree.map(jnp.zeros_like, params.policy)
        return MomentumState(jnp.int32(0), params.policy, zeros)

    def update(
        updates: Any,
        state: MomentumState,
        params: Any = None,
        *,
        batch: Weighted,
        policy: Network,
        estimator: Estimator,
        key: PRNGKeyArray | None = None,
        **extra: Any,
    ) -> Any:
        step = state.step
        is_corrected = used(step, key)
        is_renewed = renewed(step, key)
        earlier = params._replace(policy=state.params)
        at_earlier = importance_weighted_gradient(estimator, policy, earlier, batch).policy

        def corrected(g: Array, d: Array, g_earlier: Array) -> Array:
            return g + jnp.where(is_corrected, momentum * (d - g_earlier), 0.0)

        direction = jax.tree.map(corrected, updates.policy, state.direction, at_earlier)
        new = MomentumState(step + 1, params.policy, direction)
        old = state._replace(step=step + 1)
        state = jax.tree.map(lambda a, b: jnp.where(is_renewed, a, b), new, old)
        return updates._replace(policy=direction), state

    return optax.GradientTransformationExtraArgs(init, update)


class HessianState(NamedTuple):
    """Earlier parameters with their direction, and the cost of the last update's own episodes."""

    step: Int[Array, ""]  # updates so far
    params: PyTree  # of the policy: θₖ₋₁
    direction: PyTree  # dₖ₋₁
    env_steps: Int[Array, ""]  # of the episodes at θ̂


def harpg(momentum: Float[ArrayLike, ""] = 0.9) -> optax.GradientTransformationExtraArgs:
    """dₖ = m (dₖ₋₁ + Ĥ(θ̂)(θₖ - θₖ₋₁)) + (1 - m) g(θₖ), θ̂ = q θₖ + (1 - q) θₖ₋₁, q ~ U[0, 1]:
    momentum corrected by Hessian-vector products (HARPG, Fatkhullin et al. 2023, 2302.01734, with
    m = 1 - η; SHARP, Salehkaleybar et al. 2022, 2205.08253).

    Over q and the episodes the correction has mean ∇J(θₖ) - ∇J(θₖ₋₁), without importance weights.
    Ĥ is from a second batch, as large as the first, which θ̂ collects at every update; in the first
    update it is at θ₀ and has no effect. With weighted episodes of θₖ, the mean over q would just
    be storm's correction.

    momentum: m in [0, 1]; 0 is the plain gradient, 1 has no decay.
    """

    def init(params: Params) -> HessianState:
        zeros = jax.tree.map(jnp.zeros_like, params.policy)
        return HessianState(jnp.int32(0), params.policy, zeros, jnp.int32(0))

    def update(
        updates: Any,
        state: HessianState,
        params: Any = None,
        *,
        policy: Network,
        estimator: Estimator,
        key: PRNGKeyArray | None = None,
        resample: Resample | None = None,
        **extra: Any,
    ) -> Any:
        if key is None or resample is None:
            raise ValueError(
                "harpg collects episodes at other parameters: give its update a `key` and "
                "`resample`, which there is with collect='episodes'"
            )
        place_key, episodes_key = jax.random.split(key)
        place = jax.random.uniform(place_key)

        def between(new: Array, old: Array) -> Array:
            q = place.astype(new.dtype)
            return q * new + (1 - q) * old

        inside = params._replace(policy=jax.tree.map(between, params.policy, state.params))
        batch, env_steps = resample(inside, episodes_key)
        move = jax.tree.map(jnp.subtract, params.policy, state.params)
        change = hessian_vector_product(estimator, policy, inside, batch, move)
        own_momentum = jnp.where(state.step > 0, momentum, 0.0)

        def corrected(g: Array, d: Array, dg: Array) -> Array:
            return own_momentum * (d + dg) + (1 - own_momentum) * g

        direction = jax.tree.map(corrected, updates.policy, state.direction, change)
        # a sum of integers has 64 bits if jax has them, but a state keeps its type
        steps = env_steps.astype(jnp.int32)
        after = HessianState(state.step + 1, params.policy, direction, steps)
        return updates._replace(policy=direction), after

    return optax.GradientTransformationExtraArgs(init, update)


def env_steps(opt_state: PyTree) -> Int[Array, ""]:
    """The environment steps of the episodes that an optimizer itself collected in its last update,
    []; 0 if it collects none.
    """
    parts = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, HessianState))
    own = [part.env_steps for part in parts if isinstance(part, HessianState)]
    return sum(own, start=jnp.int32(0))


class AverageState(NamedTuple):
    """The average of gradients so far."""

    step: Int[Array, ""]  # updates so far
    direction: PyTree  # dₖ₋₁


class PathState(NamedTuple):
    """The parameters of the path, ahead of which gradients are taken."""

    params: PyTree  # θₖ
    inner: PyTree  # the state of the optimizer that steps along it


def igt(
    inner: optax.GradientTransformation, momentum: Float[ArrayLike, ""] = 0.9
) -> optax.GradientTransformationExtraArgs:
    """dₖ = m dₖ₋₁ + (1 - m) g(xₖ), xₖ = θₖ + m / (1 - m) (θₖ - θₖ₋₁): implicit gradient transport
    along the path θₖ₊₁ = θₖ + inner(dₖ) (Arnold et al. 2019, 1906.03532; N-PG-IGT, Fatkhullin et
    al. 2023, 2302.01734, with m = 1 - η and steps of normalised length).

    Where J is quadratic, dₖ has the mean ∇J(θₖ), as the gradient is linear and
    m θₖ₋₁ + (1 - m) xₖ = θₖ; elsewhere it is biased by the Hessian's change between the three
    points. Neither weights nor a second batch are needed, and Ψ may be any.

    The updated parameters are xₖ, where the gradient is computed: these act, are evaluated and
    saved. `parameters_of_path` has θₖ; as steps shrink the two converge.

    Args:
        inner: the optimizer that steps along the path, with its learning rate.
        momentum: m in [0, 1); 0 is just `inner`. A traced one is not checked.

    Raises:
        ValueError: A momentum that is a number out of its range, or 1 in 32 bits.
    """
    return optax.chain(averaged(momentum), extrapolated(inner, momentum))


def averaged(momentum: Float[ArrayLike, ""] = 0.9) -> optax.GradientTransformationExtraArgs:
    """dₖ = m dₖ₋₁ + (1 - m) gₖ, d₀ = g₀: the average of `igt`, of a tree of gradients."""

    def init(params: PyTree) -> AverageState:
        return AverageState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

    def update(updates: PyTree, state: AverageState, params: Any = None, **extra: Any) -> Any:
        decay = jnp.where(state.step > 0, momentum, 0.0)
        direction = jax.tree.map(lambda d, g: decay * d + (1 - decay) * g, state.direction, updates)
        return direction, AverageState(state.step + 1, direction)

    return optax.GradientTransformationExtraArgs(init, update)


def extrapolated(
    inner: optax.GradientTransformation, momentum: Float[ArrayLike, ""] = 0.9
) -> optax.GradientTransformationExtraArgs:
    """The steps of `inner` along a path, for parameters that are m / (1 - m) times its last step
    ahead of it: the path of `igt`, for any direction.

    Raises ValueError for a momentum that is a number out of [0, 1), or 1 in 32 bits.
    """
    if isinstance(momentum, Real) and not 0.0 <= momentum <= BELOW_ONE:
        raise ValueError(
            "igt looks momentum / (1 - momentum) steps ahead: momentum must be in [0, 1), and not "
            f"1 in 32 bits, got {float(momentum)!r}"
        )
    inner = optax.with_extra_args_support(inner)
    ahead = momentum / (1 - momentum)

    def init(params: PyTree) -> PathState:
        return PathState(params, inner.init(params))

    def update(updates: PyTree, state: PathState, params: Any = None, **extra: Any) -> Any:
        steps, after = inner.update(updates, state.inner, state.params, **extra)
        path = optax.apply_updates(state.params, steps)
        moved = jax.tree.map(lambda x, p, s: p + ahead * s - x, params, path, steps)
        return moved, PathState(path, after)

    return optax.GradientTransformationExtraArgs(init, update)


def parameters_of_path(opt_state: PyTree) -> PyTree:
    """θ of `igt`: the policy's parameters that the path has reached, from the optimizer's state.

    Raises ValueError for an optimizer whose parameters are not ahead of a path.
    """
    parts = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, PathState))
    paths = [part.params for part in parts if isinstance(part, PathState)]
    if len(paths) != 1:
        raise ValueError("this is not the state of an igt optimizer")
    return paths[0]
