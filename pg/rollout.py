"""Rollouts: a policy and environments to a `Trajectory` [T, B, ...], collected in one of two ways.

    episodes   N complete episodes from N fresh resets:  τ⁽ⁿ⁾ ~ p(τ; θ),  n = 1..N    (the theorem)
    windows    T steps from where the last update ended, reset at the end of an episode

All random numbers of step t are drawn from `fold_in(key, t)`, before the loop that uses them: what
a step sees depends neither on the length of the batch nor on how the loop is cut into blocks.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import further as further_rollouts
from pg import networks, numerals
from pg import sampling as noise_sampling
from pg.branches import Branches, Branching, first_actions
from pg.config import Config
from pg.envs import Env, Masked
from pg.envs.actions import random_action
from pg.envs.observations import map_observation
from pg.envs.views import seen
from pg.fast import blocks, devices, key_numbers, point_keys, resets, row_keys
from pg.fast.scans import scan_until
from pg.further import FurtherRollouts, GreedyEpisodes, InitialStates, Transitions
from pg.inputs import check_function, check_key, check_kind, check_name, count, described, numbers
from pg.networks import Network
from pg.sampling import NO_NUMBERS, BatchNoise, EnvNumbers, StepNoise
from pg.settings.choices import CHOICES, Sampling

# Bytes of initial states that a window may draw ahead, one for every step, in all runs that are
# mapped over; larger ones are drawn in their steps.
FRESH_BYTES = 2**26

# Episodes out of visited states that run side by side, unless those of one step are more. It is
# that of each run that is mapped over: random numbers follow how states are cut, and those of a run
# are the same whatever runs beside it.
BRANCHES_AT_ONCE = 4096

Act = Callable[[Any, Any], Any]  # distribution, noise -> the action to score
# Initial states of a window: drawn for every step before the first, drawn in the steps in which
# episodes end, or those of environments that begin the next episodes by themselves.
Resets = Literal["drawn ahead", "where ended", "by the environments"]
NOTHING_FURTHER = FurtherRollouts()


class Trajectory(NamedTuple):
    """A batch of steps. Every leaf is [T, B, ...], time first, but for the carry, [1, B, ...]."""

    # floats; bytes where the environment gives bytes, which takes a quarter of the memory;
    # `Masked(obs, mask)` where it has action masks
    obs: PyTree[Shaped[Array, "T B ..."]]
    # the sample that is scored, unclipped and pre-tanh; of several actions at once a tuple
    action: PyTree[Shaped[Array, "T B ..."]]
    log_prob: Float[Array, "T B"]  # log π_behaviour(action | obs)
    reward: Float[Array, "T B"]  # 0 where not valid
    terminated: Bool[Array, "T B"]  # the task ended after this step
    truncated: Bool[Array, "T B"]  # a time limit ended the episode after this step
    next_obs: PyTree[Shaped[Array, "T B ..."]]  # the true successor, also where an episode ended
    first: Bool[Array, "T B"]  # this step is its episode's first
    valid: Bool[Array, "T B"]  # True until and including the ending step
    time: Int[Array, "T B"]  # steps since the episode's start
    # the recurrent state before the first step, [1, B, ...]; () without one. Later states are
    # recomputed from it: storing them would multiply the batch by the size of the state.
    carry: PyTree
    # the number of the episode's group; () where episodes are not in groups
    group: Int[Array, "T B"] | tuple[()] = ()
    # environment steps for which the action was held; () where each is taken once
    held: Int[Array, "T B"] | tuple[()] = ()
    # what the greedy policy does from the same initial states; () where nobody asks for it
    greedy: GreedyEpisodes | tuple[()] = ()
    # further transitions of the action that was taken, [T, B, M, ...]
    successors: Transitions | tuple[()] = ()
    # transitions of every action, [T, B, A, M, ...]
    lookahead: Transitions | tuple[()] = ()
    # whole episodes out of each state, [T, B, K, M, ...]
    branches: Branches | tuple[()] = ()
    # further initial states, the observation [1, B, R, ...]
    starts: InitialStates | tuple[()] = ()
    # further samples of the policy in each state, none of them taken, [T, B, M, ...]; () for none
    other_actions: PyTree = ()

    @property
    def mask(self) -> PyTree:
        """[T, B, A] the legal actions at `obs`, bool; () where every action always is."""
        return self.obs.mask if isinstance(self.obs, Masked) else ()

    @property
    def done(self) -> Bool[Array, "*T"]:
        """[T, B] the episode ended after this step, either way."""
        return self.terminated | self.truncated

    @property
    def without_carry(self) -> "Trajectory":
        """The steps alone, which can be cut along time, for a network that has no carry."""
        return self._replace(carry=())

    @property
    def env_steps(self) -> Int[Array, "*T"]:
        """[T, B] the steps of the environment in each of these; 0 where not valid."""
        return self.valid.astype(jnp.int32) if isinstance(self.held, tuple) else self.held

    @property
    def all_env_steps(self) -> Int[Array, "*T"]:
        """[T, B] the same with those of all further rollouts: the cost of the batch."""
        total = self.env_steps
        asked = (self.greedy, self.successors, self.lookahead, self.branches, self.starts)
        for further in asked:
            if isinstance(further, GreedyEpisodes | Transitions | Branches | InitialStates):
                total = total + further.env_steps
        return total

    @property
    def without_further(self) -> "Trajectory":
        """The trajectory without the further rollouts, which only `weigh` reads."""
        return self._replace(
            greedy=(), successors=(), lookahead=(), branches=(), starts=(), other_actions=()
        )


class Finished(NamedTuple):
    """The episodes that ended within a batch: their number, and sums of undiscounted return and of
    length.

    A length is counted in steps of the environment, of which an action that is held takes several.
    """

    episodes: Int[Array, ""]
    returns: Float[Array, ""]
    steps: Int[Array, ""]


class RolloutState(NamedTuple):
    """The current state of B environments, between two windows. Leaves are [B, ...]."""

    env_state: PyTree
    obs: PyTree[Shaped[Array, "B ..."]]
    carry: PyTree  # the recurrent state
    time: Int[Array, " B"]  # steps since the episode's start
    episode_return: Float[Array, " B"]  # undiscounted, so far
    # environment steps since the episode's start, where an action is held for several of them
    held: Int[Array, " B"] | tuple[()] = ()

    @property
    def env_steps(self) -> Int[Array, "*B"]:
        """[B] the steps of the environment since the episode's start."""
        return self.time if isinstance(self.held, tuple) else self.held


