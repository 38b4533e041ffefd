"""Names of estimators: rows of the table, presets of switches, and switches written out."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import MDP

import pg
from pg.commands import cli, train
from pg.config import Config, part_name
from pg.estimators import family, sequence_estimator
from pg.estimators.facts import FACTS
from pg.estimators.names import NAMES, facts_of, is_sequence, switches_of
from pg.estimators.switches import GRPO, PRESETS, Switches

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
    assert facts_of("sequence:kl=k2").settings == {"group_size": 5, "kl_coef": 0.05}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FACTS])
def test_every_name_has_facts_and_settings(name: str) -> None:
    config, h = pg.preset(name)
    assert config.estimator == config.preset == name
    facts = facts_of(name)
    assert config.group_size == facts.settings.get("group_size", 1)
    assert h.kl_coef == facts.settings.get("kl_coef", 0.0)
    assert part_name(family.find(name)) == name


def test_a_text_trains_as_the_switches_in_python_do() -> None:
    text = "dapo:clip=symmetric+kl=k2+kl_place=sequence"
    switches = vars(PRESETS["dapo"]) | {"clip": "symmetric", "kl": "k2", "kl_place": "sequence"}
    states = [
        jax.jit(pg.make_train(Config(env=MDP, estimator=estimator, preset=None, **SIZES)))(KEY)[0]
        for estimator in (text, sequence_estimator(**switches))
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


MISTAKES = {
    "dappo": "unknown estimator 'dappo': did you mean 'dapo' or 'ppo' or 'sapo'?",
    "dapo:skale=group": "unknown switch 'skale': did you mean 'scale' or 'kl'?",
    "dapo:scale=grp": "unknown scale 'grp': did you mean 'group'? valid: none, group, batch",
    "dapo:scale": "estimator 'dapo:scale': write sequence:SWITCH=VALUE+..., got 'scale'",
    "gae:kl=k1": "estimator 'gae' has no switches: leave out what follows the colon",
    "sequnce:kl=k1": "unknown estimator with switches 'sequnce': did you mean 'sequence'?",
    "sequence:kl_ratio=yes": "unknown kl_ratio 'yes': valid: true, false",
    "dapo:ratio=none": "clip='asymmetric' bounds an importance ratio, and there is none",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_wrong_name_is_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(MISTAKES[text])):
        Config(estimator=text)
    with pytest.raises(SystemExit) as left:
        train.main(["--estimator", text])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {MISTAKES[text]}")


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
