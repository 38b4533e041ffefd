"""What docs/reliability.md promises, where no other test reaches its figure. The names begin with
the ids.
"""

import dataclasses
import functools
import hashlib
import inspect
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from toys import Clock, ClockState, Target

from pg import (
    baselines,
    diagnostics,
    distributions,
    networks,
    normalisation,
    returns,
    rollout,
    surrogates,
)
from pg import evaluate as evaluation
from pg import train as training
from pg.benchmarks import learning, suites
from pg.config import ENVIRONMENTS, UNSUPPORTED, ActionDistribution, Config, Hyperparams
from pg.envs import Box, gymnax, make_env
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
)
from pg.estimators.facts import FACTS
from pg.exact.tabular import garnet
from pg.fast import devices
from pg.optimizers import curvature, variance_reduction
from pg.presets import preset
from pg.runs import execution, memory, results
from pg.sweep import sweep
from pg.train import make_chunk, make_learner, make_train, training_keys

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)
MDP = garnet(0, num_states=3, num_actions=2, branching=2, horizon=3)
ONE = devices.layout(most=1)
TINY = Config(
    env=MDP, estimator="leave_one_out", num_envs=4, num_updates=50, hidden_sizes=(), preset=None
)
TRACED = jax.tree.map(jnp.float32, Hyperparams())._replace(
    n_step=jnp.int32(5), snapshot_period=jnp.int32(10)
)
WINDOWS = Config(
    env=MDP, estimator="ppo", collect="windows",
    num_envs=4, num_steps=8, num_updates=3, num_epochs=2,
    num_minibatches=2, hidden_sizes=(), preset=None
)  # fmt: skip


def digest(tree: Any) -> str:
    """Of every bit of a tree of arrays."""
    return hashlib.sha256(
        b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(tree))
    ).hexdigest()


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


# D: the same bits


@functools.cache
def solo() -> Any:
    """One run of TINY, hyperparameters traced as they are in every run."""
    return jax.jit(make_train(TINY))


@functools.cache
def sixty_four() -> tuple[Any, Any, Any]:
    """64 runs of TINY side by side: the program, their keys, and states and metrics as numpy
    arrays.
    """
    many, keys = jax.jit(jax.vmap(make_train(TINY), (0, None))), jax.random.split(KEY, 64)
    return many, keys, jax.tree.map(np.asarray, many(keys, TRACED))


def one(tree: Any, index: int) -> Any:
    """Run number `index` of leaves [n, ...]."""
    return jax.tree.map(lambda x: x[index], tree)


@pytest.mark.slow
@pytest.mark.acceptance("D4")
def test_d4_permuted_seeds_are_the_same_runs() -> None:
    """64 of 64, bit for bit, at one width."""
    many, keys, found = sixty_four()
    order = np.random.default_rng(0).permutation(64)
    assert_equal(many(keys[order], TRACED), one(found, order))


@pytest.mark.slow
@pytest.mark.acceptance("D4")
def test_d4_seeds_side_by_side_are_the_single_runs() -> None:
    """After 50 updates, 8 of 8: bit for bit one after the other (`exact`), within 1e-5 mapped."""
    _, keys, mapped = sixty_four()
    with jax.set_mesh(ONE.mesh):
        train = devices.side_by_side(lambda key: make_train(TINY)(key, TRACED), ONE, exact=True)
        exact = jax.jit(train)(keys[:8])
    for i in range(8):
        state, metrics = solo()(keys[i], TRACED)
        assert_equal(one(exact, i), (state, metrics))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            one(mapped[0].params, i),
            state.params,
        )


@pytest.mark.acceptance("D5")
def test_d5_every_seed_is_a_run_of_its_own() -> None:
    """64 seeds, 64 hashes of what was trained."""
    states, metrics = sixty_four()[2]
    assert len({digest(one(states, i)) for i in range(64)}) == 64
    assert metrics["return"].std(axis=0).min() > 0


