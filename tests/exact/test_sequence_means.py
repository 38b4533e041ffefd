"""Policy gradients over sequences, each compared with its mean over every group of a prefix tree:
no noise, 1e-9.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequence_means as by_loops

from pg.config import Hyperparams
from pg.diagnostics import exact_moments
from pg.estimators import sequences
from pg.estimators.switches import PRESETS, Switches, facts_of
from pg.exact import tabular
from pg.exact.tabular import TabularMDP

pytestmark = pytest.mark.usefixtures("x64")

TREE = by_loops.tree()
SHAPE = (TREE.mdp.num_states, TREE.mdp.num_actions)
RANDOM = np.random.default_rng(1)
LOGITS = RANDOM.normal(size=SHAPE)
REFERENCE = LOGITS + 0.8 * RANDOM.normal(size=SHAPE)
LAGGING = LOGITS + 0.5 * RANDOM.normal(size=SHAPE)
H = Hyperparams(
    epsilon=by_loops.EPSILON,
    epsilon_high=by_loops.EPSILON_HIGH,
    ratio_bound=by_loops.BOUND,
    gate_rising=by_loops.RISING,
    gate_falling=by_loops.FALLING,
    kl_coef=by_loops.BETA,
)
PLAIN: dict[str, Any] = {"baseline": "none"}
TEMPERATURE = 0.3
# small enough for batches of several groups, and of more of them
BUSH = by_loops.tree(num_tokens=2, longest=2)
TWIG = by_loops.tree(num_tokens=2, longest=1)


def some(cases: list[Any], quick: list[int]) -> list[Any]:
    """The cases, of which those at a few places are quick tests and the others slow ones."""
    slow = pytest.mark.slow
    return [
        case if place in quick else pytest.param(case, marks=slow)
        for place, case in enumerate(cases)
    ]


def mean(
    chosen: Switches,
    size: int,
    behaviour: np.ndarray = LOGITS,
    temperature: float = 0.0,
    gamma: float = 1.0,
) -> np.ndarray:
    """E ĝ of groups of `size` sequences of one prompt, [S, A]."""
    policy = tabular.table_policy(jnp.asarray(LOGITS))
    h = H._replace(temperature=temperature, gamma=gamma)
    estimator = sequences.build(policy, h, chosen, jnp.asarray(REFERENCE))
    params = estimator.init(jax.random.key(0))[0]
    found = exact_moments(estimator, params, TREE.mdp, behaviour, size, share_start=True)
    return found[0].reshape(SHAPE)


def expected(
    chosen: Switches, size: int, behaviour: np.ndarray = LOGITS, temperature: float = 0.0
) -> np.ndarray:
    """The same by loops."""
    return by_loops.mean(
        TREE, LOGITS, behaviour, REFERENCE, size, temperature=temperature, **vars(chosen)
    )


def assert_mean_of_batches(
    chosen: Switches, size: int, num_groups: int, tree: by_loops.Tree = BUSH
) -> np.ndarray:
    """E ĝ - ∇J of batches of several groups, [S, A], once E ĝ is that of the loops."""
    shape = (tree.mdp.num_states, tree.mdp.num_actions)
    random = np.random.default_rng(2)
    logits, behaviour, reference = (random.normal(size=shape) for _ in range(3))
    policy = tabular.table_policy(jnp.asarray(logits))
    estimator = sequences.build(policy, H, chosen, jnp.asarray(reference))
    params = estimator.init(jax.random.key(0))[0]
    if chosen.ratio == "none":
        behaviour = logits
    found = exact_moments(
        estimator, params, tree.mdp, behaviour, size, share_start=True, num_groups=num_groups
    )[0].reshape(shape)
    expected = by_loops.mean(tree, logits, behaviour, reference, size, num_groups, **vars(chosen))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    return found - np.asarray(tabular.exact_gradient(tree.mdp, logits))


def with_rewards(t: by_loops.Tree, reward: Callable[[tuple[int, ...]], float]) -> TabularMDP:
    """The tree with another reward of the tokens of a sequence."""
    rewards = np.zeros((t.mdp.num_states, t.mdp.num_actions))
    for (_, tokens), path in zip(t.sequences, t.states, strict=True):
        rewards[path[-1], tokens[-1]] = reward(tokens)
    mdp = t.mdp
    return TabularMDP(mdp.transition, rewards, mdp.initial, mdp.terminal, mdp.horizon)


def gradient(temperature: float = 0.0) -> np.ndarray:
    """∇J, or ∇J_τ, [S, A]."""
    return np.asarray(tabular.exact_gradient(TREE.mdp, LOGITS, tau=temperature))


def regularised_gradient(temperature: float = 0.0) -> np.ndarray:
    """∇J_β, or that of J_β with entropy in the reward, [S, A], from values instead of
    sequences.
    """
    mdp = tabular.with_reference(TREE.mdp, REFERENCE, by_loops.BETA)
    return np.asarray(tabular.exact_gradient(mdp, LOGITS, tau=by_loops.BETA + temperature))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y))


ADVANTAGES = [
    Switches(baseline=baseline, scale=scale, average=average)
    for baseline in ("none", "mean", "leave_one_out", "length_weighted", "shrinkage", "greedy")
    for scale in ("none", "group")
    for average in ("sum", "sequence", "token", "constant")
    if baseline != "none" or scale == "none"
]
KLS = [
    Switches(**PLAIN, kl=kl, kl_place=place, credit=credit)
    for kl in ("k1", "k2", "k3", "full")
    for place, credit in (("reward", "total"), ("reward", "to_go"), ("loss", "total"))
]
KLS += [Switches(**PLAIN, kl=kl, kl_place="sequence") for kl in ("k1", "k2", "k3")]
KLS += [
    Switches(**PLAIN, kl=kl, kl_place="loss", kl_ratio=True) for kl in ("k1", "k2", "k3", "full")
]
RATIOS = [
    Switches(**PLAIN, ratio=ratio, clip=clip)
    for ratio in ("token", "sequence", "sequence_mean")
    for clip in (
        "none",
        "symmetric",
        "asymmetric",
        "dual",
        "weight",
        "truncated",
        "masked",
        "soft_gate",
    )
]
OF_THE_WEIGHT = ("none", "weight", "truncated", "masked")
DECISIONS = [
    Switches(baseline=baseline, credit="to_go", ratio="per_decision", clip=clip, **penalty)
    for baseline, clip in (
        *(("none", clip) for clip in OF_THE_WEIGHT),
        *(("leave_one_out", clip) for clip in OF_THE_WEIGHT[:2]),
    )
    for penalty in ({}, {"kl": "k1"})
]
SELF_NORMALISED = [
    Switches(**PLAIN, ratio=ratio, clip=clip, self_normalised=over, credit=credit)
    for ratio, credit in (
        ("token", "total"),
        ("sequence", "total"),
        ("sequence_mean", "total"),
        ("per_decision", "to_go"),
    )
    for clip in OF_THE_WEIGHT
    for over in ("group", "batch")
]


def label(chosen: Any) -> str:
    """The settings that differ from the default."""
    default = vars(Switches())
    different = [f"{k}={v}" for k, v in vars(chosen).items() if v != default[k]]
    return "-".join(different) or "default"


@pytest.mark.parametrize("chosen", some(ADVANTAGES, [3, 9, 16, 22]), ids=label)
def test_the_advantages_of_pairs_have_the_mean_of_the_loops(chosen: Switches) -> None:
    np.testing.assert_allclose(mean(chosen, 2), expected(chosen, 2), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ADVANTAGES, ids=label)
def test_the_advantages_of_three_have_the_mean_of_the_loops(chosen: Switches) -> None:
    np.testing.assert_allclose(mean(chosen, 3), expected(chosen, 3), rtol=0, atol=1e-9)


@pytest.mark.parametrize("chosen", some(KLS, [1, 8, 13, 17]), ids=label)
def test_each_kl_estimate_has_the_mean_of_the_loops(chosen: Switches) -> None:
    np.testing.assert_allclose(mean(chosen, 1), expected(chosen, 1), rtol=0, atol=1e-12)
    lagging = mean(chosen, 1, LAGGING)
    np.testing.assert_allclose(lagging, expected(chosen, 1, LAGGING), rtol=0, atol=1e-12)


@pytest.mark.parametrize("chosen", some(RATIOS, [2, 8, 19]), ids=label)
def test_each_ratio_and_clip_has_the_mean_of_the_loops(chosen: Switches) -> None:
    lagging = mean(chosen, 1, LAGGING)
    np.testing.assert_allclose(lagging, expected(chosen, 1, LAGGING), rtol=0, atol=1e-12)
    bound = chosen.clip != "none"
    unclipped = expected(Switches(**PLAIN, ratio=chosen.ratio), 1, LAGGING)
    assert (np.abs(lagging - unclipped).max() > 1e-3) == bound


@pytest.mark.parametrize("chosen", some(DECISIONS, [1, 10]), ids=label)
def test_rewards_weighed_by_decisions_have_the_mean_of_the_loops(chosen: Switches) -> None:
    """The gradient, of data of any policy, unless a weight is bounded."""
    lagging = mean(chosen, 2, LAGGING)
    np.testing.assert_allclose(lagging, expected(chosen, 2, LAGGING), rtol=0, atol=1e-12)
    truth = regularised_gradient() if chosen.kl != "none" else gradient()
    is_gradient = np.abs(lagging - truth).max() < 1e-12
    assert is_gradient == (chosen.clip == "none") == facts_of(chosen).off_policy


@pytest.mark.slow
def test_rewards_weighed_by_decisions_are_over_the_scale_of_all_rewards() -> None:
    chosen = Switches(
        baseline="batch", scale="batch", credit="to_go", average="token", ratio="per_decision"
    )
    lagging = mean(chosen, 2, LAGGING)
    np.testing.assert_allclose(lagging, expected(chosen, 2, LAGGING), rtol=0, atol=1e-9)


@pytest.mark.parametrize("chosen", some(SELF_NORMALISED, [2, 9, 30]), ids=label)
def test_weights_over_their_mean_have_the_mean_of_the_loops(chosen: Switches) -> None:
    lagging = mean(chosen, 2, LAGGING)
    np.testing.assert_allclose(lagging, expected(chosen, 2, LAGGING), rtol=0, atol=1e-12)
    assert np.abs(lagging - gradient()).max() > 1e-3
    # all weights are 1 on the policy's own data
    np.testing.assert_allclose(mean(chosen, 2), gradient(), rtol=0, atol=1e-12)
    assert not facts_of(chosen).off_policy


@pytest.mark.parametrize("name", some(list(PRESETS), [0, 2, 3, 7]))
def test_each_preset_has_the_mean_of_the_loops_with_data_that_lag(name: str) -> None:
    found = mean(PRESETS[name], 2, LAGGING)
    np.testing.assert_allclose(found, expected(PRESETS[name], 2, LAGGING), rtol=0, atol=1e-9)
    assert np.abs(found - gradient()).max() > 1e-3


@pytest.mark.parametrize("chosen", some([*ADVANTAGES, *KLS, *PRESETS.values()], [0, 15]), ids=label)
def test_the_facts_say_which_of_them_is_the_gradient(chosen: Switches) -> None:
    size = 1 if chosen.baseline == "none" and chosen.scale == "none" else 2
    found, facts = mean(chosen, size), facts_of(chosen)
    truth = regularised_gradient() if chosen.kl != "none" else gradient()
    unbiased = np.abs(found - truth).max() < 1e-10
    assert unbiased == (facts.unbiased_for in ("J", "J_β") or "if γ = 1" in facts.why)
    assert facts.unbiased_for != "J_β" or chosen.kl != "none"
    if chosen.kl == "none" and facts.parallel:
        assert cosine(found, truth) > 1 - 1e-10
    if chosen.kl == "none" and not facts.parallel:
        assert cosine(found, truth) < 1 - 1e-4


BATCHES = [
    Switches(baseline="mean", scale="group", average="token"),
    Switches(baseline="batch", scale="batch", average="token"),
    PRESETS["reinforce_plus_plus"],
]


@pytest.mark.parametrize("chosen", some(BATCHES, [2]), ids=label)
def test_several_groups_in_a_batch_have_the_mean_of_the_loops(chosen: Switches) -> None:
    """Statistics of the batch are over all of its groups, those of a group over it alone."""
    assert_mean_of_batches(chosen, 2, 2)
    if not chosen.in_groups:
        assert_mean_of_batches(chosen, 1, 3)


SHRUNK = [
    Switches(baseline="shrinkage", **others)
    for others in (
        {},
        {"average": "constant"},
        {"average": "token", "scale": "batch"},
        {"average": "sequence", "scale": "group"},
        {"credit": "to_go", "kl": "k1"},
        {"credit": "to_go", "ratio": "per_decision"},
        {"ratio": "sequence", "clip": "truncated"},
    )
]


@pytest.mark.parametrize("num_groups", [2, 3])
def test_means_shrunk_towards_other_groups_leave_the_gradient(num_groups: int) -> None:
    off = assert_mean_of_batches(SHRUNK[0], 2, num_groups, BUSH if num_groups == 2 else TWIG)
    np.testing.assert_allclose(off, 0, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("num_groups", [2, 3])
@pytest.mark.parametrize("chosen", SHRUNK, ids=label)
def test_means_shrunk_towards_other_groups_go_with_every_switch(
    chosen: Switches, num_groups: int
) -> None:
    off = assert_mean_of_batches(chosen, 2, num_groups)
    facts = facts_of(chosen)
    if facts.unbiased_for == "J" and (facts.off_policy or chosen.ratio == "none"):
        np.testing.assert_allclose(off, 0, rtol=0, atol=1e-12)


# Of two prompts, whose rewards are 0 or 1, or 2 more for one of them: the variance of the estimate
# of four groups of two over the squared length of its mean.
SHRINKAGE = {
    0.0: {"leave_one_out": 0.712, "shrinkage": 0.399, "batch": 0.285},
    2.0: {"leave_one_out": 0.712, "shrinkage": 0.769, "batch": 1.190},
}


@pytest.mark.parametrize("difference", SHRINKAGE)
def test_the_variance_with_shrinkage_is_less_where_the_means_of_groups_agree(
    difference: float,
) -> None:
    mdp = TWIG.mdp
    reward = np.zeros((mdp.num_states, mdp.num_actions))
    for (prompt, tokens), path in zip(TWIG.sequences, TWIG.states, strict=True):
        reward[path[-1], tokens[-1]] = (tokens[-1] == by_loops.END) + difference * prompt
    mdp = tabular.TabularMDP(mdp.transition, reward, mdp.initial, mdp.terminal, mdp.horizon)
    logits = np.zeros(reward.shape)
    policy = tabular.table_policy(jnp.asarray(logits))
    found = {}
    for baseline in SHRINKAGE[difference]:
        estimator = sequences.build(policy, H, Switches(baseline=baseline))
        params = estimator.init(jax.random.key(0))[0]
        moments = exact_moments(estimator, params, mdp, logits, 2, share_start=True, num_groups=4)
        found[baseline] = float(np.trace(moments[1]) / (moments[0] @ moments[0]))
    assert found == pytest.approx(SHRINKAGE[difference], abs=5e-4)


def test_a_penalty_in_the_loss_is_averaged_as_its_steps_are() -> None:
    chosen = Switches(baseline="mean", average="sequence", kl="k3", kl_place="loss")
    np.testing.assert_allclose(mean(chosen, 2), expected(chosen, 2), rtol=0, atol=1e-9)


def test_a_penalty_on_the_sequence_is_over_the_constant_that_its_steps_are_over() -> None:
    chosen = Switches(**PLAIN, average="constant", kl="k2", kl_place="sequence")
    truth = regularised_gradient() / TREE.mdp.horizon
    np.testing.assert_allclose(mean(chosen, 1), truth, rtol=0, atol=1e-12)


def test_a_penalty_in_the_reward_is_discounted_and_one_on_the_sequence_is_not() -> None:
    gamma, horizon = 0.8, TREE.mdp.horizon
    discounted = by_loops_of_the_divergence(gamma ** np.arange(horizon))
    undiscounted = by_loops_of_the_divergence(np.ones(horizon))
    plain = mean(Switches(**PLAIN), 1, gamma=gamma)
    in_reward = mean(Switches(**PLAIN, kl="k1"), 1, gamma=gamma)
    on_sequence = mean(Switches(**PLAIN, kl="k2", kl_place="sequence"), 1, gamma=gamma)
    np.testing.assert_allclose(in_reward, plain - discounted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(on_sequence, plain - undiscounted, rtol=0, atol=1e-9)
    assert np.abs(discounted - undiscounted).max() > 1e-3


def by_loops_of_the_divergence(weight: np.ndarray) -> np.ndarray:
    """β ∇ E Σₜ wₜ ℓₜ, [S, A], by differences of the sum over all sequences."""

    def divergence(m: int, log_ratio: np.ndarray) -> float:
        return by_loops.BETA * weight[: len(log_ratio)] @ log_ratio

    return slopes(expectation(divergence), LOGITS).reshape(SHAPE)


def expectation(of_sequence: Callable[[int, np.ndarray], float]) -> Callable[..., float]:
    """The expectation of a function of the number of a sequence and of its ℓ at each token, a sum
    over all sequences, as a function of the logits.
    """

    def of_logits(logits: np.ndarray) -> float:
        log_pi, log_ref = by_loops.log_softmax(logits), by_loops.log_softmax(REFERENCE)
        total = 0.0
        for m, (prompt, tokens) in enumerate(TREE.sequences):
            at = (TREE.states[m], list(tokens))
            start = TREE.mdp.initial[TREE.mdp.initial > 0][prompt]
            total += start * np.exp(log_pi[at].sum()) * of_sequence(m, log_pi[at] - log_ref[at])
        return total

    return of_logits


def slopes(function: Any, logits: np.ndarray) -> np.ndarray:
    """The derivative of each value by each logit, [S A, values], by central differences."""
    moves = 1e-5 * np.eye(logits.size).reshape(-1, *logits.shape)
    rise = [function(logits + move) - function(logits - move) for move in moves]
    return np.array(rise).reshape(logits.size, -1) / 2e-5


@pytest.mark.parametrize("control", ["fixed", "adaptive"])
def test_the_divergence_from_the_reference_is_the_policys_on_data_of_any_other(
    control: str,
) -> None:
    """One token and a uniform behaviour, every sequence of which is in the batch once."""
    mdp, random = tabular.bandit([0.0, 1.0, 2.0, 3.0]), np.random.default_rng(4)
    logits, reference = (np.tile(random.normal(size=4), (mdp.num_states, 1)) for _ in range(2))
    traj = tabular.enumerate_trajectories(mdp, jnp.zeros(logits.shape))[0]
    chosen = Switches(**PLAIN, ratio="token", kl="k1", kl_control=control)
    log_pi, log_ref = (by_loops.log_softmax(x)[0] for x in (logits, reference))
    divergence = np.exp(log_pi) @ (log_pi - log_ref)
    policy = tabular.table_policy(jnp.asarray(logits))
    h = H._replace(kl_target=0.99 * divergence, kl_gain=1.0)
    estimator = sequences.build(policy, h, chosen, jnp.asarray(reference))
    params, state = estimator.init(jax.random.key(0))
    weighted, after = estimator.weigh(params, state, traj)
    metrics = estimator.grad(params, weighted)[1]
    for name in ("reference_kl", "reference_kl_k1"):
        np.testing.assert_allclose(metrics[name], divergence, rtol=1e-10)
    if control == "adaptive":
        np.testing.assert_allclose(after.kl_coef, by_loops.BETA / 0.99, rtol=1e-10)


def test_the_ratio_of_the_whole_sequence_is_the_gradient_off_policy() -> None:
    whole = Switches(**PLAIN, ratio="sequence")
    np.testing.assert_allclose(mean(whole, 1, LAGGING), gradient(), rtol=0, atol=1e-12)
    token = Switches(**PLAIN, ratio="token")
    assert np.abs(mean(token, 1, LAGGING) - gradient()).max() > 1e-3


ENTROPIES = [
    Switches(**PLAIN, ratio="sequence"),
    Switches(ratio="sequence", kl="k1"),
    Switches(**PLAIN, ratio="per_decision", credit="to_go"),
    Switches(**PLAIN, ratio="token", clip="symmetric"),
    *(Switches(**PLAIN, ratio="sequence_mean", clip=clip) for clip in ("none", "soft_gate")),
    Switches(ratio="sequence", self_normalised="group"),
    *(preset for preset in PRESETS.values() if preset.ratio != "none"),
]


@pytest.mark.parametrize("chosen", some(ENTROPIES, [0, 3]), ids=label)
def test_entropy_in_the_reward_of_data_that_lag_is_the_policy_s_own(chosen: Switches) -> None:
    """r - τ log π of the policy that learns, in all of them; ∇(J + τ H) where the whole ratio is
    there.
    """
    size = 1 if chosen.baseline == "none" else 2
    found = mean(chosen, size, LAGGING, TEMPERATURE)
    wanted = expected(chosen, size, LAGGING, TEMPERATURE)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    assert np.abs(found - mean(chosen, size, LAGGING)).max() > 1e-3
    truth = (regularised_gradient if chosen.kl != "none" else gradient)(TEMPERATURE)
    is_gradient = np.abs(found - truth).max() < 1e-10
    assert is_gradient == facts_of(chosen).off_policy


@pytest.mark.parametrize("scale", some(["group", "none"], [0]))
def test_the_deviation_of_a_group_that_agrees_cancels_the_weight_of_a_penalty(scale: Any) -> None:
    """All rewards are 1: with the scale the mean has the same length for every β, otherwise it is
    proportional to β.
    """
    mdp = with_rewards(BUSH, lambda tokens: 1.0)
    random = np.random.default_rng(1)
    logits = random.normal(size=(mdp.num_states, mdp.num_actions))
    reference = jnp.asarray(logits + 0.8 * random.normal(size=logits.shape))
    policy = tabular.table_policy(jnp.asarray(logits))
    chosen = Switches(baseline="mean", scale=scale, kl="k1")
    norms = []
    for kl_coef in (0.1, 1e-6):
        estimator = sequences.build(policy, H._replace(kl_coef=kl_coef), chosen, reference)
        params = estimator.init(jax.random.key(0))[0]
        moments = exact_moments(estimator, params, mdp, logits, 2, share_start=True)
        norms.append(float(np.linalg.norm(moments[0])))
    expected = {"group": [0.2446, 0.2446], "none": [9.141e-3, 9.141e-8]}[scale]
    np.testing.assert_allclose(norms, expected, rtol=1e-3)


def test_k1_in_the_loss_regularises_nothing() -> None:
    in_loss = Switches(**PLAIN, kl="k1", kl_place="loss")
    np.testing.assert_allclose(mean(in_loss, 1), gradient(), rtol=0, atol=1e-12)


def push_by_k1_in_the_loss(average: Any) -> np.ndarray:
    """The term that k1 in the loss of each step adds to the mean, [S, A]."""
    in_loss = Switches(**PLAIN, average=average, kl="k1", kl_place="loss")
    return mean(in_loss, 2) - expected(Switches(**PLAIN, average=average), 2)


def test_k1_in_the_loss_over_the_own_length_makes_sequences_longer() -> None:
    """-β ∇E[1 / |y|], which no reference is in."""
    inverse = with_rewards(TREE, lambda tokens: 1 / len(tokens))
    wanted = -by_loops.BETA * np.asarray(tabular.exact_gradient(inverse, LOGITS))
    np.testing.assert_allclose(push_by_k1_in_the_loss("sequence"), wanted, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_k1_in_the_loss_over_a_mean_length_makes_sequences_longer_and_over_a_constant_none() -> (
    None
):
    longer = np.asarray(tabular.exact_gradient(with_rewards(TREE, len), LOGITS))
    assert np.sum(push_by_k1_in_the_loss("token") * longer) > 1e-3
    np.testing.assert_allclose(push_by_k1_in_the_loss("constant"), 0, rtol=0, atol=1e-12)


def test_k3_in_the_reward_rewards_the_reverse_divergence_and_over_tokens_is_no_gradient() -> None:
    """With one token ∇(J - β KL(π ‖ π_ref) + β KL(π_ref ‖ π)); with two the field has a curl."""

    def field(t: by_loops.Tree, logits: np.ndarray, kl: str) -> np.ndarray:
        return by_loops.mean(t, logits, logits, reference, 1, baseline="none", kl=kl)

    def objective(logits: np.ndarray) -> float:
        log_ratio = by_loops.log_softmax(logits) - by_loops.log_softmax(reference)
        other = np.exp(by_loops.log_softmax(reference))
        backward = TWIG.mdp.initial @ (other * -log_ratio).sum(-1)
        forward_less = TWIG.mdp.initial @ (np.exp(by_loops.log_softmax(logits)) * log_ratio).sum(-1)
        reward = tabular.exact_return(TWIG.mdp, logits)
        return float(reward) + by_loops.BETA * (backward - forward_less)

    curls = {}
    for name, t in (("one", TWIG), ("two", BUSH)):
        random = np.random.default_rng(1)
        logits = random.normal(size=(t.mdp.num_states, t.mdp.num_actions))
        reference = logits + 0.8 * random.normal(size=logits.shape)
        for kl in ("k1", "k3"):
            jacobian = slopes(lambda x, t=t, kl=kl: field(t, x, kl), logits)
            curl = np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian)
            curls[name, kl] = curl
        if name == "one":
            found = field(t, logits, "k3").ravel()
            np.testing.assert_allclose(slopes(objective, logits)[:, 0], found, rtol=0, atol=1e-9)
    assert max(curls["one", "k1"], curls["two", "k1"], curls["one", "k3"]) < 1e-8
    assert curls["two", "k3"] > 0.1


@pytest.mark.slow
def test_a_penalty_in_the_loss_weighs_more_beside_the_mean_of_the_group() -> None:
    """(G-1)/G ∇J and a whole penalty; in the reward the factor is that of both."""
    penalty = regularised_gradient() - gradient()
    in_loss = mean(Switches(baseline="mean", kl="k2", kl_place="sequence"), 2)
    np.testing.assert_allclose(in_loss, gradient() / 2 + penalty, rtol=0, atol=1e-12)
    in_reward = mean(Switches(baseline="mean", kl="k1"), 2)
    np.testing.assert_allclose(in_reward, regularised_gradient() / 2, rtol=0, atol=1e-12)


def test_the_gradient_with_a_reference_is_that_of_the_return_less_the_divergence() -> None:
    """J_β by its definition: a sum over sequences, differentiated numerically."""

    def regularised_return(m: int, log_ratio: np.ndarray) -> float:
        return float(TREE.rewards[m] - by_loops.BETA * log_ratio.sum())

    by_differences = slopes(expectation(regularised_return), LOGITS).reshape(SHAPE)
    found = regularised_gradient()
    np.testing.assert_allclose(by_differences, found, rtol=0, atol=1e-9)
