"""From an image file's bytes to RGB pixels, whatever its kind, and without trusting it."""

import contextlib
import io
import pathlib
import struct
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fgjax.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
MAX_PIXELS = 200_000_000


_REDUCED = {
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8,
}  # fmt: skip


class Encoded(NamedTuple):
    """An image file's bytes and its name, not yet decoded."""

    data: bytes
    name: str = "image"


def decode(
    data: bytes, name: str = "image", *, buffer: np.ndarray | None = None, factor: int = 1
) -> np.ndarray:
    """Encoded bytes to RGB uint8 [H, W, 3]: turned as EXIF says, transparency on white.

    With a `buffer` (uint8 [n]) that is large enough the pixels may lie in it: fresh memory for
    every image costs a tenth of the time. A `factor` of 2, 4 or 8, only for what has a `frame_of`,
    gives [⌈H / factor⌉, ⌈W / factor⌉, 3] from the low frequencies of the JPEG's blocks.

    Raises:
      UserError: the image cannot be decoded; names it.
    """
    frame = _jpeg_frame(data)
    if frame is not None and frame.components != 4:  # four components are inks (CMYK)
        height, width = -(-frame.height // factor), -(-frame.width // factor)
        fits = buffer is not None and 3 * height * width <= buffer.size
        if frame.orientation == 1:
            with contextlib.suppress(ValueError):  # OpenCV reads some that are broken
                return simplejpeg.decode_jpeg(
                    data, strict=False, buffer=buffer if fits else None,
                    min_factor=factor, min_height=height, min_width=width,
                )  # fmt: skip
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[factor])  # turns by EXIF
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    else:
        try:
            return _by_pillow(data)
        except (OSError, ValueError, SyntaxError):
            pass
    raise UserError(f"{name} is not a readable image; prepare the dataset again or remove it.")


def _by_pillow(data: bytes) -> np.ndarray:
    """Other kinds, and JPEGs of four inks."""
    with _open(data) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):  # 16 bits of grey, which `convert` would clip
            grey = np.asarray(image, np.float64)
            grey = grey / 257 if image.mode.startswith("I") else grey
            return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            image = Image.alpha_composite(white, layer)
        return np.array(image.convert("RGB"))


def _open(data: bytes | pathlib.Path) -> Image.Image:
    with warnings.catch_warnings():  # Pillow warns of large images; `problem` refuses larger ones
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)


class _Frame(NamedTuple):
    """What a JPEG's header says; zeros where it is broken."""

    components: int = 0
    height: int = 0
    width: int = 0
    orientation: int = 1  # by which EXIF asks to turn or mirror it; 0: it cannot be read


def _jpeg_frame(data: bytes) -> _Frame | None:
    """The header of a JPEG; None for other files."""
    if data[:2] != b"\xff\xd8":
        return None
    place, orientation = 2, 1
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD9 or marker == 0x01:  # fill, or without length
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return _Frame(data[place + 9], height, width, orientation)
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            exif = marker == 0xE1 and data[place + 4 : place + 8] == b"Exif"
            if exif and orientation == 1:
                orientation = _orientation(data[place + 4 : end])
            place = end
    return _Frame()  # the decoder will say so


def _orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        found = exif.get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 0
    except Exception:  # Pillow raises many kinds
        return 0  # OpenCV decides


class Frame(NamedTuple):
    """A JPEG as it stands upright, for decoding it at a reduced size.

    Attributes:
      height: in pixels, like `width`.
      from_bottom: the upright image's first row is where the file ends, with what its last blocks
        lack; otherwise its last row is.
      from_right: likewise, its first column.
    """

    height: int
    width: int
    from_bottom: bool = False
    from_right: bool = False


def frame_of(data: bytes) -> Frame | None:
    """What the header of a JPEG says; None for other kinds, four inks and broken headers."""
    found = _jpeg_frame(data)
    if found is None or found.components not in (1, 3) or not found.orientation:
        return None
    height, width, turn = found.height, found.width, found.orientation
    if turn >= 5:
        height, width = width, height
    return Frame(height, width, turn in (3, 4, 7, 8), turn in (2, 3, 6, 7))


def upright_size_of(file: pathlib.Path) -> tuple[int, int]:
    """Height and width of an image as people see it, turned by EXIF; only its header is read.

    Raises:
      ValueError: there is no such header.
    """
    height, width = size_of(file)
    with _open(file) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def size_of(data: bytes | pathlib.Path) -> tuple[int, int]:
    """Height and width from an image's header, without decoding its pixels.

    Raises:
      ValueError: there is no such header; says why.
    """
    try:
        with _open(data) as image:
            return image.height, image.width
    except Image.DecompressionBombError as error:
        raise ValueError("its header announces more pixels than fgjax decodes") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError("not a readable image") from error


def problem(data: bytes) -> str | None:
    """Why an image cannot be used, or None; a size beyond reason is refused before decoding."""
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < len(data) // 2:
        return "the JPEG is cut short"
    try:
        height, width = size_of(data)
    except ValueError as error:
        return str(error)
    if height * width > MAX_PIXELS:
        return f"{width} × {height} pixels is more than fgjax decodes"
    try:
        decode(data)
    except UserError:
        return "not a readable image"
    return None


def check(data: bytes, name: str) -> Encoded:
    """A file from anywhere that can be decoded.

    Raises:
      UserError: it cannot be used; says why.
    """
    why = problem(data)
    if why:
        raise UserError(f"{name}: {why}.")
    return Encoded(data, name)
