"""Datasets by name: a module each with `make(variant, data_dir, manual_dir)`, here or elsewhere."""

import importlib
import pkgutil

from fgjax import own_modules
from fgjax.config import Data
from fgjax.data.datasets import folder
from fgjax.data.datasets.base import FineGrainedBuilder, data_root, load
from fgjax.data.datasets.splits import Dataset, Split
from fgjax.errors import UserError

__all__ = ["Dataset", "Split", "builder_of", "data_root", "load_dataset", "of_config"]

_HELPERS = {"annotations", "archives", "assumed", "base", "folder", "splits"}


def names() -> list[str]:
    """All datasets that can be named in a config, besides `folder`."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS)


def load_dataset(
    name: str, *, data_dir: str = "", manual_dir: str = "", zero_shot: bool = False
) -> Dataset:
    """Prepare (once) and open a dataset.

    Args:
      name: `fgvc_aircraft`, `synthetic_aircraft/10` …, or a module of one's own.
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
    word, _, variant = name.partition("/")
    if word in names():
        module = importlib.import_module(f"{__name__}.{word}")
    else:
        module = own_modules.find(word, having="make")
    if module is None:
        raise UserError(
            f"dataset {name!r} is not known; choose one of {', '.join(names())}, folder for images "
            "of your own, or a module of your own with make(variant, data_dir, manual_dir)."
        )
    root = data_root(data_dir)
    manual = data_root(manual_dir) if manual_dir else root / "manual"
    return module.make(variant, root, manual)


def of_config(data: Data) -> Dataset:
    """The dataset that a config names."""
    if data.dataset == "folder":
        root = data_root(data.data_dir)
        dataset = folder.open_folder(
            data.path, root, test_share=data.test_share, split_seed=data.split_seed,
            annotated=data.annotations,
        )  # fmt: skip
        return dataset.zero_shot() if data.zero_shot else dataset
    return load_dataset(
        data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir, zero_shot=data.zero_shot
    )
