"""Policies and critics: flax modules behind the pure `Network(init, apply, carry)`.

    policy: obs [..., *O] -> πθ(·|s), a distribution        critic: obs [..., *O] -> Vφ(s) [...]

A network is applied to one step `[B]` when acting, and to a sequence `[T, B]` when learning. A
recurrent carry is reset only where `first` marks the start of an episode, so that both see the same
past. `carry` is the carry of one environment at an episode's start, `()` for networks without a
recurrent cell, which accept any leading axes.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, Shaped

from pg import distributions, numerals
from pg.config import Config, check_config, check_network, part_name
from pg.envs import Box, Discrete, Env, Masked, ProductSpace
from pg.envs.env_spaces import ActionSpace
from pg.envs.failures import in_one_sentence
from pg.envs.observations import is_shape, map_observation, zeros_of
from pg.envs.views import View, seen
from pg.estimators.names import facts_of
from pg.images import image_layout, is_convolved, one_hot_tokens, scaling
from pg.inputs import check_key, check_kind, described, numbers
from pg.layers import (
    ACTIVATIONS,
    CNN,
    LOG_STD,
    MLP,
    ActionValues,
    CausalTransformer,
    Hidden,
    Joint,
    Logits,
    LogOdds,
    Model,
    Normal,
    QuadraticValues,
    SinusoidalValues,
    Together,
    TokenKinds,
    Value,
    make_cell,
    units_of_box,
)
from pg.network_checks import (
    check_own_critic,
    check_own_policy,
    lacking_methods,
    takes_qr,
)
from pg.network_type import Carries, Network, Pair
from pg.parameter_noise import perturbed
from pg.settings.checks import check_drawn_parameters
from pg.settings.convolutions import convolutions, convolved
from pg.starting import in_policy_tree

__all__ = [
    "Carries",
    "Network",
    "Pair",
    "actor",
    "as_float",
    "carry_noise",
    "check_distribution",
    "check_env",
    "check_params",
    "check_policy",
    "check_shape",
    "for_env",
    "make_critic",
    "make_policy",
    "masked",
    "num_params",
    "parameter_check",
    "start",
    "unroll",
]


def make_policy(config: Config, env: Env) -> Network:
    """πθ for the environment's action space: `config.policy`, or that of the other settings.

    Raises ValueError if `config.action_distribution` does not apply, or a custom policy does not
    fit the environment.
    """
    check_config(config)
    check_env(env)
    if config.normalise_observations and any(jax.tree.leaves(env.obs_kinds)):
        raise ValueError(
            "normalise_observations standardises numbers, and this environment shows tokens, each "
            "of which is a kind of its own: leave it out"
        )
    shown = env.seen_by(env.views.policy)
    if config.policy is not None:
        policy = _own_network("policy", config, shown)
        check_own_policy(f"policy {part_name(config.policy)!r}", policy, shown)
        own = for_env(_as_configured(policy, config, shown), env, env.views.policy)
        return _starting(_exploring(own, config), config)._replace(obs_shape=_shape_of_array(shown))
    space = env.action_space
    parts = space.parts if isinstance(space, ProductSpace) else (space,)
    if not any(isinstance(part, Box) for part in parts):
        _check_no_setting_of_boxes(config, space)
    policy = for_env(_network(config, shown, _head(config, space)), env, env.views.policy)
    return _starting(_exploring(policy, config), config)._replace(obs_shape=_shape_of_array(shown))


def _exploring(policy: Network, config: Config) -> Network:
    """The policy with the exploration of the settings: of actions, its own, or of parameters."""
    if config.exploration == "actions":
        return policy
    return perturbed(policy, config.parameter_std)


def _shape_of_array(env: Env) -> tuple[int, ...] | None:
    """The shape of an observation that is one array; None for a tree of arrays."""
    return env.obs_shape if is_shape(env.obs_shape) else None


def _starting(policy: Network, config: Config) -> Network:
    """The policy with the initial parameters and the reference policy of `config`, if any.

    Their shapes are compared when they are used.
    """
    init, start, held = policy.init, config.init_from, config.reference
    if start is not None:
        policy = policy._replace(init=lambda key: in_policy_tree("init_from", start, init))
    if held is not None:
        policy = policy._replace(reference=lambda: in_policy_tree("reference", held, init))
    return policy


def _head(config: Config, space: ActionSpace) -> nn.Module:
    """The head of a policy for these actions."""
    if isinstance(space, ProductSpace):
        return Joint(tuple(_head(config, part) for part in space.parts))
    if isinstance(space, Discrete):
        return Logits(space.n)
    if space.low.ndim != 1:
        raise ValueError(f"a Box of actions must have one axis, got shape {space.low.shape}")
    if config.action_distribution != "gaussian" and _unbounded(space):
        raise ValueError(
            f"action_distribution={config.action_distribution!r} needs a bounded Box of actions"
        )
    low, high = LOG_STD
    if config.state_dependent_std and not low <= math.log(config.initial_std) <= high:
        raise ValueError(
            f"initial_std must be from {math.exp(low):.3g} to {math.exp(high):.3g} with "
            f"state_dependent_std, which is clipped there; got {config.initial_std}"
        )
    return Normal(space, config.action_distribution, config.state_dependent_std, config.initial_std)


def _check_no_setting_of_boxes(config: Config, space: ActionSpace) -> None:
    """Raises ValueError for settings of continuous actions if there are none."""
    number = f"{space.n} " if isinstance(space, Discrete) else ""
    for name in ("action_distribution", "state_dependent_std", "initial_std"):
        default = getattr(Config, name)
        if (value := getattr(config, name)) != default:
            raise ValueError(
                f"{name}={value!r} is for continuous actions; the environment has {number}"
                f"discrete ones"
            )


def make_critic(config: Config, env: Env) -> Network:
    """Vφ, or Qφ if the estimator needs it: `config.critic`, or that of the other settings, with
    separate layers unless `shared_torso`. Qφ is a vector of the values of discrete actions, and an
    `ActionFunction` for continuous ones, or with `action_critic="network"` one number for a `Pair`
    of observation and action. If the estimator needs a hindsight distribution it is instead f(s, u)
    for every action, with h(a|s, u) ∝ π(a|s) exp f, on a `Pair` of observation and outcome.

    Raises ValueError if Q is needed and an action has several parts, if `config.action_critic` does
    not apply, or if a custom critic does not fit the environment.
    """
    check_config(config)
    check_env(env)
    if facts_of(config.estimator).critic == "hindsight":
        return _hindsight_network(config, env)
    actions = _valued_actions(config, env)
    if config.action_critic == "network":
        assert isinstance(actions, Box)  # as checked
        return _network_of_action(config, env, actions)
    shown = env.seen_by(env.views.critic)
    if config.critic is not None:
        critic = _own_network("critic", config, shown)
        check_own_critic(f"critic {part_name(config.critic)!r}", critic, shown, actions)
        return for_env(_as_configured(critic, config, shown), env, env.views.critic)
    head = _critic_head(config, actions)
    critic = for_env(_network(_of_the_critic(config), shown, head), env, env.views.critic)
    if not config.shared_torso:
        return critic
    if env.views.critic != env.views.policy:
        raise ValueError(
            "with shared_torso the critic is on the policy's layers, and the environment has a "
            "method critic_observe: write critic_observe=('policy',), or leave out shared_torso"
        )
    return _on_the_policys_layers(critic)


def _valued_actions(config: Config, env: Env) -> Discrete | Box | None:
    """The action space of a critic Q; None for a critic of states.

    Raises ValueError for actions that the estimator's Q does not support.
    """
    facts, space = facts_of(config.estimator), env.action_space
    if facts.critic != "Q":
        return None
    if isinstance(space, Discrete) and "discrete" in facts.actions:
        if config.action_critic != "quadratic":
            raise ValueError(
                f"action_critic={config.action_critic!r} is for continuous actions; the "
                f"environment has {space.n} discrete ones"
            )
        return space
    if isinstance(space, Box) and space.low.ndim == 1 and "continuous" in facts.actions:
        return space
    names = {"discrete": "one Discrete", "continuous": "one Box with one axis"}
    raise ValueError(
        f"estimator={part_name(config.estimator)!r} knows the value of every action, and so needs "
        f"{' or '.join(names[kind] for kind in facts.actions)} of them"
    )


def _hindsight_network(config: Config, env: Env) -> Network:
    """The network f(s, u) on the critic's view of a step and its outcome.

    Raises ValueError if actions are not discrete, or a custom critic does not fit the environment
    or is recurrent.
    """
    space, outcome = env.action_space, facts_of(config.estimator).outcome
    if not isinstance(space, Discrete):
        raise ValueError(
            f"estimator={part_name(config.estimator)!r} learns the probability of every action in "
            "hindsight, and so needs one Discrete of them"
        )
    shown = env.seen_by(env.views.critic)
    paired = _with_outcome(shown, outcome)
    if config.critic is None:
        network = _network(_of_the_critic(config), paired, LogOdds(space.n))
    else:
        name = f"critic {part_name(config.critic)!r}"
        network = _own_network("critic", config, shown)
        if network.recurrent:
            raise ValueError(
                f"{name} is to be a hindsight network, which is given one step and one outcome: "
                "it can have no recurrent state"
            )
        check_own_critic(name, network, paired, space)
        network = _as_configured(network, config, paired)
    if env.views.critic:
        network = _seeing(network, env.views.critic, outcome)
    return network._replace(outcome=outcome)


def _network_of_action(config: Config, env: Env, actions: Box) -> Network:
    """The critic Q(s, a), one number, on the critic's view and a continuous action in units of the
    box's half width.
    """
    paired = _with_outcome(env.seen_by(env.views.critic), "action", actions.low.size)
    network = _network(_of_the_critic(config), paired, Value())

    def apply(
        params: PyTree, carry: PyTree, obs: Pair, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        centre, half_width = (jnp.broadcast_to(x, obs.outcome.shape) for x in units_of_box(actions))
        action = (obs.outcome - centre) / half_width
        return network.apply(params, carry, obs._replace(outcome=action), first)

    of_pair = network._replace(apply=apply)
    if env.views.critic:
        of_pair = _seeing(of_pair, env.views.critic, "action")
    return of_pair._replace(outcome="action", action_samples=config.action_samples)


def _with_outcome(env: Env, outcome: str, size: int = 1) -> Env:
    """The environment, as if an observation were a `Pair` of an observation and a later outcome, or
    of an observation and numbers.

    Args:
        env: The environment.
        outcome: See `Network.outcome`.
        size: The size of an outcome that is not an observation.
    """
    if outcome == "state":
        return env._replace(
            obs_shape=Pair(env.obs_shape, env.obs_shape),
            obs_bounds=Pair(env.obs_bounds, env.obs_bounds),
            obs_kinds=Pair(env.obs_kinds, env.obs_kinds),
            obs_dtype=Pair(env.obs_dtype, env.obs_dtype),
        )
    as_it_is = Box(jnp.zeros(size), jnp.ones(size))  # bounds that leave numbers unscaled
    return env._replace(
        obs_shape=Pair(env.obs_shape, (size,)),
        obs_bounds=Pair(env.obs_bounds, as_it_is),
        obs_kinds=Pair(env.obs_kinds, 0),
        obs_dtype=Pair(env.obs_dtype, float),
    )


def _critic_head(config: Config, actions: Discrete | Box | None) -> nn.Module:
    """The head of a critic of these actions, or of states if None."""
    if actions is None:
        return Value()
    if isinstance(actions, Discrete):
        return ActionValues(actions.n)
    if config.action_critic == "sinusoids":
        return SinusoidalValues(actions, config.action_critic_units)
    return QuadraticValues(actions)


def check_env(env: Any) -> None:
    """Raises ValueError, saying what to write instead, unless `env` is an Env."""
    if isinstance(env, Network):
        instead = "the environment comes first, and then the policy"
    else:
        name = repr(env) if isinstance(env, str) else "env"
        instead = f"write pg.make_env({name}, num_envs=8)"
    check_kind("env", env, Env, instead)


def actor(policy: Network, critic: Network) -> Network:
    """The acting policy in training: params are the pair `Params`, the carry is `Carries`.

    A recurrent critic has to see everything that the policy sees, also in windows that start in the
    middle of an episode.
    """

    def apply(
        params: Any, carry: Carries, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[Carries, Any]:
        policy_carry, dist = policy.apply(params.policy, carry.policy, obs, first)
        critic_carry = carry.critic
        # without leaves: an estimator without a critic
        if own.recurrent and jax.tree.leaves(params.critic):
            critic_carry, _ = critic.apply(params.critic, carry.critic, obs, first)
        return Carries(policy_carry, critic_carry), dist

    def draw_carry(params: Any, noise: PyTree) -> Carries:
        assert draw_own is not None
        return Carries(draw_own(params.policy, noise), own.carry)

    own = critic._replace(carry=()) if critic.shared else critic
    draw_own = policy.draw_carry
    return policy._replace(
        apply=apply,
        carry=Carries(policy.carry, own.carry),
        draw_carry=None if draw_own is None else draw_carry,
    )


def masked(network: Network) -> Network:
    """The network on the `Masked` observations of an environment with action masks.

    A policy gives illegal actions probability 0; a critic does not see which are legal.
    """

    def apply(
        params: PyTree, carry: PyTree, obs: Masked, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        carry, output = network.apply(params, carry, obs.obs, first)
        is_policy = hasattr(output, "log_prob")
        return carry, distributions.masked(output, obs.mask) if is_policy else output

    return network._replace(apply=apply, masked=True)


def for_env(network: Network, env: Env, view: View = ()) -> Network:
    """The network on the observations of the environment, `Masked` or not.

    Args:
        network: A policy or a critic of the observations that the view shows.
        env: The environment.
        view: The part of an observation that it sees; default: all of it.
    """
    if view:
        network = _seeing(network, view)
    return masked(network) if env.masked and not network.masked else network


def _seeing(network: Network, view: View, outcome: str = "") -> Network:
    """The network on a view of an observation. outcome: the outcome of a `Pair` (see
    `Network.outcome`).
    """

    def shown(obs: PyTree) -> PyTree:
        return seen(obs, view)

    def apply(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        part = obs.map_observations(shown, outcome) if outcome else shown(obs)
        return network.apply(params, carry, part, first)

    return network._replace(apply=apply, view=view)


def unroll(
    network: Network,
    params: PyTree,
    obs: PyTree,
    first: Bool[Array, "T B"],
    carry: PyTree = None,
) -> PyTree:
    """The outputs [T, B, ...] along a trajectory.

    Args:
        network: a policy or a critic.
        params: its parameters.
        obs: observations, [T, B, *O].
        first: the steps at which an episode begins, [T, B].
        carry: the recurrent state [B, ...] before the first step; default: that at an episode's
            start.
    """
    if carry is None:
        carry = start(network, first.shape[1])
    _, output = network.apply(params, carry, as_float(obs), first)
    return output


def as_float(obs: PyTree) -> PyTree:
    """Observations as floats for networks, if a trajectory stores them as bytes."""

    def one(x: Shaped[Array, "*B"]) -> Float[Array, "*B"]:
        return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)

    return map_observation(one, obs)


def start(network: Network, num_envs: int) -> Any:
    """The carries of B environments at an episode's start, [B, ...]."""
    return jax.tree.map(lambda c: jnp.broadcast_to(c, (num_envs, *c.shape)), network.carry)


