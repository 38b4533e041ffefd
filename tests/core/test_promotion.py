"""No promotion of types or ranks: all public functions of the core, traced under JAX's strict
settings.
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import Target
from small import MDP, TINY

from pg import (
    baselines,
    diagnostics,
    distributions,
    evaluation,
    images,
    networks,
    normalisation,
    returns,
    rollout,
    surrogates,
)
from pg import train as training
from pg.config import ActionDistribution, Config, Hyperparams
from pg.envs import make_env
from pg.estimators import (
    ESTIMATORS,
    action_values,
    average_reward,
    base,
    bootstrapped,
    episodic,
    evolution,
    grouped,
    off_policy,
    pathwise,
    sequences,
)
from pg.estimators.facts import FACTS
from pg.exact.tabular import TabularMDP
from pg.layers import attention, dense, heads, linear_recurrences, model, recurrent, torsos
from pg.optimizers import curvature, variance_reduction
from pg.runs import execution
from pg.train import make_chunk, make_learner, make_train

KEY = jax.random.key(0)
# fmt: off
LIBRARY = (
    baselines, diagnostics, distributions, evaluation, evolution, images, dense, heads,
    attention, linear_recurrences, model, recurrent, torsos, networks,
    normalisation, pathwise, returns, rollout, surrogates, action_values, average_reward, base,
    bootstrapped, episodic, grouped, off_policy, sequences, curvature, variance_reduction,
    training,
)
# fmt: on


def public(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions that a module defines, and the methods of its classes, by name."""
    for name, x in vars(module).items():
        if getattr(x, "__module__", None) != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(x):
            yield f"{module.__name__}.{name}", x
        elif inspect.isclass(x):
            methods = inspect.getmembers(x, inspect.isfunction)
            yield from (
                (f"{module.__name__}.{x.__qualname__}.{n}", m)
                for n, m in methods
                if n in vars(x) and n[0] != "_"
            )


class Called:
    """Whose bodies Python has entered in the meantime, by code object."""

    def __enter__(self) -> set[Any]:
        found = set[Any]()

        def note(frame: FrameType, event: str, arg: Any) -> None:
            found.add(frame.f_code)

        self.before = sys.gettrace()
        sys.settrace(note)
        return found

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)


def trained(
    estimator: str,
    collect: Any = "episodes",
    env: Any = MDP,
    curved: Any = "sgd",
    optimizer: Any = None,
    **changes: Any,
) -> None:
    """Traces two updates of plain SGD: Adam and the schedules are optax's own, and promote."""
    sizes = {"num_envs": 4, "num_steps": 6, "num_updates": 2, "hidden_sizes": (4,), "rnn_size": 4}
    plain = {
        "optimizer": curved,
        "critic_optimizer": "sgd",
        "group_size": 2 if FACTS[estimator].baseline == "group" else 1,
    }
    config = Config(
        env=env, estimator=estimator, collect=collect, **{**sizes, **plain, **changes}, preset=None
    )
    jax.eval_shape(make_train(config, optimizer=optimizer), KEY)


def of_sequences(**switches: Any) -> None:
    """Traces two updates of a policy gradient over sequences."""
    sizes = {"num_envs": 4, "num_updates": 2, "hidden_sizes": (4,), "group_size": 2}
    estimator = sequences.sequence_estimator(**switches)
    config = Config(env=MDP, estimator=estimator, optimizer="sgd", **sizes, preset=None)
    jax.eval_shape(make_train(config), KEY)


def evaluated(normalise: bool) -> None:
    """Traces both ways to act."""
    config = Config(env=MDP, hidden_sizes=(4,), normalise_observations=normalise, preset=None)
    state = jax.eval_shape(make_learner(config).init, KEY)
    for greedy in (False, True):
        score = functools.partial(
            evaluation.evaluate, config, key=KEY, num_episodes=4, greedy=greedy
        )
        jax.eval_shape(
            lambda p, n, score=score: score(p, normaliser=n).summary(), *execution.acting(state)
        )


