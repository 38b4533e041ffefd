"""Text for the terminal fits its width: settings, progress, help, and the lines while a program
compiles.
"""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pg.commands import cli, clock, evaluate, flags, terminal
from pg.commands.job import Options, selected_shares
from pg.commands.terminal import Progress, fitted, wrapped
from pg.config import ENVIRONMENTS, LIBRARIES, UNSUPPORTED, Config, Hyperparams
from pg.estimators.combined import with_dynamics_control_variate, with_gradient_control_variate
from pg.estimators.names import NAMES, candidate_names
from pg.fast import devices
from pg.parts import with_facts
from pg.presets import preset
from pg.runs import interrupts
from pg.sweep import SweepSpec, driver, spaces

TRAIN = str(Path(__file__).parents[2] / "experiments" / "train.py")


class Screen:
    """A terminal of some columns, and what was written to it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split(r"[\r\n]", self.text) if line.strip()]


def on_screen(monkeypatch: pytest.MonkeyPatch, width: int) -> Screen:
    """Standard error, from now on. Not a fixture: pytest sets another one before the test
    itself.
    """
    monkeypatch.setenv("COLUMNS", str(width))
    made = Screen()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def metrics(
    mean_return: float = 143.3, *, skipped: tuple[int, ...] = (0,), nonfinite: Any = None
) -> dict[str, np.ndarray]:
    """The metrics of one update of each run. nonfinite: By default gradients, where skipped."""
    column = np.ones((len(skipped), 1))
    return {
        "return": mean_return * column,
        "episodes": 3 * column,
        "grad_norm": 0.837 * column,
        "entropy": -1e-9 * column,
        "env_steps": 1000 * column,
        "skipped": np.array(skipped)[:, None],
        "nonfinite": np.array([4 * x for x in skipped] if nonfinite is None else nonfinite)[
            :, None
        ],
    }


ALL = (
    " 50%|████████        | 1/2 updates, return 143.3, grad norm 0.837, entropy -1e-9, 1.00k "
    "steps/s, 00:01 left"
)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, ALL),
        (
            100,
            " 50%|████████        | 1/2 updates, return 143.3, entropy -1e-9, 1.00k steps/s, "
            "00:01 left",
        ),
        (80, " 50%|████████        | 1/2 updates, return 143.3, 1.00k steps/s, 00:01 left"),
        (60, "1/2 updates, return 143.3, 1.00k steps/s, 00:01 left"),
        (50, "1/2 updates, return 143.3, 00:01 left"),
        (30, "1/2 updates, 00:01 left"),
        (10, "1/2 updat"),
    ],
)
def test_progress_leaves_out_what_matters_least(
    width: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that is left stays longest; a line that is as wide as the terminal would begin
    another.
    """
    screen = on_screen(monkeypatch, width)
    progress = Progress(2)
    progress(1, 1.0, metrics())
    progress.close()
    assert screen.lines == [expected.rstrip()]
    assert screen.text.endswith("\n")


def test_runs_that_have_stopped_are_more_important_than_the_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = on_screen(monkeypatch, 80)
    progress = Progress(2)
    progress(1, 1.0, metrics(skipped=(0, 1)))
    progress.close()
    assert screen.lines == [
        "1/2 updates, return 143.3, 2.00k steps/s, 1 of 2 runs not finite, 00:01 left"
    ]


