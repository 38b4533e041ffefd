"""Rollouts: a policy and environments to a `Trajectory` [T, B, ...], in one of two ways.

    episodes   N complete episodes from N fresh resets:  τ⁽ⁿ⁾ ~ p(τ; θ),  n = 1..N    (the theorem)
    windows    T steps from where the last update ended, reset at the end of an episode

Both scan over `_step`, one step of policy and environments. Episodes that have ended are frozen
until all have ended; windows start the next episode.

All random numbers of step t are drawn from `fold_in(key, t)`, before the loop (`pg.rollout_noise`),
so that they depend neither on the length of the batch nor on the loop's blocks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import branch_rollouts, networks, numerals, returns, rollout_noise, window_resets
from pg import extra_rollouts as extras
from pg.branches import Branching
from pg.config import Config
from pg.envs import Env
from pg.extra_rollouts import ExtraRollouts, Transitions
from pg.fast import devices, key_numbers, point_keys, row_keys
from pg.fast.scans import scan_until
from pg.inputs import check_function, check_kind, check_name, count, described, numbers
from pg.networks import Network
from pg.rollout_checks import (
    check_arguments,
    check_rollout_state,
    check_sample_env,
    check_standardised,
)
from pg.sampling import BatchNoise
from pg.settings.choices import CHOICES, Sampling
from pg.trajectory import (
    Acting,
    Collected,
    EpisodeScan,
    Finished,
    RandomInputs,
    RolloutState,
    Running,
    Trajectory,
    as_stored,
    is_alive,
    where,
)

__all__ = [
    "NO_EXTRA_ROLLOUTS",
    "Act",
    "Collected",
    "Collector",
    "Finished",
    "RolloutState",
    "Trajectory",
    "differentiable_episodes",
    "episodes",
    "greedy",
    "make_collector",
    "reparameterised",
    "returns_to_go",
    "sample",
    "start",
    "visited",
    "windows",
]

Act = Callable[[Any, Any], Any]  # distribution, noise -> action
NO_EXTRA_ROLLOUTS = ExtraRollouts()


def sample(dist: Any, noise: PyTree) -> PyTree:
    """a ~ π(·|s), without a gradient, as the score function needs it."""
    return dist.sample(noise)


def greedy(dist: Any, noise: PyTree) -> PyTree:
    """The mode of π(·|s); its median for squashed and censored Gaussians."""
    return dist.mode()


def reparameterised(dist: Any, noise: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """The same value as `sample`, as a differentiable function of the policy's parameters.

    Raises ValueError for a distribution without reparameterisation, such as one of discrete
    actions.
    """
    if not hasattr(dist, "reparameterised"):
        raise ValueError(
            f"gradients through the dynamics need reparameterised actions, and "
            f"{described(dist)} has no `reparameterised`: use an environment whose actions are a "
            f"Box"
        )
    return dist.reparameterised(noise)


def start(env: Env, policy: Network, key: PRNGKeyArray) -> RolloutState:
    """B environments, each at the start of an episode."""
    check_arguments(env, policy, key)
    return _at_start(env, policy, *env.reset(key))


def episodes(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    horizon: int | None = None,
    *,
    group_size: int = 1,
    act: Act = sample,
    begin: RolloutState | None = None,
    extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS,
    num_branches: int = 1,
    branch_every: int = 1,
    sampling: Sampling = "independent",
    sample_env: bool = False,
    num_episodes: int | None = None,
) -> Trajectory:
    """One complete episode per environment, [horizon, B, ...], truncated at `horizon`.

    The cost depends on the longest episode of the batch, not on H: see `pg.fast.scans.scan_until`.
    Rows after an episode's end have `valid` False and reward 0.

    Args:
        env: B environments.
        policy: The acting policy.
        params: Its parameters.
        key: A random key.
        horizon: H, in steps; default: the environment's own time limit.
        group_size: Number of consecutive episodes that share their initial state and form a group:
            episode n belongs to group n // group_size.
        act: `sample` or `greedy`.
        begin: The initial state; default: fresh resets.
        extra_rollouts: Extra rollouts that the estimator needs.
        num_branches: M, the number of extra transitions per state and action; or K, the number of
            repetitions of the episodes from each state.
        branch_every: n; extra episodes branch off at every n-th state, starting from a random one
            in each episode.
        sampling: How the action noise of a batch is drawn, see `Config.sampling`.
        sample_env: Draws the environment's noise likewise, see `Config.sample_env`.
        num_episodes: The number of episodes per batch; noise is independent between batches;
            default: all.

    Raises:
        ValueError: `group_size` or `num_episodes` does not divide the number of environments,
            `extra_rollouts` needs every action and actions are not discrete, `branch_every` skips
            states that are needed, or noise cannot be drawn by `sampling`.
    """
    check_arguments(env, policy, key)
    check_function(
        "act", act, ("distribution", "noise"), "write pg.rollout.sample, or pg.rollout.greedy"
    )
    check_standardised(policy)
    if begin is not None:
        check_rollout_state("begin", begin, env)
    group_size = count("group_size", group_size)
    if env.num_envs % group_size:
        raise ValueError(
            f"group_size must divide the {numerals.counted(env.num_envs, 'environment')}, got "
            f"{group_size}"
        )
    check_kind(
        "extra_rollouts", extra_rollouts, ExtraRollouts, "write pg.ExtraRollouts(greedy=True)"
    )
    num_branches = count("num_branches", num_branches)
    branch_every = count("branch_every", branch_every)
    extras.check_possible(env, extra_rollouts, branch_every)
    horizon = env.horizon(horizon)
    check_name("sampling", sampling, CHOICES["sampling"])
    num_episodes = env.num_envs if num_episodes is None else count("num_episodes", num_episodes)
    if sample_env:
        check_sample_env(policy, extra_rollouts, sampling, num_episodes, group_size)
    batch = _Batch(
        horizon=horizon,
        group_size=group_size,
        act=act,
        extra_rollouts=extra_rollouts,
        num_branches=num_branches,
        branch_every=branch_every,
        noise=BatchNoise(sampling, num_episodes, sample_env),
    )
    return _episodes(Acting(env, policy, params), key, batch, begin)


def windows(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    state: RolloutState,
    num_steps: int,
    horizon: int | None = None,
) -> Collected:
    """The next `num_steps` steps of every environment, [num_steps, B, ...], with resets at the end
    of episodes.

    Args:
        env: B environments.
        policy: The acting policy.
        params: Its parameters.
        key: A random key.
        state: The environments' state, from `start` or the previous window.
        num_steps: Steps of each environment.
        horizon: H, the steps after which an episode is truncated; default: only the environment's
            own time limit.

    Returns:
        state, traj, finished.
    """
    check_arguments(env, policy, key)
    check_rollout_state("state", state, env)
    check_standardised(policy)
    num_steps = count("num_steps", num_steps)
    if not isinstance(horizon, jax.Array | None):  # which may be traced
        horizon = count("horizon", horizon)
    return _window(Acting(env, policy, params), key, state, num_steps, horizon)


class _Batch(NamedTuple):
    """The settings of a batch of complete episodes, see `episodes`."""

    horizon: int
    group_size: int = 1
    act: Act = sample
    extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS
    num_branches: int = 1
    branch_every: int = 1
    noise: BatchNoise | None = None  # None: independent


def _episodes(
    acting: Acting, key: PRNGKeyArray, batch: _Batch, begin: RolloutState | None = None
) -> Trajectory:
    """`episodes` without argument checks."""
    scan = _episode_scan(acting, key, batch, begin)
    branches = isinstance(batch.extra_rollouts.branches, Branching)

    def step(running: Running, inputs: RandomInputs) -> tuple[Running, tuple[Trajectory, PyTree]]:
        after, row = scan.step(running, inputs)
        before = key_numbers.as_numbers(running.state) if branches else ()
        return after, (row, before)

    traj, states = scan_until(step, scan.init, scan.inputs, is_alive, length=batch.horizon)
    traj = traj._replace(
        carry=_carry_before(scan.init.state), group=_group_numbers(traj, batch.group_size)
    )
    return _with_extra_rollouts(traj, states, acting, scan, batch)


def _episode_scan(
    acting: Acting, key: PRNGKeyArray, batch: _Batch, begin: RolloutState | None = None
) -> EpisodeScan:
    """The steps of a batch, starting from `begin` or by default from fresh resets."""
    env, policy, _ = acting
    reset_key, key = jax.random.split(key)
    if begin is None:
        reset_keys = rollout_noise.reset_keys(env, reset_key, batch.noise, batch.group_size)
        state = _at_start(env, policy, *env.reset(reset_keys))
    else:
        state = begin
    if batch.group_size > 1:  # all episodes of a group start like its first one
        leader = jnp.arange(env.num_envs) // batch.group_size * batch.group_size
        state = jax.tree.map(lambda x: x[leader], state)
    keys = rollout_noise.extra_keys(key, batch.horizon)
    if begin is None and batch.act is not greedy:
        state = rollout_noise.with_drawn_carry(acting, state, keys.carry, batch.noise)
    inputs = rollout_noise.episode_inputs(
        acting,
        state,
        key,
        keys,
        horizon=batch.horizon,
        batch_noise=batch.noise,
        extra_rollouts=batch.extra_rollouts,
        num_branches=batch.num_branches,
    )
    in_order = rollout_noise.make_order(env, policy, batch.noise)
    transitions = functools.partial(_extra_transitions, env, batch, key)

    def step(running: Running, inputs: RandomInputs) -> tuple[Running, Trajectory]:
        state, alive = running
        inputs = inputs._replace(noise=in_order(inputs.noise, running))
        moved, row = _step(acting, state, inputs, key, batch.act, transitions)
        row = _masked(row, alive, is_last=row.time >= batch.horizon - 1)
        goes_on = alive & ~row.done
        return Running(_frozen(env, state, moved, alive, goes_on), goes_on), row

    running = Running(state, jnp.ones(env.num_envs, bool))
    return EpisodeScan(step, running, inputs, batch.horizon, keys)


def _window(
    acting: Acting, key: PRNGKeyArray, state: RolloutState, num_steps: int, horizon: int | None
) -> Collected:
    """`windows` without argument checks."""
    env = acting.env
    reset_key, key = jax.random.split(key)
    starts, reset = window_resets.make_resets(env, reset_key, num_steps, horizon)

    def step(state: RolloutState, xs: tuple[RandomInputs, Any]) -> Any:
        inputs, start = xs
        moved, row = _step(acting, state, inputs, key, sample)
        if horizon is not None:
            row = row._replace(truncated=row.truncated | (row.time >= horizon - 1))
        ended = Finished(
            row.done,
            jnp.where(row.done, moved.episode_return, 0),
            jnp.where(row.done, moved.env_steps, 0),
        )
        fresh = reset(start, moved, row.done)
        after = where(row.done, _at_start(env, acting.policy, *fresh), moved)
        return after, (row, ended)

    inputs = rollout_noise.step_inputs(acting, state, key)(jnp.arange(num_steps))
    after, (traj, ended) = jax.lax.scan(step, state, (inputs, starts))
    traj = traj._replace(carry=_carry_before(state))
    return Collected(after, traj, jax.tree.map(jnp.sum, ended))


def _step(
    acting: Acting,
    state: RolloutState,
    inputs: RandomInputs,
    key: PRNGKeyArray,
    act: Act,
    transitions: Callable[..., Any] | None = None,
) -> tuple[RolloutState, Trajectory]:
    """One step of policy and environments.

    Args:
        acting: The policy and its environments.
        state: The environments' state.
        inputs: The random inputs of this step.
        key: A key of the same type as those in `inputs`.
        act: Distribution, noise -> action.
        transitions: Random inputs, keys, environment states, actions, observations -> extra
            transitions, see `_extra_transitions`; default: none.

    Returns:
        The next state, without resets, and the row [B, ...] to record, without the carry.
    """
    env, policy, params = acting
    key_data = inputs.env_keys
    keys = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(row_keys.plain(key)))
    state, noise, keys = devices.spread_envs((state, inputs.noise, keys))
    if not isinstance(noise.env, tuple):
        keys = point_keys.with_points(keys, noise.env)
    first = state.time == 0
    carry, dist = policy.apply(params, state.carry, state.obs, first)
    action = act(dist, noise.action)
    networks.check_policy(dist, action, (env.num_envs,), "[B]")
    env_action = dist.action(action)
    env_state, transition = env.step(keys, state.env_state, env_action)
    successors, lookahead = (), ()
    if transitions is not None:
        successors, lookahead = transitions(inputs, keys, state.env_state, env_action, state.obs)
    row = Trajectory(
        obs=as_stored(env, state.obs),
        action=action,
        log_prob=dist.log_prob(action),
        reward=transition.reward,
        terminated=transition.terminated,
        truncated=transition.truncated,
        next_obs=as_stored(env, transition.next_obs),
        first=first,
        valid=jnp.ones(env.num_envs, bool),
        time=state.time,
        carry=(),
        held=transition.steps,
        successors=successors,
        lookahead=lookahead,
        other_actions=extras.other_actions(dist, inputs.other_actions),
    )
    after = RolloutState(
        env_state=env_state,
        obs=transition.next_obs,
        carry=carry,
        episode_return=state.episode_return + transition.reward,
        held=jax.tree.map(jnp.add, state.held, transition.steps),
        time=state.time + 1,
    )
    return after, row


def _masked(row: Trajectory, alive: Bool[Array, " B"], is_last: Bool[Array, " B"]) -> Trajectory:
    """A step of complete episodes, masked after their ends.

    Args:
        row: The step, leaves [B, ...].
        alive: The episodes that have not ended before this step.
        is_last: Those truncated by the horizon.
    """
    return row._replace(
        valid=alive,
        reward=jnp.where(alive, row.reward, 0.0),
        held=jax.tree.map(lambda steps: jnp.where(alive, steps, 0), row.held),
        terminated=alive & row.terminated,
        truncated=alive & (row.truncated | is_last),
        next_obs=where(alive, row.next_obs, row.obs),
        successors=extras.of_running(row.successors, alive, is_last, row.obs),
        lookahead=extras.of_running(row.lookahead, alive, is_last, row.obs),
    )


def _frozen(
    env: Env,
    state: RolloutState,
    moved: RolloutState,
    alive: Bool[Array, " B"],
    goes_on: Bool[Array, " B"],
) -> RolloutState:
    """The state of complete episodes after a step, in which those that have ended are frozen.

    Args:
        env: B environments.
        state: The state before the step.
        moved: The state after it.
        alive: The episodes that had not ended before it.
        goes_on: Those that have not ended after it.
    """
    # The state of a finished environment is frozen: further steps could overflow.
    after = where(alive, moved, state)
    # The observation after the end of an episode may be anything, even NaN. It is masked out of the
    # loss, but 0 · NaN is NaN in the backward pass. So the networks get the episode's last
    # observation again.
    after = after._replace(obs=where(goes_on, moved.obs, state.obs))
    if env.differentiable:  # the same for the derivative of the dynamics
        after = after._replace(env_state=where(goes_on, moved.env_state, state.env_state))
    return after


def _at_start(env: Env, policy: Network, env_state: PyTree, obs: PyTree) -> RolloutState:
    """The state of B environments at the start of an episode."""
    zeros = jnp.zeros(env.num_envs)
    time = zeros.astype(jnp.int32)
    held = time if env.action_repeat > 1 else ()
    return RolloutState(env_state, obs, networks.start(policy, env.num_envs), time, zeros, held)


def _carry_before(state: RolloutState) -> PyTree:
    """The carry of a trajectory that starts in this state, [1, B, ...]."""
    return jax.tree.map(lambda c: c[None], state.carry)


def _group_numbers(traj: Trajectory, group_size: int) -> Int[Array, "T B"] | tuple[()]:
    """The index of each episode's group; () without groups."""
    if group_size == 1:
        return ()
    number = jnp.arange(traj.reward.shape[1], dtype=jnp.int32) // group_size
    return jnp.broadcast_to(number[None], traj.reward.shape)


