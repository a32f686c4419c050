"""HDCL: Hard Decorrelated Centralized Loss, for retrieval. `method` reads like the paper."""

from fgjax.methods.hdcl.config import LOSSES, Config
from fgjax.methods.hdcl.heads import CenterHead
from fgjax.methods.hdcl.method import (
    EmbeddingLoss,
    EmbeddingNetwork,
    check,
    load_embedder,
    load_predictor,
    run,
)

__all__ = [
    "LOSSES", "CenterHead", "Config", "EmbeddingLoss", "EmbeddingNetwork", "check", "load_embedder",
    "load_predictor", "run",
]  # fmt: skip
