"""GHNS's tables and its Figure 4, row by row."""

from fgjax.config import Row, Study

_ANNOTATED = {"method.object_windows": "annotated"}

STUDIES = {
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
        "not in the paper, whose discriminator is linear",
        (
            Row("no adversarial loss", {"method.gamma": 0.0}),
            Row("linear", {}),
            Row("a hidden layer of 128", {"method.discriminator_hidden": 128}),
        ),
        also=("parts_top1",),
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
