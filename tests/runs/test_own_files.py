"""A file outside the package, with an estimator and a policy: trained, killed, resumed, swept,
evaluated, drawn.
"""

import dataclasses
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from own_parts import CLIPPED, HEADER, LINEAR
from scripts import EXPERIMENTS, refused_without_jax, run

import pg
from pg.commands import cli, export, job, render, resume, sweep, train, tune
from pg.config import Config, Hyperparams
from pg.runs import code, folders
from pg.runs.code import SHORT
from pg.settings import own_files
from pg.sweep import SweepSpec, driver
from pg.sweep import spec as specs

OWN = HEADER + CLIPPED + LINEAR
OWN_ENV = """
from environments import Clock


class Drawn(Clock):
    def draw(self, axes, state, params):
        axes.plot([0, 4], [0, params.reward_scale])
        axes.plot(state.place, 0, "o")
"""
SMALL = ("--num-envs", "2", "--num-updates", "6", "--horizon", "20", "--eval-episodes", "3")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "my.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def parts(own: Path) -> tuple[str, ...]:
    return "--estimator", f"{own}:clipped", "--policy", f"{own}:linear"


@pytest.fixture(scope="module")
def whole(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has interrupted."""
    out = tmp_path_factory.mktemp("runs")
    done = run("train.py", *parts(own), *SMALL, "--out", str(out), "--name", "whole")
    assert done.returncode == 0, done.stderr
    return out / "CartPole-v1" / "clipped" / "whole"


def test_a_run_of_own_parts_is_found_again_and_records_them(whole: Path, own: Path) -> None:
    stored = json.loads((whole / "config.json").read_text())
    assert (stored["config"]["estimator"], stored["config"]["policy"]) == ("clipped", "linear")
    digest = own_files.read(f"{own}:linear").sha256
    entry = {"name": "linear", "file": str(own), "sha256": digest, "imports": {}}
    assert stored["parts"]["policy"] == entry
    (copy,) = (whole / "code").iterdir()
    assert copy.name == f"my-{digest[:SHORT]}.py"
    assert copy.read_bytes() == own.read_bytes()


@pytest.mark.slow  # test_job kills and resumes too, and what is recorded of files has its own tests
@pytest.mark.acceptance("P1")
def test_killed_and_resumed_it_has_the_same_bits(whole: Path, own: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(EXPERIMENTS / "train.py"),
        *parts(own),
        *SMALL,
        "--out",
        str(tmp_path),
        "--name",
        "killed",
        "--checkpoint-updates",
        "1",
    ]
    folder = tmp_path / "CartPole-v1" / "clipped" / "killed"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("checkpoints/*.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder / "summary.json").unlink(missing_ok=True)  # where it was faster than the signal
    done = run("train.py", "--resume", str(folder), *parts(own))
    assert done.returncode == 0, done.stderr
    for name in ("params.safetensors", "metrics.parquet"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def evaluated(*arguments: Any) -> subprocess.CompletedProcess[str]:
    program = "import sys; from pg.commands.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_what_acts_needs_the_policy_alone(whole: Path, own: Path) -> None:
    done = evaluated(whole, "--policy", f"{own}:linear", "--episodes", "3")
    assert done.returncode == 0, done.stderr
    policy = pg.load_policy(whole, policy=f"{own}:linear")
    assert policy.params.shape == (4, 2)
    assert int(policy(np.zeros(4))) in (0, 1)
    with pytest.raises(ValueError, match=rf"give it, --policy {re.escape(str(own))}:linear"):
        pg.load_policy(whole)
    drawn = run("render.py", str(whole), "--policy", f"{own}:linear", "--steps", "3")
    assert drawn.returncode == 0, drawn.stderr
    assert (whole / "policy.gif").exists()


@pytest.mark.acceptance("P2", "P3", "S4")
def test_parts_are_given_again_and_are_the_recorded_ones(
    whole: Path, own: Path, tmp_path: Path
) -> None:
    """Before jax is loaded, and before the other file is executed."""
    resume = ("train.py", "--resume", str(whole))
    words = " ".join(refused_without_jax(*resume).stderr.split())
    assert f"whose estimator is custom, 'clipped': give it, --estimator {own}:clipped" in words
    other = tmp_path / "other.py"
    other.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n{OWN}", encoding="utf-8")
    changed = ("--estimator", f"{own}:clipped", "--policy", f"{other}:linear")
    words = " ".join(refused_without_jax(*resume, *changed).stderr.split())
    digests = [own_files.read(f"{file}:linear").sha256[:SHORT] for file in (own, other)]
    assert f"the digest of policy 'linear' was {digests[0]}, and is {digests[1]}" in words
    assert not (tmp_path / "executed").exists()
    done = run(*resume, *changed, "--num-updates", "7", "--allow-changed-code")
    assert done.returncode == 0, done.stderr
    versions = json.loads((whole / "versions.json").read_text())
    said = (
        f"the code of policy 'linear' is {digests[0]} in the stored run and "
        f"{digests[1]} in this one"
    )
    assert said in versions["resumed"][-1]["changed"]
    assert len(list((whole / "code").iterdir())) == 2


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The folder of a run with an update, of an estimator in `mine.py` beside it."""
    path, folder = tmp_path / "mine.py", tmp_path / "run"
    path.write_text(HEADER + CLIPPED, encoding="utf-8")
    folder.mkdir()
    config = Config(estimator=f"{path}:clipped", num_envs=7, preset=None)
    folders.write_setup(folder, config, Hyperparams(), {}, {"pg": "0"})
    (folder / "metrics.parquet").touch()
    return folder


def test_the_command_that_resumes_a_run_gives_its_own_files_again(recorded: Path) -> None:
    estimator = f"{recorded.with_name('mine.py')}:clipped"
    again = code.resumption(recorded, Config(estimator=estimator, preset=None))
    assert again == f"{recorded} --estimator {estimator}"
    mended = code.resumption(
        recorded, Config(estimator=estimator, preset=None), allow_changed_code=True
    )
    assert mended == f"{again} --allow-changed-code"
    resumed, *_ = cli.parse(None, "", job.Options, ["--resume", *again.split()])
    assert resumed.num_envs == 7
    assert code.resumption(recorded, Config(preset=None)) == str(recorded)


@pytest.mark.parametrize("label", ["ppo", "natural"])
def test_an_own_estimator_is_trained_with_the_settings_of_another(own: Path, label: str) -> None:
    """All that were tuned for the environment; a flag changes one of them."""
    mine = f"{own}:clipped"
    words = ["--env", "Acrobot-v1", "--estimator", mine, "--settings-of", label]
    words += ["--collect", "episodes"]  # which the estimator needs
    config, hyperparams = cli.parse(None, "", job.Options, words)[:2]
    tuned, of_tuned = pg.preset(label, env="Acrobot-v1", collect="episodes")
    found, wanted = config.to_json(), tuned.to_json()
    assert found.pop("estimator") == "clipped"
    assert config.estimator is own_files.load(mine)
    wanted.pop("estimator")
    assert found == wanted
    assert hyperparams == of_tuned != Hyperparams()
    changed = cli.parse(None, "", job.Options, [*words, "--gamma", "0.5"])[1]
    assert changed == of_tuned._replace(gamma=0.5)


def test_a_folder_records_whose_settings_an_own_estimator_has(recorded: Path) -> None:
    """A resumed run keeps the record; a run elsewhere with the same settings has its own."""
    mine = ["--estimator", f"{recorded.with_name('mine.py')}:clipped"]
    words = [*mine, "--settings-of", "leave_one_out"]
    config, hyperparams, options, _ = cli.parse(None, "", job.Options, words)
    folders.write_setup(recorded, config, hyperparams, vars(options), {"pg": "0"})
    assert folders.read_options(recorded)["settings_of"] == "leave_one_out"
    resumed = cli.parse(None, "", job.Options, ["--resume", str(recorded), *mine])[2]
    assert resumed.settings_of == "leave_one_out"
    another = cli.parse(None, "", job.Options, ["--config", str(recorded), *mine])[2]
    assert another.settings_of is None
    assert cli.parse(None, "", job.Options, [*mine, "--settings-of", "none"])[2].settings_of is None


def test_settings_of_another_estimator_that_cannot_be_meant_are_refused(
    own: Path, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = ("--estimator", f"{own}:clipped")
    cases = {
        (*mine, "--settings-of", "pop"): "unknown settings_of 'pop': did you mean",
        ("--estimator", "gae", "--settings-of", "ppo"): "settings_of is for your own estimators",
        ("--resume", str(recorded), "--settings-of", "ppo"): "settings_of is for a new run",
        ("--config", str(recorded), *mine, "--settings-of", "ppo"): "settings_of is for a new run",
    }
    for words, said in cases.items():
        with pytest.raises(SystemExit):
            cli.parse(None, "", job.Options, list(words))
        assert said in " ".join(capsys.readouterr().err.split())
    words = [*mine, "--settings-of", "ppo", "--over", "env=CartPole-v1,Acrobot-v1"]
    with pytest.raises(SystemExit):
        cli.parse(None, "", sweep.Options, [*words, "--collect", "episodes"])
    said = " ".join(capsys.readouterr().err.split())
    assert "settings_of 'ppo' has the settings of one environment, and env is varied" in said


def test_own_estimators_that_are_only_varied_have_the_settings_of_another(own: Path) -> None:
    """As if the first of them were given as --estimator too."""
    varied = ["--settings-of", "ppo", "--over", f"estimator=gae,{own}:clipped"]
    found = cli.parse_given(None, "", sweep.Options, ["--collect", "episodes", *varied])
    words = ["--estimator", f"{own}:clipped", "--collect", "episodes", *varied]
    assert found == cli.parse_given(None, "", sweep.Options, words)
    joined = ["--settings-of", "ppo", f"--over=estimator=gae,{own}:clipped"]
    assert cli.parse_given(None, "", sweep.Options, ["--collect", "episodes", *joined]) == found
    with pytest.raises(SystemExit):
        cli.parse(None, "", sweep.Options, ["--settings-of", "ppo", "--over", "estimator=gae,ppo"])


@pytest.fixture
def with_imports(tmp_path: Path) -> Path:
    """A file that imports a package and, in a function, a module of its folder."""
    (tmp_path / "lib").mkdir()
    text = "from lib import size\n\ndef linear(config, env):\n    import scale\n"
    for name, content in {"my.py": text, "lib/__init__.py": "", "lib/size.py": "SIZE = 1"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "scale.py").write_text("VALUE = 1", encoding="utf-8")
    return tmp_path / "my.py"


@pytest.mark.acceptance("P2")
def test_what_an_own_file_imports_from_its_folder_is_recorded_and_compared(
    with_imports: Path, tmp_path: Path
) -> None:
    reference, run = f"{with_imports}:linear", tmp_path / "run"
    run.mkdir()
    folders.write_setup(run, Config(policy=reference, preset=None), Hyperparams(), {}, {"pg": "0"})
    stored = json.loads((run / "config.json").read_text())["parts"]
    entry = stored["policy"]
    assert list(entry["imports"]) == ["lib/__init__.py", "lib/size.py", "scale.py"]
    copies = {path.name.rpartition("-")[0]: path.read_text() for path in (run / "code").iterdir()}
    assert copies == {
        "my": with_imports.read_text(),
        "lib.__init__": "",
        "lib.size": "SIZE = 1",
        "scale": "VALUE = 1",
    }
    (run / "metrics.parquet").touch()  # of a run that has done an update
    parts = {"policy": reference}
    assert folders.read_setup(run, parts=parts)[0].policy is own_files.load(reference)
    scale = with_imports.with_name("scale.py")
    scale.write_text("raise AssertionError('executed')", encoding="utf-8")
    before, now = entry["imports"]["scale.py"], own_files.read(reference).imports[-1].sha256
    said = (
        f"{scale} is not the file that {run} was run with: the digest of scale.py, which policy "
        f"'linear' imports, was {before[:SHORT]}, and is {now[:SHORT]}; the old text is "
        f"{run / 'code' / 'scale'}-{before[:SHORT]}.py"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        folders.read_setup(run, parts=parts)
    config, _ = folders.read_setup(run, parts=parts, allow_changed_code=True)
    said = (
        f"policy 'linear', scale.py, is {before[:SHORT]} in the stored run and "
        f"{now[:SHORT]} in this one"
    )
    assert code.changes(stored, config) == [f"the code of {said}"]
    assert code.digest(code.record(config)["policy"]) != code.digest(entry)
    scale.unlink()
    with pytest.raises(ValueError, match=f"no longer imports {scale}: the old text is"):
        folders.read_setup(run, parts=parts)
    scale.write_text("VALUE = 1", encoding="utf-8")
    (tmp_path / "lib" / "size").mkdir()
    (tmp_path / "lib" / "size" / "__init__.py").touch()  # goes before lib/size.py
    with pytest.raises(ValueError, match=r"no longer imports .*size\.py"):
        folders.read_setup(run, parts=parts)


def test_a_run_of_before_imports_were_recorded_is_resumed(
    with_imports: Path, tmp_path: Path
) -> None:
    reference = f"{with_imports}:linear"
    folders.write_setup(tmp_path, Config(policy=reference, preset=None), Hyperparams(), {}, {})
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["parts"]["policy"]["imports"]
    path.write_text(json.dumps(stored))
    config, _ = folders.read_setup(tmp_path, parts={"policy": reference})
    assert code.changes(stored["parts"], config) == []
    assert code.digest(stored["parts"]["policy"]) == own_files.read(reference).sha256


@pytest.mark.slow
def test_a_sweep_varies_own_estimators(own: Path, tmp_path: Path) -> None:
    done = run(
        "sweep.py",
        "--policy",
        f"{own}:linear",
        *SMALL,
        "--out",
        str(tmp_path),
        "--over",
        f"estimator=leave_one_out,{own}:clipped",
        "--seeds",
        "2",
        "--fresh-seeds",
        "0",
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("CartPole-v1/leave_one_out-clipped/*/sweep.json")
    folder, stored = file.parent, json.loads(file.read_text())
    assert [part["name"] for part in stored["parts"]] == ["linear", "clipped"]
    assert stored["table"]["estimator"] == ["leave_one_out", "clipped"]
    assert ",clipped," in (folder / "configurations.csv").read_text()
    table = pg.load(tmp_path)
    digest = stored["parts"][1]["sha256"][:SHORT]
    columns = [table[name].to_pylist() for name in ("estimator", "estimator_code")]
    assert set(zip(*columns, strict=True)) == {("leave_one_out", None), ("clipped", digest)}
    assert len(list((folder / "code").iterdir())) == 1


@pytest.mark.acceptance("P2")
@pytest.mark.parametrize("is_varied", [False, True])
def test_a_sweep_is_found_by_the_digests_of_its_parts(tmp_path: Path, is_varied: bool) -> None:
    """Wherever the file lies."""
    importing = f"{OWN}\nimport scale\n"
    texts = {
        "one": OWN,
        "other": OWN,
        "changed": f"{OWN}# changed",
        "importing": importing,
        "importing another": importing,
    }
    folders_of = {}
    for name, text in texts.items():
        path = tmp_path / name / "my.py"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        path.with_name("scale.py").write_text(f"# {name}", encoding="utf-8")
        config = Config(policy=f"{path}:linear", estimator=f"{path}:clipped", preset=None)
        if is_varied:
            table: dict[str, list[Any]] = {"estimator": ["leave_one_out", f"{path}:clipped"]}
        else:
            table = {"learning_rate": [0.1, 0.2]}
        spec = SweepSpec(config, Hyperparams(), table, range(2))
        folders_of[name] = spec.folder(tmp_path / "sweeps")
    assert folders_of["one"] == folders_of["other"]
    assert len(set(folders_of.values())) == len(texts) - 1
    assert folders_of["one"].parts[-2] == ("leave_one_out-clipped" if is_varied else "clipped")
    if is_varied:
        assert [spec.values(g)["estimator"] for g in range(2)] == ["leave_one_out", "clipped"]


BREAKING = """
import gymnasium, numpy as np


class Breaking(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    steps_left = {steps_left}

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {{}}

    def step(self, action):
        Breaking.steps_left -= 1
        if Breaking.steps_left == 0:
            raise KeyError("board")
        return np.zeros(2, np.float32), 0.0, False, False, {{}}
"""
MENDED = BREAKING.format(steps_left=-1)
OF_BREAKING = (
    *("--estimator", "actor_critic", "--num-envs", "3", "--num-steps", "7", "--num-updates", "4"),
    *("--hidden-sizes", "4", "--horizon", "5", "--eval-episodes", "2", "--cpu-devices", "1"),
)


def breaking(folder: Path, steps_left: int) -> tuple[Path, list[str]]:
    """The file of an environment that breaks after some steps, and the flags of a run in it."""
    file = folder / "own_env.py"
    file.write_text(BREAKING.format(steps_left=steps_left), encoding="utf-8")
    return file, ["--env", f"{file}:Breaking", *OF_BREAKING, "--out", str(folder / "out")]


OF_UPDATE, OF_EVALUATION = 2 * 3 * 7, 2 * 2 * 5  # steps of a chunk of two runs


@pytest.mark.parametrize(
    ("method", "steps_left", "done"),
    [
        # after two updates of the second chunk
        ("grid", 4 * OF_UPDATE + OF_EVALUATION + 2 * OF_UPDATE + 5, 2),
        # after two chunks of two updates, and one update of the second rung
        ("halving", 2 * (2 * OF_UPDATE + OF_EVALUATION) + OF_UPDATE + 5, 3),
    ],
)
def test_a_sweep_continues_once_the_file_of_its_environment_is_mended(
    method: str,
    steps_left: int,
    done: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the flag that the error names; finished chunks are unchanged."""
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    monkeypatch.setattr(driver, "say_unused", lambda *args: None)  # which takes seconds
    out = tmp_path / "out"
    file, words = breaking(tmp_path, steps_left)
    words += ["--over", "learning_rate=0.1,0.2"]
    words += ["--seeds", "2", "--fresh-seeds", "0", "--width", "2"]
    words += ["--method", method, *(["--eta", "2"] if method == "halving" else [])]
    with pytest.raises(SystemExit) as ended:
        sweep.main(words)
    assert ended.value.code == cli.FAULT
    said = " ".join(capsys.readouterr().err.split())
    kept = "finished runs are kept, and the same command trains the others "
    assert kept + "(with --allow-changed-code, once one of your files has changed)" in said
    (folder,) = out.glob("*/actor_critic/*")
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("runs/*.parquet")}
    assert finished

    file.write_text(MENDED, encoding="utf-8")
    assert sweep.main([*words, "--allow-changed-code"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"continuing after update {done}" in said
    assert list(out.glob("*/actor_critic/*")) == [folder]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(folder.rglob("runs/*.parquet"))) == len(finished) + 1
    last = max(folder.rglob("sweep.json"))
    versions = json.loads(last.read_text(encoding="utf-8"))["versions"]
    assert "the code of env 'Breaking' is " in versions["resumed"][0]["changed"][0]

    # from now on the folder is that of the mended file, and of that one alone
    assert sweep.main(words) == 0
    breaking(tmp_path, steps_left)
    with pytest.raises(SystemExit):
        sweep.main(words)
    assert "with other code: the code of env 'Breaking'" in capsys.readouterr().err
    file.write_text(MENDED, encoding="utf-8")
    assert sweep.main(words) == 0
    assert list(out.glob("*/actor_critic/*")) == [folder]


@pytest.mark.parametrize(
    ("steps_left", "done"),
    [
        (5, 0),
        (2 * 3 * 7 + 5, 2),
        (4 * 3 * 7 + 5, 4),  # in the final evaluation
    ],
)
def test_a_fault_of_a_run_names_the_command_for_the_mended_file(
    steps_left: int,
    done: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    out = tmp_path / "out"
    file, words = breaking(tmp_path, steps_left)
    words += ["--name", "one"]
    assert train.main(words) == cli.FAULT
    said = " ".join(capsys.readouterr().err.split())
    file.write_text(MENDED, encoding="utf-8")
    if done == 0:
        assert said.endswith("; there is no checkpoint yet: the same command starts again")
        assert train.main(words) == 0
        return
    (folder,) = out.glob("*/actor_critic/one")
    again = f"{folder} --env {file}:Breaking --allow-changed-code"
    assert said.endswith(f"; pg resume {again} continues after update {done}, the last checkpoint")
    assert resume.main(again.split()) == 0
    assert f"continuing after update {done}" in capsys.readouterr().out


def test_a_new_sweep_names_the_unfinished_one_of_other_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.py"
    file.write_text(OWN, encoding="utf-8")

    def spec() -> SweepSpec:
        config = Config(estimator=f"{file}:clipped", preset=None)
        return SweepSpec(config, Hyperparams(), {"learning_rate": [0.1, 0.2]}, range(2))

    before, folder = spec(), spec().folder(tmp_path)
    specs.make(folder)
    specs.write_setup(before, folder, 2, {})
    file.write_text(f"{OWN}# changed", encoding="utf-8")
    after = spec()
    assert after.folder(tmp_path) != folder
    assert after.folder(tmp_path, allow_changed_code=True) == folder
    new = after.folder(tmp_path)
    driver.say_of_other_code(after.unfinished_of_other_code, tmp_path, new)
    said = " ".join(capsys.readouterr().out.split())
    assert said == (
        f"{folder} holds this sweep, unfinished, with other code of your own parts: "
        "--allow-changed-code continues it"
    )
    other = dataclasses.replace(after, seeds=range(3))
    assert other.unfinished_of_other_code(tmp_path) is None
    (folder / "summary.json").write_text("{}", encoding="utf-8")
    assert after.unfinished_of_other_code(tmp_path) is None
    assert after.folder(tmp_path, allow_changed_code=True) not in (folder, None)


def test_parts_of_a_sweep_that_have_one_name_are_refused(tmp_path: Path) -> None:
    """As they would be one row of its tables."""
    for name in ("one.py", "two.py"):
        named = f"{HEADER}{CLIPPED}\n\ngae = clipped\n"
        (tmp_path / name).write_text(named, encoding="utf-8")
    config = Config(num_envs=4, preset=None)
    for others in ("{one}:clipped,{two}:clipped", "gae,{one}:gae"):
        estimators = others.format(one=tmp_path / "one.py", two=tmp_path / "two.py").split(",")
        name = estimators[1].rpartition(":")[2]
        with pytest.raises(ValueError, match=f"estimator: two are called '{name}'"):
            SweepSpec(config, Hyperparams(), {"estimator": estimators}, range(2))


def test_hyperparameters_of_own_parts_are_searched_and_printed_as_a_preset(
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    file = tmp_path / "envs.py"
    file.write_text(OWN_ENV, encoding="utf-8")
    of_env = ("--env", f"{file}:Drawn")
    small = ("--set", "num_updates=1", "num_envs=2", "horizon=4", "--trials", "1", "--seeds", "2")
    assert tune.main([*parts(own), *of_env, *small]) == 0
    winner = capsys.readouterr().out.splitlines()[-1]
    config, _ = eval(winner, {"preset": pg.preset})
    of_file = {
        "env": f"{file}:Drawn",
        "estimator": f"{own}:clipped",
        "policy": f"{own}:linear",
    }
    for field, reference in of_file.items():
        assert getattr(config, field) is own_files.load(reference, field), field
    with pytest.raises(SystemExit) as mistake:
        tune.main(["--policy", f"{own}:linaer"])
    assert mistake.value.code == cli.MISTAKE
    assert "'linaer': did you mean 'linear'" in capsys.readouterr().err


def test_a_search_for_an_own_estimator_starts_from_the_settings_of_another(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = []

    def search(*arguments: Any) -> dict[str, Any]:
        searched.append(arguments[:2])
        return {name: np.ones((1, 2), int) for name in ("steps", "greedy", "sampled")}

    monkeypatch.setattr(tune, "search", search)
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    mine, small = f"{own}:clipped", ("--trials", "1", "--seeds", "2")
    words = ["--env", "Acrobot-v1", "--estimator", mine, "--settings-of", "leave_one_out"]
    assert tune.main([*words, "--range", "gamma=0.5:0.5", *small]) == 0
    tuned, of_tuned = pg.preset("leave_one_out", env="Acrobot-v1")
    config, hyperparams = eval(capsys.readouterr().out.splitlines()[-1], {"preset": pg.preset})
    assert searched == [(dataclasses.replace(tuned, estimator=mine, preset=None), of_tuned)]
    assert config == searched[0][0]
    assert hyperparams == of_tuned._replace(gamma=0.5)
    with pytest.raises(SystemExit):
        tune.main(["--estimator", "gae", "--settings-of", "ppo"])
    assert "error: --settings-of is for your own estimators" in capsys.readouterr().err


def test_a_run_of_an_own_environment_is_exported_and_drawn(
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its parts are given again, all by flags that the commands have."""
    for command in (export, render):
        monkeypatch.setattr(command.cli, "cache_compilations", lambda: None)
    file = tmp_path / "envs.py"
    file.write_text(OWN_ENV, encoding="utf-8")
    of_env, of_policy = ("--env", f"{file}:Drawn"), ("--policy", f"{own}:linear")
    config = Config(
        env=of_env[1],
        policy=of_policy[1],
        env_params={"reward_scale": 2.0},
        num_envs=2,
        num_updates=1,
        horizon=5,
        preset=None,
    )
    assert job.run(config, Hyperparams(), job.Options(out=tmp_path, name="x")) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    for command in (export, render):
        for given, missing in ((of_policy, of_env), (of_env, of_policy)):
            with pytest.raises(SystemExit) as mistake:
                command.main([str(folder), *given])
            assert mistake.value.code == cli.MISTAKE
            assert f"give it, {' '.join(missing)}" in " ".join(capsys.readouterr().err.split())
    assert not (folder / "export").exists()
    assert export.main([str(folder), *of_env, *of_policy]) == 0
    assert render.main([str(folder), *of_env, *of_policy, "--steps", "2"]) == 0
    written = capsys.readouterr().out.split()
    wanted = [f"export/{name}" for name in ("mode.jax_export", "policy.json", "sample.jax_export")]
    wanted += [f"policy.{kind}" for kind in ("gif", "png", "svg")]
    assert {str(folder / name) for name in wanted} < set(written)
    described = json.loads((folder / "export" / "policy.json").read_text())
    assert described["programs"]["mode"]["arguments"] == {"obs": "float32[n, 2]"}


def test_an_untrained_policy_of_one_s_own_is_drawn_in_an_own_environment(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "envs.py"
    file.write_text(OWN_ENV, encoding="utf-8")
    options = render.Options(env=f"{file}:Drawn", policy=f"{own}:linear", steps=3)
    config, hyperparams, out = render.settings(options)
    assert out == Path("Drawn.gif")
    assert render.played(config, hyperparams, options).total.shape == (4,)
    assert config.policy is own_files.load(f"{own}:linear")


def constant(config: Config, env: Any) -> pg.Network:
    """The same probability of every action."""
    zeros = np.zeros(env.action_space.n, np.float32)
    return pg.Network(
        lambda key: {"b": zeros},
        lambda params, carry, obs, first: (
            carry,
            pg.Categorical(jnp.broadcast_to(params["b"], (*first.shape, 2))),
        ),
    )


def another_constant(config: Config, env: Any) -> pg.Network:
    """The same scores, of which an action is less probable."""
    return constant(config, env)._replace(init=lambda key: {"b": np.array([0.0, 1.0])})


def test_a_part_from_python_is_given_again_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(policy=constant, num_envs=2, num_updates=2, horizon=5, preset=None)
    options = job.Options(out=tmp_path, name="x", eval_episodes=2)
    assert job.run(config, Hyperparams(), options) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((folder / "config.json").read_text())["parts"]["policy"]
    assert (stored["name"], stored["module"]) == ("constant", constant.__module__)
    assert job.resume(folder) == cli.MISTAKE
    assert "in Python, as in pg.commands.job.resume(" in " ".join(capsys.readouterr().err.split())

    def another(config: Config, env: Any) -> pg.Network:
        return constant(config, env)

    assert job.resume(folder, policy=another) == cli.MISTAKE
    assert "another policy, 'constant': got 'another'" in capsys.readouterr().err
    code = constant.__code__
    try:
        constant.__code__ = another_constant.__code__
        assert job.resume(folder, policy=constant, num_updates=3) == cli.MISTAKE
        said = " ".join(capsys.readouterr().err.split())
        assert "policy 'constant' is not the one that" in said
        assert "allow_changed_code=True" in said
    finally:
        constant.__code__ = code
    assert job.resume(folder, policy=constant, num_updates=3) == 0
    assert pg.load_policy(folder, policy=constant).params["b"].shape == (2,)


@pytest.mark.parametrize("first", ["file", "python"])
def test_a_part_that_is_given_in_another_way_is_compared_or_refused(
    tmp_path: Path, first: str
) -> None:
    """By the text of its file, and where that says too little it is changed code."""
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    reference = f"{path}:linear"
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mine"] = module
    try:
        spec.loader.exec_module(module)
        given = [own_files.load(reference, "policy"), module.linear]
        then, now = given if first == "file" else given[::-1]
        entry = code.record(Config(policy=then, preset=None))["policy"]
        assert not code.is_changed(tmp_path, "policy", entry, now)
        assert code.changes({"policy": entry}, Config(policy=now, preset=None)) == []
        other = entry | {"sha256": "0" * 64}
        with pytest.raises(code.ChangedCodeError, match="so that not all of its code can be"):
            code.is_changed(tmp_path, "policy", other, now)
        assert code.is_changed(tmp_path, "policy", other, now, allow_changed_code=True)
        assert len(code.changes({"policy": other}, Config(policy=now, preset=None))) == 1
        with_imports = entry | {"imports": {"helper.py": "0" * 64}}
        with pytest.raises(code.ChangedCodeError, match="give it as"):
            code.is_changed(tmp_path, "policy", with_imports, now)
    finally:
        sys.modules.pop("mine", None)


def test_a_definition_of_before_is_compared_with_nothing() -> None:
    entry = code.record(Config(policy=constant, preset=None))["policy"]
    old = {name: value for name, value in entry.items() if name != "definition"}
    assert code.changes({"policy": old}, Config(policy=constant, preset=None)) == []
    older = entry | {"definition": f"cpython-27 {'0' * 64}"}
    assert code.changes({"policy": older}, Config(policy=constant, preset=None)) == []
    another = entry | {"definition": entry["definition"][:-64] + "0" * 64}
    assert len(code.changes({"policy": another}, Config(policy=constant, preset=None))) == 1


def test_a_run_without_own_parts_takes_none(tmp_path: Path) -> None:
    folders.write_setup(tmp_path, Config(preset=None), Hyperparams(), {}, {"pg": "0"})
    assert "parts" not in json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ValueError, match="not a custom one: leave policy out"):
        folders.read_setup(tmp_path, parts={"policy": constant})


@pytest.mark.slow
def test_a_file_may_compute_while_it_is_imported_as_gymnax_does(tmp_path: Path) -> None:
    """The devices are chosen before: all cores, though jax has one by itself."""
    path = tmp_path / "early.py"
    early = f"{OWN}\nimport gymnax\nONES = jnp.ones(3)\n"
    path.write_text(early, encoding="utf-8")
    arguments = ("--policy", f"{path}:linear", *SMALL, "--out", str(tmp_path), "--name", "x")
    done = run("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "CartPole-v1" / "reinforce" / "x"
    done = evaluated(folder, "--policy", f"{path}:linear", "--episodes", "2")
    assert done.returncode == 0, done.stderr


FAILING = """
import jax
import optax
import pg


def of_another_version(policy, critic, h):
    return h.clip_range


def weighed(policy, critic, h):
    def weigh(params, state, traj):
        raise ValueError("no weight")

    return pg.build_estimator(policy, None, h, weigh)


def without_parameters(config, env):
    return pg.Network(lambda key: {}["w"], lambda params, carry, obs, first: None)


def optimizer(rate):
    def update(updates, state, params=None):
        return updates + 1

    return optax.GradientTransformation(lambda params: (), update)


def fails_later(config, env):
    def apply(params, carry, obs, first):
        if first.shape == (20, 3):
            raise ValueError("twenty")
        return carry, pg.Categorical(obs @ params)

    return pg.Network(lambda key: jax.numpy.zeros((4, 2)), apply)
"""
FAILURES = {
    "of_another_version": (
        "estimator",
        "estimator 'of_another_version' fails: AttributeError",
        "h.clip_range",
    ),
    "weighed": (
        "estimator",
        "weigh of estimator 'weighed' fails: ValueError: no weight",
        'ValueError("no weight")',
    ),
    "without_parameters": (
        "policy",
        "init of policy 'without_parameters' fails: KeyError: 'w'",
        '{}["w"]',
    ),
    "optimizer": ("optimizer", "own code fails: TypeError: can only concatenate", "updates + 1"),
    "fails_later": ("policy", "error: twenty", 'ValueError("twenty")'),
}


@pytest.mark.parametrize("field", ["env", "estimator", "policy"])
def test_a_string_in_a_file_is_no_part(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be taken for the name of one of the library's."""
    path = tmp_path / "mine.py"
    path.write_text('name = "ppo"\n', encoding="utf-8")
    with pytest.raises(SystemExit):
        train.main([f"--{field}", f"{path}:name", "--out", str(tmp_path / "x")])
    assert f"name of {path} is a string, not the {field} itself" in capsys.readouterr().err


@pytest.mark.acceptance("P5")
@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_in_an_own_file_is_one_sentence_with_its_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a run that has done no update leaves nothing behind."""
    field, said, line = FAILURES[name]
    path, out = tmp_path / "failing.py", tmp_path / "results"
    path.write_text(FAILING, encoding="utf-8")
    small = ("--num-envs", "3", "--num-updates", "1", "--horizon", "20", "--eval-episodes", "2")
    command = [f"--{field}", f"{path}:{name}", *small, "--out", str(out), "--name", "x"]
    assert train.main(command) == cli.MISTAKE
    err = capsys.readouterr().err
    number = next(i for i, text in enumerate(FAILING.splitlines(), 1) if line in text)
    assert said in err
    assert f"({path}, line {number}); --traceback shows all calls" in err
    assert "Traceback" not in err
    assert not list(out.rglob("*.json"))
    assert not list(out.rglob("x"))


def test_the_calls_behind_a_failure_are_shown_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "failing.py"
    path.write_text(FAILING, encoding="utf-8")
    command = ["--estimator", f"{path}:of_another_version", "--out", str(tmp_path), "--traceback"]
    assert train.main(command) == cli.MISTAKE
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "return h.clip_range" in err
    assert "--traceback" not in err


@pytest.mark.acceptance("P5")
def test_a_run_without_updates_goes_on_with_the_mended_file(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that was killed while it was compiled; one with updates does not."""
    path = tmp_path / "my.py"
    path.write_text(f"{OWN}# of before\n", encoding="utf-8")
    config = Config(policy=f"{path}:linear", num_envs=2, num_updates=1, horizon=5, preset=None)
    options = job.Options(out=tmp_path, name="x", eval_episodes=2)
    folder = folders.named(tmp_path, config, "x")
    folders.write_setup(folder, config, Hyperparams(), {}, {})
    path.write_text(OWN, encoding="utf-8")
    mended = Config(policy=f"{path}:linear", num_envs=3, num_updates=1, horizon=5, preset=None)
    assert folders.read_setup(folder, parts={"policy": f"{path}:linear"})[0].num_envs == 2
    assert job.run(mended, Hyperparams(), options) == 0
    path.write_text(f"{OWN}# of later\n", encoding="utf-8")
    capsys.readouterr()
    assert job.resume(folder, policy=f"{path}:linear", num_updates=2) == cli.MISTAKE
    assert "is not the file that" in " ".join(capsys.readouterr().err.split())


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    config = Config(num_envs=2, num_updates=1, preset=None)
    out = tmp_path / "results"
    for name in ("x", None):
        options = job.Options(out=out, name=name, eval_episodes=10**12)  # beyond the memory
        assert job.run(config, Hyperparams(), options) == cli.MISTAKE
    assert list(out.iterdir()) == []
    kept = folders.named(out, config, "kept")
    (kept / "notes.txt").touch()
    with folders.locked(kept, of_run=True):
        pass
    assert (kept / "notes.txt").exists()


def test_a_stand_in_says_what_is_missing() -> None:
    stand_in = code.StandIn(Path("run"), "estimator", "clipped")
    with pytest.raises(ValueError, match="loaded without its estimator 'clipped': give it too"):
        stand_in(None, None, None)
