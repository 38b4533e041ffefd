"""The wall time of a command, in parts.

Imports nothing of the package, so that `pg` can count from its first moment on.
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
    """A command, from whose beginning a `Clock` within counts; that of the outermost, where there
    are several.
    """
    token = _began.set(time.monotonic()) if _began.get() is None else None
    try:
        yield
    finally:
        if token:
            _began.reset(token)


class Clock:
    """The seconds since the command began, or outside of commands since this was made, by parts."""

    def __init__(self) -> None:
        began = _began.get()
        self.last = time.monotonic() if began is None else began
        self.seconds: dict[str, float] = {}

    def end(self, part: str, **within: float) -> None:
        """Ends a part: the time since the last one ended.

        Args:
            part: Its name.
            within: The seconds of it that are those of other parts, by their names.
        """
        now = time.monotonic()
        own = now - self.last - sum(within.values())
        for name, seconds in {part: own, **within}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.last = now
