"""The switches of a policy gradient over sequences, and the facts derived from them.

An episode is a sequence, an action a token, an initial state a prompt; a group is the G episodes of
one prompt. With R the return of a sequence, ρ the importance ratio π / behaviour and |y| the number
of steps, each published estimator is a choice of baseline, scale, average over steps, level of the
ratio, clip, and estimate and place of the KL divergence from a reference policy. It imports no jax.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from pg.estimators.facts import Baseline as ComparedWith
from pg.estimators.facts import Facts, Objective
from pg.inputs import check_name

Baseline = Literal[
    "none", "mean", "leave_one_out", "shrinkage", "batch", "greedy", "length_weighted"
]
Scale = Literal["none", "group", "batch"]
Credit = Literal["total", "to_go"]
Average = Literal["sum", "sequence", "token", "constant"]
Ratio = Literal["none", "token", "per_decision", "sequence", "sequence_mean"]
Clip = Literal[
    "none", "symmetric", "asymmetric", "dual", "weight", "truncated", "masked", "soft_gate"
]
SelfNormalised = Literal["none", "group", "batch"]
KL = Literal["none", "k1", "k2", "k3", "full"]
Place = Literal["reward", "loss", "sequence"]
Control = Literal["fixed", "adaptive"]


GROUP_SIZE = 5  # which divides the default number of environments
KL_COEF = 0.05  # the default β if there is a KL estimate


@dataclass(frozen=True, kw_only=True)
class Switches:
    """The switches of a policy gradient over sequences; the default is the policy gradient with
    leave-one-out baselines.
    """

    baseline: Baseline = "leave_one_out"
    """Number that R is compared with: the mean of the group, that of the others in it, the same
    shrunk towards the other groups' means (2511.03710), the mean of the batch, the return of the
    greedy policy's sequence for the same prompt, without a penalty (ReMax, 2310.10505), or the mean
    of the group weighted by lengths (OPO, 2505.23585).
    """
    scale: Scale = "none"
    """Standard deviation of R that R less the baseline is divided by: that of the group
    (GRPO, 2402.03300), or of the batch (REINFORCE++, 2501.03262). Where rewards agree, a penalty
    in the reward is divided by its own deviation, so that its weight (`kl_coef`, `temperature`)
    cancels.
    """
    credit: Credit = "total"
    """Rewards that a step is credited with: all of the sequence, or those from the step on; mean
    and standard deviation of the batch are then over its steps (REINFORCE++).
    """
    average: Average = "sum"
    """Average over steps: Σₜ, the policy gradient; Σₜ / |y| of each sequence (GRPO); Σₜ over the
    mean |y| of the group, or of the batch where nothing else is of groups (DAPO, 2503.14476); or
    Σₜ / L, L the maximum length, the horizon (Dr. GRPO, 2503.20783). The entropy bonus of
    `entropy_coef` is Σₜ whatever this is.
    """
    ratio: Ratio = "none"
    """Importance ratio: none; ρₜ of the token; Π_{i≤k} ρᵢ of the decisions before each reward rₖ
    (Precup et al. 2000); Πₜ ρₜ of the sequence; or its |y|-th root (GSPO, 2507.18071).
    """
    clip: Clip = "none"
    """Bound on the ratio: symmetric (PPO, `epsilon`), asymmetric (DAPO, `epsilon` and
    `epsilon_high`), dual (1912.09729, also `ratio_bound`); of the weight (CISPO, 2506.13585);
    truncated at `ratio_bound`; masked outside of 1 - `epsilon`, 1 + `epsilon_high`; or a soft gate
    (SAPO, 2511.20347, `gate_rising` and `gate_falling`).
    """
    self_normalised: SelfNormalised = "none"
    """Mean that importance weights are divided by, before the first step on a batch: that of the
    group or of the batch, over its sequences, or over its steps with ratio='token'. The mean is
    then off by O(1/G) or O(1/N); with ratio='token' or 'sequence_mean' it stays off for any size.
    """
    kl: KL = "none"
    """Estimate of the KL divergence from the reference, of weight `kl_coef`, by ℓ = log π - log
    π_ref: k1 = ℓ, k2 = ℓ² / 2, k3 = exp(-ℓ) - 1 + ℓ, or full: the sum over all actions.
    """
    kl_place: Place = "reward"
    """Place of that estimate: in the reward, as a constant; in the loss of each step; or in that of
    the sequence, of Σₜ ℓₜ.
    """
    kl_ratio: bool = False
    """The estimate in the loss of each step is multiplied by ρₜ."""
    kl_control: Control = "fixed"
    """Weight of the estimate: `kl_coef`, fixed; or adapted from there after every batch, with the
    gain `kl_gain`, until the divergence is `kl_target` nats per sequence (Ziegler et al. 2019,
    1909.08593). From 0 it stays 0.
    """
    kl_metrics: bool = False
    """Report the divergence from the reference also where it is not part of the objective: one more
    forward pass over the batch.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown value, and for incompatible switches."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is not bool:
                check_name(field.name, value, get_args(field.type))
            elif not isinstance(value, bool):
                raise ValueError(f"{field.name} must be True or False, got {value!r}")
        if self.clip != "none" and self.ratio == "none":
            raise ValueError(
                f"clip={self.clip!r} bounds an importance ratio, and there is none: give "
                "ratio='token', 'sequence' or 'sequence_mean', or clip='none'"
            )
        of_advantage = self.clip in ("symmetric", "asymmetric", "dual", "soft_gate")
        if self.ratio == "per_decision" and self.credit == "total":
            raise ValueError(
                "ratio='per_decision' weights each reward by the decisions before it, and credits "
                "a step with what follows: give credit='to_go', or ratio='sequence'"
            )
        if self.ratio == "per_decision" and of_advantage:
            raise ValueError(
                f"clip={self.clip!r} asks for the sign of one advantage, and ratio='per_decision' "
                "has a ratio for each reward: give clip='weight', 'truncated' or 'masked'"
            )
        if self.self_normalised != "none" and self.ratio == "none":
            raise ValueError(
                f"self_normalised={self.self_normalised!r} divides importance weights by their "
                "mean, and there are none: give ratio='sequence', or self_normalised='none'"
            )
        if self.self_normalised != "none" and of_advantage:
            raise ValueError(
                f"clip={self.clip!r} depends on the sign of the advantage and leaves no weight to "
                "divide: give clip='weight', 'truncated' or 'masked', or self_normalised='none'"
            )
        if self.scale != "none" and self.baseline == "none":
            raise ValueError(
                f"scale={self.scale!r} divides by a standard deviation, which is 0 where all "
                "returns agree and then leaves no return: give a baseline, or scale='none'"
            )
        if self.scale == "group" and self.credit == "to_go":
            raise ValueError(
                "scale='group' is the standard deviation of the returns of whole sequences: give "
                "credit='total', or scale='batch'"
            )
        if self.kl == "full" and self.kl_place == "sequence":
            raise ValueError(
                "kl='full' is a sum over the actions of one step, of which a sequence has too "
                "many: give kl_place='loss' or 'reward', or kl='k2'"
            )
        if self.kl_place != "reward" and self.kl == "none":
            raise ValueError(
                f"kl_place={self.kl_place!r} is the place of a KL estimate, and there is none: "
                "give kl='k1', 'k2', 'k3' or 'full'"
            )
        if self.kl_ratio and (self.kl == "none" or self.kl_place != "loss"):
            raise ValueError(
                "kl_ratio=True multiplies the estimate in a step's loss: give "
                "kl='k1', 'k2', 'k3' or 'full', and kl_place='loss'"
            )
        if self.kl_control == "adaptive" and self.kl == "none":
            raise ValueError(
                "kl_control='adaptive' adapts the weight of a KL estimate, and there is none: give "
                "kl='k1', 'k2', 'k3' or 'full'"
            )

    @property
    def with_reference(self) -> bool:
        """True if the policy is compared with a reference policy."""
        return self.kl != "none" or self.kl_metrics

    @property
    def in_groups(self) -> bool:
        """True if a sequence is compared with the others of its prompt."""
        by_prompt = self.baseline in ("mean", "leave_one_out", "shrinkage", "length_weighted")
        return by_prompt or "group" in (self.scale, self.self_normalised)

    @property
    def whole_sequences(self) -> bool:
        """True if the surrogate of a step depends on the other steps of its sequence."""
        in_one = self.ratio in ("per_decision", "sequence", "sequence_mean")
        return in_one or (self.kl != "none" and self.kl_place == "sequence")


