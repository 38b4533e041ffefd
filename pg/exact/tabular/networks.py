"""From networks to tables and back: logits [S, A] of any policy on an MDP, and tabular networks."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pg.distributions import Categorical
from pg.envs import Masked
from pg.exact.tabular.mdp import TabularMDP
from pg.networks import Network, Pair


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
    """A policy whose parameters are its logits, initially these [S, A]; for one-hot
    observations.
    """
    return Network(
        lambda key: logits,
        lambda p, carry, obs, first: (carry, Categorical(obs @ p)),
        obs_shape=np.shape(logits)[:1],
    )


def table_critic(values: Float[Array, "S *A"]) -> Network:
    """A critic whose parameters are its values, initially these, V [S] or Q [S, A]; for one-hot
    observations.
    """
    return Network(lambda key: values, lambda p, carry, obs, first: (carry, obs @ p))


def table_hindsight(
    log_odds: Float[Array | np.ndarray, "S U A"], rewards: Float[np.ndarray, " U"] | None = None
) -> Network:
    """A hindsight network whose parameters are f(s, u) of every action, initially these [S, U, A];
    for one-hot observations.

    Args:
        log_odds: f, in h(a|s, u) ∝ π(a|s) exp f.
        rewards: The rewards [U] that are the outcomes, matched to the nearest; default: the
            outcomes are states.
    """

    def apply(
        params: Float[Array, "S U A"], carry: PyTree, pair: Pair, first: Array
    ) -> tuple[PyTree, Float[Array, "*B A"]]:
        if rewards is None:
            number = jnp.argmax(pair.outcome, axis=-1)
        else:
            possible = jnp.broadcast_to(rewards, (*pair.outcome.shape[:-1], len(rewards)))
            number = jnp.argmin(jnp.abs(pair.outcome - possible), axis=-1)
        return carry, params[jnp.argmax(pair.obs, axis=-1), number]

    outcome = "state" if rewards is None else "reward"
    return Network(lambda key: jnp.asarray(log_odds), apply, outcome=outcome)
