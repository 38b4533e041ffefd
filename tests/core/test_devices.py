"""Devices and hosts: sharded programs compute what one device computes. In separate processes."""

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

from pg.commands import cli
from pg.runs import sweeps

ROOT = Path(__file__).parents[2]
SWEEP = [
    sys.executable,
    str(ROOT / "experiments" / "sweep.py"),
    "--estimator",
    "leave_one_out",
    "--num-envs",
    "8",
]
SWEEP += [
    "--over",
    "learning_rate=0.001,0.01",
    "gamma=0.9,1.0",
    "--eval-episodes",
    "4",
    "--width",
    "1",
]
CACHE = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "compilations")}
ENVIRONMENT = {**os.environ, **CACHE, "JAX_PLATFORMS": "cpu"}

SHARDED = """
import json, re, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from pg.fast import devices
from pg.runs import execution
from pg.presets import preset

def trained(where):
    n = where.round_up(6)
    h = execution.broadcast(hyperparams, n)
    programs = execution.compile_programs(config, h, where, n, episodes=8)
    keys = [execution.filled_up(key, n) for key in execution.seed_keys(range(6))]
    states, metrics = execution.train(programs, keys[0], h, num_logged=6)[:2]
    returns = execution.evaluate_all(programs, states, keys[1], h)["sampled"].returns[:6]
    # What is outside the loop happens once a chunk.
    updates = programs.advance.as_text().partition("\\nENTRY")[0]
    collectives = re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute)\\(", updates)
    return execution.first(devices.fetch(states.params, where), 6), metrics, returns, collectives

found = {}
for name, changes in {
    "standardised": {},
    "actor_critic": {"normalise_observations": True, "scale_rewards": True, "num_steps": 16},
    "ppo": {"num_epochs": 2, "num_steps": 16, "advantages": "minibatch"},
    "vtrace": {"policy_lag": 2, "num_steps": 16},
}.items():
    if name not in sys.argv:
        continue
    config, hyperparams = preset(name, num_envs=8, num_updates=4, hidden_sizes=(16,), **changes)
    params, metrics, returns, _ = trained(devices.layout(most=1))
    for shard in ("seeds", "envs"):
        other = trained(devices.layout(shard))
        pairs = zip(*map(jax.tree.leaves, (params, other[0])))
        gap = max(float(np.abs(a - b).max()) for a, b in pairs)
        gaps = [np.abs(metrics[k] - other[1][k]) for k in ("return", "env_steps")]
        far = max(float(np.nanmax(x)) for x in gaps)
        found[f"{name} {shard}"] = [gap, far, float(np.abs(returns - other[2]).max()), other[3]]
print(json.dumps(found))
"""


def printed(script: str, *arguments: str) -> str:
    """The output of a script in its own process, whose devices are not chosen yet."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
@pytest.mark.acceptance("D8")
@pytest.mark.parametrize("names", [("standardised", "actor_critic", "ppo"), ("vtrace",)])
def test_sharded_is_unsharded_on_four_devices(names: tuple[str, ...]) -> None:
    """After four updates parameters agree to 1e-5 and returns exactly. Within an update, runs need
    no communication; the environments of a run do: for their sums, and for their steps only if
    minibatches are drawn from all of them or quantiles of weights are taken.
    """
    found = json.loads(printed(SHARDED, *names).splitlines()[-1])
    assert len(found) == 2 * len(names)
    for name, (params, metrics, returns, collectives) in found.items():
        assert params < 1e-5, name
        assert metrics == returns == 0.0, name
        assert ("all-reduce" in collectives) == name.endswith("envs"), name
        assert name in ("ppo envs", "vtrace envs") or set(collectives) <= {"all-reduce"}, name


LAYOUTS = """
import json
import jax
from pg.commands.options import Machine
from pg.fast import devices

def params(entries):
    return {"kernel": jax.ShapeDtypeStruct((entries, 1), "float32"),
            "bias": jax.ShapeDtypeStruct((10**6,), "float32")}

