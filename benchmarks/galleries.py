"""A gallery of a million images: seconds and memory to fill it and to search it.

    PYTHONPATH=. python benchmarks/galleries.py [--images=1000000] [--dimensions=512]

Random unit vectors, added 50,000 at a time, then searched by 1,000 queries. Memory is the process's
largest resident set without the pages of the mapped files.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from fgjax.galleries import Entry, Store


def _memory():
    """GiB that are the process's own, and that its mapped files have in memory."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return sizes["RssAnon"] / 2**20, sizes["RssFile"] / 2**20


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=512)
    options = parser.parse_args()
    rng, most = np.random.default_rng(0), 0.0
    with tempfile.TemporaryDirectory() as folder:
        store, each = Store(pathlib.Path(folder) / "gallery", "model"), 50_000
        began = time.perf_counter()
        for begin in range(0, options.images, each):
            rows = rng.standard_normal((min(each, options.images - begin), options.dimensions))
            rows = rows.astype(np.float32) / np.linalg.norm(rows, axis=1, keepdims=True)
            store.add(
                rows, [Entry(f"{begin + n}.jpg", f"{begin + n:064x}") for n in range(len(rows))]
            )
            most = max(most, _memory()[0])
        filled = time.perf_counter() - began
        queries = rows[:1000]
        began = time.perf_counter()
        snapshot = store.open()
        opened = time.perf_counter() - began
        snapshot.search(queries[:1], 10)  # compiles
        began = time.perf_counter()
        found = snapshot.search(queries, 10)
        searched = time.perf_counter() - began
        most = max(most, _memory()[0])
        assert all(abs(matches[0].score - 1) < 1e-4 for matches in found)
    print(f"{options.images:,} × {options.dimensions}: filled in {filled:.0f} s, opened in "
          f"{opened:.1f} s, 1,000 queries in {searched:.1f} s; {most:.2f} GiB")  # fmt: skip


if __name__ == "__main__":
    _main()
