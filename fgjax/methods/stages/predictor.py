"""From an image of any size to classes and boxes, with evaluation's own preprocessing."""

import dataclasses
import logging

import jax
import numpy as np
from flax import nnx

from fgjax.data.loading import crop_resize
from fgjax.evaluation import classification
from fgjax.localization import boxes
from fgjax.methods.stages import objects as objects_stage
from fgjax.methods.stages.parts import Grouping, grid_boxes, load_network, localized
from fgjax.training import sharding
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is in one image.

    Attributes:
      probabilities: [K].
      box: the object [4], in the image's coordinates.
      parts: part boxes [P, 4], likewise; P may be 0.
    """

    probabilities: np.ndarray
    box: np.ndarray
    parts: np.ndarray


class Localizer:
    """The object's box and its parts in new images, as the stages found them in the dataset's."""

    def __init__(
        self,
        run: Run,
        classifier: Stage,
        method: str,
        cam_threshold: float,
        scda_threshold: float,
        parts: Stage | None = None,
        part_method: str = "grouping",
        settings: Grouping | None = None,
    ):
        self._model = run.load_model(classifier)
        if method == "annotated":
            log.info("annotated boxes are not known for new images: CAM finds the object")
        self._method = "scda" if method == "scda" else "cam"
        self._threshold = scda_threshold if self._method == "scda" else cam_threshold
        self._settings, self._part_method = settings, part_method if parts else None
        self._parts = None
        if parts and part_method == "grouping":
            self._parts = load_network(run, settings, parts)

    def objects(self, whole: np.ndarray) -> np.ndarray:
        """Object boxes [B, 4] of whole images, resized to the network's size."""
        batch = {"image": whole, "label": np.zeros(len(whole), np.int32)}
        outputs = jax.device_get(
            classification.forward(self._model, objects_stage.activation_maps, batch)
        )
        key = "sum" if self._method == "scda" else "predicted"
        return np.stack([
            objects_stage.box_of(m, self._method, self._threshold) for m in outputs[key]
        ])  # fmt: skip

    def parts(self, crops: np.ndarray) -> np.ndarray:
        """Part boxes [B, P, 4] of object crops, in their coordinates."""
        if self._part_method == "grid":
            return grid_boxes(len(crops), self._settings)
        if self._parts is None:
            return np.zeros((len(crops), 0, 4), np.float32)
        batch = {"image": crops}
        outputs = jax.device_get(classification.forward(self._parts, localized, batch))
        return boxes.around(outputs["centers"], self._settings.part_size / 2)


class Predictor:
    """Classes, object box and part boxes of images."""

    def __init__(self, run: Run, localizer: Localizer, model: nnx.Module):
        self.class_names = run.dataset.class_names
        self._size = run.config.data.image_size
        self._localizer, self._model = localizer, model

    def __call__(self, images: list[np.ndarray], *, batch_size: int = 16) -> list[Prediction]:
        """Predictions for RGB uint8 images of any sizes."""
        size, results = sharding.divisible(batch_size), []
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            padded = chunk + [chunk[-1]] * (size - len(chunk))
            results += self._predict(padded)[: len(chunk)]
        return results

    def _predict(self, images: list[np.ndarray]) -> list[Prediction]:
        whole = np.stack([crop_resize(image, boxes.WHOLE, self._size) for image in images])
        found = self._localizer.objects(whole)
        crops = np.stack([crop_resize(i, box, self._size) for i, box in zip(images, found)])
        outputs = classification.forward(self._model, classification.logits_of, {"image": crops})
        probabilities = classification.softmax(jax.device_get(outputs["logits"]))
        parts = boxes.from_window(self._localizer.parts(crops), found[:, None])
        return [Prediction(*fields) for fields in zip(probabilities, found, parts)]


class WholeImagePredictor:
    """Classes of images by a network on whole images; the box is the image, there are no parts."""

    def __init__(self, run: Run, model: nnx.Module):
        self.class_names = run.dataset.class_names
        self._size, self._model = run.config.data.image_size, model

    def __call__(self, images: list[np.ndarray], *, batch_size: int = 16) -> list[Prediction]:
        """Predictions for RGB uint8 images of any sizes."""
        size, results = sharding.divisible(batch_size), []
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            whole = np.stack([crop_resize(image, boxes.WHOLE, self._size) for image in chunk])
            padded = np.pad(whole, [(0, size - len(chunk)), (0, 0), (0, 0), (0, 0)])
            batch = {"image": padded}
            outputs = classification.forward(self._model, classification.logits_of, batch)
            for row in classification.softmax(jax.device_get(outputs["logits"]))[: len(chunk)]:
                results.append(Prediction(row, boxes.WHOLE.copy(), np.zeros((0, 4), np.float32)))
        return results
