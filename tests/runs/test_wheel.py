"""The wheel, installed into an empty environment and used from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import pg
from pg.commands.main import COMMANDS, help_text

ROOT = Path(__file__).parents[2]
SOURCES = ("pg", "pyproject.toml", "README.md", "LICENSE")


class Installed(NamedTuple):
    """An environment with the wheel, and an empty folder."""

    wheel: Path
    bin: Path
    folder: Path

    def run(self, *command: str, code: int = 0) -> str:
        """The output of a command, with nothing of this process's environment that is Python's."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env={**own, "XDG_CACHE_HOME": str(self.folder.parent / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built in a copy, as an old `build` folder would be included."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "source"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-m", "venv", place / "env"], check=True)
    (place / "empty").mkdir()
    made = Installed(
        copy, place / "env" / ("Scripts" if os.name == "nt" else "bin"), place / "empty"
    )
    pip = ("python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    made.run(*pip, "wheel", "--no-deps", "--wheel-dir", str(place), str(copy))
    (wheel,) = place.glob("*.whl")
    made.run(*pip, "install", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return made._replace(wheel=wheel)


@pytest.mark.slow
def test_the_wheel_is_complete(installed: Installed) -> None:
    """The package with its types, and neither tests nor scripts."""
    names = zipfile.ZipFile(installed.wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    files = [path for path in (ROOT / "pg").rglob("*") if path.is_file()]
    sources = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert packed == sources
    assert {"pg/py.typed", "pg/__init__.pyi", "pg/tuned.py"} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_console_command_is_there(installed: Installed) -> None:
    assert installed.run("pg", "--help") == help_text() + "\n"
    program = "import pg; print(pg.__version__, pg.__file__)"
    version, file = installed.run("python", "-c", program).split()
    assert version == pg.__version__
    assert Path(file).is_relative_to(installed.bin.parent)
    for name in COMMANDS:
        assert f"usage: pg {name}" in installed.run("pg", name, "--help")


@pytest.mark.slow
def test_it_trains_where_there_is_no_clone(installed: Installed) -> None:
    """It learns CartPole, in a run that is evaluated, resumed, and given on by its settings."""
    flags = ("--estimator", "leave_one_out", "--num-updates", "40", "--name", "mine")
    folder = Path(installed.run("pg", "train", *flags).splitlines()[-1])
    assert folder.is_relative_to(installed.folder / "results")
    assert json.loads((folder / "summary.json").read_text())["mean"] > 150
    versions = json.loads((folder / "versions.json").read_text())
    assert (versions["pg"], versions["git_commit"]) == (pg.__version__, None)
    assert {"jax", "flax", "optax", "gymnax"} <= set(versions)
    assert "100 episodes, greedy" in installed.run("pg", "evaluate", str(folder), "--greedy")
    assert "it has all of its 40 updates" in installed.run("pg", "resume", str(folder))
    again = installed.run("pg", "train", "--config", str(folder), "--print-config")
    assert 'estimator = "leave_one_out"' in again
    assert "num_updates = 40" in again
    installed.run("pg", "render", str(folder), "--steps", "20")
    assert (folder / "policy.gif").exists()
