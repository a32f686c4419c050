"""Measures of trained models."""

from fgjax.evaluation.retrieval import nearest, retrieval_metrics

__all__ = ["nearest", "retrieval_metrics"]
