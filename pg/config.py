"""What a run depends on besides its key: `Config` (static, JSON) and `Hyperparams` (traceable
scalars).

A change of `Config` recompiles; every leaf of `Hyperparams` may be traced, so each can be vmapped
in one program. Nothing here imports jax: a mistake is reported in a fraction of a second, before
any heavy import.
"""

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from pg.estimators.facts import FACTS, Collect, estimators_with
from pg.inputs import (
    COUNTABLE,
    EXAMPLE,
    LARGEST,
    assignments,
    check_kind,
    check_name,
    count,
    counts,
    nearest,
    shown,
)
from pg.tuned import VARIANTS, defaults

Architecture = Literal["auto", "mlp", "cnn"]
ImageLayout = Literal["auto", "hwc", "chw"]
Activation = Literal["tanh", "relu", "elu", "gelu", "silu"]
Schedule = Literal["constant", "linear", "cosine"]
ActionDistribution = Literal["gaussian", "censored", "squashed"]
RNN = Literal["none", "gru", "lstm"]
Advantages = Literal["raw", "batch", "minibatch"]
Shard = Literal["seeds", "envs"]
OnNonfinite = Literal["stop", "skip", "ignore"]
CriticOptimizer = Literal["adam", "adamw", "amsgrad", "lion", "nadam", "radam", "rmsprop", "sgd"]
# these ask for the policy or the estimator
PolicyOptimizer = Literal["natural", "trpo", "storm", "svrpg"]
Optimizer = CriticOptimizer | PolicyOptimizer

# gymnax's own names (a test holds this tuple equal to its registry), so that a typing error needs
# no import.
ENVIRONMENTS = (
    *("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *(
        "Asterix-MinAtar",
        "Breakout-MinAtar",
        "Freeway-MinAtar",
        "Seaquest-MinAtar",
        "SpaceInvaders-MinAtar",
    ),
    *("Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite", "UmbrellaChain-bsuite"),
    *("DiscountingChain-bsuite", "MNISTBandit-bsuite", "SimpleBandit-bsuite"),
    *(
        "FourRooms-misc",
        "MetaMaze-misc",
        "PointRobot-misc",
        "BernoulliBandit-misc",
        "GaussianBandit-misc",
    ),
    *("Reacher-misc", "Swimmer-misc", "Pong-misc", "FrozenLake-misc"),
)

# Libraries whose environments are named "library:environment" (a test holds this equal to
# pg.envs.adapters').
LIBRARIES = ("brax", "craftax", "gymnasium", "jumanji", "navix")

UNSUPPORTED = {
    "MNISTBandit-bsuite": "gymnax downloads its images unverified when it is constructed, and "
    "parses pixels above 127 as negative numbers",
}

_Settings = TypeVar("_Settings", bound=type)


