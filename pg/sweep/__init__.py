"""Sweeps: settings × seeds in few programs, whatever their number. The public names, loaded when first used."""

import importlib
from typing import Any

_NAMES = {
    **dict.fromkeys(("Range", "grid", "random", "sobol"), "points"),
    **dict.fromkeys(("sweep",), "chunks"),
    "Study": "study",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Imports on first use, so that points can be read from a command line without jax."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"pg.sweep.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'pg.sweep' has no attribute {name!r}")
