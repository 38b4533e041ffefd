"""Numbers as text: with the significant digits, and in one notation for related numbers.

Numbers may be NumPy or JAX scalars, which are not hashable or round differently: each is converted
to a float first.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

PLAIN = (1e-4, 1e6)  # smaller and larger numbers have an exponent


def number(x: float, digits: int = 4) -> str:
    """A number with that many significant digits, but all digits before the point: 12346, 0.0123,
    1.2e−7.
    """
    x = float(x)
    return _notation([x])(x, digits)


def numbers(values: Iterable[float], digits: int = 3) -> list[str]:
    """Numbers in one notation, all with an exponent or none.

    They have that many significant digits; at least five if all of them are exact with five, and
    more if needed to distinguish them: 0.9999 is not 1.
    """
    values = [float(x) for x in values]
    write = _notation(values)
    if digits < 5 and all(float(f"{x:.5g}") == x for x in values):
        digits = 5
    texts = [write(x, digits) for x in values]
    different = len({x for x in values if not math.isnan(x)}) + any(map(math.isnan, values))
    while len(set(texts)) < different and digits < 17:  # a float has no more
        digits += 1
        texts = [write(x, digits) for x in values]
    return texts


def labels(values: Sequence[Any]) -> list[str]:
    """Values of a setting for ticks and legends: numbers in one notation, others as they are."""
    written = iter(numbers([x for x in values if is_number(x)]))
    return [next(written) if is_number(x) else str(x) for x in values]


def is_number(value: Any) -> bool:
    """True for a finite number that is not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def plus_minus(value: float, error: float) -> str:
    """A value and its error, both rounded to the second significant digit of the error.

    They have a common exponent if the larger is very large or small: (0.0 ± 2.0)e6.
    """
    value, error = float(value), float(error)
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return " ± ".join(numbers([value, error]))
    largest = max(abs(value), error)
    exponent = 0 if PLAIN[0] <= largest < PLAIN[1] else math.floor(math.log10(largest))
    value, error = value / 10.0**exponent, error / 10.0**exponent
    # the power of ten of the last digit that is shown
    last = int(f"{error:.1e}".partition("e")[2]) - 1
    shown = [f"{round(x, -last):.{max(0, -last)}f}" for x in (value, error)]
    text = " ± ".join(map(_signed, shown))
    return f"({text})e{_signed(str(exponent))}" if exponent else text


def interval(value: float, low: float, high: float, digits: int = 4) -> str:
    """A value and its interval, in one notation: 12.3 [11.9, 12.8]."""
    middle, *ends = numbers([value, low, high], digits)
    return f"{middle} [{', '.join(ends)}]"


def fixed(x: float, like: float | None = None) -> str:
    """Three decimals below ten, else one, or as many as for `like`: the resolution of twenty
    seeds.
    """
    size = abs(float(x if like is None else like))
    return _signed(f"{float(x):z.3f}" if size < 9.9995 else f"{float(x):z.1f}")


def short(x: float, digits: int = 2) -> str:
    """A count of steps with at least this many digits and a unit: 830, 12k, 3.4M, ∞."""
    x = float(x)
    if not math.isfinite(x):
        return _special(x)
    size, unit = next(
        ((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if x >= s), (1.0, "")
    )
    return (f"{x / size:.{digits}g}" if x < 10**digits * size else f"{x / size:.0f}") + unit


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 seed, 20 seeds, 1,000 steps.

    plural: if it is irregular.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def agreeing(number: int, singular: str, plural: str) -> str:
    """The form of a verb that agrees with a number: 1 of 5 updates was skipped."""
    return singular if number == 1 else plural


def times(x: float) -> str:
    """A multiple, with two decimals below ten and none above: 0.83×, 12×; "never" for infinity."""
    return "never" if math.isinf(x) else f"{x:.2f}×" if x < 10 else f"{x:.0f}×"


def typed(text: str) -> str:
    """Text with hyphens as minus signs, so that numbers can be copied from a terminal."""
    return text.replace("−", "-")


def _notation(values: Sequence[float]) -> Callable[[float, int], str]:
    """(number, digits) -> text, in a common notation for all the values."""
    sizes = [abs(x) for x in values if math.isfinite(x) and x != 0]
    plain = all(PLAIN[0] <= size < PLAIN[1] for size in sizes)
    return _written_out if plain else _with_exponent


def _written_out(x: float, digits: int) -> str:
    if not math.isfinite(x) or x == 0:
        return _special(x)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    text = f"{x:.{decimals}f}"
    return _signed(text.rstrip("0").rstrip(".") if decimals else text)


def _with_exponent(x: float, digits: int) -> str:
    if not math.isfinite(x) or x == 0:
        return _special(x)
    mantissa, _, exponent = f"{x:.{digits - 1}e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return _signed(f"{mantissa}e{int(exponent)}")


def _special(x: float) -> str:
    """Zero and non-finite numbers; a dash for NaN."""
    if math.isnan(x):
        return "—"
    return "0" if x == 0 else _signed("∞" if x > 0 else "-∞")


def _signed(text: str) -> str:
    """With a typographic minus sign, and none before zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", "−")
