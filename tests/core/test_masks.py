"""Action masks: illegal actions have probability 0 in the rollout and in the loss."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState
from mistakes import assert_one_sentence

import pg
from pg.config import Config
from pg.distributions import Categorical, inverse_cdf_of_legal
from pg.envs import Env, make_env, spaces
from pg.estimators import ESTIMATORS
from pg.evaluation import evaluate
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import make_policy, masked
from pg.rollout import Trajectory, episodes, greedy, start, windows
from pg.runs import execution, folders, parameters

KEY = jax.random.key(0)
GAMMA = 0.9


class Gated(Clock):
    """Action 1, which moves on, is legal at even times; a mask of its parameter's choice."""

    def action_mask(self, state: ClockState, params: Any) -> jax.Array:
        return jnp.stack([jnp.bool_(True), state.time % 2 == 0])


@functools.cache
def gated() -> Env:
    return make_env(Gated(), 2)


class Closing(Clock):
    """No action is legal from the third step on."""

    def action_mask(self, state: ClockState, params: Any) -> jax.Array:
        return jnp.repeat(state.time < 2, 2)


def masks(g: np.random.Generator, num_states: int, num_actions: int, legal: int) -> np.ndarray:
    """`legal` of the actions in each state, at random."""
    return np.stack([g.permutation(num_actions) < legal for _ in range(num_states)])


def masked_mdp(num_actions: int, legal: int, horizon: int = 2) -> TabularMDP:
    mdp = tabular.garnet(3, num_states=3, num_actions=num_actions, branching=2, horizon=horizon)
    mask = masks(np.random.default_rng(1), 3, num_actions, legal)
    return TabularMDP(mdp.transition, mdp.reward, mdp.initial, mdp.terminal, horizon, mask=mask)


def masked_bandit(num_arms: int = 20, legal: int = 2) -> tuple[TabularMDP, np.ndarray]:
    """Contexts in which few arms can be pulled, and the reward of the best in each."""
    g, S = np.random.default_rng(0), 8
    mask, reward = masks(g, S + 1, num_arms, legal), g.normal(size=(S + 1, num_arms))
    transition = np.zeros((S + 1, num_arms, S + 1))
    transition[..., S] = 1.0
    initial = np.append(np.full(S, 1 / S), 0.0)
    mdp = TabularMDP(transition, reward, initial, np.arange(S + 1) == S, horizon=1, mask=mask)
    return mdp, np.where(mask, reward, -np.inf).max(-1)[:S]


@pytest.mark.parametrize("legal", [1, 3])
def test_a_masked_distribution_is_that_of_the_legal_actions_alone(legal: int) -> None:
    g = np.random.default_rng(0)
    logits, others = jnp.asarray(g.normal(size=(2, 50, 30)))
    mask = masks(g, 50, 30, legal)
    dist, other = Categorical(logits).masked(mask), Categorical(others).masked(mask)
    alone, other_alone = (Categorical(x[mask].reshape(50, legal)) for x in (logits, others))
    p = jax.nn.softmax(dist.logits)
    np.testing.assert_array_equal(p[~mask], 0.0)
    np.testing.assert_allclose(p[mask].reshape(50, legal), jax.nn.softmax(alone.logits), rtol=1e-6)
    np.testing.assert_allclose(dist.entropy(), alone.entropy(), atol=1e-6)
    np.testing.assert_allclose(dist.kl(other), alone.kl(other_alone), atol=1e-6)
    assert mask[np.arange(50), dist.mode()].all()
    samples = jax.vmap(lambda key: dist.sample(dist.draw(key)))(jax.random.split(KEY, 1000))
    assert mask[np.arange(50), samples].all()


def test_gradients_of_a_masked_distribution_are_finite_and_pass_illegal_logits_by() -> None:
    mask = jnp.asarray(masks(np.random.default_rng(0), 4, 10, legal=1)).at[0].set(True)
    action = jnp.argmax(mask, axis=-1)

    def numbers(logits: jax.Array) -> jax.Array:
        dist, other = (Categorical(x).masked(mask) for x in (logits, -logits))
        surrogate = pg.surrogates.all_action(dist.logits, jnp.ones(logits.shape))
        return jnp.sum(dist.log_prob(action) + dist.entropy() + dist.kl(other) + surrogate)

    logits = jax.random.normal(KEY, (4, 10))
    with jax.debug_nans(True):
        gradient = jax.grad(numbers)(logits)
        curvature = jax.jvp(jax.grad(numbers), (logits,), (logits,))[1]
    assert np.isfinite(gradient).all()
    assert np.isfinite(curvature).all()
    np.testing.assert_array_equal(gradient[~mask], 0.0)
    assert np.abs(gradient[0]).min() > 0


