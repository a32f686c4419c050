"""LAPM: Localization-Aware Adaptive Pairwise Margin Loss (Kim, Kim, Byun).

Read top to bottom as the paper's section III:

  classifier   cross-entropy on whole images; what the last stage starts from without ImageNet
  objects      the object's box by CAM                        (III.A, "applied … CAM")
  parts        three part boxes by channel grouping           (III.A, its reference [8])
  margin       sets of part-aware mixtures and L = λ L_cls + (1 − λ) L_pair
               mixtures  Eq. 4-6   fgjax.data.mixing
               margins   Eq. 10-12 fgjax.losses.margin_statistics, before every epoch
               L_pair    Eq. 9, 13-16 fgjax.losses.{positive,negative}_relationship
               L         Eq. 17    fgjax.losses.lapm_loss
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses
from fgjax.config import Training, added, require
from fgjax.data import loading, mixing
from fgjax.data.attention import Attention
from fgjax.data.loading import Reader
from fgjax.evaluation import classification
from fgjax.losses.common import euclidean, normalize
from fgjax.methods.lapm.adaptive_margin import MarginEstimator, fixed_margins, kept_margins
from fgjax.methods.lapm.running_margins import MarginNetwork, RunningMargins
from fgjax.methods.shared import calibration
from fgjax.methods.shared.classifier import evaluator_on, starting_model
from fgjax.methods.shared.localization import (
    Localization,
    Localizer,
    Predictor,
    check_localization,
    crops,
    localize,
)
from fgjax.methods.shared.objects import keep_attention
from fgjax.methods.shared.predictor import network_of
from fgjax.ranges import among, within
from fgjax.training.run import Run, Stage

PAIRS = ("ref_dcdi1", "ref_dcdi2", "dcdi1_dcdi2", "ref_dcdic")


@dataclasses.dataclass
class Config(Localization):
    """Hyper-parameters; the paper's values are FGVC-Aircraft's, section IV.B."""

    # III.A: mixing; where objects and parts are comes from `Localization`
    mixing: str = among("parts", "cutmix", "none")  # Eq. 4-6; Eq. 1-3
    views: str = among("set", "single")  # the reference and its mixtures; one image per reference
    ratio: str = "1:1"  # positive : negative sets, Table 7
    # Label shares of a mixture (Eq. 5): area | cam, of the classifier's attention to each image
    # (SnapMix).
    shares: str = among("area", "cam", before="area")
    # Whether reference and mixtures are each read with a crop, flip and colours of their own, and
    # whether the fourth image of positive sets, of another class, counts in L_cls, too.
    fresh_views: bool = added(True, before=False)
    all_slots: bool = added(True, before=False)
    # Share of each label that all classes get, not in the papers: it belongs to their baselines.
    label_smoothing: float = within(0.0, 0, 1, below=True, before=0.0)
    # III.B: adaptive pairwise margin loss
    lambda_: float = within(0.8, 0, 1)  # Eq. 17; 0.75 on CUB and DeepFashion
    alpha: float = within(1.0, 0, 1000)  # Eq. 12; 1.2 on Cars
    adaptive_margin: bool = True  # Table 5; False takes fixed margins
    additional_term: bool = True  # Table 5; Eq. 11
    samples: int = within(250, 2, 100_000)  # N of Eq. 10, Table 6
    # Of m1 and σ: global | class | reference (Eq. 10 to the letter) | running (the same as an
    # average over training; `samples` then plays no part).
    scope: str = among("global", "class", "reference", "running")
    shared_m1: bool = False  # one m1 and σ, those of (ref, DCDI_1), for all pairs
    l2norm: bool = False  # distances between unit vectors; the paper's are not normalised
    # Below 0: what the adaptive margin is before the first epoch, for each pair, kept.
    fixed_m1: float = within(-1.0, -1000, 1000)
    fixed_m2: float = within(-1.0, -1000, 1000)
    margin: Training = dataclasses.field(default_factory=Training)

    @property
    def positives_negatives(self) -> tuple[int, int]:
        """The two numbers of `ratio`."""
        positives, negatives = self.ratio.split(":")
        return int(positives), int(negatives)

    def validate(self) -> None:
        """Refuse what cannot work."""
        if self.mixing == "none":
            wanted = "area with mixing=none: nothing is mixed"
            require(self.shares == "area", "shares", self.shares, wanted)
        low_first = 0 <= self.fixed_m1 <= self.fixed_m2 or max(self.fixed_m1, self.fixed_m2) < 0
        wanted = f"in [0, fixed_m2 = {self.fixed_m2}], or both below 0"
        require(low_first, "fixed_m1", self.fixed_m1, wanted)
        if not self.adaptive_margin:
            wanted = "another scope without adaptive_margin: a running margin adapts"
            require(self.scope != "running", "scope", self.scope, wanted)
        numbers = self.ratio.split(":")
        fine = len(numbers) == 2 and all(n.isdigit() for n in numbers) and self.ratio != "0:0"
        require(fine, "ratio", self.ratio, "two whole numbers such as 1:2")
        if self.views == "single":
            plain = self.mixing in ("cutmix", "none")
            require(plain, "mixing", self.mixing, "cutmix or none with views=single")
            require(self.lambda_ == 1, "lambda_", self.lambda_, "1 with views=single: no pairs")
        else:
            mixed = self.mixing in ("parts", "cutmix")
            require(mixed, "mixing", self.mixing, "parts or cutmix with views=set")


def check(run: Run) -> None:
    """Refuse what does not fit the dataset, before anything is trained."""
    config: Config = run.config.method
    check_localization(run, config, with_parts=config.mixing == "parts")


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the final metrics and what is particular to their protocol."""
    config: Config = run.config.method
    classifier, objects, parts = localize(run, config, with_parts=config.mixing == "parts")
    margin = train_margin(run, config, classifier, objects, parts)
    localization = {**objects.metrics, **(parts.metrics if parts else {})}
    return {
        "metrics": {**margin.metrics, "localization": localization},
        "protocol": {
            "boxes_used": config.objects == "annotated",
            "parts_used": config.mixing == "parts" and config.parts == "annotated",
            "selected_on": "nothing: the last epoch is reported",
            **calibration.described(margin.metrics),
        },
    }


