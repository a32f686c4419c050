"""Pictures inside a page: photographs as small WebP, a reliability diagram as SVG."""

import base64
import pathlib

import cv2
import numpy as np

from fgjax.figures import drawing

THUMBNAIL = 176  # pixels of the longer side
WIDEST = 1500  # pixels of a figure


def webp(image: np.ndarray, *, quality: int = 80) -> str:
    """An RGB image as the address that an <img> takes."""
    found, data = cv2.imencode(
        ".webp", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, quality]
    )
    if not found:
        raise ValueError(f"an image of {image.shape} could not be written as WebP.")
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()


def thumbnail(image: np.ndarray) -> str:
    """The same of an image of `THUMBNAIL` pixels."""
    return webp(drawing.enlarge(image, THUMBNAIL), quality=75)


def figure(path: pathlib.Path) -> tuple[str, int, int]:
    """The same of a picture that lies in a file; its width and height."""
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is no picture.")
    image = image[..., ::-1]
    height, width = image.shape[:2]
    if width > WIDEST:
        height, width = round(height * WIDEST / width), WIDEST
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return webp(image), width, height


def reliability(bins: dict[str, np.ndarray]) -> str:
    """How often answers are right over how sure they were: an SVG in the page's own colours."""
    side, left, below = 280, 44, 40
    x = lambda share: left + share * side  # noqa: E731
    y = lambda share: 10 + (1 - share) * side  # noqa: E731
    parts = [
        f'<svg viewBox="0 0 {left + side + 22} {side + below + 10}" role="img" '
        'aria-labelledby="reliability-title" class="chart">',
        '<title id="reliability-title">How often answers are right, over how sure they were'
        "</title>",
        f'<path class="axis" d="M{x(0)} {y(1)}V{y(0)}H{x(1)}"/>',
        f'<path class="ideal" d="M{x(0)} {y(0)}L{x(1)} {y(1)}"/>',
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        label = f"{100 * tick:.0f} %"
        parts.append(f'<text x="{x(tick)}" y="{y(0) + 16}" text-anchor="middle">{label}</text>')
        parts.append(f'<text x="{left - 5}" y="{y(tick) + 4}" text-anchor="end">{label}</text>')
    most = max(float(bins["images"].max()), 1.0)
    points = []
    for count, confidence, accuracy in zip(bins["images"], bins["confidence"], bins["accuracy"]):
        if count:
            place = f"{x(confidence):.1f},{y(accuracy):.1f}"
            radius = 3 + 6 * float(np.sqrt(count / most))
            points.append(place)
            parts.append(
                f'<circle class="dot" cx="{x(confidence):.1f}" cy="{y(accuracy):.1f}" '
                f'r="{radius:.1f}"><title>{int(count)} images: {100 * confidence:.0f} % sure, '
                f"{100 * accuracy:.0f} % right</title></circle>"
            )
    parts.append(f'<polyline class="line" points="{" ".join(points)}"/>')
    parts.append(
        f'<text x="{x(0.5)}" y="{y(0) + 34}" text-anchor="middle">how sure (probability)</text>'
    )
    return "".join(parts) + "</svg>"
