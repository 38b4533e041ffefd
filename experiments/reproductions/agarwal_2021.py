"""The natural policy gradient converges like 1/T whatever the initial distribution; the plain
gradient does not.

Agarwal et al. 2021, 1908.00261, with exact gradients from the uniform policy. Measured: V* - V_T
for every state and every T, on random MDPs and on a chain that one action in four climbs, compared
with the bound; the same for the plain gradient.
"""

import dataclasses
from typing import Any

import numpy as np
import reporting
from reporting import GREY, Line, Panel, thinned

from pg.reports.plots import BLUE, GREEN, ORANGE


@dataclasses.dataclass
class Options(reporting.Files):
    """The problems, and the length of the runs."""

    gamma: float = 0.9
    """Discount."""
    garnets: int = 5
    """Random MDPs, each of 10 states and 4 actions."""
    length: int = 12
    """States of the chain; shorter chains are run too."""
    steps: int = 5_000
    """Updates T."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.between(0, 1, gamma=self.gamma)
        reporting.at_least(1, garnets=self.garnets)
        reporting.at_least(6, length=self.length)
        reporting.at_least(100, steps=self.steps)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    from dynamics import (
        advantage,
        hidden_goal,
        mdp_gradient,
        natural_bound,
        slope,
        unit_garnet,
        value_gaps,
    )

    jax.config.update("jax_enable_x64", True)
    gamma, steps, t, i = (
        given.gamma,
        given.steps,
        np.arange(1, given.steps + 1),
        thinned(given.steps),
    )
    least = (1 - gamma) ** 2 * np.log(4)  # for larger η the bound is at most 2 / ((1-γ)² T)

    def natural(mdp: Any, eta: float) -> np.ndarray:
        return value_gaps(mdp, gamma, lambda x: eta / (1 - gamma) * advantage(mdp, x, gamma), steps)

    def plain(mdp: Any, step: float) -> np.ndarray:
        return (
            value_gaps(mdp, gamma, lambda x: step * mdp_gradient(mdp, x, gamma), steps)
            @ mdp.initial
        )

    report = reporting.Report(
        "agarwal_2021",
        "Agarwal et al. 2021, 1908.00261; numbers of theorems are quoted from memory",
        given,
    )
    report.claim(
        "theorem 16: V*(s) - V_T(s) ≤ log A / (η T) + 1 / ((1-γ)² T), ≤ 2 / ((1-γ)² T) "
        "for η ≥ (1-γ)² log A"
    )
    mdps = [*(unit_garnet(seed, 10, 4) for seed in range(given.garnets)), hidden_goal(given.length)]
    gaps = {eta: [natural(mdp, eta) for mdp in mdps] for eta in (least / 10, least, 1.0)}
    bounds = {eta: natural_bound(4, gamma, eta, steps) for eta in gaps}
    report.figure("triples of MDP, state and T for each η", sum(x.size for x in gaps[least]))
    for eta in gaps:
        ratio = max(np.max(gap.max(axis=1) / bounds[eta]) for gap in gaps[eta])
        report.figure(f"η = {eta:.3g}, largest ratio to the first bound", ratio, at_most=1)
    simple = max(np.max(gap.max(axis=1) * t) for eta in (least, 1.0) for gap in gaps[eta])
    report.figure("largest ratio to the second", simple * (1 - gamma) ** 2 / 2, at_most=1)

    report.claim(
        "section 4: the plain gradient has no such bound, since it vanishes in states that the "
        "policy hardly visits",
        "our own chain, on which it is still above the bound of the natural gradient",
    )
    steep = {
        step: [plain(mdp, step) for mdp in mdps]
        for step in ((1 - gamma) ** 3 / 8, least / (1 - gamma))
    }
    for step, gap in steep.items():
        report.figure(
            f"step {step:.3g}: ratio to it at T = {steps:,}",
            gap[-1][-1] / bounds[least][-1],
            at_least=1,
        )
    lengths, halved = range(3, given.length + 1, 3), dict[str, list[int]](natural=[], plain=[])
    for mdp in map(hidden_goal, lengths):
        gaps_of = {
            "natural": natural(mdp, 1.0) @ mdp.initial,
            "plain": plain(mdp, 1 / (1 - gamma)),
        }
        for name, x in gaps_of.items():
            halved[name].append(int(np.argmax(np.append(x, 0.0) < x[0] / 2)) + 1)
    ranges = {"natural": (1, 1.25), "plain": (1.5, np.inf)}
    for name, updates in halved.items():
        growth = np.exp(slope(np.array(lengths), np.log(updates)))
        text = f"{name}: updates to halve the gap grow per state by the factor"
        report.figure(text, growth, at_least=ranges[name][0], at_most=ranges[name][1])

    def curves(k: int) -> list[Line]:
        looks = zip(steep.items(), ((ORANGE, "-"), (GREEN, "--")), strict=True)
        lines = [Line(t[i], bounds[least][i], "bound", GREY, ":")]
        lines += [Line(t[i], x[k][i], f"plain, {s:.2g}", *look) for (s, x), look in looks]
        return [*lines, Line(t[i], gaps[least][k][i] @ mdps[k].initial, f"natural, {least:.2g}")]

    growing = [
        Line(lengths, n, name, c, "o-")
        for (name, n), c in zip(halved.items(), (BLUE, ORANGE), strict=True)
    ]
    panels = [
        Panel(name, "update T", "V* - V, by step η", curves(-k), "xy", (1e-6, None))
        for k, name in enumerate(("random MDP", f"chain of {given.length} states"))
    ]
    panels += [
        Panel(
            "equal steps, 1 / (1-γ)", "states of the chain", "updates to halve V* - V", growing, "y"
        )
    ]
    report.end(panels)


if __name__ == "__main__":
    main()
