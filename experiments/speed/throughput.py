"""Measure speed honestly: programs that take turns in one process, compile time apart, ratios
within a turn.

The figures are ratios to the same work in its plain form (references.py), or to its floor;
CartPole, 64 × 64 tanh.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pg.commands import cli

if TYPE_CHECKING:
    from timing import Program, Timing


@dataclasses.dataclass
class Options:
    """The sizes of the programs, and the number of their timed calls."""

    num_envs: int = 512
    """Number of episodes in a batch."""
    horizon: int = 500
    """Number of steps of an episode, all of them real: these poles cannot fall."""
    num_updates: int = 4
    """Number of updates of the training that is timed."""
    repeats: int = 12
    """Number of timed calls of each program; a quarter as many in the tables of scaling."""
    quick: bool = False
    """Time 16 episodes of 50 steps, a few times, in short tables: a check that it runs."""
    json: Path | None = None
    """File in which the ratios and all measurements are written."""
    figures: Path | None = None
    """Folder in which they are plotted."""


def main() -> None:
    """Prints a table of the programs, one for each way to make an update larger, and the
    figures.
    """
    options = cli.options(Options, cli.docstring_of(__file__))
    if options.quick:
        options = dataclasses.replace(options, num_envs=16, horizon=50, num_updates=2, repeats=4)

    import jax  # only now, so that --help answers at once

    if not options.quick:  # compiling would be timed as reading
        jax.config.update("jax_enable_compilation_cache", False)
    import charts
    import rollouts
    import updates
    from timing import medians, table, take_turns

    from pg.runs import folders

    config = rollouts.setting(options.num_envs, options.horizon, num_updates=options.num_updates)
    programs = rollouts.programs(config) | updates.programs(config)
    timings = take_turns(programs, options.repeats)
    rows = medians(programs, timings)
    batch = f"{options.num_envs} CartPole episodes of {options.horizon} steps"
    print(
        table(
            f"{batch}, {options.repeats} repeats, {jax.device_count()} × "
            f"{jax.devices()[0].device_kind}",
            rows,
        )
    )
    scaling: dict[str, Any] = {}
    for name, sizes in updates.scaling(
        options.num_envs, options.horizon, quick=options.quick
    ).items():
        if sizes:
            scaling[name] = medians(sizes, take_turns(sizes, max(2, options.repeats // 4)))
            print(table(f"an update, by {name}", scaling[name]))
        else:
            print(f"by {name}: there is only one\n")
    for size, row in scaling["seeds"].items():
        row["temp_bytes_per_seed"] = row["temp_bytes"] / int(size)
    figures = ratios(programs, timings)
    print("\n".join(f"{name:26}{value:8.3f}" for name, value in figures.items()))
    if options.json:
        everything = {
            **figures,
            "programs": rows,
            "scaling": scaling,
            "versions": folders.environment(),
        }
        folders.write_json(options.json, everything)
    if options.figures:
        charts.plot(rows, scaling, options.figures)


def ratios(programs: "Mapping[str, Program]", timings: "Mapping[str, Timing]") -> dict[str, float]:
    """The figures; each is a median over turns of the ratio within a turn, except that of
    memory.
    """
    from timing import faster, longer

    def speed(a: str, b: str) -> float:
        return faster(timings[a], timings[b])

    return {
        "random_vs_plain": speed("random", "random_plain"),
        "policy_vs_forward": speed("policy", "forward"),
        "policy_kept_vs_forward": speed("policy_kept", "forward"),
        "policy_vs_plain": speed("policy", "policy_plain"),
        "update_vs_scan_gradient": speed("update", "update_plain"),
        "guarded_vs_unguarded": longer(timings["update"], timings["update_unguarded"]),
        "memory_vs_scan_gradient": programs["update"].temp_bytes
        / programs["update_plain"].temp_bytes,
        "short_vs_full_episodes": longer(timings["short"], timings["full"]),
        "training_vs_random": speed("training", "random"),
        "training_vs_forward": speed("training", "forward"),
    }


if __name__ == "__main__":
    main()
