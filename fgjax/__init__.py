"""fgjax: fine-grained image recognition and retrieval in JAX."""

__version__ = "0.1.0"