class Collector(NamedTuple):
    """Collects training batches, as pure functions."""

    init: Callable[[Network, PRNGKeyArray], RolloutState | tuple[()]]  # policy, key -> state
    # policy, params, key, state -> the batch
    collect: Callable[[Network, PyTree, PRNGKeyArray, Any], Collected]
    # factor of the gradient: over a window the gradient is per step, so that its scale, and with it
    # clipping, does not depend on where the window is cut
    scale: float


def make_collector(
    config: Config, env: Env, *, extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS
) -> Collector:
    """The collector that `config` selects: complete episodes, or windows.

    Args:
        config: The settings.
        env: The environments.
        extra_rollouts: See `episodes`.

    Raises:
        ValueError: As in `episodes`.
    """
    extras.check_possible(env, extra_rollouts, config.branch_every)

    def nothing(policy: Network, key: PRNGKeyArray) -> tuple[()]:
        return ()

    def fresh(policy: Network, key: PRNGKeyArray) -> RolloutState:
        return _at_start(env, policy, *env.reset(key))

    def window(
        policy: Network, params: PyTree, key: PRNGKeyArray, state: RolloutState
    ) -> Collected:
        check_rollout_state("state", state, env)  # possibly a user's
        acting = Acting(env, policy, params)
        return _window(acting, key, state, config.num_steps, config.horizon)

    if config.collect == "windows":
        return Collector(fresh, window, 1 / config.num_steps)

    batch = _Batch(
        horizon=env.horizon(config.horizon),
        group_size=config.group_size,
        extra_rollouts=extra_rollouts,
        num_branches=config.num_branches,
        branch_every=config.branch_every,
        noise=BatchNoise(config.sampling, env.num_envs, config.sample_env),
    )

    def complete_episodes(
        policy: Network, params: PyTree, key: PRNGKeyArray, state: tuple[()]
    ) -> Collected:
        traj = _episodes(Acting(env, policy, params), key, batch)
        finished = Finished(jnp.int32(env.num_envs), traj.reward.sum(), traj.env_steps.sum())
        return Collected((), traj, finished)

    return Collector(nothing, complete_episodes, 1.0)


