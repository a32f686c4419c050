"""HDCL: Hard Decorrelated Centralized Loss for fine-grained image retrieval (Zeng et al.).

Read top to bottom as the paper's section 3:

  start        cross-entropy on the training classes           (stands for ImageNet's weights)
  embedding    f = max ‖ average of the last map               (Fig. 3, `models.pool`)
               x = α f / ‖f‖, o = Wᵀ x                          Eq. 4, 5 `models.heads.CenterHead`
               L = HCL over the top K̂ + λ · decorrelation       Eq. 8, 11 `losses.hdcl_loss`
  search       unit embeddings of unseen classes, each looking for its class among the others

`loss` switches to the baselines of Table 1. `recognition` is section 5.3: plain logits,
cross-entropy for the first epochs, then HCL, and top-1 accuracy on the official test split.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.data import loading
from fgjax.data.loading import Reader
from fgjax.data.sampling import ClassBatches, class_stream
from fgjax.errors import UserError
from fgjax.evaluation import classification, retrieval_metrics
from fgjax.losses.common import normalize
from fgjax.methods.hdcl import in_batch
from fgjax.methods.hdcl.centers import annealed, class_means, trained_classes
from fgjax.methods.hdcl.config import CENTERED, PROXY, Config
from fgjax.methods.hdcl.heads import CenterHead, PairSimilarity
from fgjax.methods.hdcl.ranking import ranked_again
from fgjax.methods.shared import calibration
from fgjax.methods.shared.classifier import evaluator_on, train_classifier, whole_images
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.methods.shared.predictor import Embedder, WholeImagePredictor, network_of
from fgjax.models import layers
from fgjax.training import sharding
from fgjax.training.run import Run, Stage


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the final metrics and what is particular to their protocol."""
    config: Config = run.config.method
    before = start(run, config)
    metrics: dict[str, Any] = {}
    if config.beside_softmax:
        softmax = train_embedding(run, softmax_of(config), before, name="softmax")
        metrics["softmax"] = softmax.metrics
    stage = train_embedding(run, config, before)
    metrics |= stage.metrics
    if config.ranking != "cosine":
        metrics |= run.compute(lambda: ranked_again(stage, config.ranking), instead=lambda: {})
    return {
        "metrics": metrics,
        "protocol": {
            "boxes_used": False,
            "loss": config.loss,
            "batch_size": batch_size(run, config),
            "similarity": "none: classification" if config.recognition else config.ranking,
            "selected_on": "nothing: the last epoch is reported",
            **(calibration.described(metrics) if config.recognition else {}),
        },
    }


def check(run: Run) -> None:
    """Refuse what does not fit the dataset, before anything is trained."""
    config: Config = run.config.method
    classes = run.dataset.num_classes
    if config.loss == "hdcl" and config.top_k > classes:
        raise UserError(
            f"config.method.top_k is {config.top_k}, but must be in 1 … {classes}: {classes} "
            f"classes of {run.dataset.name} train."
        )
    if config.loss in in_batch.LOSSES:
        _class_batches(run, config)


def start(run: Run, config: Config) -> Stage | None:
    """Stage `classifier`, where there are no pretrained weights to start from."""
    return train_classifier(run, config.start) if config.start.epochs else None


# Section 3.1: the embedding


