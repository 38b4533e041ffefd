"""The guard against non-finite numbers: an update in which they appear is not applied.

If an update's rewards, observations, gradients, parameters or running statistics contain a NaN or
an infinity, or no action was legal at some step:

    stop     the run is frozen in its state before that update; other runs continue
    skip     the next update starts from the same state, with other random numbers
    ignore   it is applied anyway

NaN parameters would not be visible in returns: a categorical distribution of NaN logits keeps
choosing action 0.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from pg.axes import expand_to
from pg.config import OnNonfinite
from pg.envs import Masked
from pg.rollout import Trajectory

# The most negative 32-bit float, which no metric attains: a stand-in for NaN when programs must not
# produce one.
STAND_IN = float(np.finfo(np.float32).min)


def guarded(
    step: Callable[[Any, PRNGKeyArray], Any], how: OnNonfinite
) -> Callable[[Any, PRNGKeyArray], Any]:
    """A training step whose update is not applied if it contains a non-finite number.

    Args:
        step: state, key -> `pg.train.Update`.
        how: The reaction to such an update.
    """

    def guarded_step(state: Any, key: PRNGKeyArray) -> Any:
        done = step(state, key)
        bits = causes(done, state)
        if how == "ignore":  # never true, which the compiler cannot know: all three round alike
            reject = bits < 0
        else:
            reject = (bits != 0) | ((state.skipped > 0) & (how == "stop"))
        after = jax.tree.map(lambda old, new: jnp.where(reject, old, new), state, done.state)
        skipped = reject.astype(jnp.int32)
        after = after._replace(update=done.state.update, skipped=state.skipped + skipped)
        metrics = done.metrics | {"nonfinite": bits, "skipped": skipped}
        return done._replace(state=after, metrics=metrics)

    return guarded_step


def causes(update: Any, before: Any) -> Int[Array, ""]:
    """int32 []: bit i is set if `config.NONFINITE_CAUSES`[i] is not finite, or has no legal action;
    0: none.

    A running statistic counts from the update in which it stops being finite: some start at ±∞.

    Args:
        update: The `pg.train.Update`. Its gradient norm is also infinite if only the square of a
            gradient overflows.
        before: The state before it.
    """
    rewards, observations, masks = update.are_finite
    gradients = jnp.isfinite(update.largest_grad_norm)
    parameters = _all([jnp.isfinite(x).all() for x in jax.tree.leaves(update.state.params)])
    kept = jax.tree.map(
        lambda old, new: (jnp.isfinite(new) | ~jnp.isfinite(old)).all(),
        _statistics(before),
        _statistics(update.state),
    )
    statistics = _all(jax.tree.leaves(kept))
    are_finite = jnp.stack([rewards, observations, gradients, parameters, masks, statistics])
    bits = 2 ** np.arange(len(are_finite), dtype=np.int32)
    return jnp.sum(jnp.where(are_finite, 0, bits), dtype=jnp.int32)


def _statistics(state: Any) -> list[Array]:
    """The running statistics of a `pg.train.TrainState` that are floats: of observations, of
    returns, and the estimator's.
    """
    leaves = jax.tree.leaves((state.normaliser, state.estimator_state))
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]


def of_batch(traj: Trajectory) -> Bool[Array, "3"]:
    """Flags of a collected batch, [3]: True for rewards and for observations if they are finite,
    and for action masks if every step has a legal action.
    """

    def where_valid(x: Array) -> Array:
        return (x | ~expand_to(traj.valid, x)).all()

    obs = traj.obs.obs if isinstance(traj.obs, Masked) else traj.obs
    obs_finite = [where_valid(jnp.isfinite(x)) for x in jax.tree.leaves(obs)]
    are_legal = [where_valid(mask.any(axis=-1)) for mask in jax.tree.leaves(traj.mask)]
    return jnp.stack([jnp.isfinite(traj.reward).all(), _all(obs_finite), _all(are_legal)])


def _all(flags: list[Array]) -> Bool[Array, ""]:
    """True if all of the flags are; a single one is returned as it is."""
    if not flags:
        return jnp.bool_(True)
    return flags[0] if len(flags) == 1 else jnp.stack(flags).all()


def missing() -> float:
    """A metric without a value, such as the return of an update in which no episode ended.

    It is NaN, or `STAND_IN` under JAX_DEBUG_NANS, which stops a program at any NaN.
    """
    settings: Any = jax.config  # its attributes are made at run time
    return STAND_IN if settings.jax_debug_nans else float("nan")


def restored(metrics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics, on the host, with NaN again where `missing` put its stand-in."""
    if missing() != STAND_IN:
        return dict(metrics)

    def one(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind != "f":
            return x
        return np.where(x == STAND_IN, np.nan, x).astype(x.dtype)

    return {name: one(x) for name, x in metrics.items()}
