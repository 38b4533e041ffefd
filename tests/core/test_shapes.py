"""Arrays of a wrong shape are refused in one sentence, also where T = B would let them be
broadcast.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock

from pg import Config, Hyperparams, build_estimator, make_env, make_train, returns, rollout
from pg.distributions import Categorical
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.base import values
from pg.networks import Network, actor

KEY = jax.random.key(0)
SQUARE = 6  # steps of an episode of Clock, and environments


def linear(*output: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A linear map of an observation of Clock to an array of shape `output`."""
    return lambda w, obs: jnp.tensordot(obs, w[:, : int(np.prod(output))], 1).reshape(
        *obs.shape[:-1], *output
    )


def network(output: Callable[[jax.Array, jax.Array], Any]) -> Network:
    """A custom one, with parameters [2, 4]."""
    return Network(
        lambda key: jax.random.normal(key, (2, 4)),
        lambda w, carry, obs, first: (carry, output(w, obs)),
    )


def policy(num_actions: int = 2) -> Network:
    logits = linear(num_actions)
    return network(lambda w, obs: Categorical(logits(w, obs)))


class ByAxis(NamedTuple):
    """A distribution whose log-probabilities are of every axis of an action, not of the action."""

    base: Categorical

    def draw(self, key: jax.Array) -> jax.Array:
        return self.base.draw(key)

    def sample(self, noise: jax.Array) -> jax.Array:
        return self.base.sample(noise)

    def action(self, sample: jax.Array) -> jax.Array:
        return sample

    def log_prob(self, sample: jax.Array) -> jax.Array:
        return self.base.log_prob(sample)[..., None]

    def entropy(self) -> jax.Array:
        return self.base.entropy()


def gradient(
    make: Any, own: Network, critic: Network | None = None, acting: Network | None = None
) -> Any:
    """The gradient of one batch of T = B: as many steps as environments."""
    env = make_env(Clock(), SQUARE)
    estimator: Estimator = make(own, critic, Hyperparams(gamma=0.9))

    def found(key: jax.Array) -> Params:
        params, state = estimator.init(key)
        traj = rollout.episodes(env, actor(acting or own, own), params, key)
        assert traj.reward.shape == (SQUARE, SQUARE)
        return estimator.grad(params, estimator.weigh(params, state, traj)[0])[0]

    return jax.jit(found)(KEY)


@pytest.mark.parametrize("estimator", ["state_value", "actor_critic", "gae", "vtrace", "ppo"])
@pytest.mark.parametrize("output", [(1,), (2,), (1, 1)], ids=str)
def test_a_critic_of_states_gives_one_number_for_each(
    estimator: str, output: tuple[int, ...]
) -> None:
    with pytest.raises(
        ValueError,
        match=r"the critic's V must be \[T, B\] = .*got shape "
        r".*output\[..., 0\]",
    ):
        gradient(ESTIMATORS[estimator], policy(), network(linear(*output)))


@pytest.mark.parametrize("estimator", ["all_action", "action_dependent_baseline"])
def test_a_critic_of_actions_gives_a_vector_for_each_state(estimator: str) -> None:
    for output in ((), (2, 1)):
        with pytest.raises(
            ValueError,
            match=r"the critic's Q must be \[T, B, A\], one number for "
            r"each action",
        ):
            gradient(ESTIMATORS[estimator], policy(), network(linear(*output)))
    for count in (1, 3):
        with pytest.raises(ValueError, match=r"psi must be \[T, B, A\] = .*of the same actions"):
            gradient(ESTIMATORS[estimator], policy(), network(linear(count)))


def test_a_recurrent_critic_too() -> None:
    plain = network(linear(1))
    recurrent = plain._replace(carry=jnp.zeros(1))
    with pytest.raises(ValueError, match="the critic's V must be"):
        gradient(ESTIMATORS["gae"], policy(), recurrent)


def test_a_policy_gives_one_log_probability_for_each_action() -> None:
    by_axis = network(lambda w, obs: ByAxis(Categorical(linear(2)(w, obs))))
    for acting in (by_axis, policy()):
        with pytest.raises(
            ValueError,
            match=r"the policy's log_prob must be .*sum it over the "
            r"axes of an action",
        ):
            gradient(ESTIMATORS["reinforce"], by_axis, acting=acting)


