"""The layers of one network, one after the other."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Bool, PyTree, Shaped

from pg.layers.recurrent import Recurrent

__all__ = ["Model"]


class Model(nn.Module):
    """Torso, recurrent cell if there is one, head."""

    torso: nn.Module
    memory: Recurrent | None  # a recurrent cell; its name is that of its stored parameters
    head: nn.Module

    def __call__(
        self, carry: PyTree, obs: Shaped[Array, "..."], first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Any]:
        """carry, obs [..., *O], first [...] -> carry, the output of the head."""
        features = self.torso(obs)
        if self.memory is not None:
            carry, features = self.memory(carry, features, first)
        return carry, self.head(features)
