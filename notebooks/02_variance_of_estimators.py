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
# # How noisy is a policy gradient?
#
# Unbiased estimators of the same gradient differ in variance, which determines how many episodes a step needs. Here the
# variance is computed exactly on small problems, estimated with confidence intervals from sampled episodes, and then used on
# CartPole: signal-to-noise ratio, noise scale, cosine to the true gradient, and where the variance comes from.

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
import optax

import pg

FAST = bool(os.environ.get("PG_FAST"))  # small sizes, for the tests
TABULAR_EPISODES, CARTPOLE_EPISODES, CARTPOLE_STEPS = (
    (2048, 128, 50) if FAST else (16384, 1024, 200)
)
SEEDS, UPDATES, FITTING_STEPS, NUM_STATES = (2, 10, 30, 16) if FAST else (16, 48, 300, 256)

plt.rcParams.update(pg.reports.plots.STYLE)
BLUE, ORANGE, GREEN = pg.reports.plots.COLOURS[:3]
STATE_VALUE = pg.reports.plots.looks(["state_value"])["state_value"]["color"]
GAMMA = 0.9


def dots(axes, measured):
    """Estimates of the variance, a row per estimator in its colour, with 95 % intervals."""
    looks = pg.reports.plots.looks(measured)
    for row, (name, estimate) in enumerate(measured.items()):
        half = estimate.high - estimate.value
        axes.errorbar(
            estimate.value, row, xerr=half, fmt="o", capsize=2, color=looks[name]["color"]
        )
    axes.set_yticks(range(len(measured)), measured)
    axes.set_ylim(len(measured) - 0.5, -0.5)


# %% [markdown]
# ## 1. Exact variance
#
# The variance of an estimate from one episode is $\operatorname{tr} \operatorname{Cov}[\hat g]$; of a mean of $N$ episodes it
# is $1/N$ of that. On a tabular problem a recursion backwards in time gives it, without enumeration and at any horizon:
# `pg.exact.tabular.total_return_moments` and `pg.exact.tabular.reward_to_go_moments` (`tests/exact/test_tabular.py` compares
# both with enumeration). With $z_t = \nabla \log \pi(a_t \mid s_t)$ we compare
#
# $$R \sum_t z_t, \qquad \sum_t z_t\, \gamma^t G_t, \qquad \sum_t z_t\, \gamma^t \big(G_t - V_t(s_t)\big)$$
#
# on one random problem with episodes of increasing length. All three have the same mean, $\nabla J$.

# %%
small = pg.exact.tabular.garnet(seed=3, num_states=4, num_actions=2, branching=3, horizon=3, ends=0)
theta = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
horizons = [1, 2, 4, 8, 16, 32]


def exact(mdp):
    """∇J, and the moments of the three estimators."""
    v = pg.exact.tabular.values(mdp, theta, GAMMA)[1]  # [H, S]
    moments = {
        "total return": pg.exact.tabular.total_return_moments(mdp, theta, GAMMA),
        "reward to go": pg.exact.tabular.reward_to_go_moments(mdp, theta, GAMMA),
        "reward to go − V": pg.exact.tabular.reward_to_go_moments(mdp, theta, GAMMA, v),
    }
    return pg.exact.tabular.exact_gradient(mdp, theta, GAMMA).ravel(), moments


traces = {name: [] for name in ("total return", "reward to go", "reward to go − V")}
for horizon in horizons:
    longer = pg.exact.tabular.TabularMDP(
        small.transition, small.reward, small.initial, small.terminal, horizon
    )
    gradient, moments = jax.jit(exact, static_argnums=0)(longer)
    for name, (mean, covariance) in moments.items():
        np.testing.assert_allclose(mean, gradient, atol=1e-4 * float(jnp.abs(gradient).max()))
        traces[name].append(float(jnp.trace(covariance)))

figure, axes = plt.subplots()
looks = pg.reports.plots.looks(
    ("reinforce", "reward_to_go", "state_value"), markers=True
)  # as the library calls the three
for (name, trace), look in zip(traces.items(), looks.values(), strict=True):
    axes.loglog(horizons, trace, **look, label=name)
