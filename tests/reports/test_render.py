"""The policy of a run, drawn: the files, and what is said to a mistake."""

import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from PIL import Image
from scripts import refused_without_jax, run

from pg import make_train
from pg.commands import cli, render
from pg.config import Config, Hyperparams
from pg.runs import folders, parameters

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


@pytest.mark.slow
def test_an_untrained_policy_is_drawn(tmp_path: Path) -> None:
    done = run("render.py", "--env", "Catch-bsuite", "--out", str(tmp_path / "catch.gif"))
    assert done.returncode == 0, done.stderr
    assert frames(tmp_path / "catch.gif") == 10


MISTAKES = [
    ((), "give the folder of a run, or --env NAME"),
    (("{run}", "--env", "CartPole-v1"), "and not both"),
    (("--env", "{run}/no.py:Env"), "there is no file {run}/no.py"),
    (("{run}/elsewhere",), "there is no run"),
    (("{run}/empty",), "{run}/empty is not a folder of a run"),
    (("{run}", "--seed-index", "2"), "seed_index must be from 0 to 1, got 2"),
    (("{run}", "--seed-index", "-1"), "seed_index must be from 0 to 1, got -1"),
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
