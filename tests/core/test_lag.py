"""Batches of the policy of some updates ago: the right parameters act, and importance weights
account for it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequence_means as by_loops
from small import MDP

from pg import Config, Hyperparams, envs, lag, make_learner, make_train, networks, rollout
from pg.diagnostics import z_scores
from pg.diagnostics.training import with_weights
from pg.estimators import ESTIMATORS, Params, Weighted, sequence_estimator
from pg.exact import tabular
from pg.sweep import SweepSpec
from pg.train import Update, training_keys

KEY = jax.random.key(0)
SIZES: dict[str, Any] = {"num_envs": 6, "num_updates": 5, "hidden_sizes": (4,)}
NAME = "per_decision_importance"


def config(updates: int, estimator: Any = NAME, **changes: Any) -> Config:
    """A small run by plain gradient steps."""
    fields = {**SIZES, "optimizer": "sgd", **changes}
    return Config(env=MDP, estimator=estimator, policy_lag=updates, preset=None, **fields)


def by_a_loop(made: Config, learning_rate: float) -> list[Params]:
    """The parameters before each update and after the last, by a loop that keeps all of them."""
    updates, num_updates = made.policy_lag, made.num_updates
    env = envs.configured(made, made.num_envs)
    policy, critic = networks.make_policy(made, env), networks.make_critic(made, env)
    estimator = ESTIMATORS[NAME](policy, critic, Hyperparams())
    init_key, keys = training_keys(KEY, 0, num_updates)
    history = [make_learner(made).init(init_key).params]
    for update in range(num_updates):
        acting = [history[max(0, update - age)] for age in range(updates, -1, -1)]
        collect_key, _ = jax.random.split(keys[update])
        if made.lag_mixture == "none":
            traj = rollout.episodes(env, policy, acting[0].policy, collect_key)
        else:
            share = envs.configured(made, made.num_envs // len(acting))
            each = [
                rollout.episodes(share, policy, own.policy, key)
                for own, key in zip(acting, jax.random.split(collect_key, len(acting)), strict=True)
            ]
            traj = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *each)
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *acting)
            traj = lag.weighed_against(made.lag_mixture, policy, stacked, traj)
        batch, _ = estimator.weigh(history[-1], (), traj)
        grads, _ = estimator.grad(history[-1], batch)
        history.append(jax.tree.map(lambda p, g: p - learning_rate * g, history[-1], grads))
    return history


@pytest.mark.parametrize(
    ("updates", "mixture"),
    [
        pytest.param(0, "none", marks=pytest.mark.slow),
        (1, "none"),
        pytest.param(3, "none", marks=pytest.mark.slow),
        pytest.param(2, "power", marks=pytest.mark.slow),
    ],
)
def test_the_policy_that_acts_is_that_of_as_many_updates_ago(updates: int, mixture: Any) -> None:
    made = config(updates, lag_mixture=mixture)
    h = made.hyperparams(learning_rate=0.5, max_grad_norm=jnp.inf)
    state = jax.jit(make_train(made, h))(KEY)[0]
    expected = by_a_loop(made, 0.5)
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected[-1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    for age in range(updates):
        kept = jax.tree.map(lambda x, age=age: x[age], state.history)
        wanted = expected[made.num_updates - updates + age]
        for x, y in zip(jax.tree.leaves(kept), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("collect", "mixture"),
    [
        pytest.param("episodes", "none", marks=pytest.mark.slow),
        ("windows", "none"),
        ("episodes", "balance"),
    ],
)
def test_the_weights_are_one_until_the_policy_has_moved(collect: Any, mixture: Any) -> None:
    changes = {"collect": collect, "num_steps": 6, "lag_mixture": mixture}
    made = config(2, "vtrace" if collect == "windows" else NAME, **changes)
    metrics = jax.jit(make_train(made, made.hyperparams(learning_rate=0.5)))(KEY)[1]
    np.testing.assert_allclose(metrics["ess"][0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio_median"][0], 1.0, rtol=1e-6)
    later = {name: np.asarray(x[1:]) for name, x in metrics.items()}
    assert (later["ess"] < 1 - 1e-5).all()
    assert (later["ess"] > 0).all()
    assert (later["ratio_low"] <= later["ratio_median"]).all()
    assert (later["ratio_median"] <= later["ratio_high"]).all()
    without = jax.eval_shape(make_train(config(0)), KEY)[1]
    assert "ess" not in without


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("collect", ["episodes", pytest.param("windows", marks=pytest.mark.slow)])
def test_the_metrics_of_the_weights_are_those_of_numpy(collect: Any) -> None:
    """Padded episodes, and the steps of a window."""
    made = config(1, "vtrace", collect=collect, num_steps=6, num_envs=16)
    env = envs.configured(made, made.num_envs)
    policy = networks.make_policy(made, env)
    before = policy.init(KEY)
    now = jax.tree.map(lambda x: x + jnp.sin(jnp.arange(1.0, x.size + 1)).reshape(x.shape), before)
    collector = rollout.make_collector(made, env)
    state = collector.init(policy, KEY)
    traj = collector.collect(policy, before, KEY, state).traj
    learner = make_learner(made)
    start = jax.jit(learner.init)(KEY)
    params = start.params._replace(policy=now)
    batch = Weighted(traj, traj.reward, ())
    finite = jnp.ones(2, bool)
    done = Update(start, {}, finite, jnp.zeros(()), traj, batch)
    step = with_weights(lambda state, key: done, made, policy)
    metrics = step(start._replace(params=params), KEY).metrics
    _, dist = policy.apply(now, (), traj.obs, traj.first)
    log_rho = np.asarray(dist.log_prob(traj.action) - traj.log_prob)
    valid = np.asarray(traj.valid)
    assert valid.all() == (collect == "windows")
    weights = np.exp(log_rho.ravel())
    if collect == "episodes":
        weights = np.array([np.exp(log_rho[valid[:, m], m].sum()) for m in range(16)])
    ess = weights.sum() ** 2 / (weights**2).sum() / len(weights)
    assert 0.05 < ess < 0.95
    np.testing.assert_allclose(metrics["ess"], ess, rtol=1e-12)
    levels = [np.quantile(np.log(weights), level) for level in (0.05, 0.5, 0.95)]
    found = [metrics[name] for name in ("ratio_low", "ratio_median", "ratio_high")]
    np.testing.assert_allclose(found, np.exp(levels), rtol=1e-12)


def test_a_step_size_of_zero_makes_the_lag_nothing() -> None:
    results = []
    for updates in (0, 3):
        made = config(updates)
        results.append(jax.jit(make_train(made, made.hyperparams(learning_rate=0.0)))(KEY)[1])
    np.testing.assert_array_equal(results[0]["return"], results[1]["return"])


def test_a_lag_needs_an_importance_ratio() -> None:
    with pytest.raises(ValueError, match="policy_lag=2 needs an estimator for off-policy data"):
        config(2, "leave_one_out")
    with pytest.raises(ValueError, match="excludes optimizer='storm'"):
        config(2, "ppo", optimizer="storm", collect="windows")
    with pytest.raises(ValueError, match="policy_lag must be a whole number of at least 0"):
        config(-1)
    assert config(2, sequence_estimator(ratio="token"), group_size=2).policy_lag == 2


def test_a_lag_excludes_a_bound_on_the_divergence_from_the_behaviour() -> None:
    """The divergence is above the bound before the first step, so that nothing would be learned."""
    made = config(2, "ppo", collect="windows")
    with pytest.raises(
        ValueError, match="large before the first step, so that no step may be taken"
    ):
        make_learner(made, made.hyperparams(stop_kl=0.01))
    make_learner(made, made.hyperparams())
    with pytest.raises(ValueError, match=r"stop_kl=0\.1 bounds the divergence"):
        SweepSpec(made, made.hyperparams(), {"stop_kl": [math.inf, 0.1]}, range(2))
    without = config(0, "ppo", collect="windows")
    make_learner(without, without.hyperparams(stop_kl=0.01))


def mixture(size: int) -> tuple[by_loops.Tree, jax.Array, Params]:
    """A prefix tree, the logits of a policy, and those of several others."""
    tree = by_loops.tree()
    shape = (size + 1, tree.mdp.num_states, tree.mdp.num_actions)
    logits, *others = jnp.asarray(np.random.default_rng(2).normal(size=shape))
    return tree, logits, Params(jnp.stack(others), ())


def weight_by_loops(heuristic: str, pi: float, mus: list[float], own: int) -> float:
    """The weight of an episode that policy `own` has collected, of its probabilities."""
    if heuristic == "own":
        return pi / mus[own]
    if heuristic == "balance":
        return pi / (sum(mus) / len(mus))
    # the share of the own policy among the squares, over its probability and its part of the batch
    share = mus[own] ** 2 / sum(mu**2 for mu in mus)
    return share * pi / (mus[own] / len(mus))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("heuristic", "size"),
    [
        ("balance", 2),
        ("power", 3),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("own", 2), ("balance", 3))),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("power", 2), ("own", 3))),
    ],
)
def test_each_heuristic_has_its_weights_and_the_mean_of_the_gradient(
    heuristic: str, size: int
) -> None:
    """Both by a sum over all episodes of each of the policies; with entropy in the reward, that
    of the policy that learns.
    """
    tree, logits, others = mixture(size)
    policy, tau = tabular.table_policy(logits), 0.3
    truth = np.asarray(tabular.exact_gradient(tree.mdp, logits, tau=tau))
    factories = [ESTIMATORS["trajectory_importance"], ESTIMATORS[NAME]]
    factories += [sequence_estimator(baseline="none", ratio="sequence")]
    means = [np.zeros_like(truth) for _ in factories]
    for number, behaviour in enumerate(others.policy):
        traj, probability = tabular.enumerate_trajectories(tree.mdp, behaviour)
        known = lag.weighed_against(heuristic, policy, others, traj)
        time, valid = np.arange(len(traj.reward)), np.asarray(traj.valid)
        for m in range(len(probability)):
            steps = time[valid[:, m]]
            at = (np.asarray(traj.obs)[steps, m].argmax(-1), np.asarray(traj.action)[steps, m])
            for length in range(1, len(steps) + 1):
                pi, *mus = (
                    float(np.exp(by_loops.log_softmax(np.asarray(x))[at][:length].sum()))
                    for x in (logits, *others.policy)
                )
                expected = weight_by_loops(heuristic, pi, mus, number)
                found = pi / np.exp(known.log_prob[:length, m].sum())
                np.testing.assert_allclose(found, expected, rtol=1e-12)
        for mean, factory in zip(means, factories, strict=True):
            estimator = factory(policy, policy, Hyperparams(temperature=tau))
            params, state = estimator.init(KEY)
            batch, _ = estimator.weigh(params, state, known)
            counted = batch._replace(psi=batch.psi * probability[None] * len(probability))
            mean -= np.asarray(estimator.grad(params, counted)[0].policy) / size
    for mean in means:
        np.testing.assert_allclose(mean, truth, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_weights_of_whole_episodes_are_bounded_where_the_policy_is_in_the_mixture() -> None:
    """With K policies balance is at most K. Of K π μ / Σ μᵢ², power, it is K on the newest policy's
    own episodes; on others' K / 2, as π² + μ² is at least 2 π μ. All are nearly reached.
    """
    tree, logits, far = mixture(2)
    near = logits + 0.1 * far.policy[0]
    largest: dict[str, list[float]] = {"balance": [], "older": [], "newest": []}
    for older in ([10 * far.policy[0], 10 * far.policy[1]], [near, 10 * far.policy[1]]):
        others = Params(jnp.stack([*older, logits]), ())
        for number, behaviour in enumerate(others.policy):
            traj, _ = tabular.enumerate_trajectories(tree.mdp, behaviour)
            log_pi = jax.nn.log_softmax(logits)[traj.obs.argmax(-1), traj.action]
            for heuristic in ("balance", "power"):
                known = lag.weighed_against(heuristic, tabular.table_policy(logits), others, traj)
                of_step = jnp.where(traj.valid, log_pi - known.log_prob, 0.0)
                weight = float(jnp.exp(of_step.sum(0)).max())
                age = "newest" if number == 2 else "older"
                largest[age if heuristic == "power" else "balance"].append(weight)
    for name, bound in {"balance": 3.0, "older": 1.5, "newest": 3.0}.items():
        assert 0.95 * bound < max(largest[name]) <= bound * (1 + 1e-12), name


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "heuristic", ["own", "balance", pytest.param("power", marks=pytest.mark.slow)]
)
def test_a_baseline_of_the_group_is_unbiased_against_the_own_policy_alone(heuristic: str) -> None:
    """A sum over all pairs of one prompt by one policy: the baseline knows which policy it was."""
    tree, logits, others = mixture(2)
    policy = tabular.table_policy(logits)
    estimator = sequence_estimator(ratio="sequence")(policy, policy, Hyperparams())
    params, state = estimator.init(KEY)
    mean = np.zeros(logits.shape)
    for behaviour in others.policy:
        traj, probability = tabular.enumerate_trajectories(tree.mdp, behaviour)
        known = lag.weighed_against(heuristic, policy, others, traj)
        start = np.asarray(traj.obs)[0].argmax(-1)
        pairs = np.argwhere(start[:, None] == start[None, :])
        number = np.broadcast_to(np.arange(len(pairs)).repeat(2), (len(traj.reward), pairs.size))
        batch = jax.tree.map(lambda x, pairs=pairs: x[:, pairs.ravel()], known)
        batch, _ = estimator.weigh(params, state, batch._replace(group=jnp.asarray(number)))
        of_pair = (
            np.prod(np.asarray(probability)[pairs], axis=1) / tree.mdp.initial[start[pairs[:, 0]]]
        )
        share = jnp.asarray(of_pair.repeat(2))[None]
        counted = batch._replace(psi=batch.psi * share * len(pairs))
        mean -= np.asarray(estimator.grad(params, counted)[0].policy) / 2
    off = np.abs(mean - np.asarray(tabular.exact_gradient(tree.mdp, logits))).max()
    assert off < 1e-12 if heuristic == "own" else off > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "heuristic",
    ["power", *(pytest.param(name, marks=pytest.mark.slow) for name in ("own", "balance"))],
)
def test_each_policy_of_a_mixture_collects_its_share(heuristic: Any) -> None:
    """Through the rollout of training: each share is of its policy, and the mean of all of them
    the gradient.
    """
    tree, logits, others = mixture(3)
    policy, size = tabular.table_policy(logits), 30_000
    made = Config(
        env=tree.mdp,
        estimator=sequence_estimator(baseline="none", ratio="sequence"),
        num_envs=size,
        group_size=2,
        policy_lag=2,
        lag_mixture=heuristic,
        preset=None,
    )
    env = envs.configured(made, lag.num_envs(made))
    collector = lag.mixed(made, rollout.make_collector(made, env), policy)
    actor = networks.actor(policy, policy)
    traj = jax.jit(lambda key: collector.collect(actor, others, key, ()).traj)(KEY)
    np.testing.assert_array_equal(traj.group[0], np.arange(size) // 2)
    of_own = size // 3
    for number, own in enumerate(others.policy):
        rows = slice(number * of_own, (number + 1) * of_own)
        of_rows = jax.tree.map(lambda x, rows=rows: x[:, rows], traj)
        log_pi = jax.nn.log_softmax(own)[of_rows.obs.argmax(-1), of_rows.action]
        if heuristic == "own":
            np.testing.assert_allclose(of_rows.log_prob, log_pi, rtol=0, atol=1e-12)
        first = np.bincount(np.asarray(of_rows.action[0]), minlength=by_loops.TOKENS) / of_own
        states = tree.mdp.initial[:, None] * jax.nn.softmax(own)
        assert np.abs(first - states.sum(0)).max() < 5.7 * 0.5 / np.sqrt(of_own / 2)
    estimator = made.estimator(policy, policy, Hyperparams())
    params, state = estimator.init(KEY)
    # a batch is an episode of each policy
    turns = jnp.arange(size).reshape(3, of_own).T.ravel()
    mixed = jax.tree.map(lambda x: x[:, turns], traj)
    truth = np.asarray(tabular.exact_gradient(tree.mdp, logits)).ravel()
    assert np.abs(z_scores(estimator, params, state, mixed, 3, truth)).max() < 5.7


def test_a_mixture_fits_the_batch() -> None:
    with pytest.raises(ValueError, match="give policy_lag of at least 1, or lag_mixture='none'"):
        config(0, lag_mixture="balance")
    with pytest.raises(ValueError, match="needs collect='episodes', got 'windows'"):
        config(1, "vtrace", lag_mixture="own", collect="windows")
    with pytest.raises(ValueError, match="a multiple of the 4 policies of lag_mixture='power'"):
        config(3, lag_mixture="power")
    with pytest.raises(ValueError, match="a multiple of the 3 policies × group_size=6 of lag"):
        config(2, lag_mixture="own", group_size=6)
