"""The one table of proofs: what each estimator's mean is, derived without the estimator.

A row of CASES is an estimator in a setting. Its mean is ∇J where no other is named; the others are
sums over every trajectory, written as loops or with the exact visitation and values of the problem.
`test_unbiased` holds every row to its mean over every trajectory, without noise; `test_sampled`
through the real rollout, within standard errors.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from pg.config import Hyperparams
from pg.diagnostics import exact_moments, references
from pg.diagnostics.references import Problem
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.rollout import Trajectory

S, A, H, GAMMA = 3, 2, 3, 0.8


class Case(NamedTuple):
    """An estimator in a setting, and its mean."""

    name: str
    setting: Mapping[str, Any] = {}  # of Hyperparams; read only
    mean: Callable[["Case"], np.ndarray] | None = None  # [S, A]; None: ∇J
    problem: Callable[[], Problem] | None = None  # None: `arbitrary`
    num_episodes: int = 1
    on_policy: bool = True
    limit_ends: bool = False  # the time limit counts as a termination
    share_start: bool = False
    num_branches: int = 1
    past: bool = False  # an earlier batch, of every trajectory once, is in the estimator's state
    tolerance: float = 1e-12

    def __str__(self) -> str:
        """Its label: what differs from the plain case."""
        flags = [flag for flag in ("limit_ends", "share_start", "past") if getattr(self, flag)]
        other = [] if self.problem is None else [self.problem.__name__]
        behaviour = [] if self.on_policy else ["off_policy"]
        branches = [f"M={self.num_branches}"] if self.num_branches > 1 else []
        setting = [f"{k}={v}" for k, v in self.setting.items()]
        return "-".join([self.name, *setting, *branches, *flags, *other, *behaviour])

    @property
    def on(self) -> Problem:
        return (self.problem or arbitrary)()

    @property
    def acting(self) -> np.ndarray:
        return self.on.logits if self.on_policy else self.on.behaviour

    def build(self) -> tuple[Estimator, Params]:
        """The estimator and the parameters of policy and critic."""
        h = Hyperparams(gamma=GAMMA, **self.setting)
        facts = FACTS[self.name]
        made = references.build(ESTIMATORS[self.name], self.on, facts.critic, h, facts.outcome)
        return with_past(*made, self.on) if self.past else made

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [S·A] and covariance of ĝ over every batch, as a direction of ascent."""
        return exact_moments(
            *self.build(),
            self.on.mdp,
            self.acting,
            self.num_episodes,
            limit_ends=self.limit_ends,
            share_start=self.share_start,
            num_branches=self.num_branches,
        )

    def expected(self) -> np.ndarray:
        """The mean it should have, [S, A]."""
        return gradient(self) if self.mean is None else self.mean(self)


def with_past(estimator: Estimator, params: Params, problem: Problem) -> tuple[Estimator, Params]:
    """The estimator as it is after a batch of every trajectory once, whatever its probability."""
    traj, _ = tabular.enumerate_trajectories(problem.mdp, problem.logits, estimator.extra_rollouts)
    _, state = estimator.weigh(params, estimator.init(jax.random.key(0))[1], traj)
    return estimator._replace(init=lambda key: (params, state)), params


@functools.cache
def arbitrary() -> Problem:
    """A random MDP with critics that are wrong, V by more than the returns are large."""
    mdp = tabular.garnet(0, S, A, branching=2, horizon=H)
    return references.arbitrary(mdp)._replace(v=np.array([0.0, 3.0, -3.0]))


@functools.cache
def exact_critics() -> Problem:
    """The same with the time in the state, where V and Q are functions of the state: the exact
    ones.
    """
    return references.with_exact_critics(arbitrary(), GAMMA)


@functools.cache
def exact_hindsight() -> Problem:
    """The same without the time in the state: one exact hindsight distribution for all times."""
    return references.with_first_values(arbitrary(), GAMMA)


@functools.cache
def corridor() -> Problem:
    """A goal that pays and ends: short episodes are best."""
    logits = np.array([[0.0, 0.5], [0.2, 0.0], [0.0, 0.0]])
    return Problem(tabular.chain(S, H, slip=0.1), logits, logits, np.zeros(S), np.zeros((S, A)))


