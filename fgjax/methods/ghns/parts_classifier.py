"""GHNS section 3.3, stage 3: the parts classifier on r, p, n and the generated n⁺ (Eq. 8-10)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses
from fgjax.data.loading import Example, generator
from fgjax.data.sampling import by_value, class_stream
from fgjax.losses.common import masked_mean, normalize
from fgjax.methods.ghns.config import Config
from fgjax.methods.ghns.filtering import load_kept
from fgjax.methods.ghns.hard_negatives import HardNegatives
from fgjax.methods.ghns.image_classifier import save_scores
from fgjax.methods.ghns.part_networks import (
    PartNetworks,
    anchor_batches,
    load_part_networks,
    load_views,
    part_count,
    part_readers,
)
from fgjax.methods.ghns.part_sets import PartReader, Views
from fgjax.models import layers
from fgjax.training.run import Run, Stage


class PartsHead(nnx.Module):
    """The parts classifier on features [B, P, D]: an embedding, where they are frozen, and FC."""

    def __init__(self, width: int, num_classes: int, *, embedding: int, rngs: nnx.Rngs):
        self.embedding = nnx.data(None)
        if embedding:
            self.embedding = layers.Linear(width, embedding, rngs=rngs)
        self.fc = layers.Linear(embedding or width, num_classes, rngs=rngs)

    def embed(self, features: jax.Array) -> jax.Array:
        """F of Eq. 8, [B, E] or the concatenated features themselves."""
        flat = features.reshape(features.shape[0], -1)
        return flat if self.embedding is None else jax.nn.relu(self.embedding(flat))

    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits [B, K]."""
        return self.fc(self.embed(features))


