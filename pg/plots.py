"""Pictures of runs. The only importer of matplotlib, which loads when something is drawn.

One style for all: fonts of 8 pt at the width of one column of a page or of both, colours that the colour-blind can
tell apart, legends beside what they explain. `save` writes PNG and SVG, the same bytes for the same numbers.
"""

import contextlib
import functools
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg import folders
from pg.statistics import Estimate, mean_curve

SINGLE, DOUBLE = 3.3, 6.9  # widths in inches: one column of a page, and both
# Okabe & Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
# Of labels, in this order; when they are used up they come again with the next line style.
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LEVEL = {"color": "0.45", "linestyle": (0, (6, 3)), "linewidth": 0.8}
LETTER = 0.06  # inches: the mean width of one
INTERVAL = "95\u00a0% interval"
RETURN = f"mean return and {INTERVAL}"  # over seeds
STYLE: dict[Any, Any] = {
    **{f"{name}.labelsize": 8 for name in ("axes", "xtick", "ytick", "figure")},
    **{"font.size": 8, "axes.titlesize": 8, "figure.titlesize": 8, "legend.fontsize": 8},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.edgecolor": "0.35"},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9", "grid.linewidth": 0.5},
    **{f"{axis}tick.{kind}.width": 0.6 for axis in "xy" for kind in ("major", "minor")},
    **{f"{axis}tick.{kind}.size": size for axis in "xy" for kind, size in (("major", 2.5), ("minor", 1.5))},
    **{"lines.linewidth": 1.3, "lines.markersize": 3.5, "legend.frameon": False, "legend.handlelength": 2.4},
    # Letters as outlines look the same everywhere; the salt makes the names inside an SVG the same each time.
    **{"svg.fonttype": "path", "svg.hashsalt": "pg"},
}
Interval = tuple[Any, Any, Any]  # middle, low, high
Frame = Callable[[Any, int], None]  # draws the frame of an index on axes


