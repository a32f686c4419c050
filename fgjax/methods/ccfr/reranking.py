"""Stage `rerank`: coarse classification, retrieval, and both (CCFR section 3.3)."""

import dataclasses
import logging
from typing import Any

import numpy as np

from fgjax.evaluation import retrieval_metrics
from fgjax.evaluation.classification import classification_metrics, softmax
from fgjax.evaluation.rerank import Neighbours, Thresholds, find_neighbours, rescore
from fgjax.evaluation.rerank import search_thresholds as search
from fgjax.methods.shared import calibration
from fgjax.ranges import among, within
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)

SOURCES = ("held_out", "auto", "preset", "test")
_STEPS = np.round(np.arange(0.4, 0.951, 0.05), 2).tolist()  # the paper's Fig. 6


@dataclasses.dataclass
class Reranking:
    """Eq. 8 and 9; the paper's values are section 4.2's."""

    # held_out: a search on held-out training images | auto: T_sf is their mean top-1 probability,
    # the rest as below | preset: as below | test: a search on the test split, labelled so
    thresholds: str = among(*SOURCES)
    top_n: int = within(5, 1)  # classes that are re-ranked; 2 is best in Fig. 6
    top_m: int = within(50, 1)  # training images that are looked at
    probability_threshold: float = within(0.7, 0, 1000)  # T_sf; 0.5 on CUB
    similarity_threshold: float = within(0.7, -1000, 1000)  # T_sc, best in Fig. 6
    alpha: float = within(0.0, 0, 1000)
    beta: float = within(1.0, -1000, 1000)
    per_class: bool = False  # Eq. 8 as it is written: each class that reaches T_sf keeps its score

    @property
    def preset(self) -> Thresholds:
        """The config's own values."""
        return Thresholds(
            self.top_n, self.top_m, self.probability_threshold, self.similarity_threshold
        )

    @property
    def weights(self) -> dict[str, Any]:
        """What a search leaves alone: options of `rescore`."""
        return {"alpha": self.alpha, "beta": self.beta, "per_class": self.per_class}


def rerank_stage(run: Run, settings: Reranking, features: Stage) -> Stage:
    """Classification, retrieval and re-ranking on test; leaves the artifact `predictions`.

    Args:
      run: with dataset and folders.
      settings: Eq. 8, 9.
      features: a stage with the artifact `features`: `train` [N, D], `test` [M, D] and
        `train_logits`, `test_logits`.
    """
    stage = run.stage("rerank", settings, after=(features,))
    if stage.done:
        return stage
    stored = features.load_arrays("features")
    chosen, held_out = run.compute(
        lambda: choose(run, settings, stored), instead=lambda: (settings.preset, {})
    )
    rows, labels = run.database_indices, run.dataset.test.labels
    database, database_labels = stored["train"][rows], run.dataset.train.labels[rows]
    probabilities = softmax(stored["test_logits"])
    neighbours = run.compute(
        lambda: find_neighbours(stored["test"], database, database_labels, count=chosen.top_m),
        instead=lambda: no_neighbours(len(labels), chosen.top_m),
    )
    neighbours = neighbours._replace(rows=rows[neighbours.rows])
    scores = rescore(probabilities, neighbours, **chosen._asdict(), **settings.weights)
    before, after = probabilities.argmax(1) == labels, scores.argmax(1) == labels
    classified = classification_metrics(stored["test_logits"], labels)
    found = run.compute(
        lambda: retrieval_metrics(
            stored["test"], labels, database=database, database_labels=database_labels
        ),
        instead=lambda: {"recall@1": 0.0, "map@r": 0.0},
    )
    metrics = {
        **classification_metrics(scores, labels),
        "classification_top1": classified["top1"],
        "classification_top5": classified["top5"],
        "retrieval_top1": found["recall@1"],
        "retrieval_map@r": found["map@r"],
        "unsure": float(np.mean(probabilities.max(1) < chosen.probability_threshold)),
        "rectified": int(np.sum(after & ~before)),
        "broken": int(np.sum(before & ~after)),
        **held_out,
        **chosen._asdict(),
    }
    del metrics["cross_entropy"]  # scores are no probabilities

    def said(temperature: float) -> np.ndarray:
        return reordered(softmax(stored["test_logits"] / np.float32(temperature)), scores)

    held = stored["train_logits"][run.held_out_indices]
    metrics |= calibration.calibrate(run, stage, held, stored["test_logits"], probabilities=said)
    stage.save_arrays(
        "predictions", logits=scores, labels=labels, probabilities=probabilities,
        calibrated=said(metrics.get("temperature", 1.0)),
        **{f"neighbour_{name}": value for name, value in neighbours._asdict().items()},
    )  # fmt: skip
    stage.finish(metrics)
    log.info(
        "test top-1: classification %.3f, retrieval %.3f, re-ranked %.3f (%d rectified, %d broken)",
        metrics["classification_top1"], metrics["retrieval_top1"], metrics["top1"],
        metrics["rectified"], metrics["broken"],
    )  # fmt: skip
    return stage


