"""Search spaces: configurations as every combination of some values, or drawn from ranges.

A space is a sequence of values, or a `Range`. Fields of Hyperparams go by their names; so do the
parameters of the environment, which the functions for Python take as `env_params={...}`. Nothing
here imports jax.
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
    """Numbers from low to high; log: uniform in the exponent, as step sizes and other scales are
    searched.
    """

    low: float
    high: float
    log: bool = True

    def at(self, unit: np.ndarray) -> np.ndarray:
        """The numbers at `unit` in [0, 1)."""
        if self.log:
            return self.low * (self.high / self.low) ** unit
        return self.low + (self.high - self.low) * unit


def grid(base: Hyperparams | None = None, /, **spaces: Any) -> Hyperparams:
    """Every combination of the values, leaves [G]; the first name varies slowest.

    base: what the fields are that have no values here. Raises ValueError for an unknown field or a
    bad value.
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
    """`num` configurations of a scrambled Sobol' sequence in the spaces, leaves [num]: more even
    than random draws.

    Powers of two are the most even.
    """
    return hyperparams_of(_given(base), draws("sobol", num, _flat(spaces), seed))


def _given(base: Hyperparams | None) -> Hyperparams:
    """The fields without values of their own. Raises ValueError for another kind of thing."""
    if base is None:
        return Hyperparams()
    check_is_hyperparams(base)
    return base


def combinations(spaces: Mapping[str, Space]) -> Table:
    """Every combination of the values. Raises ValueError for a range, which has no end of
    values.
    """
    for name, space in spaces.items():
        if isinstance(space, Range):
            raise ValueError(f"{name} is a range, and a grid needs values: NAME=V,V,V")
        if not len(space):
            raise ValueError(f"{name} has no values")
    rows = itertools.product(*spaces.values())
    return (
        {name: list(column) for name, column in zip(spaces, zip(*rows, strict=True), strict=True)}
        if spaces
        else {}
    )


def draws(method: str, num: int, spaces: Mapping[str, Space], seed: int) -> Table:
    """`num` configurations; of a sequence each value is as likely."""
    check_name("method", method, ("random", "sobol"))
    num = count("num", num)
    units = (
        _sobol(num, len(spaces), seed) if method == "sobol" else _uniform(num, len(spaces), seed)
    )
    return {
        name: _at(name, space, unit)
        for (name, space), unit in zip(spaces.items(), units.T, strict=True)
    }


def is_whole(name: str) -> bool:
    """True for a name whose values are whole numbers, also where a range is not."""
    return name in (*WHOLE_NUMBERS, "max_steps_in_episode")


def hyperparams_of(base: Hyperparams, table: Table) -> Hyperparams:
    """The configurations as leaves [G], every leaf; names that are no field are parameters of the
    environment.

    Raises ValueError for a value out of range.
    """
    num = len(next(iter(table.values()), [0]))
    fields = base.scalars()
    for i in range(num):
        check_hyperparams(
            Hyperparams(**{**fields, **{n: v[i] for n, v in table.items() if n in fields}})
        )
    own = {name: table.get(name, value) for name, value in fields.items()}
    env = {
        **base.env_params,
        **{name: values for name, values in table.items() if name not in fields},
    }
    for name, values in env.items():
        if not all(
            isinstance(x, int | float | np.number) and math.isfinite(x)
            for x in np.ravel(values).tolist()
        ):
            raise ValueError(f"{name} must be finite numbers, got {values!r}")
    return Hyperparams(
        **{n: _column(v, num) for n, v in own.items()}, env_params=_columns(env, num)
    )


def spaces_of(texts: Sequence[str]) -> dict[str, Space]:
    """The spaces of `NAME=V,V,V`, `NAME=LOW:HIGH` (log-uniform) and `NAME=LOW:HIGH:linear`.

    Raises ValueError for a text that is none of these, and for a value that is listed twice, also
    by two names of one estimator.
    """
    spaces: dict[str, Space] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.replace("-", "_")
        if not (name and equals and values):
            raise ValueError(f"{text} is neither NAME=V,V,V nor NAME=LOW:HIGH")
        if name in spaces:
            raise ValueError(f"{name} is given twice")
        is_range = ":" in values and name not in PARTS  # of which FILE.py:NAME may be one
        spaces[name] = _range(name, values) if is_range else _values(name, values)
    return spaces


def table_of(texts: Sequence[str], method: str = "auto", num: int = 16, seed: int = 0) -> Table:
    """The configurations of a command line.

    method: auto is a grid, or sobol where a space is a range.
    """
    spaces = spaces_of(texts)
    if method == "auto":
        method = "sobol" if any(isinstance(space, Range) for space in spaces.values()) else "grid"
    return combinations(spaces) if method == "grid" else draws(method, num, spaces, seed)


def presets(table: Table, config: Config, given: Collection[str] | None) -> Table:
    """The settings of each configuration that the preset of its estimator on its environment has,
    [G] of each name: where one of the two is varied, and as far as they are not those of `config`.

    Args:
        table: The configurations.
        config: What is not varied.
        given: Names of the settings that hold for all configurations; None: all of them do.

    Raises:
        ValueError: There is no such estimator, or a file that is named for one cannot be loaded.
    """
    if given is None or not {"estimator", "env"} & set(table):
        return {}
    cut = config.minibatch_size if "minibatch_size" in given else None
    base = {"estimator": config.estimator, "env": config.env, "minibatch_size": cut}
    num = len(next(iter(table.values())))
    columns = {name: table.get(name, [value] * num) for name, value in base.items()}
    rows = [
        defaults(_loaded(estimator), env, minibatch_size)
        for estimator, env, minibatch_size in zip(*columns.values(), strict=True)
    ]
    usual = defaults(config.estimator, config.env, cut)
    plain = {**vars(Config(preset=None)), **Hyperparams().scalars()}
    found = {}
    for name in dict.fromkeys(name for row in [usual, *rows] for name in row):
        values = [row.get(name, plain.get(name)) for row in rows]
        is_free = name in plain and name not in {*base, *given, *table}
        if is_free and any(value != usual.get(name, plain[name]) for value in values):
            found[name] = values
    return found


def _loaded(estimator: Any) -> Any:
    """The estimator, or the function that FILE.py:NAME stands for."""
    if own_files.is_reference(estimator):
        return own_files.load(estimator)
    if isinstance(estimator, str):
        check_estimator("estimator", estimator, own_files.FORM)
    return estimator


def lasting(table: Table, config: Config, total_steps: int, presets: Table | None = None) -> Table:
    """The table with the `num_updates` of every configuration, where what is varied changes the
    steps of an update.

    presets: further settings of each configuration, as of `presets`.

    Raises ValueError where `num_updates` is itself varied.
    """
    if "num_updates" in table:
        raise ValueError(
            "total_steps and num_updates exclude each other: vary num_updates, or leave it out"
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
    """The values of V,V,V, estimators by their one name. Raises ValueError for one that is there
    twice.
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

    # Drawn to the next power of two, of which the first are taken.
    return qmc.Sobol(max(dimensions, 1), rng=seed).random_base2(math.ceil(math.log2(num)))[
        :num, :dimensions
    ]


def _column(value: Any, num: int) -> np.ndarray:
    column = np.asarray(value)
    return np.broadcast_to(column, (num,)) if not column.ndim else column


def _columns(values: Mapping[str, Any], num: int) -> dict[str, np.ndarray]:
    return {name: _column(value, num) for name, value in values.items()}
