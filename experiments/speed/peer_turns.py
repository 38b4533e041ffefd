"""Programs of `peers.py` as processes that are asked in turn; what does not answer is left out."""

import contextlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from subprocess import PIPE, Popen
from threading import Timer
from typing import Any

Answers = dict[str, list[dict[str, float]]]  # of every program, one per round


def take_turns(commands: Mapping[str, Sequence[str]], rounds: int, patience: float) -> Answers:
    """The answers of every program, one per round after the first, in which it compiles.

    Programs that miss a package, end, or exceed their time are left out, and it prints why.

    Args:
        commands: The command line of each program, by its name.
        rounds: The number of rounds after the first.
        patience: The seconds that a program may take for one answer.
    """
    answers: Answers = {name: [] for name in commands}
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
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
                    del answers[name]
    return {name: of_program[1:] for name, of_program in answers.items()}


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
    worker.stdin.write(seed)
    line = worker.stdout.readline()
    timer.cancel()
    if not line:
        raise RuntimeError(f"it ended with code {worker.wait()}; it had {patience:.0f} seconds")
    figures = json.loads(line)
    if "missing" in figures:
        raise RuntimeError(figures["missing"])
    return figures