@pytest.mark.slow
@pytest.mark.acceptance("D5")
def test_d5_a_seed_changes_each_of_its_streams() -> None:
    """Parameters, first observations, actions in a given state and minibatches: 64 seeds, 64 of
    each.
    """
    config = Config(
        env=Clock(),
        estimator="ppo",
        collect="windows",
        num_envs=32,
        num_steps=16,
        num_minibatches=4,
        preset=None,
    )
    env = make_env(config.env, config.num_envs)
    policy = networks.make_policy(config, env)
    params, standing = policy.init(KEY), rollout.start(env, policy, KEY)

    def streams(key: jax.Array) -> dict[str, Any]:
        init_key, keys = training_keys(key, 0, 1)
        state = make_learner(config).init(init_key)
        collect_key, shuffle_key = jax.random.split(keys[0])
        action = rollout.windows(env, policy, params, collect_key, standing, 6)[1].action
        shuffled = training._minibatches(config, shuffle_key)
        return {
            "init": state.params,
            "reset": state.rollout.obs,
            "action": action,
            "shuffle": shuffled,
        }

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(streams))(jax.random.split(KEY, 64)))
    for name, stream in found.items():
        assert len({digest(one(stream, i)) for i in range(64)}) == 64, name


TWO_DEVICES = """
import json, time
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from pg.fast import devices
from pg.runs import execution
from pg.config import Config, Hyperparams

sizes = {"num_envs": 8, "num_steps": 32, "num_updates": 30, "hidden_sizes": (16,)}
config = Config(estimator="gae", collect="windows", **sizes)
found, seconds = [], []
for where in (devices.layout(most=1), devices.layout()):
    h = execution.broadcast(Hyperparams(), 16)
    programs = execution.compile_programs(config, h, where, 16)
    keys = execution.seed_keys(range(16))[0]
    took = []
    for _ in range(4):
        began = time.monotonic()
        states = devices.fetch(execution.train(programs, keys, h).states.params, where)
        took.append(time.monotonic() - began)
    found.append(jax.tree.leaves(states))
    seconds.append(min(took))
gap = max(float(np.abs(a - b).max()) for a, b in zip(*found))
print(json.dumps([jax.device_count(), gap, seconds[1] / seconds[0]]))
"""


