"""From an image of any size to classes, boxes and embeddings, with evaluation's own preprocessing.

A predictor is a dataclass of networks, arrays, numbers and other such dataclasses, and of nothing
else: so a model file can hold it, whatever the method (`fgjax.model_files`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import numpy as np
from flax import nnx

from fgjax.data.images import Encoded
from fgjax.data.loading import crop
from fgjax.evaluation import classification
from fgjax.evaluation.unknown import FALSE_ACCEPTS, false_accepts
from fgjax.localization import boxes
from fgjax.training import sharding
from fgjax.training.forward import OutputsOf
from fgjax.training.run import Run

Images = Sequence[np.ndarray | Encoded]
# Of pixels [B, …]: a `Network`, or a program of a model file.
Program = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Network:
    """What a trained network says to a batch of pixels.

    Attributes:
      model: as a stage left it.
      outputs_of: for `classification.forward`.
      shape: of one example: (S, S, 3), or (P, S, S, 3) of part images.
    """

    model: nnx.Module
    outputs_of: OutputsOf
    shape: tuple[int, ...]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, a row for each example."""
        return jax.device_get(
            classification.forward(self.model, self.outputs_of, {"image": pixels})
        )


def network_of(
    run: Run, model: nnx.Module, outputs_of: OutputsOf = classification.logits_of
) -> Network:
    """A network on images of the run's size, in evaluation mode."""
    model.eval()
    size = run.config.data.image_size
    return Network(model, outputs_of, (size, size, 3))


@dataclasses.dataclass(frozen=True)
class Embedder:
    """Unit embeddings [B, D] of whole images [B, S, S, 3], for search."""

    image_size: int
    network: Program
    square: bool = False

    @classmethod
    def of(
        cls, run: Run, model: nnx.Module, outputs_of: OutputsOf, *, square: bool = False
    ) -> Self:
        """By a network's output `embedding`; of the image's middle square, not all of it."""
        return cls(run.config.data.image_size, network_of(run, model, outputs_of), square)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self.network(pixels)["embedding"])

    def of_images(self, images: Images, *, batch_size: int = 16) -> np.ndarray:
        """Of files, or RGB uint8 images of any sizes: [N, D], in batches of one shape."""
        size, found = sharding.divisible(batch_size), []
        for start in range(0, len(images), size):
            chunk = [
                crop(i, boxes.WHOLE, self.image_size, square=0.5 if self.square else None)
                for i in images[start : start + size]
            ]
            padded = chunk + [chunk[-1]] * (size - len(chunk))
            found.append(self(np.stack(padded))[: len(chunk)])
        return np.concatenate(found)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is in one image.

    Attributes:
      probabilities: [K].
      box: the object [4], in the image's coordinates.
      parts: part boxes [P, 4], likewise; P may be 0.
      score: how sure the classifier is that it is of any class; larger is surer.
      false_accepts: share of unknown things that are at least as sure, so that would be let in if
        this image is: large where it is none of the classes. None where nobody knows.
    """

    probabilities: np.ndarray
    box: np.ndarray
    parts: np.ndarray
    score: float = np.nan
    false_accepts: float | None = None

    def known(self, rate: float = FALSE_ACCEPTS) -> bool | None:
        """Whether it is one of the classes, if that share of unknown things may be let in.

        None where nobody knows.
        """
        return None if self.false_accepts is None else self.false_accepts <= rate


@dataclasses.dataclass(frozen=True)
class BatchedPredictor:
    """Base: any number of images in batches of one shape, so that one program serves all.

    Attributes:
      class_names: of the probabilities.
      image_size: S, in pixels.
      unknown: sorted scores of things of no class [M]; M may be 0.
    """

    class_names: tuple[str, ...]
    image_size: int
    unknown: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.float32), kw_only=True
    )

    @classmethod
    def of(cls, run: Run, **fields: Any) -> Self:
        """With a run's class names and size."""
        return cls(tuple(run.dataset.class_names), run.config.data.image_size, **fields)

    def __call__(self, images: Images, *, batch_size: int = 16) -> list[Prediction]:
        """Predictions for files, or RGB uint8 images of any sizes.

        Large JPEGs are decoded at a reduced size, as in training: give files, not their pixels.
        """
        size, results = sharding.divisible(batch_size), []
        for start in range(0, len(images), size):
            chunk = list(images[start : start + size])
            padded = chunk + [chunk[-1]] * (size - len(chunk))
            results += self._predict(padded)[: len(chunk)]
        if not len(self.unknown):
            return results
        rates = false_accepts(np.array([one.score for one in results]), self.unknown)
        return [
            dataclasses.replace(one, false_accepts=float(rate))
            for one, rate in zip(results, rates, strict=True)
        ]

    def _predict(self, images: Images) -> list[Prediction]:
        raise NotImplementedError(type(self))

    def _whole(self, images: Images, *, square: bool = False) -> np.ndarray:
        """Whole images at the network's size [B, S, S, 3], or their middle squares."""
        place = 0.5 if square else None
        return np.stack([crop(i, boxes.WHOLE, self.image_size, square=place) for i in images])

    def _crops(self, images: Images, found: np.ndarray) -> np.ndarray:
        """The objects at the network's size [B, S, S, 3]."""
        return np.stack([crop(i, box, self.image_size) for i, box in zip(images, found)])


def probabilities_of(
    network: Program, pixels: np.ndarray, *, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of a network's logits [B, K], divided by a temperature; each largest logit [B]."""
    logits = np.asarray(network(pixels)["logits"])
    return classification.softmax(logits / np.float32(temperature)), logits.max(axis=1)


@dataclasses.dataclass(frozen=True)
class WholeImagePredictor(BatchedPredictor):
    """Classes of images by a network on whole images; the box is the image, there are no parts."""

    network: Program
    temperature: float = 1.0
    square: bool = False

    def _predict(self, images: Images) -> list[Prediction]:
        whole = self._whole(images, square=self.square)
        found, sure = probabilities_of(self.network, whole, temperature=self.temperature)
        nothing = np.zeros((0, 4), np.float32)
        return [
            Prediction(row, boxes.WHOLE.copy(), nothing, float(score))
            for row, score in zip(found, sure)
        ]
