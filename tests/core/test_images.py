"""Images: which axis holds the channels, and the scale on which networks see them."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from pg import Config, make_train, normalisation, rollout
from pg.envs import Box, Discrete, Env, environment, make_env, spaces
from pg.estimators.base import Params, successor_values
from pg.images import image_description, image_layout
from pg.networks import Network, make_critic, make_policy

KEY = jax.random.key(0)


def fake_env(*obs_shape: int, bounds: Box | None = None) -> Env:
    return Env(lambda key: None, lambda *_: None, 1, obs_shape, Discrete(3), 10, obs_bounds=bounds)


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 84, 84), (4, 10, 10), (3, 40, 30), (12, 64, 80)], ids=str
)
def test_channels_that_come_first_are_told_by_the_shape_and_said(shape: tuple[int, ...]) -> None:
    env = fake_env(*shape)
    assert image_layout(Config(preset=None), env) == "chw"
    with pytest.warns(
        UserWarning,
        match=r"taken as \[channels, height, width\]: write "
        r"image_layout='hwc' if",
    ):
        make_policy(Config(preset=None), env)
    with pytest.warns(UserWarning, match="taken as"):
        make_critic(Config(estimator="gae", preset=None), env)


@pytest.mark.parametrize(
    "shape",
    [(10, 10, 4), (10, 10, 10), (5, 5, 16), (9, 11, 21), (30, 40, 3), (20, 10, 10)],
    ids=str,
)
def test_channels_that_come_last_stay_there_in_silence(shape: tuple[int, ...]) -> None:
    env = fake_env(*shape)
    assert image_layout(Config(preset=None), env) == "hwc"
    make_policy(Config(preset=None), env)


def test_both_layouts_of_an_image_have_one_output() -> None:
    """The same parameters, the axes moved: nothing else differs, and a setting is not warned of."""
    image = jax.random.uniform(KEY, (5, 8, 8, 3))
    last, first = fake_env(8, 8, 3), fake_env(3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policies = [
            make_policy(Config(image_layout=layout, preset=None), env)
            for layout, env in (("hwc", last), ("chw", first))
        ]
    params = policies[0].init(KEY)
    outputs = [
        policy.apply(params, (), x, jnp.zeros(5, bool))[1].logits
        for policy, x in zip(policies, (image, jnp.moveaxis(image, -1, 1)), strict=True)
    ]
    np.testing.assert_array_equal(*outputs)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, policies[1].init(KEY))


def test_a_layout_where_there_is_no_image_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"image_layout='chw' needs observations .*, got shape "
        r"\(4,\)",
    ):
        make_policy(Config(image_layout="chw", preset=None), fake_env(4))
    with pytest.raises(ValueError, match="is for network='cnn'"):
        Config(image_layout="chw", network="mlp", preset=None)
    with pytest.raises(ValueError, match=r"images of at least 3 × 3, got shape \(8, 2, 8\)"):
        make_policy(Config(image_layout="chw", preset=None), fake_env(8, 2, 8))


@struct.dataclass
class State(environment.EnvState):
    time: jax.Array


class Frames(environment.Environment):
    """Frames of bytes, channels first: noise, of which action 1 is paid."""

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=5)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, State]:
        state = State(time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: State, action: Any, params: Any) -> Any:
        after = State(time=state.time + 1)
        return self.get_obs(after), after, (action == 1).astype(float), jnp.bool_(False), {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(KEY, state.time), (3, 12, 12), jnp.uint8)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(0, 255, (3, 12, 12), jnp.uint8)


SMALL: dict[str, Any] = {"env": Frames(), "hidden_sizes": (4,), "image_layout": "chw"}


def test_frames_of_bytes_are_scaled_by_the_bounds_of_their_space() -> None:
    env = make_env(Frames(), 4)
    plain, scaled = (
        make_policy(Config(**SMALL, scale_observations=on, preset=None), env)
        for on in (False, True)
    )
    params = plain.init(KEY)
    _, obs = env.reset(KEY)
    assert obs.max() > 200
    first = jnp.zeros(4, bool)
    expected = plain.apply(params, (), obs / 255, first)[1].logits
    np.testing.assert_allclose(scaled.apply(params, (), obs, first)[1].logits, expected, rtol=1e-4)
    assert not np.allclose(plain.apply(params, (), obs, first)[1].logits, expected)


def test_a_run_says_how_it_sees_images() -> None:
    env = make_env(Frames(), 1)
    said = [
        image_description(Config(**SMALL | changes, preset=None), env)
        for changes in ({}, {"scale_observations": True}, {"normalise_observations": True})
    ]
    start = "images [3, 12, 12], as [channels, height, width], "
    assert said[0] == f"{start}unscaled, up to 255 (scale_observations brings them to [0, 1])"
    assert said[1] == f"{start}scaled to [0, 1] by the bounds of their space"
    assert said[2] == f"{start}standardised by running statistics"
    assert image_description(Config(preset=None), make_env("CartPole-v1", 1)) == ""
    minatar = image_description(
        Config(env="Breakout-MinAtar", network="mlp", preset=None), make_env("Breakout-MinAtar", 1)
    )
    assert minatar == "images [10, 10, 4], flattened, unscaled"


def test_bounds_that_are_none_scale_nothing() -> None:
    """Infinite ones, and those so large that they mean none."""
    with pytest.raises(
        ValueError, match="scale_observations needs a space of observations with finite bounds"
    ):
        # its bounds of speed are 3.4e38
        make_policy(Config(scale_observations=True, preset=None), make_env("CartPole-v1", 1))
    with pytest.raises(ValueError, match="are mutually exclusive"):
        Config(scale_observations=True, normalise_observations=True, preset=None)
    seen = make_env("FrozenLake-misc", 1)  # Discrete, and so one-hot: in [0, 1] as it is
    policy = make_policy(Config(scale_observations=True, preset=None), seen)
    assert policy.apply(policy.init(KEY), (), seen.reset(KEY)[1], jnp.zeros(1, bool))[
        1
    ].logits.shape == (1, 4)


class FloatFrames(Frames):
    """The same frames, as floats."""

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        return super().get_obs(state).astype(float)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"collect": "windows", "rnn": "gru", "scale_observations": True},
            id="windows",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"normalise_observations": True, "diagnostics": True},
            id="episodes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_frames_kept_as_bytes_are_learned_from_as_floats(changes: dict[str, Any]) -> None:
    common = SMALL | {
        "network": "mlp",
        "image_layout": "auto",
        "estimator": "gae",
        "num_envs": 2,
        "num_updates": 2,
    }
    common |= {"num_steps": 8, "rnn_size": 3}
    found = [
        jax.jit(make_train(Config(**common | changes | {"env": env}, preset=None)))(KEY)
        for env in (Frames(), FloatFrames())
    ]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_window_of_byte_frames_takes_their_bytes() -> None:
    """Kept as floats, observations and successors would take eight times as much as the frames."""
    env = make_env(Frames(), 16)
    policy = make_policy(Config(**SMALL, preset=None), env)
    params = policy.init(KEY)

    def run(key: jax.Array) -> Any:
        return rollout.windows(env, policy, params, key, rollout.start(env, policy, key), 64)[1]

    traj = jax.eval_shape(run, KEY)
    assert traj.obs.dtype == traj.next_obs.dtype == jnp.uint8
    frames = 64 * 16 * 3 * 12 * 12
    used = jax.jit(run).lower(KEY).compile().memory_analysis()
    assert used.output_size_in_bytes < 2.5 * frames
    assert used.temp_size_in_bytes < 2 * frames


def test_what_is_computed_of_byte_frames_takes_no_copy_of_them_all() -> None:
    """Running statistics, and V of every successor: a block of frames at a time, in floats."""
    env = make_env(Frames(), 16)
    policy = make_policy(Config(**SMALL, preset=None), env)
    state = rollout.start(env, policy, KEY)
    window = functools.partial(rollout.windows, env, policy, policy.init(KEY), num_steps=1024)
    traj = jax.eval_shape(lambda key: window(key, state)[1], KEY)
    frames = 1024 * 16 * 3 * 12 * 12
    seen = normalisation.start(
        Config(normalise_observations=True, num_envs=16, preset=None), env.obs_shape
    )
    critic = Network(
        lambda key: (), lambda params, carry, obs, first: (carry, obs.mean(axis=(-3, -2, -1)))
    )
    params = Params((), ())
    for f, args in (
        (normalisation.observe, (seen, traj, 0.99)),
        (lambda traj: successor_values(critic, params, traj), (traj,)),
    ):
        used = jax.jit(f).lower(*args).compile().memory_analysis()
        assert used.temp_size_in_bytes < 0.5 * frames


def test_scaled_frames_are_trained_on() -> None:
    config = Config(**SMALL, scale_observations=True, num_envs=2, num_updates=1, preset=None)
    _, metrics = jax.jit(make_train(config))(KEY)
    assert np.isfinite(metrics["grad_norm"]).all()
