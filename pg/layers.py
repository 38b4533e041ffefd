"""Layers of the networks, as flax modules: torsos, recurrent cells and heads."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, Shaped

from pg.config import RNN, ActionDistribution
from pg.distributions import Categorical, CensoredGaussian, Gaussian, TanhGaussian
from pg.envs import Box

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "LOG_STD",
    "MLP",
    "ActionValues",
    "Logits",
    "Model",
    "Normal",
    "Recurrent",
    "Value",
    "orthogonal",
    "patches",
]

Activation = Callable[[Array], Array]  # entry by entry
ACTIVATIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}

# Bounds of a log-std that is an output of the network, in units of the box's half width: a std of
# 0.0067 to 7.4.
LOG_STD = (-5.0, 2.0)


class MLP(nn.Module):
    """Dense hidden layers; the observation is flattened first."""

    obs_ndim: int
    sizes: tuple[int, ...]
    activation: Activation

    @nn.compact
    def __call__(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """obs: [..., *O] -> features [..., sizes[-1]]."""
        x = obs.reshape(*obs.shape[: obs.ndim - self.obs_ndim], -1)
        for size in self.sizes:
            x = self.activation(_dense(size, math.sqrt(2))(x))
        return x


class CNN(nn.Module):
    """One 3×3 convolution of 16 channels, then dense layers: the network of MinAtar (Young & Tian,
    1903.03176).
    """

    sizes: tuple[int, ...]
    activation: Activation
    channels_first: bool = False

    @nn.compact
    def __call__(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """obs: [..., height, width, channels], or with the channels first -> features [...,
        sizes[-1]].
        """
        if self.channels_first:
            obs = jnp.moveaxis(obs, -3, -1)
        # One product with all patches. The gradient of flax's `Conv`, which is equal, XLA computes
        # tens of times slower on CPU when it is inside a scan or mapped over seeds.
        x = self.activation(_dense(16, math.sqrt(2))(patches(obs)))
        return MLP(3, self.sizes, self.activation)(x)


def patches(image: Shaped[Array, "*B h w C"]) -> Shaped[Array, "*B h-2 w-2 9*C"]:
    """The 3×3 neighbourhood of every inner pixel: [..., h, w, C] -> [..., h - 2, w - 2, 9 C]."""
    height, width = image.shape[-3:-1]
    shifted = [
        image[..., i : height - 2 + i, j : width - 2 + j, :] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)


class Recurrent(nn.Module):
    """A recurrent cell (GRU, Cho et al. 2014, 1406.1078; LSTM, Hochreiter & Schmidhuber 1997) along
    time.
    """

    kind: RNN
    size: int

    def start(self) -> Any:
        """The carry of one environment at an episode's start."""
        hidden = jnp.zeros(self.size)
        return (hidden, hidden) if self.kind == "lstm" else hidden

    @nn.compact
    def __call__(
        self, carry: PyTree, x: Float[Array, "*B F"], first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Float[Array, "*B size"]]:
        """carry: [B, ...]; x: [B, F] and first: [B], one step, or [T, B, F] and [T, B] -> carry,
        [..., size].
        """
        kind = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.kind]
        cell = kind(
            self.size, recurrent_kernel_init=orthogonal(1.0), param_dtype=jnp.zeros(()).dtype
        )

        def step(
            cell: nn.Module, carry: PyTree, xs: tuple[Float[Array, "B F"], Bool[Array, " B"]]
        ) -> tuple[PyTree, Float[Array, "B size"]]:
            x, first = xs
            carry = jax.tree.map(lambda c: jnp.where(first[:, None], 0.0, c), carry)
            return cell(carry, x)

        if first.ndim == 1:
            return step(cell, carry, (x, first))
        return nn.scan(step, variable_broadcast="params", split_rngs={"params": False})(
            cell, carry, (x, first)
        )


