"""The candidates of an estimator that is selected during training: those that its name lists, and
the facts derived from theirs.

    selected:leave_one_out+state_value   one of several estimators at each update
    selected:gae:0.9+0.95+1.0            one of several λ of an estimator

It imports no jax.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pg.estimators.facts import FACTS, Facts
from pg.estimators.switches import PRESETS
from pg.inputs import check_name, shown

SELECTED = "selected"
"""The prefix in the names of estimators that are selected during training."""

SELECTED_FORM = f"{SELECTED}:NAME+NAME+..."
"""The form of such a name in help and messages."""

WITH_LAMBDA = ("gae", "vtrace", "ppo")
"""The estimators of which candidates may be several λ."""


class Candidate(NamedTuple):
    """One of the estimators that a selection's name lists."""

    estimator: str
    gae_lambda: float | None = None  # None: that of the run

    @property
    def label(self) -> str:
        """Its name among the candidates, as `pg.estimators.with_hyperparams` gives it."""
        if self.gae_lambda is None:
            return self.estimator
        setting = "gae_lambda".removeprefix(f"{self.estimator}_")
        return f"{self.estimator}_{setting}_{self.gae_lambda}"


def candidates_of(text: str) -> tuple[Candidate, ...]:
    """The candidates listed in an estimator's name that `is_selection`.

    Raises ValueError, with the nearest valid names, for an unknown one, for switches, and for a λ
    that is not a number.
    """
    estimator, colon, values = text.partition(":")[2].partition(":")
    words = [word.strip() for word in (values if colon else estimator).split("+")]
    if not all(words):
        raise ValueError(
            f"estimator {text!r} has an empty candidate: write {SELECTED_FORM}, as in "
            f"{SELECTED}:leave_one_out+state_value, or {SELECTED}:gae:0.9+1.0"
        )
    if "=" in values:
        raise ValueError(
            f"estimator {text!r}: candidates have no switches: write {SELECTED_FORM}, each a name "
            "without a colon"
        )
    if colon:
        name = estimator.strip()
        check_name("estimator with λ", name, WITH_LAMBDA)
        return tuple(Candidate(name, _as_lambda(text, word)) for word in words)
    for word in words:
        check_name("candidate", word, dict.fromkeys([*FACTS, *PRESETS]))
    return tuple(Candidate(word) for word in words)


def reference_of(candidates: tuple[Candidate, ...]) -> str | None:
    """The label of the candidate with whose mean the others' are compared: the highest of several
    λ, which depends least on V; None: the first unbiased one.
    """
    if candidates[0].gae_lambda is None:
        return None
    return max(candidates, key=lambda candidate: candidate.gae_lambda or 0.0).label


def facts_of_selection(candidates: Mapping[str, Facts]) -> Facts:
    """The facts of an estimator that is one of several candidates at each update: what all of them
    guarantee, and whatever any of them needs.

    Args:
        candidates: Their facts, by name.

    Raises:
        ValueError: Fewer than two, or candidates that cannot share a critic, batches or extra
            rollouts.
    """
    rows = list(candidates.values())
    if len(rows) < 2:
        raise ValueError(f"there must be at least two candidates to select from, got {len(rows)}")
    for name, row in candidates.items():
        if row.with_reference:
            raise ValueError(
                f"candidate {name!r} has a reference policy for its state, which a selection does "
                "not hold: use it alone"
            )
        if row.critic == "hindsight":
            raise ValueError(
                f"candidate {name!r} learns a hindsight distribution of its own, and the critic of "
                "a selection is shared: use it alone"
            )
    collect = tuple(way for way in rows[0].collect if all(way in row.collect for row in rows))
    if not collect:
        names = ", ".join(candidates)
        raise ValueError(f"there is no way of collecting that all of {names} accept")
    critic = _shared("critic", candidates)
    extra_rollout_kind = _shared("extra_rollout_kind", candidates)
    actions = tuple(kind for kind in rows[0].actions if all(kind in row.actions for row in rows))
    objectives = {row.unbiased_for for row in rows}
    objective = objectives.pop() if len(objectives) == 1 else "no"
    grouped = any(row.baseline == "group" for row in rows)
    settings = rows[0].settings.items()
    return Facts(
        unbiased_for=objective,
        why="given the past, it is one of its candidates",
        collect=collect,
        critic=critic,
        actions=actions,
        # halves of the batch are compared
        baseline="group" if grouped else "batch",
        off_policy=all(row.off_policy for row in rows),
        several_steps=all(row.several_steps for row in rows),
        # standardisation is refused if it is for any of them
        regression=any(row.regression for row in rows),
        psi_depends_on_policy=any(row.psi_depends_on_policy for row in rows),
        extra_rollout_kind=extra_rollout_kind,
        starts=max(row.starts for row in rows),
        every_action=any(row.every_action for row in rows),
        reads=tuple(dict.fromkeys(name for row in rows for name in row.reads)),
        shrunk=objective == "no" and all(row.parallel for row in rows),
        settings={k: v for k, v in settings if all(row.settings.get(k) == v for row in rows)},
    )


def reference_of_selection(candidates: Mapping[str, Facts], reference: str | None) -> str:
    """The name of the candidate with whose mean the others' are compared.

    Args:
        candidates: Their facts, by name.
        reference: Its name; None: the first unbiased one.

    Raises:
        ValueError: No candidate has this name, or none is unbiased.
    """
    if reference is not None:
        check_name("reference", reference, candidates)
        return reference
    for name, row in candidates.items():
        if row.unbiased_for != "no":
            return name
    raise ValueError(
        f"none of the candidates {', '.join(candidates)} is unbiased, so that there is no mean to "
        "compare theirs with: add one that is, or in Python give a reference"
    )


def _shared(fact: str, candidates: Mapping[str, Facts]) -> Any:
    """The critic or the extra rollouts that candidates share; "none" if no candidate has any.

    Raises ValueError if two have different ones.
    """
    had = {getattr(row, fact): name for name, row in candidates.items()}
    had.pop("none", None)
    if len(had) > 1:
        (first, one), (second, other) = list(had.items())[:2]
        what = {"critic": "critic", "extra_rollout_kind": "extra rollouts"}[fact]
        raise ValueError(
            f"candidates share their {what}, and {one!r} has {first}, {other!r} {second}: leave "
            "one of them out"
        )
    return next(iter(had), "none")


def _as_lambda(text: str, word: str) -> float:
    """A λ. Raises ValueError for anything but a number from 0 to 1."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"estimator {text!r}: λ must be a number in [0, 1], got {shown(word)}")
    return value
