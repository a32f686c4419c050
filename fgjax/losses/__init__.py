"""Losses as pure functions: arrays in, arrays out, hyper-parameters by keyword."""

from fgjax.losses.margin import (
    MarginStatistics,
    PairMargins,
    dissimilarity,
    lapm_loss,
    margin_statistics,
    negative_relationship,
    pairwise_margin_loss,
    positive_relationship,
)
from fgjax.losses.parts import part_distance, part_diversity

__all__ = [
    "MarginStatistics",
    "PairMargins",
    "dissimilarity",
    "lapm_loss",
    "margin_statistics",
    "negative_relationship",
    "pairwise_margin_loss",
    "part_distance",
    "part_diversity",
    "positive_relationship",
]
