"""LAPM's tables, and comparisons of our own, row by row."""

import math
from typing import Any

from fgjax.config import Row, Search, Study
from fgjax.methods.shared import few, printed

_PAPER = printed.read(__package__)


def _epochs(factor: float):
    return lambda config: max(math.ceil(config.method.margin.epochs * factor), 1)


def _fixed_scope(config) -> str:
    """A running margin knows no N."""
    scope = config.method.scope
    return "global" if scope == "running" else scope


_CROSS_ENTROPY = {"method.views": "single", "method.mixing": "none", "method.lambda_": 1.0}
_CUTMIX = {"method.views": "single", "method.mixing": "cutmix", "method.lambda_": 1.0}
_MIXING = {"method.lambda_": 1.0}
_CUTMIX_SET = {"method.lambda_": 1.0, "method.mixing": "cutmix"}
_FOUR_TIMES = {"method.margin.epochs": _epochs(4)}
_FOUR_TIMES_THE_BATCH = {"method.margin.batch_size": lambda c: 4 * c.method.margin.batch_size}

_LOOPS = ("classifier.epochs", "grouping.warmup.epochs", "grouping.classify_epochs",
          "grouping.group_epochs", "margin.epochs")  # fmt: skip

_BOXES = {"method.objects": "annotated"}


def _of_dataset(table: str, title: str, metric: str = "top1", also: tuple[str, ...] = ()) -> Study:
    """A table that compares with other papers: LAPM's own rows of it."""

    def row(name: str, backbone: str, setting: str = "", **overrides: str) -> Row:
        numbers = _PAPER.measures(table, method="LAPM", backbone=backbone, setting=setting)
        beside = {measure: numbers[measure] for measure in also}
        return Row(name, {"backbone": backbone, **overrides}, numbers[metric], paper_also=beside)

    rows = [row("VGG-16", "vgg16"), row("ResNet-50", "resnet50")]
    boxes = "annotated boxes"
    if _PAPER.where(table=table, method="LAPM", setting=boxes):
        rows.append(row(f"ResNet-50, {boxes}", "resnet50", boxes, **_BOXES))
    return Study("Recognition", f"LAPM {table} ({title})", tuple(rows), metric=metric, also=also)


def _ablation(name: str, overrides: dict[str, Any], table: str, setting: str) -> Row:
    return Row(name, overrides, _PAPER.value(table, setting=setting))


_RATE = "method.margin.optimizer.learning_rate"


def _rate(factor: float):
    return lambda config: config.method.margin.optimizer.learning_rate * factor


_ONE_THING = Search(
    {
        "as it is": {},
        "a third of the rate": {_RATE: _rate(1 / 3)},
        "three times the rate": {_RATE: _rate(3)},
        "twice the passes": {"method.margin.epochs": _epochs(2)},
        "crops from half the side": {"data.augmentation.crop_scale": 0.5},
        "labels smoothed by 0.1": {"method.label_smoothing": 0.1},
    },
    metric="held_out_top1",
    overrides={},
)
_BUDGET = (
    Row("cross-entropy", {**_CROSS_ENTROPY, **_FOUR_TIMES, **_FOUR_TIMES_THE_BATCH}),
    Row("CutMix", {**_CUTMIX, **_FOUR_TIMES, **_FOUR_TIMES_THE_BATCH}),
    Row("sets mixed by parts, λ = 1", _MIXING),
    Row("LAPM", {}),
)

