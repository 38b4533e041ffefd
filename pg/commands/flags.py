"""Flags of a command line: one for each field of a class of settings, in titled groups."""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import math
import textwrap
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import tyro

from pg.config import (
    ENVIRONMENTS,
    LIBRARIES,
    PARTS,
    SEQUENCES,
    UNSUPPORTED,
    WHOLE_NUMBERS,
    part_name,
)
from pg.estimators.candidates import SELECTED
from pg.estimators.names import NAMES, SEQUENCE, SWITCHES
from pg.estimators.variants import VARIANTS
from pg.runs import sources
from pg.settings import own_files
from pg.settings.choices import CHOICES
from pg.settings.stored_params import FIELDS as STORED

__all__ = [
    "GROUPS",
    "REQUIRED",
    "Flag",
    "as_word",
    "assignment",
    "field_docstrings",
    "flags_of",
    "grouped",
    "hints_of",
    "types_of",
    "ungrouped",
    "values_of",
]

# The flags in the order of the help, by the title of their group; the experiment itself first.
GROUPS: dict[str, tuple[str, ...]] = {
    "experiment": (
        "env",
        "env_params",
        "estimator",
        "settings_of",
        "over",
        "method",
        "trials",
        "search_seed",
        "eta",
        "rungs",
        "trials_at_once",
        "seeds",
        "seed",
        "fresh_seeds",
        "num_updates",
        "total_steps",
        "config",
        "print_config",
    ),
    "collecting": (
        "collect",
        "num_envs",
        "num_steps",
        "group_size",
        "num_branches",
        "branch_every",
        "micro_batches",
        "horizon",
        "action_repeat",
        "observe",
        "critic_observe",
        "action_mask",
        "policy_lag",
        "lag_mixture",
        "sampling",
        "sample_env",
        "exploration",
        "parameter_std",
    ),
    "estimator": (
        "gamma",
        "gae_lambda",
        "n_step",
        "beta",
        "baseline",
        "baseline_decay",
        "value_coef",
        "advantages",
        "undiscounted_state_weighting",
        "entropy_coef",
        "temperature",
        "entropy_schedule",
        "num_epochs",
        "num_minibatches",
        "minibatch_size",
        "epsilon",
        "epsilon_high",
        "ratio_bound",
        "gate_rising",
        "gate_falling",
        "kl_coef",
        "kl_target",
        "kl_gain",
        "advantage_scale",
        "value_epsilon",
        "epsilon_schedule",
        "stop_kl",
    ),
    "optimizer": (
        "optimizer",
        "learning_rate",
        "schedule",
        "max_grad_norm",
        "adam_epsilon",
        "critic_optimizer",
        "critic_rate",
        "damping",
        "max_kl",
        "momentum",
        "snapshot_period",
        "restart_probability",
        "on_nonfinite",
    ),
    "network": (
        "policy",
        "critic",
        "init_from",
        "reference",
        "network",
        "hidden_sizes",
        "critic_hidden_sizes",
        "conv",
        "activation",
        "layer_norm",
        "residual",
        "initialiser",
        "rnn",
        "rnn_size",
        "rnn_window",
        "rnn_heads",
        "shared_torso",
        "image_layout",
        "action_distribution",
        "state_dependent_std",
        "initial_std",
        "action_critic",
        "action_critic_units",
        "action_samples",
    ),
    "normalisation": ("normalise_observations", "scale_observations", "scale_rewards"),
    "evaluation": (
        "eval_episodes",
        "greedy",
        "eval_every",
        "eval_minutes",
        "stop_at_return",
        "film",
        "diagnostics",
    ),
    "run folder": (
        "name",
        "out",
        "resume",
        "log",
        "strict",
        "allow_changed_code",
        "verbose",
        "checkpoint_minutes",
        "checkpoint_updates",
        "checkpoints_kept",
    ),
    "machine": (
        "shard",
        "cpu_devices",
        "width",
        "memory_limit",
        "exact",
        "distributed",
        "coordinator",
        "num_processes",
        "process_id",
        "matmul_precision",
        "debug",
    ),
}


REQUIRED = dataclasses.MISSING  # instead of a default


class Flag(NamedTuple):
    """A flag of the command line, for one field."""

    annotation: Any
    default: Any


