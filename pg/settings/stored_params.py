"""The parameters of a policy as a setting: the initial ones, and the reference's.

A Config is written and compared with their digest, and holds the arrays beside it.
Nothing here imports jax, and no file is read.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = [
    "FIELDS",
    "OF_POLICY",
    "StoredParams",
    "check_stored_params",
    "digest_of",
    "from_digests",
    "is_digest",
]

FIELDS = ("init_from", "reference")
"""The fields of Config that are parameters of a policy."""

OF_OBSERVATIONS = ("observe", "scale_observations", "normalise_observations")
OF_RNN = ("rnn_size", "rnn_window", "rnn_heads")
OF_POLICY = (
    "network",
    "hidden_sizes",
    "conv",
    "image_layout",
    "activation",
    "layer_norm",
    "residual",
    "rnn",
    *OF_RNN,
    "action_distribution",
    "state_dependent_std",
    "exploration",
    *OF_OBSERVATIONS,
)
"""The fields of Config that determine the function of a policy's parameters."""

_HEX = frozenset("0123456789abcdef")
SHORT = 12  # characters of a digest that messages show


class StoredParams:
    """Parameters of a policy, named as in a run's folder.

    Two are equal if their digests are.

    Attributes:
        digest: the SHA-256 of names, types, shapes and numbers.
        arrays: by name, such as `params/policy/params/head/kernel`; None: only the digest is known.
        origin: the path that they were read from, with the seed, in the form that flags take.
        settings: the fields `OF_POLICY` of their Config, as JSON; {}: unknown.
    """

    def __init__(
        self,
        digest: str,
        arrays: Mapping[str, np.ndarray] | None = None,
        origin: str = "",
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.digest, self.arrays, self.origin = digest, arrays, origin
        self.settings = dict(settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredParams) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        """The path and the beginning of the digest, for messages."""
        return f"{self.origin} {self.digest[:SHORT]}".strip()


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays and their names, independent of their order."""
    hashed = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        data = np.ascontiguousarray(array).tobytes()
        for piece in (name.encode(), f"{array.dtype} {array.shape}".encode(), data):
            hashed.update(len(piece).to_bytes(8, "little") + piece)
    return hashed.hexdigest()


def is_digest(value: Any) -> bool:
    """True for a text that is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX


def from_digests(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stored fields of Config with digests replaced by `StoredParams` without arrays.

    Raises ValueError for anything but a digest: a stored path is not read.
    """
    new = dict(data)
    for name in FIELDS:
        if new.get(name) is None:
            continue
        if not is_digest(new[name]):
            raise ValueError(f"{name} must be stored as a SHA-256 or null, got {new[name]!r:.80}")
        new[name] = StoredParams(new[name])
    return new


def check_stored_params(config: Any) -> None:
    """Raises ValueError unless the parameters in a Config belong to a policy as it describes.

    Shapes, which depend on the environment too, are compared where the policy is made.
    """
    for name in FIELDS:
        value = getattr(config, name)
        if value is None:
            continue
        if not isinstance(value, StoredParams):
            written = repr(value) if isinstance(value, str) else "RUN"
            kind = type(value).__name__
            got = repr(value) if isinstance(value, str) else f"an object of the type {kind}"
            raise ValueError(
                f"{name} must be the parameters of a run, got {got:.200}: write "
                f"{name}=pg.load_params({written:.200})"
            )
        if config.normalise_observations:
            raise ValueError(
                f"{name} excludes normalise_observations, whose running statistics would change "
                "what the parameters do: leave one of them out"
            )
        _check_settings(name, value, config)


def _check_settings(name: str, params: StoredParams, config: Any) -> None:
    """Raises ValueError if the policy of the parameters computes another function.

    If either policy is custom, only the settings of observations are compared.
    """
    there = params.settings
    if there.get("normalise_observations"):
        raise ValueError(
            f"{name}: the policy of {params.origin} sees standardised observations, and its "
            "parameters alone would act differently: train it without normalise_observations"
        )
    is_own = config.policy is not None or there.get("policy") is not None
    compared: tuple[str, ...] = OF_OBSERVATIONS if is_own else OF_POLICY
    if config.rnn == "none" and there.get("rnn") == "none":
        compared = tuple(field for field in compared if field not in OF_RNN)
    here = config.to_json()
    differing = [field for field in compared if field in there and there[field] != here[field]]
    if differing:
        is_there = ", ".join(f"{field}={there[field]!r}" for field in differing)
        is_here = ", ".join(f"{field}={here[field]!r}" for field in differing)
        raise ValueError(
            f"{name}: the policy of {params.origin} has {is_there}, and the one to be "
            f"trained {is_here}: give the settings of the former"
        )
