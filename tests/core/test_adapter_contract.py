"""The contract of adapters, for each environment of `own_loops.ENTRIES`, and negative controls:
broken adapters fail it.

A library that is not installed is skipped; `make test-adapters` has them all.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_contract import Contract
from own_loops import ENTRIES, HALLWAY, hallway

from pg.envs.adapters.base import Adapter

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries


@pytest.fixture(scope="module", params=ENTRIES)
def contract(request: pytest.FixtureRequest) -> Iterator[Contract]:
    """The contract of an entry whose library is installed, whose own code may promote ranks."""
    entry = ENTRIES[request.param]
    for module in entry.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: `make test-adapters` installs it")
    if lacks := entry.lacks():
        pytest.skip(lacks)
    with jax.numpy_rank_promotion("allow"):
        yield Contract(entry)


def test_random_rollouts_are_the_librarys_own(contract: Contract) -> None:
    contract.rollouts_are_the_librarys()


def test_a_limit_is_a_truncation_with_the_true_successor(contract: Contract) -> None:
    contract.a_limit_is_a_truncation()


def test_the_limit_is_the_librarys_own(contract: Contract) -> None:
    contract.the_limit_is_the_librarys()


def test_a_key_determines_a_rollout_alone_and_among_others(contract: Contract) -> None:
    contract.a_key_determines_a_rollout()


def test_a_state_is_of_arrays_that_can_be_kept(contract: Contract) -> None:
    contract.a_state_can_be_kept()


@pytest.mark.slow
@pytest.mark.parametrize("collect", ["episodes", "windows"])
def test_three_updates(contract: Contract, collect: str) -> None:
    contract.it_is_trained(collect)


def test_three_updates_of_an_environment_in_python() -> None:
    Contract(ENTRIES["gymnasium"]).it_is_trained("windows")


def broken(change: Callable[..., Any], **options: Any) -> Adapter:
    """The adapter of the tests' library with other functions.

    change: reset, step -> reset, step.
    """
    good = hallway(**options)
    reset, step = change(good._reset, good._step)
    bad = Adapter(good.name, reset, step, good._action_space, good._max_steps)
    bad.action_mask = good.action_mask
    return bad


def resets_early(reset: Any, step: Any) -> Any:
    """At an end, the next episode has already begun."""

    def wrong(key: jax.Array, state: Any, action: Any) -> Any:
        obs, after, reward, terminated, truncated = step(key, state, action)
        begun = reset(key)
        obs, after = jax.tree.map(
            lambda new, old: jnp.where(terminated, new, old), begun, (obs, after)
        )
        return obs, after, reward, terminated, truncated

    return reset, wrong


def shows_a_reset(reset: Any, step: Any) -> Any:
    """At an end the observation is that of the next episode."""

    def wrong(key: jax.Array, state: Any, action: Any) -> Any:
        obs, *rest = step(key, state, action)
        first = reset(key)[0]
        return jax.tree.map(lambda new, old: jnp.where(rest[2], new, old), first, obs), *rest

    return reset, wrong


def ends_never(reset: Any, step: Any) -> Any:
    """Ends are not passed on."""

    def wrong(key: jax.Array, state: Any, action: Any) -> Any:
        obs, after, reward, _, truncated = step(key, state, action)
        return obs, after, reward, False, truncated

    return reset, wrong


def ends_at(limit: int) -> Any:
    """The library's time limit counts as termination."""

    def change(reset: Any, step: Any) -> Any:
        def wrong(key: jax.Array, state: Any, action: Any) -> Any:
            obs, after, reward, terminated, truncated = step(key, state, action)
            return obs, after, reward, terminated | (after[2] >= limit), truncated

        return reset, wrong

    return change


def cuts_at(limit: int) -> Any:
    """The library truncates at a limit that the adapter does not know."""

    def change(reset: Any, step: Any) -> Any:
        def wrong(key: jax.Array, state: Any, action: Any) -> Any:
            obs, after, reward, terminated, _ = step(key, state, action)
            return obs, after, reward, terminated, after[2] >= limit

        return reset, wrong

    return change


def swaps_parts(reset: Any, step: Any) -> Any:
    """Two parts of the observation are swapped."""

    def swapped(obs: Any) -> Any:
        return {**obs, "at": obs["at"][::-1]}

    def wrong(key: jax.Array, state: Any, action: Any) -> Any:
        obs, *rest = step(key, state, action)
        return swapped(obs), *rest

    return lambda key: (swapped(reset(key)[0]), reset(key)[1]), wrong