_READ_BY_CLIP: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "symmetric": ("epsilon",),
    "dual": ("epsilon", "ratio_bound"),
    **dict.fromkeys(("asymmetric", "weight", "masked"), ("epsilon", "epsilon_high")),
    "truncated": ("ratio_bound",),
    "soft_gate": ("gate_rising", "gate_falling"),
}


def facts_of(switches: Switches) -> Facts:
    """The facts derived from the switches, on-policy unless importance weights are complete: of
    sequences or per decision, neither clipped nor self-normalised.
    """
    s = switches
    batch = "batch" in (s.baseline, s.scale, s.self_normalised)
    compared: ComparedWith = "greedy" if s.baseline == "greedy" else "none"
    if batch:
        compared = "batch"
    if s.in_groups:
        compared = "group"
    straight = s.scale == "none" and s.average in ("sum", "constant")
    independent = s.baseline in ("none", "leave_one_out", "shrinkage", "greedy")
    exact = straight and s.average == "sum" and independent
    own_part = s.baseline == "mean" or (s.baseline == "batch" and s.credit == "total")
    # a number that does not depend on the lengths, so that the direction is unchanged
    of_lengths = s.baseline == "length_weighted" or (s.baseline == "batch" and not own_part)
    constant = s.average == "constant" and not of_lengths
    divided = s.scale != "none" or s.average == "token"  # by a number of other sequences
    # without the ratio, which belongs to the return alone
    in_loss = s.kl != "none" and s.kl_place != "reward"
    whole = s.ratio in ("per_decision", "sequence") and s.clip == s.self_normalised == "none"
    objective: Objective = "no"
    why = ""
    if exact and s.kl == "none":
        objective = "J"
    if exact and (s.kl, s.kl_place) == ("k1", "reward"):
        objective = "J_β"
    if exact and (s.kl, s.kl_place) == ("k2", "sequence"):
        why = "J_β if γ = 1: rewards are discounted, and the divergence of the sequence is not"
    return Facts(
        unbiased_for=objective,
        why=why,
        baseline=compared,
        off_policy=whole and not in_loss,
        several_steps=s.ratio != "none",
        psi_depends_on_policy=s.ratio != "none" or s.kl != "none" or divided or of_lengths,
        with_reference=s.with_reference,
        extra_rollout_kind="greedy" if s.baseline == "greedy" else "none",
        shrunk=straight and s.kl == "none" and (own_part or constant),
        reads=_READ_BY_CLIP[s.clip],
        settings={
            **({"group_size": GROUP_SIZE} if s.in_groups else {}),
            **({"kl_coef": KL_COEF} if s.kl != "none" else {}),
            **published(s),
        },
    )


