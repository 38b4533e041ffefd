"""Resume an interrupted run, bit for bit, or add updates to a finished one.

RUN is the folder that pg train printed last; the settings are those of the run. These flags may be
given too: --num-updates, if no schedule depends on it, --on-nonfinite, --strict, the checkpoints,
and the devices of the machine. Exit codes are those of the train command.
"""

import sys
from collections.abc import Sequence

from pg.commands import cli, job


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code, as the train command does."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and not {"-h", "--help", "--version"} & set(words)):
        cli.fail("the folder of the run comes first, as in pg resume RUN --num-updates 600")
    if not words[0].startswith("-"):
        words.insert(0, "--resume")
    config, hyperparams, options, machine = cli.parse(
        prog and f"{prog} RUN", cli.docstring_of(__file__), job.Options, words
    )
    cli.cache_compilations()
    return job.run(config, hyperparams, options, machine)
