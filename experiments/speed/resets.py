"""Measure the two ways in which a window resets environments: an initial state drawn ahead for
every step of the window, or in the step of an end, of the environments that ended alone.

Both take turns. The table says how many numbers one reset computes, by which `pg.fast.resets`
chooses between the two, and the steps per second of processor time that each reaches.
"""

import contextlib
import dataclasses
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
    """Prints a table, a row for each environment."""
    options = cli.options(Options, cli.docstring_of(__file__))
    if min(options.num_envs, options.num_steps, options.repeats) < 1:
        cli.fail("num_envs, num_steps and repeats must be at least 1")
    cells = [["environment", "numbers of a reset", *WAYS, "ratio", "taken"]]
    try:
        cells += [[name, *measured(name, options)] for name in options.envs]
    except ValueError as error:  # a name that no environment has
        cli.fail(error)
    print(tables.plain(cells), flush=True)


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

    def compiled(bound: float) -> timing.Program:
        def window(state: Any, key: jax.Array) -> Any:  # anew, as jax keeps what it has traced
            after, traj, _ = rollout.windows(env, policy, params, key, state, options.num_steps)
            return (after, traj.reward), traj.reward.size

        with _bound(bound):
            return timing.compiled(window, state)

    programs = dict(zip(WAYS, map(compiled, (float("inf"), -1.0)), strict=True))
    timings = timing.take_turns(programs, options.repeats)
    ahead, where_ended = (timings[way].steps / timings[way].cpu_seconds for way in WAYS)
    per_reset = resets.numbers_computed(jax.make_jaxpr(env.reset)(key)) / options.num_envs
    ratio = np.median(where_ended / ahead)
    taken = WAYS[per_reset > resets.NUMBERS]
    rates = [f"{np.median(rate):,.0f}" for rate in (ahead, where_ended)]
    return [f"{per_reset:,.0f}", *rates, f"{ratio:.2f}", taken]


@contextlib.contextmanager
def _bound(numbers: float) -> Iterator[None]:
    """The bound on what a reset may compute and be drawn ahead, for what is traced within."""
    from pg.fast import resets

    before = resets.NUMBERS
    resets.NUMBERS = numbers  # type: ignore[assignment]
    try:
        yield
    finally:
        resets.NUMBERS = before


if __name__ == "__main__":
    main()
