"""The script for accelerators, on the CPU: it runs to the end, may stop at any time, and its page
has no empty cell.
"""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "accelerator.py"
PAGE = ROOT / "docs" / "accelerator.md"
sys.path.insert(0, str(SCRIPT.parent / "speed"))
sys.path.insert(0, str(SCRIPT.parent))
import accelerator  # noqa: E402
from device import driver, hlo, plan, report  # noqa: E402

for place in (SCRIPT.parent / "speed", SCRIPT.parent):
    sys.path.remove(str(place))


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        timeout=550,
        check=False,
    )


def cells(page: str) -> list[str]:
    """The cells of all tables, except the corners."""
    rows = [line[2:-2].split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return [cell for row in rows for i, cell in enumerate(row) if i or cell.strip()]


def answered(section: plan.Section) -> dict[str, Any]:
    """A result for every row, of numbers where the columns are of numbers."""
    result = {column.key: "text" if column.form == "{}" else 1.5 for column in section.columns}
    return {row.name: {"result": result} for row in section.rows}


@pytest.mark.slow
def test_a_trial_fills_every_section_also_after_a_stop(tmp_path: Path) -> None:
    """A first call whose time ends halfway leaves a file with a page; the second call measures the
    rest.
    """
    out, written = tmp_path / "out", tmp_path / "page.md"
    path = out / driver.FILE
    stopped = run("--smoke", "--out", str(out), "--minutes", "0.3")
    assert stopped.returncode == 0, stopped.stderr
    first = json.loads(path.read_text())
    assert first["skipped"]
    assert f"no time for {len(first['skipped'])} rows: " in stopped.stdout
    assert run("--from", str(path), "--report", str(written)).returncode == 0
    page = written.read_text()
    assert "Not measured: " in page or "not measured" in cells(page)
    assert all(cells(page))
    done = run("--smoke", "--out", str(out), "--minutes", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text())
    assert results["skipped"] == []
    for section in plan.sections(smoke=True):
        for row in section.rows:
            result = results["sections"][section.name][row.name]["result"]
            assert {column.key for column in section.columns} <= set(result), row.name
        if section.name in first["sections"] and section.name != "worker.machine":
            before = first["sections"][section.name]
            assert before.items() <= results["sections"][section.name].items()
    for name in ("checks.proof", "checks.update", "checks.gradient"):
        assert {x["result"]["verdict"] for x in results["sections"][name].values()} == {"within"}
    (chunk,) = results["sections"]["checks.chunk"].values()
    given, arrays = chunk["result"]["donated"].split(" of ")
    assert given == arrays
    assert chunk["result"]["host_operations"] == "0"
    assert run("--from", str(path), "--report", str(written)).returncode == 0
    assert "Not measured: " not in written.read_text()
    assert "not measured" not in cells(written.read_text())
    assert all(cells(written.read_text()))
    assert "no figure below says anything" in written.read_text()


def test_the_page_of_this_repository_is_generated() -> None:
    """From stored results, where there are any; otherwise every section says there are none."""
    source = PAGE.with_suffix(".json")
    assert PAGE.read_text() == report.page(driver.read(source) if source.exists() else None)
    if not source.exists():
        page, _, others = PAGE.read_text().partition("## What others report")
        assert "**Nothing here has been measured**" in page
        sections = plan.sections(smoke=False)
        assert not cells(page)
        assert [line[2:] for line in page.splitlines() if line.startswith("## ")] == [
            f" {section.title}" for section in sections
        ]
        lines = [line for line in page.splitlines() if line.startswith("Not measured: ")]
        for line, section in zip(lines, sections, strict=True):
            assert line.startswith(f"Not measured: {len(section.rows)} rows of ")
            assert all(column.head in line for column in section.columns)
        assert others.count("http") == 4


def test_every_answer_has_its_cell() -> None:
    sections = plan.sections(smoke=False)
    results: dict[str, Any] = {"smoke": False, "date": "2026-01-01", "sections": {}}
    for section in sections:
        results["sections"][section.name] = answered(section)
    page = report.page(results)
    assert "not measured" not in cells(page)
    rows = sum(len(section.rows) for section in sections)
    assert f"{rows} of {rows} rows measured on text, 2026-01-01." in page
    training = results["sections"]["training.throughput"]
    name = next(iter(training))
    training[name] = {"error": "MemoryError: 1 | 2"}
    failed = report.page(results)
    assert cells(failed).count("failed") == 5
    assert f"\n- {name}: MemoryError: 1 / 2\n" in failed


@pytest.mark.parametrize("smoke", [True, False])
def test_the_plan_names_every_row_once(smoke: bool) -> None:
    """The most important rows of all sections come before the others of any section."""
    sections = plan.sections(smoke=smoke)
    for section in sections:
        assert len({row.name for row in section.rows}) == len(section.rows), section.title
    rows = plan.order(sections)
    assert rows[0][0].name == "worker.machine"
    later = [row.later for _, row in rows]
    assert later == sorted(later)
    grid = {
        (row.settings["task"], row.settings["estimator"])
        for section in sections
        if section.name == "training.throughput"
        for row in section.rows
    }
    assert smoke or grid == {(t, e) for t in plan.TASKS for e in plan.ESTIMATORS}


def test_what_a_row_takes_with_it_is_its_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that does not answer, or whose process ends, fails; the following rows are measured in
    another process until the time is over.
    """
    names = ["good", "hangs", "ends", "fails", "good too", "too late", "never"]
    columns = (plan.Column("x", "x"),)
    rows = tuple(plan.Row(name, {"name": name}) for name in names)
    section = plan.Section("m", "f", "title", "", columns, rows, most_seconds=1.0)
    answers = {
        "hangs": "time.sleep(60)",
        "ends": "sys.exit(3)",
        "fails": 'print(json.dumps({"error": "E: no"}), flush=True)',
        "too late": "time.sleep(60)",
    }
    good = 'print(json.dumps({"result": {"x": 1}}), flush=True)'
    program = "import json, sys, time\n"

    def command(settings: list[list[Any]]) -> list[str]:
        lines = []
        for _, _, given in settings:
            lines.append('print(json.dumps({"begin": 0}), flush=True)')
            lines.append(answers.get(given["name"], good))
        return [sys.executable, "-c", program + "\n".join(lines)]

    monkeypatch.setattr(driver, "_command", command)
    found: dict[str, Any] = {}
    deadline = time.monotonic() + 60
    pairs = [(section, row) for row in rows[:5]]
    for answer in driver._answers(pairs, tmp_path, deadline):
        found[answer.row.name] = answer.value
    assert list(found) == names[:5]
    assert found["good"] == found["good too"] == {"result": {"x": 1}}
    assert found["fails"] == {"error": "E: no"}
    assert found["hangs"]["error"] == "it took longer than 1 s"
    assert "its process ended" in found["ends"]["error"]
    late = [(section._replace(most_seconds=60.0), row) for row in rows[5:]]
    assert list(driver._answers(late, tmp_path, time.monotonic() + 1)) == []


def test_another_device_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measured row is not measured again, unless the device is another one."""
    sections = plan.sections(smoke=True)
    asked: list[str] = []
    device = {"value": "1 × here"}

    def answers(rows: driver.Rows, out: Path, deadline: float) -> Any:
        for section, row in rows:
            asked.append(section.name)
            if section.name == "worker.machine":
                value = {"result": dict(device), "seconds": float(len(asked))}
                yield driver.Answer(section, row, value)
            else:
                yield driver.Answer(section, row, answered(section)[row.name])

    monkeypatch.setattr(driver, "_answers", answers)
    everything = [section.name for section, _ in plan.order(sections)]
    driver.run(tmp_path, minutes=1, smoke=True)
    assert asked == everything
    asked.clear()
    driver.run(tmp_path, minutes=1, smoke=True)
    assert set(asked) == {"worker.machine"}
    asked.clear()
    device["value"] = "8 × elsewhere"
    results = driver.run(tmp_path, minutes=1, smoke=True)
    assert asked == ["worker.machine", *everything]
    stored = results["sections"]["worker.machine"]["device"]["result"]
    assert stored == {"value": "8 × elsewhere"}
    with pytest.raises(ValueError, match="holds results of another kind"):
        driver.run(tmp_path, minutes=1, smoke=False)
    (tmp_path / driver.FILE).write_text("{}")
    with pytest.raises(ValueError, match="is not a file of results"):
        driver.run(tmp_path, minutes=1, smoke=True)


def test_a_cpu_is_no_accelerator(tmp_path: Path) -> None:
    """Its figures would be mistaken for an accelerator's."""
    done = run("--out", str(tmp_path))
    assert done.returncode == 2
    assert "jax finds no accelerator here; --smoke tries the program on a CPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script checks for all dependencies except flatbuffers, which only an export needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[>=<]", text)[0] for text in project["dependencies"]}
    assert needed - {"flatbuffers"} <= set(accelerator.NEEDED.values())
    assert accelerator.missing() == []
    monkeypatch.setitem(accelerator.NEEDED, "a_module_that_is_not_there", "its-name")
    assert accelerator.missing() == ["its-name"]


