"""Checks of a custom network: once, when it is built, without running it.

Its functions are traced for one step of a few environments and for a short sequence, with JAX's
check for leaked tracers.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from pg.envs import Box, Discrete, Env, ProductSpace
from pg.envs.failures import failed
from pg.envs.observations import zeros_of
from pg.inputs import described
from pg.layers import ActionFunction, Quadratic

__all__ = [
    "check_own_critic",
    "check_own_policy",
    "is_pair",
    "lacking_methods",
    "takes_qr",
]


class Probe(NamedTuple):
    """The leading axes of the observations that a network is traced with."""

    what: str
    axes: tuple[str, ...]
    sizes: tuple[int, ...]


NUM_ENVS = 2
PROBES = (
    Probe("one step", ("B",), (NUM_ENVS,)),
    Probe("a sequence of steps", ("T", "B"), (3, NUM_ENVS)),
)


def check_own_policy(name: str, network: Any, env: Env) -> None:
    """Raises ValueError unless a network is a policy for the actions of an environment.

    Args:
        name: the policy's name in messages.
        network: a Network.
        env: the environments that it acts in.
    """
    space = env.action_space
    of_action = {"D": space.low.size} if isinstance(space, Box) else {}
    one_number = "one number for each step, summed over the axes of an action"
    for probe, found in _traced(name, network, env, lambda dist: _asked(name, dist)):
        if isinstance(space, Discrete) and "logits" in found:
            what = f"the logits of {name}"
            _check_shape(what, found["logits"], probe, {"A": space.n}, "one for each action")
        # for several actions they are tuples, whose errors would come from the environment's own
        # code
        for what in () if isinstance(space, ProductSpace) else ("sample", "mode"):
            remedy = "an action of the environment"
            _check_shape(f"the {what} of {name}", found[what], probe, of_action, remedy)
        for what in ("log_prob", "entropy"):
            _check_shape(f"the {what} of {name}", found[what], probe, {}, one_number)


def check_own_critic(name: str, network: Any, env: Env, actions: Discrete | Box | None) -> None:
    """Raises ValueError unless a network is a critic of states, or of actions.

    Args:
        name: the critic's name in messages.
        network: a Network.
        env: the environments whose observations it sees.
        actions: the space of the actions for a critic Q(s, a); None for V(s).
    """
    of_action = {"A": actions.n} if isinstance(actions, Discrete) else {}
    remedy = "one number for each state, as in output[..., 0]"
    if isinstance(actions, Discrete):
        remedy = "one number for each action"
    for probe, output in _traced(name, network, env, lambda x: x):
        if isinstance(actions, Box):
            _check_action_function(name, output, probe, actions.low.size)
            continue
        if not hasattr(output, "shape"):
            raise ValueError(f"the output of {name} must be an array, got {described(output)}")
        _check_shape(f"the output of {name}", output, probe, of_action, remedy)


def _check_action_function(name: str, output: Any, probe: Probe, size: int) -> None:
    """Raises ValueError unless a critic of continuous actions gives a function of them.

    Args:
        name: the critic's name in messages.
        output: its output.
        probe: the leading axes.
        size: the number of entries of an action.
    """
    if not isinstance(output, ActionFunction):
        raise ValueError(
            f"the output of {name} must be a pg.layers.Quadratic or pg.layers.Sinusoids, a "
            f"function of a continuous action, got {described(output)}"
        )
    axes: dict[str, dict[str, int]] = {"constant": {}, "centre": {"D": size}}
    if isinstance(output, Quadratic):
        axes |= {"slope": {"D": size}, "curvature": {"D": size, "D'": size}}
    else:
        units = {"J": output.amplitude.shape[-1]}
        axes |= {"amplitude": units, "frequency": {**units, "D": size}, "phase": units}
    for part, of_action in axes.items():
        what = f"the {part} of {name}"
        _check_shape(what, getattr(output, part), probe, of_action, "that of an action")


def takes_qr(init: Callable[[Any], PyTree]) -> bool:
    """True for an initialiser that calls a QR decomposition, such as an orthogonal one."""
    return re.search(r"\bqr\[", str(jax.make_jaxpr(init)(jax.random.key(0)))) is not None


def is_pair(result: Any) -> bool:
    """True for a tuple of two that is not a NamedTuple such as a distribution."""
    return isinstance(result, tuple) and not hasattr(result, "_fields") and len(result) == 2


def lacking_methods(name: str, dist: Any, methods: Sequence[str]) -> str:
    """A sentence on a policy's output that is not a distribution with these methods; empty for
    one that is. name: the policy's name in messages.
    """
    missing = [method for method in methods if not hasattr(dist, method)]
    if not missing:
        return ""
    return (
        f"{name} must return a distribution, as pg.Categorical(logits), got {described(dist)} "
        f"without {', '.join(missing)}"
    )


def _asked(name: str, dist: Any) -> dict[str, Any]:
    """The arrays that training and acting need from a policy's distribution."""
    methods = ("draw", "sample", "mode", "action", "log_prob", "entropy")
    if mistake := lacking_methods(name, dist, methods):
        raise _MistakeError(mistake)
    sample = dist.sample(dist.draw(jax.random.key(0)))
    found = {
        "sample": dist.action(sample),
        "mode": dist.action(dist.mode()),
        "log_prob": dist.log_prob(sample),
        "entropy": dist.entropy(),
    }
    logits = getattr(dist, "logits", None)
    return found if logits is None else {**found, "logits": logits}


