"""The README's code runs as it stands, and its commands exist."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import jax
import pytest

from pg import tabular
from pg.config import ACCEPTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_code_runs_as_it_stands() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    namespace: dict[str, object] = {}
    with jax.numpy_rank_promotion("allow"):  # a user's setting
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["metrics"]["return"].shape == (3,)  # type: ignore[index]


def test_the_table_of_the_theorem_is_the_code_below_it() -> None:
    table = README.split("| mathematics | code |")[1].split("In full")[0]
    lines = re.findall(r"\| `([^`]+)` \|$", table, re.MULTILINE)
    assert len(lines) == 6
    code = README.split("def improve")[1].split("```")[0]
    for line in lines[:-1]:
        assert line in code, line
    assert "jax.tree.map(lambda p, g: p + alpha * g, theta, g)" in code


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"train", "test"} <= set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README)) <= targets
    for path in re.findall(r"(?:experiments|docs)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["reinforce", "reward_to_go", "leave_one_out", "vtrace"])
def test_the_table_of_exact_figures_is_what_its_command_prints(name: str) -> None:
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (.*) \|$", (ROOT / "docs" / "estimators.md").read_text(), re.MULTILINE)
    assert {(estimator, problem) for estimator, problem, _ in rows} >= {
        (estimator, problem) for estimator in ACCEPTS for problem in ("random", "chain", "cancelling")
    }
    command = script("estimator_table")
    bias, variance, ratio = command.figures(name, tabular.cancelling(), 0.9)
    size = "0" if bias < 1e-12 else f"{bias:.2g}"
    assert (name, "cancelling", f"{size} | {variance:.2f} | {ratio:.2g}") in rows
