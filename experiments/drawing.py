"""Pictures of what `throughput.py` measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Rows = Mapping[str, Mapping[str, float]]
OURS, PLAIN, FLOOR = "#0072B2", "#D55E00", "#009E73"


def draw(programs: Rows, scaling: Mapping[str, Rows], folder: Path) -> None:
    """programs.png: steps per second of each program; scaling.png: of an update, by each way to make it larger."""
    from matplotlib.figure import Figure  # without pyplot: no backend is chosen

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6.0, 1.2 + 0.28 * len(programs)), layout="constrained")
    axes = figure.subplots()
    names = list(programs)[::-1]
    colours = [PLAIN if name.endswith("_plain") else FLOOR if name == "forward" else OURS for name in names]
    axes.barh(names, [programs[name]["steps_per_second"] / 1e6 for name in names], color=colours, height=0.7)
    axes.set(xlabel="million environment steps per second", title="the library, plain forms, and the forward pass")
    _clean(axes)
    figure.savefig(folder / "programs.png", dpi=160)

    figure = Figure(figsize=(3.2 * len(scaling), 2.8), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(scaling), squeeze=False)[0], scaling.items(), strict=True):
        rates = [row["steps_per_second"] / 1e6 for row in rows.values()]
        axes.plot([int(size) for size in rows], rates, color=OURS, marker="o", linewidth=1.6)
        axes.set_xscale("log", base=2)
        axes.set_xticks([int(size) for size in rows], list(rows))
        axes.minorticks_off()
        axes.set(xlabel=name, ylim=(0, 1.15 * max(rates)))
        _clean(axes)
    figure.supylabel("million steps per second, an update", fontsize="medium")
    figure.savefig(folder / "scaling.png", dpi=160)


def _clean(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
