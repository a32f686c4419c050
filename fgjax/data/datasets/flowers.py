"""Oxford Flowers 102 (Nilsback & Zisserman 2008): 102 flowers.

The official training and validation images train (2,040, twenty of each class), the 6,149 test
images test. There are no boxes.
"""

import pathlib

import numpy as np
from scipy import io

from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
FILES = tuple(
    archives.Official(name, f"{_SITE}/{name}", digest)
    for name, digest in (
        ("102flowers.tgz", "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"),
        ("imagelabels.mat", "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d"),
        ("setid.mat", "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd"),
    )
)
SETS = {"train": ("trnid", "valid"), "test": ("tstid",)}
NAMES = tuple(
    (pathlib.Path(__file__).parent / "flowers.txt").read_text(encoding="utf-8").splitlines()
)


class Flowers(base.FineGrainedBuilder):
    """Flowers as labels; the archive itself has numbers only, the names are its web page's."""

    title = "Oxford Flowers 102"
    official_counts = base.Counts(train=2040, test=6149, classes=102)
    zero_shot_counts = (3493, 4696)

    def class_names(self):
        """Such as `pink primrose`, by the official numbers."""
        return NAMES

    def layout(self):
        """The archives and where they may lie unpacked."""
        return archives.Layout(FILES, "flowers102", "setid.mat")

    def examples(self, split, work_dir):
        """Read the official sets, which go by image number."""
        labels = _table(work_dir / "imagelabels.mat", "labels")
        numbers = np.concatenate([_table(work_dir / "setid.mat", key) for key in SETS[split]])

        def read():
            for number in numbers.tolist():
                name = f"image_{number:05d}.jpg"
                yield {
                    "image": base.read_image(work_dir / "jpg" / name, self.title),
                    "label": int(labels[number - 1]) - 1,
                    "bbox": np.full(4, np.nan, np.float32),
                    "filename": name,
                }

        return len(numbers), read()


def _table(path: pathlib.Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{Flowers.title}: {path.name} is missing.")
    return np.atleast_1d(io.loadmat(path, squeeze_me=True)[key])


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> Flowers:
    """Builder of the files in `manual_dir`; `subset` takes a part of them."""
    return base.official(Flowers, variant, data_dir, manual_dir)
