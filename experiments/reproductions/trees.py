"""Policy gradients over sequences on small prefix trees: exact means and variances, ascent along an
exact mean, and lengths of answers.

Policies are tables of logits [S, V]; results are NumPy arrays.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import Config, Hyperparams
from pg.diagnostics.exact import moments_by_logits
from pg.envs.sequences import Sequences, all_sequences
from pg.estimators import Estimator, Params, sequence_estimator
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.train import TrainState, make_learner, training_keys

PLAIN = {"baseline": "none"}  # switches of the policy gradient without a baseline


class Moments(NamedTuple):
    """The mean [S, V] of an estimate, and the trace of its covariance."""

    mean: Any
    variance: Any


def build(
    switches: Mapping[str, Any],
    logits: Any,
    h: Hyperparams | None = None,
    reference: Any = None,
) -> Estimator:
    """The estimator with these switches, for a tabular policy.

    Args:
        switches: fields of `pg.estimators.Switches` by name.
        logits: of the policy, [S, V].
        h: the hyperparameters; none: the defaults.
        reference: logits of the reference policy, [S, V], if the switches need one.
    """
    make = sequence_estimator(reference, **switches)
    policy = tabular.table_policy(jnp.asarray(logits))
    return make(policy, policy, Hyperparams() if h is None else h)


def program(
    mdp: TabularMDP,
    switches: Mapping[str, Any],
    *,
    reference: np.ndarray | None = None,
    size: int = 1,
    h: Hyperparams | None = None,
) -> Callable[[Any, Any], Moments]:
    """logits of the learning policy, logits of the behaviour policy -> the exact moments of an
    estimate from one group, a sum over every group of one prompt; to be jitted.

    Args:
        mdp: the prefix tree.
        switches: see `build`.
        reference: logits of the reference policy.
        size: number of sequences in the group.
        h: the hyperparameters.
    """
    estimator = build(switches, np.zeros((mdp.num_states, mdp.num_actions)), h, reference)

    def of_logits(logits: Any, behaviour: Any) -> Moments:
        of_behaviour = moments_by_logits(estimator, Params(logits, ()), mdp, size, share_start=True)
        mean, second = of_behaviour(behaviour)
        return Moments(mean.reshape(logits.shape), jnp.trace(second) - mean @ mean)

    return of_logits


def moments(
    mdp: TabularMDP,
    switches: Mapping[str, Any],
    logits: np.ndarray,
    behaviour: np.ndarray | None = None,
    **settings: Any,
) -> Moments:
    """The exact moments of an estimate.

    Args:
        mdp: the prefix tree.
        switches: see `build`.
        logits: of the learning policy.
        behaviour: of the behaviour policy; none: the same.
        **settings: of `program`.
    """
    acting = logits if behaviour is None else behaviour
    found = jax.jit(program(mdp, switches, **settings))(jnp.asarray(logits), jnp.asarray(acting))
    return jax.tree.map(np.asarray, found)


def mean_direction(
    mdp: TabularMDP, switches: Mapping[str, Any], **settings: Any
) -> Callable[[jax.Array], jax.Array]:
    """logits [S, V] -> the exact mean [S, V] of an on-policy estimate, to be jitted.

    Args:
        mdp: the prefix tree.
        switches: see `build`.
        **settings: of `program`.
    """
    of_logits = program(mdp, switches, **settings)
    return lambda logits: of_logits(logits, logits).mean


def scaled(
    rate: float, direction: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """A direction times a step size."""
    return lambda logits: rate * direction(logits)


def over_visits(
    mdp: TabularMDP, direction: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """A direction with the row of each state divided by the state's visitation."""
    alive = ~np.asarray(mdp.terminal)[:, None]

    def divided(logits: jax.Array) -> jax.Array:
        visits = tabular.visitation(mdp, logits).sum(0)[:, None]
        return jnp.where(alive, direction(logits) / visits, 0.0)

    return divided


def gradient(
    mdp: TabularMDP, logits: Any, reference: np.ndarray | None = None, beta: float = 0.0
) -> np.ndarray:
    """∇J, or with a reference ∇J_β, [S, V].

    Args:
        mdp: the prefix tree.
        logits: of the policy.
        reference: of the reference policy.
        beta: β.
    """
    return np.asarray(jax.grad(lambda x: objective(mdp, x, reference, beta))(jnp.asarray(logits)))


def objective(
    mdp: TabularMDP, logits: Any, reference: np.ndarray | None = None, beta: float = 0.0
) -> jax.Array:
    """J_β = E R - β KL(π ‖ π_ref), []; arguments as in `gradient`."""
    if reference is None:
        return tabular.exact_return(mdp, logits)
    return tabular.exact_return(mdp, logits) - beta * divergence(mdp, logits, reference)


