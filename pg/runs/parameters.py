"""Parameters in a run's folder, and reading them back into a tree.

    params.safetensors   final parameters and running statistics, without pickle
    best.safetensors     those with the best evaluation during training, if there was any

A leaf is named by its path in the training state, as in a checkpoint:
`params/policy/params/torso/Dense_0/kernel`, `normaliser/obs/mean`. With several seeds every
leaf has a leading axis of seeds.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg import numerals
from pg.runs import files, folders, memory
from pg.runs.migrations import added, is_added, leaf_name
from pg.runs.results import num_seeds
from pg.starting import named_leaves

_NORMALISER, _CRITIC = "normaliser/", "params/critic/"
LAST, BEST = "params.safetensors", folders.BEST


def write_params(folder: Path, params: Any, normaliser: Any = (), *, name: str = LAST) -> None:
    """Writes params.safetensors: final parameters and running statistics.

    Args:
        folder: the folder of the run.
        params: `state.params`.
        normaliser: `state.normaliser`, which a policy that sees standardised observations needs.
        name: of the file, `LAST` or `BEST`.
    """
    import safetensors.numpy

    data = safetensors.numpy.save(leaves(params, normaliser))
    files.replace(folder / name, lambda file: file.write(data))


def leaves(params: Any, normaliser: Any = ()) -> dict[str, np.ndarray]:
    """The arrays that `write_params` writes, by name."""
    named = named_leaves({"params": params, "normaliser": normaliser})
    # np.ascontiguousarray would turn a scalar into a vector
    return {name: np.asarray(leaf, order="C") for name, leaf in named.items()}


def read_params(folder: Path, like: Any) -> Any:
    """The parameters of a run, in the tree of `like` (arrays or `jax.eval_shape`'s).

    With several seeds every leaf has a first axis. Raises ValueError naming the leaf if file and
    tree differ, and if observations were standardised: such parameters act differently without the
    statistics.
    """
    return _in_tree(read_leaves(folder, like), like)


def read_state(
    folder: Path, params: Any, normaliser: Any, *, best: bool = False
) -> tuple[Any, Any]:
    """Parameters and running statistics of a run.

    Args:
        folder: the folder of the run.
        params: the tree of the parameters, as in `read_params`.
        normaliser: the tree of the statistics.
        best: those with the best evaluation during training, instead of the last ones.

    Raises:
        ValueError: as `read_params` does, except for standardised observations.
    """
    return _read_trees(folder, params, normaliser, best=best)


def read_policy(
    folder: Path, policy: Any, normaliser: Any, *, best: bool = False
) -> tuple[Any, Any]:
    """Parameters of the policy and running statistics of a run; those of its critic are not read.

    Args:
        folder: the folder of the run.
        policy: the tree of the policy's parameters, as in `read_params`.
        normaliser: the tree of the statistics.
        best: see `read_state`.

    Raises:
        ValueError: as `read_state` does.
    """
    like = {"policy": policy}
    params, statistics = _read_trees(folder, like, normaliser, best=best, without=_CRITIC)
    return params["policy"], statistics


def _read_trees(
    folder: Path, params: Any, normaliser: Any, *, best: bool, without: str = ""
) -> tuple[Any, Any]:
    """Parameters and running statistics in their trees; arguments as in `read_state` and
    `read_leaves`.
    """
    if best:
        folders.check_best(folder)
    which = BEST if best else LAST
    arrays = read_leaves(folder, params, normaliser, which=which, without=without)
    of_params = {name: x for name, x in arrays.items() if not name.startswith(_NORMALISER)}
    of_normaliser = {name: x for name, x in arrays.items() if name.startswith(_NORMALISER)}
    return _in_tree(of_params, params), _in_tree(of_normaliser, normaliser)


def read_leaves(
    folder: Path, like: Any, normaliser: Any = None, *, which: str = LAST, without: str = ""
) -> dict[str, np.ndarray]:
    """The arrays of params.safetensors, by name.

    Args:
        folder: the folder of the run.
        like: the tree of the parameters, as in `read_params`.
        normaliser: the tree of the running statistics; None: they are not read, and observations
            must not be standardised.
        which: name of the file, `LAST` or `BEST`.
        without: the prefix of the names of arrays to leave out.

    Raises:
        ValueError: the file is missing or corrupt, or has other arrays, which is checked before any
            is read.
    """
    import safetensors

    path, most = folder / which, num_seeds(folder)
    wanted = named_leaves({"params": like, "normaliser": () if normaliser is None else normaliser})
    with files.opened(path):
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            stored = {leaf_name(name): name for name in file.keys()}  # noqa: SIM118
            if without:
                stored = {n: x for n, x in stored.items() if not n.startswith(without)}
            if normaliser is None:
                _check_alone(folder, list(stored))
                stored = {n: x for n, x in stored.items() if not n.startswith(_NORMALISER)}
            new = [name for name in wanted if name not in stored and is_added(name)]
            if odd := sorted(set(wanted) ^ {*stored, *new}):
                raise ValueError(
                    f"{folder} holds the parameters of another network: {', '.join(odd[:5])}"
                )
            runs: tuple[int, ...] = ()
            for name, leaf in sorted(wanted.items(), reverse=True):
                if name in new:
                    continue
                part = file.get_slice(stored[name])
                check_precision(path, part.get_dtype(), leaf)
                _check_leaf(f"{folder}: {name}", part.get_dtype(), part.get_shape(), leaf, most)
                runs = tuple(part.get_shape()[: len(part.get_shape()) - leaf.ndim])
            arrays = {}
            for name, leaf in wanted.items():
                is_new = name in new
                arrays[name] = added(name, leaf, runs) if is_new else file.get_tensor(stored[name])
            return arrays
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is missing or corrupt: {str(error).splitlines()[0]}") from None


def stored_type(dtype: Any) -> str:
    """The name of a type in safetensors."""
    names = {"bool": "BOOL", "bfloat16": "BF16"}
    return names.get(str(dtype), f"{dtype.kind.upper()}{8 * dtype.itemsize}")


def described(kind: str, shape: Sequence[int]) -> str:
    """The description of an array: its type, as safetensors names it, and shape."""
    return f"{kind}[{','.join(map(str, shape))}]"


def check_precision(place: object, kind: str, like: Any) -> None:
    """Raises ValueError for numbers of 32 bits where 64 are expected, or the reverse: a setting of
    jax.

    Args:
        place: the place of the array, for errors.
        kind: its type, as safetensors names it.
        like: an array of the expected type.
    """
    expected = stored_type(like.dtype)
    if kind[:1] == expected[:1] and {kind[1:], expected[1:]} == {"32", "64"}:
        there = int(kind.endswith("64"))
        raise ValueError(
            f"{place} holds numbers of {kind[1:]} bits, as it was written with "
            f"JAX_ENABLE_X64={there}; this process has {expected[1:]}: set JAX_ENABLE_X64={there}"
        )


def _check_leaf(name: str, kind: str, shape: Sequence[int], like: Any, most: int | None) -> None:
    """Raises ValueError unless an array has the type and shape of `like`, or also a leading axis of
    at most `most` seeds."""
    seeds = list(shape[: len(shape) - like.ndim])
    fits = kind == stored_type(like.dtype) and list(shape[len(seeds) :]) == list(like.shape)
    if (
        not fits
        or len(shape) < like.ndim
        or len(seeds) > 1
        or (most is not None and seeds not in ([], [most]))
    ):
        expected = described(stored_type(like.dtype), like.shape)
        first = (
            "" if most is None else f", with a leading axis of {numerals.counted(most, 'seed')},"
        )
        raise ValueError(
            f"{name} is {described(kind, shape)}, where {expected}{first} was expected"
        )
    if like.dtype.itemsize * math.prod(shape) > memory.free():
        raise ValueError(f"{name} is {described(kind, shape)}, more than fits into memory")


def _check_alone(folder: Path, names: Sequence[str]) -> None:
    """Raises ValueError unless the parameters act without running statistics. names: of all other
    arrays.
    """
    if any(name.startswith(f"{_NORMALISER}obs/") for name in names):
        raise ValueError(
            f"the policy in {folder} sees standardised observations, and its parameters alone "
            "would act differently: use pg.load_policy(folder), which acts; "
            "pg.runs.parameters.read_state reads both"
        )


def _in_tree(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The tree of leaves that are in its order."""
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(x) for x in arrays.values()])
