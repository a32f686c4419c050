"""FGVC-Aircraft 2013b (Maji et al. 2013) from its official archive.

100 variants in 70 families of 30 manufacturers, 10,000 images: trainval (6,667) trains, test
(3,333) tests. The bottom 20 rows of pixels are a copyright banner and are cropped away.
"""

import pathlib

import numpy as np

from fgjax.data import images
from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

ARCHIVE = "fgvc-aircraft-2013b.tar.gz"
URL = f"https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/{ARCHIVE}"
BANNER = 20
FILES = (archives.Official(ARCHIVE, URL),)
_FOLDER = "fgvc-aircraft-2013b"
_OFFICIAL_SPLIT = {"train": "trainval", "test": "test"}


class FgvcAircraft(base.FineGrainedBuilder):
    """Variants as labels, families and manufacturers as coarser levels, boxes."""

    title = "FGVC-Aircraft 2013b"
    crop_bottom = BANNER
    levels = ("family", "manufacturer")
    zero_shot_counts = (5000, 5000)
    official_counts = base.Counts(train=6667, test=3333, classes=100)

    def class_names(self):
        """The official list `variants.txt`, kept beside the prepared files."""
        return self.sidecar("variants.txt").read_text().splitlines()

    def layout(self):
        """The archives and where they may lie unpacked."""
        return archives.Layout(FILES, _FOLDER, "data/variants.txt")

    def examples(self, split, work_dir):
        """Read the official split files."""
        work_dir = work_dir / "data"
        official = _OFFICIAL_SPLIT[split]
        variants = base.lines_of(work_dir / "variants.txt", self.title)
        self.sidecar("variants.txt").write_text("\n".join(variants))
        label_of = {name: number for number, name in enumerate(variants)}
        labels = _annotations(work_dir / f"images_variant_{official}.txt")
        families = _annotations(work_dir / f"images_family_{official}.txt")
        makers = _annotations(work_dir / f"images_manufacturer_{official}.txt")
        boxes = _annotations(work_dir / "images_box.txt")
        unknown = sorted(set(labels.values()) - set(label_of))
        if unknown:
            raise UserError(f"variants.txt of {self.title} does not list {unknown[0]!r}.")

        def read():
            for name, variant in labels.items():
                data = base.read_image(work_dir / "images" / f"{name}.jpg", self.title)
                yield {
                    "image": data,
                    "label": label_of[variant],
                    "bbox": _box(data, boxes.get(name)),
                    "filename": f"{name}.jpg",
                    "family": families[name],
                    "manufacturer": makers[name],
                }

        return len(labels), read()


def _annotations(path: pathlib.Path) -> dict[str, str]:
    """Lines `id rest with spaces` as a dict."""
    return dict(line.split(" ", 1) for line in base.lines_of(path, FgvcAircraft.title))


def _box(data: bytes, text: str | None) -> np.ndarray:
    """`xmin ymin xmax ymax`, 1-based pixels, to our convention on the image without its banner."""
    if text is None:
        return np.full(4, np.nan, np.float32)
    try:
        height, width = images.size_of(data)
    except ValueError:
        return np.full(4, np.nan, np.float32)  # the image itself will be left out
    xmin, ymin, xmax, ymax = map(float, text.split())
    box = np.array([ymin - 1, xmin - 1, ymax, xmax]) / ([height - BANNER, width] * 2)
    return np.clip(box, 0, 1).astype(np.float32)


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> FgvcAircraft:
    """Builder of the archive in `manual_dir`; `subset` takes a part of it."""
    return base.official(FgvcAircraft, variant, data_dir, manual_dir)
