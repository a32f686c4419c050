"""Stage `objects`: the box of the object in every image, without box annotations.

CAM takes the true class on training images and the predicted one elsewhere (held-out images
included, or they would not stand for test images). SCDA needs no class.
"""

import functools
import logging

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.data.datasets import Split
from fgjax.data.loading import Reader
from fgjax.errors import UserError
from fgjax.localization import boxes, cam
from fgjax.methods.shared.classifier import whole_images
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)

METHODS = ("cam", "scda", "annotated")


def activation_maps(model: models.Backbone, batch):
    """CAM of the true and of the predicted class and SCDA's map, each [B, H, W]."""
    outputs = model(batch["image"])
    features, logits = models.last_map(outputs), outputs["logits"]
    # Of a head on max ‖ average features, the average's half: it is what a map adds up to.
    weights = model.fc.kernel[...][-features.shape[-1] :]
    predicted = jnp.argmax(logits, axis=-1)
    return {
        "true": cam.class_activation_map(features, weights, batch["label"]),
        "predicted": cam.class_activation_map(features, weights, predicted),
        "sum": cam.channel_sum(features),
    }


def maps_of_prediction(model: models.Backbone, batch):
    """CAM of the predicted class and SCDA's map, each [B, H, W], for new images."""
    images = batch["image"]
    found = activation_maps(model, {**batch, "label": jnp.zeros(images.shape[:1], jnp.int32)})
    return {name: found[name] for name in ("predicted", "sum")}


def box_of(activation: np.ndarray, method: str, threshold: float) -> np.ndarray:
    """Object box [4] of one map by CAM (share of its range) or SCDA (multiples of its mean)."""
    find = {"cam": cam.cam_box, "scda": cam.scda_box}[method]
    return find(activation, threshold=threshold)


def localize(
    run: Run,
    model: nnx.Module,
    reader: Reader,
    *,
    thresholds: dict[str, float],
    batch_size: int,
    labelled: np.ndarray,
) -> dict[str, np.ndarray]:
    """Boxes by CAM and by SCDA for all images of a split: {"cam": [N, 4], "scda": [N, 4]}.

    `labelled` [N] says whose true class CAM may use.
    """
    count = len(reader.split)
    found = {name: np.zeros((count, 4), np.float32) for name in ("cam", "scda")}
    for outputs, rows in run.iterate(
        model, reader, np.arange(count), batch_size=batch_size, outputs_of=activation_maps
    ):
        for method, boxes_of in found.items():
            boxes_of[rows] = run.compute(
                functools.partial(
                    _boxes_of, outputs, method, thresholds[method], labelled=labelled[rows]
                ),
                instead=lambda: boxes.WHOLE,
            )
    return found


def _boxes_of(
    outputs: dict[str, np.ndarray], method: str, threshold: float, *, labelled: np.ndarray
) -> np.ndarray:
    """Boxes [B, 4] of a batch's maps."""
    names = {"cam": np.where(labelled, "true", "predicted"), "scda": ["sum"] * len(labelled)}
    return np.stack([
        box_of(outputs[name][row], method, threshold) for row, name in enumerate(names[method])
    ])  # fmt: skip


def keep_attention(run: Run, classifier: Stage, *, batch_size: int) -> Stage:
    """Stage `attention`: CAMs of the training images' own classes as the artifact `maps`.

    Where the objects come from is no matter; held-out images have none. `train` is [N, h, w].
    """
    stage = run.stage("attention", after=(classifier,))
    if stage.done:
        return stage
    reader, _ = whole_images(run)
    found = run.outputs(
        run.load_model(classifier), reader, run.train_indices,
        batch_size=batch_size, outputs_of=activation_maps,
    )["true"]  # fmt: skip
    maps = np.zeros((len(reader.split), *found.shape[1:]), np.float32)
    maps[run.train_indices] = found
    stage.save_arrays("maps", train=maps)
    stage.finish({})
    return stage


def mean_iou(found: np.ndarray, split: Split) -> float | None:
    """Mean IoU with the annotated boxes, over the images that have one."""
    known = ~np.isnan(split.boxes).any(axis=1)
    return float(boxes.iou(found[known], split.boxes[known]).mean()) if known.any() else None


def annotated(split: Split, title: str) -> np.ndarray:
    """The annotated boxes, which must be complete."""
    missing = np.isnan(split.boxes).any(axis=1)
    if missing.any():
        raise UserError(
            f"objects=annotated needs a box for every image, but {int(missing.sum())} images of "
            f"{title} have none, the first being {split.filenames[int(np.argmax(missing))]}."
        )
    return split.boxes


def locate_objects(
    run: Run,
    classifier: Stage,
    method: str,
    *,
    cam_threshold: float,
    scda_threshold: float,
    batch_size: int,
) -> Stage:
    """Boxes of all images as the artifact `boxes`, scored against the truth where there is one."""
    thresholds = {"cam": cam_threshold, "scda": scda_threshold}
    stage = run.stage("objects", after=(classifier,), shared=True, objects=method,
                      cam=cam_threshold, scda=scda_threshold)  # fmt: skip
    if stage.done:
        return stage
    dataset = run.dataset
    splits = {"train": dataset.train, "test": dataset.test}
    chosen, metrics = {}, {}
    if method == "annotated":
        chosen = {name: annotated(split, dataset.name) for name, split in splits.items()}
    else:
        model = run.load_model(classifier)
        for (name, split), reader in zip(splits.items(), whole_images(run)):
            labelled = np.zeros(len(split), bool)
            if name == "train":
                labelled[run.train_indices] = True
            found = localize(
                run, model, reader, thresholds=thresholds, batch_size=batch_size, labelled=labelled
            )
            chosen[name] = found[method]
            for other, guess in found.items():
                metrics[f"{name}_iou_{other}"] = mean_iou(guess, split)
    for name, split in splits.items():
        metrics[f"{name}_object_iou"] = mean_iou(chosen[name], split)
        whole = np.broadcast_to(boxes.WHOLE, (len(split), 4))
        metrics[f"{name}_iou_whole_image"] = mean_iou(whole, split)
    stage.save_arrays("boxes", **chosen)
    stage.finish(metrics)
    log.info("objects by %s: %s", method, _listed(metrics))
    return stage


def _listed(metrics) -> str:
    shown = {k: v for k, v in metrics.items() if k.startswith("test_") and v is not None}
    return (
        ", ".join(f"{name} {value:.3f}" for name, value in shown.items()) or "no boxes to compare"
    )
