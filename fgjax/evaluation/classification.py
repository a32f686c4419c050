"""Classification metrics, and the forward passes that they are measured on."""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Float32, Integer

from fgjax import compilation
from fgjax.data.loading import ImageReader
from fgjax.training.forward import forward, iterate, logits_of

__all__ = [
    "classification_metrics", "forward", "iterate", "logits_of", "most_confused", "predict_logits",
    "softmax",
]  # fmt: skip


def predict_logits(
    model: nnx.Module, reader: ImageReader, indices: Integer[np.ndarray, " N"], *, batch_size: int
) -> Float[np.ndarray, "N K"]:
    """Logits of a split's images, in the order of the indices."""
    results = iterate(model, reader, indices, batch_size=batch_size, outputs_of=logits_of)
    return np.concatenate([outputs["logits"] for outputs, _ in results])


def classification_metrics(
    logits: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"]
) -> dict[str, float]:
    """Top-1, top-3, top-5 (fractions), mean per-class accuracy and mean cross-entropy.

    An image counts as hit in the top k when fewer than k classes score higher than its own; ties
    go against it.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    own = logits[np.arange(len(labels)), labels]
    rank = np.sum(logits >= own[:, None], axis=1) - 1
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = own - logits.max(axis=1) - np.log(np.exp(shifted).sum(axis=1))
    per_class = [np.mean(rank[labels == label] == 0) for label in np.unique(labels)]
    return {
        "top1": float(np.mean(rank < 1)),
        "top3": float(np.mean(rank < 3)),
        "top5": float(np.mean(rank < 5)),
        "mean_class_accuracy": float(np.mean(per_class)),
        "cross_entropy": float(-np.mean(log_probability)),
    }


def most_confused(
    logits: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"], *, count: int = 10
) -> list[tuple[int, int, int]]:
    """Pairs of classes (true, predicted, how often), most frequent first."""
    classes = logits.shape[1]
    table = np.zeros((classes, classes), int)
    np.add.at(table, (labels, np.argmax(logits, axis=1)), 1)
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None, kind="stable")[:count]
    pairs = [(int(i // classes), int(i % classes)) for i in order]
    return [(i, j, int(table[i, j])) for i, j in pairs if table[i, j]]


def softmax(logits: Float[np.ndarray, "*N K"]) -> Float32[np.ndarray, "*N K"]:
    """Probabilities of logits."""
    return np.asarray(_softmax(np.asarray(logits, np.float32)))


_softmax = compilation.jit(jax.nn.softmax)
