"""The verdict on an estimator: its claims, compared with exact figures on small problems and with
samples of the training rollout.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pg import envs, numerals, rollout
from pg.config import Hyperparams, part_name
from pg.diagnostics import references
from pg.diagnostics.references import Figures, Problem, relative_distance
from pg.diagnostics.samples import z_scores
from pg.estimators import Estimator, Facts, Params, Weighted
from pg.estimators.checks import checked
from pg.estimators.facts import UNSTATED
from pg.estimators.family import Factory
from pg.estimators.names import check_on_tables, facts_of
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.fast import key_numbers
from pg.inputs import count
from pg.rollout import Trajectory

EXACT = 1e-9  # relative distance of two numbers that are equal up to rounding
# Standard errors: a family of 100 checks raises one false alarm in a million draws of the keys.
FAR = 5.7
FEW = 6  # episodes of the batch on which the structure is checked
BATCH = 4  # episodes of a sampled batch, if the mean does not depend on its size
PADDING = 4  # rows after the longest episode
TEMPERATURE = 0.3  # τ for an estimator for J_τ that sets none
KL_COEF = 0.3  # β for an estimator for J_β that sets none
SAMPLED = "random"  # the problem for samples
LARGER = 1000  # factor of its rewards, with which an estimator that clips returns is biased

# The claims that a verdict is about.
CLAIMS = ("unbiased_for", "collect", "critic", "baseline", "off_policy", "shrunk")


class Finding(NamedTuple):
    """One thing that was checked."""

    name: str
    text: str  # in one sentence
    ok: bool = True  # False if a claim fails, or a rule for every estimator
    value: float = math.nan  # the measured distance; NaN if it is not a number
    bound: float = math.nan  # the largest accepted one; NaN if nothing is claimed


class Verdict(NamedTuple):
    """All findings about an estimator."""

    estimator: str
    claims: dict[str, Any]  # fact -> value; {} if none is stated
    facts: Facts  # as stated, with findings on the critic and the comparison of episodes
    findings: tuple[Finding, ...]
    figures: dict[str, Figures]  # problem -> exact figures; {} if the structure fails

    @property
    def ok(self) -> bool:
        """True if nothing fails."""
        return all(finding.ok for finding in self.findings)

    def finding(self, name: str) -> Finding:
        """The finding of this name."""
        return {finding.name: finding for finding in self.findings}[name]


OnPart = Callable[[str], object]  # what is checked now, of how many


def verdict(
    factory: Factory,
    facts: Facts | None = None,
    *,
    gamma: float = 0.9,
    num_episodes: int = 100_000,
    seed: int = 0,
    on_part: OnPart = lambda part: None,
) -> Verdict:
    """Tests the claims of an estimator, on three problems that are small enough for exact figures.

    The mean of an estimate is a sum over every trajectory, or every pair of them where episodes are
    compared. Critics are tables with wrong values: an unbiased estimator is unbiased with any
    critic. The fields of the `Estimator` are claims too. Without stated facts the findings are
    reported, and only the structure can fail: results of another shape, two traces that differ, a
    gradient through `weigh`, padding that counts.

    Args:
        factory: Policy, critic, hyperparameters -> Estimator.
        facts: The claims; default: those stated by `pg.with_facts`, or the row of the table.
        gamma: Discount.
        num_episodes: Number of sampled episodes.
        seed: Seed of the sample.
        on_part: Called with the name of the next check, as in "its mean on chain, 3 of 9".
    """
    num_episodes = count("num_episodes", num_episodes)
    facts = facts_of(factory) if facts is None else facts
    is_stated = facts is not UNSTATED
    name = part_name(factory)
    claims = {fact: getattr(facts, fact) for fact in CLAIMS} if is_stated else {}
    begin = _numbered(on_part)
    with jax.enable_x64(True):
        try:
            begin("its structure")
            check_on_tables(name, facts)
            subject, batch, findings = _found(factory, facts, gamma)
            if not all(finding.ok for finding in findings):
                return Verdict(name, claims, subject.facts, tuple(findings), {})
            findings += _means(subject, batch, begin)
            is_target = subject.claims_target and all(finding.ok for finding in findings)
            begin(f"its mean in {num_episodes:,} samples")
            findings.append(_sampled(subject, num_episodes, seed, is_target=is_target))
            figures = {}
            factory, h = subject.factory, subject.h
            for problem, mdp in tabular.references().items():
                begin(f"its exact variance on {problem}")
                figures[problem] = references.figures(factory, subject.facts, mdp, h)
        except ValueError as error:
            return Verdict(name, claims, facts, (Finding("results", str(error), ok=False),), {})
    return Verdict(name, claims, subject.facts, tuple(findings), figures)


def _numbered(on_part: OnPart) -> OnPart:
    """A function that adds the number of each part of `verdict`, and their total."""
    # structure, other means, samples; and on each problem the mean and the variance
    total = 3 + 2 * len(tabular.references())
    numbers = itertools.count(1)
    return lambda part: on_part(f"{part}, {next(numbers)} of {total}")


def exact_figures(
    factory: Factory, *, gamma: float = 0.9, problems: Mapping[str, TabularMDP] | None = None
) -> dict[str, Figures]:
    """The exact bias, variance and signal-to-noise ratio of an estimator, by problem.

    Facts that `pg.with_facts` has not stated are determined first, as in `verdict`.

    Args:
        factory: Policy, critic, hyperparameters -> Estimator.
        gamma: Discount.
        problems: Small problems by name; default: the three reference problems.

    Raises:
        ValueError: It breaks a rule for every estimator, it is only for continuous actions, or a
            problem is too large.
    """
    problems = tabular.references() if problems is None else problems
    for name, mdp in problems.items():
        references.check_small(f"problem {name!r}", mdp)
    facts = facts_of(factory)
    check_on_tables(part_name(factory), facts)
    with jax.enable_x64(True):
        if facts.module:  # in the table, whose rows the tests prove
            h = references.hyperparams(facts, gamma)
        else:
            subject, _, findings = _found(factory, facts, gamma)
            for finding in findings:
                if not finding.ok:
                    raise ValueError(f"estimator {part_name(factory)!r}: {finding.text}")
            factory, facts, h = subject.factory, subject.facts, subject.h
        return {name: references.figures(factory, facts, mdp, h) for name, mdp in problems.items()}


class _Subject(NamedTuple):
    """An estimator under test."""

    factory: Factory
    facts: Facts  # stated, or as far as determined
    claims: bool  # facts were stated
    h: Hyperparams
    gamma: float

    @property
    def in_episodes(self) -> bool:
        return "episodes" in self.facts.collect

    @property
    def claims_target(self) -> bool:
        return self.claims and self.facts.unbiased_for != "no"

    @property
    def target(self) -> str:
        """The name of the gradient that the mean is compared with."""
        if not self.in_episodes:
            return "H ∇η"
        if float(self.h.kl_coef):
            return "∇J_β"
        return "∇J_τ" if self.facts.unbiased_for == "J_τ" else "∇J"

    def stating(self, **facts: Any) -> "_Subject":
        """The same with other facts."""
        return self._replace(facts=dataclasses.replace(self.facts, **facts))

    def on(self, mdp: TabularMDP) -> Problem:
        """The problem of an MDP, with wrong critics."""
        problem = references.arbitrary(mdp)
        return problem if self.in_episodes else references.in_windows(problem)

    def build(self, problem: Problem) -> tuple[Estimator, Params]:
        """The estimator, and its parameters."""
        facts = self.facts
        return references.build(self.factory, problem, facts.critic, self.h, facts.outcome)

    def truth(self, problem: Problem) -> Float[np.ndarray, "S A"]:
        """The gradient that the mean is compared with."""
        if not self.in_episodes:
            return references.window_gradient(problem)
        tau = self.h.temperature if self.facts.unbiased_for == "J_τ" else 0.0
        return references.gradient(problem, self.h, tau)

    def mean(self, problem: Problem, state: PyTree = None) -> Float[np.ndarray, "S A"]:
        """The exact mean of an estimate. state: the estimator's; default: the first."""
        estimator, params = self.build(problem)
        if state is not None:
            estimator = estimator._replace(init=lambda key: (params, state))
        found, _ = references.moments(estimator, params, problem, self.facts)
        return found.reshape(problem.logits.shape)

    def collect(
        self, problem: Problem, key: PRNGKeyArray, num_episodes: int, group_size: int
    ) -> Trajectory:
        """Episodes from the training rollout, or windows from the stationary distribution of the
        chain.

        Args:
            problem: The problem.
            key: A random key.
            num_episodes: Number of episodes.
            group_size: Episodes of a group, if no facts state the grouping.
        """
        logits = jnp.asarray(references.acting(problem, self.facts))
        env, policy = envs.make_env(problem.mdp, num_episodes), tabular.table_policy(logits)

        def sampled(key: PRNGKeyArray) -> Trajectory:
            if self.in_episodes:
                together = 2 if self.facts.baseline == "group" else 1
                estimator, _ = self.build(problem)
                return rollout.episodes(
                    env,
                    policy,
                    logits,
                    key,
                    group_size=together,
                    extra_rollouts=estimator.extra_rollouts,
                    num_branches=references.num_branches(estimator),
                )
            start_key, key = jax.random.split(key)
            begin = rollout.start(env, policy, start_key)
            return rollout.windows(env, policy, logits, key, begin, problem.mdp.horizon).traj

        traj = jax.jit(sampled)(key)
        if isinstance(traj.group, tuple):
            number = jnp.arange(num_episodes, dtype=jnp.int32) // group_size
            traj = traj._replace(group=jnp.broadcast_to(number[None], traj.reward.shape))
        return traj


