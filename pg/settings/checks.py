"""Checks of a `Config`: that its fields fit together."""

import itertools
from dataclasses import fields
from numbers import Real
from types import ModuleType
from typing import Any, get_args

from pg import numerals
from pg.estimators.facts import FACTS, UNSTATED, Facts, estimators_with
from pg.estimators.names import canonical, check_estimator, facts_of
from pg.inputs import (
    COUNTABLE,
    LARGEST,
    assignments,
    check_name,
    count,
    counts,
    entries_or_names,
    shown,
)
from pg.settings.accumulation import check_micro_batches, checked_number
from pg.settings.choices import (
    AT_OTHER_PARAMETERS,
    CHOICES,
    RESAMPLING,
    CriticOptimizer,
    PolicyOptimizer,
)
from pg.settings.construction import AUTO
from pg.settings.convolutions import checked_texts
from pg.settings.environments import check_env, check_interface
from pg.settings.parts import check_part, part_name
from pg.settings.stored_params import check_stored_params

MOST_LAYERS = 100  # without residual connections, far fewer are trainable
MOST_WEIGHTS = 10**9  # of one network; with Adam 16 GB
_WITH_CRITIC = tuple(
    name for kind in ("V", "Q", "hindsight") for name in estimators_with(critic=kind)
)
# an importance ratio of estimators that the table of facts does not list
BY_A_SWITCH = ", or a switch ratio, as estimator='sequence:ratio=token'"


def checked_fields(config: Any) -> dict[str, Any]:
    """The fields of a Config that are stored in another form: tuples, and Python integers.

    Raises ValueError for a value out of range, naming the field, the value and the range.
    """
    normalised: dict[str, Any] = {"env_params": assignments(config.env_params)}
    normalised["hidden_sizes"] = counts("hidden_sizes", config.hidden_sizes)
    for name in ("observe", "critic_observe"):
        normalised[name] = entries_or_names(name, getattr(config, name))
    if config.critic_hidden_sizes is not None:
        normalised["critic_hidden_sizes"] = counts(
            "critic_hidden_sizes", config.critic_hidden_sizes
        )
    normalised["conv"] = checked_texts(config.conv)
    if isinstance(config.env, str):
        check_env(config.env)
    else:
        check_interface(config.env)
    for name in ("estimator", "optimizer"):
        if callable(part := getattr(config, name)) or isinstance(part, tuple | ModuleType):
            check_part(name, part)
        elif name == "estimator":
            check_estimator(name, part)
            normalised[name] = canonical(part)
        else:
            check_name(name, part, CHOICES[name])
    for name in ("policy", "critic"):
        if (part := getattr(config, name)) is not None:
            check_part(name, part)
    if config.preset is not None:
        _check_preset(config.preset)
        normalised["preset"] = canonical(config.preset)
    for name, choices in CHOICES.items():
        if name != "optimizer":
            check_name(name, getattr(config, name), choices)
    if config.critic_optimizer is not None:
        check_name("critic_optimizer", config.critic_optimizer, get_args(CriticOptimizer))
    normalised["micro_batches"] = checked_number(config.micro_batches)
    for each in fields(config):
        value = getattr(config, each.name)
        is_optional = each.name in ("horizon", "minibatch_size")
        if each.type is int or (is_optional and value is not None):
            least = 0 if each.name == "policy_lag" else 1
            normalised[each.name] = count(each.name, value, least)
        if each.type is float:
            normalised[each.name] = _positive(each.name, value)
        if each.type is bool and not isinstance(value, bool):
            raise ValueError(f"{each.name} must be True or False, got {shown(value)}")
    return normalised


