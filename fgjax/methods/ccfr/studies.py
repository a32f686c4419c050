"""CCFR's tables and its Figure 6."""

from typing import Any

from fgjax.config import Row, Study

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
            Row("ResNet-50", {**_GLOBAL, "method.multi_level": False}, 84.5, _COARSE),
            Row("+ multi-level loss", _GLOBAL, 85.2, _COARSE),
            Row(
                "+ local regions",
                {**_ALONE, "method.scale_separated": False, "method.fusion": False},
                90.3,
                _COARSE,
            ),
            Row("+ scale-separated NMS", {**_ALONE, "method.fusion": False}, 90.4, _COARSE),
            Row("+ fusion network", _ALONE, 90.7, _COARSE),
            Row("+ re-ranking: CCFR", _ALONE, 91.1),
        ),
    ),
    "table4": Study(
        "Retrieval, classification, both",
        "CCFR Table 4 (ResNet-50, FGVC-Aircraft)",
        (
            Row("retrieval", _ALONE, 93.4, "retrieval_top1"),
            Row("classification", _ALONE, 93.1, _COARSE),
            Row("CCFR", _ALONE, 94.1),
        ),
        notes=("rectified", "broken"),
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
    "levers": Study(
        "What the paper leaves open, one at a time",
        "Our question; on test, where nothing is chosen",
        (
            Row("as the config has it", _ALONE, None, _COARSE),
            Row(
                "concatenated cross-entropy", {**_ALONE, "method.concat_loss": True}, None, _COARSE
            ),
            Row("fusion with BN, ReLU", {**_ALONE, "method.fusion_norm": True}, None, _COARSE),
            Row("weight 0.25", {**_ALONE, "method.region_weight": 0.25}, None, _COARSE),
            Row("Eq. 7 alone", {**_ALONE, "method.region_weight": 0.0}, None, _COARSE),
            Row("two of a class", {**_ALONE, "method.per_class": 2}, None, _COARSE),
        ),
        also=("top1", "retrieval_top1"),
    ),
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
