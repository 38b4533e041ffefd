"""Reference problems: small MDPs with a policy and critics, on which the moments of an estimator
are known exactly.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from pg.branches import Branching
from pg.config import Hyperparams
from pg.diagnostics.exact import exact_moments
from pg.estimators import Estimator, Facts, Params
from pg.estimators.family import Factory
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.inputs import described
from pg.networks import Network

MOST_TRAJECTORIES = 2_000  # squared for estimators that compare pairs of episodes
ROUNDING = 1e-12  # relative size of rounding errors around an exact 0


class Problem(NamedTuple):
    """An MDP, the policy, another one that may act instead, and critics."""

    mdp: TabularMDP
    logits: np.ndarray  # [S, A]
    behaviour: np.ndarray  # [S, A]
    v: np.ndarray  # [S]
    q: np.ndarray  # [S, A]
    # f of hindsight distributions h ∝ π exp f given a later "state" [S, S, A] or "reward" [S, U, A]
    log_odds: Mapping[str, np.ndarray] = MappingProxyType({})


class Figures(NamedTuple):
    """The exact figures of an estimator on a problem."""

    bias: float  # ‖Eĝ - ∇J‖ / ‖∇J‖; rounding errors around 0 are set to 0
    variance: float  # per episode, relative to that of `reinforce`; NaN for windows
    signal_to_noise: float  # ‖Eĝ‖² over the variance

    def as_text(self) -> tuple[str, str, str]:
        """The cells of a table."""
        bias = f"{self.bias:.2g}" if self.bias else "0"
        ratio = "∞" if math.isinf(self.signal_to_noise) else f"{self.signal_to_noise:.2g}"
        variance = f"{self.variance:.3g}" if self.variance else "0"
        return bias, "—" if math.isnan(self.variance) else variance, ratio


def arbitrary(mdp: TabularMDP, *, distance: float = 0.7, seed: int = 1) -> Problem:
    """A problem with a random policy, and with random, and so wrong, critics.

    Args:
        mdp: The MDP.
        distance: Standard deviation of the logits of the behaviour around those of the policy.
        seed: Seed of the random numbers.
    """
    g, shape = np.random.default_rng(seed), (mdp.num_states, mdp.num_actions)
    logits = g.normal(size=shape)
    behaviour = logits + distance * g.normal(size=shape)
    q = g.normal(size=shape)
    v = 3.0 * g.normal(size=mdp.num_states)
    outcomes = {"state": mdp.num_states, "reward": len(tabular.paid_rewards(mdp))}
    log_odds = {
        outcome: g.normal(size=(mdp.num_states, number, mdp.num_actions))
        for outcome, number in outcomes.items()
    }
    return Problem(mdp, logits, behaviour, v, q, log_odds)


def with_first_values(problem: Problem, gamma: float) -> Problem:
    """The problem with critics that are exact at an episode's first step, and hindsight
    distributions that are exact over all steps.
    """
    q, v = tabular.values(problem.mdp, jnp.asarray(problem.logits), gamma)
    log_odds = exact_log_odds(problem.mdp, problem.logits, gamma)
    return problem._replace(v=np.asarray(v[0]), q=np.asarray(q[0]), log_odds=log_odds)


def with_exact_critics(problem: Problem, gamma: float) -> Problem:
    """The problem with the time in the state, where V and Q are functions of the state: the exact
    ones.
    """
    mdp = tabular.with_time_in_state(problem.mdp)
    copies = (problem.mdp.horizon + 1, 1)
    logits, behaviour = np.tile(problem.logits, copies), np.tile(problem.behaviour, copies)
    q, v = tabular.discounted_values(mdp, jnp.asarray(logits), gamma)
    log_odds = exact_log_odds(mdp, logits, gamma)
    return Problem(mdp, logits, behaviour, np.asarray(v), np.asarray(q), log_odds)


def exact_log_odds(
    mdp: TabularMDP, logits: Float[np.ndarray, "S A"], gamma: float
) -> dict[str, np.ndarray]:
    """log h(a|s, u) - log π(a|s), as in `Problem.log_odds`: of the exact hindsight distributions,
    with impossible actions nearly so.

    Args:
        mdp: The MDP.
        logits: Logits of the policy.
        gamma: γ.
    """
    log_pi = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))[:, None]
    hindsight = {
        "state": tabular.hindsight_of_states(mdp, logits, gamma),
        "reward": tabular.hindsight_of_rewards(mdp, logits, gamma)[1],
    }
    tiny = np.finfo(float).tiny
    return {name: np.log(np.maximum(h, tiny)) - log_pi for name, h in hindsight.items()}


def in_windows(problem: Problem) -> Problem:
    """The problem as windows of H steps of a continuing task, from the stationary distribution of
    the policy's chain; an end is a restart.
    """
    alive = ~problem.mdp.terminal
    window = tabular.stationary_window(problem.mdp, problem.logits)
    mdp = TabularMDP(
        window.transition, window.reward, window.initial, window.terminal, window.horizon
    )
    tables = problem.logits, problem.behaviour, problem.v, problem.q
    return Problem(mdp, *(table[alive] for table in tables))


def window_gradient(problem: Problem) -> Float[np.ndarray, "S A"]:
    """H ∇η, η the average reward: the gradient over a window of H steps of a continuing task."""
    eta = jax.grad(lambda logits: tabular.average_reward(problem.mdp, logits))
    return problem.mdp.horizon * np.asarray(eta(jnp.asarray(problem.logits)))


def build(
    factory: Factory, problem: Problem, critic: str, h: Hyperparams, outcome: str = "state"
) -> tuple[Estimator, Params]:
    """The estimator of a problem's policy and critic, and their parameters: the tables.

    With a `kl_coef` above 0 the reference, the initial policy, is the problem's behaviour policy:
    at the reference itself the divergence has no gradient.

    Args:
        factory: Policy, critic, hyperparameters -> Estimator.
        problem: The problem.
        critic: "Q" for the critic of every action, "hindsight" for a hindsight distribution;
            anything else: V.
        h: The hyperparameters.
        outcome: "state" or "reward", of a hindsight distribution.
    """
    logits = jnp.asarray(problem.logits)
    start = jnp.asarray(problem.behaviour) if float(h.kl_coef) else logits
    policy = tabular.table_policy(start)
    estimator = factory(policy, _critic(problem, critic, outcome), h)
    params = estimator.init(jax.random.key(0))[0]
    return estimator, params._replace(policy=logits)


def _critic(problem: Problem, critic: str, outcome: str) -> Network:
    """The problem's critic of a kind; arguments as in `build`."""
    if critic == "hindsight":
        rewards = tabular.paid_rewards(problem.mdp) if outcome == "reward" else None
        return tabular.table_hindsight(problem.log_odds[outcome], rewards)
    return tabular.table_critic(jnp.asarray(problem.q if critic == "Q" else problem.v))


