"""A process that measures rows, one after the other, and answers each at once, as a line of JSON.

    python -m device.worker '[["limits", "limit", "memory", {...}], ...]'

A line {"begin": i} comes before a row, {"result": {...}} or {"error": "..."} after it, with its
seconds.
"""

import gc
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any


def machine(name: str) -> dict[str, str]:
    """One fact of the machine."""
    import jax
    import jaxlib

    device = jax.devices()[0]
    if name == "memory of the device":
        stats = device.memory_stats() or {}
        size = stats.get("bytes_limit")
        return {"value": "unknown" if size is None else f"{size / 1e9:.1f} GB for programs"}
    if name == "driver":
        return {"value": _driver()}
    return {
        "value": {
            "backend": jax.default_backend(),
            "device": f"{jax.device_count()} × {device.device_kind}",
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "XLA_FLAGS": os.environ.get("XLA_FLAGS") or "none",
            "Python": platform.python_version(),
        }[name]
    }


def _driver() -> str:
    """The name of the GPU and its driver, by nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi does not answer"
    return done.stdout.strip()


def measured(module: str, function: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The answer of a row: its result, or the first line of what was raised."""
    try:
        this = importlib.import_module(f"device.{module}")
        return {"result": getattr(this, function)(**settings)}
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        return {"error": f"{type(error).__name__}: {first}"[:300]}


def main(rows: list[list[Any]]) -> None:
    """Answers on what was the standard output; what libraries print goes to the error output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for i, (module, function, settings) in enumerate(rows):
        print(json.dumps({"begin": i}), file=answers)
        started = time.perf_counter()
        answer = measured(module, function, settings)
        seconds = round(time.perf_counter() - started, 1)  # by which a budget can be planned
        print(json.dumps({**answer, "seconds": seconds}), file=answers)
        gc.collect()  # arrays in cycles of references stay on the device


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
