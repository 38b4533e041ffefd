"""Training on a sequence task from a policy that was pretrained on noisy examples."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pg.config import Config
from pg.envs import configured, sequence_tasks
from pg.estimators import sequence_estimator
from pg.exact import tabular
from pg.networks import make_policy
from pg.train import make_learner, training_keys

TASK = sequence_tasks.reverse(num_symbols=2, num_places=4)
SEQUENCES, GROUP = 64, 4  # per batch, per group
RIGHT = 0.6  # share of correct tokens in the examples
NETWORK: dict[str, Any] = {"hidden_sizes": (32, 32), "preset": None}


class Method(NamedTuple):
    """An estimator and its training settings."""

    settings: dict[str, Any]  # of Config
    gae_lambda: float = 1.0
    epsilon: float = 0.2


METHODS = {
    "RLOO": Method({"estimator": sequence_estimator(), "group_size": GROUP}),
    "PPO, one step": Method({"estimator": "ppo", "advantages": "minibatch"}),
    "PPO, 16 steps": Method(
        {"estimator": "ppo", "advantages": "minibatch", "num_epochs": 4, "num_minibatches": 4}
    ),
}


def untrained() -> Any:
    """The parameters of a policy before any training."""
    config = Config(env=TASK, num_envs=1, **NETWORK)
    return make_policy(config, configured(config, 1)).init(jax.random.key(0))


def imitation(steps: int = 300) -> Any:
    """The parameters of a policy trained by maximum likelihood on examples in which, after every
    prefix, the correct token has probability RIGHT and the others are equally likely.

    Args:
        steps: number of steps of Adam.
    """
    config = Config(env=TASK, num_envs=1, **NETWORK)
    policy = make_policy(config, configured(config, 1))
    mdp = tabular.prefix_tree(TASK)
    examples = jnp.asarray(_examples())

    def loss(params: Any) -> jax.Array:
        logits = tabular.table(mdp, policy, params)[:-1]  # without the end
        return -jnp.mean(jnp.sum(examples * jax.nn.log_softmax(logits), axis=1))

    optimizer = optax.adam(0.01)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    start = (untrained(), optimizer.init(untrained()))
    return jax.jit(lambda x: jax.lax.scan(step, x, None, steps)[0][0])(start)


def _examples() -> np.ndarray:
    """The distribution of the examples' next token after each prefix, [R, V]."""
    wrong = (1.0 - RIGHT) / (TASK.num_tokens - 1)
    table = np.full((TASK.num_prefixes, TASK.num_tokens), wrong)
    for row, (prompt, tokens) in enumerate(TASK.prefixes):
        answer = [*reversed(TASK.prompts[prompt]), TASK.end_token]
        table[row, answer[len(tokens)]] = RIGHT
    return table


def rewards(
    method: Method, policy: Any, rates: Sequence[float], seeds: Iterable[int], updates: int
) -> np.ndarray:
    """The mean reward of each batch, [rates, seeds, updates].

    Args:
        method: the estimator and its settings.
        policy: the initial parameters of the policy.
        rates: learning rates.
        seeds: their keys are those of these numbers.
        updates: number of batches.
    """
    rate, seed = np.meshgrid(rates, list(seeds), indexing="ij")
    keys = jnp.stack([jax.random.key(int(x)) for x in seed.ravel()])
    program = _program(tuple(method.settings.items()), updates)
    found = program(
        jnp.asarray(rate.ravel(), float), keys, policy, method.gae_lambda, method.epsilon
    )
    return np.asarray(found).reshape(*rate.shape, updates)


@functools.cache
def _program(settings: tuple[tuple[str, Any], ...], updates: int) -> Callable[..., jax.Array]:
    """The compiled training for `settings` of Config, shared by all rates, initial policies, λ and
    clips.
    """
    config = Config(env=TASK, num_envs=SEQUENCES, num_updates=updates, **NETWORK, **dict(settings))

    def run(
        rate: jax.Array, key: jax.Array, policy: Any, gae_lambda: jax.Array, epsilon: jax.Array
    ) -> jax.Array:
        h = config.hyperparams()._replace(
            learning_rate=rate, gae_lambda=gae_lambda, epsilon=epsilon
        )
        learner = make_learner(config, h)
        first, keys = training_keys(key, 0, updates)
        state = learner.init(first)
        state = state._replace(params=state.params._replace(policy=policy))
        return jax.lax.scan(learner.step, state, keys)[1]["return"]

    return jax.jit(jax.vmap(run, (0, 0, None, None, None)))
