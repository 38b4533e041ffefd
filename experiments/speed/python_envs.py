"""Environments in Python: the library's own random loop and pg's, and training beside
Stable-Baselines3's.

The two take turns, so that other work on the machine slows neighbours alike; a ratio is the median
over turns of the ratio within a turn. Needs `gymnasium[mujoco]`, and for the training
`stable-baselines3` with a torch for the CPU.

    python experiments/speed/python_envs.py loop --env HalfCheetah-v5 --num-envs 8

    python experiments/speed/python_envs.py train --env HalfCheetah-v5 --num-envs 8

`loop`: uniform actions, drawn by the library's `action_space.sample`, or by jax within the compiled
scan; the library's environments begin the next episode in the step that ends one, as pg's do. The
processor time is of the whole process, all of its threads.

`train`: PPO as cleanrl and Stable-Baselines3 set it for continuous control: 2048 steps of all
environments a batch, 10 epochs of minibatches of 64 steps, two hidden layers of 64 with tanh. A
turn of each, in a process of its own, is one batch, collected and learnt from; compilation and the
first batch are not timed.
"""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from pg import numerals
from pg.commands import cli
from pg.config import Config
from pg.envs import Box, make_env
from pg.envs.adapters import make
from pg.inputs import count
from pg.train import make_learner

Turn = Callable[[], None]
CONTENDERS = ("Stable-Baselines3", "pg")
STEPS = {"loop": 4000, "train": 2048}  # of all environments in a turn


@dataclasses.dataclass
class Options:
    """The environments, and the turns."""

    what: Annotated[Literal["loop", "train"], tyro.conf.Positional]
    """Random actions in the library's own loop and in pg's, or training beside Stable-Baselines3's.
    """
    library: Literal["gymnasium", "envpool"] = "gymnasium"
    """Library that has the environment."""
    env: str = "HalfCheetah-v5"
    """Name of the environment there."""
    num_envs: int = 8
    """Number of environments."""
    steps: int | None = None
    """Steps of all environments in a turn; none: 4000, to train 2048."""
    turns: int = 9
    """Number of timed turns of each."""
    torch_threads: int = 1
    """Threads of torch, for Stable-Baselines3."""
    contender: Literal["Stable-Baselines3", "pg"] | None = None
    """Only take a turn of the training at each line of the standard input, as one of these; `train`
    starts itself so.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        for name in ("num_envs", "turns", "torch_threads"):
            count(name, getattr(self, name))
        if self.of_turn < self.num_envs:
            raise ValueError(f"steps must be at least num_envs={self.num_envs}, got {self.of_turn}")

    @property
    def of_turn(self) -> int:
        """Steps of all environments in a turn."""
        return STEPS[self.what] if self.steps is None else self.steps


def random_loops(library: str, name: str, num_envs: int, steps: int) -> dict[str, Turn]:
    """`steps` steps of every environment with random actions, by the library and by pg."""
    env = make_env(make(f"{library}:{name}"), num_envs, restarting=True)
    space: Any = env.action_space
    restart = env.restart
    assert restart is not None

    def drawn(key: jax.Array) -> jax.Array:
        if isinstance(space, Box):
            shape = steps, num_envs, *jnp.shape(space.low)
            return jax.random.uniform(key, shape, minval=space.low, maxval=space.high)
        return jax.random.randint(key, (steps, num_envs), 0, space.n)

    @jax.jit
    def run(state: Any, key: jax.Array) -> Any:
        def step(state: Any, inputs: tuple[jax.Array, jax.Array]) -> Any:
            env_keys, action = inputs
            state, moved = env.step(env_keys, state, action)
            done = moved.terminated | moved.truncated
            begun, _ = restart.begin(state)

            def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

            return jax.tree.map(chosen, begun, state), moved.reward.sum()

        # all drawn ahead, as in a rollout of pg
        action_key, env_key = jax.random.split(key)
        env_keys = jax.random.split(env_key, (steps, num_envs))
        return jax.lax.scan(step, state, (env_keys, drawn(action_key)))

    current = [env.reset(jax.random.key(0))[0]]
    turns = iter(range(10**9))

    def of_pg() -> None:
        current[0], _ = jax.block_until_ready(run(current[0], jax.random.key(next(turns))))

    return {"library": own_loop(library, name, num_envs, steps), "pg": of_pg}


def own_loop(library: str, name: str, num_envs: int, steps: int) -> Turn:
    """The library's own loop with random actions."""
    if library == "envpool":
        import envpool

        pool: Any = envpool.make(name, env_type="gymnasium", num_envs=num_envs, seed=0)
        pool.reset()
        sample = lambda: np.stack([pool.action_space.sample() for _ in range(num_envs)])  # noqa: E731
    else:
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        own = {"autoreset_mode": mode}
        pool = gymnasium.make_vec(name, num_envs, vectorization_mode="sync", vector_kwargs=own)
        pool.reset(seed=0)
        sample = pool.action_space.sample

    def run() -> None:
        for _ in range(steps):
            pool.step(sample())

    return run


