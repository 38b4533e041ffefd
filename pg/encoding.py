"""Text for standard streams that cannot hold every character: γ is written gamma, and ± as +/-.

A console may be ASCII or Latin-1 (`PYTHONIOENCODING`, `LANG=C`, an old Windows code page), and Python then ends a
program at the first character that it cannot encode. Files that `pg` writes are always UTF-8.
"""

import codecs
import io
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
}
_BOX = {"HORIZONTAL": "-", "VERTICAL": "|"}  # corners and crossings are +


def make_streams_readable() -> None:
    """Has standard output and standard error replace what they cannot encode by something readable.

    Streams in UTF-8, and streams that are no files of this process (a notebook's), stay as they are.
    """
    codecs.register_error(ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _is_unicode(stream.encoding):
            stream.reconfigure(errors=ERRORS)


def readable(text: str) -> str:
    """The text in ASCII, as a reader of formulas would type it: γᵗ as gamma^t; ? where there is no such thing."""
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
    return readable(text), error.end
