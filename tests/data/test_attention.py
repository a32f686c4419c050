"""Label shares by class activation maps, against a sum over pixels."""

import dataclasses

import numpy as np
import pytest

from fgjax.data import loading, mixing
from fgjax.data.attention import Attention, Patch, Seen
from fgjax.data.views import View
from fgjax.localization import boxes, cam
from tests.data.test_mixing import SIZE, make, reader

__all__ = ["reader"]  # a fixture

FINE = 5  # places that are looked at along a pixel


def seen(row, window, *, flipped=False):
    image = np.full((SIZE, SIZE, 3), row, np.uint8)
    view = View(np.array(window, np.float32), np.zeros((0, 4), np.float32), flipped)
    return Seen(row, image, view)


def looked_at(density, one, y, x):
    """The density of an image under a place of its view, in pixels."""
    y0, x0, y1, x1 = (float(side) for side in one.view.window)
    x = SIZE - x if one.view.flipped else x
    row, column = (y0 + y / SIZE * (y1 - y0)), (x0 + x / SIZE * (x1 - x0))
    cells = len(density)
    return density[min(int(row * cells), cells - 1), min(int(column * cells), cells - 1)]


def by_places(maps, reference, patches):
    """Shares by asking at every place of the mixture whose pixel it is."""
    density = [cam.density(one) for one in maps]
    every = [reference, *[patch.donor for patch in patches]]
    places = (np.arange(SIZE * FINE) + 0.5) / FINE
    total, found = np.zeros(len(every)), np.zeros(len(every))
    for y in places:
        for x in places:
            total += [looked_at(density[one.row], one, y, x) for one in every]
    total /= FINE**2
    for y in places:
        for x in places:
            owner, at = 0, (y, x)
            for number, patch in enumerate(patches, 1):
                (y0, x0, y1, x1), (v0, u0, v1, u1) = patch.target, patch.origin
                if y0 <= y < y1 and x0 <= x < x1:
                    owner = number
                    at = (v0 + (y - y0) / (y1 - y0) * (v1 - v0),
                          u0 + (x - x0) / (x1 - x0) * (u1 - u0))  # fmt: skip
            # A place of a patch stands for as much of its donor as it is smaller or larger there.
            scale = 1.0
            if owner:
                (y0, x0, y1, x1), (v0, u0, v1, u1) = patches[owner - 1][0], patches[owner - 1][2]
                scale = (v1 - v0) * (u1 - u0) / ((y1 - y0) * (x1 - x0))
            one = every[owner]
            found[owner] += looked_at(density[one.row], one, *at) * scale / FINE**2
    shares = np.append(found / total, [0] * (3 - len(every)))
    return shares / shares.sum()


CASES = {
    "one": [((4, 6, 14, 16), 1, (8, 8, 18, 28))],
    "two apart": [((0, 0, 8, 8), 1, (8, 8, 24, 24)), ((20, 20, 32, 30), 2, (0, 0, 12, 10))],
    "two that overlap": [((4, 4, 20, 20), 1, (0, 8, 32, 32)), ((12, 10, 28, 30), 2, (2, 2, 9, 9))],
}


@pytest.mark.parametrize("case", CASES)
def test_shares_are_those_of_a_sum_over_places(case):
    maps = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    views = [
        seen(0, [0.1, 0, 0.9, 1]), seen(1, [0, 0, 1, 1], flipped=True), seen(2, [0, 0.25, 0.75, 1]),
    ]  # fmt: skip
    patches = [Patch(target, views[row], origin) for target, row, origin in CASES[case]]
    found = Attention(maps).weights(views[0], patches)
    assert found.dtype == np.float32 and found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, by_places(maps, views[0], patches), atol=4e-3)


