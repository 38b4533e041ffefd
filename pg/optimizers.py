"""Gradients to updates: optax, with the step size and its course taken from Config and Hyperparams."""

from collections.abc import Callable
from typing import Any

import optax

from pg.config import Config, Hyperparams

OptimizerFactory = Callable[[Any], optax.GradientTransformation]  # learning rate or schedule -> transformation

OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "amsgrad": optax.amsgrad,
    "lion": optax.lion,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def make_optimizer(
    config: Config, hyperparams: Hyperparams, optimizer: OptimizerFactory | None = None
) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer that `config` names, or that is given as a function."""
    rate = _schedule(config, hyperparams.learning_rate)
    return optax.chain(
        clip_each_by_global_norm(hyperparams.max_grad_norm),
        (optimizer or OPTIMIZERS[config.optimizer])(rate),
    )


def clip_each_by_global_norm(max_norm: Any) -> optax.GradientTransformation:
    """Clips policy and critic by the global norm of each, so that neither's scale sets the other's step.

    They share no parameters; a sum of squared errors over an episode would otherwise drown the policy's gradient.
    """
    clip = optax.clip_by_global_norm(max_norm)
    return optax.stateless(
        lambda updates, params: type(updates)(*(clip.update(part, clip.init(part))[0] for part in updates))
    )


def _schedule(config: Config, rate: Any) -> Any:
    steps = config.num_updates * config.num_epochs * config.num_minibatches
    return {
        "constant": lambda: rate,
        "linear": lambda: optax.linear_schedule(rate, 0.0, steps),
        "cosine": lambda: optax.cosine_decay_schedule(rate, steps),
    }[config.schedule]()
