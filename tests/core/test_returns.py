"""Returns against loops written out in numpy, over random patterns of both flags, and their
identities.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import returns

pytestmark = pytest.mark.usefixtures("x64")
T, B, GAMMA, LAMBDA = 12, 500, 0.9, 0.8


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    g = np.random.default_rng(0)
    return {
        "reward": g.normal(size=(T, B)),
        "terminated": g.random((T, B)) < 0.15,
        "truncated": g.random((T, B)) < 0.15,
        "v_t": g.normal(size=(T, B)),
        "v_tp1": g.normal(size=(T, B)),
    }


def deltas(b: dict[str, np.ndarray]) -> np.ndarray:
    return b["reward"] + GAMMA * np.where(b["terminated"], 0.0, b["v_tp1"]) - b["v_t"]


def brute(b: dict[str, np.ndarray], weight: float, most: int = T) -> np.ndarray:
    """Σ_{l<most} weightˡ δₜ₊ₗ up to the end of the episode or the array, by three loops."""
    delta, out = deltas(b), np.zeros((T, B))
    for n in range(B):
        for t in range(T):
            for k in range(t, min(t + most, T)):
                out[t, n] += weight ** (k - t) * delta[k, n]
                if b["terminated"][k, n] or b["truncated"][k, n]:
                    break
    return out


def test_discounted_sum_with_last() -> None:
    got = returns.discounted_sum(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.5, 0.5]), last=8.0)
    np.testing.assert_allclose(got, [1 + 0.5 * (2 + 0.5 * 7), 2 + 0.5 * 7, 7])


@pytest.mark.acceptance("T2")
def test_gae_is_the_loop(batch: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(
        returns.gae(**batch, gamma=GAMMA, lambda_=LAMBDA), brute(batch, GAMMA * LAMBDA), atol=1e-12
    )


@pytest.mark.acceptance("T2")
@pytest.mark.parametrize("n", [1, 2, 5, T, 100])
def test_n_step_is_the_loop(batch: dict[str, np.ndarray], n: int) -> None:
    expected = brute(batch, GAMMA, n)
    np.testing.assert_allclose(returns.n_step(**batch, gamma=GAMMA, n=n), expected, atol=1e-12)
    traced = jax.jit(returns.n_step)(**batch, gamma=GAMMA, n=n)
    np.testing.assert_allclose(traced, expected, atol=1e-12)


def test_times_may_be_whole_numbers() -> None:
    np.testing.assert_allclose(returns.discount(jnp.arange(3), 0.5), [1.0, 0.5, 0.25])


@pytest.mark.parametrize("n", [4, 2**31 - 2, 2**31 - 1])
def test_the_largest_n_is_a_number_of_steps_too(n: int) -> None:
    """In 32 bits, where a step's index plus n overflows."""
    with jax.enable_x64(False):
        zero, never = jnp.zeros(4), jnp.zeros(4, bool)
        got = returns.n_step(jnp.ones(4), never, never, zero, zero, gamma=1.0, n=n)
    assert got.tolist() == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.acceptance("T2")
def test_reward_to_go_restarts_after_an_end(batch: dict[str, np.ndarray]) -> None:
    done = batch["terminated"] | batch["truncated"]
    zero = {**batch, "v_t": np.zeros((T, B)), "v_tp1": np.zeros((T, B))}
    np.testing.assert_allclose(
        returns.reward_to_go(batch["reward"], done, GAMMA), brute(zero, GAMMA), atol=1e-12
    )


@pytest.mark.acceptance("T2")
def test_vtrace_on_policy_is_the_lambda_return(batch: dict[str, np.ndarray]) -> None:
    target, advantage = returns.vtrace(jnp.ones((T, B)), **batch, gamma=GAMMA)
    np.testing.assert_allclose(target, batch["v_t"] + brute(batch, GAMMA), atol=1e-12)
    np.testing.assert_allclose(advantage, target - batch["v_t"], atol=1e-12)


