"""A model for new images: of a finished run's folder or of a model file, the same object."""

import hashlib
import json
import pathlib
from typing import Any

import jax

from fgjax import __version__, main, methods, model_files
from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Embedder
from fgjax.model_files import Model, rebuilding
from fgjax.training.run import Run


def open_model(path: pathlib.Path) -> Model:
    """The model of a run's folder or a model file; a run's networks are read when they are asked.

    Raises:
      UserError: it is neither.
    """
    return model_files.load(path) if path.is_file() else of_run(main.open_run(path))


def of_run(run: Run) -> Model:
    """The model of a finished run."""
    texts = [(run.workdir / name).read_text() for name in ("config.json", "results.json")]
    fingerprint = hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
    method = methods.of(run.config)

    def embedder() -> Embedder:
        if not hasattr(method, "load_embedder"):
            name = methods.name_of(method)
            raise UserError(
                f"{run.workdir} is a run of {name}, which makes no embeddings for search."
            )
        found = method.load_embedder(run)
        if isinstance(found, Embedder):
            return found
        # A function, of a method of one's own.
        return Embedder(run.config.data.image_size, lambda pixels: {"embedding": found(pixels)})

    return Model(
        _card(run, json.loads(texts[1])), lambda: method.load_predictor(run), embedder, fingerprint
    )


def _card(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of a model, and what decides how it sees an image."""
    protocol = results["protocol"]
    return {
        "name": run.config.name,
        "fgjax": __version__,
        "jax": jax.__version__,
        "method": results["method"],
        "image": {
            "size": run.config.data.image_size,
            "resized": "the whole image to size × size, bilinear, then means of whole blocks",
            "pixels": "RGB in 0 … 255; the networks scale them themselves",
        },
        "protocol": protocol,
        "scores": results["metrics"],
        "licence": (
            f"Weights trained on {protocol['dataset']}, from {protocol['pretrained']}. The terms "
            "of both apply to this file."
        ),
        "rebuilding": rebuilding.described(run),
    }
