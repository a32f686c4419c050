"""Probe: what a backbone's features are worth as they are, without training the backbone.

  features   f / ‖f‖ of whole images, as the weights give them, once for every image
  head       on them, and nothing else is fitted: `linear` (logistic regression), `cosine` (the
             classes' means), `knn` (the nearest training images vote) or `attention` (learned
             queries choose the places of the map that count); what is free in it,
             cross-validation on the training images chooses

Every method that trains the backbone has to beat this one.
"""

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.errors import UserError
from fgjax.evaluation import classification, retrieval_metrics
from fgjax.losses.common import normalize
from fgjax.methods.probe import attention, heads
from fgjax.methods.probe.attention import Attention
from fgjax.methods.probe.features import unit_features
from fgjax.methods.shared import calibration
from fgjax.methods.shared.attention_head import AttentionHead
from fgjax.methods.shared.classifier import whole_images
from fgjax.methods.shared.embedding import Embed
from fgjax.methods.shared.memory import Memory
from fgjax.methods.shared.predictor import Embedder, WholeImagePredictor, network_of
from fgjax.models import layers
from fgjax.ranges import among, within
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)

_LEARNING = ("knn", "cosine")  # heads that learn images without training
# A head's free number.
_FREE = {"linear": "strength", "knn": "neighbours", "attention": "strength"}


@dataclasses.dataclass
class Config:
    """Hyper-parameters."""

    head: str = among(*heads.HEADS, before="linear")
    neighbours: tuple[int, ...] = within((1, 5, 10, 20), 1, before=(1, 5, 10, 20))  # of knn
    batch_size: int = within(64, 1, 1_000_000)  # of the forward passes, over all devices
    # C of logistic regression: the larger, the less regularised.
    strengths: tuple[float, ...] = within((1.0, 10.0, 100.0, 1000.0), 0, 1e9, above=True)
    # Of each training image: itself, and augmented ones. Attention looks at the first alone.
    views: int = within(1, 1, 100, before=1)
    folds: int = within(3, 2, 1000)  # of the cross-validation that chooses among them
    iterations: int = within(200, 1, 1_000_000)  # of L-BFGS at most
    attention: Attention = dataclasses.field(default_factory=Attention)

    @property
    def searches_unseen_classes(self) -> bool:
        """Whether training and test may have different classes."""
        return True

    @property
    def maps_for(self) -> str:
        """What a backbone's last map is wanted for."""
        return "head=attention" if self.head == "attention" else ""

    @property
    def candidates(self) -> tuple[float, ...]:
        """The values of the head's free number among which cross-validation chooses.

        Of equally accurate ones the first: the least strength, and the most neighbours, because
        the vote of one is always sure.
        """
        most_first = sorted(self.neighbours, reverse=True)
        of = {"linear": sorted(self.strengths), "knn": most_first, "cosine": (0,)}
        return tuple(of[self.fitted_head])

    @property
    def fitted_head(self) -> str:
        """What is fitted to the features; attention begins as the linear head."""
        return "linear" if self.head == "attention" else self.head


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
    free = _FREE.get(config.head)
    protocol |= {
        "head": config.head,
        **({f"{free}_chosen_by": chosen} if free else {}),
        **calibration.described(
            head.metrics, "the folds of the cross-validation", _strangers_of(config.head)
        ),
    }
    return {"metrics": head.metrics, "protocol": protocol}


def _strangers_of(head: str) -> str:
    if head == "attention":
        return "training images of the folds without their own class, which the head has seen"
    return "training images of classes that a head was fitted without, a fifth of them at a time"


def extract(run: Run, config: Config) -> Stage:
    """Stage `features`: unit features of both splits as the artifact `features`."""
    stage = run.stage("features", views=config.views)
    if stage.done:
        return stage
    model, (train, test) = run.build_model(), whole_images(run)
    unseen = run.config.data.zero_shot
    readers = {"test": test} if unseen else {"train": train, "test": test}
    found = {}
    for name, reader in readers.items():
        found[name] = unit_features(run, model, reader, batch_size=config.batch_size)
    if config.views > 1 and not unseen:
        found["further"] = np.stack([
            unit_features(run, model, train, batch_size=config.batch_size, view=view)
            for view in range(1, config.views)
        ])  # fmt: skip
    stage.save_arrays("features", **found)
    metrics = {}
    if unseen:
        metrics = run.compute(
            lambda: retrieval_metrics(found["test"], test.split.labels), instead=lambda: {}
        )
    stage.finish(metrics)
    return stage


class ProbeNetwork(nnx.Module):
    """A backbone with a head on f / ‖f‖, or on its last map."""

    def __init__(self, backbone: models.Backbone, head: nnx.Module):
        self.backbone, self.head = backbone, head

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs, with the head's logits."""
        outputs = self.backbone(images, key=key)
        if isinstance(self.head, AttentionHead):
            logits, shares = self.head(models.last_map(outputs))
            return {**outputs, "logits": logits, "attention": shares}
        return {**outputs, "logits": self.head(normalize(outputs["pooled"]))}


