"""The console command `pg`: its help, its commands, and its answer to an unknown word."""

import importlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scripts import ENVIRONMENT, ROOT

import pg
from pg.commands import main
from pg.runs import folders

SCRIPTS = {
    "table": "estimator_table",
    "variance": "estimator_variance",
    "leaderboard": "estimator_benchmark",
    "sequences": "sequence_table",
}


def of_module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m pg` in a terminal of 80 columns."""
    return subprocess.run(
        [sys.executable, "-m", "pg", *arguments],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "COLUMNS": "80", **environment},
        check=False,
    )


def test_the_help_has_a_line_for_every_command() -> None:
    text = main.help_text()
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"^  ([a-z]+)  +\S.*$", text, re.MULTILINE) == list(main.COMMANDS)


def test_the_help_needs_neither_the_parser_nor_jax() -> None:
    done = of_module("--help", PYTHONPROFILEIMPORTTIME="1")
    assert (done.returncode, done.stdout) == (0, main.help_text() + "\n")
    imported = set(re.findall(r"\| *(\S+)$", done.stderr, re.MULTILINE))
    assert "pg.commands.main" in imported
    assert not imported & {"jax", "tyro", "numpy", "matplotlib", "pg.commands.cli"}


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--version"], 0, f"pg {pg.__version__}"),
        ([], 2, "usage: pg COMMAND [FLAGS]"),
        (["trian"], 2, "error: there is no command trian: did you mean train"),
        (["qqq"], 2, "error: there is no command qqq: pg --help lists all"),
        (["--env", "CartPole-v1"], 2, "error: a command comes before its flags, as in pg train"),
        (["train", "--learning-rat", "1"], 2, "there is no flag --learning-rat: did you mean"),
        (["train", "--version"], 0, f"pg {pg.__version__}"),
    ],
)
def test_what_it_answers(
    argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = main.main(argv)
    except SystemExit as stopped:
        returned = stopped.code if isinstance(stopped.code, int) else -1
    printed = capsys.readouterr()
    assert returned == code
    assert said in (printed.err if code else printed.out)
    assert not (printed.out if code else printed.err)


ONE_OF_EACH = ("train", "leaderboard", "resume")  # a script of its name, of another, and none


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ONE_OF_EACH else [pytest.mark.slow])
        for name in main.COMMANDS
    ],
)
def test_a_command_is_its_script(name: str) -> None:
    """The same help but for its name, in a terminal of 80 columns."""
    script = ROOT / "experiments" / f"{SCRIPTS.get(name, name)}.py"
    if not script.exists():
        assert f"usage: pg {name} " in of_module(name, "--help").stdout
        return
    command = [sys.executable, str(script), "--help"]
    environment = {**ENVIRONMENT, "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    helped = of_module(name, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    first, _, rest = helped.stdout.partition("\n\n")
    assert first.startswith(f"usage: pg {name} [-h]")
    assert rest == done.stdout.partition("\n\n")[2]


def test_the_distribution_has_the_console_command() -> None:
    """Under a name of its own: `pg` is another project's in the public index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"pg": "pg.commands.main:main"}
    assert project["version"] == pg.__version__
    extras = " ".join(" ".join(names) for names in project["optional-dependencies"].values())
    assert project["name"] != "pg"
    assert re.findall(r"(\S+)\[notebooks\]", extras) == [project["name"]] * 2


def test_the_commit_is_that_of_the_package_and_of_no_project_around_it(tmp_path: Path) -> None:
    """As of an environment that lies, ignored, in a project of the user's."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("tracked.py", "installed.py"):
        (tmp_path / name).write_text("")
    git("add", "tracked.py")
    git("commit", "-m", "first")
    tracked, installed = (
        folders._checkout(tmp_path / name) for name in ("tracked.py", "installed.py")
    )
    assert re.fullmatch("[0-9a-f]{40}", tracked["git_commit"])
    assert tracked["git_dirty"]  # of the file that is not tracked
    assert installed == {"git_commit": None, "git_dirty": False}
    assert folders._checkout(tmp_path.parent / "none.py")["git_commit"] is None


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_while_a_command_is_loaded(
    signum: int,
    expected: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = importlib.import_module

    def signalled(name: str) -> Any:
        os.kill(os.getpid(), signum)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", signalled)
    assert main.main(["zoo"]) == expected
    assert capsys.readouterr().err == "interrupted while loading: nothing has been started\n"
