"""Memory: the amount available, and the amount used by a process. Imports jax only for devices."""

import contextlib
import dataclasses
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pg import numerals
from pg.config import Config
from pg.estimators.names import facts_of
from pg.settings.choices import RESAMPLING

if TYPE_CHECKING:
    from pg.envs import Env
    from pg.fast.devices import Layout

UNITS = {
    "": 1,
    "K": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
# Ratio of a process's memory on a CPU to the compiler's account of its programs, with a margin:
# 1.24 was measured with 4 micro-batches of 25,000 environments of CartPole.
OVER_ACCOUNT = 1.3
SHARE = 0.8  # of the free memory; the rest is for the compiler, host copies, others
# minimum bytes of a step besides its observation: action, log-probability, reward, ends
_ROW = 16
# bytes of a step that is stored without its observation, when parts of a batch are compared: the
# same without the action, plus its time
_COMPARED = 16
# Files in which a container or a batch system states this process's limit and use.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def number_of_bytes(text: str) -> int:
    """The bytes of a size such as 4GiB, 500 MB or 1e9. Raises ValueError for anything else, and
    for sizes that are not above 0.
    """
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    try:
        size = int(float(found[1]) * UNITS[(found[2] or "").upper()]) if found else 0
    except (KeyError, ValueError):
        size = 0
    if size < 1:
        raise ValueError(f"memory_limit must be a size such as 4GiB or 500MB, got {text!r}")
    return size


def readable(size: float) -> str:
    """A readable size: 3.2 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def resident() -> int:
    """Bytes of host memory that this process uses now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak() -> int:
    """The peak of host memory that this process has used, in bytes."""
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return max(most, resident())  # which the system counts differently, by some pages


def for_programs(num_devices: int, limit: int | None = None) -> int:
    """Bytes that programs may use on this many local devices together; those of a CPU share them.

    limit: the most that this process may use, including its present use; on an accelerator, the
    most per device. None: a share of the free memory.
    """
    import jax

    local = jax.local_devices()
    if (stats := local[0].memory_stats()) and "bytes_limit" in stats:
        left = stats["bytes_limit"] - stats["bytes_in_use"]
        return num_devices * int(SHARE * left if limit is None else min(left, limit))
    return int(SHARE * free() if limit is None else SHARE * (limit - resident()))


def over_account() -> float:
    """The ratio of the programs' memory to the compiler's account of them."""
    import jax

    return 1.0 if jax.local_devices()[0].memory_stats() else OVER_ACCOUNT


def budget_of(layout: "Layout", budget: int | None = None) -> int:
    """Bytes that programs may use on this process's devices of a layout, together.

    All processes agree on them, as each has a part of every program; in whole KiB, so that the
    number fits into 32 bits.

    Args:
        layout: The devices that compute.
        budget: The given bytes; None: the free memory.
    """
    from pg.fast import devices

    own = for_programs(layout.num_local) if budget is None else budget
    return 1024 * devices.agreed(max(0, own) // 1024)


def check(config: Config, env: "Env", state: Any, num_seeds: int, num_episodes: int = 0) -> None:
    """Raises ValueError for runs that need more memory than there is, before anything is compiled.

    Args:
        config: of the runs.
        env: the environment, however many copies.
        state: the shapes of a run's state, as in `jax.eval_shape`.
        num_seeds: vmapped runs, in all processes of the job.
        num_episodes: of the evaluation.

    Counted is the minimum that any way to compute it needs: the state, a batch in bytes, the order
    of minibatches, and the episodes of the evaluation.
    """
    need = least(config, env, state, num_seeds, num_episodes)
    if need > (total := _total()):
        raise ValueError(
            f"memory: at least {readable(need)} for {numerals.counted(num_seeds, 'seed')} of "
            f"num_envs={config.num_envs}, but only {readable(total)} available: {_less(config)}"
        )


def check_programs(config: Config, num_bytes: int) -> None:
    """Raises ValueError for compiled programs that need more host memory on a CPU than is free,
    before they run: the system would kill the process. An accelerator reports it itself.

    num_bytes: their need by the compiler's account, on all local devices.
    """
    import jax
    import psutil

    if jax.default_backend() != "cpu":
        return
    if num_bytes > (left := free() + psutil.swap_memory().free):
        raise ValueError(
            f"memory: the programs need {readable(num_bytes)} by the compiler's account, but only "
            f"{readable(left)} are free: {_less(config)}"
        )


def _less(config: Config) -> str:
    """The settings that reduce the memory of runs."""
    in_parts = ""
    if _takes_more_parts(config):
        in_parts = ", or more micro_batches, which split a batch"
    return f"fewer seeds, environments, steps, epochs or eval_episodes{in_parts}"


def _takes_more_parts(config: Config) -> bool:
    """True for settings whose batch can be split into more micro-batches."""
    if config.micro_batches in ("auto", micro_batches(config)[-1]):
        return False
    try:
        dataclasses.replace(config, micro_batches="auto")
    except ValueError:
        return False
    return True


def least(config: Config, env: "Env", state: Any, num_seeds: int, num_episodes: int = 0) -> float:
    """The minimum bytes of the runs of one process; arguments as in `check`."""
    import jax

    from pg.train import TrainState

    longest = env.horizon(config.horizon)
    row = env.obs_size + _ROW
    steps = config.num_envs * (config.num_steps if config.collect == "windows" else longest)
    parts = config.micro_batches
    if parts == "auto":
        parts = micro_batches(config)[-1]
    batch = steps * row // parts
    if parts > 1 and facts_of(config.estimator).compares_episodes:
        batch += steps * _COMPARED
    if starts := facts_of(config.estimator).starts:
        # the control variate of each episode's gradient is as large as the gradient
        of_gradient = _size(state.params.policy) if isinstance(state, TrainState) else 0
        batch += config.num_envs * (starts * env.obs_size + of_gradient)
    if config.optimizer in RESAMPLING:
        batch *= 2
    # The items of minibatches: environments, or the steps of all of them.
    things = config.num_envs * (1 if config.minibatch_size is None else config.num_steps)
    orders = 4 * config.num_epochs * things if config.steps_per_update > 1 else 0
    held = _size(state)
    of_run = held + max(batch + orders, num_episodes * longest * row)
    return num_seeds * of_run / jax.process_count()


def micro_batches(config: Config, num_devices: int = 1) -> tuple[int, ...]:
    """The numbers of micro-batches that a batch can be split into, in order.

    num_devices: those over which the environments of each part are spread.
    """
    groups = config.num_envs // config.group_size
    small = [number for number in range(1, math.isqrt(groups) + 1) if groups % number == 0]
    divisors = sorted({*small, *(groups // number for number in small)})
    fewest = 2 if facts_of(config.estimator).compares_episodes else 1

    def fits(number: int) -> bool:
        size = config.num_envs // number
        return size >= fewest and size % num_devices == 0

    return tuple(number for number in divisors if fits(number))


def _size(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of arrays of their shapes."""
    import jax

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "size"))


def _total() -> int:
    """Bytes of the local devices together, or of the host, or of the container if that has
    fewer.
    """
    import jax
    import psutil

    local = jax.local_devices()
    if (stats := local[0].memory_stats()) and "bytes_limit" in stats:
        return len(local) * int(stats["bytes_limit"])
    total = psutil.virtual_memory().total + psutil.swap_memory().total
    for limit, _ in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(limit).read_text("utf-8")))
    return total


def free() -> int:
    """Free bytes of the host, or of the container if that has fewer."""
    import psutil

    left = psutil.virtual_memory().available
    for limit, usage in _LIMITS:
        try:
            left = min(
                left, int(Path(limit).read_text("utf-8")) - int(Path(usage).read_text("utf-8"))
            )
        except (OSError, ValueError):  # no such file; "max": no limit
            continue
    return left
