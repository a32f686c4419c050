"""CCFR's pictures: its regions beside NTS-Net's, what re-ranking rectified and broke, and the
hierarchy. On the built-in aircraft also how often a region covers the part that decides.
"""

import json

import numpy as np

from fgjax.data import synthetic
from fgjax.evaluation.retrieval import normalize_rows
from fgjax.figures import drawing
from fgjax.figures.common import image_of
from fgjax.methods.ccfr.reranking import stored_neighbours
from fgjax.training.run import Run, write_json

SMALL, LARGE = drawing.YELLOW, drawing.RED
_WHOLE = np.array([0, 0, 1, 1], np.float32)


def draw(run: Run) -> None:
    """regions.webp, reranking.webp, hierarchy.webp; coverage.json on the built-in aircraft."""
    if "hierarchy" in run.stages:
        hierarchy(run)
    if "enhance" in run.stages:
        found = coverage(run)
        if found:
            write_json(run.workdir / "figures" / "coverage.json", found)
        regions(run, found)
    reranking(run)


def _stages_with_regions(run: Run) -> dict[str, np.ndarray]:
    """Selected boxes [N, R, 4] of the test images, by the name of what selected them."""
    names = {"nts": "NTS-Net", "enhance": "CCFR"}
    wanted = run.config.method.per_scale * len(run.config.method.scales)
    found = {}
    for stage, title in names.items():
        if stage in run.stages:
            boxes = run.stages[stage].load_arrays("regions")["boxes"]
            found[title] = boxes[:, :wanted]
    return found


