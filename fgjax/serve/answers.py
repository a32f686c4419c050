"""What a server says of a photograph: classes, boxes, the most similar images of an index."""

import base64
import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from fgjax import main, methods, model_files, search
from fgjax.data.images import Encoded, decode
from fgjax.data.loading import read_window
from fgjax.errors import UserError
from fgjax.figures import drawing
from fgjax.galleries import Entry, Snapshot
from fgjax.localization import boxes
from fgjax.methods.shared.predictor import Prediction

log = logging.getLogger(__name__)

THUMBNAIL = 160  # pixels of the longer side


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The images that a photograph is compared with.

    Attributes:
      images: an index as it was when the server began.
      shown: whether small copies go into the answers.
    """

    images: Snapshot
    shown: bool = False

    @classmethod
    def load(
        cls, source: search.Source, folder: pathlib.Path, *, thumbnails: bool = False
    ) -> "Gallery":
        """An index that `fgjax index add` made.

        Raises:
          UserError: there is none, or it is another model's.
        """
        return cls(search.store_of(source, folder).open(), thumbnails)

    def thumbnail(self, entry: Entry) -> str:
        """A small copy of an image as an address; empty where nobody asked for them."""
        return _thumbnail(pathlib.Path(entry.file)) if self.shown else ""


@functools.lru_cache(maxsize=4096)
def _thumbnail(file: pathlib.Path) -> str:
    """A small picture as an address; empty where the file is gone or has changed."""
    try:
        image = drawing.enlarge(decode(file.read_bytes(), file.name), THUMBNAIL)
    except (OSError, UserError):
        return ""
    _, data = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 70])
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()


class Answers:
    """A model, opened once, and what it says of images.

    Args:
      about: what every reader should know: name, method, scores, whether probabilities are
        calibrated.
      predict: predictions of images, `(images, batch_size=…)`; None of a model without classes.
      class_names: of their probabilities.
      source: what makes embeddings, where there is a gallery.
      gallery: the images that are searched; None for none.
      top: how many classes are named.
      neighbours: how many images.
      batch_size: images that go through the network at once.
    """

    def __init__(
        self,
        about: dict[str, Any],
        *,
        predict: Callable[..., list[Prediction]] | None = None,
        class_names: Sequence[str] = (),
        source: search.Source | None = None,
        gallery: Gallery | None = None,
        top: int = 5,
        neighbours: int = 6,
        batch_size: int = 8,
    ):
        self._predict, self._names = predict, class_names
        self._source, self._gallery = source, gallery
        self.batch_size, self._top, self._neighbours = batch_size, top, neighbours
        self.title = about["name"]
        self.about = {
            **about,
            "classes": list(class_names),
            "index": len(gallery.images) if gallery else 0,
        }

    @classmethod
    def open(
        cls, path: pathlib.Path, *, index: pathlib.Path | None = None, thumbnails: bool = False,
        **options: Any,
    ) -> "Answers":  # fmt: skip
        """Of a run's folder or a model file.

        Raises:
          UserError: it is neither, there is nothing to answer by, or the index does not fit.
        """
        about, predict, names = _opened(path, alone=index is None)
        source = search.open_source(path) if index else None
        gallery = Gallery.load(source, index, thumbnails=thumbnails) if source and index else None
        return cls(
            about, predict=predict, class_names=names, source=source, gallery=gallery, **options
        )

    def __call__(self, images: list[Encoded]) -> list[dict[str, Any]]:
        """An answer for each image, ready for JSON; images are those that `images.check` let in."""
        answers: list[dict[str, Any]] = [
            {"top": [], "box": None, "parts": [], "neighbours": []} for _ in images
        ]
        if self._predict is not None:
            for answer, found in zip(answers, self._predict(images, batch_size=self.batch_size)):
                order = np.argsort(-found.probabilities, kind="stable")[: self._top]
                answer["top"] = [
                    {"class": self._names[k], "probability": float(found.probabilities[k])}
                    for k in order.tolist()
                ]
                whole = np.array_equal(found.box, boxes.WHOLE)
                answer["box"] = None if whole else found.box.tolist()
                answer["parts"] = found.parts.tolist()
        if self._gallery is not None:
            found = self._gallery.images.search(self._embeddings(images), self._neighbours)
            for answer, matches in zip(answers, found, strict=True):
                answer["neighbours"] = [
                    {
                        "name": pathlib.Path(entry.file).name,
                        "similarity": score,
                        "thumbnail": self._gallery.thumbnail(entry),
                    }
                    for entry, score in matches
                ]
        return answers

    def warm_up(self) -> None:
        """Compile before the first photograph comes."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        one = Encoded(cv2.imencode(".png", grey)[1].tobytes())
        for count in (1, 2):  # a model file has a program for one image alone
            self([one] * count)

    def _embeddings(self, images: list[Encoded]) -> np.ndarray:
        assert self._source is not None
        found, size = [], self._source.image_size
        for start in range(0, len(images), self.batch_size):
            chunk = [read_window(i, boxes.WHOLE, size)
                     for i in images[start : start + self.batch_size]]  # fmt: skip
            padded = chunk + [chunk[-1]] * (self.batch_size - len(chunk))
            found.append(self._source.embed(np.stack(padded))[: len(chunk)])
        return np.concatenate(found)


def _opened(
    path: pathlib.Path, *, alone: bool
) -> tuple[dict[str, Any], Callable[..., list[Prediction]] | None, Sequence[str]]:
    """What a run or a model file says of itself, its predictor if it has one, and its classes."""
    if path.is_file():
        model = model_files.load(path)
        card = model.card
        about = _about(path.stem, card["method"], card["scores"], card["protocol"])
        if not model.class_names and alone:
            model.predict([])  # says why there is no answer
        return about, model.predict if model.class_names else None, model.class_names
    run = main.open_run(path)
    results = json.loads((path / "results.json").read_text())
    about = _about(run.config.name, results["method"], results["metrics"], results["protocol"])
    try:
        predictor = methods.of(run.config).load_predictor(run)
    except UserError as error:  # trained for retrieval
        if alone:
            raise UserError(
                f"{error} A page of similar images wants an index: --index=FOLDER."
            ) from error
        return about, None, ()
    return about, predictor, predictor.class_names


def _about(
    name: str, method: str, scores: dict[str, Any], protocol: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "method": method,
        "dataset": protocol["dataset"],
        "top1": scores.get("top1"),
        "recall_at_1": scores.get("recall@1"),
        "calibrated": "temperature" in scores,
    }
