"""Train a policy by policy gradient, evaluate it, and keep the run in a folder.

Exit codes: 0 done, 1 an environment in Python failed, 2 invalid arguments, 3 a number was not
finite or a step had no legal action, 74 the disk is full or read-only, 75 stopped by SIGTERM or
SIGUSR1 or because a process of the job was lost, 130 Ctrl-C. After 1, 74, 75 and 130 `--resume RUN`
continues, bitwise identical to an uninterrupted run; a second signal exits at once.
"""

from collections.abc import Sequence

from pg.commands import cli, job


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code."""
    config, hyperparams, options, machine = cli.parse(
        prog, cli.docstring_of(__file__), job.Options, argv
    )
    cli.cache_compilations()
    return job.run(config, hyperparams, options, machine)
