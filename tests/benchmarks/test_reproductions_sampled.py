"""The statistics of the reproductions that sample, on small made-up data, and their scripts as a
user meets them.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scripts import REPRODUCTIONS, refused, run

from pg import envs, networks, rollout
from pg.diagnostics import Decomposition
from pg.distributions import Gaussian
from pg.estimators import ESTIMATORS
from pg.estimators.base import standardise_psi
from pg.exact.closed_forms import lqr
from pg.presets import preset
from pg.reports.statistics import Estimate
from pg.train import make_learner

sys.path.insert(0, str(REPRODUCTIONS))
import reporting
import snapshots
import variances

sys.path.remove(str(REPRODUCTIONS))

SCRIPTS = ("ilyas_2020", "tucker_2018")


def noisy(signal: float, count: int, size: int = 200) -> np.ndarray:
    """Directions [count, size] of e₁ times the signal, and unit noise in all."""
    return signal * np.eye(size)[0] + np.random.default_rng(0).normal(
        size=(count, size)
    ) / math.sqrt(size)


def blocks_of(weighted: np.ndarray) -> snapshots.Blocks:
    """Blocks of 20 pairs in which the advantage has the mean 0."""
    count = len(weighted)
    return snapshots.Blocks(weighted, np.ones_like(weighted), np.zeros(count), np.full(count, 20.0))


@pytest.mark.slow
def test_the_direction_is_that_of_standardised_advantages() -> None:
    """Blocks give what PPO's own code gives for all episodes as one batch."""
    config, h = preset("ppo", env="CartPole-v1")
    state = jax.jit(make_learner(config, h).init)(jax.random.key(0))
    env = envs.configured(config, 6)
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    est = ESTIMATORS["gae"](policy, critic, h)
    sums = jax.jit(lambda traj: snapshots.sums(est, state.params, traj, 2))
    actor = networks.actor(policy, critic)
    traj = jax.jit(lambda key: rollout.episodes(env, actor, state.params, key))(jax.random.key(1))

    @jax.jit
    def expected(part: rollout.Trajectory) -> jax.Array:
        batch = standardise_psi(est.weigh(state.params, (), part)[0])
        return -ravel_pytree(est.grad(state.params, batch)[0].policy)[0]

    blocks = snapshots.Blocks(*jax.device_get(sums(traj)))
    assert len(blocks.psi) == 3
    assert blocks.pairs.sum() == traj.valid.sum()
    own, others = snapshots.directions(blocks, 1)
    for got, columns in ((own[0], slice(0, 2)), (own[2], slice(4, 6)), (others[0], slice(2, 6))):
        want = expected(jax.tree.map(lambda x, columns=columns: x[:, columns], traj))
        assert got @ want / np.linalg.norm(got) / np.linalg.norm(want) == pytest.approx(
            1.0, abs=1e-4
        )


def test_the_others_of_an_estimate_do_not_contain_it() -> None:
    blocks = blocks_of(np.eye(6))
    own, others = snapshots.directions(blocks, 2)
    np.testing.assert_allclose(own, np.repeat(np.eye(3), 2, axis=1))
    np.testing.assert_allclose(others, 1 - own)


def test_cosines_grow_with_the_pairs_as_signal_and_noise_say() -> None:
    """One block has signal² 0.1 per noise²; of m, two agree by m / (m + 10), and with the truth by
    its root.
    """
    found = snapshots.curve(blocks_of(noisy(math.sqrt(0.1), 2_000)), 4, (20, 200, 2_000))
    np.testing.assert_allclose(found.pairs, [20, 200, 2_000])
    np.testing.assert_allclose(found.episodes, [4, 40, 400])
    assert [len(x) for x in found.pairwise] == [100, 20, 2]
    assert found.reference == pytest.approx(math.sqrt(200 / 201), abs=0.002)
    for m, pairwise, truth in zip((1, 10, 100), found.pairwise, found.truth, strict=True):
        assert pairwise.mean() == pytest.approx(m / (m + 10), abs=0.03)
        assert truth.mean() == pytest.approx(math.sqrt(m / (m + 10)), abs=0.03)