def test_only_legal_indices_are_chosen_whatever_the_noise_and_the_rounding() -> None:
    p = jnp.array([0.0, 0.25, 0.0, 0.75, 0.0])
    legal = jnp.array([False, True, False, True, False])
    noise = jnp.array([0.0, 0.2, 0.25, 0.9, 1.0 - 2**-24, 1.0])
    chosen = inverse_cdf_of_legal(
        jnp.broadcast_to(p, (6, 5)), jnp.broadcast_to(legal, (6, 5)), noise
    )
    np.testing.assert_array_equal(chosen, [1, 1, 3, 3, 3, 3])


def test_where_nothing_is_legal_everything_is() -> None:
    logits = jnp.arange(6.0).reshape(2, 3)
    dist = Categorical(logits).masked(jnp.array([[False] * 3, [False, True, False]]))
    np.testing.assert_array_equal(dist.logits[0], logits[0])
    np.testing.assert_array_equal(dist.entropy()[1], 0.0)


def expectation(mdp: TabularMDP, logits: jax.Array, grad: Callable[..., Any]) -> np.ndarray:
    """The mean over all trajectories of `grad` of one."""

    @jax.jit
    def moments(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        traj, probability = tabular.enumerate_trajectories(mdp, logits)
        alone = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], traj)
        mean = jnp.einsum("m,m...->...", probability, jax.vmap(grad)(alone))
        return probability.sum(), mean

    total, mean = moments(logits)
    assert np.isclose(total, 1.0, rtol=1e-12)
    return np.asarray(mean)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("reward_to_go", (10, 1)),
        ("reward_to_go", (20, 2)),
        ("all_action", (20, 2)),
        ("action_dependent_baseline", (20, 2)),
    ],
)
def test_the_mean_over_all_trajectories_is_the_exact_gradient(
    name: str, size: tuple[int, int]
) -> None:
    with jax.enable_x64(True):
        mdp = tabular.with_time_in_state(masked_mdp(*size))
        logits = jax.random.normal(KEY, (mdp.num_states, size[0]))
        q = tabular.values(mdp, logits, GAMMA)[0][0]
        # what an illegal action would be worth must not matter
        q = jnp.where(mdp.mask, q, 1e3)
        policy, critic = masked(tabular.table_policy(logits)), masked(tabular.table_critic(q))
        est = ESTIMATORS[name](policy, critic, pg.Hyperparams(gamma=GAMMA))
        params, state = est.init(KEY)

        def grad(traj: Trajectory) -> jax.Array:
            return -est.grad(params, est.weigh(params, state, traj)[0])[0].policy

        expected = tabular.exact_gradient(mdp, logits, GAMMA)
        np.testing.assert_array_equal(expected[~mdp.mask], 0.0)
        assert size[1] == 1 or np.abs(expected).max() > 0.01
        np.testing.assert_allclose(expectation(mdp, logits, grad), expected, atol=1e-12)


def test_exact_references_know_the_mask() -> None:
    """Those of a problem from which the illegal actions are left out, under the same policy."""
    with jax.enable_x64(True):
        mdp = masked_mdp(10, 2)
        logits = jax.random.normal(KEY, (3, 10))
        legal = np.nonzero(mdp.mask)[1].reshape(3, 2)
        rows = np.arange(3)[:, None]
        small = TabularMDP(
            mdp.transition[rows, legal], mdp.reward[rows, legal], mdp.initial, mdp.terminal, 2
        )
        few = logits[rows, legal]
        for exact in (
            lambda m, x: tabular.exact_return(m, x, GAMMA, tau=0.1),
            lambda m, x: tabular.visitation(m, x),
            lambda m, x: tabular.discounted_visitation(m, x, GAMMA),
            lambda m, x: tabular.values(m, x, GAMMA)[1],
        ):
            whole, alone = jax.jit(lambda x, y, f=exact: (f(mdp, x), f(small, y)))(logits, few)
            np.testing.assert_allclose(whole, alone, atol=1e-12)
        for gradient in (tabular.exact_gradient, tabular.undiscounted_direction):
            whole = gradient(mdp, logits, GAMMA)
            np.testing.assert_allclose(whole[rows, legal], gradient(small, few, GAMMA), atol=1e-12)
        mean, covariance = tabular.reward_to_go_moments(mdp, logits, GAMMA)
        np.testing.assert_allclose(
            mean, tabular.exact_gradient(mdp, logits, GAMMA).ravel(), atol=1e-12
        )
        assert np.isfinite(covariance).all()


def test_a_table_that_is_read_off_has_the_mask() -> None:
    mdp = tabular.tabulate(Gated(), horizon=3, time_in_state=True, starts=2)
    assert mdp.mask is not None
    time = mdp.features[:, 1]
    np.testing.assert_array_equal(mdp.mask[:, 1], time % 2 == 0)
    moves = mdp.transition[:, 1].argmax(-1) != np.arange(mdp.num_states)
    np.testing.assert_array_equal(moves, mdp.mask[:, 1] & (time < 3))


