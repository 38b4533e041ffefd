"""A user's own estimator, networks, optimizer and environment in place of pg's."""

import dataclasses
import functools
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import Clock
from flax import linen as nn
from mistakes import Mistake, assert_one_sentence

import pg
from pg.benchmarks import combinations
from pg.config import Config, Hyperparams, own_parts
from pg.envs import configured
from pg.estimators.checks import checked
from pg.estimators.facts import FACTS, UNSTATED
from pg.estimators.names import NAMES, check_estimator, facts_of
from pg.evaluation import evaluate
from pg.networks import Network, make_critic, make_policy
from pg.parts import with_parts
from pg.runs import code, execution
from pg.settings import own_files, parts
from pg.sweep import sweep
from pg.train import make_chunk, make_learner, make_train

KEY = jax.random.key(0)
SMALL: dict[str, Any] = {"num_envs": 4, "num_updates": 2, "hidden_sizes": (4,), "preset": None}


def clipped(policy: Network, critic: Network, h: Hyperparams) -> Any:
    """Ψ = min(R, 50) less the mean of the others."""

    def weigh(params: Any, state: Any, traj: Any) -> Any:
        total = jnp.minimum(pg.returns.total_return(traj.reward, h.gamma), 50.0)
        psi = total - pg.baselines.leave_one_out(total)
        return psi[None, :], (), state

    return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))


def linear(config: Config, env: Any) -> Network:
    """Logits that are linear in the observation."""
    size, actions = env.obs_shape[0], env.action_space.n
    return Network(
        lambda key: 0.1 * jax.random.normal(key, (size, actions)),
        lambda params, carry, obs, first: (carry, pg.Categorical(obs @ params)),
    )


def linear_critic(config: Config, env: Any) -> Network:
    return Network(
        lambda key: jnp.zeros(env.obs_shape[0]),
        lambda params, carry, obs, first: (carry, obs @ params),
    )


