"""The checker of signatures that the tests put into the modules of the package (conftest.py)."""

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype

F = TypeVar("F", bound=Callable[..., Any])

# What functions check themselves, with a sentence that says what to write instead: tests hand them
# other kinds of things on purpose.
OWN_CHECK = {
    "key",
    "noise",
    "sample",
    "other",
    "config",
    "env",
    "params",
    "obs",
    "policy",
    "critic",
    "h",
    "weigh",
    "gain",
    "predict",
    "watch",
    "factory",
    "state",
    "traj",
}
# An int may stand for a float, as to a type checker.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: F) -> F:
    """The function, its arguments and results checked against its annotations at every call."""
    for name in OWN_CHECK & set(function.__annotations__):
        function.__annotations__[name] = Any
    return _check(function)
