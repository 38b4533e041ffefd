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
# # Gradients of language models
#
# GRPO, RLOO, DAPO, GSPO, a KL penalty in the reward or in the loss: what is the *mean* of each? A sequence is an episode, a
# token an action, a prompt an initial state. So on a small tree of sequences every mean is a finite sum and exact. This
# notebook computes the objective and its gradient, shows which estimators are policy gradients, and what the others do to
# lengths, with a reference policy and with off-policy data. Then it trains.

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
SEEDS, UPDATES, STEPS = (2, 5, 20) if FAST else (10, 100, 2_000)
BETA = 0.3

plt.rcParams.update(pg.reports.plots.STYLE)
jax.config.update("jax_enable_x64", True)  # identities hold to 1e-12
COLOURS = pg.reports.plots.COLOURS

# %% [markdown]
# ## 1. The objective and its gradient
#
# There are two prompts and three tokens, one of which ends a sequence. A sequence has at most three tokens and one reward for
# the whole. The objective is
#
# $$J_\beta(\theta) = \mathbb{E}_\pi[R(y)] - \beta\, \mathrm{KL}(\pi \Vert \pi_\text{ref}), \qquad
# \mathrm{KL}(\pi \Vert \pi_\text{ref}) = \mathbb{E}_\pi\Big[\sum_t \ell_t\Big], \qquad
# \ell_t = \log \pi(a_t \mid s_t) - \log \pi_\text{ref}(a_t \mid s_t).$$
#
# The tree is an MDP whose states are the prefixes (`pg.exact.tabular.prefix_tree`), so that dynamic programming gives the
# gradient. The policy is a table of logits, and so is the reference policy.

# %%
rng = np.random.default_rng(0)
number = len(pg.envs.sequences.all_sequences(num_tokens=3, max_length=3, end_token=2))
env = pg.envs.Sequences(
    num_tokens=3,
    max_length=3,
    end_token=2,
    reward=rng.normal(size=(2, number)),
    prompts=2,
    observation="table",
)
mdp = pg.exact.tabular.prefix_tree(env)
logits = jnp.asarray(rng.normal(size=(mdp.num_states, 3)))
reference = logits + rng.normal(size=logits.shape)

gradient = np.asarray(pg.exact.tabular.exact_gradient(mdp, logits))
with_reference = pg.exact.tabular.with_reference(mdp, reference, BETA)
regularised = np.asarray(pg.exact.tabular.exact_gradient(with_reference, logits, tau=BETA))
print(f"{2 * number} sequences, J = {pg.exact.tabular.exact_return(mdp, logits):.3f}")

# %% [markdown]
# The same gradient from the definition: a sum over all sequences with their probabilities, differentiated.


# %%
def objective(x):
    """J_β, a sum over every sequence."""
    traj, p = pg.exact.tabular.enumerate_trajectories(mdp, x)
    _, q = pg.exact.tabular.enumerate_trajectories(mdp, reference)
    return jnp.sum(p * (traj.reward.sum(0) - BETA * jnp.log(p / q)))


np.testing.assert_allclose(jax.grad(objective)(logits), regularised, atol=1e-12)

# %% [markdown]
# ## 2. Which of these is a policy gradient?
#
# `pg.estimators.sequence_estimator` has the choices as switches, and each published name is a preset of them
# (`pg.estimators.switches.PRESETS`). `pg.diagnostics.exact_moments` sums an estimate over every pair of sequences for the
# same prompt. The table shows the distance of the mean from the gradient, and their cosine.


# %%
def mean_of(switches, acting=logits, size=2, beta=BETA, on=mdp, at=logits, ref=reference):
    """The exact mean [S, V] of an estimate from a group."""
    make = pg.estimators.sequence_estimator(ref, **switches)
    policy = pg.exact.tabular.table_policy(at)
    estimator = make(policy, None, pg.Hyperparams(kl_coef=beta))
    params = pg.Params(at, ())
    moments = pg.diagnostics.exact_moments(estimator, params, on, acting, size, share_start=True)
    return moments[0].reshape(at.shape)


