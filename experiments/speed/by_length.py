"""The common parts of scripts that time programs on sequences of several lengths: the checks of
their options, which need no jax, and the file of figures.
"""

from collections.abc import Callable
from typing import Any

from pg.commands import cli
from pg.runs import folders

HEADS = 4  # of transformers


def run(kind: type, docstring: str, measured: Callable[[int, Any], dict[str, Any]]) -> None:
    """Measures every length of the options, and writes the figures if a file is given.

    Args:
        kind: The class of the options: counts, among them `lengths` and `size`, and `json`.
        docstring: That of the script.
        measured: Length, options -> figures; it also prints them.
    """
    options: Any = cli.options(kind, docstring)
    for name, value in vars(options).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if name != "json" and (not numbers or min(numbers) < 1):
            cli.fail(f"{name} must be whole numbers of at least 1, got {numbers}")
    if options.size % HEADS:
        cli.fail(f"size must be a multiple of the {HEADS} heads, got {options.size}")
    figures = {str(length): measured(length, options) for length in options.lengths}
    if options.json:
        folders.write_json(options.json, {**figures, "versions": folders.environment()})
