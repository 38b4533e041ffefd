"""Values on a command line, checked by the types of their flags before the parser reads them.

The parser's own report of a mistake is a panel of ten lines.
"""

import collections
import contextlib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import tyro

from pg.inputs import check_name, shown

__all__ = ["check_assigned_once", "checked_line", "is_flag", "is_positional", "name_of"]

_Primitive = tyro.constructors.PrimitiveConstructorSpec
# Types in words, of one value and of several.
_WORDS: dict[Any, tuple[str, str]] = {
    float: ("a number", "numbers"),
    int: ("a whole number", "whole numbers"),
    Path: ("a path", "paths"),
}
# Values that are read by the flags' own types, by metavar.
_KINDS = {
    "INT": "a whole number",
    "INT|none": "a whole number or none",
    "NAME=VALUE": "NAME=VALUE with a number, true or false",
}


class _Type(NamedTuple):
    """The type of a flag's values."""

    kind: Any  # of one value
    many: bool = False  # any number of values
    optional: bool = False  # none is a value, too
    positional: bool = False
    primitive: Any = None  # reads the values

    @property
    def is_list(self) -> bool:
        """True if each value stands for itself, as names do; sizes of layers are one setting."""
        return self.many and self.kind not in (int, float)

    @property
    def is_text(self) -> bool:
        """True for texts and paths, of which "none" is one."""
        return self.kind in (str, Path)

    @property
    def words(self) -> str:
        """The type in words."""
        if self.primitive is not None:
            return _KINDS.get(self.primitive.metavar, self.primitive.metavar)
        if get_origin(self.kind) is Literal:
            said = f"one of {', '.join(get_args(self.kind))}"
        else:
            said = _WORDS.get(self.kind, ("a text", "texts"))[self.many]
        return f"{said} or none" if self.optional and not self.is_text else said


class _Given(NamedTuple):
    """A flag of the command line, and the words after it."""

    flag: str  # "" of what comes before the first
    words: list[str]
    joined: bool = False  # as --flag=word


def is_flag(word: str) -> bool:
    """True for a flag, and False for a value: a number may be negative."""
    if not word.startswith("-") or not word.strip("-"):
        return False
    with contextlib.suppress(ValueError):
        float(word)
        return False
    return True


def name_of(word: str) -> str:
    """The name of the setting that a flag gives."""
    return word.partition("=")[0].strip("-").replace("-", "_")


def is_positional(annotation: Any) -> bool:
    """True for the type of a value that has no flag."""
    return _type_of(annotation).positional


def checked_line(
    argv: Sequence[str], annotations: Mapping[str, Any], required: Sequence[str] = ()
) -> list[str]:
    """The command line, with None as the parser writes it. The values of a flag that takes several
    and is given several times come together, at its end; the parser reads the last one alone. Equal
    values of any other flag are one.

    Args:
        argv: The command line, whose flags are known.
        annotations: The types of the flags, by name.
        required: Those that have no default.

    Raises:
        ValueError: A value is of another type than its flag, is missing, or belongs to no flag; or
            a flag of one value, which may consist of several numbers, has two different ones.
    """
    known = {name.strip("_"): _type_of(x) for name, x in annotations.items()}
    line: list[str] = []
    lists: dict[str, list[str]] = {}  # of the flags that take several values, by name
    single: dict[str, list[str]] = {}  # of those that take one
    beside: list[str] = []  # words of no flag
    for given in _groups(argv):
        name = name_of(given.flag)
        found = known.get(name)
        own, rest = _divided(given, found)
        if found is not None:
            own = _values(name, found, own)
        beside += rest
        if found is not None and not found.many and own:
            _check_not_other(name, single.setdefault(name, own), own)
        if found is not None and found.many:
            if not found.is_list:
                _check_not_other(name, lists.get(name, own), own)
                lists.pop(name, None)
            lists.setdefault(name, []).extend(own)
        elif given.joined:
            line.append(f"{given.flag}={own[0]}")
        else:
            line += [given.flag, *own] if given.flag else own
        line += rest
    _check_once(lists, known)
    for name, words in lists.items():
        line += [f"--{name.replace('_', '-')}", *words]
    positional = [name for name, found in known.items() if found.positional]
    _check_beside(beside, [known[name] for name in positional])
    missing = [name for name in positional if name in required]
    if missing and not beside and not {"-h", "--help"} & set(argv):
        raise ValueError(f"{missing[0].upper()} is missing: --help says what comes first")
    return line


