"""Sweeps: configurations, chunks that fit, files that survive an interruption, and an unbiased
ranking.
"""

import dataclasses
import functools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from mistakes import Mistake, assert_one_sentence
from own_parts import CLIPPED, HEADER
from small import TINY
from stored import store_run

import pg
from pg.commands import cli, job, resume
from pg.commands import sweep as sweep_command
from pg.config import Config, Hyperparams
from pg.evaluation import evaluate
from pg.fast import devices
from pg.reports import tables
from pg.runs import execution, folders, memory, sweeps
from pg.runs.interrupts import Interrupted
from pg.seeds import seed_key
from pg.settings import own_files
from pg.sweep import Range, SweepSpec, chunks, driver, grid, random, report, sobol, spaces, sweep
from pg.sweep import spec as specs
from pg.sweep.search import Search, Tpe
from pg.train import make_learner, make_train

CONFIG = Config(
    estimator="leave_one_out", num_envs=4, num_updates=6, hidden_sizes=(8,), preset=None
)
POINTS = grid(learning_rate=[1e-3, 1e-2], env_params={"length": [0.3, 0.5, 1.0]})
ONE = devices.layout(most=1)
HOW = cli.Checkpointing()


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Points


def test_a_grid_is_every_combination_with_the_first_name_slowest() -> None:
    h = grid(Hyperparams(gae_lambda=0.5), learning_rate=[1, 2], env_params={"length": [3, 4, 5]})
    np.testing.assert_array_equal(h.learning_rate, [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(h.env_params["length"], [3, 4, 5, 3, 4, 5])
    np.testing.assert_array_equal(h.gae_lambda, [0.5] * 6)
    assert {x.shape for x in jax.tree.leaves(h)} == {(6,)}
    assert grid().learning_rate.shape == (1,)


@pytest.mark.parametrize("draw", [random, sobol])
def test_draws_lie_in_their_spaces_with_their_law(draw: Any) -> None:
    spaces = {
        "learning_rate": Range(1e-4, 1e-2),
        "gamma": Range(0.5, 1.0, log=False),
        "gae_lambda": [0.9, 0.95],
    }
    h = draw(256, n_step=Range(1, 32), **spaces)
    assert (h.learning_rate >= 1e-4).all()
    assert (h.learning_rate < 1e-2).all()
    # Log-uniform: as many in each decade. 5 standard errors of 256 draws.
    assert abs((h.learning_rate < 1e-3).mean() - 0.5) < 5 * 0.5 / 16
    assert abs(h.gamma.mean() - 0.75) < 5 * 0.5 / 12**0.5 / 16
    assert abs((h.gae_lambda == 0.9).mean() - 0.5) < 5 * 0.5 / 16
    assert np.issubdtype(h.n_step.dtype, np.integer)
    again, other = draw(256, **spaces), draw(256, seed=1, **spaces)
    np.testing.assert_array_equal(again.gamma, draw(256, **spaces).gamma)
    assert not np.array_equal(again.gamma, other.gamma)


def test_sobol_points_are_even() -> None:
    """64 points in the plane: one in each of 64 cells, 8 × 8; a random draw leaves a third of them
    empty.
    """
    h = sobol(64, learning_rate=Range(1e-4, 1e-2), gamma=Range(0.0, 1.0, log=False))
    cells = np.floor(8 * np.stack([np.log10(h.learning_rate / 1e-4) / 2, h.gamma])).astype(int)
    assert len({tuple(cell) for cell in cells.T}) == 64


def test_a_command_line_names_spaces() -> None:
    assert spaces.spaces_of(
        ["learning-rate=1e-4:1e-2", "gae-lambda=0.9,1", "length=0.3:1:linear", "rnn=gru"]
    ) == {
        "learning_rate": Range(1e-4, 1e-2),
        "gae_lambda": [0.9, 1],
        "length": Range(0.3, 1.0, log=False),
        "rnn": ["gru"],
    }
    assert (
        spaces.table_of(["gamma=0.9,1.0", "shared_torso=true,false"])["shared_torso"]
        == [True, False] * 2
    )
    assert len(spaces.table_of(["gamma=0.9:1.0"], num=5)["gamma"]) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: grid(learning_rat=[1.0]),
            "unknown hyperparameter 'learning_rat': did you mean 'learning_rate'",
        ),
        (lambda: grid(gamma=[0.9, 1.5]), r"gamma must be in \[0, 1\], got 1.5"),
        (lambda: grid(gamma=[]), "gamma has no values"),
        (lambda: grid(gamma=Range(0.1, 1)), "gamma is a range, and a grid needs values"),
        (lambda: grid(env_params={"length": [float("nan")]}), "length must be finite numbers"),
        (lambda: random(0, gamma=[1.0]), "num must be a whole number of at least 1, got 0"),
        (lambda: spaces.table_of(["gamma"]), "gamma is neither NAME=V,V,V nor NAME=LOW:HIGH"),
        (
            lambda: spaces.table_of(["gamma=1:0.5"]),
            "range of gamma must be LOW:HIGH or LOW:HIGH:linear with LOW < HIGH",
        ),
        (lambda: spaces.table_of(["gamma=a:b"]), "range of gamma must be LOW:HIGH"),
        (
            lambda: spaces.table_of(["gamma=0:1"]),
            "range of gamma is log-uniform, and needs LOW > 0",
        ),
        (lambda: spaces.table_of(["gamma=1", "gamma=1"]), "gamma is given twice"),
        (lambda: spaces.table_of(["gamma=0.9,1,1.0"]), "gamma has one value twice: '1' and '1.0'"),
        (
            lambda: spaces.table_of(["estimator=dapo,gspo,dapo:kl=none"]),
            "estimator has one value twice: 'dapo' and 'dapo:kl=none'; leave one out",
        ),
        (lambda: spaces.table_of(["estimator=ppo,ppo"], "random"), "value twice: 'ppo'; leave"),
        (lambda: sweep(CONFIG, []), "seeds must be whole numbers"),
        (
            lambda: sweep(CONFIG, range(1), width=0),
            "width must be a whole number of at least 1, got 0",
        ),
        (
            lambda: sweep(CONFIG, range(1), Hyperparams(gamma=np.ones(2), gae_lambda=np.ones(3))),
            "leaves \\[G\\] or scalars",
        ),
        (lambda: memory.number_of_bytes("4 parsecs"), "memory_limit must be a size such as 4GiB"),
    ],
)
def test_mistakes_are_one_clear_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Runs side by side


