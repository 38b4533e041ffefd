"""Timing of compiled programs that take turns in one process, reported by medians.

Other work on the machine slows neighbours in a turn alike; so a ratio is the median over turns of
the ratio within a turn.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from pg.reports import tables


class Program(NamedTuple):
    """A compiled program, and the time and memory of its compilation."""

    run: Callable[[jax.Array], tuple[Any, jax.Array]]  # key -> result, environment steps taken
    compile_seconds: float  # to trace, lower and compile
    temp_bytes: int  # memory for what is neither argument nor result, by XLA's own analysis


class Timing(NamedTuple):
    """Measurements of one program, [repeats] each."""

    seconds: np.ndarray
    cpu_seconds: np.ndarray  # of all threads: a device may be several, for its larger products
    steps: np.ndarray

    @property
    def rate(self) -> np.ndarray:
        """Steps per second."""
        return self.steps / self.seconds


def compiled(f: Callable[..., tuple[Any, jax.Array]], *args: Any) -> Program:
    """`f(*args, key) -> result, steps`, compiled for these arguments."""
    started = time.perf_counter()
    executable = jax.jit(f).lower(*args, jax.random.key(0)).compile()
    seconds = time.perf_counter() - started
    memory = executable.memory_analysis()
    # None: a backend without such an analysis, of which JAX's own are none
    assert memory is not None
    return Program(lambda key: executable(*args, key), seconds, memory.temp_size_in_bytes)


def take_turns(programs: Mapping[str, Program], repeats: int) -> dict[str, Timing]:
    """The timing of every program; the first call of each is not timed."""
    rows: dict[str, list[tuple[float, float, int]]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        key = jax.block_until_ready(jax.random.key(turn))
        for name, program in programs.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            result, steps = jax.block_until_ready(program.run(key))
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            del result  # else the next program would run beside its memory
            rows[name].append((seconds, cpu_seconds, int(steps)))
    return {name: Timing(*np.array(row[1:]).T) for name, row in rows.items()}


def faster(a: Timing, b: Timing) -> float:
    """The ratio of the steps per second of `a` to those of `b`."""
    return float(np.median(a.rate / b.rate))


def longer(a: Timing, b: Timing) -> float:
    """The ratio of the seconds of a call of `a` to those of `b`."""
    return float(np.median(a.seconds / b.seconds))


def medians(
    programs: Mapping[str, Program], timings: Mapping[str, Timing]
) -> dict[str, dict[str, float]]:
    """The reported figures of each program: medians over turns, time to compile, memory."""
    return {
        name: {
            **{field: float(np.median(x)) for field, x in timing._asdict().items()},
            "steps_per_second": float(np.median(timing.rate)),
            "compile_seconds": programs[name].compile_seconds,
            "temp_bytes": programs[name].temp_bytes,
        }
        for name, timing in timings.items()
    }


def table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """The rows that `medians` gives, for people."""
    cells = [["", "steps", "ms", "CPU ms", "M steps/s", "temp MB", "compile s"]]
    for name, row in rows.items():
        cells.append(
            [
                name,
                f"{row['steps']:,.0f}",
                f"{1e3 * row['seconds']:.2f}",
                f"{1e3 * row['cpu_seconds']:.2f}",
                f"{row['steps_per_second'] / 1e6:.3f}",
                f"{row['temp_bytes'] / 1e6:.2f}",
                f"{row['compile_seconds']:.2f}",
            ]
        )
    return f"{title}\n{tables.plain(cells)}\n"
