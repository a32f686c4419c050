"""Probabilities that mean what they say: a temperature from held-out images, and how it fits."""

from typing import Any

import numpy as np

from fgjax.evaluation import calibration, classification
from fgjax.training.run import Run


def calibrate(
    run: Run, held_out: np.ndarray, test: np.ndarray, *, labels: np.ndarray | None = None
) -> dict[str, float]:
    """Metrics `temperature`, and `calibration_error` of test with and without it.

    Nothing where no images were held out: then nobody knows how sure the classifier should be.

    Args:
      run: with dataset and held-out images.
      held_out: logits [M, K] of images that did not train.
      test: logits [N, K] of the test images.
      labels: classes of the images behind `held_out`; those of the run's held-out ones by default.
    """
    if not len(held_out):
        return {}
    if labels is None:
        labels = run.dataset.train.labels[run.held_out_indices]
    truth, whose = run.dataset.test.labels, labels
    temperature = run.compute(
        lambda: calibration.fit_temperature(held_out, whose), instead=lambda: 1.0
    )

    def error(of: float) -> float:
        probabilities = classification.softmax(test / np.float32(of))
        return calibration.expected_calibration_error(probabilities, truth)

    return {
        "temperature": temperature,
        "calibration_error": error(temperature),
        "calibration_error_uncalibrated": error(1.0),
    }


def described(metrics: dict[str, Any], source: str = "the held-out training images") -> str:
    """What results.json's protocol says about a classifier's probabilities."""
    if "temperature" not in metrics:
        return "uncalibrated: no images were held out"
    return f"calibrated: a temperature from {source}"
