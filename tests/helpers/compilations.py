"""The programs that JAX compiles while something is done: a count where a clock would be noisy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_LOOPS = ("scan", "while", "fori_loop", "while_loop")
_open: list[list[str]] = []


def _note(event: str, duration: float, **about: Any) -> None:
    """Adds the name of a program to each list that is open."""
    if event != _EVENT:
        return
    written = str(about.get("fun_name"))  # "jit(add)"
    name = re.sub(r"^jit\((.*)\)$", r"\1", written)
    for names in _open:
        names.append(name)


jax.monitoring.register_event_duration_secs_listener(_note)


@contextmanager
def compiled() -> Iterator[list[str]]:
    """The names of the programs that are compiled meanwhile, read from a cache or not."""
    names: list[str] = []
    _open.append(names)
    try:
        yield names
    finally:
        _open.remove(names)


def is_one_operation(name: str) -> bool:
    """One of JAX's own operations, which takes milliseconds: no loop, and no function under
    `jax.jit` of this library or of a user.
    """
    if name in _LOOPS:
        return False
    if name.startswith("_threefry_"):
        return True
    return any(
        hasattr(module, name.removeprefix("_")) for module in (jax.lax, jax.numpy, jax.random)
    )
