"""Failures of a user's code, in an environment or another part, as one sentence with its place and
a remedy.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from pg.settings.own_files import place_of

__all__ = [
    "OUTLIVES_TRACE",
    "InterfaceError",
    "described",
    "failed",
    "failure",
    "in_one_sentence",
    "is_leak",
]

OUTLIVES_TRACE = (
    "keeps values computed from traced arrays, on itself, on a class or in a module, where they "
    "outlive the trace: compute them again in each call"
)
# The first match is used: the last kind of error is a base class of others.
_REMEDIES = {
    jax.errors.TracerBoolConversionError: "a Python if, while, and, or, not of an array must be "
    "jnp.where, jax.lax.cond, or & | ~",
    jax.errors.TracerIntegerConversionError: "an array cannot be a Python index, nor the end of a "
    "range: index jnp.asarray(...) with it, or loop with jax.lax.fori_loop",
    jax.errors.TracerArrayConversionError: "numpy cannot compute with traced arrays: write jnp "
    "instead of np",
    jax.errors.NonConcreteBooleanIndexError: "no indexing by a traced mask, as the size is not "
    "known: write jnp.where(mask, x, 0)",
    jax.errors.ConcretizationTypeError: "an array cannot become a Python number, or a size: "
    "leave out int() and float(), and write x.astype(...)",
}


class InterfaceError(ValueError):
    """An error in an environment's results, although its code has not failed."""


def failure(method: str, error: Exception) -> str:
    """The failure of an environment's method in one line, with a remedy if one is known."""
    return failed(f"the environment's {method}", error)


def failed(what: str, error: Exception) -> str:
    """The failure of a user's code in one line, with its file and line, and a remedy if one is
    known.

    Args:
        what: the function that has failed, as named in the sentence.
        error: its exception.
    """
    if is_leak(error):
        return f"{what} {OUTLIVES_TRACE}"
    first_line = str(error).strip().partition("\n")[0].rstrip(".")
    sentence = f"{what} fails: {type(error).__name__}: {first_line}"
    for kind, remedy in _REMEDIES.items():
        if isinstance(error, kind):
            sentence += f": {remedy}"
            break
    place = place_of(error)
    return f"{sentence} ({place})" if place else sentence


def is_leak(error: Exception) -> bool:
    """True for an array that has outlived its trace."""
    return isinstance(error, jax.errors.UnexpectedTracerError) or "Leaked trace" in str(error)


@contextlib.contextmanager
def in_one_sentence(what: str) -> Iterator[None]:
    """Turns what a user's function raises into a ValueError of one sentence.

    An error of this package is not changed, unless the user's code has caused it.

    what: see `failed`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and not place_of(error):
            raise
        raise ValueError(failed(what, error)) from error


def described(x: Any) -> str:
    """The dtype and the shape of an array, for a sentence."""
    return f"{x.dtype} of shape {x.shape}"
