"""Runs that start with the policy of another run, and stay close to a reference."""

import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pg
from pg.commands import job, settings_files
from pg.commands.main import main
from pg.estimators.checks import factory_of
from pg.runs import folders, loading, parameters
from pg.settings.stored_params import StoredParams
from pg.sweep import SweepSpec

KEY = jax.random.key(0)
SMALL: dict[str, Any] = {
    "env": "sequences:reverse",
    "estimator": "rloo",
    "num_envs": 4,
    "group_size": 2,
    "hidden_sizes": (3,),
    "num_updates": 1,
    "preset": None,
}
FLAGS = ["--env", SMALL["env"], "--estimator", SMALL["estimator"], "--num-envs", "4"]
FLAGS += ["--hidden-sizes", "3", "--eval-episodes", "2", "--group-size", "2"]


def config(**changes: Any) -> pg.Config:
    return pg.Config(**{**SMALL, **changes})


def policy_params(seed: int, **changes: Any) -> Any:
    """Numbers in the shapes of a policy's parameters."""
    made = config(**changes)
    init = pg.make_policy(made, pg.make_env(made.env, 1)).init
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, KEY)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


def initial(made: pg.Config, seed: int = 0) -> tuple[pg.Params, Any]:
    """The parameters and the estimator's state with which training starts."""
    env = pg.make_env(made.env, 1)
    policy, critic = pg.make_policy(made, env), pg.make_critic(made, env)
    estimator = factory_of(made.estimator)(policy, critic, made.hyperparams())
    return estimator.init(jax.random.key(seed))


def assert_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def source(folder: Path, *, seed: int = 5, seeds: int = 1, **changes: Any) -> list[Any]:
    """The folder of a run as the train command leaves it, and the parameters of each seed."""
    folder.mkdir()
    made = config(**changes)
    options = {"seed": seed, "seeds": seeds}
    folders.write_setup(folder, made, made.hyperparams(), options, {})
    each = [policy_params(seed + i, **changes) for i in range(seeds)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *each)
    parameters.write_params(folder, pg.Params(stacked, {"w": np.zeros((seeds, 2))}))
    return each


def test_a_learner_starts_there_and_the_reference_is_the_start_or_another(tmp_path: Path) -> None:
    (start,) = source(tmp_path / "start")
    _, held = source(tmp_path / "held", seeds=2)
    init_from = pg.load_params(tmp_path / "start")
    reference = pg.load_params(tmp_path / "held", seed=6)
    state = pg.make_learner(config(init_from=init_from)).init(KEY)
    assert_equal((state.params.policy, state.estimator_state), (start, start))
    both = config(init_from=init_from, reference=reference)
    for seed in (1, 2):
        params, state = initial(both, seed)
        assert_equal((params.policy, state), (start, held))
    adaptive = config(reference=reference, estimator="rloo:kl_control=adaptive")
    params, state = initial(adaptive)
    assert_equal(state.reference, held)
    assert_equal(params.policy, initial(config())[0].policy)


def test_a_file_of_parameters_is_read_again_and_knows_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "pretrained.safetensors"
    params = policy_params(3)
    pg.save_params(file, jax.tree.map(jnp.asarray, params), config())
    stored = pg.load_params(file)
    assert_equal(initial(config(init_from=stored))[0].policy, params)
    with pytest.raises(ValueError, match=r"activation='tanh', and .* trained activation='relu'"):
        config(init_from=stored, activation="relu")
    with pytest.raises(ValueError, match=r"must be a path that ends in \.safetensors, got 'a'"):
        pg.save_params("a", params, config())
    with pytest.raises(ValueError, match="a tree of arrays, got "):
        pg.save_params(file, {"a": "b"}, config())


