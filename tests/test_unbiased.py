"""The estimators' expectations, computed over every trajectory (and every pair) of a small MDP: no noise, 1e-12.

An estimator that says it is unbiased equals the exact gradient; one that says it is not equals its own mean, derived
here another way, and differs from the gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tabular_critic, tabular_policy

from pg import surrogates, tabular
from pg.config import ACCEPTS, Hyperparams
from pg.diagnostics import exact_moments
from pg.estimators import ESTIMATORS, Params
from pg.rollout import Trajectory

pytestmark = pytest.mark.usefixtures("x64")
S, A, H, GAMMA = 3, 2, 3, 0.8
MDP = tabular.garnet(0, S, A, branching=2, horizon=H)
RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(S, A))
BEHAVIOUR = LOGITS + 0.7 * RNG.normal(size=(S, A))
VALUES = RNG.normal(size=S)  # any critic at all
SLOPES = RNG.normal(size=(S, A))  # a direction in which the third derivative is not 0
DISCOUNT = GAMMA ** np.arange(H)[:, None]


def exact_gradient(tau: float = 0.0) -> np.ndarray:
    return np.asarray(tabular.exact_gradient(MDP, LOGITS, GAMMA, tau))


def moments(
    name: str, num_episodes: int = 1, on_policy: bool = True, limit_ends: bool = False, **hyperparams: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [S·A] and covariance of ĝ over every batch of `num_episodes` trajectories, as a direction of ascent.

    on_policy: else the trajectories are the behaviour's. limit_ends: the time limit counts as a termination.
    """
    estimator = ESTIMATORS[name](tabular_policy(S, A), tabular_critic(S), Hyperparams(gamma=GAMMA, **hyperparams))
    fresh = estimator.init(jax.random.key(0))[0]
    params = Params(jnp.asarray(LOGITS), () if isinstance(fresh.critic, tuple) else jnp.asarray(VALUES))
    acting = LOGITS if on_policy else BEHAVIOUR
    return exact_moments(estimator, params, MDP, acting, num_episodes, limit_ends=limit_ends)


def expectation(name: str, **setting: Any) -> np.ndarray:
    """E ĝ, [S, A]."""
    return moments(name, **setting)[0].reshape(S, A)


def distance(name: str, *, to: np.ndarray | None = None, **setting: Any) -> float:
    """Largest difference between the estimator's mean and the gradient, or another direction."""
    return float(np.abs(expectation(name, **setting) - (exact_gradient() if to is None else to)).max())


UNBIASED = [
    *({"name": name} for name in ("reinforce", "reward_to_go", "moving_average", "state_value")),
    {"name": "constant_baseline", "baseline": 0.7},
    *({"name": name, "num_episodes": 2} for name in ("leave_one_out", "time_baseline", "optimal_baseline")),
    {"name": "trajectory_importance", "on_policy": False},
    {"name": "per_decision_importance", "on_policy": False},
    {"name": "ratio_only"},  # on-policy
    # Bootstrapped estimators are ∇J where nothing is left to bootstrap: every end is an end, and all of it is used.
    {"name": "gae", "limit_ends": True, "lambda_": 1.0},
    {"name": "ppo", "limit_ends": True, "lambda_": 1.0},
    {"name": "vtrace", "limit_ends": True, "lambda_": 1.0},
    {"name": "actor_critic", "limit_ends": True, "n_step": H},
]
BIASED = [
    {"name": "undiscounted_reward_to_go"},
    {"name": "batch_mean", "num_episodes": 2},
    {"name": "standardised", "num_episodes": 2},
    {"name": "ratio_only", "on_policy": False},
    {"name": "entropy_reward", "temperature": 0.3},  # unbiased for another objective
    {"name": "gae", "lambda_": 1.0},  # bootstraps where the time limit cut
    {"name": "gae", "limit_ends": True, "lambda_": 0.5},
    {"name": "gae", "limit_ends": True, "lambda_": 1.0, "undiscounted_state_weighting": 1.0},
    {"name": "ppo", "lambda_": 1.0},
    {"name": "vtrace", "limit_ends": True, "lambda_": 1.0, "on_policy": False},
    {"name": "actor_critic", "limit_ends": True, "n_step": 1},
]


def label(setting: dict[str, Any]) -> str:
    return "-".join(str(value) if key == "name" else f"{key}={value}" for key, value in setting.items())


@pytest.mark.parametrize("setting", UNBIASED, ids=label)
def test_unbiased(setting: dict[str, Any]) -> None:
    assert distance(**setting) < 1e-12


@pytest.mark.parametrize("setting", BIASED, ids=label)
def test_biased_and_seen_to_be(setting: dict[str, Any]) -> None:
    assert distance(**setting) > 1e-3


