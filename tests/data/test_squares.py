"""Images that are not square: squashed, or a square of them (HDCL's protocol)."""

import dataclasses

import cv2
import numpy as np
import pytest

from fgjax.config import Augmentation
from fgjax.data import loading
from fgjax.data.images import Encoded
from fgjax.localization import boxes
from fgjax.methods.shared.predictor import Embedder


def wide(height=80, width=240):
    """Red, green and blue thirds, side by side."""
    image = np.zeros((height, width, 3), np.uint8)
    for third in range(3):
        image[:, third * width // 3 : (third + 1) * width // 3, third] = 255
    return image


def encoded(image, kind):
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100] if kind == ".jpg" else []
    return cv2.imencode(kind, image[..., ::-1], quality)[1].tobytes()


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_square_at_test_and_any_square_in_training(kind, turned, tiny_dataset):
    image = np.ascontiguousarray(wide().transpose(1, 0, 2)) if turned else wide()
    split = dataclasses.replace(
        tiny_dataset.train, source=[{"image": encoded(image, kind)}], filenames=["wide"],
        crop_bottom=0,
    )  # fmt: skip
    plain = Augmentation(crop_scale=1.0, flip=False, color=False)
    reader = loading.Reader(split, 32, plain, square=True)
    middle, _ = reader.read(0)
    assert (middle[..., 1] > 200).mean() > 0.98, "the green third alone"
    squashed, _ = loading.Reader(split, 32, plain).read(0)
    np.testing.assert_allclose((squashed > 128).mean(axis=(0, 1)), [1 / 3] * 3, atol=0.05)
    draws = [reader.read(0, loading.generator(0, draw))[0] for draw in range(60)]
    shares = np.array([(draw > 128).mean(axis=(0, 1)) for draw in draws])
    assert (shares[:, [0, 2]].max(axis=0) > 0.8).all() and (shares[:, 1] > 0.8).any()
    assert (np.minimum(shares[:, 0], shares[:, 2]) < 0.05).all(), "never wider than a third"


def test_a_square_keeps_the_aspect():
    """A circle stays one; squashed it does not."""
    image = np.zeros((90, 180, 3), np.uint8)
    cv2.circle(image, (90, 45), 30, (255, 255, 255), -1)

    def extents(found):
        rows, columns = np.nonzero(found[..., 0] > 128)
        return np.ptp(rows), np.ptp(columns)

    high, across = extents(loading.crop(image, boxes.WHOLE, 90, square=0.5))
    assert abs(int(high) - int(across)) <= 1 and abs(int(high) - 60) <= 2
    high, across = extents(loading.crop(image, boxes.WHOLE, 90))
    assert across < 0.6 * high


def test_a_large_jpeg_is_reduced_by_its_square_and_not_by_its_length():
    """The same pixels as of the square cut out beforehand."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (16, 48, 3)).astype(np.uint8)
    image = cv2.resize(small, (1200, 400), interpolation=cv2.INTER_LINEAR)
    file = Encoded(encoded(image, ".jpg"), "large")
    found = loading.read_window(file, boxes.WHOLE, 32, square=1.0)
    wanted = loading.crop_resize(image, boxes.square_of(400, 1200, 1.0), 32)
    assert np.abs(found.astype(int) - wanted.astype(int)).mean() < 4


def test_search_sees_images_as_training_did():
    """An embedder of squares takes the middle one of files and of pixels."""
    look = lambda pixels: {"embedding": pixels.reshape(len(pixels), -1).astype(np.float32)}  # noqa: E731
    squares, squashed = Embedder(32, look, square=True), Embedder(32, look)
    for given in (wide(), Encoded(encoded(wide(), ".png"), "wide")):
        seen = squares.of_images([given])[0].reshape(32, 32, 3)
        assert (seen[..., 1] > 250).all()
        whole = squashed.of_images([given])[0].reshape(32, 32, 3)
        assert (whole[..., 0] > 250).any() and (whole[..., 2] > 250).any()
