"""Modules of flax.linen, flax.nnx and equinox as policies and critics."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from mistakes import Mistake, assert_one_sentence

import pg
from pg.config import Config
from pg.envs import configured
from pg.network_checks import takes_qr
from pg.networks import Network, make_policy, start
from pg.train import make_learner, make_train

KEY = jax.random.key(0)
SMALL: dict[str, Any] = {"num_envs": 4, "num_updates": 2, "preset": None}


class Dense(nn.Module):
    width: int

    @nn.compact
    def __call__(self, obs: Any) -> Any:
        return nn.Dense(self.width)(nn.tanh(nn.Dense(4)(obs)))


class Cell(nn.Module):
    width: int

    @nn.compact
    def __call__(self, carry: Any, obs: Any) -> Any:
        carry, x = nn.SimpleCell(3)(carry, obs)
        return carry, nn.Dense(self.width)(x)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, obs: Any) -> Any:
        return nn.Dense(1)(obs), self.param("log_std", nn.initializers.zeros, (1,))


class RecurrentPair(nn.Module):
    @nn.compact
    def __call__(self, carry: Any, obs: Any) -> Any:
        return carry, (nn.Dense(1)(obs), self.param("log_std", nn.initializers.zeros, (1,)))


class OfNNX(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, width, rngs=rngs)])

    def __call__(self, x: Any) -> Any:
        return self.layers[1](nnx.relu(self.layers[0](x)))


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.BatchNorm(use_running_average=True)(x)[..., :2]


class WithStatistics(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.norm(x)[..., :2]


def of_equinox(width: int) -> Callable[[Any], Any]:
    eqx = pytest.importorskip("equinox")
    return lambda key: eqx.nn.MLP(4, width, 3, 1, key=key)


Make = Callable[[Any], Network]
NETWORKS: dict[str, tuple[Make, Make | None]] = {
    "linen": (
        lambda env: pg.from_linen(Dense(2), env),
        lambda env: pg.from_linen(Dense(1), env, critic=True),
    ),
    "linen, recurrent": (
        lambda env: pg.from_linen(Cell(2), env, carry=jnp.zeros(3)),
        lambda env: pg.from_linen(Cell(1), env, carry=jnp.zeros(3), critic=True),
    ),
    "nnx": (
        lambda env: pg.from_nnx(lambda rngs: OfNNX(2, rngs), env),
        lambda env: pg.from_nnx(lambda rngs: OfNNX(1, rngs), env, critic=True),
    ),
    "equinox": (
        lambda env: pg.from_equinox(of_equinox(2), env),
        lambda env: pg.from_equinox(of_equinox(1), env, critic=True),
    ),
}


def config_of(case: str, **changes: Any) -> Config:
    policy, critic = NETWORKS[case]
    settings: dict[str, Any] = {**SMALL, "estimator": "gae", "collect": "windows", **changes}
    return Config(
        policy=lambda config, env: policy(env),
        critic=None if critic is None else lambda config, env: critic(env),
        num_steps=6,
        **settings,
    )


@pytest.mark.parametrize(
    "case", [*(x for x in NETWORKS if x != "nnx"), pytest.param("nnx", marks=pytest.mark.slow)]
)
def test_modules_are_policy_and_critic(case: str) -> None:
    """Several seeds in one program, each with its own parameters."""
    learner = make_learner(config_of(case))
    state = jax.jit(jax.vmap(lambda key: learner.init(key).params))(jax.random.split(KEY, 2))
    one = learner.init(KEY).params
    assert jax.tree.structure(state) == jax.tree.structure(one)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(one), strict=True):
        assert x.shape == (2, *y.shape)
    kernels = [x for x in jax.tree.leaves(state) if x.ndim == 3]
    assert all((x[0] != x[1]).any() for x in kernels)
    metrics = jax.eval_shape(make_train(config_of(case)), KEY)[1]
    assert metrics["value_loss"].shape == (2,)


@pytest.mark.parametrize("case", ["linen", "linen, recurrent"])
def test_acting_step_by_step_is_learning_on_the_sequence(case: str) -> None:
    """With episodes that begin in the middle of it."""
    env = configured(config_of(case), 3)
    network = NETWORKS[case][0](env)
    params = network.init(KEY)
    obs = jax.random.normal(jax.random.key(1), (5, 3, 4))
    first = jax.random.bernoulli(jax.random.key(2), 0.4, (5, 3))
    assert first[1:].any()
    carry = start(network, 3)
    _, whole = network.apply(params, carry, obs, first)
    for t in range(5):
        carry, one = network.apply(params, carry, obs[t], first[t])
        np.testing.assert_allclose(one.logits, whole.logits[t], atol=1e-6)
    if network.recurrent:
        begins = jnp.ones(3, bool)
        fresh, later = (
            network.apply(params, c, obs[-1], begins)[1] for c in (start(network, 3), carry)
        )
        np.testing.assert_array_equal(later.logits, fresh.logits)
        assert not np.allclose(fresh.logits, whole.logits[-1])


def test_a_mean_or_a_pair_is_a_gaussian_and_a_distribution_stays() -> None:
    env = configured(Config(env="Pendulum-v1", **SMALL), 2)
    for module, log_std in ((Dense(1), 0.0), (Pair(), 0.0)):
        network = pg.from_linen(module, env)
        dist = network.apply(network.init(KEY), (), jnp.ones((2, 3)), jnp.ones(2, bool))[1]
        assert isinstance(dist, pg.Gaussian)
        assert dist.mean.shape == dist.log_std.shape == (2, 1)
        assert (dist.log_std == log_std).all()
    recurrent = pg.from_linen(RecurrentPair(), env, carry=jnp.zeros(3))
    obs, first = jnp.ones((5, 2, 3)), jnp.ones((5, 2), bool)
    dist = recurrent.apply(recurrent.init(KEY), start(recurrent, 2), obs, first)[1]
    assert dist.mean.shape == dist.log_std.shape == (5, 2, 1)


def test_an_initialiser_by_qr_runs_once_for_each_of_vmapped_runs() -> None:
    """Bitwise identical to a single-seed run."""

    class Orthogonal(nn.Module):
        @nn.compact
        def __call__(self, obs: Any) -> Any:
            return nn.Dense(2, kernel_init=nn.initializers.orthogonal())(obs)

    config = Config(policy=lambda c, e: pg.from_linen(Orthogonal(), e), **SMALL)
    env = configured(config, 1)
    assert not takes_qr(make_policy(Config(rnn="gru", **SMALL), env).init)
    network = make_policy(config, env)
    assert takes_qr(network.init)
    keys = jax.random.split(KEY, 3)
    mapped = jax.jit(jax.vmap(network.init))
    program = str(jax.make_jaxpr(jax.vmap(network.init))(keys))
    assert re.findall(r"f32\[([\d,]+)\] \S+ = qr\[", program) == ["4,2"]  # and not 3,4,2
    alone = jax.jit(network.init)(keys[1])
    np.testing.assert_array_equal(
        mapped(keys)["params"]["Dense_0"]["kernel"][1], alone["params"]["Dense_0"]["kernel"]
    )


def learner(policy: Callable[[Any], Any], **changes: Any) -> Mistake:
    return lambda: make_learner(Config(policy=lambda c, env: policy(env), **SMALL | changes))


def applied_with_a_surplus_layer() -> Any:
    """The output of a module of linen, given the parameters of a deeper one."""
    network = pg.from_linen(Dense(2), pg.make_env("CartPole-v1", 2))
    shapes = jax.eval_shape(network.init, KEY)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    params["params"]["Dense_2"] = {"kernel": jnp.zeros((2, 2))}
    return network.apply(params, (), jnp.zeros((2, 4)), jnp.ones(2, bool))


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "parameters of a deeper module of linen": (
        applied_with_a_surplus_layer,
        "params do not fit this network, which has no ['params']['Dense_2']['kernel']",
    ),
    "another width": (
        learner(lambda env: pg.from_linen(Dense(3), env)),
        "logits of a policy must be [..., 2], one for each action; got shape [2, 3]",
    ),
    "a mean of another width": (
        learner(lambda env: pg.from_linen(Dense(3), env), env="Pendulum-v1"),
        "the mean of a policy must be [..., 1], one for each entry of an action; got shape [2, 3]",
    ),
    "a pair for discrete actions": (
        learner(lambda env: pg.from_linen(Pair(), env)),
        "logits of a policy must be [..., 2], one for each action; got a tuple of",
    ),
    "one output of a recurrent module": (
        learner(lambda env: pg.from_linen(Dense(2), env, carry=jnp.zeros(3))),
        "fails: TypeError",
    ),
    "statistics in a module of linen": (
        learner(lambda env: pg.from_linen(Normalised(), env)),
        "a module of flax.linen must have only parameters ('params'), as a network is a function "
        "of these; got batch_stats",
    ),
    "statistics in a module of nnx": (
        learner(lambda env: pg.from_nnx(WithStatistics, env)),
        "a module of flax.nnx must have only parameters (nnx.Param), as a network is a function "
        "of these; got BatchStat",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_wrong_module_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
