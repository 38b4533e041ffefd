"""Pictures of runs. The only importer of matplotlib, which loads when something is drawn."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg import folders
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
    rows, entries, width = -(-len(panels) // columns), len(looks) + bool(best), max(4.2 * columns, 5.5)
    beside = max(1, min(entries, 1 + columns, int(width * 12 / (6 + max(map(len, looks))))))  # entries in a line
    height = 2.8 * rows + 0.4 + 0.24 * -(-entries // beside)  # panels, axis label, legend
    figure = Figure(figsize=(width, height), layout="constrained")
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
    figure.legend(handles=handles, loc="outside upper center", ncols=beside, frameon=False)
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


def sensitivity(varied: Mapping[str, Sequence[Any]], means: Sequence[Estimate], path: Path, *, title: str) -> None:
    """Return against each value that was varied, a point with its 95 % interval per setting; PNG and SVG.

    varied: of each name, the value of every setting; means: of every setting. A line joins the best at each value
    where values come again.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(varied))
    rows = -(-len(varied) // columns)
    figure = Figure(figsize=(max(4.0 * columns, 5.0), 3.0 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    value, low, high = (np.array([getattr(m, name) for m in means], float) for name in Estimate._fields)
    for axes, (name, values) in zip(grid, varied.items(), strict=False):
        x = _positions(axes, name, values)
        axes.errorbar(
            x,
            value,
            yerr=[value - low, high - value],
            fmt="o",
            color=BLUE,
            ms=3.5,
            lw=0.8,
            alpha=0.7,
            label="setting",
        )
        at = np.unique(x)
        if len(at) < len(x):
            best = [value[x == v].max() for v in at]
            axes.plot(at, best, color=ORANGE, linewidth=1.6, label="best at this value", zorder=3)
            axes.legend(frameon=False, fontsize="small")
        _clean(axes)
    for axes in grid[len(varied) :]:
        axes.remove()
    figure.supylabel("return, mean over seeds and 95 % interval", fontsize="medium")
    figure.suptitle(title, fontsize="medium")
    _save(figure, path)


def heat_map(varied: Mapping[str, Sequence[Any]], means: Sequence[float], path: Path, *, title: str) -> None:
    """Mean return over the plane of two names, a cell per setting of a grid, else a dot; PNG and SVG."""
    from matplotlib.figure import Figure

    (x_name, x_values), (y_name, y_values) = varied.items()
    xs, ys = (sorted(set(v), key=_rank) for v in (x_values, y_values))
    figure = Figure(figsize=(5.4, 4.0), layout="constrained")
    axes = figure.subplots()
    if len(xs) * len(ys) == len(means):
        cells = np.full((len(ys), len(xs)), np.nan)
        for x, y, mean in zip(x_values, y_values, means, strict=True):
            cells[ys.index(y), xs.index(x)] = mean
        seen: Any = axes.imshow(cells, origin="lower", aspect="auto", cmap="cividis")
        axes.set_xticks(range(len(xs)), [_tick(x) for x in xs], rotation=45 if len(xs) > 6 else 0)
        axes.set_yticks(range(len(ys)), [_tick(y) for y in ys])
        axes.set(xlabel=x_name.rstrip("_"), ylabel=y_name.rstrip("_"))
        middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
        for (j, i), mean in np.ndenumerate(cells) if cells.size <= 64 else ():
            axes.text(i, j, f"{mean:.4g}", ha="center", va="center", fontsize="small", color=_ink(mean < middle))
    else:
        x, y = _positions(axes, x_name, x_values), _positions(axes, y_name, y_values, vertical=True)
        seen = axes.scatter(x, y, c=means, cmap="cividis", s=60)
        _clean(axes)
    figure.colorbar(seen, label="mean return")
    axes.set_title(title, fontsize="medium")
    _save(figure, path)


def _looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and line style of each label, in the order in which they first appear."""
    styles = itertools.cycle(itertools.product(STYLES, COLOURS))
    return {label: {"color": c, "linestyle": s} for label, (s, c) in zip(dict.fromkeys(labels), styles, strict=False)}


def _positions(axes: Any, name: str, values: Sequence[Any], *, vertical: bool = False) -> np.ndarray:
    """Where values lie on an axis: as numbers, on a log scale where they span a decade or more, else side by side."""
    side = "y" if vertical else "x"
    getattr(axes, f"set_{side}label")(name.rstrip("_"))
    if not all(isinstance(v, int | float | np.number) and np.isfinite(v) for v in values):
        names = sorted(set(values), key=_rank)
        getattr(axes, f"set_{side}ticks")(range(len(names)), [_tick(v) for v in names])
        return np.array([names.index(v) for v in values], float)
    x = np.array(values, float)
    if x.min() > 0 and x.max() >= 10 * x.min():
        getattr(axes, f"set_{side}scale")("log")
    return x


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers first, in their order; then texts."""
    return (True, str(value)) if isinstance(value, str) else (False, value)


def _tick(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def _ink(dark: bool) -> str:
    return "white" if dark else "black"


def _line(label: str, **look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **{"linewidth": 1.6, **look})


def _clean(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    for kind in ("png", "svg"):
        folders.replace(path.with_suffix(f".{kind}"), functools.partial(figure.savefig, format=kind, dpi=160))


def _smooth(x: np.ndarray, y: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """y averaged over a twentieth of its updates and read off at the points of `grid`."""
    seen = np.isfinite(y)
    if not seen.any():
        return np.full(len(grid), np.nan)
    x, y = x[seen], y[seen]
    width = max(1, len(y) // 20)
    padded = np.pad(y, (width // 2, width - 1 - width // 2), mode="edge")
    return np.interp(grid, x, np.convolve(padded, np.ones(width) / width, mode="valid"))
