"""The train command through interruptions and failures: its messages, its exit codes, and
resumption bit for bit.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pg.commands import cli
from pg.runs import checkpoints, files, folders, results

ROOT = Path(__file__).parents[2]
CACHE = str(ROOT / ".pytest_cache" / "compilations")
ENVIRONMENT = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": CACHE,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
SCRIPT = [sys.executable, "-u", str(ROOT / "experiments" / "train.py")]
RUN = [
    "--estimator",
    "actor_critic",
    "--num-envs",
    "4",
    "--num-steps",
    "16",
    "--hidden-sizes",
    "8",
    "--eval-episodes",
]
RUN += [
    "5",
    "--normalise-observations",
    "--schedule",
    "constant",
    "--entropy-schedule",
    "constant",
    "--seeds",
    "2",
]
FEW = "400"  # updates
LAGGING = ["--estimator", "vtrace", "--policy-lag", "3", *RUN[2:]]


def changed(flag: str, value: str) -> list[str]:
    """The flags of RUN with another value of one of them."""
    place = RUN.index(flag) + 1
    return [*RUN[:place], value, *RUN[place + 1 :]]


def train(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """before: what a shell does first, as a limit."""
    command = (
        ["bash", "-c", f'{before}; exec "$@"', "-", *SCRIPT, *arguments]
        if before
        else [*SCRIPT, *arguments]
    )
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    done = train(*RUN, "--num-updates", FEW, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def assert_same(folder: Path, other: Path) -> None:
    for name in ("params.safetensors", "metrics.parquet"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.0])
def test_a_signal_while_it_compiles_ends_it_too(tmp_path: Path, seconds: float) -> None:
    """The compiler calls Python back: what a signal raises in there must not end the process by a
    crash.
    """
    fresh = {**ENVIRONMENT, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = [*SCRIPT, "--estimator", "ppo", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=fresh) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if "compiling" in line:
                time.sleep(seconds)
                job.send_signal(signal.SIGTERM)
                break
        said = job.stdout.read()
    assert job.returncode == 75
    assert "interrupted before the first update" in said


OTHERS = [
    pytest.param(signum, 75, marks=pytest.mark.slow) for signum in (signal.SIGTERM, signal.SIGUSR1)
]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), *OTHERS])
def test_a_signal_ends_it_and_resume_goes_on(
    whole: Path, tmp_path: Path, signum: int, code: int
) -> None:
    """With many more updates than before, and down to those of the uninterrupted run."""
    command = [
        *SCRIPT,
        *RUN,
        "--num-updates",
        "1000000",
        "--out",
        str(tmp_path),
        "--checkpoint-updates",
        "100",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if "compiling" in line:
                break
        (folder,) = tmp_path.glob("*/*/*")
        while not checkpoints.steps(folder / "checkpoints"):
            assert job.poll() is None
        job.send_signal(signum)
        printed, _ = job.communicate(timeout=60)
    assert job.returncode == code
    summary = json.loads((folder / "summary.json").read_text())
    reached = summary["num_updates"]
    assert summary["status"] == "interrupted"
    said = f"interrupted after {reached:,} of 1,000,000 updates; continue with pg resume {folder}"
    assert said in printed
    assert printed.splitlines()[-1] == str(folder)
    assert checkpoints.steps(folder / "checkpoints")[0] == reached
    assert results.read_metrics(folder)["update"].max() == reached - 1
    if signum != signal.SIGTERM:
        return
    # Back to a checkpoint at or before the end of the uninterrupted run: the first one was after
    # 100 updates.
    early = train(*RUN, "--num-updates", "150", "--name", "early", "--out", str(tmp_path))
    assert early.returncode == 0, early.stderr
    place = early.stdout.splitlines()[-1]
    again = train("--resume", place, "--num-updates", FEW)
    assert "continuing after update 150" in again.stdout
    assert_same(Path(place), whole)
    said = train("--resume", place).stdout
    assert f"it has all of its {FEW} updates: give --num-updates to continue" in said


@pytest.mark.parametrize(
    "run", [RUN, pytest.param(LAGGING, marks=pytest.mark.slow)], ids=["now", "lagging"]
)
def test_after_a_kill_the_same_name_goes_on(run: list[str], whole: Path, tmp_path: Path) -> None:
    """The folder holds a checkpoint and metrics that can be read, and the same command ends with
    the same bits.
    """
    if run != RUN:
        done = train(*run, "--num-updates", FEW, "--out", str(tmp_path / "whole"))
        assert done.returncode == 0, done.stderr
        whole = Path(done.stdout.splitlines()[-1])
    flags = [
        *run,
        "--num-updates",
        FEW,
        "--out",
        str(tmp_path),
        "--name",
        "mine",
        "--checkpoint-updates",
        "10",
    ]
    with subprocess.Popen(
        [*SCRIPT, *flags], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as job:
        while not any(
            checkpoints.steps(folder) for folder in tmp_path.glob("*/*/mine/checkpoints")
        ):
            assert job.poll() is None
        job.kill()
    (folder,) = tmp_path.glob("*/*/mine")
    assert not (folder / "summary.json").exists()
    assert len(results.read_metrics(folder)["update"]) > 0
    done = train(*flags)
    assert done.returncode == 0, done.stderr
    assert "continuing after update" in done.stdout
    assert_same(folder, whole)
    versions = json.loads((folder / "versions.json").read_text())
    assert len(versions["resumed"]) == 1
    assert versions["resets"] == "drawn ahead"
    assert " per seed; resets drawn ahead\n" in done.stdout
    assert {"command", "xla_flags", "instructions", "git_commit", "git_dirty"} <= set(versions)


def test_a_folder_that_is_in_use_or_holds_another_run(whole: Path, tmp_path: Path) -> None:
    with folders.locked(whole):
        done = train("--resume", str(whole))
        assert (done.returncode, "is in use by process" in done.stderr) == (cli.MISTAKE, True)
    done = train("--resume", str(whole), "--gamma", "0.5")
    assert done.returncode == cli.MISTAKE
    assert (
        "holds another run: hyperparams.gamma is 0.99 in the stored run and 0.5 in this one"
        in done.stderr
    )
    done = train("--resume", str(whole), "--num-updates", "7")
    assert f"--num-updates must be at least the {FEW} that are done, got 7" in done.stderr
    done = train("--resume", str(tmp_path))
    assert f"{tmp_path} is not a folder of a run: give one that" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.acceptance("D6")
def test_strict_refuses_other_software(tmp_path: Path) -> None:
    flags = [*RUN, "--num-updates", "2", "--out", str(tmp_path), "--name", "x"]
    assert train(*flags).returncode == 0
    done = train(*flags, "--strict", before="export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false")
    assert done.returncode == cli.MISTAKE
    assert (
        "its software or devices have changed, so that bits may differ: xla_flags is '' in the "
        "stored run" in " ".join(done.stderr.split())
    )


@pytest.mark.slow
@pytest.mark.acceptance("D6")
@pytest.mark.parametrize(
    ("changed", "flags", "said"),
    [
        (
            "JAX_RANDOM_SEED_OFFSET=5",
            [],
            "jax_settings.random_seed_offset is 0 in the stored run and 5 in this one",
        ),
        (
            "JAX_DEFAULT_PRNG_IMPL=rbg",
            [],
            "jax_settings.default_prng_impl is 'threefry2x32' in the stored run and "
            "'rbg' in this one",
        ),
        ("X=1", ["--cpu-devices", "2"], "num_devices is 1 in the stored run and 2 in this one"),
        (
            "X=1",
            ["--cpu-devices", "1", "--matmul-precision", "float32"],
            "jax_settings.default_matmul_precision is None in the stored run and "
            "'float32' in this one",
        ),
        (
            "X=1",
            ["--cpu-devices", "2", "--shard", "envs"],
            "shard is 'seeds' in the stored run and 'envs' in this one",
        ),
    ],
)
def test_strict_refuses_other_numerics(
    tmp_path: Path, changed: str, flags: list[str], said: str
) -> None:
    """Before anything compiles."""
    begin = [
        *RUN,
        "--num-updates",
        "3",
        "--out",
        str(tmp_path),
        "--name",
        "x",
        "--cpu-devices",
        "1",
    ]
    assert train(*begin).returncode == 0
    more = [*begin[:-2], *(flags or begin[-2:]), "--num-updates", "9"]
    refused = train(*more, "--strict", before=f"export {changed}")
    assert refused.returncode == cli.MISTAKE
    assert said in refused.stderr
    assert "compiling" not in refused.stdout


@pytest.mark.slow
@pytest.mark.acceptance("D6")
def test_another_offset_of_seeds_changes_the_bits_and_is_recorded(tmp_path: Path) -> None:
    """A setting that is said to change bits does: the same updates after its change differ from
    those in one go.
    """
    flags = [*RUN, "--out", str(tmp_path), "--cpu-devices", "1"]
    assert train(*flags, "--num-updates", "3", "--name", "x").returncode == 0
    done = train(
        *flags, "--num-updates", "9", "--name", "x", before="export JAX_RANDOM_SEED_OFFSET=5"
    )
    assert (
        "note: bits may differ from an uninterrupted run, as jax_settings.random_seed_offset is"
        in done.stdout
    )
    assert train(*flags, "--num-updates", "9", "--name", "whole").returncode == 0
    mine, whole = (next(tmp_path.glob(f"*/*/{name}")) for name in ("x", "whole"))
    assert (mine / "params.safetensors").read_bytes() != (whole / "params.safetensors").read_bytes()
    (resumed,) = folders.read_json(mine / "versions.json")["resumed"]
    assert resumed["changed"] == [
        "jax_settings.random_seed_offset is 0 in the stored run and 5 in this one"
    ]


@pytest.mark.slow
def test_what_depends_on_the_planned_end_cannot_be_extended(tmp_path: Path) -> None:
    flags = [*changed("--schedule", "linear"), "--name", "x", "--out", str(tmp_path)]
    assert train(*flags, "--num-updates", "2").returncode == 0
    done = train(*flags, "--num-updates", "3")
    assert "--num-updates must stay 2, as schedule='linear' depends on it" in done.stderr


@pytest.mark.acceptance("C4")
@pytest.mark.slow
def test_a_full_disk_is_one_sentence(whole: Path, tmp_path: Path) -> None:
    """Exit code 74; saved files are intact, and the run resumes once there is room."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    more = ["--resume", str(folder), "--num-updates", "420", "--checkpoint-updates", "5"]
    done = train(*more, before="ulimit -f 8")  # blocks of 1024 bytes
    assert done.returncode == cli.CANNOT_WRITE
    assert done.stderr.startswith("error: [Errno 27] cannot write ")
    assert done.stderr.endswith("File too large; earlier files are intact\n")
    assert len(done.stderr.splitlines()) == 1
    again = train(*more)
    assert f"continuing after update {FEW}" in again.stdout
    assert again.returncode == 0


