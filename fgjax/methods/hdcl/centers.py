"""Class centres before they are learnt, and which classes compete with them."""

import numpy as np
from flax import nnx

from fgjax.data.loading import Reader
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.training.run import Run


def annealed(
    epoch: int, classes: int, *, top_k: int, warmup_epochs: int, anneal_epochs: int
) -> int:
    """K̂ in an epoch (from 0): all classes when the warm-up ends, `top_k` after `anneal_epochs`.

    It falls by the same factor in every epoch: the last few classes are those that are hard.
    """
    share = min(max(epoch - warmup_epochs, 0) / max(anneal_epochs, 1), 1)
    return round(classes ** (1 - share) * top_k**share)


def class_means(
    run: Run, model: nnx.Module, reader: Reader, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean unit embeddings [K, D] of the classes, 0 where none trains; how many images, [K]."""
    rows, labels = run.train_indices, run.dataset.train.labels
    found = embeddings_of(run, model, Embed(), reader, rows, batch_size=batch_size)
    sums = np.zeros((run.dataset.num_classes, found.shape[1]), np.float32)
    run.compute(lambda: np.add.at(sums, labels[rows], found), instead=lambda: None)
    counts = np.bincount(labels[rows], minlength=len(sums))
    return sums / np.maximum(counts, 1)[:, None], counts


def trained_classes(run: Run) -> tuple[int, ...]:
    """Where whole classes are held out, those that are not; otherwise none are named."""
    if not run.config.data.zero_shot or not len(run.held_out_indices):
        return ()
    return tuple(np.unique(run.dataset.train.labels[run.train_indices]).tolist())