@functools.cache
def corridor_with_values() -> Problem:
    """The same with a critic that is wrong, and differs from state to state."""
    return corridor()._replace(v=np.array([0.0, 0.3, -0.2]))


@functools.cache
def endless() -> Problem:
    """No terminal state, and a start from where the policy's chain is stationary."""
    ring = tabular.garnet(2, S, A, branching=2, horizon=H, ends=0)
    return references.in_windows(arbitrary()._replace(mdp=ring))


@functools.cache
def three_actions() -> Problem:
    """Three actions, of which a pair leaves one out, and one hardly ever happens."""
    mdp = tabular.garnet(3, S, 3, branching=2, horizon=2)
    problem = references.arbitrary(mdp)
    return problem._replace(logits=problem.logits + np.array([0.0, 0.0, -4.0]))


def gradient(case: Case, tau: float = 0.0) -> np.ndarray:
    """∇J, or ∇J_τ with entropy in the reward."""
    return _gradient(case.problem or arbitrary, tau)


@functools.cache  # a program each, and most cases have one problem
def _gradient(problem: Callable[[], Problem], tau: float) -> np.ndarray:
    on = problem()
    return np.asarray(tabular.exact_gradient(on.mdp, on.logits, GAMMA, tau))


def half_the_gradient(case: Case) -> np.ndarray:
    """(N - 1) / N ∇J of a pair."""
    return gradient(case) / 2


def soft_gradient(case: Case) -> np.ndarray:
    return gradient(case, tau=case.setting["temperature"])


def undiscounted(case: Case) -> np.ndarray:
    return np.asarray(tabular.undiscounted_direction(case.on.mdp, case.on.logits, GAMMA))


class Summands(NamedTuple):
    """Every trajectory of the policy that acts."""

    probability: np.ndarray  # [M]
    score: np.ndarray  # [H, M, S, A] of the policy, 0 where not valid
    reward: np.ndarray  # [H, M] not discounted
    traj: Trajectory  # leaves [H, M, ...]


@functools.cache
def summands(problem: Callable[[], Problem] = arbitrary, on_policy: bool = True) -> Summands:
    p = problem()
    traj, probability = tabular.enumerate_trajectories(
        p.mdp, jnp.asarray(p.logits if on_policy else p.behaviour)
    )
    traj, pi = jax.tree.map(np.asarray, traj), np.asarray(jax.nn.softmax(p.logits))
    centred = np.eye(A)[traj.action] - traj.obs @ pi
    score = traj.obs[..., :, None] * centred[..., None, :] * traj.valid[..., None, None]
    return Summands(np.asarray(probability), score, np.asarray(traj.reward), traj)


def discount() -> np.ndarray:
    return GAMMA ** np.arange(H)[:, None]


def by_values(case: Case, q: np.ndarray, acting: np.ndarray) -> np.ndarray:
    """Σₜ γᵗ Σₛ dₜ(s) Σₐ ∇π(a|s) qₜ(s, a), d that of `acting`; q: [H, S, A] or [S, A]."""
    d = np.asarray(tabular.visitation(case.on.mdp, jnp.asarray(acting)))
    pi = np.asarray(jax.nn.softmax(case.on.logits))
    q = np.broadcast_to(q, (H, *pi.shape))
    centred = q - np.einsum("sa,tsa->ts", pi, q)[..., None]
    return np.einsum("t,ts,sa,tsa->sa", discount()[:, 0], d, pi, centred)


def of_the_critic(case: Case) -> np.ndarray:
    """The policy gradient with the critic's Q in place of the true one."""
    return by_values(case, case.on.q, case.acting)


def of_one_ratio(case: Case) -> np.ndarray:
    """States and rewards to go of the behaviour, actions of the policy."""
    return by_values(
        case,
        np.asarray(tabular.values(case.on.mdp, jnp.asarray(case.acting), GAMMA)[0]),
        case.acting,
    )


