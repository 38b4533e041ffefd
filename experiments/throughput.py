"""Measure speed honestly: ratios of interleaved runs in one process, medians, compile time apart."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from pg import cli


@dataclasses.dataclass
class Options:
    """What to measure, and how often."""

    num_envs: int = 64
    """Episodes in a batch."""
    repeats: int = 30
    """Timed calls of each program; the programs take turns."""
    json: Path | None = None
    """Also write the figures to this file."""


def main() -> None:
    """Prints a table, one row per program, and the ratios."""
    options = tyro.cli(Options, description=__doc__)
    cli.cache_compilations()

    import jax

    from pg.config import Config, Hyperparams
    from pg.train import make_learner

    # Without thresholds no pole falls: every episode lasts its 500 steps. With them a fresh policy lasts about 22.
    endless = {"theta_threshold_radians": 1e9, "x_threshold": 1e9}

    def update_of(env_params: dict[str, float]) -> Callable[[int], Any]:
        config = Config(num_envs=options.num_envs, env_params=env_params)
        learner = make_learner(config, Hyperparams(learning_rate=0.0))
        state, step = jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.step)
        return lambda i: jax.block_until_ready(step(state, keys[i])[1])

    keys = [jax.random.key(i) for i in range(options.repeats + 1)]
    programs = {"short": update_of({}), "full": update_of(endless)}
    seconds, steps = interleaved(programs, options.repeats)
    print(f"one REINFORCE update of {options.num_envs} CartPole episodes, {jax.devices()[0].device_kind}")
    for name in programs:
        length = steps[name] / options.num_envs
        print(f"  {name:6} {length:6.1f} steps an episode  {1e3 * seconds[name]:8.2f} ms")
    figures = {"short_vs_full_episodes": seconds["short"] / seconds["full"]}
    for name, value in figures.items():
        print(f"{name} {value:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def interleaved(programs: dict[str, Callable[[int], Any]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds, and mean environment steps, of a call of each program; the first call of each is not timed."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    steps: dict[str, list[int]] = {name: [] for name in programs}
    for i in range(-1, repeats):
        for name, program in programs.items():
            started = time.perf_counter()
            metrics = program(i + 1)
            if i >= 0:
                times[name].append(time.perf_counter() - started)
                steps[name].append(int(metrics["env_steps"]))
    return (
        {name: statistics.median(x) for name, x in times.items()},
        {name: statistics.mean(x) for name, x in steps.items()},
    )


if __name__ == "__main__":
    main()
