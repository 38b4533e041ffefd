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
# # Your own estimator
#
# From an idea to a proof to a trained policy: write $\Psi$, determine by enumeration whether the estimator is biased, compare
# its variance, train with it, and add it to the project.

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
import itertools
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import pg

FAST = bool(os.environ.get("PG_FAST"))  # small sizes, for the tests
SEEDS, UPDATES = (2, 10) if FAST else (8, 50)

plt.rcParams.update(pg.reports.plots.STYLE)
jax.config.update("jax_enable_x64", True)  # identities hold to 1e-12

# %% [markdown]
# ## 1. Choose $\Psi$
#
# Every estimator of the library is
#
# $$\hat g = \frac{1}{N} \sum_n \sum_t \Psi_t^{(n)}\, \nabla \log \pi_\theta(a_t^{(n)} \mid s_t^{(n)}),$$
#
# and differs from the others in $\Psi$, the weight of a step. An idea: subtract the *median* return of the batch, which is
# robust to outliers. `pg.build_estimator` makes an estimator from a function `weigh`, which maps a batch of episodes [T, N]
# to $\Psi$ ([T, N], or [1, N] for whole episodes), a target for the critic (`()` for none), and the estimator's own state.


# %%
def median_of_all(policy, critic, h):
    """Ψₜ = R − median of R over the batch."""

    def weigh(params, state, traj):
        R = pg.returns.total_return(traj.reward, h.gamma)  # [N]
        psi = R - jnp.median(R)
        return psi[None, :], (), state

    return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))


# %% [markdown]
# The median over all episodes includes the episode's own return. A second version leaves it out:
#
# $$\Psi_t^{(n)} = R^{(n)} - \operatorname{median}_{m \ne n} R^{(m)}.$$


# %%
def median_of_others(policy, critic, h):
    """Ψₜ = R − median of R over the other episodes."""

    def weigh(params, state, traj):
        R = pg.returns.total_return(traj.reward, h.gamma)
        others = jnp.where(
            jnp.eye(R.size, dtype=bool), jnp.nan, R[None, :]
        )  # [N, N], without the own
        psi = R - jnp.nanmedian(others, axis=1)
        return psi[None, :], (), state

    return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))


# %% [markdown]
# ## 2. Is it unbiased?
#
# There is no need to derive this, or to sample. An estimator is a pure function of a batch, so it can be evaluated on every
# batch and weighted by its probability:
#
# $$\mathbb{E}[\hat g] = \sum_{\tau^{(1)} \dots \tau^{(N)}} p(\tau^{(1)}) \cdots p(\tau^{(N)})\, \hat g(\tau^{(1)}, \dots, \tau^{(N)}).$$
#
# `pg.diagnostics.exact_moments` does this for $N = 1$ and for pairs (as in `tests/exact/test_unbiased.py`). The median of a
# pair is its mean. So the first version has exactly half the gradient as its mean, and the second one the whole gradient.

# %%
GAMMA = 0.9
h = pg.Hyperparams(gamma=GAMMA)
mdp = pg.exact.tabular.garnet(seed=0, num_states=3, num_actions=2, branching=2, horizon=3)
theta = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))
policy, params = pg.exact.tabular.table_policy(theta), pg.Params(theta, ())
gradient = pg.exact.tabular.exact_gradient(mdp, theta, GAMMA).ravel()


def of_pairs(make):
    """Exact mean [P] and covariance [P, P] over every pair of episodes."""
    return pg.diagnostics.exact_moments(make(policy, None, h), params, mdp, theta, num_episodes=2)


np.testing.assert_allclose(of_pairs(median_of_all)[0], gradient / 2, atol=1e-12)
np.testing.assert_allclose(of_pairs(median_of_others)[0], gradient, atol=1e-12)

# %% [markdown]
# From four episodes on a median is not a mean. With one step per episode (a bandit with four arms) there are only $4^N$ batches,
# so any $N$ up to about six can be enumerated too.

# %%
ARMS = jnp.array([0.0, 1.0, 2.0, 10.0])  # the last one is an outlier
bandit = pg.exact.tabular.bandit(ARMS)
logits = jnp.array([[0.3, 0.5, 0.2, -1.0], [0.0] * 4])  # of the one state, and of the end
bandit_policy = pg.exact.tabular.table_policy(logits)
bandit_gradient = pg.exact.tabular.exact_gradient(bandit, logits).ravel()


