"""Measure the two ways in which a window resets environments: an initial state drawn ahead for
every step of the window, or in the step of an end, of the environments that ended alone.

Both take turns. The table says how many numbers one reset computes, by which `pg.fast.resets`
chooses between the two, the steps per second of processor time that each reaches, and if the first
window of both is the same bit for bit.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from pg.commands import cli
from pg.reports import tables

WAYS = ("ahead", "where ended")


@dataclasses.dataclass
class Options:
    """The environments that are compared."""

    envs: tuple[str, ...] = ("CartPole-v1", "Breakout-MinAtar", "Pong-misc")
    """Environments by name; those of other libraries as library:name."""
    num_envs: int = 64
    """Number of environments of a window."""
    num_steps: int = 32
    """Number of steps of a window."""
    repeats: int = 5
    """Number of turns that are timed."""


def main() -> None:
    """Prints a small table for each environment, when it is measured."""
    options = cli.options(Options, cli.docstring_of(__file__))
    if min(options.num_envs, options.num_steps, options.repeats) < 1:
        cli.fail("num_envs, num_steps and repeats must be at least 1")
    head = "numbers of a reset", *WAYS, "ratio", "same bits", "taken"
    for name in options.envs:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            cells = measured(name, options)
        except ValueError as error:  # a name that no environment has
            cli.fail(error)
        print(tables.plain([["environment", *head], [name, *cells]]), flush=True)


def measured(name: str, options: Options) -> list[str]:
    """The cells of an environment."""
    import jax
    import numpy as np
    import timing

    from pg import rollout
    from pg.config import Config
    from pg.envs import make_env
    from pg.fast import resets
    from pg.networks import make_policy

    env = make_env(name, options.num_envs)
    policy = make_policy(Config(env=name, preset=None), env)
    key = jax.random.key(0)
    params = policy.init(key)
    state = rollout.start(env, policy, key)

    def compiled(is_ahead: bool) -> timing.Program:
        def window(state: Any, key: jax.Array) -> Any:  # a new function, as jax caches its traces
            after, traj, _ = rollout.windows(env, policy, params, key, state, options.num_steps)
            return (after, traj.reward), traj.reward.size

        with _drawn_ahead(is_ahead):
            return timing.compiled(window, state)

    programs = dict(zip(WAYS, map(compiled, (True, False)), strict=True))
    results = [program.run(key)[0] for program in programs.values()]
    is_same = all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), *results)))
    timings = timing.take_turns(programs, options.repeats)
    ahead, where_ended = (timings[way].steps / timings[way].cpu_seconds for way in WAYS)
    ratio = np.median(where_ended / ahead)
    rates = [f"{np.median(rate):,.0f}" for rate in (ahead, where_ended)]
    numbers = resets.numbers_per_reset(env.reset)
    taken = WAYS[resets.is_costly(env.reset)]
    return [f"{numbers:,}", *rates, f"{ratio:.2f}", "yes" if is_same else "no", taken]


@contextlib.contextmanager
def _drawn_ahead(is_ahead: bool) -> Iterator[None]:
    """A context for tracing in which all initial states are drawn ahead, or none."""
    from pg import window_resets
    from pg.fast import resets

    before = resets.NUMBERS, window_resets.FRESH_BYTES
    bound = 2**62 if is_ahead else -1
    resets.NUMBERS, window_resets.FRESH_BYTES = dict.fromkeys(before[0], bound), bound
    try:
        yield
    finally:
        resets.NUMBERS, window_resets.FRESH_BYTES = before


if __name__ == "__main__":
    main()
