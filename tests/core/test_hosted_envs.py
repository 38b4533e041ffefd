"""Environments of the host: training sees what the environments did, step by step; one call for all
of them; restored states; worker processes.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import rollout
from pg.commands import cli, job, tune
from pg.config import Config
from pg.envs import configured, make_env
from pg.envs.adapters import base, hosted, make, python_envs
from pg.envs.adapters.gymnasium import adapt
from pg.envs.adapters.hosts import KEPT, Host, HostError, Outcome
from pg.envs.adapters.python_envs import PythonFleet, Recipe
from pg.fast import devices
from pg.fast.cores import num_cores
from pg.networks import make_policy
from pg.runs import checkpoints, execution, folders, host_states, interrupts, sweeps
from pg.runs.interrupts import Interrupted
from pg.seeds import seed_key
from pg.settings import own_files
from pg.sweep import SweepSpec, driver
from pg.sweep import spec as specs
from pg.sweep.search import Budget, Halving, Search, run_search
from pg.train import make_learner, training_keys

HOW = cli.Checkpointing()
TINY: dict[str, Any] = {
    "estimator": "actor_critic",
    "collect": "windows",
    "num_envs": 3,
    "num_steps": 7,
    "hidden_sizes": (4,),
    "preset": None,
}


class Logged(gymnasium.Env):
    """A walk that keeps what it did; it ends beyond 2, and is cut at 4 steps to the left."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    all: list["Logged"] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.place = np.zeros(2, np.float32)  # given away, and written over, also by a reset
        self.is_closed = False
        Logged.all.append(self)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place[:] = self.np_random.random(2)
        self.left = 0
        self.log.append(("reset", self.place.copy()))
        return self.place, {}

    def step(self, action: Any) -> Any:
        self.left += action == 0
        self.place += [action, self.np_random.random()]
        results = self.place.copy(), float(self.place.sum()), self.place[0] > 2, self.left == 4
        self.log.append((action, *results))
        return self.place, results[1], bool(results[2]), bool(results[3]), {}

    def close(self) -> None:
        self.is_closed = True


def windows(env: Any, num_windows: int = 4, **settings: Any) -> Any:
    """Windows in a row of a policy that does not learn, [T, B, ...], and the adapter."""
    config = Config(**{**TINY, "env": env, **settings})
    envs = configured(config, config.num_envs, restarting=True)
    policy = make_policy(config, envs)
    collector = rollout.make_collector(config, envs)
    params = policy.init(jax.random.key(0))

    def window(state: Any, key: Any) -> Any:
        collected = collector.collect(policy, params, key, state)
        return collected.state, collected.traj.without_carry

    keys = jax.random.split(jax.random.key(2), num_windows)
    state = collector.init(policy, jax.random.key(1))
    _, traj = jax.jit(lambda s: jax.lax.scan(window, s, keys))(state)
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), traj)


@pytest.mark.parametrize("horizon", [None, 3])
@pytest.mark.parametrize("limit", [5, 100])
def test_windows_are_what_the_environments_did(limit: int, horizon: int | None) -> None:
    """Step by step: observations, actions, rewards, both kinds of ends, true successors; and no
    reset but at the ends.
    """
    Logged.all.clear()
    adapted = adapt(Logged, "Logged", limit)
    traj = windows(adapted, horizon=horizon)
    assert adapted.host.recalled == 0
    logs = [env.log for env in Logged.all if any(row[0] != "reset" for row in env.log)]
    for b in range(3):
        (log,) = [x for x in logs if any(np.array_equal(row[1], traj.obs[0, b]) for row in x)]
        rows = iter(log)
        started = next(row for row in rows if np.array_equal(row[1], traj.obs[0, b]))
        assert started[0] == "reset"
        obs, steps = started[1], 0
        for t in range(len(traj.obs)):
            action, place, reward, terminated, truncated = next(rows)
            steps += 1
            is_cut = steps == min(limit, horizon or limit)
            np.testing.assert_array_equal(traj.obs[t, b], obs)
            np.testing.assert_array_equal(traj.next_obs[t, b], place)
            assert traj.action[t, b] == action
            assert traj.reward[t, b] == np.float32(reward)
            assert traj.terminated[t, b] == terminated
            assert traj.truncated[t, b] == (truncated or is_cut)
            assert traj.first[t, b] == (steps == 1)
            obs = place
            if terminated or truncated or is_cut:
                kind, obs = next(rows)
                assert kind == "reset"
                steps = 0
        assert next(rows, None) is None
    ends = traj.terminated.any(), (traj.truncated & ~traj.terminated).any()
    assert all(ends) or horizon