small, large = params(devices.SPREAD_KERNEL), params(devices.SPREAD_KERNEL + 1)
auto, two = Machine(shard="envs"), Machine(shard="envs", cpu_devices=2)
jax.config.update("jax_num_cpu_devices", 2)
found = {
    "small": auto.layout(1, 8, small),
    "large": auto.layout(1, 8, large),
    "uneven": auto.layout(1, 7, small),
    "unknown": auto.layout(9, 8),
    "small, so far one": auto.layout(1, 8, small, before=1),
    "large, so far two": auto.layout(1, 8, large, before=2),
    "asked, small": two.layout(1, 8, small),
    "asked, large": two.layout(1, 8, large, before=1),
    "seeds, large": Machine().layout(2, 8, large),
    "one seed": Machine().layout(1, 8, small),
}
print(json.dumps({name: [x.mesh.size, said] for name, (x, said) in found.items()}))
"""


def test_environments_are_spread_where_that_pays() -> None:
    """The choice depends on the shapes of the parameters alone, without vectors; requested devices
    are used, and a resumed run keeps its own. A sentence reports a choice that was not requested or
    is unlikely to pay.
    """
    found = json.loads(printed(LAYOUTS))
    expected = {
        "small": (2, "environments are spread over the 2 cores"),
        "large": (1, "on one device, as products with kernels of up to 65,537 weights"),
        "uneven": (1, "on one device, as the number of environments at a time, 7, is not a mult"),
        "unknown": (1, ""),
        "small, so far one": (1, ""),
        "large, so far two": (2, ""),
        "asked, small": (2, ""),
        "asked, large": (2, "spread over 2 devices, as requested; --cpu-devices 1 is about"),
        "seeds, large": (2, ""),
        "one seed": (1, ""),
    }
    assert {name: size for name, (size, _) in found.items()} == {
        name: size for name, (size, _) in expected.items()
    }
    for name, (_, beginning) in expected.items():
        said = found[name][1]
        assert said.startswith(beginning) if beginning else not said, name


SPREAD = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
import numpy as np
from pg.fast import devices

x = {"float": jnp.arange(24.0).reshape(3, 4, 2), "int": jnp.full((3, 4), 2**23 + 1)}
x |= {"more": jnp.ones((3, 4))}

def sums(x):
    return jax.tree.map(lambda leaf: leaf.sum((0, 1)), x)

with jax.set_mesh(devices.layout("envs").mesh):
    added = jax.jit(lambda x: devices.over_envs(sums, x, total=True)).lower(x).compile()
    jax.tree.map(np.testing.assert_array_equal, added(x), sums(x))
    def width(x):
        return jnp.full(x.shape, x.shape[1])
    widths = jax.jit(lambda x: devices.over_envs(width, x))(x["float"])
    np.testing.assert_array_equal(widths, jnp.full((3, 4, 2), 2))
print(added.as_text().count(" all-reduce("))
"""


def test_environments_are_shared_out() -> None:
    """Each of two devices has half of them; whole numbers are added as such, and what is of one
    type at once.
    """
    assert printed(SPREAD) == "2\n"


RESETS = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from pg.fast import devices, resets
from pg.presets import preset
from pg.runs import execution

where = devices.layout("envs")
config, h = preset("actor_critic", num_envs=4, num_steps=32, num_updates=2, hidden_sizes=(4,))

def trained(way):
    assert execution.way_of_resets(config, h, where, 1) == {"resets": way}
    done = execution.run(config, h, [0], layout=where)
    assert done.metrics["episodes"].min() > 0
    return done.metrics, done.states.params

ahead = trained("drawn ahead")
resets.NUMBERS = {"cpu": 0}
jax.tree.map(np.testing.assert_array_equal, ahead, trained("where ended"))
print(where.mesh.size)
"""


@pytest.mark.slow
def test_spread_environments_are_the_same_whichever_way_they_are_reset() -> None:
    """Each device resets its own environments, bit for bit."""
    assert printed(RESETS) == "2\n"


EXCHANGES = """
import re
import jax
jax.config.update("jax_num_cpu_devices", 2)
from pg.fast import devices
from pg.presets import preset
from pg.runs import execution

where = devices.layout("envs")
sizes = {"num_envs": 8, "num_steps": 16, "hidden_sizes": (8,)}
for changes in ({}, {"minibatch_size": 16}):
    config, h = preset("ppo", advantages="minibatch", **sizes, **changes)
    programs = execution.compile_programs(config, execution.broadcast(h, 1), where, 1)
    computations = programs.advance.as_text().split("\\n\\n")
    # that of a step adds up gradients, as one vector
    added = re.compile(r"psum.* = f32.\\d+. ?.*all-reduce")
    (step,) = [text for text in computations if added.search(text)]
    kinds = "all-reduce|all-gather|all-to-all|collective-permute"
    print(len(re.findall(rf" (?:{kinds})\\(", step)))