def no_neighbours(queries: int, count: int) -> Neighbours:
    """What a search finds where nothing is alike."""
    places = np.zeros((queries, count), int)
    return Neighbours(np.zeros(places.shape, np.float32), labels=places, rows=places)


def choose(
    run: Run, settings: Reranking, stored: dict[str, np.ndarray]
) -> tuple[Thresholds, dict[str, float]]:
    """The thresholds, and what was measured in choosing them."""
    labels, held = run.dataset.train.labels, run.held_out_indices
    if settings.thresholds == "preset":
        return settings.preset, {}
    if settings.thresholds == "test":
        queries, truth, logits = stored["test"], run.dataset.test.labels, stored["test_logits"]
        rows = run.database_indices
    else:
        queries, truth, logits = stored["train"][held], labels[held], stored["train_logits"][held]
        rows = run.train_indices
    probabilities = softmax(logits)
    if settings.thresholds == "auto":
        mean = float(probabilities.max(axis=1).mean())
        candidates = [settings.preset._replace(probability_threshold=mean)]
    else:
        candidates = thresholds_to_try(settings.preset, logits.shape[1], len(rows))
    neighbours = find_neighbours(
        queries, stored["train"][rows], labels[rows], count=max(c.top_m for c in candidates)
    )
    best, accuracy = search(probabilities, truth, neighbours, candidates, **settings.weights)
    name = "searched_on_test" if settings.thresholds == "test" else "held_out"
    plain = float(np.mean(probabilities.argmax(1) == truth))
    return best, {f"{name}_classification_top1": plain, f"{name}_top1": accuracy}


def thresholds_to_try(preset: Thresholds, classes: int, database: int) -> list[Thresholds]:
    """The preset, then Fig. 6's grid by distance from it; no re-ranking at all (T_sf = 0) last."""
    grid = [
        Thresholds(top_n, top_m, sure, similar)
        for top_n in range(2, min(classes, 6) + 1)
        for top_m in [m for m in (10, 50, 200) if m <= database] or [database]
        for sure in _STEPS
        for similar in (0.5, 0.6, 0.7, 0.8, 0.9)
    ]

    def distance(one: Thresholds) -> float:
        return (
            abs(one.top_n - preset.top_n) / 5
            + abs(np.log(one.top_m / preset.top_m)) / 3
            + abs(one.probability_threshold - preset.probability_threshold)
            + abs(one.similarity_threshold - preset.similarity_threshold)
        )

    never = preset._replace(probability_threshold=0.0)
    return [preset, *sorted(grid, key=distance), never]


def reordered(probabilities: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Probabilities [Q, C] dealt out anew in the order of the re-ranked scores."""
    order = np.argsort(-scores, axis=1, kind="stable")
    result = np.empty_like(probabilities)
    np.put_along_axis(result, order, -np.sort(-probabilities, axis=1), axis=1)
    return result


def stored_neighbours(arrays: dict[str, np.ndarray]) -> Neighbours:
    """What `rerank_stage` left of each test image."""
    return Neighbours(*(arrays[f"neighbour_{name}"] for name in Neighbours._fields))
