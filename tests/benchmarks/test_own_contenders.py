"""A file outside the package with an estimator, a problem, networks and an optimizer, in the exact
table and on the leaderboard.
"""

import json
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import pytest
from own_parts import CLIPPED
from scripts import refused_without_jax

import pg
from pg.benchmarks import leaderboard
from pg.benchmarks.leaderboard import contenders, problems
from pg.commands import cli, table, variance
from pg.commands import leaderboard as leaderboard_command
from pg.estimators.sequences import sequence_estimator
from pg.runs.code import SHORT
from pg.settings import own_files

IMPORTS = """
import jax.numpy as jnp
import optax
import pg
from pg.estimators import base
"""
OWN = (
    IMPORTS
    + CLIPPED
    + '''

def advantage(policy, critic, h):
    """Ψₜ = γᵗ (Gₜ − V(sₜ))."""

    def weigh(params, state, traj):
        to_go = pg.returns.reward_to_go(traj.reward, traj.done, h.gamma)
        psi = base.state_weight(traj, h) * (to_go - base.values(critic, params, traj))
        return pg.estimators.Credit(psi, target=to_go)

    return pg.build_estimator(policy, critic, h, weigh, accepts=("episodes",))


def moves(policy, critic, h):
    estimator = clipped(policy, critic, h)

    def weigh(params, state, traj):
        batch, state = estimator.weigh(params, state, traj)
        _, dist = policy.apply(params.policy, (), traj.obs, traj.first)
        return batch._replace(psi=batch.psi * dist.log_prob(traj.action)), state

    return estimator._replace(weigh=weigh)


def of_windows(policy, critic, h):
    estimator = clipped(policy, critic, h)
    return estimator._replace(accepts=("windows",))


def misshapen(policy, critic, h):
    def weigh(params, state, traj):
        return jnp.zeros((3, 5, 7)), (), state

    return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))


def leave_one_out(policy, critic, h):
    return clipped(policy, critic, h)


def linear(config, env):
    shape = env.obs_shape[0], env.action_space.n
    return pg.Network(
        lambda key: jnp.zeros(shape),
        lambda params, carry, obs, first: (carry, pg.Categorical(obs @ params)),
    )


def linear_critic(config, env):
    return pg.Network(
        lambda key: jnp.zeros(env.obs_shape[0]),
        lambda params, carry, obs, first: (carry, obs @ params),
    )


def ascent(learning_rate):
    return optax.sgd(learning_rate)


two_steps = pg.exact.tabular.cancelling()
number = 3
long = pg.exact.tabular.garnet(0, num_states=5, num_actions=4, branching=2, horizon=9)
'''
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "my.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.mark.slow
def test_an_own_estimator_has_a_row_in_the_exact_table(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the figures that leave_one_out has in the table of the documentation, as no return is
    above 50, and with the digest of its file.
    """
    page = tmp_path / "page.md"
    page.write_text("\n".join([*table.MARKS, *table.SLIM_MARKS]), encoding="utf-8")
    words = ("--estimators", f"{own}:clipped", "--problems", f"{own}:two_steps")
    assert table.main([*words, "--out", str(page)]) == 0
    (row,) = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    digest = own_files.read(f"{own}:clipped").sha256[:SHORT]
    assert row == ["`clipped`", "—", f"my.py {digest}", "not stated", "0", "2.49", "0.22"]
    assert f"my.py {digest}" in page.read_text(encoding="utf-8")
    assert "| `clipped` | — | not stated |" in page.read_text(encoding="utf-8")
    (copy,) = (tmp_path / "code").iterdir()
    assert copy.read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ["--estimators", "{own}:moves"],
            "estimator 'moves': weigh's results depend on the parameters",
            marks=pytest.mark.slow,
        ),
        (
            ["--figure", "no/such/x.png"],
            "the folder of no/such/x.png does not exist: make it first",
        ),
        (["--problems", "{own}:long"], "long must have at most 2,000 trajectories, which are all"),
        (["--problems", "{own}:number"], "{own}:number must be a pg.exact.tabular.TabularMDP"),
    ],
)
def test_the_exact_table_refuses_other_parts(
    words: list[str], said: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        table.main([word.format(own=own) for word in words])
    assert stopped.value.code == 2
    assert said.format(own=own) in " ".join(capsys.readouterr().err.split())


def test_names_of_the_table_are_checked_before_jax_is_loaded(own: Path) -> None:
    words = ("--estimators", "leave_one_out", f"{own}:cliped")
    said = refused_without_jax("estimator_table.py", *words).stderr
    assert "did you mean 'clipped'" in said


@pytest.mark.slow
def test_own_and_listed_rows_stand_side_by_side(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the reference problems, in the order in which they are named."""
    assert table.main(["--estimators", "reinforce", f"{own}:clipped", "leave_one_out"]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["`reinforce`", "`clipped`", "`leave_one_out`"]
    assert rows[0][5] == "1 · 1 · 1"
    assert rows[1][4:] == rows[2][4:] == ["0 · 0 · 0", "1.57 · 1.69 · 2.49", "0.1 · 0.051 · 0.22"]


# On the leaderboard


def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Custom problems are as small as possible."""
    few = {"num_estimates": 16, "batch_size": 16, "fit_batches": 1, "fit_episodes": 8}
    small = problems.PROBLEMS["garnet"]._replace(**few)
    monkeypatch.setitem(problems.PROBLEMS, "garnet", small)
    monkeypatch.setattr(problems, "_TABULAR", {"num_envs": 4, "num_updates": 2})


def measured(file: Path, out: Path, *estimators: str, **options: Any) -> dict[str, list[float]]:
    """The variances at all snapshots, by estimator."""
    found = leaderboard.measure(
        [f"{file}:two_steps"],
        estimators,
        out,
        policy=f"{file}:linear",
        critic=f"{file}:linear_critic",
        optimizer=f"{file}:ascent",
        **options,
    )
    rows: dict[str, list[float]] = {}
    for row in found.qualities:
        assert row.problem == "two_steps"
        rows.setdefault(row.estimator, []).append(row.variance.value)
    return rows


def recorded(out: Path) -> dict[tuple[str, str], str]:
    """The digests of the parts that a folder records, by field and name."""
    entries = json.loads((out / "parts.json").read_text(encoding="utf-8"))
    return {(entry["field"], entry["name"]): entry["sha256"] for entry in entries}


@pytest.mark.slow
def test_own_parts_are_measured_beside_listed_ones_and_other_code_is_refused(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed code is refused before it is executed; if allowed, its results are measured again and
    the others stay.
    """
    sizes(monkeypatch)
    out, file = tmp_path / "board", tmp_path / "my.py"
    file.write_text(OWN, encoding="utf-8")
    own = f"{file}:clipped", f"{file}:advantage"
    rows = measured(file, out, *own, "leave_one_out", "state_value")
    assert rows["clipped"] == pytest.approx(rows["leave_one_out"])  # as no return is above 50
    assert rows["advantage"] == pytest.approx(rows["state_value"])  # of the critic that is fitted
    assert rows["advantage"] != pytest.approx(rows["clipped"], rel=1e-2)
    assert len(rows["clipped"]) == len(leaderboard.SNAPSHOTS)
    digest = own_files.read(f"{file}:clipped").sha256
    assert recorded(out) == {
        ("problem", "two_steps"): digest,
        ("estimator", "clipped"): digest,
        ("estimator", "advantage"): digest,
        ("policy", "linear"): digest,
        ("critic", "linear_critic"): digest,
        ("optimizer", "ascent"): digest,
    }
    (copy,) = (out / "code").iterdir()
    assert copy.read_bytes() == file.read_bytes()

    other, executed = tmp_path / "other" / "my.py", tmp_path / "executed"
    other.parent.mkdir()
    doubled = OWN.replace("return total - pg", "return 2.0 * total - 2.0 * pg")
    first_line = f"import pathlib; pathlib.Path({str(executed)!r}).touch()"
    other.write_text(f"{first_line}\n{doubled}", encoding="utf-8")
    with pytest.raises(ValueError, match="the digest of estimator 'clipped' was"):
        measured(file, out, f"{other}:clipped")
    assert not executed.exists()
    stored = (out / "quality.csv").read_bytes()
    assert measured(file, out, *own, "leave_one_out", "state_value").keys() == rows.keys()
    assert (out / "quality.csv").read_bytes() == stored  # the refusal has changed nothing

    again = measured(file, out, f"{other}:clipped", allow_changed_code=True)
    assert again["leave_one_out"] == pytest.approx(rows["leave_one_out"], rel=1e-3)  # 4 digits
    assert again["clipped"] == pytest.approx([4.0 * x for x in rows["clipped"]], rel=1e-4)
    after = recorded(out)
    assert after.pop(("estimator", "clipped")) == own_files.read(f"{other}:clipped").sha256
    assert set(after.values()) == {digest}


def test_an_estimator_from_python_is_known_by_its_definition(tmp_path: Path) -> None:
    """By its code, and what it closes over: two references are two estimators."""

    def scaled(factor: float) -> Any:
        def estimator(policy: Any, critic: Any, h: Any) -> Any:
            return pg.ESTIMATORS["reinforce"](policy, critic, h._replace(gamma=factor * h.gamma))

        return estimator

    def entered(estimator: Any, **options: Any) -> list[contenders.Part]:
        return contenders.enter(["garnet"], [estimator], tmp_path, {}, **options).changed

    def with_reference(value: float) -> Any:
        return sequence_estimator({"w": jnp.full(3, value)}, kl="k2", kl_place="loss")

    for make in (scaled, with_reference):
        name = make(0.5).__name__
        contenders.record(tmp_path, [("estimator", make(0.5))])
        assert entered(make(0.5)) == []
        with pytest.raises(ValueError, match=f"estimator {name!r} is not the one that"):
            entered(make(1.0))
        assert entered(make(1.0), allow_changed_code=True) == [("estimator", name)]


def test_policies_are_trained_with_the_parts_that_a_folder_records(
    own: Path, tmp_path: Path
) -> None:
    """A folder whose policies belong to other parts is refused, with the flag that was given."""
    given = [("policy", f"{own}:linear")]
    # of a measurement that has ended before its policies were there
    contenders.record(tmp_path, [("policy", own_files.load(f"{own}:linear_critic"))])
    contenders.enter(["garnet"], ["reinforce"], tmp_path, dict(given))
    contenders.record(tmp_path, [])
    assert contenders.changed_parts(tmp_path, given) == []
    assert recorded(tmp_path) == {}
    (tmp_path / "policies").mkdir()
    with pytest.raises(ValueError, match="were trained without policy 'linear': leave policy out"):
        contenders.enter(["garnet"], ["reinforce"], tmp_path, dict(given))
    contenders.record(tmp_path, [("policy", own_files.load(f"{own}:linear"))])
    contenders.enter(["garnet"], ["reinforce"], tmp_path, dict(given))
    with pytest.raises(ValueError, match=f"'linear': give it, --policy {own}:linear, or another"):
        contenders.enter(["garnet"], ["reinforce"], tmp_path, {})
    others = {"policy": f"{own}:linear_critic"}
    with pytest.raises(ValueError, match="with policy 'linear', got 'linear_critic'"):
        contenders.enter(["garnet"], ["reinforce"], tmp_path, others)


def test_a_report_on_stored_results_refuses_other_code(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before.py"
    before.write_text(f"{OWN}\n# as it was", encoding="utf-8")
    contenders.record(tmp_path, [("estimator", own_files.load(f"{before}:clipped"))])
    words = ["--from", str(tmp_path), "--estimators", f"{own}:clipped"]
    with pytest.raises(SystemExit) as stopped:
        leaderboard_command.main(words)
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the digest of estimator 'clipped' was" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--estimators", "{own}:misshapen"], "psi must be one number, [T, B] = [10, 8]"),
        (["--estimators", "{own}:of_windows"], "'of_windows' is for windows, and complete"),
        (["--problems", "{own}:number"], "env must be"),
        (["--policy", "{own}:linear_critic"], "policy"),
    ],
)
def test_a_part_that_does_not_fit_is_found_before_a_policy_is_trained(
    words: list[str],
    said: str,
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence and exit code 2, and nothing is written."""
    monkeypatch.delattr("pg.benchmarks.leaderboard.measurements.train_snapshots")
    given = ["--problems", "garnet", "--estimators", "reinforce", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        variance.main([*given, *(word.format(own=own) for word in words)])
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("command", [leaderboard_command, variance])
def test_a_signal_ends_measurements_in_a_sentence(
    command: ModuleType,
    signum: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Afterwards signals are handled as before."""

    def interrupted(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signum)

    def unheard(number: int, frame: Any) -> None:
        raise AssertionError("the command does not listen to signals")

    monkeypatch.setattr(leaderboard, "measure", interrupted)
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    before = signal.signal(signum, unheard)
    try:
        assert command.main(["--out", str(tmp_path)]) == code
        assert signal.getsignal(signum) is unheard
    finally:
        signal.signal(signum, before)
    said = "interrupted: finished measurements are kept; the same command continues from there\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--estimators", "{own}:cliped"], "did you mean 'clipped'"),
        (["--estimators", "{own}:leave_one_out"], "your own 'leave_one_out' has the name"),
        (["--problems", "{own}:two_stepss"], "did you mean 'two_steps'?"),
        (["--optimizer", "sgd"], "optimizer must be FILE.py:NAME, got 'sgd'"),
    ],
)
def test_names_of_the_leaderboard_are_checked_before_jax_is_loaded(
    words: list[str], said: str, own: Path
) -> None:
    done = refused_without_jax("estimator_benchmark.py", *(word.format(own=own) for word in words))
    assert said in " ".join(done.stderr.split())
