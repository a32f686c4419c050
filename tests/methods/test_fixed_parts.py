"""Parts that nothing was learnt for."""

import dataclasses
import types

import numpy as np
import pytest

from fgjax.errors import UserError
from fgjax.localization import boxes
from fgjax.methods.shared import fixed_parts
from fgjax.methods.shared.parts import Grouping

NONE = [np.nan] * 4


def of(parts, regions):
    """A dataset of that many images with these part boxes."""

    @dataclasses.dataclass
    class Split:
        parts: np.ndarray | None

        def __len__(self):
            return 3 if self.parts is None else len(self.parts)

    @dataclasses.dataclass
    class Dataset:
        name: str
        part_regions: dict

    values = None if parts is None else np.array(parts, np.float32)
    return Dataset("birds", regions), Split(values)


def test_a_size_of_the_image_grows_as_its_object_shrinks():
    windows = np.array([[0, 0, 1, 1], [0.25, 0.5, 0.75, 0.75], [0, 0, 0.1, 1]], np.float32)
    found = Grouping(part_size=0.2, size_of="image").half_sizes(windows)
    np.testing.assert_allclose(
        found, [[[0.1, 0.1]], [[0.2, 0.4]], [[0.5, 0.1]]], rtol=1e-5
    )  # never more than the crop
    assert Grouping(part_size=0.2, size_of="crop").half_sizes(windows) == 0.1


def test_a_grid_by_hand():
    found = fixed_parts.grid(2, 2, 0.125)
    wanted = [[0.375, 0.125, 0.625, 0.375], [0.375, 0.625, 0.625, 0.875]]
    np.testing.assert_allclose(found, [wanted, wanted])
    tall = fixed_parts.grid(1, 1, np.array([[[0.5, 0.125]]]))
    np.testing.assert_allclose(tall, [[[0, 0.375, 1, 0.625]]])


def test_random_boxes_fit_and_are_each_images_own():
    half = np.tile([[[0.1, 0.3]]], (200, 1, 1))
    found = fixed_parts.random(200, 3, half, seed=4)
    sides = found[..., 2:] - found[..., :2]
    np.testing.assert_allclose(sides, np.broadcast_to([0.2, 0.6], (200, 3, 2)), rtol=1e-4)
    assert len(np.unique(found[..., 0])) == 600
    assert found[..., 0].min() < 0.05 and found[..., 2].max() > 0.95
    np.testing.assert_array_equal(found, fixed_parts.random(200, 3, half, seed=4))


def test_regions_are_around_their_visible_points_or_else_the_grids():
    """Two points of a head, one of them hidden in the second image; no tail in the third."""
    eye, beak, tail = [0.1, 0.1, 0.3, 0.3], [0.1, 0.3, 0.3, 0.5], [0.6, 0.7, 0.8, 0.9]
    dataset, split = of([[eye, beak, tail], [eye, NONE, tail], [NONE, NONE, NONE]],
                        {"head": (0, 1), "tail": (2,)})  # fmt: skip
    windows = np.tile(boxes.WHOLE, (3, 1))
    found = fixed_parts.annotated(dataset, split, windows, 0.125)
    grid = fixed_parts.grid(1, 2, 0.125)[0]
    wanted = [[[0.075, 0.175, 0.325, 0.425], tail], [[0.075, 0.075, 0.325, 0.325], tail], grid]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    windows[1] = [0, 0, 0.5, 0.5]
    head = fixed_parts.annotated(dataset, split, windows, 0.125)[1, 0]
    np.testing.assert_allclose(head, [0.275, 0.275, 0.525, 0.525], rtol=1e-5)


def test_parts_that_a_dataset_has_not_are_refused_with_what_there_is():
    _, bare = of(None, {})
    dataset = types.SimpleNamespace(name="birds", train=bare, test=bare)
    says = r"config\.method\.parts is annotated, but birds has no part boxes: choose grid or random"
    with pytest.raises(UserError, match=says):
        fixed_parts.check("config.method.parts", dataset, "grid or random")