def _checking_names(kind: _Settings) -> _Settings:
    """Lets a class of settings say which name is meant, where it is given one that it does not
    have.
    """

    def checking(plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def checked(*args: Any, **values: Any) -> Any:
            _check_names(kind.__name__, values)
            return plain(*args, **values)

        return checked

    if issubclass(kind, tuple):
        kind.__new__ = staticmethod(checking(kind.__new__))  # type: ignore[method-assign]
        kind._replace = checking(kind._replace)  # type: ignore[attr-defined]
    else:
        kind.__init__ = checking(kind.__init__)  # type: ignore[method-assign]
    return kind


def _filling_in(kind: _Settings) -> _Settings:
    """Has the fields of Config that are not given come from its preset."""
    plain = kind.__init__  # type: ignore[misc]

    @functools.wraps(plain)
    def filled(self: Any, *args: Any, **values: Any) -> None:
        names = [field.name for field in fields(kind)]
        given = {**dict(zip(names, args, strict=False)), **values}
        if len(args) <= len(names):
            args = ()
        preset = {name: value for name, value in _preset_of(given).items() if name in names}
        plain(self, *args, **{**preset, **given})

    kind.__init__ = filled  # type: ignore[misc]
    return kind


def _preset_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The preset that goes with given fields of Config: settings of Config and of Hyperparams."""
    preset = given.get("preset", AUTO)
    label = given.get("estimator", Config.estimator) if preset == AUTO else preset
    if not isinstance(label, str):  # None: no preset; else a mistake, which has its own sentence
        return {}
    return defaults(label, given.get("env"), given.get("minibatch_size"))


AUTO = "auto"


@_checking_names
@_filling_in
@dataclass(frozen=True)
class Config:
    """The static half of a run; `hyperparams` gives the other half that goes with it.

    Fields that are not given have the values with which the estimator was measured to learn on the
    environment, as on the command line: `Config(estimator="ppo")` is what `--estimator ppo` runs.
    With `preset=None` they have the defaults below, whatever the estimator: those of REINFORCE.
    """

    env: Any = "CartPole-v1"
    """Name of a gymnax environment, or library:name, as brax:ant (in Python also an environment
    object).
    """
    env_params: Any = ()
    """Overrides of the environment's parameters, as NAME=VALUE."""
    estimator: str = "reinforce"
    """Name of the gradient estimator."""
    collect: Collect = "episodes"
    """Complete episodes from fresh resets, or windows that continue from the last update."""
    num_updates: int = 80
    """Gradient steps G (batches collected)."""
    num_envs: int = 25
    """Environments side by side: the N episodes of a batch, or the rows of a window."""
    num_steps: int = 128
    """Length of a window; unused with episodes."""
    group_size: int = 1
    """Episodes in a row that share their initial state and are compared (grpo,
    group_leave_one_out).
    """
    horizon: int | None = None
    """Longest episode H, in decisions, in training and evaluation; none: the environment's own time
    limit.
    """
    action_repeat: int = 1
    """Environment steps for which an action is held, fewer where the episode ends; γ is per action,
    not per step.
    """
    observe: tuple[int, ...] = ()
    """Entries of the observation that are seen, of a vector; none: all (0 2 hides the velocities of
    CartPole).
    """
    num_epochs: int = 1
    """Passes over each batch (ppo, grpo)."""
    num_minibatches: int = 1
    """Minibatches in each pass, split over environments, or over whole groups of them (ppo,
    grpo).
    """
    minibatch_size: int | None = None
    """Steps of a minibatch, drawn from all of a window's; none: whole environments, by
    num_minibatches (ppo).
    """
    advantages: Advantages = "raw"
    """Ψ of estimators with a critic V: as it is, or standardised over the batch or each minibatch
    (biased).
    """
    normalise_observations: bool = False
    """Networks see observations less their running mean, over their running standard deviation,
    within ±10.
    """
    scale_rewards: bool = False
    """Learning sees rewards over the returns' running deviation (at least a tenth of their range),
    unclipped.
    """
    network: Architecture = "auto"
    """Torso of policy and critic; auto: cnn for images, else mlp."""
    image_layout: ImageLayout = "auto"
    """Axes of an image: height, width, channels (hwc) or channels first (chw); auto: by the
    shape.
    """
    scale_observations: bool = False
    """Networks see observations scaled to [0, 1] by the bounds of their space: frames of bytes over
    255.
    """
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the dense hidden layers."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    rnn: RNN = "none"
    """Recurrent cell behind the dense layers, of policy and critic each."""
    rnn_size: int = 64
    """Width of the recurrent cell."""
    shared_torso: bool = False
    """The critic V is a head on the policy's own layers; both losses then train these."""
    action_distribution: ActionDistribution = "gaussian"
    """Continuous actions: a Gaussian that the environment clips, the law of the clipped action
    itself, or tanh.
    """
    state_dependent_std: bool = False
    """Continuous actions: the standard deviation is an output of the network instead of a
    parameter.
    """
    optimizer: Optimizer = "adam"
    """Optimizer of optax (sgd: the bare theorem), with curvature (natural, trpo), or with memory
    (storm, svrpg).
    """
    critic_optimizer: CriticOptimizer | None = None
    """Optimizer of the critic; none: that of the policy, or adam where that needs a policy."""
    schedule: Schedule = "constant"
    """Schedule of the learning rate, annealed to zero over the run unless constant; steps left out
    count too.
    """
    entropy_schedule: Schedule = "constant"
    """Schedule of entropy_coef and temperature, annealed to zero over the run unless constant."""
    epsilon_schedule: Schedule = "constant"
    """Schedule of the clip ranges epsilon and value_epsilon, annealed to zero over the run unless
    constant.
    """
    on_nonfinite: OnNonfinite = "stop"
    """An update with a NaN or an infinity: the run stops before it, skips it, or takes it all the
    same.
    """
    diagnostics: bool = False
    """Measure the gradient's variance and signal, and what the critic explains, at every update."""
    preset: str | None = field(default=AUTO, compare=False)
    """Label of the defaults: an estimator's name, or a variant's; auto: the estimator's; none: the
    same for all.
    """

    def __post_init__(self) -> None:
        """Normalises containers and checks every field. Raises ValueError naming field, value and
        range.
        """
        object.__setattr__(self, "env_params", assignments(self.env_params))
        for name, low in (("hidden_sizes", 1), ("observe", 0)):
            object.__setattr__(self, name, counts(name, getattr(self, name), low))
        if isinstance(self.env, str):
            check_env(self.env)
        else:
            check_interface(self.env)
        check_name("estimator", self.estimator, FACTS)
        if self.preset is not None:
            check_name("preset", self.preset, [AUTO, *FACTS, *VARIANTS])
        for name, choices in _CHOICES.items():
            check_name(name, getattr(self, name), choices)
        if self.critic_optimizer is not None:
            check_name("critic_optimizer", self.critic_optimizer, get_args(CriticOptimizer))
        for each in fields(self):
            value = getattr(self, each.name)
            is_optional = each.name in ("horizon", "minibatch_size")
            if each.type is int or (is_optional and value is not None):
                object.__setattr__(self, each.name, count(each.name, value))
            if each.type is bool and not isinstance(value, bool):
                raise ValueError(f"{each.name} must be True or False, got {shown(value)}")
        check_network(self)
        self._check_batch()
        self._check_parts()
        self._check_counters()

    def _check_batch(self) -> None:
        """That estimator, way of collecting and shape of the batch fit together."""
        facts = FACTS[self.estimator]
        if self.collect not in facts.collect:
            others = [name for name, row in FACTS.items() if self.collect in row.collect]
            only = facts.collect[0]
            why = {
                "episodes": "sums the reward to the end of the episode",
                "windows": "is for a task without end",
            }
            raise ValueError(
                f"estimator={self.estimator!r} {why[only]} and so needs collect={only!r}; "
                f"with collect={self.collect!r} use one of: {', '.join(others)}"
            )
        if facts.baseline == "batch" and self.num_envs < 2:
            raise ValueError(
                f"num_envs must be at least 2 for estimator={self.estimator!r}, whose baseline is "
                f"the other episodes of the batch; got {self.num_envs}"
            )
        if facts.baseline == "group" and self.group_size < 2:
            raise ValueError(
                f"group_size must be at least 2 for estimator={self.estimator!r}, which compares "
                f"episodes that share their initial state; got {self.group_size}"
            )
        if self.diagnostics and self.num_envs < 2:
            raise ValueError(
                f"num_envs must be at least 2 for diagnostics, a variance; got {self.num_envs}"
            )
        if self.num_envs % self.group_size:
            raise ValueError(
                f"group_size must divide num_envs={self.num_envs}, got {self.group_size}"
            )
        if self.group_size > 1 and self.collect != "episodes":
            raise ValueError(
                f"group_size={self.group_size} needs collect='episodes', got {self.collect!r}"
            )
        if self.minibatch_size is not None:
            self._check_minibatch_size(self.minibatch_size)
        if self.steps_per_update > 1 and not facts.several_steps:
            others = list(estimators_with(several_steps=True))
            raise ValueError(
                f"estimator={self.estimator!r} is on-policy: it takes one step on a batch, so "
                f"num_epochs and num_minibatches must be 1, got {self.num_epochs} and "
                f"{self.num_minibatches}; use one of: {', '.join(others)}"
            )
        if self.num_envs % self.num_minibatches:
            raise ValueError(
                f"num_minibatches must divide num_envs={self.num_envs}, got {self.num_minibatches}"
            )
        num_groups = self.num_envs // self.group_size
        if num_groups % self.num_minibatches:
            raise ValueError(
                f"num_minibatches must divide the {num_groups} groups of num_envs={self.num_envs} "
                f"and "
                f"group_size={self.group_size}, as a minibatch holds whole groups; got "
                f"{self.num_minibatches}"
            )
        # Of episodes whose longest is not known here, `envs.configured` asks.
        if self.collect == "windows" or self.horizon is not None:
            check_standardised(
                self, self.num_steps if self.collect == "windows" else self.horizon or 1
            )

    def _check_minibatch_size(self, size: int) -> None:
        """Raises ValueError unless minibatches of single steps can be drawn: no step may know its
        neighbours.
        """
        if not FACTS[self.estimator].several_steps:
            raise ValueError(
                f"estimator={self.estimator!r} is on-policy: it takes one step on a batch, so "
                f"minibatch_size must not be given, got {size}; use estimator='ppo'"
            )
        if self.collect != "windows":
            raise ValueError(
                f"minibatch_size={size} counts steps and so needs collect='windows', got "
                f"{self.collect!r}, whose steps are not known ahead, and where groups stay whole: "
                f"give num_minibatches"
            )
        if self.rnn != "none":
            raise ValueError(
                f"minibatch_size={size} shuffles steps and so needs rnn='none', got {self.rnn!r}, "
                "which is learned from whole sequences: give num_minibatches"
            )
        if self.num_minibatches != 1:
            raise ValueError(
                f"minibatch_size={size} and num_minibatches={self.num_minibatches} exclude each "
                "other: give one of them (with minibatch_size, num_minibatches is 1)"
            )
        steps = self.num_envs * self.num_steps
        if steps % size:
            raise ValueError(
                f"minibatch_size must divide num_envs × num_steps = {self.num_envs} × "
                f"{self.num_steps} = {steps}, got {size}"
            )

    @property
    def steps_per_update(self) -> int:
        """Steps of the optimizer in each update: one for each minibatch of each pass over the
        batch.
        """
        if self.minibatch_size is None:
            return self.num_epochs * self.num_minibatches
        return self.num_epochs * (self.num_envs * self.num_steps // self.minibatch_size)

    def _check_parts(self) -> None:
        """That networks, optimizer and estimator fit together."""
        if self.scale_observations and self.normalise_observations:
            raise ValueError(
                "scale_observations and normalise_observations exclude each other: by the bounds "
                "of the space, or by running statistics"
            )
        if self.image_layout != "auto" and self.network == "mlp":
            raise ValueError(
                f"image_layout={self.image_layout!r} is for network='cnn': an mlp "
                f"takes no axes apart"
            )
        facts = FACTS[self.estimator]
        if self.optimizer == "trpo" and facts.critic == "Q":
            raise ValueError(
                f"optimizer='trpo' measures its step by the action that was taken, and "
                f"estimator={self.estimator!r} weighs all of them; use optimizer='natural'"
            )
        if self.optimizer in ("storm", "svrpg") and self.collect != "episodes":
            raise ValueError(
                f"optimizer={self.optimizer!r} weighs whole episodes and so needs "
                f"collect='episodes'"
            )
        if self.optimizer in ("storm", "svrpg") and facts.psi_depends_on_policy:
            free = estimators_with(psi_depends_on_policy=False)
            others = [name for name in free if "episodes" in FACTS[name].collect]
            raise ValueError(
                f"optimizer={self.optimizer!r} needs an estimator whose Ψ does not depend on the "
                f"policy, "
                f"and that of estimator={self.estimator!r} does; use one of: "
                f"{', '.join(others)}"
            )
        if self.rnn != "none" and self.optimizer in ("natural", "trpo"):
            raise ValueError(
                f"optimizer={self.optimizer!r} needs a policy without memory, got {self.rnn!r}"
            )
        if self.shared_torso and self.optimizer in get_args(PolicyOptimizer):
            raise ValueError(
                f"optimizer={self.optimizer!r} is for the policy's own gradient, and with "
                "shared_torso the critic's is part of it"
            )
        for name, changed in (
            ("shared_torso", self.shared_torso),
            ("advantages", self.advantages != "raw"),
        ):
            if changed and facts.critic != "V":
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is for estimators with a critic V: "
                    f"{', '.join(estimators_with(critic='V'))}; got estimator={self.estimator!r}"
                )

    def _check_counters(self) -> None:
        """That what is counted fits into 32 bits; `envs.configured` knows the environment's own
        time limit.
        """
        longest = self.num_steps if self.collect == "windows" else self.horizon or 1
        check_steps(self, longest)
        steps = self.num_updates * self.steps_per_update
        if steps >= COUNTABLE:
            minibatches, name = self.num_minibatches, "num_minibatches"
            if self.minibatch_size is not None:
                minibatches = self.steps_per_update // self.num_epochs
                name = "(num_envs × num_steps / minibatch_size)"
            raise ValueError(
                f"num_updates × num_epochs × {name}, the steps of the optimizer, must be below "
                f"2^31; got {self.num_updates} × {self.num_epochs} × {minibatches} = {steps}"
            )

    def lasting(self, total_steps: int) -> "Config":
        """This, with the updates that take at least so many environment steps per seed: ⌈total /
        steps of one⌉.

        Raises ValueError with episodes, whose length is not known ahead.
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

    def to_json(self) -> dict[str, Any]:
        """The config as JSON-able data; an environment object is written as its name."""
        names = [field.name for field in fields(self) if field.name != "preset"]
        data = {name: getattr(self, name) for name in names}
        return {
            **data,
            "env": name_of(self.env),
            "env_params": dict(self.env_params),
            "hidden_sizes": list(self.hidden_sizes),
            "observe": list(self.observe),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Config":
        """The config that `to_json` wrote. Raises ValueError for a field that does not exist, or a
        wrong value.
        """
        _check_fields("Config", data, [field.name for field in fields(cls)])
        return cls(**{**data, "preset": None})

    def hyperparams(self, **changes: Any) -> "Hyperparams":
        """The Hyperparams that go with this Config, with fields changed by name.

        Those of its preset; with `preset=None` the defaults of `Hyperparams`. Raises ValueError for
        a field that does not exist.
        """
        return Hyperparams(**{**_preset_of_hyperparams(self), **changes})


@_checking_names
class Hyperparams(NamedTuple):
    """The traceable half of a run: every leaf may be an array under `jit` and `vmap`."""

    learning_rate: Any = 0.003
    """Step size of the optimizer."""
    gamma: Any = 1.0
    """Discount γ of the objective, in [0, 1], per decision; the returns that are reported are
    undiscounted.
    """
    gae_lambda: Any = 0.95
    """Mixing λ of the generalised advantage, in [0, 1]."""
    n_step: Any = 5
    """Rewards n before actor_critic bootstraps from V."""
    epsilon: Any = 0.2
    """Clip range ε of the importance ratio (ppo, grpo)."""
    value_epsilon: Any = math.inf
    """How far V may move on one batch; inf: anywhere (ppo)."""
    stop_kl: Any = math.inf
    """Mean KL divergence from the behaviour, in nats, beyond which a batch is left; inf: never
    (ppo, grpo).
    """
    beta: Any = 0.9
    """Decay β of the trace of scores, in [0, 1]; the closer to 1, the less bias and the more
    variance (gpomdp).
    """
    undiscounted_state_weighting: Any = 0.0
    """actor_critic, gae, ppo: 0 weights step t by γᵗ, as the theorem says; 1 drops it, as is
    common.
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
    """Memory of the moving_average baseline, in [0, 1)."""
    adam_epsilon: Any = 1e-8
    """Adam's ε, added to the root of its second moment (adam and what derives from it); PPO's codes
    take 1e-5.
    """
    max_grad_norm: Any = 100.0
    """Largest global norm of the gradient, of policy and critic each; inf: no clipping."""
    damping: Any = 0.01
    """What is added to the diagonal of the Fisher matrix (natural, trpo)."""
    max_kl: Any = 0.01
    """Largest mean KL divergence of a step, in nats per state (trpo)."""
    momentum: Any = 0.9
    """Share of the last direction that is carried on, in [0, 1]; 0: the plain gradient (storm)."""
    snapshot_period: Any = 10
    """Updates between two snapshots of the parameters (svrpg)."""
    env_params: Mapping[str, Any] = {}  # read only, an empty pytree
    """Traced overrides of the environment's parameters (in Python, for sweeps)."""

    def scalars(self) -> dict[str, Any]:
        """The fields by name, without `env_params`."""
        return {name: value for name, value in self._asdict().items() if name != "env_params"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Hyperparams":
        """What was written of `scalars`, with "inf" for infinity: strict JSON has none.

        Raises ValueError for a field that does not exist, or a wrong value.
        """
        _check_fields("Hyperparams", data, cls().scalars())
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


_CHOICES: dict[str, tuple[str, ...]] = {
    "collect": get_args(Collect),
    "advantages": get_args(Advantages),
    "action_distribution": get_args(ActionDistribution),
    "network": get_args(Architecture),
    "image_layout": get_args(ImageLayout),
    "activation": get_args(Activation),
    "rnn": get_args(RNN),
    "optimizer": get_args(CriticOptimizer) + get_args(PolicyOptimizer),
    "schedule": get_args(Schedule),
    "entropy_schedule": get_args(Schedule),
    "epsilon_schedule": get_args(Schedule),
    "on_nonfinite": get_args(OnNonfinite),
}

_BELOW_ONE = 1 - 2**-24  # what is closer to 1 is 1 in 32 bits
_FINITE = "finite (at most 3.4e38 in size)"
_WHOLE = "a whole number of at least 1 and below 2^31"
MOST_LAYERS = 100  # without shortcuts between them, far fewer can still be trained
MOST_WEIGHTS = 10**9  # of one network; with Adam 16 GB
_INTERFACE = ("reset", "step", "default_params", "action_space")
_INFINITE = {"inf": math.inf, "-inf": -math.inf}

WHOLE_NUMBERS = ("n_step", "snapshot_period")  # of Hyperparams

# What is asked of a class of settings, and said elsewhere.
_ELSEWHERE = {
    "total_steps": "write num_updates=..., or pg.Config(...).lasting(total_steps=...), which "
    "computes it",
    "seed": "the seed is the key that training is given, as in "
    "pg.make_train(config)(jax.random.key(0))",
    "seeds": "seeds are the keys that training is given, as in pg.run(config, hyperparams, "
    "range(5))",
}

_RANGES: dict[str, tuple[float, float, str]] = {
    "learning_rate": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "gamma": (0.0, 1.0, "in [0, 1]"),
    "gae_lambda": (0.0, 1.0, "in [0, 1]"),
    "n_step": (1, COUNTABLE - 1, _WHOLE),
    "epsilon": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "value_epsilon": (0.0, math.inf, "at least 0 (inf: no clipping)"),
    "stop_kl": (0.0, math.inf, "at least 0 (inf: never)"),
    "beta": (0.0, 1.0, "in [0, 1]"),
    "undiscounted_state_weighting": (0.0, 1.0, "in [0, 1]"),
    "entropy_coef": (-LARGEST, LARGEST, _FINITE),
    "temperature": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "value_coef": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "critic_rate": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "baseline": (-LARGEST, LARGEST, _FINITE),
    "baseline_decay": (0.0, _BELOW_ONE, "in [0, 1), and not 1 in 32 bits"),
    "adam_epsilon": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "max_grad_norm": (sys.float_info.min, math.inf, "above 0 (inf: no clipping)"),
    "damping": (0.0, LARGEST, f"{_FINITE} and at least 0"),
    "max_kl": (sys.float_info.min, LARGEST, f"{_FINITE} and above 0"),
    "momentum": (0.0, 1.0, "in [0, 1]"),
    "snapshot_period": (1, COUNTABLE - 1, _WHOLE),
}


def check_config(config: Any) -> None:
    """Raises ValueError, which says what to write instead, unless `config` is a Config."""
    instead = "write pg.Config(env=..., estimator=...)"
    if isinstance(config, tuple) and any(isinstance(part, Config) for part in config):
        instead = (
            "pg.preset gives a pair, so write make_train(*pg.preset(...)), or config, h = "
            "pg.preset(...)"
        )
    elif isinstance(config, Hyperparams):
        instead = "the Config comes first, and then the Hyperparams"
    elif isinstance(config, Mapping):
        instead = f"write pg.Config({_keywords(config)})"
    elif isinstance(config, str):
        instead = (
            f"write pg.Config(env={config!r})"
            if config not in FACTS
            else f"write *pg.preset({config!r})"
        )
    check_kind("config", config, Config, instead)


def check_is_hyperparams(hyperparams: Any) -> None:
    """Raises ValueError, which says what to write instead, unless `hyperparams` are Hyperparams of
    any leaves.
    """
    instead = "write pg.Hyperparams(learning_rate=...)"
    if isinstance(hyperparams, Config):
        instead = "the Config comes first, and then the Hyperparams"
    elif isinstance(hyperparams, Mapping):
        instead = f"write pg.Hyperparams({_keywords(hyperparams)})"
    elif isinstance(hyperparams, Real):
        instead = f"write pg.Hyperparams(learning_rate={hyperparams})"
    check_kind("hyperparams", hyperparams, Hyperparams, instead)


def check_hyperparams(hyperparams: Hyperparams) -> Hyperparams:
    """`hyperparams`, once each Python number in it is in its range; scalar arrays and tracers pass
    unread. Whole numbers become floats, but in fields that count: jax's own have 32 bits.

    Raises ValueError naming the field, the value and the allowed range.
    """
    check_is_hyperparams(hyperparams)
    for name, (low, high, allowed) in _RANGES.items():
        value, field = getattr(hyperparams, name), name
        if isinstance(value, Real) and not isinstance(value, bool):
            number: Any = value if isinstance(value, Integral) else float(value)
            # a NaN is nowhere
            inside = low <= number <= high and (number <= LARGEST or number == math.inf)
            if not inside or (allowed == _WHOLE and isinstance(number, float)):
                raise ValueError(f"{field} must be {allowed}, got {value!r}")
            if name not in WHOLE_NUMBERS and isinstance(value, Integral):
                as_float: dict[str, Any] = {name: float(value)}
                hyperparams = hyperparams._replace(**as_float)
        elif not str(getattr(value, "dtype", "")).startswith(("float", "bfloat", "int", "uint")):
            raise ValueError(f"{field} must be {allowed}, got {shown(value)}")
        elif value.shape != ():
            raise ValueError(
                f"{field} must be one number, got an array of shape {value.shape}: vmap over it"
            )
    rates = hyperparams.learning_rate, hyperparams.critic_rate
    if (
        all(isinstance(rate, Real) for rate in rates)
        and float(rates[0]) * float(rates[1]) > LARGEST
    ):
        raise ValueError(
            f"learning_rate × critic_rate must be {_FINITE}, got {rates[0]!r} × {rates[1]!r}"
        )
    check_env_params(hyperparams.env_params)
    return hyperparams


def check_env_params(env_params: Any) -> None:
    """Raises ValueError unless these are names with numbers in range; arrays and tracers pass
    unread.
    """
    if not isinstance(env_params, Mapping):
        raise ValueError(
            f"env_params must be names with numbers, as in {EXAMPLE}; got {shown(env_params)}"
        )
    assignments({k: v for k, v in env_params.items() if not hasattr(v, "shape")})


def _preset_of_hyperparams(config: Config) -> dict[str, Any]:
    """The fields of Hyperparams that the preset of a Config changes; {} where it has none."""
    preset = _preset_of(vars(config))
    return {name: value for name, value in preset.items() if name in Hyperparams._fields}


def _check_pair(config: Config, hyperparams: Hyperparams) -> None:
    """Raises ValueError for Hyperparams that were made without regard to the Config's preset."""
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
            f"{config.estimator!r} ({_keywords(wanted)}): write config.hyperparams(...), which "
            "changes these by name, or Config(..., preset=None)"
        )


def _is_number(x: Any, value: float) -> bool:
    """True for a number, or an array of numpy, that is `value`; arrays of jax are not read."""
    if isinstance(x, Real):
        return bool(x == value)
    return type(x).__module__ == "numpy" and bool((x == value).all())


def check_together(config: Config, hyperparams: Hyperparams) -> None:
    """Raises ValueError for a number that the rest of the settings excludes; arrays and tracers
    pass unread.
    """
    _check_pair(config, hyperparams)
    temperature = hyperparams.temperature
    if (
        config.optimizer in ("storm", "svrpg")
        and isinstance(temperature, Real)
        and temperature != 0
    ):
        raise ValueError(
            f"optimizer={config.optimizer!r} needs a Ψ that does not depend on the policy, and "
            f"with temperature={temperature!r} the reward contains -log π; use entropy_coef, or "
            f"another optimizer"
        )


def check_network(config: Config, num_inputs: int = 1) -> None:
    """Raises ValueError for a network that nobody can want, before it is built, which would take
    for ever.

    num_inputs: what the first dense layer sees.
    """
    if len(config.hidden_sizes) > MOST_LAYERS:
        raise ValueError(
            f"hidden_sizes must be at most {MOST_LAYERS} layers, got {len(config.hidden_sizes)}"
        )
    sizes = (num_inputs, *config.hidden_sizes)
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    if config.rnn != "none":
        weights += 3 * config.rnn_size * (sizes[-1] + config.rnn_size)  # at least: an LSTM has 4
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"hidden_sizes and rnn_size must ask for at most {MOST_WEIGHTS:,} weights, got "
            f"{weights:,}, with {num_inputs} input(s)"
        )


