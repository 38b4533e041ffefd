"""Gradient accumulation: an update in micro-batches equals that of the whole batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import MDP

from pg import with_facts
from pg.config import Config
from pg.estimators import build_estimator
from pg.estimators.base import Credit
from pg.estimators.facts import FACTS
from pg.estimators.selection import selected
from pg.fast import key_numbers, row_keys
from pg.train import make_learner

KEY = jax.random.key(3)
ACCUMULATED = [name for name, row in FACTS.items() if row.accumulates]


def settings(estimator: str, **changes: Any) -> Config:
    """Episodes of a table, or windows of one, of 12 environments."""
    given = {"env": MDP, "num_envs": 12, "num_updates": 3, "hidden_sizes": (4,), **changes}
    row = FACTS[estimator]
    given = {"collect": row.collect[-1], "num_steps": 7, **given}
    if row.baseline == "group":
        given["group_size"] = 2
    if "discrete" not in row.actions:
        given |= {"env": "Pendulum-v1", "horizon": 5}
    return Config(estimator=estimator, preset=None, **given)


def two_updates(config: Config) -> Any:
    """The state and the metrics after two updates."""
    learner = make_learner(config, config.hyperparams(gamma=0.9, entropy_coef=0.1))
    step = jax.jit(learner.step)
    state, _ = step(learner.init(KEY), jax.random.key(4))
    return step(state, jax.random.key(5))


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    """Leaf by leaf within `tolerance` of the largest number of a leaf; and 1e-15, as divergences
    that are 0 are sums of rounding.
    """

    def check(x: Any, y: Any) -> None:
        x, y = map(key_numbers.as_numbers, (x, y))
        assert x.dtype == y.dtype
        x, y = np.asarray(x, float), np.asarray(y, float)
        largest = np.max(np.abs(x), initial=0.0, where=np.isfinite(x))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * largest + 1e-15)

    jax.tree.map(check, one, other)


@pytest.mark.usefixtures("x64")
def test_rows_of_a_batch_draw_what_they_draw_in_the_whole() -> None:
    """Numbers of every width, after splits and folds, and the keys of the rows."""

    def drawn(key: Any, number: int) -> list[Any]:
        other, folded = jax.random.split(key)[1], jax.random.fold_in(key, 7)
        return [
            jax.random.normal(key, (number, 3), jnp.float64),
            jax.random.uniform(other, (number,), jnp.float32),
            jax.random.bits(folded, (number, 2), jnp.uint8),
            jax.random.key_data(row_keys.split(folded, number)),
            jax.vmap(lambda key: jax.random.bits(key, (number,)))(jax.random.split(key, 4)).T,
        ]

    whole = drawn(KEY, 12)
    of_rows = jax.jit(lambda first: drawn(row_keys.of_rows(KEY, first, 4, 12), 4))
    for first in (0, 4, 8):
        for part, all_of_it in zip(of_rows(first), whole, strict=True):
            np.testing.assert_array_equal(part, all_of_it[first : first + 4])
    assert jax.random.key_data(row_keys.plain(KEY)).tolist() == jax.random.key_data(KEY).tolist()


def test_numbers_without_an_axis_of_environments_are_refused() -> None:
    key = row_keys.of_rows(KEY, 4, 4, 12)
    with pytest.raises(ValueError, match=r"its `draw` must give them an axis of environments"):
        jax.random.gamma(key, jnp.ones(4))
    with pytest.raises(ValueError, match="counts the random numbers of a step in 32 bits"):
        jax.random.bits(row_keys.of_rows(KEY, 0, 2, 2**20), (2, 5000))
    with pytest.raises(ValueError, match="needs jax_default_prng_impl='threefry2x32'"):
        row_keys.of_rows(jax.random.key(0, impl="rbg"), 0, 2, 4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "estimator",
    [
        "time_baseline",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ACCUMULATED if x != "time_baseline"),
    ],
)
def test_an_update_in_micro_batches_is_that_of_the_whole_batch(estimator: str) -> None:
    """Parameters, the state of the estimator, the environments and all metrics, after two updates:
    the second starts from what the first left. Episodes end at different steps, so that a mean over
    micro-batches would not be one over the steps.
    """
    config = settings(estimator)
    whole = two_updates(config)
    assert_close(whole, two_updates(dataclasses.replace(config, micro_batches=3)), 1e-13)


OTHERS: dict[str, dict[str, Any]] = {
    "statistics of observations and rewards": {
        "estimator": "gae",
        "normalise_observations": True,
        "scale_rewards": True,
    },
    "a recurrent policy": {"estimator": "actor_critic", "rnn": "gru", "rnn_size": 3},
    "episodes of a recurrent policy, compared": {
        "estimator": "leave_one_out",
        "rnn": "gru",
        "rnn_size": 3,
        "scale_rewards": True,
    },
    "an optimizer that looks ahead": {"estimator": "reinforce", "optimizer": "igt"},
    "parameters that are drawn": {"estimator": "leave_one_out", "exploration": "parameters"},
    "CartPole": {"estimator": "moving_average", "env": "CartPole-v1", "horizon": 40},
    "continuous actions": {"estimator": "gae", "env": "Pendulum-v1", "num_steps": 20},
    "groups": {"estimator": "group_leave_one_out", "group_size": 4},
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", OTHERS)
def test_it_is_so_with_other_settings(case: str) -> None:
    config = settings(**OTHERS[case])
    whole = two_updates(config)
    assert_close(whole, two_updates(dataclasses.replace(config, micro_batches=3)), 1e-12)


@pytest.mark.slow
def test_floats_of_32_bits_and_vmapped_runs() -> None:
    """One update of three seeds at once, of 2048 steps each."""
    found = []
    for number in (1, 4):
        config = settings("gae", env="CartPole-v1", num_steps=32, num_envs=64)
        learner = make_learner(dataclasses.replace(config, micro_batches=number))
        keys = jax.random.split(KEY, 3)
        states = jax.vmap(learner.init)(keys)
        after, metrics = jax.jit(jax.vmap(learner.step))(states, keys)
        found.append((after.params, metrics))
    assert_close(*found, 1e-6)


def test_gradients_that_cannot_be_accumulated_are_refused() -> None:
    """Each error is one sentence that says what to write instead."""
    named = settings("gae")
    for changes, match in (
        ({"micro_batches": 5}, "must divide num_envs=12 into equal parts, got 5"),
        ({"micro_batches": "few"}, "a whole number of at least 1, or auto, got 'few'"),
        ({"micro_batches": 2, "estimator": "ppo", "num_epochs": 2}, "accumulates the gradient of"),
        ({"micro_batches": 2, "optimizer": "natural"}, "optimizer='natural' needs one besides"),
        ({"micro_batches": 2, "advantages": "batch"}, "advantages='batch' standardises over it"),
        ({"micro_batches": 2, "diagnostics": True}, "diagnostics take the gradient of each"),
        ({"micro_batches": 2, "estimator": "v_mpo"}, "by more than their returns: use one of"),
    ):
        with pytest.raises(ValueError, match=match):
            dataclasses.replace(named, **changes)
    for estimator, match in (
        ("vine_value", "queries the environment again"),
        ("rloo", "compares the policy with a reference"),
        ("optimal_baseline", "by more than their returns"),
        ("grpo", "by more than their returns"),
        ("dapo", "by more than their returns"),
        ("dr_grpo", "by more than their returns"),
        ("cispo", "by more than their returns"),
        ("dapo:kl=k2+kl_place=loss", "compares the policy with a reference"),
        ("selected:reinforce+reward_to_go", "compares its candidates on halves"),
        (selected("reinforce", "reward_to_go"), "compares its candidates on halves"),
        ("selected:gae:0.9+1.0", "compares its candidates on halves"),
        ("hindsight_credit", "reports a mean over pairs of steps"),
    ):
        given = {"group_size": 5} if str(estimator).startswith(("dapo", "dr_", "cispo")) else {}
        with pytest.raises(ValueError, match=match):
            Config(estimator=estimator, num_envs=20, micro_batches=2, **given)
    with pytest.raises(ValueError, match="must leave at least 2 of num_envs=12"):
        settings("leave_one_out", micro_batches=12)
    with pytest.raises(ValueError, match="sampling='sobol' spreads random numbers over it"):
        settings("reinforce", micro_batches=2, sampling="sobol")
    with pytest.raises(ValueError, match="is chosen by the train command"):
        make_learner(settings("reinforce", micro_batches="auto"))


def test_an_optimizer_of_ones_own_that_asks_for_the_batch_is_told_so() -> None:
    """Optimizers receive what they need by name or among further arguments; others receive what
    they ask for.
    """

    def by_name(updates: Any, state: Any, params: Any = None, *, batch: Any, **_: Any) -> Any:
        return jax.tree.map(lambda g: g * batch.psi.size, updates), state

    def by_key(updates: Any, state: Any, params: Any = None, **further: Any) -> Any:
        return further["resample"](params, further["key"]), state

    def of_gradients(updates: Any, state: Any, params: Any = None, **further: Any) -> Any:
        assert {"policy", "estimator", "key"} <= set(further)
        return updates, state

    def shapes(update: Any) -> Any:
        own = optax.GradientTransformationExtraArgs(lambda params: (), update)
        config = settings("reinforce", micro_batches=2)
        learner = make_learner(dataclasses.replace(config, optimizer=lambda rate: own))
        return jax.eval_shape(lambda key: learner.step(learner.init(key), key), KEY)

    assert shapes(of_gradients)
    for update, name in ((by_name, "batch"), (by_key, "resample")):
        with pytest.raises(ValueError, match=f"keeps no batch, .* asks for '{name}' beside"):
            shapes(update)


def test_estimators_of_ones_own_are_told_what_they_need() -> None:
    @with_facts(unbiased_for="no", baseline="batch", critic="none", several_steps=False)
    def of_actions(policy: Any, critic: Any, h: Any) -> Any:
        def weigh(params: Any, state: Any, traj: Any) -> Credit:
            return Credit(traj.reward * traj.action)

        return build_estimator(policy, None, h, weigh)

    config = settings("reinforce")
    learner = make_learner(dataclasses.replace(config, estimator=of_actions, micro_batches=2))
    with pytest.raises(ValueError, match=r"`weigh` of this estimator asks for more"):
        jax.eval_shape(lambda key: learner.step(learner.init(key), key), KEY)
