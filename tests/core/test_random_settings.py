"""Random settings, most of them wrong: each trains, or is refused by a ValueError of one line."""

import functools
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import pytest
from environments import Clock
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from pg.config import Config, CriticOptimizer, Hyperparams
from pg.estimators.facts import FACTS
from pg.settings.choices import CHOICES
from pg.settings.ranges import RANGES
from pg.train import make_train

# beside the other caches
set_hypothesis_home_dir(Path(__file__).parents[2] / ".pytest_cache" / "hypothesis")


WHOLE = st.sampled_from([1, 2, 3, 4])
# Values that are right by themselves, of every field of Config and of Hyperparams.
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "env": st.sampled_from(["CartPole-v1", "Pendulum-v1", "Catch-bsuite", "MemoryChain-bsuite"]),
    "env_params": st.sampled_from([(), {}, {"max_steps_in_episode": 5}]),
    "estimator": st.sampled_from(list(FACTS)),
    **dict.fromkeys(("policy", "critic", "init_from", "reference"), st.none()),
    "num_updates": st.just(3),
    "num_envs": st.sampled_from([1, 2, 4]),
    "group_size": st.sampled_from([1, 1, 2]),
    "num_branches": st.sampled_from([1, 1, 2]),
    "branch_every": st.sampled_from([1, 1, 2]),
    "micro_batches": st.sampled_from([1, 1, 1, 2, 4, "auto"]),
    "num_epochs": st.sampled_from([1, 1, 2]),
    "num_minibatches": st.sampled_from([1, 1, 2]),
    "minibatch_size": st.sampled_from([None, None, 1, 2, 4]),
    "horizon": st.sampled_from([1, 2, 5, 6]),
    "hidden_sizes": st.sampled_from([(4,), (4,), (), (4, 3), [4]]),
    "critic_hidden_sizes": st.sampled_from([None, None, (3,), ()]),
    "conv": st.sampled_from([(), (), ("2x2",), ("2x2x2", "3x1")]),
    "observe": st.sampled_from([(), (), (), (0,)]),
    "parameter_std": st.sampled_from([0.3, 0.3, 0.3, 1, 0.01]),
    "initial_std": st.sampled_from([1.0, 1.0, 1.0, 0.3]),
    "action_critic_units": st.sampled_from([16, 16, 16, 3]),
    "action_samples": st.sampled_from([16, 16, 16, 2]),
    "policy_lag": st.sampled_from([0, 0, 0, 1, 1, 3]),
    "critic_observe": st.sampled_from([(), (), (), (0, 1), "all", "policy_and_time"]),
    "critic_optimizer": st.sampled_from([None, *get_args(CriticOptimizer)]),
    "preset": st.sampled_from([None, None, "auto", "ppo", "natural"]),
    **{name: st.sampled_from((names[0], *names)) for name, names in CHOICES.items()},
    **dict.fromkeys(("num_steps", "action_repeat", "rnn_size", "n_step", "snapshot_period"), WHOLE),
    **dict.fromkeys(("rnn_window", "rnn_heads"), WHOLE),
    **{
        field.name: st.sampled_from([False, False, True])
        for field in fields(Config)
        if field.type is bool
    },
    **{
        name: st.sampled_from(
            [x for x in (max(low, -1.0), 0.0, 1e-3, 0.5, min(1.0, high)) if low <= x <= high]
        )
        for name, (low, high, allowed) in RANGES.items()
        if "whole" not in allowed
    },
}
NAMES = [*(field.name for field in fields(Config)), *Hyperparams().scalars()]
ALWAYS = ("env", "num_updates", "num_envs", "horizon", "hidden_sizes")
# fmt: off
JUNK = st.sampled_from([
    None, "", "abc", "3", b"x", -1, 0, 0.0, 1.5, 1e39, 2**31, 10**400, math.nan, math.inf,
    -math.inf, 1j, (), (0,), (1.5,), [None], {}, {"a": "b"}, {"gravity": 1e39}, {"": 1}, {1: 2},
    [("gravity",)], object(), int, np.float32(0.5), np.array([1, 2]), np.zeros((2, 2)),
    np.array("tanh"), np.array(True), np.nan, Clock,
])
# fmt: on


@st.composite
def requests(draw: st.DrawFn, wrong: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords for Config and for Hyperparams: some fields, of which up to `wrong` hold what came
    along.
    """
    estimator = draw(RIGHT["estimator"])
    values = {"estimator": estimator, "collect": draw(st.sampled_from(FACTS[estimator].collect))}
    chosen = draw(st.lists(st.sampled_from(NAMES), max_size=9, unique=True))
    values |= {name: draw(RIGHT[name]) for name in (*ALWAYS, *chosen) if name not in values}
    values |= draw(st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=wrong))
    static = {name: value for name, value in values.items() if name in Config.__dataclass_fields__}
    return static, {name: value for name, value in values.items() if name not in static}


def built(static: dict[str, Any], traced: dict[str, Any]) -> Callable[..., Any] | None:
    """Training, or None where the settings are refused."""
    try:
        train = functools.partial(
            make_train(Config(**{"preset": None, **static})), hyperparams=Hyperparams(**traced)
        )
        jax.eval_shape(train, jax.random.key(0))
    except ValueError as error:
        message = str(error)
    else:
        return train
    assert message.strip()
    assert "\n" not in message
    return None


FUZZ = settings(
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


# Programs that run for a millisecond need not be fast.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.mark.acceptance("INPUTS")
@settings(FUZZ, max_examples=50)
@given(requests())
def test_random_settings_are_traced_or_refused(
    values: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    assert set(RIGHT) == set(NAMES)
    built(*values)


@pytest.mark.slow
@pytest.mark.acceptance("INPUTS")
@settings(FUZZ, max_examples=4)
@given(requests(wrong=0))
def test_random_settings_train_or_are_refused(
    values: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    train = built(*values)
    if train is not None:
        state, metrics = jax.jit(train, compiler_options=QUICKLY)(jax.random.key(0))
        assert metrics["grad_norm"].shape == (3,)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
