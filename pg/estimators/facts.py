"""The table of facts about estimators: a row each, from which everything else is derived.

The command line, the checks of `Config`, presets, benchmarks, the leaderboard and the tables of the
documentation read it. It imports nothing of pg, and no jax. The proof of a row is its mean in
`tests/helpers/proofs.py`.

In formulas J is the expected return E[Σₜ γᵗ rₜ] up to the time limit, R its sample, and
Gₜ = Σ_{k≥t} γᵏ⁻ᵗ rₖ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Collect = Literal["episodes", "windows"]
Objective = Literal["J", "J_τ", "J_β", "no"]
Critic = Literal["none", "V", "Q", "hindsight"]
Outcome = Literal["state", "reward"]
ExtraRolloutKind = Literal["none", "greedy", "successors", "lookahead", "branches", "starts"]
Actions = Literal["discrete", "continuous"]
_ALL_GRADIENTS = "memory for N gradients"
OWN_HYPERPARAMS = (
    "gae_lambda",
    "n_step",
    "beta",
    "baseline",
    "baseline_decay",
    "epsilon",
    "epsilon_high",
    "ratio_bound",
    "gate_rising",
    "gate_falling",
)
"""The hyperparameters that an estimator may have a value of its own of."""
Baseline = Literal["none", "constant", "past", "batch", "group", "greedy", "critic", "branches"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about an estimator."""

    module: str = ""
    """Module of `pg.estimators` in which the function of the estimator's name is defined; "" for a
    custom estimator.
    """
    psi: str = ""
    """Formula of the weight Ψₜ of ∇log π(aₜ|sₜ)."""
    where: str = ""
    """Meaning of the symbols in `psi`."""
    source: str = ""
    """Paper, with its number at arXiv."""
    unbiased_for: Objective
    """Objective whose gradient is the mean: J, J_τ (with entropy in the reward), J_β (less the KL
    divergence from a reference policy), or no.
    """
    why: str = ""
    """Condition of that, or its reason."""
    variance: str = ""
    """Size of the variance, in words."""
    collect: tuple[Collect, ...] = ("episodes",)
    """Ways of collecting; a return that is summed to the episode's end needs complete episodes."""
    critic: Critic = "none"
    """Learned function: V(s), Q(s, a) of every action, or the hindsight distribution h(a|s, u) of
    the action given a later outcome u.
    """
    outcome: Outcome = "state"
    """Outcome that a hindsight distribution is given: the later state, or the later reward."""
    actions: tuple[Actions, ...] = ("discrete",)
    """Actions that its Q may be of: discrete ones, by a vector of their values, or continuous ones,
    by a function of them.
    """
    baseline: Baseline = "none"
    """Number that Ψ is compared with: one that is set, or one from past batches, from the other
    episodes of the batch, from those that share the initial state, from the greedy policy's
    episode, from the critic, or from extra episodes out of the same state.
    """
    pools_episodes: bool = False
    """Averages over the episodes of the batch that are in one state. The noise of a transition is
    independent of the past of every episode, also where it is spread over them, and the mean stays.
    """
    off_policy: bool = False
    """Meant for data of another policy, whose log-probabilities it uses."""
    several_steps: bool = False
    """May take more than one step on a batch, as its surrogate has the importance ratio in it, or
    as it is a regression.
    """
    regression: bool = False
    """Fits the policy to the actions that were taken, whoever took them, by weights that do not
    depend on it: no ratio, and no log-probability of the behaviour.
    """
    psi_depends_on_policy: bool = False
    """Ψ contains the policy itself, by a ratio, a probability or scores, or it is divided by a
    number of the batch, as a standard deviation: that of earlier parameters is another one, and
    storm and its like cannot make it of the batch by weighing its episodes.
    """
    with_reference: bool = False
    """Compares the policy with a reference policy, whose parameters are its state."""
    extra_rollout_kind: ExtraRolloutKind = "none"
    """Rollouts beside the batch, which are counted: the greedy policy's episodes from the same
    initial states, extra transitions of each action that was taken, transitions of every action,
    whole episodes out of each visited state, or extra initial states.
    """
    starts: int = 0
    """Extra initial states of each episode, of which a control variate of the gradient is made;
    each is a reset, which counts as a step.
    """
    every_action: bool = False
    """Rolls out every action, of which there must be finitely many."""
    shrunk: bool = False
    """The mean is along ∇J, and shorter."""
    same_on_policy: str = ""
    """Estimator that it equals on the policy's own data, as long as nothing is set."""
    needs_also: str = ""
    """Requirement that does not follow from the other facts."""
    reads: tuple[str, ...] = ()
    """Those of `OWN_HYPERPARAMS` that its estimate, or a metric of it, depends on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its preset: fields of Config and Hyperparams that differ from their defaults, which are
    complete episodes, γ = 1, and at most 2,000 episodes (1M steps on CartPole).
    """

    @property
    def unbiased_in_words(self) -> str:
        """Objective whose gradient is the mean, "nothing" for no objective, and the condition or
        the reason.
        """
        objective = "nothing" if self.unbiased_for == "no" else self.unbiased_for
        return f"{objective}: {self.why}" if self.why else objective

    @property
    def parallel(self) -> bool:
        """True if the mean is along ∇J, whatever its length."""
        return self.unbiased_for == "J" or self.shrunk

    @property
    def compares_episodes(self) -> bool:
        """True if Ψ of an episode, or the estimator's state, is made of the others of its batch."""
        return self.depends_on_batch or self.baseline == "past"

    @property
    def needs_independent_episodes(self) -> bool:
        """True if its mean is what it is only where the episodes of a batch are independent."""
        return self.baseline in ("batch", "group")

    @property
    def depends_on_batch(self) -> bool:
        """True if Ψ of an episode is made of the others of its own batch."""
        return self.pools_episodes or self.needs_independent_episodes

    @property
    def accumulates(self) -> bool:
        """True if its gradient can be accumulated over groups of environments: Ψ is of one episode
        alone, or what it compares of all of them are returns, without V, ratios or scores.
        """
        if self.extra_rollout_kind != "none" or self.with_reference:
            return False
        if self.critic == "hindsight":  # its metric is a mean over pairs of steps, not over steps
            return False
        without_policy = not self.several_steps and self.needs_also != _ALL_GRADIENTS
        return not self.compares_episodes or (self.critic == "none" and without_policy)

    @property
    def weighs_first_step_by_return(self) -> bool:
        """True if Ψ of an episode's first step is its return, from the batch alone and less a
        baseline that the policy's own choices do not change: the weight that the score of
        parameters needs if they are drawn once per episode.
        """
        if self.off_policy or self.several_steps or self.with_reference:
            return False
        of_one_rollout = self.extra_rollout_kind in ("none", "greedy")
        credits_actions = self.critic in ("Q", "hindsight")
        return self.collect == ("episodes",) and not credits_actions and of_one_rollout

    @property
    def averages_sampled_actions(self) -> bool:
        """True if it asks a critic Q of continuous actions for values alone, which may then be any
        network's, and for their mean over the policy's actions.
        """
        return self.module == "action_values" and "continuous" in self.actions

    def takes(self, actions: str) -> bool:
        """True if it is for actions of this kind: discrete, continuous, or mixed of both."""
        if self.every_action and actions != "discrete":
            return False
        if self.critic == "hindsight":  # a probability of each action
            return actions == "discrete"
        return self.critic != "Q" or actions in self.actions

    @property
    def needs(self) -> str:
        """Requirements, in words."""
        data = {
            ("episodes",): "complete episodes",
            ("windows",): "windows",
            ("episodes", "windows"): "episodes or windows",
        }[self.collect]
        if self.baseline == "group":
            data += " that share initial states"
        parts = [data]
        if self.critic == "V":
            parts.append("a critic V")
        if self.critic == "Q":
            parts.append(f"a critic Q of {' or '.join(self.actions)} actions")
        if self.critic == "hindsight":
            parts.append(f"a critic h of discrete actions given the later {self.outcome}")
        if self.regression:
            parts.append("actions of any policy")
        elif self.off_policy or self.several_steps:
            parts.append("the behaviour's log-probabilities")
        else:
            parts.append("on-policy")
        if self.baseline == "batch":
            parts.append("N ≥ 2")
        if self.extra_rollout_kind != "none":
            parts.append(_EXTRA_ROLLOUTS[self.extra_rollout_kind])
        if self.every_action:
            parts.append("discrete actions")
        if self.needs_also:
            parts.append(self.needs_also)
        return ", ".join(parts)


