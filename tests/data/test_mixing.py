"""The sets of LAPM: donors, pastes and label weights."""

import dataclasses
import fractions
import types

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.config import Augmentation
from fgjax.data import loading, mixing
from fgjax.data.datasets import Split
from fgjax.data.views import View
from fgjax.localization import boxes

SIZE = 32


@pytest.fixture(scope="module")
def reader():
    """Four images of noise for each of 24 classes; every image has three parts of its own."""
    rng = np.random.default_rng(0)
    encoded = [
        {
            "image": cv2.imencode(".png", rng.integers(0, 255, (40, 48, 3)).astype(np.uint8))[
                1
            ].tobytes()
        }
        for _ in range(96)
    ]
    low = rng.uniform(0, 0.6, (96, 3, 2))
    parts = np.concatenate([low, low + rng.uniform(0.2, 0.4, (96, 3, 2))], axis=2)
    split = Split(
        source=encoded,
        labels=np.repeat(np.arange(24), 4).astype(np.int32),
        boxes=np.full((96, 4), np.nan, np.float32),
        parts=parts.astype(np.float32),
        filenames=tuple(f"{row}.png" for row in range(96)),
    )
    return loading.Reader(split, SIZE, Augmentation(crop_scale=1.0, flip=False), parts=split.parts)


def make(reader, indices=None, **options):
    labels = reader.split.labels
    donors = mixing.Donors(labels, np.arange(len(labels)) if indices is None else indices)
    return mixing.SetMixing(reader, donors, seed=1, describe=True, **options)


def test_weights_by_hand():
    """B takes 8 of 100 pixels, C takes 12 of which 2 were B's."""
    weights = mixing.label_weights([(0, 0, 2, 4), (1, 2, 4, 6)], 10)
    np.testing.assert_allclose(weights, [0.82, 0.06, 0.12])
    exact = [fractions.Fraction(x).limit_denominator(100) for x in weights.tolist()]
    assert sum(exact) == 1


rectangle = st.tuples(
    st.integers(0, 15), st.integers(0, 15), st.integers(16, 31), st.integers(16, 31)
)


@settings(deadline=None, max_examples=50)
@given(st.lists(rectangle, min_size=1, max_size=2))
def test_weights_sum_to_one(rectangles):
    weights = mixing.label_weights(rectangles, SIZE)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert (weights >= 0).all()


