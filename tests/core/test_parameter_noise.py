"""Policies whose parameters are drawn once an episode, against closed forms.

Of a table that acts by its mode, E[R(θ)] is a polynomial of probabilities that one Gaussian is
above another. Of a regulator with linear gains R(θ) is a polynomial, of which Gauss-Hermite nodes
give means and variances without error.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from scipy import stats

from pg import envs, returns, rollout
from pg.config import Config, Hyperparams
from pg.distributions import Gaussian
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.base import policy_output
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.exact.closed_forms import lqr
from pg.extra_rollouts import ExtraRollouts
from pg.networks import Carries, Network, actor, make_policy
from pg.parameter_noise import Drawn, perturbed
from pg.rollout import Trajectory
from pg.runs.acting import Policy
from pg.settings.stored_params import StoredParams
from pg.train import make_train

pytestmark = pytest.mark.usefixtures("x64")
S, A, H, GAMMA, EPISODES = 3, 2, 3, 0.9, 100_000
MDP = tabular.garnet(0, S, A, branching=2, horizon=H)  # of which the last state is terminal
MEAN = np.array([[0.2, -0.1], [0.0, 0.4], [0.0, 0.0]])
LOG_STD = np.log(np.array([[0.5, 1.0], [0.7, 0.3], [1.0, 1.0]]))
PARAMS = {"mean": MEAN, "log_std": LOG_STD}


def table() -> Network:
    """The policy of a table whose logits are drawn."""
    return perturbed(tabular.table_policy(jnp.asarray(MEAN)))


def smoothed_return(params: Any) -> jax.Array:
    """E[R(θ)], θ ~ N(μ, σ²), of the policy that takes the larger of θ(s, 0) and θ(s, 1)."""
    mean, variance = params["mean"], jnp.exp(2 * params["log_std"])
    ahead = (mean[:, 1] - mean[:, 0]) / jnp.sqrt(variance.sum(1))
    total = jnp.zeros(())
    for choice in itertools.product(range(A), repeat=S - 1):
        chosen = np.array([*choice, 0])
        logits = np.where(np.eye(A)[chosen] > 0, 0.0, -np.inf)
        sign = jnp.asarray(2.0 * chosen[:-1] - 1.0)
        probability = jnp.prod(norm.cdf(sign * ahead[:-1]))
        total += probability * tabular.exact_return(MDP, logits, GAMMA)
    return total


def collect(number: int, act: Any = rollout.sample) -> tuple[Trajectory, Estimator, Params]:
    env = envs.make_env(MDP, number)
    estimator = ESTIMATORS["leave_one_out"](table(), None, Hyperparams(gamma=GAMMA))
    params = Params(jax.tree.map(jnp.asarray, PARAMS), ())
    acting = actor(table(), tabular.table_critic(jnp.zeros(S)))
    traj = rollout.episodes(env, acting, params, jax.random.key(3), act=act)
    return traj, estimator, params


def estimate(traj: Trajectory, estimator: Estimator, params: Params) -> Any:
    """ĝ as a direction of ascent, in μ and log σ."""
    weighted, _ = estimator.weigh(params, (), traj)
    return jax.tree.map(lambda x: -x, estimator.grad(params, weighted)[0].policy)


def scores(theta: np.ndarray) -> dict[str, np.ndarray]:
    """∇ log N(θ; μ, σ) in μ and log σ, [N, S, A] each."""
    scaled = (theta.reshape(-1, S, A) - MEAN) / np.exp(LOG_STD)
    return {"mean": scaled / np.exp(LOG_STD), "log_std": scaled**2 - 1}


def test_the_estimate_is_the_score_of_the_parameters_and_its_mean_the_gradient() -> None:
    traj, estimator, params = collect(EPISODES)
    found = estimate(traj, estimator, params)
    theta = np.asarray(traj.carry.policy.theta[0])
    total = np.asarray(returns.total_return(traj.reward, GAMMA))
    others = (total.sum() - total) / (EPISODES - 1)
    exact = jax.grad(smoothed_return)(params.policy)
    for name, score in scores(theta).items():
        each = (total - others)[:, None, None] * score
        np.testing.assert_allclose(found[name], each.mean(0), atol=1e-10)
        error = each.std(0) / EPISODES**0.5
        gap = np.abs(found[name] - np.asarray(exact[name]))[: S - 1]
        assert (gap < 5 * error[: S - 1]).all()
        assert np.abs(exact[name])[: S - 1].max() > 20 * error.max()


def test_an_episode_acts_by_the_mode_of_its_own_parameters() -> None:
    """And is scored at its first step, also by other parameters, as a ratio needs."""
    traj, _, _ = collect(50)
    theta = np.asarray(traj.carry.policy.theta[0]).reshape(-1, S, A)
    states = np.asarray(traj.obs.argmax(-1))
    chosen = theta[np.arange(50)[None], states].argmax(-1)
    valid = np.asarray(traj.valid)
    np.testing.assert_array_equal(np.asarray(traj.action)[valid], chosen[valid])
    density = stats.norm.logpdf(theta, MEAN, np.exp(LOG_STD)).sum((1, 2))
    np.testing.assert_allclose(traj.log_prob[0], density, atol=1e-12)
    np.testing.assert_array_equal(traj.log_prob[1:], 0.0)
    other = {"mean": jnp.asarray(MEAN + 0.3), "log_std": jnp.asarray(LOG_STD - 0.2)}
    dist = policy_output(table(), Params(other, ()), traj)
    density = stats.norm.logpdf(theta, MEAN + 0.3, np.exp(LOG_STD - 0.2)).sum((1, 2))
    np.testing.assert_allclose(dist.log_prob(traj.action)[0], density, atol=1e-12)
    entropy = (LOG_STD + 0.5 * np.log(2 * np.pi * np.e)).sum()
    np.testing.assert_allclose(dist.entropy()[0], (entropy - 0.2 * S * A), atol=1e-12)
    np.testing.assert_array_equal(dist.entropy()[1:], 0.0)


def test_greedy_episodes_act_by_the_mean_and_have_no_score() -> None:
    traj, estimator, params = collect(50, rollout.greedy)
    states, valid = np.asarray(traj.obs.argmax(-1)), np.asarray(traj.valid)
    np.testing.assert_array_equal(np.asarray(traj.action)[valid], MEAN.argmax(-1)[states][valid])
    assert not any(x.any() for x in jax.tree.leaves(estimate(traj, estimator, params)))


# Two steps of a regulator without noise, from one state: its return is a polynomial of degree 4 in
# the two gains, and its product with a score one of degree 6, which 9 nodes an axis integrate.
START = np.array([1.0, -0.5])
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
GAIN, LOG_SPREAD = np.array([[0.3, -0.2]]), np.log([[0.4, 0.7]])


class Enumerated(NamedTuple):
    """Estimates of pairs of episodes for every node of their noise, K of them."""

    pairs: Any  # of ε and -ε together
    singles: Any  # of each alone, [2K, ...]
    noise: np.ndarray  # ε, [K, P]
    weight: np.ndarray  # of each node, [K]
    returns: np.ndarray  # of ε and -ε, [K, 2]
    exact: Any  # ∇ E[R(θ)]


def regulator() -> lqr.LQR:
    dynamics, nothing = [[1.0, 0.3], [0.0, 0.9]], np.zeros((2, 2))
    start = np.outer(START, START)  # of which START is one state, up to its length
    return lqr.LQR(dynamics, [[0.0], [0.5]], np.eye(2), [[0.2]], nothing, start, 2)


def linear() -> Network:
    """u = K x, as the mode of a Gaussian."""

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> Any:
        mean = obs @ params.T
        return (), Gaussian(mean, jnp.zeros_like(mean))

    return Network(lambda key: jnp.asarray(GAIN), apply)


def enumerated(name: str) -> Enumerated:
    """The estimates of an estimator for every pair of nodes."""
    noise = np.stack([x.ravel() for x in np.meshgrid(NODES, NODES)], axis=1)
    weight = np.outer(WEIGHTS, WEIGHTS).ravel() / WEIGHTS.sum() ** 2
    mirrored = np.stack([noise, -noise], axis=1).reshape(-1, 2)
    theta = jnp.asarray(GAIN.ravel() + np.exp(LOG_SPREAD).ravel() * mirrored)
    policy = perturbed(linear())
    env = envs.make_env(regulator(), len(theta))
    acting = actor(policy, tabular.table_critic(jnp.zeros(1)))
    begin = rollout.start(env, acting, jax.random.key(0))
    here = jnp.broadcast_to(START, begin.obs.shape)
    begin = begin._replace(
        obs=here,
        env_state=jax.tree.map(lambda x: here if x.ndim == 2 else x, begin.env_state),
        carry=Carries(Drawn(theta, jnp.ones(len(theta), bool)), ()),
    )
    params = Params({"mean": jnp.asarray(GAIN), "log_std": jnp.asarray(LOG_SPREAD)}, ())
    traj = rollout.episodes(env, acting, params, jax.random.key(0), begin=begin)
    estimator = ESTIMATORS[name](policy, None, Hyperparams(baseline=-2.0))

    def of_batches(size: int) -> Any:
        def one(batch: Trajectory) -> Any:
            weighted, _ = estimator.weigh(params, (), batch)
            return jax.tree.map(jnp.negative, estimator.grad(params, weighted)[0].policy)

        batches = jax.tree.map(lambda x: x.reshape(len(x), -1, size, *x.shape[2:]), traj)
        return jax.vmap(one, in_axes=1)(batches)

    def mean_return(params: Any) -> jax.Array:
        def of_one(noise: jax.Array) -> jax.Array:
            gain = params["mean"] + jnp.exp(params["log_std"]) * noise[None]
            return lqr.exact_return(regulator(), gain, -jnp.inf)

        return jnp.asarray(weight) @ jax.vmap(of_one)(jnp.asarray(noise))

    singles = of_batches(1) if FACTS[name].baseline != "batch" else ()
    total = np.asarray(returns.total_return(traj.reward, 1.0)).reshape(-1, 2)
    exact = jax.grad(mean_return)(params.policy)
    return Enumerated(of_batches(2), singles, noise, weight, total, exact)


def mean_of(weight: np.ndarray, x: Any) -> np.ndarray:
    return np.einsum("k,k...->...", weight, np.asarray(x))


@pytest.mark.parametrize(
    "name", ["reinforce", pytest.param("constant_baseline", marks=pytest.mark.slow)]
)
def test_symmetric_samples_are_unbiased_and_their_mean_has_less_variance(name: str) -> None:
    """As in section 3.3 of Sehnke et al. 2010: of μ the difference of the two returns counts, of σ
    their mean. A pair costs two episodes, so two independent ones are compared with it.
    """
    found = enumerated(name)
    ratios = {}
    for part, exact in found.exact.items():
        pair, one = np.asarray(found.pairs[part]), np.asarray(found.singles[part])[::2]
        for each in (pair, one):
            np.testing.assert_allclose(mean_of(found.weight, each), exact, atol=1e-10)
        of_pair, of_one = (mean_of(found.weight, (x - np.asarray(exact)) ** 2) for x in (pair, one))
        ratios[part] = of_pair / (of_one / 2)
    assert (ratios["mean"] < 0.2).all()
    assert (ratios["log_std"] > 1.5).all()  # both of a pair have one score of σ
    baseline = {"reinforce": 0.0, "constant_baseline": -2.0}[name]
    first, second = found.returns.T[..., None]
    noise = found.noise
    of_mean = (first - second) / 2 * noise / np.exp(LOG_SPREAD)
    of_spread = ((first + second) / 2 - baseline) * (noise**2 - 1)
    np.testing.assert_allclose(found.pairs["mean"][:, 0], of_mean, atol=1e-10)
    np.testing.assert_allclose(found.pairs["log_std"][:, 0], of_spread, atol=1e-10)


def test_a_baseline_of_the_mirrored_episode_is_biased() -> None:
    """Settings refuse it for this reason."""
    found = enumerated("leave_one_out")
    gap = mean_of(found.weight, found.pairs["log_std"]) - np.asarray(found.exact["log_std"])
    assert np.abs(gap).max() > 0.1
    together = {"estimator": "leave_one_out", "num_envs": 4, "preset": None}
    with pytest.raises(ValueError, match="which must be independent"):
        Config(exploration="parameters", sampling="antithetic", **together)


@pytest.mark.parametrize("sampling", ["antithetic", "stratified", "latin_hypercube", "sobol"])
def test_noise_of_parameters_is_spread_over_a_batch(sampling: Any) -> None:
    """Mirrored, or one episode in each of N equal cells; each keeps its distribution."""
    number, batches = 8, 256
    env = envs.make_env(MDP, number * batches)
    acting = actor(table(), tabular.table_critic(jnp.zeros(S)))
    params = Params(jax.tree.map(jnp.asarray, PARAMS), ())
    traj = rollout.episodes(
        env, acting, params, jax.random.key(5), sampling=sampling, num_episodes=number
    )
    theta = np.asarray(traj.carry.policy.theta[0]).reshape(batches, number, -1)
    noise = (theta - MEAN.ravel()) / np.exp(LOG_STD).ravel()
    uniform = stats.norm.cdf(noise)
    if sampling == "antithetic":
        np.testing.assert_allclose(noise[:, ::2], -noise[:, 1::2], atol=1e-10)
    else:
        cells = np.sort(np.floor(number * uniform).astype(int), axis=1)
        expected = np.broadcast_to(np.arange(number)[:, None], cells.shape)
        np.testing.assert_array_equal(cells, expected)
    for episode in range(number):  # one of each batch: independent of one another
        assert stats.kstest(uniform[:, episode].ravel(), "uniform").pvalue > 1e-3
    with pytest.raises(ValueError, match="in the order of the states"):
        rollout.episodes(env, acting, params, jax.random.key(5), sampling="array")


def test_greedy_episodes_beside_a_batch_act_by_the_mean() -> None:
    """So that their return is a baseline that the drawn parameters do not change."""
    policy = perturbed(linear())
    params = {"mean": jnp.asarray(GAIN), "log_std": jnp.asarray(LOG_SPREAD)}
    env, extra_rollouts = envs.make_env(regulator(), 4), ExtraRollouts(greedy=True)
    traj = rollout.episodes(env, policy, params, jax.random.key(3), extra_rollouts=extra_rollouts)
    first = np.asarray(traj.obs[0])
    cost = (first**2).sum(1) + 0.2 * (first @ GAIN[0]) ** 2
    np.testing.assert_allclose(traj.greedy.reward[0], -cost, atol=1e-12)
    assert np.abs(np.asarray(traj.reward[0]) + cost).min() > 1e-6


def in_parameters(config: Any, env: Any) -> Network:
    return perturbed(make_policy(config, env))


def test_training_with_parameters_that_are_drawn() -> None:
    """Several seeds at once; each moves μ and log σ."""
    config = Config(
        policy=in_parameters, estimator="leave_one_out", hidden_sizes=(), num_envs=6, num_updates=2
    )
    state, metrics = jax.jit(jax.vmap(make_train(config)))(jax.random.split(jax.random.key(0), 2))
    assert np.isfinite(metrics["return"]).all()
    log_std = jax.tree.leaves(state.params.policy["log_std"])
    assert all(np.abs(x - np.log(0.3)).max() > 1e-4 for x in log_std)
    assert not np.array_equal(*log_std[-1])


def test_the_setting_is_the_policy_of_ones_own() -> None:
    """Bitwise; and a custom policy function receives the policy that it perturbs itself."""
    fields = {"estimator": "leave_one_out", "hidden_sizes": (), "num_envs": 4, "num_updates": 2}
    by_setting = Config(exploration="parameters", **fields)
    by_function = Config(policy=in_parameters, **fields)
    key = jax.random.key(1)
    found, expected = (jax.jit(make_train(c))(key)[0].params for c in (by_setting, by_function))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    twice = dataclasses.replace(by_function, exploration="parameters")
    with pytest.raises(ValueError, match="parameters are drawn for a policy without a recurrent"):
        make_train(twice)(key)


def test_a_saved_policy_draws_parameters_by_the_key_of_an_episode() -> None:
    """Without a key it acts by the mean."""
    config = Config(estimator="leave_one_out", exploration="parameters", parameter_std=3.0)
    env = envs.make_env(config.env, 1)
    network = make_policy(config, env)
    params = network.init(jax.random.key(0))
    policy = Policy(config, env, network, params)
    plain = make_policy(dataclasses.replace(config, exploration="actions", parameter_std=0.3), env)
    obs = np.random.default_rng(0).normal(size=(200, 4))
    mean = plain.apply(params["mean"], (), jnp.asarray(obs), jnp.ones(200, bool))[1].mode()
    np.testing.assert_array_equal(policy(obs), mean)
    key = jax.random.key(1)
    assert (policy(obs, key) != mean).mean() > 0.2
    np.testing.assert_array_equal(policy(obs, key), policy.step(policy.start(200), obs, key)[1])
    noise = Gaussian(*[jnp.zeros((200, 4610))] * 2).draw(key)
    assert sum(x.size for x in jax.tree.leaves(params["mean"])) == 4610
    theta = jax.vmap(network.draw_carry, (None, 0))(params, noise).theta
    unravelled = jax.vmap(ravel_pytree(params["mean"])[1])(theta)

    def of_one(theta: Any, obs: jax.Array) -> jax.Array:
        return plain.apply(theta, (), obs, jnp.bool_(True))[1].mode()

    np.testing.assert_array_equal(policy(obs, key), jax.vmap(of_one)(unravelled, jnp.asarray(obs)))


OF_ACTIONS = StoredParams("0" * 64, {}, "results/run", {"exploration": "actions"})
REFUSED = [
    ({"estimator": "gae"}, "estimator='gae' has another Ψ: use one of: reinforce, "),
    ({"estimator": "gae", "collect": "windows"}, "estimator='gae' has another Ψ"),
    ({"rnn": "gru"}, "rnn='gru' remembers earlier ones"),
    ({"optimizer": "natural"}, "'natural' measures its step by the distribution of actions"),
    ({"estimator": "state_value", "shared_torso": True}, "shared_torso puts the critic on the pol"),
    ({"estimator": "reinforce", "sampling": "array"}, "in the order of the states"),
    ({"estimator": lambda policy, critic, h: None}, "states no facts: if its Ψ is that return"),
    ({"parameter_std": 0.0}, "parameter_std must be a finite number above 0, got 0"),
    ({"parameter_std": "wide"}, "parameter_std must be a finite number above 0, got 'wide'"),
    (
        {"exploration": "actions", "parameter_std": 0.5},
        "parameter_std=0.5 is for sampled parameters",
    ),
    ({"init_from": OF_ACTIONS}, "of .* has exploration='actions', and the one to be trai"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_settings_that_parameters_are_not_drawn_for(fields: dict[str, Any], message: str) -> None:
    given = {"estimator": "leave_one_out", "exploration": "parameters", "preset": None, **fields}
    with pytest.raises(ValueError, match=message):
        Config(**given)


BY_RETURNS = {
    "reinforce",
    "reward_to_go",
    "undiscounted_reward_to_go",
    "constant_baseline",
    "batch_mean",
    "standardised",
    "leave_one_out",
    "time_baseline",
    "shrunk_time_baseline",
    "optimal_baseline",
    "optimal_time_baseline",
    "moving_average",
    "state_value",
    "centred_state_value",
    "entropy_reward",
    "group_leave_one_out",
}


def test_estimators_whose_first_weight_is_the_return() -> None:
    found = {name for name, row in FACTS.items() if row.weighs_first_step_by_return}
    assert found == BY_RETURNS


@pytest.mark.parametrize("name", ["time_baseline", "state_value", "optimal_time_baseline"])
def test_estimators_of_later_steps_weigh_the_first_by_the_return(name: str) -> None:
    """The first step's weight is the return less a baseline; later steps have no score."""
    traj, _, params = collect(6)
    critic = tabular.table_critic(jnp.array([0.3, -0.4, 0.0]))
    estimator = ESTIMATORS[name](table(), critic, Hyperparams(gamma=GAMMA))
    params = params._replace(critic=critic.init(jax.random.key(0)))
    found = estimate(traj, estimator, params)
    total = np.asarray(returns.total_return(traj.reward, GAMMA))
    theta = np.asarray(traj.carry.policy.theta[0])
    for part, score in scores(theta).items():
        flat = score.reshape(6, -1)
        if name == "state_value":
            value = np.asarray([0.3, -0.4, 0.0])[np.asarray(traj.obs[0].argmax(-1))]
            psi = (total - value)[:, None]
        elif name == "time_baseline":
            psi = (total - (total.sum() - total) / 5)[:, None]
        else:
            squares = flat**2
            of_others = (total[:, None] * squares).sum(0) - total[:, None] * squares
            psi = total[:, None] - of_others / (squares.sum(0) - squares)
        expected = (psi * flat).mean(0).reshape(S, A)
        np.testing.assert_allclose(found[part], expected, atol=1e-10)


def test_what_parameters_cannot_be_drawn_for() -> None:
    config = Config(policy=in_parameters, estimator="gae", collect="windows", num_envs=2)
    with pytest.raises(ValueError, match="estimator='gae' has another Ψ"):
        make_train(config)(jax.random.key(0))
    cells = Config(rnn="gru", num_envs=2, preset=None)
    env = envs.make_env(cells.env, 2)
    with pytest.raises(ValueError, match="without a recurrent cell"):
        perturbed(make_policy(cells, env))
