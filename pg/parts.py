"""Custom parts that replace those of a Config, and facts that are stated of them."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar, get_args

from pg.config import PARTS, Config, Hyperparams
from pg.estimators.facts import (
    OWN_HYPERPARAMS,
    UNSTATED,
    Actions,
    Baseline,
    Collect,
    Critic,
    Facts,
    Objective,
    Outcome,
)
from pg.inputs import check_kind, check_name, entries
from pg.settings import own_files
from pg.settings.construction import AUTO
from pg.settings.parts import check_part

__all__ = ["with_facts", "with_parts"]

_Factory = TypeVar("_Factory", bound=Callable[..., Any])

_CHOICES = {
    "unbiased_for": Objective,
    "critic": Critic,
    "outcome": Outcome,
    "baseline": Baseline,
}


def with_facts(**facts: Any) -> Callable[[_Factory], _Factory]:
    """A decorator that states facts of a custom estimator.

    They determine its preset (`settings`) and the checks of `Config`, and are the claims that `pg
    check` tests. Facts that are not stated are not checked, and nothing is claimed.

        @pg.with_facts(unbiased_for="J", collect=("episodes",), settings={"num_envs": 50})
        def clipped(policy, critic, h): ...

    Args:
        facts: fields of `pg.estimators.Facts` by name: `unbiased_for` ("J", "J_τ", "J_β" or "no"),
            `collect`, `critic` ("none", "V", "Q" or "hindsight"), `outcome` (of its hindsight
            distribution: "state" or "reward"), `actions` (of its Q), `baseline`,
            `several_steps`, `psi_depends_on_policy`, `settings` (fields of Config and Hyperparams)
            and others.

    Raises:
        ValueError: an unknown fact or setting, or an invalid value.
    """
    stated = _checked(facts)

    def state(factory: _Factory) -> _Factory:
        factory.facts = stated  # type: ignore[attr-defined]
        return factory

    return state


def with_parts(config: Config, **parts: Any) -> Config:
    """The config with these parts instead of its own; None: no change.

    The other settings, and the hyperparameters that go with them, do not change.

    Args:
        config: the settings.
        parts: by field of Config, a function or an object, or `FILE.py:NAME`.

    Raises:
        ValueError: an invalid part.
    """
    given = {name: part for name, part in parts.items() if part is not None}
    if not given:
        return config
    for name, part in given.items():
        check_name("part", name, PARTS)
        if not own_files.is_reference(part):
            check_part(name, part)
    label = config.preset
    if label == AUTO and isinstance(config.estimator, str):
        label = config.estimator
    return replace(config, **given, preset=label)


def _checked(facts: dict[str, Any]) -> Facts:
    """The facts, after checking their names and values."""
    for name in facts:
        check_name("fact", name, [field.name for field in fields(Facts)])
    for name, choices in _CHOICES.items():
        if name in facts:
            check_name(name, facts[name], get_args(choices))
    stated = dict(facts)
    if "collect" in facts:
        ways = entries(facts["collect"])
        stated["collect"] = (facts["collect"],) if ways is None else ways
        for way in stated["collect"]:
            check_name("collect", way, get_args(Collect))
    if "actions" in facts:
        kinds = entries(facts["actions"])
        stated["actions"] = (facts["actions"],) if kinds is None else kinds
        for kind in stated["actions"]:
            check_name("actions", kind, get_args(Actions))
    if "reads" in facts:
        names = entries(facts["reads"])
        stated["reads"] = (facts["reads"],) if names is None else names
        for name in stated["reads"]:
            check_name("reads", name, OWN_HYPERPARAMS)
    if "settings" in facts:
        check_kind("settings", facts["settings"], dict, "write settings={'num_envs': 50}")
        for name in facts["settings"]:
            known = [*Config.__dataclass_fields__, *Hyperparams().scalars()]
            check_name("setting", name, known, "help(pg.Config) lists them")
    return replace(UNSTATED, **stated)