class Neighbours(nnx.Module):
    """The vote of the nearest of the remembered images."""

    def __init__(self, arrays: heads.Arrays, classes: int):
        self.memory = nnx.Variable(jnp.asarray(arrays["memory"]))
        self.labels = nnx.Variable(jnp.asarray(arrays["labels"]))
        self.count, self.classes = int(arrays["count"]), classes

    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits [B, K] of unit features [B, D]."""
        precise = jax.lax.Precision.HIGHEST
        scores = jnp.matmul(features, self.memory[...].T, precision=precise)
        best, rows = jax.lax.top_k(scores, self.count)
        return heads.votes(best, self.labels[...][rows], classes=self.classes)


def build(run: Run, arrays: heads.Arrays, classes: int) -> ProbeNetwork:
    """The network with a fitted head for so many classes."""
    backbone = run.build_model()
    if "queries" in arrays:
        return ProbeNetwork(backbone, attention.of_arrays(arrays))
    if "memory" in arrays:
        return ProbeNetwork(backbone, Neighbours(arrays, classes))
    head = layers.Linear(backbone.features, classes, rngs=nnx.Rngs(0))
    head.kernel[...], head.bias[...] = jnp.asarray(arrays["weights"]), jnp.asarray(arrays["bias"])
    return ProbeNetwork(backbone, head)


def fit_head(run: Run, config: Config, features: Stage) -> Stage:
    """Stage `head`: the classifier, measured once on test."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    del settings["batch_size"], settings["attention"], settings["views"]
    looks = config.head == "attention"
    maps = [attention.keep_maps(run, config.batch_size)] if looks else []
    trained = [config.attention] if looks else []
    stage = run.stage("head", *trained, after=(features, *maps), revision=3, **settings)
    if stage.done:
        return stage
    table, train, test = features.load_arrays("features"), run.dataset.train, run.dataset.test
    rows, classes = run.train_indices, run.dataset.num_classes
    further = heads.of_rows(table.pop("further", heads.NO_VIEWS), rows)
    width = table["train"].shape[1]
    fitted = run.compute(
        lambda: heads.fit(
            config.fitted_head,
            table["train"][rows],
            train.labels[rows],
            classes=classes,
            candidates=config.candidates,
            folds=config.folds,
            iterations=config.iterations,
            seed=run.seed("folds"),
            further=further,
        ),
        instead=lambda: heads.Fitted(
            config.candidates[0],
            heads.empty(config.fitted_head, width, classes),
            np.zeros((len(rows), classes), np.float32),
        ),
    )
    if looks:
        fitted, logits = attention.fit(
            run, stage, config.attention, maps[0].load_arrays("maps"), table["train"], fitted,
            folds=config.folds, iterations=config.iterations,
        )  # fmt: skip
    else:
        logits = {name: heads.logits_of(fitted.arrays, x, classes) for name, x in table.items()}
    chosen, outside = fitted.chosen, fitted.outside
    metrics = classification.classification_metrics(logits["test"], test.labels)
    if len(run.held_out_indices):
        held = run.held_out_indices
        found = classification.classification_metrics(logits["train"][held], train.labels[held])
        metrics["held_out_top1"] = found["top1"]
    own = train.labels[rows][: len(outside)]
    known = (
        outside[np.arange(len(outside)), own] > heads.NEVER / 2
    )  # its class was in the other folds
    strangers = run.compute(
        lambda: heads.strangers(
            config.head, table["train"][rows], train.labels[rows], classes=classes,
            chosen=chosen, iterations=config.iterations, seed=run.seed("strangers"),
            further=further,
        ),
        instead=lambda: None,
    ) if not looks else None  # fmt: skip
    metrics |= calibration.calibrate(
        run, stage, outside[known], logits["test"], labels=own[known], strangers=strangers
    )
    stage.save_arrays("head", **fitted.arrays)
    stage.save_arrays("predictions", logits=logits["test"], labels=test.labels)
    free = _FREE.get(config.head)
    stage.finish({**metrics, **({free: chosen} if free else {})})
    log.info("head %s: %s, top-1 %.3f", config.head, chosen if free else "", metrics["top1"])
    return stage


def load_network(run: Run) -> tuple[ProbeNetwork, tuple[str, ...]]:
    """The network as the finished run left it, with what it learned since; names of its classes."""
    config: Config = run.config.method
    features = extract(run, config)
    stored = fit_head(run, config, features).load_arrays("head")
    classes = tuple(run.dataset.class_names)
    if config.head in _LEARNING:
        memory = load_memory(run)
        if memory.learned()[1]:
            rows, labels = run.train_indices, run.dataset.train.labels[run.train_indices]
            table = features.load_arrays("features")
            further = heads.of_rows(table.get("further", heads.NO_VIEWS), rows)
            own, labels = heads.with_views(table["train"][rows], further, labels)
            all_features, labels, classes = memory.extended(own, labels)
            chosen = run.stages["head"].metrics.get("neighbours", 0)
            stored = heads.fit_one(
                config.head, all_features, labels, classes=len(classes), chosen=chosen,
                iterations=config.iterations,
            )  # fmt: skip
    model = build(run, stored, len(classes))
    model.eval()
    return model, classes


def load_memory(run: Run) -> Memory:
    """What the run may learn without training: images, also of new classes.

    Raises:
      UserError: its head has to be fitted, or there is none.
    """
    config: Config = run.config.method
    if config.head not in _LEARNING or run.config.data.zero_shot:
        has = "no head" if run.config.data.zero_shot else f"the head {config.head}"
        raise UserError(
            f"{run.workdir} has {has}, which cannot learn without training: train a probe "
            "with --config.method.head=knn or cosine."
        )
    return Memory.of(run, extract(run, config), new_classes=True)


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
    model, classes = load_network(run)
    trust = calibration.of(run.stages["head"])
    found = WholeImagePredictor.of(run, network=network_of(run, model), **trust)
    return dataclasses.replace(found, class_names=classes)


def load_embedder(run: Run) -> Embedder:
    """`images -> unit features [N, D]` for `fgjax.search`."""
    return Embedder.of(run, run.build_model(), Embed())
