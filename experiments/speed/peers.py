"""Compare the training speed of pg with that of other libraries, where these are installed.

Programs take turns, each in a process and, by --python, an environment of its own (rejax 0.1.3
needs gymnax < 1.0).
"""

import dataclasses
import itertools
import json
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any

from peer_turns import take_turns

from pg.commands import cli
from pg.reports import tables
from pg.runs import folders

WORKERS = str(Path(__file__).with_name("peer_workers.py"))
ONE, FOUR = (
    {"num_envs": 64, "num_steps": t, "num_epochs": n, "num_minibatches": n}
    for t, n in ((500, 1), (128, 4))
)
# own programs, batch, updates, seeds
SETTINGS: dict[str, tuple[tuple[str, ...], dict[str, int], int, int]] = {
    "one_pass": (
        ("pg:gae", "pg_spread:actor_critic", "pg_spread:gae", "pg_spread:leave_one_out"),
        ONE,
        12,
        1,
    ),
    "ppo": (("pg:ppo", "pg_spread:ppo"), FOUR, 24, 1),
    "ppo_32_seeds": (("pg:ppo", "pg_spread:ppo"), FOUR, 3, 32),
}


@dataclasses.dataclass
class Options:
    """The comparison, and its number of rounds."""

    settings: tuple[str, ...] = tuple(SETTINGS)
    """Settings, of one_pass (64 x 500 steps), ppo (64 x 128 steps, 4 epochs x 4 minibatches),
    ppo_32_seeds (under vmap).
    """
    peers: tuple[str, ...] = ("purejaxrl_style", "rejax", "jaxnasium", "sb3")
    """Programs to compare with."""
    python: tuple[str, ...] = ()
    """Interpreters, each NAME=PATH, of programs (pg is one) that are not to run in this one."""
    rounds: int = 7
    """Number of timed runs of each program."""
    divide: int = 1
    """Divides environments, steps and updates, for a quick try."""
    patience: float = 600
    """Seconds for one answer, after which a program is ended and left out."""
    json: Path | None = None
    """Also write all figures to this file, after every setting."""


def main() -> None:
    """Prints a table per setting: a row per program, with the speed of pg as a multiple of its."""
    options, found = cli.options(Options, cli.docstring_of(__file__)), {}
    for setting in options.settings:
        own, batch, updates, seeds = SETTINGS[setting]
        batch = batch | {name: batch[name] // options.divide for name in ("num_envs", "num_steps")}
        names = [*own, *(x for x in options.peers if x != "sb3" or seeds == 1)]
        spec = {"batch": batch, "num_updates": -(-updates // options.divide), "num_seeds": seeds}
        print(f"{setting}, {options.rounds} rounds of {spec}", flush=True)
        rows = found[setting] = figures(measure(names, spec, options))
        cells = [["", *next(iter(rows.values()))]]
        for name, row in rows.items():
            cells.append([name, *(f"{x:,.2f}" if x < 1e3 else f"{x:,.0f}" for x in row.values())])
        print(tables.plain(cells), flush=True)
        if options.json:
            folders.write_json(options.json, found)


def measure(
    names: list[str], spec: dict[str, Any], options: Options
) -> dict[str, list[dict[str, float]]]:
    """The answers of every program that is installed and comes to an end, one per round; the first
    compiles.
    """
    pythons = dict(pair.split("=", 1) for pair in options.python)
    commands = {
        name: [
            pythons.get(re.split("_spread|:", name)[0], sys.executable),
            WORKERS,
            name,
            json.dumps(spec),
        ]
        for name in names
    }
    return take_turns(commands, options.rounds, options.patience)


def figures(answers: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians of all runs but the first, how much longer that was, and medians of pg's speed over a
    program's.
    """
    found = {
        name: {key: median(x[key] for x in later) for key in later[0]}
        for name, (_, *later) in answers.items()
    }
    for name, row in found.items():
        row["compile s"] = answers[name][0]["seconds"] - row.pop("seconds")
        for own, key in itertools.product(
            [x for x in answers if x.startswith("pg")], ("steps/s", "steps/CPU s")
        ):
            pairs = list(zip(answers[own], answers[name], strict=True))[1:]
            row[f"{own[2:].strip('_:')} {key[6:]}"] = median(a[key] / b[key] for a, b in pairs)
    return found


if __name__ == "__main__":
    main()
