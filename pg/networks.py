"""Policies and critics: flax modules behind the pure `Network(init, apply, carry)`.

    policy: obs [..., *O] -> πθ(·|s), a distribution        critic: obs [..., *O] -> Vφ(s) [...]

A network is applied to one step `[B]` when acting, to a sequence `[T, B]` when learning; `first`
says where an episode begins, and there alone a memory is reset, so that both see the same past.
`carry` is the memory of one environment at an episode's start, `()` for networks without one, which
take any leading axes.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pg.config import (
    RNN,
    ActionDistribution,
    Config,
    ImageLayout,
    check_config,
    check_network,
)
from pg.distributions import Categorical, CensoredGaussian, Gaussian, TanhGaussian
from pg.envs import Box, Env
from pg.estimators.facts import FACTS
from pg.inputs import check_key, check_kind, described, numbers

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


# Bounds of a log-std that the network puts out, in units of the box's half width: a std of 0.0067
# to 7.4.
LOG_STD = (-5.0, 2.0)


class Network(NamedTuple):
    """A policy (its output is a distribution) or a critic (its output is a value), as pure
    functions.
    """

    init: Callable[[jax.Array], Any]  # key -> params
    # params, carry, obs, first -> carry, output
    apply: Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, Any]]
    carry: Any = ()
    # it sees standardised observations, and does not standardise them itself
    unstandardised: bool = False
    # a critic on the policy's own layers: its params are the pair `Params`, its carry is shared
    shared: bool = False

    @property
    def recurrent(self) -> bool:
        """Whether what it says depends on what it saw before."""
        return bool(jax.tree.leaves(self.carry))


class Carries(NamedTuple):
    """The memories of a policy and of its critic; `()` for one that has none of its own."""

    policy: Any
    critic: Any


def orthogonal(scale: float) -> Callable[..., jax.Array]:
    """An initialiser: `scale` times a matrix of orthonormal columns (or rows), uniform among them.

    Gram-Schmidt, every column made orthogonal twice, on a Gaussian matrix: the law of Saxe et al.
    2014 (1312.6120). No LAPACK, whose batched QR can deadlock when initialisers are vmapped over
    seeds.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        gaussian = jax.random.normal(key, (min(rows, columns), max(rows, columns)), dtype)

        def orthonormalise(j: jax.Array, basis: jax.Array) -> jax.Array:
            v = gaussian[j]
            for _ in range(2):
                v = v - (basis @ v) @ basis
            return basis.at[j].set(v / jnp.linalg.norm(v))

        basis = jax.lax.fori_loop(0, len(gaussian), orthonormalise, jnp.zeros_like(gaussian))
        return scale * (basis if rows < columns else basis.T).reshape(shape)

    return init


def _dense(features: int, scale: float) -> nn.Dense:
    # The canonical float, so that under jax_enable_x64 a whole network is float64.
    return nn.Dense(
        features,
        kernel_init=orthogonal(scale),
        param_dtype=jnp.zeros(()).dtype,
        dot_general=_rows_times_kernel,
    )


