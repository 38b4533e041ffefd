"""Values without a time limit, with the time in the state, and of tables read off gymnax's own
environments.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.misc.frozen_lake import FrozenLake

from pg import envs, rollout
from pg.config import Config
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import make_policy

x64 = pytest.mark.usefixtures("x64")
GAMMA = 0.9
MDP = tabular.garnet(0, num_states=4, num_actions=2, branching=2, horizon=4)
RING = tabular.garnet(2, num_states=4, num_actions=2, branching=4, horizon=4, ends=0)
LOGITS, OTHER = np.random.default_rng(1).normal(size=(2, 4, 2))
TIME_DEPENDENT = np.random.default_rng(2).normal(size=(4, 4, 2))
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)

WIDE = FrozenLake(map_name="8x8", success_rate=0.8, reward_schedule=(1.0, -0.5, -0.01))
FIRM = FrozenLake(is_slippery=False, reward_schedule=(1.0, -0.5, -0.01))
# What is given to `make_env`, and how its table is read.
READ: dict[str, tuple[Any, Callable[[], TabularMDP]]] = {
    "catch": ("Catch-bsuite", lambda: tabular.tabulate("Catch-bsuite", horizon=9)),
    "deep sea": ("DeepSea-bsuite", lambda: tabular.tabulate("DeepSea-bsuite")),
    "chain": (
        "DiscountingChain-bsuite",
        lambda: tabular.tabulate("DiscountingChain-bsuite", time_in_state=True),
    ),
    "lake": ("FrozenLake-misc", tabular.frozen_lake),
    "wide lake": (WIDE, lambda: tabular.frozen_lake(WIDE)),
    "firm lake": (FIRM, lambda: tabular.frozen_lake(FIRM)),
}
STATES_AND_BEST = {
    "catch": (220, 1.0),
    "deep sea": (45, 0.99),
    "chain": (501, 1.1),
    "firm lake": (16, 0.95),
}


@functools.cache
def read(name: str) -> TabularMDP:
    return READ[name][1]()


def assert_same(got: TabularMDP, want: TabularMDP) -> None:
    for field in ("continuing", "mean_reward", "initial", "terminal", "features", "horizon"):
        np.testing.assert_array_equal(getattr(got, field), getattr(want, field))


@x64
def test_the_advantage_is_the_difference_of_performance() -> None:
    """J(π') - J(π) = Σₜ γᵗ Σₛ d'ₜ(s) Σₐ π'(a|s) Aₜ(s, a) (Kakade & Langford 2002)."""
    a = tabular.advantage(MDP, LOGITS, GAMMA)
    close(jnp.einsum("sa,tsa->ts", jax.nn.softmax(LOGITS), a), 0.0)
    d, pi = tabular.visitation(MDP, OTHER), jax.nn.softmax(OTHER)
    gain = tabular.exact_return(MDP, OTHER, GAMMA) - tabular.exact_return(MDP, LOGITS, GAMMA)
    close(jnp.einsum("t,ts,sa,tsa->", GAMMA ** jnp.arange(4), d, pi, a), gain)


@x64
@pytest.mark.parametrize("mdp", [MDP, RING])
def test_discounted_values_are_the_limit_and_give_the_gradient(mdp: TabularMDP) -> None:
    (q, v), d = (
        tabular.discounted_values(mdp, LOGITS, GAMMA),
        tabular.discounted_visitation(mdp, LOGITS, GAMMA),
    )
    long = TabularMDP(mdp.transition, mdp.reward, mdp.initial, mdp.terminal, horizon=600)
    far = tabular.values(long, LOGITS, GAMMA)
    close(q, far[0][0])
    close(v, far[1][0])
    close(d, GAMMA ** np.arange(600) @ tabular.visitation(long, LOGITS))
    gradient = jax.grad(lambda x: tabular.discounted_return(mdp, x, GAMMA))(jnp.asarray(LOGITS))
    close(gradient, d[:, None] * jax.nn.softmax(LOGITS) * (q - v[:, None]))


@x64
def test_average_values_solve_poissons_equation_and_give_the_gradient() -> None:
    (q, h), mu, pi = (
        tabular.average_values(RING, LOGITS),
        tabular.stationary(RING, LOGITS),
        jax.nn.softmax(LOGITS),
    )
    close(jnp.sum(pi * q, -1), h)
    close(mu @ h, 0.0)
    eta = tabular.average_reward(RING, LOGITS)
    close(q, RING.mean_reward - eta + RING.transition @ np.asarray(h))
    gradient = jax.grad(lambda x: tabular.average_reward(RING, x))(jnp.asarray(LOGITS))
    close(gradient, mu[:, None] * pi * (q - h[:, None]))


@x64
@pytest.mark.parametrize("gamma", [GAMMA, 1.0])
def test_with_the_time_in_the_state_everything_is_stationary(gamma: float) -> None:
    in_state = tabular.with_time_in_state(MDP)
    flat = jnp.concatenate([jnp.reshape(TIME_DEPENDENT, (16, 2)), jnp.ones((4, 2))])
    close(
        tabular.exact_return(in_state, flat, gamma),
        tabular.exact_return(MDP, TIME_DEPENDENT, gamma),
    )
    gradient = tabular.exact_gradient(in_state, flat, gamma)
    close(gradient[:16].reshape(4, 4, 2), tabular.exact_gradient(MDP, TIME_DEPENDENT, gamma))
    q, v = tabular.values(MDP, TIME_DEPENDENT, gamma)
    unlimited = tabular.discounted_values(in_state, flat, gamma)
    close(unlimited[0][:16].reshape(4, 4, 2), q)
    close(unlimited[1][:16].reshape(4, 4), v)
    close(tabular.values(in_state, flat, gamma)[1][0], unlimited[1])
    close(in_state.reward[4:8, :, 8:12], MDP.reward)  # the same rewards, not only the same means


def best(mdp: TabularMDP) -> float:
    """max J over all policies, by backward induction."""
    value = np.zeros(mdp.num_states)
    for _ in range(mdp.horizon):
        value = (mdp.mean_reward + mdp.continuing @ value).max(-1)
    return float(mdp.initial @ value)


def best_on_ice(rows: list[str], horizon: int) -> float:
    """The same for a slippery lake, by shifting its map: the move that is meant and those beside
    it, 1/3 each.
    """
    tiles, value = np.array([list(row) for row in rows]), np.zeros((len(rows), len(rows)))
    for _ in range(horizon):
        p = np.pad(np.select([tiles == "G", tiles == "H"], [1.0, 0.0], value), 1, mode="edge")
        # left, down, right, up
        moves = np.stack([p[1:-1, :-2], p[2:, 1:-1], p[1:-1, 2:], p[:-2, 1:-1]])
        value = ((moves + np.roll(moves, 1, 0) + np.roll(moves, -1, 0)) / 3).max(0)
    return float(value[0, 0])


@pytest.mark.parametrize("name", list(STATES_AND_BEST))
def test_the_best_policy_of_a_table_earns_what_is_known(name: str) -> None:
    assert (read(name).num_states, pytest.approx(best(read(name)), abs=1e-6)) == STATES_AND_BEST[
        name
    ]


def test_the_best_policy_on_ice() -> None:
    expected = best_on_ice(["SFFF", "FHFH", "FFFH", "HFFG"], 100)
    assert expected == pytest.approx(0.7442, abs=1e-4)  # quoted as 0.74
    assert best(read("lake")) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "catch")) for n in READ]
)
def test_the_environment_earns_what_its_table_says(name: str) -> None:
    """4,000 episodes of gymnax's own environment, by a network with parameters at random."""
    mdp, env = read(name), envs.make_env(READ[name][0], 4_000)
    policy, noise = make_policy(Config(hidden_sizes=(8,), preset=None), env), jax.random.key(5)
    params = jax.tree.map(
        lambda x: x + 0.5 * jax.random.normal(noise, x.shape), policy.init(jax.random.key(0))
    )
    logits = tabular.table(mdp, policy, params)
    traj = jax.jit(lambda: rollout.episodes(env, policy, params, jax.random.key(1), mdp.horizon))()
    assert float(traj.reward.sum(0).std()) > 0
    for sampled, exact in (
        (traj.reward.sum(0), tabular.exact_return(mdp, logits)),
        (traj.valid.sum(0), tabular.visitation(mdp, logits).sum()),
    ):
        assert abs(float(sampled.mean() - exact)) <= 5 * float(
            sampled.std()
        ) / 4_000**0.5 + 1e-5 * abs(float(exact))


@pytest.mark.parametrize("name", ["deep sea", "chain", "lake"])
def test_a_table_does_not_depend_on_the_precision(name: str) -> None:
    with jax.enable_x64(True):
        wide = READ[name][1]()
    assert_same(wide, read(name))


def test_a_table_of_a_table_is_the_same() -> None:
    chain = tabular.chain(5, horizon=7, slip=0.0)
    assert_same(tabular.tabulate(chain), chain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tabular.tabulate("FrozenLake-misc"), "outcome depends on its random key"),
        (
            lambda: tabular.tabulate("DiscountingChain-bsuite"),
            "needs time_in_state=True if the time matters",
        ),
        (lambda: tabular.tabulate("Pendulum-v1"), "a table needs discrete actions"),
        (lambda: tabular.tabulate("CartPole-v1"), "found more than 5000 states"),
        (
            lambda: tabular.discounted_values(MDP, TIME_DEPENDENT, GAMMA),
            r"logits must have shape \(4, "
            r"2\)",
        ),
        (
            lambda: tabular.average_values(MDP, LOGITS),
            "an average reward needs an MDP without terminal states",
        ),
    ],
)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
