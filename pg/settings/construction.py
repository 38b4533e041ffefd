"""Construction of the settings by keyword: hints for misspelt names, and the preset's values."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pg.inputs import check_name, nearest, shown
from pg.settings.parts import resolved
from pg.tuned import defaults

AUTO = "auto"

_Settings = TypeVar("_Settings", bound=type)
_FIELDS: dict[
    str, list[str]
] = {}  # the fields of each class that `checking_names` decorates, by its name

# Names of the command line that no class of settings has, with hints.
_ELSEWHERE = {
    "total_steps": "write num_updates=..., or pg.Config(...).lasting(total_steps=...), which "
    "computes it",
    "seed": "the seed is the key that training is given, as in "
    "pg.make_train(config)(jax.random.key(0))",
    "seeds": "seeds are the keys that training is given, as in pg.run(config, hyperparams, "
    "range(5))",
}


def checking_names(kind: _Settings) -> _Settings:
    """Decorates a class of settings: an unknown field is an error that says which one is meant."""
    names = getattr(kind, "_fields", None) or [field.name for field in fields(kind)]
    _FIELDS[kind.__name__] = list(names)

    def checking(plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def checked(*args: Any, **values: Any) -> Any:
            _check_names(kind.__name__, values)
            return plain(*args, **values)

        return checked

    if issubclass(kind, tuple):
        kind.__new__ = staticmethod(checking(kind.__new__))  # type: ignore[method-assign]
        kind._replace = checking(kind._replace)  # type: ignore[attr-defined]
    else:
        kind.__init__ = checking(kind.__init__)  # type: ignore[method-assign]
    return kind


def _check_names(kind: str, values: Mapping[str, Any]) -> None:
    """Raises ValueError for a name that is not a field of this class: a field of the other class,
    or of neither.
    """
    own = _FIELDS[kind]
    ((other, others),) = ((name, names) for name, names in _FIELDS.items() if name != kind)
    for name in values:
        if name in own:
            continue
        near = nearest(name, [*own, *others, *_ELSEWHERE])
        meant = near[0] if near else None
        if meant in _ELSEWHERE:
            raise ValueError(f"{kind} has no field {name!r}: {_ELSEWHERE[meant]}")
        if meant in others:
            instead = "config.hyperparams" if other == "Hyperparams" else f"pg.{other}"
            raise ValueError(
                f"{kind} has no field {name!r}: write {instead}({meant}={shown(values[name])})"
            )
        check_name(f"field of {kind}", name, own, f"help(pg.{kind}) lists them")


def filling_in(kind: _Settings) -> _Settings:
    """Decorates Config: the fields that are not given come from its preset."""
    plain = kind.__init__  # type: ignore[misc]
    default_estimator = kind.estimator  # type: ignore[attr-defined]

    @functools.wraps(plain)
    def filled(self: Any, *args: Any, **values: Any) -> None:
        names = [field.name for field in fields(kind)]
        given = resolved({**dict(zip(names, args, strict=False)), **values})
        if len(args) <= len(names):
            args = ()
        preset = preset_of({"estimator": default_estimator, **given})
        of_config = {name: value for name, value in preset.items() if name in names}
        plain(self, *args, **{**of_config, **given})

    kind.__init__ = filled  # type: ignore[misc]
    return kind


def preset_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The preset that goes with these fields of Config: settings of Config and of Hyperparams."""
    preset = given.get("preset", AUTO)
    label = given["estimator"] if preset == AUTO else preset
    # None: no preset; else a mistake with its own message
    if not isinstance(label, str) and not callable(label):
        return {}
    return defaults(label, given.get("env"), given.get("minibatch_size"))


def keywords(values: Mapping[str, Any]) -> str:
    """The values as keyword arguments, in an error."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def check_field_names(kind: str, data: Any, names: Iterable[str]) -> None:
    """Raises ValueError unless stored data are values by the name of a field."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{kind} must be stored as names with values, got {type(data).__name__}")
    for name in data:
        check_name(f"field of {kind}", name, names)