def _positive(name: str, value: Any) -> float:
    """The value as a float. Raises ValueError unless it is a finite number above 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0.0 < value <= LARGEST:
        raise ValueError(f"{name} must be a finite number above 0, got {shown(value)}")
    return float(value)


def _check_preset(name: Any) -> None:
    """Raises ValueError unless there are settings of this name."""
    if name != AUTO:
        check_estimator("preset", name, AUTO, variants=True)


def check_fit(config: Any) -> None:
    """Raises ValueError if fields of a Config are incompatible."""
    check_stored_params(config)
    check_network(config)
    _check_batch(config)
    _check_sample_env(config)
    _check_pool(config)
    _check_exploration(config)
    _check_initial_std(config)
    _check_layers(config)
    _check_views(config)
    _check_action_critic(config)
    _check_own_critic(config)
    _check_parts(config)
    _check_counters(config)
    check_micro_batches(config)


def _check_batch(config: Any) -> None:
    """Checks that estimator, way of collecting and shape of the batch fit together."""
    facts, estimator = facts_of(config.estimator), part_name(config.estimator)
    if config.collect not in facts.collect:
        others = [name for name, row in FACTS.items() if config.collect in row.collect]
        only = facts.collect[0]
        why = {
            "episodes": "sums the reward to the end of the episode",
            "windows": "is for a continuing task",
        }
        if not facts.module:  # a custom one, of which only the facts are known
            why = dict.fromkeys(why, f"is stated to collect only {only}")
        raise ValueError(
            f"estimator={estimator!r} {why[only]} and so needs collect={only!r}; "
            f"with collect={config.collect!r} use one of: {', '.join(others)}"
        )
    if facts.baseline == "batch" and config.num_envs < 2:
        raise ValueError(
            f"num_envs must be at least 2 for estimator={estimator!r}, which compares the "
            f"episodes of a batch with one another; got {config.num_envs}"
        )
    if facts.baseline == "group" and config.group_size < 2:
        raise ValueError(
            f"group_size must be at least 2 for estimator={estimator!r}, which compares "
            f"episodes that share their initial state; got {config.group_size}"
        )
    if config.diagnostics and config.num_envs < 2:
        raise ValueError(
            f"num_envs must be at least 2 for diagnostics, a variance; got {config.num_envs}"
        )
    if config.num_envs % config.group_size:
        of_preset = facts.settings.get("group_size") == config.group_size
        whose = f", which is that of estimator={estimator!r}" if of_preset else ""
        fewer = config.num_envs - config.num_envs % config.group_size
        raise ValueError(
            f"group_size must divide num_envs={config.num_envs}, got {config.group_size}{whose}: "
            f"give another, or num_envs={fewer or config.group_size}"
        )
    if config.group_size > 1 and config.collect != "episodes":
        raise ValueError(
            f"group_size={config.group_size} needs collect='episodes', got {config.collect!r}"
        )
    if config.minibatch_size is not None:
        _check_minibatch_size(config, config.minibatch_size)
    if config.steps_per_update > 1 and not facts.several_steps:
        others = list(estimators_with(several_steps=True))
        raise ValueError(
            f"estimator={estimator!r} is on-policy: it takes one step on a batch, so "
            f"num_epochs and num_minibatches must be 1, got {config.num_epochs} and "
            f"{config.num_minibatches}; use one of: {', '.join(others)}{BY_A_SWITCH}"
        )
    _check_lag(config, facts)
    _check_extra_rollouts(config, facts)
    if config.sampling != "independent":
        _check_sampling(config, facts)
    if config.num_envs % config.num_minibatches:
        raise ValueError(
            f"num_minibatches must divide num_envs={config.num_envs}, got {config.num_minibatches}"
        )
    num_groups = config.num_envs // config.group_size
    if num_groups % config.num_minibatches:
        raise ValueError(
            f"num_minibatches must divide the {numerals.counted(num_groups, 'group')} of "
            f"num_envs={config.num_envs} and "
            f"group_size={config.group_size}, as a minibatch holds whole groups; got "
            f"{config.num_minibatches}"
        )
    # If the longest episode is not known here, `envs.configured` asks.
    if config.collect == "windows" or config.horizon is not None:
        check_standardised(
            config, config.num_steps if config.collect == "windows" else config.horizon or 1
        )


def _check_lag(config: Any, facts: Any) -> None:
    """Checks that the estimator and the optimizer allow for batches of an older policy."""
    if config.lag_mixture != "none":
        _check_mixture(config)
    if not config.policy_lag:
        return
    estimator = part_name(config.estimator)
    if not facts.off_policy and not facts.several_steps:
        others = (*estimators_with(off_policy=True), *estimators_with(several_steps=True))
        raise ValueError(
            f"policy_lag={config.policy_lag} needs an estimator for off-policy data, and "
            f"estimator={estimator!r} is on-policy; use one of: {', '.join(others)}{BY_A_SWITCH}"
        )
    if config.optimizer in AT_OTHER_PARAMETERS:
        raise ValueError(
            f"policy_lag={config.policy_lag} excludes optimizer={config.optimizer!r}, which "
            "weights a batch by the ratio of two policies and assumes that the first one has "
            "collected it"
        )


def _check_mixture(config: Any) -> None:
    """Raises ValueError unless each of several policies can collect its share of a batch."""
    mixture = config.lag_mixture
    if not config.policy_lag:
        raise ValueError(
            f"lag_mixture={mixture!r} mixes the last policy_lag + 1 policies, and there is only "
            "one: give policy_lag of at least 1, or lag_mixture='none'"
        )
    if config.collect != "episodes":
        raise ValueError(
            f"lag_mixture={mixture!r} weights complete episodes and so needs collect='episodes', "
            f"got {config.collect!r}"
        )
    policies = config.policy_lag + 1
    if config.num_envs % (policies * config.group_size):
        groups = "" if config.group_size == 1 else f" × group_size={config.group_size}"
        raise ValueError(
            f"num_envs must be a multiple of the {policies} policies{groups} of "
            f"lag_mixture={mixture!r}, got {config.num_envs}"
        )


def _check_extra_rollouts(config: Any, facts: Any) -> None:
    """Raises ValueError for settings of extra rollouts that the estimator does not use, and for a
    critic that cannot value them.
    """
    estimator, extra_rollouts = part_name(config.estimator), facts.extra_rollout_kind
    known = facts is not UNSTATED  # an estimator without facts may use them
    if (
        known
        and config.num_branches > 1
        and extra_rollouts not in ("successors", "lookahead", "branches")
    ):
        raise ValueError(
            f"num_branches={config.num_branches} is the number of extra transitions or episodes "
            f"from each state, and estimator={estimator!r} takes none: leave it out, or use one "
            f"of: {', '.join(_asking('successors', 'lookahead', 'branches'))}"
        )
    if known and config.branch_every > 1 and extra_rollouts != "branches":
        raise ValueError(
            f"branch_every={config.branch_every} is for episodes from visited states, and "
            f"estimator={estimator!r} takes none: leave it out, or use one of: "
            f"{', '.join(_asking('branches'))}"
        )
    if extra_rollouts in ("successors", "lookahead") and config.rnn != "none":
        raise ValueError(
            f"estimator={estimator!r} values extra transitions by a critic that sees one "
            f"observation, and with rnn={config.rnn!r} it is recurrent: give rnn='none', or use "
            "another estimator"
        )


def _asking(*extra_rollouts: str) -> list[str]:
    """The estimators that ask for one of these extra rollouts."""
    return [name for name, row in FACTS.items() if row.extra_rollout_kind in extra_rollouts]


def _check_sampling(config: Any, facts: Any) -> None:
    """Raises ValueError if dependent episodes of a batch are compared."""
    sampling, estimator = config.sampling, part_name(config.estimator)
    instead = "or sampling='independent'"
    if config.collect != "episodes":
        raise ValueError(
            f"sampling={sampling!r} is for batches of complete episodes and so needs "
            f"collect='episodes', got {config.collect!r}: give that, {instead}"
        )
    if facts is UNSTATED:
        raise ValueError(
            f"sampling={sampling!r} makes the episodes of a batch depend on each other, and "
            f"estimator={estimator!r} states no facts: if it compares none of them, state "
            f'@pg.with_facts(unbiased_for="J", baseline="none"), {instead}'
        )
    if facts.needs_independent_episodes:
        others = [
            name
            for name, row in FACTS.items()
            if not row.needs_independent_episodes
            and "episodes" in row.collect
            and (config.exploration != "parameters" or row.weighs_first_step_by_return)
        ]
        raise ValueError(
            f"sampling={sampling!r} makes the episodes of a batch depend on each other, and "
            f"estimator={estimator!r} compares an episode with others, which must be independent "
            f"of its actions to be a baseline: use one of: {', '.join(others)}; {instead}"
        )
    if config.advantages != "raw":
        raise ValueError(
            f"sampling={sampling!r} makes the episodes of a batch depend on each other, and "
            f"advantages={config.advantages!r} compares them: give advantages='raw', {instead}"
        )
    _check_no_diagnostics(config, f"sampling={sampling!r}")
    if config.lag_mixture != "none":
        raise ValueError(
            f"sampling={sampling!r} is for batches of one policy, and lag_mixture="
            f"{config.lag_mixture!r} has several: give lag_mixture='none', {instead}"
        )
    if config.num_envs < 2:
        raise ValueError(
            f"num_envs must be at least 2 for sampling={sampling!r}, which spreads the noise over "
            f"the episodes of a batch; got {config.num_envs}"
        )
    if sampling == "antithetic" and config.num_envs % 2:
        raise ValueError(
            f"num_envs must be even for sampling='antithetic', whose episodes are pairs; got "
            f"{config.num_envs}"
        )


def _check_sample_env(config: Any) -> None:
    """Raises ValueError if the environment's noise should be spread over a batch, but cannot be."""
    if not config.sample_env:
        return
    facts, instead = facts_of(config.estimator), "or leave sample_env out"
    if config.sampling == "independent":
        raise ValueError(
            "sample_env draws the environment's noise by sampling, got sampling='independent': "
            f"give {', '.join(CHOICES['sampling'][1:])}, {instead}"
        )
    if config.exploration == "parameters":
        raise ValueError(
            "sample_env spreads the noise of starts and steps, and with exploration='parameters' "
            f"sampling applies to the policy's parameters: give exploration='actions', {instead}"
        )
    if facts.extra_rollout_kind != "none":
        raise ValueError(
            f"estimator={part_name(config.estimator)!r} queries the environment again with its own "
            f"random numbers, which sample_env does not spread: use another, {instead}"
        )


