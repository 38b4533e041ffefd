"""Files of settings: the output of `--print-config` is the same experiment for `--config`."""

import dataclasses
import json
import os
import re
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import refused_without_jax

from pg.commands import benchmark, cli, sweep, train, tune
from pg.commands.job import Options
from pg.config import Config, Hyperparams
from pg.estimators.variants import VARIANTS
from pg.presets import preset
from pg.runs import folders

Parsed = tuple[Config, Hyperparams, Any, cli.Machine]


def parsed(*argv: str, options: type = Options) -> Parsed:
    return cli.parse("train.py", "doc", options, list(argv))


def printed(capsys: pytest.CaptureFixture[str], *argv: str, options: type = Options) -> str:
    with pytest.raises(SystemExit) as stopped:
        parsed(*argv, "--print-config", options=options)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        parsed(*argv)
    assert stopped.value.code == cli.MISTAKE
    return " ".join(capsys.readouterr().err.split())


CASES = {
    **{name: f"--estimator {name}" for name in ("reinforce", "ppo", "grpo", "gpomdp")},
    "tuned": "--estimator ppo --env Pendulum-v1 --seeds 3 --seed 7 --greedy",
    "unlike its preset": "--estimator ppo --num-minibatches 1 --schedule constant --gamma 1",
    "no optional value": "--estimator gae --critic-optimizer none --horizon none",
    "every kind of value": "--horizon 30 --hidden-sizes --observe 0 2 --max-grad-norm inf "
    "--adam-epsilon 1e-5 --env-params length=0.8 max_steps_in_episode=30 --no-strict "
    "--critic-optimizer sgd --name a-name --checkpoint-minutes inf --shard envs --baseline -0.5 "
    '--out a"b\\c/é',
    "steps": "--estimator ppo --total-steps 1e5",
    "names and numbers": "--estimator gae --observe 0 2 --critic-observe state velocity",
    "minibatches of steps": "--estimator ppo --minibatch-size 32 --num-envs 8",
    "a variant": "--estimator recurrent_ppo --env MemoryChain-bsuite --gamma 0.9",
}


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES)
def test_what_is_printed_is_the_same_experiment(
    flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = flags.replace("critic-optimizer none", "critic-optimizer None").split()
    text = printed(capsys, *argv)
    file = written(tmp_path / "settings.toml", text)
    assert parsed("--config", file) == parsed(*argv)
    assert printed(capsys, "--config", file) == text


def test_the_other_formats_hold_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = pytest.importorskip("yaml")
    argv = CASES["every kind of value"].split()
    data = tomllib.loads(printed(capsys, *argv))
    finite = folders.jsonable(data)  # "inf" for infinity
    in_json = written(tmp_path / "settings.json", json.dumps(finite))
    in_yaml = written(tmp_path / "settings.yaml", yaml.safe_dump(data))
    assert parsed("--config", in_json) == parsed("--config", in_yaml) == parsed(*argv)
    short = written(tmp_path / "short.yml", "learning_rate: 1e-3\nhidden-sizes: [8]\nhorizon: ~\n")
    config, h, _, _ = parsed("--config", short)
    assert (h.learning_rate, config.hidden_sizes, config.horizon) == (0.001, (8,), None)


def test_a_file_has_the_preset_of_its_estimator_and_flags_go_before_it(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", 'estimator = "ppo"\nnum_envs = 16\nnum_updates = 3\n')
    config, h, _, _ = parsed("--config", file, "--num-envs", "32", "--seeds", "2")
    assert (config, h) == preset("ppo", num_envs=32, num_updates=3)
    other, _, _, _ = parsed(f"--config={file}", "--estimator", "leave_one_out")
    assert other == preset("leave_one_out", num_envs=16, num_updates=3)[0]
    longer, _, _, _ = parsed("--config", file, "--total-steps", "8192")
    assert longer.num_updates == 8192 // (16 * longer.num_steps)


def test_a_flag_of_one_value_has_no_two(capsys: pytest.CaptureFixture[str]) -> None:
    """But the same one may be given again; a flag replaces an entry of a file, or of a variant."""
    twice = ("--num-updates", "2", "--num_updates=3")
    assert "num_updates is given twice, '2' and '3': give one of them" in said(capsys, *twice)
    twice = ("--estimator", "reinforce", "--estimator", "ppo")
    assert "estimator is given twice, 'reinforce' and 'ppo'" in said(capsys, *twice)
    for names in (("ppo", "unmasked_ppo"), ("recurrent_ppo", "ppo")):  # and for variants
        twice = [word for name in names for word in ("--estimator", name)]
        both = f"'{names[0]}' and '{names[1]}'"
        assert f"estimator is given twice, {both}: give one of them" in said(capsys, *twice)
    assert parsed("--seed", "3", "--seed=3") == parsed("--seed", "3")
    assert parsed("--estimator", "natural", "--greedy", "--no-greedy")[0] == preset("natural")[0]


def test_an_error_names_the_flag_where_one_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the setting where its value comes from a file."""
    file = written(tmp_path / "a.toml", "num_envs = -3\n")
    cases = {
        ("--num-envs", "-3"): "error: --num-envs must be a whole number of at least 1, got -3",
        ("--config", file): "num_envs must be a whole number of at least 1, got -3",
        ("--a_(b", "3"): "error: there is no flag --a_(b",
        ("--total-steps=9", "--num_updates", "3"): "error: --total-steps and --num-updates are mut",
    }
    for words, sentence in cases.items():
        with pytest.raises(SystemExit):
            train.main([*words, "--estimator", "ppo"])
        err = capsys.readouterr().err
        assert sentence in err
        assert ("--num-envs" in err) == ("--num-envs" in words)


def test_the_settings_of_a_run_are_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No preset fills in missing values, whatever flags follow; and only the train command
    continues with the seeds.
    """
    config = Config(num_envs=3, hidden_sizes=(8,), preset=None)
    hyperparams = Hyperparams(max_grad_norm=float("inf"))
    asked = {"seed": 5, "seeds": 2, "eval_episodes": 7, "greedy": True, "out": "elsewhere"}
    folders.write_setup(tmp_path, config, hyperparams, asked, {"pg": "0"})
    for place in (tmp_path, tmp_path / "config.json"):
        again, h, options, _ = parsed("--config", str(place), "--estimator", "leave_one_out")
        assert again == dataclasses.replace(config, estimator="leave_one_out")
        assert h == hyperparams
        kept = (options.seed, options.seeds, options.eval_episodes, options.greedy, options.out)
        assert kept == (5, 2, 7, True, Path("results"))
    swept, _, options, _ = parsed("--config", str(tmp_path), options=sweep.Options)
    assert (swept, options.seeds) == (config, 8)
    data = json.loads((tmp_path / "config.json").read_text()) | {"env_class": "here.Mine"}
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert "give it again, as --env FILE.py:NAME" in said(capsys, "--config", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.toml",
            "learning_rat = 1",
            "unknown setting 'learning_rat': did you mean 'learning_rate'",
        ),
        ("a.toml", "total_timesteps = 10", "did you mean 'total_steps'?"),
        ("a.toml", "num_envs =", "cannot read"),
        ("a.toml", "greedy = 1", "greedy must be true or false, got 1"),
        ("a.toml", "num_envs = true", "num_envs must be a value of its own, got True"),
        ("a.toml", "num_envs = [1, 2]", "num_envs must be one value, got [1, 2]"),
        ("a.toml", "num_envs = -3", "num_envs must be a whole number of at least 1, got -3"),
        ("a.toml", 'num_envs = "x"', "a.toml: num_envs must be a whole number, got 'x'"),
        ("a.toml", "config = 3", "unknown setting 'config'"),
        ("a.json", "[1]", "must be names with values, got [1]"),
        ("a.json", '{"gamma": NaN}', "a.json"),
        ("a.json", '{"config": {"num_env": 3}, "hyperparams": {}}', "did you mean 'num_envs'"),
        ("a.ini", "", "its name must end in .toml, .json, .yaml or .yml"),
        ("a.yaml", "a: [", "cannot read"),
    ],
)
def test_a_mistake_in_a_file_is_a_sentence(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / name, text)
    text = said(capsys, "--config", path)
    assert message in text
    assert "Traceback" not in text


