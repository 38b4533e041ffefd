"""The causal transformer: token by token with its cache, it computes the same as in one pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pg
from pg import rollout
from pg.config import Config
from pg.envs import sequence_tasks
from pg.layers import causal
from pg.networks import Network, as_float, start, unroll
from pg.rollout import Trajectory

KEY = jax.random.key(0)
NUM_ENVS = 6
SIZES = (8, 8)


def task(length: int = 9, observation: str = "last") -> Any:
    """Prompts of two tokens, and sequences of different lengths."""
    return pg.envs.Sequences(
        num_tokens=5,
        max_length=length,
        end_token=4,
        reward=lambda prompt, tokens, length: (tokens == prompt[0]).sum() - 0.1 * length,
        prompts=[[0, 1], [2, 3], [1, 4]],
        observation=observation,
    )


def settings(env: Any = None, **changes: Any) -> Config:
    """A transformer of two narrow blocks with two heads."""
    small = {"network": "causal_transformer", "hidden_sizes": SIZES, "rnn_heads": 2}
    env = task() if env is None else env
    return Config(**{"env": env, "num_envs": NUM_ENVS, "preset": None, **small, **changes})


def policy_and_params(env: Any) -> tuple[Network, Any]:
    """A policy whose parameters are all of ordinary size."""
    policy = pg.make_policy(settings(env), pg.make_env(env, NUM_ENVS))
    flat, unravel = ravel_pytree(jax.jit(policy.init)(KEY))
    noise = jax.random.normal(jax.random.key(1), flat.shape, jnp.float32)
    return policy, unravel(flat + 0.3 * noise)


def sampled(env: Any, policy: Network, params: Any) -> Trajectory:
    """A batch of sequences."""
    batched = pg.make_env(env, NUM_ENVS)
    return jax.jit(lambda: rollout.episodes(batched, policy, params, jax.random.key(5)))()


@pytest.fixture(scope="module")
def batch() -> tuple[Network, Any, Trajectory]:
    policy, params = policy_and_params(task())
    return policy, params, sampled(task(), policy, params)


def largest_difference(policy: Network, params: Any, traj: Trajectory) -> float:
    """The largest difference of log π in the rollout from log π in one pass."""
    again = jax.jit(lambda: unroll(policy, params, traj.obs, traj.first))()
    difference = jnp.abs(again.log_prob(traj.action) - traj.log_prob)
    return float(jnp.where(traj.valid, difference, 0.0).max())


def seen(traj: Trajectory, t: int) -> Any:
    """The observations [B, ...] at step t."""
    return as_float(jax.tree.map(lambda x: x[t], traj.obs))


def test_a_rollout_is_one_pass(batch: tuple[Network, Any, Trajectory]) -> None:
    policy, params, traj = batch
    lengths = np.asarray(traj.valid.sum(axis=0))
    assert len(set(lengths.tolist())) > 1
    assert largest_difference(policy, params, traj) < 1e-5


@pytest.mark.usefixtures("x64")
def test_to_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a few tokens attending at a time, whose gradient is that of all at once."""
    policy, params = policy_and_params(task())

    def log_prob(params: Any, traj: Trajectory) -> jax.Array:
        log_prob = unroll(policy, params, traj.obs, traj.first).log_prob(traj.action)
        return jnp.where(traj.valid, log_prob, 0.0)

    def slopes(traj: Trajectory) -> tuple[Any, Any]:
        def total(params: Any) -> Any:
            of_steps = log_prob(params, traj)
            return of_steps.sum(), of_steps

        return jax.jit(jax.grad(total, has_aux=True))(params)

    traj = sampled(task(), policy, params)
    assert traj.valid.sum(axis=0).max() > 4
    at_once, of_steps = slopes(traj)
    np.testing.assert_allclose(
        of_steps, jnp.where(traj.valid, traj.log_prob, 0.0), rtol=0, atol=1e-12
    )
    monkeypatch.setattr(causal, "QUERIES", 4)
    few, _ = slopes(traj)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), at_once, few)
    assert all(float(jnp.abs(x).max()) > 1e-6 for x in jax.tree.leaves(at_once))


def test_of_all_tokens_it_reads_the_last(batch: tuple[Network, Any, Trajectory]) -> None:
    policy, params, traj = batch
    tokens = np.full((9, NUM_ENVS, 9), 5)
    for t in range(9):
        before = np.asarray(traj.obs["position"])[t, :, 0]
        for env in range(NUM_ENVS):
            tokens[t, env, : before[env]] = np.asarray(traj.action)[: before[env], env]
    prefix, _ = policy_and_params(task(observation="prefix"))
    prefixes = {"prompt": traj.obs["prompt"], "position": traj.obs["position"]}
    prefixes["tokens"] = jnp.asarray(tokens)
    np.testing.assert_array_equal(
        unroll(prefix, params, prefixes, traj.first).logits,
        unroll(policy, params, traj.obs, traj.first).logits,
    )


