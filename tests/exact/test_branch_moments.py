"""Episodes from visited states: the exact variance of estimators with these, against a sum over
every outcome of every branch; and the variance that common random numbers save.
"""

import collections
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pg import diagnostics
from pg.branches import Branches
from pg.config import Hyperparams
from pg.diagnostics import references
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.branching import measure_valued_with
from pg.exact import tabular

pytestmark = pytest.mark.usefixtures("x64")
S, A, H, GAMMA, TAU = 2, 2, 2, 0.8, 0.3
KINDS = {"vine_all_action": [(0, 1)], "measure_valued": [(0, 1), (1, 0)]}  # else one action
CELLS = 4  # of a uniform number, all of one choice whatever the state and the action
# every probability is a multiple of 1/4
PI = np.array([[0.25, 0.75], [0.5, 0.5]])
MDP = tabular.TabularMDP(
    [[[0.25, 0.75], [0.75, 0.25]], [[0.5, 0.5], [0.25, 0.75]]],
    np.random.default_rng(2).normal(size=(S, A, S)),
    [1.0, 0.0],
    [False, False],
    H,
)
Outcomes = dict[tuple[Any, ...], float]  # first actions with returns -> probability


def chosen(p: np.ndarray, cell: int) -> int:
    """The index that the numbers of a cell choose."""
    return int(np.searchsorted(np.cumsum(p), (cell + 0.5) / CELLS))


def followed(t: int, s: int, a: int, cells: tuple[int, ...]) -> float:
    """The return of an episode that begins so, for the cells of its random numbers."""
    after = chosen(MDP.transition[s, a], cells[0])
    reward = MDP.reward[s, a, after] - TAU * np.log(PI[s, a])
    if t == H - 1:
        return reward
    return reward + GAMMA * followed(t + 1, after, chosen(PI[after], cells[1]), cells[2:])


@functools.cache
def one_repetition(name: str, common: bool, t: int, s: int) -> Outcomes:
    """The branches of one repetition, and their probability."""
    number = 2 * (H - t) - 1  # of random numbers after the first action
    every = list(itertools.product(range(CELLS), repeat=number))
    found: Outcomes = collections.defaultdict(float)
    tuples = KINDS.get(name, [(0,), (1,)])
    for actions in tuples:
        chance = PI[s, actions[0]] if name not in KINDS else 1 / len(tuples)
        of_each: list[Outcomes] = [{((), ()): chance}]
        if common:
            for cells in every:
                returns = tuple(round(followed(t, s, a, cells), 12) for a in actions)
                found[actions, returns] += chance / len(every)
            continue
        for a in actions:
            alone: Outcomes = collections.defaultdict(float)
            for cells in every:
                alone[(a,), (round(followed(t, s, a, cells), 12),)] += 1 / len(every)
            of_each.append(alone)
        for combination in itertools.product(*(x.items() for x in of_each)):
            returns = sum((x[0][1] for x in combination), ())
            found[actions, returns] += np.prod([x[1] for x in combination])
    return found


def built(name: str, common: bool) -> tuple[Estimator, Params]:
    h = Hyperparams(gamma=GAMMA, temperature=TAU)
    problem = references.Problem(MDP, np.log(PI), np.log(PI), np.zeros(S), np.zeros((S, A)))
    factory: Any = ESTIMATORS[name]
    if name == "measure_valued":
        factory = functools.partial(measure_valued_with, common_numbers=common)
    return references.build(factory, problem, "none", h)