class Collected(NamedTuple):
    """A batch, and the environments' state after it."""

    state: (
        RolloutState | tuple[()]
    )  # RolloutState with windows; () with episodes, which start afresh
    traj: Trajectory
    finished: Finished


def sample(dist: Any, noise: PyTree) -> PyTree:
    """a ~ π(·|s), a constant: what the score is taken of."""
    return dist.sample(noise)


def greedy(dist: Any, noise: PyTree) -> PyTree:
    """The mode of π(·|s)."""
    return dist.mode()


def reparameterised(dist: Any, noise: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """The same number as `sample`, as a function of the policy's parameters.

    Raises ValueError for a distribution without one, as that of discrete actions.
    """
    if not hasattr(dist, "reparameterised"):
        raise ValueError(
            f"gradients through the dynamics need actions that move with the parameters, and "
            f"{described(dist)} has no `reparameterised`: use an environment whose actions are a "
            f"Box"
        )
    return dist.reparameterised(noise)


def start(env: Env, policy: Network, key: PRNGKeyArray) -> RolloutState:
    """B environments, each at the start of an episode."""
    _check_arguments(env, policy, key)
    return _fresh(env, policy, *env.reset(key))


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
    further: FurtherRollouts = NOTHING_FURTHER,
    num_branches: int = 1,
    branch_every: int = 1,
    sampling: Sampling = "independent",
    sample_env: bool = False,
    num_episodes: int | None = None,
) -> Trajectory:
    """One complete episode per environment, [horizon, B, ...]; one that is cut at `horizon` is
    truncated.

    The cost follows the longest episode of the batch, not H: see `pg.fast.scans.scan_until`. Rows
    after an episode's end have `valid` False and reward 0.

    Args:
        env: B environments.
        policy: The policy that acts.
        params: Its parameters.
        key: A random key.
        horizon: H, in steps; default: the environment's own time limit.
        group_size: Episodes in a row that share their initial state and are one group: episode n
            belongs to group n // group_size.
        act: `sample`, or `greedy` for the mode.
        begin: The state to start from; default: fresh resets.
        further: What is rolled out beside them, for an estimator to compare them with.
        num_branches: M, the transitions of each state and action where these are asked for; or K,
            the repetitions of the episodes out of each state.
        branch_every: n; further episodes branch off at every n-th state, from a first one that is
            drawn at random for each episode.
        sampling: How the action noise of a batch is drawn, as `Config.sampling`.
        sample_env: The environment's noise too, as `Config.sample_env`.
        num_episodes: The episodes of a batch, beyond which noise is independent; default: all.

    Raises:
        ValueError: `group_size` or `num_episodes` does not divide the number of environments,
            `further` needs every action and actions are not discrete, `branch_every` skips states
            that others are compared with, or noise cannot be drawn by `sampling`.
    """
    _check_arguments(env, policy, key)
    check_function(
        "act", act, ("distribution", "noise"), "write pg.rollout.sample, or pg.rollout.greedy"
    )
    _check_standardised(policy)
    if begin is not None:
        _check_rollout_state("begin", begin, env)
    group_size = count("group_size", group_size)
    if env.num_envs % group_size:
        raise ValueError(
            f"group_size must divide the {numerals.counted(env.num_envs, 'environment')}, got "
            f"{group_size}"
        )
    check_kind("further", further, FurtherRollouts, "write pg.FurtherRollouts(greedy=True)")
    num_branches = count("num_branches", num_branches)
    branch_every = count("branch_every", branch_every)
    further_rollouts.check_possible(env, further, branch_every)
    horizon = env.horizon(horizon)
    check_name("sampling", sampling, CHOICES["sampling"])
    num_episodes = env.num_envs if num_episodes is None else count("num_episodes", num_episodes)
    if sample_env:
        _check_sample_env(policy, further, sampling, num_episodes, group_size)
    batch = _Batch(
        group_size=group_size,
        act=act,
        further=further,
        num_branches=num_branches,
        branch_every=branch_every,
        noise=BatchNoise(sampling, num_episodes, sample_env),
    )
    return _episodes(_Acting(env, policy, params, horizon), key, batch, begin)


def windows(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    state: RolloutState,
    num_steps: int,
    horizon: int | None = None,
) -> Collected:
    """The next `num_steps` steps of every environment, [num_steps, B, ...], reset where an episode
    ended.

    Args:
        env: B environments.
        policy: The policy that acts.
        params: Its parameters.
        key: A random key.
        state: The environments' state, as `start` or the last window gives it.
        num_steps: Steps of each environment.
        horizon: H, the steps after which an episode is truncated; default: the environment's own
            time limit alone.

    Returns:
        state, traj, finished.
    """
    _check_arguments(env, policy, key)
    _check_rollout_state("state", state, env)
    _check_standardised(policy)
    num_steps = count("num_steps", num_steps)
    if not isinstance(horizon, jax.Array | None):  # which may be traced
        horizon = count("horizon", horizon)
    return _window(env, policy, params, key, state, num_steps, horizon)