def of_contributions(case: Case) -> np.ndarray:
    """Σₐ ∇π(a) (h(a|s, u) / π(a) - 1) in the place of the score of each later reward, by loops."""
    outcome = FACTS[case.name].outcome
    each, pi = summands(), np.asarray(jax.nn.softmax(case.on.logits))
    rewards = tabular.paid_rewards(case.on.mdp)
    total = np.zeros((S, A))
    for m, p in enumerate(each.probability):
        states, length = each.traj.obs[:, m].argmax(-1), int(each.traj.valid[:, m].sum())
        reward = each.reward[:, m]
        of_reward = np.abs(reward[:, None] - rewards).argmin(-1)
        u = states if outcome == "state" else of_reward
        for t in range(length):
            total += p * GAMMA**t * reward[t] * each.score[t, m]
            s = states[t]
            for k in range(t + 1, length):
                raised = pi[s] * np.exp(case.on.log_odds[outcome][s, u[k]])
                h = raised / raised.sum()
                w = h / pi[s] - 1.0
                total[s] += p * GAMMA**k * reward[k] * pi[s] * (w - pi[s] @ w)
    return total


def of_one_step(case: Case) -> np.ndarray:
    """One reward and the critic in place of the true Q; with every end an end."""
    mdp = case.on.mdp
    one_step = mdp.mean_reward + GAMMA * mdp.continuing @ case.on.v
    return by_values(case, np.stack([one_step] * (H - 1) + [mdp.mean_reward]), case.acting)


class Episode(NamedTuple):
    """One trajectory of L steps: rewards and ratios [L], values [L + 1] with the last one
    bootstrapped or 0.
    """

    reward: np.ndarray
    rho: np.ndarray
    value: np.ndarray

    def delta(self, t: int) -> float:
        return self.reward[t] + GAMMA * self.value[t + 1] - self.value[t]


def by_loops(
    case: Case, advantage: Callable[[Episode, int], float], power: float = GAMMA
) -> np.ndarray:
    """Σ p Σₜ powerᵗ Aₜ ∇log πₜ, episode by episode and step by step."""
    each, v = summands(case.problem or arbitrary, case.on_policy), case.on.v
    traj, total = each.traj, np.zeros(case.on.logits.shape)
    log_pi = np.asarray(jax.nn.log_softmax(case.on.logits))
    for m, p in enumerate(each.probability):
        L = int(traj.valid[:, m].sum())
        states, last = traj.obs[:L, m].argmax(-1), traj.next_obs[L - 1, m].argmax(-1)
        over = traj.terminated[L - 1, m] or case.limit_ends
        own = log_pi[states, traj.action[:L, m]]
        ratio = np.exp(own - traj.log_prob[:L, m])
        reward = traj.reward[:L, m] - case.setting.get("temperature", 0.0) * own
        episode = Episode(reward, ratio, np.append(v[states], 0.0 if over else v[last]))
        for t in range(L):
            total += p * power**t * advantage(episode, t) * each.score[t, m]
    return total


def of_gae(case: Case) -> np.ndarray:
    c = GAMMA * case.setting["gae_lambda"]
    power = 1.0 if case.setting.get("undiscounted_state_weighting") else GAMMA
    return by_loops(
        case, lambda e, t: sum(c ** (k - t) * e.delta(k) for k in range(t, len(e.reward))), power
    )


def of_weighed_gae(case: Case) -> np.ndarray:
    """gae times the action's own ratio, of which an infinite range leaves all."""
    c = GAMMA * case.setting["gae_lambda"]
    return by_loops(
        case,
        lambda e, t: e.rho[t] * sum(c ** (k - t) * e.delta(k) for k in range(t, len(e.reward))),
    )


def of_weighed_likelihood(case: Case) -> np.ndarray:
    """The score of each action, times the exponential of its reward to go or advantage."""
    scale, bound = case.setting["advantage_scale"], case.setting["ratio_bound"]
    c = GAMMA * case.setting.get("gae_lambda", 0.0)

    def weight(e: Episode, t: int) -> float:
        later = range(t, len(e.reward))
        if case.name == "reward_weighted_regression":
            credit = sum(GAMMA ** (k - t) * e.reward[k] for k in later)
        else:
            credit = sum(c ** (k - t) * e.delta(k) for k in later)
        return min(math.exp(credit / scale), bound)

    return by_loops(case, weight)


