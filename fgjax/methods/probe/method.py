"""Probe: what a backbone's features are worth as they are, without training the backbone.

  features   f / ‖f‖ of whole images, as the weights give them, once for every image
  head       multinomial logistic regression on them, as strongly regularised as
             cross-validation on the training images says

Every method that trains the backbone has to beat this one.
"""

import dataclasses
import logging
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.config import require
from fgjax.errors import UserError
from fgjax.evaluation import classification, retrieval_metrics
from fgjax.losses.common import normalize
from fgjax.methods.shared import calibration
from fgjax.methods.shared.classifier import whole_images
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.methods.shared.predictor import WholeImagePredictor
from fgjax.models import layers
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)

_NEVER = -1e4  # the logit of a class without an image, which is never the answer


@dataclasses.dataclass
class Config:
    """Hyper-parameters."""

    batch_size: int = 64  # of the forward passes, over all devices
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)  # C: the larger, the less regularised
    folds: int = 3  # of the cross-validation that chooses among them
    iterations: int = 200  # of L-BFGS at most

    @property
    def searches_unseen_classes(self) -> bool:
        """Whether training and test may have different classes."""
        return True

    def validate(self) -> None:
        """Refuse what cannot work."""
        fine = bool(self.strengths) and all(value > 0 for value in self.strengths)
        require(fine, "strengths", self.strengths, "positive numbers")
        require(self.folds >= 2, "folds", self.folds, "at least 2")
        require(self.iterations >= 1, "iterations", self.iterations, "at least 1")


def run(run: Run) -> dict[str, Any]:
    """Both stages; returns the metrics, and what is particular to their protocol.

    With `data.zero_shot` there is no head: unseen classes are searched by the features.
    """
    config: Config = run.config.method
    features = extract(run, config)
    protocol = {"boxes_used": False, "backbone_trained": False}
    if run.config.data.zero_shot:
        return {"metrics": features.metrics, "protocol": {**protocol, "similarity": "cosine"}}
    head = fit_head(run, config, features)
    chosen = f"{config.folds}-fold cross-validation on the training images"
    protocol |= {
        "strength_chosen_by": chosen,
        "probabilities": calibration.described(head.metrics, "the folds of the cross-validation"),
    }
    return {"metrics": head.metrics, "protocol": protocol}


def extract(run: Run, config: Config) -> Stage:
    """Stage `features`: unit features of both splits as the artifact `features`."""
    stage = run.stage("features")
    if stage.done:
        return stage
    model, (train, test) = run.build_model(), whole_images(run)
    unseen = run.config.data.zero_shot
    readers = {"test": test} if unseen else {"train": train, "test": test}
    found = {}
    for name, reader in readers.items():
        rows = np.arange(len(reader.split))
        found[name] = embeddings_of(run, model, Embed(), reader, rows, batch_size=config.batch_size)
    stage.save_arrays("features", **found)
    metrics = {}
    if unseen:
        metrics = run.compute(
            lambda: retrieval_metrics(found["test"], test.split.labels), instead=lambda: {}
        )
    stage.finish(metrics)
    return stage


