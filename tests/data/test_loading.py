"""The pipeline is a pure function of (seed, step)."""

import dataclasses
import itertools
from unittest import mock

import cv2
import numpy as np
import pytest

from fgjax import hosts
from fgjax.config import Augmentation, Data
from fgjax.data import images, loading, mixing, splits
from fgjax.errors import UserError
from fgjax.localization import boxes


@pytest.fixture
def reader(tiny_dataset):
    return loading.Reader(
        tiny_dataset.train, 32, Augmentation(color=True, flip=True), parts=tiny_dataset.train.parts
    )


def stream(reader, seed=5):
    indices = np.arange(0, 96, 2)
    donors = mixing.Donors(reader.split.labels, indices)
    return loading.stream(indices, mixing.SetMixing(reader, donors, seed), seed=seed)


def take(dataset, count, **options):
    iterator = loading.batches(dataset, batch_size=4, **options)
    return list(itertools.islice(iterator, count))


def assert_equal(ones, others):
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_batches_do_not_depend_on_workers_or_prefetch(reader):
    plain = take(stream(reader), 4)
    assert_equal(plain, take(stream(reader), 4, data=Data(workers=0, prefetch=7)))
    assert_equal(plain, take(stream(reader), 4, data=Data(workers=1, prefetch=1)))
    assert_equal(plain, take(stream(reader), 4, data=Data(workers=2, prefetch=3)))


def test_a_slice_is_a_resumed_run(reader):
    whole = take(stream(reader), 9)
    assert_equal(whole[5:], take(stream(reader), 4, start=5))
    assert len(list(loading.batches(stream(reader), batch_size=4, start=5, stop=7))) == 2


def test_two_processes_see_the_rows_of_one(reader):
    def looked():
        return [
            batch for batch, _ in loading.evaluation_batches(reader, np.arange(10), batch_size=4)
        ]

    whole = [*take(stream(reader), 3), *looked()]
    halves = []
    for process in range(2):
        with (
            mock.patch.object(hosts, "count", lambda: 2),
            mock.patch.object(hosts, "index", lambda p=process: p),
        ):
            halves.append([*take(stream(reader), 3), *looked()])
    joined = [
        {name: np.concatenate([one[name], two[name]]) for name in one}
        for one, two in zip(*halves, strict=True)
    ]
    assert_equal(whole, joined)


def test_seeds_and_epochs_differ(reader):
    assert not np.array_equal(
        take(stream(reader), 1)[0]["image"], take(stream(reader, seed=6), 1)[0]["image"]
    )
    order = np.concatenate([b["index"] for b in take(stream(reader), 24)])
    first, second = order[:48], order[48:]
    assert sorted(first) == sorted(second) == list(range(0, 96, 2))
    assert not np.array_equal(first, second)


def test_evaluation_sees_every_image_once_in_order(reader):
    seen = []
    for batch, rows in loading.evaluation_batches(reader, np.arange(10), batch_size=4):
        assert batch["image"].shape == (4, 32, 32, 3) and batch["image"].dtype == np.uint8
        np.testing.assert_array_equal(batch["index"][: len(rows)], rows)
        seen += rows.tolist()
    assert seen == list(range(10))


def test_flips_and_crops_move_the_parts_with_the_pixels(tiny_dataset):
    """A marker painted on a part is still inside the part's box after augmentation."""
    image = np.zeros((64, 64, 3), np.uint8)
    part = np.array([[0.30, 0.55, 0.60, 0.85]], np.float32)
    image[20:38, 36:54] = 255
    split = dataclasses.replace(tiny_dataset.train, source=[{"image": b""}] * 96)
    reader = loading.Reader(
        split, 64, Augmentation(crop_scale=0.8, flip=True), parts=np.repeat(part[None], 96, 0)
    )
    with mock.patch.object(loading, "decode", lambda *a, **k: image):
        for seed in range(20):
            pixels, found = reader.read(0, np.random.default_rng(seed))
            y0, x0, y1, x1 = boxes.to_pixels(found[0], 64, 64)
            inside = pixels[y0:y1, x0:x1].sum()
            assert inside > 0.97 * pixels.sum()


