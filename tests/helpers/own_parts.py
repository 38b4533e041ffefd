"""Custom parts as texts, from which tests make files."""

HEADER = """
import jax.numpy as jnp
import pg
"""
CLIPPED = '''

def clipped(policy, critic, h):
    """Ψₜ = min(R, 50) less the mean over the other episodes."""

    def weigh(params, state, traj):
        total = jnp.minimum(pg.returns.total_return(traj.reward, h.gamma), 50.0)
        psi = total - pg.baselines.leave_one_out(total)
        return psi[None, :], (), state

    return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))
'''
LINEAR = """

def linear(config, env):
    size, actions = env.obs_shape[0], env.action_space.n
    return pg.Network(
        lambda key: jnp.zeros((size, actions)),
        lambda params, carry, obs, first: (carry, pg.Categorical(obs @ params)),
    )
"""
