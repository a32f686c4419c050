"""How the probe's attention head is trained: learned queries on the last map.

The head is `shared.attention_head`'s. It begins as the linear head on the mean: the queries near 0,
so that all places count alike, and each W_m its share of that head's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fgjax.config import Optimizer, Training
from fgjax.data import loading
from fgjax.methods.probe import heads
from fgjax.methods.shared.attention_head import (
    AttentionHead,
    CachedMaps,
    logits_of_maps,
    map_loss,
    map_of,
)
from fgjax.methods.shared.classifier import whole_images
from fgjax.ranges import within
from fgjax.training.run import Run, Stage


@dataclasses.dataclass
class Attention:
    """How it is trained; chosen on held-out training images of CUB-100."""

    queries: int = within(4, 1, 64, before=4)
    passes: int = within(8, 0, before=8)
    learning_rate: float = within(0.01, 0, 1, above=True, before=0.01)
    batch_size: int = within(64, 1, 1_000_000, before=64)

    @property
    def training(self) -> Training:
        """For the loop."""
        optimizer = Optimizer("adamw", self.learning_rate, weight_decay=0.0, schedule="cosine")
        return Training(self.passes, self.batch_size, optimizer)


def of_arrays(arrays: heads.Arrays) -> AttentionHead:
    """The head as `fit` left it."""
    kernel = arrays["kernel"]
    head = AttentionHead(kernel[0], arrays["bias"], len(kernel), jax.random.key(0))
    head.queries[...], head.kernel[...] = jnp.asarray(arrays["queries"]), jnp.asarray(kernel)
    return head


def keep_maps(run: Run, batch_size: int) -> Stage:
    """Stage `maps`: the last maps of both splits as the artifact `maps`, 2 H W D bytes an image."""
    stage = run.stage("maps")
    if stage.done:
        return stage
    model, found = run.build_model(), {}
    for name, reader in zip(("train", "test"), whole_images(run)):
        rows = np.arange(len(reader.split))
        outputs = run.outputs(model, reader, rows, batch_size=batch_size, outputs_of=map_of)
        found[name] = outputs["map"]
    stage.save_arrays("maps", **found)
    stage.finish({})
    return stage


def fit(
    run: Run,
    stage: Stage,
    settings: Attention,
    maps: dict[str, np.ndarray],
    features: np.ndarray,
    linear: heads.Fitted,
    *,
    folds: int,
    iterations: int,
) -> tuple[heads.Fitted, dict[str, np.ndarray]]:
    """The head on all training images, as `heads.fit` returns it, and logits of both splits.

    Args:
      run: with dataset and training rows.
      stage: whose folder holds the loops.
      settings: of the training.
      maps: of both splits.
      features: unit features of the training split [N, D].
      linear: the linear head on them, which it begins as.
      folds: of `linear`'s cross-validation; in the same ones it is trained and judged.
      iterations: of the linear heads that the folds begin as.
    """
    labels, rows = run.dataset.train.labels, run.train_indices
    classes = run.dataset.num_classes
    cached = {"train": CachedMaps(maps["train"], labels),
              "test": CachedMaps(maps["test"], run.dataset.test.labels)}  # fmt: skip

    def trained(start: heads.Arrays, own: np.ndarray, step: str) -> AttentionHead:
        key = run.key("attention")
        # Of a feature with more than the average of the map, those of the average: they come last.
        weights = start["weights"][-maps["train"].shape[-1] :]
        head = AttentionHead(weights, start["bias"], settings.queries, key)
        seed = run.seed("attention", step)
        stream = loading.stream(own, cached["train"], seed=seed)
        run.train(stage, head, map_loss, stream, settings.training, step=step)
        return head

    def logits(head: AttentionHead, split: str, places: np.ndarray) -> np.ndarray:
        return run.outputs(
            head, cached[split], places, batch_size=256, outputs_of=logits_of_maps
        )["logits"]  # fmt: skip

    outside = np.array(linear.outside)
    divided = heads.divide(labels[rows], folds, run.seed("folds")) if len(outside) else []
    for number, (own, judged) in enumerate(divided):
        start = run.compute(
            lambda own=own: heads.fit_one(
                "linear", features[rows[own]], labels[rows[own]], classes=classes,
                chosen=linear.chosen, iterations=iterations,
            ),
            instead=lambda: linear.arrays,
        )  # fmt: skip
        head = trained(start, rows[own], f"fold-{number}")
        outside[judged] = logits(head, "train", rows[judged])
    head = trained(linear.arrays, rows, "all")
    arrays = {name: np.asarray(getattr(head, name)[...]) for name in ("queries", "kernel", "bias")}
    found = {name: logits(head, name, np.arange(len(cached[name].labels))) for name in cached}
    return heads.Fitted(linear.chosen, arrays, outside), found
