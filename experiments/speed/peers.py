"""Compare the training speed of pg with that of other libraries, where these are installed.

Programs take turns, each in a process and, by --python, an environment of its own (rejax 0.1.3
needs gymnax < 1.0). The figures of every setting are kept in the file of --json beside those of
the others, and --report makes the table of a page of them.
"""

import dataclasses
import itertools
import json
import os
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from peer_turns import take_turns

from pg.commands import cli
from pg.inputs import check_name
from pg.reports import tables
from pg.runs import folders

WORKERS = str(Path(__file__).with_name("peer_workers.py"))
MARKS = ("<!-- peers -->", "<!-- end of peers -->")
PEERS = {
    "purejaxrl": "purejaxrl",
    "purejaxrl_style": "its style",
    "rejax": "rejax",
    "jaxnasium": "jaxnasium",
    "sb3": "SB3",
}
CARTPOLE, BREAKOUT, PENDULUM = "CartPole-v1", "Breakout-MinAtar", "Pendulum-v1"
PPO = ("pg:ppo", "pg:ppo:rows", "pg_spread:ppo", "pg_spread:ppo:rows")
ONE_PASS = ("pg:gae", "pg_spread:gae", "pg_spread:actor_critic", "pg_spread:leave_one_out")


class Setting(NamedTuple):
    """One comparison: the task, the batch, and the programs of pg."""

    title: str
    env: str = CARTPOLE
    hidden_sizes: tuple[int, ...] = (64, 64)
    network: str = "mlp"
    num_steps: int = 128
    epochs: int = 4  # and as many minibatches
    num_updates: int = 4
    num_seeds: int = 1
    own: tuple[str, ...] = PPO

    def spec(self, divide: int) -> dict[str, Any]:
        """The settings for a worker. divide: of environments, steps and updates."""
        return {
            "task": {
                "env": self.env,
                "hidden_sizes": self.hidden_sizes,
                "network": self.network,
            },
            "batch": {
                "num_envs": 64 // divide,
                "num_steps": self.num_steps // divide,
                "num_epochs": self.epochs,
                "num_minibatches": self.epochs,
            },
            "num_updates": -(-self.num_updates // divide),
            "num_seeds": self.num_seeds,
        }


SETTINGS = {
    "one_pass": Setting("one pass, CartPole 64²", num_steps=500, epochs=1, own=ONE_PASS),
    "ppo": Setting("ppo, CartPole 64²", num_updates=16),
    "ppo_256": Setting("ppo, CartPole 256²", hidden_sizes=(256, 256), num_updates=2),
    # fewer steps, as each takes long
    "ppo_1024": Setting(
        "ppo, CartPole 1024²", hidden_sizes=(1024, 1024), num_steps=32, num_updates=4
    ),
    "ppo_breakout": Setting("ppo, Breakout as MLP", BREAKOUT, num_updates=2),
    "ppo_breakout_cnn": Setting("ppo, Breakout as CNN", BREAKOUT, network="cnn", num_updates=1),
    "ppo_pendulum": Setting("ppo, Pendulum 64²", PENDULUM, num_updates=16),
    "ppo_32_seeds": Setting("ppo, CartPole 64², 32 seeds", num_updates=3, num_seeds=32),
}


@dataclasses.dataclass
class Options:
    """The comparison, and its number of rounds."""

    settings: tuple[str, ...] = tuple(SETTINGS)
    """Settings: one_pass (64 x 500 steps); ppo (64 x 128 steps, 4 epochs x 4 minibatches) by
    network and environment; ppo_32_seeds (under vmap).
    """
    peers: tuple[str, ...] = tuple(PEERS)
    """Programs to compare with."""
    python: tuple[str, ...] = ()
    """Interpreters, each NAME=PATH, of programs (pg is one) that are not to run in this one."""
    source: tuple[str, ...] = ()
    """Checkouts of software that is not a package, each NAME=PATH: purejaxrl."""
    rounds: int = 7
    """Number of timed runs of each program."""
    divide: int = 1
    """Divides environments, steps and updates, for a quick try."""
    patience: float = 600
    """Seconds for one answer, after which a program is ended and left out."""
    json: Path | None = None
    """Keep all figures in this file, after every setting, beside those of other settings."""
    report: Path | None = None
    """Page in which the table of --json replaces the lines between `<!-- peers -->` and
    `<!-- end of peers -->`; nothing is measured.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for what does not exist or does not fit together."""
        for name in self.settings:
            check_name("setting", name, SETTINGS)
        for name in self.peers:
            check_name("peer", name, PEERS)
        if self.report is not None and self.json is None:
            raise ValueError("report needs the figures: give --json FILE")
        if self.rounds < 1 or self.divide < 1:
            raise ValueError("rounds and divide must be at least 1")


def main() -> None:
    """Prints a table per setting: one row per program, with pg's speed relative to it."""
    options = cli.options(Options, cli.docstring_of(__file__))
    if options.report and options.json:
        tables.insert(options.report, report(json.loads(options.json.read_text("utf-8"))), MARKS)
        return
    for name in options.settings:
        setting = SETTINGS[name]
        spec = setting.spec(options.divide)
        print(f"{setting.title}, {options.rounds} rounds of {spec}", flush=True)
        found = measure(setting, spec, options)
        print(shown(found["rows"]), flush=True)
        if options.json:
            there = json.loads(options.json.read_text("utf-8")) if options.json.is_file() else {}
            folders.write_json(options.json, there | {name: found})


def measure(setting: Setting, spec: dict[str, Any], options: Options) -> dict[str, Any]:
    """The figures of every program that is installed and comes to an end, the reasons why others
    are left out, and what was compared.
    """
    pythons = dict(pair.split("=", 1) for pair in options.python)
    sources = dict(pair.split("=", 1) for pair in options.source)
    names = [*setting.own, *options.peers]
    if setting.num_seeds > 1 and "sb3" in names:
        names.remove("sb3")  # it trains one seed
    commands = {
        name: [
            pythons.get(re.split("_spread|:", name)[0], sys.executable),
            WORKERS,
            name,
            json.dumps(spec),
        ]
        for name in names
    }
    variables = {name.upper(): path for name, path in sources.items()}
    turns = take_turns(commands, options.rounds, options.patience, variables)
    versions = {re.split("_spread|:", name)[0]: x["versions"] for name, x in turns.ready.items()}
    return {
        "rows": figures(turns.answers),
        "left_out": turns.left_out,
        "versions": versions,
        "spec": spec,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
    }


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
            row[f"{own} {key[6:]}"] = median(a[key] / b[key] for a, b in pairs)
    return found


def shown(rows: dict[str, dict[str, float]]) -> str:
    """The rows of one setting, for people."""
    if not rows:
        return "no program came to an end"
    cells = [["", *next(iter(rows.values()))]]
    for name, row in rows.items():
        cells.append([name, *(f"{x:,.2f}" if x < 1e3 else f"{x:,.0f}" for x in row.values())])
    return tables.plain(cells)


def report(found: dict[str, dict[str, Any]]) -> str:
    """The page's table of all settings that were measured, with what was left out and versions."""
    cells = [["", *PEERS.values(), "compile, s", "processor s per M steps"]]
    for name, setting in SETTINGS.items():
        if name in found:
            cells += block(setting, found[name]["rows"])
    measured = [found[name] for name in SETTINGS if name in found]
    rounds = sorted({x["rounds"] for x in measured})
    counts = f"Medians of {' or '.join(map(str, rounds))} rounds on {measured[0]['cores']} cores."
    versions: dict[str, dict[str, str]] = {}
    for one in measured:
        versions |= one["versions"]
    lines = [f"{PEERS.get(name, name)}: {listed(x)}." for name, x in versions.items()]
    reasons = [
        f"{SETTINGS[name].title}, {program_title(program)}: {reason}."
        for name in SETTINGS
        for program, reason in found.get(name, {}).get("left_out", {}).items()
    ]
    out = [tables.markdown(cells), f"{counts} Left out: " + " ".join(reasons or ["nothing."])]
    return "\n\n".join([*out, "Versions. " + " ".join(lines)]) + "\n"


def block(setting: Setting, rows: dict[str, dict[str, float]]) -> list[list[str]]:
    """The rows of one setting: of every program of pg its speed as a multiple of each peer's, by
    the clock and of a second of processor time; then the peers' own figures.
    """
    width = len(PEERS)
    lines = [[f"**{setting.title}**", *[""] * (width + 2)]]
    for own in setting.own:
        if own not in rows:
            continue
        ratios = [
            f"{rows[peer][f'{own} s']:.2f} · {rows[peer][f'{own} CPU s']:.2f}"
            if peer in rows
            else "–"
            for peer in PEERS
        ]
        figures_of_own = [f"{rows[own]['compile s']:.1f}", processor_seconds(rows[own])]
        lines.append([program_title(own), *ratios, *figures_of_own])
    compiled = [f"{rows[peer]['compile s']:.1f}" if peer in rows else "–" for peer in PEERS]
    taken = [processor_seconds(rows[peer]) if peer in rows else "–" for peer in PEERS]
    lines.append(["their compile, s", *compiled, "", ""])
    lines.append(["their processor s per M steps", *taken, "", ""])
    return lines


def processor_seconds(row: dict[str, float]) -> str:
    """The seconds of processor time for a million environment steps, to two digits or more."""
    seconds = 1e6 / row["steps/CPU s"]
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def program_title(name: str) -> str:
    """A program's name on the page."""
    if not name.startswith("pg"):
        return PEERS[name]
    program, estimator, *how = name.split(":")
    where = "spread" if program == "pg_spread" else "one device"
    return f"`{estimator}`, {where}{', shuffled rows' if how else ''}"


def listed(versions: dict[str, str]) -> str:
    """Packages and their versions."""
    return ", ".join(f"{name} {version[:12]}" for name, version in versions.items())


if __name__ == "__main__":
    main()
