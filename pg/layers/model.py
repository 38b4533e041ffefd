"""The layers of one network in sequence."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Bool, PyTree

from pg.config import RNN
from pg.layers.attention import Transformer
from pg.layers.causal import CausalTransformer
from pg.layers.linear_recurrences import LRU, MinGRU
from pg.layers.recurrent import Recurrent

__all__ = ["Cell", "Model", "make_cell"]

Cell = Recurrent | LRU | MinGRU | Transformer


def make_cell(kind: RNN, size: int, window: int, heads: int) -> Cell | None:
    """The recurrent cell of this name, or None for none.

    Args:
        kind: its name.
        size: width of the output.
        window: for a transformer, the number of earlier steps that it sees.
        heads: for a transformer, the number of heads.
    """
    if kind == "none":
        return None
    if kind == "lru":
        return LRU(size)
    if kind == "mingru":
        return MinGRU(size)
    if kind == "transformer":
        return Transformer(size, heads, window)
    return Recurrent(kind, size)


class Model(nn.Module):
    """Torso, recurrent cell if there is one, head."""

    torso: nn.Module | None  # None: the recurrent cell or causal transformer sees the observation
    # a recurrent cell; its name is that of its stored parameters
    memory: Cell | CausalTransformer | None
    head: nn.Module

    def __call__(self, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]) -> tuple[PyTree, Any]:
        """carry, obs [..., *O], first [...] -> carry, the output of the head."""
        features = obs if self.torso is None else self.torso(obs)
        if self.memory is not None:
            carry, features = self.memory(carry, features, first)
        return carry, self.head(features)