class _Estimate(NamedTuple):
    """The estimate of a batch."""

    grads: Params
    state: PyTree


def _in_double(factory: Factory) -> Factory:
    """The factory whose estimators have 64-bit floats in their state, like all others here: a state
    made with 32 bits would change its type.
    """

    def double(state: PyTree) -> PyTree:
        def cast(x: Any) -> Any:
            is_float = jnp.issubdtype(jnp.result_type(x), jnp.floating)
            return jnp.asarray(x, jnp.float64) if is_float else x

        return jax.tree.map(cast, state)

    def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = function(*args)
            is_pair = isinstance(result, tuple) and len(result) == 2
            return (result[0], double(result[1])) if is_pair else result

        return call

    @functools.wraps(factory)
    def make(policy: Any, critic: Any, h: Hyperparams) -> Any:
        made = factory(policy, critic, h)
        if not isinstance(made, Estimator):  # reported by `checked`
            return made
        return made._replace(init=doubled(made.init), weigh=doubled(made.weigh))

    return make


def _found(
    factory: Factory, facts: Facts, gamma: float
) -> tuple[_Subject, Trajectory, list[Finding]]:
    """The estimator, with facts determined if none are stated, a few episodes, and the findings on
    its structure.

    Raises ValueError if its results are wrong.
    """
    subject, batch = _examined(checked(_in_double(factory)), facts, gamma)
    findings, coupled = _structure(subject, batch)
    if coupled and not subject.facts.depends_on_batch:
        subject = subject.stating(baseline="batch")
    return subject, batch, findings