class _MistakeError(ValueError):
    """An error with a complete message, raised where errors of a user's code are caught."""


def _traced(
    name: str, network: Any, env: Env, of: Callable[[Any], Any]
) -> Iterator[tuple[Probe, Any]]:
    """The shapes of `of` applied to a network's output, for one step and for a sequence."""

    def apply(params: PyTree, carry: PyTree, obs: Any, first: Any) -> tuple[PyTree, Any]:
        result = network.apply(params, carry, obs, first)
        if not is_pair(result):
            raise _MistakeError(
                f"apply of {name} must return a pair, the carry and the output; got "
                f"{described(result)}"
            )
        return result[0], of(result[1])

    with _watched(f"init of {name}"):
        params = jax.eval_shape(network.init, jax.random.key(0))
    carry = jax.eval_shape(
        lambda: jax.tree.map(lambda c: jnp.broadcast_to(c, (NUM_ENVS, *c.shape)), network.carry)
    )
    for probe in PROBES:
        obs = jax.eval_shape(lambda sizes=probe.sizes: zeros_of(env.obs_shape, sizes))
        shapes = jax.tree.map(lambda x: list(x.shape), obs)
        first = jax.ShapeDtypeStruct(probe.sizes, bool)
        with _watched(f"apply of {name} on {probe.what}, obs {shapes},"):
            after, output = jax.eval_shape(apply, params, carry, obs, first)
        _check_carry(name, carry, after)
        yield probe, output


@contextlib.contextmanager
def _watched(what: str) -> Iterator[None]:
    """Turns exceptions of a user's function, and leaked tracers, into one-sentence errors."""
    try:
        with jax.checking_leaks():
            yield
    except _MistakeError as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        raise ValueError(failed(what, error)) from error


def _check_carry(name: str, before: PyTree, after: PyTree) -> None:
    """Raises ValueError unless the recurrent state has the same structure after a step as
    before.
    """
    shapes = [jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree) for tree in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the carry that {name} returns must be like the one it gets, {shapes[0]}; got "
            f"{shapes[1]}"
        )


def _check_shape(
    what: str, x: Any, probe: Probe, of_action: Mapping[str, int], remedy: str
) -> None:
    """Raises ValueError if an array has the wrong shape.

    Args:
        what: the array's name in messages.
        x: the array.
        probe: its leading axes.
        of_action: the names and the sizes of the axes after these.
        remedy: its expected contents.
    """
    expected = (*probe.sizes, *of_action.values())
    if tuple(x.shape) != expected:
        axes = ", ".join([*probe.axes, *of_action])
        raise ValueError(
            f"{what} must be [{axes}] = {list(expected)}, {remedy}; got shape {list(x.shape)}"
        )
