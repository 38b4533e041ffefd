"""Estimators made of others: a control variate of the dynamics for any baseline."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from pg import returns
from pg.config import Hyperparams, part_name
from pg.estimators.asked_again import surprise_of_dynamics
from pg.estimators.base import Estimator, Params, Weighted, critic_gradient
from pg.estimators.checks import factory_of
from pg.estimators.family import Factory
from pg.estimators.names import facts_of
from pg.networks import Network
from pg.rollout import Trajectory


def with_dynamics_control_variate(estimator: Factory | str) -> Factory:
    """Another estimator of complete episodes with less of the noise of the dynamics: its rewards
    are rₖ - Cₖ, as of `dynamics_control_variate`.

        estimator = with_dynamics_control_variate("leave_one_out")
        config = pg.Config(estimator=estimator, num_branches=3)

    As Cₖ has the mean 0 given the past, the state and the action, one that is unbiased stays so,
    with whatever baseline. V is regressed on its complete returns where it has no critic.
    With a `temperature` C is still that of the environment's rewards.

    Args:
        estimator: A function of policy, critic and hyperparameters, or its name.

    Raises:
        ValueError: It is for windows, has a critic of actions, or asks for further rollouts itself.
    """
    facts = facts_of(estimator)
    name = part_name(estimator)
    instead = "give one of complete episodes without a critic, or with a critic V"
    if "episodes" not in facts.collect:
        raise ValueError(f"estimator {name!r} is for windows: {instead}")
    if facts.critic == "Q":
        raise ValueError(f"estimator {name!r} has a critic of actions: {instead}")
    if facts.further != "none":
        raise ValueError(
            f"estimator {name!r} has further rollouts of its own: give one without, or use it alone"
        )
    factory = factory_of(estimator)

    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        made = factory(policy, critic, h)
        without_entropy = h._replace(temperature=0.0)  # the rewards here are the environment's

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

        def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
            grads, metrics = made.grad(params, batch)
            if "value_loss" not in metrics:
                of_critic, sums = critic_gradient(critic, h, params, batch)
                steps = jnp.maximum(jnp.sum(batch.traj.valid), 1)
                grads = grads._replace(critic=of_critic)
                metrics = {**metrics, "value_loss": sums["value_loss"] / steps}
            return grads, metrics

        return made._replace(
            init=init,
            weigh=weigh,
            grad=grad,
            accepts=("episodes",),
            further=made.further._replace(successors=True),
        )

    make.__name__ = f"{name}_with_dynamics_control_variate"
    make.facts = replace(  # type: ignore[attr-defined]
        facts, module="", collect=("episodes",), critic="V", further="successors"
    )
    return make
