"""Stage `parts`: three part boxes in every object crop, by channel grouping (MA-CNN).

Warm-up of the backbone on crops → peaks of its channels → k-means → gates pre-fitted to the
groups → alternation: convolutions and part classifiers learn with the gates fixed, then the gates
with the rest fixed (distance and diversity losses).

`attended_parts` is another localizer. Boxes are in the coordinates of the object crop. Those of
`fixed_parts` stand in for the learned localizers, to see what other parts would bring.
"""

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import losses, models
from fgjax.config import Optimizer, Training
from fgjax.data.loading import Reader, training_stream
from fgjax.localization import boxes, grouping
from fgjax.methods.shared import attended_parts, fixed_parts
from fgjax.methods.shared.attended_parts import AttendedParts
from fgjax.methods.shared.classifier import cross_entropy
from fgjax.methods.shared.part_scores import scores
from fgjax.models import layers
from fgjax.ranges import among, within
from fgjax.training.run import Run, Stage

log = logging.getLogger(__name__)

LEARNED = ("grouping", "attention")
METHODS = (*LEARNED, "annotated", "grid", "random")


@dataclasses.dataclass
class Grouping:
    """MA-CNN's localizer."""

    num_parts: int = within(3, 2, 1000)
    # Side of a part box; MA-CNN: 96 of 448 px, birds 128.
    part_size: float = within(96 / 448, 0, 1, above=True)
    size_of: str = among("image", "crop", before="crop")  # what part_size is a share of
    warmup: Training = dataclasses.field(default_factory=lambda: Training(epochs=30))
    rounds: int = within(2, 0, 1000)  # of the alternation
    classify_epochs: int = within(5, 0)  # of each round, convolutions and classifiers
    group_epochs: int = within(2, 0)  # of each round, and of the pre-fit
    group_optimizer: Optimizer = dataclasses.field(
        default_factory=lambda: Optimizer("adamw", 1e-3, schedule="constant", weight_decay=0.0)
    )
    diversity_weight: float = within(2.0, 0, 1000)  # λ; Dis 1 / Div 2 in the re-uploaded release
    diversity_margin: float = within(0.02, 0, 1000)  # mrg, likewise
    # Where a part is: the middle of its strongest cell (MA-CNN), or between the cells.
    centers: str = among("cell", "refined", before="cell")
    # MA-CNN's k-means; below: see grouping.group_channels.
    compact_share: float = within(1.0, 0, 1, above=True)

    def half_sizes(self, windows: np.ndarray) -> np.ndarray | float:
        """Half sides of the part boxes in crops by these windows [N, 4] of their images."""
        return fixed_parts.half_sizes(self.part_size, windows if self.size_of == "image" else None)


