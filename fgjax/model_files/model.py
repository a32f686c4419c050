"""A model that stands alone: `fgjax.load(path)` needs no dataset, no config and no run."""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image, ImageOps

from fgjax.data.images import Encoded, check, decode
from fgjax.errors import UserError
from fgjax.methods.shared.predictor import BatchedPredictor, Embedder, Prediction
from fgjax.model_files import archive, rebuilding
from fgjax.model_files.networks import Package
from fgjax.model_files.tree import pack, unpack
from fgjax.models import hub

FORMAT = 1  # of the file; a reader refuses higher ones
CARD, WEIGHTS = "model.json", "weights.safetensors"

# Less is nothing that an answer rests on: of the log-odds of a class; of a cosine.
DECIDES, DECIDES_COSINE = 0.2, 0.01

AnyImage = str | pathlib.Path | bytes | Encoded | np.ndarray | Image.Image


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a model's answer rests on.

    Attributes:
      map: [H, W] of the image: by how much the log-odds of the likeliest class fall where a square
        around the pixel is hidden, or the cosine to the whole image's embedding; below 0 where the
        answer gets better. A sure answer's probability hardly moves; its log-odds do.
      squares: the same of each square [G, G], from which the map is interpolated.
      prediction: of the whole image; None of a model without classes, whose answer is where the
        image lies among others.
    """

    map: np.ndarray
    squares: np.ndarray
    prediction: Prediction | None

    @property
    def where(self) -> str:
        """The part of the image that it rests on most, such as "top left"; "" if on no square."""
        if self.squares.max() < (DECIDES_COSINE if self.prediction is None else DECIDES):
            return ""
        row, column = np.unravel_index(int(self.squares.argmax()), self.squares.shape)
        third = lambda place, count: min(3 * int(place) // count, 2)  # noqa: E731
        down = ("top", "middle", "bottom")[third(row, self.squares.shape[0])]
        return f"{down} {('left', 'centre', 'right')[third(column, self.squares.shape[1])]}"


class Model:
    """What a model file holds, or a finished run.

    Args:
      card: as `model.json` has it: name, method, preprocessing, protocol, scores, licence.
      predictor: gives it; raises UserError where the model knows no classes.
      embedder: likewise, where it makes no embeddings.
      fingerprint: changes with the model.
    """

    def __init__(
        self,
        card: dict[str, Any],
        predictor: Callable[[], BatchedPredictor],
        embedder: Callable[[], Embedder],
        fingerprint: str,
    ):
        self.card, self.fingerprint = card, fingerprint
        self._predictor, self._embedder = predictor, embedder

    @functools.cached_property
    def predictor(self) -> BatchedPredictor:
        """Of images' classes, objects and parts.

        Raises:
          UserError: the model knows no classes.
        """
        return self._predictor()

    @functools.cached_property
    def embedder(self) -> Embedder:
        """Of whole images at the network's size, for search.

        Raises:
          UserError: the model makes no embeddings.
        """
        return self._embedder()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the probabilities; empty where the model knows no classes."""
        try:
            return self.predictor.class_names
        except UserError:
            return ()

    @property
    def embeds(self) -> bool:
        """Whether it makes embeddings, for search."""
        try:
            return bool(self.embedder)
        except UserError:
            return False

    def predict(self, images: Sequence[AnyImage], *, batch_size: int = 16) -> list[Prediction]:
        """Probabilities, the object's box and the parts of images of any sizes.

        Args:
          images: paths, files' bytes, PIL images, or RGB uint8 arrays [H, W, 3].
          batch_size: one image alone is a batch of its own.

        Raises:
          UserError: the model knows no classes, or an image cannot be used; names it.
        """
        predictor, readable = self.predictor, _listed(images)
        return predictor(readable, batch_size=1 if len(readable) == 1 else batch_size)

    def embed(self, images: Sequence[AnyImage], *, batch_size: int = 16) -> np.ndarray:
        """Unit embeddings [N, D] of images of any sizes, of the kinds that `predict` takes.

        Raises:
          UserError: the model makes no embeddings, or an image cannot be used; names it.
        """
        embedder, readable = self.embedder, _listed(images)
        return embedder.of_images(readable, batch_size=1 if len(readable) == 1 else batch_size)

    def explain(self, image: AnyImage, *, grid: int = 7, batch_size: int = 16) -> Explanation:
        """What the answer rests on: squares are hidden, one after the other (Zeiler and Fergus).

        Args:
          image: one, of the kinds that `predict` takes.
          grid: squares along a side; there are grid² forward passes.
          batch_size: images that go through the network at once.

        Raises:
          UserError: the image cannot be used.
        """
        pixels = _pixels(_readable(image, "image"))
        height, width = pixels.shape[:2]
        least = 4 * self.card["image"]["size"]  # what is larger is looked at smaller
        scale = min(1.0, least / min(height, width))
        if scale < 1:
            fitting = (max(round(width * scale), 1), max(round(height * scale), 1))
            pixels = cv2.resize(pixels, fitting, interpolation=cv2.INTER_AREA)
        hidden = _hidden(pixels, grid)
        if not self.class_names:
            own, prediction = self.embed([pixels])[0], None
            loss = 1 - self.embed(hidden, batch_size=batch_size) @ own
        else:
            (prediction,) = self.predict([pixels])
            best = int(prediction.probabilities.argmax())
            others = self.predict(hidden, batch_size=batch_size)
            told = [_log_odds(one.probabilities, best) for one in others]
            loss = _log_odds(prediction.probabilities, best) - np.array(told)
        small = loss.reshape(grid, grid).astype(np.float32)
        drawn = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        return Explanation(drawn, small, prediction)