def test_a_token_sees_the_prompt_and_what_is_before_it(
    batch: tuple[Network, Any, Trajectory],
) -> None:
    policy, params, traj = batch

    @jax.jit
    def logits(obs: Any) -> jax.Array:
        return unroll(policy, params, obs, traj.first).logits

    before = logits(traj.obs)
    other_token = traj.obs | {"token": traj.obs["token"].at[4].set(3 - traj.obs["token"][4] % 2)}
    changed = jnp.abs(logits(other_token) - before).max(axis=(1, 2)) > 1e-6
    np.testing.assert_array_equal(changed, np.arange(9) >= 4)
    # the prompt is read where the sequence begins, and nowhere else
    for row, expected in ((0, True), (3, False)):
        prompt = traj.obs["prompt"].at[row].add(1)
        found = jnp.abs(logits(traj.obs | {"prompt": prompt}) - before).max(axis=(1, 2)) > 1e-6
        assert found.all() == expected == found.any()


def test_a_sequence_that_begins_forgets_the_last_one(
    batch: tuple[Network, Any, Trajectory],
) -> None:
    """Some environments start new episodes while the others continue."""
    policy, params, traj = batch
    step = jax.jit(policy.apply)
    carry = start(policy, NUM_ENVS)
    for t in range(3):
        carry, dist = step(params, carry, seen(traj, t), traj.first[t])
    first_row, third_row = seen(traj, 0), seen(traj, 2)
    begins = jnp.arange(NUM_ENVS) < 2

    def mixed(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(begins[:, None], x, y)

    # the others are given the same token again, whose place in the cache it takes
    _, again = step(params, carry, jax.tree.map(mixed, first_row, third_row), begins)
    _, fresh = step(params, start(policy, NUM_ENVS), first_row, jnp.ones(NUM_ENVS, bool))
    np.testing.assert_allclose(again.logits, mixed(fresh.logits, dist.logits), atol=1e-6)


def test_a_batch_holds_the_cache_once(batch: tuple[Network, Any, Trajectory]) -> None:
    _, _, traj = batch
    assert {x.shape[:2] for x in jax.tree.leaves(traj.carry)} == {(1, NUM_ENVS)}
    assert {x.shape[:2] for x in jax.tree.leaves(traj.without_carry)} == {(9, NUM_ENVS)}
    assert sum(x.nbytes for x in jax.tree.leaves(traj.obs)) == 9 * NUM_ENVS * (1 + 1 + 2)


def test_seeds_side_by_side_are_each_alone(batch: tuple[Network, Any, Trajectory]) -> None:
    """The prompt is read in a branch that is rarely taken, and also if it is."""
    policy, params, traj = batch
    env = pg.make_env(task(), NUM_ENVS)

    def sample(key: Any) -> Trajectory:
        return rollout.episodes(env, policy, params, key)

    keys = jax.vmap(jax.random.key)(jnp.array([4, 5]))
    traced = jax.jit(jax.vmap(sample)).trace(keys)
    together = traced.lower().compile()(keys)
    np.testing.assert_array_equal(together.action[1], traj.action)
    np.testing.assert_allclose(together.log_prob[1], traj.log_prob, atol=1e-6)
    loop = str(traced.jaxpr).partition("scan[")[2]
    assert "cond[" in loop


def test_no_initialiser_calls_lapack() -> None:
    policy, _ = policy_and_params(task())
    program = jax.jit(jax.vmap(policy.init)).lower(jax.random.split(KEY, 2)).as_text()
    assert "lapack" not in program


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"env": "CartPole-v1"},
            "network='causal_transformer' reads prompt, position and the last token .*use "
            "network='mlp'",
        ),
        ({"rnn": "gru"}, "so needs rnn='none', got 'gru'"),
        ({"collect": "windows", "estimator": "gae"}, "so needs collect='episodes', got 'windows'"),
        ({"optimizer": "natural"}, "optimizer='natural' needs a policy without a recurrent state"),
        ({"layer_norm": True}, "layer_norm is for network='mlp' and 'cnn'"),
        ({"conv": ("16x3",)}, "conv=16x3 is for images, and network='causal_transformer' has none"),
        ({"hidden_sizes": (8, 16)}, r"hidden_sizes must be of .* one width, .* got \(8, 16\)"),
        ({"hidden_sizes": ()}, r"hidden_sizes must be of one or more blocks .* got \(\)"),
        ({"rnn_heads": 3}, "which rnn_heads=3 divides"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.make_learner(settings(**changes))


@pytest.mark.slow
def test_memory_grows_with_the_length() -> None:
    """By the compiler's account, twice the length takes less than four times the memory."""

    def temporary(length: int) -> int:
        config = settings(task(length), num_envs=64, hidden_sizes=(64, 64))
        learner = pg.make_learner(config)
        state = jax.eval_shape(learner.init, KEY)
        memory = jax.jit(learner.step).lower(state, KEY).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    sizes = [temporary(length) for length in (32, 64, 128)]
    assert sizes[2] - sizes[1] < 2.3 * (sizes[1] - sizes[0])


@pytest.mark.slow
def test_it_learns_to_reverse() -> None:
    env = sequence_tasks.reverse(num_symbols=2, num_places=3, observation="last")
    config = settings(
        env, estimator="leave_one_out", num_envs=64, num_updates=150, hidden_sizes=(32, 32)
    )
    h = config.hyperparams(learning_rate=0.003)
    _, metrics = jax.jit(pg.make_train(config))(KEY, h)
    assert metrics["return"][-20:].mean() > 0.9
