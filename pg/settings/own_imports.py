"""The modules that a user's file imports from its own folder, as a script would.

They are found in its text, and executed from the bytes that were read: once for each folder and
each of its states, under names unique to the folder. Two files in one folder share their modules,
and files in two folders share nothing.
"""

import ast
import builtins
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

__all__ = [
    "Imported",
    "executed",
    "imports_of",
    "is_beside",
    "is_executed",
    "name_in_folder",
    "not_python",
    "read_bytes",
]

LARGEST = 2**24  # bytes of a file that is read
_PREFIX = "own_"  # prefix of the packages that represent folders, in `sys.modules`
# Packages that exist once in a process, even for a file inside a clone of one of them.
_ONE = frozenset(("pg", "jax", "jaxlib", "flax", "optax", "gymnax", "chex", "equinox", "numpy"))
_STANDARD = Path(sysconfig.get_path("stdlib"))
_LIBRARIES = ("site-packages", "dist-packages")

# A dotted name, split.
_Name = tuple[str, ...]


class Imported(NamedTuple):
    """A file that a user's file imports from its folder, directly or through others."""

    path: str  # relative to the folder, with slashes
    sha256: str
    text: bytes


def imports_of(file: Path, text: bytes) -> tuple[Imported, ...]:
    """The files that a file imports from its folder, sorted by their paths.

    All statements count, also those in functions. Nothing is executed.

    Args:
        file: The file, absolute.
        text: Its bytes.

    Raises:
        ValueError: one of them is not Python, or cannot be read.
    """
    folder = file.parent
    found: dict[str, bytes] = {file.name: text}
    left = [file.name]
    while left:
        path = left.pop()
        for name in _names(folder, path, found[path]):
            for module in _modules_of(folder, name):
                if module not in found:
                    found[module] = read_bytes(folder / module)
                    left.append(module)
    del found[file.name]
    return tuple(Imported(x, hashlib.sha256(found[x]).hexdigest(), found[x]) for x in sorted(found))


def is_beside(folder: Path, name: str) -> bool:
    """True for a module that a file of a folder would find beside it."""
    return bool(name) and bool(_modules_of(folder, tuple(name.split("."))))


def is_executed(file: str) -> bool:
    """True for the path of a file that `executed` has executed, or may have, as an import."""
    path = Path(file)
    return any(
        path.is_relative_to(x.folder) and path.relative_to(x.folder).as_posix() in x.texts
        for x in _folders.values()
    )


def name_in_folder(module: str) -> str:
    """The name of a module; for one in a user's folder, its name within that."""
    folder, _, name = module.partition(".")
    return name if folder in _folders else module