def differentiable_episodes(
    env: Env, policy: Network, params: PyTree, key: PRNGKeyArray, horizon: int | None = None
) -> Trajectory:
    """The trajectory of `episodes` for the same key, differentiable in params through actions,
    states and rewards.

    The action is a function of params and noise (`reparameterised`). All H steps are taken in one
    scan, whose backward pass recomputes each step instead of storing its intermediate values.

    Args:
        env: B environments.
        policy: The acting policy.
        params: Its parameters.
        key: A random key.
        horizon: H, in steps; default: the environment's own time limit.
    """
    check_arguments(env, policy, key)
    check_standardised(policy)
    horizon = env.horizon(horizon)
    batch = _Batch(horizon, act=reparameterised)
    scan = _episode_scan(Acting(env, policy, params), key, batch)
    inputs = scan.inputs(jnp.arange(horizon))
    traj = jax.lax.scan(jax.checkpoint(scan.step), scan.init, inputs)[1]
    return traj._replace(carry=_carry_before(scan.init.state))


def visited(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    horizon: int | None = None,
    *,
    act: Act = sample,
) -> tuple[RolloutState, Bool[Array, "H B"]]:
    """The states of the B episodes of `episodes` with the same key before each step, [H, B, ...],
    and `valid`.

    Args:
        env: B environments.
        policy: The acting policy.
        params: Its parameters.
        key: A random key.
        horizon: H, in steps; default: the environment's own time limit.
        act: `sample` or `greedy`.
    """
    check_arguments(env, policy, key)
    check_standardised(policy)
    horizon = env.horizon(horizon)
    scan = _episode_scan(Acting(env, policy, params), key, _Batch(horizon, act=act))

    def step(running: Running, inputs: RandomInputs) -> tuple[Running, Running]:
        return scan.step(running, inputs)[0], running

    running = jax.lax.scan(step, scan.init, scan.inputs(jnp.arange(horizon)))[1]
    return running.state, running.alive


