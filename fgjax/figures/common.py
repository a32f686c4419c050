"""Pictures of any run: curves, localization, confusions."""

import matplotlib.pyplot as plt
import numpy as np

from fgjax.data.images import decode
from fgjax.evaluation.classification import most_confused
from fgjax.figures import drawing
from fgjax.localization import boxes
from fgjax.training.logging import read_metrics
from fgjax.training.run import Run, Stage


def image_of(split, row: int) -> np.ndarray:
    """Image `row` of a split as the pipeline sees it, whole."""
    image = decode(split.source[int(row)]["image"], split.filenames[row])
    return image[: -split.crop_bottom] if split.crop_bottom else image


def curves(run: Run) -> None:
    """Loss and accuracy over epochs of every loop that the run went through: curves.png."""
    loops = []
    for stage in run.stages.values():
        for path in sorted(stage.folder.rglob("metrics.jsonl"), key=lambda p: p.stat().st_mtime):
            lines = read_metrics(path.parent)
            inner = "" if path.parent == stage.folder else f": {path.parent.name}"
            name = stage.name + inner
            if lines:
                loops.append((name, lines))
    if not loops:
        return
    figure, axes = plt.subplots(2, len(loops), figsize=(3.2 * len(loops), 5), squeeze=False)
    for column, (name, lines) in enumerate(loops):
        axes[0, column].set_title(name, fontsize=9)
        _line(axes[0, column], lines, "loss", "training loss")
        for key, label in (("accuracy", "training"), ("held_out_top1", "held out")):
            _line(axes[1, column], lines, key, label)
        axes[1, column].set_xlabel("epoch")
        axes[1, column].set_ylim(0, 1)
        for axis in axes[:, column]:
            axis.legend(fontsize=7) if axis.lines else axis.axis("off")
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("accuracy")
    drawing.save(
        figure, run.workdir / "figures" / "curves.png",
        caption="loss of every stage over its epochs; below, accuracy in training and held out",
    )  # fmt: skip


def _line(axis, lines, key: str, label: str) -> None:
    points = [(line["epoch"], line[key]) for line in lines if key in line]
    if points:
        axis.plot(*zip(*points), marker=".", label=label)


def localization(run: Run, objects: Stage, parts: Stage | None, *, count: int = 24) -> None:
    """Test images with true (white) and found boxes, worst object first: localization.webp."""
    split = run.dataset.test
    found = objects.load_arrays("boxes")["test"]
    known = ~np.any(np.isnan(split.boxes), axis=1)
    overlap = np.where(known, boxes.iou(found, np.nan_to_num(split.boxes)), np.nan)
    order = np.argsort(np.nan_to_num(overlap, nan=2.0), kind="stable")
    chosen = order
    if len(order) > count:  # half of the sheet shows the failures, half is spread over the rest
        spread = np.linspace(count // 2, len(order) - 1, count - count // 2).astype(int)
        chosen = order[np.concatenate([np.arange(count // 2), spread])]
    part_boxes = parts.load_arrays("boxes")["test"] if parts else None
    images, captions = [], []
    for row in chosen.tolist():
        drawn = [split.boxes[row], found[row]]
        colors = [drawing.WHITE, drawing.RED]
        if part_boxes is not None:
            drawn += list(boxes.from_window(part_boxes[row], found[row]))
            colors += [drawing.PART_COLORS[i % 3] for i in range(part_boxes.shape[1])]
        image = drawing.enlarge(image_of(split, row))
        images.append(drawing.with_boxes(image, drawn, colors))
        name = run.dataset.name_of(split.labels[row])
        captions.append(f"{name}  IoU {overlap[row]:.2f}" if known[row] else name)
    drawing.sheet(
        images, captions, run.workdir / "figures" / "localization.webp", columns=6,
        title="object: truth white, found red; parts yellow, green, blue "
              "(worst objects first, then spread over the rest)",
    )  # fmt: skip


def confusions(run: Run, stage: Stage) -> None:
    """The most confused pairs of classes with an example of each: confusions.webp."""
    stored = stage.load_arrays("predictions")
    logits, labels = stored["logits"], stored["labels"]
    pairs = most_confused(logits, labels, count=8)
    names, split = run.dataset.class_names, run.dataset.test
    predicted = logits.argmax(axis=1)
    images, captions = [], []
    for true, other, times in pairs:
        wrong = np.flatnonzero((labels == true) & (predicted == other))[0]
        like = np.flatnonzero(labels == other)
        total = int((labels == true).sum())
        images.append(drawing.enlarge(image_of(split, wrong)))
        captions.append(f"{names[true]} taken for {names[other]}\n{times} of {total}")
        if len(like):
            images.append(drawing.enlarge(image_of(split, like[0])))
            captions.append(f"a true {names[other]}")
        else:
            images.append(np.full((224, 224, 3), 255, np.uint8))
            captions.append("")
    if images:
        drawing.sheet(
            images, captions, run.workdir / "figures" / "confusions.webp", columns=4,
            title="most confused classes: left the mistake, right the class it was taken for",
        )  # fmt: skip