def check_steps(config: Config, longest: int) -> None:
    """Raises ValueError unless the steps of one update can be counted. longest: of an episode, or
    of the window.
    """
    length = {"episodes": "horizon", "windows": "num_steps"}[config.collect]
    steps = config.num_envs * longest * config.action_repeat
    if steps >= COUNTABLE:
        raise ValueError(
            f"num_envs × {length} × action_repeat, the steps of one update, must be below 2^31; "
            f"got {config.num_envs} × {longest} × {config.action_repeat} = {steps}"
        )


def name_of(env: Any) -> str:
    """The name of an environment: itself, the object's `name`, as an attribute or a method, or that
    of its class.
    """
    name = env if isinstance(env, str) else getattr(env, "name", None)
    if callable(name):
        name = name()
    return name if isinstance(name, str) else type(env).__name__


def check_standardised(config: Config, longest: int) -> None:
    """Raises ValueError where advantages are standardised one by one. longest: of an episode, or of
    the window.
    """
    if config.advantages == "raw":
        return
    parts = 1 if config.advantages == "batch" else config.steps_per_update // config.num_epochs
    steps = config.num_envs * longest // parts
    if steps < 2:
        raise ValueError(
            f"advantages={config.advantages!r} needs at least 2 steps in what is standardised, as "
            f"one less its mean "
            f"is 0; got num_envs={config.num_envs} of at most {longest} and minibatches={parts}: "
            f"use advantages='raw'"
        )


