"""The repository around the code: one address for links, a citation, workflows, hooks, `make`."""

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
URL = "https://github.com/somebody/a-fork-of-pg"
ADAPTERS = {"test-adapters", "test-kinetix"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def links() -> ModuleType:
    """The script behind `make links`."""
    spec = importlib.util.spec_from_file_location("links", ROOT / "docs" / "tools" / "links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_address(root: Path, url: str) -> dict[Path, str]:
    """The script's output in a copy of the project whose address is `url`; "" for none."""
    text = (ROOT / "pyproject.toml").read_text()
    text = re.sub(r"^\[project\.urls\]\n(.+\n)*", "", text, flags=re.MULTILINE)
    text += f'\n[project.urls]\nRepository = "{url}"\n' if url else ""
    (root / "pyproject.toml").write_text(text)
    written = links().linked(root)
    for path, content in written.items():
        path.write_text(content)
    return {path.relative_to(root): content for path, content in written.items()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that hold links."""
    for path in links().linked():
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def test_every_link_is_that_of_the_one_setting() -> None:
    """`make links` has nothing to write."""
    for path, text in links().linked().items():
        assert path.read_text() == text, path


def test_a_fork_changes_one_line(copy: Path) -> None:
    """All links follow it, there and back again; and the README stays short."""
    without = with_address(copy, "")
    theirs = with_address(copy, URL)
    notebooks = [path for path in theirs if path.suffix == ".py"]
    assert len(notebooks) == 5
    for path, text in theirs.items():
        assert URL.removeprefix("https://github.com/") in text, path
    colab = "https://colab.research.google.com/github/somebody/a-fork-of-pg/blob/main"
    for path in notebooks:
        link = f"]({colab}/notebooks/{path.stem}.ipynb)"
        assert link in theirs[path].split("# %%")[1]
        assert f'\nREPOSITORY = "{URL}"\n' in theirs[path]
        assert link in theirs[Path("notebooks/README.md")]
    assert f"]({URL}/actions/workflows/ci.yml)" in theirs[Path("README.md")]
    assert len(theirs[Path("README.md")].encode()) <= 8192
    assert loaded(copy / "CITATION.cff")["repository-code"] == URL
    other = with_address(copy, URL.replace("somebody", "another"))
    assert not [path for path, text in other.items() if "somebody" in text]
    assert with_address(copy, "") == without


def test_no_reader_meets_a_placeholder() -> None:
    if links().repository():
        return
    for path, text in links().linked().items():
        assert "OWNER" not in text, path
        assert "colab.research" not in text, path
        assert "badge.svg" not in text, path


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = loaded(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {"message", "title", "authors"} <= set(citation)


@pytest.mark.parametrize("name", ["ci", "docs", "release"])
def test_a_workflow_runs_what_exists(name: str) -> None:
    text = (GITHUB / "workflows" / f"{name}.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    for job in jobs.values():
        assert set(needed_by(job)) <= set(jobs)
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    called = set(re.findall(r"run: make ([a-z-]+)", text))
    assert (
        called
        == {
            "ci": {"lint", "robots", "test", *ADAPTERS, "test-slow", "wheel"},
            "docs": {"docs"},
            "release": {"lint", "test", "wheel"},
        }[name]
    )
    assert called <= TARGETS
    if name == "release":
        publish = jobs["publish"]
        assert publish["permissions"] == {"id-token": "write"}
        assert "secrets." not in text


def needed_by(job: dict[str, Any]) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else needs


def test_the_issue_templates_are_forms() -> None:
    forms = [p for p in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml"]
    assert len(forms) == 3
    for path in forms:
        form = loaded(path)
        assert {"name", "description", "body"} <= set(form), path
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids)
        for part in form["body"]:
            assert part["type"] in ("textarea", "input", "checkboxes")
            assert part["attributes"]["label"]


def test_the_hooks_are_those_of_make_lint() -> None:
    (repository,) = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = [hook["entry"].split() for hook in repository["hooks"]]
    recipe = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    used = [line.split()[0].removeprefix("$(BIN)/") for line in recipe.splitlines()[1:]]
    assert [entry[0].removeprefix(".venv/bin/") for entry in hooks] == used


def test_make_alone_lists_every_target() -> None:
    """And installs nothing."""
    outer = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}
    own = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(["make"], cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert {line.split()[1] for line in lines} == TARGETS
    assert all(line.startswith("make ") and len(line) <= 100 for line in lines)
    assert all(len(line.split(maxsplit=2)[2]) > 5 for line in lines)


def test_make_check_runs_tests_of_the_core() -> None:
    makefile = (ROOT / "Makefile").read_text()
    names = re.search(r"^CHECKED := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
    assert names is not None
    chosen = names[1].replace("\\\n", " ").split()
    assert len(chosen) > 10
    for name in chosen:
        assert (ROOT / "tests" / "core" / f"test_{name}.py").exists(), name
