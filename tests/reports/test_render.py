"""The policy of a run, drawn: the files, and the answers to mistakes."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scripts import refused_without_jax, run

from pg import make_learner, make_train
from pg.commands import cli, job, render
from pg.config import Config, Hyperparams
from pg.reports import drawings
from pg.runs import folders, parameters
from pg.settings import own_files

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "render.py"


def frames(path: Path) -> int:
    with Image.open(path) as image:
        return int(getattr(image, "n_frames", 1))


def a_run(folder: Path, config: Config, seeds: int = 1) -> None:
    """The part of a run's folder that is needed here; several seeds have one policy."""
    h = Hyperparams()
    state, _ = jax.jit(make_train(config))(jax.random.key(0), h)
    state = jax.tree.map(lambda x: jnp.stack([x] * seeds), state)
    folders.write_setup(folder, config, h, {"seeds": seeds})
    parameters.write_params(folder, state.params, state.normaliser)


def test_a_run_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has loaded everything."""
    a_run(tmp_path, Config(num_updates=1, num_envs=2, hidden_sizes=(8,), preset=None), seeds=2)
    arguments = [str(tmp_path), "--seed-index", "1", "--steps", "5", "--episodes", "2"]
    monkeypatch.setattr(sys, "argv", ["render.py", *arguments])
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "12 frames, return 5, 5",
        *(f"{tmp_path}/policy.{kind}" for kind in ("gif", "png", "svg")),
    ]
    assert frames(tmp_path / "policy.gif") == 12
    assert all(Path(path).stat().st_size > 1000 for path in printed[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {
            "estimator": "ppo",
            "collect": "windows",
            "num_steps": 8,
            "rnn": "lstm",
            "normalise_observations": True,
        },
        {"env": "Pendulum-v1", "observe": (0, 1), "action_repeat": 2, "scale_rewards": True},
        {"env": "Breakout-MinAtar", "network": "cnn"},
    ],
)
def test_whatever_a_run_may_be(settings: dict[str, object], tmp_path: Path) -> None:
    a_run(tmp_path, Config(num_envs=2, num_updates=1, **settings, preset=None))  # type: ignore[arg-type]
    done = run(
        "render.py", str(tmp_path), "--steps", "3", "--greedy", "--out", str(tmp_path / "a.gif")
    )
    assert done.returncode == 0, done.stderr
    assert frames(tmp_path / "a.gif") == 4


def test_of_a_sweep_the_best_configuration_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    folders.write_setup(tmp_path / "best", Config(preset=None), Hyperparams(), {}, {"pg": "0"})
    options = render.Options(run=tmp_path)
    assert options.run == tmp_path / "best"
    assert render.settings(options)[2] == tmp_path / "best" / "policy.gif"


def test_the_name_of_the_file_is_valid_on_every_system() -> None:
    options = render.Options(env="gymnasium:ALE/Breakout-v5")
    assert render.settings(options)[2] == Path("gymnasium-ALE-Breakout-v5.gif")


@pytest.mark.slow
def test_an_untrained_policy_is_drawn(tmp_path: Path) -> None:
    done = run("render.py", "--env", "Catch-bsuite", "--out", str(tmp_path / "catch.gif"))
    assert done.returncode == 0, done.stderr
    assert frames(tmp_path / "catch.gif") == 10


OF_GYMNASIUM = """
import gymnasium
import numpy as np


class Red(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,))
    action_space = gymnasium.spaces.Discrete(2, start=1)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.picture = np.zeros((20, 40, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.integers(20)
        return np.full(1, self.place, np.float32), {}

    def step(self, action):
        self.place += action
        return np.full(1, self.place, np.float32), float(action), self.place >= 30, False, {}

    def render(self):
        if self.render_mode is None:
            return None
        self.picture[...] = [10 + 5 * self.place, 0, 200]
        return self.picture


class Clock(Red):
    clock = 0

    def reset(self, *, seed=None, options=None):
        Clock.clock += 1
        return super().reset(seed=seed)[0] + Clock.clock, {}

    def step(self, action):
        obs, *rest = super().step(action)
        return obs + Clock.clock, *rest


class Broken(Red):
    def render(self):
        import not_installed_anywhere


class Gives(Red):
    def render(self):
        return [self.picture]


class Slow(Red):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}


class Fast(Red):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 125}


