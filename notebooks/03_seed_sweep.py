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
# # 128 seeds, and what five would have shown
#
# A whole training run is one pure function of a key and of hyperparameters, so many seeds and settings share a program. With
# 128 seeds one can see what conclusions from five are worth, and how much the best of several settings is overestimated.

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

import matplotlib.pyplot as plt
import numpy as np

import pg

FAST = bool(os.environ.get("PG_FAST"))  # small sizes, for the tests
SEEDS, UPDATES, RATES = (20, 12, [0.02, 0.08]) if FAST else (128, 40, [0.01, 0.02, 0.04, 0.08])

plt.rcParams.update(pg.reports.plots.STYLE)
LOOKS = pg.reports.plots.looks(("reinforce", "leave_one_out"))
LEAVE_ONE_OUT, MISSED = LOOKS["leave_one_out"]["color"], "black"

# %% [markdown]
# ## 1. Settings × seeds
#
# A corridor of seven places: the left end, two steps from the start, gives a reward of 0.5, and the right end, four steps
# away, a reward of 1. A step goes the other way with probability 0.1; the episode ends after ten steps. A run that settles
# for the small reward too early never finds the large one, so seeds differ widely. A table is an environment like any other
# (`pg.exact.tabular.TabularMDP`), and its best possible return is known exactly.

# %%
PLACES = np.arange(7)
left, right = np.eye(7)[np.maximum(PLACES - 1, 0)], np.eye(7)[np.minimum(PLACES + 1, 6)]
transition = np.stack([0.9 * left + 0.1 * right, 0.9 * right + 0.1 * left], axis=1)  # [S, A, S]
reward = np.broadcast_to(
    np.where(PLACES == 0, 0.5, np.where(PLACES == 6, 1.0, 0.0)), transition.shape
)
corridor = pg.exact.tabular.TabularMDP(
    transition, reward, np.eye(7)[2], np.isin(PLACES, [0, 6]), horizon=10
)

always_right = np.tile([0.0, 50.0], (7, 1))
BEST = float(pg.exact.tabular.exact_return(corridor, always_right))
print(
    f"always to the right: {BEST:.3f}; at random: {pg.exact.tabular.exact_return(corridor, 0 * always_right):.3f}"
)

# %% [markdown]
# We train two estimators at several step sizes. `pg.sweep.grid` makes the configurations, `pg.sweep.sweep` trains each with
# every seed, as many at once by `vmap` as is useful, in one compiled program per estimator (`tests/runs/test_sweep.py`
# compares its runs with single ones). Seed $s$ has the same key at every point.

# %%
configurations = pg.sweep.grid(learning_rate=RATES)


def config(estimator):
    """Training of an estimator in the corridor."""
    return pg.Config(
        env=corridor,
        estimator=estimator,
        network="mlp",
        hidden_sizes=(16,),
        num_envs=8,
        num_updates=UPDATES,
    )


metrics, returns = {}, {}
for estimator in LOOKS:
    _, metrics[estimator] = pg.sweep.sweep(config(estimator), range(SEEDS), configurations)
    returns[estimator] = metrics[estimator]["return"]  # [configurations, seeds, updates]
    assert returns[estimator].shape == (len(RATES), SEEDS, UPDATES)
    assert np.isfinite(returns[estimator]).all()
print(f"{len(LOOKS)} × {len(RATES)} × {SEEDS} = {len(LOOKS) * len(RATES) * SEEDS} trainings")

# %% [markdown]
# The score of a run is its mean return over the last ten updates, 80 episodes with sampled actions. The figures show it
# against the step size, with 95 % bootstrap intervals over seeds (`pg.reports.statistics.bootstrap_interval`,
# `tests/reports/test_statistics.py`), and the learning curves at the best step size:

# %%
scores = {name: x[..., -10:].mean(-1) for name, x in returns.items()}  # [configurations, seeds]
best = {name: int(x.mean(1).argmax()) for name, x in scores.items()}

figure, grid = plt.subplots(1, 2, sharey=True)
for name, look in LOOKS.items():
    value, low, high = np.array(
        [
            pg.reports.statistics.bootstrap_interval(x, pg.reports.statistics.mean)
            for x in scores[name]
        ]
    ).T
    grid[0].errorbar(RATES, value, yerr=[value - low, high - value], marker="o", capsize=2, **look)
    at_best = {metric: x[best[name]] for metric, x in metrics[name].items()}  # [seeds, updates]
    steps, curve = pg.reports.curves.mean_learning_curve(*pg.reports.curves.seed_curves(at_best))
    grid[1].fill_between(steps, curve.low, curve.high, color=look["color"], alpha=0.2, linewidth=0)
    grid[1].plot(steps, curve.value, label=f"{name}, best at {RATES[best[name]]}", **look)