def _examined(factory: Factory, facts: Facts, gamma: float) -> tuple[_Subject, Trajectory]:
    """The estimator, with the facts needed to run it, and a few episodes.

    Raises ValueError if its results are wrong.
    """
    mdp = tabular.references()[SAMPLED]
    claims = facts is not UNSTATED
    if not claims:
        plain, _ = references.build(factory, references.arbitrary(mdp), facts.critic, Hyperparams())
        ways = tuple(way for way in facts.collect if way in plain.accepts)
        facts = dataclasses.replace(facts, collect=ways)
    h = references.hyperparams(facts, gamma)
    if facts.unbiased_for == "J_τ" and not h.temperature:
        h = h._replace(temperature=TEMPERATURE)
    if facts.unbiased_for == "J_β" and not h.kl_coef:
        h = h._replace(kl_coef=KL_COEF)
    subject = _Subject(factory, facts, claims, h, gamma)
    mistake: ValueError | None = None
    # A critic of states is tried first if none is stated.
    others = {"Q": ("Q", "V"), "hindsight": ("hindsight",)}
    for critic in others.get(facts.critic, ("V", "Q")):
        candidate = subject if facts.critic == critic else subject.stating(critic=critic)
        problem = candidate.on(mdp)
        batch = candidate.collect(problem, jax.random.key(1), FEW, group_size=2)
        try:
            jax.eval_shape(functools.partial(_estimate, candidate, problem), batch)
        except ValueError as error:
            mistake = mistake or error
        else:
            has_critic = bool(jax.tree.leaves(candidate.build(problem)[1].critic))
            return candidate if has_critic else candidate.stating(critic="none"), batch
    raise mistake or AssertionError("one of them was tried")


