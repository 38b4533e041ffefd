"""Gradient estimates from the usual number of samples agree poorly with each other and with the
true gradient.

Ilyas et al. 2020, 1811.02553, section 2, figures 1 and 2. Measured: the mean cosine between ten PPO
estimates for one policy, and between each and a direction from millions of pairs, at the start, the
middle and the end of training. The criterion is a cosine below 1/2 between estimates and below √½
to the true gradient: then there is more noise than signal.
"""

import dataclasses

import reporting
from reporting import Line, Panel, stacked

from pg.inputs import check_name
from pg.reports.plots import BLUE, GREEN, ORANGE
from pg.tuned import TUNED

USUAL, SIZES = 2_000, (400, 2_000, 6_000, 30_000)


@dataclasses.dataclass
class Options(reporting.Files):
    """The tasks, and how much is sampled."""

    tasks: tuple[str, ...] = ("Pendulum-v1", "CartPole-v1")
    """Environments for which there are tuned settings of PPO, at most three."""
    seeds: int = 3
    """Number of policies trained on each."""
    pairs: int = 2_000_000
    """State-action pairs for each policy at each snapshot; the paper's true gradient is from 10
    million.
    """

    def check(self) -> None:
        """Raises ValueError for an unknown task or a number out of range."""
        for name in self.tasks:
            check_name("task", name, _tuned_for_ppo())
        reporting.between(0, 4, **{"number of tasks": len(self.tasks)})
        reporting.at_least(1, seeds=self.seeds)
        reporting.at_least(1_000_000, pairs=self.pairs)


def _tuned_for_ppo() -> list[str]:
    """Environments that PPO is tuned for and that need no extra library."""
    return [env for env, labels in TUNED.items() if "ppo" in labels and ":" not in env]


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    from snapshots import SNAPSHOTS, agreement, curve, pairs_for, sample, train

    report = reporting.Report(
        "ilyas_2020", "Ilyas et al. 2020, 1811.02553, section 2; claims in our words", given
    )
    agreements, usual = {}, SIZES.index(USUAL)
    keys = jax.random.split(jax.random.key(1), (len(SNAPSHOTS), given.seeds))
    for task in given.tasks:
        for i, (snapshot, states) in enumerate(
            zip(SNAPSHOTS, train(task, given.seeds), strict=True)
        ):
            blocks = (
                sample(task, x, keys[i, k], given.pairs, SIZES[0]) for k, x in enumerate(states)
            )
            agreements[task, snapshot] = agreement([curve(*x, SIZES) for x in blocks])
            print(f"{task}: trained, and measured at the {snapshot}", flush=True)

    def listed(kind: str, level: float) -> None:
        for (task, snapshot), x in agreements.items():
            for n, episodes, y in zip(x.pairs, x.episodes, getattr(x, kind), strict=True):
                text = f"{task}, {snapshot}, {n:,.0f} pairs, {episodes:,.3g} episodes"
                report.figure(text, y)
        for task in given.tasks:
            upper = getattr(agreements[task, "end"], kind)[usual].high
            report.figure(f"{task}, end, {USUAL:,} pairs: upper end", upper, at_most=level)

    compared = (
        f"PPO on smaller tasks than its Humanoid, Walker2d and Hopper; intervals are for "
        f"{given.seeds} policies"
    )
    report.claim(
        "figure 1: late in training, ten estimates of 2K pairs hardly agree with each other",
        compared,
    )
    listed("pairwise", 0.5)
    compared = (
        f"the direction of all {given.pairs:,} pairs except the estimate's own; cosines are "
        f"divided by its expected cosine to the true direction"
    )
    report.claim(
        "figure 2: nor do they agree with the true gradient, from 10 million pairs there", compared
    )
    listed("truth", 0.5**0.5)
    for task in given.tasks:
        report.figure(
            f"{task}, end: smallest cosine of that direction itself",
            agreements[task, "end"].reference,
            at_least=0.9,
        )
    report.claim(
        "figure 1: they agree less later in training",
        "the gap between the intervals at the start and at the end",
    )
    for task in given.tasks:
        start, end = (agreements[task, snapshot].pairwise[usual] for snapshot in ("start", "end"))
        report.figure(
            f"{task}: {start.value:.3f} at the start, {end.value:.3f} at the end",
            start.low - end.high,
            at_least=0,
        )
    report.claim(
        "section 2: several times more samples are needed",
        "for a cosine of 0.9 between two, at the end",
    )
    for task in given.tasks:
        times = pairs_for(agreements[task, "end"], 0.9) / USUAL
        text = f"{task}: times {USUAL:,} pairs (inf: more than {SIZES[-1]:,})"
        report.figure(text, times, at_least=3)

    panels = []
    for task in given.tasks:
        curves = [Line([USUAL, USUAL], [0, 1], "", "0.6", ":")]
        for snapshot, colour in zip(SNAPSHOTS, (BLUE, GREEN, ORANGE), strict=True):
            x = agreements[task, snapshot]
            for means, style, label in ((x.pairwise, "o-", snapshot), (x.truth, "o--", "")):
                curves.append(Line(x.pairs, stacked(means), label, colour, style))
        title = f"{task}: to each other (-), to the truth (--)"
        panels.append(
            Panel(title, "pairs of state and action", "mean cosine", curves, "x", (None, 1))
        )
    report.end(panels)


if __name__ == "__main__":
    main()
