"""HDCL's tables, row by row."""

from typing import Any

from fgjax.config import Row, Study

_SOFTMAX = {"method.loss": "dgcrl"}


def _row(name: str, overrides: dict[str, Any], paper: float | None = None) -> Row:
    return Row(name, {"method.beside_softmax": False, **overrides}, paper)


STUDIES = {
    "run": Study(
        "The run itself",
        "HDCL as the config has it",
        (Row("HDCL", {}),),
        metric="recall@1",
        also=("map@r",),
    ),
    "table1": Study(
        "Losses",
        "HDCL Table 1 (CUB-200-2011, Recall@1)",
        tuple(
            _row(name, overrides, paper)
            for name, overrides, paper in (
                ("Contrastive", {"method.loss": "contrastive"}, 26.4),
                ("Triplet", {"method.loss": "triplet"}, 36.1),
                ("LiftedStruct", {"method.loss": "lifted"}, 47.2),
                ("Facility Location", {"method.loss": "facility_location"}, 48.2),
                ("N-pairs", {"method.loss": "n_pairs"}, 45.4),
                ("Binomial Deviance", {"method.loss": "binomial_deviance"}, 52.8),
                ("Histogram Loss", {"method.loss": "histogram"}, 50.3),
                ("PDDM+Quadruplet", {"method.loss": "pddm"}, 58.3),
                ("SCDA", {"method.loss": "scda"}, 62.2),
                ("CRL-WSL", {"method.loss": "crl", "method.wsl": True}, 65.9),
                ("DGCRL", {"method.loss": "dgcrl"}, 67.9),
                ("HDCL", {}, 69.5),
            )
        ),
        metric="recall@1",
    ),
    "table3": Study(
        "General retrieval",
        "HDCL Table 4 (ResNet-50, CUB-200-2011, Recall@1); Tables 3 and 5 with --set backbone=…",
        (
            _row("SCDA", {"method.loss": "scda"}),
            _row("CRL", {"method.loss": "crl"}),
            _row("DGCRL", {"method.loss": "dgcrl"}, 67.9),
            _row("HDCL", {}, 69.5),
        ),
        metric="recall@1",
    ),
    "table6": Study(
        "K̂, the classes in the denominator",
        "HDCL Table 6 (ResNet-50, CUB-200-2011, Recall@1)",
        (
            _row("all classes (softmax)", _SOFTMAX, 67.1),
            _row("K̂ = 10", {"method.top_k": 10}, 69.0),
            _row("K̂ = 5", {"method.top_k": 5}, 69.1),
            _row("K̂ = 2", {"method.top_k": 2}, 69.5),
        ),
        metric="recall@1",
    ),
    "decorrelation": Study(
        "Decorrelated centres",
        "HDCL Eq. 11, with λ = 0 and 0.1",
        (
            _row("softmax, λ = 0", {**_SOFTMAX, "method.decorrelation": 0.0}),
            _row("softmax, λ = 0.1", _SOFTMAX),
            _row("K̂ = 2, λ = 0", {"method.decorrelation": 0.0}),
            _row("K̂ = 2, λ = 0.1", {}),
        ),
        metric="recall@1",
    ),
    "table7": Study(
        "Recognition",
        "HDCL Table 7 (ResNet-50, FGVC-Aircraft, top-1); other networks with --set backbone=…",
        (
            _row("softmax", {"method.warmup_epochs": lambda c: c.method.embedding.epochs}, 82.1),
            _row("HCL after a warm-up", {}, 78.7),
        ),
    ),
}
