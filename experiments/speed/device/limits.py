"""Rates of the device itself: matrix products, memory, launches."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

REPEATS = 5  # of which the median counts
CALLS = 10  # of a repeat, without waiting in between
LAUNCHES = 200


def limit(what: str, size: int) -> dict[str, Any]:
    """A rate and its unit.

    Args:
        what: "memory", "launch", "round trip", or the precision of a matrix product.
        size: rows of a matrix, or bytes of an array.
    """
    if what == "memory":
        x = jnp.zeros(size // 4, jnp.float32)
        return {"rate": 2 * size / seconds(lambda x: x + 1, x) / 1e9, "unit": "GB/s"}
    if what == "launch":
        one = seconds(lambda x: x + 1, jnp.zeros(()), calls=LAUNCHES)
        return {"rate": 1e6 * one, "unit": "µs"}
    if what == "round trip":
        return {"rate": 1e6 * _round_trip(), "unit": "µs"}
    return {"rate": 2 * size**3 / _product_seconds(what, size) / 1e12, "unit": "TFLOP/s"}


def seconds(f: Callable[..., Any], *args: Any, calls: int = CALLS) -> float:
    """The time of a call of a compiled function, the median over repeats of several calls."""
    program = jax.jit(f).lower(*args).compile()
    jax.block_until_ready(program(*args))
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(calls):
            result = program(*args)
        jax.block_until_ready(result)
        found.append((time.perf_counter() - started) / calls)
    return float(np.median(found))


def _product_seconds(what: str, size: int) -> float:
    if what == "float64":
        with jax.enable_x64(True):
            a, b = (jax.random.normal(jax.random.key(i), (size, size), "float64") for i in (0, 1))
            return seconds(jnp.matmul, a, b)
    a, b = (jax.random.normal(jax.random.key(i), (size, size), jnp.float32) for i in (0, 1))
    if what == "bfloat16 factors":
        return seconds(jnp.matmul, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
    with jax.default_matmul_precision(what):
        return seconds(jnp.matmul, a, b)


def _round_trip() -> float:
    """Seconds from a call to its result on the host."""
    program = jax.jit(lambda x: x + 1)
    x = program(jnp.zeros(()))
    found = []
    for _ in range(LAUNCHES):
        started = time.perf_counter()
        float(program(x))
        found.append(time.perf_counter() - started)
    return float(np.median(found))