def _groups(argv: Sequence[str]) -> list[_Given]:
    """The command line by its flags."""
    groups = [_Given("", [])]
    for word in argv:
        flag, equals, value = word.partition("=")
        if not is_flag(word):
            groups[-1].words.append(word)
        elif equals:
            groups += [_Given(flag, [value], joined=True), _Given("", [])]
        else:
            groups.append(_Given(flag, []))
    return groups


def words_of(argv: Sequence[str], name: str) -> list[str]:
    """The words after all flags of this name, as "over" for --over."""
    return [word for given in _groups(argv) if name_of(given.flag) == name for word in given.words]


def check_one_value(argv: Sequence[str], name: str) -> None:
    """Raises ValueError if a flag of one value has two different ones on the command line."""
    values = [given.words[:1] for given in _groups(argv) if name_of(given.flag) == name]
    for value in values[1:]:
        _check_not_other(name, values[0], value)


def _divided(given: _Given, found: _Type | None) -> tuple[list[str], list[str]]:
    """The words that are values of a flag, and those that are not. found: its type."""
    if given.joined or (found is not None and found.many):
        return given.words, []
    number = 0 if found is None or found.kind is bool else 1
    return given.words[:number], given.words[number:]


def _values(name: str, found: _Type, words: list[str]) -> list[str]:
    """The values of a flag. Raises ValueError for a value of another type."""
    if not words and not found.many and found.kind is not bool:
        raise ValueError(f"{name} needs a value: {found.words}")
    if found.optional and not found.is_text and [x.lower() for x in words] == ["none"]:
        return ["None"] if found.primitive is None else words
    try:
        if found.primitive is not None:
            found.primitive.instance_from_str(words)
        elif found.kind in (float, int):
            list(map(found.kind, words))
    except ValueError:
        raise ValueError(f"{name} must be {found.words}, got {shown(' '.join(words))}") from None
    if get_origin(found.kind) is Literal:
        for word in words:
            check_name(name, word, get_args(found.kind))
    return words


def _check_not_other(name: str, before: Sequence[str], now: Sequence[str]) -> None:
    """Raises ValueError if a flag of one value has two different ones."""
    if before != now:
        both = " and ".join(shown(" ".join(words)) for words in (before, now))
        raise ValueError(f"{name} is given twice, {both}: give one of them")


def _check_once(lists: Mapping[str, Sequence[str]], known: Mapping[str, _Type]) -> None:
    """Raises ValueError if a flag of NAME=VALUE gives two values to one name."""
    for flag, words in lists.items():
        primitive = known[flag].primitive
        if primitive is not None and primitive.metavar == "NAME=VALUE":
            check_assigned_once(flag, words)


def check_assigned_once(flag: str, texts: Iterable[str]) -> None:
    """Raises ValueError if two texts NAME=VALUE of a flag have the same name."""
    counts = collections.Counter(text.partition("=")[0] for text in texts)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{flag}: {twice[0]} is given twice")


def _check_beside(words: Sequence[str], positional: Sequence[_Type]) -> None:
    """Raises ValueError for words that belong to no flag, if the command takes none."""
    most = len(words) if any(found.many for found in positional) else len(positional)
    if len(words) > most:
        raise ValueError(f"{shown(words[most])} belongs to no flag: --help lists them")


def _type_of(annotation: Any) -> _Type:
    """The type of a flag's values, from its annotation."""
    marks: tuple[Any, ...] = ()
    kind = annotation
    if get_origin(kind) is Annotated:
        kind, *rest = get_args(kind)
        marks = tuple(rest)
    positional = tyro.conf.Positional in marks
    primitive = next((x for x in marks if isinstance(x, _Primitive)), None)
    optional = False
    if get_origin(kind) in (Union, types.UnionType):
        optional = type(None) in get_args(kind)
        kind = next(x for x in get_args(kind) if x is not type(None))
    many = get_origin(kind) is tuple
    if primitive is not None:
        return _Type(kind, primitive.nargs == "*", optional, positional, primitive)
    return _Type(get_args(kind)[0] if many else kind, many, optional, positional)
