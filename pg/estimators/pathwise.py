"""The pathwise gradient: the derivative of the return through reward, dynamics and policy for given
noise.

    ∇J = E_ε[ ∇θ R(τ(θ, ε)) ],   aₜ = μθ(sₜ) + σθ(sₜ) εₜ,   sₜ₊₁ = f(sₜ, aₜ)

If the dynamics are differentiable it is an alternative to the score function, on the same episodes.
Its variance is often far smaller, but it explodes if they are chaotic (2111.05803), and it is
biased if they are discontinuous (2202.00817).
"""

import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from pg import returns, rollout
from pg.envs import Box, Env
from pg.networks import Network, check_env


def pathwise_gradient(
    env: Env,
    policy: Network,
    params: PyTree,
    key: PRNGKeyArray,
    gamma: Float[ArrayLike, ""] = 1.0,
    horizon: int | None = None,
) -> PyTree:
    """(1/N) Σₙ ∇θ R(τ⁽ⁿ⁾) over the episodes that `rollout.episodes` collects for this key: an
    ascent direction, like params.

    Unbiased for J if return and termination depend continuously on the actions: clipping is only a
    kink and harmless, but a small change that ends an episode one step sooner is a discontinuity.

    Args:
        env: an environment of `make_env(..., differentiable=True)`, with continuous actions.
        policy: its policy.
        params: θ, of the policy.
        key: a random key.
        gamma: γ.
        horizon: H, in steps; default: the environment's own time limit.

    Raises:
        ValueError: the environment is not differentiable, or its actions are not a Box.
    """
    check_env(env)
    if not env.differentiable:
        raise ValueError(
            "this environment stops the gradient of its transitions: make_env(..., "
            "differentiable=True)"
        )
    if not isinstance(env.action_space, Box):
        raise ValueError(
            "a pathwise gradient needs continuous actions; with discrete ones use an "
            "estimator's score"
        )

    def mean_return(params: PyTree) -> Float[Array, ""]:
        reward = rollout.differentiable_episodes(env, policy, params, key, horizon).reward
        return returns.total_return(reward, gamma).mean()

    return jax.grad(mean_return)(params)
