"""The usual policy gradient direction, which drops γᵗ, is not a gradient and can lead to the worst
policy.

Nota & Thomas 2020, 1906.07073. Measured: the asymmetry of the direction's Jacobian, which is 0 for
a gradient; and J_γ and J₁ along both directions in a problem of two steps, exactly and in training
from sampled episodes.
"""

import dataclasses

import numpy as np
import reporting
from reporting import Line, Panel, share

from pg.reports.plots import BLUE, ORANGE
from pg.reports.statistics import Estimate

DIRECTIONS = {"reward_to_go": ("∇J_γ", BLUE), "undiscounted_reward_to_go": ("γᵗ dropped", ORANGE)}


@dataclasses.dataclass
class Options(reporting.Files):
    """The discount, and the number and length of training runs."""

    gamma: float = 0.5
    """Discount of the problem of two steps, below 3/4."""
    seeds: int = 20
    """Number of seeds for each estimator."""
    episodes: int = 50
    """Episodes of an update."""
    updates: int = 200
    """Number of updates, with step size 1/4 on a weight and on a bias."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.between(0, 0.75, gamma=self.gamma)
        reporting.at_least(2, seeds=self.seeds)
        reporting.at_least(1, episodes=self.episodes, updates=self.updates)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    import jax.numpy as jnp
    from dynamics import asymmetry, linear_ascent, train_linear

    from pg.exact import tabular

    jax.config.update("jax_enable_x64", True)
    report = reporting.Report("nota_thomas_2020", "Nota & Thomas 2020, 1906.07073", given)
    exact = dict(
        zip(DIRECTIONS, (tabular.exact_gradient, tabular.undiscounted_direction), strict=True)
    )

    text = "abstract: the direction without γᵗ is not the gradient of any function"
    report.claim(
        text, "asymmetry ‖D - Dᵀ‖ / ‖D + Dᵀ‖ of its Jacobian D, which is symmetric for a gradient"
    )
    mdps, gammas = (
        [tabular.garnet(seed, 4, 2, branching=2, horizon=5) for seed in range(3)],
        np.linspace(0, 1, 11),
    )
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    bent = {
        name: np.array([asymmetry(mdp, exact[name], logits, gammas) for mdp in mdps])
        for name in exact
    }
    discounted, dropped = bent.values()
    report.figure("least of 3 random MDPs, γ = 0 to 0.9", dropped[:, :-1].min(), at_least=1e-6)
    report.figure("the same at γ = 1, at most", dropped[:, -1].max(), at_most=1e-12)
    report.figure("of the gradient of J_γ, at most", discounted.max(), at_most=1e-12)

    text = (
        "abstract: its fixed point can be the worst policy for the discounted and the undiscounted "
        "objective"
    )
    report.claim(
        text,
        "our own problem, with two steps and one shared logit, where J_γ = -γ p, J₁ = -p, p = π(1)",
    )
    problem, n = tabular.pessimal(), np.arange(given.updates)
    paths = {
        name: linear_ascent(problem, exact[name], given.gamma, 0.5, given.updates) for name in exact
    }
    for name, path in paths.items():
        low, high = (-np.inf, -0.95) if name.startswith("un") else (-0.05, np.inf)
        for k, (objective, scale) in enumerate((("J_γ", given.gamma), ("J₁", 1.0))):
            text = (
                f"{DIRECTIONS[name][0]}: {objective} at the end, over what the worst policy loses"
            )
            report.figure(text, path[-1, k] / scale, at_least=low, at_most=high)

    report.claim(
        "the same from sampled episodes, by the estimators reward_to_go and "
        "undiscounted_reward_to_go"
    )
    samples = {
        name: train_linear(
            problem, name, given.gamma, 0.25, given.updates, given.episodes, given.seeds
        )
        for name in exact
    }
    for name, runs in samples.items():
        last = runs[:, -1, 1]
        if name.startswith("un"):
            policy, near = "worst", last < -0.9
        else:
            policy, near = "best", last > -0.1
        text = f"{name}: seeds within 0.1 of the {policy} policy"
        report.figure(text, share(near), at_least=1)

    first = [
        Line(gammas, bent[name].T, label, colour, "-" if name == "reward_to_go" else "--")
        for name, (label, colour) in DIRECTIONS.items()
    ]
    panels = [Panel("three random MDPs", "discount γ", "asymmetry of the Jacobian", first)]
    for k, objective in enumerate(("$J_\\gamma$", "$J_1$")):
        lines = []
        for name, (label, colour) in DIRECTIONS.items():
            x = samples[name][:, :, k]
            mean_and_range = Estimate(x.mean(0), x.min(0), x.max(0))
            lines += [Line(n, mean_and_range, f"{label}, {given.seeds} seeds", colour)]
        lines += [Line(n, path[:, k], "exact", "0", ":") for path in paths.values()]
        panels += [
            Panel(
                f"γ = {given.gamma:g}, mean and all seeds",
                "update",
                f"{objective} of the policy",
                lines,
            )
        ]
    report.end(panels)


if __name__ == "__main__":
    main()
