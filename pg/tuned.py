"""Settings that reach the benchmark's results, by environment and label: a literal table of changes
to a preset.

Found on seeds 1000 and up, never on those that are reported (0 to 19); `experiments/tune.py` is the
search, and docs/tuning.md lists its space. A label is an estimator's name, or a variant of one.
"""

from collections.abc import Mapping
from typing import Any

from pg.estimators.facts import FACTS
from pg.estimators.names import canonical, facts_of, is_known
from pg.estimators.variants import VARIANTS

_CATCH: dict[str, Any] = {"num_envs": 20, "num_updates": 550, "learning_rate": 0.004}
_CATCH_WINDOWS: dict[str, Any] = {"entropy_coef": 0.01, "num_updates": 390}
# What is compared on Catch: by returns of complete episodes, or by bootstrapped windows.
_ON_RETURNS = (
    "reinforce",
    *(
        name
        for name, facts in FACTS.items()
        if facts.takes("discrete")
        and facts.collect == ("episodes",)
        and facts.baseline != "none"
        and facts.extra_rollout_kind != "branches"
    ),
)
_BOOTSTRAPPED = tuple(
    name
    for name, facts in FACTS.items()
    if "windows" in facts.collect and facts.critic == "V" and not facts.several_steps
)
_FAST: dict[str, Any] = {"num_steps": 8, "learning_rate": 0.001}  # many short windows
_MILLION: dict[str, Any] = {  # steps
    "num_envs": 32,
    "num_steps": 64,
    "num_updates": 488,
    "num_epochs": 4,
    "advantages": "minibatch",
}
_BANDIT: dict[str, Any] = {  # a window is an episode
    "hidden_sizes": (32,),
    "num_envs": 32,
    "num_steps": 100,
    "num_updates": 250,
    "num_epochs": 4,
    "gamma": 1.0,
    "advantages": "minibatch",
    "entropy_coef": 0.01,
    "learning_rate": 0.002,
}
_PENDULUM: dict[str, Any] = {
    "normalise_observations": True,
    "scale_rewards": True,
    "advantages": "minibatch",
    "gamma": 0.95,
    "num_envs": 16,
    "num_steps": 128,
    "num_updates": 488,
}
_PENDULUM_SHORT: dict[str, Any] = {**_PENDULUM, "num_envs": 8, "num_updates": 292}
_EIGHT_EPISODES: dict[str, Any] = {"num_envs": 8, "schedule": "linear"}
_ROBOT: dict[str, Any] = {  # a window is an episode
    "hidden_sizes": (64,),
    "rnn": "mingru",
    "rnn_size": 64,
    "action_distribution": "squashed",
    "normalise_observations": True,
    "advantages": "minibatch",
    "schedule": "linear",
    "num_envs": 64,
    "num_steps": 100,
    "num_updates": 1000,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 0.0015,
    "gamma": 0.97,
    "entropy_coef": 0.03,
    "entropy_schedule": "linear",
}
# The bonus keeps actions diverse: two starts and no noise, and a policy that settles sees the same
# games for good.
_MINATAR: dict[str, Any] = {
    "hidden_sizes": (128,),
    "activation": "relu",
    "learning_rate": 0.003,
    "num_envs": 64,
    "num_steps": 128,
    "num_updates": 1220,
    "num_epochs": 2,
    "num_minibatches": 8,
    "entropy_coef": 0.1,
    "entropy_schedule": "linear",
}
# Dense layers see all planes of the 10 x 10 pixels at once, learn more from as many steps, and take
# a fifth of the convolution's time.
_MINATAR_DENSE: dict[str, Any] = {**_MINATAR, "network": "mlp", "hidden_sizes": (128, 128)}

