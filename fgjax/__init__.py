"""fgjax: fine-grained image recognition and retrieval in JAX."""

from fgjax import xla_flags

__version__ = "0.1.0"

xla_flags.protect()


def load(path):
    """The model of a file, or of the Hub's USER/NAME: see `fgjax.model_files`."""
    from fgjax import model_files

    return model_files.load(path)