@pytest.mark.parametrize("shape", [(64, 64), (96, 64), (150, 130), (300, 90), (40, 50)])
def test_resizing_keeps_edges_where_they_are(shape):
    """An image of two halves stays one, whatever the factor; no pixel is lost at the border."""
    height, width = shape
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2 :, :, 0] = 200
    image[:, width // 2 :, 1] = 200
    found = loading.crop_resize(image, boxes.WHOLE, 32).astype(float)
    np.testing.assert_allclose(found[..., 0].mean(), 100, atol=4)
    np.testing.assert_allclose(found[..., 1].mean(), 100, atol=4)
    assert (found[18:, :, 0] == 200).all() and (found[:14, :, 0] == 0).all()
    assert (found[:, 18:, 1] == 200).all() and (found[:, :14, 1] == 0).all()


@pytest.mark.parametrize("factor", [2, 3, 4, 2.5, 3.9])
def test_shrinking_does_not_alias(factor):
    """Noise of single pixels averages out; sampling two pixels of each would keep it."""
    side = int(32 * factor)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    found = loading.crop_resize(image, boxes.WHOLE, 32).astype(float)
    exact = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    assert found.std() < 1.1 * exact.std()


def test_images_do_not_share_memory(tiny_dataset):
    """What one read returned is not overwritten by the next."""
    reader = loading.Reader(tiny_dataset.train, 32, Augmentation())
    first, _ = reader.read(0, np.random.default_rng(0))
    kept = first.copy()
    for row in range(1, 5):
        reader.read(row)
    np.testing.assert_array_equal(first, kept)


def test_held_out_is_stratified_and_reproducible():
    labels = np.repeat(np.arange(5), [20, 10, 1, 2, 7])
    train, held = splits.split_held_out(labels, 0.2, seed=3)
    assert sorted([*train, *held]) == list(range(40))
    assert np.bincount(labels[held], minlength=5).tolist() == [4, 2, 0, 0, 1]
    again = splits.split_held_out(labels, 0.2, seed=3)
    np.testing.assert_array_equal(held, again[1])
    assert len(splits.split_held_out(labels, 0.0, seed=3)[1]) == 0


def test_several_views_of_an_image_decode_it_once(tiny_dataset, monkeypatch):
    decoded = []

    def decode(data, name="image", **options):
        decoded.append(name)
        return images.decode(data, name, **options)

    monkeypatch.setattr(loading, "decode", decode)
    reader = loading.Reader(tiny_dataset.train, 32, Augmentation(crop_scale=0.9))
    rng = np.random.default_rng(0)
    views = [reader.read(row, rng)[0] for row in (3, 3, 3, 4, 3)]
    assert len(decoded) == 3 and decoded[0] == decoded[2] != decoded[1]
    rng = np.random.default_rng(0)
    for row, view in zip((3, 3, 3, 4, 3), views):
        loading._memory.last = None
        np.testing.assert_array_equal(reader.read(row, rng)[0], view)


def test_whole_classes_are_held_out():
    labels = np.repeat(np.arange(10), 3)
    train, held = splits.split_held_out_classes(labels, 0.3, seed=3)
    assert sorted([*train, *held]) == list(range(30))
    assert len(set(labels[held])) == 3 and not set(labels[held]) & set(labels[train])
    np.testing.assert_array_equal(held, splits.split_held_out_classes(labels, 0.3, seed=3)[1])
    other = splits.split_held_out_classes(labels, 0.3, seed=4)[1]
    assert set(labels[other]) != set(labels[held])
    assert len(splits.split_held_out_classes(labels, 0.0, seed=3)[1]) == 0
    assert set(labels[splits.split_held_out_classes(labels, 0.99, seed=3)[0]])  # one stays


def test_an_unreadable_image_names_its_file():
    with pytest.raises(UserError, match=r"bad\.jpg"):
        images.decode(b"not an image", "bad.jpg")
