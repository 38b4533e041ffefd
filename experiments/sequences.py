"""Train a small transformer on a task of sequences: maximum likelihood on answers with errors, then
policy gradients by one or several published estimators, whose curves it draws.

Of each estimator there is a run folder, and the same command goes on where it was interrupted.
"""

import dataclasses
from pathlib import Path
from typing import Any, get_args

from pg.commands import cli
from pg.config import SEQUENCES
from pg.estimators.switches import KL, PRESETS
from pg.inputs import check_name

UPDATES_OF_A_POINT = 4  # of the curves, which are means over so many


@dataclasses.dataclass
class Options:
    """The task, the estimators, and how both halves of the training are done."""

    task: str = "modular_sum"
    """Task: modular_sum, reverse or brackets."""
    presets: tuple[str, ...] = ("rloo",)
    """Published estimators, by name."""
    kl: str = "k1"
    """Estimate of the KL divergence from the pretrained policy, in the reward: k1, k2, k3, full or
    none.
    """
    kl_coef: float = 0.01
    """Its weight."""
    noise: float = 0.3
    """Share of the tokens in the demonstrations that are drawn at random."""
    demonstrations: int = 2000
    """Number of demonstrations."""
    pretraining_steps: int = 300
    """Gradient steps on them."""
    updates: int = 100
    """Updates of the policy gradient."""
    num_envs: int = 64
    """Sequences of a batch."""
    group_size: int = 8
    """Sequences of one prompt."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
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
            check_name("preset", name, PRESETS)
        check_name("kl", self.kl, get_args(KL))


def main() -> None:
    """Trains, draws `curves.png` and prints a table in Markdown."""
    options = cli.options(Options, cli.docstring_of(__file__))
    cli.cache_compilations()
    cli.Machine().start()
    params, loss = pretrained(options)
    print(f"pretrained on {options.demonstrations} demonstrations: {loss:.3f} nats a token\n")
    metrics = {name: trained(name, params, options) for name in options.presets}
    draw(metrics, options)
    print("\n| | return at the start | at the end | KL from the reference | tokens |")
    print("| --- | --- | --- | --- | --- |")
    for name, of_preset in metrics.items():
        print(f"| `{name}` | {' | '.join(row(of_preset))} |")


def settings(options: Options, **changes: Any) -> Any:
    """The Config of both halves."""
    from pg import Config

    return Config(
        env=f"sequences:{options.task}",
        network="causal_transformer",
        hidden_sizes=(options.size, options.size),
        activation="gelu",
        num_envs=options.num_envs,
        num_updates=options.updates,
        preset=None,
        **changes,
    )


def pretrained(options: Options) -> tuple[Any, float]:
    """The parameters of the pretrained policy, and its last losses on average."""
    import jax

    import pg
    from pg.envs import sequence_tasks

    config = settings(options)
    task = sequence_tasks.make(config.env)
    policy = pg.make_policy(config, pg.make_env(task, 1))

    def train(key: Any) -> Any:
        data_key, key = jax.random.split(key)
        examples = task.demonstrations(data_key, options.demonstrations, options.noise)
        return pg.pretrain(policy, examples, key, num_steps=options.pretraining_steps)

    params, losses = jax.jit(train)(jax.random.key(0))
    return params, float(losses[-20:].mean())


def trained(name: str, params: Any, options: Options) -> Any:
    """The metrics of a preset, [seeds, updates] each, from its run folder."""
    import pg
    from pg.commands import job
    from pg.estimators import sequence_estimator

    switches = dict(vars(PRESETS[name]))
    if switches["kl"] == "none":
        switches |= {"kl": options.kl, "kl_place": "reward"}
    # a ratio is for several steps on a batch, of which there are two with it
    several = switches["ratio"] != "none"
    config = settings(
        options,
        estimator=sequence_estimator(**switches),
        policy=pg.starting_from(params),
        group_size=options.group_size,
        num_minibatches=2 if several else 1,
    )
    h = config.hyperparams(learning_rate=options.learning_rate, kl_coef=options.kl_coef)
    folder = f"{options.task}-{name}"
    run_options = job.Options(seeds=options.seeds, out=options.out, name=folder)
    if code := job.run(config, h, run_options):
        raise SystemExit(code)
    (run,) = options.out.glob(f"*/*/{folder}")
    return pg.load_results(run).metrics


def draw(metrics: Any, options: Options) -> None:
    """A panel for each quantity, a line for each preset."""
    import numpy as np

    from pg.reports import plots, statistics

    quantities = {
        "return": "return",
        "KL from the reference, nats a token": "reference_kl",
        "tokens of a sequence": "length",
        "entropy, nats a token": "entropy",
        "clipped share of the tokens": "clip_fraction",
    }
    panels = {}
    for title, quantity in quantities.items():
        lines = {}
        for name, of_preset in metrics.items():
            if quantity not in of_preset:
                continue
            values = np.asarray(of_preset[quantity], float)
            points = values.shape[1] // UPDATES_OF_A_POINT
            values = values[:, : points * UPDATES_OF_A_POINT]
            means = values.reshape(len(values), points, -1).mean(axis=-1)
            updates = UPDATES_OF_A_POINT * (np.arange(points) + 0.5)
            lines[name] = (updates, statistics.mean_curve(means))
        if lines:
            panels[title] = lines
    plots.curves(panels, options.out / "curves.png", xlabel="update", ylabel="", sharey=False)
    print(f"\n{options.out / 'curves.png'}")


def row(metrics: Any) -> list[str]:
    """The cells of a preset: means over seeds, with their intervals."""
    import numpy as np

    from pg.reports import statistics

    ends = {
        "start": metrics["return"][:, :3],
        "end": metrics["return"][:, -10:],
        "kl": metrics["reference_kl"][:, -10:] if "reference_kl" in metrics else None,
        "length": metrics["length"][:, -10:],
    }
    cells = []
    for values in ends.values():
        if values is None:
            cells.append("")
            continue
        of_seeds = np.asarray(values, float).mean(axis=1)
        cells.append(str(statistics.bootstrap_interval(of_seeds, statistics.mean)))
    return cells


if __name__ == "__main__":
    main()