def summands() -> tuple[np.ndarray, np.ndarray, np.ndarray, Trajectory]:
    """Probabilities [M], scores [H, M, S, A], rewards γᵗ rₜ [H, M], and the trajectories, leaves [H, M, ...]."""
    traj, probabilities = tabular.enumerate_trajectories(MDP, jnp.asarray(LOGITS))
    traj, pi = jax.tree.map(np.asarray, traj), np.asarray(jax.nn.softmax(LOGITS))
    centred = np.eye(A)[traj.action] - traj.obs @ pi
    scores = traj.obs[..., :, None] * centred[..., None, :] * traj.valid[..., None, None]
    return np.asarray(probabilities), scores, DISCOUNT * traj.reward, traj


def test_what_batch_mean_estimates() -> None:
    assert distance("batch_mean", num_episodes=2, to=exact_gradient() / 2) < 1e-12


def test_what_dropping_the_discount_estimates() -> None:
    exact = np.asarray(tabular.undiscounted_direction(MDP, LOGITS, GAMMA))
    assert distance("undiscounted_reward_to_go", to=exact) < 1e-12
    # gae at λ = 1, with every end an end, drops it likewise.
    whole = {"limit_ends": True, "lambda_": 1.0, "undiscounted_state_weighting": 1.0}
    assert distance("gae", to=exact, **whole) < 1e-12


def test_what_standardised_returns_estimate() -> None:
    """Of a pair the standardised returns are ±1: E = Σ p p' sign(R - R') (Z - Z') / 2."""
    probabilities, scores, rewards, _ = summands()
    total, z = rewards.sum(0), scores.sum(0)
    gap = total[:, None] - total[None, :]
    weight = gap / 2 / (np.abs(gap) / 2 + 1e-8)
    exact = np.einsum("m,n,mn,msa->sa", probabilities, probabilities, weight, z)
    # Pairs of equal returns: a gap of 10⁻¹⁷ from rounding over the 10⁻⁸ in the denominator leaves 10⁻⁹.
    assert distance("standardised", num_episodes=2, to=exact) < 1e-9


def test_what_one_ratio_estimates_off_policy() -> None:
    """States and rewards to go of the behaviour, actions of the policy."""
    behaviour, pi = jnp.asarray(BEHAVIOUR), np.asarray(jax.nn.softmax(LOGITS))
    d, (q, _) = tabular.visitation(MDP, behaviour), tabular.values(MDP, behaviour, GAMMA)
    baseline = np.einsum("sa,tsa->ts", pi, q)
    exact = np.einsum("t,ts,sa,tsa->sa", DISCOUNT[:, 0], d, pi, q - baseline[..., None])
    assert distance("ratio_only", on_policy=False, to=exact) < 1e-12


def test_entropy_as_reward_is_the_gradient_of_the_entropy_regularised_return() -> None:
    assert distance("entropy_reward", temperature=0.3, to=exact_gradient(tau=0.3)) < 1e-12
    # The same bonus as a loss is another direction: it forgets the entropy of what follows.
    assert distance("reward_to_go", entropy_coef=0.3, to=exact_gradient(tau=0.3)) > 1e-3


@pytest.mark.parametrize(("name", "lambda_"), [("gae", 0.5), ("gae", 1.0), ("ppo", 0.5)])
def test_what_gae_estimates(name: str, lambda_: float) -> None:
    """Σ p Σₜ γᵗ zₜ Σₗ (γλ)ˡ δₜ₊ₗ by loops, bootstrapping where the time limit cut."""
    probabilities, scores, _, traj = summands()
    v, v_next = traj.obs @ VALUES, np.where(traj.terminated, 0.0, traj.next_obs @ VALUES)
    delta = np.where(traj.valid, traj.reward + GAMMA * v_next - v, 0.0)
    advantage = np.stack([sum((GAMMA * lambda_) ** (k - t) * delta[k] for k in range(t, H)) for t in range(H)])
    exact = np.einsum("m,tm,tmsa->sa", probabilities, DISCOUNT * advantage, scores)
    assert distance(name, lambda_=lambda_, to=exact) < 1e-12


def test_what_one_step_actor_critic_estimates() -> None:
    """Σₜ γᵗ Σₛ dₜ Σₐ ∇π (r + γ P V): the true Q replaced by one step and the critic, here with every end an end."""
    pi, d = np.asarray(jax.nn.softmax(LOGITS)), np.asarray(tabular.visitation(MDP, jnp.asarray(LOGITS)))
    one_step = MDP.mean_reward + GAMMA * MDP.continuing @ VALUES
    q = np.stack([one_step] * (H - 1) + [MDP.mean_reward])
    exact = np.einsum("t,ts,sa,tsa->sa", DISCOUNT[:, 0], d, pi, q - np.einsum("sa,tsa->ts", pi, q)[..., None])
    assert distance("actor_critic", n_step=1, limit_ends=True, to=exact) < 1e-12


