"""The means of policy gradients over sequences, by loops over every group of a small prefix tree.

Written without the estimators: every sequence's contribution is a coefficient of ∇log π at each of
its tokens, from the formulas of the papers, with the derivative of each clip worked out by hand.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pg.exact.tabular import TabularMDP

TOKENS, LONGEST, PROMPTS = 3, 3, 2
END = 0  # the token that ends a sequence
EPSILON, EPSILON_HIGH, BOUND, RISING, FALLING, BETA = 0.2, 0.3, 1.4, 1.0, 1.7, 0.4


class Tree(NamedTuple):
    """Every sequence of a prefix tree, and the tree as an MDP."""

    mdp: TabularMDP
    sequences: list[tuple[int, tuple[int, ...]]]  # prompt and tokens
    states: list[list[int]]  # the state before each of the tokens
    rewards: np.ndarray  # [M]


def _prefixes(num_tokens: int, longest: int) -> Iterator[tuple[int, ...]]:
    """The prefixes that continue, shortest first."""
    for length in range(longest):
        yield from itertools.product(range(1, num_tokens), repeat=length)


def tree(seed: int = 0, num_tokens: int = TOKENS, longest: int = LONGEST) -> Tree:
    """Two prompts, tokens of which one ends, at most so many of them, and a reward of the whole
    sequence.
    """
    g = np.random.default_rng(seed)
    prefixes = list(_prefixes(num_tokens, longest))
    nodes = [(prompt, prefix) for prompt in range(PROMPTS) for prefix in prefixes]
    number = {node: i for i, node in enumerate(nodes)}
    over = len(nodes)
    transition = np.zeros((over + 1, num_tokens, over + 1))
    reward = np.zeros((over + 1, num_tokens))
    transition[over, :, over] = 1.0
    sequences, states, rewards = [], [], []
    for (prompt, prefix), state in number.items():
        for token in range(num_tokens):
            tokens = (*prefix, token)
            after = over if token == END else number.get((prompt, tokens), over)
            transition[state, token, after] = 1.0
            if after == over:
                reward[state, token] = g.normal()
                path = [number[prompt, tokens[:t]] for t in range(len(tokens))]
                sequences.append((prompt, tokens))
                states.append(path)
                rewards.append(reward[state, token])
    initial = np.zeros(over + 1)
    initial[[number[prompt, ()] for prompt in range(PROMPTS)]] = [0.4, 0.6]
    terminal = np.arange(over + 1) == over
    mdp = TabularMDP(transition, reward, initial, terminal, longest)
    return Tree(mdp, sequences, states, np.array(rewards))


class Sequence(NamedTuple):
    """One sequence of a group."""

    states: list[int]
    tokens: tuple[int, ...]
    reward: float
    greedy: float  # the reward of the behaviour's greedy sequence for the same prompt
    own: np.ndarray  # log π of its tokens
    behaviour: np.ndarray  # log μ of them
    reference: np.ndarray  # log π_ref of them


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mean(
    t: Tree,
    logits: np.ndarray,
    behaviour: np.ndarray,
    reference: np.ndarray,
    size: int,
    num_groups: int = 1,
    temperature: float = 0.0,
    **s: Any,
) -> np.ndarray:
    """E ĝ of batches of groups of `size` sequences of one prompt by `behaviour`, [S, A].

    With a temperature τ each token is rewarded with -τ log π. s: the switches.
    """
    # a weight that is adapted is that of `kl_coef` on the first batch, and a metric is no gradient
    s = {name: value for name, value in s.items() if name not in ("kl_control", "kl_metrics")}
    log_pi, log_mu, log_ref = (log_softmax(x) for x in (logits, behaviour, reference))
    starts = t.mdp.initial[t.mdp.initial > 0]
    greedy = _greedy_rewards(t, behaviour)
    groups = []  # with their probabilities
    for prompt in range(PROMPTS):
        members = []
        for m, (own_prompt, tokens) in enumerate(t.sequences):
            if own_prompt != prompt:
                continue
            at = (t.states[m], list(tokens))
            members.append(
                Sequence(
                    t.states[m],
                    tokens,
                    t.rewards[m],
                    greedy[prompt],
                    log_pi[at],
                    log_mu[at],
                    log_ref[at],
                )
            )
        for group in itertools.product(members, repeat=size):
            probability = starts[prompt] * np.exp(sum(y.behaviour.sum() for y in group))
            groups.append((probability, list(group)))
    total = np.zeros_like(logits)
    for batch in itertools.product(groups, repeat=num_groups):
        probability = np.prod([each[0] for each in batch])
        members = [each[1] for each in batch]
        total += probability * _estimate(
            members, log_pi, log_ref, t.mdp.horizon, temperature=temperature, **s
        )
    return total


def _greedy_rewards(t: Tree, behaviour: np.ndarray) -> list[float]:
    """The reward of the sequence of most probable tokens, by prompt."""
    rewards = []
    for prompt in range(PROMPTS):
        own = [m for m, (of_prompt, _) in enumerate(t.sequences) if of_prompt == prompt]
        (greedy,) = [m for m in own if t.sequences[m][1] == _greedy_tokens(t, behaviour, m)]
        rewards.append(t.rewards[greedy])
    return rewards


def _greedy_tokens(t: Tree, behaviour: np.ndarray, m: int) -> tuple[int, ...]:
    """The most probable tokens after the prefixes of a sequence."""
    return tuple(int(behaviour[state].argmax()) for state in t.states[m])


def _estimate(
    groups: list[list[Sequence]],
    log_pi: np.ndarray,
    log_ref: np.ndarray,
    longest: int,
    *,
    baseline: str = "leave_one_out",
    scale: str = "none",
    credit: str = "total",
    average: str = "sum",
    ratio: str = "none",
    clip: str = "none",
    self_normalised: str = "none",
    kl: str = "none",
    kl_place: str = "reward",
    kl_ratio: bool = False,
    temperature: float = 0.0,
) -> np.ndarray:
    """The estimate of one batch, [S, A]."""
    pi = np.exp(log_pi)
    batch = [y for group in groups for y in group]
    N, G = len(batch), len(groups[0])
    lengths = np.array([len(y.tokens) for y in batch])
    # a step's penalty in the reward
    penalties = [temperature * y.own for y in batch]
    if kl != "none" and kl_place == "reward":
        for penalty, y in zip(penalties, batch, strict=True):
            penalty += BETA * _value(kl, y, log_pi, log_ref)
    rewards = np.array([y.reward - p.sum() for y, p in zip(batch, penalties, strict=True)])
    own_group = [slice(n // G * G, n // G * G + G) for n in range(N)]
    own_rewards = [rewards[own] for own in own_group]
    own_lengths = [lengths[own] for own in own_group]
    others = [np.mean(np.delete(own_rewards[n], n % G)) if G > 1 else 0.0 for n in range(N)]
    compared = {
        "none": np.zeros(N),
        "mean": np.array([r.mean() for r in own_rewards]),
        "batch": np.full(N, rewards.mean()),
        "leave_one_out": np.array(others),
        "shrinkage": _shrunk(np.array(others), rewards.reshape(-1, G)),
        "greedy": np.array([y.greedy for y in batch]),
        "length_weighted": np.array(
            [
                (size * r).sum() / size.sum()
                for r, size in zip(own_rewards, own_lengths, strict=True)
            ]
        ),
    }[baseline]
    spread = rewards
    if credit == "to_go" and baseline == "batch":
        to_go = [
            y.reward - p[k:].sum()
            for y, p in zip(batch, penalties, strict=True)
            for k in range(len(p))
        ]
        spread = np.array(to_go)
        compared = np.full(N, spread.mean())
    deviation = {
        "none": np.ones(N),
        "group": np.array([_deviation(own) for own in own_rewards]),
        "batch": np.full(N, _deviation(spread)),
    }[scale]
    in_groups = baseline not in ("none", "batch", "greedy")
    in_groups = in_groups or "group" in (scale, self_normalised)
    divisors = {
        "sum": np.ones(N),
        "sequence": lengths,
        "token": np.array([(size if in_groups else lengths).mean() for size in own_lengths]),
        "constant": np.full(N, longest),
    }[average]
    shares = _self_normalised(batch, ratio, clip, self_normalised)
    total = np.zeros_like(log_pi)
    for n, y in enumerate(batch):
        L = lengths[n]
        log_rho = y.own - y.behaviour
        level = {
            "none": np.zeros(L),
            "token": log_rho,
            "sequence": np.full(L, log_rho.sum()),
            "sequence_mean": np.full(L, log_rho.sum() / L),
            "per_decision": np.cumsum(log_rho),
        }[ratio]
        for k in range(L):
            followed = rewards[n] if credit == "total" else y.reward - penalties[n][k:].sum()
            psi = (followed - compared[n]) / deviation[n] / divisors[n]
            if ratio == "per_decision":
                weights = [_slope(clip, np.exp(log_rho[: i + 1].sum()), 0.0) for i in range(L)]
                weights = [w / shares(n, i) for i, w in enumerate(weights)]
                # the reward of the sequence comes with its last token
                paid = [y.reward * (i == L - 1) - penalties[n][i] for i in range(k, L)]
                psi = sum(w * r for w, r in zip(weights[k:], paid, strict=True))
                psi -= weights[k] * compared[n]
                coefficient = psi / deviation[n] / divisors[n]
            else:
                coefficient = psi * _slope(clip, np.exp(level[k]), psi) / shares(n, k)
            score = -pi[y.states[k]]
            score[y.tokens[k]] += 1.0
            total[y.states[k]] += coefficient * score
            if kl == "none" or kl_place == "reward":
                continue
            ell = y.own - y.reference
            if kl_place == "sequence":
                # a constant divides the penalty too, a length does not
                divisor = longest if average == "constant" else 1.0
                total[y.states[k]] -= BETA / divisor * _derivative(kl, ell.sum()) * score
            elif kl == "full":
                gap = log_pi[y.states[k]] - log_ref[y.states[k]]
                divergence = pi[y.states[k]] @ gap
                slope = pi[y.states[k]] * (gap - divergence)
                weight = np.exp(log_rho[k]) if kl_ratio else 1.0
                slope = weight * (slope + (divergence * score if kl_ratio else 0.0))
                total[y.states[k]] -= BETA / divisors[n] * slope
            else:
                slope = _derivative(kl, ell[k])
                if kl_ratio:
                    slope = np.exp(log_rho[k]) * (slope + _number(kl, ell[k]))
                total[y.states[k]] -= BETA / divisors[n] * slope * score
    return total / N


def _shrunk(others: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """The means of the others in the group, [N], towards the means of the other groups, of rewards
    [groups, G].
    """
    size = rewards.shape[1]
    baseline = others.copy()
    for n in range(len(others)):
        elsewhere = np.delete(rewards, n // size, axis=0)
        if len(elsewhere) < 2 or size < 2:
            continue
        means = [group.mean() for group in elsewhere]
        v2 = np.mean([group.var(ddof=1) / size for group in elsewhere])
        s2 = np.var(means)
        share = v2 / (v2 + s2) if v2 > 1e-24 else 0.0
        baseline[n] += share * (np.mean(means) - others[n])
    return baseline


def _deviation(values: np.ndarray) -> float:
    """Standard deviation; infinite where all agree, from which nothing is learned."""
    return float(values.std()) if np.ptp(values) > 1e-12 else np.inf


def _self_normalised(
    group: list[Sequence], ratio: str, clip: str, self_normalised: str
) -> Callable[[int, int], float]:
    """The mean weight by which that of a step is divided: sequence, step -> number."""
    if self_normalised == "none":
        return lambda n, k: 1.0
    rho = [np.exp(y.own - y.behaviour) for y in group]

    def weight(m: int, k: int) -> float:
        """The weight of sequence m at step k, or at its end if that is earlier."""
        if ratio == "per_decision":
            return _slope(clip, float(np.prod(rho[m][: k + 1])), 0.0)
        power = len(rho[m]) if ratio == "sequence_mean" else 1
        return _slope(clip, float(np.prod(rho[m]) ** (1 / power)), 0.0)

    def mean(n: int, k: int) -> float:
        if ratio == "token":
            every = [_slope(clip, float(x), 0.0) for of_one in rho for x in of_one]
        else:
            every = [weight(m, k) for m in range(len(group))]
        return float(np.mean(every)) or 1.0

    return mean


def _value(kl: str, y: Sequence, log_pi: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
    """The KL estimate at each token."""
    if kl == "full":
        gap = log_pi[y.states] - log_ref[y.states]
        return (np.exp(log_pi[y.states]) * gap).sum(-1)
    return np.array([_number(kl, ell) for ell in y.own - y.reference])


def _number(kl: str, ell: float) -> float:
    return {"k1": ell, "k2": ell**2 / 2, "k3": np.exp(-ell) - 1 + ell}[kl]


def _derivative(kl: str, ell: float) -> float:
    """d k / d ℓ."""
    return {"k1": 1.0, "k2": ell, "k3": 1 - np.exp(-ell)}[kl]


def _slope(clip: str, rho: float, psi: float) -> float:
    """The coefficient of Ψ ∇log π that a clip leaves of the ratio."""
    high = EPSILON if clip in ("symmetric", "dual") else EPSILON_HIGH
    too_high, too_low = rho > 1 + high, rho < 1 - EPSILON
    if clip in ("symmetric", "asymmetric"):
        return 0.0 if (psi > 0 and too_high) or (psi < 0 and too_low) else rho
    if clip == "dual":
        stopped = (psi > 0 and too_high) or (psi < 0 and (too_low or rho > BOUND))
        return 0.0 if stopped else rho
    if clip == "weight":
        return min(max(rho, 1 - EPSILON), 1 + high)
    if clip == "truncated":
        return min(rho, BOUND)
    if clip == "masked":
        return 0.0 if too_high or too_low else rho
    if clip == "soft_gate":
        tau = RISING if psi > 0 else FALLING
        gate = 1 / (1 + np.exp(-tau * (rho - 1)))
        return 4 * gate * (1 - gate) * rho
    return rho
