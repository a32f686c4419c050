"""Stage `classifier`: the backbone on whole images with cross-entropy."""

import logging

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fgjax import models
from fgjax.config import Training
from fgjax.data.loading import Reader, training_stream
from fgjax.evaluation import classification
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


def cross_entropy(model, batch, statistics, key):
    """Softmax cross-entropy of single images."""
    del statistics
    logits = model(batch["image"], key=key)["logits"]
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])}


def whole_images(run: Run, *, square: bool = False) -> tuple[Reader, Reader]:
    """Readers of the whole training and test images; squashed, or a square of each."""
    data = run.config.data
    make = lambda split: Reader(  # noqa: E731
        split, data.image_size, data.augmentation, square=square
    )
    return make(run.dataset.train), make(run.dataset.test)


def evaluator_on(run: Run, reader: Reader, batch_size: int):
    """Evaluation on the held-out training images during training.

    None without any, and where they are of classes that do not train.
    """
    held_out = run.held_out_indices
    if not len(held_out) or run.config.data.zero_shot:
        return None

    def evaluate(model: nnx.Module, epoch: int) -> dict[str, float]:
        del epoch
        logits = run.outputs(model, reader, held_out, batch_size=batch_size)["logits"]
        metrics = classification.classification_metrics(logits, reader.split.labels[held_out])
        return {f"held_out_{name}": value for name, value in metrics.items()}

    return evaluate


def train_classifier(run: Run, training: Training) -> Stage:
    """Train it, or find it trained."""
    stage = run.stage("classifier", training, shared=True)
    if stage.done:
        return stage
    model = run.build_model()
    train, _ = whole_images(run)
    evaluate = evaluator_on(run, train, training.batch_size)
    stream = training_stream(train, run.train_indices, seed=run.seed("classifier"))
    run.train(stage, model, cross_entropy, stream, training, evaluator=evaluate)
    stage.save_model(model)
    metrics = evaluate(model, training.epochs) if evaluate else {}
    stage.finish(metrics)
    log.info("classifier: held-out top-1 %.3f", metrics.get("held_out_top1", jnp.nan))
    return stage


def starting_model(run: Run, classifier: Stage) -> models.Backbone:
    """ImageNet's weights as in the paper, or what the first classifier learnt from scratch."""
    return run.build_model() if run.config.pretrained else run.load_model(classifier)


def classifier_maps(model: nnx.Module, batch) -> dict[str, jax.Array]:
    """Last feature map, logits: for `classification.iterate`."""
    outputs = model(batch["image"])
    return {"map": models.last_map(outputs), "logits": outputs["logits"]}