class Drawn:
    """Random numbers that are known."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, *arguments):
        assert arguments in ((), (0, 1, 2))
        return self.values.pop(0)


def test_a_random_box_by_hand():
    """θ = 0.75 leaves a quarter of the area, half of each side; θ = 0.36 a side of 0.8, clipped."""
    found = mixing.random_box(Drawn(0.75, np.array([0.5, 0.375])))
    np.testing.assert_allclose(found, [0.25, 0.125, 0.75, 0.625])
    assert found.dtype == np.float32
    found = mixing.random_box(Drawn(0.36, np.array([0.1, 0.9])))
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 1])


def test_positive_sets_keep_the_class_and_negative_ones_do_not(reader):
    both = make(reader)
    for position in range(12):
        example = both(position, 7)
        own = reader.split.labels[7]
        b, c = example["labels"][2, 1:]
        assert example["labels"][1].tolist() == [own, b, c]
        if example["is_positive"]:
            assert b == c == own
        else:
            assert len({int(own), int(b), int(c)}) == 3
        assert example["labels"][3, 0] != own
        np.testing.assert_allclose(example["weights"].sum(axis=1), 1, atol=1e-6)
        assert example["weights"][0].tolist() == [1, 0, 0]
        assert example["image"].dtype == np.uint8


def test_only_the_pasted_parts_change(reader):
    """Outside the pasted boxes a mixture is the reference; inside it is another image."""
    for position in range(6):
        example = make(reader)(position, 11)
        assert example["boxes"].shape == (4, 2, 4) and example["boxes"].dtype == np.int32
        reference = example["image"][0].astype(int)
        for slot, count in ((1, 1), (2, 2)):
            changed = np.zeros((SIZE, SIZE), bool)
            pasted = [box for box in example["boxes"][slot] if box.any()]
            assert len(pasted) == count
            for y0, x0, y1, x1 in pasted:
                changed[y0:y1, x0:x1] = True
            difference = np.abs(example["image"][slot] - reference).sum(axis=-1)
            assert difference[~changed].max() == 0
            assert difference[changed].mean() > 3
            parts = [boxes.to_pixels(box, SIZE, SIZE) for box in reader.parts[11]]
            assert all(tuple(box) in parts for box in pasted)


def test_the_pasted_patch_is_the_donors_same_part(reader):
    """Donors are flat colours per part, so that a patch tells where it came from."""

    corners = np.array([[0, 0, 0.25, 0.25], [0.5, 0, 0.75, 0.5], [0.5, 0.5, 1, 1]], np.float32)

    def painted(index, view, *, out=None):
        image = np.full((SIZE, SIZE, 3), 200 if index == 11 else 0, np.uint8)
        if index != 11:
            for number, box in enumerate(corners):
                y0, x0, y1, x1 = boxes.to_pixels(box, SIZE, SIZE)
                image[y0:y1, x0:x1] = 50 + number
        if out is not None:
            out[:] = image
        return image

    fake = dataclasses.replace(reader)
    object.__setattr__(fake, "render", painted)
    object.__setattr__(fake, "view", lambda index, rng, *, flip=None: View(boxes.WHOLE, corners))
    for position in range(8):
        example = make(fake)(position, 11)
        for slot in (1, 2):
            for box in example["boxes"][slot]:
                if box.any():
                    part = [boxes.to_pixels(p, SIZE, SIZE) for p in corners].index(tuple(box))
                    y0, x0, y1, x1 = box
                    assert (example["image"][slot][y0:y1, x0:x1] == 50 + part).all()


@pytest.mark.parametrize(
    ("ratio", "share"), [((1, 1), 0.5), ((3, 1), 0.75), ((1, 3), 0.25), ((0, 1), 0), ((1, 0), 1)]
)
def test_ratio_is_spread_evenly(ratio, share):
    signs = [mixing.is_positive(k, *ratio) for k in range(40)]
    assert np.mean(signs) == share
    windows = [sum(signs[k : k + sum(ratio)]) for k in range(40 - sum(ratio))]
    assert set(windows) == {ratio[0]}


def test_a_class_with_one_image_takes_the_flipped_reference(reader):
    labels = reader.split.labels
    alone = int(np.flatnonzero(labels == 3)[0])
    others = np.flatnonzero(labels != 3)
    mixer = make(reader, indices=np.append(others, alone), ratio=(1, 0))
    example = mixer(0, alone)
    assert example["labels"][:3].tolist() == [[3] * 3] * 3
    reference = example["image"][0]
    y0, x0, y1, x1 = example["boxes"][1][0]
    flipped = reference[:, ::-1]
    part = [boxes.to_pixels(p, SIZE, SIZE) for p in reader.parts[alone]].index((y0, x0, y1, x1))
    v0, u0, v1, u1 = boxes.to_pixels(boxes.flip(reader.parts[alone])[part], SIZE, SIZE)
    wanted = cv2.resize(flipped[v0:v1, u0:u1], (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(example["image"][1][y0:y1, x0:x1], wanted)


def test_donors_come_from_the_training_indices_alone(reader):
    allowed = np.arange(0, 96, 3)
    donors = mixing.Donors(reader.split.labels, allowed)
    rng = np.random.default_rng(0)
    for _ in range(30):
        assert set(donors.same(0, 2, rng)) <= set(allowed.tolist()) - {0}
        assert set(donors.different(0, 3, rng)) <= set(allowed.tolist())


def test_donors_of_other_classes_differ_from_each_other_too():
    labels = np.repeat(np.arange(4), 5)
    rng = np.random.default_rng(0)
    everyone = mixing.Donors(labels, np.arange(20))
    for _ in range(40):  # three foreign classes for three donors: each of them once
        assert sorted(labels[everyone.different(7, 3, rng)].tolist()) == [0, 2, 3]
    few = mixing.Donors(
        labels, np.arange(10)
    )  # classes 0 and 1: they repeat, never the reference's
    for _ in range(10):
        assert labels[few.different(7, 3, rng)].tolist() == [0, 0, 0]


def test_cutmix_uses_any_box_and_both_images_same_place(reader):
    example = make(reader, kind="cutmix")(1, 5)
    parts = [boxes.to_pixels(p, SIZE, SIZE) for p in reader.parts[5]]
    assert tuple(example["boxes"][1][0]) not in parts
    single = mixing.SingleMixing(
        reader, mixing.Donors(reader.split.labels, np.arange(96)), 1, "cutmix"
    )
    mixed = single(0, 5)
    assert mixed["image"].shape == (1, SIZE, SIZE, 3)
    assert mixed["weights"].sum() == pytest.approx(1)
    plain = mixing.SingleMixing(reader, mixing.Donors(reader.split.labels, np.arange(96)), 1)
    assert plain(0, 5)["weights"].tolist() == [[1, 0, 0]]


class Seen:
    """A reader of flat images that keeps what it was asked for, as it stood at that time."""

    size, split = SIZE, types.SimpleNamespace(labels=np.repeat(np.arange(5), 4))

    def __init__(self):
        self.asked = []

    def view(self, index, rng, *, flip=None):
        self.asked.append((int(index), rng.bit_generator.state["state"]["state"], flip))
        rng.uniform()
        return View(boxes.WHOLE, np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32))

    def render(self, index, view, *, out=None):
        image = np.full((SIZE, SIZE, 3), index, np.uint8)
        if out is not None:
            out[:] = image
        return image


TYPES = {
    "image": np.uint8, "labels": np.int32, "weights": np.float32, "is_positive": np.float32,
    "label": np.int32, "index": np.int32,
}  # fmt: skip


@pytest.mark.parametrize("position", [3, 4])
@pytest.mark.parametrize("kind", ["parts", "cutmix"])
def test_a_set_is_a_function_of_seed_and_position(kind, position):
    """One generator serves the reference, the donors and the boxes, in this order."""
    reader = Seen()
    donors = mixing.Donors(reader.split.labels, np.arange(20))
    mixer = mixing.SetMixing(reader, donors, seed=5, kind=kind)
    example = mixer(position, 6)
    assert {name: value.dtype for name, value in example.items()} == TYPES
    assert (example["label"], example["index"]) == (1, 6)
    positive = position == 3
    assert example["is_positive"] == positive
    rng = loading.generator(5, position)
    again = Seen()
    again.view(6, rng)
    rows = donors.same(6, 2, rng) if positive else donors.different(6, 3, rng)
    for row in rows:
        again.view(row, rng)
    if positive:
        rows += donors.different(6, 1, rng)
        again.view(rows[-1], rng)
    assert reader.asked == again.asked
    labels = reader.split.labels[rows]
    assert example["labels"].tolist() == [
        [1, 1, 1], [1, labels[0], labels[1]], [1, labels[0], labels[1]], [labels[2]] * 3,
    ]  # fmt: skip
    assert example["weights"][[0, 3]].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert (example["image"][0] == 6).all() and (example["image"][3] == rows[2]).all()
    corners = [np.array([0, 0, 0.5, 0.5]), np.array([0.5, 0.5, 1, 1])]
    plans = [[(0, None)], [(0, None), (1, None)]]  # slot by slot: which donor, which part
    if kind == "parts":
        first, second = rng.permutation(2)
        plans = [[(0, rng.integers(2))], [(0, first), (1, second)]]
    wanted = np.full((2, SIZE, SIZE), 6, np.uint8)
    for slot, plan in enumerate(plans):
        for donor, part in plan:
            box = corners[part] if kind == "parts" else mixing.random_box(rng)
            y0, x0, y1, x1 = boxes.to_pixels(box, SIZE, SIZE)
            wanted[slot, y0:y1, x0:x1] = rows[donor]
    np.testing.assert_array_equal(example["image"][1:3, ..., 0], wanted)
    for slot in (1, 2):
        shares = [np.mean(wanted[slot - 1] == image) for image in (6, *rows[:2])]
        np.testing.assert_allclose(example["weights"][slot], shares, rtol=1e-6)


@pytest.mark.parametrize("kind", ["none", "cutmix"])
def test_a_single_image_is_a_function_of_seed_and_position(kind):
    reader, allowed = Seen(), np.arange(8, 20)
    mixer = mixing.SingleMixing(reader, mixing.Donors(reader.split.labels, allowed), 5, kind)
    example = mixer(9, 6)
    assert {name: value.dtype for name, value in example.items()} == TYPES
    assert (example["label"], example["index"], example["is_positive"]) == (1, 6, 0)
    rng, again, wanted, other = loading.generator(5, 9), Seen(), np.full((SIZE, SIZE), 6), 1
    again.view(6, rng)
    if kind == "cutmix":
        row = int(rng.choice(allowed))
        again.view(row, rng)
        y0, x0, y1, x1 = boxes.to_pixels(mixing.random_box(rng), SIZE, SIZE)
        wanted[y0:y1, x0:x1], other = row, row // 4
    assert reader.asked == again.asked
    np.testing.assert_array_equal(example["image"][0, ..., 1], wanted)
    assert example["labels"].tolist() == [[1, other, 1]]
    share = np.mean(wanted != 6)
    np.testing.assert_allclose(example["weights"], [[1 - share, share, 0]], rtol=1e-6)


def test_a_class_of_two_images_has_one_donor_and_the_flipped_reference():
    reader = Seen()
    donors = mixing.Donors(reader.split.labels, np.array([6, 7, 0, 1, 8]))
    example = mixing.SetMixing(reader, donors, seed=0, ratio=(1, 0))(0, 6)
    assert [(row, flip) for row, _, flip in reader.asked[:3]] == [(6, None), (7, None), (6, True)]
    assert reader.asked[3][0] in (0, 1, 8) and len(reader.asked) == 4
    assert example["labels"][:3].tolist() == [[1, 1, 1]] * 3


def test_pasting_by_hand():
    """A gradient of 2 × 4 pixels over 4 × 2: rows doubled, columns halved, bilinearly."""
    image = np.zeros((8, 10, 3), np.uint8)
    donor = np.zeros((4, 8, 3), np.uint8)
    donor[1:3, 2:6] = np.array([[0, 40, 80, 120], [100, 140, 180, 220]])[..., None]
    box, donor_box = np.array([0.5, 0.2, 1, 0.4]), np.array([0.25, 0.25, 0.75, 0.75])
    where = mixing.paste(image, box, donor, donor_box)
    assert where == (4, 2, 8, 4)
    np.testing.assert_array_equal(image[4:, 2:4, 0], [[20, 100], [45, 125], [95, 175], [120, 200]])
    outside = np.ones((8, 10), bool)
    outside[4:, 2:4] = False
    assert not image[outside].any()


def test_what_overlaps_belongs_to_what_was_pasted_last():
    shares = lambda *pasted: (100 * mixing.label_weights(list(pasted), 10)).tolist()  # noqa: E731
    assert shares((2, 3, 5, 7)) == pytest.approx([88, 12, 0])
    assert shares((0, 0, 4, 4), (2, 1, 6, 3)) == pytest.approx([80, 12, 8])
    assert shares((0, 0, 2, 2), (5, 5, 6, 7)) == pytest.approx([94, 4, 2])  # far from each other
    assert shares((0, 0, 2, 2), (0, 5, 2, 7)) == pytest.approx([92, 4, 4])  # beside each other
    assert shares((5, 5, 7, 7), (0, 0, 1, 1)) == pytest.approx([95, 4, 1])
    assert mixing.label_weights([], 10).tolist() == [1, 0, 0]
    assert mixing.label_weights([(0, 0, 3, 3)], 10).dtype == np.float32


def test_donors_of_the_same_class_are_distinct_and_few_where_there_are_few():
    donors = mixing.Donors(np.repeat(np.arange(3), 4), np.array([0, 1, 2, 5, 8]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = donors.same(0, 2, rng)
        assert sorted(found) == [1, 2] and all(type(row) is int for row in found)
        assert donors.same(0, 1, rng)[0] in (1, 2)
        assert donors.same(4, 2, rng) == [5]  # itself is not among the rows that may be drawn
        assert donors.same(5, 2, rng) == []
    assert {tuple(donors.same(0, 2, rng)) for _ in range(20)} == {(1, 2), (2, 1)}


def test_fresh_views_show_the_reference_anew_in_each_slot(reader):
    """Outside its pasted boxes a mixture is another crop of the reference, with its own parts."""
    free = dataclasses.replace(reader, augmentation=Augmentation(crop_scale=0.5, flip=True))
    donors = mixing.Donors(free.split.labels, np.arange(96))
    mixer = mixing.SetMixing(free, donors, seed=1, describe=True, fresh=True)
    for position in range(6):
        example = mixer(position, 11)
        rng = loading.generator(1, position)
        views = [free.read(11, rng) for _ in range(3)]
        for slot, (image, parts) in enumerate(views):
            changed = np.zeros((SIZE, SIZE), bool)
            for y0, x0, y1, x1 in example["boxes"][slot]:
                changed[y0:y1, x0:x1] = True
                if y1 > y0:
                    assert (y0, x0, y1, x1) in [boxes.to_pixels(p, SIZE, SIZE) for p in parts]
            np.testing.assert_array_equal(example["image"][slot][~changed], image[~changed])
        assert not np.array_equal(views[0][0], views[1][0])
    same = mixing.SetMixing(free, donors, seed=1)(0, 11)
    assert (same["image"][0] == same["image"][1]).mean() > 0.5
