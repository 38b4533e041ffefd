"""Checks of a rollout's arguments, with errors that say what to write instead."""

from typing import Any

from pg import networks, numerals
from pg.envs import Env
from pg.extra_rollouts import ExtraRollouts
from pg.inputs import check_key, check_kind
from pg.networks import Network
from pg.settings.choices import Sampling
from pg.trajectory import RolloutState

__all__ = ["check_arguments", "check_rollout_state", "check_sample_env", "check_standardised"]


def check_arguments(env: Any, policy: Any, key: Any) -> None:
    """Raises ValueError, saying what to write instead, for arguments of other types."""
    networks.check_env(env)
    check_kind("policy", policy, Network, "write pg.make_policy(config, env)")
    check_key(key)
    if env.masked and not policy.masked:
        raise ValueError(
            "the environment has action masks, which this policy does not see: write "
            "pg.networks.masked(policy), or pg.make_env(..., action_mask='none')"
        )
    if env.views.policy and policy.view != env.views.policy:
        raise ValueError(
            "this environment's observations also contain the critic's part, and this policy does "
            "not select its own: write pg.networks.for_env(policy, env, env.views.policy), or "
            "pg.make_env(..., critic_observe=('policy',))"
        )


def check_rollout_state(name: str, state: Any, env: Env) -> None:
    """Raises ValueError unless `state` is the state of all environments."""
    instead = (
        "write pg.rollout.start(env, policy, key), or state.rollout of a TrainState that collects "
        "windows"
    )
    check_kind(name, state, RolloutState, instead)
    shape = state.time.shape
    if shape != (env.num_envs,):
        if len(shape) == 1:
            size = numerals.counted(shape[0], "environment")
        else:
            size = f"environments of shape {list(shape)}"
        raise ValueError(
            f"{name} is the state of {size}, but env has {env.num_envs}: make both with the same "
            "num_envs"
        )


def check_standardised(policy: Network) -> None:
    """Raises ValueError for a policy that expects standardised observations."""
    if policy.expects_standardised:
        raise ValueError(
            "this policy sees standardised observations: write "
            "pg.normalisation.with_standardised_observations(policy, state.normaliser), or "
            "pg.load_policy(folder).network for a run that was saved"
        )


def check_sample_env(
    policy: Network,
    extra_rollouts: ExtraRollouts,
    sampling: Sampling,
    num_episodes: int,
    group_size: int,
) -> None:
    """Raises ValueError if the environment's noise cannot be drawn jointly for a batch."""
    if sampling == "independent":
        raise ValueError(
            "sample_env draws the environment's noise by sampling, got 'independent': give "
            "sampling='sobol', or another of these"
        )
    if policy.draw_carry is not None or extra_rollouts.successors or extra_rollouts.lookahead:
        raise ValueError(
            "sample_env is for policies that draw an action at every step, and excludes extra "
            "transitions, which have random numbers of their own: leave sample_env out"
        )
    if num_episodes % group_size:
        raise ValueError(
            f"group_size must divide num_episodes={num_episodes} with sample_env, got {group_size}"
        )
