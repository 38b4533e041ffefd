"""Standard streams that cannot hold every character: programs go on, and what they write can be
read.
"""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pg.runs import encoding

ROOT = Path(__file__).parents[2]
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
            "error: cannot read /tmp/my × runs/é/a: γ is no folder",
            r"/tmp/my $'\303\227' runs/$'\303\251'/a: gamma is",
        ),
        (
            "error: config.json of résumé/²",
            r"config.json of "
            r"r$'\303\251'sum$'\303\251'/$'\302\262'",
        ),
        ("pg.commands.job.resume('/tmp/é1')", r"pg.commands.job.resume('/tmp/\xe91')"),
        ("unknown env 'Pôle', e\u0301, 日, ά", r"unknown env 'P\xf4le', e\u0301, \u65e5, \u03ac"),
        ("1 ± 2 × θ̂ ≤ ½ ĝ", "1 +/- 2 x theta <= 1/2 g"),
    ],
)
def test_names_and_paths_are_quoted_and_never_respelled(text: str, expected: str) -> None:
    """Or the folder that a console shows would be another one, or none."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    encoding.make_streams_readable()
    stream.reconfigure(errors=encoding.ERRORS)
    stream.write(text)
    stream.flush()
    assert expected in stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


@pytest.mark.skipif(os.name == "nt", reason="there is no shell that reads it")
def test_a_shell_finds_the_path_that_an_ascii_console_shows(tmp_path: Path) -> None:
    """Whatever letters and signs it has."""
    folder = tmp_path / "é日γ×e\u0301"
    folder.mkdir()
    program = (
        "import sys; from pg.runs import encoding; encoding.make_streams_readable(); "
        "print(sys.argv[1])"
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
@pytest.mark.parametrize("script", ["train", "sweep", "throughput", "render"])
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