def distribution(kind: Any, num_fields: int) -> None:
    """Traces every method of a distribution."""
    x = jnp.ones((3, 2))
    dist = kind(*[x, x, -x, x][:num_fields])
    noise = dist.draw(KEY)
    sample = dist.sample(noise)
    jax.eval_shape(
        lambda d: (d.mode(), d.action(sample), d.log_prob(sample), d.entropy(), d.kl(d)), dist
    )
    if hasattr(dist, "reparameterised"):
        jax.eval_shape(rollout.reparameterised, dist, noise)


def masks() -> None:
    """Traces what is given action masks, and every method of a product of two distributions."""
    x, legal = jnp.ones((3, 2)), jnp.array([[True, False]] * 3)
    jax.eval_shape(distributions.inverse_cdf_of_legal, x, legal, x[:, 0])
    one = distributions.Categorical(x)
    both = distributions.masked(distributions.Product((one, one)), (legal, legal))
    noise = both.draw(KEY)
    sample = both.sample(noise)
    jax.eval_shape(
        lambda d: (d.mode(), d.action(sample), d.log_prob(sample), d.entropy(), d.kl(d)), both
    )
    legal_mdp = TabularMDP(
        MDP.transition,
        MDP.reward,
        MDP.initial,
        MDP.terminal,
        MDP.horizon,
        mask=np.ones((MDP.num_states, MDP.num_actions), bool),
    )
    trained("reinforce", env=legal_mdp)


class Smooth(Target):
    """One step whose reward has a derivative."""

    _supports_transition_gradients = True


def pathwise_and_evolution() -> None:
    """Traces the gradients that belong to no estimator."""
    env = make_env(Smooth(continuous=True), 2, differentiable=True)
    policy = networks.make_policy(Config(hidden_sizes=(4,), preset=None), env)
    params = policy.init(KEY)

    def objective(params: Any, key: jax.Array) -> jax.Array:
        return returns.total_return(rollout.episodes(env, policy, params, key).reward, 0.9).mean()

    jax.eval_shape(lambda p: pathwise.pathwise_gradient(env, policy, p, KEY, 0.9), params)
    jax.eval_shape(lambda p: evolution.evolution_gradient(objective, p, KEY, 2), params)


def the_rest() -> None:
    """Traces what none of the others calls."""
    x, env = jnp.ones((3, 4)), make_env(MDP, 4)
    for f, n in ((surrogates.importance, 3), (surrogates.dice, 2), (surrogates.loaded_dice, 2)):
        jax.eval_shape(f, *[x] * n)
    jax.eval_shape(diagnostics.effective_sample_size, x)
    jax.eval_shape(lambda b: curvature.exact_solve(lambda v: v, b), x)
    policy = networks.make_policy(Config(hidden_sizes=(4,), preset=None), env)
    params = policy.init(KEY)
    assert networks.num_params(params) > 0
    jax.eval_shape(
        lambda p: curvature.fisher_matrix(policy, p, rollout.episodes(env, policy, p, KEY)), params
    )
    begin = rollout.start(env, policy, KEY)
    jax.eval_shape(lambda p: rollout.windows(env, policy, p, KEY, begin, 2), params)
    standing = jax.tree.map(lambda x: x[0], rollout.visited(env, policy, params, KEY)[0])
    going_on = functools.partial(rollout.returns_to_go, env, policy, begin=standing, gamma=0.9)
    jax.eval_shape(lambda p: going_on(params=p, key=KEY, action=jnp.zeros(4, int)), params)
    estimator = ESTIMATORS["reinforce"](policy, policy, Hyperparams())
    diagnostics.exact_moments(estimator, base.Params(params, ()), MDP, jnp.zeros((3, 2)))
    plain = dataclasses.replace(TINY, optimizer="sgd")
    jax.eval_shape(
        make_chunk(plain), make_learner(plain).init(KEY), jax.random.split(KEY, 2), Hyperparams()
    )
    assert not images.image_description(Config(preset=None), env)
    of_images = env._replace(obs_shape=(5, 5, 2))
    for make in (networks.make_policy, networks.make_critic):
        network = make(Config(hidden_sizes=(4,), preset=None), of_images)
        jax.eval_shape(
            lambda key, f=network: f.apply(
                f.init(key), (), jnp.ones((4, 5, 5, 2)), jnp.ones(4, bool)
            ),
            KEY,
        )


