"""Signals that ask a run to end: noted while work is in progress, and obeyed where nothing is lost by it.

SIGINT is Ctrl-C; SIGTERM is what a machine that is taken away sends; SIGUSR1 is what SLURM is usually told to send
before the time is up. After the second signal a process ends at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A run was asked to end by `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Caught:
    """The first signal that came, if one did."""

    signum: int | None = None


def listen() -> bool:
    """From now on every one of the signals raises Interrupted, as Ctrl-C raises KeyboardInterrupt by itself.

    False, and nothing is changed, in a thread that cannot handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    for signum in SIGNALS:
        signal.signal(signum, _raise)
    sys.unraisablehook = _again
    return True


@contextlib.contextmanager
def deferred() -> Iterator[Caught]:
    """Within it the first signal is only noted, and a second one kills; afterwards all is as before.

    Signals that this process does not listen to are left alone. In a thread that cannot handle signals, nothing is
    noted.
    """
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum: int, frame: FrameType | None) -> None:
        caught.signum = signum
        for other in previous:
            signal.signal(other, signal.SIG_DFL)

    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    previous = {signum: handler for signum, handler in handlers.items() if callable(handler)}
    try:
        for signum in previous:
            signal.signal(signum, note)
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within it the first signal is only noted; afterwards it raises Interrupted.

    For libraries in C++ while they load, and for the compiler, which calls Python back: raised in there, it becomes
    an ImportError, or ends the process by a crash.
    """
    with deferred() as caught:
        yield
    if caught.signum:
        raise Interrupted(caught.signum)


def _raise(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)


def _again(lost: "sys.UnraisableHookArgs") -> None:
    """Sends the signal again where what it raised was lost, as it is in a finalizer."""
    if isinstance(lost.exc_value, Interrupted):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), lost.exc_value.signum))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)
