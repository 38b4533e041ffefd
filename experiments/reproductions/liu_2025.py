"""Averaging over each answer's own length makes right answers shorter and wrong answers longer;
without it the gradient does not affect lengths.

Liu et al. 2025, 2503.20783 (Dr. GRPO). Measured on answers whose reward depends only on the first
token: the exact effect of GRPO, Dr. GRPO and each divisor on lengths, and lengths during exact
ascent and during training from samples. About a minute on one core.
"""

import dataclasses

import numpy as np
import reporting
from reporting import GREY, Line, Panel, thinned

from pg.reports.plots import BLUE, ORANGE

GRPO = {"baseline": "mean", "scale": "group", "average": "sequence"}
DR_GRPO = {"baseline": "mean", "average": "constant"}
DIVISORS = {
    "length of the answer": {"baseline": "mean", "average": "sequence"},
    "standard deviation": {"baseline": "mean", "scale": "group"},
}
SIZES = (2, 3)


@dataclasses.dataclass
class Options(reporting.Files):
    """The longest answer, and the number and length of training runs."""

    length: int = 5
    """Tokens of the longest answer."""
    steps: int = 300
    """Updates, along the exact mean and from samples."""
    seeds: int = 20
    """Number of seeds for each estimator."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.between(2, 7, length=self.length)
        reporting.at_least(10, steps=self.steps)
        reporting.at_least(2, seeds=self.seeds)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    import jax.numpy as jnp
    import trees
    from dynamics import follow

    from pg.exact import tabular
    from pg.reports.statistics import bootstrap_interval, mean

    jax.config.update("jax_enable_x64", True)
    report = reporting.Report(
        "liu_2025", "Liu et al. 2025, 2503.20783 (Dr. GRPO); claims in our words", given
    )
    env, start = trees.answers(given.length)
    mdp, logits = tabular.prefix_tree(env), jnp.asarray(start)
    right, wrong = (trees.mean_length(env, answer) for answer in (0, 1))
    slopes = [np.asarray(jax.grad(length)(logits)) for length in (right, wrong)]
    gradient = trees.gradient(mdp, start)

    def effects(switches: dict[str, str], size: int) -> np.ndarray:
        """Change of the length of right and wrong answers, in tokens per unit of reward gained,
        [2].
        """
        found = trees.moments(mdp, switches, start, size=size).mean
        return np.array([np.sum(slope * found) for slope in slopes]) / np.sum(gradient * found)

    report.claim(
        "section 3.1: dividing by the length |y| favours short answers among the right ones, and "
        "long answers among the wrong ones",
        "the change of mean lengths along the exact mean direction, per unit of reward gained; "
        "the reward does not depend on lengths",
    )
    for size in SIZES:
        shorter, longer = effects(GRPO, size)
        report.figure(f"GRPO, G = {size}: right answers, tokens", shorter, at_most=-0.01)
        report.figure(f"GRPO, G = {size}: wrong answers, tokens", longer, at_least=0.01)
    for name, switches in DIVISORS.items():
        largest = max(np.abs(effects(switches, size)).max() for size in SIZES)
        ends = {"at_least": 0.01} if "length" in name else {"at_most": 1e-9}
        report.figure(f"by the {name} alone: largest effect", largest, **ends)

    report.claim(
        "section 3.2: without both divisors the estimate is that of the policy gradient",
        "Dr. GRPO with the group's mean as baseline: (G - 1) / G ∇J, divided by the constant L",
    )
    for size in SIZES:
        largest = np.abs(effects(DR_GRPO, size)).max()
        report.figure(f"Dr. GRPO, G = {size}: largest effect on lengths", largest, at_most=1e-9)
        found = trees.moments(mdp, DR_GRPO, start, size=size).mean
        expected = (size - 1) / size / given.length * gradient
        distance = trees.relative_bias(found, expected)
        report.figure("its distance from (G - 1) / G ∇J / L", distance, at_most=1e-10)

    report.claim(
        "figures 1 and 5: in training wrong answers grow longer and longer with GRPO, and not with "
        "Dr. GRPO",
        f"the change of the mean length of wrong answers during training; {given.seeds} seeds, "
        "8 groups of 4",
    )

    def watch(x: jax.Array) -> jax.Array:
        return jnp.stack([tabular.exact_return(mdp, x), right(x), wrong(x)])

    # step sizes with which both gain about as much reward
    rates = {"GRPO": (GRPO, 1.0), "Dr. GRPO": (DR_GRPO, 1.0 * given.length)}
    exact, sampled = {}, {}
    for name, (switches, rate) in rates.items():
        direction = trees.scaled(rate, trees.mean_direction(mdp, switches, size=2))
        exact[name] = follow(direction, watch, logits, given.steps)
        sampled[name] = trees.train(
            env,
            switches,
            start,
            watch,
            rate=rate,
            updates=given.steps,
            prompts=8,
            size=4,
            seeds=given.seeds,
        )
        grown = sampled[name][:, -1, 2] - sampled[name][:, 0, 2]
        of_mean = exact[name][-1, 2] - exact[name][0, 2]
        range_of = {"at_least": 0.1} if name == "GRPO" else {"at_least": -0.1, "at_most": 0.1}
        report.figure(f"{name}, along the exact mean: wrong answers, tokens", of_mean, **range_of)
        interval = bootstrap_interval(grown, mean)
        report.figure(f"{name}, {given.seeds} seeds: wrong answers, tokens", interval, **range_of)
        report.figure(f"{name}: reward at the end", sampled[name][:, -1, 0].mean(), at_least=0.9)

    apart = trees.tied(env, trees.moments(mdp, GRPO, start, size=2).mean)
    report.limit(
        "exact: the sign and the size of the effect on a policy that distinguishes right from "
        "wrong. If it cannot, so that both share the parameters of their lengths, the effects "
        f"cancel: {np.abs(apart).max():.1e} of GRPO's mean remains. How well a large model "
        "distinguishes them, and so how much of the growth of its answers is due to this bias, "
        "is not decided."
    )
    t, i = np.arange(1, given.steps + 1), thinned(given.steps)
    panels = []
    for k, title in ((1, "right answers"), (2, "wrong answers")):
        lines = []
        for (name, runs), colour in zip(sampled.items(), (ORANGE, BLUE), strict=True):
            band = [bootstrap_interval(x, mean) for x in runs[:, i, k].T]
            lines.append(Line(t[i], reporting.stacked(band), name, colour))
            lines.append(Line(t[i], exact[name][i, k], "along the exact mean of pairs", GREY, ":"))
        panels.append(Panel(title, "update", "mean length, tokens", lines))
    reward = [
        Line(t[i], runs[:, i, 0].mean(0), name, colour)
        for (name, runs), colour in zip(sampled.items(), (ORANGE, BLUE), strict=True)
    ]
    report.end([*panels, Panel("reward", "update", "share of right answers", reward)])


if __name__ == "__main__":
    main()
