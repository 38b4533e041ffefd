"""The documentation is complete, its code runs, its commands exist, and the site builds without a
warning.
"""

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from packaging.requirements import Requirement

from pg.estimators.facts import FACTS, estimators_with

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "notebooks"} & set(path.parts))
HOWTO = sorted((DOCS / "howto").glob("*.md"))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def code(path: Path) -> list[str]:
    """The Python code of a page; cells of the tutorial begin with this too."""
    return blocks(path, "python") + blocks(path, r"\{code-cell\} python")


def test_every_public_module_has_a_page() -> None:
    files = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "pg").rglob("*.py"))
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files} - {"pg"}
    pages = "".join(path.read_text() for path in (DOCS / "api").glob("*.rst"))
    documented = re.findall(r"^\.\. automodule:: ([\w.]+)$", pages, re.MULTILINE)
    assert sorted(documented) == sorted(name for name in modules if "._" not in name)


def test_every_estimator_is_explained() -> None:
    science = "".join(path.read_text() for path in (DOCS / "science").glob("*.md"))
    advice = (DOCS / "which_estimator.md").read_text()
    for name in FACTS:
        assert re.search(rf"{{py:func}}`[^`]*\b{name}`", science), name
        assert f"`{name}`" in advice or f".{name}`" in advice, name


def named(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text)) & set(FACTS)


def test_what_estimators_need_is_what_the_table_of_facts_says() -> None:
    advice = (DOCS / "which_estimator.md").read_text()
    rows = advice.split("## What each one needs")[1].split("##")[0].strip().splitlines()[2:]
    independent = [
        name
        for name in estimators_with(collect=("episodes",), critic="none", off_policy=False)
        if FACTS[name].baseline not in ("batch", "group")
    ]
    both = ("episodes", "windows")
    assert [named(row) for row in rows] == [
        set(independent),
        set(estimators_with(baseline="batch")),
        set(estimators_with(baseline="group")),
        set(estimators_with(collect=("episodes",), critic="V")),
        set(estimators_with(critic="Q", actions=("discrete", "continuous"))),
        set(estimators_with(critic="Q", actions=("discrete",))),
        set(estimators_with(critic="Q", actions=("continuous",))),
        set(estimators_with(critic="hindsight")),
        set(estimators_with(collect=both, critic="V")),
        set(estimators_with(collect=("windows",))),
        {
            *estimators_with(off_policy=True),
            *estimators_with(several_steps=True, regression=False),
        },
        set(estimators_with(regression=True)),
    ]


def test_which_estimators_are_biased_is_what_the_table_of_facts_says() -> None:
    advice = (DOCS / "which_estimator.md").read_text()
    parts = re.split(
        r"Unbiased, whatever the critic: |; off-policy\s|Biased as far as their critic is wrong: |"
        r"Biased by construction:\s",
        advice.split("## Which ones are biased")[1].split("Bias is not a verdict")[0],
    )
    with_critic = {
        name for kind in ("V", "Q", "hindsight") for name in estimators_with(critic=kind)
    }
    biased = set(estimators_with(unbiased_for="no"))
    assert [named(part) for part in parts[1:]] == [
        set(estimators_with(unbiased_for="J", off_policy=False)),
        {*estimators_with(unbiased_for="J", off_policy=True), *estimators_with(unbiased_for="J_τ")},
        biased & with_critic,
        biased - with_critic,
    ]


def test_the_python_on_every_page_compiles() -> None:
    assert all(code(path) for path in [DOCS / "tutorial.md", *HOWTO] if path.name != "index.md")
    for path in PAGES:
        for block in code(path):
            ast.parse(block, str(path))


def test_references_are_to_this_package() -> None:
    """Others would be skipped when the site is built, which has no pages for them."""
    for path in PAGES:
        for target in re.findall(r"{py:\w+}`~?([^`]+)`", path.read_text()):
            assert target.split("<")[-1].startswith("pg."), f"{path.name}: {target}"


@functools.cache
def flags(script: str) -> set[str]:
    """The flags of a script of experiments/, or of a command of `pg`."""
    path = ROOT / "experiments" / script
    command = [path] if path.suffix else ["-m", "pg", script]
    helped = subprocess.run(
        [sys.executable, *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"--[a-z][\w-]*", helped.stdout))


