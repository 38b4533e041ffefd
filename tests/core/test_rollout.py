"""Rollouts: the contents of a trajectory, independence of how the loop is cut, and masks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, expand
from mistakes import Mistake, assert_one_sentence, handed

from pg import make_train, window_resets
from pg.config import Config
from pg.envs import configured, make_env, spaces
from pg.evaluation import evaluate
from pg.exact import tabular
from pg.extra_rollouts import ExtraRollouts
from pg.fast import devices, key_numbers, resets, scans
from pg.networks import Network, make_policy, unroll
from pg.rollout import (
    Trajectory,
    differentiable_episodes,
    episodes,
    greedy,
    returns_to_go,
    start,
    visited,
    windows,
)

KEY = jax.random.key(0)
WITH_GREEDY = ExtraRollouts(greedy=True)


def setup(env: Any, num_envs: int = 8, **config: Any) -> tuple[Any, Network, Any]:
    batch = make_env(env, num_envs)
    policy = make_policy(Config(env=env, **config, preset=None), batch)
    return batch, policy, policy.init(KEY)


def window(env: Any, num_steps: int, **config: Any) -> Trajectory:
    batch, policy, params = setup(env, **config)
    return windows(batch, policy, params, KEY, start(batch, policy, KEY), num_steps)[1]


def test_episodes_are_complete_and_valid_up_to_their_end() -> None:
    env, policy, params = setup("CartPole-v1", 32)
    traj = jax.jit(lambda key: episodes(env, policy, params, key))(KEY)
    assert traj.reward.shape == (500, 32)
    np.testing.assert_array_equal(traj.done.sum(0), 1)  # one end each
    length = np.argmax(np.asarray(traj.done), axis=0) + 1
    # the ending step counts
    np.testing.assert_array_equal(traj.valid, np.arange(500)[:, None] < length)
    # CartPole pays 1 for each step, the last included
    np.testing.assert_array_equal(traj.reward.sum(0), length)
    np.testing.assert_array_equal(traj.first, (np.arange(500) == 0)[:, None] & np.ones(32, bool))
    assert np.all(np.where(traj.valid, traj.time == np.arange(500)[:, None], True))
    assert length.max() < 200


def test_the_toy_episode_step_by_step() -> None:
    """On the clock, whose dynamics and reward are one line each."""
    env = make_env(Clock(), 3)
    _, policy, params = setup(Clock(), 3)
    traj = episodes(env, policy, params, KEY)
    place = np.asarray(traj.obs[..., 0])
    moved = place + np.asarray(traj.action)
    valid = np.asarray(traj.valid)
    np.testing.assert_allclose(np.asarray(traj.next_obs[..., 0])[valid], moved[valid], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(traj.reward), np.where(valid, moved, 0.0), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(traj.terminated), valid & (moved >= 4))
    last = np.arange(6)[:, None] == 5
    np.testing.assert_array_equal(np.asarray(traj.truncated), valid & last)


@pytest.mark.parametrize("horizon", [1, 7, 25, 60])
def test_a_shorter_horizon_truncates_and_changes_nothing_before(horizon: int) -> None:
    env, policy, params = setup("CartPole-v1", 16)
    whole, cut = (
        jax.jit(lambda h=h: episodes(env, policy, params, KEY, h))() for h in (None, horizon)
    )
    assert cut.reward.shape == (horizon, 16)
    for name in ("obs", "action", "log_prob", "reward", "terminated", "next_obs", "valid"):
        a, b = getattr(whole, name)[:horizon], getattr(cut, name)
        np.testing.assert_array_equal(
            np.where(expand(cut.valid, a), a, 0), np.where(expand(cut.valid, b), b, 0)
        )
    np.testing.assert_array_equal(cut.done.sum(0), 1)
    running = whole.valid[horizon] if horizon < 500 else jnp.zeros(16, bool)
    np.testing.assert_array_equal(cut.truncated[-1], running)


@pytest.mark.parametrize("block", [1, 7, 500])
def test_the_size_of_a_block_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy, params = setup("CartPole-v1")
    plain = jax.jit(lambda: episodes(env, policy, params, KEY))()
    monkeypatch.setattr(scans, "BLOCK", block)
    other = jax.jit(lambda: episodes(env, policy, params, KEY))()
    for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs"):
        a, b = getattr(plain, name), getattr(other, name)
        mask = expand(plain.valid, a)
        np.testing.assert_allclose(np.where(mask, a, 0), np.where(mask, b, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain.valid, other.valid)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "FrozenLake-misc"])
def test_the_successor_is_the_next_observation_unless_the_episode_ended(env: str) -> None:
    traj = window(env, 230)
    goes_on = expand(~traj.done[:-1], traj.obs[1:])
    np.testing.assert_array_equal(
        np.where(goes_on, traj.next_obs[:-1], 0), np.where(goes_on, traj.obs[1:], 0)
    )
    assert traj.done.any()
    np.testing.assert_array_equal(traj.first[1:], traj.done[:-1])
    expected = np.zeros(traj.time.shape[1], int)
    for t in range(len(traj.time)):
        np.testing.assert_array_equal(traj.time[t], expected)
        expected = np.where(traj.done[t], 0, expected + 1)


IMAGES = pytest.param("Breakout-MinAtar", {}, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("env", "config"),
    [
        ("CartPole-v1", {}),
        ("Pendulum-v1", {}),
        ("Pendulum-v1", {"action_distribution": "squashed"}),
        IMAGES,
    ],
)
def test_acting_and_learning_agree_on_log_probabilities(env: str, config: dict[str, Any]) -> None:
    """The ratio of fresh data is 1: the same parameters, the stored sample, the observation acted
    upon.
    """
    batch, policy, params = setup(env, **config)
    # away from uniform
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params)
    traj = windows(batch, policy, params, KEY, start(batch, policy, KEY), 40)[1]
    again = unroll(policy, params, traj.obs, traj.first).log_prob(traj.action)
    np.testing.assert_allclose(again, traj.log_prob, atol=2e-5)


def test_gaussian_samples_are_stored_unclipped() -> None:
    traj = window("Pendulum-v1", 50)
    assert float(jnp.abs(traj.action).max()) > 2.0  # outside the torque's bounds


def test_windows_continue_where_the_last_one_stopped() -> None:
    env, policy, params = setup("CartPole-v1")
    state = start(env, policy, KEY)
    between, first, _ = windows(env, policy, params, KEY, state, 10)
    _, second, _ = windows(env, policy, params, jax.random.key(1), between, 10)
    goes_on = expand(~first.done[-1], second.obs[0])
    np.testing.assert_array_equal(
        np.where(goes_on, first.next_obs[-1], 0), np.where(goes_on, second.obs[0], 0)
    )
    np.testing.assert_array_equal(second.time[0], np.where(first.done[-1], 0, first.time[-1] + 1))


def test_finished_episodes_are_counted_across_windows() -> None:
    env, policy, params = setup("CartPole-v1")
    state, total, rows = start(env, policy, KEY), np.zeros(3), []
    for i in range(6):
        state, traj, finished = windows(env, policy, params, jax.random.key(i), state, 20)
        total += [finished.episodes, finished.returns, finished.steps]
        rows.append(traj)
    done = np.concatenate([row.done for row in rows])
    steps = [t + 1 for b in range(8) for t in np.diff(np.flatnonzero(done[:, b]), prepend=-1) - 1]
    assert total[0] == done.sum() == len(steps)
    assert total[1] == total[2] == sum(steps)  # a reward of 1 for each step


def test_groups_share_their_initial_state_and_nothing_else() -> None:
    env, policy, params = setup("CartPole-v1", 12)
    traj = jax.jit(lambda: episodes(env, policy, params, KEY, group_size=4))()
    first = np.asarray(traj.obs[0]).reshape(3, 4, -1)
    np.testing.assert_array_equal(first, np.broadcast_to(first[:, :1], first.shape))
    assert len(np.unique(first[:, 0], axis=0)) == 3
    assert len({tuple(a) for a in np.asarray(traj.action[:8]).T}) > 6


def test_nothing_is_earned_after_the_end() -> None:
    """Without the mask, Clock would continue to pay for its place."""
    env, policy, params = setup(Clock(), 16)
    traj = episodes(env, policy, params, KEY)
    assert bool((~traj.valid).any())
    assert not np.asarray(traj.reward)[~np.asarray(traj.valid)].any()
    assert bool((traj.reward[-1] != 0.0).any())


def test_the_successor_at_an_end_within_a_window_is_not_the_reset() -> None:
    """Clock's observation carries its time: the successor's is one more than the step's, also where
    it ended.
    """
    env = make_env(Clock(), 16)
    policy = make_policy(Config(preset=None), env)
    traj = windows(env, policy, policy.init(KEY), KEY, start(env, policy, KEY), 40)[1]
    assert bool(traj.truncated.any())
    assert bool(traj.terminated.any())
    np.testing.assert_array_equal(traj.obs[..., 1], traj.time)
    np.testing.assert_array_equal(traj.next_obs[..., 1], traj.time + 1)


def window_of_clock() -> Any:
    """Two vmapped runs of twelve steps, in which episodes end."""
    env, policy, params = setup(Clock(), 4)

    def run(key: jax.Array) -> Any:
        return windows(env, policy, params, key, start(env, policy, key), 12)

    return jax.jit(jax.vmap(run)).lower(jax.random.split(KEY, 2)).compile()


@pytest.mark.parametrize(
    ("module", "bound", "value"),
    [(window_resets, "FRESH_BYTES", 0), (resets, "NUMBERS", {jax.default_backend(): 0})],
)
def test_initial_states_drawn_step_by_step_are_those_drawn_ahead(
    module: Any, bound: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones, and costly ones."""
    keys = jax.random.split(KEY, 2)
    ahead = window_of_clock()(keys)
    monkeypatch.setattr(module, bound, value)
    in_the_loop = window_of_clock()(keys)
    assert int(ahead[1].first[:, 1:].sum()) > 4
    for a, b in zip(jax.tree.leaves(ahead), jax.tree.leaves(in_the_loop), strict=True):
        np.testing.assert_array_equal(a, b)


