"""The problems: snapshots of policies in training, each with critics fitted to the frozen policy.

The quality of a critic from training would depend on its estimator. To compare estimators and not
their critics' histories, all get the same V and the same Q: V regressed on complete returns of this
policy, Q on returns without the noise of the later actions, the target of
trajectory_control_variate; and each of them again with the time in its input. For continuous
actions there are also a Q of sinusoids and a Q network; for short episodes and discrete actions
hindsight distributions, given the later state and given the later reward.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pg import diagnostics, envs, networks, normalisation, rollout
from pg.config import WITH_TIME, Config, Hyperparams, merge_env_params
from pg.envs import Box, Discrete, views
from pg.envs.observations import zeros_of
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted
from pg.estimators.checks import factory_of
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.inputs import check_name
from pg.layers import ActionFunction
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.parts import with_parts
from pg.presets import preset
from pg.settings.parts import check_part, part_name
from pg.train import make_chunk, make_learner, training_keys

SNAPSHOTS = {"start": 0.0, "middle": 0.5, "end": 1.0}  # share of the training
GAMMA = 0.99
# Fields of Config on the collection of a batch of complete episodes.
COLLECTION_FIELDS = (
    "group_size",
    "sampling",
    "sample_env",
    "num_branches",
    "branch_every",
    "critic_observe",
)
# Fields of Config on the training of a policy, not on its structure.
TRAINING_FIELDS = (
    "estimator",
    "collect",
    "num_envs",
    "num_updates",
    "num_steps",
    "num_epochs",
    "num_minibatches",
    "minibatch_size",
    *COLLECTION_FIELDS,
)


class CriticKind(NamedTuple):
    """A kind of critic: the estimator that regresses it, and its view."""

    estimator: str  # which regresses it
    settings: Mapping[str, Any] = MappingProxyType({})  # fields of Config that say what it is


CRITIC_KINDS = {
    "V": CriticKind("state_value"),
    "Q": CriticKind("trajectory_control_variate"),
    "V with time": CriticKind("state_value", {"critic_observe": (WITH_TIME,)}),
    "Q with time": CriticKind("trajectory_control_variate", {"critic_observe": (WITH_TIME,)}),
    "Q of sinusoids": CriticKind("trajectory_control_variate", {"action_critic": "sinusoids"}),
    "Q network": CriticKind("trajectory_control_variate", {"action_critic": "network"}),
    "h of states": CriticKind("hindsight_credit"),
    "h of rewards": CriticKind("counterfactual_contributions"),
}
HINDSIGHT = ("state", "reward")  # `Network.outcome` of a hindsight distribution
HINDSIGHT_STEPS = 50  # largest episode for h, which costs a pass over the batch for each step


class Problem(NamedTuple):
    """An environment's settings: the training of its policy, and the sample sizes."""

    name: str
    env: Any  # its name, or an environment object
    label: str  # of the preset that trains it
    changes: dict[str, Any]  # of the preset
    num_estimates: int  # K, of each estimator at each snapshot
    batch_size: int  # estimates of one call
    fit_batches: int  # that a critic is fitted to
    fit_episodes: int  # of each
    # custom `policy`, `critic` and `optimizer`
    parts: Mapping[str, Any] = MappingProxyType({})
    # of extra episodes from visited states, of which long episodes have many
    branching: Mapping[str, int] = MappingProxyType({})
    critic_widths: tuple[int, ...] | None = (
        None  # widths of its hidden layers; none: as the policy's
    )

    @property
    def critic_settings(self) -> dict[str, Any]:
        """The fields of Config that define its critics; {} for a custom critic."""
        has_widths = self.critic_widths is not None and "critic" not in self.parts
        return {"critic_hidden_sizes": self.critic_widths} if has_widths else {}

    def settings(self) -> tuple[Config, Hyperparams]:
        """The settings of the training."""
        settings = preset(self.label, env=self.env, **self.changes)
        config, hyperparams = merge_env_params(*settings)
        return with_parts(config, **self.parts), hyperparams


class Snapshot(NamedTuple):
    """A policy during its training, with its critics."""

    name: str
    updates: int  # done
    policy: Any  # parameters
    critics: dict[str, Any]  # parameters of each of the problem's CRITIC_KINDS
    # explained variance of each critic, on fresh episodes; for h the share of the actions' entropy
    # given the state that the outcome explains
    explained: dict[str, float]
    normaliser: Normaliser


