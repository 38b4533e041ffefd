"""Estimators with a mistake: one sentence that says what they must return, before anything is
compiled.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from environments import Clock
from mistakes import Mistake, assert_one_sentence, handed, learner_of

from pg.config import Config, Hyperparams
from pg.distributions import Gaussian
from pg.envs import make_env
from pg.estimators import ESTIMATORS, Estimator, build_estimator
from pg.estimators.checks import checked
from pg.networks import Network, make_policy
from pg.train import make_learner

KEY, H = jax.random.key(0), Hyperparams()


def estimator_of(**replaced: Any) -> Callable[[], object]:
    """One update by `gae` with one of its functions, or a factory, replaced. Each is given what
    gae's gives.
    """

    def mine(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        gae = ESTIMATORS["gae"](policy, critic, h)

        def replace(name: str) -> Any:
            return lambda *args: replaced[name](*getattr(gae, name)(*args))

        return gae._replace(**{name: replace(name) for name in replaced})

    return functools.partial(one_update, mine)


def one_update(factory: Any) -> Any:
    config = Config(
        env=Clock(), num_updates=1, num_envs=2, hidden_sizes=(4,), horizon=2, preset=None
    )
    learner = make_learner(config, estimator=checked(factory))
    state = jax.eval_shape(learner.init, jax.random.key(0))
    return jax.eval_shape(learner.step, state, jax.random.key(0))


def estimator_from(weigh: Any) -> Callable[[], object]:
    """One update by the estimator that `weigh` makes, without a critic."""
    return lambda: one_update(lambda policy, critic, h: build_estimator(policy, None, h, weigh))


def built_with(**options: Any) -> Callable[[], object]:
    """One update by the estimator that `build_estimator` makes with these options, without a
    critic.
    """

    def mine(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        return build_estimator(policy, None, h, lambda p, s, traj: (traj.reward, (), ()), **options)

    return lambda: one_update(mine)


def critic_giving(change: Callable[[Any], Any]) -> Callable[[], object]:
    """One update of gae, whose critic gives something else than V."""

    def mine(policy: Any, critic: Network, h: Hyperparams) -> Estimator:
        def apply(*args: Any) -> Any:
            carry, v = critic.apply(*args)
            return carry, change(v)

        return ESTIMATORS["gae"](policy, critic._replace(apply=apply), h)

    return lambda: one_update(mine)


class WithoutMoments(NamedTuple):
    """A custom Gaussian, with the methods that acting and scoring need."""

    base: Gaussian

    def __getattr__(self, name: str) -> Any:
        if name in ("draw", "sample", "mode", "action", "log_prob", "entropy"):
            return getattr(self.base, name)
        raise AttributeError(name)


def without_moments(config: Config, env: Any) -> Network:
    plain = make_policy(config, env)

    def apply(*args: Any) -> Any:
        carry, dist = plain.apply(*args)
        return carry, WithoutMoments(dist)

    return plain._replace(apply=apply)


def values_of_two_actions(config: Config, env: Any) -> Network:
    def apply(params: Any, carry: Any, obs: Any, first: Any) -> Any:
        return carry, obs[..., :2] * params

    return Network(lambda key: jnp.zeros(()), apply)


def update_of_pendulum(**parts: Any) -> object:
    """One update of an estimator that sums over all actions, in an environment with a Box."""
    settings = {"env": "Pendulum-v1", "estimator": "trajectory_control_variate", **parts}
    config = Config(**settings, num_envs=2, hidden_sizes=(4,), preset=None)
    learner = make_learner(config)
    state = jax.eval_shape(learner.init, KEY)
    return jax.eval_shape(learner.step, state, KEY)


@pytest.mark.acceptance("INPUTS")
def test_an_estimator_that_is_checked_keeps_its_name() -> None:
    for name, factory in ESTIMATORS.items():
        assert factory.__name__ == checked(factory).__name__ == name


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "values of discrete actions for a Box": (
        learner_of(env="Pendulum-v1", estimator="optimal_state_baseline"),
        "estimator='optimal_state_baseline' knows the value of every action, and so needs one "
        "Discrete of them",
    ),
    "a sum over actions of which nobody says the mean": (
        lambda: update_of_pendulum(policy=without_moments),
        "its distribution, a WithoutMoments, has no method moments()",
    ),
    "a vector of values for actions of a Box": (
        lambda: update_of_pendulum(critic=values_of_two_actions),
        "the output of critic 'values_of_two_actions' must be a pg.layers.Quadratic or "
        "pg.layers.Sinusoids, a function of a continuous action, got ",
    ),
    "an estimator that is none": (
        lambda: one_update(lambda *parts: None),
        "must make an Estimator(init, weigh, grad)",
    ),
    "params that are no Params": (
        estimator_of(init=lambda params, state: (params.policy, state)),
        "the params of estimator 'mine' must be a Params, got dict",
    ),
    "no state": (
        estimator_of(init=lambda params, state: params.policy),
        "init of estimator 'mine' must return a pair",
    ),
    "a batch that is no Weighted": (
        estimator_of(weigh=lambda batch, state: (batch.psi, state)),
        "the first result of weigh of estimator 'mine' must be a Weighted, got ",
    ),
    "psi of another shape": (
        estimator_of(weigh=lambda batch, state: (batch._replace(psi=batch.psi[0]), state)),
        "psi of estimator 'mine' must be [T, B] = [2, 2] or [T, B, A], got shape (2,)",
    ),
    "a state that changes": (
        estimator_of(weigh=lambda batch, state: (batch, jnp.zeros(3))),
        "the state of estimator 'mine' after weigh:  must be absent, got float32 of shape (3,)",
    ),
    "gradients of the policy alone": (
        estimator_of(grad=lambda grads, metrics: (grads.policy, metrics)),
        "the gradients of estimator 'mine' must be a Params, got dict",
    ),
    "gradients without the critic": (
        estimator_of(grad=lambda grads, metrics: (grads._replace(critic=()), metrics)),
        "must be float32 of shape (1,), got nothing",
    ),
    "gradients of another shape": (
        estimator_of(grad=lambda grads, metrics: (jax.tree.map(lambda g: g[None], grads), metrics)),
        "the gradients of estimator 'mine': .policy['params']['head']['Dense_0']['bias'] must be "
        "float32 of shape",
    ),
    "gradients of another dtype": (
        estimator_of(
            grad=lambda grads, metrics: (
                jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads),
                metrics,
            )
        ),
        "got bfloat16 of shape (2,)",
    ),
    "gradients in a list": (
        estimator_of(
            grad=lambda grads, metrics: (grads._replace(critic=list(grads.critic)), metrics)
        ),
        "must be float32 of shape (1,), got nothing",
    ),
    "metrics per step": (
        estimator_of(grad=lambda grads, metrics: (grads, {"kl": jnp.zeros(3)})),
        "the metric 'kl' of estimator 'mine' must be one number, got float32 of shape (3,)",
    ),
    "a metric that is text": (
        estimator_of(grad=lambda grads, metrics: (grads, {"name": "mine"})),
        "the metric 'name' of estimator 'mine' must be one number, got str",
    ),
    "metrics in a tuple": (
        estimator_of(grad=lambda grads, metrics: (grads, (1.0,))),
        "the metrics of estimator 'mine' must be a dict, got tuple",
    ),
    "a weigh that gives psi alone": (
        estimator_from(lambda params, state, traj: traj.reward),
        "weigh must return psi, target, estimator_state, got one value: without a critic and a "
        "state write `return psi, (), ()`; a fourth value is V, which value_epsilon clips",
    ),
    "a weigh without a return": (
        estimator_from(lambda params, state, traj: None),
        "weigh must return psi, target, estimator_state, got None: without a critic and a state",
    ),
    "a weigh that gives a pair": (
        estimator_from(lambda params, state, traj: (traj.reward, ())),
        "got a tuple of 2: without a critic and a state write `return psi, (), ()`",
    ),
    "a psi without environments": (
        estimator_from(lambda params, state, traj: (jnp.zeros((3, 5)), (), ())),
        "psi must be one number, [T, B] = [2, 2], [1, B] for whole episodes, [T, 1], or [T, B, A] "
        "of every action; got shape [3, 5]: weigh must return one number for each step",
    ),
    "a psi of one axis": (
        estimator_from(lambda params, state, traj: (traj.reward.sum(0), (), ())),
        "psi must be one number, [T, B] = [2, 2], [1, B] for whole episodes, [T, 1], or [T, B, A] "
        "of every action; got shape [2]: write psi[None, :] if it has one number for each episode, "
        "psi[:, None] if it has one for each step",
    ),
    "a weigh without the state": (
        estimator_from(lambda params, traj: traj.reward),
        "weigh must be a function of params, estimator_state, trajectory, got one that cannot be "
        "called so",
    ),
    **{
        f"a psi that is {given!r}": (
            estimator_from(lambda params, state, traj, given=given: (given, (), ())),
            f"psi must be an array of numbers, got {given!r}: weigh must return one number for "
            f"each step",
        )
        for given in (None, "psi", {})
    },
    "a psi of complex numbers": (
        estimator_from(lambda params, state, traj: (traj.reward * 1j, (), ())),
        "psi must be an array of numbers, got complex64: weigh must return one number for each "
        "step",
    ),
    "a V of weigh that is one number": (
        estimator_from(lambda params, state, traj: (traj.reward, (), (), 1)),
        "the V of weigh must be [T, B] = [2, 2], got shape []: weigh must return one number for "
        "each step",
    ),
    "a target that is text": (
        estimator_from(lambda params, state, traj: (traj.reward, "reward", ())),
        "the critic's target must be an array of numbers, got 'reward': weigh must return one "
        "number",
    ),
    "a weigh that gives another state": (
        estimator_from(lambda params, state, traj: (traj.reward, (), jnp.zeros(3))),
        "the state of estimator '<lambda>' after weigh:  must be absent, got float32 of shape (3,)",
    ),
    **{
        f"a critic that gives {name}": (
            critic_giving(change),
            f"the critic's output must be an array of numbers, got {said}: a critic of states "
            f"returns one number",
        )
        for name, change, said in (
            ("a pair", lambda v: (v, ()), "a tuple of array, tuple"),
            ("names", lambda v: {"V": 1}, "{'V': 1}"),
            ("nothing", lambda v: None, "None"),
        )
    },
    "a surrogate of nothing": (
        built_with(surrogate=lambda dist, batch: None),
        "the surrogate must be an array of numbers, got None: surrogate must return one number for "
        "each step",
    ),
    "the name of a surrogate": (
        built_with(surrogate="score"),
        "surrogate must be a function of distribution, weighted, got 'score': write a function "
        "that returns a surrogate",
    ),
    "a surrogate of the distribution alone": (
        built_with(surrogate=lambda dist: dist),
        "surrogate must be a function of distribution, weighted, got one that cannot be called so",
    ),
    "reports of nothing": (
        built_with(extra_metrics=lambda dist, batch: None),
        "extra_metrics must return names with values [T, B], got None",
    ),
    "a report that is one number": (
        built_with(extra_metrics=lambda dist, batch: {"psi": batch.psi[0, 0]}),
        "the extra metric 'psi' must be [T, B] = [2, 2], got shape []: extra_metrics must return "
        "one number for each step",
    ),
    "an unknown way of collecting": (
        built_with(accepts=("episode",)),
        "unknown way of collecting 'episode': did you mean 'episodes'?",
    ),
    "an environment for the policy of an estimator": (
        lambda: build_estimator(make_env("CartPole-v1", 1), None, H, lambda p, s, traj: ()),
        "policy must be a pg.Network, got an Env: write pg.make_policy(config, env)",
    ),
    "a Config for the Hyperparams of an estimator": (
        handed(lambda x: build_estimator(x.policy, None, x.config, lambda p, s, traj: ())),
        "hyperparams must be a pg.Hyperparams, got a Config: the Config comes first",
    ),
    "no target for a critic": (
        lambda: one_update(
            lambda *parts: build_estimator(*parts, lambda p, s, traj: (traj.reward, (), ()))
        ),
        "weigh returns no target for the critic: return one, [T, B], or build without a critic",
    ),
    "an estimator as a name": (
        lambda: one_update("gae"),
        "got 'gae': write Config(estimator='gae')",
    ),
    "an estimator that is built": (
        lambda: one_update(
            ESTIMATORS["reinforce"](
                *[make_policy(Config(preset=None), make_env("CartPole-v1", 1))] * 2, H
            )
        ),
        "got an Estimator: give the function that makes it; write estimator=pg.ESTIMATORS['gae']",
    ),
    "an estimator of two arguments": (
        lambda: one_update(lambda policy, critic: None),
        "estimator must be a function of policy, critic, hyperparams, got one that cannot be "
        "called so: too many",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
