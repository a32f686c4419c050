"""Embeddings on disk: segments that never change, and a manifest that names those that count.

    gallery/manifest.json           model, dimensions, segments; replaced whole
    gallery/vectors-NAME.npy        float32 [rows, D], memory-mapped
    gallery/entries-NAME.json       file and digest of each row

Whoever adds or removes holds a lock, writes new segments and then the manifest. Whoever searches
reads a manifest once and sees the gallery as it was then, whatever others do meanwhile.
"""

import contextlib
import errno
import json
import os
import pathlib
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import filelock
import numpy as np

from fgjax.errors import UserError
from fgjax.evaluation import nearest

FORMAT = 1
MOST = 65_536  # rows of a segment, and of what is searched at once


class Entry(NamedTuple):
    """An image of a gallery.

    Attributes:
      file: where it lay when it was added.
      digest: SHA-256 of its bytes, by which it is known.
      label: its class, where the gallery has any.
    """

    file: str
    digest: str
    label: str = ""


class Match(NamedTuple):
    """An image that was found.

    Attributes:
      entry: which.
      score: cosine similarity.
    """

    entry: Entry
    score: float


class Snapshot:
    """A gallery as it was when it was opened; it may be searched for as long as one likes.

    Attributes:
      entries: of all rows.
    """

    def __init__(self, vectors: Sequence[np.ndarray], entries: list[Entry]):
        self._vectors, self.entries = list(vectors), entries

    def __len__(self) -> int:
        return len(self.entries)

    def blocks(self, rows: int = MOST) -> Iterator[np.ndarray]:
        """All embeddings, `rows` at a time (the last block has what is left)."""
        held, size = [], 0
        for segment in self._vectors:
            begin = 0
            while begin < len(segment):
                part = segment[begin : begin + rows - size]
                held.append(part)
                begin, size = begin + len(part), size + len(part)
                if size == rows:
                    yield np.concatenate(held)
                    held, size = [], 0
        if held:
            yield np.concatenate(held)

    def vectors_of(self, digests: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(digest, embedding) of those images that are in it."""
        places = iter(self.entries)
        for segment in self._vectors:
            for vector, entry in zip(segment, places, strict=False):
                if entry.digest in digests:
                    yield entry.digest, vector

    def search(
        self, queries: np.ndarray, count: int, *, own: np.ndarray | None = None
    ) -> list[list[Match]]:
        """The `count` most similar images of each unit query [Q, D], exact, best first.

        Args:
          queries: unit rows.
          count: how many; fewer where the gallery has fewer.
          own: rows that queries must not find (themselves), or −1.
        """
        count = min(count, len(self) - (own is not None))
        scores = np.full((len(queries), 0), -np.inf, np.float32)
        rows = np.zeros((len(queries), 0), np.int64)
        first = 0
        for block in self.blocks() if count > 0 else ():
            mine = None
            if own is not None:
                inside = (own >= first) & (own < first + len(block))
                mine = np.where(inside, own - first, -1)
            found, places = nearest(queries, block, count=min(count, len(block)), own=mine)
            scores = np.concatenate([scores, found], axis=1)
            rows = np.concatenate([rows, places.astype(np.int64) + first], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            scores = np.take_along_axis(scores, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
            first += len(block)
        return [
            [Match(self.entries[row], float(score)) for score, row in zip(line, own_rows)
             if np.isfinite(score)]
            for line, own_rows in zip(scores, rows.tolist())
        ]  # fmt: skip

    def alike(self, threshold: float, *, most: int = 16) -> list[tuple[Entry, Entry, float]]:
        """Pairs of images with a cosine of at least `threshold`, the most alike first.

        Each image is compared with all others; of an image's own pairs, the `most` best are seen.
        """
        place = {entry.digest: row for row, entry in enumerate(self.entries)}
        found: dict[tuple[int, int], float] = {}
        first = 0
        for block in self.blocks():
            own = first + np.arange(len(block))
            for row, matches in zip(own.tolist(), self.search(block, most, own=own)):
                for entry, score in matches:
                    if score >= threshold:
                        other = place[entry.digest]
                        found[min(row, other), max(row, other)] = score
            first += len(block)
        pairs = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        return [(self.entries[i], self.entries[j], score) for (i, j), score in pairs]


class Store:
    """A gallery's folder.

    Args:
      folder: where it lies; made when something is added.
      model: fingerprint of what made the embeddings.
    """

    def __init__(self, folder: pathlib.Path, model: str):
        self.folder, self._model = folder, model

    @property
    def exists(self) -> bool:
        """Whether anything was ever added."""
        return (self.folder / "manifest.json").is_file()

    def open(self) -> Snapshot:
        """What it holds now.

        Raises:
          UserError: there is no such gallery, it is another model's, or it is damaged.
        """
        tries = 3
        while True:
            manifest = self._manifest()
            try:
                parts = [self._read(name) for name in manifest["segments"]]
                vectors = [part[0] for part in parts]
                return Snapshot(vectors, [entry for part in parts for entry in part[1]])
            except (ValueError, OSError) as error:
                tries -= 1  # a file may have been replaced since the manifest was read
                if not tries or not isinstance(error, FileNotFoundError):
                    raise self._damaged(error) from error

    def known(self) -> set[str]:
        """Digests of all images in it; none where there is no gallery yet."""
        return {entry.digest for entry in self.open().entries} if self.exists else set()

    def add(self, vectors: np.ndarray, entries: Sequence[Entry]) -> int:
        """Add unit rows [N, D]; those whose digest is there already are left out.

        Returns:
          How many were new.

        Raises:
          UserError: they are of another model or depth, or cannot be written; nothing has changed.
        """
        with self._changing():
            here = self.open() if self.exists else Snapshot([], [])
            known = {entry.digest for entry in here.entries}
            new = {e.digest: row for row, e in enumerate(entries) if e.digest not in known}
            if not new:
                return 0
            rows = list(new.values())
            vectors = np.asarray(vectors, np.float32)[rows]
            manifest = self._manifest() if self.exists else self._empty(vectors.shape[1])
            if manifest["dimensions"] != vectors.shape[1]:
                raise UserError(
                    f"the gallery {self.folder} holds embeddings of {manifest['dimensions']} "
                    f"dimensions, not {vectors.shape[1]}: name another."
                )
            kept, added = list(manifest["segments"]), [entries[row] for row in rows]
            if kept:  # the last one is filled up
                last, listed = self._read(kept[-1])
                if len(listed) < MOST:
                    kept.pop()
                    vectors, added = np.concatenate([last, vectors]), listed + added
            self._replace(manifest, kept, vectors, added)
            return len(rows)

    def remove(self, unwanted: Iterable[str]) -> int:
        """Take images out by file or digest; returns how many there were.

        Raises:
          UserError: there is no such gallery, or it cannot be written; nothing has changed.
        """
        wanted, count = set(unwanted), 0
        with self._changing():
            manifest = self._manifest()
            kept, vectors, entries = [], [], []
            for name in manifest["segments"]:
                rows, listed = self._read(name)
                stays = [e.digest not in wanted and e.file not in wanted for e in listed]
                if all(stays):
                    kept.append(name)
                    continue
                count += stays.count(False)
                vectors.append(rows[stays])
                entries += [entry for entry, stay in zip(listed, stays, strict=True) if stay]
            if count:
                self._replace(manifest, kept, np.concatenate(vectors), entries)
        return count

    def _empty(self, dimensions: int) -> dict[str, Any]:
        return {"format": FORMAT, "model": self._model, "dimensions": dimensions, "segments": []}

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"there is no index {self.folder}: make one first.") from error
        except (ValueError, OSError) as error:
            raise self._damaged(error) from error
        if found.get("format") != FORMAT:
            raise UserError(
                f"{self.folder} is an index of format {found.get('format')}, and this version "
                f"reads {FORMAT}: make it anew."
            )
        if found["model"] != self._model:
            raise UserError(
                f"the index {self.folder} was made by another model: make it anew, or name another."
            )
        return found

    def _read(self, name: str) -> tuple[np.ndarray, list[Entry]]:
        listed = json.loads((self.folder / f"entries-{name}.json").read_text(encoding="utf-8"))
        vectors = np.load(self.folder / f"vectors-{name}.npy", mmap_mode="r", allow_pickle=False)
        if len(vectors) != len(listed):
            raise ValueError(f"segment {name} has {len(vectors)} rows for {len(listed)} images")
        return vectors, [Entry(*entry) for entry in listed]

    def _replace(self, manifest, kept: list[str], vectors: np.ndarray, entries: list[Entry]):
        """Write rows as new segments, then the manifest; what it no longer names is deleted."""
        names, before = list(kept), list(manifest["segments"])
        try:
            for begin in range(0, len(entries), MOST):
                name = uuid.uuid4().hex
                names.append(name)
                with _durable(self.folder / f"vectors-{name}.npy") as file:
                    np.save(file, vectors[begin : begin + MOST])
                with _durable(self.folder / f"entries-{name}.json") as file:
                    file.write(json.dumps(entries[begin : begin + MOST]).encode())
            manifest = {**manifest, "segments": names}
            with _durable(self.folder / "manifest.json") as file:
                file.write(json.dumps(manifest, indent=1).encode())
        except OSError as error:
            self._delete(set(names) - set(before))
            why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
            raise UserError(
                f"the index {self.folder} cannot be written ({why}); it is as it was before."
            ) from error
        self._delete(set(before) - set(names))

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            for path in (f"vectors-{name}.npy", f"entries-{name}.json"):
                (self.folder / path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be made ({error.strerror}).") from error
        with filelock.FileLock(self.folder / ".lock"):
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Delete what a process left that died while it added; the lock is held."""
        names = set(self._manifest()["segments"]) if self.exists else set()
        for path in self.folder.iterdir():
            kind, _, name = path.stem.partition("-")
            if path.suffix == ".part" or (kind in ("vectors", "entries") and name not in names):
                path.unlink(missing_ok=True)

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"the index {self.folder} is damaged ({error}): make it anew.")


@contextlib.contextmanager
def _durable(path: pathlib.Path):
    """A file that appears under its name when it is whole and on the disk."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
