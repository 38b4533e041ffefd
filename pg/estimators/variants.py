"""Variants: names of an estimator with other settings, for `--estimator` and results. It imports no
jax.
"""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "natural": {
        "estimator": "time_baseline",
        "optimizer": "natural",
        "learning_rate": 0.05,
        "damping": 0.4,
    },
    "trpo": {"estimator": "time_baseline", "optimizer": "trpo"},
    "recurrent_ppo": {"estimator": "ppo", "rnn": "gru"},
    # symmetric sampling with a moving average (Sehnke et al. 2010, section 3.3), with a linear
    # policy
    "pgpe": {
        "estimator": "moving_average",
        "exploration": "parameters",
        "sampling": "antithetic",
        "hidden_sizes": (),
        "num_envs": 20,
        "num_updates": 100,
        "learning_rate": 0.05,
    },
    "state_std_ppo": {"estimator": "ppo", "state_dependent_std": True},
    "unmasked_ppo": {"estimator": "ppo", "action_mask": "none"},
}
"""Each by its name: its `estimator`, and fields of Config and Hyperparams with their values."""


def described(name: str) -> str:
    """A variant in words, as "ppo with rnn='gru'"."""
    settings = dict(VARIANTS[name])
    estimator = settings.pop("estimator")
    changes = ", ".join(f"{field}={value!r}" for field, value in settings.items())
    return f"{estimator} with {changes}"