class Informed(Clock):
    """The mask of `Gated`, in the info of step and, if asked for, of reset."""

    def __init__(self, at_reset: bool) -> None:
        self.at_reset = at_reset

    def info(self, state: ClockState) -> dict[str, jax.Array]:
        return {"action_mask": Gated().action_mask(state, None).astype(jnp.int8)}

    def reset_env(self, key: jax.Array, params: Any) -> Any:
        obs, state = super().reset_env(key, params)
        return (obs, state, self.info(state)) if self.at_reset else (obs, state)

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: Any) -> Any:
        obs, state, reward, terminated, _ = super().step_env(key, state, action, params)
        return obs, state, reward, terminated, self.info(state)


@pytest.mark.parametrize("env", [Gated(), Informed(at_reset=True)], ids=["method", "info"])
def test_illegal_actions_are_never_taken(env: Any) -> None:
    made = make_env(env, 16)
    assert made.masked
    assert made.obs_shape == (2,)
    policy = make_policy(Config(preset=None), made)
    params = policy.init(KEY)

    @jax.jit
    def batches(key: jax.Array) -> list[Trajectory]:
        of_windows = windows(made, policy, params, key, start(made, policy, key), 40)[1]
        ways = (pg.rollout.sample, greedy)
        return [of_windows, *(episodes(made, policy, params, key, act=act) for act in ways)]

    for traj in batches(KEY):
        np.testing.assert_array_equal(traj.mask[..., 1], traj.time % 2 == 0)
        assert not (traj.action[traj.valid] > traj.mask[traj.valid][:, 1]).any()
    free = make_env(env, 16, action_mask="none")
    assert not free.masked
    assert (episodes(free, make_policy(Config(preset=None), free), params, KEY).action == 1).any()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"estimator": "ppo", "num_minibatches": 2, "rnn": "gru", "scale_rewards": True},
            marks=pytest.mark.slow,
        ),
        {"estimator": "ppo", "minibatch_size": 16, "num_envs": 8, "shared_torso": True},
        {"estimator": "leave_one_out", "optimizer": "trpo", "diagnostics": True},
        {"estimator": "all_action", "normalise_observations": True},
        {"policy": pg.make_policy, "critic": pg.make_critic, "estimator": "reinforce"},
    ],
    ids=["ppo, gru", "ppo, steps", "trpo", "all_action", "own networks"],
)
def test_training_keeps_to_the_mask(settings: dict[str, Any]) -> None:
    steps = {} if settings["estimator"] != "ppo" else {"num_steps": 8}
    config = Config(
        env=Gated(), **{"num_envs": 8, "num_updates": 3, "hidden_sizes": (8,)} | steps | settings
    )
    state, metrics = jax.jit(pg.make_train(config))(KEY)
    assert not metrics["nonfinite"].any()
    kept = evaluate(config, state.params.policy, KEY, 8, greedy=True, normaliser=state.normaliser)
    # the place moves at times 0, 2 and 4 at most, and it is the reward
    assert (kept.returns <= 6 * 3.5).all()


def test_a_policy_that_is_loaded_wants_the_mask(tmp_path: Path) -> None:
    mdp, _ = masked_bandit()
    config = Config(env=mdp, num_envs=4, num_updates=2, hidden_sizes=(8,))
    done = execution.run(config, None, [0])
    folders.write_setup(tmp_path, config, config.hyperparams(), {"seed": 0, "seeds": 1})
    parameters.write_params(tmp_path, done.states.params, done.states.normaliser)
    policy = pg.load_policy(tmp_path, env=mdp)
    obs, mask = mdp.features[:8], mdp.mask[:8]
    for key in (None, KEY):
        assert mask[np.arange(8), policy(obs, key, mask=mask)].all()
    assert mask[3, policy(obs[3], mask=mask[3])]
    assert_one_sentence(lambda: policy(obs), "the environment has action masks: give mask=")
    assert_one_sentence(lambda: policy(obs, mask=mask[:, :3]), "must be 20 booleans")
    assert_one_sentence(lambda: policy(obs, mask=mask[:5]), "mask must be of each observation")


@pytest.mark.slow
def test_ppo_learns_a_masked_bandit() -> None:
    mdp, best = masked_bandit()
    config = Config(
        env=mdp, estimator="ppo", num_envs=64, num_steps=8, num_updates=40, network="mlp"
    )
    config_h = config.hyperparams(learning_rate=0.01)
    state, metrics = jax.jit(pg.make_train(config))(KEY, config_h)
    reached = evaluate(config, state.params.policy, KEY, 1000, greedy=True).returns.mean()
    policy = make_policy(config, make_env(mdp, 8))
    logits = tabular.table(mdp, policy, state.params.policy)
    chosen = np.argmax(logits, axis=-1)[:8]
    np.testing.assert_allclose(mdp.mean_reward[np.arange(8), chosen], best)
    assert abs(reached - best.mean()) < 0.2
    assert metrics["return"][0] < best.mean() - 0.1


