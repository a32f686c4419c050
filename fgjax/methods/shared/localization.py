"""Where the object and its parts are: what LAPM and GHNS do before their own stages."""

import dataclasses
import logging
from typing import Literal, Self, overload

import numpy as np

from fgjax.config import Training
from fgjax.data.loading import Reader
from fgjax.localization import boxes
from fgjax.methods.shared import fixed_parts
from fgjax.methods.shared import objects as objects_stage
from fgjax.methods.shared import parts as parts_stage
from fgjax.methods.shared.classifier import train_classifier
from fgjax.methods.shared.parts import Grouping
from fgjax.methods.shared.predictor import (
    BatchedPredictor,
    Images,
    Prediction,
    Program,
    network_of,
    probabilities_of,
)
from fgjax.ranges import among, within
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Localization:
    """Hyper-parameters of the stages classifier, objects and parts."""

    objects: str = among(*objects_stage.METHODS)  # annotated: LAPM Table 1, "w/ Bounding box"
    cam_threshold: float = within(0.2, 0, 1)  # of the map's range; CAM's 20 %
    # Multiples of the map's mean; SCDA's is the mean itself.
    scda_threshold: float = within(1.0, 0, 1000)
    parts: str = among(*parts_stage.METHODS)  # annotated: regions of the dataset's points
    classifier: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    grouping: Grouping = dataclasses.field(default_factory=Grouping)

    @property
    def maps_for(self) -> str:
        """What a backbone's last map is wanted for; nothing where boxes come from elsewhere."""
        wanted = {"objects": ("cam", "scda"), "parts": parts_stage.LEARNED}
        return " and ".join(
            f"{field}={value}"
            for field, values in wanted.items()
            if (value := getattr(self, field)) in values
        )


def check_localization(run: Run, config: Localization, *, with_parts: bool = True) -> None:
    """Refuse annotations that the dataset does not have, before anything is trained."""
    if config.objects == "annotated":
        for split, name in ((run.dataset.train, "training"), (run.dataset.test, "test")):
            objects_stage.annotated(split, f"{run.dataset.name} ({name})")
    if with_parts and config.parts == "annotated":
        fixed_parts.check("config.method.parts", run.dataset, "grouping, attention, grid or random")


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


@dataclasses.dataclass(frozen=True)
class Localizer:
    """The object's box and its parts in new images, as the stages found them in the dataset's.

    Attributes:
      maps: gives CAM of the predicted class and SCDA's map.
      method: "cam" or "scda", with its threshold.
      part_method: as `Localization.parts`; None where there are no parts.
      part_size: side of a part box, as a share of the image or of the crop (`size_of`).
      centers: gives the part centres in crops, where they are learned.
    """

    maps: Program
    method: str
    threshold: float
    part_method: str | None
    num_parts: int
    part_size: float
    size_of: str
    centers: Program | None

    @classmethod
    def of(
        cls, run: Run, config: Localization, classifier: Stage, parts: Stage | None = None
    ) -> Self:
        """As finished stages left it."""
        if config.objects == "annotated":
            log.info("annotated boxes are not known for new images: CAM finds the object")
        method, settings = "scda" if config.objects == "scda" else "cam", config.grouping
        centers = None
        if parts and config.parts in parts_stage.LEARNED:
            found = parts_stage.load_network(run, settings, parts, config.parts)
            centers = network_of(run, found, parts_stage.localized)
        return cls(
            maps=network_of(run, run.load_model(classifier), objects_stage.maps_of_prediction),
            method=method,
            threshold=getattr(config, f"{method}_threshold"),
            part_method=config.parts if parts else None,
            num_parts=settings.num_parts,
            part_size=settings.part_size,
            size_of=settings.size_of,
            centers=centers,
        )

    def objects(self, whole: np.ndarray) -> np.ndarray:
        """Object boxes [B, 4] of whole images, resized to the network's size."""
        found = self.maps(whole)["sum" if self.method == "scda" else "predicted"]
        return np.stack([objects_stage.box_of(m, self.method, self.threshold) for m in found])

    def parts(self, crops: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Part boxes [B, P, 4] of object crops, in their coordinates.

        `windows` [B, 4] are the objects' boxes, in those of the images.
        """
        of_image = self.size_of == "image"
        half = fixed_parts.half_sizes(self.part_size, windows if of_image else None)
        if self.part_method == "grid":
            return fixed_parts.grid(len(crops), self.num_parts, half)
        if self.part_method == "random":
            return fixed_parts.random(len(crops), self.num_parts, half, seed=0)
        if self.centers is None:
            return np.zeros((len(crops), 0, 4), np.float32)
        return boxes.around(self.centers(crops)["centers"], half)


@dataclasses.dataclass(frozen=True)
class Predictor(BatchedPredictor):
    """Classes, object box and part boxes, by a network on object crops."""

    localizer: Localizer
    network: Program
    temperature: float = 1.0

    def _predict(self, images: Images) -> list[Prediction]:
        found = self.localizer.objects(self._whole(images))
        crops = self._crops(images, found)
        probabilities, sure = probabilities_of(self.network, crops, temperature=self.temperature)
        parts = boxes.from_window(self.localizer.parts(crops, found), found[:, None])
        return [Prediction(*fields) for fields in zip(probabilities, found, parts, sure.tolist())]
