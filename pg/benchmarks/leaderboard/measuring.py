"""Independent estimates of ∇J by an estimator, of a policy that stands still; and a reference to
hold them against.

All estimators are given the same keys, and so the same episodes: what differs between them is not
their luck.
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
from pg.benchmarks.leaderboard.subjects import GAMMA, SUBJECTS, Stage, parts, still
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import Network
from pg.normalisation import Normaliser


class Estimates(NamedTuple):
    """K independent estimates by one estimator, on the host."""

    gradients: np.ndarray  # [K, P], of ascent
    num_episodes: int  # N of each
    steps: float  # environment steps of each, on average
    seconds: float  # of each, the rollout included, where many are made at once


class Reference(NamedTuple):
    """The reference of estimates: ∇J, or an estimate of it from many other episodes."""

    gradient: np.ndarray  # [P]
    # expected, of the reference itself to ∇J; 1 where it is exact, 0 where noise hides it
    cosine: float


def measure(
    name: str, stage: Stage, estimator: str, seed: int, *, num_episodes: int = 8, share: float = 1.0
) -> Estimates:
    """Estimates of a subject's ∇J at a stage. name: of SUBJECTS; share: of its number of estimates.

    Raises ValueError for an estimator that cannot be: Q of continuous actions.
    """
    subject = SUBJECTS[name]
    each = min(subject.at_once, max(1, round(share * subject.num_estimates)))
    calls = max(1, round(share * subject.num_estimates / each))
    group_size = 2 if FACTS[estimator].baseline == "group" else 1
    config = still(subject.settings(name)[0], estimator, num_episodes, group_size)
    program, state = _estimates(config, each)
    params = Params(stage.policy, critic_of(stage, estimator))
    first_key, key = jax.random.split(jax.random.key(seed))
    # Not measured: it compiles, and is the past of an estimator that remembers the batches before.
    _, _, state = jax.block_until_ready(program(params, stage.normaliser, state, first_key))
    rows, steps, seconds = [], 0, []
    for call_key in jax.random.split(key, calls):
        began = time.perf_counter()
        gradients, taken, _ = jax.block_until_ready(
            program(params, stage.normaliser, state, call_key)
        )
        seconds.append(time.perf_counter() - began)
        rows.append(np.asarray(gradients))
        steps += int(taken)
    count = each * calls
    return Estimates(
        np.concatenate(rows), num_episodes, steps / count, float(np.median(seconds)) / each
    )


def critic_of(stage: Stage, estimator: str) -> Any:
    """The parameters of the critic that an estimator takes; () for none."""
    kind = FACTS[estimator].critic
    if kind == "none":
        return ()
    if kind not in stage.critics:
        raise ValueError(
            f"estimator={estimator!r} sums over the actions, and so needs discrete ones"
        )
    return stage.critics[kind]


def reference(name: str, stage: Stage, seed: int, *, share: float = 8.0) -> Reference:
    """∇J itself where it is known, else the mean of many unbiased estimates, those of
    `time_baseline`.

    share: of the subject's number of estimates. seed: another than that of the estimates to be
    compared.
    """
    config = still(SUBJECTS[name].settings(name)[0], "time_baseline", 2)
    if isinstance(config.env, TabularMDP):
        return Reference(_exact(config, config.env, stage), 1.0)
    found = measure(name, stage, "time_baseline", seed, share=share).gradients
    scale = diagnostics.noise_scale(diagnostics.sample(lambda x: x, jnp.asarray(found))).value
    return Reference(
        found.mean(axis=0),
        float(diagnostics.expected_cosine(scale, len(found))) if scale > 0 else 0.0,
    )


def _exact(config: Config, mdp: TabularMDP, stage: Stage) -> np.ndarray:
    """∇J of the policy's parameters, by dynamic programming, [P]."""
    policy = parts(config, stage.normaliser, 1)[1]

    def expected_return(params: Any) -> jax.Array:
        return tabular.exact_return(mdp, tabular.table(mdp, policy, params), GAMMA)

    return np.asarray(ravel_pytree(jax.jit(jax.grad(expected_return))(stage.policy))[0])


@functools.cache  # one compilation for all stages of a subject
def _estimates(
    config: Config, count: int
) -> tuple[Callable[..., tuple[jax.Array, jax.Array, Any]], Any]:
    """params, normaliser, state, key -> gradients [count, P], environment steps, the estimator's
    state after them; and its state before the first.
    """

    def built(normaliser: Normaliser) -> tuple[Any, Network, Network, Estimator]:
        env, policy, critic = parts(config, normaliser, count * config.num_envs)
        return (
            env,
            policy,
            critic,
            ESTIMATORS[config.estimator](policy, critic, Hyperparams(gamma=GAMMA)),
        )

    def estimates(params: Params, normaliser: Normaliser, state: Any, key: jax.Array) -> Any:
        env, policy, critic, est = built(normaliser)
        actor = networks.actor(policy, critic)
        traj = rollout.episodes(
            env, actor, params, key, config.horizon, group_size=config.group_size
        )
        batches = diagnostics.of_batches(est, params, state, traj, config.num_envs)
        size = diagnostics.at_once(traj, config.num_envs)
        flat = jax.vmap(lambda g: ravel_pytree(g)[0])(
            diagnostics.gradients(*batches, batch_size=size)
        )
        return flat, config.action_repeat * jnp.sum(traj.valid), est.weigh(params, state, traj)[1]

    none = Normaliser((), (), ())
    return jax.jit(estimates), jax.jit(lambda: built(none)[3].init(jax.random.key(0))[1])()
