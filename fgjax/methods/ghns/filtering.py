"""Stages `filter` and `hard_negatives`: GHNS's section 3.2 on the features of its part networks."""

import dataclasses
import logging
import time

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax.config import Training
from fgjax.data import loading
from fgjax.data.loading import Example
from fgjax.errors import UserError
from fgjax.evaluation.classification import classification_metrics
from fgjax.methods.ghns import hard_negatives
from fgjax.methods.ghns.hard_negatives import HardNegatives
from fgjax.methods.ghns.part_networks import load_views
from fgjax.methods.ghns.part_sets import Views
from fgjax.models import layers
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CachedFeatures:
    """Transform that looks features up: they are constants when their networks are frozen."""

    views: Views
    seed: int

    def __call__(self, position: int, index: int) -> Example:
        """Features float32 [P, D] of a random view, label, index."""
        row = self.views.draw(index, loading.generator(self.seed, position))
        return {
            "features": self.views.features[row],
            "label": np.int32(self.views.labels[index]),
            "index": np.int32(index),
        }


def filter_loss(model: nnx.Module, batch, statistics, key):
    """Cross-entropy of unshuffled sets."""
    del statistics, key
    logits = model(batch["features"].reshape(len(batch["features"]), -1))
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])}


def build_filter(run: Run, features: np.ndarray) -> layers.Linear:
    """FilterNet: one layer on the concatenated features of the parts."""
    width = int(np.prod(features.shape[1:]))
    rngs = nnx.Rngs(run.key("filter"))
    return layers.Linear(width, run.dataset.num_classes, rngs=rngs)


def train_filter(run: Run, training: Training, networks: Stage) -> Stage:
    """FilterNet, on the features of whole sets; the extractors are frozen, so these are cached."""
    stage = run.stage("filter", training, after=(networks,))
    if stage.done:
        return stage
    views, held = load_views(run, networks), run.held_out_indices
    model, seed = build_filter(run, views.features), run.seed("filter")
    stream = loading.stream(run.train_indices, CachedFeatures(views, seed), seed=seed)

    def top1(model: nnx.Module, features: np.ndarray, labels: np.ndarray) -> float:
        logits = run.compute(
            lambda: np.asarray(model(jnp.asarray(features.reshape(len(features), -1)))),
            instead=lambda: np.zeros((len(features), run.dataset.num_classes), np.float32),
        )
        return classification_metrics(logits, labels)["top1"]

    def evaluate(model: nnx.Module, epoch: int) -> dict[str, float]:
        del epoch
        return {"held_out_top1": top1(model, views.features[held], views.labels[held])}

    evaluator = evaluate if len(held) else None
    run.train(stage, model, filter_loss, stream, training, evaluator=evaluator)
    stage.save_model(model)
    test = networks.load_arrays("features")["test"]
    metrics = {"test_top1": top1(model, test, run.dataset.test.labels)}
    stage.finish(metrics | (evaluate(model, training.epochs) if evaluator else {}))
    return stage


def make_hard_negatives(
    run: Run, networks: Stage, filter_net: Stage, *, tau: float, wanted: int, max_attempts: int,
    negatives: str = "filtered",
) -> Stage:  # fmt: skip
    """Recipes of the kept samples as the artifact `kept`, and what the generator did.

    With `negatives` "unfiltered" the first candidates are kept, whatever the filter thinks of them;
    with "random" they are whole images of other classes.
    """
    stage = run.stage(
        "hard_negatives", after=(networks, filter_net), tau=tau, hard_negatives=wanted,
        max_attempts=max_attempts, negatives=negatives,
    )  # fmt: skip
    if stage.done:
        return stage
    views = load_views(run, networks)
    features, labels, indices = views.features, views.labels, views.of(run.train_indices)
    model = build_filter(run, features)
    filter_net.restore_model(model)
    began = time.monotonic()
    made = run.compute(
        lambda: hard_negatives.generate(
            run.key("hard_negatives"), features, labels, indices,
            model.kernel[...], model.bias[...],
            wanted=wanted, threshold=tau if negatives == "filtered" else -1.0,
            max_attempts=max_attempts,
        ),
        instead=lambda: hard_negatives.as_many_as_wanted(labels, features.shape[1], wanted),
    )  # fmt: skip
    seconds = time.monotonic() - began
    if negatives == "random":
        made = hard_negatives.with_random_images(
            made, labels, indices, seed=run.seed("hard_negatives", "random")
        )
    kept, each = made.kept, np.bincount(made.kept.label, minlength=run.dataset.num_classes)
    short = {run.dataset.class_names[k]: int(n) for k, n in enumerate(each)
             if n < wanted}  # fmt: skip
    if wanted and not len(kept):
        raise UserError(
            f"no candidate of any class reached tau = {tau} within {max_attempts} "
            f"attempts (the best had {made.examples.probability.max():.3f}): lower config.method."
            "tau, or train part_networks and filter longer."
        )
    if short:
        log.warning(
            "%d classes have fewer than %d hard negatives: %s", len(short), wanted,
            ", ".join(f"{name} {n}" for name, n in list(short.items())[:10]),
        )  # fmt: skip
    distances = hard_negatives.distances_to_reference(
        features, labels, indices, kept, made.examples, seed=run.seed("hard_negatives")
    )
    stage.save_arrays("kept", **vars(kept))
    stage.save_arrays("examples", **vars(made.examples))
    stage.save_arrays("distances", **distances)
    metrics = hard_negatives.report(made, distances)
    metrics |= {"classes_with_fewer": short, "seconds_per_kept_sample": seconds / max(len(kept), 1)}
    stage.finish(metrics)
    return stage


def load_kept(stage: Stage) -> HardNegatives:
    """The recipes that stage `hard_negatives` left; their rows are views (`part_sets.Views`)."""
    return HardNegatives(**stage.load_arrays("kept"))