_MDPS: dict[str, TabularMDP] = {
    "gridworld": tabular.gridworld(["S..#", ".#..", "...G", "H..#"], horizon=20, slip=0.1),
    "garnet": tabular.garnet(3, num_states=6, num_actions=3, branching=3, horizon=10),
}
_TABULAR: dict[str, Any] = {
    "hidden_sizes": (),
    "num_envs": 32,
    "num_updates": 100,
    "learning_rate": 0.02,
}
# A tabular policy needs no hidden layer. A critic that sees the time does: the value is not a sum
# of one part for the state and one for the time.
_CRITIC_WIDTHS = (64, 64)

_SPARSE = MappingProxyType({"num_branches": 1, "branch_every": 16})

# Training ends while the policy still improves: an optimal one has no gradient left to compare
# with.
_LISTED = (
    *(
        Problem(
            name,
            mdp,
            "leave_one_out",
            _TABULAR,
            512,
            512,
            200,
            512,
            critic_widths=_CRITIC_WIDTHS,
        )
        for name, mdp in _MDPS.items()
    ),
    Problem(
        "Catch-bsuite", "Catch-bsuite", "leave_one_out", {"num_updates": 200}, 512, 512, 100, 512
    ),
    *(
        Problem(env, env, label, {"num_updates": updates}, 256, 32, 100, 64, branching=_SPARSE)
        for env, label, updates in (
            ("CartPole-v1", "state_value", 30),
            ("Acrobot-v1", "ppo", 200),
            ("Pendulum-v1", "ppo", 240),
        )
    ),
    Problem(
        "Breakout-MinAtar",
        "Breakout-MinAtar",
        "ppo",
        {"num_updates": 60, "network": "cnn", "hidden_sizes": (128,)},
        64,
        8,
        30,
        32,
        branching=_SPARSE,
    ),
)
PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in _LISTED}


def problem_of(problem: Any, parts: Mapping[str, Any] = MappingProxyType({})) -> Problem:
    """The problem of a name, or of a custom environment, which leave_one_out trains.

    Args:
        problem: a name, of PROBLEMS, an environment object, or a Problem.
        parts: custom `policy`, `critic` and `optimizer`, which train it.

    Raises:
        ValueError: there is no such problem, or the object is not an environment.
    """
    if isinstance(problem, str):
        check_name("problem", problem, PROBLEMS)
        problem = PROBLEMS[problem]
    elif not isinstance(problem, Problem):
        check_part("env", problem)
        like = PROBLEMS["garnet" if isinstance(problem, TabularMDP) else "CartPole-v1"]
        name, changes = part_name(problem), _TABULAR if isinstance(problem, TabularMDP) else {}
        problem = like._replace(name=name, env=problem, label="leave_one_out", changes=changes)
    return problem._replace(parts=parts) if parts else problem


