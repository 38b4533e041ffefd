"""Training in the small: a problem and settings that take no time, hyperparameters that are traced,
and the steps that an optimizer has taken.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pg.config import Config, Hyperparams
from pg.exact.tabular import garnet

MDP = garnet(0, num_states=3, num_actions=2, branching=2, horizon=3)
TINY = Config(
    env=MDP, estimator="leave_one_out", num_envs=4, num_updates=50, hidden_sizes=(), preset=None
)
TRACED = jax.tree.map(jnp.float32, Hyperparams())._replace(
    n_step=jnp.int32(5), snapshot_period=jnp.int32(10)
)


def adam_steps(state: Any) -> int:
    """The steps that Adam has counted in the state of a run."""
    leaves = jax.tree.leaves_with_path(state.opt_state)
    return int(next(x for path, x in leaves if "count" in str(path)))