def batches_of_sb3(name: str, num_envs: int, batch: int, threads: int) -> Turn:
    """One batch of Stable-Baselines3's PPO."""
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(threads)
    own = {"n_steps": batch // num_envs, "batch_size": 64, "n_epochs": 10, "device": "cpu"}
    model = stable_baselines3.PPO("MlpPolicy", make_vec_env(name, n_envs=num_envs, seed=0), **own)
    return lambda: model.learn(batch, reset_num_timesteps=False)


def batches_of_pg(library: str, name: str, num_envs: int, batch: int) -> Turn:
    """One batch of pg's PPO."""
    config = Config(
        env=f"{library}:{name}",
        estimator="ppo",
        collect="windows",
        num_envs=num_envs,
        num_steps=batch // num_envs,
        minibatch_size=64,
        num_epochs=10,
        hidden_sizes=(64, 64),
        num_updates=1000,
        preset=None,
    )
    learner = make_learner(config)
    step = jax.jit(learner.step)
    current = [learner.init(jax.random.key(0))]
    turns = iter(range(10**9))

    def run() -> None:
        key = jax.random.key(next(turns))
        current[0], _ = jax.block_until_ready(step(current[0], key))

    return run


def timed(turn: Turn) -> tuple[float, float]:
    """The seconds of a turn, and those of the processor."""
    began, cpu_began = time.perf_counter(), time.process_time()
    turn()
    return time.perf_counter() - began, time.process_time() - cpu_began


class Process:
    """A contender in a process of its own, which takes a turn when it is told to."""

    def __init__(self, contender: str) -> None:
        command = [sys.executable, *sys.argv, "--contender", contender]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def turn(self) -> tuple[float, float]:
        """The seconds of a turn, and those of the processor."""
        assert self.process.stdin
        assert self.process.stdout
        print("turn", file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("took "):
                _, seconds, cpu_seconds = line.split()
                return float(seconds), float(cpu_seconds)
        raise RuntimeError("a contender has ended by itself")


def main() -> None:
    """Prints steps per second and microseconds of the processor per step, medians of the turns."""
    options = cli.options(Options, cli.docstring_of(__file__))
    if options.contender:
        take_turns_as(options)
        return
    take: dict[str, Callable[[], tuple[float, float]]]
    if options.what == "loop":
        steps = options.of_turn // options.num_envs
        loops = random_loops(options.library, options.env, options.num_envs, steps)
        take = {name: functools.partial(timed, turn) for name, turn in loops.items()}
    else:
        take = {name: Process(name).turn for name in CONTENDERS}
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in take}
    for number in range(options.turns + 1):
        for name, turn_of in take.items():
            seconds = turn_of()
            if number:  # the first one compiles
                rows[name].append(seconds)
    first, second = (np.array(x) for x in rows.values())
    counted = numerals.counted(options.num_envs, "environment")
    print(f"{options.what}, {options.library}:{options.env}, {counted}")
    print("| | steps/s | processor µs per step |\n| --- | --- | --- |")
    for name, x in zip(rows, (first, second), strict=True):
        rate = options.of_turn / np.median(x[:, 0])
        cpu = 1e6 * np.median(x[:, 1]) / options.of_turn
        print(f"| {name} | {rate:,.0f} | {cpu:.0f} |")
    faster, cheaper = np.median(first / second, axis=0)
    turns = numerals.counted(options.turns, "turn")
    print(f"pg: {faster:.2f}× the steps/s, {cheaper:.2f}× by processor time, {turns}")


def take_turns_as(options: Options) -> None:
    """Takes a turn at each line of the standard input, and prints its seconds."""
    setting = options.env, options.num_envs, options.of_turn
    if options.contender == "pg":
        turn = batches_of_pg(options.library, *setting)
    else:
        turn = batches_of_sb3(*setting, options.torch_threads)
    for _ in sys.stdin:
        print("took", *timed(turn), flush=True)


if __name__ == "__main__":
    main()
