"""GHNS: generating features of hard negative samples (Kim, Hong, Byun).

Read top to bottom as the paper's section 3:

  classifier, objects, parts   where the object and its three parts are (CAM; MA-CNN)
  part_networks      stage 1: α L_cls + β L_triplet + γ L_adv          Eq. 2-7
  filter             stage 2: FilterNet on the frozen extractors
  hard_negatives     stage 2: parts shuffle and filtering, kept as recipes
  parts_classifier   stage 3: λ L_cls + (1 − λ) L_quad on r, p, n, n⁺  Eq. 8-10
  object_classifier, original_classifier   stage 3: λ L_cls + (1 − λ) L_triplet
  fusion             a · original + b · object + c · parts             Eq. 11
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.config import Training, one_of, require
from fgjax.data.mixing import Donors
from fgjax.data.part_sets import PartReader, PartSets
from fgjax.data.sampling import ClassBatches, class_stream
from fgjax.errors import UserError
from fgjax.evaluation import classification
from fgjax.losses.common import masked_mean, normalize
from fgjax.methods.stages import filtering
from fgjax.methods.stages.classifier import starting_model, whole_images
from fgjax.methods.stages.fused import FusedPredictor, fuse_scores
from fgjax.methods.stages.image_classifier import save_scores, train_image_classifier
from fgjax.methods.stages.localization import Localization, Localizer, crops, localize
from fgjax.methods.stages.objects import annotated
from fgjax.methods.stages.part_networks import (
    PartNetworks,
    PartsClassifier,
    PartsHead,
    Quadruplets,
    features_of,
    mean_logits,
    parts_logits,
)
from fgjax.training import checkpoints
from fgjax.training.run import Run, Stage


@dataclasses.dataclass
class Config(Localization):
    """Hyper-parameters; the paper's values are section 4.2's."""

    part_image_size: int = 224
    # 3.1, stage 1
    alpha: float = 1.0  # of L_cls, Eq. 7
    beta: float = 0.8  # of L_triplet; 1 on DeepFashion
    gamma: float = 1.0  # of L_adv; 0.5 on DeepFashion
    margin: float = 0.2  # m of Eq. 1, between unit vectors; the paper gives none
    # The paper's D is linear (0), which cannot learn the task: its logit is a sum over parts, and
    # each part by itself looks the same in both kinds of sets. A hidden layer of this width can.
    discriminator_hidden: int = 0
    reverse_gradient: bool = False  # a min-max game for L_adv, which the paper does not describe
    per_class: int = 4  # images of each class in a batch, so that there are triplets
    # 3.2, stage 2
    tau: float = 0.95  # FilterNet's probability from which a candidate is kept
    hard_negatives: int = 200  # per class; 150 on CUB and DeepFashion; Fig. 4
    max_attempts: int = 100_000  # candidates of a class after which it goes with fewer
    # 3.3, stage 3
    extractors: str = "finetuned"  # finetuned (n⁺ recomputed every epoch) | frozen (cached)
    embedding: int = 512  # width of the layer that frozen features pass
    m1: float = 0.4  # Eq. 9, between unit vectors; the paper gives none
    m2: float = 0.2
    lambda_parts: float = 0.75  # Eq. 10
    lambda_original: float = 0.8
    lambda_object: float = 0.8
    object_windows: str = "found"  # found | annotated (Table 6, "w/ BB")
    # Eq. 11
    fusion: str = "held_out"  # weights by search on held-out images | preset | test (labelled so)
    fusion_original: float = 0.4  # a, b, c of `preset`: FGVC-Aircraft's
    fusion_object: float = 0.4
    fusion_parts: float = 0.2
    # stages
    part_networks: Training = dataclasses.field(default_factory=lambda: Training(epochs=300))
    filter: Training = dataclasses.field(default_factory=lambda: Training(epochs=200))
    parts_classifier: Training = dataclasses.field(default_factory=lambda: Training(epochs=200))
    image_classifiers: Training = dataclasses.field(default_factory=lambda: Training(epochs=200))

    @property
    def preset(self) -> tuple[float, float, float]:
        """a, b, c of Eq. 11: original, object, parts."""
        return self.fusion_original, self.fusion_object, self.fusion_parts

    def validate(self) -> None:
        """Refuse what cannot work."""
        super().validate()
        one_of("extractors", self.extractors, "finetuned", "frozen")
        one_of("object_windows", self.object_windows, "found", "annotated")
        one_of("fusion", self.fusion, "held_out", "preset", "test")
        for name in ("alpha", "beta", "gamma", "margin", "hard_negatives", "discriminator_hidden"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("lambda_parts", "lambda_original", "lambda_object"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        require(0 <= self.tau <= 1, "tau", self.tau, "in [0, 1]")
        require(self.max_attempts >= 1, "max_attempts", self.max_attempts, "at least 1")
        require(self.part_image_size >= 16, "part_image_size", self.part_image_size, "at least 16")
        require(self.per_class >= 2, "per_class", self.per_class, "at least 2: triplets need two")
        require(0 < self.m2 < self.m1, "m1", self.m1, f"above m2 = {self.m2}, and m2 above 0")
        total = sum(self.preset)
        fine = min(self.preset) >= 0 and abs(total - 1) < 1e-6
        require(fine, "fusion_original", self.fusion_original,
                "0 or more like the other two, and the three must sum to 1")  # fmt: skip
        for name in ("part_networks", "parts_classifier", "image_classifiers"):
            size = getattr(self, name).batch_size
            require(size >= 2 * self.per_class and size % self.per_class == 0,
                    f"{name}.batch_size", size, f"a multiple of per_class = {self.per_class} "
                    "with at least two classes")  # fmt: skip


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the final metrics and what is particular to their protocol."""
    config: Config = run.config.method
    _check(run, config)
    stages = train(run, config)
    protocol = {
        "boxes_used": config.objects == "annotated" or config.object_windows == "annotated",
        "parts_used": config.parts == "annotated",
        "extractors": config.extractors,
        "fusion_weights_from": {
            "held_out": "a search on the held-out training images",
            "preset": "the config",
            "test": "A SEARCH ON THE TEST SPLIT: the fused accuracies are test-tuned",
        }[config.fusion],
        "test_split_used_for_selection": config.fusion == "test",
    }
    made = stages["hard_negatives"].metrics
    made.pop("seconds_per_kept_sample")  # results.json is the same whenever the numbers are
    localization = {**stages["objects"].metrics, **stages["parts"].metrics}
    return {
        "metrics": {**stages["fusion"].metrics, "generation": made, "localization": localization},
        "protocol": protocol,
    }


