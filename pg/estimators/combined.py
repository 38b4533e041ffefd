"""Estimators made from others: control variates for the dynamics and for the gradient, and
estimators with separate hyperparameters.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from pg import returns
from pg.config import Hyperparams, check_hyperparams, part_name
from pg.estimators.asked_again import surprise_of_dynamics
from pg.estimators.base import Estimator, Params, Weighted, critic_gradient
from pg.estimators.checks import factory_of
from pg.estimators.facts import OWN_HYPERPARAMS
from pg.estimators.family import Factory
from pg.estimators.linear_control_variate import NUM_STARTS, with_control_variate
from pg.estimators.names import check_estimator, facts_of
from pg.inputs import check_name, count
from pg.networks import Network
from pg.rollout import Trajectory
from pg.settings import own_files

# params, weighted -> gradients of the loss, metrics
Grad = Callable[[Params, Weighted], tuple[Params, dict[str, Array]]]


def with_dynamics_control_variate(estimator: Factory | str) -> Factory:
    """Another estimator of complete episodes with less of the noise of the dynamics: its rewards
    are rₖ - Cₖ, as in `dynamics_control_variate`.

        estimator = with_dynamics_control_variate("leave_one_out")
        config = pg.Config(estimator=estimator, num_branches=3)

    As Cₖ has mean 0 given the past, the state and the action, an unbiased estimator stays unbiased,
    whatever its baseline. If it has no critic, V is fitted to complete returns. With a
    `temperature` C is still computed from the environment's rewards.

    Args:
        estimator: A function of policy, critic and hyperparameters, or its name.

    Raises:
        ValueError: It is for windows, has a critic of actions, or has extra rollouts itself.
    """
    estimator = loaded(estimator)
    facts = facts_of(estimator)
    name = part_name(estimator)
    instead = "give one of complete episodes without a critic, or with a critic V"
    if "episodes" not in facts.collect:
        raise ValueError(f"estimator {name!r} is for windows: {instead}")
    if facts.critic in ("Q", "hindsight"):
        raise ValueError(f"estimator {name!r} has a critic of actions: {instead}")
    if facts.extra_rollout_kind != "none":
        raise ValueError(
            f"estimator {name!r} has extra rollouts of its own: give one without, or use it alone"
        )
    factory = factory_of(estimator)

    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        made = factory(policy, critic, h)
        without_entropy = h._replace(temperature=0.0)  # C uses the environment's rewards

        def init(key: PRNGKeyArray) -> tuple[Params, PyTree]:
            own_key, critic_key = jax.random.split(key)
            params, state = made.init(own_key)
            if not jax.tree.leaves(params.critic):
                params = params._replace(critic=critic.init(critic_key))
            return params, state

        def weigh(params: Params, state: PyTree, traj: Trajectory) -> tuple[Weighted, PyTree]:
            surprise = surprise_of_dynamics(critic, params, traj, without_entropy)
            calmer = traj._replace(reward=traj.reward - surprise)
            batch, after = made.weigh(params, state, calmer)
            if isinstance(batch.target, tuple):
                target = returns.reward_to_go(calmer.reward, traj.done, h.gamma)
                batch = batch._replace(target=jax.lax.stop_gradient(target))
            return batch, after

        return made._replace(
            init=init,
            weigh=weigh,
            grad=with_value_loss(made, critic, h),
            accepts=("episodes",),
            extra_rollouts=made.extra_rollouts._replace(successors=True),
        )

    make.__name__ = f"{name}_with_dynamics_control_variate"
    make.facts = replace(  # type: ignore[attr-defined]
        facts, module="", collect=("episodes",), critic="V", extra_rollout_kind="successors"
    )
    return make


def with_gradient_control_variate(
    estimator: Factory | str, *, num_starts: int = NUM_STARTS
) -> Factory:
    """Another estimator of complete episodes with a linear control variate B z subtracted, as in
    `gradient_control_variate`.

        estimator = with_gradient_control_variate("state_value")
        config = pg.Config(estimator=estimator)

    As z has mean 0 and B is from earlier batches, an unbiased estimator stays unbiased.

    Args:
        estimator: A function of policy, critic and hyperparameters, or its name.
        num_starts: The number of extra initial states per episode; each counts as a step.

    Raises:
        ValueError: It is for windows.
    """
    estimator = loaded(estimator)
    facts = facts_of(estimator)
    name = part_name(estimator)
    num_starts = count("num_starts", num_starts)
    if "episodes" not in facts.collect:
        raise ValueError(f"estimator {name!r} is for windows: give one of complete episodes")
    factory = factory_of(estimator)

    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return with_control_variate(factory(policy, critic, h), policy, h, num_starts)

    make.__name__ = f"{name}_with_gradient_control_variate"
    make.facts = replace(  # type: ignore[attr-defined]
        facts,
        module="",
        collect=("episodes",),
        off_policy=False,  # z has mean 0 only on-policy
        several_steps=False,
        regression=False,
        psi_depends_on_policy=True,
        extra_rollout_kind="starts"
        if facts.extra_rollout_kind == "none"
        else facts.extra_rollout_kind,
        starts=num_starts,
        reads=tuple(dict.fromkeys([*facts.reads, "baseline_decay"])),
    )
    return make


def loaded(estimator: Factory | str) -> Factory | str:
    """An estimator's function or known name, unchanged; the function for `FILE.py:NAME`.

    Raises ValueError, with the nearest valid names, for an unknown one.
    """
    if not isinstance(estimator, str):
        return estimator
    if own_files.is_reference(estimator):
        factory: Factory = own_files.load(estimator, "estimator")
        return factory
    check_estimator("estimator", estimator)
    return estimator


def with_value_loss(made: Estimator, critic: Network, h: Hyperparams) -> Grad:
    """The `grad` of an estimator, plus the gradient of V's loss if it has no critic itself.

    Args:
        made: The estimator.
        critic: V, whose parameters are those of `Params.critic`.
        h: The hyperparameters.
    """

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
        grads, metrics = made.grad(params, batch)
        if "value_loss" not in metrics:
            of_critic, sums = critic_gradient(critic, h, params, batch)
            steps = jnp.maximum(jnp.sum(batch.traj.valid), 1)
            grads = grads._replace(critic=of_critic)
            metrics = {**metrics, "value_loss": sums["value_loss"] / steps}
        return grads, metrics

    return grad


def with_hyperparams(estimator: Factory | str, **values: Any) -> Factory:
    """An estimator with separate hyperparameters, independent of the run's.

        with_hyperparams("gae", gae_lambda=0.9)

    Args:
        estimator: A function of policy, critic and hyperparameters, or its name.
        values: Numbers by name, from `OWN_HYPERPARAMS`: the others are used elsewhere too, or
            change the estimand.

    Raises:
        ValueError: Another hyperparameter, none, a value out of range, or one without effect on a
            built-in estimator.
    """
    if not values:
        raise ValueError("no hyperparameter is given: write gae_lambda=0.9, or another field")
    for name in values:
        check_name("hyperparameter of an estimator alone", name, OWN_HYPERPARAMS)
    check_hyperparams(Hyperparams(**values))
    estimator = loaded(estimator)
    facts, own_name = facts_of(estimator), part_name(estimator)
    if unused := [name for name in values if name not in facts.reads]:
        verb, them = ("has", "it") if len(unused) == 1 else ("have", "them")
        others = ", ".join(facts.reads) or "none"
        raise ValueError(
            f"{', '.join(unused)} {verb} no effect: nothing in estimator {own_name!r} depends on "
            f"{them}; of {', '.join(OWN_HYPERPARAMS)} it depends on {others}"
        )
    factory = factory_of(estimator)

    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return factory(policy, critic, h._replace(**values))

    settings = [f"{name.removeprefix(f'{own_name}_')}_{value}" for name, value in values.items()]
    make.__name__ = "_".join([own_name, *settings])  # such as gae_lambda_0.9
    make.facts = replace(facts, module="")  # type: ignore[attr-defined]
    return make
