"""Train a policy by policy gradient, evaluate it, and keep the run in a folder."""

import dataclasses
from pathlib import Path
from typing import Any

from pg import cli


@dataclasses.dataclass
class Options:
    """What the script does around training."""

    seed: int = 0
    """Seed of the run; of several seeds, the first."""
    seeds: int = 1
    """Number of seeds, trained side by side in one program."""
    out: Path = Path("results")
    """Folder in which the run's folder is made."""
    eval_episodes: int = 100
    """Episodes of the final evaluation, per seed."""
    greedy: bool = False
    """Evaluate the mode of the policy instead of sampled actions."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        for name in ("seeds", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")


def main() -> int:
    """The exit code: 0, or 130 after Ctrl-C."""
    config, hyperparams, options = cli.parse("train.py", str(__doc__), Options)
    cli.cache_compilations()

    import jax  # only now: a mistake in the arguments need not wait for it

    from pg import envs, networks, results, runs
    from pg.train import make_learner

    try:
        env = envs.configured(config, 1)
        shapes = jax.eval_shape(make_learner(config, hyperparams).init, jax.random.key(0))
        folder = results.create_folder(options.out, config, options.seed)
    except ValueError as error:
        cli.fail(error)
    results.write_setup(folder, config, hyperparams, dataclasses.asdict(options))
    seeds = range(options.seed, options.seed + options.seeds)
    print(cli.describe(config, hyperparams, env.max_steps, networks.num_params(shapes.params)))
    device = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
    print(f"{len(seeds)} seed(s) from {options.seed}, on {device}; compiling ...", flush=True)
    progress = cli.Progress(config.num_updates)
    try:
        done = runs.run(config, hyperparams, seeds, progress)
        progress.close()
        finish(config, done, seeds, options, folder)
    except KeyboardInterrupt:
        done = None
    print(folder)
    return 0 if done and done.finished else cli.INTERRUPTED


def finish(config: Any, done: Any, seeds: range, options: Options, folder: Path) -> None:
    """Writes metrics and parameters, evaluates unless interrupted, writes and prints the summary, draws."""
    from pg import plots, results, runs

    results.write_metrics(folder, done.metrics, options.seed)
    results.write_params(folder, done.states.params, done.states.normaliser)
    evaluation = None
    if done.finished:
        evaluation = runs.evaluate_run(config, done, seeds, options.eval_episodes, greedy=options.greedy)
    summary = results.summarise(done, evaluation, seeds, greedy=options.greedy)
    results.write_json(folder / "summary.json", summary)
    steps = done.metrics["env_steps"].cumsum(axis=1)
    plots.learning_curve(
        steps,
        done.metrics["return"],
        folder / "curve.png",
        title=f"{config.estimator} on {config.env}",
        final=summary.get("mean"),
    )
    print(
        f"{summary['env_steps']:,} environment steps; compiled in {done.compile_seconds:.1f} s, "
        f"trained in {done.train_seconds:.1f} s"
    )
    if evaluation is not None:
        several = f", median of seeds {summary['median_of_seeds']:.1f}" if len(seeds) > 1 else ""
        print(
            f"final evaluation, {summary['episodes']} episodes, {summary['actions']} actions: "
            f"{summary['mean']:.1f} ± {summary['standard_error']:.1f} (standard error){several}, "
            f"min {summary['min']:.0f}, max {summary['max']:.0f}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