def _log_odds(probabilities: np.ndarray, best: int) -> float:
    """Of one class against all others together."""
    others = float(np.delete(probabilities, best).sum(dtype=np.float64))
    return float(np.log(max(float(probabilities[best]), 1e-12)) - np.log(max(others, 1e-12)))


def _hidden(pixels: np.ndarray, grid: int) -> list[np.ndarray]:
    """The image once for each square, which has the image's mean colour."""
    rows, columns = (np.linspace(0, n, grid + 1).astype(int) for n in pixels.shape[:2])
    mean, result = pixels.mean(axis=(0, 1)).astype(np.uint8), []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            one = pixels.copy()
            one[top:bottom, left:right] = mean
            result.append(one)
    return result


def _pixels(image: np.ndarray | Encoded) -> np.ndarray:
    return decode(*image) if isinstance(image, Encoded) else image


def _listed(images: Sequence[AnyImage]) -> list[np.ndarray | Encoded]:
    one = isinstance(images, str | bytes | pathlib.Path | Encoded | Image.Image)
    if one or (isinstance(images, np.ndarray) and images.ndim == 3):
        raise UserError("give a list of images, even of one.")
    found = [_readable(image, f"image {number}") for number, image in enumerate(images)]
    if not found:
        raise UserError("there are no images.")
    return found


def _readable(image: AnyImage, name: str) -> np.ndarray | Encoded:
    """A file's bytes that can be decoded, or RGB pixels."""
    if isinstance(image, Encoded):
        return image
    if isinstance(image, str | pathlib.Path):
        try:
            return check(pathlib.Path(image).read_bytes(), str(image))
        except OSError as error:
            raise UserError(f"{image} cannot be read: {error.strerror or error}.") from error
    if isinstance(image, bytes):
        return check(image, name)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    fine = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if fine and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    raise UserError(
        f"{name} is {_described(image)}: give a path, a file's bytes, a PIL image, or an array "
        "uint8 [H, W, 3] of RGB."
    )


