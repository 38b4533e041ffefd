"""Networks: initialisation, shapes, heads, and what they refuse."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, boxed
from flax import linen as nn
from mistakes import Mistake, assert_one_sentence, handed, learner_of

from pg.config import Config
from pg.distributions import CensoredGaussian, Gaussian, TanhGaussian
from pg.envs import Box, Discrete, Env, make_env
from pg.layers import Model, dense, orthogonal, patches
from pg.networks import Network, Pair, make_critic, make_policy, num_params, unroll

KEY = jax.random.key(0)


def test_new_fields_of_a_network_stand_last() -> None:
    """One that is written without names means the same."""
    earlier = (
        "init",
        "apply",
        "carry",
        "expects_standardised",
        "masked",
        "view",
        "shared",
        "reference",
    )
    assert Network._fields[: len(earlier)] == earlier


def fake_env(obs_shape: tuple[int, ...], space: Any) -> Env:
    return Env(lambda key: None, lambda *_: None, 1, obs_shape, space, 10)


@pytest.mark.parametrize("shape", [(5, 5), (30, 7), (7, 30), (3, 3, 2, 16), (300, 280), (280, 300)])
def test_orthogonal_initialisation(shape: tuple[int, ...]) -> None:
    w = np.asarray(orthogonal(2.0)(KEY, shape, jnp.float32)).reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2, 6, 9])
def test_a_dense_layer_has_the_plain_gradient(outputs: int) -> None:
    """Curvature too, forward and reverse, for each of several kernels."""
    layer = dense.dense(outputs, 1.0)
    x = jax.random.normal(KEY, (64, 4, 6)) / 16
    kernels = jax.random.normal(jax.random.key(1), (2, 6, outputs))

    def of_layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        bias = jnp.zeros(outputs)
        return jnp.tanh(layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)).sum()

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.tanh(x @ kernel).sum()

    def derivatives(f: Any) -> Any:
        both = (0, 1)
        gradient, slope = jax.grad(f, both), jax.jacfwd(f, both)
        curvature, twice = jax.jacfwd(jax.grad(f, 1), both), jax.jacrev(jax.grad(f, 1), both)

        def at(kernel: jax.Array) -> Any:
            return [d(x, kernel) for d in (gradient, slope, curvature, twice)]

        return jax.jit(jax.vmap(at))(kernels)

    of_both = zip(*map(jax.tree.leaves, (derivatives(of_layer), derivatives(plain))), strict=True)
    for found, expected in of_both:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [(7,), (2, 256), (1000,), (2, 1021)])
def test_a_parameter_is_broadcast_over_rows(rows: tuple[int, ...]) -> None:
    """And its gradient is the sum over them, also if the number of rows is not a multiple."""
    x, weight = jnp.array([[1.0, 2.0]]), jax.random.normal(KEY, (*rows, 1, 2))
    np.testing.assert_array_equal(dense.over_rows(x, rows), jnp.broadcast_to(x, (*rows, 1, 2)))
    gradient = jax.grad(lambda x: jnp.sum(weight * dense.over_rows(x, rows)))(x)
    expected = np.asarray(weight, float).reshape(-1, 1, 2).sum(0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "shape", "laid_out"),
    [
        (256, (64, 2), 2),
        (256, (4, 64), 4),
        (256, (256, 256), 256),
        (128, (64, 2), None),
        (256, (64, 1), None),
        (256, (257, 256), None),
        (512, (257, 256), 256),
        (512, (300, 300), 300),
    ],
)
def test_the_gradient_of_a_small_kernel_lays_out_the_narrower_factor(
    rows: int, shape: tuple[int, int], laid_out: int | None
) -> None:
    """On a CPU, of many rows, and not where a gradient is differentiated forward."""
    layer, (inputs, outputs) = dense.dense(shape[1], 1.0), shape
    kernel, bias = jnp.zeros(shape), jnp.zeros(outputs)

    def f(kernel: jax.Array) -> jax.Array:
        params = {"kernel": kernel, "bias": bias}
        return layer.apply({"params": params}, jnp.ones((rows, inputs))).sum()

    def widths() -> set[int]:
        """The widths of the factors [width, rows] that are held."""
        jaxpr = str(jax.make_jaxpr(lambda k: jax.grad(f)(k))(kernel))
        held = re.findall(r"f32\[(\d+),(\d+)\] = optimization_barrier", jaxpr)
        return {int(width) for width, length in held if int(length) == rows}

    on_cpu = jax.default_backend() == "cpu"
    assert widths() == ({laid_out} if laid_out and on_cpu else set())
    with dense.forward_mode():
        assert not widths()


def test_orthogonal_matrices_are_uniform() -> None:
    """Haar measure: an entry has mean 0 and variance 1/n, and a determinant is +1 half the time."""
    n, many = 4, 4000
    w = np.asarray(
        jax.vmap(lambda key: orthogonal(1.0)(key, (n, n), jnp.float32))(jax.random.split(KEY, many))
    )
    se = np.sqrt(1 / n / many)
    assert np.abs(w.mean(0)).max() < 5 * se
    assert np.abs((w**2).mean(0) - 1 / n).max() < 5 * np.sqrt(2 / n**2 / many)
    assert abs((np.linalg.det(w) > 0).mean() - 0.5) < 5 * 0.5 / many**0.5


def test_initialisers_can_be_vmapped_over_seeds() -> None:
    policy = make_policy(Config(preset=None), make_env("CartPole-v1", 1))
    keys = jax.random.split(KEY, 5)
    many = jax.jit(jax.vmap(policy.init))(keys)
    for i, key in enumerate(keys):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-6), many, policy.init(key)
        )


def test_a_fresh_policy_is_close_to_uniform_and_any_leading_axes_will_do() -> None:
    policy = make_policy(Config(preset=None), fake_env((4,), Discrete(3)))
    params = policy.init(KEY)
    obs = jax.random.normal(KEY, (7, 5, 4))
    dist = unroll(policy, params, obs, jnp.zeros((7, 5), bool))
    assert dist.logits.shape == (7, 5, 3)
    np.testing.assert_allclose(dist.entropy(), np.log(3), atol=1e-3)
    row = policy.apply(params, (), obs[2], jnp.zeros(5, bool))[1]
    np.testing.assert_allclose(row.logits, dist.logits[2], atol=1e-6)


def test_gaussian_head_is_in_units_of_the_box() -> None:
    box = Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, 10.0]))
    env, obs = fake_env((4,), box), jnp.zeros((6, 4))
    policy = make_policy(Config(preset=None), env)
    dist = policy.apply(policy.init(KEY), (), obs, jnp.zeros(6, bool))[1]
    assert isinstance(dist, Gaussian)
    np.testing.assert_allclose(dist.mean, np.broadcast_to([0.0, 5.0], (6, 2)), atol=1e-6)
    np.testing.assert_allclose(np.exp(dist.log_std), np.broadcast_to([1.0, 5.0], (6, 2)), rtol=1e-6)
    squashed, censored = (
        make_policy(Config(action_distribution=law, preset=None), env)
        for law in ("squashed", "censored")
    )
    dist = censored.apply(censored.init(KEY), (), obs, jnp.zeros(6, bool))[1]
    assert isinstance(dist, CensoredGaussian)
    np.testing.assert_allclose(
        dist.action(jnp.full((6, 2), 50.0)), np.broadcast_to([1.0, 10.0], (6, 2))
    )
    dist = squashed.apply(squashed.init(KEY), (), obs, jnp.zeros(6, bool))[1]
    assert isinstance(dist, TanhGaussian)
    np.testing.assert_allclose(
        dist.action(jnp.full((6, 2), 50.0)), np.broadcast_to([1.0, 10.0], (6, 2))
    )


def test_the_log_std_does_not_depend_on_the_state() -> None:
    policy = make_policy(Config(preset=None), fake_env((4,), Box(-jnp.ones(2), jnp.ones(2))))
    params = policy.init(KEY)
    assert params["params"]["head"]["log_std"].shape == (2,)
    dist = policy.apply(params, (), jax.random.normal(KEY, (6, 4)), jnp.zeros(6, bool))[1]
    assert len(np.unique(np.asarray(dist.log_std))) == 1
    assert len(np.unique(np.asarray(dist.mean))) > 1


@pytest.mark.parametrize("law", ["gaussian", "squashed", "censored"])
def test_the_log_std_may_depend_on_the_state(law: Any) -> None:
    config = Config(state_dependent_std=True, action_distribution=law, preset=None)
    policy = make_policy(config, fake_env((4,), Box(-jnp.ones(2), jnp.ones(2))))
    params = policy.init(KEY)
    obs = jax.random.normal(KEY, (6, 4))
    dist = policy.apply(params, (), obs, jnp.zeros(6, bool))[1]
    assert len(np.unique(np.asarray(dist.log_std))) == 12
    # close to the box's half width at the start
    np.testing.assert_allclose(dist.log_std, 0.0, atol=0.05)
    wide = jax.tree.map(lambda x: 1e4 * x, params)
    np.testing.assert_array_equal(
        np.abs(policy.apply(wide, (), obs, jnp.zeros(6, bool))[1].log_std) <= 5, True
    )
    slope = jax.grad(
        lambda p: policy.apply(p, (), obs, jnp.zeros(6, bool))[1].log_prob(jnp.zeros((6, 2))).sum()
    )(params)
    assert all(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(slope))


@pytest.mark.parametrize("std", [1e-300, 1e-4, 2e3])
def test_a_std_that_32_bits_do_not_hold_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match=f"initial_std must be from 0.001 to 1000, got {std}"):
        Config(initial_std=std, preset=None)


@pytest.mark.parametrize("law", ["gaussian", "squashed", "censored"])
@pytest.mark.parametrize("depends", [False, True])
def test_the_std_starts_where_it_is_set(law: Any, depends: bool) -> None:
    config = Config(
        initial_std=0.135, state_dependent_std=depends, action_distribution=law, preset=None
    )
    half_width = np.asarray([2.0, 0.5], np.float32)
    policy = make_policy(config, fake_env((4,), Box(-half_width, half_width)))
    dist = policy.apply(policy.init(KEY), (), jnp.zeros((3, 4)), jnp.zeros(3, bool))[1]
    unit = 1.0 if law == "squashed" else half_width
    np.testing.assert_allclose(np.exp(dist.log_std) / unit, np.full((3, 2), 0.135), rtol=1e-5)


def test_unbounded_actions_have_unit_scale() -> None:
    policy = make_policy(
        Config(preset=None), fake_env((4,), Box(-jnp.full(1, jnp.inf), jnp.full(1, jnp.inf)))
    )
    dist = policy.apply(policy.init(KEY), (), jnp.zeros((1, 4)), jnp.zeros(1, bool))[1]
    np.testing.assert_allclose([dist.mean[0, 0], dist.log_std[0, 0]], 0.0, atol=1e-6)


def test_images_go_through_the_convolution() -> None:
    env = fake_env((10, 10, 4), Discrete(3))
    params = make_policy(Config(hidden_sizes=(128,), preset=None), env).init(KEY)
    assert num_params(params) == (9 * 4 * 16 + 16) + (8 * 8 * 16 * 128 + 128) + (128 * 3 + 3)
    flat = make_policy(Config(hidden_sizes=(128,), network="mlp", preset=None), env).init(KEY)
    assert num_params(flat) == (400 * 128 + 128) + (128 * 3 + 3)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (2, 1), (4, 2), (3, 3), (1, 2)])
def test_a_product_with_patches_is_a_convolution(size: int, stride: int) -> None:
    image = jax.random.normal(KEY, (2, 5, 10, 8, 4))
    dense = nn.Dense(16)
    params = dense.init(KEY, patches(image, size, stride))["params"]
    kernel = params["kernel"].reshape(size, size, 4, 16)
    expected = nn.Conv(16, (size, size), stride, padding="VALID").apply(
        {"params": {**params, "kernel": kernel}}, image
    )
    product = dense.apply({"params": params}, patches(image, size, stride))
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-5)


def test_convolutions_follow_each_other() -> None:
    """An image of 10 × 10 × 4: 4 × 4 × 6 after the first, then 3 × 3 × 8, then dense layers."""
    env = fake_env((10, 10, 4), Discrete(3))
    config = Config(conv=("6x4x2", "8x2"), hidden_sizes=(5,), preset=None)
    policy = make_policy(config, env)
    shapes = jax.tree.map(jnp.shape, policy.init(KEY)["params"]["torso"])
    kernels = {
        "first": shapes["Dense_0"]["kernel"],
        "second": shapes["Dense_1"]["kernel"],
        "dense": shapes["MLP_0"]["Dense_0"]["kernel"],
    }
    sizes = {"first": (4 * 4 * 4, 6), "second": (2 * 2 * 6, 8), "dense": (3 * 3 * 8, 5)}
    assert kernels == sizes


def test_hidden_layers_are_their_formula() -> None:
    """Layer norm before the nonlinearity, and what dense layers after the first add to."""
    config = Config(
        hidden_sizes=(5, 5), layer_norm=True, residual=True, activation="relu", preset=None
    )
    policy = make_policy(config, fake_env((4,), Discrete(3)))
    params = policy.init(KEY)
    torso, head = params["params"]["torso"], params["params"]["head"]["Dense_0"]

    def layer(x: jax.Array, i: int) -> jax.Array:
        y = x @ torso[f"Dense_{i}"]["kernel"]
        normal = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return jnp.maximum(normal, 0.0)

    obs = jax.random.normal(KEY, (7, 4))
    x = layer(obs, 0)
    expected = (x + layer(x, 1)) @ head["kernel"]
    logits = policy.apply(params, (), obs, jnp.ones(7, bool))[1].logits
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot_normal", 2 / (100 + 300)),
        ("he_uniform", 2 / 100),
        ("lecun_normal", 1 / 100),
    ],
)
def test_initialisers_have_their_variance(name: Any, variance: float) -> None:
    config = Config(hidden_sizes=(300,), initialiser=name, preset=None)
    init = make_policy(config, fake_env((100,), Discrete(3))).init
    params = init(KEY)["params"]
    np.testing.assert_allclose(params["torso"]["Dense_0"]["kernel"].var(), variance, rtol=0.05)
    head = params["head"]["Dense_0"]["kernel"]  # small: the policy begins close to uniform
    np.testing.assert_allclose(head.T @ head, 1e-4 * np.eye(3), atol=1e-7)
    assert "lapack" not in jax.jit(jax.vmap(init)).lower(jax.random.split(KEY, 2)).as_text()


@pytest.mark.parametrize("estimator", ["ppo", "all_action"])
def test_a_critic_may_have_widths_of_its_own(estimator: str) -> None:
    config = Config(estimator=estimator, hidden_sizes=(5,), critic_hidden_sizes=(7, 6), preset=None)
    env = fake_env((4,), Discrete(3))
    widths = [
        [
            layer["kernel"].shape[1]
            for layer in make(config, env).init(KEY)["params"]["torso"].values()
        ]
        for make in (make_policy, make_critic)
    ]
    assert widths == [[5], [7, 6]]


def test_a_critic_gives_one_number() -> None:
    critic = make_critic(Config(preset=None), fake_env((10, 5), Discrete(3)))
    values = unroll(critic, critic.init(KEY), jnp.ones((7, 5, 10, 5)), jnp.zeros((7, 5), bool))
    assert values.shape == (7, 5)


def test_a_critic_of_actions_gives_one_number_for_each() -> None:
    config = Config(estimator="all_action", preset=None)
    critic = make_critic(config, fake_env((10, 5), Discrete(3)))
    assert unroll(
        critic, critic.init(KEY), jnp.ones((7, 5, 10, 5)), jnp.zeros((7, 5), bool)
    ).shape == (7, 5, 3)


@pytest.mark.parametrize("kind", ["quadratic", "sinusoids"])
def test_a_critic_of_continuous_actions_gives_a_function_of_them(kind: Any) -> None:
    """In units of the box's half width from its centre: scaled boxes have scaled functions."""
    config = Config(estimator="all_action", action_critic=kind, hidden_sizes=(), preset=None)
    obs, first = jnp.ones((7, 5, 4)), jnp.zeros((7, 5), bool)
    low, high = jnp.array([-1.0, -1.0]), jnp.array([1.0, 1.0])
    unit = make_critic(config, fake_env((4,), Box(low, high)))
    params = unit.init(KEY)
    q = unroll(unit, params, obs, first)
    if kind == "sinusoids":
        assert [x.shape[2:] for x in q] == [(), (16,), (16, 2), (16,), (2,)]
        assert np.abs(np.asarray(q.frequency)).max() > 1.0
    else:
        assert [x.shape for x in q] == [(7, 5), (7, 5, 2), (7, 5, 2, 2), (7, 5, 2)]
        np.testing.assert_array_equal(q.curvature, q.curvature.mT)
        assert (np.asarray(q.curvature) != 0).all()
    wide = make_critic(config, fake_env((4,), Box(jnp.array([0.0, 1.0]), jnp.array([4.0, 9.0]))))
    x = jnp.broadcast_to(jnp.array([0.3, -0.6]), (7, 5, 2))
    action = jnp.broadcast_to(jnp.array([2 + 2 * 0.3, 5 - 4 * 0.6]), (7, 5, 2))
    found = unroll(wide, params, obs, first).at(action)
    np.testing.assert_allclose(found, q.at(x), rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(q.at(x)))(x)
    np.testing.assert_allclose(q.gradient(x), gradient, rtol=1e-5, atol=1e-7)
    linear = q.linear_at(x)
    np.testing.assert_array_equal(linear.at(x), q.at(x))
    np.testing.assert_array_equal(linear.gradient(action), q.gradient(x))


