"""Standard streams that cannot hold every character: programs continue, and their output can be
read.
"""

import ast
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pg.runs import encoding

ROOT = Path(__file__).parents[2]
PREFIXES = ("./", "../", "~/", "--out=/tmp/")
PLACES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 ± 2 × 3 − 4", "1 +/- 2 x 3 - 4"),
        ("γᵗ Ψₜ ≤ λ", "gamma^t Psi_t <= lambda"),
        ("10⁻⁸ … ∞", "10^-8 ... inf"),
        ("½ ĝ ‖θ‖²", "1/2 g ||theta||^2"),
        ("│──╮█▏", "|--+##"),
        ("日本", "??"),
    ],
)
def test_formulas_are_readable_in_ascii(text: str, expected: str) -> None:
    assert encoding.readable(text) == expected


def test_every_character_of_the_sources_has_a_readable_form() -> None:
    sources = [*(ROOT / "pg").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    characters = set("".join(path.read_text(encoding="utf-8") for path in sources))
    without = {c for c in characters if not c.isascii() and encoding.readable(c) == "?"}
    assert without <= set("□✓✗")


def test_every_file_of_text_names_its_encoding() -> None:
    """Or the locale would decide: a command that reads or writes a table of formulas would end in a
    C locale.
    """
    for path in [*(ROOT / "pg").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("read_text", "write_text") or (
                name == "open" and isinstance(node.func, ast.Name)
            ):
                named = any(k.arg == "encoding" for k in node.keywords)
                assert named or (name == "read_text" and node.args), f"{path.name}:{node.lineno}"


def test_only_streams_that_are_not_unicode_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("latin-1", "utf-8"))
    monkeypatch.setattr(sys, "stdout", old)
    monkeypatch.setattr(sys, "stderr", new)
    encoding.make_streams_readable()
    assert (old.errors, new.errors) == (encoding.ERRORS, "strict")
    old.write("é × γ \udce9")  # the last a byte of a file's name, which is no text
    old.flush()
    assert old.buffer.getvalue() == "é × gamma é".encode("latin-1")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("results/é1", r"results/$'\303\251'1"),
        ("2 × 3 settings; /tmp/γ", r"2 x 3 settings; /tmp/$'\316\263'"),
        (
            "error: cannot read /tmp/my×runs/é/a: γ is no folder",
            r"/tmp/my$'\303\227'runs/$'\303\251'/a: gamma is",
        ),
        (
            "error: config.json of résumé/²",
            r"config.json of "
            r"r$'\303\251'sum$'\303\251'/$'\302\262'",
        ),
        ("pg.commands.job.resume('/tmp/é1')", r"pg.commands.job.resume('/tmp/\xe91')"),
        ("unknown env 'Pôle', e\u0301, 日, ά", r"unknown env 'P\xf4le', e\u0301, \u65e5, \u03ac"),
        ("1 ± 2 × θ̂ ≤ ½ ĝ", "1 +/- 2 x theta <= 1/2 g"),
        ("'/tmp/my × é', γ", r"'/tmp/my \xd7 \xe9', gamma"),
        ("./γ ../γ ~/γ --out=/tmp/γ", " ".join(rf"{x}$'\316\263'" for x in PREFIXES)),
    ],
)
def test_names_and_paths_are_quoted_and_never_respelled(text: str, expected: str) -> None:
    """Or the folder that a console shows would be another one, or none."""
    assert expected in in_ascii(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("∇J/σ²", "grad J/sigma^2"),
        ("λ=0.95/γ=0.99: return 3 ± 4", "lambda=0.95/gamma=0.99: return 3 +/- 4"),
        (
            "/tmp/x: γ must be ≥ 0 and/or ≤ 1 — see docs/a.md",
            "/tmp/x: gamma must be >= 0 and/or <= 1 - see docs/a.md",
        ),
        ("/tmp/x, γ or docs/a.md", "/tmp/x, gamma or docs/a.md"),
        ("/tmp/x of γ or docs/a.md", "/tmp/x of gamma or docs/a.md"),
        ("'/tmp/x' of γ or 'docs/a.md'", "'/tmp/x' of gamma or 'docs/a.md'"),
        ("a / γ, (1 − γ)/(1 − λ)", "a / gamma, (1 - gamma)/(1 - lambda)"),
    ],
)
def test_formulas_and_prose_with_a_slash_are_no_paths(text: str, expected: str) -> None:
    assert in_ascii(text) == expected


