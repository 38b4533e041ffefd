"""Settings of a run: `Config` (static, JSON) and `Hyperparams` (traceable scalars).

A change of `Config` recompiles; every leaf of `Hyperparams` may be traced, so each can be vmapped
in one program. Their checks are in `pg.settings`. Nothing here imports jax: a mistake is reported
in a fraction of a second, before any heavy import.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, NamedTuple

from pg.estimators.facts import Collect
from pg.estimators.names import NAMES
from pg.inputs import check_kind, shown
from pg.settings import own_files
from pg.settings.checks import (
    check_fit,
    check_network,
    check_standardised,
    check_steps,
    checked_fields,
)
from pg.settings.choices import (
    AT_OTHER_PARAMETERS,
    EXTRAPOLATING,
    NONFINITE_CAUSES,
    RNN,
    ActionCritic,
    ActionDistribution,
    ActionMask,
    Activation,
    Advantages,
    Architecture,
    CriticOptimizer,
    Exploration,
    ImageLayout,
    Initialiser,
    LagMixture,
    MicroBatches,
    OnNonfinite,
    Optimizer,
    PolicyOptimizer,
    Sampling,
    Schedule,
    Shard,
)
from pg.settings.construction import (
    AUTO,
    check_field_names,
    checking_names,
    filling_in,
    keywords,
    preset_of,
)
from pg.settings.environments import (
    ENVIRONMENTS,
    LIBRARIES,
    SEQUENCES,
    UNSUPPORTED,
    check_env,
    check_interface,
    class_of,
    name_of,
)
from pg.settings.parts import PARTS, own_parts, part_name
from pg.settings.ranges import (
    BELOW_ONE,
    WHOLE_NUMBERS,
    check_env_params,
    check_numbers,
    checked_scalars,
)
from pg.settings.stored_params import FIELDS as STORED
from pg.settings.stored_params import from_digests
from pg.tuned import NUM_ENVS

__all__ = [
    "ENVIRONMENTS",
    "LIBRARIES",
    "NONFINITE_CAUSES",
    "PARTS",
    "RNN",
    "SEQUENCES",
    "UNSUPPORTED",
    "WHOLE_NUMBERS",
    "ActionCritic",
    "ActionDistribution",
    "ActionMask",
    "Activation",
    "Advantages",
    "Architecture",
    "Config",
    "CriticOptimizer",
    "Exploration",
    "Hyperparams",
    "ImageLayout",
    "Initialiser",
    "LagMixture",
    "MicroBatches",
    "OnNonfinite",
    "Optimizer",
    "PolicyOptimizer",
    "Sampling",
    "Schedule",
    "Shard",
    "check_config",
    "check_env",
    "check_env_params",
    "check_hyperparams",
    "check_interface",
    "check_is_hyperparams",
    "check_network",
    "check_standardised",
    "check_steps",
    "check_together",
    "class_of",
    "merge_env_params",
    "name_of",
    "own_parts",
    "part_name",
]

WITH_TIME = "policy_and_time"  # the keyword of critic_observe for a critic that also sees the time


@checking_names
@filling_in
@dataclass(frozen=True)
class Config:
    """The static half of a run; `hyperparams` gives the other half that goes with it.

    Fields that are not given have the values with which the estimator was found to learn on the
    environment, as on the command line: `Config(estimator="ppo")` is what `--estimator ppo` runs.
    With `preset=None` they have the defaults below, whatever the estimator: those of REINFORCE.
    """

    env: Any = "CartPole-v1"
    """Name of a gymnax environment, or library:name, such as brax:ant, or FILE.py:CLASS of your own
    (in Python also an environment object).
    """
    env_params: Any = ()
    """Overrides of the environment's parameters, as NAME=VALUE."""
    estimator: str | Callable[..., Any] = "reinforce"
    """Name of the gradient estimator, or FILE.py:NAME of your own: a function of policy, critic and
    hyperparameters that makes an Estimator (in Python also that function).
    """
    collect: Collect = "episodes"
    """Complete episodes from fresh resets, or windows that continue from the last update."""
    num_updates: int = 80
    """Gradient steps G (batches collected)."""
    num_envs: int = NUM_ENVS
    """Number of vmapped environments: the N episodes of a batch, or the rows of a window."""
    num_steps: int = 128
    """Length of a window; unused with episodes."""
    group_size: int = 1
    """Consecutive episodes that share an initial state and are compared with each other (grpo,
    group_leave_one_out).
    """
    num_branches: int = 1
    """Extra transitions or episodes from each visited state, for estimators that ask the
    environment again (lookahead_control_variate); each is counted in the environment steps.
    """
    branch_every: int = 1
    """Branch off extra episodes only at every n-th visited state, and weight it by n
    (vine_value, vine_action_value, vine_all_action, measure_valued).
    """
    policy_lag: int = 0
    """Number of updates by which the acting policy is older than the learning one, for estimators
    with an importance ratio.
    """
    lag_mixture: LagMixture = "none"
    """Policies that collect with a lag: only the oldest (none), or all of the last policy_lag + 1,
    each an equal share of the batch. The denominator of an episode's importance ratio is then the
    policy that collected it (own), the mixture (balance heuristic), or that of the power heuristic.
    """
    sampling: Sampling = "independent"
    """Action noise of a batch of episodes: independent; in antithetic pairs of episodes; stratified
    over the batch at the first action, or at every step (latin_hypercube); scrambled Sobol' points,
    one per episode (sobol), or at each step one per state, in sorted order (array). For estimators
    that do not need independent episodes: no baseline from others of the batch. With exploration of
    parameters it applies to their noise.
    """
    sample_env: bool = False
    """Also draw the environment's noise by `sampling`, which must not be independent: in each reset
    and each step the first random numbers that are made from uniform ones (uniform, normal,
    bernoulli, but not randint).
    """
    exploration: Exploration = "actions"
    """Random part of the policy: its actions, at every step; or its parameters, drawn once per
    episode from a Gaussian whose mean and standard deviations are learned (PGPE). The policy then
    acts by its mode, and greedily by the mode of the mean.
    """
    parameter_std: float = 0.3
    """Standard deviation of every parameter at the start, with exploration of parameters."""
    micro_batches: MicroBatches = 1
    """Micro-batches in which a batch is collected and differentiated, one after the other, if it
    does not fit into memory as a whole (gradient accumulation): the mean of their gradients is that
    of the whole batch, up to rounding. If Ψ compares episodes, they are collected twice.
    auto: as few as fit (train command).
    """
    horizon: int | None = None
    """Longest episode H, in decisions, in training and evaluation; none: the environment's own time
    limit.
    """
    action_repeat: int = 1
    """Environment steps for which an action is repeated, fewer if the episode ends; γ is per
    action, not per step.
    """
    observe: tuple[int | str, ...] = ()
    """Entries of a vector observation that the policy sees, or names of the parts of a dictionary;
    none: all (0 2 hides the velocities of CartPole).
    """
    critic_observe: tuple[int | str, ...] = ()
    """Entries or names that the critic sees, given as in observe, or a keyword: all, policy (what
    the policy sees), policy_and_time (also the elapsed fraction of the environment's time limit) or
    method (the environment's critic_observe(state, params)); none: that method if there is one,
    else policy.
    """
    action_mask: ActionMask = "auto"
    """Source of the legal actions: the environment's method action_mask(state, params), its
    observation or its info; auto: the first of these that exists; none: every action is legal.
    """
    num_epochs: int = 1
    """Passes over each batch (ppo, grpo)."""
    num_minibatches: int = 1
    """Minibatches in each pass, split over environments, or over whole groups of them (ppo,
    grpo).
    """
    minibatch_size: int | None = None
    """Number of steps of a minibatch, drawn from all steps of a window; none: whole environments,
    by num_minibatches (ppo).
    """
    advantages: Advantages = "raw"
    """Ψ of estimators with a critic V: raw, or standardised over the batch or each minibatch
    (biased).
    """
    normalise_observations: bool = False
    """Standardise observations by their running mean and standard deviation, clipped to ±10."""
    scale_rewards: bool = False
    """Divide rewards by the running standard deviation of returns (at least a tenth of their
    range), without clipping.
    """
    policy: Any = None
    """FILE.py:NAME of your own policy: a Network, or a function of config and env that makes one
    (in Python also the object itself); none: that of the settings below.
    """
    critic: Any = None
    """FILE.py:NAME of your own critic, given like policy."""
    init_from: Any = None
    """Run from whose policy training starts, and to which it stays close with a reference policy:
    its folder, RUN:SEED for several seeds, a policy of the zoo by its name, or a file of
    parameters.
    """
    reference: Any = None
    """Run whose policy is the frozen reference, given like init_from; none: the policy from which
    training starts.
    """
    network: Architecture = "auto"
    """Torso of policy and critic; auto: cnn for images, else mlp; or a causal_transformer over a
    sequence of tokens.
    """
    image_layout: ImageLayout = "auto"
    """Axes of an image: height, width, channels (hwc) or channels first (chw); auto: by the
    shape.
    """
    scale_observations: bool = False
    """Scale observations to [0, 1] by the bounds of their space: frames of bytes by 255."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the dense hidden layers; for a causal_transformer that of each block, all equal."""
    critic_hidden_sizes: tuple[int, ...] | None = None
    """Widths of the critic's hidden layers; none: hidden_sizes."""
    conv: tuple[str, ...] = ()
    """Convolutions of an image before the dense layers, CHANNELSxSIZE or CHANNELSxSIZExSTRIDE,
    such as 32x8x4 64x3; none: 16x3.
    """
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    layer_norm: bool = False
    """Layer normalisation of the hidden layers, before the nonlinearity."""
    residual: bool = False
    """Residual connections around all dense hidden layers but the first; all must have the same
    width.
    """
    initialiser: Initialiser = "orthogonal"
    """Initialiser of the hidden layers' weights; output layers are always orthogonal."""
    rnn: RNN = "none"
    """Recurrent cell after the dense layers, one each for policy and critic: trained step by step
    (gru, lstm), or over a whole sequence at once (lru, mingru, transformer).
    """
    rnn_size: int = 64
    """Width of the recurrent cell."""
    rnn_window: int = 32
    """Number of earlier steps of the same episode that a transformer sees."""
    rnn_heads: int = 4
    """Heads of a transformer, which share its width."""
    shared_torso: bool = False
    """The critic V is a head on the policy's own layers; both losses then train them."""
    action_distribution: ActionDistribution = "gaussian"
    """Continuous actions: a Gaussian that the environment clips, the distribution of the clipped
    action, or a tanh of a Gaussian.
    """
    state_dependent_std: bool = False
    """Continuous actions: the standard deviation is an output of the network instead of a
    parameter.
    """
    initial_std: float = 1.0
    """Continuous actions: standard deviation at the start, in units of half the range of an action
    (1 if it is unbounded; of the argument of tanh for squashed actions). From 0.001 to 1000.
    """
    action_critic: ActionCritic = "quadratic"
    """Q of continuous actions, for estimators with such a critic (all_action, q_prop,
    trajectory_control_variate and others): quadratic in the action; a sum of sinusoids, of any
    shape; or a network of observation and action, averaged over sampled actions.
    """
    action_critic_units: int = 16
    """Number of sinusoids of the action."""
    action_samples: int = 16
    """Number of actions drawn in each state, over which --action-critic network is averaged; they
    take no environment steps.
    """
    optimizer: Optimizer | Callable[..., Any] = "adam"
    """Optimizer of optax (sgd: the bare theorem), with curvature (natural, trpo), or with variance
    reduction (storm, svrpg, page_pg, harpg, n_harpg, igt, n_igt); or FILE.py:NAME of your own: a
    function of the learning rate that makes an optax transformation (in Python also that function).
    With n_harpg and n_igt the policy's steps have the length of the learning rate, if the norm of
    the direction is far above 1e-6; max_grad_norm does not change them.
    """
    critic_optimizer: CriticOptimizer | None = None
    """Optimizer of the critic; none: that of the policy, or adam if that needs a policy."""
    schedule: Schedule = "constant"
    """Schedule of the learning rate, annealed to zero over the run unless constant; skipped
    steps count too.
    """
    entropy_schedule: Schedule = "constant"
    """Schedule of entropy_coef and temperature, annealed to zero over the run unless constant."""
    epsilon_schedule: Schedule = "constant"
    """Schedule of the clip ranges epsilon, epsilon_high and value_epsilon, annealed to zero over
    the run unless constant.
    """
    on_nonfinite: OnNonfinite = "stop"
    """An update with a NaN or an infinity: the run stops before it, skips it, or applies it
    anyway.
    """
    diagnostics: bool = False
    """Measure the gradient's variance and signal, and the critic's explained variance, at every
    update.
    """
    preset: str | None = field(default=AUTO, compare=False)
    """Name of the estimator or variant whose measured settings are the defaults; auto: that of
    `estimator`; none: plain defaults, the same for every estimator.
    """

    def __post_init__(self) -> None:
        """Raises ValueError naming the field, the value and the range."""
        for name, value in checked_fields(self).items():
            object.__setattr__(self, name, value)
        check_fit(self)

    @property
    def steps_per_update(self) -> int:
        """Steps of the optimizer in each update: one for each minibatch of each pass over the
        batch.
        """
        if self.minibatch_size is None:
            return self.num_epochs * self.num_minibatches
        return self.num_epochs * (self.num_envs * self.num_steps // self.minibatch_size)

    @property
    def envs_at_once(self) -> int:
        """Number of environments that are stepped together: those of a micro-batch, or all."""
        if self.micro_batches == "auto":
            return self.num_envs
        return self.num_envs // self.micro_batches

    def lasting(self, total_steps: int) -> "Config":
        """This config with num_updates = ⌈total_steps / environment steps of an update⌉, per seed.

        Raises ValueError with episodes, whose length is not known in advance.
        """
        if (
            isinstance(total_steps, bool)
            or not isinstance(total_steps, Integral)
            or total_steps < 1
        ):
            raise ValueError(
                f"total_steps must be a whole number of at least 1, got {shown(total_steps)}"
            )
        if self.collect != "windows":
            raise ValueError(
                "total_steps needs collect='windows': with episodes, whose length is not known "
                "ahead, give num_updates, of num_envs episodes each"
            )
        steps = self.num_envs * self.num_steps * self.action_repeat
        return replace(self, num_updates=-(-int(total_steps) // steps))

    @property
    def title(self) -> str:
        """The names of estimator and environment, for messages."""
        return f"{part_name(self.estimator)} on {name_of(self.env)}"

    def to_json(self) -> dict[str, Any]:
        """The config as JSON-able data; parts that are objects or functions are written as names,
        from which they cannot be restored.
        """
        names = [field.name for field in fields(self) if field.name != "preset"]
        data = {name: getattr(self, name) for name in names}
        widths = self.critic_hidden_sizes
        return {
            **data,
            **{name: part_name(part) for name, part in own_parts(self).items()},
            **{name: value.digest for name in STORED if (value := getattr(self, name)) is not None},
            "env": name_of(self.env),
            "env_params": dict(self.env_params),
            "hidden_sizes": list(self.hidden_sizes),
            "critic_hidden_sizes": None if widths is None else list(widths),
            "conv": list(self.conv),
            "observe": list(self.observe),
            "critic_observe": list(self.critic_observe),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Config":
        """The config that `to_json` wrote. Raises ValueError for a field that does not exist, or a
        wrong value; a file that it names is not executed. Stored parameters are only their
        digest.
        """
        check_field_names("Config", data, [field.name for field in fields(cls)])
        for name in PARTS:
            if own_files.is_reference(data.get(name)):
                raise ValueError(
                    f"{name} is {shown(data[name])}, and code that stored settings name is "
                    f"not executed: give the {name} itself"
                )
        return cls(**{**from_digests(data), "preset": None})

    def hyperparams(self, **changes: Any) -> "Hyperparams":
        """The Hyperparams that go with this Config, with fields changed by name.

        Those of its preset; with `preset=None` the defaults of `Hyperparams`. Arrays, which may be
        traced, are not read.

        Raises ValueError for a field that does not exist, or a number out of range.
        """
        check_numbers(changes)
        return Hyperparams(**{**_preset_of_hyperparams(self), **changes})


@checking_names
class Hyperparams(NamedTuple):
    """The traceable half of a run: every leaf may be an array under `jit` and `vmap`."""

    learning_rate: Any = 0.003
    """Step size of the optimizer; for n_harpg and n_igt the length of the policy's step. Adam's
    steps are up to learning_rate √P long for P parameters: those two need about ten times as much,
    and a tenth of the critic_rate.
    """
    gamma: Any = 1.0
    """Discount γ of the objective, in [0, 1], per decision; reported returns are
    undiscounted.
    """
    gae_lambda: Any = 0.95
    """Mixing λ of the generalised advantage, in [0, 1]."""
    n_step: Any = 5
    """Number n of rewards before actor_critic bootstraps from V."""
    epsilon: Any = 0.2
    """Clip range ε of the importance ratio (ppo, grpo)."""
    value_epsilon: Any = math.inf
    """Clip range of the critic: the largest change of V on one batch; inf: no clipping (ppo)."""
    stop_kl: Any = math.inf
    """Mean KL divergence from the behaviour policy, in nats, beyond which the remaining steps on a
    batch are skipped; inf: never (ppo, grpo).
    """
    epsilon_high: Any = 0.28
    """Clip range of the importance ratio above 1, if it differs from epsilon, that below 1 (DAPO,
    2503.14476).
    """
    ratio_bound: Any = 3.0
    """Largest importance ratio, at least 1 (dual clipping; truncated weights), or largest
    exponential weight (regressions).
    """
    advantage_scale: Any = 1.0
    """Scale η of advantages or returns in the weights exp(A / η) of a target policy, in their
    units; the larger, the closer the target is to the old policy (regressions, mdpo).
    """
    gate_rising: Any = 1.0
    """Temperature of the soft gate for advantages above 0 (SAPO, 2511.20347)."""
    gate_falling: Any = 1.05
    """Temperature of the soft gate for other advantages."""
    kl_coef: Any = 0.0
    """Weight β of the KL divergence from the reference policy, the one at the start of the run."""
    kl_target: Any = 6.0
    """Target of an adaptive β: the KL divergence from the reference policy, in nats per episode
    (1909.08593).
    """
    kl_gain: Any = 0.1
    """Gain K of an adaptive β, in [0, 1]: it changes by at most a fifth of K with each batch."""
    beta: Any = 0.9
    """Decay β of the trace of scores, in [0, 1]; the closer to 1, the less bias and the more
    variance (gpomdp).
    """
    undiscounted_state_weighting: Any = 0.0
    """0 weights step t by γᵗ, as in the theorem; 1 drops the weight, as is common (actor_critic,
    gae, vtrace, ppo, advantage_weighted_regression, v_mpo, mdpo).
    """
    entropy_coef: Any = 0.0
    """Weight of the entropy bonus in the loss, per step."""
    temperature: Any = 0.0
    """Weight τ of -log π in the reward: entropy that counts in the future too (π the policy that
    learns).
    """
    value_coef: Any = 0.5
    """Weight of the critic's squared error, per step."""
    critic_rate: Any = 1.0
    """The critic's step size, as a multiple of learning_rate."""
    baseline: Any = 0.0
    """The constant b of constant_baseline."""
    baseline_decay: Any = 0.9
    """Decay rate of the moving_average baseline, in [0, 1)."""
    adam_epsilon: Any = 1e-8
    """Adam's ε, added to the root of the second moment (adam and its variants); implementations of
    PPO take 1e-5.
    """
    max_grad_norm: Any = 100.0
    """Largest global norm of the gradient, of policy and critic each; inf: no clipping (without
    effect on the policy's steps of n_harpg and n_igt).
    """
    damping: Any = 0.01
    """Constant added to the diagonal of the Fisher matrix (natural, trpo)."""
    max_kl: Any = 0.01
    """Largest mean KL divergence of a step, in nats per state (trpo); largest divergence of the
    weights of a batch from equal ones (v_mpo).
    """
    momentum: Any = 0.9
    """Momentum of the direction, in [0, 1]; 0: the plain gradient (storm, harpg, n_harpg, igt,
    n_igt; below 1 for the last two).
    """
    snapshot_period: Any = 10
    """Number of updates between two snapshots of the parameters (svrpg)."""
    restart_probability: Any = 0.1
    """Probability that an update uses the plain gradient of its batch, in [0, 1] (page_pg)."""
    env_params: Mapping[str, Any] = {}  # read only, an empty pytree
    """Traced overrides of the environment's parameters (in Python, for sweeps)."""

    def scalars(self) -> dict[str, Any]:
        """The fields by name, without `env_params`."""
        return {name: value for name, value in self._asdict().items() if name != "env_params"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Hyperparams":
        """The Hyperparams of stored `scalars`, with "inf" for infinity: strict JSON has none.

        Raises ValueError for a field that does not exist, or a wrong value.
        """
        check_field_names("Hyperparams", data, cls().scalars())
        values: dict[str, Any] = {
            name: _INFINITE.get(v, v) if isinstance(v, str) else v for name, v in data.items()
        }
        return check_hyperparams(cls(**values))


def merge_env_params(config: Config, hyperparams: Hyperparams) -> tuple[Config, Hyperparams]:
    """The same settings with all parameters of the environment in Config, where files keep them.

    Raises ValueError for a parameter that is not one number.
    """
    if not hyperparams.env_params:
        return config, hyperparams
    own = {
        name: value.item() if getattr(value, "shape", None) == () else value
        for name, value in hyperparams.env_params.items()
    }
    config = replace(config, env_params={**dict(config.env_params), **own})
    return config, hyperparams._replace(env_params={})


_INFINITE = {"inf": math.inf, "-inf": -math.inf}


def check_config(config: Any) -> None:
    """Raises ValueError, with a hint, unless `config` is a Config."""
    instead = "write pg.Config(env=..., estimator=...)"
    if isinstance(config, tuple) and any(isinstance(part, Config) for part in config):
        instead = (
            "pg.preset gives a pair, so write make_train(*pg.preset(...)), or config, h = "
            "pg.preset(...)"
        )
    elif isinstance(config, Hyperparams):
        instead = "the Config comes first, and then the Hyperparams"
    elif isinstance(config, Mapping):
        instead = f"write pg.Config({keywords(config)})"
    elif isinstance(config, str):
        instead = (
            f"write pg.Config(env={config!r})"
            if config not in NAMES
            else f"write *pg.preset({config!r})"
        )
    check_kind("config", config, Config, instead)


def check_is_hyperparams(hyperparams: Any) -> None:
    """Raises ValueError, with a hint, unless `hyperparams` are Hyperparams with any leaves."""
    instead = "write config.hyperparams(learning_rate=...)"
    if isinstance(hyperparams, Config):
        instead = "the Config comes first, and then the Hyperparams"
    elif isinstance(hyperparams, Mapping):
        instead = f"write config.hyperparams({keywords(hyperparams)})"
    elif isinstance(hyperparams, Real):
        instead = f"write config.hyperparams(learning_rate={hyperparams})"
    check_kind("hyperparams", hyperparams, Hyperparams, instead)


def check_hyperparams(hyperparams: Hyperparams) -> Hyperparams:
    """`hyperparams`, after checking that each Python number in it is in its range; scalar arrays
    and tracers pass unread. Integers become floats, except in fields that count, as integers of jax
    have 32 bits.

    Raises ValueError naming the field, the value and the allowed range.
    """
    check_is_hyperparams(hyperparams)
    checked = hyperparams._replace(**checked_scalars(hyperparams.scalars()))
    check_env_params(hyperparams.env_params)
    return checked


def _preset_of_hyperparams(config: Config) -> dict[str, Any]:
    """The fields of Hyperparams that the preset of a Config changes; {} if it has none."""
    preset = preset_of(vars(config))
    return {name: value for name, value in preset.items() if name in Hyperparams._fields}


def _check_pair(config: Config, hyperparams: Hyperparams) -> None:
    """Raises ValueError for Hyperparams that ignore the Config's preset."""
    plain = Hyperparams()
    wanted = {
        name: value
        for name, value in _preset_of_hyperparams(config).items()
        if value != getattr(plain, name)
    }
    given = {name: getattr(hyperparams, name) for name in wanted}
    if wanted and all(_is_number(x, getattr(plain, name)) for name, x in given.items()):
        raise ValueError(
            f"the hyperparameters have none of the values that go with estimator="
            f"{part_name(config.estimator)!r} ({keywords(wanted)}): write config.hyperparams(...), "
            "which changes these by name, or Config(..., preset=None)"
        )


def _is_number(x: Any, value: float) -> bool:
    """True for a number, or an array of numpy, that is `value`; arrays of jax are not read."""
    if isinstance(x, Real):
        return bool(x == value)
    return type(x).__module__ == "numpy" and bool((x == value).all())


# The hyperparameters of which `check_together` reads the values.
READ_TOGETHER = ("temperature", "momentum", "stop_kl")


def check_together(config: Config, hyperparams: Hyperparams) -> None:
    """Raises ValueError for a number that other settings exclude, also in an array of NumPy; arrays
    of JAX and tracers pass unread.
    """
    _check_pair(config, hyperparams)
    for temperature in _values(hyperparams.temperature):
        if config.optimizer in AT_OTHER_PARAMETERS and temperature != 0:
            raise ValueError(
                f"optimizer={config.optimizer!r} needs a Ψ that does not depend on the policy, and "
                f"with temperature={temperature!r} the reward contains -log π; use entropy_coef, "
                "or another optimizer"
            )
    for momentum in _values(hyperparams.momentum):
        if config.optimizer in EXTRAPOLATING and momentum > BELOW_ONE:
            raise ValueError(
                f"optimizer={config.optimizer!r} looks momentum / (1 - momentum) steps ahead: "
                f"momentum must be below 1 in 32 bits, got {float(momentum)!r}"
            )
    for stop_kl in _values(hyperparams.stop_kl):
        if config.policy_lag and math.isfinite(stop_kl):
            raise ValueError(
                f"stop_kl={stop_kl!r} bounds the divergence from the policy that collected the "
                f"batch, which with policy_lag={config.policy_lag} is large before the first step, "
                "so that no step may be taken: leave stop_kl out"
            )


def _values(x: Any) -> list[Any]:
    """A number, or the numbers of an array of numpy; [] of anything else."""
    if isinstance(x, Real):
        return [x]
    return x.ravel().tolist() if type(x).__module__ == "numpy" else []
