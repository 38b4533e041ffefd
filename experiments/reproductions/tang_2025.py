"""k1 in the reward gives the gradient of J - β KL(π ‖ π_ref), and ascent converges to its optimum;
k3 in the loss has another mean, and converges elsewhere; k1 in the loss does not regularise.

Tang & Munos 2025, 2506.09477, and Shah et al. 2025, 2512.21852. Measured on a prefix tree: the
exact mean of each estimate in each place compared with ∇KL, and the limit of exact ascent along
each compared with the optimum in closed form. Half a minute on one core.
"""

import dataclasses
from typing import Any

import numpy as np
import reporting
from reporting import GREY, Line, Panel, thinned

from pg.reports.plots import COLOURS

PLACES = {
    "k1 in the reward": {"kl": "k1", "kl_place": "reward"},
    "k3 in the reward": {"kl": "k3", "kl_place": "reward"},
    "k1 in the loss": {"kl": "k1", "kl_place": "loss"},
    "k2 in the loss": {"kl": "k2", "kl_place": "loss"},
    "k3 in the loss": {"kl": "k3", "kl_place": "loss"},
    "k2 in the loss of the sequence": {"kl": "k2", "kl_place": "sequence"},
}
UNBIASED = ("k1 in the reward", "k2 in the loss of the sequence")