def weights_of_the_better_half(advantage: np.ndarray, max_kl: float) -> np.ndarray:
    """n exp(A / η) / Σ exp(A / η) of the better half of n steps, 0 of the others: [n], with the η
    at which the shares of the half have a divergence of `max_kl` from equal ones.
    """
    least = np.sort(advantage)[::-1][math.ceil(len(advantage) / 2) - 1]
    order = np.flatnonzero(advantage > least - 1e-12)

    def share(eta: float) -> np.ndarray:
        raised = np.exp((advantage[order] - advantage.max()) / eta)
        return raised / raised.sum()

    def excess(eta: float) -> float:
        p = share(eta)
        return float(np.sum(p * np.log(p * len(order)))) - max_kl

    weights = np.zeros(len(advantage))
    same = np.ptp(advantage[order]) < 1e-12
    eta = 1.0 if same else optimize.brentq(excess, 0.01, 1e4, xtol=1e-15, rtol=1e-15)
    weights[order] = len(advantage) * share(eta)
    return weights


def of_better_halves_of_pairs(case: Case) -> np.ndarray:
    """The score of the better actions of two episodes, the best of them with the largest weight."""
    each, v = summands(case.problem or arbitrary), case.on.v
    traj, c = each.traj, GAMMA * case.setting["gae_lambda"]

    def advantages(m: int) -> list[float]:
        length = int(traj.valid[:, m].sum())
        states, last = traj.obs[:length, m].argmax(-1), traj.next_obs[length - 1, m].argmax(-1)
        ended = traj.terminated[length - 1, m]
        value = np.append(v[states], 0.0 if ended else v[last])
        e = Episode(traj.reward[:length, m], np.ones(length), value)
        return [sum(c ** (k - t) * e.delta(k) for k in range(t, length)) for t in range(length)]

    probability = each.probability
    found = [advantages(m) for m in range(len(probability))]
    total = np.zeros(case.on.logits.shape)
    for m, n in itertools.combinations_with_replacement(range(len(found)), 2):
        pair = np.array(found[m] + found[n])
        weights = weights_of_the_better_half(pair, case.setting["max_kl"])
        twice = 1.0 if m == n else 2.0
        split = len(found[m])
        for episode, own in ((m, weights[:split]), (n, weights[split:])):
            psi = discount()[: len(own), 0] * own
            part = np.einsum("t,tsa->sa", psi, each.score[: len(own), episode])
            total += twice * probability[m] * probability[n] * part / 2
    return total


def of_mirror_descent(case: Case) -> np.ndarray:
    """The gradient of Σₛ d(s) Σₐ π(a) Aₜ - η KL(π ‖ π_old), d and A of the behaviour's episodes."""
    c, eta = GAMMA * case.setting["gae_lambda"], case.setting["advantage_scale"]

    def weight(e: Episode, t: int) -> float:
        later = range(t, len(e.reward))
        advantage = sum(c ** (k - t) * e.delta(k) for k in later)
        return e.rho[t] * (advantage - eta * math.log(e.rho[t]))

    return by_loops(case, weight)


def of_n_step(case: Case) -> np.ndarray:
    def advantage(e: Episode, t: int) -> float:
        end = min(t + case.setting["n_step"], len(e.reward))
        earned = sum(GAMMA ** (k - t) * e.reward[k] for k in range(t, end))
        return earned + GAMMA ** (end - t) * e.value[end] - e.value[t]

    return by_loops(case, advantage)


def of_vtrace(case: Case) -> np.ndarray:
    """Equation 1 of Espeholt et al. 2018 (1802.01561), and the advantage of its section 4.2, as
    they are printed.
    """

    def target(e: Episode, s: int) -> float:
        terms, L, c = 0.0, len(e.reward), case.setting["gae_lambda"] * np.minimum(1.0, e.rho)
        for t in range(s, L):
            terms += GAMMA ** (t - s) * np.prod(c[s:t]) * min(1.0, e.rho[t]) * e.delta(t)
        return e.value[s] + terms

    def advantage(e: Episode, t: int) -> float:
        return min(1.0, e.rho[t]) * (e.reward[t] + GAMMA * target(e, t + 1) - e.value[t])

    return by_loops(case, advantage)


def of_standardised_pairs(case: Case) -> np.ndarray:
    """The standardised returns of a pair are ±1: E[sign(R - R') Z]."""
    each = summands()
    total, z = (discount() * each.reward).sum(0), each.score.sum(0)
    return np.einsum("m,n,mn,msa->sa", each.probability, each.probability, _signs(total), z)


