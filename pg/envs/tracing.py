"""Calls outside of every trace, for facts about an environment that must not depend on a trace."""

import concurrent.futures
import contextlib
import contextvars
import copy
import inspect
from collections.abc import Callable
from typing import Any

import jax

from pg.fast import programs

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # jax before 0.10
    from jax.core import get_opaque_trace_state

__all__ = ["call_outside_traces", "calls_python", "copy_with_own_attributes", "is_tracing"]

# The thread-local settings of jax that numbers depend on: each a function of jax.
_SETTINGS = (
    "allow_f16_reductions",
    "default_device",
    "default_matmul_precision",
    "default_prng_impl",
    "enable_custom_prng",
    "enable_x64",
    "legacy_prng_key",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "softmax_custom_jvp",
    "threefry_partitionable",
)


def is_tracing() -> bool:
    """True if this thread is within a trace."""
    return bool(get_opaque_trace_state() != call_outside_traces(get_opaque_trace_state))


def call_outside_traces(function: Callable[[], Any]) -> Any:
    """Returns function(), outside of every trace and every mesh, under the caller's settings.

    Traces and meshes belong to a thread, and so the function is called in another. Settings such as
    `with jax.enable_x64(True)` also belong to a thread, and those of Python (`np.errstate`): they
    are repeated in that other thread.
    """
    settings = _settings()
    context = contextvars.copy_context()

    def call_under_settings() -> Any:
        thread_settings = _settings()
        with contextlib.ExitStack() as stack:
            for name, value in settings.items():
                if value != thread_settings[name]:
                    stack.enter_context(getattr(jax, name)(value))
            return function()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, call_under_settings).result()


def _settings() -> dict[str, Any]:
    """The settings of jax in this thread."""
    names = [name for name in _SETTINGS if hasattr(jax, name)]
    return {name: getattr(jax.config, f"jax_{name}") for name in names}


def calls_python(program: Any) -> bool:
    """True if a program, or one within it, has a callback."""
    for eqn in program.eqns:
        if "callback" in eqn.primitive.name or any(map(calls_python, programs.parts_of(eqn))):
            return True
    return False


def copy_with_own_attributes(env: Any) -> Any:
    """Returns a copy of the environment whose attributes can change without changing the original.

    An object that cannot be copied is returned itself.
    """
    try:
        twin = object.__new__(type(env))
    except TypeError:  # a tuple, or another built-in type
        return env
    for name, value in _attributes(env).items():
        own_value = copy.copy(value) if isinstance(value, dict | list | set) else value
        object.__setattr__(twin, name, own_value)
    return twin


def _attributes(x: Any) -> dict[str, Any]:
    """The attributes of an object, from its dict and from the slots of its class and bases."""
    attributes = dict(getattr(x, "__dict__", {}))
    for kind in type(x).__mro__:
        for name, member in vars(kind).items():
            if inspect.ismemberdescriptor(member):
                with contextlib.suppress(AttributeError):  # a slot without a value
                    attributes[name] = member.__get__(x)
    return attributes