@pytest.mark.slow
@pytest.mark.acceptance("D8")
def test_d8_two_devices_compute_what_one_does() -> None:
    """16 seeds, 30 updates: parameters within 1e-5, in at most twice the time."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO_DEVICES]
    out = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    count, gap, ratio = np.fromstring(out.stdout.splitlines()[-1].strip("[]"), sep=",")
    assert count == 2
    assert gap <= 1e-5
    assert ratio <= 2.0


# J: JAX


class Recorder:
    """What becomes of every key: drawn from or split, or folded with a number, once per run of the
    program.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.consumed, self.folded = Counter[bytes](), Counter[tuple[bytes, bytes]]()
        for name, f in inspect.getmembers(jax.random, callable):
            parameters = list(inspect.signature(f).parameters) if inspect.isroutine(f) else []
            if parameters[:1] == ["key"] and name not in ("clone", "key_data", "key_impl"):
                monkeypatch.setattr(jax.random, name, self.watched(name, f))

    def watched(self, name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        """`f`, with a note of its key."""

        def recorded(key: jax.Array, *args: Any, **kwargs: Any) -> Any:
            data = (
                jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
            )
            if name == "fold_in":
                jax.debug.callback(self.fold, data, *args, **kwargs)
            else:
                jax.debug.callback(self.consume, data)
            return f(key, *args, **kwargs)

        return recorded

    def consume(self, data: Any) -> None:
        """Notes one key, or several [..., 2]."""
        self.consumed.update(row.tobytes() for row in np.asarray(data).reshape(-1, 2))

    def fold(self, key: Any, data: Any) -> None:
        """Notes a key and what it was folded with."""
        self.folded[np.asarray(key).tobytes(), str(int(data)).encode()] += 1

    def reused(self) -> int:
        """Keys used twice, or in two ways."""
        jax.effects_barrier()
        parents = {key for key, _ in self.folded}
        twice = [n for n in (*self.consumed.values(), *self.folded.values()) if n > 1]
        return len(twice) + len(parents & set(self.consumed))


@pytest.mark.slow
@pytest.mark.acceptance("J1")
@pytest.mark.parametrize("config", [WINDOWS, TINY], ids=["windows", "episodes"])
def test_j1_every_key_is_used_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are drawn from, split or folded in three updates, those within a vmap too."""
    recorder = Recorder(monkeypatch)
    init_key, keys = training_keys(KEY, 0, 3)
    learner = make_learner(config)
    jax.block_until_ready(
        jax.jit(lambda k, ks: jax.lax.scan(learner.step, learner.init(k), ks))(init_key, keys)
    )
    assert recorder.reused() == 0
    assert len(recorder.consumed) > 50
    assert len(recorder.folded) > 5


@pytest.mark.acceptance("J1")
@pytest.mark.parametrize(
    "f",
    [
        lambda key: jax.random.normal(key) + jax.random.uniform(key),
        lambda key: jax.random.normal(key) + jax.random.uniform(jax.random.split(key)[0]),
        lambda key: (
            jax.random.normal(jax.random.fold_in(key, 0))
            + jax.random.uniform(jax.random.fold_in(key, 0))
        ),
        lambda key: (
            jax.vmap(lambda x: x + jax.random.normal(key))(jnp.arange(2.0)) + jax.random.bits(key)
        ),
    ],
)
def test_j1_the_recorder_sees_a_reuse(
    f: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    jax.block_until_ready(jax.jit(lambda key: f(key))(KEY))
    assert recorder.reused() > 0


LIBRARY = (
    *(
        baselines,
        diagnostics,
        distributions,
        evaluation,
        evolution,
        networks,
        normalisation,
        pathwise,
        returns,
    ),
    *(
        rollout,
        surrogates,
        action_values,
        average_reward,
        base,
        bootstrapped,
        episodic,
        grouped,
        off_policy,
    ),
    *(curvature, variance_reduction, training),
)


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


def law(kind: Any, num_fields: int) -> None:
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


class Smooth(Target):
    """One step whose reward has a derivative."""

    _supports_transition_gradients = True


def pathwise_and_evolution() -> None:
    """Traces the gradients that are of no estimator."""
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
    assert not networks.image_description(Config(preset=None), env)
    images = env._replace(obs_shape=(5, 5, 2))
    for make in (networks.make_policy, networks.make_critic):
        network = make(Config(hidden_sizes=(4,), preset=None), images)
        jax.eval_shape(
            lambda key, f=network: f.apply(
                f.init(key), (), jnp.ones((4, 5, 5, 2)), jnp.ones(4, bool)
            ),
            KEY,
        )


def corrected(make: Callable[[], Any]) -> Callable[[Any], Any]:
    """STORM-PG or SVRPG before plain SGD."""
    return lambda rate: optax.chain(make(), optax.sgd(rate))


SHARED = {"rnn": "gru", "shared_torso": True, "advantages": "batch"}
MINIBATCHES = {"rnn": "lstm", "num_epochs": 2, "num_minibatches": 2, "advantages": "minibatch"}
STATISTICS = {"normalise_observations": True, "scale_rewards": True}
LAWS = {"categorical": (distributions.Categorical, 1), "gaussian": (distributions.Gaussian, 2)}
LAWS |= {"tanh": (distributions.TanhGaussian, 4), "censored": (distributions.CensoredGaussian, 4)}
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
    "a shared memory": functools.partial(trained, "ppo", "windows", **SHARED),
    "minibatches": functools.partial(trained, "ppo", "windows", **MINIBATCHES),
    "statistics": functools.partial(trained, "gae", "windows", **STATISTICS),
    "storm": functools.partial(trained, "reinforce", optimizer=corrected(variance_reduction.storm)),
    "svrpg": functools.partial(trained, "reinforce", optimizer=corrected(variance_reduction.svrpg)),
    **{name: functools.partial(law, *kind) for name, kind in LAWS.items()},
    "evaluate": functools.partial(evaluated, False),
    "evaluate, standardised": functools.partial(evaluated, True),
    "pathwise, evolution": pathwise_and_evolution,
    "the rest": the_rest,
}


@pytest.mark.slow
@pytest.mark.acceptance("J2")
@pytest.mark.parametrize("name", list(STRICT))
def test_j2_nothing_is_promoted(name: str) -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        STRICT[name]()


@pytest.mark.slow
@pytest.mark.acceptance("J2")
def test_j2_every_public_function_is_among_them() -> None:
    wanted = {f.__code__: name for module in LIBRARY for name, f in public(module)}
    assert len(wanted) > 120
    with Called() as called:
        for f in STRICT.values():
            f()
    assert not {name for code, name in wanted.items() if code not in called}


@pytest.mark.slow
@pytest.mark.acceptance("J3")
def test_j3_neither_a_sweep_nor_an_evaluation_leaks() -> None:
    """Training by itself: test_train.py."""
    with jax.checking_leaks():
        state, _ = sweep(dataclasses.replace(TINY, num_updates=2), range(2), where=ONE)
        params = jax.tree.map(lambda x: x[0, 0], state.params.policy)
        jax.jit(lambda p: evaluation.evaluate(TINY, p, KEY, 4))(params)


LEARNING_RATES = (0.003, np.float64(0.003), np.float32(0.003), jnp.float32(0.003), np.array(0.003))


@pytest.mark.acceptance("J4", "J6")
def test_j4_one_compilation_serves_all_chunks() -> None:
    """100 of them, learning rates of five kinds, states that were on the host in between; and
    nothing is donated.
    """
    many = jax.jit(jax.vmap(make_chunk(TINY)))
    keys = jax.random.split(KEY, (2, 1))
    states = start = jax.jit(jax.vmap(make_learner(TINY).init))(keys[:, 0])
    for i in range(100):
        h = execution.broadcast(Hyperparams(learning_rate=LEARNING_RATES[i % 5]), 2)
        states, _ = many(states, keys, h)
        if i == 50:
            states = jax.tree.map(jnp.asarray, jax.device_get(states))
    assert many._cache_size() == 1
    assert not any(x.is_deleted() for x in jax.tree.leaves((keys, start)))


@pytest.mark.acceptance("J6")
def test_j6_the_callers_arrays_are_left_alone() -> None:
    key, h = jax.random.key(1), jax.tree.map(jnp.copy, TRACED)
    first, second = solo()(key, h), solo()(key, h)
    assert not any(x.is_deleted() for x in jax.tree.leaves((key, h, first)))
    assert_equal(first, second)


@pytest.mark.acceptance("J6")
def test_j6_a_state_that_was_given_away_cannot_be_used_again() -> None:
    h = execution.broadcast(Hyperparams(), 2)
    programs = execution.compile_programs(TINY, h, ONE, 2)
    data = np.asarray(jax.random.key_data(jax.random.split(KEY, 2)))
    keys, h = devices.place((data, h), ONE.sharding)
    count = devices.place(np.int32(1), ONE.everywhere)
    states = programs.init(keys, h)
    after, _ = programs.advance(states, keys, h, count)
    with pytest.raises(ValueError, match="deleted or donated"):
        programs.advance(states, keys, h, count)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(states.update)
    programs.advance(after, keys, h, count)


@pytest.mark.acceptance("J8")
def test_j8_steps_are_counted_beyond_32_bits() -> None:
    """From 2³¹ - 1024 and 2³² - 1024 on, four chunks, in what is written and drawn."""
    for start in (2**31 - 1024, 2**32 - 1024):
        each = np.array([start - 3 * (start // 4), *[start // 4] * 3, *[500] * 8], np.int32)[None]
        metrics = {"env_steps": each, "return": np.ones((1, 12)), "episodes": np.ones((1, 12), int)}
        rows = results.long_form(metrics, seed=np.arange(1))
        steps, _ = results.curve(metrics)
        for total in (rows["total_env_steps"], steps[0]):
            np.testing.assert_array_equal(total[3:], start + 500 * np.arange(9))
            assert (np.diff(total) > 0).all()
        taken = dict.fromkeys(("grad_norm", "nonfinite", "skipped"), np.zeros((1, 12)))
        done = execution.Run(None, metrics | taken, True, None, 0.0, 0.0)
        assert results.summarise(done, None, [0], greedy=False)["env_steps"] == start + 4000


@pytest.mark.acceptance("J8")
def test_j8_updates_are_counted_up_to_the_last() -> None:
    """Four chunks up to number 2³¹ - 2, the last that an int32 can have a successor of: keys and
    courses go on.
    """
    first = 2**31 - 10
    config = Config(
        env=MDP,
        num_envs=4,
        num_updates=2**31 - 1,
        hidden_sizes=(),
        entropy_schedule="linear",
        preset=None,
    )

    def advance(state: Any) -> Any:
        keys = training_keys(KEY, state.update, 2)[1]
        return make_chunk(config)(state, keys, Hyperparams())[0], jax.random.key_data(keys)

    state, advance = (
        make_learner(config).init(KEY)._replace(update=jnp.int32(first)),
        jax.jit(advance),
    )
    numbers, keys = [int(state.update)], []
    for _ in range(4):
        state, data = advance(state)
        numbers.append(int(state.update))
        keys.append(np.asarray(data))
    assert numbers == list(range(first, 2**31 - 1, 2))
    expected = training_keys(KEY, np.int32(0), 1)[1]
    assert len(np.unique(np.concatenate([*keys, jax.random.key_data(expected)]), axis=0)) == 9
    course = [
        float(training.scheduled(config, Hyperparams(entropy_coef=1.0), jnp.int32(n)).entropy_coef)
        for n in numbers
    ]
    assert course == sorted(course, reverse=True)
    assert 0 <= course[-1] <= course[0] < 1e-6


@pytest.mark.acceptance("J9")
def test_j9_accumulators_hold_what_they_were_given() -> None:
    """Mean and variance of observations and of returns over 2²⁵ items, against 64-bit floats."""
    T, B, rounds, gamma = 128, 256, 2**10, 0.9
    g = np.random.default_rng(0)
    normaliser = normalisation.start(
        Config(normalise_observations=True, scale_rewards=True, num_envs=B, preset=None), ()
    )

    @jax.jit
    def observe(normaliser: Any, x: jax.Array, first: jax.Array) -> Any:
        fields = dict.fromkeys(rollout.Trajectory._fields, ())
        valid = jnp.ones((T, B), bool)
        return normalisation.observe(
            normaliser,
            rollout.Trajectory(**{**fields, "obs": x, "reward": x, "first": first, "valid": valid}),
            gamma,
        )

    sums, so_far = np.zeros((2, 2)), np.zeros(B)
    for _ in range(rounds):
        x = g.standard_normal((T, B), np.float32) + np.float32(3)
        first = g.random((T, B), np.float32) < 0.02
        normaliser = observe(normaliser, x, first)
        exact, total = x.astype(np.float64), np.empty((T, B))
        for t in range(T):
            so_far = total[t] = exact[t] + gamma * np.where(first[t], 0.0, so_far)
        sums += [[y.sum(), (y**2).sum()] for y in (exact, total)]
    mean = sums[:, 0] / 2**25
    var = sums[:, 1] / 2**25 - mean**2
    for moments, m, v in zip((normaliser.obs, normaliser.returns), mean, var, strict=True):
        assert float(moments.number.high) + float(moments.number.low) == 2**25
        np.testing.assert_allclose([moments.mean.high, moments.var.high], [m, v], rtol=1e-6)


@pytest.mark.acceptance("J10")
def test_j10_environments_are_made_without_compiling_again() -> None:
    """40 times, used each time, in less than 5 MB."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )

    def used() -> None:
        env = make_env("CartPole-v1", 2)
        state, _ = env.reset(KEY)
        jax.block_until_ready(env.step(KEY, state, jnp.zeros(2, int)))

    used()
    assert compiled
    used()
    compiled.clear()
    before = memory.resident()
    for _ in range(40):
        used()
    assert not compiled
    assert memory.resident() - before < 5e6


# T: what is learned


@struct.dataclass
class RingParams(environment.EnvParams):
    max_steps_in_episode: int = 8
    worthless: float = 0.0


class Ring(environment.Environment):
    """Eight places in a ring, reward 1 and no end; a reset may lead to a ninth place, where all is
    worth 0.
    """

    @property
    def default_params(self) -> RingParams:
        return RingParams()

    def reset_env(self, key: jax.Array, params: RingParams) -> tuple[jax.Array, ClockState]:
        place = jnp.where(jax.random.bernoulli(key, params.worthless), 8, 0)
        state = ClockState(place=place, time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: RingParams) -> Any:
        place = jnp.where(state.place == 8, 8, (state.place + 1) % 8)
        state = ClockState(place=place, time=state.time + 1)
        return self.get_obs(state), state, (place < 8).astype(float), jnp.bool_(False), {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        return jax.nn.one_hot(state.place, 9)

    def action_space(self, params: RingParams) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: RingParams) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (9,), jnp.float32)


