"""GHNS section 3.1, stage 1: features of each part (Eq. 2-7)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.config import Training
from fgjax.data.loading import Example, Transform
from fgjax.data.mixing import Donors
from fgjax.data.sampling import AnchorBatches, class_stream
from fgjax.evaluation import classification
from fgjax.losses.common import normalize
from fgjax.methods.ghns.config import Config
from fgjax.methods.ghns.part_sets import AugmentedParts, PartReader, PartSets, Views
from fgjax.methods.shared.classifier import starting_model
from fgjax.methods.shared.localization import crops
from fgjax.models import layers
from fgjax.training.run import Run, Stage


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
        joint = features.reshape(features.shape[0], -1)
        joint = reverse_gradient(joint) if self.reverse else joint
        if self.hidden is not None:
            joint = jax.nn.relu(self.hidden(joint))
        return {
            "features": features,
            "logits": jnp.stack([o["logits"] for o in outputs], axis=1),
            "shuffled": self.discriminator(joint),
        }


@dataclasses.dataclass(frozen=True)
class PartOutputs:
    """Features, of unit length where that is wished, and logits of each part."""

    unit: bool = False

    def __call__(self, model: PartNetworks, batch: Example) -> dict[str, jax.Array]:
        outputs = model(batch["image"])
        features = normalize(outputs["features"]) if self.unit else outputs["features"]
        return {"features": features, "logits": outputs["logits"]}


def told_sets(model: PartNetworks, batch: Example) -> dict[str, jax.Array]:
    """Whether the discriminator is right about each set."""
    told = jnp.argmax(model(batch["image"])["shuffled"], axis=-1) > 0
    return {"right": told == (batch["is_shuffled"] > 0)}


def features_of(
    run: Run,
    model: PartNetworks,
    source: PartReader | Transform,
    count: int,
    *,
    batch_size: int,
    unit: bool = False,
) -> dict[str, np.ndarray]:
    """`features` [N, P, D] and `logits` [N, P, K] of a split's N = `count` images."""
    found: dict[str, np.ndarray] = {}
    for outputs, here in run.iterate(
        model, source, np.arange(count), batch_size=batch_size, outputs_of=PartOutputs(unit)
    ):
        for name, values in outputs.items():
            if name not in found:
                found[name] = np.zeros((count, *values.shape[1:]), np.float32)
            run.compute(functools.partial(_write, found[name], here, values), instead=lambda: None)
    return found


def _write(table: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    table[rows] = values


def mean_logits(logits: np.ndarray) -> np.ndarray:
    """Logits of a set of parts by their mean [N, K]."""
    return logits.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class PartLoss:
    """L_stage1 = α L_cls + β L_triplet + γ L_adv, the first two summed over parts (Eq. 3, 4, 7)."""

    alpha: float
    beta: float
    gamma: float
    margin: float

    def __call__(self, model: PartNetworks, batch, statistics, key):
        """The loss of a batch of part sets."""
        del statistics
        outputs = model(batch["image"], key=key)
        labels = batch["labels"]  # [B, P]: a replaced part has its own image's class
        entropy = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], labels)
        classification_loss = jnp.sum(jnp.mean(entropy, axis=0))
        triplet = sum(
            losses.batch_all_triplet_loss(
                normalize(outputs["features"][:, p]), labels[:, p], margin=self.margin, squared=True
            )
            for p in range(labels.shape[1])
        )
        adversarial = jnp.mean(losses.shuffle_loss(outputs["shuffled"], batch["is_shuffled"]))
        told = (jnp.argmax(outputs["shuffled"], axis=-1) > 0) == (batch["is_shuffled"] > 0)
        loss = self.alpha * classification_loss + self.beta * triplet + self.gamma * adversarial
        return loss, {
            "classification_loss": classification_loss,
            "triplet_loss": triplet,
            "adversarial_loss": adversarial,
            "accuracy": jnp.mean(jnp.argmax(outputs["logits"], axis=-1) == labels),
            "shuffle_accuracy": jnp.mean(told),
        }


def part_readers(
    run: Run, config: Config, objects: Stage, parts: Stage
) -> tuple[PartReader, PartReader]:
    """Readers of the part images of both splits."""
    train, test = crops(run, objects, parts)
    settings = (config.part_image_size, config.original_pixels, config.own_crops)
    return PartReader(train, *settings), PartReader(test, *settings)


def part_count(run: Run, config: Config) -> int:
    """How many parts there are; three in the paper."""
    annotated_parts = config.parts == "annotated"
    return len(run.dataset.part_regions) if annotated_parts else config.grouping.num_parts


