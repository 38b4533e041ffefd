"""Folders that were written under former names of settings still load, resume and act."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pg
from pg.config import Config, Hyperparams
from pg.runs import folders, parameters, results
from pg.runs.migrations import RENAMED, leaf_name
from pg.starting import named_leaves

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "data" / "run-before-renaming"


def test_settings_are_read_under_their_names_of_today() -> None:
    config, hyperparams = folders.read_setup(BEFORE)
    assert (config.action_distribution, config.rnn, config.rnn_size) == ("squashed", "gru", 2)
    assert hyperparams.gae_lambda == 0.9


def test_a_policy_of_before_acts() -> None:
    policy = pg.load_policy(BEFORE)
    assert policy.config.rnn == "gru"


def test_metrics_of_before_are_read() -> None:
    assert np.isfinite(results.read_metrics(BEFORE)["return"]).any()


def test_a_run_of_before_is_resumed(tmp_path: Path) -> None:
    """From its checkpoint, after which only the evaluation is left."""
    folder = tmp_path / "run"
    shutil.copytree(BEFORE, folder)
    (folder / "summary.json").unlink()
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), "--resume", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "final evaluation, 2 episodes, sampled actions: -9.6 ± 4.3" in done.stdout


@pytest.mark.parametrize("name", RENAMED["config"])
def test_a_former_name_of_config_is_answered_by_the_new_one(name: str) -> None:
    with pytest.raises(ValueError, match=RENAMED["config"][name]):
        Config(**{name: 1}, preset=None)


@pytest.mark.parametrize("name", RENAMED["hyperparams"])
def test_a_former_name_of_hyperparams_is_answered_by_the_new_one(name: str) -> None:
    with pytest.raises(ValueError, match=RENAMED["hyperparams"][name]):
        Hyperparams(**{name: 1})


def test_arrays_of_before_are_read_under_the_names_of_today() -> None:
    """In checkpoints of format 1, and in files of parameters without a prefix."""
    names = {
        ".params.policy['params']['head']['bias']": "params/policy/params/head/bias",
        ".opt_state[1][0].mu.critic['x']": "opt_state/1/0/mu/critic/x",
        "[<flat index 0>].update": "0/update",
        "policy/params/head/bias": "params/policy/params/head/bias",
        "normaliser/obs/mean": "normaliser/obs/mean",
        "params/critic/w": "params/critic/w",
    }
    assert {stored: leaf_name(stored) for stored in names} == names


def test_parameters_and_checkpoints_name_their_arrays_alike(tmp_path: Path) -> None:
    state = pg.make_learner(Config(hidden_sizes=(3,), preset=None)).init(pg.seed_key(0))
    of_state = named_leaves(state)
    of_params = parameters.leaves(state.params, state.normaliser)
    assert set(of_params) <= set(of_state)
    assert "params/policy/params/torso/Dense_0/kernel" in of_params
    parameters.write_params(tmp_path, state.params, state.normaliser)
    for name, stored in parameters.read_leaves(tmp_path, state.params, state.normaliser).items():
        np.testing.assert_array_equal(stored, of_state[name])
    with pytest.raises(ValueError, match="two arrays would be stored as 'a/b'"):
        named_leaves({"a/b": 1, "a": {"b": 2}})
