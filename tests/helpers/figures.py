"""Checks of a figure that people look at; as a backend of matplotlib, of every figure that is
shown.

A script run with `MPLBACKEND=module://figures` and this folder on its path fails at the first
figure that is not legible, when it is shown.
"""

import itertools
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from matplotlib.text import Text

FigureCanvas = FigureCanvasAgg
NARROWEST = 6.5  # inches, of a figure on a page


def show(*args: Any, **kwargs: Any) -> None:
    """Checks what is open, and closes it."""
    for number in plt.get_fignums():
        check(plt.figure(number))
    plt.close("all")


def check(figure: Any) -> None:
    """Asserts that a figure is legible: nothing clipped, no text on another, no legend on what is
    drawn.
    """
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width >= NARROWEST, width
    assert height <= 9.0, height
    box = figure.get_tightbbox()
    assert -0.01 <= box.x0 <= box.x1 <= width + 0.01, box
    assert -0.01 <= box.y0 <= box.y1 <= height + 0.01, box
    texts = letters(figure)
    assert min(text.get_fontsize() for text in texts) >= 8
    boxes = [text.get_window_extent().padded(-1) for text in texts]
    pairs = itertools.combinations(zip(texts, boxes, strict=True), 2)
    over = [(a.get_text(), b.get_text()) for (a, p), (b, q) in pairs if p.overlaps(q)]
    assert not over, over
    for legend in figure.findobj(Legend):
        hidden = [line.get_label() for line in lines(figure) if crosses(line, legend)]
        assert not hidden, (legend, hidden)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        said = [text for text in ticks(axis) if text]
        assert len(set(said)) == len(said), said
        written = [text for text in said if not text.strip("−0123456789.e") and text != "0"]
        assert len({"e" in text for text in written}) < 2, said  # one notation


def letters(figure: Any) -> list[Any]:
    """Every text that is seen."""
    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    unseen |= {tick.label1, tick.label2}
    found = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text()
    )
    return [text for text in found if text not in unseen]


def ticks(axis: Any) -> list[str]:
    """The labels of an axis that are seen."""
    low, high = sorted(axis.get_view_interval())
    seen = (
        tick
        for tick in axis.get_major_ticks()
        if low <= tick.get_loc() <= high and tick.label1.get_visible()
    )
    return [tick.label1.get_text() for tick in seen]


def lines(figure: Any) -> list[Any]:
    """Every line of data."""
    return [line for axes in figure.axes for line in axes.get_lines()]


def crosses(line: Any, legend: Any) -> bool:
    """True for a line that lies, or one of whose points lies, under a legend."""
    path = line.get_transform().transform_path(line.get_path())
    box = legend.get_window_extent().padded(-1)
    dots = line.get_marker() not in ("", "None", None) and any(
        box.contains(*point) for point in path.vertices
    )
    joined = line.get_linestyle() != "None" and path.intersects_bbox(box, filled=False)
    return bool(dots or joined)