def against(mean, truth):
    """The relative bias and the cosine."""
    bias = np.linalg.norm(mean - truth) / np.linalg.norm(truth)
    return bias, np.sum(mean * truth) / np.linalg.norm(mean) / np.linalg.norm(truth)


unbiased, parallel = set(), set()
for name, preset in pg.estimators.switches.PRESETS.items():
    truth = gradient if preset.kl == "none" else regularised
    bias, cosine = against(mean_of(vars(preset)), truth)
    if bias < 1e-12:
        unbiased.add(name)
    elif cosine > 1 - 1e-12:
        parallel.add(name)
    print(f"{name:20} bias {bias:8.1e}   cosine {cosine:.4f}")

assert unbiased == {"rloo", "remax"}  # the gradient of J_β
assert parallel == {"dr_grpo"}  # a part of the gradient of J

# %% [markdown]
# The mean of RLOO and of ReMax is the gradient: what they subtract, the reward of the other sequence or of the greedy one,
# does not depend on the sequence itself. The mean of Dr. GRPO is $(G - 1) / (G L)$ times the gradient, a shorter step in the
# same direction. All others point elsewhere: they divide by lengths or by standard deviations, or, like OPO, subtract a
# length-weighted mean that includes the sequence itself. `pg sequences` prints this table for larger problems and for
# off-policy data.
#
# ## 3. A KL penalty, in the reward or in the loss
#
# k1 $= \ell$, k2 $= \ell^2 / 2$, k3 $= e^{-\ell} - 1 + \ell$: in the reward, in the loss of each token, or in the loss of the
# sequence. The bias of the penalty's gradient, relative to $-\beta \nabla \mathrm{KL}$:

# %%
PLACES = ("reward", "loss", "sequence")
of_penalty = regularised - gradient
penalty = np.array(
    [
        [
            against(
                mean_of({"baseline": "none", "kl": kl, "kl_place": place}, size=1) - gradient,
                of_penalty,
            )[0]
            for kl in ("k1", "k2", "k3")
        ]
        for place in PLACES
    ]
)
print("           k1      k2      k3")
for place, row in zip(PLACES, penalty, strict=True):
    print(f"{place:9}" + "".join(f"{x:8.2f}" for x in row))

np.testing.assert_allclose([penalty[0, 0], penalty[2, 1]], 0.0, atol=1e-10)  # ∇KL
np.testing.assert_allclose(penalty[1:, 0], 1.0, atol=1e-10)  # nothing at all
assert penalty[1, 2] > 0.01

# %% [markdown]
# A bias of 1 means that there is no penalty on average. This is so for k1 in the loss, which is a sum over tokens here. k3 in
# the loss is a penalty, but a different one, so ascent along its mean converges to another policy. We follow three exact
# means from the reference policy, each in one scan.


# %%
def path_along(switches):
    """J_β along the exact mean of an estimate."""
    make = pg.estimators.sequence_estimator(reference, baseline="none", **switches)
    policy = pg.exact.tabular.table_policy(reference)
    estimator = make(policy, None, pg.Hyperparams(kl_coef=BETA))
    traj, _ = pg.exact.tabular.enumerate_trajectories(mdp, reference)

    def mean(x):
        params = pg.Params(x, ())
        acting, p = pg.exact.tabular.enumerate_trajectories(mdp, x)

        def estimate(row):
            batch = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1, 1), acting)
            weighted, _ = estimator.weigh(params, reference, batch)
            return -estimator.grad(params, weighted)[0].policy

        return jnp.einsum("m,msv->sv", p, jax.vmap(estimate)(jnp.arange(traj.reward.shape[1])))

    def step(x, _):
        return x + 2.0 * mean(x), objective(x)

    return np.asarray(jax.jit(lambda x: jax.lax.scan(step, x, None, STEPS)[1])(reference))


