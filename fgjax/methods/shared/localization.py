"""Where the object and its parts are: what LAPM and GHNS do before their own stages."""

import dataclasses
import logging
from typing import Literal, overload

import jax
import numpy as np

from fgjax.config import Training, one_of
from fgjax.data.loading import Reader
from fgjax.evaluation import classification
from fgjax.localization import boxes
from fgjax.methods.shared import fixed_parts
from fgjax.methods.shared import objects as objects_stage
from fgjax.methods.shared import parts as parts_stage
from fgjax.methods.shared.classifier import train_classifier
from fgjax.methods.shared.parts import Grouping
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Localization:
    """Hyper-parameters of the stages classifier, objects and parts."""

    objects: str = "cam"  # cam | scda | annotated (LAPM Table 1, "w/ Bounding box")
    cam_threshold: float = 0.2  # of the map's range; CAM's 20 %
    scda_threshold: float = 1.0  # multiples of the map's mean; SCDA's is the mean itself
    parts: str = (
        "grouping"  # grouping | annotated (regions of the dataset's points) | grid | random
    )
    classifier: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    grouping: Grouping = dataclasses.field(default_factory=Grouping)

    def validate(self) -> None:
        """Refuse what cannot work."""
        one_of("objects", self.objects, *objects_stage.METHODS)
        one_of("parts", self.parts, *parts_stage.METHODS)
        self.grouping.validate()


@overload
def localize(
    run: Run, config: Localization, *, with_parts: Literal[True] = True
) -> tuple[Stage, Stage, Stage]: ...


@overload
def localize(
    run: Run, config: Localization, *, with_parts: bool
) -> tuple[Stage, Stage, Stage | None]: ...


def localize(
    run: Run, config: Localization, *, with_parts: bool = True
) -> tuple[Stage, Stage, Stage | None]:
    """Stages classifier, objects and, where wanted, parts."""
    classifier = train_classifier(run, config.classifier)
    objects = objects_stage.locate_objects(
        run,
        classifier,
        config.objects,
        cam_threshold=config.cam_threshold,
        scda_threshold=config.scda_threshold,
        batch_size=config.classifier.batch_size,
    )
    if not with_parts:
        return classifier, objects, None
    parts = parts_stage.locate_parts(run, classifier, objects, config.parts, config.grouping)
    return classifier, objects, parts


def crops(run: Run, objects: Stage, parts: Stage | None) -> tuple[Reader, Reader]:
    """Readers of the object crops of both splits, with their part boxes."""
    data, dataset = run.config.data, run.dataset
    windows = objects.load_arrays("boxes")
    part_boxes = parts.load_arrays("boxes") if parts else {"train": None, "test": None}
    train, test = (
        Reader(split, data.image_size, data.augmentation, windows[name], part_boxes[name])
        for name, split in (("train", dataset.train), ("test", dataset.test))
    )
    return train, test


class Localizer:
    """The object's box and its parts in new images, as the stages found them in the dataset's."""

    def __init__(
        self, run: Run, config: Localization, classifier: Stage, parts: Stage | None = None
    ):
        self._model = run.load_model(classifier)
        if config.objects == "annotated":
            log.info("annotated boxes are not known for new images: CAM finds the object")
        self._method = "scda" if config.objects == "scda" else "cam"
        self._threshold = getattr(config, f"{self._method}_threshold")
        self._settings, self._part_method = config.grouping, config.parts if parts else None
        self._parts = None
        if parts and config.parts == "grouping":
            self._parts = parts_stage.load_network(run, config.grouping, parts)

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

    def parts(self, crops: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Part boxes [B, P, 4] of object crops, in their coordinates.

        `windows` [B, 4] are the objects' boxes, in those of the images.
        """
        half, count = self._settings.half_sizes(windows), self._settings.num_parts
        if self._part_method == "grid":
            return fixed_parts.grid(len(crops), count, half)
        if self._part_method == "random":
            return fixed_parts.random(len(crops), count, half, seed=0)
        if self._parts is None:
            return np.zeros((len(crops), 0, 4), np.float32)
        batch = {"image": crops}
        outputs = jax.device_get(classification.forward(self._parts, parts_stage.localized, batch))
        return boxes.around(outputs["centers"], half)