def class_of(env: Any) -> str:
    """The class of an environment object, with its module."""
    return f"{type(env).__module__}.{type(env).__qualname__}"


def check_env(name: str) -> None:
    """Raises ValueError, with the nearest valid names, unless `name` is an environment that can
    run.
    """
    if ":" in name:  # the library itself, which is not loaded here, knows the rest of the name
        return check_name("library of environments", name.partition(":")[0], LIBRARIES)
    if name in UNSUPPORTED:
        raise ValueError(f"env={name!r} cannot run: {UNSUPPORTED[name]}")
    # the user's, if gymnax is loaded
    registered = getattr(sys.modules.get("gymnax"), "registered_envs", ())
    if name not in registered:
        check_name("env", name, ENVIRONMENTS)


def _check_names(kind: str, values: Mapping[str, Any]) -> None:
    """Raises ValueError for a name that is no field of this class of settings: one of the other's,
    or of none.
    """
    fields_of = {
        "Config": [field.name for field in fields(Config)],
        "Hyperparams": [*Hyperparams._fields],
    }
    own = fields_of.pop(kind)
    ((other, others),) = fields_of.items()
    for name in values:
        if name in own:
            continue
        near = nearest(name, [*own, *others, *_ELSEWHERE])
        meant = near[0] if near else None
        if meant in _ELSEWHERE:
            raise ValueError(f"{kind} has no field {name!r}: {_ELSEWHERE[meant]}")
        if meant in others:
            raise ValueError(
                f"{kind} has no field {name!r}: write pg.{other}({meant}={shown(values[name])})"
            )
        check_name(f"field of {kind}", name, own)


def _keywords(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def _check_fields(kind: str, data: Any, names: Iterable[str]) -> None:
    if not isinstance(data, Mapping):
        raise ValueError(f"{kind} must be stored as names with values, got {type(data).__name__}")
    for name in data:
        check_name(f"field of {kind}", name, names)


def check_interface(env: Any) -> None:
    """That an environment object has what gymnax's have; `envs.make_env` looks at what they
    give.
    """
    if isinstance(env, tuple) and len(env) == 2:
        raise ValueError(
            "env must be a name or a gymnax environment, got a pair: write env, params = "
            "gymnax.make(...)"
        )
    if isinstance(env, type):
        raise ValueError(
            f"env must be a name or a gymnax environment, got the class {env.__name__}: call it"
        )
    if isinstance(env, Config):
        raise ValueError(
            "env must be a name or a gymnax environment, got a Config: write config.env"
        )
    # What a class has, its objects have too: a property that fails is no missing one.
    missing = [name for name in _INTERFACE if not (hasattr(type(env), name) or hasattr(env, name))]
    if missing:
        raise ValueError(
            f"env must be a name or a gymnax environment, got {shown(env)} without "
            f"{', '.join(missing)}; environments of other libraries are named library:environment"
        )
