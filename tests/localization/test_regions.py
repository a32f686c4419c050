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


def bilinear(image, box, size):
    """One crop by loops in float64."""
    height, width = image.shape[:2]
    found = np.zeros((size, size, image.shape[2]))
    for i in range(size):
        for j in range(size):
            y = (box[0] + (i + 0.5) / size * (box[2] - box[0])) * height - 0.5
            x = (box[1] + (j + 0.5) / size * (box[3] - box[1])) * width - 0.5
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            for r in range(height):
                for c in range(width):
                    share = max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c))
                    found[i, j] += share * image[r, c]
    return found


def test_crops_by_loops():
    rng = np.random.default_rng(4)
    images = rng.uniform(size=(2, 4, 6, 2)).astype(np.float32)
    given = np.array([
        [[0.1, 0.2, 0.7, 0.6], [-0.5, 0.5, 0.5, 1.5], [0, 0, 1, 1]],
        [[0.3, -0.2, 1.4, 0.4], [0.5, 0.5, 0.5, 0.5], [0.25, 0, 0.5, 0.5]],
    ])  # fmt: skip
    found = regions.crop_and_resize(images, given, size=3)
    wanted = [[bilinear(images[b], box, 3) for box in given[b]] for b in range(2)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    narrow = regions.crop_and_resize(images.astype(jnp.bfloat16), given, size=3)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(np.float32), wanted, atol=0.03)


def test_suppression_of_a_quarter_by_default():
    """An overlap of exactly a quarter suppresses; then the suppressed ones fill what is left."""
    given = np.array([[0, 0, 0.5, 0.625], [0, 0.375, 0.5, 1], [0.5, 0, 1, 0.5]])
    assert regions.pairwise_iou(given, given)[0, 1] == 0.25
    scores = jnp.array([3.0, 2.0, 1.0])
    indices, valid = regions.nms(given, scores, count=3)
    assert indices.tolist() == [0, 2, 1] and valid.tolist() == [True, True, False]
    assert (indices.dtype, valid.dtype) == (jnp.int32, jnp.bool_)
    apart, _ = regions.nms(given, scores, count=2, iou_threshold=0.26)
    assert apart.tolist() == [0, 1]


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("shape", "scores", "count", "says"),
    [
        ((4, 4), 4, 5, "nms: 5 regions were asked for, but there are 4 anchors."),
        ((4, 4), 4, 0, "nms: 0 regions were asked for, but there are 4 anchors."),
        ((4, 4), 3, 1, "nms: boxes are (4, 4) and scores (3,), but must be [A, 4] and [A]."),
        ((4, 3), 4, 1, "nms: boxes are (4, 3) and scores (4,), but must be [A, 4] and [A]."),
        ((2, 4, 4), 2, 1,
         "nms: boxes are (2, 4, 4) and scores (2,), but must be [A, 4] and [A]."),
    ],
)  # fmt: skip
def test_refusals_word_for_word(shape, scores, count, says):
    with pytest.raises(ValueError) as found:
        regions.nms(np.zeros(shape), np.zeros(scores), count=count)
    assert str(found.value) == says


def test_anchors_need_a_size_for_every_grid():
    with pytest.raises(ValueError, match="shorter"):
        regions.anchors((2, 1), (0.25,))
    assert regions.anchors((1,), (0.5,)).dtype == np.float32
    np.testing.assert_allclose(regions.anchors((1,), (2.0,)), [[-0.5, -0.5, 1.5, 1.5]])


def test_overlaps_by_hand():
    one = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.75, 0, 1, 1]])
    other = np.array([[0, 0, 0.5, 1], [0.25, 0.25, 0.75, 0.75], [0.5, 0.5, 0.5, 0.5]])
    wanted = [[0.5, 1 / 7, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(regions.pairwise_iou(one, other), wanted, rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 1.0])
@pytest.mark.parametrize(("height", "width"), [(9, 9), (1, 7), (18, 5)])
def test_the_largest_region_is_opencvs(height, width, share):
    """Also spirals, whose ends are far apart, ties and empty masks."""
    rng = np.random.default_rng(0)
    masks = rng.uniform(size=(24, height, width)) < share
    masks[0] = False
    if (height, width) == (9, 9):
        spiral = ["111111111", "000000001", "111111101", "100000101", "101110101", "101000101",
                  "101111101", "100000001", "111111111"]  # fmt: skip
        masks[1] = np.array([[c == "1" for c in row] for row in spiral])
    found = np.asarray(jax.jit(regions.largest_region)(masks))
    for mask, own in zip(masks, found, strict=True):
        count, labels, statistics, _ = cv2.connectedComponentsWithStats(
            mask.astype(np.uint8), connectivity=8
        )
        if count < 2:
            assert not own.any()
            continue
        largest = statistics[1:, cv2.CC_STAT_AREA].max()
        equal = 1 + np.flatnonzero(statistics[1:, cv2.CC_STAT_AREA] == largest)
        first = min(equal, key=lambda label: int(np.flatnonzero(labels.ravel() == label)[0]))
        np.testing.assert_array_equal(own, labels == first)
