"""A few learned queries that attend over a frozen backbone's last map (efficient probing).

  a_m    = softmax over the places n of q_m · x_n                   no projection of keys
  u_m    = v_m / ‖v_m‖,  v_m = Σ_n a_mn x_n
  logits = Σ_m W_m u_m + b

After Psomas et al. 2025, "Attention, Please! Revisiting Attentive Probing Through the Lens of
Efficiency"; values are not projected either, which few images could not teach.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import models
from fgjax.data.loading import Example
from fgjax.losses.common import normalize

_SCALE = 0.3  # of the queries' step beside the weights'


class AttentionHead(nnx.Module):
    """Logits and attention of maps.

    Args:
      weights: of the linear head that it begins as [D, K].
      bias: likewise [K].
      queries: M.
      key: of the queries' first values.
    """

    def __init__(self, weights: np.ndarray, bias: np.ndarray, queries: int, key: jax.Array):
        width = weights.shape[0]
        first = jax.random.normal(key, (queries, width)) * (1e-3 / _SCALE)
        self.queries = nnx.Param(first)
        self.kernel = nnx.Param(jnp.repeat(jnp.asarray(weights)[None] / queries, queries, axis=0))
        self.bias = nnx.Param(jnp.asarray(bias))

    def __call__(self, maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits [B, K] of maps [B, H, W, D], and each place's share for a query [B, M, H, W]."""
        batch, height, width, depth = maps.shape
        places = maps.reshape(batch, height * width, depth).astype(jnp.float32)
        scores = jnp.einsum("bnd,md->bmn", places, _SCALE * self.queries[...])
        shares = jax.nn.softmax(scores, axis=-1)
        seen = normalize(jnp.einsum("bmn,bnd->bmd", shares, places))
        logits = jnp.einsum("bmd,mdk->bk", seen, self.kernel[...]) + self.bias[...]
        return logits, shares.reshape(batch, shares.shape[1], height, width)


@dataclasses.dataclass(frozen=True)
class CachedMaps:
    """Transform that looks maps up: they are constants when their network is frozen."""

    maps: np.ndarray  # [N, H, W, D]
    labels: np.ndarray

    def __call__(self, position: int, index: int) -> Example:
        """Map float16 [H, W, D], label, index."""
        del position
        return {
            "map": self.maps[index],
            "label": np.int32(self.labels[index]),
            "index": np.int32(index),
        }


def map_of(model: nnx.Module, batch) -> dict[str, jax.Array]:
    """The last map in half precision: half the memory, and a thousandth of its values."""
    return {"map": models.last_map(model(batch["image"])).astype(jnp.float16)}


def logits_of_maps(head: nnx.Module, batch) -> dict[str, jax.Array]:
    """For `run.outputs`."""
    return {"logits": head(batch["map"])[0]}


def map_loss(head: nnx.Module, batch, statistics, key):
    """Softmax cross-entropy."""
    del statistics, key
    logits, _ = head(batch["map"])
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])}
