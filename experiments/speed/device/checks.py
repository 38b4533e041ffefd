"""Checks that the device computes the same as the CPU, reproducibly, and without the host."""

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from device.plan import PRECISIONS
from device.training import setting
from pg import envs, networks, rollout
from pg.config import Hyperparams
from pg.estimators import ESTIMATORS, Params
from pg.fast import devices
from pg.runs import execution
from pg.train import make_learner, make_train

OF_PROOFS = 1e-10  # the largest difference of an entry of a mean
OF_UPDATES = 1e-8  # the largest share of a step, in float64
OF_GRADIENTS = 1e-4  # the largest share of a gradient, in float32
TURNS = 5  # in which programs are timed
# Operations in a program's text that exchange data with the host.
_HOST = re.compile(r" (?:infeed|outfeed|send|recv)\(|is_host_transfer=true|callback")


def proof(name: str) -> dict[str, Any]:
    """The mean of an estimate over every trajectory, against its value in the table of proofs."""
    cases = importlib.import_module("proofs").CASES  # of tests/helpers
    row = next(case for case in cases if str(case) == name)
    found = np.asarray(row.moments()[0])
    if found.dtype != np.float64:
        raise TypeError(f"the mean is {found.dtype}, not float64")
    expected = row.expected()
    return _verdict(float(np.abs(found.reshape(expected.shape) - expected).max()), OF_PROOFS)


def _verdict(difference: float, bound: float) -> dict[str, Any]:
    verdict = "within" if difference <= bound else "NOT WITHIN"
    return {"difference": difference, "bound": bound, "verdict": verdict}


def update(estimator: str, num_envs: int) -> dict[str, Any]:
    """The parameters after an update on CartPole, on the CPU and on the device, in float64."""
    config = setting("CartPole", estimator, num_envs, 16, optimizer="sgd")
    learner = make_learner(config)
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    state = on(cpu, learner.init, jax.random.key(0))
    after = [
        on(where, lambda *args: learner.step(*args)[0].params, state, jax.random.key(1))
        for where in (cpu, device)
    ]
    before, here, there = (flat(tree) for tree in (state.params, *after))
    if here.dtype != np.float64:
        raise TypeError(f"the parameters are {here.dtype}, not float64")
    return _verdict(share(there - here, here - before), OF_UPDATES)


def gradient(task: str, num_envs: int, horizon: int) -> dict[str, Any]:
    """REINFORCE's gradient of the same episodes, on the CPU and on the device, in float32."""
    grad, params, traj = _episodes(task, num_envs, horizon)
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    with jax.default_matmul_precision("float32"):
        here, there = (flat(on(where, grad, params, traj)) for where in (cpu, device))
    return _verdict(share(there - here, here), OF_GRADIENTS)


def _episodes(
    task: str, num_envs: int, horizon: int, **changes: Any
) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """REINFORCE's gradient as a function of parameters and episodes; the parameters and the
    episodes, which are collected on the CPU.
    """
    config = setting(task, "reinforce", num_envs, horizon, **changes)
    env = envs.configured(config, num_envs)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    actor = networks.actor(policy, critic)
    estimator = ESTIMATORS["reinforce"](policy, critic, Hyperparams())
    cpu = jax.devices("cpu")[0]
    params = on(cpu, lambda key: Params(policy.init(key), ()), jax.random.key(0))

    def collect(params: Any, key: jax.Array) -> Any:
        return rollout.episodes(env, actor, params, key, config.horizon)

    def grad(params: Any, traj: Any) -> Any:
        return estimator.grad(params, estimator.weigh(params, (), traj)[0])[0].policy

    return grad, params, on(cpu, collect, params, jax.random.key(1))


