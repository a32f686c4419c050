"""Measures of trained models."""

from fgjax.evaluation.expansion import expand_queries, k_reciprocal
from fgjax.evaluation.rerank import rerank
from fgjax.evaluation.retrieval import nearest, ranked_metrics, retrieval_metrics
from fgjax.evaluation.uncertainty import paired_bootstrap, wilson_interval

__all__ = [
    "expand_queries",
    "k_reciprocal",
    "nearest",
    "paired_bootstrap",
    "ranked_metrics",
    "rerank",
    "retrieval_metrics",
    "wilson_interval",
]