def of_grpo_pairs(case: Case) -> np.ndarray:
    """E[sign(R - R') Z / |τ|] over pairs that begin at one state."""
    each = summands()
    total, z = (
        (discount() * each.reward).sum(0),
        each.score.sum(0) / each.traj.valid.sum(0)[:, None, None],
    )
    start = each.traj.obs[0].argmax(-1)
    together = (start[:, None] == start[None, :]) / case.on.mdp.initial[start][:, None]
    return np.einsum(
        "m,n,mn,mn,msa->sa", each.probability, each.probability, together, _signs(total), z
    )


def _signs(total: np.ndarray) -> np.ndarray:
    gap = (total[:, None] - total[None, :]) / 2
    # where returns are equal but for rounding there is nothing to compare
    return np.where(np.abs(gap) > 1e-12, np.sign(gap), 0.0)


def of_a_fading_trace(case: Case) -> np.ndarray:
    """Σ_{l<H} (H - l) βˡ Σₛ μ Σₐ ∇π(a|s) E[rₜ₊ₗ|s, a] of a window of H steps that begins in the
    stationary distribution.
    """
    mdp, pi, total = (
        case.on.mdp,
        np.asarray(jax.nn.softmax(case.on.logits)),
        np.zeros(case.on.logits.shape),
    )
    reward_later = mdp.mean_reward  # E[rₜ₊ₗ|s, a], [S, A]
    for lag in range(H):
        centred = reward_later - (pi * reward_later).sum(1, keepdims=True)
        total += (H - lag) * case.setting["beta"] ** lag * mdp.initial[:, None] * pi * centred
        reward_later = mdp.transition @ (pi * reward_later).sum(1)
    return total


