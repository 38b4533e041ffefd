"""The prefix tree of sequences equals the environment, and sums over all sequences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import networks, rollout
from pg.config import Config
from pg.envs import Sequences, make_env
from pg.envs.sequences import all_sequences
from pg.exact import tabular
from pg.exact.tabular import prefix_tree

pytestmark = pytest.mark.usefixtures("x64")
V, L, N = 3, 3, 2
RNG = np.random.default_rng(0)
ends = pytest.mark.parametrize("end", [1, pytest.param(None, marks=pytest.mark.slow)])


def problem(end: int | None, **changes: Any) -> Sequences:
    """Two prompts, and a reward at random of each sequence."""
    sizes: dict[str, Any] = {"num_tokens": V, "max_length": L, "end_token": end}
    rewards = np.random.default_rng(1).normal(size=(N, len(all_sequences(V, L, end))))
    settings = {"prompts": N, "prompt_probabilities": [0.3, 0.7], "observation": "table"}
    return Sequences(**{**sizes, "reward": rewards, **settings, **changes})


def logits_of(env: Sequences) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(env.num_prefixes + 1, V))


def summed(env: Sequences, rewards: np.ndarray, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """J and its gradient as sums over prompts and sequences, in numpy."""
    rows = {prefix: row for row, prefix in enumerate(env.prefixes)}
    pi = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    J, gradient = 0.0, np.zeros_like(logits)
    for prompt, weight in enumerate(env.prompt_probabilities):
        for m, y in enumerate(all_sequences(V, L, env.end_token)):
            probability, score = weight, np.zeros_like(logits)
            for t, token in enumerate(y):
                row = rows[prompt, y[:t]]
                probability *= pi[row, token]
                score[row] += np.eye(V)[token] - pi[row]
            J += probability * rewards[prompt, m]
            gradient += probability * rewards[prompt, m] * score
    return J, gradient


@ends
def test_return_and_gradient_are_sums_over_all_sequences(end: int | None) -> None:
    rewards = RNG.normal(size=(N, len(all_sequences(V, L, end))))
    env = problem(end, reward=rewards)
    mdp, logits = prefix_tree(env), logits_of(env)
    J, gradient = summed(env, rewards, logits)
    exact = jax.jit(jax.value_and_grad(lambda x: tabular.exact_return(mdp, x)))
    assert abs(exact(logits)[0] - J) < 1e-12
    np.testing.assert_allclose(exact(logits)[1], gradient, atol=1e-12)
    traj, probability = jax.jit(lambda x: tabular.enumerate_trajectories(mdp, x))(logits)
    assert len(probability) == rewards.size
    assert abs(probability.sum() - 1.0) < 1e-12
    assert abs(probability @ traj.reward.sum(0) - J) < 1e-12
    assert (traj.terminated.sum(0) == 1).all()


@pytest.mark.parametrize("moments", [tabular.total_return_moments, tabular.reward_to_go_moments])
def test_the_recursion_of_moments_gives_the_same_gradient(moments: Any) -> None:
    mdp = prefix_tree(env := problem(1))
    gradient, mean = jax.jit(lambda x: (tabular.exact_gradient(mdp, x), moments(mdp, x)[0]))(
        logits_of(env)
    )
    np.testing.assert_allclose(mean, gradient.ravel(), atol=1e-12)


@ends
def test_rollouts_are_those_of_the_environment_bit_for_bit(end: int | None) -> None:
    env = problem(end)
    logits = jnp.asarray(logits_of(env))
    policy = tabular.table_policy(logits)
    of_env, of_tree = (
        rollout.episodes(make_env(x, 100), policy, logits, jax.random.key(3))
        for x in (env, prefix_tree(env))
    )
    for name, own, tabled in zip(of_env._fields, of_env, of_tree, strict=True):
        if name != "carry":
            np.testing.assert_array_equal(own, tabled, err_msg=name)


@ends
def test_the_tree_is_what_steps_of_the_environment_show(end: int | None) -> None:
    env = problem(end)
    tree, found = prefix_tree(env), tabular.tabulate(env)
    row = found.features.argmax(-1)  # of the tree, for each state that was found
    going_on = ~found.terminal
    assert sorted(row[going_on]) == list(range(env.num_prefixes))
    assert set(row[~going_on]) == {env.num_prefixes}
    successor = row[found.transition.argmax(-1)]
    for s in np.flatnonzero(going_on):
        np.testing.assert_array_equal(tree.transition[row[s]].argmax(-1), successor[s])
        np.testing.assert_allclose(tree.mean_reward[row[s]], found.mean_reward[s], rtol=1e-6)
    assert tree.horizon == found.horizon


def test_rewards_of_tokens_are_in_the_tree() -> None:
    table = RNG.normal(size=(problem(1).num_prefixes, V))
    whole = RNG.normal(size=len(all_sequences(V, L, 1)))
    env = problem(1, reward=whole, token_reward=table)
    mdp = prefix_tree(env)
    at_end = prefix_tree(problem(1, reward=whole)).mean_reward
    np.testing.assert_allclose(mdp.mean_reward[:-1], table + at_end[:-1], atol=1e-12)


@pytest.mark.parametrize(
    ("observation", "rnn"),
    [("prefix", "none"), pytest.param("last", "gru", marks=pytest.mark.slow)],
)
def test_a_network_has_an_exact_gradient(observation: str, rnn: Any) -> None:
    """Sums over trajectories, by the network that acts in the environment."""
    whole = RNG.normal(size=len(all_sequences(V, 2, 1)))
    changes = {"max_length": 2, "prompts": [[0, 1], [2, 2]], "observation": observation}
    env = problem(1, reward=whole, **changes)
    config = Config(env=env, hidden_sizes=(5,), rnn=rnn, rnn_size=4, preset=None)
    mdp = prefix_tree(env)
    of_env, of_tree = (networks.make_policy(config, make_env(x, 2)) for x in (env, mdp))
    params = of_env.init(jax.random.key(0))
    shapes = jax.eval_shape(of_tree.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    zeros = jnp.zeros((mdp.num_states, V))
    traj, _ = jax.jit(lambda x: tabular.enumerate_trajectories(mdp, x))(zeros)
    begins = jnp.asarray(mdp.initial)[tabular.initial_states(mdp)]

    @jax.jit
    def enumerated(params: Any) -> jax.Array:
        log_prob = networks.unroll(of_env, params, traj.obs, traj.first).log_prob(traj.action)
        return begins * jnp.exp(jnp.sum(jnp.where(traj.valid, log_prob, 0.0), axis=0))

    assert abs(enumerated(params).sum() - 1.0) < 1e-12
    if rnn == "none":

        def exact(params: Any) -> jax.Array:
            return tabular.exact_return(mdp, tabular.table(mdp, of_env, params))

        def of_trajectories(params: Any) -> jax.Array:
            return enumerated(params) @ traj.reward.sum(0)

        gradients = [jax.jit(jax.grad(f))(params) for f in (exact, of_trajectories)]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), *gradients)
    else:  # what acts in the environment is what the sum is over
        batch = rollout.episodes(make_env(env, 50), of_env, params, jax.random.key(1))
        log_prob = networks.unroll(of_env, params, batch.obs, batch.first).log_prob(batch.action)
        np.testing.assert_allclose(
            jnp.where(batch.valid, batch.log_prob, 0.0),
            jnp.where(batch.valid, log_prob, 0.0),
            atol=1e-12,
        )


def test_problems_of_sequences_are_what_their_names_say() -> None:
    problems = tabular.sequence_problems()
    lengths = {
        name: {len(y) for y in all_sequences(env.num_tokens, env.max_length, env.end_token)}
        for name, env in problems.items()
    }
    assert lengths["equal_lengths"] == {3}
    assert lengths["unequal_lengths"] == set(range(1, 8))
    mdp = prefix_tree(problems["agreeing_groups"])
    _, values = jax.jit(lambda x: tabular.values(mdp, x))(np.zeros((mdp.num_states, 3)))
    np.testing.assert_allclose(values[0, :3], [8 / 9, 1 / 9, 5 / 9], atol=1e-12)


def test_a_tree_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="the prefix tree has 4,096 states of 3 tokens"):
        prefix_tree(problem(1, prompts=1, prompt_probabilities=None, max_length=12, reward=_one))


def _one(prompt: Any, tokens: Any, length: Any) -> float:
    return 1.0
