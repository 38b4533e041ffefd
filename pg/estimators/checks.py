"""Checks of an estimator's results, while a program is traced."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from pg.config import Hyperparams, part_name
from pg.envs.failures import failed, in_one_sentence, is_leak
from pg.estimators.base import Estimator, Params, Weighted
from pg.estimators.family import Factory, as_listed, find
from pg.estimators.trees import check_trees_equal, description, is_shaped
from pg.networks import Network
from pg.rollout import Trajectory
from pg.settings.own_files import place_of
from pg.settings.parts import check_part


def factory_of(estimator: Any) -> Factory:
    """The function that makes an estimator, by its name, or a custom one with its results
    checked.
    """
    return find(estimator) if isinstance(estimator, str) else checked(estimator)


def checked(factory: Factory) -> Factory:
    """The factory with estimators that raise ValueError, while traced, for wrong results.

    It costs nothing at run time. JAX's own errors would be about the carry of a scan, or about
    optax.
    """
    check_part("estimator", factory)
    name = f"estimator {part_name(factory)!r}"
    factory = as_listed(factory)

    @functools.wraps(factory)
    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        with in_one_sentence(name):
            made = factory(policy, critic, h)
        if not isinstance(made, Estimator):
            raise ValueError(
                f"{name} must make an Estimator(init, weigh, grad), got {type(made).__name__}"
            )

        def init(key: PRNGKeyArray) -> tuple[Params, PyTree]:
            result = _pure(f"init of {name}", made.init)(key)
            params, state = _two(f"init of {name}", result, "params and a state")
            _check_is(Params, params, f"the params of {name}")
            return params, state

        def weigh(params: Params, state: PyTree, traj: Trajectory) -> tuple[Weighted, PyTree]:
            result = _pure(f"weigh of {name}", made.weigh)(params, state, traj)
            batch, after = _two(f"weigh of {name}", result, "a Weighted and a state")
            _check_is(Weighted, batch, f"the first result of weigh of {name}")
            shape = jnp.shape(batch.psi) if is_shaped(batch.psi) else ()
            if shape[:2] != traj.reward.shape or len(shape) > 3:
                raise ValueError(
                    f"psi of {name} must be [T, B] = {list(traj.reward.shape)} or [T, B, A], got "
                    f"shape {shape}"
                )
            check_trees_equal(state, after, f"the state of {name} after weigh")
            return batch, after

        def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
            result = _pure(f"grad of {name}", made.grad)(params, batch)
            grads, metrics = _two(f"grad of {name}", result, "gradients and metrics")
            _check_is(Params, grads, f"the gradients of {name}")
            check_trees_equal(params, grads, f"the gradients of {name}")
            _check_is(dict, metrics, f"the metrics of {name}")
            for metric, value in metrics.items():
                if not _is_scalar(value):
                    raise ValueError(
                        f"the metric {metric!r} of {name} must be one number, got "
                        f"{description(value)}"
                    )
            return grads, metrics

        return made._replace(init=init, weigh=weigh, grad=grad)

    return make


def _pure(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A user's function, traced once more before it is called, with JAX's check for leaked
    tracers.
    """

    def called(*args: Any) -> Any:
        try:
            with jax.checking_leaks():
                jax.eval_shape(function, *args)
        except Exception as error:
            if is_leak(error) or place_of(error):
                raise ValueError(failed(what, error)) from error
        return function(*args)  # results that JAX cannot trace are reported by later checks

    return called


def _two(what: str, result: Any, parts: str) -> Any:
    """The result of a user's function, if it is a pair; else raises ValueError."""
    if not isinstance(result, tuple) or len(result) != 2:
        size = f" of {len(result)}" if isinstance(result, tuple) else ""
        raise ValueError(f"{what} must return a pair, {parts}; got {type(result).__name__}{size}")
    return result


def _check_is(kind: type, result: Any, what: str) -> None:
    """Raises ValueError if the result of a user's function is of another class."""
    if not isinstance(result, kind):
        raise ValueError(f"{what} must be a {kind.__name__}, got {type(result).__name__}")


def _is_scalar(x: Any) -> bool:
    """True for one real number or boolean."""
    if not is_shaped(x) or jnp.shape(x) != ():
        return False
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(jnp.result_type(x), kind) for kind in kinds)