def own(psi: Callable[[jax.Array], Any], target: Any = None, **options: Any) -> Any:
    """An estimator whose Ψ and target are functions of the rewards [T, B]."""

    def make(policy: Network, critic: Network | None, h: Hyperparams) -> Estimator:
        def weigh(params: Params, state: Any, traj: Any) -> Any:
            return psi(traj.reward), () if target is None else target(traj.reward), state

        return build_estimator(policy, critic if target else None, h, weigh, **options)

    return make


@pytest.mark.parametrize(
    "psi",
    [
        pytest.param(lambda r: r.sum(0), id="[B]"),
        pytest.param(lambda r: r.sum(1), id="[T]"),
        pytest.param(lambda r: r.sum(1)[:, None, None], id="[T, 1, 1]"),
        pytest.param(lambda r: r[..., None], id="[T, B, 1]"),
        pytest.param(lambda r: r[..., None] + jnp.zeros((1, 1, 2)), id="[T, B, A]"),
        pytest.param(lambda r: r[:-1], id="[T-1, B]"),
        pytest.param(lambda r: r[None], id="[1, T, B]"),
    ],
)
def test_a_weight_of_another_shape_is_refused(psi: Any) -> None:
    with pytest.raises(ValueError, match=r"psi must be (one number, )?\[T, B\]"):
        gradient(own(psi), policy())


def test_a_weight_is_broadcast_along_the_axis_of_length_one() -> None:
    """As many steps as episodes: [1, B] is of whole episodes, [T, 1] of steps, a number of all."""
    whole = gradient(own(lambda r: r.sum(0)[None, :]), policy())
    full = gradient(own(lambda r: jnp.broadcast_to(r.sum(0), r.shape)), policy())
    np.testing.assert_array_equal(whole.policy, full.policy)
    steps = gradient(own(lambda r: r.sum(1)[:, None]), policy())
    full = gradient(own(lambda r: jnp.broadcast_to(r.sum(1)[:, None], r.shape)), policy())
    np.testing.assert_array_equal(steps.policy, full.policy)
    assert not np.array_equal(whole.policy, steps.policy)
    number = gradient(own(lambda r: 2.0), policy())
    full = gradient(own(lambda r: jnp.full(r.shape, 2.0)), policy())
    np.testing.assert_array_equal(number.policy, full.policy)


@pytest.mark.parametrize(
    "target",
    [lambda r: r.sum(0), lambda r: r[..., None], lambda r: ()],
    ids=["[B]", "[T, B, 1]", "nothing"],
)
def test_a_target_of_another_shape_is_refused(target: Any) -> None:
    with pytest.raises(
        ValueError,
        match=r"the critic's target must be \[T, B\]|weigh returns no "
        r"target",
    ):
        gradient(own(lambda r: r, target), policy(), network(linear()))


def test_a_surrogate_or_a_prediction_of_another_shape_is_refused() -> None:
    def surrogate(dist: Any, batch: Any) -> jax.Array:
        return (dist.log_prob(batch.traj.action) * batch.psi)[..., None]

    with pytest.raises(ValueError, match=r"the surrogate must be \[T, B\]"):
        gradient(own(lambda r: r, surrogate=surrogate), policy())
    make = own(lambda r: r, lambda r: r, predict=lambda output, batch: output[..., None])
    with pytest.raises(ValueError, match=r"the critic's prediction must be \[T, B\]"):
        gradient(make, policy(), network(linear()))


def test_what_is_right_is_not_refused() -> None:
    """By values alone, and in training, where T = B."""
    env = make_env(Clock(), SQUARE)
    critic = network(linear())
    params = Params(policy().init(KEY), critic.init(KEY))
    traj = rollout.episodes(env, actor(policy(), critic), params, KEY)
    assert values(critic, params, traj).shape == (SQUARE, SQUARE)
    config = Config(env=Clock(), num_envs=SQUARE, num_updates=1, hidden_sizes=(4,), preset=None)
    make = own(lambda r: returns.total_return(r, 0.9)[None], accepts=("episodes",))
    _, metrics = jax.jit(make_train(config, estimator=make))(KEY)
    assert np.isfinite(metrics["grad_norm"]).all()
