# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The policy-gradient theorem, step by step
#
# Every equation of the derivation is followed by code that checks it: first over *all* episodes of a small problem, where
# an expectation is a sum and "unbiased" means equal to twelve digits, then on CartPole.

# %% tags=["install"]
import importlib.util
import sys

REPOSITORY = ""

if importlib.util.find_spec("pg") is None and REPOSITORY:  # in Colab; elsewhere nothing happens
    from IPython import get_ipython

    get_ipython().system(f"git clone --quiet --depth 1 {REPOSITORY} pg_repo")
    get_ipython().run_line_magic("pip", "install --quiet -e ./pg_repo")
    sys.path.insert(0, "pg_repo")

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import pg

FAST = bool(os.environ.get("PG_FAST"))  # small sizes, for the tests
SAMPLED_EPISODES = 2**10 if FAST else 2**14
SEEDS, UPDATES = (2, 12) if FAST else (8, 80)

plt.rcParams.update(pg.reports.plots.STYLE)
BLUE, ORANGE, GREEN = pg.reports.plots.COLOURS[:3]
jax.config.update("jax_enable_x64", True)  # identities hold to 1e-12


def equal(x, y):
    """Asserts that two arrays are the same to twelve digits."""
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


# %% [markdown]
# ## 1. Episodes and their probability
#
# A policy $\pi_\theta(a \mid s)$ acts in an environment with initial-state distribution $\rho$ and
# dynamics $P$. It produces an episode $\tau = (s_0, a_0, r_0, s_1, \dots)$ with probability
#
# $$p(\tau; \theta) = \rho(s_0) \prod_t \pi_\theta(a_t \mid s_t)\, P(s_{t+1} \mid s_t, a_t).$$
#
# We take a random problem with three states (one of them ends the episode), two actions and at most three steps. Its
# parameters $\theta$ are the logits of each action in each state. `pg.exact.tabular.enumerate_trajectories` lists every episode
# with its probability, as a differentiable function of $\theta$. The probabilities sum to 1 (`tests/exact/test_tabular.py`).

# %%
GAMMA = 0.8
mdp = pg.exact.tabular.garnet(seed=0, num_states=3, num_actions=2, branching=2, horizon=3)
theta = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))

traj, p = pg.exact.tabular.enumerate_trajectories(mdp, theta)  # leaves [T, M, ...], and [M]
print(f"{len(p)} episodes are possible; the likeliest has probability {p.max():.3f}")
equal(p.sum(), 1.0)

# %% [markdown]
# ## 2. The objective
#
# $$J(\theta) = \mathbb{E}[R(\tau)] = \sum_\tau p(\tau; \theta)\, R(\tau), \qquad R(\tau) = \sum_t \gamma^t r_t.$$
#
# Dynamic programming gives the same number: `pg.exact.tabular.exact_return` (`tests/exact/test_tabular.py`).

# %%
R = pg.returns.total_return(traj.reward, GAMMA)  # [M]
equal(p @ R, pg.exact.tabular.exact_return(mdp, theta, GAMMA))

# %% [markdown]
# ## 3. The log-derivative trick
#
# $R(\tau)$ does not depend on $\theta$, only the probability does. Since $\nabla p = p\, \nabla \log p$,
#
# $$\nabla J = \sum_\tau \nabla p(\tau; \theta)\, R(\tau) = \sum_\tau p(\tau; \theta)\, R(\tau)\, \nabla \log p(\tau; \theta)
# = \mathbb{E}[R\, \nabla \log p(\tau; \theta)].$$
#
# The gradient of an expectation has become an expectation, which can be sampled. The exact gradient is
# `pg.exact.tabular.exact_gradient`.


# %%
def probability(theta):
    """p(τ; θ) of every episode, [M]."""
    return pg.exact.tabular.enumerate_trajectories(mdp, theta)[1]


exact = pg.exact.tabular.exact_gradient(mdp, theta, GAMMA)  # [S, A]
grad_p = jax.jacobian(probability)(theta)  # [M, S, A]
grad_log_p = jax.jacobian(lambda theta: jnp.log(probability(theta)))(theta)
equal(grad_p, p[:, None, None] * grad_log_p)
equal(jnp.einsum("m,msa->sa", R, grad_p), exact)
equal(jnp.einsum("m,m,msa->sa", p, R, grad_log_p), exact)

