"""Digests of parts from Python: different parts have different ones, and the same part built twice
has the same one, in another process too.
"""

import importlib
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import linen, nnx

from pg.runs import definitions

# Builds parts by kind and number; it is a file of its own, as another process has it too.
PARTS = """
import functools

import helper


class Private:
    def __init__(self, beta):
        self._beta = beta


class Slots:
    __slots__ = ("__beta", "other")

    def __init__(self, beta):
        self.__beta = beta


class Cached:
    def __init__(self, beta):
        self.beta = beta

    @functools.cached_property
    def twice(self):
        return 2 * self.beta


def f():
    return 1


def g():
    return 2


def closing_over(*functions):
    return lambda x: [function() for function in functions]


def of_module(x):
    return helper.k * x


def cyclic(beta):
    values = [beta]
    values.append(values)
    return values


def used(part):
    part.twice
    return part


KINDS = {
    "private": Private,
    "slots": Slots,
    "cyclic": cyclic,
    "repeated": lambda n: closing_over(f, g, (f, g)[n]),
    "set": lambda n: {Private(n), Private(3), Private(4)},
    "frozenset": lambda n: frozenset({(f, g)[n], "a", "b"}),
    "keys": lambda n: {Private(n): 1, Private(3): 2},
    "cached": lambda n: used(Cached(n)),
}
"""
IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
import parts
from pg.runs import definitions
for kind, build in parts.KINDS.items():
    print(kind, definitions.digest(build(0)))
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "helper.py").write_text("k = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("parts", "helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("parts")
    for name in ("parts", "helper"):
        sys.modules.pop(name, None)


OF_LIBRARIES: dict[str, Callable[[int], Any]] = {
    "key of jax": jax.random.key,
    "old key": jax.random.PRNGKey,
    "generator": np.random.default_rng,
    "array of objects": lambda n: np.array([n, "a"], dtype=object),
    "optax": lambda n: optax.sgd(0.1 * (n + 1)),
    "linen": lambda n: linen.Dense(n + 1),
    "nnx": lambda n: nnx.Linear(n + 1, 2, rngs=nnx.Rngs(0)),
    "logger": lambda n: logging.getLogger(f"logger {n}"),
    "class with arrays": lambda n: (np.ndarray, jax.Array)[n],
}
KINDS = ["private", "slots", "cyclic", "repeated", "set", "frozenset", "keys", "cached"]


@pytest.mark.parametrize("kind", [*KINDS, *OF_LIBRARIES])
def test_different_parts_have_different_digests(kind: str, parts: Any) -> None:
    build = OF_LIBRARIES.get(kind) or parts.KINDS[kind]
    first, again, other = (definitions.digest(build(n)) for n in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_cached_property_is_no_part_of_a_definition(parts: Any) -> None:
    assert definitions.digest(parts.Cached(1)) == definitions.digest(parts.used(parts.Cached(1)))


def test_a_module_of_ones_own_is_part_of_what_uses_it(parts: Any, tmp_path: Path) -> None:
    before = definitions.digest(parts.of_module)
    assert definitions.digest(parts.of_module) == before
    (tmp_path / "helper.py").write_text("k = 2\n")
    assert definitions.digest(parts.of_module) != before


def test_digests_are_those_of_another_process(parts: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    here = {kind: definitions.digest(build(0)) for kind, build in parts.KINDS.items()}
    assert said == "".join(f"{kind} {digest}\n" for kind, digest in here.items())
    assert list(here) == KINDS
