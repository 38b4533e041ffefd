"""The names of estimators, and their facts.

    leave_one_out                       a row of the table of facts
    dapo                                a preset of `switches`
    dapo:kl=k2+kl_place=loss            that with other switches
    sequence:baseline=mean+scale=batch  switches alone; the others have their defaults
    selected:leave_one_out+state_value  one of several at each update (`selection`)
    selected:gae:0.9+0.95+1.0           one of several λ
    q_prop:eta=adaptive                 Q-Prop with its switches (`q_prop_switches`)

A comma separates the values of a search. It imports no jax.
"""

from dataclasses import fields, replace
from typing import Any, get_args

from pg.estimators.candidates import (
    SELECTED,
    SELECTED_FORM,
    candidates_of,
    facts_of_selection,
    reference_of,
    reference_of_selection,
)
from pg.estimators.facts import FACTS, UNSTATED, Facts, listed_name
from pg.estimators.q_prop_switches import Q_PROP, is_q_prop, q_prop_of
from pg.estimators.switches import PRESETS, PUBLISHED, Switches, preset_name
from pg.estimators.switches import facts_of as facts_of_switches
from pg.estimators.variants import VARIANTS, described
from pg.inputs import check_name, shown

SEQUENCE = "sequence"
"""The name of the default switches."""

FORM = f"{SEQUENCE}:SWITCH=VALUE+..."
"""The form of a name with switches in help and messages."""

SWITCHES = "; ".join(
    f"{field.name}: {', '.join(get_args(field.type) or ('true', 'false'))}"
    for field in fields(Switches)
)
"""The switches and their values, as help lists them."""

NAMES = (*FACTS, *(name for name in PRESETS if name not in FACTS), SEQUENCE)
"""The estimators that have a name without switches."""


def check_estimator(field: str, text: Any, *others: str, variants: bool = False) -> None:
    """Raises ValueError, with the nearest valid names, unless a text is the name of an estimator.

    Args:
        field: the setting whose value the name is.
        text: the name.
        others: other valid values, for the message.
        variants: True where the name may be that of a variant.
    """
    is_variant = isinstance(text, str) and text in VARIANTS
    if is_variant and not variants:
        raise ValueError(
            f"{field}: {text!r} stands for {described(text)}, which pg.preset({text!r}) and pg "
            f"train --estimator {text} set; name the estimator alone here"
        )
    if is_variant:
        return
    if is_selection(text):
        facts_of_selection_by_name(text)
    elif is_q_prop(text):
        q_prop_of(text)
    elif not isinstance(text, str) or ":" not in text:
        # those of a form have a colon, and are not names
        known = [*NAMES, *(VARIANTS if variants else ()), FORM, SELECTED_FORM, *others]
        check_name(field, text, known, "pg train --help lists them")
    else:
        switches_of(text)


def check_exact(field: str, text: str) -> None:
    """Raises ValueError as `check_estimator` does, and for a selection whose exact moments cannot
    be summed: if candidates compare episodes, its halves have two episodes each, and there are too
    many batches of four.
    """
    check_estimator(field, text)
    if not is_selection(text):
        return
    candidates = candidates_of(text)
    if any(facts_of(each.estimator).depends_on_batch for each in candidates):
        names = dict.fromkeys(each.estimator for each in candidates)
        raise ValueError(
            f"{field}={text!r} compares halves of at least two episodes, and exact figures are of "
            "batches of one or two: given the past it is one of its candidates, so give "
            f"{' or '.join(names)}"
        )


def check_on_tables(name: str, facts: Facts) -> None:
    """Raises ValueError for the facts of an estimator for continuous actions only, which no tabular
    problem has.
    """
    if not facts.takes("discrete"):
        raise ValueError(
            f"estimator {name!r} is for continuous actions alone, and exact figures are of tabular "
            "problems, whose actions are discrete"
        )


def is_known(text: str) -> bool:
    """True for the name of an estimator."""
    return text in FACTS or is_sequence(text) or is_selection(text) or is_q_prop(text)


def is_selection(text: Any) -> bool:
    """True for the name of an estimator that is selected during training."""
    return isinstance(text, str) and text.partition(":")[0] == SELECTED


def candidate_names(estimator: Any) -> tuple[str, ...]:
    """The names of the candidates of an estimator that is selected during training, in the order of
    their numbers; () for any other.
    """
    if is_selection(estimator):
        return tuple(candidate.label for candidate in candidates_of(estimator))
    return tuple(getattr(estimator, "candidates", ()))


