"""Single values that come from outside: each as it has to be, or a ValueError of one sentence that names it."""

import difflib
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

COUNTABLE = 2**31  # counters are 32-bit integers
LARGEST = (2 - 2**-23) * 2.0**127  # and numbers 32-bit floats
EXAMPLE = "{'gravity': 9.8}"


def check_name(field: str, value: Any, valid: Iterable[str]) -> None:
    """Raises ValueError, with the nearest valid names, unless `value` is one of `valid`."""
    names = list(valid)
    if isinstance(value, str) and value in names:
        return
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    if not near:  # a prefix or another case is what people type
        near = [name for name in names if str(value).lower()[:4] in name.lower()][:3]
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(f"unknown {field} {shown(value)}: {hint}valid: {', '.join(names)}")


def count(name: str, value: Any, low: int = 1) -> int:
    """A whole number of at least `low` that 32-bit counters hold, as Python's own."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {shown(value)}")
    if int(value) >= COUNTABLE:
        raise ValueError(f"{name} must be below 2^31, which 32-bit counters hold; got {value!r}")
    return int(value)  # numpy's would overflow in a product


def assignments(env_params: Any) -> tuple[tuple[str, int | float], ...]:
    """Overrides of parameters as pairs of name and number."""
    pairs = entries(env_params.items() if isinstance(env_params, Mapping) else env_params)
    if pairs is None or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"env_params must be names with numbers, as in {EXAMPLE}; got {shown(env_params)}")
    return tuple((str(name), _finite(str(name), value)) for name, value in pairs)


def entries(value: Any) -> tuple[Any, ...] | None:
    """A list, tuple or array as a tuple; None of anything else."""
    if isinstance(value, str | bytes | Mapping):
        return None
    try:
        return tuple(value)
    except TypeError:  # an array without axes says that it can be iterated over
        return None


def shown(value: Any) -> str:
    """A value as one short line."""
    return " ".join(repr(value).split())[:80]


def _finite(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"env_params: {name} must be a finite number, got {shown(value)}")
    number: Any = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"env_params: {name} must be a finite number, got {value!r}")
    if abs(number) > (COUNTABLE - 1 if isinstance(number, int) else LARGEST):
        raise ValueError(f"env_params: {name} must fit into 32 bits, got {value!r}")
    if name == "max_steps_in_episode" and (number < 1 or number % 1):
        raise ValueError(f"env_params: {name} must be a whole number of at least 1, got {value!r}")
    return number
