"""LAPM's pictures: mixtures beside CutMix (its Fig. 2 and 4), the margins over epochs, distances
and their margins (Fig. 5), and the test images' embeddings before and after.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from fgjax.figures import drawing
from fgjax.figures.embeddings import rows_of_first, tsne
from fgjax.methods import lapm
from fgjax.methods.shared.classifier import starting_model
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.methods.shared.localization import crops
from fgjax.training.logging import read_metrics
from fgjax.training.run import Run, Stage


def draw(run: Run) -> None:
    """tsne.png; mixing.webp where parts are mixed, margins.png and bands.png for pairs."""
    if "parts" in run.stages:
        mixing_sheet(run, run.stages["objects"], run.stages["parts"])
    margins(run, run.stages["margin"])
    bands(run, run.stages["margin"])
    embedding(run, run.stages["margin"])


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


_NAMES = {
    "ref_dcdi1": "reference, DCDI₁",
    "ref_dcdi2": "reference, DCDI₂",
    "dcdi1_dcdi2": "DCDI₁, DCDI₂",
    "ref_dcdic": "reference, DCDI_C",
}


def bands(run: Run, stage: Stage, *, sets: int = 512) -> None:
    """Distances of the four negative pairs with m₁ and m₂ (LAPM Fig. 5): bands.png.

    Of fresh sets of training images by the network as it ended; margins are their own (Eq. 10, 12)
    or, where they are fixed, those.
    """
    config = run.config.method
    if config.lambda_ == 1:
        return
    found = negative_distances(run, stage, sets)
    margins = kept_bands(run, stage) or bands_of(found, config.alpha, shared=config.shared_m1)
    figure, axes = plt.subplots(1, len(found), figsize=(3.1 * len(found), 3.2), sharey=True)
    for axis, (pair, distances) in zip(axes, found.items()):
        m1, m2 = margins[pair]
        m2 = np.inf if pair == "ref_dcdic" or not config.additional_term else m2
        edges = np.linspace(distances.min(), max(distances.max(), m1), 40)
        for where, color, name in (
            (distances < m1, "#6baed6", "pushed away"),
            ((distances >= m1) & (distances <= m2), "#bdbdbd", "left alone"),
            (distances > m2, "#fb6a4a", "pulled back"),
        ):
            share = f"{name}: {100 * where.mean():.0f} %"
            axis.hist(distances[where], edges, color=color, label=share)
        axis.axvline(m1, color="#08519c")
        text = f"m₁ = {m1:.3g}"
        if np.isfinite(m2):
            axis.axvline(m2, color="#a50f15", linestyle="--")
            text += f", m₂ = {m2:.3g}"
        axis.set_title(f"{_NAMES[pair]}\n{text}", fontsize=9)
        axis.set_xlabel("distance")
        axis.legend(fontsize=7)
    axes[0].set_ylabel("sets")
    drawing.save(
        figure, run.workdir / "figures" / "bands.png",
        caption="distances of negative pairs: below m₁ (solid) they are pushed away, above m₂ "
                "(dashed) pulled back",
    )  # fmt: skip


def negative_distances(run: Run, stage: Stage, sets: int) -> dict[str, np.ndarray]:
    """Distances {pair: [sets]} of negative sets of random training images, by a stage's network."""
    config, seed = run.config.method, run.seed("bands.png")
    reader, _ = crops(run, run.stages["objects"], run.stages.get("parts"))
    rows = np.random.default_rng(seed).choice(run.train_indices, sets)
    make = lapm.transform(run, config, reader, seed=seed, ratio=(0, 1))
    found = run.outputs(
        run.load_model(stage), make, rows, batch_size=config.margin.batch_size,
        outputs_of=lapm.PairDistances(config.l2norm),
    )  # fmt: skip
    return {pair: found[pair] for pair in lapm.PAIRS}


def kept_bands(run: Run, stage: Stage) -> dict[str, tuple[float, float]]:
    """m₁ and m₂ {pair: …} where they are fixed; of many references their means."""
    config = run.config.method
    if config.adaptive_margin:
        return {}
    if config.fixed_m1 >= 0:
        return dict.fromkeys(lapm.PAIRS, (config.fixed_m1, config.fixed_m2))
    stored = stage.load_arrays("margins")
    found = {}
    for pair in lapm.PAIRS:
        m1, sigma = (float(np.mean(stored[f"{pair}.{name}"])) for name in ("m1", "sigma"))
        found[pair] = m1, m1 + config.alpha * sigma
    return found


def bands_of(
    distances: dict[str, np.ndarray], alpha: float, *, shared: bool = False
) -> dict[str, tuple[float, float]]:
    """m₁ and m₂ of distances {pair: [N]}: the mean, and α standard deviations above (Eq. 10, 12).

    With `shared` all pairs have the first one's.
    """
    found = {}
    for pair, own in distances.items():
        values = distances[lapm.PAIRS[0]] if shared else own
        m1 = float(np.mean(values, dtype=np.float64))
        found[pair] = m1, m1 + alpha * float(np.std(values, dtype=np.float64))
    return found


def embedding(run: Run, stage: Stage) -> None:
    """Test images by the network that training began with, and by the one it left: tsne.png."""
    config, labels = run.config.method, run.dataset.test.labels
    _, reader = crops(run, run.stages["objects"], run.stages.get("parts"))
    rows = rows_of_first(labels)
    pairs = []
    for name, model in (
        ("before", starting_model(run, run.stages["classifier"])),
        ("after", run.load_model(stage)),
    ):
        model.eval()
        found = embeddings_of(
            run, model, Embed(), reader, rows, batch_size=config.margin.batch_size
        )
        pairs.append((name, found))
    tsne(run, pairs, labels[rows])
