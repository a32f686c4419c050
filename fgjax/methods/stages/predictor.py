"""From an image of any size to classes and boxes, with evaluation's own preprocessing."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from fgjax.data.loading import crop_resize
from fgjax.evaluation import classification
from fgjax.localization import boxes
from fgjax.methods.stages.localization import Localizer
from fgjax.training import sharding
from fgjax.training.run import Run


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
