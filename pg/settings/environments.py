"""Names of environments and required methods of an environment object, without importing gymnax."""

import sys
from typing import Any

from pg.inputs import UnknownNameError, check_name, shown
from pg.settings.own_imports import name_in_folder

# gymnax's own names (a test holds this tuple equal to its registry), so that a typo is reported
# without an import.
ENVIRONMENTS = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "MNISTBandit-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Pong-misc",
    "FrozenLake-misc",
)

# Libraries whose environments are named "library:environment" (a test holds this equal to
# pg.envs.adapters').
LIBRARIES = (
    "brax",
    "craftax",
    "envpool",
    "gymnasium",
    "jumanji",
    "kinetix",
    "navix",
    "pgx",
    "playground",
    "popgym_arcade",
    "xminigrid",
)

# Sequence tasks, of pg.envs.sequence_tasks (a test holds this equal to its table).
SEQUENCES = ("sequences:modular_sum", "sequences:reverse", "sequences:brackets")

# Environments of other libraries by their names in the benchmark, which are used nowhere else (a
# test holds this equal to pg.benchmarks.suites').
OF_BENCHMARK = {
    "Hopper-v5": "gymnasium:Hopper-v5",
    "Walker2d-v5": "gymnasium:Walker2d-v5",
    "HalfCheetah-v5": "gymnasium:HalfCheetah-v5",
    "connect_four-pgx": "pgx:connect_four",
    "Knapsack-jumanji": "jumanji:Knapsack-v1",
    "CartpoleSwingup-playground": "playground:CartpoleSwingup",
    "Craftax-Classic": "craftax:Craftax-Classic-Symbolic-v1",
}

UNSUPPORTED = {
    "MNISTBandit-bsuite": "gymnax downloads its images unverified when it is constructed, and "
    "parses pixels above 127 as negative numbers",
}

_INTERFACE = ("reset", "step", "default_params", "action_space")


def check_env(name: str) -> None:
    """Raises ValueError, with the nearest valid names, unless `name` is an environment that can
    run.
    """
    if name.startswith("sequences:"):
        return check_name("env", name, SEQUENCES)
    if ":" in name:  # the rest of the name is checked by the library, which is not loaded here
        libraries = *LIBRARIES, "sequences"
        return check_name("environment library", name.partition(":")[0], libraries)
    if name in UNSUPPORTED:
        raise ValueError(f"env={name!r} cannot run: {UNSUPPORTED[name]}")
    # the user's, if gymnax is loaded
    registered = getattr(sys.modules.get("gymnax"), "registered_envs", ())
    if name in registered:
        return
    if name in OF_BENCHMARK:
        raise UnknownNameError(
            f"unknown env {name!r}: did you mean {OF_BENCHMARK[name]!r}? Only the benchmark uses "
            "that name",
            name,
        )
    known = [known for known in ENVIRONMENTS if known not in UNSUPPORTED]
    check_name("env", name, (*known, *SEQUENCES, *OF_BENCHMARK.values()))


def check_interface(env: Any) -> None:
    """Raises ValueError unless an object has the methods of gymnax's environments; `envs.make_env`
    checks their results.
    """
    if isinstance(env, tuple) and len(env) == 2:
        raise ValueError(
            "env must be a name or a gymnax environment, got a pair: write env, params = "
            "gymnax.make(...)"
        )
    if is_of_gymnasium(env):
        kind = (env if isinstance(env, type) else type(env)).__name__
        raise ValueError(
            f"env must be a name or a gymnax environment, got {kind} of Gymnasium: write env="
            f"pg.envs.adapters.gymnasium.adapt({kind}, {kind!r}), or FILE.py:{kind} on the command "
            "line"
        )
    if isinstance(env, type):
        raise ValueError(
            f"env must be a name or a gymnax environment, got the class {env.__name__}: call it"
        )
    # Looked up in the class too: a failing property is not missing.
    missing = [name for name in _INTERFACE if not (hasattr(type(env), name) or hasattr(env, name))]
    if missing and type(env).__name__ == "Config":
        raise ValueError(
            "env must be a name or a gymnax environment, got a Config: write config.env"
        )
    if missing:
        raise ValueError(
            f"env must be a name or a gymnax environment, got {shown(env)} without "
            f"{', '.join(missing)}; environments of other libraries are named library:environment"
        )


def is_of_gymnasium(env: Any) -> bool:
    """True for an environment of Gymnasium, or a class of one; does not import it."""
    classes = (env if isinstance(env, type) else type(env)).__mro__
    return any((x.__module__, x.__name__) == ("gymnasium.core", "Env") for x in classes)


def name_of(env: Any) -> str:
    """The name of an environment: itself, the object's `name`, as an attribute or a method, or that
    of its class.
    """
    name = env if isinstance(env, str) else getattr(env, "name", None)
    if callable(name):
        name = name()
    return name if isinstance(name, str) else type(env).__name__


def class_of(env: Any) -> str:
    """The class of an environment object, with its module."""
    return f"{name_in_folder(type(env).__module__)}.{type(env).__qualname__}"