def test_a_critic_network_of_an_action_gives_one_number_for_the_pair() -> None:
    """In units of the box's half width from its centre, and of as many samples as are set."""
    config = Config(
        estimator="all_action", action_critic="network", action_samples=5, hidden_sizes=(4,)
    )
    first = jnp.zeros((7, 5), bool)
    obs = jnp.ones((7, 5, 3))
    env = make_env("Pendulum-v1", num_envs=5)
    unit = make_critic(config, env._replace(action_space=Box(-jnp.ones(2), jnp.ones(2))))
    assert (unit.outcome, unit.action_samples) == ("action", 5)
    params = unit.init(KEY)
    x = jax.random.normal(KEY, (7, 5, 2))
    q = unroll(unit, params, Pair(obs, x), first)
    assert q.shape == (7, 5)
    assert np.unique(np.asarray(q)).size == q.size
    space = Box(jnp.array([0.0, 1.0]), jnp.array([4.0, 9.0]))
    wide = make_critic(config, env._replace(action_space=space))
    action = jnp.array([2.0, 5.0])[None, None] + jnp.array([2.0, 4.0])[None, None] * x
    np.testing.assert_allclose(unroll(wide, params, Pair(obs, action), first), q, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_network_is_float64_when_floats_are() -> None:
    policy = make_policy(Config(preset=None), fake_env((10, 10, 4), Box(-jnp.ones(2), jnp.ones(2))))
    assert {x.dtype for x in jax.tree.leaves(policy.init(KEY))} == {jnp.dtype("float64")}


@pytest.mark.parametrize(
    ("config", "env", "message"),
    [
        (
            Config(action_distribution="squashed", preset=None),
            fake_env((4,), Discrete(2)),
            "'squashed' is for continuous actions",
        ),
        (
            Config(state_dependent_std=True, preset=None),
            fake_env((4,), Discrete(2)),
            "state_dependent_std=True is for continuous",
        ),
        (
            Config(initial_std=0.5, preset=None),
            fake_env((4,), Discrete(2)),
            "initial_std=0.5 is for continuous",
        ),
        (
            Config(initial_std=0.001, state_dependent_std=True, preset=None),
            fake_env((4,), Box(-jnp.ones(1), jnp.ones(1))),
            "initial_std must be from 0.00674 to 7.39 with state_dependent_std, .* got 0.001",
        ),
        (
            Config(action_distribution="censored", preset=None),
            fake_env((4,), Box(-jnp.full(1, jnp.inf), jnp.ones(1))),
            "bounded Box",
        ),
        (
            Config(network="cnn", preset=None),
            fake_env((4,), Discrete(2)),
            r"needs observations \[height, width, "
            r"channels\]",
        ),
        (
            Config(preset=None),
            fake_env((4,), Box(jnp.zeros((2, 2)), jnp.ones((2, 2)))),
            "must have one axis",
        ),
    ],
)
def test_refusals(config: Config, env: Env, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(config, env)


def policy_of(hidden_sizes: tuple[int, ...]) -> Network:
    config = Config(preset=None, hidden_sizes=hidden_sizes)
    return make_policy(config, fake_env((3,), Discrete(2)))


def applied_with_parameters_of(own: tuple[int, ...], other: tuple[int, ...]) -> Any:
    """The output of a policy with layers of these widths, given another one's parameters."""
    shapes = jax.eval_shape(policy_of(other).init, KEY)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    return policy_of(own).apply(params, (), jnp.zeros((2, 3)), jnp.ones(2, bool))


def test_parameters_are_compared_with_the_network_without_tracing_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its initialisation is traced by the first of several calls."""
    calls = []
    init = Model.init

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return init(*args, **kwargs)

    policy = policy_of((4,))
    params = policy.init(KEY)
    monkeypatch.setattr(Model, "init", counted)
    for num_envs in (1, 2, 3):
        policy.apply(params, (), jnp.zeros((num_envs, 3)), jnp.ones(num_envs, bool))
    assert len(calls) == 1


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "convolutions of a vector": (
        learner_of(conv=("16x3",)),
        "conv=('16x3',) needs observations [height, width, channels]",
    ),
    "sinusoids of discrete actions": (
        learner_of(estimator="all_action", action_critic="sinusoids"),
        "action_critic='sinusoids' is for continuous actions; the environment has 2 discrete ones",
    ),
    "a network of discrete actions": (
        learner_of(estimator="all_action", action_critic="network"),
        "action_critic='network' is for continuous actions; the environment has 2 discrete ones",
    ),
    "convolutions without an image": (
        learner_of(conv=("16x3",), network="mlp"),
        "conv=16x3 is for images, and network='mlp' has none",
    ),
    "a convolution larger than what is left": (
        lambda: make_policy(
            Config(conv=("8x4x2", "8x5"), preset=None), fake_env((10, 10, 4), Discrete(3))
        ),
        "conv=8x4x2 8x5 does not fit images of 10 × 10: a convolution of 5 × 5 receives 4 × 4",
    ),
    "a convolution that is none": (
        learner_of(conv=("16y3",)),
        "conv must be CHANNELSxSIZE or CHANNELSxSIZExSTRIDE, whole numbers from 1 to 9999, as in",
    ),
    "one text of convolutions": (
        learner_of(conv="16x3"),
        "conv must be a tuple, as in ('16x3', '32x3'); got '16x3'",
    ),
    "residual layers of several widths": (
        learner_of(residual=True, hidden_sizes=(8, 4)),
        "residual needs two or more hidden layers of one width, as in (64, 64); got hidden_sizes=",
    ),
    "widths of a critic that is not there": (
        learner_of(estimator="reinforce", critic_hidden_sizes=(8,)),
        "critic_hidden_sizes is for estimators with a critic: ",
    ),
    "widths of a critic on the policy's layers": (
        learner_of(estimator="ppo", critic_hidden_sizes=(8,), shared_torso=True),
        "critic_hidden_sizes is for a critic with its own layers",
    ),
    "a law of a Box for two actions": (
        learner_of(action_distribution="squashed"),
        "action_distribution='squashed' is for continuous",
    ),
    "a deviation for two actions": (
        learner_of(state_dependent_std=True),
        "state_dependent_std=True is for continuous",
    ),
    "a convolution over a vector": (
        learner_of(network="cnn"),
        "network='cnn' needs observations [height, width",
    ),
    "a tanh without bounds": (
        learner_of(env=boxed(-jnp.inf, jnp.inf), action_distribution="squashed"),
        "action_distribution='squashed' needs a bounded Box of actions",
    ),
    "a matrix of actions": (
        lambda: make_policy(Config(preset=None), make_env(boxed(0.0, 1.0, (2, 2)), 2)),
        "a Box of actions must have one axis, got shape (2, 2)",
    ),
    "parameters of a layer that the network does not have": (
        lambda: applied_with_parameters_of(own=(4,), other=(4, 4)),
        "params do not fit this network, which has no ['params']['torso']['Dense_1']['bias']; were",
    ),
    "parameters without a layer that the network has": (
        lambda: applied_with_parameters_of(own=(4, 4), other=(4,)),
        "params do not fit this network: ['params']['torso']['Dense_1']['bias'], of shape (4,), is "
        "missing; were",
    ),
    "parameters of another width": (
        lambda: applied_with_parameters_of(own=(4,), other=(5,)),
        "params do not fit this network: ['params']['head']['Dense_0']['kernel'] must have shape "
        "(4, 2), got (5, 2); were",
    ),
    "observations of another environment": (
        handed(
            lambda x: x.policy.apply(
                x.state.params.policy, (), jnp.zeros((2, 7)), jnp.ones(2, bool)
            )
        ),
        "obs must have the shape of the environment's, [2], after any other axes, got shape [2, 7]",
    ),
    "text for observations": (
        handed(lambda x: x.policy.apply(x.state.params.policy, (), "obs", jnp.ones(2, bool))),
        "obs must be an array of numbers, got 'obs'",
    ),
    "a number for the key of parameters": (
        handed(lambda x: x.policy.init(0)),
        "write jax.random.key(0)",
    ),
    "the name of an environment for one": (
        lambda: make_policy(Config(preset=None), "CartPole-v1"),
        "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
    ),
    "an environment of gymnax for one": (
        lambda: make_critic(Config(preset=None), Clock()),
        "env must be a pg.Env, got a Clock: write pg.make_env(env, num_envs=8)",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
