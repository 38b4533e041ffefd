"""Pictures of runs. The only importer of matplotlib, which loads when something is drawn."""

from pathlib import Path

import numpy as np

# Okabe & Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


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
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
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
