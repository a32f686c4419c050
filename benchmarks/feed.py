"""Does the pipeline feed faster than the training step consumes? Both rates, one after the other.

    PYTHONPATH=. python benchmarks/feed.py [--config configs/aircraft.py:lapm,demo] [--steps 40]

Part boxes are the true ones, so that nothing needs training first; the built-in data only.
"""

import argparse
import itertools
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np
from flax import nnx

from fgjax import config_files
from fgjax.data import loading
from fgjax.data.datasets import load_dataset
from fgjax.methods import lapm
from fgjax.methods.lapm import adaptive_margin
from fgjax.training import fit, optimizer
from fgjax.training.logging import read_metrics
from fgjax.training.run import Run


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/aircraft.py:lapm,demo")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    config = config_files.load(options.config)
    method, data = config.method, config.data
    dataset = load_dataset(data.dataset, data_dir=data.data_dir)
    run = Run(config, dataset, pathlib.Path(tempfile.mkdtemp()))
    parts = np.stack(
        [loading.boxlib.to_window(p, w) for p, w in zip(dataset.train.parts, dataset.train.boxes)]
    )
    reader = loading.Reader(
        dataset.train, data.image_size, data.augmentation, dataset.train.boxes, parts
    )
    stream = loading.stream(run.train_indices, lapm.transform(run, method, reader, seed=0), seed=0)
    size, images = method.margin.batch_size, 4

    batches = loading.batches(stream, batch_size=size, data=data)
    next(batches)
    start = time.perf_counter()
    for _ in itertools.islice(batches, options.steps):
        pass
    fed = options.steps * size * images / (time.perf_counter() - start)

    # The step alone: the same batch again and again.
    fixed = next(iter(loading.batches(stream, batch_size=size)))
    endless = loading.grain.MapDataset.source([fixed] * (options.steps * size))
    endless = endless.map(lambda b: {k: v[0] for k, v in b.items()})
    folder = pathlib.Path(tempfile.mkdtemp())
    estimate = adaptive_margin.fixed_margins(lapm.PAIRS, 0.3, 0.1)
    fit.fit(
        run.build_model(pretrained=False),
        lapm.MarginLoss(method.lambda_, method.alpha, True, "global", method.l2norm),
        fit.Batches(endless.repeat(), size, options.steps // 2, data, images),
        optimizer=optimizer.make(
            method.margin.optimizer, steps_per_epoch=options.steps // 2, epochs=2
        ),
        epochs=2, key=jax.random.key(0), folder=folder, trainable=nnx.Param,
        before_epoch=estimate, title="step",
    )  # fmt: skip
    consumed = read_metrics(folder)[-1]["images_per_second"]  # the second epoch: no compilation
    print(f"pipeline with mixing: {fed:,.0f} images/s")
    print(f"training step:        {consumed:,.0f} images/s")
    print(f"ratio:                {fed / consumed:.1f}")


if __name__ == "__main__":
    sys.exit(_main())
