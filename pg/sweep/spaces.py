"""Search spaces: every combination of some values, or draws from ranges.

A space is a sequence of values or a `Range`. Spaces are named after fields of Hyperparams or
parameters of the environment; the Python functions take the latter as `env_params={...}`. This
module does not import jax.
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pg.config import (
    PARTS,
    WHOLE_NUMBERS,
    Config,
    Hyperparams,
    check_hyperparams,
    check_is_hyperparams,
)
from pg.estimators.names import canonical, check_estimator
from pg.inputs import check_name, count, entries, shown
from pg.settings import own_files
from pg.tuned import defaults

Space = Any  # Range, or a sequence of values
Table = dict[str, list[Any]]  # G values of every name


class Range(NamedTuple):
    """Numbers from low to high, drawn log-uniformly, as suits step sizes and other scales, or
    uniformly (`log=False`).
    """

    low: float
    high: float
    log: bool = True

    def at(self, unit: np.ndarray) -> np.ndarray:
        """Maps `unit`, in [0, 1), to numbers of the range."""
        if self.log:
            return self.low * (self.high / self.low) ** unit
        return self.low + (self.high - self.low) * unit


def grid(base: Hyperparams | None = None, /, **spaces: Any) -> Hyperparams:
    """Every combination of the values, leaves [G]; the first name varies slowest.

    base: the values of all other fields. Raises ValueError for an unknown field or an invalid
    value.
    """
    return hyperparams_of(_given(base), combinations(_flat(spaces)))


def random(
    num: int, base: Hyperparams | None = None, /, *, seed: int = 0, **spaces: Any
) -> Hyperparams:
    """`num` independent draws from the spaces, leaves [num] (Bergstra & Bengio 2012)."""
    return hyperparams_of(_given(base), draws("random", num, _flat(spaces), seed))


def sobol(
    num: int, base: Hyperparams | None = None, /, *, seed: int = 0, **spaces: Any
) -> Hyperparams:
    """`num` points of a scrambled Sobol' sequence in the spaces, leaves [num]. They cover the
    spaces more evenly than random draws, most evenly where `num` is a power of two.
    """
    return hyperparams_of(_given(base), draws("sobol", num, _flat(spaces), seed))


def _given(base: Hyperparams | None) -> Hyperparams:
    """The base, or the defaults. Raises ValueError for anything but Hyperparams."""
    if base is None:
        return Hyperparams()
    check_is_hyperparams(base)
    return base


def combinations(spaces: Mapping[str, Space]) -> Table:
    """Every combination of the values. Raises ValueError for a range, whose values cannot be
    listed.
    """
    for name, space in spaces.items():
        if isinstance(space, Range):
            raise ValueError(f"{name} is a range, and a grid needs values: NAME=V,V,V")
        if not len(space):
            raise ValueError(f"{name} has no values")
    if not spaces:
        return {}
    rows = list(itertools.product(*spaces.values()))
    return {name: [row[i] for row in rows] for i, name in enumerate(spaces)}


def draws(method: str, num: int, spaces: Mapping[str, Space], seed: int) -> Table:
    """`num` draws from the spaces; the values of a sequence are equally likely."""
    check_name("method", method, ("random", "sobol"))
    num = count("num", num)
    in_unit_cube = _sobol if method == "sobol" else _uniform
    units = in_unit_cube(num, len(spaces), seed)
    return {
        name: _at(name, space, unit)
        for (name, space), unit in zip(spaces.items(), units.T, strict=True)
    }


def is_whole(name: str) -> bool:
    """True for a name whose values are whole numbers, to which draws from a range are rounded."""
    return (
        name in (*WHOLE_NUMBERS, "max_steps_in_episode") or type(getattr(Config, name, 0.0)) is int
    )


def hyperparams_of(base: Hyperparams, table: Table) -> Hyperparams:
    """The configurations as Hyperparams with leaves [G]; names that are not fields of Hyperparams
    are parameters of the environment.

    Raises ValueError for a value out of range.
    """
    num = len(next(iter(table.values()), [0]))
    fields = base.scalars()
    of_fields = {name: values for name, values in table.items() if name in fields}
    of_env = {name: values for name, values in table.items() if name not in fields}
    for g in range(num):
        row = {name: values[g] for name, values in of_fields.items()}
        check_hyperparams(Hyperparams(**(fields | row)))
    env_params = {**base.env_params, **of_env}
    for name, values in env_params.items():
        if not all(map(_is_finite, np.ravel(values).tolist())):
            raise ValueError(f"{name} must be finite numbers, got {values!r}")
    columns = _columns(fields | of_fields, num)
    return Hyperparams(**columns, env_params=_columns(env_params, num))


def _is_finite(x: Any) -> bool:
    return isinstance(x, int | float | np.number) and math.isfinite(x)


def spaces_of(texts: Sequence[str]) -> dict[str, Space]:
    """The spaces of `NAME=V,V,V`, `NAME=LOW:HIGH` (log-uniform) and `NAME=LOW:HIGH:linear`.

    Raises ValueError for any other text, and for a value that is listed twice, also under two names
    of the same estimator.
    """
    spaces: dict[str, Space] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.replace("-", "_")
        if not (name and equals and values):
            raise ValueError(f"{text} is neither NAME=V,V,V nor NAME=LOW:HIGH")
        if name in spaces:
            raise ValueError(f"{name} is given twice")
        is_range = ":" in values and name not in PARTS  # a part may be FILE.py:NAME
        spaces[name] = _range(name, values) if is_range else _values(name, values)
    return spaces


def table_of(texts: Sequence[str], method: str = "auto", num: int = 16, seed: int = 0) -> Table:
    """The configurations that the spaces of a command line stand for.

    method: auto means a grid, or sobol if any space is a range.
    """
    spaces = spaces_of(texts)
    if method == "auto":
        method = "sobol" if any(isinstance(space, Range) for space in spaces.values()) else "grid"
    return combinations(spaces) if method == "grid" else draws(method, num, spaces, seed)


def presets(
    table: Table,
    config: Config,
    given: Collection[str] | None,
    settings_of: str | None = None,
) -> Table:
    """The settings in which the presets of the configurations differ from that of `config`, if the
    estimator or the environment is varied; [G] for each name.

    Args:
        table: The configurations.
        config: The settings that are not varied.
        given: Names of the settings that are the same for all configurations; None: all.
        settings_of: The estimator or variant whose preset custom estimators have; None: their own.

    Raises:
        ValueError: There is no such estimator, or its file cannot be loaded.
    """
    if given is None or not {"estimator", "env"} & set(table):
        return {}
    cut = config.minibatch_size if "minibatch_size" in given else None
    base = {"estimator": config.estimator, "env": config.env, "minibatch_size": cut}
    num = len(next(iter(table.values())))
    columns = {name: table.get(name, [value] * num) for name, value in base.items()}
    rows = [
        defaults(_label(estimator, settings_of), env, minibatch_size)
        for estimator, env, minibatch_size in zip(*columns.values(), strict=True)
    ]
    usual = defaults(_label(config.estimator, settings_of), config.env, cut)
    plain = {**vars(Config(preset=None)), **Hyperparams().scalars()}
    found = {}
    for name in dict.fromkeys(name for row in [usual, *rows] for name in row):
        values = [row.get(name, plain.get(name)) for row in rows]
        is_free = name in plain and name not in {*base, *given, *table}
        if is_free and any(value != usual.get(name, plain[name]) for value in values):
            found[name] = values
    return found


def _label(estimator: Any, settings_of: str | None) -> Any:
    """The estimator or variant whose preset an estimator has: for a custom one `settings_of`,
    unless that is None; else itself, loaded if it is FILE.py:NAME.
    """
    if own_files.is_reference(estimator):
        estimator = own_files.load(estimator)
    if isinstance(estimator, str):
        check_estimator("estimator", estimator, own_files.FORM)
        return estimator
    return estimator if settings_of is None else settings_of


def lasting(table: Table, config: Config, total_steps: int, presets: Table | None = None) -> Table:
    """The table, with `num_updates` for each configuration if they differ in the environment steps
    of an update.

    presets: settings of each configuration besides the table, see `presets`.

    Raises ValueError if `num_updates` itself is varied.
    """
    if "num_updates" in table:
        raise ValueError(
            "total_steps and num_updates are mutually exclusive: vary num_updates, or leave it out"
        )
    every = {**(presets or {}), **table}
    lengths = [
        name for name in ("collect", "num_envs", "num_steps", "action_repeat") if name in every
    ]
    if not lengths:
        return table
    static = {name: values for name, values in every.items() if name in Config.__dataclass_fields__}
    num = len(every[lengths[0]])
    num_updates = []
    for g in range(num):
        values = {name: column[g] for name, column in static.items()}
        num_updates.append(replace(config, **values).lasting(total_steps).num_updates)
    return {**table, "num_updates": num_updates}


def _values(name: str, text: str) -> list[Any]:
    """The values of V,V,V; estimators under their canonical names. Raises ValueError for a value
    that is listed twice.
    """
    found: dict[Any, str] = {}
    for word in text.split(","):
        value = canonical(word) if name == "estimator" else _value(word)
        if value in found:
            both = repr(word) if word == found[value] else f"{found[value]!r} and {word!r}"
            raise ValueError(f"{name} has one value twice: {both}; leave one out")
        found[value] = word
    return list(found)


def _range(name: str, text: str) -> Range:
    low, high, *kind = text.split(":")
    try:
        found = Range(float(low), float(high), log=kind != ["linear"])
    except ValueError:
        raise ValueError(
            f"range of {name} must be LOW:HIGH or LOW:HIGH:linear, got {text}"
        ) from None
    if len(kind) > 1 or (kind and kind[0] not in ("log", "linear")) or not found.low < found.high:
        raise ValueError(
            f"range of {name} must be LOW:HIGH or LOW:HIGH:linear with LOW < HIGH, got {text}"
        )
    if found.log and found.low <= 0:
        raise ValueError(
            f"range of {name} is log-uniform, and needs LOW > 0; or write {low}:{high}:linear"
        )
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _flat(spaces: Mapping[str, Any]) -> dict[str, Space]:
    env = spaces.get("env_params", {})
    own = {name: space for name, space in spaces.items() if name != "env_params"}
    for name in own:
        check_name("hyperparameter", name, Hyperparams().scalars())
    for name, space in {**own, **env}.items():
        if not isinstance(space, Range) and entries(space) is None:
            raise ValueError(
                f"{name} must be a sequence of values or a Range, as in [{shown(space)}]; got "
                f"{shown(space)}"
            )
    return {**own, **env}


def _at(name: str, space: Space, unit: np.ndarray) -> list[Any]:
    if not isinstance(space, Range):
        return [space[int(u * len(space))] for u in unit]
    values = space.at(unit)
    return [round(x) if is_whole(name) else float(x) for x in values.tolist()]


def _uniform(num: int, dimensions: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((num, dimensions))


def _sobol(num: int, dimensions: int, seed: int) -> np.ndarray:
    from scipy.stats import qmc  # a dependency of jax

    # A power of two, as the sequence is balanced then; the first `num` points are used.
    sequence = qmc.Sobol(max(dimensions, 1), rng=seed)
    points = sequence.random_base2(math.ceil(math.log2(num)))
    return points[:num, :dimensions]


def _column(value: Any, num: int) -> np.ndarray:
    column = np.asarray(value)
    return np.broadcast_to(column, (num,)) if not column.ndim else column


def _columns(values: Mapping[str, Any], num: int) -> dict[str, np.ndarray]:
    return {name: _column(value, num) for name, value in values.items()}