def read_bytes(file: Path) -> bytes:
    """The bytes of a Python file. Raises ValueError if it cannot be read, or is too large for
    one.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    if len(text) > LARGEST:
        raise ValueError(f"{file} is not a Python file: it has more than {LARGEST:,} bytes")
    return text


def not_python(file: Any, error: SyntaxError | ValueError) -> ValueError:
    """The error for a file that is not Python, with the line if known."""
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    said = error.msg if isinstance(error, SyntaxError) else f"not Python text: {error}"
    return ValueError(f"{file}{line}: {type(error).__name__}: {said}")


def _names(folder: Path, path: str, text: bytes) -> Iterator[_Name]:
    """The absolute names of everything that a module of a folder imports, and of the names it
    imports from there."""
    try:
        tree = ast.parse(importlib.util.decode_source(text))
    except (SyntaxError, ValueError) as error:  # null bytes, or no UTF-8
        raise not_python(folder / path, error) from None
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            above = package[: len(package) + 1 - node.level] if node.level else ()
            inside = node.module.split(".") if node.module else ()
            for alias in node.names:  # a value of a module, or a module of a package
                yield (*above, *inside, alias.name)


def _modules_of(folder: Path, name: _Name) -> list[str]:
    """The files in a folder that importing a name executes."""
    if not _is_own(folder, name[0]):
        return []
    found = []
    for end in range(1, len(name) + 1):
        inner = "/".join(name[:end])
        paths = [x for x in (f"{inner}/__init__.py", f"{inner}.py") if (folder / x).is_file()]
        found += paths[:1]  # a package takes precedence over a module
    return found


def _is_own(folder: Path, top: str) -> bool:
    """True for a name that a script in a folder would find there, before all others."""
    if top in _ONE or top in sys.builtin_module_names:
        return False
    if folder.name in _LIBRARIES or folder == _STANDARD:
        return False
    if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
        return True
    if not (folder / top).is_dir():
        return False
    elsewhere = importlib.machinery.PathFinder.find_spec(
        top
    )  # which takes precedence over a plain folder
    return elsewhere is None or elsewhere.origin is None


class _Folder:
    """The modules of one folder as a package with a unique name."""

    def __init__(self, folder: Path, texts: Mapping[str, bytes]) -> None:
        """Makes the package, without modules so far."""
        self.folder, self.texts = folder, dict(texts)
        digest = hashlib.sha256(repr((str(folder), sorted(texts.items()))).encode())
        self.name = f"{_PREFIX}{digest.hexdigest()[:12]}"
        # functions look their builtins up in the globals of their module
        self.builtins = {**vars(builtins), "__import__": self.import_}
        package = ModuleType(self.name, f"The modules in {folder}.")
        package.__path__ = []
        sys.modules[self.name] = package

    def holds(self, texts: Mapping[str, bytes]) -> bool:
        """True if a file has the same text as when it was executed."""
        return all(self.texts.get(path, text) == text for path, text in texts.items())

    def import_(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` of the modules in the folder, which find those beside them first."""
        top = name.partition(".")[0]
        here = any(_dotted(path).partition(".")[0] == top for path in self.texts)
        if level or not here or top in _ONE:
            return __import__(name, globals, locals, fromlist, level)
        found = __import__(f"{self.name}.{name}", globals, locals, fromlist, 0)
        return found if fromlist else sys.modules[f"{self.name}.{top}"]

    def spec(self, fullname: str) -> importlib.machinery.ModuleSpec:
        """The module of a name. Raises ModuleNotFoundError where no statement imports one."""
        name = fullname.removeprefix(f"{self.name}.")
        for path, text in self.texts.items():
            if _dotted(path) == name:
                loader = _Loader(self.folder / path, text, self.builtins)
                spec = importlib.util.spec_from_loader(fullname, loader)
                if spec is None:
                    raise AssertionError("a loader is given")
                return spec
        inside = name.replace(".", "/")
        if any(path.startswith(f"{inside}/") for path in self.texts):  # a folder without __init__
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(self.folder / inside)]
            return spec
        raise ModuleNotFoundError(f"No module named {name!r}", name=fullname)


class _Loader(importlib.abc.SourceLoader):
    """A loader of the bytes that were read, even if the file has changed since."""

    def __init__(self, file: Path, text: bytes, builtins: Mapping[str, Any]) -> None:
        """A module of `file`. builtins: its functions."""
        self.file, self.text, self.builtins = file, text, builtins

    def get_filename(self, fullname: str) -> str:
        """The path of the file."""
        return str(self.file)

    def get_data(self, path: str | bytes) -> bytes:
        """The bytes of the file."""
        return self.text

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module with an `__import__` of its folder."""
        module.__dict__["__builtins__"] = self.builtins
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of all folders by the names of their packages."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module, of a name that is one of a folder's."""
        folder = _folders.get(fullname.partition(".")[0])
        return None if folder is None else folder.spec(fullname)


_folders: dict[str, _Folder] = {}  # by the names of their packages
_finder = _Finder()


def executed(file: Path, text: bytes, imported: Sequence[Imported]) -> ModuleType:
    """The module of a file, executed if it has not been yet.

    Args:
        file: The file, absolute.
        text: Its bytes.
        imported: All that it imports from its folder, as in `imports_of`.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    texts = {file.name: text, **{x.path: x.text for x in imported}}
    states = [x for x in _folders.values() if x.folder == file.parent and x.holds(texts)]
    folder = states[-1] if states else _Folder(file.parent, texts)
    folder.texts.update(texts)
    _folders[folder.name] = folder
    before = set(sys.modules)
    try:
        return importlib.import_module(f"{folder.name}.{_dotted(file.name)}")
    except BaseException:  # nothing half imported is left
        for name in set(sys.modules) - before:
            if name.startswith(f"{folder.name}."):
                del sys.modules[name]
        raise


def _dotted(path: str) -> str:
    """The name of the module of a file in its folder; dots in the file's name do not separate
    modules.
    """
    parts = PurePosixPath(path).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(part.replace(".", "%2e") for part in parts)
