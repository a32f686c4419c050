"""Does "none of these" keep its word? Half of a probe's classes are taken for unknown.

    PYTHONPATH=. python benchmarks/unknown.py RUN [--divisions=3]

RUN is a finished probe. For each division of its classes, a head is fitted to the training images
of one half; scores of unknown things come from leaving out a fifth of that half at a time, as in
training. Then the test images of both halves are asked. Nothing is chosen.
"""

import argparse
import pathlib

import numpy as np

from fgjax import main
from fgjax.evaluation import unknown
from fgjax.methods.probe import heads

RATES = (0.05, 0.1, 0.2)
_CHOSEN = {"linear": 10.0, "cosine": 0, "knn": 10}  # of the free numbers


def divided(features, train, test, head, seed):
    """AUROC of the truth, and for each wanted rate the unknown and the known that are let in."""
    half = np.random.default_rng(seed).permutation(np.unique(train))[: len(np.unique(train)) // 2]
    own, known = np.isin(train, half), np.isin(test, half)
    given = features["train"][own], train[own]
    options = {"classes": int(train.max()) + 1, "chosen": _CHOSEN[head], "iterations": 200}
    arrays = heads.fit_one(head, *given, **options)
    scores = heads.logits_of(arrays, features["test"], options["classes"]).max(axis=1)
    strangers = heads.strangers(head, *given, **options, seed=0)
    rates = unknown.false_accepts(scores, strangers)
    accepted = [(np.mean(rates[~known] <= r), np.mean(rates[known] <= r)) for r in RATES]
    return unknown.auroc(scores[known], scores[~known]), accepted


def command():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--divisions", type=int, default=3)
    options = parser.parse_args()
    run = main.open_run(options.run)
    with np.load(options.run / "features" / "features.npz") as stored:
        features = dict(stored)
    train, test = run.dataset.train.labels, run.dataset.test.labels
    wanted = " | ".join(f"wanted {rate:.0%}: unknown, known" for rate in RATES)
    print(f"| head | division | AUROC | {wanted} |\n|{'---|' * (3 + len(RATES))}")
    for head in _CHOSEN:
        for seed in range(options.divisions):
            auroc, accepted = divided(features, train, test, head, seed)
            cells = [f"{stranger:.1%}, {own:.1%}" for stranger, own in accepted]
            print(f"| {head} | {seed} | {auroc:.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    command()
