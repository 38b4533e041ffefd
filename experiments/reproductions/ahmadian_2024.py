"""From a pretrained policy, REINFORCE with leave-one-out baselines learns as well as PPO with a
critic, λ = 1 is best, and the clip has no effect; from an untrained policy PPO is ahead.

Ahmadian et al. 2024, 2402.14740 (RLOO). Measured on reversing symbols, with the reward at the end,
from a policy pretrained on noisy examples: training rewards of RLOO and of PPO with different λ and
clips, 20 seeds each; the learning rate of each method and initial policy is chosen on other seeds.
Under a minute on one core.
"""

import dataclasses
from typing import Any

import numpy as np
import reporting
from reporting import Line, Panel

from pg.reports.plots import BLUE, GREEN, ORANGE

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
LAMBDAS = (1.0, 0.95, 0.5)
MARGIN = 0.01  # difference of rewards that counts as equal


@dataclasses.dataclass
class Options(reporting.Files):
    """Length and number of the training runs."""

    updates: int = 60
    """Batches of 64 sequences."""
    seeds: int = 20
    """Number of seeds for each estimator."""
    tuning_seeds: int = 4
    """Number of other seeds, on which the learning rate of each method and initial policy is
    chosen.
    """

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.at_least(10, updates=self.updates)
        reporting.at_least(2, seeds=self.seeds, tuning_seeds=self.tuning_seeds)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import tasks

    from pg.reports.statistics import bootstrap_interval, mean

    report = reporting.Report(
        "ahmadian_2024", "Ahmadian et al. 2024, 2402.14740 (RLOO); claims in our words", given
    )
    warm = tasks.imitation()
    tuning = range(1_000, 1_000 + given.tuning_seeds)

    rewards = {}

    def train(name: str, method: tasks.Method, start: Any) -> None:
        """Adds the rewards [seeds, updates] at the best learning rate for this method and initial
        policy.
        """
        scores = tasks.rewards(method, start, RATES, tuning, given.updates).mean(axis=(1, 2))
        rate = RATES[int(np.argmax(scores))]
        print(f"{name}: learning rate {rate:g}", flush=True)
        rewards[name] = tasks.rewards(method, start, (rate,), range(given.seeds), given.updates)[0]

    for name, method in tasks.METHODS.items():
        train(name, method, warm)

    def compare(name: str, other: str, at_least: float) -> None:
        """Adds the difference of the mean rewards over all of training, paired by seed."""
        gap = rewards[name].mean(1) - rewards[other].mean(1)
        text = f"{name} minus {other}, mean over all updates"
        report.figure(text, bootstrap_interval(gap, mean), at_least=at_least)

    report.claim(
        "section 5: REINFORCE with leave-one-out baselines does as well as PPO, or better",
        f"the mean reward over all updates, {given.seeds} seeds each; as well: not worse by more "
        f"than {MARGIN:g}",
    )
    for name, x in rewards.items():
        report.figure(f"{name}, last ten updates", bootstrap_interval(x[:, -10:].mean(1), mean))
    compare("RLOO", "PPO, one step", -MARGIN)
    compare("RLOO", "PPO, 16 steps", -MARGIN)

    report.claim(
        "section 3.1: trading bias for less variance, λ < 1, gains nothing if the reward comes at "
        "the end and the initial policy is good",
        "PPO with one step and different λ",
    )
    for gae_lambda in LAMBDAS[1:]:
        name = f"λ = {gae_lambda:g}"
        train(name, tasks.METHODS["PPO, one step"]._replace(gae_lambda=gae_lambda), warm)
        compare("PPO, one step", name, -MARGIN)

    report.claim(
        "section 3.2: clipping is hardly needed: without it PPO does as well",
        "PPO with 16 steps",
    )
    train("not clipped", tasks.METHODS["PPO, 16 steps"]._replace(epsilon=1e6), warm)
    compare("not clipped", "PPO, 16 steps", -MARGIN)

    report.claim(
        "section 3: this holds for a good initial policy; it differs for deep RL from scratch, for "
        "which PPO was designed",
        "the same from an untrained policy",
    )
    new = tasks.untrained()
    for name in ("RLOO", "PPO, 16 steps"):
        train(f"{name}, untrained", tasks.METHODS[name], new)
    gap = rewards["RLOO, untrained"].mean(1) - rewards["PPO, 16 steps, untrained"].mean(1)
    text = "RLOO minus PPO, 16 steps, mean over all updates"
    report.figure(text, bootstrap_interval(gap, mean), at_most=-MARGIN)

    report.limit(
        "the ranking on one small task with a small network, and its dependence on the initial "
        "policy, with each method at the best of five learning rates. The cost of a critic as "
        "large as the policy, reward models and human judgements are not covered."
    )
    updates = np.arange(1, given.updates + 1)

    def curves(names: dict[str, str]) -> list[Line]:
        lines = []
        for name, colour in names.items():
            band = [bootstrap_interval(x, mean) for x in rewards[name].T]
            lines.append(Line(updates, reporting.stacked(band), name, colour))
        return lines

    first = {"RLOO": BLUE, "PPO, one step": ORANGE, "PPO, 16 steps": GREEN}
    second = {"PPO, one step": ORANGE, "λ = 0.95": BLUE, "λ = 0.5": GREEN}
    report.end(
        [
            Panel("leave-one-out and PPO", "batches of 64", "reward", curves(first)),
            Panel("PPO, one step, λ = 1 and others", "batches of 64", "reward", curves(second)),
        ]
    )


if __name__ == "__main__":
    main()
