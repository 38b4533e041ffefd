"""Export of a policy: programs that act without this package, and without the run.

    OUT/mode.jax_export      observations -> actions of the mode
    OUT/sample.jax_export    observations, the data of a key -> sampled actions
    OUT/mode.onnx            the mode for an ONNX runtime, if requested
    OUT/policy.json          arguments and results of each program, and its origin

A `.jax_export` file is a program of `jax.export`: parameters, statistics, the encoding of
observations and the bounds of actions are included, and any number of observations may be given.

    act = jax.export.deserialize(bytearray(Path("mode.jax_export").read_bytes())).call
    actions = act(observations)  # [N, *O] -> [N] or [N, D]

A program with a recurrent cell takes and returns the cell's state first: carry, obs, first ->
carry, actions. For an environment with action masks, the legal actions are the last argument.
"""

import logging
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from pg.config import name_of, part_name
from pg.envs import Box, Discrete, Masked
from pg.inputs import check_kind
from pg.runs import files, folders
from pg.runs.acting import Policy

__all__ = ["PLATFORMS", "export_policy", "programs"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST_DIFFERENCE = 1e-5  # between the actions of an ONNX program and those of the policy
CARRY = (
    "as the previous call returned it; any value at the start of an episode, where first is true"
)
EXAMPLES = 64  # observations on which two programs are compared
_ROWS = "n"  # the name of the axis of observations


class Shape(NamedTuple):
    """Shape and dtype of an argument, in which an axis may have a name."""

    shape: tuple[int | str, ...]
    dtype: Any


class Program(NamedTuple):
    """A pure function of arrays, and the shapes of its arguments by name."""

    call: Callable[..., Any]
    arguments: dict[str, Any]  # in order; trees of jax.ShapeDtypeStruct


def export_policy(policy: Policy, out: Path | str, *, onnx: bool = False) -> Path:
    """Writes the programs of a policy into a folder.

    Args:
        policy: as `pg.load_policy` returns it.
        out: the folder, which is made if it does not exist.
        onnx: also writes the mode as an ONNX program; needs jax2onnx and onnxruntime.

    Returns:
        The folder.

    Raises:
        ValueError: the policy cannot be exported as such a program, or the programs act differently
            from the policy.
        OSError: the folder cannot be written.
    """
    check_kind("policy", policy, Policy, "write pg.load_policy(folder)")
    folder = Path(out).expanduser().resolve()
    found = programs(policy)
    texts = {f"{name}.jax_export": _serialised(program) for name, program in found.items()}
    if onnx:
        texts["mode.onnx"] = _as_onnx(found["mode"])
    files.make_folder(folder)
    for name, text in texts.items():
        files.replace(folder / name, operator.methodcaller("write", text))
    folders.write_json(folder / "policy.json", _described(policy, found, list(texts)))
    return folder


def programs(policy: Policy) -> dict[str, Program]:
    """The mode and a sample of a policy as functions of arrays only, for any number of
    observations.
    """
    (rows,) = export.symbolic_shape(_ROWS)

    def of_rows(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *x.shape), x.dtype)

    own = policy.env.own_obs
    obs = jax.tree.map(of_rows, own.obs if isinstance(own, Masked) else own)
    before = {"obs": obs}
    if policy.network.remembers:
        carry = jax.tree.map(of_rows, policy.network.carry)
        before = {"carry": carry, "obs": obs, "first": jax.ShapeDtypeStruct((rows,), bool)}
    key_data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    masks = {}
    if isinstance(own, Masked):
        legal = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), bool), own.mask)
        masks = {"mask": legal}

    def program(arguments: dict[str, Any]) -> Program:
        def call(*values: Any) -> Any:
            return _acted(policy, dict(zip(arguments, values, strict=True)))

        return Program(call, arguments)

    return {
        "mode": program(before | masks),
        "sample": program(before | {"key_data": key_data} | masks),
    }


def _acted(policy: Policy, given: Mapping[str, Any]) -> Any:
    """The actions for named arguments; with a recurrent cell its state, actions."""
    obs = given["obs"]
    seen = policy.env.encode(Masked(obs, given["mask"]) if "mask" in given else obs)
    if not policy.network.remembers:
        first = jnp.zeros(jax.tree.leaves(obs)[0].shape[0], bool)
        return policy.act((), seen, first, _key(given))[1]
    return policy.act(given["carry"], seen, given["first"], _key(given))


