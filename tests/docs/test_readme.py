"""The README is short, its code runs, and its figures are those of the linked pages.

The pages with the details are held to the same standard.
"""

import itertools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pg import diagnostics
from pg.benchmarks import learning, report
from pg.commands import table
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS
from pg.estimators.facts import FACTS, ON_TABLES
from pg.exact import tabular
from pg.reports import tables
from pg.runs import folders, parameters
from pg.train import make_learner

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(page: str) -> list[str]:
    """The Python of a page."""
    text = (ROOT / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(page: str, **given: Any) -> dict[str, Any]:
    """The names that are left when the Python of a page has been executed."""
    namespace: dict[str, Any] = dict(given)
    with jax.numpy_rank_promotion("allow"):  # a user's setting
        for block in blocks(page):
            exec(compile(block, page, "exec", optimize=0), namespace)
    return namespace


def test_it_is_at_most_eight_kilobytes() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8192


def test_the_code_of_the_theorem_learns() -> None:
    """From -0.6, the return of a random policy."""
    assert len(blocks("README.md")) == 1
    assert run("README.md")["mean_return"] > 0.8


HOWTO = (
    pytest.param("own_estimator", marks=pytest.mark.slow),
    pytest.param("sequences", marks=pytest.mark.slow),
    pytest.param("measure_gradients", marks=pytest.mark.slow),
    "sweep",
)


@pytest.mark.parametrize("name", HOWTO)
def test_the_code_of_a_how_to_runs_as_it_stands(name: str) -> None:
    assert run(f"docs/howto/{name}.md")


def test_the_code_of_training_runs_as_it_stands(tmp_path: Path) -> None:
    assert len(blocks("docs/howto/train.md")) == 2
    config = Config(hidden_sizes=(3,), preset=None)  # of a run whose parameters are read elsewhere
    folders.write_setup(tmp_path, config, Hyperparams(), {})
    state = make_learner(config).init(jax.random.key(0))
    parameters.write_params(tmp_path, jax.tree.map(lambda x: x[None], state.params))
    namespace = run("docs/howto/train.md", folder=tmp_path, obs=np.zeros(4))
    assert namespace["metrics"]["return"].shape == (3, 5)
    jax.tree.map(np.testing.assert_array_equal, namespace["policy"].params, state.params.policy)
    assert namespace["action"].shape == ()


def test_the_table_of_the_theorem_is_the_code_of_the_readme() -> None:
    page = (ROOT / "docs" / "science" / "theorem.md").read_text()
    table = page.split("| mathematics | code |")[1].split("\n\n")[0]
    lines = re.findall(r"\| `([^`]+)` \|$", table, re.MULTILINE)
    assert len(lines) == 6
    code = README.split("def improve")[1].split("```")[0]
    for line in lines[:-1]:
        assert line in code, line
    assert "jax.tree.map(lambda p, g: p + alpha * g, theta, g)" in code


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README))
    assert {"train", "sweep", "docs"} <= used <= targets
    for path in re.findall(r"(?:experiments|docs)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    here = [link for link in links if not link.startswith("https://")]
    assert len(here) > 20
    for link in here:
        assert (ROOT / link).exists(), link


def rows(path: str) -> dict[str, list[str]]:
    """The generated table of a file: the cells of each estimator's row."""
    table = (ROOT / path).read_text().split("<!-- table -->")[1].split("<!-- end of table -->")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.strip().splitlines()[2:]
    ]
    return {row[0].strip("`"): row for row in cells}


def test_the_table_has_a_row_for_every_estimator_and_says_what_it_says() -> None:
    shown = rows("docs/estimators.md")
    assert list(shown) == list(FACTS)
    for name, row in shown.items():
        assert " | ".join(row[:4]) == table.described(name)
        if name not in ON_TABLES:
            assert row[4:] == ["—"] * 3
            continue
        unbiased_in_all = row[4] == "0 · 0 · 0"
        # critics are wrong there, hindsight distributions are exact
        expected = FACTS[name].unbiased_for == "J" or FACTS[name].critic == "hindsight"
        assert unbiased_in_all == expected, name


