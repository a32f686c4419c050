"""What a frozen backbone says of each image, made once for all runs: a table that only grows.

DATA_DIR/features/FINGERPRINT holds unit features by the digests of the images' files. So other
heads, seeds and few-shot runs find them there, and a dataset that grew pays for its new images
alone.
"""

import base64
import dataclasses
import functools
import hashlib
import logging
import pathlib

import jax
import numpy as np
from flax import nnx

from fgjax import hosts
from fgjax.data.datasets.base import data_root
from fgjax.data.loading import Example, Reader, generator
from fgjax.errors import UserError
from fgjax.galleries import Entry, Store
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.training.run import Run

log = logging.getLogger(__name__)

_REVISION = 1  # raised whenever features of the same weights and pixels become others
_KEPT_TOGETHER = 2048  # images between two writes: what a killed run loses


def unit_features(
    run: Run, model: nnx.Module, reader: Reader, *, batch_size: int, view: int = 0
) -> np.ndarray:
    """Unit features [N, D] of all images of a split; those in the table are not looked at again.

    Args:
      run: with config and dataset.
      model: the backbone.
      reader: of the split, without augmentation.
      batch_size: of the forward passes.
      view: 0 for whole images; others are augmented as in training, each in its own way, which
        the file's content and the number decide.
    """
    split, count = reader.split, len(reader.split)
    digests = run.compute(split.digests, instead=lambda: [str(i) for i in range(count)])
    table = run.compute(lambda: Table(folder_of(run, model, reader, view)), instead=Unkept)
    found = table.rows(digests)
    first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    lacking = np.zeros(count, bool)
    lacking[[row for digest, row in first.items() if digest not in found]] = True
    missing = np.flatnonzero(_anywhere(lacking))
    source = AugmentedView(reader, view, tuple(digests)) if view else reader
    for begin in range(0, len(missing), _KEPT_TOGETHER):
        rows = missing[begin : begin + _KEPT_TOGETHER]
        made = embeddings_of(run, model, Embed(), source, rows, batch_size=batch_size)
        entries = [Entry(split.filenames[row], digests[row]) for row in rows]
        hosts.first(functools.partial(table.keep, made, entries))
        found |= {digests[row]: vector for row, vector in zip(rows, made, strict=True)}
    return np.stack([found[digest] for digest in digests])


def _anywhere(rows: np.ndarray) -> np.ndarray:
    """Whether any process says so [N]: they make features together, and have disks of their own."""
    said = hosts.everyone(base64.b64encode(np.packbits(rows).tobytes()).decode())
    packed = [np.frombuffer(base64.b64decode(one), np.uint8) for one in said]
    return np.unpackbits(np.bitwise_or.reduce(packed), count=len(rows)).astype(bool)


@dataclasses.dataclass(frozen=True)
class AugmentedView:
    """Transform that reads an image as a view shows it, whatever its row."""

    reader: Reader
    view: int
    digests: tuple[str, ...]

    def __call__(self, position: int, index: int) -> Example:
        """Image and index."""
        del position
        seed = int(self.digests[index][:15], 16)
        image, _ = self.reader.read(index, generator(seed, self.view))
        return {"image": image, "index": np.int32(index)}


def folder_of(run: Run, model: nnx.Module, reader: Reader, view: int = 0) -> pathlib.Path:
    """Where features of these weights, seen at this size, are kept."""
    config = run.config
    seen = (
        _REVISION, config.backbone, config.dtype, config.last_stride, config.pooling, reader.size,
        reader.split.crop_bottom, *(str(value) for value in getattr(model, "pixels", ())),
    )  # fmt: skip
    if view:
        seen = (*seen, view, *dataclasses.astuple(reader.augmentation))
    digest = hashlib.sha256(repr(seen).encode())
    heads = getattr(model, "heads", ())
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model)):
        if str(getattr(path[0], "key", path[0])) not in heads:
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return data_root(config.data.data_dir) / "features" / digest.hexdigest()[:16]


class Unkept:
    """A table that forgets, for a dry run."""

    def rows(self, digests: list[str]) -> dict[str, np.ndarray]:
        """None of them."""
        del digests
        return {}

    def keep(self, vectors: np.ndarray, entries: list[Entry]) -> None:
        """Nothing."""


class Table(Unkept):
    """Features on disk.

    Args:
      folder: of the gallery that holds them, named by what made them.
    """

    def __init__(self, folder: pathlib.Path):
        self._store = Store(folder, folder.name)

    def rows(self, digests: list[str]) -> dict[str, np.ndarray]:
        """Features [D] of those digests that it has."""
        if not self._store.exists:
            return {}
        snapshot = self._store.open()
        found = dict(snapshot.vectors_of(set(digests)))
        log.info("features: %d of %d images are in %s", len(found), len(digests), self.folder)
        return found

    @property
    def folder(self) -> pathlib.Path:
        """Where it lies."""
        return self._store.folder

    def keep(self, vectors: np.ndarray, entries: list[Entry]) -> None:
        """Add features; where they cannot be written the run goes on without them."""
        try:
            self._store.add(vectors, entries)
        except UserError as error:
            log.warning("features are not kept for other runs: %s", error)
