"""GHNS's hyper-parameters."""

import dataclasses

from fgjax.config import Training, added, require, require_classes
from fgjax.methods.shared.localization import Localization
from fgjax.ranges import among, within


@dataclasses.dataclass
class Config(Localization):
    """Hyper-parameters; the paper's values are section 4.2's."""

    part_image_size: int = within(224, 16, 8192)
    # 3.1, stage 1
    alpha: float = within(1.0, 0, 1000)  # of L_cls, Eq. 7
    beta: float = within(0.8, 0, 1000)  # of L_triplet; 1 on DeepFashion
    gamma: float = within(1.0, 0, 1000)  # of L_adv; 0.5 on DeepFashion
    margin: float = within(0.2, 0, 1000)  # m of Eq. 1, between unit vectors; the paper gives none
    # A linear D (0) cannot learn the task: its logit is a sum over parts, and each part by itself
    # looks the same in both kinds of sets. "Mapping network and discriminator" may have a layer.
    discriminator_hidden: int = within(128, 0, 65536)
    several: bool = added(True, before=False)  # a set's own parts are of several images of a class
    original_pixels: bool = added(True, before=False)  # parts are not cut from the resized crop
    own_crops: bool = added(False, before=False)  # each part in a random crop of its own box
    reverse_gradient: bool = False  # a min-max game for L_adv, which the paper does not describe
    # Images of each class in a batch, so that there are triplets; 1: plain shuffled batches, which
    # have one by chance.
    per_class: int = within(4, 1, 1000)
    # 3.2, stage 2
    tau: float = within(0.95, 0, 1)  # FilterNet's probability from which a candidate is kept
    hard_negatives: int = within(200, 0, 1_000_000)  # per class; 150 on CUB and DeepFashion; Fig. 4
    max_attempts: int = within(100_000, 1)  # candidates of a class after which it goes with fewer
    # What n⁺ is: filtered candidates, unfiltered ones, random images of other classes.
    negatives: str = among("filtered", "unfiltered", "random", before="filtered")
    # Part features of unit length in the filter, the candidates and the frozen head: of long ones a
    # filter is sure of nearly everything, and τ decides nothing.
    unit_features: bool = added(True, before=False)
    # Of each training image, the views whose part features filter, candidates and frozen head learn
    # from: the one without augmentation, and the others with.
    views: int = within(1, 1, 100, before=1)
    # 3.3, stage 3
    extractors: str = among("finetuned", "frozen")  # n⁺ forwarded with r, p and n; cached
    embedding: int = within(512, 1, 65536)  # width of the layer that frozen features pass
    m1: float = within(0.4, 0, 4, above=True)  # Eq. 9, between unit vectors; the paper gives none
    m2: float = within(0.2, 0, 4, above=True)
    lambda_parts: float = within(0.75, 0, 1)  # Eq. 10
    lambda_original: float = within(0.8, 0, 1)
    lambda_object: float = within(0.8, 0, 1)
    object_windows: str = among("found", "annotated")  # annotated: Table 6, "w/ BB"
    # Eq. 11
    # Weights by search on held-out images (held_out), of a product by their likelihood there
    # (stacked), preset, or by search on test (labelled so).
    fusion: str = among("held_out", "stacked", "preset", "test")
    # Scores at one temperature each, not with preset.
    temperatures: bool = added(True, before=False)
    fusion_original: float = within(0.4, 0, 1)  # a, b, c of `preset`: FGVC-Aircraft's
    fusion_object: float = within(0.4, 0, 1)
    fusion_parts: float = within(0.2, 0, 1)
    # stages
    part_networks: Training = dataclasses.field(default_factory=lambda: Training(epochs=300))
    filter: Training = dataclasses.field(default_factory=lambda: Training(epochs=200))
    parts_classifier: Training = dataclasses.field(default_factory=lambda: Training(epochs=200))
    image_classifiers: Training = dataclasses.field(default_factory=lambda: Training(epochs=200))

    @property
    def preset(self) -> tuple[float, float, float]:
        """a, b, c of Eq. 11: original, object, parts."""
        return self.fusion_original, self.fusion_object, self.fusion_parts

    def validate(self) -> None:
        """Refuse what cannot work."""
        if self.own_crops:
            wanted = "False without original_pixels: a part's own crop is cut from the image"
            require(self.original_pixels, "own_crops", True, wanted)
        require(self.m2 < self.m1, "m1", self.m1, f"above m2 = {self.m2}")
        total = sum(self.preset)
        fine = abs(total - 1) < 1e-6
        wanted = "so that fusion_original, fusion_object and fusion_parts sum to 1"
        require(fine, "fusion_original", self.fusion_original, wanted)
        for name in ("part_networks", "parts_classifier", "image_classifiers"):
            require_classes(name, getattr(self, name), self.per_class)