class Shown(Clock):
    """A Clock with a nested observation, which has to move on at first."""

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Any:
        return {"place": state.place[None], "deep": {"time": state.time[None].astype(float)}}

    def observation_space(self, params: Any) -> Any:
        one = spaces.Box(0.0, 10.0, (1,))
        return spaces.Dict({"place": one, "deep": spaces.Dict({"time": one})})

    def action_mask(self, state: Any, params: Any) -> jax.Array:
        return jnp.stack([state.time > 0, state.time >= 0])


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_training_is_the_same_whichever_way_its_windows_reset(
    micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nested observations and masks, bit for bit."""
    config = Config(
        env=Shown(),
        estimator="actor_critic",
        collect="windows",
        num_envs=4,
        num_steps=9,
        num_updates=2,
        hidden_sizes=(2,),
        micro_batches=micro_batches,
        preset=None,
    )
    ahead = jax.jit(make_train(config))(KEY)
    monkeypatch.setattr(resets, "NUMBERS", {jax.default_backend(): 0})
    assert window_resets.way_of_resets(configured(config, 4), 9) == "where ended"
    where_ended = jax.jit(make_train(config))(KEY)
    assert ahead[1]["episodes"].min() > 0
    jax.tree.map(np.testing.assert_array_equal, *map(key_numbers.as_numbers, (ahead, where_ended)))


@pytest.mark.parametrize(("num_envs", "ended"), [(5, 5), (64, 64), (64, 3), (33, 1), (4, 0)])
def test_the_environments_that_ended_are_reset_from_their_own_keys(
    num_envs: int, ended: int
) -> None:
    """Fewer than are reset at once, or more; in two runs, one without an end; no key twice."""
    keys = jax.random.split(jax.random.key(num_envs), num_envs)
    which = jnp.isin(jnp.arange(num_envs), jax.random.permutation(KEY, num_envs)[:ended])
    before = {"a": jnp.zeros((num_envs, 2)), "b": jnp.arange(num_envs)}

    def reset(keys: jax.Array) -> Any:
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        return {"a": drawn, "b": jnp.full(len(keys), -1)}

    def replaced(which: jax.Array) -> Any:
        return resets.replace_ended(reset, keys, which, before)

    with jax.debug_key_reuse(True):
        after = jax.jit(jax.vmap(replaced))(jnp.stack([which, jnp.zeros_like(which)]))
    expected = {
        "a": jnp.where(which[:, None], reset(keys)["a"], 0),
        "b": jnp.where(which, -1, before["b"]),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(after[name], [values, before[name]])


class Costly(Clock):
    """A Clock whose reset adds up 20,000 numbers, some of them at the turns of a scan."""

    def reset_env(self, key: jax.Array, params: Any) -> Any:
        def add(total: jax.Array, key: jax.Array) -> Any:
            return total + jax.random.normal(key, (1000,)).sum(), None

        obs, state = super().reset_env(key, params)
        total, _ = jax.lax.scan(add, jnp.float32(0), jax.random.split(key, 20))
        return obs + 0 * total, state


def test_a_window_does_not_make_a_costly_initial_state_for_every_step() -> None:
    env, policy, params = setup(Costly(), 4)
    state = start(env, policy, KEY)
    program = jax.make_jaxpr(lambda state: windows(env, policy, params, KEY, state, 16))(state)
    of_one = resets.numbers_per_reset(env.reset)
    assert of_one > 20_000
    # a turn of a loop whose turns are not known counts once for each of the 16 steps
    assert resets.numbers_computed(program) < 17 * of_one


def test_the_way_of_resets_is_that_of_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their cost on a CPU, and by their size in all runs; or by themselves."""
    cheap, costly, heavy = (make_env(env, 8) for env in (Clock(), Costly(), Heavy()))
    by_cost = "where ended" if jax.default_backend() in resets.NUMBERS else "drawn ahead"
    assert window_resets.way_of_resets(cheap, 16) == "drawn ahead"
    assert window_resets.way_of_resets(costly, 16) == by_cost
    alone: Any = object()
    assert window_resets.way_of_resets(costly._replace(restart=alone), 16) == "by the environments"
    monkeypatch.setattr(resets, "NUMBERS", {})
    assert window_resets.way_of_resets(heavy, 4) == "drawn ahead"
    assert window_resets.way_of_resets(heavy, 4, num_runs=4) == "where ended"


def test_the_numbers_of_a_reset_are_those_of_its_operations() -> None:
    """Without what resets share; of a scan at every turn, and of a scatter all that it gives."""

    def reset(keys: jax.Array) -> jax.Array:
        drawn = jax.vmap(lambda key: jax.random.bits(key, (100,)))(keys)  # 100 and the keys' own
        shared = jnp.arange(1000, dtype=jnp.uint32).sum()
        scattered = (drawn + shared).at[:, 0].add(1)  # 100, of the sum, and 100
        return jax.lax.scan(lambda x, _: (x * 2, None), scattered, length=7)[0]  # 700

    assert 1000 <= resets.numbers_per_reset(reset) < 1100


class Heavy(Clock):
    """A Clock that carries a mebibyte."""

    def reset_env(self, key: jax.Array, params: Any) -> Any:
        obs, state = super().reset_env(key, params)
        return obs, (state, jax.random.normal(key, (2**18,)))

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        obs, clock, *rest = super().step_env(key, state[0], action, params)
        return obs, (clock, state[1] * 0.5), *rest

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        return super().is_truncated(state[0], params)


def test_a_window_does_not_hold_a_large_state_for_every_step() -> None:
    """16 steps of 8 environments would be 128 MiB."""
    env, policy, params = setup(Heavy(), 8)

    def run(key: jax.Array) -> Any:
        state, traj, _ = windows(env, policy, params, key, start(env, policy, key), 16)
        return state, traj.reward  # the state too: of what nobody asks for nothing is computed

    used = jax.jit(run).lower(KEY).compile().memory_analysis()
    assert used.temp_size_in_bytes < 8 * 8 * 2**20


def test_mapped_runs_share_the_memory_for_states_drawn_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """16 MiB in each of four runs are more than 32 MiB, of which one run may have half."""
    monkeypatch.setattr(window_resets, "FRESH_BYTES", 2**25)
    env, policy, params = setup(Heavy(), 1)

    def run(key: jax.Array) -> Any:
        state, traj, _ = windows(env, policy, params, key, start(env, policy, key), 16)
        return state, traj.reward  # the state too: of what nobody asks for nothing is computed

    many = devices.over_runs(run, devices.layout(most=1))
    used = jax.jit(many).lower(jax.random.split(KEY, 4)).compile().memory_analysis()
    assert used.temp_size_in_bytes < 4 * 8 * 2**20


def test_a_horizon_truncates_episodes_within_windows() -> None:
    """Clock takes four steps at least to terminate: three end each episode, also across two
    windows.
    """
    env, policy, params = setup(Clock())
    state, rows = start(env, policy, KEY), []
    for i in range(2):
        state, traj, finished = windows(env, policy, params, jax.random.key(i), state, 8, 3)
        assert finished.steps == 3 * finished.episodes
        rows.append(traj)
    traj = jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)
    np.testing.assert_array_equal(traj.time, np.broadcast_to(np.arange(16)[:, None] % 3, (16, 8)))
    np.testing.assert_array_equal(traj.truncated, traj.time == 2)
    assert not traj.terminated.any()
    # bootstrapped from the true successor
    np.testing.assert_array_equal(traj.next_obs[..., 1], traj.time + 1)


