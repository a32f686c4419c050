"""From an image of any size to classes and boxes, with evaluation's own preprocessing."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from fgjax.data.images import Encoded
from fgjax.data.loading import crop
from fgjax.evaluation import classification
from fgjax.localization import boxes
from fgjax.methods.shared.localization import Localizer
from fgjax.training import sharding
from fgjax.training.run import Run

Images = Sequence[np.ndarray | Encoded]


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


class BatchedPredictor:
    """Base: any number of images in batches of one shape, so that one program serves all."""

    def __init__(self, run: Run):
        self.class_names = run.dataset.class_names
        self._size = run.config.data.image_size

    def __call__(self, images: Images, *, batch_size: int = 16) -> list[Prediction]:
        """Predictions for files, or RGB uint8 images of any sizes.

        Large JPEGs are decoded at a reduced size, as in training: give files, not their pixels.
        """
        size, results = sharding.divisible(batch_size), []
        for start in range(0, len(images), size):
            chunk = list(images[start : start + size])
            padded = chunk + [chunk[-1]] * (size - len(chunk))
            results += self._predict(padded)[: len(chunk)]
        return results

    def _predict(self, images: Images) -> list[Prediction]:
        raise NotImplementedError(type(self))

    def _whole(self, images: Images) -> np.ndarray:
        """Whole images at the network's size [B, S, S, 3]."""
        return np.stack([crop(image, boxes.WHOLE, self._size) for image in images])

    def _crops(self, images: Images, found: np.ndarray) -> np.ndarray:
        """The objects at the network's size [B, S, S, 3]."""
        return np.stack([crop(i, box, self._size) for i, box in zip(images, found)])


def probabilities_of(
    model: nnx.Module, images: np.ndarray, outputs_of: Callable, *, temperature: float = 1.0
) -> np.ndarray:
    """Softmax of a network's logits [B, K], divided by a temperature."""
    outputs = classification.forward(model, outputs_of, {"image": images})
    return classification.softmax(jax.device_get(outputs["logits"]) / np.float32(temperature))


class Predictor(BatchedPredictor):
    """Classes, object box and part boxes, by a network on object crops."""

    def __init__(
        self, run: Run, localizer: Localizer, model: nnx.Module, *, temperature: float = 1.0
    ):
        super().__init__(run)
        self._localizer, self._model, self._temperature = localizer, model, temperature

    def _predict(self, images: Images) -> list[Prediction]:
        found = self._localizer.objects(self._whole(images))
        crops = self._crops(images, found)
        probabilities = probabilities_of(
            self._model, crops, classification.logits_of, temperature=self._temperature
        )
        parts = boxes.from_window(self._localizer.parts(crops, found), found[:, None])
        return [Prediction(*fields) for fields in zip(probabilities, found, parts)]


class WholeImagePredictor(BatchedPredictor):
    """Classes of images by a network on whole images; the box is the image, there are no parts."""

    def __init__(self, run: Run, model: nnx.Module, *, temperature: float = 1.0):
        super().__init__(run)
        self._model, self._temperature = model, temperature

    def _predict(self, images: Images) -> list[Prediction]:
        whole = self._whole(images)
        found = probabilities_of(
            self._model, whole, classification.logits_of, temperature=self._temperature
        )
        nothing = np.zeros((0, 4), np.float32)
        return [Prediction(row, boxes.WHOLE.copy(), nothing) for row in found]
