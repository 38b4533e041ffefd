"""Problems with continuous actions whose gradients have closed forms, and policies for them.

Their episodes under a Gaussian policy are also summed over: the noise of every step at the nodes of
Gauss-Hermite quadrature, which is exact for all that is polynomial in it.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import Hyperparams
from pg.distributions import CensoredGaussian, Gaussian, TanhGaussian
from pg.estimators import ESTIMATORS, Params
from pg.exact.closed_forms import LQR, GaussianBandit, SquashedBandit, lqr
from pg.layers import Quadratic, Sinusoids
from pg.networks import Network
from pg.rollout import Trajectory

GAMMA = 0.9
MEAN, LOG_STD = 0.3, -0.4
PLAIN, CLIPPED, SQUASHED = GaussianBandit(1.0), GaussianBandit(1.0, -0.5, 0.6), SquashedBandit(0.4)
REGULATOR = LQR(
    A=[[0.9, 0.2], [-0.1, 0.8]],
    B=[[0.0], [1.0]],
    Q=np.eye(2),
    R=[[0.3]],
    W=0.05 * np.eye(2),
    start=[[1.0, 0.2], [0.2, 0.5]],
    horizon=5,
)
GAIN, GAIN_LOG_STD = jnp.array([[-0.1, -0.3]]), jnp.array([-0.7])


def gaussian(low: float = -1.0, high: float = 1.0, kind: type = Gaussian) -> Network:
    """N(mean, std²) whatever is seen, as one of the three distributions; params: (mean [1],
    log_std [1]).
    """

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        mean, log_std = (jnp.broadcast_to(x, (*obs.shape[:-1], 1)) for x in params)
        ends = {
            Gaussian: (),
            TanhGaussian: (jnp.zeros_like(mean), jnp.ones_like(mean)),
            CensoredGaussian: (jnp.full_like(mean, low), jnp.full_like(mean, high)),
        }
        return carry, kind(mean, log_std, *ends[kind])

    return Network(lambda key: (jnp.array([MEAN]), jnp.array([LOG_STD])), apply)


def linear() -> Network:
    """N(K x, σ²); params: (K [m, n], log_std [m])."""

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Gaussian]:
        mean = jnp.einsum("mn,...n->...m", params[0], obs)
        return carry, Gaussian(mean, jnp.broadcast_to(params[1], mean.shape))

    return Network(lambda key: (GAIN, GAIN_LOG_STD), apply)


class Episodes(NamedTuple):
    """Episodes, leaves [H, M, ...], and the weight that each has in an expectation, [M]."""

    traj: Trajectory
    weight: np.ndarray


# Two actions at once, two steps and no noise but the policy's; one action, and noisy dynamics.
PLANAR = LQR([[0.9]], [[0.5, -0.8]], [[1.0]], [[0.5, 0.2], [0.2, 0.4]], [[0.0]], [[0.7]], 2)
PLANAR_POLICY = np.array([[-0.3], [0.4]]), np.array([-0.5, -0.2])
NOISY = LQR([[0.9]], [[0.7]], [[1.0]], [[0.4]], [[0.3]], [[0.7]], 2)
NOISY_POLICY = np.array([[-0.4]]), np.array([-0.3])


def gauss_hermite(num_nodes: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [M, dims] and weights [M] of N(0, 1) in every dimension: exact for polynomials of
    degree 2 num_nodes - 1 in each.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grids = np.meshgrid(*[nodes] * dims, indexing="ij")
    products = np.meshgrid(*[weights / weights.sum()] * dims, indexing="ij")
    return np.stack(grids, -1).reshape(-1, dims), np.prod(products, axis=0).ravel()


def all_episodes(problem: LQR, policy: tuple[Any, Any], num_nodes: int = 6) -> Episodes:
    """Every episode of a regulator of one state under N(K x, σ²); an observation is (x, t)."""
    A, B, Q, R, W, start = (np.asarray(x) for x in problem.matrices)
    K, std = np.asarray(policy[0]), np.exp(policy[1])
    H, m = problem.horizon, problem.action_dim
    noisy = W[0, 0] > 0
    noise, weight = gauss_hermite(num_nodes, 1 + H * m + noisy * (H - 1))
    of_actions = noise[:, 1 : 1 + H * m].reshape(-1, H, m)
    of_dynamics = noise[:, 1 + H * m :]
    x = np.sqrt(start[0, 0]) * noise[:, :1]
    states, actions, rewards, log_probs = [x], [], [], []
    for t in range(H):
        u = x @ K.T + std * of_actions[:, t]
        rewards.append(-np.einsum("mi,ij,mj->m", x, Q, x) - np.einsum("mi,ij,mj->m", u, R, u))
        mean = x @ K.T
        dist = Gaussian(mean, np.broadcast_to(np.log(std), mean.shape))
        log_probs.append(np.asarray(dist.log_prob(u)))
        x = x @ A.T + u @ B.T
        if noisy and t < H - 1:
            x = x + np.sqrt(W[0, 0]) * of_dynamics[:, t, None]
        actions.append(u)
        states.append(x)
    time = np.broadcast_to(np.arange(H + 1)[:, None], (H + 1, len(weight)))
    obs = np.concatenate([np.stack(states), time[..., None]], axis=-1)
    return Episodes(_complete(obs, actions, log_probs, rewards), weight)


def _complete(obs: np.ndarray, actions: Any, log_probs: Any, rewards: Any) -> Trajectory:
    """The trajectory of episodes that all last H steps. obs: [H + 1, M, O]."""
    H, M = obs.shape[0] - 1, obs.shape[1]
    time = np.broadcast_to(np.arange(H)[:, None], (H, M))
    return Trajectory(
        obs=jnp.asarray(obs[:-1]),
        action=jnp.stack([jnp.asarray(x) for x in actions]),
        log_prob=jnp.stack([jnp.asarray(x) for x in log_probs]),
        reward=jnp.stack([jnp.asarray(x) for x in rewards]),
        terminated=jnp.zeros((H, M), bool),
        truncated=jnp.asarray(time == H - 1),
        next_obs=jnp.asarray(obs[1:]),
        first=jnp.asarray(time == 0),
        valid=jnp.ones((H, M), bool),
        time=jnp.asarray(time),
        carry=(),
    )


def one_step(problem: GaussianBandit, policy: Network) -> Episodes:
    """Every action of a bandit, at the nodes of Gauss-Legendre quadrature between the bounds, below
    and above them.
    """
    dist = policy.apply(policy.init(jax.random.key(0)), (), jnp.ones((1, 1)), jnp.ones(1, bool))[1]
    mean, std = float(dist.mean[0, 0]), float(np.exp(dist.log_std[0, 0]))
    bounds = (np.array([problem.low, problem.high]) - mean) / std
    cuts = np.unique(np.clip([-12.0, *bounds, 12.0], -12.0, 12.0))
    x, w = np.polynomial.legendre.leggauss(100)
    pieces = [(a + (b - a) * (x + 1) / 2, (b - a) / 2 * w) for a, b in itertools.pairwise(cuts)]
    noise, weight = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    weight = weight * np.exp(-(noise**2) / 2) / np.sqrt(2 * np.pi)
    u = jnp.asarray(mean + std * noise[:, None])
    action = np.asarray(dist.action(u))[:, 0]
    reward = -((np.clip(action, problem.low, problem.high) - problem.target) ** 2)
    obs = np.ones((2, len(weight), 1))
    return Episodes(_complete(obs, [u], [dist.log_prob(u)], [reward]), weight)


def in_x() -> Network:
    """N(K x, σ²) of observations (x, t); params: (K [m, 1], log_std [m])."""

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Gaussian]:
        mean = obs[..., :1] @ params[0].T
        return carry, Gaussian(mean, jnp.broadcast_to(params[1], mean.shape))

    return Network(lambda key: PLANAR_POLICY, apply)


def critic_off_by_error(problem: LQR, policy: tuple[Any, Any]) -> Network:
    """Qₜ(x, ·) of observations (x, t), with as much of another function of the action added as its
    parameter says: 0 for the exact one.
    """
    size = problem.action_dim

    def apply(error: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Quadratic]:
        x, time = obs[..., :1], obs[..., 1].astype(int)
        q = lqr.action_value(problem, *policy, x, time, GAMMA)
        axes = jnp.arange(1.0, size + 1.0)
        slope = x * axes.reshape(*[1] * (x.ndim - 1), size) + 0.5
        curvature = jnp.broadcast_to(jnp.eye(size) - jnp.outer(axes, axes), q.curvature.shape)
        return carry, Quadratic(
            constant=q.constant + error * (2.0 - x[..., 0]),
            slope=q.slope + error * slope,
            curvature=q.curvature + error * curvature,
            centre=error * jnp.broadcast_to(0.2 * axes, q.slope.shape),
        )

    return Network(lambda key: jnp.zeros(()), apply)


def wrong_critic() -> Network:
    """A function of one action that has nothing to do with any problem here."""

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Quadratic]:
        one = jnp.ones_like(obs)
        return carry, Quadratic(2.0 - obs[..., 0], 0.8 * one, 0.7 * one[..., None], 0.2 * one)

    return Network(lambda key: (), apply)


def sinusoidal_critic(size: int) -> Network:
    """Three sinusoids of an action of `size` entries, whose every coefficient depends on the first
    entry of the observation, and has nothing to do with any problem here; its parameter scales the
    frequencies, which are at most 1 at 1.
    """
    rng = np.random.default_rng(0)
    of_unit, of_state = rng.uniform(-0.8, 0.8, (3, size)), rng.uniform(-0.2, 0.2, (3, size))

    def apply(bend: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Sinusoids]:
        x = obs[..., :1]
        angle = x * jnp.arange(1.0, 4.0).reshape(*[1] * (x.ndim - 1), 3)
        axes = [1] * (x.ndim - 1)
        steady, moving = (jnp.asarray(u).reshape(*axes, 3, size) for u in (of_unit, of_state))
        return carry, Sinusoids(
            constant=2.0 - x[..., 0],
            amplitude=1.5 + jnp.cos(angle),
            frequency=bend * (steady + moving * jnp.sin(x)[..., None]),
            phase=0.5 * angle + 0.3,
            centre=jnp.broadcast_to(0.2 * x, (*x.shape[:-1], size)),
        )

    return Network(lambda key: jnp.ones(()), apply)


def nearly_quadratic(critic: Network, frequency: float) -> Network:
    """The function of a critic's `Quadratic` of one action to order 2, of sinusoids of a low
    frequency u: c + (g/u) sin(u x) + (H/u²) (1 - cos(u x)).
    """

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Sinusoids]:
        carry, q = critic.apply(params, carry, obs, first)
        bent = q.curvature[..., 0, 0] / frequency**2
        units = jnp.ones((*bent.shape, 2))
        phase = units * jnp.array([0.0, jnp.pi / 2]).reshape(*[1] * bent.ndim, 2)
        amplitude = jnp.stack([q.slope[..., 0] / frequency, -bent], axis=-1)
        return carry, Sinusoids(
            q.constant + bent, amplitude, frequency * units[..., None], phase, q.centre
        )

    return critic._replace(apply=apply)


def estimates_of(
    name: str, policy: Network, critic: Network
) -> Callable[[Any, Any, Episodes], np.ndarray]:
    """The function that makes an estimate of every episode alone, as a direction of ascent, [M, P],
    of the parameters of policy and critic and of the episodes.
    """
    estimator = ESTIMATORS[name](policy, critic, Hyperparams(gamma=GAMMA))

    @jax.jit
    def mapped(params: Params, traj: Trajectory) -> jax.Array:
        def ascent(episode: Trajectory) -> jax.Array:
            weighted, _ = estimator.weigh(params, (), jax.tree.map(lambda x: x[:, None], episode))
            return -jnp.concatenate([x.ravel() for x in estimator.grad(params, weighted)[0].policy])

        return jax.vmap(ascent, in_axes=1)(traj)

    def estimates(policy_params: Any, critic_params: Any, episodes: Episodes) -> np.ndarray:
        # arrays that are made before floats are 64 bits wide have 32
        params = jax.tree.map(jnp.asarray, Params(policy_params, critic_params))
        return np.asarray(mapped(params, episodes.traj))

    return estimates


def mean_of(estimates: np.ndarray, episodes: Episodes) -> np.ndarray:
    """The expectation, [P]."""
    return np.asarray(episodes.weight @ estimates)


def variance_of(estimates: np.ndarray, episodes: Episodes) -> np.ndarray:
    """The variance of each entry, [P]."""
    return np.asarray(episodes.weight @ (estimates - mean_of(estimates, episodes)) ** 2)
