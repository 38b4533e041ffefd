"""Evaluation: a policy to the undiscounted returns of complete episodes from fresh resets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from pg import envs, networks, normalisation, rollout
from pg.config import Config, check_config, check_env_params
from pg.inputs import check_key, check_kind, count, shown
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.parts import with_parts
from pg.reports.statistics import standard_error
from pg.train import NetworkFactory


class Evaluation(NamedTuple):
    """One entry per episode, [N]."""

    returns: Float[Array, " N"]  # undiscounted
    lengths: Int[Array, " N"]  # environment steps

    def summary(self) -> dict[str, Any]:
        """mean, standard_error (of the mean over episodes; NaN for one episode), min, max,
        episodes.
        """
        return {
            "mean": self.returns.mean(-1),
            "standard_error": standard_error(self.returns),
            "min": self.returns.min(-1),
            "max": self.returns.max(-1),
            "episodes": self.returns.shape[-1],
        }


def evaluate(
    config: Config,
    params: PyTree,
    key: PRNGKeyArray,
    num_episodes: int = 100,
    *,
    greedy: bool = False,
    normaliser: Normaliser | None = None,
    env_params: Mapping[str, Any] | None = None,
    policy: Network | NetworkFactory | None = None,
) -> Evaluation:
    """Returns of `num_episodes` complete episodes, all vmapped.

    An episode ends at `config.horizon` or the environment's own time limit. A policy of
    `pg.load_policy` has its settings with it: `policy.evaluate(key)`.

    Args:
        config: the settings with which the policy was trained.
        params: of the policy (`state.params.policy`).
        key: a random key.
        num_episodes: episodes.
        greedy: greedy actions (`pg.rollout.greedy`) instead of sampled ones; the two are different
            quantities, so a figure should say which it is.
        normaliser: `state.normaliser`, for a policy trained with `normalise_observations`; its
            statistics stay as they are.
        env_params: `hyperparams.env_params`, if the policy was trained with any: without them the
            environment is that of `config`.
        policy: the policy, if it was trained with a custom one that `config` does not have.

    Raises:
        ValueError: an argument of another kind, or no normaliser for a policy that needs one.
    """
    for argument in (config, params):
        if callable(getattr(argument, "evaluate", None)):
            raise ValueError(
                "a policy of pg.load_policy has its settings and parameters with it: write "
                "policy.evaluate(key)"
            )
    check_config(config)
    config = with_parts(config, policy=policy)
    check_key(key)
    num_episodes = count("num_episodes", num_episodes)
    if normaliser is not None:
        check_kind("normaliser", normaliser, Normaliser, "write state.normaliser")
    check_env_params({} if env_params is None else env_params)
    if config.normalise_observations and normaliser is None:
        raise ValueError(
            "this policy sees standardised observations: evaluate(..., normaliser=state.normaliser)"
        )
    env = envs.configured(config, num_episodes, env_params)
    acting = networks.make_policy(config, env)
    if normaliser is not None:
        acting = normalisation.with_standardised_observations(acting, normaliser)
    return evaluate_network(env, acting, params, key, config.horizon, greedy=greedy)


def evaluate_network(
    env: envs.Env,
    network: Network,
    params: PyTree,
    key: PRNGKeyArray,
    horizon: int | None,
    *,
    greedy: bool,
) -> Evaluation:
    """Returns of one complete episode in each copy of an environment.

    Raises ValueError unless `greedy` is True or False.

    Args:
        env: N copies.
        network: the policy, which standardises observations itself.
        params: of the network.
        key: a random key.
        horizon: largest number of steps; None: the environment's own time limit.
        greedy: the mode of the policy instead of a sample.
    """
    if not isinstance(greedy, bool | np.bool_):
        raise ValueError(f"greedy must be True or False, got {shown(greedy)}")
    act = rollout.greedy if greedy else rollout.sample
    traj = rollout.episodes(env, network, params, key, horizon, act=act)
    return Evaluation(traj.reward.sum(0), traj.env_steps.sum(0))
