"""Distributions against scipy, quadrature and frequencies."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mistakes import Mistake, assert_one_sentence
from scipy import integrate, stats

from pg.distributions import Categorical, CensoredGaussian, Gaussian, TanhGaussian

LOGITS = jnp.array([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]])


def tanh_gaussian(mean: float, log_std: float) -> TanhGaussian:
    return TanhGaussian(*(jnp.full(1, x) for x in (mean, log_std, 0.0, 1.0)))


def draws(dist: object, n: int) -> jax.Array:
    return jax.vmap(lambda key: dist.sample(dist.draw(key)))(jax.random.split(jax.random.key(0), n))


def test_categorical_log_prob_entropy_kl() -> None:
    p, q = np.asarray(jax.nn.softmax(LOGITS)), Categorical(LOGITS[::-1])
    dist = Categorical(LOGITS)
    np.testing.assert_allclose(
        dist.log_prob(jnp.array([2, 1])), np.log([p[0, 2], p[1, 1]]), rtol=1e-5
    )
    np.testing.assert_allclose(dist.entropy(), stats.entropy(p, axis=1), rtol=1e-5)
    np.testing.assert_allclose(dist.kl(q), stats.entropy(p, p[::-1], axis=1), rtol=1e-4)
    np.testing.assert_array_equal(dist.mode(), [2, 0])


def test_categorical_samples_have_their_frequencies() -> None:
    n = 100_000
    samples = draws(Categorical(LOGITS), n)
    for row, p in enumerate(np.asarray(jax.nn.softmax(LOGITS))):
        counts = np.bincount(samples[:, row], minlength=3)
        assert np.all(np.abs(counts - n * p) < 5 * np.sqrt(n * p * (1 - p)))


def test_forbidden_actions_are_never_taken_and_keep_gradients_finite() -> None:
    logits = jnp.array([-jnp.inf, 0.0, 1.0, -jnp.inf])
    dist = Categorical(logits)
    almost_one = jnp.nextafter(jnp.float32(1), jnp.float32(0))
    assert [int(dist.sample(jnp.float32(u))) for u in (0.0, almost_one)] == [1, 2]
    allowed = Categorical(logits[1:3])
    np.testing.assert_allclose(dist.entropy(), allowed.entropy(), rtol=1e-6)
    grads = jax.grad(lambda x: Categorical(x).entropy() + Categorical(x).log_prob(jnp.int32(1)))(
        logits
    )
    assert np.isfinite(grads).all()


@pytest.mark.usefixtures("x64")
def test_kl_of_categoricals_whose_masks_differ() -> None:
    """Infinite where an action of the first is forbidden by the second; a sum over the first's
    actions otherwise.
    """
    g = np.random.default_rng(0)
    logits = np.where(g.random((200, 2, 4)) < 0.4, -np.inf, g.normal(size=(200, 2, 4)))
    logits[..., 0] = g.normal(size=(200, 2))  # one action at least
    p, q = (Categorical(jnp.asarray(logits[:, i])) for i in range(2))
    expected = stats.entropy(*np.exp(logits).transpose(1, 2, 0), axis=0)
    assert 20 < np.isinf(expected).sum() < 180
    np.testing.assert_allclose(p.kl(q), expected, rtol=1e-12)
    slopes = jax.grad(
        lambda a, b: jnp.sum(jnp.where(expected < np.inf, Categorical(a).kl(Categorical(b)), 0.0)),
        (0, 1),
    )
    for slope in (
        *slopes(p.logits, q.logits),
        jax.grad(lambda a: p.kl(Categorical(a)).sum())(q.logits),
    ):
        assert np.isfinite(slope).all()
    assert np.isnan(Categorical(jnp.array([jnp.nan, 0.0])).kl(q._replace(logits=jnp.zeros(2))))


def test_kl_of_gaussians_without_width_or_without_end() -> None:
    """0 between equal distributions, infinite where one of two is a point or flat; never NaN, nor
    negative.
    """
    edges = [(0.0, -np.inf), (1.0, -np.inf), (0.0, 0.0), (0.0, -100.0), (1.0, 100.0), (0.0, np.inf)]
    for make in (lambda *x: Gaussian(*(jnp.full(1, y) for y in x)), tanh_gaussian):
        found = np.array([[float(make(*a).kl(make(*b))) for b in edges] for a in edges])
        np.testing.assert_array_equal(np.diag(found), 0.0)
        assert (found[~np.eye(len(edges), dtype=bool)] > 50.0).all()
    edges = [(0.0, -np.inf), (5.0, -np.inf), (0.0, 0.0), (0.0, -30.0), (9.0, -30.0), (0.0, 50.0)]
    found = np.array([[float(censored(*a).kl(censored(*b))) for b in edges] for a in edges])
    np.testing.assert_array_equal(np.diag(found), 0.0)
    assert (found >= 0.0).all()
    assert found[0, 1] == found[1, 0] == np.inf
    assert found[1, 4] == found[4, 1] == 0.0  # both are the upper bound itself
    assert not np.isnan([float(censored(*a).entropy()) for a in edges]).any()


def test_a_divergence_keeps_its_curvature_at_equal_distributions() -> None:
    """The Fisher matrix is its second derivative there."""

    def kl(x: jax.Array) -> jax.Array:
        return Gaussian(jnp.zeros(1), jnp.zeros(1)).kl(Gaussian(x[:1], x[1:]))

    np.testing.assert_allclose(jax.hessian(kl)(jnp.zeros(2)), [[1.0, 0.0], [0.0, 2.0]], atol=1e-6)


def test_gaussian_log_prob_entropy_kl() -> None:
    mean, log_std = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.7]])
    dist, other = Gaussian(mean, log_std), Gaussian(mean + 1.0, log_std * 0.0)
    law = stats.multivariate_normal(mean[0], np.diag(np.exp(2 * np.asarray(log_std[0]))))
    x = jnp.array([[3.0, -2.0]])
    np.testing.assert_allclose(dist.log_prob(x)[0], law.logpdf(x[0]), rtol=1e-5)
    np.testing.assert_allclose(dist.entropy()[0], law.entropy(), rtol=1e-5)
    samples = draws(dist, 200_000)
    gap = jax.vmap(dist.log_prob)(samples) - jax.vmap(other.log_prob)(samples)
    assert abs(gap.mean() - dist.kl(other)[0]) < 5 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize(
    ("mean", "log_std"), [((4, 3), (4, 1)), ((4, 1), (4, 3)), ((4, 1), (1, 3)), ((1, 3), (4, 1))]
)
def test_a_mean_and_a_width_that_broadcast_are_those_of_every_dimension(
    mean: tuple[int, ...], log_std: tuple[int, ...]
) -> None:
    narrow = Gaussian(jnp.full(mean, 0.3), jnp.full(log_std, -0.7))
    whole = Gaussian(jnp.full((4, 3), 0.3), jnp.full((4, 3), -0.7))
    noise = narrow.draw(jax.random.key(0))
    np.testing.assert_array_equal(noise, whole.draw(jax.random.key(0)))
    assert len(np.unique(narrow.sample(noise))) == 12
    np.testing.assert_array_equal(narrow.entropy(), whole.entropy())
    for x, y in zip(narrow.moments(), whole.moments(), strict=True):
        np.testing.assert_array_equal(x, y)
    wider, other = (x._replace(log_std=x.log_std + 1.0) for x in (narrow, whole))
    np.testing.assert_array_equal(narrow.kl(wider), whole.kl(other))
    np.testing.assert_array_equal(narrow.kl(other), whole.kl(wider))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int32, np.float32])
def test_a_mask_may_be_numbers(dtype: Any) -> None:
    mask = np.array([0, 1, 1]) if dtype is bool else np.array([0, 2, 3])
    p = Categorical(jnp.zeros((2000, 3))).masked(mask.astype(dtype))
    samples = np.asarray(p.sample(p.draw(jax.random.key(0))))
    np.testing.assert_allclose(np.exp(p.log_prob(2)), 0.5, rtol=1e-6)
    assert 900 < (samples == 2).sum() < 1100
    assert not (samples == 0).any()


def test_a_divergence_of_censored_gaussians_is_as_precise_below_as_above() -> None:
    """In 32 bits; both sides mirror each other."""
    for width in (-8.0, -3.0):
        below, above = (
            CensoredGaussian(*(jnp.full(1, x) for x in (mean, 0.0, -1.0, 1.0)))
            for mean in (-7.0, 7.0)
        )
        with_width = [x._replace(log_std=jnp.full(1, width)) for x in (below, above)]
        np.testing.assert_allclose(below.kl(with_width[0]), above.kl(with_width[1]), rtol=1e-3)


def test_no_gradient_passes_through_a_gaussian_sample() -> None:
    noise = jnp.ones(1)
    grad = jax.grad(
        lambda m: Gaussian(m, jnp.zeros(1)).log_prob(Gaussian(m, jnp.zeros(1)).sample(noise))
    )(jnp.ones(1))
    np.testing.assert_allclose(grad, 1.0)  # the score (a - μ)/σ²; with the gradient it would be 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("u", [0.0, 1.0, 3.0, 5.0, 8.0, 12.0, 20.0, -20.0])
def test_tanh_gaussian_log_prob_is_finite_and_right(u: float) -> None:
    exact = stats.norm.logpdf(u) - 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    dist = tanh_gaussian(0.0, 0.0)
    np.testing.assert_allclose(dist.log_prob(jnp.full(1, u)), exact, rtol=1e-12)
    score = jax.grad(lambda m: tanh_gaussian(m, 0.0).log_prob(jnp.full(1, u)))(0.0)
    np.testing.assert_allclose(score, u, atol=1e-12)  # the Jacobian has no θ-gradient at a fixed u


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("log_std", "error"), [(-1.0, 1e-6), (0.0, 1e-6), (np.log(8.0), 2e-2)])
def test_tanh_gaussian_entropy_is_the_integral(log_std: float, error: float) -> None:
    dist, std = tanh_gaussian(0.4, log_std), np.exp(log_std)

    def integrand(u: float) -> float:
        return -stats.norm.pdf(u, 0.4, std) * float(dist.log_prob(jnp.full(1, u)))

    exact = integrate.quad(integrand, 0.4 - 9 * std, 0.4 + 9 * std, limit=200)[0]
    assert abs(float(dist.entropy()) - exact) < error


def test_tanh_gaussian_kl_and_action() -> None:
    p, q = tanh_gaussian(0.0, 0.0), tanh_gaussian(1.0, 0.5)
    samples = draws(p, 200_000)
    gap = jax.vmap(p.log_prob)(samples) - jax.vmap(q.log_prob)(samples)
    assert abs(gap.mean() - p.kl(q)) < 5 * gap.std() / len(gap) ** 0.5
    box = p._replace(centre=jnp.full(1, 3.0), half_width=jnp.full(1, 2.0))
    assert box.action(jnp.full(1, 100.0)) == 5.0
    assert box.action(box.mode()) == 3.0


def censored(mean: float, log_std: float, low: float = -1.0, high: float = 0.5) -> CensoredGaussian:
    return CensoredGaussian(*(jnp.full(1, x) for x in (mean, log_std, low, high)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("mean", "log_std"), [(0.2, 0.1), (-3.0, -0.5), (4.0, 1.5)])
def test_censored_gaussian_is_the_law_of_the_clipped_action(mean: float, log_std: float) -> None:
    dist, other, law = (
        censored(mean, log_std),
        censored(mean + 0.3, 0.4),
        stats.norm(mean, np.exp(log_std)),
    )
    atoms = {
        -5.0: law.logcdf(-1.0),
        -1.0: law.logcdf(-1.0),
        0.5: law.logsf(0.5),
        9.0: law.logsf(0.5),
    }
    for u, expected in {**atoms, -0.3: law.logpdf(-0.3)}.items():
        np.testing.assert_allclose(dist.log_prob(jnp.full(1, u)), expected, rtol=1e-12)
        np.testing.assert_array_equal(dist.action(jnp.full(1, u)), np.clip(u, -1.0, 0.5))

    def expected_value(f: Callable[[float], float]) -> float:
        """E[f(u)] under dist: both atoms, and the integral between the bounds."""
        inside = integrate.quad(lambda u: law.pdf(u) * f(u), -1.0, 0.5, epsabs=1e-12)[0]
        return law.cdf(-1.0) * f(-2.0) + inside + law.sf(0.5) * f(2.0)

    def log_p(law: CensoredGaussian) -> Callable[[float], float]:
        return lambda u: float(law.log_prob(jnp.full(1, u)))

    np.testing.assert_allclose(dist.entropy(), -expected_value(log_p(dist)), rtol=1e-8)
    kl = expected_value(lambda u: log_p(dist)(u) - log_p(other)(u))
    np.testing.assert_allclose(dist.kl(other), kl, rtol=1e-7)


def test_scores_of_a_censored_gaussian_are_finite_far_beyond_its_bounds() -> None:
    def log_prob(mean: jax.Array, u: float) -> jax.Array:
        return CensoredGaussian(mean, jnp.full(1, -2.0), -jnp.ones(1), jnp.ones(1)).log_prob(
            jnp.full(1, u)
        )

    for u in (-30.0, 30.0):
        for mean in (-5.0, 0.0, 5.0):
            assert np.isfinite(jax.grad(log_prob)(jnp.full(1, mean), u)).all()


def test_the_reparameterised_sample_is_the_sample() -> None:
    noise = jnp.array([0.7])
    for dist in (Gaussian(jnp.ones(1), jnp.ones(1)), tanh_gaussian(0.3, 0.2), censored(0.3, 0.2)):
        np.testing.assert_array_equal(dist.reparameterised(noise), dist.sample(noise))
        slope = jax.grad(
            lambda mean, dist=dist: dist._replace(mean=mean).reparameterised(noise).sum()
        )(dist.mean)
        np.testing.assert_allclose(slope, 1.0)


LAWS = {
    "categorical": Categorical(jnp.zeros(3)),
    "gaussian": Gaussian(jnp.zeros(2), jnp.zeros(2)),
    "squashed": TanhGaussian(jnp.zeros(2), jnp.zeros(2), jnp.zeros(2), jnp.ones(2)),
    "censored": CensoredGaussian(jnp.zeros(2), jnp.zeros(2), -jnp.ones(2), jnp.ones(2)),
}
LAW = pytest.mark.parametrize("law", LAWS)


@LAW
@pytest.mark.parametrize("given", [jax.random.key(0), None, "0", {"action": 0}])
def test_what_is_no_sample_has_no_probability(law: str, given: object) -> None:
    with pytest.raises(
        ValueError,
        match=r"sample must be an array of numbers, got .*: write "
        r"dist.log_prob",
    ):
        LAWS[law].log_prob(given)


@LAW
def test_a_key_of_the_old_kind_is_no_sample(law: str) -> None:
    with pytest.raises(ValueError, match="sample must "):
        LAWS[law].log_prob(jax.random.PRNGKey(0))


@LAW
@pytest.mark.parametrize("given", [0, None, jnp.zeros(2)])
def test_noise_is_drawn_with_a_key(law: str, given: object) -> None:
    with pytest.raises(ValueError, match=r"key must be a random key, got .*: write jax.random.key"):
        LAWS[law].draw(given)


@LAW
@pytest.mark.parametrize("given", [0, None, "0", jax.random.PRNGKey(0), [0.5, 0.5]])
def test_a_sample_is_made_of_noise(law: str, given: object) -> None:
    with pytest.raises(ValueError, match=r"sample takes noise, got .*: write dist.sample"):
        LAWS[law].sample(given)


@LAW
def test_noise_of_another_shape_is_refused(law: str) -> None:
    dist = jax.tree.map(lambda x: jnp.stack([x, x, x]), LAWS[law])
    with pytest.raises(ValueError, match=r"noise must have shape \[3.*, got shape \[5\]"):
        dist.sample(jnp.zeros(5))


@LAW
def test_a_divergence_is_between_two_of_a_kind(law: str) -> None:
    dist = LAWS[law]
    for name, other in LAWS.items():
        if name != law:
            with pytest.raises(ValueError, match="kl needs two distributions of one class, got a"):
                dist.kl(other)
    with pytest.raises(ValueError, match="kl needs two distributions of one class, got a"):
        dist.kl(jnp.zeros(3))
    with pytest.raises(ValueError, match="kl needs as many actions, or dimensions, in both, got"):
        dist.kl(jax.tree.map(lambda x: jnp.zeros(5), dist))


@pytest.mark.parametrize("law", ["gaussian", "squashed", "censored"])
def test_a_number_is_no_vector_of_an_action(law: str) -> None:
    """Broadcast, it would be the action in which every entry is that number."""
    with pytest.raises(ValueError, match=r"sample must have shape \[2\], got shape \[\]"):
        LAWS[law].log_prob(1.0)
    assert LAWS[law].log_prob([0.5, 0.5]) == LAWS[law].log_prob(jnp.full(2, 0.5))


def test_half_an_action_has_no_probability() -> None:
    dist = Categorical(LOGITS)
    with pytest.raises(
        ValueError, match="an action of a Categorical must be a whole number, got float32"
    ):
        dist.log_prob(1.5)
    with pytest.raises(
        ValueError,
        match=r"sample must have shape \[2\], one whole number for each "
        r"distribution",
    ):
        dist.log_prob(jnp.zeros(3, int))
    np.testing.assert_array_equal(dist.log_prob(1), dist.log_prob(jnp.array([1, 1])))
    np.testing.assert_array_equal(dist.log_prob([0, 1]), dist.log_prob(np.array([0, 1], np.uint8)))


def test_a_mean_and_a_width_are_broadcast() -> None:
    narrow, wide = Gaussian(jnp.ones(1), jnp.zeros(2)), Gaussian(jnp.ones(2), jnp.zeros(2))
    sample = jnp.array([0.5, 2.0])
    np.testing.assert_array_equal(narrow.log_prob(sample), wide.log_prob(sample))
    column, full = jnp.zeros((3, 1)), jnp.zeros((3, 2))
    other = Gaussian(jnp.ones((3, 2)), jnp.zeros(2))
    with jax.numpy_rank_promotion("allow"):  # as it is outside of these tests
        np.testing.assert_array_equal(
            Gaussian(column, jnp.zeros(2)).kl(other), Gaussian(full, jnp.zeros(2)).kl(other)
        )


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "a key for noise": (
        lambda: Categorical(jnp.zeros(2)).sample(jax.random.key(0)),
        "sample takes noise, got key<fry>: write dist.sample(dist.draw(key))",
    ),
    "a key of the old kind for noise": (
        lambda: Gaussian(jnp.zeros(2), jnp.zeros(2)).sample(jax.random.PRNGKey(0)),
        "sample takes noise, got uint32: write dist.sample(dist.draw(key))",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["gaussian", "censored", "squashed"])
def test_the_characteristic_function_is_the_mean_of_a_rotation(kind: str) -> None:
    """And so are its derivatives, of two entries whose bounds cut off much, little and nothing:
    summed over a grid of the noise of both, by Gauss-Legendre quadrature between their bounds.
    """
    low, high = jnp.array([-0.5, -30.0]), jnp.array([0.4, 0.7])
    frequency = jnp.array([[0.0, 0.0], [3.0, -0.4], [-0.2, 5.0]])
    u = jnp.array([0.1, -0.2]), jnp.log(jnp.array([0.8, 0.5]))
    cuts = [-9.0, (-0.5 - 0.1) / 0.8, (0.4 - 0.1) / 0.8, (0.7 + 0.2) / 0.5, 9.0]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    halves = [((a + b) / 2, (b - a) / 2) for a, b in itertools.pairwise(cuts)]
    noise = np.concatenate([middle + half * nodes for middle, half in halves])
    weight = np.concatenate([half * weights for _, half in halves]) * stats.norm.pdf(noise)
    grid = jnp.stack(jnp.meshgrid(noise, noise, indexing="ij"), axis=-1)

    def dist(u: Any) -> Any:
        if kind == "gaussian":
            return Gaussian(*u)
        if kind == "squashed":
            return TanhGaussian(*u, jnp.array([0.1, 0.5]), jnp.array([1.0, 2.0]))
        return CensoredGaussian(*u, low, high)

    def in_closed_form(u: Any) -> Any:
        return dist(u).characteristic_function(frequency)

    def by_grid(u: Any) -> Any:
        sample = u[0][None, None] + jnp.exp(u[1])[None, None] * grid
        action = jax.vmap(jax.vmap(dist(u).action))(sample)
        angle = jnp.einsum("jd,mnd->jmn", frequency, action)
        of_pair = jnp.asarray(weight[:, None] * weight[None])[None]
        return jnp.sum(of_pair * jnp.cos(angle), (1, 2)), jnp.sum(of_pair * jnp.sin(angle), (1, 2))

    expected = jax.jit(lambda u: (by_grid(u), jax.jacobian(by_grid)(u)))(u)
    found = jax.jit(lambda u: (in_closed_form(u), jax.jacobian(in_closed_form)(u)))(u)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("std", [1e-3, 0.1, 0.5, 1.0, 3.0, 5.0, float(np.exp(2))])
def test_the_squashed_characteristic_function_is_of_any_width(std: float) -> None:
    """Also of a policy as wide as a head lets it be, most of whose actions are beside a bound; and
    so are its derivatives. Against the trapezoid rule on 20,001 nodes, and the score there.
    """
    mean = np.array([-20.0, -1.1, 0.0, 0.3, 2.5, 8.0])[:, None]
    frequency = np.array([0.0, 1.0, -3.0, 8.0])
    noise = np.linspace(-9.0, 9.0, 20_001)
    weight = stats.norm.pdf(noise) * (noise[1] - noise[0])
    turned = np.exp(1j * frequency[:, None, None] * np.tanh(mean + std * noise))
    scores = {"value": np.ones_like(noise), "mean": noise / std, "log_std": noise**2 - 1}
    expected = {name: (turned @ (weight * score)).T for name, score in scores.items()}

    def f(mean: Any, log_std: Any) -> Any:
        one = jnp.ones_like(mean)
        real, imaginary = TanhGaussian(mean, log_std, 0 * one, one).characteristic_function(
            jnp.broadcast_to(frequency[:, None], (len(mean), len(frequency), 1))
        )
        return real + 1j * imaginary

    u = jnp.asarray(mean), jnp.full(mean.shape, np.log(std))
    one, none = jnp.ones_like(u[0]), jnp.zeros_like(u[0])
    value, of_mean = jax.jvp(f, u, (one, none))
    of_log_std = jax.jvp(f, u, (none, one))[1]
    found = {"value": value, "mean": of_mean, "log_std": of_log_std}
    for name, x in found.items():
        np.testing.assert_allclose(x, expected[name], atol=1e-10, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mean", [-20.0, -0.4, 1.3])
def test_mean_and_variance_of_an_action_are_those_of_its_density(mean: float) -> None:
    """Against scipy's quadrature, with the atoms at the bounds; also far beyond these."""
    std, low, high = 0.8, -0.5, 1.5
    u, one = (jnp.array([mean]), jnp.array([np.log(std)])), jnp.ones(1)
    pairs: list[tuple[Any, Callable[[float], float]]] = [
        (Gaussian(*u), lambda x: x),
        (TanhGaussian(*u, 0.5 * one, 2 * one), lambda x: 0.5 + 2 * np.tanh(x)),
        (CensoredGaussian(*u, low * one, high * one), lambda x: float(np.clip(x, low, high))),
    ]

    def expected(f: Callable[[float], float]) -> float:
        cuts = [
            mean - 12 * std,
            *sorted(
                np.clip(
                    [low, high],
                    mean - 12 * std,
                    mean + 12 * std,
                )
            ),
        ]
        pieces = zip(cuts, [*cuts[1:], mean + 12 * std], strict=True)
        density = stats.norm(mean, std).pdf
        return sum(
            integrate.quad(lambda x: f(x) * density(x), a, b, epsabs=1e-12)[0] for a, b in pieces
        )

    for dist, action in pairs:
        first = expected(action)
        found = [float(x[0]) for x in dist.moments()]
        second = expected(lambda x, action=action, first=first: (action(x) - first) ** 2)
        np.testing.assert_allclose(found, [first, second], rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("std", "error"), [(0.3, 1e-8), (2.0, 1e-8), (4.0, 1e-8), (8.0, 1e-6)])
def test_the_derivatives_of_squashed_moments_are_those_of_the_integral(
    std: float, error: float
) -> None:
    """They are a part of the gradient of estimators with an analytic mean over actions."""
    fine = np.linspace(-12.0, 12.0, 200_001)
    density = np.exp(-(fine**2) / 2) / np.exp(-(fine**2) / 2).sum()

    def of_moments(x: jax.Array) -> jax.Array:
        zero, one = jnp.zeros(1), jnp.ones(1)
        dist = TanhGaussian(x[:1], x[1:], zero, one)
        return jnp.concatenate(dist.moments())

    def of_integral(x: jax.Array) -> jax.Array:
        action = jnp.tanh(x[0] + jnp.exp(x[1]) * fine)
        mean = density @ action
        return jnp.stack([mean, density @ (action - mean) ** 2])

    at = jnp.asarray([0.7, np.log(std)])
    for f in (lambda g: g(at), lambda g: jax.jacfwd(g)(at)):
        np.testing.assert_allclose(f(of_moments), f(of_integral), rtol=0, atol=error)