def test_a_mistake_with_a_file_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "none.toml")
    assert f"cannot read {missing}: No such file" in said(capsys, "--config", missing)
    assert "is not a folder of a run" in said(capsys, "--config", str(tmp_path))
    done = refused_without_jax("train.py", "--config", missing)
    assert f"cannot read {missing}" in " ".join(done.stderr.split())
    both = ("--config", missing, "--resume", str(tmp_path))
    assert "config and resume are mutually exclusive" in said(capsys, *both)
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = written(tmp_path / "a.yaml", "gamma: 1")
    assert "YAML needs pyyaml: pip install pyyaml" in said(capsys, "--config", path)


def test_a_benchmark_is_told_by_a_file_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--suite", "minatar", "--label", "ppo", "--seeds", "3", "--from", "a.csv"]
    argv += ["--env", "Breakout-MinAtar", "a.py:Env", "--estimator", "a.py:x", "a.py:y"]

    def options(*words: str) -> benchmark.Options:
        return cli.options(benchmark.Options, "doc", words, with_file=True)

    with pytest.raises(SystemExit):
        options(*argv, "--print-config")
    path = written(tmp_path / "suite.toml", capsys.readouterr().out)
    assert options("--config", path) == options(*argv)
    assert options("--config", path, "--seeds", "4").seeds == 4
    assert options("--config", path, "--policy", "a.py:x").policy == "a.py:x"
    assert options("--config", path, "--policy", "none").policy is None


