"""Embeddings in the plane: what training did to classes."""

import matplotlib.pyplot as plt
import numpy as np

from fgjax.evaluation.retrieval import normalize_rows
from fgjax.figures import drawing
from fgjax.training.run import Run


def rows_of_first(labels: np.ndarray, *, classes: int = 20) -> np.ndarray:
    """The rows of the first classes, as many as a person tells apart by colour."""
    return np.flatnonzero(np.isin(labels, np.unique(labels)[:classes]))


def in_plane(embeddings: np.ndarray) -> np.ndarray:
    """Places [N, 2] by t-SNE of unit vectors [N, D]; begins with their principal components."""
    from sklearn.manifold import TSNE

    perplexity = min(30, max((len(embeddings) - 1) // 3, 2))
    found = TSNE(random_state=0, init="pca", perplexity=perplexity)
    return found.fit_transform(normalize_rows(embeddings))


def tsne(run: Run, pairs: list[tuple[str, np.ndarray]], labels: np.ndarray) -> None:
    """Embeddings of the same images by several networks, side by side: tsne.png.

    Args:
      run: for the classes' names, and where to draw.
      pairs: of each network what it is called and its embeddings [N, D].
      labels: [N], of at most twenty classes.
    """
    figure, axes = plt.subplots(1, len(pairs), figsize=(6 * len(pairs), 5.6), squeeze=False)
    for axis, (name, embeddings) in zip(axes[0], pairs):
        places = in_plane(embeddings)
        for number, label in enumerate(np.unique(labels)):
            axis.scatter(*places[labels == label].T, s=9, color=plt.cm.tab20(number % 20),
                         label=run.dataset.name_of(label))  # fmt: skip
        axis.set_title(name)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, -1].legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    names = ", ".join(name for name, _ in pairs)
    drawing.save(
        figure, run.workdir / "figures" / "tsne.png",
        caption="embeddings of the first test classes in the plane, a colour for each class: "
                f"{names}",
    )  # fmt: skip
