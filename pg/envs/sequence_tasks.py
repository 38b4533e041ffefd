"""Sequence tasks with verifiable answers: a sum, a sequence in reverse, balanced brackets.

The largest reward of every prompt is 1, and so is the return of the best policy; each task has a
demonstrator that writes correct answers.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pg.envs.sequences import Sequences
from pg.inputs import check_name, count

__all__ = ["TASKS", "brackets", "make", "modular_sum", "reverse"]

MOST_PROMPTS = 10_000  # of tasks that list them all


def modular_sum(modulus: int = 5, num_terms: int = 2, **settings: Any) -> Sequences:
    """The sum of the prompt's numbers modulo m: the answer is its digit, and then the end token, m.

    The reward is 1 if it is correct.

    Args:
        modulus: m; the numbers are 0 .. m-1.
        num_terms: the numbers of a prompt; all mᴺ prompts are equally likely.
        **settings: of `Sequences`, such as `observation`.
    """
    modulus, num_terms = count("modulus", modulus, low=2), count("num_terms", num_terms)

    def is_right(
        prompt: Int[Array, " N"], tokens: Int[Array, " L"], length: Int[Array, ""]
    ) -> Bool[Array, ""]:
        return (tokens[0] == prompt.sum() % modulus) & (tokens[1] == modulus)

    def next_token(
        prompt: Int[Array, " N"], tokens: Int[Array, " L"], length: Int[Array, ""]
    ) -> Float[Array, " V"]:
        digit = prompt.sum() % modulus
        return jax.nn.one_hot(jnp.where(length == 0, digit, modulus), modulus + 1, dtype=float)

    return Sequences(
        num_tokens=modulus + 1,
        max_length=2,
        end_token=modulus,
        reward=is_right,
        prompts=_all_prompts(modulus, num_terms),
        demonstrator=next_token,
        name=f"modular_sum(modulus={modulus}, num_terms={num_terms})",
        **settings,
    )


def reverse(
    num_symbols: int = 3,
    num_places: int = 4,
    num_prompts: int | None = None,
    **settings: Any,
) -> Sequences:
    """The prompt's symbols in reverse, and then the end token, which is `num_symbols`.

    The reward is the share of the answer's tokens that are correct, including the end token.

    Args:
        num_symbols: the symbols are 0 .. num_symbols-1.
        num_places: the symbols of a prompt.
        num_prompts: number of prompts, drawn once at random, always the same ones; None: all.
        **settings: of `Sequences`, such as `observation`.

    Raises:
        ValueError: there are too many prompts to list them all.
    """
    symbols, places = count("num_symbols", num_symbols), count("num_places", num_places)

    def share_right(
        prompt: Int[Array, " N"], tokens: Int[Array, " L"], length: Int[Array, ""]
    ) -> Float[Array, ""]:
        answer = jnp.append(prompt[::-1], symbols)
        return jnp.mean(tokens == answer, dtype=float)

    def next_token(
        prompt: Int[Array, " N"], tokens: Int[Array, " L"], length: Int[Array, ""]
    ) -> Float[Array, " V"]:
        answer = jnp.append(prompt[::-1], symbols)
        return jax.nn.one_hot(answer[length], symbols + 1, dtype=float)

    if num_prompts is None:
        prompts = _all_prompts(symbols, places)
    else:
        size = count("num_prompts", num_prompts), places
        prompts = np.random.default_rng(0).integers(symbols, size=size)
    return Sequences(
        num_tokens=symbols + 1,
        max_length=places + 1,
        end_token=symbols,
        reward=share_right,
        prompts=prompts,
        demonstrator=next_token,
        name=f"reverse(num_symbols={symbols}, num_places={places})",
        **settings,
    )


def brackets(max_pairs: int = 3, **settings: Any) -> Sequences:
    """As many balanced pairs of brackets as the prompt says: 0 opens, 1 closes, 2 is the end.

    The reward is 1 if they are balanced. A prompt is a number from 1 to `max_pairs`: the larger,
    the rarer are correct answers.

    Args:
        max_pairs: of the hardest prompt.
        **settings: of `Sequences`, such as `observation`.
    """
    max_pairs = count("max_pairs", max_pairs)
    opening, closing, end = range(3)

    def is_balanced(
        prompt: Int[Array, ""], tokens: Int[Array, " L"], length: Int[Array, ""]
    ) -> Bool[Array, ""]:
        opens, closes = tokens == opening, tokens == closing
        depth = jnp.cumsum(opens.astype(int) - closes.astype(int))
        is_asked_for = (opens.sum() == prompt) & (closes.sum() == prompt)
        return (depth >= 0).all() & is_asked_for & (tokens[length - 1] == end)

    def next_token(
        prompt: Int[Array, ""], tokens: Int[Array, " L"], length: Int[Array, ""]
    ) -> Float[Array, " V"]:
        """A bracket that is still possible, either one if both are, else the end."""
        num_open, num_closed = (tokens == opening).sum(), (tokens == closing).sum()
        can_open, can_close = num_open < prompt, num_closed < num_open
        can_be = jnp.stack([can_open, can_close, ~can_open & ~can_close]).astype(float)
        return can_be / can_be.sum()

    return Sequences(
        num_tokens=3,
        max_length=2 * max_pairs + 1,
        end_token=end,
        reward=is_balanced,
        prompts=np.arange(1, max_pairs + 1),
        demonstrator=next_token,
        name=f"brackets(max_pairs={max_pairs})",
        **settings,
    )


# By the names in Config.env.
TASKS: dict[str, Callable[..., Sequences]] = {
    "sequences:modular_sum": modular_sum,
    "sequences:reverse": reverse,
    "sequences:brackets": brackets,
}


def make(name: str) -> Sequences:
    """The task of this name, with the defaults of its function.

    Raises ValueError for an unknown name.
    """
    check_name("sequence task", name, TASKS)
    return TASKS[name]()


def _all_prompts(num_symbols: int, num_places: int) -> np.ndarray:
    """All prompts of these symbols, int [N, P]. Raises ValueError for too many."""
    if num_symbols**num_places > MOST_PROMPTS:
        raise ValueError(
            f"there are {num_symbols}^{num_places} prompts, and at most {MOST_PROMPTS:,} are "
            "listed: take fewer symbols or places, or use Sequences with your own prompts"
        )
    return np.array(list(itertools.product(range(num_symbols), repeat=num_places)))
