"""Print the exact bias, variance and signal-to-noise ratio of every estimator on three tabular problems.

Nothing is sampled: each figure is a sum over every trajectory, or every pair where an estimator couples episodes.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from pg import cli
from pg.config import ACCEPTS, COUPLED, Hyperparams

OFF_POLICY = ("trajectory_importance", "per_decision_importance", "ratio_only", "vtrace")
HEADER = """\
# Every estimator against the exact gradient

Made by `python experiments/estimator_table.py --out docs/estimators.md`; nothing is sampled. γ = 0.9. "random" is a
random MDP of three states and three steps, "chain" a corridor with a goal, "cancelling" pays −1 and then about +1,
where reward-to-go is worse than the total return. Variance and signal are those of one episode. Importance-weighted
estimators see another policy's episodes. The critic is V of the first step, and is bootstrapped at the time limit.
`entropy_reward` is measured against ∇J without entropy.

| estimator | problem | bias ‖Eĝ − ∇J‖ / ‖∇J‖ | variance, against `reinforce` | signal-to-noise ‖Eĝ‖² / variance |
| --- | --- | --- | --- | --- |"""


@dataclasses.dataclass
class Options:
    """What to print, and where else to write it."""

    gamma: float = 0.9
    """Discount γ."""
    estimators: tuple[str, ...] = tuple(ACCEPTS)
    """Names of the estimators."""
    out: Path | None = None
    """Also write the table to this file."""


def main() -> None:
    """Prints a table in Markdown, a row per estimator and problem."""
    options = tyro.cli(Options, description=__doc__)
    cli.cache_compilations()
    import jax

    jax.config.update("jax_enable_x64", True)
    from pg import tabular

    problems = {
        "random": tabular.garnet(0, num_states=3, num_actions=2, branching=2, horizon=3),
        "chain": tabular.chain(3, horizon=3),
        "cancelling": tabular.cancelling(),
    }
    lines = [HEADER]
    for name in options.estimators:
        for problem, mdp in problems.items():
            bias, variance, ratio = figures(name, mdp, options.gamma)
            size = "0" if bias < 1e-12 else f"{bias:.2g}"
            lines.append(f"| {name} | {problem} | {size} | {variance:.2f} | {ratio:.2g} |")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def figures(name: str, mdp: Any, gamma: float) -> tuple[float, float, float]:
    """Bias, variance of one episode's worth relative to the total return, and signal-to-noise ratio per episode.

    Off-policy estimators see another policy's episodes; the critic is V of the first step; a time limit bootstraps.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from pg import diagnostics, tabular
    from pg.distributions import Categorical
    from pg.estimators import ESTIMATORS
    from pg.networks import Network

    g = np.random.default_rng(1)
    logits = jnp.asarray(g.normal(size=(mdp.num_states, mdp.num_actions)))
    acting = logits + (0.5 * g.normal(size=logits.shape) if name in OFF_POLICY else 0.0)
    policy = Network(lambda key: jnp.asarray(logits), lambda p, carry, obs, first: (carry, Categorical(obs @ p)))
    critic = Network(
        lambda key: tabular.values(mdp, logits, gamma)[1][0], lambda p, carry, obs, first: (carry, obs @ p)
    )
    estimator = ESTIMATORS[name](policy, critic, Hyperparams(gamma=gamma))
    params = estimator.init(jax.random.key(0))[0]
    num_episodes = 2 if name in COUPLED else 1
    mean, covariance = diagnostics.exact_moments(estimator, params, mdp, acting, num_episodes)
    gradient = np.asarray(tabular.exact_gradient(mdp, logits, gamma)).ravel()
    reference = np.trace(tabular.total_return_moments(mdp, logits, gamma)[1])
    variance = num_episodes * np.trace(covariance)
    bias = np.linalg.norm(mean - gradient) / np.linalg.norm(gradient)
    return float(bias), float(variance / reference), float(mean @ mean / variance)


if __name__ == "__main__":
    main()