def train(run: Run, config: Config) -> dict[str, Stage]:
    """All stages by name: those that have finished are found, the others trained."""
    classifier, objects, parts = localize(run, config)
    networks = train_part_networks(run, config, classifier, objects, parts)
    hard = enrich(run, config, networks)
    classifiers = {
        "original": train_original_classifier(run, config, classifier),
        "object": train_object_classifier(run, config, classifier, objects),
        "parts": train_parts_classifier(run, config, networks, hard, objects, parts),
    }
    fuse_scores(run, classifiers, weights_from=config.fusion, preset=config.preset)
    return run.stages


def _check(run: Run, config: Config) -> None:
    if run.dataset.num_classes < 2:
        raise UserError(
            f"GHNS makes negatives of other classes, but {run.dataset.name} has one class only."
        )
    if config.fusion == "held_out" and not len(run.held_out_indices):
        raise UserError(
            "config.method.fusion=held_out searches the weights on held-out images, but none are "
            "held out: set config.data.held_out above 0 or config.method.fusion=preset."
        )


def part_readers(
    run: Run, config: Config, objects: Stage, parts: Stage
) -> tuple[PartReader, PartReader]:
    """Readers of the part images of both splits."""
    return tuple(PartReader(r, config.part_image_size) for r in crops(run, objects, parts))


def part_count(run: Run, config: Config) -> int:
    """How many parts there are; three in the paper."""
    annotated_parts = config.parts == "annotated"
    return len(run.dataset.part_names) if annotated_parts else config.grouping.num_parts


def class_batches(run: Run, config: Config, training: Training, name: str) -> ClassBatches:
    """Batches of P classes with K images each."""
    labels, seed = run.dataset.train.labels, run.seed(name)
    return ClassBatches(labels, run.train_indices, training.batch_size, config.per_class, seed)


