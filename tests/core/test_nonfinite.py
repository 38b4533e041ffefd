"""Numbers that are not finite: found where they appear, kept out of the parameters and of other
runs.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from pg import ESTIMATORS, Config, Hyperparams, make_learner, make_train
from pg.commands import cli
from pg.envs import environment, spaces
from pg.estimators import Estimator
from pg.evaluation import Evaluation
from pg.runs import execution, results, writing
from pg.train import TrainState

STEPS = 4  # of a window
AT = 5  # the update that is poisoned


@struct.dataclass
class ClockState(environment.EnvState):
    time: Any


@struct.dataclass
class PoisonParams(environment.EnvParams):
    reward: Any = 0.0
    obs: Any = 0.0
    pay: Any = 1.0
    max_steps_in_episode: int = 1000


class Poisoned(environment.Environment):
    """It lasts long, pays for action 1, and in update AT adds a number given by its parameters: 0
    changes nothing.
    """

    name = "Poisoned"

    @property
    def default_params(self) -> PoisonParams:
        return PoisonParams()

    def reset_env(self, key: jax.Array, params: PoisonParams) -> tuple[jax.Array, ClockState]:
        state = ClockState(time=jnp.int32(0))
        return self.get_obs(state, params), state

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: PoisonParams) -> Any:
        after = ClockState(time=state.time + 1)
        reward = params.pay * (action == 1) + jnp.where(self.due(state), params.reward, 0.0)
        return self.get_obs(after, params), after, reward, jnp.bool_(False), {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        angle = jnp.stack([state.time / 7, state.time / 3])
        return jnp.sin(angle) + jnp.where(self.due(state), params.obs, 0.0)

    def due(self, state: ClockState) -> jax.Array:
        return state.time == AT * STEPS + 2

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


def config(**changes: Any) -> Config:
    base: dict[str, Any] = {
        "env": Poisoned(),
        "estimator": "actor_critic",
        "collect": "windows",
        "hidden_sizes": (4,),
    }
    return Config(
        **base | {"num_envs": 2, "num_steps": STEPS, "num_updates": 9} | changes, preset=None
    )


def poisoned_gradient(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
    """actor_critic, whose gradient has h.baseline times a large number added."""
    plain = ESTIMATORS["actor_critic"](policy, critic, h)

    def grad(params: Any, batch: Any) -> Any:
        grads, metrics = plain.grad(params, batch)
        return jax.tree.map(lambda g: g + h.baseline, grads), metrics

    return plain._replace(grad=grad)


class Swept(NamedTuple):
    states: TrainState
    metrics: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sweep() -> Any:
    """Eight seeds in one program, the third of them poisoned in one place."""
    train = jax.jit(jax.vmap(make_train(config(), estimator=poisoned_gradient)))
    keys = jax.random.split(jax.random.key(0), 8)

    def run(place: str, value: float) -> Swept:
        poison = {name: np.zeros(8, np.float32) for name in ("reward", "obs", "baseline")}
        poison[place][2] = value
        h = Hyperparams(
            baseline=poison["baseline"], env_params={k: poison[k] for k in ("reward", "obs")}
        )
        whole = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (8,)), h)
        return Swept(*jax.device_get(train(keys, whole)))

    return run


@pytest.mark.acceptance("N1")
@pytest.mark.parametrize("place", ["reward", "obs", "baseline"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_poisoned_seed_is_frozen_and_the_others_go_on_untouched(
    sweep: Any, place: str, value: float
) -> None:
    """Seven others, bit for bit, in each of nine cases; flagged in the very update."""
    clean, poisoned = sweep(place, 0.0), sweep(place, value)
    others = np.arange(8) != 2
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(poisoned), strict=True):
        assert a[others].tobytes() == b[others].tobytes()
    assert not clean.metrics["nonfinite"].any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(poisoned.states.params))
    if np.isfinite(value):
        return
    update = 0 if place == "baseline" else AT
    cause = {"reward": "rewards", "obs": "observations", "baseline": "gradients"}[place]
    (failure,) = [x for x in results.first_failures(poisoned.metrics) if x]
    assert failure[0] == update
    assert cause in results.causes(failure[1])
    assert results.failed_runs(poisoned.metrics).tolist() == (~others).tolist()
    run = execution.Run(poisoned.states, poisoned.metrics, True, None, 0.0, 0.0)
    returns = np.where(others, 1.0, np.nan)[:, None] * np.ones((8, 3))
    summary = writing.summarise(run, {"sampled": Evaluation(returns, returns)}, range(8))
    assert (summary["mean"], summary["failed_seeds"], summary["episodes"]) == (1.0, [2], 21)
    stopped = results.describe_failures(summary, poisoned.metrics)
    assert stopped[-1].startswith("1 of 8 seeds left out of the evaluation")
    assert cli.outcome(run) == cli.NOT_FINITE
    assert "skip" in stopped[-1]
    said = results.describe_failures(summary, poisoned.metrics, "skip")
    number, total = poisoned.metrics["skipped"][2].sum(), summary["num_updates"]
    assert said[0].endswith(
        f"; all {total} updates were skipped, and nothing was learned"
        if number == total
        else f"; {number} of {total} updates were skipped"
    )
    last = np.zeros((8, total), int)
    last[2, -1] = 1
    once_at_the_end = poisoned.metrics | {"skipped": last}
    assert results.failed_runs(once_at_the_end).tolist() == (~others).tolist()
    assert not results.failed_runs(once_at_the_end, "skip").any()  # its parameters are those before
    of_skip = run._replace(metrics=once_at_the_end, on_nonfinite="skip")
    assert cli.outcome(of_skip) == 0
    fine = {"sampled": Evaluation(np.ones((8, 3)), np.ones((8, 3)))}
    assert writing.summarise(of_skip, fine, range(8))["failed_seeds"] == []
    skipped = np.zeros((8, total), int)
    skipped[:, 0] = 1
    once = results.describe_failures(summary, poisoned.metrics | {"skipped": skipped}, "skip")[0]
    assert once.endswith(f"; 1 of {total} updates was skipped")
    none_failed = summary | {"failed_seeds": []}
    advice = results.describe_failures(none_failed, poisoned.metrics | {"skipped": skipped}, "skip")
    assert "left out" not in " ".join(advice)
    assert "frozen" not in " ".join(said)
    assert "skip continues" not in " ".join(said)


def test_the_frozen_state_is_that_before_the_update(sweep: Any) -> None:
    short = make_train(config(num_updates=AT), estimator=poisoned_gradient)
    keys = jax.random.split(jax.random.key(0), 8)
    before = jax.jit(jax.vmap(short))(keys)[0]
    after = sweep("reward", np.nan).states
    for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(a[2], b[2])


@pytest.mark.parametrize("how", ["skip", "ignore"])
def test_skipped_or_ignored(how: Any) -> None:
    h = Hyperparams(env_params={"reward": jnp.float32(jnp.nan)})
    state, metrics = jax.jit(make_train(config(on_nonfinite=how)))(jax.random.key(0), h)
    finite = all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params))
    assert finite == (how == "skip")
    assert bool(metrics["nonfinite"][AT])
    # Skipped, the environment still stands before the poison, and meets it again.
    assert metrics["skipped"].tolist() == ([0] * AT + [1] * 4 if how == "skip" else [0] * 9)


@pytest.mark.acceptance("N5")
def test_looking_changes_no_bit() -> None:
    """All settings give the same bits if every number is finite."""
    found = [
        jax.jit(make_train(config(on_nonfinite=how)))(jax.random.key(1))
        for how in ("stop", "skip", "ignore")
    ]
    for other in found[1:]:
        for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(other), strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.acceptance("N2")
def test_parameters_that_are_not_finite_are_found_though_returns_are() -> None:
    """One entry of one leaf, twenty times over, in the next update."""
    learner = make_learner(config(on_nonfinite="ignore"))
    state, step = learner.init(jax.random.key(0)), jax.jit(learner.step)
    leaves, tree = jax.tree.flatten(state.params)
    rng = np.random.default_rng(0)
    for i in range(20):
        which = i % len(leaves)
        leaf = np.array(leaves[which])
        leaf.flat[rng.integers(leaf.size)] = np.nan
        bad = jax.tree.unflatten(tree, [*leaves[:which], jnp.asarray(leaf), *leaves[which + 1 :]])
        _, metrics = step(state._replace(params=bad), jax.random.key(i))
        assert "parameters" in results.causes(int(metrics["nonfinite"]))
        assert np.isfinite(metrics["env_steps"])


@pytest.mark.parametrize(
    ("place", "setting"),
    [("obs", {"normalise_observations": True}), ("reward", {"scale_rewards": True})],
)
def test_an_update_after_which_a_running_statistic_is_not_finite_is_rejected(
    place: str, setting: dict[str, bool]
) -> None:
    """Finite numbers, whose square overflows in the variance."""
    h = Hyperparams(env_params={place: jnp.float32(1e20)})
    state, metrics = jax.jit(make_train(config(**setting)))(jax.random.key(0), h)
    assert "running statistics" in results.causes(int(metrics["nonfinite"][AT]))
    assert metrics["skipped"].tolist() == [0] * AT + [1] * 4
    statistics = jax.tree.leaves((state.normaliser.obs, state.normaliser.returns))
    assert statistics
    assert all(np.isfinite(x).all() for x in statistics)
    rows = {name: np.asarray(x)[None] for name, x in metrics.items()}
    summary = writing.summarise(
        execution.Run(state, rows, True, None, 0.0, 0.0),
        {"sampled": Evaluation(np.ones((1, 3)), np.ones((1, 3)))},
        [0],
    )
    (failure, advice) = results.describe_failures(summary, rows)
    assert failure.endswith(f"running statistics not finite in update {AT}, where it is frozen")
    assert "scale it in the environment" in advice


def test_a_statistic_of_the_estimator_may_start_at_infinity_but_not_become_it() -> None:
    def best_return(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        """actor_critic, which keeps the largest reward, and in update h.baseline a NaN."""
        plain = ESTIMATORS["actor_critic"](policy, critic, h)

        def init(key: Any) -> Any:
            return plain.init(key)[0], (jnp.float32(-jnp.inf), jnp.int32(0))

        def weigh(params: Any, state: Any, traj: Any) -> Any:
            best, number = state
            best = jnp.where(number == h.baseline, jnp.nan, jnp.maximum(best, traj.reward.max()))
            return plain.weigh(params, (), traj)[0], (best, number + 1)

        return plain._replace(init=init, weigh=weigh)

    train = jax.jit(make_train(config(), estimator=best_return))
    _, metrics = train(jax.random.key(0), Hyperparams(baseline=jnp.float32(3.0)))
    causes = [results.causes(int(bits)) for bits in metrics["nonfinite"]]
    assert causes == [""] * 3 + ["running statistics"] * 6


@pytest.mark.acceptance("N3")
def test_it_never_gives_up() -> None:
    """A thousand updates in a row whose gradient is NaN."""
    train = jax.jit(
        make_train(config(num_updates=1000, on_nonfinite="skip"), estimator=poisoned_gradient)
    )
    state, metrics = train(jax.random.key(0), Hyperparams(baseline=jnp.nan))
    first = make_learner(config()).init(jax.random.split(jax.random.key(0))[0])
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (int(state.skipped), int(state.update), int(metrics["skipped"].sum())) == (
        1000,
        1000,
        1000,
    )
    rows = {name: np.asarray(x)[None] for name, x in metrics.items()}
    assert cli.outcome(execution.Run(state, rows, True, None, 0.0, 0.0)) == cli.NOT_FINITE


@pytest.mark.acceptance("N4")
def test_a_gradient_whose_square_overflows_is_said() -> None:
    """Its norm is infinite in 32 bits, and clipping by it would be a step of zero, in silence."""
    train = jax.jit(make_train(config(num_updates=2), estimator=poisoned_gradient))
    for size in np.logspace(20, 38, 10):
        _, metrics = train(
            jax.random.key(0), Hyperparams(baseline=jnp.float32(size), max_grad_norm=1.0)
        )
        assert results.causes(int(metrics["nonfinite"][0])) == "gradients"
        assert metrics["skipped"].tolist() == [1, 1]


def test_a_metric_that_is_nan_on_purpose_stops_nothing_under_debug_nans() -> None:
    """No episode ends: a run's metrics are NaN as usual, and an unintended NaN is still found."""
    poison = Hyperparams(env_params={"reward": np.float32(np.nan)})
    with jax.debug_nans(True):
        quiet = execution.run(config(num_updates=2), Hyperparams(), [0]).metrics
        with pytest.raises(FloatingPointError):
            jax.jit(make_train(config(on_nonfinite="ignore")))(jax.random.key(0), poison)
    assert not quiet["episodes"].any()
    assert np.isnan(quiet["return"]).all()
    assert np.isnan(quiet["length"]).all()
    assert all(
        np.isfinite(x).all() for name, x in quiet.items() if name not in ("return", "length")
    )


