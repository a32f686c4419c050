"""Pictures of HDCL beside softmax that was trained just as long, where the run has that stage, or
beside what training began with: a softmax classifier, or ImageNet's weights.
"""

import matplotlib.pyplot as plt
import numpy as np

from fgjax.evaluation import nearest, retrieval_metrics
from fgjax.evaluation.retrieval import normalize_rows
from fgjax.figures import drawing
from fgjax.figures.common import image_of
from fgjax.figures.embeddings import rows_of_first, tsne
from fgjax.training.run import Run

_RECALL_KS = (1, 2, 4, 8, 16, 32)


def draw(run: Run) -> None:
    """gallery.webp, tsne.png, centers.png, recall.png; nothing more in recognition mode."""
    stage = run.stages["embedding"]
    if run.config.method.recognition:
        return
    before, after = stage.load_arrays("before"), stage.load_arrays("after")
    loss = run.config.method.loss
    if "softmax" in run.stages:
        pairs = [("softmax", run.stages["softmax"].load_arrays("after")), (loss, after)]
    else:
        first = "softmax classifier" if run.config.method.start.epochs else "pretrained network"
        pairs = [(first, before), (f"after {loss}", after)]
    labels = after["labels"]
    folder = run.workdir / "figures"
    gallery(run, pairs, labels)
    rows = rows_of_first(labels)
    tsne(run, [(name, arrays["embeddings"][rows]) for name, arrays in pairs], labels[rows])
    recall(pairs, labels, folder / "recall.png")
    if "centers" in after:
        centers(before["centers"], after["centers"], folder / "centers.png")


def gallery(run: Run, pairs, labels: np.ndarray, *, queries: int = 6, top: int = 8) -> None:
    """The same queries and their first matches by each, right ones framed green (HDCL Fig. 7)."""
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.unique(labels))[:queries]
    chosen = [int(rng.choice(np.flatnonzero(labels == k))) for k in classes]
    split = run.dataset.test
    images, captions = [], []
    for query in chosen:
        for name, arrays in pairs:
            unit = normalize_rows(arrays["embeddings"])
            scores, rows = nearest(
                unit[[query]], unit, count=min(top, len(unit) - 1), own=np.array([query])
            )
            images.append(drawing.enlarge(image_of(split, query)))
            captions.append(f"{name}\n{run.dataset.name_of(labels[query])}")
            for score, row in zip(scores[0], rows[0]):
                right = labels[row] == labels[query]
                color = drawing.GREEN if right else drawing.RED
                image = drawing.enlarge(image_of(split, row))
                whole = np.array([0, 0, 1, 1], np.float32)
                images.append(drawing.with_boxes(image, [whole], [color], thickness=10))
                captions.append(f"{run.dataset.name_of(labels[row])}\n{score:.3f}")
    drawing.sheet(
        images, captions, run.workdir / "figures" / "gallery.webp",
        columns=1 + min(top, len(labels) - 1),
        title="the same queries searched by both; green: the query's class",
    )  # fmt: skip


def centers(before: np.ndarray, after: np.ndarray, path) -> None:
    """Cosines of all pairs of class centres, before and after training."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4))
    off = ~np.eye(after.shape[1], dtype=bool)
    for axis, weights, title in zip(axes, (before, after), ("before", "after")):
        cosines = weights.T @ weights
        axis.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r")
        mean = np.abs(cosines[off]).mean()
        axis.set_title(f"{title} training: mean |cos| of pairs {mean:.3f}", fontsize=9)
        axis.set_xlabel("class")
    figure.colorbar(axes[1].images[0], ax=axes, shrink=0.8, label="cosine of two class centres")
    drawing.write(figure, path, caption="cosines of all pairs of class centres, before and after")


def recall(pairs, labels: np.ndarray, path) -> None:
    """Recall@K over K."""
    figure, axis = plt.subplots(figsize=(5, 3.6))
    for name, arrays in pairs:
        found = retrieval_metrics(arrays["embeddings"], labels, recall_ks=_RECALL_KS)
        axis.plot(_RECALL_KS, [100 * found[f"recall@{k}"] for k in _RECALL_KS], "o-", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(_RECALL_KS, [str(k) for k in _RECALL_KS])
    axis.set_xlabel("K")
    axis.set_ylabel("Recall@K (%)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    drawing.save(figure, path, caption="Recall@K over K")
