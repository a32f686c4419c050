"""What held-out images say of a classifier: how sure it should be, and when it knows nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fgjax.evaluation import calibration, classification, unknown
from fgjax.training.run import Run, Stage


def calibrate(
    run: Run,
    stage: Stage,
    held_out: np.ndarray,
    test: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    strangers: np.ndarray | None = None,
    probabilities: Callable[[float], np.ndarray] | None = None,
) -> dict[str, float]:
    """Metrics of both; leaves the artifact `unknown`, scores of things of no class.

    Nothing where no images were held out: then nobody knows.

    Args:
      run: with dataset and held-out images.
      stage: where the artifact goes.
      held_out: logits [M, K] of images that did not train.
      test: logits [N, K] of the test images.
      labels: classes of the images behind `held_out`; those of the run's held-out ones by default.
      strangers: scores of images whose classes did not train; by default the held-out images',
        without their own class (`evaluation.unknown`).
      probabilities: of the test images by temperature; softmax by default.

    Returns:
      `temperature`; `calibration_error` of test with and without it; `unknown_auroc` and
      `unknown_fpr95` of test images against unknown things; `accepted`, the share of test images
      that are let in where a tenth of the unknown is.
    """
    if not len(held_out):
        return {}
    if labels is None:
        labels = run.dataset.train.labels[run.held_out_indices]
    truth, whose = run.dataset.test.labels, labels
    temperature = run.compute(
        lambda: calibration.fit_temperature(held_out, whose), instead=lambda: 1.0
    )
    of = probabilities or (lambda t: classification.softmax(test / np.float32(t)))
    if strangers is None:
        _, strangers = unknown.largest_logits(held_out, whose)
    stage.save_arrays("unknown", scores=np.sort(strangers).astype(np.float32))
    # Of test images, which the same network answers that answers new ones: one that was fitted to
    # fewer images, for a fold, has logits of another scale.
    known = test.max(axis=1)
    accepted = unknown.false_accepts(known, strangers) <= unknown.FALSE_ACCEPTS
    return {
        "temperature": temperature,
        "calibration_error": calibration.expected_calibration_error(of(temperature), truth),
        "calibration_error_uncalibrated": calibration.expected_calibration_error(of(1.0), truth),
        "unknown_auroc": unknown.auroc(known, strangers),
        "unknown_fpr95": unknown.false_accepts_at(known, strangers),
        "accepted": float(np.mean(accepted)),
    }


def of(stage: Stage) -> dict[str, Any]:
    """A predictor's `temperature` and `unknown`, as `calibrate` left them in a finished stage."""
    found: dict[str, Any] = {"temperature": stage.metrics.get("temperature", 1.0)}
    if (stage.folder / "unknown.npz").is_file():
        found["unknown"] = stage.load_arrays("unknown")["scores"]
    return found


def described(
    metrics: dict[str, Any],
    source: str = "the held-out training images",
    strangers: str = "those images without their own class, which the classifier has seen",
) -> dict[str, str]:
    """What results.json's protocol says about a classifier's probabilities and of the unknown."""
    if "temperature" not in metrics:
        return {"probabilities": "uncalibrated: no images were held out"}
    said = {"probabilities": f"calibrated: a temperature from {source}"}
    return {**said, **({"unknown": strangers} if "unknown_auroc" in metrics else {})}
