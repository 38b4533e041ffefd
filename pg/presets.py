"""Settings that were measured to learn: what `--estimator NAME` and `--env NAME` give when nothing
else is said.

An estimator's preset, changed by what `tuned` has for it on the environment. Chosen with seeds
other than those that are reported.
"""

from typing import Any

from pg.config import ACCEPTS, GROUPED, Config, Hyperparams
from pg.inputs import check_name
from pg.tuned import TUNED, VARIANTS

# Complete episodes, γ = 1: the defaults of Config and Hyperparams, at most 2,000 episodes (1M steps
# on CartPole).
_EPISODES: dict[str, Any] = {}

# Windows of 8 environments, bootstrapped, γᵗ dropped as is common; 500k steps.
_WINDOWS: dict[str, Any] = {
    "collect": "windows",
    "num_envs": 8,
    "num_steps": 32,
    "num_updates": 1953,
    "schedule": "linear",
    "gamma": 0.99,
    "max_grad_norm": 0.5,
    "undiscounted_state_weighting": 1.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    **{name: _EPISODES for name, ways in ACCEPTS.items() if ways == ("episodes",)},
    **{name: {"group_size": 5} for name in GROUPED},
    "entropy_reward": {"temperature": 0.01},
    "actor_critic": {**_WINDOWS, "n_step": 32},
    "gae": _WINDOWS,
    "vtrace": {**_WINDOWS, "gae_lambda": 1.0},
    "ppo": {  # 150k steps
        **_WINDOWS,
        "num_steps": 64,
        "num_updates": 292,
        "num_epochs": 10,
        "num_minibatches": 4,
        "learning_rate": 0.001,
    },
    # CartPole's reward is 1 at every step, whatever is done: its average has no gradient.
    "gpomdp": {
        "env": "Catch-bsuite",
        "collect": "windows",
        "num_envs": 32,
        "num_steps": 64,
        "num_updates": 250,
    },
}


def preset(
    estimator: str = "reinforce", *, task: str | None = None, **changes: Any
) -> tuple[Config, Hyperparams]:
    """The settings for an estimator on an environment, with fields of Config or Hyperparams changed
    by name.

    estimator: its name, or that of a variant (`tuned.VARIANTS`). task: whose tuned settings to
    take; default: the environment's. `total_steps=N` stands for the `num_updates` that take so many
    environment steps (`Config.lasting`). Raises ValueError for an unknown estimator or field, or a
    value out of range.
    """
    check_name("estimator", estimator, [*ACCEPTS, *VARIANTS])
    variant = {"estimator": estimator, **VARIANTS.get(estimator, {})}
    base = {**PRESETS.get(variant["estimator"], {}), **variant}
    env = changes.get("env", base.get("env", Config.env))
    tuned = TUNED.get(task or env, {}).get(estimator, {}) if isinstance(env, str) else {}
    static, traced = Config.__dataclass_fields__, Hyperparams._fields
    for name in changes:
        known = [*static, *traced, "total_steps"]
        check_name("setting", name, known, "help(pg.Config) and help(pg.Hyperparams) list them")
    if "total_steps" in changes and "num_updates" in changes:
        raise ValueError("total_steps and num_updates exclude each other: give one of them")
    total_steps = changes.pop("total_steps", None)
    if changes.get("minibatch_size") is not None:
        changes = {"num_minibatches": 1, **changes}  # one of the two says how a batch is cut
    values = {**base, **tuned, **changes}
    config = Config(**{name: value for name, value in values.items() if name in static})
    if total_steps is not None:
        config = config.lasting(total_steps)
    return config, Hyperparams(
        **{name: value for name, value in values.items() if name not in static}
    )
