"""Train estimators on batches that lag behind the policy, and print the final returns and the
effective sample size.

The task is to reverse three symbols; all runs have the same batch size, optimizer and learning
rate. A cell is the interquartile mean over seeds of the mean return in the last fifth of a run, its
95 % interval, and the mean effective sample size divided by the number of sequences. Without a
ratio a batch is treated as on-policy; a mixture has the last lag + 1 policies.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pg.commands import cli
from pg.inputs import check_name

MARKS = ("<!-- lag -->", "<!-- end of lag -->")
BATCH, GROUP = 64, 4  # sequences per batch, approximately with a mixture; per group
LAST = 0.2  # share of the updates that counts as the last return


@dataclasses.dataclass
class Options:
    """The runs of the table."""

    lags: tuple[int, ...] = (0, 1, 4, 16)
    """Numbers of updates by which the acting policy is older than the learning one."""
    seeds: int = 20
    """Runs of each cell."""
    num_updates: int = 150
    """Updates of a run."""
    learning_rate: float = 0.02
    """Step size of Adam."""
    only: tuple[str, ...] = ()
    """Rows of the table, by name; none: all."""
    out: Path | None = None
    """File in which the table replaces the lines between `<!-- lag -->` and
    `<!-- end of lag -->`.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        if not self.lags or min(self.lags) < 0:
            raise ValueError(f"lags must be whole numbers of at least 0, got {self.lags}")
        if self.seeds < 2 or self.num_updates < 5:
            raise ValueError("seeds must be at least 2 and num_updates at least 5")


def rows() -> dict[str, dict[str, Any]]:
    """The settings of each row."""
    from pg import with_facts
    from pg.estimators import ESTIMATORS

    def unaware(policy: Any, critic: Any, h: Any) -> Any:
        return ESTIMATORS["group_leave_one_out"](policy, critic, h)

    taken_for_own = with_facts(unbiased_for="J", baseline="group", off_policy=True)(unaware)
    names = (
        "sequence:ratio=token",
        "sequence:ratio=token+clip=symmetric",
        "sequence:ratio=sequence",
        "sequence:ratio=sequence+clip=truncated",
        "sequence:ratio=sequence+self_normalised=batch",
        "trajectory_importance",
        "per_decision_importance",
        "ratio_only",
        "vtrace",
        "ppo",
    )
    whole = {"estimator": "sequence:ratio=sequence"}
    return {
        "group_leave_one_out, no ratio": {"estimator": taken_for_own},
        **{name: {"estimator": name} for name in names},
        **{
            f"sequence:ratio=sequence, mixture: {mixture}": {**whole, "lag_mixture": mixture}
            for mixture in ("own", "balance", "power")
        },
    }


def cell(given: Options, settings: dict[str, Any], lag: int) -> tuple[Any, Any]:
    """The final return of each seed [S], and the effective sample size divided by the number of
    sequences, averaged over the run.
    """
    import jax
    import numpy as np

    import pg

    num_envs = BATCH
    if not lag:
        settings = {**settings, "lag_mixture": "none"}
    elif "lag_mixture" in settings:
        share = GROUP * (lag + 1)  # the smallest batch: a group of each policy
        num_envs = share * max(1, round(BATCH / share))
    config = pg.Config(
        env=pg.envs.sequence_tasks.reverse(num_symbols=2, num_places=3),
        num_envs=num_envs,
        group_size=GROUP,
        num_updates=given.num_updates,
        policy_lag=lag,
        preset=None,
        **settings,
    )
    h = config.hyperparams(learning_rate=given.learning_rate)
    keys = jax.vmap(jax.random.key)(np.arange(given.seeds))
    metrics = jax.jit(jax.vmap(lambda key: pg.make_train(config, h)(key)[1]))(keys)
    last = metrics["return"][:, -int(LAST * given.num_updates) :]
    ess = metrics["ess"] if lag else np.ones(1)
    return np.mean(last, axis=1), float(np.mean(ess))


def main() -> int:
    """Prints the table in Markdown. Returns the exit code, 0."""
    given = cli.options(Options, cli.docstring_of(__file__), None, None)
    cli.cache_compilations()
    from pg.reports import statistics, tables

    def cells(settings: dict[str, Any]) -> Iterator[str]:
        for lag in given.lags:
            returns, ess = cell(given, settings, lag)
            of_all = statistics.bootstrap_interval(returns)
            yield f"{of_all.value:.2f} [{of_all.low:.2f}, {of_all.high:.2f}] · {ess:.2f}"

    every = rows()
    try:
        for name in given.only:
            check_name("row", name, every)
    except ValueError as error:
        cli.fail(error)
    wanted = {name: x for name, x in every.items() if not given.only or name in given.only}
    columns = [f"lag {lag}" for lag in given.lags]
    text = tables.printed(columns, ((name, list(cells(x))) for name, x in wanted.items()))
    if given.out is not None:
        tables.insert(given.out, text, MARKS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
