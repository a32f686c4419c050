"""One file that holds a finished run's model, for machines without its dataset."""

from fgjax.model_files.model import FORMAT, AnyImage, Explanation, Model, load, save

__all__ = ["FORMAT", "AnyImage", "Explanation", "Model", "load", "save"]
