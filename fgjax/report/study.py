"""The report of a study: its table, its picture, and each row beside the first, seed by seed."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from fgjax.figures import drawing
from fgjax.report import page, pictures


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the study.

    Attributes:
      name: of the row.
      values: the main metric of each seed, per cent.
      cells: further columns, as text.
    """

    name: str
    values: tuple[float, ...]
    cells: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (ddof 1); None for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def beside(self, first: "Line") -> tuple[float, float] | None:
        """Mean and standard deviation (ddof 1) of the paired differences, seed by seed."""
        if self is first or len(self.values) < 2 or len(self.values) != len(first.values):
            return None
        difference = np.subtract(self.values, first.values)
        return float(difference.mean()), float(difference.std(ddof=1))


def write(
    folder: pathlib.Path,
    *,
    title: str,
    source: str,
    metric: str,
    columns: Sequence[str],
    lines: Sequence[Line],
    command: str,
) -> pathlib.Path:
    """FOLDER/report.html of a study whose picture lies in the folder; returns where it lies."""
    shown = []
    for name, caption in drawing.captions(folder).items():
        if (folder / name).exists():
            address, width, height = pictures.figure(folder / name)
            shown.append({"address": address, "caption": caption, "width": width, "height": height})
    path = folder / "report.html"
    page.write(
        path, "study.html", title=title, source=source, metric=metric, columns=columns,
        lines=[(line, line.beside(lines[0])) for line in lines], figures=shown, command=command,
    )  # fmt: skip
    return path
