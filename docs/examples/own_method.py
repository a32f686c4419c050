"""A method of your own: a classifier, then the nearest mean of each class decides."""

import dataclasses
from typing import Any

import numpy as np

from fgjax.config import Training, require
from fgjax.evaluation import classification
from fgjax.evaluation.retrieval import normalize_rows
from fgjax.localization import boxes
from fgjax.methods.shared.classifier import train_classifier, whole_images
from fgjax.methods.shared.embedding import Embed, embeddings_of
from fgjax.methods.shared.predictor import (
    BatchedPredictor,
    Images,
    Network,
    Prediction,
    network_of,
)
from fgjax.training.run import Run, Stage


@dataclasses.dataclass
class Config:
    """Hyper-parameters; each can be set on the command line as --config.method.FIELD."""

    temperature: float = 0.1  # of the softmax over cosines
    classifier: Training = dataclasses.field(default_factory=Training)

    def validate(self) -> None:
        """Refuse what cannot work."""
        require(self.temperature > 0, "temperature", self.temperature, "positive")


def run(run: Run) -> dict[str, Any]:
    """All stages; returns the metrics and what is particular to their protocol."""
    means = train_means(run, run.config.method)
    return {"metrics": means.metrics, "protocol": {"boxes_used": False}}


def train_means(run: Run, config: Config) -> Stage:
    """Stage `means`: trained, or found finished."""
    classifier = train_classifier(run, config.classifier)
    stage = run.stage("means", after=(classifier,), temperature=config.temperature)
    if stage.done:
        return stage
    model = run.load_model(classifier)
    train, test = whole_images(run)
    size = config.classifier.batch_size
    found = embeddings_of(run, model, Embed(), train, run.train_indices, batch_size=size)
    labels = run.dataset.train.labels[run.train_indices]
    means = np.stack([found[labels == k].mean(axis=0) for k in range(run.dataset.num_classes)])
    stage.save_arrays("means", means=means)
    rows = np.arange(len(run.dataset.test))
    queries = embeddings_of(run, model, Embed(), test, rows, batch_size=size)
    logits = logits_of(queries, means, config.temperature)
    stage.finish(classification.classification_metrics(logits, run.dataset.test.labels))
    return stage


def logits_of(embeddings: np.ndarray, means: np.ndarray, temperature: float) -> np.ndarray:
    """Cosines with the class means over the temperature [N, K]."""
    return normalize_rows(embeddings) @ normalize_rows(means).T / temperature


@dataclasses.dataclass(frozen=True)
class MeansPredictor(BatchedPredictor):
    """Images from anywhere, for `fgjax predict`."""

    network: Network
    means: np.ndarray
    temperature: float

    def _predict(self, images: Images) -> list[Prediction]:
        found = self.network(self._whole(images))["embedding"]
        scores = classification.softmax(logits_of(found, self.means, self.temperature))
        nothing = np.zeros((0, 4), np.float32)
        return [Prediction(row, boxes.WHOLE.copy(), nothing) for row in scores]


def load_predictor(run: Run) -> MeansPredictor:
    """What `fgjax predict` asks a method for."""
    means = train_means(run, run.config.method).load_arrays("means")["means"]
    network = network_of(run, run.load_model(run.stages["classifier"]), Embed())
    return MeansPredictor.of(
        run, network=network, means=means, temperature=run.config.method.temperature
    )
