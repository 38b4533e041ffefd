"""Train with estimators that are selected during training, and with each candidate alone, and print
the returns.

Candidates are baselines, on complete episodes, or the λ of gae, on windows. All runs of a problem
have the same batch size, optimizer and learning rate. The cells are interquartile means over seeds,
with 95 % intervals, of the mean return over all updates and over the last fifth; and the share of
the updates in which each candidate was chosen, averaged over seeds.
"""

import dataclasses
from typing import Any

from pg.commands import cli
from pg.inputs import check_name

PROBLEMS = ("CartPole-v1", "gridworld")
CHOICES = ("baseline", "lambda")
BASELINES = ("leave_one_out", "time_baseline", "state_value")
LAMBDAS = (0.8, 0.95, 1.0)
LAST = 0.2  # share of the updates that counts as the last return


@dataclasses.dataclass
class Options:
    """The runs of the table."""

    problems: tuple[str, ...] = PROBLEMS
    """Problems: one with a network, and a table of 16 states."""
    choices: tuple[str, ...] = CHOICES
    """The choice: the baseline, or the λ of gae."""
    seeds: int = 20
    """Runs of each row."""
    num_updates: int = 100
    """Updates of a run of complete episodes; of windows there are four times as many."""
    learning_rate: float = 0.01
    """Step size of Adam."""

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown problem or choice, or a number out of range."""
        for name in self.problems:
            check_name("problem", name, PROBLEMS)
        for name in self.choices:
            check_name("choice", name, CHOICES)
        if self.seeds < 2 or self.num_updates < 5:
            raise ValueError("seeds must be at least 2 and num_updates at least 5")


def rows(choice: str) -> dict[str, Any]:
    """The estimators of a choice: the one that is selected during training, then its candidates."""
    from pg.estimators import ESTIMATORS, selected, with_hyperparams

    if choice == "baseline":
        alone = {name: ESTIMATORS[name] for name in BASELINES}
        return {"selected": selected(*BASELINES), **alone}
    alone = {f"gae, λ = {x}": with_hyperparams("gae", gae_lambda=x) for x in LAMBDAS}
    reference = alone[f"gae, λ = {LAMBDAS[-1]}"].__name__
    return {"selected": selected(*alone.values(), reference=reference), **alone}


def batches(choice: str, num_updates: int) -> dict[str, Any]:
    """The settings of the batches of a choice."""
    if choice == "baseline":
        return {"num_envs": 16, "num_updates": num_updates}
    windows = {"collect": "windows", "num_envs": 16, "num_steps": 32}
    return {**windows, "num_updates": 4 * num_updates}


def trained(given: Options, problem: str, choice: str, estimator: Any) -> dict[str, Any]:
    """The metrics of all seeds and updates, [S, G]."""
    import jax
    import numpy as np

    import pg
    from pg.exact import tabular

    env: Any = problem
    if problem == "gridworld":
        env = tabular.gridworld(["S..#", ".#..", "...G", "H..#"], horizon=20, slip=0.1)
    config = pg.Config(
        env=env,
        estimator=estimator,
        hidden_sizes=() if problem == "gridworld" else (64,),
        preset=None,
        **batches(choice, given.num_updates),
    )
    h = config.hyperparams(learning_rate=given.learning_rate, gamma=0.99)
    keys = jax.vmap(jax.random.key)(np.arange(given.seeds))
    metrics = jax.jit(jax.vmap(lambda key: pg.make_train(config, h)(key)[1]))(keys)
    return {name: np.asarray(values) for name, values in metrics.items()}


def row(given: Options, problem: str, choice: str, name: str, estimator: Any) -> str:
    """A line of the table."""
    import numpy as np

    from pg.reports import statistics

    metrics = trained(given, problem, choice, estimator)
    returns = metrics["return"]  # NaN in a window in which no episode ended
    last = returns[:, -int(LAST * returns.shape[1]) :]
    cells = [f"{problem}, {choice}", name]
    for some in (returns, last):
        cells.append(str(statistics.bootstrap_interval(np.nanmean(some, axis=1))))
    shares = ""
    if "selected" in metrics:
        number = len(BASELINES if choice == "baseline" else LAMBDAS)
        share = [np.mean(metrics["selected"] == k) for k in range(number)]
        shares = " ".join(f"{x:.2f}" for x in share)
    return f"| {' | '.join([*cells, shares])} |"


def main() -> int:
    """Prints the table in Markdown. Returns the exit code, 0."""
    given = cli.options(Options, cli.docstring_of(__file__), None, None)
    cli.cache_compilations()

    print("| | estimator | mean return | last return | chosen |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for problem in given.problems:
        for choice in given.choices:
            for name, estimator in rows(choice).items():
                print(row(given, problem, choice, name, estimator), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
