"""Hyperparameters without effect: no number of an update depends on them, such as the weight of a
divergence that the estimator does not use.

This is read off the traced program of an update, which shows what estimator, optimizer and
networks use.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pg.config import Config, Hyperparams
from pg.envs.adapters.base import faults_in_one_sentence
from pg.train import make_learner

__all__ = ["changed", "remark", "without_effect"]


def changed(config: Config, hyperparams: Hyperparams) -> list[str]:
    """The hyperparameters that differ from the defaults of the estimator on the environment."""
    usual = Config(env=config.env, estimator=config.estimator).hyperparams().scalars()
    return [name for name, value in hyperparams.scalars().items() if value != usual[name]]


def _always_used(config: Config) -> tuple[str, ...]:
    """The hyperparameters that every update depends on, for which no program need be inspected:
    gradients are clipped before any optimizer, and the learning rate sets the step unless trpo or a
    custom optimizer does.
    """
    if config.optimizer == "trpo" or not isinstance(config.optimizer, str):
        return ("max_grad_norm",)
    return ("max_grad_norm", "learning_rate")


@faults_in_one_sentence()
def without_effect(config: Config, hyperparams: Hyperparams, names: Iterable[str]) -> list[str]:
    """The hyperparameters among these names on which nothing in an update depends; the update is
    traced but not compiled.

    Raises ValueError as `make_learner` and its learner do.
    """
    always = _always_used(config)
    values: dict[str, Any] = {
        name: jnp.asarray(getattr(hyperparams, name)) for name in names if name not in always
    }
    if not values:
        return []

    def update(values: dict[str, Any], key: jax.Array) -> Any:
        learner = make_learner(config, hyperparams._replace(**values))
        init_key, step_key = jax.random.split(key)
        return learner.step(learner.init(init_key), step_key)

    jaxpr = jax.make_jaxpr(update)(values, jax.random.key(0)).jaxpr
    used = _used(jaxpr)
    if len(used) != len(values) + 1:  # the values in the order of their names, and the key
        return []
    of_values = used[: len(values)]
    return [name for name, is_used in zip(sorted(values), of_values, strict=True) if not is_used]


def _used(jaxpr: Any) -> list[bool]:
    """For each input of a program, True if an output depends on it; [] if this version of jax
    cannot tell, as that interface is not stable.
    """
    try:
        from jax.interpreters import partial_eval

        _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return list(used)
    except Exception:  # the interface has changed
        return []


def remark(names: Sequence[str], title: str) -> str:
    """The sentence on hyperparameters without effect. title: the names of what is trained."""
    verb, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return (
        f"note: {', '.join(names)} {verb} no effect: nothing in an update of {title} depends on "
        f"{them}"
    )
