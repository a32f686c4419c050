"""From an image file's bytes to RGB pixels, whatever its kind, and without trusting it."""

import io
import warnings

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fgjax.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
MAX_PIXELS = 200_000_000


def decode(data: bytes, name: str = "image") -> np.ndarray:
    """Encoded bytes to RGB uint8 [H, W, 3]: turned as EXIF says, transparency on white.

    Raises:
      UserError: the image cannot be decoded; names it.
    """
    if _is_plain_jpeg(data):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # turns by EXIF
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
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


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether it is a JPEG of one or three components; four are inks (CMYK)."""
    if data[:2] != b"\xff\xd8":
        return False
    place = 2
    while place + 9 < len(data):
        if data[place] != 0xFF:
            return True  # broken: the decoder will say so
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD9 or marker == 0x01:  # fill, or without length
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            return data[place + 9] != 4
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return True


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