def test_nothing_to_explain_under_debug_nans() -> None:
    """All targets are equal."""
    still = config(estimator="gae", num_updates=1, num_steps=1, diagnostics=True)
    h = Hyperparams(gamma=0.0, env_params={"pay": 0.0})
    with jax.debug_nans(True):
        assert np.isnan(execution.run(still, h, [0]).metrics["explained_variance"]).all()


def test_the_operation_is_named() -> None:
    """It is the environment's addition to the reward."""
    h = Hyperparams(env_params={"reward": jnp.float32(jnp.nan)})
    key = jax.random.key(0)
    state, _ = jax.jit(make_train(config()))(key, h)
    assert "nan generated by primitive" in execution.explained(config(), h, state, key, AT)


@pytest.mark.slow
def test_a_run_that_stops_says_so(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "experiments" / "train.py"
    command = [
        sys.executable,
        str(script),
        "--num-updates",
        "6",
        "--num-envs",
        "4",
        "--learning-rate",
        "1e38",
    ]
    command += [
        "--optimizer",
        "sgd",
        "--max-grad-norm",
        "inf",
        "--hidden-sizes",
        "4",
        "--debug",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.NOT_FINITE, done.stderr
    assert "not finite in update" in done.stdout
    assert "where it is frozen" in " ".join(done.stdout.split())
    assert (
        "update 0: no operation produces a NaN: it comes from outside JAX or is an "
        "overflow" in done.stdout
    )
    said = " ".join(done.stdout.split())
    assert "1 of 1 seed left out of the evaluation; in update 0 the cause is the estimator" in said
