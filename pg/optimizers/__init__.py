"""Gradients to updates: optax, with the step size and its schedule from Config and Hyperparams.

Most take only the gradient. Others also take, as optax's extra arguments, its sources: the weighted
batch, the policy, the estimator, a random key, and a function that collects another batch.

    adam, sgd, ...          g ↦ update(g)
    natural                 g ↦ (F + damping I)⁻¹ g
    trpo                    the same, within a KL divergence
    storm, svrpg, page_pg   g and gradients at earlier parameters
    harpg, n_harpg          g and Hessians between earlier parameters and these
    igt, n_igt              an average of g, each at a point ahead of the path
"""

import functools
from collections.abc import Callable
from typing import Any, get_args

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from pg.config import (
    Config,
    Hyperparams,
    PolicyOptimizer,
    Schedule,
    check_config,
    check_is_hyperparams,
    part_name,
)
from pg.envs.failures import in_one_sentence
from pg.optimizers.curvature import (
    conjugate_gradient,
    exact_solve,
    fisher_matrix,
    fisher_vector_product,
    mean_kl,
    scale_by_fisher,
    scale_by_trust_region,
)
from pg.optimizers.variance_reduction import (
    averaged,
    env_steps,
    extrapolated,
    harpg,
    hessian_vector_product,
    igt,
    importance_weighted_gradient,
    page_pg,
    parameters_of_path,
    storm,
    svrpg,
)

__all__ = [
    "OPTIMIZERS",
    "averaged",
    "clip_each_by_global_norm",
    "conjugate_gradient",
    "env_steps",
    "exact_solve",
    "extrapolated",
    "fisher_matrix",
    "fisher_vector_product",
    "harpg",
    "hessian_vector_product",
    "igt",
    "importance_weighted_gradient",
    "make_optimizer",
    "mean_kl",
    "page_pg",
    "parameters_of_path",
    "planned",
    "scale_by_fisher",
    "scale_by_trust_region",
    "schedule",
    "scheduled",
    "storm",
    "svrpg",
]

# learning rate or schedule -> transformation
OptimizerFactory = Callable[[Any], optax.GradientTransformation]
Rate = Any


def adam(rate: Rate, h: Hyperparams) -> optax.GradientTransformation:
    """Adam, with the ε of the hyperparameters."""
    return optax.adam(rate, eps=h.adam_epsilon)


def natural(rate: Rate, h: Hyperparams) -> optax.GradientTransformation:
    """Natural gradient of the policy."""
    return optax.chain(scale_by_fisher(h.damping), optax.scale_by_learning_rate(rate))


def trpo(rate: Rate, h: Hyperparams) -> optax.GradientTransformation:
    """Trust-region steps of the policy, with lengths set by `max_kl`."""
    return scale_by_trust_region(h.max_kl, h.damping)


def normalised(rate: Rate, h: Hyperparams) -> optax.GradientTransformation:
    """Steps along the direction whose length is the learning rate: rate · d / (‖d‖ + 1e-6).

    Clipping d before, by `max_grad_norm`, changes nothing as long as its norm is far above 1e-6.
    """
    return optax.chain(optax.normalize_by_update_norm(), optax.scale_by_learning_rate(rate))


