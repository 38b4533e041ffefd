"""Observations of an environment as float arrays: their encoding, their bounds, a part of them.

An observation is one array, or a tree of arrays: a dictionary, a tuple or a dataclass, possibly
nested. Every leaf is encoded separately.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.env_spaces import UNBOUNDED, Box, Tokens, first_number, is_discrete
from pg.envs.failures import described

__all__ = [
    "Encoding",
    "Masked",
    "encoding_of_parts",
    "entries_of",
    "is_bounds",
    "is_one_array",
    "is_real",
    "is_shape",
    "map_observation",
    "observation_encoding",
    "part_of_space",
    "zeros_of",
]


class Masked(NamedTuple):
    """An observation and the actions that are legal at it, for environments with action masks."""

    obs: Any  # [..., *O], or a tree
    # bool [..., A] of a Discrete space; of a ProductSpace a tuple, with () for continuous parts
    mask: Any


def map_observation(f: Callable[..., Any], obs: Any, *others: Any) -> Any:
    """Applies `f` to each array of an observation, but not to an action mask.

    Args:
        f: A function of one array of `obs`, and of the corresponding ones in the others.
        obs: An observation: an array, a tree, `Masked` or not.
        *others: Trees like the observation without its mask.
    """
    if isinstance(obs, Masked):
        return Masked(jax.tree.map(f, obs.obs, *others), obs.mask)
    return jax.tree.map(f, obs, *others)


class Encoding(NamedTuple):
    """Observations as the networks see them."""

    encode: Callable[[Any], Any]  # raw observations [B, ...] -> [B, *O] each
    shape: Any  # of one encoded observation, without the mask: a tuple, or a tree of tuples
    dtype: Any  # storage dtypes in a trajectory, without the mask: a dtype, or a tree of them
    bounds: Any  # a Box of numpy arrays, or None if unknown; or a tree of these
    kinds: Any  # number of kinds of tokens, else 0; or a tree of these


def observation_encoding(
    space: Any, obs: Any, entries: Sequence[int] = (), setting: str = "observe"
) -> Encoding:
    """The encoding of a batch of observations as floats.

    Args:
        space: The space that the environment declares for them, or None.
        obs: The shapes and dtypes of one observation, without its mask.
        entries: The observed entries of a vector; empty for all.
        setting: The setting that chooses these entries.

    Raises:
        ValueError: For observations that cannot be encoded, or have no such entries.
    """
    if not is_one_array(obs):
        return _encoding_of_tree(space, obs)
    encode, shape = _encoding_of_array(space, obs)
    bounds = _bounds_of_array(space, obs)
    if entries:
        encode, shape = entries_of(encode, shape, entries, setting)
        if bounds is not None:
            bounds = Box(bounds.low[list(entries)], bounds.high[list(entries)])
    return Encoding(encode, shape, _dtype_of(obs), bounds, _kinds_of_array(space))


def encoding_of_parts(parts: Mapping[str, Encoding]) -> Encoding:
    """The encoding of a dictionary of observations, each by its own encoding."""

    def encode(own: Mapping[str, Any]) -> dict[str, Any]:
        return {name: part.encode(own[name]) for name, part in parts.items()}

    def of_each(field: str) -> dict[str, Any]:
        return {name: getattr(part, field) for name, part in parts.items()}

    return Encoding(encode, *map(of_each, Encoding._fields[1:]))


def _encoding_of_tree(space: Any, obs: Any) -> Encoding:
    """The encoding of a tree of arrays, each separately, in a tree of the same structure.

    Args:
        space: The space that the environment declares for it, or None.
        obs: The tree of shapes and dtypes of one observation.

    Raises:
        ValueError: For a tree without arrays, and arrays that cannot be encoded.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(obs)
    if not leaves or not all(is_one_array(leaf) for leaf in leaves):
        raise ValueError(
            f"observations must be an array or a tree of arrays, got {type(obs).__name__}"
        )
    paths = [path for path, _ in jax.tree.leaves_with_path(obs)]
    parts = [_part_of(space, path) for path in paths]
    made = []
    for path, part, leaf in zip(paths, parts, leaves, strict=True):
        try:
            encode, shape = _encoding_of_array(part, leaf)
        except ValueError as error:
            raise ValueError(f"{error}, in {jax.tree_util.keystr(path)}") from None
        bounds, kinds = _bounds_of_array(part, leaf), _kinds_of_array(part)
        made.append(Encoding(encode, shape, _dtype_of(leaf), bounds, kinds))

    def encode_tree(own: Any) -> Any:
        each = zip(made, structure.flatten_up_to(own), strict=True)
        return structure.unflatten([part.encode(x) for part, x in each])

    def tree(field: str) -> Any:
        return structure.unflatten([getattr(part, field) for part in made])

    return Encoding(encode_tree, tree("shape"), tree("dtype"), tree("bounds"), tree("kinds"))


