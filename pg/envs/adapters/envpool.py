"""EnvPool: environments in C++, all stepped in one call by their own threads,
`envpool:HalfCheetah-v4`, `envpool:Pong-v5`.

They work like those of `pg.envs.adapters.gymnasium` (`pg.envs.adapters.hosted`), with one
difference: an environment of EnvPool takes its seed when it is made, and its episodes follow from
there one after another, so that no history restores a state. A state can be stepped from once; to
use it again is an error: groups of episodes, branches and extra transitions need
`gymnasium:NAME`. A resumed run begins with new episodes, and reports that.

The library resets an environment in the step after its end. Here it is told to do so in the step of
the end, once the true successor has been taken. Its own step limit is set beyond ours, so that time
limits are ours and not terminations. Observations are those of the library, one array each, in
its own dtypes; the rest of `info` is lost.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import envpool
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from pg.envs import spaces
from pg.envs.adapters.base import NEVER
from pg.envs.adapters.hosted import HostedEnv, Shapes
from pg.envs.adapters.hosts import Arrays, Host, HostError, Outcome
from pg.inputs import check_name

__all__ = ["make"]

PROMISE = (
    "the environments live in EnvPool, whose state is not in checkpoints: a resumed run restarts "
    "its unfinished episodes, and is not bitwise identical to an uninterrupted one"
)


class _Slot(NamedTuple):
    pool: Any
    number: int


class EnvPoolFleet:
    """Environments of EnvPool, a pool of them for each reset."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        """Environments of this name, with these options of `envpool.make`."""
        self.own_name, self.name, self.options = name, f"envpool:{name}", options

    def begin(self, seeds: Sequence[int]) -> list[tuple[_Slot, Arrays]]:
        """A slot with a new episode for each seed, all in one pool, and its observation."""
        own_seeds = [seed >> 1 for seed in seeds]  # which have 31 bits
        pool = self.pool(num_envs=len(seeds), seed=own_seeds)
        try:
            obs, info = pool.reset()
        except Exception as error:
            raise self._fault("reset", error) from None
        slots = [_Slot(pool, i) for i in range(len(seeds))]
        rows = _in_order(obs, info)
        return [(slot, [rows[slot.number]]) for slot in slots]

    def step(
        self, slots: Sequence[_Slot], actions: Arrays, last: Sequence[bool], seeds: Sequence[int]
    ) -> list[Outcome]:
        """One step of each; arguments as in `Fleet.step`, whose seeds are not used."""
        outcomes: list[Any] = [None] * len(slots)
        for pool in {id(slot.pool): slot.pool for slot in slots}.values():
            mine = [i for i, slot in enumerate(slots) if slot.pool is pool]
            numbers = np.array([slots[i].number for i in mine], np.int32)
            chosen = np.asarray(actions[0][mine], pool.action_space.dtype)
            try:
                obs, reward, terminated, truncated, info = pool.step(chosen, numbers)
                rows = [_in_order(x, info) for x in (obs, reward, terminated, truncated)]
                own = [[x[n] for x in rows] for n in numbers.tolist()]
                ends = [bool(row[2] or row[3] or last[i]) for i, row in zip(mine, own, strict=True)]
                fresh: dict[int, Any] = {}
                if len(seeds) and any(ends):
                    fresh = _in_order(*pool.reset(numbers[ends]))
            except Exception as error:
                raise self._fault("step", error) from None
            for i, number, row in zip(mine, numbers.tolist(), own, strict=True):
                seen, total, has_ended, is_cut = row
                start = [fresh[number]] if number in fresh else None
                ends_here = bool(has_ended), bool(is_cut)
                outcomes[i] = Outcome([seen], float(total), *ends_here, start)
        return outcomes

    def replay(self, seeds: Sequence[int], pasts: Sequence[Arrays]) -> list[tuple[_Slot, Outcome]]:
        """Raises HostError, unless there is nothing to do."""
        if not seeds:
            return []
        raise HostError(
            f"{self.name} cannot return to a state: an environment of EnvPool steps from each "
            f"of its states once, so groups, branches, extra transitions and other runs from one "
            f"state need gymnasium:NAME"
        )

    def render_episode(self, seed: int, past: Arrays) -> Generator[tuple[np.ndarray, Arrays]]:
        """Raises HostError: no history leads to a state again."""
        raise HostError(f"{self.name} draws no pictures: use gymnasium:NAME")

    def release(self, slot: _Slot) -> None:
        """Does nothing: a pool is freed with its last reference."""

    def close(self) -> None:
        """Does nothing, like `release`."""

    def pool(self, **options: Any) -> Any:
        """A pool of environments with these options."""
        return envpool.make(self.own_name, env_type="gymnasium", **{**self.options, **options})

    def _fault(self, method: str, error: Exception) -> HostError:
        line = str(error).strip().partition("\n")[0]
        return HostError(f"the {method} of {self.name} fails: {type(error).__name__}: {line}")


def make(name: str, max_steps: int | None = None, **options: Any) -> HostedEnv:
    """The environment that EnvPool has under this name; options are those of `envpool.make`.

    Raises ValueError for an unknown name, and spaces that are not one Box or Discrete.
    """
    known = envpool.list_all_envs()
    check_name("environment of envpool", name, known, "envpool.list_all_envs() lists them")
    fleet = EnvPoolFleet(name, {**options, "max_episode_steps": NEVER})
    usual = envpool.make_spec(name, **options).config.max_episode_steps
    one = fleet.pool(num_envs=1, seed=0)
    actions = _space("actions", one.action_space, name)
    observations = _space("observations", one.observation_space, name)
    obs = jax.ShapeDtypeStruct(
        one.observation_space.shape, jax.dtypes.canonicalize_dtype(one.observation_space.dtype)
    )
    return HostedEnv(
        f"envpool:{name}",
        Host(fleet, [obs.dtype]),
        Shapes(obs, (), jax.ShapeDtypeStruct(actions.shape, actions.dtype)),
        actions,
        observations,
        max_steps or usual,
        promise=PROMISE,
        repeats=False,
    )


def _space(what: str, space: Any, name: str) -> Any:
    """A space of EnvPool as one of gymnax."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        whole = what == "observations" or jnp.issubdtype(space.dtype, jnp.integer)
        dtype = jax.dtypes.canonicalize_dtype(space.dtype if whole else float)
        return spaces.Box(space.low, space.high, space.shape, dtype)
    raise ValueError(
        f"the {what} of {name} must be a Box or Discrete, got {type(space).__name__}: use "
        f"gymnasium:NAME, if Gymnasium has it"
    )


def _in_order(rows: Any, info: Any) -> dict[int, Any]:
    """Rows of a pool, by the numbers of the environments."""
    return {int(n): np.array(row) for n, row in zip(info["env_id"], rows, strict=True)}
