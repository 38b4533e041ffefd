"""The exact moments of estimators that compare with episodes from each visited state.

Given the episode, the returns of the branches of each state are independent of those of the others.
An estimate that is a sum over states of terms that are affine in the returns of their branches, as
for all such estimators in the table, has a mean and a covariance that follow from the first two
moments of these returns (`tabular.branch_returns`):

    E x  = Σ_τ p(τ) (x̄ + Σₜ E Δₜ)        E x xᵀ = Σ_τ p(τ) (mean meanᵀ + Σₜ Cov Δₜ)

x̄ is the estimate for mean returns after reference actions, Δₜ its change for other actions and
returns from one state. The estimator itself is called for each of them.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from pg.branches import Branches, Branching
from pg.distributions import Categorical
from pg.estimators import Estimator, Params
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.exact.tabular.exact import log_policy
from pg.rollout import Trajectory

EPISODES_AT_ONCE = 16  # number whose estimates are held in memory


class _Choices(NamedTuple):
    """All choices of the first actions of the branches from a state, in K repetitions of M, by time
    and state.
    """

    action: Int[Array, "H S N K M"]
    probability: Float[Array, "H S N"]
    constant: Float[Array, "H S K M"]
    mean: Float[Array, "H S N K M 2"]  # of their returns, as in `tabular.branch_returns`
    root: Float[Array, "H S N K C M 2"]  # Σ over C of its outer products: their covariance


def moments(
    estimator: Estimator,
    params: Params,
    mdp: TabularMDP,
    logits: Float[Array, "*H S A"],
    num_branches: int,
    *,
    limit_ends: bool = False,
) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """E x [P] and E x xᵀ [P, P] of the estimate x of one episode.

    Args:
        estimator: The estimator; `estimator.extra_rollouts.branches` are its branches.
        params: Of policy and critic.
        mdp: The problem.
        logits: Of the policy that acts.
        num_branches: K.
        limit_ends: The time limit counts as a termination.
    """
    branching = estimator.extra_rollouts.branches
    assert isinstance(branching, Branching)
    choices = _choices(branching, mdp, logits, num_branches)
    traj, probability = tabular.enumerate_trajectories(mdp, logits)
    if limit_ends:
        traj = traj._replace(terminated=traj.done)
    states = jnp.asarray(tabular.visited_states(mdp))
    each = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (traj, states))
    of_episode = functools.partial(_of_episode, estimator, params, choices)
    mean, second = jax.lax.map(of_episode, each, batch_size=EPISODES_AT_ONCE)
    return probability @ mean, jnp.tensordot(probability, second, 1)


def _of_episode(
    estimator: Estimator,
    params: Params,
    choices: _Choices,
    episode: tuple[Trajectory, Int[Array, " H"]],
) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """E x [P] and E x xᵀ [P, P] given an episode, leaves [H, ...], and its states [H]."""
    traj, state = episode
    times = jnp.arange(len(state))
    own: _Choices = jax.tree.map(lambda x: x[times, state], choices)
    estimator_state = estimator.init(jax.random.key(0))[1]
    batch = jax.tree.map(lambda x: x[:, None], traj)  # of one episode

    def estimate(
        action: Int[Array, "H K M"], returns: Float[Array, "H K M 2"]
    ) -> Float[Array, " P"]:
        """The estimate, of ascent, for these branches."""
        valid = traj.valid
        found = Branches(
            action,
            returns[..., 0],
            returns[..., 1],
            own.constant,
            valid.astype(returns.dtype),
            jnp.zeros(valid.shape, jnp.int32),
        )
        found = jax.tree.map(lambda x: x[:, None], found)
        weighted, _ = estimator.weigh(params, estimator_state, batch._replace(branches=found))
        return -ravel_pytree(estimator.grad(params, weighted)[0].policy)[0]

    def differences(
        time: Int[Array, ""], choice: Int[Array, ""]
    ) -> tuple[Float[Array, " P"], Float[Array, "C P"]]:
        """The change by a choice at the mean of its returns, and the contribution of each column
        of the root of their covariance.
        """
        action = own.action[:, 0].at[time].set(own.action[time, choice])
        mean = own.mean[:, 0].at[time].set(own.mean[time, choice])
        here = estimate(action, mean)

        def moved(number: Int[Array, ""], column: Int[Array, ""]) -> Float[Array, " P"]:
            step = own.root[time, choice, number, column]
            return estimate(action, mean.at[time, number].add(step)) - here

        numbers, columns = (jnp.arange(n) for n in own.root.shape[2:4])
        every = jax.vmap(jax.vmap(moved, (None, 0)), (0, None))(numbers, columns)
        return here - reference, every.reshape(-1, here.size)

    reference = estimate(own.action[:, 0], own.mean[:, 0])
    each = jax.vmap(jax.vmap(differences, (None, 0)), (0, None))
    difference, moves = each(times, jnp.arange(own.action.shape[1]))  # [H, N, P], [H, N, C, P]
    chance = own.probability
    of_state = jnp.einsum("tn,tnp->tp", chance, difference)
    covariance = jnp.einsum("tn,tnp,tnq->pq", chance, difference, difference)
    covariance += jnp.einsum("tn,tncp,tncq->pq", chance, moves, moves)
    covariance -= of_state.T @ of_state
    mean = reference + of_state.sum(0)
    return mean, jnp.outer(mean, mean) + covariance


def _choices(
    branching: Branching, mdp: TabularMDP, logits: Float[Array, "*H S A"], num_branches: int
) -> _Choices:
    """Every choice of the first actions of K repetitions, and the moments of their returns."""
    tuples, probability, constant = _of_one(branching, mdp, logits)
    moments = tabular.branch_returns(mdp, logits, branching.gamma)
    number, members = tuples.shape[-2:]
    mean = jnp.take_along_axis(
        moments.mean[:, :, None], tuples[..., None], axis=3
    )  # [H, S, n, M, 2]
    t, s = np.ix_(range(mdp.horizon), range(mdp.num_states))
    t, s = t[..., None, None, None], s[..., None, None, None]
    one, other = tuples[..., :, None], tuples[..., None, :]
    of_pairs = moments.common[t, s, one, other]  # [H, S, n, M, M, 2, 2]
    product = mean[..., :, None, :, None] * mean[..., None, :, None, :]
    covariance = of_pairs - product
    if not branching.common_numbers:
        alone = jnp.eye(members, dtype=bool)[None, None, None, :, :, None, None]
        covariance = jnp.where(alone, covariance, 0.0)
    flat = covariance.swapaxes(-3, -2).reshape(*covariance.shape[:3], 2 * members, 2 * members)
    size, axes = jnp.linalg.eigh(flat)
    root = axes * jnp.sqrt(jnp.maximum(size, 0.0))[..., None, :]
    root = root.swapaxes(-1, -2).reshape(*root.shape[:3], 2 * members, members, 2)
    # each repetition separately
    every = np.array(list(itertools.product(range(number), repeat=num_branches)))
    shape = (*constant.shape[:2], num_branches, members)
    return _Choices(
        tuples[:, :, every],
        jnp.prod(probability[:, :, every], axis=-1),
        jnp.broadcast_to(constant[:, :, None], shape),
        mean[:, :, every],
        root[:, :, every],
    )


def _of_one(
    branching: Branching, mdp: TabularMDP, logits: Float[Array, "*H S A"]
) -> tuple[Int[Array, "H S n M"], Float[Array, "H S n"], Float[Array, "H S M"]]:
    """The first actions of one repetition, their probabilities, and their constants."""
    pi = jnp.exp(log_policy(mdp, logits))
    actions = np.arange(mdp.num_actions)
    if branching.kind == "sampled":
        tuples = jnp.asarray(actions)[:, None]
        return _broadcast(tuples, pi), pi, jnp.ones((*pi.shape[:2], 1))
    if branching.kind == "every_action":
        mode = Categorical(pi).mode()[..., None]
        tuples = jnp.where(pi > 0, actions[None, None], mode)[:, :, None]
        return tuples, jnp.ones((*pi.shape[:2], 1)), jnp.ones(pi.shape)
    pairs = np.array([(a, b) for a in actions for b in actions if a != b])
    weight = pi[..., pairs[:, 0]] * pi[..., pairs[:, 1]]
    total = weight.sum(-1, keepdims=True)  # Σₐ π(a) (1 - π(a))
    probability = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1.0), 1 / len(pairs))
    constant = jnp.concatenate([0.5 * total, -0.5 * total], axis=-1)
    return _broadcast(jnp.asarray(pairs), pi), probability, constant


def _broadcast(tuples: Int[Array, "n M"], pi: Float[Array, "H S A"]) -> Int[Array, "H S n M"]:
    return jnp.broadcast_to(tuples, (*pi.shape[:2], *tuples.shape))