class Gate(nnx.Module):
    """FC, tanh, FC, sigmoid: pooled features [B, D] to channel weights d in (0, 1) [B, C]."""

    def __init__(self, features: int, channels: int, *, rngs: nnx.Rngs):
        self.hidden = layers.Linear(features, channels, rngs=rngs)
        self.out = layers.Linear(channels, channels, rngs=rngs)

    def start_at(self, members: np.ndarray) -> None:
        """Begin the pre-fit near a group: d is 0.9 on its channels and 0.1 elsewhere."""
        self.out.bias[...] = jnp.where(jnp.asarray(members), 1.0, -1.0) * math.log(9)
        self.out.kernel[...] *= 0.1

    def __call__(self, pooled: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(self.out(jnp.tanh(self.hidden(pooled))))


class PartNetwork(nnx.Module):
    """A backbone, one gate and one classifier per part."""

    def __init__(
        self,
        backbone: models.Backbone,
        num_parts: int,
        *,
        refined: bool = False,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.refined = backbone, refined
        features, channels = backbone.features, backbone.channels
        self.gates = nnx.List([Gate(features, channels, rngs=rngs) for _ in range(num_parts)])
        heads = [layers.Linear(channels, backbone.num_classes, rngs=rngs) for _ in range(num_parts)]
        self.heads = nnx.List(heads)
        for head in heads:  # new heads would shake the backbone that the peaks come from
            head.kernel[...] = backbone.fc.kernel[...][-channels:]
            head.bias[...] = backbone.fc.bias[...]

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Backbone outputs and `gates` [B, N, C], `attention` [B, H, W, N], `centers` [B, N, 2]."""
        outputs = self.backbone(images, key=key)
        features = models.last_map(outputs).astype(jnp.float32)
        gates = jnp.stack([gate(outputs["pooled"]) for gate in self.gates], axis=1)
        scores = grouping.part_scores(features, gates)
        attention = grouping.attention(scores)
        pooled = jnp.einsum("bhwn,bhwc->bnc", attention, features)
        part_logits = jnp.stack([head(pooled[:, i]) for i, head in enumerate(self.heads)], axis=1)
        centers = (grouping.refined_centers if self.refined else grouping.part_centers)(scores)
        return {**outputs, "gates": gates, "attention": attention, "part_logits": part_logits,
                "centers": centers}  # fmt: skip


def classify_loss(model, batch, statistics, key):
    """Cross-entropy of the whole crop and of every part: L = CE + Σ_i CE_i."""
    del statistics
    outputs = model(batch["image"], key=key)
    entropy = optax.softmax_cross_entropy_with_integer_labels
    whole = jnp.mean(entropy(outputs["logits"], batch["label"]))
    parts = jnp.mean(jnp.sum(entropy(outputs["part_logits"], batch["label"][:, None]), axis=1))
    return whole + parts, {"whole": whole, "parts": parts}


@dataclasses.dataclass(frozen=True)
class GroupLoss:
    """L_cng = Dis + λ Div on the attention maps (MA-CNN)."""

    diversity_weight: float
    margin: float

    def __call__(self, model, batch, statistics, key):
        """The gates' loss."""
        attention = model(batch["image"], key=key)["attention"]
        distance = jnp.mean(losses.part_distance(attention))
        diversity = jnp.mean(losses.part_diversity(attention, margin=self.margin))
        loss = distance + self.diversity_weight * diversity
        return loss, {"distance": distance, "diversity": diversity}


@dataclasses.dataclass(frozen=True)
class MembershipLoss:
    """Pre-fit: the gates imitate the channel groups."""

    membership: tuple[tuple[bool, ...], ...]

    def __call__(self, model, batch, statistics, key):
        """Mean squared difference between gates and membership."""
        gates = model(batch["image"], key=key)["gates"]
        wanted = jnp.asarray(self.membership, jnp.float32)
        return jnp.mean(jnp.square(gates - wanted)), {}


def localized(model: nnx.Module, batch):
    """Part centres [B, N, 2] of crops, for `classification.forward`."""
    return {"centers": model(batch["image"])["centers"]}


def _channel_peaks(model: nnx.Module, batch):
    centers, strengths = grouping.peaks(models.last_map(model(batch["image"])))
    return {"centers": centers, "strengths": strengths}


def part_centers(run: Run, model: nnx.Module, reader: Reader, *, batch_size: int) -> np.ndarray:
    """Part centres [N, P, 2] in all crops of a split, in the crops' coordinates."""
    rows = np.arange(len(reader.split))
    found = run.outputs(model, reader, rows, batch_size=batch_size, outputs_of=localized)
    return found["centers"]


def build_network(
    run: Run, settings: Grouping, backbone: models.Backbone, method: str = "grouping"
) -> PartNetwork | AttendedParts:
    """A part network around a backbone, by one of the `LEARNED` methods."""
    refined = settings.centers == "refined"
    if method == "attention":
        return AttendedParts(backbone, settings.num_parts, refined=refined, key=run.key("parts"))
    return PartNetwork(
        backbone, settings.num_parts, refined=refined, rngs=nnx.Rngs(run.key("parts"))
    )


def load_network(
    run: Run, settings: Grouping, stage: Stage, method: str = "grouping"
) -> PartNetwork | AttendedParts:
    """The part network as a finished stage left it."""
    model = build_network(run, settings, run.build_model(pretrained=False), method)
    stage.restore_model(model)
    return model


def train_queries(
    run: Run, settings: Grouping, classifier: Stage, reader: Reader, stage: Stage
) -> AttendedParts:
    """Queries on the classifier's own maps."""
    model = build_network(run, settings, run.load_model(classifier), "attention")
    assert isinstance(model, AttendedParts)
    attended_parts.train(
        run, stage, model, reader, diversity_weight=settings.diversity_weight,
        margin=settings.diversity_margin, batch_size=settings.warmup.batch_size,
    )  # fmt: skip
    return model


def train_network(
    run: Run, settings: Grouping, classifier: Stage, reader: Reader, stage: Stage
) -> PartNetwork:
    """Warm-up, grouping, pre-fit and alternation; each step resumes in a folder of its own."""
    indices = run.train_indices
    training = settings.warmup
    stream = training_stream(reader, indices, seed=run.seed("parts"))

    def train(step, model, loss, epochs, optimizer, trainable):
        changed = dataclasses.replace(training, epochs=epochs, optimizer=optimizer)
        run.train(stage, model, loss, stream, changed, step=step, trainable=trainable)

    backbone = run.load_model(classifier)
    train("warm-up", backbone, cross_entropy, training.epochs, training.optimizer, nnx.Param)
    membership = _membership(run, backbone, reader, settings)
    model = build_network(run, settings, backbone)
    assert isinstance(model, PartNetwork)
    for gate, members in zip(model.gates, membership):
        gate.start_at(members)
    only_gates = nnx.All(nnx.Param, nnx.PathContains("gates"))
    all_but_gates = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("gates")))
    prefit = MembershipLoss(tuple(map(tuple, membership.tolist())))
    group = GroupLoss(settings.diversity_weight, settings.diversity_margin)
    gentle = dataclasses.replace(
        training.optimizer,
        learning_rate=training.optimizer.learning_rate / 10,
        schedule="constant",
        warmup_epochs=0.0,
    )
    train("pre-fit", model, prefit, settings.group_epochs, settings.group_optimizer, only_gates)
    for number in range(1, settings.rounds + 1):
        name = f"round-{number}-classify"
        train(name, model, classify_loss, settings.classify_epochs, gentle, all_but_gates)
        name = f"round-{number}-group"
        train(name, model, group, settings.group_epochs, settings.group_optimizer, only_gates)
    return model


