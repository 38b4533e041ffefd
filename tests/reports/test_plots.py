"""Figures: both files, the same bytes each time, of a page's width, legible, complete, and
distinguishable without colour.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import figures
import numpy as np
import pytest
from PIL import Image

from pg.estimators.facts import FACTS
from pg.reports import plots
from pg.reports.curves import Curve, mean_learning_curve, seed_curves
from pg.reports.statistics import Estimate

NAMES = [f"estimator_{i}_of_a_longer_name"[: 8 + i] for i in range(20)]
PROBLEMS = [
    "a random problem",
    "a corridor",
    "rewards of −1 and then about +1",
    "CartPole",
    "Pendulum",
    "Acrobot",
]


def estimate(x: Any, width: float = 0.1) -> Estimate:
    return Estimate(x, x - width, x + width)


def bars(path: Path, panels: int = 1, names: int = 4, *, log: bool = False) -> None:
    rng = np.random.default_rng(0)
    middle = 10.0 ** rng.normal(size=(panels, names)) if log else rng.normal(size=(panels, names))
    groups = {
        problem: {
            name: estimate(m, 0.2 * abs(m)) for name, m in zip(NAMES[:names], row, strict=True)
        }
        for problem, row in zip(PROBLEMS, middle, strict=False)
    }
    groups[PROBLEMS[0]] |= {
        NAMES[0]: Estimate(np.inf, np.inf, np.inf),
        NAMES[1]: Estimate(1.0, -1.0, np.nan),
    }
    plots.bars(groups, path, ylabel="variance of an episode over that of reinforce", log=log)


def curves(path: Path, panels: int = 1, names: int = 4, **options: Any) -> None:
    x = 2.0 ** np.arange(12)
    rise = {name: x / (x + 2.0**i) for i, name in enumerate(NAMES[:names])}
    lines = {name: (x, Estimate(y, 0.9 * y, 1.1 * y)) for name, y in rise.items()}
    levels = {"0.5": 0.5, "0.9": 0.9}
    labels = {"xlabel": "episodes of a batch", "ylabel": "cosine with ∇J"}
    plots.curves(
        dict.fromkeys(PROBLEMS[:panels], lines), path, **labels, logx=True, levels=levels, **options
    )


def metrics_of(returns: Any, steps: int) -> dict[str, np.ndarray]:
    """Metrics of returns [seeds, updates], as many steps in each; NaN: no episode ended."""
    returns = np.atleast_2d(np.asarray(returns, float))
    return {
        "return": returns,
        "episodes": np.isfinite(returns).astype(int),
        "env_steps": np.full(returns.shape, steps),
    }


def learning_curve(path: Path, seeds: int = 3) -> None:
    returns = np.random.default_rng(0).normal(np.sqrt(np.arange(50_000, step=1000)), 10.0)
    metrics = metrics_of(np.broadcast_to(returns, (seeds, 50)), 1000)
    plots.learning_curve(metrics, path, title="leave_one_out on CartPole-v1", final=200.0)


def learning_curves(path: Path) -> None:
    steps = np.linspace(1e4, 1.5e6, 30)
    lines = {
        name: (steps, estimate(np.sqrt(steps) / (1 + i), 10.0)) for i, name in enumerate(NAMES[:9])
    }
    plots.learning_curves(dict.fromkeys(PROBLEMS[:5], lines), path, best={PROBLEMS[0]: 900.0})


def profiles(path: Path) -> None:
    tau = np.linspace(0, 1, 20)
    shares = {name: estimate(1 - tau ** (1 + i)) for i, name in enumerate(NAMES[:5])}
    plots.performance_profiles(
        tau, shares, path, title="a title that is longer than a line of the picture is wide"
    )


def comparison(path: Path, envs: int = 1) -> None:
    """A panel of curves and one of profiles for each environment."""
    tau = np.linspace(0, 1, 20)
    steps = np.linspace(0, 1.5e6, 30)
    labels = ["reinforce", "leave_one_out", "learning_rate=0.001, gamma=0.99, num_envs=100"]
    lines = {n: Curve(steps, estimate(np.sqrt(steps) / (1 + i))) for i, n in enumerate(labels)}
    shares = {name: estimate(1 - tau ** (1 + i)) for i, name in enumerate(labels)}
    panels = {
        f"{PROBLEMS[i % 6]} {i}": plots.Compared(lines, 500 * tau, shares) for i in range(envs)
    }
    plots.comparison(panels, path, ylabel="IQM of returns", threshold=900.0)


def intervals(path: Path) -> None:
    plots.intervals(
        {n: estimate(0.1 * i) for i, n in enumerate(NAMES[:8])},
        path,
        title="all",
        xlabel="score of all",
    )


def sensitivity(path: Path) -> None:
    varied = {"learning_rate": [1e-3, 1e-2, 1e-1] * 2, "optimizer": ["adam"] * 3 + ["sgd"] * 3}
    plots.sensitivity(
        varied, [estimate(float(i)) for i in range(6)], path, title="leave_one_out, 8 seeds"
    )


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
    "comparison": comparison,
    "comparison on twelve": lambda path: comparison(path, 12),
}


SINGLE = Estimate(0.5, np.nan, np.nan)  # of one seed, which has no interval
# no episode ends at first, or ever
LATE = np.where(np.arange(50) < np.array([[10], [0], [50]]), np.nan, 1.0)
ONE_SEED: dict[str, Callable[[Path], None]] = {
    "intervals": lambda path: plots.intervals(
        {"a": SINGLE, "b": estimate(1.0)}, path, title="all", xlabel="score"
    ),
    "one interval": lambda path: plots.intervals({"a": SINGLE}, path, title="all", xlabel="score"),
    "sensitivity": lambda path: plots.sensitivity(
        {"gamma": [0.9, 1.0]}, [SINGLE] * 2, path, title="one seed"
    ),
    "profiles": lambda path: plots.performance_profiles(
        np.linspace(0, 1, 3),
        {"a": Estimate(np.ones(3), *np.full((2, 3), np.nan))},
        path,
        title="one seed",
    ),
    "learning_curves": lambda path: plots.learning_curves(
        {"CartPole": {"a": Curve(np.arange(3), Estimate(np.ones(3), *np.full((2, 3), np.nan)))}},
        path,
    ),
    "comparison": lambda path: plots.comparison(
        {"CartPole": plots.Compared({}, np.array([]), {})}, path, ylabel="IQM of returns"
    ),
    "late episodes": lambda path: plots.learning_curve(
        metrics_of(LATE, 1), path, title="one seed ends no episode"
    ),
    "no episodes": lambda path: plots.learning_curve(
        metrics_of(np.full((2, 5), np.nan), 1), path, title="no seed ends an episode"
    ),
    "no steps in common": lambda path: plots.learning_curve(
        metrics_of(np.ones((2, 1)), 10) | {"env_steps": np.array([[10], [20]])},
        path,
        title="one update",
    ),
}


@pytest.mark.parametrize("name", ONE_SEED)
def test_a_figure_of_one_seed_or_of_no_episodes_is_drawn(name: str, tmp_path: Path) -> None:
    """No interval, no episode that ended, no steps that seeds share: without an error or a
    warning.
    """
    ONE_SEED[name](tmp_path / "figure.png")
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("late episodes", "no mean: no episode ended in 1 of 3 seeds"),
        ("no steps in common", "no mean: curves must have steps in common"),
    ],
)
def test_a_learning_curve_without_a_mean_says_why(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    ONE_SEED[name](tmp_path / "figure.png")
    texts = [" ".join(text.get_text().split()) for text in drawn[0].legends[0].get_texts()]
    assert any(text.startswith(reason) for text in texts)


def test_the_mean_of_a_learning_curve_is_that_of_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    returns = np.random.default_rng(0).normal(size=(3, 250))
    metrics = metrics_of(returns, 10) | {"episodes": np.arange(750).reshape(3, 250) % 4}
    plots.learning_curve(metrics, tmp_path / "figure.png", title="three seeds")
    expected = mean_learning_curve(*seed_curves(metrics))
    (mean,) = [line for line in drawn[0].axes[0].get_lines() if line.get_color() == plots.ORANGE]
    np.testing.assert_array_equal(mean.get_ydata(), expected.mean.value)


SLOW = (
    "bars of twenty",
    "curves of twenty",
    "curves, axes of their own",
    "learning_curves",
    "comparison on twelve",
)


def drawn(draw: Callable[[Path], None], path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that is saved."""
    found: list[Any] = []
    save = plots.save
    monkeypatch.setattr(
        plots, "save", lambda figure, path: (found.append(figure), save(figure, path))
    )
    draw(path)
    (figure,) = found
    return figure


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FIGURES]
)
def test_a_figure(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legible, as wide as a page, in both files; and the legend is beside the panels."""
    figure = drawn(FIGURES[name], tmp_path / "figure.png", monkeypatch)
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == 1350  # 6.75 inches of 200 dots
    figures.check(figure)
    for legend in figure.legends:
        assert not any(
            legend.get_window_extent().padded(-1).overlaps(a.get_window_extent())
            for a in figure.axes
        )


LONG = "group_leave_one_out_with_a_very_long_name_indeed"
DECADES = (10.0 ** np.arange(-5, 6)).tolist()


def settings(path: Path, **varied: Any) -> None:
    """`sensitivity` of values that come again until all have been seen."""
    count = max(map(len, varied.values()))
    columns = {
        name: [values[i % len(values)] for i in range(count)] for name, values in varied.items()
    }
    means = [estimate(-1e4 * i, 3e3) for i in range(count)]
    plots.sensitivity(
        columns, means, path, title="leave_one_out on MountainCarContinuous-v0, 5 seeds a setting"
    )


def plane(path: Path, xs: Any, ys: Any, scale: float = 1.0, missing: int = 0) -> None:
    """`heat_map` of a grid of which some settings may be missing."""
    grid = list(itertools.product(xs, ys))
    grid = grid[: len(grid) - missing]
    columns = {"learning_rate": [x for x, _ in grid], "max_steps_in_episode": [y for _, y in grid]}
    plots.heat_map(
        columns, [scale * i for i in range(len(grid))], path, title=f"{LONG} on CartPole-v1"
    )


def quality(path: Path, noise: Any, steps: float = 1e3) -> None:
    """gradient.png of noise scales at every update."""
    noise = np.asarray(noise, float)
    explained = np.linspace(-1e-3, 1.0, len(noise))
    found = {
        "env_steps": steps * np.arange(1, len(noise) + 1),
        "noise_scale": noise,
        "explained_variance": explained,
    }
    plots.gradient_quality(found, path, title="gae on CartPole-v1")


def run(path: Path, returns: Any, steps: int = 1000, final: float | None = None) -> None:
    """curve.png of returns [seeds, updates]."""
    title = f"{LONG} on MountainCarContinuous-v0"
    plots.learning_curve(metrics_of(returns, steps), path, title=title, final=final)


def lying(
    path: Path, values: Any, *, log: bool = True, panels: int = 1, name: str = "estimator"
) -> None:
    """`bars` of the same values in every panel."""
    group = {f"{name}_{i}": estimate(x, 0.1 * abs(x)) for i, x in enumerate(values)}
    plots.bars(
        {f"problem {i}": group for i in range(panels)},
        path,
        ylabel="variance of an episode",
        log=log,
    )


def budget(path: Path, x: Any, panels: int = 1) -> None:
    """`curves` over batches of these sizes."""
    x = np.asarray(x, float)
    line = (x, estimate(np.linspace(0.1, 0.9, len(x))))
    names = {f"problem {i}": {LONG: line} for i in range(panels)}
    plots.curves(
        names, path, xlabel="environment steps", ylabel="cosine", logx=True, levels={"0.5": 0.5}
    )


AWKWARD: dict[str, Callable[[Path], None]] = {
    "settings over ten decades": lambda p: settings(p, learning_rate=DECADES),
    "settings over ten decades beside others": lambda p: settings(
        p, learning_rate=DECADES, gae_lambda=[0.9, 0.95, 1.0]
    ),
    "settings drawn at random": lambda p: settings(
        p, learning_rate=list(np.geomspace(1.234e-5, 9.876e4, 23))
    ),
    "settings next to one another": lambda p: settings(
        p, gamma=[0.9, 0.99, 0.999, 0.9999], entropy=[0.0, 1e-5, 10.0]
    ),
    "settings of a tiny range": lambda p: settings(p, learning_rate=[0.1, 0.1000001, 0.1000002]),
    "settings of either sign": lambda p: settings(p, shift=[-1e5, -1.0, 0.0, 3e5]),
    "settings of long names": lambda p: settings(
        p, estimator=[f"{LONG}_{i}" for i in range(5)], learning_rate=DECADES
    ),
    "settings of True and False": lambda p: settings(p, dense_reward=[True, False]),
    "settings of the environment": lambda p: settings(
        p, max_steps_in_episode=[50, 100, 3000, 10000], seed=[1, 2]
    ),
    "one setting": lambda p: settings(p, learning_rate=[1e-3]),
    "five names": lambda p: settings(p, **{LONG + x: [1e-5, 3.0, 1e5] for x in "abcde"}),
    "a plane of decades": lambda p: plane(p, DECADES, [50, 100, 3000, 10000], -1234.5),
    "a plane of many values": lambda p: plane(
        p, np.geomspace(1.2e-5, 9e4, 30).tolist(), [0.9, 0.99, 0.9999]
    ),
    "a plane of long names": lambda p: plane(
        p, [f"{LONG}_{i}" for i in range(4)], [f"{LONG}_{i}" for i in range(3)]
    ),
    "a plane with holes": lambda p: plane(p, [f"{LONG}_{i}" for i in range(4)], DECADES, missing=3),
    "a plane of equal returns": lambda p: plane(p, [3000, 10000], [0.9, 0.99], 0.0),
    "a plane of returns far from zero": lambda p: plane(p, [1e-3, 1e-2, 0.1], [1, 2], -123456.789),
    "gradients over a million steps": lambda p: quality(p, np.geomspace(3000.0, 1e4, 40), 123456.0),
    "gradients of a huge noise": lambda p: quality(p, 10.0 ** np.arange(12)),
    "gradients that are not clear": lambda p: quality(p, [np.nan, 12345.6, np.nan, np.nan]),
    "gradients that are never clear": lambda p: quality(p, [np.nan] * 5),
    "gradients of one update": lambda p: quality(p, [6500.0]),
    "returns far below zero": lambda p: run(
        p, np.linspace(-1e6, -9.9e5, 60), 10**6, final=-123456.0
    ),
    "returns of a tiny range": lambda p: run(p, 1000 + 1e-6 * np.sin(np.arange(60)), final=1000.0),
    "returns of one update": lambda p: run(p, [[5.0], [6.0]]),
    "no returns": lambda p: run(p, np.full((2, 9), np.nan), final=np.nan),
    "a seed without returns": lambda p: run(p, [np.arange(50.0), np.full(50, np.nan)]),
    "lying, within a decade": lambda p: lying(p, [3000.0, 5000.0, 11000.0], panels=3),
    "lying, within a tenth": lambda p: lying(p, [10000.0, 10500.0], panels=4),
    "lying, over ten decades": lambda p: lying(p, DECADES, panels=4),
    "lying, below zero": lambda p: lying(p, [-12345.0, -0.1], log=False, panels=3),
    "lying, twenty problems": lambda p: lying(p, [1.0, 20.0], panels=20),
    "lying, long names": lambda p: lying(p, [1.0, np.nan, np.inf], name=LONG, panels=2),
    "batches within a decade": lambda p: budget(p, [3000, 5000, 10000], 3),
    "batches within a tenth": lambda p: budget(p, [10000, 10500, 11000], 3),
    "batches over ten decades": lambda p: budget(p, DECADES, 3),
    "one batch": lambda p: budget(p, [10000]),
}


# The slowest to draw, and those of which another has the same difficulty.
SLOW_FIGURES = (
    "lying, twenty problems",
    "gradients over a million steps",
    "settings over ten decades",
    "a plane with holes",
    "gradients of one update",
    "settings of long names",
    "batches within a decade",
    "lying, over ten decades",
    "batches over ten decades",
    "a plane of decades",
    "gradients that are never clear",
    "batches within a tenth",
    "a plane of many values",
    "a plane of equal returns",
    "a plane of long names",
)


def awkward_names() -> Iterator[Any]:
    """All awkward figures, some of them among the slow tests."""
    for name in AWKWARD:
        yield pytest.param(name, marks=pytest.mark.slow if name in SLOW_FIGURES else [])


@pytest.mark.parametrize("name", [*awkward_names()])
def test_an_awkward_figure(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many ticks, long names, tiny ranges, numbers of either sign, one point, none: legible."""
    # looked at, and not written
    monkeypatch.setattr(plots.files, "replace", lambda path, write: None)
    figures.check(drawn(AWKWARD[name], tmp_path / "figure.png", monkeypatch))


@pytest.mark.parametrize(
    "kind", ["settings over ten decades", "a plane of decades", "lying, within a decade"]
)
def test_an_axis_says_several_of_its_numbers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is not made by leaving all out."""
    monkeypatch.setattr(plots.files, "replace", lambda path, write: None)
    figure = drawn(AWKWARD[kind], tmp_path / "figure.png", monkeypatch)
    figure.draw_without_rendering()
    assert len(figures.ticks(figure.axes[0].xaxis)) >= 3


@pytest.mark.parametrize("seeds", [1, 3])
def test_only_several_seeds_have_a_mean_with_its_band(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots.files, "replace", lambda path, write: None)
    returns = np.random.default_rng(0).normal(size=(seeds, 250))
    figure = drawn(lambda path: run(path, returns), tmp_path / "figure.png", monkeypatch)
    _, middle = figure.legends[0].get_texts()
    said = {1: "mean of each of 100 bins", 3: "mean of 3 seeds, 95\u00a0% interval"}
    assert middle.get_text() == said[seeds]
    areas = [
        path
        for band in figure.axes[0].collections
        for path in band.get_paths()
        if np.ptp(path.vertices) > 0
    ]
    assert len(areas) == (seeds > 1)


@pytest.mark.parametrize(
    ("lengths", "said"),
    [([10, 10], ""), ([10, 20], "each mean ends at the last step that all its seeds reached")],
    ids=["equal", "different"],
)
@pytest.mark.parametrize("name", ["learning_curves", "comparison"])
def test_it_is_said_where_a_mean_curve_ends_if_a_seed_goes_further(
    name: str, lengths: list[int], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots.files, "replace", lambda path, write: None)
    metrics = metrics_of(np.zeros((2, 9)), 1)
    metrics["env_steps"] = metrics["env_steps"] * np.array(lengths)[:, None]
    lines = {"ppo": mean_learning_curve(*seed_curves(metrics))}

    def draw(path: Path) -> None:
        if name == "learning_curves":
            plots.learning_curves({"CartPole": lines}, path)
        else:
            compared = plots.Compared(lines, np.array([]), {})
            plots.comparison({"CartPole": compared}, path, ylabel="IQM of returns")

    figure = drawn(draw, tmp_path / "figure.png", monkeypatch)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == said


def test_the_curve_of_a_run_says_that_its_mean_ends_before_longer_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots.files, "replace", lambda path, write: None)
    metrics = metrics_of(np.zeros((2, 9)), 10)
    metrics["env_steps"] = metrics["env_steps"] * np.array([[1], [2]])

    def draw(path: Path) -> None:
        plots.learning_curve(metrics, path, title="two seeds")

    figure = drawn(draw, tmp_path / "figure.png", monkeypatch)
    _, mean = [text.get_text() for text in figure.legends[0].get_texts()]
    assert mean == "mean of 2 seeds, up to the end of the shortest run, 95\u00a0% interval"


def test_the_legend_of_the_sensitivity_says_what_a_point_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots.files, "replace", lambda path, write: None)
    figure = drawn(sensitivity, tmp_path / "figure.png", monkeypatch)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "configuration: mean of seeds, 95\u00a0% interval",
        "best configuration at this value",
    ]


def test_an_estimator_keeps_its_look() -> None:
    assert set(plots.LOOKS) == set(FACTS)
    alone = {name: plots.looks([name], markers=True)[name] for name in FACTS}
    assert len({tuple(look.values()) for look in alone.values()}) == len(FACTS)
    for names in (FACTS, [*FACTS][::-1], ["mine", *FACTS, "yours"]):
        found = plots.looks(names, markers=True)
        assert {name: found[name] for name in FACTS} == alone
        assert len({tuple(look.values()) for look in found.values()}) == len(found)


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
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


def lab(colour: str, sight: Any) -> np.ndarray:
    """CIE L*a*b* of "#RRGGBB" as it is seen."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = (
        np.asarray(to_xyz)
        @ np.clip(np.asarray(sight) @ linear, 0, 1)
        / np.array([0.95047, 1.0, 1.08883])
    )
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", SIGHT)
def test_the_colour_blind_can_tell_the_colours_apart(name: str) -> None:
    """ΔE of 2.3 is just noticeable; here every pair, and each from the paper, has seven times
    that.
    """
    seen = [lab(colour, SIGHT[name]) for colour in (*plots.COLOURS, "#FFFFFF")]
    assert min(np.linalg.norm(a - b) for a, b in pairs(seen)) > 16


def test_twenty_lines_differ_without_colour_too() -> None:
    looks = [tuple(look.values()) for look in plots.looks(NAMES, markers=True).values()]
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
