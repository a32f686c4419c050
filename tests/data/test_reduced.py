"""Large JPEGs are decoded at a reduced size, by one rule, and show the same window."""

import dataclasses
import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fgjax import predict, search
from fgjax.config import Augmentation
from fgjax.data import images, loading
from fgjax.data.images import Encoded
from fgjax.errors import UserError
from fgjax.localization import boxes
from fgjax.methods.shared.predictor import BatchedPredictor, Embedder
from fgjax.model_files import Model

BOX = np.array([0.1875, 0.34375, 0.8125, 0.9375], np.float32)  # exact in float32
UNTURN = {  # how an upright image is stored under an orientation of EXIF
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: p.swapaxes(0, 1)[::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1], 8: lambda p: p.swapaxes(0, 1)[:, ::-1],
}  # fmt: skip


def smooth(height, width):
    """A picture in which half a pixel of the result shows: 255 levels within a few of them."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 23), np.sin(y / 19), np.sin((x + y) / 31)]
    return (127 + 120 * np.stack(waves, -1)).astype(np.uint8)


def jpeg(pixels, orientation=1):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(UNTURN[orientation](pixels))
    Image.fromarray(stored).save(stream, "JPEG", quality=98, subsampling=0, exif=exif)
    return stream.getvalue()


def average(pixels, window, size):
    """The exact area average of a window that may end inside a pixel."""

    def weights(low, high, count):
        edges, pixel = np.linspace(low * count, high * count, size + 1), np.arange(count)
        common = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        return np.maximum(common, 0) / np.maximum(common, 0).sum(1, keepdims=True)

    y0, x0, y1, x1 = np.asarray(window, float)
    rows, columns = weights(y0, y1, pixels.shape[0]), weights(x0, x1, pixels.shape[1])
    return np.einsum("sy,yxc,tx->stc", rows, pixels.astype(float), columns, optimize=True)


@pytest.fixture
def factors(monkeypatch):
    """The factors by which images were decoded."""
    seen = []

    def decode(*arguments, factor=1, **options):
        seen.append(factor)
        return images.decode(*arguments, factor=factor, **options)

    monkeypatch.setattr(loading, "decode", decode)
    return seen


@pytest.mark.parametrize(
    ("height", "width", "window", "size", "factor"),
    [
        (375, 500, boxes.WHOLE, 128, 1),  # 375 < 2 · 2 · 128
        (511, 800, boxes.WHOLE, 128, 1),
        (512, 800, boxes.WHOLE, 128, 2),
        (2000, 3000, boxes.WHOLE, 448, 2),  # 2000 / 2 ≥ 896, 2000 / 4 < 896
        (2000, 3000, boxes.WHOLE, 224, 4),
        (2000, 3000, boxes.WHOLE, 96, 8),
        (9000, 9000, boxes.WHOLE, 96, 8),  # libjpeg goes no further
        (2000, 3000, [0, 0, 0.5, 1], 224, 2),  # 1000 rows
        (2000, 3000, [0.4, 0.4, 0.41, 0.41], 224, 1),
        (2000, 40_000, boxes.WHOLE, 224, 1),
        (0, 0, boxes.WHOLE, 32, 1),
    ],
)
def test_the_window_keeps_twice_the_size(height, width, window, size, factor):
    assert loading.reduction(height, width, np.array(window), size) == factor


sides = st.integers(1, 20_000)


@given(sides, sides, st.integers(1, 500), st.floats(0, 0.9), st.floats(0.05, 1))
def test_the_factor_is_the_largest_that_does_whatever_the_sides_order(h, w, size, low, extent):
    window = np.array([low, low, min(low + extent, 1), min(low + extent, 1)])
    y0, x0, y1, x1 = boxes.to_pixels(window, h, w)
    shorter, factor = min(y1 - y0, x1 - x0), loading.reduction(h, w, window, size)
    assert factor in (1, 2, 4, 8) and factor == loading.reduction(w, h, window, size)
    assert factor == 1 or shorter >= 2 * size * factor
    assert factor == 8 or shorter < 2 * size * 2 * factor


@pytest.mark.parametrize("orientation", UNTURN)
@pytest.mark.parametrize("shape", [(400, 520), (401, 523), (397, 407)])
@pytest.mark.parametrize(("size", "factor"), [(60, 2), (30, 4), (15, 8)])
@pytest.mark.parametrize("window", [boxes.WHOLE, BOX])
def test_the_window_stays_in_its_place(orientation, shape, size, factor, window, factors):
    """Sizes that no factor divides and every turn: a quarter of a pixel off would be seen."""
    pixels = smooth(*shape)
    size = size if window is boxes.WHOLE else int(size * 0.6)
    found = loading.read_window(Encoded(jpeg(pixels, orientation)), window, size)
    assert factors == [min(factor, loading.reduction(*shape, window, size))] != [1]
    today = loading.crop_resize(pixels, window, size)
    truth = average(pixels, window, size)
    difference = found - truth
    assert np.abs(difference).mean() < max(2.0, np.abs(today - truth).mean())


def test_the_banner_is_measured_in_pixels_of_the_full_image(factors):
    pixels = smooth(420, 520)
    pixels[-21:] = [255, 0, 255]
    found = loading.read_window(Encoded(jpeg(pixels)), boxes.WHOLE, 40, banner=21)
    truth = average(pixels[:-21], boxes.WHOLE, 40)
    assert factors == [4]
    assert np.abs(found - truth).mean() < 2
    window = np.array([1 - 160 / 399, 0, 1, 1])  # at 40 px its last sample lies on the last row
    pixels[:-21] = 128
    assert (
        np.abs(loading.read_window(Encoded(jpeg(pixels)), window, 40, banner=21) - 128.0).max() < 8
    )


def test_a_tiny_window_of_a_huge_image_is_seen_sharp(factors):
    pixels = np.full((2400, 3200, 3), 90, np.uint8)
    pixels[1200:1232, 1600:1632] = np.indices((32, 32)).sum(0)[..., None] % 2 * 200
    window = np.array([1200 / 2400, 1600 / 3200, 1232 / 2400, 1632 / 3200])
    found = loading.read_window(Encoded(jpeg(pixels)), window, 32)
    assert factors == [1]
    assert np.abs(found.astype(int) - pixels[1200:1232, 1600:1632]).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "CMYK"])
def test_other_kinds_are_decoded_whole(kind, factors):
    stream, image = io.BytesIO(), Image.fromarray(smooth(300, 400))
    if kind == "CMYK":
        image.convert("CMYK").save(stream, "JPEG", quality=98)
    else:
        image.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = loading.read_window(Encoded(stream.getvalue()), boxes.WHOLE, 20)
    whole = images.decode(stream.getvalue())
    assert factors == [1]
    np.testing.assert_array_equal(found, loading.crop_resize(whole, boxes.WHOLE, 20))


def test_training_evaluation_prediction_and_search_see_the_same_pixels(
    tiny_dataset, tmp_path, monkeypatch, factors
):
    """One window of one file, by every way that reads it."""
    data, size = jpeg(smooth(403, 501), 6), 32
    (tmp_path / "large.jpg").write_bytes(data)
    split = dataclasses.replace(
        tiny_dataset.train, source=[{"image": data}] * 96, filenames=["large.jpg"] * 96
    )
    plain = Augmentation(crop_scale=1.0, flip=False, color=False)
    reader = loading.Reader(split, size, plain, windows=np.repeat(BOX[None], 96, 0))
    evaluated, _ = reader.read(0)
    trained, _ = reader.read(0, np.random.default_rng(0))

    predictor = BatchedPredictor((), size)
    file = images.check(data, "large.jpg")
    predicted = predictor._crops([file], BOX[None])[0]
    np.testing.assert_array_equal(trained, evaluated)
    np.testing.assert_array_equal(predicted, evaluated)
    assert set(factors) == {2}

    embedder = Embedder(size, lambda batch: {"embedding": batch.reshape(len(batch), -1)})
    embedded, _, _ = search.embed_files(embedder, [str(tmp_path / "large.jpg")], batch_size=4)
    whole, _ = dataclasses.replace(reader, windows=None).read(0)
    np.testing.assert_array_equal(embedded[0].reshape(whole.shape), whole)
    np.testing.assert_array_equal(predictor._whole([file])[0], whole)


def test_predict_hands_files_to_the_network_not_their_pixels(tmp_path, monkeypatch):
    """Pixels that are decoded before would escape the rule."""
    (tmp_path / "one.jpg").write_bytes(jpeg(smooth(40, 50)))
    seen = []

    def predictor(files, *, batch_size):
        seen.extend(files)
        return []

    model = Model({}, lambda: predictor, lambda: None, "")
    monkeypatch.setattr(predict, "open_model", lambda path: model)
    predict.predict(tmp_path, [str(tmp_path)])
    assert [type(file) for file in seen] == [Encoded]


def test_drawn_aircraft_of_the_demo_keep_their_pixels(tiny_dataset):
    """128 px at 96: no factor leaves twice the size, so stages of earlier runs are still theirs."""
    reader = loading.Reader(tiny_dataset.train, 96, Augmentation())
    data = tiny_dataset.train.source[3]["image"]
    whole = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    expected = loading.crop_resize(whole, boxes.WHOLE, 96)
    np.testing.assert_array_equal(reader.read(3)[0], expected)


@pytest.mark.parametrize("end", [0.3, 0.02])
def test_a_broken_file_is_refused_in_the_same_words(end):
    data = jpeg(smooth(800, 900))
    with pytest.raises(UserError, match=r"large\.jpg: the JPEG is cut short"):
        images.check(data[: int(len(data) * end)], "large.jpg")
    garbage = data[:2] + bytes(2000) + data[-2:]
    with pytest.raises(UserError, match=r"large\.jpg is not a readable image; prepare"):
        loading.read_window(Encoded(garbage, "large.jpg"), boxes.WHOLE, 32)
    headless = data[: data.index(b"\xff\xda")] + b"\xff\xd9"
    with pytest.raises(UserError, match=r"large\.jpg is not a readable image; prepare"):
        loading.read_window(Encoded(headless[:300], "large.jpg"), boxes.WHOLE, 32)
