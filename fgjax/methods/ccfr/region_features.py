"""What CCFR's stages leave of each image, and the same for images from anywhere."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fgjax.data.loading import Reader
from fgjax.evaluation import classification
from fgjax.evaluation.rerank import find_neighbours, rescore
from fgjax.localization import boxes as boxlib
from fgjax.losses.common import normalize
from fgjax.methods.ccfr.reranking import reordered
from fgjax.methods.shared.predictor import BatchedPredictor, Images, Prediction, Program
from fgjax.training.run import Run, Stage


def all_outputs(model, batch) -> dict[str, jax.Array]:
    """What is kept of an image, for `classification.iterate`."""
    given = {name: batch[name] for name in ("parts",) if name in batch}
    outputs = model(batch["image"], **given)
    kept = ("features", "logits", "global_logits", "part_logits", "boxes", "proposed")
    return {name: outputs[name] for name in kept if name in outputs}


def finish_with_features(
    run: Run, stage: Stage, model, batch_size: int, readers: tuple[Reader, Reader]
) -> None:
    """Save the network, x and the logits of all images, and the regions of the test images."""
    stage.save_model(model)
    arrays, metrics, found = {}, {}, {}
    for name, reader in zip(("train", "test"), readers):
        split = reader.split
        rows = np.arange(len(split))
        found = run.outputs(model, reader, rows, batch_size=batch_size, outputs_of=all_outputs)
        arrays |= {name: found["features"], f"{name}_logits": found["logits"]}
    stage.save_arrays("features", **arrays)
    labels = run.dataset.test.labels
    metrics["top1"] = float(np.mean(found["logits"].argmax(1) == labels))
    if "boxes" in found:
        stage.save_arrays("regions", boxes=found["boxes"], scores=found["proposed"])
        metrics["global_top1"] = float(np.mean(found["global_logits"].argmax(1) == labels))
        metrics["part_top1"] = float(np.mean(found["part_logits"].argmax(-1) == labels[:, None]))
    stage.finish(metrics)


def unit_features(model, batch) -> dict[str, jax.Array]:
    """Unit x, for search."""
    return {"embedding": normalize(model(batch["image"])["features"])}


@dataclasses.dataclass(frozen=True)
class RerankingPredictor(BatchedPredictor):
    """Classes of new images as evaluation re-ranks them; the regions are the parts.

    Attributes:
      network: gives `all_outputs`.
      database: x of the training images [N, D].
      labels: their classes [N].
      settings: thresholds and weights of `rescore`.
      temperature: of the probabilities that are said; thresholds look at those without it.
    """

    network: Program
    database: np.ndarray
    labels: np.ndarray
    settings: dict[str, Any]
    temperature: float = 1.0

    def _predict(self, images: Images) -> list[Prediction]:
        outputs = self.network(self._whole(images))
        probabilities = classification.softmax(outputs["logits"])
        count = self.settings["top_m"]
        neighbours = find_neighbours(outputs["features"], self.database, self.labels, count=count)
        scores = rescore(probabilities, neighbours, **self.settings)
        found = outputs.get("boxes", np.zeros((len(images), 0, 4), np.float32))
        said = classification.softmax(outputs["logits"] / np.float32(self.temperature))
        return [
            Prediction(row, boxlib.WHOLE.copy(), boxes, float(score))
            for row, boxes, score in zip(
                reordered(said, scores), found, outputs["logits"].max(axis=1)
            )
        ]
