"""Evaluate the policy of a run again: with more episodes, another seed, greedy or sampled actions.

Every seed of the run is evaluated. The result is written to evaluations/ in the run's folder; the
summary does not change. With the episodes, actions and seed of the final evaluation, the numbers
are the same.
"""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from pg.commands import cli, job
from pg.inputs import check_seeds
from pg.reports import statistics
from pg.runs import files, folders, zoo


@dataclasses.dataclass
class Options(cli.OwnPolicy):
    """The run, the episodes, and what is written."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or of a sweep: its best configuration; or the name of a policy of the zoo,
    such as CartPole-v1/ppo, whose result is written with --out alone.
    """
    episodes: int = 100
    """Number of episodes, per seed of the run."""
    env: str | None = None
    """FILE.py:CLASS of the run's environment, if it was your own."""
    greedy: bool = False
    """Use the mode of the policy instead of sampled actions."""
    seed: int | None = None
    """Seed of the episodes for the first seed of the run; the next run seed uses the next one;
    none: the run's own, as in the final evaluation.
    """
    out: Path | None = None
    """File of the result; none: one in evaluations/ of the run's folder, named by its actions,
    episodes and seed.
    """
    best: bool = False
    """Use the parameters with the best evaluation during training (--eval-every), instead of the
    last ones.
    """
    update_summary: bool = False
    """Also replace the final evaluation in the run's summary.json by the result."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        if self.episodes < 1:
            raise ValueError(f"episodes must be a whole number of at least 1, got {self.episodes}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")
        if self.out is not None and not self.out.parent.is_dir():
            raise ValueError(f"out must be a file in an existing folder, got {self.out}")
        if self.best and self.update_summary:
            raise ValueError(
                "best and update_summary are mutually exclusive: the summary's final evaluation "
                "is of the last parameters"
            )


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code: 0, or 3 where no seed has a score."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    cli.cache_compilations()
    try:
        is_run = os.path.lexists(options.run.expanduser())
        summary, path = _of_run(options) if is_run else _of_zoo(options)
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    if "mean" not in summary:
        print(
            "no seed of the run has a score: each stopped at a number that was not finite, or "
            "at a step without a legal action"
        )
        return cli.NOT_FINITE
    job.say_evaluation(summary, "evaluation")
    if path is not None:
        print(path)
    return 0


def _of_run(options: Options) -> tuple[dict[str, Any], Path]:
    """The summary of a run's evaluation, and the file that it is written to."""
    folder = folders.run_folder(options.run.expanduser().resolve())
    maker = folders.read_options(folder).get("command", "train.py")
    if options.update_summary and maker != "train.py":
        raise ValueError(
            f"update_summary is for runs of pg train: the scores of {folder} are those of "
            f"pg {maker.removesuffix('.py')}"
        )
    with contextlib.ExitStack() as stack:
        if options.update_summary:
            stack.enter_context(folders.locked(folder))
            if not (folder / "summary.json").exists():
                raise ValueError(
                    f"{folder} has no summary.json to update, as its run has not ended: continue "
                    "it with pg resume, or leave out --update-summary"
                )
        summary = evaluated(folder, options)
        return summary, write(folder, summary, options)


def _of_zoo(options: Options) -> tuple[dict[str, Any], Path | None]:
    """The summary of the evaluation of a policy of the zoo, and the file that it is written to, if
    one is asked for. With the episodes and actions that `pg zoo` lists, the mean is the same.
    """
    name = zoo.resolved(options.run).relative_to(zoo.FOLDER).as_posix()
    if options.best or options.update_summary:
        raise ValueError("best and update_summary are for runs: the zoo has neither")
    if options.env is not None or options.policy is not None:
        raise ValueError("env and policy are for runs with your own parts: the zoo has none")
    seed = zoo.read_entry(name).seed if options.seed is None else options.seed

    from pg.benchmarks.zoo import evaluated as returns_of
    from pg.runs.acting import load_policy

    with cli.waiting("evaluating"):
        policy = load_policy(name)
        returns = returns_of(policy, seed, options.episodes, greedy=options.greedy)
    summary = {
        "mean": float(returns.mean()),
        "standard_error": float(statistics.standard_error(returns)),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "episodes": options.episodes,
        "actions": "greedy" if options.greedy else "sampled",
        "eval_seed": seed,
    }
    if options.out is not None:
        folders.write_json(options.out, summary)
    return summary, options.out


def evaluated(folder: Path, options: Options) -> dict[str, Any]:
    """The summary of the run in a folder, with this evaluation instead of the final one."""
    config, hyperparams = options.setup(folder, options.env)
    if options.best:
        folders.check_best(folder)
    asked = folders.read_options(folder)
    machine = cli.Machine.of_run(asked)
    machine.start()  # only now: a mistake in the arguments need not wait for jax

    import jax

    from pg import TrainState, envs, networks
    from pg.estimators import Params
    from pg.runs import acting, execution, host_states, memory, parameters, results, writing

    stored = results.load_results(folder)
    seeds = stored.seeds
    first = seeds[0] if options.seed is None else options.seed
    check_seeds("seed", first, len(seeds))
    env = envs.configured(config, 1, hyperparams.env_params)
    like = acting.acting_shapes(config, env, networks.make_policy(config, env))
    memory.check(config, env, like, len(seeds), options.episodes)
    params, normaliser = parameters.read_policy(folder, *like, best=options.best)
    updates = jax.numpy.full(len(seeds), stored.metrics["env_steps"].shape[1])
    done = execution.Run(
        states=TrainState(
            params=Params(params, ()),
            opt_state=(),
            estimator_state=(),
            rollout=(),
            normaliser=normaliser,
            update=updates,
            skipped=jax.numpy.zeros_like(updates),
        ),
        metrics=stored.metrics,
        finished=stored.summary.get("status") == "finished",
        signum=None,
        compile_seconds=0.0,
        train_seconds=0.0,
        on_nonfinite=config.on_nonfinite,
    )
    before = folders.num_devices(folder)
    layout, _ = machine.layout(len(seeds), config.envs_at_once, like[0], before)
    with host_states.closing([config]), cli.waiting("evaluating"):
        evaluation = execution.evaluate_run(
            config,
            done,
            range(first, first + len(seeds)),
            options.episodes,
            greedy=options.greedy,
            layout=layout,
        )
    actions = "greedy" if options.greedy else "sampled"
    summary = writing.summarise(done, {actions: evaluation}, seeds)
    summary |= {name: x for name, x in stored.summary.items() if name.endswith("_seconds")}
    summary |= {"status": stored.summary.get("status"), "eval_seed": first}
    if options.best:
        return summary | {"parameters": "best"}
    return _with_best(summary, stored.summary)


def _with_best(summary: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with the entries of the previous one on the best parameters."""
    if "best" not in before:
        return summary
    for row, old in zip(summary["per_seed"], before["per_seed"], strict=True):
        row["best"] = old["best"]
    return summary | {"best": before["best"]}


def write(folder: Path, summary: Mapping[str, Any], options: Options) -> Path:
    """Writes the result, and if requested, into the run's summary too. Returns its path."""
    path = options.out
    if path is None:
        which = "best-" if options.best else ""
        name = f"{which}{summary['actions']}-{options.episodes}-seed{summary['eval_seed']}.json"
        path = folder / "evaluations" / name
        files.make_folder(path.parent)
    folders.write_json(path, summary)
    if options.update_summary:
        folders.write_json(folder / "summary.json", summary)
    return path
