"""Pictures of episodes: an environment's state drawn on axes, animations and film strips.

`DRAWINGS` has a function (axes, state, parameters) for each environment that can be drawn; state
and parameters are gymnax's own, of one environment. A custom environment has a method
`draw` of the same arguments. An environment of Gymnasium draws its own frames, with its render mode
`rgb_array`: the episode is stepped again from its seed and its actions.

Imports neither jax nor gymnax until there is something to draw.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pg import numerals
from pg.config import Config, name_of, part_name
from pg.reports import plots
from pg.reports.plots import BLUE, GREEN, ORANGE

Draw = Callable[[Any, Any, Any], None]  # axes, state, parameters
DARK, GREY, PALE, PAPER = "#444444", "#999999", "#D8D8D8", "#F4F4F4"
PINK, YELLOW, SKY, BLACK = plots.COLOURS[3:]
END = 0.8  # seconds for which the last frame of an episode is shown
GYMNASIUM = "gymnasium:"  # the start of its environments' names
LARGEST = 320  # pixels: the width of an animation, beyond which pictures are made smaller
FPS = 30  # frames per second, unless the environment has its own number
FASTEST = 50  # frames per second, at most: viewers show those of a faster GIF more slowly


class Film(NamedTuple):
    """K frames of a policy's episodes: the states before every step and after the last."""

    env: str
    draw: Draw
    params: Any  # of the environment, gymnax's
    states: Any  # leaves [K, ...], gymnax's, or `Picture`
    total: np.ndarray  # [K] the undiscounted return so far
    last: np.ndarray  # [K] the last frame of its episode
    fps: float = FPS  # frames per second


class Picture(NamedTuple):
    """The states of an environment that draws itself."""

    time: np.ndarray  # [K] steps since the reset
    picture: np.ndarray  # [K, height, width, 3], uint8


def check(env: Any) -> None:
    """Raises ValueError unless there is a drawing of the environment. A name of Gymnasium passes:
    only `check_first_frame` builds the environment.
    """
    is_named = isinstance(env, str) and env.startswith(GYMNASIUM)
    if not is_named and not _draws_itself(env):
        drawing_of(env)


def check_first_frame(env: Any) -> None:
    """Raises ValueError as `check` does, and if an environment that draws itself fails to. An
    environment outside of JAX is then closed.
    """
    from pg.envs import registry

    own = registry.environment_of(env)
    try:
        if _draws_itself(own):
            own.check_rendering()
        else:
            drawing_of(env)
    except BaseException:  # also a signal: the caller closes it only after a success
        if hasattr(own, "close"):
            own.close()
        raise


def _draws_itself(env: Any) -> bool:
    """True for an environment of Gymnasium that draws its own frames."""
    return bool(getattr(env, "can_render", False))


def _fps_of(env: Any, action_repeat: int) -> float:
    """The frames per second of a film, in which the environment has its own speed if it has one,
    and is not faster than a GIF can be.

    action_repeat: steps of the environment from one frame to the next.
    """
    own = getattr(env, "render_fps", None)
    return FPS if own is None else min(own / action_repeat, FASTEST)


def drawing_of(env: Any) -> Draw:
    """The method `draw` of a custom environment, or the drawing of its name.

    Raises ValueError if it has neither.
    """
    own: Draw | None = getattr(env, "draw", None)
    if callable(own):
        return own
    if (name := name_of(env)) in DRAWINGS:
        return DRAWINGS[name]
    remedy = "give it a method draw(axes, state, params), or leave the film out"
    if name_of(env).startswith(GYMNASIUM):
        remedy = (
            "give it the render mode rgb_array, in its metadata and as an argument of its "
            "constructor, or leave the film out"
        )
    elif isinstance(env, str):
        remedy = (
            "add a function for it to DRAWINGS in pg/reports/drawings.py, or choose one of "
            f"{', '.join(DRAWINGS)}"
        )
    raise ValueError(f"{part_name(env)} cannot be drawn: {remedy}")


