"""Value and gradient of the in-batch losses, beside pytorch-metric-learning, in one run.

    PYTHONPATH=. python benchmarks/losses.py [--batches 32 128 512 1024] [--out FILE.md]

Medians over repeated calls after warm-up on the same data: 512 dimensions, 8 images a class (2 for
N-pairs, as its sampler makes them). Agreement is printed where the definitions agree, and the
reason where they do not.
"""

import argparse
import pathlib
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from pytorch_metric_learning import distances, reducers
from pytorch_metric_learning import losses as pml

from fgjax import compilation, losses

DEPTH, PER_CLASS = 512, 8
# Above these pytorch-metric-learning takes minutes a call or runs out of memory.
_LARGEST = {"lifted structure": 128, "histogram": 512}


def _plain_l2():
    return distances.LpDistance(normalize_embeddings=False, p=2, power=1)


# name: (ours, theirs, what differs; empty where the definitions agree)
def _pairs():
    squared = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
    contrastive = pml.ContrastiveLoss(
        pos_margin=0, neg_margin=1, distance=squared, reducer=reducers.DoNothingReducer()
    )

    def contrastive_theirs(x, y):
        """A mean for each kind of pair, from its unreduced terms."""
        parts = contrastive(x, y)
        return (parts["pos_loss"]["losses"].mean() + parts["neg_loss"]["losses"].mean()) / 2

    lifted = pml.GeneralizedLiftedStructureLoss
    lifted = pml.LiftedStructureLoss(neg_margin=1, pos_margin=0, distance=_plain_l2())
    n_pairs = pml.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False))
    triplet = pml.TripletMarginLoss(
        margin=0.2,
        distance=distances.LpDistance(normalize_embeddings=False, p=2, power=2),
        reducer=reducers.MeanReducer(),
    )
    histogram = pml.HistogramLoss(n_bins=150)

    def given_triplets(batch: int):
        """One triplet per row: the next row of its class, and a row of the next class."""
        rows = np.arange(batch)
        start = rows // PER_CLASS * PER_CLASS
        return rows, start + (rows + 1) % PER_CLASS, (rows + PER_CLASS) % batch

    def triplet_ours(x, y):
        a, p, n = given_triplets(len(y))
        return 2 * jnp.mean(losses.triplet_loss(x[a], x[p], x[n], margin=0.2))  # theirs has no ½

    def triplet_theirs(x, y):
        return triplet(x, y, tuple(map(torch.from_numpy, given_triplets(len(y)))))

    return {
        "contrastive": (losses.contrastive_loss, contrastive_theirs, ""),
        "lifted structure": (losses.lifted_structure_loss, lifted, ""),
        "n-pairs": (
            lambda x, y: losses.n_pairs_loss(x, y, l2_weight=0.0),
            n_pairs,
            "",
        ),
        "triplet, given": (triplet_ours, triplet_theirs, ""),
        "histogram": (losses.histogram_loss, histogram, ""),
    }


def _time(call, repeats: int) -> float:
    call()
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(batch: int, only: str = "") -> list[tuple]:
    """Rows (name, batch, ours ms, theirs ms, ratio, largest relative difference, remark)."""
    rng = np.random.default_rng(0)
    rows = []
    for name, (ours, theirs, remark) in _pairs().items():
        if only not in name or batch > _LARGEST.get(name, batch):
            continue
        per_class = 2 if name == "n-pairs" else PER_CLASS  # as its sampler makes it
        y = np.repeat(np.arange(batch // per_class), per_class)
        x = (rng.normal(size=(batch, DEPTH)) * 0.05).astype(np.float32)
        x += 0.5 * rng.normal(size=(batch // per_class, DEPTH)).astype(np.float32)[y] * 0.05
        labels = jnp.asarray(y, jnp.int32)
        compiled = compilation.jit(
            jax.value_and_grad(lambda x, labels=labels, ours=ours: ours(x, labels))
        )
        jax_x = jnp.asarray(x)
        torch_y = torch.from_numpy(y)

        def run_ours(compiled=compiled, jax_x=jax_x):
            return jax.block_until_ready(compiled(jax_x))

        def run_theirs(theirs=theirs, torch_y=torch_y, x=x):
            leaf = torch.from_numpy(x).requires_grad_()
            value = theirs(leaf, torch_y)
            value.backward()
            return value.detach().numpy(), leaf.grad.numpy()

        value, gradient = run_ours()
        other_value, other_gradient = run_theirs()
        scale = np.abs(other_gradient).max()
        difference = max(
            abs(float(value) - float(other_value)) / max(abs(float(other_value)), 1e-8),
            float(np.abs(np.asarray(gradient) - other_gradient).max() / max(scale, 1e-12)),
        )
        repeats = 30 if batch <= 128 else 7
        mine, other = _time(run_ours, repeats), _time(run_theirs, repeats)
        rows.append((name, batch, 1e3 * mine, 1e3 * other, other / mine, difference, remark))
        print(*(f"{v:.3g}" if isinstance(v, float) else v for v in rows[-1]), flush=True)
    return rows


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512, 1024])
    parser.add_argument("--out", type=pathlib.Path, help="write the table there as well")
    parser.add_argument("--only", default="", help="losses whose name holds this")
    options = parser.parse_args()
    rows = [row for batch in options.batches for row in measure(batch, options.only)]
    import pytorch_metric_learning

    lines = [
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, jax {jax.__version__} ({jax.devices()[0].device_kind}), "
        f"torch {torch.__version__}, pytorch-metric-learning {pytorch_metric_learning.__version__}",
        "",
        "| loss | batch | fgjax ms | PML ms | PML / fgjax | difference | remark |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {n} | {b} | {m:.2f} | {o:.2f} | {r:.1f} | {d:.1e} | {t} |"
        for n, b, m, o, r, d, t in rows
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    sys.exit(_main())
