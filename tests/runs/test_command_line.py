"""Random command lines with a mistake in them: exit code 2 and a message."""

import contextlib
import functools
import inspect
import io
import random
from dataclasses import fields
from types import ModuleType

import pytest
from compilations import compiled
from scripts import refused_without_jax

from pg.commands import cli, compare, evaluate, flags
from pg.commands.job import Options
from pg.config import Config
from pg.settings.choices import CHOICES
from pg.settings.ranges import RANGES

# Right, with any other.
BESIDE = ("--seed 3", "--greedy", "--eval-episodes 5", "--hidden-sizes 8 8", "--out results", "")
NOT_ENOUGH = ("abc", "", "1,5", "nan", "--")
FLOATS = [
    f"--{name.strip('_').replace('_', '-')}"
    for name, row in RANGES.items()
    if "whole" not in row[2]
]
INTS = [
    "--n-step",
    "--snapshot-period",
    "--horizon",
    "--seed",
    "--seeds",
    "--eval-episodes",
    "--cpu-devices",
]
INTS += [f"--{field.name.replace('_', '-')}" for field in fields(Config) if field.type is int]
NAMES = [f"--{name.replace('_', '-')}" for name in CHOICES] + [
    "--shard",
    "--matmul-precision",
    "--env",
    "--estimator",
]
SWITCHES = [f"--{field.name.replace('_', '-')}" for field in fields(Config) if field.type is bool]
FLAGS = FLOATS + INTS + NAMES + SWITCHES
FLAGS += ["--env-params", "--observe", "--critic-observe", "--hidden-sizes", "--out"]
OUT_OF_RANGE = """
--gamma 1.5
--gae-lambda -0.1
--epsilon -1
--beta 2
--momentum 1.01
--max-kl 0
--damping -1
--max-grad-norm 0
--baseline-decay 1
--learning-rate -0.1
--learning-rate 1e39
--gamma inf
--seed -1
--seed 4294967296
--seeds 0
--eval-episodes 0
--cpu-devices 0
--horizon 0
--hidden-sizes 0
--hidden-sizes 8 -8
--observe -1
--n-step 0
--n-step 1e10
--num-envs 0
--num-envs 2.5
--num-updates 3e9
--num-steps -4
--group-size 0
--rnn-size 0
--num-envs 1e400
--env-params max_steps_in_episode=0
--env-params gravity=inf
--env-params gravity=1e39
--env-params gravity
--env-params gravity=heavy
--env-params max_steps_in_episode=2.5
""".strip().splitlines()
TOGETHER = """
--estimator reinforce --collect windows
--estimator gpomdp --collect episodes
--estimator grpo --group-size 1
--estimator leave_one_out --num-envs 1
--estimator gae --num-epochs 4
--num-envs 8 --group-size 3
--estimator ppo --num-envs 8 --num-minibatches 3
--estimator all_action --optimizer trpo
--estimator gae --optimizer storm --collect windows
--optimizer natural --rnn gru
--estimator ppo --optimizer trpo --shared-torso
--estimator reinforce --shared-torso
--estimator reinforce --critic-observe all
--estimator ppo --shared-torso --critic-observe 0 1
--estimator grpo --advantages batch
--num-envs 1e6 --horizon 1e6
--num-processes 2
--coordinator here:1 --num-processes 2 --process-id 2
--env MNISTBandit-bsuite
--estimator vtrace --num-minibatches 2
--estimator ppo --shared-torso --optimizer svrpg
surplus
--estimator entropy_reward --optimizer storm
--estimator reinforce --optimizer svrpg --temperature 0.1
""".strip().splitlines()


def misspelt(rng: random.Random, word: str) -> str:
    """The word with a letter left out, doubled, or moved."""
    i = rng.randrange(3, len(word))
    others = [
        word[:i] + word[i + 1 :],
        word[:i] + word[i] + word[i:],
        word[:i] + word[i + 1 :] + word[i],
    ]
    return rng.choice([other for other in others if other != word])  # the last letter may not move


def bad_arguments(rng: random.Random) -> list[str]:
    """A mistake of a random kind, with flags that are right before or behind it."""
    kind = rng.randrange(6)
    if kind == 0:
        flag = rng.choice(
            [f for f in (misspelt(rng, rng.choice(FLAGS)) for _ in range(9)) if f not in FLAGS]
        )
        wrong = [flag, "1"]
    elif kind == 1:
        wrong = [rng.choice(FLOATS), rng.choice(NOT_ENOUGH)]
    elif kind == 2:
        wrong = [rng.choice(INTS), rng.choice((*NOT_ENOUGH, "1.5", "inf", "-inf", "-1", "1e30"))]
    elif kind == 3:
        wrong = [
            rng.choice(NAMES),
            misspelt(rng, rng.choice(("CartPole-v1", "windows", "tanh", "reinforce", "adam"))),
        ]
    else:
        wrong = rng.choice(OUT_OF_RANGE if kind == 4 else TOGETHER).split()
    beside = [words.split() for words in BESIDE if words.partition(" ")[0] not in wrong]
    parts = [wrong, *rng.sample(beside, 2)]
    if wrong[-1] not in ("surplus", "--"):
        rng.shuffle(parts)
    return [word for words in parts for word in words]


@pytest.mark.acceptance("INPUTS")
@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_bad_command_lines(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """None needs a program to be compiled, or anything but the settings."""
    # most of the time
    monkeypatch.setattr(flags, "field_docstrings", functools.cache(flags.field_docstrings))
    monkeypatch.setattr(inspect, "getsource", functools.cache(inspect.getsource))
    rng, answered = random.Random(0), 0
    while answered < count:
        argv, err = bad_arguments(rng), io.StringIO()
        try:
            with (
                contextlib.redirect_stderr(err),
                compiled() as names,
                pytest.raises(SystemExit) as stopped,
            ):
                cli.parse("train.py", "doc", Options, argv)
        except BaseException as error:
            error.add_note(f"arguments: {argv}")
            raise
        assert stopped.value.code == 2, argv
        assert err.getvalue().strip(), argv
        assert "Traceback" not in err.getvalue(), argv
        assert names == [], argv
        answered += 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--name", ""), "name must consist of letters, digits, '_', '-' and '.', at most 100"),
        (("--estimator", ""), "unknown estimator '': 61 names are known, as reinforce; "),
        (("",), "'' belongs to no flag"),
    ],
)
def test_an_empty_word_is_a_value_as_others_are(words: tuple[str, ...], said: str) -> None:
    assert said in " ".join(refused_without_jax("train.py", *words).stderr.split())


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (evaluate, ("--run", "results"), "there is no flag --run: write RUN without it"),
        (compare, ("--runs=results",), "there is no flag --runs: write RUNS without it"),
        (evaluate, ("results", "--out"), "out needs a value: a path"),
    ],
)
def test_a_flag_of_a_value_that_has_none(
    command: ModuleType, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(words)
    assert capsys.readouterr().err == f"error: {said}\n"
