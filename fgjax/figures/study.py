"""Pictures of studies: bars with the spread over seeds, curves over a field, surfaces over two."""

import pathlib

import numpy as np

from fgjax.config import Study
from fgjax.figures import drawing


def surface(study: Study, summaries: list, path: pathlib.Path) -> None:
    """The metric over both axes: a curve for each value of the second, and the surface."""
    cells = {tuple(s.row.overrides[axis] for axis in study.axes): s for s in summaries}
    first, second = (sorted({place[axis] for place in cells}) for axis in range(2))
    values = np.array([[100 * cells[x, y].main.mean for x in first] for y in second])
    across, down = (axis.rsplit(".", 1)[-1].replace("_", " ") for axis in study.axes)
    figure = drawing.plt.figure(figsize=(11, 4.2))
    left = figure.add_subplot(1, 2, 1)
    for label, row in zip(second, values):
        left.plot(first, row, "o-", markersize=4, label=str(label))
    left.set_xlabel(across)
    left.set_ylabel(f"{study.metric} (%)")
    left.legend(title=down, fontsize=8)
    left.grid(alpha=0.3)
    right = figure.add_subplot(1, 2, 2, projection="3d")
    right.plot_surface(*np.meshgrid(first, second), values, cmap="viridis")
    right.set_xlabel(across, fontsize=8)
    right.set_ylabel(down, fontsize=8)
    figure.suptitle(study.title, fontsize=10)
    drawing.save(figure, path, caption=f"{study.metric} over {across} for each {down}")


def curve(study: Study, summaries: list, path: pathlib.Path) -> None:
    """Means with their spread over one field, each seed as a dot; the paper's numbers, if any."""
    axis_of = study.axes[0]
    summaries = sorted(summaries, key=lambda summary: summary.row.overrides[axis_of])
    places = [summary.row.overrides[axis_of] for summary in summaries]
    name = axis_of.rsplit(".", 1)[-1].rstrip("_").replace("_", " ")
    figure, axis = drawing.plt.subplots(figsize=(5.6, 3.6))
    means = [100 * summary.main.mean for summary in summaries]
    spreads = [100 * summary.main.spread for summary in summaries]
    axis.errorbar(places, means, yerr=spreads, fmt="o-", capsize=3, label="measured")
    for place, summary in zip(places, summaries):
        axis.plot([place] * len(summary.main.values), [100 * v for v in summary.main.values], "k.",
                  markersize=4)  # fmt: skip
    papers = [(x, s.row.paper) for x, s in zip(places, summaries) if s.row.paper is not None]
    if papers:
        axis.plot(*zip(*papers), "s--", color="#969696", label="paper")
        axis.legend(fontsize=8)
    axis.set_xlabel(name)
    axis.set_ylabel(f"{study.metric} (%)")
    axis.set_title(study.title, fontsize=10)
    axis.grid(alpha=0.3)
    drawing.save(figure, path, caption=f"{study.metric} over {name}: mean, spread, each seed")


def bars(study: Study, summaries: list, path: pathlib.Path) -> None:
    """Means with their spread, and each seed as a dot."""
    figure, axis = drawing.plt.subplots(figsize=(7, 0.45 * len(summaries) + 1.4))
    places = np.arange(len(summaries))[::-1]
    means = np.array([100 * summary.main.mean for summary in summaries])
    spreads = [100 * summary.main.spread for summary in summaries]
    axis.barh(places, means, xerr=spreads, color="#9ecae1", capsize=3)
    for place, summary in zip(places, summaries):
        values = [100 * value for value in summary.main.values]
        axis.plot(values, [place] * len(values), "k.", markersize=4)
    lowest = 100 * min(value for summary in summaries for value in summary.main.values)
    axis.set_xlim(max(lowest - 5, 0), min(max(means) + 5, 100))
    axis.set_yticks(places, [summary.row.name for summary in summaries], fontsize=8)
    axis.set_xlabel(f"{study.metric} (%)")
    axis.set_title(study.title, fontsize=10)
    drawing.save(figure, path, caption=f"{study.metric} of each row: mean, spread, each seed")
