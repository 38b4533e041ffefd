"""The rule by which a seed becomes random keys, for every way to run it."""

import jax


def seed_key(seed: int) -> jax.Array:
    """The training key of a seed.

    `jax.jit(pg.make_train(config))(pg.seed_key(0))` is what `train.py --seed 0` trains, bit for
    bit, and what a sweep trains with seed 0.
    """
    return jax.random.split(jax.random.key(seed))[0]


def evaluation_key(seed: int) -> jax.Array:
    """The key of the final evaluation of a seed, whose episodes no training sees."""
    return jax.random.split(jax.random.key(seed))[1]
