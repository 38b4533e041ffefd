"""The checker of shapes that the tests put into the modules of the package (conftest.py)."""

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])

# Arrays that functions check themselves, with a sentence that says what to write instead: tests
# hand them other things on purpose. So they do for arguments that are no arrays.
OWN_CHECK = {"key", "noise", "sample", "obs", "action", "logits", "K", "log_std"}
# An int may stand for a float, as to a type checker.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: F) -> F:
    """The function with the shapes of its arguments, and its results, checked at every call."""
    annotations = function.__annotations__
    for name, annotation in annotations.items():
        if name in OWN_CHECK or (name != "return" and not _has_shape(annotation)):
            annotations[name] = Any
    return _check(function)


def _has_shape(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(_has_shape(part) for part in typing.get_args(annotation))