def test_a_horizon_bounds_training_and_evaluation_alike() -> None:
    """By either way of collecting."""
    for collect in ("episodes", "windows"):
        config = Config(
            env=Clock(),
            estimator="gae",
            collect=collect,
            horizon=3,
            num_steps=7,
            num_updates=2,
            hidden_sizes=(4,),
            preset=None,
        )
        state, metrics = jax.jit(make_train(config))(KEY)
        np.testing.assert_array_equal(metrics["length"], 3)
        np.testing.assert_array_equal(evaluate(config, state.params.policy, KEY, 4).lengths, 3)


def test_resets_within_a_window_are_fresh() -> None:
    traj = window("CartPole-v1", 200)
    starts = np.asarray(traj.obs[..., 0])[np.asarray(traj.first)]
    assert len(np.unique(starts)) == len(starts) > 20


def test_every_episode_and_every_key_is_another() -> None:
    env, policy, params = setup("CartPole-v1", 64)
    run = jax.jit(lambda key: episodes(env, policy, params, key))
    one, two = run(jax.random.key(1)), run(jax.random.key(2))
    assert len(np.unique(np.asarray(one.obs[0, :, 0]))) == 64
    assert len({tuple(a) for a in np.asarray(one.action[:8]).T}) > 32
    assert not np.array_equal(one.action, two.action)


