"""Devices and hosts: what is spread over them is what one of them computes. In processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pg import cli
from pg.sweep import study as studies

ROOT = Path(__file__).parents[1]
SWEEP = [sys.executable, str(ROOT / "experiments" / "sweep.py"), "--estimator", "leave_one_out", "--num-envs", "8"]
SWEEP += ["--over", "learning_rate=0.001,0.01", "gamma=0.9,1.0", "--eval-episodes", "4", "--width", "1"]
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu"}

SHARDED = """
import json, re, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from pg import devices, runs
from pg.presets import preset

found = {}
for name, changes in {
    "leave_one_out": {},
    "standardised": {},
    "actor_critic": {"normalise_observations": True, "scale_rewards": True, "num_steps": 16},
    "ppo": {"num_epochs": 2, "num_steps": 16, "advantages": "minibatch"},
}.items():
    config, h = preset(name, num_envs=8, num_updates=4, hidden_sizes=(16,), **changes)
    plain = runs.run(config, h, range(6))
    for shard in ("seeds", "envs"):
        where = devices.layout(shard)
        done = runs.run(config, h, range(6), where=where)
        pairs = zip(*(jax.tree.leaves(x.states.params) for x in (done, plain)))
        gap = max(float(np.abs(a - b).max()) for a, b in pairs)
        evaluated, alone = (
            np.asarray(runs.evaluate_run(config, x, range(6), 8, greedy=False, where=w).returns)
            for x, w in ((plain, where), (plain, None))
        )
        same = bool((evaluated == alone).all())
        program = runs.compile_programs(config, runs.broadcast(h, 8), where, 8).advance.as_text()
        collectives = len(re.findall(r"all-reduce|all-gather|all-to-all|collective-permute", program))
        found[f"{name} {shard}"] = [gap, same, collectives, len(done.metrics["return"])]
print(json.dumps(found))
"""


def test_sharded_is_unsharded_on_four_devices() -> None:
    """Parameters after four updates agree to 1e-5; runs need no word from each other, environments of a run do."""
    out = subprocess.run([sys.executable, "-c", SHARDED], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    found = json.loads(out.stdout.splitlines()[-1])
    assert len(found) == 8
    for name, (gap, same, collectives, runs) in found.items():
        assert gap < 1e-5, name
        assert same, name
        assert (collectives > 0) == name.endswith("envs"), name
        assert runs == 6


def start(
    out: Path, *flags: str, processes: int = 1, updates: int = 4, seeds: int = 4
) -> list[subprocess.Popen[str]]:
    """The sweep as one process or as several of one job."""
    command = [*SWEEP, "--out", str(out), "--num-updates", str(updates), "--seeds", str(seeds), *flags]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(processes), "--process-id"]
    jobs = [[*command, *several, str(i)] for i in range(processes)] if processes > 1 else [command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen(job, env=ENVIRONMENT, **pipes) for job in jobs]  # type: ignore[call-overload]


def finished(jobs: list[subprocess.Popen[str]], seconds: float = 300) -> list[str]:
    """What they printed, all of them having succeeded."""
    texts = [job.communicate(timeout=seconds)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * len(jobs), texts
    return texts


def the_runs(out: Path) -> dict[str, np.ndarray]:
    """The rows of the one sweep below `out`."""
    (folder,) = out.glob("*/*/sweep-*")
    return studies.read_runs(folder)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_are_devices_of_one_process(tmp_path: Path, processes: int) -> None:
    """Bit for bit, at the same width and with as many devices."""
    texts = finished(start(tmp_path / "many", processes=processes))
    assert "fresh seeds" in texts[0]
    assert not any("fresh seeds" in text for text in texts[1:])  # one speaks for all
    finished(start(tmp_path / "one", "--cpu-devices", str(processes)))
    many, one = the_runs(tmp_path / "many"), the_runs(tmp_path / "one")
    for name, values in one.items():
        np.testing.assert_array_equal(values, many[name], err_msg=name)


def test_a_dead_process_ends_the_job_and_the_next_goes_on(tmp_path: Path) -> None:
    long = {"processes": 2, "updates": 40, "seeds": 24}
    jobs = start(tmp_path, **long)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*/*/sweep-*/runs/*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(jobs[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    text = jobs[0].communicate(timeout=60)[0]
    assert time.monotonic() - killed < 30
    assert jobs[0].returncode == cli.ABANDONED, text
    assert "error: another process of this job has ended; start all of them again" in text
    jobs[1].communicate()
    kept = len(the_runs(tmp_path)["run"])
    assert 4 <= kept < 96
    texts = finished(start(tmp_path, **long))
    assert f"{kept} of 96 runs are finished" in texts[0]
    assert len(the_runs(tmp_path)["run"]) == 96


@pytest.mark.slow
def test_twenty_processes_on_two_devices_end(tmp_path: Path) -> None:
    """No hang, and the same bits twenty times: batched LAPACK calls and shared predicates could deadlock here."""
    for i in range(20):
        finished(start(tmp_path / str(i), "--cpu-devices", "2"), seconds=120)
    first = the_runs(tmp_path / "0")
    for i in range(1, 20):
        np.testing.assert_array_equal(first["mean"], the_runs(tmp_path / str(i))["mean"])
