"""Digests of parts that are given in Python: of the code of a function, a class or an object, and
of the values that it closes over, such as the parameters of a reference policy.

A script or a notebook keeps changing while its results stay, so that a digest of its file says
little. Instead, the bytecode of the user's functions and of all functions that they name is hashed;
library functions are represented by their names, as their versions are recorded separately.
"""

import contextlib
import dataclasses
import dis
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from pg.settings import own_files

__all__ = ["are_comparable", "digest"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_FORM = 2  # version of the hashed content: digests of different versions are not compared
# Objects seen before, by id, which stays unique while they are held: index and object.
_Seen = dict[int, tuple[int, Any]]


def digest(part: Any) -> str:
    """The version of Python, whose bytecode it is, and the SHA-256 of a part's definition."""
    return f"{sys.implementation.cache_tag}-{_FORM} {_hashed(_pieces(part, {})).hex()}"


def are_comparable(before: str, now: str) -> bool:
    """True for digests of the same version of Python and the same form."""
    return before.split(" ")[0] == now.split(" ")[0]


def _hashed(pieces: Iterable[bytes]) -> bytes:
    """The SHA-256 of pieces of bytes and their lengths."""
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(len(piece).to_bytes(8, "little") + piece)
    return hashed.digest()


def _pieces(x: Any, seen: _Seen) -> Iterator[bytes]:
    """Bytes that identify a value; for one seen before, only its index."""
    if isinstance(x, _PLAIN):
        yield f"{type(x).__name__} {x!r}".encode()
    elif isinstance(x, tuple):  # equal tuples may or may not be the same object
        yield from _of_sequence(x, seen)
    elif isinstance(x, frozenset):
        yield from _of_set(x, seen)
    elif isinstance(x, functools.partial):
        yield from _pieces((x.func, x.args, x.keywords), seen)
    elif isinstance(x, MethodType):
        yield from _pieces((x.__func__, x.__self__), seen)
    elif isinstance(x, property):
        yield from _pieces((x.fget, x.fset, x.fdel), seen)
    elif hasattr(x, "__array__") and not isinstance(x, type):
        yield from _of_array(x)
    elif id(x) in seen:
        index, _ = seen[id(x)]
        yield f"again {index}".encode()
    else:
        seen[id(x)] = len(seen), x
        yield from _of_new(x, seen)


def _of_new(x: Any, seen: _Seen) -> Iterator[bytes]:
    """The bytes of a container, a module, a function, a class or an object."""
    if isinstance(x, list):
        yield from _of_sequence(x, seen)
    elif isinstance(x, set):
        yield from _of_set(x, seen)
    elif isinstance(x, Mapping):
        yield f"mapping of {len(x)}".encode()
        for key in sorted(x, key=lambda key: _alone(key, seen)):
            yield from _pieces((key, x[key]), seen)
    elif isinstance(x, ModuleType):
        yield from _of_module(x)
    else:
        yield from _of_object(x, seen)


def _of_sequence(x: list[Any] | tuple[Any, ...], seen: _Seen) -> Iterator[bytes]:
    """The bytes of a list or a tuple."""
    yield f"{type(x).__name__} of {len(x)}".encode()
    for value in x:
        yield from _pieces(value, seen)


def _of_set(x: set[Any] | frozenset[Any], seen: _Seen) -> Iterator[bytes]:
    """The bytes of a set, which has no order."""
    yield f"{type(x).__name__} of {len(x)}".encode()
    yield from sorted(_alone(value, seen) for value in x)


def _alone(x: Any, seen: _Seen) -> bytes:
    """The digest of a value, independent of the values beside it."""
    return _hashed(_pieces(x, dict(seen)))


def _of_array(x: Any) -> Iterator[bytes]:
    """The bytes of an array, if they can be read; for a jax key those of its data."""
    try:
        array = np.asarray(_data(x))
    except Exception:  # traced, or deleted
        yield type(x).__name__.encode()
        return
    yield f"{type(x).__name__} {getattr(x, 'dtype', '')} {array.dtype} {array.shape}".encode()
    yield repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def _data(x: Any) -> Any:
    """The numbers of an array."""
    if not str(getattr(x, "dtype", "")).startswith("key<"):
        return x
    import jax

    return jax.random.key_data(x)


def _of_module(module: ModuleType) -> Iterator[bytes]:
    """The name of a module, and the text of its file if it is the user's."""
    yield module.__name__.encode()
    file = getattr(module, "__file__", None)
    if file and not own_files.is_of_library(file):
        with contextlib.suppress(OSError):  # the file is gone
            yield Path(file).read_bytes()


def _of_object(x: Any, seen: _Seen) -> Iterator[bytes]:
    """The name of a function, a class or an object; its code, if that is the user's; and its
    values.
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


def _of_function(function: FunctionType, seen: _Seen) -> Iterator[bytes]:
    """The defaults of a function and the values that it closes over; and, if it is the user's, its
    code and the globals that it names.
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
            yield from _pieces(constant, {})


def _globals(code: CodeType) -> set[str]:
    """The globals that a code object uses, also in inner functions; not names of attributes, which
    may coincide with a script's variables.
    """
    own = {x.argval for x in dis.get_instructions(code) if x.opname == "LOAD_GLOBAL"}
    inner = [_globals(x) for x in code.co_consts if isinstance(x, CodeType)]
    return own.union(*inner)


def _is_own(kind: type) -> bool:
    """True for a custom class."""
    try:
        return not own_files.is_of_library(inspect.getfile(kind))
    except (OSError, TypeError):  # built in, or typed into a console
        return kind.__module__ == "__main__"


def _values(x: Any) -> Any:
    """The attributes of an object, private ones too, without cached properties. Objects of Python's
    library and of numpy that define their pickling, such as loggers, are represented by that.
    """
    kind = type(x)
    library = kind.__module__.partition(".")[0]
    if library in (*sys.stdlib_module_names, "numpy") and _is_pickled_its_way(kind):
        try:
            reduced = x.__reduce_ex__(4)
        except Exception:  # e.g. an open file
            return None
        return reduced if isinstance(reduced, str) else _without_iterators(reduced)
    if dataclasses.is_dataclass(
        x
    ):  # other attributes are internal to libraries, such as counters of flax's modules
        names = [field.name for field in dataclasses.fields(x)]
    else:
        names = [*getattr(x, "__dict__", {}), *_slots(kind)]
    cached = functools.cached_property
    own = [name for name in names if not isinstance(getattr(kind, name, None), cached)]
    return {name: getattr(x, name, None) for name in own}


def _is_pickled_its_way(kind: type) -> bool:
    """True for a class that defines how it is pickled."""
    return (
        kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__
    )


def _without_iterators(reduced: tuple[Any, ...]) -> list[Any]:
    """The result of `__reduce_ex__`, with lists instead of iterators of members."""
    return [list(value) if isinstance(value, Iterator) else value for value in reduced]


def _slots(kind: type) -> list[str]:
    """The names of the slots of a class and its bases."""
    return [
        name
        for base in kind.__mro__
        for name, value in vars(base).items()
        if isinstance(value, MemberDescriptorType) and not name.startswith("__")
    ]