NAMES = [
    "..",
    ".",
    "/tmp/x",
    "a/b",
    "a\nb",
    "x" * 300,
    "-rf",
    "a b",
    "",
    "~",
    "a;b",
    "$HOME",
    "*",
    "é/",
    "a\\b",
    ".git",
]


@pytest.mark.acceptance("S3")
@pytest.mark.parametrize("name", [*NAMES, "nul\0", "link", "a:b", " "])
def test_a_name_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    from pg.config import Config

    (tmp_path / "CartPole-v1" / "reinforce").mkdir(parents=True)
    (tmp_path / "CartPole-v1" / "reinforce" / "link").symlink_to(tmp_path)
    before = set(tmp_path.rglob("*"))
    said = r"name must consist of letters|is a link to another folder"
    with pytest.raises(ValueError, match=said):
        folders.named(tmp_path, Config(preset=None), name)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.acceptance("S7")
def test_what_is_half_written_lies_in_the_run_folder(tmp_path: Path) -> None:
    seen = []
    files.replace(
        tmp_path / "x.json", lambda file: seen.extend(tmp_path.iterdir()) or file.write(b"{}")
    )
    assert len(seen) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_replay_compares_bit_for_bit(whole: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "replay.py"), str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, "identical: " in done.stdout) == (0, True), done.stdout + done.stderr
    assert "note: resets" not in done.stdout
    changed = json.loads((whole / "config.json").read_text())
    changed["hyperparams"]["gamma"] = 0.5
    folders.write_json(whole / "config.json", changed)
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (
        done.returncode,
        "leaf params/policy/params/head/Dense_0/bias: largest difference" in done.stdout,
    ) == (1, True)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"num_devices": 2, "shard": "envs"}, 2),
        ({"num_devices": 2, "shard": "seeds"}, None),
        ({"num_devices": 2, "shard": None}, None),
        ({"shard": "envs"}, None),
        (None, None),
    ],
)
def test_devices_of_seeds_are_none_of_environments(
    tmp_path: Path, versions: dict[str, object] | None, expected: int | None
) -> None:
    if versions is not None:
        (tmp_path / "versions.json").write_text(json.dumps(versions))
    assert folders.num_devices(tmp_path) == expected