figure, axes = plt.subplots()
ends = {}
for (label, switches), colour in zip(
    {
        "k1 in the reward": {"kl": "k1", "kl_place": "reward"},
        "k3 in the loss": {"kl": "k3", "kl_place": "loss"},
        "k1 in the loss": {"kl": "k1", "kl_place": "loss"},
    }.items(),
    COLOURS,
    strict=False,
):
    values = path_along(switches)
    ends[label] = values[-1]
    axes.plot(np.arange(1, STEPS + 1), values, color=colour, label=label)
axes.set(xlabel="update along the exact mean", ylabel="$J_\\beta$", xscale="log")
figure.legend(loc="outside upper center", ncols=3)
plt.show()
for label, value in ends.items():
    print(f"{label:17} J_β at the end {value:.3f}")
if not FAST:
    assert ends["k1 in the reward"] > ends["k3 in the loss"] > ends["k1 in the loss"]

# %% [markdown]
# ## 4. Lengths
#
# Here the first token is right or wrong, and the policy chooses how many tokens follow: the reward does not depend on the
# length. So the gradient does not change the length. GRPO divides each sequence by its own length, so that a short right
# answer gains more than a long one, and a long wrong one loses less than a short one.

# %%
answers = pg.envs.Sequences(
    num_tokens=3,
    max_length=4,
    end_token=2,
    reward=lambda prompt, tokens, length: tokens[0] == 0,
    observation="table",
)
tree = pg.exact.tabular.prefix_tree(answers)
start = jnp.zeros((tree.num_states, 3)).at[0, 2].set(-30.0)  # there is always an answer


def length_after(x, first):
    """The mean length of sequences that begin with a token."""
    traj, p = pg.exact.tabular.enumerate_trajectories(tree, x)
    chosen = p * (traj.action[0] == first)
    return chosen @ traj.valid.sum(0) / chosen.sum()


COMPARED = {
    "GRPO": vars(pg.estimators.switches.PRESETS["grpo"]),
    "DAPO": vars(pg.estimators.switches.PRESETS["dapo"]),
    "Dr. GRPO": vars(pg.estimators.switches.PRESETS["dr_grpo"]),
}
slopes = [jax.grad(length_after)(start, first) for first in (0, 1)]
gain = np.asarray(pg.exact.tabular.exact_gradient(tree, start))
effects = {}
for name, switches in COMPARED.items():
    mean = mean_of(switches, acting=start, on=tree, at=start, ref=None)
    effects[name] = [np.sum(slope * mean) / np.sum(gain * mean) for slope in slopes]

figure, axes = plt.subplots(figsize=(6.75, 2.0))
places = np.arange(len(COMPARED))
for k, (label, colour) in enumerate(zip(("right answers", "wrong answers"), COLOURS, strict=False)):
    axes.barh(
        places + 0.3 * k - 0.15, [x[k] for x in effects.values()], 0.28, color=colour, label=label
    )
axes.axvline(0, color="black", linewidth=0.8)
axes.set_yticks(places, list(COMPARED))
axes.invert_yaxis()
axes.set(xlabel="change of the mean length, tokens per unit of reward gained")
figure.legend(loc="outside upper center", ncols=2)
plt.show()
assert effects["GRPO"][0] < 0 < effects["GRPO"][1]
np.testing.assert_allclose(effects["Dr. GRPO"], 0.0, atol=1e-10)

# %% [markdown]
# ## 5. Off-policy data
#
# Sequences may come from an older policy, or from an inference engine that rounds differently: $\mu \ne \pi$. The ratio of
# the whole sequence, $\prod_t \rho_t$, has the mean $\nabla J$, and so has the ratio of the decisions before each reward,
# $\prod_{i \le k} \rho_i$, which is the same where rewards come with the last token, as here. With the ratio of the token and
# with GSPO's $(\prod_t \rho_t)^{1/|y|}$ the bias grows with the difference of the policies.

