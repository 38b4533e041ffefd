"""The README's code runs as it stands, and its commands exist."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from pg.benchmarks import learning
from pg.config import Config, Hyperparams
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.runs import folders, results
from pg.train import make_learner

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_code_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    config = Config(hidden_sizes=(3,), preset=None)  # of a run whose parameters are read elsewhere
    folders.write_setup(tmp_path, config, Hyperparams(), {})
    state = make_learner(config).init(jax.random.key(0))
    results.write_params(tmp_path, jax.tree.map(lambda x: x[None], state.params))
    namespace: dict[str, Any] = {"folder": tmp_path, "obs": np.zeros(4)}
    with jax.numpy_rank_promotion("allow"):  # a user's setting
        for block in blocks:
            exec(compile(block, "README.md", "exec", optimize=0), namespace)
    assert namespace["metrics"]["return"].shape == (4, 2, 5)
    jax.tree.map(np.testing.assert_array_equal, namespace["policy"].params, state.params.policy)
    assert namespace["action"].shape == ()


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


def rows(path: str) -> dict[str, list[str]]:
    """The generated table of a file: the cells of each estimator's row."""
    table = (ROOT / path).read_text().split("<!-- table -->")[1].split("<!-- end of table -->")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.strip().splitlines()[2:]
    ]
    return {row[0].strip("`"): row for row in cells}


def test_the_table_has_a_row_for_every_estimator_and_says_what_it_says() -> None:
    command, table = script("estimator_table"), rows("README.md")
    assert list(table) == list(FACTS)
    assert table == rows("docs/estimators.md")
    for name, row in table.items():
        assert " | ".join(row[:4]) == command.described(name)
        unbiased_in_all = row[4] == "0 · 0 · 0"
        assert unbiased_in_all == (FACTS[name].unbiased_for == "J"), name


ON_ALL = ("reward_to_go", "standardised", "gpomdp")
SOME = ("reward_to_go", "all_action", "leave_one_out", "ppo")
ROWS = [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in FACTS]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ROWS)
def test_the_figures_of_the_table_are_what_its_command_prints(name: str) -> None:
    """Of every estimator on the problem with the fewest trajectories; of three on all."""
    problems = tabular.references()
    for column, problem in enumerate(problems):
        if problem == "cancelling" or name in ON_ALL:
            figures = script("estimator_table").figures(name, problems[problem], 0.9)
            assert list(figures) == [
                cell.split(" · ")[column] for cell in rows("README.md")[name][4:]
            ]


def test_the_results_are_those_of_the_stored_table() -> None:
    """As `experiments/benchmark.py --from docs/benchmark.csv --report README.md` writes them."""
    shown = README.split("<!-- results -->")[1].split("<!-- end of results -->")[0]
    assert (
        shown.strip() == learning.report(learning.read_csv(ROOT / "docs" / "benchmark.csv")).strip()
    )
