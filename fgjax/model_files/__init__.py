"""One file that holds a finished run's model, for machines without its dataset."""

from fgjax.model_files.model import (
    FILE,
    FORMAT,
    REPOSITORY,
    AnyImage,
    Explanation,
    Model,
    load,
    save,
)  # fmt: skip

__all__ = [
    "FILE", "FORMAT", "REPOSITORY", "AnyImage", "Explanation", "Model", "load", "save",
]  # fmt: skip
