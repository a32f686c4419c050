"""Whose true class localization may see."""

import numpy as np
import pytest

from fgjax.methods.shared import objects
from fgjax.training.run import Run

TRUE, PREDICTED = [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]


def corner(box):
    """A map that is bright in a quarter of the image."""
    activation = np.zeros((16, 16), np.float32)
    y0, x0, y1, x1 = (int(16 * side) for side in box)
    activation[y0:y1, x0:x1] = 1
    return activation


@pytest.fixture
def located(tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """`locate_objects` with CAMs of true and predicted class in different corners."""
    maps = {"true": corner(TRUE), "predicted": corner(PREDICTED), "sum": corner([0, 0.5, 0.5, 1])}

    def iterate(model, reader, indices, *, batch_size, outputs_of):
        assert outputs_of is objects.activation_maps
        for rows in np.array_split(indices, 5):
            yield {name: np.stack([m] * len(rows)) for name, m in maps.items()}, rows

    run = Run(tiny_config, tiny_dataset, tmp_path)
    monkeypatch.setattr(run, "iterate", iterate)
    monkeypatch.setattr(run, "load_model", lambda stage: None)

    def locate(method):
        stage = objects.locate_objects(
            run, run.stage("classifier"), method,
            cam_threshold=0.5, scda_threshold=1.0, batch_size=8,
        )  # fmt: skip
        return run, stage

    return locate


def test_cam_takes_the_true_class_of_training_images_alone(located):
    run, stage = located("cam")
    found = stage.load_arrays("boxes")
    assert len(run.held_out_indices) and len(run.train_indices)
    near = {"rtol": 0, "atol": 0.05}
    for row in run.train_indices:
        np.testing.assert_allclose(found["train"][row], TRUE, **near)
    for row in run.held_out_indices:  # they stand for test images
        np.testing.assert_allclose(found["train"][row], PREDICTED, **near)
    np.testing.assert_allclose(found["test"], [PREDICTED] * len(run.dataset.test), **near)


def test_scda_needs_no_class(located):
    _, stage = located("scda")
    for found in stage.load_arrays("boxes").values():
        np.testing.assert_allclose(found, [[0, 0.5, 0.5, 1]] * len(found), rtol=0, atol=0.05)
