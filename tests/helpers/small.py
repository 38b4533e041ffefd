"""A small problem, settings that train on it in no time, and hyperparameters that are traced."""

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
