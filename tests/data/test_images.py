"""Every kind of image file comes out as the same RGB pixels."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from fgjax.data import images
from fgjax.errors import UserError


def gradient(height=24, width=36):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7, y * 10, 255 - x * 5], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def close(one, other, tolerance=4.0):
    assert one.shape == other.shape and one.dtype == np.uint8
    assert np.abs(one.astype(float) - other).mean() < tolerance


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 98, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}),
     ("BMP", {}), ("JPEG", {"quality": 98, "subsampling": 0, "progressive": True})],
)  # fmt: skip
def test_kinds(kind, options):
    close(images.decode(encoded(Image.fromarray(gradient()), kind, **options)), gradient())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(kind):
    """A picture that says it lies on its side is turned upright."""
    upright = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)
    close(images.decode(data), gradient())


def test_pixels_may_lie_in_a_buffer_that_is_large_enough():
    data = encoded(Image.fromarray(gradient()), "JPEG", quality=98, subsampling=0)
    buffer = np.zeros(gradient().size + 10, np.uint8)
    found = images.decode(data, buffer=buffer)
    assert np.shares_memory(found, buffer)
    np.testing.assert_array_equal(found, images.decode(data))
    assert not np.shares_memory(images.decode(data, buffer=buffer[:20]), buffer)


def test_exif_without_an_orientation_changes_nothing():
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=exif, quality=98, subsampling=0)
    close(images.decode(data), gradient())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey(kind):
    grey = gradient()[..., 0]
    close(images.decode(encoded(Image.fromarray(grey), kind)), np.repeat(grey[..., None], 3, 2))


def test_sixteen_bits_of_grey():
    deep = gradient()[..., 0].astype(np.uint16) * 257
    data = encoded(Image.fromarray(deep), "PNG")
    close(images.decode(data), np.repeat(gradient()[..., :1], 3, 2), 1)


def test_four_inks():
    data = encoded(Image.fromarray(gradient()).convert("CMYK"), "JPEG", quality=98, subsampling=0)
    close(images.decode(data), gradient())


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_lies_on_white(kind):
    pixels = np.dstack([gradient(), np.full((24, 36), 255, np.uint8)])
    pixels[:12, :, 3] = 0
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = images.decode(encoded(Image.fromarray(pixels), kind, **options))
    assert (found[:12] == 255).all()
    close(found[12:], gradient()[12:])


def test_palette_with_a_transparent_colour():
    image = Image.fromarray((gradient()[..., 0] > 100).astype(np.uint8), "L").convert("P")
    image.putpalette([200, 0, 0, 0, 0, 200] + [0] * 750)
    found = images.decode(encoded(image, "PNG", transparency=0))
    mask = gradient()[..., 0] > 100
    assert (found[~mask] == 255).all() and (found[mask] == [0, 0, 200]).all()


def bomb(width, height):
    """A PNG whose header announces a size that nothing follows."""
    import struct
    import zlib

    def chunk(name, body):
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize("size", [(15_000, 14_000), (100_000, 100_000)])
def test_absurd_sizes_are_refused_by_their_header(size, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(images, "decode", never)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "more" in images.problem(bomb(*size))


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\xff\xd8" + b"\x00" * 50])
def test_what_is_no_image(data):
    assert images.problem(data)
    with pytest.raises(UserError, match=r"here\.jpg"):
        images.check(data, "here.jpg")


def test_a_truncated_jpeg_is_no_image():
    data = encoded(Image.fromarray(gradient(200, 300)), "JPEG")
    assert images.problem(data) is None
    assert images.problem(data[: len(data) // 3]) == "the JPEG is cut short"


def test_sizes_come_from_headers():
    assert images.size_of(encoded(Image.fromarray(gradient()), "WEBP")) == (24, 36)