def _rows_times_kernel(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """x [..., I] times kernel [I, O], all leading axes taken as one.

    Of rows [T, B, I] XLA sums the kernel's gradient over two axes, by a product that on CPU took
    2.6 times as long as the one over a single axis (256 rows of 64, jax 0.10.2).
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class MLP(nn.Module):
    """Dense hidden layers; the observation is flattened first."""

    obs_ndim: int
    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [..., *O] -> features [..., sizes[-1]]."""
        x = obs.reshape(*obs.shape[: obs.ndim - self.obs_ndim], -1)
        for size in self.sizes:
            x = self.activation(_dense(size, math.sqrt(2))(x))
        return x


class CNN(nn.Module):
    """One 3×3 convolution of 16 channels, then dense layers: the network of MinAtar (Young & Tian,
    1903.03176).
    """

    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    channels_first: bool = False

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [..., height, width, channels], or with the channels first -> features [...,
        sizes[-1]].
        """
        if self.channels_first:
            obs = jnp.moveaxis(obs, -3, -1)
        # One product with all patches. The gradient of flax's `Conv`, which is equal, XLA computes
        # tens of times slower on CPU when it is inside a scan or mapped over seeds.
        x = self.activation(_dense(16, math.sqrt(2))(patches(obs)))
        return MLP(3, self.sizes, self.activation)(x)


def patches(image: jax.Array) -> jax.Array:
    """The 3×3 neighbourhood of every inner pixel: [..., h, w, C] -> [..., h - 2, w - 2, 9 C]."""
    height, width = image.shape[-3:-1]
    shifted = [
        image[..., i : height - 2 + i, j : width - 2 + j, :] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)


class Recurrent(nn.Module):
    """A recurrent cell (GRU, Cho et al. 2014, 1406.1078; LSTM, Hochreiter & Schmidhuber 1997) along
    time.
    """

    kind: RNN
    size: int

    def start(self) -> Any:
        """The memory of one environment at an episode's start."""
        hidden = jnp.zeros(self.size)
        return (hidden, hidden) if self.kind == "lstm" else hidden

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        """carry: [B, ...]; x: [B, F] and first: [B], one step, or [T, B, F] and [T, B] -> carry,
        [..., size].
        """
        kind = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.kind]
        cell = kind(
            self.size, recurrent_kernel_init=orthogonal(1.0), param_dtype=jnp.zeros(()).dtype
        )

        def step(
            cell: nn.Module, carry: Any, xs: tuple[jax.Array, jax.Array]
        ) -> tuple[Any, jax.Array]:
            x, first = xs
            return cell(jax.tree.map(lambda c: jnp.where(first[:, None], 0.0, c), carry), x)

        if first.ndim == 1:
            return step(cell, carry, (x, first))
        return nn.scan(step, variable_broadcast="params", split_rngs={"params": False})(
            cell, carry, (x, first)
        )