@pytest.mark.slow
@pytest.mark.acceptance("D4")
@pytest.mark.parametrize("mixture", ["no lag", "none", "balance"])
def test_exact_runs_are_the_solo_runs_bit_for_bit_and_mapped_ones_within_rounding(
    mixture: Any,
) -> None:
    config = CONFIG
    if mixture != "no lag":
        lagging = {"estimator": "per_decision_importance", "policy_lag": 1, "lag_mixture": mixture}
        config = dataclasses.replace(CONFIG, **lagging)
    exact, mapped = (
        sweep(config, range(2), POINTS, exact=exact, layout=devices.layout(most=1))
        for exact in (True, False)
    )
    assert exact[1]["return"].shape == (6, 2, 6)
    solo, keys = jax.jit(make_train(config)), [seed_key(s) for s in range(2)]
    for g in range(6):
        for s in range(2):
            state, metrics = solo(keys[s], jax.tree.map(lambda x, g=g: x[g].item(), POINTS))
            assert_equal(jax.tree.map(lambda x, g=g, s=s: x[g, s], exact), (state, metrics))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        mapped[0].params,
        exact[0].params,
    )


@pytest.mark.acceptance("D4")
@pytest.mark.slow
def test_bits_depend_on_the_width_and_not_on_the_number_of_chunks() -> None:
    """12 runs in 6 chunks, the first 4 of them in 2, and all in another order: at width 2 always
    the same.
    """
    whole = sweep(CONFIG, range(2), POINTS, width=2, layout=devices.layout(most=1))
    part = sweep(
        CONFIG,
        range(2),
        jax.tree.map(lambda x: x[:2], POINTS),
        width=2,
        layout=devices.layout(most=1),
    )
    assert_equal(jax.tree.map(lambda x: x[:2], whole), part)
    turned = sweep(
        CONFIG,
        range(2),
        jax.tree.map(lambda x: x[::-1], POINTS),
        width=2,
        layout=devices.layout(most=1),
    )
    assert_equal(jax.tree.map(lambda x: x[::-1], whole), turned)
    filled_up = sweep(
        CONFIG,
        range(1),
        jax.tree.map(lambda x: x[:3], POINTS),
        width=2,
        layout=devices.layout(most=1),
    )
    assert filled_up[1]["return"].shape == (3, 1, 6)


