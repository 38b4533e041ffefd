"""An action-dependent baseline has hardly any variance left to remove beyond a good V.

Tucker et al. 2018, 1802.10031. Measured: the variance of a step, decomposed into the future (Σ_τ),
the action (Σ_a, the most that a baseline can remove) and the state (Σ_s), without a baseline, with
a learned V(s) and with the true Vₜ(s), in the course of training; and that of whole estimates with
V(s) and with Q(s, a). Our criterion: with V, Σ_a is at most a tenth of the total, and Q removes at
most a tenth. Whether earlier gains came from bias is not examined.
"""

import dataclasses
import itertools

import reporting
from reporting import GREY, Line, Panel, stacked

from pg.inputs import check_name
from pg.reports.plots import BLUE, ORANGE

NAMES, SHARES, TENTH = ("action_dependent_baseline", "state_value"), (0, 0.5, 1), 0.1
WITH = {"plain": "no baseline", "learned": "learned V(s)", "true": "true Vₜ(s)"}


@dataclasses.dataclass
class Options(reporting.Files):
    """The tasks, and how much is sampled."""

    tasks: tuple[str, ...] = ("Pendulum-v1", "CartPole-v1")
    """One or two of Catch-bsuite, CartPole-v1, Acrobot-v1 and Pendulum-v1; not the last alone."""
    states: int = 256
    """Number of states for the decomposition, with 16 episodes each; four times as many for the
    point mass, which is cheap.
    """
    share: float = 1.0
    """Number of whole estimates relative to the leaderboard's."""
    seed: int = 0
    """Seed of policies and samples."""

    def check(self) -> None:
        """Raises ValueError for an unknown task or a number out of range."""
        reporting.between(0, 3, **{"number of tasks": len(self.tasks)})
        for name in self.tasks:
            check_name("task", name, ("Catch-bsuite", "CartPole-v1", "Acrobot-v1", "Pendulum-v1"))
        if set(self.tasks) == {"Pendulum-v1"}:
            raise ValueError("tasks must include one with discrete actions, for Q(s, a)")
        reporting.at_least(32, states=self.states)
        reporting.at_least(0.1, share=self.share)
        reporting.at_least(0, seed=self.seed)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    from variances import (
        Parts,
        action_share,
        best_gain,
        of_point_mass,
        of_snapshot,
        variance_ratio,
    )

    from pg.benchmarks import leaderboard

    key, parts = jax.random.key(given.seed), dict[str, list[Parts]]()
    report = reporting.Report(
        "tucker_2018", "Tucker et al. 2018, 1802.10031; claims in our words", given
    )

    def shares(kinds: tuple[str, ...], *tasks: str) -> None:
        for kind, task in itertools.product(kinds, tasks):
            for snapshot, x in zip(leaderboard.SNAPSHOTS, parts[task], strict=True):
                y = action_share(getattr(x, kind))
                report.figure(f"{task}, {snapshot}: share of Σ_a, {WITH[kind]}", y)
                if kind != "plain":
                    report.figure(f"{task}, {snapshot}: upper end of it", y.high, at_most=TENTH)

    mass, text = (
        "point mass",
        "in a linear-quadratic problem with the exact V, Σ_a is small compared with the total",
    )
    report.claim(
        text,
        "the paper's point mass, with linear policies from zero gain to the optimal one; Σ_a "
        "divided by the total",
    )
    parts[mass] = [
        of_point_mass(x * best_gain(), key, 4 * given.states)
        for x in leaderboard.SNAPSHOTS.values()
    ]
    shares(("plain", "true"), mass)
    report.claim(
        "the same in benchmarks with the true Vₜ(s)",
        "smaller tasks than MuJoCo's; V from 32 more returns",
    )
    snapshots = {task: leaderboard.train_snapshots(task, given.seed) for task in given.tasks}
    for task in given.tasks:
        parts[task] = [of_snapshot(task, x, key, given.states) for x in snapshots[task]]
    shares(("plain", "true"), *given.tasks)
    report.claim(
        "the same in benchmarks with a learned V(s)",
        "V is fitted to each policy, and does not see the time",
    )
    shares(("learned",), *given.tasks)
    pairs = [(task, x) for task in given.tasks for x in snapshots[task]]
    for task, at in pairs:
        report.figure(
            f"{task}, {at.name}: share of the returns' variance that V explains", at.explained["V"]
        )

    text = (
        "abstract: learned state-action-dependent baselines do not reduce the variance below that "
        "with V(s)"
    )
    report.claim(
        text,
        "whole estimates from the same episodes: variance with Q(s, a) divided by that with V(s)",
    )
    for task, at in (x for x in pairs if x[0] != "Pendulum-v1"):  # discrete actions
        estimates = [
            leaderboard.estimate_gradients(task, at, name, given.seed + 1, share=given.share)
            for name in NAMES
        ]
        ratio = variance_ratio(*(x.gradients for x in estimates))
        report.figure(f"{task}, {at.name}", ratio)
        report.figure(f"{task}, {at.name}: lower end of it", ratio.low, at_least=1 - TENTH)

    panels = []
    for task, x in parts.items():
        kinds = [("$\\Sigma_\\tau$", BLUE, "-", [y.plain.trajectory for y in x])]
        kinds += [("$\\Sigma_a$, b = 0", GREY, ":", [y.plain.action for y in x])]
        kinds += (
            [("$\\Sigma_a$, learned V", ORANGE, "--", [y.learned.action for y in x])]
            if task != mass
            else []
        )
        kinds += [("$\\Sigma_a$, true V", ORANGE, "-", [y.true.action for y in x])]
        lines = [Line(SHARES, stacked(y), name, hue, f"o{dash}") for name, hue, dash, y in kinds]
        panels += [Panel(task, "share of the training done", "variance of a step", lines, "y")]
    report.end(panels)


if __name__ == "__main__":
    main()