def on(device: Any, f: Callable[..., Any], *args: Any) -> Any:
    """The result of a function that is compiled for a device, on the CPU."""
    with jax.default_device(device):
        result = jax.jit(f)(*jax.device_put(args, device))
    return jax.device_put(result, jax.devices("cpu")[0])


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree."""
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def share(difference: np.ndarray, whole: np.ndarray) -> float:
    """The norm of a difference as a share of another norm. Raises ValueError if that is 0."""
    norm = np.linalg.norm(whole)
    if norm == 0:
        raise ValueError("there is nothing to compare: all numbers are 0")
    return float(np.linalg.norm(difference) / norm)


def precision(
    task: str, hidden_sizes: Sequence[int], num_envs: int, horizon: int
) -> dict[str, float]:
    """REINFORCE's gradient at each matmul precision: its error and its time."""
    sizes = {"hidden_sizes": tuple(hidden_sizes)}
    grad, params, traj = _episodes(task, num_envs, horizon, **sizes)
    args = jax.device_put((params, traj), jax.devices()[0])
    programs = {}
    for name in PRECISIONS:
        with jax.default_matmul_precision(name):
            # a separate function for each, as jax caches the trace of one
            programs[name] = jax.jit(lambda *args: grad(*args)).lower(*args).compile()
    results = {name: flat(program(*args)) for name, program in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for _ in range(TURNS):
        for name, program in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program(*args))
            seconds[name].append(time.perf_counter() - started)
    exact = results["float32"]
    return {
        **{f"difference_{name}": share(results[name] - exact, exact) for name in PRECISIONS},
        **{f"milliseconds_{name}": 1e3 * float(np.median(x)) for name, x in seconds.items()},
    }


def chunk(task: str, estimator: str, num_envs: int) -> dict[str, str]:
    """Donated arrays and transfers of the chunk of updates that `pg train` calls."""
    programs, states, rest = _chunk(setting(task, estimator, num_envs, 16, num_updates=2), 1)
    before = jax.tree.leaves(states)
    try:
        with jax.transfer_guard("disallow"):
            result = programs.advance(states, *rest)
        transfers = "none"
    except Exception as error:
        transfers = next(iter(str(error).splitlines()), "")
        result = programs.advance(states, *rest)
    jax.block_until_ready(result)
    donated = sum(leaf.is_deleted() for leaf in before)
    return {
        "donated": f"{donated} of {len(before)}",
        "transfers": transfers,
        "host_operations": str(len(_HOST.findall(programs.advance.as_text()))),
    }


def _chunk(config: Any, seeds: int) -> tuple[Any, Any, tuple[Any, ...]]:
    """The programs of runs, their first states, and the other arguments of a chunk, on the
    device.
    """
    h = execution.broadcast(config.hyperparams(), seeds)
    layout = devices.layout(most=1)
    programs = execution.compile_programs(config, h, layout, seeds, length=2)
    keys = np.asarray(jax.random.key_data(execution.seed_keys(range(seeds))[0]))
    placed, settings = devices.place((keys, h), layout.sharding)
    count = devices.place(np.int32(2), layout.everywhere)
    states = programs.init(placed, settings)
    return programs, jax.block_until_ready(states), (placed, settings, count)


def memory(estimator: str, seeds: int, num_envs: int, num_steps: int) -> dict[str, Any]:
    """Megabytes of a seed: the planner's forecast, and the most that was in use."""
    device = jax.devices()[0]
    before = (device.memory_stats() or {}).get("bytes_in_use")
    config = setting("CartPole", estimator, num_envs, num_steps, num_updates=2)
    programs, states, rest = _chunk(config, seeds)
    jax.block_until_ready(programs.advance(states, *rest))
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    forecast = programs.num_bytes / seeds / 1e6
    if before is None or peak is None:
        unknown = "no figure of this device"
        return {"forecast": forecast, "measured": unknown, "ratio": unknown}
    measured = (peak - before) / seeds / 1e6
    return {"forecast": forecast, "measured": measured, "ratio": measured / forecast}


def bits(flags: str, estimators: Sequence[str], **size: int) -> dict[str, str]:
    """Compares the states of two processes, for each estimator."""
    own = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # two share the device
    }
    command = [sys.executable, "-m", "device.checks", json.dumps([list(estimators), size])]
    pair = [
        subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [process.communicate()[0] for process in pair]
    if failed := [process.returncode for process in pair if process.returncode]:
        raise RuntimeError(f"a process ended with code {failed[0]}")
    first, second = (json.loads(answer.splitlines()[-1]) for answer in answers)
    return {name: "equal" if first[name] == second[name] else "they differ" for name in estimators}


def digests(
    estimators: Sequence[str], num_envs: int, num_steps: int, num_updates: int
) -> dict[str, str]:
    """A digest of the state after training, of each estimator."""
    found = {}
    for name in estimators:
        config = setting("CartPole", name, num_envs, num_steps, num_updates=num_updates)
        state, _ = jax.jit(make_train(config))(jax.random.key(0))
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(jax.device_get(state)):
            digest.update(np.asarray(leaf).tobytes())
        found[name] = digest.hexdigest()
    return found


if __name__ == "__main__":
    names, size = json.loads(sys.argv[1])
    print(json.dumps(digests(names, **size)))
