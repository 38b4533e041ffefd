"""The console command `pg`: a table of its commands, each a module that is imported when it is
called.

Imports none of them, nor the parser of flags, so that `pg --help` answers at once.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from pg import __version__
from pg.commands import clock
from pg.inputs import nearest
from pg.runs import encoding, interrupts

__all__ = ["COMMANDS", "Command", "main"]

MISTAKE = 2  # as `cli.MISTAKE`


class Command(NamedTuple):
    """A command of `pg`."""

    module: str  # below `pg.commands`; its `main(argv, prog)` returns the exit code
    summary: str  # its line in the help


# In the order of the help: a run, several runs, estimators.
COMMANDS = {
    "train": Command("train", "train a policy, evaluate it, and keep the run in a folder"),
    "resume": Command("resume", "resume an interrupted run, or lengthen a finished one"),
    "evaluate": Command("evaluate", "evaluate a run again: more episodes, greedy, another seed"),
    "render": Command("render", "draw what the policy of a run does"),
    "export": Command("export", "write a run's policy as programs that act without pg"),
    "zoo": Command("zoo", "list the trained policies that come with pg"),
    "replay": Command("replay", "run a folder's settings again and compare bit for bit"),
    "sweep": Command("sweep", "train settings x seeds in one program, and rank them"),
    "tune": Command("tune", "search hyperparameters at random, and print a preset"),
    "benchmark": Command("benchmark", "run a suite of environments and estimators over seeds"),
    "compare": Command("compare", "compare runs with one another, with intervals and plots"),
    "check": Command("check", "check an estimator, also your own, against exact figures"),
    "table": Command("table", "exact bias and variance of every estimator"),
    "sequences": Command("sequence_table", "exact figures of policy gradients over sequences"),
    "variance": Command("variance", "compare estimators on snapshots of a training run"),
    "leaderboard": Command("leaderboard", "environment steps for a given cosine to the gradient"),
}
USAGE = "usage: pg COMMAND [FLAGS]"


def main(argv: Sequence[str] | None = None) -> int:
    """Calls a command.

    Args:
        argv: the command line, the command's name first; None: that of this process.

    Returns:
        The exit code: that of the command, or 2 if there is no command of that name.
    """
    encoding.make_streams_readable()
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    if name in COMMANDS:
        with clock.of_command():
            try:
                with interrupts.listening(), interrupts.held("loading"):
                    module = importlib.import_module(f"pg.commands.{COMMANDS[name].module}")
            except interrupts.Interrupted as error:
                from pg.commands import cli  # which every command has loaded

                print("interrupted while loading: nothing has been started", file=sys.stderr)
                return cli.interrupted(error.signum)
            return int(module.main(words[1:], f"pg {name}"))
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"pg {__version__}")
        return 0
    print(help_text() if not words else f"error: {_unknown(name)}", file=sys.stderr)
    return MISTAKE


def help_text() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            USAGE,
            "",
            "Policy gradients in JAX: every estimator tested against its exact expectation.",
            "",
            *lines,
            "",
            "pg COMMAND --help lists the flags of a command; pg --version, the version.",
            "With --traceback a command shows the calls behind an error in your own code.",
        ]
    )


def _unknown(name: str) -> str:
    """A sentence on a word that is not a command."""
    if name.startswith("-"):
        return f"a command comes before its flags, as in pg train {name}; pg --help lists them"
    near = nearest(name, COMMANDS)
    hint = f"did you mean {' or '.join(near)}?" if near else "pg --help lists all"
    return f"there is no command {name}: {hint}"
