"""The bits that four algorithms give after some updates, as a digest, and what these can depend on.

python tests/helpers/golden.py      adds those of this machine to tests/data/golden.json
"""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pg import make_train, preset
from pg.runs import folders

FILE = Path(__file__).parents[1] / "data" / "golden.json"
# not as tuned, which changes
SMALL = {"num_envs": 4, "num_updates": 5, "hidden_sizes": (8,), "learning_rate": 0.003}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "reinforce": {"horizon": 20},
    "leave_one_out": {"horizon": 20, "optimizer": "natural"},
    "actor_critic": {"num_steps": 8, "normalise_observations": True},
    "ppo": {"num_steps": 8, "num_epochs": 2, "num_minibatches": 2, "rnn": "gru"},
}


def key() -> str:
    """A digest of what bits can depend on: software, flags, and the very model of the processor."""
    there = folders.environment()
    kept = {
        name: there[name]
        for name in (*folders.PACKAGES, "backend", "xla_flags", "threefry_partitionable")
    }
    text = (
        Path("/proc/cpuinfo").read_text()
        if Path("/proc/cpuinfo").exists()
        else platform.processor()
    )
    processor = sorted(
        {
            x
            for x in text.splitlines()
            if x.startswith(("model name", "flags", "stepping", "CPU part"))
        }
    )
    return hashlib.sha256(json.dumps([kept, processor], sort_keys=True).encode()).hexdigest()[:16]


def digest(tree: Any) -> str:
    """The digest of all leaves, with their paths, types and shapes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        x = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {x.dtype} {x.shape}".encode())
        found.update(x.tobytes())
    return found.hexdigest()


def digests() -> dict[str, str]:
    """The digests of the state and the metrics of every algorithm."""
    found = {}
    for name, changes in ALGORITHMS.items():
        config, hyperparams = preset(name, **SMALL | changes)
        found[name] = digest(jax.jit(make_train(config))(jax.random.key(0), hyperparams))
    return found


if __name__ == "__main__":
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    folders.write_json(FILE, known | {key(): digests()})
    print(f"{key()} in {FILE}")