"""


@pytest.mark.slow
def test_devices_exchange_gradients_alone_in_a_minibatch_step() -> None:
    """With standardised advantages they communicated eight times, for means over the minibatch."""
    assert printed(EXCHANGES).split() == ["1", "1"]


def start(
    out: Path, *flags: str, processes: int = 1, updates: int = 4, seeds: int = 4
) -> list[subprocess.Popen[str]]:
    """The sweep as one process or as several of one job."""
    command = [
        *SWEEP,
        "--out",
        str(out),
        "--num-updates",
        str(updates),
        "--seeds",
        str(seeds),
        *flags,
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = [
        "--coordinator",
        f"127.0.0.1:{port}",
        "--num-processes",
        str(processes),
        "--process-id",
    ]
    jobs = [[*command, *several, str(i)] for i in range(processes)] if processes > 1 else [command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen(job, env=ENVIRONMENT, **pipes) for job in jobs]  # type: ignore[call-overload]


def finished(jobs: list[subprocess.Popen[str]], seconds: float = 300) -> list[str]:
    """The outputs of the processes, all of which have succeeded."""
    texts = [job.communicate(timeout=seconds)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * len(jobs), texts
    return texts


def the_runs(out: Path) -> dict[str, np.ndarray]:
    """The rows of the one sweep below `out`."""
    (folder,) = out.glob("*/*/sweep-*")
    return sweeps.read_runs(folder)


@pytest.mark.acceptance("D8")
@pytest.mark.slow
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


@pytest.mark.slow
def test_a_dead_process_ends_the_job_and_the_next_goes_on(tmp_path: Path) -> None:
    long = {"processes": 2, "updates": 40, "seeds": 10}
    jobs = start(tmp_path, **long)
    deadline = time.monotonic() + 120
    while (
        len(list(tmp_path.glob("*/*/sweep-*/runs/*.parquet"))) < 2 and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.kill(jobs[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    text = jobs[0].communicate(timeout=60)[0]
    assert time.monotonic() - killed < 30
    assert jobs[0].returncode == cli.AGAIN, text
    assert "error: another process of this job has ended; start all of them again" in text
    jobs[1].communicate()
    kept = len(the_runs(tmp_path)["run"])
    assert 4 <= kept < 40
    texts = finished(start(tmp_path, **long))
    assert f"{kept} of 40 runs are finished" in texts[0]
    assert len(the_runs(tmp_path)["run"]) == 40


@pytest.mark.slow
@pytest.mark.acceptance("D0")
def test_sixty_processes_on_two_devices_end(tmp_path: Path) -> None:
    """No hang, and the same bits sixty times: batched LAPACK calls and shared predicates could
    deadlock here.
    """
    for i in range(60):
        finished(start(tmp_path / str(i), "--cpu-devices", "2"), seconds=30)
    first = the_runs(tmp_path / "0")
    for i in range(1, 60):
        np.testing.assert_array_equal(first["mean"], the_runs(tmp_path / str(i))["mean"])


TWO_DEVICES = """
import json, time
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from pg.fast import devices
from pg.runs import execution
from pg.config import Config, Hyperparams

sizes = {"num_envs": 8, "num_steps": 32, "num_updates": 30, "hidden_sizes": (16,)}
config = Config(estimator="gae", collect="windows", **sizes)
found, seconds = [], []
for where in (devices.layout(most=1), devices.layout()):
    h = execution.broadcast(Hyperparams(), 16)
    programs = execution.compile_programs(config, h, where, 16)
    keys = execution.seed_keys(range(16))[0]
    took = []
    for _ in range(4):
        began = time.monotonic()
        states = devices.fetch(execution.train(programs, keys, h).states.params, where)
        took.append(time.monotonic() - began)
    found.append(jax.tree.leaves(states))
    seconds.append(min(took))
gap = max(float(np.abs(a - b).max()) for a, b in zip(*found))
print(json.dumps([jax.device_count(), gap, seconds[1] / seconds[0]]))
"""


@pytest.mark.slow
@pytest.mark.acceptance("D8")
def test_two_devices_compute_what_one_does() -> None:
    """16 seeds, 30 updates: parameters within 1e-5, in at most twice the time."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO_DEVICES]
    out = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    count, gap, ratio = np.fromstring(out.stdout.splitlines()[-1].strip("[]"), sep=",")
    assert count == 2
    assert gap <= 1e-5
    assert ratio <= 2.0
