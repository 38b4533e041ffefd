"""Combinations: an estimator with other settings for collecting its episodes and for its critic's
observations, under one name.

    state_value                                   under the settings of its preset
    state_value:sampling=sobol                    the action noise of a batch from Sobol' points
    state_value:sampling=sobol+sample_env=true    and the environment's
    vine_value:num_branches=2+branch_every=8      two extra episodes out of every eighth state
    trajectory_control_variate:sampling=array+num_episodes=64    and estimates of 64 episodes
    state_value:critic_observe=policy_and_time    a critic that also sees the time
    all_action:action_critic=network              and one of continuous actions of another kind

It imports no jax.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from pg.config import WITH_TIME, Config
from pg.estimators.facts import FACTS, Facts
from pg.estimators.names import canonical, check_estimator, facts_of
from pg.estimators.q_prop_switches import SWITCHES as Q_PROP_SWITCHES
from pg.estimators.q_prop_switches import is_q_prop
from pg.inputs import check_name
from pg.settings.choices import CHOICES

FIELDS = (
    "critic_observe",
    "action_critic",
    "sampling",
    "sample_env",
    "num_branches",
    "branch_every",
    "num_episodes",
)
CRITIC_VIEWS = ("policy", WITH_TIME)  # values of critic_observe, the default first
FORM = "ESTIMATOR:FIELD=VALUE+..."
BASES = (
    "state_value",
    "trajectory_control_variate",
    "pooled_trajectory_control_variate",
    "lookahead_control_variate",
    "gradient_control_variate",
    "vine_all_action",
)
"""Unbiased estimators of which a search tries combinations: a baseline, control variates of the
later actions, of the dynamics and of the whole gradient, and branches.
"""

# Values that a search tries of each field, where it has an effect.
TRIED: dict[str, tuple[Any, ...]] = {
    "critic_observe": CRITIC_VIEWS,
    "sampling": ("independent", "antithetic", "sobol", "array"),
    "num_episodes": (8, 32, 64),
    "branches": ((1, 4), (1, 16), (4, 16)),  # num_branches and branch_every
}


class Combination(NamedTuple):
    """An estimator and the settings under which it is measured."""

    estimator: Any  # its name, or its function
    settings: dict[str, Any]  # those of FIELDS that differ from its preset's

    @property
    def facts(self) -> Facts:
        """The facts of the estimator."""
        return facts_of(self.estimator)


def is_combination(text: Any) -> bool:
    """True for the name of an estimator of the table with settings after a colon, unless these are
    its own switches.
    """
    if not isinstance(text, str) or ":" not in text or text.partition(":")[0] not in FACTS:
        return False
    first = text.partition(":")[2].partition("=")[0].strip()
    return not (is_q_prop(text) and first in Q_PROP_SWITCHES)


def combination_of(estimator: Any) -> Combination:
    """The combination of a name, or of a function, which has no settings of its own.

    Raises:
        ValueError: there is no such field or value, or one is given twice.
    """
    if not is_combination(estimator):
        return Combination(estimator, {})
    name, _, words = estimator.partition(":")
    settings: dict[str, Any] = {}
    for word in words.split("+"):
        field, equals, value = word.partition("=")
        field = field.strip().replace("-", "_")
        if not equals:
            raise ValueError(f"{estimator!r}: write {FORM}, got {word!r} for a field")
        check_name("field of a combination", field, FIELDS)
        if field in settings:
            raise ValueError(f"{estimator!r}: {field} is given twice, not once")
        settings[field] = _value(field, value.strip())
    return Combination(name, settings)


def name_of(name: str, settings: dict[str, Any]) -> str:
    """The one name of a combination: its settings in the order of FIELDS.

    Independent sampling is left out, a quadratic critic, and one that sees what the policy sees.
    Numbers of branches are not left out, as their defaults differ from problem to problem.

    Args:
        name: of the estimator.
        settings: fields and values.
    """
    words = [
        f"{field}={_text(settings[field])}"
        for field in FIELDS
        if settings.get(field) not in (None, False, "independent", "policy", "quadratic")
    ]
    return f"{name}:{'+'.join(words)}" if words else name


def _text(value: Any) -> str:
    """The text of a value, as `_value` reads it."""
    return "true" if value is True else str(value)


def canonical_name(text: Any) -> Any:
    """The one name of a combination, or of an estimator with switches; else the argument."""
    if not is_combination(text):
        return canonical(text)
    found = combination_of(text)
    return name_of(found.estimator, found.settings)


def check(field: str, text: Any, *others: str) -> None:
    """Raises ValueError unless a text names an estimator or a combination. Arguments as in
    `check_estimator`.
    """
    if is_combination(text):
        found = combination_of(text)
        collection = {k: v for k, v in found.settings.items() if k != "num_episodes"}
        Config(estimator=found.estimator, collect="episodes", num_envs=8, **collection)
        return
    name, _, words = text.partition(":") if isinstance(text, str) else (text, "", "")
    if any(word.partition("=")[0].strip().replace("-", "_") in FIELDS for word in words.split("+")):
        check_name("estimator", name, FACTS)
    check_estimator(field, text, *others)


def searched(bases: tuple[str, ...] = BASES) -> list[str]:
    """The names of the combinations that a search tries, those of one estimator one after another.

    Samplings are tried with batches of two sizes; for estimators with branches the numbers of
    branches are tried instead.
    """
    return list(dict.fromkeys(name for base in bases for name in _searched_of(base)))


def _searched_of(base: str) -> Iterator[str]:
    facts = FACTS[base]
    views = TRIED["critic_observe"] if facts.critic != "none" else ("policy",)
    branches = TRIED["branches"] if facts.extra_rollout_kind == "branches" else [()]
    for view, noise, of in itertools.product(views, _noises_tried(facts), branches):
        settings = {"critic_observe": view, **noise}
        settings |= dict(zip(("num_branches", "branch_every"), of, strict=False))
        yield name_of(base, settings)


def _noises_tried(facts: Facts) -> Iterator[dict[str, Any]]:
    """The samplings and numbers of episodes that a search tries of an estimator."""
    more = TRIED["num_episodes"][1:]
    yield {}
    if facts.pools_episodes:  # else it is the mean of independent estimates
        yield from ({"num_episodes": number} for number in more)
    if facts.extra_rollout_kind == "branches" or facts.needs_independent_episodes:
        return  # their episodes must be independent
    for sampling in TRIED["sampling"][1:]:
        yield {"sampling": sampling}
        yield {"sampling": sampling, "num_episodes": more[-1]}
        if facts.extra_rollout_kind == "none" and sampling != "antithetic":
            of_env = {"sampling": sampling, "sample_env": True}
            yield from (of_env | {"num_episodes": number} for number in more)


def _value(field: str, text: str) -> Any:
    """The value of a field, from its text. Raises ValueError for an invalid one."""
    if field in ("action_critic", "sampling"):
        check_name(field, text, CHOICES[field])
        return text
    if field == "critic_observe":
        check_name("critic_observe", text, CRITIC_VIEWS)
        return text
    if field == "sample_env":
        check_name(field, text, ("true", "false"))
        return text == "true"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{field} must be a whole number of at least 1, got {text!r}")
    if field == "num_episodes" and int(text) % 2:
        raise ValueError(f"num_episodes must be even, got {text}")
    return int(text)
