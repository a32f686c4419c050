"""One schema for all datasets, as TFDS builders that need no TensorFlow.

A builder yields each image as its original encoded bytes and writes array_record files; what the
pipeline needs of every example besides the image (labels, boxes, names) is read once into an index
beside them.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import filelock
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from fgjax.data import images
from fgjax.data.datasets import archives
from fgjax.data.datasets.splits import Dataset, Source, Split
from fgjax.errors import UserError

log = logging.getLogger(__name__)


class Counts(NamedTuple):
    """Images of the two splits, and classes."""

    train: int
    test: int
    classes: int


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: TFDS would ask Google's servers, and leave an empty folder each time."""


class FineGrainedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of all builders: the schema, and what happens to images that cannot be decoded."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # TFDS's own lookup of checksums needs a package that it does not require
    title = ""  # how people call the dataset
    crop_bottom = 0
    part_names: tuple[str, ...] = ()
    part_regions: ClassVar[dict[str, tuple[str, ...]]] = {}  # parts that are scored as one
    levels: tuple[str, ...] = ()  # coarser levels of the label hierarchy
    zero_shot_counts: tuple[int, int] | None = None  # HDCL Table 2
    official_counts: Counts | None = None  # checked after preparation
    manual_dir = pathlib.Path()  # where a person puts archives
    complete = True  # whether the counts must be the official ones
    official_files = pathlib.Path()  # set by `prepare` while the files are open

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._home = pathlib.Path(self.data_path)  # data_path itself changes while preparing

    def expected_counts(self) -> Counts | None:
        """How many images and classes there will be, as far as that is known beforehand."""
        return self.official_counts

    def class_names(self) -> Sequence[str]:
        """Class names in label order."""
        raise NotImplementedError(type(self))

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.Scalar(np.int64),
            "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "filename": tfds.features.Text(),
        }
        if self.part_names:
            shape = (len(self.part_names), 4)
            features["parts"] = tfds.features.Tensor(shape=shape, dtype=np.float32)
        for level in self.levels:
            features[level] = tfds.features.Text()
        return _Info(builder=self, features=tfds.features.FeaturesDict(features))

    def examples(self, split: str, work_dir: pathlib.Path) -> tuple[int, Iterator[dict[str, Any]]]:
        """Number and iterator of a split's records, `image` as bytes. For subclasses."""
        raise NotImplementedError(type(self))

    def layout(self) -> archives.Layout | None:
        """How the official files are distributed; None where there are none."""
        raise NotImplementedError(type(self))

    def open_archives(self, stack: contextlib.ExitStack) -> pathlib.Path:
        """Folder with the unpacked official files, fetched if need be.

        Raises:
          UserError: they are missing, damaged or unsafe.
        """
        layout = self.layout()
        if layout is None:
            return pathlib.Path()
        return archives.open_official(self.title, layout, self.manual_dir, stack)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str):
        total, records = self.examples(split, self.official_files)
        skipped = []
        for number, record in enumerate(
            tqdm(records, total=total, desc=f"{self.title} {split}", unit="image", leave=False)
        ):
            problem = images.problem(record["image"])
            if problem:
                log.warning("%s is left out: %s", record["filename"], problem)
                skipped.append(record["filename"])
                continue
            yield number, {**record, "image": io.BytesIO(record["image"])}
        self.sidecar(f"skipped-{split}.json").write_text(json.dumps(skipped))

    def sidecar(self, name: str) -> pathlib.Path:
        """A small file beside the prepared folder, which TFDS moves into place as a whole."""
        self._home.parent.mkdir(parents=True, exist_ok=True)
        return self._home.with_name(f"{self._home.name}-{name}")


def data_root(data_dir: str) -> pathlib.Path:
    """The folder for prepared datasets: `data_dir`, $FGJAX_DATA, or the user's cache."""
    chosen = data_dir or os.environ.get("FGJAX_DATA") or "~/.cache/fgjax/data"
    return pathlib.Path(chosen).expanduser()


def prepare(builder: FineGrainedBuilder) -> None:
    """Write a builder's array_record files unless they are there; a broken try leaves nothing.

    Processes that want the same dataset wait for the first one.
    """
    home = pathlib.Path(builder.data_path)
    if home.exists():
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(builder.sidecar("preparing.lock")))
        except OSError as error:
            raise UserError(
                f"{home.parent} cannot be written ({error.strerror or error}): choose another "
                "folder with --config.data.data_dir."
            ) from error
        if home.exists():  # another process was faster; the builder has not seen its files yet
            builder.info.read_from_directory(home)
            return
        builder.official_files = builder.open_archives(stack)
        log.info("preparing %s into %s", builder.title, builder.data_path)
        tfds.disable_progress_bar()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
        except OSError as error:
            raise UserError(
                f"{builder.title} could not be prepared in {builder.data_path}: {error}; "
                "free some space or choose another folder with --config.data.data_dir."
            ) from error