def test_the_readme_has_the_first_columns_of_selected_rows_of_the_table() -> None:
    start, end = table.SLIM_MARKS
    slim = README.split(start)[1].split(end)[0].strip()
    assert slim == table.slim_table({name: name for name in FACTS})
    header, rule, *shown, blank, count = slim.splitlines()
    assert "\n".join([header, rule]) == table.SLIM_HEADER
    assert (blank, count) == ("", f"{len(shown)} of {len(FACTS)} estimators.")
    full = rows("docs/estimators.md")
    for name, line in zip(table.SELECTED, shown, strict=True):
        _, psi, unbiased = line.strip("| ").split(" | ")
        assert [f"`{name}`", psi] == full[name][:2]
        assert (unbiased == "no") == full[name][3].startswith("no"), line


def test_a_slim_table_of_some_estimators_has_all_of_them() -> None:
    asked = ("batch_mean", "reinforce")
    header, rule, *shown = table.slim_table({name: name for name in asked}).splitlines()
    assert "\n".join([header, rule]) == table.SLIM_HEADER
    assert shown == [table.slim(name) for name in asked]


def test_a_row_of_continuous_actions_alone_has_no_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert table.main(["--estimators", "q_prop"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == f"| {table.described('q_prop')} | — | — | — |"


ON_ALL = ("reward_to_go", "standardised", "gpomdp")
SOME = ("reward_to_go", "all_action", "leave_one_out", "ppo")
ROWS = [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in ON_TABLES]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ROWS)
def test_the_figures_of_the_table_are_what_its_command_prints(name: str) -> None:
    """Every estimator on the problem with the fewest trajectories; three on all problems."""
    problems = tabular.references()
    for column, problem in enumerate(problems):
        if problem == "cancelling" or name in ON_ALL:
            on = {problem: problems[problem]}
            figures = diagnostics.exact_figures(ESTIMATORS[name], problems=on)[problem]
            assert list(figures.as_text()) == [
                cell.split(" · ")[column] for cell in rows("docs/estimators.md")[name][4:]
            ]


def test_the_results_are_those_of_the_stored_table() -> None:
    """As `benchmark.py --from docs/benchmark.csv --report docs/results.md --readme README.md`
    writes them.
    """
    page = (ROOT / "docs" / "results.md").read_text()
    shown = page.split("<!-- results -->")[1].split("<!-- end of results -->")[0]
    stored = tables.read_csv(ROOT / "docs" / "benchmark.csv", learning.Result)
    assert shown.strip() == report.table(stored).strip()
    start, end = report.SHORT_MARKS
    assert README.split(start)[1].split(end)[0].strip() == report.short_table(stored)


def cells(text: str, heading: str) -> list[list[str]]:
    """The rows of the table below a line that begins with `heading`, without its head."""
    lines = text[text.index(f"\n{heading}") + 1 :].splitlines()
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_the_results_of_the_readme_are_in_the_table_of_results() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    known = {(row[0], row[1]): row for row in cells(page, "| environment ")}
    shown = cells(README, "| environment |")
    assert len(shown) == 5
    for env, label, steps, score in shown:
        row = known[env, label]
        assert score == row[4]
        assert row[3] == "20"
        assert steps == f"{round(int(row[2].replace(',', '')) / 1000)}k"


def test_the_speed_of_the_readme_is_in_the_table_of_performance() -> None:
    """Ratios of steps per second by the clock, the first of each pair there."""
    page = (ROOT / "docs" / "performance.md").read_text()
    known: dict[tuple[str, str], list[str]] = {}
    setting = ""
    for name, *ratios in cells(page, "|                                  | purejaxrl"):
        if name.startswith("**"):
            setting = name.strip("*")
        known[setting, name] = [pair.partition(" · ")[0] for pair in ratios]
    shown = cells(README, "| | purejaxrl")
    of_rows = [
        ("one pass, CartPole 64²", "`gae`, {}"),
        ("ppo, CartPole 64²", "`ppo`, {}"),
        ("ppo, CartPole 64²", "`ppo`, {}, shuffled rows"),
        ("ppo, CartPole 256²", "`ppo`, {}"),
        ("ppo, Breakout as MLP", "`ppo`, {}"),
    ]
    for (_, *ratios), (setting, name) in zip(shown, of_rows, strict=True):
        one_device, spread = (
            known[setting, name.format(devices)] for devices in ("one device", "spread")
        )
        pairs = [f"{one}, {both}" for one, both in zip(one_device, spread, strict=True)]
        purejaxrl, _, rejax, jaxnasium = pairs[:4]
        assert ratios == [purejaxrl, rejax, jaxnasium], (setting, name)