def _estimate(
    subject: _Subject, problem: Problem, traj: Trajectory, state: PyTree = None
) -> _Estimate:
    """The estimate of a batch, by a new estimator."""
    estimator, params = subject.build(problem)
    state = estimator.init(jax.random.key(0))[1] if state is None else state
    weighted, after = estimator.weigh(params, state, traj)
    return _Estimate(estimator.grad(params, weighted)[0], after)


def _structure(subject: _Subject, batch: Trajectory) -> tuple[list[Finding], bool]:
    """The findings on the rules for every estimator, and True if the episodes of a batch are
    compared.
    """
    problem = subject.on(tabular.references()[SAMPLED])

    def estimated(traj: Trajectory) -> _Estimate:
        return jax.jit(lambda traj: _estimate(subject, problem, traj))(traj)

    first = estimated(batch)
    if not all(np.isfinite(x).all() for x in _numbers(first.grads)):
        return [Finding("results", "the gradient is not finite", ok=False)], False
    findings = [Finding("results", "init, weigh and grad have valid results")]
    findings.append(_purity(first, estimated(batch)))
    findings.append(_leak(subject, problem, batch))
    if subject.in_episodes:
        findings.append(_padding(first, estimated(_padded(batch))))
    coupled = _is_coupled(subject, problem, batch, first)
    findings.append(_separable(subject, problem, batch, coupled=coupled))
    if subject.in_episodes and "windows" in subject.facts.collect and not coupled:
        findings.append(_windows(subject, problem))
    return findings, coupled


def _is_coupled(subject: _Subject, problem: Problem, batch: Trajectory, whole: _Estimate) -> bool:
    """True unless the estimate of a batch is the mean of those of its single episodes."""
    each = jax.jit(jax.vmap(lambda traj: _estimate(subject, problem, traj).grads, in_axes=1))
    try:
        alone = each(jax.tree.map(lambda x: x[:, :, None], batch))
    except ValueError:  # e.g. a baseline that needs other episodes
        return True
    return _distance(whole.grads, jax.tree.map(lambda x: x.mean(0), alone)) > EXACT


def _purity(first: _Estimate, second: _Estimate) -> Finding:
    """Two traces of a function must give the same program."""
    gap = _distance(first, second)
    text = "two traces give the same numbers"
    if gap:
        text = (
            "two traces give different numbers: init, weigh and grad must depend only on their "
            "arguments, and keep nothing between calls but the state that weigh returns"
        )
    return Finding("purity", text, gap == 0.0, gap, 0.0)


def _leak(subject: _Subject, problem: Problem, batch: Trajectory) -> Finding:
    """The derivative of `weigh`'s results, along a random direction of the parameters."""
    estimator, params = subject.build(problem)
    state = estimator.init(jax.random.key(0))[1]
    g = np.random.default_rng(0)
    direction = jax.tree.map(lambda x: jnp.asarray(g.normal(size=x.shape), x.dtype), params)

    def weighed(params: Params) -> list[Array]:
        leaves = jax.tree.leaves(estimator.weigh(params, state, batch))
        return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]

    _, tangents = jax.jit(lambda: jax.jvp(weighed, (params,), (direction,)))()
    size = max(float(jnp.abs(x).max(initial=0.0)) for x in tangents)
    text = "weigh's results are constant in the parameters"
    if size:
        text = (
            "weigh's results depend on the parameters: wrap them in jax.lax.stop_gradient, or "
            "make the estimator with pg.build_estimator"
        )
    return Finding("leak", text, size == 0.0, size, 0.0)


def _padded(batch: Trajectory) -> Trajectory:
    """The same episodes with a longer horizon, and with data of others in the invalid rows."""
    length = len(batch.reward)
    rows = jnp.arange(length + PADDING) % length
    # of the next episode, in which other rows are valid
    other = jax.tree.map(lambda x: jnp.roll(x, 1, axis=1)[rows], batch)
    longer = jax.tree.map(lambda x: x[jnp.minimum(jnp.arange(length + PADDING), length - 1)], batch)
    within = (jnp.arange(length + PADDING) < length)[:, None]
    valid = longer.valid & within

    def padded(x: Array, y: Array) -> Array:
        return jnp.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, y)

    traj = jax.tree.map(padded, longer, other)
    return traj._replace(
        reward=jnp.where(valid, traj.reward, 0.0),
        terminated=traj.terminated & valid,
        truncated=traj.truncated & valid,
        first=traj.first & valid,
        valid=valid,
        group=longer.group,
        # greedy episodes end at other steps
        greedy=jax.tree.map(lambda x: jnp.where(within, x, 0), longer.greedy),
    )