class Collector(NamedTuple):
    """A way of collecting the batches of training, as pure functions."""

    init: Callable[[Network, PRNGKeyArray], RolloutState | tuple[()]]  # policy, key -> state
    # policy, params, key, state -> the batch
    collect: Callable[[Network, PyTree, PRNGKeyArray, Any], Collected]
    # What the gradient is multiplied with. Over a window there is no episode to sum over: its
    # gradient is per step, so that its scale, which clipping sees, does not depend on where the
    # window is cut.
    scale: float


def make_collector(
    config: Config, env: Env, *, further: FurtherRollouts = NOTHING_FURTHER
) -> Collector:
    """The way of collecting that `config` names: complete episodes, or windows.

    Args:
        config: The settings.
        env: The environments.
        further: As of `episodes`.

    Raises:
        ValueError: As of `episodes`.
    """
    further_rollouts.check_possible(env, further, config.branch_every)

    def nothing(policy: Network, key: PRNGKeyArray) -> tuple[()]:
        return ()

    def fresh(policy: Network, key: PRNGKeyArray) -> RolloutState:
        return _fresh(env, policy, *env.reset(key))

    def episodes(policy: Network, params: PyTree, key: PRNGKeyArray, state: tuple[()]) -> Collected:
        traj = _episodes(_Acting(env, policy, params, horizon), key, batch)
        finished = Finished(jnp.int32(env.num_envs), traj.reward.sum(), traj.env_steps.sum())
        return Collected((), traj, finished)

    def window(
        policy: Network, params: PyTree, key: PRNGKeyArray, state: RolloutState
    ) -> Collected:
        _check_rollout_state("state", state, env)  # which a user may have handed in
        return _window(env, policy, params, key, state, config.num_steps, config.horizon)

    if config.collect == "windows":
        return Collector(fresh, window, 1 / config.num_steps)
    horizon = env.horizon(config.horizon)
    batch = _Batch(
        group_size=config.group_size,
        further=further,
        num_branches=config.num_branches,
        branch_every=config.branch_every,
        noise=BatchNoise(config.sampling, env.num_envs, config.sample_env),
    )
    return Collector(nothing, episodes, 1.0)


class _Batch(NamedTuple):
    """The settings of a batch of complete episodes; as of `episodes`."""

    group_size: int = 1
    act: Act = sample
    further: FurtherRollouts = NOTHING_FURTHER
    num_branches: int = 1
    branch_every: int = 1
    noise: BatchNoise | None = None  # None: independent


class _Acting(NamedTuple):
    """A policy, and where it acts."""

    env: Env
    policy: Network
    params: PyTree
    horizon: int

    def with_envs(self, num_envs: int) -> "_Acting":
        """The same with another number of environments."""
        return self._replace(env=self.env._replace(num_envs=num_envs))


