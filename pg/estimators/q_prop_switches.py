"""The switches of Q-Prop: the factor η of its control variate, the resulting facts and names.

    q_prop:eta=adaptive
    q_prop:eta=conservative+covariance=step

It imports no jax.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from pg.estimators.facts import FACTS, Facts
from pg.inputs import check_name, shown

Eta = Literal["one", "adaptive", "conservative", "aggressive"]
Covariance = Literal["others", "step"]

Q_PROP = "q_prop"
FORM = f"{Q_PROP}:eta=VALUE+covariance=VALUE"


@dataclass(frozen=True, kw_only=True)
class QProp:
    """The choices of Q-Prop's factor η (Gu et al. 2017, 1611.02247, section 3.2)."""

    eta: Eta = "one"
    """Factor of the control variate: 1; the covariance of it and the advantage over its variance
    (adaptive); 1 where that is positive, else 0 (conservative); or its sign (aggressive).
    """
    covariance: Covariance = "others"
    """Steps from which the covariance is estimated: all steps of the other episodes of the batch,
    or only the step itself, as published (biased).
    """

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown or meaningless value."""
        check_name("eta", self.eta, get_args(Eta))
        check_name("covariance", self.covariance, get_args(Covariance))
        if self.eta == "one" and self.covariance != "others":
            raise ValueError(
                f"covariance={self.covariance!r} is of a factor that is estimated, and eta='one' "
                "is none: give another eta, or leave it out"
            )

    @property
    def name(self) -> str:
        """The canonical name of the estimator."""
        if self.eta == "one":
            return Q_PROP
        name = f"{Q_PROP}:eta={self.eta}"
        return name if self.covariance == "others" else f"{name}+covariance={self.covariance}"

    @property
    def facts(self) -> Facts:
        """The facts of the estimator."""
        row = FACTS[Q_PROP]
        if self.eta == "one":
            return row
        psi = "γᵗ (Gₜ - Q(sₜ, μ) - η ∂Q/∂aᵀ(aₜ - μ)), and γᵗ η ∂Q(sₜ, a)/∂a at a = μ(sₜ), by ∇μ"
        source = "Q-Prop; Gu et al. 2017, 1611.02247, section 3.2"
        row = replace(row, psi=psi, source=source)
        if self.covariance == "step":
            why = "η depends on the action that was taken"
            return replace(row, unbiased_for="no", why=why)
        why = "for any Q fitted to earlier batches; η is from the other episodes"
        return replace(row, why=why, baseline="batch")


SWITCHES = tuple(field.name for field in fields(QProp))


def is_q_prop(text: Any) -> bool:
    """True for the name of Q-Prop with switches."""
    return isinstance(text, str) and ":" in text and text.partition(":")[0].strip() == Q_PROP


def q_prop_of(text: str) -> QProp:
    """The switches of an estimator's name that `is_q_prop`.

    Raises ValueError, with the nearest valid names, for an unknown switch or value, and for one
    that is given twice or left empty.
    """
    chosen: dict[str, Any] = {}
    for word in text.partition(":")[2].split("+"):
        switch, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise ValueError(f"estimator {text!r}: write {FORM}, got {shown(word)} for a switch")
        check_name(f"switch of {Q_PROP}", switch, SWITCHES)
        if switch in chosen:
            raise ValueError(f"estimator {text!r}: the switch {switch} is given twice, not once")
        chosen[switch] = value
    return QProp(**chosen)
