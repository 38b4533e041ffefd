"""Policies and critics: flax modules behind the pure `Network(init, apply, carry)`.

    policy: obs [..., *O] -> πθ(·|s), a distribution        critic: obs [..., *O] -> Vφ(s) [...]

A network is applied to any leading axes at once: `[B]` when acting, `[T, B]` when learning. `carry` is its
memory at an episode's start, `()` for the memoryless networks here.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pg.config import ACTION_VALUES, ActionLaw, Config
from pg.distributions import Categorical, CensoredGaussian, Gaussian, TanhGaussian
from pg.envs import Box, Env

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


class Network(NamedTuple):
    """A policy (its output is a distribution) or a critic (its output is a value), as pure functions."""

    init: Callable[[jax.Array], Any]  # key -> params
    apply: Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, Any]]  # params, carry, obs, first -> carry, output
    carry: Any = ()


def orthogonal(scale: float) -> Callable[..., jax.Array]:
    """An initialiser: `scale` times a matrix of orthonormal columns (or rows), uniform among them.

    Gram-Schmidt, every column made orthogonal twice, on a Gaussian matrix: the law of Saxe et al. 2014
    (1312.6120). No LAPACK, whose batched QR can deadlock when initialisers are vmapped over seeds.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        gaussian = jax.random.normal(key, (min(rows, columns), max(rows, columns)), dtype)

        def orthonormalise(j: jax.Array, basis: jax.Array) -> jax.Array:
            v = gaussian[j]
            for _ in range(2):
                v = v - (basis @ v) @ basis
            return basis.at[j].set(v / jnp.linalg.norm(v))

        basis = jax.lax.fori_loop(0, len(gaussian), orthonormalise, jnp.zeros_like(gaussian))
        return scale * (basis if rows < columns else basis.T).reshape(shape)

    return init


def _dense(features: int, scale: float) -> nn.Dense:
    # The canonical float, so that under jax_enable_x64 a whole network is float64.
    return nn.Dense(features, kernel_init=orthogonal(scale), param_dtype=jnp.zeros(()).dtype)


class MLP(nn.Module):
    """Dense hidden layers; the observation is flattened first."""

    obs_ndim: int
    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [..., *O] -> features [..., sizes[-1]]."""
        x = obs.reshape(*obs.shape[: obs.ndim - self.obs_ndim], -1)
        for size in self.sizes:
            x = self.activation(_dense(size, math.sqrt(2))(x))
        return x


class CNN(nn.Module):
    """One 3×3 convolution of 16 channels, then dense layers: the network of MinAtar (Young & Tian, 1903.03176)."""

    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [..., height, width, channels] -> features [..., sizes[-1]]."""
        x = nn.Conv(
            16, (3, 3), padding="VALID", kernel_init=orthogonal(math.sqrt(2)), param_dtype=jnp.zeros(()).dtype
        )(obs)
        return MLP(3, self.sizes, self.activation)(self.activation(x))


class CategoricalPolicy(nn.Module):
    """Torso and logits. The final scale 0.01 starts the policy close to uniform."""

    torso: nn.Module
    num_actions: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> Categorical:
        """obs: [..., *O] -> logits [..., A]."""
        return Categorical(_dense(self.num_actions, 0.01)(self.torso(obs)))


class GaussianPolicy(nn.Module):
    """Torso, mean, and a log-std that does not depend on the state, in units of the box's half width."""

    torso: nn.Module
    box: Box
    law: ActionLaw

    @nn.compact
    def __call__(self, obs: jax.Array) -> Gaussian | TanhGaussian | CensoredGaussian:
        """obs: [..., *O] -> mean and log-std [..., D]; at the start N(centre, half width) or tanh(N(0, 1))."""
        mean = _dense(self.box.low.size, 0.01)(self.torso(obs))
        log_std = self.param("log_std", nn.initializers.zeros, self.box.low.shape, mean.dtype)
        log_std = jnp.broadcast_to(log_std, mean.shape)
        centre, half_width = (jnp.broadcast_to(x, mean.shape) for x in _units(self.box))
        if self.law == "squashed":
            return TanhGaussian(mean, log_std, centre, half_width)
        gaussian = Gaussian(centre + half_width * mean, log_std + jnp.log(half_width))
        if self.law == "censored":
            return CensoredGaussian(*gaussian, *(jnp.broadcast_to(x, mean.shape) for x in self.box))
        return gaussian