def _padding(plain: _Estimate, padded: _Estimate) -> Finding:
    """An episode's estimate must not depend on the rows after its end."""
    gap = _distance(plain, padded)
    text = "a longer horizon and other numbers in invalid rows change nothing"
    if not gap <= EXACT:
        text = (
            "the rows after an episode's end have an effect: sum where traj.valid is True, and "
            "divide by nothing that grows with the horizon, as in a mean over T"
        )
    return Finding("padding", text, gap <= EXACT, gap, EXACT)


def _separable(subject: _Subject, problem: Problem, batch: Trajectory, *, coupled: bool) -> Finding:
    """The claim `Estimator.separable`: a weighted batch's gradient is the mean of its episodes'."""
    compares = "weigh compares the episodes of a batch" if coupled else "episodes are independent"
    estimator, params = subject.build(problem)
    if not estimator.separable:
        return Finding("separable", f"the estimator is declared not separable; {compares}")

    def both(traj: Trajectory) -> tuple[Params, Params]:
        weighted, _ = estimator.weigh(params, estimator.init(jax.random.key(0))[1], traj)

        def alone(episode: Weighted) -> Params:
            return estimator.grad(params, jax.tree.map(lambda x: x[:, None], episode))[0]

        means = jax.tree.map(lambda x: x.mean(0), jax.vmap(alone, in_axes=1)(weighted))
        return estimator.grad(params, weighted)[0], means

    try:
        gap = _distance(*jax.jit(both)(batch))
    except ValueError:  # e.g. a baseline that needs other episodes
        gap = math.inf
    text = f"the gradient of a weighted batch is the mean of its episodes'; {compares}"
    if not gap <= EXACT:
        text = (
            "the gradient of a weighted batch is not the mean of its episodes': average over "
            "episodes, compare them in weigh instead of grad, or say "
            "estimator._replace(separable=False)"
        )
    return Finding("separable", text, gap <= EXACT, gap, EXACT)


def _windows(subject: _Subject, problem: Problem) -> Finding:
    """Two episodes of a window must not affect one another: one that terminates and one that is
    truncated, in both orders.
    """
    logits = jnp.asarray(references.acting(problem, subject.facts))
    traj, _ = tabular.enumerate_trajectories(problem.mdp, logits)
    length, ends = np.asarray(traj.valid.sum(0)), np.asarray(traj.terminated.any(0))
    short, long = (
        jax.tree.map(lambda x, n=n, at=at: x[:n, at][:, None], traj)
        for n, at in (
            (2, np.flatnonzero(ends & (length == 2))[0]),
            (3, np.flatnonzero(~ends & (length == 3))[0]),
        )
    )
    first = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), short, long)
    second = jax.tree.map(lambda x, y: jnp.concatenate([y, x]), short, long)
    window = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), first, second)

    def sums() -> tuple[Params, Params]:
        whole = _estimate(subject, problem, window).grads
        parts = [_estimate(subject, problem, episode).grads for episode in (short, long)]
        return whole, jax.tree.map(jnp.add, *parts)

    gap = _distance(*jax.jit(sums)())
    apart = gap <= EXACT
    text = "the episodes of a window do not affect one another"
    if not apart:
        text = (
            "an episode of a window depends on the one after it: end sums and traces at traj.done, "
            'or say collect=("episodes",)'
        )
    return Finding("windows", text, apart or not subject.claims, gap, EXACT)


def _means(subject: _Subject, batch: Trajectory, begin: OnPart) -> list[Finding]:
    """The findings on the exact mean."""
    problems = {name: subject.on(mdp) for name, mdp in tabular.references().items()}
    means = {}
    for name, problem in problems.items():
        begin(f"its exact mean on {name}")
        means[name] = subject.mean(problem)
    errors = {
        name: relative_distance(means[name], subject.truth(problem))
        for name, problem in problems.items()
    }
    begin("its exact mean elsewhere")
    problem, mean = problems[SAMPLED], means[SAMPLED]
    findings = [_bias(subject, problems, mean, errors)]
    unbiased = max(errors.values()) <= EXACT
    if unbiased:
        findings.append(_scale(subject))
    state = _estimate(subject, problem, batch).state
    if jax.tree.leaves(state) and (unbiased or subject.claims_target):
        findings.append(_later(subject, problem, batch, state))
    discount = _discount(subject, problem, mean)
    estimator, _ = subject.build(problem)
    if subject.facts.critic != "none" and subject.in_episodes and not unbiased:
        finding, exact_discount = _exact_critic(subject, problem)
        findings.append(finding)
        discount = discount or exact_discount
    if discount is not None:
        findings.append(_state_discount(float(np.asarray(estimator.state_discount)), discount))
    return findings


