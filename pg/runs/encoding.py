"""Text for standard streams that cannot hold every character: γ is written gamma, and ± as +/-.

A console may be ASCII or Latin-1 (`PYTHONIOENCODING`, `LANG=C`, an old Windows code page), and
Python then ends a program at the first character that it cannot encode. Files that `pg` writes are
always UTF-8.

Names are never respelled, as that would name something else: in a path, what cannot be
encoded is quoted as shells read it, so that results/é1 is results/$'\\303\\251'1, and elsewhere
letters are escaped as Python does. A formula may have a slash too, as ∇J/σ² has: a word
that does not begin like a path and has only signs of formulas is a path only if it exists on disk.
"""

import bisect
import codecs
import functools
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

ERRORS = "pg.readable"  # the name of the error handler

_SYMBOLS = {
    "×": "x",
    "·": "*",
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "→": "->",
    "←": "<-",
    "↦": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "≠": "!=",
    "∞": "inf",
    "∇": "grad ",
    "∂": "d",
    "√": "sqrt ",
    "∈": "in",
    "∣": "|",
    "‖": "||",
    "⌊": "floor(",
    "⌋": ")",
    "…": "...",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "•": "*",
    "⁄": "/",
    "∝": "~",
    "∫": "integral ",
    "⊗": "(x)",
    "⊥": "_|_",
    "⌈": "ceil(",
    "⌉": ")",
    "ĝ": "g",
    "ḡ": "g",
}
_ACCENTS = "\N{COMBINING CIRCUMFLEX ACCENT}\N{COMBINING MACRON}"  # of estimates and means
_WORD = re.compile(r"\S+")
_SEPARATOR = re.compile(r"[/\\]")
# The beginning of a path, in a word: a root, or a dot or two with a separator.
_ROOT = re.compile(r"""(?<![^'"(\[=])(?:~?/|\.\.?[/\\]|[A-Za-z]:[/\\])(?=.)""")
_QUOTES = "'\""
_OPENING, _CLOSING = _QUOTES + "([", _QUOTES + ")].,:;"  # around a path, not part of it
_LONGEST_NAME = 255  # of a file
_TEXT = re.compile("[^\ud800-\udfff]+")  # without bytes of names that are not text
_BOX = {"HORIZONTAL": "-", "VERTICAL": "|"}  # corners and crossings are +