def misread(traj: Any, rule: jax.Array) -> Any:
    """rule 1: a time limit is a termination; rule 2: the successor is what the reset showed; 0:
    neither.
    """
    shown = jnp.concatenate([traj.obs[1:], traj.next_obs[-1:]])
    return traj._replace(
        terminated=traj.terminated | ((rule == 1) & traj.truncated),
        next_obs=jnp.where((rule == 2) & traj.done[..., None], shown, traj.next_obs),
    )


@pytest.mark.acceptance("T1")
def test_t1_a_time_limit_is_no_end() -> None:
    """V = 1 / (1 - 0.9) = 10 all around the ring, whatever a reset is worth; two wrong rules give
    something else.
    """
    config = Config(
        env=Ring(),
        estimator="gae",
        collect="windows",
        num_envs=16,
        num_steps=20,
        num_updates=400,
        hidden_sizes=(32,),
        preset=None,
    )
    critic = networks.make_critic(config, make_env(config.env, 1))

    def values(rule: jax.Array, worthless: jax.Array) -> jax.Array:
        def wrongly(policy: Any, critic: Any, h: Hyperparams) -> Any:
            right = ESTIMATORS["gae"](policy, critic, h)
            return right._replace(
                weigh=lambda params, state, traj: right.weigh(params, state, misread(traj, rule))
            )

        h = Hyperparams(gamma=0.9, learning_rate=0.01, env_params={"worthless": worthless})
        params = make_train(config, estimator=wrongly)(KEY, h)[0].params
        return critic.apply(params.critic, (), jnp.eye(9), jnp.zeros(9, bool))[1]

    rules, worthless = jnp.array([0, 0, 1, 2]), jnp.array([0.0, 0.5, 0.0, 0.5])
    plain, apart, terminal, reset = np.asarray(jax.jit(jax.vmap(values))(rules, worthless))
    np.testing.assert_allclose(plain[:8], 10.0, atol=0.1)
    np.testing.assert_allclose(apart[:8], 10.0, atol=0.1)
    assert abs(apart[8]) < 0.1
    np.testing.assert_allclose(terminal[0], (1 - 0.9**8) / (1 - 0.9), atol=0.1)  # 5.7
    assert (reset[:8] < 9.9).all()
    assert reset[0] < 9.0


