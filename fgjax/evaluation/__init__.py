"""Measures of trained models."""

from fgjax.evaluation.rerank import rerank
from fgjax.evaluation.retrieval import nearest, retrieval_metrics

__all__ = ["nearest", "rerank", "retrieval_metrics"]