class EmbeddingNetwork(nnx.Module):
    """A backbone and what its loss needs on top of the pooled feature."""

    def __init__(self, backbone: models.Backbone, config: Config, *, rngs: nnx.Rngs):
        self.backbone = backbone
        self.head, self.linear = nnx.data(None), nnx.data(None)
        width = backbone.features
        if config.loss in (*in_batch.LOSSES, PROXY) and config.width:
            width = config.width
            self.linear = layers.Linear(backbone.features, width, rngs=rngs)
        if config.loss in (*CENTERED, PROXY) and not config.recognition:
            self.head = CenterHead(width, backbone.num_classes, alpha=config.alpha, rngs=rngs)
        elif config.loss == "pddm":
            self.head = PairSimilarity(width, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs; `pooled` is the embedding before it gets unit length."""
        outputs = self.backbone(images, key=key)
        if self.linear is None:
            return outputs
        return {**outputs, "pooled": self.linear(outputs["pooled"])}


def build(run: Run, config: Config, before: Stage | None) -> EmbeddingNetwork:
    """The network as training begins."""
    backbone = run.load_model(before) if before else run.build_model()
    return EmbeddingNetwork(backbone, config, rngs=nnx.Rngs(run.key("embedding")))


def embed_of(config: Config) -> Embed:
    """How a loss's embeddings are made at test."""
    scda = config.loss == "scda"
    return Embed(salient=config.wsl or scda, halves=scda, connected=scda)


# Section 3.2 and Table 1: the losses


@dataclasses.dataclass(frozen=True)
class EmbeddingLoss:
    """The loss of a batch of single images, as `Config.loss` says.

    Attributes:
      config: Config's plain fields, so that it hashes.
      trained: classes that train, where some are held out: to the centres there are no others.
    """

    config: tuple[tuple[str, Any], ...]
    trained: tuple[int, ...] = ()

    def __call__(self, model: EmbeddingNetwork, batch, statistics, key):
        """Eq. 11, or a row of Table 1."""
        config = Config(**dict(self.config))
        outputs = model(batch["image"], key=key)
        features, labels = outputs["pooled"], batch["label"]
        metrics = {"feature_norm": jnp.mean(jnp.linalg.norm(features, axis=-1))}
        if config.recognition or config.loss in CENTERED:
            head = model.head if isinstance(model.head, CenterHead) else None  # none: recognition
            logits = outputs["logits"] if head is None else head(features)
            centers = None if head is None else head.centers()
            if self.trained:
                kept = jnp.asarray(self.trained)
                logits, labels = logits[:, kept], jnp.searchsorted(kept, labels)
                centers = None if centers is None else centers[:, kept]
            metrics["accuracy"] = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
            softmax = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            loss = softmax
            if config.loss == "hdcl":
                top_k = statistics.get("top_k", config.top_k)
                hard = losses.hard_softmax_loss(logits, labels, top_k=top_k)
                loss = jnp.where(statistics["warm"], softmax, hard)
                own = jnp.take_along_axis(logits, labels[:, None], axis=1)
                stronger = jnp.sum(logits > own, axis=1)
                metrics["share_outside_top_k"] = jnp.mean(stronger >= config.top_k)
            if centers is not None:
                correlation = losses.decorrelation(centers)
                metrics["decorrelation"] = correlation
                loss = loss + config.decorrelation * correlation
            return jnp.mean(loss), metrics
        if config.loss == "crl":
            margin = 0.5 if config.margin < 0 else config.margin
            each = losses.centralized_ranking_loss(
                normalize(features), labels, statistics["centers"], margin=margin
            )
            return jnp.mean(each), metrics
        if config.loss == PROXY and isinstance(model.head, CenterHead):
            proxies = model.head.centers().T
            kept = jnp.asarray(self.trained) if self.trained else jnp.arange(len(proxies))
            own = jnp.searchsorted(kept, labels)
            return losses.proxy_anchor_loss(features, own, proxies[kept]), metrics
        margin = None if config.margin < 0 else config.margin
        head = model.head if isinstance(model.head, PairSimilarity) else None
        loss = in_batch.loss_of(config.loss, features, labels, margin=margin, head=head)
        return loss, metrics


# Training and search


def softmax_of(config: Config) -> Config:
    """The same with all classes in the denominator: DGCRL, or cross-entropy in recognition."""
    if config.recognition:
        return dataclasses.replace(config, warmup_epochs=config.embedding.epochs)
    return dataclasses.replace(config, loss="dgcrl")


def train_embedding(
    run: Run, config: Config, before: Stage | None, *, name: str = "embedding"
) -> Stage:
    """Stage `embedding`, measured once on test at its end; by another name, another loss."""
    training = config.embedding
    settings = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if f.name not in ("start", "embedding", "beside_softmax", "ranking")
    }
    after = (before,) if before else ()
    # contrastive got a mean for each kind of pair, scda the connected component.
    revision = 2 if config.loss in ("contrastive", "scda") else 1
    stage = run.stage(name, training, after=after, revision=revision, **settings)
    if stage.done:
        return stage
    train, test = whole_images(run, square=config.square)
    model = build(run, config, before)
    rows = np.arange(len(run.dataset.test))
    size = batch_size(run, config)
    embed = embed_of(config)
    if isinstance(model.head, CenterHead) and config.centers == "class_means":
        model.head.start_at(*class_means(run, model, train, batch_size=size))
    if not config.recognition:
        first = embeddings_of(run, model, embed, test, rows, batch_size=size)
        stage.save_arrays("before", embeddings=first, **_centers(model))
    if config.loss != "scda":
        run.train(
            stage,
            model,
            EmbeddingLoss(tuple(settings.items()), trained_classes(run)),
            stream(run, config, train),
            dataclasses.replace(training, batch_size=size),
            name="embedding",
            before_epoch=_before_epoch(run, config, train),
            evaluator=_evaluator(run, config, train),
            title=config.loss,
        )
    stage.save_model(model)
    labels = run.dataset.test.labels
    if config.recognition:
        outputs = run.outputs(model, test, rows, batch_size=size)["logits"]
        stage.save_arrays("predictions", logits=outputs, labels=labels)
        metrics = classification.classification_metrics(outputs, labels)
        held = run.held_out_indices
        if len(held):
            found = run.outputs(model, train, held, batch_size=size)["logits"]
            metrics |= calibration.calibrate(run, stage, found, outputs)
    else:
        found = embeddings_of(run, model, embed, test, rows, batch_size=size)
        stage.save_arrays("after", embeddings=found, labels=labels, **_centers(model))
        metrics = run.compute(
            lambda: retrieval_metrics(found, labels), instead=lambda: {"recall@1": 0.0}
        )
    if evaluate := _evaluator(run, config, train):
        metrics |= evaluate(model, training.epochs)
    stage.finish(metrics)
    return stage


