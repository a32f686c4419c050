"""A loss that is called without its hyper-parameters takes those of its docstring."""

import numpy as np
import pytest

from fgjax import losses
from fgjax.losses import common
from tests.losses.cases import LABELS, PARENTS, margins


def rows(seed, *shape, scale=0.5):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


A, B, C, D = (rows(seed, 8, 5) for seed in range(4))
MAPS = np.exp(rows(4, 8, 4, 4, 3))
MAPS /= MAPS.sum(axis=(1, 2), keepdims=True)


def negative_relationship(*given, **options):
    return losses.negative_relationship(*given, margins(), **options)


IN_BATCH = {
    "contrastive_loss": {"margin": 1.0},
    "batch_all_triplet_loss": {"margin": 0.2, "squared": False},
    "batch_hard_cosine_triplet_loss": {"margin": 0.2},
    "batch_hard_cosine_triplets": {"margin": 0.2},
    "lifted_structure_loss": {"margin": 1.0},
    "n_pairs_loss": {"l2_weight": 0.002},
    "binomial_deviance_loss": {"alpha": 2.0, "beta": 0.5, "negative_cost": 10.0},
    "histogram_loss": {"nodes": 151},
    "facility_location_loss": {"margin_multiplier": 1.0},
}
CASES = [(getattr(losses, name), (A, LABELS), defaults) for name, defaults in IN_BATCH.items()] + [
    (losses.pddm_quadruplet_loss, (A, LABELS, A @ A.T),
     {"alpha": 0.5, "beta": 1.0, "embedding_weight": 0.5}),
    (losses.triplet_loss, (A, B, C), {"margin": 0.2, "squared": True}),
    (losses.quadruplet_loss, (A, B, C, D), {"m1": 0.4, "m2": 0.2}),
    (losses.cosine_triplet_loss, (A, B, C), {"margin": 0.2}),
    (losses.ranking_loss, (A, B), {"margin": 1.0}),
    (losses.multi_level_loss, (A[:, :4], B[:, :2], LABELS, PARENTS), {"parent_weight": 1.0}),
    (losses.part_diversity, (MAPS,), {"margin": 0.02}),
    (losses.hdcl_loss, (A, LABELS, B), {"top_k": 2, "decorrelation_weight": 0.1}),
    (losses.centralized_ranking_loss, (A, LABELS, B), {"margin": 0.5}),
    (losses.proxy_anchor_loss, (A, LABELS, B), {"alpha": 32.0, "margin": 0.1}),
    (negative_relationship, (A, B, C, D), {"alpha": 1.0, "additional_term": True}),
    (losses.lapm_loss, (*abs(rows(5, 3, 8)), LABELS % 2), {"lambda_": 0.75}),
    (common.normalize, (A * 1e-6,), {"epsilon": 1e-12}),
]  # fmt: skip


def another(name, value):
    if isinstance(value, bool):
        return not value
    return {"lambda_": 0.5, "m2": 0.3, "nodes": 11}.get(name, value + 1)


@pytest.mark.parametrize(("loss", "given", "defaults"), CASES, ids=[c[0].__name__ for c in CASES])
def test_defaults(loss, given, defaults):
    found = np.asarray(loss(*given))
    np.testing.assert_array_equal(found, loss(*given, **defaults))
    for name, value in defaults.items():  # and each of them matters here
        changed = np.asarray(loss(*given, **{**defaults, name: another(name, value)}))
        assert np.abs(changed - found).max() > 1e-5, name