def _check_pool(config: Any) -> None:
    """Raises ValueError for settings under which an estimator cannot average over episodes."""
    facts, estimator = facts_of(config.estimator), part_name(config.estimator)
    if not facts.pools_episodes:
        return
    if config.rnn != "none" or config.network == "causal_transformer":
        raise ValueError(
            f"estimator={estimator!r} averages TD errors of different episodes in one state, and a "
            "recurrent network makes them depend on what came before: give rnn='none' and "
            "another network, or estimator='trajectory_control_variate'"
        )
    _check_no_diagnostics(config, f"estimator={estimator!r}")


def _check_no_diagnostics(config: Any, what: str) -> None:
    """Raises ValueError for diagnostics, where `what` makes episodes depend on each other."""
    if config.diagnostics:
        raise ValueError(
            f"diagnostics take the variance of a batch from that of its episodes, and {what} makes "
            "these depend on each other: leave diagnostics out, and measure whole batches by "
            "pg.diagnostics.per_batch"
        )


def _check_exploration(config: Any) -> None:
    """Checks the settings of parameters that are drawn once per episode."""
    default = type(config).parameter_std
    if config.exploration == "parameters":
        check_drawn_parameters(config, "exploration='parameters'")
    elif config.parameter_std != default:
        raise ValueError(
            f"parameter_std={config.parameter_std} is for sampled parameters: give "
            "exploration='parameters', or leave it out"
        )


