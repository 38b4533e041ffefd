"""Sequence tasks: their answers, their best return, and that one of them is learned."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pg
from pg.config import SEQUENCES, Config, check_env
from pg.envs import Sequences, make_env, sequence_tasks
from pg.envs.sequences import SequenceState, all_sequences


def rewards(env: Sequences) -> dict[tuple[int, tuple[int, ...]], float]:
    """The reward of every whole sequence, by number of the prompt and tokens."""
    sequences = all_sequences(env.num_tokens, env.max_length, env.end_token)
    before = np.full((len(sequences), env.max_length), env.num_tokens)
    for row, y in enumerate(sequences):
        before[row, : len(y) - 1] = y[:-1]

    def reward(prompt: Any, tokens: Any, length: Any, last: Any) -> Any:
        state = SequenceState(prompt, tokens, length)
        return env.step_env(jax.random.key(0), state, last, env.default_params)[2:4]

    arrays = before, [len(y) - 1 for y in sequences], [y[-1] for y in sequences]
    of_prompt = jax.vmap(reward, (None, 0, 0, 0))
    prompts = jnp.arange(env.num_prompts)
    over_prompts = jax.jit(jax.vmap(of_prompt, (0, None, None, None)))
    values, ended = over_prompts(prompts, *(jnp.asarray(x, jnp.int32) for x in arrays))
    assert bool(ended.all())
    pairs = itertools.product(range(env.num_prompts), sequences)
    return dict(zip(pairs, np.asarray(values).ravel().tolist(), strict=True))


def test_the_sum_is_the_one_right_answer() -> None:
    env = sequence_tasks.modular_sum(3, 2)
    prompts = env.prompts.tolist()
    assert prompts == [list(p) for p in itertools.product(range(3), repeat=2)]
    for (prompt, y), reward in rewards(env).items():
        assert reward == (y == (sum(prompts[prompt]) % 3, 3))


def test_a_reverse_is_worth_the_share_that_is_right() -> None:
    env = sequence_tasks.reverse(2, 3)
    prompts = env.prompts.tolist()
    best = dict.fromkeys(range(8), 0.0)
    for (prompt, y), reward in rewards(env).items():
        answer = [*prompts[prompt][::-1], 2]
        right = sum(a == b for a, b in zip(answer, y, strict=False))
        assert reward == pytest.approx(right / 4)
        best[prompt] = max(best[prompt], reward)
    assert best == dict.fromkeys(range(8), 1.0)
    assert sequence_tasks.reverse(5, 20, num_prompts=7).prompts.shape == (7, 20)


def test_balanced_brackets_are_as_many_as_catalan_says() -> None:
    right = {key for key, reward in rewards(sequence_tasks.brackets(4)).items() if reward == 1.0}
    number = [sum(prompt == k for prompt, _ in right) for k in range(4)]
    assert number == [1, 2, 5, 14]
    assert (1, (0, 1, 0, 1, 2)) in right
    assert set(rewards(sequence_tasks.brackets(2)).values()) == {0.0, 1.0}


def test_tasks_have_names_that_are_known_without_jax() -> None:
    assert tuple(sequence_tasks.TASKS) == SEQUENCES
    for name in SEQUENCES:
        assert make_env(name, 2).max_steps == sequence_tasks.make(name).max_length
    with pytest.raises(ValueError, match="did you mean 'sequences:reverse'"):
        check_env("sequences:revers")
    with pytest.raises(ValueError, match="'sequences:reverse'"):
        check_env("reverse")
    with pytest.raises(ValueError, match="did you mean 'sequences'"):
        check_env("sequence:reverse")
    with pytest.raises(ValueError, match=r"there are 10\^9 prompts, and at most 10,000 are listed"):
        sequence_tasks.modular_sum(10, 9)


@pytest.mark.slow
def test_leave_one_out_learns_to_reverse() -> None:
    config = Config(
        env="sequences:reverse", estimator="leave_one_out", num_envs=64, num_updates=400
    )
    train = jax.jit(pg.make_train(config))
    _, metrics = train(jax.random.key(0), config.hyperparams(learning_rate=0.01))
    returns = np.asarray(metrics["return"])
    assert returns[0] < 0.3
    assert returns[-20:].mean() > 0.97