def test_two_are_equal_by_their_numbers_names_and_shapes(tmp_path: Path) -> None:
    (start,) = source(tmp_path / "run")
    pg.save_params(tmp_path / "same.safetensors", start, config())
    other = jax.tree.map(lambda x: x + np.float32(1e-6), start)
    pg.save_params(tmp_path / "other.safetensors", other, config())
    run, same, changed = (
        pg.load_params(tmp_path / name) for name in ("run", "same.safetensors", "other.safetensors")
    )
    assert run == same != changed
    assert config(init_from=run) == config(init_from=same) != config(init_from=changed)
    assert hash(run) == hash(same)
    stored = config(init_from=run).to_json()
    assert stored["init_from"] == run.digest
    again = pg.Config.from_json(stored)
    assert again == config(init_from=run)
    with pytest.raises(ValueError, match="init_from is known by its digest alone"):
        initial(again)


def test_a_folder_holds_the_start_so_that_the_source_may_go(tmp_path: Path) -> None:
    (start,) = source(tmp_path / "start")
    (held,) = source(tmp_path / "held", seed=8)
    made = config(
        init_from=pg.load_params(tmp_path / "start"), reference=pg.load_params(tmp_path / "held")
    )
    run = tmp_path / "run"
    run.mkdir()
    folders.write_setup(run, made, made.hyperparams(), {}, {})
    shutil.rmtree(tmp_path / "start")
    shutil.rmtree(tmp_path / "held")
    for again in (folders.read_setup(run)[0], settings_files.read(run).run[0]):
        assert again == made
        assert_equal(again.init_from.arrays, made.init_from.arrays)
    params, state = initial(again)
    assert_equal((params.policy, state), (start, held))
    settings = loading.flat_settings(folders.read_stored(run))
    assert settings["init_from"] == made.init_from.digest[:12]
    copy = run / "init_from.safetensors"
    assert pg.load_params(copy) == made.init_from
    copy.write_bytes((run / "reference.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"init_from.safetensors is corrupt, or of another run"):
        folders.read_setup(run)
    copy.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*init_from.safetensors"):
        folders.read_setup(run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders from which a run may not start."""
    folder = tmp_path_factory.mktemp("runs")
    source(folder / "one")
    source(folder / "several", seeds=3)
    source(folder / "wide", hidden_sizes=(4,))
    source(folder / "standardised", env="CartPole-v1", estimator="reinforce", group_size=1)
    path = folder / "standardised" / "config.json"
    text = path.read_text().replace(
        'normalise_observations": false', 'normalise_observations": true'
    )
    path.write_text(text)
    source(folder / "unfinished")
    (folder / "unfinished" / "params.safetensors").unlink()
    source(folder / "diverged")
    nan = jax.tree.map(lambda x: np.full((1, *x.shape), np.nan, x.dtype), policy_params(0))
    parameters.write_params(folder / "diverged", pg.Params(nan, ()))
    (folder / "empty").mkdir()
    (folder / "text.safetensors").write_text("no tensors")
    return folder


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "nowhere",
            "--init-from: there is no run, and no file of parameters, at .*nowhere: give the",
        ),
        ("several", "has the seeds 5 to 7, each with .*: choose one, as .*/several:5 "),
        ("several:8", "seed must be from 5 to 7, those of .*several, got 8"),
        ("wide", r"has hidden_sizes=\[4\], and the one to be trained hidden_sizes=\[3\]"),
        ("standardised", "sees standardised observations, and its parameters alone would act"),
        ("unfinished", "is a run that has not ended, and has no params.safetensors yet"),
        ("diverged", "has parameters that are not finite: params/policy/"),
        ("empty", "is not a folder of a run: give the one that"),
        ("text.safetensors", "is missing or corrupt"),
    ],
)
def test_what_cannot_be_a_start_is_refused_before_jax_is_asked(
    runs: Path, path: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *FLAGS, "--init-from", str(runs / path), "--out", str(runs / "out")])
    assert stopped.value.code == 2
    found = " ".join(capsys.readouterr().err.split())
    assert found.startswith("error: --init-from")
    assert re.search(said, found), found
    assert not (runs / "out").exists()


def test_further_refusals(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = pg.load_params(runs / "one")
    with pytest.raises(ValueError, match=r"got 'a/run': write init_from=pg.load_params\('a/run'\)"):
        config(init_from="a/run")
    with pytest.raises(ValueError, match="reference is for an estimator with a KL divergence"):
        config(estimator="sequence", reference=start)
    with pytest.raises(ValueError, match="init_from excludes normalise_observations"):
        config(
            env="CartPole-v1",
            estimator="ppo",
            group_size=1,
            init_from=start,
            normalise_observations=True,
        )
    with pytest.raises(ValueError, match="must be stored as a SHA-256 or null, got '/a/run'"):
        pg.Config.from_json({**config().to_json(), "init_from": "/a/run"})
    with pytest.raises(ValueError, match="init_from cannot be varied"):
        SweepSpec(config(), config().hyperparams(), {"init_from": [None, start]}, range(2))
    two = pg.estimators.sequence_estimator(reference=policy_params(0), kl="k1")
    with pytest.raises(ValueError, match="there are two reference policies"):
        pg.make_learner(config(estimator=two, reference=start))
    # the shapes of another environment are known once it is made
    other = ["--init-from", str(runs / "one"), "--env", "sequences:modular_sum"]
    assert main(["train", *FLAGS[2:], *other, "--out", str(runs / "out")]) == 2
    found = " ".join(capsys.readouterr().err.split())
    assert "another environment or another precision: params/policy/params/" in found
    assert not (runs / "out").exists()


def test_a_critic_on_the_policys_layers_and_a_policy_of_ones_own_start_there_too() -> None:
    """The critic is initialised as usual."""
    of_ppo = {"estimator": "ppo", "group_size": 1, "shared_torso": True}
    start = policy_params(1, **of_ppo)
    stored = StoredParams("0" * 64, parameters.leaves({"policy": start}))
    params, _ = initial(config(**of_ppo, init_from=stored))
    assert_equal(params.policy, start)
    assert_equal(params.critic, initial(config(**of_ppo))[0].critic)
    params, _ = initial(config(policy=pg.make_policy, init_from=stored))
    assert_equal(params.policy, start)


@pytest.mark.slow
def test_a_run_and_a_sweep_go_on_bit_for_bit_without_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed, replayed; and in a sweep every seed starts from the same parameters."""
    (start,) = source(tmp_path / "start")
    where = ["--init-from", str(tmp_path / "start"), "--out", str(tmp_path)]
    for name, updates in (("whole", "4"), ("parts", "2")):
        flags = [*FLAGS, *where, "--num-updates", updates, "--name", name]
        assert main(["train", *flags, "--seeds", "2"]) == 0
    sweep = ["sweep", *FLAGS, "--seeds", "2", "--fresh-seeds", "2", "--num-updates", "1"]
    sweep += ["--over", "learning_rate=1e-30,2e-30"]
    assert main([*sweep, *where]) == 0
    shutil.rmtree(tmp_path / "start")
    whole, parts = (next(tmp_path.glob(f"*/*/{name}")) for name in ("whole", "parts"))
    assert main(["resume", str(parts), "--num-updates", "4"]) == 0
    for name in ("params.safetensors", "init_from.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    moved = pg.load_params(whole, seed=0)
    assert moved != pg.load_params(whole / "init_from.safetensors")
    assert main(["replay", str(parts)]) == 0
    assert job.resume(parts) == 0
    capsys.readouterr()
    for other in ("none", moved.origin):  # another start is another run
        flags = ["--config", str(whole), "--init-from", other, "--name", "whole"]
        assert main(["train", *flags, "--out", str(tmp_path)]) == 2
        assert "holds another run: config.init_from is " in capsys.readouterr().err
    (swept,) = tmp_path.glob("*/*/sweep-*")
    for seed in (2, 3):  # a rate of 1e-30 changes no bit of theirs
        assert_equal(pg.load_policy(swept, seed=seed).params, start)
    # the same command finds it by the digest, wherever the same parameters lie
    again = [*sweep, "--init-from", str(swept / "init_from.safetensors"), "--out", str(tmp_path)]
    assert main(again) == 0
    assert list(tmp_path.glob("*/*/sweep-*")) == [swept]