def regions(run: Run, covered: dict[str, float], *, count: int = 12) -> None:
    """The selected boxes on test images of different classes (CCFR Figs. 4 and 7)."""
    split, selected = run.dataset.test, _stages_with_regions(run)
    classes = np.linspace(0, run.dataset.num_classes - 1, count).astype(int)
    rows = [int(np.flatnonzero(split.labels == k)[0]) for k in np.unique(classes)]
    smallest = min(run.config.method.scales) * 1.01
    images, captions = [], []
    per_line = max(6 // len(selected), 1)
    for start in range(0, len(rows), per_line):
        for row in rows[start : start + per_line]:
            for title, boxes in selected.items():
                sides = boxes[row, :, 2] - boxes[row, :, 0]
                colors = [SMALL if side <= smallest else LARGE for side in sides]
                image = drawing.enlarge(image_of(split, row))
                images.append(drawing.with_boxes(image, list(boxes[row]), colors))
                captions.append(f"{title}: {run.dataset.name_of(split.labels[row])}")
    shares = ", ".join(f"{k} {100 * v:.0f} %" for k, v in covered.items() if k in selected)
    title = "selected regions, small scale yellow, large scale red"
    if shares:
        chance = 100 * covered["random boxes of CCFR's sizes"]
        title += f"\na region covers the deciding part: {shares}; random boxes {chance:.0f} %"
    drawing.sheet(
        images, captions, run.workdir / "figures" / "regions.webp",
        columns=per_line * len(selected), title=title,
    )  # fmt: skip


def coverage(run: Run, *, share: float = 0.5) -> dict[str, float]:
    """Share of test images in which a selected region covers at least `share` of the part that
    tells the class from its nearest one; empty but for the built-in aircraft.

    The nearest class is the most similar one by mean feature that differs in a single part.
    """
    split, dataset = run.dataset.test, run.dataset
    if dataset.name != "synthetic_aircraft" or split.parts is None:
        return {}
    if dataset.num_classes != len(synthetic.designs()):
        return {}  # further variants differ in several parts
    deciding = _deciding_parts(run)
    parts = split.parts[np.arange(len(split)), deciding[split.labels]]
    known = ~np.isnan(parts).any(axis=1)
    selected = _stages_with_regions(run)
    found = {name: float(np.mean(_covers(boxes, parts, share)[known]))
             for name, boxes in selected.items()}  # fmt: skip
    rng = np.random.default_rng(0)
    boxes = selected["CCFR"]
    sides = boxes[..., 2:] - boxes[..., :2]
    low = rng.uniform(0, 1, sides.shape) * (1 - sides)
    random = np.concatenate([low, low + sides], axis=-1)
    found["random boxes of CCFR's sizes"] = float(np.mean(_covers(random, parts, share)[known]))
    for name, boxes in selected.items():
        found[f"mean side of {name}'s regions"] = float((boxes[..., 2] - boxes[..., 0]).mean())
    return found


def _deciding_parts(run: Run) -> np.ndarray:
    """Index of the part that tells each class from its nearest one, int [C]."""
    features = run.stages["pretrain"].load_arrays("features")["train"]
    labels, classes = run.dataset.train.labels, run.dataset.num_classes
    unit = normalize_rows(features)
    means = normalize_rows(np.stack([unit[labels == k].mean(axis=0) for k in range(classes)]))
    similar = means @ means.T
    parts = []
    for label in range(classes):
        order = [other for other in np.argsort(-similar[label]) if other != label]
        decided = (synthetic.deciding_part(label, int(other)) for other in order)
        parts.append(next(part for part in decided if part is not None))
    return np.array(parts)


def _covers(boxes: np.ndarray, parts: np.ndarray, share: float) -> np.ndarray:
    """Whether one of the boxes [N, R, 4] holds `share` of the part [N, 4]; bool [N]."""
    low = np.maximum(boxes[..., :2], parts[:, None, :2])
    high = np.minimum(boxes[..., 2:], parts[:, None, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    area = np.prod(parts[:, 2:] - parts[:, :2], axis=-1)
    return (common >= share * area[:, None]).any(axis=1)


def reranking(run: Run, *, each: int = 4, neighbours: int = 5) -> None:
    """Images that re-ranking rectified, then those that it broke, with what they found (Fig. 5)."""
    stored = run.stages["rerank"].load_arrays("predictions")
    labels, scores = stored["labels"], stored["logits"]
    probabilities, near = stored["probabilities"], stored_neighbours(stored)
    before, after = probabilities.argmax(axis=1), scores.argmax(axis=1)
    rectified = np.flatnonzero((after == labels) & (before != labels))
    broken = np.flatnonzero((before == labels) & (after != labels))
    rng = np.random.default_rng(0)
    chosen = [*rng.permutation(rectified)[:each], *rng.permutation(broken)[:each]]
    if not chosen:
        return
    name, top_n = run.dataset.name_of, run.stages["rerank"].metrics["top_n"]
    neighbours = min(neighbours, near.rows.shape[1])
    images, captions = [], []
    for row in chosen:
        kind = "rectified" if row in rectified else "broken"
        listed = [
            f"{name(int(k))} {100 * probabilities[row, k]:.0f} % → {scores[row, k]:.2f}"
            for k in np.argsort(-probabilities[row], kind="stable")[: min(top_n, 3)]
        ]
        images.append(drawing.enlarge(image_of(run.dataset.test, int(row))))
        captions.append("\n".join([f"{kind}: {name(labels[row])}", *listed]))
        for place in range(neighbours):
            right = near.labels[row, place] == labels[row]
            image = drawing.enlarge(image_of(run.dataset.train, int(near.rows[row, place])))
            color = drawing.GREEN if right else drawing.RED
            images.append(drawing.with_boxes(image, [_WHOLE], [color], thickness=8))
            similarity = near.similarities[row, place]
            captions.append(f"{name(near.labels[row, place])}\ncos {similarity:.2f}")
    drawing.sheet(
        images, captions, run.workdir / "figures" / "reranking.webp", columns=1 + neighbours,
        title=f"re-ranking rectified {len(rectified)} and broke {len(broken)} test images; "
              "probability → re-ranked score, then the nearest training images",
    )  # fmt: skip


def hierarchy(run: Run, *, shown: int = 6) -> None:
    """The super-classes as a tree, an example image of each class (CCFR Fig. 3)."""
    stage = run.stages["hierarchy"]
    groups = json.loads((stage.folder / "hierarchy.json").read_text())
    split, names = run.dataset.train, run.dataset.class_names
    columns = min(max(map(len, groups)), shown)
    rows = len(groups)
    figure = drawing.plt.figure(figsize=(1.5 * columns + 1.8, 1.45 * rows + 0.4))
    tree = figure.add_axes((0, 0, 1, 1))
    tree.set_xlim(0, 1)
    tree.set_ylim(0, 1)
    tree.axis("off")
    left, top = 1.5 / (1.5 * columns + 1.8), 0.97
    height = top / rows
    for number, members in enumerate(groups):
        middle = top - (number + 0.5) * height
        tree.plot([0.01, 0.01, 0.05], [top / 2, middle, middle], color="0.6")
        label = f"super-class {number + 1}\n{len(members)} classes"
        tree.text(0.055, middle, label, va="center", fontsize=8)
        tree.plot([left - 0.03, left], [middle, middle], color="0.6")
        for place, member in enumerate(members[:shown]):
            row = int(np.flatnonzero(split.labels == names.index(member))[0])
            width = (1 - left) / columns
            axis = figure.add_axes(
                (left + place * width + 0.05 * width, middle - 0.4 * height, 0.9 * width,
                 0.78 * height)
            )  # fmt: skip
            axis.imshow(drawing.enlarge(image_of(split, row)))
            more = len(members) - shown if place == shown - 1 else 0
            axis.set_title(member + (f" and {more} more" if more > 0 else ""), fontsize=7, pad=2)
            axis.axis("off")
    drawing.write(
        figure, run.workdir / "figures" / "hierarchy.webp",
        caption="super-classes as a tree, with an image of each class",
    )  # fmt: skip
