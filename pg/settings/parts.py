"""The exchangeable parts of a run: environment, estimator, policy, critic and optimizer.

Each is a name from this package (policy and critic: None, as the settings describe them), an object
or a function from Python, or `FILE.py:NAME`. Nothing here imports jax.
"""

import collections
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pg.inputs import UnknownNameError, check_function, check_name, described
from pg.settings import own_files
from pg.settings.environments import check_interface, name_of

__all__ = [
    "ARGUMENTS",
    "PARTS",
    "check_choice",
    "check_choices",
    "check_names_differ",
    "check_part",
    "own_parts",
    "part_name",
    "resolved",
    "row_name",
]

PARTS = ("env", "estimator", "policy", "critic", "optimizer")
"""The fields of Config that may be custom."""

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "estimator": ("policy", "critic", "hyperparams"),
    "policy": ("config", "env"),
    "critic": ("config", "env"),
    "optimizer": ("learning_rate",),
}
"""The arguments of the function that makes each part, by position."""

Check = Callable[[str, str], None]
"""The check of a string that is given as a field; raises ValueError."""

# The helper that makes a network from a module of each library.
_HELPERS = {"flax.linen": "from_linen", "flax.nnx": "from_nnx", "equinox": "from_equinox"}


def part_name(part: Any) -> str:
    """The name of a part in messages, folders and titles: that in its file, or its own."""
    source = own_files.source_of(part)
    if source is not None and not source.module:
        return source.name
    if hasattr(part, "__name__"):
        return str(part.__name__)
    if isinstance(part, functools.partial):
        return part_name(part.func)
    return name_of(part)


def row_name(part: Any) -> str:
    """The name under which the results of a part are listed: `part_name`, or NAME of
    `FILE.py:NAME`, whose file is not read.
    """
    return part.rpartition(":")[2] if own_files.is_reference(part) else part_name(part)


def own_parts(settings: Any) -> dict[str, Any]:
    """The custom parts of a Config, by field."""
    values = {name: getattr(settings, name) for name in PARTS}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not isinstance(value, str)
    }


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with every `FILE.py:NAME` replaced by its object.

    Raises ValueError as `own_files.load` does.
    """
    own = {
        name: own_files.load(values[name], name)
        for name in PARTS
        if own_files.is_reference(values.get(name))
    }
    return {**values, **own}


def check_choice(field: str, value: str, names: Collection[str] | Check) -> None:
    """Raises ValueError unless a text is one of the names, or `FILE.py:NAME` of a file that defines
    it, which is not executed.

    Args:
        field: The field.
        value: The text.
        names: The listed names, or a check of names for fields without a list.
    """
    if own_files.is_reference(value):
        own_files.read(value)
        return
    if not names:
        raise ValueError(f"{field} must be {own_files.FORM}, got {value!r}")
    try:
        if callable(names):
            names(field, value)
        else:
            check_name(field, value, names)
    except UnknownNameError as error:
        if error.name != value:  # a setting of a known estimator
            raise
        raise ValueError(f"{error}; your own is given as {own_files.FORM}") from None


def check_choices(
    field: str,
    values: Iterable[Any],
    names: Collection[str],
    *,
    reserved: Collection[str] = (),
    check: Check | None = None,
) -> None:
    """Raises ValueError for a wrong choice among names and custom parts; no file is executed.

    Args:
        field: The field.
        values: Names, objects or functions, and `FILE.py:NAME`. No two may have the same name.
        names: The listed ones.
        reserved: Further names that a custom part must not have.
        check: Of names for fields without a list; default: that the name is listed.

    Raises:
        ValueError: A text is neither a name nor a file, or a name is taken.
    """
    values = list(values)
    for value in values:
        if isinstance(value, str):
            parts = value.split(",")
            if len(parts) > 1 and set(parts) <= set(names):
                raise ValueError(f"{field}: spaces separate names, as in {' '.join(parts)}")
            check_choice(field, value, check or names)
        if (name := row_name(value)) != value and (name in names or name in reserved):
            raise ValueError(
                f"{field}: your own {name!r} has the name of a listed one: give it another name"
            )
    check_names_differ(field, values)


def check_names_differ(field: str, parts: Iterable[Any]) -> None:
    """Raises ValueError if two parts have the same name, which identifies their results."""
    counts = collections.Counter(map(row_name, parts))
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{field}: two are called {twice[0]!r}: give each its own name")


def check_part(field: str, value: Any) -> None:
    """Raises ValueError, with a hint, unless a part is a function of the arguments of its field or,
    for policy and critic, a network.
    """
    if field == "env":
        check_interface(value)
        return
    _check_is_no_other(field, value)
    if field in ("policy", "critic"):
        _check_network(field, value)
        return
    instead = {
        "estimator": "write estimator=pg.ESTIMATORS['gae'], or Config(estimator='gae')",
        "optimizer": "write optimizer=optax.adam, as the rate is Hyperparams(learning_rate=...)",
    }[field]
    if type(value).__name__ == "Estimator":
        instead = f"give the function that makes it; {instead}"
    elif isinstance(value, str):
        instead = f"write Config({field}={value!r})"
    check_function(field, value, ARGUMENTS[field], instead)


def _check_is_no_other(field: str, value: Any) -> None:
    """Raises ValueError for a function whose arguments are named like those of another part."""
    if not inspect.isfunction(value):
        return
    given = tuple(inspect.signature(value).parameters)
    for other, arguments in ARGUMENTS.items():
        if arguments != ARGUMENTS[field] and given[: len(arguments)] == arguments:
            raise ValueError(
                f"{field} must be a function of {', '.join(ARGUMENTS[field])}, got one of "
                f"{', '.join(given)}, like {other}: give it as {other}"
            )


def _check_network(field: str, value: Any) -> None:
    """`check_part` of a policy or a critic."""
    if type(value).__name__ == "Network" and hasattr(value, "apply"):
        return
    instead = (
        f"write a function of config and env that returns a pg.Network, or give {own_files.FORM}"
    )
    for base in () if isinstance(value, type) else type(value).__mro__:
        for library, helper in _HELPERS.items():
            if base.__module__.startswith(library):
                raise ValueError(
                    f"{field} must be a pg.Network, got {described(value)}, a module of {library}: "
                    f"write a function of config and env that returns pg.{helper}(..., env)"
                )
    if isinstance(value, str):
        names = "None stands for the default one, which the settings of the network describe"
        raise ValueError(f"{field} must be {own_files.FORM}, got {value!r}: {names}")
    if isinstance(value, type):
        raise ValueError(f"{field} must be a pg.Network, got {described(value)}: {instead}")
    check_function(field, value, ARGUMENTS[field], instead)