@pytest.mark.acceptance("T2")
def test_vtrace_off_policy_is_the_recursion(batch: dict[str, np.ndarray]) -> None:
    rho = np.exp(np.random.default_rng(1).normal(size=(T, B)))
    target, advantage = returns.vtrace(
        rho, **batch, gamma=GAMMA, lambda_=LAMBDA, clip_rho=1.5, clip_c=0.9
    )
    done, delta = batch["terminated"] | batch["truncated"], deltas(batch)
    expected, expected_advantage = np.zeros((T, B)), np.zeros((T, B))
    for n in range(B):
        ahead = 0.0  # v_{t+1} - V(s_{t+1})
        for t in reversed(range(T)):
            ahead = 0.0 if done[t, n] else ahead
            v_tp1 = 0.0 if batch["terminated"][t, n] else batch["v_tp1"][t, n] + ahead
            weight = min(1.5, rho[t, n])
            expected_advantage[t, n] = weight * (
                batch["reward"][t, n] + GAMMA * v_tp1 - batch["v_t"][t, n]
            )
            ahead = weight * delta[t, n] + GAMMA * LAMBDA * min(0.9, rho[t, n]) * ahead
            expected[t, n] = batch["v_t"][t, n] + ahead
    np.testing.assert_allclose(target, expected, atol=1e-12)
    np.testing.assert_allclose(advantage, expected_advantage, atol=1e-12)


def test_limits_of_lambda(batch: dict[str, np.ndarray]) -> None:
    ends = batch["reward"], batch["terminated"], batch["truncated"], batch["v_t"], batch["v_tp1"]
    np.testing.assert_allclose(returns.gae(*ends, GAMMA, 0.0), deltas(batch), atol=1e-12)
    np.testing.assert_allclose(
        returns.gae(*ends, GAMMA, 1.0), returns.n_step(*ends, GAMMA, T), atol=1e-12
    )


@pytest.mark.acceptance("T1")
def test_truncation_bootstraps_and_termination_does_not() -> None:
    """A reward of 1 forever, truncated at every step: V = 1 / (1 - γ) has no advantage, unless the
    end is a termination.
    """
    ones, value = jnp.ones((1, 1)), jnp.full((1, 1), 1 / (1 - GAMMA))
    no, yes = jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)
    assert abs(returns.gae(ones, no, yes, value, value, GAMMA, LAMBDA)[0, 0]) < 1e-12
    assert returns.gae(ones, yes, no, value, value, GAMMA, LAMBDA)[0, 0] == pytest.approx(1 - 10)
    # termination wins
    assert returns.gae(ones, yes, yes, value, value, GAMMA, LAMBDA)[0, 0] == pytest.approx(1 - 10)


def test_total_return_is_the_first_reward_to_go() -> None:
    reward = np.random.default_rng(2).normal(size=(T, B))
    to_go = returns.reward_to_go(reward, np.zeros((T, B), bool), GAMMA)
    np.testing.assert_allclose(returns.total_return(reward, GAMMA), to_go[0], atol=1e-12)
    np.testing.assert_allclose(returns.total_return(reward, 0.0), reward[0], atol=1e-12)


def test_one_axis_will_do(batch: dict[str, np.ndarray]) -> None:
    column = {name: x[:, 0] for name, x in batch.items()}
    both = returns.gae(**batch, gamma=GAMMA, lambda_=LAMBDA)
    np.testing.assert_array_equal(returns.gae(**column, gamma=GAMMA, lambda_=LAMBDA), both[:, 0])
    many = returns.n_step(**batch, gamma=GAMMA, n=3)
    np.testing.assert_array_equal(returns.n_step(**column, gamma=GAMMA, n=3), many[:, 0])
    np.testing.assert_allclose(
        returns.total_return(column["reward"], GAMMA),
        returns.total_return(batch["reward"], GAMMA)[0],
    )


WHOLE, FRACTIONS, ENDS = [1, 0, 2], [1.0, 0.0, 2.0], [False, False, True]