_EXTRA_ROLLOUTS = {
    "greedy": "a greedy rollout",
    "successors": "extra transitions",
    "lookahead": "transitions of every action",
    "branches": "episodes from each state",
    "starts": "extra resets",
}

# Windows of 8 environments, bootstrapped, γᵗ dropped as is common; 500k steps.
_WINDOWS: dict[str, Any] = {
    "collect": "windows",
    "num_envs": 8,
    "num_steps": 32,
    "num_updates": 1953,
    "schedule": "linear",
    "gamma": 0.99,
    "max_grad_norm": 0.5,
    "undiscounted_state_weighting": 1.0,
}

# Longer windows, of which each is used several times; 150k steps.
_SEVERAL_STEPS: dict[str, Any] = {
    **_WINDOWS,
    "num_steps": 64,
    "num_updates": 292,
    "num_epochs": 10,
    "num_minibatches": 4,
    "learning_rate": 0.001,
}

# Short episodes, as a hindsight distribution costs a pass over the batch for each step.
_CATCH: dict[str, Any] = {"env": "Catch-bsuite", "num_envs": 32, "num_updates": 300}

# Complete episodes of a swing-up whose rewards have no natural scale.
_PENDULUM: dict[str, Any] = {
    "env": "Pendulum-v1",
    "gamma": 0.95,
    "normalise_observations": True,
    "scale_rewards": True,
}

