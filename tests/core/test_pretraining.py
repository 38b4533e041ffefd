"""Maximum likelihood on demonstrations, and training that starts from its parameters."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pg
from pg.commands import job
from pg.distributions import Categorical
from pg.envs import Sequences, sequence_tasks
from pg.envs.sequences import Demonstrations, SequenceState
from pg.estimators import sequence_estimator
from pg.networks import Network
from pg.pretraining import negative_log_likelihood

KEY = jax.random.key(0)
SMALL = {"num_envs": 4, "group_size": 2, "hidden_sizes": (4,), "num_updates": 2, "preset": None}
# log π of the two tokens, whatever is seen
by_token = Network(
    lambda key: jnp.zeros(2),
    lambda p, carry, obs, first: (carry, Categorical(jnp.broadcast_to(p, (*first.shape, 2)))),
)


@pytest.mark.parametrize("name", sequence_tasks.TASKS)
def test_a_demonstrator_is_always_right_and_errs_by_as_much_as_it_is_told(name: str) -> None:
    task = sequence_tasks.make(name)
    right, random = jax.jit(lambda: [task.demonstrations(KEY, 64, x) for x in (0.0, 1.0)])()
    assert right.first.sum() == 64 == (right.first & right.valid).sum()
    assert len(np.unique(right.obs["prompt"][0], axis=0)) > 2
    for shown in (right, random):
        ends = shown.valid & (shown.action == task.end_token)
        assert ends.sum(axis=0).max() == 1
    np.testing.assert_array_equal(worth(task, right), 1.0)
    assert worth(task, random).mean() < 0.6


def worth(task: Sequences, shown: Any) -> np.ndarray:
    """The return of each demonstration, whose actions are taken again in the environment."""

    def one(obs: Any, action: Any, valid: Any) -> Any:
        length = valid.sum()
        same = (jnp.asarray(task.prompts).reshape(task.num_prompts, -1) == obs["prompt"][:1]).all(1)
        before = jnp.where(jnp.arange(task.max_length) < length - 1, action, task.num_tokens)
        state = SequenceState(jnp.argmax(same), before, length - 1)
        params = task.default_params
        _, _, reward, terminated, _ = task.step_env(KEY, state, action[length - 1], params)
        return jnp.where(terminated, reward, jnp.nan)

    rows = jax.vmap(one, in_axes=1)
    return np.asarray(jax.jit(rows)(shown.obs, shown.action, shown.valid))


def test_the_most_likely_policy_has_the_shares_of_the_tokens() -> None:
    """Only valid steps count: (1, 1, 0) ends after two, and the third step is not valid."""
    action = jnp.array([[1, 0], [1, 0], [0, 1]])
    valid = jnp.array([[True, True], [True, True], [False, True]])
    first = jnp.zeros((3, 2), bool).at[0].set(True)
    shown = Demonstrations(jnp.zeros((3, 2, 1)), action, first, valid)

    def fit(key: Any) -> Any:
        return pg.pretrain(by_token, shown, key, num_steps=300, batch_size=64, learning_rate=0.05)

    params, losses = jax.jit(fit)(KEY)
    share = 3 / 5
    np.testing.assert_allclose(jax.nn.softmax(params)[1], share, atol=0.03)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    np.testing.assert_allclose(losses[-50:].mean(), entropy, atol=0.01)
    np.testing.assert_allclose(
        negative_log_likelihood(by_token, jnp.zeros(2), shown), np.log(2), rtol=1e-6
    )
    # it goes on from parameters that are given
    again, _ = pg.pretrain(by_token, shown, KEY, num_steps=1, learning_rate=0.0, params=params)
    np.testing.assert_array_equal(again, params)


def config(params: Any, **changes: Any) -> pg.Config:
    estimator = sequence_estimator(kl="k1")
    start = None if params is None else pg.starting_from(params)
    given = {"env": "sequences:modular_sum", **SMALL, **changes}
    return pg.Config(estimator=estimator, policy=start, **given)


def test_training_starts_from_parameters_and_the_reference_is_there_too(tmp_path: Path) -> None:
    """Whatever the seed; a run folder holds their digest, without which it is not resumed."""
    params = pg.make_policy(config(None), pg.make_env("sequences:modular_sum", 1)).init(KEY)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.1, params)
    for seed in (1, 2):
        state = pg.make_learner(config(params)).init(jax.random.key(seed))
        jax.tree.map(np.testing.assert_array_equal, state.params.policy, params)
        jax.tree.map(np.testing.assert_array_equal, state.estimator_state, params)
    options = job.Options(out=tmp_path, name="run", eval_episodes=2)
    made = config(params)
    assert job.run(made, made.hyperparams(), options) == 0
    (folder,) = tmp_path.glob("*/*/run")
    resumed = job.Options(resume=folder, eval_episodes=2)
    more = config(params, num_updates=3)
    assert job.run(more, more.hyperparams(), resumed) == 0
    other = config(jax.tree.map(lambda x: 2 * x, params), num_updates=4)
    assert job.run(other, other.hyperparams(), resumed) == 2


def test_refusals() -> None:
    with pytest.raises(ValueError, match="has no demonstrator: give Sequences one"):
        Sequences(num_tokens=2, max_length=2, end_token=1, reward=np.zeros(3)).demonstrations(
            KEY, 2
        )
    with pytest.raises(ValueError, match=r"noise must be from 0 to 1, got 2\.0"):
        sequence_tasks.reverse().demonstrations(KEY, 2, 2.0)
    with pytest.raises(ValueError, match=r"params, those that training starts from: .* must be "):
        pg.make_learner(config({"params": {"head": np.zeros(3)}}))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["modular_sum", "brackets"])
def test_pretrained_a_policy_learns_the_task(task: str) -> None:
    """A sum it does not learn from nothing; brackets this network learns then too."""
    env = f"sequences:{task}"
    wide = {"num_envs": 64, "group_size": 8, "hidden_sizes": (32, 32), "num_updates": 120}
    network = {"network": "causal_transformer", "activation": "gelu"}
    start = config(None, env=env, **wide, **network)
    policy = pg.make_policy(start, pg.make_env(env, 1))
    shown = sequence_tasks.make(env).demonstrations(KEY, 2000, 0.3)
    params, _ = jax.jit(lambda key: pg.pretrain(policy, shown, key, num_steps=300))(KEY)

    def returns(params: Any) -> jax.Array:
        made = config(params, env=env, **wide, **network)
        h = made.hyperparams(learning_rate=1e-3, kl_coef=0.01)
        train = jax.jit(jax.vmap(lambda key: pg.make_train(made, h)(key)[1]["return"]))
        return train(jax.random.split(KEY, 3))[:, -10:].mean(axis=1)

    assert returns(params).min() > 0.9
    if task == "modular_sum":
        assert returns(None).mean() < 0.8