class PartsClassifier(nnx.Module):
    """Part networks with the head, which gets features of unit length where `unit` says so."""

    def __init__(self, networks: PartNetworks, head: PartsHead, *, unit: bool = False):
        self.networks, self.head, self.unit = networks, head, unit

    def features(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Part features [B, P, D] of part images [B, P, S, S, 3]."""
        features = self.networks(images, key=key)["features"]
        return normalize(features) if self.unit else features


def parts_logits(model: PartsClassifier, batch: Example) -> dict[str, jax.Array]:
    """For `classification.iterate`."""
    return {"logits": model.head(model.features(batch["image"]))}


@dataclasses.dataclass(frozen=True)
class Quadruplets:
    """Transform that brings a reference and one of its hard negatives; p and n are in its batch.

    The hard negative is one that was made from the reference itself, or else from its class.
    `has_hard` is 0 where there is neither.

    Attributes:
      kept: recipes.
      views: of the split's images; frozen networks' features are looked up there.
      seed: decides, with the position, augmentation and choice.
      reader: of part images, for networks that learn; None for frozen ones.
    """

    kept: HardNegatives
    views: Views
    seed: int
    reader: PartReader | None = None

    @functools.cached_property
    def _of_reference(self) -> dict[int, np.ndarray]:
        return by_value(self.views.images_of(self.kept.reference))

    @functools.cached_property
    def _of_class(self) -> dict[int, np.ndarray]:
        return by_value(self.kept.label)

    def __call__(self, position: int, index: int) -> Example:
        """`image` and `hard_image` [P, S, S, 3], or `features` and `hard` [P, D] of frozen ones.

        Besides label, index, hard_rows int32 [P] (the images that the hard negative's parts come
        from) and has_hard float32.
        """
        rng = generator(self.seed, position)
        label = int(self.views.labels[index])
        example: Example = {"label": np.int32(label), "index": np.int32(index)}
        choices = self._of_reference.get(index, self._of_class.get(label))
        parts = self.kept.rows.shape[1]
        rows = np.full(parts, index, np.int32)
        if choices is not None:
            rows = self.kept.rows[rng.choice(choices)]
        images = self.views.images_of(rows)
        example |= {"hard_rows": images, "has_hard": np.float32(choices is not None)}
        if self.reader is not None:
            example["image"], _ = self.reader.read(index, rng)
            # Parts of one image share its crop and colours, as in the reference.
            read = {row: self.reader.read(row, rng)[0] for row in dict.fromkeys(images.tolist())}
            example["hard_image"] = np.stack([read[int(row)][p] for p, row in enumerate(images)])
        else:
            example["features"] = self.views.features[self.views.draw(index, rng)]
            example["hard"] = self.views.features[rows, np.arange(parts)]
        return example


@dataclasses.dataclass(frozen=True)
class PartsLoss:
    """L_parts = λ L_cls + (1 − λ) L_quad (Eq. 10).

    p and n are drawn from the reference's batch, n⁺ from its recipes. A reference without any n⁺
    falls back to the triplet (r, p, n); one without a p in its batch has neither.
    """

    lambda_: float
    m1: float
    m2: float
    margin: float

    def __call__(self, model: PartsHead | PartsClassifier, batch, statistics, key):
        """The loss of a batch of references."""
        del statistics
        if isinstance(model, PartsHead):  # of frozen networks, whose features the batch brings
            head, features, hard = model, batch["features"], batch["hard"]
        else:  # n⁺ goes through the networks as r, p and n do, and its gradient comes back
            head, count = model.head, len(batch["label"])
            both = jnp.concatenate([batch["image"], batch["hard_image"]])
            features = model.features(both, key)
            features, hard = features[:count], features[count:]
        reference = normalize(head.embed(features))
        hard = normalize(head.embed(hard))
        logits, labels = head(features), batch["label"]
        positive, negative = (reference[rows] for rows in draw_pairs(key, labels))
        partnered = jnp.sum(labels[:, None] == labels[None], axis=1) > 1
        quadruplet = losses.quadruplet_loss(
            reference, positive, hard, negative, m1=self.m1, m2=self.m2
        )
        triplet = losses.triplet_loss(reference, positive, negative, margin=self.margin)
        each = jnp.where(batch["has_hard"] > 0, quadruplet, triplet)
        metric_loss = jnp.mean(jnp.where(partnered, each, 0))
        entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        loss = self.lambda_ * entropy + (1 - self.lambda_) * metric_loss
        has = batch["has_hard"]
        far = lambda x: jnp.linalg.norm(reference - x, axis=-1)  # noqa: E731
        return loss, {
            "classification_loss": entropy,
            "quadruplet_loss": masked_mean(quadruplet, has),
            "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
            "positive_distance": masked_mean(far(positive), partnered),
            "hard_negative_distance": masked_mean(far(hard), has),
            "negative_distance": jnp.mean(far(negative)),
        }


def draw_pairs(key: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For every row of a batch another row of its class, and one of another class: [B], [B].

    Where its class is there once, any row stands for the first.
    """
    same = labels[:, None] == labels[None]
    choices = (same & ~jnp.eye(len(labels), dtype=bool), ~same)
    positive, negative = (
        jax.random.categorical(k, jnp.where(allowed, 0.0, -jnp.inf))
        for k, allowed in zip(jax.random.split(key), choices)
    )
    return positive, negative


def train_parts_classifier(
    run: Run, config: Config, networks: Stage, hard: Stage, objects: Stage, parts: Stage
) -> Stage:
    """The parts image classifier, on frozen features or with its three extractors."""
    names = ("extractors", "embedding", "m1", "m2", "margin", "lambda_parts", "per_class")
    settings = {name: getattr(config, name) for name in names}
    training, frozen = config.parts_classifier, config.extractors == "frozen"
    stage = run.stage("parts_classifier", training, after=(networks, hard), revision=2, **settings)
    if stage.done:
        return stage
    train, test = part_readers(run, config, objects, parts)
    views = load_views(run, networks)
    model = build_parts_classifier(run, config, networks)
    kept, seed = load_kept(hard), run.seed("parts_classifier")
    size = training.batch_size

    run.train(
        stage,
        model.head if frozen else model,
        PartsLoss(config.lambda_parts, config.m1, config.m2, config.margin),
        class_stream(
            anchor_batches(run, config, training, "parts_classifier"),
            Quadruplets(kept, views, seed, reader=None if frozen else train),
        ),
        training,
        evaluator=_evaluator(run, views.features if frozen else None, train, size),
        images_per_example=1 if frozen else 2 * part_count(run, config),
    )
    stage.save_model(model)

    def logits(reader: PartReader, rows: np.ndarray) -> np.ndarray:
        found = run.outputs(model, reader, rows, batch_size=size, outputs_of=parts_logits)
        return found["logits"]

    save_scores(run, stage, held_out=lambda rows: logits(train, rows),
                test=lambda rows: logits(test, rows))  # fmt: skip
    return stage


def _evaluator(run: Run, features: np.ndarray | None, reader: PartReader, batch_size: int):
    """Accuracy on the held-out images, of cached features or of part images; None without any."""
    held, labels = run.held_out_indices, run.dataset.train.labels
    if not len(held):
        return None
    cached = None if features is None else features[held]

    def evaluate(model, epoch: int) -> dict[str, float]:
        del epoch
        if cached is not None:
            logits = run.compute(
                lambda: np.asarray(model(jnp.asarray(cached))),
                instead=lambda: np.zeros((len(held), run.dataset.num_classes), np.float32),
            )
        else:
            options = {"batch_size": batch_size, "outputs_of": parts_logits}
            logits = run.outputs(model, reader, held, **options)["logits"]
        return {"held_out_top1": float(np.mean(logits.argmax(axis=1) == labels[held]))}

    return evaluate


def build_parts_classifier(run: Run, config: Config, networks: Stage) -> PartsClassifier:
    """Stage 1's networks under a new head."""
    extractors = load_part_networks(run, config, networks)
    width = sum(backbone.features for backbone in extractors.backbones)
    head = PartsHead(
        width,
        run.dataset.num_classes,
        embedding=config.embedding if config.extractors == "frozen" else 0,
        rngs=nnx.Rngs(run.key("parts_classifier")),
    )
    return PartsClassifier(extractors, head, unit=config.unit_features)