# %% [markdown]
# ## 4. The dynamics cancel
#
# The logarithm turns the product into a sum, and neither $\rho$ nor $P$ depends on $\theta$:
#
# $$\nabla \log p(\tau; \theta) = \sum_t \nabla \log \pi_\theta(a_t \mid s_t) = \sum_t z_t = Z.$$
#
# So the environment need be neither known nor differentiable. The left side below is the derivative of the whole probability,
# dynamics included; the right side uses only the policy (`tests/exact/test_tabular.py::test_the_dynamics_cancel`). Steps
# after the end of an episode are not `valid` and do not count.


# %%
def log_pi(theta):
    """log π(aₜ|sₜ) of every step, [T, M]; observations are one-hot."""
    return jnp.take_along_axis(
        jax.nn.log_softmax(traj.obs @ theta), traj.action[..., None], axis=-1
    )[..., 0]


z = jnp.where(traj.valid[..., None, None], jax.jacobian(log_pi)(theta), 0.0)  # [T, M, S, A]
Z = z.sum(0)
equal(grad_log_p, Z)

# %% [markdown]
# ## 5. The score has mean zero
#
# Probabilities sum to 1 whatever $\theta$ is. Hence in every state, and for whole episodes,
#
# $$\mathbb{E}[z_t \mid s_t] = \sum_a \pi_\theta(a \mid s_t)\, \nabla \log \pi_\theta(a \mid s_t) = \nabla \sum_a \pi_\theta(a \mid s_t) = 0,
# \qquad \mathbb{E}[Z] = 0.$$
#
# Reward to go and baselines, below, follow from this identity.

# %%
pi = jax.nn.softmax(theta)
of_action = jax.jacobian(jax.nn.log_softmax)(theta)  # ∇ log π(a|s), [S, A, S, A]
equal(jnp.einsum("sa,sauv->suv", pi, of_action), 0.0)
equal(jnp.einsum("m,msa->sa", p, Z), 0.0)

# %% [markdown]
# ## 6. The theorem
#
# $$\nabla J(\theta) = \mathbb{E}[R\, Z] \approx \hat g = \frac{1}{N} \sum_{n=1}^N R(\tau^{(n)}) \sum_t \nabla \log \pi_\theta(a_t^{(n)} \mid s_t^{(n)}).$$
#
# In the library this is the estimator `reinforce`, a pure function from episodes to a gradient. So it can be evaluated on
# every episode: `pg.diagnostics.exact_moments` gives its exact mean and covariance (`tests/exact/test_unbiased.py` does so
# for all estimators).

# %%
policy = pg.exact.tabular.table_policy(theta)
h = pg.Hyperparams(gamma=GAMMA)


def exact_moments(name, **options):
    """Mean [S, A] and covariance of an estimator of the library, over every episode (or pair)."""
    mean, covariance = pg.diagnostics.exact_moments(
        pg.ESTIMATORS[name](policy, None, h), pg.Params(theta, ()), mdp, theta, **options
    )
    return mean.reshape(theta.shape), covariance


mean, covariance = exact_moments("reinforce")
equal(mean, exact)
print(f"largest deviation from ∇J: {np.abs(mean - exact).max():.1e}")

# %% [markdown]
# What holds exactly for all episodes together holds for sampled ones up to noise. The root-mean-square error of $N$ episodes
# is $\sqrt{\operatorname{tr} \operatorname{Cov} / N}$. Here episodes come from `pg.episodes`, the rollout that training uses
# (`tests/exact/test_sampled.py`).

# %%
env = pg.make_env(mdp, num_envs=SAMPLED_EPISODES)
reinforce = pg.ESTIMATORS["reinforce"](policy, None, h)
params = pg.Params(theta, ())


@jax.jit
def single_estimates(key):
    """The estimate of every single episode, [N, S, A]."""
    sampled = pg.episodes(env, policy, theta, key)
    batch = reinforce.weigh(params, (), sampled)[0]
    return pg.diagnostics.gradients(
        *pg.diagnostics.of_episodes(reinforce, params, batch), batch_size=256
    )