# %%
noise = rng.normal(size=logits.shape)
distances = np.array([0.0, 0.25, 0.5, 1.0])
RATIOS = {"none": "no ratio", "token": "token", "sequence_mean": "GSPO's", "sequence": "sequence"}
figure, axes = plt.subplots()
for (ratio, label), colour in zip(RATIOS.items(), COLOURS, strict=False):
    chosen = {"baseline": "none", "ratio": ratio}
    biases = [
        against(mean_of(chosen, acting=logits + d * noise, size=1), gradient)[0] for d in distances
    ]
    axes.plot(distances, biases, "o-", color=colour, label=label)
    assert (max(biases) < 1e-10) == (ratio == "sequence")
decisions = {"baseline": "none", "ratio": "per_decision", "credit": "to_go"}
assert against(mean_of(decisions, acting=logits + noise, size=1), gradient)[0] < 1e-10
axes.set(xlabel="distance of the logits, standard deviation", ylabel="bias / ‖∇J‖")
figure.legend(loc="outside upper center", ncols=4)
plt.show()

# %% [markdown]
# ## 6. Training
#
# The policy writes a prompt's symbols in reverse; the reward is the share of correct ones (`pg.envs.sequence_tasks.reverse`).
# Groups of four, and the same seeds for both. The learning rate is the same too: a step of Adam is about equally long
# whatever the scale of the estimate.

# %%
jax.config.update("jax_enable_x64", False)
task = pg.envs.sequence_tasks.reverse(num_symbols=2, num_places=3)
keys = jax.random.split(jax.random.key(0), SEEDS)
figure, axes = plt.subplots()
last = {}
for (label, preset), colour in zip(
    {"RLOO, without KL": {}, "GRPO": COMPARED["GRPO"]}.items(), COLOURS, strict=False
):
    config = pg.Config(
        env=task,
        estimator=pg.estimators.sequence_estimator(**preset),
        num_envs=32,
        group_size=4,
        num_updates=UPDATES,
        hidden_sizes=(32,),
        preset=None,
    )
    train = pg.make_train(config)
    h = config.hyperparams(learning_rate=0.02)
    metrics = jax.jit(jax.vmap(lambda key, train=train, h=h: train(key, h)[1]))(keys)
    rewards = np.asarray(metrics["return"])  # [seeds, updates]
    last[label] = rewards[:, -10:].mean()
    intervals = [
        pg.reports.statistics.bootstrap_interval(x, pg.reports.statistics.mean) for x in rewards.T
    ]
    value, low, high = np.array(intervals).T
    axes.fill_between(np.arange(UPDATES), low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(np.arange(UPDATES), value, color=colour, label=label)
axes.set(xlabel="update", ylabel=f"reward, mean of {SEEDS} seeds", ylim=(0, 1.02))
figure.legend(loc="outside upper center", ncols=2)
plt.show()
if not FAST:
    assert last["RLOO, without KL"] > 0.6

# %% [markdown]
# A biased direction may still train well, and on this task both do. But it does not ascend $J$: see the lengths above.
#
# ## 7. Which one to choose
#
# | you want | choose | because its mean is |
# | --- | --- | --- |
# | the gradient, from groups of one prompt | leave-one-out, a sum over tokens | $\nabla J$ |
# | GRPO's baseline | Dr. GRPO | $(G - 1) / (G L)\, \nabla J$ |
# | lengths that follow from rewards alone | a sum over tokens, or over the maximum length | a part of $\nabla J$ |
# | a reference policy | k1 in the reward, or k2 of the whole sequence in the loss | $\nabla J_\beta$ |
# | older data | the ratio of the sequence, truncated where sequences are long | $\nabla J$, or near it |
#
# On the command line a choice is a name with switches, `pg train --estimator dapo:kl=k2+kl_place=loss`, and the same name
# works in `pg.Config(estimator=...)`; the how-to "Sequences" has the details.
#
# The whole table, with its proofs, is on the page "Which of these is a policy gradient?" of the documentation. The scripts of
# `experiments/reproductions` compare published claims with exact means.
