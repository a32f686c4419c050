"""HDCL's tables, row by row."""

import dataclasses
from typing import Any

from fgjax.config import Row, Search, Study
from fgjax.methods.shared import few, printed

_PAPER = printed.read(__package__)
_LOOPS = ("start.epochs", "warmup_epochs", "embedding.epochs")
_SOFTMAX = {"method.loss": "dgcrl"}
# Nothing trains, so the last stage runs at the stride that ImageNet's weights were trained with.
_SCDA = {"method.loss": "scda", "last_stride": 2}
_BACKBONES = {"vgg19": "VGG-19", "resnet50": "ResNet-50", "resnet101": "ResNet-101",
              "densenet161": "DenseNet-161", "inception_v3": "Inception-v3"}  # fmt: skip
_RECALLS = ("recall@2", "recall@4", "recall@8", "recall@16", "recall@32")
# precision@1 and map@1 are recall@1, in the paper, too.
_MEASURES = (*_RECALLS, "precision@5", "precision@10", "map@5", "map@10")


def _row(name: str, overrides: dict[str, Any], table: str = "", **cell: str) -> Row:
    """A row with the numbers of the paper's row `cell`; it has none for what it does not name."""
    numbers = _PAPER.measures(table, **cell)
    beside = {measure: numbers[measure] for measure in _MEASURES if measure in numbers}
    overrides = {"method.beside_softmax": False, **overrides}
    return Row(name, overrides, numbers.get("recall@1"), paper_also=beside, search=False)


def _losses(table: str = "", dataset: str = "", **overrides: Any) -> tuple[Row, ...]:
    return tuple(
        _row(
            loss.upper(), {**(_SCDA if loss == "scda" else {"method.loss": loss}), **overrides},
            table, method=loss.upper(), dataset=dataset,
        )
        for loss in ("scda", "crl", "dgcrl", "hdcl")
    )  # fmt: skip


def _again(name: str, overrides: dict[str, Any]) -> tuple[Row, ...]:
    """The same network, its neighbours ranked anew."""
    again = {"α query expansion": "query_expansion", "k-reciprocal": "k_reciprocal"}
    return tuple(
        _row(f"{name}, {how}", {**overrides, "method.ranking": ranking})
        for how, ranking in again.items()
    )


_ALONE = {"method.beside_softmax": False}
_PROXY_ANCHOR = {**_ALONE, "method.loss": "proxy_anchor"}
_RATE, _EPOCHS = "method.embedding.optimizer.learning_rate", "method.embedding.epochs"


def _times(factor: float):
    """The config's learning rate, multiplied."""
    return lambda config: config.method.embedding.optimizer.learning_rate * factor


# Judged on classes that do not train, as are those that test searches; by MAP@R, because among the
# few that are held out nearly every image's nearest one is of its class.
_RATES = {"a third of the rate": 1 / 3, "the rate": 1.0, "three times the rate": 3.0}
_BY_RATE = Search(
    {name: {_RATE: _times(factor)} for name, factor in _RATES.items()},
    metric="held_out_map@r",
    overrides={"data.held_out": 0.25, _EPOCHS: 5},
)
_BY_RATE_AND_PASSES = Search(
    {
        f"{name}, {epochs} passes": {_RATE: _times(factor), _EPOCHS: epochs}
        for name, factor in _RATES.items()
        for epochs in (1, 3)
    },
    metric="held_out_map@r",
    overrides={"data.held_out": 0.25},
)


def _dataset(table: str, name: str, otherwise: str) -> str:
    """The dataset whose numbers stand beside a config's: its own, where the table has it."""
    return name if _PAPER.where(table=table, dataset=name) else otherwise


def _table1(name: str) -> Study:
    dataset = _dataset("Table 1", name, "cub")
    losses = {
        "Contrastive": {"method.loss": "contrastive"},
        "Triplet": {"method.loss": "triplet"},
        "LiftedStruct": {"method.loss": "lifted"},
        "Facility Location": {"method.loss": "facility_location"},
        "N-pairs": {"method.loss": "n_pairs"},
        "Binomial Deviance": {"method.loss": "binomial_deviance"},
        "Histogram Loss": {"method.loss": "histogram"},
        "PDDM+Quadruplet": {"method.loss": "pddm"},
        "SCDA": _SCDA,
        "CRL-WSL": {"method.loss": "crl", "method.wsl": True},
        "DGCRL": {"method.loss": "dgcrl"},
        "HDCL": {},
    }
    rows = tuple(
        _row(loss, overrides, "Table 1", method=loss, dataset=dataset)
        for loss, overrides in losses.items()
    )
    source = f"HDCL Table 1 ({printed.DATASETS[dataset]}, Recall@1)"
    return Study("Losses", source, rows, metric="recall@1", also=_RECALLS)


