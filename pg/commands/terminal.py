"""Progress output while a command runs: fitted to the terminal, and kept out of logs.

A terminal has a width, and a last line that can be written over. Anywhere else sentences are not
wrapped, and a line is printed for every tenth of the work. Imports neither jax nor gymnax.
"""

import contextlib
import io
import math
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm
from tqdm.std import Bar

from pg import numerals
from pg.runs import results
from pg.runs.waiting import said_after

WIDTH = 100  # of listings, where there is no terminal
BAR = 16  # characters of the progress bar
# Seconds after which a log has a line, for work in parts or before the first updates.
SILENCE = 5.0


def columns(stream: TextIO) -> int | None:
    """Width of the terminal that a stream writes to, or COLUMNS; None if it is not a terminal."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or None  # 0: it does not know
    return None


def wrapped(text: str, stream: TextIO | None = None, *, otherwise: int | None = None) -> str:
    """The text in lines that fit the terminal, broken between words. A word that is longer than a
    line is not broken.

    Args:
        text: One paragraph.
        stream: Where it will be written; by default standard output.
        otherwise: The width where that is not a terminal; by default the text stays as it is.
    """
    stream = stream or sys.stdout
    # A shell may export COLUMNS, but a log is still not a terminal, and a search does not find a
    # path that is broken over two lines.
    width = columns(stream) if otherwise or stream.isatty() else None
    width = width or otherwise
    if width is None:
        return text
    lines = textwrap.wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def fitted(parts: Sequence[tuple[int, str]], width: int | None) -> str:
    """The parts of a line, joined by commas, without the least important ones if they do not
    fit.

    Args:
        parts: Rank and text in the order of the line; rank 0 is the most important, and always
            stays.
        width: The number of characters available; None: unlimited.
    """
    kept = list(parts)
    while True:
        line = ", ".join(text for _, text in kept).replace("|, ", "| ")
        lowest = max(rank for rank, _ in kept)
        if width is None or len(line) <= width or lowest == 0:
            return line
        kept = [part for part in kept if part[0] != lowest]


class Line:
    """The last line of a terminal, written over and over; nothing where a stream is not a
    terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.shown = self.stream.isatty() and not quiet
        self.length = 0  # length of the line's text

    @property
    def width(self) -> int:
        """Characters of one line: a terminal may wrap when its last column is written to."""
        return (columns(self.stream) or WIDTH) - 1

    def write(self, text: str) -> None:
        """Replaces the text of the line."""
        if self.shown:
            text = text[: self.width]
            self.stream.write("\r" + text.ljust(self.length))
            self.stream.flush()
            self.length = len(text)

    def clear(self) -> None:
        """Clears the line for what is written next."""
        if self.length:
            self.write("")
            self.stream.write("\r")
            self.stream.flush()

    def keep(self) -> None:
        """Leaves the line as it is, and goes to the next."""
        if self.length:
            self.stream.write("\n")
            self.stream.flush()
            self.length = 0


def outlive_readers() -> None:
    """Lets a program continue silently once its output is no longer read, as after `| head`.

    Streams that are not files of this process (a notebook's) stay as they are.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        unbuffered = raw is buffer  # as `python -u` has it
        if (
            type(stream) is io.TextIOWrapper
            and isinstance(raw, io.FileIO)
            and raw.fileno() == number
        ):
            stream.flush()
            file = _Unread(raw) if unbuffered else io.BufferedWriter(_Unread(raw))
            about = (
                stream.encoding,
                stream.errors,
                None,
                stream.line_buffering,
                stream.write_through,
            )
            setattr(sys, name, io.TextIOWrapper(file, *about))


class _Unread(io.RawIOBase):
    """A file whose reader may go away: later output is lost."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file.fileno()

    def isatty(self) -> bool:
        return self.file.isatty()

    def write(self, data: Any) -> int | None:
        try:
            return self.file.write(data)
        except BrokenPipeError:
            return len(data)


@contextlib.contextmanager
def waiting(text: str, line: Line | None = None, *, quiet: bool = False) -> Iterator[None]:
    """Shows the elapsed time on the terminal every second: a sign of life while a library works."""
    with in_parts(text, line, quiet=quiet):
        yield


@contextlib.contextmanager
def in_parts(
    text: str, line: Line | None = None, *, quiet: bool = False
) -> Iterator[Callable[[str], None]]:
    """`waiting` for work in several parts: yields a function that takes the part that begins.

    Without a terminal, the part is a line of standard error, at most one every `SILENCE` seconds
    and none before.
    """
    line = line or Line(quiet=quiet)
    ended = threading.Event()
    shown = text
    began = written = time.monotonic()

    def tick() -> None:
        while not ended.wait(1.0):
            line.write(f"{shown}: {time.monotonic() - began:.0f} s")

    def begin(part: str) -> None:
        nonlocal shown, written
        shown = f"{text}: {part}"
        now = time.monotonic()
        if not line.shown and not quiet and now - written >= SILENCE:
            written = now
            print(shown, file=line.stream, flush=True)

    ticking = threading.Thread(target=tick, daemon=True)
    if line.shown:
        ticking.start()
    try:
        yield begin
    finally:
        ended.set()
        if line.shown:
            ticking.join()
        line.clear()


