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

from typing import Any

import numpy as np
from flax import nnx

from fgjax.errors import UserError
from fgjax.evaluation.rerank import Thresholds
from fgjax.evaluation.retrieval import normalize_rows
from fgjax.methods.ccfr.config import Config
from fgjax.methods.ccfr.global_features import build_multi_level, pretrain
from fgjax.methods.ccfr.hierarchy import super_class_count
from fgjax.methods.ccfr.region_features import RerankingPredictor, all_outputs, unit_features
from fgjax.methods.ccfr.regions import enhance, load_network, nts_of, regions_of, train_navigator
from fgjax.methods.ccfr.reranking import rerank_stage
from fgjax.methods.shared import calibration, fixed_parts
from fgjax.methods.shared.classifier import train_classifier
from fgjax.methods.shared.memory import Memory
from fgjax.methods.shared.predictor import Embedder, network_of
from fgjax.training.run import Run, Stage


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the final metrics and what is particular to their protocol."""
    config: Config = run.config.method
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
            "boxes_used": "parts, also of the test images"
            if config.boxes == "annotated"
            else False,
            **calibration.described(stages["rerank"].metrics),
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
    needed = config.clusters == "classifier"
    classifier = train_classifier(run, config.classifier) if needed else None
    pretrained = pretrain(run, config, classifier)
    features = pretrained
    if config.regions:
        navigator = train_navigator(run, config, pretrained)
        features = enhance(run, config, pretrained, navigator)
        if config.beside_nts:
            train_navigator(run, nts_of(config), pretrained, name="nts")
    rerank_stage(run, config.rerank, features)
    return run.stages


def check(run: Run) -> None:
    """Refuse what does not fit the dataset, before anything is trained."""
    config: Config = run.config.method
    if config.clusters == "imagenet" and not run.config.pretrained:
        raise UserError(
            "config.method.clusters is imagenet, but config.pretrained names no weights: name "
            "them, or set clusters=classifier."
        )
    if config.boxes == "annotated":
        fixed_parts.check("config.method.boxes", run.dataset, "learned, random or grid")
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
    trained = len(np.unique(run.dataset.train.labels[run.train_indices]))
    balanced = ("enhance", "navigator") if config.ranked_by == "triplet" else ("enhance",)
    for field in balanced:
        size, most = getattr(config, field).batch_size, config.per_class * trained
        if size > most:
            raise UserError(
                f"config.method.{field}.batch_size is {size}, but with {config.per_class} images "
                f"of each class the {trained} classes that train give at most {most}: set it to "
                f"{most} or less."
            )


def load_final(run: Run) -> tuple[nnx.Module, Stage]:
    """The network that makes x, and the stage that it came from."""
    config: Config = run.config.method
    stages = train(run, config)
    if config.regions:
        return load_network(run, config, stages["enhance"]), stages["enhance"]
    model = build_multi_level(run, config, run.build_model(pretrained=False))
    stages["pretrain"].restore_model(model)
    return model, stages["pretrain"]


def load_predictor(run: Run) -> RerankingPredictor:
    """Classes and regions of images from anywhere.

    Raises:
      UserError: the regions are annotated ones, which new images do not have.
    """
    _refuse_annotated(run)
    model, stage = load_final(run)
    ranking = run.stages["rerank"]
    measured = ranking.metrics
    chosen = {name: measured[name] for name in Thresholds._fields}
    rows = run.database_indices
    database = normalize_rows(stage.load_arrays("features")["train"][rows])
    database, labels, _ = _memory(run, stage).extended(database, run.dataset.train.labels[rows])
    return RerankingPredictor.of(
        run,
        network=network_of(run, model, all_outputs),
        database=database,
        labels=labels,
        settings={**chosen, **run.config.method.rerank.weights},
        **calibration.of(ranking),
    )


def _refuse_annotated(run: Run) -> None:
    if run.config.method.boxes == "annotated" and run.config.method.regions:
        raise UserError(
            f"{run.workdir} looks at annotated parts, which new images do not have: train with "
            "config.method.boxes=learned to use it on them."
        )


def load_memory(run: Run) -> Memory:
    """What the run may learn without training: further images of its classes, to re-rank by."""
    return _memory(run, load_final(run)[1])


def _memory(run: Run, stage: Stage) -> Memory:
    return Memory.of(run, stage, new_classes=False)


def load_embedder(run: Run) -> Embedder:
    """`images -> unit x [N, D]` for `fgjax.search`."""
    _refuse_annotated(run)
    model, _ = load_final(run)
    return Embedder.of(run, model, unit_features)