single = np.asarray(single_estimates(jax.random.key(0)))
sizes = 2 ** np.arange(0, 9 if not FAST else 6)
errors = [
    np.sqrt(((single.reshape(-1, n, *theta.shape).mean(1) - exact) ** 2).sum((1, 2)).mean())
    for n in sizes
]
predicted = np.sqrt(np.trace(covariance) / sizes)
assert np.abs(errors / predicted - 1).max() < (0.5 if FAST else 0.2)

figure, axes = plt.subplots()
axes.loglog(sizes, predicted, color=ORANGE, label="exact: $\\sqrt{\\mathrm{tr\\,Cov}/N}$")
axes.loglog(sizes, errors, "o", color=BLUE, label="measured")
axes.set(xlabel="episodes N of an estimate", ylabel="error of the estimate of ∇J")
axes.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
axes.minorticks_off()
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# ## 7. Causality: the reward to go
#
# A reward $r_k$ from before step $t$ is already known when $a_t$ is chosen, so $\mathbb{E}[z_t\, r_k] = 0$ for $k < t$, and
# those terms may be left out:
#
# $$\nabla J = \mathbb{E}\Big[\sum_t z_t \sum_{k \ge t} \gamma^k r_k\Big] = \mathbb{E}\Big[\sum_t z_t\, \gamma^t G_t\Big],
# \qquad G_t = \sum_{k \ge t} \gamma^{k-t} r_k.$$
#
# The matrix below shows the size of every $\mathbb{E}[z_t\, \gamma^k r_k]$: zeros below the diagonal. In the library:
# `reward_to_go` (`tests/exact/test_unbiased.py`).

# %%
discounted = GAMMA ** jnp.arange(mdp.horizon)[:, None] * traj.reward  # γᵏ rₖ, [T, M]
terms = jnp.einsum("m,tmsa,km->tksa", p, z, discounted)
equal(terms.sum((0, 1)), exact)
for t in range(mdp.horizon):
    equal(terms[t, :t], 0.0)
equal(exact_moments("reward_to_go")[0], exact)

norms = np.sqrt((terms**2).sum((2, 3)))
figure, axes = plt.subplots()
axes.imshow(norms, cmap="cividis", vmin=0)
for (t, k), norm in np.ndenumerate(norms):
    text = "0" if norm < 1e-12 else f"{norm:.2g}"
    axes.text(
        k, t, text, ha="center", va="center", color="white" if norm < norms.max() / 2 else "black"
    )
axes.set(xlabel="reward of step k", ylabel="score of step t", xticks=range(3), yticks=range(3))
axes.set_title("‖E[$z_t\\, γ^k r_k$]‖")
axes.grid(visible=False)
plt.show()

# %% [markdown]
# The terms left out have mean zero. Is the variance smaller without them? Usually. Where rewards cancel, as in
# `pg.exact.tabular.cancelling`, with a reward of $-1$ and then one of about $+1$, the total is small and the reward to go is
# not. The exact variances come from a recursion, at any horizon (`pg.exact.tabular.total_return_moments`,
# `reward_to_go_moments`).

# %%
for name, problem in pg.exact.tabular.references().items():
    logits = jnp.zeros((problem.num_states, problem.num_actions))
    total, to_go = (
        jnp.trace(f(problem, logits, GAMMA)[1])
        for f in (pg.exact.tabular.total_return_moments, pg.exact.tabular.reward_to_go_moments)
    )
    print(f"{name:12} variance of reward to go: {to_go / total:8.3g} × that of the total return")
assert to_go > 10 * total  # of the last one, in which rewards cancel
equal(
    pg.exact.tabular.total_return_moments(mdp, theta, GAMMA)[1], covariance
)  # recursion = enumeration

# %% [markdown]
# ## 8. Baselines
#
# For the same reason any number $b$ that does not depend on $a_t$, nor on what follows it, can be subtracted:
#
# $$\mathbb{E}[(R - b)\, Z] = \mathbb{E}[R\, Z] - b\, \mathbb{E}[Z] = \nabla J.$$
#
# The mean is unchanged; the variance is a parabola in $b$, lowest at
# $b^* = \mathbb{E}[R \lVert Z \rVert^2] / \mathbb{E}[\lVert Z \rVert^2]$, which is not the mean return (`constant_baseline`,
# `tests/exact/test_unbiased.py`).

