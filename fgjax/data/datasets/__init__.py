"""Datasets by name: one module each with `make(variant, data_dir, manual_dir)`."""

import importlib
import pkgutil

from fgjax.config import Data
from fgjax.data.datasets import folder
from fgjax.data.datasets.base import FineGrainedBuilder, data_root, load
from fgjax.data.datasets.splits import Dataset, Split
from fgjax.errors import UserError

__all__ = ["Dataset", "Split", "builder_of", "data_root", "load_dataset", "of_config"]

_HELPERS = {"archives", "base", "folder", "splits"}


def names() -> list[str]:
    """All datasets that can be named in a config, besides `folder`."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS)


def load_dataset(
    name: str, *, data_dir: str = "", manual_dir: str = "", zero_shot: bool = False
) -> Dataset:
    """Prepare (once) and open a dataset.

    Args:
      name: `fgvc_aircraft`, `synthetic_aircraft`, `synthetic_aircraft/10` …
      data_dir: where prepared files live; default $FGJAX_DATA or ~/.cache/fgjax/data.
      manual_dir: where official archives lie; default `data_dir`/manual.
      zero_shot: whether to split by classes, see `Dataset.zero_shot`.

    Raises:
      UserError: unknown name, or the archive is missing, truncated or not the expected one.
    """
    dataset = load(builder_of(name, data_dir=data_dir, manual_dir=manual_dir))
    return dataset.zero_shot() if zero_shot else dataset


def builder_of(name: str, *, data_dir: str = "", manual_dir: str = "") -> FineGrainedBuilder:
    """The builder of a dataset, which nothing has been prepared for yet.

    Raises:
      UserError: unknown name.
    """
    module, _, variant = name.partition("/")
    if module not in names():
        raise UserError(
            f"dataset {name!r} is not known; choose one of "
            f"{', '.join(names())}, or folder for images of your own."
        )
    root = data_root(data_dir)
    manual = data_root(manual_dir) if manual_dir else root / "manual"
    return importlib.import_module(f"fgjax.data.datasets.{module}").make(variant, root, manual)


def of_config(data: Data) -> Dataset:
    """The dataset that a config names."""
    if data.dataset == "folder":
        root = data_root(data.data_dir)
        dataset = folder.open_folder(
            data.path, root, test_share=data.test_share, split_seed=data.split_seed
        )
        return dataset.zero_shot() if data.zero_shot else dataset
    return load_dataset(
        data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir, zero_shot=data.zero_shot
    )
