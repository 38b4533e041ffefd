"""Presets: the settings of `--estimator NAME` and `--env NAME`, which were measured to learn.

An estimator's settings in the table of facts, updated by those that `tuned` has for it on the
environment. They were selected with other seeds than the reported ones.
"""

from dataclasses import replace
from typing import Any

from pg.config import Config, Hyperparams
from pg.estimators.names import check_estimator
from pg.inputs import check_name
from pg.settings import own_files
from pg.settings.construction import AUTO
from pg.tuned import defaults


def preset(
    estimator: Any = "reinforce",
    *,
    task: str | None = None,
    settings_of: str | None = None,
    **changes: Any,
) -> tuple[Config, Hyperparams]:
    """The settings for an estimator on an environment.

    Args:
        estimator: its name, as in `estimators.names`, or that of a variant (see
            `estimators.variants`); or a custom one, as in `Config`, with the settings that its
            facts state.
        task: environment whose tuned settings are used; default: that of the settings.
        settings_of: the estimator or variant whose settings a custom one has; default: those that
            its facts state.
        changes: fields of Config or Hyperparams by name. `total_steps=N` stands for the
            `num_updates` that take this many environment steps (`Config.lasting`).

    Raises:
        ValueError: an estimator or a field is unknown, or a value is out of range.
    """
    if own_files.is_reference(estimator):
        estimator = own_files.load(estimator)
    is_own = callable(estimator)
    if not is_own:
        check_estimator("estimator", estimator, variants=True)
    if settings_of is not None:
        check_estimator("settings_of", settings_of, variants=True)
        if not is_own:
            raise ValueError("settings_of is for your own estimators: give one as estimator")
    env = changes.get("env")
    named = env is None or isinstance(env, str)
    label = estimator if settings_of is None else settings_of
    base = defaults(label, task if task and named else env, changes.get("minibatch_size"))
    if settings_of is not None:
        base["estimator"] = estimator
    static, traced = Config.__dataclass_fields__, Hyperparams._fields
    for name in changes:
        known = [*static, *traced, "total_steps"]
        check_name("setting", name, known, "help(pg.Config) and help(pg.Hyperparams) list them")
    if "total_steps" in changes and "num_updates" in changes:
        raise ValueError("total_steps and num_updates are mutually exclusive: give one of them")
    total_steps = changes.pop("total_steps", None)
    values = {**base, **changes, "preset": None}
    config = Config(**{name: value for name, value in values.items() if name in static})
    if total_steps is not None:
        config = config.lasting(total_steps)
    traced_values = {name: value for name, value in values.items() if name not in static}
    is_of_facts = is_own and settings_of is None
    return replace(config, preset=AUTO if is_of_facts else label), Hyperparams(**traced_values)