class Critic(nn.Module):
    """Torso and value."""

    torso: nn.Module

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [..., *O] -> V [...]."""
        return _dense(1, 1.0)(self.torso(obs))[..., 0]


class ActionCritic(nn.Module):
    """Torso and the value of every action. The final scale 0.01 prefers none before anything is known."""

    torso: nn.Module
    num_actions: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [..., *O] -> Q [..., A]."""
        return _dense(self.num_actions, 0.01)(self.torso(obs))


def make_policy(config: Config, env: Env) -> Network:
    """πθ for the environment's action space. Raises ValueError where `config.action_law` cannot apply."""
    space = env.action_space
    if isinstance(space, Box):
        if space.low.ndim != 1:
            raise ValueError(f"a Box of actions must have one axis, got shape {space.low.shape}")
        if config.action_law != "gaussian" and _unbounded(space):
            raise ValueError(f"action_law={config.action_law!r} needs a bounded Box of actions")
        return _memoryless(GaussianPolicy(_torso(config, env), space, config.action_law), env)
    if config.action_law != "gaussian":
        raise ValueError(
            f"action_law={config.action_law!r} is for continuous actions; the environment has {space.n} discrete ones"
        )
    return _memoryless(CategoricalPolicy(_torso(config, env), space.n), env)


def make_critic(config: Config, env: Env) -> Network:
    """Vφ, or Qφ of every action where the estimator asks for it, with a torso of its own.

    Raises ValueError where Q is asked for and actions are continuous.
    """
    if config.estimator not in ACTION_VALUES:
        return _memoryless(Critic(_torso(config, env)), env)
    if isinstance(env.action_space, Box):
        raise ValueError(f"estimator={config.estimator!r} sums over the actions, and so needs discrete ones")
    return _memoryless(ActionCritic(_torso(config, env), env.action_space.n), env)


def unroll(network: Network, params: Any, obs: jax.Array, first: jax.Array) -> Any:
    """The outputs [T, B, ...] along a trajectory. obs: [T, B, *O]; first: [T, B]."""
    return network.apply(params, network.carry, obs, first)[1]


def num_params(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


def _memoryless(module: nn.Module, env: Env) -> Network:
    def init(key: jax.Array) -> Any:
        return module.init(key, jnp.zeros((1, *env.obs_shape)))

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        del first  # no memory to reset
        return carry, module.apply(params, obs)

    return Network(init, apply)


def _torso(config: Config, env: Env) -> nn.Module:
    activation = ACTIVATIONS[config.activation]
    image = len(env.obs_shape) == 3
    if config.network == "cnn" and not image:
        raise ValueError(f"network='cnn' needs observations [height, width, channels], got shape {env.obs_shape}")
    if image and config.network != "mlp":
        return CNN(config.hidden_sizes, activation)
    return MLP(len(env.obs_shape), config.hidden_sizes, activation)


def _unbounded(box: Box) -> bool:
    """Whether a bound is known to be infinite; one that is traced is taken on trust."""
    return any(not isinstance(x, jax.core.Tracer) and not np.isfinite(x).all() for x in box)


def _units(box: Box) -> tuple[jax.Array, jax.Array]:
    """Centre and half width of each action; 0 and 1 where it has no bounds."""
    bounded = jnp.isfinite(box.low) & jnp.isfinite(box.high)
    low, high = jnp.where(bounded, box.low, -1.0), jnp.where(bounded, box.high, 1.0)
    return (low + high) / 2, (high - low) / 2