FACTS: dict[str, Facts] = {
    "reinforce": Facts(
        module="episodic",
        psi="R",
        source="Williams 1992",
        unbiased_for="J",
        variance="the largest: H scores, each times the full return",
    ),
    "reward_to_go": Facts(
        module="episodic",
        psi="γᵗ Gₜ = Σ_{k≥t} γᵏ rₖ",
        source="GPOMDP; Baxter & Bartlett 2001, 1106.0665",
        unbiased_for="J",
        variance="drops the past rewards' zero-mean terms; usually less than reinforce, not always",
    ),
    "undiscounted_reward_to_go": Facts(
        module="episodic",
        psi="Gₜ",
        source="Nota & Thomas 2020, 1906.07073",
        unbiased_for="no",
        why="for γ < 1 it is not the gradient of any function; J if γ = 1",
        variance="late steps weigh as much as early ones",
    ),
    "constant_baseline": Facts(
        module="episodic",
        psi="R - b",
        where="b = `baseline`",
        source="Weaver & Tao 2001",
        unbiased_for="J",
        why="for any b that is independent of the batch",
        variance="smallest at the b above; grows with the square of the distance from it",
        baseline="constant",
        same_on_policy="reinforce",
        reads=("baseline",),
    ),
    "batch_mean": Facts(
        module="episodic",
        psi="R - (1/N) Σₘ Rₘ",
        source="folklore",
        unbiased_for="no",
        why="its mean is (N-1)/N ∇J, shrunk by its own sample",
        variance="((N-1)/N)² that of leave_one_out; the same signal-to-noise ratio",
        baseline="batch",
        shrunk=True,
    ),
    "standardised": Facts(
        module="episodic",
        psi="(R - mean R) / std R",
        source="as implementations of PPO and GRPO do",
        unbiased_for="no",
        why="the scale is random and correlated with Ψ, which turns the direction",
        variance="that of batch_mean in units of the returns, whatever their scale",
        baseline="batch",
        psi_depends_on_policy=True,
    ),
    "leave_one_out": Facts(
        module="episodic",
        psi="R - (1/(N-1)) Σ_{m≠n} Rₘ",
        source="RLOO; Kool et al. 2019; 2402.14740",
        unbiased_for="J",
        variance="removes the mean return from the weight of every score",
        baseline="batch",
    ),
    "time_baseline": Facts(
        module="episodic",
        psi="γᵗ Gₜ - (1/(N-1)) Σ_{m≠n} γᵗ Gₜ⁽ᵐ⁾",
        source="folklore",
        unbiased_for="J",
        variance="removes the part of the reward to go that the time step explains",
        baseline="batch",
    ),
    "shrunk_time_baseline": Facts(
        module="episodic",
        psi="γᵗ Gₜ - ((1-λ) Xₜ + λ mean X)",
        where="Xₜ = (1/(N-1)) Σ_{m≠n} γᵗ Gₜ⁽ᵐ⁾; λ = v² / (v² + s²)",
        source="James-Stein; Zeng et al. 2025, 2511.03710, for groups",
        unbiased_for="J",
        variance="that of time_baseline, with less noise of few episodes if step means are close",
        baseline="batch",
    ),
    "optimal_baseline": Facts(
        module="episodic",
        psi="R - bⱼ",
        where="bⱼ = Σ_{m≠n} Rₘ Zₘⱼ² / Σ_{m≠n} Zₘⱼ²,  Zⱼ = Σₜ ∂ log π / ∂θⱼ",
        source="Peters & Schaal 2008",
        unbiased_for="J",
        variance="the lowest of constant baselines, coordinate by coordinate, as N grows",
        baseline="batch",
        psi_depends_on_policy=True,
        needs_also=_ALL_GRADIENTS,
    ),
    "optimal_time_baseline": Facts(
        module="optimal",
        psi="Σ_{k≥t} (γᵏ rₖ - bₖⱼ)",
        where="bₖⱼ = Σ_{m≠n} γᵏ rₖ Cₖⱼ² / Σ_{m≠n} Cₖⱼ²,  Cₖ = Σ_{i≤k} ∇log πᵢ",
        source="GPOMDP's optimal baseline; Peters & Schaal 2008",
        unbiased_for="J",
        variance="the lowest of constant baselines, reward by reward, as N grows; not of their sum",
        baseline="batch",
        psi_depends_on_policy=True,
        needs_also=_ALL_GRADIENTS,
    ),
    "moving_average": Facts(
        module="episodic",
        psi="R - b",
        where="b the average before this batch, with decay `baseline_decay`",
        source="Williams 1992",
        unbiased_for="J",
        why="b was computed before this batch was sampled",
        variance="removes the recent mean return from the weight of every score",
        baseline="past",
        reads=("baseline_decay",),
    ),
    "state_value": Facts(
        module="episodic",
        psi="γᵗ (Gₜ - V(sₜ))",
        source="Sutton et al. 2000",
        unbiased_for="J",
        why="for any V fitted to earlier batches",
        variance="removes what V explains; near the best state baseline if V is accurate",
        critic="V",
        baseline="critic",
    ),
    "optimal_state_baseline": Facts(
        module="optimal",
        psi="γᵗ (Gₜ - b(sₜ))",
        where="b = Σₐ π(a) ‖eₐ - π‖² Q(a) / Σₐ π(a) ‖eₐ - π‖²",
        source="Greensmith et al. 2004",
        unbiased_for="J",
        why="for any Q fitted to earlier batches",
        variance="the lowest of state baselines, step by step, if Q is accurate",
        critic="Q",
        baseline="critic",
        psi_depends_on_policy=True,
    ),
    "centred_state_value": Facts(
        module="episodic",
        psi="γᵗ Aₜ - (1/(N-1)) Σ_{m≠n} γᵗ Aₜ⁽ᵐ⁾",
        where="A = G - V(s)",
        source="time_baseline of the residuals",
        unbiased_for="J",
        why="for any V fitted to earlier batches",
        variance="that of state_value, without errors of V that all states of a step share",
        critic="V",
        baseline="batch",
    ),
    "entropy_reward": Facts(
        module="episodic",
        psi="Σ_{k≥t} γᵏ (rₖ - τ log π(aₖ|sₖ))",
        where="τ = `temperature`",
        source="maximum-entropy RL; 1704.06440",
        unbiased_for="J_τ",
        why="E[Σₜ γᵗ (rₜ - τ log π(aₜ|sₜ))]",
        variance="that of reward_to_go, plus the noise of the sampled log-probabilities",
        psi_depends_on_policy=True,
        needs_also="τ above 0, which its preset sets",
        settings={"temperature": 0.01},
    ),
    "group_leave_one_out": Facts(
        module="grouped",
        psi="R - mean of R over the others of the group",
        where="0 where there are none",
        source="Dr. GRPO up to scale; 2503.20783",
        unbiased_for="J",
        variance="removes the part of the return that the initial state explains",
        baseline="group",
        settings={"group_size": 5},
    ),
    "grpo": Facts(
        module="grouped",
        psi="(R - mean R) / std R / length of the episode",
        where="over the group; ρₜ until clipped",
        source="Shao et al. 2024, 2402.03300",
        unbiased_for="no",
        why="low-variance groups and short episodes weigh more; the mean includes R",
        variance="that of returns in units of the standard deviation of the group",
        baseline="group",
        several_steps=True,
        psi_depends_on_policy=True,
        reads=("epsilon",),
        settings={"group_size": 5},
    ),
    "all_action": Facts(
        module="action_values",
        psi="γᵗ Q(sₜ, a), for every a",
        source="expected policy gradients, 1706.05374; 1709.00503",
        unbiased_for="no",
        why="J only if Q, which replaces the reward to go, is exact",
        variance="none from sampling the action or from what follows it; that of the states",
        critic="Q",
        actions=("discrete", "continuous"),
    ),
    "action_dependent_baseline": Facts(
        module="action_values",
        psi="γᵗ (Q(sₜ, a) + 1[a = aₜ] (Gₜ - Q(sₜ, aₜ)) / π(aₜ|sₜ)), for every a",
        source="Q-Prop 1611.02247; 1802.10031",
        unbiased_for="J",
        why="for any Q fitted to earlier batches",
        variance="removes that of sampling the action, as far as Q is accurate; the rest remains",
        critic="Q",
        actions=("discrete", "continuous"),
        baseline="critic",
        psi_depends_on_policy=True,
    ),
    "trajectory_control_variate": Facts(
        module="action_values",
        psi="γᵗ (Qₜ(a) + 1[a = aₜ] (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Aₖ) - Vₜ) / πₜ(a)), for every a",
        where="A = Q - V",
        source="TrajCV; Cheng et al. 2020, 1908.03263",
        unbiased_for="J",
        why="for any Q fitted to earlier batches",
        variance="that of the states and of the dynamics, if Q is accurate",
        critic="Q",
        actions=("discrete", "continuous"),
        baseline="critic",
        psi_depends_on_policy=True,
    ),
    "pooled_trajectory_control_variate": Facts(
        module="action_values",
        psi="γᵗ (Qₜ(a) + 1[a = aₜ] Σ_{k≥t} γᵏ⁻ᵗ dₖ / πₜ(a)), for every a",
        where="d = mean of r + γ V(s') - Q",
        source="after Cheng et al. 2020, 1908.03263; Kallus & Uehara 2020, 2002.04014",
        unbiased_for="J",
        why="for any Q(s, a) of earlier batches, if observations are states",
        variance="that of the states, and of the dynamics in states that are visited once",
        critic="Q",
        actions=("discrete", "continuous"),
        baseline="critic",
        pools_episodes=True,
        psi_depends_on_policy=True,
    ),
    "gradient_control_variate": Facts(
        module="linear_control_variate",
        psi="γᵗ (Qₜ(a) + 1[a = aₜ] (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Aₖ) - Vₜ) / πₜ(a)), for every a; ĝ - B z",
        source="after Wang et al. 2013; Geffner & Domke 2018, 1810.12482",
        unbiased_for="J",
        why="for any Q and any B fitted to earlier batches",
        variance="that of trajectory_control_variate, minus what z explains of a whole episode",
        critic="Q",
        actions=("discrete", "continuous"),
        baseline="critic",
        psi_depends_on_policy=True,
        extra_rollout_kind="starts",
        starts=4,
        reads=("baseline_decay",),
    ),
    "doubly_robust": Facts(
        module="action_values",
        psi="γᵗ w (Qₜ(a) + 1[a = aₜ] (rₜ + γ Dₜ₊₁ - Qₜ(aₜ)) / β(aₜ|sₜ)), for every a",
        where="w = Π_{k<t} ρₖ",
        source="DR-PG; Huang & Jiang 2020, 1910.09066",
        unbiased_for="J",
        why="for any Q fitted to earlier batches",
        variance="that of per_decision_importance, without what Q predicts",
        critic="Q",
        baseline="critic",
        off_policy=True,
        psi_depends_on_policy=True,
        same_on_policy="trajectory_control_variate",
    ),
    "q_prop": Facts(
        module="action_derivatives",
        psi="γᵗ (Gₜ - L(sₜ, aₜ)), and γᵗ ∂Q(sₜ, a)/∂a at a = μ(sₜ), by ∇μ",
        source="Q-Prop; Gu et al. 2017, 1611.02247, eq. 7",
        unbiased_for="J",
        why="for any Q fitted to earlier batches",
        variance="removes what is linear in the action, as far as Q is accurate",
        critic="Q",
        actions=("continuous",),
        baseline="critic",
        psi_depends_on_policy=True,
        settings=_PENDULUM,
    ),
    "stein_control_variate": Facts(
        module="action_derivatives",
        psi="γᵗ (Gₜ - Q(sₜ, aₜ)), and γᵗ ∂Q(sₜ, a)/∂a at a = aₜ, by ∇a(θ, εₜ)",
        source="Liu et al. 2018, 1710.11198, eq. 8",
        unbiased_for="J",
        why="for any Q fitted to earlier batches",
        variance="that of action_dependent_baseline, and that of the derivative over actions",
        critic="Q",
        actions=("continuous",),
        baseline="critic",
        psi_depends_on_policy=True,
        settings=_PENDULUM,
    ),
    "svg0": Facts(
        module="action_derivatives",
        psi="γᵗ ∂Q(sₜ, a)/∂a at a = aₜ, by ∇a(θ, εₜ)",
        source="SVG(0); Heess et al. 2015, 1510.09142",
        unbiased_for="no",
        why="J only if Q, which replaces the reward to go, is exact",
        variance="none from later steps; that of the derivative over actions, and of states",
        critic="Q",
        actions=("continuous",),
        settings=_PENDULUM,
    ),
    "deterministic_policy_gradient": Facts(
        module="action_derivatives",
        psi="γᵗ ∂Q(sₜ, a)/∂a at a = μ(sₜ), by ∇μ",
        source="Silver et al. 2014, theorem 1",
        unbiased_for="no",
        why="J only if Q is exact and quadratic, and then for the mean alone",
        variance="none from sampling the action; that of the states",
        critic="Q",
        actions=("continuous",),
        settings=_PENDULUM,
    ),
    "hindsight_credit": Facts(
        module="credit",
        psi="γᵗ (1[a = aₜ] rₜ / π(aₜ|sₜ) + Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, sₖ) rₖ), for every a",
        where="w = h / π - 1",
        source="state-HCA; Harutyunyan et al. 2019, 1912.02503, theorem 1",
        unbiased_for="no",
        why="J only if h is exact",
        variance="that of reward_to_go if states reveal the action; usually less, not always",
        critic="hindsight",
        psi_depends_on_policy=True,
        settings=_CATCH,
    ),
    "counterfactual_contributions": Facts(
        module="credit",
        psi="γᵗ (1[a = aₜ] rₜ / π(aₜ|sₜ) + Σ_{k>t} γᵏ⁻ᵗ w(sₜ, a, rₖ) rₖ), for every a",
        where="w = h / π - 1",
        source="COCOA-reward; Meulemans et al. 2023, 2306.16803, eq. 4",
        unbiased_for="no",
        why="J only if h is exact",
        variance="none from rewards that do not depend on the action; that of the others",
        critic="hindsight",
        outcome="reward",
        psi_depends_on_policy=True,
        # most rewards are 0 there: h has to be right before the policy is certain
        settings={**_CATCH, "num_updates": 500, "critic_rate": 5.0, "entropy_coef": 0.02},
    ),
    "dynamics_control_variate": Facts(
        module="asked_again",
        psi="γᵗ (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Cₖ) - V(sₜ))",
        where="C = x - mean of x over M + 1 draws, x = r + γ V(s')",
        source="after Cheng et al. 2020, 1908.03263",
        unbiased_for="J",
        why="for any V fitted to earlier batches",
        variance="that of state_value, the dynamics' part divided by M + 1 if V is accurate",
        critic="V",
        baseline="critic",
        extra_rollout_kind="successors",
    ),
    "lookahead_control_variate": Facts(
        module="asked_again",
        psi="γᵗ (qₜ(a) + 1[a = aₜ] (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Cₖ) - vₜ) / πₜ(a)), for every a",
        where="C = x - v",
        source="after Cheng et al. 2020, 1908.03263",
        unbiased_for="J",
        why="for any V fitted to earlier batches",
        variance="that of the states, the errors of V, and 1 / M of that of the dynamics",
        critic="V",
        baseline="critic",
        psi_depends_on_policy=True,
        extra_rollout_kind="lookahead",
        every_action=True,
    ),
    "vine_value": Facts(
        module="branching",
        psi="γᵗ (Gₜ - V̂ₜ)",
        where="V̂ₜ the mean return of K other episodes from sₜ",
        source="VinePPO; Kazemnejad et al. 2024, 2410.01679",
        unbiased_for="J",
        why="V̂ₜ is independent of the action, given the state",
        variance="that of a perfect critic, plus 1/K of the variance of the return from the state",
        baseline="branches",
        extra_rollout_kind="branches",
        settings={"num_branches": 4},
    ),
    "vine_advantage": Facts(
        module="branching",
        psi="γᵗ (rₜ + γ V̂ₜ₊₁ - V̂ₜ)",
        where="V̂ₜ the mean return of K other episodes from sₜ",
        source="VinePPO; Kazemnejad et al. 2024, 2410.01679",
        unbiased_for="J",
        why="V̂ₜ₊₁ has the mean V(sₜ₊₁), and V̂ₜ is independent of the action",
        variance="only 1/K remains of what follows the successor",
        baseline="branches",
        extra_rollout_kind="branches",
        psi_depends_on_policy=True,
        settings={"num_branches": 4},
    ),
    "vine_action_value": Facts(
        module="branching",
        psi="γᵗ (Gₜₖ - the mean return of the others) / K",
        where="for K actions of the policy in sₜ",
        source="TRPO's vine; Schulman et al. 2015, 1502.05477",
        unbiased_for="J",
        why="an action is compared with returns that are independent of it",
        variance="1/K of that of the action and of what follows it; that of the states",
        baseline="branches",
        extra_rollout_kind="branches",
        psi_depends_on_policy=True,
        settings={"num_branches": 4},
    ),
    "vine_all_action": Facts(
        module="branching",
        psi="γᵗ Ĝₜ(a), for every a",
        where="Ĝ the mean return of K episodes that start with a",
        source="TRPO's vine; Schulman et al. 2015, 1502.05477",
        unbiased_for="J",
        why="Ĝₜ(a) has the mean Q(sₜ, a)",
        variance="none from sampling the action; 1/K of what follows it; that of the states",
        extra_rollout_kind="branches",
        every_action=True,
        psi_depends_on_policy=True,
    ),
    "measure_valued": Facts(
        module="branching",
        psi="γᵗ c (G⁺ - G⁻)",
        where="returns after a⁺ and a⁻, ∂π = c (p⁺ - p⁻) in a parameter of π",
        source="Pflug 1996; Mohamed et al. 2020, 1906.10652",
        unbiased_for="J",
        why="c (p⁺ - p⁻) is the derivative of the action distribution",
        variance="that of a difference of returns with common random numbers; that of the states",
        extra_rollout_kind="branches",
        psi_depends_on_policy=True,
        needs_also="discrete or Gaussian actions",
    ),
    "trajectory_importance": Facts(
        module="off_policy",
        psi="w R",
        where="w = Π_{k<H} ρₖ",
        source="Precup et al. 2000",
        unbiased_for="J",
        why="if the behaviour covers the support of π",
        variance="grows exponentially with the horizon and the distance between the two policies",
        off_policy=True,
        psi_depends_on_policy=True,
        same_on_policy="reinforce",
    ),
    "per_decision_importance": Facts(
        module="off_policy",
        psi="Σ_{k≥t} γᵏ rₖ Π_{i≤k} ρᵢ",
        source="Precup et al. 2000",
        unbiased_for="J",
        why="if the behaviour covers the support of π",
        variance="usually less than trajectory_importance; still exponential in the horizon",
        off_policy=True,
        psi_depends_on_policy=True,
        same_on_policy="reward_to_go",
    ),
    "ratio_only": Facts(
        module="off_policy",
        psi="ρₜ γᵗ Gₜ",
        source="Degris et al. 2012, 1205.4839",
        unbiased_for="no",
        why="off-policy, states and rewards to go are the behaviour's; J on-policy",
        variance="bounded by one ratio",
        off_policy=True,
        psi_depends_on_policy=True,
        same_on_policy="reward_to_go",
    ),
    "actor_critic": Facts(
        module="bootstrapped",
        psi="γᵗ (Σ_{l<n} γˡ rₜ₊ₗ + γⁿ V(sₜ₊ₙ) - V(sₜ))",
        source="A2C, A3C; Mnih et al. 2016, 1602.01783",
        unbiased_for="no",
        why="J only if V is exact or n reaches every episode's termination",
        variance="falls as n falls",
        collect=("episodes", "windows"),
        critic="V",
        baseline="critic",
        reads=("n_step",),
        settings={**_WINDOWS, "n_step": 32},
    ),
    "gae": Facts(
        module="bootstrapped",
        psi="γᵗ Σₗ (γλ)ˡ δₜ₊ₗ",
        where="δₜ = rₜ + γ V(sₜ₊₁) - V(sₜ)",
        source="Schulman et al. 2016, 1506.02438",
        unbiased_for="no",
        why="J only if V is exact, or λ = 1 and every episode terminates",
        variance="falls as λ falls",
        collect=("episodes", "windows"),
        critic="V",
        baseline="critic",
        reads=("gae_lambda",),
        settings=_WINDOWS,
    ),
    "vtrace": Facts(
        module="bootstrapped",
        psi="γᵗ min(1, ρₜ) (rₜ + γ vₜ₊₁ - V(sₜ))",
        where="v the V-trace target, its trace λ min(1, ρ)",
        source="IMPALA; Espeholt et al. 2018, 1802.01561",
        unbiased_for="no",
        why="off-policy it aims at a policy between behaviour and π; on-policy as gae",
        variance="bounded by the truncation",
        collect=("episodes", "windows"),
        critic="V",
        baseline="critic",
        off_policy=True,
        psi_depends_on_policy=True,
        reads=("gae_lambda",),
        settings={**_WINDOWS, "gae_lambda": 1.0},
    ),
    "ppo": Facts(
        module="bootstrapped",
        psi="as gae, times ρₜ while clipping does not bind",
        source="Schulman et al. 2017, 1707.06347",
        unbiased_for="no",
        why="as gae on the first minibatch; after it the states are the old policy's",
        variance="as gae; clipping bounds the ratio's",
        collect=("episodes", "windows"),
        critic="V",
        baseline="critic",
        several_steps=True,
        psi_depends_on_policy=True,
        same_on_policy="gae",
        reads=("gae_lambda", "epsilon"),
        settings=_SEVERAL_STEPS,
    ),
    "reward_weighted_regression": Facts(
        module="target_policies",
        psi="γᵗ exp(Gₜ / η)",
        where="η = `advantage_scale`; exp(·) is at most `ratio_bound`",
        source="RWR; Peters & Schaal 2007",
        unbiased_for="no",
        why="large returns count exponentially more; η times it tends to ∇J as η → ∞",
        variance="that of weights without a baseline, which are never negative",
        several_steps=True,
        regression=True,
        reads=("epsilon", "ratio_bound"),
        settings={  # returns of up to 500
            "num_envs": 20,
            "num_updates": 100,
            "num_epochs": 5,
            "advantage_scale": 50.0,
            "ratio_bound": math.inf,
        },
    ),
    "advantage_weighted_regression": Facts(
        module="target_policies",
        psi="γᵗ exp(Aₜ / η)",
        where="A as gae's, η = `advantage_scale`; exp(·) is at most `ratio_bound`",
        source="AWR; Peng et al. 2019, 1910.00177",
        unbiased_for="no",
        why="good actions count exponentially more; η times it tends to gae as η → ∞",
        variance="bounded by `ratio_bound`",
        collect=("episodes", "windows"),
        critic="V",
        baseline="critic",
        several_steps=True,
        regression=True,
        reads=("gae_lambda", "epsilon", "ratio_bound"),
        settings={**_SEVERAL_STEPS, "advantage_scale": 5.0, "ratio_bound": 20.0},
    ),
    "v_mpo": Facts(
        module="target_policies",
        psi="γᵗ n exp(Aₜ / η) / Σ exp(A / η)",
        where="of the better half of n steps; `max_kl` sets η",
        source="Song et al. 2019, 1909.12238",
        unbiased_for="no",
        why="only the better half counts, and of it the best exponentially more",
        variance="that of a mean over the effective number of steps; in units of the score",
        collect=("episodes", "windows"),
        critic="V",
        baseline="batch",
        several_steps=True,
        regression=True,
        psi_depends_on_policy=True,
        reads=("gae_lambda", "epsilon"),
        settings={**_SEVERAL_STEPS, "max_kl": 0.1, "stop_kl": 0.02},
    ),
    "mdpo": Facts(
        module="target_policies",
        psi="ρₜ (Aₜ - γᵗ η log ρₜ)",
        where="A as gae's Ψ, η = `advantage_scale`",
        source="Tomar et al. 2020, 2005.09814",
        unbiased_for="no",
        why="as gae on the first minibatch; after it the states are the old policy's",
        variance="as gae, times that of the ratio, which only the divergence bounds",
        collect=("episodes", "windows"),
        critic="V",
        baseline="critic",
        several_steps=True,
        psi_depends_on_policy=True,
        same_on_policy="gae",
        reads=("gae_lambda", "epsilon"),
        settings={**_SEVERAL_STEPS, "advantage_scale": 5.0},
    ),
    "gpomdp": Facts(
        module="average_reward",
        psi="Σ_{k≥t} βᵏ⁻ᵗ rₖ",
        where="to the window's end",
        source="Baxter & Bartlett 2001, 1106.0665",
        unbiased_for="no",
        why="it aims at ∇_β η, which tends to ∇η, η the average reward, as β → 1",
        variance="grows as 1 / (1 - β): β is not a discount of the task but a price paid in bias",
        collect=("windows",),
        # CartPole's reward is 1 at every step, whatever is done: its average has no gradient.
        reads=("beta",),
        settings={
            "env": "Catch-bsuite",
            "collect": "windows",
            "num_envs": 32,
            "num_steps": 64,
            "num_updates": 250,
        },
    ),
}


ON_TABLES = tuple(name for name, row in FACTS.items() if row.takes("discrete"))
"""The estimators that tabular problems have, whose actions are discrete: those with exact figures.
The others are for continuous actions alone.
"""


def estimators_with(**facts: Any) -> tuple[str, ...]:
    """Returns the estimators of which these facts hold, as in `estimators_with(critic="V")`."""
    return tuple(
        name
        for name, row in FACTS.items()
        if all(getattr(row, fact) == value for fact, value in facts.items())
    )


UNSTATED = Facts(
    unbiased_for="no",
    collect=("episodes", "windows"),
    critic="V",
    several_steps=True,
    reads=OWN_HYPERPARAMS,
)
"""The facts of an estimator that states none: nothing is refused."""


def listed_name(estimator: Any) -> str | None:
    """The name of an estimator's function in the table; None of one that is not in it."""
    name = getattr(estimator, "__name__", "")
    row = FACTS.get(name) if isinstance(name, str) else None
    if row is None or getattr(estimator, "__module__", "") != f"pg.estimators.{row.module}":
        return None
    return str(name)