def flags_of(source: type, defaults: Any, taken: Collection[str] = ()) -> dict[str, Flag]:
    """The flags of the fields of a class, by name.

    Args:
        source: A dataclass or a NamedTuple whose fields have docstrings below them.
        defaults: An object whose attributes are the defaults of the flags; fields that it lacks
            must be given.
        taken: Names of fields that are not flags.
    """
    helps = field_docstrings(source)
    flags = {}
    for name, hint in hints_of(source).items():
        if name in taken:
            continue
        default = getattr(defaults, name, REQUIRED)
        annotation = _annotation(source.__name__, name, hint, helps.get(name, ""), default)
        flags[name] = Flag(annotation, default)
    return flags


def hints_of(source: type) -> dict[str, Any]:
    """The annotations of the fields of a class that are flags, by name."""
    hints = get_type_hints(source, include_extras=True)
    return {name: hint for name, hint in hints.items() if (source.__name__, name) not in _HIDDEN}


def types_of(source: type) -> dict[str, Any]:
    """The types of the flags of a class, by name."""
    return {name: _type_of(source.__name__, name, hint) for name, hint in hints_of(source).items()}


def _annotation(source: str, name: str, hint: Any, text: str, default: Any) -> Any:
    """The type of a field as the parser reads it, with the help of the flag."""
    text = " ".join(text.split())
    if (source, name) in _CHOICES:
        text = f"{text} One of {_CHOICES[source, name]}."
    flag = tyro.conf.arg(
        name=name.strip("_").replace("_", "-"),
        help=text,
        metavar=_METAVARS.get(hint),
        # the parser would show an empty tuple as an empty string, and None as Python writes it
        help_behavior_hint="(default: none)" if default is None or default == () else None,
    )
    return Annotated[_type_of(source, name, hint), flag]


# Instead of the parser's {None}|PATH: "none" is a path and a text too.
_METAVARS: dict[Any, str] = {
    Path | None: "PATH",
    str | None: "STR",
    float | None: "FLOAT|none",
    tuple[int, ...] | None: "INT [INT ...]|none",
}


def _type_of(source: str, name: str, hint: Any) -> Any:
    """The annotation of a field, with whole numbers that may be written as 1e6."""
    if (source, name) in _TYPES:
        return _TYPES[source, name]
    if name in PARTS and hint == str | None:
        return _PART
    if hint is int or name in WHOLE_NUMBERS:
        return _INTEGER
    if hint == int | None:
        return _OPTIONAL_INTEGER
    return float if hint is Any else hint


def grouped(flags: Mapping[str, Flag]) -> type:
    """A dataclass of dataclasses, one for each group of flags as the help shows them."""
    titles = {name: title for title, names in GROUPS.items() for name in names}
    groups: dict[str, list[str]] = {title: [] for title in GROUPS}
    in_order = [name for name in titles if name in flags]
    for name in [*in_order, *(name for name in flags if name not in titles)]:
        groups.setdefault(titles.get(name, "further"), []).append(name)
    fields = []
    for title, names in groups.items():
        if names:
            group: Any = _dataclass(title, {name: flags[name] for name in names})
            named = Annotated[group, tyro.conf.arg(name=title), tyro.conf.OmitArgPrefixes]
            fields.append((title.replace(" ", "_"), named))
    return _documented_as_nothing(dataclasses.make_dataclass("Flags", fields))


def ungrouped(flags: Mapping[str, Flag]) -> type:
    """A dataclass of all flags, for a command that has few."""
    return _dataclass("Flags", flags)


def _dataclass(name: str, flags: Mapping[str, Flag]) -> type:
    """A dataclass with a field for each flag; those without a default come first."""
    members: list[Any] = []
    for field, flag in sorted(flags.items(), key=lambda item: item[1].default is not REQUIRED):
        if flag.default is REQUIRED:
            members.append((field, flag.annotation))
        else:
            members.append((field, flag.annotation, dataclasses.field(default=flag.default)))
    return _documented_as_nothing(dataclasses.make_dataclass(name.replace(" ", "_"), members))


def _documented_as_nothing(kind: type) -> type:
    """The class without the docstring that dataclasses generate, which the help would show."""
    kind.__doc__ = ""
    return kind


def values_of(
    source: type, values: Mapping[str, Any], taken: Collection[str] = ()
) -> dict[str, Any]:
    """The values that are fields of `source`, and not in `taken`."""
    hidden = {name for kind, name in _HIDDEN if kind == source.__name__}
    names = set(inspect.signature(source).parameters) - hidden - set(taken)
    return {name: value for name, value in values.items() if name in names}


