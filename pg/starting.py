"""Parameters by name, and a policy that starts with another run's.

Names are paths in the training state, such as `params/policy/params/torso/Dense_0/kernel`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from pg.settings.stored_params import StoredParams

__all__ = ["in_policy_tree", "named_leaves", "of_policy"]


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by their path in the tree, such as `params/policy/params/torso/Dense_0/kernel`.

    Raises ValueError if two leaves would have the same name.
    """
    paths = jax.tree.leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two arrays would be stored as {twice!r}: no key may have a '/' in it")
    return dict(zip(names, (leaf for _, leaf in paths), strict=True))


def of_policy(params: PyTree) -> dict[str, Any]:
    """The parameters of a policy by their names in the training state."""
    return named_leaves({"params": {"policy": params}})


def in_policy_tree(
    field: str, stored: StoredParams, init: Callable[[PRNGKeyArray], PyTree]
) -> PyTree:
    """Stored parameters in the tree structure of a policy's parameters.

    Args:
        field: the field of Config with the parameters.
        stored: the parameters.
        init: key -> parameters of the policy; only their shapes are used.

    Raises:
        ValueError: they belong to another network, or to an environment with other shapes.
    """
    if stored.arrays is None:
        raise ValueError(
            f"{field} is known by its digest alone, {stored!r}, and the parameters are in the "
            "folder of the run: read its settings from there"
        )
    like = jax.eval_shape(init, jax.random.key(0))
    wanted = of_policy(like)
    _check_equal(field, stored, wanted)
    leaves = [jnp.asarray(stored.arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check_equal(field: str, stored: StoredParams, wanted: Mapping[str, Any]) -> None:
    """Raises ValueError unless stored parameters have these names, types and shapes."""
    there = {name: _described(array) for name, array in (stored.arrays or {}).items()}
    here = {name: _described(leaf) for name, leaf in wanted.items()}
    for name in {**here, **there}:
        if there.get(name) == here.get(name):
            continue
        whose = stored.origin or "what is given"
        is_there, is_here = there.get(name, "absent"), here.get(name, "absent")
        raise ValueError(
            f"{field}: {whose} holds the parameters of another network, another environment or "
            f"another precision: {name} is {is_there} there and {is_here} here"
        )


def _described(x: Any) -> str:
    """Type and shape of an array."""
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
