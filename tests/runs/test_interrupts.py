"""Signals: none is raised while XLA compiles, which would leave a compilation behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from pg.runs import interrupts
from pg.runs.interrupts import Interrupted

LONG = """
import jax, jax.numpy as jnp

def long(x):
    for i in range({size}):
        x = jax.lax.cond(x.sum() > i, lambda x: x @ x, lambda x: jnp.cos(x) @ x, x)
    return x
"""
TWICE = f"""
import os, signal, threading, time
from pg.runs import interrupts
{LONG.format(size=1000)}
def send():
    for _ in range(2):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

lowered = jax.jit(long).lower(jnp.ones((8, 8)))
with interrupts.listening():
    threading.Thread(target=send, daemon=True).start()
    lowered.compile()
"""


def test_a_signal_is_raised_once_xla_has_compiled() -> None:
    """An exception in the middle of it ends one process of three by a segmentation fault."""
    names: dict[str, object] = {}
    exec(LONG.format(size=200), names)
    lowered = jax.jit(names["long"]).lower(jnp.ones((8, 8)))  # type: ignore[arg-type]
    said: list[str] = []

    def compile_and_wait() -> None:
        with interrupts.listening(said.append):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            lowered.compile()
            said.append("compiled")
            time.sleep(10)

    with pytest.raises(Interrupted):
        compile_and_wait()
    # "the compilation" is announced if XLA looked for signals before its end
    assert said[-1] == "compiled"
    assert set(said) <= {"the compilation", "compiled"}


def test_a_second_signal_ends_the_process_while_xla_compiles() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
        timeout=100,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM
