"""A user's own parts, in files of Python: `FILE.py:NAME` to the object of that name.

A file is checked without being executed first, and executed once for the bytes that it has. What is
found is remembered with its file and its digest, which a run's folder records. Nothing here imports
jax, and no file is executed but one that its user names.
"""

import contextlib
import hashlib
import importlib.abc
import importlib.util
import inspect
import symtable
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pg.inputs import check_name

__all__ = [
    "FORM",
    "Source",
    "before_executing",
    "is_reference",
    "load",
    "read",
    "references",
    "source_of",
    "started_jax",
]

FORM = "FILE.py:NAME"
LARGEST = 2**24  # bytes of a file that is read


class Source(NamedTuple):
    """The place where a part is defined."""

    name: str  # in its module
    module: str  # "" of a file that was named on the command line
    file: str  # absolute; "" where there is none, as of what was typed into a console
    sha256: str  # of the file, as it was when the part was read; "" where there is none
    text: bytes = b""  # of the file


# The objects that `load` has given, by path, digest and name; and their sources, by the object's
# identity, which no other has while it is held here.
_loaded: dict[tuple[str, str, str], Any] = {}
_sources: dict[int, tuple[Any, Source]] = {}
_modules: dict[tuple[str, str], ModuleType] = {}
_started: list[Path] = []
_lock = threading.RLock()


def _nothing() -> None:
    """Prepares nothing."""


_prepare: Callable[[], object] = _nothing  # called before a file is executed


def before_executing(prepare: Callable[[], object]) -> None:
    """Has `prepare` called before a file is executed, in the place of what was set before."""
    global _prepare
    _prepare = prepare


def is_reference(value: Any) -> bool:
    """True for a text that names a file of Python."""
    return isinstance(value, str) and (".py:" in value or value.endswith(".py"))


def read(reference: str) -> Source:
    """The source that `FILE.py:NAME` stands for, checked without being executed.

    Raises ValueError where there is no such file, it is no Python, or it defines no such name.
    """
    file, _, name = reference.rpartition(":") if ".py:" in reference else (reference, "", "")
    path = Path(file).expanduser().resolve()
    if path.is_dir():
        raise ValueError(f"{file} is a folder: give {FORM}, a file of Python and a name in it")
    if not path.is_file():
        raise ValueError(f"there is no file {file}, of {reference}: give {FORM}{_beside(path)}")
    try:
        with path.open("rb") as opened:
            text = opened.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    if len(text) > LARGEST:
        raise ValueError(f"{file} is no file of Python: it has more than {LARGEST:,} bytes")
    _check_defined(file, text, name)
    return Source(name, "", str(path), hashlib.sha256(text).hexdigest(), text)


def load(reference: str, what: str = "part") -> Any:
    """The object that `FILE.py:NAME` stands for; the same one as long as the file stays as it is.

    Args:
        reference: the file and the name.
        what: the part that is wanted; an `env` that is a class is called, without arguments.

    Raises:
        ValueError: as `read` does, or the file fails while it is executed.
    """
    source = read(reference)
    key = source.file, source.sha256, source.name
    with _lock:
        if key not in _loaded:
            found = _attribute(_executed(source), source)
            if what == "env" and (inspect.isclass(found) or inspect.isfunction(found)):
                found = _built(found, source)
            _loaded[key] = found
            _sources[id(found)] = found, source
        return _loaded[key]


