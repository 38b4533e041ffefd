"""Tabular MDPs: a gymnax environment whose J(θ), gradient and moments are known exactly.

    backward   V_H = 0,  Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π Qₜ,  J = ρ·V₀          forward   d₀ = ρ,  dₜ₊₁ = dₜ π P
    ∇J = Σₜ γᵗ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a)                       (Sutton et al. 2000, for a finite horizon)

Everything is a differentiable function of logits, [S, A] or, for a policy that reads the clock, [H, S, A], so that
a Hessian or the gradient with respect to a network's parameters is one more `jax` transformation away. A terminal
state ends the episode when it is entered: nothing is earned in it, and the logits of its row have no effect.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs import environment, gymnax, spaces
from pg.networks import Network
from pg.rollout import Trajectory


class State(NamedTuple):
    """Where an episode stands."""

    state: jax.Array  # int []
    time: jax.Array  # int []


class TabularMDP(environment.Environment):
    """P(s'|s, a), r, ρ as a gymnax environment; observations are one-hot, or the given features."""

    def __init__(
        self, transition: Any, reward: Any, initial: Any, terminal: Any, horizon: int, features: Any = None
    ) -> None:
        """transition: [S, A, S]. reward: [S, A] or [S, A, S]. initial: [S]. terminal: [S] bool. features: [S, D].

        Raises ValueError, naming the argument, for a wrong shape or probabilities that do not sum to 1.
        """
        self.transition = np.asarray(transition, np.float64)
        self.initial = np.asarray(initial, np.float64)
        self.terminal = np.asarray(terminal, bool)
        self.horizon = int(horizon)
        S, A = self.transition.shape[:2] if self.transition.ndim == 3 else (-1, -1)
        reward = np.asarray(reward, np.float64)
        _check("transition", self.transition.shape, [(S, A, S)])
        _check("reward", reward.shape, [(S, A), (S, A, S)])
        _check("initial", self.initial.shape, [(S,)])
        _check("terminal", self.terminal.shape, [(S,)])
        self.features = np.eye(S) if features is None else np.asarray(features, np.float64)
        _check("features", self.features.shape[:1], [(S,)])
        if self.horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, got {horizon!r}")
        for name, p in (("transition", self.transition), ("initial", self.initial)):
            if (p < 0).any() or not np.allclose(p.sum(-1), 1.0, atol=1e-8):
                raise ValueError(f"{name} must hold probabilities that sum to 1 over its last axis")
        if (self.initial * self.terminal).any():
            raise ValueError("initial must give terminal states probability 0: an episode has at least one step")
        self.reward = np.broadcast_to(reward if reward.ndim == 3 else reward[..., None], (S, A, S))

    @property
    def num_states(self) -> int:
        """S."""
        return self.transition.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.transition.shape[1]

    @property
    def mean_reward(self) -> np.ndarray:
        """r(s, a) = Σₛ' P(s'|s, a) r(s, a, s'), [S, A]; 0 in terminal states."""
        return np.where(self.terminal[:, None], 0.0, (self.transition * self.reward).sum(-1))

    @property
    def continuing(self) -> np.ndarray:
        """P(s'|s, a) restricted to going on: 0 from and into terminal states, [S, A, S]."""
        alive = ~self.terminal
        return self.transition * alive[:, None, None] * alive

    @property
    def default_params(self) -> environment.EnvParams:
        """The horizon as the time limit."""
        return environment.EnvParams(max_steps_in_episode=self.horizon)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, State]:
        """s₀ ~ ρ."""
        state = State(state=_sample(key, jnp.asarray(self.initial, float)), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: State, action: Any, params: Any) -> tuple[Any, ...]:
        """s' ~ P(·|s, a), and r(s, a, s')."""
        after = _sample(key, jnp.asarray(self.transition, float)[state.state, action])
        reward = jnp.asarray(self.reward, float)[state.state, action, after]
        terminated = jnp.asarray(self.terminal)[after]
        state = State(state=after, time=state.time + 1)
        return self.get_obs(state), state, reward, terminated, {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        """The features of the state, [D]."""
        return jnp.asarray(self.features, float)[state.state]

    def action_space(self, params: Any) -> spaces.Discrete:
        """A actions."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any) -> spaces.Box:
        """The range of the features."""
        return spaces.Box(self.features.min(), self.features.max(), self.features.shape[1:])

    @property
    def name(self) -> str:
        """The name in gymnax's registry's manner."""
        return "TabularMDP"


# --- Exact values over a finite horizon: J, Q, V, visitation, gradients ---------------------------


def table(mdp: TabularMDP, policy: Network, params: Any) -> jax.Array:
    """The logits [S, A] of a memoryless categorical network on the MDP's features: composes with all below."""
    first = jnp.zeros(mdp.num_states, bool)
    return policy.apply(params, policy.carry, jnp.asarray(mdp.features, float), first)[1].logits


def values(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> tuple[jax.Array, jax.Array]:
    """Q [H, S, A] and V [H, S], with t steps taken; tau adds the entropy-regularised reward r - τ log π.

    Qₜ = r + γ P Vₜ₊₁,  Vₜ = Σₐ π (Qₜ - τ log π)   (soft values: Mei et al. 2020, 2005.06392, section 4)
    """
    reward, transition = jnp.asarray(mdp.mean_reward), jnp.asarray(mdp.continuing)
    log_pi = jax.nn.log_softmax(_clocked(mdp, logits))
    running = ~jnp.asarray(mdp.terminal)

    def back(value: jax.Array, log_pi: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        q = reward + gamma * transition @ value
        value = jnp.where(running, jnp.sum(jnp.exp(log_pi) * (q - tau * log_pi), axis=-1), 0.0)
        return value, (q, value)

    return jax.lax.scan(back, jnp.zeros(mdp.num_states), log_pi, reverse=True)[1]


def visitation(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """dₜ(s) = P(sₜ = s, the episode still running), [H, S]."""
    pi, transition = jax.nn.softmax(_clocked(mdp, logits)), jnp.asarray(mdp.continuing)

    def forward(d: jax.Array, pi: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.einsum("s,sa,sat->t", d, pi, transition), d

    return jax.lax.scan(forward, jnp.asarray(mdp.initial), pi)[1]


def exact_return(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """J = E[Σ_{t<H} γᵗ (rₜ - τ log π(aₜ|sₜ))], []. Differentiable to any order."""
    return jnp.asarray(mdp.initial) @ values(mdp, logits, gamma, tau)[1][0]


def exact_gradient(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """∇J with respect to the logits, of their shape."""
    return jax.grad(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def exact_hessian(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, tau: Any = 0.0) -> jax.Array:
    """∇²J with respect to the logits, of their shape twice."""
    return jax.hessian(lambda x: exact_return(mdp, x, gamma, tau))(jnp.asarray(logits))


def undiscounted_direction(mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0) -> jax.Array:
    """Σₜ Σₛ dₜ(s) Σₐ ∇π(a|s) Qₜ(s, a): what dropping γᵗ estimates; for γ < 1 the gradient of no function.

    Nota & Thomas 2020 (1906.07073). logits: [S, A] or [H, S, A]; the result has their shape.
    """
    constant = jax.lax.stop_gradient((visitation(mdp, logits), values(mdp, logits, gamma)[0]))

    def surrogate(logits: jax.Array) -> jax.Array:
        return jnp.einsum("ts,tsa,tsa->", constant[0], jax.nn.softmax(_clocked(mdp, logits)), constant[1])

    return jax.grad(surrogate)(jnp.asarray(logits))


# --- Without a time limit -------------------------------------------------------------------------


def discounted_return(mdp: TabularMDP, logits: jax.Array, gamma: Any) -> jax.Array:
    """J = ρ·(I - γ P_π)⁻¹ r_π, without a time limit, []. logits: [S, A]; γ < 1, or termination from everywhere."""
    pi = jax.nn.softmax(logits)
    step = jnp.einsum("sa,sat->st", pi, jnp.asarray(mdp.continuing))
    reward = jnp.sum(pi * jnp.asarray(mdp.mean_reward), axis=-1)
    return jnp.asarray(mdp.initial) @ jnp.linalg.solve(jnp.eye(mdp.num_states) - gamma * step, reward)


def stationary(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """μ = μ P_π, Σ μ = 1, [S], of an MDP without terminal states whose chain has one recurrent class."""
    pi = jax.nn.softmax(logits)
    step = jnp.einsum("sa,sat->st", pi, jnp.asarray(mdp.transition))
    # μ (I - P + 1 1ᵀ) = 1ᵀ: the equations of μ with its normalisation added to each.
    return jnp.linalg.solve((jnp.eye(mdp.num_states) - step + 1.0).T, jnp.ones(mdp.num_states))


def average_reward(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """η = Σₛ μ(s) Σₐ π(a|s) r(s, a), [], for ever and without resets; its gradient is ∇η."""
    return jnp.einsum("s,sa,sa->", stationary(mdp, logits), jax.nn.softmax(logits), jnp.asarray(mdp.mean_reward))


def gpomdp_direction(mdp: TabularMDP, logits: jax.Array, beta: Any) -> jax.Array:
    """∇_β η = Σₛ μ(s) Σₐ ∇π(a|s) (r + β P V_β)(s, a), [S, A], V_β the β-discounted value.

    Baxter & Bartlett 2001 (cs/1106.0665): the limit of GPOMDP(β); tends to ∇η as β tends to 1.
    """
    pi = jax.nn.softmax(logits)
    reward, transition = jnp.asarray(mdp.mean_reward), jnp.asarray(mdp.transition)
    step = jnp.einsum("sa,sat->st", pi, transition)
    value = jnp.linalg.solve(jnp.eye(mdp.num_states) - beta * step, jnp.sum(pi * reward, axis=-1))
    constant = jax.lax.stop_gradient(stationary(mdp, logits)[:, None] * (reward + beta * transition @ value))
    return jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) * constant))(jnp.asarray(logits))


# --- Exact moments of the estimators, at any horizon ----------------------------------------------


def total_return_moments(
    mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, baseline: Any = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Mean [D] and covariance [D, D] of one episode's (R - b) Σₜ ∇log π, D the number of logits.

    By recursion of the joint moments E[Gⁱ Z⊗ʲ | s], i, j ≤ 2, where G = r + γ G', Z = z + Z': no enumeration, and a
    cost of O(H S A S D²).
    """
    scores, weights, reward = _steps(mdp, logits)
    D, S = scores.shape[-1], mdp.num_states
    nothing = [[jnp.ones(S), jnp.zeros((S, D)), jnp.zeros((S, D, D))]]
    nothing += [[jnp.zeros_like(m) for m in nothing[0]] for _ in range(2)]

    def back(after: Any, step: Any) -> tuple[Any, None]:
        z, weight = step  # [S, A, D], π(a|s) P(s'|s, a) [S, A, S]
        zz = jnp.einsum("sad,sae->sade", z, z)
        moments = []
        for i in range(3):
            # E[Gⁱ Z'⊗ʲ | s, a] = Σₖ (i over k) Σₛ' P rⁱ⁻ᵏ γᵏ E[G'ᵏ Z'⊗ʲ | s'], weighted by π.
            m0, m1, m2 = (
                sum(
                    math.comb(i, k)
                    * gamma**k
                    * jnp.einsum("sat,t...->sa...", weight * reward ** (i - k), after[k][j])
                    for k in range(i + 1)
                )
                for j in range(3)
            )
            cross = jnp.einsum("sad,sae->sde", z, m1)
            first = jnp.einsum("sad,sa->sd", z, m0) + m1.sum(1)
            second = jnp.einsum("sade,sa->sde", zz, m0) + cross + cross.swapaxes(1, 2) + m2.sum(1)
            moments.append([m0.sum(1), first, second])
        return _ended(mdp, moments, nothing), None

    (_, z1, z2), (_, gz1, gz2), (_, _, g2z2) = jax.lax.scan(back, nothing, (scores, weights), reverse=True)[0]
    mean = _start(mdp, gz1 - baseline * z1)
    second = _start(mdp, g2z2 - 2 * baseline * gz2 + baseline**2 * z2)
    return mean, second - jnp.outer(mean, mean)


def reward_to_go_moments(
    mdp: TabularMDP, logits: jax.Array, gamma: Any = 1.0, baseline: Any = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Mean [D] and covariance [D, D] of one episode's Σₜ γᵗ ∇log π (Gₜ - bₜ(sₜ)), D the number of logits.

    baseline: b, broadcast to [H, S]. By recursion of E[G], E[G²], E[X], E[GX], E[XXᵀ] given s, where
    G = r + γ G' and X = z (G - b) + γ X'.
    """
    scores, weights, reward = _steps(mdp, logits)
    D, S = scores.shape[-1], mdp.num_states
    nothing = [jnp.zeros(S), jnp.zeros(S), jnp.zeros((S, D)), jnp.zeros((S, D)), jnp.zeros((S, D, D))]

    def back(after: Any, step: Any) -> tuple[Any, None]:
        z, weight, b = step  # [S, A, D], [S, A, S], [S]

        def mean(x: jax.Array, power: int = 0) -> jax.Array:
            """π(a|s) Σₛ' P(s'|s, a) r^power x(s'), [S, A, ...]."""
            return jnp.einsum("sat,t...->sa...", weight * reward**power, x)

        one, (g1, g2, x1, gx, xx) = jnp.ones(S), after
        pi = mean(one)
        G1 = mean(one, 1) + gamma * mean(g1)
        G2 = mean(one, 2) + 2 * gamma * mean(g1, 1) + gamma**2 * mean(g2)
        X1, GX = mean(x1), mean(x1, 1) + gamma * mean(gx)  # E[X'], E[G X']
        b = b[:, None]
        above = jnp.einsum("sad,sa->sd", z, G1 - b * pi)
        cross = gamma * jnp.einsum("sad,sae->sde", z, GX - b[..., None] * X1)
        moments = [
            G1.sum(1),
            G2.sum(1),
            above + gamma * X1.sum(1),
            jnp.einsum("sad,sa->sd", z, G2 - b * G1) + gamma * GX.sum(1),
            jnp.einsum("sad,sae,sa->sde", z, z, G2 - 2 * b * G1 + b**2 * pi)
            + cross
            + cross.swapaxes(1, 2)
            + gamma**2 * mean(xx).sum(1),
        ]
        return _ended(mdp, moments, nothing), None

    baseline = jnp.broadcast_to(jnp.asarray(baseline, float), (mdp.horizon, S))
    _, _, x1, _, xx = jax.lax.scan(back, nothing, (scores, weights, baseline), reverse=True)[0]
    expected = _start(mdp, x1)
    return expected, _start(mdp, xx) - jnp.outer(expected, expected)


# --- Every trajectory -----------------------------------------------------------------------------


def enumerate_trajectories(mdp: TabularMDP, logits: jax.Array) -> tuple[Trajectory, jax.Array]:
    """Every trajectory of positive probability, leaves [H, M, ...], and its probability [M], differentiable.

    p(τ) = ρ(s₀) Πₜ π(aₜ|sₜ) P(sₜ₊₁|sₜ, aₜ), over the valid steps. There are up to S (A S)ᴴ of them.
    """
    state, action, after = _paths(mdp)
    entered = np.asarray(mdp.terminal)[after]
    ended = np.cumsum(entered, axis=0) - entered > 0
    valid, last = ~ended, np.arange(mdp.horizon)[:, None] == mdp.horizon - 1
    log_pi = jax.nn.log_softmax(_clocked(mdp, logits))
    time = np.broadcast_to(np.arange(mdp.horizon)[:, None], state.shape)
    log_prob = log_pi[time, state, action]
    moves = np.where(valid, mdp.transition[state, action, after], 1.0)
    probability = mdp.initial[state[0]] * moves.prod(0) * jnp.exp(jnp.sum(jnp.where(valid, log_prob, 0.0), axis=0))
    features = jnp.asarray(mdp.features, float)
    traj = Trajectory(
        obs=features[state],
        action=jnp.asarray(action),
        log_prob=log_prob,
        reward=jnp.asarray(np.where(valid, mdp.reward[state, action, after], 0.0), float),
        terminated=jnp.asarray(entered & valid),
        truncated=jnp.asarray(last & valid),
        next_obs=features[after],
        first=jnp.asarray(time == 0),
        valid=jnp.asarray(valid),
        time=jnp.asarray(time),
        carry=(),
    )
    return traj, probability


# --- Ready-made problems --------------------------------------------------------------------------


def garnet(seed: int, num_states: int, num_actions: int, branching: int, horizon: int, ends: int = 1) -> TabularMDP:
    """A random MDP: from each (s, a) `branching` successors, rewards N(0, 1); the last `ends` states are terminal.

    Archibald, McKinnon & Thomas 1995.
    """
    g = np.random.default_rng(seed)
    transition = np.zeros((num_states, num_actions, num_states))
    for s in range(num_states):
        for a in range(num_actions):
            successors = g.choice(num_states, size=branching, replace=False)
            transition[s, a, successors] = g.dirichlet(np.ones(branching))
    terminal = np.arange(num_states) >= num_states - ends
    initial = np.where(terminal, 0.0, g.dirichlet(np.ones(num_states)))
    reward = g.normal(size=(num_states, num_actions, num_states))
    return TabularMDP(transition, reward, initial / initial.sum(), terminal, horizon)


def chain(length: int, horizon: int, slip: float = 0.1) -> TabularMDP:
    """States in a row; action 1 steps right, 0 left, `slip` the other way; the right end pays 1 and ends."""
    transition = np.zeros((length, 2, length))
    for s in range(length):
        left, right = max(s - 1, 0), min(s + 1, length - 1)
        for action, (meant, other) in enumerate([(left, right), (right, left)]):
            transition[s, action, meant] += 1 - slip
            transition[s, action, other] += slip
    reward = np.zeros((length, 2, length))
    reward[: length - 1, :, length - 1] = 1.0
    return TabularMDP(transition, reward, np.eye(length)[0], np.arange(length) == length - 1, horizon)


def gridworld(rows: Sequence[str], horizon: int, slip: float = 0.0) -> TabularMDP:
    """A map of S (start), . (free), # (wall), G (goal: +1, ends), H (hole: -1, ends); moves up, right, down, left.

    With probability `slip` the move is one of the four at random.
    """
    cells = {(y, x): kind for y, row in enumerate(rows) for x, kind in enumerate(row) if kind != "#"}
    index = {cell: i for i, cell in enumerate(cells)}
    kinds = np.array(list(cells.values()))
    moves = np.zeros((len(cells), 4, len(cells)))
    for (y, x), s in index.items():
        for action, (dy, dx) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
            moves[s, action, index.get((y + dy, x + dx), s)] = 1.0
    transition = (1 - slip) * moves + slip * moves.mean(1, keepdims=True)
    value = np.select([kinds == "G", kinds == "H"], [1.0, -1.0], 0.0)
    start = (kinds == "S") / (kinds == "S").sum()
    reward = np.broadcast_to(value, transition.shape)
    return TabularMDP(transition, reward, start, np.isin(kinds, ["G", "H"]), horizon)


def bandit(means: Sequence[float]) -> TabularMDP:
    """One step, k arms with certain rewards."""
    k = len(means)
    transition = np.broadcast_to(np.array([0.0, 1.0]), (2, k, 2))
    return TabularMDP(transition, np.stack([np.asarray(means), np.zeros(k)]), [1.0, 0.0], [False, True], horizon=1)


def pessimal() -> TabularMDP:
    """Two steps and one shared logit; at γ = 1/2 dropping γᵗ climbs to the worst policy, for J_γ and J₁ alike.

    Action 1 leads to the state that costs 4 and pays 3 itself at the second step: with p = π(1), J_γ = -γ p, while
    the direction without γᵗ is p (1 - p) (3 - 4 γ) > 0. In the spirit of Nota & Thomas 2020 (1906.07073), section 5.
    """
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = transition[1, :, 1] = transition[2, :, 2] = 1.0
    reward = np.array([[0.0, 0.0], [0.0, 3.0], [-4.0, -1.0]])
    return TabularMDP(transition, reward, [1.0, 0.0, 0.0], np.zeros(3, bool), horizon=2, features=np.ones((3, 1)))


def cancelling() -> TabularMDP:
    """Two steps that pay -1 and then about +1: the return is small, the reward to go is not.

    Here the reward-to-go estimator has *more* variance than the total return: what it drops was anti-correlated
    with what it keeps.
    """
    transition = np.zeros((2, 2, 2))
    transition[:, :, 1] = 1.0
    return TabularMDP(transition, [[-1.0, -0.9], [1.0, 1.1]], [1.0, 0.0], [False, False], horizon=2)


def register(name: str, mdp: TabularMDP) -> None:
    """Makes an MDP an environment by name, in gymnax's registry: `Config(env=name)`."""
    gymnax.register(name, lambda: mdp)


# --- Within ---------------------------------------------------------------------------------------


def _clocked(mdp: TabularMDP, logits: jax.Array) -> jax.Array:
    """Logits [S, A] or [H, S, A] as [H, S, A]."""
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    _check("logits", logits.shape, [shape[1:], shape])
    return jnp.broadcast_to(logits, shape)


def _steps(mdp: TabularMDP, logits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores ∇log π(a|s) [H, S, A, D], weights π(a|s) P(s'|s, a) [H, S, A, S], rewards [S, A, S]."""
    logits = jnp.asarray(logits)

    def log_pi(flat: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(_clocked(mdp, flat.reshape(logits.shape)))

    pi = jnp.exp(log_pi(logits.ravel()))
    weights = pi[..., None] * jnp.asarray(mdp.transition)[None]
    return jax.jacfwd(log_pi)(logits.ravel()), weights, jnp.asarray(mdp.reward)


def _ended(mdp: TabularMDP, moments: Any, nothing: Any) -> Any:
    """Moments by state, those of an episode that is over in terminal states."""
    over = jnp.asarray(mdp.terminal)
    return jax.tree.map(lambda m, n: jnp.where(over.reshape(-1, *[1] * (m.ndim - 1)), n, m), moments, nothing)


def _start(mdp: TabularMDP, x: jax.Array) -> jax.Array:
    return jnp.einsum("s,s...->...", jnp.asarray(mdp.initial), x)


def _paths(mdp: TabularMDP) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, actions and successors [H, M] of every path; an ended one stands still with action 0."""
    state = np.flatnonzero(mdp.initial)
    history = np.zeros((0, len(state), 3), int)
    for _ in range(mdp.horizon):
        possible = mdp.transition[state] > 0  # [m, A, S]
        over = mdp.terminal[state]
        possible[over] = False
        possible[over, 0, state[over]] = True
        path, action, after = np.nonzero(possible)
        rows = np.stack([state[path], action, after], axis=-1)
        history = np.concatenate([history[:, path], rows[None]])
        state = after
    return history[..., 0], history[..., 1], history[..., 2]


def _sample(key: jax.Array, p: jax.Array) -> jax.Array:
    """An index drawn with probabilities p, [] int; never one of probability 0."""
    cdf = jnp.cumsum(p)
    return jnp.sum(jax.random.uniform(key, dtype=p.dtype) * cdf[-1] >= cdf[:-1], dtype=jnp.int32)


def _check(name: str, shape: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    if shape not in expected:
        raise ValueError(f"{name} must have shape {' or '.join(map(str, expected))}, got {shape}")
