"""A few learned queries that attend over a frozen backbone's last map (efficient probing).

  a_m    = softmax over the places n of q_m · x_n                   no projection of keys
  u_m    = v_m / ‖v_m‖,  v_m = Σ_n a_mn x_n
  logits = Σ_m W_m u_m + b

After Psomas et al. 2025, "Attention, Please! Revisiting Attentive Probing Through the Lens of
Efficiency"; values are not projected either, which few images could not teach. It begins as the
linear head on the mean: the queries near 0, so that all places count alike, and each W_m its share
of that head's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import models
from fgjax.config import Optimizer, Training
from fgjax.data import loading
from fgjax.data.loading import Example
from fgjax.losses.common import normalize
from fgjax.methods.probe import heads
from fgjax.methods.shared.classifier import whole_images
from fgjax.ranges import within
from fgjax.training.run import Run, Stage

_SCALE = 0.3  # of the queries' step beside the weights'


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


class AttentionHead(nnx.Module):
    """Logits and attention of maps.

    Args:
      weights: of the linear head that it begins as [D, K].
      bias: likewise [K].
      queries: M.
      key: of the queries' first values.
    """

    def __init__(self, weights: np.ndarray, bias: np.ndarray, queries: int, key: jax.Array):
        width = weights.shape[0]
        first = jax.random.normal(key, (queries, width)) * (1e-3 / _SCALE)
        self.queries = nnx.Param(first)
        self.kernel = nnx.Param(jnp.repeat(jnp.asarray(weights)[None] / queries, queries, axis=0))
        self.bias = nnx.Param(jnp.asarray(bias))

    def __call__(self, maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits [B, K] of maps [B, H, W, D], and each place's share for a query [B, M, H, W]."""
        batch, height, width, depth = maps.shape
        places = maps.reshape(batch, height * width, depth).astype(jnp.float32)
        scores = jnp.einsum("bnd,md->bmn", places, _SCALE * self.queries[...])
        shares = jax.nn.softmax(scores, axis=-1)
        seen = normalize(jnp.einsum("bmn,bnd->bmd", shares, places))
        logits = jnp.einsum("bmd,mdk->bk", seen, self.kernel[...]) + self.bias[...]
        return logits, shares.reshape(batch, shares.shape[1], height, width)


def of_arrays(arrays: heads.Arrays) -> AttentionHead:
    """The head as `fit` left it."""
    kernel = arrays["kernel"]
    head = AttentionHead(kernel[0], arrays["bias"], len(kernel), jax.random.key(0))
    head.queries[...], head.kernel[...] = jnp.asarray(arrays["queries"]), jnp.asarray(kernel)
    return head


@dataclasses.dataclass(frozen=True)
class CachedMaps:
    """Transform that looks maps up: they are constants when their network is frozen."""

    maps: np.ndarray  # [N, H, W, D]
    labels: np.ndarray

    def __call__(self, position: int, index: int) -> Example:
        """Map float16 [H, W, D], label, index."""
        del position
        return {
            "map": self.maps[index],
            "label": np.int32(self.labels[index]),
            "index": np.int32(index),
        }


def map_of(model: nnx.Module, batch) -> dict[str, jax.Array]:
    """The last map in half precision: half the memory, and a thousandth of its values."""
    return {"map": models.last_map(model(batch["image"])).astype(jnp.float16)}


def logits_of_maps(head: nnx.Module, batch) -> dict[str, jax.Array]:
    """For `run.outputs`."""
    return {"logits": head(batch["map"])[0]}


def map_loss(head: nnx.Module, batch, statistics, key):
    """Softmax cross-entropy."""
    del statistics, key
    logits, _ = head(batch["map"])
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])}


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
