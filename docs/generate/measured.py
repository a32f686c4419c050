"""Curves of published numbers, from results/ and benchmarks/ while the site is built."""

import io
import json
import pathlib

import matplotlib
import numpy as np

from fgjax import results

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

ROOT = pathlib.Path(__file__).resolve().parents[2]
CURVES = ("choose",)
# What stands before a row's name, by config.
_FEW = {"cub-probe": "probe, ", "cub-lapm-small": "", "cub-ghns-small": "", "cub-ccfr-small": "",
        "cub-hdcl-recognition-small": ""}  # fmt: skip
_STYLES = {
    "probe, linear": ("o-", "#0072b2"), "probe, cosine": ("s--", "#56b4e9"),
    "probe, knn": ("^:", "#009e73"), "LAPM": ("D-", "#d55e00"),
    "cross-entropy": ("v--", "#e69f00"), "GHNS": ("P--", "#117733"),
    "CCFR": ("X-.", "#cc79a7"), "HDCL": ("*:", "#000000"),
}  # fmt: skip
_SHOTS = (1, 2, 5, 10, 20)
# Where a method's name stands beside its point, in points of the page, so that none covers another.
_BESIDE = {"probe, cosine": (0, 8), "probe, knn": (0, -14)}


def address(name: str) -> str:
    """The file of a curve in the site."""
    return f"assets/plots/{name}.svg"


def few_shot() -> dict[str, dict[int, list[float]]]:
    """{method: {images of each class: accuracies over the seeds, in per cent}}."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in results.read(ROOT / "results"):
        if (record.study, record.metric) == ("few_shot", "top1") and record.config in _FEW:
            row, shots = record.row.split(", ")
            name = f"{_FEW[record.config]}{row}"
            found.setdefault(name, {}).setdefault(int(shots), []).append(100 * record.value)
    return found


def seconds() -> dict[str, tuple[float, float]]:
    """{method: (seconds from nothing to a measured classifier, per cent right)}."""
    known = json.loads((ROOT / "benchmarks" / "seconds.json").read_text())
    return {name: (one["seconds"], 100 * one["top1"]) for name, one in known.items()}


def draw(name: str) -> str:
    """What to choose when, as SVG: accuracy against seconds, and against images of each class."""
    if name not in CURVES:
        raise KeyError(name)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _against_seconds(left)
    _against_images(right)
    for axis in (left, right):
        axis.set_ylabel("top-1 (%)")
        axis.grid(alpha=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()


def _against_seconds(axis: Axes) -> None:
    """A point for each method: filled where its network is frozen, hollow where it trains."""
    for name, (duration, accuracy) in seconds().items():
        frozen = name.startswith("probe")
        color = "#0072b2" if frozen else "#d55e00"
        axis.plot(
            duration / 60, accuracy, "o" if frozen else "D", color=color, markersize=8,
            markerfacecolor=color if frozen else "white",
        )  # fmt: skip
        axis.annotate(
            name, (duration / 60, accuracy), _BESIDE.get(name, (0, 8)), fontsize=9, ha="center",
            textcoords="offset points",
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(0.9, 14)
    ticks = (1, 2, 5, 10)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.margins(y=0.15)
    axis.set_xlabel("minutes on two cores, from nothing")


def _against_images(axis: Axes) -> None:
    """Mean and range over the seeds."""
    for name, points in few_shot().items():
        shots = sorted(points)
        style, color = _STYLES[name]
        mean = [float(np.mean(points[k])) for k in shots]
        low, high = ([float(end(points[k])) for k in shots] for end in (np.min, np.max))
        axis.plot(shots, mean, style, color=color, label=name)
        axis.fill_between(shots, low, high, color=color, alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    axis.set_xticks(_SHOTS, [str(k) for k in _SHOTS])
    axis.minorticks_off()
    axis.set_xlabel("images of each class")
    axis.legend(frameon=False)
