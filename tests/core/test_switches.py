"""Policy gradients over sequences in training: switches, the reference policy, metrics."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MDP

from pg import Config, envs, make_learner, make_train, networks, normalisation, with_facts
from pg.config import part_name
from pg.estimators import sequence_estimator, sequences
from pg.estimators.base import Params
from pg.estimators.switches import PRESETS, PUBLISHED, Switches, facts_of
from pg.extra_rollouts import GreedyEpisodes
from pg.networks import Network
from pg.rollout import Trajectory, episodes
from pg.train import training_keys

KEY = jax.random.key(0)
SIZES: dict[str, Any] = {"num_envs": 8, "num_updates": 3, "hidden_sizes": (4,), "group_size": 4}


def config(reference: Any = None, sizes: dict[str, Any] = SIZES, **switches: Any) -> Config:
    """A small run of the switches."""
    estimator = sequence_estimator(reference, **switches)
    return Config(env=MDP, estimator=estimator, preset=None, **sizes)


def collected(made: Config) -> tuple[Network, Trajectory]:
    """A policy and a batch of its own."""
    env = envs.configured(made, made.num_envs)
    policy = networks.make_policy(made, env)
    params = policy.init(jax.random.key(3))
    return policy, episodes(env, policy, params, jax.random.key(4), group_size=made.group_size)


WITHOUT_MEANING = {
    "clip='symmetric' bounds an importance ratio": {"clip": "symmetric"},
    "give credit='to_go', or ratio='sequence'": {"ratio": "per_decision"},
    "give clip='weight', 'truncated' or 'masked'": {
        "ratio": "per_decision",
        "credit": "to_go",
        "clip": "symmetric",
    },
    "give ratio='sequence', or self_normalised='none'": {"self_normalised": "group"},
    "or 'masked', or self_normalised='none'": {
        "ratio": "token",
        "clip": "dual",
        "self_normalised": "batch",
    },
    "give a baseline, or scale='none'": {"baseline": "none", "scale": "group"},
    "give credit='total', or scale='batch'": {"scale": "group", "credit": "to_go"},
    "give kl_place='loss' or 'reward', or kl='k2'": {"kl": "full", "kl_place": "sequence"},
    "and kl_place='loss'": {"kl": "k3", "kl_ratio": True},
    "is the place of a KL estimate, and there is none": {"kl_place": "loss"},
    "unknown average 'tokens': did you mean 'token'?": {"average": "tokens"},
}


@pytest.mark.parametrize("sentence", WITHOUT_MEANING)
def test_switches_without_a_meaning_are_one_sentence(sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Switches(**WITHOUT_MEANING[sentence])


def test_config_knows_what_the_switches_need() -> None:
    with pytest.raises(ValueError, match="group_size must be at least 2"):
        config(sizes={**SIZES, "group_size": 1})
    with pytest.raises(ValueError, match="num_epochs"):
        config(sizes={**SIZES, "num_epochs": 2})
    several = config(sizes={**SIZES, "num_epochs": 2}, ratio="token", clip="symmetric")
    assert several.steps_per_update == 2


def test_an_estimator_of_switches_needs_no_further_settings() -> None:
    """Its groups fit the default number of environments, and its divergence counts."""
    made = Config(env=MDP, estimator=sequence_estimator(kl="k1"))
    assert made.num_envs % made.group_size == 0
    assert made.hyperparams().kl_coef > 0
    grouped = with_facts(baseline="group", settings={"group_size": 4})(sequence_estimator())
    assert Config(env=MDP, estimator=grouped).num_envs == 28
    assert Config(env=MDP, estimator=grouped, num_envs=8).num_envs == 8


def test_a_reference_excludes_running_statistics_of_observations() -> None:
    """With which its parameters would be another policy after every update."""
    with pytest.raises(ValueError, match="running statistics change what its parameters do"):
        config(sizes=SIZES | {"normalise_observations": True}, kl="k2", kl_place="loss")
    assert config(sizes=SIZES | {"normalise_observations": True}).normalise_observations


def test_a_reference_of_another_network_is_one_sentence() -> None:
    with pytest.raises(
        ValueError,
        match=r"of a run with the same networks: .* must be",
    ):
        make_learner(config({"a": jnp.zeros(3)}, kl="k1")).init(KEY)
    with pytest.raises(ValueError, match=r"unknown switch 'kl_cof': did you mean 'kl_control'\?"):
        sequence_estimator(kl_cof=1)


def test_the_reference_is_the_policy_at_the_start_and_does_not_move() -> None:
    made = config(kl="k2", kl_place="sequence")
    h = made.hyperparams(kl_coef=0.5, learning_rate=0.1)
    learner = make_learner(made, h)
    start = learner.init(training_keys(KEY, 0, made.num_updates)[0])
    state, metrics = jax.jit(make_train(made, h))(KEY)
    before, after = jax.tree.leaves(start.params.policy), jax.tree.leaves(state.estimator_state)
    own = jax.tree.leaves(state.params.policy)
    for first, reference, learned in zip(before, after, own, strict=True):
        np.testing.assert_array_equal(first, reference)
        assert learned.shape == reference.shape
    assert any(np.abs(x - y).max() > 1e-3 for x, y in zip(after, own, strict=True))
    assert metrics["reference_kl"][0] == 0
    assert (metrics["reference_kl"][1:] > 0).all()


def test_a_large_coefficient_holds_the_policy_at_the_reference() -> None:
    made = config(kl="full", kl_place="loss", sizes={**SIZES, "num_updates": 40})
    train = jax.jit(make_train(made, made.hyperparams(learning_rate=0.03)))
    free = train(KEY, made.hyperparams(learning_rate=0.03, kl_coef=0.0))[1]["reference_kl"]
    held = train(KEY, made.hyperparams(learning_rate=0.03, kl_coef=10.0))[1]["reference_kl"]
    assert held[-10:].mean() < 0.1 * free[-10:].mean()


def test_a_given_reference_is_the_one_that_is_used() -> None:
    made = config()
    other = make_learner(made).init(jax.random.key(7)).params.policy
    state = make_learner(config(other, kl="k1")).init(KEY)
    for given, used in zip(
        jax.tree.leaves(other), jax.tree.leaves(state.estimator_state), strict=True
    ):
        np.testing.assert_array_equal(given, used)


@pytest.mark.parametrize(
    "switches",
    [
        {"baseline": "mean", "average": "sequence", "ratio": "sequence_mean", "clip": "asymmetric"},
        pytest.param(
            {"average": "token", "kl": "k2", "kl_place": "sequence"}, marks=pytest.mark.slow
        ),
    ],
)
def test_steps_that_are_not_valid_change_nothing(switches: dict[str, Any]) -> None:
    """The same batch, with steps after the end of every episode."""
    made = config(**switches)
    policy, traj = collected(made)
    estimator = sequences.build(policy, made.hyperparams(kl_coef=0.3), Switches(**switches))
    params, state = estimator.init(KEY)
    params = Params(jax.tree.map(lambda x: x + 0.1, params.policy), ())

    def padded(x: Any) -> Any:
        return jnp.concatenate([x, x[-2:]])

    longer = jax.tree.map(padded, traj)._replace(
        valid=jnp.concatenate([traj.valid, jnp.zeros_like(traj.valid[-2:])])
    )
    short = estimator.grad(params, estimator.weigh(params, state, traj)[0])
    long = estimator.grad(params, estimator.weigh(params, state, longer)[0])
    for x, y in zip(jax.tree.leaves(short), jax.tree.leaves(long), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def lagging(made: Config) -> tuple[Network, Params, Trajectory, np.ndarray]:
    """A policy, a padded batch whose ratios are arbitrary, and the logs of these ratios [T, B]."""
    policy, traj = collected(made)
    assert not traj.valid.all()
    log_rho = 0.7 * np.random.default_rng(0).normal(size=traj.reward.shape)
    params = Params(policy.init(jax.random.key(3)), ())
    own = sequences._log_prob_along(Switches(), policy, params, traj)[0]
    return policy, params, traj._replace(log_prob=own - jnp.asarray(log_rho)), log_rho


BOUNDS = {
    "symmetric": (0.8, 1.2),
    "asymmetric": (0.8, 1.3),
    "dual": (0.8, 1.2),
    "weight": (0.8, 1.3),
    "truncated": (0.0, 1.3),
    "masked": (0.8, 1.3),
}
RATIOS_AND_CLIPS = [("per_decision", "weight"), ("sequence", "truncated")]
RATIOS_AND_CLIPS += [(r, c) for r in ("token", "sequence_mean") for c in BOUNDS]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("ratio", "clip"),
    [
        x if i in (0, 1) else pytest.param(*x, marks=pytest.mark.slow)
        for i, x in enumerate(RATIOS_AND_CLIPS)
    ],
)
def test_the_clipped_share_is_of_the_steps_that_count(ratio: Any, clip: Any) -> None:
    made = config(baseline="none")
    policy, params, traj, log_rho = lagging(made)
    credit: Any = "to_go" if ratio == "per_decision" else "total"
    h = made.hyperparams(epsilon=0.2, epsilon_high=0.3, ratio_bound=1.3)
    switches = Switches(baseline="none", ratio=ratio, clip=clip, credit=credit)
    estimator = sequences.build(policy, h, switches)
    metrics = estimator.grad(params, estimator.weigh(params, (), traj)[0])[1]
    low, high = BOUNDS[clip]
    outside, kl = [], []
    for m in range(made.num_envs):
        length = int(traj.valid[:, m].sum())
        rho = np.exp(log_rho[:length, m])
        of_step = {
            "token": rho,
            "per_decision": np.cumprod(rho),
            "sequence": np.full(length, np.prod(rho)),
            "sequence_mean": np.full(length, np.prod(rho) ** (1 / length)),
        }[ratio]
        outside += list((of_step < low) | (of_step > high))
        kl += list(rho - 1 - np.log(rho))
    assert 0 < np.mean(outside) < 1
    np.testing.assert_allclose(metrics["clip_fraction"], np.mean(outside), rtol=1e-12)
    np.testing.assert_allclose(metrics["kl"], np.mean(kl), rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("ratio", "over"),
    [
        ("token", "group"),
        ("token", "batch"),
        ("per_decision", "batch"),
        *(
            pytest.param(*x, marks=pytest.mark.slow)
            for x in (
                ("sequence", "group"),
                ("sequence", "batch"),
                ("per_decision", "group"),
                ("sequence_mean", "group"),
                ("sequence_mean", "batch"),
            )
        ),
    ],
)
def test_weights_are_over_their_mean_by_hand(ratio: Any, over: Any) -> None:
    """Over a group or the batch, and the steps that count, with padding after short episodes."""
    made = config(baseline="none")
    policy, params, moved, log_rho = lagging(made)
    credit: Any = "to_go" if ratio == "per_decision" else "total"
    switches = Switches(baseline="none", ratio=ratio, credit=credit, self_normalised=over)
    batch = sequences.build(policy, made.hyperparams(), switches).weigh(params, (), moved)[0]
    found = np.exp(batch.extra.log_mean_weight)
    rho, valid = np.exp(log_rho), np.asarray(moved.valid)
    length = valid.sum(0)
    product = np.where(valid, rho, 1.0).cumprod(0)
    for m in range(made.num_envs):
        group = [n for n in range(made.num_envs) if n // made.group_size == m // made.group_size]
        others = group if over == "group" else list(range(made.num_envs))
        for t in range(length[m]):
            expected = {
                "token": np.mean(rho[:, others][valid[:, others]]),
                "sequence": np.mean(product[-1, others]),
                "sequence_mean": np.mean(product[-1, others] ** (1 / length[others])),
                "per_decision": np.mean(product[t, others]),
            }[ratio]
            np.testing.assert_allclose(found[t, m], expected, rtol=1e-6)


@pytest.mark.parametrize("shift", [-120.0, 120.0])
def test_weights_beyond_the_floats_are_compared_within_their_group(shift: float) -> None:
    """Two of a group have the same weight, however far the policy has moved from both; the weights
    of another group are its own.
    """
    switches = Switches(baseline="none", ratio="sequence", self_normalised="group")
    zeros = jnp.zeros((1, 4))
    behaviour = jnp.array([[-shift, -shift - 0.1, 0.0, 0.0]])
    group = jnp.array([[0, 0, 1, 1]], jnp.int32)
    traj = collected(config())[1]
    one = jax.tree.map(lambda x: x[:1, :4], traj)._replace(
        log_prob=behaviour, valid=jnp.ones((1, 4), bool), group=group
    )
    h = config().hyperparams()
    log_mean = sequences._log_mean_weight(switches, h, zeros, one)
    weight = np.exp(zeros - behaviour - log_mean)[0]
    pair = np.array([1.0, np.exp(0.1)])
    np.testing.assert_allclose(weight, [*(pair / pair.mean()), 1.0, 1.0], rtol=1e-4)


def test_the_facts_of_the_default_are_those_of_a_leave_one_out_baseline() -> None:
    facts = facts_of(Switches())
    assert (facts.unbiased_for, facts.baseline, facts.several_steps) == ("J", "group", False)
    assert facts_of(Switches(ratio="sequence")).off_policy
    # the ratio belongs to the return, and not to a penalty in the loss
    in_loss = {"kl": "k2", "kl_place": "sequence"}
    assert not facts_of(Switches(ratio="sequence", **in_loss)).off_policy
    # a mean over steps depends on the lengths
    assert facts_of(Switches(baseline="batch")).shrunk
    assert not facts_of(Switches(baseline="batch", credit="to_go")).shrunk
    # a mean that is shrunk towards other prompts leaves the own sequence out as well
    assert facts_of(Switches(baseline="shrinkage")) == facts
    assert facts_of(Switches(baseline="shrinkage", kl="k1")).unbiased_for == "J_β"
    assert facts_of(Switches(baseline="shrinkage", average="constant")).shrunk


def test_presets_come_with_the_hyperparameters_of_their_papers() -> None:
    """Switches of another choice keep the default hyperparameters."""
    made = Config(env=MDP, estimator=sequence_estimator(**vars(PRESETS["gspo"])))
    assert made.hyperparams().epsilon == 3e-4
    assert made.hyperparams().epsilon_high == 4e-4
    assert facts_of(PRESETS["cispo"]).settings["epsilon"] == 1
    assert "epsilon" not in facts_of(Switches(ratio="token", clip="symmetric")).settings
    assert set(PUBLISHED) < set(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns_a_task(name: str) -> None:
    """Three symbols of two in reverse, by its own settings and two steps on a batch where it has a
    ratio: each of four seeds from 0.2 to above 0.75, where one answer to all prompts has 5 / 8.
    """
    made = Config(
        env=envs.sequence_tasks.reverse(num_symbols=2, num_places=3),
        estimator=sequence_estimator(**vars(PRESETS[name])),
        num_envs=64,
        group_size=8,
        num_updates=150,
        num_minibatches=2 if PRESETS[name].ratio != "none" else 1,
    )
    train = make_train(made, made.hyperparams(learning_rate=0.005))
    _, metrics = jax.jit(jax.vmap(train))(jax.random.split(KEY, 4))
    returns = np.asarray(metrics["return"])
    assert (returns[:, 0] < 0.35).all()
    assert (returns[:, -20:].mean(axis=1) > 0.75).all()


def test_an_average_over_the_tokens_of_a_batch_needs_no_groups() -> None:
    facts = facts_of(PRESETS["reinforce_plus_plus"])
    assert facts.baseline == "batch"
    assert "group_size" not in facts.settings
    made = config(sizes=SIZES | {"group_size": 1}, **vars(PRESETS["reinforce_plus_plus"]))
    jax.eval_shape(make_train(made), KEY)


def test_other_switches_have_another_name() -> None:
    one, other = sequence_estimator(kl="k1"), sequence_estimator(baseline="none")
    assert part_name(one) == "sequence_rloo"
    assert part_name(other) == "sequence_plain"
    assert part_name(sequence_estimator(baseline="mean")) == "sequence_baseline_mean"


def test_the_steps_of_greedy_sequences_are_counted_once_a_group() -> None:
    made = config(baseline="greedy", scale="group", sizes=SIZES | {"num_updates": 1})
    metrics = jax.jit(make_train(made))(KEY)[1]
    of_sequences = metrics["length"][0] * metrics["episodes"][0]
    of_greedy = metrics["env_steps"][0] - of_sequences
    assert 2 <= of_greedy <= 2 * MDP.horizon  # there are two groups


def test_greedy_rewards_are_on_the_scale_of_the_others() -> None:
    made = config(baseline="greedy", sizes=SIZES | {"scale_rewards": True})
    _, traj = collected(made)
    greedy = GreedyEpisodes(traj.reward[:, ::-1], traj.env_steps)
    statistics = normalisation.start(made, MDP.num_states)
    statistics = normalisation.observe(statistics, traj, jnp.float32(1.0))
    scaled = normalisation.scaled(traj._replace(greedy=greedy), statistics)
    assert (scaled.reward != traj.reward).any()
    np.testing.assert_array_equal(scaled.greedy.reward, scaled.reward[:, ::-1])


def test_a_batch_without_greedy_sequences_is_one_sentence() -> None:
    made = config(baseline="greedy", sizes=SIZES)
    policy, traj = collected(made)
    estimator = sequences.build(policy, made.hyperparams(), Switches(baseline="greedy"))
    params = estimator.init(KEY)[0]
    with pytest.raises(ValueError, match=re.escape("extra_rollouts=pg.ExtraRollouts(greedy=True)")):
        estimator.weigh(params, (), traj)


def test_an_adaptive_weight_follows_the_divergence_of_its_batches() -> None:
    """β (1 + K clip(KL / target - 1, ±0.2)), by a loop over the batches that were collected."""
    made = config(kl="k1", kl_control="adaptive", sizes={**SIZES, "num_updates": 4})
    h = made.hyperparams(learning_rate=0.1, kl_coef=0.5, kl_target=0.05, kl_gain=0.7)
    learner = make_learner(made, h)
    env = envs.configured(made, made.num_envs)
    policy = networks.make_policy(made, env)
    init_key, keys = training_keys(KEY, 0, 4)
    state = learner.init(init_key)
    step = jax.jit(learner.step)
    reference, kl_coef, errors = state.params.policy, 0.5, []
    for key in keys:
        collect_key = jax.random.split(key)[0]
        traj = episodes(env, policy, state.params.policy, collect_key, group_size=4)
        held = policy.apply(reference, (), traj.obs, traj.first)[1].log_prob(traj.action)
        log_ratio = np.where(traj.valid, traj.log_prob - held, 0.0)
        state, metrics = step(state, key)
        np.testing.assert_allclose(metrics["kl_coef"], kl_coef, rtol=1e-5)
        errors.append(np.clip(log_ratio.sum(0).mean() / 0.05 - 1, -0.2, 0.2))
        kl_coef *= 1 + 0.7 * errors[-1]
        np.testing.assert_allclose(state.estimator_state.kl_coef, kl_coef, rtol=1e-5)
    assert errors[0] == -0.2  # the reference is the policy itself
    assert max(errors) > 0


def test_a_divergence_may_be_reported_alone() -> None:
    train = [
        jax.jit(make_train(config(kl_metrics=kl_metrics)))(KEY) for kl_metrics in (False, True)
    ]
    (plain, metrics), (measured, more) = train
    jax.tree.map(np.testing.assert_array_equal, plain.params, measured.params)
    assert set(more) - set(metrics) == {"reference_kl", "reference_kl_k1"}
    assert more["reference_kl"][0] == more["reference_kl_k1"][0] == 0
    assert (more["reference_kl"][1:] > 0).all()


def test_an_adaptive_weight_needs_something_to_weigh() -> None:
    with pytest.raises(ValueError, match="adapts the weight of a KL estimate, and there is none"):
        Switches(kl_control="adaptive")
    with pytest.raises(ValueError, match="kl_metrics must be True or False, got 'yes'"):
        Switches(kl_metrics="yes")  # type: ignore[arg-type]