def _key(given: Mapping[str, Any]) -> Any:
    """The key of a sample; None for the mode."""
    return jax.random.wrap_key_data(given["key_data"]) if "key_data" in given else None


def _serialised(program: Program) -> bytes:
    """A program as bytes, for every platform."""
    exported = export.export(jax.jit(program.call), platforms=PLATFORMS)
    return bytes(exported(*program.arguments.values()).serialize())


def _as_onnx(program: Program) -> bytes:
    """The program in ONNX.

    Raises ValueError if it cannot be converted, or acts differently on a few observations.
    """
    # it warns about each of its components that this release of jax does not need
    logging.getLogger("jax2onnx").setLevel(logging.CRITICAL)
    try:
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ValueError(
            f"ONNX needs {error.name}: pip install 'policy-gradients-jax[onnx]'"
        ) from None
    leaves, structure = jax.tree.flatten(tuple(program.arguments.values()))
    shapes = [Shape(tuple(map(_axis, x.shape)), x.dtype) for x in leaves]

    def flat(*values: Any) -> Any:
        return jax.tree.leaves(program.call(*jax.tree.unflatten(structure, values)))

    names = [path for path, _ in _named(program.arguments)]
    try:
        model = to_onnx(flat, shapes, model_name="policy", input_names=names)
        text: bytes = model.SerializeToString()
        session = onnxruntime.InferenceSession(text)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"jax2onnx cannot convert this policy: {type(error).__name__}: {said[:300]}"
        ) from error
    examples = [_example(seed, shape) for seed, shape in enumerate(shapes)]
    found = session.run(None, dict(zip(names, examples, strict=True)))
    expected = flat(*map(jnp.asarray, examples))
    gaps = [
        np.max(np.abs(np.asarray(x, float) - np.asarray(y, float)))
        for x, y in zip(found, expected, strict=True)
    ]
    if not max(gaps) <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the ONNX program differs from the policy by {max(gaps):.2g}: export without ONNX"
        )
    return text


def _axis(size: Any) -> Any:
    """The size of an axis, or its name."""
    return size if isinstance(size, int) else _ROWS


def _example(seed: int, shape: Shape) -> np.ndarray:
    """A few values of a shape, to compare two programs on."""
    sizes = [EXAMPLES if isinstance(size, str) else size for size in shape.shape]
    values = np.random.default_rng(seed).normal(size=sizes)
    if shape.dtype == bool:
        flags = values > 0.0
        if flags.ndim > 1:
            flags[..., 0] = True  # a mask: at least one action is legal
        return flags
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        values = np.abs(values)
    return values.astype(shape.dtype)


def _space(space: Any) -> str:
    """A description of an action space."""
    if isinstance(space, Discrete):
        return f"whole numbers from 0 to {space.n - 1}, numbered as in the environment"
    if isinstance(space, Box):
        low, high = (np.asarray(bound).tolist() for bound in space)
        return f"from {low} to {high}"
    return str(space)


def _named(arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The leaves of the arguments in order, by a path of names."""
    return [
        (".".join([name, jax.tree_util.keystr(path, simple=True, separator=".")]).rstrip("."), leaf)
        for name, tree in arguments.items()
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def _described(policy: Policy, found: Mapping[str, Program], written: list[str]) -> dict[str, Any]:
    """The content of policy.json."""

    def shown(x: Any) -> str:
        return f"{jnp.dtype(x.dtype).name}[{', '.join(str(_axis(size)) for size in x.shape)}]"

    def of_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: shown(x) for name, x in _named(arguments)}

    described = {}
    for name, program in found.items():
        results = jax.eval_shape(program.call, *program.arguments.values())
        described[name] = {
            "arguments": of_arguments(program.arguments),
            "results": [shown(x) for x in jax.tree.leaves(results)],
        }
    return {
        "env": name_of(policy.config.env),
        "estimator": part_name(policy.config.estimator),
        "action_space": _space(policy.env.action_space),
        "carry": CARRY if policy.network.remembers else None,
        "programs": described,
        "files": written,
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
    }
