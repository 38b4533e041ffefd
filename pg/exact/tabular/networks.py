"""From networks to tables and back: logits [S, A] of any policy on an MDP, and networks that are
tables.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pg.distributions import Categorical
from pg.envs import Masked
from pg.exact.tabular.mdp import TabularMDP
from pg.networks import Network


def table(mdp: TabularMDP, policy: Network, params: PyTree) -> Float[Array, "S A"]:
    """The logits [S, A] of a categorical policy without a recurrent cell on the MDP's features.

    Differentiable: `jax.grad(lambda p: exact_return(mdp, table(mdp, policy, p)))(params)` is the
    exact gradient of J with respect to any network's parameters.
    """
    first = jnp.zeros(mdp.num_states, bool)
    obs = mdp.observations(np.arange(mdp.num_states))
    if policy.masked:
        obs = Masked(obs, jnp.asarray(mdp.mask))
    _, dist = policy.apply(params, policy.carry, obs, first)
    return dist.logits


def table_policy(logits: Float[Array | np.ndarray, "S A"]) -> Network:
    """A policy whose parameters are its logits [S, A], these at first; for one-hot observations."""
    return Network(
        lambda key: logits,
        lambda p, carry, obs, first: (carry, Categorical(obs @ p)),
        obs_shape=np.shape(logits)[:1],
    )


def table_critic(values: Float[Array, "S *A"]) -> Network:
    """A critic whose parameters are its values, V [S] or Q [S, A], these at first; for one-hot
    observations.
    """
    return Network(lambda key: values, lambda p, carry, obs, first: (carry, obs @ p))