def test_the_mean_of_n_episodes_has_one_nth_of_the_variance() -> None:
    """N copies of one episode, the mistake of a key that is broadcast, would have all of it."""
    env, policy, params = setup("CartPole-v1", 16)
    run = jax.jit(jax.vmap(lambda key: episodes(env, policy, params, key).reward.sum(0)))
    returns = np.asarray(run(jax.random.split(KEY, 200)))
    ratio = returns.mean(1).var(ddof=1) / (returns.var(ddof=1) / 16)
    assert 0.6 < ratio < 1.5  # its standard error is 0.1


def test_greedy_takes_the_mode() -> None:
    env, policy, params = setup("CartPole-v1")
    traj = jax.jit(lambda: episodes(env, policy, params, KEY, act=greedy))()
    mode = unroll(policy, params, traj.obs, traj.first).mode()
    np.testing.assert_array_equal(
        np.where(traj.valid, traj.action, 0), np.where(traj.valid, mode, 0)
    )


@pytest.mark.parametrize("group_size", [1, 4])
def test_greedy_episodes_begin_where_the_groups_do(group_size: int) -> None:
    env, policy, params = setup("CartPole-v1", 8)
    plain = jax.jit(lambda: episodes(env, policy, params, KEY, 40, group_size=group_size))()
    traj = jax.jit(
        lambda: episodes(
            env,
            policy,
            params,
            KEY,
            40,
            group_size=group_size,
            extra_rollouts=ExtraRollouts(greedy=True),
        )
    )()
    compared, sampled = traj.greedy, traj._replace(greedy=())
    jax.tree.map(np.testing.assert_array_equal, plain, sampled)
    # CartPole draws nothing but its initial states: the episodes of the mode are known from these
    begin = start(env, policy, jax.random.split(KEY)[0])._replace(obs=traj.obs[0])
    begin = begin._replace(env_state=env.reset(jax.random.split(KEY)[0])[0])
    leader = jnp.arange(8) // group_size * group_size
    begin = jax.tree.map(lambda x: x[leader], begin)
    mode = jax.jit(lambda begin: episodes(env, policy, params, KEY, 40, act=greedy, begin=begin))(
        begin
    )
    np.testing.assert_array_equal(begin.obs, traj.obs[0])
    np.testing.assert_array_equal(compared.reward, mode.reward)
    # a greedy episode is taken once for its group
    first = np.arange(8) % group_size == 0
    np.testing.assert_array_equal(compared.env_steps, np.where(first, mode.env_steps, 0))
    assert traj.all_env_steps.sum() == plain.env_steps.sum() + mode.env_steps[:, first].sum()


