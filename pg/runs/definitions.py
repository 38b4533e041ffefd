"""Digests of parts that are given in Python: of the code of a function, a class or an object, and
of the values that it closes over, as the parameters of a reference policy.

A script or a notebook goes on while its results stay, so that the digest of its file says little.
What is hashed is the bytecode of the user's own functions, all those that they name included;
functions of libraries count by their names, as versions are recorded apart.
"""

import dataclasses
import dis
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from pg.settings import own_files

__all__ = ["are_comparable", "digest"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def digest(part: Any) -> str:
    """The version of Python, whose bytecode it is, and the SHA-256 of what a part is made of."""
    hashed = hashlib.sha256()
    for piece in _pieces(part, set()):
        hashed.update(len(piece).to_bytes(8, "little") + piece)
    return f"{sys.implementation.cache_tag} {hashed.hexdigest()}"


def are_comparable(before: str, now: str) -> bool:
    """True for digests of one version of Python."""
    return before.split(" ")[0] == now.split(" ")[0]


def _pieces(x: Any, seen: set[int]) -> Iterator[bytes]:
    """The bytes that tell a value from others. seen: functions, classes and objects of before."""
    if isinstance(x, _PLAIN):
        yield f"{type(x).__name__} {x!r}".encode()
    elif isinstance(x, list | tuple):
        yield f"{type(x).__name__} of {len(x)}".encode()
        for value in x:
            yield from _pieces(value, seen)
    elif isinstance(x, Mapping):
        yield f"mapping of {len(x)}".encode()
        for key in sorted(x, key=repr):
            yield from _pieces((key, x[key]), seen)
    elif isinstance(x, set | frozenset):
        yield repr(sorted(map(repr, x))).encode()
    elif hasattr(x, "__array__"):
        yield from _of_array(x)
    elif isinstance(x, functools.partial):
        yield from _pieces((x.func, x.args, x.keywords), seen)
    elif isinstance(x, MethodType):
        yield from _pieces((x.__func__, x.__self__), seen)
    elif isinstance(x, property):
        yield from _pieces(x.fget, seen)
    elif isinstance(x, ModuleType):
        yield x.__name__.encode()
    elif id(x) not in seen:
        seen.add(id(x))
        yield from _of_object(x, seen)


def _of_array(x: Any) -> Iterator[bytes]:
    """The bytes of an array, if it has any that can be read."""
    try:
        array = np.asarray(x)
    except Exception:  # traced, deleted, or of keys
        yield type(x).__name__.encode()
        return
    yield f"{array.dtype} {array.shape}".encode()
    if array.dtype != object:
        yield array.tobytes()


def _of_object(x: Any, seen: set[int]) -> Iterator[bytes]:
    """The name of a function, a class or an object; its code, where that is a user's own; and the
    values that it has.
    """
    named = x if isinstance(x, FunctionType | type) else type(x)
    yield f"{getattr(named, '__qualname__', named)} {getattr(x, '__name__', '')}".encode()
    if isinstance(x, FunctionType):
        yield from _of_function(x, seen)
    elif isinstance(x, type):
        if _is_own(x):
            for name, value in sorted(vars(x).items()):
                if not name.startswith("__") or isinstance(value, FunctionType):
                    yield from _pieces((name, value), seen)
            yield from _pieces(x.__bases__, seen)
    elif hasattr(x, "__wrapped__"):  # of jax.jit, and other decorators
        yield from _pieces(x.__wrapped__, seen)
    else:
        yield from _pieces(type(x), seen)
        yield from _pieces(_values(x), seen)


def _of_function(function: FunctionType, seen: set[int]) -> Iterator[bytes]:
    """The defaults of a function and the values that it closes over, and its code and what that
    names, where it is a user's own.
    """
    yield from _pieces((function.__defaults__, function.__kwdefaults__), seen)
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        yield from _pieces(value, seen)
    if not own_files.is_of_library(function.__code__.co_filename):
        yield from _of_code(function.__code__)
        for name in sorted(_globals(function.__code__) & set(function.__globals__)):
            yield from _pieces((name, function.__globals__[name]), seen)


def _of_code(code: CodeType) -> Iterator[bytes]:
    """Bytecode, the names in it, and its constants; no line numbers."""
    yield code.co_code
    yield repr((code.co_names, code.co_freevars)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _of_code(constant)
        else:
            yield from _pieces(constant, set())


def _globals(code: CodeType) -> set[str]:
    """The names of its module that a code uses, also in functions within; not those of attributes,
    which a variable of a script may have by chance.
    """
    own = {x.argval for x in dis.get_instructions(code) if x.opname == "LOAD_GLOBAL"}
    inner = [_globals(x) for x in code.co_consts if isinstance(x, CodeType)]
    return own.union(*inner)


def _is_own(kind: type) -> bool:
    """True for a class of a user's own."""
    try:
        return not own_files.is_of_library(inspect.getfile(kind))
    except (OSError, TypeError):  # built in, or typed into a console
        return kind.__module__ == "__main__"


def _values(x: Any) -> dict[str, Any]:
    """The public attributes of an object; what others are for, as caches, is its own affair."""
    if dataclasses.is_dataclass(x):
        names = [field.name for field in dataclasses.fields(x)]
    else:
        names = list(getattr(x, "__dict__", {}))
    public = [name for name in names if not name.startswith("_")]
    return {name: getattr(x, name, None) for name in public}