class Wrong(Red):
    metadata = {"render_modes": ["rgb_array"], "render_fps": "fast"}


class Blind(Red):
    metadata = {"render_modes": ["ansi"]}


def fixed():
    return Red()
"""


@pytest.fixture
def of_gymnasium(tmp_path: Path) -> Path:
    file = tmp_path / "of_gymnasium.py"
    file.write_text(OF_GYMNASIUM, encoding="utf-8")
    return file


def shown_of(reference: str, **settings: object) -> Any:
    options = render.Options(env=reference, **settings)  # type: ignore[arg-type]
    config, hyperparams, _ = render.settings(options)
    return render.played(config, hyperparams, options)


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_environment_of_gymnasium_draws_itself(of_gymnasium: Path, repeats: int) -> None:
    """Each frame is of the state before its step, and the same ones are drawn again."""
    config = Config(env=own_files.load(f"{of_gymnasium}:Red", "env"), action_repeat=repeats)
    params = make_learner(config).init(jax.random.key(0)).params.policy
    how: dict[str, Any] = {"episodes": 2, "steps": 6}
    shown, again = (drawings.film(config, params, jax.random.key(1), **how) for _ in range(2))
    time, picture = shown.states
    ends = np.flatnonzero(shown.last)
    assert len(ends) == 2
    for begin, end in zip((0, ends[0] + 1), ends, strict=True):
        places = (picture[begin : end + 1, 0, 0, 0].astype(int) - 10) // 5
        steps = time[begin : end + 1]  # the last action may end the episode before it is repeated
        np.testing.assert_array_equal(steps[:-1], repeats * np.arange(end - begin))
        # the reward of a step is the number of places that it moves
        np.testing.assert_array_equal(places - places[0], shown.total[begin : end + 1])
        assert places[end - begin] > places[0]
    assert (picture == picture[:, :1, :1]).all()
    np.testing.assert_array_equal(picture, again.states.picture)


@pytest.mark.parametrize(
    ("name", "repeats", "fps"),
    [("Red", 1, 30), ("Slow", 1, 8), ("Slow", 2, 4), ("Fast", 1, 50), ("Wrong", 1, 30)],
)
def test_a_film_has_the_speed_of_its_environment(
    of_gymnasium: Path, name: str, repeats: int, fps: float
) -> None:
    """As far as a GIF can have it."""
    config = Config(env=own_files.load(f"{of_gymnasium}:{name}", "env"), action_repeat=repeats)
    params = make_learner(config).init(jax.random.key(0)).params.policy
    shown = drawings.film(config, params, jax.random.key(1), steps=2)
    assert shown.fps == fps
    for asked, pause in ((None, 1000 / fps), (10, 100)):
        drawings.animate(shown, of_gymnasium.with_name("film.gif"), asked)
        with Image.open(of_gymnasium.with_name("film.gif")) as film:
            assert film.info["duration"] == pytest.approx(pause, abs=10)  # in steps of 10 ms


def test_a_film_of_gymnasium_s_own_frames_is_written(
    of_gymnasium: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = of_gymnasium.with_name("red.gif")
    asked = ["--env", f"{of_gymnasium}:Red", "--steps", "4", "--out", str(out)]
    assert render.main(asked) == 0
    assert capsys.readouterr().out.startswith("5 frames, return ")
    with Image.open(out) as film:
        assert film.n_frames == 5
        middle = np.asarray(film.convert("RGB"))[film.height // 2, film.width // 2]
    assert middle[1] == 0
    assert abs(int(middle[2]) - 200) < 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Blind", "Blind cannot be drawn: give it the render mode rgb_array, in its metadata"),
        ("fixed", "fixed cannot be drawn: give it the render mode rgb_array"),
        ("Gives", "the render of Gives fails: TypeError: it must return uint8 "),
        ("Broken", "the render of Broken fails: ModuleNotFoundError: .*: pip install not_inst"),
        ("Clock", "Clock does not repeat itself: after a reset with the seed"),
    ],
)
def test_an_environment_of_gymnasium_that_cannot_draw_is_one_sentence(
    of_gymnasium: Path, name: str, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        shown_of(f"{of_gymnasium}:{name}", steps=2)


@pytest.mark.parametrize(
    ("name", "said"),
    [("Broken", "^the render of Broken fails"), ("Blind", "^Blind cannot be drawn")],
)
def test_an_environment_whose_first_frame_fails_is_closed(
    of_gymnasium: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env: Any = own_files.load(f"{of_gymnasium}:{name}", "env")
    closed: list[bool] = []
    monkeypatch.setattr(env, "close", lambda: closed.append(True))
    with pytest.raises(ValueError, match=said):
        drawings.check_first_frame(env)
    assert closed == [True]


def trained_with_a_film(reference: str, out: Path) -> int:
    env = own_files.load(reference, "env")
    config = Config(env=env, num_updates=1, num_envs=2, hidden_sizes=(4,), preset=None)
    options = job.Options(out=out, eval_episodes=1, film=True)
    return job.run(config, Hyperparams(), options)


def test_a_run_whose_film_fails_still_writes_its_results(
    of_gymnasium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert trained_with_a_film(f"{of_gymnasium}:Clock", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "there is no film: Clock does not repeat itself" in said
    assert len(list(out.rglob("summary.json"))) == 1
    assert not list(out.rglob("policy.gif"))


def test_a_run_whose_first_frame_fails_is_refused_before_it_begins(
    of_gymnasium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert trained_with_a_film(f"{of_gymnasium}:Broken", out) == cli.FAULT
    assert "the render of Broken fails: ModuleNotFoundError" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(bool(find_spec("pygame")), reason="it is installed")
def test_what_gymnasium_needs_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match=r"pygame is not installed, run .*classic.control"):
        shown_of("gymnasium:CartPole-v1")


def test_a_critic_that_sees_the_time_is_no_obstacle(tmp_path: Path) -> None:
    config = Config(estimator="gae", critic_observe=("policy_and_time",), preset=None)
    params = make_learner(config).init(jax.random.key(0)).params.policy
    shown = drawings.film(config, params, jax.random.key(1), steps=2)
    drawings.strip(shown, tmp_path / "strip.png")
    assert shown.states.x.shape == (3,)


MISTAKES = [
    ((), "give the folder of a run, or --env NAME"),
    (("{run}", "--env", "CartPole-v1"), "and not both"),
    (("--env", "{run}/no.py:Env"), "there is no file {run}/no.py"),
    (("{run}/elsewhere",), "there is no run"),
    (("{run}/empty",), "{run}/empty is not a folder of a run"),
    (("{run}", "--seed-index", "2"), "--seed-index must be from 0 to 1, got 2"),
    (("{run}", "--seed-index", "-1"), "--seed-index must be from 0 to 1, got -1"),
    (
        ("{run}", "--out", "{run}/policy.mp4"),
        "out must be a path that ends in .gif, in an existing folder",
    ),
    (("{run}", "--out", "{run}/nowhere/policy.gif"), "in an existing folder"),
    (("{run}", "--fps", "0"), "fps must be between 1 and 50, got 0"),
    (("--env", "CartPol-v1"), "unknown env 'CartPol-v1': did you mean 'CartPole-v1'"),
    (
        ("--env", "SimpleBandit-bsuite"),
        "SimpleBandit-bsuite cannot be drawn: add a function for it to DRAWINGS",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_sentence_before_jax_is_loaded(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    folders.write_json(
        tmp_path / "config.json",
        {
            "config": Config(preset=None).to_json(),
            "hyperparams": Hyperparams().scalars(),
            "options": {"seeds": 2},
        },
    )
    (tmp_path / "empty").mkdir()
    done = refused_without_jax("render.py", *(word.format(run=tmp_path) for word in arguments))
    assert message.format(run=tmp_path) in " ".join(done.stderr.split())
