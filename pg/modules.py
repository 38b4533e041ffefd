"""Modules of flax.linen, flax.nnx and equinox as a `Network`: a policy, or a critic.

    module(obs [..., *O])              -> an output for each observation
    module(carry, obs [B, *O])         -> carry, output: one step, of a recurrent one with `carry`

The output of a policy's module becomes the distribution of the action space: logits [..., A] for
discrete actions; a mean, or a pair of mean and log-std, [..., D] each, for continuous ones, in
units of the action; a tuple of these for several actions at once; or a distribution, which is used
as it is. The output of a critic is V, [...] or [..., 1], or Q [..., A] of every action; for
continuous actions a `pg.layers.Quadratic` or `pg.layers.Sinusoids`.

Flax's default initialisers use no QR decomposition. With one that does, such as
`nn.initializers.orthogonal`, vmapped runs are initialised one after the other: a batched QR can
deadlock on the CPU. `pg.layers.orthogonal` needs none.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from pg.distributions import Categorical, Gaussian, Product
from pg.envs import Discrete, Env, ProductSpace
from pg.envs.env_spaces import ActionSpace
from pg.envs.observations import zeros_of
from pg.inputs import described
from pg.layers import ActionFunction
from pg.network_checks import is_pair
from pg.networks import Network, parameter_check

__all__ = ["from_equinox", "from_linen", "from_nnx"]

# Parameters and the arguments of the module -> its output, [B, ...] of [B, ...].
Call = Callable[..., Any]


def from_linen(module: Any, env: Env, *, carry: PyTree = (), critic: bool = False) -> Network:
    """The Network of a `flax.linen` module.

    Args:
        module: called with a batch of observations, or with the carry and observations. They are
            floats [B, *O], one-hot for a Discrete space; a dictionary of them for a Dict, as in
            `env.obs_shape`.
        env: the environments, which provide its observations.
        carry: for a recurrent module, that of one environment at an episode's start.
        critic: the output is a value.

    Raises:
        ValueError: the module has variables besides its parameters, such as running statistics.
    """
    recurrent = bool(jax.tree.leaves(carry))

    def init(key: PRNGKeyArray) -> PyTree:
        obs = zeros_of(env.obs_shape, (1,))
        variables = module.init(key, *((_of_one(carry),) if recurrent else ()), obs)
        if others := sorted(set(variables) - {"params"}):
            raise ValueError(
                "a module of flax.linen must have only parameters ('params'), as a network is a "
                f"function of these; got {', '.join(others)}"
            )
        return variables

    check_fit = parameter_check(init)

    def call(params: PyTree, *args: Any) -> Any:
        check_fit(params)
        return module.apply(params, *args)

    return _network(init, call, env, carry, critic=critic)


def from_nnx(
    make: Callable[[Any], Any], env: Env, *, carry: PyTree = (), critic: bool = False
) -> Network:
    """The Network of a `flax.nnx` module, whose parameters are its `nnx.Param`s.

    Args:
        make: rngs -> the module, as in `lambda rngs: MLP(4, 2, rngs=rngs)`.
        env: see `from_linen`.
        carry: see `from_linen`.
        critic: see `from_linen`.

    Raises:
        ValueError: the module has variables besides its parameters, such as running statistics.
    """
    from flax import nnx

    def init(key: PRNGKeyArray) -> PyTree:
        _, params, rest = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        if others := sorted({type(leaf).__name__ for _, leaf in nnx.to_flat_state(rest)}):
            raise ValueError(
                f"a module of flax.nnx must have only parameters (nnx.Param), as a network is a "
                f"function of these; got {', '.join(others)}"
            )
        return nnx.to_pure_dict(params)

    def call(params: PyTree, *args: Any) -> Any:
        graph, abstract, rest = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)
        nnx.replace_by_pure_dict(abstract, params)
        return nnx.merge(graph, abstract, rest)(*args)

    return _network(init, call, env, carry, critic=critic)


def from_equinox(
    make: Callable[[PRNGKeyArray], Any], env: Env, *, carry: PyTree = (), critic: bool = False
) -> Network:
    """The Network of an `equinox` module, which is called with one observation [*O] at a time.

    Args:
        make: key -> the module, as in `lambda key: eqx.nn.MLP(4, 2, 64, 2, key=key)`.
        env: see `from_linen`.
        carry: see `from_linen`.
        critic: see `from_linen`.

    Raises:
        ValueError: the module has arrays that are not learned.
    """
    import equinox as eqx

    def is_learned(x: Any) -> bool:
        return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)

    def init(key: PRNGKeyArray) -> PyTree:
        return eqx.filter(make(key), is_learned)

    def call(params: PyTree, *args: Any) -> Any:
        static = eqx.filter(
            eqx.filter_eval_shape(make, jax.random.key(0)), is_learned, inverse=True
        )
        if any(hasattr(x, "dtype") for x in jax.tree.leaves(static)):
            raise ValueError(
                "a module of equinox must have only arrays of floats, as all of them are learned"
            )
        return jax.vmap(eqx.combine(params, static))(*args)

    return _network(init, call, env, carry, critic=critic)


class _Output(NamedTuple):
    """The output of a module converted to that of a policy or a critic."""

    env: Env
    critic: bool

    def of(self, output: Any) -> Any:
        """A distribution, or values."""
        if self.critic:
            if isinstance(output, ActionFunction):
                return output
            if not hasattr(output, "shape"):
                raise ValueError(f"a critic must return an array, got {described(output)}")
            is_column = output.ndim > 1 and output.shape[-1] == 1
            return output[..., 0] if is_column else output
        if hasattr(output, "log_prob"):
            return output
        return distribution(output, self.env.action_space)


def distribution(output: Any, space: ActionSpace) -> Any:
    """The action distribution of a space, from the output of a policy's module.

    Args:
        output: logits [..., A] for discrete actions; mean, or mean and log-std, [..., D], for
            continuous ones; a tuple of outputs for several actions at once.
        space: the actions.

    Raises:
        ValueError: the output is none of these, or has another width.
    """
    if isinstance(space, ProductSpace):
        if not isinstance(output, tuple | list) or len(output) != len(space.parts):
            raise ValueError(
                f"a policy of {len(space.parts)} actions at once returns a tuple of as many "
                f"outputs; got {described(output)}"
            )
        pairs = zip(output, space.parts, strict=True)
        return Product(tuple(distribution(part, of_part) for part, of_part in pairs))
    if isinstance(space, Discrete):
        _check_width("logits", output, space.n, "one for each action")
        return Categorical(output)
    size = space.low.size
    pair = output if isinstance(output, tuple | list) else (output, jnp.zeros(size))
    if len(pair) != 2:
        raise ValueError(
            f"a policy of continuous actions returns a mean, or a mean and a log-std; got "
            f"{described(output)}"
        )
    mean, log_std = pair
    _check_width("the mean", mean, size, "one for each entry of an action")
    _check_width("the log-std", log_std, size, "one for each entry of an action")
    return Gaussian(mean, jnp.broadcast_to(log_std, mean.shape))


def _check_width(what: str, x: Any, size: int, each: str) -> None:
    """Raises ValueError unless the last axis of an output has this size."""
    shape = getattr(x, "shape", None)
    if not shape or shape[-1] != size:
        got = described(x) if shape is None else f"shape {list(shape)}"
        raise ValueError(f"{what} of a policy must be [..., {size}], {each}; got {got}")


def _network(
    init: Callable[[PRNGKeyArray], PyTree], call: Call, env: Env, carry: PyTree, *, critic: bool
) -> Network:
    """The Network of a function of parameters and batches [B, ...].

    Args:
        init: key -> parameters.
        call: parameters, observations -> output; or parameters, carry, observations -> carry,
            output.
        env: the environments.
        carry: of one environment at an episode's start.
        critic: the output is a value.
    """
    output = _Output(env, critic)
    start = _of_one(carry)

    def apply(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        """Flattens all leading axes into one, and back."""
        axes = first.shape
        rows = math.prod(axes)
        flat = jax.tree.map(lambda x, shape: x.reshape(rows, *shape), obs, env.obs_shape)
        found = output.of(call(params, flat))
        for x in jax.tree.leaves(found):
            if x.shape[:1] != (rows,):
                raise ValueError(
                    f"a module must return as many rows as it receives, {rows}; got shape "
                    f"{list(x.shape)}: a parameter of a distribution needs jnp.broadcast_to"
                )
        return carry, jax.tree.map(lambda x: x.reshape(*axes, *x.shape[1:]), found)

    def step(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " B"]
    ) -> tuple[PyTree, Any]:
        fresh = jax.tree.map(
            lambda c, s: jnp.where(first.reshape(-1, *[1] * (c.ndim - 1)), s, c), carry, start
        )
        result = call(params, fresh, obs)
        if not is_pair(result):
            raise ValueError(
                f"a recurrent module returns a pair, its carry and the output; got "
                f"{described(result)}"
            )
        return result[0], output.of(result[1])

    def apply_recurrent(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        """One step [B], or a sequence [T, B]; the carry is reset at the start of episodes."""
        if first.ndim == 1:
            return step(params, carry, obs, first)
        return jax.lax.scan(lambda carry, row: step(params, carry, *row), carry, (obs, first))

    recurrent = bool(jax.tree.leaves(carry))
    return Network(init, apply_recurrent if recurrent else apply, carry)


def _of_one(carry: PyTree) -> PyTree:
    """The carry of one environment, [1, ...]."""
    return jax.tree.map(lambda c: jnp.asarray(c)[None], carry)
