"""The common parts of the reproductions: flags for files, the report of claims and figures,
plots.
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
from pg.reports.statistics import Estimate
from pg.runs import files, folders

GREY = "0.45"  # for bounds


@dataclasses.dataclass
class Files:
    """The files of the figure and of the numbers."""

    out: Path = Path("results/reproductions")
    """Folder of the figure, as PNG and SVG."""
    json: Path | None = None
    """JSON file with every number; none: numbers are only printed."""

    def check(self) -> None:
        """Raises ValueError, naming the flag, for a number out of range."""


FilesT = TypeVar("FilesT", bound=Files)


def options(kind: type[FilesT], script: str) -> FilesT:
    """The flags, before jax is imported. Exits with code 2 and one sentence on a mistake."""
    chosen = cli.options(kind, cli.docstring_of(script))
    try:
        chosen.check()
        for folder in (chosen.out, *([chosen.json.parent] if chosen.json else [])):
            files.make_folder(folder)
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail(f"cannot make the folder {error.filename}: {error.strerror}")
    cli.cache_compilations()
    return chosen


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
    """A measured number, and the range in which it supports the claim."""

    name: str
    estimate: Estimate  # with NaN ends if there is no interval
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def holds(self) -> bool:
        """True if the number is in the range; False for NaN."""
        return bool(self.at_least <= self.estimate.value <= self.at_most)

    def __str__(self) -> str:
        """`name: value [interval] (criterion)`."""
        value, low, high = self.estimate
        interval = "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
        ends = []
        if math.isfinite(self.at_least):
            ends.append(f"≥ {self.at_least:g}")
        if math.isfinite(self.at_most):
            ends.append(f"≤ {self.at_most:g}")
        criterion = f" (must be {' and '.join(ends)})" if ends else ""
        return f"{self.name}: {value:.4g}{interval}{criterion}"


@dataclasses.dataclass
class Claim:
    """A claim of a paper, and the figures that support it or not."""

    text: str  # with its place in the paper
    compared: str  # the numbers for comparison, if the paper's are not available
    figures: list[Figure]

    @property
    def holds(self) -> bool:
        """True if there are figures, and all of them support the claim."""
        return bool(self.figures) and all(figure.holds for figure in self.figures)


def share(events: np.ndarray) -> Estimate:
    """The share of runs with an event, [runs] bool, and its 95 % Clopper-Pearson interval."""
    from scipy.stats import binomtest

    interval = binomtest(int(np.sum(events)), len(events)).proportion_ci()
    return Estimate(float(np.mean(events)), float(interval.low), float(interval.high))


def stacked(estimates: Sequence[Estimate]) -> Estimate:
    """K scalar estimates as one estimate of arrays, [K]."""
    return Estimate(*np.array(estimates).T)


def verdict(claims: Sequence[Claim]) -> str:
    """`reproduced`, or `partly reproduced: ` or `not reproduced: ` with the unsupported claims."""
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
    y: Any  # [K], or [K, lines] with the same style, or an `Estimate` of [K]
    label: str = ""
    colour: str = BLUE
    style: str = "-"  # with "o": points, and intervals as bars; else intervals are a band


class Panel(NamedTuple):
    """One panel of the figure."""

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    log: str = ""  # the axes on a log scale: "x", "y" or "xy"
    ylim: tuple[float | None, float | None] = (None, None)


class Report:
    """The claims of a paper, the figures for each, and the verdict, printed as they are added."""

    def __init__(self, name: str, paper: str, given: Files) -> None:
        self.name, self.paper, self.given = name, paper, given
        self.claims: list[Claim] = []
        self.limits = ""
        print(paper)

    def claim(self, text: str, compared: str = "") -> None:
        """Adds a claim.

        compared: the numbers for comparison, if the paper's are not known for certain.
        """
        self.claims.append(Claim(text, compared, []))
        print(f"\nclaim {len(self.claims)}: {text}", flush=True)
        if compared:
            print(f"  compared: {compared}", flush=True)

    def figure(
        self, name: str, value: Any, *, at_least: float = -math.inf, at_most: float = math.inf
    ) -> None:
        """Adds a figure to the last claim, and prints it.

        Args:
            name: of the figure.
            value: a number, or an `Estimate`.
            at_least: lower end of the range in which the figure supports the claim.
            at_most: its upper end.
        """
        if not isinstance(value, Estimate):
            value = Estimate(value, math.nan, math.nan)
        estimate = Estimate(*(float(x) for x in value))
        figure = Figure(name, estimate, at_least, at_most)
        self.claims[-1].figures.append(figure)
        print(f"  measured: {figure}", flush=True)

    def limit(self, text: str) -> None:
        """States which part of the claims these problems can decide, and which they cannot."""
        self.limits = text
        print(f"\nlimits: {text}", flush=True)

    def end(self, panels: Sequence[Panel]) -> None:
        """Prints the verdict, plots the panels, and writes the JSON file if requested."""
        path = self.given.out / self.name
        plot(path, panels)
        print(f"\nverdict: {verdict(self.claims)}")
        print(f"{path}.png and .svg, {time.process_time():.0f} s of computing")
        if self.given.json:
            self._write_json(self.given.json)

    def _write_json(self, path: Path) -> None:
        claims = []
        for claim in self.claims:
            figures = [
                {**figure._asdict(), "estimate": figure.estimate._asdict()}
                for figure in claim.figures
            ]
            claims.append({**vars(claim), "figures": figures, "holds": claim.holds})
        flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.given).items()}
        results = {
            "paper": self.paper,
            "verdict": verdict(self.claims),
            "claims": claims,
            "limits": self.limits,
            "options": flags,
            "versions": folders.environment(),
        }
        folders.write_json(path, results)


@plots.style()
def plot(path: Path, panels: Sequence[Panel]) -> None:
    """The panels side by side, one legend above all, as PNG and SVG."""
    from matplotlib.figure import Figure as Canvas  # without pyplot: no backend is chosen

    canvas = Canvas(figsize=(plots.WIDTH, 2.8))
    entries: dict[tuple[str, str, str], Any] = {}  # one for lines with the same style
    for axes, panel in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in panel.lines:
            estimate = line.y if isinstance(line.y, Estimate) else None
            y = estimate.value if estimate else line.y
            label = line.label or None
            first, *_ = axes.plot(line.x, y, line.style, color=line.colour, label=label)
            if line.label:
                entries.setdefault((line.label, line.colour, line.style), first)
            if estimate and "o" in line.style:
                ends = estimate.low, estimate.high
                axes.vlines(line.x, *ends, color=line.colour, linewidth=1.0)
            elif estimate:
                ends = estimate.low, estimate.high
                axes.fill_between(line.x, *ends, color=line.colour, alpha=0.18, linewidth=0)
        for axis in "xy":
            getattr(axes, f"set_{axis}scale")("log" if axis in panel.log else "linear")
        axes.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel, ylim=panel.ylim)
    if entries:
        plots.legend(canvas, list(entries.values()))
    plots.save(canvas, path.with_suffix(".png"))


def thinned(count: int, points: int = 300) -> np.ndarray:
    """Indices below `count`, evenly spaced on a log scale, to plot a long curve."""
    return np.unique(np.geomspace(1, count, points).astype(int)) - 1
