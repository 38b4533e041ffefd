"""Programs as jax traces them, and the programs within their operations."""

from typing import Any

import jax


def parts_of(equation: Any) -> list[Any]:
    """The programs within an operation of a program: the body of a loop, the branches of a
    condition, a function that is jitted; each has `eqns`.
    """
    parameters = dict(equation.params)
    return [x for x in jax.tree.leaves(parameters, is_leaf=_is_program) if _is_program(x)]


def _is_program(x: Any) -> bool:
    return hasattr(x, "eqns")
