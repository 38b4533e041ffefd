"""Mistakes of a user, and the one sentence that each must end in, before anything is compiled.

The tables are in the test files of the modules that refuse them.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from compilations import compiled, is_one_operation
from environments import Clock

from pg.config import Config
from pg.envs import configured
from pg.networks import make_policy
from pg.train import make_learner

Mistake = Callable[[], object]


def assert_one_sentence(mistake: Mistake, expected: str) -> None:
    """A ValueError of one line that holds `expected`, raised before any loop of an environment,
    an update or a training is compiled or run.
    """
    untrained()  # what it compiles is not the mistake's
    with compiled() as names, pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        mistake()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [name for name in names if not is_one_operation(name)] == []


@functools.cache
def untrained() -> SimpleNamespace:
    """A small config and what it trains, in one batch: environments, policy, and first state."""
    config = Config(
        env=Clock(), num_updates=1, num_envs=2, hidden_sizes=(4,), horizon=3, preset=None
    )
    env = configured(config, 2)
    state = make_learner(config).init(jax.random.key(0))
    return SimpleNamespace(config=config, env=env, policy=make_policy(config, env), state=state)


def handed(use: Callable[[SimpleNamespace], object]) -> Mistake:
    """`use` of what `untrained` gives."""
    return lambda: use(untrained())


def learner_of(**settings: Any) -> Mistake:
    """A learner with these settings, on two environments and with networks of four units."""
    small = {"num_envs": 2, "hidden_sizes": (4,), **settings}
    return lambda: make_learner(Config(**small, preset=None))
