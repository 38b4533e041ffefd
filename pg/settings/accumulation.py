"""Checks of a `Config` whose batches are taken in micro-batches."""

from typing import Any, get_args

from pg.estimators.facts import FACTS, UNSTATED, Facts
from pg.estimators.names import candidate_names, facts_of
from pg.inputs import count
from pg.settings.choices import EXTRAPOLATING, CriticOptimizer, PolicyOptimizer
from pg.settings.parts import part_name

AUTO = "auto"
# the optimizers of the policy that need its gradient alone
_OF_GRADIENTS = (*get_args(CriticOptimizer), *EXTRAPOLATING)
_INSTEAD = "or micro_batches=1"


def checked_number(value: Any) -> Any:
    """The number of micro-batches, or auto. Raises ValueError for anything else."""
    if isinstance(value, str) and value == AUTO:
        return value
    if isinstance(value, str):
        raise ValueError(
            f"micro_batches must be a whole number of at least 1, or auto, got {value!r}"
        )
    return count("micro_batches", value)


def check_micro_batches(config: Any) -> None:
    """Raises ValueError unless the gradient of a batch is the mean of those of its micro-batches,
    each of which can be computed without the others.
    """
    if config.micro_batches == 1:
        return
    setting = f"micro_batches={config.micro_batches!r}"
    facts = facts_of(config.estimator)
    _check_estimator(config, facts, setting)
    _check_settings(config, setting)
    if config.micro_batches != AUTO:
        _check_sizes(config, facts, config.micro_batches)


def _check_estimator(config: Any, facts: Facts, setting: str) -> None:
    estimator = part_name(config.estimator)
    if facts is UNSTATED:
        raise ValueError(
            f"{setting} weights each micro-batch separately, and estimator={estimator!r} states no "
            "facts: state what it compares a return with, @pg.with_facts(unbiased_for="
            f'"J", baseline="none"), {_INSTEAD}'
        )
    candidates = candidate_names(config.estimator)
    if facts.accumulates and not candidates:
        return
    reason = "compares all episodes by more than their returns"
    if facts.extra_rollout_kind != "none":
        reason = "queries the environment again, with random numbers of the whole batch"
    elif facts.compares_episodes and not (facts.module or isinstance(config.estimator, str)):
        reason = (
            "is not stated to compare returns alone: if it does, state critic='none' and "
            "several_steps=False"
        )
    if facts.critic == "hindsight":
        reason = "reports a mean over pairs of steps, which is not the mean over micro-batches"
    if facts.with_reference:
        reason = "compares the policy with a reference along all episodes"
    if candidates:
        reason = "compares its candidates on halves of the batch"
    others = [
        name for name, row in FACTS.items() if row.accumulates and config.collect in row.collect
    ]
    raise ValueError(
        f"{setting} weights each micro-batch separately, and estimator={estimator!r} {reason}: use "
        f"one of: {', '.join(others)}; {_INSTEAD}"
    )


def _check_settings(config: Any, setting: str) -> None:
    if config.steps_per_update > 1 or config.minibatch_size is not None:
        raise ValueError(
            f"{setting} accumulates the gradient of one step, and num_epochs={config.num_epochs}, "
            f"num_minibatches={config.num_minibatches} and minibatch_size={config.minibatch_size} "
            f"take several, on a stored batch: write 1, 1 and None, {_INSTEAD}"
        )
    if isinstance(config.optimizer, str) and config.optimizer not in _OF_GRADIENTS:
        assert config.optimizer in get_args(PolicyOptimizer)
        raise ValueError(
            f"{setting} keeps no batch, and optimizer={config.optimizer!r} needs one besides its "
            f"gradient: use one of: {', '.join(_OF_GRADIENTS)}; {_INSTEAD}"
        )
    whole = {
        f"sampling={config.sampling!r} spreads random numbers over it": (
            config.sampling != "independent"
        ),
        f"advantages={config.advantages!r} standardises over it": config.advantages != "raw",
        f"policy_lag={config.policy_lag} measures its importance weights": config.policy_lag > 0,
        "diagnostics take the gradient of each of its episodes": config.diagnostics,
    }
    for reason, applies in whole.items():
        if applies:
            raise ValueError(
                f"{setting} never has the whole batch at once, and {reason}: leave that out, "
                f"{_INSTEAD}"
            )


def _check_sizes(config: Any, facts: Facts, number: int) -> None:
    num_groups = config.num_envs // config.group_size
    if num_groups % number:
        group_size = f" and group_size={config.group_size}" if config.group_size > 1 else ""
        raise ValueError(
            f"micro_batches must divide num_envs={config.num_envs}{group_size} into equal parts, "
            f"got {number}"
        )
    if facts.compares_episodes and config.num_envs // number < 2:
        raise ValueError(
            f"micro_batches must leave at least 2 of num_envs={config.num_envs} in each part for "
            f"estimator={part_name(config.estimator)!r}, which compares episodes, got {number}"
        )
