"""The problems: policies of several moments of training, each with critics that were fitted while
it was frozen.

A critic that training left behind would be as good as its estimator had made it: so that estimators
are compared and not their critics' histories, all get the same V and the same Q, regressed on
complete returns of the very policy.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pg import diagnostics, envs, networks, normalisation, rollout
from pg.config import Config, Hyperparams, merge_env_params
from pg.envs import Discrete
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.presets import preset
from pg.train import make_chunk, make_learner, training_keys

STAGES = {"start": 0.0, "middle": 0.5, "end": 1.0}  # share of the training that is done
GAMMA = 0.99
FIT = {"V": "state_value", "Q": "all_action"}  # what is regressed, and an estimator that does it
NOT_TUNED = (
    *("estimator", "collect", "num_envs", "num_updates", "num_steps"),
    *("num_epochs", "num_minibatches", "minibatch_size"),
)


class Subject(NamedTuple):
    """A problem, how its policy is trained, and how much is sampled of it."""

    label: str  # of the preset that trains it
    changes: dict[str, Any]  # of the preset
    num_estimates: int  # K, of each estimator at each moment
    at_once: int  # of which so many are made by one call
    fit_batches: int  # that a critic is fitted to
    fit_episodes: int  # of each

    def settings(self, env: Any) -> tuple[Config, Hyperparams]:
        """Of its training."""
        task = env if isinstance(env, str) else None
        return merge_env_params(
            *preset(self.label, env=_PROBLEMS.get(env, env), task=task, **self.changes)
        )


class Stage(NamedTuple):
    """A policy at a moment of its training, with its critics."""

    name: str
    updates: int  # done
    policy: Any  # parameters
    critics: dict[str, Any]  # parameters of "V" and, with discrete actions, of "Q"
    explained: dict[str, float]  # explained variance of each critic, on fresh episodes
    normaliser: Normaliser


_PROBLEMS: dict[str, TabularMDP] = {
    "gridworld": tabular.gridworld(["S..#", ".#..", "...G", "H..#"], horizon=20, slip=0.1),
    "garnet": tabular.garnet(3, num_states=6, num_actions=3, branching=3, horizon=10),
}
_TABULAR: dict[str, Any] = {
    "hidden_sizes": (),
    "num_envs": 32,
    "num_updates": 100,
    "learning_rate": 0.02,
}

# The names of problems and what is done with them. Where a policy is as good as it gets there is no
# gradient left to compare with: the end of training is where it still improves.
SUBJECTS: dict[str, Subject] = {
    "gridworld": Subject("leave_one_out", _TABULAR, 512, 512, 200, 512),
    "garnet": Subject("leave_one_out", _TABULAR, 512, 512, 200, 512),
    "Catch-bsuite": Subject("leave_one_out", {"num_updates": 200}, 512, 512, 100, 512),
    "CartPole-v1": Subject("state_value", {"num_updates": 30}, 256, 32, 100, 64),
    "Acrobot-v1": Subject("ppo", {"num_updates": 200}, 256, 32, 100, 64),
    "Pendulum-v1": Subject("ppo", {"num_updates": 240}, 256, 32, 100, 64),
    "Breakout-MinAtar": Subject("ppo", {"num_updates": 60}, 64, 8, 10, 32),
}


def stages(name: str, seed: int) -> list[Stage]:
    """A subject's policy at every one of STAGES, with critics. name: of SUBJECTS. Trains it first.

    Raises ValueError where that training meets a number that is not finite.
    """
    subject = SUBJECTS[name]
    config, h = subject.settings(name)
    key, fit_key = jax.random.split(jax.random.key(seed))
    init_key, keys = training_keys(key, 0, config.num_updates)
    state, chunk = jax.jit(make_learner(config, h).init)(init_key), jax.jit(make_chunk(config))
    longest = -(-config.num_updates // 2)  # one compilation for both halves
    fits = {
        kind: _fit(still(config, FIT[kind], subject.fit_episodes), subject.fit_batches)
        for kind in kinds(config)
    }
    found, done = [], 0
    for stage, share in STAGES.items():
        wanted = round(share * config.num_updates)
        if wanted > done:
            part = jnp.resize(keys[done:wanted], (longest,))
            state, done = chunk(state, part, h, jnp.int32(wanted - done))[0], wanted
        if int(state.skipped):
            raise ValueError(
                f"the training of the policy of {name} diverged within {done} updates, and there "
                "is nothing to measure: give it a smaller learning_rate"
            )
        fitted = {
            kind: fit(state.params.policy, state.normaliser, fit_key) for kind, fit in fits.items()
        }
        critics = {kind: critic for kind, (critic, _) in fitted.items()}
        explained = {kind: float(share) for kind, (_, share) in fitted.items()}
        found.append(Stage(stage, done, state.params.policy, critics, explained, state.normaliser))
    return found


def blank(name: str) -> Stage:
    """A stage of a subject as shapes alone: what its parameters look like."""
    config, h = SUBJECTS[name].settings(name)
    state = jax.eval_shape(make_learner(config, h).init, jax.random.key(0))

    def critic(kind: str) -> Any:
        own = still(config, FIT[kind], 1)
        _, policy, network = parts(own, Normaliser((), (), ()), 1)
        return jax.eval_shape(
            ESTIMATORS[FIT[kind]](policy, network, Hyperparams()).init, jax.random.key(0)
        )[0].critic

    critics = {kind: critic(kind) for kind in kinds(config)}
    return Stage("", 0, state.params.policy, critics, {}, state.normaliser)


def still(config: Config, estimator: str, num_envs: int, group_size: int = 1) -> Config:
    """The same problem and networks with another estimator, for complete episodes of a policy that
    stands still.
    """
    kept = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(Config)
        if f.name not in NOT_TUNED
    }
    kept |= {
        "scale_rewards": False,
        "advantages": "raw",
        "optimizer": "adam",
        "group_size": group_size,
    }
    return Config(
        **{
            **kept,
            "estimator": estimator,
            "collect": "episodes",
            "num_envs": num_envs,
            "preset": None,
        }
    )


def kinds(config: Config) -> list[str]:
    """The critics that there can be: Q needs discrete actions."""
    discrete = isinstance(envs.configured(config, 1).action_space, Discrete)
    return ["V", "Q"] if discrete else ["V"]


def parts(
    config: Config, normaliser: Normaliser, num_envs: int
) -> tuple[envs.Env, Network, Network]:
    """The environment, the policy and the critic of a Config, seeing what the normaliser makes of
    observations.
    """
    env = envs.configured(config, num_envs)
    plain = networks.make_policy(config, env), networks.make_critic(config, env)
    policy, critic = (normalisation.standardised(network, normaliser) for network in plain)
    return env, policy, _in_units(critic)


def _in_units(critic: Network) -> Network:
    """The critic, whose output is taken in units of its own: returns of -1000 are out of reach of
    small weights.
    """

    def init(key: jax.Array) -> dict[str, Any]:
        return {"network": critic.init(key), "scale": jnp.ones(()), "shift": jnp.zeros(())}

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        scale, shift = jax.lax.stop_gradient((params["scale"], params["shift"]))
        carry, output = critic.apply(params["network"], carry, obs, first)
        return carry, shift + scale * output

    return Network(init, apply, critic.carry)


def _fit(config: Config, batches: int, passes: int = 10) -> Callable[..., tuple[Any, jax.Array]]:
    """policy, normaliser, key -> a critic fitted by Adam to complete returns, and how much it
    explains, [].
    """
    opt = optax.adam(optax.cosine_decay_schedule(0.003, batches * passes))

    def fit(policy_params: Any, normaliser: Normaliser, key: jax.Array) -> tuple[Any, jax.Array]:
        env, policy, critic = parts(config, normaliser, config.num_envs)
        est = ESTIMATORS[config.estimator](policy, critic, Hyperparams(gamma=GAMMA, value_coef=1.0))
        actor = networks.actor(policy, critic)
        init_key, new_key, key = jax.random.split(key, 3)
        start, state = est.init(init_key)

        def sampled(params: Params, key: jax.Array) -> Weighted:
            return est.weigh(
                params, state, rollout.episodes(env, actor, params, key, config.horizon)
            )[0]

        def improve(learned: Any, key: jax.Array) -> tuple[Any, None]:
            batch = sampled(Params(policy_params, learned[0]), key)

            def step(_: jax.Array, learned: Any) -> Any:
                grads = est.grad(Params(policy_params, learned[0]), batch)[0].critic
                updates, opt_state = opt.update(grads, learned[1])
                return optax.apply_updates(learned[0], updates), opt_state

            return jax.lax.fori_loop(0, passes, step, learned), None

        seen = sampled(start._replace(policy=policy_params), init_key)
        units = {
            "scale": jnp.std(seen.target, where=seen.traj.valid) + 1e-6,
            "shift": jnp.mean(seen.target, where=seen.traj.valid),
        }
        begun = start.critic | units, opt.init(start.critic)
        fitted = Params(
            policy_params, jax.lax.scan(improve, begun, jax.random.split(key, batches))[0][0]
        )
        return fitted.critic, _explained(est, fitted, sampled(fitted, new_key))

    return jax.jit(fit)


def _explained(est: Estimator, params: Params, batch: Weighted) -> jax.Array:
    """1 - the critic's squared error over the variance of its targets, []; NaN where these are
    equal.
    """
    squared_error = 2.0 * est.grad(params, batch)[1]["value_loss"]
    return diagnostics.explained_share(squared_error, batch.target, batch.traj.valid)
