"""A run's own parts: what its folder records of them, and the check of those that are given again.

    config.json     "parts": name, file and sha256 of each, and those of what its file imports from
                    its folder                                  code/NAME-SHA256.py    their texts

A run is resumed, replayed and loaded with parts that are given again, which must be those that are
recorded. Neither what lies in a run's folder nor a file that it names is ever executed for it. What
has several parts of one field, as the leaderboard, records a list of them. Of a part that was given
in Python the file says little, and its definition is recorded too.
"""

import hashlib
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pg.config import Config, own_parts, part_name
from pg.inputs import Optional
from pg.runs import definitions, files
from pg.settings import own_files
from pg.settings.own_files import Source
from pg.settings.parts import resolved, row_name

__all__ = [
    "LIST_JSON",
    "PARTS_JSON",
    "ChangedCodeError",
    "StandIn",
    "changes",
    "copy_texts",
    "digest",
    "given_again",
    "is_changed",
    "label",
    "record",
    "record_list",
    "write_texts",
]

_ENTRY: dict[str, Any] = {
    "name": str,
    "file": str,
    "sha256": str,
    "module": Optional(str),
    "definition": Optional(str),
    "defined_in": Optional(str),
    "imports": Optional({...: str}),
}
# The expected shape of the entry `parts` of config.json, as of `inputs.misfit`.
PARTS_JSON: dict[Any, Any] = {...: _ENTRY}
# That of a list of parts, several of which may be of one field.
LIST_JSON: list[Any] = [{"field": str, **_ENTRY}]
SHORT = 12  # characters of a digest that a sentence shows


class ChangedCodeError(ValueError):
    """A part of one's own is of a file that has changed since the run."""


class StandIn:
    """A placeholder in a Config for a part of one's own that is not given, as it is not needed."""

    def __init__(self, folder: Path, field: str, name: str) -> None:
        self.field, self.__name__ = field, name
        self.sentence = f"{folder} was loaded without its {field} {name!r}: give it too"

    def __call__(self, *parts: Any) -> Any:
        """Raises ValueError: it is asked for after all."""
        raise ValueError(self.sentence)


def record(config: Config) -> dict[str, dict[str, Any]]:
    """The entry `parts` of config.json: by field, each part that is a user's own."""
    return {field: _entry(part, source) for field, part, source in _sources(_of_run(config))}


