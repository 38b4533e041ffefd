"""Exact diagnostics: the moments of any estimator on tabular problems, and the asymmetry of a
direction that is not a gradient.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from pg.branches import Branching
from pg.diagnostics import branched
from pg.estimators import Estimator, Params
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.extra_rollouts import GreedyEpisodes
from pg.inputs import count
from pg.rollout import Trajectory

MAX_BATCHES = 10**8
BATCHES_AT_ONCE = 2048  # whose estimates are held in memory


def exact_moments(
    estimator: Estimator,
    params: Params,
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    num_episodes: int = 1,
    *,
    limit_ends: bool = False,
    share_start: bool = False,
    num_groups: int = 1,
    num_branches: int = 1,
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P P"]]:
    """Mean [P] and covariance [P, P] of one batch's estimate of ∇J, exactly.

    A sum over every batch. The direction is of ascent, flattened as `ravel_pytree(params.policy)`.
    Each call compiles; for several logits, compile `moments_by_logits` once.
    It costs Mⁿ estimates for M trajectories of positive probability, and memory for the
    trajectories and for the estimates of `BATCHES_AT_ONCE` batches.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        mdp: the problem.
        logits: of the policy that acts, [S, A] or [H, S, A]; the estimator's own, or another's
            (off-policy).
        num_episodes: n of a group, at least 2 for estimators that couple episodes.
        limit_ends: the time limit counts as a termination, so that nothing is bootstrapped there.
        share_start: all episodes of a group begin at one state.
        num_groups: independent groups of a batch, for estimators that compare these.
        num_branches: extra transitions from each state, or repetitions of the episodes from it,
            for estimators that ask for them. With episodes an estimate must be a sum over states of
            terms that are affine in their returns (`diagnostics.branched`).

    Raises:
        ValueError: num_episodes, num_groups or num_branches is not a whole number of at least 1,
            there are too many batches, or several episodes with extra episodes from their states.
    """
    of_logits = moments_by_logits(
        estimator,
        params,
        mdp,
        num_episodes,
        limit_ends=limit_ends,
        share_start=share_start,
        num_groups=num_groups,
        num_branches=num_branches,
    )
    mean, second = jax.jit(of_logits)(jnp.asarray(logits))
    return np.asarray(mean), np.asarray(second) - np.outer(mean, mean)


def moments_by_logits(
    estimator: Estimator,
    params: Params,
    mdp: TabularMDP,
    num_episodes: int = 1,
    *,
    limit_ends: bool = False,
    share_start: bool = False,
    num_groups: int = 1,
    num_branches: int = 1,
) -> Callable[[Float[Array, "*H S A"]], tuple[Float[Array, " P"], Float[Array, "P P"]]]:
    """E x [P] and E x xᵀ [P, P] of one batch's estimate x, as a function of the logits of the
    policy that acts: to be jitted for several logits.

    Args:
        estimator: see `exact_moments`, like the others.
        params: of policy and critic.
        mdp: the problem.
        num_episodes: n.
        limit_ends: the time limit counts as a termination.
        share_start: all episodes of a group begin at one state.
        num_groups: groups of a batch.
        num_branches: extra transitions from each state, or repetitions of the episodes.
    """
    num_episodes = count("num_episodes", num_episodes)
    num_branches = count("num_branches", num_branches)
    batch_size = num_episodes * count("num_groups", num_groups)
    if isinstance(estimator.extra_rollouts.branches, Branching):
        if batch_size > 1:
            raise ValueError(
                "the exact moments with episodes from each state need a single episode, got "
                f"num_episodes={num_episodes}, num_groups={num_groups}: give 1"
            )
        of_one = functools.partial(
            branched.moments,
            estimator,
            params,
            mdp,
            num_branches=num_branches,
            limit_ends=limit_ends,
        )
        return jax.jit(of_one)
    group = np.arange(batch_size, dtype=np.int32) // num_episodes
    # greedy episodes are enumerated beside them
    asked = estimator.extra_rollouts._replace(greedy=False)
    start = tabular.initial_states(mdp, asked, num_branches)
    begins = np.unique(start, return_inverse=True)[1]
    num_greedy = 0
    if estimator.extra_rollouts.greedy:
        num_greedy = num_groups if share_start else batch_size

    def of_logits(
        logits: Float[Array, "*H S A"],
    ) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
        traj, probability = tabular.enumerate_trajectories(mdp, logits, asked, num_branches)
        number = batch_size + num_greedy
        if len(probability) ** number > MAX_BATCHES:
            of_groups = f" and num_groups={num_groups}" if num_groups > 1 else ""
            raise ValueError(
                f"num_episodes={num_episodes}{of_groups} makes {len(probability)}^{number} "
                f"batches, above {MAX_BATCHES}: give fewer, or a smaller problem"
            )
        if limit_ends:
            traj = traj._replace(terminated=traj.done)
        greedy: Any = ()
        if estimator.extra_rollouts.greedy:
            greedy = tabular.enumerate_trajectories(mdp, tabular.greedy_logits(mdp, logits))[1]
        every = _Episodes(traj, probability, greedy, jnp.asarray(begins))
        return _moments(estimator, params, every, group, share_start=share_start)

    return of_logits


class _Episodes(NamedTuple):
    """Every trajectory of a problem."""

    traj: Trajectory  # leaves [H, M, ...]
    probability: Float[Array, " M"]
    greedy: Any  # that of the greedy policy, [M]; () if not needed
    begins: Int[Array, " M"]  # the number of the state in which each begins, counted from 0

    def given_start(
        self, probability: Float[Array, " M"], own: Int[Array, "K m"], ahead: Int[Array, "K m"]
    ) -> Float[Array, " K"]:
        """The probability of trajectories given that they begin in the same states as others, [K].

        Args:
            probability: Of each trajectory, [M].
            own: Their numbers, [K, m].
            ahead: The numbers of those in whose initial states they begin, [K, m].
        """
        of_start = jnp.zeros_like(probability).at[self.begins].add(probability)
        start = self.begins[own]
        follows = start == self.begins[ahead]
        return jnp.prod(jnp.where(follows, probability[own] / of_start[start], 0.0), axis=1)


def _moments(
    estimator: Estimator,
    params: Params,
    every: _Episodes,
    group: Int[np.ndarray, " n"],
    *,
    share_start: bool,
) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """E x [P] and E x xᵀ [P, P] of a batch's estimate x.

    Summed trajectory by trajectory, as all outer products together would take M P² numbers.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        every: every trajectory.
        group: the number of the group of each episode of a batch, [n].
        share_start: all of a group begin in one state; else they are independent.
    """
    traj, probability, size = every.traj, every.probability, len(group)
    episodes = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), traj)  # [M, H, ...]
    state = estimator.init(jax.random.key(0))[1]
    # the first of those that begin in the same state as an episode, [n]
    leader = np.searchsorted(group, group) if share_start else np.arange(size)
    leads = np.unique(leader)
    follows = np.setdiff1d(np.arange(size), leads)
    # the others of a batch by their numbers, [K, n - 1], then the greedy episodes of the first
    # ones; without any, K is 1
    number_of_others = size - 1 + (len(leads) if estimator.extra_rollouts.greedy else 0)
    tuples = list(itertools.product(range(len(probability)), repeat=number_of_others))
    others = jnp.asarray(tuples, jnp.int32).reshape(len(tuples), number_of_others)

    def ascent(numbers: Int[Array, " k"]) -> Float[Array, " P"]:
        members, greedy = numbers[:size], numbers[size:]
        batch = jax.tree.map(lambda x: jnp.moveaxis(x[members], 0, 1), episodes)
        batch = batch._replace(group=jnp.broadcast_to(group, batch.reward.shape))
        if estimator.extra_rollouts.greedy:
            compared_with = greedy[np.searchsorted(leads, leader)]
            reward = traj.reward[:, compared_with]
            env_steps = jnp.where(leader == np.arange(size), traj.env_steps[:, compared_with], 0)
            batch = batch._replace(greedy=GreedyEpisodes(reward, env_steps))
        weighted, _ = estimator.weigh(params, state, batch)
        return -ravel_pytree(estimator.grad(params, weighted)[0].policy)[0]

    def estimates(first: Int[Array, ""]) -> tuple[Float[Array, "K P"], Float[Array, " K"]]:
        """The estimates [K, P] from all batches with a given first episode, and their probabilities
        [K].
        """
        batches = jnp.concatenate([jnp.broadcast_to(first, (len(others), 1)), others], axis=1)
        weight = jnp.prod(probability[batches[:, leads]], axis=1)
        weight *= every.given_start(probability, batches[:, follows], batches[:, leader[follows]])
        if estimator.extra_rollouts.greedy:
            weight *= every.given_start(every.greedy, batches[:, size:], batches[:, leads])

        def of_batch(rest: Int[Array, " m"]) -> Float[Array, " P"]:
            return ascent(jnp.concatenate([first[None], rest]))

        at_once = min(len(others), BATCHES_AT_ONCE)
        return jax.lax.map(of_batch, others, batch_size=at_once), weight

    def add(
        total: tuple[Float[Array, " P"], Float[Array, "P P"]], row: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, " P"], Float[Array, "P P"]], None]:
        x, weights = estimates(row)
        mean, second = total
        return (mean + weights @ x, second + (weights[:, None] * x).T @ x), None

    flat = ravel_pytree(params.policy)[0]
    zero = jnp.zeros(flat.shape, jnp.result_type(flat, probability))
    return jax.lax.scan(add, (zero, jnp.outer(zero, zero)), jnp.arange(len(probability)))[0]


def asymmetry(direction: Callable[[Array], Array], params: Float[Array, "*P"]) -> Float[Array, ""]:
    """‖A - Aᵀ‖ / ‖A + Aᵀ‖ of A = ∂ direction / ∂ params, Frobenius norms, []: 0 for a
    gradient field.

    A field is the gradient of a function, on a simply connected domain, if and only if its Jacobian
    is symmetric. So this distinguishes ∇J from a direction that is not a gradient (Nota & Thomas
    2020, 1906.07073). direction: params, an array of D entries, to an array of their shape, as
    `tabular.exact_gradient` and `tabular.undiscounted_direction` are of the logits; a
    `stop_gradient` in it would hide dependences. Use 64-bit floats: rounding is asymmetric.
    """
    jacobian = jax.jacobian(direction)(params).reshape(params.size, params.size)
    return jnp.linalg.norm(jacobian - jacobian.T) / jnp.linalg.norm(jacobian + jacobian.T)
