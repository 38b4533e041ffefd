"""A user's custom parts, in Python files: from `FILE.py:NAME` to the object of that name.

A file is first checked without being executed, and then executed once for its bytes and those of
its imports from its folder. The object is remembered with these files and their digests, which a
run's folder records. Nothing here imports jax, and only files that the user names, and their
imports, are executed.
"""

import contextlib
import copy
import functools
import hashlib
import importlib.util
import inspect
import os
import symtable
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pg.inputs import check_name
from pg.settings import own_imports
from pg.settings.environments import is_of_gymnasium
from pg.settings.own_imports import Imported, imports_of, is_beside, not_python, read_bytes

__all__ = [
    "FORM",
    "Source",
    "before_executing",
    "is_of_library",
    "is_reference",
    "load",
    "place_of",
    "read",
    "references",
    "source_of",
    "started_jax",
]

FORM = "FILE.py:NAME"
# Folders of libraries' code, in tracebacks.
_LIBRARIES = (
    *(str(Path(sysconfig.get_path(name))) + os.sep for name in ("stdlib", "platstdlib")),
    str(Path(__file__).parents[1]) + os.sep,
    "<frozen ",
)


class Source(NamedTuple):
    """The place where a part is defined."""

    name: str  # in its module
    module: str  # "" for a file that was named on the command line
    file: str  # absolute; "" if there is none, as for input to a console
    sha256: str  # of the file when the part was read; "" if there is none
    text: bytes = b""  # of the file
    # its imports from its folder; for a file that was named on the command line
    imports: tuple[Imported, ...] = ()
    # the module that defined the part, if another one; for such a file too
    defined_in: str = ""


class _State(NamedTuple):
    """A file, and everything that it imports from its folder, as they were read."""

    file: str
    digests: tuple[tuple[str, str], ...]  # by path, of all these files


# The objects that `load` has returned, by the state of their file and their name; and their
# sources, by the object's id, which stays unique while it is held here.
_loaded: dict[tuple[_State, str], Any] = {}
_sources: dict[int, tuple[Any, Source]] = {}
_started: list[Path] = []
_lock = threading.RLock()


def _nothing() -> None:
    """Prepares nothing."""


_prepare: Callable[[], object] = _nothing  # called before a file is executed


def before_executing(prepare: Callable[[], object]) -> None:
    """Sets the function that is called before a file is executed."""
    global _prepare
    _prepare = prepare


def is_reference(value: Any) -> bool:
    """True for a string that names a Python file."""
    return isinstance(value, str) and (".py:" in value or value.endswith(".py"))


def read(reference: str) -> Source:
    """The source that `FILE.py:NAME` stands for, checked without being executed.

    Raises ValueError if there is no such file, it is not Python, or it defines no such name.
    """
    file, _, name = reference.rpartition(":") if ".py:" in reference else (reference, "", "")
    path = Path(file).expanduser().resolve()
    if path.is_dir():
        raise ValueError(f"{file} is a folder: give {FORM}, a Python file and a name in it")
    if not path.is_file():
        raise ValueError(f"there is no file {file}, of {reference}: give {FORM}{_beside(path)}")
    text = read_bytes(path)
    _check_defined(file, text, name)
    digest = hashlib.sha256(text).hexdigest()
    return Source(name, "", str(path), digest, text, imports_of(path, text))


def load(reference: str, what: str = "part") -> Any:
    """The object that `FILE.py:NAME` stands for; the same one as long as the file, and
    its imports from its folder, do not change.

    Args:
        reference: the file and the name.
        what: the part that is wanted; an `env` that is a class is called, without arguments.

    Raises:
        ValueError: as `read` does, or the file fails while it is executed.
    """
    source = read(reference)
    key = _state(source), source.name
    with _lock:
        if key not in _loaded:
            module = _executed(source)
            found = _attribute(module, source)
            if isinstance(found, str):
                raise ValueError(
                    f"{source.name} of {source.file} is a string, not the {what} itself"
                )
            source = source._replace(defined_in=_defined_in(found, module))
            if what == "env" and (inspect.isclass(found) or inspect.isfunction(found)):
                found = _built(found, source)
            elif source.defined_in or id(found) in _sources:
                found = _other_object(found)  # the one of this file and name
            _loaded[key] = found
            _sources[id(found)] = found, source
        return _loaded[key]


def _state(source: Source) -> _State:
    """The state of the file of a source."""
    own = Path(source.file).name, source.sha256
    return _State(source.file, (own, *((x.path, x.sha256) for x in source.imports)))


def _defined_in(found: Any, module: ModuleType) -> str:
    """The module that defined a function or a class, if that is not this one."""
    if not (inspect.isroutine(found) or inspect.isclass(found)):
        return ""
    name = str(getattr(found, "__module__", None) or "")
    return "" if name in ("", module.__name__) else own_imports.name_in_folder(name)


def _other_object(found: Any) -> Any:
    """A copy of an object, or a wrapper of a function, which can have another source."""
    if not inspect.isroutine(found):
        return copy.copy(found)

    @functools.wraps(found)
    def function(*args: Any, **kwargs: Any) -> Any:
        return found(*args, **kwargs)

    return function


