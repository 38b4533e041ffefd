"""The train command started from Python: where JAX is in use, with an environment object, in
another thread.
"""

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from environments import Clock
from stored import store_run

from pg.commands import cli, job
from pg.config import Config, Hyperparams
from pg.runs import execution, folders, interrupts

SMALL: dict[str, Any] = {"num_envs": 2, "hidden_sizes": (4,)}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of the test process are restored."""
    before = {signum: signal.getsignal(signum) for signum in interrupts.SIGNALS}, sys.unraisablehook
    yield
    for signum, handler in before[0].items():
        signal.signal(signum, handler)
    sys.unraisablehook = before[1]


def options(out: Path, **changes: Any) -> job.Options:
    return job.Options(
        **{
            "out": out,
            "name": "x",
            "eval_episodes": 2,
            "checkpoint_minutes": float("inf"),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def env() -> Clock:
    """One object, whose programs are compiled once."""
    return Clock()


def test_a_run_of_an_environment_object_starts_and_goes_on(
    env: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JAX is in use, as it is where an object was built. The bits are those of the run in one
    go.
    """
    jax.devices()
    config = Config(env=env, num_updates=2, **SMALL, preset=None)
    traced = Hyperparams(env_params={"reward_scale": 2.0})  # which the folder keeps
    assert job.run(config, traced, options(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "JAX is in use in this process already: --cpu-devices cannot change now" in out
    folder = Path(out.splitlines()[-1])
    stored = json.loads((folder / "config.json").read_text())
    assert (stored["config"]["env"], stored["env_class"]) == ("Clock", "environments.Clock")
    assert stored["config"]["env_params"] == {"reward_scale": 2.0}
    assert job.resume(folder, env=env, num_updates=1) == cli.MISTAKE
    said = capsys.readouterr()
    assert "num_updates must be at least the 2 that are done, got 1" in said.err
    assert "continuing" not in said.out
    assert job.resume(folder, env=env, num_updates=4) == 0
    assert "continuing after update 2" in capsys.readouterr().out
    longer = Config(env=env, num_updates=4, **SMALL, preset=None)
    assert job.run(longer, traced, options(tmp_path, name="whole")) == 0
    whole = folder.with_name("whole")
    for name in ("params.safetensors", "metrics.parquet"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    # The same settings in the same folder go on too; with another object, or by name alone, they do
    # not.
    assert job.run(longer, traced, options(tmp_path)) == 0
    with pytest.raises(
        ValueError,
        match=r"holds a run of an environment object, of the class "
        r"environments\.Clock: give it",
    ):
        folders.read_setup(folder)
    assert job.resume(folder) == cli.MISTAKE
    assert "give it in Python, as in pg.commands.job.resume(" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("learning_rate", [1e38, 1e-3])
def test_the_gradient_has_a_quality_at_the_end_where_a_run_comes_to_it(
    learning_rate: float, env: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And of one that has stopped nothing is said, least of all that its gradients were 0."""
    settings = {"collect": "windows", "num_steps": 4, "optimizer": "sgd", "diagnostics": True}
    config = Config(env=env, estimator="gae", num_updates=3, **settings, **SMALL, preset=None)
    wild = Hyperparams(learning_rate=learning_rate, max_grad_norm=math.inf)
    has_died = learning_rate > 1
    assert job.run(config, wild, options(tmp_path)) == (cli.NOT_FINITE if has_died else 0)
    said = capsys.readouterr()
    for line in ("gradient noise scale at the end", "explained variance of V at the end"):
        assert (line in said.out + said.err) != has_died


def test_a_mistake_is_printed_and_its_exit_code_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller continues; the command would exit."""
    config: Any = Config(env=Clock(), num_updates=2, **SMALL, preset=None)
    folders.write_setup(tmp_path, config, Hyperparams(), {}, {"pg": "0"})
    (tmp_path / "file").write_text("")
    mistakes = {
        "got the class Clock: call it": lambda: job.resume(tmp_path, env=Clock),
        "got a pair: write env, params": lambda: job.resume(
            tmp_path, env=(Clock(), Clock().default_params)
        ),
        "got 'Other' of the class": lambda: job.resume(tmp_path, env=Other()),
        "an environment object, of the class environments.Clock: give it": lambda: job.resume(
            tmp_path, env="Clock"
        ),
        "is not a folder of a run": lambda: job.resume(tmp_path / "none"),
        "num_updates must be a whole number": lambda: job.resume(
            tmp_path, env=Clock(), num_updates=0
        ),
        "config must be a pg.Config": lambda: job.run("CartPole-v1", Hyperparams()),  # type: ignore[arg-type]
        "hyperparams must be a pg.Hyperparams": lambda: job.run(config, {}),  # type: ignore[arg-type]
        "options must be a pg.commands.job.Options, got {'name'": lambda: job.run(
            config, Hyperparams(), {"name": "x"}
        ),  # type: ignore[arg-type]
        "a file is in the way": lambda: job.run(
            config, Hyperparams(), options(tmp_path / "file", name=None)
        ),
    }
    for message, call in mistakes.items():
        assert call() == cli.MISTAKE
        assert message in " ".join(capsys.readouterr().err.split())


class Other(Clock):
    pass


def test_the_remedy_for_another_length_depends_on_which_is_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store_run(tmp_path / "run", [1.0], schedule="linear")
    remedies = {3: "for fewer, start another run with --num-updates 3", 9: "--schedule constant"}
    for num_updates, remedy in remedies.items():
        assert job.resume(folder, num_updates=num_updates) == cli.MISTAKE
        said = capsys.readouterr().err
        assert "num_updates must stay 5, as schedule='linear' depends on it: " in said
        assert [text for text in remedies.values() if text in said] == [remedy]


@pytest.mark.parametrize(("stored", "given"), [(Clock(), Other()), ("CartPole-v1", Clock())])
def test_another_environment_than_that_of_the_run_is_refused(
    stored: Any, given: Any, tmp_path: Path
) -> None:
    folders.write_setup(tmp_path, Config(env=stored, preset=None), Hyperparams(), {}, {"pg": "0"})
    with pytest.raises(ValueError, match="holds a run of another environment"):
        folders.read_setup(tmp_path, given)


@pytest.mark.parametrize(
    ("machine", "message"), [({"cpu_devices": 64}, "cpu_devices must be"), ({}, None)]
)
def test_devices_that_cannot_change_are_an_error_only_where_others_were_asked_for(
    machine: dict[str, Any], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    there = len(jax.devices())
    if message is None:
        cli.Machine(**machine).start()
        cli.Machine(cpu_devices=there).start()
        kept = "one device stays" if there == 1 else f"{there} devices stay"
        assert capsys.readouterr().out.count(f"cannot change now, and {kept}") == 2
    else:
        with pytest.raises(
            ValueError,
            match=rf"cpu_devices must be {there}, as JAX is in use .* "
            rf"got 64",
        ):
            cli.Machine(**machine).start()


@pytest.fixture
def matmul_precision() -> Iterator[None]:
    """The precision that JAX is set to, restored after the test."""
    before = jax.config.values["jax_default_matmul_precision"]
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.usefixtures("matmul_precision")
def test_a_run_keeps_its_matmul_precision(tmp_path: Path) -> None:
    """In its folder, in its programs, and where it is resumed in another process."""
    config = Config(num_updates=1, **SMALL, preset=None)
    machine = cli.Machine(matmul_precision="float32")
    assert job.run(config, Hyperparams(), options(tmp_path, name="x"), machine) == 0
    product = jax.jit(lambda x: x @ x).lower(jax.numpy.ones((2, 2))).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in product
    (folder,) = tmp_path.glob("*/*/x")
    assert folders.read_options(folder)["matmul_precision"] == "float32"
    stored = json.loads((folder / "versions.json").read_text())["jax_settings"]
    assert stored["default_matmul_precision"] == "float32"
    jax.config.update("jax_default_matmul_precision", None)
    assert job.resume(folder, num_updates=2, strict=True) == 0
    assert jax.config.values["jax_default_matmul_precision"] == "float32"
    with pytest.raises(ValueError, match="unknown matmul_precision 'float16'"):
        cli.Machine(matmul_precision="float16")  # type: ignore[arg-type]


def test_one_process_of_several_is_refused_where_jax_is_in_use() -> None:
    jax.devices()
    machine = cli.Machine(coordinator="localhost:29999", num_processes=2, process_id=0)
    with pytest.raises(
        ValueError, match="this process cannot become one of several, as JAX is in use"
    ):
        machine.start()


@pytest.mark.parametrize("place", ["loading", "compilation"])
def test_a_signal_before_the_first_update_says_how_to_start_again(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        with interrupts.held(place):
            os.kill(os.getpid(), signal.SIGTERM)

    config = Config(num_updates=2, **SMALL, preset=None)
    with monkeypatch.context() as patched:
        if place == "loading":
            patched.setattr(job, "_load", interrupted)
        else:
            patched.setattr(execution, "compile_programs", interrupted)
        assert job.run(config, Hyperparams(), options(tmp_path)) == cli.AGAIN
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("interrupted") == 1
    begun = "interrupted before the first update: nothing is trained yet"
    if place == "loading":
        assert said.endswith(f"{begun}, and the same command starts again")
        return
    (folder,) = (path.parent for path in tmp_path.rglob("config.json"))
    assert said.endswith(f"{begun}; start again with pg resume {folder}")
    assert job.resume(folder) == 0


def test_a_signal_in_the_final_evaluation_keeps_the_trained_run(
    env: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on after the signal")

    config = Config(env=env, num_updates=2, **SMALL, preset=None)
    with monkeypatch.context() as patched:
        patched.setattr(execution, "evaluate_run", interrupted)
        assert job.run(config, Hyperparams(), options(tmp_path)) == cli.AGAIN
    (folder,) = (path.parent for path in tmp_path.rglob("config.json"))
    said = " ".join(capsys.readouterr().out.split())
    assert "interrupted before the results were written; the updates so far are kept" in said
    assert f"continue with pg resume {folder}" in said
    assert not (folder / "summary.json").exists()
    assert job.resume(folder, env) == 0
    assert (folder / "summary.json").exists()


def test_a_job_in_another_thread_goes_on_without_signals(
    env: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    config = Config(env=env, num_updates=2, **SMALL, preset=None)
    thread = threading.Thread(
        target=lambda: codes.append(job.run(config, Hyperparams(), options(tmp_path)))
    )
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert codes == [0]
    assert "this is not the main thread: signals do not end the run" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