CASES = [
    Case("reinforce"),
    Case("reinforce", problem=corridor),
    Case("reward_to_go"),
    Case("undiscounted_reward_to_go", mean=undiscounted),
    Case("constant_baseline", {"baseline": 0.7}),
    Case("batch_mean", mean=half_the_gradient, num_episodes=2),
    Case("standardised", mean=of_standardised_pairs, num_episodes=2),
    Case("leave_one_out", num_episodes=2),
    Case("time_baseline", num_episodes=2),
    Case("shrunk_time_baseline", num_episodes=2),
    Case("shrunk_time_baseline", num_episodes=3),
    Case("optimal_baseline", num_episodes=2),
    Case("optimal_time_baseline", num_episodes=2),
    Case("moving_average"),
    Case("state_value"),
    Case("centred_state_value", num_episodes=2),
    Case("optimal_state_baseline"),
    Case("optimal_state_baseline", problem=exact_critics),
    Case("entropy_reward", {"temperature": 0.3}, soft_gradient),
    Case("group_leave_one_out", num_episodes=2),
    Case("group_leave_one_out", num_episodes=2, share_start=True),
    Case("grpo", mean=of_grpo_pairs, num_episodes=2, share_start=True),
    Case("all_action", mean=of_the_critic),
    Case("all_action", problem=exact_critics),
    Case("action_dependent_baseline"),
    Case("action_dependent_baseline", problem=exact_critics),
    Case("trajectory_control_variate"),
    Case("trajectory_control_variate", problem=exact_critics),
    Case("pooled_trajectory_control_variate", num_episodes=2),
    Case("pooled_trajectory_control_variate", problem=exact_critics, num_episodes=2),
    Case("gradient_control_variate"),
    Case("gradient_control_variate", past=True),
    Case("doubly_robust"),
    Case("doubly_robust", on_policy=False),
    Case("doubly_robust", {"temperature": 0.3}, soft_gradient, on_policy=False),
    Case("hindsight_credit", mean=of_contributions),
    Case("hindsight_credit", problem=exact_hindsight),
    Case("hindsight_credit", {"temperature": 0.3}, soft_gradient, problem=exact_hindsight),
    Case("counterfactual_contributions", mean=of_contributions),
    Case("counterfactual_contributions", problem=exact_hindsight),
    Case("dynamics_control_variate"),
    Case("dynamics_control_variate", {"temperature": 0.3}, soft_gradient),
    Case("dynamics_control_variate", problem=exact_critics),
    Case("dynamics_control_variate", num_branches=2),
    Case("lookahead_control_variate"),
    Case("lookahead_control_variate", {"temperature": 0.3}, soft_gradient),
    Case("lookahead_control_variate", problem=exact_critics),
    Case("lookahead_control_variate", num_branches=2),
    Case("vine_value", num_branches=2),
    Case("vine_advantage", num_branches=2),
    Case("vine_action_value", num_branches=2),
    Case("vine_action_value"),  # nothing to compare with
    Case("vine_all_action"),
    Case("vine_all_action", {"temperature": 0.3}, soft_gradient),
    Case("measure_valued", problem=three_actions, num_branches=2),
    Case("measure_valued", {"temperature": 0.3}, soft_gradient, problem=three_actions),
    Case("trajectory_importance"),
    Case("trajectory_importance", on_policy=False),
    Case("per_decision_importance"),
    Case("per_decision_importance", on_policy=False),
    Case("trajectory_importance", {"temperature": 0.3}, soft_gradient, on_policy=False),
    Case("per_decision_importance", {"temperature": 0.3}, soft_gradient, on_policy=False),
    Case("ratio_only"),
    Case("ratio_only", mean=of_one_ratio, on_policy=False),
    # Bootstrapped estimators are ∇J where nothing is left to bootstrap, and where V is exact.
    Case("actor_critic", {"n_step": H}, limit_ends=True),
    Case("actor_critic", {"n_step": 1}, problem=exact_critics),
    Case("actor_critic", {"n_step": 1}, of_one_step, limit_ends=True),
    Case("actor_critic", {"n_step": 2}, of_n_step),
    Case("gae", {"gae_lambda": 1.0}, limit_ends=True),
    Case("gae", {"gae_lambda": 0.5}, problem=exact_critics),
    Case("gae", {"gae_lambda": 1.0}, of_gae),  # bootstraps where the time limit cut
    Case("gae", {"gae_lambda": 0.5}, of_gae, limit_ends=True),
    Case(
        "gae",
        {"gae_lambda": 1.0, "undiscounted_state_weighting": 1.0},
        undiscounted,
        limit_ends=True,
    ),
    Case("gae", {"gae_lambda": 0.5, "undiscounted_state_weighting": 1.0}, of_gae),
    Case("vtrace", {"gae_lambda": 1.0}, limit_ends=True),
    Case("vtrace", {"gae_lambda": 0.5}, problem=exact_critics),
    Case("vtrace", {"gae_lambda": 0.7}, of_vtrace, on_policy=False),
    Case("vtrace", {"gae_lambda": 0.7, "temperature": 0.3}, of_vtrace, on_policy=False),
    Case("ppo", {"gae_lambda": 1.0}, limit_ends=True),
    Case("ppo", {"gae_lambda": 0.5}, problem=exact_critics),
    Case("ppo", {"gae_lambda": 0.5}, of_gae),
    Case(
        "ppo",
        {"gae_lambda": 0.5, "temperature": 0.3, "epsilon": math.inf},
        of_weighed_gae,
        on_policy=False,
    ),
    Case(
        "reward_weighted_regression",
        {"advantage_scale": 0.5, "ratio_bound": math.inf},
        of_weighed_likelihood,
    ),
    Case(
        "reward_weighted_regression",
        {"advantage_scale": 0.5, "ratio_bound": 3.0, "temperature": 0.3},
        of_weighed_likelihood,
        on_policy=False,
    ),
    Case(
        "advantage_weighted_regression",
        {"advantage_scale": 2.0, "ratio_bound": 3.0, "gae_lambda": 0.5},
        of_weighed_likelihood,
    ),
    Case(
        "v_mpo",
        {"max_kl": 0.1, "gae_lambda": 0.5},
        of_better_halves_of_pairs,
        problem=corridor_with_values,
        num_episodes=2,
    ),
    Case("mdpo", {"gae_lambda": 0.5, "advantage_scale": 0.7}, problem=exact_critics),
    Case(
        "mdpo",
        {"gae_lambda": 0.5, "advantage_scale": 0.7},
        of_mirror_descent,
        on_policy=False,
    ),
    Case("gpomdp", {"beta": 0.6}, of_a_fading_trace, problem=endless),
]


def case(name: str, **fields: Any) -> Case:
    """The first row of an estimator, with other fields."""
    return next(c for c in CASES if c.name == name)._replace(**fields)
