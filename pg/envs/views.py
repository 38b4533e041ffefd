"""The parts of an observation that policy and critic see, by `observe` and `critic_observe`.

    observe           all of an observation, entries of a vector, or names of its parts
    critic_observe    the same, others, the result of the environment's method of that name, or
                  the policy's observation with the time

If policy and critic see the same, that is the observation. Otherwise the observation is a
dictionary of the union: the parts by their names, each once, {"policy": ..., "time": ...},
or {"policy": ..., "critic": ...}. So both are stored wherever an observation is: trajectories,
minibatches, true successors, running statistics.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pg.config import WITH_TIME, name_of
from pg.envs import spaces
from pg.envs.env_spaces import space_of
from pg.envs.failures import InterfaceError
from pg.envs.observations import (
    Encoding,
    Masked,
    encoding_of_parts,
    is_one_array,
    observation_encoding,
    part_of_space,
)
from pg.inputs import check_name

__all__ = ["Timed", "View", "Views", "choose", "make_views", "named_parts", "seen"]

# The name of one entry of a dictionary, which is shown itself; the names of several, which are
# shown as a dictionary; () for the whole observation.
View = str | tuple[str, ...]
Chosen = tuple[int | str, ...]  # entries of a vector, or names of parts; () for all

METHOD = "critic_observe"
POLICY, CRITIC, TIME = "policy", "critic", "time"


class Timed(NamedTuple):
    """The state of an environment with the time of its episode."""

    state: Any
    time: jax.Array  # int: steps of the environment since the reset

    @classmethod
    def wrap(
        cls, reset: Callable[..., Any], step: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """`reset` and `step` whose states have the time; arguments as in `Views.applied`."""

        def timed_reset(key: Any, params: Any) -> tuple[Any, "Timed"]:
            obs, state = reset(key, params)
            return obs, cls(state, jnp.int32(0))

        def timed_step(key: Any, timed: "Timed", action: Any, params: Any) -> tuple[Any, ...]:
            state, *rest = step(key, timed.state, action, params)
            return cls(state, timed.time + 1), *rest

        return timed_reset, timed_step

    def share(self, params: Any) -> jax.Array:
        """The elapsed share of the environment's own time limit, [] in [0, 1]; that of a run,
        `Config.horizon`, may be shorter.
        """
        return self.time / jnp.asarray(params.max_steps_in_episode, float)


class Views(NamedTuple):
    """The parts of an observation that policy and critic see."""

    policy: View = ()
    critic: View = ()
    # stored parts of a structured observation; () for all of it
    names: tuple[str, ...] = ()
    # entries of a vector that each sees; () for all
    policy_entries: tuple[int, ...] = ()
    critic_entries: tuple[int, ...] = ()
    # each has its own observation, in a dictionary of the two
    apart: bool = False
    # the critic sees the policy's observation and the time, in a dictionary of the two
    timed: bool = False
    # state, params -> the critic's observation, if it is not a part of the observation
    method: Callable[[Any, Any], Any] | None = None

    @property
    def change_observations(self) -> bool:
        """True if the stored observations differ from the environment's own."""
        return bool(self.names) or self.apart or self.timed

    def applied(
        self, reset: Callable[..., Any], step: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """`reset` and `step` that return the stored parts of observations.

        Args:
            reset: key, params -> obs, state.
            step: key, state, action, params -> state, obs, reward, terminated, truncated.
        """
        if self.timed:
            reset, step = Timed.wrap(reset, step)

        def kept_reset(key: Any, params: Any) -> tuple[Any, Any]:
            obs, state = reset(key, params)
            return self._kept(obs, state, params), state

        def kept_step(key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
            state, obs, *rest = step(key, state, action, params)
            return state, self._kept(obs, state, params), *rest

        return kept_reset, kept_step

    def _kept(self, obs: Any, state: Any, params: Any) -> Any:
        """The stored parts of an observation, `Masked` if it is."""
        if isinstance(obs, Masked):
            return Masked(self._kept(obs.obs, state, params), obs.mask)
        obs = choose(obs, self.names)
        if self.timed:
            return {POLICY: obs, TIME: state.share(params)}
        if not self.apart:
            return obs
        return {POLICY: obs, CRITIC: self.method(state, params) if self.method else obs}

    def encoding(self, env: Any, params: Any, obs: Any) -> Encoding:
        """The encoding of a batch of observations as floats.

        Args:
            env: An environment with gymnax's interface.
            params: Its parameters.
            obs: The shapes and dtypes of the stored parts of one observation.

        Raises:
            ValueError: For observations that cannot be encoded, or have no such entries.
        """
        if isinstance(obs, Masked):
            inner = self.encoding(env, params, obs.obs)

            def encode_masked(own: Masked) -> Masked:
                return Masked(inner.encode(own.obs), own.mask)

            return inner._replace(encode=encode_masked)
        space = space_of(env, "observation_space", params)
        if len(self.names) == 1:
            space = part_of_space(space, self.names[0])
        if not self.apart and not self.timed:
            return observation_encoding(space, obs, self.policy_entries)
        of_policy = observation_encoding(space, obs[POLICY], self.policy_entries)
        if self.timed:
            of_time = observation_encoding(spaces.Box(0.0, 1.0, ()), obs[TIME])
            return encoding_of_parts({POLICY: of_policy, TIME: of_time})
        if self.method is not None:
            space = space_of(env, f"{METHOD}_space", params)
        of_critic = observation_encoding(space, obs[CRITIC], self.critic_entries, METHOD)
        return encoding_of_parts({POLICY: of_policy, CRITIC: of_critic})


def make_views(env: Any, obs: Any, observe: Chosen = (), critic_observe: Chosen = ()) -> Views:
    """The parts of an environment's observation that policy and critic see.

    Args:
        env: An environment with gymnax's interface.
        obs: The shapes and dtypes of one observation, as reset returns it, without its mask.
        observe: The policy's part: entries of a vector, or names of parts; all if empty.
        critic_observe: The critic's part, like observe; or one word: all, policy (the policy's
            part), policy_and_time (that, and the elapsed share of the time limit), or method (the
            result of `env.critic_observe(state, params)`); if empty, the method if there is one,
            else the policy's part.

    Raises:
        ValueError: For a missing method or missing parts, and for entries if the observation is not
            a vector.
    """
    method = _method_of(env, critic_observe)
    names, entries = _parts("observe", observe, obs)
    if method is not None:
        return Views(POLICY, CRITIC, names, entries, apart=True, method=method)
    if critic_observe == (WITH_TIME,):
        return Views(POLICY, (POLICY, TIME), names, entries, timed=True)
    if critic_observe in ((), ("policy",)):
        return Views(names=names, policy_entries=entries)
    of_critic = () if critic_observe == ("all",) else critic_observe
    critic_names, critic_entries = _parts(METHOD, of_critic, obs)
    if names or critic_names:
        return _by_name(tuple(named_parts("observe", obs)), names, critic_names)
    if critic_entries == entries:
        return Views(policy_entries=entries)
    return Views(POLICY, CRITIC, (), entries, critic_entries, apart=True)


def seen(tree: Any, view: View) -> Any:
    """The part that a view shows of a tree with the structure of an observation."""
    if isinstance(view, str):
        return tree[view]
    return {name: tree[name] for name in view} if view else tree


def choose(obs: Any, names: tuple[str, ...]) -> Any:
    """The parts of an observation with these names: a single one itself, or a dictionary of
    several; the whole observation without names.
    """
    return seen(named_parts("observe", obs), _view(names)) if names else obs


def named_parts(setting: str, obs: Any) -> Mapping[str, Any]:
    """The parts of a structured observation by their names.

    Raises ValueError for one without names. setting: the setting that asks for them.
    """
    if isinstance(obs, Mapping):
        return {str(name): part for name, part in obs.items()}
    if hasattr(obs, "_asdict"):
        return dict(obs._asdict())
    if dataclasses.is_dataclass(obs) and not isinstance(obs, type):
        return {field.name: getattr(obs, field.name) for field in dataclasses.fields(obs)}
    also = f"; the policy's observation with the time is {WITH_TIME!r}" if setting == METHOD else ""
    kind = f"has shape {obs.shape}" if is_one_array(obs) else f"is a {type(obs).__name__}"
    raise InterfaceError(
        f"{setting} names parts of a dictionary, and the observation {kind}, without names{also}"
    )


def _method_of(env: Any, critic_observe: Chosen) -> Callable[[Any, Any], Any] | None:
    """The environment's method for the critic's observation; None if another one is chosen."""
    if critic_observe not in ((), ("method",)):
        return None
    method = getattr(env, METHOD, None)
    if callable(method):
        return method
    if critic_observe:
        raise InterfaceError(
            f"critic_observe='method', but {name_of(env)} has no method {METHOD}(state, params)"
        )
    return None


def _parts(setting: str, chosen: Chosen, obs: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The chosen names and entries, one of which is empty."""
    names = tuple(dict.fromkeys(part for part in chosen if isinstance(part, str)))
    if names:
        parts = named_parts(setting, obs)
        for name in names:
            check_name(f"part of the observation in {setting}", name, parts)
    entries = tuple(part for part in chosen if isinstance(part, int))
    if entries and not is_one_array(obs):
        raise ValueError(
            f"{setting} chooses entries of a vector, and the observation is a "
            f"{type(obs).__name__}: write the names of its parts"
        )
    return names, entries


def _by_name(
    every: tuple[str, ...], of_policy: tuple[str, ...], of_critic: tuple[str, ...]
) -> Views:
    """The views of parts with names.

    Args:
        every: The names of all parts.
        of_policy: The policy's; all if empty.
        of_critic: The critic's; all if empty.
    """
    of_policy, of_critic = of_policy or every, of_critic or every
    if set(of_policy) == set(of_critic):
        return Views(names=of_policy)
    either = tuple(dict.fromkeys((*of_policy, *of_critic)))
    return Views(_view(of_policy), _view(of_critic), either)


def _view(names: tuple[str, ...]) -> View:
    """The view of parts with these names."""
    return names[0] if len(names) == 1 else names