@pytest.mark.slow
def test_a_million_masked_steps_without_a_nan() -> None:
    mdp = masked_mdp(10, legal=1, horizon=50)
    mask = np.array(mdp.mask)
    mask[0] = masks(np.random.default_rng(2), 1, 10, 2)[0]
    mdp = TabularMDP(mdp.transition, mdp.reward, mdp.initial, mdp.terminal, 50, mask=mask)
    config = Config(env=mdp, estimator="ppo", num_envs=64, num_steps=128, num_updates=123)
    with jax.debug_nans(True):
        _, metrics = jax.jit(pg.make_train(config))(KEY)
    assert metrics["env_steps"].sum() > 1e6
    assert not metrics["nonfinite"].any()
    assert all(np.isfinite(metrics[name]).all() for name in ("entropy", "grad_norm", "kl"))


@pytest.mark.parametrize(
    "how", ["stop", *(pytest.param(how, marks=pytest.mark.slow) for how in ("skip", "ignore"))]
)
def test_a_step_at_which_nothing_is_legal_is_reported(how: Any) -> None:
    config = Config(env=Closing(), num_envs=2, num_updates=3, on_nonfinite=how)
    state, metrics = jax.jit(pg.make_train(config))(KEY)
    assert (metrics["nonfinite"] == 16).all()
    assert int(state.skipped) == (0 if how == "ignore" else 3)
    assert pg.runs.results.causes(16) == "action masks"
    short = Config(env=Closing(), num_envs=2, num_updates=3, horizon=2)
    assert not jax.jit(pg.make_train(short))(KEY)[1]["nonfinite"].any()


class Shut(Clock):
    """No action is ever legal."""

    def action_mask(self, state: Any, params: Any) -> jax.Array:
        return jnp.zeros(2, bool)


class Narrow(Clock):
    """A mask of three actions, where there are two."""

    def action_mask(self, state: Any, params: Any) -> jax.Array:
        return jnp.ones(3, bool)


class Pushed(Clock):
    """A mask of continuous actions."""

    def action_mask(self, state: Any, params: Any) -> jax.Array:
        return jnp.ones(2, bool)

    def action_space(self, params: Any) -> Any:
        return spaces.Box(-1.0, 1.0, (2,))


def test_an_environment_that_begins_without_a_legal_action_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Shut begins in a state in which no action is legal"):
        make_env(Shut(), 2)


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "another size": (
        lambda: make_env(Narrow(), 2),
        "the action mask must be 2 booleans, True for each action that is legal; got bool of shape",
    ),
    "continuous": (lambda: make_env(Pushed(), 2), "an action mask is for discrete actions"),
    "info of step alone": (
        lambda: make_env(Informed(at_reset=False), 2),
        "step returns an action mask and reset none",
    ),
    "no method": (
        lambda: make_env(Clock(), 2, action_mask="method"),
        "action_mask='method', but Clock has no method action_mask(state, params)",
    ),
    "no info": (
        lambda: make_env(Clock(), 2, action_mask="info"),
        "action_mask='info', but Clock has no 'action_mask' in the info of step, and of reset",
    ),
    "no key": (
        lambda: make_env(Clock(), 2, action_mask="observation"),
        "action_mask='observation', but Clock has no key and no attribute 'action_mask'",
    ),
    "a policy that sees no masks": (
        lambda: episodes(gated(), tabular.table_policy(jnp.zeros((2, 2))), (), KEY),
        "which this policy does not see: write pg.networks.masked(policy)",
    ),
    "a distribution without": (
        lambda: episodes(
            gated(),
            masked(pg.Network(lambda key: (), lambda p, c, obs, first: (c, pg.Gaussian(obs, obs)))),
            (),
            KEY,
        ),
        "Gaussian, has no method masked(mask)",
    ),
    "an own policy that is masked already": (
        lambda: make_policy(
            Config(policy=lambda config, env: masked(make_policy(config, env))), gated()
        ),
        "sees the observation alone, and action masks are applied around it: leave out",
    ),
    "of a terminal state alone": (
        lambda: TabularMDP(
            np.ones((1, 2, 1)), np.zeros((1, 2)), [1.0], [False], 2, mask=np.zeros((1, 2))
        ),
        "mask must allow at least one action in states that do not end",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(name: str) -> None:
    gated()  # its check of a few resets is a program
    assert_one_sentence(*MISTAKES[name])