@pytest.mark.acceptance("J4")
def test_one_program_serves_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], execution.compile_programs
    monkeypatch.setattr(
        execution, "compile_programs", lambda *args, **kw: calls.append(1) or original(*args, **kw)
    )
    sweep(CONFIG, range(2), POINTS, width=2, layout=devices.layout(most=1))
    assert len(calls) == 1


@pytest.mark.slow
def test_the_width_is_lowered_until_the_programs_fit() -> None:
    h = chunks.crossed(POINTS, 4)
    free = chunks.plan(CONFIG, h, 24, ONE, width=8)
    assert (free.width, free.compilations) == (8, 1)
    tight = chunks.plan(CONFIG, h, 24, ONE, width=8, budget=3 * free.bytes_per_run)
    assert tight.width < 4
    assert tight.programs.num_bytes <= 3 * free.bytes_per_run
    assert chunks.plan(CONFIG, h, 2, ONE, width=8, fixed=True).width == 8
    with pytest.raises(ValueError, match="for 8 runs on one device"):
        chunks.plan(CONFIG, h, 24, ONE, width=8, fixed=True, budget=3 * free.bytes_per_run)
    with pytest.raises(ValueError, match="for 1 run on one device"):
        chunks.plan(CONFIG, h, 24, ONE, budget=1000)


@pytest.mark.slow
def test_the_compilers_account_of_memory_grows_with_the_width() -> None:
    """The basis of the plan: twice the runs, twice the bytes, within a tenth."""
    sizes = [
        execution.compile_programs(CONFIG, execution.broadcast(Hyperparams(), 1), ONE, n).num_bytes
        for n in (8, 16)
    ]
    assert sizes[1] / sizes[0] == pytest.approx(2.0, rel=0.1)


def test_sizes() -> None:
    assert memory.number_of_bytes("4GiB") == 4 * 2**30
    assert memory.number_of_bytes("500 mb") == 500_000_000
    assert memory.number_of_bytes("1e9") == 10**9
    assert memory.readable(3.5 * 2**30) == "3.5 GiB"
    assert 0 < memory.resident() <= memory.peak()
    assert memory.for_programs(1) > 2**20
    assert memory.for_programs(1, 2**40) > memory.for_programs(1, 2**39) > 0


# A specification and its folder


def spec(**changes: Any) -> SweepSpec:
    table = {"learning_rate": [0.001, 0.01, 0.001, 0.01], "num_envs": [4, 4, 2, 2]}
    return SweepSpec(
        **{
            "config": CONFIG,
            "hyperparams": Hyperparams(),
            "table": table,
            "seeds": range(3),
            **changes,
        }
    )


def test_the_same_specification_finds_the_same_folder_and_another_does_not(tmp_path: Path) -> None:
    assert spec().folder(tmp_path) == spec().folder(tmp_path)
    others = [
        spec(seeds=range(1, 4)),
        spec(episodes=7),
        spec(config=dataclasses.replace(CONFIG, num_updates=7)),
    ]
    assert len({s.folder(tmp_path) for s in [spec(), *others]}) == 4


def test_a_sweep_lies_under_the_names_of_what_it_varies(tmp_path: Path) -> None:
    """And where it lay before, under the estimator of its config."""
    one = spec(table={"estimator": ["reinforce", "gae", "reinforce"], "gamma": [0.1, 0.2, 0.3]})
    folder = one.folder(tmp_path)
    assert (folder.parent.name, folder.parent.parent.name) == ("reinforce-gae", "CartPole-v1")
    assert one.title == "CartPole-v1"
    before = folders.parent(tmp_path, one.config) / folder.name
    before.mkdir(parents=True)
    assert one.folder(tmp_path) == before
    other = spec(table={"env": ["CartPole-v1", "Acrobot-v1"]})
    place = other.folder(tmp_path).parent
    assert (place.name, place.parent.name) == ("leave_one_out", "CartPole-v1-Acrobot-v1")
    assert other.title == "leave_one_out"


def test_long_names_of_folders_are_cut_and_stay_apart(tmp_path: Path) -> None:
    """Two names with a common beginning, or that differ only in characters that folders cannot
    have.
    """
    long = "sequence:baseline=mean+scale=batch+" * 4
    names = [long + "kl=k1", long + "kl=k2", (long + "kl=k1").replace("+", "-")]
    places = [folders.place(tmp_path, "CartPole-v1", name) for name in names]
    assert len(set(places)) == 3
    assert {len(place.name) for place in places} == {folders.LONGEST_NAME}
    assert len({place.name[:-8] for place in places}) == 1
    assert places[0] == folders.place(tmp_path, "CartPole-v1", names[0])
    fits = "e" * folders.LONGEST_NAME
    assert folders.place(tmp_path, fits).name == fits
    for place in places:
        place.mkdir(parents=True)


