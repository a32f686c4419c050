"""CCFR section 3.2: regions found by the ranking loss, fused with the image to x (Eq. 5-7)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.config import Training
from fgjax.data import loading
from fgjax.data.loading import Reader
from fgjax.data.sampling import ClassBatches, class_stream
from fgjax.evaluation.classification import classification_metrics
from fgjax.localization import boxes as boxlib
from fgjax.methods.ccfr.config import Config
from fgjax.methods.ccfr.global_features import build_multi_level
from fgjax.methods.ccfr.region_features import all_outputs, finish_with_features
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions, grids_of, shapes_of
from fgjax.methods.shared import fixed_parts
from fgjax.methods.shared.classifier import whole_images
from fgjax.training.fit import dtype_of
from fgjax.training.run import Run, Stage


def regions_of(run: Run, config: Config, backbone: models.Backbone) -> Regions:
    """The anchors and how they are chosen."""
    size, maps = run.config.data.image_size, config.pyramid_maps
    grids = grids_of(backbone, size, len(config.scales), maps=maps)
    names = ("scales", "per_scale", "ranked_per_scale", "crop_size", "iou_threshold",
             "scale_separated")  # fmt: skip
    values = {name: getattr(config, name) for name in names}
    return Regions(grids=grids, source=config.boxes, **values)


def build_network(run: Run, config: Config, backbone: models.Backbone) -> RegionNetwork:
    """The whole network around its backbone."""
    maps = shapes_of(backbone, run.config.data.image_size, config.pyramid_maps)
    return RegionNetwork(
        backbone,
        regions_of(run, config, backbone),
        fusion=config.fusion,
        fusion_norm=config.fusion_norm,
        width=config.pyramid_width,
        dtype=dtype_of(run.config.dtype),
        map_channels=tuple(shape[-1] for shape in maps),
        rngs=nnx.Rngs(run.key("navigator")),
    )


def load_network(run: Run, config: Config, stage: Stage) -> RegionNetwork:
    """The network as a finished stage left it."""
    model = build_network(run, config, run.build_model(pretrained=False))
    stage.restore_model(model)
    return model


def readers(run: Run, config: Config) -> tuple[Reader, Reader]:
    """Readers of the whole training and test images; with their parts, where regions need them."""
    if config.boxes != "annotated":
        return whole_images(run)

    def marked(reader: Reader) -> Reader:
        whole = np.broadcast_to(boxlib.WHOLE, (len(reader.split), 4))
        half = min(config.scales) / 2
        parts = fixed_parts.annotated(run.dataset, reader.split, whole, half)
        return dataclasses.replace(reader, parts=parts.astype(np.float32))

    train, test = whole_images(run)
    return marked(train), marked(test)


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
    pyramid) leaves Eq. 7 and the image's cross-entropy. `region_weight` weighs what is not in
    Eq. 7, beside it. `concat` is NTS-Net's cross-entropy of x before there is Eq. 7. With
    `ranked_by="triplet"` the teacher is each region's triplet loss among the regions of its place
    in the ranking, which trains nothing else.
    """

    enhanced: bool
    ranked: bool = True
    mu: float = 1.0
    margin: float = 0.2
    region_weight: float = 1.0
    concat: bool = False
    ranked_by: str = "cross_entropy"

    def __call__(self, model: RegionNetwork, batch, statistics, key):
        """The loss of a batch of single images, for Eq. 7 with several of each class."""
        labels, explore = batch["label"], statistics.get("explore")
        outputs = model(
            batch["image"], key=key, ranked=self.ranked, explore=explore, parts=batch.get("parts")
        )
        entropy = optax.softmax_cross_entropy_with_integer_labels
        loss = jnp.mean(entropy(outputs["global_logits"], labels))
        hits = lambda logits, own: jnp.mean(jnp.argmax(logits, axis=-1) == own)  # noqa: E731
        metrics = {"global_loss": loss, "accuracy": hits(outputs["global_logits"], labels)}
        if self.ranked:
            parts = entropy(outputs["part_logits"], labels[:, None])  # [B, R]
            teacher = self._teacher(outputs, parts, labels)
            ranking = jnp.mean(losses.ranking_loss(outputs["proposed"], teacher))
            loss = loss + jnp.mean(parts) + ranking
            metrics |= {
                "part_loss": jnp.mean(parts),
                "ranking_loss": ranking,
                "part_accuracy": hits(outputs["part_logits"], labels[:, None]),
            }
        if self.concat:
            concat = jnp.mean(entropy(outputs["logits"], labels))
            loss = loss + concat
            metrics |= {"concat_loss": concat, "accuracy": hits(outputs["logits"], labels)}
        if self.enhanced:
            softmax = jnp.mean(entropy(outputs["logits"], labels))
            triplet = losses.batch_hard_cosine_triplet_loss(
                outputs["features"], labels, margin=self.margin
            )
            loss = self.region_weight * loss + softmax + self.mu * triplet  # Eq. 7
            metrics |= {
                "softmax_loss": softmax,
                "triplet_loss": triplet,
                "accuracy": hits(outputs["logits"], labels),
            }
        return loss, metrics

    def _teacher(self, outputs, entropies, labels):
        """[B, R]: the smaller, the higher a region's score should be."""
        if self.ranked_by == "cross_entropy":
            return entropies
        each = lambda x: losses.batch_hard_cosine_triplets(x, labels, margin=self.margin)  # noqa: E731
        return jax.vmap(each, in_axes=1, out_axes=1)(outputs["part_features"])


