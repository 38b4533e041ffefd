"""Train a policy by policy gradient, evaluate it, and keep the run in a folder.

Exit codes: 0 done, 2 a mistake in the arguments, 3 a number was not finite or no action was legal
at a step, 74 the disk is full or not to be written to, 75 interrupted by SIGTERM or SIGUSR1 or by
the loss of a process of the job, 130 Ctrl-C. After 74, 75 and 130 `--resume RUN` goes on, bit for
bit; a second signal ends at once.
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
