"""Programs of `peers.py` as processes that are asked in turn; what does not answer is left out."""

import contextlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from subprocess import PIPE, Popen
from threading import Timer
from typing import Any, NamedTuple


class Turns(NamedTuple):
    """The answers of programs that took turns, by their names."""

    answers: dict[str, list[dict[str, float]]]  # of every program, one per round
    ready: dict[str, dict[str, Any]]  # what it said when it was ready
    left_out: dict[str, str]  # of every other program, why


def take_turns(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    patience: float,
    variables: Mapping[str, str] = {},
) -> Turns:
    """The answers of every program, one per round after the first, in which it compiles.

    Programs that miss a package, end, or exceed their time are left out, and it prints why.

    Args:
        commands: The command line of each program, by its name.
        rounds: The number of rounds after the first.
        patience: The seconds that a program may take for one answer.
        variables: Of the environment of all.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    left_out: dict[str, str] = {}
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | dict(variables)
    seeds = ["", *(f"{i}\n" for i in range(rounds + 1))]  # at first they say that they are ready
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Popen(command, 1, env=env, stdin=PIPE, stdout=PIPE, text=True)
            )
            for name, command in commands.items()
        }
        for seed, name in itertools.product(seeds, workers):
            if name in answers:
                try:
                    answers[name].append(answer(workers[name], seed, patience))
                except RuntimeError as error:
                    print(f"{name} is left out: {error}", flush=True)
                    left_out[name] = str(error)
                    del answers[name]
    ready = {name: of_program[0] for name, of_program in answers.items()}
    rows = {name: of_program[1:] for name, of_program in answers.items()}
    return Turns(rows, ready, left_out)


def answer(worker: Popen[str], seed: str, patience: float) -> dict[str, Any]:
    """The answer of a worker, that it is ready or the figures of a run.

    Args:
        worker: The process.
        seed: The line that asks it: a seed, or nothing while it starts.
        patience: The seconds after which it is ended.

    Raises:
        RuntimeError: If it ends instead, or misses a package.
    """
    assert worker.stdin
    assert worker.stdout
    timer = Timer(patience, worker.kill)
    timer.start()
    try:
        worker.stdin.write(seed)
        line = worker.stdout.readline()
    except BrokenPipeError:
        line = ""
    timer.cancel()
    if not line:
        if (code := worker.wait()) == -9:
            raise RuntimeError(f"it had not answered after {patience:.0f} seconds")
        raise RuntimeError(f"it ended with code {code}")
    figures: dict[str, Any] = json.loads(line)
    if "missing" in figures:
        raise RuntimeError(figures["missing"])
    return figures
