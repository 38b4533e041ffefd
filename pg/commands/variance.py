"""Compare estimators on the same policies, at the start, the middle and the end of training, by
variance, signal to noise, and cosine to ∇J against environment steps and wall time: a table and
figures, with intervals from repetitions.

Measurements are stored in --out, and the same command continues with the missing ones. Your own
estimators and problems, FILE.py:NAME, are listed with the others.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pg.benchmarks import combinations
from pg.benchmarks.suites import GRADIENT_PROBLEMS
from pg.commands import cli
from pg.estimators.facts import FACTS
from pg.estimators.names import NAMES
from pg.runs import interrupts
from pg.settings.parts import check_choice, check_choices, row_name

KEPT = "finished measurements are kept; the same command continues from there"


@dataclasses.dataclass
class Options:
    """The measurements, and their folder."""

    problems: tuple[str, ...] = ("gridworld", "CartPole-v1")
    """Problems: gridworld, garnet (∇J is exact), Catch-bsuite, CartPole-v1, Acrobot-v1,
    Pendulum-v1, Breakout-MinAtar; or FILE.py:CLASS of your own environment.
    """
    estimators: tuple[str, ...] = ()
    """Names of the estimators, with other settings of their episodes as in
    state_value:sampling=sobol+num_episodes=64 (critic_observe, action_critic, sampling, sample_env,
    num_branches, branch_every, num_episodes), or FILE.py:NAME of your own; none: all that differ
    on-policy and aim at ∇J, and your own that have results in the folder.
    """
    policy: str | None = None
    """FILE.py:NAME of your own policy, for all problems."""
    critic: str | None = None
    """FILE.py:NAME of your own critic, which is fitted to each policy."""
    optimizer: str | None = None
    """FILE.py:NAME of your own optimizer, which trains the policies."""
    seed: int = 1
    """Seed of the estimates; the policies are the same for all seeds."""
    num_episodes: int = 8
    """Number of episodes of one estimate, even."""
    share: float = 1.0
    """Share of the usual number of estimates (64 to 512): fewer are faster, with wider
    intervals.
    """
    out: Path = Path("results/leaderboard")
    """Folder of the measurements, and of the figures."""
    allow_changed_code: bool = False
    """Measure again, and replace in the folder, the results of your own file that has changed
    since; the others stay.
    """

    def check(self) -> None:
        """Raises ValueError for a flag out of range, before jax is loaded."""
        check_choices("problems", self.problems, GRADIENT_PROBLEMS)
        check_choices("estimators", self.estimators, NAMES, check=combinations.check)
        for name in self.estimators:
            if name in FACTS and "episodes" not in FACTS[name].collect:
                raise ValueError(
                    f"estimators: {name} is for windows, and complete episodes are measured"
                )
        for field, part in self.training_parts().items():
            if part is not None:
                check_choice(field, part, ())
        if self.num_episodes < 2 or self.num_episodes % 2:
            raise ValueError(f"num_episodes must be even and at least 2, got {self.num_episodes}")
        if not 0.0 < self.share < math.inf:
            raise ValueError(f"share must be above 0, got {self.share}")

    def training_parts(self) -> dict[str, str | None]:
        """The custom parts with which the policies are trained."""
        return {"policy": self.policy, "critic": self.critic, "optimizer": self.optimizer}

    def measure(self) -> Any:
        """The `Measurements` of the folder, including those that were missing."""
        from pg.benchmarks import leaderboard

        return leaderboard.measure(
            self.problems,
            self.estimators or leaderboard.COMPARED,
            self.out,
            seed=self.seed,
            **self.given(),
        )

    def given(self) -> dict[str, Any]:
        """Other arguments of `leaderboard.measure`."""
        return {
            "share": self.share,
            "num_episodes": self.num_episodes,
            "allow_changed_code": self.allow_changed_code,
            **self.training_parts(),
        }

    def select(self, measurements: Any, seed: int, *others: str) -> Any:
        """The `Measurements` of these problems and estimators, and of others, of one seed."""
        from pg.benchmarks import leaderboard

        estimators = [row_name(combinations.canonical_name(name)) for name in self.estimators]
        if not estimators:
            measured = {row.estimator for row in measurements.qualities}
            own = {x for x in measured - set(FACTS) if not combinations.is_combination(x)}
            estimators = [*leaderboard.COMPARED, *sorted(own)]
        return measurements.select(map(row_name, self.problems), [*estimators, *others], seed)


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code: 0, or after a signal as `cli.interrupted`."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    try:
        options.check()
        cli.cache_compilations()

        # only now: a mistake in the arguments need not wait for jax
        with interrupts.held("loading"):
            from pg.benchmarks import leaderboard

        measurements = options.select(options.measure(), options.seed)
    except ValueError as error:
        cli.fail(cli.naming_command(error, KEPT))
    except OSError as error:
        cli.fail_to_write(error)
    except KeyboardInterrupt as error:
        print(f"interrupted: {KEPT}")
        return cli.interrupted(interrupts.signal_of(error))
    for problem in map(row_name, options.problems):
        for snapshot in leaderboard.SNAPSHOTS:
            place = problem, snapshot
            qualities = [x for x in measurements.qualities if (x.problem, x.snapshot) == place]
            if qualities:
                print(f"\n{problem}, {snapshot} of training")
                print(leaderboard.variance_table(qualities))
    try:
        figures = leaderboard.plot_measurements(measurements, options.out)
    except OSError as error:
        cli.fail_to_write(error)
    print("", options.out / "quality.csv", *figures, sep="\n")
    return 0