# Section 3.1, stage 1: features of each part


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
        outputs = model(models.normalize(batch["image"]), key=key)
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
             "per_class", "part_image_size")  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    training = config.part_networks
    stage = run.stage("part_networks", training, after=(classifier, objects, parts), **settings)
    if stage.done:
        return stage
    train, test = part_readers(run, config, objects, parts)
    count = part_count(run, config)
    backbones = [starting_model(run, classifier) for _ in range(count)]
    model = build_part_networks(run, config, backbones)
    donors = Donors(run.dataset.train.labels, run.train_indices)
    sets = PartSets(train, donors, run.seed("part_networks"))
    run.train(
        stage,
        model,
        PartLoss(config.alpha, config.beta, config.gamma, config.margin),
        class_stream(class_batches(run, config, training, "part_networks"), sets),
        training,
        images_per_example=count,
    )
    checkpoints.save_model(stage.folder, model)
    found = {
        name: features_of(model, reader, batch_size=training.batch_size)
        for name, reader in (("train", train), ("test", test))
    }
    stage.save_arrays("features", **{name: arrays["features"] for name, arrays in found.items()})
    labels, held = run.dataset.train.labels, run.held_out_indices
    metrics = {"test_top1": _top1(mean_logits(found["test"]["logits"]), run.dataset.test.labels)}
    if len(held):
        logits = mean_logits(found["train"]["logits"][held])
        metrics["held_out_top1"] = _top1(logits, labels[held])
    stage.finish(metrics)
    return stage


def _top1(logits: np.ndarray, labels: np.ndarray) -> float:
    return classification.classification_metrics(logits, labels)["top1"]


def load_part_networks(run: Run, config: Config, stage: Stage) -> PartNetworks:
    """The three networks as stage 1 left them."""
    backbones = [run.build_model(pretrained=False) for _ in range(part_count(run, config))]
    model = build_part_networks(run, config, backbones)
    checkpoints.restore_model(stage.folder, model)
    model.eval()
    return model


# Section 3.2, stage 2: enriching refined hard negative samples


def enrich(run: Run, config: Config, networks: Stage) -> Stage:
    """FilterNet on the frozen extractors, and the candidates that pass it."""
    filter_net = filtering.train_filter(run, config.filter, networks)
    return filtering.make_hard_negatives(
        run,
        networks,
        filter_net,
        tau=config.tau,
        wanted=config.hard_negatives,
        max_attempts=config.max_attempts,
    )


# Section 3.3, stage 3: final prediction


@dataclasses.dataclass(frozen=True)
class PartsLoss:
    """L_parts = λ L_cls + (1 − λ) L_quad (Eq. 10).

    p and n are drawn from the reference's batch, n⁺ from its recipes. A reference without any n⁺
    falls back to the triplet (r, p, n).
    """

    lambda_: float
    m1: float
    m2: float
    margin: float

    def __call__(self, model: PartsHead | PartsClassifier, batch, statistics, key):
        """The loss of a batch of references."""
        cached = "features" in batch
        head = model if cached else model.head
        features = batch["features"] if cached else model.features(batch, key)
        if cached:
            hard = batch["hard"]
        else:  # recomputed before every epoch, a constant in the step
            hard = statistics["features"][batch["hard_rows"], jnp.arange(features.shape[1])]
        reference = normalize(head.embed(features))
        hard = normalize(head.embed(hard))
        logits, labels = head(features), batch["label"]
        positive, negative = (reference[rows] for rows in draw_pairs(key, labels))
        quadruplet = losses.quadruplet_loss(
            reference, positive, hard, negative, m1=self.m1, m2=self.m2
        )
        triplet = losses.triplet_loss(reference, positive, negative, margin=self.margin)
        metric_loss = jnp.mean(jnp.where(batch["has_hard"] > 0, quadruplet, triplet))
        entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        loss = self.lambda_ * entropy + (1 - self.lambda_) * metric_loss
        has = batch["has_hard"]
        far = lambda x: jnp.linalg.norm(reference - x, axis=-1)  # noqa: E731
        return loss, {
            "classification_loss": entropy,
            "quadruplet_loss": masked_mean(quadruplet, has),
            "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
            "positive_distance": jnp.mean(far(positive)),
            "hard_negative_distance": masked_mean(far(hard), has),
            "negative_distance": jnp.mean(far(negative)),
        }


