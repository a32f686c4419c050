"""Part images and shuffled sets: masks, labels, donors, shares."""

import dataclasses

import numpy as np
import pytest

from fgjax.config import Augmentation
from fgjax.data.images import Encoded
from fgjax.data.loading import Reader, crop_resize, read_window
from fgjax.data.mixing import Donors
from fgjax.localization import boxes
from fgjax.methods.ghns.part_sets import PartReader, PartSets, replacement_masks

BOXES = np.array([[0.2, 0.0, 0.6, 0.4], [0.3, 0.3, 0.7, 0.7], [0.2, 0.6, 0.6, 1.0]], np.float32)


@pytest.fixture
def reader(tiny_dataset):
    split = tiny_dataset.train
    parts = np.broadcast_to(BOXES, (len(split), 3, 4))
    return PartReader(Reader(split, 32, Augmentation(flip=False), None, parts), 16)


def test_six_masks_replace_one_or_two_of_three():
    masks = replacement_masks(3).astype(int).tolist()
    assert masks == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert len(replacement_masks(4)) == 14


def test_parts_are_cut_out_of_the_crop(reader):
    reader = dataclasses.replace(reader, original=False)
    images, found = reader.read(5)
    whole, _ = reader.reader.read(5)
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    for image, box in zip(images, found):
        np.testing.assert_array_equal(image, crop_resize(whole, box, 16))


def test_a_part_outside_the_random_crop_still_has_a_picture(reader):
    tight = dataclasses.replace(
        reader, reader=dataclasses.replace(reader.reader, augmentation=Augmentation(crop_scale=0.2))
    )
    for seed in range(20):
        images, _ = tight.read(3, np.random.default_rng(seed))
        assert images.shape == (3, 16, 16, 3)


def test_sets_are_shuffled_half_of_the_time_with_parts_of_other_classes(reader, tiny_dataset):
    split = tiny_dataset.train
    sets = PartSets(reader, Donors(split.labels, np.arange(len(split))), seed=3)
    shuffled, masks = 0, set()
    for position in range(300):
        example = sets(position, position % len(split))
        own = split.labels[position % len(split)]
        replaced = example["labels"] != own
        assert replaced.any() == bool(example["is_shuffled"]) and not replaced.all()
        assert example["label"] == own
        if replaced.sum() == 2:  # two parts come from two different other classes
            assert len(set(example["labels"].tolist())) == 3
        shuffled += int(example["is_shuffled"])
        masks.add(tuple(replaced.tolist()))
    assert 110 < shuffled < 190
    assert masks == {tuple(m) for m in replacement_masks(3).tolist()} | {(False,) * 3}


def test_a_set_depends_on_seed_and_position_alone(reader, tiny_dataset):
    donors = Donors(tiny_dataset.train.labels, np.arange(len(tiny_dataset.train)))
    one, two = (PartSets(reader, donors, seed=3)(7, 11) for _ in range(2))
    np.testing.assert_array_equal(one["image"], two["image"])
    assert not np.array_equal(one["image"], PartSets(reader, donors, seed=4)(7, 11)["image"])


def test_parts_are_cut_from_the_original_pixels(reader, tiny_dataset):
    """Of an image larger than the crop: sharper than the crop's, at the same place."""
    own = dataclasses.replace(
        reader, size=24, reader=dataclasses.replace(reader.reader, size=16, windows=None)
    )
    images, found = own.read(5)
    file = Encoded(tiny_dataset.train.source[5]["image"])
    for image, box in zip(images, found):
        np.testing.assert_array_equal(
            image, read_window(file, box, 24, banner=own.split.crop_bottom)
        )
    blurred, _ = dataclasses.replace(own, original=False).read(5)
    edges = lambda x: np.abs(np.diff(x.astype(float), axis=2)).mean()  # noqa: E731
    assert edges(images) > 1.2 * edges(blurred)


def test_flips_and_crops_reach_the_parts(reader):
    """Cut either way, the parts of an augmented view show the same."""
    free = dataclasses.replace(
        reader, size=32,
        reader=dataclasses.replace(
            reader.reader, size=128, augmentation=Augmentation(crop_scale=0.7, color=True)
        ),
    )  # fmt: skip
    resized = dataclasses.replace(free, original=False)
    for seed in range(8):
        one, found = free.read(7, np.random.default_rng(seed))
        other, same = resized.read(7, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, same)
        difference = np.abs(one.astype(float) - other).mean(axis=(1, 2, 3))
        assert (difference < 12).all(), seed


def test_a_part_has_a_crop_of_its_own(reader, tiny_dataset, monkeypatch):
    """A random one of its own box, wherever the object's crop lies; flips are the object's."""
    tight = dataclasses.replace(
        reader, own_crops=True,
        reader=dataclasses.replace(
            reader.reader, augmentation=Augmentation(crop_scale=0.6),
            windows=np.broadcast_to(np.array([0.1, 0, 0.9, 0.5], np.float32), (96, 4)),
        ),
    )  # fmt: skip
    asked = []
    monkeypatch.setattr(Reader, "render", lambda self, index, view, *, size: (
        asked.append(view), np.zeros((size, size, 3), np.uint8))[1])  # fmt: skip
    for seed in range(60):
        tight.read(5, np.random.default_rng(seed))
    windows = np.stack([view.window for view in asked]).reshape(60, 3, 4)
    in_image = boxes.from_window(BOXES, np.array([[0.1, 0, 0.9, 0.5]], np.float32))
    inside = (windows - np.tile(in_image[:, :2], 2)) / np.tile(in_image[:, 2:] - in_image[:, :2], 2)
    assert inside.min() > -1e-5 and inside.max() < 1 + 1e-5
    sides = inside[..., 2:] - inside[..., :2]
    np.testing.assert_allclose(sides[..., 0], sides[..., 1], atol=1e-4)
    assert sides.min() > 0.6 - 1e-4 and sides.max() > 0.95 and sides.min() < 0.65
    assert np.ptp(sides[..., 0], axis=1).min() > 1e-3  # each part's is another
    assert 15 < sum(view.flipped for view in asked[::3]) < 45
    asked.clear()
    tight.read(5)  # as it is, where nothing is augmented
    np.testing.assert_allclose([view.window for view in asked], in_image, atol=1e-6)


def test_sets_are_of_several_images_of_their_class(reader, tiny_dataset):
    """Both kinds: no part shares its crop and colours with another, whichever image it is of."""
    split, seen = tiny_dataset.train, []

    class Spy:
        def __init__(self):
            self.split = split

        def read(self, index, rng):
            seen.append(index)
            return np.full((3, 4, 4, 3), index % 251, np.uint8), None

    donors = Donors(split.labels, np.arange(len(split)))
    for position in range(40):
        seen.clear()
        example = PartSets(Spy(), donors, seed=3, several=True)(position, 11)
        shown = example["image"][:, 0, 0, 0]
        assert len(set(shown.tolist())) == 3  # classes have four images here
        kept = example["labels"] == split.labels[11]
        assert kept.all() != bool(example["is_shuffled"])
        for part in range(3):
            assert (
                int(split.labels[seen[[s % 251 for s in seen].index(shown[part])]])
                == (example["labels"][part])
            )
        assert 11 in seen and example["label"] == split.labels[11]
