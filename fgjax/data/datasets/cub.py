"""CUB-200-2011 (Wah et al. 2011) from its official archive: 200 birds, 5,994 and 5,794 images.

A part is annotated as a point. Its box is a square around it, a quarter of the longer side of the
bird's box wide; NaN where the part is not visible.
"""

import pathlib

import numpy as np

from fgjax.data.datasets import archives, base
from fgjax.data.datasets.annotations import PART_SIZE

FILES = (
    archives.Official(
        "CUB_200_2011.tgz",
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    ),
)
PARTS = ("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg",
         "left wing", "nape", "right eye", "right leg", "right wing", "tail", "throat")  # fmt: skip
REGIONS = {
    "head": ("beak", "crown", "forehead", "left eye", "right eye", "nape", "throat"),
    "body": ("back", "belly", "breast", "left wing", "right wing", "left leg", "right leg"),
    "tail": ("tail",),
}


class Cub(base.FineGrainedBuilder):
    """Species as labels, boxes and part locations."""

    title = "CUB-200-2011"
    part_names = PARTS
    part_regions = REGIONS
    official_counts = base.Counts(train=5994, test=5794, classes=200)
    zero_shot_counts = (5864, 5924)

    def class_names(self):
        """Such as `001.Black_footed_Albatross`, kept beside the prepared files."""
        return self.sidecar("classes.txt").read_text().splitlines()

    def layout(self):
        """The archives and where they may lie unpacked."""
        return archives.Layout(FILES, "CUB_200_2011", "images.txt")

    def examples(self, split, work_dir):
        """Read the official lists, which go by image number."""
        table = lambda name: dict(  # noqa: E731
            line.split(" ", 1) for line in base.lines_of(work_dir / name, self.title)
        )
        classes = table("classes.txt")
        self.sidecar("classes.txt").write_text("\n".join(classes.values()))
        label_of = {number: place for place, number in enumerate(classes)}
        paths, labels = table("images.txt"), table("image_class_labels.txt")
        is_train, boxes = table("train_test_split.txt"), table("bounding_boxes.txt")
        places = _part_locations(work_dir, self.title)
        chosen = [n for n in paths if (is_train[n] == "1") == (split == "train")]

        def read():
            for number in chosen:
                data = base.read_image(work_dir / "images" / paths[number], self.title)
                x, y, width, height = map(float, boxes[number].split())
                yield {
                    "image": data,
                    "label": label_of[labels[number]],
                    "bbox": base.box_of(data, (x, y, x + width, y + height)),
                    "filename": paths[number],
                    "parts": _part_boxes(data, places.get(number, {}), max(width, height)),
                }

        return len(chosen), read()


def _part_locations(work_dir: pathlib.Path, title: str) -> dict[str, dict[int, tuple]]:
    """{image: {part: (x, y)}} of the visible parts."""
    found: dict[str, dict[int, tuple]] = {}
    for line in base.lines_of(work_dir / "parts" / "part_locs.txt", title):
        number, part, x, y, visible = line.split()
        if visible == "1":
            found.setdefault(number, {})[int(part) - 1] = (float(x), float(y))
    return found


def _part_boxes(data: bytes, points: dict[int, tuple], longer: float) -> np.ndarray:
    half = PART_SIZE * longer / 2
    corners = [points.get(p) for p in range(len(PARTS))]
    return np.stack([
        base.box_of(data, c and (c[0] - half, c[1] - half, c[0] + half, c[1] + half))
        for c in corners
    ])  # fmt: skip


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> Cub:
    """Builder of the archive in `manual_dir`; `subset` takes a part of it."""
    return base.official(Cub, variant, data_dir, manual_dir)
