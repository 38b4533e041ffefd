"""Figures of `experiments/speed/throughput.py`; its plain loops compute the same as the library."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import envs, networks
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS
from pg.networks import Network
from pg.optimizers import make_optimizer
from pg.rollout import Trajectory
from pg.train import make_learner

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "compilations"),
}
RATIOS = {"random_vs_plain", "policy_vs_forward", "policy_vs_plain", "update_vs_scan_gradient"}
RATIOS |= {
    "memory_vs_scan_gradient",
    "short_vs_full_episodes",
    "training_vs_random",
    "training_vs_forward",
}
MEDIANS = {"seconds", "cpu_seconds", "steps", "steps_per_second", "compile_seconds", "temp_bytes"}
NUM_ENVS, HORIZON = 6, 40


@pytest.fixture(scope="module")
def references() -> Any:
    """The module beside the script."""
    sys.path.insert(0, str(ROOT / "experiments" / "speed"))
    import references

    yield references
    sys.path.remove(str(ROOT / "experiments" / "speed"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("loop --env CartPole-v1 --turns 1 --steps 32 --num-envs 1", 0, "1 environment\n"),
        ("loop --steps 3", 2, "error: steps must be at least num_envs=8, got 3"),
        ("loop --num-env 3", 2, "error: there is no flag --num-env: did you mean --num-envs"),
    ],
)
def test_environments_in_python_take_turns(arguments: str, code: int, said: str) -> None:
    script = ROOT / "experiments" / "speed" / "python_envs.py"
    command = [sys.executable, str(script), *arguments.split()]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in (done.stderr if code else done.stdout)
    assert code or "pg: " in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_every_figure_is_a_number(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "speed" / "throughput.py"), "--quick"]
    command += ["--json", str(tmp_path / "figures.json"), "--figures", str(tmp_path / "drawn")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "figures.json").read_text())
    assert all(math.isfinite(data[name]) and data[name] > 0 for name in RATIOS)
    assert data["short_vs_full_episodes"] < 1
    assert {"environments", "horizon", "seeds"} <= set(data["scaling"])
    for rows in (data["programs"], *data["scaling"].values()):
        assert all(set(row) >= MEDIANS and min(row.values()) >= 0 for row in rows.values())
    steps = {name: row["steps"] for name, row in data["programs"].items()}
    assert all(
        steps[name] == 16 * 50 for name in ("random", "random_plain", "policy", "forward", "update")
    )
    assert (steps["training"], steps["full"]) == (2 * 16 * 50, 64 * 500)
    assert data["versions"]["jax"] == jax.__version__
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {
        f"{name}.{kind}" for name in ("programs", "scaling") for kind in ("png", "svg")
    }


def fresh(env_params: dict[str, float]) -> tuple[Config, envs.Env, Network, Any]:
    config = Config(
        num_envs=NUM_ENVS,
        env_params={**env_params, "max_steps_in_episode": HORIZON},
        hidden_sizes=(8,),
        preset=None,
    )
    env = envs.configured(config, NUM_ENVS)
    return (
        config,
        env,
        networks.make_policy(config, env),
        make_learner(config).init(jax.random.key(0)),
    )


def plain_trajectory(
    references: Any, config: Config, policy: Network, params: Any, key: jax.Array
) -> Trajectory:
    """The plain rollout's steps, as the library would have recorded them."""
    rollout = references.make_rollout(config.env, dict(config.env_params), NUM_ENVS, HORIZON)
    steps = rollout(references.acting(policy, params), key)[2]
    log_prob = policy.apply(params, (), steps.obs, steps.valid)[1].log_prob(steps.action)
    last = steps.valid & ~jnp.concatenate([steps.valid[1:], jnp.zeros((1, NUM_ENVS), bool)])
    time = jnp.broadcast_to(jnp.arange(HORIZON)[:, None], steps.valid.shape)
    ends = {"terminated": last & (time < HORIZON - 1), "truncated": last & (time == HORIZON - 1)}
    reward = jnp.where(steps.valid, steps.reward, 0.0)
    rest = {
        "next_obs": steps.obs,
        "first": time == 0,
        "valid": steps.valid,
        "time": time,
        "carry": (),
    }
    return Trajectory(
        obs=steps.obs, action=steps.action, log_prob=log_prob, reward=reward, **ends, **rest
    )


@pytest.mark.parametrize("env_params", [{}, {"theta_threshold_radians": 1e9, "x_threshold": 1e9}])
def test_the_plain_update_is_the_librarys(references: Any, env_params: dict[str, float]) -> None:
    """On the same episodes, whether poles fall or not: one by a gradient through the scan, one of
    the trajectory.
    """
    config, _, policy, state = fresh(env_params)
    key, h = jax.random.key(1), Hyperparams()
    traj = plain_trajectory(references, config, policy, state.params.policy, key)
    assert bool(traj.valid.all()) == bool(env_params)
    estimator = ESTIMATORS["reinforce"](policy, policy, h)
    ours, _ = estimator.grad(state.params, estimator.weigh(state.params, (), traj)[0])
    actor = policy._replace(apply=lambda params, *seen: policy.apply(params.policy, *seen))
    rollout = references.make_rollout(config.env, dict(config.env_params), NUM_ENVS, HORIZON)
    theirs = references.gradient(rollout, actor, state.params, key)
    assert all(jnp.abs(x).max() > 0 for x in jax.tree.leaves(ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), ours, theirs)
    opt = make_optimizer(config, h)
    moved, _ = references.update(rollout, actor, opt, state.params, state.opt_state, key)
    assert all(
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (moved, state.params)), strict=True)
    )


def test_the_plain_rollout_counts_as_cartpole_does(references: Any) -> None:
    """Episodes begin at ±0.05, last as many steps as they are worth, and actions are drawn from the
    policy.
    """
    config, _, policy, state = fresh({})
    rollout = references.make_rollout(config.env, dict(config.env_params), NUM_ENVS, HORIZON)
    total, log_prob, steps = rollout(
        references.acting(policy, state.params.policy), jax.random.key(2)
    )
    np.testing.assert_array_equal(total, steps.valid.sum(0))
    assert (total < HORIZON).any()
    assert jnp.abs(steps.obs[0]).max() <= 0.05
    # a fresh policy is nearly uniform
    np.testing.assert_allclose(log_prob, -jnp.log(2.0) * total, rtol=0.05)
    _, score, steps = rollout(references.uniform, jax.random.key(3))
    np.testing.assert_allclose(score, -jnp.log(2.0) * steps.valid.sum(0), rtol=1e-5)
    assert set(np.unique(steps.action)) == {0, 1}
