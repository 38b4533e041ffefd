"""The kernels and loops of an optimized program, read off its text (HLO). Imports no jax."""

import re
from typing import NamedTuple

# Instructions that launch nothing: they name, take apart or put together buffers, or lead into
# another computation.
NO_KERNEL = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "while",
    "conditional",
    "call",
    "opt-barrier",
    "partition-id",
    "replica-id",
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\(")
_CALLED = re.compile(r"(?:to_apply|true_computation|false_computation)=%?([\w.-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Loop(NamedTuple):
    """A loop of a program."""

    kernels: int  # of a turn, without those of loops in it
    turns: int | None  # None: the compiler does not know their number
    has_loops: bool  # there are loops in it


class Computation(NamedTuple):
    """A computation of a program's text."""

    kernels: int
    called: tuple[str, ...]  # computations that are part of it
    loops: tuple[tuple[str, int | None], ...]  # bodies and turns


def counted(text: str) -> tuple[str, list[Loop]]:
    """The launches of an optimized program as a sum over its loops, and the loops.

    In the sum `10 × (30)` is a loop of 10 turns with 30 kernels each, and `?` a number of turns
    that depends on the data.
    """
    computations, entry = parsed(text)
    loops: list[Loop] = []

    def launches(name: str) -> tuple[int, list[str]]:
        """Kernels of a computation, and the summands of its loops, which are noted."""
        this = computations[name]
        total, summands = this.kernels, list[str]()
        for called in this.called:
            more, inner = launches(called)
            total += more
            summands += inner
        for body, turns in this.loops:
            own, inner = launches(body)
            loops.append(Loop(own, turns, bool(inner)))
            factor = "?" if turns is None else str(turns)
            summands.append(f"{factor} × ({' + '.join([str(own), *inner])})")
        return total, summands

    outside, summands = launches(entry)
    return " + ".join([str(outside), *summands]), loops


def parsed(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of an optimized program's text, and the name of the first."""
    found: dict[str, Computation] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name = head[2]
            entry = name if head[1] else entry
            found[name] = Computation(0, (), ())
        elif instruction := _INSTRUCTION.match(line):
            found[name] = _with(found[name], instruction[1], line)
    return found, entry


def _with(this: Computation, operation: str, line: str) -> Computation:
    """A computation with one more instruction."""
    if operation == "while":
        body = re.search(r"body=%?([\w.-]+)", line)
        assert body is not None
        turns = _TURNS.search(line)
        loop = body[1], int(turns[1]) if turns else None
        return this._replace(loops=(*this.loops, loop))
    if operation in ("call", "conditional"):
        called = [*_CALLED.findall(line)]
        for names in _BRANCHES.findall(line):
            called += [name.strip().removeprefix("%") for name in names.split(",")]
        return this._replace(called=(*this.called, *called))
    if operation in NO_KERNEL or operation.endswith("-done"):
        return this
    return this._replace(kernels=this.kernels + 1)
