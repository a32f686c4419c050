"""Which training images train, and which are held out."""

import numpy as np

from fgjax.data.loading import generator


def split_held_out(labels: np.ndarray, share: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Class-stratified split of 0 … N−1 into training and held-out indices, both sorted.

    A class gives round(share · its images) of them but keeps at least one for training.
    """
    rng = generator(seed, 0x5EED)
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held.append(members[: min(round(share * len(members)), len(members) - 1)])
    held_out = np.sort(np.concatenate(held)) if held else np.zeros(0, int)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out.astype(int)


def split_held_out_classes(
    labels: np.ndarray, share: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same by whole classes, for methods that are judged on classes that never trained.

    round(share · classes) of them are held out, but one at least stays for training.
    """
    classes = generator(seed, 0x5EED).permutation(np.unique(labels))
    held = classes[: min(round(share * len(classes)), len(classes) - 1)] if len(classes) else []
    held_out = np.isin(labels, held)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def few_of_each_class(labels: np.ndarray, shots: int, *, seed: int) -> np.ndarray:
    """Rows of `shots` images of each class, sorted; of a class that has fewer, all.

    Those of fewer shots are among those of more.
    """
    rng, kept = generator(seed, 0xFE3), []
    for label in np.unique(labels):
        kept.append(rng.permutation(np.flatnonzero(labels == label))[:shots])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