def _check_initial_std(config: Any) -> None:
    """Raises ValueError for a standard deviation whose density does not fit into 32 bits."""
    if not 1e-3 <= config.initial_std <= 1e3:
        raise ValueError(f"initial_std must be from 0.001 to 1000, got {config.initial_std}")


def check_drawn_parameters(config: Any, what: str) -> None:
    """Raises ValueError unless parameters can be drawn once per episode: their score is at the
    first step, and weighted by the episode's return.

    Args:
        config: The settings.
        what: The setting that draws the parameters, for the message.
    """
    facts, estimator = facts_of(config.estimator), part_name(config.estimator)
    if facts is UNSTATED:
        raise ValueError(
            f"{what} weights the score of an episode's parameters by its return, and "
            f"estimator={estimator!r} states no facts: if its Ψ is that return, state "
            '@pg.with_facts(unbiased_for="J", collect="episodes", several_steps=False)'
        )
    if not facts.weighs_first_step_by_return:
        others = [name for name, row in FACTS.items() if row.weighs_first_step_by_return]
        raise ValueError(
            f"{what} weights the score of an episode's parameters by its return less a baseline, "
            f"and estimator={estimator!r} has another Ψ: use one of: {', '.join(others)}"
        )
    if config.collect != "episodes":
        raise ValueError(
            f"{what} draws parameters for each episode and so needs collect='episodes', got "
            f"{config.collect!r}"
        )
    if config.rnn != "none" or config.network == "causal_transformer":
        field = "rnn" if config.rnn != "none" else "network"
        raise ValueError(
            f"{what} is for a policy that sees one observation, and {field}="
            f"{getattr(config, field)!r} remembers earlier ones: leave one of them out"
        )
    if config.optimizer in ("natural", "trpo"):
        raise ValueError(
            f"optimizer={config.optimizer!r} measures its step by the distribution of actions, and "
            f"with {what} a distribution over parameters is learned: use another optimizer"
        )
    if config.shared_torso:
        raise ValueError(
            f"shared_torso puts the critic on the policy's layers, whose parameters {what} draws "
            "for each episode: leave one of them out"
        )
    if config.sampling == "array":
        raise ValueError(
            f"sampling='array' assigns noise in the order of the states, and {what} draws it "
            "before the first state: give sampling='sobol'"
        )


