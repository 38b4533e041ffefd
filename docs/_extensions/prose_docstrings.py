"""Docstrings that are prose with equations in Unicode, and no markup, to reStructuredText; names to
links.

A paragraph becomes one of: the four lines of an estimator, as a field list; equations, set by
MathJax; an indented or aligned block, as it stands; or prose, in which `names` that exist are
links, as arXiv numbers are.
"""

import inspect
import itertools
import re
import textwrap
from typing import Any

from public_names import canonical, field_comment, resolve
from sphinx.application import Sphinx
from unicode_math import is_equation, latex

import pg

_INLINE = re.compile(
    r"`(?P<code>[^`]+)`|(?<!\w)\*(?P<stress>\w[\w ]*)\*|\b(?P<arxiv>\d{4}\.\d{4,5})\b"
    r"|(?P<special>[\\*`|]|(?<=\w)_(?!\w))"
)
_FORMS = {"code": "``{}``", "link": ":py:obj:`{}`", "stress": "*{}*", "arxiv": ":arxiv:`{}`"}
_FIELDS = re.compile(r"(Ψₜ|Unbiased for|Variance|Needs)(?: =|:) (.*)")


def prose(text: str, *starts: Any, local: Any = ()) -> str:
    """One paragraph: code, stress and references marked up, all else escaped. local: names that are
    no links.
    """

    def marked(match: re.Match[str]) -> str:
        kind, found = match.lastgroup or "", match[match.lastgroup or 0]
        if kind == "special":
            return "\\" + found
        name = found.partition("(")[0]
        if kind == "code" and name not in local and (target := canonical(name, *starts)):
            kind, found = "link", f"{found} <{target}>"
        return rf"\ {_FORMS[kind].format(found)}\ "

    # neither a list nor a field begins so
    return "\\" + _INLINE.sub(marked, text).removeprefix("\\")


def paragraph(lines: list[str], *starts: Any, local: Any) -> list[str]:
    """A paragraph as reStructuredText."""
    fields = [_FIELDS.match(line) for line in lines]
    if fields[0] and all(fields):
        formula = latex(fields[0][2], words=True)
        first = f":math:`{formula.strip()}`" if formula else prose(fields[0][2])
        return [
            f":Ψₜ: {first}",
            *(f":{field[1]}: {prose(field[2], *starts)}" for field in fields[1:] if field),
        ]
    if all(is_equation(line) for line in lines):
        short = [
            part
            for line in lines
            for part in ([line] if len(line) < 60 else re.split(r"(?<=\S) {2,}", line))
        ]
        equations = r" \\ ".join(f"& {latex(part)}" for part in short)
        return [".. math::", "   :no-wrap:", "", rf"   \begin{{align*}} {equations} \end{{align*}}"]
    if any(re.search(r"^ |\S {3,}\S", line) for line in lines):
        return ["::", "", *textwrap.indent(textwrap.dedent("\n".join(lines)), "   ").split("\n")]
    return [prose(" ".join(lines), *starts, local=local)]


def process_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Rewrites a docstring in place; that of a NamedTuple's field becomes the comment beside it."""
    if lines and lines[0].startswith("Alias for field number"):
        lines[:] = [field_comment(*name.rpartition(".")[::2])]
    elif what == "data" and "\n".join(lines).strip() == inspect.getdoc(obj):  # that of its type
        lines.clear()
    local = inspect.signature(obj).parameters if inspect.isfunction(obj) else ()
    blocks = [
        list(block)
        for full, block in itertools.groupby(lines, lambda line: bool(line.strip()))
        if full
    ]
    starts = obj, inspect.getmodule(obj), pg
    lines[:] = [line for block in blocks for line in [*paragraph(block, *starts, local=local), ""]]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the two."""
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
