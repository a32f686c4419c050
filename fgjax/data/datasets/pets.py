"""Oxford-IIIT Pets (Parkhi et al. 2012): 37 breeds, 3,680 (trainval) and 3,669 (test) images.

Labels are the breeds in ASCII order, so that the capitalised cats come first: that is HDCL's
zero-shot split (12 cats and 7 dogs train, 18 dogs are searched), which the official numbers are
not, being ordered without regard to capitals. Boxes are of heads; test images have none.
"""

import pathlib
import xml.etree.ElementTree

from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

_SITE = "https://thor.robots.ox.ac.uk/~vgg/data/pets"
FILES = tuple(
    archives.Official(name, f"{_SITE}/{name}", digest)
    for name, digest in (
        ("images.tar.gz", "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d"),
        ("annotations.tar.gz", "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91"),
    )
)
_LISTS = {"train": "trainval.txt", "test": "test.txt"}


class Pets(base.FineGrainedBuilder):
    """Breeds as labels, cat or dog as the coarser level, boxes of heads where annotated."""

    title = "Oxford-IIIT Pets"
    levels = ("species",)
    official_counts = base.Counts(train=3680, test=3669, classes=37)
    zero_shot_counts = (3766, 3583)

    def class_names(self):
        """Such as `Abyssinian`, kept beside the prepared files."""
        return self.sidecar("classes.txt").read_text().splitlines()

    def layout(self):
        """The archives and where they may lie unpacked."""
        return archives.Layout(FILES, "oxford_pets", "annotations/trainval.txt")

    def examples(self, split, work_dir):
        """Read the official list: image, class, species, number within the species."""
        lists = {name: _rows(work_dir / "annotations" / file) for name, file in _LISTS.items()}
        names = sorted({name.rsplit("_", 1)[0] for rows in lists.values() for name, *_ in rows})
        self.sidecar("classes.txt").write_text("\n".join(names))
        label_of = {name: number for number, name in enumerate(names)}

        def read():
            for name, _, species, *_ in lists[split]:
                data = base.read_image(work_dir / "images" / f"{name}.jpg", self.title)
                head = work_dir / "annotations" / "xmls" / f"{name}.xml"
                yield {
                    "image": data,
                    "label": label_of[name.rsplit("_", 1)[0]],
                    "bbox": base.box_of(data, _head(head)),
                    "filename": f"{name}.jpg",
                    "species": {"1": "cat", "2": "dog"}[species],
                }

        return len(lists[split]), read()


def _rows(path: pathlib.Path) -> list[list[str]]:
    rows = [line.split() for line in base.lines_of(path, Pets.title) if not line.startswith("#")]
    broken = [row for row in rows if len(row) < 4]
    if broken:
        raise UserError(f"{Pets.title}: {path.name} has a broken line, {' '.join(broken[0])!r}.")
    return rows


def _head(path: pathlib.Path) -> tuple[float, ...] | None:
    if not path.is_file():
        return None
    box = xml.etree.ElementTree.parse(path).find(".//bndbox")
    if box is None:
        return None
    return tuple(float(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax"))


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> Pets:
    """Builder of the archives in `manual_dir`; `subset` takes a part of them."""
    return base.official(Pets, variant, data_dir, manual_dir)
