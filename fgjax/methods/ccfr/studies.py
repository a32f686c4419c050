"""CCFR's tables and its Figure 6."""

from typing import Any

from fgjax.config import Row, Study
from fgjax.methods.shared import few, printed

_PAPER = printed.read(__package__)
_LOOPS = ("classifier.epochs", "pretrain.epochs", "navigator.epochs", "explore_epochs",
          "enhance.epochs")  # fmt: skip
_ALONE = {"method.beside_nts": False}
_GLOBAL = {**_ALONE, "method.regions": False}
_COARSE = "classification_top1"  # without re-ranking


def _fixed(top_n: int, probability: float, similarity: float) -> dict[str, Any]:
    return {
        **_ALONE,
        "method.rerank.thresholds": "preset",
        "method.rerank.top_n": top_n,
        "method.rerank.probability_threshold": probability,
        "method.rerank.similarity_threshold": similarity,
    }


def _component(name: str, overrides: dict[str, Any], setting: str, metric: str = _COARSE) -> Row:
    return Row(name, overrides, _PAPER.value("Table 3", setting=setting), metric)


def _of_dataset(table: str, name: str, rows: dict[str, tuple[str, str]]) -> tuple[Row, ...]:
    """CCFR's rows of a table, {row: (the paper's row, metric)}, with its numbers for a dataset."""

    def row(title: str, setting: str, metric: str) -> Row:
        number = _PAPER.value(table, method="CCFR", setting=setting, dataset=name)
        return Row(title, _ALONE, number, metric)

    return tuple(row(title, *cell) for title, cell in rows.items())


def for_dataset(name: str) -> dict[str, Study]:
    """All studies, with the paper's numbers for a dataset; for FGVC-Aircraft where it has none."""
    name = name if _PAPER.where(table="Table 4", dataset=name) else "fgvc_aircraft"
    title = printed.DATASETS[name]
    both = {"without re-ranking": ("w/o re-ranking", _COARSE), "CCFR": ("", "")}
    three = {
        "retrieval": ("retrieval", "retrieval_top1"),
        "classification": ("classification", _COARSE),
        "CCFR": ("both", ""),
    }
    return {
        **STUDIES,
        "table2": Study(
            "Recognition",
            f"CCFR Table 2 (ResNet-50, {title})",
            _of_dataset("Table 2", name, both),
        ),
        "table4": Study(
            "Retrieval, classification, both",
            f"CCFR Table 4 (ResNet-50, {title})",
            _of_dataset("Table 4", name, three),
            notes=("rectified", "broken"),
        ),
    }


# What no dataset changes.
STUDIES = {
    "run": Study(
        "The run itself",
        "CCFR as the config has it",
        (Row("CCFR", {}),),
        also=("global_top1", "classification_top1", "retrieval_top1"),
        notes=("rectified", "broken"),
    ),
    "table3": Study(
        "Components",
        "CCFR Table 3 (ResNet-50, CUB-200-2011)",
        (
            _component("ResNet-50", {**_GLOBAL, "method.multi_level": False}, ""),
            _component("+ multi-level loss", _GLOBAL, "+ multi-level loss"),
            _component(
                "+ local regions",
                {**_ALONE, "method.scale_separated": False, "method.fusion": False},
                "+ local regions",
            ),
            _component(
                "+ scale-separated NMS",
                {**_ALONE, "method.fusion": False},
                "+ scale-separated NMS",
            ),
            _component("+ fusion network", _ALONE, "+ fusion network"),
            _component("+ re-ranking: CCFR", _ALONE, "+ re-ranking", ""),
        ),
    ),
    "figure6": Study(
        "T_sf and T_sc, two classes re-ranked",
        "CCFR Figure 6 (a), (c), (d) (FGVC-Aircraft); swept on test as there, nothing is chosen",
        tuple(
            Row(f"T_sf {probability}, T_sc {similarity}", _fixed(2, probability, similarity))
            for similarity in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
            for probability in (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
        ),
        axes=("method.rerank.probability_threshold", "method.rerank.similarity_threshold"),
    ),
    "figure6b": Study(
        "Classes that are re-ranked and T_sc, T_sf = 0.75",
        "CCFR Figure 6 (b) (FGVC-Aircraft); swept on test as there, nothing is chosen",
        tuple(
            Row(f"top {top_n}, T_sc {similarity}", _fixed(top_n, 0.75, similarity))
            for similarity in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
            for top_n in (2, 3, 4, 5, 6)
        ),
        axes=("method.rerank.top_n", "method.rerank.similarity_threshold"),
    ),
    "boxes": Study(
        "Where regions come from",
        "Our question: what learned regions bring beyond looking closely anywhere",
        (
            Row("learned", _ALONE),
            Row("random", {**_ALONE, "method.boxes": "random"}),
            Row("grid", {**_ALONE, "method.boxes": "grid"}),
            Row("annotated, on test, too", {**_ALONE, "method.boxes": "annotated"}),
        ),
        metric=_COARSE,
        also=("top1", "retrieval_top1"),
    ),
    "levers": Study(
        "What the paper leaves open, one at a time",
        "Our question; on test, where nothing is chosen",
        (
            Row("as the config has it", _ALONE),
            Row("concatenated cross-entropy", {**_ALONE, "method.concat_loss": True}),
            Row("fusion with BN, ReLU", {**_ALONE, "method.fusion_norm": True}),
            Row("weight 0.25", {**_ALONE, "method.region_weight": 0.25}),
            Row("Eq. 7 alone", {**_ALONE, "method.region_weight": 0.0}),
            Row("two of a class", {**_ALONE, "method.per_class": 2}),
            Row("regions ranked by triplets", {**_ALONE, "method.ranked_by": "triplet"}),
            Row("pyramid on two maps", {**_ALONE, "method.pyramid_maps": 2}),
        ),
        metric=_COARSE,
        also=("top1", "retrieval_top1"),
    ),
    "few_shot": few.few_shot("CCFR", _LOOPS),
    "frozen": Study(
        "The pyramid in the last stage",
        "Our question: trained on by the ranking loss, or left as NTS-Net's loss made it",
        (
            Row("ranking loss kept", _ALONE, None, _COARSE),
            Row("frozen", {**_ALONE, "method.frozen": True}, None, _COARSE),
        ),
        also=("retrieval_top1", "top1"),
    ),
}
