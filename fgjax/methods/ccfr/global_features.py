"""CCFR section 3.1: the multi-level loss for effective global features (Eq. 1-4)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.data import loading
from fgjax.methods.ccfr.config import Config
from fgjax.methods.ccfr.hierarchy import build_hierarchy, super_class_count
from fgjax.methods.ccfr.region_features import finish_with_features
from fgjax.methods.shared.classifier import evaluator_on, starting_model, whole_images
from fgjax.models import layers
from fgjax.training.run import Run, Stage


class MultiLevelNetwork(nnx.Module):
    """A backbone and a second classifier, of super-classes."""

    def __init__(self, backbone: models.Backbone, super_classes: int, *, rngs: nnx.Rngs):
        self.backbone = backbone
        self.parent_fc = layers.Linear(backbone.features, super_classes, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """The backbone's outputs and `parent_logits`; `features` are the pooled ones."""
        outputs = self.backbone(images, key=key)
        pooled = outputs["pooled"]
        return {**outputs, "features": pooled, "parent_logits": self.parent_fc(pooled)}


@dataclasses.dataclass(frozen=True)
class GlobalLoss:
    """ℓ₁ + λ ℓ₂ + ℓ_h (Eq. 4); ℓ₁ alone without parents."""

    parents: tuple[int, ...]
    parent_weight: float

    def __call__(self, model: MultiLevelNetwork, batch, statistics, key):
        """The loss of a batch of single images."""
        del statistics
        outputs, labels = model(batch["image"], key=key), batch["label"]
        logits = outputs["logits"]
        metrics = {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels)}
        if not self.parents:
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(each), metrics
        parents = np.array(self.parents, np.int32)
        coarse = outputs["parent_logits"]
        each = losses.multi_level_loss(
            logits, coarse, labels, parents, parent_weight=self.parent_weight
        )
        own = jnp.asarray(parents)[labels]
        metrics["super_class_accuracy"] = jnp.mean(jnp.argmax(coarse, axis=-1) == own)
        return jnp.mean(each), metrics


def build_multi_level(run: Run, config: Config, backbone: models.Backbone) -> MultiLevelNetwork:
    """The network around its backbone."""
    count = super_class_count(config.super_classes, run.dataset.num_classes)
    return MultiLevelNetwork(backbone, count, rngs=nnx.Rngs(run.key("pretrain")))


def pretrain(run: Run, config: Config, classifier: Stage | None) -> Stage:
    """Stage `pretrain`; leaves the artifact `features`, as `enhance` does.

    `classifier` may be None where everything starts from ImageNet's weights.
    """
    training, parents = config.pretrain, ()
    before = (classifier,) if classifier else ()
    if config.multi_level:
        hierarchy = build_hierarchy(
            run, classifier, super_classes=config.super_classes, batch_size=training.batch_size
        )
        parents = tuple(hierarchy.load_arrays("hierarchy")["parents"].tolist())
        before += (hierarchy,)
    stage = run.stage("pretrain", training, after=before, parent_weight=config.parent_weight,
                      multi_level=config.multi_level)  # fmt: skip
    if stage.done:
        return stage
    start = starting_model(run, classifier) if classifier else run.build_model()
    model = build_multi_level(run, config, start)
    both = whole_images(run)
    run.train(
        stage,
        model,
        GlobalLoss(parents, config.parent_weight),
        loading.training_stream(both[0], run.train_indices, seed=run.seed("pretrain")),
        training,
        evaluator=evaluator_on(run, both[0], training.batch_size),
    )
    finish_with_features(run, stage, model, training.batch_size, both)
    return stage
