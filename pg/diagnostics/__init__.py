"""Diagnostics of gradients: the quality of an estimate of ∇J, at any parameters of any policy on
any environment.

    g₁ … gₙ independent estimates   ḡ = (1/n) Σ gᵢ   tr Σ̂ = (1/(n-1)) Σ ‖gᵢ - ḡ‖²

    SNR = ‖∇J‖² / tr Σ

One estimate is the share of one episode in a batch (`per_episode`), or a separate batch
(`per_batch`), which is also right for estimators that couple the episodes of a batch.
"""

from pg.diagnostics.decomposition import (
    Decomposition,
    decompose,
)
from pg.diagnostics.exact import (
    asymmetry,
    exact_moments,
)
from pg.diagnostics.quality import (
    cosine,
    cosine_to,
    expected_cosine,
    leave_one_out_cosine,
    noise_scale,
    noise_scale_of_two_batches,
    pairwise_cosines,
    signal_to_noise,
    squared_norm,
    variance,
    variance_by_leaf,
)
from pg.diagnostics.samples import (
    Moments,
    Sample,
    at_once,
    gradients,
    moments,
    of_batches,
    of_episodes,
    per_batch,
    per_episode,
    sample,
    z_scores,
)
from pg.diagnostics.verdict import (
    Finding,
    Verdict,
    exact_figures,
    verdict,
)
from pg.diagnostics.weights import (
    effective_sample_size,
    explained_share,
    explained_variance,
)

__all__ = [
    "Decomposition",
    "Finding",
    "Moments",
    "Sample",
    "Verdict",
    "asymmetry",
    "at_once",
    "cosine",
    "cosine_to",
    "decompose",
    "effective_sample_size",
    "exact_figures",
    "exact_moments",
    "expected_cosine",
    "explained_share",
    "explained_variance",
    "gradients",
    "leave_one_out_cosine",
    "moments",
    "noise_scale",
    "noise_scale_of_two_batches",
    "of_batches",
    "of_episodes",
    "pairwise_cosines",
    "per_batch",
    "per_episode",
    "sample",
    "signal_to_noise",
    "squared_norm",
    "variance",
    "variance_by_leaf",
    "verdict",
    "z_scores",
]
