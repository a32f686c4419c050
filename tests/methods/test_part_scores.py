"""Scores of found parts, by hand."""

import numpy as np
import pytest

from fgjax.methods.shared import part_scores
from fgjax.methods.shared.part_scores import Truth, match, shares

NOSE, WING, TAIL = [0.0, 0.0, 0.4, 0.4], [0.3, 0.3, 0.7, 0.7], [0.6, 0.6, 1.0, 1.0]
HIDDEN = [np.nan] * 4


def truth(*images, regions=((0,), (1,))):
    return Truth(np.array(images, np.float32), regions)


def test_hits_by_hand():
    found = truth(*[[NOSE, TAIL]] * 4)
    centers = np.array([[[0.8, 0.8], [0.2, 0.2]]] * 3 + [[[0.2, 0.2], [0.5, 0.5]]])
    np.testing.assert_allclose(found.hits(centers), [[1 / 4, 3 / 4], [3 / 4, 0]])
    assert match(found.hits(centers)) == [(0, 1), (1, 0)]


def test_any_visible_part_of_a_region_is_a_hit_and_images_without_one_do_not_count():
    images = ([NOSE, WING, TAIL], [HIDDEN, WING, TAIL], [HIDDEN, HIDDEN, TAIL])
    found = truth(*images, regions=((0, 1), (2,)))
    at = lambda place: np.full((3, 1, 2), place)  # noqa: E731
    # The nose's box is seen in one of the two images where either part of the region is visible.
    np.testing.assert_allclose(found.hits(at(0.1)), [[1 / 2, 0]])
    np.testing.assert_allclose(found.hits(at(0.5)), [[1, 0]])
    np.testing.assert_allclose(found.hits(at(0.8)), [[0, 1]])
    nowhere = truth([HIDDEN, NOSE], regions=((0,), (1,)))
    np.testing.assert_allclose(nowhere.hits(np.full((1, 1, 2), 0.1)), [[0, 1]])


def test_what_a_part_stands_for_is_decided_on_training_images():
    truths = {"train": truth([NOSE, TAIL]), "test": truth([NOSE, TAIL])}
    nose_first, tail_first = [[[0.1, 0.1], [0.9, 0.9]]], [[[0.9, 0.9], [0.1, 0.1]]]
    found = shares({"train": np.array(nose_first), "test": np.array(tail_first)}, truths)
    assert found == {"train": [(0, 1.0), (1, 1.0)], "test": [(0, 0.0), (1, 0.0)]}


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_as_many_pairs_as_there_are_of_the_fewer(parts):
    found = truth(*[[NOSE, TAIL]] * 3)
    pairs = match(found.hits(np.random.default_rng(0).uniform(size=(3, parts, 2))))
    assert len(pairs) == min(parts, 2)
    assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs)


def test_random_boxes_fit_into_the_image_and_differ_by_draw_and_split():
    boxes = np.tile([0.1, 0.1, 0.4, 0.4], (50, 3, 1))
    one, other = (part_scores._random({"train": boxes, "test": boxes}, draw) for draw in (0, 1))
    for centers in (one["train"], one["test"], other["train"]):
        assert centers.shape == (50, 3, 2)
        assert 0.15 <= centers.min() < 0.2 and 0.8 < centers.max() <= 0.85
    assert not np.array_equal(one["train"], one["test"])
    assert not np.array_equal(one["train"], other["train"])
