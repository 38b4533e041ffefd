"""Settings that were measured to learn, by estimator: what `--estimator NAME` alone gives.

Chosen on CartPole-v1 with seeds other than those that are reported.
"""

from typing import Any

from pg.config import ACCEPTS, Config, Hyperparams, check_name

PRESETS: dict[str, dict[str, Any]] = {
    "reinforce": {},
}


def preset(estimator: str = "reinforce", **changes: Any) -> tuple[Config, Hyperparams]:
    """The settings for an estimator, with fields of Config or Hyperparams changed by name.

    Raises ValueError for an unknown estimator or field, or a value out of range.
    """
    check_name("estimator", estimator, ACCEPTS)
    static, traced = Config.__dataclass_fields__, Hyperparams._fields
    values = {"estimator": estimator, **PRESETS.get(estimator, {}), **changes}
    for name in values:
        check_name("setting", name, [*static, *traced])
    config = Config(**{name: value for name, value in values.items() if name in static})
    return config, Hyperparams(**{name: value for name, value in values.items() if name not in static})
