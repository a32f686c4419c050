"""Small experiments for tests and notebooks: any config, shrunk to seconds."""

import dataclasses
from typing import Any

from fgjax.config import Training


def shrink_in_place(settings: Any, *, epochs: int = 1, batch_size: int = 8) -> None:
    """Cut every `Training` inside a dataclass to `epochs` and `batch_size`."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Training):
            value.epochs, value.batch_size = min(value.epochs, epochs), batch_size
        elif dataclasses.is_dataclass(value):
            shrink_in_place(value, epochs=epochs, batch_size=batch_size)
