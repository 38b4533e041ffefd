"""Measure the cost of `--diagnostics`: a batch's gradient with its moments against the gradient
alone, and whole updates.

Compiled programs take turns in one process; each figure is the median over turns of the ratio
within a turn.
"""

import dataclasses
from pathlib import Path
from typing import Any

from pg.commands import cli
from pg.presets import preset
from pg.runs import folders


@dataclasses.dataclass
class Options:
    """The programs that are timed."""

    env: str = "CartPole-v1"
    """Name of the environment."""
    estimators: tuple[str, ...] = (
        "reinforce",
        "leave_one_out",
        "state_value",
        "actor_critic",
        "ppo",
    )
    """Names of the estimators."""
    num_envs: int = 64
    """Number of episodes of a batch, or of environments of a window."""
    repeats: int = 20
    """Number of turns that are timed."""
    json: Path | None = None
    """File in which the figures are written."""


def main() -> None:
    """Prints a row per estimator: time and memory of the moments over the gradient's, time of the
    updates.
    """
    options = cli.options(Options, cli.docstring_of(__file__))
    if options.num_envs < 2 or options.repeats < 1:
        cli.fail(
            f"num_envs must be at least 2 and repeats at least 1, got {options.num_envs} and "
            f"{options.repeats}"
        )
    figures = {}
    print(f"{'':16}{'moments / gradient':>20}{'their memory':>14}{'update / update':>18}")
    for name in options.estimators:
        figures[name] = row = measured(name, options)
        print(f"{name:16}{row['time']:20.2f}{row['memory']:14.2f}{row['update']:18.2f}", flush=True)
    if options.json:
        folders.write_json(options.json, {**figures, "versions": folders.environment()})


def measured(name: str, options: Options) -> dict[str, float]:
    """The three ratios of an estimator."""
    from timing import compiled, longer, take_turns
    from updates import update

    config, hyperparams = preset(name, env=options.env, num_envs=options.num_envs)
    gradient, with_moments, args = gradients(config, hyperparams)
    programs = {
        "gradient": compiled(gradient, *args),
        "moments": compiled(with_moments, *args),
        "update": update(config),
        "diagnosed": update(dataclasses.replace(config, diagnostics=True)),
    }
    timings = take_turns(programs, options.repeats)
    return {
        "time": longer(timings["moments"], timings["gradient"]),
        "memory": programs["moments"].temp_bytes / max(programs["gradient"].temp_bytes, 1),
        "update": longer(timings["diagnosed"], timings["update"]),
    }


def gradients(config: Any, hyperparams: Any) -> tuple[Any, Any, Any]:
    """The gradient of a weighed batch, the same with its moments, and what both take."""
    import jax
    import jax.numpy as jnp

    from pg import diagnostics, envs, networks, rollout
    from pg.estimators import ESTIMATORS

    env = envs.configured(config, config.num_envs)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    estimator = ESTIMATORS[config.estimator](policy, critic, hyperparams)
    params, state = estimator.init(jax.random.key(0))
    actor, key = networks.actor(policy, critic), jax.random.key(1)
    traj = jax.jit(lambda p: rollout.episodes(env, actor, p, key))(params)
    batch = jax.jit(lambda p, traj: estimator.weigh(p, state, traj)[0])(params, traj)
    steps = jnp.sum(traj.valid)

    def gradient(params: Any, batch: Any, key: jax.Array) -> Any:
        return estimator.grad(params, batch)[0], steps

    def with_moments(params: Any, batch: Any, key: jax.Array) -> Any:
        episodes = diagnostics.of_episodes(estimator, params, batch)
        found = diagnostics.moments(*episodes, batch_size=diagnostics.at_once(traj, 1))
        return (estimator.grad(params, batch)[0], found), steps

    return gradient, with_moments, (params, batch)


if __name__ == "__main__":
    main()