grid[0].set(xscale="log", xlabel="learning rate", ylabel=f"return, mean of {SEEDS} seeds")
grid[0].set_xticks(RATES, RATES)
grid[0].minorticks_off()
grid[1].set(xlabel="environment steps")
grid[0].axhline(BEST, **pg.reports.plots.LEVEL)
grid[1].axhline(BEST, **pg.reports.plots.LEVEL)
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# ## 2. More than a mean
#
# Runs are not normally distributed: here they end near 1 or near 0.5. Three summaries, after Agarwal et al. 2021, all with
# stratified bootstrap intervals: the interquartile mean (`iqm`, the middle half of the runs), the share of runs above each
# threshold (`performance_profile`), and
#
# $$P(X > Y) + \tfrac{1}{2} P(X = Y),$$
#
# the probability that a run of one method beats a run of the other (`probability_of_improvement`).

# %%
final = {name: scores[name][best[name]] for name in LOOKS}  # [seeds] each, at the best step size
for name, x in final.items():
    for label, statistic in (
        ("mean", pg.reports.statistics.mean),
        ("interquartile mean", pg.reports.statistics.iqm),
    ):
        found = pg.reports.statistics.bootstrap_interval(x, statistic)
        print(f"{name:14} {label:19} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
improvement = pg.reports.statistics.probability_of_improvement(
    final["leave_one_out"], final["reinforce"]
)
print(
    f"leave_one_out beats reinforce with probability {improvement.value:.2f} [{improvement.low:.2f}, {improvement.high:.2f}]"
)

thresholds = np.linspace(0, 1, 101)
figure, axes = plt.subplots()
for name, look in LOOKS.items():
    profile = pg.reports.statistics.performance_profile(final[name], thresholds)
    axes.fill_between(
        thresholds, profile.low, profile.high, color=look["color"], alpha=0.2, linewidth=0
    )
    axes.plot(thresholds, profile.value, label=name, **look)
    assert (np.diff(profile.value) <= 0).all()
axes.set(xlabel="return τ", ylabel="share of runs above τ", ylim=(0, 1.02))
figure.legend(loc="outside upper center", ncols=2)
plt.show()
if not FAST:
    assert final["leave_one_out"].mean() > final["reinforce"].mean()
    assert pg.reports.statistics.iqm(final["reinforce"]) > final["reinforce"].mean()

# %% [markdown]
# The interquartile mean hides exactly the runs that failed. It is meant for many environments, where outliers would dominate
# a mean; on a single one look at the profile, or at the mean.
#
# ## 3. What five seeds would have shown
#
# The 128 seeds are 25 groups of five that could have been someone's experiment. How far apart are their answers to "how much
# better is leave-one-out"? Do they order the two estimators, and the step sizes, correctly? And how often does a 95 %
# interval from five seeds contain the mean of all?

# %%
groups = np.arange(SEEDS // 5 * 5).reshape(-1, 5)  # seeds of each group
difference = final["leave_one_out"] - final["reinforce"]
of_five = difference[groups].mean(1)
truth = final["leave_one_out"].mean()
intervals = [
    pg.reports.statistics.bootstrap_interval(
        final["leave_one_out"][rows], pg.reports.statistics.mean
    )
    for rows in groups
]
covered = np.mean([x.low <= truth <= x.high for x in intervals])
print(f"all seeds: a difference of {difference.mean():.3f}")
print(
    f"five seeds: from {of_five.min():.3f} to {of_five.max():.3f}; the other way round in {100 * (of_five < 0).mean():.0f} %"
)
ranked = scores["leave_one_out"][:, groups].mean(-1).argmax(0)  # the best step size of each group
found = 100 * (ranked == best["leave_one_out"]).mean()
print(f"the step size that is best for all seeds is best in {found:.0f} % of the groups")
print(f"their 95 % intervals contain the mean of all seeds in {100 * covered:.0f} % of the groups")

figure, grid = plt.subplots(1, 2)
grid[0].hist(of_five, bins=12, color=LEAVE_ONE_OUT, alpha=0.7, label="five seeds")
grid[0].axvline(difference.mean(), color="black", label=f"{SEEDS} seeds")
grid[0].axvline(0, **pg.reports.plots.LEVEL)
grid[0].set(xlabel="leave_one_out better by", ylabel="groups of five seeds")
for y, x in enumerate(sorted(intervals)):
    colour = LEAVE_ONE_OUT if x.low <= truth <= x.high else MISSED
    grid[1].plot([x.low, x.high], [y, y], color=colour, linewidth=1)
    grid[1].plot(x.value, y, "o", color=colour, markersize=2.5)
grid[1].axvline(truth, **pg.reports.plots.LEVEL)
grid[1].plot([], [], color=MISSED, label=f"intervals without the mean of {SEEDS} seeds")
grid[1].set(xlabel="mean of leave_one_out, 95 % interval", yticks=[], ylabel="groups of five seeds")
figure.legend(loc="outside upper center", ncols=3)
plt.show()
spread = of_five.std(ddof=1)
expected = difference.std(ddof=1) / np.sqrt(5)
assert 0.5 < spread / expected < 2  # as large as the standard error says
if not FAST:
    assert covered < 0.95  # intervals of five numbers, of which some are far off, are too narrow

# %% [markdown]
# ## 4. The winner's curse
#
# Choose the best of several settings by five seeds, and report the mean of the same five: luck is selected along with
# quality. With $\hat\mu_g$ the mean of setting $g$,
#
# $$\mathbb{E}\big[\max_g \hat\mu_g\big] \ge \max_g \mathbb{E}[\hat\mu_g].$$
#
# For each group of five seeds: the score of the chosen setting on the seeds that chose it, and on all other seeds.

# %%
chosen, elsewhere = [], []
table = np.concatenate(list(scores.values()))  # [all settings of both, seeds]
for rows in groups:
    winner = table[:, rows].mean(1).argmax()
    chosen.append(table[winner, rows].mean())
    elsewhere.append(np.delete(table[winner], rows).mean())
chosen, elsewhere = np.array(chosen), np.array(elsewhere)
flattery = pg.reports.statistics.bootstrap_interval(chosen - elsewhere, pg.reports.statistics.mean)
print(
    f"the best of {len(table)} settings looks better than it is by {flattery.value:.3f} [{flattery.low:.3f}, {flattery.high:.3f}]"
)
assert flattery.value > 0
if not FAST:
    assert flattery.low > 0

# %% [markdown]
# The remedy costs little: train the winner again on fresh seeds, and report that. (`experiments/sweep.py` does so
# automatically.) Here it is done for the choice made by the group of five with the best result, the one most likely to be
# reported:

# %%
lucky = groups[chosen.argmax()]
winner = int(table[:, lucky].mean(1).argmax())
estimator, rate = list(LOOKS)[winner // len(RATES)], RATES[winner % len(RATES)]
_, fresh = pg.sweep.sweep(
    config(estimator), range(SEEDS, 2 * SEEDS), pg.sweep.grid(learning_rate=[rate])
)
again = pg.reports.statistics.bootstrap_interval(
    fresh["return"][0, :, -10:].mean(-1), pg.reports.statistics.mean
)
print(
    f"{estimator}, learning rate {rate}: {table[winner, lucky].mean():.3f} where it was chosen by five seeds,"
)
print(
    f"{again.value:.3f} [{again.low:.3f}, {again.high:.3f}] on {SEEDS} fresh ones: the figure to report"
)
assert abs(again.value - table[winner].mean()) < 3 * (again.high - again.low)

figure, axes = plt.subplots()
axes.plot([0, 1], [chosen, elsewhere], color="0.6", linewidth=0.5)
axes.plot(
    [0, 1], [chosen.mean(), elsewhere.mean()], color="black", marker="o", label="mean of all groups"
)
ends = [[again.value - again.low], [again.high - again.value]]
colour = LOOKS[estimator]["color"]
axes.errorbar(
    [2],
    [again.value],
    yerr=ends,
    fmt="s",
    color=colour,
    capsize=2,
    label=f"{estimator}, 95 % interval",
)
axes.set_xticks(
    range(3), ["five seeds,\nwhere chosen", "the same,\nother seeds", "one of them,\nfresh seeds"]
)
axes.set(ylabel="mean return of the choice", xlim=(-0.4, 2.4))
figure.legend(loc="outside upper center", ncols=2)
plt.show()
