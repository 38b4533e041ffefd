"""Numbers as text: significant digits, one notation, and different numbers that look different."""

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pg import numerals
from pg.commands import cli
from pg.config import Config


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (6.5e3, 2e6, "(0.0 ± 2.0)e6"),
        (1234.5, 56.7, "1234 ± 57"),
        (12345.0, 678.0, "12340 ± 680"),
        (0.01234, 0.0004, "0.01234 ± 0.00040"),
        (-3.0, 0.0996, "−3.00 ± 0.10"),
        (-0.001, 0.5, "0.00 ± 0.50"),
        (1e-7, 3e-9, "(1.000 ± 0.030)e−7"),
        (100.0, 0.0, "100 ± 0"),
        (2.0, math.inf, "2 ± ∞"),
        (2.0, math.nan, "2 ± —"),
    ],
)
def test_a_value_has_the_digits_of_its_error(value: float, error: float, text: str) -> None:
    assert numerals.plus_minus(value, error) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([3000, 1e4], ["3000", "10000"]),
        ([1e-5, 3000, 1e4], ["1e−5", "3e3", "1e4"]),
        ([900000, 1e6], ["9e5", "1e6"]),
        ([0.9, 0.999, 0.9999], ["0.9", "0.999", "0.9999"]),
        ([0.1, 0.1000001], ["0.1", "0.1000001"]),
        ([-1234.5678, 0.0, -0.0001], ["−1235", "0", "−0.0001"]),
        ([1 / 3, math.nan, math.inf, -math.inf], ["0.333", "—", "∞", "−∞"]),
        ([1 / 3, 1 / 3], ["0.333", "0.333"]),
        ([], []),
    ],
)
def test_numbers_beside_one_another_have_one_notation(
    values: list[float], texts: list[str]
) -> None:
    assert numerals.numbers(values) == texts


def test_an_interval_has_one_notation() -> None:
    assert numerals.interval(9876.54, 8000.0, 12345.6) == "9877 [8000, 12346]"
    assert numerals.interval(2e-7, 0.0, 1.0) == "2e−7 [0, 1e0]"


def test_settings_are_numbers_or_what_they_are() -> None:
    assert numerals.labels([1e-5, "adam", True, None, 3000.0]) == [
        "1e−5",
        "adam",
        "True",
        "None",
        "3e3",
    ]


@pytest.mark.parametrize(
    "kind", [float, np.float32, np.float64, jnp.float32, np.asarray, jnp.asarray]
)
def test_scalars_of_numpy_and_jax_are_numbers(kind: Callable[[float], Any]) -> None:
    assert numerals.plus_minus(kind(5.0), kind(0.0)) == "5 ± 0"
    assert numerals.plus_minus(kind(5.0), kind(math.nan)) == "5 ± —"
    assert numerals.plus_minus(kind(480.5), kind(5.75)) == "480.5 ± 5.8"
    assert numerals.numbers([kind(0.5), kind(0.5)]) == ["0.5", "0.5"]
    assert numerals.interval(kind(1.0), kind(0.5), kind(1.5)) == "1 [0.5, 1.5]"
    assert numerals.number(kind(-0.0)) == "0"


def test_numbers_of_tables_and_terminals_are_written_in_one_place() -> None:
    assert [numerals.fixed(x) for x in (-0.0004, -1.5, 12.345, -200.0)] == [
        "0.000",
        "−1.500",
        "12.3",
        "−200.0",
    ]
    assert numerals.fixed(0.5, like=120.0) == "0.5"
    written = [numerals.short(x) for x in (830, 12_345, 3.4e6, 2e9, 500_000, math.inf, math.nan)]
    assert written == ["830", "12k", "3.4M", "2G", "500k", "∞", "—"]
    assert [numerals.short(x, 6) for x in (500_000, 1_250_000, 10_000_000)] == [
        "500k",
        "1.25M",
        "10M",
    ]
    assert [numerals.times(x) for x in (0.834, 12.4, math.inf)] == ["0.83×", "12×", "never"]
    assert float(numerals.typed(numerals.number(-1.5e-9))) == -1.5e-9


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "seed"), "1 seed"),
        ((0, "seed"), "0 seeds"),
        ((2, "complete episode"), "2 complete episodes"),
        ((20_000, "environment step"), "20,000 environment steps"),
        ((np.int64(1), "leaf", "leaves"), "1 leaf"),
        ((3, "leaf", "leaves"), "3 leaves"),
    ],
)
def test_what_is_counted_is_in_the_singular_or_the_plural(arguments: Any, text: str) -> None:
    assert numerals.counted(*arguments) == text


def test_a_verb_agrees_with_its_number() -> None:
    verbs = [numerals.agreeing(number, "is", "are") for number in (0, 1, 2, np.int64(1))]
    assert verbs == ["are", "is", "are", "is"]


def test_no_text_leaves_the_plural_to_its_reader() -> None:
    """As `1 seed(s)` does; `numerals.counted` knows which it is."""
    for path in sorted((Path(__file__).parents[2] / "pg").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(x.value) for x in node.values if isinstance(x, ast.Constant))
                assert not re.search(r"[a-z]{2}\(s\)", text), f"{path.name}: {text}"


def test_the_plan_of_one_of_each_says_so() -> None:
    one = Config(num_envs=1, num_updates=1, preset=None)
    said = cli.describe(one, one.hyperparams(), 1, 1)
    assert "1 update of 1 complete episode, 1 parameter\n" in said
    window = Config(estimator="gae", collect="windows", num_envs=1, num_steps=1, num_updates=1)
    said = cli.describe(window, window.hyperparams(), 1, 2)
    assert "1 update of 1 × 1 step, 2 parameters\n" in said