def _of_pillow(image: Image.Image) -> np.ndarray:
    """As `decode` would read its file: upright, transparency on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGB", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.array(upright.convert("RGB"))
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    return decode(buffer.getvalue())


def _described(image: Any) -> str:
    if isinstance(image, np.ndarray):
        return f"an array {image.dtype} {list(image.shape)}"
    return f"a {type(image).__name__}"


def save(
    path: pathlib.Path,
    card: dict[str, Any],
    predictor: BatchedPredictor | None,
    embedder: Embedder | None,
    *,
    onnx: bool = False,
) -> None:
    """Write a model file.

    Args:
      path: of the file.
      card: what `model.json` says beside the nodes.
      predictor: of a run; None where it knows no classes.
      embedder: likewise; None where it makes no embeddings.
      onnx: whether networks are written as ONNX, and not as StableHLO.

    Raises:
      UserError: one of them is no model of fgjax's own, or the file cannot be written.
    """
    package = Package(onnx=onnx)
    nodes = {
        "predictor": pack(predictor, "predictor", package),
        "embedder": pack(embedder, "embedder", package),
    }
    members = {WEIGHTS: safetensors.numpy.save(package.arrays), **package.programs}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    written = {"format": FORMAT, **card, **nodes, "members": digests}
    text = json.dumps(written, indent=1, ensure_ascii=False)
    archive.write(path, {CARD: text.encode(), **members})


FILE = "model.fgjax"  # in a repository of the Hub
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def on_hub(path: str | pathlib.Path) -> bool:
    """Whether it names a repository, USER/NAME: no file or folder of that name is here."""
    text = str(path)
    named = REPOSITORY.fullmatch(text) and not text.endswith(".fgjax")
    return bool(named) and not pathlib.Path(path).exists()


def fetch(repository: str) -> pathlib.Path:
    """The model file of a repository, in the Hub's cache.

    Raises:
      UserError: it is not there and cannot be fetched, or is damaged.
    """
    path = hub.download(
        repository, FILE, what="the files of the model",
        otherwise="name a file that fgjax export wrote, or a repository that fgjax push made",
    )  # fmt: skip
    hub.check(path, repository, lambda _: True, what="the files of the model")  # the seal follows
    return path


def load(path: str | pathlib.Path) -> Model:
    """The model of a file that `fgjax export` wrote, or of a repository USER/NAME of the Hub.

    Raises:
      UserError: it is no model file, damaged, or of a newer version; says which. Or the Hub does
        not give it.
    """
    if on_hub(path):
        path = fetch(str(path))
    members, seal = archive.read(pathlib.Path(path))
    try:
        card = json.loads(members.pop(CARD))
        version = card["format"]
        if not isinstance(version, int) or version > FORMAT:
            raise UserError(
                f"{path} has format {version}, and this fgjax reads formats up to {FORMAT}: "
                "install a newer fgjax."
            )
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        if digests != card["members"]:
            raise UserError(f"{path} holds other members than {CARD} names: get it anew.")
        package = Package(
            safetensors.numpy.load(members.pop(WEIGHTS)), members,
            functools.cache(lambda: rebuilding.networks(card)),
        )  # fmt: skip
        found = [unpack(card[name], name, package) for name in ("predictor", "embedder")]
        for one, kind in zip(found, (BatchedPredictor, Embedder)):
            if one is not None and not isinstance(one, kind):
                raise ValueError(f"a {type(one).__name__} stands for a {kind.__name__}")
    except (
        KeyError, TypeError, ValueError, AttributeError, ImportError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path} holds no model that this fgjax can read ({type(error).__name__}: {error}): "
            "export it anew, or install the fgjax that wrote it."
        ) from error

    def give(one: Any, why: str) -> Any:
        if one is None:
            raise UserError(why)
        return one

    none = f"this is a model of {card['method']}, which makes no embeddings for search."
    return Model(
        card,
        lambda: give(found[0], "this model knows no classes of new images: use embed, to search."),
        lambda: give(found[1], none),
        fingerprint=seal[:16],
    )
