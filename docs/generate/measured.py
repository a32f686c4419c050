"""Curves of published numbers, from results/ while the site is built."""

import io
import pathlib

import matplotlib
import numpy as np

from fgjax import results

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).resolve().parents[2]
CURVES = ("few_shot",)
_STYLES = {"linear": ("o-", "#0072b2"), "cosine": ("s--", "#d55e00"), "knn": ("^:", "#009e73")}


def address(name: str) -> str:
    """The file of a curve in the site."""
    return f"assets/plots/{name}.svg"


def few_shot() -> dict[str, dict[int, list[float]]]:
    """{head: {images of each class: accuracies over the seeds, in per cent}}."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in results.read(ROOT / "results"):
        if (record.config, record.study, record.metric) == ("cub-probe", "few_shot", "top1"):
            head, shots = record.row.split(", ")
            found.setdefault(head, {}).setdefault(int(shots), []).append(100 * record.value)
    return found


def draw(name: str) -> str:
    """Accuracy against images of each class: mean and range over the seeds, as SVG."""
    if name != "few_shot":
        raise KeyError(name)
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for head, points in few_shot().items():
        shots = sorted(points)
        style, color = _STYLES[head]
        mean = [float(np.mean(points[k])) for k in shots]
        low, high = ([float(end(points[k])) for k in shots] for end in (np.min, np.max))
        axis.plot(shots, mean, style, color=color, label=head)
        axis.fill_between(shots, low, high, color=color, alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    axis.set_xticks(shots, [str(k) for k in shots])
    axis.minorticks_off()
    axis.set_xlabel("images of each class")
    axis.set_ylabel("top-1 (%)")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()
