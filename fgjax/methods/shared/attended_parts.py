"""Parts where learned queries look (efficient probing), instead of MA-CNN's channel groups.

The classifier's network stays as it is. N queries attend over its last maps of the object crops,
and learn to tell the classes; MA-CNN's diversity loss keeps them apart:

  L = cross-entropy + λ Div(a)                                      a [B, H, W, N], the shares

Every part stands where its query looks most.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.config import Optimizer, Training
from fgjax.data import loading
from fgjax.data.loading import Reader
from fgjax.localization import grouping
from fgjax.methods.shared.attention_head import AttentionHead, CachedMaps, map_of
from fgjax.training.run import Run, Stage

# As the probe's head, of which held-out images of CUB-100 decided.
_TRAINING = Training(8, 64, Optimizer("adamw", 0.01, weight_decay=0.0, schedule="cosine"))


class AttendedParts(nnx.Module):
    """A backbone and queries on its last map."""

    def __init__(self, backbone: models.Backbone, num_parts: int, *, refined: bool, key: jax.Array):
        self.backbone, self.refined = backbone, refined
        kernel = np.asarray(backbone.fc.kernel[...])[-backbone.channels :]
        self.head = AttentionHead(kernel, np.asarray(backbone.fc.bias[...]), num_parts, key)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs, and part centres [B, N, 2]."""
        outputs = self.backbone(images, key=key)
        _, shares = self.head(models.last_map(outputs))
        found = grouping.refined_centers if self.refined else grouping.part_centers
        scores = jnp.log(jnp.moveaxis(shares, 1, -1) + 1e-9)  # whose sigmoid is a share
        return {**outputs, "centers": found(scores)}


@dataclasses.dataclass(frozen=True)
class QueryLoss:
    """Cross-entropy of what the queries see, and how much they see the same."""

    diversity_weight: float
    margin: float

    def __call__(self, head: AttentionHead, batch, statistics, key):
        """The loss of a batch of maps."""
        del statistics, key
        logits, shares = head(batch["map"])
        labels = batch["label"]
        entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        attention = jnp.moveaxis(shares, 1, -1)
        diversity = jnp.mean(losses.part_diversity(attention, margin=self.margin))
        hits = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        metrics = {"entropy": entropy, "diversity": diversity, "accuracy": hits}
        return entropy + self.diversity_weight * diversity, metrics


def train(
    run: Run,
    stage: Stage,
    model: AttendedParts,
    reader: Reader,
    *,
    diversity_weight: float,
    margin: float,
    batch_size: int,
) -> None:
    """Teach the queries on the maps of all training crops; the backbone stays as it is.

    Args:
      run: with training rows.
      stage: whose folder holds the loop.
      model: whose head learns.
      reader: of the crops.
      diversity_weight: λ.
      margin: of the diversity loss.
      batch_size: of the forward passes.
    """
    rows, split = run.train_indices, reader.split
    found = run.outputs(model.backbone, reader, rows, batch_size=batch_size, outputs_of=map_of)
    maps = found["map"]
    norms = np.linalg.norm(maps.astype(np.float32).mean(axis=(1, 2)), axis=-1)
    # The classifier knows pooled features of this length; the head's have length 1.
    model.head.kernel[...] *= float(norms.mean()) if len(norms) else 1.0
    cached = CachedMaps(maps, split.labels[rows])
    stream = loading.stream(np.arange(len(rows)), cached, seed=run.seed("parts"))
    loss = QueryLoss(diversity_weight, margin)
    run.train(stage, model.head, loss, stream, _TRAINING, step="queries")
