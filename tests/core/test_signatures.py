"""The shapes in signatures hold at every call that a test makes."""

from collections.abc import Callable

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from pg import baselines, returns, rounding, surrogates

COLUMN, ROW, FLAGS = jnp.ones((3, 1)), jnp.ones((1, 3)), jnp.zeros((3, 1), bool)


@pytest.mark.skipif(not __debug__, reason="under `python -O` signatures are not checked")
@pytest.mark.parametrize(
    "call",
    [
        lambda: returns.total_return(COLUMN, gamma=jnp.ones((3, 1))),
        lambda: returns.gae(COLUMN, FLAGS, FLAGS, COLUMN, COLUMN, 0.9, lambda_=jnp.ones((3, 1))),
        lambda: baselines.group_standardised(jnp.ones(3), jnp.ones(1), jnp.ones((3, 3), bool)),
        lambda: surrogates.score(COLUMN, ROW),
        lambda: surrogates.dice(COLUMN, ROW),
        lambda: rounding.sum_in_pairs(jnp.ones(3, int)),
    ],
)
def test_what_would_be_broadcast_in_silence_is_an_error(call: Callable) -> None:
    """Called without the checker, each of these returns a number."""
    with pytest.raises(TypeCheckError):
        call()
