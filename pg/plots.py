"""Pictures of runs. The only importer of matplotlib, which loads when something is drawn."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pg.statistics import Estimate

# Okabe & Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
# Of labels, in this order; when they are used up they come again with the next line style.
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":")


def learning_curve(
    steps: np.ndarray, returns: np.ndarray, path: Path, *, title: str, final: float | None = None
) -> None:
    """Return against environment steps, one thin line per seed and their mean, as PNG and SVG.

    steps, returns: [num_seeds, num_updates]; NaN where no episode ended. final: the final evaluation's mean.
    """
    from matplotlib.figure import Figure  # without pyplot: no backend is chosen, no global state touched
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for x, y in zip(steps, returns, strict=True):
        seen = np.isfinite(y)
        axes.plot(x[seen], y[seen], color=BLUE, linewidth=0.7, alpha=0.9 if len(steps) == 1 else 0.25)
    if len(steps) > 1:
        grid = np.linspace(max(s[0] for s in steps), min(s[-1] for s in steps), 200)
        mean = np.mean([_smooth(x, y, grid) for x, y in zip(steps, returns, strict=True)], axis=0)
        axes.plot(grid, mean, color=ORANGE, linewidth=1.8, label=f"mean of {len(steps)} seeds")
    else:
        axes.plot(steps[0], _smooth(steps[0], returns[0], steps[0]), color=ORANGE, linewidth=1.8, label="smoothed")
    if final is not None:
        axes.axhline(final, color=GREEN, linestyle="--", linewidth=1.0, label=f"final evaluation {final:.4g}")
    axes.set(xlabel="environment steps", ylabel="return of an episode", title=title)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(frameon=False, fontsize="small")
    _clean(axes)
    _save(figure, path)


def learning_curves(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, Estimate]]],
    path: Path,
    *,
    best: Mapping[str, float | None] | None = None,
) -> None:
    """Mean return against environment steps, a panel per environment and a line with its band per label; PNG and SVG.

    panels: of each environment, of each label: steps [K], and the mean over seeds with its interval, [K] each.
    best: of each environment, where a dashed line is drawn: the best that was published.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    everywhere = [label for curves in panels.values() for label in curves]
    looks = _looks(sorted(everywhere, key=lambda label: -everywhere.count(label)))  # the common ones look simplest
    columns = min(3, len(panels))
    rows, entries = -(-len(panels) // columns), len(looks) + bool(best)
    height = 2.8 * rows + 0.4 + 0.24 * -(-entries // (1 + columns))  # panels, axis label, legend
    figure = Figure(figsize=(max(4.2 * columns, 5.5), height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        shade = 0.18 if len(curves) < 8 else 0.07
        for label, (steps, mean) in curves.items():
            axes.fill_between(steps, mean.low, mean.high, color=looks[label]["color"], alpha=shade, linewidth=0)
            axes.plot(steps, mean.value, linewidth=1.6, **looks[label])
        if (level := (best or {}).get(name)) is not None:
            axes.axhline(level, color="0.45", linestyle=(0, (6, 3)), linewidth=0.9, zorder=0)
        axes.set_title(name, fontsize="medium")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _clean(axes)
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.supxlabel("environment steps", fontsize="medium")
    figure.supylabel("return, mean over seeds and 95 % interval", fontsize="medium")
    handles = [_line(label, **look) for label, look in looks.items()]
    if best:
        handles.append(_line("best published", color="0.45", linestyle=(0, (6, 3)), linewidth=0.9))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 1 + columns), frameon=False)
    _save(figure, path)


def performance_profiles(
    thresholds: np.ndarray, profiles: Mapping[str, Estimate], path: Path, *, title: str, xlabel: str = "score τ"
) -> None:
    """Share of runs that score above τ, a line with its band per label, as PNG and SVG.

    thresholds: [K]; profiles: of each label, shares with their intervals, [K] each.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, look in _looks(profiles).items():
        share = profiles[label]
        axes.fill_between(thresholds, share.low, share.high, color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(thresholds, share.value, linewidth=1.6, label=label, **look)
    axes.set(xlabel=xlabel, ylabel="runs that score above τ", ylim=(-0.02, 1.02))
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_title(title, fontsize="medium")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    _clean(axes)
    _save(figure, path)


def intervals(estimates: Mapping[str, Estimate], path: Path, *, title: str, xlabel: str) -> None:
    """An estimate with its 95 % interval per label, the highest on top, as PNG and SVG."""
    from matplotlib.figure import Figure

    looks = _looks(estimates)
    labels = sorted(estimates, key=lambda label: estimates[label].value)
    figure = Figure(figsize=(5.6, 1.1 + 0.34 * len(labels)), layout="constrained")
    axes = figure.subplots()
    for y, label in enumerate(labels):
        value, low, high = estimates[label]
        colour = looks[label]["color"]
        axes.barh(y, high - low, left=low, height=0.55, color=colour, alpha=0.3, linewidth=0)
        axes.plot([value, value], [y - 0.275, y + 0.275], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.set_yticks(range(len(labels)), labels)
    left, right = min(e.low for e in estimates.values()), max(e.high for e in estimates.values())
    margin = 0.06 * (right - left) or 0.05
    axes.set_xlim(left - margin, right + margin)
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel=f"{xlabel}, 95 % interval", ylim=(-0.6, len(labels) - 0.4))
    axes.set_title(title, fontsize="medium")
    _clean(axes)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    _save(figure, path)


def _looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and line style of each label, in the order in which they first appear."""
    styles = itertools.cycle(itertools.product(STYLES, COLOURS))
    return {label: {"color": c, "linestyle": s} for label, (s, c) in zip(dict.fromkeys(labels), styles, strict=False)}


def _line(label: str, **look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **{"linewidth": 1.6, **look})


def _clean(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=160)


def _smooth(x: np.ndarray, y: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """y averaged over a twentieth of its updates and read off at the points of `grid`."""
    seen = np.isfinite(y)
    if not seen.any():
        return np.full(len(grid), np.nan)
    x, y = x[seen], y[seen]
    width = max(1, len(y) // 20)
    padded = np.pad(y, (width // 2, width - 1 - width // 2), mode="edge")
    return np.interp(grid, x, np.convolve(padded, np.ones(width) / width, mode="valid"))
