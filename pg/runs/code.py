"""A run's custom parts: the records of them in its folder, and the check of those given again.

    config.json     "parts": name, file and sha256 of each, and those of what its file imports from
                    its folder                                  code/NAME-SHA256.py    their texts

A run is resumed, replayed and loaded with parts that are given again, which must match the records.
Neither a file in a run's folder nor one that it names is ever executed. A folder with several
parts of one field, such as the leaderboard's, records a list of them. For a part given in Python,
whose file says little about it, a digest of its definition is recorded too.
"""

import hashlib
import operator
import shlex
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
    "remark_on_mending",
    "resumption",
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
# The expected shape of the entry `parts` of config.json (see `inputs.misfit`).
PARTS_JSON: dict[Any, Any] = {...: _ENTRY}
# The shape of a list of parts, several of which may have the same field.
LIST_JSON: list[Any] = [{"field": str, **_ENTRY}]
SHORT = 12  # characters of a digest that messages show


class ChangedCodeError(ValueError):
    """The file of a custom part has changed since the run."""


class StandIn:
    """A placeholder in a Config for a custom part that was not given because it is not needed."""

    def __init__(self, folder: Path, field: str, name: str) -> None:
        self.field, self.__name__ = field, name
        self.sentence = f"{folder} was loaded without its {field} {name!r}: give it too"

    def __call__(self, *parts: Any) -> Any:
        """Raises ValueError: the part is needed after all."""
        raise ValueError(self.sentence)


def record(config: Config) -> dict[str, dict[str, Any]]:
    """The entry `parts` of config.json: by field, each part that is custom."""
    return {field: _entry(part, source) for field, part, source in _sources(_of_run(config))}


def resumption(folder: Path, config: Config, *, allow_changed_code: bool = False) -> str:
    """The folder of a run, and after it the flags that give its custom parts again, as a user types
    them after `pg resume` or `--resume`. Parts that were given in Python have no flag.

    allow_changed_code: the files of these parts, if there are any, may be changed before.
    """
    words = [str(folder)]
    for field, reference in own_files.references(own_parts(config)).items():
        words += [f"--{field}", reference]
    if allow_changed_code and len(words) > 1:
        words.append("--allow-changed-code")
    return shlex.join(words)


def remark_on_mending(config: Config) -> str:
    """A remark on the command that continues runs, with the flag that it needs once files of their
    custom parts have changed; "" if there are no such files.
    """
    if not own_files.references(own_parts(config)):
        return ""
    return " (with --allow-changed-code, once one of your files has changed)"