def test_what_lies_on_disk_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its names have spaces, or are those of formulas."""
    monkeypatch.chdir(tmp_path)
    gamma, times = r"$'\316\263'", r"$'\303\227'"
    assert in_ascii("γ/σ² γ") == "gamma/sigma^2 gamma"
    Path("γ").mkdir()
    Path("my × runs").mkdir()
    assert in_ascii("go on with γ/run, γ; λ") == f"go on with {gamma}/run, {gamma}; lambda"
    here = f"{tmp_path}/my {times} runs"
    assert in_ascii(f"{tmp_path}/my × runs is in use × 2") == f"{here} is in use x 2"
    assert in_ascii(f"no {tmp_path}/my × runs/γ/a: λ") == f"no {here}/{gamma}/a: lambda"
    assert in_ascii("error: my × runs/γ: λ") == f"error: my {times} runs/{gamma}: lambda"


@pytest.mark.parametrize(
    "line",
    [
        "γ × results/é and /tmp/γ: λ ≤ 1\n",
        "γ × results/é and /tmp/γ of a, λ ≤ 1 ",  # in one line
        "/γ é ",
        "x" * 200 + "\n" + "γ",
    ],
)
def test_the_work_for_a_text_grows_as_its_length(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the handler is called for every piece, and each time with all of the text."""
    work = []
    words, lexists = encoding._WORD, os.path.lexists

    def finditer(text: str) -> Iterator[re.Match[str]]:
        work.append(len(text))
        return words.finditer(text)

    def looked_up(path: str) -> bool:
        work.append(len(path))
        return lexists(path)

    monkeypatch.setattr(encoding, "_WORD", SimpleNamespace(finditer=finditer))
    monkeypatch.setattr(encoding.os.path, "lexists", looked_up)
    amounts = []
    for lines in (50, 200):
        work.clear()
        in_ascii(line * lines)
        amounts.append(sum(work))
    assert 0 < amounts[1] < 5 * amounts[0]


def in_ascii(text: str) -> str:
    """The text that reaches a stream that is ASCII."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    encoding.make_streams_readable()
    stream.reconfigure(errors=encoding.ERRORS)
    stream.write(text)
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


@pytest.mark.skipif(os.name == "nt", reason="there is no shell that reads it")
def test_a_shell_finds_the_path_that_an_ascii_console_shows(tmp_path: Path) -> None:
    """Whatever letters and signs it has."""
    folder = tmp_path / "é日γ×e\u0301"
    folder.mkdir()
    program = (
        "import sys; from pg.runs import encoding\n"
        "encoding.make_streams_readable(); print(sys.argv[1])"
    )
    code, text = outcome("ascii", "-c", program, str(folder))
    assert code == 0
    assert text.isascii()
    subprocess.run(["bash", "-c", f"cd {text.strip()} && test $PWD -ef {folder!s}"], check=True)


def outcome(place: str, *command: str) -> tuple[int, str]:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "LC_ALL", "LANG")
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**environment, **PLACES[place], "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode("latin-1")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("script", ["train", "sweep", "speed/throughput", "render"])
def test_the_help_is_written_everywhere(script: str, place: str) -> None:
    code, text = outcome(place, f"experiments/{script}.py", "--help")
    assert (code, "UnicodeEncodeError" in text) == (0, False)
    assert "usage" in text


def test_a_mistake_is_one_sentence_everywhere() -> None:
    code, text = outcome("ascii", "experiments/train.py", "--estimator", "réinforce")
    assert code == 2
    assert text.startswith("error: unknown estimator")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_run_ends_well_everywhere(place: str, tmp_path: Path) -> None:
    settings = ("--num-updates", "2", "--num-envs", "4", "--seeds", "2", "--eval-episodes", "4")
    code, text = outcome(place, "experiments/train.py", *settings, "--out", str(tmp_path))
    assert code == 0, text
    assert ("+/-" in text) == (place != "latin-1")
