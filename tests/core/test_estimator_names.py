"""Names of estimators: rows of the table, presets of switches, and switches written out."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import MDP

import pg
from pg.commands import cli, table, train
from pg.config import Config, part_name
from pg.estimators import family, selected, sequence_estimator, with_hyperparams
from pg.estimators.facts import FACTS
from pg.estimators.names import NAMES, canonical, facts_of, is_sequence, switches_of
from pg.estimators.switches import GRPO, PRESETS, Switches
from pg.sweep.spec import SweepSpec

KEY = jax.random.key(0)
SIZES: dict[str, Any] = {"num_envs": 8, "num_updates": 2, "hidden_sizes": (4,), "group_size": 4}


def test_a_name_stands_for_its_switches() -> None:
    assert switches_of("dapo") == PRESETS["dapo"]
    assert switches_of("sequence") == Switches()
    changed = switches_of("grpo:kl=k3+kl_place=loss+kl_ratio=true")
    assert changed == Switches(**vars(GRPO) | {"kl": "k3", "kl_place": "loss", "kl_ratio": True})
    assert is_sequence("grpo:kl=k3")
    assert not is_sequence("grpo")  # a row of the table, of the same switches


def test_a_preset_with_other_switches_keeps_the_settings_of_its_paper() -> None:
    settings = facts_of("gspo:kl=k2+kl_place=sequence").settings
    assert settings == {"group_size": 5, "epsilon": 3e-4, "epsilon_high": 4e-4, "kl_coef": 0.05}
    assert facts_of("rloo:baseline=mean").settings == {"group_size": 5, "kl_coef": 0.03}
    assert facts_of("sequence:kl=k2").settings == {"group_size": 5, "kl_coef": 0.05}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FACTS])
def test_every_name_has_facts_and_settings(name: str) -> None:
    config, h = pg.preset(name)
    assert config.estimator == config.preset == name
    facts = facts_of(name)
    assert config.group_size == facts.settings.get("group_size", 1)
    assert h.kl_coef == facts.settings.get("kl_coef", 0.0)
    assert part_name(family.find(name)) == name


def test_the_nearest_names_are_in_the_error_for_an_unknown_one() -> None:
    with pytest.raises(ValueError, match=r"unknown estimator 'reinfroce'.*reinforce"):
        family.find("reinfroce")


def test_a_text_trains_as_the_switches_in_python_do() -> None:
    text = "dapo:clip=symmetric+kl=k2+kl_place=sequence"
    switches = vars(PRESETS["dapo"]) | {"clip": "symmetric", "kl": "k2", "kl_place": "sequence"}
    states = [
        jax.jit(pg.make_train(Config(env=MDP, estimator=estimator, preset=None, **SIZES)))(KEY)[0]
        for estimator in (text, sequence_estimator(**switches))
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_a_text_lists_the_candidates_of_an_estimator_that_is_chosen_while_training() -> None:
    """And it trains as they do in Python, with the settings that they share."""
    lambdas = [with_hyperparams("gae", gae_lambda=x) for x in (0.5, 1.0)]
    estimators = ("selected:gae:0.5+1.0", selected(*lambdas, reference="gae_lambda_1.0"))
    assert facts_of(estimators[0]) == facts_of(estimators[1])
    sizes = {"env": MDP, "num_updates": 3, "num_envs": 4, "num_steps": 4, "hidden_sizes": ()}
    states = [
        jax.jit(pg.make_train(Config(estimator=estimator, **sizes)))(KEY)
        for estimator in estimators
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert pg.preset(estimators[0])[0].num_steps == FACTS["gae"].settings["num_steps"]
    of_baselines = facts_of("selected:leave_one_out+state_value")
    assert (of_baselines.unbiased_for, of_baselines.critic) == ("J", "V")


MISTAKES = {
    "dappo": "unknown estimator 'dappo': did you mean 'dapo' or 'ppo' or 'sapo'?",
    "dapo:skale=group": "unknown switch 'skale': did you mean 'scale'?",
    "dapo:scale=grp": "unknown scale 'grp': did you mean 'group'? valid: none, group, batch",
    "dapo:scale": "estimator 'dapo:scale': write sequence:SWITCH=VALUE+..., got 'scale'",
    "gae:kl=k1": "estimator 'gae' has no switches: leave out what follows the colon",
    "sequnce:kl=k1": "unknown estimator with switches 'sequnce': did you mean 'sequence'?",
    "selectd:gae:0.9+1.0": "with switches 'selectd': did you mean 'selected'?",
    "sequence:kl_ratio=yes": "unknown kl_ratio 'yes': valid: true, false",
    "dapo:ratio=none": "clip='asymmetric' bounds an importance ratio, and there is none",
    "dapo:": "estimator 'dapo:' has an empty switch: write sequence:SWITCH=VALUE+...",
    "dapo:+": "estimator 'dapo:+' has an empty switch: write sequence:SWITCH=VALUE+...",
    "dapo:kl=k2+": "estimator 'dapo:kl=k2+' has an empty switch: write sequence:SWITCH=VALUE+...",
    "dapo:kl=k2+kl=k2": "estimator 'dapo:kl=k2+kl=k2': the switch kl is given twice",
    "dapo:kl-place=loss+kl=k2+kl_place=reward": "the switch kl_place is given twice",
    "q_propp:eta=adaptive": "estimator with switches 'q_propp': did you mean 'q_prop'?",
    "q_prop:eta=best": "unknown eta 'best': valid: one, adaptive, conservative, aggressive",
    "q_prop:nu=one": "unknown switch of q_prop 'nu'",
    "q_prop:": "estimator 'q_prop:': write q_prop:eta=VALUE+covariance=VALUE, got ''",
    "q_prop:eta=one+eta=one": "estimator 'q_prop:eta=one+eta=one': the switch eta is given twice",
    "q_prop:covariance=step": "covariance='step' is of a factor that is estimated",
    "selected": "estimator 'selected' has an empty candidate: write selected:NAME+NAME+...",
    "selected:gae+": "estimator 'selected:gae+' has an empty candidate: write selected:NAME+NAME",
    "selected:state_value": "there must be at least two candidates to select from, got 1",
    "selected:state_value+gea": "unknown candidate 'gea': did you mean 'gae'?",
    "selected:gae:0.9+2": "estimator 'selected:gae:0.9+2': λ must be a number in [0, 1], got '2'",
    "selected:reinforce:0.9+1": "unknown estimator with λ 'reinforce': valid: gae, vtrace, ppo",
    "selected:q_prop:eta=adaptive+q_prop": "candidates have no switches: write selected:NAME+NAME",
    "selected:gae+dapo:kl=k2": "candidates have no switches: write selected:NAME+NAME+..., each a",
    "selected:gae:0.9+0.90": "lists a candidate twice: leave one out",
    "selected:gae+standardised": "none of the candidates gae, standardised is unbiased",
    "selected:state_value+all_action": "candidates share their critic, and 'state_value' has V",
    "selected:rloo+reinforce": "candidate 'rloo' has a reference policy for its state",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_wrong_name_is_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(MISTAKES[text])):
        Config(estimator=text)
    with pytest.raises(SystemExit) as left:
        train.main(["--estimator", text])
    assert left.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: ")
    assert MISTAKES[text] in said


ONE_NAME = {
    "grpo:baseline=mean": "grpo",
    "grpo:average=token+clip=asymmetric": "dapo",
    "dapo:average=sequence+clip=symmetric": "grpo",
    "sequence:kl=k1": "rloo",
    "sequence:baseline=leave_one_out": "sequence",
    "dapo:kl_place=loss+kl=k2": "dapo:kl=k2+kl_place=loss",
    "dapo:kl-place = loss +kl= k2": "dapo:kl=k2+kl_place=loss",
    "sequence:kl_ratio=TRUE+kl_place=loss+kl=k3": "sequence:kl=k3+kl_place=loss+kl_ratio=true",
    "dapo:scale=group+kl=k2": "dapo:kl=k2",
    "grpo:kl=k2": "grpo:kl=k2",
    "sapo": "sapo",
    "gae": "gae",
    "q_prop:eta=one": "q_prop",
    "q_prop:covariance=step+ eta = adaptive": "q_prop:eta=adaptive+covariance=step",
    "q_prop:eta=aggressive+covariance=others": "q_prop:eta=aggressive",
    "selected:leave_one_out + state_value": "selected:leave_one_out+state_value",
    "selected:gae:.9+1": "selected:gae:0.9+1.0",
}


@pytest.mark.parametrize("text", ONE_NAME)
def test_an_estimator_has_one_name(text: str) -> None:
    """With the settings of that name too, and in presets, sweeps and the names of folders."""
    config = Config(estimator=text)
    assert config == Config(estimator=ONE_NAME[text])
    assert config.estimator == canonical(config.estimator) == ONE_NAME[text]
    config, h = pg.preset(text)
    assert (config, h) == pg.preset(ONE_NAME[text])
    assert config.preset == ONE_NAME[text]


def test_a_sweep_holds_the_one_name() -> None:
    values = {"estimator": ["dapo:kl_place=loss+kl=k2", "grpo:baseline=mean"]}
    config = Config(preset=None, num_envs=8, group_size=4)
    spec = SweepSpec(config, pg.Hyperparams(kl_coef=0.1), values, range(1))
    assert sorted(spec.table["estimator"]) == ["dapo:kl=k2+kl_place=loss", "grpo"]


def test_a_table_has_no_estimator_twice() -> None:
    with pytest.raises(ValueError, match="estimators: two are called 'grpo'"):
        table.Options(estimators=("grpo", "grpo:baseline=mean"))


@pytest.mark.slow
def test_a_run_that_chooses_its_estimator_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    words = ["--env", "Catch-bsuite", "--num-envs", "8", "--hidden-sizes", "4"]
    words += ["--estimator", "selected:leave_one_out+state_value", "--eval-episodes", "2"]
    words += ["--out", str(tmp_path), "--name"]
    assert train.main([*words, "whole", "--num-updates", "6"]) == 0
    assert train.main([*words, "parts", "--num-updates", "3"]) == 0
    folder = tmp_path / "Catch-bsuite" / "selected-leave_one_out-state_value"
    assert train.main(["--resume", str(folder / "parts"), "--num-updates", "6"]) == 0
    whole, parts = (pg.load(folder / name) for name in ("whole", "parts"))
    for name in ("return", "selected", "error_leave_one_out", "error_state_value"):
        np.testing.assert_array_equal(whole[name].to_numpy(), parts[name].to_numpy())


@pytest.mark.slow
def test_a_run_is_found_again_by_its_text(tmp_path: Path) -> None:
    text = "dapo:kl=k2+kl_place=loss"
    words = ["--env", "sequences:reverse", "--num-envs", "10", "--hidden-sizes", "4"]
    words += ["--num-updates", "2", "--eval-episodes", "2", "--out", str(tmp_path), "--name", "x"]
    assert train.main(["--estimator", text, *words]) == 0
    folder = tmp_path / "sequences-reverse" / "dapo-kl-k2-kl_place-loss" / "x"
    config, h = cli.folders.read_setup(folder)
    assert config.estimator == text
    assert h.kl_coef == facts_of(text).settings["kl_coef"]
    assert train.main(["--resume", str(folder), "--num-updates", "3"]) == 0
    assert len(pg.load(folder)) == 3
