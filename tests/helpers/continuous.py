"""Problems with continuous actions whose gradients have closed forms, and policies for them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.distributions import CensoredGaussian, Gaussian, TanhGaussian
from pg.exact.closed_forms import LQR, GaussianBandit, SquashedBandit
from pg.networks import Network

GAMMA = 0.9
MEAN, LOG_STD = 0.3, -0.4
PLAIN, CLIPPED, SQUASHED = GaussianBandit(1.0), GaussianBandit(1.0, -0.5, 0.6), SquashedBandit(0.4)
REGULATOR = LQR(
    A=[[0.9, 0.2], [-0.1, 0.8]],
    B=[[0.0], [1.0]],
    Q=np.eye(2),
    R=[[0.3]],
    W=0.05 * np.eye(2),
    start=[[1.0, 0.2], [0.2, 0.5]],
    horizon=5,
)
GAIN, GAIN_LOG_STD = jnp.array([[-0.1, -0.3]]), jnp.array([-0.7])


def gaussian(low: float = -1.0, high: float = 1.0, kind: type = Gaussian) -> Network:
    """N(mean, std²) whatever is seen, as one of the three distributions; params: (mean [1],
    log_std [1]).
    """

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        mean, log_std = (jnp.broadcast_to(x, (*obs.shape[:-1], 1)) for x in params)
        ends = {
            Gaussian: (),
            TanhGaussian: (jnp.zeros_like(mean), jnp.ones_like(mean)),
            CensoredGaussian: (jnp.full_like(mean, low), jnp.full_like(mean, high)),
        }
        return carry, kind(mean, log_std, *ends[kind])

    return Network(lambda key: (jnp.array([MEAN]), jnp.array([LOG_STD])), apply)


def linear() -> Network:
    """N(K x, σ²); params: (K [m, n], log_std [m])."""

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Gaussian]:
        mean = jnp.einsum("mn,...n->...m", params[0], obs)
        return carry, Gaussian(mean, jnp.broadcast_to(params[1], mean.shape))

    return Network(lambda key: (GAIN, GAIN_LOG_STD), apply)