def carry_noise(network: Network, num_envs: int) -> Any:
    """The distribution of the noise from which a network computes the carries of B episodes."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *x.shape)), network.carry_noise)


def check_shape(
    what: str, got: tuple[int, ...], expected: tuple[int, ...], axes: str, remedy: str
) -> None:
    """Raises ValueError if an array has the wrong shape, which might broadcast silently.

    Args:
        what: the array's name in the message.
        got: its shape.
        expected: the expected shape.
        axes: the names of the expected axes, such as [T, B].
        remedy: what to write instead.
    """
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{what} must be {axes} = {list(expected)}, got shape {list(got)}: {remedy}"
        )


def check_policy(dist: Any, action: PyTree, expected: tuple[int, ...], axes: str) -> None:
    """Raises ValueError unless a distribution's log-probabilities are one number per action."""
    check_distribution(dist)
    got = jax.eval_shape(dist.log_prob, action).shape
    check_shape("the policy's log_prob", got, expected, axes, "sum it over the axes of an action")


def check_distribution(dist: Any) -> None:
    """Raises ValueError unless a policy's output is a distribution, with the methods that acting
    needs.
    """
    if mistake := lacking_methods("a policy", dist, ("draw", "sample", "action", "log_prob")):
        raise ValueError(mistake)