def gradient(
    problem: Problem, h: Hyperparams, tau: Float[ArrayLike, ""] = 0.0
) -> Float[np.ndarray, "S A"]:
    """∇J, or ∇J_β with β = `kl_coef` and the reference of `build`, exactly, [S, A].

    Args:
        problem: The problem.
        h: The hyperparameters.
        tau: τ of the entropy in the reward.
    """
    return regularised_gradient(problem.mdp, problem.logits, problem.behaviour, h, tau)


def regularised_gradient(
    mdp: TabularMDP,
    logits: Float[np.ndarray, "S A"],
    reference: Float[np.ndarray, "S A"],
    h: Hyperparams,
    tau: Float[ArrayLike, ""] = 0.0,
) -> Float[np.ndarray, "S A"]:
    """∇J_β with β = `kl_coef`, exactly, [S, A]; at β = 0 it is ∇J.

    Args:
        mdp: The problem.
        logits: Logits of the policy.
        reference: Those of the reference policy.
        h: The hyperparameters.
        tau: τ of the entropy in the reward.
    """
    beta = float(h.kl_coef)
    if beta:
        mdp = tabular.with_reference(mdp, reference, beta)
    return np.asarray(tabular.exact_gradient(mdp, jnp.asarray(logits), h.gamma, tau + beta))


def hyperparams(facts: Facts, gamma: float) -> Hyperparams:
    """The hyperparameters with which an estimator is judged: the defaults and, for a custom one,
    those in its facts.

    The presets of listed estimators are for training: only the temperature is used, without which
    J_τ is J.
    """
    names = ("temperature",) if facts.module else Hyperparams().scalars()
    set_there = {name: facts.settings[name] for name in names if name in facts.settings}
    return Hyperparams(**{**set_there, "gamma": gamma})


