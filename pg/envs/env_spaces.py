"""Spaces that an environment declares, of gymnax or of Gymnasium: `Discrete`, `Box`, or a
combination of several.
"""

import inspect
from typing import Any, NamedTuple

import jax
import numpy as np

from pg.envs.failures import OUTLIVES_TRACE, failure
from pg.envs.tracing import call_outside_traces, copy_with_own_attributes, is_tracing

__all__ = [
    "UNBOUNDED",
    "ActionSpace",
    "Box",
    "Discrete",
    "MultiDiscrete",
    "ProductSpace",
    "Tokens",
    "first_number",
    "is_box",
    "is_discrete",
    "space_of",
]

UNBOUNDED = 1e9  # environments write 2^31 - 1, 1e38 or the largest float for no bound


class Discrete(NamedTuple):
    """Actions 0 .. n-1."""

    n: int


class Box(NamedTuple):
    """Continuous actions between `low` and `high`, float arrays of the action's shape (traced if
    swept).

    A bound of 1e9 and beyond counts as infinite: otherwise a policy would start with a standard
    deviation of half the width.
    """

    low: jax.Array
    high: jax.Array


class MultiDiscrete(NamedTuple):
    """Several whole numbers at once, 0 .. n-1 for each n of `nvec`: a space like Gymnasium's."""

    nvec: Any  # [k]


class Tokens(NamedTuple):
    """Observations of categorical whole numbers 0 .. n-1 in an array.

    They are stored as numbers; pg's networks see them one-hot, and a custom network gets the
    numbers, as floats.
    """

    n: int
    shape: tuple[int, ...] = ()


class ProductSpace(NamedTuple):
    """Several actions at once: the parts of a MultiDiscrete, or of a tuple or dictionary of spaces,
    possibly nested, in order.
    """

    parts: tuple[Discrete | Box, ...]


ActionSpace = Discrete | Box | ProductSpace


def is_discrete(space: Any) -> bool:
    """True for a Discrete space of either library."""
    return np.shape(getattr(space, "n", [])) == () and not getattr(space, "shape", ())


def is_box(space: Any) -> bool:
    """True for a Box of either library."""
    return all(hasattr(space, name) for name in ("low", "high", "shape"))


def first_number(space: Any) -> int:
    """The first of the whole numbers of a Discrete space; always 0 except in gymnasium."""
    return int(getattr(space, "start", 0))


def space_of(env: Any, name: str, params: Any) -> Any:
    """The space `env.name`, a method with or without params or a property; None: there is none.

    Raises ValueError if the environment's code fails, if the space depends on the value of a traced
    parameter, and if it is kept beyond the trace that made it.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params))
    # it may cache the space, which belongs to these parameters and this trace
    copied = copy_with_own_attributes(env)

    def ask() -> Any:
        space = getattr(copied, name, None)
        if callable(space):
            return space(params) if inspect.signature(space).parameters else space()
        return space

    try:
        space = ask() if traced else call_outside_traces(ask)
    except NotImplementedError:
        return None
    except _NEEDS_A_NUMBER as error:
        raise ValueError(_depends_on_traced(name)) from error
    except Exception as error:
        unhashable = traced and "unhashable" in str(error)
        # gymnasium's spaces raise such errors themselves
        if traced and not unhashable and "Tracer" in str(error):
            raise ValueError(_depends_on_traced(name)) from error
        why = "; a parameter is traced here, and cannot be the key of a cache" if unhashable else ""
        raise ValueError(failure(name, error) + why) from error
    if isinstance(getattr(space, "n", None), jax.core.Tracer):
        raise ValueError(_depends_on_traced(name))
    bounds = [getattr(space, bound, None) for bound in ("low", "high")]
    if any(isinstance(x, jax.core.Tracer) for x in bounds) and not is_tracing():
        raise ValueError(f"the environment's {name} fails: it {OUTLIVES_TRACE}")
    return space


_NEEDS_A_NUMBER = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _depends_on_traced(name: str) -> str:
    return (
        f"the {name} of the environment needs the value of a parameter that is traced here: "
        "bounds of gymnax's Box may be traced, but not n of a Discrete, a shape, or anything that "
        "a Python if depends on; give the parameter one number, in Config(env_params=...)"
    )