def _episodes(
    acting: _Acting, key: PRNGKeyArray, batch: _Batch, begin: RolloutState | None = None
) -> Trajectory:
    """`episodes`, its arguments not checked."""
    env, policy, _, horizon = acting
    further, group_size = batch.further, batch.group_size
    loop = _loop(acting, key, batch, begin)
    branching = further.branches

    def step(running: _Running, draws: Any) -> tuple[_Running, tuple[Trajectory, PyTree]]:
        after, row = loop.step(running, draws)
        before = key_numbers.as_numbers(running.state) if isinstance(branching, Branching) else ()
        return after, (row, before)

    traj, states = scan_until(step, loop.begin, loop.draws, _alive, length=horizon)
    if isinstance(branching, Branching):
        visited = _Running(states, traj.valid)
        branches = _branched(
            acting,
            loop.branch_key,
            visited,
            loop.begin.state,
            branching,
            batch.num_branches,
            batch.branch_every,
        )
        traj = traj._replace(branches=branches)
    traj = traj._replace(carry=_carry_before(loop.begin.state))
    if group_size > 1:
        number = jnp.arange(env.num_envs, dtype=jnp.int32) // group_size
        traj = traj._replace(group=jnp.broadcast_to(number[None], traj.reward.shape))
    if further.greedy:
        each_group = jax.tree.map(lambda x: x[::group_size], loop.begin.state)
        if policy.draw_carry is not None:  # greedy episodes have none that is drawn
            undrawn = networks.start(policy, len(each_group.time))
            each_group = each_group._replace(carry=undrawn)
        some = acting.with_envs(env.num_envs // group_size)
        one = _episodes(some, loop.greedy_key, _Batch(act=greedy), each_group)
        traj = traj._replace(greedy=_for_groups(one, group_size))
    if further.starts:
        first = traj.first & traj.valid
        starts = further_rollouts.initial_states(env, further.starts, loop.start_key, first)
        traj = traj._replace(starts=starts._replace(obs=_stored(env, starts.obs)))
    return traj


def _for_groups(one: Trajectory, group_size: int) -> GreedyEpisodes:
    """The greedy episodes of each of B episodes, from those of each group."""
    reward = jnp.repeat(one.reward, group_size, axis=1)
    is_first = jnp.arange(reward.shape[1]) % group_size == 0
    env_steps = jnp.repeat(one.env_steps, group_size, axis=1)
    return GreedyEpisodes(reward, jnp.where(is_first, env_steps, 0))


class _Running(NamedTuple):
    """The current state of B episodes, and which of them have not ended."""

    state: RolloutState
    alive: Bool[Array, " B"]


class _Loop(NamedTuple):
    """B complete episodes as a scan over their steps."""

    begin: _Running
    draws: Callable[[Array], PyTree]  # step numbers [K] -> the random numbers of these steps
    step: Callable[[_Running, Any], tuple[_Running, Trajectory]]
    # of the greedy episodes, of those out of visited states, and of further initial states: no step
    # uses them
    greedy_key: PRNGKeyArray
    branch_key: PRNGKeyArray
    start_key: PRNGKeyArray


def _loop(
    acting: _Acting, key: PRNGKeyArray, batch: _Batch, begin: RolloutState | None = None
) -> _Loop:
    """The steps of a batch, from `begin` on; by default from fresh resets."""
    env, policy, params, horizon = acting
    group_size, act, further = batch.group_size, batch.act, batch.further
    num_branches, batch_noise = batch.num_branches, batch.noise
    reset_key, key = jax.random.split(key)
    env_numbers = _env_numbers(env, batch_noise)
    reset_keys = _reset_keys(env, reset_key, batch_noise, env_numbers.reset, group_size)
    state = _fresh(env, policy, *env.reset(reset_keys)) if begin is None else begin
    if group_size > 1:
        leader = jnp.arange(env.num_envs) // group_size * group_size
        state = jax.tree.map(lambda x: x[leader], state)
    # the steps fold in numbers below the horizon
    greedy_key, again_key, branch_key, start_key, carry_key, action_key = (
        jax.random.fold_in(key, horizon + number) for number in range(6)
    )
    if begin is None and act is not greedy:
        state = _with_drawn_carry(state, policy, params, carry_key, batch_noise)
    of_actions = batch_noise if policy.draw_carry is None else None
    own_draws = _draws(env, policy, params, state, key, horizon, of_actions, env_numbers)
    num_keys = further.num_keys(num_branches)
    handed_out = _handed_out(env, policy, of_actions)

    noise_of_others = _noise_of_others(policy, params, state, action_key, further.actions)

    def draws(times: Int[Array, " K"]) -> PyTree:
        more_keys = _more_keys(again_key, times, num_keys, env.num_envs)
        return own_draws(times), more_keys, noise_of_others(times)

    def asked_again(
        more: Array, keys: Shaped[Array, " B"], env_state: PyTree, action: PyTree, obs: PyTree
    ) -> Any:
        more_keys = jax.random.wrap_key_data(more, impl=jax.random.key_impl(key))
        return further_rollouts.transitions(
            env, further, num_branches, keys, more_keys, env_state, action, obs
        )

    def step(running: _Running, draws: Any) -> tuple[_Running, Trajectory]:
        state, alive = running
        (noise, keys), more, of_others = draws
        own = handed_out(noise, running), keys
        ask = functools.partial(asked_again, more)
        moved, row = _step(env, policy, params, state, own, key, act, ask, of_others)
        is_last = row.time >= horizon - 1
        row = row._replace(
            valid=alive,
            reward=jnp.where(alive, row.reward, 0.0),
            held=jax.tree.map(lambda steps: jnp.where(alive, steps, 0), row.held),
            terminated=alive & row.terminated,
            truncated=alive & (row.truncated | is_last),
            next_obs=_where(alive, row.next_obs, row.obs),
            successors=further_rollouts.of_running(row.successors, alive, is_last, row.obs),
            lookahead=further_rollouts.of_running(row.lookahead, alive, is_last, row.obs),
        )
        goes_on = alive & ~row.done
        # The state of a finished environment is frozen: stepped further, it could overflow.
        after = _where(alive, moved, state)
        # The observation after the end of an episode may be anything, even NaN. It is masked out of
        # the loss, but in the backward pass 0 · NaN is NaN: so the networks keep seeing the
        # episode's last observation.
        after = after._replace(obs=_where(goes_on, moved.obs, state.obs))
        if env.differentiable:  # the same for the derivative of the dynamics
            after = after._replace(env_state=_where(goes_on, moved.env_state, state.env_state))
        return _Running(after, goes_on), row

    running = _Running(state, jnp.ones(env.num_envs, bool))
    return _Loop(running, draws, step, greedy_key, branch_key, start_key)


def _alive(running: _Running) -> Bool[Array, " B"]:
    return running.alive


def _branched(
    acting: _Acting,
    key: PRNGKeyArray,
    visited: _Running,
    like: RolloutState,
    branching: Branching,
    num_branches: int,
    branch_every: int,
) -> Branches:
    """Episodes out of visited states, leaves [T, B, K, M, ...].

    Those of several steps run side by side, `BRANCHES_AT_ONCE` or of one step, and their memory is
    that of as many environments; all visited states are kept, too.

    Args:
        acting: The policy, and where it acts.
        key: A random key.
        visited: The states before each step, [T, B], keys as their numbers, and True where there
            was a step.
        like: One of these states, with its keys.
        branching: Which episodes.
        num_branches: K.
        branch_every: Episodes leave every so many-th state.
    """
    start_key, key = jax.random.split(key)
    length, num_envs = visited.alive.shape
    own = jnp.arange(num_envs)[None]
    num_rows = -(-length // branch_every)
    # the first is drawn for each episode, so that every state is as likely
    start = jax.random.randint(start_key, (1, num_envs), 0, branch_every)
    number = jnp.arange(num_rows)[:, None] * branch_every + start
    row = jnp.minimum(number, length - 1)
    states, valid = jax.tree.map(lambda x: x[row, own], tuple(visited))
    chosen = _Running(states, valid & (number < length))

    def of_rows(x: tuple[Int[Array, ""], _Running]) -> Branches:
        index, rows = x
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        flat = flat._replace(state=key_numbers.as_keys(flat.state, like))
        return _branch(acting, jax.random.fold_in(key, index), flat, branching, num_branches)

    one = jax.tree.map(lambda x: x[:1], chosen)
    width = jax.eval_shape(of_rows, (jnp.int32(0), one)).reward_to_go.size
    size = blocks.even_size(num_rows, max(1, BRANCHES_AT_ONCE // width))
    rows = blocks.split(chosen, size)
    found = jax.lax.map(of_rows, (jnp.arange(len(rows.alive)), rows))
    found = jax.tree.map(lambda x: x.reshape(-1, num_envs, *x.shape[2:])[:num_rows], found)

    def placed(x: Shaped[Array, "R B ..."]) -> Shaped[Array, "T B ..."]:
        # out of range is what no step has: it is dropped
        return jnp.zeros((length, *x.shape[1:]), x.dtype).at[number, own].set(x, mode="drop")

    found = jax.tree.map(placed, found)
    return found._replace(stands_for=branch_every * found.stands_for)


def _branch(
    acting: _Acting, key: PRNGKeyArray, begin: _Running, branching: Branching, num_branches: int
) -> Branches:
    """Episodes out of N states, leaves [N, K, M, ...]; arguments as of `_branched`."""
    action_key, first_key, key = jax.random.split(key, 3)
    horizon = acting.horizon
    state = begin.state
    now = state.carry, state.obs, state.time == 0
    dist = acting.policy.apply(acting.params, *now)[1]
    first = first_actions(branching.kind, dist, action_key, num_branches)
    num_states, repetitions, members = shape = first.constant.shape
    each = repetitions * members
    together = members if branching.common_numbers else 1  # that draw the same random numbers
    many = acting.with_envs(num_states * each)
    few = acting.with_envs(num_states * each // together)
    action = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), first.action)

    def draws(key: PRNGKeyArray, state: RolloutState) -> Callable[[Array], PyTree]:
        """The random numbers of all branches, drawn once for those that share them."""
        of_few = _loop(few, key, _Batch(), jax.tree.map(lambda x: x[::together], state)).draws
        return lambda times: jax.tree.map(lambda x: jnp.repeat(x, together, axis=1), of_few(times))

    # one step by the first actions, and the policy's own from there on
    running = jax.tree.map(lambda x: jnp.repeat(x, each, axis=0), begin)
    opening = _loop(many, first_key, _Batch(act=lambda dist, noise: action), running.state)
    draws_of_first = draws(first_key, running.state)(jnp.zeros(1, int))
    running, row = opening.step(running, jax.tree.map(lambda x: x[0], draws_of_first))
    rest = _loop(many, key, _Batch(), running.state)

    def step(running: _Running, draws: Any) -> tuple[_Running, tuple[Array, Array, Array]]:
        after, row = rest.step(running, draws)
        return after, (row.reward, jnp.where(row.valid, row.log_prob, 0.0), row.env_steps)

    later = scan_until(step, running, draws(key, running.state), _alive, length=horizon)
    reward, log_prob, env_steps = later
    gamma = jnp.asarray(branching.gamma, reward.dtype)
    powers = gamma ** jnp.arange(1, horizon + 1, dtype=reward.dtype)

    def to_go(now: Float[Array, " L"], later: Float[Array, "H L"]) -> Float[Array, "N K M"]:
        return (now + jnp.sum(powers[:, None] * later, axis=0)).reshape(shape)

    alive = begin.alive
    return Branches(
        jax.tree.map(lambda x: _where(alive, x, jnp.zeros_like(x)), first.action),
        to_go(row.reward, reward),
        to_go(jnp.where(row.valid, row.log_prob, 0.0), log_prob),
        jnp.where(alive[:, None, None], first.constant, 0.0),
        alive.astype(reward.dtype),
        jnp.sum((row.env_steps + jnp.sum(env_steps, axis=0)).reshape(shape), axis=(1, 2)),
    )


def _env_numbers(env: Env, batch_noise: BatchNoise | None) -> EnvNumbers:
    """The random numbers of one environment that points take the place of; none where its noise is
    its own.

    Raises ValueError for an environment that cannot be given them.
    """
    if batch_noise is None or not batch_noise.of_env:
        return NO_NUMBERS
    key = jax.random.key(0)
    keys = jax.random.split(key, env.num_envs)
    state, _ = jax.eval_shape(env.reset, key)
    action = jax.eval_shape(jax.vmap(lambda key: random_action(env.action_space, key)), keys)
    of_points = point_keys.with_points(keys, jnp.zeros((env.num_envs, 1), jnp.uint32))
    try:
        return EnvNumbers(
            point_keys.numbers_drawn(env.reset, of_points),
            point_keys.numbers_drawn(env.step, of_points, state, action),
        )
    except Exception as error:
        raise ValueError(
            "sample_env hands an environment keys whose first numbers are given, and this one "
            "takes its keys apart (jax.random.key_data) or keeps them in its state: leave "
            "sample_env out"
        ) from error


def _reset_keys(
    env: Env, key: PRNGKeyArray, batch_noise: BatchNoise | None, numbers: int, group_size: int
) -> Any:
    """The key of the resets, or where their noise is spread over a batch one for each of them."""
    if batch_noise is None or not numbers:
        return key
    bits_key, key = jax.random.split(key)
    num_groups = env.num_envs // group_size
    of_groups = batch_noise._replace(num_episodes=batch_noise.num_episodes // group_size)
    points = noise_sampling.start_bits(bits_key, of_groups, num_groups, numbers)
    points = jnp.repeat(points, group_size, axis=0)
    return point_keys.with_points(row_keys.split(key, env.num_envs), points)


def _handed_out(
    env: Env, policy: Network, batch_noise: BatchNoise | None
) -> Callable[[StepNoise, _Running], StepNoise]:
    """The noise of a step by episode: in the order in which it is drawn, or in that of the states.

    Raises ValueError for states that have no order.
    """
    if batch_noise is None or batch_noise.sampling != "array":
        return lambda noise, running: noise
    noise_sampling.check_sortable(seen(env.obs_shape, policy.view))

    def by_state(noise: StepNoise, running: _Running) -> StepNoise:
        obs = running.state.obs
        obs = seen(obs.obs if isinstance(obs, Masked) else obs, policy.view)
        return noise_sampling.by_state(noise, obs, running.alive, batch_noise.num_episodes)

    return by_state


def _window(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    state: RolloutState,
    num_steps: int,
    horizon: int | None,
) -> Collected:
    """`windows`, its arguments not checked."""
    reset_key, key = jax.random.split(key)
    starts, initial = _resets(env, reset_key, num_steps, horizon)

    def step(state: RolloutState, xs: Any) -> Any:
        draws, start = xs
        moved, row = _step(env, policy, params, state, draws, key, sample)
        if horizon is not None:
            row = row._replace(truncated=row.truncated | (row.time >= horizon - 1))
        ended = Finished(
            row.done,
            jnp.where(row.done, moved.episode_return, 0),
            jnp.where(row.done, moved.env_steps, 0),
        )
        reset = initial(start, moved, row.done)
        return _where(row.done, _fresh(env, policy, *reset), moved), (row, ended)

    draws = _draws(env, policy, params, state, key)(jnp.arange(num_steps))
    after, (traj, ended) = jax.lax.scan(step, state, (draws, starts))
    traj = traj._replace(carry=_carry_before(state))
    return Collected(after, traj, jax.tree.map(jnp.sum, ended))


def differentiable_episodes(
    env: Env, policy: Network, params: PyTree, key: PRNGKeyArray, horizon: int | None = None
) -> Trajectory:
    """The trajectory of `episodes` for the same key, with a derivative in params through actions,
    states and rewards.

    The action is a function of params and noise (`reparameterised`). All H steps are taken, in one
    scan, whose backward pass computes each step again instead of storing what was inside it.

    Args:
        env: B environments.
        policy: The policy that acts.
        params: Its parameters.
        key: A random key.
        horizon: H, in steps; default: the environment's own time limit.
    """
    _check_arguments(env, policy, key)
    _check_standardised(policy)
    horizon = env.horizon(horizon)
    acting = _Acting(env, policy, params, horizon)
    loop = _loop(acting, key, _Batch(act=reparameterised))
    draws = loop.draws(jnp.arange(horizon))
    traj = jax.lax.scan(jax.checkpoint(loop.step), loop.begin, draws)[1]
    return traj._replace(carry=_carry_before(loop.begin.state))


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
        policy: The policy that acts.
        params: Its parameters.
        key: A random key.
        horizon: H, in steps; default: the environment's own time limit.
        act: `sample`, or `greedy` for the mode.
    """
    _check_arguments(env, policy, key)
    _check_standardised(policy)
    horizon = env.horizon(horizon)
    loop = _loop(_Acting(env, policy, params, horizon), key, _Batch(act=act))

    def step(running: _Running, draws: Any) -> tuple[_Running, _Running]:
        return loop.step(running, draws)[0], running

    running = jax.lax.scan(step, loop.begin, loop.draws(jnp.arange(horizon)))[1]
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
    """G = Σₖ γᵏ rₜ₊ₖ of B episodes that take `action` now, and follow the policy then, [B].

    As every environment here is a pure function of its state, an episode can be continued from any
    state, as often as wanted.

    Args:
        env: B environments.
        policy: The policy that acts.
        params: Its parameters.
        key: A random key.
        begin: The state of the environments now.
        action: The action of each, [B, *A], as the policy samples it.
        gamma: γ.
        horizon: H, in steps; default: the environment's own time limit.
    """
    _check_arguments(env, policy, key)
    _check_rollout_state("begin", begin, env)
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
    draws = jax.tree.map(
        lambda x: x[0], _draws(env, policy, params, begin, first_key)(jnp.zeros(1, int))
    )
    after, row = _step(env, policy, params, begin, draws, first_key, lambda dist, noise: action)
    rest = episodes(env, policy, params, key, horizon, begin=after)
    ended = row.done | (row.time == horizon - 1)
    powers = jnp.asarray(gamma, rest.reward.dtype) ** jnp.arange(
        1, horizon + 1, dtype=rest.reward.dtype
    )
    return row.reward + jnp.where(ended, 0.0, powers @ rest.reward)


def _check_sample_env(
    policy: Network,
    further: FurtherRollouts,
    sampling: Sampling,
    num_episodes: int,
    group_size: int,
) -> None:
    """Raises ValueError where the environment's noise cannot be spread over a batch."""
    if sampling == "independent":
        raise ValueError(
            "sample_env draws the environment's noise by sampling, got 'independent': give "
            "sampling='sobol', or another of these"
        )
    if policy.draw_carry is not None or further.successors or further.lookahead:
        raise ValueError(
            "sample_env is for policies that draw an action at every step, and excludes further "
            "transitions, which have random numbers of their own: leave sample_env out"
        )
    if num_episodes % group_size:
        raise ValueError(
            f"group_size must divide num_episodes={num_episodes} with sample_env, got {group_size}"
        )


def _check_arguments(env: Any, policy: Any, key: Any) -> None:
    """Raises ValueError, which says what to write instead, for other kinds of things than these
    three.
    """
    networks.check_env(env)
    check_kind("policy", policy, Network, "write pg.make_policy(config, env)")
    check_key(key)
    if env.masked and not policy.masked:
        raise ValueError(
            "the environment has action masks, which this policy does not see: write "
            "pg.networks.masked(policy), or pg.make_env(..., action_mask='none')"
        )
    if env.views.policy and policy.view != env.views.policy:
        raise ValueError(
            "the observations of the environment have what the critic sees, too, and this policy "
            "is not on its own part of them: write pg.networks.for_env(policy, env, "
            "env.views.policy), or pg.make_env(..., critic_observe=('policy',))"
        )


def _check_rollout_state(name: str, state: Any, env: Env) -> None:
    """Raises ValueError unless `state` is the state of all environments."""
    instead = (
        "write pg.rollout.start(env, policy, key), or state.rollout of a TrainState that collects "
        "windows"
    )
    check_kind(name, state, RolloutState, instead)
    if state.time.shape != (env.num_envs,):
        raise ValueError(
            f"{name} must be that of {env.num_envs} environments, got one of shape "
            f"{list(state.time.shape)}: make env with as many"
        )


def _check_standardised(policy: Network) -> None:
    """Raises ValueError for a policy that would act otherwise than it was trained to."""
    if policy.expects_standardised:
        raise ValueError(
            "this policy sees standardised observations: write "
            "pg.normalisation.with_standardised_observations(policy, state.normaliser), or "
            "pg.load_policy(folder).network for a run that was saved"
        )


def _step(
    env: Env,
    policy: Network,
    params: PyTree,
    state: RolloutState,
    draws: Any,
    key: PRNGKeyArray,
    act: Act,
    ask: Callable[..., Any] | None = None,
    noise_of_others: PyTree = (),
) -> tuple[RolloutState, Trajectory]:
    """One step of B environments.

    Args:
        env: B environments.
        policy: The policy that acts.
        params: Its parameters.
        state: The environments' state.
        draws: The random numbers of this step, as `_draws` gives them.
        key: A key of the kind of those in `draws`.
        act: Distribution, noise -> action.
        ask: Keys, environment states, actions, observations -> further transitions from here, as
            `further.transitions` gives them; default: none.
        noise_of_others: That of further actions, leaves [B, M, ...]; () for none.

    Returns:
        Their state afterwards, unreset, and the row [B, ...] to record, without the carry.
    """
    noise, key_data = draws
    keys = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(row_keys.plain(key)))
    state, noise, keys = devices.spread_envs((state, noise, keys))
    if not isinstance(noise.env, tuple):
        keys = point_keys.with_points(keys, noise.env)
    first = state.time == 0
    carry, dist = policy.apply(params, state.carry, state.obs, first)
    action = act(dist, noise.action)
    networks.check_policy(dist, action, (env.num_envs,), "[B]")
    env_action = dist.action(action)
    env_state, transition = env.step(keys, state.env_state, env_action)
    successors, lookahead = (
        ((), ()) if ask is None else ask(keys, state.env_state, env_action, state.obs)
    )
    row = Trajectory(
        obs=_stored(env, state.obs),
        action=action,
        log_prob=dist.log_prob(action),
        reward=transition.reward,
        terminated=transition.terminated,
        truncated=transition.truncated,
        next_obs=_stored(env, transition.next_obs),
        first=first,
        valid=jnp.ones(env.num_envs, bool),
        time=state.time,
        carry=(),
        held=transition.steps,
        successors=_stored_transitions(env, successors),
        lookahead=_stored_transitions(env, lookahead),
        other_actions=_other_actions(dist, noise_of_others),
    )
    episode_return = state.episode_return + transition.reward
    held = jax.tree.map(jnp.add, state.held, transition.steps)
    return RolloutState(
        env_state, transition.next_obs, carry, state.time + 1, episode_return, held
    ), row


def _draws(
    env: Env,
    policy: Network,
    params: PyTree,
    state: RolloutState,
    key: PRNGKeyArray,
    horizon: int = 1,
    batch_noise: BatchNoise | None = None,
    env_numbers: EnvNumbers = NO_NUMBERS,
) -> Any:
    """times [K] -> the random numbers of those steps: `StepNoise` [K, B, ...] and environment keys
    [K, B].

    The keys are given as their numbers, for loops to pass on (`fast.scans.scan_keys` says why);
    `_step` undoes that.
    """
    networks.check_params(params)
    dist = jax.eval_shape(policy.apply, params, state.carry, state.obs, state.time == 0)[1]
    networks.check_distribution(dist)
    batch_noise = batch_noise or BatchNoise("independent", env.num_envs)
    noise = noise_sampling.make_noise(dist, batch_noise, env.num_envs, horizon, env_numbers)

    def one(time: Int[Array, ""]) -> tuple[PyTree, Array]:
        action_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        return noise(action_key, time), jax.random.key_data(row_keys.split(env_key, env.num_envs))

    return jax.vmap(one)


def _noise_of_others(
    policy: Network, params: PyTree, state: RolloutState, key: PRNGKeyArray, number: int
) -> Callable[[Int[Array, " K"]], PyTree]:
    """times [K] -> the noise of further actions of those steps, leaves [K, B, number, ...]; () for
    none.
    """
    if not number:
        return lambda times: ()
    dist = jax.eval_shape(policy.apply, params, state.carry, state.obs, state.time == 0)[1]

    def one(time: Int[Array, ""]) -> PyTree:
        keys = jax.random.split(jax.random.fold_in(key, time), number)
        return jax.vmap(dist.draw, out_axes=1)(keys)

    return jax.vmap(one)


def _other_actions(dist: Any, noise: PyTree) -> PyTree:
    """Samples of a distribution [B] for noise [B, M, ...], [B, M, ...]; () for none."""
    if not jax.tree.leaves(noise):
        return ()
    return jax.vmap(dist.sample, in_axes=1, out_axes=1)(noise)


def _more_keys(
    key: PRNGKeyArray, times: Int[Array, " K"], number: int, num_envs: int
) -> Shaped[Array, "K number B ..."]:
    """Further keys of steps, [K, number, B], as their numbers; empty where none are needed."""

    def one(time: Int[Array, ""]) -> Array:
        own = jax.random.split(jax.random.fold_in(key, time), (number, num_envs))
        return jax.random.key_data(own)

    return jax.vmap(one)(times)


def way_of_resets(env: Env, num_steps: int, num_runs: int = 1) -> Resets:
    """The method by which `windows` obtains the initial states of episodes that begin inside it.

    Args:
        env: B environments.
        num_steps: Steps of a window.
        num_runs: Runs that are mapped over.
    """
    if env.restart is not None:
        return "by the environments"
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_steps))
    starts = jax.tree.leaves(jax.eval_shape(jax.vmap(functools.partial(_begin, env)), keys))
    of_one_run = sum(x.size * x.dtype.itemsize for x in starts)
    is_large = num_runs * of_one_run > FRESH_BYTES
    return "where ended" if is_large or resets.is_costly(env.reset) else "drawn ahead"


def _begin(env: Env, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
    """Initial states, and their observations as a trajectory has them."""
    env_state, obs = env.reset(key)
    return env_state, _stored(env, obs)


def _resets(
    env: Env, key: PRNGKeyArray, num_steps: int, horizon: int | None
) -> tuple[Any, Callable[..., Any]]:
    """The initial states that the steps of a window may need.

    They are drawn for the whole window at once, so that its steps need no branch. If that would
    take more than `FRESH_BYTES` over all vmapped runs, or if a reset is costly, each step draws
    those of the environments that ended in it, from the same keys. Environments that restart
    themselves need none.

    Returns:
        What the steps are given, [num_steps, ...], and a function: one of these, where the
        environments have moved to, and which have ended [B] -> env_state, obs, which mean nothing
        in the others.
    """
    restart = env.restart
    if restart is not None:
        if not (horizon is None or isinstance(horizon, int)) or horizon != restart.horizon:
            raise ValueError(
                f"the environments begin their next episodes after {restart.horizon} steps at the "
                f"latest, and the horizon is {horizon}: make them with that one"
            )
        return (), lambda start, moved, done: restart.begin(moved.env_state)
    keys = jax.random.split(key, num_steps)

    def drawn_ahead(start: Any, moved: RolloutState, done: Bool[Array, " B"]) -> Any:
        return start[0], networks.as_float(start[1])

    def drawn_here(data: Array, moved: RolloutState, done: Bool[Array, " B"]) -> Any:
        step_key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
        reset_keys = row_keys.split(step_key, env.num_envs)
        return resets.replace_ended(env.reset, reset_keys, done, (moved.env_state, moved.obs))

    if way_of_resets(env, num_steps, devices.mapped_runs()) == "where ended":
        return jax.random.key_data(keys), drawn_here
    return jax.vmap(functools.partial(_begin, env))(keys), drawn_ahead


def _stored(env: Env, obs: PyTree) -> PyTree:
    """Observations in the dtypes of a trajectory."""
    return map_observation(lambda x, dtype: x.astype(dtype), obs, env.obs_dtype)


def _stored_transitions(env: Env, x: Transitions | tuple[()]) -> Transitions | tuple[()]:
    """Further transitions with observations in the dtypes of a trajectory; () stays ()."""
    return x._replace(next_obs=_stored(env, x.next_obs)) if isinstance(x, Transitions) else ()


def _fresh(env: Env, policy: Network, env_state: PyTree, obs: PyTree) -> RolloutState:
    """The state of B environments at the start of an episode."""
    zeros = jnp.zeros(env.num_envs)
    time = zeros.astype(jnp.int32)
    held = time if env.action_repeat > 1 else ()
    return RolloutState(env_state, obs, networks.start(policy, env.num_envs), time, zeros, held)


def _with_drawn_carry(
    state: RolloutState,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    batch_noise: BatchNoise | None = None,
) -> RolloutState:
    """The state with a carry of its own for each episode, where that of the policy is random.

    Raises ValueError for noise in the order of states, of which there are none yet.
    """
    if policy.draw_carry is None:
        return state
    num_envs = len(state.time)
    batch_noise = batch_noise or BatchNoise("independent", num_envs)
    if batch_noise.sampling == "array":
        raise ValueError(
            "sampling='array' hands out noise in the order of the states, and this policy draws "
            "its own before the first: write sampling='sobol'"
        )
    dist = networks.carry_noise(policy, num_envs)
    noise = noise_sampling.make_noise(dist, batch_noise, num_envs, 1)(key, jnp.int32(0)).action
    return state._replace(carry=jax.vmap(policy.draw_carry, (None, 0))(params, noise))


def _carry_before(state: RolloutState) -> PyTree:
    """The carry of a trajectory that begins in this state, [1, B, ...]."""
    return jax.tree.map(lambda c: c[None], state.carry)


def _where(condition: Bool[Array, " B"], x: PyTree, y: PyTree) -> PyTree:
    """Leaf by leaf x where condition [B] holds, else y; leaves [B, ...]."""

    def select(a: Shaped[Array, "B *R"], b: Shaped[Array, "B *R"]) -> Shaped[Array, "B *R"]:
        return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(select, x, y)
