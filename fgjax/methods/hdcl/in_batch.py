"""The local structure losses of HDCL's Table 1, each on the embeddings that it was made for."""

import jax

from fgjax import losses
from fgjax.losses.common import normalize
from fgjax.methods.hdcl.heads import PairSimilarity

LOSSES = ("contrastive", "triplet", "lifted", "facility_location", "n_pairs",
          "binomial_deviance", "histogram", "pddm")  # fmt: skip
_MARGINS = {"contrastive": 1.0, "triplet": 0.2, "lifted": 1.0}


def loss_of(
    name: str,
    features: jax.Array,
    labels: jax.Array,
    *,
    margin: float | None = None,
    head: PairSimilarity | None = None,
) -> jax.Array:
    """The scalar loss of a batch whose classes come several times.

    Args:
      name: one of `LOSSES`.
      features: pooled [B, D], of any length.
      labels: int [B].
      margin: of contrastive, triplet and lifted; None for the usual one.
      head: what PDDM compares pairs with.
    """
    unit = normalize(features)
    margin = _MARGINS.get(name, 0.0) if margin is None else margin
    if name == "contrastive":
        return losses.contrastive_loss(unit, labels, margin=margin)
    if name == "triplet":
        return losses.batch_all_triplet_loss(unit, labels, margin=margin)
    if name == "lifted":
        return losses.lifted_structure_loss(unit, labels, margin=margin)
    if name == "facility_location":
        return losses.facility_location_loss(unit, labels)
    if name == "n_pairs":
        return losses.n_pairs_loss(features, labels)
    if name == "binomial_deviance":
        return losses.binomial_deviance_loss(features, labels)
    if name == "histogram":
        return losses.histogram_loss(features, labels)
    if head is None:
        raise ValueError("pddm compares pairs with a head, but none was given.")
    return losses.pddm_quadruplet_loss(unit, labels, head(unit))