class Progress:
    """One line on a long run: a bar on a terminal, elsewhere a line for every tenth of the work."""

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        first: str = "compiling",
        may_end: bool = False,
    ) -> None:
        """Waits for the first update.

        Args:
            total: Updates.
            quiet: Nothing is shown.
            first: The name of the work before the first update.
            may_end: The work may end before all updates are done, so that the time left is an upper
                bound.
        """
        self.total, self.env_steps = total, 0
        self.left = "left at most" if may_end else "left"
        self.evaluated = math.nan  # the mean return of the last evaluation during training
        # causes of the updates that were not applied, by run, as in the metric `nonfinite`; 0 for
        # runs whose last update was applied
        self.causes: np.ndarray | int = 0
        # updates done before the first call, and at the last one; -1: none came
        self.start = self.done = -1
        self.line = Line(quiet=quiet)
        self.lines = not self.line.shown and not quiet
        self.before = contextlib.ExitStack()
        self.before.enter_context(waiting(first, self.line))

    def begin(self) -> None:
        """Shows a sign of life from compilation until the first updates are done, which takes long
        if environments are slow.
        """
        self.before.close()
        self.before.enter_context(waiting("first updates", self.line))
        if self.lines:
            first = "the first updates are in progress; a line follows for every tenth of the run"
            self.before.enter_context(said_after(SILENCE, first))

    def begin_others(self) -> None:
        """Marks these runs as done: the next calls are for others."""
        self.causes = 0

    def __call__(self, done: int, seconds: float, metrics: Mapping[str, Any]) -> None:
        """After `done` updates, in `seconds` of training. metrics: of those since the last call,
        [S, n].
        """
        self.before.close()
        if self.start < 0:
            self.start = self.done = done - metrics["env_steps"].shape[1]
        causes = self.causes | np.bitwise_or.reduce(metrics["nonfinite"], axis=1)
        self.causes = np.where(metrics["skipped"][:, -1] > 0, causes, 0)
        before, self.done = self.done, done
        self.env_steps += int(metrics["env_steps"].sum())
        parts = self._parts(seconds, metrics)
        self.line.write(fitted([(5, self._bar()), *parts], self.line.width))
        if self.lines and before * 10 // self.total != done * 10 // self.total:
            print(fitted(parts, None), flush=True)

    def _parts(self, seconds: float, metrics: Mapping[str, Any]) -> list[tuple[int, str]]:
        """The parts of the line on the updates, each with its rank."""
        fine = metrics["skipped"][:, -1] == 0
        shown = {name: x[fine] if fine.any() else x for name, x in metrics.items()}
        returns, episodes = shown["return"], shown["episodes"]
        ended = episodes > 0
        mean_return = returns[ended] @ episodes[ended] / episodes.sum() if ended.any() else math.nan
        left = tqdm.format_interval(seconds * (self.total - self.done) / (self.done - self.start))
        parts = [
            (0, f"{self.done}/{self.total} updates"),
            (2, f"return {_number(mean_return, 4)}"),
            (3, f"evaluated {_number(self._evaluation(shown), 4)}"),
            (7, f"grad norm {_number(shown['grad_norm'].mean())}"),
            (6, f"entropy {_number(shown['entropy'].mean())}"),
            (4, f"{tqdm.format_sizeof(self.env_steps / seconds)} steps/s"),
        ]
        if not fine.all():
            fault = results.fault_of_runs(np.asarray(self.causes)[~fine])
            parts.append((3, f"{(~fine).sum()} of {len(fine)} runs {fault}"))
        parts.append((1, f"{left} {self.left}"))
        if "eval_return" not in metrics:
            parts = [part for part in parts if not part[1].startswith("evaluated")]
        return parts

    def _evaluation(self, metrics: Mapping[str, Any]) -> float:
        """The mean return of the last evaluation during training; NaN before the first."""
        if "eval_return" in metrics:
            last = metrics["eval_return"][:, -1]
            if not np.isnan(last).all():
                self.evaluated = float(last.mean())
        return self.evaluated

    def _bar(self) -> str:
        share = self.done / self.total
        unicode = "utf" in (self.line.stream.encoding or "").lower()
        return f"{100 * share:3.0f}%|{format(Bar(share, BAR, Bar.UTF if unicode else Bar.ASCII))}|"

    def close(self) -> None:
        """Ends the line."""
        self.before.close()
        self.line.keep()


def _number(x: float, digits: int = 3) -> str:
    return numerals.typed(numerals.number(x, digits))