def load(builder: FineGrainedBuilder) -> Dataset:
    """Prepare a dataset if need be and return its splits."""
    prepare(builder)
    names = tuple(builder.class_names())
    skipped: list[str] = []
    splits, digests, parents = {}, [], {}
    for split in ("train", "test"):
        index = _index(builder, split)
        if builder.sidecar(f"skipped-{split}.json").exists():
            skipped += json.loads(builder.sidecar(f"skipped-{split}.json").read_text())
        splits[split] = Split(
            source=_source(builder, split),
            labels=index["labels"],
            boxes=index["boxes"],
            parts=index.get("parts"),
            filenames=tuple(index["filenames"].tolist()),
            crop_bottom=builder.crop_bottom,
        )
        for level in builder.levels:
            pairs = zip(index["labels"].tolist(), index[level].tolist())
            parents.setdefault(level, {}).update(pairs)
        digests += [index[key].tobytes() for key in sorted(index)]
    if skipped:
        log.warning(
            "%d images of %s could not be decoded and are left out, the first: %s",
            len(skipped), builder.title, skipped[0],
        )  # fmt: skip
    hierarchy = {}
    for level, parent in parents.items():
        coarse = tuple(sorted(set(parent.values())))
        index_of = [coarse.index(parent[k]) if k in parent else -1 for k in range(len(names))]
        hierarchy[level] = (coarse, np.array(index_of, np.int32))
    dataset = Dataset(
        name=builder.name,
        class_names=names,
        train=splits["train"],
        test=splits["test"],
        fingerprint=hashlib.sha256(b"".join(digests)).hexdigest()[:16],
        part_names=builder.part_names,
        part_regions=regions_of(builder),
        hierarchy=hierarchy,
        skipped=tuple(skipped),
        zero_shot_counts=builder.zero_shot_counts if builder.complete else None,
    )
    _check_counts(builder, dataset)
    return dataset


Builder = TypeVar("Builder", bound=FineGrainedBuilder)


def official(
    kind: type[Builder], variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path
) -> Builder:
    """A builder of official files; the variant `subset` takes however many images there are.

    Raises:
      UserError: another variant.
    """
    if variant not in ("", "subset"):
        raise UserError(
            f"{kind.title} has no variant {variant!r}: name the dataset alone, or with /subset for "
            "a part of the official files, whose counts are not checked."
        )
    config = tfds.core.BuilderConfig(name=variant) if variant else None
    builder = kind(data_dir=data_dir, config=config, file_format="array_record")
    builder.manual_dir, builder.complete = manual_dir, not variant
    return builder


def regions_of(builder: FineGrainedBuilder) -> dict[str, tuple[int, ...]]:
    """The builder's regions as places in its part names; each part by itself where it has none."""
    regions = builder.part_regions or {name: (name,) for name in builder.part_names}
    place = builder.part_names.index
    return {region: tuple(place(part) for part in parts) for region, parts in regions.items()}


def _check_counts(builder: FineGrainedBuilder, dataset: Dataset) -> None:
    """Refuse a dataset that is not the official one, images that cannot be decoded aside."""
    if not (builder.complete and builder.official_counts):
        return
    skipped = len(dataset.skipped)
    found = Counts(len(dataset.train), len(dataset.test), dataset.num_classes)
    names = ("training images", "test images", "classes")
    for what, official, here in zip(names, builder.official_counts, found):
        short = official - here
        if short == 0 or (what != "classes" and 0 < short <= skipped):
            continue
        raise UserError(
            f"{builder.title} has {here:,} {what} where the official data has {official:,} "
            f"({abs(short):,} {'missing' if short > 0 else 'too many'}): the files in "
            f"{builder.manual_dir} are not complete. Replace them and remove {builder.data_path}, "
            f"or say data.dataset={builder.name}/subset to use what there is."
        )


def lines_of(path: pathlib.Path, title: str) -> list[str]:
    """Lines of an official text file that are not empty; its bytes may be in any encoding.

    Raises:
      UserError: the file is missing.
    """
    if not path.is_file():
        raise UserError(f"{title}: the file {path.name} is missing from the archive.")
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_image(path: pathlib.Path, title: str) -> bytes:
    """An official image's bytes.

    Raises:
      UserError: it is missing; names it.
    """
    if not path.is_file():
        raise UserError(
            f"{title}: the image {path.parent.name}/{path.name} is listed but missing from the "
            "archive."
        )
    return path.read_bytes()


def box_of(data: bytes, corners: Sequence[float] | None) -> np.ndarray:
    """Corners (x0, y0, x1, y1) in pixels, clipped to the image, as [y0, x0, y1, x1] in [0, 1].

    NaN where there are none, or where the image cannot be read and will be left out.
    """
    if corners is None:
        return np.full(4, np.nan, np.float32)
    try:
        height, width = images.size_of(data)
    except ValueError:
        return np.full(4, np.nan, np.float32)
    x0, y0, x1, y1 = corners
    box = np.array([y0, x0, y1, x1]) / ([height, width] * 2)
    return np.clip(box, 0, 1).astype(np.float32)


def _source(builder: FineGrainedBuilder, split: str) -> Source:
    decoders = {"image": tfds.decode.SkipDecoding()}
    # TFDS wraps the method without its parameters.
    return builder.as_data_source(split, decoders=decoders)  # pyright: ignore[reportCallIssue]


def _index(builder: FineGrainedBuilder, split: str) -> dict[str, np.ndarray]:
    path = pathlib.Path(builder.data_path) / f"fgjax_index_{split}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    columns: dict[str, list] = {"labels": [], "boxes": [], "filenames": []}
    columns.update({level: [] for level in builder.levels})
    if builder.part_names:
        columns["parts"] = []
    source = _source(builder, split)
    for number in range(len(source)):
        record = source[number]
        columns["labels"].append(record["label"])
        columns["boxes"].append(record["bbox"])
        columns["filenames"].append(record["filename"].decode())
        if builder.part_names:
            columns["parts"].append(record["parts"])
        for level in builder.levels:
            columns[level].append(record[level].decode())
    index: dict[str, Any] = {key: np.array(column) for key, column in columns.items()}
    index["labels"] = index["labels"].astype(np.int32)
    index["boxes"] = index["boxes"].astype(np.float32).reshape(-1, 4)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(temporary, **index)
    temporary.replace(path)
    return index
