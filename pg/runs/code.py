"""A run's own parts: what its folder records of them, and the check of those that are given again.

    config.json     "parts": name, file and sha256 of each      code/NAME-SHA256.py    their texts

A run is resumed, replayed and loaded with parts that are given again, which must be those that are
recorded. Neither what lies in a run's folder nor a file that it names is ever executed for it.
"""

import operator
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pg.config import Config, own_parts, part_name
from pg.inputs import Optional
from pg.runs import files
from pg.settings import own_files
from pg.settings.own_files import Source
from pg.settings.parts import resolved

__all__ = ["PARTS_JSON", "StandIn", "changes", "given_again", "record", "write_texts"]

# The expected shape of the entry `parts` of config.json, as of `inputs.misfit`.
PARTS_JSON: dict[Any, Any] = {
    ...: {"name": str, "file": str, "sha256": str, "module": Optional(str)},
}
SHORT = 12  # characters of a digest that a sentence shows


class StandIn:
    """A placeholder in a Config for a part of one's own that is not given, as it is not needed."""

    def __init__(self, folder: Path, field: str, name: str) -> None:
        self.field, self.__name__ = field, name
        self.sentence = f"{folder} was loaded without its {field} {name!r}: give it too"

    def __call__(self, *parts: Any) -> Any:
        """Raises ValueError: it is asked for after all."""
        raise ValueError(self.sentence)


def record(config: Config) -> dict[str, dict[str, str]]:
    """The entry `parts` of config.json: by field, each part that is a user's own."""
    return {field: _entry(part, source) for field, part, source in _sources(config)}


def _sources(config: Config) -> Iterator[tuple[str, Any, Source]]:
    """Field, part and source of a Config's own parts; an environment object that was given in
    Python is known by its class, as `folders` has it.
    """
    for field, part in own_parts(config).items():
        source = own_files.source_of(part)
        if source is not None and not (field == "env" and source.module):
            yield field, part, source


def _entry(part: Any, source: Source) -> dict[str, str]:
    name, module = part_name(part), {"module": source.module} if source.module else {}
    return {"name": name, "file": source.file, "sha256": source.sha256, **module}


def write_texts(folder: Path, config: Config) -> None:
    """Copies the files of a run's own parts into its folder, to be read and compared."""
    texts = {_copy(x.file, x.sha256): x.text for _, _, x in _sources(config) if x.text}
    if texts:
        files.make_folder(folder / "code", within=folder)
    for name, text in texts.items():
        files.replace(folder / "code" / name, operator.methodcaller("write", text))


def _copy(file: str, sha256: str) -> str:
    """The name of the copy of a file."""
    return f"{Path(file).stem}-{sha256[:SHORT]}.py"


def changes(before: Mapping[str, Any], config: Config) -> list[str]:
    """Sentences on the parts whose code is another than the one that is recorded.

    before: the entry `parts` of config.json.
    """
    return [
        f"the code of {field} {new['name']!r} is {_short(before[field])} there and {_short(new)} "
        f"here"
        for field, new in record(config).items()
        if field in before and before[field]["sha256"] != new["sha256"]
    ]


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
        ValueError: a part is missing, has another name or digest, or is of a run that has none.
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
            _check(folder, field, entry, part, allow_changed_code)
            found[field] = part
        elif field in needed:
            raise ValueError(_missing(folder, field, entry))
        else:
            found[field] = StandIn(folder, field, entry["name"])
    return resolved(found)  # only now: no file is executed until all are the recorded ones


def _check(
    folder: Path, field: str, entry: Mapping[str, str], part: Any, allow_changed_code: bool
) -> None:
    """Raises ValueError unless a part is the recorded one."""
    is_file = own_files.is_reference(part)
    source = own_files.read(part) if is_file else own_files.source_of(part)
    name = source.name if is_file and source else part_name(part)
    if name != entry["name"]:
        raise ValueError(
            f"{folder} holds a run of another {field}, {entry['name']!r}: got {name!r}"
        )
    # of a part that was given in Python the file may be a script that has gone on since
    if source is None or "module" in entry or allow_changed_code:
        return
    if source.sha256 != entry["sha256"]:
        raise ValueError(
            f"{source.file} is not the file that {folder} was run with: the digest of {field} "
            f"{name!r} was {_short(entry)}, and is {source.sha256[:SHORT]}; the text of then is "
            f"{folder / 'code' / _copy(entry['file'], entry['sha256'])}, and "
            "--allow-changed-code goes on with that of today"
        )


def _missing(folder: Path, field: str, entry: Mapping[str, str]) -> str:
    """The sentence for a part that must be given again."""
    if "module" in entry:
        give = f"in Python, as in pg.commands.job.resume({str(folder)!r}, {field}={entry['name']})"
    else:
        give = f"--{field} {entry['file']}:{entry['name']}"
    return f"{folder} holds a run whose {field} is one's own, {entry['name']!r}: give it, {give}"


def _short(entry: Mapping[str, str]) -> str:
    """The beginning of a recorded digest."""
    return entry["sha256"][:SHORT] or "unknown"