@pytest.mark.parametrize(
    "of",
    [
        lambda x: returns.discounted_sum(x, GAMMA),
        lambda x: returns.discount_powers(x, GAMMA),
        lambda x: returns.total_return(x, GAMMA),
        lambda x: returns.reward_to_go(x, ENDS, GAMMA),
        lambda x: returns.td_error(x, ENDS, x, x, GAMMA),
        lambda x: returns.n_step(x, ENDS, ENDS, x, x, GAMMA, 2),
        lambda x: returns.gae(x, ENDS, ENDS, x, x, GAMMA, LAMBDA),
        lambda x: returns.vtrace(x, x, ENDS, ENDS, x, x, GAMMA, LAMBDA)[1],
    ],
)
@pytest.mark.parametrize("kind", [list, np.array, jnp.array, lambda x: jnp.array(x, jnp.uint8)])
def test_whole_numbers_are_discounted_as_fractions_are(of: Callable, kind: Callable) -> None:
    np.testing.assert_array_equal(of(kind(WHOLE)), of(jnp.array(FRACTIONS)))


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (
            lambda: returns.total_return(1.0, GAMMA),
            "reward must be [T, ...], time first, got a scalar",
        ),
        (lambda: returns.total_return("1", GAMMA), "reward must be an array of numbers, got '1'"),
        (
            lambda: returns.reward_to_go(None, ENDS, GAMMA),
            "reward must be an array of numbers, got None",
        ),
        (
            lambda: returns.reward_to_go(np.ones((3, 2)), ENDS, GAMMA),
            "reward and done must have the same shape, [T, ...], got [3, 2] and [3]",
        ),
        (
            lambda: returns.gae(*[np.ones((3, 2))] * 2, ENDS[:2], *[np.ones((3, 2))] * 2, GAMMA, 1),
            "reward and truncated must have the same shape, [T, ...], got [3, 2] and [2]",
        ),
        (
            lambda: returns.n_step(WHOLE, ENDS, ENDS, WHOLE, WHOLE, GAMMA, 1.5),
            "n must be a whole number of at least 1, got 1.5",
        ),
    ],
)
def test_what_is_no_array_of_steps(mistake: Callable, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        mistake()


@pytest.mark.parametrize("n", [np.int64(0), jnp.int32(0), np.array(-1), jnp.float32(1.5)])
def test_a_number_of_steps_is_checked_whatever_kind_it_is_of(n: object) -> None:
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got"):
        returns.n_step(WHOLE, ENDS, ENDS, WHOLE, WHOLE, GAMMA, n)


def test_a_number_of_steps_may_be_an_array_and_traced() -> None:
    def advantage(n: object) -> jax.Array:
        return returns.n_step(WHOLE, ENDS, ENDS, WHOLE, WHOLE, GAMMA, n)

    for n in (np.int64(2), jnp.int32(2)):
        np.testing.assert_array_equal(advantage(n), advantage(2))
    np.testing.assert_allclose(jax.jit(advantage)(2), advantage(2), rtol=1e-6)


@pytest.mark.acceptance("T2")
def test_returns_are_the_float64_loop() -> None:
    """1,000 random patterns of ends, terminated, truncated or both, in single precision: within
    1e-5.
    """
    T, N, gamma, lambda_ = 16, 1000, 0.9, 0.8
    g = np.random.default_rng(0)
    kind = g.choice(4, (T, N), p=[0.55, 0.15, 0.15, 0.15])
    terminated, truncated = np.isin(kind, (1, 3)), np.isin(kind, (2, 3))
    reward, v_t, v_tp1, rho = g.standard_normal((4, T, N)).astype(np.float32)
    rho = np.exp(rho)
    assert len(np.unique(kind, axis=1).T) == N

    expected = {
        name: np.zeros((T, N)) for name in ("to_go", "gae", "one_step", "target", "advantage")
    }
    to_go = trace = ahead = np.zeros(N)  # of what follows
    x = {"r": reward, "v": v_t, "w": v_tp1, "rho": rho}
    for t in reversed(range(T)):
        r, v, w, p = (y[t].astype(np.float64) for y in x.values())
        goes_on, bootstrap = (
            ~(terminated[t] | truncated[t]),
            gamma * np.where(terminated[t], 0.0, w),
        )
        delta = r + bootstrap - v
        to_go, trace = (
            r + gamma * np.where(goes_on, to_go, 0.0),
            delta + gamma * lambda_ * np.where(goes_on, trace, 0.0),
        )
        target_after = np.where(terminated[t], 0.0, w + np.where(goes_on, ahead, 0.0))
        expected["advantage"][t] = np.minimum(1, p) * (r + gamma * target_after - v)
        ahead = np.minimum(1, p) * (delta + gamma * lambda_ * np.where(goes_on, ahead, 0.0))
        for name, value in {
            "to_go": to_go,
            "gae": trace,
            "one_step": delta,
            "target": v + ahead,
        }.items():
            expected[name][t] = value
    ends = reward, terminated, truncated, v_t, v_tp1
    target, advantage = returns.vtrace(rho, *map(jnp.asarray, ends), gamma, lambda_)
    found = {
        "to_go": returns.reward_to_go(reward, terminated | truncated, gamma),
        "gae": returns.gae(*ends, gamma, lambda_),
        "one_step": returns.n_step(*ends, gamma, 1),
        "target": target,
        "advantage": advantage,
    }
    for name, value in found.items():
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)
