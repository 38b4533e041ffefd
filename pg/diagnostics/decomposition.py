"""The decomposition of the variance of one step's term ∇log π(a|s) (G - b(s)) into the parts of the
future, the action and the state.

    tr Var = E ‖z‖² Var(G|s, a)  +  E tr Var(z (Q - b)|s)  +  tr Var(E[z Q|s])

    z = ∇log π(a|s), Q = E[G|s, a]
                   Σ_τ                       Σ_a                     Σ_s

After Tucker et al. 2018 (1802.10031, section 3). A baseline b(s) changes only Σ_a, and one that
sees the action can remove at most Σ_a. Each part is estimated without bias by a nested analysis of
variance: states, several actions for each state, several returns for each action. That needs an
environment that can be reset to a state, as all are here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree, Shaped

from pg import rollout
from pg.diagnostics.samples import sample
from pg.envs import Env
from pg.networks import Network
from pg.reports.statistics import Estimate
from pg.rollout import RolloutState

Baseline = Callable[[RolloutState], Array]  # the states of N environments -> b [N]


class Decomposition(NamedTuple):
    """The three parts of the variance of one step's term."""

    trajectory: Estimate  # Σ_τ: the future of the action, in the environment and in the policy
    action: Estimate  # Σ_a: the choice of the action
    state: Estimate  # Σ_s: the state

    @property
    def total(self) -> float:
        """The variance of one step's term."""
        return self.trajectory.value + self.action.value + self.state.value


def decompose(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    *,
    num_states: int = 256,
    num_actions: int = 4,
    num_returns: int = 4,
    gamma: Float[ArrayLike, ""] = 1.0,
    horizon: int | None = None,
    baseline: Baseline | None = None,
) -> Decomposition:
    """The parts of the variance of a step that is drawn from the policy's visited states.

    It costs num_states · num_actions · num_returns episodes, in one vmapped program.

    Args:
        env: environments; one episode of each is visited.
        policy: the policy.
        params: of the policy.
        key: of the samples.
        num_states: number of drawn visits.
        num_actions: of each state, at least 2.
        num_returns: of each action, at least 2.
        gamma: discount of G, counted from the step on.
        horizon: largest number of steps of an episode; default: the environment's.
        baseline: b(s); default: 0.

    Raises:
        ValueError: one of the three numbers is below 2.
    """
    for name, count in (
        ("num_states", num_states),
        ("num_actions", num_actions),
        ("num_returns", num_returns),
    ):
        if count < 2:
            raise ValueError(f"{name} must be at least 2, for a variance; got {count!r}")
    shape = num_states, num_actions, num_returns

    @jax.jit
    def parts_of_states(params: PyTree, key: PRNGKeyArray) -> PyTree:
        visit_key, choose_key, act_key, return_key = jax.random.split(key, 4)
        states, valid = rollout.visited(env, policy, params, visit_key, horizon)
        chosen = jax.random.choice(
            choose_key, valid.size, (num_states,), p=valid.ravel() / valid.sum()
        )
        states = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[chosen], states)
        actions = _actions(policy, params, states, act_key, num_actions)
        many = env._replace(num_envs=num_states * num_actions * num_returns)
        begin = jax.tree.map(lambda x: jnp.repeat(x, num_actions * num_returns, axis=0), states)
        first = jax.tree.map(
            lambda x: jnp.repeat(x.reshape(-1, *x.shape[2:]), num_returns, axis=0), actions
        )
        returns = rollout.returns_to_go(
            many, policy, params, return_key, begin, first, gamma, horizon
        ).reshape(shape)
        if baseline is not None:
            returns = returns - baseline(states)[:, None, None]
        return _parts(policy, params, states, actions, returns)

    parts = [np.asarray(x, float) for x in parts_of_states(params, key)]
    return Decomposition(*map(Estimate.of_mean, parts))


def _actions(
    policy: Network, params: PyTree, states: RolloutState, key: PRNGKeyArray, count: int
) -> PyTree[Shaped[Array, "N K ..."]]:
    """The actions of a policy, `count` in every state, [N, count, *A]."""
    dist = policy.apply(params, states.carry, states.obs, states.time == 0)[1]
    return jax.vmap(lambda k: dist.sample(dist.draw(k)), out_axes=1)(jax.random.split(key, count))


def _parts(
    policy: Network,
    params: PyTree,
    states: RolloutState,
    actions: PyTree[Shaped[Array, "N m ..."]],
    returns: Float[Array, "N m k"],
) -> tuple[Float[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
    """The addends of N states to the means Σ_τ, Σ_a and Σ_s, [N] each."""
    num_states, num_actions, num_returns = returns.shape

    def terms(x: Any) -> tuple[Any, Any]:
        """The scores [m, P] of the actions in a state, and each times its mean return."""
        state, action, G = x
        carry, obs, first = jax.tree.map(
            lambda leaf: leaf[None], (state.carry, state.obs, state.time == 0)
        )

        def log_prob(params: PyTree, a: PyTree) -> Float[Array, ""]:
            action = jax.tree.map(lambda x: x[None], a)
            return policy.apply(params, carry, obs, first)[1].log_prob(action)[0]

        z = jax.vmap(jax.grad(log_prob), (None, 0))(params, action)
        return z, jax.tree.map(
            lambda leaf: leaf * G.mean(axis=1).reshape(-1, *[1] * (leaf.ndim - 1)), z
        )

    def mean_term(x: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.mean(axis=0), terms(x)[1])

    def within(x: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        z, product = terms(x)
        length = jax.vmap(lambda one: optax.tree.norm(one, squared=True))(z)
        of_actions = sum(
            jnp.sum(jnp.var(leaf, axis=0, ddof=1)) for leaf in jax.tree.leaves(product)
        )
        return jnp.mean(length * jnp.var(x[2], axis=1, ddof=1)), jnp.asarray(of_actions)

    xs = states, actions, returns
    trajectory, of_actions = jax.lax.map(within, xs, batch_size=16)
    between = sample(mean_term, xs).distance * num_states / (num_states - 1)
    return trajectory, of_actions - trajectory / num_returns, between - of_actions / num_actions