@pytest.mark.acceptance("T2")
def test_t2_returns_are_the_float64_loop() -> None:
    """1,000 random patterns of ends, terminated, truncated or both, in single precision: within
    1e-5.
    """
    T, N, gamma, lambda_ = 16, 1000, 0.9, 0.8
    g = np.random.default_rng(0)
    kind = g.choice(4, (T, N), p=[0.55, 0.15, 0.15, 0.15])
    terminated, truncated = np.isin(kind, (1, 3)), np.isin(kind, (2, 3))
    reward, v_t, v_tp1, rho = g.standard_normal((4, T, N)).astype(np.float32)
    rho = np.exp(rho)
    assert len(np.unique(kind, axis=1).T) == N

    expected = {
        name: np.zeros((T, N)) for name in ("to_go", "gae", "one_step", "target", "advantage")
    }
    to_go = trace = ahead = np.zeros(N)  # of what follows
    x = {"r": reward, "v": v_t, "w": v_tp1, "rho": rho}
    for t in reversed(range(T)):
        r, v, w, p = (y[t].astype(np.float64) for y in x.values())
        goes_on, bootstrap = (
            ~(terminated[t] | truncated[t]),
            gamma * np.where(terminated[t], 0.0, w),
        )
        delta = r + bootstrap - v
        to_go, trace = (
            r + gamma * np.where(goes_on, to_go, 0.0),
            delta + gamma * lambda_ * np.where(goes_on, trace, 0.0),
        )
        target_after = np.where(terminated[t], 0.0, w + np.where(goes_on, ahead, 0.0))
        expected["advantage"][t] = np.minimum(1, p) * (r + gamma * target_after - v)
        ahead = np.minimum(1, p) * (delta + gamma * lambda_ * np.where(goes_on, ahead, 0.0))
        for name, value in {
            "to_go": to_go,
            "gae": trace,
            "one_step": delta,
            "target": v + ahead,
        }.items():
            expected[name][t] = value
    ends = reward, terminated, truncated, v_t, v_tp1
    target, advantage = returns.vtrace(rho, *map(jnp.asarray, ends), gamma, lambda_)
    found = {
        "to_go": returns.reward_to_go(reward, terminated | truncated, gamma),
        "gae": returns.gae(*ends, gamma, lambda_),
        "one_step": returns.n_step(*ends, gamma, 1),
        "target": target,
        "advantage": advantage,
    }
    for name, value in found.items():
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)