def test_greedy_episodes_draw_random_numbers_of_their_own() -> None:
    """With those of the episode that it is compared with, a baseline would depend on it."""
    mdp = tabular.chain(4, 12, slip=0.5)
    env, policy = make_env(mdp, 64), tabular.table_policy(jnp.zeros((4, 2)))
    always = jnp.asarray([[50.0, -50.0]] * 4)  # so that only the transitions are random
    traj = jax.jit(
        lambda: episodes(env, policy, always, KEY, extra_rollouts=ExtraRollouts(greedy=True))
    )()
    own, compared = traj.reward.sum(0), traj.greedy.reward.sum(0)
    assert own.std() > 0
    assert (own != compared).mean() > 0.2
    assert np.abs(np.corrcoef(own, compared)[0, 1]) < 0.4


def test_under_vmap_every_run_is_its_own() -> None:
    env, policy, params = setup("CartPole-v1")
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(lambda key: episodes(env, policy, params, key)))(keys)
    for i, key in enumerate(keys):
        one = jax.jit(lambda key: episodes(env, policy, params, key))(key)
        np.testing.assert_array_equal(many.valid[i], one.valid)
        np.testing.assert_array_equal(many.action[i] * many.valid[i], one.action * one.valid)


# Mistakes


def logits_of(policy: Network) -> Callable[..., Any]:
    def apply(*args: Any) -> Any:
        carry, dist = policy.apply(*args)
        return carry, dist.logits

    return apply


