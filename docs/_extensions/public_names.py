"""Names of pg, as docstrings and pages write them, to where they are documented."""

import functools
import importlib
import inspect
import re
from types import ModuleType
from typing import Any, TypeVar

from sphinx.application import Sphinx

import pg


def canonical(path: str, *starts: Any) -> str | None:
    """The full name of what `path` is, seen from the first of `starts` that knows it; None: nothing
    of pg.
    """
    for start in starts:
        owner, found = None, start
        for part in path.split("."):
            owner, found = found, getattr(found, part, None)
        if inspect.isclass(owner) and found is not None:
            found = f"{owner.__module__}.{owner.__qualname__}.{path.rpartition('.')[2]}"
        elif isinstance(found, ModuleType):
            found = found.__name__
        else:
            found = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        if re.fullmatch(r"pg(\.[A-Za-z]\w*)+", found):
            return found
    return None


def field_comment(owner: str, field: str) -> str:
    """The comment that follows a field where its class is defined; empty where none does."""
    module, _, name = owner.rpartition(".")
    source = inspect.getsource(getattr(importlib.import_module(module), name))
    match = re.search(rf"^    {field}:.*?  # (.*)", source, re.MULTILINE)
    return match[1] if match else ""


def resolve(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Public names, as pg.make_train, lead to where they are documented."""
    prefix, _, path = node.get("reftarget", "").partition(".")
    if prefix != "pg" or node.get("refdomain") != "py":
        return None
    if isinstance(
        functools.reduce(lambda owner, name: getattr(owner, name, None), path.split("."), pg),
        TypeVar,
    ):
        return contnode  # stands for a type, and is documented nowhere
    target = canonical(path, pg)
    domain = env.get_domain("py")
    return target and domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", target, node, contnode
    )