# as in test_probes.py, the probe a traced parameter
PROBES = ("constant", "observed", "delayed", "action", "both")


@struct.dataclass
class ProbeParams(environment.EnvParams):
    max_steps_in_episode: int = 3
    kind: int = 0


class Probe(Target):
    """All five; the observation is (side, time), and the best action 1, or of a continuous one 0.5,
    or its sign.
    """

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams()

    def reset_env(self, key: jax.Array, params: ProbeParams) -> tuple[jax.Array, ClockState]:
        sided = (params.kind == 1) | (params.kind == 4)
        state = ClockState(
            place=jnp.where(sided & jax.random.bernoulli(key), -1.0, 1.0), time=jnp.int32(0)
        )
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: ProbeParams) -> Any:
        done = state.time == jnp.where(params.kind == 2, 1, 0)
        sign = jnp.where(params.kind == 4, state.place, 1.0)
        good = (
            1.0 - (action[0] - 0.5 * sign) ** 2 if self.continuous else (2.0 * action - 1.0) * sign
        )
        reward = jnp.stack([jnp.ones(()), state.place, done.astype(float), good, good])[params.kind]
        state = ClockState(place=state.place, time=state.time + 1)
        return self.get_obs(state), state, reward, done, {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.place, state.time.astype(float)])

    def action_space(self, params: ProbeParams) -> Any:
        return spaces.Box(-2.0, 2.0, (1,), jnp.float32) if self.continuous else spaces.Discrete(2)

    def observation_space(self, params: ProbeParams) -> spaces.Box:
        return spaces.Box(-1.0, 3.0, (2,), jnp.float32)


