"""The notebooks: text and .ipynb agree, they name what exists, and their asserts hold when
executed.
"""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import pytest

import pg

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT.get("urls", {}).get("Repository", "")  # empty as long as there is none
COLAB = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
each = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


def pairing() -> ModuleType:
    """The script behind `make notebooks`."""
    spec = importlib.util.spec_from_file_location("pair", ROOT / "notebooks" / "tools" / "pair.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(path: Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def chain(node: ast.expr) -> list[str]:
    """The names of `pg.a.b`; [] of what does not begin with pg."""
    if isinstance(node, ast.Name):
        return [node.id] if node.id == "pg" else []
    if isinstance(node, ast.Attribute) and (before := chain(node.value)):
        return [*before, node.attr]
    return []


def test_there_are_five() -> None:
    assert [path.stem[:2] for path in SOURCES] == ["01", "02", "03", "04", "05"]


@each
def test_text_and_notebook_are_one(path: Path) -> None:
    """`make notebooks` writes these bytes, whenever it is called."""
    made = path.with_suffix(".ipynb")
    assert cells(path) == cells(made)
    assert made.read_text() == pairing().notebook(path) == pairing().notebook(path)


@each
def test_a_notebook_has_no_outputs(path: Path) -> None:
    notebook = json.loads(path.with_suffix(".ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert notebook["metadata"]["jupytext"]["formats"] == "ipynb,py:percent"
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@each
def test_it_opens_in_colab_and_installs_itself(path: Path) -> None:
    (_, title), (_, install), *_ = cells(path)
    assert title.startswith("# ")
    assert title.count("colab.research.google.com/github/") == bool(REPOSITORY)
    assert not REPOSITORY or f"]({COLAB}/blob/main/notebooks/{path.stem}.ipynb)" in title
    assert 'find_spec("pg") is None' in install
    assert f'REPOSITORY = "{REPOSITORY}"' in install
    assert f"notebooks/{path.stem}.ipynb" in (ROOT / "README.md").read_text()
    assert f"({path.stem}.ipynb)" in (ROOT / "notebooks" / "README.md").read_text()


@each
def test_what_it_names_exists(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        found: Any = pg
        for name in chain(node)[1:] if isinstance(node, ast.expr) else []:
            assert hasattr(found, name), ".".join(chain(node))
            found = getattr(found, name)
    for file, test in re.findall(r"`(tests/\w+/test_\w+\.py)(?:::(\w+))?`", text):
        assert f"def {test}" in (ROOT / file).read_text(), (file, test)
    for file in re.findall(r"(?:experiments|pg|tests)/[\w/]+\.py", text):
        assert (ROOT / file).exists(), file


QUICK = "03_seed_sweep"  # the others compile for longer
SCRIPTS = [
    pytest.param(p, marks=[pytest.mark.slow] * (p.stem != QUICK), id=p.stem) for p in SOURCES
]


@pytest.mark.parametrize("path", SCRIPTS)
def test_it_runs_as_a_script(path: Path) -> None:
    """With small sizes; every figure that it shows is legible (`figures.check`)."""
    small = {"PG_FAST": "1", "MPLBACKEND": "module://figures", "JAX_PLATFORMS": "cpu"}
    above = os.pathsep.join([str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    env = os.environ | small | {"PYTHONPATH": above}
    subprocess.run([sys.executable, path], env=env, cwd=ROOT, check=True, timeout=900)


@pytest.mark.slow
@each
def test_it_runs_as_a_notebook(path: Path, tmp_path: Path) -> None:
    """As a reader executes it, from the first cell to the last."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        tmp_path,
        "-p",
        "no:cacheprovider",
    ]
    options = ["-q", "--nbmake", "--nbmake-timeout=900", path.with_suffix(".ipynb")]
    env = {name: value for name, value in os.environ.items() if name != "PG_FAST"} | {
        "JAX_PLATFORMS": "cpu"
    }
    done = subprocess.run(
        [*command, *options], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
