"""GHNS's tables and its Figure 4, row by row."""

from fgjax.config import Row, Study

_ANNOTATED = {"method.object_windows": "annotated"}


def _of_dataset(
    table: str, dataset: str, vgg: float, resnet: float, *, metric: str = "top1"
) -> Study:
    """A table that compares with other papers: GHNS's own rows of it."""
    rows = (
        Row("VGG-16", {"backbone": "vgg16"}, vgg),
        Row("ResNet-50", {"backbone": "resnet50"}, resnet),
    )
    return Study("Recognition", f"GHNS {table} ({dataset})", rows, metric=metric)


STUDIES = {
    "table1": _of_dataset("Table 1", "CUB-200-2011", 88.42, 89.06),
    "table2": _of_dataset("Table 2", "Stanford Cars", 94.54, 95.68),
    "table3": _of_dataset("Table 3", "FGVC-Aircraft", 93.0, 94.40),
    "table4": _of_dataset("Table 4", "DeepFashion, top-3", 91.33, 92.52, metric="top3"),
    "table4_top5": _of_dataset("Table 4", "DeepFashion, top-5", 96.72, 96.88, metric="top5"),
    "run": Study(
        "The run itself",
        "GHNS as the config has it",
        (Row("GHNS", {}),),
        also=("original_top1", "object_top1", "parts_top1"),
    ),
    "table5": Study(
        "Losses of stage 1",
        "GHNS Table 5 (CUB-200-2011, fused)",
        (
            Row("classification", {"method.beta": 0.0, "method.gamma": 0.0}, 86.24),
            Row("+ triplet", {"method.gamma": 0.0}, 87.55),
            Row("+ adversarial", {"method.beta": 0.0}, 87.98),
            Row("+ triplet + adversarial", {}, 89.06),
        ),
        also=("parts_top1",),
    ),
    "discriminator": Study(
        "What tells shuffled sets from unshuffled ones",
        "not in the paper",
        (
            Row("no adversarial loss", {"method.gamma": 0.0}),
            Row("linear", {"method.discriminator_hidden": 0}),
            Row("a hidden layer of 128", {"method.discriminator_hidden": 128}),
        ),
        also=("parts_top1",),
    ),
    "negatives": Study(
        "What n⁺ is",
        "not in the paper: what filtering adds to shuffling, and shuffling to any image",
        (
            Row("filtered", {}),
            Row("unfiltered", {"method.negatives": "unfiltered"}),
            Row("random images", {"method.negatives": "random"}),
            Row("none", {"method.hard_negatives": 0}),
        ),
        also=("parts_top1",),
    ),
    "fusing": Study(
        "How the three are fused",
        "Eq. 11 adds; a product by likelihood, and scores as they are, beside it",
        (
            Row("Eq. 11, a temperature each", {}),
            Row("Eq. 11, scores as they are", {"method.temperatures": False}),
            Row("stacked", {"method.fusion": "stacked"}),
        ),
        also=("original_top1", "object_top1", "parts_top1"),
    ),
    "levers": Study(
        "What the paper leaves open, one at a time",
        "not in the paper",
        (
            Row("GHNS", {}),
            Row("two images of each class in a batch", {"method.per_class": 2}),
            Row("a set's own parts of one image", {"method.several": False}),
            Row("parts from the resized crop", {"method.original_pixels": False}),
            Row("part features of any length", {"method.unit_features": False}),
            Row("annotated parts", {"method.parts": "annotated"}),
            Row("parts on a grid", {"method.parts": "grid"}),
        ),
        also=("original_top1", "object_top1", "parts_top1"),
    ),
    "table6": Study(
        "Each classifier, each pair, and all",
        "GHNS Table 6 (CUB-200-2011)",
        (
            Row("original", {}, 83.52, "original_top1"),
            Row("object", {}, 84.65, "object_top1"),
            Row("object, annotated boxes", _ANNOTATED, 85.21, "object_top1"),
            Row("parts", {}, 84.82, "parts_top1"),
            Row("original + object", {}, 88.70, "original_object_top1"),
            Row("original + parts", {}, 88.81, "original_parts_top1"),
            Row("object + parts", {}, 88.75, "object_parts_top1"),
            Row("all, annotated boxes", _ANNOTATED, 89.38),
            Row("all", {}, 89.06),
        ),
    ),
    "figure4": Study(
        "Hard negatives of each class",
        "GHNS Fig. 4 (best at 150 to 200)",
        tuple(Row(str(n), {"method.hard_negatives": n}) for n in (0, 10, 50, 100, 150, 200, 250)),
        also=("parts_top1",),
    ),
}