def divergence(mdp: TabularMDP, logits: Any, other: Any) -> jax.Array:
    """KL(π ‖ other) over whole sequences, Σ_s d(s) KL(π(·|s) ‖ other(·|s)), [].

    Args:
        mdp: the prefix tree.
        logits: of π.
        other: logits of the other policy.
    """
    log_pi, log_other = jax.nn.log_softmax(jnp.asarray(logits)), jax.nn.log_softmax(other)
    visits = tabular.visitation(mdp, logits).sum(0)
    of_states = jnp.sum(jnp.exp(log_pi) * (log_pi - log_other), axis=1)
    alive = ~np.asarray(mdp.terminal)
    return jnp.sum(jnp.where(alive, visits * of_states, 0.0))


def train(
    env: Sequences,
    switches: Mapping[str, Any],
    start: np.ndarray,
    watch: Callable[[jax.Array], jax.Array],
    *,
    rate: float,
    updates: int,
    prompts: int,
    size: int,
    seeds: int,
) -> np.ndarray:
    """The watched values of a tabular policy before each update, in training from sampled groups by
    plain stochastic gradient ascent, [seeds, updates, ...].

    Args:
        env: the environment, with observation="table".
        switches: see `build`.
        start: the initial logits, [S, V].
        watch: logits to an array.
        rate: learning rate.
        updates: their number.
        prompts: groups of a batch.
        size: number of sequences in a group.
        seeds: their number.
    """
    policy = tabular.table_policy(jnp.asarray(start))
    config = Config(
        env=env,
        estimator=sequence_estimator(**switches),
        num_updates=updates,
        num_envs=prompts * size,
        group_size=size,
        optimizer="sgd",
        preset=None,
    )
    h = Hyperparams(learning_rate=rate, max_grad_norm=np.inf)
    learner = make_learner(config, h, policy=policy)

    def step(state: TrainState, key: jax.Array) -> tuple[TrainState, jax.Array]:
        return learner.step(state, key)[0], watch(state.params.policy)

    def run(key: jax.Array) -> jax.Array:
        first, keys = training_keys(key, 0, updates)
        return jax.lax.scan(step, learner.init(first), keys)[1]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds)))


def relative_bias(mean: np.ndarray, truth: np.ndarray) -> float:
    """‖mean - truth‖ / ‖truth‖."""
    return float(np.linalg.norm(mean - truth) / np.linalg.norm(truth))


def answers(longest: int) -> tuple[Sequences, np.ndarray]:
    """Answers whose first token is right (0) or wrong (1), followed by any number of further
    tokens; and logits [S, V] that are uniform, except that an empty answer is practically
    impossible.

    Args:
        longest: tokens of the longest answer.
    """
    env = Sequences(
        num_tokens=3,
        max_length=longest,
        end_token=2,
        reward=lambda prompt, tokens, length: tokens[0] == 0,
        observation="table",
    )
    logits = np.zeros((env.num_prefixes + 1, 3))
    logits[0, 2] = -30.0
    return env, logits


def mean_length(env: Sequences, first: int) -> Callable[[jax.Array], jax.Array]:
    """logits [S, V] -> the mean length of the sequences that start with a token, [].

    Args:
        env: the environment, with one prompt.
        first: the token.
    """
    mdp = tabular.prefix_tree(env)
    below = np.array([tokens[:1] == (first,) for _, tokens in env.prefixes])
    root = [tokens for _, tokens in env.prefixes].index((first,))

    def length(logits: jax.Array) -> jax.Array:
        visits = tabular.visitation(mdp, logits).sum(0)[: env.num_prefixes]
        return 1.0 + jnp.sum(jnp.where(below, visits, 0.0)) / visits[root]

    return length


def tied(env: Sequences, direction: np.ndarray) -> np.ndarray:
    """The direction if right and wrong `answers` share parameters: the sum over both first tokens
    of the entries for prefixes that continue in the same way.

    Args:
        env: the environment of `answers`.
        direction: of the table, [S, V].
    """
    place = {tokens: row for row, (_, tokens) in enumerate(env.prefixes)}
    rests = [tokens[1:] for tokens in place if tokens[:1] == (0,)]
    return np.array([direction[place[0, *rest]] + direction[place[1, *rest]] for rest in rests])


