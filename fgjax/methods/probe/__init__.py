"""Probe: logistic regression on a frozen backbone's features. `method` reads top to bottom."""

from fgjax.methods.probe.method import Config, load_embedder, load_memory, load_predictor, run

__all__ = ["Config", "load_embedder", "load_memory", "load_predictor", "run"]