@pytest.mark.slow
def test_a_run_over_seeds_goes_on_over_environments_that_the_devices_do_not_divide(
    tmp_path: Path,
) -> None:
    """Seven environments on as many devices as a new run with them: on one."""
    uneven = [*changed("--num-envs", "7"), "--out", str(tmp_path), "--name", "x"]
    assert train(*uneven, "--cpu-devices", "2", "--num-updates", "2").returncode == 0
    resumed = train(*uneven, "--shard", "envs", "--num-updates", "4")
    assert resumed.returncode == 0, resumed.stderr
    assert "4/4 updates" in resumed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--cpu-devices", "2"]], ids=["cores", "asked"])
def test_environments_that_were_spread_are_spread_where_a_run_goes_on(
    tmp_path: Path, flags: list[str]
) -> None:
    """Over as many devices, with the bits of a run that was not interrupted."""
    begin = [*changed("--num-envs", "8"), "--shard", "envs", *flags, "--out", str(tmp_path)]
    assert train(*begin, "--name", "half", "--num-updates", "2").returncode == 0
    assert train(*begin, "--name", "whole", "--num-updates", "4").returncode == 0
    half, whole = (next(tmp_path.glob(f"*/*/{name}")) for name in ("half", "whole"))
    before = folders.num_devices(half)
    resumed = train("--resume", str(half), "--strict", "--num-updates", "4")
    assert resumed.returncode == 0, resumed.stderr
    assert before is not None
    assert folders.num_devices(half) == before
    assert "is 'envs' in the stored run" not in " ".join(resumed.stdout.split())
    parameters = [(folder / "params.safetensors").read_bytes() for folder in (half, whole)]
    assert parameters[0] == parameters[1]
