"""CCFR: coarse classification and fine re-ranking (Yang, Liu, Yang, Wang).

Read top to bottom as the paper's section 3:

  classifier    cross-entropy; its features tell which classes look alike
  hierarchy     k-means on the classes' mean features: super-classes       3.1, Fig. 3
  pretrain      the multi-level loss over classes and super-classes        Eq. 1-4
  navigator     a feature pyramid that proposes regions, by NTS-Net's loss 3.2
  enhance       regions fused with the image: x; softmax and triplets      Eq. 5-7
  rerank        unsure images are decided by their neighbours' x           Eq. 8, 9

`beside_nts` also trains NTS-Net's way of choosing regions, for the pictures (Fig. 4).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.config import Training, require
from fgjax.data import loading
from fgjax.data.sampling import ClassBatches, class_stream
from fgjax.errors import UserError
from fgjax.evaluation import classification
from fgjax.evaluation.rerank import Thresholds
from fgjax.methods.stages.classifier import (
    evaluator_on,
    starting_model,
    train_classifier,
    whole_images,
)
from fgjax.methods.stages.hierarchy import build_hierarchy, super_class_count
from fgjax.methods.stages.region_features import (
    RerankingPredictor,
    finish_with_features,
    outputs_on,
    unit_features,
)
from fgjax.methods.stages.region_network import RegionNetwork, Regions, grids_of
from fgjax.methods.stages.reranking import Reranking, rerank_stage
from fgjax.models import layers
from fgjax.training import checkpoints
from fgjax.training.fit import dtype_of
from fgjax.training.run import Run, Stage


@dataclasses.dataclass
class Config:
    """Hyper-parameters; the paper's values are section 4.2's."""

    # 3.1
    multi_level: bool = True  # otherwise cross-entropy just as long; Table 3
    super_classes: int = 0  # C_f; 0: a fifth of the classes. Fig. 3 shows four in one
    parent_weight: float = 1.0  # λ of Eq. 4
    # 3.2
    regions: bool = True  # otherwise x is the image's feature alone; Table 3
    scales: tuple[float, ...] = (96 / 448, 192 / 448)  # sides of the boxes, shares of the image
    per_scale: int = 2  # regions that are fused
    ranked_per_scale: int = 3  # regions that the ranking loss compares; NTS-Net compares 6 in all
    crop_size: int = 224
    iou_threshold: float = 0.25
    scale_separated: bool = True  # otherwise all boxes in one suppression; Table 3
    fusion: bool = True  # otherwise the pooled features side by side; Table 3
    pyramid_width: int = 256
    # First epochs of `navigator` that look at random regions. A network from scratch is surest
    # where there is nothing to see, and would never look elsewhere; ImageNet's weights need none.
    explore_epochs: int = 0
    frozen: bool = False  # keep the pyramid as `navigator` left it
    margin: float = 0.2  # a of Eq. 5; the paper gives none
    mu: float = 1.0  # Eq. 7
    per_class: int = 4  # images of each class in a batch, so that there are triplets
    beside_nts: bool = False  # train NTS-Net's regions as well, and draw both
    # 3.3
    rerank: Reranking = dataclasses.field(default_factory=Reranking)
    # stages
    classifier: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    pretrain: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    navigator: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    enhance: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))

    def validate(self) -> None:
        """Refuse what cannot work."""
        checks = (
            ("super_classes", self.super_classes >= 0, "0 or more"),
            ("scales", bool(self.scales) and all(0 < s <= 1 for s in self.scales),
             "shares of the image, above 0 and at most 1"),
            ("per_scale", self.per_scale >= 1, "at least 1"),
            ("ranked_per_scale", self.ranked_per_scale >= self.per_scale,
             f"at least per_scale = {self.per_scale}"),
            ("crop_size", self.crop_size >= 16, "at least 16"),
            ("pyramid_width", self.pyramid_width >= 1, "at least 1"),
            ("iou_threshold", 0 < self.iou_threshold <= 1, "above 0 and at most 1"),
            ("fusion", self.scale_separated or not self.fusion,
             "False without scale_separated: the fusion network takes each scale's regions"),
            ("explore_epochs", self.explore_epochs >= 0, "0 or more"),
            ("margin", self.margin >= 0, "0 or more"),
            ("mu", self.mu >= 0, "0 or more"),
            ("parent_weight", self.parent_weight >= 0, "0 or more"),
            ("per_class", self.per_class >= 2, "at least 2: triplets need two"),
        )  # fmt: skip
        for field, fine, wanted in checks:
            require(fine, field, getattr(self, field), wanted)
        size = self.enhance.batch_size
        fits = size >= 2 * self.per_class and size % self.per_class == 0
        wanted = f"a multiple of per_class = {self.per_class} with at least two classes"
        require(fits, "enhance.batch_size", size, wanted)
        self.rerank.validate()


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the final metrics and what is particular to their protocol."""
    config: Config = run.config.method
    _check(run, config)
    stages = train(run, config)
    names = ("pretrain", "navigator", "enhance", "nts")
    further = {name: stages[name].metrics for name in names if name in stages}
    return {
        "metrics": {
            **stages["rerank"].metrics,
            "global_top1": further["pretrain"]["top1"],
            "stages": further,
        },
        "protocol": {
            "boxes_used": False,
            "database": f"all {len(run.dataset.train)} training images",
            "thresholds_from": {
                "held_out": "a search on the held-out training images",
                "auto": "T_sf: mean top-1 probability of the held-out training images",
                "preset": "the config",
                "test": "A SEARCH ON THE TEST SPLIT: the re-ranked accuracy is test-tuned",
            }[config.rerank.thresholds],
            "test_split_used_for_selection": config.rerank.thresholds == "test",
        },
    }


