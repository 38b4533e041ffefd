"""Train a small transformer on a sequence task: maximum likelihood on noisy answers, then policy
gradients with one or several published estimators, and plot their curves.

Each estimator has a run folder, and the same command continues after an interruption. All are
trained on the same number of sequences in the same number of gradient steps: those with an
importance ratio take `--steps` steps on a batch, the others collect a new batch for each. Clip
ranges are those of their papers. Among several step sizes each estimator uses the one that is best
on other seeds.
"""

import dataclasses
from pathlib import Path
from typing import Any, get_args

from pg.commands import cli
from pg.config import SEQUENCES
from pg.estimators.switches import KL, PRESETS, PUBLISHED
from pg.inputs import check_name

POINTS = 25  # of a curve
LAST = 0.1  # the final figures are means over this share of the run
TRIAL_SEED = 1000  # the first of the seeds on which step sizes are tried
# the argument of a task that is its size
SIZE = {"modular_sum": "modulus", "reverse": "num_places", "brackets": "max_pairs"}


@dataclasses.dataclass
class Options:
    """The task, the estimators, and the settings of both halves of the training."""

    task: str = "modular_sum"
    """Task: modular_sum, reverse or brackets."""
    task_size: int | None = None
    """Modulus of modular_sum, length of reverse, maximum pairs of brackets; none: the default."""
    presets: tuple[str, ...] = ("rloo",)
    """Published estimators, by name, or all."""
    kl: str = "k3"
    """Estimate of the KL divergence from the pretrained policy in the loss of each step, for
    presets without one: k1, k2, k3, full or none.
    """
    kl_coef: float = 0.01
    """Weight of the divergence, for all estimators."""
    noise: float = 0.3
    """Share of the tokens in the demonstrations that are drawn at random."""
    demonstrations: int = 2000
    """Number of demonstrations."""
    pretraining_steps: int = 300
    """Gradient steps on them."""
    updates: int = 100
    """Batches of the policy gradient."""
    num_envs: int = 64
    """Sequences of a batch."""
    steps: int = 2
    """Gradient steps on a batch, each on an equal share; estimators without a ratio collect that
    many times as often, with that many times fewer sequences.
    """
    group_size: int = 8
    """Sequences of one prompt."""
    learning_rate: tuple[float, ...] = (1e-3,)
    """Step size of Adam; among several, the one with the best final evaluation on the trial
    seeds."""
    trial_seeds: int = 5
    """Number of seeds on which several step sizes are tried, in addition to the reported ones."""
    size: int = 32
    """Width of the two blocks of the transformer."""
    seeds: int = 3
    """Seeds of the policy gradient, all from one pretrained policy."""
    out: Path = Path("results/sequences")
    """Folder of the run folders, and of the picture."""

    def __post_init__(self) -> None:
        """Raises ValueError for a mistake, before jax is loaded."""
        check_name("task", f"sequences:{self.task}", SEQUENCES)
        for name in self.presets:
            check_name("preset", name, [*PRESETS, "all"])
        check_name("kl", self.kl, get_args(KL))
        if "all" in self.presets:
            self.presets = tuple(PRESETS)
        if not self.learning_rate:
            raise ValueError("learning_rate must be one step size, or several to choose from")
        if self.steps < 1 or self.num_envs % (self.steps * self.group_size):
            raise ValueError(
                f"a share of num_envs={self.num_envs} over steps={self.steps} must be whole groups "
                f"of group_size={self.group_size}"
            )