axes.set(xlabel="steps of an episode", ylabel="exact variance of an episode")
axes.set_xticks(horizons, horizons)
axes.minorticks_off()
figure.legend(loc="outside upper center", ncols=3)
plt.show()
assert (
    traces["total return"][-1] > 2 * traces["reward to go"][-1] > 2 * traces["reward to go − V"][-1]
)

# %% [markdown]
# That order is usual, but not universal: where rewards cancel, reward to go has the *larger* variance (notebook 01, section
# 7).
#
# ## 2. From samples, with confidence intervals
#
# On other problems the variance is estimated by
# $\operatorname{tr} \hat \Sigma = \frac{1}{n-1} \sum_i \lVert g_i - \bar g \rVert^2$ from $n$ estimates.
# `pg.diagnostics.per_episode` takes each episode of a batch as an estimate, and `per_batch` each whole batch, which is also
# right for estimators that couple episodes. Neither stores the gradients. Each number is an estimate with its 95 % interval,
# by the jackknife (`tests/core/test_diagnostics.py`). Compared with the exact values:

# %%
env = pg.make_env(small, num_envs=TABULAR_EPISODES)
policy = pg.exact.tabular.table_policy(theta)
params = pg.Params(theta, ())
h = pg.Hyperparams(gamma=GAMMA)


@jax.jit
def sampled(key):
    """Samples of two estimators by episodes, and of leave_one_out by pairs, which it couples."""
    traj = pg.episodes(env, policy, theta, key)
    by_episode = {
        name: pg.diagnostics.per_episode(pg.ESTIMATORS[name](policy, None, h), params, (), traj)
        for name in ("reinforce", "reward_to_go")
    }
    leave_one_out = pg.ESTIMATORS["leave_one_out"](policy, None, h)
    return by_episode | {
        "leave_one_out": pg.diagnostics.per_batch(leave_one_out, params, (), traj, 2)
    }


seen = sampled(jax.random.key(0))
names = ("reinforce", "reward_to_go", "leave_one_out")
measured = {name: pg.diagnostics.variance(seen[name]) for name in names}
pairs = pg.diagnostics.exact_moments(
    pg.ESTIMATORS["leave_one_out"](policy, None, h), params, small, theta, 2
)[1]
truth = [
    *(exact(small)[1][name][1].trace() for name in ("total return", "reward to go")),
    pairs.trace(),
]

figure, axes = plt.subplots(figsize=(6.75, 1.4))
axes.plot([], [], "o", color="0.4", label="measured, 95 % interval")
axes.plot(truth, range(3), "|", color="0.4", markersize=14, label="exact")
dots(axes, measured)
axes.set(
    xlabel="variance of an estimate, of one episode; of leave_one_out: of a pair", xlim=(0, None)
)
figure.legend(loc="outside upper center", ncols=2)
plt.show()
for (name, m), expected in zip(measured.items(), truth, strict=True):
    print(f"{name:22} {m}, exactly {expected:.4g}")
    assert abs(m.value - expected) < 4 * m.standard_error

# %% [markdown]
# ## 3. CartPole, at a random and at a half-trained policy
#
# Training with `Config(diagnostics=True)` measures variance and signal at every update. We train with the estimator
# `state_value`, $\Psi_t = \gamma^t (G_t - V(s_t))$, at $\gamma = 0.98$, on episodes cut off after 200 steps, and keep the
# policy of every update. We look at two of them: the first, and one with episodes of about half the maximum length.

# %%
config = pg.Config(
    env="CartPole-v1",
    estimator="state_value",
    horizon=CARTPOLE_STEPS,
    num_envs=32,
    num_updates=UPDATES,
    hidden_sizes=(32, 32),
    diagnostics=True,
    preset=None,
)
h = pg.Hyperparams(gamma=0.98, learning_rate=0.005, critic_rate=6.0)
learner = pg.make_learner(config, h)


@jax.jit
@jax.vmap
def train(key):
    """Metrics [G], and the parameters before every update, leaves [G, ...]."""

    def step(state, key):
        after, metrics = learner.step(state, key)
        return after, (metrics, state.params)

    init_key, keys = pg.train.training_keys(key, 0, UPDATES)
    return jax.lax.scan(step, learner.init(init_key), keys)[1]