HLO = """HloModule jit_f, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %add.1 = f32[4]{0} add(%p, %p)
}

%inner_body (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %arg = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%arg), index=1
  %f1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  %f2 = f32[4]{0} fusion(%f1), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[4]{0}) tuple(%f1, %f2)
}

%launched (q: f32[4]) -> f32[4] {
  %q = f32[4]{0} parameter(0)
  ROOT %c = f32[4]{0} custom-call(%q), custom_call_target="__cublas$gemm"
}

%body (arg.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %arg.1 = (s32[], f32[4]{0}) parameter(0)
  %w = (s32[], f32[4]{0}) while(%arg.1), condition=%cond, body=%inner_body, \
backend_config={"known_trip_count":{"n":"50"}}
  %y = f32[4]{0} get-tuple-element(%w), index=1
  %call.1 = f32[4]{0} call(%y), to_apply=%launched
  ROOT %t.1 = (s32[], f32[4]{0}) tuple(%call.1)
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %start = f32[4]{0} copy-start(%a)
  %done = f32[4]{0} copy-done(%start)
  %w.1 = (s32[], f32[4]{0}) while(%done), condition=%cond.1, body=%body
  ROOT %r = f32[4]{0} get-tuple-element(%w.1), index=1
}
"""


def test_kernels_are_counted_in_their_loops() -> None:
    assert hlo.counted(HLO) == (
        "1 + ? × (1 + 50 × (2))",
        [hlo.Loop(2, 50, False), hlo.Loop(1, None, True)],
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--minutes", "0"], "minutes must be above 0, got 0.0"),
        (["--minutes", "nan"], "minutes must be above 0, got nan"),
        (["--from", "x.json"], "--from needs --report FILE.md"),
        (["--from", "x.json", "--report", "x.md"], "x.json is not a file of results"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], said: str) -> None:
    done = run(*flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
