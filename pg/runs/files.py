"""Files: read within bounds, written atomically, and never through a link.

A folder of results may come from somebody else, or be writable by others. So a file is opened only
if it is a plain file, and read only if it is no larger than expected; a new file is written under a
random name beside its place, and renamed into it; and only plain files whose whole name is one of
ours are removed.

A file is on the disk, its name included, once the function returns: it is synced before it is
renamed, and its folder afterwards. After a loss of power there is the old file or the new one.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

# bytes of a text that is read: a run's settings take a few thousand, a long sweep's a few million
LARGEST = 2**26
# Temporary files that were not renamed, by kind; older ones have no digits.
_TEMPORARY = r"\..+\.(csv|gif|json|npz|parquet|png|safetensors|svg)(\.[0-9a-f]{8})?\.tmp"
# Absent on Windows, which has no such links either.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# of syncing a folder, on some file systems
_NOT_POSSIBLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The bytes of a plain file. Raises ValueError as `opened` does."""
    with opened(path, most) as file:
        try:
            data = file.read(most + 1)  # it may have grown
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > most:
        raise ValueError(_too_large(path, len(data), most))
    return data


class UnreadableError(ValueError):
    """A file that may be valid but cannot be read at present, for lack of memory or rights, or a
    failing disk.
    """


@contextlib.contextmanager
def opened(path: Path, most: int | None = None) -> Iterator[BufferedReader]:
    """A plain file, open for reading.

    Raises ValueError, with the path, if it is missing, a link, a folder, a pipe, a socket or a
    device, on which reading would block; if it may not be read; and if it has more than `most`
    bytes.
    """
    try:
        _check_kind(path, path.lstat().st_mode)  # a device is not even opened
        number = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT | _BINARY)
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # the last is a link
        kind = ValueError if absent else UnreadableError
        raise kind(f"cannot read {path}: {error.strerror}") from None
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        _check_kind(path, found.st_mode)
        if most is not None and found.st_size > most:
            raise ValueError(_too_large(path, found.st_size, most))
        yield file


def replace(path: Path, write: Callable[[BinaryIO], object], *, sync: bool = True) -> None:
    """Lets `write` fill a new file beside `path`, and renames it into place once it is on the disk.

    Args:
        path: the file.
        write: fills it.
        sync: waits for the disk. Without it, which takes a hundredth of the time, a kill still
            leaves the old file or the new one; only a loss of power may leave neither.

    Raises:
        OSError: writing failed, with the path; an existing file is unchanged.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    with saying(path):
        number = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY, 0o666
        )
        try:
            with os.fdopen(number, "wb") as file:
                write(file)
                file.flush()
                if sync:
                    os.fsync(number)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


@contextlib.contextmanager
def saying(path: Path) -> Iterator[None]:
    """Turns errors in writing into an OSError that names the path."""
    try:
        yield
    except OSError as error:
        # arrow has only a message
        number = error.errno or (errno.ENOSPC if "No space left" in str(error) else 0)
        reason = os.strerror(number) if number else str(error).splitlines()[0]
        raise OSError(number, f"cannot write {path}: {reason}") from None


def make_folder(path: Path, *, within: Path | None = None, new: bool = False) -> None:
    """Makes a folder and its missing parents, and waits until their names are on the disk.

    Args:
        path: the folder; an existing one is used.
        within: a folder above it, below which no link is followed; default: its parent.
        new: raises FileExistsError if it exists.

    Raises:
        ValueError: it, or a folder between `within` and it, is a link.
        OSError: it cannot be made.
    """
    _check_real(path, within)
    missing = []
    for folder in (path, *path.parents):
        if folder.is_dir():
            break
        missing.append(folder)
    if new and not missing:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    for folder in reversed(missing):
        folder.mkdir(exist_ok=not new or folder != path)
        sync_folder(folder.parent)


def check_folder(path: Path) -> None:
    """Raises ValueError for a folder that is a link: files would be written and removed
    elsewhere.
    """
    _check_real(path, None)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, if the file system supports that."""
    try:
        number = os.open(folder, os.O_RDONLY)
    # always on Windows; elsewhere a folder that is writable but not readable
    except PermissionError:
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NOT_POSSIBLE:
            raise
    finally:
        os.close(number)


def named(folder: Path, pattern: str) -> list[Path]:
    """The plain files of a folder whose whole name matches, by name; [] for a folder that is a link
    or does not exist.
    """
    if folder.is_symlink() or not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    return [folder / name for name in sorted(names) if re.fullmatch(pattern, name)]


def remove(folder: Path, pattern: str) -> None:
    """Removes the plain files of a folder whose whole name matches."""
    for path in named(folder, pattern):
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of a process that was killed; nobody else may be writing in the
    folder.
    """
    remove(folder, _TEMPORARY)


def remove_if_empty(folder: Path) -> None:
    """Removes a folder if it is empty; files of others stay."""
    if not folder.is_symlink():
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_real(path: Path, within: Path | None) -> None:
    top = path.parent if within is None else within
    for folder in (path, *path.parents):
        if folder == top:
            return
        if folder.is_symlink():
            raise ValueError(
                f"{folder} is a link, and files in it would be elsewhere: put a folder in its place"
            )


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
        raise ValueError(f"cannot read {path}: it is {kind}, where a plain file was expected")


def _too_large(path: Path, size: int, most: int) -> str:
    return f"{path} has {size:,} bytes, where at most {most:,} were expected"
