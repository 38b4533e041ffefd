"""Long runs: as much memory after ten thousand updates as after the first hundred, and counters
that do not overflow.
"""

from typing import Any

import jax
import psutil
import pytest

from pg.config import Config, Hyperparams
from pg.fast import devices
from pg.runs import execution


@pytest.mark.slow
@pytest.mark.acceptance("J5")
def test_memory_does_not_grow() -> None:
    """Ten thousand chunks of one update, one program: less than 1 MB per thousand, and no array
    more.
    """
    config = Config(num_envs=2, horizon=4, hidden_sizes=(2,), num_updates=10_000, preset=None)
    h = execution.broadcast(Hyperparams(), 1)
    programs = execution.compile_programs(config, h, devices.layout(most=1), 1, length=1)
    process, seen = psutil.Process(), list[tuple[int, int]]()

    def look(done: int, *_: Any) -> None:
        if done % 1000 == 0:
            seen.append((process.memory_info().rss, len(jax.live_arrays())))

    done = execution.train(programs, execution.seed_keys([0])[0], h, look)
    assert done.metrics["env_steps"].shape == (1, 10_000)
    memory, arrays = zip(*seen, strict=True)
    assert (memory[-1] - memory[0]) / 9 < 1e6, memory
    assert len(set(arrays)) == 1
