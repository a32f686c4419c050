"""What a server says of a photograph: classes, boxes, the most similar images of an index."""

import base64
import dataclasses
import functools
import json
import logging
import pathlib
from typing import Any

import cv2
import numpy as np

from fgjax import main, methods
from fgjax.data.images import Encoded, decode
from fgjax.data.loading import read_window
from fgjax.errors import UserError
from fgjax.figures import drawing
from fgjax.galleries import Entry, Snapshot
from fgjax.localization import boxes
from fgjax.search import store_of
from fgjax.training.run import Run

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
    def load(cls, folder: pathlib.Path, run: Run, *, thumbnails: bool = False) -> "Gallery":
        """An index that `fgjax index add` made.

        Raises:
          UserError: there is none, or it is another model's.
        """
        return cls(store_of(run, folder).open(), thumbnails)

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
    """A finished run, opened once, and what it says of images.

    Attributes:
      title: of the page.
      about: what every reader should know: method, scores, whether probabilities are calibrated.
      batch_size: images that go through the network at once.
    """

    def __init__(
        self, run: Run, results: dict[str, Any], *, gallery: Gallery | None = None,
        top: int = 5, neighbours: int = 6, batch_size: int = 8,
    ):  # fmt: skip
        self.batch_size, self._top, self._neighbours = batch_size, top, neighbours
        method = methods.of(run.config)
        self._size = run.config.data.image_size
        self._predict = self._embed = None
        self._gallery = gallery
        try:
            self._predict = method.load_predictor(run)
        except UserError as error:  # trained for retrieval
            if gallery is None:
                raise UserError(
                    f"{error} A page of similar images wants an index: --index=FOLDER."
                ) from error
        if gallery is not None:
            if not hasattr(method, "load_embedder"):
                name = methods.name_of(method)
                raise UserError(f"{run.workdir} is a run of {name}, which makes no embeddings.")
            self._embed = method.load_embedder(run)
        metrics, protocol = results["metrics"], results["protocol"]
        self.title = run.config.name
        self.about = {
            "name": run.config.name,
            "method": results["method"],
            "dataset": protocol["dataset"],
            "classes": list(run.dataset.class_names) if self._predict else [],
            "top1": metrics.get("top1"),
            "recall_at_1": metrics.get("recall@1"),
            "calibrated": "temperature" in metrics,
            "index": len(gallery.images) if gallery else 0,
        }

    @classmethod
    def open(
        cls, workdir: pathlib.Path, *, index: pathlib.Path | None = None, thumbnails: bool = False,
        **options: Any,
    ) -> "Answers":  # fmt: skip
        """Of a run's workdir.

        Raises:
          UserError: it holds no finished run, or the index does not fit.
        """
        run = main.open_run(workdir)
        results = json.loads((workdir / "results.json").read_text())
        gallery = Gallery.load(index, run, thumbnails=thumbnails) if index else None
        return cls(run, results, gallery=gallery, **options)

    def __call__(self, images: list[Encoded]) -> list[dict[str, Any]]:
        """An answer for each image, ready for JSON; images are those that `images.check` let in."""
        answers: list[dict[str, Any]] = [
            {"top": [], "box": None, "parts": [], "neighbours": []} for _ in images
        ]
        if self._predict is not None:
            names = self._predict.class_names
            for answer, found in zip(answers, self._predict(images, batch_size=self.batch_size)):
                order = np.argsort(-found.probabilities, kind="stable")[: self._top]
                answer["top"] = [
                    {"class": names[k], "probability": float(found.probabilities[k])}
                    for k in order.tolist()
                ]
                whole = np.array_equal(found.box, boxes.WHOLE)
                answer["box"] = None if whole else found.box.tolist()
                answer["parts"] = found.parts.tolist()
        if self._gallery is not None and self._embed is not None:
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
        self([Encoded(cv2.imencode(".png", grey)[1].tobytes())])

    def _embeddings(self, images: list[Encoded]) -> np.ndarray:
        found = []
        for start in range(0, len(images), self.batch_size):
            chunk = [read_window(i, boxes.WHOLE, self._size)
                     for i in images[start : start + self.batch_size]]  # fmt: skip
            padded = chunk + [chunk[-1]] * (self.batch_size - len(chunk))
            assert self._embed is not None
            found.append(self._embed(np.stack(padded))[: len(chunk)])
        return np.concatenate(found)
