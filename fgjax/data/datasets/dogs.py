"""Stanford Dogs (Khosla et al. 2011): 120 breeds in the order of their WordNet ids.

12,000 images train and 8,580 test. A picture may have several annotated dogs; its box is the
smallest one around all of them.
"""

import pathlib
import xml.etree.ElementTree

import numpy as np
from scipy import io

from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

_SITE = "http://vision.stanford.edu/aditya86/ImageNetDogs"
FILES = tuple(
    archives.Official(name, f"{_SITE}/{name}", digest)
    for name, digest in (
        ("images.tar", "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58"),
        ("annotation.tar", "662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd"),
        ("lists.tar", "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c"),
    )
)


class Dogs(base.FineGrainedBuilder):
    """Breeds as labels, boxes."""

    title = "Stanford Dogs"
    official_counts = base.Counts(train=12000, test=8580, classes=120)
    zero_shot_counts = (10651, 9929)

    def class_names(self):
        """Such as `n02085620-Chihuahua`, kept beside the prepared files."""
        return self.sidecar("classes.txt").read_text().splitlines()

    def layout(self):
        """The archives and where they may lie unpacked."""
        return archives.Layout(FILES, "stanford_dogs", "train_list.mat")

    def examples(self, split, work_dir):
        """Read the official list of the split."""
        lists = {name: _paths(work_dir / f"{name}_list.mat") for name in ("train", "test")}
        names = sorted({path.split("/")[0] for paths in lists.values() for path in paths})
        self.sidecar("classes.txt").write_text("\n".join(names))
        label_of = {name: number for number, name in enumerate(names)}

        def read():
            for path in lists[split]:
                data = base.read_image(work_dir / "Images" / path, self.title)
                yield {
                    "image": data,
                    "label": label_of[path.split("/")[0]],
                    "bbox": base.box_of(data, _around(work_dir / "Annotation" / path[:-4])),
                    "filename": path,
                }

        return len(lists[split]), read()


def _paths(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{Dogs.title}: {path.name} is missing from lists.tar.")
    return [str(name) for name in np.atleast_1d(io.loadmat(path, squeeze_me=True)["file_list"])]


def _around(path: pathlib.Path) -> tuple[float, ...] | None:
    """The smallest box around all dogs of a picture; its file has no suffix."""
    if not path.is_file():
        return None
    tree = xml.etree.ElementTree.parse(path)
    corners = np.array([
        [float(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax")]
        for box in tree.iter("bndbox")
    ])  # fmt: skip
    return (*corners[:, :2].min(0), *corners[:, 2:].max(0)) if len(corners) else None


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> Dogs:
    """Builder of the archives in `manual_dir`; `subset` takes a part of them."""
    return base.official(Dogs, variant, data_dir, manual_dir)