def difficulty_weights(
    switches: Mapping[str, Any], probabilities: Sequence[float], size: int
) -> np.ndarray:
    """c in the mean c ∇p of an estimate, for prompts that are answered right with probability p, by
    enumeration, [K].

    Args:
        switches: see `build`.
        probabilities: p of each prompt, K numbers.
        size: number of sequences in a group.
    """
    env = Sequences(
        num_tokens=2, max_length=1, end_token=None, reward=np.array([1.0, 0.0]), observation="table"
    )
    mdp = tabular.prefix_tree(env)
    direction = jax.jit(mean_direction(mdp, switches, size=size))
    weights = []
    for p in probabilities:
        logits = np.log([[p, 1 - p], [0.5, 0.5]])
        truth = gradient(mdp, logits)
        found = np.asarray(direction(jnp.asarray(logits)))
        weights.append(np.sum(found * truth) / np.sum(truth * truth))
    return np.array(weights)


def scaled_weight(p: float, size: int) -> float:
    """The same weight for (R - mean) / std in closed form, E √(K (G - K)) / (G p (1 - p)) with
    K ~ Binomial(G, p) right answers.

    Args:
        p: the probability of a right answer.
        size: G.
    """
    k = np.arange(size + 1)
    return float(binomial(p, size) @ np.sqrt(k * (size - k)) / (size * p * (1 - p)))


def disagreeing_mean(p: float, size: int, *, right: bool = False) -> float:
    """The mean reward of a group with mixed rewards, E[K / G | 0 < K < G]; with `right`, as seen by
    a right answer: groups are weighted by their number of right answers.

    Args:
        p: the probability of a right answer.
        size: G.
        right: condition on a right answer in the group.
    """
    k = np.arange(1, size)
    weights = binomial(p, size)[1:-1] * (k if right else 1)
    return float(weights @ k / size / weights.sum())


def disagreement(p: float, size: int) -> float:
    """The probability that a group has mixed rewards, 1 - pᴳ - (1 - p)ᴳ."""
    return 1.0 - p**size - (1.0 - p) ** size


def binomial(p: float, size: int) -> np.ndarray:
    """The probabilities of k right answers in a group, k = 0 .. G, [G + 1]."""
    k = np.arange(size + 1)
    ways = np.array([math.comb(size, int(i)) for i in k])
    return ways * p**k * (1 - p) ** (size - k)


class Problem(NamedTuple):
    """A prefix tree with a policy and a reference policy, logits [S, V]."""

    mdp: TabularMDP
    logits: np.ndarray
    reference: np.ndarray


def random_tree(longest: int, seed: int = 0) -> Problem:
    """Two prompts, three tokens, one of which ends, a reward N(0, 1) for each sequence, and random
    policies.

    Args:
        longest: tokens of the longest sequence.
        seed: of the random numbers.
    """
    g = np.random.default_rng(seed)
    number = len(all_sequences(3, longest, 2))
    env = Sequences(
        num_tokens=3,
        max_length=longest,
        end_token=2,
        reward=g.normal(size=(2, number)),
        prompts=2,
        observation="table",
    )
    mdp = tabular.prefix_tree(env)
    logits = g.normal(size=(mdp.num_states, 3))
    return Problem(mdp, logits, logits + g.normal(size=logits.shape))