def test_a_sweep_of_before_goes_on_under_the_names_of_today(tmp_path: Path) -> None:
    """Settings, varied names and columns have been renamed since; nothing is run again."""
    one = spec(table={"gae_lambda": [0.9, 1.0]})
    folder = one.folder(tmp_path)
    driver.run(one, folder, ONE, HOW, width=6)
    rows = sweeps.read_runs(folder)
    stored = folders.read_json(folder / "sweep.json")
    stored["config"]["memory"] = stored["config"].pop("rnn")
    stored["hyperparams"]["lambda_"] = stored["hyperparams"].pop("gae_lambda")
    stored["table"] = {"lambda_": stored["table"]["gae_lambda"]}
    folders.write_json(folder / "sweep.json", stored)
    former = {"configuration": "setting", "gae_lambda": "lambda_"}
    for path in [*folder.glob("runs/*.parquet"), *folder.glob("metrics/*.parquet")]:
        columns = tables.read_parquet(path)
        tables.write_parquet(path, {former.get(name, name): x for name, x in columns.items()})
    before = folder.rename(folder.with_name("sweep-12345678"))
    assert one.folder(tmp_path) == before
    assert spec(table={"gae_lambda": [0.9, 0.95]}).folder(tmp_path) != before
    assert specs.start(one, before) == (6, 6)
    assert_equal(sweeps.read_runs(before), rows)
    assert sweeps.read_metrics(before)[1]["return"].shape == (3, CONFIG.num_updates)


def of_command_line(argv: list[str], table: dict[str, list[Any]]) -> SweepSpec:
    config, hyperparams, options, _, given = cli.parse_given(None, "", sweep_command.Options, argv)
    borrowed = options.settings_of
    return SweepSpec(config, hyperparams, table, range(2), given=given, settings_of=borrowed)


def assert_as_trained(
    one: SweepSpec, name: str, argv: list[str], of_own: Sequence[str] = ()
) -> None:
    """Each configuration has the settings that the train command has for its `name`, with the
    words `of_own` if that is a file.
    """
    for config, group in one.programs():
        value = one.table[name][group.start]
        flags = [f"--{name}", value, *argv, *(of_own if own_files.is_reference(value) else ())]
        trained, wanted = cli.parse(None, "", job.Options, flags)[:2]
        assert config == trained
        found = spaces.hyperparams_of(one.hyperparams, one.traced(group))
        assert {k: v[0] for k, v in found.scalars().items()} == wanted.scalars(), value


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--kl-coef=0", "--num-updates", "7", "--epsilon", "0.1", "--no-residual"],
        ["--env", "sequences:reverse", "--group-size", "1", "--horizon", "9"],
    ],
)
def test_each_estimator_of_a_sweep_has_the_settings_of_the_train_command(argv: list[str]) -> None:
    """Static ones and traced ones, but for those that are given."""
    names = ["state_value", "vtrace", "entropy_reward"]
    if "--group-size" not in argv:
        names += ["rloo", "gspo:kl=k2", "grpo"]
    if "--env" in argv:
        names.remove("vtrace")
    one = of_command_line(argv, {"estimator": names})
    assert_as_trained(one, "estimator", argv)
    assert one.presets
    assert not {"kl_coef", "num_updates", "epsilon"} & set(one.presets) or "--kl-coef=0" not in argv
    assert one.values(0) == {"estimator": "state_value"}
    rows = dataclasses.replace(one, table={"estimator": names[1:]})
    assert_as_trained(rows, "estimator", argv)


def test_a_sweep_names_the_settings_that_differ_between_its_configurations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--env", "Acrobot-v1", "--estimator", "reinforce"]
    driver.say_presets(of_command_line(argv, {"estimator": ["leave_one_out", "reinforce"]}))
    assert "each configuration has its own" in capsys.readouterr().out
    both_differ_from_the_base = of_command_line(argv, {"estimator": ["leave_one_out"] * 2})
    assert both_differ_from_the_base.presets
    driver.say_presets(both_differ_from_the_base)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("label", ["leave_one_out", "natural"])