def _part_of(space: Any, path: Any) -> Any:
    """The space of a leaf, within the declared one; None if none is declared."""
    for key in path:
        name = next(
            (getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)), None
        )
        space = part_of_space(space, name)
    return space


def part_of_space(space: Any, name: Any) -> Any:
    """The space of this name or number within a Dict or a Tuple; None if there is none."""
    try:
        return space.spaces[name]
    except (AttributeError, KeyError, IndexError, TypeError):
        return None


def _dtype_of(obs: Any) -> Any:
    """The dtype in which a trajectory stores an array: floats, or the bytes of an image."""
    return jnp.uint8 if obs.dtype == jnp.uint8 and obs.shape else float


def _encoding_of_array(space: Any, obs: Any) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of a batch of arrays as floats, and the shape of an encoded one.

    Args:
        space: The space that the environment declares for it, or None.
        obs: The shape and dtype of one array.

    Raises:
        ValueError: For an array that cannot be encoded.
    """
    if not is_real(obs):
        raise ValueError(
            f"observations must be floats, whole numbers or booleans, got {described(obs)}"
        )
    if math.prod(obs.shape) == 0:
        raise ValueError(f"observations must have at least one entry, got shape {obs.shape}")
    if isinstance(space, Tokens):
        if obs.shape != space.shape:
            raise ValueError(
                f"an observation of {space} must have that shape, got {described(obs)}"
            )
    elif is_discrete(space):
        n, first = int(space.n), first_number(space)
        if n < 1 or obs.shape != () or jnp.issubdtype(obs.dtype, jnp.floating):
            raise ValueError(
                f"an observation of Discrete({n}) must be one whole number, got {described(obs)}"
            )
        return lambda x: jax.nn.one_hot(x - first if first else x, n, dtype=float), (n,)
    shape = obs.shape or (1,)
    return lambda x: jnp.asarray(x).astype(float).reshape(-1, *shape), shape


def _bounds_of_array(space: Any, obs: Any) -> Box | None:
    """The bounds of an encoded array, a Box of numpy arrays; None unless every entry has two finite
    ones.

    Args:
        space: The space that the environment declares for it, or None.
        obs: The shape and dtype of one array.
    """
    if isinstance(space, Tokens):
        return None
    low: Any = getattr(space, "low", None)
    high: Any = getattr(space, "high", None)
    shape = obs.shape or (1,)
    if is_discrete(space):  # it is one-hot
        low, high, shape = 0.0, 1.0, (int(space.n),)
    for bound in (low, high):
        if bound is None or isinstance(bound, jax.core.Tracer):
            return None
        if np.shape(bound) not in ((), shape):
            return None
    low, high = (np.broadcast_to(np.asarray(bound, float), shape) for bound in (low, high))
    if not (np.abs([low, high]) < UNBOUNDED).all() or not (low < high).all():
        return None
    return Box(low, high)


def _kinds_of_array(space: Any) -> int:
    """The number of kinds of tokens in an array; 0 for numbers."""
    return int(space.n) if isinstance(space, Tokens) else 0


def entries_of(
    encode: Callable[..., Any], shape: tuple[int, ...], entries: Sequence[int], setting: str
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of only these entries of the observation, and their shape.

    Args:
        encode: The encoding of whole observations.
        shape: The shape of one of them.
        entries: The observed entries.
        setting: The setting that chooses them.

    Raises:
        ValueError: For an observation that is not a vector, or has no such entry.
    """
    if len(shape) != 1:
        raise ValueError(
            f"{setting} chooses entries of a vector, and the observation has shape {shape}"
        )
    if max(entries) >= shape[0]:
        raise ValueError(
            f"{setting} must be below {shape[0]}, the number of entries observed; got "
            f"{max(entries)}"
        )
    return lambda x: encode(x)[..., jnp.asarray(entries)], (len(entries),)


def is_one_array(obs: Any) -> bool:
    """True for an observation that is an array, or the shape of one, and not a tree."""
    return hasattr(obs, "shape")


def is_shape(x: Any) -> bool:
    """True for the shape of an encoded array, within a tree of shapes; it has an axis."""
    return type(x) is tuple and len(x) > 0 and all(isinstance(n, int) for n in x)


def is_bounds(x: Any) -> bool:
    """True for the bounds of an array, within a tree of bounds."""
    return x is None or isinstance(x, Box)


def zeros_of(shape: Any, axes: tuple[int, ...] = ()) -> Any:
    """Encoded observations of zeros [*axes, *O], for a shape or a tree of them."""
    return jax.tree.map(lambda one: jnp.zeros((*axes, *one)), shape, is_leaf=is_shape)


def is_real(x: Any) -> bool:
    """True for an array of floats, whole numbers or booleans."""
    return any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
