"""CCFR's hyper-parameters."""

import dataclasses

from fgjax.config import Training, added, one_of, require, require_classes
from fgjax.methods.ccfr.region_network import grids_of
from fgjax.methods.ccfr.reranking import Reranking
from fgjax.models import Backbone

SOURCES = ("learned", "random", "grid", "annotated")


@dataclasses.dataclass
class Config:
    """Hyper-parameters; the paper's values are section 4.2's."""

    # 3.1
    multi_level: bool = True  # otherwise cross-entropy just as long; Table 3
    super_classes: int = 0  # C_f; 0: a fifth of the classes. Fig. 3 shows four in one
    parent_weight: float = 1.0  # λ of Eq. 4
    # 3.2
    regions: bool = True  # otherwise x is the image's feature alone; Table 3
    scales: tuple[float, ...] = (96 / 448, 192 / 448)  # sides of the boxes, shares of the image
    # Where regions come from: learned | random, anew for each image by its pixels | grid, the same
    # for all | annotated, near the dataset's part labels, so that new images have none. What
    # looking where one has learned to look brings can be told from looking closely.
    boxes: str = added("learned", before="learned")
    per_scale: int = 2  # regions that are fused
    ranked_per_scale: int = 3  # regions that the ranking loss compares; NTS-Net compares 6 in all
    crop_size: int = 224
    iou_threshold: float = 0.25
    scale_separated: bool = True  # otherwise all boxes in one suppression; Table 3
    fusion: bool = True  # otherwise the pooled features side by side; Table 3
    # Batch norm and ReLU between the fusion's 1×1 convolution and its average. As the paper writes
    # it nothing stands there, and the fusion is linear.
    fusion_norm: bool = added(False, before=False)
    pyramid_width: int = 256
    # Maps of the backbone that the pyramid's first levels stand on: 1, the last, and it makes the
    # coarser levels itself; 2, stages 3 and 4 of a ResNet.
    pyramid_maps: int = added(1, before=1)
    # What the ranking loss ranks regions by: cross_entropy, NTS-Net's | triplet, each region's own
    # triplet loss (Eq. 5), the reading in which the triplet loss chooses boxes.
    ranked_by: str = added("cross_entropy", before="cross_entropy")
    # Whose features are clustered to super-classes: stage `classifier`'s | imagenet, that stage is
    # not needed.
    clusters: str = added("classifier", before="classifier")
    # First epochs of `navigator` that look at random regions. A network from scratch is surest
    # where there is nothing to see, and would never look elsewhere; ImageNet's weights need none.
    explore_epochs: int = 0
    frozen: bool = False  # keep the pyramid as `navigator` left it
    # NTS-Net's cross-entropy of regions and image side by side, in `navigator`.
    concat_loss: bool = added(False, before=False)
    # In `enhance`, of the losses that are not in Eq. 7 (image, regions, ranking); 0: Eq. 7 alone.
    region_weight: float = added(1.0, before=1.0)
    margin: float = 0.2  # a of Eq. 5; the paper gives none
    mu: float = 1.0  # Eq. 7
    per_class: int = 4  # images of each class in a batch, so that there are triplets
    beside_nts: bool = False  # train NTS-Net's regions as well, and draw both
    # 3.3
    rerank: Reranking = dataclasses.field(default_factory=Reranking)
    # stages
    classifier: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    pretrain: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    navigator: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))
    enhance: Training = dataclasses.field(default_factory=lambda: Training(epochs=60))

    @property
    def maps_for(self) -> str:
        """What a backbone's last map is wanted for."""
        return "its pyramid" if self.regions else ""

    def check_backbone(self, backbone: Backbone, image_size: int) -> None:
        """Refuse images that the pyramid's levels do not divide."""
        if self.regions:
            grids_of(backbone, image_size, len(self.scales), maps=self.pyramid_maps)

    def validate(self) -> None:
        """Refuse what cannot work."""
        one_of("boxes", self.boxes, *SOURCES)
        one_of("ranked_by", self.ranked_by, "cross_entropy", "triplet")
        one_of("clusters", self.clusters, "classifier", "imagenet")
        checks = (
            ("super_classes", self.super_classes >= 0, "0 or more"),
            ("scales", bool(self.scales) and all(0 < s <= 1 for s in self.scales),
             "shares of the image, above 0 and at most 1"),
            ("per_scale", self.per_scale >= 1, "at least 1"),
            ("ranked_per_scale", self.ranked_per_scale >= self.per_scale,
             f"at least per_scale = {self.per_scale}"),
            ("crop_size", self.crop_size >= 16, "at least 16"),
            ("pyramid_width", self.pyramid_width >= 1, "at least 1"),
            ("pyramid_maps", 1 <= self.pyramid_maps <= min(len(self.scales), 2),
             "1 or 2, and not above the number of scales"),
            ("iou_threshold", 0 < self.iou_threshold <= 1, "above 0 and at most 1"),
            ("fusion", self.scale_separated or not self.fusion,
             "False without scale_separated: the fusion network takes each scale's regions"),
            ("fusion_norm", self.fusion or not self.fusion_norm, "False without fusion"),
            ("region_weight", self.region_weight >= 0, "0 or more"),
            ("explore_epochs", 0 <= self.explore_epochs < max(self.navigator.epochs, 1),
             f"0 or more, and below navigator.epochs = {self.navigator.epochs}"),
            ("margin", self.margin >= 0, "0 or more"),
            ("mu", self.mu >= 0, "0 or more"),
            ("parent_weight", self.parent_weight >= 0, "0 or more"),
            ("per_class", self.per_class >= 2, "at least 2: triplets need two"),
        )  # fmt: skip
        for field, fine, wanted in checks:
            require(fine, field, getattr(self, field), wanted)
        require_classes("enhance", self.enhance, self.per_class)
        if self.ranked_by == "triplet":
            require_classes("navigator", self.navigator, self.per_class)
        self.rerank.validate()
