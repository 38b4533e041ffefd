"""Independent estimates of ∇J by an estimator, for a frozen policy; and a reference to compare them
with.

All estimators get the same keys, and so the same episodes: differences between them are not due to
the draw of episodes.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pg import diagnostics, networks, rollout
from pg.benchmarks.combinations import Combination, combination_of
from pg.benchmarks.leaderboard.problems import (
    COLLECTION_FIELDS,
    GAMMA,
    HINDSIGHT_STEPS,
    Problem,
    Snapshot,
    frozen_config,
    make_components,
    problem_of,
    snapshot_shapes,
)
from pg.config import WITH_TIME, Config, Hyperparams, part_name
from pg.diagnostics import references
from pg.estimators import Estimator, Params
from pg.estimators.checks import factory_of
from pg.estimators.names import facts_of
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import Network
from pg.normalisation import Normaliser

WHICH_CRITICS = (
    "Q is for a single action, by sinusoids or a network if it is continuous; a custom critic "
    f"is of one kind; h is for discrete actions and episodes of at most {HINDSIGHT_STEPS} "
    "steps; and only V and the usual Q are fitted with the time"
)
# what is added to the name of a Q by `action_critic`
OF_ACTION_CRITIC = {"quadratic": "", "sinusoids": " of sinusoids", "network": " network"}


class GradientEstimates(NamedTuple):
    """K independent estimates by one estimator, on the host."""

    gradients: np.ndarray  # [K, P], of ascent
    num_episodes: int  # N of each
    steps: float  # environment steps of each, on average
    # processor seconds for each, including the rollout, when many are made at once; on accelerators
    # wall time
    seconds: float


class Reference(NamedTuple):
    """The reference of estimates: ∇J, or an estimate of it from many other episodes."""

    gradient: np.ndarray  # [P]
    # expected cosine of the reference itself to ∇J; 1 if it is exact, 0 if noise hides it
    cosine: float


def estimate_gradients(
    problem: str | Problem,
    snapshot: Snapshot,
    estimator: Any,
    seed: int,
    *,
    num_episodes: int = 8,
    share: float = 1.0,
) -> GradientEstimates:
    """Independent estimates of ∇J at a snapshot of a policy.

    Args:
        problem: a name, of PROBLEMS, or the problem itself.
        snapshot: of the problem's policy.
        estimator: its name, its function, or the name of a combination (`combinations`), whose
            settings apply to the episodes of one estimate; different estimates are independent.
        seed: of the episodes.
        num_episodes: of one estimate. If a combination has another number, the number
            of estimates changes so that they take equally many episodes.
        share: of the problem's number of estimates.

    Raises:
        ValueError: the estimator sums over actions, and they are continuous; or it is custom,
            and returns a wrong result; or noise cannot be sampled like this for it.
    """
    spec, combination = problem_of(problem), combination_of(estimator)
    own_episodes, batch_size, calls = amount(spec, combination, num_episodes, share)
    config = _config(spec, combination, own_episodes)
    program, initial, state = _estimates(config, batch_size)
    params = Params(snapshot.policy, critic_params(snapshot, combination, initial))
    first_key, key = jax.random.split(jax.random.key(seed))
    # Not measured: this call compiles, and provides the past for an estimator with a state.
    first = program(params, snapshot.normaliser, state, first_key)
    _, _, state = jax.block_until_ready(first)
    gradients, steps, seconds = [], 0, []
    for call_key in jax.random.split(key, calls):
        start = _clock()
        batch = program(params, snapshot.normaliser, state, call_key)
        batch_gradients, batch_steps, _ = jax.block_until_ready(batch)
        seconds.append(_clock() - start)
        gradients.append(np.asarray(batch_gradients))
        steps += int(batch_steps)
    return GradientEstimates(
        gradients=np.concatenate(gradients),
        num_episodes=own_episodes,
        steps=steps / (batch_size * calls),
        seconds=float(np.median(seconds)) / batch_size,
    )


def amount(
    problem: Problem, combination: Combination, num_episodes: int, share: float
) -> tuple[int, int, int]:
    """The episodes of one estimate, the estimates of one call, and the calls. Arguments as in
    `estimate_gradients`.
    """
    own_episodes = combination.settings.get("num_episodes", num_episodes)
    share = share * num_episodes / own_episodes
    batch_size = _batch_size(problem, share, own_episodes / num_episodes)
    return own_episodes, batch_size, max(1, round(share * problem.num_estimates / batch_size))


def check_estimator(
    problem: str | Problem, estimator: Any, *, num_episodes: int = 8, share: float = 1.0
) -> None:
    """Raises ValueError, without running anything, where `estimate_gradients` would; its program is
    traced. The same arguments.
    """
    spec, shapes = problem_of(problem), snapshot_shapes(problem)
    combination = combination_of(estimator)
    config = _config(spec, combination, combination.settings.get("num_episodes", num_episodes))
    program, initial, state = _estimates(config, _batch_size(spec, share))
    params = Params(shapes.policy, critic_params(shapes, combination, initial))
    jax.eval_shape(program, params, shapes.normaliser, state, jax.random.key(0))


def _clock() -> float:
    """Processor seconds, which other work on the machine does not affect; wall time on an
    accelerator.
    """
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


def _batch_size(problem: Problem, share: float, longer: float = 1.0) -> int:
    """The number of estimates of one call, for a share of all estimates.

    Args:
        problem: of the policy.
        share: of the problem's number of estimates.
        longer: the ratio of an estimate's episodes to the usual number.
    """
    most = max(1, round(problem.batch_size / longer))
    return min(most, max(1, round(share * problem.num_estimates)))


def _config(problem: Problem, combination: Combination, num_episodes: int) -> Config:
    """The settings under which an estimator is measured: those of its preset for collecting
    episodes, those of the problem for branches, and its own.

    Args:
        problem: of the policy.
        combination: the estimator with its settings.
        num_episodes: of one estimate.
    """
    facts = combination.facts
    collection = {k: v for k, v in facts.settings.items() if k in COLLECTION_FIELDS}
    if facts.extra_rollout_kind == "branches":
        collection |= problem.branching
    collection |= {k: v for k, v in combination.settings.items() if k != "num_episodes"}
    if facts.baseline == "group":
        collection["group_size"] = 2
    of_critic = {} if facts.critic == "none" else problem.critic_settings
    config = problem.settings()[0]
    return frozen_config(config, combination.estimator, num_episodes, **collection, **of_critic)


def critic_params(snapshot: Snapshot, combination: Combination, initial: Params) -> Any:
    """The parameters of the critic that an estimator uses; () for none.

    Args:
        snapshot: with the critics that were fitted to its policy.
        combination: the estimator with its settings.
        initial: the shapes of the parameters that the estimator starts from.

    Raises:
        ValueError: there is no such critic.
    """
    if not jax.tree.leaves(initial.critic):
        return initial.critic
    estimator, kind = combination.estimator, critic_kind(combination)
    if kind not in snapshot.critics:
        raise ValueError(
            f"estimator={part_name(estimator)!r} takes a critic {kind}, and there is none: "
            f"{WHICH_CRITICS}"
        )
    fitted: Any = jax.tree.structure(snapshot.critics[kind])
    if fitted != jax.tree.structure(initial.critic):
        raise ValueError(
            f"estimator {part_name(estimator)!r} has its own critic, but it is measured "
            f"with a given critic {kind}"
        )
    return snapshot.critics[kind]


def critic_kind(combination: Combination) -> str:
    """The name, in CRITIC_KINDS, of the critic that an estimator uses under its settings; "none"
    for none.
    """
    facts = combination.facts
    if facts.critic == "none":
        return "none"
    if facts.critic == "hindsight":
        return f"h of {facts.outcome}s"
    kind = "Q" if facts.critic == "Q" else "V"
    kind += OF_ACTION_CRITIC[combination.settings.get("action_critic", "quadratic")]
    sees_time = combination.settings.get("critic_observe") == WITH_TIME
    return f"{kind} with time" if sees_time else kind


def reference_gradient(
    problem: str | Problem, snapshot: Snapshot, seed: int, *, share: float = 8.0
) -> Reference:
    """∇J itself if it is known, else the mean of many unbiased estimates, of `time_baseline`.

    Args:
        problem: a name, of PROBLEMS, or the problem itself.
        snapshot: of the problem's policy.
        seed: of the episodes, different from that of the compared estimates.
        share: of the problem's number of estimates.
    """
    config = frozen_config(problem_of(problem).settings()[0], "time_baseline", 2)
    _, policy, _ = make_components(config, snapshot.normaliser, 1)
    if isinstance(config.env, TabularMDP) and not policy.recurrent:  # else it is not a table
        return Reference(_exact_gradient(policy, config.env, snapshot), 1.0)
    estimates = estimate_gradients(problem, snapshot, "time_baseline", seed, share=share)
    gradients = estimates.gradients
    scale = diagnostics.noise_scale(diagnostics.sample(lambda x: x, jnp.asarray(gradients))).value
    cosine = float(diagnostics.expected_cosine(scale, len(gradients))) if scale > 0 else 0.0
    return Reference(gradients.mean(axis=0), cosine)


def _exact_gradient(policy: Network, mdp: TabularMDP, snapshot: Snapshot) -> np.ndarray:
    """∇J of the policy's parameters, by dynamic programming, [P]."""

    def expected_return(params: Any) -> jax.Array:
        return tabular.exact_return(mdp, tabular.table(mdp, policy, params), GAMMA)

    gradient = jax.jit(jax.grad(expected_return))(snapshot.policy)
    return np.asarray(ravel_pytree(gradient)[0])


