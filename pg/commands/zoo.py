"""List the trained policies that come with pg, and what they score.

pg.load_policy(NAME) loads one. With --benchmark they are rebuilt: the best seed of each good row of
a benchmark's folder, evaluated on other episodes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pg import numerals
from pg.commands import cli
from pg.inputs import check_name
from pg.reports import tables
from pg.runs import zoo
from pg.runs.zoo import Entry


@dataclasses.dataclass
class Options:
    """The policies that are listed, or made."""

    env: tuple[str, ...] = ()
    """Environments of the policies; none: all."""
    benchmark: Path | None = None
    """Folder of a benchmark from which the policies are made; none: they are listed."""
    out: Path = zoo.FOLDER
    """Folder of the policies; those of other names stay in it."""
    episodes: int = 1000
    """Number of episodes of an evaluation."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range, and for a folder that is not a
        benchmark's.
        """
        if self.episodes < 2:
            raise ValueError(f"episodes must be a whole number of at least 2, got {self.episodes}")
        if self.benchmark is not None and not self.benchmark.is_dir():
            raise ValueError(f"benchmark must be the folder of one, got {self.benchmark}")


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Prints the table. Returns the exit code, 0."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    try:
        if options.benchmark is not None:
            _make(options.benchmark, options)
        found = zoo.entries(options.out)
        if not found:
            raise ValueError(f"{options.out} has no policies")
        for env in options.env:
            check_name("env", env, dict.fromkeys(_env_of(x.name) for x in found))
        found = [x for x in found if _is_asked(x.name, options)]
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    print(table(found))
    return 0


def table(entries: Sequence[Entry]) -> str:
    """A line per policy, as text."""
    rows = [["name", "return ± s.e.", "actions", "episodes", "trained for", "seed", "commit"]]
    for entry in entries:
        error = numerals.fixed(entry.standard_error, entry.mean)
        rows.append(
            [
                entry.name,
                f"{numerals.fixed(entry.mean)} ± {error}",
                "greedy" if entry.greedy else "sampled",
                f"{entry.episodes:,}",
                f"{entry.env_steps:,} steps",
                str(entry.training_seed),
                entry.versions.get("pg", "")[:7],
            ]
        )
    return tables.plain(rows)


def _is_asked(name: str, options: Options) -> bool:
    """True for a policy of the environments that were named."""
    return not options.env or _env_of(name) in options.env


def _env_of(name: str) -> str:
    """The environment in the name of a policy."""
    return name.split("/", maxsplit=1)[0]


def _make(benchmark: Path, options: Options) -> None:
    """Makes the policies of a benchmark's folder, and says which are left out."""
    from pg.benchmarks import zoo as making

    cli.cache_compilations()
    for kept in making.selected(benchmark):
        if not _is_asked(kept.name, options):
            continue
        with cli.waiting(f"evaluating {kept.name}"):
            entry = making.make(kept, options.out, episodes=options.episodes)
        if entry is None:
            cli.say(f"{kept.name} has more than {making.LARGEST:,} bytes, and is left out")
