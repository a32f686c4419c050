"""LAPM: Localization-Aware Adaptive Pairwise Margin Loss. `method` reads like the paper."""

from fgjax.methods.lapm.method import (
    PAIRS,
    Config,
    MarginLoss,
    PairDistances,
    check,
    load_predictor,
    margins_of,
    run,
    transform,
)

__all__ = [
    "PAIRS", "Config", "MarginLoss", "PairDistances", "check", "load_predictor", "margins_of",
    "run", "transform",
]  # fmt: skip
