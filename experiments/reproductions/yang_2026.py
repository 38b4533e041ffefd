"""Dividing by a group's standard deviation weights prompts by their difficulty; subtracting its
mean does not, although the advantages in groups with mixed rewards are biased.

Liu et al. 2025, 2503.20783 (Dr. GRPO), and Yang et al. 2026, 2601.08521. Measured on prompts that
are answered right with probability p: the exact weight of ∇p in the mean of each estimate, and the
mean advantage in groups with mixed rewards. Twenty seconds on one core.
"""

import dataclasses

import numpy as np
import reporting
from reporting import GREY, Line, Panel

from pg.reports.plots import BLUE, GREEN, ORANGE

HARD, EVEN = 0.05, 0.5  # probabilities of a right answer
SMALL, LARGE = (2, 3), (4, 8)  # sizes of groups
CENTRED = {"baseline": "mean"}
SCALED = {"baseline": "mean", "scale": "group"}


@dataclasses.dataclass
class Options(reporting.Files):
    """The difficulties in the figure."""

    points: int = 19
    """Probabilities of a right answer, between 0 and 1."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.at_least(3, points=self.points)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    import trees

    jax.config.update("jax_enable_x64", True)
    report = reporting.Report(
        "yang_2026",
        "Liu et al. 2025, 2503.20783 (Dr. GRPO), and Yang et al. 2026, 2601.08521; claims in our "
        "words",
        given,
    )

    def against_even(switches: dict[str, str], size: int, p: float = HARD) -> float:
        """The weight of ∇p for a prompt, divided by that for a prompt with p = 1/2."""
        own, even = trees.difficulty_weights(switches, (p, EVEN), size)
        return float(own / even)

    report.claim(
        "2503.20783, section 3.1: dividing by the standard deviation gives more weight to "
        "questions that are too hard or too easy",
        f"the weight of ∇p in the mean at p = {HARD:g}, divided by that at 1/2; equal weights: 1",
    )
    for size in LARGE:
        report.figure(f"divided, G = {size}", against_even(SCALED, size), at_least=1.01)
    easy = against_even(SCALED, LARGE[-1], 1 - HARD)
    report.figure(f"divided, G = {LARGE[-1]}, p = {1 - HARD:g}", easy, at_least=1.01)
    report.figure("as G grows, √(1/4 / (p (1 - p)))", 0.5 / np.sqrt(HARD * (1 - HARD)))
    for size in SMALL:
        distance = abs(against_even(SCALED, size) - 1)
        text = f"G = {size}, where all mixed groups have equal standard deviations: distance from 1"
        report.figure(text, distance, at_most=1e-10)
    errors = []
    for size in (*SMALL, *LARGE):
        found = trees.difficulty_weights(SCALED, (HARD, 0.3, EVEN), size)
        expected = [trees.scaled_weight(p, size) for p in (HARD, 0.3, EVEN)]
        errors.append(np.abs(found / expected - 1).max())
    report.figure("distance from E √(K (G - K)) / (G p (1 - p))", max(errors), at_most=1e-10)

    report.claim("2503.20783, section 3.2: without the division all questions have equal weight")
    for size in (*SMALL, *LARGE):
        distance = abs(against_even(CENTRED, size) - 1)
        report.figure(f"not divided, G = {size}, distance from 1", distance, at_most=1e-10)

    report.claim(
        "2601.08521, section 2.2: given that a group has mixed rewards, the advantage R - mean is "
        "too small for a hard prompt, p < 1/2, and too large for an easy one",
        "E[p - mean | mixed rewards], over all groups",
    )
    p = np.linspace(0, 1, given.points + 2)[1:-1]
    hard, easy_ones = p < EVEN - 1e-9, p > EVEN + 1e-9
    gaps = {
        size: np.array([x - trees.disagreeing_mean(x, size) for x in p])
        for size in (*SMALL, *LARGE)
    }
    # a mixed pair has one of each, whatever p is
    largest = max(x[hard].max() for x in gaps.values())
    least = min(x[easy_ones].min() for x in gaps.values())
    even = max(abs(EVEN - trees.disagreeing_mean(EVEN, size)) for size in gaps)
    report.figure("largest for hard prompts, all G", largest, at_most=-1e-9)
    report.figure("smallest for easy prompts, all G", least, at_least=1e-9)
    report.figure("at p = 1/2", even, at_most=1e-12)
    of_right = EVEN - trees.disagreeing_mean(EVEN, LARGE[-1], right=True)
    report.figure(
        f"for a right answer, which is part of that mean: p = 1/2, G = {LARGE[-1]}", of_right
    )

    report.claim(
        "2601.08521, abstract: this leads to updates that favour easy prompts",
        "our reading, for the mean gradient without the division: its weight for a hard prompt "
        "divided by that for p = 1/2, which would have to be below 1",
    )
    for size in LARGE:
        weight = against_even(CENTRED, size)
        report.figure(f"over all groups, G = {size}", weight, at_most=0.99)
        weight *= trees.disagreement(EVEN, size) / trees.disagreement(HARD, size)
        text = f"over groups with mixed rewards, G = {size}, as with resampling of the others"
        report.figure(text, weight, at_most=0.99)

    report.limit(
        "exact, for any policy: with rewards of 0 and 1 the weights depend only on p and G, "
        "however large the model. Groups with equal rewards have no gradient, and including them "
        "the mean is (G - 1) / G ∇p for every prompt: the bias of the advantages given mixed "
        "rewards is not a bias of the update. Which weights train better, and the gain from a "
        "schedule of them, is not decided here."
    )
    shown = tuple(zip((*SMALL[1:], *LARGE), (GREEN, ORANGE, BLUE), strict=True))
    weights, biases = [], []
    for size, colour in shown:
        even_weight = trees.scaled_weight(EVEN, size)
        relative = [trees.scaled_weight(x, size) / even_weight for x in p]
        weights.append(Line(p, relative, f"G = {size}", colour))
        biases.append(Line(p, gaps[size], f"G = {size}", colour))
    weights.append(Line(p, 0.5 / np.sqrt(p * (1 - p)), "G → ∞", GREY, ":"))
    report.end(
        [
            Panel(
                "divided by the deviation",
                "p, of a right answer",
                "weight of ∇p, over that at 1/2",
                weights,
            ),
            Panel(
                "advantage of groups that disagree", "p, of a right answer", "E[p - mean]", biases
            ),
        ]
    )


if __name__ == "__main__":
    main()