# One compilation for all snapshots of a problem; the programs of hundreds of estimators would be
# more than a process may map into memory.
@functools.lru_cache(maxsize=2)
def _estimates(
    config: Config, count: int
) -> tuple[Callable[..., tuple[jax.Array, jax.Array, Any]], Params, Any]:
    """A function that makes estimates, and the estimator's initial parameters, by their shapes, and
    state.

    It maps params, normaliser, state and key to gradients [count, P], environment steps and the
    estimator's state after them.
    """

    def components(normaliser: Normaliser) -> tuple[Any, Network, Network, Estimator]:
        env, policy, critic = make_components(config, normaliser, count * config.num_envs)
        estimator = factory_of(config.estimator)(policy, critic, _hyperparams(config.estimator))
        if "episodes" not in estimator.accepts:
            raise ValueError(
                f"estimator {part_name(config.estimator)!r} is for windows, and complete episodes "
                "are measured"
            )
        return env, policy, critic, estimator

    def estimates(params: Params, normaliser: Normaliser, state: Any, key: jax.Array) -> Any:
        env, policy, critic, estimator = components(normaliser)
        actor = networks.actor(policy, critic)
        traj = rollout.episodes(
            env,
            actor,
            params,
            key,
            config.horizon,
            group_size=config.group_size,
            extra_rollouts=estimator.extra_rollouts,
            num_branches=config.num_branches,
            sampling=config.sampling,
            sample_env=config.sample_env,
            num_episodes=config.num_envs,
            branch_every=config.branch_every,
        )
        gradient, batches = diagnostics.of_batches(estimator, params, state, traj, config.num_envs)
        size = diagnostics.at_once(traj, config.num_envs)
        trees = diagnostics.gradients(gradient, batches, batch_size=size)
        flat = jax.vmap(lambda g: ravel_pytree(g)[0])(trees)
        steps = jnp.sum(traj.all_env_steps)
        return flat, steps, estimator.weigh(params, state, traj)[1]

    def initial() -> tuple[Params, Any]:
        estimator = components(Normaliser((), (), ()))[3]
        initial_params, state = estimator.init(jax.random.key(0))
        return initial_params, state

    def initial_state() -> Any:
        return initial()[1]

    return jax.jit(estimates), jax.eval_shape(initial)[0], jax.jit(initial_state)()


def _hyperparams(estimator: Any) -> Hyperparams:
    """The hyperparameters of an estimator: the defaults, and the settings in a custom one's
    facts.
    """
    facts = facts_of(estimator)
    return Hyperparams(gamma=GAMMA) if facts.module else references.hyperparams(facts, GAMMA)
