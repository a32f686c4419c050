"""Exact nearest neighbours: time beside faiss-cpu's IndexFlatIP, and memory at 60,000 × 60,000.

    PYTHONPATH=. python benchmarks/retrieval.py
    PYTHONPATH=. python benchmarks/retrieval.py --memory     this process's peak, nothing else in it

needs benchmarks/requirements.txt. The two sides run in turns; the ratio is the median of faiss's
time by ours.
"""

import argparse
import resource
import sys
import time

import numpy as np

TOP = 33  # Recall@32 and the query itself


def unit_rows(count, depth):
    rows = np.random.default_rng(0).standard_normal((count, depth), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compare(count, depth, turns, queries=None):
    """All rows search each other, or so many others search them."""
    import faiss

    from fgjax.evaluation import nearest

    rows = unit_rows(count, depth)
    asking = rows if queries is None else unit_rows(queries + 1, depth)[1:]
    index = faiss.IndexFlatIP(depth)
    index.add(rows)
    ours, theirs = nearest(asking, rows, count=TOP), index.search(asking, TOP)
    # Where two scores agree to 1e-6, either may stand first.
    agree = np.mean((ours[1] == theirs[1]) | (np.abs(ours[0] - theirs[0]) < 1e-6))
    times = []
    for _ in range(turns):
        pair = []
        for run in (lambda: nearest(asking, rows, count=TOP), lambda: index.search(asking, TOP)):
            began = time.perf_counter()
            run()
            pair.append(time.perf_counter() - began)
        times.append(pair)
    mine, other = np.median(times, axis=0)
    ratio = float(np.median([b / a for a, b in times]))
    title = f"{count:,} × {depth:,}" + (f", {queries:,} ask" if queries else "")
    print(f"| {title} | {mine:.2f} | {other:.2f} | {ratio:.2f} | {agree:.4%} |", flush=True)


def memory(count=60_000, depth=512, per_class=30):
    from fgjax.evaluation import retrieval_metrics

    rows, labels = unit_rows(count, depth), np.arange(count) // per_class
    began = time.perf_counter()
    retrieval_metrics(rows, labels)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{count:,} × {count:,} × {depth}, all measures: {seconds:.0f} s, peak {peak:.2f} GiB")


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    if options.memory:
        memory()
        return
    print(f"top {TOP}\n\n| rows × dimensions | ours, s | faiss, s | ratio | same matches |\n"
          "|---|---|---|---|---|")  # fmt: skip
    compare(8_000, 2_048, options.turns)
    compare(8_000, 512, options.turns)
    compare(60_000, 512, 2)
    compare(1_000_000, 512, 3, queries=1000)


if __name__ == "__main__":
    sys.exit(_main())
