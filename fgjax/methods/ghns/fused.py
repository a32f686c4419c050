"""Stage `fusion`: the classifiers' scores in one (GHNS Eq. 11), and the same for new images."""

import functools
import itertools

import numpy as np

from fgjax.data.loading import crop_resize
from fgjax.evaluation import classification, fusion
from fgjax.localization import boxes
from fgjax.methods.ghns.parts_classifier import PartsClassifier, parts_logits
from fgjax.methods.shared.localization import Localizer
from fgjax.methods.shared.predictor import BatchedPredictor, Images, Prediction, probabilities_of
from fgjax.models import Backbone
from fgjax.training.run import Run, Stage


def fuse_scores(
    run: Run,
    classifiers: dict[str, Stage],
    *,
    weights_from: str,
    preset: tuple[float, ...],
    step: float = 0.05,
) -> Stage:
    """Each classifier, each pair and all of them, on test.

    Args:
      run: with dataset and folders.
      classifiers: stages with the artifact `scores`, by name.
      weights_from: "held_out" or "test" searches the simplex there, for pairs as well; "preset"
        takes `preset`, and its two weights scaled to sum 1 for a pair.
      preset: one weight for each classifier.
      step: of the search.
    """
    stage = run.stage(
        "fusion", after=tuple(classifiers.values()), weights_from=weights_from,
        preset=list(preset), step=step,
    )  # fmt: skip
    if stage.done:
        return stage
    stored = [classifier.load_arrays("scores") for classifier in classifiers.values()]
    scores = {
        split: np.stack([classification.softmax(arrays[split]) for arrays in stored])
        for split in ("held_out", "test")
    }
    labels = {
        "held_out": run.dataset.train.labels[run.held_out_indices],
        "test": run.dataset.test.labels,
    }
    metrics = {}
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
        fused = fusion.fuse(scores["test"][some], weights)
        metrics[f"{name}_top1"] = float(np.mean(fused.argmax(axis=1) == labels["test"]))
        if len(some) > 1:
            metrics[f"{name}_weights"] = weights.tolist()
    log_fused = np.log(np.maximum(fused, 1e-12))
    stage.save_arrays(
        "predictions", logits=log_fused.astype(np.float32), labels=labels["test"],
        weights=weights,
    )  # fmt: skip
    if len(labels["held_out"]):
        held = fusion.fuse(scores["held_out"], weights)
        metrics["held_out_top1"] = float(np.mean(held.argmax(axis=1) == labels["held_out"]))
    stage.finish({**classification.classification_metrics(log_fused, labels["test"]), **metrics})
    return stage


class FusedPredictor(BatchedPredictor):
    """Original, object and parts classifier on new images."""

    def __init__(
        self,
        run: Run,
        localizer: Localizer,
        original: Backbone,
        object_: Backbone,
        parts: PartsClassifier,
        *,
        part_image_size: int,
        weights: np.ndarray,
    ):
        super().__init__(run)
        self._localizer, self._weights, self._part_size = localizer, weights, part_image_size
        self._models = ((original, classification.logits_of), (object_, classification.logits_of),
                        (parts, parts_logits))  # fmt: skip

    def _predict(self, images: Images) -> list[Prediction]:
        whole = self._whole(images)
        found = self._localizer.objects(whole)
        crops = self._crops(images, found)
        parts = self._localizer.parts(crops, found)
        part_images = np.stack([
            np.stack([crop_resize(crop, box, self._part_size) for box in part_boxes])
            for crop, part_boxes in zip(crops, parts)
        ])  # fmt: skip
        scores = [
            probabilities_of(model, pixels, outputs_of)
            for (model, outputs_of), pixels in zip(self._models, (whole, crops, part_images))
        ]
        probabilities = fusion.fuse(np.stack(scores), self._weights)
        placed = boxes.from_window(parts, found[:, None])
        return [Prediction(*fields) for fields in zip(probabilities, found, placed)]
