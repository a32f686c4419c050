"""LAPM's tables, and comparisons of our own, row by row."""

import math

from fgjax.config import Row, Study


def _epochs(factor: float):
    return lambda config: max(math.ceil(config.method.margin.epochs * factor), 1)


_CROSS_ENTROPY = {"method.views": "single", "method.mixing": "none", "method.lambda_": 1.0}
_CUTMIX = {"method.views": "single", "method.mixing": "cutmix", "method.lambda_": 1.0}
_MIXING = {"method.lambda_": 1.0}
_CUTMIX_SET = {"method.lambda_": 1.0, "method.mixing": "cutmix"}
_FOUR_TIMES = {"method.margin.epochs": _epochs(4)}

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
            Row("cross-entropy", {**_CROSS_ENTROPY, **_FOUR_TIMES}),
            Row("LAPM", {}),
            Row("LAPM, objects by CAM", {"method.objects": "cam"}),
        ),
        notes=("images_forwarded",),
    ),
    "diagnosis": Study(
        "Is it the data, the parts or the loss?",
        "not in the paper",
        (
            Row("cross-entropy, equal images and steps",
                {**_CROSS_ENTROPY, **_FOUR_TIMES,
                 "method.margin.batch_size": lambda c: 4 * c.method.margin.batch_size}),
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
            Row("sets mixed by a fixed grid", {**_MIXING, "method.parts": "grid"}),
        ),
    ),
    "table5": Study(
        "Adaptive margin and additional term",
        "LAPM Table 5 (CUB-200-2011)",
        (
            Row("conventional, w/o adaptive margin",
                {"method.adaptive_margin": False, "method.additional_term": False}, 86.75),
            Row("conventional, w/ adaptive margin", {"method.additional_term": False}, 87.89),
            Row("proposed, w/o adaptive margin", {"method.adaptive_margin": False}, 88.92),
            Row("proposed, w/ adaptive margin", {}, 89.23),
        ),
    ),
    "table6": Study(
        "Number of samples N for m1",
        "LAPM Table 6 (CUB-200-2011)",
        tuple(
            Row(f"N = {n}", {"method.samples": n}, paper)
            for n, paper in ((100, 88.54), (200, 89.12), (250, 89.23), (300, 89.1), (400, 89.16))
        ),
    ),
    "table7": Study(
        "Ratio of positive to negative sets",
        "LAPM Table 7 (CUB-200-2011)",
        tuple(
            Row(ratio, {"method.ratio": ratio}, paper)
            for ratio, paper in (("3:1", 88.12), ("2:1", 88.79), ("1:1", 89.23), ("1:2", 88.92),
                                 ("1:3", 88.60), ("0:1", 86.73), ("1:0", 86.05))
        ),
    ),
}  # fmt: skip