def test_own_estimators_of_a_sweep_have_the_settings_of_another(tmp_path: Path, label: str) -> None:
    """Beside listed ones, which have their own."""
    path = tmp_path / "mine.py"
    path.write_text(HEADER + CLIPPED, encoding="utf-8")
    mine, borrowed = f"{path}:clipped", ["--settings-of", label]
    argv = ["--env", "Acrobot-v1", "--gamma", "0.9"]
    table = {"estimator": ["leave_one_out", mine, "reinforce"]}
    one = of_command_line(["--estimator", mine, *borrowed, *argv], table)
    assert_as_trained(one, "estimator", argv, borrowed)
    assert "gamma" not in one.presets
    pair = dataclasses.replace(one, table={"estimator": ["leave_one_out", mine]})
    assert bool(pair.presets) == (label != "leave_one_out")  # the two differ in nothing else


def test_a_sweep_records_whose_settings_own_estimators_have(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEADER + CLIPPED, encoding="utf-8")
    argv = ["--estimator", f"{path}:clipped", "--settings-of", "leave_one_out"]
    one = of_command_line(argv, {"gamma": [0.9, 1.0]})
    folder = one.folder(tmp_path)
    specs.make(folder)
    specs.write_setup(one, folder, 2, {})
    assert sweeps.read_stored(folder)["settings_of"] == "leave_one_out"
    # it is no setting: the same settings are the same sweep
    assert dataclasses.replace(one, settings_of=None).folder(tmp_path) == folder


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        (["/usr/bin/pg", "sweep", "--over", "gamma=0.9,1"], ", pg sweep --over gamma=0.9,1"),
        (["experiments/sweep.py", "--out", "my sweeps"], ", pg sweep --out 'my sweeps'"),
        (["a_notebook"], ""),
        (None, ""),
    ],
)
def test_a_sweep_that_is_to_be_resumed_names_its_command(
    command: list[str] | None, typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, folder = spec(), tmp_path / "sweep-1"
    specs.make(folder)
    specs.write_setup(one, folder, 2, {} if command is None else {"command": command})
    with pytest.raises(SystemExit):
        resume.main([str(folder)])
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith(f"a sweep, not a run: the command that started it resumes it{typed}")


def test_each_environment_of_a_sweep_has_the_settings_of_the_train_command() -> None:
    argv = ["--estimator", "ppo", "--gamma", "0.9"]
    one = of_command_line(argv, {"env": ["Catch-bsuite", "CartPole-v1"]})
    assert_as_trained(one, "env", argv)
    assert "num_updates" in one.presets
    assert "gamma" not in one.presets


def test_presets_are_a_part_of_the_specification_and_of_its_folder(tmp_path: Path) -> None:
    table = {"estimator": ["grpo", "rloo"]}
    argv = ["--group-size", "5"]
    one, other = (of_command_line(x, table) for x in (argv, [*argv, "--kl-coef", "0"]))
    assert one.to_json()["presets"]["kl_coef"] == [0.0, 0.03]
    assert one.folder(tmp_path) != other.folder(tmp_path)
    plain = dataclasses.replace(one, given=None)
    assert plain.presets == {}
    assert "presets" not in plain.to_json()
    searches = [
        Search(dataclasses.replace(x, table={}), Tpe(table)).folder(tmp_path) for x in (one, other)
    ]
    assert searches[0] != searches[1]


def test_a_sweep_of_a_run_s_settings_has_these_alone(tmp_path: Path) -> None:
    folder = store_run(tmp_path / "run", [1.0], hyperparams={"kl_coef": 0.2})
    table = {"estimator": ["grpo", "rloo"], "group_size": [5, 5]}
    assert of_command_line(["--config", str(folder)], table).presets == {}


def test_the_length_of_a_sweep_in_steps_is_that_of_each_preset() -> None:
    argv = ["--estimator", "ppo"]
    one = of_command_line(argv, {"estimator": ["ppo", "gae"]})
    given = one.given and one.given | {"num_updates"}
    presets = spaces.presets(one.table, one.config, given)
    table = spaces.lasting(one.table, one.config, 10_000, presets)
    assert presets["num_steps"] == [64, 32]
    assert table["num_updates"] == [-(-10_000 // (8 * 64)), -(-10_000 // (8 * 32))]


def test_static_settings_are_brought_together() -> None:
    mixed = spec(table={"num_envs": [4, 2, 4], "gamma": [0.1, 0.2, 0.3]})
    assert mixed.table == {"num_envs": [4, 4, 2], "gamma": [0.1, 0.3, 0.2]}
    assert [(c.num_envs, list(group)) for c, group in mixed.programs()] == [(4, [0, 1]), (2, [2])]
    with pytest.raises(ValueError, match="num_envs must be a whole number of at least 1, got 0"):
        spec(table={"num_envs": [4, 0]})
    with pytest.raises(ValueError, match="unknown setting to vary 'lenght': did you mean 'length'"):
        specs.check_names(spec(table={"lenght": [0.5]}))


def test_an_interrupted_sweep_goes_on_at_the_next_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert driver.run(spec(), whole, ONE, HOW, width=2) == 2
    original, written = specs.write_chunk, []

    def interrupted(*args: Any) -> None:
        original(*args)
        written.append(args)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(specs, "write_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        driver.run(spec(), broken, ONE, HOW, width=2)
    driver.run(spec(), broken, ONE, HOW)  # the width is that of before
    assert [args[2] for args in written] == [0, 2, 4, 6, 8, 10]
    assert sorted(p.relative_to(whole) for p in whole.rglob("*.parquet")) == sorted(
        p.relative_to(broken) for p in broken.rglob("*.parquet")
    )
    assert_equal(sweeps.read_runs(whole), sweeps.read_runs(broken))
    with pytest.raises(ValueError, match="started with --width 2"):
        driver.run(spec(), broken, ONE, HOW, width=3)


def test_a_sweep_that_goes_on_elsewhere_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, before = spec(), folders.environment(ONE)
    specs.make(tmp_path)
    specs.write_setup(one, tmp_path, 2, before | {"num_devices": 4})
    driver._take_versions(one, tmp_path, 2, before | {"num_devices": 64}, 0)
    assert capsys.readouterr().out == ""  # as no run is finished
    assert specs.stored_versions(tmp_path)["num_devices"] == 64
    driver._take_versions(one, tmp_path, 2, before, 2)
    assert (
        "note: the remaining runs may differ in bits from the finished ones"
        in capsys.readouterr().out
    )
    kept = specs.stored_versions(tmp_path)
    assert kept["resumed"] == [
        {"changed": ["num_devices is 64 in the stored run and 1 in this one"]}
    ]
    driver._take_versions(one, tmp_path, 2, before, 2)
    assert capsys.readouterr().out == ""


def test_what_fresh_seeds_go_on_with_is_recorded_at_each_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their run folder is written at their end alone."""
    one, environment = spec(), folders.environment
    keys, h = execution.seed_keys(range(1))[0], execution.broadcast(one.hyperparams, 1)
    like = jax.eval_shape(make_learner(CONFIG, one.hyperparams).init, jax.random.key(0))
    states = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), like)
    recorded: list[Any] = []

    def interrupted(version: str, updates: int) -> None:
        """Goes on under a version of jax until that update."""
        versions = {**environment(ONE), "jax": version}
        monkeypatch.setattr(folders, "environment", lambda layout: versions)
        restore_chunk = driver._chunk_restorer(
            one, tmp_path / "checkpoints", "best-0", CONFIG, 0, HOW, ONE, record=recorded.extend
        )
        partial, keep = restore_chunk(0, 1, keys, h)
        assert keep is not None
        done = partial.updates if partial else 0
        keep(updates, lambda: states, {"env_steps": np.ones((1, updates - done), int)}, True)

    interrupted("1", 1)
    interrupted("2", 2)
    assert len(recorded) == 1
    recorded.clear()
    interrupted("3", 3)
    assert recorded == [
        {
            "runs": [0, 0],
            "after": 1,
            "changed": ["jax is '1' in the stored run and '2' in this one"],
        },
        {
            "runs": [0, 0],
            "after": 2,
            "changed": ["jax is '2' in the stored run and '3' in this one"],
        },
    ]


def test_damaged_files_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And those of the runs after them, which a ranking would else count without them."""
    folder = tmp_path / "sweep"
    driver.run(spec(), folder, ONE, HOW, width=2)
    before = sweeps.read_runs(folder)
    middle = sorted((folder / "metrics").iterdir())[3]
    middle.write_bytes(middle.read_bytes()[:100])
    driver.run(spec(), folder, ONE, HOW)
    out = capsys.readouterr().out
    assert f"{middle} is corrupt: its runs, and those after them, are run again" in out
    assert "6 of 12 runs are finished" in out
    assert_equal(sweeps.read_runs(folder), before)


@pytest.mark.slow
def test_a_signal_within_a_chunk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = spec(table={"learning_rate": [0.001, 0.01]})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    driver.run(one, whole, ONE, HOW, width=3)
    calls = []

    class Progress(cli.Progress):
        def __call__(self, *args: Any) -> None:
            super().__call__(*args)
            calls.append(args[0])
            if len(calls) == CONFIG.num_updates + 2:  # in the second chunk
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cli, "Progress", Progress)
    # a test's process may ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted):
            driver.run(one, broken, ONE, HOW, width=3)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (
        len(list((broken / "checkpoints").glob("chunk-000003-000005/00000002.*.safetensors"))) == 1
    )
    driver.run(one, broken, ONE, HOW)
    assert "continuing after update 2" in capsys.readouterr().out
    assert_equal(sweeps.read_runs(whole), sweeps.read_runs(broken))
    for path in (whole / "metrics").iterdir():
        assert path.read_bytes() == (broken / "metrics" / path.name).read_bytes()
    assert not list((broken / "checkpoints").iterdir())


def test_what_is_kept_of_a_run(tmp_path: Path) -> None:
    one = spec(table={"learning_rate": [0.001, 0.01]}, episodes=5)
    driver.run(one, tmp_path, ONE, HOW)
    rows = sweeps.read_runs(tmp_path)
    np.testing.assert_array_equal(rows["configuration"], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(rows["seed"], [0, 1, 2] * 2)
    np.testing.assert_array_equal(rows["learning_rate"], [0.001] * 3 + [0.01] * 3)
    assert rows["finite"].all()
    # What a solo run of the same seed comes to, within the rounding of batched products.
    done = execution.run(CONFIG, Hyperparams(learning_rate=0.01), [1])
    found = execution.evaluate_run(CONFIG, done, [1], 5, greedy=False)
    assert rows["mean"][4] == pytest.approx(float(found.returns.mean()), rel=1e-4)
    metrics = tables.read_parquet(next((tmp_path / "metrics").iterdir()))
    here = (metrics["configuration"] == 1) & (metrics["seed"] == 1)
    np.testing.assert_allclose(metrics["return"][here], done.metrics["return"][0], rtol=1e-3)
    stored = sweeps.read_metrics(tmp_path, one.runs_of(1))[1]
    np.testing.assert_array_equal(stored["env_steps"][1], done.metrics["env_steps"][0])
    np.testing.assert_allclose(stored["return"][1], done.metrics["return"][0], rtol=1e-3)


def test_settings_that_diverged_come_last() -> None:
    three = spec(table={"gamma": [0.1, 0.2, 0.3]})
    rows = {
        "run": np.arange(9),
        "configuration": np.repeat(np.arange(3), 3),
        "env_steps": np.full(9, 10),
        "mean": np.array([1.0, 2.0, 3.0, 99.0, 99.0, 99.0, 5.0, 6.0, 7.0]),
        "finite": np.array([True] * 5 + [False] + [True] * 3),
    }
    ranked = report.rank(three, rows)
    assert [(r.configuration, r.diverged) for r in ranked] == [(2, 0), (0, 0), (1, 1)]
    assert ranked[0].mean.value == 6.0
    assert ranked[0].mean.low < 6.0 < ranked[0].mean.high
    assert "flatters" in report.verdict(three, ranked, None)


def test_a_run_that_skipped_an_update_has_not_diverged() -> None:
    """As in the summary of a run: what counts is that the last update was applied."""
    one = spec(table={"gamma": [0.1]}, seeds=range(2))
    rows = {
        "run": np.arange(2),
        "configuration": np.zeros(2, int),
        "env_steps": np.full(2, 10),
        "mean": np.array([1.0, 3.0]),
        "finite": np.array([False, True]),
        "failed": np.array([False, False]),
    }
    (ranked,) = report.rank(one, rows)
    assert (ranked.mean.value, ranked.diverged) == (2.0, 0)


def test_a_setting_with_one_finite_seed_has_no_interval() -> None:
    """One setting has two seeds that stayed finite, one has one, and one has none."""
    three = spec(table={"gamma": [0.1, 0.2, 0.3]}, seeds=range(2))
    rows = {
        "run": np.arange(6),
        "configuration": np.repeat(np.arange(3), 2),
        "env_steps": np.full(6, 10),
        "mean": np.array([1.0, 3.0, 5.0, 99.0, 7.0, 8.0]),
        "finite": np.array([True, True, True, False, False, False]),
    }
    ranked = report.rank(three, rows)
    assert [r.configuration for r in ranked] == [0, 1, 2]
    assert [r.cells()[1] for r in ranked] == ["2 [1, 3]", "5 (no interval)", "—"]
    assert "no interval: it takes two seeds that stayed finite (--seeds)" in report.table(
        three, ranked
    )
    assert "no interval" not in report.table(three, ranked[:1])
    again = {"mean": 4.0, "interval": (np.nan, np.nan), "per_seed": [{}], "failed_seeds": []}
    found = report.verdict(three, ranked[1:], again)
    assert found.count("(no interval)") == 2


@pytest.mark.slow
def test_the_best_is_tried_again_on_fresh_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = spec(table={"learning_rate": [1e-9, 0.02], "length": [0.5, 1.0]}, episodes=20)
    width = driver.run(two, tmp_path, ONE, HOW)
    driver.finish(two, tmp_path, ONE, HOW, fresh_seeds=2, width=width)
    out = capsys.readouterr().out
    assert "on 2 fresh seeds, which had no part in the choice" in out
    stored = tables.read_parquet(tmp_path / "best" / "metrics.parquet")
    assert set(stored["seed"]) == {3, 4}
    assert pg.load_results(tmp_path).seeds == [3, 4]
    with pytest.raises(ValueError, match=r"is of pg sweep, and pg train would run it differently"):
        folders.check_command(tmp_path / "best", "train.py")
    config, h = folders.read_setup(tmp_path / "best")
    assert (config, h.learning_rate) == (
        dataclasses.replace(CONFIG, env_params={"length": 1.0}),
        pytest.approx(0.02),
    )
    for name in ("configurations.csv", "summary.json", "curves.png", "sensitivity.png", "map.png"):
        assert (tmp_path / name).stat().st_size > 100
    solo = execution.run(config, h, [3])
    np.testing.assert_allclose(stored["return"][:6], solo.metrics["return"][0], rtol=1e-3)


@pytest.mark.parametrize("fault", ["memory", "disk"])
def test_a_table_that_cannot_be_read_at_present_is_kept(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = spec(table={"learning_rate": [0.001, 0.01]}, episodes=2)
    driver.run(one, tmp_path, ONE, HOW)
    before = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    assert before

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    if fault == "memory":
        monkeypatch.setattr(memory, "free", lambda: 1000)
    else:
        monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", failing)
    with pytest.raises(ValueError, match="cannot be read now"):
        specs.start(one, tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == before


def test_the_public_names() -> None:
    assert pg.sweep.grid is grid
    assert pg.sweep.sweep is sweep


def test_metrics_grow_with_updates_and_not_with_steps() -> None:
    """2048 seeds × 500k steps of ppo: below 200 MB, where every step's info would be gigabytes."""
    config = dataclasses.replace(pg.preset("ppo")[0], num_updates=976)
    assert config.num_envs * config.num_steps * config.num_updates >= 499_000
    metrics = jax.eval_shape(
        jax.vmap(make_train(config)), jax.random.split(jax.random.key(0), 2048)
    )[1]
    assert {x.shape for x in metrics.values()} == {(2048, 976)}
    assert sum(x.size * x.dtype.itemsize for x in metrics.values()) < 200e6


@pytest.mark.slow
@pytest.mark.acceptance("J3")
def test_neither_a_sweep_nor_an_evaluation_leaks() -> None:
    """Training by itself: test_train.py."""
    with jax.checking_leaks():
        state, _ = sweep(
            dataclasses.replace(TINY, num_updates=2), range(2), layout=devices.layout(most=1)
        )
        params = jax.tree.map(lambda x: x[0, 0], state.params.policy)
        jax.jit(lambda p: evaluate(TINY, p, jax.random.key(0), 4))(params)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "a dictionary for the points of a sweep": (
        lambda: sweep(Config(preset=None), range(2), {"gamma": [0.9]}),
        "got {'gamma': [0.9]}: write config.hyperparams(gamma=[0.9])",
    ),
    "a number for the values of a sweep": (
        lambda: grid(learning_rate=0.1),
        "learning_rate must be a sequence of values or a Range, as in [0.1]; got 0.1",
    ),
    "another library's hyperparameter of a sweep": (
        lambda: grid(ent_coef=[0.1]),
        "mean 'entropy_coef'?",
    ),
    **{
        f"the values of a {search.__name__} by position": (
            functools.partial(search, *num, [0.1]),
            "hyperparams must be a pg.Hyperparams, got [0.1]: write "
            "config.hyperparams(learning_rate=...)",
        )
        for search, num in ((grid, ()), (random, (2,)), (sobol, (2,)))
    },
    "half a configuration of a search": (
        lambda: random(1.5, learning_rate=Range(0.1, 1.0)),
        "num must be a whole number of at least 1, got 1.5",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