def test_a_sweep_is_told_by_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--estimator ppo --over gamma=0.9,1 num_envs=8,16 --total-steps 4096 --width 2"
    argv = flags.split()
    path = written(tmp_path / "a.toml", printed(capsys, *argv, options=sweep.Options))
    assert parsed("--config", path, options=sweep.Options) == parsed(*argv, options=sweep.Options)
    table = written(tmp_path / "b.toml", "over = { learning_rate = [1e-3, 1e-2] }\n")
    chosen = parsed("--config", table, options=sweep.Options)[2]
    assert chosen.over == ("learning_rate=0.001,0.01",)


def test_values_of_a_flag_that_is_given_twice_come_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And replace those of a file; one value that consists of several numbers has no two."""
    together = parsed("--over", "gamma=0.9,1", "num_envs=8,16", options=sweep.Options)
    apart = ("--over", "gamma=0.9,1", "--seeds", "8", "--over=num_envs=8,16")
    assert parsed(*apart, options=sweep.Options) == together
    env = parsed("--env-params", "length=0.8", "--env-params", "gravity=9")[0]
    assert dict(env.env_params) == {"length": 0.8, "gravity": 9}
    labels = cli.options(benchmark.Options, "doc", ["--label", "ppo", "--label", "trpo"])
    assert labels.label == ("ppo", "trpo")
    path = written(tmp_path / "a.toml", 'over = ["gamma=0.9,1"]\nhidden_sizes = [8]\n')
    words = ("--config", path, "--over", "num_envs=8,16", "--hidden-sizes", "4", "4")
    config, _, options, _ = parsed(*words, options=sweep.Options)
    assert options.over == ("num_envs=8,16",)
    assert config.hidden_sizes == (4, 4)
    assert "hidden_sizes is given twice, '8 8' and '4': give one of them" in said(
        capsys, "--hidden-sizes", "8", "8", "--hidden-sizes=4"
    )
    assert "env_params: length is given twice" in said(
        capsys, "--env-params", "length=0.8", "--env-params", "length=1"
    )
    for flag in ("set", "range"):
        with pytest.raises(SystemExit):
            tune.main([f"--{flag}", "gamma=0.9", f"--{flag}", "gamma=0.8"])
        assert f"{flag}: gamma is given twice" in capsys.readouterr().err


def test_the_file_on_the_page_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "train.md"
    (text,) = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    config, h, options, _ = parsed("--config", written(tmp_path / "ppo.toml", text))
    assert (config.estimator, config.env_params) == ("ppo", (("length", 0.8),))
    assert (h.learning_rate, options.seeds) == (0.001, 8)


OWN = """
import pg

def half(policy, critic, hyperparams):
    return pg.ESTIMATORS["ppo"](policy, critic, hyperparams)
