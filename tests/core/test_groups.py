"""A group is a position in the batch: coincidences between two groups do not merge them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import tabular_policy

from pg import diagnostics, envs, networks, train
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.facts import estimators_with
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.rollout import Trajectory, episodes

KEY = jax.random.key(0)
NUM_ENVS, GROUP_SIZE = 12, 4
# Their first observations coincide between resets, and their hidden states do not.
HIDDEN = (
    "BernoulliBandit-misc",
    "MemoryChain-bsuite",
    "GaussianBandit-misc",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
)


def collected(env_name: str, estimator: str) -> tuple[Estimator, Params, Any, Trajectory]:
    """An estimator, and groups of episodes for it."""
    sizes = {"num_envs": NUM_ENVS, "group_size": GROUP_SIZE, "hidden_sizes": (4,)}
    config = Config(env=env_name, estimator=estimator, **sizes, preset=None)
    env = envs.configured(config, NUM_ENVS)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    made = ESTIMATORS[estimator](policy, critic, Hyperparams())
    params, state = made.init(KEY)
    traj = episodes(env, policy, params.policy, jax.random.key(1), 12, group_size=GROUP_SIZE)
    return made, params, state, traj


def expected_psi(estimator: str, traj: Trajectory) -> np.ndarray:
    """The weight of every episode, group by group, [N]."""
    total = np.asarray(traj.reward, np.float64).sum(0)
    lengths = np.asarray(traj.valid).sum(0)
    psi = []
    for g in range(NUM_ENVS // GROUP_SIZE):
        members = np.arange(g * GROUP_SIZE, (g + 1) * GROUP_SIZE)
        own = total[members]
        for n in range(GROUP_SIZE):
            if estimator == "grpo":
                psi.append((own[n] - own.mean()) / (own.std() or np.inf) / lengths[members[n]])
            else:
                psi.append(own[n] - np.delete(own, n).mean())
    return np.array(psi)


@pytest.mark.parametrize(
    "env_name", [*HIDDEN[:2], *(pytest.param(x, marks=pytest.mark.slow) for x in HIDDEN[2:])]
)
def test_groups_whose_first_observations_coincide_stay_apart(env_name: str) -> None:
    estimator, params, state, traj = collected(env_name, "group_leave_one_out")
    first = np.asarray(traj.obs[0]).reshape(NUM_ENVS, -1)
    assert len(np.unique(first, axis=0)) < NUM_ENVS // GROUP_SIZE
    psi = np.asarray(estimator.weigh(params, state, traj)[0].psi)
    np.testing.assert_allclose(psi[0], expected_psi("group_leave_one_out", traj), atol=1e-4)


def test_grpo_standardises_within_groups_whose_first_observations_coincide() -> None:
    estimator, params, state, traj = collected("GaussianBandit-misc", "grpo")
    psi = np.asarray(estimator.weigh(params, state, traj)[0].psi)
    np.testing.assert_allclose(psi[0], expected_psi("grpo", traj), atol=1e-5)
    # By equal first observations all episodes would be one group.
    one = traj._replace(group=jnp.zeros_like(traj.group))
    assert np.abs(np.asarray(estimator.weigh(params, state, one)[0].psi) - psi).max() > 1e-3


def test_training_compares_the_episodes_of_a_group() -> None:
    """The Ψ that an update takes, in whole batches and in minibatches, is the one of the groups of
    the rollout.
    """
    seen: list[np.ndarray] = []

    def watched(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        made = ESTIMATORS["grpo"](policy, critic, h)

        def grad(params: Params, batch: Any) -> Any:
            numbers = jax.debug.callback(
                lambda *x: seen.append(x), batch.traj.group[0], batch.psi, batch.traj.valid
            )
            assert numbers is None
            return made.grad(params, batch)

        return made._replace(grad=grad)

    sizes = {
        "num_envs": NUM_ENVS,
        "group_size": 2,
        "num_updates": 1,
        "horizon": 12,
        "hidden_sizes": (4,),
    }
    config = Config(
        env="GaussianBandit-misc",
        estimator="grpo",
        num_epochs=2,
        num_minibatches=3,
        **sizes,
        preset=None,
    )
    jax.block_until_ready(jax.jit(train.make_train(config, estimator=watched))(KEY))
    assert len(seen) == 6
    for group, psi, valid in seen:
        pairs = np.asarray(group).reshape(-1, 2)
        np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
        # Standardised returns of a pair are ±1, over the length.
        weights = (np.asarray(psi)[0] * np.asarray(valid).sum(0)).reshape(-1, 2)
        np.testing.assert_allclose(weights.sum(1), 0.0, atol=1e-5)


@pytest.mark.parametrize("group_size", [1, 3])
def test_a_minibatch_holds_whole_groups(group_size: int) -> None:
    sizes = {"num_envs": 12, "group_size": group_size, "num_epochs": 3, "num_minibatches": 2}
    name = "grpo" if group_size > 1 else "ppo"
    rows = np.asarray(train._minibatches(Config(estimator=name, **sizes, preset=None), KEY))
    assert rows.shape == (6, 6)
    for epoch in rows.reshape(3, 12):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(12))
    assert len({tuple(epoch) for epoch in rows.reshape(3, 12)}) == 3
    for part in rows // group_size:
        assert set(np.bincount(part)) <= {0, group_size}


def test_what_would_cut_a_group_is_refused() -> None:
    message = (
        "num_minibatches must divide the 3 groups of num_envs=12 and group_size=4, as a minibatch "
        "holds whole"
    )
    with pytest.raises(ValueError, match=message):
        Config(estimator="grpo", num_envs=12, group_size=4, num_minibatches=2, preset=None)
    env = envs.make_env("CartPole-v1", 8)
    policy = networks.make_policy(Config(preset=None), env)
    with pytest.raises(ValueError, match="group_size must divide the 8 environments, got 3"):
        episodes(env, policy, policy.init(KEY), KEY, 4, group_size=3)
    estimator, params, state, traj = collected("BernoulliBandit-misc", "grpo")
    with pytest.raises(
        ValueError, match="num_episodes must be a multiple of the trajectory's group size, got 6"
    ):
        diagnostics.per_batch(estimator, params, state, traj, 6)


@pytest.mark.parametrize("name", estimators_with(baseline="group"))
def test_episodes_that_are_in_no_groups_are_refused(name: str) -> None:
    estimator, params, state, traj = collected("BernoulliBandit-misc", name)
    with pytest.raises(
        ValueError,
        match="the episodes have no groups: collect them with a group_size of at least 2",
    ):
        estimator.weigh(params, state, traj._replace(group=()))


@pytest.mark.usefixtures("x64")
def test_pairs_of_one_start_are_told_by_the_state_and_not_by_its_features() -> None:
    """Two initial states that look alike, in one of which every action pays: within a group there
    is nothing to compare.
    """
    transition = np.zeros((3, 2, 3))
    transition[:, :, 2] = 1.0
    reward = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    mdp = TabularMDP(
        transition, reward, [0.5, 0.5, 0.0], [False, False, True], 1, features=np.ones((3, 1))
    )
    estimator = ESTIMATORS["group_leave_one_out"](
        tabular_policy(1, 2), tabular_policy(1, 2), Hyperparams()
    )
    params, logits = Params(jnp.array([[0.3, -0.2]]), ()), np.tile([0.3, -0.2], (3, 1))
    covariance = diagnostics.exact_moments(estimator, params, mdp, logits, 2, share_start=True)[1]
    np.testing.assert_allclose(covariance, 0.0, atol=1e-15)
    apart = diagnostics.exact_moments(estimator, params, mdp, logits, 2)[1]
    assert np.trace(apart) > 0.01
    np.testing.assert_array_equal(np.unique(tabular.initial_states(mdp)), [0, 1])
