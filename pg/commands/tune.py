"""Search hyperparameters at random, trials × seeds in one program; print the best as a preset."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pg import numerals
from pg.commands import cli
from pg.commands.values import check_assigned_once
from pg.config import (
    PARTS,
    WHOLE_NUMBERS,
    Config,
    Hyperparams,
    check_hyperparams,
    check_together,
)
from pg.inputs import check_name, check_seeds
from pg.presets import preset
from pg.reports import statistics, tables
from pg.runs import interrupts


@dataclasses.dataclass
class Options:
    """The search."""

    env: str = Config.env
    """Name of the environment, or FILE.py:CLASS of your own."""
    estimator: str = "reinforce"
    """Name of the gradient estimator, or FILE.py:NAME of your own; the search starts from its
    preset.
    """
    settings_of: str | None = None
    """Start the search for your own estimator from the settings of this estimator or variant (ppo,
    trpo, ...) for the environment, instead of those given by its pg.with_facts.
    """
    policy: str | None = None
    """FILE.py:NAME of your own policy; none: that of the settings."""
    critic: str | None = None
    """FILE.py:NAME of your own critic, used like policy."""
    optimizer: str | None = None
    """Name of the optimizer, or FILE.py:NAME of your own; none: that of the preset."""
    trials: int = 16
    """Number of configurations to try."""
    seeds: int = 4
    """Number of seeds of each configuration."""
    first_seed: int = 1000
    """First seed, different from those that are reported; the configurations are drawn from it
    too.
    """
    set: tuple[str, ...] = ()
    """Fixed settings, fields of Config or Hyperparams, each NAME=VALUE."""
    range: tuple[str, ...] = ("learning_rate=0.0003:0.03",)
    """Fields of Hyperparams to draw log-uniformly, each NAME=LOW:HIGH."""


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Prints the budget, a table of the configurations from best to worst, and the winner.

    Returns the exit code: 0, 3 where every configuration diverged, or after a signal as
    `cli.interrupted`.
    """
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    cli.cache_compilations()
    started = time.monotonic()
    try:
        for name in ("set", "range"):
            check_assigned_once(name, getattr(options, name))
        settings = _settings(options)
        config, hyperparams = preset(options.estimator, **settings)
        trials = sample(options, check_hyperparams(hyperparams))
        check_together(config, hyperparams._replace(**trials))
        with interrupts.deferred("the search") as caught:
            found = search(config, hyperparams, trials, options)
    except (ValueError, TypeError) as error:
        cli.fail(error)
    except KeyboardInterrupt as error:
        print("interrupted: a search keeps nothing")
        return cli.interrupted(interrupts.signal_of(error))
    steps, budget = found.pop("steps"), _budget(options)
    print(f"{budget} × {steps.mean():,.0f} steps on average, {time.monotonic() - started:.0f} s")
    scores = np.nan_to_num(found["greedy"].mean(axis=1), nan=-np.inf)
    order = (-scores).argsort(kind="stable")
    rows = [[*trials, *found, "most steps"]]
    for i in order:
        values = [f"{x[i]:.3g}" for x in trials.values()]
        means = []
        for x in found.values():
            standard_error = statistics.standard_error(x[i])
            means.append(f"{x[i].mean():.4g} ± {standard_error:.2g}")
        rows.append([*values, *means, f"{steps[i].max():,}"])
    print(tables.plain(rows))
    if not np.isfinite(scores).any():
        print(
            "every configuration has a seed that diverged, so none is best: try a range of "
            "smaller values"
        )
        return cli.interrupted(caught.signum) if caught.signum else cli.NOT_FINITE
    best = {name: values[order[0]] for name, values in trials.items()}
    winner = settings | {
        name: int(x) if name in WHOLE_NUMBERS else float(f"{x:.3g}") for name, x in best.items()
    }
    named = ", ".join(f"{name}={value!r}" for name, value in winner.items())
    print(f"preset({options.estimator!r}, {named})")
    return cli.interrupted(caught.signum) if caught.signum else 0


