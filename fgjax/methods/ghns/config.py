"""GHNS's hyper-parameters."""

import dataclasses

from fgjax.config import Training, added, one_of, require, require_classes
from fgjax.methods.shared.localization import Localization
from fgjax.ranges import within


@dataclasses.dataclass
class Config(Localization):
    """Hyper-parameters; the paper's values are section 4.2's."""

    part_image_size: int = 224
    # 3.1, stage 1
    alpha: float = 1.0  # of L_cls, Eq. 7
    beta: float = 0.8  # of L_triplet; 1 on DeepFashion
    gamma: float = 1.0  # of L_adv; 0.5 on DeepFashion
    margin: float = 0.2  # m of Eq. 1, between unit vectors; the paper gives none
    # A linear D (0) cannot learn the task: its logit is a sum over parts, and each part by itself
    # looks the same in both kinds of sets. "Mapping network and discriminator" may have a layer.
    discriminator_hidden: int = 128
    several: bool = added(True, before=False)  # a set's own parts are of several images of a class
    original_pixels: bool = added(True, before=False)  # parts are not cut from the resized crop
    own_crops: bool = added(False, before=False)  # each part in a random crop of its own box
    reverse_gradient: bool = False  # a min-max game for L_adv, which the paper does not describe
    # Images of each class in a batch, so that there are triplets; 1: plain shuffled batches, which
    # have one by chance.
    per_class: int = within(4, 1)
    # 3.2, stage 2
    tau: float = 0.95  # FilterNet's probability from which a candidate is kept
    hard_negatives: int = 200  # per class; 150 on CUB and DeepFashion; Fig. 4
    max_attempts: int = 100_000  # candidates of a class after which it goes with fewer
    # What n⁺ is: filtered candidates | unfiltered ones | random images of other classes.
    negatives: str = added("filtered", before="filtered")
    # Part features of unit length in the filter, the candidates and the frozen head: of long ones a
    # filter is sure of nearly everything, and τ decides nothing.
    unit_features: bool = added(True, before=False)
    # Of each training image, the views whose part features filter, candidates and frozen head learn
    # from: the one without augmentation, and the others with.
    views: int = within(1, 1, before=1)
    # 3.3, stage 3
    extractors: str = "finetuned"  # finetuned (n⁺ forwarded with r, p and n) | frozen (cached)
    embedding: int = 512  # width of the layer that frozen features pass
    m1: float = 0.4  # Eq. 9, between unit vectors; the paper gives none
    m2: float = 0.2
    lambda_parts: float = 0.75  # Eq. 10
    lambda_original: float = 0.8
    lambda_object: float = 0.8
    object_windows: str = "found"  # found | annotated (Table 6, "w/ BB")
    # Eq. 11
    # Weights by search on held-out images (held_out), of a product by their likelihood there
    # (stacked), preset, or by search on test (labelled so).
    fusion: str = "held_out"
    temperatures: bool = added(
        True, before=False
    )  # scores at one temperature each, not with preset
    fusion_original: float = 0.4  # a, b, c of `preset`: FGVC-Aircraft's
    fusion_object: float = 0.4
    fusion_parts: float = 0.2
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
        super().validate()
        one_of("extractors", self.extractors, "finetuned", "frozen")
        if self.own_crops:
            wanted = "False without original_pixels: a part's own crop is cut from the image"
            require(self.original_pixels, "own_crops", True, wanted)
        one_of("negatives", self.negatives, "filtered", "unfiltered", "random")
        one_of("object_windows", self.object_windows, "found", "annotated")
        one_of("fusion", self.fusion, "held_out", "stacked", "preset", "test")
        for name in ("alpha", "beta", "gamma", "margin", "hard_negatives", "discriminator_hidden"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("lambda_parts", "lambda_original", "lambda_object"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        require(0 <= self.tau <= 1, "tau", self.tau, "in [0, 1]")
        require(self.max_attempts >= 1, "max_attempts", self.max_attempts, "at least 1")
        require(self.part_image_size >= 16, "part_image_size", self.part_image_size, "at least 16")
        require(0 < self.m2 < self.m1, "m1", self.m1, f"above m2 = {self.m2}, and m2 above 0")
        total = sum(self.preset)
        fine = min(self.preset) >= 0 and abs(total - 1) < 1e-6
        require(fine, "fusion_original", self.fusion_original,
                "0 or more like the other two, and the three must sum to 1")  # fmt: skip
        for name in ("part_networks", "parts_classifier", "image_classifiers"):
            require_classes(name, getattr(self, name), self.per_class)
