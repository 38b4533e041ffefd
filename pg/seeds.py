"""The rule by which a seed becomes random keys, for every way to run it."""

import jax
from jaxtyping import PRNGKeyArray


def seed_key(seed: int) -> PRNGKeyArray:
    """The training key of a seed.

    `jax.jit(pg.make_train(config))(pg.seed_key(0))` is the run of `pg train --seed 0`, bit for
    bit, and of seed 0 in a sweep.
    """
    return jax.random.split(jax.random.key(seed))[0]


def evaluation_key(seed: int) -> PRNGKeyArray:
    """The key of the final evaluation of a seed, whose episodes no training sees."""
    return jax.random.split(jax.random.key(seed))[1]


def progress_key(seed: int) -> PRNGKeyArray:
    """The key of the evaluations of a seed while it trains; each folds its update in.

    Neither training nor the final evaluation sees their episodes.
    """
    return jax.random.split(jax.random.key(seed), 3)[2]