def _check_minibatch_size(config: Any, size: int) -> None:
    """Raises ValueError unless minibatches of single steps can be drawn: no step may depend on its
    neighbours.
    """
    estimator = part_name(config.estimator)
    if not facts_of(config.estimator).several_steps:
        raise ValueError(
            f"estimator={estimator!r} is on-policy: it takes one step on a batch, so "
            f"minibatch_size must not be given, got {size}; use estimator='ppo'"
        )
    if config.collect != "windows":
        raise ValueError(
            f"minibatch_size={size} counts steps and so needs collect='windows', got "
            f"{config.collect!r}, whose number of steps is not known in advance and whose groups "
            "stay whole: give num_minibatches"
        )
    if config.rnn != "none":
        raise ValueError(
            f"minibatch_size={size} shuffles steps and so needs rnn='none', got {config.rnn!r}, "
            "which is trained on whole sequences: give num_minibatches"
        )
    if config.num_minibatches != 1:
        raise ValueError(
            f"minibatch_size={size} and num_minibatches={config.num_minibatches} are mutually "
            "exclusive: give one of them (with minibatch_size, num_minibatches is 1)"
        )
    steps = config.num_envs * config.num_steps
    if steps % size:
        raise ValueError(
            f"minibatch_size must divide num_envs × num_steps = {config.num_envs} × "
            f"{config.num_steps} = {steps}, got {size}"
        )


def _check_parts(config: Any) -> None:
    """Checks that networks, optimizer and estimator fit together."""
    if config.scale_observations and config.normalise_observations:
        raise ValueError(
            "scale_observations and normalise_observations are mutually exclusive: scale by the "
            "bounds of the space, or by running statistics"
        )
    sees_no_image = config.network in ("mlp", "causal_transformer")
    if config.conv and sees_no_image:
        raise ValueError(
            f"conv={' '.join(config.conv)} is for images, and network={config.network!r} has none"
        )
    if config.image_layout != "auto" and sees_no_image:
        raise ValueError(
            f"image_layout={config.image_layout!r} is for network='cnn': "
            f"{config.network!r} does not distinguish axes"
        )
    _check_reference(config)
    _check_standardised_weights(config)
    facts, estimator = facts_of(config.estimator), part_name(config.estimator)
    _check_hindsight(config, facts, estimator)
    if config.optimizer == "trpo" and facts.critic in ("Q", "hindsight"):
        raise ValueError(
            f"optimizer='trpo' measures its step by the action that was taken, and "
            f"estimator={estimator!r} weights all actions; use optimizer='natural'"
        )
    _check_other_parameters(config, facts, estimator)
    if config.rnn != "none" and config.optimizer in ("natural", "trpo"):
        raise ValueError(
            f"optimizer={config.optimizer!r} needs a policy without a recurrent state, got "
            f"rnn={config.rnn!r}"
        )
    if config.rnn == "transformer" and config.rnn_size % config.rnn_heads:
        raise ValueError(
            f"rnn_heads must divide rnn_size={config.rnn_size}, got {config.rnn_heads}"
        )
    if config.network == "causal_transformer":
        _check_causal_transformer(config)
    if config.shared_torso and config.optimizer in get_args(PolicyOptimizer):
        raise ValueError(
            f"optimizer={config.optimizer!r} is for the policy's own gradient, and with "
            "shared_torso the critic's gradient is part of it"
        )
    own_network = next((x for x in ("policy", "critic") if getattr(config, x) is not None), None)
    if config.shared_torso and own_network:
        raise ValueError(
            f"shared_torso is for pg's own networks, and {own_network} is "
            f"{part_name(getattr(config, own_network))!r}: leave one of them out"
        )
    for name, changed in (
        ("shared_torso", config.shared_torso),
        ("advantages", config.advantages != "raw"),
    ):
        if changed and facts.critic != "V":
            raise ValueError(
                f"{name}={getattr(config, name)!r} is for estimators with a critic V: "
                f"{', '.join(estimators_with(critic='V'))}; got estimator={estimator!r}"
            )


