"""Sequences from an inference engine of lower precision come from another policy. Truncated token
weights remove half of the bias, truncated sequence weights more, and untruncated sequence weights
all of it.

Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" and "On
the rollout-training mismatch in modern RL systems" (TIS). Measured on policies whose logits the
engine rounds: exact bias and variance with each weight, and ascent along each exact mean. A minute
on one core.
"""

import dataclasses

import numpy as np
import reporting
from reporting import GREY, Line, Panel

from pg.reports.plots import BLUE, GREEN, ORANGE

WEIGHTS = {
    "no weight": {},
    "token, truncated": {"ratio": "token", "clip": "truncated"},
    "sequence, truncated": {"ratio": "sequence", "clip": "truncated"},
    "sequence": {"ratio": "sequence"},
}
ENGINES = ("bfloat16", "float8_e4m3fn")
LENGTHS = (1, 2, 3, 4, 5)
FAR = 0.5  # our criterion: the largest share of the uncorrected bias that may remain


@dataclasses.dataclass
class Options(reporting.Files):
    """The bound on weights, and the number of policies."""

    bound: float = 2.0
    """Weights are truncated at this number."""
    policies: int = 10
    """Number of random policies, over which figures are averaged."""
    steps: int = 300
    """Updates along each exact mean, with the engine's sequences."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.at_least(1, bound=self.bound)
        reporting.at_least(2, policies=self.policies)
        reporting.at_least(10, steps=self.steps)


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
        "yao_2025",
        "Yao et al. 2025, fengyao.notion.site/off-policy-rl, and their workshop paper at NeurIPS "
        "2025 (TIS); claims in our words",
        given,
    )
    h = Hyperparams(ratio_bound=given.bound)
    # the bias relative to ‖∇J‖, and the variance relative to exact logits, [lengths, engines]
    bias, variance = trees.rounded_engines(LENGTHS, WEIGHTS, ENGINES, given.policies, h)
    longest = LENGTHS[-1]

    report.claim(
        "the post: with rollouts by another engine training is on-policy in name only; without "
        "weights its gradient is biased, more so for quantised rollouts",
        f"‖mean - ∇J‖ / ‖∇J‖ of {longest} tokens, means of {given.policies} policies with logits "
        "N(20, 3²), which the engine rounds",
    )
    for k, engine in enumerate(ENGINES):
        report.figure(engine, bias["no weight"][-1, k], at_least=1e-3)
    report.figure(
        f"{ENGINES[1]} over {ENGINES[0]}",
        bias["no weight"][-1, 1] / bias["no weight"][-1, 0],
        at_least=2,
    )

    report.claim(
        "the post: the weight min(π / μ, C) of each token corrects the mismatch",
        f"the bias with it, C = {given.bound:g}, divided by that without; our criterion: at most "
        f"{FAR:g} remains",
    )
    for k, engine in enumerate(ENGINES):
        for row, length in ((0, LENGTHS[0]), (-1, longest)):
            left = bias["token, truncated"][row, k] / bias["no weight"][row, k]
            tokens = "token" if length == 1 else "tokens"
            report.figure(f"{engine}, {length} {tokens}", left, at_most=FAR)

    report.claim(
        "the post, part on sequences and tokens: the untruncated weight of the whole sequence is "
        "unbiased, and truncation bounds its variance",
        f"the same; our criterion with truncation: at most {FAR:g} of the bias remains",
    )
    for k, engine in enumerate(ENGINES):
        report.figure(f"{engine}, not truncated: bias", bias["sequence"][-1, k], at_most=1e-9)
        left = bias["sequence, truncated"][-1, k] / bias["no weight"][-1, k]
        report.figure(f"{engine}, truncated: bias relative to no weight", left, at_most=FAR)
        cut = variance["sequence, truncated"][-1, k] / variance["sequence"][-1, k]
        report.figure(f"{engine}: variance relative to untruncated", cut, at_most=1 + 1e-9)

    report.claim(
        "the workshop paper: with these weights training on quantised rollouts reaches the same "
        "result as with exact ones",
        f"ascent along the exact mean of one policy, {longest} tokens: E R after {given.steps} "
        f"updates, {ENGINES[1]}, minus that with exact sequences, relative to their gain; "
        f"our criterion: at most 2 % less",
    )
    mdp, start = trees.large_logits(longest, 0)

    def watch(x: jax.Array) -> jax.Array:
        return tabular.exact_return(mdp, x)

    def path(switches: dict[str, str], engine: str | None) -> np.ndarray:
        """E R along the exact mean of sequences of an engine, [steps]."""
        of_logits = trees.program(mdp, trees.PLAIN | switches, h=h)

        def direction(x: jax.Array) -> jax.Array:
            acting = x if engine is None else trees.rounded(x, engine)
            return of_logits(x, acting).mean

        return follow(direction, watch, jnp.asarray(start), given.steps)

    exact = path({}, None)
    paths = {name: path(switches, ENGINES[1]) for name, switches in WEIGHTS.items()}
    for name, values in paths.items():
        behind = (values[-1] - exact[-1]) / (exact[-1] - exact[0])
        ends = {} if name == "no weight" else {"at_least": -0.02}
        report.figure(name, behind, **ends)

    report.limit(
        "exact: the effect of each weight on mean and variance, for any pair of policies. The "
        "ascent is for one policy, without noise. "
        "Rounded logits of three tokens stand for an engine; real engines also differ in their "
        "kernels and in the routing of experts, which is not covered. Whether the remaining bias "
        "makes a large model collapse, which the post shows and reports cured, is not decided."
    )
    panels = []
    colours = (GREY, ORANGE, GREEN, BLUE)
    for k, engine in enumerate(ENGINES):
        lines = [
            Line(LENGTHS, bias[name][:, k], name, colour, "o-")
            for name, colour in zip(WEIGHTS, colours, strict=True)
        ]
        panels.append(Panel(engine, "tokens of the longest sequence", "bias / ‖∇J‖", lines))
    t = np.arange(1, given.steps + 1)
    curves = [
        Line(t, paths[name], "", colour) for name, colour in zip(WEIGHTS, colours, strict=True)
    ]
    curves.append(Line(t, exact, "exact engine", "0", ":"))
    report.end([*panels, Panel(f"{ENGINES[1]}, exact mean", "update", "E R", curves)])


if __name__ == "__main__":
    main()
