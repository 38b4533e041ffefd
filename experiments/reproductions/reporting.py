"""What the reproductions share: the flags of their files, the report of claims and figures, and
their pictures.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pg.commands import cli
from pg.reports import plots
from pg.reports.plots import BLUE
from pg.runs import files, folders

GREY = "0.45"  # of bounds


@dataclasses.dataclass
class Files:
    """Where the figure and the numbers go."""

    out: Path = Path("results/reproductions")
    """Folder of the figure, as PNG and SVG."""
    json: Path | None = None
    """File for every number, as JSON; none: only what is printed."""

    def check(self) -> None:
        """Raises ValueError, naming the flag, for a number out of range."""


FilesT = TypeVar("FilesT", bound=Files)


def options(kind: type[FilesT], script: str) -> FilesT:
    """The flags, before jax is imported. Exits with code 2 and one sentence on a mistake."""
    given = cli.options(kind, cli.docstring_of(script))
    try:
        given.check()
        for folder in (given.out, *([given.json.parent] if given.json else [])):
            files.make_folder(folder)
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail(f"cannot make the folder {error.filename}: {error.strerror}")
    cli.cache_compilations()
    return given


def at_least(low: float, **flags: float) -> None:
    """Raises ValueError unless every flag is a finite number of at least `low`."""
    for name, value in flags.items():
        if not low <= value < math.inf:
            raise ValueError(f"{name} must be at least {low:g} and finite, got {value:g}")


def between(low: float, high: float, **flags: float) -> None:
    """Raises ValueError unless every flag is strictly between `low` and `high`."""
    for name, value in flags.items():
        if not low < value < high:
            raise ValueError(f"{name} must be above {low:g} and below {high:g}, got {value:g}")


class Figure(NamedTuple):
    """A number that was found, and the range in which it supports the claim."""

    what: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    interval: Sequence[float] = ()  # of 95 %

    @property
    def holds(self) -> bool:
        """Whether the number lies in the range; not if it is NaN."""
        return bool(self.low <= self.value <= self.high)

    def __str__(self) -> str:
        """`what: value [interval] (criterion)`."""
        ends = [
            f"{sign} {end:g}"
            for sign, end in (("≥", self.low), ("≤", self.high))
            if math.isfinite(end)
        ]
        spread = f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]" if len(self.interval) else ""
        return f"{self.what}: {self.value:.4g}{spread}" + (
            f" (must be {' and '.join(ends)})" if ends else ""
        )


@dataclasses.dataclass
class Claim:
    """What a paper says, with the place; what was compared where its numbers are not at hand; what
    was found.
    """

    text: str
    compared: str
    figures: list[Figure]

    @property
    def holds(self) -> bool:
        """Whether there are figures, and all of them support the claim."""
        return bool(self.figures) and all(figure.holds for figure in self.figures)


def share(events: np.ndarray) -> tuple[float, float, float]:
    """Of runs in which something was so, [runs] bool, and its Clopper-Pearson interval of 95 %."""
    from scipy.stats import binomtest

    interval = binomtest(int(np.sum(events)), len(events)).proportion_ci()
    return float(np.mean(events)), float(interval.low), float(interval.high)


def verdict(claims: Sequence[Claim]) -> str:
    """`reproduced`, or `partly reproduced: ` or `not reproduced: ` and which claims have no
    support.
    """
    missing = [str(i) for i, claim in enumerate(claims, 1) if not claim.holds]
    if not missing:
        return "reproduced"
    extent = "partly" if len(missing) < len(claims) else "not"
    return (
        f"{extent} reproduced: no support for {'claims' if missing[1:] else 'claim'} "
        f"{', '.join(missing)}"
    )


class Line(NamedTuple):
    """A curve of a panel, or points with their intervals."""

    x: Any  # [K]
    y: Any  # [K], or [K, lines] that look alike
    label: str = ""
    colour: str = BLUE
    style: str = "-"  # with "o": points, and intervals as bars
    band: Any = None  # lower and upper ends, [2, K]


class Panel(NamedTuple):
    """A picture beside others."""

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    log: str = ""  # the axes on a log scale: "x", "y" or "xy"
    ylim: tuple[float | None, float | None] = (None, None)


class Report:
    """Tells a paper's claims one by one, what was found of each, and the verdict."""

    def __init__(self, name: str, paper: str, given: Files) -> None:
        self.name, self.paper, self.given = name, paper, given
        self.claims: list[Claim] = []
        print(paper)

    def claim(self, text: str, compared: str = "") -> None:
        """The next claim, with its place. compared: what was, where the paper's number is not known
        for certain.
        """
        self.claims.append(Claim(text, compared, []))
        print(
            f"\nclaim {len(self.claims)}: {text}"
            + (f"\n  compared: {compared}" if compared else ""),
            flush=True,
        )

    def found(
        self,
        what: str,
        value: Any,
        low: float = -math.inf,
        high: float = math.inf,
        interval: Any = (),
    ) -> None:
        """A figure for the last claim, which it supports from `low` to `high`."""
        self.claims[-1].figures.append(
            Figure(what, float(value), low, high, [float(x) for x in interval])
        )
        print(f"  found: {self.claims[-1].figures[-1]}", flush=True)

    def end(self, panels: Sequence[Panel]) -> None:
        """Prints the verdict; draws the panels; writes the JSON file if one is asked for."""
        path = self.given.out / self.name
        draw(path, panels)
        print(
            f"\nverdict: {verdict(self.claims)}\n{path}.png and .svg, {time.process_time():.0f} "
            f"s of computing"
        )
        if self.given.json:
            claims = [
                {
                    "text": c.text,
                    "compared": c.compared,
                    "holds": c.holds,
                    "figures": [f._asdict() for f in c.figures],
                }
                for c in self.claims
            ]
            flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.given).items()}
            found = {
                "paper": self.paper,
                "verdict": verdict(self.claims),
                "claims": claims,
                "options": flags,
            }
            folders.write_json(self.given.json, {**found, "versions": folders.environment()})


@plots.style()
def draw(path: Path, panels: Sequence[Panel]) -> None:
    """The panels side by side, one legend above all, as PNG and SVG."""
    from matplotlib.figure import Figure as Canvas  # without pyplot: no backend is chosen

    canvas = Canvas(figsize=(plots.WIDTH, 2.8))
    entries: dict[tuple[str, str, str], Any] = {}  # one for the lines that look alike
    for axes, panel in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in panel.lines:
            first, *_ = axes.plot(
                line.x, line.y, line.style, color=line.colour, label=line.label or None
            )
            if line.label:
                entries.setdefault((line.label, line.colour, line.style), first)
            if line.band is not None and "o" in line.style:
                axes.vlines(line.x, *line.band, color=line.colour, linewidth=1.0)
            elif line.band is not None:
                axes.fill_between(line.x, *line.band, color=line.colour, alpha=0.18, linewidth=0)
        for axis in "xy":
            getattr(axes, f"set_{axis}scale")("log" if axis in panel.log else "linear")
        axes.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel, ylim=panel.ylim)
    if entries:
        plots.legend(canvas, list(entries.values()))
    plots.save(canvas, path.with_suffix(".png"))


def thinned(count: int, points: int = 300) -> np.ndarray:
    """Indices below `count`, evenly spaced on a log scale: enough to draw a long curve."""
    return np.unique(np.geomspace(1, count, points).astype(int)) - 1
