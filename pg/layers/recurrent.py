"""Recurrent cells that are trained step by step: GRU and LSTM."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, PyTree

from pg.layers.dense import orthogonal

__all__ = ["Recurrent"]


class Recurrent(nn.Module):
    """A recurrent cell (GRU, Cho et al. 2014, 1406.1078; LSTM, Hochreiter & Schmidhuber 1997) along
    time.
    """

    kind: Literal["gru", "lstm"]
    size: int

    def start(self) -> Any:
        """The carry of one environment at an episode's start."""
        hidden = jnp.zeros(self.size)
        return (hidden, hidden) if self.kind == "lstm" else hidden

    @nn.compact
    def __call__(
        self, carry: PyTree, x: Float[Array, "*B F"], first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Float[Array, "*B size"]]:
        """carry: [B, ...]; x: [B, F] and first: [B], one step, or [T, B, F] and [T, B] -> carry,
        [..., size].
        """
        kind = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.kind]
        cell = kind(
            self.size, recurrent_kernel_init=orthogonal(1.0), param_dtype=jnp.zeros(()).dtype
        )

        def step(
            cell: nn.Module, carry: PyTree, xs: tuple[Float[Array, "B F"], Bool[Array, " B"]]
        ) -> tuple[PyTree, Float[Array, "B size"]]:
            x, first = xs
            carry = jax.tree.map(lambda c: jnp.where(first[:, None], 0.0, c), carry)
            return cell(carry, x)

        if first.ndim == 1:
            return step(cell, carry, (x, first))
        return nn.scan(step, variable_broadcast="params", split_rngs={"params": False})(
            cell, carry, (x, first)
        )