def record_list(parts: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The entries of the custom ones among parts, pairs of a field and a part: each with its
    field.
    """
    return [{"field": field, **_entry(part, source)} for field, part, source in _sources(parts)]


def digest(entry: Mapping[str, Any]) -> str:
    """The SHA-256 of a part's code: of its file, or, if the file imports others from its folder, of
    all of them together; for a part given in Python, of its definition.

    entry: of the part, in `parts`.
    """
    if entry.get("definition"):
        return str(entry["definition"].rpartition(" ")[2])
    if not entry.get("imports"):
        return str(entry["sha256"])
    lines = [f"{sha256}  {path}" for path, sha256 in sorted(entry["imports"].items())]
    return hashlib.sha256("\n".join([entry["sha256"], *lines]).encode()).hexdigest()


def _of_run(config: Config) -> Iterator[tuple[str, Any]]:
    """Field and part of a Config's custom parts; an environment object that was given in Python is
    recorded by its class, by `folders`.
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
    """Copies the files of a run's custom parts into its folder, to be read and compared."""
    copy_texts(folder, _of_run(config))


def copy_texts(folder: Path, parts: Iterable[tuple[str, Any]]) -> None:
    """Copies the files of parts, pairs of a field and a part, and of their imports into `code` of a
    folder.
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
    """The file and the beginning of the digest of a custom part, for messages; "" for others."""
    source = own_files.source_of(part)
    if source is None or not source.sha256:
        return ""
    return f"{Path(source.file).name} {_short(digest(_entry(part, source)))}"


def _copy(file: str, sha256: str) -> str:
    """The name of the copy of a file; that of an imported file begins with its folders."""
    path = PurePosixPath(file)
    name = path.stem if path.is_absolute() else ".".join(path.with_suffix("").parts)
    return f"{name}-{sha256[:SHORT]}.py"


def changes(before: Mapping[str, Any], config: Config) -> list[str]:
    """Sentences on the parts whose code differs from the recorded one.

    before: the entry `parts` of config.json.
    """
    said = []
    for field, new in record(config).items():
        if field in before:
            for change in _changes(before[field], new):
                of_file = "" if change.path is None else f", {change.path},"
                said.append(
                    f"the code of {field} {new['name']!r}{of_file} is {_short(change.before)} "
                    f"in the stored run and {_short(change.now)} in this one"
                )
    return said


class _Change(NamedTuple):
    """A file of a part's code that differs from the recorded one."""

    path: str | None  # relative to the folder of the part's file; None: that file itself
    before: str | None  # digest; None: it was not imported
    now: str | None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[_Change]:
    """The files that differ between two entries of a part. Imports are compared only if both
    entries record them; old ones do not.
    """
    found: list[_Change] = []
    if _is_given_otherwise(before, now):
        if before["sha256"] != now["sha256"] or before.get("imports") or now.get("imports"):
            found.append(_Change(None, digest(before), digest(now)))
        return found
    if "module" in before:  # only the definition counts: the rest of its file may have changed
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
    """The custom parts of a stored run, by field: the given ones, after checking that they are the
    same.

    Args:
        folder: of the run.
        stored: its config.json.
        given: by field, an object or a function, or `FILE.py:NAME`, whose digest is compared
            before it is executed.
        needed: the fields that must be given; others may be replaced by a `StandIn`.
        allow_changed_code: a file may have another digest than the recorded one.

    Raises:
        ChangedCodeError: a part has another digest.
        ValueError: a part is missing, has another name, or is given for a run without one.
    """
    recorded = stored.get("parts", {})
    for field, part in given.items():
        if part is not None and field not in recorded:
            name = stored["config"].get(field)
            what = "the settings of its networks" if name is None else repr(name)
            raise ValueError(
                f"{folder} holds a run whose {field} is {what}, not a custom one: leave {field} out"
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
    """True for a part with the recorded name but other code.

    Args:
        folder: of the records.
        field: of the part.
        entry: the recorded one.
        part: an object or a function, or `FILE.py:NAME`, which is not executed.
        allow_changed_code: the code may differ.

    Raises:
        ChangedCodeError: its code differs and may not.
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
    """True if one of two entries is for a part given in Python and the other for `FILE.py:NAME`, so
    that only the text of its file can be compared.
    """
    return ("module" in before) != ("module" in now)


def _is_redefined(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """True if two entries of a part that was given in Python have different definitions, under the
    same version of Python. Old entries have no definition.
    """
    then, today = before.get("definition"), now.get("definition")
    if not then or not today or not definitions.are_comparable(then, today):
        return False
    return bool(then != today)


def _given_otherwise(folder: Path, part: str, entry: Mapping[str, Any]) -> str:
    """The error for a part that was given in the other form. part: with its field."""
    ways = ["a Python object", own_files.FORM]
    was, today = ways if "module" in entry else ways[::-1]
    return (
        f"{part} of {folder} was given as {was} and is now given as {today}, so that not all of "
        f"its code can be compared: give it as {was}, or use --allow-changed-code (in Python "
        "allow_changed_code=True) to continue with the current one"
    )


def _redefined(folder: Path, part: str) -> str:
    """The error for a part that was given in Python and has changed. part: with its field."""
    return (
        f"{part} is not the one that {folder} was run with, as its code, or a value that it closes "
        "over, has changed since: give the original, or allow_changed_code=True to continue with "
        "the current one"
    )


def _changed(folder: Path, part: str, recorded: str, source: Source, change: _Change) -> str:
    """The error for a file that differs from the recorded one.

    Args:
        folder: Of the run.
        part: The part, with its field.
        recorded: Its file at that time.
        source: Its current file.
        change: The file that differs.
    """
    file, whose, copied = source.file, part, recorded
    if change.path is not None:
        file = str(Path(source.file).parent / change.path)
        whose, copied = f"{change.path}, which {part} imports,", change.path
    go_on = "--allow-changed-code (in Python allow_changed_code=True) continues with"
    if change.before is None:
        return f"{file} did not exist when {folder} was run, and {part} imports it: {go_on} it"
    then = f"the old text is {folder / 'code' / _copy(copied, change.before)}"
    if change.now is None:
        return f"{part} of {folder} no longer imports {file}: {then}, and {go_on} that"
    return (
        f"{file} is not the file that {folder} was run with: the digest of {whose} was "
        f"{_short(change.before)}, and is {_short(change.now)}; {then}, and {go_on} the current one"
    )


def _missing(folder: Path, field: str, entry: Mapping[str, str]) -> str:
    """The error for a part that must be given again."""
    if "module" in entry:
        give = f"in Python, as in pg.commands.job.resume({str(folder)!r}, {field}={entry['name']})"
    else:
        reference = f"{entry['file']}:{entry['name']}"
        give = f"--{field} {reference} (in Python {field}={reference!r})"
    return f"{folder} holds a run whose {field} is custom, {entry['name']!r}: give it, {give}"


def _short(sha256: str | None) -> str:
    """The beginning of a digest."""
    return (sha256 or "")[:SHORT] or "unknown"
