"""What an answer rests on: squares of the image are hidden, one after the other."""

import dataclasses

import cv2
import numpy as np
import pytest

import fgjax
from fgjax import main, model_files
from fgjax.predict import predict
from tests.test_model_files import exported, images_in


def test_hiding_what_decides_shows(shared, finished_probe, monkeypatch):
    """A model that sees nothing but the brightness of the upper left corner."""
    model = fgjax.load(exported(shared, finished_probe))

    def predict(images, **_):
        seen = [float(image[:10, :10].mean()) / 255 for image in images]
        return [type("P", (), {"probabilities": np.array([p, 1 - p])}) for p in seen]

    monkeypatch.setattr(model, "predict", predict)
    pixels = np.zeros((70, 70, 3), np.uint8)
    pixels[:10, :10] = 255
    found = model.explain(pixels).map
    assert np.unravel_index(found.argmax(), found.shape) < (10, 10)
    assert found[:5, :5].min() > 0.9 and np.abs(found[30:, 30:]).max() < 1e-6
    sure = model_files.model._log_odds
    assert sure(np.array([0.001, 0.9989, 0.0001]), 1) == pytest.approx(np.log(0.9989 / 0.0011))
    assert np.isfinite([sure(np.array([1.0, 0.0]), 0), sure(np.array([1.0, 0.0]), 1)]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 3)])
def test_an_image_of_fewer_pixels_than_squares_is_explained(shared, finished_probe, shape):
    model = fgjax.load(exported(shared, finished_probe))
    found = model.explain(np.full((*shape, 3), 90, np.uint8))
    assert found.map.shape == shape and np.isfinite(found.squares).all()


@pytest.mark.usefixtures("relaxed")
def test_predict_shows_what_answers_rest_on(shared, finished_probe, tmp_path, monkeypatch):
    probe_file = exported(shared, finished_probe)
    images_in(tmp_path / "images", main.open_run(finished_probe), 1)
    squares = np.zeros((7, 7), np.float32)
    squares[6, 3] = 0.4
    told = model_files.Explanation(np.zeros((1, 1)), squares, None)
    assert told.where == "bottom centre"  # of a cosine
    assert dataclasses.replace(told, squares=squares / 50).where == ""
    of_class = dataclasses.replace(
        told, prediction=fgjax.load(probe_file).predict([np.zeros((9, 9, 3), np.uint8)])[0]
    )
    assert of_class.where and dataclasses.replace(of_class, squares=squares / 3).where == ""
    monkeypatch.setattr(model_files.Model, "explain", lambda *_: told)
    (found,) = predict(probe_file, [str(tmp_path / "images")], pictures=tmp_path, explain=True)
    assert found["rests_on"] == "bottom centre"
    picture = cv2.imread(found["picture"]).astype(float)
    (plain,) = predict(probe_file, [str(tmp_path / "images")], pictures=tmp_path / "plain")
    light = picture.mean(2) / np.maximum(cv2.imread(plain["picture"]).astype(float).mean(2), 1)
    assert "rests_on" not in plain
    height, width = light.shape
    assert np.median(light[: height // 2]) == pytest.approx(0.25, abs=0.05)
    center = light[-height // 14 - 5 : -height // 14 + 5, width // 2 - 5 : width // 2 + 5]
    assert np.median(center) > 0.9
