"""fgjax: fine-grained image recognition and retrieval in JAX."""

from fgjax import xla_flags

__version__ = "0.1.0"

xla_flags.protect()