def _membership(run: Run, model, reader: Reader, settings: Grouping) -> np.ndarray:
    """The groups [P, C] of a network's channels by where they peak in the training images."""
    size, parts = settings.warmup.batch_size, settings.num_parts
    found = run.outputs(
        model, reader, run.train_indices, batch_size=size, outputs_of=_channel_peaks
    )
    return run.compute(
        lambda: grouping.group_channels(
            found["centers"],
            found["strengths"],
            num_parts=parts,
            compact_share=settings.compact_share,
        ),
        instead=lambda: np.zeros((parts, found["strengths"].shape[1]), bool),
    )


def locate_parts(
    run: Run, classifier: Stage, objects: Stage, method: str, settings: Grouping
) -> Stage:
    """Part boxes of all crops as the artifact `boxes`, scored where the truth is known."""
    stage = run.stage(
        "parts", settings, after=(classifier, objects), shared=True, revision=2, parts=method
    )
    if stage.done:
        return stage
    data, dataset = run.config.data, run.dataset
    windows = objects.load_arrays("boxes")
    splits = {"train": dataset.train, "test": dataset.test}
    half = {name: settings.half_sizes(windows[name]) for name in splits}
    count = settings.num_parts
    grid = {name: fixed_parts.grid(len(split), count, half[name]) for name, split in splits.items()}
    found = {}
    if method == "grid":
        found = grid
    elif method in LEARNED:
        readers = {
            name: Reader(split, data.image_size, data.augmentation, windows[name])
            for name, split in splits.items()
        }
        teach = train_network if method == "grouping" else train_queries
        model = teach(run, settings, classifier, readers["train"], stage)
        stage.save_model(model)
        size = settings.warmup.batch_size
        for name, reader in readers.items():
            centers = part_centers(run, model, reader, batch_size=size)
            found[name] = boxes.around(centers, half[name])
    else:
        for name, split in splits.items():
            if method == "annotated":
                found[name] = fixed_parts.annotated(dataset, split, windows[name], half[name])
            else:
                seed = run.seed("parts", name)
                found[name] = fixed_parts.random(len(split), count, half[name], seed=seed)
    metrics = {}
    if all(split.parts is not None for split in splits.values()):
        metrics = scores(dataset, found, windows, grid)
    stage.save_arrays("boxes", **found)
    stage.finish(metrics)
    if metrics:
        log.info(
            "parts by %s: %.3f of the test centres inside the true part; random %.3f, grid %.3f",
            method, *(metrics[f"test_part_centers_inside{s}"] for s in ("", "_random", "_grid")),
        )  # fmt: skip
    return stage
