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
    """The exit code: 0, or 130 after Ctrl-C, or 75 where another process of the job has ended."""
    config, hyperparams, options, machine = cli.parse("train.py", str(__doc__), Options)
    cli.cache_compilations()
    seeds = range(options.seed, options.seed + options.seeds)
    try:
        machine.start()  # only now: a mistake in the arguments need not wait for jax

        import jax

        from pg import devices, envs, networks, results, runs
        from pg.train import make_learner

        env = envs.configured(config, 1)
        shapes = jax.eval_shape(make_learner(config, hyperparams).init, jax.random.key(0))
        where = devices.layout(machine.shard, len(seeds) if machine.shard == "seeds" else None)
        where.check(config)
        folder = results.create_folder(options.out, config, options.seed) if devices.is_first() else None
    except ValueError as error:
        cli.fail(error)
    if folder:
        results.write_setup(folder, config, hyperparams, dataclasses.asdict(options) | dataclasses.asdict(machine))
        print(cli.describe(config, hyperparams, env.max_steps, networks.num_params(shapes.params)))
        device = f"{where.mesh.size} × {jax.devices()[0].device_kind}"
        print(f"{len(seeds)} seed(s) from {options.seed}, on {device}; compiling ...", flush=True)
    progress = cli.Progress(config.num_updates, quiet=folder is None)
    try:
        done = runs.run(config, hyperparams, seeds, progress, where=where)
        progress.close()
        evaluation = None
        if done.finished:
            greedy = options.greedy
            evaluation = runs.evaluate_run(config, done, seeds, options.eval_episodes, greedy=greedy, where=where)
        if folder:
            finish(config, done, evaluation, seeds, options, folder)
    except KeyboardInterrupt:
        done = None
    except ConnectionError as error:
        cli.abandon(error)
    if folder:
        print(folder)
    return 0 if done and done.finished else cli.INTERRUPTED


def finish(config: Any, done: Any, evaluation: Any, seeds: range, options: Options, folder: Path) -> None:
    """Writes metrics, parameters and the summary, prints it, and draws. evaluation: None where interrupted."""
    from pg import plots, results

    results.write_metrics(folder, done.metrics, options.seed)
    results.write_params(folder, done.states.params, done.states.normaliser)
    summary = results.summarise(done, evaluation, seeds, greedy=options.greedy)
    results.write_json(folder / "summary.json", summary)
    steps, title = done.metrics["env_steps"].cumsum(axis=1), f"{config.estimator} on {config.env}"
    plots.learning_curve(steps, done.metrics["return"], folder / "curve.png", title=title, final=summary.get("mean"))
    seconds = f"compiled in {done.compile_seconds:.1f} s, trained in {done.train_seconds:.1f} s"
    print(f"{summary['env_steps']:,} environment steps; {seconds}")
    if evaluation is not None:
        several = f", median of seeds {summary['median_of_seeds']:.1f}" if len(seeds) > 1 else ""
        print(
            f"final evaluation, {summary['episodes']} episodes, {summary['actions']} actions: "
            f"{summary['mean']:.1f} ± {summary['standard_error']:.1f} (standard error){several}, "
            f"min {summary['min']:.0f}, max {summary['max']:.0f}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