@dataclasses.dataclass
class Options(reporting.Files):
    """The problem, and the number of updates."""

    beta: float = 0.5
    """Weight β of the KL divergence."""
    length: int = 3
    """Tokens of the longest sequence; the vocabulary is three tokens, one of which ends."""
    steps: int = 4_000
    """Updates along each exact mean."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.between(0, 10, beta=self.beta)
        reporting.between(1, 5, length=self.length)
        reporting.at_least(500, steps=self.steps)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    import jax.numpy as jnp
    import trees
    from dynamics import follow

    from pg.config import Hyperparams
    from pg.exact import tabular

    jax.config.update("jax_enable_x64", True)
    report = reporting.Report(
        "tang_2025",
        "Tang & Munos 2025, 2506.09477, and Shah et al. 2025, 2512.21852; claims in our words",
        given,
    )
    problem = trees.random_tree(given.length)
    mdp, logits, reference = problem.mdp, problem.logits, problem.reference
    h = Hyperparams(kl_coef=given.beta)
    plain = trees.gradient(mdp, logits)
    of_divergence = trees.gradient(mdp, logits, reference, given.beta) - plain  # -β ∇KL

    def penalty(place: str) -> np.ndarray:
        """The contribution of the divergence estimate to the mean, divided by β, [S, V]."""
        switches = trees.PLAIN | PLACES[place]
        return trees.moments(mdp, switches, logits, reference=reference, h=h).mean - plain

    def distance(place: str) -> float:
        """Its relative distance from -β ∇KL(π ‖ π_ref)."""
        return trees.relative_bias(penalty(place), of_divergence)

    report.claim(
        "2506.09477, section 3: the derivative of an unbiased estimate of the divergence does not "
        "estimate its gradient: k1 has mean 0, k2 and k3 are biased over sequences",
        "the relative distance of the exact mean from -β ∇KL(π ‖ π_ref)",
    )
    nothing = np.abs(penalty("k1 in the loss")).max()
    report.figure("k1 in the loss: largest entry of its mean", nothing, at_most=1e-12)
    for place in ("k2 in the loss", "k3 in the loss"):
        report.figure(f"{place} of each token: distance", distance(place), at_least=0.01)
    forward = trees.forward_pull(mdp, logits, reference)
    apart = trees.relative_bias(penalty("k3 in the loss"), given.beta * forward)
    report.figure(
        "k3 in the loss: distance from -β Σ d(s) ∇KL(π_ref ‖ π), state distribution d held fixed",
        apart,
        at_most=1e-10,
    )

    report.claim(
        "2506.09477, section 4, and 2512.21852: for whole sequences k1 in the reward is unbiased, "
        "and so is k2 of the sequence's ratio in the loss; k3 in the reward is not"
    )
    for place in UNBIASED:
        report.figure(f"{place}: distance", distance(place), at_most=1e-10)
    report.figure("k3 in the reward: distance", distance("k3 in the reward"), at_least=0.01)

    best = trees.best_regularised(mdp, reference, given.beta)

    def watch(x: Any) -> jax.Array:
        value = trees.objective(mdp, x, reference, given.beta)
        backward = trees.divergence(mdp, jnp.asarray(reference), x)
        forward = trees.divergence(mdp, x, reference)
        return jnp.stack([value, tabular.exact_return(mdp, x), forward, backward])

    top, top_reward, top_divergence, top_backward = (float(x) for x in watch(jnp.asarray(best)))
    paths = {}
    for place, switches in PLACES.items():
        direction = trees.mean_direction(mdp, trees.PLAIN | switches, reference=reference, h=h)
        step = trees.over_visits(mdp, direction)
        paths[place] = follow(step, watch, jnp.asarray(reference), given.steps)
    report.claim(
        "2512.21852: only unbiased estimates optimise the stated objective",
        f"J_β after {given.steps:,} steps along each exact mean from the reference, minus that of "
        "the optimum, where π ∝ π_ref exp(R / β) over sequences; rows are divided by their visits, "
        "which affects the speed but not the limit",
    )
    report.figure("at the optimum: reward", top_reward)
    report.figure("at the optimum: KL(π ‖ π_ref)", top_divergence)
    for place in UNBIASED:
        report.figure(
            f"{place}: J_β minus the optimum's", paths[place][-1, 0] - top, at_least=-1e-6
        )
    for place in ("k2 in the loss", "k3 in the loss"):
        value, reward, divergence, _ = paths[place][-1]
        report.figure(f"{place}: J_β minus the optimum's", value - top, at_most=-1e-3)
        report.figure(f"{place}: reward", reward)
        report.figure(f"{place}: KL(π ‖ π_ref)", divergence)

    report.claim(
        "2512.21852: k1 in the loss and k3 in the reward train less stably",
        "KL(π_ref ‖ π) along the exact mean, divided by the optimum's: the first has no penalty; "
        "the second, for one token, ascends J - β KL(π ‖ π_ref) + β KL(π_ref ‖ π), which has no "
        "maximum",
    )
    for place in ("k1 in the loss", "k3 in the reward"):
        divergences = paths[place][:, 3]
        overflows = np.flatnonzero(~np.isfinite(divergences))
        count = int(overflows[0]) if overflows.size else len(divergences)
        report.figure(
            f"{place}: largest finite", divergences[:count].max() / top_backward, at_least=10
        )
        if overflows.size:
            report.figure(f"{place}: first update that overflows", count + 1)

    report.limit(
        "exact: which objective each estimate ascends, on any tree, and so for large models on "
        "on-policy data too. The error of the biased ones depends on β and on the rewards; near "
        "the reference k2 and k3 in the loss agree with the gradient to first order. "
        "Whether another objective generalises worse or trains less stably, as 2512.21852 reports "
        "for models with 4 to 8 billion parameters, is not decided here."
    )
    t, i = np.arange(1, given.steps + 1), thinned(given.steps)
    panels = []
    looks = tuple(zip(PLACES, COLOURS, ("-", "-", "-", "-", "-", "--"), strict=False))
    ends = {0: (top - 1.5, None), 2: (None, 4.0)}
    for k, title in ((0, "J_β"), (2, "KL(π ‖ π_ref)")):
        lines = [Line(t[i], paths[place][i, k], place, *look) for place, *look in looks]
        lines.append(Line(t[[0, -1]], [float(watch(best)[k])] * 2, "optimum", GREY, ":"))
        panels.append(Panel(title, "update along the exact mean", title, lines, "x", ends[k]))
    report.end(panels)


if __name__ == "__main__":
    main()
