"""LAPM's pictures: mixtures beside CutMix (its Fig. 2 and 4) and the margins over epochs."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from fgjax.figures import drawing
from fgjax.methods import lapm
from fgjax.methods.shared.localization import crops
from fgjax.training.logging import read_metrics
from fgjax.training.run import Run, Stage


def draw(run: Run) -> None:
    """mixing.webp where parts are mixed, margins.png where there are pairs."""
    if "parts" in run.stages:
        mixing_sheet(run, run.stages["objects"], run.stages["parts"])
    margins(run, run.stages["margin"])


def mixing_sheet(run: Run, objects: Stage, parts: Stage, *, references: int = 6) -> None:
    """Sets mixed by parts and, of the same images, by CutMix, with label weights: mixing.webp."""
    config = dataclasses.replace(run.config.method, mixing="parts", views="set", lambda_=0.5)
    reader, _ = crops(run, objects, parts)
    reader = dataclasses.replace(
        reader, augmentation=dataclasses.replace(reader.augmentation, crop_scale=1.0, color=False)
    )
    part_boxes = parts.load_arrays("boxes")["train"]
    seed = run.seed("mixing.png")
    rng = np.random.default_rng(seed)
    rows = rng.choice(run.train_indices, references, replace=False)
    images, captions = [], []
    for position, row in enumerate(rows):
        for kind in ("parts", "cutmix"):
            method = dataclasses.replace(config, mixing=kind)
            make = lapm.transform(run, method, reader, seed=seed, describe=True)
            example = make(position, int(row))
            slots = range(3) if kind == "parts" else range(1, 3)
            for slot in slots:
                images.append(_slot(example, slot, part_boxes[row], plain=slot == 0))
                captions.append(_caption(run, example, slot))
    heads = ("reference and its parts", "SCDI₁ / DCDI₁", "SCDI₂ / DCDI₂", "CutMix, one box",
             "CutMix, two boxes")  # fmt: skip
    drawing.sheet(
        images, captions, run.workdir / "figures" / "mixing.webp", columns=5, heads=heads,
        title="part-aware CutMix (columns 2, 3) and CutMix of the same images (4, 5)",
    )  # fmt: skip


def _slot(example, slot: int, parts: np.ndarray, *, plain: bool) -> np.ndarray:
    image = drawing.enlarge(example["image"][slot])
    if plain:
        return drawing.with_boxes(image, parts, drawing.PART_COLORS)
    pasted = [box / example["image"].shape[1] for box in example["boxes"][slot] if box.any()]
    return drawing.with_boxes(image, pasted, (drawing.YELLOW, drawing.RED))


def _caption(run: Run, example, slot: int) -> str:
    names = run.dataset.class_names
    if slot == 0:
        return names[example["label"]]
    totals: dict[str, float] = {}
    for label, weight in zip(example["labels"][slot], example["weights"][slot]):
        if weight > 0:
            totals[names[label]] = totals.get(names[label], 0) + float(weight)
    kind = "SCDI" if example["is_positive"] else "DCDI"
    lines = [f"{weight:.2f} {name}" for name, weight in totals.items()]
    return f"{kind}: " + " + ".join(lines[:2]) + ("\n+ " + lines[2] if len(lines) > 2 else "")


def margins(run: Run, stage: Stage) -> None:
    """m1, m2, pair distances and feature norm over the epochs: margins.png."""
    lines = [line for line in read_metrics(stage.folder) if "m1" in line]
    if not lines:
        return
    epochs = [line["epoch"] for line in lines]
    column = lambda name: [line[name] for line in lines]  # noqa: E731
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    axes[0].fill_between(epochs, column("m1"), column("m2"), alpha=0.25, label="band [m₁, m₂]")
    for name, label in (("negative_distance", "reference to DCDI₁"),
                        ("positive_distance", "reference to SCDI₁")):  # fmt: skip
        axes[0].plot(epochs, column(name), marker=".", label=label)
    axes[0].set_title("distances and margins (Eq. 10, 12)", fontsize=9)
    for name, label in (("share_below_m1", "below m₁"), ("share_above_m2", "above m₂")):
        axes[1].plot(epochs, column(name), marker=".", label=label)
    axes[1].set_title("share of (reference, DCDI₁) pairs outside the band", fontsize=9)
    axes[1].set_ylim(0, 1)
    axes[2].plot(epochs, column("feature_norm"), marker=".", label="mean ‖f‖")
    axes[2].plot(epochs, column("positive_loss"), marker=".", label="positive relationship")
    axes[2].plot(epochs, column("negative_loss"), marker=".", label="negative relationship")
    axes[2].set_title("scale of the features and of the pair loss", fontsize=9)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    drawing.save(
        figure, run.workdir / "figures" / "margins.png",
        caption="distances of pairs beside their margins m₁ and m₂, and the features' scale",
    )  # fmt: skip