def returns_to_go(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    begin: RolloutState,
    action: PyTree[Shaped[Array, "B ..."]],
    gamma: Float[ArrayLike, ""],
    horizon: int | None = None,
) -> Float[Array, " B"]:
    """G = Σₖ γᵏ rₜ₊ₖ of B episodes that take `action` first and then follow the policy, [B].

    As every environment is a pure function of its state, an episode can be continued from any state
    any number of times.

    Args:
        env: B environments.
        policy: The acting policy.
        params: Its parameters.
        key: A random key.
        begin: The current state of the environments.
        action: The first action of each, [B, *A], as the policy samples it.
        gamma: γ.
        horizon: H, in steps; default: the environment's own time limit.
    """
    check_arguments(env, policy, key)
    check_rollout_state("begin", begin, env)
    instead = "write dist.sample(dist.draw(key))"
    parts = action if isinstance(action, tuple) else (action,)
    for part in (numbers("action", x, instead) for x in parts):
        if part.shape[:1] != (env.num_envs,):
            raise ValueError(
                f"action must have {numerals.counted(env.num_envs, 'entry', 'entries')}, one for "
                f"each environment, got shape {list(part.shape)}"
            )
    action = jax.tree.map(jnp.asarray, action)
    horizon = env.horizon(horizon)
    first_key, key = jax.random.split(key)
    acting = Acting(env, policy, params)
    inputs = rollout_noise.step_inputs(acting, begin, first_key)(jnp.zeros(1, int))
    inputs = jax.tree.map(lambda x: x[0], inputs)
    after, row = _step(acting, begin, inputs, first_key, lambda dist, noise: action)
    rest = episodes(env, policy, params, key, horizon, begin=after)
    ended = row.done | (row.time >= horizon - 1)
    discount = returns.discount(jnp.arange(1, horizon + 1, dtype=rest.reward.dtype), gamma)
    return row.reward + jnp.where(ended, 0.0, discount @ rest.reward)