def _bias(
    subject: _Subject,
    problems: Mapping[str, Problem],
    mean: Float[np.ndarray, "S A"],
    errors: Mapping[str, float],
) -> Finding:
    """The exact mean, and that on the problem for samples, compared with the claimed gradient."""
    worst, problem = max(errors.values()), problems[SAMPLED]
    places, target = ", ".join(errors), subject.target
    unbiased = worst <= EXACT
    if unbiased:
        text = f"the exact mean is {target} on {places}"
        if subject.in_episodes:
            low, high = _returns(problems)
            text += f", with returns from {low:.2g} to {high:.2g}"
        if not subject.claims_target and target == "∇J":
            text += (
                ": no bias on these, and unbiased_for='J' would claim that there is none elsewhere"
            )
        return Finding("mean", text, True, worst, EXACT if subject.claims_target else math.nan)
    off = ", ".join(f"{_percent(error)} on {name}" for name, error in errors.items())
    text = f"the exact mean is off {target} by {off}{_likeness(subject, problem, mean)}"
    if subject.facts.critic != "none":
        text += ", with a wrong critic"
    if subject.claims_target:
        text = f"unbiased_for={subject.facts.unbiased_for!r} is claimed, and {text}"
        return Finding("mean", text, False, worst, EXACT)
    if subject.claims and subject.facts.shrunk:
        parallel = _is_multiple(mean, subject.truth(problem))
        return Finding("mean", text, parallel, worst)
    return Finding("mean", text, True, worst)


def _returns(problems: Mapping[str, Problem]) -> tuple[float, float]:
    """The lowest and the highest return of an episode, undiscounted."""
    totals = []
    for problem in problems.values():
        traj, _ = tabular.enumerate_trajectories(problem.mdp, jnp.asarray(problem.logits))
        totals.append(np.asarray(traj.reward).sum(axis=0))
    every = np.concatenate(totals)
    return float(every.min()), float(every.max())


def _scale(subject: _Subject) -> Finding:
    """The exact mean with far larger rewards: a bias that small returns hide."""
    mdp = tabular.references()[SAMPLED]
    larger = TabularMDP(mdp.transition, LARGER * mdp.reward, mdp.initial, mdp.terminal, mdp.horizon)
    problem = subject.on(larger)
    error = relative_distance(subject.mean(problem), subject.truth(problem))
    ok = error <= EXACT
    text = f"it is {subject.target} on {SAMPLED} with {LARGER:,} times the rewards too"
    if not ok:
        text = (
            f"with {LARGER:,} times the rewards the exact mean is off {subject.target} by "
            f"{_percent(error)} on {SAMPLED}: it depends on the size of the returns, as it does "
            "where they are clipped"
        )
    bound = EXACT if subject.claims_target else math.nan
    return Finding("scale", text, ok or not subject.claims_target, error, bound)


def _likeness(subject: _Subject, problem: Problem, mean: Float[np.ndarray, "S A"]) -> str:
    """The end of a sentence: another name for the mean, if it has one."""
    truth = subject.truth(problem)
    if _is_multiple(mean, truth):
        return f": it is {np.vdot(mean, truth) / np.vdot(truth, truth):.3g} times that"
    if _discount(subject, problem, mean) == 1.0:
        return ": γᵗ is missing, the weight of a state at step t"
    return ""


def _later(subject: _Subject, problem: Problem, batch: Trajectory, state: PyTree) -> Finding:
    """The exact mean from the state after two batches, which the current batch must not affect."""
    state = _estimate(subject, problem, batch, state).state
    error = relative_distance(subject.mean(problem, state), subject.truth(problem))
    ok = error <= EXACT
    text = f"it is {subject.target} from the state after two batches too"
    if not ok:
        text = (
            f"from the state after two batches the exact mean is off {subject.target} by "
            f"{_percent(error)}"
        )
    bound = EXACT if subject.claims_target else math.nan
    return Finding("later_state", text, ok or not subject.claims_target, error, bound)


