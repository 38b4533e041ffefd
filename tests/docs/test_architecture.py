"""The shape of the code: imports go one way, one module imports gymnax and one matplotlib, and a
page names every module.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from pg.config import Config, Hyperparams
from pg.estimators.facts import FACTS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "pg").rglob("*.py"))
# The modules in the order in which they may be imported: each imports only from those before it.
ORDER = (
    "inputs",
    "numerals",
    "axes",
    "rounding",
    "estimators.facts",
    "estimators.switches",
    "estimators.candidates",
    "estimators.q_prop_switches",
    "estimators.variants",
    "estimators.names",
    "tuned",
    "settings.choices",
    "settings.own_imports",
    "settings.environments",
    "settings.own_files",
    "settings.parts",
    "settings.stored_params",
    "settings.convolutions",
    "settings.construction",
    "settings.accumulation",
    "settings.checks",
    "settings.ranges",
    "config",
    "presets",
    "parts",
    "fast.cores",
    "fast.devices",
    "fast.blocks",
    "fast.row_keys",
    "fast.programs",
    "fast.key_numbers",
    "fast.point_keys",
    "fast.resets",
    "fast.scans",
    "fast.shuffles",
    "envs.library",
    "envs.tracing",
    "envs.failures",
    "envs.registry",
    "envs.env_params",
    "envs.env_spaces",
    "envs.actions",
    "envs.observations",
    "envs.interface",
    "envs.masks",
    "envs.views",
    "envs.step_checks",
    "envs.time_limit_checks",
    "envs.base",
    "envs.adapters",
    "distributions",
    "sampling",
    "envs.sequences",
    "envs.sequence_tasks",
    "images",
    "layers",
    "network_checks",
    "starting",
    "network_type",
    "parameter_noise",
    "networks",
    "modules",
    "branches",
    "extra_rollouts",
    "trajectory",
    "rollout_noise",
    "branch_rollouts",
    "window_resets",
    "rollout_checks",
    "returns",
    "rollout",
    "nonfinite",
    "exact.tabular",
    "exact.closed_forms",
    "normalisation",
    "baselines",
    "surrogates",
    "estimators",
    "pretraining",
    "reports.statistics",
    "diagnostics",
    "optimizers",
    "seeds",
    "lag",
    "accumulation",
    "train",
    "evaluation",
    "runs.files",
    "runs.encoding",
    "runs.interrupts",
    "runs.waiting",
    "runs.memory",
    "runs.migrations",
    "runs.definitions",
    "runs.code",
    "runs.policy_files",
    "runs.folders",
    "runs.zoo",
    "runs.sources",
    "reports.tables",
    "reports.curves",
    "runs.results",
    "runs.sweeps",
    "runs.loading",
    "runs.effects",
    "runs.periodic",
    "runs.execution",
    "runs.parameters",
    "runs.writing",
    "runs.acting",
    "runs.exporting",
    "runs.checkpoints",
    "runs.host_states",
    "reports.plots",
    "reports.drawings",
    "reports.comparison",
    "trackers",
    "commands.clock",
    "commands.terminal",
    "commands.flags",
    "commands.values",
    "commands.options",
    "commands.settings_files",
    "commands.cli",
    "commands.job",
    "sweep",
    "benchmarks.suites",
    "benchmarks.combinations",
    "benchmarks.selection",
    "benchmarks.learning",
    "benchmarks.report",
    "benchmarks.zoo",
    "benchmarks.leaderboard",
    "commands.train",
    "commands.resume",
    "commands.evaluate",
    "commands.render",
    "commands.export",
    "commands.zoo",
    "commands.replay",
    "commands.sweep",
    "commands.tune",
    "commands.benchmark",
    "commands.compare",
    "commands.check",
    "commands.table",
    "commands.sequence_table",
    "commands.variance",
    "commands.leaderboard",
    "commands.main",
    "__main__",
)
# Adapters may call back: an environment of another library can live on the host.
CORE = tuple(
    name for name in ORDER[: ORDER.index("runs.files")] if name not in ("inputs", "envs.adapters")
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module(path: Path) -> str:
    """The entry of ORDER that a file belongs to: itself, or the innermost package that is
    listed.
    """
    dotted = ".".join(path.relative_to(ROOT / "pg").with_suffix("").parts).removesuffix(".__init__")
    return listed(dotted) or dotted


def listed(dotted: str) -> str:
    """The longest entry of ORDER that contains a dotted name; "" if there is none."""
    above = [name for name in ORDER if dotted == name or dotted.startswith(f"{name}.")]
    return max(above, key=len, default="")


def test_imports_only_go_down() -> None:
    wings = {name.split(".")[0] for name in ORDER if "." in name}
    modules = {path: module(path) for path in FILES if path != ROOT / "pg" / "__init__.py"}
    assert set(ORDER) <= set(modules.values()) <= {*ORDER, *wings}
    for path, name in modules.items():
        if name not in ORDER:  # the names of a wing, imported on first use
            assert not [found for found in imports(path) if found.startswith("pg.")], path
            continue
        below = {
            listed(found.removeprefix("pg.")) for found in imports(path) if found.startswith("pg.")
        }
        upward = {found for found in below - {name, ""} if ORDER.index(found) >= ORDER.index(name)}
        assert not upward, f"{name} imports {upward}"


def test_one_importer_of_gymnax_and_one_of_matplotlib() -> None:
    for library, home in (("gymnax", "envs.library"), ("matplotlib", "reports.plots")):
        users = {
            module(path) for path in FILES if any(i.split(".")[0] == library for i in imports(path))
        }
        assert users == {home}


def test_the_core_neither_prints_nor_calls_back() -> None:
    for path in FILES:
        if module(path) in CORE:
            assert not re.search(
                r"\bprint\(|callback\(|import "
                r".*callback|PRNGKey\b",
                path.read_text(),
            ), path


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
                assert length <= 70, f"{path.name}: {node.name} has {length} lines"


CLAUSE = re.compile(r"(What|Whether|How|Where|Which|That|Who|When|If|Of)\b")


def test_docstrings_open_with_a_noun_phrase_or_a_verb() -> None:
    for folder in ("pg", "experiments", "tests", "docs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    doc = ast.get_docstring(node) or ""
                    assert not CLAUSE.match(doc), f"{path.relative_to(ROOT)}: {doc.splitlines()[0]}"


UNSAFE = {"pickle", "cloudpickle", "marshal", "dill", "joblib", "shelve"}
# The loader of yaml that makes plain data alone, imported by its name.
SAFE_YAML = {"yaml", "yaml.YAMLError", "yaml.safe_load"}


@pytest.mark.acceptance("S1", "S4")
def test_no_pickle_and_no_eval() -> None:
    for path in [*FILES, *(ROOT / "experiments").rglob("*.py")]:
        assert not {name.split(".")[0] for name in imports(path)} & UNSAFE
        of_yaml = {name for name in imports(path) if name.split(".")[0] == "yaml"}
        assert of_yaml in (set(), SAFE_YAML), path
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        assert not [
            c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("eval", "exec")
        ], path
        assert not [k for c in calls for k in c.keywords if k.arg in ("allow_pickle", "shell")], (
            path
        )


@pytest.mark.acceptance("S6")
def test_security_is_written_down() -> None:
    """With a private contact; every dependency is bounded below and pinned."""
    text = (ROOT / "SECURITY.md").read_text()
    assert "in private" in text
    assert "SECURITY.md" in (ROOT / "README.md").read_text()
    pinned = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name, bound in (re.match(r"([\w-]+)(.*)", text).groups() for text in needed):  # type: ignore[union-attr]
        assert ">=" in bound, name
        assert name in pinned, name


IDS = [
    *(f"D{i}" for i in range(9)),
    *(f"C{i}" for i in range(1, 12)),
    *(f"N{i}" for i in range(1, 6)),
    *(f"J{i}" for i in range(1, 11)),
    "T1",
    "T2",
    "T3",
    "T4",
    "T5",
    "M1",
    *(f"S{i}" for i in range(1, 10)),
    *(f"P{i}" for i in range(1, 7)),
]


def test_every_promise_has_a_test_and_a_line() -> None:
    tests = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    tests += Path(__file__).read_text().split("IDS = [")[0]
    carried = set(
        re.findall(r'"([A-Z]\d+)"', " ".join(re.findall(r"mark\.acceptance\(([^)]*)\)", tests)))
    )
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert set(re.findall(r"^\| ([A-Z]\d+) \|", text, re.MULTILINE)) == set(IDS) <= carried
    for path, name in re.findall(r"`(test_\w+\.py)::(\w+)", text):
        (file,) = (ROOT / "tests").rglob(path)
        assert name in file.read_text(), (path, name)


def test_the_page_of_estimators_says_who_collects_windows() -> None:
    page = " ".join((ROOT / "docs" / "estimators.md").read_text().split())
    both, windows = (
        [name for name, facts in FACTS.items() if facts.collect == w]
        for w in (("episodes", "windows"), ("windows",))
    )
    listed = ", ".join(f"`{name}`" for name in both[:-1]) + f" and `{both[-1]}`"
    assert f"{listed} collect episodes or windows, `{windows[0]}` windows" in page
    assert len(windows) == 1


def test_every_setting_has_a_help_text() -> None:
    from pg.commands.flags import field_docstrings

    assert set(field_docstrings(Config)) == set(Config.__dataclass_fields__)
    assert set(field_docstrings(Hyperparams)) == set(Hyperparams._fields)


def test_the_page_of_the_architecture_names_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ((?:`\w+` ?)+)\|", page, re.MULTILINE)))
    modules = {path.stem for path in (ROOT / "pg").iterdir() if path.suffix == ".py"}
    packages = {path.parent.name for path in (ROOT / "pg").glob("*/__init__.py")}
    assert sorted(named) == sorted(modules - {"__init__"} | packages)
