"""Adaptive margins: m1 and σ of pair types from generated samples, before every epoch.

LAPM Eq. 10 and 12: m₁ is the mean and σ the standard deviation of the distances between a reference
and N generated negatives.
"""

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import losses
from fgjax.data import loading
from fgjax.training.logging import read_metrics
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


class MarginEstimator:
    """`before_epoch` of a margin loss: {pair: {"m1", "sigma"}}.

    `scope` says what shares a margin: "global" the whole training split (scalars), "class" one
    class ([K]), "reference" a single image ([rows of the split]; Eq. 10 to the letter, which costs
    N sets of forward passes for every training image).

    Args:
      run: for the training split.
      distances: `(model, batch) -> {pair: [B]}`, hashable.
      generate: `seed -> transform` of a (position, row) into an example.
      pairs: names of the pair types; with `shared`, all take the first one's statistics.
      samples: N, at least 2.
      scope: see above.
      shared: whether the pairs share one margin.
      batch_size: references in a forward pass.
      folder: of the stage, whose metrics tell the margin of the first epoch.
    """

    def __init__(
        self,
        run: Run,
        distances: Callable,
        generate: Callable[[int], Callable[[int, int], Any]],
        *,
        pairs: tuple[str, ...],
        samples: int,
        scope: str,
        shared: bool,
        batch_size: int,
        folder: pathlib.Path,
    ):
        self._run, self._distances, self._generate = run, distances, generate
        self._pairs, self._samples, self._scope, self._shared = pairs, samples, scope, shared
        self._batch_size, self._folder = batch_size, folder

    def __call__(self, model: nnx.Module, epoch: int, key: jax.Array) -> dict[str, Any]:
        """The margins of an epoch; the samples are drawn from the key alone."""
        seed = int(jax.random.bits(key)) & 0x7FFFFFFF
        references, rows = self._references(seed)
        distances = self._measure(model, references, seed)
        statistics = {}
        for pair in self._pairs:
            groups = distances[self._pairs[0] if self._shared else pair]
            found = losses.margin_statistics(groups.reshape(-1, self._samples), axis=1)
            statistics[pair] = {
                "m1": self._table(found.m1, rows),
                "sigma": self._table(found.sigma, rows),
            }
        self._warn(epoch, float(np.mean(statistics[self._pairs[0]]["m1"])))
        return statistics

    def _references(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Reference of every sample [G · N], and the table row of each group [G]."""
        rng = loading.generator(seed, 0)
        indices, labels = self._run.train_indices, self._run.dataset.train.labels
        if self._scope == "reference":
            return np.repeat(indices, self._samples), indices
        if self._scope == "global":
            return rng.choice(indices, self._samples), np.zeros(1, int)
        classes = np.unique(labels[indices])
        drawn = [rng.choice(indices[labels[indices] == k], self._samples) for k in classes]
        return np.concatenate(drawn), classes

    def _measure(self, model, references: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        return self._run.outputs(
            model,
            self._generate(seed),
            references,
            batch_size=self._batch_size,
            outputs_of=self._distances,
        )

    def _table(self, values: jax.Array, rows: np.ndarray) -> np.ndarray:
        """Values of groups in a table of fixed size (their mean elsewhere), or the only value."""
        found = np.asarray(values)
        if self._scope == "global":
            return found[0]
        dataset = self._run.dataset
        size = dataset.num_classes if self._scope == "class" else len(dataset.train)
        table = np.full(size, found.mean(), found.dtype)
        table[rows] = found
        return table

    def _warn(self, epoch: int, m1: float) -> None:
        """Say so when the features shrink: nothing in the loss anchors their scale."""
        earlier = [line["m1"] for line in read_metrics(self._folder) if "m1" in line]
        if earlier and m1 < 0.5 * earlier[0]:
            log.warning(
                "the embedding shrinks: m1 is %.3g before epoch %d and was %.3g in the first; "
                "try --config.method.l2norm, a larger lambda_ or a lower learning rate",
                m1,
                epoch + 1,
                earlier[0],
            )


def kept_margins(estimator: MarginEstimator, stage: Stage) -> Callable[..., dict[str, Any]]:
    """`before_epoch` that keeps what an estimator says before the first epoch.

    It is the artifact `margins` of the stage, so that a run that resumes has the same.
    """

    def statistics(model: nnx.Module, epoch: int, key: jax.Array) -> dict[str, Any]:
        if not (stage.folder / "margins.npz").exists():
            first = estimator(model, epoch, key)
            stage.save_arrays(
                "margins",
                **{f"{pair}.{name}": value for pair, one in first.items()
                   for name, value in one.items()},
            )  # fmt: skip
        found: dict[str, Any] = {}
        for name, value in stage.load_arrays("margins").items():
            pair, _, which = name.partition(".")
            found.setdefault(pair, {})[which] = value
        return found

    return statistics


def fixed_margins(pairs: tuple[str, ...], m1: float, sigma: float) -> Callable[..., dict[str, Any]]:
    """`before_epoch` that gives every pair type the same constant margin."""

    def statistics(model: nnx.Module, epoch: int, key: jax.Array) -> dict[str, Any]:
        del model, epoch, key
        return {pair: {"m1": jnp.float32(m1), "sigma": jnp.float32(sigma)} for pair in pairs}

    return statistics
