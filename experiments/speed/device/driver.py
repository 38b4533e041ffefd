"""Runs the rows of the plan in separate processes, within a budget, and writes each result at once.

Imports neither jax nor pg: this process leaves the device to the others.
"""

import contextlib
import datetime
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from device import plan

HERE = Path(__file__).resolve()
ROOT = HERE.parents[3]
FILE = "accelerator.json"
LOG = "accelerator.log"
# Facts that identify the machine of earlier results.
IDENTITY = ("backend", "device", "driver", "jax", "jaxlib")
CPU = {"value": "cpu"}  # the backend of a machine without an accelerator
START_SECONDS = 120.0  # at most, until a process begins its first row
Rows = Sequence[tuple[plan.Section, plan.Row]]


class Answer(NamedTuple):
    """The answer of a row: {"result": ...} or {"error": ...}."""

    section: plan.Section
    row: plan.Row
    value: dict[str, Any]


def run(out: Path, *, minutes: float, smoke: bool) -> dict[str, Any]:
    """Measures what is missing in `out`, and returns all results.

    Args:
        out: A folder, in which results are written.
        minutes: The time after which the row in progress is aborted, and no other begun.
        smoke: Tiny programs, also on a CPU.

    Raises:
        ValueError: There is no accelerator, or `out` holds other results.
    """
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    results = _continued(out / FILE, smoke=smoke)
    sections = plan.sections(smoke=smoke)
    if not _measure(results, sections, out, deadline):
        print(
            "another device or other software than before: everything is measured again", flush=True
        )
        results = _nothing(smoke=smoke)
        _measure(results, sections, out, deadline)
    results["skipped"] = [
        f"{section.title}: {row.name}"
        for section, row in plan.order(sections)
        if row.name not in results["sections"].get(section.name, {})
    ]
    write(out / FILE, results)
    return results


def _nothing(*, smoke: bool) -> dict[str, Any]:
    """Results without a row."""
    return {"smoke": smoke, "date": "", "sections": {}, "skipped": []}


def _continued(path: Path, *, smoke: bool) -> dict[str, Any]:
    """The results of an earlier call, or none. Raises ValueError for a file that holds others."""
    if not path.exists():
        return _nothing(smoke=smoke)
    results = read(path)
    if results["smoke"] != smoke:
        raise ValueError(f"{path} holds results of another kind (--smoke): give another --out")
    return results


def _measure(
    results: dict[str, Any], sections: Sequence[plan.Section], out: Path, deadline: float
) -> bool:
    """Adds what is missing, the machine's facts first. Returns False, at once, if these differ."""
    facts = sections[0]
    before = dict(results["sections"].get(facts.name, {}))
    results["date"] = datetime.date.today().isoformat()
    missing = [
        (section, row)
        for section, row in plan.order(sections)
        if section is facts or not _is_measured(results, section, row)
    ]
    for answer in _answers(missing, out, deadline):
        name = answer.row.name
        known = before.get(name, answer.value).get("result")
        found = answer.value.get("result")
        if answer.section is facts and name in IDENTITY and known != found:
            return False
        if name == "backend" and found == CPU and not results["smoke"]:
            raise ValueError("jax finds no accelerator here; --smoke tries the program on a CPU")
        _keep(results, answer, out)
    return True


def _is_measured(results: Mapping[str, Any], section: plan.Section, row: plan.Row) -> bool:
    return "result" in results["sections"].get(section.name, {}).get(row.name, {})


def read(path: Path) -> dict[str, Any]:
    """The results of a file. Raises ValueError if there are none."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results["sections"], dict) or not isinstance(results["smoke"], bool):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a file of results") from None
    return results


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Replaces a file of results atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _keep(results: dict[str, Any], answer: Answer, out: Path) -> None:
    """Adds an answer to the results, writes them, and prints it."""
    section = results["sections"].setdefault(answer.section.name, {})
    section[answer.row.name] = answer.value
    write(out / FILE, results)
    said = answer.value.get("result", answer.value.get("error"))
    text = ", ".join(f"{k} {_short(v)}" for k, v in said.items()) if type(said) is dict else said
    print(f"{answer.section.title}: {answer.row.name}: {text}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _answers(rows: Rows, out: Path, deadline: float) -> Iterator[Answer]:
    """The answers of rows, in order, as many as there is time for."""
    rest = list(rows)
    while rest and time.monotonic() < deadline:
        batch = _batch(rest)
        done = 0
        for answer in _process(batch, out, deadline):
            done += 1
            yield answer
        if done == 0:
            return  # the time is over
        rest = rest[done:]


def _batch(rows: Rows) -> Rows:
    """The first rows that one process may measure."""
    first, count = rows[0][0], 1
    if first.alone:
        return rows[:1]
    while count < len(rows):
        section = rows[count][0]
        if section.alone or section.double != first.double:
            break
        count += 1
    return rows[:count]


def _process(rows: Rows, out: Path, deadline: float) -> Iterator[Answer]:
    """The answers of one process. It ends at the first row that exceeds its time or kills the
    process, which is then the answer of that row; not at the deadline, which is not a row's fault.
    """
    settings = [[section.module, section.function, dict(row.settings)] for section, row in rows]
    with (out / LOG).open("ab") as log:
        process = subprocess.Popen(
            _command(settings),
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(rows[0][0]),
            start_new_session=True,
        )
    assert process.stdout is not None
    lines: queue.Queue[bytes] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        for section, row in rows:
            value = _answer(lines, section.most_seconds, deadline)
            if value is None:
                return
            yield Answer(section, row, value)
            if "ended" in value:
                return
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the processes that it has started, too
        process.wait()
        reader.join(timeout=5)  # longer only if a child process holds the stream


def _command(settings: list[list[Any]]) -> list[str]:
    return [sys.executable, "-m", "device.worker", json.dumps(settings)]


def _read(stream: Any, lines: "queue.Queue[bytes]") -> None:
    """Passes on all lines of a process, and an empty one at its end."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _answer(
    lines: "queue.Queue[bytes]", most_seconds: float, deadline: float
) -> dict[str, Any] | None:
    """The answer to the next row; None at the deadline."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            line = lines.get(timeout=max(0.0, min(until, deadline) - time.monotonic()))
        except queue.Empty:
            if time.monotonic() >= deadline:
                return None
            return {"error": f"it took longer than {most_seconds:.0f} s", "ended": True}
        if not line:
            return {"error": f"its process ended; {LOG} says more", "ended": True}
        answer = json.loads(line)
        if "begin" not in answer:
            return answer
        until = time.monotonic() + most_seconds


def _environment(section: plan.Section) -> dict[str, str]:
    """The variables of a process that measures rows of a section."""
    places = [ROOT, ROOT / "experiments" / "speed", ROOT / "tests" / "helpers"]
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*map(str, places), *([before] if before else [])])
    variables = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", **os.environ, "PYTHONPATH": path}
    variables["JAX_ENABLE_X64"] = "1" if section.double else "0"
    # compiling would be timed as reading
    variables["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    if section.alone:  # a row that starts processes leaves the device to them
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):  # with which the device is compared
        variables["JAX_PLATFORMS"] = f"{platforms},cpu"
    return variables