def _settings(options: Options) -> dict[str, Any]:
    """The arguments of `preset` that the options give besides the estimator, by name. Raises
    ValueError for a mistake.
    """
    parts = {name: getattr(options, name) for name in PARTS if name != "estimator"}
    given = {name: part for name, part in parts.items() if part is not None}
    settings = {**given, **dict(map(cli.assignment, options.set))}
    if options.settings_of is None:
        return settings
    cli.check_settings_of(options.settings_of, options.estimator)
    return {"settings_of": options.settings_of, **settings}


def _budget(options: Options) -> str:
    """The number of trials and seeds, for people."""
    trials = numerals.counted(options.trials, "trial")
    return f"{trials} × {numerals.counted(options.seeds, 'seed')}"


def sample(options: Options, hyperparams: Hyperparams) -> dict[str, Any]:
    """Log-uniform values of every field that is searched, [trials] each. Raises ValueError on a
    mistake.
    """
    for name, least in (("trials", 1), ("seeds", 2), ("first_seed", 0)):
        if (value := getattr(options, name)) < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")
    check_seeds("first_seed", options.first_seed, options.seeds)
    generator, trials = np.random.default_rng(options.first_seed), dict[str, Any]()
    for entry in options.range:
        name, _, text = entry.partition("=")
        check_name("range", name, hyperparams.scalars())
        if name in dict(map(cli.assignment, options.set)):
            raise ValueError(f"{name} is both set and searched: leave it out of --set or --range")
        low, high = _bounds(name, text)
        is_whole = name in WHOLE_NUMBERS
        for bound in (low, high):
            value = int(bound) if is_whole and bound.is_integer() else bound
            check_hyperparams(Hyperparams(**{**hyperparams.scalars(), name: value}))
        values = low * (high / low) ** generator.random(options.trials)
        trials[name] = values.round().astype(int) if is_whole else values
    return trials


def _bounds(name: str, text: str) -> tuple[float, float]:
    """The bounds of LOW:HIGH, or of one number. Raises ValueError for anything else."""
    low, colon, high = text.partition(":")
    with contextlib.suppress(ValueError):
        bounds = float(low), float(high if colon else low)
        if 0 < bounds[0] <= bounds[1]:
            return bounds
    raise ValueError(f"range of {name} must be LOW:HIGH with 0 < LOW <= HIGH, got {text!r}")


def search(
    config: Config, hyperparams: Hyperparams, trials: dict[str, Any], options: Options
) -> dict[str, Any]:
    """Mean return of 100 final episodes (NaN of a seed that diverged) and environment steps,
    [trials, seeds] each.
    """
    import jax

    from pg import train
    from pg.envs.adapters.base import HostError, faults_in_one_sentence
    from pg.evaluation import evaluate
    from pg.fast import devices
    from pg.runs import execution, host_states, results

    def one(keys: tuple[jax.Array, jax.Array], values: dict[str, Any]) -> dict[str, jax.Array]:
        h = hyperparams._replace(**values)
        state, metrics = train.make_train(config)(keys[0], h)
        own: Any = {"normaliser": state.normaliser, "env_params": h.env_params}
        found = {"steps": metrics["env_steps"].sum()}
        failed = results.failed_runs(metrics, config.on_nonfinite)
        for name, greedy in (("greedy", True), ("sampled", False)):
            score = evaluate(
                config, state.params.policy, keys[1], greedy=greedy, **own
            ).returns.mean()
            found[name] = jax.numpy.where(failed, np.nan, score)
        return found

    keys = execution.seed_keys(range(options.first_seed, options.first_seed + options.seeds))
    every_one = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))
    try:
        with (
            host_states.closing([config]),
            devices.vmapped(options.trials * options.seeds),
            faults_in_one_sentence(),
        ):
            return jax.tree.map(np.asarray, every_one(keys, trials))
    except HostError as error:
        raise error.with_command("a search keeps nothing: the same command starts again") from None
