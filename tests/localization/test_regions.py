"""Anchors by hand, suppression against plain loops, crops against OpenCV."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax.localization import boxes, regions


def test_anchors_by_hand():
    found = regions.anchors((2, 1), (0.25, 0.5))
    wanted = [[0.125, 0.125, 0.375, 0.375], [0.125, 0.625, 0.375, 0.875],
              [0.625, 0.125, 0.875, 0.375], [0.625, 0.625, 0.875, 0.875],
              [0.25, 0.25, 0.75, 0.75]]  # fmt: skip
    np.testing.assert_allclose(found, wanted)
    assert len(regions.anchors((14, 7), (96 / 448, 192 / 448))) == 245


def random_boxes(rng, count):
    """Boxes on a coarse grid, so that overlaps and scores tie often."""
    low = rng.integers(0, 6, (count, 2)) / 8
    return np.concatenate([low, low + rng.integers(1, 4, (count, 2)) / 8], axis=1)


def test_overlaps_are_those_of_the_host():
    rng = np.random.default_rng(0)
    one, other = random_boxes(rng, 9), random_boxes(rng, 5)
    one[0, 2:] = one[0, :2]  # an empty one
    wanted = boxes.iou(one[:, None], other[None])
    np.testing.assert_allclose(regions.pairwise_iou(one, other), wanted, atol=1e-6)


def by_loops(given, scores, threshold, count):
    overlaps = boxes.iou(given[:, None], given[None])
    left = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    everyone, chosen = list(left), []
    while left and len(chosen) < count:
        best = left.pop(0)
        chosen.append(best)
        left = [i for i in left if overlaps[best, i] < threshold]
    valid = len(chosen)
    chosen += [i for i in everyone if i not in chosen][: count - valid]
    return chosen, [True] * valid + [False] * (count - valid)


def test_suppression_against_loops_in_thousands_of_cases():
    rng = np.random.default_rng(1)
    for count, threshold in ((1, 0.25), (4, 0.25), (6, 0.5), (12, 0.1)):
        given = np.stack([random_boxes(rng, 12) for _ in range(600)]).astype(np.float32)
        scores = rng.integers(0, 5, (600, 12)).astype(np.float32)  # many ties
        many = jax.jit(
            jax.vmap(functools.partial(regions.nms, iou_threshold=threshold, count=count))
        )
        indices, valid = map(np.asarray, many(given, scores))
        for case in range(600):
            wanted = by_loops(given[case], scores[case], threshold, count)
            assert (indices[case].tolist(), valid[case].tolist()) == wanted


def test_scores_of_minus_infinity_are_chosen_last():
    given = regions.anchors((2,), (0.25,))
    scores = jnp.array([-jnp.inf, 1.0, -jnp.inf, 0.0])
    indices, valid = regions.nms(given, scores, count=4)
    assert indices.tolist() == [1, 3, 0, 2] and valid.all()


@pytest.mark.usefixtures("unchecked_types")
def test_more_regions_than_anchors_are_refused():
    given = regions.anchors((2,), (0.25,))
    with pytest.raises(ValueError, match="5 regions were asked for, but there are 4"):
        regions.nms(given, jnp.zeros(4), count=5)
    with pytest.raises(ValueError, match=r"must be \[A, 4\]"):
        regions.nms(given, jnp.zeros(3), count=1)


@pytest.mark.parametrize("size", [8, 20, 33])
def test_crops_on_whole_pixels_are_opencvs(size):
    rng = np.random.default_rng(2)
    images = rng.uniform(0, 255, (2, 32, 40, 3)).astype(np.float32)
    pixels = np.array([[[4, 10, 20, 30], [0, 0, 32, 40]], [[16, 0, 32, 8], [8, 8, 20, 24]]])
    given = pixels / [32, 40, 32, 40]
    found = np.asarray(regions.crop_and_resize(images, given, size=size))
    for b in range(2):
        for r in range(2):
            y0, x0, y1, x1 = pixels[b, r]
            wanted = cv2.resize(images[b, y0:y1, x0:x1], (size, size))
            # Inside; at its border OpenCV sees the crop alone, and we the image around it.
            inner = slice(size // 4, -(size // 4) or None)
            np.testing.assert_allclose(found[b, r, inner, inner], wanted[inner, inner], atol=0.02)


def test_crops_repeat_the_border_and_have_gradients_for_images_alone():
    images = jnp.arange(16.0).reshape(1, 4, 4, 1)
    outside = jnp.array([[[-1.0, -1.0, 0.0, 0.0]]])
    assert (regions.crop_and_resize(images, outside, size=3) == 0).all()
    middle = jnp.array([[[0.25, 0.25, 0.75, 0.75]]])
    total = lambda images, box: jnp.sum(regions.crop_and_resize(images, box, size=2))  # noqa: E731
    of_image, of_box = jax.grad(total, (0, 1))(images, middle)
    np.testing.assert_allclose(of_image[0, 1:3, 1:3, 0], 1)
    assert not of_box.any() and float(jnp.sum(of_image)) == pytest.approx(4)