def make_streams_readable() -> None:
    """Makes standard output and standard error replace what they cannot encode by something
    readable.

    Streams in UTF-8, and streams that are not files of this process (a notebook's), stay as they
    are.
    """
    codecs.register_error(ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _is_unicode(stream.encoding):
            stream.reconfigure(errors=ERRORS)


def readable(text: str) -> str:
    """The text in ASCII, as one would type a formula: γᵗ as gamma^t; ? for characters without
    such a spelling.
    """
    written = ""
    before = ""
    for character in text:
        mark = _mark(character)
        if mark != before:
            written += mark
        written += _plain(character)
        before = mark
    return written


def _mark(character: str) -> str:
    """The mark that opens a run of superscripts or subscripts."""
    kind = unicodedata.decomposition(character).partition(" ")[0]
    return {"<super>": "^", "<sub>": "_"}.get(kind, "")


def _plain(character: str) -> str:
    """One character in ASCII."""
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if unicodedata.combining(character):
        return ""
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        letter = name.partition(" LETTER ")[2].partition(" ")[0].replace("LAMDA", "LAMBDA")
        return letter.title() if "CAPITAL" in name else letter.lower()
    if name.startswith("BOX DRAWINGS"):
        return _BOX.get(name.rpartition(" ")[2], "+") if " AND " not in name else "+"
    if "BLOCK" in name:
        return "#"
    # A superscript, a subscript, a fraction or a letter with an accent is made of plain characters.
    parts = unicodedata.normalize("NFKD", character)
    if parts == character:
        return "?"
    return "".join(_plain(part) for part in parts)


def _is_unicode(encoding: str) -> bool:
    return codecs.lookup(encoding).name.startswith("utf")


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """The error handler, which codecs call with what they cannot encode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if "\ud800" <= first <= "\udfff":  # a byte of a file's name that is not text: written as it is
        byte = ord(first) - 0xDC00
        return (bytes([byte]) if 0x80 <= byte <= 0xFF else "?"), error.start + 1
    paths = _paths(error.object)
    path = paths[bisect.bisect_right(paths, error.start, key=lambda path: path.end)]
    in_path = path.start <= error.start
    end = min(error.end, path.end if in_path else path.start)
    found = _TEXT.match(error.object, error.start, end)
    assert found is not None
    text = found.group()
    if in_path:
        return (_escaped(text) if path.is_quoted else _quoted(text)), found.end()
    return readable("".join(c if _is_notation(c) else _escaped(c) for c in text)), found.end()


class _Path(NamedTuple):
    start: int
    end: int
    is_quoted: bool


# The handler is called for every piece that cannot be encoded, each time with the whole text.
@functools.lru_cache(maxsize=1)
def _paths(text: str) -> list[_Path]:
    """The paths in a text, in lines that are not pure ASCII; and an empty one at its end."""
    paths = []
    begin = 0
    for line in text.splitlines(keepends=True):
        if not line.isascii():
            paths += [
                _Path(begin + start, begin + end, is_quoted)
                for start, end, is_quoted in _paths_of_line(line)
            ]
        begin += len(line)
    return [*paths, _Path(begin, begin, False)]


def _paths_of_line(line: str) -> Iterator[_Path]:
    words = list(_WORD.finditer(line))
    end = 0
    for index, word in enumerate(words):
        if word.start() < end:  # of the path before
            continue
        end = _end_of_path(line, words, index)
        if end:
            quoted = not set(_QUOTES).isdisjoint(line[word.start() : end])
            yield _Path(word.start(), end, quoted)


def _end_of_path(line: str, words: list[re.Match[str]], index: int) -> int:
    """The end of the path that begins with a word; 0 if none does."""
    word = words[index].group()
    start, end = words[index].span()
    root = _ROOT.search(word)
    start += root.start() if root else len(word) - len(word.lstrip(_OPENING))
    quote = line[start - 1 : start]
    if root and quote and quote in _QUOTES:
        return max(end, line.find(quote, start))
    begins_clause = index == 0 or words[index - 1].group().endswith((":", ";"))
    if root or begins_clause:
        end = _end_on_disk(line, words, index, start)
        if root or end > words[index].end():
            return end
    if word.isascii():
        return 0
    name = line[start:end]
    first = _SEPARATOR.split(name, maxsplit=1)[0]
    of_letters = first != name and not all(c.isascii() or _is_notation(c) for c in name)
    return end if of_letters or os.path.lexists(first.rstrip(_CLOSING)) else 0


def _end_on_disk(line: str, words: list[re.Match[str]], index: int, start: int) -> int:
    """The end of a path from `start` on: that of its first word, or, as names may have spaces, that
    of a later one up to which it exists on disk.
    """
    end = last = words[index].end()  # the last of the existing names
    for place in range(index + 1, len(words)):
        word = words[place]
        clause_ends = words[place - 1].group().endswith((":", ",", ";"))
        if clause_ends or word.end() - last > _LONGEST_NAME:
            break
        separator = _SEPARATOR.search(word.group())
        name_end = word.start() + separator.start() if separator else word.end()
        if os.path.lexists(line[start:name_end].rstrip("" if separator else _CLOSING)):
            end = last = word.end()
        elif separator:
            break
    return end


def _is_notation(character: str) -> bool:
    """True for a sign of formulas or of typography, and False for a letter of a language, of which
    names are made.
    """
    if character in _SYMBOLS or character in _ACCENTS or _mark(character):
        return True
    if unicodedata.category(character).startswith(("L", "M")):
        name = unicodedata.name(character, "")
        return name.startswith("GREEK") and "WITH" not in name
    return _plain(character) != "?"


def _quoted(text: str) -> str:
    """Part of a path as bash and zsh read it, by the bytes of the file's name."""
    try:
        return "$'" + "".join(f"\\{byte:03o}" for byte in os.fsencode(text)) + "'"
    except UnicodeEncodeError:  # a name that no file can have on this system
        return _escaped(text)


def _escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
