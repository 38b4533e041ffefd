"""The benchmark command as a user meets it, its table and figures, and the suites it runs."""

import dataclasses
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from environments import Clock
from own_parts import CLIPPED, HEADER, LINEAR
from scripts import refused, run_with_imports

import pg
from pg.benchmarks import learning, report, selection, suites
from pg.benchmarks.learning import Result
from pg.benchmarks.suites import SUITES, TASKS
from pg.commands import benchmark, cli, job
from pg.config import ENVIRONMENTS, Config, Hyperparams, check_env, check_together
from pg.envs import gymnax
from pg.envs.adapters import ADAPTERS
from pg.envs.adapters.hosts import HostError
from pg.estimators import ESTIMATORS
from pg.estimators.facts import FACTS
from pg.estimators.variants import VARIANTS
from pg.presets import preset
from pg.reports import curves, tables
from pg.runs import execution, folders, interrupts, results, writing
from pg.runs.code import SHORT
from pg.settings import own_files
from pg.settings.environments import OF_BENCHMARK

ROOT = Path(__file__).parents[2]
SMALL = ("--suite", "bsuite", "--env", "DeepSea-bsuite", "--seeds", "2", "--eval-episodes", "3")
TINY = {
    "num_updates": 3,
    "num_steps": 8,
    "hidden_sizes": (8,),
    "num_epochs": 1,
    "num_minibatches": 1,
}
ROWS = selection.select("bsuite", ("DeepSea-bsuite",))


def tiny(env: str, label: str) -> tuple[Config, Hyperparams]:
    return preset(label, env=env, **TINY)


def tiny_row(task: suites.Task, row: suites.Row) -> tuple[Config, Hyperparams]:
    return tiny(task.name, row.label)


def faster_row(task: suites.Task, row: suites.Row) -> tuple[Config, Hyperparams]:
    config, hyperparams = tiny_row(task, row)
    return config, hyperparams._replace(learning_rate=0.5)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The command, with settings that train quickly; afterwards signals are handled as before."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "0")  # the command sets them, for its own process
    monkeypatch.setattr(selection, "settings", tiny_row)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(interrupts, "_say", interrupts._say)
    handlers = {signum: signal.getsignal(signum) for signum in interrupts.SIGNALS}
    yield benchmark
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells of two seeds, three updates each."""
    out = tmp_path_factory.mktemp("benchmark")
    assert learning.run(ROWS, tiny_row, out, seeds=2, episodes=3) is None
    return out


def copied(folder: Path, to: Path) -> Path:
    for path in folder.glob("*/*/seeds-*"):
        shutil.copytree(path, to / path.relative_to(folder))
    return to


def test_a_fault_of_an_environment_names_its_row_and_the_command_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object) -> None:
        raise HostError("the step of Own fails")

    monkeypatch.setattr(learning, "run_cell", failing)
    task, row = ROWS[0]
    said = (
        f"{task.name} {row.label}: the step of Own fails; finished programs are kept: the same "
        "command continues with this one"
    )
    with pytest.raises(HostError, match=f"^{re.escape(said)}$"):
        learning.run(ROWS, tiny_row, tmp_path, seeds=1)


def test_a_package_that_a_later_row_needs_is_missed_before_the_first_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    monkeypatch.delitem(sys.modules, "pg.envs.adapters.envpool", raising=False)
    (row,) = [row for _, row in ROWS if row.label == "ppo"]
    later = [suites.Task(name, (row,), 0.0, None, "", f"envpool:{name}") for name in ("A", "B")]
    rows = [*ROWS, *((task, row) for task in later)]

    def settings(task: suites.Task, row: suites.Row) -> tuple[Config, Hyperparams]:
        return tiny(task.env or task.name, row.label)

    said = (
        "A ppo, B ppo: the environment needs envpool, which is not installed: pip install -e "
        "'.[envpool]'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        learning.run(rows, settings, tmp_path, seeds=1)
    assert not list(tmp_path.iterdir())


def test_a_cell_is_the_folder_of_a_run(finished: Path) -> None:
    folder = finished / "DeepSea-bsuite" / "ppo" / "seeds-0-1"
    config, hyperparams = tiny("DeepSea-bsuite", "ppo")
    stored, h = folders.read_setup(folder)
    assert (stored, h.learning_rate) == (config, hyperparams.learning_rate)
    found = pg.load_results(folder)
    assert found.seeds == [0, 1]
    assert found.settings["options"]["eval_episodes"] == 3
    summary = found.summary
    assert [row["env_steps"] for row in summary["per_seed"]] == [3 * 8 * 8] * 2
    for scores in (summary, summary["greedy"]):
        assert -0.1 < scores["mean"] < 1.0
        assert len(scores["interval"]) == 2
    for row in summary["per_seed"]:
        assert all(-0.1 < x < 1.0 for x in (row["mean"], row["greedy"]["mean"]))
    assert min(summary["compile_seconds"], summary["train_seconds"]) > 0
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    np.testing.assert_array_equal(
        np.cumsum(found.metrics["env_steps"], axis=1), [[64, 128, 192]] * 2
    )
    assert found.metrics["return"].shape == (2, 3)
    assert pg.load_policy(folder, seed=1).config == config
    assert not list(finished.rglob(".*.tmp"))


def test_a_cell_is_neither_resumed_nor_replayed_as_a_run_of_train(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be trained again and overwritten."""
    folder = copied(finished, tmp_path) / "DeepSea-bsuite" / "ppo" / "seeds-0-1"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert job.resume(folder) == cli.MISTAKE
    said = " ".join(capsys.readouterr().err.split())
    assert f"{folder} is of pg benchmark, and pg train would run it differently" in said
    with pytest.raises(ValueError, match=r"is of pg benchmark"):
        folders.check_command(folder, "train.py")
    assert {path: path.read_bytes() for path in folder.iterdir() if path in before} == before


