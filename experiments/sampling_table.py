"""Compare gradient estimates with dependent action noise and with independent noise, at a frozen
policy in the middle of its training, and print the ratio of variances.

A cell is the variance (tr Σ) of an estimate with independent noise divided by that with dependent
noise, and its 95 % bootstrap interval over estimates: 2 is as good as twice as many episodes. In
the one-step bandit, the linear-quadratic regulator and the non-slippery gridworld only actions are
random.
"""

import dataclasses
from typing import Any

from pg.commands import cli
from pg.inputs import check_name

OWN = ("bandit", "regulator", "noisy regulator", "gridworld, not slippery")
PROBLEMS = (*OWN, "gridworld", "Pendulum-v1", "CartPole-v1")
RESAMPLED = 2000


@dataclasses.dataclass
class Options:
    """The measurements of the table."""

    problems: tuple[str, ...] = PROBLEMS
    """Problems: some with and without environment noise, and three of the leaderboard."""
    estimators: tuple[str, ...] = ("reward_to_go", "state_value", "all_action")
    """Names of the estimators; all_action is measured only with discrete actions."""
    num_episodes: tuple[int, ...] = (64,)
    """Numbers of episodes of an estimate."""
    estimates: int = 512
    """Number of estimates of each kind."""
    seed: int = 1
    """Seed of the estimates; the policies are the same for all."""

    def __post_init__(self) -> None:
        """Raises ValueError for a problem that does not exist, or a number out of range."""
        for name in self.problems:
            check_name("problem", name, PROBLEMS)
        if self.estimates < 16:
            raise ValueError(f"estimates must be at least 16, got {self.estimates}")
        if min(self.num_episodes, default=0) < 2 or any(n % 2 for n in self.num_episodes):
            raise ValueError(f"num_episodes must be even numbers, got {self.num_episodes}")


def own_problem(name: str) -> Any:
    """The environment of a problem that the leaderboard does not have."""
    import numpy as np

    from pg.exact import tabular
    from pg.exact.closed_forms import LQR, GaussianBandit

    if name == "bandit":
        return GaussianBandit(target=1.0)
    if name == "gridworld, not slippery":
        return tabular.gridworld(["S..#", ".#..", "...G", "H..#"], horizon=20)
    scale = 1.0 if name == "noisy regulator" else 0.0
    return LQR(
        A=[[0.9, 0.2], [-0.1, 0.8]],
        B=[[0.0], [1.0]],
        Q=np.eye(2),
        R=[[0.3]],
        W=0.05 * scale * np.eye(2),
        start=scale * np.array([[1.0, 0.2], [0.2, 0.5]]),
        horizon=10,
    )


def problem_named(name: str, estimates: int) -> Any:
    """The problem of this name, with this many estimates."""
    from pg.benchmarks.leaderboard import problems

    if name not in OWN:
        problem = problems.problem_of(name)
    else:
        problem = problems.problem_of(own_problem(name))._replace(name=name)
        if name in ("bandit", "regulator", "noisy regulator"):
            problem = problem._replace(changes={"hidden_sizes": (), "num_updates": 40})
    return problem._replace(num_estimates=estimates, batch_size=min(problem.batch_size, estimates))


def distances(problem: Any, snapshot: Any, estimator: str, sampling: Any, given: Options) -> Any:
    """The squared distance of each estimate from their mean, [estimates], by number of episodes."""
    from pg.benchmarks.leaderboard import gradients

    found = []
    for size in given.num_episodes:
        estimates = gradients.estimate_gradients(
            problem, snapshot, f"{estimator}:sampling={sampling}", given.seed, num_episodes=size
        ).gradients
        found.append(((estimates - estimates.mean(axis=0)) ** 2).sum(axis=1))
    return found


def ratio(independent: Any, dependent: Any) -> str:
    """The quotient of two variances with its interval, from squared distances of estimates."""
    import numpy as np

    g = np.random.default_rng(0)

    def resampled(x: Any) -> Any:
        return x[g.integers(0, len(x), (RESAMPLED, len(x)))].mean(axis=1)

    value = independent.mean() / dependent.mean()
    low, high = np.quantile(resampled(independent) / resampled(dependent), [0.025, 0.975])
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def main() -> int:
    """Prints the table in Markdown. Returns the exit code, 0."""
    given = cli.options(Options, cli.docstring_of(__file__), None, None)
    cli.cache_compilations()
    from pg.benchmarks.leaderboard import problems
    from pg.settings.choices import CHOICES

    dependent = [name for name in CHOICES["sampling"] if name != "independent"]
    print(f"| problem, estimator, episodes | {' | '.join(dependent)} |")
    print(f"| --- |{' --- |' * len(dependent)}", flush=True)
    for name in given.problems:
        problem = problem_named(name, given.estimates)
        snapshot = problems.train_snapshots(problem, 0)[1]
        for estimator in given.estimators:
            if estimator == "all_action" and "Q" not in snapshot.critics:
                continue
            base, *others = (
                distances(problem, snapshot, estimator, sampling, given)
                for sampling in ("independent", *dependent)
            )
            for i, size in enumerate(given.num_episodes):
                cells = [ratio(base[i], other[i]) for other in others]
                print(f"| {name}, {estimator}, {size} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
