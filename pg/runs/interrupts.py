"""Signals that ask a run to end: noted while work is in progress, and obeyed once nothing is lost
by it.

SIGINT is Ctrl-C; SIGTERM is sent when a machine is reclaimed; SIGUSR1 is usually configured in
SLURM as a warning before the time limit. After the second signal a process ends at once.

Python handles a signal between two bytecode instructions, and a compiler in C++ executes none of
them while it works. So a thread watches too: it reports at once that a signal was noted, and obeys
a second one.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """A run was asked to end by `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def signal_of(error: KeyboardInterrupt) -> int:
    """The signal that raised it: SIGINT if it is none of ours."""
    return error.signum if isinstance(error, Interrupted) else int(signal.SIGINT)


_say: Callable[[str], object] = lambda work: None  # noqa: E731 - replaced by `listen`


class Caught:
    """The first signal received, if any."""

    signum: int | None = None


def listen(say: Callable[[str], object] = lambda work: None) -> bool:
    """From now on each of the signals raises Interrupted, as Ctrl-C by default raises
    KeyboardInterrupt. A signal that the process ignores, as a job of a shell's background does,
    stays ignored.

    say: called from another thread when a signal is noted, with the work that is still to be
    finished. Returns False, and changes nothing, in a thread that cannot handle signals.
    """
    global _say
    if threading.current_thread() is not threading.main_thread():
        return False
    _say = say
    for signum in SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _raise)
    sys.unraisablehook = _again
    return True


@contextlib.contextmanager
def listening(say: Callable[[str], object] = lambda work: None) -> Iterator[None]:
    """Within the context signals raise Interrupted, as after `listen`; afterwards the handlers are
    as before.
    """
    hook, handlers = sys.unraisablehook, {signum: signal.getsignal(signum) for signum in SIGNALS}
    is_listening = listen(say)
    try:
        yield
    finally:
        if is_listening:
            sys.unraisablehook = hook
            for signum, handler in handlers.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def deferred(work: str = "the work in progress") -> Iterator[Caught]:
    """Within the context the first signal is only noted, and a second one ends the process;
    afterwards the handlers are as before.

    Signals that this process does not listen to are left alone. In a thread that cannot handle
    signals, nothing is noted. work: its name in messages.
    """
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum: int, frame: FrameType | None) -> None:
        caught.signum = caught.signum or signum  # the thread that watches obeys a second one

    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    previous = {signum: handler for signum, handler in handlers.items() if callable(handler)}
    try:
        for signum in previous:
            signal.signal(signum, note)
        with _watched(previous, work):
            yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def held(work: str = "the work in progress") -> Iterator[None]:
    """Within the context the first signal is only noted; afterwards it raises Interrupted. work:
    see `deferred`.

    For C++ libraries while they load, and for the compiler, which calls back into Python: an
    exception raised inside becomes an ImportError, or crashes the process.
    """
    with deferred(work) as caught:
        yield
    if caught.signum:
        raise Interrupted(caught.signum)


@contextlib.contextmanager
def _watched(signums: Collection[int], work: str) -> Iterator[None]:
    """Within the context a thread receives signals as they come, whatever the main thread is
    doing.
    """
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)  # as `set_wakeup_fd` asks
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        heard = 0
        while number := ours.recv(1):
            if before >= 0:  # the previous listener still receives them
                with contextlib.suppress(OSError):
                    os.write(before, number)
            if number[0] not in signums:
                continue
            heard += 1
            if heard > 1:
                os._exit(128 + number[0])  # the exit code that shells use for a signal
            _say(work)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        pythons.close()
        watching.join()
        ours.close()


def _raise(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)


def _again(lost: "sys.UnraisableHookArgs") -> None:
    """Sends the signal again if its exception was lost, as in a finalizer."""
    if isinstance(lost.exc_value, Interrupted):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), lost.exc_value.signum))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)