def record_list(parts: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The entries of parts, pairs of a field and a part, that are a user's own: each with its
    field.
    """
    return [{"field": field, **_entry(part, source)} for field, part, source in _sources(parts)]


def digest(entry: Mapping[str, Any]) -> str:
    """The SHA-256 of a part's code: that of its file, or, where the file imports others from its
    folder, one of all of them; of a part that was given in Python that of its definition.

    entry: of the part, in `parts`.
    """
    if entry.get("definition"):
        return str(entry["definition"].rpartition(" ")[2])
    if not entry.get("imports"):
        return str(entry["sha256"])
    lines = [f"{sha256}  {path}" for path, sha256 in sorted(entry["imports"].items())]
    return hashlib.sha256("\n".join([entry["sha256"], *lines]).encode()).hexdigest()


def _of_run(config: Config) -> Iterator[tuple[str, Any]]:
    """Field and part of a Config's own parts; an environment object that was given in Python is
    known by its class, as `folders` has it.
    """
    for field, part in own_parts(config).items():
        source = own_files.source_of(part)
        if not (field == "env" and source is not None and source.module):
            yield field, part


def _sources(parts: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any, Source]]:
    """Field, part and source of the parts that have one."""
    for field, part in parts:
        source = own_files.source_of(part)
        if source is not None:
            yield field, part, source


def _entry(part: Any, source: Source) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": part_name(part),
        "file": source.file,
        "sha256": source.sha256,
    }
    if source.module:
        return {**entry, "module": source.module, "definition": definitions.digest(part)}
    if source.defined_in:
        entry["defined_in"] = source.defined_in
    return {**entry, "imports": {x.path: x.sha256 for x in source.imports}}


def write_texts(folder: Path, config: Config) -> None:
    """Copies the files of a run's own parts into its folder, to be read and compared."""
    copy_texts(folder, _of_run(config))


def copy_texts(folder: Path, parts: Iterable[tuple[str, Any]]) -> None:
    """Copies the files of parts, pairs of a field and a part, and of what they import into `code`
    of a folder.
    """
    texts = {}
    for _, _, source in _sources(parts):
        if source.text:
            texts[_copy(source.file, source.sha256)] = source.text
        for file in source.imports:
            texts[_copy(file.path, file.sha256)] = file.text
    if texts:
        files.make_folder(folder / "code", within=folder)
    for name, text in texts.items():
        files.replace(folder / "code" / name, operator.methodcaller("write", text))


def label(part: Any) -> str:
    """The file and the beginning of the digest of a user's own part, for people; "" without."""
    source = own_files.source_of(part)
    if source is None or not source.sha256:
        return ""
    return f"{Path(source.file).name} {_short(digest(_entry(part, source)))}"


def _copy(file: str, sha256: str) -> str:
    """The name of the copy of a file; one that is imported has its folders in front."""
    path = PurePosixPath(file)
    name = path.stem if path.is_absolute() else ".".join(path.with_suffix("").parts)
    return f"{name}-{sha256[:SHORT]}.py"


def changes(before: Mapping[str, Any], config: Config) -> list[str]:
    """Sentences on the parts whose code is another than the one that is recorded.

    before: the entry `parts` of config.json.
    """
    said = []
    for field, new in record(config).items():
        if field in before:
            for change in _changes(before[field], new):
                of_file = "" if change.path is None else f", {change.path},"
                said.append(
                    f"the code of {field} {new['name']!r}{of_file} is {_short(change.before)} "
                    f"there and {_short(change.now)} here"
                )
    return said


class _Change(NamedTuple):
    """A file of a part's code that is another than the one that is recorded."""

    path: str | None  # from the folder of the part's file; None: that file itself
    before: str | None  # digest; None: it was not imported
    now: str | None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[_Change]:
    """The files that differ in two entries of a part. Entries of before imports were recorded have
    none, and nothing is said of them.
    """
    found: list[_Change] = []
    if _is_given_otherwise(before, now):
        if before["sha256"] != now["sha256"] or before.get("imports") or now.get("imports"):
            found.append(_Change(None, digest(before), digest(now)))
        return found
    if "module" in before:  # of its file other parts may have changed
        if _is_redefined(before, now):
            found.append(_Change(None, digest(before), digest(now)))
        return found
    if before["sha256"] != now["sha256"]:
        found.append(_Change(None, before["sha256"], now["sha256"]))
    if "imports" in before and "imports" in now:
        for path in sorted({*before["imports"], *now["imports"]}):
            change = _Change(path, before["imports"].get(path), now["imports"].get(path))
            if change.before != change.now:
                found.append(change)
    return found


def given_again(
    folder: Path,
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    needed: Collection[str],
    allow_changed_code: bool = False,
) -> dict[str, Any]:
    """The own parts of a stored run, by field: those that are given, once they are its own.

    Args:
        folder: of the run.
        stored: its config.json.
        given: by field, an object or a function, or `FILE.py:NAME`, whose digest is compared
            before it is executed.
        needed: the fields that must be given; for others a `StandIn` will do.
        allow_changed_code: a file may have another digest than the recorded one.

    Raises:
        ChangedCodeError: a part has another digest.
        ValueError: a part is missing, has another name, or is of a run that has none.
    """
    recorded = stored.get("parts", {})
    for field, part in given.items():
        if part is not None and field not in recorded:
            name = stored["config"].get(field)
            what = "the settings of its networks" if name is None else repr(name)
            raise ValueError(
                f"{folder} holds a run whose {field} is {what}, and none of one's own: leave "
                f"{field} out"
            )
    found: dict[str, Any] = {}
    for field, entry in recorded.items():
        part = given.get(field)
        if part is not None:
            is_changed(folder, field, entry, part, allow_changed_code=allow_changed_code)
            found[field] = part
        elif field in needed:
            raise ValueError(_missing(folder, field, entry))
        else:
            found[field] = StandIn(folder, field, entry["name"])
    return resolved(found)  # only now: no file is executed until all are the recorded ones


def is_changed(
    folder: Path,
    field: str,
    entry: Mapping[str, Any],
    part: Any,
    *,
    allow_changed_code: bool = False,
) -> bool:
    """True for a part that has the recorded one's name, and other code.

    Args:
        folder: of what was recorded.
        field: of the part.
        entry: the recorded one.
        part: an object or a function, or `FILE.py:NAME`, which is not executed.
        allow_changed_code: the code may be another.

    Raises:
        ChangedCodeError: it has code that may not be another.
        ValueError: it has another name.
    """
    source = own_files.read(part) if own_files.is_reference(part) else own_files.source_of(part)
    name = row_name(part)
    if name != entry["name"]:
        raise ValueError(
            f"{folder} holds a run of another {field}, {entry['name']!r}: got {name!r}"
        )
    if source is None:
        return False
    now = _entry(part, source)
    found = _changes(entry, now)
    if found and not allow_changed_code:
        part = f"{field} {name!r}"
        if _is_given_otherwise(entry, now):
            raise ChangedCodeError(_given_otherwise(folder, part, entry))
        if "module" in entry:
            raise ChangedCodeError(_redefined(folder, part))
        raise ChangedCodeError(_changed(folder, part, entry["file"], source, found[0]))
    return bool(found)


def _is_given_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """True where one of two entries is of a part from Python, and the other one is of
    `FILE.py:NAME`, so that the text of its own file is all that they can be compared by.
    """
    return ("module" in before) != ("module" in now)


def _is_redefined(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """True where two entries of a part that was given in Python are of other definitions, and one
    version of Python. Entries of before definitions were recorded have none.
    """
    then, today = before.get("definition"), now.get("definition")
    if not then or not today or not definitions.are_comparable(then, today):
        return False
    return bool(then != today)


def _given_otherwise(folder: Path, part: str, entry: Mapping[str, Any]) -> str:
    """The sentence on a part that was given in the other way. part: with its field."""
    ways = ["an object of Python", own_files.FORM]
    was, today = ways if "module" in entry else ways[::-1]
    return (
        f"{part} of {folder} was given as {was}, and is {today} today, so that not all of its code "
        f"can be compared: give it as {was}, or --allow-changed-code (in Python "
        "allow_changed_code=True) goes on with that of today"
    )


def _redefined(folder: Path, part: str) -> str:
    """The sentence on a part that was given in Python, and is another one today. part: with its
    field.
    """
    return (
        f"{part} is not the one that {folder} was run with, as its code, or a value that it closes "
        "over, has changed since: give that one, or allow_changed_code=True to go on with that of "
        "today"
    )


def _changed(folder: Path, part: str, recorded: str, source: Source, change: _Change) -> str:
    """The sentence on a file that is another than the one that is recorded.

    Args:
        folder: Of the run.
        part: The part, with its field.
        recorded: Its file, as it was.
        source: Where it is today.
        change: The file that differs.
    """
    file, whose, copied = source.file, part, recorded
    if change.path is not None:
        file = str(Path(source.file).parent / change.path)
        whose, copied = f"{change.path}, which {part} imports,", change.path
    go_on = "--allow-changed-code (in Python allow_changed_code=True) goes on with"
    if change.before is None:
        return f"{file} was not there when {folder} was run, and {part} imports it: {go_on} it"
    then = f"the text of then is {folder / 'code' / _copy(copied, change.before)}"
    if change.now is None:
        return f"{part} of {folder} imported {file}, and does so no more: {then}, and {go_on} that"
    return (
        f"{file} is not the file that {folder} was run with: the digest of {whose} was "
        f"{_short(change.before)}, and is {_short(change.now)}; {then}, and {go_on} that of today"
    )


def _missing(folder: Path, field: str, entry: Mapping[str, str]) -> str:
    """The sentence for a part that must be given again."""
    if "module" in entry:
        give = f"in Python, as in pg.commands.job.resume({str(folder)!r}, {field}={entry['name']})"
    else:
        reference = f"{entry['file']}:{entry['name']}"
        give = f"--{field} {reference} (in Python {field}={reference!r})"
    return f"{folder} holds a run whose {field} is one's own, {entry['name']!r}: give it, {give}"


def _short(sha256: str | None) -> str:
    """The beginning of a digest."""
    return (sha256 or "")[:SHORT] or "unknown"