# %%
square = (Z**2).sum((1, 2))
best = float((p @ (R * square)) / (p @ square))
choices = np.linspace(best - 1.5, best + 1.5, 31)
means, covariances = jax.vmap(
    lambda b: pg.exact.tabular.total_return_moments(mdp, theta, GAMMA, b)
)(choices)
equal(means, jnp.tile(exact.ravel(), (31, 1)))
traces = jnp.trace(covariances, axis1=1, axis2=2)
equal(traces, traces.min() + (p @ square) * (choices - best) ** 2)

figure, axes = plt.subplots()
axes.plot(choices, traces, color=BLUE)
axes.axvline(best, color=ORANGE, linestyle="--", label="$b^*$")
axes.axvline(float(p @ R), color=GREEN, linestyle=":", label="J, the mean return")
axes.set(xlabel="baseline b", ylabel="variance of one episode", ylim=(0, None))
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# The condition matters. The mean return of the batch contains the episode's own return, and so depends on its actions. With
# $N$ episodes it scales the gradient by $(N-1)/N$; the mean return of the *other* episodes does not:
#
# $$\mathbb{E}[\hat g_{\text{batch mean}}] = \tfrac{N-1}{N} \nabla J, \qquad \mathbb{E}[\hat g_{\text{leave one out}}] = \nabla J.$$

# %%
equal(exact_moments("batch_mean", num_episodes=2)[0], exact / 2)
equal(exact_moments("leave_one_out", num_episodes=2)[0], exact)

# %% [markdown]
# ## 9. What $\gamma^t$ is for, and what dropping it does
#
# Section 7 has $\gamma^t G_t$: discounting from the start of the episode. Nearly all code has $G_t$ alone. Its mean,
# `pg.exact.tabular.undiscounted_direction`, is not $\nabla J$, and for $\gamma < 1$ it is not the gradient of any function
# (Nota & Thomas 2020). A vector field $d(\theta)$ is a gradient only if its Jacobian $A$ is symmetric;
# `pg.diagnostics.asymmetry` is
#
# $$\frac{\lVert A - A^\top \rVert}{\lVert A + A^\top \rVert}, \qquad A = \frac{\partial d}{\partial \theta},$$
#
# which is 0 for a gradient (`tests/core/test_diagnostics.py::test_only_a_gradient_field_is_symmetric`).

# %%
equal(
    exact_moments("undiscounted_reward_to_go")[0],
    pg.exact.tabular.undiscounted_direction(mdp, theta, GAMMA),
)


def asymmetry(direction, gamma):
    """The asymmetry of a direction's Jacobian with respect to the logits, at θ."""
    return pg.diagnostics.asymmetry(lambda x: direction(mdp, x, gamma), theta)


gammas = jnp.linspace(0.0, 1.0, 41)
kept = jax.jit(jax.vmap(lambda gamma: asymmetry(pg.exact.tabular.exact_gradient, gamma)))(gammas)
dropped = jax.jit(
    jax.vmap(lambda gamma: asymmetry(pg.exact.tabular.undiscounted_direction, gamma))
)(gammas)
equal(kept, 0.0)
equal(dropped[-1], 0.0)  # at γ = 1 there is nothing to drop
assert asymmetry(pg.exact.tabular.undiscounted_direction, GAMMA) > 1e-3

figure, axes = plt.subplots()
looks = pg.reports.plots.looks(("undiscounted_reward_to_go", "reward_to_go"))
for values, look, name in zip(
    (dropped, kept), looks.values(), ("$G_t$: $γ^t$ dropped", "$γ^t G_t$: ∇J"), strict=True
):
    axes.plot(gammas, values, **look, label=name)
axes.set(xlabel="discount γ", ylabel="asymmetry of the Jacobian")
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# Following it can lead to the *worst* policy. In `pg.exact.tabular.pessimal` at $\gamma = 1/2$ the probability $p$ of action
# 1 should go to 0: $J = -\gamma p$. Without $\gamma^t$ it rises to 1
# (`tests/exact/test_tabular.py::test_dropping_the_discount_can_climb_to_the_worst_policy`).

# %%
trap = pg.exact.tabular.pessimal()