def film(
    config: Config,
    params: Any,
    key: Any,
    *,
    normaliser: Any = None,
    env_params: Mapping[str, Any] | None = None,
    episodes: int = 1,
    steps: int = 500,
    greedy: bool = False,
) -> Film:
    """Episodes of a policy from fresh resets, as `evaluate` plays them.

    Args:
        config: the settings of the run.
        params: of the policy.
        key: of the episodes.
        normaliser: `state.normaliser`, if observations are standardised.
        env_params: overrides of the environment's parameters.
        episodes: their number.
        steps: the largest number per episode.
        greedy: with the mode of the action distribution, not with samples.
    """
    import jax

    from pg import envs, networks, normalisation, rollout
    from pg.envs import registry, views
    from pg.envs.adapters import faults_in_one_sentence
    from pg.runs import interrupts

    own = registry.environment_of(config.env)
    is_drawn = _draws_itself(own)
    draw = _picture if is_drawn else drawing_of(config.env)
    overrides = {**dict(config.env_params), **(env_params or {})}
    env = envs.configured(config, episodes, env_params)
    policy = networks.make_policy(config, env)
    if normaliser is not None:
        policy = normalisation.with_standardised_observations(policy, normaliser)
    steps = min(steps, env.horizon(config.horizon))
    act = rollout.greedy if greedy else rollout.sample

    # One step more than is shown, for the state after the last one.
    stations = jax.jit(
        lambda params, key: rollout.visited(env, policy, params, key, steps + 1, act=act)
    )
    with interrupts.held("the film"), faults_in_one_sentence():
        state, alive = jax.device_get(stations(params, key))
    frames = np.minimum(alive.sum(0), steps) + 1  # of each episode
    states = state.env_state
    if isinstance(states, views.Timed):
        states = states.state

    def joined(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x[:count, i] for i, count in enumerate(frames)])

    last = np.zeros(frames.sum(), bool)
    last[np.cumsum(frames) - 1] = True
    return Film(
        part_name(config.env),
        draw,
        own.default_params.replace(**overrides),
        _pictures(own, states, frames) if is_drawn else jax.tree.map(joined, states),
        joined(state.episode_return),
        last,
        _fps_of(own, config.action_repeat),
    )


def _pictures(env: Any, states: Any, frames: np.ndarray) -> Picture:
    """The frames of episodes, as the environment draws them.

    Args:
        env: of Gymnasium.
        states: of its episodes, leaves [H, B, ...].
        frames: their number in each episode, [B].
    """
    import jax

    times, pictures = [], []
    for i, count in enumerate(frames):
        own = states.time[:count, i]
        end = jax.tree.map(lambda x, i=i, count=count: x[count - 1, i], states.inner)
        times.append(own)
        # with repeated actions not every step of the environment has a frame
        with contextlib.closing(env.pictures(end)) as rendered:
            pictures += [_smaller(x) for t, x in enumerate(rendered) if t in own]
    return Picture(np.concatenate(times), np.stack(pictures))


def _smaller(picture: np.ndarray) -> np.ndarray:
    """The picture with at most as many pixels as an animation shows."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((LARGEST, LARGEST))
    return np.asarray(image)


def animate(shown: Film, path: Path, fps: float | None = None) -> None:
    """Writes all frames as an animated GIF.

    Args:
        shown: the frames.
        path: of the picture.
        fps: frames per second; None: those of the film. The last frame of an episode is shown for
            longer.
    """
    pause = 1 / (fps or shown.fps)
    captions = [
        f"{shown.env}, step {int(step)}, return {numerals.number(total)}"
        for step, total in zip(shown.states.time, shown.total, strict=True)
    ]
    plots.animation(
        _shot(shown), captions, path, seconds=[END if end else pause for end in shown.last]
    )


def strip(shown: Film, path: Path, frames: int = 6) -> None:
    """Writes frames of the first episode in a row, from its start to its end; PNG and SVG.

    Args:
        shown: the frames.
        path: of the picture.
        frames: the largest number of them.
    """
    length = int(np.argmax(shown.last))
    at = np.unique(np.linspace(0, length, frames).round().astype(int))
    plots.strip(_shot(shown), {int(i): f"step {int(shown.states.time[i])}" for i in at}, path)


def _shot(shown: Film) -> Callable[[Any, int], None]:
    """(axes, index of a frame) -> None, which draws it."""
    import jax

    def draw(axes: Any, i: int) -> None:
        axes.set_axis_off()
        shown.draw(axes, jax.tree.map(lambda x: x[i], shown.states), shown.params)

    return draw


@functools.cache
def _gymnax(name: str) -> Any:
    """gymnax's object, which knows the map and the size of the board."""
    from pg.envs import gymnax

    return gymnax.make(name)[0]