def corrected(make: Callable[[], Any]) -> Callable[[Any], Any]:
    """Variance reduction over updates before plain SGD."""
    return lambda rate: optax.chain(make(), optax.sgd(rate))


SHARED = {"rnn": "gru", "shared_torso": True, "advantages": "batch"}
MINIBATCHES = {"rnn": "lstm", "num_epochs": 2, "num_minibatches": 2, "advantages": "minibatch"}
STATISTICS = {"normalise_observations": True, "scale_rewards": True}
DISTRIBUTIONS = {
    "categorical": (distributions.Categorical, 1),
    "gaussian": (distributions.Gaussian, 2),
}
DISTRIBUTIONS |= {
    "tanh": (distributions.TanhGaussian, 4),
    "censored": (distributions.CensoredGaussian, 4),
}
STRICT: dict[str, Callable[[], None]] = {
    **{
        f"{name}, {way}": functools.partial(trained, name, way)
        for name, facts in FACTS.items()
        for way in facts.collect
    },
    **{
        name: functools.partial(trained, "state_value", curved=name) for name in ("natural", "trpo")
    },
    **{
        f"{name} head": functools.partial(
            trained, "ppo", env=Target(True), action_distribution=name
        )
        for name in get_args(ActionDistribution)
    },
    "std of the state": functools.partial(
        trained, "ppo", env=Target(True), state_dependent_std=True
    ),
    "a shared recurrent cell": functools.partial(trained, "ppo", "windows", **SHARED),
    **{
        name: functools.partial(trained, "ppo", "windows", rnn=name)
        for name in ("lru", "mingru", "transformer")
    },
    "minibatches": functools.partial(trained, "ppo", "windows", **MINIBATCHES),
    "statistics": functools.partial(trained, "gae", "windows", **STATISTICS),
    **{
        name: functools.partial(
            trained, "reinforce", optimizer=corrected(make), critic_optimizer=None
        )
        for name, make in (
            ("storm", variance_reduction.storm),
            ("svrpg", variance_reduction.svrpg),
            ("page_pg", variance_reduction.page_pg),
            ("harpg", variance_reduction.harpg),
            ("igt", lambda: variance_reduction.igt(optax.identity())),
        )
    },
    "masks": masks,
    **{
        f"sequences, {clip}": functools.partial(
            of_sequences, ratio="sequence_mean", clip=clip, kl="full", kl_place="loss"
        )
        for clip in ("asymmetric", "dual", "weight", "truncated", "masked", "soft_gate")
    },
    "sequences, over the batch": functools.partial(
        of_sequences, baseline="batch", scale="batch", credit="to_go", average="token", kl="k1"
    ),
    "sequences, by lengths": functools.partial(
        of_sequences, baseline="length_weighted", kl="k2", kl_place="sequence"
    ),
    "sequences, shrunk": functools.partial(of_sequences, baseline="shrinkage"),
    **{name: functools.partial(distribution, *kind) for name, kind in DISTRIBUTIONS.items()},
    "evaluate": functools.partial(evaluated, False),
    "evaluate, standardised": functools.partial(evaluated, True),
    "pathwise, evolution": pathwise_and_evolution,
    "the rest": the_rest,
}


@pytest.mark.slow
@pytest.mark.acceptance("J2")
@pytest.mark.parametrize("name", list(STRICT))
def test_nothing_is_promoted(name: str) -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        STRICT[name]()


@pytest.mark.slow
@pytest.mark.acceptance("J2")
def test_every_public_function_is_among_them() -> None:
    # Below what checks the arguments or, in tests, the signature.
    wanted = {inspect.unwrap(f).__code__: name for module in LIBRARY for name, f in public(module)}
    assert len(wanted) > 120
    with Called() as called:
        for f in STRICT.values():
            f()
    assert not {name for code, name in wanted.items() if code not in called}