class Model(nn.Module):
    """Torso, memory if there is one, head."""

    torso: nn.Module
    memory: Recurrent | None
    head: nn.Module

    def __call__(self, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        """carry, obs [..., *O], first [...] -> carry, what the head makes of the features."""
        features = self.torso(obs)
        if self.memory is not None:
            carry, features = self.memory(carry, features, first)
        return carry, self.head(features)


class Logits(nn.Module):
    """A categorical policy. The final scale 0.01 starts it close to uniform."""

    num_actions: int

    @nn.compact
    def __call__(self, features: jax.Array) -> Categorical:
        """features: [..., F] -> logits [..., A]."""
        return Categorical(_dense(self.num_actions, 0.01)(features))


class Normal(nn.Module):
    """A Gaussian policy: mean and log-std, a parameter or an output, in units of the box's half
    width.
    """

    box: Box
    law: ActionDistribution
    state_dependent_std: bool

    @nn.compact
    def __call__(self, features: jax.Array) -> Gaussian | TanhGaussian | CensoredGaussian:
        """features: [..., F] -> mean and log-std [..., D]; at the start N(centre, half width) or
        tanh(N(0, 1)).
        """
        size = self.box.low.size
        mean = _dense(size, 0.01)(features)
        if self.state_dependent_std:
            log_std = jnp.clip(_dense(size, 0.01)(features), *LOG_STD)
        else:
            log_std = self.param("log_std", nn.initializers.zeros, self.box.low.shape, mean.dtype)
            log_std = jnp.broadcast_to(log_std, mean.shape)
        centre, half_width = (jnp.broadcast_to(x, mean.shape) for x in _units(self.box))
        if self.law == "squashed":
            return TanhGaussian(mean, log_std, centre, half_width)
        gaussian = Gaussian(centre + half_width * mean, log_std + jnp.log(half_width))
        if self.law == "censored":
            return CensoredGaussian(*gaussian, *(jnp.broadcast_to(x, mean.shape) for x in self.box))
        return gaussian


class Value(nn.Module):
    """A critic of states."""

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """features: [..., F] -> V [...]."""
        return _dense(1, 1.0)(features)[..., 0]


class ActionValues(nn.Module):
    """A critic of every action. The final scale 0.01 prefers none before anything is known."""

    num_actions: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """features: [..., F] -> Q [..., A]."""
        return _dense(self.num_actions, 0.01)(features)


def make_policy(config: Config, env: Env) -> Network:
    """πθ for the environment's action space. Raises ValueError where `config.action_distribution`
    cannot apply.
    """
    check_config(config)
    check_env(env)
    space = env.action_space
    if isinstance(space, Box):
        if space.low.ndim != 1:
            raise ValueError(f"a Box of actions must have one axis, got shape {space.low.shape}")
        if config.action_distribution != "gaussian" and _unbounded(space):
            raise ValueError(
                f"action_distribution={config.action_distribution!r} needs a bounded Box of actions"
            )
        return _network(
            config, env, Normal(space, config.action_distribution, config.state_dependent_std)
        )
    for name, default in (("action_distribution", "gaussian"), ("state_dependent_std", False)):
        if (value := getattr(config, name)) != default:
            raise ValueError(
                f"{name}={value!r} is for continuous actions; the environment has {space.n} "
                f"discrete ones"
            )
    return _network(config, env, Logits(space.n))


def make_critic(config: Config, env: Env) -> Network:
    """Vφ, or Qφ of every action where the estimator asks for it, on layers of its own unless
    `shared_torso`.

    Raises ValueError where Q is asked for and actions are continuous.
    """
    check_config(config)
    check_env(env)
    if FACTS[config.estimator].critic == "Q":
        if isinstance(env.action_space, Box):
            raise ValueError(
                f"estimator={config.estimator!r} sums over the actions, and so needs discrete ones"
            )
        return _network(config, env, ActionValues(env.action_space.n))
    critic = _network(config, env, Value())
    return _on_the_policys_layers(critic) if config.shared_torso else critic


def check_env(env: Any) -> None:
    """Raises ValueError, which says what to write instead, unless `env` is an Env."""
    if isinstance(env, Network):
        instead = "the environment comes first, and then the policy"
    else:
        name = repr(env) if isinstance(env, str) else "env"
        instead = f"write pg.make_env({name}, num_envs=8)"
    check_kind("env", env, Env, instead)


def actor(policy: Network, critic: Network) -> Network:
    """The policy as it acts in training: params are the pair `Params`, the carry is `Carries`.

    A critic with a memory must see what the policy sees, also in windows that begin in the middle
    of an episode.
    """

    def apply(params: Any, carry: Carries, obs: jax.Array, first: jax.Array) -> tuple[Carries, Any]:
        policy_carry, dist = policy.apply(params.policy, carry.policy, obs, first)
        critic_carry = carry.critic
        if own.recurrent and jax.tree.leaves(params.critic):  # none: an estimator without a critic
            critic_carry, _ = critic.apply(params.critic, carry.critic, obs, first)
        return Carries(policy_carry, critic_carry), dist

    own = critic._replace(carry=()) if critic.shared else critic
    return Network(policy.init, apply, Carries(policy.carry, own.carry), policy.unstandardised)


def unroll(
    network: Network, params: Any, obs: jax.Array, first: jax.Array, carry: Any = None
) -> Any:
    """The outputs [T, B, ...] along a trajectory. obs: [T, B, *O]; first: [T, B].

    carry: [B, ...] before the first step; default: as at an episode's start.
    """
    obs = as_float(obs)
    return network.apply(
        params, start(network, first.shape[1]) if carry is None else carry, obs, first
    )[1]


def as_float(obs: jax.Array) -> jax.Array:
    """Observations as networks see them: those that a trajectory keeps as bytes in floats."""
    return obs if jnp.issubdtype(obs.dtype, jnp.floating) else obs.astype(float)


def start(network: Network, num_envs: int) -> Any:
    """The memories of B environments at an episode's start, [B, ...]."""
    return jax.tree.map(lambda c: jnp.broadcast_to(c, (num_envs, *c.shape)), network.carry)


def check_shape(
    what: str, got: tuple[int, ...], expected: tuple[int, ...], axes: str, remedy: str
) -> None:
    """Raises ValueError where an array has another shape than it should: broadcast, it would give a
    wrong number.

    Args:
        what: the array, as the message names it.
        got: its shape.
        expected: the shape that it must have.
        axes: the names of `expected`, as [T, B].
        remedy: what to write instead.
    """
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{what} must be {axes} = {list(expected)}, got shape {list(got)}: {remedy}"
        )