@pytest.mark.slow
@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_t3_probes_are_learned(continuous: bool) -> None:
    """Five probes × five seeds, all within 0.1: V of the first three, the policy's choice in the
    last two.
    """
    gamma = 0.8
    sizes = {
        "num_envs": 32,
        "num_steps": 4,
        "num_updates": 300,
        "hidden_sizes": (16,),
        "schedule": "linear",
    }
    config = Config(env=Probe(continuous), estimator="gae", collect="windows", **sizes, preset=None)
    env = make_env(config.env, 3)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    seen = jnp.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])

    def learned(kind: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = Hyperparams(learning_rate=0.02, gamma=gamma, env_params={"kind": kind})
        params = make_train(config)(key, h)[0].params
        first = jnp.zeros(3, bool)
        dist = policy.apply(params.policy, (), seen, first)[1]
        choice = dist.mode()[:, 0] if continuous else jax.nn.softmax(dist.logits)[:, 1]
        return critic.apply(params.critic, (), seen, first)[1], choice

    kinds, keys = jnp.repeat(jnp.arange(5), 5), jnp.tile(jax.random.split(KEY, 5), 5)
    found = jax.jit(jax.vmap(learned))(kinds, keys)
    value, choice = (np.asarray(x).reshape(5, 5, 3) for x in found)  # [probe, seed, observation]
    best = [[-0.5, 0.5], [0.5]] if continuous else [[0.0, 1.0], [1.0]]
    errors = {
        "constant": value[0, :, 1:2] - 1,
        "observed": value[1, :, :2] - [-1, 1],
        "delayed": value[2, :, 1:] - [gamma, 1],
        "action": choice[3, :, 1:2] - best[1],
        "both": choice[4, :, :2] - best[0],
    }
    within = {name: int((np.abs(error).max(axis=1) <= 0.1).sum()) for name, error in errors.items()}
    assert within == dict.fromkeys(PROBES, 5), errors


def rolled(name: str) -> tuple[Any, Any, bool]:
    """An environment cut at five steps, twelve random steps in it, and whether it clips an action
    to its box.
    """
    # gymnax's BernoulliBandit takes a float only
    limit = type(gymnax.make(name)[1].max_steps_in_episode)(5)
    env = make_env(name, 3, {"max_steps_in_episode": limit})
    policy = networks.make_policy(Config(hidden_sizes=(), preset=None), env)
    params = policy.init(KEY)

    def roll(key: jax.Array) -> Any:
        standing = rollout.start(env, policy, key)
        return rollout.windows(env, policy, params, jax.random.fold_in(key, 1), standing, 12)[1]

    traj = jax.tree.map(np.asarray, jax.jit(jax.vmap(roll))(jax.random.split(KEY, 2)))
    state, space = env.reset(KEY)[0], env.action_space
    if not isinstance(space, Box):
        return env, traj, True
    far, edge = (
        env.step(KEY, state, jnp.broadcast_to(a, (3, *space.high.shape))) for a in (1e6, space.high)
    )
    return (
        env,
        traj,
        all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), far, edge))),
    )


