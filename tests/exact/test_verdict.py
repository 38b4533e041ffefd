"""The verdict on an estimator: every listed one passes with its own facts, and each planted mistake
fails with the sentence that names it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pg import baselines, returns
from pg.config import Hyperparams
from pg.diagnostics import Verdict, verdict
from pg.estimators import (
    ESTIMATORS,
    FACTS,
    Estimator,
    Facts,
    Params,
    build_estimator,
    sequence_estimator,
)
from pg.estimators.base import discounted_reward_to_go
from pg.estimators.family import Factory
from pg.rollout import Trajectory

UNBIASED = Facts(unbiased_for="J")
COMPARING = Facts(unbiased_for="J", baseline="batch")
IN_WINDOWS = Facts(unbiased_for="J", collect=("episodes", "windows"))
FEW_EPISODES = 20_000


def failures(found: Verdict) -> list[str]:
    return [finding.name for finding in found.findings if not finding.ok]


@pytest.mark.slow
@pytest.mark.acceptance("P6")
@pytest.mark.parametrize("name", [*FACTS])
def test_a_listed_estimator_passes_with_its_facts(name: str) -> None:
    found = verdict(ESTIMATORS[name], num_episodes=FEW_EPISODES)
    assert failures(found) == []
    assert found.claims["unbiased_for"] == FACTS[name].unbiased_for
    assert list(found.figures) == ["random", "chain", "cancelling"]
    assert (found.finding("mean").value < 1e-9) == (FACTS[name].unbiased_for != "no")
    if FACTS[name].critic != "none" and FACTS[name].unbiased_for == "no":
        assert "with the exact critic its mean is ∇J" in found.finding("exact_critic").text


def of_psi(weigh: Callable[..., Any], **options: Any) -> Factory:
    """An estimator without a critic. weigh: trajectory, hyperparameters, state -> Ψ, state."""

    def made(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        def weighed(params: Params, state: Any, traj: Trajectory) -> Any:
            psi, after = weigh(traj, h, state)
            return psi, (), after

        return build_estimator(policy, None, h, weighed, **options)

    return made


def total(traj: Trajectory, h: Hyperparams) -> jax.Array:
    """The return of each episode, [1, B]."""
    return returns.total_return(traj.reward, h.gamma)[None]


def leaking(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
    """Ψ is a function of the parameters, without a stop-gradient."""
    plain = ESTIMATORS["reinforce"](policy, critic, h)

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        weighted, after = plain.weigh(params, state, traj)
        log_prob = policy.apply(params.policy, (), traj.obs, traj.first)[1].log_prob(traj.action)
        ratio = jnp.exp(log_prob - traj.log_prob)
        return weighted._replace(psi=weighted.psi * ratio), after

    return plain._replace(weigh=weigh)


def with_a_wrong_separability(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
    return ESTIMATORS["optimal_baseline"](policy, critic, h)._replace(separable=True)


def counting() -> Factory:
    """An impure function: it counts its calls."""
    calls = itertools.count(1)
    return of_psi(lambda traj, h, state: (total(traj, h) * next(calls), state))


@of_psi
def averaged_over_time(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    discounted = traj.reward * returns.discount_powers(traj.reward, h.gamma)
    return 3 * discounted.mean(0, keepdims=True), state


@of_psi
def beside_the_mask(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    """Log-probabilities of padding rows after the end, where no action was taken."""
    return total(traj, h) + traj.log_prob.sum(0, keepdims=True), state


@of_psi
def of_two_batches(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    """Two numbers for each episode."""
    return jnp.tile(total(traj, h), (1, 2)), state


@of_psi
def not_finite(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    return total(traj, h) / 0.0, state


@of_psi
def over_a_root(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    return total(traj, h) / jnp.sqrt(1.0 + total(traj, h) ** 2), state


@of_psi
def clipped(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    """Returns of 50 at most, which those of the problems are below."""
    return jnp.minimum(total(traj, h), 50.0), state


@of_psi
def less_the_mean(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    """Its own episode is in the mean."""
    return total(traj, h) - total(traj, h).mean(), state


@of_psi
def summed(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    """Episodes are summed instead of averaged."""
    return total(traj, h) * traj.reward.shape[1], state


@of_psi
def without_state_weighting(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    return returns.reward_to_go(traj.reward, traj.done, h.gamma), state


@of_psi
def summed_through_ends(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    return discounted_reward_to_go(traj, h), state


@functools.partial(of_psi, state=jnp.float32(0.0))
def scaled_by_the_past(traj: Trajectory, h: Hyperparams, past: Any) -> Any:
    """A state that enters the scale: right at first, and not from the second batch on."""
    return total(traj, h) / (1.0 + past), past + jnp.abs(total(traj, h)).mean()


@functools.partial(of_psi, state=baselines.MovingAverage.start())
def with_todays_return(traj: Trajectory, h: Hyperparams, past: Any) -> Any:
    """A moving average that has taken in the batch that it is subtracted from."""
    after = past.update(total(traj, h).mean(), 0.5)
    return total(traj, h) - after.value(), after


@functools.partial(of_psi, state_discount=1.0)
def with_another_discount(traj: Trajectory, h: Hyperparams, state: Any) -> Any:
    return total(traj, h), state


# The factory, its claims, the finding that fails, and what it says.
PLANTED: dict[str, tuple[Factory, Facts | None, str, str]] = {
    "too many numbers": (of_two_batches, UNBIASED, "results", "psi must be one number, [T, B]"),
    "not finite": (not_finite, None, "results", "the gradient is not finite"),
    "impure": (counting(), UNBIASED, "purity", "two traces give different numbers"),
    "a gradient through weigh": (leaking, None, "leak", "wrap them in jax.lax.stop_gradient"),
    "a mean over time": (averaged_over_time, UNBIASED, "padding", "as in a mean over T"),
    "no mask": (beside_the_mask, None, "padding", "sum where traj.valid is True"),
    "no mean of episodes": (
        with_a_wrong_separability,
        None,
        "separable",
        "estimator._replace(separable=False)",
    ),
    "sums through ends": (
        summed_through_ends,
        IN_WINDOWS,
        "windows",
        "an episode of a window depends on the one after",
    ),
}
PLANTED_SLOW: dict[str, tuple[Factory, Facts | None, str, str]] = {
    "a bound beyond the problems": (
        clipped,
        UNBIASED,
        "scale",
        "it depends on the size of the returns, as if they are clipped",
    ),
    "state of the past": (scaled_by_the_past, UNBIASED, "later_state", "after two batches"),
    "own episode": (less_the_mean, COMPARING, "mean", "on cancelling: it is 0.5 times that"),
    "a root": (over_a_root, UNBIASED, "mean", "unbiased_for='J' is claimed, and the exact mean"),
    "a sum": (summed, UNBIASED, "mean", "it is 2 times that"),
    "no weight of states": (without_state_weighting, UNBIASED, "mean", "γᵗ is missing"),
    "today in the past": (with_todays_return, UNBIASED, "mean", "the exact mean is off ∇J by"),
    "another discount": (
        with_another_discount,
        UNBIASED,
        "state_discount",
        "say state_discount=h.gamma",
    ),
}


@pytest.mark.acceptance("P6")
@pytest.mark.parametrize(
    ("factory", "facts", "name", "said"),
    [
        *(pytest.param(*row, id=label) for label, row in PLANTED.items()),
        *(
            pytest.param(*row, id=label, marks=pytest.mark.slow)
            for label, row in PLANTED_SLOW.items()
        ),
    ],
)
def test_a_planted_mistake_fails_by_its_name(
    factory: Factory, facts: Facts | None, name: str, said: str
) -> None:
    found = verdict(factory, facts, num_episodes=FEW_EPISODES)
    assert name in failures(found)
    assert said in found.finding(name).text
    assert not found.ok


def test_what_was_measured_is_said_of_an_estimator_that_claims_nothing() -> None:
    found = verdict(clipped, num_episodes=FEW_EPISODES)
    assert found.ok
    said = found.finding("mean").text
    assert "is ∇J on random, chain, cancelling, with returns from -" in said
    assert "no bias on these" in said
    assert found.finding("scale").value > 0.1
    assert math.isnan(found.finding("scale").bound)


@pytest.mark.slow
def test_a_divergence_is_measured_from_a_reference_that_is_another_policy() -> None:
    found = verdict(sequence_estimator(kl="k1"), num_episodes=FEW_EPISODES)
    assert failures(found) == []
    assert "∇J_β" in found.finding("mean").text
    wrong = sequence_estimator(kl="k2", kl_place="loss")
    wrong.facts = dataclasses.replace(wrong.facts, unbiased_for="J_β")  # type: ignore[attr-defined]
    assert "mean" in failures(verdict(wrong, num_episodes=FEW_EPISODES))


@pytest.mark.slow
def test_nothing_is_claimed_and_nothing_fails() -> None:
    """A bias is found and said, and so is that episodes of a window see one another."""
    found = verdict(less_the_mean, num_episodes=FEW_EPISODES)
    assert found.ok
    assert found.claims == {}
    assert "it is 0.5 times that" in found.finding("mean").text
    assert "compares the episodes of a batch" in found.finding("separable").text
    assert found.facts.baseline == "batch"
    assert found.figures["random"].bias == pytest.approx(0.5)
