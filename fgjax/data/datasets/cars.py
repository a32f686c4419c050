"""Stanford Cars (Krause et al. 2013): 196 models, 8,144 and 8,041 images.

Its original site is gone. Two layouts are in circulation, and both are read: the devkit
(cars_train.tgz, cars_test.tgz, car_devkit.tgz with the test annotations beside) and the single
archive (car_ims.tgz with cars_annos.mat).
"""

import pathlib

import numpy as np
from scipy import io

from fgjax.data.datasets import archives, base
from fgjax.errors import UserError

DEVKIT = tuple(
    archives.Official(name)
    for name in ("cars_train.tgz", "cars_test.tgz", "car_devkit.tgz",
                 "cars_test_annos_withlabels.mat")
)  # fmt: skip
SINGLE = (archives.Official("car_ims.tgz"), archives.Official("cars_annos.mat"))
_FOLDER = "stanford_cars"
HINT = (
    "the original site (ai.stanford.edu/~jkrause/cars) is gone, so look for copies of the official "
    "files, either those four or car_ims.tgz with cars_annos.mat, which are read as well"
)


class Cars(base.FineGrainedBuilder):
    """Models as labels, boxes."""

    title = "Stanford Cars"
    official_counts = base.Counts(train=8144, test=8041, classes=196)
    zero_shot_counts = (8054, 8131)

    def class_names(self):
        """Such as `AM General Hummer SUV 2000`, kept beside the prepared files."""
        return self.sidecar("classes.txt").read_text().splitlines()

    def layout(self):
        """Whichever of the two is there; the devkit's where neither is."""
        single = (self.manual_dir / _FOLDER / "cars_annos.mat").is_file() or all(
            (self.manual_dir / file.name).is_file() for file in SINGLE
        )
        if single:
            return archives.Layout(SINGLE, _FOLDER, "car_ims", HINT)
        return archives.Layout(DEVKIT, _FOLDER, "cars_train", HINT)

    def examples(self, split, work_dir):
        """Read the annotations of the layout that is there."""
        single = (work_dir / "cars_annos.mat").is_file()
        names, rows = (_single if single else _devkit)(work_dir, split)
        self.sidecar("classes.txt").write_text("\n".join(names))

        def read():
            for path, label, (x0, y0, x1, y1) in rows:
                data = base.read_image(work_dir / path, self.title)
                yield {
                    "image": data,
                    "label": label,
                    # 1-based and inclusive; some reach a pixel over the border
                    "bbox": base.box_of(data, (x0 - 1, y0 - 1, x1, y1)),
                    "filename": pathlib.Path(path).name,
                }

        return len(rows), read()


def _single(work_dir: pathlib.Path, split: str):
    annotations = _load(work_dir / "cars_annos.mat")
    rows = [
        (str(a["relative_im_path"]), int(a["class"]) - 1, _corners(a))
        for a in np.atleast_1d(annotations["annotations"])
        if bool(a["test"]) == (split == "test")
    ]
    return [str(name) for name in np.atleast_1d(annotations["class_names"])], rows


def _devkit(work_dir: pathlib.Path, split: str):
    meta = _load(work_dir / "devkit" / "cars_meta.mat")
    name = "devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
    beside = work_dir / "devkit" / name  # some copies have the test annotations in the devkit
    path = beside if beside.is_file() else work_dir / name
    rows = [
        (f"cars_{split}/{a['fname']}", int(a["class"]) - 1, _corners(a))
        for a in np.atleast_1d(_load(path)["annotations"])
    ]
    return [str(name) for name in np.atleast_1d(meta["class_names"])], rows


def _corners(annotation) -> tuple[float, ...]:
    return tuple(float(annotation[f"bbox_{corner}"]) for corner in ("x1", "y1", "x2", "y2"))


def _load(path: pathlib.Path):
    if not path.is_file():
        raise UserError(f"{Cars.title}: {path.name} is missing; {HINT}.")
    return io.loadmat(path, squeeze_me=True)


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> Cars:
    """Builder of the archives in `manual_dir`; `subset` takes a part of them."""
    return base.official(Cars, variant, data_dir, manual_dir)