# After cleanrl's ppo_continuous_action.py, from 8 environments instead of one, and without its
# clipping of V, of observations and of rewards.
_MUJOCO: dict[str, Any] = {
    "normalise_observations": True,
    "scale_rewards": True,
    "advantages": "minibatch",
    "num_envs": 8,
    "num_steps": 256,
    "num_updates": 488,
    "num_epochs": 10,
    "num_minibatches": 1,
    "minibatch_size": 64,
    "learning_rate": 0.0003,
}
# After RL Baselines3 Zoo's ppo.yml: many small steps, from actions that start with little noise.
# Here the weight of the critic's loss is half of theirs, the epsilon of Adam 1e-8 instead of 1e-5,
# and other weights are drawn.
_CHEETAH: dict[str, Any] = {
    "normalise_observations": True,
    "scale_rewards": True,
    "advantages": "minibatch",
    "hidden_sizes": (256, 256),
    "activation": "relu",
    "initialiser": "glorot_uniform",
    "initial_std": 0.135,
    "num_envs": 1,
    "num_steps": 512,
    "num_updates": 1953,
    "num_epochs": 20,
    "num_minibatches": 1,
    "minibatch_size": 64,
    "learning_rate": 2.06e-5,
    "schedule": "constant",
    "gamma": 0.98,
    "gae_lambda": 0.92,
    "epsilon": 0.1,
    "entropy_coef": 0.0004,
    "value_coef": 0.58,
    "max_grad_norm": 0.8,
}

# Environments of other libraries.
_CONNECT_FOUR: dict[str, Any] = {
    "hidden_sizes": (128, 128),
    "num_envs": 64,
    "num_steps": 32,
    "num_updates": 146,
    "num_epochs": 4,
    "num_minibatches": 4,
    "advantages": "minibatch",
    "learning_rate": 0.001,
    "entropy_coef": 0.01,
}
_KNAPSACK: dict[str, Any] = {
    "hidden_sizes": (128, 128),
    "num_envs": 32,
    "num_steps": 64,
    "num_updates": 146,
    "num_epochs": 4,
    "advantages": "minibatch",
    "learning_rate": 0.001,
    "gamma": 1.0,
}
_SWINGUP: dict[str, Any] = {
    "normalise_observations": True,
    "scale_rewards": True,
    "advantages": "minibatch",
    "num_envs": 64,
    "num_steps": 64,
    "num_updates": 244,
    "num_epochs": 8,
    "num_minibatches": 4,
    "action_distribution": "squashed",
    "learning_rate": 0.001,
    "entropy_coef": 0.01,
    "schedule": "linear",
}
_CRAFTAX: dict[str, Any] = {  # after Craftax's own ppo.py, from 64 environments instead of 1024
    "hidden_sizes": (256, 256),
    "num_envs": 64,
    "num_steps": 64,
    "num_updates": 244,
    "num_epochs": 4,
    "num_minibatches": 8,
    "advantages": "minibatch",
    "gae_lambda": 0.8,
    "learning_rate": 0.0003,
    "entropy_coef": 0.01,
    "schedule": "linear",
}

TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "CartPole-v1": {
        "leave_one_out": {"num_updates": 60},
        "state_value": {
            "num_envs": 20,
            "num_updates": 60,
            "schedule": "linear",
            "learning_rate": 0.006,
        },
        "actor_critic": {**_FAST, "num_updates": 7800, "learning_rate": 0.002},
        "ppo": {"learning_rate": 0.002},
        "reinforce": {"num_envs": 50, "num_updates": 65, "learning_rate": 0.002},
        "natural": {"num_envs": 22, "num_updates": 53},
        "trpo": {"num_envs": 22, "num_updates": 51},
    },
    "CartPole-v1-positions": {  # after rl-baselines3-zoo's PPO-LSTM
        "recurrent_ppo": {
            "num_envs": 16,
            "num_updates": 480,
            "num_epochs": 8,
            "num_minibatches": 2,
            "hidden_sizes": (64,),
            "normalise_observations": True,
            "advantages": "minibatch",
            "epsilon_schedule": "linear",
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "learning_rate": 0.002,
        },
        "ppo": {"num_updates": 976},
    },
    "Acrobot-v1": {
        # Actions that are held for two steps swing it up now and then; independent ones leave some
        # seeds at -500.
        "leave_one_out": {
            "num_envs": 20,
            "num_updates": 150,
            "schedule": "linear",
            "action_repeat": 2,
        },
        "ppo": {"num_envs": 16, "num_steps": 32, "num_updates": 976, "entropy_coef": 0.01},
        "actor_critic": {**_FAST, "num_envs": 16, "num_updates": 3900, "entropy_coef": 0.01},
    },
    # Tasks of the benchmark: the same environments within smaller budgets of steps.
    "CartPole-v1-200k": {
        "leave_one_out": {**_EIGHT_EPISODES, "num_updates": 64, "learning_rate": 0.0053},
        "time_baseline": {**_EIGHT_EPISODES, "num_updates": 55, "learning_rate": 0.007},
        # V is learned sooner where it is of fewer steps: without it a seed of 20 does not learn
        "actor_critic": {
            "num_steps": 8,
            "num_updates": 3125,
            "learning_rate": 0.002,
            "gamma": 0.98,
            "n_step": 4,
        },
        "ppo": {  # after rl-baselines3-zoo's
            "num_steps": 32,
            "num_updates": 780,
            "num_epochs": 8,
            "num_minibatches": 1,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "epsilon_schedule": "linear",
            "learning_rate": 0.0018,
        },
    },
    "Acrobot-v1-300k": {
        "ppo": {
            "normalise_observations": True,
            "advantages": "minibatch",
            "schedule": "linear",
            "num_envs": 8,
            "num_steps": 128,
            "num_updates": 292,
            "num_epochs": 10,
            "num_minibatches": 1,
            "minibatch_size": 64,
            "learning_rate": 0.0006,
            "gamma": 0.995,
        },
    },
    "Pendulum-v1-300k": dict.fromkeys(("ppo", "state_std_ppo"), _PENDULUM_SHORT),
    # A state has the velocity in it, but its scale hides it; and a held action swings where
    # independent ones cancel.
    "MountainCar-v0": {
        "ppo": {
            "normalise_observations": True,
            "action_repeat": 8,
            "entropy_coef": 0.01,
            "num_envs": 16,
            "num_steps": 64,
            "num_updates": 122,
            "num_epochs": 8,
        },
    },
    "Pendulum-v1": {"ppo": _PENDULUM, "state_std_ppo": _PENDULUM},
    "MountainCarContinuous-v0": {
        "ppo": {
            "normalise_observations": True,
            "scale_rewards": True,
            "action_repeat": 8,
            "num_steps": 125,
            "num_updates": 62,
        },
    },
    "Catch-bsuite": {
        **dict.fromkeys(_ON_RETURNS, _CATCH),
        "group_leave_one_out": {**_CATCH, "learning_rate": 0.002},
        **dict.fromkeys(_BOOTSTRAPPED, _CATCH_WINDOWS),
        "ppo": {"entropy_coef": 0.01, "num_updates": 195},
    },
    "DeepSea-bsuite": {
        "ppo": {"entropy_coef": 0.01},
        "actor_critic": {
            "num_steps": 8,
            "num_updates": 2343,
            "entropy_coef": 0.01,
            "gamma": 1.0,
            "schedule": "constant",
        },
    },
    "DiscountingChain-bsuite": {
        "standardised": {"num_updates": 60},
        "leave_one_out": {"num_updates": 60, "entropy_coef": 0.0003},
    },
    "UmbrellaChain-bsuite": {
        "leave_one_out": {"num_envs": 50, "num_updates": 400},
        "ppo": {"num_updates": 390, "gamma": 1.0},
    },
    "MemoryChain-bsuite": {
        "recurrent_ppo": {
            "rnn_size": 32,
            "hidden_sizes": (32,),
            "num_envs": 16,
            "num_updates": 150,
            "num_epochs": 4,
        },
    },
    "BernoulliBandit-misc": {"recurrent_ppo": {**_BANDIT, "rnn_size": 32}, "ppo": _BANDIT},
    "SimpleBandit-bsuite": {"leave_one_out": {"num_updates": 2000}, "ppo": {"num_updates": 195}},
    "FrozenLake-misc": {  # a table of logits: one linear layer on one-hot states
        "ppo": {
            "hidden_sizes": (),
            "num_envs": 16,
            "num_steps": 128,
            "num_updates": 240,
            "num_epochs": 4,
            "learning_rate": 0.1,
            "entropy_coef": 0.003,
            "gamma": 0.995,
        },
    },
    "PointRobot-misc": {
        "recurrent_ppo": _ROBOT,
        "ppo": {**_MILLION, "action_distribution": "squashed", "entropy_coef": 0.003},
    },
    "MetaMaze-misc": {"ppo": {**_MILLION, "normalise_observations": True, "entropy_coef": 0.01}},
    "Reacher-misc": {
        "ppo": {**_MILLION, "normalise_observations": True, "action_distribution": "squashed"}
    },
    "Swimmer-misc": {"ppo": {**_MILLION, "action_distribution": "squashed"}},
    # dense layers on its 30 x 40 pixels take a seventh of the convolution's multiplications
    "Pong-misc": {
        "ppo": {
            "network": "mlp",
            "num_envs": 16,
            "num_updates": 290,
            "num_epochs": 4,
            "entropy_coef": 0.01,
            "advantages": "minibatch",
        },
    },
    "FourRooms-misc": {"ppo": {"num_updates": 976, "entropy_coef": 0.01}},
    "Breakout-MinAtar": {"ppo": _MINATAR_DENSE},
    "Asterix-MinAtar": {"ppo": {**_MINATAR, "num_updates": 150}},
    "Freeway-MinAtar": {"ppo": {**_MINATAR_DENSE, "num_updates": 1953, "entropy_coef": 0.01}},
    "SpaceInvaders-MinAtar": {"ppo": {**_MINATAR, "num_updates": 400}},
    "Seaquest-MinAtar": {"ppo": {**_MINATAR_DENSE, "num_updates": 2441, "entropy_coef": 0.01}},
    **{f"gymnasium:{name}": {"ppo": _MUJOCO} for name in ("Hopper-v5", "Walker2d-v5")},
    "gymnasium:HalfCheetah-v5": {"ppo": _CHEETAH},
    "pgx:connect_four": {"ppo": _CONNECT_FOUR, "unmasked_ppo": _CONNECT_FOUR},
    "jumanji:Knapsack-v1": {"ppo": _KNAPSACK, "unmasked_ppo": _KNAPSACK},
    "craftax:Craftax-Classic-Symbolic-v1": {"ppo": _CRAFTAX},
    "playground:CartpoleSwingup": {"ppo": _SWINGUP},
}


