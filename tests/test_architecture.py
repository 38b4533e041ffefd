"""The shape of the code: imports go one way, one importer of gymnax and of matplotlib, and a README that is true."""

import ast
import re
from pathlib import Path

from pg.config import ACCEPTS, Config, Hyperparams

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "pg").rglob("*.py"))
# A module imports only from modules to its left.
ORDER = (
    *(
        "config",
        "tuned",
        "presets",
        "suites",
        "interrupts",
        "folders",
        "devices",
        "blocks",
        "envs",
        "adapters",
        "distributions",
        "networks",
        "rollout",
    ),
    *("tabular", "closed_forms", "returns", "normalisation", "baselines", "surrogates", "estimators", "pathwise"),
    *(
        "evolution",
        "diagnostics",
        "optimizers",
        "nonfinite",
        "train",
        "evaluate",
        "runs",
        "memory",
        "statistics",
        "results",
        "checkpoints",
        "plots",
    ),
    *("cli", "job", "sweep", "benchmark"),
)
# Adapters may call back: an environment of another library can live on the host.
CORE = tuple(name for name in ORDER[ORDER.index("devices") : ORDER.index("runs")] if name != "adapters")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    """The module, or the package, that a file belongs to."""
    return path.relative_to(ROOT / "pg").parts[0].removesuffix(".py")


def test_imports_only_go_down() -> None:
    rooms = {path: room(path) for path in FILES if path != ROOT / "pg" / "__init__.py"}
    assert set(rooms.values()) == set(ORDER)
    for path, name in rooms.items():
        below = {found.split(".")[1] for found in imports(path) if found.startswith("pg.")} & set(ORDER)
        upward = {found for found in below - {name} if ORDER.index(found) >= ORDER.index(name)}
        assert not upward, f"{name} imports {upward}"


def test_one_importer_of_gymnax_and_one_of_matplotlib() -> None:
    for library, home in (("gymnax", "envs"), ("matplotlib", "plots")):
        users = {room(path) for path in FILES if any(i.split(".")[0] == library for i in imports(path))}
        assert users == {home}


def test_the_core_neither_prints_nor_calls_back() -> None:
    for path in FILES:
        if room(path) in CORE:
            assert not re.search(r"\bprint\(|callback|PRNGKey", path.read_text()), path


def test_functions_are_short_and_documented() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node) or ""
                length = (node.end_lineno or 0) - node.lineno - len(doc.splitlines())
                assert length <= 60, f"{path.name}: {node.name} has {length} lines"


def test_experiments_are_scripts_of_a_hundred_lines() -> None:
    for path in (ROOT / "experiments").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path


def test_no_pickle_and_no_eval() -> None:
    for path in [*FILES, *(ROOT / "experiments").glob("*.py")]:
        assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "marshal", "dill", "joblib", "shelve"}
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("eval", "exec")], path
        assert not [k for c in calls for k in c.keywords if k.arg in ("allow_pickle", "shell")], path


def test_the_readme_says_who_collects_windows() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    both, windows = (
        [name for name, ways in ACCEPTS.items() if ways == w] for w in (("episodes", "windows"), ("windows",))
    )
    listed = ", ".join(f"`{name}`" for name in both[:-1]) + f" and `{both[-1]}`"
    assert f"{listed} collect episodes or windows, `{windows[0]}` windows" in readme
    assert len(windows) == 1


def test_every_setting_has_a_help_text() -> None:
    from pg.cli import _field_docstrings

    assert set(_field_docstrings(Config)) == set(Config.__dataclass_fields__)
    assert set(_field_docstrings(Hyperparams)) == set(Hyperparams._fields)
