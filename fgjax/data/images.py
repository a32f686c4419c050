"""From an image file's bytes to RGB pixels, whatever its kind, and without trusting it."""

import contextlib
import io
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


def decode(data: bytes, name: str = "image", *, buffer: np.ndarray | None = None) -> np.ndarray:
    """Encoded bytes to RGB uint8 [H, W, 3]: turned as EXIF says, transparency on white.

    With a `buffer` (uint8 [n]) that is large enough the pixels may lie in it: fresh memory for
    every image costs a tenth of the time.

    Raises:
      UserError: the image cannot be decoded; names it.
    """
    frame = _jpeg_frame(data)
    if frame is not None and frame.components != 4:  # four components are inks (CMYK)
        fits = buffer is not None and 3 * frame.height * frame.width <= buffer.size
        if not frame.turned:
            with contextlib.suppress(ValueError):  # OpenCV reads some that are broken
                return simplejpeg.decode_jpeg(data, strict=False, buffer=buffer if fits else None)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # turns by EXIF
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


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():  # Pillow warns of large images; `problem` refuses larger ones
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data))


class _Frame(NamedTuple):
    """What a JPEG's header says; zeros where it is broken."""

    components: int = 0
    height: int = 0
    width: int = 0
    turned: bool = False  # EXIF asks to turn or mirror it


def _jpeg_frame(data: bytes) -> _Frame | None:
    """The header of a JPEG; None for other files."""
    if data[:2] != b"\xff\xd8":
        return None
    place, turned = 2, False
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD9 or marker == 0x01:  # fill, or without length
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return _Frame(data[place + 9], height, width, turned)
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            if marker == 0xE1 and data[place + 4 : place + 8] == b"Exif":
                turned = turned or _is_turned(data[place + 4 : end])
            place = end
    return _Frame()  # the decoder will say so


def _is_turned(segment: bytes) -> bool:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return exif.get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # Pillow raises many kinds
        return True  # OpenCV decides


def size_of(data: bytes) -> tuple[int, int]:
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


def read_untrusted(data: bytes, name: str) -> np.ndarray:
    """`decode` of a file from anywhere.

    Raises:
      UserError: it cannot be used; says why.
    """
    why = problem(data)
    if why:
        raise UserError(f"{name}: {why}.")
    return decode(data, name)