def _losses_searched(name: str) -> Study:
    """Table 1, and Proxy-Anchor, each loss with the rate that it likes best."""
    table = _table1(name)
    proxy = _row("Proxy-Anchor", {"method.loss": "proxy_anchor"})
    rows = [dataclasses.replace(row, search=row.name != "SCDA") for row in (*table.rows, proxy)]
    return dataclasses.replace(
        table, title="Losses, each with its own rate", rows=tuple(rows), search=_BY_RATE
    )


def _general(table: str, backbone: str, name: str) -> Study:
    """Tables 3 to 5: four methods with one network."""
    dataset = _dataset(table, name, "cub")
    source = f"HDCL {table} ({_BACKBONES[backbone]}, {printed.DATASETS[dataset]}, Recall@1)"
    rows = _losses(table, dataset, backbone=backbone)
    return Study("General retrieval", source, rows, metric="recall@1", also=_MEASURES)


def _strongest(name: str, backbone: str, overrides: dict[str, Any]) -> Study:
    """Table 6: the classes in the denominator, with one network."""
    dataset = _dataset("Table 6", name, "cub")
    rows = tuple(
        _row(
            row, {**changes, **overrides}, "Table 6", setting=setting, backbone=backbone,
            dataset=dataset,
        )
        for row, changes, setting in (
            ("all classes (softmax)", _SOFTMAX, "all classes"),
            ("K̂ = 10", {"method.top_k": 10}, "K̂ = 10"),
            ("K̂ = 5", {"method.top_k": 5}, "K̂ = 5"),
            ("K̂ = 2", {"method.top_k": 2}, "K̂ = 2"),
        )
    )  # fmt: skip
    source = f"HDCL Table 6 ({_BACKBONES[backbone]}, {printed.DATASETS[dataset]}, Recall@1)"
    title = "K̂, the classes in the denominator"
    return Study(title, source, rows, metric="recall@1", also=_MEASURES)


def _recognition(name: str, backbone: str, overrides: dict[str, Any]) -> Study:
    """Table 7: accuracy with one network."""
    dataset = _dataset("Table 7", name, "fgvc_aircraft")

    def row(title: str, warmup: dict[str, Any], method: str) -> Row:
        number = _PAPER.value("Table 7", method=method, backbone=backbone, dataset=dataset)
        return Row(title, {"method.beside_softmax": False, **warmup, **overrides}, number)

    rows = (
        row("softmax", {"method.warmup_epochs": lambda c: c.method.embedding.epochs}, "softmax"),
        row("HCL", {"method.warmup_epochs": 0}, "HCL"),
        Row("HCL after a warm-up", {"method.beside_softmax": False, **overrides}),
    )
    source = f"HDCL Table 7 ({_BACKBONES[backbone]}, {printed.DATASETS[dataset]}, top-1)"
    return Study("Recognition", source, rows, flags=("recognition",))


def for_dataset(name: str) -> dict[str, Study]:
    """All studies, with the paper's numbers for a dataset where it has any."""
    return {
        **STUDIES,
        "table1": _table1(name),
        "losses": _losses_searched(name),
        "table3": _general("Table 3", "vgg19", name),
        "table4": _general("Table 4", "resnet50", name),
        "table5": _general("Table 5", "resnet101", name),
        "table6": _strongest(name, "resnet50", {}),
        "table6_vgg19": _strongest(name, "vgg19", {"backbone": "vgg19"}),
        "table6_resnet101": _strongest(name, "resnet101", {"backbone": "resnet101"}),
        "table7": _recognition(name, "resnet50", {}),
        "table7_vgg19": _recognition(name, "vgg19", {"backbone": "vgg19"}),
        "table7_densenet161": _recognition(name, "densenet161", {"backbone": "densenet161"}),
        "table7_inception_v3": _recognition(
            name, "inception_v3", {"backbone": "inception_v3", "data.image_size": 299}
        ),
    }


# What needs no number of the paper.
STUDIES = {
    "run": Study(
        "The run itself",
        "HDCL as the config has it",
        (Row("HDCL", {}),),
        metric="recall@1",
        also=("map@r",),
    ),
    "retrieval": Study(
        "General retrieval, with the config's own backbone",
        "the rows of HDCL Tables 3 to 5; Proxy-Anchor and re-ranking beside them",
        (
            *(dataclasses.replace(row, search=row.name == "CRL") for row in _losses()),
            Row("DGCRL, searched", _SOFTMAX | _ALONE),
            Row("HDCL, searched", {"method.loss": "hdcl"} | _ALONE),
            Row("Proxy-Anchor", _PROXY_ANCHOR),
            Row("Proxy-Anchor, no layer", {**_PROXY_ANCHOR, "method.width": 0}),
            *_again("SCDA", _SCDA),
            *_again("HDCL", {"method.loss": "hdcl"}),
        ),
        metric="recall@1",
        also=("map@r", *_MEASURES),
        search=_BY_RATE_AND_PASSES,  # the presets' rows beside it are not searched
    ),
    "few_shot": few.few_shot("HDCL", _LOOPS, flags=("recognition",)),
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
}