def draw_pairs(key: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For every row of a batch another row of its class, and one of another class: [B], [B]."""
    same = labels[:, None] == labels[None]
    choices = (same & ~jnp.eye(len(labels), dtype=bool), ~same)
    return tuple(
        jax.random.categorical(k, jnp.where(allowed, 0.0, -jnp.inf))
        for k, allowed in zip(jax.random.split(key), choices)
    )


def train_parts_classifier(
    run: Run, config: Config, networks: Stage, hard: Stage, objects: Stage, parts: Stage
) -> Stage:
    """The parts image classifier, on frozen features or with its three extractors."""
    names = ("extractors", "embedding", "m1", "m2", "margin", "lambda_parts", "per_class")
    settings = {name: getattr(config, name) for name in names}
    training, frozen = config.parts_classifier, config.extractors == "frozen"
    stage = run.stage("parts_classifier", training, after=(networks, hard), **settings)
    if stage.done:
        return stage
    train, test = part_readers(run, config, objects, parts)
    features, labels = networks.load_arrays("features")["train"], run.dataset.train.labels
    model = build_parts_classifier(run, config, networks)
    kept, seed = filtering.load_kept(hard), run.seed("parts_classifier")
    source = {"features": features} if frozen else {"reader": train}
    size = training.batch_size

    def recompute(model: PartsClassifier, epoch: int, key) -> dict[str, np.ndarray]:
        current = features_of(model.networks, train, batch_size=size, rows=run.train_indices)
        return {"features": current["features"]}

    run.train(
        stage,
        model.head if frozen else model,
        PartsLoss(config.lambda_parts, config.m1, config.m2, config.margin),
        class_stream(
            class_batches(run, config, training, "parts_classifier"),
            Quadruplets(kept, labels, seed, **source),
        ),
        training,
        before_epoch=None if frozen else recompute,
    )
    checkpoints.save_model(stage.folder, model)

    def logits(reader: PartReader, rows: np.ndarray) -> np.ndarray:
        found = classification.iterate(
            model, reader, rows, batch_size=size, outputs_of=parts_logits
        )
        return np.concatenate([outputs["logits"] for outputs, _ in found])

    save_scores(run, stage, held_out=lambda rows: logits(train, rows),
                test=lambda rows: logits(test, rows))  # fmt: skip
    return stage


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
    return PartsClassifier(extractors, head)


def train_original_classifier(run: Run, config: Config, classifier: Stage) -> Stage:
    """The original image classifier: whole images."""
    return train_image_classifier(
        run,
        "original_classifier",
        config.image_classifiers,
        lambda: starting_model(run, classifier),
        whole_images(run),
        lambda_=config.lambda_original,
        margin=config.margin,
        per_class=config.per_class,
        after=(classifier,),
    )


def train_object_classifier(run: Run, config: Config, classifier: Stage, objects: Stage) -> Stage:
    """The object image classifier: what CAM found, or the annotated boxes."""
    readers = crops(run, objects, None)
    if config.object_windows == "annotated":
        readers = tuple(
            dataclasses.replace(r, windows=annotated(r.split, run.dataset.name)) for r in readers
        )
    return train_image_classifier(
        run,
        "object_classifier",
        config.image_classifiers,
        lambda: starting_model(run, classifier),
        readers,
        lambda_=config.lambda_object,
        margin=config.margin,
        per_class=config.per_class,
        after=(classifier, objects),
        object_windows=config.object_windows,
    )


def load_predictor(run: Run) -> FusedPredictor:
    """For images from anywhere: the object's box, its parts, and the fused probabilities.

    Raises:
      UserError: the run was trained on annotated parts.
    """
    config: Config = run.config.method
    if config.parts == "annotated":
        raise UserError(
            f"{run.workdir} was trained on annotated parts, which new images do not have: train "
            "with config.method.parts=grouping to predict."
        )
    stages = train(run, config)
    model = build_parts_classifier(run, config, stages["part_networks"])
    checkpoints.restore_model(stages["parts_classifier"].folder, model)
    model.eval()
    return FusedPredictor(
        run,
        Localizer(run, config, stages["classifier"], stages["parts"]),
        run.load_model(stages["original_classifier"]),
        run.load_model(stages["object_classifier"]),
        model,
        part_image_size=config.part_image_size,
        weights=stages["fusion"].load_arrays("predictions")["weights"],
    )