@pytest.mark.parametrize("time", [498, 499, 500, 700])
def test_no_return_continues_beyond_the_horizon(time: int) -> None:
    """CartPole pays 1 for each step: one, or two from the last step but one."""
    env, policy, params = setup("CartPole-v1", 3)
    begin = start(env, policy, KEY)
    begin = begin._replace(time=jnp.full_like(begin.time, time))
    got = returns_to_go(env, policy, params, KEY, begin, jnp.zeros(3, int), 1.0, horizon=500)
    assert got.tolist() == [2.0 if time == 498 else 1.0] * 3


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "a policy that gives logits": (
        handed(
            lambda x: episodes(
                x.env, Network(x.policy.init, logits_of(x.policy)), x.state.params.policy, KEY
            )
        ),
        "a policy must return a distribution, as pg.Categorical(logits), got an array without "
        "draw, sample",
    ),
    "all parameters for the policy's in a rollout": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params, KEY)),
        "params must be those of one network, got a Params: write params.policy",
    ),
    "a number for the key of episodes": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, 0)),
        "key must be a random key, got 0: write jax.random.key(0)",
    ),
    "a Config for a policy": (
        handed(lambda x: episodes(x.env, x.config, x.state.params.policy, KEY)),
        "policy must be a pg.Network, got a Config: write pg.make_policy(config, env)",
    ),
    "parameters and key changed about": (
        handed(lambda x: episodes(x.env, x.policy, KEY, x.state.params.policy)),
        "key must be a random key, got a dict: write",
    ),
    "policy and environment changed about": (
        handed(lambda x: episodes(x.policy, x.env, x.state.params.policy, KEY)),
        "env must be a pg.Env, got a Network: the environment comes first, and then the policy",
    ),
    **{
        f"the name of an environment in {function.__name__}": (
            handed(lambda x, f=function: f("CartPole-v1", x.policy, x.state.params.policy, KEY)),
            "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
        )
        for function in (episodes, differentiable_episodes, visited)
    },
    "the name of an environment in returns_to_go": (
        handed(lambda x: returns_to_go("CartPole-v1", x.policy, (), KEY, (), (), 1.0)),
        "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
    ),
    "half a step of episodes": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, KEY, 2.5)),
        "horizon must be a whole number of at least 1, got 2.5",
    ),
    "groups of none": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, KEY, group_size=0)),
        "group_size must be a whole number of at least 1, got 0",
    ),
    "the name of a way to act": (
        handed(lambda x: episodes(x.env, x.policy, x.state.params.policy, KEY, act="greedy")),
        "act must be a function of distribution, noise, got 'greedy': write pg.rollout.sample, or "
        "pg.rollout.greedy",
    ),
    "a derivative through discrete actions": (
        handed(lambda x: differentiable_episodes(x.env, x.policy, x.state.params.policy, KEY)),
        "a Categorical has no `reparameterised`: use an environment whose actions are a Box",
    ),
    "a state of training for that of a rollout": (
        handed(lambda x: windows(x.env, x.policy, x.state.params.policy, KEY, x.state, 3)),
        "state must be a pg.trajectory.RolloutState, got a TrainState: write pg.rollout.start(env, "
        "policy, key), or",
    ),
    "the standing of other environments": (
        handed(
            lambda x: windows(
                configured(x.config, 3), x.policy, (), KEY, start(x.env, x.policy, KEY), 3
            )
        ),
        "state is the state of 2 environments, but env has 3: make both with the same num_envs",
    ),
    "half a step of a window": (
        handed(
            lambda x: windows(x.env, x.policy, (), KEY, start(x.env, x.policy, KEY), 2.5),
        ),
        "num_steps must be a whole number of at least 1, got 2.5",
    ),
    "one action for all environments": (
        handed(
            lambda x: returns_to_go(
                x.env, x.policy, (), KEY, start(x.env, x.policy, KEY), jnp.int32(0), 1.0
            )
        ),
        "action must have 2 entries, one for each environment, got shape []",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
