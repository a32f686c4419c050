"""Stage `hierarchy`: super-classes of classes that look alike (CCFR section 3.1)."""

import logging

import numpy as np

from fgjax.evaluation.retrieval import normalize_rows
from fgjax.methods.shared.classifier import whole_images
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


def super_class_count(wanted: int, classes: int) -> int:
    """C_f: the config's, or a fifth of the classes for 0."""
    return wanted or max(round(classes / 5), 1)


def build_hierarchy(
    run: Run, classifier: Stage | None, *, super_classes: int, batch_size: int
) -> Stage:
    """k-means on the unit mean features of the classes; leaves hierarchy.json and the artifact
    `hierarchy` with `parents` int [C] (−1: a class without images) and `means` [C, D].

    Args:
      run: with dataset and folders.
      classifier: whose features are used; None for those of the weights that training starts from.
      super_classes: C_f, at most C; 0 for round(C / 5).
      batch_size: of the forward passes.
    """
    after = (classifier,) if classifier else ()
    stage = run.stage("hierarchy", after=after, super_classes=super_classes)
    if stage.done:
        return stage
    reader, _ = whole_images(run)
    rows, labels = run.train_indices, run.dataset.train.labels
    model = run.load_model(classifier) if classifier else run.build_model()
    found = embeddings_of(run, model, Embed(), reader, rows, batch_size=batch_size)
    classes = run.dataset.num_classes
    count = super_class_count(super_classes, classes)

    def group() -> tuple[np.ndarray, np.ndarray]:
        means = class_means(found, labels[rows], classes)
        return means, cluster(means, count, seed=run.seed("hierarchy"))

    means, parents = run.compute(
        group,
        instead=lambda: (
            np.zeros((classes, found.shape[1]), np.float32),
            (np.arange(classes) % count).astype(np.int32),
        ),
    )
    names = [
        [run.dataset.class_names[label] for label in np.flatnonzero(parents == parent)]
        for parent in range(parents.max() + 1)
    ]
    for number, members in enumerate(names):
        log.info("super-class %d: %s", number + 1, ", ".join(members))
    stage.save_json("hierarchy", names)
    stage.save_arrays("hierarchy", parents=parents, means=means)
    stage.finish({"super_classes": len(names), "largest": max(map(len, names)),
                  "smallest": min(map(len, names))})  # fmt: skip
    return stage


def class_means(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Unit means [C, D] of each class's features; zero for a class without any."""
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features)
    return normalize_rows(sums.astype(np.float32))


def cluster(means: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Parents int32 [C], numbered in the order of their first class; −1 for a zero mean.

    There are fewer than `count` where fewer classes have images, or means that differ.
    """
    from sklearn.cluster import KMeans  # its import takes two seconds

    present = np.any(means != 0, axis=1)
    count = min(count, len(np.unique(means[present], axis=0)))
    # scikit-learn has no types; what is guessed from its default is a string.
    groups = KMeans(count, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    assigned = groups.fit_predict(means[present])
    _, first = np.unique(assigned, return_index=True)
    number = {assigned[place]: index for index, place in enumerate(np.sort(first))}
    parents = np.full(len(means), -1, np.int32)
    parents[present] = [number[one] for one in assigned]
    return parents