STUDIES = {
    "run": Study(
        "The run itself",
        "LAPM as the config has it",
        (Row("LAPM", {}),),
        also=("localization.test_object_iou", "localization.test_part_centers_inside"),
    ),
    "baseline": Study(
        "LAPM against cross-entropy, from the same start",
        "not in the paper",
        (
            Row("cross-entropy, equal epochs", _CROSS_ENTROPY),
            Row("cross-entropy, equal images", {**_CROSS_ENTROPY, **_FOUR_TIMES}),
            Row("CutMix, equal epochs", _CUTMIX),
            Row("CutMix, equal images", {**_CUTMIX, **_FOUR_TIMES}),
            Row("sets mixed by parts, λ = 1", _MIXING),
            Row("LAPM", {}),
        ),
        notes=("images_forwarded",),
    ),
    "photographs": Study(
        "LAPM beside cross-entropy, at equal images forwarded",
        "not in the paper",
        (
            Row("cross-entropy", {**_CROSS_ENTROPY, **_FOUR_TIMES, **_FOUR_TIMES_THE_BATCH}),
            Row("LAPM", {}),
            Row("LAPM, objects by CAM", {"method.objects": "cam"}),
        ),
        notes=("images_forwarded",),
    ),
    "budget": Study(
        "One budget of forwarded images, as many steps",
        "not in the paper",
        _BUDGET,
        also=("held_out_top1",),
        notes=("images_forwarded",),
    ),
    "searched": Study(
        "Each with the one change that held-out images liked best",
        "not in the paper",
        _BUDGET,
        also=("held_out_top1",),
        notes=("images_forwarded",),
        search=_ONE_THING,
    ),
    "few_shot": few.few_shot(
        "LAPM",
        _LOOPS,
        *(Row(f"cross-entropy, {n}",
              {**_CROSS_ENTROPY, **_FOUR_TIMES_THE_BATCH,
               **few.of_few(n, _LOOPS, {"margin.epochs": 4})})
          for n in few.SHOTS),
        notes=("images_forwarded",),
    ),
    "diagnosis": Study(
        "Is it the data, the parts or the loss?",
        "not in the paper",
        (
            Row("cross-entropy, equal images and steps",
                {**_CROSS_ENTROPY, **_FOUR_TIMES, **_FOUR_TIMES_THE_BATCH}),
            Row("sets mixed by true parts, λ = 1", {**_MIXING, "method.parts": "annotated"}),
            Row("LAPM, true parts", {"method.parts": "annotated"}),
        ),
    ),
    "mixing": Study(
        "Part-aware CutMix against CutMix, sets of four, λ = 1",
        "LAPM Eq. 4-6 against Eq. 1-3",
        (
            Row("sets mixed by CutMix", _CUTMIX_SET),
            Row("sets mixed by parts", _MIXING),
            Row("sets mixed by parts, labels by CAM", {**_MIXING, "method.shares": "cam"}),
            Row("sets mixed by a fixed grid", {**_MIXING, "method.parts": "grid"}),
        ),
    ),
    "parts": Study(
        "What localization brings: parts that were learnt, annotated, on a grid, or anywhere",
        "LAPM section IV.E.3, without numbers there",
        (
            Row("grouping", {}),
            Row("attention", {"method.parts": "attention"}),
            Row("annotated", {"method.parts": "annotated"}),
            Row("grid", {"method.parts": "grid"}),
            Row("random", {"method.parts": "random"}),
        ),
    ),
    "part_count": Study(
        "How many parts",
        "LAPM section IV.E.3, without numbers there",
        tuple(Row(f"{n} parts", {"method.grouping.num_parts": n}) for n in (2, 3, 4, 5)),
        axes=("method.grouping.num_parts",),
    ),
    "part_size": Study(
        "Side of a part box, as a share of the image",
        "MA-CNN: 96 of 448 px, birds 128",
        tuple(
            Row(f"{size:.2f}", {"method.grouping.part_size": size}) for size in (0.21, 0.31, 0.41)
        ),
        axes=("method.grouping.part_size",),
    ),
    "part_centers": Study(
        "Part centres at cells of the last map, or between them",
        "not in the paper; MA-CNN's map has 28 × 28 cells",
        (
            Row("the strongest cell", {}),
            Row("refined", {"method.grouping.centers": "refined"}),
        ),
        also=("localization.test_part_centers_inside",),
    ),
    "levers": Study(
        "What the paper leaves open, one at a time",
        "not in the paper",
        (
            Row("LAPM", {}),
            Row("one crop for all images of a set", {"method.fresh_views": False}),
            Row("the fourth image of positive sets left out", {"method.all_slots": False}),
            Row("label shares by CAM, not by area", {"method.shares": "cam"}),
            Row("distances of features as they are", {"method.l2norm": False}),
            Row("distances of unit vectors", {"method.l2norm": True}),
            Row("a running margin for each reference", {"method.scope": "running"}),
            Row("λ = 1: no pairs", _MIXING),
        ),
    ),
    "alpha": Study(
        "α, the width of the band",
        "LAPM Eq. 12; 1.2 for Cars, 1 elsewhere",
        tuple(Row(f"α = {a}", {"method.alpha": a}) for a in (0.5, 0.8, 1.0, 1.2, 1.5)),
        axes=("method.alpha",),
    ),
    "lambda": Study(
        "λ, the share of classification",
        "LAPM Eq. 17; 0.75 on CUB and DeepFashion, 0.8 elsewhere",
        tuple(
            Row(f"λ = {x}", {"method.lambda_": x}) for x in (0.5, 0.65, 0.75, 0.8, 0.9, 0.95, 1.0)
        ),
        also=("held_out_top1",),
        axes=("method.lambda_",),
    ),
    "table1": _of_dataset("Table 1", "CUB-200-2011"),
    "table2": _of_dataset("Table 2", "Stanford Cars"),
    "table3": _of_dataset("Table 3", "FGVC-Aircraft"),
    "table4": _of_dataset("Table 4", "DeepFashion", "top3", also=("top5",)),
    "table5": Study(
        "Adaptive margin and additional term",
        "LAPM Table 5 (CUB-200-2011)",
        tuple(
            _ablation(name, overrides, "Table 5", name)
            for name, overrides in (
                ("conventional, w/o adaptive margin",
                 {"method.adaptive_margin": False, "method.additional_term": False}),
                ("conventional, w/ adaptive margin", {"method.additional_term": False}),
                ("proposed, w/o adaptive margin", {"method.adaptive_margin": False}),
                ("proposed, w/ adaptive margin", {}),
            )
        ),
    ),
    "table6": Study(
        "Number of samples N for m1",
        "LAPM Table 6 (CUB-200-2011)",
        tuple(
            _ablation(f"N = {n}", {"method.samples": n, "method.scope": _fixed_scope},
                      "Table 6", f"N = {n}")
            for n in (100, 200, 250, 300, 400)
        ),
        axes=("method.samples",),
    ),
    "table7": Study(
        "Ratio of positive to negative sets",
        "LAPM Table 7 (CUB-200-2011)",
        tuple(
            _ablation(ratio, {"method.ratio": ratio}, "Table 7", ratio)
            for ratio in ("3:1", "2:1", "1:1", "1:2", "1:3", "0:1", "1:0")
        ),
    ),
}  # fmt: skip
