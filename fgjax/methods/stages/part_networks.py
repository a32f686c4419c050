"""GHNS's networks on part images, and the examples that they and their successors learn from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.data.loading import Example, generator
from fgjax.data.part_sets import PartReader
from fgjax.evaluation import classification
from fgjax.methods.stages.hard_negatives import HardNegatives
from fgjax.models import layers


@jax.custom_vjp
def reverse_gradient(x: jax.Array) -> jax.Array:
    """The identity, whose gradient changes its sign."""
    return x


reverse_gradient.defvjp(lambda x: (x, None), lambda _, g: (-g,))


class PartNetworks(nnx.Module):
    """A backbone of its own for each part, and the discriminator of shuffled sets (GHNS Fig. 2)."""

    def __init__(
        self,
        backbones: list[models.Backbone],
        *,
        discriminator_hidden: int = 0,
        reverse_gradient: bool = False,
        rngs: nnx.Rngs,
    ):
        self.backbones = nnx.List(backbones)
        width = sum(backbone.features for backbone in backbones)
        self.hidden = nnx.data(None)
        if discriminator_hidden:
            self.hidden = layers.Linear(width, discriminator_hidden, rngs=rngs)
        self.discriminator = layers.Linear(discriminator_hidden or width, 2, rngs=rngs)
        self.reverse = reverse_gradient

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """[B, P, S, S, 3] to `features` [B, P, D], `logits` [B, P, K] and `shuffled` [B, 2]."""
        keys = [None if key is None else jax.random.fold_in(key, p) for p in range(images.shape[1])]
        outputs = [b(images[:, p], key=keys[p]) for p, b in enumerate(self.backbones)]
        features = jnp.stack([o["pooled"] for o in outputs], axis=1)
        joint = features.reshape(len(features), -1)
        joint = reverse_gradient(joint) if self.reverse else joint
        if self.hidden is not None:
            joint = jax.nn.relu(self.hidden(joint))
        return {
            "features": features,
            "logits": jnp.stack([o["logits"] for o in outputs], axis=1),
            "shuffled": self.discriminator(joint),
        }


class PartsHead(nnx.Module):
    """The parts classifier on features [B, P, D]: an embedding, where they are frozen, and FC."""

    def __init__(self, width: int, num_classes: int, *, embedding: int, rngs: nnx.Rngs):
        self.embedding = nnx.data(None)
        if embedding:
            self.embedding = layers.Linear(width, embedding, rngs=rngs)
        self.fc = layers.Linear(embedding or width, num_classes, rngs=rngs)

    def embed(self, features: jax.Array) -> jax.Array:
        """F of Eq. 8, [B, E] or the concatenated features themselves."""
        flat = features.reshape(len(features), -1)
        return flat if self.embedding is None else jax.nn.relu(self.embedding(flat))

    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits [B, K]."""
        return self.fc(self.embed(features))


class PartsClassifier(nnx.Module):
    """Part networks with the head."""

    def __init__(self, networks: PartNetworks, head: PartsHead):
        self.networks, self.head = networks, head

    def features(self, batch: Example, key: jax.Array | None = None) -> jax.Array:
        """Part features [B, P, D] of a batch of part images."""
        return self.networks(models.normalize(batch["image"]), key=key)["features"]


def parts_logits(model: PartsClassifier, batch: Example) -> dict[str, jax.Array]:
    """For `classification.iterate`."""
    return {"logits": model.head(model.features(batch))}


def part_outputs(model: PartNetworks, batch: Example) -> dict[str, jax.Array]:
    """Features and logits of each part, for `classification.iterate`."""
    outputs = model(models.normalize(batch["image"]))
    return {"features": outputs["features"], "logits": outputs["logits"]}


def features_of(
    model: PartNetworks, reader: PartReader, *, batch_size: int, rows: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """`features` [N, P, D] and `logits` [N, P, K] of a split's images; 0 outside `rows`."""
    rows = np.arange(len(reader.split)) if rows is None else rows
    found: dict[str, np.ndarray] = {}
    for outputs, here in classification.iterate(
        model, reader, rows, batch_size=batch_size, outputs_of=part_outputs
    ):
        for name, values in outputs.items():
            shape = (len(reader.split), *values.shape[1:])
            found.setdefault(name, np.zeros(shape, np.float32))[here] = values
    return found


def mean_logits(logits: np.ndarray) -> np.ndarray:
    """Logits of a set of parts by their mean [N, K]."""
    return logits.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class CachedFeatures:
    """Transform that looks features up: they are constants when their networks are frozen."""

    features: np.ndarray  # [N, P, D]
    labels: np.ndarray

    def __call__(self, position: int, index: int) -> Example:
        """Features float32 [P, D], label, index."""
        del position
        return {
            "features": self.features[index],
            "label": np.int32(self.labels[index]),
            "index": np.int32(index),
        }


@dataclasses.dataclass(frozen=True)
class Quadruplets:
    """Transform that brings a reference and one of its hard negatives; p and n are in its batch.

    The hard negative is one that was made from the reference itself, or else from its class.
    `has_hard` is 0 where there is neither.

    Attributes:
      kept: recipes.
      labels: int [N], of the split.
      seed: decides, with the position, augmentation and choice.
      reader: of part images, for networks that learn; or
      features: [N, P, D] of frozen ones.
    """

    kept: HardNegatives
    labels: np.ndarray
    seed: int
    reader: PartReader | None = None
    features: np.ndarray | None = None

    @functools.cached_property
    def _of_reference(self) -> dict[int, np.ndarray]:
        return _groups(self.kept.reference)

    @functools.cached_property
    def _of_class(self) -> dict[int, np.ndarray]:
        return _groups(self.kept.label)

    def __call__(self, position: int, index: int) -> Example:
        """Image [P, S, S, 3] or features [P, D], and `hard` [P, D], with frozen networks.

        Besides label, index, hard_rows int32 [P] (the images that the hard negative's parts come
        from) and has_hard float32.
        """
        rng = generator(self.seed, position)
        example = {"label": np.int32(self.labels[index]), "index": np.int32(index)}
        if self.features is None:
            example["image"], _ = self.reader.read(index, rng)
        label = int(self.labels[index])
        choices = self._of_reference.get(index, self._of_class.get(label))
        parts = self.kept.rows.shape[1]
        rows = np.full(parts, index, np.int32)
        if choices is not None:
            rows = self.kept.rows[rng.choice(choices)]
        example |= {"hard_rows": rows, "has_hard": np.float32(choices is not None)}
        if self.features is not None:
            example["features"] = self.features[index]
            example["hard"] = self.features[rows, np.arange(parts)]
        return example


def _groups(values: np.ndarray) -> dict[int, np.ndarray]:
    """{value: where it stands}."""
    order = np.argsort(values, kind="stable")
    unique, starts = np.unique(values[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(order, starts[1:])))