def anchor_batches(run: Run, config: Config, training: Training, name: str) -> AnchorBatches:
    """Batches of P images with K − 1 others of their classes.

    Donors are drawn by the same law: were it another, the classes alone would tell which sets are
    shuffled.
    """
    labels, seed = run.dataset.train.labels, run.seed(name)
    return AnchorBatches(labels, run.train_indices, training.batch_size, config.per_class, seed)


def build_part_networks(run: Run, config: Config, backbones: list[models.Backbone]) -> PartNetworks:
    """The networks around their backbones."""
    return PartNetworks(
        backbones,
        discriminator_hidden=config.discriminator_hidden,
        reverse_gradient=config.reverse_gradient,
        rngs=nnx.Rngs(run.key("part_networks")),
    )


def train_part_networks(
    run: Run, config: Config, classifier: Stage, objects: Stage, parts: Stage
) -> Stage:
    """Stage 1; leaves the features of all images as the artifact `features`."""
    names = ("alpha", "beta", "gamma", "margin", "discriminator_hidden", "reverse_gradient",
             "per_class", "part_image_size", "several", "original_pixels",
             "own_crops", "unit_features", "views")  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    training = config.part_networks
    stage = run.stage("part_networks", training, after=(classifier, objects, parts), revision=2,
                      **settings)  # fmt: skip
    if stage.done:
        return stage
    train, test = part_readers(run, config, objects, parts)
    count = part_count(run, config)
    backbones = [starting_model(run, classifier) for _ in range(count)]
    model = build_part_networks(run, config, backbones)
    donors = Donors(run.dataset.train.labels, run.train_indices)
    sets = PartSets(train, donors, run.seed("part_networks"), config.several)
    run.train(
        stage,
        model,
        PartLoss(config.alpha, config.beta, config.gamma, config.margin),
        class_stream(anchor_batches(run, config, training, "part_networks"), sets),
        training,
        images_per_example=count,
        evaluator=_evaluator(run, train, training.batch_size, several=config.several),
    )
    stage.save_model(model)
    options = {"batch_size": training.batch_size, "unit": config.unit_features}
    found = {
        name: features_of(run, model, reader, len(reader.split), **options)
        for name, reader in (("train", train), ("test", test))
    }
    features = {name: arrays["features"] for name, arrays in found.items()}
    for number in range(1, config.views):
        view = AugmentedParts(train, run.seed("views"), number)
        seen = features_of(run, model, view, len(train.split), **options)
        features[f"view{number}"] = seen["features"]
    stage.save_arrays("features", **features)
    labels, held = run.dataset.train.labels, run.held_out_indices
    metrics = {"test_top1": _top1(mean_logits(found["test"]["logits"]), run.dataset.test.labels)}
    if len(held):
        logits = mean_logits(found["train"]["logits"][held])
        metrics["held_out_top1"] = _top1(logits, labels[held])
    stage.finish(metrics)
    return stage


def load_views(run: Run, stage: Stage) -> Views:
    """The part features of the training images as stage 1 left them."""
    stored, labels = stage.load_arrays("features"), run.dataset.train.labels
    later = sorted((n for n in stored if n.startswith("view")), key=lambda n: int(n[4:]))
    features = np.concatenate([stored["train"], *[stored[name] for name in later]])
    return Views(features, np.tile(labels, 1 + len(later)), len(labels))


def _evaluator(run: Run, reader: PartReader, batch_size: int, *, several: bool):
    """The mean logits' accuracy and the discriminator's on held-out images; None without any."""
    held, labels = run.held_out_indices, reader.split.labels
    if not len(held):
        return None
    # Their own sets; donors of other classes may train, but no set has been seen as it is.
    sets = PartSets(reader, Donors(labels, held), run.seed("held_out_sets"), several)
    mixed = len(np.unique(labels[held])) > 1

    def evaluate(model: PartNetworks, epoch: int) -> dict[str, float]:
        del epoch
        options = {"batch_size": batch_size}
        found = run.outputs(model, reader, held, outputs_of=PartOutputs(), **options)
        metrics = {"held_out_top1": _top1(mean_logits(found["logits"]), labels[held])}
        if mixed:
            told = run.outputs(model, sets, held, outputs_of=told_sets, **options)
            metrics["held_out_shuffle_accuracy"] = float(np.mean(told["right"]))
        return metrics

    return evaluate


def _top1(logits: np.ndarray, labels: np.ndarray) -> float:
    return classification.classification_metrics(logits, labels)["top1"]


def load_part_networks(run: Run, config: Config, stage: Stage) -> PartNetworks:
    """The three networks as stage 1 left them."""
    backbones = [run.build_model(pretrained=False) for _ in range(part_count(run, config))]
    model = build_part_networks(run, config, backbones)
    stage.restore_model(model)
    return model
