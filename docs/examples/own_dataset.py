"""A dataset of your own: fgjax train --config=… --config.data.dataset=own_dataset.

Reads FOLDER/labels.csv with the columns file, label and split, and the images beside it;
FOLDER is --config.data.manual_dir.
"""

import csv
import pathlib

import numpy as np

from fgjax.data.datasets import base
from fgjax.errors import UserError


class Leaves(base.FineGrainedBuilder):
    """Images that a table lists."""

    title = "leaves"

    def layout(self):
        """Nothing is downloaded or unpacked."""
        return None

    def _rows(self) -> list[dict[str, str]]:
        table = self.manual_dir / "labels.csv"
        if not table.is_file():
            raise UserError(f"{table} is missing: name its folder with --config.data.manual_dir.")
        with table.open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))

    def class_names(self):
        """In the order of their labels."""
        return sorted({row["label"] for row in self._rows()})

    def examples(self, split, work_dir):
        """How many there are, and each of them: the file's own bytes, undecoded."""
        rows = [row for row in self._rows() if row["split"] == split]
        names = list(self.class_names())

        def read():
            for row in rows:
                yield {
                    "image": base.read_image(self.manual_dir / row["file"], self.title),
                    "label": names.index(row["label"]),
                    "bbox": np.full(4, np.nan, np.float32),  # [y0, x0, y1, x1] where it is known
                    "filename": row["file"],
                }

        return len(rows), read()


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> Leaves:
    """What fgjax asks this module for; `variant` is what follows a slash in the dataset's name."""
    if variant:
        raise UserError(f"leaves have no variant {variant!r}.")
    builder = Leaves(data_dir=data_dir, file_format="array_record")
    builder.manual_dir = manual_dir
    return builder
