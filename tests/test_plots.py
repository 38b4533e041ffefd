"""Figures: both files, the same bytes each time, of a page's width, legible, whole, and told apart without colour."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pg import plots
from pg.statistics import Estimate

NAMES = [f"estimator_{i}_of_a_longer_name"[: 8 + i] for i in range(20)]
PROBLEMS = ["a random problem", "a corridor", "rewards of −1 and then about +1", "CartPole", "Pendulum", "Acrobot"]


def estimate(x: Any, width: float = 0.1) -> Estimate:
    return Estimate(x, x - width, x + width)


def bars(path: Path, panels: int = 1, names: int = 4, *, log: bool = False) -> None:
    rng = np.random.default_rng(0)
    middle = 10.0 ** rng.normal(size=(panels, names)) if log else rng.normal(size=(panels, names))
    groups = {
        problem: {name: (m, m - 0.2 * abs(m), m + 0.2 * abs(m)) for name, m in zip(NAMES[:names], row, strict=True)}
        for problem, row in zip(PROBLEMS, middle, strict=False)
    }
    groups[PROBLEMS[0]] |= {NAMES[0]: (np.inf, np.inf, np.inf), NAMES[1]: (1.0, -1.0, np.nan)}
    plots.bars(groups, path, ylabel="variance of an episode over that of reinforce", log=log)


def curves(path: Path, panels: int = 1, names: int = 4, **options: Any) -> None:
    x = 2.0 ** np.arange(12)
    rise = {name: x / (x + 2.0**i) for i, name in enumerate(NAMES[:names])}
    lines = {name: (x, y, 0.9 * y, 1.1 * y) for name, y in rise.items()}
    levels = {"0.5": 0.5, "0.9": 0.9}
    labels = {"xlabel": "episodes of a batch", "ylabel": "cosine with ∇J"}
    plots.curves(dict.fromkeys(PROBLEMS[:panels], lines), path, **labels, logx=True, levels=levels, **options)


def learning_curve(path: Path, seeds: int = 3) -> None:
    steps = np.cumsum(np.full((seeds, 50), 1000), axis=1)
    returns = np.random.default_rng(0).normal(np.sqrt(steps), 10.0)
    plots.learning_curve(steps, returns, path, title="leave_one_out on CartPole-v1", final=200.0)


def learning_curves(path: Path) -> None:
    steps = np.linspace(1e4, 1.5e6, 30)
    lines = {name: (steps, estimate(np.sqrt(steps) / (1 + i), 10.0)) for i, name in enumerate(NAMES[:9])}
    plots.learning_curves(dict.fromkeys(PROBLEMS[:5], lines), path, best={PROBLEMS[0]: 900.0})


def profiles(path: Path) -> None:
    tau = np.linspace(0, 1, 20)
    shares = {name: estimate(1 - tau ** (1 + i)) for i, name in enumerate(NAMES[:5])}
    plots.performance_profiles(tau, shares, path, title="a title that is longer than a line of the picture is wide")


def intervals(path: Path) -> None:
    plots.intervals({n: estimate(0.1 * i) for i, n in enumerate(NAMES[:8])}, path, title="all", xlabel="score of all")


def sensitivity(path: Path) -> None:
    varied = {"learning_rate": [1e-3, 1e-2, 1e-1] * 2, "optimizer": ["adam"] * 3 + ["sgd"] * 3}
    plots.sensitivity(varied, [estimate(float(i)) for i in range(6)], path, title="leave_one_out, 8 seeds")


def heat_map(path: Path) -> None:
    over = {"learning_rate": [1e-3, 1e-2, 1e-1] * 2, "gamma": [0.99] * 3 + [1.0] * 3}
    plots.heat_map(over, [100.0 * i for i in range(6)], path, title="leave_one_out on CartPole-v1")


FIGURES: dict[str, Callable[[Path], None]] = {
    "bars": bars,
    "bars, log": lambda path: bars(path, 1, 4, log=True),
    "bars of twenty": lambda path: bars(path, 6, 20, log=True),
    "curves": curves,
    "curves of twenty": lambda path: curves(path, 6, 20),
    "curves, axes of their own": lambda path: curves(path, 2, 4, sharey=False, logy=True),
    "learning_curve": learning_curve,
    "learning_curve, one seed": lambda path: learning_curve(path, 1),
    "learning_curves": learning_curves,
    "profiles": profiles,
    "intervals": intervals,
    "sensitivity": sensitivity,
    "heat_map": heat_map,
}


def letters(figure: Any) -> list[Any]:
    """Every text that is seen."""
    from matplotlib.text import Text

    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    unseen |= {tick.label1, tick.label2}
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text())
    return [text for text in found if text not in unseen]


SINGLE = Estimate(0.5, np.nan, np.nan)  # of one seed, which has no interval
LATE = np.where(np.arange(50) < np.array([[10], [0], [50]]), np.nan, 1.0)  # no episode ends at first, or ever
ONE_SEED: dict[str, Callable[[Path], None]] = {
    "intervals": lambda path: plots.intervals({"a": SINGLE, "b": estimate(1.0)}, path, title="all", xlabel="score"),
    "one interval": lambda path: plots.intervals({"a": SINGLE}, path, title="all", xlabel="score"),
    "sensitivity": lambda path: plots.sensitivity({"gamma": [0.9, 1.0]}, [SINGLE] * 2, path, title="one seed"),
    "profiles": lambda path: plots.performance_profiles(
        np.linspace(0, 1, 3), {"a": Estimate(np.ones(3), *np.full((2, 3), np.nan))}, path, title="one seed"
    ),
    "learning_curves": lambda path: plots.learning_curves(
        {"CartPole": {"a": (np.arange(3), Estimate(np.ones(3), *np.full((2, 3), np.nan)))}}, path
    ),
    "late episodes": lambda path: plots.learning_curve(
        np.cumsum(np.ones((3, 50)), axis=1), LATE, path, title="one seed ends no episode"
    ),
    "no episodes": lambda path: plots.learning_curve(
        np.cumsum(np.ones((2, 5)), axis=1), np.full((2, 5), np.nan), path, title="no seed ends an episode"
    ),
    "no steps in common": lambda path: plots.learning_curve(
        np.array([[10], [20]]), np.ones((2, 1)), path, title="one update"
    ),
}


@pytest.mark.parametrize("name", ONE_SEED)
def test_a_figure_of_one_seed_or_of_no_episodes_is_drawn(name: str, tmp_path: Path) -> None:
    """No interval, no episode that ended, no steps that seeds share: without an error or a warning."""
    ONE_SEED[name](tmp_path / "figure.png")
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}


def test_the_mean_of_a_learning_curve_is_of_the_seeds_whose_episodes_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    ONE_SEED["late episodes"](tmp_path / "figure.png")
    (mean,) = [line for line in drawn[0].axes[0].get_lines() if "mean" in str(line.get_label())]
    np.testing.assert_array_equal(mean.get_ydata(), 1.0)


SLOW = ("bars of twenty", "curves of twenty", "curves, axes of their own", "learning_curves")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FIGURES])
def test_a_figure(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is clipped, no text lies on another, nor is smaller than 8 points; the figure fits a page."""
    drawn: list[Any] = []
    save = plots.save
    monkeypatch.setattr(plots, "save", lambda figure, path: (drawn.append(figure), save(figure, path)))
    FIGURES[name](tmp_path / "figure.png")
    (figure,) = drawn
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width in (660, 1380)  # one column or both, of 200 dots per inch
    width, height = figure.get_size_inches()
    assert height <= 9.0
    box = figure.get_tightbbox()
    assert -0.01 <= box.x0 <= box.x1 <= width + 0.01
    assert -0.01 <= box.y0 <= box.y1 <= height + 0.01
    texts = letters(figure)
    assert min(text.get_fontsize() for text in texts) >= 8
    boxes = [text.get_window_extent().padded(-1) for text in texts]
    over = [(a.get_text(), b.get_text()) for (a, p), (b, q) in pairs(zip(texts, boxes, strict=True)) if p.overlaps(q)]
    assert not over
    for legend in figure.legends:  # and none of them hides what it explains
        assert not any(legend.get_window_extent().padded(-1).overlaps(a.get_window_extent()) for a in figure.axes)