class ProbeNetwork(nnx.Module):
    """A backbone with a linear head on f / ‖f‖."""

    def __init__(self, backbone: models.Backbone, *, rngs: nnx.Rngs):
        self.backbone = backbone
        self.head = layers.Linear(backbone.features, backbone.num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs, with the head's logits."""
        outputs = self.backbone(images, key=key)
        return {**outputs, "logits": self.head(normalize(outputs["pooled"]))}


def build(run: Run) -> ProbeNetwork:
    """The network with a head that is yet to be fitted."""
    return ProbeNetwork(run.build_model(), rngs=nnx.Rngs(run.key("head")))


def fit_head(run: Run, config: Config, features: Stage) -> Stage:
    """Stage `head`: the classifier, measured once on test."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    del settings["batch_size"]
    stage = run.stage("head", after=(features,), revision=2, **settings)
    if stage.done:
        return stage
    table, train, test = features.load_arrays("features"), run.dataset.train, run.dataset.test
    rows = run.train_indices
    chosen, weights, bias, outside = run.compute(
        lambda: _fitted(config, table["train"][rows], train.labels[rows], run),
        instead=lambda: (
            config.strengths[0],
            *_nothing(table["train"], run),
            np.zeros((len(rows), run.dataset.num_classes), np.float32),
        ),
    )
    logits = {name: values @ weights + bias for name, values in table.items()}
    metrics = classification.classification_metrics(logits["test"], test.labels)
    if len(run.held_out_indices):
        held = run.held_out_indices
        found = classification.classification_metrics(logits["train"][held], train.labels[held])
        metrics["held_out_top1"] = found["top1"]
    own = train.labels[rows[: len(outside)]]
    known = outside[np.arange(len(outside)), own] > _NEVER / 2  # its class was in the other folds
    metrics |= calibration.calibrate(run, outside[known], logits["test"], labels=own[known])
    stage.save_arrays("head", weights=weights, bias=bias)
    stage.save_arrays("predictions", logits=logits["test"], labels=test.labels)
    stage.finish({**metrics, "strength": chosen})
    log.info("head: C = %g, top-1 %.3f", chosen, metrics["top1"])
    return stage


def _nothing(table: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
    classes = run.dataset.num_classes
    return np.zeros((table.shape[1], classes), np.float32), np.zeros(classes, np.float32)


def _fitted(
    config: Config, features: np.ndarray, labels: np.ndarray, run: Run
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """The strength with the highest accuracy over the folds; weights [D, K], bias [K].

    Besides the logits [N, K] of each image by a head of that strength that was fitted without it.
    Among equals the stronger regularisation wins. There are no more folds than the largest class
    has images; where it has one, a strength in the middle is taken, and there are no such logits.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    candidates, count = sorted(config.strengths), min(config.folds, np.bincount(labels).max())
    accuracies = np.zeros((max(count, 1), len(candidates)))
    outside = np.full((len(candidates), len(labels), run.dataset.num_classes), _NEVER, np.float32)
    with warnings.catch_warnings():
        # Small classes: a fold then lacks them. Few iterations: what is reached is what is meant.
        warnings.simplefilter("ignore")
        folds = ()
        if count > 1:
            splitter = StratifiedKFold(count, shuffle=True, random_state=run.seed("folds"))
            folds = splitter.split(features, labels)
        for fold, (fitted, judged) in enumerate(folds):
            # From the stronger to the weaker, each from where the one before ended.
            model = LogisticRegression(max_iter=config.iterations, warm_start=True)
            for position, strength in enumerate(candidates):
                model.set_params(C=strength).fit(features[fitted], labels[fitted])
                weights, bias = _full(model, features, run)
                found = outside[position, judged] = features[judged] @ weights + bias
                accuracies[fold, position] = np.mean(found.argmax(axis=1) == labels[judged])
        best = int(np.argmax(accuracies.mean(axis=0))) if count > 1 else len(candidates) // 2
        chosen = candidates[best]
        model = LogisticRegression(C=chosen, max_iter=config.iterations).fit(features, labels)
    return float(chosen), *_full(model, features, run), outside[best][: len(labels) * (count > 1)]


def _full(model: Any, features: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, K] and bias [K] of a fitted model for all classes, seen or not."""
    rows, offsets = model.coef_, model.intercept_
    if len(rows) == 1:  # of two classes there is one row, the difference of their logits
        rows, offsets = (np.concatenate([-each, each]) / 2 for each in (rows, offsets))
    weights, bias = _nothing(features, run)
    bias[:] = _NEVER
    weights[:, model.classes_], bias[model.classes_] = rows.T, offsets
    return weights, bias


def load_network(run: Run) -> ProbeNetwork:
    """The network as the finished run left it."""
    config: Config = run.config.method
    stored = fit_head(run, config, extract(run, config)).load_arrays("head")
    model = build(run)
    model.head.kernel[...] = jnp.asarray(stored["weights"])
    model.head.bias[...] = jnp.asarray(stored["bias"])
    model.eval()
    return model


def load_predictor(run: Run) -> WholeImagePredictor:
    """Class probabilities of new images.

    Raises:
      UserError: the run searched unseen classes, and has no head.
    """
    if run.config.data.zero_shot:
        raise UserError(
            f"{run.workdir} searched unseen classes and knows no classes of new images: use "
            f"fgjax search --workdir={run.workdir} --index=FOLDER."
        )
    network = load_network(run)
    measured = run.stages["head"].metrics
    return WholeImagePredictor(run, network, temperature=measured.get("temperature", 1.0))


def load_embedder(run: Run):
    """`images -> unit features [N, D]` for `fgjax.search`."""
    model = run.build_model()
    model.eval()
    return lambda images: np.asarray(
        classification.forward(model, Embed(), {"image": images})["embedding"]
    )