def facts_of_selection_by_name(text: str) -> Facts:
    """The facts of an estimator's name that `is_selection`.

    Raises ValueError as `candidates_of` does, and for candidates that do not go together.
    """
    candidates = candidates_of(text)
    rows = {candidate.label: facts_of(candidate.estimator) for candidate in candidates}
    if len(rows) < len(candidates):
        raise ValueError(f"estimator {text!r} lists a candidate twice: leave one out")
    facts = facts_of_selection(rows)
    reference_of_selection(rows, reference_of(candidates))
    return facts


def is_sequence(text: str) -> bool:
    """True for a preset of the switches, or switches that are written out; False for a row of the
    table of facts.
    """
    return text not in FACTS and text.partition(":")[0] in (*PRESETS, SEQUENCE)


def switches_of(text: str) -> Switches:
    """The switches of an estimator's name that `is_sequence`.

    Raises ValueError, with the nearest valid names, for an unknown preset, switch or value, for one
    that is given twice or left empty, and for incompatible switches.
    """
    name, colon, choices = text.partition(":")
    if name in FACTS and name not in PRESETS:
        raise ValueError(
            f"estimator {name!r} has no switches: leave out what follows the colon, or give {FORM}"
        )
    check_name("estimator with switches", name, [*PRESETS, SEQUENCE, SELECTED, Q_PROP])
    chosen: dict[str, Any] = {}
    for word in choices.split("+") if colon else ():
        switch, value = _choice(text, word)
        if switch in chosen:
            raise ValueError(f"estimator {text!r}: the switch {switch} is given twice, not once")
        chosen[switch] = value
    return replace(_base(name), **chosen)


def canonical(text: Any) -> Any:
    """The canonical name of an estimator with switches: that of a preset, or the given base and the
    differences from it, in the order of the fields of `Switches`. Anything else is returned
    unchanged.

    Raises ValueError as `switches_of` does.
    """
    if is_selection(text):
        return _canonical_selection(text)
    if is_q_prop(text):
        return q_prop_of(text).name
    if not isinstance(text, str) or not is_sequence(text) or ":" not in text:
        return text
    name = text.partition(":")[0]
    switches = switches_of(text)
    known = SEQUENCE if switches == Switches() else preset_name(switches)
    if known is not None:
        return known
    base = vars(_base(name))
    differing = [
        f"{switch}={str(value).lower()}"
        for switch, value in vars(switches).items()
        if value != base[switch]
    ]
    return f"{name}:{'+'.join(differing)}"


def _canonical_selection(text: str) -> str:
    """The canonical name of a selection: no spaces, and each λ in Python's format."""
    candidates = candidates_of(text)
    if candidates[0].gae_lambda is None:
        return f"{SELECTED}:{'+'.join(candidate.estimator for candidate in candidates)}"
    values = "+".join(str(candidate.gae_lambda) for candidate in candidates)
    return f"{SELECTED}:{candidates[0].estimator}:{values}"


def _base(name: str) -> Switches:
    """The switches of a name without any."""
    return Switches() if name == SEQUENCE else PRESETS[name]


def facts_of(estimator: Any) -> Facts:
    """The facts of an estimator: its row of the table, those derived from its switches, or those
    declared with `pg.with_facts`.
    """
    if is_selection(estimator):
        return facts_of_selection_by_name(estimator)
    if is_q_prop(estimator):
        return q_prop_of(estimator).facts
    if isinstance(estimator, str):
        return _facts_of_sequence(estimator) if is_sequence(estimator) else FACTS[estimator]
    listed = listed_name(estimator)
    if listed is not None:
        return FACTS[listed]
    stated = getattr(estimator, "facts", None)
    return stated if isinstance(stated, Facts) else UNSTATED


def _facts_of_sequence(text: str) -> Facts:
    """The facts of an estimator that `is_sequence`; with other switches a preset keeps its
    settings.
    """
    facts = facts_of_switches(switches_of(text))
    published = PUBLISHED.get(text.partition(":")[0], {})
    return replace(facts, settings={**facts.settings, **published})


def _choice(text: str, word: str) -> tuple[str, Any]:
    """The switch and its value of SWITCH=VALUE."""
    name, equals, value = word.partition("=")
    if not word.strip():
        raise ValueError(
            f"estimator {text!r} has an empty switch: write {FORM}, and leave out a sign that "
            "stands alone"
        )
    if not equals:
        raise ValueError(f"estimator {text!r}: write {FORM}, got {shown(word)} for a switch")
    name = name.strip().replace("-", "_")
    kinds = {field.name: field.type for field in fields(Switches)}
    check_name("switch", name, kinds)
    if kinds[name] is not bool:
        check_name(name, value.strip(), get_args(kinds[name]))
        return name, value.strip()
    check_name(name, value.strip().lower(), ["true", "false"])
    return name, value.strip().lower() == "true"