metrics, kept = train(jax.random.split(jax.random.key(0), SEEDS))
metrics = {name: np.asarray(x, float) for name, x in metrics.items()}  # [seeds, G]
halfway = int((metrics["return"][0] > CARTPOLE_STEPS / 2).argmax())
stages = {"random": 0, "half-trained": halfway}
print(
    f"mean return: {metrics['return'][:, 0].mean():.0f} at first, {metrics['return'][:, -1].mean():.0f} at last"
)
print(f"half-trained: the first seed after {halfway} updates, {metrics['return'][0, halfway]:.0f}")

# %% [markdown]
# $V$ should fit the policy in question, so we fit it to episodes of each of the two, by least squares. The estimators are
# compared on other episodes: otherwise $\Psi$ would be biased.

# %%
env = pg.make_env(config.env, num_envs=CARTPOLE_EPISODES)
policy, critic = pg.make_policy(config, env), pg.make_critic(config, env)


@jax.jit
def collected(params, key):
    """Episodes of a policy."""
    return pg.episodes(env, policy, params.policy, key, CARTPOLE_STEPS)


@jax.jit
def fitted(params, key):
    """The parameters with V fitted to the policy, and how much of the returns V explains in fresh episodes."""
    few = pg.make_env(config.env, num_envs=128)
    optimizer = optax.adam(0.03)

    def targets(key):
        traj = pg.episodes(few, policy, params.policy, key, CARTPOLE_STEPS)
        return traj, pg.returns.reward_to_go(traj.reward, traj.done, h.gamma)

    def value(own, traj):
        return critic.apply(own, (), traj.obs, traj.first)[1]

    def step(loop, _):
        own, opt_state = loop
        slope = jax.grad(
            lambda own: (
                jnp.sum(jnp.where(traj.valid, value(own, traj) - G, 0.0) ** 2) / traj.valid.sum()
            )
        )
        updates, opt_state = optimizer.update(slope(own), opt_state)
        return (optax.apply_updates(own, updates), opt_state), None

    (traj, G), (fresh, to_go) = (targets(k) for k in jax.random.split(key))
    (own, _), _ = jax.lax.scan(
        step, (params.critic, optimizer.init(params.critic)), length=FITTING_STEPS
    )
    return params._replace(critic=own), pg.diagnostics.explained_variance(
        value(own, fresh), to_go, fresh.valid
    )


policies = {}
for stage, update in stages.items():
    params = jax.tree.map(lambda x, update=update: x[0, update], kept)
    policies[stage], explained = fitted(params, jax.random.key(1))
    print(
        f"{stage} policy: V explains {100 * explained:.0f} % of the variance of the returns to go"
    )

# %% [markdown]
# For one episode's estimate $g$ with covariance $\Sigma$,
#
# $$\text{SNR} = \frac{\lVert \mathbb{E} g \rVert^2}{\operatorname{tr} \Sigma}, \qquad
# B = \frac{\operatorname{tr} \Sigma}{\lVert \mathbb{E} g \rVert^2} = \frac{1}{\text{SNR}}.$$
#
# $B$ is the *noise scale* (McCandlish et al. 2018): the number of episodes at which noise and signal are equal in size. The
# signal is estimated without bias, as $\lVert \bar g \rVert^2 - \operatorname{tr} \hat\Sigma / n$; with plain
# $\lVert \bar g \rVert^2$ noise would count as signal.

# %%
NAMES = ("reinforce", "reward_to_go", "leave_one_out", "time_baseline", "state_value")


@jax.jit
def samples(params, traj):
    """A sample of every estimator, all from the same episodes."""
    return {
        name: pg.diagnostics.per_episode(pg.ESTIMATORS[name](policy, critic, h), params, (), traj)
        for name in NAMES
    }


episodes = {stage: collected(params, jax.random.key(2)) for stage, params in policies.items()}
found = {}
for stage, params in policies.items():
    of_stage = samples(params, episodes[stage])
    found[stage] = {name: of_stage[name] for name in NAMES}

print(f"{'':29}{'variance':>28}{'SNR':>28}{'noise scale B':>28}")
for stage, of_stage in found.items():
    for name, sample in of_stage.items():
        figures = (
            f(sample)
            for f in (
                pg.diagnostics.variance,
                pg.diagnostics.signal_to_noise,
                pg.diagnostics.noise_scale,
            )
        )
        print(f"{stage:13} {name:15}" + "".join(f"{x!s:>28}" for x in figures))

