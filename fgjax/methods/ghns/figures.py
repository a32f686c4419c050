"""GHNS's pictures: what its generator made and refused, how far that lies from the references, what
every fusion of the three classifiers scores, and the parts' embeddings after stages 1 and 3.
"""

import matplotlib.pyplot as plt
import numpy as np

from fgjax.evaluation import classification, fusion
from fgjax.figures import drawing
from fgjax.figures.embeddings import rows_of_first, tsne
from fgjax.methods.ghns.hard_negatives import HardNegatives
from fgjax.methods.ghns.part_networks import part_readers
from fgjax.methods.ghns.part_sets import PartReader, replacement_masks
from fgjax.methods.ghns.parts_classifier import PartsClassifier, build_parts_classifier
from fgjax.methods.shared.localization import crops
from fgjax.training.run import Run


def draw(run: Run) -> None:
    """candidates.webp, distances.png, fusion.png, tsne.png."""
    candidates(run)
    distances(run)
    fusion_triangle(run)
    embedding(run)


def candidates(run: Run, *, each: int = 6) -> None:
    """Accepted and rejected sets beside the reference's own parts: candidates.webp."""
    config, stages = run.config.method, run.stages
    examples = HardNegatives(**stages["hard_negatives"].load_arrays("examples"))
    reader, _ = crops(run, stages["objects"], stages["parts"])
    parts = PartReader(reader, max(config.part_image_size, 96))
    labels, names = run.dataset.train.labels, run.dataset.class_names
    masks = replacement_masks(examples.rows.shape[1])
    count = examples.rows.shape[1]
    good = examples.probability >= config.tau
    rng = np.random.default_rng(0)
    chosen = [
        *rng.permutation(np.flatnonzero(good))[:each],
        *np.flatnonzero(~good)[np.argsort(-examples.probability[~good])][: each // 2],
        *rng.permutation(np.flatnonzero(~good))[: each - each // 2],
    ]
    images, captions = [], []
    for number in chosen:
        of = len(run.dataset.train)  # rows are views of so many images
        reference, rows = int(examples.reference[number]) % of, examples.rows[number] % of
        own, _ = parts.read(reference)
        for part in range(count):
            images.append(drawing.enlarge(own[part], 128))
            captions.append(names[labels[reference]] if part == 0 else "")
        for part, row in enumerate(rows):
            replaced = masks[examples.mask[number]][part]
            color = drawing.YELLOW if replaced else drawing.WHITE
            whole = np.array([0, 0, 1, 1], np.float32)
            image = drawing.enlarge(parts.read(int(row))[0][part], 128)
            images.append(drawing.with_boxes(image, [whole], [color], thickness=8))
            captions.append(names[labels[row]] if replaced else "")
        verdict = "kept" if good[number] else "refused"
        captions[-1] += f"\np = {examples.probability[number]:.2f}: {verdict}"
    heads = [*(f"reference, part {p + 1}" for p in range(count)),
             *(f"candidate, part {p + 1}" for p in range(count))]  # fmt: skip
    drawing.sheet(
        images, captions, run.workdir / "figures" / "candidates.webp", columns=2 * count,
        heads=heads, title="parts of other classes framed yellow; p: FilterNet's probability of "
                           f"the reference's class, kept from {config.tau}",
    )  # fmt: skip


def distances(run: Run) -> None:
    """How far p, n⁺ and n lie from their reference: distances.png."""
    stage = run.stages["hard_negatives"]
    found = stage.load_arrays("distances")
    if not len(found["positive"]):
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), width_ratios=(2, 1))
    edges = np.linspace(0, max(values.max() for values in found.values()), 50)
    for name, label, color in (
        ("positive", "p", "#41ab5d"),
        ("hard_negative", "n⁺", "#d94801"),
        ("candidate", "not filtered", "#969696"),
        ("negative", "n", "#6baed6"),
    ):
        values = found.get(name, np.zeros(0))  # runs of earlier versions kept no candidates
        if len(values):
            text = f"{label}: {values.mean():.2f}"
            left.hist(values, edges, alpha=0.55, color=color, label=text, density=True)
    left.set_xlabel("distance to the reference, of unit features of stage 1")
    left.set_ylabel("density")
    left.legend(title="mean")
    metrics = stage.metrics
    named = ["+".join(str(p + 1) for p, on in enumerate(mask) if on) for mask in metrics["masks"]]
    right.bar(named, [100 * share for share in metrics["acceptance_by_mask"]], color="#9e9ac8")
    right.set_xlabel("replaced parts")
    right.set_ylabel("kept (%)")
    drawing.save(
        figure, run.workdir / "figures" / "distances.png",
        caption="how far positives, generated and natural negatives lie from their reference",
    )  # fmt: skip


