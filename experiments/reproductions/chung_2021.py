"""Baselines of equal variance lead the stochastic natural gradient to different policies: they
differ in committal behaviour.

Chung et al. 2021, 2008.13773. Measured on bandits from the uniform policy: for r = (1, 0) how often
the good arm is never drawn, compared with a closed form; for r = (1, .7, 0) how often runs with the
baselines b* ± 1/2 end on a bad arm.
"""

import dataclasses
from typing import Any

import numpy as np
import reporting
from reporting import GREY, Line, Panel, share, stacked

from pg.reports.plots import BLUE, ORANGE
from pg.reports.statistics import Estimate

THREE, ALPHAS = (1.0, 0.7, 0.0), (0.1, 0.2, 0.5)


@dataclasses.dataclass
class Options(reporting.Files):
    """The number of runs and their length."""

    runs: int = 2_000
    """Number of runs with each baseline and step size."""
    steps: int = 2_500
    """Number of updates of each run, each with one sampled action."""
    seed: int = 0
    """Seed of the sampled actions."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.at_least(1_000, runs=self.runs, steps=self.steps)
        reporting.at_least(0, seed=self.seed)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    from dynamics import least_variance, natural_ascent, natural_moments, never_drawn

    jax.config.update("jax_enable_x64", True)
    keys = iter(jax.random.split(jax.random.key(given.seed), 5 * len(ALPHAS)))
    n, grid = np.arange(1, 101), np.geomspace(0.05, 2, 40)

    def runs(rewards: tuple[float, ...], baseline: Any) -> list[Any]:
        return [
            natural_ascent(next(keys), rewards, baseline, a, given.steps, given.runs)
            for a in ALPHAS
        ]

    def listed(name: str, shares: list[Estimate]) -> None:
        for alpha, estimate in zip(ALPHAS, shares, strict=True):
            report.figure(f"{name}, α = {alpha}", estimate)

    report = reporting.Report(
        "chung_2021", "Chung et al. 2021, 2008.13773; claims in our words", given
    )
    text = (
        "r = (1, 0): with b = -1 there is a positive probability that the good arm is never drawn, "
        "for every step size α; with b = 0 it is found"
    )
    report.claim(text, "the closed form Π (1 - pₙ), derived here, and the share of runs")
    negative, none = (runs((1.0, 0.0), lambda theta, b=b: 0 * theta[:, 0] + b) for b in (-1.0, 0.0))
    never = [share(~x.drawn[:, 0]) for x in negative]
    exact = np.array([never_drawn(a, -1.0, given.steps)[0] for a in ALPHAS])
    for_ever = [never_drawn(a, -1.0, given.steps)[1] for a in grid]
    errors = (stacked(never).value - exact) / np.sqrt(exact * (1 - exact) / given.runs)
    listed("runs that never draw it", never)
    report.figure(
        "largest difference from Π (1 - pₙ), in standard errors", np.abs(errors).max(), at_most=4
    )
    report.figure(
        f"smallest infinite product, α from {grid[0]:g} to {grid[-1]:g}",
        min(for_ever),
        at_least=1e-9,
    )
    report.figure(
        "b = 0: smallest final probability of the good arm",
        min(x.best[-1].min() for x in none),
        at_least=0.99,
    )

    text = (
        "r = (1, .7, 0): b* ± 1/2, around the variance-minimising baseline b*, have equal variance "
        "and lead to different policies"
    )
    report.claim(
        text, "shares of runs from uniform, for our own step sizes; the paper shows single runs"
    )
    policies = np.random.default_rng(given.seed).normal(size=(20, 3))
    pairs = [
        [natural_moments(x, THREE, least_variance(x, THREE) + e)[1] for e in (-0.5, 0.5)]
        for x in policies
    ]
    unequal = max(abs(x / y - 1) for x, y in pairs)
    report.figure("largest relative difference of variances, 20 policies", unequal, at_most=1e-9)
    three = {
        e: runs(THREE, lambda theta, e=e: least_variance(theta, THREE) + e)
        for e in (-0.5, 0.0, 0.5)
    }
    bad = {e: [share(x.best[-1] < 0.5) for x in three[e]] for e in three}
    for e in bad:
        listed(f"runs that end on a bad arm, b* {e:+}", bad[e])
    report.figure(
        "smallest distance between the intervals of b* ± 1/2",
        np.min(stacked(bad[-0.5]).low - stacked(bad[0.5]).high),
        at_least=0,
    )

    report.claim("the lower baseline commits sooner: its entropy is lower, after 3/α updates")
    for a, lower, higher in zip(ALPHAS, three[-0.5], three[0.5], strict=True):
        nats = higher.entropy[int(3 / a)] - lower.entropy[int(3 / a)]
        estimate = Estimate.of_mean(nats)
        half = estimate.high - estimate.value
        report.figure(f"by how many nats, α = {a}", estimate, at_least=half)

    looks = {-0.5: ("b* - 1/2", ORANGE), 0.0: ("b*", GREY), 0.5: ("b* + 1/2", BLUE)}
    points = Line(ALPHAS, stacked(never), "simulated, 95 %", ORANGE, "o")
    first = [Line(grid, for_ever, "closed form"), points]
    ends = [Line(ALPHAS, stacked(x), *looks[e], "o-") for e, x in bad.items()]
    entropy = [Line(n, x[1].entropy[: len(n)].mean(axis=1), *looks[e]) for e, x in three.items()]
    report.end(
        [
            Panel(
                "r = (1, 0), b = -1",
                "step size α",
                "P(good arm never drawn)",
                first,
                "xy",
                (1e-6, 1),
            ),
            Panel(
                "r = (1, .7, 0), at the end",
                "step size α",
                "share of runs on a bad arm",
                ends,
                "",
                (0, 0.5),
            ),
            Panel(f"r = (1, .7, 0), α = {ALPHAS[1]}", "update", "mean entropy, nats", entropy),
        ]
    )


if __name__ == "__main__":
    main()