@contextlib.contextmanager
def style() -> Iterator[None]:
    """What is drawn meanwhile has the style of the project. As a decorator: what the function draws."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


@style()
def save(figure: Any, path: Path) -> None:
    """The figure as PNG, of 200 dots per inch, and as SVG beside it, whichever `path` names."""
    for kind, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        write = functools.partial(figure.savefig, format=kind, dpi=200, metadata=about)
        folders.replace(path.with_suffix(f".{kind}"), write)


@style()
def bars(groups: Mapping[str, Mapping[str, Interval]], path: Path, *, ylabel: str, log: bool = False) -> None:
    """A dot with its interval per name, lying, a panel per group side by side with the names in common; PNG and SVG.

    groups: of each panel, of each name, (middle, low, high). Names stand in the order in which they are given, the
    first on top; a row stays empty where a panel lacks its name. ylabel: what is measured. A middle that has no place
    (not finite, or not positive if `log`) is written as a number at its end of the axis.
    """
    names = _union(groups)
    columns = len(groups) if len(groups) <= 4 else -(-len(groups) // 2)
    figure, grid = _panels(len(groups), columns, height=0.16 * len(names) + 0.5, sharey=True)
    room = (figure.get_figwidth() - LETTER * max(map(len, names))) / columns - 0.2
    for axes, (title, group) in zip(grid, groups.items(), strict=True):
        y = np.array([names.index(name) for name in group])
        values = np.array(list(group.values()), float).reshape(-1, 3)
        shown = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
        left, right = _spread(shown, log=log)
        axes.set(xlim=(left, right), ylim=(len(names) - 0.4, -0.6), xscale="log" if log else "linear")
        ends = np.clip(np.where(np.isnan(values[:, 1:]), values[:, :1], values[:, 1:]), left, right)
        placed = np.isfinite(shown[:, 0])
        axes.hlines(y[placed], *ends[placed].T, color=BLUE, linewidth=1.0)
        axes.plot(shown[placed, 0], y[placed], "o", color=BLUE)
        for row, middle in zip(y[~placed], values[~placed, 0], strict=True):
            text = {np.inf: "∞", -np.inf: "−∞"}.get(middle, f"{middle:.2g}")
            look = {"ha": "right" if middle == np.inf else "left", "va": "center", "color": "0.4"}
            axes.text(float(middle == np.inf), row, f" {text} ", transform=axes.get_yaxis_transform(), **look)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        if log:
            _log_ticks(axes.xaxis)
        else:
            axes.locator_params(axis="x", nbins=4)
        axes.set_title(_wrapped(title, room))
    figure.supxlabel(_wrapped(f"{ylabel}, {INTERVAL}", figure.get_figwidth() - 0.2))
    save(figure, path)


@style()
def curves(
    panels: Mapping[str, Mapping[str, tuple[Any, Any, Any, Any]]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    levels: Mapping[str, float] | None = None,
    sharey: bool = True,
) -> None:
    """A line with its band per name, a panel each, one legend for all; PNG and SVG.

    panels: of each panel, of each name, (x, middle, low, high), [K] each. Up to 21 names differ in colour and line
    style, and neighbours in the marker too. levels: of each label, the height of a dashed line in every panel.
    sharey: all panels have the same vertical axis.
    """
    looks = _looks(_union(panels), markers=True)
    columns = _columns(len(panels))
    figure, grid = _panels(len(panels), columns, sharey=sharey)
    for index, (axes, (title, lines)) in enumerate(zip(grid, panels.items(), strict=True)):
        axes.set(xscale="log" if logx else "linear", yscale="log" if logy else "linear")
        shade = 0.18 if len(lines) < 8 else 0.07
        for offset, (name, (x, middle, low, high)) in enumerate(lines.items()):
            axes.fill_between(x, low, high, color=looks[name]["color"], alpha=shade, linewidth=0)
            every = -(-len(x) // 8)  # eight markers tell a line apart, more would hide it
            axes.plot(x, middle, **looks[name], markevery=(offset % every, every))
        last = index % columns == columns - 1 or index == len(panels) - 1
        for label, level in (levels or {}).items():
            axes.axhline(level, **LEVEL, zorder=1)
            if last or not sharey:
                axes.text(1.0, level, f" {label}", transform=axes.get_yaxis_transform(), va="center", color="0.35")
        axes.set_title(title)
    for axes in grid:
        for axis in (*[axes.xaxis] * logx, *[axes.yaxis] * logy):
            _log_ticks(axis)
    _labels(figure, grid, columns, ylabel, xlabel)
    _legend(figure, [_line(name, **look) for name, look in looks.items()])
    save(figure, path)


@style()
def learning_curve(
    steps: np.ndarray, returns: np.ndarray, path: Path, *, title: str, final: float | None = None
) -> None:
    """Return against environment steps, one thin line per seed and their mean, as PNG and SVG.

    steps, returns: [num_seeds, num_updates]; NaN where no episode ended. final: the final evaluation's mean.
    """
    from matplotlib.ticker import EngFormatter

    figure, (axes,) = _panels(1)
    for x, y in zip(steps, returns, strict=True):
        seen = np.isfinite(y)
        axes.plot(x[seen], y[seen], color=BLUE, linewidth=0.6, alpha=0.9 if len(steps) == 1 else 0.25)
    if len(steps) > 1:
        begin, end = max(s[0] for s in steps), min(s[-1] for s in steps)
        if begin < end:  # else there are no steps that all seeds have
            grid = np.linspace(begin, end, 200)
            smooth = [_smooth(x, y, grid) for x, y in zip(steps, returns, strict=True)]
            mean = mean_curve(smooth, repetitions=1).value
            axes.plot(grid, mean, color=ORANGE, linewidth=1.6, label=f"mean of {len(steps)} seeds")
    else:
        axes.plot(steps[0], _smooth(steps[0], returns[0], steps[0]), color=ORANGE, linewidth=1.6, label="smoothed")
    if final is not None:
        axes.axhline(final, color=GREEN, linestyle="--", linewidth=1.0, label=f"final evaluation {final:.4g}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(title)
    _labels(figure, (axes,), 1, "return of an episode", "environment steps")
    if handles := axes.get_legend_handles_labels()[0]:
        _legend(figure, handles)
    save(figure, path)


def gradient_quality(quality: Mapping[str, np.ndarray], path: Path, *, title: str) -> None:
    """Noise scale and, with a critic, explained variance against environment steps, as PNG and SVG.

    quality: as of `results.gradient_quality`. Where noise hides the signal the curve is interrupted.
    """
    labels = {"noise_scale": "gradient noise scale", "explained_variance": "explained variance of V"}
    found = {labels[name]: np.where(np.isfinite(y), y, np.nan) for name, y in quality.items() if name in labels}
    panels = {label: {title: (quality["env_steps"], y, y, y)} for label, y in found.items()}
    curves(panels, path, xlabel="environment steps", ylabel="", sharey=False)


@style()
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
    from matplotlib.ticker import EngFormatter

    everywhere = [label for lines in panels.values() for label in lines]
    looks = _looks(sorted(everywhere, key=lambda label: -everywhere.count(label)))  # the common ones look simplest
    columns = _columns(len(panels))
    figure, grid = _panels(len(panels), columns)
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        shade = 0.18 if len(lines) < 8 else 0.07
        for label, (steps, mean) in lines.items():
            axes.fill_between(steps, mean.low, mean.high, color=looks[label]["color"], alpha=shade, linewidth=0)
            axes.plot(steps, mean.value, **looks[label])
        if (level := (best or {}).get(name)) is not None:
            axes.axhline(level, **LEVEL, zorder=0)
        axes.set_title(_wrapped(name, figure.get_figwidth() / columns - 0.5))
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _labels(figure, grid, columns, RETURN, "environment steps")
    _legend(figure, [_line(n, **look) for n, look in (looks | ({"best published": LEVEL} if best else {})).items()])
    save(figure, path)


@style()
def performance_profiles(
    thresholds: np.ndarray, profiles: Mapping[str, Estimate], path: Path, *, title: str, xlabel: str = "score τ"
) -> None:
    """Share of runs that score above τ, a line with its band per label, as PNG and SVG.

    thresholds: [K]; profiles: of each label, shares with their intervals, [K] each.
    """
    from matplotlib.ticker import PercentFormatter

    figure, (axes,) = _panels(1)
    looks = _looks(profiles)
    for label, look in looks.items():
        share = profiles[label]
        axes.fill_between(thresholds, share.low, share.high, color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(thresholds, share.value, **look)
    axes.set(ylim=(-0.02, 1.02), xlim=(thresholds[0], thresholds[-1]))
    axes.set_title(_wrapped(title, SINGLE - 0.6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _labels(figure, (axes,), 1, "runs that score above τ", xlabel)
    _legend(figure, [_line(label, **look) for label, look in looks.items()])
    save(figure, path)


@style()
def intervals(estimates: Mapping[str, Estimate], path: Path, *, title: str, xlabel: str) -> None:
    """An estimate with its 95 % interval per label, the highest on top, as PNG and SVG."""
    looks = _looks(estimates)
    labels = sorted(estimates, key=lambda label: estimates[label].value)
    figure, (axes,) = _panels(1, height=0.6 + 0.22 * len(labels))
    for y, label in enumerate(labels):
        value, low, high = estimates[label]
        colour = looks[label]["color"]
        axes.barh(y, high - low, left=low, height=0.55, color=colour, alpha=0.3, linewidth=0)
        axes.plot([value, value], [y - 0.275, y + 0.275], color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.set_yticks(range(len(labels)), labels)
    ends = np.array([tuple(e) for e in estimates.values()], float)  # [labels, 3]; NaN where there is no interval
    left, right = np.nanmin(ends), np.nanmax(ends)
    margin = 0.06 * (right - left) or 0.05
    axes.set(xlim=(left - margin, right + margin), ylim=(-0.6, len(labels) - 0.4))
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    figure.suptitle(_wrapped(title, SINGLE - 0.2))
    figure.supxlabel(_wrapped(f"{xlabel}, {INTERVAL}", SINGLE - 0.2))
    save(figure, path)


@style()
def sensitivity(varied: Mapping[str, Sequence[Any]], means: Sequence[Estimate], path: Path, *, title: str) -> None:
    """Return against each value that was varied, a point with its 95 % interval per setting; PNG and SVG.

    varied: of each name, the value of every setting; means: of every setting. A line joins the best at each value
    where values come again.
    """
    columns = _columns(len(varied))
    figure, grid = _panels(len(varied), columns, sharey=True)
    value, low, high = (np.array([getattr(m, name) for m in means], float) for name in Estimate._fields)
    handles = [_line("setting", color=BLUE, marker="o", linestyle="", alpha=0.7)]
    for axes, (name, values) in zip(grid, varied.items(), strict=True):
        x = _positions(axes, name, values)
        axes.errorbar(x, value, yerr=[value - low, high - value], fmt="o", color=BLUE, lw=0.8, alpha=0.7)
        at = np.unique(x)
        if len(at) < len(x):
            axes.plot(at, [value[x == v].max() for v in at], color=ORANGE, zorder=3)
            handles[1:] = [_line("best at this value", color=ORANGE)]
    _labels(figure, grid, columns, RETURN)
    _legend(figure, handles, title)
    save(figure, path)


@style()
def heat_map(varied: Mapping[str, Sequence[Any]], means: Sequence[float], path: Path, *, title: str) -> None:
    """Mean return over the plane of two names, a cell per setting of a grid, else a dot; PNG and SVG."""
    (x_name, x_values), (y_name, y_values) = varied.items()
    xs, ys = (sorted(set(v), key=_rank) for v in (x_values, y_values))
    full = len(xs) * len(ys) == len(means)
    figure, (axes,) = _panels(1, height=max(2.3, 0.25 * len(ys) * full), wide=full and len(xs) > 4)
    if full:
        cells = np.full((len(ys), len(xs)), np.nan)
        for x, y, mean in zip(x_values, y_values, means, strict=True):
            cells[ys.index(y), xs.index(x)] = mean
        seen: Any = axes.imshow(cells, origin="lower", aspect="auto", cmap="cividis")
        axes.set_xticks(range(len(xs)), [_tick(x) for x in xs], rotation=45 if len(xs) > 6 else 0)
        axes.set_yticks(range(len(ys)), [_tick(y) for y in ys])
        axes.set(xlabel=x_name.rstrip("_"), ylabel=y_name.rstrip("_"))
        axes.grid(visible=False)
        middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
        for (j, i), mean in np.ndenumerate(cells) if cells.size <= 64 else ():
            axes.text(i, j, f"{mean:.4g}", ha="center", va="center", color=_ink(mean < middle))
    else:
        x, y = _positions(axes, x_name, x_values), _positions(axes, y_name, y_values, vertical=True)
        seen = axes.scatter(x, y, c=means, cmap="cividis", s=40)
    figure.colorbar(seen, label="mean return").outline.set_linewidth(0.6)
    figure.suptitle(_wrapped(title, figure.get_figwidth() - 0.2))
    save(figure, path)


@style()
def animation(draw: Frame, captions: Sequence[str], path: Path, *, seconds: Sequence[float]) -> None:
    """What `draw` draws of each index, below its caption, as an animated GIF. seconds: that each frame is shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    width, top = 3.2, 0.26  # inches; of 100 dots, as the picture is for a screen
    height = width * float(np.clip(_ratio(draw), 0.2, 0.8)) + top
    figure = Figure(figsize=(width, height), dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0.0, 0.0, 1.0, 1.0 - top / height))
    caption = figure.text(0.5, 1.0 - 0.55 * top / height, "", ha="center", va="center")

    def frame(index: int) -> Any:
        axes.clear()
        draw(axes, index)
        caption.set_text(captions[index])
        canvas.draw()
        return Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])

    some = np.unique(np.linspace(0, len(captions) - 1, 8).astype(int))
    palette = _palette(Image.fromarray(np.concatenate([np.asarray(frame(i)) for i in some])))
    none = Image.Dither.NONE  # few colours, the same in all frames: what stands still costs nothing
    first, *rest = (frame(i).quantize(palette=palette, dither=none) for i in range(len(captions)))
    times = [round(1000 * s) for s in seconds]
    write = functools.partial(first.save, format="GIF", save_all=True, append_images=rest, duration=times, loop=0)
    folders.replace(path, write)