def check_params(params: Any) -> None:
    """Raises ValueError unless the leaves of `params` are arrays or numbers."""
    for leaf in jax.tree.leaves(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, Real):
            remedy = ": give its .params" if hasattr(params, "params") else ""
            raise ValueError(
                f"params must be a tree of arrays, as policy.init(key) gives it, got "
                f"{described(params)}{remedy}"
            )


def num_params(params: PyTree) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(map(np.size, jax.tree.leaves(params)))


def _network(config: Config, env: Env, head: nn.Module) -> Network:
    """The network with this head, on the torso and the recurrent cell of the settings."""
    if config.network == "causal_transformer":
        return _causal_transformer(config, env, head)
    cell = make_cell(config.rnn, config.rnn_size, config.rnn_window, config.rnn_heads)
    torso = _torso(config, env)
    network = _of_model(config, env, Model(torso, cell, head), one_hot_tokens(env))
    # Larger blocks are slower with convolutions; the sums of layer normalisation are flax's.
    has_fixed_sums = cell is None and not config.layer_norm and _is_dense(torso)
    return network._replace(has_fixed_sums=has_fixed_sums)


def _is_dense(torso: nn.Module) -> bool:
    """True if the torso has no layers but dense ones."""
    if isinstance(torso, Together):
        return all(map(_is_dense, (*torso.parts, torso.rest)))
    return isinstance(torso, MLP)


