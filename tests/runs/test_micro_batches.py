"""The number of micro-batches: the planner's forecast, choice and message."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import pytest
from environments import Clock
from test_python_job import handlers as handlers
from test_python_job import options

from pg import envs
from pg.commands import cli, job
from pg.config import Config, Hyperparams
from pg.fast import devices
from pg.runs import execution, memory
from pg.sweep import SweepSpec, chunks
from pg.train import make_learner

SMALL = Config(
    estimator="leave_one_out",
    env="CartPole-v1",
    horizon=100,
    num_envs=1200,
    num_updates=1,
    hidden_sizes=(4,),
    preset=None,
)
ONE = devices.layout(most=1)


def num_bytes(config: Config) -> int:
    """The memory of a run, as the compiler reports it."""
    h = execution.broadcast(Hyperparams(), 1)
    return execution.compile_programs(config, h, ONE, 1).num_bytes


def forecast(config: Config) -> float:
    """The planner's lower bound on memory."""
    whole = dataclasses.replace(config, micro_batches=1)
    like = jax.eval_shape(make_learner(whole).init, jax.random.key(0))
    return memory.least(config, envs.configured(config, 1), like, 1)


def in_parts(number: Any) -> Config:
    return dataclasses.replace(SMALL, micro_batches=number)


def test_the_command_line_takes_a_number_or_auto() -> None:
    for word, value in (("auto", "auto"), ("1e1", 10)):
        flags = ["--estimator", "reinforce", "--num-envs", "20", "--micro-batches", word]
        config = cli.parse("train.py", "", job.Options, flags)[0]
        assert config.micro_batches == value
        assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_numbers_that_a_batch_can_be_taken_in() -> None:
    """Divisors, of groups too, that leave two episodes where these are compared, and as many for
    each device.
    """
    grouped = Config(estimator="group_leave_one_out", num_envs=30, group_size=5, preset=None)
    assert memory.micro_batches(grouped) == (1, 2, 3, 6)
    compared = Config(estimator="leave_one_out", num_envs=12, preset=None)
    assert memory.micro_batches(compared) == (1, 2, 3, 4, 6)
    alone = dataclasses.replace(compared, estimator="reinforce")
    assert memory.micro_batches(alone) == (1, 2, 3, 4, 6, 12)
    assert memory.micro_batches(alone, num_devices=3) == (1, 2, 4)
    spread = devices.layout("envs")._replace(shard="envs")
    spread.check(dataclasses.replace(alone, micro_batches=4))


def test_a_batch_that_does_not_fit_names_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dataclasses.replace(SMALL, estimator="reinforce")
    parts = [dataclasses.replace(whole, micro_batches=number) for number in (1, 2, 10, "auto")]
    needs = [forecast(config) for config in parts]
    assert needs == sorted(needs, reverse=True)
    env = envs.configured(SMALL, 1)
    monkeypatch.setattr(memory, "_total", lambda: int(needs[1]))
    memory.check(parts[1], env, (), 1)
    with pytest.raises(ValueError, match="or more micro_batches, which split a batch"):
        memory.check(whole, env, (), 1)
    monkeypatch.setattr(memory, "_total", lambda: 1)
    for changes in (
        {"micro_batches": "auto"},
        {"micro_batches": SMALL.num_envs},
        {"optimizer": "natural"},
        {"diagnostics": True},
        {"estimator": "ppo", "collect": "windows", "num_epochs": 2},
    ):
        refused = dataclasses.replace(whole, **changes)
        with pytest.raises(ValueError, match=r"or eval_episodes$"):
            memory.check(refused, env, (), 1)


@pytest.mark.slow
def test_the_forecast_is_below_the_compilers_account_which_falls_with_the_parts() -> None:
    """Ten parts of a large batch: a tenth of its memory, and what is kept of all."""
    sizes = {number: num_bytes(in_parts(number)) for number in (1, 2, 10)}
    for number, size in sizes.items():
        assert forecast(in_parts(number)) < size
    alone = {n: num_bytes(dataclasses.replace(in_parts(n), estimator="gae")) for n in (1, 10)}
    assert sizes[2] < 0.8 * sizes[1]
    assert sizes[10] < sizes[2]
    assert alone[10] < 0.2 * alone[1]


@pytest.mark.slow
def test_the_smallest_number_that_fits_is_chosen() -> None:
    """By the compiler's account, which is asked of the number before it, too."""
    h = execution.broadcast(Hyperparams(), 1)
    config = dataclasses.replace(SMALL, estimator="reinforce", horizon=20, num_envs=600)
    asked: list[int] = []

    def least(settings: Config) -> float:
        asked.append(int(settings.micro_batches))
        return 0.0

    def account(number: int) -> int:
        return num_bytes(dataclasses.replace(config, micro_batches=number))

    budget = account(1) // 3
    found = execution.fitted(config, h, ONE, 1, budget=budget, least=least)
    numbers = memory.micro_batches(config)
    before = numbers[numbers.index(found.micro_batches) - 1]
    assert account(before) > budget // 1024 * 1024 >= found.num_bytes
    assert found.num_bytes == account(found.micro_batches)
    assert 1 < found.compilations <= 4
    assert asked[0] == 1