@style()
def strip(draw: Frame, captions: Mapping[int, str], path: Path) -> None:
    """What `draw` draws of some indices, in a row, each below its caption; PNG and SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(DOUBLE, DOUBLE / len(captions) * _ratio(draw) + 0.25), layout="constrained")
    for axes, (index, caption) in zip(
        figure.subplots(1, len(captions), squeeze=False)[0], captions.items(), strict=True
    ):
        draw(axes, index)
        axes.set_title(caption)
    save(figure, path)


def _palette(picture: Any) -> Any:
    """The picture in its 64 most distant colours, all that is nearly white in white."""
    few = picture.quantize(64, method=1)  # maximum coverage
    colours = np.reshape(few.getpalette(), (-1, 3))
    colours[colours.min(axis=1) > 246] = 255
    few.putpalette(colours.ravel().tolist())
    return few


def _ratio(draw: Frame) -> float:
    """Height over width of what is drawn."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw(axes, 0)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return abs(high - low) / abs(right - left)


def _union(groups: Mapping[str, Iterable[str]]) -> list[str]:
    """The names in any of the groups, each after the one that it follows in its own."""
    names: list[str] = []
    for group in groups.values():
        place = 0
        for name in group:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names


def _columns(panels: int) -> int:
    return {1: 1, 2: 2, 4: 2}.get(panels, 3)


