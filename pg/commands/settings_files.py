"""Files of settings: read as if each entry were a flag, and written from the settings of a run.

    # a line for each flag, without its dashes
    estimator = "ppo"
    learning_rate = 0.001
    hidden_sizes = [64, 64]
    normalise_observations = true
    env_params = { length = 0.8 }

TOML, JSON or YAML, by the file's suffix. The `config.json` of a run is read too; it is complete, so
no preset is applied.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pg.commands import flags
from pg.commands.values import checked_line
from pg.config import Config, Hyperparams
from pg.inputs import check_name, misfit, shown
from pg.runs import files, folders, policy_files
from pg.settings.parts import resolved

__all__ = ["Entries", "read", "words", "written"]

# In these pairs, a flag drops the entry of the other.
_EXCLUDING = {"total_steps": "num_updates", "num_updates": "total_steps"}
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Numbers such as 1e-3, which YAML 1.1 reads as strings, as they have no decimal point.
_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")


class Entries(NamedTuple):
    """The content of a file of settings."""

    path: Path
    values: dict[str, Any]  # by the names of flags; {} of a run
    # the complete settings and the options of a run, of its config.json
    run: tuple[Config, Hyperparams] | None = None
    options: Mapping[str, Any] = {}


def read(path: Path, parts: Mapping[str, str] = MappingProxyType({})) -> Entries:
    """Reads a file of settings, or the config.json of the run in a folder.

    Args:
        path: the file, or the folder.
        parts: the parts that flags give instead of a run's, by field of Config; code that a run's
            folder names is never executed.

    Raises:
        ValueError: it cannot be read, or belongs to a run with a custom part that is not given.
    """
    path = path.expanduser().resolve()
    if path.is_dir():
        path = folders.run_folder(path) / "config.json"
    data = _parsed(path, files.read_bytes(path))
    if not {"config", "hyperparams"} <= set(data):
        return Entries(path, {name.replace("-", "_"): value for name, value in data.items()})
    if flaw := misfit(data, folders.SETUP, str(path)):
        raise ValueError(flaw)
    try:
        own = _own_parts(data, parts)
        config, h = folders.stored_settings({**data, "config": {**data["config"], **own}})
        settings = policy_files.attached(path.parent, config), h
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Entries(path, {}, settings, dict(data.get("options", {})))


def _own_parts(stored: Mapping[str, Any], parts: Mapping[str, str]) -> dict[str, Any]:
    """The parts that replace the custom parts of a run."""
    recorded = dict(stored.get("parts", {}))
    if stored.get("env_class") is not None:
        recorded.setdefault("env", {"name": stored["env_class"], "file": ""})
    for field, entry in recorded.items():
        if field not in parts:
            reference = f"{entry['file']}:{entry['name']}" if entry["file"] else "FILE.py:NAME"
            raise ValueError(
                f"the {field} of the run is custom, {entry['name']}, and is not executed "
                f"because a stored file names it: give it again, as --{field} {reference}"
            )
    given = {field: parts[field] for field in recorded}
    return resolved({k: None if part.lower() == "none" else part for k, part in given.items()})


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    """The data of a file, by its suffix. Raises ValueError with the path."""
    try:
        text = content.decode()
        if path.suffix == ".toml":
            data: Any = tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            data = _of_yaml(text)
        elif path.suffix == ".json":
            data = folders.parse_json(text, path)
        else:
            raise ValueError("its name must end in .toml, .json, .yaml or .yml")
    except ValueError as error:
        said = " ".join(str(error).split())
        raise ValueError(said if str(path) in said else f"cannot read {path}: {said}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold names with values, got {shown(data)}")
    return {str(name): value for name, value in data.items()}


def _of_yaml(text: str) -> Any:
    """The data of YAML. Raises ValueError if it is not YAML, or if no parser is installed."""
    try:
        from yaml import YAMLError, safe_load
    except ImportError:
        raise ValueError(
            "YAML needs pyyaml: pip install pyyaml, or write the settings as TOML or JSON"
        ) from None
    try:
        return _with_numbers(safe_load(text))
    except YAMLError as error:
        raise ValueError(str(error)) from None


def _with_numbers(data: Any) -> Any:
    """The data with numbers instead of strings such as 1e-3."""
    if isinstance(data, dict):
        return {name: _with_numbers(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_with_numbers(value) for value in data]
    if isinstance(data, str) and _EXPONENT.fullmatch(data):
        return float(data)
    return data


def words(entries: Entries, kinds: Sequence[type], given: Sequence[str]) -> list[str]:
    """The entries as a command line.

    Args:
        entries: those of the file.
        kinds: the classes whose fields are the flags of the command.
        given: names of the flags that are given besides the file, and replace its entries.

    Returns:
        Words to put before the given flags.

    Raises:
        ValueError: an entry is not a flag, or its value has another form than the flag's.
    """
    hints = {
        name.strip("_"): _without_remarks(hint)
        for kind in kinds
        for name, hint in flags.hints_of(kind).items()
    }
    types = {name: hint for kind in kinds for name, hint in flags.types_of(kind).items()}
    dropped = {*given, *(_EXCLUDING.get(name) for name in given)}
    line: list[str] = []
    for name, value in entries.values.items():
        try:
            check_name("setting", name, hints, "--help lists them")
            of_entry = checked_line(_words_of(name, value, hints[name]), types)
        except ValueError as error:
            raise ValueError(f"{entries.path}: {error}") from None
        if name not in dropped:
            line += of_entry
    return line


def _without_remarks(hint: Any) -> Any:
    """The type of a flag without the annotations for the parser."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _words_of(name: str, value: Any, hint: Any) -> list[str]:
    """One entry as a flag with its values."""
    flag = name.replace("_", "-")
    if (hint is bool) != isinstance(value, bool):
        kind = "true or false" if hint is bool else "a value of its own"
        raise ValueError(f"{name} must be {kind}, got {shown(value)}")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, Mapping | list):
        if get_origin(hint) is not tuple and name != "env_params":
            raise ValueError(f"{name} must be one value, got {shown(value)}")
        if isinstance(value, Mapping):
            return [f"--{flag}", *(f"{key}={_as_word(entry)}" for key, entry in value.items())]
        return [f"--{flag}", *map(_as_word, value)]
    may_be_none = type(None) in get_args(hint) and not {str, Path} & set(get_args(hint))
    if value is None or (may_be_none and str(value).lower() == "none"):
        return [f"--{flag}=None"]
    return [f"--{flag}={_as_word(value)}"]


def _as_word(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_as_word, value))
    return str(value)


def written(values: Mapping[str, Any], heading: str) -> str:
    """A file of settings in TOML, in the order and the groups of the help.

    Args:
        values: by the names of flags; None is written as "none".
        heading: the first line, a remark.
    """
    titles = {name: title for title, names in flags.GROUPS.items() for name in names}
    in_order = [name for name in titles if name in values]
    others = [name for name in values if name not in titles]
    lines, group = [f"# {heading}"], ""
    for name in [*in_order, *others]:
        title = titles.get(name, "of this command")
        if title != group:
            lines += ["", f"# {title}"]
            group = title
        lines.append(f"{name.strip('_')} = {_as_toml(values[name])}")
    return "\n".join(lines)


def _as_toml(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{_key(name)} = {_as_toml(entry)}" for name, entry in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    text = "none" if value is None else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    """A name as a key of TOML."""
    return name if _PLAIN_KEY.fullmatch(name) else _as_toml(name)
