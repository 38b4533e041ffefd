"""Measure how a causal transformer samples sequences: with its cache of keys and values, and
without, by a pass over the whole sequence for every token; and the memory of a batch and of an
update.

Compiled programs take turns in one process; each figure is the median over turns of the ratio
within a turn.
"""

import dataclasses
from pathlib import Path
from typing import Any

import by_length

from pg.commands import cli


@dataclasses.dataclass
class Options:
    """The programs that are timed."""

    lengths: tuple[int, ...] = (16, 32, 64)
    """Lengths L of the sequences, each with a prompt of `prompt_length` tokens before it."""
    num_envs: int = 64
    """Number of sequences of a batch."""
    num_tokens: int = 16
    """Number V of kinds of tokens."""
    prompt_length: int = 8
    """Tokens of a prompt."""
    blocks: int = 2
    """Blocks of the transformer, each of width `size`."""
    size: int = 64
    """Width of the blocks."""
    repeats: int = 10
    """Number of turns that are timed."""
    json: Path | None = None
    """File in which the figures are written."""


def main() -> None:
    """Prints a table for each length, and the ratios."""
    by_length.run(Options, cli.docstring_of(__file__), measured)


def measured(length: int, options: Options) -> dict[str, Any]:
    """The figures of one length, which it prints."""
    import jax
    import jax.numpy as jnp
    from timing import compiled, faster, medians, table, take_turns

    import pg
    from pg import rollout
    from pg.networks import unroll

    task = sequences(length, options)
    config = pg.Config(
        env=task,
        network="causal_transformer",
        hidden_sizes=(options.size,) * options.blocks,
        rnn_heads=by_length.HEADS,
        num_envs=options.num_envs,
        preset=None,
    )
    env = pg.make_env(task, options.num_envs)
    policy = pg.make_policy(config, env)
    learner = pg.make_learner(config)
    state = learner.init(jax.random.key(0))
    params = state.params.policy
    without = _without_cache(policy, length)

    def sampling(network: Any) -> Any:
        def sample(params: Any, key: Any) -> Any:
            traj = rollout.episodes(env, network, params, key)
            return traj.without_carry, traj.valid.sum()

        return compiled(sample, params)

    def update(state: Any, key: Any) -> Any:
        state, metrics = learner.step(state, key)
        return state, metrics["env_steps"]

    programs = {"with cache": sampling(policy), "without": sampling(without)}
    timings = take_turns(programs, options.repeats)
    trained = compiled(update, state)
    traj = programs["with cache"].run(jax.random.key(0))[0]
    log_prob = unroll(policy, params, traj.obs, traj.first).log_prob(traj.action)
    figures = {
        "faster": faster(timings["with cache"], timings["without"]),
        "largest_difference": float(jnp.abs(log_prob - traj.log_prob).max()),
        "batch_bytes": sum(x.nbytes for x in jax.tree.leaves(traj)),
        "update_temp_bytes": trained.temp_bytes,
    }
    rows = medians(programs, timings)
    print(table(f"{options.num_envs} sequences of {length} tokens", rows))
    print(
        f"with the cache {figures['faster']:.1f} × as fast; log π of the rollout and of one pass "
        f"over the sequence differ by {figures['largest_difference']:.1e};\n"
        f"a batch is {figures['batch_bytes'] / 1e6:.2f} MB, an update takes "
        f"{figures['update_temp_bytes'] / 1e6:.1f} MB\n",
        flush=True,
    )
    return {**figures, **rows}


def sequences(length: int, options: Options) -> Any:
    """Sequences of L tokens, none of which ends one."""
    import numpy as np

    from pg.envs import Sequences

    size = (256, options.prompt_length)
    return Sequences(
        num_tokens=options.num_tokens,
        max_length=length,
        end_token=None,
        reward=lambda prompt, tokens, length: (tokens == prompt[0]).mean(),
        prompts=np.random.default_rng(0).integers(options.num_tokens, size=size),
        observation="last",
    )


def _without_cache(policy: Any, length: int) -> Any:
    """The same policy, whose carry is the tokens so far, which each step processes again."""
    import jax
    import jax.numpy as jnp

    from pg.networks import Network, unroll

    def apply(params: Any, tokens: Any, obs: Any, first: Any) -> Any:
        position = obs["position"].astype(jnp.int32)
        places = jnp.arange(length)
        tokens = jnp.where(places[None] == position, obs["token"], tokens)  # [B, L]
        whole = {
            "token": tokens.T[..., None],
            "position": jnp.broadcast_to(places[:, None, None], (*tokens.T.shape, 1)),
            "prompt": jnp.broadcast_to(obs["prompt"], (length, *obs["prompt"].shape)),
        }
        begins = jnp.broadcast_to(places[:, None] == 0, tokens.T.shape)
        dist = unroll(policy, params, whole, begins)
        last = position[None]  # [1, B, 1]
        return tokens, jax.tree.map(lambda x: jnp.take_along_axis(x, last, axis=0)[0], dist)

    return Network(policy.init, apply, jnp.zeros(length))


if __name__ == "__main__":
    main()
