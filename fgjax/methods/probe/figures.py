"""Where the queries of the attention head look."""

import cv2
import jax.numpy as jnp
import numpy as np

from fgjax.figures import drawing
from fgjax.figures.common import image_of
from fgjax.methods.probe import attention
from fgjax.training.run import Run


def draw(run: Run) -> None:
    """attention.webp, where the head is `attention`."""
    if run.config.method.head == "attention":
        attended(run)


def attended(run: Run, *, count: int = 8) -> None:
    """Test images of different classes, and what each query sees of them: bright where it looks."""
    head = attention.of_arrays(run.stages["head"].load_arrays("head"))
    split = run.dataset.test
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.unique(split.labels))[:count]
    rows = [int(rng.choice(np.flatnonzero(split.labels == label))) for label in classes]
    maps = run.stages["maps"].load_arrays("maps")["test"][rows]
    logits, shares = (np.asarray(found) for found in head(jnp.asarray(maps)))
    images, captions = [], []
    for row, own, answer in zip(rows, shares, logits.argmax(axis=1)):
        image = drawing.enlarge(image_of(split, row))
        images += [image, *(brightened(image, one) for one in own)]
        right = "right" if answer == split.labels[row] else run.dataset.name_of(answer)
        captions += [f"{run.dataset.name_of(split.labels[row])}\n{right}", *[""] * len(own)]
    drawing.sheet(
        images, captions, run.workdir / "figures" / "attention.webp",
        columns=1 + shares.shape[1],
        heads=["image", *(f"query {number + 1}" for number in range(shares.shape[1]))],
        title="what each query of the head looks at: bright",
    )  # fmt: skip


def brightened(image: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The image [H, W, 3], dark where the shares [h, w] are small beside the largest."""
    height, width = image.shape[:2]
    weight = cv2.resize(shares / shares.max(), (width, height), interpolation=cv2.INTER_CUBIC)
    return (image * np.clip(0.15 + 0.85 * weight, 0, 1)[..., None]).astype(np.uint8)