def train(run: Run, config: Config) -> dict[str, Stage]:
    """All stages by name: those that have finished are found, the others trained."""
    classifier = train_classifier(run, config.classifier)
    pretrained = pretrain(run, config, classifier)
    features = pretrained
    if config.regions:
        navigator = train_navigator(run, config, pretrained)
        features = enhance(run, config, pretrained, navigator)
        if config.beside_nts:
            train_navigator(run, nts_of(config), pretrained, name="nts")
    rerank_stage(run, config.rerank, features)
    return run.stages


def _check(run: Run, config: Config) -> None:
    """What depends on the dataset, said before anything is trained."""
    classes, images = run.dataset.num_classes, len(run.train_indices)
    settings = config.rerank
    count = super_class_count(config.super_classes, classes)
    for field, value, most, what in (
        ("super_classes", count, classes, "classes"),
        ("rerank.top_n", settings.top_n, classes, "classes"),
        ("rerank.top_m", settings.top_m, images, "images of the database"),
    ):
        if value > most:
            raise UserError(
                f"config.method.{field} is {value}, but {run.dataset.name} has only {most} {what}: "
                f"set it to {most} or less."
            )
    if settings.thresholds in ("held_out", "auto") and not len(run.held_out_indices):
        raise UserError(
            f"config.method.rerank.thresholds={settings.thresholds} looks at held-out images, but "
            "none are held out: set config.data.held_out above 0 or rerank.thresholds=preset."
        )
    if not config.regions:
        return
    regions = regions_of(run, config, nnx.eval_shape(lambda: run.build_model(pretrained=False)))
    least = min(regions.grids) ** 2
    if config.ranked_per_scale > least:
        raise UserError(
            f"config.method.ranked_per_scale is {config.ranked_per_scale}, but the pyramid's "
            f"smallest level has {least} anchors: ask for fewer regions or larger images."
        )


# Section 3.1: multi-level loss for effective global features


