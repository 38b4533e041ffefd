"""A control variate for the whole gradient: linear in statistics with mean zero, with coefficients
from earlier batches.

    ĝ = (1/N) Σₙ (gₙ - zₙ B),    B = (Cov(z) + ridge)⁻¹ Cov(z, g) of earlier batches

gₙ is the gradient of one episode by another estimator, and zₙ are d statistics of that episode:

    z₁ = φ(s₀) - mean of φ over R extra initial states
    z₂ = Σₜ γᵗ φ(sₜ) ∂ log π(aₜ|sₜ) / ∂η,  η the logits, or the mean, of the policy's distribution
    φ  = 1, the entries of the observation, and their pairwise products if there are few

Both have mean 0 for any φ, so that g stays unbiased for any B that does not depend on the batch.
Control variates from a critic remove noise of the weights Ψ; this one removes noise of the sum over
the episode, including the scores and the visited states. Linear control variates of stochastic
gradients, with a matrix of coefficients: Wang et al. 2013 (NeurIPS, section 3), and several at
once: Geffner & Domke 2018 (1810.12482).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from pg import networks, returns
from pg.config import Hyperparams
from pg.distributions import Categorical, CensoredGaussian, Gaussian, Product, TanhGaussian
from pg.envs.views import seen
from pg.estimators.action_values import trajectory_control_variate
from pg.estimators.base import Estimator, Params, Weighted, map_along, policy_output
from pg.extra_rollouts import InitialStates
from pg.fast import blocks
from pg.inputs import described
from pg.networks import Network, as_float
from pg.rollout import Trajectory

NUM_STARTS = 4  # the default R
MOST_ENTRIES = 8  # of an observation, for products to be included
MOST_FEATURES = 512  # d; d² and d P numbers are stored
RIDGE = 1e-4  # in addition to that for few episodes, in units of the variance of each z

_ONE_ARRAY = (
    "a control variate of the gradient is linear in the entries of what the policy sees, which "
    "must be one array that it states as obs_shape, without action masks"
)


class ControlVariates(NamedTuple):
    """The control variates of each episode, with mean 0."""

    z: Float[Array, "B d"]
    # the mean of z² over the actions if known, else z²
    square: Float[Array, "B d"]


class PastMoments(NamedTuple):
    """Sums over the episodes of earlier batches, with exponential decay `baseline_decay`."""

    weight: Float[Array, ""]  # Σ 1
    z: Float[Array, " d"]  # Σ z
    g: Float[Array, " P"]  # Σ g
    zz: Float[Array, "d d"]  # Σ z zᵀ
    zg: Float[Array, "d P"]  # Σ z gᵀ
    square: Float[Array, " d"]  # Σ z², averaged over the actions


def gradient_control_variate(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """trajectory_control_variate with a linear control variate for the whole gradient (after Wang
    et al. 2013; Geffner & Domke 2018, 1810.12482).

    z are features of the initial state minus their mean over four extra initial states, and
    features of every visited state times the score of the logits. B is fitted by regression to the
    gradients of single episodes of earlier batches, with decay `baseline_decay`; in the first batch
    it is 0.
    Observations have to be small arrays, and there must be memory for N gradients.

    Ψₜ = γᵗ (Qₜ(a) + 1[a = aₜ] (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Aₖ) - Vₜ) / πₜ(a)), for every a; ĝ - B z
    Unbiased for: J: for any Q and any B fitted to earlier batches.
    Variance: that of trajectory_control_variate, minus what z explains of a whole episode.
    Needs: complete episodes, a critic Q of discrete or continuous actions, on-policy, extra resets.
    """
    return with_control_variate(trajectory_control_variate(policy, critic, h), policy, h)


def with_control_variate(
    made: Estimator, policy: Network, h: Hyperparams, num_starts: int = NUM_STARTS
) -> Estimator:
    """The estimator with a linear control variate B z subtracted.

    Args:
        made: The estimator, whose gradient is a mean over episodes.
        policy: Its policy.
        h: Its hyperparameters.
        num_starts: R, the number of extra initial states per episode.

    Raises:
        ValueError: Its gradient is not a mean over episodes, or observations are not arrays; by
            `init`, if they have too many entries.
    """
    if not made.separable:
        raise ValueError(
            "a control variate of the gradient is regressed on the gradients of single episodes, "
            "and this estimator's is not a mean of these"
        )
    if policy.obs_shape is None or policy.masked:
        raise ValueError(_ONE_ARRAY)

    def init(key: PRNGKeyArray) -> tuple[Params, PyTree]:
        params, state = made.init(key)
        d = num_features(policy, params)
        if d > MOST_FEATURES:
            raise ValueError(
                f"a control variate of the gradient is linear in at most {MOST_FEATURES} features, "
                f"and an observation of shape {policy.obs_shape} has {d} with the scores of these "
                "actions: choose entries by observe"
            )
        return params, (state, no_past(d, networks.num_params(params.policy)))

    def weigh(params: Params, state: PyTree, traj: Trajectory) -> tuple[Weighted, PyTree]:
        own_state, past = state
        numbers = control_variates(policy, params, traj, h)
        batch, own_after = made.weigh(params, own_state, traj._replace(starts=()))
        correction = numbers.z @ coefficients(past)
        sums = sums_of_batch(made, params, batch, numbers)
        after = updated_moments(past, h.baseline_decay, sums)
        batch = batch._replace(extra=(batch.extra, correction[None]))
        return jax.lax.stop_gradient((batch, (own_after, after)))

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
        extra, correction = batch.extra
        grads, metrics = made.grad(params, batch._replace(extra=extra))
        as_tree = ravel_pytree(params.policy)[1]
        shift = as_tree(jnp.mean(correction, axis=(0, 1)))
        return grads._replace(policy=jax.tree.map(jnp.subtract, grads.policy, shift)), metrics

    return made._replace(
        init=init,
        weigh=weigh,
        grad=grad,
        accepts=("episodes",),
        extra_rollouts=made.extra_rollouts._replace(starts=num_starts),
    )


def no_past(d: int, num_params: int) -> PastMoments:
    """The sums before the first batch."""
    shapes = (), (d,), (num_params,), (d, d), (d, num_params), (d,)
    return PastMoments(*map(jnp.zeros, shapes))


def features(obs: Shaped[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "*B F"]:
    """φ, [..., F]: 1, the entries of the observation and, for at most `MOST_ENTRIES`, their
    pairwise products.

    Args:
        obs: Observations, [..., *shape].
        shape: The shape of one observation.
    """
    x = as_float(obs).reshape(*obs.shape[: obs.ndim - len(shape)], -1)
    one = jnp.ones_like(x[..., :1])
    size = x.shape[-1]
    if size > MOST_ENTRIES:
        return jnp.concatenate([one, x], axis=-1)
    i, j = np.triu_indices(size)
    return jnp.concatenate([one, x, x[..., i] * x[..., j]], axis=-1)


def num_features(policy: Network, params: Params) -> int:
    """d, the entries of `control_variates`."""
    assert policy.obs_shape is not None  # as checked
    obs = jnp.zeros((1, *policy.obs_shape))
    shown = {policy.view: obs} if policy.view else obs

    def of_one_step() -> tuple[Array, Array]:
        carry = networks.start(policy, 1)
        dist = policy.apply(params.policy, carry, shown, jnp.ones(1, bool))[1]
        return features(obs, obs.shape[1:]), score_of_distribution(dist, dist.mode())

    phi, score = jax.eval_shape(of_one_step)
    return phi.shape[-1] - 1 + phi.shape[-1] * score.shape[-1]


def control_variates(
    policy: Network, params: Params, traj: Trajectory, h: Hyperparams
) -> ControlVariates:
    """The control variates z of each episode, with mean 0.

    Args:
        policy: The acting policy.
        params: Its parameters.
        traj: Complete episodes.
        h: The hyperparameters, for γ.

    Raises:
        ValueError: There are no extra initial states to compare with.
    """
    if not isinstance(traj.starts, InitialStates):
        raise ValueError(
            "there are no extra initial states to compare with: collect with "
            "pg.episodes(..., extra_rollouts=estimator.extra_rollouts)"
        )
    obs, starts = seen(traj.obs, policy.view), seen(traj.starts.obs, policy.view)
    shape = obs.shape[2:]
    own, others = features(obs[0], shape), features(starts[0], shape)
    of_start = mean_difference(own, others)[:, 1:]  # without that of the constant, which is 0

    def block(rows: Trajectory) -> tuple[Float[Array, "K B A"], Float[Array, "K B A"]]:
        dist = policy_output(policy, params, rows)
        score = score_of_distribution(dist, rows.action)
        return score, mean_square(dist, score)

    score, square = map_along(policy, block, traj)
    discount = jnp.where(traj.valid[..., None], returns.discount_powers(score, h.gamma), 0.0)
    score, square = discount * score, discount**2 * square

    def add(t: Any, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        phi = features(obs[t], shape)[:, None, :]
        of_z, of_square = totals
        return of_z + score[t][..., None] * phi, of_square + square[t][..., None] * phi**2

    zeros = jnp.zeros((*score.shape[1:], own.shape[-1]), score.dtype)
    found = jax.lax.fori_loop(0, blocks.num_steps(traj.valid), add, (zeros, zeros))
    of_actions, squares = (x.reshape(len(own), -1) for x in found)
    return ControlVariates(
        jnp.concatenate([of_start, of_actions], axis=-1),
        jnp.concatenate([of_start**2, squares], axis=-1),
    )


def mean_difference(own: Float[Array, "B F"], others: Float[Array, "B R F"]) -> Float[Array, "B F"]:
    """φ(s₀) - φ(s₀') averaged over the extra initial states, [B, F]; 0 if they are equal up to
    rounding.

    The difference from their mean would be a constant there, since the mean of three equal numbers
    may round to another number, and a constant is not a control variate. Setting it to 0 is
    symmetric in the two states, so that the mean stays 0.
    """
    own = own[:, None]
    difference = own - others
    rounding = 8 * jnp.finfo(own.dtype).eps * jnp.maximum(jnp.abs(own), jnp.abs(others))
    return jnp.mean(jnp.where(jnp.abs(difference) > rounding, difference, 0.0), axis=1)


def score_of_distribution(dist: Any, action: PyTree) -> Float[Array, "*B A"]:
    """∂ log π(a|s) / ∂η, [..., A]: for discrete actions 1[a] - π(a) for all but the last, for
    continuous ones the derivative with respect to the mean; for several parts those of each.

    Raises ValueError for a custom distribution.
    """
    if isinstance(dist, Product):
        pairs = zip(dist.parts, action, strict=True)
        return jnp.concatenate([score_of_distribution(*pair) for pair in pairs], axis=-1)
    if isinstance(dist, Categorical):
        pi = jax.nn.softmax(dist.logits)
        taken = jax.nn.one_hot(action, pi.shape[-1], dtype=pi.dtype)
        return (taken - pi)[..., :-1]
    if isinstance(dist, Gaussian | TanhGaussian | CensoredGaussian):
        own = dist

        def log_prob(mean: Array) -> Float[Array, ""]:
            return jnp.sum(own._replace(mean=mean).log_prob(action))

        return jax.grad(log_prob)(own.mean)
    raise ValueError(
        "a control variate of the gradient needs the score of the action distribution's own "
        f"parameters, which is known of the project's distributions; got {described(dist)}"
    )


def mean_square(dist: Any, score: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
    """The square of `score_of_distribution`, [..., A], averaged over discrete actions, π (1 - π);
    for others the square itself.
    """
    if isinstance(dist, Product):
        sizes = [jnp.shape(score_of_distribution(part, part.mode()))[-1] for part in dist.parts]
        own = jnp.split(score, np.cumsum(sizes)[:-1], axis=-1)
        pairs = zip(dist.parts, own, strict=True)
        return jnp.concatenate([mean_square(*pair) for pair in pairs], axis=-1)
    if isinstance(dist, Categorical):
        pi = jax.nn.softmax(dist.logits)[..., :-1]
        return pi * (1.0 - pi)
    return score**2


def sums_of_batch(
    made: Estimator, params: Params, batch: Weighted, numbers: ControlVariates
) -> PastMoments:
    """The sums of the episodes of a batch, a few gradients at a time.

    Args:
        made: The estimator of g, a descent direction.
        params: The parameters of policy and critic.
        batch: Weighed by it.
        numbers: z of each episode.
    """
    length, num_episodes = batch.traj.valid.shape
    at_once = max(4, blocks.rows() // length)
    size = max(k for k in range(1, at_once + 1) if num_episodes % k == 0)
    episodes = jax.tree.map(lambda x: jnp.moveaxis(x[:, :, None], 1, 0), batch)
    parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), (episodes, numbers))

    def gradient(episode: Weighted) -> Float[Array, " P"]:
        return ravel_pytree(made.grad(params, episode)[0].policy)[0]

    def add(total: PastMoments, part: tuple[Weighted, ControlVariates]) -> tuple[PastMoments, None]:
        some, (z, square) = part
        with blocks.mapped_over(size):
            g = jax.vmap(gradient)(some)
        sums = PastMoments(
            weight=jnp.asarray(size, z.dtype),
            z=jnp.sum(z, axis=0),
            g=jnp.sum(g, axis=0),
            zz=z.T @ z,
            zg=z.T @ g,
            square=jnp.sum(square, axis=0),
        )
        return jax.tree.map(jnp.add, total, sums), None

    zeros = no_past(numbers.z.shape[-1], networks.num_params(params.policy))
    return jax.lax.scan(add, zeros, parts)[0]


def updated_moments(past: PastMoments, decay: Any, sums: PastMoments) -> PastMoments:
    """The moments updated with a batch; unchanged if the batch has a non-finite number."""
    finite = jnp.stack([jnp.isfinite(x).all() for x in sums]).all()

    def one(old: Array, new: Array) -> Array:
        return jnp.where(finite, decay * old + new, old).astype(old.dtype)

    return jax.tree.map(one, past, sums)


def coefficients(past: PastMoments) -> Float[Array, "d P"]:
    """B, [d, P]; 0 without a past.

    The ridge is in units of the variance of each z, so that the scale of the observations does not
    matter. It is d over the number of episodes: a regression on fewer episodes than control
    variates would fit their noise.

    If an action is rare, z is small until it is taken, and the sample variance is too small: the
    variance implied by the probabilities is used as a lower bound.
    """
    weight = jnp.where(past.weight > 0, past.weight, 1.0)
    mean_z, mean_g = past.z / weight, past.g / weight
    cov_zz = past.zz / weight - jnp.outer(mean_z, mean_z)
    cov_zg = past.zg / weight - jnp.outer(mean_z, mean_g)
    seen = jnp.diagonal(cov_zz)
    variance = jnp.maximum(seen, past.square / weight)
    cov_zz = cov_zz + jnp.diag(variance - seen)
    rounding = 32 * jnp.finfo(variance.dtype).eps * jnp.diagonal(past.zz) / weight
    varies = variance > rounding
    unit = jnp.where(varies, 1.0 / jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0)
    correlation = unit[:, None] * cov_zz * unit[None, :]
    ridge = RIDGE + len(unit) / weight
    inverse = inverse_of_positive(correlation + ridge * jnp.eye(len(unit), dtype=unit.dtype))
    return unit[:, None] * (inverse @ (unit[:, None] * cov_zg))


def inverse_of_positive(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The inverse of a symmetric positive definite matrix, by Gauss-Jordan elimination, which needs
    no pivots: library calls can deadlock on the CPU if many run at once.
    """
    size = len(matrix)

    def eliminate(i: Any, rows: Float[Array, "d d2"]) -> Float[Array, "d d2"]:
        pivot = rows[i] / rows[i, i]
        factor = rows[:, i].at[i].set(0.0)
        return (rows - factor[:, None] * pivot[None, :]).at[i].set(pivot)

    both = jnp.concatenate([matrix, jnp.eye(size, dtype=matrix.dtype)], axis=1)
    return jax.lax.fori_loop(0, size, eliminate, both)[:, size:]
