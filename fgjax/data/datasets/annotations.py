"""Part points and boxes of one's own images, in COCO's or CUB-200-2011's format.

    FILE.json                COCO: images, annotations with `keypoints` and `bbox`, categories
    FOLDER/images.txt        CUB: number and name of each image,
    FOLDER/parts/parts.txt   number and name of each part,
    FOLDER/parts/part_locs.txt            image, part, x, y, visible
    FOLDER/bounding_boxes.txt             image, x, y, width, height; may be missing

Images are named as they lie under the folder of images.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fgjax.data.datasets.splits import Dataset, Split
from fgjax.data.images import upright_size_of
from fgjax.errors import UserError

PART_SIZE = 0.25  # side of a part's box around its point, of the object's longer side; as CUB's


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What is known of some images, in pixels.

    Attributes:
      part_names: P names.
      points: {image: {place of the part: (x, y)}} of the visible ones.
      boxes: {image: (x, y, width, height)} of the object.
      digest: of all of it.
    """

    part_names: tuple[str, ...]
    points: dict[str, dict[int, tuple[float, float]]]
    boxes: dict[str, tuple[float, float, float, float]]
    digest: str


def annotate(dataset: Dataset, path: str, files: Mapping[str, str]) -> Dataset:
    """A dataset with the boxes and parts of an annotation file; what it does not name has none.

    Args:
      dataset: of a folder.
      path: of the file, or of a folder in CUB's format.
      files: {name: path} of all files there, those that are no readable images included.

    Raises:
      UserError: the annotations cannot be read, name an image that is not there, or a point that
        lies outside of its image.
    """
    found = read(pathlib.Path(path).expanduser())
    lost = sorted((found.points.keys() | found.boxes.keys()) - files.keys())
    if lost:
        more = f" and {len(lost) - 1} others" if len(lost) > 1 else ""
        raise UserError(
            f"{path} names the image {lost[0]}{more}, which the folder of images does not have: "
            "names are meant from there, as CLASS/IMAGE.jpg."
        )
    fingerprint = hashlib.sha256(f"{dataset.fingerprint} {found.digest}".encode()).hexdigest()
    return dataclasses.replace(
        dataset,
        train=_annotated(dataset.train, found, path, files),
        test=_annotated(dataset.test, found, path, files),
        part_names=found.part_names,
        part_regions={name: (place,) for place, name in enumerate(found.part_names)},
        fingerprint=fingerprint[:16],
    )


def _annotated(split: Split, found: Annotations, path: str, files: Mapping[str, str]) -> Split:
    boxes = np.full((len(split), 4), np.nan, np.float32)
    parts = np.full((len(split), len(found.part_names), 4), np.nan, np.float32)
    for row, name in enumerate(split.filenames):
        if name not in found.points and name not in found.boxes:
            continue
        height, width = upright_size_of(pathlib.Path(files[name]))
        sides, longer = np.array([height, width] * 2), max(height, width)
        if name in found.boxes:
            x, y, across, down = found.boxes[name]
            longer = max(across, down)
            boxes[row] = np.clip(np.array([y, x, y + down, x + across]) / sides, 0, 1)
        half = PART_SIZE * longer / 2
        for place, (x, y) in found.points.get(name, {}).items():
            if not (-1 <= x <= width + 1 and -1 <= y <= height + 1):
                raise UserError(
                    f"{path} has {found.part_names[place]} of {name} at ({x:g}, {y:g}), but the "
                    f"image has {width} × {height} pixels."
                )
            corners = np.array([y - half, x - half, y + half, x + half]) / sides
            parts[row, place] = np.clip(corners, 0, 1)
    return dataclasses.replace(split, boxes=boxes, parts=parts)


def read(path: pathlib.Path) -> Annotations:
    """Annotations of a COCO file, or of a folder in CUB's format.

    Raises:
      UserError: there is nothing, or it is not of that format; says where.
    """
    try:
        if path.is_dir():
            part_names, points, boxes = _cub(path)
        else:
            part_names, points, boxes = _coco(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(
            f"data.annotations: {error.filename} cannot be read ({error.strerror})."
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"data.annotations: {path} is neither COCO keypoints nor a folder in CUB's format "
            f"({said})."
        ) from error
    if not part_names:
        raise UserError(f"data.annotations: {path} names no parts.")
    numbers = (*(v for own in points.values() for xy in own.values() for v in xy),
               *(v for box in boxes.values() for v in box))  # fmt: skip
    if not np.isfinite(numbers).all():
        raise UserError(f"data.annotations: {path} holds a coordinate that is not finite.")
    digest = hashlib.sha256(repr((part_names, sorted(points.items()), boxes)).encode()).hexdigest()
    return Annotations(part_names, points, boxes, digest)


def _coco(content: dict[str, Any]):
    """Of several objects in an image the largest counts; points with v = 2 are visible."""
    kinds = {one["id"]: tuple(one.get("keypoints", ())) for one in content["categories"]}
    named = sorted({names for names in kinds.values() if names})
    if len(named) != 1:
        raise ValueError(f"its categories have {len(named)} different lists of keypoints, not one")
    files = {one["id"]: one["file_name"] for one in content["images"]}
    largest: dict[str, dict[str, Any]] = {}
    for one in content["annotations"]:
        name = files[one["image_id"]]
        before = largest.get(name)
        if before is None or _area(one) > _area(before):
            largest[name] = one
    points, boxes = {}, {}
    for name, one in largest.items():
        if "bbox" in one:
            x, y, width, height = map(float, one["bbox"])
            boxes[name] = (x, y, width, height)
        values = one.get("keypoints", ())
        if len(values) not in (0, 3 * len(named[0])):
            raise ValueError(f"{name} has {len(values)} numbers for {len(named[0])} keypoints")
        triples = [values[begin : begin + 3] for begin in range(0, len(values), 3)]
        points[name] = {k: (float(x), float(y)) for k, (x, y, v) in enumerate(triples) if v == 2}
    return named[0], points, boxes


def _area(annotation: dict[str, Any]) -> float:
    _, _, width, height = annotation.get("bbox", (0, 0, 0, 0))
    return float(width) * float(height)


def _cub(folder: pathlib.Path):
    table = lambda *names: _table(folder.joinpath(*names))  # noqa: E731
    files = dict(table("images.txt"))
    parts = table("parts", "parts.txt")
    place = {number: k for k, (number, _) in enumerate(parts)}
    points: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in files.values()}
    for number, rest in table("parts", "part_locs.txt"):
        part, x, y, visible = rest.split()
        if visible == "1":
            points[files[number]][place[part]] = (float(x), float(y))
    boxes = {}
    if (folder / "bounding_boxes.txt").exists():
        for number, rest in table("bounding_boxes.txt"):
            x, y, width, height = map(float, rest.split())
            boxes[files[number]] = (x, y, width, height)
    return tuple(name for _, name in parts), points, boxes


def _table(path: pathlib.Path) -> list[tuple[str, str]]:
    """(first word, the rest) of each line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for line in filter(str.strip, lines):
        first, _, rest = line.strip().partition(" ")
        if not rest:
            raise ValueError(f"{path.name} has the line {line!r}")
        found.append((first, rest))
    return found
