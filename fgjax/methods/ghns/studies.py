"""GHNS's tables and its Figure 4, row by row."""

from typing import Any

from fgjax.config import Row, Study
from fgjax.methods.shared import few, printed

_PAPER = printed.read(__package__)
_LOOPS = ("classifier.epochs", "grouping.warmup.epochs", "grouping.classify_epochs",
          "grouping.group_epochs", "part_networks.epochs", "filter.epochs",
          "parts_classifier.epochs", "image_classifiers.epochs")  # fmt: skip
_ANNOTATED = {"method.object_windows": "annotated"}


def _larger(config) -> float:
    return min(1.5 * config.method.grouping.part_size, 1.0)


_SHUFFLED = {"method.per_class": 1, "method.beta": 0.0, "method.lambda_original": 1.0,
             "method.lambda_object": 1.0, "method.lambda_parts": 1.0}  # fmt: skip


def _of_dataset(table: str, title: str, metric: str = "top1", also: tuple[str, ...] = ()) -> Study:
    """A table that compares with other papers: GHNS's own rows of it."""

    def row(name: str, backbone: str) -> Row:
        numbers = _PAPER.measures(table, method="GHNS", backbone=backbone)
        beside = {measure: numbers[measure] for measure in also}
        return Row(name, {"backbone": backbone}, numbers[metric], paper_also=beside)

    rows = (row("VGG-16", "vgg16"), row("ResNet-50", "resnet50"))
    return Study("Recognition", f"GHNS {table} ({title})", rows, metric=metric, also=also)


def _ablation(
    name: str, overrides: dict[str, Any], table: str, setting: str, metric: str = ""
) -> Row:
    return Row(name, overrides, _PAPER.value(table, method="GHNS", setting=setting), metric)


STUDIES = {
    "table1": _of_dataset("Table 1", "CUB-200-2011"),
    "table2": _of_dataset("Table 2", "Stanford Cars"),
    "table3": _of_dataset("Table 3", "FGVC-Aircraft"),
    "table4": _of_dataset("Table 4", "DeepFashion", "top3", also=("top5",)),
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
            _ablation(
                "classification",
                {"method.beta": 0.0, "method.gamma": 0.0},
                "Table 5",
                "classification",
            ),
            _ablation("+ triplet", {"method.gamma": 0.0}, "Table 5", "classification + triplet"),
            _ablation(
                "+ adversarial", {"method.beta": 0.0}, "Table 5", "classification + adversarial"
            ),
            _ablation(
                "+ triplet + adversarial",
                {},
                "Table 5",
                "classification + triplet + adversarial",
            ),
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
    "few_shot": few.few_shot("GHNS", _LOOPS),
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
            Row("shuffled batches, cross-entropy alone", _SHUFFLED),
            Row("features of four views", {"method.views": 4}),
            Row("a set's own parts of one image", {"method.several": False}),
            Row("parts from the resized crop", {"method.original_pixels": False}),
            Row("part features of any length", {"method.unit_features": False}),
            Row("each part in a crop of its own", {"method.own_crops": True}),
            Row("part centres between cells", {"method.grouping.centers": "refined"}),
            Row(
                "part boxes half as large again",
                {"method.grouping.part_size": _larger},
            ),
            Row("annotated parts", {"method.parts": "annotated"}),
            Row("parts on a grid", {"method.parts": "grid"}),
        ),
        also=("original_top1", "object_top1", "parts_top1"),
    ),
    "table6": Study(
        "Each classifier, each pair, and all",
        "GHNS Table 6 (CUB-200-2011)",
        tuple(
            _ablation(name, overrides, "Table 6", setting, metric)
            for name, overrides, setting, metric in (
                ("original", {}, "original", "original_top1"),
                ("object", {}, "object-level", "object_top1"),
                (
                    "object, annotated boxes",
                    _ANNOTATED,
                    "object-level w/ bounding box",
                    "object_top1",
                ),
                ("parts", {}, "part-level", "parts_top1"),
                ("original + object", {}, "original + object-level", "original_object_top1"),
                ("original + parts", {}, "original + part-level", "original_parts_top1"),
                ("object + parts", {}, "object + part-level", "object_parts_top1"),
                (
                    "all, annotated boxes",
                    _ANNOTATED,
                    "original + object-level w/ bounding box + part-level",
                    "",
                ),
                ("all", {}, "original + object-level + part-level", ""),
            )
        ),
    ),
    "figure4": Study(
        "Hard negatives of each class",
        "GHNS Fig. 4 (best at 150 to 200)",
        tuple(Row(str(n), {"method.hard_negatives": n}) for n in (0, 10, 50, 100, 150, 200, 250)),
        also=("parts_top1",),
        axes=("method.hard_negatives",),
    ),
}
