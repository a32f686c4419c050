"""Images of one's own: a folder of images for each class.

    FOLDER/train/CLASS/*.jpg and FOLDER/test/CLASS/*.jpg    or
    FOLDER/CLASS/*.jpg                                      a stratified split by seed

Images are read where they lie; what was found out about them is kept beside the prepared datasets.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from fgjax.data import images
from fgjax.data.datasets.annotations import annotate
from fgjax.data.datasets.splits import Dataset, Split
from fgjax.errors import UserError

log = logging.getLogger(__name__)

TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files as a `Source`.

    Attributes:
      paths: of the files.
      sizes: bytes of each when the dataset was opened.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, size = pathlib.Path(self.paths[index]), self.sizes[index]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read any more ({error.strerror or error}): put it back, and the "
                "same command goes on."
            ) from error
        if len(data) != size:
            raise UserError(
                f"{path} has changed since the run began, from {size} to {len(data)} bytes: put it "
                "back, and the same command goes on, or begin anew with another --workdir."
            )
        return {"image": data}


def open_folder(
    path: str, cache: pathlib.Path, *, test_share: float, split_seed: int, annotated: str = ""
) -> Dataset:
    """The images under a folder as a dataset; labels are the sub-folders in ASCII order.

    Args:
      path: the folder.
      cache: where to remember which files are readable.
      test_share: of each class, where there are no train and test sub-folders.
      split_seed: decides which.
      annotated: where boxes and parts are said (`datasets.annotations`); nowhere by default.

    Raises:
      UserError: there is no such folder, it has fewer than two classes or no images, or a class of
        the test split has no training images. Or annotations do not fit.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(
            f"data.path is {path!r}, which is not a folder: say --config.data.path=FOLDER, with a "
            "sub-folder of images for each class."
        )
    test_name = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test_name:
        found = {"train": _classes(root / "train"), "test": _classes(root / test_name)}
    else:
        found = {"train": _classes(root)}
    listed = sorted(
        {file for classes in found.values() for own in classes.values() for file in own}
    )
    problems = _check(listed, root, cache)
    usable = {
        split: {name: [f for f in own if f not in problems] for name, own in classes.items()}
        for split, classes in found.items()
    }
    names = sorted(name for name, own in usable["train"].items() if own)
    if len(names) < 2:
        raise UserError(
            f"{root} has {len(names)} classes with images: each class needs a sub-folder of its "
            "own with images in it, as in FOLDER/CLASS/*.jpg or FOLDER/train/CLASS/*.jpg."
        )
    if "test" not in usable:
        usable = _stratified(usable["train"], test_share, split_seed)
    extra = sorted(name for name, own in usable["test"].items() if own and name not in names)
    if extra:
        raise UserError(
            f"{root / str(test_name)} has the class {_printable(extra[0])}, but {root / 'train'} "
            "has no image of it."
        )
    splits = {name: _split(usable[name], names, root) for name in ("train", "test")}
    if not len(splits["test"]):
        raise UserError(f"{root} leaves no image for the test split: put in more, or raise "
                        "data.test_share.")  # fmt: skip
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update("\n".join(split.filenames).encode() + split.labels.tobytes())
        digest.update(str(list(cast(Files, split.source).sizes)).encode())
    dataset = Dataset(
        name=f"folder-{_printable(root.absolute().name)}",
        class_names=tuple(map(_printable, names)),
        train=splits["train"],
        test=splits["test"],
        fingerprint=digest.hexdigest()[:16],
        skipped=tuple(_printable(str(pathlib.Path(p).relative_to(root))) for p in problems),
    )
    if not annotated:
        return dataset
    files = {_printable(str(pathlib.Path(path).relative_to(root))): path for path in listed}
    return annotate(dataset, annotated, files)


def _classes(folder: pathlib.Path) -> dict[str, list[str]]:
    """{sub-folder: its files, at any depth}."""
    return {
        entry.name: sorted(str(p) for p in entry.rglob("*") if p.is_file())
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _check(paths: list[str], root: pathlib.Path, cache: pathlib.Path) -> dict[str, str]:
    """{path: why it cannot be used}; remembered by size and time of change."""
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:12]
    memory = cache / f"folder-{name}.json"
    known = json.loads(memory.read_text()) if memory.exists() else {}
    state, problems = {}, {}
    for path in tqdm(paths, desc=f"checking {_printable(root.name)}", unit="image", leave=False):
        about = os.stat(path)
        key = _printable(path)
        stamp = [about.st_size, about.st_mtime_ns]
        if known.get(key, [None])[0] != stamp:
            known[key] = [stamp, _problem(pathlib.Path(path))]
        state[key] = known[key]
        if state[key][1]:
            problems[path] = state[key][1]
    if problems:
        first = next(iter(problems))
        log.warning("%d of %d files in %s are left out, the first: %s (%s)", len(problems),
                    len(paths), root, _printable(first), problems[first])  # fmt: skip
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f".{memory.name}.{os.getpid()}")
        temporary.write_text(json.dumps(state))
        temporary.replace(memory)
    except OSError as error:
        log.warning("%s cannot be written (%s): images are checked anew each time", cache, error)
    return problems


def _problem(path: pathlib.Path) -> str:
    if path.suffix.lower() not in images.SUFFIXES:
        return "not an image by its name"
    return images.problem(path.read_bytes()) or ""


def _stratified(classes: dict[str, list[str]], share: float, seed: int) -> dict[str, dict]:
    """A share of each class for testing; classes of one image only train."""
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for number, (name, files) in enumerate(sorted(classes.items())):
        order = np.random.default_rng([seed, number]).permutation(len(files))
        count = min(max(round(share * len(files)), 1), len(files) - 1) if len(files) > 1 else 0
        test[name] = [files[k] for k in sorted(order[:count])]
        train[name] = [files[k] for k in sorted(order[count:])]
    return {"train": train, "test": test}


def _split(classes: dict[str, list[str]], names: list[str], root: pathlib.Path) -> Split:
    rows = [(label, path) for label, name in enumerate(names) for path in classes.get(name, [])]
    return Split(
        source=Files(
            tuple(path for _, path in rows), tuple(os.path.getsize(path) for _, path in rows)
        ),
        labels=np.array([label for label, _ in rows], np.int32),
        boxes=np.full((len(rows), 4), np.nan, np.float32),
        parts=None,
        filenames=tuple(_printable(str(pathlib.Path(path).relative_to(root))) for _, path in rows),
    )


def _printable(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 become �."""
    return os.fsencode(name).decode("utf-8", "replace")