def by_outcomes(name: str, common: bool, num_branches: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of an episode's estimate, a sum over all that can happen."""
    estimator, params = built(name, common)
    traj, probability = tabular.enumerate_trajectories(MDP, np.log(PI))
    states = tabular.visited_states(MDP)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0, 0))
    def estimate(
        episode: Any, action: jax.Array, reward: jax.Array, constant: jax.Array
    ) -> jax.Array:
        found = Branches(
            action,
            reward,
            jnp.zeros_like(reward),
            constant,
            jnp.ones(H),
            jnp.zeros(H, int),
        )
        batch = jax.tree.map(lambda x: x[:, None], episode._replace(branches=found))
        weighted = estimator.weigh(params, (), batch)[0]
        return -ravel_pytree(estimator.grad(params, weighted)[0].policy)[0]

    mean, second = 0.0, 0.0
    for m, p in enumerate(probability):
        of_steps = []
        for t in range(H):
            one = one_repetition(name, common, t, int(states[t, m])).items()
            of_steps.append(list(itertools.product(one, repeat=num_branches)))
        every = list(itertools.product(*of_steps))
        outcomes = [[[x[0] for x in of_step] for of_step in outcome] for outcome in every]
        action = np.array([[[x[0] for x in step] for step in o] for o in outcomes])
        returns = np.array([[[x[1] for x in step] for step in o] for o in outcomes])
        chance = np.array([[[x[1] for x in step] for step in o] for o in every]).prod((1, 2))
        spread = 0.5 * (1 - (PI[states[:, m]] ** 2).sum(-1))  # ½ Σ π (1 - π)
        constant = np.ones(action.shape)
        if name == "measure_valued":
            constant = spread[None, :, None, None] * np.array([1.0, -1.0]) * constant
        x = np.asarray(
            estimate(
                jax.tree.map(lambda x, m=m: x[:, m], traj),
                *map(jnp.asarray, (action, returns, constant)),
            )
        )
        weight = float(p) * chance
        mean, second = mean + weight @ x, second + (weight[:, None] * x).T @ x
    return mean, second - np.outer(mean, mean)


@pytest.mark.parametrize(
    ("name", "common", "num_branches"),
    [
        pytest.param("vine_value", False, 2, marks=pytest.mark.slow),
        ("vine_advantage", False, 1),
        ("vine_action_value", False, 2),
        pytest.param("vine_all_action", True, 1, marks=pytest.mark.slow),
        ("measure_valued", True, 1),
        pytest.param("measure_valued", False, 1, marks=pytest.mark.slow),
    ],
)
def test_exact_moments_are_those_of_every_outcome(
    name: str, common: bool, num_branches: int
) -> None:
    estimator, params = built(name, common)
    found = diagnostics.exact_moments(estimator, params, MDP, np.log(PI), num_branches=num_branches)
    mean, covariance = by_outcomes(name, common, num_branches)
    soft = tabular.exact_gradient(MDP, np.log(PI), GAMMA, TAU)
    np.testing.assert_allclose(mean, np.ravel(soft), atol=1e-11)
    np.testing.assert_allclose(found[0], mean, atol=1e-11)
    np.testing.assert_allclose(found[1], covariance, atol=1e-11)
    assert np.trace(covariance) > 1e-3


def test_two_episodes_at_once_are_one_sentence() -> None:
    estimator, params = built("vine_value", False)
    with pytest.raises(ValueError, match="need a single episode, got num_episodes=2"):
        diagnostics.exact_moments(estimator, params, MDP, np.log(PI), 2)


@pytest.mark.slow
def test_common_random_numbers_take_away_variance_where_they_lead_to_the_same_states() -> None:
    """The figures of docs/science/estimators.md, with common random numbers and without."""
    expected = {
        "random": (0.0487, 0.0456),
        "chain": (0.0286, 0.0379),
        "cancelling": (0.0, 0.000247),
    }
    for name, mdp in tabular.references().items():
        problem = references.arbitrary(mdp)
        found = []
        for common in (True, False):
            make = functools.partial(measure_valued_with, common_numbers=common)
            made = references.build(make, problem, "none", Hyperparams(gamma=0.9))
            covariance = diagnostics.exact_moments(*made, mdp, problem.logits)[1]
            found.append(np.trace(covariance))
        np.testing.assert_allclose(found, expected[name], rtol=5e-3, atol=1e-15)
