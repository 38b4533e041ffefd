"""Random keys whose first numbers are given: what is drawn by them, and after them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState, tabular_policy
from proofs import arbitrary

import pg
from pg import envs, rollout_noise
from pg.exact import tabular
from pg.fast import point_keys
from pg.sampling import BatchNoise

KEY = jax.random.key(3)
SPREAD = BatchNoise("sobol", 3, of_env=True)
POINTS = jnp.array([[0, 2**31], [2**32 - 1, 2**30]], jnp.uint32)


def keys_of_points() -> jax.Array:
    return point_keys.with_points(jax.random.split(KEY, 2), POINTS)


def test_the_first_numbers_are_the_points_and_the_others_those_of_the_plain_key() -> None:
    plain = jax.vmap(lambda k: jax.random.uniform(k, (5,)))(jax.random.split(KEY, 2))
    drawn = jax.vmap(lambda k: jax.random.uniform(k, (5,)))(keys_of_points())
    np.testing.assert_allclose(drawn[:, :2], [[0.0, 0.5], [1.0, 0.25]], atol=1e-6)
    np.testing.assert_array_equal(drawn[:, 2:], plain[:, 2:])


def test_fewer_numbers_than_points_take_the_first() -> None:
    drawn = jax.vmap(jax.random.uniform)(keys_of_points())
    np.testing.assert_allclose(drawn, [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("width", [8, 16, 32])
def test_points_are_the_leading_bits(width: int) -> None:
    bits = jax.vmap(lambda k: jax.random.bits(k, (2,), f"uint{width}"))(keys_of_points())
    np.testing.assert_array_equal(bits, np.asarray(POINTS) >> (32 - width))


def test_numbers_of_64_bits_have_a_point_in_front_and_the_plain_key_behind() -> None:
    with jax.enable_x64(True):
        plain = jax.vmap(lambda k: jax.random.bits(k, (3,), "uint64"))(jax.random.split(KEY, 2))
        drawn = jax.vmap(lambda k: jax.random.bits(k, (3,), "uint64"))(keys_of_points())
        assert (np.asarray(drawn)[:, :2] >> 32 == np.asarray(POINTS)).all()
        low = np.uint64(2**32 - 1)
        np.testing.assert_array_equal(np.asarray(drawn) & low, np.asarray(plain) & low)
        np.testing.assert_array_equal(drawn[:, 2], plain[:, 2])


def test_the_first_key_split_off_has_the_points_and_the_others_draw_as_plain_ones() -> None:
    def children(key: jax.Array) -> jax.Array:
        return jax.vmap(lambda k: jax.random.uniform(k, (3,)))(jax.random.split(key, 3))

    def folded(key: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, 7), (3,))

    for key, plain in zip(keys_of_points(), jax.random.split(KEY, 2), strict=True):
        drawn, expected = children(key), children(plain)
        np.testing.assert_array_equal(drawn[1:], expected[1:])
        np.testing.assert_array_equal(drawn[0, 2:], expected[0, 2:])
        first = jax.random.uniform(key, (2,))
        np.testing.assert_array_equal(drawn[0, :2], first)
        np.testing.assert_array_equal(folded(key), folded(plain))


@pytest.mark.parametrize(
    ("env", "numbers"),
    [
        (arbitrary().mdp, (1, 1)),
        ("CartPole-v1", (4, 0)),
        ("Pendulum-v1", (2, 0)),
        ("MountainCar-v0", (1, 0)),
    ],
)
def test_the_numbers_that_an_environment_draws_are_counted(
    env: Any, numbers: tuple[int, int]
) -> None:
    assert rollout_noise.env_numbers(envs.make_env(env, 3), SPREAD) == numbers


def test_a_key_of_another_generator_is_refused() -> None:
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 2)
    with pytest.raises(ValueError, match="jax_default_prng_impl must be 'threefry2x32'"):
        point_keys.with_points(keys, POINTS)


def test_a_key_of_points_is_known_from_others() -> None:
    assert point_keys.is_of_points(keys_of_points())
    assert not point_keys.is_of_points(KEY)
    assert not point_keys.is_of_points(jax.random.PRNGKey(0))
    assert not point_keys.is_of_points(3)


def starts(key: jax.Array, num_envs: int = 8, group_size: int = 1) -> np.ndarray:
    """The first observations of episodes of CartPole, in units of eighths of their range."""
    config = pg.Config(estimator="reward_to_go", num_envs=num_envs)
    env = envs.configured(config, num_envs)
    policy = pg.make_policy(config, env)
    params = policy.init(KEY)
    spread = {"sampling": "sobol", "sample_env": True}
    traj = pg.episodes(env, policy, params, key, 2, group_size=group_size, **spread)
    return (np.asarray(traj.obs[0]) + 0.05) * 80


def test_starts_are_spread_over_a_batch() -> None:
    """Each of the 8 episodes in its own eighth, in each of the four entries."""
    cells = np.sort(np.floor(starts(KEY)), axis=0)
    np.testing.assert_array_equal(cells, np.tile(np.arange(8)[:, None], (1, 4)))


def test_starts_of_another_key_are_others() -> None:
    assert (starts(KEY) != starts(jax.random.key(4))).all()


def test_starts_of_groups_are_spread() -> None:
    """Each of 8 groups of two episodes in its own eighth, and both of its episodes at one place."""
    found = starts(KEY, num_envs=16, group_size=2)
    np.testing.assert_array_equal(found[::2], found[1::2])
    cells = np.sort(np.floor(found[::2]), axis=0)
    np.testing.assert_array_equal(cells, np.tile(np.arange(8)[:, None], (1, 4)))


@pytest.mark.parametrize("sampling", ["latin_hypercube", "sobol", "array"])
def test_transitions_are_spread_over_a_batch(sampling: Any) -> None:
    """From one state, 8 episodes reach 8 equally likely ones, each its own, at both steps."""
    uniform = np.zeros((9, 2, 9))
    uniform[..., 1:] = 1 / 8
    mdp = tabular.TabularMDP(uniform, np.zeros((9, 2)), np.eye(9)[0], np.zeros(9, bool), horizon=2)
    env, policy = envs.make_env(mdp, 8), tabular_policy(9, 2)
    logits = jnp.zeros((9, 2))
    spread = {"sampling": sampling, "sample_env": True}
    traj = pg.episodes(env, policy, logits, KEY, **spread)
    reached = np.sort(np.asarray(traj.next_obs).argmax(-1), axis=1)
    np.testing.assert_array_equal(reached, np.tile(np.arange(1, 9), (2, 1)))


def test_the_second_step_is_handed_out_in_the_order_of_the_states() -> None:
    """By "array", episodes of one state, whose points are neighbours, part evenly."""
    uniform = np.zeros((4, 2, 4))
    uniform[:3, :, 1:3] = 0.5
    uniform[3, :, 3] = 1.0
    mdp = tabular.TabularMDP(uniform, np.zeros((4, 2)), np.eye(4)[0], np.zeros(4, bool), horizon=2)
    env, policy = envs.make_env(mdp, 8), tabular_policy(4, 2)
    for seed in range(5):
        traj = pg.episodes(
            env,
            policy,
            jnp.zeros((4, 2)),
            jax.random.key(seed),
            sampling="array",
            sample_env=True,
        )
        before, after = (np.asarray(x[1]).argmax(-1) for x in (traj.obs, traj.next_obs))
        for state in (1, 2):
            assert np.sort(after[before == state]).tolist() == [1, 1, 2, 2]


class TakesKeysApart(Clock):
    """An environment that reads the numbers of its key."""

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, ClockState]:
        return super().reset_env(jax.random.wrap_key_data(jax.random.key_data(key)), params)


def test_what_the_environment_s_noise_cannot_be_spread_for_is_refused() -> None:
    def episodes(env: Any, **changes: Any) -> Any:
        made = envs.make_env(env, 4)
        policy = pg.make_policy(pg.Config(env=env, preset=None), made)
        given = {"sampling": "sobol", "sample_env": True} | changes
        return pg.episodes(made, policy, policy.init(KEY), KEY, **given)

    with pytest.raises(ValueError, match="or keeps them in its state: leave sample_env out"):
        episodes(TakesKeysApart())
    with pytest.raises(ValueError, match="by sampling, got 'independent'"):
        episodes("CartPole-v1", sampling="independent")
    with pytest.raises(ValueError, match="excludes extra transitions"):
        episodes("CartPole-v1", extra_rollouts=pg.ExtraRollouts(successors=True))
    with pytest.raises(ValueError, match="group_size must divide num_episodes=2"):
        episodes("CartPole-v1", group_size=4, num_episodes=2)