def forward_pull(mdp: TabularMDP, logits: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """-Σ_s d(s) ∇KL(π_ref(·|s) ‖ π(·|s)), state distribution d held fixed, [S, V]: d (π_ref - π).

    Args:
        mdp: the prefix tree.
        logits: of π.
        reference: of π_ref.
    """
    visits = np.asarray(tabular.visitation(mdp, logits)).sum(0)
    alive = ~np.asarray(mdp.terminal)
    pi, other = (np.asarray(jax.nn.softmax(x)) for x in (logits, reference))
    return (visits * alive)[:, None] * (other - pi)


def best_regularised(mdp: TabularMDP, reference: np.ndarray, beta: float) -> np.ndarray:
    """The logits [S, V] of the policy that maximises J_β: π ∝ π_ref exp(Q / β), and V = β log Σ
    π_ref exp(Q / β), from the longest prefixes to the first.

    Args:
        mdp: the prefix tree.
        reference: logits of π_ref.
        beta: β.
    """
    log_reference = np.asarray(jax.nn.log_softmax(reference))
    after = np.argmax(mdp.transition, axis=2)  # trees are deterministic
    value = np.zeros(mdp.num_states)
    logits = np.zeros_like(log_reference)
    # shorter prefixes come first, and the terminal state, whose value is 0, last
    for state in reversed(range(mdp.num_states - 1)):
        q = mdp.mean_reward[state] + value[after[state]]
        logits[state] = log_reference[state] + q / beta
        value[state] = beta * np.logaddexp.reduce(logits[state])
    return logits


def bits(length: int, seed: int = 0) -> TabularMDP:
    """The tree of sequences of this many bits, with a reward N(0, 1) for each.

    Args:
        length: of every sequence.
        seed: of the rewards.
    """
    env = Sequences(
        num_tokens=2,
        max_length=length,
        end_token=None,
        reward=np.random.default_rng(seed).normal(size=2**length),
        observation="table",
    )
    return tabular.prefix_tree(env)


def history(mdp: TabularMDP, logits: np.ndarray, rate: float, updates: int) -> np.ndarray:
    """A policy after 0 .. `updates` steps along its exact gradient, with rows divided by the
    visitation, so that late tokens move as fast as early ones: [updates + 1, S, V].

    Args:
        mdp: the prefix tree.
        logits: of the first policy.
        rate: size of a step.
        updates: number of steps.
    """
    along = over_visits(mdp, jax.grad(lambda x: tabular.exact_return(mdp, x)))
    policies = [np.asarray(logits)]
    step = jax.jit(lambda x: x + rate * along(x))
    for _ in range(updates):
        policies.append(np.asarray(step(jnp.asarray(policies[-1]))))
    return np.stack(policies)


def lagging(
    lengths: Any, ratios: Iterable[str], lags: Sequence[int], rate: float, policies: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The bias relative to ‖∇J‖, and the variance relative to on-policy, of the policy gradient
    with each ratio, averaged over random policies, [lengths, lags] by ratio.

    Args:
        lengths: numbers of tokens per sequence.
        ratios: of the switches.
        lags: numbers of updates by which the behaviour policy is older.
        rate: size of an update.
        policies: number of random policies.
    """
    ratios = tuple(ratios)
    bias = {name: np.zeros((len(lengths), len(lags))) for name in ratios}
    variance = {name: np.zeros((len(lengths), len(lags))) for name in ratios}
    for row, length in enumerate(lengths):
        mdp = bits(int(length))
        programs = {name: jax.jit(program(mdp, {**PLAIN, "ratio": name})) for name in ratios}
        for seed in range(policies):
            first = np.random.default_rng(seed).normal(size=(mdp.num_states, 2))
            past = history(mdp, first, rate, max(lags))
            truth = gradient(mdp, past[-1])
            unit = programs["none"](past[-1], past[-1]).variance
            for name in ratios:
                for column, lag in enumerate(lags):
                    found = programs[name](past[-1], past[-1 - lag])
                    bias[name][row, column] += relative_bias(found.mean, truth) / policies
                    variance[name][row, column] += found.variance / unit / policies
    return bias, variance


def rounded(logits: Any, precision: str) -> jax.Array:
    """Logits rounded to the lower precision of an inference engine, such as bfloat16."""
    x = jnp.asarray(logits)
    return x.astype(jnp.dtype(precision)).astype(x.dtype)


def large_logits(longest: int, seed: int) -> tuple[TabularMDP, np.ndarray]:
    """The tree of `random_tree` and a policy with logits N(20, 3²), as large as those of a language
    model.

    Args:
        longest: tokens of the longest sequence.
        seed: of the policy.
    """
    mdp = random_tree(longest).mdp
    shape = (mdp.num_states, mdp.num_actions)
    return mdp, np.random.default_rng(seed).normal(20.0, 3.0, shape)


def rounded_engines(
    lengths: Sequence[int],
    weights: Mapping[str, Mapping[str, Any]],
    engines: Sequence[str],
    policies: int,
    h: Hyperparams,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The bias relative to ‖∇J‖, and the variance relative to on-policy, of the policy gradient
    from sequences of an inference engine that rounds the logits, averaged over policies,
    [lengths, engines] by weight.

    Args:
        lengths: tokens of the longest sequence.
        weights: switches by name, in addition to `PLAIN`; the first has no weight.
        engines: precisions.
        policies: their number.
        h: the hyperparameters.
    """
    bias = {name: np.zeros((len(lengths), len(engines))) for name in weights}
    variance = {name: np.zeros((len(lengths), len(engines))) for name in weights}
    for row, length in enumerate(lengths):
        mdp, _ = large_logits(length, 0)
        programs = {
            name: jax.jit(program(mdp, {**PLAIN, **switches}, h=h))
            for name, switches in weights.items()
        }
        for seed in range(policies):
            logits = jnp.asarray(large_logits(length, seed)[1])
            truth = gradient(mdp, logits)
            unit = programs[next(iter(weights))](logits, logits).variance
            for name in weights:
                for column, engine in enumerate(engines):
                    found = programs[name](logits, rounded(logits, engine))
                    bias[name][row, column] += relative_bias(found.mean, truth) / policies
                    variance[name][row, column] += found.variance / unit / policies
    return bias, variance
