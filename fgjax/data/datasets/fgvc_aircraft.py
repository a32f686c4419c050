"""FGVC-Aircraft 2013b (Maji et al. 2013) from its official archive.

100 variants in 70 families of 30 manufacturers, 10,000 images: trainval (6,667) trains, test
(3,333) tests. The bottom 20 rows of pixels are a copyright banner and are cropped away.
"""

import contextlib
import pathlib
import shutil

import numpy as np

from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

ARCHIVE = "fgvc-aircraft-2013b.tar.gz"
URL = f"https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/{ARCHIVE}"
BANNER = 20
_FOLDER = "fgvc-aircraft-2013b"
_OFFICIAL_SPLIT = {"train": "trainval", "test": "test"}


class FgvcAircraft(base.FineGrainedBuilder):
    """Variants as labels, families and manufacturers as coarser levels, boxes."""

    title = "FGVC-Aircraft 2013b"
    crop_bottom = BANNER
    levels = ("family", "manufacturer")
    zero_shot_counts = (5000, 5000)
    manual_dir = pathlib.Path()

    def class_names(self):
        """The official list `variants.txt`, kept beside the prepared files."""
        return self.sidecar("variants.txt").read_text().splitlines()

    def open_archives(self, stack: contextlib.ExitStack) -> pathlib.Path:
        """The unpacked archive: in the manual folder, or fetched from its public address."""
        unpacked = self.manual_dir / _FOLDER
        if (unpacked / "data").is_dir():
            return unpacked / "data"
        archive = self.manual_dir / ARCHIVE
        if not archive.is_file():
            try:
                archives.download(URL, archive)
            except OSError as error:
                raise UserError(
                    f"{self.title} is not on this machine and could not be downloaded ({error}): "
                    f"put {ARCHIVE} into {self.manual_dir}"
                ) from error
        temporary = self.manual_dir / ".unpacked"
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        archives.unpack_tar(archive, temporary)
        root = temporary / _FOLDER / "data"
        if not root.is_dir():
            raise UserError(
                f"{archive} is not the expected archive: it has no folder {_FOLDER}/data; "
                f"download it again from {URL}."
            )
        return root

    def examples(self, split, work_dir):
        """Read the official split files."""
        official = _OFFICIAL_SPLIT[split]
        variants = _lines(work_dir / "variants.txt")
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
                path = work_dir / "images" / f"{name}.jpg"
                if not path.is_file():
                    raise UserError(f"{self.title}: images/{name}.jpg is missing.")
                data = path.read_bytes()
                yield {
                    "image": data,
                    "label": label_of[variant],
                    "bbox": _box(data, boxes.get(name)),
                    "filename": f"{name}.jpg",
                    "family": families[name],
                    "manufacturer": makers[name],
                }

        return len(labels), read()


def _lines(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"FGVC-Aircraft 2013b: the file {path.name} is missing from the archive.")
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _annotations(path: pathlib.Path) -> dict[str, str]:
    """Lines `id rest with spaces` as a dict."""
    return dict(line.split(" ", 1) for line in _lines(path))


def _box(data: bytes, text: str | None) -> np.ndarray:
    """`xmin ymin xmax ymax`, 1-based pixels, to our convention on the image without its banner."""
    if text is None:
        return np.full(4, np.nan, np.float32)
    try:
        height, width = base.image_size(data)
    except ValueError:
        return np.full(4, np.nan, np.float32)  # the image itself will be left out
    xmin, ymin, xmax, ymax = map(float, text.split())
    box = np.array([ymin - 1, xmin - 1, ymax, xmax]) / ([height - BANNER, width] * 2)
    return np.clip(box, 0, 1).astype(np.float32)


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> FgvcAircraft:
    """Builder that reads the archive in `manual_dir`."""
    builder = FgvcAircraft(data_dir=data_dir, file_format="array_record")
    builder.manual_dir = manual_dir
    return builder