def _check_hindsight(config: Any, facts: Any, estimator: str) -> None:
    """Raises ValueError if a hindsight distribution would have to be recurrent."""
    if facts.critic != "hindsight":
        return
    for field, remembers in (
        ("rnn", config.rnn != "none"),
        ("network", config.network == "causal_transformer"),
    ):
        if remembers:
            raise ValueError(
                f"estimator={estimator!r} learns a hindsight distribution, which is given one step "
                f"and one outcome, and {field}={getattr(config, field)!r} remembers earlier steps: "
                "leave one of them out"
            )


def _check_standardised_weights(config: Any) -> None:
    """Raises ValueError if Ψ must not be standardised: the weights of a regression would become
    negative, or a control variate was regressed on the gradient of the raw Ψ.
    """
    if config.advantages != "raw" and facts_of(config.estimator).starts:
        raise ValueError(
            f"advantages={config.advantages!r} standardises Ψ, and estimator="
            f"{part_name(config.estimator)!r} has a control variate that was regressed on the "
            "gradient of the raw Ψ: give advantages='raw'"
        )
    if config.advantages != "raw" and facts_of(config.estimator).regression:
        raise ValueError(
            f"advantages={config.advantages!r} standardises Ψ, which for estimator="
            f"{part_name(config.estimator)!r} is a weight that is never negative: give "
            "advantages='raw', and the scale of the advantages as advantage_scale"
        )


def _check_other_parameters(config: Any, facts: Any, estimator: str) -> None:
    """Checks that gradients of a batch can be taken at other parameters, if the optimizer does so.
    One error lists all reasons against it.
    """
    if config.optimizer not in AT_OTHER_PARAMETERS:
        return
    against = _against_other_parameters(config, facts, estimator)
    if config.optimizer in RESAMPLING and config.steps_per_update > 1:
        against.append(
            "collects a second batch for its step, and an update takes only one such step: "
            f"num_epochs and num_minibatches must be 1, got {config.num_epochs} and "
            f"{config.num_minibatches}"
        )
    if against:
        raise ValueError(f"optimizer={config.optimizer!r} {'; and it '.join(against)}")


def _against_other_parameters(config: Any, facts: Any, estimator: str) -> list[str]:
    """Reasons against gradients of a batch at other parameters: predicates of a sentence."""
    against = []
    if config.collect != "episodes":
        against.append(
            f"weights whole episodes and so needs collect='episodes', got {config.collect!r}"
        )
    if facts.psi_depends_on_policy:
        free = estimators_with(psi_depends_on_policy=False)
        others = [name for name in free if "episodes" in FACTS[name].collect]
        against.append(
            f"cannot take the Ψ of estimator={estimator!r}, which contains the policy or is "
            "divided by a statistic of the batch, such as a standard deviation; use one of: "
            f"{', '.join(others)}"
        )
    units = "adds directions of several batches, to which {} would give different units, as "
    if config.advantages != "raw":
        against.append(
            units.format(f"advantages={config.advantages!r}")
            + "the standard deviation is that of one batch: give advantages='raw'"
        )
    if config.scale_rewards:
        against.append(
            units.format("scale_rewards") + "running statistics change: leave scale_rewards out"
        )
    if config.normalise_observations:
        against.append(
            "has a direction at earlier parameters, and with normalise_observations running "
            "statistics change what these do: leave normalise_observations out, or give "
            "scale_observations, which does not change"
        )
    return against


def _check_reference(config: Any) -> None:
    """Checks that a reference policy is used, and that it stays the same function."""
    facts, estimator = facts_of(config.estimator), part_name(config.estimator)
    if facts.with_reference and config.normalise_observations:
        raise ValueError(
            f"estimator={estimator!r} keeps a reference policy, and with normalise_observations "
            "running statistics change what its parameters do: leave normalise_observations out, "
            "or give scale_observations, which does not change"
        )
    if config.reference is not None and not facts.with_reference:
        raise ValueError(
            f"reference is for an estimator with a KL divergence, and estimator={estimator!r} has "
            "none: give one with a switch kl, as estimator='rloo' or 'sequence:kl=k1'"
        )


