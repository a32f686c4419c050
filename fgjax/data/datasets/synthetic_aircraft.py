"""The built-in synthetic aircraft as a dataset: nothing is downloaded."""

import contextlib
import dataclasses
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from fgjax.data import synthetic
from fgjax.data.datasets import base


@dataclasses.dataclass(kw_only=True)
class SyntheticConfig(tfds.core.BuilderConfig):
    """How many images of each class a split holds, and the seed of the renderer."""

    images_per_class: int = 60
    seed: int = 0


class SyntheticAircraft(base.FineGrainedBuilder):
    """24 variants in 6 families, `images_per_class` training and as many test images of each."""

    title = "synthetic aircraft"
    part_names = synthetic.PARTS
    levels = ("family",)
    BUILDER_CONFIGS = [SyntheticConfig(name="60")]  # noqa: RUF012

    def class_names(self):
        """Such as `F0-base`."""
        return synthetic.class_names()

    def open_archives(self, stack: contextlib.ExitStack) -> pathlib.Path:
        """Nothing to open: images are drawn."""
        return pathlib.Path()

    def examples(self, split, work_dir):
        """Draw the split."""
        names = self.class_names()
        count, seed = self.builder_config.images_per_class, self.builder_config.seed

        def draw():
            for label, name in enumerate(names):
                for index in range(count):
                    image, box, parts = synthetic.render(label, index, seed=seed, split=split)
                    yield {
                        "image": synthetic.encode(image, label, index, seed=seed, split=split),
                        "label": label,
                        "bbox": box,
                        "parts": np.asarray(parts, np.float32),
                        "filename": f"{split}/{name}/{index:03d}.jpg",
                        "family": name.split("-")[0],
                    }

        return len(names) * count, draw()


def make(variant: str, data_dir: pathlib.Path, manual_dir: pathlib.Path) -> SyntheticAircraft:
    """Builder for `synthetic_aircraft` or `synthetic_aircraft/IMAGES_PER_CLASS`."""
    count = int(variant) if variant else 60
    config = "60" if count == 60 else SyntheticConfig(name=str(count), images_per_class=count)
    return SyntheticAircraft(data_dir=data_dir, config=config, file_format="array_record")
