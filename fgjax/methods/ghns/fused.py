"""Stage `fusion`: the classifiers' scores in one (GHNS Eq. 11), and the same for new images."""

import dataclasses
import functools
import itertools
from typing import Any, Self

import numpy as np

from fgjax.data.loading import crop
from fgjax.evaluation import classification, fusion
from fgjax.evaluation.calibration import fit_temperature
from fgjax.localization import boxes
from fgjax.methods.shared import calibration
from fgjax.methods.shared.localization import Localizer
from fgjax.methods.shared.predictor import (
    BatchedPredictor,
    Images,
    Prediction,
    Program,
    probabilities_of,
)
from fgjax.training.run import Run, Stage


def fuse_scores(
    run: Run,
    classifiers: dict[str, Stage],
    *,
    weights_from: str,
    preset: tuple[float, ...],
    temperatures: bool = False,
    step: float = 0.05,
) -> Stage:
    """Each classifier, each pair and all of them, on test.

    Args:
      run: with dataset and folders.
      classifiers: stages with the artifact `scores`, by name.
      weights_from: "held_out" or "test" searches the simplex there, for pairs as well; "preset"
        takes `preset`, and its two weights scaled to sum 1 for a pair; "stacked" multiplies
        instead of adding, by weights that held-out images make likely.
      preset: one weight for each classifier.
      temperatures: whether each classifier's logits are first divided by a temperature of its own,
        fitted on held-out images: Eq. 11 adds scores as if all were equally sure.
      step: of the search.
    """
    stage = run.stage(
        "fusion", after=tuple(classifiers.values()), weights_from=weights_from,
        preset=list(preset), step=step, temperatures=temperatures,
    )  # fmt: skip
    if stage.done:
        return stage
    stored = [classifier.load_arrays("scores") for classifier in classifiers.values()]
    labels = {
        "held_out": run.dataset.train.labels[run.held_out_indices],
        "test": run.dataset.test.labels,
    }
    fitted = np.ones(len(stored))
    if temperatures and len(labels["held_out"]):
        fitted = run.compute(
            lambda: np.array([
                fit_temperature(one["held_out"], labels["held_out"]) for one in stored
            ]),
            instead=lambda: np.ones(len(stored)),
        )  # fmt: skip
    scores = {
        split: np.stack([
            classification.softmax(one[split] / np.float32(t)) for one, t in zip(stored, fitted)
        ])
        for split in ("held_out", "test")
    }  # fmt: skip
    metrics: dict[str, Any] = {
        f"{name}_temperature": float(t) for name, t in zip(classifiers, fitted)
    }
    together = fusion.pool if weights_from == "stacked" else fusion.fuse
    names, count = list(classifiers), len(classifiers)
    weights, fused = np.ones(1), scores["test"][0]  # of the first alone; all together come last
    for chosen in itertools.chain(*(itertools.combinations(range(count), n + 1)
                                    for n in range(count))):  # fmt: skip
        some, name = list(chosen), "_".join(names[c] for c in chosen)
        if len(some) == 1:
            weights = np.ones(1)
        elif weights_from == "preset":
            given = np.array(preset)[some]
            weights = given / given.sum() if given.sum() else np.full(len(some), 1 / len(some))
        elif weights_from == "stacked":
            weights = run.compute(
                functools.partial(
                    fusion.stack_weights, scores["held_out"][some], labels["held_out"]
                ),
                instead=lambda some=some: np.full(len(some), 1 / len(some)),
            )
        else:
            weights, _ = run.compute(
                functools.partial(
                    fusion.search_weights,
                    scores[weights_from][some],
                    labels[weights_from],
                    step=step,
                ),
                instead=lambda some=some: (np.full(len(some), 1 / len(some)), 0.0),
            )
        fused = together(scores["test"][some], weights)
        metrics[f"{name}_top1"] = float(np.mean(fused.argmax(axis=1) == labels["test"]))
        if len(some) > 1:
            metrics[f"{name}_weights"] = weights.tolist()
    log_fused = np.log(np.maximum(fused, 1e-12))
    stage.save_arrays(
        "predictions", logits=log_fused.astype(np.float32), labels=labels["test"],
        weights=weights, temperatures=fitted,
    )  # fmt: skip
    if len(labels["held_out"]):
        held = together(scores["held_out"], weights)
        metrics["held_out_top1"] = float(np.mean(held.argmax(axis=1) == labels["held_out"]))
        log_held = np.log(np.maximum(held, 1e-12))
        metrics |= calibration.calibrate(run, stage, log_held, log_fused)
    stage.finish({**classification.classification_metrics(log_fused, labels["test"]), **metrics})
    return stage


@dataclasses.dataclass(frozen=True)
class Fusion:
    """Probabilities [B, K] of scores [C, B, K].

    Attributes:
      weights: [C].
      stacked: whether scores are multiplied and not added.
      temperature: of what comes out.
      temperatures: [C], of each classifier's logits before.
    """

    weights: np.ndarray
    stacked: bool
    temperature: float
    temperatures: np.ndarray

    @classmethod
    def of(cls, stage: Stage, weights_from: str) -> Self:
        """As a finished stage fused."""
        stored, measured = stage.load_arrays("predictions"), stage.metrics
        ones = np.ones(len(stored["weights"]))
        return cls(
            weights=stored["weights"],
            stacked=weights_from == "stacked",
            temperature=measured.get("temperature", 1.0),
            temperatures=stored.get("temperatures", ones),
        )

    def __call__(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, and the logarithm of each largest one before the temperature [B]."""
        fused = (fusion.pool if self.stacked else fusion.fuse)(scores, self.weights)
        logarithms = np.log(np.maximum(fused, 1e-12))
        if self.temperature != 1:
            fused = classification.softmax(logarithms / self.temperature)
        return fused, logarithms.max(axis=1)


@dataclasses.dataclass(frozen=True)
class FusedPredictor(BatchedPredictor):
    """Original, object and parts classifier on new images.

    Attributes:
      localizer: of the object and its parts.
      original: of whole images.
      object_: of objects.
      parts: of part images.
      part_image_size: in pixels.
      original_pixels: whether parts are cut from the images and not from the objects' crops.
      fusion: of their scores.
    """

    localizer: Localizer
    original: Program
    object_: Program
    parts: Program
    part_image_size: int
    original_pixels: bool
    fusion: Fusion

    def _predict(self, images: Images) -> list[Prediction]:
        whole = self._whole(images)
        found = self.localizer.objects(whole)
        crops = self._crops(images, found)
        parts = self.localizer.parts(crops, found)
        placed = boxes.from_window(parts, found[:, None])
        cut = (images, placed) if self.original_pixels else (crops, parts)
        part_images = np.stack([
            np.stack([crop(image, box, self.part_image_size) for box in part_boxes])
            for image, part_boxes in zip(*cut)
        ])  # fmt: skip
        scores = [
            probabilities_of(network, pixels, temperature=temperature)[0]
            for network, pixels, temperature in zip(
                (self.original, self.object_, self.parts),
                (whole, crops, part_images),
                self.fusion.temperatures,
            )
        ]
        probabilities, sure = self.fusion(np.stack(scores))
        return [Prediction(*fields) for fields in zip(probabilities, found, placed, sure.tolist())]
