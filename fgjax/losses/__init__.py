"""Losses as pure functions: arrays in, arrays out, hyper-parameters by keyword.

All compute in at least float32. Losses of given tuples return one value per example [B]; in-batch
losses return a scalar. Fixed shapes and masks, so that everything jits, vmaps and shards.
"""

from fgjax.losses.collapse import collapse_alarm
from fgjax.losses.common import euclidean, masked_mean, normalize
from fgjax.losses.facility import facility_location_loss
from fgjax.losses.hierarchy import multi_level_loss
from fgjax.losses.in_batch import (
    batch_all_triplet_loss,
    batch_hard_cosine_triplet_loss,
    batch_hard_cosine_triplets,
    binomial_deviance_loss,
    contrastive_loss,
    histogram_loss,
    lifted_structure_loss,
    pddm_quadruplet_loss,
)
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
from fgjax.losses.n_pairs import n_pairs_loss
from fgjax.losses.parts import part_distance, part_diversity
from fgjax.losses.proxy import proxy_anchor_loss
from fgjax.losses.ranking import ranking_loss
from fgjax.losses.softmax import (
    centralized_ranking_loss,
    decorrelation,
    hard_softmax_loss,
    hdcl_loss,
)
from fgjax.losses.tuples import (
    cosine_triplet_loss,
    quadruplet_loss,
    shuffle_loss,
    triplet_loss,
)

__all__ = [
    "MarginStatistics",
    "PairMargins",
    "batch_all_triplet_loss",
    "batch_hard_cosine_triplet_loss",
    "batch_hard_cosine_triplets",
    "binomial_deviance_loss",
    "centralized_ranking_loss",
    "collapse_alarm",
    "contrastive_loss",
    "cosine_triplet_loss",
    "decorrelation",
    "dissimilarity",
    "euclidean",
    "facility_location_loss",
    "hard_softmax_loss",
    "hdcl_loss",
    "histogram_loss",
    "lapm_loss",
    "lifted_structure_loss",
    "margin_statistics",
    "masked_mean",
    "multi_level_loss",
    "n_pairs_loss",
    "negative_relationship",
    "normalize",
    "pairwise_margin_loss",
    "part_distance",
    "part_diversity",
    "pddm_quadruplet_loss",
    "positive_relationship",
    "proxy_anchor_loss",
    "quadruplet_loss",
    "ranking_loss",
    "shuffle_loss",
    "triplet_loss",
]