def check_small(what: str, mdp: Any) -> None:
    """Raises ValueError unless an object is an MDP on which the exact figures of estimators can be
    summed: with one-hot observations, without a mask, with few trajectories.

    Args:
        what: The MDP, as named in the sentence.
        mdp: The MDP.
    """
    if not isinstance(mdp, TabularMDP):
        raise ValueError(f"{what} must be a pg.exact.tabular.TabularMDP, got {described(mdp)}")
    if not np.array_equal(mdp.features, np.eye(mdp.num_states)) or mdp.mask is not None:
        raise ValueError(f"{what} must have one-hot observations, and no mask of actions")
    if (number := tabular.num_trajectories(mdp)) > MOST_TRAJECTORIES:
        raise ValueError(
            f"{what} must have at most {MOST_TRAJECTORIES:,} trajectories, which are all summed "
            f"over, got {number:,.0f}: give it fewer states or actions, or a shorter horizon"
        )


def figures(factory: Factory, facts: Facts, mdp: TabularMDP, h: Hyperparams) -> Figures:
    """The bias, the variance and the signal-to-noise ratio of an estimator, exactly.

    The critic is exact at the first step, a hindsight distribution over all steps; off-policy
    estimators learn from another policy's episodes, windows are those of `in_windows`.

    Args:
        factory: Policy, critic, hyperparameters -> Estimator.
        facts: Its facts.
        mdp: The problem.
        h: The hyperparameters.
    """
    gamma = float(h.gamma)
    problem = with_first_values(arbitrary(mdp, distance=0.5), gamma)
    total_return = tabular.total_return_moments(mdp, jnp.asarray(problem.logits), gamma)
    reference = float(np.trace(total_return[1]))
    if in_episodes := "episodes" in facts.collect:
        truth = gradient(problem, h)
    else:
        problem = in_windows(problem)
        truth = window_gradient(problem)
    estimator, params = build(factory, problem, facts.critic, h, facts.outcome)
    mean, covariance = moments(estimator, params, problem, facts)
    signal, variance = float(mean @ mean), batch_size(facts) * float(np.trace(covariance))
    bias = relative_distance(mean, truth)
    if variance < ROUNDING * signal:
        variance = 0.0
    return Figures(
        0.0 if bias < ROUNDING else bias,
        variance / reference if in_episodes else np.nan,
        signal / variance if variance else np.inf,
    )


def all_figures(factory: Factory, facts: Facts, h: Hyperparams) -> dict[str, Figures]:
    """The figures of an estimator on every reference problem, by its name; arguments as in
    `figures`.
    """
    problems = tabular.references()
    return {name: figures(factory, facts, mdp, h) for name, mdp in problems.items()}


def moments(
    estimator: Estimator, params: Params, problem: Problem, facts: Facts
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P P"]]:
    """The exact mean and covariance of an estimate of the smallest batch that its facts allow.

    Args:
        estimator: The estimator.
        params: Its parameters, as in `build`.
        problem: The problem.
        facts: Its facts.
    """
    return exact_moments(
        estimator,
        params,
        problem.mdp,
        acting(problem, facts),
        batch_size(facts),
        share_start=facts.baseline == "group",
        num_branches=num_branches(estimator),
    )


def acting(problem: Problem, facts: Facts) -> np.ndarray:
    """The logits of the policy that acts, [S, A]: another one's for an off-policy estimator."""
    return problem.behaviour if facts.off_policy else problem.logits


def num_branches(estimator: Estimator) -> int:
    """Repetitions of the episodes from each state: 2, so that one is compared with another; 1 for
    an estimator that needs none.
    """
    return 2 if isinstance(estimator.extra_rollouts.branches, Branching) else 1


def batch_size(facts: Facts) -> int:
    """Episodes of the smallest batch with an informative exact mean: 2 if an episode is compared
    with others, else 1.
    """
    return 2 if facts.depends_on_batch else 1


def relative_distance(mean: Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."]) -> float:
    """‖mean - truth‖ / ‖truth‖, for equally many numbers in any shapes."""
    gap = np.linalg.norm(np.ravel(mean) - np.ravel(truth))
    return float(gap / np.linalg.norm(truth))