def batch_size(run: Run, config: Config) -> int:
    """The config's; for N-pairs at most two images of every class, as it takes one pair of each."""
    size, unit = config.embedding.batch_size, sharding.divisible(2)
    if config.loss != "n_pairs":
        return size
    classes = len(np.unique(run.dataset.train.labels[run.train_indices]))  # others are held out
    return min(size, 2 * classes // unit * unit)


def stream(run: Run, config: Config, reader: Reader):
    """Shuffled images, or batches of P classes with K images for the in-batch losses."""
    seed, indices = run.seed("embedding"), run.train_indices
    if config.loss not in in_batch.LOSSES:
        return loading.training_stream(reader, indices, seed=seed)
    return class_stream(_class_batches(run, config), loading.SingleImage(reader, seed))


def _class_batches(run: Run, config: Config) -> ClassBatches:
    per_class = 2 if config.loss == "n_pairs" else config.per_class
    return ClassBatches(
        run.dataset.train.labels, run.train_indices, batch_size(run, config), per_class,
        run.seed("embedding"),
    )  # fmt: skip


def _before_epoch(run: Run, config: Config, reader: Reader):
    """CRL's class centres, means of the current embeddings; whether the warm-up still lasts."""
    size = batch_size(run, config)

    def centers(model, epoch: int, key) -> dict[str, Any]:
        return {"centers": class_means(run, model, reader, batch_size=size)[0]}

    def warm(model, epoch: int, key) -> dict[str, Any]:
        warm = {"warm": jnp.asarray(epoch < config.warmup_epochs)}
        if not config.anneal_epochs:
            return warm
        classes = len(trained_classes(run)) or run.dataset.num_classes
        settings = {name: getattr(config, name) for name in ("top_k", "warmup_epochs")}
        top_k = annealed(epoch, classes, anneal_epochs=config.anneal_epochs, **settings)
        return {**warm, "top_k": jnp.asarray(top_k, jnp.int32)}

    return centers if config.loss == "crl" else warm


def _evaluator(run: Run, config: Config, reader: Reader):
    """Search among the held-out classes, or top-1 of the held-out images; None without any."""
    rows = run.held_out_indices
    size = batch_size(run, config)
    if not len(rows) or config.recognition:
        return evaluator_on(run, reader, size)
    labels, embed = reader.split.labels[rows], embed_of(config)

    def evaluate(model, epoch: int) -> dict[str, float]:
        del epoch
        found = embeddings_of(run, model, embed, reader, rows, batch_size=size)
        metrics = run.compute(
            lambda: retrieval_metrics(found, labels), instead=lambda: {"recall@1": 0.0}
        )
        return {f"held_out_{name}": value for name, value in metrics.items()}

    return evaluate


def _centers(model: EmbeddingNetwork) -> dict[str, np.ndarray]:
    """The class centres [D, K], where the loss has any."""
    if isinstance(model.head, CenterHead):
        return {"centers": np.asarray(model.head.centers())}
    return {}


def load_network(run: Run) -> EmbeddingNetwork:
    """The network as the finished run left it."""
    config: Config = run.config.method
    stage = train_embedding(run, config, start(run, config))
    backbone = run.build_model(pretrained=False)
    model = EmbeddingNetwork(backbone, config, rngs=nnx.Rngs(run.key("embedding")))
    stage.restore_model(model)
    return model


def load_predictor(run: Run) -> WholeImagePredictor:
    """Class probabilities of new images, in recognition mode.

    Raises:
      UserError: the run was trained for retrieval.
    """
    if not run.config.method.recognition:
        raise UserError(
            f"{run.workdir} was trained for retrieval and knows no classes of new images: use "
            f"fgjax search --workdir={run.workdir} --index=FOLDER."
        )
    network = network_of(run, load_network(run))
    trust = calibration.of(run.stages["embedding"])
    square = run.config.method.square
    return WholeImagePredictor.of(run, network=network, square=square, **trust)


def load_embedder(run: Run) -> Embedder:
    """`images -> unit embeddings [N, D]` for `fgjax.search`."""
    config: Config = run.config.method
    return Embedder.of(run, load_network(run), embed_of(config), square=config.square)
