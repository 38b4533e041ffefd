"""An estimator in a file outside the package, in the exact table and on the leaderboard, beside
those of the project.
"""

from pathlib import Path

import pytest
from scripts import refused_without_jax

from pg.commands import table
from pg.runs.code import SHORT
from pg.settings import own_files

OWN = '''
import jax.numpy as jnp
import numpy as np
import pg


def clipped(policy, critic, h):
    """Ψₜ = min(R, 50) less the mean over the other episodes."""

    def weigh(params, state, traj):
        total = jnp.minimum(pg.returns.total_return(traj.reward, h.gamma), 50.0)
        return total - pg.baselines.leave_one_out(total), (), state

    return pg.build_estimator(policy, None, h, weigh, accepts=("episodes",))


def moves(policy, critic, h):
    estimator = clipped(policy, critic, h)

    def weigh(params, state, traj):
        batch, state = estimator.weigh(params, state, traj)
        _, dist = policy.apply(params.policy, (), traj.obs, traj.first)
        return batch._replace(psi=batch.psi * dist.log_prob(traj.action)), state

    return estimator._replace(weigh=weigh)


two_steps = pg.exact.tabular.cancelling()
number = 3
long = pg.exact.tabular.garnet(0, num_states=5, num_actions=4, branching=2, horizon=9)
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "my.py"
    path.write_text(OWN, encoding="utf-8")
    return path


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
            "estimator 'moves': what weigh returns moves with the parameters",
            marks=pytest.mark.slow,
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
    assert "did you mean 'clipped'?" in said


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
