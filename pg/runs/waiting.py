"""A message for work that takes long."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TextIO

__all__ = ["said_after"]


@contextlib.contextmanager
def said_after(seconds: float, text: str, stream: TextIO | None = None) -> Iterator[None]:
    """Prints a line, from another thread, if the work in the context takes longer.

    Args:
        seconds: The time until then.
        text: The line.
        stream: Where it is printed; None: the standard output.
    """
    timer = threading.Timer(seconds, print, [text], {"file": stream, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