@functools.cache
def _observation(name: str) -> Callable[..., Any]:
    import jax

    return jax.jit(_gymnax(name).get_obs)


def _stage(axes: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Sets up axes without lines, from x[0] to x[1] and from y[0] to y[1], of equal units."""
    axes.set_axis_off()
    axes.set(xlim=x, ylim=y, aspect="equal")


def _rod(axes: Any, start: Any, end: Any, width: float, colour: str, order: int = 2) -> None:
    """Draws a rod with round ends.

    Args:
        axes: on which it is drawn.
        start: one end.
        end: the other end.
        width: its thickness, in the axes' units.
        colour: of the rod.
        order: higher ones lie on top.
    """
    (x, y), turn = start, math.atan2(end[1] - start[1], end[0] - start[0])
    bow = turn + np.linspace(0.5, 1.5, 12) * np.pi
    xs = np.concatenate([x + np.cos(bow) * width / 2, end[0] - np.cos(bow) * width / 2])
    ys = np.concatenate([y + np.sin(bow) * width / 2, end[1] - np.sin(bow) * width / 2])
    axes.fill(xs, ys, color=colour, linewidth=0, zorder=order)


def _disc(axes: Any, centre: Any, radius: float, colour: str, order: int = 3) -> None:
    turn = np.linspace(0, 2 * np.pi, 40)
    x, y = centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn)
    axes.fill(x, y, color=colour, linewidth=0, zorder=order)


def _tiles(axes: Any, kinds: np.ndarray, colours: Sequence[str]) -> None:
    """Draws a board, each field in the colour of its kind.

    Args:
        axes: on which it is drawn.
        kinds: of the fields, indices into the colours, [rows, columns].
        colours: of the kinds.
    """
    table = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], np.uint8)
    axes.set_axis_off()
    axes.imshow(table[kinds], interpolation="nearest")
    if max(kinds.shape) <= 13:
        rows, columns = kinds.shape
        lines = {"color": "white", "linewidth": 0.5}
        axes.hlines(np.arange(rows - 1) + 0.5, -0.5, columns - 0.5, **lines)
        axes.vlines(np.arange(columns - 1) + 0.5, -0.5, rows - 0.5, **lines)


def _picture(axes: Any, state: Any, params: Any) -> None:
    axes.imshow(state.picture)


def _cart_pole(axes: Any, state: Any, params: Any) -> None:
    edge, x = params.x_threshold, state.x
    _stage(axes, (-edge - 0.5, edge + 0.5), (-0.4, 2 * params.length + 0.3))
    _rod(axes, (-edge - 0.5, -0.25), (edge + 0.5, -0.25), 0.03, GREY)
    for limit in (-edge, edge):
        _rod(axes, (limit, -0.35), (limit, -0.15), 0.03, GREY)
    axes.fill(
        x + np.array([-0.28, 0.28, 0.28, -0.28]),
        [-0.25, -0.25, 0.05, 0.05],
        color=BLUE,
        linewidth=0,
    )
    tip = x + 2 * params.length * np.sin(state.theta), 2 * params.length * np.cos(state.theta)
    _rod(axes, (x, 0), tip, 0.09, ORANGE, 3)
    _disc(axes, (x, 0), 0.06, DARK, 4)


def _pendulum(axes: Any, state: Any, params: Any) -> None:
    length = params.l
    _stage(axes, (-1.25 * length, 1.25 * length), (-1.25 * length, 1.25 * length))
    turn = np.pi / 2 + np.linspace(0, 1, 20) * np.pi / 2 * state.last_u / params.max_torque
    # the torque
    axes.plot(0.4 * length * np.cos(turn), 0.4 * length * np.sin(turn), color=GREEN, linewidth=2.0)
    _rod(
        axes,
        (0, 0),
        (-length * np.sin(state.theta), length * np.cos(state.theta)),
        0.16 * length,
        ORANGE,
    )
    _disc(axes, (0, 0), 0.05 * length, DARK)


def _acrobot(axes: Any, state: Any, params: Any) -> None:
    first, second = params.link_length_1, params.link_length_2
    reach = 1.1 * (first + second)
    _stage(axes, (-reach, reach), (-reach, reach))
    _rod(axes, (-reach, 1.0), (reach, 1.0), 0.02, GREEN, 1)  # the height to be reached
    one, both = state.joint_angle1, state.joint_angle1 + state.joint_angle2
    elbow = first * np.sin(one), -first * np.cos(one)
    tip = elbow[0] + second * np.sin(both), elbow[1] - second * np.cos(both)
    _rod(axes, (0, 0), elbow, 0.18, BLUE)
    _rod(axes, elbow, tip, 0.18, ORANGE, 3)
    for joint in ((0, 0), elbow):
        _disc(axes, joint, 0.06, DARK, 4)


def _mountain_car(axes: Any, state: Any, params: Any) -> None:
    low, high, goal, x = (
        params.min_position,
        params.max_position,
        params.goal_position,
        state.position,
    )
    _stage(axes, (low - 0.05, high + 0.05), (-0.08, 1.3))

    def height(x: Any) -> Any:
        return 0.45 * np.sin(3 * x) + 0.55

    track = np.linspace(low - 0.05, high + 0.05, 100)
    axes.fill_between(track, -0.08, height(track), color=PALE, linewidth=0)
    _rod(axes, (goal, height(goal)), (goal, height(goal) + 0.2), 0.012, DARK)
    top = height(goal) + np.array([0.2, 0.16, 0.12])
    axes.fill([goal, goal + 0.1, goal], top, color=GREEN, linewidth=0)
    slope = math.atan(1.35 * math.cos(3 * x))
    along, up = (
        np.array([math.cos(slope), math.sin(slope)]),
        np.array([-math.sin(slope), math.cos(slope)]),
    )
    foot = np.array([x, height(x)])
    body = [
        foot + a * along + b * up
        for a, b in ((-0.12, 0.04), (0.12, 0.04), (0.08, 0.14), (-0.09, 0.14))
    ]
    axes.fill(*np.transpose(body), color=BLUE, linewidth=0, zorder=3)
    for wheel in (-0.07, 0.07):
        _disc(axes, foot + wheel * along + 0.04 * up, 0.04, DARK, 4)


def _catch(axes: Any, state: Any, params: Any) -> None:
    board = _gymnax("Catch-bsuite")
    kinds = np.zeros((board.rows, board.columns), int)
    kinds[state.paddle_y, state.paddle_x] = 1
    _tiles(axes, kinds, (PALE, BLUE))
    _disc(axes, (state.ball_x, state.ball_y), 0.3, ORANGE)


def _deep_sea(axes: Any, state: Any, params: Any) -> None:
    size = _gymnax("DeepSea-bsuite").size
    kinds = 1 - np.tri(size, dtype=int)  # the part right of the diagonal cannot be reached
    kinds[-1, -1] = 2
    _tiles(axes, kinds, (PALE, PAPER, GREEN))
    axes.set_ylim(size + 0.5, -0.5)  # an episode ends below the last row
    _disc(axes, (state.column, state.row), 0.3, BLUE)


def _frozen_lake(axes: Any, state: Any, params: Any) -> None:
    board = _gymnax("FrozenLake-misc")
    _tiles(axes, np.asarray(board.desc), (GREY, PALE, DARK, GREEN))  # start, frozen, hole, goal
    row, column = divmod(int(state.position), board.ncol)
    _disc(axes, (column, row), 0.28, BLUE)


def _maze(name: str, axes: Any, state: Any, params: Any) -> None:
    _tiles(axes, np.asarray(_gymnax(name).env_map).astype(int), (DARK, PALE))
    row, column = state.goal
    axes.fill(
        column + np.array([-0.5, 0.5, 0.5, -0.5]),
        row + np.array([-0.5, -0.5, 0.5, 0.5]),
        color=GREEN,
        lw=0,
    )
    _disc(axes, state.pos[::-1], 0.34, BLUE)


def _point_robot(axes: Any, state: Any, params: Any) -> None:
    radius = params.circle_radius
    _stage(axes, (-1.5 * radius, 1.5 * radius), (-0.8 * radius, 1.5 * radius))
    turn = np.linspace(0, np.pi, 60)
    # goals are on top
    axes.plot(radius * np.cos(turn), radius * np.sin(turn), color=PALE, linewidth=1.5)
    _disc(axes, state.goal, params.goal_radius, GREEN, 2)
    _disc(axes, np.clip(state.pos, -1.45 * radius, 1.45 * radius), 0.06 * radius, BLUE)


def _reacher(axes: Any, state: Any, params: Any) -> None:
    reach = 1.1 * len(state.angles) + 0.1
    _stage(axes, (-reach, reach), (-reach, reach))
    joints = np.zeros((len(state.angles) + 1, 2))
    joints[1:] = np.cumsum(np.stack([np.cos(state.angles), np.sin(state.angles)], axis=1), axis=0)
    _disc(axes, state.goal_xy, 0.12, GREEN, 2)
    for i, colour in zip(
        range(len(state.angles)), (BLUE, ORANGE) * len(state.angles), strict=False
    ):
        _rod(axes, joints[i], joints[i + 1], 0.16, colour, 3 + i)
        _disc(axes, joints[i], 0.06, DARK, 4 + i)


def _swimmer(axes: Any, state: Any, params: Any) -> None:
    """Draws the swimmer, at the edge of the picture if it is beyond."""
    _stage(axes, (-1.6, 1.6), (-1.6, 1.6))
    edge = np.array([-1, 1, 1, -1])
    axes.fill(edge, edge[[0, 0, 1, 1]], color=PAPER, linewidth=0)  # the start
    axes.plot(*state.urchin_xys.T, "*", color=DARK, markersize=7, linestyle="")
    _disc(axes, state.goal_xy, 0.1, GREEN, 2)
    _disc(axes, np.clip(state.xy, -1.52, 1.52), 0.08, BLUE)


def _channels(name: str, axes: Any, state: Any, params: Any) -> None:
    """Draws the observation, a field in the colour of the first of its channels."""
    observed = np.asarray(_observation(name)(state, params)) > 0
    empty = ~observed.any(-1)
    _tiles(axes, np.where(empty, 0, observed.argmax(-1) + 1), (PAPER, *CHANNELS[name]))


# The colours of the channels of an observation; trails are pale.
CHANNELS = {
    "Asterix-MinAtar": (BLUE, ORANGE, PALE, YELLOW),  # player, enemy, trail, gold
    "Breakout-MinAtar": (BLUE, ORANGE, PALE, GREEN),  # paddle, ball, trail, brick
    # chicken, car, speeds
    "Freeway-MinAtar": (BLUE, ORANGE, "#B0B0B0", "#BCBCBC", "#C8C8C8", "#D4D4D4", "#E0E0E0"),
    # submarine (front, back), own bullet, trail, bullet, fish, submarine, oxygen, divers on board,
    # diver
    "Seaquest-MinAtar": (BLUE, SKY, BLACK, PALE, ORANGE, YELLOW, PINK, SKY, GREEN, GREEN),
    # cannon, alien (3), own bullet, bullet
    "SpaceInvaders-MinAtar": (BLUE, ORANGE, ORANGE, ORANGE, BLACK, PINK),
    "Pong-misc": (BLUE, ORANGE, PALE),  # paddles, ball, where it was
}
DRAWINGS: dict[str, Draw] = {
    "CartPole-v1": _cart_pole,
    "Pendulum-v1": _pendulum,
    "Acrobot-v1": _acrobot,
    "MountainCar-v0": _mountain_car,
    "MountainCarContinuous-v0": _mountain_car,
    "Catch-bsuite": _catch,
    "DeepSea-bsuite": _deep_sea,
    "FrozenLake-misc": _frozen_lake,
    **{name: functools.partial(_maze, name) for name in ("FourRooms-misc", "MetaMaze-misc")},
    "PointRobot-misc": _point_robot,
    "Reacher-misc": _reacher,
    "Swimmer-misc": _swimmer,
    **{name: functools.partial(_channels, name) for name in CHANNELS},
}