NUM_ENVS = 25  # the default of Config


def defaults(label: Any, env: Any = None, minibatch_size: Any = None) -> dict[str, Any]:
    """The settings that go with an estimator on an environment, of Config and Hyperparams alike.

    Args:
        label: name of an estimator, or of a variant of one (`VARIANTS`); or a function that makes
            a user's own, which has the settings that its facts state.
        env: name of the environment whose tuned settings are taken; None: that of the preset. An
            environment object has none.
        minibatch_size: that of Config; where it is given, it says how a batch is cut, and the
            preset's number of minibatches does not.
    """
    label = canonical(label)
    name = label if isinstance(label, str) else ""
    variant = {"estimator": label, **VARIANTS.get(name, {})}
    estimator = variant["estimator"]
    has_facts = not isinstance(estimator, str) or is_known(estimator)
    settings = facts_of(estimator).settings if has_facts else {}
    preset = {**settings, **variant}
    task = preset.get("env", "CartPole-v1") if env is None else env
    tuned = TUNED.get(task, {}).get(name, {}) if isinstance(task, str) else {}
    cut = {} if minibatch_size is None else {"num_minibatches": 1}
    return {**_whole_groups(preset), **preset, **tuned, **cut}


def _whole_groups(preset: Mapping[str, Any]) -> dict[str, Any]:
    """The number of environments, where a preset states the size of a group alone: the default's,
    and as many more as the last group needs.
    """
    size = preset.get("group_size", 1)
    if not isinstance(size, int) or size < 1 or "num_envs" in preset:
        return {}
    missing = -NUM_ENVS % size
    return {"num_envs": NUM_ENVS + missing} if missing else {}