def fusion_triangle(run: Run) -> None:
    """Accuracy of every weighting of the three classifiers, held out and on test: fusion.png."""
    names = ("original", "object", "parts")
    stored = [run.stages[f"{name}_classifier"].load_arrays("scores") for name in names]
    chosen = run.stages["fusion"].load_arrays("predictions")["weights"]
    labels = {
        "held_out": run.dataset.train.labels[run.held_out_indices],
        "test": run.dataset.test.labels,
    }
    grid = fusion.simplex(len(names))
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    shown = [split for split in labels if len(labels[split])]
    figure, axes = plt.subplots(1, len(shown), figsize=(5.4 * len(shown), 4.6), squeeze=False)
    for axis, split in zip(axes[0], shown):
        scores = np.stack([classification.softmax(arrays[split]) for arrays in stored])
        found = 100 * fusion.accuracies(scores, labels[split], grid)
        places = axis.scatter(*(grid @ corners).T, c=found, s=150, marker="h", cmap="viridis")
        axis.plot(*(chosen @ corners), "r*", markersize=16)
        for corner, name, one in zip(corners, names, np.eye(len(names))):
            alone = found[np.flatnonzero((grid == one).all(axis=1))[0]]
            place = "bottom" if corner[1] else "top"
            offset = 0.06 if corner[1] else -0.06
            x, y = corner
            axis.text(x, y + offset, f"{name}\n{alone:.1f}", ha="center", va=place)
        title = "held-out training images" if split == "held_out" else "test"
        axis.set_title(f"{title}: best {found.max():.1f}")
        axis.set_xlim(-0.25, 1.25)
        axis.set_ylim(-0.25, 1.15)
        axis.axis("off")
        figure.colorbar(places, ax=axis, label="top-1 (%)")
    figure.suptitle("red star: the weights in use", fontsize=9)
    drawing.save(
        figure, run.workdir / "figures" / "fusion.png", top=0.97,
        caption="accuracy of every weighting of the three classifiers",
    )  # fmt: skip


def parts_embedding(model: PartsClassifier, batch) -> dict:
    """F of Eq. 8, [B, E], of part images."""
    return {"embedding": model.head.embed(model.features(batch["image"]))}


def embedding(run: Run) -> None:
    """Parts of test images after stage 1, and as the parts classifier sees them: tsne.png."""
    config, stages = run.config.method, run.stages
    labels = run.dataset.test.labels
    rows = rows_of_first(labels)
    model = build_parts_classifier(run, config, stages["part_networks"])
    stages["parts_classifier"].restore_model(model)
    _, reader = part_readers(run, config, stages["objects"], stages["parts"])
    after = run.outputs(
        model, reader, rows, batch_size=config.parts_classifier.batch_size,
        outputs_of=parts_embedding,
    )  # fmt: skip
    before = stages["part_networks"].load_arrays("features")["test"][rows]
    pairs = [
        ("part networks", before.reshape(len(rows), -1)),
        ("parts classifier", after["embedding"]),
    ]
    tsne(run, pairs, labels[rows])
