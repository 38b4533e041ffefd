"""Ranges of the numbers in `Hyperparams`."""

import math
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from pg.inputs import COUNTABLE, EXAMPLE, LARGEST, assignments, shown

WHOLE_NUMBERS = ("n_step", "snapshot_period")  # of Hyperparams
BELOW_ONE = 1 - 2**-24  # closer numbers round to 1 in 32 bits
_FINITE = "finite (at most 3.4e38 in magnitude)"
_WHOLE = "a whole number of at least 1 and below 2^31"

RANGES: dict[str, tuple[float, float, str]] = {
    "learning_rate": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "gamma": (0.0, 1.0, "in [0, 1]"),
    "gae_lambda": (0.0, 1.0, "in [0, 1]"),
    "n_step": (1, COUNTABLE - 1, _WHOLE),
    "epsilon": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "value_epsilon": (0.0, math.inf, "at least 0 (inf: no clipping)"),
    "stop_kl": (0.0, math.inf, "at least 0 (inf: never)"),
    "epsilon_high": (0.0, math.inf, "at least 0 (inf: no bound)"),
    "ratio_bound": (1.0, math.inf, "at least 1 (inf: no bound)"),
    "advantage_scale": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "gate_rising": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "gate_falling": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "kl_coef": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "kl_target": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "kl_gain": (0.0, 1.0, "in [0, 1]"),
    "beta": (0.0, 1.0, "in [0, 1]"),
    "undiscounted_state_weighting": (0.0, 1.0, "in [0, 1]"),
    "entropy_coef": (-LARGEST, LARGEST, _FINITE),
    "temperature": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "value_coef": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "critic_rate": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "baseline": (-LARGEST, LARGEST, _FINITE),
    "baseline_decay": (0.0, BELOW_ONE, "in [0, 1), and not 1 in 32 bits"),
    "adam_epsilon": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "max_grad_norm": (sys.float_info.min, math.inf, "above 0 (inf: no clipping)"),
    "damping": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "max_kl": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "momentum": (0.0, 1.0, "in [0, 1]"),
    "snapshot_period": (1, COUNTABLE - 1, _WHOLE),
    "restart_probability": (0.0, 1.0, "in [0, 1]"),
}


def checked_scalars(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Hyperparams, after checking that each Python number is in its range. Integers
    become floats, except in fields that are counts, since jax's integers have 32 bits.

    The values of scalar arrays and tracers are not checked. Raises ValueError naming the field, the
    value and the allowed range.
    """
    checked = {name: _checked_scalar(name, scalars[name]) for name in RANGES}
    rates = checked["learning_rate"], checked["critic_rate"]
    are_numbers = all(isinstance(rate, Real) for rate in rates)
    if are_numbers and float(rates[0]) * float(rates[1]) > LARGEST:
        rates = scalars["learning_rate"], scalars["critic_rate"]
        raise ValueError(
            f"learning_rate × critic_rate must be {_FINITE}, got {rates[0]!r} × {rates[1]!r}"
        )
    return checked


def check_numbers(changes: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the field, for a value of a field of Hyperparams that is neither an
    array nor a number in its range.
    """
    for name, value in changes.items():
        if name in RANGES and not hasattr(value, "shape"):
            _checked_scalar(name, value)


def _checked_scalar(name: str, value: Any) -> Any:
    """The value, as a float unless the field is a count. Raises ValueError if out of range."""
    low, high, allowed = RANGES[name]
    if isinstance(value, Real) and not isinstance(value, bool):
        number: Any = value if isinstance(value, Integral) else float(value)
        # NaN is in no range
        inside = low <= number <= high and (number <= LARGEST or number == math.inf)
        if not inside or (name in WHOLE_NUMBERS and isinstance(number, float)):
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
        if name not in WHOLE_NUMBERS and isinstance(value, Integral):
            return float(value)
    elif not str(getattr(value, "dtype", "")).startswith(("float", "bfloat", "int", "uint")):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    elif value.shape != ():
        raise ValueError(
            f"{name} must be one number, got an array of shape {value.shape}: vmap over it"
        )
    return value


def check_env_params(env_params: Any) -> None:
    """Raises ValueError unless these are names with numbers in range; the values of arrays and
    tracers are not checked.
    """
    if not isinstance(env_params, Mapping):
        raise ValueError(
            f"env_params must be names with numbers, as in {EXAMPLE}; got {shown(env_params)}"
        )
    assignments({k: v for k, v in env_params.items() if not hasattr(v, "shape")})