# From the learning rate and the hyperparameters.
OPTIMIZERS: dict[str, Callable[[Rate, Hyperparams], optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": lambda rate, h: optax.adamw(rate, eps=h.adam_epsilon),
    "amsgrad": lambda rate, h: optax.amsgrad(rate, eps=h.adam_epsilon),
    "lion": lambda rate, h: optax.lion(rate),
    "nadam": lambda rate, h: optax.nadam(rate, eps=h.adam_epsilon),
    "radam": lambda rate, h: optax.radam(rate, eps=h.adam_epsilon),
    "rmsprop": lambda rate, h: optax.rmsprop(rate),
    "sgd": lambda rate, h: optax.sgd(rate),
    "natural": natural,
    "trpo": trpo,
    "storm": adam,
    "svrpg": adam,
    "page_pg": adam,
    "harpg": adam,
    "n_harpg": normalised,
    "igt": lambda rate, h: extrapolated(adam(rate, h), h.momentum),
    "n_igt": lambda rate, h: extrapolated(normalised(rate, h), h.momentum),
}
POLICY_ONLY = get_args(PolicyOptimizer)


def _average_of_policy(h: Hyperparams) -> optax.GradientTransformationExtraArgs:
    return policy_and_critic(averaged(h.momentum), optax.identity())


# Transformations of the gradient before it is clipped: corrections are for the unclipped gradient.
BEFORE_CLIPPING: dict[str, Callable[[Hyperparams], optax.GradientTransformationExtraArgs]] = {
    "storm": lambda h: storm(h.momentum),
    "svrpg": lambda h: svrpg(h.snapshot_period),
    "page_pg": lambda h: page_pg(h.restart_probability),
    "harpg": lambda h: harpg(h.momentum),
    "n_harpg": lambda h: harpg(h.momentum),
    "igt": _average_of_policy,
    "n_igt": _average_of_policy,
}


def make_optimizer(
    config: Config, h: Hyperparams, step: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Clipping by global norm, then the optimizer of `config`: a named one for policy and critic
    each, or a custom one for both together.

    Its update takes `batch`, `policy`, `estimator`, `gradient_scale` (the factor of the gradients),
    `key` (of this step alone) and `resample` (`variance_reduction.Resample`; None with windows)
    besides gradients, state and params; neither `batch` nor `resample` with micro-batches.

    Args:
        config: Has the optimizers and the schedule of the learning rate. A custom optimizer is a
            function of the rate, which with a schedule is itself a function, like optax's
            schedules.
        h: Learning rate and other hyperparameters of optimizers; may be traced.
        step: Number of this step among the planned ones, int [], which sets the learning rate. By
            default it follows the optimizer's own count, which leaves out the steps that were not
            taken (`stop_kl`, numbers that are not finite).
    """
    check_config(config)
    check_is_hyperparams(h)
    rate = _rate(config, h.learning_rate, step)
    critic_rate = _rate(config, h.critic_rate * h.learning_rate, step)
    clip = clip_each_by_global_norm(h.max_grad_norm)
    if not isinstance(config.optimizer, str):
        own = _made_by(config.optimizer, rate)
        if config.critic_optimizer is None:
            return optax.chain(clip, own)
        of_critic = OPTIMIZERS[config.critic_optimizer](critic_rate, h)
        return optax.chain(clip, policy_and_critic(own, of_critic))
    before = [make(h) for name, make in BEFORE_CLIPPING.items() if name == config.optimizer]
    default = "adam" if config.optimizer in POLICY_ONLY else config.optimizer
    critic_optimizer = config.critic_optimizer or default
    of_policy = OPTIMIZERS[config.optimizer](rate, h)
    of_critic = OPTIMIZERS[critic_optimizer](critic_rate, h)
    return optax.chain(*before, clip, policy_and_critic(of_policy, of_critic))


def planned(
    config: Config, h: Hyperparams
) -> Callable[[Array], optax.GradientTransformationExtraArgs]:
    """The optimizer of every step: a function of its number among the planned ones.

    If the learning rate is constant, all steps have the same one.

    Args:
        config: The settings.
        h: The hyperparameters.
    """
    if config.schedule == "constant":
        constant = make_optimizer(config, h)
        return lambda step: constant
    return functools.partial(make_optimizer, config, h)


def scheduled(config: Config, h: Hyperparams, update: Int[Array, ""]) -> Hyperparams:
    """The hyperparameters of an update: entropy and clip ranges, annealed according to `config`."""

    def at(kind: Schedule, value: Any) -> Any:
        if kind == "constant":
            return value
        annealed = value * schedule(kind, 1.0, config.num_updates)(update)
        return jnp.where(jnp.isinf(value), value, annealed)

    return h._replace(
        entropy_coef=at(config.entropy_schedule, h.entropy_coef),
        temperature=at(config.entropy_schedule, h.temperature),
        epsilon=at(config.epsilon_schedule, h.epsilon),
        epsilon_high=at(config.epsilon_schedule, h.epsilon_high),
        value_epsilon=at(config.epsilon_schedule, h.value_epsilon),
    )


def _rate(config: Config, value: Any, step: Any) -> Rate:
    """A learning rate: a number, or, with a schedule, a function of the optimizer's count."""
    if config.schedule == "constant":
        return value
    planned = config.num_updates * config.steps_per_update
    over_the_run = schedule(config.schedule, value, planned)
    if step is None:
        return over_the_run
    return lambda count: over_the_run(step)


def _made_by(optimizer: OptimizerFactory, rate: Rate) -> optax.GradientTransformation:
    """The transformation made by a user's function. Raises ValueError for something else."""
    with in_one_sentence(f"optimizer {part_name(optimizer)!r}"):
        made = optimizer(rate)
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(
            f"optimizer must make an optax.GradientTransformation, got {type(made).__name__}"
        )
    return made


def policy_and_critic(
    policy: optax.GradientTransformation, critic: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """The two parts of `Params`, each with its own transformation."""
    each = [optax.with_extra_args_support(part) for part in (policy, critic)]

    def init(params: Any) -> Any:
        return tuple(part.init(p) for part, p in zip(each, params, strict=True))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        parts = zip(each, updates, state, params, strict=True)
        done = [part.update(u, s, p, **extra) for part, u, s, p in parts]
        return type(updates)(*(u for u, _ in done)), tuple(s for _, s in done)

    return optax.GradientTransformationExtraArgs(init, update)


def clip_each_by_global_norm(max_norm: Any) -> optax.GradientTransformation:
    """Clips policy and critic by their separate global norms, so that neither's scale affects the
    other's step.

    They share no parameters; a sum of squared errors over an episode would otherwise drown the
    policy's gradient.
    """
    clip = optax.clip_by_global_norm(max_norm)

    def clip_each(updates: Any, params: Any) -> Any:
        clipped = [clip.update(part, clip.init(part))[0] for part in updates]
        return type(updates)(*clipped)

    return optax.stateless(clip_each)


def schedule(kind: Schedule, value: Any, steps: int) -> optax.Schedule:
    """Number of steps done -> `value`, annealed to zero after `steps`.

    Args:
        kind: constant, linear or cosine.
        value: the value at the start.
        steps: the steps after which it is zero.
    """
    if kind == "linear":
        return optax.linear_schedule(value, 0.0, steps)
    if kind == "cosine":
        return optax.cosine_decay_schedule(value, steps)
    return optax.constant_schedule(value)