def source_of(part: Any) -> Source | None:
    """The source of a part that `load` has given, or that was handed in from Python.

    None of a name, and of what has neither a file nor a module that says what it is.
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
    """`FILE.py:NAME` of the parts that `load` has given, by field."""
    sources = {field: source_of(part) for field, part in parts.items()}
    return {
        field: f"{source.file}:{source.name}"
        for field, source in sources.items()
        if source is not None and not source.module
    }


def started_jax() -> Path | None:
    """The file whose execution was the first to compute with jax in this process; None: no file."""
    return _started[0] if _started else None


def _beside(path: Path) -> str:
    """The nearest file of Python in the same folder, as the end of a sentence."""
    near = [x.name for x in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
    if path.with_suffix(".py").name in near and path.suffix != ".py":
        return f"; did you mean {path.with_suffix('.py').name}?"
    return f"; beside it are {', '.join(near[:5])}" if near else ""


def _check_defined(file: str, text: bytes, name: str) -> None:
    """Raises ValueError unless a file is Python that binds this name at its top level."""
    try:
        decoded = importlib.util.decode_source(text)
        symbols = symtable.symtable(decoded, file, "exec").get_symbols()
    except (SyntaxError, ValueError) as error:  # null bytes, or no UTF-8
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        said = error.msg if isinstance(error, SyntaxError) else f"no text of Python: {error}"
        raise ValueError(f"{file}{line}: {type(error).__name__}: {said}") from None
    own = [x.get_name() for x in symbols if x.is_assigned() or x.is_namespace()]
    imported = [x.get_name() for x in symbols if x.is_imported()]
    if not name:
        names = f", one of: {', '.join(own)}" if own else ""
        raise ValueError(f"{file} must be followed by a name, as {file}:NAME{names}")
    if "import *" not in decoded and name not in imported:
        check_name(f"name in {file}", name, own)


def _executed(source: Source) -> ModuleType:
    """The module of a file, executed if it has not been yet."""
    key = source.file, source.sha256
    if key in _modules:
        return _modules[key]
    path = Path(source.file)
    # a name that stands for no other module
    digest = hashlib.sha256(f"{source.file} {source.sha256}".encode()).hexdigest()
    name = f"own_{path.stem}_{digest[:12]}".replace(".", "_")
    spec = importlib.util.spec_from_loader(name, _Text(source), origin=source.file)
    if spec is None:
        raise AssertionError("a loader is given")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = source.file
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as for a script: it may import what lies beside it
    sys.modules[name] = module  # dataclasses, pickle and tracebacks look it up
    idle = not _jax_is_in_use()
    _prepare()
    try:
        with _failing(path):
            _Text(source).exec_module(module)
        _attribute(module, source)
    except BaseException:
        del sys.modules[name]
        raise
    if idle and _jax_is_in_use():
        _started.append(path)
    _modules[key] = module
    return module


class _Text(importlib.abc.SourceLoader):
    """A loader of the bytes that were read, whatever the file has become since."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def get_filename(self, fullname: str) -> str:
        """The path of the file."""
        return self.source.file

    def get_data(self, path: str | bytes) -> bytes:
        """The bytes of the file."""
        return self.source.text


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Turns what a file raises while it is executed into one sentence, with the line."""
    try:
        yield
    except SystemExit:
        raise ValueError(
            f"{path} ends the program while it is imported: what is to run only as a script must "
            "stand below if __name__ == '__main__'"
        ) from None
    except Exception as error:
        place = f"{path}{_line(path, error)}"
        said = " ".join(str(error).split())
        raise ValueError(f"{place}: {type(error).__name__}: {_shortened(said)}") from error


def _line(path: Path, error: BaseException) -> str:
    """The last line of a file that an exception passed through, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _shortened(text: str) -> str:
    """A text as the end of a sentence, cut where it is long."""
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _attribute(module: ModuleType, source: Source) -> Any:
    """The object of the name that is wanted."""
    try:
        return getattr(module, source.name)
    except AttributeError:
        raise ValueError(
            f"{source.file} has no {source.name!r} once it is executed: define it at its top level"
        ) from None


def _built(kind: Any, source: Source) -> Any:
    """The object that a class, or a function that makes one, gives when called without
    arguments.
    """
    path, idle = Path(source.file), not _jax_is_in_use()
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError):
        raise ValueError(
            f"{source.name} of {source.file} is called without arguments, and needs some: give the "
            "name of an object, as in env = MyEnv(size=5)"
        ) from None
    with _failing(path):
        made = kind()
    if idle and _jax_is_in_use():
        _started.append(path)
    return made


def _jax_is_in_use() -> bool:
    """True once jax has devices, which cannot be chosen any more."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(bridge.backends_are_initialized())