def of_batches(make, N):
    """Exact mean and covariance over every batch of N episodes of the bandit."""
    estimator, params = make(bandit_policy, None, pg.Hyperparams()), pg.Params(logits, ())
    traj, p = pg.exact.tabular.enumerate_trajectories(bandit, logits)  # [1, 4]: one episode per arm
    batches = jnp.array(list(itertools.product(range(4), repeat=N)))  # [4ᴺ, N]

    def estimate(rows):
        batch = jax.tree.map(lambda x: x[:, rows], traj)
        return -estimator.grad(params, estimator.weigh(params, (), batch)[0])[0].policy.ravel()

    g, weight = jax.jit(jax.vmap(estimate))(batches), p[batches].prod(1)
    mean = weight @ g
    return mean, jnp.einsum("m,mp,mq->pq", weight, g, g) - jnp.outer(mean, mean)


COMPARED = {
    "reinforce": pg.ESTIMATORS["reinforce"],
    "batch_mean": pg.ESTIMATORS["batch_mean"],
    "leave_one_out": pg.ESTIMATORS["leave_one_out"],
    "median_of_all": median_of_all,
    "median_of_others": median_of_others,
}
N = 5
moments = {name: of_batches(make, N) for name, make in COMPARED.items()}
size = jnp.linalg.norm(bandit_gradient)
bias = {
    name: float(jnp.linalg.norm(mean - bandit_gradient) / size)
    for name, (mean, _) in moments.items()
}
variance = {name: float(jnp.trace(covariance)) for name, (_, covariance) in moments.items()}
for name in COMPARED:
    squared_error = (bias[name] * size) ** 2 + variance[name]
    print(
        f"{name:18} bias {bias[name]:.1e} of ‖∇J‖, variance {variance[name]:.3g}, squared error {squared_error:.3g}"
    )

for name in ("reinforce", "leave_one_out", "median_of_others"):
    assert bias[name] < 1e-12
np.testing.assert_allclose(bias["batch_mean"], 1 / N, atol=1e-12)
assert bias["median_of_all"] > 1e-3

# %% [markdown]
# So the median of the others is unbiased, and the median of all is not, for any $N$. What keeps the estimator unbiased is
# that the baseline does not depend on the episode, not which kind of average it is.
#
# ## 3. Is it better?
#
# Bias and variance count together, as the mean squared error of a batch,
# $\lVert \text{bias} \rVert^2 + \operatorname{tr} \operatorname{Cov}$. It depends on the problem, and has to be measured.

# %%
figure, grid = plt.subplots(1, 2, figsize=(6.75, 1.6), sharey=True)
looks = pg.reports.plots.looks(COMPARED)
colours = [looks[name]["color"] for name in COMPARED]
for axes, values, label in (
    (grid[0], bias, "bias, in units of ‖∇J‖"),
    (grid[1], variance, f"variance, {N} episodes"),
):
    axes.barh(range(len(COMPARED)), list(values.values()), color=colours, height=0.55)
    axes.set(xlabel=label)
grid[0].set_yticks(range(len(COMPARED)), COMPARED)
grid[0].invert_yaxis()
plt.show()
assert variance["leave_one_out"] < variance["reinforce"]

# %% [markdown]
# ## 4. With a critic
#
# Pass the critic to `build_estimator`, and return its regression target. $V$ is used before it is fitted to the batch, so it
# does not depend on these episodes, and *any* $V$ leaves the mean unchanged. The proof is one more enumeration, with a very
# inaccurate $V$. For contrast, discounting less than the objective does (dropping a factor $\gamma^t$) adds a bias.


# %%
def advantage(policy, critic, h):
    """Ψₜ = γᵗ (Gₜ − V(sₜ)), V fitted to Gₜ."""

    def weigh(params, state, traj):
        G = pg.returns.reward_to_go(traj.reward, traj.done, h.gamma)
        V = pg.estimators.base.values(critic, params, traj)
        return pg.estimators.base.state_weight(traj, h) * (G - V), G, state

    return pg.build_estimator(policy, critic, h, weigh, accepts=("episodes",))