figure, grid = plt.subplots(1, 2, figsize=(6.75, 1.6), sharey=True)
for axes, (stage, of_stage) in zip(grid, found.items(), strict=True):
    dots(axes, {name: pg.diagnostics.variance(sample) for name, sample in of_stage.items()})
    axes.set(title=f"{stage} policy", xscale="log", xlabel="variance of an episode, 95 % interval")
plt.show()

for of_stage in found.values():
    variances = {name: pg.diagnostics.variance(s).value for name, s in of_stage.items()}
    assert variances["reward_to_go"] < variances["reinforce"]
    assert variances["state_value"] < variances["reward_to_go"]

# %% [markdown]
# ## 4. How many episodes give a good direction?
#
# If noise has no preferred direction, a mean of $N$ estimates has a cosine to $\nabla J$ of about
#
# $$\cos \approx \frac{1}{\sqrt{1 + B/N}},$$
#
# `pg.diagnostics.expected_cosine` (`tests/core/test_diagnostics.py::test_the_expected_cosine_of_many_parameters`). Does this
# hold here? The cosine between two *independent* means of $N$ is about the square of that, and needs no reference gradient:
# `pg.diagnostics.pairwise_cosines`. A cosine to a mean that contains the estimate itself would be too large.


# %%
@jax.jit
def single_gradients(params, traj):
    """The gradient of every episode by state_value, [n, P]."""
    estimator = pg.ESTIMATORS["state_value"](policy, critic, h)
    batch = estimator.weigh(params, (), traj)[0]
    trees = pg.diagnostics.gradients(*pg.diagnostics.of_episodes(estimator, params, batch))
    return jnp.concatenate(
        [x.reshape(CARTPOLE_EPISODES, -1) for x in jax.tree.leaves(trees)], axis=1
    )


sizes = 2 ** np.arange(0, 5 if FAST else 8)
figure, axes = plt.subplots()
for (stage, sample), line, marker in zip(found.items(), ("--", "-"), "os", strict=True):
    g = np.asarray(single_gradients(policies[stage], episodes[stage]), float)
    seen = [pg.diagnostics.pairwise_cosines(g.reshape(-1, n, g.shape[1]).mean(1)) for n in sizes]
    # the square roots of the cosines between two means and of the ends of their intervals
    cosine, low, high = np.sqrt(np.maximum(np.array(seen).T, 0.0))
    scale = pg.diagnostics.noise_scale(sample["state_value"])
    rule = pg.diagnostics.expected_cosine(scale.value, sizes)
    axes.plot(sizes, rule, color=STATE_VALUE, linestyle=line, label=f"{stage}: rule, B = {scale}")
    axes.errorbar(
        sizes,
        cosine,
        yerr=[cosine - low, high - cosine],
        fmt=marker,
        color=STATE_VALUE,
        label=f"{stage}: measured",
    )
    if not FAST:
        assert np.abs(cosine[2:] - rule[2:]).max() < 0.2, (cosine, rule)
axes.set(xscale="log", xlabel="episodes N of an estimate", ylabel="cosine to ∇J", ylim=(0, 1.02))
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# The rule is conservative here: a few gradients of large norm make up much of the variance, and a cosine ignores the norm.
#
# ## 5. Where does the variance come from?
#
# The variance of one step's term $z\,(G - b(s))$ has three parts (Tucker et al. 2018):
#
# $$\operatorname{tr} \operatorname{Var} =
# \underbrace{\mathbb{E} \lVert z \rVert^2 \operatorname{Var}(G \mid s, a)}_{\Sigma_\tau:\ \text{what follows}} +
# \underbrace{\mathbb{E} \operatorname{tr} \operatorname{Var}(z\,(Q - b) \mid s)}_{\Sigma_a:\ \text{the action}} +
# \underbrace{\operatorname{tr} \operatorname{Var}(\mathbb{E}[z Q \mid s])}_{\Sigma_s:\ \text{the state}}.$$
#
# A baseline $b(s)$ can only lower $\Sigma_a$. `pg.diagnostics.decompose` measures the three by continuing from visited states
# several times with several actions
# (`tests/core/test_diagnostics.py::test_the_decomposition_of_variance_is_exact_on_tables`).


# %%
def value(params):
    """V of the environments' current states, as a baseline for `decompose`."""
    return lambda states: critic.apply(params.critic, (), states.obs, states.time == 0)[1]


