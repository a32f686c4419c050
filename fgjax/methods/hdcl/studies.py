"""HDCL's tables, row by row."""

from typing import Any

from fgjax.config import Row, Study

_SOFTMAX = {"method.loss": "dgcrl"}


def _row(name: str, overrides: dict[str, Any], paper: float | None = None) -> Row:
    return Row(name, {"method.beside_softmax": False, **overrides}, paper)


def _retrieval(papers: tuple[float | None, ...] = (None,) * 4, **overrides) -> tuple[Row, ...]:
    losses = ("scda", "crl", "dgcrl", "hdcl")
    return tuple(
        _row(loss.upper(), {"method.loss": loss, **overrides}, paper)
        for loss, paper in zip(losses, papers)
    )


def _again(name: str, loss: str) -> tuple[Row, ...]:
    """The same network, its neighbours ranked anew."""
    again = {"α query expansion": "query_expansion", "k-reciprocal": "k_reciprocal"}
    return tuple(
        _row(f"{name}, {how}", {"method.loss": loss, "method.ranking": ranking})
        for how, ranking in again.items()
    )


def _general(source: str, backbone: str, papers: tuple[float, ...]) -> Study:
    rows = _retrieval(papers, backbone=backbone)
    title = "General retrieval"
    return Study(title, f"HDCL {source}, CUB-200-2011, Recall@1)", rows, metric="recall@1")


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
    "retrieval": Study(
        "General retrieval, with the config's own backbone",
        "the rows of HDCL Tables 3 to 5; Proxy-Anchor and re-ranking beside them",
        (
            *_retrieval(),
            _row("Proxy-Anchor", {"method.loss": "proxy_anchor"}),
            *_again("SCDA", "scda"),
            *_again("HDCL", "hdcl"),
        ),
        metric="recall@1",
        also=("map@r",),
    ),
    "table3": _general("Table 3 (VGG-19", "vgg19", (57.6, 61.0, 61.6, 64.3)),
    "table4": _general("Table 4 (ResNet-50", "resnet50", (57.3, 62.5, 67.1, 69.5)),
    "table5": _general("Table 5 (ResNet-101", "resnet101", (62.3, 69.3, 69.5, 70.9)),
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
            _row("HCL", {"method.warmup_epochs": 0}, 78.7),
            _row("HCL after a warm-up", {}),
        ),
        flags=("recognition",),
    ),
}