def _check_causal_transformer(config: Any) -> None:
    """Checks the settings of a causal transformer, which are those of the hidden layers."""
    if config.collect != "episodes":
        raise ValueError(
            "network='causal_transformer' reads sequences from their first token and so needs "
            f"collect='episodes', got {config.collect!r}; rnn='transformer' takes windows"
        )
    if config.rnn != "none":
        raise ValueError(
            "network='causal_transformer' attends to the whole sequence and so needs rnn='none', "
            f"got {config.rnn!r}"
        )
    if config.optimizer in ("natural", "trpo"):
        raise ValueError(
            f"optimizer={config.optimizer!r} needs a policy without a recurrent state, got "
            "network='causal_transformer'"
        )
    for name in ("layer_norm", "residual"):
        if getattr(config, name):
            raise ValueError(
                f"{name} is for network='mlp' and 'cnn': every block of a causal_transformer has "
                "layer normalisation and adds its output to its input; leave it out"
            )
    for name in ("hidden_sizes", "critic_hidden_sizes"):
        sizes = getattr(config, name)
        if sizes is None:
            continue
        if not sizes or len(set(sizes)) > 1 or sizes[0] % config.rnn_heads:
            raise ValueError(
                f"{name} must be of one or more blocks of one width, which rnn_heads="
                f"{config.rnn_heads} divides, as in (64, 64), got {tuple(sizes)}"
            )


def _check_layers(config: Any) -> None:
    """Checks that the widths of the layers fit together, and belong to existing layers."""
    widths = {"hidden_sizes": config.hidden_sizes}
    if config.critic_hidden_sizes is not None:
        widths["critic_hidden_sizes"] = config.critic_hidden_sizes
        own = ", ".join(_WITH_CRITIC)
        if facts_of(config.estimator).critic == "none":
            raise ValueError(
                f"critic_hidden_sizes is for estimators with a critic: {own}; got "
                f"estimator={part_name(config.estimator)!r}"
            )
        if config.shared_torso:
            raise ValueError(
                "critic_hidden_sizes is for a critic with its own layers, and with shared_torso "
                "it shares the policy's: leave one of them out"
            )
    for name, sizes in widths.items():
        if config.residual and (len(sizes) < 2 or len(set(sizes)) > 1):
            raise ValueError(
                f"residual needs two or more hidden layers of one width, as in (64, 64); got "
                f"{name}={tuple(sizes)}"
            )


def _check_views(config: Any) -> None:
    """Checks that there is a critic that can have other observations than the policy."""
    if config.critic_observe in ((), ("policy",)):
        return
    if facts_of(config.estimator).critic == "none":
        own = ", ".join(_WITH_CRITIC)
        raise ValueError(
            f"critic_observe is for estimators with a critic: {own}; got "
            f"estimator={part_name(config.estimator)!r}"
        )
    if config.shared_torso:
        raise ValueError(
            "critic_observe is for a critic with its own layers, and with shared_torso it shares "
            "the policy's, which see what the policy sees: leave one of them out"
        )


def _check_action_critic(config: Any) -> None:
    """Checks that there is a critic of continuous actions if its settings are given."""
    for name, kind, counted in (
        ("action_critic_units", "sinusoids", "the number of sinusoids"),
        ("action_samples", "network", "the number of actions over which a network is averaged"),
    ):
        value = getattr(config, name)
        if config.action_critic != kind and value != getattr(type(config), name):
            raise ValueError(
                f"{name}={value} is {counted}: give action_critic={kind!r}, or leave it out"
            )
    if config.action_critic == "quadratic":
        return
    facts = facts_of(config.estimator)
    if config.action_critic == "network":
        _check_network_of_action(config, facts)
        return
    if facts.critic != "Q" or "continuous" not in facts.actions:
        own = estimators_with(critic="Q")
        names = ", ".join(name for name in own if "continuous" in FACTS[name].actions)
        raise ValueError(
            f"action_critic={config.action_critic!r} is for estimators with a critic of continuous "
            f"actions: {names}; got estimator={part_name(config.estimator)!r}"
        )