def main() -> None:
    """Trains, draws `curves.png` and prints a table in Markdown."""
    options = cli.options(Options, cli.docstring_of(__file__))
    cli.cache_compilations()
    cli.Machine().start()
    params, loss = pretrained(options)
    print(f"pretrained on {options.demonstrations} demonstrations: {loss:.3f} nats per token\n")
    metrics = {}
    rates = {}
    for name in options.presets:
        metrics[name], rates[name] = trained(name, params, options)
    draw(metrics, options)
    print(
        "\n| | step size | return at the start | over the run | at the end "
        "| KL from the reference | tokens |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, of_preset in metrics.items():
        print(f"| `{name}` | {rates[name]:g} | {' | '.join(row(of_preset, options))} |")


def task_of(options: Options) -> Any:
    """The task, of the requested size."""
    from pg.envs import sequence_tasks

    size = {} if options.task_size is None else {SIZE[options.task]: options.task_size}
    return sequence_tasks.TASKS[f"sequences:{options.task}"](**size, observation="last")


def settings(options: Options, **changes: Any) -> Any:
    """The Config of both halves."""
    from pg import Config

    return Config(
        env=task_of(options),
        network="causal_transformer",
        hidden_sizes=(options.size, options.size),
        activation="gelu",
        preset=None,
        **changes,
    )


def pretrained(options: Options) -> tuple[Any, float]:
    """The parameters of the pretrained policy, and the average of its last losses."""
    import jax

    import pg

    config = settings(options)
    task = config.env
    policy = pg.make_policy(config, pg.make_env(task, 1))

    def train(key: Any) -> Any:
        data_key, key = jax.random.split(key)
        examples = task.demonstrations(data_key, options.demonstrations, options.noise)
        return pg.pretrain(policy, examples, key, num_steps=options.pretraining_steps)

    params, losses = jax.jit(train)(jax.random.key(0))
    return params, float(losses[-20:].mean())


def trained(name: str, params: Any, options: Options) -> tuple[Any, float]:
    """The metrics of a preset, [seeds, updates] each, and its step size."""
    import pg
    from pg.estimators import sequence_estimator

    switches = dict(vars(PRESETS[name]))
    if switches["kl"] == "none" and options.kl != "none":
        # in the reward, the group's standard deviation would be that of the penalties if all
        # answers are equally good
        switches |= {"kl": options.kl, "kl_place": "loss"}
    # with a ratio, several steps on a batch; without one, that many times more, smaller batches
    several = switches["ratio"] != "none"
    shares = 1 if several else options.steps
    config = settings(
        options,
        estimator=sequence_estimator(**switches),
        policy=pg.starting_from(params),
        group_size=options.group_size,
        num_minibatches=options.steps if several else 1,
        num_envs=options.num_envs // shares,
        num_updates=options.updates * shares,
    )
    published = {**PUBLISHED.get(name, {}), "kl_coef": options.kl_coef}
    h = config.hyperparams(learning_rate=options.learning_rate[0], **published)
    if len(options.learning_rate) == 1:
        run = trained_once(name, config, h, options)
    else:
        run = trained_at_the_best_rate(config, h, options)
    results = pg.load_results(run)
    return results.metrics, results.settings["hyperparams"]["learning_rate"]


def trained_once(name: str, config: Any, h: Any, options: Options) -> Path:
    """The folder of the run of one step size."""
    from pg.commands import job

    size = "" if options.task_size is None else f"-{options.task_size}"
    folder = f"{options.task}{size}-{name}"
    run_options = job.Options(seeds=options.seeds, out=options.out, name=folder)
    if code := job.run(config, h, run_options):
        raise SystemExit(code)
    (run,) = options.out.glob(f"*/*/{folder}")
    return run


def trained_at_the_best_rate(config: Any, h: Any, options: Options) -> Path:
    """The folder of the sweep over step sizes; the best one is trained on the seeds after the trial
    seeds.
    """
    from pg.fast import devices
    from pg.sweep import SweepSpec, driver

    seeds = range(TRIAL_SEED, TRIAL_SEED + options.trial_seeds)
    spec = SweepSpec(config, h, {"learning_rate": list(options.learning_rate)}, seeds)
    folder = spec.folder(options.out)
    if (folder / "best" / "summary.json").exists():
        return folder
    layout = devices.layout("seeds", spec.num_runs)
    kept = cli.Checkpointing()
    if code := driver.run_sweep(
        spec, folder, layout, kept, width=None, limit=None, fresh=options.seeds
    ):
        raise SystemExit(code)
    return folder


def draw(metrics: Any, options: Options) -> None:
    """A panel for each quantity, a line for each preset."""
    import numpy as np

    from pg.reports import plots, statistics

    quantities = {
        "return": "return",
        "KL from the reference, nats per token": "reference_kl",
        "tokens per sequence": "length",
        "entropy, nats per token": "entropy",
        "share of clipped tokens": "clip_fraction",
    }
    points = min(POINTS, options.updates)
    sequences = options.updates * options.num_envs * (np.arange(points) + 0.5) / points
    panels = {}
    for title, quantity in quantities.items():
        lines = {}
        for name, of_preset in metrics.items():
            if quantity not in of_preset:
                continue
            means = of_points(of_preset[quantity], points)
            lines[name] = (sequences, statistics.mean_curve(means))
        if lines:
            panels[title] = lines
    ylabel = "mean, 95 % interval"
    plots.curves(
        panels, options.out / "curves.png", xlabel="sequences", ylabel=ylabel, sharey=False
    )
    print(f"\n{options.out / 'curves.png'}")


def of_points(values: Any, points: int) -> Any:
    """Means over equal parts of a run, [seeds, points]."""
    import numpy as np

    parts = np.array_split(np.asarray(values, float), points, axis=1)
    return np.stack([part.mean(axis=1) for part in parts], axis=1)


def row(metrics: Any, options: Options) -> list[str]:
    """The cells of a preset: means over seeds, with their intervals."""
    import numpy as np

    from pg.reports import statistics

    updates = metrics["return"].shape[1]
    first = max(1, updates // options.updates)  # the number of sequences in the first batch
    last = max(1, round(LAST * updates))
    columns = {
        "start": metrics["return"][:, :first],
        "run": metrics["return"],
        "end": metrics["return"][:, -last:],
        "kl": metrics["reference_kl"][:, -last:] if "reference_kl" in metrics else None,
        "length": metrics["length"][:, -last:],
    }
    cells = []
    for values in columns.values():
        if values is None:
            cells.append("")
            continue
        of_seeds = np.asarray(values, float).mean(axis=1)
        found = statistics.bootstrap_interval(of_seeds, statistics.mean)
        cells.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
    return cells


if __name__ == "__main__":
    main()
