"""Unit embeddings of images, for search."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.data.loading import ImageReader, Transform
from fgjax.localization.cam import channel_sum
from fgjax.localization.regions import largest_region
from fgjax.losses.common import normalize
from fgjax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Embed:
    """Unit embeddings [B, D] of images, for search.

    `salient` keeps the places whose channel sum lies above its mean: SCDA's selection as its
    successors use it at test. SCDA itself keeps the largest connected region of them, and with
    `halves` each pooling is normalised by itself.
    """

    salient: bool = False
    halves: bool = False
    connected: bool = False

    def __call__(self, model: nnx.Module, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        outputs = model(batch["image"])
        if not self.salient:
            return {"embedding": normalize(outputs["pooled"])}
        x = models.last_map(outputs).astype(jnp.float32)
        total = channel_sum(x)
        mask = total > jnp.mean(total, axis=(1, 2), keepdims=True)
        if self.connected:
            mask = largest_region(mask)
        some = jnp.any(mask, axis=(1, 2), keepdims=True)
        mask = (mask | ~some)[..., None]  # a constant map has nothing above its mean
        largest = jnp.max(jnp.where(mask, x, -jnp.inf), axis=(1, 2))
        count = jnp.sum(mask, axis=(1, 2), dtype=x.dtype)
        mean = jnp.sum(jnp.where(mask, x, 0), axis=(1, 2)) / count
        parts = [normalize(largest), normalize(mean)] if self.halves else [largest, mean]
        return {"embedding": normalize(jnp.concatenate(parts, axis=-1))}


def embeddings_of(
    run: Run, model: nnx.Module, embed: Embed, source: ImageReader | Transform, rows: np.ndarray,
    *, batch_size: int,
) -> np.ndarray:  # fmt: skip
    """Embeddings [len(rows), D] of a split's images, as a reader or a transform shows them."""
    found = run.outputs(model, source, rows, batch_size=batch_size, outputs_of=embed)
    return found["embedding"]
