"""Films of the zoo's best policy for each environment that can be rendered, and a page of them.

$ python experiments/gallery.py --out docs/images/gallery --report docs/gallery.md
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pg import numerals
from pg.commands import cli, render
from pg.reports import drawings, tables
from pg.runs import folders, zoo
from pg.runs.zoo import Entry

MARKS = ("<!-- gallery -->", "<!-- end of gallery -->")
COLUMNS = 2


@dataclasses.dataclass
class Options:
    """The films, and the page."""

    out: Path = Path("results/gallery")
    """Folder of the films, created if missing."""
    report: Path | None = None
    """File in which a table of the films replaces the lines between `<!-- gallery -->` and
    `<!-- end of gallery -->`; the folder of the films has to be below it.
    """
    steps: int = 100
    """Largest number of rendered steps of an episode."""


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the films. Returns the exit code, 0."""
    options = cli.options(Options, cli.docstring_of(__file__), argv)
    if options.report:
        tables.check_marks(options.report, MARKS)
    options.out.mkdir(parents=True, exist_ok=True)
    shown = best_drawn(zoo.entries())
    for entry in shown:
        film = film_of(entry, options.out)
        asked = [entry.name, "--out", str(film), "--steps", str(options.steps)]
        asked += ["--greedy"] if entry.greedy else []
        if render.main(asked) != 0:
            return 1
        for suffix in (".png", ".svg"):  # strips, which the page does not show
            film.with_suffix(suffix).unlink()
    if options.report:
        tables.insert(options.report, page(shown, options.out, options.report), MARKS)
    return 0


def best_drawn(entries: Sequence[Entry]) -> list[Entry]:
    """The policy with the highest return for each environment that can be rendered; ties go to the
    shortest name, which is not a variant.
    """
    best: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: (-entry.mean, len(entry.name), entry.name)):
        env = folders.read_stored(zoo.FOLDER / entry.name)["config"]["env"]
        if env in drawings.DRAWINGS:
            best.setdefault(env, entry)
    return sorted(best.values(), key=lambda entry: entry.name)


def film_of(entry: Entry, out: Path) -> Path:
    """The file of a film."""
    return out / f"{entry.name.replace('/', '-')}.gif"


def page(shown: Sequence[Entry], out: Path, report: Path) -> str:
    """The table of the films in Markdown, `COLUMNS` in a row, each above its caption."""
    cells = []
    for entry in shown:
        film = film_of(entry, out).resolve().relative_to(report.resolve().parent)
        score = f"{numerals.fixed(entry.mean)} ± {numerals.fixed(entry.standard_error, entry.mean)}"
        text = f"`{entry.name}`, {score}"
        cells.append(f"![{entry.name}, as it acts]({film.as_posix()})<br>{text}")
    cells += [""] * (-len(cells) % COLUMNS)
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    head = [f"| {' | '.join([''] * COLUMNS)} |", f"|{' --- |' * COLUMNS}"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    raise SystemExit(main())
