"""The reproductions on sequences: their exact figures against other forms of them, and their
scripts as a user runs them.
"""

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import REPRODUCTIONS, refused, run

from pg.exact import tabular
from pg.reports.statistics import Estimate

sys.path.insert(0, str(REPRODUCTIONS))
import reporting
import tasks
import trees

sys.path.remove(str(REPRODUCTIONS))

pytestmark = pytest.mark.usefixtures("x64")

# exact, and so the same on every machine
VERDICTS = {
    "liu_2025": "reproduced",
    "yang_2026": "partly reproduced: no support for claim 4",
    "tang_2025": "reproduced",
    "zheng_2025": "partly reproduced: no support for claim 2",
    "yao_2025": "partly reproduced: no support for claim 2",
}
SAMPLED = "ahmadian_2024"


@pytest.mark.slow
def test_the_length_after_the_first_token_is_geometric() -> None:
    env, logits = trees.answers(5)
    lengths = [float(trees.mean_length(env, first)(jnp.asarray(logits))) for first in (0, 1)]
    np.testing.assert_allclose(lengths, 1 + sum((2 / 3) ** k for k in range(4)), rtol=1e-12)


def test_averaging_over_the_own_length_changes_lengths_and_the_gradient_does_not() -> None:
    """Sequences of at most three tokens: by hand 4/63 of a token for a unit of reward, and less of
    it after the right token.
    """
    env, logits = trees.answers(3)
    mdp = tabular.prefix_tree(env)
    gradient = trees.gradient(mdp, logits)
    grpo = {"baseline": "mean", "scale": "group", "average": "sequence"}
    for switches, effect in ((grpo, 4 / 63), ({"baseline": "mean", "average": "constant"}, 0.0)):
        found = trees.moments(mdp, switches, logits, size=2).mean
        for first, sign in ((0, -1), (1, 1)):
            slope = jax.grad(trees.mean_length(env, first))(jnp.asarray(logits))
            change = np.sum(np.asarray(slope) * found) / np.sum(gradient * found)
            assert change == pytest.approx(sign * effect, abs=1e-10)
        shared = trees.tied(env, found)
        assert np.abs(shared).max() < 1e-12


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_weight_of_a_prompt_is_that_of_its_closed_form(size: int) -> None:
    p = (0.05, 0.5)
    scaled = trees.difficulty_weights({"baseline": "mean", "scale": "group"}, p, size)
    np.testing.assert_allclose(scaled, [trees.scaled_weight(x, size) for x in p], rtol=1e-12)
    centred = trees.difficulty_weights({"baseline": "mean"}, p, size)
    np.testing.assert_allclose(centred, 1 - 1 / size, rtol=1e-12)


def test_the_mean_of_groups_that_disagree_is_that_of_a_loop_over_groups() -> None:
    p, size = 0.2, 4
    groups = [g for g in itertools.product((0, 1), repeat=size) if 0 < sum(g) < size]
    weights = np.array([p ** sum(g) * (1 - p) ** (size - sum(g)) for g in groups])
    means = np.array([np.mean(g) for g in groups])
    of_first = np.array([g[0] for g in groups])
    assert trees.disagreement(p, size) == pytest.approx(weights.sum())
    assert trees.disagreeing_mean(p, size) == pytest.approx(weights @ means / weights.sum())
    known = weights * of_first
    found = trees.disagreeing_mean(p, size, right=True)
    assert found == pytest.approx(known @ means / known.sum())


@pytest.mark.slow
def test_the_best_regularised_policy_is_the_reference_tilted_by_the_rewards() -> None:
    mdp, _, reference = trees.random_tree(3)
    best = trees.best_regularised(mdp, reference, 0.5)
    traj, p = tabular.enumerate_trajectories(mdp, reference)
    tilted = np.array(p * jnp.exp(traj.reward.sum(0) / 0.5))
    of_prompt = np.asarray(tabular.initial_states(mdp))
    for prompt in (0, 1):
        tilted[of_prompt == prompt] *= 0.5 / tilted[of_prompt == prompt].sum()
    _, found = tabular.enumerate_trajectories(mdp, best)
    np.testing.assert_allclose(found, tilted, atol=1e-12)
    gradient = trees.gradient(mdp, best, reference, 0.5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


@pytest.mark.slow
def test_k3_in_the_loss_pulls_by_the_other_divergence() -> None:
    mdp, logits, reference = trees.random_tree(2)
    visits = np.asarray(tabular.visitation(mdp, logits)).sum(0)[:-1]
    other = jax.nn.softmax(reference)[:-1]

    def forward(x: jax.Array) -> jax.Array:
        gap = jnp.log(other) - jax.nn.log_softmax(x)[:-1]
        return -jnp.sum(visits * jnp.sum(other * gap, axis=1))

    pull = trees.forward_pull(mdp, logits, reference)
    np.testing.assert_allclose(pull, jax.grad(forward)(jnp.asarray(logits)), atol=1e-12)


def test_an_engine_rounds_the_logits() -> None:
    found = trees.rounded(np.array([20.03, -20.1]), "bfloat16")
    np.testing.assert_array_equal(found, [20.0, -20.125])
    assert found.dtype == jnp.float64


@pytest.mark.slow
def test_the_imitating_policy_has_the_share_of_the_examples_right() -> None:
    """From the share of right tokens, .6 each, with every prefix that they make."""
    method = tasks.METHODS["RLOO"]
    rewards = tasks.rewards(method, tasks.imitation(), (1e-9,), range(8), 20)
    assert rewards.mean() == pytest.approx(exact_imitation(), abs=0.02)


def exact_imitation() -> float:
    """E of the share of right tokens, of a policy with the examples' distribution."""
    examples = np.vstack([tasks._examples(), np.ones(tasks.TASK.num_tokens)])
    mdp = tabular.prefix_tree(tasks.TASK)
    return float(tabular.exact_return(mdp, np.log(examples)))


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("liu_2025", ("--length", "2"), "length must be above 2 and below 7"),
        ("ahmadian_2024", ("--seeds", "1"), "seeds must be at least 2"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_compiled(
    script: str, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(f"reproductions/{script}.py", *arguments).stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", [*VERDICTS, SAMPLED])
def test_a_reproduction(script: str, tmp_path: Path) -> None:
    """With defaults: its verdict is what its figures say, and it says what it cannot decide."""
    out, found_in = str(tmp_path / "figures"), str(tmp_path / "found.json")
    arguments = (f"reproductions/{script}.py", "--out", out, "--json", found_in)
    done = run(*arguments, timeout=1_800)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert f"\nverdict: {found['verdict']}\n" in done.stdout
    assert found["limits"]
    assert found["limits"] in done.stdout
    if script in VERDICTS:
        assert found["verdict"] == VERDICTS[script]
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{script}.png", f"{script}.svg"}
    claims = []
    for claim in found["claims"]:
        figures = [figure(**written) for written in claim["figures"]]
        claims.append(reporting.Claim(claim["text"], claim["compared"], figures))
    assert reporting.verdict(claims) == found["verdict"]
    for claim in claims:
        assert any(math.isfinite(x.at_least) or math.isfinite(x.at_most) for x in claim.figures)


def figure(name: str, estimate: dict[str, Any], at_least: Any, at_most: Any) -> reporting.Figure:
    """As it was before it was written: JSON has no infinity and no NaN, and says so otherwise."""
    numbers = {key: math.nan if x is None else float(x) for key, x in estimate.items()}
    return reporting.Figure(name, Estimate(**numbers), float(at_least), float(at_most))
