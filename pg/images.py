"""Observations before the networks: their scale, tokens as one-hot vectors, and the layout of
images.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from pg.config import Config, ImageLayout
from pg.envs import Env
from pg.envs.observations import is_shape

__all__ = ["image_description", "image_layout", "is_convolved", "one_hot_tokens", "scaling"]


def image_layout(config: Config, env: Env) -> ImageLayout:
    """hwc or chw: from the settings, or by the shape of an observation [a, b, c].

    Channels come first if there were otherwise far fewer rows than columns: a < b = c, or 4 a ≤ b
    and c.
    """
    if config.image_layout != "auto":
        return config.image_layout
    first, second, third = env.obs_shape
    channels_first = first < second == third or 4 * first <= min(second, third)
    return "chw" if channels_first else "hwc"


def image_description(config: Config, env: Env) -> str:
    """The layout and scale of the networks' images, in a sentence; "" without images."""
    if not is_shape(env.obs_shape):
        each = [image_description(config, leaf) for leaf in env.of_leaves()]
        return "; ".join(text for text in each if text)
    if len(env.obs_shape) != 3:
        return ""
    axes = {"hwc": "[height, width, channels]", "chw": "[channels, height, width]"}
    taken = f"as {axes[image_layout(config, env)]}" if is_convolved(config, env) else "flattened"
    if config.normalise_observations:
        scale = "standardised by running statistics"
    elif config.scale_observations:
        scale = "scaled to [0, 1] by the bounds of their space"
    elif env.obs_bounds is not None and np.max(env.obs_bounds.high) > 1:
        scale = (
            f"unscaled, up to {np.max(env.obs_bounds.high):g} (scale_observations brings them to "
            f"[0, 1])"
        )
    else:
        scale = "unscaled"
    return f"images {list(env.obs_shape)}, {taken}, {scale}"


def is_convolved(config: Config, env: Env) -> bool:
    """True for a convolution. Raises ValueError if one is asked for but there is no image."""
    image = len(env.obs_shape) == 3
    for name, asked in (
        ("network", config.network == "cnn"),
        ("image_layout", config.image_layout != "auto"),
        ("conv", bool(config.conv)),
    ):
        if asked and not image:
            axes = "[height, width, channels] or [channels, height, width]"
            raise ValueError(
                f"{name}={getattr(config, name)!r} needs observations {axes}, got "
                f"shape {env.obs_shape}"
            )
    return image and config.network != "mlp"


def scaling(config: Config, env: Env) -> Callable[[Any], Any]:
    """The scaling of observations [..., *O] before the networks."""
    if not config.scale_observations:
        return lambda obs: obs
    if not is_shape(env.obs_shape):
        leaves = [scaling(config, leaf) for leaf in env.of_leaves()]

        def scaled_tree(obs: PyTree) -> PyTree:
            structure: Any
            arrays, structure = jax.tree.flatten(obs)
            return structure.unflatten([f(x) for f, x in zip(leaves, arrays, strict=True)])

        return scaled_tree
    if env.obs_kinds:
        return lambda obs: obs
    if env.obs_bounds is None:
        raise ValueError(
            "scale_observations needs a space of observations with finite bounds for every entry: "
            "use normalise_observations, which needs none"
        )
    low, high = env.obs_bounds

    def scaled(obs: Shaped[Array, "*B"]) -> Float[Array, "*B"]:
        def axes(bound: Any) -> Shaped[Array, "..."]:
            return jnp.broadcast_to(jnp.asarray(bound, obs.dtype), obs.shape)

        return (obs - axes(low)) / axes(high - low)

    return scaled


def one_hot_tokens(env: Env) -> Callable[[Any], Any]:
    """The encoding of observations [..., *O] with every token as a one-hot vector, concatenated
    along the last axis; numbers are unchanged.
    """
    if not any(jax.tree.leaves(env.obs_kinds)):
        return lambda obs: obs

    def one(x: Shaped[Array, "..."], kinds: int) -> Shaped[Array, "..."]:
        if kinds == 0:
            return x
        one_hot = jax.nn.one_hot(x.astype(jnp.int32), kinds, dtype=float)
        return one_hot.reshape(*x.shape[:-1], x.shape[-1] * kinds)

    return lambda obs: jax.tree.map(one, obs, env.obs_kinds)
