"""What a server says of a photograph: classes, boxes, the most similar images of an index."""

import functools
import pathlib
from typing import Any

import cv2
import numpy as np

from fgjax.data.images import Encoded, decode
from fgjax.errors import UserError
from fgjax.evaluation.unknown import FALSE_ACCEPTS
from fgjax.galleries import Snapshot
from fgjax.localization import boxes
from fgjax.model_files import Model
from fgjax.opening import open_model
from fgjax.report import pictures
from fgjax.search import store_of


@functools.lru_cache(maxsize=4096)
def _thumbnail(file: pathlib.Path) -> str:
    """A small copy of an image as an address; empty where the file is gone or has changed."""
    try:
        return pictures.thumbnail(decode(file.read_bytes(), file.name))
    except (OSError, UserError):
        return ""


class Answers:
    """A model, and what it says of images.

    Args:
      model: of a run or a file.
      gallery: images that similar ones are looked for among, as they were when it was opened.
      thumbnails: whether small copies of them go into the answers.
      top: how many classes are named.
      neighbours: how many images.
      batch_size: images that go through the network at once.
      rate: share of things of no class that may be taken for one.

    Raises:
      UserError: the model knows no classes and there is no gallery, or it makes no embeddings and
        there is one.
    """

    def __init__(
        self, model: Model, gallery: Snapshot | None = None, *, thumbnails: bool = False,
        top: int = 5, neighbours: int = 6, batch_size: int = 8, rate: float = FALSE_ACCEPTS,
    ):  # fmt: skip
        self._model, self._gallery, self._shown = model, gallery, thumbnails
        self.batch_size, self._top, self._neighbours = batch_size, top, neighbours
        self._rate = rate
        self._names = model.class_names
        if gallery is None and not self._names:
            try:
                _ = model.predictor
            except UserError as error:
                raise UserError(
                    f"{error} A page of similar images wants an index: --index=FOLDER."
                ) from error
        if gallery is not None:
            _ = model.embedder
        card = model.card
        scores = card["scores"]
        self.title = card["name"]
        self.about = {
            "name": card["name"],
            "method": card["method"],
            "dataset": card["protocol"]["dataset"],
            "classes": list(self._names),
            "top1": scores.get("top1"),
            "recall_at_1": scores.get("recall@1"),
            "calibrated": "temperature" in scores,
            "unknown_accepted": rate if "unknown_auroc" in scores else None,
            "index": len(gallery) if gallery else 0,
        }

    @classmethod
    def open(
        cls, path: pathlib.Path, *, index: pathlib.Path | None = None, **options: Any
    ) -> "Answers":
        """Of a run's folder or a model file.

        Raises:
          UserError: it is neither, there is nothing to answer by, or the index does not fit.
        """
        model = open_model(path)
        return cls(model, store_of(model, path, index).open() if index else None, **options)

    def __call__(self, images: list[Encoded]) -> list[dict[str, Any]]:
        """An answer for each image, ready for JSON; images are those that `images.check` let in."""
        answers: list[dict[str, Any]] = [
            {
                "top": [],
                "known": None,
                "false_accepts": None,
                "box": None,
                "parts": [],
                "neighbours": [],
            }
            for _ in images
        ]
        if self._names:
            for answer, found in zip(
                answers, self._model.predict(images, batch_size=self.batch_size), strict=True
            ):
                order = np.argsort(-found.probabilities, kind="stable")[: self._top]
                answer["top"] = [
                    {"class": self._names[k], "probability": float(found.probabilities[k])}
                    for k in order.tolist()
                ]
                answer["known"] = found.known(self._rate)
                answer["false_accepts"] = found.false_accepts
                whole = np.array_equal(found.box, boxes.WHOLE)
                answer["box"] = None if whole else found.box.tolist()
                answer["parts"] = found.parts.tolist()
        if self._gallery is not None:
            queries = self._model.embed(images, batch_size=self.batch_size)
            found = self._gallery.search(queries, self._neighbours)
            for answer, matches in zip(answers, found, strict=True):
                answer["neighbours"] = [
                    {
                        "name": pathlib.Path(entry.file).name,
                        "similarity": score,
                        "thumbnail": _thumbnail(pathlib.Path(entry.file)) if self._shown else "",
                    }
                    for entry, score in matches
                ]
        return answers

    def explain(self, image: Encoded) -> dict[str, Any]:
        """What the answer rests on, square by square, ready for JSON."""
        found = self._model.explain(image, batch_size=self.batch_size)
        chosen = None
        if found.prediction is not None:
            chosen = self._names[int(found.prediction.probabilities.argmax())]
        squares = found.squares.astype(float).round(6).tolist()
        return {"class": chosen, "squares": squares, "where": found.where}

    def warm_up(self) -> None:
        """Compile before the first photograph comes."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        one = Encoded(cv2.imencode(".png", grey)[1].tobytes())
        for count in (1, 2):  # one image alone is a batch of its own
            self([one] * count)
