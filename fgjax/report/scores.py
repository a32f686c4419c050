"""A run's numbers as sentences and table rows."""

import dataclasses
from typing import Any

from fgjax.evaluation import wilson_interval

# What a reader is told, in this order, as far as the run has it.
NAMES = {
    "top1": "First answer right",
    "top3": "Among the first three",
    "top5": "Among the first five",
    "mean_class_accuracy": "First answer right, mean over classes",
    "held_out_top1": "First answer right, held-out training images",
    "recall@1": "Nearest image is of its class (Recall@1)",
    "recall@2": "One of the nearest two (Recall@2)",
    "recall@4": "One of the nearest four (Recall@4)",
    "recall@8": "One of the nearest eight (Recall@8)",
    "map@r": "MAP@R",
    "classification_top1": "Without re-ranking",
    "retrieval_top1": "By the nearest training image alone",
    "global_top1": "The image without regions",
    "original_top1": "The original image alone",
    "object_top1": "The object alone",
    "parts_top1": "The parts alone",
    "calibration_error": "Calibration error",
    "accepted": "Known, where a tenth of unknown things is let in",
    "unknown_auroc": "Known above unknown things (AUROC)",
    "unknown_fpr95": "Unknown things let in with 95 % of the known (FPR@95)",
}
COUNTED = ("top1", "top3", "top5", "recall@1", "recall@2", "recall@4", "recall@8")


@dataclasses.dataclass(frozen=True)
class Score:
    """A row of the table of scores.

    Attributes:
      name: in plain words.
      key: in results.json.
      value: per cent.
      low: and
      high: of the 95 % interval over test images, per cent; None where none is known.
    """

    name: str
    key: str
    value: float
    low: float | None = None
    high: float | None = None


def table(metrics: dict[str, Any], images: int) -> list[Score]:
    """The rows of `NAMES` that metrics have, with Wilson's interval where images were counted."""
    rows = []
    for key, name in NAMES.items():
        value = metrics.get(key)
        if not isinstance(value, (int, float)):
            continue
        low = high = None
        if key in COUNTED and images:
            low, high = (100 * end for end in wilson_interval(value * images, images))
        rows.append(Score(name, key, 100 * value, low, high))
    return rows


def verdict(metrics: dict[str, Any], protocol: dict[str, Any]) -> str:
    """The run in one sentence."""
    images = protocol["test_images"]
    if "top1" in metrics:
        low, high = wilson_interval(metrics["top1"] * images, images)
        return (
            f"{100 * metrics['top1']:.1f} % of {images:,} test images are named right. "
            f"With other images of the same kind it would be {100 * low:.1f} to {100 * high:.1f} %."
        )
    if "recall@1" in metrics:
        unseen = " of classes that it never saw" if protocol.get("zero_shot") else ""
        return (
            f"For {100 * metrics['recall@1']:.1f} % of {images:,} images{unseen}, the nearest "
            "other image is of the same class."
        )
    return f"Measured on {images:,} test images."


def conditions(protocol: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, how): what a number has to be read with."""
    yes = lambda value: "yes" if value else "no"  # noqa: E731
    held_out = f"{protocol['held_out_images']:,} of them"
    rows = [
        ("Dataset", f"{protocol['dataset']} ({protocol['dataset_fingerprint']})"),
        ("Training images", f"{protocol['train_images']:,}"),
        ("Held out of training", held_out if protocol["held_out_images"] else "none"),
        ("Test images", f"{protocol['test_images']:,}"),
        ("Test classes unseen in training", yes(protocol.get("zero_shot"))),
        ("Network", f"{protocol['backbone']} at {protocol['image_size']} px"),
        ("Starts from", protocol["pretrained"]),
        ("True boxes used", yes(protocol.get("boxes_used"))),
        ("Anything chosen on test images", yes(protocol["test_split_used_for_selection"])),
        ("Model chosen by", str(protocol.get("selected_on", "nothing"))),
        ("Seed", str(protocol["seed"])),
        ("Computed on", f"{protocol['devices']} × {protocol['device_kind']}"),
    ]
    if "probabilities" in protocol:
        rows.append(("Probabilities", str(protocol["probabilities"])))
    if "unknown" in protocol:
        rows.append(("Unknown things", str(protocol["unknown"])))
    if protocol["skipped_images"]:
        rows.append(("Images that could not be read", f"{protocol['skipped_images']:,}"))
    return rows