def test_a_constant_map_shares_by_area():
    """Of patches that are as large where they come from, that is `label_weights`."""
    patches = [
        Patch((0, 0, 8, 16), seen(1, boxes.WHOLE), (8, 8, 16, 24)),
        Patch((4, 8, 20, 24), seen(2, boxes.WHOLE), (4, 8, 20, 24)),
    ]
    found = Attention(np.ones((3, 4, 4), np.float32)).weights(seen(0, boxes.WHOLE), patches)
    wanted = mixing.label_weights([patch.target for patch in patches], SIZE)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_part_that_decides_takes_the_label():
    """All attention of both images lies in a corner of a twentieth of the pixels."""
    maps = np.full((2, 32, 32), -1, np.float32)
    maps[:, :7, :7] = 5
    patch = Patch((0, 0, 7, 7), seen(1, boxes.WHOLE), (0, 0, 7, 7))
    found = Attention(maps).weights(seen(0, boxes.WHOLE), [patch])
    assert found[1] > 0.9 and mixing.label_weights([patch.target], SIZE)[1] < 0.05


def test_where_nothing_that_is_seen_has_attention_area_decides(reader):
    maps = np.full((2, 56, 56), -1, np.float32)
    maps[0, :28], maps[1, 28:] = 1, 1  # A's is covered whole, B's is not pasted
    patch = Patch((0, 0, 16, 32), seen(1, boxes.WHOLE), (0, 0, 14, 32))
    reference = seen(0, boxes.WHOLE)
    assert Attention(maps).weights(reference, [patch]) is None
    found = mixing.shares(reference, [patch], SIZE, Attention(maps))
    assert found.tolist() == [0.5, 0.5, 0]


def test_density_and_mass_by_hand():
    shares = np.array([[0.1, 0.2], [0.3, 0.4]])
    corners = [[0, 0, 1, 1], [0, 0, 0.5, 1], [0.25, 0.5, 0.75, 1], [0, 0, 0, 1]]
    found = cam.mass(shares, np.array(corners))
    np.testing.assert_allclose(found, [1, 0.3, 0.3, 0], atol=1e-12)
    assert cam.mass(shares, np.array([-1, -1, 2, 2])) == pytest.approx(1)
    np.testing.assert_allclose(cam.density(np.full((3, 3), -2.0), size=4), np.full((4, 4), 1 / 16))
    found = cam.density(np.array([[-1.0, 1.0], [-1.0, 3.0]]), size=2)
    np.testing.assert_allclose(found, [[0, 1 / 3], [0, 2 / 3]], atol=1e-7)


def test_sets_with_attention_differ_in_their_weights_alone(reader):
    """And negative sets keep Eq. 6; the reference's own crops and flips are looked through."""
    free = dataclasses.replace(
        reader, augmentation=dataclasses.replace(reader.augmentation, crop_scale=0.6, flip=True)
    )
    maps = np.random.default_rng(1).normal(size=(96, 4, 4)).astype(np.float32)
    plain, attended = make(free, fresh=True), make(free, fresh=True, attention=Attention(maps))
    for position in range(6):
        one, other = plain(position, 7), attended(position, 7)
        for name in set(one) - {"weights"}:
            np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_allclose(other["weights"].sum(axis=1), 1, atol=1e-6)
        assert not np.allclose(one["weights"][1:3], other["weights"][1:3], atol=1e-3)
        assert other["weights"][[0, 3]].tolist() == [[1, 0, 0], [1, 0, 0]]
    donors = mixing.Donors(free.split.labels, np.arange(96))
    single = mixing.SingleMixing(free, donors, 1, "cutmix", Attention(maps))(3, 7)
    again = mixing.SingleMixing(free, donors, 1, "cutmix")(3, 7)
    np.testing.assert_array_equal(single["image"], again["image"])
    assert not np.allclose(single["weights"], again["weights"], atol=1e-3)


def test_reading_in_two_steps_is_reading(reader):
    found = mixing.see(reader, 5, loading.generator(3))
    image, parts = reader.read(5, loading.generator(3))
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.view.parts, parts)
