"""Policy mirror descent on tables: steps on exact Q that stay near the old policy in each state.

    π' = argmax_p  η Q(s, ·)·p - D(p, π(s, ·))      (Xiao 2022, 2201.07443)

With D = KL(p ‖ π) a step is π' ∝ π exp(η Q), the natural policy gradient of softmax tables (Kakade
2001; Agarwal et al. 2021, 1908.00261, section 5) and soft policy iteration with π as the prior;
with D = ½ ‖p - π‖² it is the projection of π + η Q on the simplex. V increases at every state with
each step of any size.

Arguments are those of `exact`: `mdp`, `logits` [S, A], `gamma`; without a time limit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from pg.exact.tabular.exact import discounted_values, of_legal
from pg.exact.tabular.mdp import TabularMDP


def kl_mirror_step(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "S A"],
    gamma: Float[ArrayLike, ""],
    step: Float[ArrayLike, ""],
) -> Float[Array, "S A"]:
    """log π', [S, A], of π' ∝ π exp(η Q); `step` is η."""
    q, _ = discounted_values(mdp, logits, gamma)
    return jax.nn.log_softmax(of_legal(mdp, logits) + step * q)


def euclidean_mirror_step(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "S A"],
    gamma: Float[ArrayLike, ""],
    step: Float[ArrayLike, ""],
) -> Float[Array, "S A"]:
    """log π', [S, A], of the projection of π + η Q on the simplex: projected Q-ascent; -inf for
    actions with probability 0. `step` is η.
    """
    legal = of_legal(mdp, logits)
    q, _ = discounted_values(mdp, logits, gamma)
    moved = jnp.where(_is_legal(mdp), jax.nn.softmax(legal) + step * q, -jnp.inf)
    return jnp.log(project_on_simplex(moved))


def project_on_simplex(x: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
    """The nearest probabilities, [..., A]: max(x - c, 0), c such that they sum to 1; 0 where x is
    -inf  (Held et al. 1974).
    """
    falling = -jnp.sort(-x, axis=-1)
    number = jnp.cumsum(jnp.ones_like(x), axis=-1)
    excess = (jnp.cumsum(falling, axis=-1) - 1.0) / number
    support = jnp.sum(falling > excess, axis=-1, keepdims=True)
    threshold = jnp.take_along_axis(excess, support - 1, axis=-1)
    return jnp.maximum(x - threshold, 0.0)


def step_towards_greedy(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "S A"],
    gamma: Float[ArrayLike, ""],
    accuracy: Float[ArrayLike, ""],
) -> Float[Array, ""]:
    """The η with which a step in KL equals policy iteration's up to `accuracy`: max_a Q(s, a) -
    Σₐ π' Q ≤ `accuracy` at every state  (Johnson et al. 2023, 2302.11381).

    η = max_s KL(greedy ‖ π) / accuracy = max_s -log π(argmax Q | s) / accuracy. With accuracies
    c γ²ᵏ⁺¹ the distance to V* is at most γᵏ (‖V* - V₀‖∞ + c / (1 - γ)) after k steps.
    """
    q, _ = discounted_values(mdp, logits, gamma)
    q = jnp.where(_is_legal(mdp), q, -jnp.inf)
    log_pi = jax.nn.log_softmax(of_legal(mdp, logits))
    of_greedy = jnp.take_along_axis(log_pi, jnp.argmax(q, axis=-1)[:, None], axis=-1)[:, 0]
    return jnp.max(jnp.where(jnp.asarray(mdp.terminal), 0.0, -of_greedy)) / accuracy


def _is_legal(mdp: TabularMDP) -> np.ndarray:
    """True for legal actions, [S, A]."""
    if mdp.mask is None:
        return np.ones((mdp.num_states, mdp.num_actions), bool)
    return np.asarray(mdp.mask)
