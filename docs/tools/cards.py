"""Writes docs/cards.md and docs/images/cards: a card for every row of the table of facts.

    python docs/tools/cards.py

Nothing is computed anew. Exact figures are those of docs/estimators.md, sampled ones those of
docs/leaderboard, and the families are the sections of docs/science/estimators.md. It is to be run
again when one of them or the table of facts changes.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pg import numerals, tuned
from pg.benchmarks.combinations import is_combination
from pg.estimators.facts import FACTS, ON_TABLES, Facts
from pg.reports import plots, tables
from pg.runs import files

DOCS = Path(__file__).parents[1]
PICTURES = Path("images") / "cards"  # in docs
MARKS = ("<!-- cards -->", "<!-- end of cards -->")
SNAPSHOT, SEED = "middle", "1"  # of the leaderboard's files
NO_FAMILY = "The theorem"  # of estimators that no section of the science explains
COLUMNS = 4
DOTS_PER_INCH = 110


class Row(NamedTuple):
    """A row of one of the leaderboard's tables: an estimator on a problem."""

    problem: str
    estimator: str
    cells: Mapping[str, str]


def leaderboard_rows(path: Path) -> list[Row]:
    """The rows of a table of the leaderboard that cards show: one snapshot and one seed, and no
    combinations.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        Row(line["problem"], line["estimator"], line)
        for line in lines
        if (line["snapshot"], line["seed"]) == (SNAPSHOT, SEED)
        if not is_combination(line["estimator"])
    ]


def exact_figures(page: str) -> tuple[list[str], dict[str, list[list[str]]]]:
    """The problems of the exact table, and of each estimator its bias, variance and signal to
    noise, each on all problems.
    """
    intro, _, rest = page.partition("<!-- table -->")
    problems = re.findall(r"^- \*\*(\w+)\*\*:", intro, re.MULTILINE)
    table = rest.partition("<!-- end of table -->")[0]
    figures = {}
    for line in table.strip().splitlines()[2:]:
        name, *_, bias, variance, signal = line.strip("| ").split(" | ")
        if bias == "—":  # for continuous actions alone, which no table has
            continue
        figures[name.strip("`")] = [cell.split(" · ") for cell in (bias, variance, signal)]
    return problems, figures


def families(page: str) -> dict[str, list[str]]:
    """The estimators by section of the page on the family: that in which each first occurs."""
    found: dict[str, list[str]] = {NO_FAMILY: []}
    listed: set[str] = set()
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        names = set(re.findall(r"{py:func}`~?pg\.estimators\.\w+\.(\w+)`", section))
        found[title] = [name for name in FACTS if name in names - listed]
        listed |= names
    found[NO_FAMILY] = [name for name in FACTS if name not in listed]
    return {title: names for title, names in found.items() if names}


def linked(source: str) -> str:
    """A source with links from its numbers at arXiv."""
    return re.sub(r"\d{4}\.\d{4,5}", r"[\g<0>](https://arxiv.org/abs/\g<0>)", source)


def preset(name: str) -> str:
    """The settings of an estimator's preset, on an environment that has none of its own."""
    settings = tuned.defaults(name, env="")
    del settings["estimator"]
    written = ", ".join(f"`{field}={_text(value)}`" for field, value in settings.items())
    return written or "the defaults"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def stated(name: str, facts: Facts) -> str:
    """The lines of a card that say what is stated of an estimator."""
    where = f", {facts.where}" if facts.where else ""
    proof = "test_unbiased.py" if name in ON_TABLES else "test_continuous_actions.py"
    lines = {
        "Unbiased for": facts.unbiased_in_words,
        "Variance": facts.variance,
        "Needs": facts.needs,
        "Paper": linked(facts.source),
        "Code": f"{{py:func}}`pg.estimators.{facts.module}.{name}`",
        "Proof": f'`pytest tests/exact/{proof} -k "[{name}"`',
        "Preset": preset(name),
    }
    psi = f"- Ψₜ = {facts.psi}{where}"
    return "\n".join([psi, *(f"- {label}: {text}" for label, text in lines.items())])


def exact_table(problems: Sequence[str], figures: Sequence[Sequence[str]]) -> str:
    """The exact figures of an estimator, a column per problem."""
    labels = ("bias", "variance, of `reinforce` = 1", "signal to noise")
    rows = [(label, *cells) for label, cells in zip(labels, figures, strict=True)]
    return tables.markdown([("exact", *problems), *rows])


def cost_table(costs: Mapping[str, Mapping[str, str]]) -> str:
    """The sampled cost of an estimator, a column per problem.

    costs: problem -> cells of the estimator's row; none where it does not apply.
    """
    steps = [_cost(cells) if cells else "—" for cells in costs.values()]
    return tables.markdown([("sampled", *costs), ("steps to 0.9", *steps)])


def _cost(cells: Mapping[str, str]) -> str:
    value, low, high = (float(cells[f"steps_for_0_9{end}"]) for end in ("", "_low", "_high"))
    if math.isnan(value):
        return "—"
    return f"{numerals.short(value)} [{numerals.short(low)}, {numerals.short(high)}]"


