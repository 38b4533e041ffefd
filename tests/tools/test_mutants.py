"""The planted bugs still fit the sources. That tests catch them is shown by `make mutants`, which
takes minutes.
"""

import ast

import pytest
from mutants import MUTANTS, ROOT, Mutant


@pytest.mark.acceptance("M1")
def test_there_are_thirty_at_least() -> None:
    assert len(MUTANTS) >= 30


@pytest.mark.acceptance("M1")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_changes_one_place_and_is_code(mutant: Mutant) -> None:
    source = (ROOT / "pg" / mutant.path).read_text()
    assert source.count(mutant.old) == 1
    ast.parse(source.replace(mutant.old, mutant.new))
    for path in mutant.tests.split():
        if path.startswith("tests/"):
            assert (ROOT / path).exists()


def test_descriptions_differ() -> None:
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)
