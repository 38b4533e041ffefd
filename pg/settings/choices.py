"""Choices of the settings whose values are names: one `Literal` each."""

from typing import Literal, get_args

from pg.estimators.facts import Collect

Architecture = Literal["auto", "mlp", "cnn", "causal_transformer"]
ImageLayout = Literal["auto", "hwc", "chw"]
Activation = Literal["tanh", "relu", "elu", "gelu", "silu"]
Initialiser = Literal[
    "orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
]
Schedule = Literal["constant", "linear", "cosine"]
ActionDistribution = Literal["gaussian", "censored", "squashed"]
ActionCritic = Literal["quadratic", "sinusoids", "network"]
ActionMask = Literal["auto", "method", "observation", "info", "none"]
LagMixture = Literal["none", "own", "balance", "power"]
MicroBatches = int | Literal["auto"]
Exploration = Literal["actions", "parameters"]
Sampling = Literal["independent", "antithetic", "stratified", "latin_hypercube", "sobol", "array"]
RNN = Literal["none", "gru", "lstm", "lru", "mingru", "transformer"]
Advantages = Literal["raw", "batch", "minibatch"]
Shard = Literal["seeds", "envs"]
# as JAX names them
MatmulPrecision = Literal["bfloat16", "tensorfloat32", "float32"]
OnNonfinite = Literal["stop", "skip", "ignore"]
NONFINITE_CAUSES = (
    "rewards",
    "observations",
    "gradients",
    "parameters",
    "action masks",
    "running statistics",
)
"""Places of a number that is not finite: the bits of the metric `nonfinite`, in this order. That of
action masks is set by a step at which no action was legal.
"""
CriticOptimizer = Literal["adam", "adamw", "amsgrad", "lion", "nadam", "radam", "rmsprop", "sgd"]
# these ask for the policy or the estimator
PolicyOptimizer = Literal[
    "natural", "trpo", "storm", "svrpg", "page_pg", "harpg", "n_harpg", "igt", "n_igt"
]
# Optimizers that take gradients at other parameters than those of the batch: Ψ must not
# depend on the policy, and weights are of whole episodes.
AT_OTHER_PARAMETERS = ("storm", "svrpg", "page_pg", "harpg", "n_harpg")
# Optimizers that collect another batch at the other parameters, as large as the first.
RESAMPLING = ("harpg", "n_harpg")
EXTRAPOLATING = ("igt", "n_igt")  # the learned parameters are ahead of the path
Optimizer = CriticOptimizer | PolicyOptimizer

CHOICES: dict[str, tuple[str, ...]] = {
    "collect": get_args(Collect),
    "advantages": get_args(Advantages),
    "action_distribution": get_args(ActionDistribution),
    "action_critic": get_args(ActionCritic),
    "action_mask": get_args(ActionMask),
    "lag_mixture": get_args(LagMixture),
    "exploration": get_args(Exploration),
    "sampling": get_args(Sampling),
    "network": get_args(Architecture),
    "image_layout": get_args(ImageLayout),
    "activation": get_args(Activation),
    "initialiser": get_args(Initialiser),
    "rnn": get_args(RNN),
    "optimizer": get_args(CriticOptimizer) + get_args(PolicyOptimizer),
    "schedule": get_args(Schedule),
    "entropy_schedule": get_args(Schedule),
    "epsilon_schedule": get_args(Schedule),
    "on_nonfinite": get_args(OnNonfinite),
}