@pytest.mark.slow
@pytest.mark.acceptance("T4")
@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name not in UNSUPPORTED])
def test_t4_environments_keep_the_contract(name: str) -> None:
    """In a scan, under vmap and jit: floats, finite, cut at five steps, true successors, actions
    clipped.
    """
    with jax.numpy_rank_promotion("allow"):  # gymnax's own code promotes
        env, traj, clipped = rolled(name)
    assert clipped
    assert {traj.obs.dtype, traj.next_obs.dtype, traj.reward.dtype} == {np.dtype(np.float32)}
    assert {traj.terminated.dtype, traj.truncated.dtype} == {np.dtype(bool)}
    assert traj.obs.shape == traj.next_obs.shape == (2, 12, 3, *env.obs_shape)
    assert all(np.isfinite(x).all() for x in (traj.obs, traj.next_obs, traj.reward))
    assert traj.time.max() <= 4
    assert traj.truncated[traj.time == 4].all()  # also where the task ends with it
    goes_on = ~(traj.terminated | traj.truncated)[:, :-1]
    assert_equal(traj.next_obs[:, :-1][goes_on], traj.obs[:, 1:][goes_on])
    np.testing.assert_array_equal(traj.first[:, 1:], ~goes_on)


# A2C on the tasks whose optimum is known: CartPole, Acrobot, Catch, DeepSea.
BARS = ("CartPole-v1", "Acrobot-v1", "Catch-bsuite", "DeepSea-bsuite")


def assert_reached(name: str, lines: list[learning.Result]) -> None:
    """That as many of the 20 seeds as the bar asks for are as good as it asks, within the
    budget.
    """
    row = suites.row_of(name, "actor_critic")
    assert row is not None
    assert row.bar is not None
    assert sorted(line.seed for line in lines) == list(range(20))
    assert max(line.env_steps for line in lines) <= row.steps
    assert sum(line.greedy >= row.bar.score for line in lines) >= row.bar.share * 20


@pytest.mark.acceptance("T5")
@pytest.mark.parametrize("name", BARS)
def test_t5_what_is_reported_reaches_the_bars(name: str) -> None:
    lines = learning.read_csv(ROOT / "docs" / "benchmark.csv")
    assert_reached(
        name, [line for line in lines if (line.env, line.label) == (name, "actor_critic")]
    )


@pytest.mark.slow
@pytest.mark.acceptance("T5")
@pytest.mark.parametrize("name", BARS)
def test_t5_what_is_trained_reaches_the_bars(name: str, tmp_path: Path) -> None:
    task, row = suites.select("all", (name,), ("actor_critic",))[0]
    learning.run([(task, row)], lambda env, label: preset(label, task=env, env=env), tmp_path)
    assert_reached(name, learning.collect(tmp_path))