def check_policy(dist: Any, action: jax.Array, expected: tuple[int, ...], axes: str) -> None:
    """Raises ValueError where a distribution's log-probabilities are not one number for each
    action.
    """
    check_distribution(dist)
    got = jax.eval_shape(dist.log_prob, action).shape
    check_shape("the policy's log_prob", got, expected, axes, "sum it over the axes of an action")


def check_distribution(dist: Any) -> None:
    """Raises ValueError unless a policy's output is a distribution, with the methods that acting
    needs.
    """
    missing = [name for name in ("draw", "sample", "action", "log_prob") if not hasattr(dist, name)]
    if missing:
        raise ValueError(
            f"a policy must give a distribution, as pg.Categorical(logits), got {described(dist)} "
            f"without {', '.join(missing)}"
        )


def check_params(params: Any) -> None:
    """Raises ValueError unless the leaves of `params` are arrays or numbers."""
    for leaf in jax.tree.leaves(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, Real):
            raise ValueError(
                f"params must be a tree of arrays, as policy.init(key) gives it, got "
                f"{described(params)}"
            )


def num_params(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


def _network(config: Config, env: Env, head: nn.Module) -> Network:
    memory = None if config.rnn == "none" else Recurrent(config.rnn, config.rnn_size)
    model = Model(_torso(config, env), memory, head)
    carry = () if memory is None else memory.start()
    scaled = _scaling(config, env)

    def init(key: jax.Array) -> Any:
        check_key(key)
        return model.init(
            key,
            jax.tree.map(lambda c: c[None], carry),
            jnp.zeros((1, *env.obs_shape)),
            jnp.ones(1, bool),
        )

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        _check_params(params)
        obs = numbers("obs", obs)
        try:
            return model.apply(params, carry, scaled(obs), first)
        except flax.errors.ScopeParamShapeError:
            if obs.shape[-len(env.obs_shape) :] != env.obs_shape:
                shapes = f"{list(env.obs_shape)}, after any other axes, got shape {list(obs.shape)}"
                raise ValueError(
                    f"obs must have the shape of the environment's, {shapes}"
                ) from None
            raise ValueError(_misfit(jax.eval_shape(init, jax.random.key(0)), params)) from None

    return Network(init, apply, carry, unstandardised=config.normalise_observations)


def _check_params(params: Any) -> None:
    """Raises ValueError for what holds more than the parameters of one network: a TrainState, or
    Params.
    """
    for name, inside in (("params", "state.params.policy"), ("policy", "params.policy")):
        if hasattr(params, name):
            raise ValueError(
                f"params must be those of one network, got {described(params)}: write {inside}"
            )
    if not isinstance(params, Mapping):
        raise ValueError(
            f"params must be those of one network, got {described(params)}: write "
            "policy.init(key), or state.params.policy"
        )


def _misfit(expected: Any, params: Any) -> str:
    """The sentence for parameters of other shapes than those that the network has."""
    shapes = [
        (jax.tree_util.keystr(path), x.shape) for path, x in jax.tree.leaves_with_path(expected)
    ]
    pairs = list(zip(shapes, map(jnp.shape, jax.tree.leaves(params)), strict=False))
    if all(len(got) == len(shape) + 1 and got[1:] == shape for (_, shape), got in pairs):
        return (
            f"params are those of {pairs[0][1][0]} runs: take one of them, jax.tree.map(lambda x: "
            "x[0], params), or use jax.vmap"
        )
    name, shape, got = next((name, shape, got) for (name, shape), got in pairs if shape != got)
    return (
        f"params do not fit this network: {name} must have shape {shape}, got {got}; were they of "
        f"another Config?"
    )


def _on_the_policys_layers(critic: Network) -> Network:
    """The critic whose torso and memory are those in the policy's params, so that its own are those
    of the head.
    """

    def init(key: jax.Array) -> Any:
        return {"params": {"head": critic.init(key)["params"]["head"]}}

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        layers = params.policy["params"] | params.critic["params"]
        return critic.apply({"params": layers}, carry, obs, first)

    return Network(init, apply, critic.carry, shared=True)


def _torso(config: Config, env: Env) -> nn.Module:
    activation = ACTIVATIONS[config.activation]
    if not _is_convolved(config, env):
        check_network(config, math.prod(env.obs_shape))
        return MLP(len(env.obs_shape), config.hidden_sizes, activation)
    layout = image_layout(config, env)
    if layout == "chw" and config.image_layout == "auto":
        warnings.warn(
            f"observations of shape {env.obs_shape} are taken as [channels, height, width]: write "
            "image_layout='hwc' if they are [height, width, channels], or 'chw' to leave out this "
            "warning",
            stacklevel=2,
        )
    height_and_width = env.obs_shape[:2] if layout == "hwc" else env.obs_shape[1:]
    if min(height_and_width) < 3:
        raise ValueError(
            f"network='cnn' needs images of at least 3 × 3, got shape {env.obs_shape}: use 'mlp'"
        )
    check_network(config, 16 * (height_and_width[0] - 2) * (height_and_width[1] - 2))
    return CNN(config.hidden_sizes, activation, channels_first=layout == "chw")


def _is_convolved(config: Config, env: Env) -> bool:
    """True for a convolution. Raises ValueError where one is asked for, and there is no image."""
    image = len(env.obs_shape) == 3
    for name, asked in (
        ("network", config.network == "cnn"),
        ("image_layout", config.image_layout != "auto"),
    ):
        if asked and not image:
            axes = "[height, width, channels] or [channels, height, width]"
            raise ValueError(
                f"{name}={getattr(config, name)!r} needs observations {axes}, got "
                f"shape {env.obs_shape}"
            )
    return image and config.network != "mlp"


def image_layout(config: Config, env: Env) -> ImageLayout:
    """hwc or chw: as the settings say, or by the shape of an observation [a, b, c].

    Channels come first if there are far fewer rows than columns, which no picture has: a < b = c,
    or 4 a ≤ b and c.
    """
    if config.image_layout != "auto":
        return config.image_layout
    first, second, third = env.obs_shape
    channels_first = first < second == third or 4 * first <= min(second, third)
    return "chw" if channels_first else "hwc"


def image_description(config: Config, env: Env) -> str:
    """The layout and scale of images that the networks see, in a sentence; empty where there are
    none.
    """
    if len(env.obs_shape) != 3:
        return ""
    axes = {"hwc": "[height, width, channels]", "chw": "[channels, height, width]"}
    taken = f"as {axes[image_layout(config, env)]}" if _is_convolved(config, env) else "flattened"
    if config.normalise_observations:
        scale = "standardised by running statistics"
    elif config.scale_observations:
        scale = "scaled to [0, 1] by the bounds of their space"
    elif env.obs_bounds is not None and np.max(env.obs_bounds.high) > 1:
        scale = (
            f"unscaled, up to {np.max(env.obs_bounds.high):g} (scale_observations brings them to "
            f"[0, 1])"
        )
    else:
        scale = "unscaled"
    return f"images {list(env.obs_shape)}, {taken}, {scale}"


def _scaling(config: Config, env: Env) -> Callable[[jax.Array], jax.Array]:
    """The scaling of observations [..., *O] before the networks."""
    if not config.scale_observations:
        return lambda obs: obs
    if env.obs_bounds is None:
        raise ValueError(
            "scale_observations needs a space of observations with finite bounds for every entry: "
            "use normalise_observations, which needs none"
        )
    low, high = env.obs_bounds

    def scaled(obs: jax.Array) -> jax.Array:
        def axes(bound: Any) -> jax.Array:
            return jnp.broadcast_to(jnp.asarray(bound, obs.dtype), obs.shape)

        return (obs - axes(low)) / axes(high - low)

    return scaled


def _unbounded(box: Box) -> bool:
    """Whether a bound is known to be infinite; one that is traced is taken on trust."""
    return any(not isinstance(x, jax.core.Tracer) and not np.isfinite(x).all() for x in box)


def _units(box: Box) -> tuple[jax.Array, jax.Array]:
    """Centre and half width of each action; 0 and 1 where it has no bounds."""
    bounded = jnp.isfinite(box.low) & jnp.isfinite(box.high)
    low, high = jnp.where(bounded, box.low, -1.0), jnp.where(bounded, box.high, 1.0)
    return (low + high) / 2, (high - low) / 2
