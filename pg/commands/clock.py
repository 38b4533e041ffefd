"""The wall time of a command, in parts.

Imports nothing from the package, so that `pg` can time itself from the start.
"""

import contextlib
import contextvars
import time
from collections.abc import Iterator

__all__ = ["Clock", "of_command"]

# the time at which the command began, of `time.monotonic`; None outside of commands
_began: contextvars.ContextVar[float | None] = contextvars.ContextVar("began", default=None)


@contextlib.contextmanager
def of_command() -> Iterator[None]:
    """A command; a `Clock` inside it counts from its beginning, or from that of the outermost
    command if they are nested.
    """
    token = _began.set(time.monotonic()) if _began.get() is None else None
    try:
        yield
    finally:
        if token:
            _began.reset(token)


class Clock:
    """The seconds since the command began (outside of commands: since this was made), by parts."""

    def __init__(self) -> None:
        began = _began.get()
        self.last = time.monotonic() if began is None else began
        self.seconds: dict[str, float] = {}

    def end(self, part: str, **within: float) -> None:
        """Ends a part: the time since the last one ended.

        Args:
            part: Its name.
            within: The seconds of it that belong to other parts, by their names.
        """
        now = time.monotonic()
        own = now - self.last - sum(within.values())
        for name, seconds in {part: own, **within}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.last = now
