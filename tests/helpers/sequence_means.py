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


def _prefixes() -> Iterator[tuple[int, ...]]:
    """The prefixes that go on, shortest first."""
    for length in range(LONGEST):
        yield from itertools.product(range(1, TOKENS), repeat=length)


def tree(seed: int = 0) -> Tree:
    """Two prompts, three tokens of which one ends, at most three of them, and a reward of the whole
    sequence.
    """
    g = np.random.default_rng(seed)
    nodes = [(prompt, prefix) for prompt in range(PROMPTS) for prefix in _prefixes()]
    number = {node: i for i, node in enumerate(nodes)}
    over = len(nodes)
    transition = np.zeros((over + 1, TOKENS, over + 1))
    reward = np.zeros((over + 1, TOKENS))
    transition[over, :, over] = 1.0
    sequences, states, rewards = [], [], []
    for (prompt, prefix), state in number.items():
        for token in range(TOKENS):
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
    mdp = TabularMDP(transition, reward, initial, terminal, LONGEST)
    return Tree(mdp, sequences, states, np.array(rewards))


class Sequence(NamedTuple):
    """One sequence of a group."""

    states: list[int]
    tokens: tuple[int, ...]
    reward: float
    own: np.ndarray  # log π of its tokens
    behaviour: np.ndarray  # log μ of them
    reference: np.ndarray  # log π_ref of them


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mean(
    t: Tree, logits: np.ndarray, behaviour: np.ndarray, reference: np.ndarray, size: int, **s: Any
) -> np.ndarray:
    """E ĝ of groups of `size` sequences of one prompt by `behaviour`, [S, A]; s: the switches."""
    log_pi, log_mu, log_ref = (log_softmax(x) for x in (logits, behaviour, reference))
    total = np.zeros_like(logits)
    starts = t.mdp.initial[t.mdp.initial > 0]
    for prompt in range(PROMPTS):
        members = []
        for m, (own_prompt, tokens) in enumerate(t.sequences):
            if own_prompt != prompt:
                continue
            at = (t.states[m], list(tokens))
            members.append(
                Sequence(t.states[m], tokens, t.rewards[m], log_pi[at], log_mu[at], log_ref[at])
            )
        for group in itertools.product(members, repeat=size):
            probability = starts[prompt] * np.exp(sum(y.behaviour.sum() for y in group))
            total += probability * _estimate(list(group), log_pi, log_ref, **s)
    return total


def _estimate(
    group: list[Sequence],
    log_pi: np.ndarray,
    log_ref: np.ndarray,
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
) -> np.ndarray:
    """The estimate of one group, [S, A]."""
    pi, G = np.exp(log_pi), len(group)
    lengths = np.array([len(y.tokens) for y in group])
    # a step's penalty in the reward
    penalties = [np.zeros(len(y.tokens)) for y in group]
    if kl != "none" and kl_place == "reward":
        penalties = [BETA * _value(kl, y, log_pi, log_ref) for y in group]
    rewards = np.array([y.reward - p.sum() for y, p in zip(group, penalties, strict=True)])
    others = [np.mean(np.delete(rewards, n)) if G > 1 else 0.0 for n in range(G)]
    compared = {
        "none": np.zeros(G),
        "mean": np.full(G, rewards.mean()),
        "batch": np.full(G, rewards.mean()),
        "leave_one_out": np.array(others),
        "length_weighted": np.full(G, (lengths * rewards).sum() / lengths.sum()),
    }[baseline]
    spread = rewards
    if credit == "to_go" and baseline == "batch":
        to_go = [
            y.reward - p[k:].sum()
            for y, p in zip(group, penalties, strict=True)
            for k in range(len(p))
        ]
        spread = np.array(to_go)
        compared = np.full(G, spread.mean())
    deviation = 1.0 if scale == "none" else spread.std()
    if scale != "none" and np.ptp(spread) < 1e-12:
        deviation = np.inf  # nothing is learned from what all agrees
    divisors = {
        "sum": np.ones(G),
        "sequence": lengths,
        "token": np.full(G, lengths.mean()),
        "constant": np.full(G, LONGEST),
    }[average]
    shares = _self_normalised(group, ratio, clip, self_normalised)
    total = np.zeros_like(log_pi)
    for n, y in enumerate(group):
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
            psi = (followed - compared[n]) / deviation / divisors[n]
            if ratio == "per_decision":
                weights = [_slope(clip, np.exp(log_rho[: i + 1].sum()), 0.0) for i in range(L)]
                weights = [w / shares(n, i) for i, w in enumerate(weights)]
                # the reward of the sequence comes with its last token
                paid = [y.reward * (i == L - 1) - penalties[n][i] for i in range(k, L)]
                psi = sum(w * r for w, r in zip(weights[k:], paid, strict=True))
                psi -= weights[k] * compared[n]
                coefficient = psi / deviation / divisors[n]
            else:
                coefficient = psi * _slope(clip, np.exp(level[k]), psi) / shares(n, k)
            score = -pi[y.states[k]]
            score[y.tokens[k]] += 1.0
            total[y.states[k]] += coefficient * score
            if kl == "none" or kl_place == "reward":
                continue
            ell = y.own - y.reference
            if kl_place == "sequence":
                total[y.states[k]] -= BETA * _derivative(kl, ell.sum()) * score
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
    return total / G


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