def test_the_number_that_a_run_has_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept if it fits, even if a smaller one would too; otherwise a larger one is chosen."""
    compiled: list[int] = []

    def of_bytes(config: Config, *_: Any, **__: Any) -> Any:
        number = int(config.micro_batches)
        compiled.append(number)
        return SimpleNamespace(num_bytes=1024 * (10 + 1000 // number))

    monkeypatch.setattr(execution, "compile_programs", of_bytes)
    h = execution.broadcast(Hyperparams(), 1)
    for kib, first, chosen, asked in (
        (2000, 4, 4, [4]),
        (500, 1, 3, [1, 3]),
        (200, 4, 6, [4, 6]),
        (200, 7, 6, [1, 6]),  # no divisor of 1200: the environments were others
    ):
        compiled.clear()
        found = execution.fitted(SMALL, h, ONE, 1, budget=1024 * kib, first=first)
        assert (found.micro_batches, compiled) == (chosen, asked)


class OfGpu(NamedTuple):
    """A device with its own memory: 1 MiB, all of it free."""

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": 2**20, "bytes_in_use": 0}


class OfCpu(NamedTuple):
    """A device in the host's memory."""

    def memory_stats(self) -> None:
        return None


@pytest.mark.parametrize("kind", [OfGpu, OfCpu])
def test_the_budget_is_that_of_the_devices_that_compute(
    monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Eight devices of one process: accelerators have a budget each, a CPU one for all."""
    there = [kind() for _ in range(8)]
    monkeypatch.setattr(jax, "local_devices", lambda: there)
    monkeypatch.setattr(memory, "free", lambda: 2**20)
    share = int(memory.SHARE * 2**20)
    programs = SimpleNamespace(num_bytes=share // 4)
    monkeypatch.setattr(execution, "compile_programs", lambda *args, **how: programs)
    monkeypatch.setattr(chunks, "_num_metrics", lambda programs: 0)
    h = execution.broadcast(Hyperparams(), 1)
    for used in (1, 2):
        mesh: Any = SimpleNamespace(size=used, local_devices=there[:used])
        layout = devices.Layout(mesh, "envs")
        found = execution.fitted(in_parts(1), h, layout, 1)
        assert found.micro_batches == 1
        assert found.num_bytes == used * programs.num_bytes
        budget = (used if kind is OfGpu else 1) * share // 1024 * 1024
        over = 1 if kind is OfGpu else memory.OVER_ACCOUNT
        assert found.budget == int(budget / over)
        assert chunks.plan(SMALL, h, 1, layout).width == 1
    programs.num_bytes = 2 * share
    with pytest.raises(ValueError, match="for 1 run on each of 2 devices"):
        chunks.plan(SMALL, h, 1, layout)


@pytest.mark.slow
def test_none_that_fits_is_said() -> None:
    h = execution.broadcast(Hyperparams(), 1)
    with pytest.raises(ValueError, match=r"memory: .* in 600 micro-batches of num_envs=1200"):
        execution.fitted(SMALL, h, ONE, 1, budget=1000, least=lambda config: 1e9)


@pytest.mark.slow
@pytest.mark.usefixtures("handlers")
def test_the_train_command_chooses_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder has the number, with which the run continues, unless it no longer fits."""
    config = dataclasses.replace(SMALL, num_updates=2, micro_batches="auto")
    small = num_bytes(in_parts(1)) // 2
    monkeypatch.setattr(memory, "for_programs", lambda num_devices: small)
    assert job.run(config, Hyperparams(), options(tmp_path)) == 0
    said = "".join(capsys.readouterr())
    assert "micro-batches of" in said
    assert "for the programs, of" in said
    folder = next(tmp_path.rglob("config.json")).parent
    chosen = json.loads((folder / "config.json").read_text())["config"]["micro_batches"]
    assert chosen in memory.micro_batches(SMALL)[1:]
    monkeypatch.setattr(memory, "for_programs", lambda num_devices: 10 * small)
    again = dataclasses.replace(config, num_updates=3)
    assert job.run(again, Hyperparams(), options(tmp_path)) == 0
    stored = json.loads((folder / "config.json").read_text())["config"]
    assert (stored["micro_batches"], stored["num_updates"]) == (chosen, 3)
    assert "bits may differ" not in "".join(capsys.readouterr())
    whole = dataclasses.replace(config, num_updates=4, micro_batches=1)
    assert job.run(whole, Hyperparams(), options(tmp_path)) == 0
    changed = f"micro_batches is {chosen} in the stored run and 1 in this one"
    said = "".join(capsys.readouterr())
    assert f"bits may differ from an uninterrupted run, as {changed}" in said
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["resumed"][-1] == {"after": 3, "changed": [changed]}


@pytest.mark.parametrize("varied", [False, True])
def test_a_sweep_takes_a_number(varied: bool) -> None:
    config = in_parts(1 if varied else "auto")
    table: Any = {"micro_batches": [1, "auto"]} if varied else {"learning_rate": [0.1, 0.2]}
    with pytest.raises(ValueError, match="is chosen by the train command"):
        SweepSpec(config, Hyperparams(), table, range(2))


@pytest.mark.usefixtures("handlers")
def test_strict_refuses_another_number_where_a_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything compiles: sums are rounded in another order."""
    config = Config(estimator="reinforce", env=Clock(), num_envs=4, hidden_sizes=(2,), preset=None)
    whole = dataclasses.replace(config, num_updates=1)
    parts = dataclasses.replace(config, num_updates=2, micro_batches=2)
    assert job.run(whole, Hyperparams(), options(tmp_path)) == 0
    capsys.readouterr()
    assert job.run(parts, Hyperparams(), options(tmp_path, strict=True)) == cli.MISTAKE
    refused = capsys.readouterr()
    assert "micro_batches is 1 in the stored run and 2 in this one" in refused.err
    assert "compiling" not in refused.out


def test_programs_that_are_larger_than_what_is_free_do_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free", lambda: -(2**60))  # swap, too, is less than that
    with pytest.raises(ValueError, match="by the compiler's account") as caught:
        memory.check_programs(SMALL, 1000)
    assert "or more micro_batches" in str(caught.value)
    monkeypatch.undo()
    memory.check_programs(SMALL, 1000)
