"""Hyperparameters without effect are found and named, and no others."""

import dataclasses
from pathlib import Path

import optax
import pytest
from jax.interpreters import partial_eval
from small import TINY

from pg import Config, Hyperparams
from pg.commands import cli, job
from pg.estimators import names
from pg.estimators.facts import OWN_HYPERPARAMS
from pg.estimators.names import facts_of
from pg.estimators.sequences import sequence_estimator
from pg.runs import effects, execution
from pg.sweep import driver
from pg.sweep.spec import SweepSpec

NAMES = ("gamma", "kl_coef", "learning_rate", "n_step", "momentum")


def of(estimator: object, **changes: object) -> list[str]:
    config = dataclasses.replace(TINY, **{"estimator": estimator, "group_size": 4} | changes)
    return effects.without_effect(config, Hyperparams(), NAMES)


def refuse(*_: object, **__: object) -> None:
    """A training that does not begin."""
    raise ValueError("enough")


def test_what_an_update_depends_on_has_an_effect() -> None:
    """By estimator, its switches, and optimizer."""
    assert of("leave_one_out") == ["kl_coef", "momentum", "n_step"]
    assert of("leave_one_out", optimizer="storm") == ["kl_coef", "n_step"]
    assert of(sequence_estimator()) == ["kl_coef", "momentum", "n_step"]
    assert of(sequence_estimator(kl="k2", kl_place="loss")) == ["momentum", "n_step"]
    assert of("actor_critic", collect="windows", group_size=1) == ["kl_coef", "momentum"]


def test_a_step_size_has_no_effect_where_a_trust_region_sets_the_step() -> None:
    """But for the critic's step; clipping has one by any optimizer, as is taken without a look."""
    assert "learning_rate" in of("leave_one_out", optimizer="trpo")
    assert "learning_rate" not in of("state_value", optimizer="trpo", group_size=1)
    assert "learning_rate" in of("leave_one_out", optimizer=lambda rate: optax.sgd(0.1))
    assert "learning_rate" not in of("leave_one_out", optimizer=optax.sgd)


@pytest.mark.parametrize("optimizer", ["trpo", "lion", "svrpg", lambda rate: optax.sgd(0.1)])
def test_an_update_depends_on_the_clipping_of_gradients(
    optimizer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "_always_used", lambda config: ())
    config = dataclasses.replace(TINY, optimizer=optimizer)
    names = ["max_grad_norm", "kl_coef"]
    assert effects.without_effect(config, Hyperparams(), names) == ["kl_coef"]


def test_nothing_is_traced_for_a_step_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "make_learner", None)
    config = Config(preset=None)
    given = effects.changed(config, Hyperparams(learning_rate=0.1, max_grad_norm=1.0))
    assert given == ["learning_rate", "max_grad_norm"]
    assert effects.without_effect(config, Hyperparams(learning_rate=0.1), given) == []


def test_a_run_and_a_sweep_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they compile."""
    config = dataclasses.replace(TINY, num_updates=1)
    monkeypatch.setattr(execution, "run", refuse)
    options = job.Options(out=tmp_path)
    assert job.run(config, Hyperparams(kl_coef=0.1, gamma=0.9), options) == cli.MISTAKE
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("no effect") == 1
    sentence = f"has no effect: nothing in an update of {config.title} depends on it"
    assert f"note: kl_coef {sentence}" in said
    table = {"n_step": [1, 2], "gamma": [0.5, 0.9]}
    driver.say_unused(SweepSpec(config, Hyperparams(), table, range(2)), table)
    said = " ".join(capsys.readouterr().out.split())
    assert f"note: n_step {sentence}" in said


def test_a_sweep_looks_in_the_first_process_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver.devices, "is_first", lambda: False)
    monkeypatch.setattr(effects, "make_learner", None)
    table = {"n_step": [1, 2]}
    driver.say_unused(SweepSpec(TINY, Hyperparams(), table, range(2)), table)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "dce", [None, lambda *_: None, lambda jaxpr, _: (jaxpr, [False] * (len(jaxpr.invars) + 1))]
)
def test_another_jax_costs_the_note_alone(dce: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without the function, with another result, or with other arguments."""
    monkeypatch.setattr(partial_eval, "dce_jaxpr", dce)
    assert of("leave_one_out") == []


CLIPS = (
    "sequence:ratio=token+clip=dual",
    "sequence:ratio=sequence+clip=truncated",
    "sequence:ratio=token+clip=masked+self_normalised=batch",
    "sequence:ratio=per_decision+clip=weight+credit=to_go",
)
A_FEW = ("leave_one_out", "moving_average", "ppo", "mdpo", "sapo", *CLIPS)
OTHERS = [name for name in names.NAMES if name not in A_FEW]


@pytest.mark.parametrize(
    "name", [*A_FEW, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)]
)
def test_the_table_says_which_hyperparameters_an_estimator_reads(name: str) -> None:
    """Its fact is what its update is found to depend on."""
    facts = facts_of(name)
    config = dataclasses.replace(
        TINY,
        env="CartPole-v1" if "discrete" in facts.actions else "Pendulum-v1",
        estimator=name,
        collect=facts.collect[0],
        group_size=4 if facts.baseline == "group" else 1,
        num_envs=8,
    )
    unused = effects.without_effect(config, Hyperparams(), OWN_HYPERPARAMS)
    assert set(facts.reads) == set(OWN_HYPERPARAMS) - set(unused)