"""


def test_parts_of_ones_own_come_from_a_file_of_settings_and_never_from_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "mine.py", OWN)
    argv = ["--estimator", f"{source}:half", "--collect", "windows", "--policy", "none"]
    text = printed(capsys, *argv)
    assert f'estimator = "{source}:half"' in text
    file = written(tmp_path / "settings.toml", text)
    config, h, options, _ = parsed("--config", file)
    assert (config, h) == parsed(*argv)[:2]

    folders.write_setup(tmp_path, config, h, dataclasses.asdict(options), {"pg": "0"})
    written(tmp_path / "mine.py", "raise SystemExit('it was executed')")
    message = said(capsys, "--config", str(tmp_path), "--num-envs", "8")
    assert f"give it again, as --estimator {source}:half" in message
    named, _, _, _ = parsed("--config", str(tmp_path), "--estimator", "gae")
    assert named == dataclasses.replace(config, estimator="gae")
    written(tmp_path / "mine.py", OWN)
    again = parsed("--config", str(tmp_path), "--estimator", f"{source}:half")
    assert again[:2] == (config, h)


@pytest.mark.parametrize("label", VARIANTS)
def test_the_name_of_a_variant_is_its_estimator_and_settings(label: str) -> None:
    for argv in (["--estimator", label], [f"--estimator={label}"]):
        config, hyperparams, *_ = parsed(*argv)
        assert (config, hyperparams) == preset(label)
    assert config.estimator == VARIANTS[label]["estimator"]


def test_a_variant_has_its_tuned_settings_and_flags_go_before_them(tmp_path: Path) -> None:
    task = ["--env", "MemoryChain-bsuite"]
    config, hyperparams, *_ = parsed("--estimator", "recurrent_ppo", *task)
    assert (config, hyperparams) == preset("recurrent_ppo", env="MemoryChain-bsuite")
    assert (config.rnn, config.rnn_size) == ("gru", 32)
    config, *_ = parsed("--rnn", "lru", "--estimator", "recurrent_ppo", *task)
    assert (config.rnn, config.rnn_size) == ("lru", 32)
    file = written(tmp_path / "settings.toml", 'estimator = "recurrent_ppo"\nrnn_size = 16')
    config, *_ = parsed("--config", file, *task)
    assert (config.estimator, config.rnn, config.rnn_size) == ("ppo", "gru", 16)
    config, *_ = parsed("--config", file, "--estimator", "gae")
    assert (config.estimator, config.rnn, config.rnn_size) == ("gae", "none", 16)


def test_what_a_variant_sets_is_given_to_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """So that no preset of what is varied undoes it."""
    argv = ["--estimator", "recurrent_ppo", "--over"]
    over = [*argv, "learning_rate=0.1,0.2"]
    given = cli.parse_given("sweep.py", "doc", sweep.Options, over)[4]
    assert given == {"estimator", "over", "rnn"}
    with pytest.raises(SystemExit):
        cli.parse_given("sweep.py", "doc", sweep.Options, [*argv, "env=CartPole-v1,Acrobot-v1"])
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith("and env is varied: vary env with ppo with rnn='gru'")


def test_a_variant_is_no_estimator_of_a_run_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, hyperparams = preset("ppo")
    folders.write_setup(tmp_path, config, hyperparams, {}, {"pg": "0"})
    assert "'recurrent_ppo' stands for ppo with rnn='gru', which pg.preset" in said(
        capsys, "--config", str(tmp_path), "--estimator", "recurrent_ppo"
    )


def test_a_search_that_is_interrupted_prints_its_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one program, which a first signal leaves to finish."""

    def interrupted(*args: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        scores = np.array([[1.0, 2.0], [3.0, 4.0]])
        return {"steps": np.full((2, 2), 7), "greedy": scores, "sampled": scores}

    monkeypatch.setattr(tune, "search", interrupted)
    words = ["--trials", "2", "--seeds", "2", "--range", "learning_rate=0.1:0.1"]
    assert tune.main(words) == cli.INTERRUPTED
    assert "preset('reinforce', env='CartPole-v1', learning_rate=0.1)" in capsys.readouterr().out