def _panels(
    count: int, columns: int = 1, *, height: float | None = None, sharey: bool = False, wide: bool = False
) -> tuple[Any, Any]:
    """A figure with `count` axes, in one column of a page if it is one, else (or if `wide`) over both, and the axes.

    height: of a panel, in inches.
    """
    from matplotlib.figure import Figure  # without pyplot: no backend is chosen, no global state touched

    rows, width = -(-count // columns), DOUBLE if wide or count > 1 else SINGLE
    height = height or min(2.3, 0.8 * width / columns)
    figure = Figure(figsize=(width, rows * height + 0.25), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _labels(figure: Any, grid: Any, columns: int, ylabel: str, xlabel: str = "") -> None:
    """What the axes mean, beside the first panel of each row and, if asked for, below the last of each column."""
    width, height = figure.get_figwidth() / columns, figure.get_figheight() / -(-len(grid) // columns)
    for axes in grid[-columns:] if xlabel else ():
        axes.set_xlabel(_wrapped(xlabel, width - 0.5))
    for axes in grid[::columns]:
        axes.set_ylabel(_wrapped(ylabel, height - 0.5))


def _legend(figure: Any, handles: Sequence[Any], title: str = "") -> None:
    """One legend above all panels, in as many columns as there is room for; the figure grows by it."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.55 + LETTER * longest))))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * (rows + bool(title)))
    look = {"loc": "outside upper center", "ncols": -(-len(handles) // rows), "columnspacing": 1.2}
    figure.legend(handles=handles, **look, title=_wrapped(title, figure.get_figwidth() - 0.2), title_fontsize=8)


def _spread(values: np.ndarray, *, log: bool) -> tuple[float, float]:
    """Limits of an axis that leave a margin around all that is finite."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = (np.log10(seen.min()), np.log10(seen.max())) if log else (seen.min(), seen.max())
    margin = 0.06 * (high - low) or 0.5
    return (10 ** (low - margin), 10 ** (high + margin)) if log else (low - margin, high + margin)


def _log_ticks(axis: Any) -> None:
    """Plain numbers on a logarithmic axis of less than two decades, where powers of ten are too few."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)) if high > 10 * low else MaxNLocator(4))
        axis.set_major_formatter(lambda x, _: f"{x:.4g}")


def _wrapped(text: str, inches: float) -> str:
    """The text in lines of that length."""
    return textwrap.fill(text, max(8, int(inches / LETTER)))


def _looks(labels: Iterable[str], *, markers: bool = False) -> dict[str, dict[str, Any]]:
    """Colour, line style and, if asked for, marker of each label, in the order in which they first appear."""
    looks = zip(itertools.cycle(itertools.product(STYLES, COLOURS)), itertools.cycle(MARKERS), strict=False)
    return {
        label: {"color": c, "linestyle": s} | ({"marker": m} if markers else {})
        for label, ((s, c), m) in zip(dict.fromkeys(labels), looks, strict=False)
    }


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

    return Line2D([], [], label=label, **look)


def _smooth(x: np.ndarray, y: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """y averaged over a twentieth of its updates and read off at the points of `grid`; NaN beyond its own."""
    seen = np.isfinite(y)
    if not seen.any():
        return np.full(len(grid), np.nan)
    x, y = x[seen], y[seen]
    width = max(1, len(y) // 20)
    padded = np.pad(y, (width // 2, width - 1 - width // 2), mode="edge")
    mean = np.convolve(padded, np.ones(width) / width, mode="valid")
    return np.interp(grid, x, mean, left=np.nan, right=np.nan)