def climb(direction):
    """J at γ = 1/2 after every one of 400 steps along a direction, for the one logit that all states share."""

    def step(x, _):
        logits = jnp.tile(jnp.stack([0.0, x]), (3, 1))
        slope = direction(trap, logits, 0.5)[:, 1].sum()
        return x + 0.2 * slope, pg.exact.tabular.exact_return(trap, logits, 0.5)

    return jax.lax.scan(step, 0.0, None, length=400)[1]


up, down = climb(pg.exact.tabular.exact_gradient), climb(pg.exact.tabular.undiscounted_direction)
assert up[-1] > -0.05
assert down[-1] < -0.45
print(f"J after 400 steps: {up[-1]:.3f} along ∇J, {down[-1]:.3f} without γᵗ; best 0, worst -0.5")

# %% [markdown]
# That is a constructed case. In practice, dropping the factor keeps the late steps of long episodes from having almost no
# weight. The library has both: `reward_to_go` and `undiscounted_reward_to_go`.
#
# ## 10. The same on CartPole
#
# Episodes cannot be enumerated here, but nothing else changes: $\hat g$ is the derivative of the surrogate
# $\frac{1}{N} \sum_n R^{(n)} \sum_t \log \pi_\theta(a_t^{(n)} \mid s_t^{(n)})$, with $R$ held constant. We write it in four
# lines and compare the library's `reinforce` with it
# (`tests/core/test_estimators.py::test_the_gradient_is_that_of_the_loss_written_out`).

# %%
jax.config.update("jax_enable_x64", False)
config = pg.Config(
    env="CartPole-v1", estimator="reinforce", num_envs=25, num_updates=UPDATES, preset=None
)  # N and G
env = pg.make_env(config.env, num_envs=config.num_envs)
policy = pg.make_policy(config, env)
params = pg.Params(policy.init(jax.random.key(0)), ())


@jax.jit
def both(key):
    """The gradient of J by hand, and by the library."""
    traj = pg.episodes(env, policy, params.policy, key)
    R = pg.returns.total_return(traj.reward, 1.0)

    def surrogate(theta):
        log_prob = policy.apply(theta, (), traj.obs, traj.first)[1].log_prob(traj.action)
        return (R * jnp.where(traj.valid, log_prob, 0.0).sum(0)).mean()

    reinforce = pg.ESTIMATORS["reinforce"](policy, None, pg.Hyperparams())
    return jax.grad(surrogate)(params.policy), reinforce.grad(
        params, reinforce.weigh(params, (), traj)[0]
    )[0].policy


by_hand, of_loss = both(jax.random.key(1))
assert (
    pg.diagnostics.cosine(by_hand, of_loss) < -0.99999
)  # the library descends a loss: the sign is the other
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b, rtol=1e-3, atol=1e-3), by_hand, of_loss)

# %% [markdown]
# Training is $G$ such steps on $N$ fresh episodes each, $\theta \leftarrow \theta + \alpha\, \hat g$ (with Adam's step
# sizes). It is one `jax.lax.scan`, so several seeds run in one program.

# %%
train = jax.jit(jax.vmap(pg.make_train(config)))
state, metrics = train(jax.random.split(jax.random.key(0), SEEDS))
metrics = jax.tree.map(np.asarray, metrics)
returns = metrics["return"]  # [seeds, G]
first, last = returns[:, :5].mean(), returns[:, -5:].mean()
print(
    f"mean return of an episode: {first:.0f} in the first five updates, {last:.0f} in the last five"
)
assert last > (1.2 if FAST else 5) * first

steps, curves = pg.reports.curves.seed_curves(metrics)  # [seeds, points] each
grid, mean = pg.reports.curves.mean_learning_curve(steps, curves)
figure, axes = plt.subplots()
look = pg.reports.plots.looks([config.estimator])[config.estimator]
axes.plot(steps.T, curves.T, color=look["color"], linewidth=0.5, alpha=0.35)
axes.fill_between(grid, mean.low, mean.high, color=look["color"], alpha=0.2, linewidth=0)
axes.plot(
    grid, mean.value, **look, label=f"{config.estimator}, mean of {SEEDS} seeds, 95 % interval"
)
axes.set(xlabel="environment steps", ylabel="return of an episode", ylim=(0, 500))
figure.legend(loc="outside upper center", ncols=1)
plt.show()

# %% [markdown]
# The seeds differ widely: the estimate is unbiased, but noisy. How noisy is the subject of `02_variance_of_estimators`.
