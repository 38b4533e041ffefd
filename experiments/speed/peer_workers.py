"""The programs of `peers.py`, one in a process: every line of stdin, a seed, is answered by a timed
run, as JSON.

Only pg's worker imports pg: each peer may live in an environment of its own. Everywhere the
networks are 64×64 tanh, actor and critic apart, and nothing is evaluated.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

Batch = dict[str, int]  # num_envs, num_steps, num_epochs, num_minibatches
Train = Callable[[Any], Any]  # key -> the trained parameters


def pg(batch: Batch, num_updates: int, estimator: str) -> Train:
    """The library, on one device."""
    return import_module("peer_pg").make_train(batch, num_updates, estimator)


def purejaxrl_style(batch: Batch, num_updates: int) -> Train:
    """The training of purejaxrl_style.py."""
    return import_module("purejaxrl_style").make_train(**batch, num_updates=num_updates)


def rejax(batch: Batch, num_updates: int) -> Train:
    """PPO of rejax."""
    steps = num_updates * batch["num_envs"] * batch["num_steps"]
    once = {"total_timesteps": steps, "eval_freq": steps, "skip_initial_evaluation": True}
    network = {"activation": "tanh", "hidden_layer_sizes": (64, 64)}
    algorithm = import_module("rejax").PPO.create(
        env="CartPole-v1", agent_kwargs=network, **once, **batch
    )
    return algorithm.replace(eval_callback=lambda *_: ()).train


def jaxnasium(batch: Batch, num_updates: int) -> Train:
    """Its PPO, on its own CartPole."""
    library, parts = import_module("jaxnasium"), import_module("jaxnasium.algorithms")
    mlp = parts.architectures.MLP.with_params(
        hidden_sizes=(64, 64), activation=import_module("jax").numpy.tanh
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
    return lambda key: algorithm.train(key, library.make("CartPole-v1"))


def sb3(batch: Batch, num_updates: int) -> Train:
    """Its A2C where there is one pass, else its PPO; each run goes on from the last."""
    import_module("torch").set_num_threads(1)  # with networks this small a second thread only costs
    library, size = import_module("stable_baselines3"), batch["num_envs"] * batch["num_steps"]
    kwargs = {"n_epochs": batch["num_epochs"], "batch_size": size // batch["num_minibatches"]}
    algorithm, kwargs = (
        (library.A2C, {})
        if kwargs == {"n_epochs": 1, "batch_size": size}
        else (library.PPO, kwargs)
    )
    envs = import_module("stable_baselines3.common.env_util").make_vec_env(
        "CartPole-v1", batch["num_envs"]
    )
    model = algorithm("MlpPolicy", envs, n_steps=batch["num_steps"], device="cpu", **kwargs)
    return lambda _: model.learn(num_updates * size, reset_num_timesteps=False)


def jitted(train: Train, num_seeds: int) -> Train:
    """All arrays of `train(key)`, under vmap where there are several seeds: one program, as a
    function of a seed.
    """
    jax = import_module("jax")

    def arrays(key: Any) -> Any:
        return [x for x in jax.tree.leaves(train(key)) if isinstance(x, jax.Array)]

    program = jax.jit(
        arrays if num_seeds == 1 else lambda key: jax.vmap(arrays)(jax.random.split(key, num_seeds))
    )
    return lambda seed: jax.block_until_ready(program(jax.random.PRNGKey(seed)))


def main(name: str, batch: Batch, num_updates: int, num_seeds: int) -> None:
    """Answers at first what is missing, if anything."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    program, *estimator = name.split(":")
    peer = program.removesuffix("_spread")
    # slow, and each costs the same
    num_updates = min(num_updates, 2) if peer == "sb3" else num_updates
    steps = num_seeds * num_updates * batch["num_envs"] * batch["num_steps"]
    if program == "pg_spread":
        os.environ["JAX_NUM_CPU_DEVICES"] = str(os.cpu_count())
    try:
        train = globals()[peer](batch, num_updates, *estimator)
    except ImportError as error:
        return print(json.dumps({"missing": str(error)}), file=answers)
    print("{}", file=answers)
    run = (
        train
        if peer == "sb3"
        else (jitted if program == peer else import_module("peer_pg").spread)(train, num_seeds)
    )
    for seed in map(int, sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        run(seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found = {
            "seconds": wall,
            "steps/s": steps / wall,
            "steps/CPU s": steps / cpu,
            "cores": cpu / wall,
        }
        found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