class MultiLevelNetwork(nnx.Module):
    """A backbone and a second classifier, of super-classes."""

    def __init__(self, backbone: models.Backbone, super_classes: int, *, rngs: nnx.Rngs):
        self.backbone = backbone
        self.parent_fc = layers.Linear(backbone.features, super_classes, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs and `parent_logits`; `features` are the pooled ones."""
        outputs = self.backbone(images, key=key)
        pooled = outputs["pooled"]
        return {**outputs, "features": pooled, "parent_logits": self.parent_fc(pooled)}


@dataclasses.dataclass(frozen=True)
class GlobalLoss:
    """ℓ₁ + λ ℓ₂ + ℓ_h (Eq. 4); ℓ₁ alone without parents."""

    parents: tuple[int, ...]
    parent_weight: float

    def __call__(self, model: MultiLevelNetwork, batch, statistics, key):
        """The loss of a batch of single images."""
        del statistics
        outputs, labels = model(models.normalize(batch["image"]), key=key), batch["label"]
        logits = outputs["logits"]
        metrics = {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels)}
        if not self.parents:
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(each), metrics
        parents = np.array(self.parents, np.int32)
        coarse = outputs["parent_logits"]
        each = losses.multi_level_loss(
            logits, coarse, labels, parents, parent_weight=self.parent_weight
        )
        own = jnp.asarray(parents)[labels]
        metrics["super_class_accuracy"] = jnp.mean(jnp.argmax(coarse, axis=-1) == own)
        return jnp.mean(each), metrics


def build_multi_level(run: Run, config: Config, backbone: models.Backbone) -> MultiLevelNetwork:
    """The network around its backbone."""
    count = super_class_count(config.super_classes, run.dataset.num_classes)
    return MultiLevelNetwork(backbone, count, rngs=nnx.Rngs(run.key("pretrain")))


def pretrain(run: Run, config: Config, classifier: Stage) -> Stage:
    """Stage `pretrain`; leaves the artifact `features`, as `enhance` does."""
    training, parents, before = config.pretrain, (), (classifier,)
    if config.multi_level:
        hierarchy = build_hierarchy(
            run, classifier, super_classes=config.super_classes, batch_size=training.batch_size
        )
        parents = tuple(hierarchy.load_arrays("hierarchy")["parents"].tolist())
        before += (hierarchy,)
    stage = run.stage("pretrain", training, after=before, parent_weight=config.parent_weight,
                      multi_level=config.multi_level)  # fmt: skip
    if stage.done:
        return stage
    model = build_multi_level(run, config, starting_model(run, classifier))
    train, _ = whole_images(run)
    run.train(
        stage,
        model,
        GlobalLoss(parents, config.parent_weight),
        loading.training_stream(train, run.train_indices, seed=run.seed("pretrain")),
        training,
        evaluator=evaluator_on(run, train, training.batch_size),
    )
    finish_with_features(run, stage, model, training.batch_size)
    return stage


# Section 3.2: discriminative regions


def regions_of(run: Run, config: Config, backbone: models.Backbone) -> Regions:
    """The anchors and how they are chosen."""
    grids = grids_of(backbone, run.config.data.image_size, len(config.scales))
    names = ("scales", "per_scale", "ranked_per_scale", "crop_size", "iou_threshold",
             "scale_separated")  # fmt: skip
    return Regions(grids=grids, **{name: getattr(config, name) for name in names})


def build_network(run: Run, config: Config, backbone: models.Backbone) -> RegionNetwork:
    """The whole network around its backbone."""
    return RegionNetwork(
        backbone,
        regions_of(run, config, backbone),
        fusion=config.fusion,
        width=config.pyramid_width,
        dtype=dtype_of(run.config.dtype),
        rngs=nnx.Rngs(run.key("navigator")),
    )


def load_network(run: Run, config: Config, stage: Stage) -> RegionNetwork:
    """The network as a finished stage left it."""
    model = build_network(run, config, run.build_model(pretrained=False))
    checkpoints.restore_model(stage.folder, model)
    model.eval()
    return model


def without_fusion(config: Config) -> Config:
    """The network of `navigator`, whose loss knows regions one by one."""
    return dataclasses.replace(config, fusion=False)


def nts_of(config: Config) -> Config:
    """NTS-Net's regions: the ranking loss alone, all boxes in one suppression."""
    return dataclasses.replace(config, scale_separated=False, fusion=False)


@dataclasses.dataclass(frozen=True)
class RegionLoss:
    """Image and region cross-entropy and the ranking loss (NTS-Net); with x, Eq. 7 as well.

    NTS-Net's teacher is the regions' own classifier, so it goes wherever the ranking loss goes:
    in `enhance` the extractor moves on, and the proposals follow it. `ranked=False` (a frozen
    pyramid) leaves Eq. 7 and the image's cross-entropy.
    """

    enhanced: bool
    ranked: bool = True
    mu: float = 1.0
    margin: float = 0.2

    def __call__(self, model: RegionNetwork, batch, statistics, key):
        """The loss of a batch of single images, for Eq. 7 with several of each class."""
        labels, images = batch["label"], models.normalize(batch["image"])
        outputs = model(images, key=key, ranked=self.ranked, explore=statistics.get("explore"))
        entropy = optax.softmax_cross_entropy_with_integer_labels
        loss = jnp.mean(entropy(outputs["global_logits"], labels))
        hits = lambda logits, own: jnp.mean(jnp.argmax(logits, axis=-1) == own)  # noqa: E731
        metrics = {"global_loss": loss, "accuracy": hits(outputs["global_logits"], labels)}
        if self.ranked:
            parts = entropy(outputs["part_logits"], labels[:, None])  # [B, R]
            ranking = jnp.mean(losses.ranking_loss(outputs["proposed"], parts))
            loss = loss + jnp.mean(parts) + ranking
            metrics |= {
                "part_loss": jnp.mean(parts),
                "ranking_loss": ranking,
                "part_accuracy": hits(outputs["part_logits"], labels[:, None]),
            }
        if self.enhanced:
            softmax = jnp.mean(entropy(outputs["logits"], labels))
            triplet = losses.batch_hard_cosine_triplet_loss(
                outputs["features"], labels, margin=self.margin
            )
            loss = loss + softmax + self.mu * triplet  # Eq. 7
            metrics |= {
                "softmax_loss": softmax,
                "triplet_loss": triplet,
                "accuracy": hits(outputs["logits"], labels),
            }
        return loss, metrics


REGION_FIELDS = ("scales", "per_scale", "ranked_per_scale", "crop_size", "iou_threshold",
                 "scale_separated", "pyramid_width", "explore_epochs")  # fmt: skip


def train_navigator(
    run: Run, config: Config, pretrained: Stage, *, name: str = "navigator"
) -> Stage:
    """Stage `navigator`: proposals by NTS-Net's loss; leaves the artifact `regions` of test."""
    training = config.navigator
    settings = {field: getattr(config, field) for field in REGION_FIELDS}
    stage = run.stage(name, training, after=(pretrained,), **settings)
    if stage.done:
        return stage
    start = build_multi_level(run, config, run.build_model(pretrained=False))
    checkpoints.restore_model(pretrained.folder, start)
    model = build_network(run, without_fusion(config), start.backbone)
    train, test = whole_images(run)
    run.train(
        stage,
        model,
        RegionLoss(enhanced=False),
        loading.training_stream(train, run.train_indices, seed=run.seed("navigator")),
        training,
        name="navigator",
        before_epoch=lambda model, epoch, key: {
            "explore": jnp.asarray(epoch < config.explore_epochs)
        },
    )
    checkpoints.save_model(stage.folder, model)
    found = outputs_on(model, test, np.arange(len(run.dataset.test)), training.batch_size)
    labels = run.dataset.test.labels
    stage.save_arrays("regions", boxes=found["boxes"], scores=found["proposed"])
    stage.finish({
        "global_top1": float(np.mean(found["global_logits"].argmax(1) == labels)),
        "part_top1": float(np.mean(found["part_logits"].argmax(-1) == labels[:, None])),
    })  # fmt: skip
    return stage


def enhance(run: Run, config: Config, pretrained: Stage, navigator: Stage) -> Stage:
    """Stage `enhance`: x by softmax and triplets; leaves `features` and the `regions` of test."""
    training, seed = config.enhance, run.seed("enhance")
    stage = run.stage("enhance", training, after=(pretrained, navigator), mu=config.mu,
                      margin=config.margin, per_class=config.per_class,
                      frozen=config.frozen, fusion=config.fusion)  # fmt: skip
    if stage.done:
        return stage
    found = load_network(run, without_fusion(config), navigator)
    model = build_network(run, config, found.backbone)
    model.pyramid, model.part_fc = found.pyramid, found.part_fc
    model.region_statistics = found.region_statistics
    train, _ = whole_images(run)
    chosen = ClassBatches(
        run.dataset.train.labels, run.train_indices, training.batch_size, config.per_class, seed
    )
    trainable = nnx.Param
    if config.frozen:
        trainable = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("pyramid")))
    run.train(
        stage,
        model,
        RegionLoss(enhanced=True, ranked=not config.frozen, mu=config.mu, margin=config.margin),
        class_stream(chosen, loading.SingleImage(train, seed)),
        training,
        trainable=trainable,
        evaluator=evaluator_on(run, train, training.batch_size),
    )
    finish_with_features(run, stage, model, training.batch_size)
    return stage


# Section 3.3: re-ranking new images


def load_final(run: Run) -> tuple[nnx.Module, Stage]:
    """The network that makes x, and the stage that it came from."""
    config: Config = run.config.method
    stages = train(run, config)
    if config.regions:
        return load_network(run, config, stages["enhance"]), stages["enhance"]
    model = build_multi_level(run, config, run.build_model(pretrained=False))
    checkpoints.restore_model(stages["pretrain"].folder, model)
    model.eval()
    return model, stages["pretrain"]


def load_predictor(run: Run) -> RerankingPredictor:
    """Classes and regions of images from anywhere."""
    model, stage = load_final(run)
    measured = run.stages["rerank"].metrics
    chosen = Thresholds(*(measured[name] for name in Thresholds._fields))
    return RerankingPredictor(run, model, stage.load_arrays("features")["train"], chosen)


def load_embedder(run: Run):
    """`images -> unit x [N, D]` for `fgjax.search`."""
    model, _ = load_final(run)
    return lambda images: np.asarray(
        classification.forward(model, unit_features, {"image": images})["embedding"]
    )
