"""Measures of trained models."""

from fgjax.evaluation.expansion import expand_queries, k_reciprocal
from fgjax.evaluation.rerank import rerank
from fgjax.evaluation.retrieval import nearest, retrieval_metrics

__all__ = ["expand_queries", "k_reciprocal", "nearest", "rerank", "retrieval_metrics"]
