"""Every drawing: a frame changes with the state; a film shows the episode that evaluation plays."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pg import envs, networks, normalisation, rollout
from pg.config import ENVIRONMENTS, Config
from pg.reports import drawings

# One of each kind; the others in the slow lane, as each has programs to compile.
SOME = ("CartPole-v1", "FrozenLake-misc", "PointRobot-misc", "Breakout-MinAtar")
OTHERS = [name for name in drawings.DRAWINGS if name not in SOME]


def picture(name: str, state: Any, params: Any) -> np.ndarray:
    figure = Figure(figsize=(1.5, 1.5), dpi=60)
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    drawings.DRAWINGS[name](axes, jax.device_get(state), params)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


@jax.numpy_rank_promotion("allow")  # gymnax's Swimmer needs it
@pytest.mark.parametrize(
    "name", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_a_later_state_looks_different(name: str) -> None:
    env = envs.gymnax.make(name)[0]
    params, key = env.default_params, jax.random.key(1)
    state = env.reset_env(key, params)[1]
    first = picture(name, state, params)
    assert len(np.unique(first.reshape(-1, 4), axis=0)) > 2  # something is there
    for _ in range(9):  # FrozenLake slips, and a step may lead nowhere
        key, step_key = jax.random.split(key)
        action = env.action_space(params).sample(step_key)
        state = env.step_env(step_key, state, action, params)[1]
        if not np.array_equal(first, picture(name, state, params)):
            return
    raise AssertionError("it never changes")


def test_only_known_environments_are_drawn() -> None:
    assert set(drawings.DRAWINGS) < set(ENVIRONMENTS)
    with pytest.raises(
        ValueError,
        match=r"SimpleBandit-bsuite cannot be drawn: add a function .* "
        r"CartPole-v1, Pend",
    ):
        drawings.check("SimpleBandit-bsuite")
    with pytest.raises(ValueError, match=r"Config cannot be drawn: give it a method draw\(axes"):
        drawings.check(Config(preset=None))


@pytest.mark.parametrize(
    ("settings", "greedy"),
    [
        ({"rnn": "gru", "observe": (0, 2), "action_repeat": 3}, False),
        pytest.param({}, True, marks=pytest.mark.slow),
        pytest.param(
            {"rnn": "lstm", "normalise_observations": True}, False, marks=pytest.mark.slow
        ),
    ],
)
def test_a_film_is_the_episode_of_the_same_key(settings: dict[str, Any], greedy: bool) -> None:
    config, key = Config(hidden_sizes=(8,), **settings, preset=None), jax.random.key(3)
    env = envs.configured(config, 2)
    policy, normaliser = (
        networks.make_policy(config, env),
        normalisation.start(config, env.obs_shape),
    )
    params = policy.init(jax.random.key(0))
    shown = drawings.film(config, params, key, normaliser=normaliser, episodes=2, greedy=greedy)
    policy = normalisation.with_standardised_observations(policy, normaliser)
    act = rollout.greedy if greedy else rollout.sample
    traj = jax.jit(lambda params, key: rollout.episodes(env, policy, params, key, act=act))(
        params, key
    )
    lengths = np.asarray(traj.valid.sum(0))
    assert len(shown.last) == lengths.sum() + 2  # a frame before each step, and the one at the end
    np.testing.assert_array_equal(np.flatnonzero(shown.last), np.cumsum(lengths + 1) - 1)
    np.testing.assert_allclose(shown.total[shown.last], traj.reward.sum(0))
    first = jax.tree.map(lambda x: x[: lengths[0]], shown.states)
    seen = np.stack([first.x, first.x_dot, first.theta, first.theta_dot], axis=1)
    np.testing.assert_allclose(
        seen[:, list(config.observe) or [0, 1, 2, 3]], traj.obs[: lengths[0], 0], rtol=1e-6
    )
    end = lengths[0]
    fell = abs(shown.states.theta[end]) > shown.params.theta_threshold_radians
    assert fell or abs(shown.states.x[end]) > shown.params.x_threshold


def test_a_film_ends_where_it_is_told_to(tmp_path: Path) -> None:
    config = Config(hidden_sizes=(8,), preset=None)
    params = networks.make_policy(config, envs.configured(config, 1)).init(jax.random.key(0))
    shown = drawings.film(config, params, jax.random.key(0), steps=3, env_params={"length": 0.9})
    assert (shown.states.time.tolist(), shown.params.length) == ([0, 1, 2, 3], 0.9)
    assert shown.last.tolist() == [False, False, False, True]
    drawings.strip(shown, tmp_path / "strip.png")
    assert {path.name for path in tmp_path.iterdir()} == {"strip.png", "strip.svg"}