class Model(nn.Module):
    """Torso, recurrent cell if there is one, head."""

    torso: nn.Module
    memory: Recurrent | None  # a recurrent cell; its name is that of its stored parameters
    head: nn.Module

    def __call__(
        self, carry: PyTree, obs: Shaped[Array, "..."], first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        """carry, obs [..., *O], first [...] -> carry, the output of the head."""
        features = self.torso(obs)
        if self.memory is not None:
            carry, features = self.memory(carry, features, first)
        return carry, self.head(features)


class Logits(nn.Module):
    """A categorical policy. The final scale 0.01 starts it close to uniform."""

    num_actions: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Categorical:
        """features: [..., F] -> logits [..., A]."""
        return Categorical(_dense(self.num_actions, 0.01)(features))


class Normal(nn.Module):
    """A Gaussian policy: mean and log-std, a parameter or an output, in units of the box's half
    width.
    """

    box: Box
    distribution: ActionDistribution
    state_dependent_std: bool

    @nn.compact
    def __call__(
        self, features: Float[Array, "*B F"]
    ) -> Gaussian | TanhGaussian | CensoredGaussian:
        """features: [..., F] -> mean and log-std [..., D]; at the start N(centre, half width) or
        tanh(N(0, 1)).
        """
        size = self.box.low.size
        mean = _dense(size, 0.01)(features)
        if self.state_dependent_std:
            log_std = jnp.clip(_dense(size, 0.01)(features), *LOG_STD)
        else:
            log_std = self.param("log_std", nn.initializers.zeros, self.box.low.shape, mean.dtype)
            log_std = jnp.broadcast_to(log_std, mean.shape)
        centre, half_width = (jnp.broadcast_to(x, mean.shape) for x in _units(self.box))
        if self.distribution == "squashed":
            return TanhGaussian(mean, log_std, centre, half_width)
        gaussian = Gaussian(centre + half_width * mean, log_std + jnp.log(half_width))
        if self.distribution == "censored":
            return CensoredGaussian(*gaussian, *(jnp.broadcast_to(x, mean.shape) for x in self.box))
        return gaussian


def _units(box: Box) -> tuple[Float[Array, "*D"], Float[Array, "*D"]]:
    """Centre and half width of each action; 0 and 1 where it has no bounds."""
    bounded = jnp.isfinite(box.low) & jnp.isfinite(box.high)
    low, high = jnp.where(bounded, box.low, -1.0), jnp.where(bounded, box.high, 1.0)
    return (low + high) / 2, (high - low) / 2


class Value(nn.Module):
    """A critic of states."""

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Float[Array, "*B"]:
        """features: [..., F] -> V [...]."""
        return _dense(1, 1.0)(features)[..., 0]


class ActionValues(nn.Module):
    """A critic of every action. The final scale 0.01 prefers none before anything is known."""

    num_actions: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Float[Array, "*B A"]:
        """features: [..., F] -> Q [..., A]."""
        return _dense(self.num_actions, 0.01)(features)


def _dense(features: int, scale: float) -> nn.Dense:
    # The canonical float, so that under jax_enable_x64 a whole network is float64.
    return nn.Dense(
        features,
        kernel_init=orthogonal(scale),
        param_dtype=jnp.zeros(()).dtype,
        dot_general=_rows_times_kernel,
    )


def _rows_times_kernel(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], *_: Any, **__: Any
) -> Float[Array, "*B O"]:
    """x [..., I] times kernel [I, O], all leading axes taken as one.

    Of rows [T, B, I] XLA sums the kernel's gradient over two axes, by a product that on CPU took
    2.6 times as long as the one over a single axis (256 rows of 64, jax 0.10.2).
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def orthogonal(scale: float) -> Callable[..., Array]:
    """An initialiser: `scale` times a matrix of orthonormal columns (or rows), uniform among them.

    Gram-Schmidt, every column made orthogonal twice, on a Gaussian matrix: the distribution of Saxe
    et al. 2014 (1312.6120). No LAPACK, whose batched QR can deadlock when initialisers are vmapped
    over seeds.
    """

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = None) -> Float[Array, "..."]:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        gaussian = jax.random.normal(key, (min(rows, columns), max(rows, columns)), dtype)

        def orthonormalise(j: Array, basis: Float[Array, "K N"]) -> Float[Array, "K N"]:
            v = gaussian[j]
            for _ in range(2):
                v = v - (basis @ v) @ basis
            return basis.at[j].set(v / jnp.linalg.norm(v))

        basis = jax.lax.fori_loop(0, len(gaussian), orthonormalise, jnp.zeros_like(gaussian))
        return scale * (basis if rows < columns else basis.T).reshape(shape)

    return init
