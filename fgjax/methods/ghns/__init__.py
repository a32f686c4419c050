"""GHNS: Generator of Hard Negative Samples. `method` reads like the paper."""

from fgjax.methods.ghns.config import Config
from fgjax.methods.ghns.image_classifier import ImageLoss
from fgjax.methods.ghns.method import check, load_predictor, run
from fgjax.methods.ghns.part_networks import PartLoss, PartNetworks
from fgjax.methods.ghns.parts_classifier import PartsClassifier, PartsLoss

__all__ = [
    "Config", "ImageLoss", "PartLoss", "PartNetworks", "PartsClassifier", "PartsLoss",
    "check", "load_predictor", "run",
]  # fmt: skip