def test_nothing_but_noise_has_no_truth() -> None:
    assert snapshots.reference_cosine(blocks_of(noisy(0.0, 500))) < 0.5


def test_tens_do_not_overlap() -> None:
    e = np.eye(3)
    g = np.concatenate([np.repeat(e[:1], 10, 0), np.repeat(e[:2], 5, 0), e])
    np.testing.assert_allclose(snapshots.pairwise_tens(g), [1.0, 2 * 10 / 45], atol=1e-12)
    np.testing.assert_allclose(
        snapshots.truth_tens(g, np.broadcast_to(2 * e[0], g.shape)), [1.0, 0.5]
    )


def test_the_interval_covers_the_mean_of_these_policies() -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        found = snapshots.mean([rng.normal(centre, 1.0, size=4) for centre in (0.0, 5.0, 10.0)])
        covered += found.low <= 5.0 <= found.high
    assert covered == pytest.approx(380, abs=20)
    x = np.array([1.0, 2.0, 3.0])
    assert snapshots.mean([x]) == pytest.approx(
        (2.0, 2.0 - 4.3027 / math.sqrt(3), 2.0 + 4.3027 / math.sqrt(3)), 1e-4
    )


def test_the_mean_of_curves_keeps_the_least_reference() -> None:
    one, two = (
        snapshots.Curve(
            np.array([n]), np.array([n / 2]), [np.array([c, c])], [np.array([1.0, 1.0])], c
        )
        for n, c in ((100.0, 0.2), (300.0, 0.4))
    )
    found = snapshots.agreement([one, two])
    assert (found.pairs[0], found.episodes[0], found.reference) == (200.0, 100.0, 0.2)
    assert found.pairwise[0].value == pytest.approx(0.3)


def test_pairs_for_a_cosine() -> None:
    cosines = [Estimate(x, x, x) for x in (0.2, 0.4, 0.8)]
    found = snapshots.Agreement(
        np.array([100.0, 1_000.0, 10_000.0]), np.ones(3), cosines, cosines, 1.0
    )
    assert snapshots.pairs_for(found, 0.6) == pytest.approx(math.sqrt(1e3 * 1e4))
    assert snapshots.pairs_for(found, 0.1) == 100.0
    assert snapshots.pairs_for(found, 0.9) == math.inf


def parts(*pairs: tuple[float, float]) -> Decomposition:
    return Decomposition(*(Estimate.from_error(*pair) for pair in pairs))


def test_the_share_has_its_largest_error() -> None:
    """Σ_a of 1 ± 0.1 in 10, the rest ± 0.4: (0.9 · 0.1 + 0.1 · 0.4) / 10; no correlation of the
    parts gives more.
    """
    found = variances.action_share(parts((6.0, 0.3), (1.0, 0.1), (3.0, 0.1)))
    assert found == pytest.approx((0.1, 0.1 - 1.96 * 0.013, 0.1 + 1.96 * 0.013))
    z = np.random.default_rng(0).normal(size=100_000)
    worst = [(a := 1.0 + 0.1 * x) / (a + 9.0 - 0.4 * x) for x in z]
    assert np.std(worst) == pytest.approx(0.013, rel=0.02)


def test_of_no_variance_there_is_no_share() -> None:
    assert variances.action_share(parts((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))) == (0.0, 0.0, 0.0)


@pytest.mark.slow
def test_the_sampled_value_is_the_value() -> None:
    """The value of the point mass, within its standard errors, from the time of each state on."""
    gain, log_std = 0.5 * variances.best_gain(), np.full(2, variances.NOISE)
    env = envs.make_env(variances.POINT_MASS, 16)

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> Any:
        mean = obs @ gain.T
        return carry, Gaussian(mean, jnp.broadcast_to(log_std, mean.shape))

    policy = networks.Network(lambda key: (), apply)
    states, _ = rollout.visited(env, policy, (), jax.random.key(0))
    at = jax.tree.map(lambda x: x[70], states)
    found = jax.jit(
        lambda at: variances.sampled_value(env, policy, (), jax.random.key(1), at, None)
    )(at)
    exact = lqr.state_value(variances.POINT_MASS, gain, log_std, at.obs, at.time, variances.GAMMA)
    np.testing.assert_allclose(found, exact, rtol=0.03)
    assert np.all(at.time == 70)


