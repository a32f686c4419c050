"""Boxes and maps by hand."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.localization import boxes, cam

unit = st.floats(0, 1, width=32)
valid_box = st.tuples(unit, unit, unit, unit).map(
    lambda t: np.array([min(t[0], t[2]), min(t[1], t[3]), max(t[0], t[2]), max(t[1], t[3])])
)


def test_iou_by_hand():
    one, other = np.array([0, 0, 0.5, 0.5]), np.array([0.25, 0.25, 0.75, 0.75])
    assert boxes.iou(one, other) == pytest.approx(1 / 7)
    assert boxes.iou(one, one) == 1
    assert boxes.iou(one, np.array([0.6, 0.6, 0.9, 0.9])) == 0
    assert boxes.iou(np.zeros(4), np.zeros(4)) == 0


@settings(deadline=None)
@given(valid_box, valid_box)
def test_iou_is_symmetric_and_in_range(one, other):
    assert boxes.iou(one, other) == pytest.approx(boxes.iou(other, one))
    assert 0 <= boxes.iou(one, other) <= 1 + 1e-6


def test_windows_are_inverse():
    window = np.array([0.2, 0.1, 0.8, 0.6], np.float32)
    inside = np.array([[0.1, 0.2, 0.5, 0.9], [0.0, 0.0, 1.0, 1.0]], np.float32)
    np.testing.assert_allclose(
        boxes.to_window(boxes.from_window(inside, window), window), inside, atol=1e-6
    )
    np.testing.assert_allclose(boxes.from_window(boxes.WHOLE, window), window)


@settings(deadline=None)
@given(valid_box, st.integers(1, 50), st.integers(1, 50))
def test_pixels_always_hold_something(box, height, width):
    y0, x0, y1, x1 = boxes.to_pixels(box, height, width)
    assert 0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width


def test_largest_component_uses_eight_neighbours():
    mask = np.zeros((10, 10), bool)
    mask[1, 1] = mask[2, 2] = mask[3, 3] = mask[4, 4] = mask[4, 5] = True  # a diagonal, joined
    mask[8, 0:4] = True
    np.testing.assert_allclose(boxes.largest_component(mask), [0.1, 0.1, 0.5, 0.6])
    np.testing.assert_allclose(boxes.largest_component(np.zeros((10, 10), bool)), boxes.WHOLE)
    small = np.zeros((10, 10), bool)
    small[0, :4] = 1  # 4 % of the image
    np.testing.assert_allclose(boxes.largest_component(small), boxes.WHOLE)


def test_the_largest_of_several_components_is_taken():
    mask = np.zeros((10, 20), bool)
    mask[0:3, 0:4] = mask[4:9, 2:7] = mask[4:9, 12:16] = True  # 12, 25 and 20 pixels
    found = boxes.largest_component(mask)
    np.testing.assert_allclose(found, [0.4, 0.1, 0.9, 0.35], rtol=1e-6)
    assert found.dtype == np.float32
    mask[4:9, 16] = True  # 25 and 25: the first in raster order
    np.testing.assert_allclose(boxes.largest_component(mask), [0.4, 0.1, 0.9, 0.35], rtol=1e-6)
    exactly = np.zeros((10, 10), bool)
    exactly[3, 2:7] = True  # 5 %
    np.testing.assert_allclose(boxes.largest_component(exactly), [0.3, 0.2, 0.4, 0.7])
    np.testing.assert_allclose(boxes.largest_component(exactly, smallest=0.06), boxes.WHOLE)


def test_boxes_by_hand():
    given = np.array([[[0.125, 0.25, 0.5, 0.625]], [[0, 0, 1, 0.5]]])
    np.testing.assert_allclose(boxes.flip(given), [[[0.125, 0.375, 0.5, 0.75]], [[0, 0.5, 1, 1]]])
    np.testing.assert_allclose(boxes.area(given), [[0.375 * 0.375], [0.5]])
    assert boxes.area(np.array([0.5, 0.5, 0.25, 0.75])) == 0
    np.testing.assert_allclose(boxes.centers(given), [[[0.3125, 0.4375]], [[0.5, 0.25]]])
    found = boxes.around(np.array([[[0.5, 0.25]], [[0, 1]]]), 0.375)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[0.125, 0, 0.875, 0.625]], [[0, 0.625, 0.375, 1]]])


def test_a_box_contains_its_borders():
    box = np.array([0.25, 0.25, 0.5, 0.75])
    inside = [[0.25, 0.75], [0.5, 0.25], [0.3, 0.5]]
    outside = [[0.2, 0.5], [0.6, 0.5], [0.3, 0.2], [0.3, 0.8]]
    assert boxes.contains(box, np.array(inside + outside)).tolist() == [True] * 3 + [False] * 4
    many = boxes.contains(np.array([box, [0, 0, 1, 1]]), np.array([[0.2, 0.5], [0.2, 0.5]]))
    assert many.tolist() == [False, True]
    apart = boxes.contains(box[None, None], np.array([inside, outside[:3]]))
    assert apart.tolist() == [[True] * 3, [False] * 3]


def test_windows_by_hand():
    window = np.array([0.25, 0.5, 0.75, 1.0])
    given = np.array([[0.375, 0.5, 0.5, 0.75], [0, 0, 1, 1], [0.9, 0.1, 2, 0.2]])
    found = boxes.to_window(given, window)
    np.testing.assert_allclose(found, [[0.25, 0, 0.5, 0.5], [0, 0, 1, 1], [1, 0, 1, 0]])
    assert found.dtype == np.float32
    found = boxes.from_window(np.array([0, 0.5, 0.5, 1]), window)
    np.testing.assert_allclose(found, [0.25, 0.75, 0.5, 1])
    assert found.dtype == np.float32
    point = np.array([0.5, 0.5, 0.5, 0.5])  # a window without height is taken as a millionth
    np.testing.assert_array_equal(boxes.to_window(point, np.array([0.5, 0.5, 0.5, 1])), 0)
    low = boxes.to_window(np.array([0, 0, 2.0**-21, 1]), np.array([0, 0, 2.0**-22, 1]))
    np.testing.assert_allclose(low, [0, 0, 2.0**-21 / 1e-6, 1], rtol=1e-6)


def test_pixels_by_hand():
    pixels = lambda box, *sides: boxes.to_pixels(np.array(box, float), *sides)  # noqa: E731
    assert pixels([0.24, 0.26, 0.76, 0.74], 10, 10) == (2, 3, 8, 7)
    assert pixels([0, 0, 1, 1], 7, 9) == (0, 0, 7, 9)
    assert pixels([0.5, 0.5, 0.5, 0.5], 10, 20) == (5, 10, 6, 11)
    assert pixels([1, 1, 1, 1], 10, 20) == (9, 19, 10, 20)
    assert pixels([-1, -1, -0.5, -0.5], 10, 20) == (0, 0, 1, 1)
    assert pixels([2, 2, 3, 3], 10, 20) == (9, 19, 10, 20)


def test_cam_is_the_weighted_sum_of_the_true_class():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(5, 6))
    found = cam.class_activation_map(features, weights, np.array([2, 5]))
    for number, label in enumerate((2, 5)):
        wanted = sum(features[number, ..., k] * weights[k, label] for k in range(5))
        np.testing.assert_allclose(found[number], wanted, rtol=1e-4, atol=1e-5)
    narrow = [features.astype(jnp.bfloat16), weights.astype(jnp.bfloat16)]
    wide = [x.astype(np.float32) for x in narrow]
    labels = np.array([2, 5])
    np.testing.assert_allclose(
        cam.class_activation_map(*narrow, labels), cam.class_activation_map(*wide, labels)
    )


def test_cam_and_scda_find_a_bright_square():
    activation = np.full((16, 16), -1.0)
    activation[4:12, 6:14] = 3.0
    truth = np.array([4 / 16, 6 / 16, 12 / 16, 14 / 16])
    assert boxes.iou(cam.cam_box(activation), truth) > 0.8
    assert boxes.iou(cam.scda_box(activation + 1), truth) > 0.8
    np.testing.assert_allclose(cam.cam_box(np.ones((8, 8))), boxes.WHOLE)


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1, -7), (1, 100), (0.01, 3)])
def test_cams_threshold_is_a_share_of_its_range(scale, shift):
    """Two steps of 0, 0.3 and 1 of the range: where the map starts and how high it goes is free."""
    activation = np.zeros((16, 16))
    activation[2:14, 2:14], activation[6:10, 6:10] = 0.3, 1.0
    found = cam.cam_box(activation * scale + shift, threshold=0.25, size=16)
    np.testing.assert_allclose(found, np.array([2, 2, 14, 14]) / 16)
    found = cam.cam_box(activation * scale + shift, threshold=0.35, size=16)
    np.testing.assert_allclose(found, np.array([6, 6, 10, 10]) / 16)


def steps(values):
    """A map of four equal columns."""
    return np.repeat(np.array([values], np.float16), 16, axis=0).repeat(4, axis=1)


def test_cams_threshold_is_reached_and_scdas_is_passed():
    half = steps([4, 1, 0, 0]).astype(jnp.bfloat16)  # of which OpenCV knows nothing
    found = cam.cam_box(half, threshold=0.25, size=16)
    np.testing.assert_allclose(found, [0, 0, 1, 0.5])
    found = cam.scda_box(steps([3, 2, 2, 1]), size=16)  # the mean is 2
    np.testing.assert_allclose(found, [0, 0, 1, 0.25])
    found = cam.scda_box(steps([3, 2, 2, 1]), threshold=0.75, size=16)
    np.testing.assert_allclose(found, [0, 0, 1, 0.75])
    np.testing.assert_allclose(cam.scda_box(steps([8, 5, 2, 1]), threshold=1.5, size=16),
                               [0, 0, 1, 0.25])  # fmt: skip


@pytest.mark.parametrize("find", [cam.cam_box, cam.scda_box])
def test_maps_are_brought_to_224_pixels(find):
    activation = np.zeros((7, 7), np.float32)
    activation[2:5, 1:4] = 1
    pixels = find(activation) * 224
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-3)
    again = find(cv2.resize(activation, (224, 224)), size=224) * 224
    # The mean of a map that was brought to its size is another, so that SCDA's border may move.
    np.testing.assert_allclose(pixels, again, atol=0 if find is cam.cam_box else 4)


def test_cams_threshold_is_a_fifth_by_default():
    np.testing.assert_allclose(cam.cam_box(steps([100, 21, 19, 0]), size=16), [0, 0, 1, 0.5])


def test_a_map_that_is_constant_but_for_rounding_gives_the_whole_image():
    flat = np.full((16, 16), 1e-13, np.float32)
    flat[4:12, 4:12] = 2e-13
    np.testing.assert_array_equal(cam.cam_box(flat), boxes.WHOLE)
    faint = np.full((16, 16), 1e-9, np.float32)
    faint[4:12, 4:12] = 1e-6
    assert cam.cam_box(faint, size=16).tolist() == [0.25, 0.25, 0.75, 0.75]


def test_scda_adds_the_channels():
    found = cam.channel_sum(np.arange(8, dtype=np.float16).reshape(1, 2, 2, 2))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[1, 5], [9, 13]]])
