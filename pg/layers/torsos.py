"""Torsos: observations to features, by dense layers and by convolutions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree, Shaped

from pg.config import Initialiser
from pg.layers.dense import Activation, dense, layer_norm
from pg.settings.convolutions import DEFAULT, Convolution

__all__ = ["CNN", "MLP", "Hidden", "Together", "patches"]


class Hidden(NamedTuple):
    """The kind of the hidden layers."""

    activation: Activation
    initialiser: Initialiser = "orthogonal"
    layer_norm: bool = False  # before the nonlinearity
    residual: bool = False  # residual connections around all dense layers but the first

    def layer(self, x: Float[Array, "*B I"], size: int) -> Float[Array, "*B O"]:
        """The output of a new layer of the module that calls this."""
        x = dense(size, math.sqrt(2), self.initialiser)(x)
        if self.layer_norm:
            x = layer_norm()(x)
        return self.activation(x)


class MLP(nn.Module):
    """Dense hidden layers; the observation is flattened first."""

    obs_ndim: int
    sizes: tuple[int, ...]
    hidden: Hidden

    @nn.compact
    def __call__(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """obs: [..., *O] -> features [..., sizes[-1]]."""
        x = obs.reshape(*obs.shape[: obs.ndim - self.obs_ndim], -1)
        for i, size in enumerate(self.sizes):
            y = self.hidden.layer(x, size)
            x = x + y if self.hidden.residual and i > 0 else y
        return x


class CNN(nn.Module):
    """Convolutions, then dense layers. One 3×3 convolution of 16 channels is the network of MinAtar
    (Young & Tian, 1903.03176).
    """

    sizes: tuple[int, ...]
    hidden: Hidden
    channels_first: bool = False
    convolutions: tuple[Convolution, ...] = DEFAULT

    @nn.compact
    def __call__(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """obs: [..., height, width, channels], or with the channels first -> features [...,
        sizes[-1]].
        """
        x = jnp.moveaxis(obs, -3, -1) if self.channels_first else obs
        # One product with all patches. XLA computes the equal gradient of flax's `Conv` tens of
        # times slower on a CPU inside a scan or a vmap over seeds.
        for channels, size, stride in self.convolutions:
            x = self.hidden.layer(patches(x, size, stride), channels)
        return MLP(3, self.sizes, self.hidden)(x)


class Together(nn.Module):
    """Several arrays: a separate torso for each, and another one for their concatenated
    features.
    """

    parts: tuple[nn.Module, ...]  # in the order of the leaves of an observation
    rest: nn.Module

    def __call__(self, obs: PyTree) -> Float[Array, "..."]:
        """obs: a tree of arrays [..., *O] each -> features [..., sizes[-1]]."""
        pairs = zip(self.parts, jax.tree.leaves(obs), strict=True)
        return self.rest(jnp.concatenate([part(x) for part, x in pairs], axis=-1))


def patches(
    image: Shaped[Array, "*B h w C"], size: int = 3, stride: int = 1
) -> Shaped[Array, "*B H W F"]:
    """The square neighbourhoods of pixels: [..., h, w, C] -> [..., H, W, size² C].

    Args:
        image: the pixels.
        size: height and width of a neighbourhood, which lies within the image.
        stride: pixels from one neighbourhood to the next.
    """
    height, width = image.shape[-3] - size + 1, image.shape[-2] - size + 1
    shifted = [
        image[..., i : height + i : stride, j : width + j : stride, :]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)
