"""Figures of runs. The only module that imports matplotlib, and only when something is drawn.

One style for all, the notebooks too (`STYLE`): a page's width, 8 pt type, colours that the
colour-blind can tell apart and that an estimator keeps from figure to figure (`looks`), legends
above the panels, tick labels that do not overlap. `save` writes PNG and SVG, the same bytes
for the same numbers.
"""

import contextlib
import functools
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pg import numerals
from pg.config import OnNonfinite
from pg.estimators.facts import FACTS
from pg.reports.curves import (
    Curve,
    ShortenedCurve,
    evaluation_curve,
    mean_learning_curve,
    seed_curves,
)
from pg.reports.statistics import Estimate
from pg.runs import files, results

WIDTH, HEIGHT = 6.75, 2.6  # inches: of a figure of the width of a page's text; of a single panel
TALLEST = 7.8  # inches: of all rows of panels together
# Okabe & Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#E69F00", "#56B4E9", "#000000")
# The last four: long dashes, a dash and two dots, dots far apart, a long dash and a short one.
STYLES: tuple[Any, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (8, 2)),
    (0, (4, 1, 1, 1, 1, 1)),
    (0, (1, 3)),
    (0, (8, 2, 3, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LEVEL = {"color": "0.45", "linestyle": (0, (6, 3)), "linewidth": 0.8}
LETTER = 0.06  # inches: the mean width of one
INTERVAL = "95\u00a0% interval"
# above figures with a `ShortenedCurve`
UNTIL = "each mean ends at the last step that all its seeds reached"
STYLE: dict[Any, Any] = {
    "figure.figsize": (WIDTH, HEIGHT),
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "figure.titlesize": 8,
    "figure.labelsize": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "0.35",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    # Tick labels without a common offset in a corner.
    "axes.formatter.useoffset": False,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.limits": (-4, 6),
    **{f"{axis}tick.{kind}.width": 0.6 for axis in "xy" for kind in ("major", "minor")},
    **{f"{axis}tick.major.size": 2.5 for axis in "xy"},
    **{f"{axis}tick.minor.size": 1.5 for axis in "xy"},
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    # Text as outlines looks the same everywhere; the salt makes the ids inside an SVG reproducible.
    "svg.fonttype": "path",
    "svg.hashsalt": "pg",
}
# The indices of each estimator's colour in COLOURS and line in STYLES; each pair occurs once. Those
# that are most often compared differ in colour.
LOOKS: dict[str, tuple[int, int]] = {
    "reinforce": (0, 0),
    "reward_to_go": (1, 0),
    "leave_one_out": (2, 0),
    "state_value": (3, 0),
    "time_baseline": (4, 0),
    "batch_mean": (5, 0),
    "gae": (6, 0),
    "ppo": (0, 1),
    "actor_critic": (1, 1),
    "group_leave_one_out": (2, 1),
    "vtrace": (3, 1),
    "optimal_baseline": (4, 1),
    "standardised": (5, 1),
    "all_action": (6, 1),
    "constant_baseline": (0, 2),
    "undiscounted_reward_to_go": (1, 2),
    "grpo": (2, 2),
    "action_dependent_baseline": (3, 2),
    "moving_average": (4, 2),
    "entropy_reward": (5, 2),
    "gpomdp": (6, 2),
    "trajectory_importance": (0, 3),
    "per_decision_importance": (1, 3),
    "ratio_only": (2, 3),
    "trajectory_control_variate": (3, 3),
    "optimal_time_baseline": (4, 3),
    "optimal_state_baseline": (5, 3),
    "shrunk_time_baseline": (6, 3),
    "vine_value": (0, 4),
    "vine_advantage": (1, 4),
    "vine_action_value": (2, 4),
    "vine_all_action": (3, 4),
    "measure_valued": (4, 4),
    "reward_weighted_regression": (5, 4),
    "advantage_weighted_regression": (6, 4),
    "v_mpo": (0, 5),
    "mdpo": (1, 5),
    "gradient_control_variate": (2, 5),
    "q_prop": (3, 5),
    "stein_control_variate": (4, 5),
    "svg0": (5, 5),
    "deterministic_policy_gradient": (6, 5),
    "hindsight_credit": (1, 6),
    "counterfactual_contributions": (2, 6),
}
_PAIRS = [(colour, style) for style in range(len(STYLES)) for colour in range(len(COLOURS))]
# Estimators that are not listed above take the remaining pairs.
_FREE = [pair for pair in _PAIRS if pair not in LOOKS.values()]
_UNLISTED = [name for name in FACTS if name not in LOOKS]
LOOKS.update(zip(_UNLISTED, _FREE, strict=False))
Frame = Callable[[Any, int], None]  # draws the frame of an index on axes


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Sets the style of the project within a context, or, as a decorator, within a function."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


@style()
def save(figure: Any, path: Path) -> None:
    """Writes the figure as PNG, with 200 dots per inch, and as SVG beside it, whichever `path`
    names.
    """
    _leave_room(figure)
    for kind, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        write = functools.partial(figure.savefig, format=kind, dpi=200, metadata=about)
        files.replace(path.with_suffix(f".{kind}"), write)


@style()
def bars(
    groups: Mapping[str, Mapping[str, Estimate]], path: Path, *, ylabel: str, log: bool = False
) -> None:
    """Dots with intervals, a row per name and a panel per group, as PNG and SVG.

    A value off the axis (not finite, or not positive if `log`) is written as a number at its end of
    the axis.

    Args:
        groups: of each panel, an estimate for each name. The names are the rows of all panels, in
            the order in which they are given, the first on top; a row stays empty where a panel
            lacks its name.
        path: of the picture.
        ylabel: the quantity.
        log: on a logarithmic axis.
    """
    names = _union(groups)
    columns = len(groups) if len(groups) <= 4 else min(4, -(-len(groups) // 2))
    figure, grid = _panels(len(groups), columns, height=0.16 * len(names) + 0.5, sharey=True)
    shown = _shortened(names, 0.4 * WIDTH)
    room = (WIDTH - LETTER * max(map(len, shown))) / columns - 0.2
    colours = [look["color"] for look in looks(names).values()]
    for axes, (title, group) in zip(grid, groups.items(), strict=True):
        rows = [names.index(name) for name in group]
        _dots(axes, rows, np.array(list(group.values()), float).reshape(-1, 3), colours, log)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), shown)
        axes.tick_params(axis="y", length=0)
        if log:
            _log_ticks(axes.xaxis, *axes.get_xlim())
        else:
            axes.locator_params(axis="x", nbins=4)
        axes.set_title(_wrapped(title, room))
    lows = [estimate.low for group in groups.values() for estimate in group.values()]
    figure.supxlabel(_wrapped(_measured(ylabel, lows), WIDTH - 0.2))
    save(figure, path)


@style()
def curves(
    panels: Mapping[str, Mapping[str, tuple[Any, Estimate]]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    counts: bool = False,
    levels: Mapping[str, float] | None = None,
    sharey: bool = True,
) -> None:
    """Lines with bands, one legend for all panels, as PNG and SVG.

    Up to 56 names differ in colour and line style, and neighbours in the marker too.

    Args:
        panels: of each panel, for each name, x and the estimates at x, [K] each.
        path: of the picture.
        xlabel: the quantity of the horizontal axis.
        ylabel: the quantity of the vertical axis.
        logx: with a logarithmic horizontal axis.
        logy: with a logarithmic vertical axis.
        counts: x is written as 20k and 3M.
        levels: of each label, the height of a dashed line in every panel.
        sharey: all panels have the same vertical axis.
    """
    look_of = looks(_union(panels), markers=True)
    columns = _columns(len(panels))
    figure, grid = _panels(len(panels), columns, sharey=sharey)
    for index, (axes, (title, lines)) in enumerate(zip(grid, panels.items(), strict=True)):
        axes.set(xscale="log" if logx else "linear", yscale="log" if logy else "linear")
        shade = 0.18 if len(lines) < 8 else 0.07
        for offset, (name, (x, y)) in enumerate(lines.items()):
            look = look_of[name]
            axes.fill_between(x, y.low, y.high, color=look["color"], alpha=shade, linewidth=0)
            axes.plot(x, y.value, **look, markevery=_marked(y.value, offset))
        last = index % columns == columns - 1 or index == len(panels) - 1
        for label, level in (levels or {}).items():
            axes.axhline(level, **LEVEL, zorder=1)
            if last or not sharey:
                axes.text(
                    1.0,
                    level,
                    f" {label}",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    color="0.35",
                )
        axes.set_title(_wrapped(title, WIDTH / columns - 0.5))
        _say_if_empty(axes, [y.value for _, y in lines.values()])
    for axes in grid:
        for axis in (*[axes.xaxis] * logx, *[axes.yaxis] * logy):
            _log_ticks(axis, *axis.get_view_interval())
        if counts:
            _counts(axes.xaxis)
    _labels(figure, grid, columns, ylabel, xlabel)
    legend(figure, [_line(name, **look) for name, look in look_of.items()])
    save(figure, path)


@style()
def learning_curve(
    metrics: Mapping[str, np.ndarray],
    path: Path,
    *,
    title: str,
    final: float | None = None,
    on_nonfinite: OnNonfinite = "stop",
) -> None:
    """Learning curves of a run, one thin line per seed, and their mean with its interval; PNG and
    SVG.

    Both are defined in `curves`. For a single seed the thin line shows every update. The mean of
    the evaluations during training, if there were any, is a third line.

    Args:
        metrics: return, episodes, env_steps, and eval_return of a run that was evaluated while it
            trained, [num_seeds, num_updates] each.
        path: of the picture.
        title: above the picture.
        final: the final evaluation's mean, if there is one.
        on_nonfinite: the setting of the run.
    """
    figure, (axes,) = _panels(1)
    steps, returns = seed_curves(metrics)
    seeds, points = returns.shape
    thin: dict[str, Any] = {"color": BLUE, "linewidth": 0.6, "alpha": 0.9 if seeds == 1 else 0.25}
    label = "a seed"
    lines = steps, returns
    if seeds == 1:
        label = "mean of each update"
        lines = np.cumsum(metrics["env_steps"], axis=1), metrics["return"]
    for x, y in zip(*lines, strict=True):
        known = np.isfinite(y)
        axes.plot(x[known], y[known], **thin, marker="o" if known.sum() == 1 else "")
    handles = [_line(label, **thin)]
    updates = metrics["return"].shape[1]
    frozen = int(results.failed_runs(metrics, on_nonfinite).sum()) if "skipped" in metrics else 0
    if seeds > 1 or points < updates:
        until = ", up to the end of the shortest run" if np.ptp(steps[:, -1]) else ""
        label = f"mean of {seeds} seeds{until}, {INTERVAL}"
        if frozen:
            label += f", {frozen} of them frozen"
        if seeds == 1:
            label = f"mean of each of {numerals.counted(points, 'bin')}"
        handles.append(_draw_mean(axes, steps, returns, label))
    if "eval_return" in metrics and np.isfinite(metrics["eval_return"]).all(axis=0).any():
        evaluations = evaluation_curve(metrics)
        handles.append(_draw_curve(axes, evaluations, "evaluated during training", PINK, "."))
    if final is not None and np.isfinite(final):
        label = f"final evaluation {numerals.number(final)}"
        if frozen:
            label += f", of the other {seeds - frozen}"
        handles.append(axes.axhline(final, color=GREEN, linestyle="--", linewidth=1.0, label=label))
    _say_if_empty(axes, returns)
    _counts(axes.xaxis)
    axes.set_title(_wrapped(title, WIDTH - 0.6))
    _labels(figure, (axes,), 1, "return of an episode", "environment steps")
    legend(figure, handles)
    save(figure, path)


def _draw_mean(axes: Any, steps: np.ndarray, returns: np.ndarray, label: str) -> Any:
    """Draws the mean of learning curves with its interval, and returns its line for the legend, or
    a text with the reason why there is no mean.
    """
    try:
        curve = mean_learning_curve(steps, returns)
    except ValueError as error:
        return _line(f"no mean: {error}", linestyle="")
    return _draw_curve(axes, curve, label, ORANGE)


def _draw_curve(axes: Any, curve: Curve, label: str, colour: str, marker: str = "") -> Any:
    """Draws a curve with its interval, and returns its line for the legend."""
    look = {"color": colour, "linewidth": 1.6, "marker": marker}
    mean = curve.mean
    axes.plot(curve.steps, mean.value, **look)
    axes.fill_between(curve.steps, mean.low, mean.high, color=colour, alpha=0.18, linewidth=0)
    return _line(label, **look)


def gradient_quality(quality: Mapping[str, np.ndarray], path: Path, *, title: str) -> None:
    """Noise scale and, with a critic, explained variance against environment steps, as PNG and SVG.

    quality: see `curves.gradient_quality`. If noise hides the signal the curve is
    interrupted.
    """
    labels = {
        "noise_scale": "gradient noise scale",
        "explained_variance": "explained variance of V",
    }
    found = {
        labels[name]: np.where(np.isfinite(y), y, np.nan)
        for name, y in quality.items()
        if name in labels
    }
    panels = {
        label: {title: (quality["env_steps"], Estimate(y, y, y))} for label, y in found.items()
    }
    curves(panels, path, xlabel="environment steps", ylabel="", counts=True, sharey=False)


@style()
def learning_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    path: Path,
    *,
    best: Mapping[str, float | None] | None = None,
) -> None:
    """Mean return against environment steps, a panel per environment and a line with its band per
    label; PNG and SVG.

    panels: of each environment, of each label, the mean curve over seeds.
    best: for each environment, the best published return, drawn as a dashed line.
    """
    everywhere = [label for lines in panels.values() for label in lines]
    # the most common ones have the simplest look
    look_of = looks(sorted(everywhere, key=lambda label: -everywhere.count(label)))
    columns = _columns(len(panels))
    figure, grid = _panels(len(panels), columns)
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        _lines(axes, lines, look_of)
        if (level := (best or {}).get(name)) is not None:
            axes.axhline(level, **LEVEL, zorder=0)
        axes.set_title(_wrapped(name, WIDTH / columns - 0.5))
        _counts(axes.xaxis)
    lows = [mean.low for lines in panels.values() for _, mean in lines.values()]
    _labels(figure, grid, columns, _measured("mean return", lows), "environment steps")
    published = (
        {"best published": LEVEL}
        if any(level is not None for level in (best or {}).values())
        else {}
    )
    handles = [_line(label, **look) for label, look in (look_of | published).items()]
    legend(figure, handles, _until(panels.values()))
    save(figure, path)


@style()
def performance_profiles(
    thresholds: np.ndarray,
    profiles: Mapping[str, Estimate],
    path: Path,
    *,
    title: str,
    xlabel: str = "score τ",
) -> None:
    """Share of runs that score above τ, a line with its band per label, as PNG and SVG.

    thresholds: [K]; profiles: of each label, shares with their intervals, [K] each.
    """
    from matplotlib.ticker import PercentFormatter

    figure, (axes,) = _panels(1)
    look_of = looks(profiles)
    _lines(axes, {name: Curve(thresholds, share) for name, share in profiles.items()}, look_of)
    axes.set(ylim=(-0.02, 1.02), xlim=(thresholds[0], thresholds[-1]))
    axes.set_title(_wrapped(title, WIDTH - 0.6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _labels(figure, (axes,), 1, "runs that score above τ", xlabel)
    legend(figure, [_line(label, **look) for label, look in look_of.items()])
    save(figure, path)


class Compared(NamedTuple):
    """The curves and the profiles of an environment, for `comparison`."""

    curves: Mapping[str, Curve]  # by label
    thresholds: np.ndarray  # of the profiles, [K]
    profiles: Mapping[str, Estimate]  # by label, shares of seeds above each threshold, [K]


@style()
def comparison(
    panels: Mapping[str, Compared], path: Path, *, ylabel: str, threshold: float | None = None
) -> None:
    """Learning curves and, beside them, performance profiles of the final scores,
    two panels per environment and a line with its band per label; PNG and SVG.

    Args:
        panels: of each environment.
        path: of the picture.
        ylabel: the quantity of the curves.
        threshold: a return that is drawn as a dashed line; None: none.
    """
    from matplotlib.ticker import PercentFormatter

    columns = 2 if len(panels) < 4 else 4
    rows = -(-2 * len(panels) // columns)
    height = float(np.clip(TALLEST / rows, 1.2, HEIGHT if columns == 2 else 0.6 * HEIGHT))
    figure, grid = _panels(2 * len(panels), columns, height=height)
    names = dict.fromkeys(
        name for panel in panels.values() for name in [*panel.curves, *panel.profiles]
    )
    look_of = looks(names)
    for index, (env, panel) in enumerate(panels.items()):
        left, right = grid[2 * index], grid[2 * index + 1]
        _lines(left, panel.curves, look_of)
        _lines(right, {n: Curve(panel.thresholds, y) for n, y in panel.profiles.items()}, look_of)
        if threshold is not None:
            left.axhline(threshold, **LEVEL, zorder=0)
        _counts(left.xaxis)
        right.set_ylim(-0.02, 1.02)
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        right.locator_params(axis="x", nbins=4)
        left.set_title(_wrapped(env, WIDTH / columns - 0.5))
    lows = [curve.mean.low for panel in panels.values() for curve in panel.curves.values()]
    beside = f"{INTERVAL}" if any(np.isfinite(low).any() for low in lows) else ""
    for left, right in zip(grid[0::columns], grid[1::columns], strict=True):
        left.set_ylabel(_wrapped(f"{ylabel}, {beside}".removesuffix(", "), height - 0.3))
        right.set_ylabel(_wrapped("seeds above τ", height - 0.3))
    for column in range(columns):
        last = grid[column::columns][-1]
        what = "final score τ" if column % 2 else "environment steps"
        last.set_xlabel(_wrapped(what, WIDTH / columns - 0.5))
    handles = [_line(label, **look) for label, look in look_of.items()]
    if threshold is not None:
        handles.append(_line(f"return {numerals.number(threshold)}", **LEVEL))
    legend(figure, handles, _until(panel.curves for panel in panels.values()))
    save(figure, path)


def _until(panels: Iterable[Mapping[str, Curve]]) -> str:
    """A sentence on the end of the curves, if a seed of one of them went further; else ""."""
    curves = [curve for lines in panels for curve in lines.values()]
    return UNTIL if any(isinstance(curve, ShortenedCurve) for curve in curves) else ""


def _lines(axes: Any, lines: Mapping[str, Curve], look_of: Mapping[str, dict[str, Any]]) -> None:
    """Draws lines with their bands, or a text if there are none."""
    shade = 0.18 if len(lines) < 8 else 0.07
    for label, (x, y) in lines.items():
        look = look_of[label]
        axes.fill_between(x, y.low, y.high, color=look["color"], alpha=shade, linewidth=0)
        axes.plot(x, y.value, **look, marker="o", markevery=_alone(y.value))
    _say_if_empty(axes, [y.value for _, y in lines.values()])


@style()
def intervals(estimates: Mapping[str, Estimate], path: Path, *, title: str, xlabel: str) -> None:
    """An estimate with its 95 % interval per label, the highest on top, as PNG and SVG."""
    look_of = looks(estimates)
    labels = sorted(estimates, key=lambda label: estimates[label].value)
    figure, (axes,) = _panels(1, height=0.55 + 0.22 * len(labels))
    for y, label in enumerate(labels):
        value, low, high = estimates[label]
        colour = look_of[label]["color"]
        axes.barh(y, high - low, left=low, height=0.55, color=colour, alpha=0.3, linewidth=0)
        axes.plot(
            [value, value],
            [y - 0.275, y + 0.275],
            color=colour,
            linewidth=2.0,
            solid_capstyle="butt",
        )
    axes.set_yticks(range(len(labels)), _shortened(labels, 0.4 * WIDTH))
    axes.set(
        xlim=_spread(np.array(list(estimates.values()), float), log=False),
        ylim=(-0.6, len(labels) - 0.4),
    )
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_wrapped(_measured(xlabel, [e.low for e in estimates.values()]), 0.5 * WIDTH))
    _title(figure, title)
    save(figure, path)


@style()
def sensitivity(
    varied: Mapping[str, Sequence[Any]], means: Sequence[Estimate], path: Path, *, title: str
) -> None:
    """Return against each value that was varied, a point with its 95 % interval per configuration;
    PNG and SVG.

    varied: of each name, the value of every configuration; means: of every configuration, over its
    seeds. A line joins the best at each value if values recur. A few values are used as ticks;
    those that would overlap on a numeric axis, such as 0.9, 0.999 and 0.9999, are spaced evenly.
    """
    columns = _columns(len(varied))
    figure, grid = _panels(len(varied), columns, sharey=True)
    value, low, high = (
        np.array([getattr(m, name) for m in means], float) for name in Estimate._fields
    )
    label = _measured("configuration: mean of seeds", [low])
    handles = [_line(label, color=BLUE, marker="o", linestyle="", alpha=0.7)]
    room = WIDTH / columns - 0.6
    for axes, (name, values) in zip(grid, varied.items(), strict=True):
        x = _positions(axes.xaxis, name, values, room)
        axes.errorbar(
            x, value, yerr=[value - low, high - value], fmt="o", color=BLUE, lw=0.8, alpha=0.7
        )
        at = np.unique(x)
        if len(at) < len(x):
            axes.plot(at, [value[x == v].max() for v in at], color=ORANGE, zorder=3)
            handles[1:] = [_line("best configuration at this value", color=ORANGE)]
    _labels(figure, grid, columns, "mean return")
    legend(figure, handles, title)
    save(figure, path)


@style()
def heat_map(
    varied: Mapping[str, Sequence[Any]], means: Sequence[float], path: Path, *, title: str
) -> None:
    """Mean return over the plane of two names, a cell per setting of a grid, else a dot; PNG and
    SVG.
    """
    (x_name, x_values), (y_name, y_values) = varied.items()
    xs, ys = (sorted(set(v), key=_rank) for v in (x_values, y_values))
    full = len(xs) * len(ys) == len(means)
    height = float(np.clip(0.25 * len(ys), HEIGHT, 3 * HEIGHT)) if full else HEIGHT
    figure, (axes,) = _panels(1, height=height)
    room = WIDTH - 1.8  # for the colour bar and the labels beside the axes
    if full:
        cells = np.full((len(ys), len(xs)), np.nan)
        for x, y, mean in zip(x_values, y_values, means, strict=True):
            cells[ys.index(y), xs.index(x)] = mean
        seen: Any = axes.imshow(cells, origin="lower", aspect="auto", cmap="cividis")
        _name_ticks(axes.xaxis, numerals.labels(xs), room)
        _name_ticks(axes.yaxis, numerals.labels(ys), height)
        axes.set(xlabel=x_name, ylabel=y_name)
        axes.grid(visible=False)
        _write_cells(axes, cells, room / len(xs), height / len(ys))
    else:
        x = _positions(axes.xaxis, x_name, x_values, room)
        y = _positions(axes.yaxis, y_name, y_values, height)
        seen = axes.scatter(x, y, c=means, cmap="cividis", s=40)
    figure.colorbar(seen, label="mean return").outline.set_linewidth(0.6)
    _title(figure, title)
    save(figure, path)


@style()
def animation(
    draw: Frame, captions: Sequence[str], path: Path, *, seconds: Sequence[float]
) -> None:
    """An animated GIF of frames, each below its caption.

    Args:
        draw: draws the frame of an index on axes.
        captions: of each frame.
        path: of the picture.
        seconds: for which each frame is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    width, top = 3.2, 0.26  # inches; of 100 dots, as the picture is for a screen
    height = width * min(_ratio(draw), 0.8) + top
    figure = Figure(figsize=(width, height), dpi=100)
    figure.set_layout_engine("none")  # one axes, placed to the dot
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
    none = Image.Dither.NONE  # few colours, the same in all frames: still parts cost nothing
    first, *rest = (frame(i).quantize(palette=palette, dither=none) for i in range(len(captions)))
    times = [round(1000 * s) for s in seconds]
    write = functools.partial(
        first.save, format="GIF", save_all=True, append_images=rest, duration=times, loop=0
    )
    files.replace(path, write)


@style()
def strip(draw: Frame, captions: Mapping[int, str], path: Path) -> None:
    """A film strip: frames in a row, each below its caption; PNG and SVG.

    Args:
        draw: draws the frame of an index on axes.
        captions: of each index that is shown.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, WIDTH / len(captions) * _ratio(draw) + 0.25))
    for axes, (index, caption) in zip(
        figure.subplots(1, len(captions), squeeze=False)[0], captions.items(), strict=True
    ):
        draw(axes, index)
        axes.set_title(caption)
    save(figure, path)


def _palette(picture: Any) -> Any:
    """The picture in its 64 most distant colours, with near white as white."""
    few = picture.quantize(64, method=1)  # maximum coverage
    colours = np.reshape(few.getpalette(), (-1, 3))
    colours[colours.min(axis=1) > 246] = 255
    few.putpalette(colours.ravel().tolist())
    return few


def _ratio(draw: Frame) -> float:
    """Aspect ratio of the drawing, height over width; a line has some height, too."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw(axes, 0)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return max(0.2, abs(high - low) / abs(right - left))


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
    count: int, columns: int = 1, *, height: float | None = None, sharey: bool = False
) -> tuple[Any, Any]:
    """A figure with `count` axes, and the axes. height: of a panel, in inches."""
    # without pyplot: no backend is chosen, no global state touched
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    height = height or min(HEIGHT, 0.8 * WIDTH / columns)
    figure = Figure(figsize=(WIDTH, rows * height + 0.25))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _labels(figure: Any, grid: Any, columns: int, ylabel: str, xlabel: str = "") -> None:
    """Labels the axes beside the first panel of each row and, if requested, below the last of each
    column.
    """
    width, height = (
        figure.get_figwidth() / columns,
        figure.get_figheight() / -(-len(grid) // columns),
    )
    for axes in grid[-columns:] if xlabel else ():
        axes.set_xlabel(_wrapped(xlabel, width - 0.5))
    for axes in grid[::columns]:
        axes.set_ylabel(_wrapped(ylabel, height - 0.5))


def _measured(what: str, lows: Iterable[Any]) -> str:
    """The quantity of an axis, with its kind of interval if there is one."""
    known = any(np.isfinite(low).any() for low in lows)
    return f"{what}, {INTERVAL}" if known else what


def legend(figure: Any, handles: Sequence[Any], title: str = "") -> None:
    """One legend above all panels, in as many columns as fit; the figure grows by it. None if there
    is only one entry.
    """
    if not handles:
        return
    labels = [_wrapped(handle.get_label(), WIDTH - 0.8) for handle in handles]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    columns = max(1, min(len(handles), int(WIDTH / (0.55 + LETTER * longest))))
    rows = -(-len(handles) // columns)
    title = _wrapped(title, WIDTH - 0.2) if title else ""
    tallest = max(label.count("\n") + 1 for label in labels)
    lines = rows * tallest + (title.count("\n") + 1 if title else 0)
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)
    look = {"loc": "outside upper center", "ncols": -(-len(handles) // rows), "columnspacing": 1.2}
    figure.legend(handles, labels, **look, title=title)


def _title(figure: Any, title: str) -> None:
    """A title above all panels; the figure grows by it."""
    text = _wrapped(title, WIDTH - 0.2)
    figure.set_figheight(figure.get_figheight() + 0.17 * (text.count("\n") + 1))
    figure.suptitle(text)


def _leave_room(figure: Any) -> None:
    """Removes ticks whose labels would touch another text; the first of an axis stay."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    axes_of_ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {axis: _labelled(axis) for axis in axes_of_ticks}
    of_ticks = {text for axis in axes_of_ticks for text in axis.findobj(Text)} - {
        axis.label for axis in axes_of_ticks
    }
    others = figure.findobj(
        lambda x: isinstance(x, Text) and x.get_visible() and bool(x.get_text().strip())
    )
    taken = [text.get_window_extent() for text in others if text not in of_ticks]
    for axis, found in ticks.items():
        kept = []
        for tick in found:
            box = tick.label1.get_window_extent().padded(1)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                kept.append(tick)
        if len(kept) < len(found):
            axis.set_ticks(
                [tick.get_loc() for tick in kept], [tick.label1.get_text() for tick in kept]
            )
            axis.set_tick_params(which="minor", length=0)


def _labelled(axis: Any) -> list[Any]:
    """The visible ticks with their labels, in order."""
    low, high = sorted(axis.get_view_interval())
    seen = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick for tick in seen if tick.label1.get_visible() and tick.label1.get_text()]


def _spread(values: np.ndarray, *, log: bool) -> tuple[float, float]:
    """Limits of an axis that leave a margin around all finite values."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = (np.log10(seen.min()), np.log10(seen.max())) if log else (seen.min(), seen.max())
    margin = 0.06 * (high - low) or 0.5
    return (10 ** (low - margin), 10 ** (high + margin)) if log else (low - margin, high + margin)


def _log_ticks(axis: Any, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis of less than two decades, where powers of ten are too
    few.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        axis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0)) if high > 10 * low else MaxNLocator(4)
        )
        axis.set_major_formatter(lambda x, _: numerals.numbers([low, high, x], 4)[-1])


def _counts(axis: Any) -> None:
    """Steps as 20k and 3M."""
    from matplotlib.ticker import EngFormatter

    axis.get_major_locator().set_params(nbins=5)
    axis.set_major_formatter(EngFormatter(sep=""))


def _name_ticks(axis: Any, texts: Sequence[str], room: float) -> None:
    """Labels at 0, 1, ...; rotated below an axis if they need more than `room` inches side by
    side.
    """
    short = _shortened(texts, 0.2 * WIDTH)
    width = LETTER * max(map(len, short))
    upright = axis.axis_name == "x" and width * len(short) > room
    axis.set_ticks(range(len(short)), short, rotation=90 if upright else 0)
    if upright:
        axis.get_figure().set_figheight(axis.get_figure().get_figheight() + width)


def _write_cells(axes: Any, cells: np.ndarray, width: float, height: float) -> None:
    """Writes the number of every cell of a heat map, if none is wider than a cell.

    Args:
        axes: on which the cells are drawn.
        cells: the numbers, [Y, X]; NaN for empty cells.
        width: of a cell, in inches.
        height: of a cell, in inches.
    """
    seen = {index: mean for index, mean in np.ndenumerate(cells) if np.isfinite(mean)}
    texts = numerals.numbers(seen.values())
    if not texts or LETTER * (max(map(len, texts)) + 1) > width or height < 0.15:
        return
    middle = (min(seen.values()) + max(seen.values())) / 2
    for ((j, i), mean), text in zip(seen.items(), texts, strict=True):
        axes.text(i, j, text, ha="center", va="center", color=_ink(mean < middle))


def _dots(
    axes: Any, rows: Sequence[int], values: np.ndarray, colours: Sequence[str], log: bool
) -> None:
    """Dots with horizontal intervals; a number at its end of the axis for values off it.

    Args:
        axes: on which they are drawn.
        rows: the height of each.
        values: value, low and high of each, [K, 3].
        colours: of each height.
        log: on a logarithmic axis.
    """
    shown = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    left, right = _spread(shown, log=log)
    axes.set(xlim=(left, right), xscale="log" if log else "linear")
    ends = np.clip(np.where(np.isnan(values[:, 1:]), values[:, :1], values[:, 1:]), left, right)
    for row, middle, place, interval in zip(rows, values[:, 0], shown[:, 0], ends, strict=True):
        if np.isfinite(place):
            axes.hlines(row, *interval, color=colours[row], linewidth=1.0)
            axes.plot(place, row, "o", color=colours[row])
        else:
            look = {"ha": "right" if middle == np.inf else "left", "va": "center", "color": "0.4"}
            x = float(middle == np.inf)
            axes.text(
                x,
                row,
                f" {numerals.number(middle, 2)} ",
                transform=axes.get_yaxis_transform(),
                **look,
            )


def _say_if_empty(axes: Any, values: Any) -> None:
    """Marks a panel in which no number is finite, and writes none beside it."""
    if not any(np.isfinite(y).any() for y in values):
        axes.text(
            0.5,
            0.5,
            "no finite value",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color="0.4",
        )
        axes.tick_params(labelbottom=False, labelleft=False)


def _alone(y: Any) -> list[int]:
    """Finite numbers between others that are not, through which no line is visible."""
    finite = np.pad(np.isfinite(np.asarray(y, float)), 1)
    return np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:]).tolist()


def _marked(y: Any, offset: int) -> list[int]:
    """The points of a line that have markers: eight to identify it, as more would hide it; and
    isolated points.
    """
    every = -(-len(y) // 8)
    return sorted({*range(offset % every, len(y), every), *_alone(y)})


def _wrapped(text: str, inches: float) -> str:
    """The text in lines of that length."""
    return textwrap.fill(text, max(8, int(inches / LETTER)))


def _shortened(texts: Sequence[str], inches: float) -> list[str]:
    """Texts of at most that length, without the middle of longer ones; more is left out if two
    would look the same.
    """
    letters = max(8, int(inches / LETTER))
    while True:
        half = letters // 2
        short = [
            text if len(text) <= letters else f"{text[:half]}…{text[half + 1 - letters :]}"
            for text in texts
        ]
        if len(set(short)) == len(set(texts)):
            return short
        letters += 1


def looks(labels: Iterable[str], *, markers: bool = False) -> dict[str, dict[str, Any]]:
    """Colour, line style and, if requested, marker of each label, as arguments of matplotlib's
    `plot`.

    An estimator always has the same (`LOOKS`); other labels take the remaining ones, in the order
    in which they first appear.
    """
    labels = list(dict.fromkeys(labels))
    taken = {LOOKS[label] for label in labels if label in LOOKS}
    free = itertools.cycle([pair for pair in _PAIRS if pair not in taken] or _PAIRS)
    found = {}
    for label in labels:
        colour, line = LOOKS[label] if label in LOOKS else next(free)
        found[label] = {"color": COLOURS[colour], "linestyle": STYLES[line]}
        if markers:
            found[label]["marker"] = MARKERS[(line * len(COLOURS) + colour) % len(MARKERS)]
    return found


def _positions(axis: Any, name: str, values: Sequence[Any], room: float) -> np.ndarray:
    """The positions of values on an axis: as numbers, on a log scale if they span a decade or more.

    Values that somebody typed, with few digits, are used as ticks. They are spaced evenly if they
    are not numbers, or if their labels would overlap.

    Args:
        axis: the axis.
        name: of the varied setting.
        values: one per setting.
        room: the length of the axis, in inches.
    """
    axis.set_label_text(*_shortened([name], room))
    listed = sorted(set(values), key=_rank)
    if all(map(numerals.is_number, values)):
        x = np.array(values, float)
        log = x.min() > 0 and x.max() >= 10 * x.min()
        written = len(listed) <= 20 and all(float(f"{v:.4g}") == v for v in listed)
        if not written or _fit(
            np.log(listed) if log else np.array(listed, float), numerals.labels(listed), room
        ):
            axis.axes.set(**{f"{axis.axis_name}scale": "log" if log else "linear"})
            if written:
                axis.set_ticks(listed, numerals.labels(listed))
                axis.set_ticks([], minor=True)
            elif log:
                _log_ticks(axis, x.min(), x.max())
            return x
    _name_ticks(axis, numerals.labels(listed), room)
    return np.array([listed.index(v) for v in values], float)


def _fit(at: np.ndarray, texts: Sequence[str], room: float) -> bool:
    """True if texts at these ascending positions do not overlap on an axis of `room` inches."""
    needed = LETTER * (max(map(len, texts)) + 1)
    return len(at) == 1 or np.diff(at).min() / (at[-1] - at[0]) * 0.9 * room > needed


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers first, in their order; then the others, by their text."""
    return (False, value) if numerals.is_number(value) else (True, str(value))


def _ink(dark: bool) -> str:
    return "white" if dark else "black"


def _line(label: str, **look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)
