"""Memory: how much there is, and how much a process has taken. Imports jax only when asked of devices."""

import re
from pathlib import Path

UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
SHARE = 0.8  # of what is free; the rest is for the compiler, the host's copies, and other people
# Where a container or a batch system says how much this process may have, and how much of it is taken.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def number_of_bytes(text: str) -> int:
    """The bytes of a size such as 4GiB, 500 MB or 1e9. Raises ValueError for what is none, or not above 0."""
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    try:
        size = int(float(found[1]) * UNITS[(found[2] or "").upper()]) if found else 0
    except (KeyError, ValueError):
        size = 0
    if size < 1:
        raise ValueError(f"memory must be a size such as 4GiB or 500MB, got {text!r}")
    return size


def readable(size: float) -> str:
    """A size for people: 3.2 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def resident() -> int:
    """Bytes of host memory that this process has now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak() -> int:
    """The most bytes of host memory that this process has had."""
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(most, resident())  # which the system counts in another way, some pages apart


def for_programs(limit: int | None = None) -> int:
    """Bytes that programs may take on all local devices together.

    limit: the most that this process may have, what it has taken by now included; on an accelerator, that a device
    may. None: a share of what is free.
    """
    import jax

    local = jax.local_devices()
    if (stats := local[0].memory_stats()) and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats["bytes_in_use"]
        return len(local) * int(SHARE * free if limit is None else min(free, limit))
    return int(SHARE * _free() if limit is None else SHARE * (limit - resident()))


def _free() -> int:
    """Free bytes of the host, or of the container where that has fewer."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, usage in _LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(usage).read_text()))
        except (OSError, ValueError):  # no such file; "max": no limit
            continue
    return free