params = policies["half-trained"]
parts = {
    name: pg.diagnostics.decompose(
        pg.make_env(config.env, num_envs=32),
        policy,
        params.policy,
        jax.random.key(3),
        num_states=NUM_STATES,
        num_actions=4,
        num_returns=4,
        gamma=h.gamma,
        horizon=CARTPOLE_STEPS,
        baseline=baseline,
    )
    for name, baseline in (("b = 0", None), ("b = V", value(params)))
}

figure, axes = plt.subplots(figsize=(6.75, 1.4))
left = np.zeros(2)
for label, field, colour in (
    ("Σ$_τ$", "trajectory", BLUE),
    ("Σ$_a$", "action", ORANGE),
    ("Σ$_s$", "state", GREEN),
):
    width = np.array([max(getattr(part, field).value, 0.0) for part in parts.values()])
    axes.barh(range(2), width, left=left, color=colour, label=label, height=0.6)
    left += width
axes.set_yticks(range(2), parts)
axes.set(xlabel="variance of a step's term, half-trained policy", ylim=(1.5, -0.5))
figure.legend(loc="outside upper center", ncols=3)
plt.show()
for name, part in parts.items():
    print(
        f"{name:8} trajectory {part.trajectory!s:>24}   action {part.action!s:>24}   state {part.state!s:>24}"
    )
without, with_v = parts.values()
np.testing.assert_allclose(
    with_v.trajectory.value, without.trajectory.value, rtol=1e-2
)  # the same futures
assert with_v.action.value < (1.0 if FAST else 0.5) * without.action.value

# %% [markdown]
# With $V$ little of $\Sigma_a$ is left. What remains is the randomness of what follows, which no function of state and action
# can remove.
#
# ## 6. During training
#
# The metrics of section 3 hold `grad_variance` and `grad_squared_norm` of every update. The second is unbiased, and so
# sometimes negative. A noise scale is a *ratio of averages*, over seeds and neighbouring updates, never an average of ratios:
# some denominators are near zero. Where even the average signal is less than two standard errors (over seeds) above zero, all
# we know about $B$ is that it is large.

# %%
noise, signal = metrics["grad_variance"], metrics["grad_squared_norm"]  # [seeds, G]
window = max(1, UPDATES // 12)
blocks = UPDATES // window


def in_blocks(x):
    """Means over seeds and over `window` updates in a row, [blocks]."""
    return x[:, : blocks * window].reshape(SEEDS, blocks, window).mean((0, 2))


of_seeds = signal[:, : blocks * window].reshape(SEEDS, blocks, window).mean(2)
clear = of_seeds.mean(0) > 2 * of_seeds.std(0, ddof=1) / np.sqrt(SEEDS)
scale = np.where(clear, in_blocks(noise) / in_blocks(signal), np.nan)
wrong = in_blocks(noise / signal)
middle = (np.arange(blocks) + 0.5) * window
figure, grid = plt.subplots(1, 2)
grid[0].plot(middle, in_blocks(metrics["return"]), color=STATE_VALUE)
grid[0].set(xlabel="update", ylabel="return of an episode")
grid[1].plot(middle, scale, color=STATE_VALUE, marker="o", label="ratio of averages, if clear of 0")
grid[1].plot(middle, wrong, color="0.4", marker="s", linestyle="--", label="average of ratios")
grid[1].axhline(config.num_envs, **pg.reports.plots.LEVEL)
grid[1].text(
    1.0,
    config.num_envs,
    " episodes\n of a batch",
    transform=grid[1].get_yaxis_transform(),
    va="center",
)
grid[1].set(xlabel="update", ylabel="noise scale B, in episodes")
grid[1].set_yscale("symlog", linthresh=10)
figure.legend(loc="outside upper right", ncols=2)
plt.show()
print(f"the measured signal is negative in {100 * (signal < 0).mean():.0f} % of the updates")
if not FAST:
    assert (signal < 0).any()
    assert np.nanmax(scale) > 5 * scale[0], scale

# %% [markdown]
# Early on, a batch holds more episodes than the noise scale, and more would be wasted. Later, noise dominates, and a step is
# worth taking only because the following steps average the noise out. Near the best policy there is no signal left to find.