@pytest.mark.parametrize(("name", "recursion"), [("reinforce", "total_return"), ("reward_to_go", "reward_to_go")])
def test_exact_variance_by_enumeration_is_that_by_recursion(name: str, recursion: str) -> None:
    expected = getattr(tabular, f"{recursion}_moments")(MDP, LOGITS, GAMMA)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), moments(name), expected)


def test_exact_variance_of_baselines() -> None:
    """A constant and a state-dependent one by recursion; leaving one out is N / (N - 1) of the batch mean, always."""
    constant = tabular.total_return_moments(MDP, LOGITS, GAMMA, 0.7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        moments("constant_baseline", baseline=0.7),
        constant,
    )
    state_value = tabular.reward_to_go_moments(MDP, LOGITS, GAMMA, VALUES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), moments("state_value"), state_value)
    out, mean = moments("leave_one_out", num_episodes=2)[1], moments("batch_mean", num_episodes=2)[1]
    np.testing.assert_allclose(out, 4 * mean, atol=1e-12)


def test_reward_to_go_can_be_worse_than_the_total_return() -> None:
    mdp, logits = tabular.cancelling(), np.zeros((2, 2))
    traces = [np.trace(f(mdp, logits)[1]) for f in (tabular.total_return_moments, tabular.reward_to_go_moments)]
    assert traces[1] > 10 * traces[0]


def test_weights_of_importance_are_one_on_policy() -> None:
    for name, plain in [
        ("trajectory_importance", "reinforce"),
        ("per_decision_importance", "reward_to_go"),
        ("ratio_only", "reward_to_go"),
    ]:
        assert distance(name, to=expectation(plain)) < 1e-12


def test_the_optimal_baseline_is_not_in_sample() -> None:
    """With its own episode in the sums it would be biased: the negative control of leaving it out."""
    probabilities, scores, rewards, _ = summands()
    total, z = rewards.sum(0), scores.sum(0).reshape(-1, S * A)
    mean = np.zeros(S * A)
    for m, p in enumerate(probabilities):
        top = total[m] * z[m] ** 2 + total[:, None] * z**2
        bottom = z[m] ** 2 + z**2
        b = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        mean += p * probabilities @ (((total[m] - b) * z[m] + (total[:, None] - b) * z) / 2)
    assert np.abs(mean.reshape(S, A) - exact_gradient()).max() > 1e-3


def objective(kind: str, logits: jax.Array) -> jax.Array:
    """A surrogate whose derivatives estimate those of J, averaged over every trajectory."""
    probabilities, _, rewards, traj = summands()
    log_pi = jax.nn.log_softmax(logits)
    log_prob = jnp.where(traj.valid, jnp.einsum("tms,sa,tma->tm", traj.obs, log_pi, np.eye(A)[traj.action]), 0.0)
    if kind == "dice":
        per_episode = surrogates.dice(log_prob, jnp.asarray(rewards))
    elif kind == "loaded_dice":
        # Advantages over a stand-in V: any function of the state leaves every order unbiased.
        to_go = np.cumsum(rewards[::-1], axis=0)[::-1]
        advantage = jnp.asarray(np.where(traj.valid, to_go - DISCOUNT * (traj.obs @ VALUES), 0.0))
        per_episode = surrogates.loaded_dice(log_prob, advantage)
    else:
        per_episode = surrogates.score(log_prob.sum(0), jnp.asarray(rewards.sum(0)))
    return jnp.asarray(probabilities) @ per_episode


@pytest.mark.parametrize("kind", ["dice", "loaded_dice"])
def test_first_and_higher_orders(kind: str) -> None:
    logits = jnp.asarray(LOGITS)
    np.testing.assert_allclose(jax.grad(lambda x: objective(kind, x))(logits), exact_gradient(), atol=1e-12)
    exact = tabular.exact_hessian(MDP, logits, GAMMA)
    np.testing.assert_allclose(jax.hessian(lambda x: objective(kind, x))(logits), exact, atol=1e-12)

    def third(f: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """D³f(θ)[v, v, ·], v = SLOPES."""

        def along(g: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
            return lambda x: jax.jvp(g, (x,), (SLOPES,))[1]

        return jax.grad(along(along(f)))(logits)

    expected = third(lambda x: tabular.exact_return(MDP, x, GAMMA))
    np.testing.assert_allclose(third(lambda x: objective(kind, x)), expected, atol=1e-12)
    assert float(jnp.abs(expected).max()) > 1e-3
    # Differentiating the ordinary surrogate twice is wrong: the negative control.
    twice = jax.hessian(lambda x: objective("score", x))(logits)
    assert float(jnp.abs(twice - exact).max()) > 1e-2


def test_every_estimator_is_judged_here() -> None:
    assert {setting["name"] for setting in [*UNBIASED, *BIASED]} == set(ACCEPTS)