def _with_extra_rollouts(
    traj: Trajectory, states: PyTree, acting: Acting, scan: EpisodeScan, batch: _Batch
) -> Trajectory:
    """Complete episodes, with their extra rollouts.

    Args:
        traj: The episodes.
        states: The states before each step, leaves [T, B, ...], if branches start from them.
        acting: The policy and its environments.
        scan: The scan that collected the episodes.
        batch: The settings of the batch.
    """
    env, extra_rollouts, group_size = acting.env, batch.extra_rollouts, batch.group_size
    if isinstance(extra_rollouts.branches, Branching):

        def make_scan(
            acting: Acting, key: PRNGKeyArray, begin: RolloutState, act: Act = sample
        ) -> EpisodeScan:
            return _episode_scan(acting, key, _Batch(batch.horizon, act=act), begin)

        branches = branch_rollouts.branch_off(
            acting,
            scan.keys.branches,
            Running(states, traj.valid),
            like=scan.init.state,
            branching=extra_rollouts.branches,
            num_branches=batch.num_branches,
            branch_every=batch.branch_every,
            make_scan=make_scan,
        )
        traj = traj._replace(branches=branches)
    if extra_rollouts.greedy:
        each_group = jax.tree.map(lambda x: x[::group_size], scan.init.state)
        if acting.policy.draw_carry is not None:  # greedy episodes have no random carry
            undrawn = networks.start(acting.policy, len(each_group.time))
            each_group = each_group._replace(carry=undrawn)
        some = acting.with_envs(env.num_envs // group_size)
        greedy_batch = _Batch(batch.horizon, act=greedy)
        one = _episodes(some, scan.keys.greedy, greedy_batch, each_group)
        of_groups = extras.greedy_of_groups(one.reward, one.env_steps, group_size)
        traj = traj._replace(greedy=of_groups)
    if extra_rollouts.starts:
        first = traj.first & traj.valid
        starts = extras.initial_states(env, extra_rollouts.starts, scan.keys.starts, first)
        traj = traj._replace(starts=starts._replace(obs=as_stored(env, starts.obs)))
    return traj


def _extra_transitions(
    env: Env,
    batch: _Batch,
    key: PRNGKeyArray,
    inputs: RandomInputs,
    keys: Shaped[Array, " B"],
    env_state: PyTree,
    action: PyTree,
    obs: PyTree,
) -> Any:
    """`successors` and `lookahead` of a step, see `extra_rollouts.transitions`, with observations
    in the dtypes of a trajectory.

    Args:
        env: B environments.
        batch: The settings of the batch.
        key: A key of the same type as those in `inputs`.
        inputs: The random inputs of the step.
        keys: The environments' keys in this step.
        env_state: The environments' states before it.
        action: The action of each, as the environment takes it.
        obs: What each observes.
    """
    more_keys = jax.random.wrap_key_data(inputs.transition_keys, impl=jax.random.key_impl(key))
    asked = extras.transitions(
        env, batch.extra_rollouts, batch.num_branches, keys, more_keys, env_state, action, obs
    )

    def stored(x: Transitions | tuple[()]) -> Transitions | tuple[()]:
        return x._replace(next_obs=as_stored(env, x.next_obs)) if isinstance(x, Transitions) else ()

    return tuple(stored(x) for x in asked)
