"""The checks of a user's input: similar names, words of other libraries, random keys, and what is
compiled before a mistake is found.
"""

import re
from dataclasses import fields
from typing import Any

import jax
import pytest
from mistakes import assert_one_sentence, untrained

import pg
from pg.commands.job import Options
from pg.config import Config, Hyperparams
from pg.estimators.facts import FACTS
from pg.estimators.names import NAMES
from pg.inputs import ALIASES, check_key, nearest
from pg.settings.choices import CHOICES
from pg.train import make_train


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("make_trian", "did you mean pg.make_train or "),
        ("Conifg", "did you mean pg.Config or "),
        ("hyperparams", "did you mean pg.Hyperparams?"),
        ("PPO", "an estimator goes by its name, as in pg.preset('ppo')"),
        ("A2C", "as in pg.preset('actor_critic')"),
    ],
)
def test_a_public_name_that_is_misspelt(name: str, said: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(said)):
        getattr(pg, name)
    assert not hasattr(pg, "__wrapped__")  # what tools look for is not there, and that is all


def test_words_of_other_libraries_stand_for_what_is_here() -> None:
    flags = {
        *vars(Options()),
        "total_steps",
        "minibatch_size",
        *Hyperparams().scalars(),
        *(f.name for f in fields(Config)),
        *FACTS,
        *CHOICES["sampling"],
    }
    for word, meant in ALIASES.items():
        assert word not in flags, word
        assert [meant] == [name.strip("_") for name in nearest(word, flags)], word
        assert nearest(word.replace("_", "-").upper(), flags) == nearest(word, flags)


def test_a_name_in_capitals_goes_before_what_another_library_calls_so() -> None:
    """A preset of sequences has the name that elsewhere is that of an estimator of returns."""
    assert nearest("RLOO", NAMES) == nearest("rloo-", NAMES) == ["rloo"]
    assert nearest("RLOO", FACTS) == ["leave_one_out"]


def test_the_shape_of_old_keys_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each kind of keys that jax may have."""
    with jax.default_prng_impl("rbg"):
        check_key(jax.random.PRNGKey(0))
    check_key(jax.random.PRNGKey(0))
    monkeypatch.setattr(jax, "eval_shape", None)
    check_key(jax.random.PRNGKey(0))
    with jax.default_prng_impl("rbg"):
        check_key(jax.random.PRNGKey(0))


@pytest.mark.parametrize("train", [make_train, lambda config: jax.jit(make_train(config))])
def test_a_program_that_is_compiled_before_a_mistake_is_seen(train: Any) -> None:
    """Tables of mistakes detect a training run that comes first."""

    def mistake() -> None:
        train(untrained().config)(jax.random.key(0))
        raise ValueError("a mistake")

    with pytest.raises(AssertionError, match=r"scan|while|train"):
        assert_one_sentence(mistake, "a mistake")
