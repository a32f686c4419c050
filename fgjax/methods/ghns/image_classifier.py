"""A classifier of one image each by cross-entropy and triplets: λ L_cls + (1 − λ) L_triplet."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax

from fgjax import losses, models
from fgjax.config import Training
from fgjax.data.loading import Reader, SingleImage
from fgjax.data.sampling import AnchorBatches, class_stream
from fgjax.evaluation import classification
from fgjax.losses.common import normalize
from fgjax.methods.shared.classifier import evaluator_on
from fgjax.training.run import Run, Stage


@dataclasses.dataclass(frozen=True)
class ImageLoss:
    """λ L_cls + (1 − λ) L_triplet (GHNS section 3.3), triplets of unit features (Eq. 2)."""

    lambda_: float
    margin: float

    def __call__(self, model, batch, statistics, key):
        """The loss of a batch with several images of each class."""
        del statistics
        outputs = model(batch["image"], key=key)
        logits, labels = outputs["logits"], batch["label"]
        entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        triplet = losses.batch_all_triplet_loss(
            normalize(outputs["pooled"]), labels, margin=self.margin, squared=True
        )
        return self.lambda_ * entropy + (1 - self.lambda_) * triplet, {
            "classification_loss": entropy,
            "triplet_loss": triplet,
            "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        }


def train_image_classifier(
    run: Run,
    name: str,
    training: Training,
    start: Callable[[], models.Backbone],
    readers: tuple[Reader, Reader],
    *,
    lambda_: float,
    margin: float,
    per_class: int,
    after: tuple[Stage, ...],
    **settings,
) -> Stage:
    """Stage `name`; leaves logits of held-out and test images as the artifact `scores`.

    Args:
      run: with dataset and folders.
      name: of the stage.
      training: how long.
      start: makes the network to begin with.
      readers: of the training and test images.
      lambda_: share of cross-entropy.
      margin: of the triplets.
      per_class: images of each class in a batch.
      after: stages that decide `start` and `readers`.
      **settings: further values that decide them.
    """
    stage = run.stage(name, training, after=after, lambda_=lambda_, margin=margin,
                      per_class=per_class, revision=2, **settings)  # fmt: skip
    if stage.done:
        return stage
    train, test = readers
    model = start()
    seed, size = run.seed(name), training.batch_size
    labels = run.dataset.train.labels
    chosen = AnchorBatches(labels, run.train_indices, size, per_class, seed)
    run.train(
        stage,
        model,
        ImageLoss(lambda_, margin),
        class_stream(chosen, SingleImage(train, seed)),
        training,
        evaluator=evaluator_on(run, train, size),
    )
    stage.save_model(model)
    save_scores(
        run,
        stage,
        held_out=lambda rows: run.outputs(model, train, rows, batch_size=size)["logits"],
        test=lambda rows: run.outputs(model, test, rows, batch_size=size)["logits"],
    )
    return stage


def save_scores(run: Run, stage: Stage, *, held_out, test) -> None:
    """Finish a classifier's stage: its logits as the artifact `scores`, its accuracies."""
    labels, rows = run.dataset.test.labels, np.arange(len(run.dataset.test))
    logits = {"test": test(rows)}
    metrics = {"top1": classification.classification_metrics(logits["test"], labels)["top1"]}
    held = run.held_out_indices
    logits["held_out"] = np.zeros((0, logits["test"].shape[1]), np.float32)
    if len(held):
        logits["held_out"] = held_out(held)
        found = classification.classification_metrics(
            logits["held_out"], run.dataset.train.labels[held]
        )
        metrics["held_out_top1"] = found["top1"]
    stage.save_arrays("scores", **logits)
    stage.finish(metrics)
