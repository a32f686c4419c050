"""A loss of your own in fgjax's training loop: python own_loss.py FOLDER."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import models
from fgjax.config import Augmentation, Data, Optimizer
from fgjax.data.datasets import load_dataset
from fgjax.data.loading import Reader, training_stream
from fgjax.evaluation.classification import classification_metrics, predict_logits
from fgjax.training import optimizer
from fgjax.training.fit import epoch_batches, fit


def focal_loss(logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """Cross-entropy that looks away from what is sure already: (1 − p)^γ · −log p, [B]."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (1 - jnp.exp(-entropy)) ** gamma * entropy


@dataclasses.dataclass(frozen=True)
class FocalLoss:
    """What the loop calls in every step; it must be pure."""

    gamma: float = 2.0

    def __call__(self, model, batch, statistics, key):
        """The mean over the batch, and numbers to be logged."""
        logits = model(batch["image"], key=key)["logits"]
        loss = jnp.mean(focal_loss(logits, batch["label"], gamma=self.gamma))
        return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])}


def train(folder: pathlib.Path, *, epochs: int = 20, images: int = 20, size: int = 64) -> dict:
    """A small network on drawn aircraft; the same call again resumes."""
    dataset = load_dataset(f"synthetic_aircraft/{images}", data_dir=str(folder / "data"))
    augmentation = Augmentation(flip=False, color=True)
    reader = Reader(dataset.train, size, augmentation)
    rows = np.arange(len(dataset.train))
    batches = epoch_batches(
        training_stream(reader, rows, seed=0), len(rows), batch_size=24, data=Data(workers=0)
    )
    model = models.build("resnet_small", num_classes=dataset.num_classes, rngs=nnx.Rngs(0))
    adamw = Optimizer("adamw", 2e-3, schedule="cosine", warmup_epochs=1)
    fit(
        model,
        FocalLoss(),
        batches,
        optimizer=optimizer.make(adamw, steps_per_epoch=batches.steps_per_epoch, epochs=epochs),
        epochs=epochs,
        key=jax.random.key(0),
        folder=folder,
    )
    test = Reader(dataset.test, size, augmentation)
    rows = np.arange(len(dataset.test))
    logits = predict_logits(model, test, rows, batch_size=24)
    return classification_metrics(logits, dataset.test.labels)


if __name__ == "__main__":
    print(train(pathlib.Path(sys.argv[1])))
