"""Checks that trees of arrays have equal structures, shapes and dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

__all__ = ["check_trees_equal", "description", "is_shaped"]


def check_trees_equal(expected: PyTree, tree: PyTree, what: str) -> None:
    """Raises ValueError unless two trees have equal structures, shapes and dtypes."""
    before, after = _leaf_descriptions(expected), _leaf_descriptions(tree)
    for name in before | after:
        if before.get(name) != after.get(name):
            raise ValueError(
                f"{what}: {name} must be {before.get(name, 'absent')}, got "
                f"{after.get(name, 'nothing')}"
            )
    expected_structure: Any = jax.tree.structure(expected)
    structure: Any = jax.tree.structure(tree)
    if structure != expected_structure:
        raise ValueError(f"{what} must have the structure {expected_structure}, got {structure}")


def _leaf_descriptions(tree: PyTree) -> dict[str, str]:
    """Shape and dtype of every leaf, by its path."""
    return {
        jax.tree_util.keystr(path): description(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def is_shaped(x: Any) -> bool:
    """True for an array or a number."""
    return hasattr(x, "dtype") or isinstance(x, bool | int | float)


def description(x: Any) -> str:
    """Dtype and shape of a leaf, or its class if it has none."""
    return f"{jnp.result_type(x)} of shape {jnp.shape(x)}" if is_shaped(x) else type(x).__name__
