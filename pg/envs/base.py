"""Environments: B copies of a gymnax environment as two pure functions, `Env(reset, step)`.

Differences between environments are removed here: observations become float arrays (discrete ones
are one-hot encoded), rewards floats, continuous actions are clipped to their box, and the step
separates what gymnax's auto-reset would mix: `terminated`, `truncated`, and the true successor
observation.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pg.config import Config, check_config, check_standardised, check_steps
from pg.envs.actions import action_space
from pg.envs.env_params import as_arrays, default_params, override, time_limit
from pg.envs.env_spaces import ActionSpace
from pg.envs.interface import EnvState, reset_and_step, shapes_of
from pg.envs.masks import as_mask, check_some_legal, split_mask, with_masks
from pg.envs.observations import Masked, is_bounds, is_shape
from pg.envs.registry import environment_of, with_gradients
from pg.envs.step_checks import as_dtypes, checked_dtypes
from pg.envs.time_limit_checks import check_time_limit
from pg.envs.views import Timed, View, Views, choose, make_views, seen
from pg.estimators.names import facts_of
from pg.fast import key_numbers, row_keys
from pg.fast.scans import scan_keys
from pg.inputs import check_key, count, entries_or_names

__all__ = ["Env", "Restart", "Transition", "configured", "make_env"]


class Transition(NamedTuple):
    """The results of one step of B environments."""

    reward: jax.Array  # [B] float
    terminated: jax.Array  # [B] bool: the task ended; nothing follows
    # [B] bool: a time limit cut the episode; both can be set, then `terminated` wins
    truncated: jax.Array
    # [B, *O] the true successor, never the observation of a reset; `Masked` like that of reset
    next_obs: Any
    steps: Any = ()  # int [B] environment steps of a repeated action; () without action repeat


class Restart(NamedTuple):
    """The next episodes of environments that begin them by themselves, in the step that ends
    one.
    """

    # env_state at an end -> env_state, obs of the next episode, which has already begun
    begin: Callable[[EnvState], tuple[EnvState, Any]]
    # largest number of steps of an `Env` after which it begins one; None: only at the ends in
    # `Transition`
    horizon: int | None


class Env(NamedTuple):
    """B environments as pure functions. Steps do not reset: rollouts do, if they need to."""

    # key -> env_state, obs [B, *O]; or keys [N], of any number of environments -> obs [N, *O]
    reset: Callable[[jax.Array], tuple[EnvState, Any]]
    # key, env_state, action [B, *A] (a tuple of a ProductSpace) -> env_state, Transition
    step: Callable[..., tuple[EnvState, Transition]]
    num_envs: int
    obs_shape: Any  # of an observation: a tuple, or a tree of them
    action_space: ActionSpace
    # the environment's own time limit, in steps of this one; None: it is traced
    max_steps: int | None
    differentiable: bool = False  # a step passes on the derivative of state and observation
    # bounds of every entry of an observation; None: not all are known; or a tree of these
    obs_bounds: Any = None
    # number of kinds of tokens, which networks see one-hot; 0: numbers; None: all are numbers; or a
    # tree of these
    obs_kinds: Any = None
    # storage dtype of observations, which are floats, in a trajectory: bytes if they come as bytes
    obs_dtype: Any = float
    # conversions between the environment's code and a policy: observations [B, ...], shapes and
    # dtypes of one raw observation, an action
    encode: Callable[[Any], Any] = jnp.asarray
    own_obs: Any = jax.ShapeDtypeStruct((), float)  # `Masked` with masks
    to_own_action: Callable[[Any], Any] = jnp.asarray
    action_repeat: int = 1  # largest number of environment steps for which an action is repeated
    masked: bool = False  # observations are `Masked`: the environment says what is legal
    views: Views = Views()  # the parts of an observation that policy and critic see
    restart: Restart | None = None  # None: they do not begin by themselves, and are reset

    @property
    def obs_size(self) -> int:
        """The number of entries of an observation."""
        return sum(map(math.prod, jax.tree.leaves(self.obs_shape, is_leaf=is_shape)))

    def of_leaves(self) -> list["Env"]:
        """This environment, once for each array of an observation, as if that were the whole
        one.
        """
        shapes = jax.tree.leaves(self.obs_shape, is_leaf=is_shape)
        bounds = jax.tree.leaves(self.obs_bounds, is_leaf=is_bounds)
        kinds = jax.tree.leaves(self.obs_kinds) or [0] * len(shapes)
        leaves = zip(shapes, bounds, kinds, strict=True)
        return [self._replace(obs_shape=s, obs_bounds=b, obs_kinds=k) for s, b, k in leaves]

    def seen_by(self, view: View) -> "Env":
        """This environment, as if the part that a view shows were the whole observation."""
        return self._replace(
            obs_shape=seen(self.obs_shape, view),
            obs_bounds=seen(self.obs_bounds, view),
            obs_kinds=seen(self.obs_kinds, view),
            obs_dtype=seen(self.obs_dtype, view),
            views=Views(),
        )

    def encoded(self, obs: Any, mask: Any = None) -> tuple[Any, tuple[int, ...]]:
        """Raw observations [..., *own] encoded as `reset` and `step` return them, [N, *O], and
        their leading axes.

        Args:
            obs: The observations.
            mask: The legal actions at each, bool [..., A], of an environment with action masks.

        Raises:
            ValueError: They have another shape, or there is a mask but the environment has none, or
                the reverse.
        """
        if self.masked and mask is None:
            obs, mask = split_mask(obs)
        obs = choose(obs, self.views.names)
        flat, axes = _flat(obs, self.own_obs.obs if self.masked else self.own_obs)
        if not self.masked:
            if mask is not None:
                raise ValueError("the environment has no action masks: leave mask out")
            return self.encode(flat), axes
        if mask is None:
            raise ValueError("the environment has action masks: give mask=, bool [..., A]")
        own_mask = as_mask(mask, self.action_space)
        for part in jax.tree.leaves(own_mask):
            if part.shape[:-1] != axes:
                raise ValueError(
                    f"mask must be of each observation, {list(axes)}, got shape {list(part.shape)}"
                )
        own_mask = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), own_mask)
        return self.encode(Masked(flat, own_mask)), axes

    def horizon(self, bound: int | None = None) -> int:
        """The length of the longest episode, in steps: `bound`, or the environment's own time
        limit.

        Raises ValueError for a bound that is not a whole number, and without a bound if the limit
        is traced.
        """
        longest = self.max_steps if bound is None else count("horizon", bound)
        if longest is None:
            raise ValueError(
                "max_steps_in_episode is traced, so that the length of the longest episode is not "
                "known: set horizon to the largest of its values, as in Config(horizon=500)"
            )
        return longest


def _flat(obs: Any, own: Any) -> tuple[Any, tuple[int, ...]]:
    """Observations [..., *own] as [N, *own], and the leading axes.

    Args:
        obs: An array, or a tree.
        own: The shapes of one observation.

    Raises:
        ValueError: They have another shape.
    """
    shapes = jax.tree.map(lambda x: x.shape, own)
    structures: list[Any] = [jax.tree.structure(tree) for tree in (own, obs)]
    arrays, each = jax.tree.leaves(obs), jax.tree.leaves(own)
    fits = structures[0] == structures[1]
    axes = arrays[0].shape[: arrays[0].ndim - each[0].ndim] if fits else ()
    if not fits or any(x.shape != (*axes, *one.shape) for x, one in zip(arrays, each, strict=True)):
        raise ValueError(
            f"an observation of the environment has shape {shapes}, after any leading axes "
            f"for batches; got {jax.tree.map(jnp.shape, obs)}"
        )
    return jax.tree.map(lambda x, one: x.reshape(-1, *one.shape), obs, own), axes


def make_env(
    env: Any,
    num_envs: int,
    env_params: Mapping[str, Any] | None = None,
    *,
    action_repeat: int = 1,
    observe: Sequence[int | str] = (),
    critic_observe: Sequence[int | str] = (),
    action_mask: str = "auto",
    differentiable: bool = False,
    restarting: bool = False,
    horizon: int | None = None,
) -> Env:
    """`num_envs` copies of an environment, batched.

    Warns of an environment that counts its time limit as termination.

    Args:
        env: A name registered with gymnax, or an object with gymnax's interface (1.0: a six-valued
            `step`).
        num_envs: The number of copies.
        env_params: Overrides of the environment's parameters; their values may be traced.
        action_repeat: Environment steps for which an action is repeated, fewer if the episode ends;
            together they are one `step`.
        observe: Entries of the observation, which then must be a vector, or names of its parts; all
            if empty.
        critic_observe: The critic's observation, as in `Config`.
        action_mask: The source of the legal actions, as in `Config`.
        differentiable: Derivatives pass through the transition, for pathwise gradients; score
            functions need none, and gymnax otherwise stops them, though not those of the reward.
        restarting: Environments that can do so begin the next episode in the step that ends one
            (`Env.restart`), for windows.
        horizon: Steps after which they do so in any case.

    Raises:
        ValueError: For an unknown name or parameter, something that is not an environment, a number
            of environments or steps that is not a count, an unsupported space, a reset or step that
            fails or violates this package's contract, a time limit that nobody has set, or dynamics
            that have no derivative.
    """
    num_envs, action_repeat = count("num_envs", num_envs), count("action_repeat", action_repeat)
    base = environment_of(env)
    restarting = restarting and hasattr(base, "restarting")
    if restarting:
        base = base.restarting(horizon and horizon * action_repeat)
    if differentiable:
        base = with_gradients(base)
    stated_params = override(default_params(base), env_params or {})
    limit = time_limit(stated_params)
    space, to_own_action = action_space(base, stated_params, differentiable)
    params = as_arrays(stated_params)
    reset_and_step_one = with_masks(base, *reset_and_step(base), space, action_mask)
    one = _observed(base, *reset_and_step_one, params, observe, critic_observe)
    encoding = one.views.encoding(base, stated_params, one.obs)

    def act(key: jax.Array, state: EnvState, action: Any, params: Any) -> tuple[Any, ...]:
        return one.step(key, state, to_own_action(action), params)

    dtypes = checked_dtypes(act, (one.obs, one.state), space, params)
    if isinstance(one.obs, Masked):
        check_some_legal(base, one.reset, params)
    check_time_limit(base, "max_steps_in_episode" in (env_params or {}))

    def begun(obs: Any, state: EnvState) -> tuple[EnvState, Any]:
        return as_dtypes(state, dtypes), encoding.encode(obs)

    def reset(key: jax.Array) -> tuple[EnvState, Any]:
        return begun(*jax.vmap(one.reset, (0, None))(_keys_of_each(key, num_envs), params))

    def begin(state: EnvState) -> tuple[EnvState, Any]:
        return begun(*jax.vmap(_restart(base, one, space, action_mask), (0, None))(state, params))

    return Env(
        reset,
        _step_of_several(act, params, dtypes, encoding.encode, num_envs, action_repeat),
        num_envs,
        encoding.shape,
        space,
        max_steps=None if limit is None else math.ceil(limit / action_repeat),
        differentiable=differentiable,
        obs_bounds=encoding.bounds,
        obs_kinds=encoding.kinds,
        obs_dtype=encoding.dtype,
        encode=encoding.encode,
        own_obs=one.obs,
        to_own_action=to_own_action,
        action_repeat=action_repeat,
        masked=isinstance(one.obs, Masked),
        views=one.views,
        restart=Restart(begin, horizon) if restarting else None,
    )


def _keys_of_each(key: jax.Array, num_envs: int) -> jax.Array:
    """The keys of several environments: split from one key, or the given ones."""
    if jnp.ndim(key) and key_numbers.is_key(key):
        return key
    check_key(key)
    return row_keys.split(key, num_envs)


def _step_of_several(
    act: Callable[..., Any],
    params: Any,
    dtypes: Any,
    encode: Callable[[Any], Any],
    num_envs: int,
    action_repeat: int,
) -> Callable[..., tuple[EnvState, Transition]]:
    """The step of B environments.

    Args:
        act: The step of one environment: key, state, action, params -> state, obs, reward,
            terminated, truncated.
        params: The parameters of the environment.
        dtypes: Of its state.
        encode: See `Env`.
        num_envs: B.
        action_repeat: See `make_env`.
    """

    def step_once(key: jax.Array, state: EnvState, action: Any) -> tuple[Any, ...]:
        next_state, obs, reward, terminated, truncated = act(key, state, action, params)
        ends = terminated.astype(bool), truncated.astype(bool)
        return as_dtypes(next_state, dtypes), obs, reward.astype(float), *ends

    def step(key: jax.Array, state: EnvState, action: Any) -> tuple[EnvState, Transition]:
        """key: one for all, or one per environment [B]. Continuous actions are clipped to their
        box, and rounded if it has whole numbers.
        """
        keys = key if key.ndim else jax.random.split(key, num_envs)
        repeat = functools.partial(_repeat, step_once, action_repeat)
        results = jax.vmap(repeat)(keys, state, action)
        next_state, obs, reward, terminated, truncated, steps = results
        next_obs = encode(obs)
        return next_state, Transition(reward, terminated, truncated, next_obs, steps)

    return step


class _Observed(NamedTuple):
    """One environment with the observations of policy and critic."""

    reset: Callable[..., Any]  # key, params -> obs, state
    step: Callable[..., Any]  # key, state, action, params -> state, obs, reward, the two ends
    obs: Any  # shapes and dtypes of an observation, `Masked` or not
    state: Any  # and of the state
    views: Views


def _observed(
    env: Any,
    reset: Callable[..., Any],
    step: Callable[..., Any],
    params: Any,
    observe: Sequence[int | str],
    critic_observe: Sequence[int | str],
) -> _Observed:
    """The environment with the observed parts of its observations; arguments as in `make_env`."""
    chosen = [
        entries_or_names("observe", observe),
        entries_or_names("critic_observe", critic_observe),
    ]

    def shapes(reset: Callable[..., Any]) -> Any:
        return shapes_of("reset", reset, jax.random.key(0), params, names=("obs", "state"))

    obs, state = shapes(reset)
    plain = obs.obs if isinstance(obs, Masked) else obs
    views = make_views(env, plain, *chosen)
    if views.change_observations:
        reset, step = views.applied(reset, step)
        obs, state = shapes(reset)
    return _Observed(reset, step, obs, state, views)


def _restart(env: Any, one: _Observed, space: ActionSpace, action_mask: str) -> Callable[..., Any]:
    """state at an end, params -> obs, state of the next episode, which has already begun."""

    def own(state: EnvState, params: Any) -> tuple[Any, ...]:
        own_state = state.state if isinstance(state, Timed) else state
        return *env.restart_env(own_state, params), {}

    restart, _ = with_masks(env, own, one.step, space, action_mask)
    if one.views.change_observations:
        restart, _ = one.views.applied(restart, one.step)
    return restart


def configured(
    config: Config,
    num_envs: int,
    env_params: Mapping[str, Any] | None = None,
    *,
    for_critic: bool = True,
    restarting: bool = False,
) -> Env:
    """The environment that a Config describes, as training and evaluation see it.

    Args:
        config: The settings.
        num_envs: The number of copies.
        env_params: Overrides of its parameters on top.
        for_critic: Observations also contain the critic's part, if there is a critic with other
            observations.
        restarting: See `make_env`; only if the settings collect windows.

    Raises:
        ValueError: As `make_env` does, and if the longest episode is unknown or too long, or a
            single step, whose advantage would be standardised alone.
    """
    check_config(config)
    overrides = {**dict(config.env_params), **(env_params or {})}
    has_critic = for_critic and facts_of(config.estimator).critic != "none"
    env = make_env(
        config.env,
        num_envs,
        overrides,
        action_repeat=config.action_repeat,
        observe=config.observe,
        critic_observe=config.critic_observe if has_critic else ("policy",),
        action_mask=config.action_mask,
        restarting=restarting and config.collect == "windows",
        horizon=config.horizon,
    )
    if config.collect == "episodes":
        longest = env.horizon(config.horizon)
        check_steps(config, longest)
        check_standardised(config, min(longest, env.max_steps or longest))
    return env


def _repeat(
    step: Callable[..., Any], times: int, key: jax.Array, state: EnvState, action: Any
) -> tuple[Any, ...]:
    """Repeats `step` until the episode ends, at most `times` times.

    Returns the last transition with the sum of the rewards, and the number of steps; () if `times`
    is 1.
    """
    if times == 1:
        return *step(key, state, action), ()

    def again(before: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], None]:
        state, _, total, *ends, count = before
        state, obs, reward, *new_ends = step(key, state, action)
        after = state, obs, total + reward, *new_ends, count + 1
        ended = ends[0] | ends[1]
        return jax.tree.map(lambda old, new: jnp.where(ended, old, new), before, after), None

    keys = jax.random.split(key, times)
    first = *step(keys[0], state, action), jnp.int32(1)
    return scan_keys(again, first, keys[1:])[0]