def _check_network_of_action(config: Any, facts: Facts) -> None:
    """Checks that an estimator asks the critic only for values at actions, and that the critic sees
    one observation.
    """
    if not facts.averages_sampled_actions:
        names = ", ".join(name for name, row in FACTS.items() if row.averages_sampled_actions)
        has_other_critic = facts.critic == "Q" and "continuous" in facts.actions
        instead = "action_critic='sinusoids', or another estimator"
        raise ValueError(
            "action_critic='network' is for estimators that average Q over sampled actions: "
            f"{names}; got estimator={part_name(config.estimator)!r}"
            + (f": give {instead}" if has_other_critic else "")
        )
    for field, remembers in (
        ("rnn", config.rnn != "none"),
        ("network", config.network == "causal_transformer"),
    ):
        if remembers:
            raise ValueError(
                "action_critic='network' sees one observation and one action, and "
                f"{field}={getattr(config, field)!r} remembers earlier steps: leave one of them out"
            )


def _check_own_critic(config: Any) -> None:
    """Checks that no setting of the default critic is given with a custom critic."""
    if config.critic is None:
        return
    for name, changed in (
        ("critic_hidden_sizes", config.critic_hidden_sizes is not None),
        ("action_critic", config.action_critic != "quadratic"),
    ):
        if changed:
            raise ValueError(
                f"{name} is for pg's own networks, and critic is "
                f"{part_name(config.critic)!r}: leave one of them out"
            )


def _check_counters(config: Any) -> None:
    """Checks that all counts fit into 32 bits; `envs.configured` knows the environment's own
    time limit.
    """
    longest = config.num_steps if config.collect == "windows" else config.horizon or 1
    check_steps(config, longest)
    steps = config.num_updates * config.steps_per_update
    if steps >= COUNTABLE:
        minibatches, name = config.num_minibatches, "num_minibatches"
        if config.minibatch_size is not None:
            minibatches = config.steps_per_update // config.num_epochs
            name = "(num_envs × num_steps / minibatch_size)"
        raise ValueError(
            f"num_updates × num_epochs × {name}, the steps of the optimizer, must be below "
            f"2^31; got {config.num_updates} × {config.num_epochs} × {minibatches} = {steps}"
        )


def check_network(config: Any, num_inputs: int = 1) -> None:
    """Raises ValueError for an absurdly large network before it is built, which would take forever.

    num_inputs: the number of inputs of the first dense layer.
    """
    if len(config.hidden_sizes) > MOST_LAYERS:
        raise ValueError(
            f"hidden_sizes must be at most {MOST_LAYERS} layers, got {len(config.hidden_sizes)}"
        )
    sizes = (num_inputs, *config.hidden_sizes)
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    if config.network == "causal_transformer":
        weights *= 12  # about: four of attention, and twice four of two dense layers
    if config.rnn != "none":
        weights += 3 * config.rnn_size * (sizes[-1] + config.rnn_size)  # about: an LSTM has 4
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"hidden_sizes and rnn_size must give at most {MOST_WEIGHTS:,} weights, got "
            f"{weights:,}, with {numerals.counted(num_inputs, 'input')}"
        )


def check_steps(config: Any, longest: int) -> None:
    """Raises ValueError unless the steps of one update can be counted. longest: length of an
    episode or of the window.
    """
    length = {"episodes": "horizon", "windows": "num_steps"}[config.collect]
    steps = config.num_envs * longest * config.action_repeat
    if steps >= COUNTABLE:
        raise ValueError(
            f"num_envs × {length} × action_repeat, the steps of one update, must be below 2^31; "
            f"got {config.num_envs} × {longest} × {config.action_repeat} = {steps}"
        )


def check_standardised(config: Any, longest: int) -> None:
    """Raises ValueError if single advantages would be standardised. longest: length of an episode
    or of the window.
    """
    if config.advantages == "raw":
        return
    parts = 1 if config.advantages == "batch" else config.steps_per_update // config.num_epochs
    steps = config.num_envs * longest // parts
    if steps < 2:
        raise ValueError(
            f"advantages={config.advantages!r} standardises over a single step, and "
            f"one number minus its mean "
            f"is 0; got num_envs={config.num_envs} of at most {longest} and minibatches={parts}: "
            f"use advantages='raw'"
        )