REGION_FIELDS = ("scales", "per_scale", "ranked_per_scale", "crop_size", "iou_threshold", "boxes",
                 "scale_separated", "pyramid_width", "explore_epochs", "concat_loss",
                 "pyramid_maps", "ranked_by")  # fmt: skip


def train_navigator(
    run: Run, config: Config, pretrained: Stage, *, name: str = "navigator"
) -> Stage:
    """Stage `navigator`: proposals by NTS-Net's loss; leaves the artifact `regions` of test."""
    training = config.navigator
    settings = {field: getattr(config, field) for field in REGION_FIELDS}
    if config.ranked_by == "triplet":
        settings |= {"margin": config.margin, "per_class": config.per_class}
    stage = run.stage(name, training, after=(pretrained,), revision=2, **settings)
    if stage.done:
        return stage
    start = build_multi_level(run, config, run.build_model(pretrained=False))
    pretrained.restore_model(start)
    model = build_network(run, without_fusion(config), start.backbone)
    if config.concat_loss:
        model.start_at_image()
    train, test = readers(run, config)
    seed = run.seed("navigator")
    stream = loading.training_stream(train, run.train_indices, seed=seed)
    if config.ranked_by == "triplet":  # which needs several of each class
        stream = _of_classes(run, config, training, train, seed)
    run.train(
        stage,
        model,
        RegionLoss(
            enhanced=False,
            concat=config.concat_loss,
            margin=config.margin,
            ranked_by=config.ranked_by,
        ),
        stream,
        training,
        name="navigator",
        before_epoch=lambda model, epoch, key: {
            "explore": jnp.asarray(epoch < config.explore_epochs)
        },
    )
    stage.save_model(model)
    labels, rows = run.dataset.test.labels, np.arange(len(run.dataset.test))
    found = run.outputs(model, test, rows, batch_size=training.batch_size, outputs_of=all_outputs)
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
                      margin=config.margin, per_class=config.per_class, revision=2,
                      frozen=config.frozen, fusion=config.fusion,
                      fusion_norm=config.fusion_norm,
                      region_weight=config.region_weight)  # fmt: skip
    if stage.done:
        return stage
    found = load_network(run, without_fusion(config), navigator)
    model = build_network(run, config, found.backbone)
    model.pyramid, model.part_fc = found.pyramid, found.part_fc
    model.region_statistics = found.region_statistics
    model.start_at_image()
    both = readers(run, config)
    trainable = nnx.Param
    if config.frozen:
        trainable = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("pyramid")))
    run.train(
        stage,
        model,
        RegionLoss(
            enhanced=True,
            ranked=not config.frozen,
            mu=config.mu,
            margin=config.margin,
            region_weight=config.region_weight,
            ranked_by=config.ranked_by,
        ),
        _of_classes(run, config, training, both[0], seed),
        training,
        trainable=trainable,
        evaluator=_evaluator(run, both[0], training.batch_size),
    )
    finish_with_features(run, stage, model, training.batch_size, both)
    return stage


def _evaluator(run: Run, reader: Reader, batch_size: int):
    """Top-1 of the held-out images by x, and by the image alone; None without any."""
    rows = run.held_out_indices
    if not len(rows):
        return None
    labels = reader.split.labels[rows]

    def evaluate(model: nnx.Module, epoch: int) -> dict[str, float]:
        del epoch
        found = run.outputs(model, reader, rows, batch_size=batch_size, outputs_of=all_outputs)
        by_image = classification_metrics(found["global_logits"], labels)["top1"]
        metrics = {**classification_metrics(found["logits"], labels), "global_top1": by_image}
        return {f"held_out_{name}": value for name, value in metrics.items()}

    return evaluate


def _of_classes(run: Run, config: Config, training: Training, reader: Reader, seed: int):
    """A stream of single images, several of each class in a batch."""
    labels, rows = run.dataset.train.labels, run.train_indices
    chosen = ClassBatches(labels, rows, training.batch_size, config.per_class, seed)
    return class_stream(chosen, loading.SingleImage(reader, seed))