@pytest.mark.parametrize(
    ("causes", "said"),
    [
        ((16, 0), "1 of 2 runs without a legal action"),
        ((16, 16), "2 of 2 runs without a legal action"),
        ((20, 0), "1 of 2 runs not finite"),
        ((16, 4), "2 of 2 runs stopped or skipped"),
    ],
)
def test_runs_that_have_stopped_are_said_by_their_causes(
    causes: tuple[int, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where they are frozen, and later updates of theirs have none."""
    progress, skipped = Progress(2), tuple(int(x > 0) for x in causes)
    progress(1, 1.0, metrics(skipped=skipped, nonfinite=causes))
    progress(2, 1.0, metrics(skipped=skipped, nonfinite=(0, 0)))
    progress.close()
    assert all(said in line for line in capsys.readouterr().out.splitlines())


def test_causes_are_of_these_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Not of an update before one that was applied, nor of the runs before."""
    progress = Progress(5)
    progress(1, 1.0, metrics(skipped=(1,), nonfinite=(4,)))
    progress(2, 1.0, metrics(skipped=(0,), nonfinite=(0,)))
    progress(3, 1.0, metrics(skipped=(1,), nonfinite=(16,)))
    progress(4, 1.0, metrics(skipped=(1,), nonfinite=(4,)))
    progress.begin_others()
    progress(5, 1.0, metrics(skipped=(1, 0), nonfinite=(16, 0)))
    progress.close()
    said = re.findall(r"runs ([^,]*),", capsys.readouterr().out)
    assert said == ["not finite", "without a legal action"] * 2


def test_a_sign_of_life_while_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds on a terminal, gone once there is progress; the shorter line leaves nothing of the
    longer one.
    """
    screen = on_screen(monkeypatch, 80)
    progress = Progress(2)
    for _ in range(200):
        if "compiling: 1 s" in screen.lines:
            break
        time.sleep(0.05)
    assert "compiling: 1 s" in screen.lines
    progress.begin()
    for _ in range(200):
        if "first updates: 1 s" in screen.lines:
            break
        time.sleep(0.05)
    assert "first updates: 1 s" in screen.lines
    progress(1, 1.0, metrics())
    shown = len(screen.text)
    time.sleep(1.1)
    assert len(screen.text) == shown
    monkeypatch.setenv("COLUMNS", "30")
    progress(2, 1.0, metrics())
    before, after = screen.text.split("\r")[-2:]
    assert len(after) >= len(before)
    progress.close()


def test_elsewhere_a_line_comes_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a log: whole, and without a bar."""
    progress = Progress(20)
    for done in range(1, 21):
        progress(done, 1.0, metrics(-1e-9))
    progress.close()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 10
    assert out.splitlines()[-1].startswith("20/20 updates, return -1e-9, grad norm 0.837, entropy ")
    assert out.splitlines()[-1].endswith(" steps/s, 00:00 left")
    assert err == ""


def test_elsewhere_first_updates_that_take_long_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for silence, said in ((60.0, ""), (0.01, "the first updates are in progress; a line follows ")):
        monkeypatch.setattr(terminal, "SILENCE", silence)
        progress = Progress(20)
        progress.begin()
        time.sleep(0.2)
        assert capsys.readouterr().out.startswith(said)
        progress(1, 1.0, metrics())
        assert "first updates" not in capsys.readouterr().out
        progress.close()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_settings_are_cut_between_words(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = cli.describe(*preset("ppo", env="MountainCarContinuous-v0"), 200, 9155, verbose=True)
    whole = " ".join(text.split())
    assert all(len(line) <= width for line in text.splitlines())
    monkeypatch.setenv("COLUMNS", "10000")
    assert whole == " ".join(
        cli.describe(
            *preset("ppo", env="MountainCarContinuous-v0"), 200, 9155, verbose=True
        ).split()
    )


def test_a_word_that_is_longer_than_the_line_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    path = "/a/very/long/path/of-a-folder"
    assert (
        wrapped(f"continue with --resume {path}", Screen()) == f"continue with --resume\n  {path}"
    )
    monkeypatch.delenv("COLUMNS")
    assert (
        wrapped(f"continue with --resume {path}", Screen()) == f"continue with --resume {path}"
    )  # no terminal of the system's


@pytest.mark.slow
def test_the_sentences_of_a_sweep_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """But for its table and its paths."""
    config = Config(
        env="CartPole-v1", num_envs=2, num_updates=1, horizon=9, hidden_sizes=(4,), preset=None
    )
    spec = SweepSpec(
        config, Hyperparams(), {"learning_rate": [0.003], "gravity": [9.8]}, range(2), 1
    )
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    one = devices.layout(most=1)
    driver.run_sweep(spec, tmp_path, one, cli.Checkpointing(), width=None, limit=None, fresh=2)
    assert "report this one" in screen.text
    sentences = [
        line for line in screen.lines if str(tmp_path) not in line and "diverged" not in line
    ]
    assert max(map(len, sentences)) <= 80


def test_no_line_of_a_log_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")  # as a shell exports it
    cli.say("continue with --resume /a/very/long/path/of-a-folder")
    with pytest.raises(SystemExit):
        cli.fail("a sentence that is longer than the line")
    out, err = capsys.readouterr()
    assert out == "continue with --resume /a/very/long/path/of-a-folder\n"
    assert err == "error: a sentence that is longer than the line\n"


@with_facts(unbiased_for="J", extra_rollout_kind="starts", starts=4)
def with_resets(policy: Any, critic: Any, h: Hyperparams) -> Any:
    """Not made here."""


@pytest.mark.parametrize(
    ("settings", "planned"),
    [
        ({"estimator": "gradient_control_variate"}, 10 * 4 * (2 + 4)),
        ({"estimator": with_resets, "optimizer": "harpg"}, 10 * 4 * (2 + 4) * 2),
        ({"estimator": "gradient_control_variate", "action_repeat": 3}, 10 * 4 * (3 * 2 + 4)),
        (
            {
                "estimator": with_gradient_control_variate(
                    with_dynamics_control_variate("reward_to_go"), num_starts=5
                ),
                "num_branches": 3,
            },
            10 * 4 * (2 * (1 + 3) + 5),
        ),
    ],
)
def test_resets_are_among_the_planned_steps(
    settings: dict[str, Any], planned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    config = Config(num_envs=4, num_updates=10, horizon=2, preset=None, **settings)
    lines = cli.describe(config, config.hyperparams(), 500, 100).splitlines()
    assert lines[1] == f"planned: at most {planned} environment steps per seed"


def test_only_settings_that_are_not_the_usual_ones_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    config = Config(estimator="gae", num_envs=4, num_steps=8, num_updates=10, hidden_sizes=(9,))
    lines = cli.describe(config, config.hyperparams(gamma=0.9), 500, 100).splitlines()
    assert lines == [
        "gae on CartPole-v1: 10 updates of 4 × 8 steps, 100 parameters",
        "planned: 320 environment steps per seed",
        "settings of training: num_updates=10, num_envs=4, num_steps=8, hidden_sizes=(9,), "
        "gamma=0.9; the others have their defaults (config.json has them, --verbose lists them)",
    ]
    ended = cli.describe(config, config.hyperparams(), 500, 100, resets="where ended")
    assert ended.splitlines()[1] == f"{lines[1]}; resets where ended"
    twice = cli.describe(
        Config(optimizer="harpg", num_envs=4, num_updates=10), Hyperparams(), 500, 100
    )
    assert "planned: at most 40,000 environment steps per seed" in twice
    usual = Config()
    last = cli.describe(usual, usual.hyperparams(), 500, 100).splitlines()[-1]
    assert last.startswith("settings of training: all have their defaults (")
    shorter = cli.describe(Config(num_updates=9), usual.hyperparams(), 500, 100).splitlines()[-1]
    assert shorter.startswith("settings of training: num_updates=9; the others have their defaults")
    everything = cli.describe(config, Hyperparams(), 500, 100, verbose=True)
    assert all(f"{name}=" in everything for name in (*config.to_json(), *Hyperparams().scalars()))


def test_parts_of_the_same_rank_go_together() -> None:
    parts = [(1, "a"), (0, "b"), (1, "c")]
    assert fitted(parts, 7) == "a, b, c"
    assert fitted(parts, 6) == fitted(parts, 0) == "b"


def helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stopped:
        cli.parse(
            "train.py",
            "What it does.\n\nAnd a second paragraph " + 20 * "of many words ",
            Options,
            ["--help"],
        )
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_the_help_shows_the_experiment_first_and_its_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = helped(monkeypatch, capsys, 80)
    # in a box, or without where that cannot be drawn
    assert all(len(line) <= 80 for line in text.splitlines())
    flags = re.findall(r"^[^\w-]{1,3}--([a-z][a-z-]*)", text, re.MULTILINE)
    assert flags[:8] == [
        "env",
        "env-params",
        "estimator",
        "settings-of",
        "seeds",
        "seed",
        "num-updates",
        "total-steps",
    ]
    assert len(flags) == len(set(flags))
    words = " ".join(re.sub("[│|]", " ", text).split())
    names = re.split(r"[, ]+", words.split("One of ")[1].split(";")[0])
    assert names == [name for name in ENVIRONMENTS if name not in UNSUPPORTED]
    assert f"or library:name, of {', '.join(LIBRARIES)}." in words
    assert f"One of {', '.join(NAMES)}; or with switches, as dapo:kl=k2+kl_place=loss" in words


def help_of(script: str) -> str:
    """The help of a command in a terminal of 80 columns."""
    done = subprocess.run(
        [sys.executable, TRAIN.replace("train", script), "--help"],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    return done.stdout


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_every_flag_is_in_a_titled_group(script: str) -> None:
    text = help_of(script)
    titles = re.findall(r"^╭─ (.+) options ─", text, re.MULTILINE)
    assert titles == list(flags.GROUPS)
    boxes = re.split(r"^╭─ .+ options ─.*$", text, flags=re.MULTILINE)[1:]
    for title, box in zip(titles, boxes, strict=True):
        shown = re.findall(r"^│ --([a-z][a-z-]*)", box, re.MULTILINE)
        names = [name.replace("_", "-") for name in flags.GROUPS[title]]
        assert shown == [name for name in names if name in shown]
        assert shown


COMMANDS = ("train", "sweep", "benchmark", "estimator_benchmark", "estimator_variance")
COMMANDS += ("estimator_table", "sequence_table", "render", "replay", "tune")


@pytest.mark.parametrize("script", COMMANDS)
def test_the_help_of_every_command_fits_a_terminal(script: str) -> None:
    """With one default for each flag, and lines that break where the terminal does."""
    text = help_of(script)
    assert max(len(line) for line in text.splitlines()) <= 80
    helps = re.split(r"^│ --", text, flags=re.MULTILINE)[1:]
    for shown in helps:
        words = " ".join(re.sub("[│╭╮╰╯─]", " ", shown).split())
        assert words.count("(default: ") == 1, words
        assert "{None}" not in words
        assert "(default: None)" not in words
        assert "(default: )" not in words
        # a sentence goes on in the column in which it began
        lines = [line[1:] for line in shown.splitlines()[1:] if line.startswith("│  ")]
        assert len({len(line) - len(line.lstrip()) for line in lines}) <= 1, shown


@pytest.mark.parametrize(
    ("script", "flag", "today"),
    [
        ("train", "--memory", "--rnn"),
        ("train", "--memory-size", "--rnn-size"),
        ("train", "--lambda", "--gae-lambda"),
        ("sweep", "--memory", "--rnn or --memory-limit"),
        ("sweep", "--points", "--trials"),
        ("sweep", "--draw", "--search-seed"),
        ("tune", "--points", "--trials"),
    ],
)
def test_a_flag_of_before_is_answered_by_that_of_today(script: str, flag: str, today: str) -> None:
    command = [sys.executable, TRAIN.replace("train", script), flag, "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: there is no flag {flag}: did you mean {today}?\n"


def on_a_terminal(*command: str, **environment: str) -> str:
    """The output of a command on a terminal of 80 columns."""
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    with subprocess.Popen([sys.executable, *command], stdout=child, stderr=child, env=env):
        os.close(child)
        text = b""
        while True:
            try:
                read = os.read(parent, 4096)
            except OSError:  # its other end is closed
                break
            if not read:
                break
            text += read
    os.close(parent)
    return text.decode()


READ_ON = """
import dataclasses, sys
from pg.commands import cli

@dataclasses.dataclass
class Options:
    lines: int = 3000

for i in range(cli.options(Options, "", []).lines):
    print(i, "x" * 100, flush=True)
    print(i, "y" * 100, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "command",
    [
        ["-c", READ_ON],
        *(
            [TRAIN.replace("train", name), "--help"]
            for name in ("train", "sweep", "render", "tune")
        ),
    ],
)
def test_a_reader_that_stops_to_read_does_not_end_a_program(command: list[str]) -> None:
    """As `head -1` does: no traceback, and the program's own exit code."""
    read, written = os.pipe()
    with subprocess.Popen([sys.executable, *command], stdout=written, stderr=written) as program:
        os.close(written)
        assert os.read(read, 5)
        os.close(read)
    assert program.returncode == 0
    errors = subprocess.run(
        ["bash", "-c", '"$@" | head -1', "-", sys.executable, *command], capture_output=True
    )
    assert b"Error" not in errors.stderr


def test_no_colour_where_none_is_wanted() -> None:
    assert "\x1b[" in on_a_terminal(TRAIN, "--help", NO_COLOR="")
    assert "\x1b[" not in on_a_terminal(TRAIN, "--help", NO_COLOR="1")
    mistake = on_a_terminal(TRAIN, "--num-updates", "x", NO_COLOR="")
    assert mistake == "error: --num-updates must be a whole number, got 'x'\r\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--num-envs abc", "num_envs must be a whole number, got 'abc'"),
        ("--learning-rate=fast", "learning_rate must be a number, got 'fast'"),
        ("--stop-at-return high", "stop_at_return must be a number or none, got 'high'"),
        ("--hidden-sizes 64 x", "hidden_sizes must be whole numbers, got '64 x'"),
        ("--activation rel", "unknown activation 'rel': did you mean 'relu'"),
        ("--critic-optimizer adm", "unknown critic_optimizer 'adm': did you mean 'adam'"),
        ("--env-params gravity", "env_params must be NAME=VALUE with a number, true or false, got"),
        ("--num-envs", "num_envs needs a value: a whole number"),
        ("CartPole-v1", "'CartPole-v1' belongs to no flag: --help lists them"),
    ],
)
def test_a_value_of_another_type_is_one_sentence(
    flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no panel of the parser's."""
    with pytest.raises(SystemExit, match="2"):
        cli.parse("pg train", "Train.", Options, flags.split())
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_the_folder_of_a_run_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.options(evaluate.Options, "Evaluate.", ["--episodes", "3"])
    assert capsys.readouterr().err == "error: RUN is missing: --help says what comes first\n"
    found = cli.options(evaluate.Options, "Evaluate.", ["--episodes", "3", "RUN", "--greedy"])
    assert (found.run, found.episodes, found.greedy) == (Path("RUN"), 3, True)


@pytest.mark.parametrize("word", ["none", "None", "NONE"])
def test_none_is_a_value_of_any_flag_that_may_have_none(word: str) -> None:
    flags = ["--stop-at-return", word, f"--critic-optimizer={word}", "--critic-hidden-sizes", word]
    config, _, options, _ = cli.parse("pg train", "Train.", Options, flags)
    assert options.stop_at_return is None
    assert (config.critic_optimizer, config.critic_hidden_sizes) == (None, None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--lr 0.1", "there is no flag --lr: did you mean --learning-rate?"),
        (
            "--total-timesteps 1e6",
            "there is no flag --total-timesteps: did you mean --total-steps?",
        ),
        (
            "--total_timesteps=1e6",
            "there is no flag --total_timesteps: did you mean --total-steps?",
        ),
        ("--config x.json", "x.json: No such file or directory"),
        ("--n-envs 8", "did you mean --num-envs?"),
        ("--epochs 8", "did you mean --num-epochs?"),
        ("--n-seeds 8", "did you mean --seeds?"),
        ("--lambda 0.9", "did you mean --gae-lambda?"),
        ("--algo ppo", "did you mean --estimator?"),
        ("-lr 0.1", "there is no flag -lr: did you mean --learning-rate?"),
        ("--learning-rat 0.1", "did you mean --learning-rate"),
        ("--device cpu", "JAX_PLATFORMS=cpu or cuda in front of the command chooses"),
        ("--qqq", "there is no flag --qqq: --help lists all"),
        ("--quiet", "there is no flag --quiet: --help lists all"),
        ("--dry-run", "no flag --dry-run: --print-config prints all settings, and trains nothing"),
        ("--print-plan", "there is no flag --print-plan: did you mean --print-config?"),
        ("--total-steps 1000", "total_steps needs collect='windows'"),
        (
            "--estimator ppo --total-steps 1000 --num-updates 3",
            "total_steps and num_updates are mutually exclusive",
        ),
        (
            "--estimator ppo --total-steps 1000 --num_updates=3",
            "total_steps and num_updates are mutually exclusive",
        ),
    ],
)
def test_a_flag_of_another_library_is_one_sentence(
    flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.parse("train.py", "doc", Options, flags.split())
    err = capsys.readouterr().err
    assert stopped.value.code == cli.MISTAKE
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_what_looks_like_a_flag_and_is_none() -> None:
    """Negative numbers, switches, words with underscores."""
    argv = [
        "--baseline",
        "-0.5",
        "--no-greedy",
        "--entropy_coef=-1e-3",
        "--seed",
        "3",
        "--env-params",
        "gravity=9",
    ]
    config, h, options, _ = cli.parse("train.py", "doc", Options, argv)
    assert (h.baseline, h.entropy_coef, options.seed, options.greedy) == (-0.5, -1e-3, 3, False)
    assert (config.env_params, h.env_params) == ((("gravity", 9),), {})


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.parse("train.py", "doc", Options, ["--version"])
    assert stopped.value.code == 0
    assert re.fullmatch(r"pg \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("asked", "updates"), [("1e6", 1954), ("1000448", 1954), ("1000449", 1955), ("1", 1)]
)
def test_total_steps_are_rounded_up_to_whole_updates(asked: str, updates: int) -> None:
    argv = ["--estimator", "ppo", "--num-envs", "8", "--num-steps", "32", "--action-repeat", "2"]
    config, _, options, _ = cli.parse("train.py", "doc", Options, [*argv, "--total-steps", asked])
    assert config.num_updates == updates
    assert (updates - 1) * 512 < int(float(asked)) <= updates * 512
    same, _ = preset(
        "ppo", num_envs=8, num_steps=32, action_repeat=2, total_steps=int(float(asked))
    )
    assert same == config
    assert options.total_steps == int(float(asked))


def test_total_steps_hold_for_every_setting_of_a_sweep() -> None:
    config, _ = preset("ppo", num_envs=8, num_steps=32, num_minibatches=1, total_steps=1024)
    same = {"gamma": [0.9, 0.99]}
    assert spaces.lasting(same, config, 1024) == same
    varied = spaces.table_of(["num_envs=8,16", "num_steps=32,33"])
    assert spaces.lasting(varied, config, 1024) == {**varied, "num_updates": [4, 4, 2, 2]}
    assert spaces.lasting({"num_envs": [3]}, config, 1024)["num_updates"] == [11]
    with pytest.raises(ValueError, match="total_steps and num_updates are mutually exclusive"):
        spaces.lasting({"num_updates": [3]}, config, 1024)


INTERRUPTED = """
import hashlib
from pg.commands import cli
from pg.runs import interrupts
interrupts.listen(cli.announce)
with interrupts.held("the compilation"):
    print("working", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})  # C code, in which Python handles no signal
"""


def working(rounds: int) -> subprocess.Popen[str]:
    code = INTERRUPTED.format(rounds=rounds)
    job = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "working\n"
    return job


def test_a_second_signal_ends_what_does_not_hear_the_first() -> None:
    """Ctrl-C while the compiler works is answered at once, and a second one ends the process."""
    with working(10**9) as job:  # minutes
        assert job.stderr is not None
        job.send_signal(signal.SIGINT)
        assert job.stderr.readline().startswith("stopping after the compilation; another signal")
        assert job.poll() is None
        job.send_signal(signal.SIGINT)
        assert job.wait(timeout=10) == cli.INTERRUPTED


def test_a_first_signal_waits_for_what_does_not_hear_it() -> None:
    with working(10**6) as job:
        job.send_signal(signal.SIGTERM)
        _, err = job.communicate(timeout=60)
        assert job.returncode == 1  # Interrupted was raised, once it was done
        assert "pg.runs.interrupts.Interrupted: SIGTERM" in err
        assert err.count("stopping after the compilation") == 1


def test_the_parts_of_the_wall_time_add_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning of the outermost command on; of what is no command, from the clock's."""
    times = iter([0.0, 3.0, 10.0, 11.5, 20.0, 21.0])
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with clock.of_command(), clock.of_command():
        of_command = clock.Clock()
    of_command.end("start", compile=1.5)  # at 3
    of_command.end("write")
    of_command.end("start")
    assert of_command.seconds == {"start": 3.0, "compile": 1.5, "write": 7.0}
    alone = clock.Clock()  # at 20
    alone.end("start")
    assert alone.seconds == {"start": 1.0}


def test_rounded_to_zero_there_is_no_minus(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(1)
    progress(1, 1.0, metrics(-0.0))
    assert "return 0, " in capsys.readouterr().out


def test_nothing_is_shown_of_a_quiet_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    screen = on_screen(monkeypatch, 80)
    progress = Progress(1, quiet=True)
    progress(1, 1.0, metrics())
    progress.close()
    assert terminal.Line(quiet=True).shown is False
    assert capsys.readouterr().out == screen.text == ""


def test_the_parts_of_long_work_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a log where nothing was written for a while, and on a terminal in the place of the last
    one.
    """
    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0, 20.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.in_parts("checking gae") as begin:
        for part in ("first", "second", "third", "fourth"):
            begin(part)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "checking gae: second\nchecking gae: fourth\n")
    with terminal.in_parts("checking gae", quiet=True) as begin:
        monkeypatch.setattr(terminal.time, "monotonic", lambda: 100.0)
        begin("first")
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_part_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch, 80)
    with terminal.in_parts("checking gae") as begin:
        begin("its structure, 1 of 9")
        deadline = time.monotonic() + 10.0
        while "checking" not in screen.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert screen.lines[0].startswith("checking gae: its structure, 1 of 9: ")


def test_what_a_selection_chose_is_said() -> None:
    names = candidate_names("selected:leave_one_out+state_value")
    chosen = np.array([[0, 1, 1, 1], [0, 0, 1, 1]])
    said = "selected: state_value 62 %, leave_one_out 38 %"
    assert selected_shares(names, chosen) == said
    assert candidate_names("gae") == candidate_names(with_facts(unbiased_for="J")) == ()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As a shell ignores Ctrl-C for jobs in its background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
