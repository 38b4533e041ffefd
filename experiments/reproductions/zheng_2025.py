"""A token's ratio is not an importance weight of the sequence, and neither is GSPO's
length-normalised ratio; the noise attributed to token ratios is small compared with that of the
sequence's ratio.

Zheng et al. 2025, 2507.18071 (GSPO). Measured on sequences of 1 to 8 bits with data from the policy
1, 4 and 16 updates ago: exact bias and variance with each ratio. Under a minute on one core.
"""

import dataclasses

import numpy as np
import reporting
from reporting import GREY, Line, Panel

from pg.reports.plots import BLUE, GREEN, ORANGE

RATIOS = {"none": "no ratio", "token": "token", "sequence": "sequence", "sequence_mean": "GSPO"}
LAGS = (1, 4, 16)
RATE = 0.05  # of the steps between one policy and the next


@dataclasses.dataclass
class Options(reporting.Files):
    """The lengths, and the number of policies."""

    lengths: tuple[int, ...] = (1, 2, 4, 6, 8)
    """Tokens of a sequence, ascending."""
    policies: int = 10
    """Number of random policies, over which figures are averaged."""

    def check(self) -> None:
        """Raises ValueError for a number out of range."""
        reporting.at_least(1, shortest=min(self.lengths, default=0))
        reporting.between(1, 11, longest=max(self.lengths, default=0))
        reporting.at_least(2, policies=self.policies)


def main() -> None:
    """Prints claims, figures and verdict."""
    given = reporting.options(Options, __file__)
    import jax
    import trees

    jax.config.update("jax_enable_x64", True)
    report = reporting.Report(
        "zheng_2025", "Zheng et al. 2025, 2507.18071 (GSPO); claims in our words", given
    )
    lengths, longest = np.array(given.lengths), given.lengths[-1]
    # the bias relative to ‖∇J‖, and the variance relative to on-policy data, [lengths, lags]
    bias, variance = trees.lagging(lengths, RATIOS, LAGS, RATE, given.policies)
    worst = len(LAGS) - 1
    several = lengths > 1

    def growth(relative: np.ndarray) -> None:
        """Reports the growth of a ratio of variances with the length."""
        report.figure(
            f"growth from {lengths[several][0]} to {longest} tokens",
            relative[-1] / relative[several][0],
            at_least=1.05,
        )

    report.claim(
        "section 3: the ratio of a token, with one sample at each step, does not correct the "
        "distribution; the unit of optimisation should be that of the reward, the sequence",
        f"‖mean - ∇J‖ / ‖∇J‖ at lags {LAGS}, means of {given.policies} policies",
    )
    report.figure(
        "token, largest for one token", bias["token"][~several].max(initial=0.0), at_most=1e-10
    )
    report.figure("token, smallest for more tokens", bias["token"][several].min(), at_least=1e-3)
    report.figure("sequence, largest", bias["sequence"].max(), at_most=1e-9)
    for name in ("none", "token", "sequence_mean"):
        text = f"{RATIOS[name]}, {longest} tokens, lag {LAGS[-1]}"
        report.figure(text, bias[name][-1, worst])
    for k, lag in enumerate(LAGS):  # no range: the paper does not discuss the bias of its ratio
        text = f"GSPO over token, {longest} tokens, lag {lag}"
        report.figure(text, bias["sequence_mean"][-1, k] / bias["token"][-1, k])

    report.claim(
        "section 3: ratios of tokens bring noise of high variance into the gradient, which "
        "accumulates with length",
        f"the variance with token ratios divided by that with GSPO's, lag {LAGS[-1]}",
    )
    relative = variance["token"][:, worst] / variance["sequence_mean"][:, worst]
    for length, x in zip(lengths[several], relative[several], strict=True):
        report.figure(f"{length} tokens", x, at_least=1.1 if length == longest else -np.inf)
    growth(relative)

    report.claim(
        "section 4.1: without the power 1/|y| a few tokens make the ratio of the sequence "
        "fluctuate widely",
        f"the variance with the sequence's ratio divided by that with GSPO's, lag {LAGS[-1]}",
    )
    relative = variance["sequence"][:, worst] / variance["sequence_mean"][:, worst]
    report.figure(f"{longest} tokens", relative[-1], at_least=1.1)
    growth(relative)

    report.limit(
        "exact: both ratios are biased with two or more tokens, and only the sequence's is not. "
        "The magnitudes are for short sequences, smooth policies that differ by a few steps, and "
        "no clipping; mixture-of-experts routing, which the paper discusses, thousands of tokens, "
        "and training are not covered."
    )
    colours = (GREY, ORANGE, BLUE, GREEN)
    panels = []
    for title, values in (("bias / ‖∇J‖", bias), ("variance, over that without lag", variance)):
        lines = [
            Line(lengths, values[name][:, worst], label, colour, "o-")
            for (name, label), colour in zip(RATIOS.items(), colours, strict=True)
        ]
        panels.append(Panel(f"lag {LAGS[-1]}", "tokens of a sequence", title, lines))
    by_lag = [
        Line(LAGS, bias[name][-1], label, colour, "o-")
        for (name, label), colour in zip(RATIOS.items(), colours, strict=True)
    ]
    panels.append(Panel(f"{longest} tokens", "lag, updates", "bias / ‖∇J‖", by_lag))
    report.end(panels)


if __name__ == "__main__":
    main()
