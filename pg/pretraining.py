"""Maximum likelihood on demonstrations, and training that starts from its parameters.

    maximise  (1/M) Σ log π(a|s)   over the M steps of the demonstrations

For language models it is called supervised fine-tuning, in control behaviour cloning. Estimators
with a reference policy then keep close to the fitted policy.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pg.config import Config
from pg.envs import Env
from pg.envs.sequences import Demonstrations
from pg.estimators.trees import check_trees_equal
from pg.fast.scans import scan_keys
from pg.inputs import check_key, check_kind, count
from pg.networks import Network, make_policy, unroll
from pg.rollout import Trajectory

__all__ = ["negative_log_likelihood", "pretrain", "starting_from"]


def negative_log_likelihood(
    policy: Network, params: PyTree, demonstrations: Demonstrations | Trajectory
) -> Float[Array, ""]:
    """The mean of -log π(a|s) over the valid steps, in nats, []."""
    obs, action, valid = demonstrations.obs, demonstrations.action, demonstrations.valid
    log_prob = unroll(policy, params, obs, demonstrations.first).log_prob(action)
    return -jnp.sum(jnp.where(valid, log_prob, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def pretrain(
    policy: Network,
    demonstrations: Demonstrations | Trajectory,
    key: PRNGKeyArray,
    *,
    num_steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    params: PyTree = None,
) -> tuple[PyTree, Float[Array, " num_steps"]]:
    """Maximises the likelihood of demonstrations by Adam: the policy's parameters, and the mean of
    -log π(a|s) in each batch.

    Pure, to be jitted and vmapped.

    Args:
        policy: The policy.
        demonstrations: The result of `Sequences.demonstrations`, or the trajectory of another
            policy from `pg.episodes`.
        key: A random key.
        num_steps: Gradient steps.
        batch_size: Episodes of each step, drawn with replacement.
        learning_rate: Step size of Adam.
        params: Initial parameters; default: those of `policy.init`.
    """
    check_kind("policy", policy, Network, "write pg.make_policy(config, env)")
    check_key(key)
    num_steps, batch_size = count("num_steps", num_steps), count("batch_size", batch_size)
    num_episodes = demonstrations.valid.shape[1]
    init_key, step_key = jax.random.split(key)
    if params is None:
        params = policy.init(init_key)
    steps = Demonstrations(*(getattr(demonstrations, name) for name in Demonstrations._fields))
    optimizer = optax.adam(learning_rate)

    def step(
        state: tuple[PyTree, optax.OptState], key: PRNGKeyArray
    ) -> tuple[tuple[PyTree, optax.OptState], Float[Array, ""]]:
        params, opt_state = state
        chosen = jax.random.randint(key, (batch_size,), 0, num_episodes)
        batch = jax.tree.map(lambda x: x[:, chosen], steps)
        loss, grads = jax.value_and_grad(
            lambda params: negative_log_likelihood(policy, params, batch)
        )(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), loss

    start = params, optimizer.init(params)
    (params, _), losses = scan_keys(step, start, jax.random.split(step_key, num_steps))
    return params, losses


def starting_from(params: PyTree, policy: Any = None) -> Callable[[Config, Env], Network]:
    """A policy for `Config.policy`: the one of the other settings, but starting from these
    parameters, whatever the seed; they are then also those of the reference policy.

        config = pg.Config(env=task, policy=pg.starting_from(params))

    Results record the digest of the parameters, which are needed again to resume a run.

    Args:
        params: The policy's parameters, from `pretrain` or `pg.load_policy(run).params`.
        policy: their policy, if custom, a Network or a function of config and env;
            default: that of the settings.
    """

    def pretrained(config: Config, env: Env) -> Network:
        network = policy
        if policy is None:
            network = make_policy(config, env)
        elif not isinstance(policy, Network):
            network = policy(config, env)
        expected = jax.eval_shape(network.init, jax.random.key(0))
        check_trees_equal(expected, params, "params, those that training starts from")
        return network._replace(init=lambda key: jax.tree.map(jnp.asarray, params))

    return pretrained