def train_snapshots(problem: str | Problem, seed: int) -> list[Snapshot]:
    """Trains the policy of a problem, and returns it at each of SNAPSHOTS with fitted critics.

    Args:
        problem: a name, of PROBLEMS, or the problem itself.
        seed: of the training and of the fits.

    Raises:
        ValueError: the training meets a number that is not finite.
    """
    problem = problem_of(problem)
    config, h = problem.settings()
    key, fit_key = jax.random.split(jax.random.key(seed))
    init_key, keys = training_keys(key, 0, config.num_updates)
    state = jax.jit(make_learner(config, h).init)(init_key)
    chunk = jax.jit(make_chunk(config))
    chunk_size = -(-config.num_updates // 2)  # one compilation for both halves
    fits = {}
    for kind in critic_kinds(config):
        fit_config = critic_config(config, kind, problem.fit_episodes, **problem.critic_settings)
        if FACTS[CRITIC_KINDS[kind].estimator].critic == "hindsight":
            # each of its gradients costs one per step of an episode
            fits[kind] = _make_fit(fit_config, max(1, problem.fit_batches // 4), passes=1)
        else:
            fits[kind] = _make_fit(fit_config, problem.fit_batches)
    snapshots, done = [], 0
    for snapshot, share in SNAPSHOTS.items():
        wanted = round(share * config.num_updates)
        if wanted > done:
            chunk_keys = jnp.resize(keys[done:wanted], (chunk_size,))
            state, _ = chunk(state, chunk_keys, h, jnp.int32(wanted - done))
            done = wanted
        if int(state.skipped):
            raise ValueError(
                f"the training of the policy of {problem.name} diverged within {done} updates, and "
                "there is nothing to measure: give it a smaller learning_rate"
            )
        critics, explained = {}, {}
        for kind, fit in fits.items():
            critic, explained_share = fit(state.params.policy, state.normaliser, fit_key)
            critics[kind], explained[kind] = critic, float(explained_share)
        snapshots.append(
            Snapshot(snapshot, done, state.params.policy, critics, explained, state.normaliser)
        )
    return snapshots


def snapshot_shapes(problem: str | Problem) -> Snapshot:
    """A snapshot of a problem with shapes for arrays.

    Raises ValueError if a custom part does not fit the others.
    """
    problem = problem_of(problem)
    config, h = problem.settings()
    state = jax.eval_shape(make_learner(config, h).init, jax.random.key(0))

    def critic_shapes(kind: str) -> Any:
        fit_config = critic_config(config, kind, 1, **problem.critic_settings)
        _, policy, critic = make_components(fit_config, Normaliser((), (), ()), 1)
        estimator = ESTIMATORS[CRITIC_KINDS[kind].estimator](policy, critic, Hyperparams())
        return jax.eval_shape(estimator.init, jax.random.key(0))[0].critic

    critics = {kind: critic_shapes(kind) for kind in critic_kinds(config)}
    return Snapshot("", 0, state.params.policy, critics, {}, state.normaliser)


def frozen_config(config: Config, estimator: Any, num_envs: int, **changes: Any) -> Config:
    """The settings with which an estimator uses complete episodes of a frozen policy.

    Args:
        config: the settings of the policy's training; the problem and the networks stay.
        estimator: its name, or its function.
        num_envs: episodes of a batch.
        changes: values of COLLECTION_FIELDS that differ from their defaults, and of fields of the
            critic.
    """
    fields = [field.name for field in dataclasses.fields(Config)]
    settings = {name: getattr(config, name) for name in fields if name not in TRAINING_FIELDS}
    settings |= {
        "estimator": estimator,
        "collect": "episodes",
        "num_envs": num_envs,
        "diagnostics": False,
        "scale_rewards": False,
        "advantages": "raw",
        "optimizer": "adam",
        "preset": None,
    }
    return Config(**(settings | changes))


def critic_config(config: Config, kind: str, num_envs: int, **changes: Any) -> Config:
    """The settings under which a critic of one of CRITIC_KINDS is fitted. Other arguments as in
    `frozen_config`.
    """
    of_kind = CRITIC_KINDS[kind]
    return frozen_config(config, of_kind.estimator, num_envs, **of_kind.settings, **changes)


def critic_kinds(config: Config) -> list[str]:
    """The names, in CRITIC_KINDS, of the critics that a problem can have: Q for one Discrete
    action, or for one Box whose policy gives mean and variance; h for one Discrete action and short
    episodes; and a custom critic is of one kind.

    Raises ValueError if a custom critic is of neither.
    """
    env = envs.configured(config, 1)
    is_discrete = isinstance(env.action_space, Discrete)
    is_box = isinstance(env.action_space, Box)
    has_q = is_discrete or (is_box and _says_moments(networks.make_policy(config, env), env))
    is_short = env.horizon(config.horizon) <= HINDSIGHT_STEPS

    def is_possible(kind: CriticKind) -> bool:
        critic = FACTS[kind.estimator].critic
        if critic == "hindsight":
            return is_discrete and is_short
        if critic == "Q":
            return has_q and (is_box or "action_critic" not in kind.settings)
        return True

    kinds = [name for name, kind in CRITIC_KINDS.items() if is_possible(kind)]
    if config.critic is None:
        return kinds
    fitting, mistakes = [], []
    for kind in kinds:
        try:
            fit_config = critic_config(config, kind, 1)
            networks.make_critic(fit_config, envs.configured(fit_config, 1))
        except ValueError as error:
            mistakes.append(error)
        else:
            fitting.append(kind)
    if not fitting:
        raise mistakes[0]
    return fitting


def kind_of_actions(config: Config) -> str:
    """The kind of an environment's actions: discrete, continuous, or mixed if there are several
    parts.
    """
    space = envs.configured(config, 1).action_space
    kinds: dict[type, str] = {Discrete: "discrete", Box: "continuous"}
    return kinds.get(type(space), "mixed")


def _says_moments(policy: Network, env: envs.Env) -> bool:
    """True for a policy of continuous actions whose distribution has a method `moments`."""
    found = []

    def trace(key: jax.Array) -> None:
        obs = zeros_of(env.obs_shape, (1,))
        carry = networks.start(policy, 1)
        dist = policy.apply(policy.init(key), carry, obs, jnp.ones(1, bool))[1]
        found.append(hasattr(dist, "moments"))

    jax.eval_shape(trace, jax.random.key(0))
    return found[0]


def make_components(
    config: Config, normaliser: Normaliser, num_envs: int
) -> tuple[envs.Env, Network, Network]:
    """The environment, the policy and the critic of a Config.

    Args:
        config: the settings.
        normaliser: running statistics of the policy's observations, with which both networks
            standardise them; the time is unchanged.
        num_envs: number of vmapped environments.
    """
    env = envs.configured(config, num_envs)
    if env.views.timed and jax.tree.leaves(normaliser.obs):
        time = normalisation.Moments.start(env.obs_shape[views.TIME])
        normaliser = normaliser._replace(obs={views.POLICY: normaliser.obs, views.TIME: time})
    policy = normalisation.with_standardised_observations(
        networks.make_policy(config, env), normaliser
    )
    critic = normalisation.with_standardised_observations(
        networks.make_critic(config, env), normaliser
    )
    return env, policy, critic if critic.outcome in HINDSIGHT else _scaled(critic)


def _scaled(critic: Network) -> Network:
    """The critic with scale and shift of its output, as small weights cannot reach returns of
    -1000.
    """

    def init(key: jax.Array) -> dict[str, Any]:
        return {"network": critic.init(key), "scale": jnp.ones(()), "shift": jnp.zeros(())}

    def apply(
        params: Any, carry: Any, obs: jax.Array, first: jax.Array
    ) -> tuple[Any, jax.Array | ActionFunction]:
        scale, shift = jax.lax.stop_gradient((params["scale"], params["shift"]))
        carry, output = critic.apply(params["network"], carry, obs, first)
        if isinstance(output, ActionFunction):
            return carry, output.affine(scale, shift)
        return carry, shift + scale * output

    return critic._replace(init=init, apply=apply)


def _make_fit(
    config: Config, num_batches: int, passes: int = 5, parts: int = 4
) -> Callable[..., tuple[Any, jax.Array]]:
    """A function that fits a critic by Adam to its estimator's target on complete episodes.

    It maps a policy, a normaliser and a key to the critic's parameters and the explained share of
    the variance of fresh returns, or of the actions' entropy, [].

    Args:
        config: the settings, whose estimator has the critic.
        num_batches: fresh batches of episodes.
        passes: of Adam over each.
        parts: minibatches of a pass, fewer if they must divide the batch.
    """
    parts = math.gcd(parts, config.num_envs)
    opt = optax.adam(optax.cosine_decay_schedule(0.003, num_batches * passes * parts))

    def fit(policy_params: Any, normaliser: Normaliser, key: jax.Array) -> tuple[Any, jax.Array]:
        env, policy, critic = make_components(config, normaliser, config.num_envs)
        est = factory_of(config.estimator)(policy, critic, Hyperparams(gamma=GAMMA, value_coef=1.0))
        actor = networks.actor(policy, critic)
        init_key, new_key, key = jax.random.split(key, 3)
        start, state = est.init(init_key)

        def sampled(params: Params, key: jax.Array) -> Weighted:
            traj = rollout.episodes(
                env, actor, params, key, config.horizon, extra_rollouts=est.extra_rollouts
            )
            return est.weigh(params, state, traj)[0]

        def fit_batch(learned: Any, key: jax.Array) -> tuple[Any, None]:
            batch = sampled(Params(policy_params, learned[0]), key)
            rows = jnp.arange(config.num_envs).reshape(parts, -1)

            def step(i: jax.Array, learned: Any) -> Any:
                part = jax.tree.map(lambda x: x[:, rows[i % parts]], batch)
                grads = est.grad(Params(policy_params, learned[0]), part)[0].critic
                updates, opt_state = opt.update(grads, learned[1])
                return optax.apply_updates(learned[0], updates), opt_state

            return jax.lax.fori_loop(0, passes * parts, step, learned), None

        begin = start._replace(policy=policy_params)
        of_units = {}
        if critic.outcome not in HINDSIGHT:
            first = sampled(begin, init_key)
            of_units = {
                "scale": jnp.std(first.target, where=first.traj.valid) + 1e-6,
                "shift": jnp.mean(first.target, where=first.traj.valid),
            }
        initial = start.critic | of_units, opt.init(start.critic)
        (critic_params, _), _ = jax.lax.scan(fit_batch, initial, jax.random.split(key, num_batches))
        fitted = Params(policy_params, critic_params)
        return critic_params, _explained(est, begin, fitted, sampled(fitted, new_key))

    return jax.jit(fit)


def _explained(est: Estimator, begin: Params, params: Params, batch: Weighted) -> jax.Array:
    """1 - the critic's squared error over the variance of its targets, []; NaN if these are equal.
    For a hindsight distribution 1 - its cross-entropy over that of the policy.

    Args:
        est: The estimator of the critic.
        begin: Its parameters before the fit, with which a hindsight distribution equals the policy.
        params: Those after it.
        batch: Fresh episodes.
    """
    if isinstance(batch.target, tuple):
        unknown, left = (est.grad(x, batch)[1]["hindsight_loss"] for x in (begin, params))
        return 1.0 - left / unknown
    squared_error = 2.0 * est.grad(params, batch)[1]["value_loss"]
    return diagnostics.explained_share(squared_error, batch.target, batch.traj.valid)
