"""A gallery as a file of faiss, for services that search with it; fgjax itself searches exactly.

FILE         what `faiss.read_index` reads: inner products of unit vectors, rows from 0
FILE.jsonl   file, digest and label of each row
"""

import json
import pathlib
from types import ModuleType

import numpy as np

from fgjax.errors import UserError
from fgjax.galleries.store import Snapshot

KINDS = ("flat", "hnsw")
LINKS, BUILDING, SEARCHING = 32, 200, 64  # of the graph: neighbours, and how far is looked
AMONG, ASKED = 10, 500  # the recall is that of the nearest so many, over so many images


def write(snapshot: Snapshot, path: pathlib.Path, *, kind: str = "flat") -> float:
    """Write both files; returns the share of exact nearest neighbours that the index finds.

    Args:
      snapshot: what is written.
      path: of the index.
      kind: "flat" compares with every row, "hnsw" walks a graph (Malkov and Yashunin 2018).

    Raises:
      UserError: faiss is not installed, the gallery is empty, or the files cannot be written.
    """
    faiss = _faiss()
    if not len(snapshot):
        raise UserError("the index is empty: add images first, with fgjax index add.")
    index = None
    for block in snapshot.blocks():
        if index is None:
            index = _made(faiss, kind, block.shape[1])
        index.add(np.ascontiguousarray(block, np.float32))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(entry._asdict(), ensure_ascii=False) for entry in snapshot.entries]
        path.with_name(f"{path.name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        faiss.write_index(index, str(path))
    except (OSError, RuntimeError) as error:  # the second is faiss's
        said = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path} cannot be written ({said}): name another --out.") from error
    return recall(snapshot, index)


def recall(snapshot: Snapshot, index) -> float:
    """Share of the ten nearest of up to 500 images, themselves left out, that an index finds."""
    rows = np.unique(np.linspace(0, len(snapshot) - 1, ASKED).astype(int))
    digests = {snapshot.entries[row].digest for row in rows}
    known = dict(snapshot.vectors_of(digests))
    queries = np.stack([known[snapshot.entries[row].digest] for row in rows])
    exact = snapshot.search(queries, AMONG, own=rows)
    _, found = index.search(np.ascontiguousarray(queries, np.float32), AMONG + 1)
    shares = []
    for row, wanted, places in zip(rows, exact, found, strict=True):
        near = [snapshot.entries[place].digest for place in places if place not in (row, -1)]
        shares.append(np.mean([match.entry.digest in near[:AMONG] for match in wanted] or [1.0]))
    return float(np.mean(shares))


def _made(faiss: ModuleType, kind: str, dimensions: int):
    if kind == "flat":
        return faiss.IndexFlatIP(dimensions)
    index = faiss.IndexHNSWFlat(dimensions, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILDING, SEARCHING
    return index


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise UserError('faiss is not installed: pip install "fgjax[faiss]".') from error
    return faiss