def assert_same_bits(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# In Python


@pytest.mark.parametrize("changes", [{}, {"normalise_observations": True}])
def test_networks_that_are_the_projects_own_give_the_same_bits(changes: dict[str, bool]) -> None:
    """Observations are processed in the same way before a custom network."""
    config = Config(estimator="gae", collect="windows", num_steps=8, **SMALL | changes)
    expected = jax.jit(make_train(config))(KEY)
    own = dataclasses.replace(config, policy=make_policy, critic=make_critic)
    assert_same_bits(jax.jit(make_train(own))(KEY), expected)


@pytest.mark.slow
def test_own_parts_are_given_to_every_function_that_trains() -> None:
    config = Config(**SMALL)
    parts: dict[str, Any] = {"estimator": clipped, "policy": linear, "optimizer": optax.sgd}
    inside = dataclasses.replace(config, **parts)
    expected = jax.jit(make_train(inside))(KEY)[0].params
    assert expected.policy.shape == (4, 2)
    assert_same_bits(jax.jit(make_train(config, **parts))(KEY)[0].params, expected)
    learner = make_learner(config, **parts)
    init_key, keys = pg.train.training_keys(KEY, 0, 2)
    chunk = make_chunk(config, **parts)
    state, _ = jax.jit(chunk)(learner.init(init_key), keys, Hyperparams())
    np.testing.assert_allclose(state.params.policy, expected.policy, atol=1e-6)
    done = execution.run(config, None, [0], **parts)
    assert done.states.params.policy.shape == (1, 4, 2)
    states, _ = sweep(config, [0], Hyperparams(learning_rate=jnp.array([0.1, 0.2])), **parts)
    assert states.params.policy.shape == (2, 1, 4, 2)
    returns = evaluate(config, expected.policy, KEY, 3, policy=linear).returns
    np.testing.assert_array_equal(returns, evaluate(inside, expected.policy, KEY, 3).returns)


def test_an_own_critic_learns_and_its_optimizer_may_be_another() -> None:
    config = Config(estimator="state_value", critic=linear_critic, **SMALL)
    state, _ = jax.jit(make_train(config))(KEY)
    assert state.params.critic.shape == (4,)
    assert (np.asarray(state.params.critic) != 0).any()
    apart = dataclasses.replace(config, optimizer=lambda rate: optax.sgd(0.0 * rate))
    frozen = jax.jit(make_train(apart))(KEY)[0].params
    assert not np.asarray(frozen.critic).any()
    apart = dataclasses.replace(apart, critic_optimizer="adam")
    half = jax.jit(make_train(apart))(KEY)[0].params
    assert np.asarray(half.critic).all()
    assert_same_bits(half.policy, frozen.policy)


def test_a_config_says_the_names_of_its_parts() -> None:
    config = Config(estimator=functools.partial(clipped), policy=linear, env=Clock(), **SMALL)
    assert set(own_parts(config)) == {"estimator", "policy", "env"}
    assert config.title == "clipped on Clock"
    stored = json.loads(json.dumps(config.to_json()))
    assert (stored["estimator"], stored["policy"], stored["critic"]) == ("clipped", "linear", None)
    assert own_parts(Config(preset=None)) == {}


# The facts that are stated of an estimator


def test_facts_that_are_stated_are_the_preset_and_the_checks() -> None:
    settings = {"num_envs": 7, "learning_rate": 0.5}
    stated = pg.with_facts(unbiased_for="J", collect="episodes", critic="none", settings=settings)(
        lambda policy, critic, h: clipped(policy, critic, h)
    )
    config = Config(estimator=stated)
    assert config.num_envs == 7
    assert config.hyperparams().learning_rate == 0.5
    assert pg.preset(stated)[1] == config.hyperparams()
    assert facts_of(stated).unbiased_for == "J"
    with pytest.raises(ValueError, match="stated to collect only episodes"):
        Config(estimator=stated, collect="windows")
    with pytest.raises(ValueError, match="shared_torso=True is for estimators with a critic V"):
        Config(estimator=stated, shared_torso=True)


def test_nothing_is_refused_of_an_estimator_that_states_nothing() -> None:
    assert facts_of(clipped) is UNSTATED
    assert facts_of(pg.ESTIMATORS["gae"]) is FACTS["gae"]
    Config(estimator=clipped, collect="windows", num_epochs=2, shared_torso=True, preset=None)


def test_every_row_of_the_table_is_complete() -> None:
    for name, row in FACTS.items():
        assert all((row.module, row.psi, row.source, row.variance)), name


# Files


def written(folder: Path, text: str, name: str = "my.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


LINEAR = """
import jax.numpy as jnp
import pg
from beside import SCALE

def linear(config, env):
    size, actions = env.obs_shape[0], env.action_space.n
    return pg.Network(
        lambda key: SCALE * jnp.ones((size, actions)),
        lambda params, carry, obs, first: (carry, pg.Categorical(obs @ params)),
    )
"""


def test_a_file_is_executed_once_for_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a script, it imports files from its own folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    written(tmp_path, "SCALE = 2.0", "beside.py")
    path = written(tmp_path, LINEAR)
    reference = f"{path}:linear"
    config = Config(policy=reference, **SMALL)
    assert config == Config(policy=reference, **SMALL)
    assert config == with_parts(Config(**SMALL), policy=reference)
    assert make_learner(config).init(KEY).params.policy.max() == 2.0
    source = own_files.source_of(config.policy)
    assert source is not None
    assert (source.name, source.file) == ("linear", str(path))
    assert sys.modules[config.policy.__module__].linear is config.policy
    path.write_text(LINEAR.replace("SCALE *", "3 * SCALE *"))
    changed = Config(policy=reference, **SMALL)
    assert changed != config
    assert make_learner(changed).init(KEY).params.policy.max() == 6.0


@pytest.mark.acceptance("P4")
def test_files_find_the_modules_beside_them_and_no_others(tmp_path: Path) -> None:
    """Modules of one name in two folders; in functions, in packages, and of one another."""
    path_before = list(sys.path)
    text = """
import lib.inner
from lib import inner as same, SIZE
import scale as number

def policy(config, env):
    from late import LATE
    return lib.inner.SCALE, same.SCALE, SIZE, number.VALUE, LATE
"""
    for i, name in enumerate(("one", "other")):
        for inner in (name, f"{name}/lib"):
            (tmp_path / inner).mkdir()
        written(tmp_path / name, text)
        written(tmp_path / name, f"VALUE = {i}", "scale.py")
        written(tmp_path / name, "from lib import SIZE\nLATE = SIZE", "late.py")
        written(tmp_path / name / "lib", f"SIZE = {10 + i}", "__init__.py")
        written(tmp_path / name / "lib", "from . import deep\nfrom .deep import SCALE", "inner.py")
        written(tmp_path / name / "lib", f"import scale\nSCALE = {100 + i}", "deep.py")
    one, other = (own_files.load(f"{tmp_path / x}/my.py:policy") for x in ("one", "other"))
    assert one(None, None) == (100, 100, 10, 0, 10)
    assert other(None, None) == (101, 101, 11, 1, 11)
    assert sys.path == path_before
    assert not {"scale", "late", "lib"} & set(sys.modules)
    source = own_files.source_of(one)
    assert source is not None
    files = ["late.py", "lib/__init__.py", "lib/deep.py", "lib/inner.py", "scale.py"]
    assert [x.path for x in source.imports] == files
    written(tmp_path / "one", "VALUE = 2", "scale.py")
    assert own_files.load(f"{tmp_path}/one/my.py:policy")(None, None)[3] == 2
    assert one(None, None)[3] == 0


def test_files_of_one_folder_share_what_lies_beside_them(tmp_path: Path) -> None:
    written(tmp_path, "class Shared: pass", "shared.py")
    written(tmp_path, "from shared import Shared\nimport two\npolicy = two.policy", "one.py")
    written(tmp_path, "from shared import Shared\ndef policy(config, env): pass", "two.py")
    one, two = (own_files.load(f"{tmp_path}/{x}.py:policy") for x in ("one", "two"))
    modules = {name.rpartition(".")[2]: x for name, x in sys.modules.items() if "own_" in name}
    assert modules["one"].Shared is modules["two"].Shared
    assert inspect.unwrap(one) is two  # and yet each has a source of its own
    assert [own_files.source_of(x).file[-6:] for x in (one, two)] == ["one.py", "two.py"]


def test_there_is_one_of_each_library(tmp_path: Path) -> None:
    """Also for a file in a clone of the project, and in a folder of installed ones."""
    (tmp_path / "pg").mkdir()
    written(tmp_path / "pg", "raise AssertionError('a second pg')", "__init__.py")
    text = "import pg\ndef policy(config, env): return pg\n"
    assert own_files.load(f"{written(tmp_path, text)}:policy")(None, None) is pg
    installed = tmp_path / "site-packages"
    installed.mkdir()
    written(installed, "raise AssertionError('a second copy')", "environments.py")
    text = "from environments import Clock\ndef policy(config, env): return Clock\n"
    assert own_files.load(f"{written(installed, text)}:policy")(None, None) is Clock


def test_a_part_that_a_file_imports_is_described_as_what_it_is(tmp_path: Path) -> None:
    """And stays what it was elsewhere: in another file, and in Python."""
    text = "from optax import adam\nfrom pg.estimators.bootstrapped import gae\n"
    written(tmp_path, text, "one.py")
    written(tmp_path, text, "two.py")
    parts = [own_files.load(f"{tmp_path}/{x}.py:adam") for x in ("one", "two")]
    sources = [own_files.source_of(part) for part in parts]
    assert [Path(x.file).name for x in sources if x] == ["one.py", "two.py"]
    assert {x.defined_in for x in sources if x} == {optax.adam.__module__}
    plain = own_files.source_of(optax.adam)
    assert plain is not None
    assert plain.module == optax.adam.__module__
    estimator = own_files.load(f"{tmp_path}/one.py:gae")
    assert facts_of(estimator) is FACTS["gae"]
    config = Config(estimator=estimator, optimizer=parts[0], **SMALL)
    jax.eval_shape(make_learner(config).init, KEY)
    entry = code.record(config)["optimizer"]
    assert (entry["name"], entry["defined_in"]) == ("adam", optax.adam.__module__)


@pytest.mark.acceptance("P3")
def test_settings_that_were_stored_execute_no_file(tmp_path: Path) -> None:
    path = written(tmp_path, f"open({str(tmp_path / 'executed')!r}, 'w'); part = print")
    for field in ("env", "estimator", "policy", "critic", "optimizer"):
        stored = {**Config(preset=None).to_json(), field: f"{path}:part"}
        with pytest.raises(ValueError, match=f"not executed: give the {field} itself"):
            Config.from_json(stored)
    assert not (tmp_path / "executed").exists()


def test_a_class_of_a_file_is_called_for_an_environment(tmp_path: Path) -> None:
    text = "from environments import Clock\nclass Mine(Clock): pass\nobject = Mine()\n"
    path = written(tmp_path, text)
    by_class, by_object = (Config(env=f"{path}:{x}", **SMALL) for x in ("Mine", "object"))
    assert type(by_class.env).__name__ == type(by_object.env).__name__ == "Mine"
    assert by_class == Config(env=f"{path}:Mine", **SMALL)
    jax.eval_shape(make_train(by_class), KEY)


FILES: dict[str, tuple[str, str, str]] = {  # the text, the name, the sentence
    "a name that is misspelt": ("clipped = 1", "cliped", "did you mean 'clipped'"),
    "no name": ("clipped = 1", "", "must be followed by a name, as"),
    "no Python": ("def f(:", "f", "my.py, line 1: SyntaxError"),
    "no text": ("\0", "f", "null bytes"),
    "a module that there is not": (
        "x = 1\nimport nowhere_at_all\nf = 1",
        "f",
        "my.py, line 2: ModuleNotFoundError: No module named 'nowhere_at_all'",
    ),
    "a failure": ("x = 0\nf = 1 / x", "f", "my.py, line 2: ZeroDivisionError: division by zero"),
    "a failure in what it imports": (
        "import wrong_beside\nf = 1",
        "f",
        "wrong_beside.py, line 2: ZeroDivisionError: division by zero",
    ),
    "what it imports is no Python": (
        "def f():\n    import no_python",
        "f",
        "no_python.py, line 1: SyntaxError",
    ),
    "a module by its name": (
        "import importlib\nf = importlib.import_module('wrong_beside')",
        "f",
        "my.py, line 2: ModuleNotFoundError: No module named 'wrong_beside'; write import "
        "wrong_beside, as a run records what statements import",
    ),
    "a script": ("def f(): pass\nraise SystemExit(3)", "f", "below if __name__ == '__main__'"),
    "a name that is gone": ("f = 1\ndel f", "f", "has no 'f' after execution"),
    "a module": ("import jax.numpy as jnp", "jnp", "got a module: write"),
    "nothing": ("import jax", "clipped", "unknown name in {path} 'clipped': there is none"),
    "a policy": ("def f(config, env, width=3): pass", "f", "like policy: give it as policy"),
    "an estimator of nothing": ("def f(): pass", "f", "of policy, critic, hyperparameters, got"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_one_sentence(case: str, tmp_path: Path) -> None:
    text, name, expected = FILES[case]
    written(tmp_path, "x = 0\nx = 1 / x", "wrong_beside.py")
    written(tmp_path, "def f(:", "no_python.py")
    path = written(tmp_path, text)
    expected = expected.replace("hyperparameters", "hyperparams").replace("{path}", str(path))
    before = set(sys.modules)
    assert_one_sentence(lambda: Config(estimator=f"{path}:{name}"), expected)
    if name == "f" and "def f" not in text:  # it failed, and leaves nothing half done
        assert not [name for name in set(sys.modules) - before if re.match(r"own_\w+\.", name)]


def test_a_place_without_a_file_is_one_sentence(tmp_path: Path) -> None:
    written(tmp_path, "", "mine.py")
    assert_one_sentence(lambda: Config(policy=f"{tmp_path}/my.py:f"), "the same folder has mine.py")
    (tmp_path / "folder.py").mkdir()
    assert_one_sentence(lambda: Config(policy=f"{tmp_path}/folder.py:f"), "is a folder")
    assert_one_sentence(lambda: Config(policy="mlp"), "policy must be FILE.py:NAME, got 'mlp'")


# Wrong parts


class Dense(nn.Module):
    @nn.compact
    def __call__(self, obs: Any) -> Any:
        return nn.Dense(2)(obs)


def network(apply: Any, carry: Any = (), init: Any = lambda key: {}) -> Callable[..., Network]:
    return lambda config, env: Network(init, apply, carry)


kept: list[Any] = []


def keeping(params: Any, carry: Any, obs: Any, first: Any) -> Any:
    kept.append(obs.sum())
    return carry, pg.Categorical(obs[..., :2])


def with_policy(policy: Any, **changes: Any) -> Mistake:
    return lambda: make_learner(Config(policy=policy, **SMALL | changes))


def with_critic(critic: Any, **changes: Any) -> Mistake:
    settings = {"estimator": "state_value", **SMALL, **changes}
    return lambda: make_learner(Config(critic=critic, **settings))


WRONG: dict[str, tuple[Mistake, str]] = {
    "logits of another width": (
        with_policy(network(lambda p, c, obs, first: (c, pg.Categorical(obs)))),
        "the logits of policy '<lambda>' must be [B, A] = [2, 2], one for each action; got shape "
        "[2, 4]",
    ),
    "logits for no distribution": (
        with_policy(network(lambda p, c, obs, first: (c, obs[..., :2]))),
        "must return a distribution, as pg.Categorical(logits), got an array without draw",
    ),
    "no carry": (
        with_policy(network(lambda p, c, obs, first: pg.Categorical(obs[..., :2]))),
        "apply of policy '<lambda>' must return a pair, the carry and the output; got a "
        "Categorical",
    ),
    "another carry": (
        with_policy(
            network(lambda p, c, obs, first: (c[0], pg.Categorical(obs[..., :2])), jnp.zeros(3))
        ),
        "the carry that policy '<lambda>' returns must be like the one it gets",
    ),
    "one axis in front": (
        with_policy(
            network(
                lambda p, c, obs, first: (
                    c,
                    pg.Categorical(obs.reshape(obs.shape[0], -1)[:, :2]),
                )
            )
        ),
        "the logits of policy '<lambda>' must be [T, B, A] = [3, 2, 2], one for each action; got "
        "shape [3, 2]",
    ),
    "a policy that keeps an array of a trace": (
        with_policy(network(keeping)),
        "keeps values computed from traced arrays",
    ),
    "a policy that fails": (
        with_policy(network(lambda p, c, obs, first: (c, p["missing"]))),
        "apply of policy '<lambda>' on one step, obs [2, 4], fails: KeyError: 'missing' (",
    ),
    "an initialiser that fails": (
        with_policy(network(keeping, init=lambda key: jnp.zeros(key))),
        "init of policy '<lambda>' fails: TypeError",
    ),
    "a policy that is made of nothing": (
        with_policy(lambda config, env: None),
        "policy '<lambda>' must make a pg.Network(init, apply), got None",
    ),
    "a module": (
        lambda: Config(policy=Dense(), **SMALL),
        "a module of flax.linen: write a function of config and env that returns pg.from_linen(",
    ),
    "a module that is made": (
        with_policy(lambda config, env: Dense()),
        "policy '<lambda>' must make a pg.Network(init, apply), got a Dense: pg.from_linen",
    ),
    "two functions": (
        with_policy(lambda config, env: (len, len)),
        "got a tuple of builtin_function_or_method, builtin_function_or_method: pg.from_linen, "
        "pg.from_nnx and pg.from_equinox make one of a module, and pg.Network(init, apply) is one "
        "of two functions",
    ),
    "a class": (
        lambda: Config(policy=Dense, **SMALL),
        "policy must be a pg.Network, got the class",
    ),
    "a policy of one argument": (
        lambda: Config(policy=lambda env: None, **SMALL),
        "policy must be a function of config, env, got one that cannot be called so",
    ),
    "a critic of width 1": (
        with_critic(network(lambda p, c, obs, first: (c, obs[..., :1]))),
        "the output of critic '<lambda>' must be [B] = [2], one number for each state, as in "
        "output[..., 0]; got shape [2, 1]",
    ),
    "a critic of states for one of actions": (
        with_critic(linear_critic, estimator="all_action"),
        "must be [B, A] = [2, 2], one number for each action; got shape [2]",
    ),
    "an optimizer with its rate": (
        lambda: Config(optimizer=optax.adam(1e-3), **SMALL),
        "write optimizer=optax.adam, as the rate is Hyperparams(learning_rate=...)",
    ),
    "an optimizer that is misspelt": (
        lambda: Config(optimizer="adm", **SMALL),
        "unknown optimizer 'adm': did you mean 'adam'",
    ),
    "a shared torso of one's own": (
        lambda: Config(estimator="gae", policy=linear, shared_torso=True, **SMALL),
        "shared_torso is for pg's own networks, and policy is 'linear'",
    ),
    "widths of a critic of one's own": (
        with_critic(linear_critic, critic_hidden_sizes=(8,)),
        "critic_hidden_sizes is for pg's own networks, and critic is 'linear_critic': "
        "leave one of them out",
    ),
    "sinusoids of a critic of one's own": (
        with_critic(linear_critic, estimator="q_prop", action_critic="sinusoids"),
        "action_critic is for pg's own networks, and critic is 'linear_critic': leave one "
        "of them out",
    ),
    "a recurrent policy in pieces": (
        with_policy(
            network(lambda p, c, obs, first: (c, pg.Categorical(obs[..., :2])), jnp.zeros(3)),
            estimator="ppo",
            collect="windows",
            minibatch_size=32,
        ),
        "minibatch_size=32 shuffles steps, and policy '<lambda>' is recurrent",
    ),
    "a fact that there is not": (lambda: pg.with_facts(unbiased="J"), "unknown fact 'unbiased'"),
    "a fact of another value": (
        lambda: pg.with_facts(unbiased_for="yes"),
        "unknown unbiased_for 'yes': valid: J, J_τ, J_β, no",
    ),
    "a way of collecting that there is not": (
        lambda: pg.with_facts(collect="episode"),
        "unknown collect 'episode': did you mean 'episodes'",
    ),
    "a setting that there is not": (
        lambda: pg.with_facts(settings={"lr": 1.0}),
        "unknown setting 'lr': did you mean 'learning_rate'",
    ),
    "a part that there is not": (
        lambda: execution.run(Config(**SMALL), None, [0], polcy=linear),
        "unknown part 'polcy': did you mean 'policy'",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_part_is_one_sentence(case: str) -> None:
    assert_one_sentence(*WRONG[case])


def test_an_estimator_that_keeps_an_array_of_a_trace_is_one_sentence() -> None:
    def remembering(policy: Network, critic: Network, h: Hyperparams) -> Any:
        def init(key: Any) -> Any:
            kept.append(key)
            return pg.Params((), ()), ()

        return pg.ESTIMATORS["reinforce"](policy, critic, h)._replace(init=init)

    env = configured(Config(**SMALL), 1)
    policy = make_policy(Config(**SMALL), env)
    with pytest.raises(ValueError, match="init of estimator 'remembering' keeps values"):
        checked(remembering)(policy, policy, Hyperparams()).init(KEY)


def test_networks_are_checked_within_a_trace_too() -> None:
    """As where runs are vmapped."""
    config = Config(policy=linear, critic=linear_critic, estimator="gae", **SMALL)
    env = configured(config, 1)
    jax.eval_shape(jax.vmap(lambda key: make_policy(config, env).init(key)), jax.random.split(KEY))


def test_a_choice_is_checked_as_its_caller_says() -> None:
    """Not by the word that it is given as."""
    parts.check_choice("beside", "dapo:kl=k2", check_estimator)
    parts.check_choices("label", ["dapo:kl=k2"], NAMES, check=check_estimator)
    with pytest.raises(
        ValueError, match=r"unknown estimators 'dapo:kl=k2'.*; your own is given as"
    ):
        parts.check_choice("estimators", "dapo:kl=k2", ["dapo"])
    with pytest.raises(ValueError, match=r"^estimators: spaces separate names, as in gae ppo$"):
        parts.check_choices("estimators", ["gae,ppo"], NAMES)


@pytest.mark.parametrize("text", ["gae:sampling=sobel", "gae:smpling=sobol", "dapo:kl=k7", "pgpe"])
def test_of_one_of_your_own_is_said_where_a_name_is_unknown_alone(text: str) -> None:
    """A setting of a known estimator is not the name in a file."""
    with pytest.raises(ValueError, match=r"\S") as raised:
        parts.check_choice("estimators", text, combinations.check)
    assert "of your own" not in str(raised.value)
    with pytest.raises(
        ValueError, match=r"unknown estimators 'gea': .*; your own is given as FILE"
    ):
        parts.check_choice("estimators", "gea", combinations.check)
