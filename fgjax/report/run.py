"""The report of a run, from its results and the arrays that its stages left."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from fgjax.evaluation import calibration
from fgjax.evaluation.classification import most_confused, softmax
from fgjax.figures import drawing
from fgjax.figures.common import image_of
from fgjax.report import page, pictures, reading, scores
from fgjax.training.run import Run, Stage

PAIRS, MISTAKES = 8, 12
# Pictures that the page shows in a form of its own.
_OWN = ("confusions.webp",)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A test image and what is said under it."""

    address: str
    caption: str
    note: str = ""


def write(run: Run, results: dict[str, Any]) -> pathlib.Path:
    """WORKDIR/report.html; returns where it lies."""
    metrics, protocol = results["metrics"], results["protocol"]
    stage = answers_of(run)
    answers = None if stage is None else Answers(run, stage, metrics)
    path = run.workdir / "report.html"
    page.write(
        path,
        "run.html",
        title=run.config.name,
        method=results["method"],
        verdict=scores.verdict(metrics, protocol),
        scores=scores.table(metrics, protocol["test_images"]),
        conditions=scores.conditions(protocol),
        confusions=answers.confusions() if answers else [],
        mistakes=answers.mistakes() if answers else [],
        chart=answers.reliability() if answers else "",
        temperature=metrics.get("temperature"),
        calibration_error=metrics.get("calibration_error"),
        slow=slow_images(run),
        figures=figures(run),
        config=(run.workdir / "config.json").read_text(encoding="utf-8"),
        metrics=json.dumps(metrics, indent=1, ensure_ascii=False),
        packages=protocol["packages"],
        python=protocol["python"],
    )
    return path


def answers_of(run: Run) -> Stage | None:
    """The stage that holds the run's final answers on test images; None in retrieval."""
    found = [s for s in run.stages.values() if (s.folder / "predictions.npz").exists()]
    return found[-1] if found else None


def figures(run: Run) -> list[dict[str, Any]]:
    """The run's pictures, with what they show."""
    folder, found = run.workdir / "figures", []
    for name, caption in drawing.captions(folder).items():
        if name in _OWN or not (folder / name).exists():
            continue
        address, width, height = pictures.figure(folder / name)
        found.append(
            {"address": address, "caption": caption, "width": width, "height": height,
             "name": pathlib.Path(name).stem}
        )  # fmt: skip
    return found


def slow_images(run: Run) -> dict[str, Any]:
    """Test images that take longest to read, and how long ordinary ones take."""
    split = run.dataset.test
    found, usual = reading.slowest(split, run.config.data.image_size)
    shown = [
        Photograph(
            pictures.thumbnail(image_of(split, one.row)),
            run.dataset.name_of(int(split.labels[one.row])),
            f"{one.milliseconds:.1f} ms: {one.pixels[1]:,} × {one.pixels[0]:,} pixels, "
            f"{one.bytes / 1000:,.0f} kB",
        )
        for one in found
    ]
    return {"photographs": shown, "usual": usual}


def confused(run: Run) -> list[dict[str, Any]]:
    """The most confused pairs of classes by name: {"true", "other", "times", "total"}."""
    stage = answers_of(run)
    if stage is None:
        return []
    stored = stage.load_arrays("predictions")
    labels = stored["labels"]
    return [
        _pair(run, labels, true, other, times)
        for true, other, times in most_confused(stored["logits"], labels, count=PAIRS)
    ]


def _pair(run: Run, labels: np.ndarray, true: int, other: int, times: int) -> dict[str, Any]:
    name = run.dataset.name_of
    return {"true": name(true), "other": name(other), "times": times,
            "total": int((labels == true).sum())}  # fmt: skip


class Answers:
    """A classifier's answers on the test images."""

    def __init__(self, run: Run, stage: Stage, metrics: dict[str, Any]):
        stored = stage.load_arrays("predictions")
        self._run, self._split = run, run.dataset.test
        self.logits, self.labels = stored["logits"], stored["labels"]
        self.chosen = self.logits.argmax(axis=1)
        before = stored.get("probabilities")  # re-ranked scores are no logits: these were before
        if before is not None:
            self.probabilities = stored.get("calibrated", before)
        else:
            self.probabilities = softmax(self.logits / metrics.get("temperature", 1.0))

    def _name(self, label: Any) -> str:
        return self._run.dataset.name_of(int(label))

    def _photograph(self, row: int, caption: str, note: str = "") -> Photograph:
        return Photograph(pictures.thumbnail(image_of(self._split, int(row))), caption, note)

    def confusions(self) -> list[dict[str, Any]]:
        """The most confused pairs: how often, a mistake, and an image of the other class."""
        found = []
        for true, other, times in most_confused(self.logits, self.labels, count=PAIRS):
            wrong = np.flatnonzero((self.labels == true) & (self.chosen == other))[0]
            like = np.flatnonzero(self.labels == other)
            shown = [self._photograph(wrong, self._name(true), "the mistake")]
            if len(like):
                shown.append(self._photograph(like[0], self._name(other), "to compare with"))
            pair = _pair(self._run, self.labels, true, other, times)
            found.append({**pair, "photographs": shown})
        return found

    def mistakes(self) -> list[Photograph]:
        """Wrong answers that it was most sure of."""
        sure = self.probabilities[np.arange(len(self.labels)), self.chosen]
        wrong = np.flatnonzero(self.chosen != self.labels)
        order = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
        return [
            self._photograph(
                row,
                self._name(self.labels[row]),
                f"taken for {self._name(self.chosen[row])}, {100 * sure[row]:.0f} % sure",
            )
            for row in order
        ]

    def reliability(self) -> str:
        """The reliability diagram, of what was decided before any re-ranking."""
        return pictures.reliability(calibration.reliability(self.probabilities, self.labels))
