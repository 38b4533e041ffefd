"""Text for standard streams that cannot hold every character: γ is written gamma, and ± as +/-.

A console may be ASCII or Latin-1 (`PYTHONIOENCODING`, `LANG=C`, an old Windows code page), and
Python then ends a program at the first character that it cannot encode. Files that `pg` writes are
always UTF-8.

Names are never respelled, as they would be those of something else: in a path, what cannot be
encoded is quoted as shells read it, so that results/é1 is results/$'\\303\\251'1, and elsewhere
letters are escaped as Python does.
"""

import codecs
import io
import os
import re
import sys
import unicodedata

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
# A word with a separator; from an absolute path on, all up to the last separator of the line: names
# may have spaces.
_PATH = re.compile(r"""(?<!\S)['"(]*(?:/|[A-Za-z]:\\)\S.*[/\\]\S*|\S*[/\\]\S*""")
_BOX = {"HORIZONTAL": "-", "VERTICAL": "|"}  # corners and crossings are +


def make_streams_readable() -> None:
    """Has standard output and standard error replace what they cannot encode by something readable.

    Streams in UTF-8, and streams that are no files of this process (a notebook's), stay as they
    are.
    """
    codecs.register_error(ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _is_unicode(stream.encoding):
            stream.reconfigure(errors=ERRORS)


def readable(text: str) -> str:
    """The text in ASCII, as a reader of formulas would type it: γᵗ as gamma^t; ? where there is no
    such thing.
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
    text = error.object[error.start : error.end]
    if "\ud800" <= text[0] <= "\udfff":  # a byte of a file's name that is no text: written as it is
        byte = ord(text[0]) - 0xDC00
        return (bytes([byte]) if 0x80 <= byte <= 0xFF else "?"), error.start + 1
    text = re.split("[\ud800-\udfff]", text)[0]
    end = error.start + len(text)
    around = (
        found
        for found in _PATH.finditer(error.object)
        if found.start() <= error.start < found.end()
    )
    if path := next(around, None):
        before = error.object[path.start() : error.start]
        return (_escaped(text) if {"'", '"'} & set(before) else _quoted(text)), end
    return readable("".join(c if _is_notation(c) else _escaped(c) for c in text)), end


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
    except UnicodeEncodeError:  # a name that no file can have here
        return _escaped(text)


def _escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
