"""The programs of `peers.py`, one in a process: it answers with its versions, and then every line
of stdin, a seed, with the figures of a timed run, as JSON.

Only pg's worker imports pg: each peer may have its own environment. Everywhere actor and
critic are apart and have the same tanh layers, and nothing is evaluated.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

Task = dict[str, Any]  # env, hidden_sizes, network (mlp or cnn)
Batch = dict[str, int]  # num_envs, num_steps, num_epochs, num_minibatches
Train = Callable[[Any], Any]  # key -> the trained parameters

# packages whose versions are told, where they are installed
PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "optax",
    "distrax",
    "equinox",
    "gymnax",
    "gymnasium",
    "rejax",
    "jaxnasium",
    "stable-baselines3",
    "torch",
)


def pg(task: Task, batch: Batch, num_updates: int, estimator: str, rows: str = "") -> Train:
    """The library, on one device. rows: minibatches of shuffled rows instead of environments."""
    make_train = import_module("peer_pg").make_train
    train: Train = make_train(batch, num_updates, estimator, task, shuffles_rows=rows == "rows")
    return train


def purejaxrl(task: Task, batch: Batch, num_updates: int) -> Train:
    """PPO of a checkout of purejaxrl, whose folder PUREJAXRL names, with layers of other widths."""
    _without_network("cnn", task)
    folder = os.environ.get("PUREJAXRL", "")
    if not os.path.isdir(folder):
        raise ModuleNotFoundError("no checkout is named: --source purejaxrl=PATH")
    sys.path.insert(0, os.path.join(folder, "purejaxrl"))
    # its wrappers import them, for environments that are not used here
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["brax"].envs = sys.modules["brax.envs"]  # type: ignore[attr-defined]
    wrappers: Any = sys.modules["brax.envs.wrappers.training"]
    wrappers.EpisodeWrapper = wrappers.AutoResetWrapper = None
    discrete = hasattr(OwnParameters(task["env"]).action_space(), "n")
    library: Any = import_module("ppo" if discrete else "ppo_continuous_action")
    library.BraxGymnaxWrapper = OwnParameters
    library.nn = _with_width(library.nn, 64 if discrete else 256, task["hidden_sizes"])
    train: Train = library.make_train(
        {
            "LR": 2.5e-4,
            "NUM_ENVS": batch["num_envs"],
            "NUM_STEPS": batch["num_steps"],
            "TOTAL_TIMESTEPS": num_updates * batch["num_envs"] * batch["num_steps"],
            "UPDATE_EPOCHS": batch["num_epochs"],
            "NUM_MINIBATCHES": batch["num_minibatches"],
            "GAMMA": 0.99,
            "GAE_LAMBDA": 0.95,
            "CLIP_EPS": 0.2,
            "ENT_COEF": 0.01,
            "VF_COEF": 0.5,
            "MAX_GRAD_NORM": 0.5,
            "ACTIVATION": "tanh",
            "ENV_NAME": task["env"],
            "ANNEAL_LR": False,
            "NORMALIZE_ENV": False,
            "DEBUG": False,
        }
    )
    return train


class OwnParameters:
    """An environment of gymnax with the parameters that it has by itself, which are not passed."""

    def __init__(self, name: str) -> None:
        """Makes the environment of this name."""
        self._env, self._params = import_module("gymnax").make(name)

    def reset(self, key: Any, _: Any = None) -> Any:
        """Observation and state."""
        return self._env.reset(key, self._params)

    def step(self, key: Any, state: Any, action: Any, _: Any = None) -> Any:
        """Observation, state, reward, end, and more."""
        return self._env.step(key, state, action, self._params)

    def observation_space(self, _: Any = None) -> Any:
        """The space of observations."""
        return self._env.observation_space(self._params)

    def action_space(self, _: Any = None) -> Any:
        """The space of actions."""
        return self._env.action_space(self._params)


def purejaxrl_style(task: Task, batch: Batch, num_updates: int) -> Train:
    """The training of purejaxrl_style.py."""
    train: Train = import_module("purejaxrl_style").make_train(
        task, num_updates=num_updates, **batch
    )
    return train


def rejax(task: Task, batch: Batch, num_updates: int) -> Train:
    """PPO of rejax."""
    _without_network("cnn", task)
    steps = num_updates * batch["num_envs"] * batch["num_steps"]
    once = {"total_timesteps": steps, "eval_freq": steps, "skip_initial_evaluation": True}
    network = {"activation": "tanh", "hidden_layer_sizes": tuple(task["hidden_sizes"])}
    algorithm = import_module("rejax").PPO.create(
        env=task["env"], agent_kwargs=network, **once, **batch
    )
    train: Train = algorithm.replace(eval_callback=lambda *_: ()).train
    return train


def jaxnasium(task: Task, batch: Batch, num_updates: int) -> Train:
    """Its PPO, on its own environments, and on those of gymnax where it has none."""
    _without_network("cnn", task)
    library, parts = import_module("jaxnasium"), import_module("jaxnasium.algorithms")
    own = task["env"] in ("CartPole-v1", "Pendulum-v1")
    env = library.make(task["env"] if own else f"gymnax:{task['env']}")
    if not own:
        env = library.FlattenObservationWrapper(env)
    mlp = parts.architectures.MLP.with_params(
        hidden_sizes=tuple(task["hidden_sizes"]), activation=import_module("jax").numpy.tanh
    )
    networks = {"actor_kwargs": {"body": mlp}, "critic_kwargs": {"body": mlp}}
    plain = {
        "normalize_observations": False,
        "normalize_rewards": False,
        "log_function": None,
        "warmup_steps": 1,
    }
    steps = num_updates * batch["num_envs"] * batch["num_steps"]
    algorithm = parts.PPO(total_timesteps=steps, **networks, **plain, **batch)
    return lambda key: algorithm.train(key, env)


def sb3(task: Task, batch: Batch, num_updates: int) -> Train:
    """Its A2C where there is one pass, else its PPO; each run goes on from the last."""
    if task["env"] not in ("CartPole-v1", "Pendulum-v1"):
        raise NotImplementedError(f"Gymnasium has no {task['env']} of its own")
    torch = import_module("torch")
    # with networks as small as 64² a second thread only costs
    torch.set_num_threads(1 if max(task["hidden_sizes"]) <= 64 else os.cpu_count())
    library, size = import_module("stable_baselines3"), batch["num_envs"] * batch["num_steps"]
    kwargs = {"n_epochs": batch["num_epochs"], "batch_size": size // batch["num_minibatches"]}
    algorithm, kwargs = (
        (library.A2C, {})
        if kwargs == {"n_epochs": 1, "batch_size": size}
        else (library.PPO, kwargs)
    )
    envs = import_module("stable_baselines3.common.env_util").make_vec_env(
        task["env"], batch["num_envs"]
    )
    layers = {"net_arch": list(task["hidden_sizes"])}
    model = algorithm(
        "MlpPolicy",
        envs,
        n_steps=batch["num_steps"],
        policy_kwargs=layers,
        device="cpu",
        **kwargs,
    )
    return lambda _: model.learn(num_updates * size, reset_num_timesteps=False)


def _without_network(name: str, task: Task) -> None:
    """Raises NotImplementedError for a network that a library does not have."""
    if task["network"] == name:
        raise NotImplementedError(f"its PPO has no {name} to be chosen")


def _with_width(linen: Any, written: int, sizes: list[int]) -> Any:
    """flax.linen for a source whose hidden layers are written with a width: they get another."""
    if len(set(sizes)) > 1 or len(sizes) != 2:
        raise NotImplementedError("its networks have two layers of one width")

    def dense(features: int, **kwargs: Any) -> Any:
        return linen.Dense(sizes[0] if features == written else features, **kwargs)

    return types.SimpleNamespace(**{**vars(linen), "Dense": dense})


def jitted(train: Train, num_seeds: int, compiler_options: dict[str, Any] | None = None) -> Train:
    """All arrays of `train(key)`, under vmap where there are several seeds: one program, as a
    function of a seed.
    """
    jax = import_module("jax")

    def arrays(key: Any) -> Any:
        return [x for x in jax.tree.leaves(train(key)) if isinstance(x, jax.Array)]

    program = jax.jit(
        arrays
        if num_seeds == 1
        else lambda key: jax.vmap(arrays)(jax.random.split(key, num_seeds)),
        compiler_options=compiler_options,
    )
    return lambda seed: jax.block_until_ready(program(jax.random.PRNGKey(seed)))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(folder: str) -> str:
    """The commit of a checkout; unknown where git cannot tell."""
    command = ["git", "-C", folder, "rev-parse", "HEAD"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def main(name: str, task: Task, batch: Batch, num_updates: int, num_seeds: int) -> None:
    """Answers at first with its versions, or with what is missing."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not be taken for an answer
    program, *how = name.split(":")
    peer = program.removesuffix("_spread")
    # slow, and each costs the same
    num_updates = min(num_updates, 2) if peer == "sb3" else num_updates
    steps = num_seeds * num_updates * batch["num_envs"] * batch["num_steps"]
    if program == "pg_spread":
        os.environ["JAX_NUM_CPU_DEVICES"] = str(os.cpu_count())
    try:
        train = globals()[peer](task, batch, num_updates, *how)
    except (ImportError, NotImplementedError) as error:
        return print(json.dumps({"missing": str(error)}), file=answers)
    told = versions()
    if peer == "purejaxrl":
        told["purejaxrl"] = commit(os.environ["PUREJAXRL"])
    print(json.dumps({"versions": told}), file=answers)
    if peer == "sb3":
        run = train
    elif program == "pg_spread":
        run = import_module("peer_pg").spread(train, num_seeds, task)
    elif program == "pg":
        run = jitted(train, num_seeds, import_module("peer_pg").CPU_OPTIONS)
    else:
        run = jitted(train, num_seeds)
    for seed in map(int, sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        run(seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found = {
            "seconds": wall,
            "CPU seconds": cpu,
            "steps/s": steps / wall,
            "steps/CPU s": steps / cpu,
            "cores": cpu / wall,
        }
        found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
