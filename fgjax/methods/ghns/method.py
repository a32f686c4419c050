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

from fgjax.errors import UserError
from fgjax.methods.ghns import filtering
from fgjax.methods.ghns.config import Config
from fgjax.methods.ghns.fused import FusedPredictor, Fusion, fuse_scores
from fgjax.methods.ghns.image_classifier import train_image_classifier
from fgjax.methods.ghns.part_networks import train_part_networks
from fgjax.methods.ghns.parts_classifier import (
    build_parts_classifier,
    parts_logits,
    train_parts_classifier,
)
from fgjax.methods.shared import calibration
from fgjax.methods.shared.classifier import starting_model, whole_images
from fgjax.methods.shared.localization import Localizer, check_localization, crops, localize
from fgjax.methods.shared.objects import annotated
from fgjax.methods.shared.predictor import Network, network_of
from fgjax.training.run import Run, Stage


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the final metrics and what is particular to their protocol."""
    config: Config = run.config.method
    stages = train(run, config)
    protocol = {
        "boxes_used": config.objects == "annotated" or config.object_windows == "annotated",
        "parts_used": config.parts == "annotated",
        "extractors": config.extractors,
        "fusion_weights_from": {
            "held_out": "a search on the held-out training images",
            "stacked": "their likelihood on the held-out training images",
            "preset": "the config",
            "test": "A SEARCH ON THE TEST SPLIT: the fused accuracies are test-tuned",
        }[config.fusion],
        "test_split_used_for_selection": config.fusion == "test",
        **calibration.described(stages["fusion"].metrics),
    }
    made = stages["hard_negatives"].metrics
    made.pop("seconds_per_kept_sample")  # results.json is the same whenever the numbers are
    localization = {**stages["objects"].metrics, **stages["parts"].metrics}
    return {
        "metrics": {
            **stages["fusion"].metrics,
            "generation": made,
            "localization": localization,
            "stages": {
                name: stages[name].metrics for name in ("classifier", "part_networks", "filter")
            },
        },
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
    fuse_scores(
        run, classifiers, weights_from=config.fusion, preset=config.preset,
        temperatures=config.temperatures and config.fusion != "preset",
    )  # fmt: skip
    return run.stages


def check(run: Run) -> None:
    """Refuse what does not fit the dataset, before anything is trained."""
    config: Config = run.config.method
    check_localization(run, config)
    if run.dataset.num_classes < 2:
        raise UserError(
            f"GHNS makes negatives of other classes, but {run.dataset.name} has one class only."
        )
    if config.fusion in ("held_out", "stacked") and not len(run.held_out_indices):
        raise UserError(
            f"config.method.fusion={config.fusion} searches the weights on held-out images, but "
            "none are held out: set config.data.held_out above 0 or config.method.fusion=preset."
        )


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
        negatives=config.negatives,
    )


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
    train, test = crops(run, objects, None)
    if config.object_windows == "annotated":
        name = run.dataset.name
        train = dataclasses.replace(train, windows=annotated(train.split, name))
        test = dataclasses.replace(test, windows=annotated(test.split, name))
    return train_image_classifier(
        run,
        "object_classifier",
        config.image_classifiers,
        lambda: starting_model(run, classifier),
        (train, test),
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
    stages["parts_classifier"].restore_model(model)
    model.eval()
    size, trust = config.part_image_size, calibration.of(stages["fusion"])
    del trust["temperature"]  # the fusion has it
    return FusedPredictor.of(
        run,
        localizer=Localizer.of(run, config, stages["classifier"], stages["parts"]),
        original=network_of(run, run.load_model(stages["original_classifier"])),
        object_=network_of(run, run.load_model(stages["object_classifier"])),
        parts=Network(model, parts_logits, (config.grouping.num_parts, size, size, 3)),
        part_image_size=size,
        original_pixels=config.original_pixels,
        **trust,
        fusion=Fusion.of(stages["fusion"], config.fusion),
    )
