"""The limits of a read: no waiting, little work and few bytes."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def no_waiting(seconds: float = 60.0, cpu_seconds: float = 5.0) -> Iterator[None]:
    """Fails a test that waits forever, as on a pipe without a writer, after a time that is long for
    any busy machine; and one that takes more processor time, which other work on the machine hardly
    changes.
    """

    def stop(*_: Any) -> None:
        pytest.fail(f"still waiting after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.process_time()
    try:
        yield
        took = time.process_time() - started
        assert took < cpu_seconds, f"it took {took:.1f} s of the processor"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def bytes_read() -> int:
    """The bytes that this process has read from files so far; 0 where no system counts them."""
    account = Path("/proc/self/io")
    if not account.exists():
        return 0
    lines = dict(line.split(": ") for line in account.read_text().splitlines())
    return int(lines["rchar"])