def source_of(part: Any) -> Source | None:
    """The source of a part that `load` has returned, or that was given in Python.

    None for a name, and for an object with neither a file nor a module.
    """
    if part is None or isinstance(part, str):
        return None
    with _lock:
        held = _sources.get(id(part))
    if held is not None:
        return held[1]
    inner = inspect.unwrap(getattr(part, "func", part))  # of functools.partial
    defined = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner)
    name, module = defined.__qualname__, str(getattr(defined, "__module__", ""))
    text, file = b"", ""
    with contextlib.suppress(OSError, TypeError):  # built in, or typed into a console
        file = str(Path(inspect.getsourcefile(defined) or "").resolve())
        text = Path(file).read_bytes()
    digest = hashlib.sha256(text).hexdigest() if text else ""
    return Source(name, module, file if text else "", digest, text)


def references(parts: Mapping[str, Any]) -> dict[str, str]:
    """`FILE.py:NAME` of the parts that `load` has returned, by field."""
    sources = {field: source_of(part) for field, part in parts.items()}
    return {
        field: f"{source.file}:{source.name}"
        for field, source in sources.items()
        if source is not None and not source.module
    }


def started_jax() -> Path | None:
    """The file whose execution first computed with jax in this process; None: no file."""
    return _started[0] if _started else None


def _beside(path: Path) -> str:
    """The Python file with the most similar name in the same folder, as the end of a sentence."""
    near = [x.name for x in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
    if path.with_suffix(".py").name in near and path.suffix != ".py":
        return f"; did you mean {path.with_suffix('.py').name}?"
    return f"; the same folder has {', '.join(near[:5])}" if near else ""


def _check_defined(file: str, text: bytes, name: str) -> None:
    """Raises ValueError unless a file is Python that binds this name at its top level."""
    try:
        decoded = importlib.util.decode_source(text)
        symbols = symtable.symtable(decoded, file, "exec").get_symbols()
    except (SyntaxError, ValueError) as error:  # null bytes, or not UTF-8
        raise not_python(file, error) from None
    own = [x.get_name() for x in symbols if x.is_assigned() or x.is_namespace()]
    imported = [x.get_name() for x in symbols if x.is_imported()]
    if not name:
        names = f", one of: {', '.join(own)}" if own else ""
        raise ValueError(f"{file} must be followed by a name, as {file}:NAME{names}")
    if "import *" not in decoded and name not in imported:
        check_name(f"name in {file}", name, own)


def _executed(source: Source) -> ModuleType:
    """The module of a file, which is executed if it was not yet."""
    path = Path(source.file)
    idle = not _jax_is_in_use()
    _prepare()
    with _failing(path):
        module = own_imports.executed(path, source.text, source.imports)
    if idle and _jax_is_in_use():
        _started.append(path)
    return module


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Turns an exception from the execution of a file into one sentence, with the line."""
    try:
        yield
    except SystemExit:
        raise ValueError(
            f"{path} ends the program while it is imported: code that should only run as a script "
            "must be below if __name__ == '__main__'"
        ) from None
    except Exception as error:
        said = " ".join(str(error).split())
        said = f"{type(error).__name__}: {_shortened(said)}"
        if isinstance(error, ModuleNotFoundError) and is_beside(path.parent, str(error.name)):
            said += f"; write import {error.name}, as a run records what statements import"
        raise ValueError(f"{place_of(error) or path}: {said}") from error


def place_of(error: BaseException, *, named: bool = False) -> str:
    """The file and the line of custom code that an exception passed through last; "" where
    there is none.

    Args:
        error: The exception.
        named: Only in files that `load` has executed, and their imports from their folders.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if named:
        own = [frame for frame in frames if own_imports.is_executed(frame.filename)]
    else:
        own = [frame for frame in frames if not is_of_library(frame.filename)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""


def is_of_library(file: str) -> bool:
    """True for a file of Python's library, of this package or of an installed one."""
    return "site-packages" in file or "dist-packages" in file or file.startswith(_LIBRARIES)


def _shortened(text: str) -> str:
    """A text as the end of a sentence, truncated if it is long."""
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _attribute(module: ModuleType, source: Source) -> Any:
    """The object of the wanted name; a module without it is not cached."""
    try:
        return getattr(module, source.name)
    except AttributeError:
        sys.modules.pop(module.__name__, None)
        raise ValueError(
            f"{source.file} has no {source.name!r} after execution: define it at its top level"
        ) from None


def _built(kind: Any, source: Source) -> Any:
    """The object that a class or a factory function returns when called without arguments; for an
    environment of Gymnasium, the environments that the adapter makes from it.
    """
    path, idle = Path(source.file), not _jax_is_in_use()
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError):
        raise ValueError(
            f"{source.name} of {source.file} is called without arguments but needs some: give the "
            "name of an object, as in env = MyEnv(size=5)"
        ) from None
    with _failing(path):
        made = kind()
        of_gymnasium = is_of_gymnasium(made)
        if of_gymnasium:
            made.close()
    if of_gymnasium:
        # imports jax, and is written on top of this package
        adapter = importlib.import_module("pg.envs.adapters.gymnasium")
        made = adapter.adapt_custom(kind, source.name)
    if idle and _jax_is_in_use():
        _started.append(path)
    return made


def _jax_is_in_use() -> bool:
    """True once jax has initialised its devices, which then cannot be changed."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(bridge.backends_are_initialized())
