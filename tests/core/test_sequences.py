"""The sequence environment: its observations, rewards and ends, and its groups."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import envs, networks
from pg.config import Config, Hyperparams
from pg.distributions import Categorical
from pg.envs import Sequences, make_env
from pg.envs.sequences import all_sequences
from pg.estimators import ESTIMATORS
from pg.networks import Network
from pg.rollout import Trajectory, episodes

V, L, END = 3, 4, 1
SIZES: dict[str, Any] = {"num_tokens": V, "max_length": L, "end_token": END}
KEY = jax.random.key(0)


def digits(prompt: Any, tokens: jax.Array, length: jax.Array) -> jax.Array:
    """A reward that tells every prompt, sequence and length apart."""
    place = (V + 1.0) ** -jnp.arange(1, L + 1)
    return jnp.sum(prompt) + tokens @ place + 10.0 * length


uniform = Network(
    lambda key: jnp.zeros(V),
    lambda p, carry, obs, first: (carry, Categorical(jnp.broadcast_to(p, (*first.shape, V)))),
)


@functools.cache
def sampled(**changes: Any) -> Trajectory:
    """Episodes of a uniform policy."""
    env = Sequences(**{**SIZES, "reward": digits, "prompts": 2, **changes})
    return episodes(make_env(env, 64), uniform, jnp.zeros(V), KEY)


def played(env: Sequences, tokens: tuple[int, ...], prompt: int = 0) -> list[Any]:
    """The results of `step_env` along these tokens."""
    params, steps = env.default_params, []
    step = jax.jit(lambda state, token: env.step_env(KEY, state, token, params))
    state = jax.jit(env.reset_env)(KEY, params)[1]._replace(prompt=jnp.int32(prompt))
    for token in tokens:
        steps.append(step(state, token))
        state = steps[-1][1]
    return steps


@pytest.mark.parametrize("end", [END, None])
def test_a_sequence_ends_with_the_end_token_or_at_its_longest(end: int | None) -> None:
    traj = sampled(end_token=end)
    ends_now = traj.valid & (
        (traj.action == (END if end is not None else V)) | (traj.time == L - 1)
    )
    np.testing.assert_array_equal(traj.terminated, ends_now)
    assert traj.terminated.sum(0).tolist() == [1] * 64
    lengths = set(np.asarray(traj.valid.sum(0)).tolist())
    assert lengths == ({1, 2, 3, 4} if end is not None else {4})


def test_a_whole_sequence_is_rewarded_with_its_last_token() -> None:
    traj = sampled()
    for b in range(64):
        length = int(traj.valid[:, b].sum())
        tokens = jnp.where(traj.valid[:, b], traj.action[:, b], V)
        prompt = traj.obs["prompt"][0, b]
        expected = np.zeros(L)
        expected[length - 1] = digits(prompt, tokens, length)
        np.testing.assert_allclose(traj.reward[:, b], expected, rtol=1e-6)


@pytest.mark.parametrize("end", [0, None])
def test_a_table_is_in_the_order_of_all_sequences(end: int | None) -> None:
    sequences = all_sequences(V, L, end)
    assert sequences == sorted(set(sequences), key=lambda y: (len(y), y))
    sizes = {**SIZES, "end_token": end}
    table = np.arange(2 * len(sequences)).reshape(2, -1)
    env = Sequences(**sizes, prompts=2, reward=table)
    some = range(0, len(sequences), 7)
    for prompt, m in ((0, 0), (1, len(sequences) - 1), *((m % 2, m) for m in some)):
        steps = played(env, sequences[m], prompt)
        assert [bool(step[3]) for step in steps] == [False] * (len(steps) - 1) + [True]
        assert [float(step[2]) for step in steps] == [0.0] * (len(steps) - 1) + [table[prompt, m]]


@pytest.mark.parametrize("end", [END, None])
def test_rewards_of_tokens_are_paid_at_each(end: int | None) -> None:
    sizes = {**SIZES, "end_token": end}
    rows = Sequences(**sizes, prompts=2, reward=digits).prefixes
    table = np.arange(len(rows) * V).reshape(-1, V)
    env = Sequences(**sizes, prompts=2, token_reward=table, reward=lambda prompt, y, n: 1000.0)
    continuing = [a for a in range(V) if a != end]
    tokens = (*continuing[:2], continuing[-1], V - 1)
    expected = [table[rows.index((1, tokens[:t])), tokens[t]] + 1000.0 * (t == 3) for t in range(4)]
    assert [float(step[2]) for step in played(env, tokens, 1)] == expected


def test_what_is_observed() -> None:
    prompts = [[0, 2], [2, 3]]  # the second is one token, and padding
    arguments: dict[str, Any] = {**SIZES, "reward": digits, "prompts": prompts}
    seen = [step[0] for step in played(Sequences(**arguments), (2, 0, END), 1)]
    assert [obs["tokens"].tolist() for obs in seen] == [[2, V, V, V], [2, 0, V, V], [2, 0, END, V]]
    assert [obs["position"].tolist() for obs in seen] == [[1], [2], [3]]
    assert [obs["prompt"].tolist() for obs in seen] == [[2, 3]] * 3
    last = Sequences(**arguments, observation="last")
    first = last.reset_env(KEY, last.default_params)[0]
    tokens = [first, *(step[0] for step in played(last, (2, 0, END), 1))]
    assert [obs["token"].tolist() for obs in tokens] == [[V], [2], [0], [END]]
    table = Sequences(**arguments, observation="table")
    for t, (obs, *_) in enumerate(played(table, (2, 0, END), 1)):
        row = table.prefixes.index((1, (2, 0)[: t + 1])) if t < 2 else table.num_prefixes
        assert np.flatnonzero(obs).tolist() == [row]


def test_prompts_come_with_their_probabilities() -> None:
    env = make_env(
        Sequences(**SIZES, reward=digits, prompts=[5, 7], prompt_probabilities=[0, 1]), 50
    )
    assert set(np.asarray(env.reset(KEY)[1]["prompt"]).ravel().tolist()) == {7.0}
    fair = make_env(Sequences(**SIZES, reward=digits, prompts=3), 3000)
    drawn = np.bincount(np.asarray(fair.reset(KEY)[1]["prompt"]).ravel().astype(int))
    np.testing.assert_allclose(drawn / 3000, [1 / 3] * 3, atol=0.04)


def test_networks_see_tokens_one_hot_and_own_ones_their_numbers() -> None:
    sequences = Sequences(**SIZES, reward=digits, prompts=[[0, 2], [2, 3]])
    env = make_env(sequences, 2)
    config = Config(env=sequences, hidden_sizes=(8,))
    policy = networks.make_policy(config, env)
    params = policy.init(KEY)
    kernel = params["params"]["torso"]["rest"]["Dense_0"]["kernel"]
    assert kernel.shape == ((L + 1) + 2 * (V + 1) + L * (V + 1), 8)
    obs = {
        "position": jnp.array([[1.0]]),
        "prompt": jnp.array([[2.0, 3.0]]),
        "tokens": jnp.array([[2.0, V, V, V]]),
    }
    entries = [1, L + 1 + 2, L + 1 + V + 1 + 3, *(L + 1 + (2 + t) * (V + 1) for t in range(L))]
    entries[3:] = [entry + token for entry, token in zip(entries[3:], (2, V, V, V), strict=True)]
    hidden = jnp.tanh(kernel[jnp.array(entries)].sum(0))
    head = params["params"]["head"]["Dense_0"]
    first = jnp.ones(1, bool)
    np.testing.assert_allclose(
        policy.apply(params, (), obs, first)[1].logits[0],
        hidden @ head["kernel"] + head["bias"],
        rtol=1e-5,
    )
    found = []

    def apply(p: Any, carry: Any, obs: Any, first: Any) -> Any:
        found.append(jax.tree.map(jnp.shape, obs))
        return carry, Categorical(jnp.broadcast_to(p, (*first.shape, V)))

    own = Config(env=sequences, policy=Network(lambda key: jnp.zeros(V), apply))
    networks.make_policy(own, env).apply(jnp.zeros(V), (), obs, first)
    assert found[-1] == {"position": (1, 1), "prompt": (1, 2), "tokens": (1, L)}
    with pytest.raises(ValueError, match="normalise_observations standardises numbers"):
        networks.make_policy(Config(env=sequences, normalise_observations=True), env)


def test_fewer_steps_end_the_task_and_a_horizon_cuts_it() -> None:
    env = Sequences(**SIZES, reward=digits, prompts=2)
    shorter = make_env(env, 64, {"max_steps_in_episode": 2})
    ended = episodes(shorter, uniform, jnp.zeros(V), KEY)
    assert ended.terminated.sum(0).tolist() == [1] * 64
    assert (ended.reward.sum(0) > 0).all()
    cut = episodes(make_env(env, 64), uniform, jnp.zeros(V), KEY, 2)
    is_cut = np.asarray(cut.truncated[1] & ~cut.terminated[1])
    assert is_cut.any()
    assert not np.asarray(cut.reward[:, is_cut]).any()


def test_a_table_has_no_sequence_that_fewer_steps_have_cut() -> None:
    env = Sequences(**SIZES, reward=np.ones(len(all_sequences(V, L, END))))
    traj = episodes(make_env(env, 64, {"max_steps_in_episode": 2}), uniform, jnp.zeros(V), KEY)
    ends = np.asarray((traj.action == END) & traj.valid).any(0)
    np.testing.assert_array_equal(traj.reward.sum(0), ends)


def test_groups_are_completions_of_one_prompt_each() -> None:
    """A reward of the prompt alone gives no completion an advantage over those of its group."""
    sizes = {**SIZES, "end_token": None}
    env = Sequences(**sizes, reward=lambda prompt, y, n: 1.0 * prompt, prompts=40)
    traj = episodes(make_env(env, 24), uniform, jnp.zeros(V), KEY, group_size=4)
    prompts = np.asarray(traj.obs["prompt"])[..., 0].reshape(L, 6, 4)
    assert (prompts == prompts[:1, :, :1]).all()
    assert len(set(prompts[0, :, 0].tolist())) > 3
    np.testing.assert_array_equal(traj.group[0], np.arange(24) // 4)
    tokens = np.asarray(traj.action).reshape(L, 6, 4)
    for group in range(6):
        assert len(np.unique(tokens[:, group], axis=1).T) > 1
    psi = {}
    for name in ("group_leave_one_out", "leave_one_out"):
        estimator = ESTIMATORS[name](uniform, None, Hyperparams())
        psi[name] = estimator.weigh(*estimator.init(KEY), traj)[0].psi
    assert np.abs(psi["group_leave_one_out"]).max() < 1e-4
    assert np.abs(psi["leave_one_out"]).max() > 1.0


def test_the_memory_of_a_batch_is_one_number_for_each_step_or_a_byte_for_each_token() -> None:
    def size(observation: str, longest: int) -> int:
        env = Sequences(
            num_tokens=V, max_length=longest, end_token=END, reward=lambda p, y, n: 1.0,
            observation=observation,
        )  # fmt: skip
        made = make_env(env, 8)
        shapes = jax.eval_shape(lambda key: episodes(made, uniform, jnp.zeros(V), key), KEY)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.obs))

    assert [size("last", n) for n in (16, 64)] == [8 * 16 * 3, 8 * 64 * 3]
    assert [size("prefix", n) for n in (16, 64)] == [8 * 16 * (2 + 16), 8 * 64 * (2 + 64)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_tokens": 1}, "num_tokens must be a whole number of at least 2, got 1"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, got 0"),
        ({"end_token": 3}, "end_token must be one of the 3 tokens, counted from 0, or None; got 3"),
        ({"reward": None}, "sequences need a reward: give reward, or token_reward"),
        ({"reward": np.ones(3)}, "reward must have shape (31,) or (1, 31), for all 31 sequences"),
        ({"token_reward": np.ones(3)}, "token_reward must have shape (15, 3), of each token after"),
        ({"reward": lambda y: 1.0}, "reward must be a function of prompt, tokens, length"),
        ({"prompts": [[0.5]]}, "prompts must be a number of them, or whole numbers from 0"),
        ({"prompt_probabilities": [0.5, 0.5]}, "prompt_probabilities must have shape (1,)"),
        ({"prompt_probabilities": [0.5]}, "prompt_probabilities must be probabilities that sum"),
        ({"observation": "prefixes"}, "unknown observation 'prefixes': did you mean 'prefix'"),
        ({"observation": "table", "max_length": 30}, "needs at most 100,000 prefixes, and there"),
    ],
)
def test_what_is_no_problem_of_sequences_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sequences(**{**SIZES, "reward": digits, **changes})


def test_a_space_of_tokens_has_the_shape_of_the_observation() -> None:
    class Wrong(Sequences):
        def observation_space(self, params: Any) -> Any:
            return envs.Tokens(3, (7,))

    with pytest.raises(ValueError, match=r"Tokens\(n=3, shape=\(7,\)\) must have that shape, got"):
        make_env(Wrong(**SIZES, reward=digits, observation="table"), 2)