def pays_late(reset: Any, step: Any) -> Any:
    """The reward is that of the previous step."""

    def wrong(key: jax.Array, state: Any, action: Any) -> Any:
        obs, after, _, *ends = step(key, state, action)
        return obs, after, state[0], *ends

    return reset, wrong


def has_one_key(reset: Any, step: Any) -> Any:
    """Every step draws the same numbers."""
    return reset, lambda key, *rest: step(jax.random.key(0), *rest)


def shifts_actions(reset: Any, step: Any) -> Any:
    """Actions are offset by one."""
    return reset, lambda key, state, action: step(key, state, (action + 1) % 3)


def has_a_state_of_its_own(reset: Any, step: Any) -> Any:
    """The observation shows how many calls were made."""
    asked = itertools.count()

    def wrong(key: jax.Array) -> Any:
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        number = jax.pure_callback(
            lambda _: np.float32(next(asked)), shape, key, vmap_method="sequential"
        )
        obs, state = reset(key)
        return {**obs, "time": number[None]}, state

    return wrong, step


def keeps_a_typed_key(reset: Any, step: Any) -> Any:
    """Its state holds a key."""

    def with_key(key: jax.Array) -> Any:
        obs, state = reset(key)
        return obs, (*state, key)

    def wrong(key: jax.Array, state: Any, action: Any) -> Any:
        obs, after, *rest = step(key, state[:3], action)
        return obs, (*after, key), *rest

    return with_key, wrong


BROKEN: dict[str, tuple[Any, str, str]] = {
    "resets early": (resets_early, "rollouts_are_the_librarys", "observation"),
    "shows a reset": (shows_a_reset, "rollouts_are_the_librarys", "observation"),
    "swaps parts": (swaps_parts, "rollouts_are_the_librarys", r"observation\['at'\]"),
    "pays late": (pays_late, "rollouts_are_the_librarys", "reward"),
    "has one key": (has_one_key, "rollouts_are_the_librarys", "reward"),
    "shifts actions": (shifts_actions, "rollouts_are_the_librarys", "reward"),
    "never ends": (ends_never, "rollouts_are_the_librarys", "terminated=False"),
    "ends at the limit that is set": (ends_at(3), "a_limit_is_a_truncation", "terminated=True"),
    "ends at its own limit": (ends_at(100), "the_limit_is_the_librarys", "after 100 steps"),
    "is cut at a limit of its own": (cuts_at(60), "the_limit_is_the_librarys", "after 60 steps"),
    "has a state of its own": (has_a_state_of_its_own, "a_key_determines_a_rollout", "Mismatch"),
    "keeps a typed key": (keeps_a_typed_key, "a_state_can_be_kept", "typed key"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_adapter_fails(how: str) -> None:
    change, promise, said = BROKEN[how]
    bad = Contract(HALLWAY._replace(make=lambda name: broken(change)))
    with pytest.raises(AssertionError, match=said):
        getattr(bad, promise)()


def test_a_mask_that_is_late_fails() -> None:
    def late(name: str) -> Adapter:
        adapter = hallway()
        adapter.action_mask = lambda state, params: jnp.stack([True, True, state.inner[2] % 2 == 1])
        return adapter

    with pytest.raises(AssertionError, match="action mask"):
        Contract(HALLWAY._replace(make=late)).rollouts_are_the_librarys()


def test_another_limit_than_the_librarys_fails() -> None:
    with pytest.raises(AssertionError):
        Contract(HALLWAY._replace(limit=99)).the_limit_is_the_librarys()


def test_a_limit_of_the_librarys_that_stays_in_its_counter_fails() -> None:
    """An option sets it: the adapter hands it on, and takes the end that comes of it."""

    def counting(name: str, limit: int = 100) -> Adapter:
        return broken(ends_at(limit), limit=limit)

    entry = HALLWAY._replace(make=counting, limit_option="limit")
    with pytest.raises(AssertionError, match="step 2: terminated=True"):
        Contract(entry).the_limit_is_the_librarys()
    sound = HALLWAY._replace(make=lambda name, limit=100: hallway(limit), limit_option="limit")
    Contract(sound).the_limit_is_the_librarys()


def test_an_entry_without_an_end_fails() -> None:
    """Rollouts in which no episode ends would not test ends."""
    entry = HALLWAY._replace(num_steps=1)
    with pytest.raises(AssertionError, match="no episode of tests:Hallway ended"):
        Contract(entry).rollouts_are_the_librarys()
