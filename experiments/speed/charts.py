"""Charts of the measurements of `throughput.py`."""

from collections.abc import Mapping
from pathlib import Path

from pg.reports import plots
from pg.runs import files

Rows = Mapping[str, Mapping[str, float]]
OURS, PLAIN, FLOOR = plots.BLUE, plots.ORANGE, plots.GREEN


@plots.style()
def plot(programs: Rows, scaling: Mapping[str, Rows], folder: Path) -> None:
    """Writes `programs` and `scaling` as PNG and SVG.

    Args:
        programs: Measurements of each program, by its name.
        scaling: Measurements of an update, by the enlarged quantity and its size.
        folder: The folder of the figures.
    """
    from matplotlib.figure import Figure  # without pyplot: no backend is chosen

    files.make_folder(folder)
    figure = Figure(figsize=(plots.WIDTH, 0.8 + 0.2 * len(programs)))
    axes = figure.subplots()
    names = list(programs)[::-1]
    colours = [
        PLAIN if name.endswith("_plain") else FLOOR if name == "forward" else OURS for name in names
    ]
    axes.barh(
        names,
        [programs[name]["steps_per_second"] / 1e6 for name in names],
        color=colours,
        height=0.7,
    )
    axes.set(
        xlabel="million environment steps per second",
        title="the library, plain forms, and the forward pass",
    )
    plots.save(figure, folder / "programs.png")

    figure = Figure(figsize=(plots.WIDTH, 2.2))
    for axes, (name, rows) in zip(
        figure.subplots(1, len(scaling), squeeze=False)[0], scaling.items(), strict=True
    ):
        rates = [row["steps_per_second"] / 1e6 for row in rows.values()]
        axes.plot([int(size) for size in rows], rates, color=OURS, marker="o")
        axes.set_xscale("log", base=2)
        axes.set_xticks([int(size) for size in rows], list(rows))
        axes.minorticks_off()
        axes.set(xlabel=name, ylim=(0, 1.15 * max(rates)))
    figure.supylabel("million steps per second, an update")
    plots.save(figure, folder / "scaling.png")
