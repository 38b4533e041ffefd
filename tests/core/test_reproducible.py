"""The same seed, machine and software: the same bits, in any process, on any core, however a run is
cut.
"""

import json
import os
import socket
import subprocess
import sys

import golden
import jax
import pytest

PROCESS = """
import os, sys
os.sched_setaffinity(0, set(map(int, sys.argv[1].split(","))))
import golden, jax
from pg import make_train, preset
small = {"num_updates": 100, "num_envs": 4, "num_steps": 8, "hidden_sizes": (8,)}
config, hyperparams = preset("actor_critic", **small)
print(golden.digest(jax.jit(make_train(config))(jax.random.key(0), hyperparams)))
"""

# Prints a digest of the state after 200 × 1, 20 × 10, 2 × 100 and 1 × 200 updates, with one
# program, and after the one scan of the exact mode.
CUT = """
import golden, jax
import numpy as np
from pg import make_train, preset
from pg.fast import devices
from pg.runs import execution
small = {"num_updates": 200, "num_envs": 4, "num_steps": 8, "hidden_sizes": (8,)}
config, hyperparams = preset("actor_critic", **small)
h = execution.broadcast(hyperparams, 1)
where = devices.layout(most=1)
programs = execution.compile_programs(config, h, where, 1, exact=True, length=200)
keys, _ = execution.seed_keys([0])
data = np.asarray(jax.random.key_data(keys))
for count in (1, 10, 100, 200):
    states = programs.init(data, h)
    for _ in range(200 // count):
        states, _ = programs.advance(states, data, h, np.int32(count))
    print(golden.digest(states))
state, _ = jax.jit(make_train(config))(keys[0], hyperparams)
print(golden.digest(jax.tree.map(lambda x: np.asarray(x)[None], state)))
"""


# Prints digests of the gradients of dense layers over 2048 rows and over 256. XLA spreads a program
# over NPROC threads.
GRADIENTS = """
import golden, jax, jax.numpy as jnp
from pg.layers import dense
def gradient(steps, inputs, outputs):
    layer, std = dense.dense(outputs, 1.0), jnp.zeros(outputs)
    x, weight = (jax.random.normal(jax.random.key(n), (steps, 128, n)) for n in (inputs, outputs))
    params = layer.init(jax.random.key(0), x)
    def loss(params, std):
        output = jnp.tanh(layer.apply(params, x) + dense.over_rows(std, x.shape[:-1]))
        return jnp.sum(weight * output)
    return jax.jit(jax.grad(loss, (0, 1)))(params, std)
layers = [(64, 64), (4, 64), (64, 2), (64, 400), (64, 1024), (300, 300)]
print(*(golden.digest(gradient(16, *sizes)) for sizes in layers))
print(*(golden.digest(gradient(2, *sizes)) for sizes in [(64, 64), (64, 256), (64, 1024)]))
"""


@pytest.mark.acceptance("D1")
def test_gradients_of_blocks_on_any_number_of_cores() -> None:
    command, where = [sys.executable, "-c", GRADIENTS], os.path.dirname(golden.__file__)
    found = [
        subprocess.run(
            command,
            cwd=where,
            env={**_with_the_users_compiler(), "NPROC": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for threads in (1, 2, 16)
    ]
    assert [len(digests) for digests in found] == [9, 9, 9]
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.acceptance("D1")
@pytest.mark.parametrize("times", [5])
def test_fresh_processes_on_one_core_or_two(times: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    places = [str(cores[0]), ",".join(map(str, cores[:2]))] * times
    command = [sys.executable, "-c", PROCESS]
    where = os.path.dirname(golden.__file__)
    found = [
        subprocess.run(
            [*command, place], cwd=where, capture_output=True, text=True, check=True
        ).stdout
        for place in places
    ]
    assert len(set(found)) == 1
    assert len(found[0]) == 65


@pytest.mark.acceptance("D2")
def test_however_a_run_is_cut() -> None:
    found = subprocess.run(
        [sys.executable, "-c", CUT],
        cwd=os.path.dirname(golden.__file__),
        env=_with_the_users_compiler(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(found) == 5
    assert len(set(found)) == 1


@pytest.mark.slow
@pytest.mark.acceptance("D3")
def test_the_bits_of_this_machine_are_those_that_were_kept() -> None:
    """The digests of four algorithms, where this software has run on this processor before.

    They cannot tell why they differ: `git bisect` finds the commit, and only its author whether
    that was meant.
    """
    known = json.loads(golden.FILE.read_text())
    assert all(set(found) == set(golden.ALGORITHMS) for found in known.values())
    if golden.key() not in known:
        pytest.skip(
            "these versions on this processor are new: `python tests/helpers/golden.py` adds them"
        )
    now, before = golden.digests(), known[golden.key()]
    moved = [name for name in golden.ALGORITHMS if now[name] != before[name]]
    assert not moved, (
        f"other bits than those kept: {', '.join(moved)}; where meant, `python "
        f"tests/helpers/golden.py` keeps them"
    )


@pytest.mark.slow
@pytest.mark.acceptance("D7")
def test_a_gpu_that_is_told_to_repeats_itself() -> None:
    """Three processes with --xla_gpu_deterministic_ops=true."""
    if jax.default_backend() != "gpu":
        pytest.skip("there is no GPU here")
    environment = {**os.environ, "XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    command, where = [sys.executable, "-c", PROCESS, "0,1"], os.path.dirname(golden.__file__)
    run = {"cwd": where, "env": environment, "capture_output": True, "text": True, "check": True}
    assert len({subprocess.run(command, **run).stdout for _ in range(3)}) == 1  # type: ignore[call-overload]


def _with_the_users_compiler() -> dict[str, str]:
    """The environment of a process whose compiler is that of users, as these are tests of its bits:
    the fast tests ask it for less.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    return {
        **os.environ,
        "XLA_FLAGS": " ".join(flag for flag in flags if not flag.startswith("--xla_cpu_")),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
    }


@pytest.mark.acceptance("S5")
def test_the_network_is_not_asked() -> None:
    """The fixture of tests/conftest.py, under which all tests of this process run."""
    with pytest.raises(AssertionError, match="a test connects to"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