def calls_of(host: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each call of the host's step from now on."""
    rows: list[int] = []
    advance = host.advance

    def counted(out: Any, numbers: Any, *args: Any) -> None:
        rows.append(len(numbers))
        advance(out, numbers, *args)

    monkeypatch.setattr(host, "advance", counted)
    return rows


def test_one_call_for_all_environments_of_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = adapt(Logged, "Logged", 9)
    env = make_env(adapted, 3, restarting=True)
    rows = calls_of(adapted.host, monkeypatch)

    def run(key: Any) -> Any:
        state, _ = env.reset(key)
        keys = jax.random.split(key, 5)
        actions = jnp.zeros(3, int)
        return jax.lax.scan(lambda s, k: env.step(k, s, actions), state, keys)[1].next_obs

    keys = jax.random.split(jax.random.key(3), 2)
    both = jax.jit(jax.vmap(run))(keys)
    both.block_until_ready()
    assert rows == [6] * 5
    each = [jax.jit(run)(key) for key in keys]
    np.testing.assert_array_equal(both, np.stack(each))


def test_other_devices_than_a_cpu_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As their callbacks are given copies of the arrays."""
    on_cpu = windows(adapt(Logged, "Logged", 9), 2)
    monkeypatch.setattr(hosted, "_is_on_cpu", lambda: False)
    jax.tree.map(np.testing.assert_array_equal, windows(adapt(Logged, "Logged", 9), 2), on_cpu)


def test_environments_are_let_go_of() -> None:
    """Those of finished episodes, and those that were not used for long."""
    Logged.all.clear()
    adapted = adapt(Logged, "Logged", 3)
    env = make_env(adapted, 2)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    for i in range(2 * KEPT):
        state, _ = reset(jax.random.key(i))
        for _ in range(3 if i % 2 else 1):
            state, steps = step(jax.random.key(0), state, jnp.zeros(2, int))
    jax.block_until_ready(steps)
    assert len(Logged.all) <= KEPT + 4
    assert len(adapted.host.present) <= KEPT
    assert len(adapted.host.ended) <= KEPT


class Forward:
    """A fleet whose environments cannot go back to a state, and count their steps."""

    name = "forward"

    def begin(self, seeds: Any) -> Any:
        return [([0], [np.zeros(1)]) for _ in seeds]

    def step(self, slots: Any, actions: Any, last: Any, seeds: Any) -> Any:
        for slot in slots:
            slot[0] += 1
        return [Outcome([np.full(1, slot[0])]) for slot in slots]

    def replay(self, seeds: Any, pasts: Any) -> Any:
        if seeds:
            raise HostError("forward cannot go back")
        return []

    def release(self, slot: Any) -> None:
        slot[0] = -1


@pytest.mark.parametrize(("num_batches", "rows"), [(1, 1025), (3, 32), (4, 512)])
def test_batches_in_turn_step_from_where_they_are(num_batches: int, rows: int) -> None:
    """They need no history, however large they are."""
    host = Host(Forward(), [np.float32])  # type: ignore[arg-type]

    def room() -> list[np.ndarray]:
        return [np.zeros((rows, 2), np.uint32), np.zeros(rows, np.uint32), np.zeros((rows, 1))]

    batches = []
    for _ in range(num_batches):
        out = room()
        host.reset(out, np.arange(rows))
        batches.append(out[0])
    for step in (1, 2):
        for i, numbers in enumerate(batches):
            is_unknown, *out = (
                np.ones((), bool),
                *room(),
                np.zeros(rows),
                *np.zeros((2, rows), bool),
            )
            limits, no_seeds, actions = np.full(rows, 9), np.zeros(0, np.uint32), np.zeros(rows)
            host.advance([is_unknown, *out], numbers, limits, no_seeds, actions)
            assert not is_unknown
            np.testing.assert_array_equal(out[2], step)
            batches[i] = out[0]
    assert host.recalled == 0


class Overwriting(Forward):
    """A fleet that writes every observation into one array, and repeats episodes of one step."""

    def __init__(self) -> None:
        self.seen = np.zeros(1, np.float32)

    def replay(self, seeds: Any, pasts: Any) -> Any:
        self.seen[:] = 1
        return [([0], Outcome([self.seen], terminated=True)) for _ in seeds]


def test_the_observation_of_an_ended_state_is_kept_when_it_is_brought_back() -> None:
    fleet = Overwriting()
    host = Host(fleet, [np.float32])  # type: ignore[arg-type]
    check = host._check([np.ones(1, np.float32)])
    (key,) = host.bring_back(
        np.array([[7, 0]], np.uint32),
        np.zeros(1, int),
        np.ones(1, int),
        np.array([check], np.uint32),
        [np.zeros((1, 1))],
    )
    fleet.seen[:] = 99  # of another episode
    np.testing.assert_array_equal(host.ended[key].seen, [[1]])


def test_environments_that_cannot_be_sent_to_workers_stay() -> None:
    lock = threading.Lock()

    def build() -> Logged:
        with lock:
            return Logged()

    fleet = PythonFleet(Recipe(build, "Locked"), build())
    fleet.seconds = 1.0  # so that workers would pay
    assert len(fleet.begin(range(8))) == 8
    assert len(fleet.members) == 1
    asked_for = PythonFleet(Recipe(build, "Locked"), build(), workers=2)
    with pytest.raises(
        HostError, match="the constructor of Locked cannot be sent to workers: TypeErr"
    ):
        asked_for.begin([0])


def test_workers_have_the_environments_of_large_calls_alone() -> None:
    fleet = PythonFleet(Recipe(Logged, "Logged"), Logged())
    fleet.seconds = 1e-5
    fleet.members += [fleet.members[0]] * 2  # in the place of two workers
    fleet.idle += [[], []]
    fleet.made += [0, 0]
    assert {slot.member for slot in fleet._places(8)} == {0}
    assert {slot.member for slot in fleet._places(1000)} == {1, 2}


HILL = """
import gymnasium
import numpy as np


class Hill(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), float(action), False, self.steps == 3, {}


def make_hill():
    return Hill()


hill = Hill()
"""


def test_a_class_of_gymnasium_in_a_file_is_an_environment(tmp_path: Path) -> None:
    file = tmp_path / "hill.py"
    file.write_text(HILL)
    for name in ("Hill", "make_hill"):
        env = own_files.load(f"{file}:{name}", "env")
        assert env.name == f"gymnasium:{name}"
        assert own_files.load(f"{file}:{name}", "env") is env
        config = Config(env=env, estimator="gae", num_envs=2, num_steps=4, num_updates=1)
        assert execution.run(config, None, [0]).finished
    with pytest.raises(ValueError, match=r"got Hill of Gymnasium: write .*adapt\(Hill, 'Hill'"):
        Config(env=own_files.load(f"{file}:hill", "env"))
    with pytest.raises(ValueError, match="name must be of a library and an environment"):
        make(env)


def test_a_module_that_registers_environments_may_be_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    register = "gymnasium.register('Registered-v0', Hill, max_episode_steps=7)"
    (tmp_path / "registering_hill.py").write_text(f"{HILL}\n{register}\n")
    env = make("gymnasium:registering_hill:Registered-v0")
    assert env.default_params.max_steps_in_episode == 7
    with pytest.raises(
        ValueError, match=r"no module nowhere_at_all, which should register .*folder"
    ):
        make("gymnasium:nowhere_at_all:Registered-v0")
    (tmp_path / "lacking_hill.py").write_text("import nowhere_at_all")
    with pytest.raises(ValueError, match=r"ModuleNotFoundError.*pip install nowhere_at_all"):
        make("gymnasium:lacking_hill:Registered-v0")


def test_another_horizon_than_the_environments_have_is_refused() -> None:
    env = make_env(adapt(Logged, "Logged", 9), 2, restarting=True, horizon=5)
    policy = make_policy(Config(**TINY, env="CartPole-v1"), env)
    key = jax.random.key(0)
    params, state = policy.init(key), rollout.start(env, policy, key)
    with pytest.raises(ValueError, match="after 5 steps at the latest, and the horizon is 3"):
        rollout.windows(env, policy, params, key, state, 4, horizon=3)


class Clock(Logged):
    """One whose observations are not those of its seed and its actions."""

    ticks = 0

    def step(self, action: Any) -> Any:
        Clock.ticks += 1
        _, *rest = super().step(action)
        return np.full(2, Clock.ticks, np.float32), *rest


def test_a_state_that_does_not_come_back_is_an_error_and_no_other_state() -> None:
    env = make_env(adapt(Clock, "Clock", 9), 1)
    state, _ = env.reset(jax.random.key(0))
    actions = jnp.ones(1, int)
    once, _ = env.step(jax.random.key(1), state, actions)
    twice, _ = env.step(jax.random.key(1), once, actions)  # forward it goes well
    env.step(jax.random.key(1), twice, actions)
    with (
        pytest.raises(base.HostError, match=r"^Clock does not repeat itself: after a reset with"),
        base.faults_in_one_sentence(),
    ):
        jax.block_until_ready(env.step(jax.random.key(1), once, actions)[1].reward)


def taken_up(config: Config, partial: Any, num_runs: int = 1) -> Any:
    """A run of seed 0, with copies of it, as it resumes from a checkpoint."""
    keys = execution.filled_up(execution.seed_keys([0])[0], num_runs)
    found = checkpoints.Restored(partial, [], [])
    return host_states.taken_up(config, config.hyperparams(), found, keys)


def trained(env: Any, num_updates: int, partial: Any = None) -> tuple[Any, Any]:
    """A run, and its checkpoint at the end; for a resumed one, the changes since."""
    config = Config(**TINY, env=env, num_updates=num_updates, schedule="constant")
    found = taken_up(config, partial) if partial else None
    kept = {}

    def keep(done: int, states: Any, metrics: Any, last: bool) -> None:
        rows.append(metrics)
        kept[done] = execution.PartialRun(states(), execution.joined(rows))

    rows: list[Any] = [partial.metrics] if partial else []
    run = execution.run(config, None, [0], on_checkpoint=keep, partial=found and found.partial)
    return run, found.changed if found else kept[num_updates]


def test_a_run_goes_on_bit_for_bit_where_its_environments_repeat_themselves() -> None:
    def adapted() -> Any:  # another process has another host
        return adapt(Logged, "Logged", 9)

    whole, _ = trained(adapted(), 6)
    _, half = trained(adapted(), 3)
    assert half.states.rollout.time.any()  # some episodes are unfinished
    rest, changed = trained(adapted(), 6, half)
    assert not changed
    for name, x in whole.metrics.items():
        np.testing.assert_array_equal(x, rest.metrics[name], name)
    jax.tree.map(np.testing.assert_array_equal, whole.states.params, rest.states.params)


def test_unfinished_episodes_that_cannot_be_taken_up_are_begun_anew() -> None:
    _, half = trained(adapt(Clock, "Clock", 9), 3)
    config = Config(**TINY, env=adapt(Clock, "Clock", 9), num_updates=6)
    found = taken_up(config, half)
    (reason,) = found.changed
    assert reason.startswith("unfinished episodes were restarted: Clock does not repeat itself")
    fresh = found.partial
    assert half.states.rollout.time.any()
    assert not fresh.states.rollout.time.any()
    jax.tree.map(np.testing.assert_array_equal, fresh.states.params, half.states.params)
    # of this update: another run from here begins others
    again = taken_up(config, half).partial
    np.testing.assert_array_equal(fresh.states.rollout.obs, again.states.rollout.obs)
    init_key, _ = training_keys(seed_key(0), 0, 0)
    at_start = make_learner(config, config.hyperparams()).init(init_key).rollout
    assert not np.array_equal(fresh.states.rollout.obs[0], at_start.obs)
    assert execution.run(config, None, [0], partial=fresh).finished


def test_copies_of_a_run_have_environments_of_their_own() -> None:
    """Copies fill up a chunk of a sweep; no step brings them back from their history."""
    elsewhere = Config(**TINY, env=adapt(Logged, "Logged", 9))
    learner = make_learner(elsewhere, elsewhere.hyperparams())
    states = jax.tree.map(lambda x: np.asarray(x)[None], jax.jit(learner.init)(jax.random.key(0)))
    partial = execution.PartialRun(states, {"env_steps": np.zeros((1, 0), np.int32)})
    env = adapt(Logged, "Logged", 9)
    found = taken_up(Config(**TINY, env=env), partial, num_runs=3)
    is_play = lambda x: isinstance(x, hosted.Play)  # noqa: E731
    leaves = jax.tree.leaves(found.partial.states.rollout, is_leaf=is_play)
    (numbers,) = [np.asarray(leaf.number) for leaf in leaves if is_play(leaf)]
    assert numbers.shape == (3, TINY["num_envs"], 2)
    assert len({tuple(number) for number in numbers.reshape(-1, 2)}) == 3 * TINY["num_envs"]
    assert env.host.recalled == 3 * TINY["num_envs"]
    assert not found.changed


class Interrupting(cli.Progress):
    """Sends Ctrl-C at the third call."""

    calls = 0

    def __call__(self, *args: Any) -> None:
        super().__call__(*args)
        Interrupting.calls += 1
        if Interrupting.calls == 3:
            os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the context, training is interrupted at its third progress report, and no other
    training is.
    """
    Interrupting.calls = 0
    with monkeypatch.context() as patched, signals_restored():
        patched.setattr(cli, "Progress", Interrupting)
        # a test's process may ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Restores the handlers of the test process."""
    before = {signum: signal.getsignal(signum) for signum in interrupts.SIGNALS}
    hook = sys.unraisablehook
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for signum, handler in before.items():
            signal.signal(signum, handler)


def interrupted_sweep(env: Any, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of three runs in two chunks, the second of which is interrupted after an update."""
    with pytest.raises(Interrupted), interrupting(monkeypatch):
        driver.run(sweep_of(env), folder, devices.layout(most=1), HOW, width=2)


def sweep_of(env: Any) -> SweepSpec:
    config = Config(**TINY, env=env, num_updates=2, schedule="constant")
    rates = {"learning_rate": [1e-3, 1e-2, 1e-1]}
    return SweepSpec(config, config.hyperparams(), rates, range(1), episodes=2)


def test_a_sweep_begins_unfinished_episodes_anew_where_it_must(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reports and records this once, with the other changes."""
    environment = folders.environment
    with monkeypatch.context() as patched:
        patched.setattr(folders, "environment", lambda *args: {**environment(*args), "jax": "0"})
        interrupted_sweep(adapt(Clock, "Clock", 9), tmp_path, patched)
    assert len(sweeps.read_runs(tmp_path)["run"]) == 2
    driver.run(sweep_of(adapt(Clock, "Clock", 9)), tmp_path, devices.layout(most=1), HOW)
    assert "unfinished episodes were restarted" in capsys.readouterr().out
    assert np.isfinite(sweeps.read_runs(tmp_path)["mean"]).all()
    versions = specs.stored_versions(tmp_path)
    assert "a resumed run" in versions["environments"]
    (entry,) = versions["resumed"]
    assert (entry["runs"], entry["after"]) == ([2, 2], 1)
    version, episodes = entry["changed"]
    assert version.startswith("jax is '0' in the stored run and ")
    assert episodes.startswith("unfinished episodes were restarted: Clock does not")


@pytest.mark.slow
def test_a_sweep_goes_on_bit_for_bit_where_environments_repeat_themselves(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapted() -> Any:  # another process has another host
        return adapt(Logged, "Logged", 9)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    driver.run(sweep_of(adapted()), whole, devices.layout(most=1), HOW, width=2)
    interrupted_sweep(adapted(), broken, monkeypatch)
    driver.run(sweep_of(adapted()), broken, devices.layout(most=1), HOW)
    jax.tree.map(np.testing.assert_array_equal, *map(sweeps.read_runs, (whole, broken)))
    for path in (whole / "metrics").iterdir():
        assert path.read_bytes() == (broken / "metrics" / path.name).read_bytes()
    assert "resumed" not in specs.stored_versions(broken)


def test_episodes_need_no_promise() -> None:
    windows = Config(**TINY, env="gymnasium:CartPole-v1")
    assert "a resumed run" in host_states.promise(windows)
    assert not host_states.promise(Config(env="gymnasium:CartPole-v1", preset=None))
    assert not host_states.promise(Config(**TINY))


def test_workers_give_the_same_bits() -> None:
    def run(workers: int) -> Any:
        adapted = make("gymnasium:CartPole-v1", workers=workers)
        traj = windows(adapted, 2)
        processes = [worker.process for worker in adapted.host.fleet.members[1:]]
        return traj, processes

    traj, processes = run(2)
    assert len(processes) == 2
    jax.tree.map(np.testing.assert_array_equal, traj, run(0)[0])


def test_a_fleet_closes_its_environments_and_can_begin_again(tmp_path: Any) -> None:
    marks = str(tmp_path)

    def build() -> Any:
        class Marks(gymnasium.Env):  # pickled with its code
            observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
            action_space = gymnasium.spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
                return self.observation_space.low, {}

            def close(self):  # type: ignore[no-untyped-def]
                import os

                open(f"{marks}/{os.getpid()}-{id(self)}", "w").close()

        return Marks()

    fleet = PythonFleet(Recipe(build, "Marks"), build(), workers=1)
    assert len(fleet.begin([0, 1, 2])) == 3
    worker = fleet.members[1].process  # type: ignore[union-attr]
    fleet.close()
    assert worker.poll() == 0
    closed = sorted(path.name.partition("-")[0] for path in tmp_path.iterdir())
    assert closed == sorted([str(os.getpid()), *[str(worker.pid)] * 3])
    assert len(fleet.begin([0])) == 1
    fleet.close()
    assert len(list(tmp_path.iterdir())) == 5


def test_an_environment_that_cannot_be_closed_keeps_no_other_from_it() -> None:
    class Sticks(Logged):
        def close(self) -> None:
            super().close()
            raise OSError("the window is gone")

    Logged.all.clear()
    fleet = PythonFleet(Recipe(Sticks, "Sticks"), Sticks(), workers=0)
    fleet.begin([0, 1, 2])
    with pytest.warns(UserWarning, match="^the close of Sticks fails: OSError: the window is gone"):
        fleet.close()
    assert [env.is_closed for env in Logged.all] == [True] * 3


def test_pictures_that_are_not_all_taken_close_the_environment_that_draws_them() -> None:
    class Endless:
        name, is_closed = "Endless", False
        episodes: list[Any] = []  # noqa: RUF012 - or a generator would be closed as it is deleted

        def render_episode(self, seed: int, past: Any) -> Any:
            self.episodes.append(self.rendered())
            return self.episodes[-1]

        def rendered(self) -> Any:
            try:
                while True:
                    yield np.zeros((2, 2, 3), np.uint8), [np.zeros(1)]
            finally:
                self.is_closed = True

    fleet: Any = Endless()
    pictures = Host(fleet, [float]).pictures(0, 0, [np.zeros(3)])
    assert next(pictures).shape == (2, 2, 3)
    assert not fleet.is_closed
    pictures.close()
    assert fleet.is_closed


class Breaking(Logged):
    """One whose sixth step fails."""

    def step(self, action: Any) -> Any:
        if sum(row[0] != "reset" for row in self.log) == 5:
            raise KeyError("board")
        return super().step(action)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Breaking, cli.FAULT),
        pytest.param(Logged, cli.INTERRUPTED, marks=pytest.mark.slow),
        pytest.param(Logged, 0, marks=pytest.mark.slow),
    ],
)
def test_environments_are_closed_where_a_run_ends(
    kind: type[Logged], code: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Logged.all.clear()
    config = Config(**TINY, env=adapt(kind, "Own", 9, workers=0), num_updates=5)
    ends = interrupting(monkeypatch) if code == cli.INTERRUPTED else signals_restored()
    with ends:
        own = job.Options(out=tmp_path, eval_episodes=2, seeds=2)
        one = cli.Machine(cpu_devices=1)
        assert job.run(config, config.hyperparams(), own, one) == code
    assert len(Logged.all) >= 2 * TINY["num_envs"]
    assert all(env.is_closed for env in Logged.all)


def test_the_updates_before_a_fault_are_in_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the run that is resumed from there is the uninterrupted one."""

    class Tires(Logged):
        steps_left = 2 * 7 * 3 + 5  # in the third update

        def step(self, action: Any) -> Any:
            Tires.steps_left -= 1
            if Tires.steps_left == 0:
                raise KeyError("board")
            return super().step(action)

    env = adapt(Tires, "Own", 9, workers=0)
    config = Config(**TINY, env=env, num_updates=4)
    own = job.Options(out=tmp_path, eval_episodes=2, seeds=1, name="broken")
    one = cli.Machine(cpu_devices=1)
    with signals_restored():
        assert job.run(config, config.hyperparams(), own, one) == cli.FAULT
        (folder,) = tmp_path.rglob("broken")
        assert checkpoints.steps(folder / "checkpoints") == [2]
        said = " ".join(capsys.readouterr().err.split())
        assert "KeyError: 'board'" in said
        assert f"pg resume {folder} continues after update 2, the last checkpoint" in said
        assert job.resume(folder, env) == 0
        whole = dataclasses.replace(own, name="whole")
        assert job.run(config, config.hyperparams(), whole, one) == 0
    names = [path.parent / "params.safetensors" for path in tmp_path.rglob("config.json")]
    assert len(names) == 2
    assert names[0].read_bytes() == names[1].read_bytes()


def test_the_updates_of_a_sweep_before_a_fault_are_in_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the sweep that is resumed from there is the uninterrupted one."""

    class Tires(Logged):
        steps_left = 2 * (2 * 3 * 7) + 5  # in the third update of the first chunk, of two runs

        def step(self, action: Any) -> Any:
            Tires.steps_left -= 1
            if Tires.steps_left == 0:
                raise KeyError("board")
            return super().step(action)

    monkeypatch.setattr(driver, "say_unused", lambda *args: None)  # which takes seconds
    spec = sweep_of(adapt(Tires, "Own", 9, workers=0))
    spec = dataclasses.replace(spec, config=dataclasses.replace(spec.config, num_updates=4))
    broken, whole, layout = tmp_path / "broken", tmp_path / "whole", devices.layout(most=1)
    how: Any = {"width": 2, "limit": None, "fresh": 0}
    said = (
        r"^the step of Own fails: KeyError: 'board' \(.*\); finished runs are kept, and the same "
        "command trains the others; it continues after update 2, the last checkpoint$"
    )
    with pytest.raises(HostError, match=said):
        driver.run_sweep(spec, broken, layout, HOW, **how)
    (chunk,) = (broken / "checkpoints").iterdir()
    assert checkpoints.steps(chunk) == [2]
    for folder in (broken, whole):
        assert driver.run_sweep(spec, folder, layout, HOW, **how) == 0
    found, expected = sweeps.read_runs(broken), sweeps.read_runs(whole)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_fault_in_a_search_in_one_program_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    file = tmp_path / "breaking_env.py"
    file.write_text(BREAKING, encoding="utf-8")
    settings = ("num_updates=1", "num_envs=8", "horizon=20", "hidden_sizes=4,")
    command = ("--env", f"{file}:Breaking", "--trials", "1", "--seeds", "2", "--set", *settings)
    with pytest.raises(SystemExit) as ended:
        tune.main(command)
    assert ended.value.code == cli.FAULT
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: the step of Breaking fails: KeyError: 'board' (")
    assert "; a search keeps nothing: the same command starts again" in said


def test_threads_that_call_back_are_known_to_python_from_then_on() -> None:
    """It would else make and discard a state in each callback, with all that belongs to it."""
    own = threading.local()
    calls: list[tuple[int, bool]] = []

    def called(out: Any, x: Any) -> None:
        calls.append((threading.get_ident(), hasattr(own, "is_known")))
        own.is_known = True
        out[0][...] = x + 1

    @jax.jit
    def run(xs: list[jax.Array]) -> list[jax.Array]:
        like = jax.ShapeDtypeStruct((1000,), jnp.float32)

        def step(xs: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
            return [hosted._call(called, (like,), x)[0] for x in xs], None

        return jax.lax.scan(step, xs, None, length=20)[0]

    # as many at once as XLA gives to its own threads
    results = jax.block_until_ready(run([jnp.full(1000, i, jnp.float32) for i in range(12)]))
    assert [float(x[0]) for x in results] == [i + 20 for i in range(12)]
    known = [is_known for _, is_known in calls]
    assert known.count(False) == len({thread for thread, _ in calls})


def test_ctrl_c_while_environments_are_closed_is_heard_afterwards() -> None:
    """It would otherwise be lost, and the next row of a benchmark would begin."""

    class StopsMidway(Logged):
        def close(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().close()

    Logged.all.clear()
    config = Config(**TINY, env=adapt(StopsMidway, "Own", 9, workers=0))
    with signals_restored():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(Interrupted), host_states.closing([config]):
            pass
    assert [env.is_closed for env in Logged.all] == [True]


@pytest.mark.parametrize("takes_long", [True, False])
def test_a_close_that_takes_long_in_this_process_is_said(
    takes_long: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host_states, "PATIENCE", 0.05 if takes_long else 0.5)
    said = ""

    class Slow(Logged):
        def close(self) -> None:
            nonlocal said
            until = time.monotonic() + 10
            while takes_long and not said and time.monotonic() < until:
                time.sleep(0.01)
                said = capsys.readouterr().err
            super().close()

    Logged.all.clear()
    config = Config(**TINY, env=adapt(Slow, "Own", 9, workers=0))
    with host_states.closing([config]):
        pass
    if takes_long:
        assert "Own are still being closed after 0.05 s" in said
    else:
        time.sleep(0.6)
        assert capsys.readouterr().err == ""
    assert [env.is_closed for env in Logged.all] == [True]


@pytest.mark.parametrize("work", ["the start of the environments", "the evaluation"])
def test_ctrl_c_while_environments_are_at_work_is_answered_at_once(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence says what is waited for, as they may be slow, or hang."""
    said: list[str] = []

    def program(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 10
        while not said and time.monotonic() < until:
            time.sleep(0.01)
        return jnp.zeros(1)

    config = Config(**TINY)
    programs: Any = SimpleNamespace(
        config=config, layout=devices.layout(most=1), init=program, evaluate=program
    )
    state: Any = SimpleNamespace(params=SimpleNamespace(policy=jnp.zeros(1)), normaliser=())
    keys, h = execution.seed_keys(range(1))[0], execution.broadcast(config.hyperparams(), 1)
    works = {
        "the start of the environments": lambda: execution.train(programs, keys, h),
        "the evaluation": lambda: execution.evaluate_all(programs, state, keys, h),
    }
    monkeypatch.setattr(interrupts, "_say", interrupts._say)  # put back at the end
    with signals_restored():
        assert interrupts.listen(said.append)
        with pytest.raises(Interrupted):
            works[work]()
    assert said == [work]


@pytest.mark.slow
def test_a_fault_in_the_final_evaluation_is_one_sentence() -> None:
    class Tires(Logged):
        is_tired = False

        def step(self, action: Any) -> Any:
            if Tires.is_tired:
                raise KeyError("board")
            return super().step(action)

    config = Config(**TINY, env=adapt(Tires, "Own", 9, workers=0), num_updates=1)
    run = execution.run(config, config.hyperparams(), range(1))
    Tires.is_tired = True
    with pytest.raises(HostError, match=r"^the step of Own fails: KeyError"):
        execution.evaluate_run(config, run, range(1), 2, greedy=True)


def test_a_sweep_that_is_refused_closes_no_environments(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be those of who works in the folder."""
    Logged.all.clear()
    spec = sweep_of(adapt(Logged, "Logged", 9))
    monkeypatch.setattr(driver, "say_unused", lambda *args: None)  # which takes seconds
    how: Any = {"width": 2, "limit": None, "fresh": 1}
    search = Search(spec, Halving())
    budget = Budget(devices.layout(most=1), HOW, 2, None)
    specs.make(tmp_path)
    with folders.locked(tmp_path):
        with pytest.raises(ValueError, match="is in use by process"):
            driver.run_sweep(spec, tmp_path, devices.layout(most=1), HOW, **how)
        with pytest.raises(ValueError, match="is in use by process"):
            run_search(search, tmp_path, budget, fresh=0)
    assert not (tmp_path / "search.json").exists()
    assert Logged.all
    assert not any(env.is_closed for env in Logged.all)


@pytest.mark.slow
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_environments_are_closed_where_a_sweep_ends(
    is_interrupted: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Logged.all.clear()
    spec = sweep_of(adapt(Logged, "Logged", 9))
    args = spec, tmp_path, devices.layout(most=1), HOW
    how: Any = {"width": 2, "limit": None, "fresh": 1}
    if is_interrupted:
        with pytest.raises(Interrupted), interrupting(monkeypatch):
            driver.run_sweep(*args, **how)
    else:
        assert driver.run_sweep(*args, **how) == 0
    assert len(Logged.all) >= 2 * TINY["num_envs"]
    assert all(env.is_closed for env in Logged.all)


def test_a_fault_in_a_worker_is_one_sentence_and_so_is_its_end() -> None:
    def build() -> Any:
        class Breaks(gymnasium.Env):  # pickled with its code; names of this file would be not
            observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
            action_space = gymnasium.spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
                return self.observation_space.low, {}

            def step(self, action):  # type: ignore[no-untyped-def]
                raise KeyError("board")

        return Breaks()

    adapted = adapt(build, "Breaks", 9, workers=1)
    env = make_env(adapted, 2)
    state, _ = env.reset(jax.random.key(0))

    def reward() -> Any:
        step = env.step(jax.random.key(1), state, jnp.zeros(2, int))
        return jax.block_until_ready(step[1].reward)

    for said in ("^the step of Breaks fails: KeyError: 'board'", "^a worker process with .* ended"):
        with pytest.raises(base.HostError, match=said), base.faults_in_one_sentence():
            reward()
        worker = adapted.host.fleet.members[1].process
        worker.kill()
        worker.wait()


@pytest.mark.skipif(os.name != "posix", reason="workers need it")
def test_a_worker_that_hangs_is_killed_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by itself if no process is left to kill it."""
    here = os.getpid()

    def build() -> Any:
        class Hangs(gymnasium.Env):  # pickled with its code
            observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
            action_space = gymnasium.spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
                if seed:  # in its process, where it has as much patience as that
                    from pg.envs.adapters import python_envs

                    python_envs.PATIENCE = seed / 100
                return self.observation_space.low, {}

            def close(self):  # type: ignore[no-untyped-def]
                import os
                import time

                time.sleep(0 if os.getpid() == here else 60)  # in a worker

        return Hangs()

    monkeypatch.setattr(python_envs, "PATIENCE", 0.2)
    fleet = PythonFleet(Recipe(build, "Hangs"), build(), workers=2)
    fleet.begin([0, 1])
    _, killed, ends = fleet.members
    ends.dismiss()  # type: ignore[union-attr]
    assert ends.process.wait(30) == 1  # type: ignore[union-attr]
    said = "^1 worker process with environments of Hangs has not closed them within 0.2 s, and was"
    with pytest.warns(UserWarning, match=said):
        fleet.close()
    assert killed.process.poll() == -signal.SIGKILL  # type: ignore[union-attr]


SLOW = """
import os, sys, time
import gymnasium, numpy as np

class Slow(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        open(f"{os.environ['PIDS']}/{os.getpid()}", "w").close()
        return np.zeros(2, np.float32), {}
    def step(self, action):
        time.sleep(0.005)
        return np.zeros(2, np.float32), 0.0, False, False, {}

gymnasium.register("Slow-v0", entry_point=Slow, max_episode_steps=100)
"""


BREAKING = """
import gymnasium, numpy as np

class Breaking(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}
    def step(self, action):
        Breaking.steps += 1
        if Breaking.steps > 60:
            raise KeyError("board")
        return np.zeros(2, np.float32), 0.0, False, False, {}

gymnasium.register("Breaking-v0", entry_point=Breaking, max_episode_steps=100)
"""


@pytest.mark.slow
def test_a_fault_is_one_sentence_to_the_end_of_the_process(tmp_path: Any) -> None:
    """On several devices too, where JAX would report the programs again as it ends."""
    (tmp_path / "breaking_env.py").write_text(BREAKING, encoding="utf-8")
    command = (
        "-m pg train --env gymnasium:breaking_env:Breaking-v0 --estimator actor_critic --seeds 2 "
        "--cpu-devices 2 --num-envs 3 --num-steps 8 --num-updates 20 --hidden-sizes 4 --out out"
    )
    own = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == cli.FAULT
    said = " ".join(done.stderr.split())
    assert said.startswith("error: the step of breaking_env:Breaking-v0 fails: KeyError: 'board' (")
    assert "Traceback" not in said
    assert ("pg resume" in said) == any((tmp_path / "out").rglob("*.safetensors"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or num_cores() < 2, reason="there are no workers")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_a_run_that_is_interrupted(tmp_path: Any, signum: int) -> None:
    (tmp_path / "slow_env.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "pids").mkdir()
    command = (
        "-m pg train --env gymnasium:slow_env:Slow-v0 --estimator actor_critic --num-envs 8 "
        "--num-steps 8 --num-updates 100000 --hidden-sizes 4 --name run --out out"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    own = {"PYTHONPATH": path, "PIDS": str(tmp_path / "pids"), "JAX_PLATFORMS": "cpu"}
    with (
        subprocess.Popen(
            [sys.executable, *command.split()],
            cwd=tmp_path,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(run.kill)  # if an assertion fails: it would be waited for
        until = time.monotonic() + 120
        pids: list[int] = []
        while len(pids) < 3 and time.monotonic() < until and run.poll() is None:
            time.sleep(0.2)
            pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
        workers = [pid for pid in pids if pid != run.pid]
        assert workers  # a step takes long enough for them
        assert all(map(is_alive, workers))
        time.sleep(1)
        run.send_signal(signum)
        text = run.communicate(timeout=60)[0]
    codes = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGKILL: -9}
    assert run.returncode == codes[signal.Signals(signum)], text
    assert ("interrupted after" in text) == (signum != signal.SIGKILL)
    until = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))