def test_the_ratio_of_variances_is_made_in_pairs() -> None:
    """Twice the same noise, scaled: exact, however few the rows; of independent noise it is not."""
    x, y = noisy(1.0, 50), np.random.default_rng(1).standard_t(3, size=(50, 200))
    assert variances.variance_ratio(0.5 * x + 3.0, x) == pytest.approx((0.25, 0.25, 0.25))
    found = variances.variance_ratio(y, x)
    assert found.value == pytest.approx(y.var(axis=0).sum() / x.var(axis=0).sum())
    assert found.low < found.value < found.high


def test_stacked_estimates_are_one_of_arrays() -> None:
    estimates = [Estimate.from_error(1.0, 0.5), Estimate.from_error(2.0, 0.0)]
    np.testing.assert_allclose(reporting.stacked(estimates), [[1, 2], [0.02, 2], [1.98, 2]])


@pytest.mark.slow
def test_the_exact_value_takes_away_what_the_state_alone_explains() -> None:
    """On the point mass the other parts stay as they are, to the bit, or nearly."""
    found = variances.of_point_mass(0.5 * variances.best_gain(), jax.random.key(0), 64)
    assert found.true.trajectory.value == pytest.approx(found.plain.trajectory.value, rel=0.01)
    assert found.true.action.value < 0.1 * found.plain.action.value


def test_the_best_gain_slows_the_point_down() -> None:
    gain = variances.best_gain()
    assert gain.shape == (2, 4)
    assert np.all(np.diag(gain) < 0)
    assert np.all(np.diag(gain, 2) < 0)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("ilyas_2020", ("--pairs", "1000"), "pairs must be at least 1e+06"),
        (
            "ilyas_2020",
            ("--tasks", "Pendulum"),
            "unknown task 'Pendulum': did you mean 'Pendulum-v1'",
        ),
        ("ilyas_2020", ("--seeds", "0"), "seeds must be at least 1"),
        ("ilyas_2020", ("--tasks",), "number of tasks must be above 0"),
        ("tucker_2018", ("--tasks", "Pendulum-v1"), "tasks must include one with discrete actions"),
        ("tucker_2018", ("--tasks", "Humanoid"), "unknown task 'Humanoid'"),
        ("tucker_2018", ("--states", "2"), "states must be at least 32"),
        ("tucker_2018", ("--share", "nan"), "share must be at least 0.1"),
        ("tucker_2018", ("--out", "{file}"), "cannot make the folder"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_compiled(
    script: str, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    words = [word.format(file=file) for word in arguments]
    done = refused(f"reproductions/{script}.py", *words)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def figure(name: str, estimate: dict[str, Any], at_least: Any, at_most: Any) -> reporting.Figure:
    """As it was before it was written: JSON has no infinity and no NaN, and says so otherwise."""
    numbers = {key: math.nan if x is None else float(x) for key, x in estimate.items()}
    return reporting.Figure(name, Estimate(**numbers), float(at_least), float(at_most))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_reproduction(script: str, tmp_path: Path) -> None:
    """With defaults: its files are there, and the verdict is what its figures say, whatever that
    is.
    """
    out, found_in = str(tmp_path / "figures"), str(tmp_path / "found.json")
    done = run(f"reproductions/{script}.py", "--out", out, "--json", found_in, timeout=3_600)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert f"\nverdict: {found['verdict']}\n" in done.stdout
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{script}.png",
        f"{script}.svg",
    }
    claims = [
        reporting.Claim(
            claim["text"], claim["compared"], [figure(**written) for written in claim["figures"]]
        )
        for claim in found["claims"]
    ]
    assert reporting.verdict(claims) == found["verdict"]
    assert [claim.holds for claim in claims] == [claim["holds"] for claim in found["claims"]]
    assert all(
        any(math.isfinite(x.at_least) or math.isfinite(x.at_most) for x in claim.figures)
        for claim in claims
    )
