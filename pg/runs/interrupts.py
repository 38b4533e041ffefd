"""Signals that ask a run to end: recorded while work is in progress, and handled once nothing is
lost by stopping.

SIGINT is Ctrl-C; SIGTERM is sent when a machine is reclaimed; SIGUSR1 is usually configured in
SLURM as a warning before the time limit. After the second signal a process ends at once.

Python handles a signal between two bytecode instructions, and a compiler in C++ executes none of
them while it works. So a thread watches too: it reports at once that a signal was recorded, and
ends the process at a second one.

XLA's compiler does check for signals. An exception raised there leaves behind a compilation that
continues in other threads, and the process may end with a segmentation fault. So no signal is
raised there, even where nothing is deferred.
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
    """The signal that raised it: SIGINT if it is not an `Interrupted`."""
    return error.signum if isinstance(error, Interrupted) else int(signal.SIGINT)


# The file of JAX whose functions call the compiler, or read what it has compiled before.
_COMPILER = os.path.join("jax", "_src", "compiler.py")
_PAUSE = 0.05  # seconds until a signal that could not be raised is sent again

_say: Callable[[str], object] = lambda work: None  # noqa: E731 - replaced by `listen`


class Caught:
    """The first signal received, if any."""

    signum: int | None = None


class _Postponed:
    """A signal received while none can be raised, if any; it is sent again as soon as possible."""

    signum: int | None = None
    is_sent = False  # the next signal is that one, and not another of the user's
    timer: threading.Timer | None = None

    def send_again(self, signum: int) -> None:
        """Sends a signal to this process in a moment, but not while the compiler is at work."""

        def send() -> None:
            main = sys._current_frames().get(threading.main_thread().ident or 0)
            is_compiling = _is_compiling(main)
            if self.timer is not timer:  # forgotten, or replaced
                return
            if is_compiling:
                self.send_again(signum)
                return
            self.is_sent = True
            os.kill(os.getpid(), signum)

        timer = threading.Timer(_PAUSE, send)
        timer.daemon = True
        self.signum, self.is_sent, self.timer = signum, False, timer
        timer.start()

    def forget(self) -> None:
        """Cancels the signal that would be sent again, if any."""
        if self.timer is not None:
            self.timer.cancel()
        self.signum, self.is_sent, self.timer = None, False, None


_postponed = _Postponed()


def listen(say: Callable[[str], object] = lambda work: None) -> bool:
    """From now on each of the signals raises Interrupted, as Ctrl-C by default raises
    KeyboardInterrupt. A signal that the process ignores, as a background job of a shell does,
    stays ignored.

    say: called from another thread when a signal is recorded, with the work that is finished
    first. Returns False, and changes nothing, in a thread that cannot handle signals.
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
            _postponed.forget()
            sys.unraisablehook = hook
            for signum, handler in handlers.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def deferred(work: str = "the work in progress") -> Iterator[Caught]:
    """Within the context the first signal is only recorded, and a second one ends the process;
    afterwards the handlers are as before.

    Signals that this process does not listen to are left alone. In a thread that cannot handle
    signals, nothing is recorded. work: its name in messages.
    """
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum: int, frame: FrameType | None) -> None:
        caught.signum = caught.signum or signum  # the watching thread handles a second one
        _postponed.forget()

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
    """Within the context the first signal is only recorded; afterwards it raises Interrupted. work:
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
    """Raises Interrupted, or sends the signal again if the compiler is at work; a second one ends
    the process then.
    """
    if not _is_compiling(frame):
        _postponed.forget()
        raise Interrupted(signum)
    if _postponed.signum is None:
        _say("the compilation")
    elif not _postponed.is_sent:
        os._exit(128 + signum)
    _postponed.send_again(signum)


def _is_compiling(frame: FrameType | None) -> bool:
    """True if a frame, or one that has called it, is in JAX's calls of the compiler."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(_COMPILER):
            return True
        frame = frame.f_back
    return False


def _again(lost: "sys.UnraisableHookArgs") -> None:
    """Sends the signal again if its exception was lost, as in a finalizer."""
    if isinstance(lost.exc_value, Interrupted):
        _postponed.send_again(lost.exc_value.signum)
    else:
        sys.__unraisablehook__(lost)