GRPO = Switches(baseline="mean", scale="group", average="sequence", ratio="token", clip="symmetric")
"""Group-relative policy optimisation, without its KL term (Shao et al. 2024, 2402.03300)."""

DR_GRPO = Switches(baseline="mean", average="constant", ratio="token", clip="symmetric")
"""GRPO done right: without standard deviation and lengths (Liu et al. 2025, 2503.20783)."""

DAPO = Switches(baseline="mean", scale="group", average="token", ratio="token", clip="asymmetric")
"""Decoupled clip, without its dynamic sampling (Yu et al. 2025, 2503.14476)."""

GSPO = Switches(
    baseline="mean", scale="group", average="sequence", ratio="sequence_mean", clip="asymmetric"
)
"""Group sequence policy optimisation (Zheng et al. 2025, 2507.18071)."""

CISPO = Switches(baseline="mean", scale="group", average="token", ratio="token", clip="weight")
"""Clipped importance weights (MiniMax 2025, 2506.13585)."""

SAPO = Switches(baseline="mean", scale="group", average="sequence", ratio="token", clip="soft_gate")
"""Soft adaptive policy optimisation (Gao et al. 2025, 2511.20347)."""

RLOO = Switches(baseline="leave_one_out", kl="k1", kl_place="reward")
"""REINFORCE with leave-one-out baselines (Ahmadian et al. 2024, 2402.14740)."""

REINFORCE_PLUS_PLUS = Switches(
    baseline="batch",
    scale="batch",
    credit="to_go",
    average="token",
    ratio="token",
    clip="symmetric",
    kl="k1",
    kl_place="reward",
)
"""Returns standardised over the batch (Hu et al. 2025, 2501.03262)."""

REMAX = Switches(baseline="greedy", credit="to_go", kl="k1", kl_place="reward")
"""Compared with the greedy policy's sequence (Li et al. 2023, 2310.10505)."""

OPO = Switches(baseline="length_weighted")
"""Exactly on-policy, with a baseline weighted by lengths (Hao et al. 2025, 2505.23585)."""

PRESETS = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "sapo": SAPO,
    "rloo": RLOO,
    "reinforce_plus_plus": REINFORCE_PLUS_PLUS,
    "remax": REMAX,
    "opo": OPO,
}
"""The published estimators, by name."""

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "dapo": {"epsilon": 0.2, "epsilon_high": 0.28},  # section 4.1
    "gspo": {"epsilon": 3e-4, "epsilon_high": 4e-4},  # section 5.1
    # no bound below; that above is not stated: a weight of at most 5 is ScaleRL's (2510.13786)
    "cispo": {"epsilon": 1.0, "epsilon_high": 4.0},
    "sapo": {"gate_rising": 1.0, "gate_falling": 1.05},
    "rloo": {"kl_coef": 0.03},  # appendix C, summaries
}
"""Hyperparameters from the papers, by the preset's name, if they are stated and meaningful on other
tasks: no learning rates, and no batch sizes.
"""


def preset_name(switches: Switches) -> str | None:
    """The name of the preset with these switches; None if there is none."""
    return next((name for name, preset in PRESETS.items() if preset == switches), None)


def published(switches: Switches) -> Mapping[str, Any]:
    """The published hyperparameters of the preset with these switches; none if there is none."""
    return PUBLISHED.get(preset_name(switches) or "", {})


def label(switches: Switches) -> str:
    """The switches that differ from the plain policy gradient without a baseline."""
    plain = vars(Switches(baseline="none"))
    chosen = {name: value for name, value in vars(switches).items() if value != plain[name]}
    return ", ".join(f"{name}={value}" for name, value in chosen.items()) or "plain"


def name_of(switches: Switches) -> str:
    """The name of an estimator: that of its preset, or one made of the switches in `label`."""
    preset = preset_name(switches)
    if preset is not None:
        return f"sequence_{preset}"
    return "sequence_" + re.sub(r"[^a-z0-9_]+", "_", label(switches).lower())
