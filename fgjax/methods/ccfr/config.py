"""CCFR's hyper-parameters."""

import dataclasses

from fgjax.config import Training, added, require, require_classes
from fgjax.methods.ccfr.region_network import grids_of
from fgjax.methods.ccfr.reranking import Reranking
from fgjax.models import Backbone
from fgjax.ranges import among, within

SOURCES = ("learned", "random", "grid", "annotated")


@dataclasses.dataclass
class Config:
    """Hyper-parameters; the paper's values are section 4.2's."""

    # 3.1
    multi_level: bool = True  # otherwise cross-entropy just as long; Table 3
    super_classes: int = within(0, 0)  # C_f; 0: a fifth of the classes. Fig. 3 shows four in one
    parent_weight: float = within(1.0, 0, 1000)  # λ of Eq. 4
    # 3.2
    regions: bool = True  # otherwise x is the image's feature alone; Table 3
    # Sides of the boxes, shares of the image.
    scales: tuple[float, ...] = within((96 / 448, 192 / 448), 0, 1, above=True)
    # Where regions come from; random: anew for each image by its pixels; grid: the same for all;
    # annotated: near the dataset's part labels, so that new images have none. What looking where
    # one has learned to look brings can be told from looking closely.
    boxes: str = among(*SOURCES, before="learned")
    per_scale: int = within(2, 1, 100)  # regions that are fused
    # Regions that the ranking loss compares; NTS-Net compares 6 in all.
    ranked_per_scale: int = within(3, 1, 1000)
    crop_size: int = within(224, 16, 8192)
    iou_threshold: float = within(0.25, 0, 1, above=True)
    scale_separated: bool = True  # otherwise all boxes in one suppression; Table 3
    fusion: bool = True  # otherwise the pooled features side by side; Table 3
    # Batch norm and ReLU between the fusion's 1×1 convolution and its average. As the paper writes
    # it nothing stands there, and the fusion is linear.
    fusion_norm: bool = added(False, before=False)
    pyramid_width: int = within(256, 1, 65536)
    # Maps of the backbone that the pyramid's first levels stand on: 1, the last, and it makes the
    # coarser levels itself; 2, the last ones of two sizes: stages 3 and 4 of a ResNet.
    pyramid_maps: int = within(1, 1, 2, before=1)
    # What the ranking loss ranks regions by: NTS-Net's cross-entropy, or each region's own triplet
    # loss (Eq. 5), the reading in which the triplet loss chooses boxes.
    ranked_by: str = among("cross_entropy", "triplet", before="cross_entropy")
    # Whose features are clustered to super-classes; imagenet needs no stage `classifier`.
    clusters: str = among("classifier", "imagenet", before="classifier")
    # First epochs of `navigator` that look at random regions. A network from scratch is surest
    # where there is nothing to see, and would never look elsewhere; ImageNet's weights need none.
    explore_epochs: int = within(0, 0)
    frozen: bool = False  # keep the pyramid as `navigator` left it
    # NTS-Net's cross-entropy of regions and image side by side, in `navigator`.
    concat_loss: bool = added(False, before=False)
    # In `enhance`, of the losses that are not in Eq. 7 (image, regions, ranking); 0: Eq. 7 alone.
    region_weight: float = within(1.0, 0, 1000, before=1.0)
    margin: float = within(0.2, 0, 1000)  # a of Eq. 5; the paper gives none
    mu: float = within(1.0, 0, 1000)  # Eq. 7
    # Images of each class in a batch, so that there are triplets.
    per_class: int = within(4, 2, 1000)
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
        checks = (
            ("ranked_per_scale", self.ranked_per_scale >= self.per_scale,
             f"at least per_scale = {self.per_scale}"),
            ("pyramid_maps", self.pyramid_maps <= len(self.scales),
             f"at most the number of scales = {len(self.scales)}"),
            ("fusion", self.scale_separated or not self.fusion,
             "False without scale_separated: the fusion network takes each scale's regions"),
            ("fusion_norm", self.fusion or not self.fusion_norm, "False without fusion"),
            ("explore_epochs", self.explore_epochs < max(self.navigator.epochs, 1),
             f"below navigator.epochs = {self.navigator.epochs}"),
        )  # fmt: skip
        for field, fine, wanted in checks:
            require(fine, field, getattr(self, field), wanted)
        require_classes("enhance", self.enhance, self.per_class)
        if self.ranked_by == "triplet":
            require_classes("navigator", self.navigator, self.per_class)