V = jnp.array([5.0, -7.0, 0.0])
critic = pg.exact.tabular.table_critic(V)
means = {}
for dropped in (0.0, 1.0):
    own = advantage(policy, critic, h._replace(undiscounted_state_weighting=dropped))
    means[dropped], _ = pg.diagnostics.exact_moments(own, pg.Params(theta, V), mdp, theta)
np.testing.assert_allclose(means[0.0], gradient, atol=1e-12)
assert np.abs(means[1.0] - gradient).max() > 1e-3

# %% [markdown]
# ## 5. With another surrogate
#
# The function to differentiate need not be $\Psi \log \pi$. A `surrogate` maps the policy's distributions and the weighted
# batch to values [T, N]. The ratio $\rho = \pi_\theta / \pi_{\text{behaviour}}$ has the gradient of $\log \pi$ where it is 1,
# that is, on the policy's own episodes (`tests/core/test_surrogates.py`). A power of it would scale the gradient:


# %%
def powered(power):
    """An estimator with the surrogate Ψ ρᵖ."""

    def make(policy, critic, h):
        def weigh(params, state, traj):
            R = pg.returns.total_return(traj.reward, h.gamma)
            return R[None, :], (), state

        def surrogate(dist, batch):
            ratio = jnp.exp(dist.log_prob(batch.traj.action) - batch.traj.log_prob)
            return ratio**power * batch.psi

        return pg.build_estimator(policy, None, h, weigh, surrogate, accepts=("episodes",))

    return make


for power in (1, 2):
    mean, _ = pg.diagnostics.exact_moments(powered(power)(policy, None, h), params, mdp, theta)
    np.testing.assert_allclose(mean, power * gradient, atol=1e-12)

# %% [markdown]
# ## 6. Train with it
#
# `pg.make_train` takes the function in place of a name. On CartPole, with the same seeds for all:

# %%
jax.config.update("jax_enable_x64", False)
config = pg.Config(env="CartPole-v1", num_envs=25, num_updates=UPDATES, horizon=200, preset=None)
keys = jax.random.split(jax.random.key(0), SEEDS)
metrics = {}
for name in ("reinforce", "leave_one_out", "median_of_others"):
    train = jax.jit(jax.vmap(pg.make_train(config, estimator=COMPARED[name])))
    metrics[name] = jax.tree.map(np.asarray, train(keys)[1])
    last = metrics[name]["return"][:, -10:].mean()
    print(f"{name:18} mean return of the last ten updates: {last:.0f}")
    assert np.isfinite(metrics[name]["return"]).all()

figure, axes = plt.subplots()
for name in metrics:
    look = looks[name]
    steps, mean = pg.reports.curves.mean_learning_curve(
        *pg.reports.curves.seed_curves(metrics[name])
    )
    axes.fill_between(steps, mean.low, mean.high, color=look["color"], alpha=0.18, linewidth=0)
    axes.plot(steps, mean.value, **look, label=name)
axes.set(xlabel="environment steps", ylabel=f"return, mean of {SEEDS} seeds", ylim=(0, 205))
figure.legend(loc="outside upper center", ncols=3)
plt.show()
if not FAST:
    assert metrics["median_of_others"]["return"][:, -10:].mean() > 150

# %% [markdown]
# Whether one of two curves is better is a question for many seeds: `03_seed_sweep`.
#
# ## 7. Make it part of the project
#
# A function, a row, a proof:
#
# 1. the function, in a module of `pg/estimators/`, with the four lines **Ψₜ =**, **Unbiased for**, **Variance**, **Needs**;
# 2. a row of the table `pg.estimators.facts.FACTS`, from which the command line, the checks, the preset, the benchmark and the
#    tables of the documentation follow;
# 3. a row of `tests/helpers/proofs.py` with its mean: $\nabla J$ if it is unbiased, else the mean it has, derived another way.
#
# From then on the tests check it as they check all others, exactly (`tests/exact/test_unbiased.py`) and through the real
# rollout (`tests/exact/test_sampled.py`), and `python experiments/estimator_table.py --out docs/estimators.md README.md`
# writes its row of the table.