def field_docstrings(source: type) -> dict[str, str]:
    """The string below each annotated field of a class; {} for a class without a file."""
    classes = [kind for kind in reversed(source.__mro__) if inspect.get_annotations(kind)]
    try:
        sources = [textwrap.dedent(inspect.getsource(kind)) for kind in classes]
    except OSError:
        return {}
    bodies = [ast.parse(text).body[0].body for text in sources]  # type: ignore[attr-defined]
    return {
        field.target.id: str(doc.value.value)
        for body in bodies
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
    }


def assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a number, tuple or string, by the form of the value. Raises
    ValueError.
    """
    name, value = _divided(text)
    with contextlib.suppress(ValueError, SyntaxError):
        return name, ast.literal_eval(value)
    return name, value


def _whole(text: str) -> int:
    value = math.nan
    with contextlib.suppress(ValueError):
        value = float(text)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{text} is not a whole number")
    return int(value)


def _env_param(text: str) -> tuple[str, bool | float]:
    name, value = _divided(text)
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    number = float(value)
    return name, int(number) if number.is_integer() and "." not in value else number


def _divided(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text} is not NAME=VALUE")
    return name, value


def _primitive(convert: Callable[[str], Any], metavar: str, nargs: Any = 1) -> Any:
    many = nargs == "*"
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=nargs,
        metavar=metavar,
        instance_from_str=lambda texts: tuple(map(convert, texts)) if many else convert(texts[0]),
        is_instance=lambda value: isinstance(value, tuple) if many else isinstance(value, int),
        str_from_instance=lambda value: [f"{k}={v}" for k, v in value] if many else [str(value)],
    )


_INTEGER = Annotated[int, _primitive(_whole, "INT")]  # accepts 1e6
_INTEGER_OR_AUTO = Annotated[
    Any,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|auto",
        instance_from_str=lambda texts: texts[0] if texts[0] == "auto" else _whole(texts[0]),
        is_instance=lambda value: value == "auto" or isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
_OPTIONAL_INTEGER = Annotated[
    int | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|none",
        instance_from_str=lambda texts: None if texts[0].lower() == "none" else _whole(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: ["none" if value is None else str(value)],
    ),
]


def as_word(part: Any) -> str:
    """A part as written on the command line: FILE.py:NAME if it comes from a file."""
    if part is None or isinstance(part, str):
        return part or "none"
    return own_files.references({"": part}).get("", part_name(part))


# A name, or a file; a part that was given in Python is shown by its name.
_PART = Annotated[
    Any,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME|FILE.py:NAME",
        instance_from_str=lambda texts: None if texts[0].lower() == "none" else texts[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [as_word(value)],
    ),
]
# A placeholder for parameters, which are read once all flags are known.
_PARAMS = Annotated[
    Any,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=sources.FORM,
        instance_from_str=lambda texts: None if texts[0].lower() == "none" else texts[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: ["none" if value is None else str(value)],
    ),
]
# Fields that are parsed by another type than their annotation.
_TYPES: dict[tuple[str, str], Any] = {
    **{("Config", name): _PARAMS for name in STORED},
    **{("Config", name): _PART for name in PARTS},
    ("Config", "micro_batches"): _INTEGER_OR_AUTO,
    ("Config", "env_params"): Annotated[tuple, _primitive(_env_param, "NAME=VALUE", "*")],
}
# Traced values, for sweeps in Python, and a label whose values are the flags' defaults.
_HIDDEN = {("Hyperparams", "env_params"), ("Config", "preset")}
# Names that the help lists for fields that are strings.
_CHOICES = {
    ("Config", "env"): ", ".join(name for name in ENVIRONMENTS if name not in UNSUPPORTED)
    + f"; {', '.join(SEQUENCES)}; or library:name, of {', '.join(LIBRARIES)}",
    ("Config", "estimator"): f"{', '.join(NAMES)}; or with switches, as "
    f"dapo:kl=k2+kl_place=loss or {SEQUENCE}:baseline=mean, of {SWITCHES}; or chosen while "
    f"training, as {SELECTED}:leave_one_out+state_value or {SELECTED}:gae:0.9+0.95+1.0; or "
    "Q-Prop with a factor, as q_prop:eta=adaptive, conservative or aggressive; or an estimator and "
    f"further settings by one name: {', '.join(VARIANTS)}",
    ("Config", "optimizer"): ", ".join(CHOICES["optimizer"]),
}
