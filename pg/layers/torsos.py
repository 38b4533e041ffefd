"""Torsos: observations to features, by dense layers and by convolutions."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree, Shaped

from pg.layers.dense import Activation, dense

__all__ = ["CNN", "MLP", "Together", "patches"]


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
            x = self.activation(dense(size, math.sqrt(2))(x))
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
        x = self.activation(dense(16, math.sqrt(2))(patches(obs)))
        return MLP(3, self.sizes, self.activation)(x)


class Together(nn.Module):
    """Several arrays: each through a torso of its own, their features together through another."""

    parts: tuple[nn.Module, ...]  # in the order of the leaves of an observation
    rest: nn.Module

    def __call__(self, obs: PyTree) -> Float[Array, "..."]:
        """obs: a tree of arrays [..., *O] each -> features [..., sizes[-1]]."""
        pairs = zip(self.parts, jax.tree.leaves(obs), strict=True)
        return self.rest(jnp.concatenate([part(x) for part, x in pairs], axis=-1))


def patches(image: Shaped[Array, "*B h w C"]) -> Shaped[Array, "*B h-2 w-2 9*C"]:
    """The 3×3 neighbourhood of every inner pixel: [..., h, w, C] -> [..., h - 2, w - 2, 9 C]."""
    height, width = image.shape[-3:-1]
    shifted = [
        image[..., i : height - 2 + i, j : width - 2 + j, :] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)