def _causal_transformer(config: Config, env: Env, head: nn.Module) -> Network:
    """The causal transformer with this head, with one block per hidden layer.

    Raises ValueError for an environment whose observations are not sequences of tokens.
    """
    shapes, kinds = env.obs_shape, env.obs_kinds
    names = set(shapes) if isinstance(shapes, Mapping) else set()
    if not all(jax.tree.leaves(kinds)) or names not in (
        {"prompt", "position", "token"},
        {"prompt", "position", "tokens"},
    ):
        raise ValueError(
            "network='causal_transformer' reads prompt, position and the last token or all of "
            "them, as pg.envs.Sequences shows them with observation='last' or 'prefix'; got "
            f"observations {described(shapes) if not names else sorted(names)}: use network='mlp'"
        )
    token = "token" if "token" in names else "tokens"
    check_network(config, kinds[token])
    transformer = CausalTransformer(
        num_blocks=len(config.hidden_sizes),
        size=config.hidden_sizes[0],
        heads=config.rnn_heads,
        kinds=TokenKinds(kinds[token], kinds["position"], kinds["prompt"], *shapes["prompt"]),
        hidden=_hidden(config),
    )

    def with_last_token(obs: PyTree) -> PyTree:
        if token == "token":
            return obs
        place = jnp.maximum(obs["position"].astype(jnp.int32) - 1, 0)
        return {**obs, "token": jnp.take_along_axis(obs["tokens"], place, axis=-1)}

    return _of_model(config, env, Model(None, transformer, head), with_last_token)


