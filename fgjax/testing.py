"""Small experiments for tests and notebooks: any config, shrunk to seconds."""

import dataclasses
from typing import Any

from fgjax.config import Config, Training


def shrink_in_place(settings: Any, *, epochs: int = 1, batch_size: int = 8) -> None:
    """Cut every `Training` inside a dataclass to `epochs` and `batch_size`."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Training):
            value.epochs, value.batch_size = min(value.epochs, epochs), batch_size
        elif dataclasses.is_dataclass(value):
            shrink_in_place(value, epochs=epochs, batch_size=batch_size)


def shrink(config: Config, data_dir: str) -> Config:
    """A demo's config, in place, on four drawn images a class at 32 px: one epoch of everything."""
    config.data.dataset, config.data.data_dir = "synthetic_aircraft/4", data_dir
    config.data.image_size, config.data.workers = 32, 0
    if not config.data.zero_shot:
        config.data.held_out = 0.25
    shrink_in_place(config.method)
    return config
