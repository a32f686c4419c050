"""The built-in synthetic aircraft as a dataset: nothing is downloaded."""

import dataclasses
import pathlib
from typing import cast

import numpy as np
import tensorflow_datasets as tfds

from fgjax.data import synthetic
from fgjax.data.datasets import base
from fgjax.errors import UserError


@dataclasses.dataclass(kw_only=True)
class SyntheticConfig(tfds.core.BuilderConfig):
    """Images of each class in a split, variants of each family, the renderer's seed."""

    images_per_class: int = 60
    variants: int = 4  # of each of the 6 families
    seed: int = 0


class SyntheticAircraft(base.FineGrainedBuilder):
    """Variants of 6 families, `images_per_class` training and as many test images of each."""

    title = "synthetic aircraft"
    part_names = synthetic.PARTS
    levels = ("family",)
    BUILDER_CONFIGS = [SyntheticConfig(name="60")]  # noqa: RUF012

    @property
    def builder_config(self) -> SyntheticConfig:
        """The variant, as `make` chose it."""
        return cast(SyntheticConfig, super().builder_config)

    def class_names(self):
        """Such as `F0-base`."""
        return synthetic.class_names(self.builder_config.variants)

    def expected_counts(self):
        """As many as are drawn."""
        names, each = self.class_names(), self.builder_config.images_per_class
        return base.Counts(len(names) * each, len(names) * each, len(names))

    def layout(self):
        """There are no files: images are drawn."""
        return None

    def examples(self, split, work_dir):
        """Draw the split."""
        names = self.class_names()
        config = self.builder_config
        count, seed = config.images_per_class, config.seed

        def draw():
            for label, name in enumerate(names):
                for index in range(count):
                    image, box, parts = synthetic.render(
                        label, index, seed=seed, split=split, variants=config.variants
                    )
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
    """Builder for `synthetic_aircraft`, `…/IMAGES_PER_CLASS` or `…/IMAGES_PER_CLASSxVARIANTS`.

    Raises:
      UserError: the variant is not of that form.
    """
    count, _, variants = (variant or "60").partition("x")
    if not (count.isdigit() and int(count) and (variants or "4").isdigit()):
        raise UserError(
            f"synthetic_aircraft/{variant} is not known: say synthetic_aircraft/60, the images of "
            "each class in each split, or synthetic_aircraft/30x8, with 8 variants of each family."
        )
    number = int(variants or 4)
    if not 4 <= number <= 48:
        raise UserError(f"a synthetic family has 4 to 48 variants, not {variants}.")
    name = variant or "60"
    config = "60"
    if name != "60":
        config = SyntheticConfig(name=name, images_per_class=int(count), variants=number)
    return SyntheticAircraft(data_dir=data_dir, config=config, file_format="array_record")