def _of_model(
    config: Config, env: Env, model: Model, encoded: Callable[[PyTree], PyTree]
) -> Network:
    """The network of a model.

    Args:
        config: The settings.
        env: The environment that it sees.
        model: Its layers.
        encoded: The encoding of observations for the model.
    """
    carry = () if model.memory is None else model.memory.start()
    scaled = scaling(config, env)
    is_array = is_shape(env.obs_shape)

    def init(key: PRNGKeyArray) -> PyTree:
        check_key(key)
        return model.init(
            key,
            jax.tree.map(lambda c: c[None], carry),
            encoded(zeros_of(env.obs_shape, (1,))),
            jnp.ones(1, bool),
        )

    check_fit = parameter_check(init)

    def apply(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        _check_params(params)
        check_fit(params)
        if is_array:
            obs = numbers("obs", obs)
            _check_obs_shape(obs.shape, env.obs_shape)
        return model.apply(params, carry, encoded(scaled(obs)), first)

    return Network(init, apply, carry, expects_standardised=config.normalise_observations)


def _own_network(field: str, config: Config, env: Env) -> Network:
    """The custom network in a field of Config, or made by its function.

    The function gets the settings without custom parts, as it may build on the project's networks.
    """
    part = getattr(config, field)
    if isinstance(part, Network):
        made: Any = part
    else:
        plain = dataclasses.replace(
            config,
            policy=None,
            critic=None,
            init_from=None,
            reference=None,
            scale_observations=False,
            exploration="actions",
            parameter_std=Config.parameter_std,
        )
        with in_one_sentence(f"{field} {part_name(part)!r}"):
            made = part(plain, env._replace(masked=False))  # the mask is applied outside
    if not isinstance(made, Network):
        raise ValueError(
            f"{field} {part_name(part)!r} must make a pg.Network(init, apply), got "
            f"{described(made)}: pg.from_linen, pg.from_nnx and pg.from_equinox make one of a "
            "module, and pg.Network(init, apply) is one of two functions"
        )
    if made.masked:
        raise ValueError(
            f"{field} {part_name(part)!r} sees the observation alone, and action masks are applied "
            "around it: leave out pg.networks.masked"
        )
    if made.draw_carry is not None:
        check_drawn_parameters(config, f"{field} {part_name(part)!r}")
    if made.recurrent and config.minibatch_size is not None:
        raise ValueError(
            f"minibatch_size={config.minibatch_size} shuffles steps, and {field} "
            f"{part_name(part)!r} is recurrent, and learned from whole sequences: give "
            "num_minibatches"
        )
    if made.recurrent and field == "policy" and config.optimizer in ("natural", "trpo"):
        raise ValueError(
            f"optimizer={config.optimizer!r} needs a policy without a recurrent state, and "
            f"{part_name(part)!r} is recurrent"
        )
    return made


def _as_configured(network: Network, config: Config, env: Env) -> Network:
    """A custom network on observations that are scaled according to the settings.

    An initialiser that calls LAPACK's QR is mapped sequentially over vmapped runs: on the CPU a
    batched QR can deadlock.
    """
    scaled = scaling(config, env)

    def apply(
        params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        return network.apply(params, carry, scaled(as_float(obs)), first)

    init = network.init
    if takes_qr(init):
        init = jax.custom_batching.sequential_vmap(init)
    return network._replace(
        init=init,
        apply=apply,
        expects_standardised=config.normalise_observations,
        has_fixed_sums=False,
    )


def _check_params(params: Any) -> None:
    """Raises ValueError for a TrainState or Params instead of the parameters of one network."""
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


def parameter_check(init: Callable[[PRNGKeyArray], PyTree]) -> Callable[[PyTree], None]:
    """A function of parameters that raises ValueError unless they have the names and shapes that
    `init` makes; `init` is traced once, at the first call.
    """

    @functools.cache
    def expected() -> dict[str, tuple[int, ...]]:
        # the key is made inside, so that it is not staged into the caller's program
        return _shapes_by_name(jax.eval_shape(lambda: init(jax.random.key(0))))

    return lambda params: _check_shapes(expected(), params)


def _shapes_by_name(params: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a tree, by its path."""
    paths = jax.tree.leaves_with_path(params)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in paths}


def _check_shapes(expected: Mapping[str, tuple[int, ...]], params: PyTree) -> None:
    """Raises ValueError, naming the array, for the parameters of another network.

    Names are compared as well as shapes, since flax ignores superfluous parameters.
    """
    got = _shapes_by_name(params)
    if got == expected:
        return
    misfit = "params do not fit this network"
    remedy = "were they of another Config?"
    for name in expected:
        if name not in got:
            raise ValueError(f"{misfit}: {name}, of shape {expected[name]}, is missing; {remedy}")
    for name in got:
        if name not in expected:
            raise ValueError(f"{misfit}, which has no {name}; {remedy}")
    if all(len(got[name]) > 0 and got[name][1:] == shape for name, shape in expected.items()):
        runs = next(iter(got.values()))[0]
        raise ValueError(
            f"params are those of {numerals.counted(runs, 'run')}: take one of them, "
            "jax.tree.map(lambda x: x[0], params), or use jax.vmap"
        )
    name = next(name for name, shape in expected.items() if got[name] != shape)
    raise ValueError(
        f"{misfit}: {name} must have shape {expected[name]}, got {got[name]}; {remedy}"
    )


def _check_obs_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises ValueError unless an observation's last axes are those of the environment's."""
    if expected and got[-len(expected) :] != expected:
        raise ValueError(
            f"obs must have the shape of the environment's, {list(expected)}, after any other "
            f"axes, got shape {list(got)}"
        )


def _on_the_policys_layers(critic: Network) -> Network:
    """The critic on the torso and recurrent cell in the policy's params; its own params are only
    those of the head.
    """

    def init(key: PRNGKeyArray) -> PyTree:
        return {"params": {"head": critic.init(key)["params"]["head"]}}

    def apply(
        params: Any, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Float[Array, "..."]]:
        layers = params.policy["params"] | params.critic["params"]
        return critic.apply({"params": layers}, carry, obs, first)

    return critic._replace(init=init, apply=apply, expects_standardised=False, shared=True)


def _of_the_critic(config: Config) -> Config:
    """The settings with the critic's hidden widths."""
    widths = config.critic_hidden_sizes
    if widths is None:
        return config
    return dataclasses.replace(config, hidden_sizes=widths, critic_hidden_sizes=None)


def _torso(config: Config, env: Env) -> nn.Module:
    """A CNN for images, else an MLP, according to the settings; features of several arrays are
    combined.
    """
    if is_shape(env.obs_shape):
        return _torso_of_array(config, env, config.hidden_sizes)
    leaves = env.of_leaves()
    has_images = any(len(leaf.obs_shape) == 3 for leaf in leaves)
    parts = [
        _torso_of_array(config, leaf, ())
        if len(leaf.obs_shape) == 3 or not has_images
        else MLP(len(leaf.obs_shape), (), _hidden(config))
        for leaf in leaves
    ]
    return Together(tuple(parts), MLP(1, config.hidden_sizes, _hidden(config)))


def _hidden(config: Config) -> Hidden:
    """The kind of the hidden layers, according to the settings."""
    return Hidden(
        ACTIVATIONS[config.activation], config.initialiser, config.layer_norm, config.residual
    )


def _torso_of_array(config: Config, env: Env, sizes: tuple[int, ...]) -> nn.Module:
    """The torso of one array, with dense hidden layers of these sizes."""
    if not is_convolved(config, env):
        check_network(config, math.prod(env.obs_shape) * max(env.obs_kinds or 0, 1))
        return MLP(len(env.obs_shape), sizes, _hidden(config))
    layout = image_layout(config, env)
    if layout == "chw" and config.image_layout == "auto":
        warnings.warn(
            f"observations of shape {env.obs_shape} are taken as [channels, height, width]: write "
            "image_layout='hwc' if they are [height, width, channels], or 'chw' to leave out this "
            "warning",
            stacklevel=2,
        )
    height_and_width = env.obs_shape[:2] if layout == "hwc" else env.obs_shape[1:]
    if min(height_and_width) < 3 and not config.conv:
        raise ValueError(
            f"network='cnn' needs images of at least 3 × 3, got shape {env.obs_shape}: use 'mlp'"
        )
    check_network(config, math.prod(convolved(config.conv, *height_and_width)))
    return CNN(
        sizes,
        _hidden(config),
        channels_first=layout == "chw",
        convolutions=convolutions(config.conv),
    )


def _unbounded(box: Box) -> bool:
    """True if a bound is known to be infinite; traced bounds are not checked."""
    return any(not isinstance(x, jax.core.Tracer) and not np.isfinite(x).all() for x in box)
