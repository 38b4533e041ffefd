"""What an estimator must give, looked at while a program is traced."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pg.config import Hyperparams
from pg.estimators.base import Estimator, Params, Weighted
from pg.estimators.family import Factory, as_listed
from pg.inputs import check_function
from pg.networks import Network
from pg.rollout import Trajectory


def checked(factory: Factory) -> Factory:
    """The factory whose estimators raise ValueError, while traced, where they give something else
    than they should.

    Costs nothing when the program runs. What jax would say of it speaks of the carry of a scan, or
    of optax.
    """
    instead = "write estimator=pg.ESTIMATORS['gae'], or Config(estimator='gae')"
    if isinstance(factory, Estimator):
        instead = f"give the function that makes it; {instead}"
    elif isinstance(factory, str):
        instead = f"write Config(estimator={factory!r})"
    check_function("estimator", factory, ("policy", "critic", "hyperparams"), instead)
    name = f"estimator {getattr(factory, '__name__', type(factory).__name__)!r}"
    factory = as_listed(factory)

    @functools.wraps(factory)
    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        made = factory(policy, critic, h)
        if not isinstance(made, Estimator):
            raise ValueError(
                f"{name} must make an Estimator(init, weigh, grad), got {type(made).__name__}"
            )

        def init(key: jax.Array) -> tuple[Params, Any]:
            params, state = _two(f"init of {name}", made.init(key), "params and a state")
            _check_is(Params, params, f"the params of {name}")
            return params, state

        def weigh(params: Params, state: Any, traj: Trajectory) -> tuple[Weighted, Any]:
            batch, after = _two(
                f"weigh of {name}", made.weigh(params, state, traj), "a Weighted and a state"
            )
            _check_is(Weighted, batch, f"what weigh of {name} gives first")
            shape = jnp.shape(batch.psi) if _shaped(batch.psi) else ()
            if shape[:2] != traj.reward.shape or len(shape) > 3:
                raise ValueError(
                    f"psi of {name} must be [T, B] = {list(traj.reward.shape)} or [T, B, A], got "
                    f"shape {shape}"
                )
            _check_alike(state, after, f"the state of {name} after weigh")
            return batch, after

        def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, jax.Array]]:
            grads, metrics = _two(
                f"grad of {name}", made.grad(params, batch), "gradients and metrics"
            )
            _check_is(Params, grads, f"the gradients of {name}")
            _check_alike(params, grads, f"the gradients of {name}")
            _check_is(dict, metrics, f"the metrics of {name}")
            for metric, value in metrics.items():
                if not _is_scalar(value):
                    raise ValueError(
                        f"the metric {metric!r} of {name} must be one number, got "
                        f"{_description(value)}"
                    )
            return grads, metrics

        return made._replace(init=init, weigh=weigh, grad=grad)

    return make


def _two(what: str, given: Any, parts: str) -> Any:
    if not isinstance(given, tuple) or len(given) != 2:
        size = f" of {len(given)}" if isinstance(given, tuple) else ""
        raise ValueError(f"{what} must give a pair, {parts}; got {type(given).__name__}{size}")
    return given


def _check_is(kind: type, given: Any, what: str) -> None:
    if not isinstance(given, kind):
        raise ValueError(f"{what} must be a {kind.__name__}, got {type(given).__name__}")


def _check_alike(wanted: Any, given: Any, what: str) -> None:
    """That two trees have the same structure, and leaves of the same shapes and dtypes."""
    trees = (
        {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(t)}
        for t in (wanted, given)
    )
    before, after = ({name: _description(x) for name, x in leaves.items()} for leaves in trees)
    for name in before | after:
        if before.get(name) != after.get(name):
            raise ValueError(
                f"{what}: {name} must be {before.get(name, 'absent')}, got "
                f"{after.get(name, 'nothing')}"
            )
    structures: list[Any] = [jax.tree.structure(tree) for tree in (wanted, given)]
    if structures[0] != structures[1]:
        raise ValueError(f"{what} must have the structure {structures[0]}, got {structures[1]}")


def _is_scalar(x: Any) -> bool:
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return (
        _shaped(x)
        and jnp.shape(x) == ()
        and any(jnp.issubdtype(jnp.result_type(x), kind) for kind in kinds)
    )


def _shaped(x: Any) -> bool:
    return hasattr(x, "dtype") or isinstance(x, bool | int | float)


def _description(x: Any) -> str:
    return f"{jnp.result_type(x)} of shape {jnp.shape(x)}" if _shaped(x) else type(x).__name__
