"""From networks to tables and back: logits [S, A] of any policy on an MDP, and networks that are
tables.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pg.distributions import Categorical
from pg.exact.tabular.mdp import TabularMDP
from pg.networks import Network


def table(mdp: TabularMDP, policy: Network, params: Any) -> jax.Array:
    """The logits [S, A] of a memoryless categorical policy on the MDP's features.

    Differentiable: `jax.grad(lambda p: exact_return(mdp, table(mdp, policy, p)))(params)` is the
    exact gradient of J with respect to any network's parameters.
    """
    first = jnp.zeros(mdp.num_states, bool)
    return policy.apply(params, policy.carry, jnp.asarray(mdp.features, float), first)[1].logits


def table_policy(logits: jax.Array) -> Network:
    """A policy whose parameters are its logits [S, A], these at first; for one-hot observations."""
    return Network(lambda key: logits, lambda p, carry, obs, first: (carry, Categorical(obs @ p)))


def table_critic(values: jax.Array) -> Network:
    """A critic whose parameters are its values, V [S] or Q [S, A], these at first; for one-hot
    observations.
    """
    return Network(lambda key: values, lambda p, carry, obs, first: (carry, obs @ p))