def test_a_removal_that_is_cut_off_leaves_no_broken_cell(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = copied(finished, tmp_path) / "DeepSea-bsuite" / "ppo"
    (stored,) = learning.stored_cells(row)
    original, removed = Path.unlink, []

    def unlink(path: Path, **options: Any) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        original(path, **options)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        learning._remove(stored)
    assert [line.label for line in learning.collect(tmp_path)] == ["actor_critic"] * 2


def test_a_seed_that_is_there_twice_is_refused(finished: Path, tmp_path: Path) -> None:
    row = copied(finished, tmp_path) / "DeepSea-bsuite" / "ppo"
    shutil.copytree(row / "seeds-0-1", row / "seeds-1-1")
    summary = json.loads((row / "seeds-1-1" / "summary.json").read_text())
    summary["per_seed"] = summary["per_seed"][1:]
    (row / "seeds-1-1" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="has seed 1 twice"):
        learning.collect(tmp_path)


def test_greedy_and_sampled_returns_are_those_of_the_evaluations(finished: Path) -> None:
    folder = finished / "DeepSea-bsuite" / "ppo" / "seeds-0-1"
    run = execution.run(*tiny("DeepSea-bsuite", "ppo"), [0, 1])
    lines = [line for line in learning.collect(finished) if line.label == "ppo"]
    for actions in ("greedy", "sampled"):
        config, _ = folders.read_setup(folder)
        found = execution.evaluate_run(config, run, [0, 1], 3, greedy=actions == "greedy")
        means = np.asarray(found.returns).mean(axis=1)
        np.testing.assert_allclose([getattr(line, actions) for line in lines], means, rtol=1e-5)
    assert any(line.greedy != line.sampled for line in lines)


def test_a_cell_of_before_counts_as_finished_and_is_reported(
    finished: Path, tmp_path: Path
) -> None:
    """Older results were one file, with the curves in another one beside it."""
    row = copied(finished, tmp_path) / "DeepSea-bsuite" / "ppo"
    shutil.rmtree(row)
    row.mkdir()
    config, hyperparams = tiny("DeepSea-bsuite", "ppo")
    data = {
        "env": "DeepSea-bsuite",
        "label": "ppo",
        "seeds": [0, 1],
        "episodes": 3,
        "config": config.to_json(),
        "hyperparams": hyperparams.scalars(),
        "greedy": [0.5, None],
        "sampled": [0.25, 0.75],
        "env_steps": [192, 192],
    }
    folders.write_json(row / "seeds-0-1.json", data)
    assert learning.plan(ROWS, tiny_row, tmp_path, seeds=2, episodes=3) == ([], 2)
    before = [line for line in learning.collect(tmp_path) if line.label == "ppo"]
    assert [(x.seed, x.sampled, x.env_steps) for x in before] == [(0, 0.25, 192), (1, 0.75, 192)]
    assert before[0].greedy == 0.5
    assert np.isnan(before[1].greedy)
    assert set(report.mean_curves(learning.collect(tmp_path), tmp_path)["DeepSea-bsuite"]) == {
        "actor_critic"
    }


def test_the_command_skips_what_is_finished_and_reports(
    script: ModuleType,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = copied(finished, tmp_path)
    monkeypatch.setattr(learning, "run_cell", lambda *_: pytest.fail("it trained again"))
    assert script.main([*SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"skipped, as finished in {out} with these settings: 2 rows" in printed
    assert "| environment    | label          |" in printed
    assert "0/2" in printed
    assert {path.name for path in out.iterdir()} == {
        "DeepSea-bsuite",
        "results.csv",
        "curves.png",
        "curves.svg",
    }
    lines = tables.read_csv(out / "results.csv", Result)
    assert lines == learning.collect(out)
    assert [(x.label, x.seed) for x in lines] == [
        ("actor_critic", 0),
        ("actor_critic", 1),
        ("ppo", 0),
        ("ppo", 1),
    ]
    assert printed.splitlines()[-2:] == [str(out / "results.csv"), str(out / "curves.png")]


def test_more_seeds_run_only_those_that_are_missing(finished: Path) -> None:
    cells, done = learning.plan(ROWS, tiny_row, finished, seeds=5, seeds_per_program=2, episodes=3)
    assert [(cell.label, cell.seeds) for cell in cells] == [
        (label, seeds) for label in ("actor_critic", "ppo") for seeds in ((2, 3), (4,))
    ]
    assert done == 0
    assert learning.plan(ROWS, tiny_row, finished, seeds=1, episodes=3) == ([], 2)
    fresh, _ = learning.plan(ROWS, tiny_row, finished / "elsewhere", seeds_per_program=15)
    assert [len(cell.seeds) for cell in fresh] == [15, 5, 15, 5]
    assert {cell.episodes for cell in fresh} == {100}


def test_other_settings_are_refused_and_redone_when_asked(
    script: ModuleType,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, only = copied(finished, tmp_path), ("--label", "ppo")
    monkeypatch.setattr(selection, "settings", faster_row)
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    with pytest.raises(SystemExit) as mistake:
        script.main([*SMALL, *only, "--out", str(out)])
    message = capsys.readouterr().err
    assert mistake.value.code == 2
    assert (
        "ppo/seeds-0-1 was made with other settings: remove it, choose another --out, or "
        "--redo" in message
    )
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before
    with pytest.raises(ValueError, match="other settings"):  # of the evaluation
        learning.plan(ROWS, tiny_row, out, seeds=2, episodes=4)
    assert script.main([*SMALL, *only, "--redo", "--out", str(out)]) == 0
    row = out / "DeepSea-bsuite" / "ppo"
    assert [path.name for path in row.iterdir()] == ["seeds-0-1"]
    assert folders.read_setup(row / "seeds-0-1")[1].learning_rate == 0.5
    assert len(learning.collect(out)) == 4
    untouched = out / "DeepSea-bsuite" / "actor_critic" / "seeds-0-1" / "summary.json"
    assert untouched.read_bytes() == before[untouched]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_in_the_final_evaluation_ends_it_in_a_sentence(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signum: signal.Signals,
    code: int,
) -> None:
    finished: list[Path] = []
    evaluate = execution.evaluate_run

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        finished[:] = tmp_path.glob("*/*/*/summary.json")
        if finished:  # the second program
            os.kill(os.getpid(), signum)
        return evaluate(*args, **kwargs)

    def unheard(number: int, frame: Any) -> None:
        raise AssertionError("the command does not listen to signals")

    signal.signal(signum, unheard)
    monkeypatch.setattr(execution, "evaluate_run", interrupted)
    assert script.main([*SMALL, "--out", str(tmp_path)]) == code
    said = "interrupted after 1 of 2 programs: the finished ones are kept; the same command"
    assert f"{said} continues from there" in capsys.readouterr().out
    assert len(finished) == 1
    assert len(tables.read_csv(tmp_path / "results.csv", Result)) == 2


def test_a_signal_while_results_are_written_is_obeyed_after_them(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = writing.write_results

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return write(*args, **kwargs)

    monkeypatch.setattr(writing, "write_results", interrupted)
    assert script.main([*SMALL, "--out", str(tmp_path)]) == cli.AGAIN
    assert "interrupted after 1 of 2 programs: the finished ones are kept" in (
        capsys.readouterr().out
    )
    assert len(list(tmp_path.rglob("summary.json"))) == 1
    assert len(tables.read_csv(tmp_path / "results.csv", Result)) == 2


def test_a_signal_before_the_first_program_leaves_a_report_of_the_finished_ones(
    script: ModuleType,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = copied(finished, tmp_path)

    def interrupted(cells: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(learning, "check_environments", interrupted)
    more = [*SMALL[:4], "--seeds", "3", "--eval-episodes", "3"]
    assert script.main([*more, "--out", str(out)]) == cli.AGAIN
    assert "interrupted after 0 of 2 programs: the finished ones are kept" in (
        capsys.readouterr().out
    )
    assert len(tables.read_csv(out / "results.csv", Result)) == 4


def test_a_signal_while_a_table_is_reported_promises_no_continuation(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(tables, "read_csv", interrupted)
    assert script.main([*SMALL, "--from", str(tmp_path / "results.csv")]) == cli.INTERRUPTED
    assert capsys.readouterr().out == "interrupted; files that are complete are kept\n"


def test_ctrl_c_keeps_what_is_finished(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Interrupted(learning.cli.Progress):
        made = 0

        def __init__(self, total: int) -> None:
            super().__init__(total)
            Interrupted.made += 1

        def __call__(self, done: int, seconds: float, metrics: Any) -> None:
            if Interrupted.made == 2:
                raise KeyboardInterrupt

    readme = tmp_path / "README.md"
    readme.write_text("<!-- results -->\n<!-- end of results -->\n")
    command = [*SMALL, "--out", str(tmp_path), "--report", str(readme)]
    with monkeypatch.context() as patch:
        patch.setattr(learning.cli, "Progress", Interrupted)
        assert script.main(command) == 130
    assert (
        "interrupted after 1 of 2 programs: the finished ones are kept; the same command "
        "continues from there" in capsys.readouterr().out
    )
    assert [path.name for path in tmp_path.glob("*/*")] == ["actor_critic"]
    assert len(tables.read_csv(tmp_path / "results.csv", Result)) == 2
    assert len(readme.read_text().splitlines()) == 2  # half a suite is no report
    assert script.main(command) == 0
    printed = capsys.readouterr().out
    assert "with these settings: 1 row\n" in printed
    assert "1/1 DeepSea-bsuite ppo: 2 seeds from 0; compiling" in printed
    assert re.search(
        r"1/1 DeepSea-bsuite ppo: greedy \S+, sampled \S+; 384 steps in \d+ "
        r"s",
        printed,
    )
    assert len(tables.read_csv(tmp_path / "results.csv", Result)) == 4
    assert len(readme.read_text().splitlines()) == 6


def test_a_damaged_file_is_named(finished: Path, tmp_path: Path) -> None:
    path = copied(finished, tmp_path) / "DeepSea-bsuite" / "ppo" / "seeds-0-1" / "summary.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(
        ValueError, match=r"summary\.json is corrupt: .*; remove .* to run it again"
    ):
        learning.collect(tmp_path)


def rows_of(env: str, label: str, greedy: list[float], steps: int = 100_000) -> list[Result]:
    return [
        Result(env, label, seed, value, value - 1.0, steps + seed)
        for seed, value in enumerate(greedy)
    ]


TABLE = [
    *rows_of("CartPole-v1", "ppo", [500.0] * 19 + [100.0]),
    *rows_of("CartPole-v1", "reinforce", [480.0] * 13 + [100.0] * 7),
    *rows_of("CartPole-v1", "natural", [500.0] * 20, steps=600_000),
    *rows_of("Acrobot-v1", "ppo", [-70.0, -80.0] * 7 + [-84.0] * 6, steps=500_000 - 19),
    *rows_of("Pendulum-v1", "ppo", [-150.0]),
    *rows_of("Breakout-MinAtar", "ppo", [40.5] * 10),
    *rows_of("Reacher-misc", "ppo", [1.0, np.nan]),
    *rows_of("My-env", "mine", [1.0]),
]


def test_the_report() -> None:
    table = report.table(TABLE[::-1])
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    assert len({len(line) for line in table.splitlines() if "A2C (500k" not in line}) == 1
    assert tuple(cell.strip() for cell in rows[0]) == report.HEADER
    by_name = {(row[0], row[1].strip("`")): row for row in rows[2:]}
    assert list(by_name)[:4] == [
        *(("CartPole-v1", label) for label in ("natural", "ppo", "reinforce")),
        ("Acrobot-v1", "ppo"),
    ]
    assert list(by_name)[-1] == ("My-env", "mine")
    natural, ppo, plain = (
        by_name["CartPole-v1", label] for label in ("natural", "ppo", "reinforce")
    )
    assert natural[2:8] == [
        "600,019",
        "20",
        "500.0 [500.0, 500.0]",
        "499.0 ± 0.0",
        "20/20",
        "19/20 ≥ 475, 500k steps: ✗ (more steps)",
    ]
    assert ppo[2:8] == [
        "100,019",
        "20",
        "480.0 [440.0, 500.0]",
        "479.0 ± 20.0",
        "19/20",
        "19/20 ≥ 475, 150k steps: ✓",
    ]
    assert plain[6:8] == ["13/20", "14/20 ≥ 475, 1M steps: ✗"]
    assert natural[8] == "earlier"  # no commit was recorded
    assert natural[9].startswith("500.0: A2C (500k steps)")
    assert ppo[9] == plain[9] == ""  # said once
    assert by_name["Acrobot-v1", "ppo"][6:8] == ["14/20", "mean ≥ −80, 500k steps: ✓"]
    # On fewer seeds than a bar is set for nothing is decided.
    assert by_name["Pendulum-v1", "ppo"][3:8] == [
        "1",
        "−150.0 (no interval)",
        "−151.0 ± —",
        "1/1",
        "mean ≥ −180, 1M steps: open (of 20 seeds)",
    ]
    # The published policies of MinAtar were sampled, and so is what is held to them.
    assert by_name["Breakout-MinAtar", "ppo"][6:8] == ["0/10", "mean ≥ 55 (sampled), 20M steps: ✗"]
    assert by_name["Reacher-misc", "ppo"][4] == "not a number in 1 of 2 seeds"
    assert by_name["My-env", "mine"][3:] == [
        "1",
        "1.000 (no interval)",
        "0.000 ± —",
        "—",
        "—",
        "earlier",
        "none",
    ]
    versions = {"pg": "0123456789+", "jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.4.6"}
    with_code = [line._replace(**versions) for line in TABLE]
    assert report.table(with_code).splitlines()[2].split(" | ")[8].strip() == "0123456+"
    released = [line._replace(pg="0.2.0.dev123") for line in TABLE]
    assert report.table(released).splitlines()[2].split(" | ")[8].strip() == "0.2.0.dev123"
    mixed = [*with_code[:19], TABLE[19]]
    assert "| 0123456+, earlier |" in report.table(mixed)
    assert "published" not in report.table(TABLE, published=False)


def test_the_report_goes_between_the_marks_of_a_file(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, readme = tmp_path / "benchmark.csv", tmp_path / "README.md"
    tables.write_rows(table, Result, TABLE)
    again = tables.read_csv(table, Result)
    np.testing.assert_equal(again, sorted(again, key=again.index))
    assert [tuple(map(str, line)) for line in again] == [tuple(map(str, line)) for line in TABLE]
    readme.write_text("Before.\n\n<!-- results -->\nold\n<!-- end of results -->\n\nAfter.\n")
    for _ in range(2):
        assert script.main(["--from", str(table), "--report", str(readme)]) == 0
        text = readme.read_text()
        assert text.startswith("Before.\n\n<!-- results -->\n| environment")
        assert text.endswith("|\n<!-- end of results -->\n\nAfter.\n")
        assert report.table(TABLE) in text
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.csv", "README.md"}
    capsys.readouterr()
    for content in (
        "no marks",
        "<!-- end of results -->\n<!-- results -->",
        "<!-- results -->\n" * 2,
    ):
        readme.write_text(content)
        with pytest.raises(SystemExit) as mistake:
            script.main(["--from", str(table), "--report", str(readme)])
        assert mistake.value.code == 2
        assert f"{readme} needs one line <!-- results -->" in capsys.readouterr().err
        assert readme.read_text() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("", "is not a table"),
        ("a,b\n1,2\n", "is not a table"),
        ("{header}\nx,y,z\n", "not a"),
    ],
)
def test_a_file_that_is_no_table(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_text(content.format(header=",".join(learning.Result._fields)))
    with pytest.raises(ValueError, match=message):
        tables.read_csv(path, Result)


def test_a_table_has_the_versions_that_made_it(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path)
    (of_ppo,) = (out / "DeepSea-bsuite" / "ppo").iterdir()
    path = of_ppo / "versions.json"
    recorded = json.loads(path.read_text())
    path.write_text(json.dumps({**recorded, "git_commit": "0123456789abc", "git_dirty": True}))
    other, ppo = learning.collect(out)[::2]
    assert ppo[6:] == ("0123456789+", *(recorded[name] for name in ("jax", "jaxlib", "numpy")))
    assert other.pg.rstrip("+") == (recorded["git_commit"] or recorded["pg"])[:10]
    path.write_text(json.dumps({**recorded, "git_commit": None}))
    assert learning.collect(out)[-1].pg == recorded["pg"]
    path.unlink()
    assert learning.collect(out)[-1][6:] == ("",) * 4


def test_a_table_from_before_its_versions_were_columns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{','.join(Result._fields[:6])}\nCatch-bsuite,ppo,3,1.0,0.5,99\n")
    assert tables.read_csv(path, Result) == [Result("Catch-bsuite", "ppo", 3, 1.0, 0.5, 99)]


def test_rows_that_were_not_run_again_stay_as_they_were(
    script: ModuleType, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are taken whole: from the table with more seeds, and from the new one if both have
    equally many.
    """
    out, before = copied(finished, tmp_path), tmp_path / "before.csv"
    new = learning.collect(out)
    old = [
        *rows_of("Catch-bsuite", "ppo", [1.0]),
        *rows_of("DeepSea-bsuite", "ppo", [0.5] * 3),
        *rows_of("DeepSea-bsuite", "actor_critic", [0.5] * 2),
    ]
    tables.write_rows(before, Result, old)
    assert script.main([*SMALL, "--out", str(out), "--keep", str(before)]) == 0
    expected = [old[0], *new[:2], *old[1:4]]
    assert tables.read_csv(out / "results.csv", Result) == expected
    assert learning.completed_by([], old) == learning.in_order(old)


def test_the_short_table_is_of_selected_rows_and_needs_them_all(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for row in report.SELECTED for line in rows_of(*row, [1.0, 2.0])]
    lines += rows_of("Catch-bsuite", "ppo", [1.0])
    table, readme = tmp_path / "benchmark.csv", tmp_path / "README.md"
    tables.write_rows(table, Result, lines)
    readme.write_text("\n".join(report.SHORT_MARKS))
    assert script.main(["--from", str(table), "--readme", str(readme)]) == 0
    rows = readme.read_text().splitlines()[3:-1]
    assert rows[0] == "| CartPole-v1 | `leave_one_out` | 100k | 1.500 [1.000, 2.000] |"
    assert len(rows) == len(report.SELECTED)
    with pytest.raises(ValueError, match="no row CartPole-v1 leave_one_out"):
        report.short_table(lines[2:])


def test_untuned_rows_are_of_every_label_with_its_own_settings() -> None:
    rows = selection.every_row("classic")
    names = [task.name for task in SUITES["classic"]]
    assert [(task.name, row.label) for task, row in rows] == [
        (name, label) for name in names for label in selection.FIRST
    ]
    assert not {task.name for task in SUITES["shorter"]} & {
        task.name for task, _ in selection.every_row("all")
    }
    (one,) = selection.every_row("classic", ("Acrobot-v1",), ("ppo",))
    config, hyperparams = selection.untuned_settings(*one)
    other, of_other = preset("ppo", env="MountainCar-v0", task="Seaquest")
    assert config == dataclasses.replace(other, env="Acrobot-v1", preset=None)
    assert hyperparams == of_other
    for row in selection.every_row("all"):  # an environment that is tuned has no say in them
        check_together(*selection.untuned_settings(*row))
    assert config != selection.settings(*one)[0]
    with pytest.raises(ValueError, match="unknown label 'pppo': did you mean 'ppo'"):
        selection.every_row("classic", labels=("pppo",))


def test_the_untuned_table_has_labels_side_by_side() -> None:
    lines = [
        *rows_of("CartPole-v1", "ppo", [500.0, 400.0]),
        *rows_of("CartPole-v1", "leave_one_out", [100.0, 100.0]),
        *rows_of("Reacher-misc", "ppo", [1.0, 2.0]),
    ]
    head, _, cartpole, reacher = [
        [cell.strip() for cell in row.strip("|").split(" | ")]
        for row in report.untuned_table(lines).splitlines()
    ]
    assert head == ["environment", "random", "`leave_one_out`", "`ppo`", "best known"]
    assert cartpole == ["CartPole-v1", "22.1", "100.0 ± 0.0", "450.0 ± 50.0", "500.0"]
    assert reacher == ["Reacher-misc", "16.8", "—", "1.500 ± 0.500", "—"]


def test_the_untuned_benchmark_runs_and_writes_its_table(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(selection, "untuned_settings", tiny_row)
    page = tmp_path / "page.md"
    page.write_text("\n".join(report.UNTUNED_MARKS))
    asked = [*SMALL, "--untuned", "--label", "ppo", "--out", str(tmp_path / "out")]
    assert script.main([*asked, "--report", str(page)]) == 0
    lines = learning.collect(tmp_path / "out")
    assert page.read_text().splitlines()[1:-1] == report.untuned_table(lines).splitlines()
    assert {(line.env, line.label) for line in lines} == {("DeepSea-bsuite", "ppo")}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        script.main([*asked, "--optimizer", "sgd"])
    assert "untuned applies only to the labels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main([*asked, "--readme", str(page)])
    assert "untuned applies only to the labels, and takes no readme" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main([*SMALL, "--untuned"])
    assert "give them their own folder" in capsys.readouterr().err


OWN = (
    HEADER
    + CLIPPED
    + LINEAR
    + """

def ppo(policy, critic, h):
    return clipped(policy, critic, h)
"""
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file outside the package, with an estimator and a policy."""
    path = tmp_path / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    return path


SETTINGS = selection.settings


def own_tiny(task: suites.Task, row: suites.Row) -> tuple[Config, Hyperparams]:
    if not row.parts:
        return tiny_row(task, row)
    config, hyperparams = SETTINGS(task, row)
    small = {"num_updates": 2, "num_envs": 4, "horizon": 4, "hidden_sizes": (4,)}
    return dataclasses.replace(config, **small, preset=None), hyperparams


@pytest.mark.acceptance("S4")
def test_an_own_estimator_is_benchmarked_beside_the_suite_s(
    script: ModuleType,
    finished: Path,
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder records the file, and it is not run again."""
    monkeypatch.setattr(selection, "settings", own_tiny)
    out = copied(finished, tmp_path / "out")
    command = [*SMALL, "--label", "ppo", "--estimator", f"{own}:clipped", "--out", str(out)]
    assert script.main(command) == 0
    printed = capsys.readouterr().out
    assert "with these settings: 1 row\n" in printed
    for label in ("ppo", "clipped"):
        assert re.search(rf"\| DeepSea-bsuite +\| `{label}` ", printed)
    row = out / "DeepSea-bsuite" / "clipped"
    recorded = json.loads((row / "seeds-0-1" / "config.json").read_text())["parts"]["estimator"]
    before = own_files.read(f"{own}:clipped").sha256
    assert (recorded["name"], recorded["file"]) == ("clipped", str(own))
    assert recorded["sha256"] == before
    copy = row / "seeds-0-1" / "code" / f"mine-{before[:SHORT]}.py"
    assert copy.read_text() == OWN
    rows = selection.select("bsuite", ("DeepSea-bsuite",), (f"{own}:clipped",))
    assert learning.plan(rows, own_tiny, out, seeds=2, episodes=3) == ([], 1)


def test_results_of_changed_code_are_not_taken_for_today_s(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = selection.select("bsuite", ("DeepSea-bsuite",), (f"{own}:clipped",))
    (cell, *_), _ = learning.plan(rows, selection.settings, tmp_path, seeds=2)
    folder = cell._replace(seeds=(0, 1)).folder(tmp_path)
    options = {"eval_episodes": cell.episodes}
    folder.mkdir(parents=True)
    folders.write_setup(folder, cell.config, cell.hyperparams, options, {"pg": "0"})
    scores = [{"seed": i, "env_steps": 1, "mean": 0.0, "greedy": {"mean": 0.0}} for i in (0, 1)]
    folders.write_json(folder / "summary.json", {"failed_seeds": [], "per_seed": scores})
    asked: dict[str, Any] = {"settings": selection.settings, "out": tmp_path, "seeds": 3}
    cells, _ = learning.plan(rows, **asked)
    assert [cell.seeds for cell in cells] == [(2,)]

    before = own_files.read(f"{own}:clipped").sha256[:SHORT]
    own.write_text(f"{OWN}# changed", encoding="utf-8")
    after = own_files.read(f"{own}:clipped").sha256[:SHORT]
    rows = selection.select("bsuite", ("DeepSea-bsuite",), (f"{own}:clipped",))
    with pytest.raises(ValueError, match=f"'clipped' was {before}, and is {after}") as changed:
        learning.plan(rows, **asked)
    assert str(changed.value).endswith(
        "continues with the current one; --redo runs these seeds again with it"
    )
    cells, _ = learning.plan(rows, **asked, allow_changed_code=True)
    assert [cell.seeds for cell in cells] == [(2,)]
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"the code of estimator 'clipped' is {before} in the stored run and {after} in this one"
        in said
    )
    assert learning.remarks(tmp_path) == []
    later = cells[0].folder(tmp_path)
    later.mkdir()
    folders.write_setup(later, cells[0].config, cells[0].hyperparams, options, {"pg": "0"})
    third = {"failed_seeds": [], "per_seed": [{**scores[0], "seed": 2}]}
    folders.write_json(later / "summary.json", third)
    (remark,) = learning.remarks(tmp_path)
    assert remark.startswith("DeepSea-bsuite clipped: its seeds are of 2 versions of your code")
    shutil.rmtree(later)
    (again,), _ = learning.plan(rows, **asked, redo=True)
    assert again.seeds == (0, 1, 2)
    (stored,) = learning.stored_cells(folder.parent)
    learning._remove(stored)
    assert list(folder.parent.iterdir()) == []  # nor is the copy of the text left


def test_a_part_that_does_not_fit_is_found_before_any_row_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "run_cell", lambda *_: pytest.fail("it trained"))

    def one_dimension(policy: Any, critic: Any, h: Any) -> Any:
        def weigh(params: Any, state: Any, traj: Any) -> Any:
            return traj.reward[0, :1, None, None], (), state

        return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))

    rows = selection.select("bsuite", ("DeepSea-bsuite",), ("ppo", one_dimension))
    with pytest.raises(ValueError, match=r"^DeepSea-bsuite one_dimension: .*shape"):
        learning.run(rows, own_tiny, tmp_path, seeds=2)
    assert not list(tmp_path.iterdir())


def test_own_parts_are_rows_of_their_own(own: Path) -> None:
    """An estimator in every environment, and whatever else one for each label."""
    clipped = own_files.load(f"{own}:clipped")
    rows = selection.select(
        "classic",
        labels=("leave_one_out", f"{own}:clipped"),
        settings_of="leave_one_out",
        policy=f"{own}:linear",
        optimizer="sgd",
    )
    labels = [row.label for _, row in rows]
    assert labels.count("clipped+linear+sgd") == len(SUITES["classic"])
    assert set(labels) == {"leave_one_out+linear+sgd", "clipped+linear+sgd"}
    named, mine = (selection.settings(task, row)[0] for task, row in rows[:2])
    assert rows[0][0] is rows[1][0] is TASKS["CartPole-v1"]
    linear = own_files.load(f"{own}:linear")
    assert (mine.estimator, mine.policy, mine.optimizer) == (clipped, linear, "sgd")
    assert dataclasses.replace(mine, estimator="leave_one_out", preset=None) == named
    assert named.num_updates == 60  # as tuned for the environment
    assert all(row.bar is None for _, row in rows)  # a bar is for the label as it is
    (_, alone), *_ = selection.select("classic", labels=(clipped,))
    assert selection.settings(TASKS["CartPole-v1"], alone)[0] == Config(estimator=clipped)
    (_, row) = selection.select("classic", ("CartPole-v1",), (ESTIMATORS["ppo"],))[0]
    assert row in TASKS["CartPole-v1"].rows  # this package's own function is its name


def test_an_own_environment_has_the_rows_that_are_named(own: Path, tmp_path: Path) -> None:
    env, labels = Clock(), ("grpo", "leave_one_out", f"{own}:clipped")
    rows = selection.select("classic", ("Acrobot-v1", env), labels)
    assert [(task.name, row.label) for task, row in rows] == [
        *(("Acrobot-v1", label) for label in ("leave_one_out", "clipped")),
        *(("Clock", label) for label in ("grpo", "leave_one_out", "clipped")),
    ]
    (cell, *_), _ = learning.plan(rows[-1:], selection.settings, tmp_path, seeds=2)
    assert cell.config.env is env
    folders.write_setup(tmp_path, cell.config, cell.hyperparams, {}, {"pg": "0"})
    stored = learning.Stored(tmp_path, folders.read_stored(tmp_path), cell.episodes, [])
    assert cell.difference(stored) is None

    class Other(Clock):
        pass

    for changes in ({"env": Other()}, {"estimator": "leave_one_out"}, {"num_updates": 7}):
        other = cell._replace(config=dataclasses.replace(cell.config, **changes))
        assert "made with other settings" in str(other.difference(stored)), changes


def test_a_wrong_part_is_one_sentence_before_any_file_is_executed(
    own: Path, tmp_path: Path
) -> None:
    marked = tmp_path / "marked.py"
    marked.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclipped = len\n")
    first = f"{marked}:clipped"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"labels": (first, f"{own}:clip")}, "unknown name in .* 'clip': did you mean 'clipped'"),
        ({"labels": (first, "no.py:clipped")}, "there is no file no.py"),
        ({"labels": (first, "clipt")}, "unknown label .*; your own is given as FILE.py:NAME"),
        ({"labels": (first,), "policy": "no.py:x"}, "there is no file no.py"),
        ({"labels": (first,), "settings_of": "ppoo"}, "unknown settings_of 'ppoo'"),
        ({"envs": ("Clock",)}, "unknown environment .*; your own is given as FILE.py:NAME"),
        ({"labels": ("ppo",), "settings_of": "ppo"}, "is for your own estimators: give one"),
        ({"labels": (f"{own}:linear",)}, "estimator must be a function of policy, critic, hyper"),
        ({"labels": (f"{own}:ppo",)}, "your own 'ppo' has the name of a"),
        ({"labels": (f"{own}:clipped",) * 2}, "label .*: two are called 'clipped'"),
        ({"policy": "linear"}, "policy must be FILE.py:NAME, got 'linear'"),
        ({"policy": f"{own}:clipped"}, "policy must be a function of config, env"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd': did you mean 'sgd'"),
        ({"envs": (Clock(),)}, "so has no rows: name labels to run on it"),
        ({"envs": (object(),), "labels": ("ppo",)}, "env must be a name or a gymnax environment"),
        (
            {"envs": (gymnax.make("Acrobot-v1")[0],), "labels": ("ppo",)},
            "'Acrobot-v1' has the name of a listed one",
        ),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            selection.select("classic", **arguments)
    assert not (tmp_path / "executed").exists()


MISTAKES = [
    (["--suite", "clasic"], "unknown suite 'clasic': did you mean 'classic'?"),
    (["--estimator", "nowhere.py:clipped"], "there is no file nowhere.py"),
    (
        ["--env", "Acrobot-v2"],
        "unknown environment of suite 'classic' 'Acrobot-v2': did you mean 'Acrobot-v1'",
    ),
    (["--label", "pppo"], "unknown label of suite 'classic' 'pppo': did you mean 'ppo'"),
    (
        ["--env", "Acrobot-v1", "--label", "natural"],
        "suite 'classic' has no row for both Acrobot-v1 and natural",
    ),
    (["--seeds", "0"], "seeds must be a whole number of at least 1, got 0"),
    (["--seeds-per-program", "-1"], "--seeds-per-program must be"),
    (["--report", "no/such/README.md"], "no/such/README.md needs one line <!-- results -->"),
    (["--from", "nowhere.csv"], "cannot read nowhere.csv: No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = refused("benchmark.py", *arguments)
    assert message in " ".join((done.stderr + done.stdout).replace("│", " ").split())


def test_help_teaches_and_does_not_wait_for_jax() -> None:
    done, modules = run_with_imports("benchmark.py", "--help")
    assert done.returncode == 0
    assert "jax" not in modules
    for word in (
        "--suite",
        "--seeds-per-program",
        "--redo",
        "--from",
        "--report",
        "the same command continues",
    ):
        assert word in " ".join(done.stdout.split())


def test_a_stored_curve_is_a_loops() -> None:
    g = np.random.default_rng(0)
    episodes = g.integers(0, 3, (2, 23))
    returns = np.where(episodes > 0, g.normal(size=(2, 23)), np.nan)
    metrics = {"return": returns, "episodes": episodes, "env_steps": g.integers(1, 9, (2, 23))}
    steps, means = curves.seed_curves(metrics, points=5)
    ends = [4, 9, 13, 18, 23]
    assert steps.shape == means.shape == (2, 5)
    for seed in range(2):
        for k, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            ended = [
                (returns[seed, i], episodes[seed, i])
                for i in range(start, end)
                if episodes[seed, i]
            ]
            want = sum(x * n for x, n in ended) / sum(n for _, n in ended) if ended else np.nan
            np.testing.assert_allclose(means[seed, k], want, rtol=1e-6)
            assert steps[seed, k] == metrics["env_steps"][seed, :end].sum()
    assert curves.seed_curves(metrics)[0].shape == (2, 23)  # no more points than updates
    none = curves.seed_curves({**metrics, "episodes": 0 * episodes, "return": returns * np.nan})[1]
    assert np.isnan(none).all()


def test_curves_are_read_off_at_the_steps_that_all_have() -> None:
    steps, values = curves.aligned([([1, 5], [0.0, 4.0]), ([3, 9], [1.0, 7.0])], points=3)
    np.testing.assert_array_equal(steps, [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(values, [[2.0, 3.0, 4.0], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_return_that_is_not_finite_is_missing_from_its_own_stretch_alone(bad: float) -> None:
    returns = np.arange(40.0)[None]
    metrics = {"return": returns, "episodes": np.ones((1, 40)), "env_steps": np.ones((1, 40), int)}
    whole = curves.seed_curves(metrics, points=10)[1]
    damaged = returns.copy()
    damaged[0, 9] = bad
    found = curves.seed_curves({**metrics, "return": damaged}, points=10)[1]
    assert np.isnan(found[0, 2])
    np.testing.assert_array_equal(np.delete(found, 2, axis=1), np.delete(whole, 2, axis=1))


def test_the_mean_curve_is_of_all_seeds_on_steps_that_all_have() -> None:
    steps = [[10, 20, 30], [20, 30, 40], [12, 22, 32]]
    returns = [[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [np.nan, 3.0, 4.0]]
    mean = curves.mean_learning_curve(steps, returns, points=3)
    np.testing.assert_allclose(mean.steps, [22.0, 26.0, 30.0])
    # at step 26 the seeds are at 2.6, 5.6 and 3.4
    np.testing.assert_allclose(mean.mean.value, [(2.2 + 5.2 + 3) / 3, 11.6 / 3, (3 + 6 + 3.8) / 3])
    assert (mean.mean.low < mean.mean.value).all()
    assert (mean.mean.value < mean.mean.high).all()
    with pytest.raises(ValueError, match="no episode ended in 1 of 2 seeds"):
        curves.mean_learning_curve([[1, 2], [1, 2]], [[0.0, 1.0], [np.nan, np.nan]])


NOTHING_IN_COMMON: list[tuple[Any, str]] = [
    ([([1, 3], [0.0, 1.0]), ([5, 9], [0.0, 1.0])], "one begins at 5, where another ended at 3"),
    ([([5], [0.0]), ([3], [1.0])], "one begins at 5, where another ended at 3"),
    ([([1, 3], [0.0, 1.0]), ([], [])], r"at least one point each, got \[2, 0\] points"),
    ([], r"at least one point each, got \[\] points"),
]
NO_CURVES: list[tuple[Any, str]] = [
    (
        [([1, 3], [0.0])],
        r"a pair of steps \[K\] and values \[K\], got arrays of shapes \[\(2,\), "
        r"\(1,\)\]",
    ),
    ([(np.zeros((2, 3)), np.zeros((2, 3)))], r"got arrays of shapes \[\(2, 3\), \(2, 3\)\]"),
    (
        (np.arange(3), np.arange(3)),
        r"a pair of steps \[K\] and values \[K\], got array\(\[0, 1, "
        r"2\]\)",
    ),
]


@pytest.mark.parametrize(("pairs", "message"), NO_CURVES)
def test_what_is_no_curve_is_one_sentence(pairs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curves.aligned(pairs)


@pytest.mark.parametrize(("pairs", "message"), NOTHING_IN_COMMON)
def test_curves_without_steps_in_common_are_one_sentence(pairs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curves.aligned(pairs)


def test_seeds_without_steps_in_common_have_no_curve_and_the_others_do(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = learning.collect(copied(finished, tmp_path))
    whole = report.mean_curves(lines, tmp_path)["DeepSea-bsuite"]
    folder = tmp_path / "DeepSea-bsuite" / "ppo" / "seeds-0-1"
    metrics = pg.load_results(folder).metrics
    metrics["env_steps"] = metrics["env_steps"] + np.array([[0] * 3, [10**6] * 3])
    results.write_metrics(folder, metrics, [0, 1])
    assert set(whole) - set(report.mean_curves(lines, tmp_path)["DeepSea-bsuite"]) == {"ppo"}
    assert (
        "DeepSea-bsuite ppo: no learning curve is drawn, as curves must" in capsys.readouterr().out
    )


def test_normalised_scores_are_of_the_environments_that_labels_share() -> None:
    lines = [
        *rows_of("CartPole-v1", "ppo", [500.0, 22.1, 500.0]),
        *rows_of("CartPole-v1", "reinforce", [500.0] * 3),
        *rows_of("CartPole-v1", "trpo", [100.0] * 2),  # nowhere else
        *rows_of("Acrobot-v1", "ppo", [-500.0, -73.5]),
        *rows_of("Acrobot-v1", "reinforce", [-73.5] * 4),
        *rows_of("MountainCar-v0", "ppo", [-100.0]),  # too few seeds
        *rows_of("MountainCar-v0", "reinforce", [-200.0]),
        *rows_of("Pendulum-v1", "ppo", [-200.0] * 2),  # not of the other
        *rows_of("Reacher-misc", "ppo", [3.0]),  # no scale
        *rows_of("SimpleBandit-bsuite", "ppo", [0.5]),  # no scale
    ]
    names, scores = report.normalised(lines)
    assert names == ["CartPole-v1", "Acrobot-v1"]
    assert set(scores) == {"ppo", "reinforce"}
    np.testing.assert_allclose(scores["ppo"], [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(scores["reinforce"], np.ones((3, 2)))
    assert report.normalised([]) == ([], {})


def test_figures_of_several_environments(finished: Path, tmp_path: Path) -> None:
    """Also without learning curves: a table may come without them."""
    lines = [
        Result(env, label, seed, float(x), float(x), 1000)
        for env in ("DeepSea-bsuite", "Catch-bsuite")
        for label in ("ppo", "actor_critic")
        for seed, x in enumerate(np.random.default_rng(0).uniform(size=5))
    ]
    drawn = report.draw(lines, copied(finished, tmp_path))
    assert [path.name for path in drawn] == ["curves.png", "profiles.png", "intervals.png"]
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert "<svg" in path.with_suffix(".svg").read_text()
    one_seed = [line for line in lines if line.seed == 0]
    assert "intervals.png" in [path.name for path in report.draw(one_seed, tmp_path)]
    (tmp_path / "empty").mkdir()
    assert [path.name for path in report.draw(lines, tmp_path / "empty")] == [
        "profiles.png",
        "intervals.png",
    ]
    assert report.draw([], tmp_path / "empty") == []


def test_profiles_of_one_label_have_the_best_rows_beside_it(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [
        *rows_of("CartPole-v1", "ppo", [500.0, 22.1]),
        *rows_of("Acrobot-v1", "ppo", [-500.0, -73.5]),
        *rows_of("Acrobot-v1", "reinforce", [-73.5] * 2),
    ]
    shown: dict[str, Any] = {}
    monkeypatch.setattr(report.statistics, "performance_profile", lambda scores, _: scores.tolist())
    monkeypatch.setattr(
        report.plots, "performance_profiles", lambda _, profiles, path, **__: shown.update(profiles)
    )
    table, picture = tmp_path / "table.csv", tmp_path / "profiles.png"
    tables.write_rows(table, Result, lines)
    assert script.main(["--from", str(table), "--figure", str(picture)]) == 0
    assert shown == {"ppo": [[1.0, 0.0], [0.0, 1.0]], "best row": [[1.0, 1.0], [0.0, 1.0]]}
    tables.write_rows(table, Result, lines[:2])
    with pytest.raises(SystemExit):
        script.main(["--from", str(table), "--figure", str(picture)])
    assert "no label can be compared" in capsys.readouterr().err


def test_an_environment_of_another_library_is_known_by_both_of_its_names() -> None:
    """The benchmark accepts both names; other commands answer the benchmark's name with the other
    one.
    """
    further = [*SUITES["mujoco"], *SUITES["libraries"]]
    assert {task.name: task.env for task in further} == OF_BENCHMARK
    for short, name in OF_BENCHMARK.items():
        suite = "mujoco" if name.startswith("gymnasium:") else "libraries"
        assert selection.select(suite, [name]) == selection.select(suite, [short])
        assert selection.every_row(suite, [name]) == selection.every_row(suite, [short])
        for env in (name, short):
            with pytest.raises(ValueError, match=f"not in suite 'classic': write --suite {suite}"):
                selection.select("classic", [env])
        with pytest.raises(ValueError, match=f"unknown env '{short}': did you mean '{name}'"):
            check_env(short)
    with pytest.raises(
        ValueError, match="'Catch-bsuite' is not in suite 'classic': write --suite all"
    ):
        selection.select("classic", ["CartPole-v1", "Catch-bsuite"])
    with pytest.raises(
        ValueError,
        match="no suite has all of these environments: 'Hopper-v5' in 'mujoco', "
        "'Knapsack-jumanji' in 'libraries'; give one command for each suite",
    ):
        selection.select("classic", ["gymnasium:Hopper-v5", "jumanji:Knapsack-v1"])
    with pytest.raises(ValueError, match="two are called 'Knapsack-jumanji'"):
        selection.select("libraries", ["Knapsack-jumanji", "jumanji:Knapsack-v1"])
    for near, name in {"connect_four": "pgx:connect_four", "Hopper": "gymnasium:Hopper-v5"}.items():
        with pytest.raises(ValueError, match=f"did you mean '{name}'"):
            check_env(near)


def test_the_suites_are_of_environments_and_labels_that_exist() -> None:
    assert len(SUITES["all"]) == 28
    further = [*SUITES["mujoco"], *SUITES["libraries"]]  # which need further packages
    assert list(TASKS.values()) == [*SUITES["all"], *further]
    for task in TASKS.values():
        env = task.env or task.name
        assert env in ENVIRONMENTS or (task in further and env.partition(":")[0] in ADAPTERS)
        assert len({row.label for row in task.rows}) == len(task.rows) > 0
        assert {row.label for row in task.rows} <= {*FACTS, *VARIANTS}
        assert task.best is None or task.floor <= task.best
        for row in task.rows:
            assert row.steps >= 100_000
            assert (
                row.bar is None
                or row.bar.share is None
                or round(row.bar.share * 20, 9).is_integer()
            )
            config, _ = selection.settings(task, row)
            if config.collect == "windows":  # episodes end when they end
                steps = (
                    config.num_updates * config.num_envs * config.num_steps * config.action_repeat
                )
                assert steps <= row.steps, (task.name, row.label)
    assert TASKS["UmbrellaChain-bsuite"].episodes * 20 >= 3600
    assert [task.name for task in TASKS.values() if not task.normalisable] == [
        "SimpleBandit-bsuite",
        "Reacher-misc",
        "Swimmer-misc",
        "Knapsack-jumanji",
    ]
    assert len(selection.select("all")) == sum(len(task.rows) for task in SUITES["all"])
    assert [row.label for _, row in selection.select("classic", ("Acrobot-v1",), ("ppo",))] == [
        "ppo"
    ]


def test_the_lake_s_optimum() -> None:
    """By dynamic programming over its table, for the 100 steps of its time limit."""
    from pg.exact import tabular

    mdp = tabular.frozen_lake()
    value = np.zeros(len(mdp.terminal))
    for _ in range(mdp.horizon):
        value = (np.asarray(mdp.mean_reward) + np.asarray(mdp.continuing) @ value).max(axis=1)
    assert np.asarray(mdp.initial) @ value == pytest.approx(TASKS["FrozenLake-misc"].best, abs=5e-4)