def pairs(x: Any) -> Any:
    return itertools.combinations(list(x), 2)


@pytest.mark.parametrize("name", ["bars", "curves"])
def test_the_same_numbers_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    for path in ("a.png", "b.svg"):  # whichever of the two is named
        FIGURES[name](tmp_path / path)
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


def test_the_order_of_names_is_as_given() -> None:
    assert plots._union({"one": "ac", "two": "abc", "three": "dab"}) == ["d", "a", "b", "c"]


# Machado, Oliveira & Fernandes 2009, full severity, on linear RGB.
SIGHT = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(colour: str, sight: Any) -> np.ndarray:
    """CIE L*a*b* of "#RRGGBB" as it is seen."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.asarray(to_xyz) @ np.clip(np.asarray(sight) @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", SIGHT)
def test_the_colour_blind_can_tell_the_colours_apart(name: str) -> None:
    """ΔE of 2.3 is just noticeable; here every pair, and each from the paper, has seven times that."""
    seen = [lab(colour, SIGHT[name]) for colour in (*plots.COLOURS, "#FFFFFF")]
    assert min(np.linalg.norm(a - b) for a, b in pairs(seen)) > 16


def test_twenty_lines_differ_without_colour_too() -> None:
    looks = [tuple(look.values()) for look in plots._looks(NAMES, markers=True).values()]
    assert len(set(looks)) == 20
    assert len({look[1:] for look in looks}) == 20  # line style and marker alone


def test_an_animation_has_every_frame_and_its_time(tmp_path: Path) -> None:
    def draw(axes: Any, index: int) -> None:
        axes.set(xlim=(0, 2), ylim=(0, 1), aspect="equal")
        axes.set_axis_off()
        axes.plot([index / 3], [0.5], "o", color=plots.BLUE)

    captions = [f"step {i}" for i in range(5)]
    plots.animation(draw, captions, tmp_path / "a.gif", seconds=[0.1] * 4 + [0.8])
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (5, 0)
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
        image.seek(4)
        assert image.info["duration"] == 800
    plots.strip(draw, dict(enumerate(captions)), tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.gif", "b.png", "b.svg"}