def _exact_critic(subject: _Subject, problem: Problem) -> tuple[Finding, float | None]:
    """The exact mean with the exact critic, on the policy's own episodes; and `_discount` of it."""
    own = subject.stating(off_policy=False)
    exact = references.with_exact_critics(problem, subject.gamma)
    mean = own.mean(exact)
    error = relative_distance(mean, own.truth(exact))
    if error <= EXACT:
        text = f"with the exact critic its mean is {subject.target}"
    else:
        text = f"with the exact critic its mean is off {subject.target} by {_percent(error)}"
        text += _likeness(own, exact, mean)
    return Finding("exact_critic", text, True, error), _discount(own, exact, mean)


def _discount(subject: _Subject, problem: Problem, mean: Float[np.ndarray, "S A"]) -> float | None:
    """γ of the weight γᵗ of the states in a mean; None if it has neither form."""
    if not subject.in_episodes:
        return None
    gamma, logits = subject.gamma, jnp.asarray(problem.logits)
    if _is_multiple(mean, subject.truth(problem)):
        return gamma
    without = np.asarray(tabular.undiscounted_direction(problem.mdp, logits, gamma))
    return 1.0 if _is_multiple(mean, without) else None


def _state_discount(stated: float, found: float) -> Finding:
    """The claim `Estimator.state_discount`, which the natural gradient relies on."""
    gap = abs(stated - found)
    text = f"a state at step t has weight {found:g}ᵗ, as state_discount says"
    if gap > EXACT:
        text = (
            f"a state at step t has weight {found:g}ᵗ in the mean, and state_discount says "
            f"{stated:g}: say state_discount={'h.gamma' if found < 1.0 else '1.0'}"
        )
    return Finding("state_discount", text, gap <= EXACT, gap, EXACT)


def _sampled(subject: _Subject, num_episodes: int, seed: int, *, is_target: bool) -> Finding:
    """The mean over samples of the training rollout, compared with the exact one.

    Args:
        subject: The estimator.
        num_episodes: Number of sampled episodes.
        seed: Seed of the sample.
        is_target: The exact mean is the claimed gradient, for batches of any size.
    """
    problem = subject.on(tabular.references()[SAMPLED])
    size = references.batch_size(subject.facts)
    if is_target:
        expected, name, size = subject.truth(problem), subject.target, BATCH
    else:
        expected, name = subject.mean(problem), "the exact mean"
    num_episodes = max(2, num_episodes // size) * size
    traj = subject.collect(problem, jax.random.key(seed), num_episodes, group_size=size)
    estimator, params = subject.build(problem)
    state = estimator.init(jax.random.key(0))[1]
    z = float(np.abs(z_scores(estimator, params, state, traj, size, expected)).max())
    distance = "∞" if math.isinf(z) else f"{z:.2g}"
    text = (
        f"the mean of {num_episodes:,} sampled episodes is within {distance} standard errors of "
        f"{name}"
    )
    return Finding("sampled", text, z <= FAR, z, FAR)


def _is_multiple(x: Float[np.ndarray, "*P"], direction: Float[np.ndarray, "*P"]) -> bool:
    """True if x is a positive multiple of a direction, up to rounding."""
    scale = np.vdot(x, direction) / np.vdot(direction, direction)
    return bool(
        scale > EXACT and np.linalg.norm(x - scale * direction) <= EXACT * np.linalg.norm(x)
    )


def _numbers(tree: PyTree) -> list[np.ndarray]:
    """The leaves as arrays of numbers, keys as their data."""
    return [np.asarray(x) for x in jax.tree.leaves(key_numbers.as_numbers(tree))]


def _distance(x: PyTree, y: PyTree) -> float:
    """The largest distance of two trees of numbers, over the largest number; ∞ for a NaN in one."""
    size = gap = 0.0
    for a, b in zip(_numbers(x), _numbers(y), strict=True):
        a, b = a.astype(np.float64), b.astype(np.float64)
        if np.isnan(a).any() or np.isnan(b).any():
            return 0.0 if np.array_equal(a, b, equal_nan=True) else math.inf
        size = max(size, np.abs(a).max(initial=0.0))
        gap = max(gap, np.abs(a - b).max(initial=0.0))
    return float(gap / size) if gap else 0.0


def _percent(error: float) -> str:
    """A relative distance in words."""
    return "0 %" if error <= EXACT else f"{numerals.number(100.0 * error, 2)} %"