COMMANDS = [
    ROOT / "README.md",
    *(
        DOCS / f"{name}.md"
        for name in ("index", "tutorial", "results", "performance", "accelerator")
    ),
    DOCS / "science" / "theorem.md",
    *HOWTO,
]


def test_commands_and_their_flags_exist() -> None:
    makefile = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in COMMANDS:
        for line in "".join(blocks(path, "console")).splitlines():
            if found := re.search(r"experiments/([\w/]+\.py)", line):
                assert set(re.findall(r"--[a-z][\w-]*", line)) <= flags(found[1]), line
            if found := re.search(r"^\$ pg (\w+)", line):
                assert set(re.findall(r"--[a-z][\w-]*", line)) <= flags(found[1]), line
            if found := re.search(r"^\$ make ([\w-]+)", line):
                assert found[1] in makefile, line
            if found := re.search(r"^\$ make (train|sweep|benchmark) ARGS=", line):
                assert set(re.findall(r"--[a-z][\w-]*", line)) <= flags(f"{found[1]}.py"), line
        for mentioned in re.findall(r"experiments/[\w/]+\.\w+", path.read_text()):
            assert (ROOT / mentioned).exists(), mentioned


def test_links_between_pages_lead_somewhere() -> None:
    for path in PAGES:
        prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_make_says_which_python_is_needed(tmp_path: Path) -> None:
    """Before it installs anything, whose messages would be of packages."""
    older = tmp_path / "python3.10"
    older.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 10, 1)\nexec(sys.argv[2])\n"
    )
    older.chmod(0o755)
    command = ["make", "train", f"PYTHON={older}", f"VENV={tmp_path / 'environment'}"]
    # A make that runs within another (`make test`) prints the folders that it enters.
    outer = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}
    own = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"pg needs Python 3.11 or later, and {older} is 3.10: name another, as in make PYTHON="
    )
    assert not done.stdout
    assert not (tmp_path / "environment").exists()


def test_no_constraint_is_for_an_older_python() -> None:
    """One that holds there is in conflict before pip has compared the Python that is needed."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        marker = Requirement(line).marker
        assert marker is not None, line
        for system in ("linux", "darwin", "win32"):
            assert not marker.evaluate(
                {"python_full_version": "3.10.13", "sys_platform": system}
            ), line


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of three seeds and a sweep, as the pages speak of."""
    out = tmp_path_factory.mktemp("results")
    small = [
        "--num-updates=2",
        "--num-envs=4",
        "--hidden-sizes=8",
        "--eval-episodes=4",
        f"--out={out}",
    ]
    for script, more in (
        ("train.py", ["--seeds=3", "--name=mine", "--eval-every=1"]),
        ("sweep.py", ["--seeds=2", "--fresh-seeds=0"]),
    ):
        subprocess.run([sys.executable, ROOT / "experiments" / script, *small, *more], check=True)
    above = out / "CartPole-v1" / "reinforce"
    return {"folder": above / "mine", "sweep_folder": next(above.glob("sweep-*"))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in HOWTO if path.name != "index.md"], ids=lambda path: path.stem
)
def test_the_python_of_a_how_to_runs(path: Path, folders: dict[str, Path]) -> None:
    namespace: dict[str, Any] = dict(folders)
    with jax.numpy_rank_promotion("allow"):  # a user's setting
        for block in code(path):
            exec(compile(block, str(path), "exec", optimize=0), namespace)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline"):
        pytest.importorskip(module)
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-n",
            "-d",
            tmp_path / "trees",
            DOCS,
            tmp_path / "html",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    for page in (
        "index",
        "tutorial",
        "science/theorem",
        "api/estimators",
        "which_estimator",
        "howto/sweep",
    ):
        text = (tmp_path / "html" / f"{page}.html").read_text()
        needed = re.findall(
            r"<(?:script|link "
            r"rel=\"stylesheet\")[^>]*?(?:src|href)=\"([^\"]+)",
            text,
        )
        assert needed
        for file in needed:  # what a page needs lies beside it: it is read without a network
            assert (
                (tmp_path / "html" / page).parent.joinpath(file.split("?")[0]).resolve().exists()
            ), file
    formulas = (tmp_path / "html" / "science" / "theorem.html").read_text()
    assert "_static/mathjax/tex-chtml.js" in formulas
    assert list((tmp_path / "html" / "_static" / "mathjax").rglob("MathJax_Main-Regular.woff"))
