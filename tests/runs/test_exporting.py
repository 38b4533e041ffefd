"""An exported policy acts without the project, as the run's own policy does."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock

import pg
from pg import networks
from pg.config import Config
from pg.envs import spaces
from pg.runs import exporting
from pg.runs.acting import Policy

# Acts by the programs in a folder, on what lies beside them, where pg cannot be imported.
ALONE = """
import sys
sys.modules["pg"] = None
from pathlib import Path
import jax, numpy as np
for folder in map(Path, sys.argv[1:]):
    given = np.load(folder / "given.npz")
    for name in ("mode", "sample"):
        program = (folder / f"{name}.jax_export").read_bytes()
        act = jax.export.deserialize(bytearray(program)).call
        arguments = [given[x] for x in str(given[name]).split()]
        results = jax.tree.leaves(act(*arguments))
        np.savez(folder / f"{name}.npz", *results)
"""
SMALL: dict[str, Any] = {
    "num_envs": 4,
    "num_updates": 1,
    "hidden_sizes": (8,),
    "preset": None,
}
CONFIGS = {
    "logits": Config(env="Catch-bsuite", **SMALL),
    "box": Config(env="Pendulum-v1", normalise_observations=True, **SMALL),
    "gru": Config(env="MemoryChain-bsuite", rnn="gru", rnn_size=4, **SMALL),
}
KEY = jax.random.key(7)


class Gated(Clock):
    """A time limit and three actions, of which the state allows one."""

    def action_space(self, params: Any) -> Any:
        return spaces.Discrete(3)

    def action_mask(self, state: Any, params: Any) -> Any:
        return jnp.arange(3) == state.time % 3


ROWS = 33


def untrained(config: Config) -> Policy:
    """A policy with parameters that depend on the observation, and statistics of a few steps."""
    learner = pg.make_learner(config)
    start = jax.jit(learner.init)(jax.random.key(0))
    state, _ = jax.jit(learner.step)(start, jax.random.key(1))
    env = pg.envs.base.configured(config, 1)
    params = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape), state.params.policy
    )
    network = pg.normalisation.with_standardised_observations(
        networks.make_policy(config, env), state.normaliser
    )
    return Policy(config, env, network, params)


def arguments(policy: Policy) -> dict[str, Any]:
    """Random arguments of the programs, by name."""
    own = policy.env.own_obs
    given = {"obs": 3 * jax.random.normal(KEY, (ROWS, *own.shape))}
    assert own.dtype == given["obs"].dtype
    given["key_data"] = jax.random.key_data(KEY)
    if policy.network.recurrent:
        given["carry"] = jax.random.normal(jax.random.key(3), (ROWS, *policy.network.carry.shape))
        given["first"] = jax.random.bernoulli(jax.random.key(4), 0.3, (ROWS,))
    return given


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Policy, Path]]:
    """Policies, and the folders in which their programs have acted."""
    made = {}
    for name, config in CONFIGS.items():
        policy = untrained(config)
        folder = exporting.export_policy(policy, tmp_path_factory.mktemp(name))
        order = {x: " ".join(p.arguments) for x, p in exporting.programs(policy).items()}
        np.savez(folder / "given.npz", **order, **arguments(policy))
        made[name] = policy, folder
    folders = [str(folder) for _, folder in made.values()]
    subprocess.run([sys.executable, "-c", ALONE, *folders], check=True)
    return made


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("program", ["mode", "sample"])
def test_an_exported_policy_acts_without_the_project_by_the_same_bits(
    exported: dict[str, tuple[Policy, Path]], name: str, program: str
) -> None:
    policy, folder = exported[name]
    given = arguments(policy)
    key = KEY if program == "sample" else None
    if policy.network.recurrent:
        expected = policy.step(given["carry"], given["obs"], key, first=given["first"])
    else:
        expected = (policy(given["obs"], key),)
    found = np.load(folder / f"{program}.npz")
    assert len(found) == len(expected)
    for i, x in enumerate(expected):
        np.testing.assert_array_equal(found[f"arr_{i}"], np.asarray(x))
    assert len(np.unique(found[f"arr_{len(found) - 1}"])) > 1  # they depend on the observation


def test_the_arguments_are_listed_in_their_order(
    exported: dict[str, tuple[Policy, Path]],
) -> None:
    listed = json.loads((exported["gru"][1] / "policy.json").read_text())
    assert list(listed["programs"]["sample"]["arguments"].items()) == [
        ("carry", "float32[n, 4]"),
        ("obs", f"float32[n, {exported['gru'][0].env.own_obs.shape[0]}]"),
        ("first", "bool[n]"),
        ("key_data", "uint32[2]"),
    ]
    assert listed["programs"]["sample"]["results"] == ["float32[n, 4]", "int32[n]"]


def test_a_masked_policy_takes_the_legal_actions() -> None:
    policy = untrained(dataclasses.replace(CONFIGS["logits"], env=Gated()))
    program = exporting.programs(policy)["mode"]
    assert list(program.arguments) == ["obs", "mask"]
    obs = jnp.ones((5, *policy.env.own_obs.obs.shape))
    legal = jax.nn.one_hot(jnp.array([0, 1, 2, 1, 0]), policy.env.action_space.n, dtype=bool)
    assert program.call(obs, legal).tolist() == [0, 1, 2, 1, 0]
    assert policy(obs, mask=legal).tolist() == [0, 1, 2, 1, 0]


class Levers(Clock):
    """Two actions at once."""

    def action_space(self, params: Any) -> Any:
        return MultiDiscrete()

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return super().step_env(key, state, action[0], params)


class MultiDiscrete:
    nvec = np.array([2, 3])


def test_several_actions_at_once_are_arranged_as_the_environment_has_them() -> None:
    policy = untrained(dataclasses.replace(CONFIGS["logits"], env=Levers()))
    obs = jax.random.normal(KEY, (9, *policy.env.own_obs.shape))
    found = exporting.programs(policy)["mode"].call(obs)
    assert found.shape == (9, 2)
    np.testing.assert_array_equal(found, policy(obs))


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"policy must be .*Policy, got .*pg\.load_policy\(folder\)"
    ):
        exporting.export_policy(tmp_path, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["logits", "box"])
def test_an_onnx_program_acts_as_the_policy_to_1e_5(name: str, tmp_path: Path) -> None:
    """The export itself compares the two; a program that acts otherwise is refused."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    policy = untrained(CONFIGS[name])
    exporting.export_policy(policy, tmp_path, onnx=True)
    session = runtime.InferenceSession(tmp_path / "mode.onnx")
    obs = arguments(policy)["obs"]
    (found,) = session.run(None, {"obs": np.asarray(obs)})
    np.testing.assert_allclose(found, np.asarray(policy(obs)), atol=1e-5)


def test_onnx_that_is_not_installed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"ONNX needs \w+: pip install"):
        exporting.export_policy(untrained(CONFIGS["logits"]), tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
