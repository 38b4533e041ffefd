"""Exact softmax policy gradient converges like 1/t, and with entropy regularisation like exp(-ct).

Mei et al. 2020, 2005.06392. Compared with the paper's bounds: the suboptimality on the bandit
r = (1, .9, .1) from the uniform policy and from policies that rarely draw the good arms, and on a
small MDP; and the soft gap with entropy.
"""

import dataclasses

import numpy as np
import reporting
from reporting import GREY, Line, Panel, thinned

from pg.reports.plots import COLOURS, ORANGE

REWARD, ETA, RARE = np.array([1.0, 0.9, 0.1]), 2 / 5, np.array([0.05, 0.005, 0.0005])


@dataclasses.dataclass
class Options(reporting.Files):
    """The problems, and the length of the runs."""

    tau: float = 0.2
    """Temperature of the entropy regularisation."""
    gamma: float = 0.5
    """Discount of the MDP; its step size is (1 - gamma)³ / 8."""
    steps: int = 300_000
    """Updates of each run."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.between(0, 1, gamma=self.gamma)
        reporting.between(0, 1 / ETA, tau=self.tau)
        reporting.at_least(10_000, steps=self.steps)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    from dynamics import slope, soft_bandit, softmax_bandit, softmax_mdp, unit_garnet

    jax.config.update("jax_enable_x64", True)
    report = reporting.Report(
        "mei_2020",
        "Mei et al. 2020, 2005.06392; numbers of theorems but 4 are quoted from memory",
        given,
    )
    t, uniform = np.arange(1, given.steps + 1), np.ones(3) / 3
    late = t >= given.steps / 10
    tail = t >= given.steps / 100
    i = thinned(given.steps)
    power = f"power of t, fitted on t = {t[late][0]:,} to {t[-1]:,}"

    text = "theorem 2: suboptimality of a bandit ≤ 5/(c² t), c the least π(a*) so far, with η = 2/5"
    report.claim(text, "the constant 5, which is quoted from memory, at all t")
    gap, upper = softmax_bandit(REWARD, uniform, ETA, given.steps)
    rare = {p: softmax_bandit(REWARD, [p, p, 1 - 2 * p], ETA, given.steps) for p in RARE}
    report.figure(power, slope(np.log(t[late]), np.log(gap[late])), at_least=-1.05, at_most=-0.95)
    report.figure("largest ratio to the bound, from uniform", np.max(gap / upper), at_most=1)
    report.figure(
        "the same, from the plateaus of claim 3",
        max(np.max(x / y) for x, y in rare.values()),
        at_most=1,
    )

    lower = (REWARD[0] - REWARD[1]) ** 2 / (6 * t)
    report.claim(
        "theorem 9: no faster, suboptimality ≥ Δ²/(6 t) for large t",
        "1/6, which is quoted from memory",
    )
    report.figure(
        f"least ratio to it, t ≥ {t[tail][0]:,}", np.min(gap[tail] / lower[tail]), at_least=1
    )

    text = (
        "section 3: an initial policy that draws each of the good arms with a small probability π "
        "stays on a plateau"
    )
    report.claim(text, "our own initial policies; the paper shows one plateau")
    escape = [int(t[x < x[0] / 2][0]) for x, _ in rare.values()]
    for p, updates in zip(RARE, escape, strict=True):
        report.figure(f"updates to halve the suboptimality, π = {p:g}", updates)
    report.figure(
        "power of 1/π in them", slope(-np.log(RARE), np.log(escape)), at_least=0.8, at_most=1.2
    )

    text = (
        "theorem 4: suboptimality of an MDP ≤ 16 S ‖d*/μ‖² ‖1/μ‖ / (c² (1-γ)⁶ t), with η = (1-γ)³/8"
    )
    report.claim(text, "our own random MDP with 3 states and 2 actions")
    mdp_gap, mdp_upper = softmax_mdp(unit_garnet(0, 3, 2), given.gamma, given.steps)
    report.figure(
        power, slope(np.log(t[late]), np.log(mdp_gap[late])), at_least=-1.05, at_most=-0.95
    )
    report.figure("largest ratio to the bound", np.max(mdp_gap / mdp_upper), at_most=1)

    text = (
        "theorem 5: with entropy, the soft gap τ KL(π ‖ softmax(r/τ)) converges at a linear rate, "
        "like exp(-ct)"
    )
    report.claim(
        text,
        "the bound's constant is quoted from memory; the rate at the optimum is derived here",
    )
    soft_gap, soft_upper, rate = soft_bandit(REWARD, uniform, ETA, given.tau, given.steps)
    seen = np.flatnonzero(soft_gap > 1e-12)  # below it is rounding
    j = np.linspace(0, seen[-1], 200).astype(int)
    half = seen[len(seen) // 2 :]
    text = f"rate divided by that at the optimum, fitted from t = {half[0]:,}"
    report.figure(text, slope(half, np.log(soft_gap[half])) / rate, at_least=0.98, at_most=1.02)
    report.figure(
        "largest ratio to the bound", np.max((soft_gap / soft_upper)[: seen[-1]]), at_most=1
    )

    looks = zip(rare.items(), COLOURS[3:], strict=False)
    first = [Line(t[i], y[i], "bounds", GREY, ":") for y in (upper, lower)]
    first += [
        Line(t[i], x[i], f"{1 - 2 * p:g} on the worst", colour, "--")
        for (p, (x, _)), colour in looks
    ]
    first += [Line(t[i], gap[i], "uniform start")]
    second = [Line(t[i], mdp_upper[i], "bound", GREY, ":"), Line(t[i], mdp_gap[i], "from uniform")]
    third = [
        Line(t[j], soft_upper[j], "bound", GREY, ":"),
        Line(t[j], soft_gap[j], "from uniform", ORANGE),
    ]
    panels = [
        Panel("bandit, r = (1, .9, .1)", "update t", "suboptimality", first, "xy", (1e-15, 1e3)),
        Panel("MDP of 3 states", "update t", "suboptimality", second, "xy"),
        Panel(f"bandit with entropy, τ = {given.tau:g}", "update t", "soft gap", third, "y"),
    ]
    report.end(panels)


if __name__ == "__main__":
    main()
