"""Boxes on images, and sheets of images with captions.

Every picture that is written says in captions.json beside it what it shows: the report's readers
may not see it.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from fgjax.localization import boxes as boxlib

WHITE, RED, GREEN, BLUE, YELLOW = (
    (255, 255, 255), (230, 60, 60), (70, 210, 90), (80, 140, 255), (250, 220, 60),
)  # fmt: skip
CAPTIONS = "captions.json"
PART_COLORS = (YELLOW, GREEN, BLUE, RED)


def enlarge(image: np.ndarray, side: int = 224) -> np.ndarray:
    """The image with its longer side brought to `side` pixels."""
    factor = side / max(image.shape[:2])
    size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
    method = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=method)


def with_boxes(
    image: np.ndarray, boxes: Iterable[np.ndarray], colors: Sequence[tuple], thickness: int = 2
) -> np.ndarray:
    """A copy of the image with normalised boxes drawn on it; NaN boxes are left out."""
    drawn = np.ascontiguousarray(image)
    drawn = drawn.copy() if drawn is image else drawn
    for box, color in zip(boxes, colors):
        if not np.isnan(box).any():
            y0, x0, y1, x1 = boxlib.to_pixels(box, *drawn.shape[:2])
            cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), color, thickness)
    return drawn


def veiled(image: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """The image, darker where its squares [G, G] count for less than the most important one."""
    share = np.clip(squares / max(float(squares.max()), 1e-9), 0, 1).astype(np.float32)
    height, width = image.shape[:2]
    light = cv2.resize(0.25 + 0.75 * share, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.round(image * light[..., None]).astype(np.uint8)


def sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    path: pathlib.Path,
    *,
    columns: int,
    title: str,
    heads: Sequence[str] = (),
    listed: bool = True,
) -> None:
    """Images in rows with a caption under each; photographs want a path that ends with .webp.

    `listed=False` leaves captions.json beside it alone.
    """
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    below, above = 0.1 + 0.14 * lines, 0.35 + 0.17 * title.count("\n") + 0.2 * bool(heads)
    height, width = (2.2 + below) * rows + above, 2.3 * columns
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    figure.subplots_adjust(
        left=0.05 / width, right=1 - 0.05 / width, top=1 - above / height, bottom=below / height,
        hspace=below / 2.2, wspace=0.04,
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for number, (image, caption) in enumerate(zip(images, captions)):
        axis = axes.flat[number]
        axis.imshow(image)
        axis.set_xlabel(caption, fontsize=7, labelpad=2)
        if number < len(heads):
            axis.set_title(heads[number], fontsize=9)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va="top")
    write(figure, path, caption=title if listed else "")


def save(figure, path: pathlib.Path, *, caption: str, top: float = 1.0) -> None:
    """Write a figure, its axes below the share `top` of its height, and let it go."""
    figure.tight_layout(rect=(0, 0, 1, top))
    write(figure, path, caption=caption)


def write(figure, path: pathlib.Path, *, caption: str) -> None:
    """Write a figure as it is, and let it go; what it shows goes into captions.json, if said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lossy = {"pil_kwargs": {"quality": 85, "method": 4}} if path.suffix == ".webp" else {}
    figure.savefig(path, dpi=110, **lossy)
    plt.close(figure)
    if not caption:
        return
    listed = captions(path.parent) | {path.name: " ".join(caption.split())}
    text = json.dumps(listed, ensure_ascii=False, indent=1)
    (path.parent / CAPTIONS).write_text(text, encoding="utf-8")


def captions(folder: pathlib.Path) -> dict[str, str]:
    """{file name: what it shows} of the pictures in a folder."""
    path = folder / CAPTIONS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
