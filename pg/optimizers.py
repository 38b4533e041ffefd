"""Gradients to updates: optax, with the step size and its course taken from Config and Hyperparams.

A transformation may ask for the batch that the gradient came from, and for the policy, as optax's extra arguments:

    adam, sgd, ...   g ↦ update(g)              natural   g ↦ (F + damping I)⁻¹ g,  F = E[Σₜ ∇log π ∇log πᵀ]
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pg import blocks
from pg.config import Config, Hyperparams
from pg.networks import Network, unroll
from pg.rollout import Trajectory

OptimizerFactory = Callable[[Any], optax.GradientTransformation]  # learning rate or schedule -> transformation


def mean_kl(policy: Network, params: Any, other: Any, traj: Trajectory, gamma: Any = 1.0) -> jax.Array:
    """(1/N) Σₙ Σₜ γᵗ KL(π_params ‖ π_other) over the valid steps, []. params, other: of the policy."""
    return blocks.sum_steps(lambda rows: _kl(policy, params, other, rows, gamma), traj, traj.valid)


def fisher_vector_product(policy: Network, params: Any, traj: Trajectory, vector: Any, gamma: Any = 1.0) -> Any:
    """F v, F = (1/N) Σₙ Σₜ γᵗ E_{a~π}[∇log π ∇log πᵀ], without forming F; a tree like params.

    The Hessian of the mean KL at equal parameters, exact in the action (Schulman et al. 2015, 1502.05477, app. C).
    gamma: of the state weighting; 1 for none. It should be the gradient's own (Thomas 2014).
    """

    def block(rows: Trajectory) -> Any:
        slope = jax.grad(lambda other: _kl(policy, params, other, rows, gamma))
        return jax.jvp(slope, (params,), (vector,))[1]

    return blocks.sum_steps(block, traj, traj.valid)


def _kl(policy: Network, params: Any, other: Any, rows: Trajectory, gamma: Any) -> jax.Array:
    before, after = (unroll(policy, p, rows.obs, rows.first) for p in (params, other))
    weight = jnp.asarray(gamma, rows.reward.dtype) ** rows.time
    return jnp.sum(jnp.where(rows.valid, weight * before.kl(after), 0.0)) / rows.valid.shape[1]


def scale_by_fisher(
    damping: Any = 1e-2, iterations: int = 10, gamma: Any = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The natural gradient of the policy, (F + damping I)⁻¹ g by conjugate gradients (Kakade 2001).

    The critic's gradient passes as it is. F is singular for softmax policies: damping is in units of its eigenvalues.
    F and g come from the same episodes, so that the mean of the result is not F⁻¹∇J, which it tends to as episodes
    grow in number.
    """

    def update(updates: Any, state: Any, params: Any = None, *, batch: Any, policy: Network, **extra: Any) -> Any:
        del extra

        def damped(v: Any) -> Any:
            product = fisher_vector_product(policy, params.policy, batch.traj, v, gamma)
            return jax.tree.map(lambda f, x: f + damping * x, product, v)

        # Stopped once solved: further steps on a singular F divide rounding errors by each other.
        direction, _ = jax.scipy.sparse.linalg.cg(damped, updates.policy, maxiter=iterations, tol=1e-10)
        return updates._replace(policy=direction), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def natural(learning_rate: Any) -> optax.GradientTransformation:
    """Natural gradient for the policy, Adam for the critic."""

    def parts(params: Any) -> Any:
        return type(params)(*(jax.tree.map(lambda _, name=n: name, getattr(params, n)) for n in params._fields))

    each = {"policy": optax.scale_by_learning_rate(learning_rate), "critic": optax.adam(learning_rate)}
    return optax.chain(scale_by_fisher(), optax.partition(each, parts))


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "amsgrad": optax.amsgrad,
    "lion": optax.lion,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
    "natural": natural,
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