def transform(
    run: Run,
    config: Config,
    reader: Reader,
    *,
    seed: int,
    attention: Attention | None = None,
    **changes: Any,
):
    """What makes a set (or a single image) of a reference; labels go by attention, if given."""
    donors = mixing.Donors(run.dataset.train.labels, run.train_indices)
    if config.views == "single":
        return mixing.SingleMixing(reader, donors, seed, kind=config.mixing, attention=attention)
    ratio = changes.pop("ratio", config.positives_negatives)
    changes = {"fresh": config.fresh_views, "attention": attention, **changes}
    return mixing.SetMixing(reader, donors, seed, kind=config.mixing, ratio=ratio, **changes)


# Section III.B: the loss


def embed(
    model: nnx.Module, images: jax.Array, *, l2norm: bool, key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """f(x) and logits of sets of images: [B, V, S, S, 3] to [B, V, D] and [B, V, K]."""
    sets, views = images.shape[:2]
    flat = images.reshape(sets * views, *images.shape[2:])
    outputs = model(flat, key=key)
    features = normalize(outputs["pooled"]) if l2norm else outputs["pooled"]
    return features.reshape(sets, views, -1), outputs["logits"].reshape(sets, views, -1)


def margins_of(statistics: dict[str, Any], batch, scope: str) -> losses.PairMargins:
    """The margins of every reference in the batch: scalars, or [B] looked up by class or row."""
    row = {"global": None, "class": batch["label"], "reference": batch["index"]}[scope]
    pick = (lambda table: table) if row is None else (lambda table: table[row])
    return losses.PairMargins(
        **{
            pair: losses.MarginStatistics(
                m1=pick(statistics[pair]["m1"]), sigma=pick(statistics[pair]["sigma"])
            )
            for pair in PAIRS
        }
    )


def running_margins(running: RunningMargins, batch, features: jax.Array) -> losses.PairMargins:
    """The margins of a batch's references, which its distances then update."""
    index, is_negative = batch["index"], 1 - batch["is_positive"]
    between = pair_distances(features)
    distances = jnp.stack([between[pair] for pair in PAIRS], axis=-1)
    found = dict(zip(PAIRS, running.statistics(index, distances, is_negative)))
    running.update(index, distances, is_negative)
    return losses.PairMargins(**found)


def pair_distances(features: jax.Array) -> dict[str, jax.Array]:
    """Distances {pair: [B]} of the four negative pairs of sets of features [B, 4, D]."""
    reference, dcdi1, dcdi2, dcdic = jnp.moveaxis(features, 1, 0)
    return {
        "ref_dcdi1": euclidean(reference, dcdi1),
        "ref_dcdi2": euclidean(reference, dcdi2),
        "dcdi1_dcdi2": euclidean(dcdi1, dcdi2),
        "ref_dcdic": euclidean(reference, dcdic),
    }


@dataclasses.dataclass(frozen=True)
class MarginLoss:
    """L = λ L_cls + (1 − λ) L_pair, mean over the references (Eq. 17)."""

    lambda_: float
    alpha: float
    additional_term: bool
    scope: str
    l2norm: bool
    all_slots: bool = False
    label_smoothing: float = 0.0

    def __call__(self, model, batch, statistics, key):
        """The loss of a batch of sets, and what shows the state of the embedding."""
        features, logits = embed(model, batch["image"], l2norm=self.l2norm, key=key)
        classes = jax.nn.one_hot(batch["labels"], logits.shape[-1])
        soft_labels = jnp.einsum("bvc,bvck->bvk", batch["weights"], classes)  # Eq. 5
        soft_labels = optax.smooth_labels(soft_labels, self.label_smoothing)
        entropy = optax.softmax_cross_entropy(logits, soft_labels)
        positive = batch["is_positive"]
        in_set = jnp.ones_like(entropy)
        if entropy.shape[1] == 4 and not self.all_slots:  # a positive set has three images
            in_set = in_set.at[:, 3].set(1 - positive)
        classification_loss = jnp.sum(entropy * in_set, axis=1) / jnp.sum(in_set, axis=1)
        hit = jnp.argmax(logits[:, 0], axis=-1) == batch["label"]
        metrics = {
            "classification_loss": jnp.mean(classification_loss),
            "accuracy": jnp.mean(hit),
            "feature_norm": jnp.mean(jnp.linalg.norm(features, axis=-1)),
        }
        if self.lambda_ == 1:
            return jnp.mean(classification_loss), metrics
        reference, cdi1, cdi2, other = jnp.moveaxis(features, 1, 0)
        if self.scope == "running":
            margins = running_margins(model.margins, batch, features)
        else:
            margins = margins_of(statistics, batch, self.scope)
        pull = losses.positive_relationship(reference, cdi1, cdi2)  # Eq. 9
        push = losses.negative_relationship(  # Eq. 14
            reference, cdi1, cdi2, other, margins,
            alpha=self.alpha, additional_term=self.additional_term,
        )  # fmt: skip
        loss = losses.lapm_loss(classification_loss, pull, push, positive, lambda_=self.lambda_)
        metrics |= {
            "positive_loss": losses.masked_mean(pull, positive),
            "negative_loss": losses.masked_mean(push, 1 - positive),
            **_pair_metrics(reference, cdi1, margins.ref_dcdi1, positive, self.alpha),
        }
        return jnp.mean(loss), metrics


@dataclasses.dataclass(frozen=True)
class PairDistances:
    """Distances of the four negative pairs of each set, for the margins (Eq. 10)."""

    l2norm: bool

    def __call__(self, model, batch):
        """{pair: [B]}."""
        features, _ = embed(model, batch["image"], l2norm=self.l2norm)
        return pair_distances(features)


def _pair_metrics(reference, dcdi1, margin, positive, alpha):
    """How the distances of (ref, DCDI₁) lie to their band."""
    distance = euclidean(reference, dcdi1)
    negative = 1 - positive
    m2 = margin.m1 + alpha * margin.sigma
    return {
        "m1": jnp.mean(margin.m1),
        "m2": jnp.mean(m2),
        "sigma": jnp.mean(margin.sigma),
        "negative_distance": losses.masked_mean(distance, negative),
        "positive_distance": losses.masked_mean(distance, positive),
        "share_below_m1": losses.masked_mean(distance < margin.m1, negative),
        "share_above_m2": losses.masked_mean(distance > m2, negative),
    }


# The training stage


def train_margin(
    run: Run, config: Config, classifier: Stage, objects: Stage, parts: Stage | None
) -> Stage:
    """Stage `margin`, from ImageNet's weights where there are any; measured on test at its end."""
    training, attention = config.margin, None
    after = (classifier, objects, *([parts] if parts else []))
    if config.shares == "cam":
        looked = keep_attention(run, classifier, batch_size=config.classifier.batch_size)
        after = (*after, looked)
        attention = Attention(looked.load_arrays("maps")["train"])
    names = ("mixing", "views", "ratio", "lambda_", "l2norm", "fresh_views", "all_slots",
             "shares", "label_smoothing")  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    if config.lambda_ < 1:  # without pairs these change nothing
        names = ("alpha", "adaptive_margin", "additional_term", "samples", "scope", "shared_m1",
                 "fixed_m1", "fixed_m2")  # fmt: skip
        settings |= {name: getattr(config, name) for name in names}
    # The first began with the classifier's weights, and drew its donors otherwise.
    stage = run.stage("margin", training, after=after, revision=2, **settings)
    if stage.done:
        return stage
    train, test = crops(run, objects, parts)
    images = 4 if config.views == "set" else 1
    seed = run.seed("margin")
    make = transform(run, config, train, seed=seed, attention=attention)
    model = starting_model(run, classifier)
    network = model
    if config.lambda_ < 1 and config.scope == "running":
        network = MarginNetwork(model, RunningMargins(len(run.dataset.train), len(PAIRS)))
    size = training.batch_size * images
    run.train(
        stage,
        network,
        MarginLoss(
            config.lambda_,
            config.alpha,
            config.additional_term,
            config.scope,
            config.l2norm,
            config.all_slots,
            config.label_smoothing,
        ),
        loading.stream(run.train_indices, make, seed=seed),
        training,
        images_per_example=images,
        before_epoch=_estimator(run, config, train, stage) if config.lambda_ < 1 else None,
        evaluator=evaluator_on(run, train, size),
    )
    stage.save_model(model)
    rows = np.arange(len(run.dataset.test))
    logits = run.outputs(model, test, rows, batch_size=size)["logits"]
    labels = run.dataset.test.labels
    stage.save_arrays("predictions", logits=logits, labels=labels)
    metrics = classification.classification_metrics(logits, labels)
    if len(run.held_out_indices):
        held = run.outputs(model, train, run.held_out_indices, batch_size=size)["logits"]
        held_labels = run.dataset.train.labels[run.held_out_indices]
        metrics["held_out_top1"] = classification.classification_metrics(held, held_labels)["top1"]
        metrics |= calibration.calibrate(run, stage, held, logits)
    steps = max(len(run.train_indices) // training.batch_size, 1) * training.epochs
    metrics["images_forwarded"] = steps * training.batch_size * images
    stage.finish(metrics)
    return stage


def _estimator(run: Run, config: Config, reader: Reader, stage: Stage):
    """Eq. 10 and 12 before every epoch, from negative sets alone."""
    if config.scope == "running":  # the step does it
        return None
    if not config.adaptive_margin and config.fixed_m1 >= 0:
        sigma = (config.fixed_m2 - config.fixed_m1) / max(config.alpha, 1e-6)
        return fixed_margins(PAIRS, config.fixed_m1, sigma)
    estimator = MarginEstimator(
        run,
        PairDistances(config.l2norm),
        lambda seed: transform(run, config, reader, seed=seed, ratio=(0, 1)),
        pairs=PAIRS,
        samples=config.samples,
        scope=config.scope,
        shared=config.shared_m1,
        batch_size=config.margin.batch_size,
        folder=stage.folder,
    )
    return estimator if config.adaptive_margin else kept_margins(estimator, stage)


def load_predictor(run: Run) -> Predictor:
    """For images from anywhere: the object's box, its parts, and the classes' probabilities."""
    config: Config = run.config.method
    classifier, objects, parts = localize(run, config, with_parts=config.mixing == "parts")
    margin = train_margin(run, config, classifier, objects, parts)
    return Predictor.of(
        run,
        localizer=Localizer.of(run, config, classifier, parts),
        network=network_of(run, run.load_model(margin)),
        **calibration.of(margin),
    )
