"""Eq. 10 for every reference, from the distances that training computes anyway (`scope=running`).

The letter of Eq. 10 fixes the reference r: m₁(r) = 1/N Σᵢ ‖f(r) − f(Aᵢ)‖ over N negatives that are
generated from it. That costs N sets of forward passes for every training image. Here m₁(r) is an
exponential average over the negative sets in which r was met, and nothing is forwarded for it.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgjax import losses, models
from fgjax.losses.common import masked_mean, safe_sqrt


class Running(nnx.Variable):
    """What a step updates beside the parameters; checkpoints keep it."""


class RunningMargins(nnx.Module):
    """m₁ of every reference and σ of each pair type.

    m₁(r) moves towards a new distance d by max(1 / n, 1 − `decay`), n the distances of r so far, d
    included: their mean at first, then an average over about 1 / (1 − `decay`) of them. σ² is the
    average of (d − m₁(r))² over the references that were met before; one by itself meets too few
    sets for a σ of its own. A reference that was never met has the mean of all distances.

    Attributes:
      mean: [rows, pairs].
      count: [rows].
      overall: [pairs], mean of all distances.
      spread: [pairs], σ².
      steps: batches with a negative set, and those of them with a reference that was known.
    """

    def __init__(self, rows: int, pairs: int, *, decay: float = 0.9, decay_of_all: float = 0.99):
        self.decay, self.decay_of_all = decay, decay_of_all
        self.mean = Running(jnp.zeros((rows, pairs)))
        self.count = Running(jnp.zeros(rows, jnp.int32))
        self.overall, self.spread = Running(jnp.zeros(pairs)), Running(jnp.zeros(pairs))
        self.steps = Running(jnp.zeros(2, jnp.int32))

    def statistics(
        self, index: jax.Array, distances: jax.Array, is_negative: jax.Array
    ) -> list[losses.MarginStatistics]:
        """m₁ and σ of each pair type for the rows of a batch [B], from the batches before.

        Where there are none yet, its own distances [B, pairs] stand in, as if of one reference.
        """
        own = losses.margin_statistics(distances, where=is_negative[:, None], axis=0)
        steps, known = self.steps[...], self.count[...][index] > 0
        overall = jnp.where(steps[0] > 0, self.overall[...], own.m1)
        m1 = jnp.where(known[:, None], self.mean[...][index], overall)
        sigma = jnp.where(steps[1] > 0, safe_sqrt(self.spread[...]), own.sigma)
        return [
            losses.MarginStatistics(m1=m1[:, pair], sigma=jnp.full(len(index), sigma[pair]))
            for pair in range(m1.shape[1])
        ]

    def update(self, index: jax.Array, distances: jax.Array, is_negative: jax.Array) -> None:
        """Take in the distances [B, pairs] of the negative sets of a batch."""
        distances = jax.lax.stop_gradient(distances)
        counted = is_negative > 0
        count = self.count[...].at[index].add(counted.astype(jnp.int32))
        before, known = self.mean[...][index], self.count[...][index] > 0
        share = jnp.maximum(1 / jnp.maximum(count[index], 1), 1 - self.decay)[:, None]
        moved = jnp.where(counted[:, None], share * (distances - before), 0)
        # Sums, so that a reference that a batch holds twice counts twice.
        self.mean[...] = self.mean[...].at[index].add(moved)
        both = counted & known
        steps = self.steps[...] + jnp.stack([jnp.any(counted), jnp.any(both)]).astype(jnp.int32)
        self.overall[...] = self._toward(self.overall[...], distances, counted, steps[0])
        deviations = jnp.square(distances - before)
        self.spread[...] = self._toward(self.spread[...], deviations, both, steps[1])
        self.count[...], self.steps[...] = count, steps

    def _toward(self, old, values, where, steps):
        """The average after a batch's mean; unchanged where nothing counts."""
        mean = masked_mean(values, jnp.broadcast_to(where[:, None], values.shape), axis=0)
        share = jnp.maximum(1 / jnp.maximum(steps, 1), 1 - self.decay_of_all)
        return jnp.where(jnp.any(where), old + share * (mean - old), old)


class MarginNetwork(nnx.Module):
    """A backbone with the margins that follow it."""

    def __init__(self, backbone: models.Backbone, margins: RunningMargins):
        self.backbone, self.margins = backbone, margins

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs."""
        return self.backbone(images, key=key)