def cards(docs: Path = DOCS) -> str:
    """The table of contents and the cards, from the files in `docs`."""
    problems, figures = exact_figures((docs / "estimators.md").read_text(encoding="utf-8"))
    of_family = families((docs / "science" / "estimators.md").read_text(encoding="utf-8"))
    qualities = leaderboard_rows(docs / "leaderboard" / "quality.csv")
    drawn = curves(docs)
    measured: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in qualities:
        measured.setdefault(row.estimator, {})[row.problem] = row.cells
    sampled_problems = list(dict.fromkeys(row.problem for row in qualities))

    def card(name: str) -> str:
        parts = [f"### `{name}`", stated(name, FACTS[name])]
        if name in figures:
            parts.append(exact_table(problems, figures[name]))
        if name in measured:
            costs = {problem: measured[name].get(problem, {}) for problem in sampled_problems}
            parts.append(cost_table(costs))
        if name in drawn:
            alt = f"Expected cosine to the gradient against environment steps: {name}"
            parts.append(f"![{alt}]({(PICTURES / name).as_posix()}.png)")
        return "\n\n".join(parts)

    contents, sections = [("family", "cards")], []
    for title, names in of_family.items():
        contents.append((title, ", ".join(f"[`{name}`](#{name})" for name in names)))
        sections += [f"## {title}", *map(card, names)]
    return "\n\n".join(["", tables.markdown(contents), *sections, ""])


class Line(NamedTuple):
    """Expected cosines of an estimator on a problem with their intervals, [K] each."""

    steps: list[float]
    cosine: list[float]
    low: list[float]
    high: list[float]


def curves(docs: Path = DOCS) -> dict[str, dict[str, Line]]:
    """The curves of each estimator in the table of facts, by problem."""
    found: dict[str, dict[str, Line]] = {}
    for row in leaderboard_rows(docs / "leaderboard" / "cosines.csv"):
        if row.estimator not in FACTS:
            continue
        line = found.setdefault(row.estimator, {}).setdefault(row.problem, Line([], [], [], []))
        columns = ("steps", "cosine", "cosine_low", "cosine_high")
        for values, column in zip(line, columns, strict=True):
            values.append(float(row.cells[column]))
    return found


@plots.style()
def draw(name: str, of_estimator: Mapping[str, Mapping[str, Line]], path: Path) -> None:
    """Plots the curves of one estimator over those of all others, a panel per problem that it has,
    as a PNG of few colours.
    """
    from matplotlib.figure import Figure

    own = of_estimator[name]
    rows = -(-len(own) // COLUMNS)
    width, height = plots.WIDTH, 1.2 * rows + 0.3  # inches
    # Fixed margins: fitting them to the labels would take most of the time.
    figure = Figure(figsize=(width, height), layout="none")  # type: ignore[arg-type]  # no stub
    figure.subplots_adjust(
        left=0.5 / width,
        right=1 - 0.1 / width,
        bottom=0.42 / height,
        top=1 - 0.22 / height,
        hspace=0.7,
        wspace=0.1,
    )
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).ravel()
    lowest = min(0.0, *(min(line.cosine) for line in own.values()))
    for axes, (problem, line) in zip(grid, own.items(), strict=False):
        for other, lines in of_estimator.items():
            if other != name and problem in lines:
                axes.plot(lines[problem].steps, lines[problem].cosine, color="0.8", linewidth=0.6)
        axes.axhline(0.9, **plots.LEVEL)
        band = {"color": plots.BLUE, "alpha": 0.25, "linewidth": 0}
        axes.fill_between(line.steps, line.low, line.high, **band)
        axes.plot(line.steps, line.cosine, color=plots.BLUE, linewidth=1.6)
        axes.set(xscale="log", ylim=(lowest - 0.05, 1.05), title=problem, yticks=(0, 0.5, 0.9))
        axes.minorticks_off()
        axes.grid(visible=False)
    for axes in grid[len(own) :]:
        axes.remove()
    figure.supxlabel("environment steps", y=0.02)
    figure.supylabel("expected cosine to ∇J", x=0.01)
    files.replace(path, lambda file: file.write(_few_colours(figure)))


def _few_colours(figure: Any) -> bytes:
    """A figure as PNG of 16 colours."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(16, dither=Image.Dither.NONE).save(packed, format="png", optimize=True)
    return packed.getvalue()


def main() -> None:
    """Writes the cards and a picture for each estimator that was measured, and removes others."""
    tables.insert(DOCS / "cards.md", cards(), MARKS)
    of_estimator = curves()
    folder = DOCS / PICTURES
    files.make_folder(folder)
    for name in of_estimator:
        draw(name, of_estimator, folder / f"{name}.png")
    for path in folder.glob("*.png"):
        if path.stem not in of_estimator:
            path.unlink()


if __name__ == "__main__":
    main()
